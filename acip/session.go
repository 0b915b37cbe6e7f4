package acip

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weft-ws/weft/ws"
)

// flushTimeout is how long the end of a session waits for the packet that says
// why.
const flushTimeout = time.Second

// A Handler is told what happens in a session. All calls come from the
// goroutine that runs it, one at a time. An error ends the session; a
// *Violation is told to the peer.
type Handler interface {
	// Established is called once, when the handshake is complete.
	Established(s *Session) error
	// Packet is called for each session packet; the payload is valid until it
	// returns.
	Packet(s *Session, p Packet) error
}

// A Session is a Machine on a Conn: it reads, keeps the deadlines and owns the
// Link. Send through Link from any goroutine.
type Session struct {
	Link *Link

	conn    Conn
	handler Handler

	mu      sync.Mutex
	machine Machine
	timer   *time.Timer
	armed   time.Time
	late    chan error // what Tick reported, once

	ending      atomic.Bool
	established atomic.Bool
	packets     atomic.Uint64
	bytes       atomic.Uint64
}

// NewSession prepares a session on c. Run starts it.
func NewSession(c Conn, m Machine, h Handler) *Session {
	return &Session{Link: newLink(c), conn: c, machine: m, handler: h, late: make(chan error, 1)}
}

// Conn returns what carries the session.
func (s *Session) Conn() Conn { return s.conn }

// Machine calls f with the session's machine while nobody else uses it.
func (s *Session) Machine(f func(Machine)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s.machine)
}

// Received returns how many packets and bytes have come.
func (s *Session) Received() (packets, bytes uint64) { return s.packets.Load(), s.bytes.Load() }

// Established reports whether the handshake is complete.
func (s *Session) Established() bool { return s.established.Load() }

// ErrShutdown ends a session because this end stops; the peer gets close code
// 1001.
var ErrShutdown = errors.New("acip: shutting down")

// ErrLeave ends a session because this end has had enough; the peer gets close
// code 1000.
var ErrLeave = errors.New("acip: leaving")

// Run carries out the session and returns why it ended: nil for an orderly end
// by the peer, context.Cause(ctx) if ctx ended, a *Violation, a *RemoteError,
// or the error of the connection. When it returns the connection is closed and
// every goroutine that it started has ended.
func (s *Session) Run(ctx context.Context) error {
	written := make(chan error, 1)
	go func() { written <- s.Link.run() }()
	readErr := make(chan error, 1)

	s.mu.Lock()
	now := time.Now()
	outs := s.machine.Start(now)
	s.timer = time.AfterFunc(time.Hour, s.tick)
	s.arm()
	s.mu.Unlock()
	for _, o := range outs {
		_ = s.Link.Control(o) // its error comes out of written
	}
	go func() { readErr <- s.read() }()

	var err error
	var reader, writer bool // ended
	select {
	case err = <-readErr:
		reader = true
	case err = <-written:
		writer = true
	case err = <-s.late:
	case err = <-s.Link.full:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	// A goodbye may show first where something was to be sent.
	err = ended(err)
	s.ending.Store(true)
	s.mu.Lock()
	s.timer.Stop()
	s.mu.Unlock()

	code, reason := s.farewell(err)
	s.Link.finish(flushTimeout)
	if code == 0 {
		_ = s.conn.Abort()
	} else {
		_ = s.conn.Close(code, reason)
	}
	if !writer {
		// The peer may be the one who does not read; closing has ended the write.
		if werr := ended(<-written); err == nil && !errors.Is(werr, net.ErrClosed) {
			err = werr
		}
	}
	if !reader {
		<-readErr
	}
	return err
}

// farewell tells the peer why, and chooses how to close.
func (s *Session) farewell(err error) (code ws.CloseCode, reason string) {
	var v *Violation
	switch {
	case err == nil, errors.Is(err, ErrLeave), errors.Is(err, context.Canceled):
		return ws.CloseNormal, ""
	case errors.Is(err, ErrShutdown):
		return ws.CloseGoingAway, "server is shutting down"
	case errors.As(err, &v):
		if v.Failed != 0 {
			_ = s.Link.Control(Out{Type: TypeAuthFailed, Payload: AppendAuthFailed(nil, v.Failed)})
		} else {
			m := ErrorMessage{Code: v.Code, Message: v.Error()}
			_ = s.Link.Control(Out{Type: TypeError, Payload: m.AppendTo(nil), Sealed: s.established.Load()})
		}
		return ws.ClosePolicyViolation, v.Error()
	}
	var fault *Fault
	if errors.As(err, &fault) {
		return ws.CloseInternalError, "internal fault"
	}
	var remote *RemoteError
	var hostKey *HostKeyError
	if errors.As(err, &remote) || errors.As(err, &hostKey) || errors.Is(err, ErrNoPassword) || errors.Is(err, ErrNoKey) {
		return ws.CloseNormal, ""
	}
	return 0, "" // the connection is gone
}

// A Fault is a mistake of ours, caught before it could take other sessions
// along.
type Fault struct {
	Value any    // of the panic
	Stack []byte // of the goroutine
}

// Error shows the value and the stack.
func (f *Fault) Error() string { return fmt.Sprintf("acip: internal fault: %v\n%s", f.Value, f.Stack) }

// read takes packets until something ends the session.
func (s *Session) read() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &Fault{p, debug.Stack()}
		}
	}()
	var r Reassembler
	for {
		chunk, err := s.conn.ReadChunk()
		if err != nil {
			if n := r.Pending(); n > 0 {
				return fmt.Errorf("%w: %d bytes into a packet (%v)", io.ErrUnexpectedEOF, n, err)
			}
			return err
		}
		s.bytes.Add(uint64(len(chunk)))
		s.mu.Lock()
		s.machine.Touch(time.Now())
		s.mu.Unlock()
		for len(chunk) > 0 && !s.ending.Load() {
			p, n, ok, err := r.Next(chunk)
			if err != nil {
				return err
			}
			chunk = chunk[n:]
			if !ok {
				continue
			}
			s.packets.Add(1)
			if err := s.handle(p); err != nil {
				return err
			}
		}
	}
}

