package gateway

import (
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
	out        outbox
	meters     meters
	queued     atomic.Int64  // bytes in out
	room       chan struct{} // signalled when the queue shrinks below the limit
	delivering atomic.Int64  // bytes with which the client keeps its own server waiting

	// Of watch, which one goroutine at a time calls.
	moved   uint64    // bytes that the connection had sent
	stalled time.Time // since when it has sent no more though something waits

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
	// are left unread; queueHard how many may wait beside the largest message
	// before it is closed at once.
	queueSoft = 256 << 10
	queueHard = 8 << 20
	// slowTimeout is how long a client for which more than queueSoft waits may
	// take no batch of frames, 256 KiB; stallTimeout is for less than that.
	slowTimeout  = 20 * time.Second
	stallTimeout = time.Minute
	// writeTimeout is the WriteTimeout of connections: later than these, for
	// it ends them without a word.
	writeTimeout = 90 * time.Second
	// flushTimeout bounds what is sent before the session is closed.
	flushTimeout = 5 * time.Second
)

// reasonSlow is what the Close of a client says that does not read.
const reasonSlow = "answers are not being read"

// An outbox is a queue of messages to a client, each in a buffer of its own
// that goes back to lines. One of the gateway's writers sends them.
type outbox struct {
	mu      sync.Mutex
	list    []*[]byte // list[head] may be being written
	head    int
	largest int // of list, or of what was in it since it was empty
	bytes   int
	writing bool
	closed  bool
	empty   chan struct{} // closed when nothing waits; nil: nobody asked
}

// put adds a message. start says that a writer is needed, full that too much
// waits; the message is not taken then, nor when the outbox is closed.
func (o *outbox) put(b *[]byte) (taken, start, full bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := len(*b)
	if full = o.bytes+n-max(o.largest, n) > queueHard; full || o.closed {
		return false, false, full
	}
	o.list = append(o.list, b)
	o.bytes += n
	o.largest = max(o.largest, n)
	start = !o.writing
	o.writing = true
	return true, start, false
}

// first is the message to send next, nil if there is none; the writer then goes.
func (o *outbox) first() *[]byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.head < len(o.list) {
		return o.list[o.head]
	}
	o.writing, o.largest = false, 0
	if o.empty != nil {
		close(o.empty)
		o.empty = nil
	}
	return nil
}

// sent removes the first message.
func (o *outbox) sent() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.bytes -= len(*o.list[o.head])
	o.list[o.head] = nil
	o.head++
	switch {
	case o.head == len(o.list) && cap(o.list) > outboxKeep:
		o.list, o.head = nil, 0
	case o.head == len(o.list), o.head > len(o.list)/2 && o.head > outboxKeep:
		n := copy(o.list, o.list[o.head:])
		clear(o.list[n:])
		o.list, o.head = o.list[:n], 0
	}
}

// outboxKeep is how many places an empty outbox keeps.
const outboxKeep = 64

// close takes no more messages, and forgets those that are not being written.
// It returns how many bytes they were.
func (o *outbox) close() (bytes int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	for i := o.head + 1; i < len(o.list); i++ {
		bytes += len(*o.list[i])
		o.list[i] = nil
	}
	o.list = o.list[:min(o.head+1, len(o.list))]
	o.bytes -= bytes
	return bytes
}

// flushed returns a channel that is closed when nothing waits any more.
func (o *outbox) flushed() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.writing {
		done := make(chan struct{})
		close(done)
		return done
	}
	if o.empty == nil {
		o.empty = make(chan struct{})
	}
	return o.empty
}

// writers are goroutines that send what is in outboxes. They wait for the next
// instead of ending: a new goroutine for each answer would cost more than the
// answer, its stack grows anew every time.
type writers struct {
	next chan *session
	stop <-chan struct{}
	idle atomic.Int32
}

// writersIdle is how many may wait.
const writersIdle = 64

func newWriters(stop <-chan struct{}) *writers {
	return &writers{next: make(chan *session), stop: stop}
}

// send has a writer see to the outbox of s.
func (w *writers) send(s *session) {
	select {
	case w.next <- s:
	default:
		go w.work(s)
	}
}

