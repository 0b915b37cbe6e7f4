package gateway

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weft-ws/weft/mcpws"
	"github.com/weft-ws/weft/mcpws/envelope"
	"github.com/weft-ws/weft/ws"
)

// A session is one client of a route.
type session struct {
	g      *Gateway
	route  *route
	caller Caller
	remote string
	ident  Identity
	opened time.Time

	received, sent atomic.Uint64

	recvMu sync.Mutex // the receiver: messages, and the timer of the stream framing
	recv   *mcpws.Receiver
	late   *time.Timer

	mu     sync.Mutex
	conn   *ws.Conn
	hub    *hub
	port   *port
	ended  bool
	expiry *time.Timer

	// What waits for a client of a shared server. Its reader must not wait
	// for one client, so messages are queued; a client whose queue is too
	// long is not read from, and closed with 1013 if that does not help.
	queued atomic.Int64
	slow   atomic.Bool
	room   chan struct{} // signalled when the queue shrinks below the limit

	// A session that can be resumed sends through replay and outlives its
	// connection by the grace period.
	replay *mcpws.Replay        // nil: it cannot
	final  bool                 // ended on purpose: not to be resumed; under mu
	grace  *time.Timer          // under mu
	seat   *seat                // of the newest connection; under mu
	used   [sha256.Size]byte    // hash of the token that the present connection began with; under Gateway.mu
	keys   [2][sha256.Size]byte // hashes of the last resume tokens, the newest last; under Gateway.mu
}

// A seat is one connection's claim on a session, from before its upgrade to
// after its last message. A client that comes back takes a new seat; what the
// old one still does is over before the new one begins.
type seat struct {
	conn    *ws.Conn  // set once the connection is being served; under the session's mu
	expires time.Time // of the credential that it was opened with; zero: never
	done    chan struct{}
}

func newSeat(expires time.Time) *seat { return &seat{expires: expires, done: make(chan struct{})} }

// credentialExpired is the reason of the Close that a connection gets then.
const credentialExpired = "the credential has expired; connect again with a new one"

// errMoved ends a connection whose client has come back on another.
var errMoved = errors.New("the client has come back on another connection")

// replayMax is how many bytes of messages are kept for a client that may come
// back. A server of its own waits when it is reached; a shared one cannot wait,
// so the session ends.
const replayMax = 4 << 20

const (
	// queueSoft is how many bytes may wait for a client before its requests
	// are left unread; queueHard before it is closed at once.
	queueSoft = 1 << 20
	queueHard = 64 << 20
	// slowTimeout is how long a client may stay over queueSoft.
	slowTimeout = 10 * time.Second
)

func newSession(g *Gateway, rt *route, caller Caller, remote string, ident Identity) *session {
	s := &session{g: g, route: rt, caller: caller, remote: remote, ident: ident, opened: time.Now(), room: make(chan struct{}, 1), seat: newSeat(ident.Expires)}
	s.recv = mcpws.NewReceiver(rt.Dialect, int(rt.MessageMax), s.batches, func(msg []byte) error {
		s.route.stats.refused.Add(1)
		s.deliver(msg)
		return nil
	})
	return s
}

// enter gives the session a connection, its first or another. has is how many
// messages the client has received. Messages follow.
func (s *session) enter(at *seat, c *ws.Conn, has uint64) error {
	s.mu.Lock()
	switch {
	case s.ended:
		s.mu.Unlock()
		return closeError(ws.CloseTryAgainLater, "the session has ended")
	case s.seat != at:
		s.mu.Unlock()
		return errMoved
	}
	if s.grace != nil {
		s.grace.Stop()
		s.grace = nil
	}
	s.conn, at.conn = c, c
	// A client that has come back has shown a credential again, which may be a
	// newer one.
	if s.expiry != nil {
		s.expiry.Stop()
		s.expiry = nil
	}
	if !at.expires.IsZero() {
		s.expiry = time.AfterFunc(time.Until(at.expires), func() { s.End(ws.ClosePolicyViolation, credentialExpired) })
	}
	settled := s.hub != nil
	s.mu.Unlock()
	if s.replay != nil {
		if err := s.announce(c, has); err != nil {
			return err
		}
	}
	if settled || s.route.Isolation == Shared {
		return nil // which of the shared ones is known with the first request
	}
	h, err := s.route.own(s.caller, func(err error) {
		s.End(ws.CloseInternalError, closeReason("server failed: "+err.Error()))
	})
	if err != nil {
		return closeError(ws.CloseServiceRestart, err.Error())
	}
	return s.bind(h)
}

