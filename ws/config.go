// Package ws speaks the WebSocket protocol, RFC 6455, and permessage-deflate,
// RFC 7692, in both roles.
//
// A message is opened, fed and finished; opcode, FIN and MASK are
// consequences, never arguments. Any goroutine may call any method of a Conn
// at any time: messages never mix, control frames pass between the fragments
// of a long message, and nothing panics.
//
// A good order to read the source: config.go and errors.go (what is
// promised), conn.go (what a connection is), read.go, write.go, control.go,
// close.go (what it does), then the rest.
package ws

import (
	"log/slog"
	"reflect"
	"sync"
	"time"

	"github.com/weft-ws/weft/internal/proto"
	"github.com/weft-ws/weft/internal/wire"
)

// A MessageType says how the payload of a data message is to be read.
type MessageType uint8

const (
	Text   MessageType = 1 // UTF-8; checked in both directions
	Binary MessageType = 2 // opaque bytes
)

// String returns "text" or "binary".
func (t MessageType) String() string {
	switch t {
	case Text:
		return "text"
	case Binary:
		return "binary"
	}
	return "invalid message type"
}

// A Role is the end of the connection that we speak for. Clients mask, servers
// do not.
type Role = proto.Role

const (
	RoleClient = proto.Client
	RoleServer = proto.Server
)

// Config tunes a connection. The zero value of every field selects the default
// named in its comment; a negative value switches that limit off. A Config is
// copied on use and may be shared.
type Config struct {
	// FragmentSize is the largest frame in bytes, header included, that carries
	// data. Longer messages leave as several frames, and control frames pass
	// between them. Default 16 KiB. Negative: never split, for peers that cannot
	// reassemble; a ping then waits for the whole message.
	FragmentSize int

	// MaxMessageSize bounds the payload of an incoming message in bytes, after
	// reassembly and inflation. Default 1 MiB, then close 1009. Every data frame
	// counts as at least 64 bytes, against this limit or 1 MiB, whichever is
	// larger: floods of tiny or empty fragments close 1008.
	MaxMessageSize int64

	// MaxFragments bounds the data frames of an incoming message. Default none,
	// since the cost above ends floods and lets honest senders pass; then close
	// 1008.
	MaxFragments int

	// MessageTimeout is how long an incoming message may take from its first
	// byte to its FIN. Default 30 s, then close 1008, also when the peer is
	// silent. Time that the application takes does not count.
	MessageTimeout time.Duration

	// GapTimeout is how long an open incoming message may stand still. Default
	// none, then close 1008.
	GapTimeout time.Duration

	// MinRate, in bytes per second, makes MessageTimeout grow with what arrives:
	// a message may take MessageTimeout plus its bytes received divided by
	// MinRate, so that a slow but honest peer can finish. Default none.
	MinRate int64

	// IdleTimeout is how long the peer may send nothing at all while somebody
	// reads. Default none, then close 1008.
	IdleTimeout time.Duration

	// WriteTimeout is how long the peer may take no byte of what we send.
	// Default 30 s, then the connection is dropped.
	WriteTimeout time.Duration

	// CloseTimeout bounds the closing handshake, a message in flight included.
	// Default 5 s, then the connection is dropped.
	CloseTimeout time.Duration

	// KeepAlive is how long the peer may be silent before it is sent a ping.
	// Default none.
	KeepAlive time.Duration

	// PongTimeout is how long a keep-alive ping may go unanswered, by anything,
	// while somebody reads. Default 10 s, then close 1001. Negative: pings go
	// out, and nobody minds when they are not answered.
	PongTimeout time.Duration

	// ControlRate bounds incoming control frames per second, ControlBurst how
	// many may come at once. Default none; burst twice the rate; then close 1008.
	// A negative burst lets any number come at once: then there is no limit.
	ControlRate, ControlBurst int

	// SendQueue bounds the bytes that Send holds. Default 1 MiB; negative means
	// no bound.
	SendQueue int

	// Compression offers (client) or accepts (server) permessage-deflate.
	// Default nil: off.
	Compression *Compression

	// Budget bounds the memory of unfinished messages of all connections that
	// share it. Default nil: none.
	Budget *Budget

	// Logger gets a line for each connection that does not end normally.
	// Default: none.
	Logger *slog.Logger

	// Trace holds hooks for frames and bytes. Default: none.
	Trace *Trace

	// CloseWith may choose another code and reason for the Close that answers a
	// mistake of the peer, for peers that are known to expect others than those
	// of RFC 6455. cause is a *ProtocolError, *LimitError or *TimeoutError. It
	// must not call the Conn and must return a code that may be sent. Default:
	// none, the code and reason given.
	CloseWith func(cause error, code CloseCode, reason string) (CloseCode, string)
}

// Compression tunes permessage-deflate, RFC 7692. The zero value negotiates
// context takeover in both directions and windows of 32 KiB.
type Compression struct {
	// Level is 1 (fast) to 9 (small). Default 1, with context takeover 3.
	Level int
	// Threshold is the payload in bytes below which a message goes plain.
	// Default 512. Negative: compress every message, empty ones included.
	Threshold int
	// NoContextTakeover makes every message stand alone, in both directions: less
	// memory for each connection, larger messages.
	NoContextTakeover bool
	// ServerMaxWindowBits and ClientMaxWindowBits bound the windows of what the
	// server and the client send, 8 to 15. Default 15.
	ServerMaxWindowBits, ClientMaxWindowBits int
}