// ended turns an orderly end of the connection into no error.
func ended(err error) error {
	var ce *ws.CloseError
	if errors.As(err, &ce) && ce.Remote && (ce.Code == ws.CloseNormal || ce.Code == ws.CloseGoingAway || ce.Code == ws.CloseNoStatus) || err == io.EOF {
		return nil
	}
	return err
}

// handle steps the machine with one packet.
func (s *Session) handle(p Packet) error {
	s.mu.Lock()
	ev, outs, err := s.machine.Handle(time.Now(), p)
	var early []Packet
	if err == nil && ev.Kind == EventEstablished {
		key, _ := s.machine.Key()
		var sealer *Sealer
		if sealer, err = NewSealer(key, rand.Reader); err == nil {
			s.machine.OpenWith(sealer.SessionID())
			s.Link.setSealer(sealer)
			early = s.machine.Early()
		}
	}
	s.arm()
	s.mu.Unlock()
	if err != nil {
		return err
	}
	for _, o := range outs {
		if err := s.Link.Control(o); err != nil {
			return err
		}
	}
	switch ev.Kind {
	case EventEstablished:
		s.established.Store(true)
		if err := s.handler.Established(s); err != nil {
			return err
		}
		for _, p := range early {
			// They were checked when they came, and now they count.
			if err := s.handle(p); err != nil {
				return err
			}
		}
	case EventPacket:
		return s.handler.Packet(s, ev.Packet)
	}
	return nil
}

// arm sets the timer to the machine's deadline if that is earlier than what it
// is set to; tick looks after deadlines that move back. s.mu is held.
func (s *Session) arm() {
	d := s.machine.Deadline()
	if d.IsZero() || !s.armed.IsZero() && !d.Before(s.armed) {
		return
	}
	s.armed = d
	s.timer.Reset(time.Until(d))
}

// tick does what is due.
func (s *Session) tick() {
	s.mu.Lock()
	outs, err := s.machine.Tick(time.Now())
	s.armed = time.Time{}
	if err == nil {
		s.arm()
	}
	s.mu.Unlock()
	if err != nil {
		select {
		case s.late <- err:
		default:
		}
		return
	}
	for _, o := range outs {
		_ = s.Link.Control(o)
	}
}