// announce tells the client how it can resume the session, and continues with
// what it has not received yet.
func (s *session) announce(c *ws.Conn, has uint64) error {
	token := s.g.resumeToken(s)
	note, err := json.Marshal(mcpws.SessionNote{Session: s.caller.Session, Resume: token,
		Received: s.received.Load(), Grace: int(s.g.opts.ResumeGrace / time.Second)})
	if err != nil {
		return err
	}
	msg := fmt.Appendf(nil, `{"jsonrpc":"2.0","method":%q,"params":%s}`, mcpws.SessionMethod, note)
	if err := c.WriteMessage(context.Background(), ws.Text, msg); err != nil {
		return err
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := c.Ping(ctx); err == nil {
			s.g.confirmToken(s, sha256.Sum256([]byte(token)))
		}
	}()
	return s.replay.Attach(c, has)
}

// move takes a new seat for a client that has come back, ends the connection
// that the session still has and waits until nothing of it is being handled:
// a message in the middle of it is counted.
func (s *session) move(expires time.Time) *seat {
	at := newSeat(expires)
	s.mu.Lock()
	old := s.seat
	s.seat = at
	c := old.conn
	s.mu.Unlock()
	if c != nil {
		_ = c.CloseNow()
	}
	<-old.done
	return at
}

func (s *session) bind(h *hub) error {
	deliver := s.deliver
	if h.shared {
		deliver = s.enqueue
	}
	p := h.join(deliver)
	s.mu.Lock()
	s.hub, s.port = h, p
	ended := s.ended
	s.mu.Unlock()
	if ended {
		s.unbind(h, p)
		return errors.New("the session has ended")
	}
	return nil
}

// message takes one WebSocket message of the client.
func (s *session) message(_ context.Context, c *ws.Conn, typ ws.MessageType, p []byte) error {
	if err := s.waitForReader(c); err != nil {
		return err
	}
	s.received.Add(1)
	s.recvMu.Lock()
	defer s.recvMu.Unlock()
	if s.late != nil {
		s.late.Stop()
		s.late = nil
	}
	if err := s.recv.Take(time.Now(), typ, p, s.take); err != nil {
		return err
	}
	if at := s.recv.Deadline(); !at.IsZero() {
		s.late = time.AfterFunc(time.Until(at), func() { s.expireLine(c) })
	}
	return nil
}

func (s *session) expireLine(c *ws.Conn) {
	s.recvMu.Lock()
	err := s.recv.Expire(time.Now())
	s.recvMu.Unlock()
	if err != nil {
		mcpws.CloseWith(c, err)
	}
}

// waitForReader leaves the client's next message alone while it lets its
// answers lie.
func (s *session) waitForReader(c *ws.Conn) error {
	for s.queued.Load() > queueSoft {
		select {
		case <-s.room:
		case <-c.Done():
			return c.Err()
		}
	}
	return nil
}

// take passes one JSON-RPC message on.
func (s *session) take(m *envelope.Message) error {
	s.mu.Lock()
	h, p := s.hub, s.port
	s.mu.Unlock()
	if m.Kind == envelope.Request && s.g.draining.Load() {
		s.deliver(envelope.AppendError(nil, m.IDBytes(), envelope.Legacy, envelope.CodeInternal,
			"the gateway is shutting down; connect again"))
		return nil
	}
	if h == nil { // a shared server, not chosen yet
		switch {
		case m.Kind != envelope.Request:
			return nil
		case m.Is("ping"):
			s.deliver(envelope.AppendResult(nil, m.IDBytes(), []byte("{}")))
			return nil
		}
		class := 0
		if m.Is("initialize") {
			class = classOf(m)
		}
		var err error
		if h, err = s.route.forClass(class); err != nil {
			return closeError(ws.CloseServiceRestart, err.Error())
		}
		if err := s.bind(h); err != nil {
			return err
		}
		s.mu.Lock()
		p = s.port
		s.mu.Unlock()
	}
	h.handle(p, m)
	return nil
}

