package acip

import (
	"crypto/ecdh"
	"crypto/rand"
	"fmt"
	"io"
	"time"
)

// A Transport is what carries the packets of a session. The two differ in how
// a session begins and in what C peers send unencrypted.
type Transport uint8

const (
	WebSocket Transport = iota
	TCP
)

// String returns "websocket" or "tcp".
func (t Transport) String() string {
	if t == TCP {
		return "tcp"
	}
	return "websocket"
}

// Times of a session, in the absence of others in its configuration.
const (
	// HandshakeTimeout is how long the handshake, and after it a client's
	// CLIENT_CAPABILITIES, may take.
	HandshakeTimeout = 30 * time.Second
	// PingInterval is how often a client pings.
	PingInterval = time.Second
	// SilenceTimeout is how long a peer may be silent that pings, or is pinged,
	// every second.
	SilenceTimeout = 10 * time.Second
	// QuietTimeout is how long a client may be silent that never pinged.
	QuietTimeout = 60 * time.Second
)

// A Machine is one end of a session as pure code: packets and the time go in,
// packets and events come out. It does no I/O and never asks for the time.
// *Server and *Client implement it. Not safe for concurrent use.
type Machine interface {
	// Start returns the packets that open the session.
	Start(now time.Time) []Out
	// Touch says that bytes arrived, complete packet or not.
	Touch(now time.Time)
	// Handle takes a packet that was received. The packets that answer it have
	// to be sent in order. An error is a *Violation or a *RemoteError and ends
	// the session.
	Handle(now time.Time, p Packet) (Event, []Out, error)
	// Early returns packets that came before their time and count from now on;
	// it is called after EventEstablished.
	Early() []Packet
	// Deadline is when Tick wants to be called; zero means never.
	Deadline() time.Time
	// Tick does what is due: it pings, or reports a timeout as a *Violation.
	Tick(now time.Time) ([]Out, error)
	// Key returns the session key once there is one.
	Key() (Key, bool)
	// OpenWith tells the session id of our own direction, see NewOpener.
	OpenWith(own [16]byte)
}

// An Out is a packet that a Machine wants to be sent.
type Out struct {
	Type    Type
	Payload []byte
	Sealed  bool // inside ENCRYPTED
}

// An EventKind says what an Event is.
type EventKind uint8

const (
	EventNone        EventKind = iota // nothing for the application
	EventEstablished                  // the handshake is complete
	EventPacket                       // a session packet, already checked
)

// An Event is what a received packet means to the application.
type Event struct {
	Kind   EventKind
	Packet Packet // of EventPacket; the payload is valid until the next Handle
}

// phase is where a session stands.
type phase uint8

const (
	wantVersion      phase = iota // TCP: PROTOCOL_VERSION
	wantCapabilities              // TCP, server: CRYPTO_CAPABILITIES
	wantParameters                // client
	wantInit                      // client: CRYPTO_KEY_EXCHANGE_INIT
	wantResponse                  // server: CRYPTO_KEY_EXCHANGE_RESP
	wantVerdict                   // client: AUTH_CHALLENGE or HANDSHAKE_COMPLETE
	wantAuth                      // server: AUTH_RESPONSE
	wantServerAuth                // client: SERVER_AUTH_RESP
	established
)

func (p phase) String() string {
	return [...]string{"PROTOCOL_VERSION", "CRYPTO_CAPABILITIES", "CRYPTO_PARAMETERS", "CRYPTO_KEY_EXCHANGE_INIT",
		"CRYPTO_KEY_EXCHANGE_RESP", "CRYPTO_HANDSHAKE_COMPLETE or CRYPTO_AUTH_CHALLENGE", "CRYPTO_AUTH_RESPONSE",
		"CRYPTO_SERVER_AUTH_RESP", "the packets of a session"}[p]
}

// core is what both ends have in common.
type core struct {
	transport Transport
	strict    bool
	phase     phase
	random    io.Reader
	ephemeral *ecdh.PrivateKey
	key       Key
	own       [16]byte
	opener    *Opener
	began     time.Time // when this phase's patience began
	seen      time.Time // when the peer last sent a byte
}

// setup fills in what the configuration leaves out.
func (c *core) setup(now time.Time) error {
	c.began, c.seen = now, now
	if c.random == nil {
		c.random = rand.Reader
	}
	if c.ephemeral == nil {
		k, err := ecdh.X25519().GenerateKey(c.random)
		if err != nil {
			return err
		}
		c.ephemeral = k
	}
	return nil
}

// Touch says that bytes arrived.
func (c *core) Touch(now time.Time) { c.seen = now }

// Key returns the session key once there is one.
func (c *core) Key() (Key, bool) { return c.key, c.opener != nil }

// OpenWith tells the session id of our own direction, so that packets of ours
// that come back are recognised.
func (c *core) OpenWith(own [16]byte) {
	c.own = own
	if c.opener != nil {
		c.opener.own = own
	}
}

// exchange derives the session key from the peer's ephemeral key.
func (c *core) exchange(t Type, peer [32]byte) error {
	k, err := sharedKey(c.ephemeral, peer)
	if err != nil {
		return &Violation{Rule: RuleValue, Type: t, Code: CodeCrypto, Detail: "the ephemeral key is not a usable X25519 point"}
	}
	c.key, c.opener = k, NewOpener(k, c.own)
	// The private half has done its work; a later leak of memory shall not
	// give this session away.
	c.ephemeral = nil
	return nil
}

func (c *core) nonce() (n [32]byte, err error) {
	if _, err = io.ReadFull(c.random, n[:]); err != nil {
		err = fmt.Errorf("acip: no random nonce: %w", err)
	}
	return n, err
}

// outOfOrder is the violation of a handshake packet in the wrong place.
func (c *core) outOfOrder(t Type) error {
	return violation(RuleOrder, t, "expected %s", c.phase)
}

// sealed returns a session packet.
func sealed(t Type, payload []byte) Out { return Out{Type: t, Payload: payload, Sealed: true} }