func (w *writers) work(s *session) {
	for {
		s.write()
		if w.idle.Add(1) > writersIdle {
			w.idle.Add(-1)
			return
		}
		select {
		case s = <-w.next:
			w.idle.Add(-1)
		case <-w.stop:
			return
		}
	}
}

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
	h.mu.Lock()
	p.check, p.meters = s.watch, s.meters
	if h.shared {
		p.take = s.give
	}
	h.mu.Unlock()
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
	n := int64(len(msg))
	s.delivering.Add(n)
	defer s.delivering.Add(-n)
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
	b := lineOf(len(msg) + 1)
	*b = append(*b, msg...)
	s.give(b)
}

// give is enqueue for a buffer that is not the caller's any more.
func (s *session) give(b *[]byte) {
	*b = s.ending(*b)
	if s.replay != nil {
		ok := s.replay.Send(*b, false)
		putLine(b)
		if ok {
			s.sent.Add(1)
			return
		}
		s.endSlow()
		return
	}
	n := int64(len(*b))
	s.queued.Add(n)
	s.meters.add(n)
	taken, start, full := s.out.put(b)
	if !taken {
		s.queued.Add(-n)
		s.meters.add(-n)
		putLine(b)
		if full {
			s.endSlow()
		}
		return
	}
	if start {
		s.g.writers.send(s)
	}
}

// write sends what is in the outbox until it is empty.
func (s *session) write() {
	for {
		b := s.out.first()
		if b == nil {
			return
		}
		s.mu.Lock()
		c := s.conn
		s.mu.Unlock()
		if c != nil && c.WriteMessage(context.Background(), ws.Text, *b) == nil {
			s.sent.Add(1)
		} // else the end of the connection is told elsewhere
		n := int64(len(*b))
		s.out.sent()
		putLine(b)
		s.shrunk(n)
	}
}

// shrunk notes that n bytes less wait for the client.
func (s *session) shrunk(n int64) {
	s.meters.add(-n)
	if left := s.queued.Add(-n); left <= queueSoft && left+n > queueSoft {
		select {
		case s.room <- struct{}{}:
		default:
		}
	}
}

// watch ends a session whose client does not read what waits for it. It is
// called every second. What counts is that nothing moves, or not even a batch of
// frames for a long time: a client that reads slowly is left alone.
func (s *session) watch(now time.Time) {
	s.mu.Lock()
	c := s.conn
	s.mu.Unlock()
	waiting := s.queued.Load() + s.delivering.Load()
	if c == nil || waiting == 0 {
		s.stalled = time.Time{}
		return
	}
	if moved := c.Stats().Sent.Bytes; s.stalled.IsZero() || moved != s.moved {
		s.moved, s.stalled = moved, now
		return
	}
	if d := now.Sub(s.stalled); d >= stallTimeout || d >= slowTimeout && waiting > queueSoft {
		s.endSlow()
	}
}

// endSlow closes a client with 1013 because it does not read. Its socket is
// full, so the Close may not get through; the connection then ends with that
// code on this side, for the log and the figures, when CloseTimeout is over.
func (s *session) endSlow() {
	s.mu.Lock()
	c, final := s.conn, s.final
	s.final = true
	s.mu.Unlock()
	if final {
		return
	}
	s.g.log.Warn("a client does not read", "session", s.caller.Session, "route", s.route.Name,
		"code", uint16(ws.CloseTryAgainLater), "bytes", s.queued.Load()+s.delivering.Load())
	s.shrunk(int64(s.out.close()))
	if c != nil {
		go func() { _ = c.Close(ws.CloseTryAgainLater, reasonSlow) }()
		return
	}
	go s.end() // the caller may hold up the server
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
	if c == nil {
		s.end()
		return
	}
	go func() {
		// What was said before is sent before, if the client takes it.
		t := time.NewTimer(flushTimeout)
		defer t.Stop()
		select {
		case <-s.out.flushed():
		case <-c.Done():
		case <-t.C:
		}
		s.out.close()
		_ = c.Close(code, reason)
	}() // Closed of the handler does the rest
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
