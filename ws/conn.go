package ws

import (
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"time"

	crand "crypto/rand"

	"github.com/weft-ws/weft/internal/deflate"
)

// A Conn is one WebSocket connection.
//
// All methods may be called from any goroutine. Writers queue for the
// connection one message at a time; control frames overtake them between
// fragments. Readers queue likewise.
//
// Somebody must be reading for pings to be answered and for Ping and keep-alive
// to work: range over Messages, serve with a Handler, or call Drain on a
// connection that only sends.
type Conn struct {
	nc          net.Conn
	raw         syscall.RawConn // nil: go through nc
	cfg         *Config
	subprotocol string
	server      *Server // nil outside a Server
	opened      time.Time

	r readSide
	w writeSide

	dl        sync.Mutex // guards the deadlines of nc against interruptions
	readAt    instant    // read deadline that is set
	writeMax  instant    // no write deadline may be later
	readStop  bool       // a reader was interrupted
	writeStop bool       // a writer was interrupted
	role      Role

	life life
}

// An instant is a time in nanoseconds since Conn.opened, plus one; zero means
// none. It takes a third of the room of a time.Time.
type instant int64

// instant turns t into one; the zero time becomes none.
func (c *Conn) instant(t time.Time) instant {
	if t.IsZero() {
		return 0
	}
	return instant(t.Sub(c.opened)) + 1
}

// time turns at back; none becomes the zero time.
func (c *Conn) time(at instant) time.Time {
	if at == 0 {
		return time.Time{}
	}
	return c.opened.Add(time.Duration(at - 1))
}

// A life is how a connection ends.
type life struct {
	mu      sync.Mutex
	done    chan struct{} // made when asked for
	over    bool          // the socket is closed
	ended   bool          // and everybody has been told
	closing *time.Timer   // gives up on the closing handshake
	pings   *pings        // made with the first ping
}

// established is what the opening handshake settled.
type established struct {
	subprotocol string
	deflate     *deflate.Params // nil: no permessage-deflate
	early       []byte          // bytes that arrived with the handshake
	server      *Server
}

// NewConn wraps a stream on which the opening handshake is already done. cfg
// may be nil. Compression is off: it is negotiated in the handshake.
func NewConn(nc net.Conn, role Role, cfg *Config) *Conn {
	var c Config
	if cfg != nil {
		c = *cfg
	}
	c.Compression = nil
	return newConn(nc, role, c, established{})
}

// newConn starts a connection on a stream whose opening handshake is done.
func newConn(nc net.Conn, role Role, cfg Config, est established) *Conn {
	set := settingsFor(cfg, est.server)
	c := &Conn{
		nc:          nc,
		raw:         rawConn(nc),
		cfg:         &set.Config,
		role:        role,
		subprotocol: est.subprotocol,
		server:      est.server,
		opened:      time.Now(),
	}
	c.r.recv.Init(role.Peer(), set.limits(est.deflate != nil))
	var key func() [4]byte
	if role == RoleClient {
		key = newKeys()
	}
	c.w.sender.Init(role, key)
	if est.deflate != nil {
		c.initDeflate(*est.deflate)
	}
	if c.raw != nil {
		c.r.try = c.attemptRead
	}
	if c.cfg.KeepAlive > 0 {
		c.startKeepAlive()
	}
	if len(est.early) > 0 {
		c.received(est.early)
		c.r.in = est.early
	}
	return c
}

// newKeys returns a source of masking keys. RFC 6455, 10.3: "the masking key
// needs to be unpredictable"; a ChaCha8 stream seeded by the system is.
func newKeys() func() [4]byte {
	var seed [32]byte
	_, _ = crand.Read(seed[:]) // never fails: crypto/rand ends the process instead
	rng := rand.NewChaCha8(seed)
	var word uint64
	var half bool
	return func() (key [4]byte) {
		if half = !half; half {
			word = rng.Uint64()
		} else {
			word >>= 32
		}
		return [4]byte{byte(word), byte(word >> 8), byte(word >> 16), byte(word >> 24)}
	}
}

// Subprotocol is the subprotocol agreed in the opening handshake, or "".
func (c *Conn) Subprotocol() string { return c.subprotocol }

// Role is the end of the connection that we speak for.
func (c *Conn) Role() Role { return c.role }

// LocalAddr is the local network address.
func (c *Conn) LocalAddr() net.Addr { return c.nc.LocalAddr() }

// RemoteAddr is the remote network address.
func (c *Conn) RemoteAddr() net.Addr { return c.nc.RemoteAddr() }

// Stats returns a snapshot of the connection's counters.
func (c *Conn) Stats() Stats {
	c.w.mu.Lock()
	s := c.w.snapshot()
	c.w.mu.Unlock()
	s.Received = c.r.snapshot()
	c.life.mu.Lock()
	if p := c.life.pings; p != nil {
		s.PingRTT = p.rtt
	}
	c.life.mu.Unlock()
	s.Opened = c.opened
	s.Connections = 1
	return s
}

func (c *Conn) trace() *Trace { return c.cfg.Trace }

// past is a deadline that has passed.
var past = time.Unix(1, 0)

// setReadDeadline sets when a read gives up; zero means never. A deadline that
// is already set and comes earlier stays: waking once too often costs less than
// setting it for each message.
func (c *Conn) setReadDeadline(t time.Time) {
	c.dl.Lock()
	defer c.dl.Unlock()
	at := c.instant(t)
	if c.readStop || at == 0 && c.readAt == 0 || c.readAt != 0 && (at == 0 || at >= c.readAt) {
		return
	}
	c.readAt = at
	_ = c.nc.SetReadDeadline(t)
}

// resetRead takes an interruption or a deadline that has passed off the socket.
func (c *Conn) resetRead() {
	c.dl.Lock()
	defer c.dl.Unlock()
	c.readStop, c.readAt = false, 0
	_ = c.nc.SetReadDeadline(time.Time{})
}

// interruptRead wakes a reader that waits for the network. It looks at its
// context and at the connection, and goes on if it has no reason to stop.
func (c *Conn) interruptRead() {
	c.dl.Lock()
	defer c.dl.Unlock()
	c.readStop, c.readAt = true, c.instant(past)
	_ = c.nc.SetReadDeadline(past)
}

func (c *Conn) setWriteDeadline(t time.Time) {
	c.dl.Lock()
	defer c.dl.Unlock()
	if c.writeStop {
		return
	}
	if c.writeMax != 0 && (t.IsZero() || c.instant(t) > c.writeMax) {
		t = c.time(c.writeMax)
	}
	_ = c.nc.SetWriteDeadline(t)
}

// interruptWrite wakes a writer that waits for the network.
func (c *Conn) interruptWrite() {
	c.dl.Lock()
	defer c.dl.Unlock()
	c.writeStop = true
	_ = c.nc.SetWriteDeadline(past)
}

// clearInterrupt takes an interruption off the socket. It returns when all
// writes end, or the zero time.
func (c *Conn) clearInterrupt() time.Time {
	c.dl.Lock()
	defer c.dl.Unlock()
	c.writeStop = false
	last := c.time(c.writeMax)
	_ = c.nc.SetWriteDeadline(last)
	return last
}

// limitWrites makes every write, also one under way, end by t.
func (c *Conn) limitWrites(t time.Time) {
	c.dl.Lock()
	defer c.dl.Unlock()
	c.writeMax, c.writeStop = c.instant(t), false
	_ = c.nc.SetWriteDeadline(t)
}