// Defaults of Config.
const (
	fragmentSizeDefault   = 16 << 10
	messageSizeDefault    = 1 << 20
	messageTimeoutDefault = 30 * time.Second
	writeTimeoutDefault   = 30 * time.Second
	closeTimeoutDefault   = 5 * time.Second
	pongTimeoutDefault    = 10 * time.Second
	sendQueueDefault      = 1 << 20
	thresholdDefault      = 512
)

// messageSizeMost is the largest MaxMessageSize, in bytes; sums with it do not
// overflow.
const messageSizeMost = 1 << 62

// fragmentSizeMin leaves room for a header and one character.
const fragmentSizeMin = wire.HeaderMax + 4

// withDefaults returns the Config with every zero replaced by its default and
// every negative value by zero, which from here on means off.
func (cfg *Config) withDefaults() Config {
	var c Config
	if cfg != nil {
		c = *cfg
	}
	orDefault(&c.FragmentSize, fragmentSizeDefault)
	if c.FragmentSize > 0 {
		c.FragmentSize = max(c.FragmentSize, fragmentSizeMin)
	}
	orDefault(&c.MaxMessageSize, messageSizeDefault)
	c.MaxMessageSize = min(c.MaxMessageSize, messageSizeMost)
	orDefault(&c.MaxFragments, 0)
	orDefault(&c.MessageTimeout, messageTimeoutDefault)
	orDefault(&c.GapTimeout, 0)
	orDefault(&c.MinRate, 0)
	orDefault(&c.IdleTimeout, 0)
	orDefault(&c.WriteTimeout, writeTimeoutDefault)
	orDefault(&c.CloseTimeout, closeTimeoutDefault)
	orDefault(&c.KeepAlive, 0)
	orDefault(&c.PongTimeout, pongTimeoutDefault)
	orDefault(&c.ControlRate, 0)
	orDefault(&c.ControlBurst, 2*c.ControlRate)
	if c.ControlBurst == 0 {
		c.ControlRate = 0 // any number may come at once
	}
	orDefault(&c.SendQueue, sendQueueDefault)
	if c.Compression != nil {
		d := *c.Compression
		orDefault(&d.Level, 0)
		orDefault(&d.Threshold, thresholdDefault)
		c.Compression = &d
	}
	return c
}

// orDefault replaces zero by the default and a negative value by zero.
func orDefault[T int | int64 | time.Duration](v *T, def T) {
	switch {
	case *v == 0:
		*v = def
	case *v < 0:
		*v = 0
	}
}

// settings are a Config with its defaults and what follows from it. They do not
// change, so connections share them: all of a Server, and others while those
// before them asked for the same.
type settings struct {
	Config
	plain, packed proto.Limits // without and with permessage-deflate
}

// settingsFor returns the settings of a new connection.
func settingsFor(cfg Config, s *Server) *settings {
	if s == nil {
		return newSettings(cfg)
	}
	s.once.Do(func() { s.settings = newSettings(cfg) })
	return s.settings
}

// recentSettings holds settings that the next connection may well want, too: a
// third of a KiB that ten thousand connections need not hold each. They are in
// use while they are in it.
var recentSettings sync.Pool

func newSettings(cfg Config) *settings {
	c := cfg.withDefaults()
	s, _ := recentSettings.Get().(*settings)
	if s == nil || !s.same(c) {
		s = makeSettings(c)
	}
	recentSettings.Put(s)
	return s
}

// same reports whether s are what follows from c, which has its defaults.
func (s *settings) same(c Config) bool {
	own, other := s.Compression, c.Compression
	if (own == nil) != (other == nil) || own != nil && *own != *other {
		return false
	}
	c.Compression = own
	x, y := reflect.ValueOf(&s.Config).Elem(), reflect.ValueOf(&c).Elem()
	for i := range x.NumField() {
		if f, g := x.Field(i), y.Field(i); f.Kind() == reflect.Func {
			if !f.IsNil() || !g.IsNil() { // functions cannot be compared
				return false
			}
		} else if !f.Equal(g) {
			return false
		}
	}
	return true
}

// makeSettings returns what follows from c, which has its defaults.
func makeSettings(c Config) *settings {
	s := &settings{Config: c}
	s.plain = proto.Limits{
		MessageSize:  s.MaxMessageSize,
		Fragments:    s.MaxFragments,
		MessageTime:  s.MessageTimeout,
		GapTime:      s.GapTimeout,
		MinRate:      s.MinRate,
		IdleTime:     s.IdleTimeout,
		ControlRate:  s.ControlRate,
		ControlBurst: s.ControlBurst,
	}
	s.packed = s.plain
	s.packed.Deflate = true
	return s
}

// limits is what the Receiver is to enforce.
func (s *settings) limits(deflate bool) *proto.Limits {
	if deflate {
		return &s.packed
	}
	return &s.plain
}