func (s *session) batches() bool {
	s.mu.Lock()
	h, p := s.hub, s.port
	s.mu.Unlock()
	if h == nil {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return p.version == "2025-03-26"
}

// deliver sends a message to the client and waits until the wire has it: the
// backpressure of a server that belongs to one client.
func (s *session) deliver(msg []byte) {
	if s.replay != nil {
		if s.replay.Send(s.ending(msg), true) {
			s.sent.Add(1)
		}
		return
	}
	s.mu.Lock()
	c := s.conn
	s.mu.Unlock()
	if c == nil {
		return
	}
	if err := c.WriteMessage(context.Background(), ws.Text, s.ending(msg)); err != nil {
		return // the end of the connection is told elsewhere
	}
	s.sent.Add(1)
}

// enqueue is deliver for shared servers: it does not wait.
func (s *session) enqueue(msg []byte) {
	if s.replay != nil {
		if s.replay.Send(s.ending(msg), false) {
			s.sent.Add(1)
			return
		}
		go s.End(ws.CloseTryAgainLater, "too many unread answers")
		return
	}
	s.mu.Lock()
	c := s.conn
	s.mu.Unlock()
	if c == nil {
		return
	}
	data := s.ending(bytes.Clone(msg))
	n := int64(len(data))
	total := s.queued.Add(n)
	switch {
	case total-n > queueHard:
		s.End(ws.CloseTryAgainLater, "too many unread answers")
	case total > queueSoft && total > n && s.slow.CompareAndSwap(false, true):
		time.AfterFunc(slowTimeout, func() {
			if s.queued.Load() > queueSoft {
				s.End(ws.CloseTryAgainLater, "answers are not being read")
			}
			s.slow.Store(false)
		})
	}
	err := c.Send(context.Background(), ws.Outgoing{Type: ws.Text, Data: data, Done: func(err error) {
		if err == nil {
			s.sent.Add(1)
		}
		if left := s.queued.Add(-n); left <= queueSoft && left+n > queueSoft {
			select {
			case s.room <- struct{}{}:
			default:
			}
		}
	}})
	if err != nil {
		s.queued.Add(-n)
	}
}

// ending adds the line feed of clients that want one.
func (s *session) ending(msg []byte) []byte {
	if s.recv.Newline() {
		return append(msg, '\n')
	}
	return msg
}

// leave is called when a connection has ended and nothing of it is being
// handled any more, or when it did not come about.
func (s *session) leave(at *seat, err error) {
	defer close(at.done)
	s.mu.Lock()
	if s.replay != nil {
		s.replay.Detach()
	}
	s.conn = nil
	switch {
	case s.seat != at: // the client is back already
		s.mu.Unlock()
	case s.replay == nil || s.final || s.ended || !lost(err) || s.g.draining.Load():
		s.mu.Unlock()
		s.end()
	default:
		s.grace = time.AfterFunc(s.g.opts.ResumeGrace, s.end)
		s.mu.Unlock()
	}
}

// lost reports whether a connection ended without either side meaning to end
// the session: without a Close, or because no pong came.
func lost(err error) bool {
	var ce *ws.CloseError
	if !errors.As(err, &ce) {
		return true
	}
	return ce.Code == ws.CloseAbnormal || ce.Code == ws.CloseGoingAway && !ce.Remote
}

// end releases everything the session holds.
func (s *session) end() {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return
	}
	s.ended = true
	h, p := s.hub, s.port
	s.conn = nil
	if s.grace != nil {
		s.grace.Stop()
	}
	if s.replay != nil {
		s.replay.Close()
		s.g.forgetToken(s)
	}
	if s.expiry != nil {
		s.expiry.Stop()
	}
	s.mu.Unlock()
	if h != nil {
		s.unbind(h, p)
	}
	s.g.left(s)
}

func (s *session) unbind(h *hub, p *port) {
	h.leave(p)
	if !h.shared {
		s.route.disown(h, errors.New("the client has gone"))
	}
}

// Info describes the session.
func (s *session) Info() SessionInfo {
	s.mu.Lock()
	c, h, p := s.conn, s.hub, s.port
	s.mu.Unlock()
	info := SessionInfo{ID: s.caller.Session, Route: s.route.Name, Principal: s.ident.Principal, Remote: s.remote,
		Opened: s.opened, Attached: c != nil, Received: s.received.Load(), Sent: s.sent.Load()}
	if c != nil {
		info.PingRTT = c.Stats().PingRTT.Seconds()
	}
	if h != nil {
		h.mu.Lock()
		info.Version = p.version
		if p.modern {
			info.Version = "2026-07-28"
		}
		for id, call := range p.inflight {
			info.Calls = append(info.Calls, Call{ID: id, Method: call.method, Seconds: time.Since(call.started).Seconds()})
		}
		h.mu.Unlock()
	}
	return info
}

// Send delivers a message to the client.
func (s *session) Send(msg []byte) error {
	s.mu.Lock()
	ended := s.ended
	s.mu.Unlock()
	if ended {
		return ErrNoSession
	}
	s.enqueue(msg)
	return nil
}

// End closes the connection and ends the session.
func (s *session) End(code ws.CloseCode, reason string) {
	s.mu.Lock()
	c := s.conn
	s.final = true
	s.mu.Unlock()
	if c != nil {
		go func() { _ = c.Close(code, reason) }()
		return // Closed of the handler does the rest
	}
	s.end()
}

func closeError(code ws.CloseCode, reason string) error {
	return &ws.CloseError{Code: code, Reason: closeReason(reason)}
}

// closeReason cuts a reason to what a Close frame can hold: 123 bytes (RFC
// 6455, 5.5), not in the middle of a character.
func closeReason(s string) string {
	const max = 123
	if len(s) <= max {
		return s
	}
	n := max
	for n > 0 && s[n]&0xc0 == 0x80 {
		n--
	}
	return s[:n]
}
