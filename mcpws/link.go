package mcpws

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/weft-ws/weft/mcpws/envelope"
	"github.com/weft-ws/weft/ws"
)

// LinkOptions tune a Link. The zero value works.
type LinkOptions struct {
	Token string          // bearer token
	Dial  *ws.DialOptions // Subprotocols is set by the Link

	// BackoffMin and BackoffMax bound the wait between attempts to connect,
	// which doubles each time and is up to a quarter longer at random. The
	// first attempt is made at once. A connection on which nothing was heard,
	// and that did not last for BackoffMax, counts as a failed attempt. Zero:
	// 250 ms and 30 s.
	BackoffMin, BackoffMax time.Duration
	// GiveUp ends the Link when all attempts have failed for so long. Zero: 5
	// minutes; negative: never.
	GiveUp time.Duration

	// KeepMax bounds the bytes of messages that are kept in case they have to
	// be sent again. Zero: 4 MiB; one message may be larger.
	KeepMax int

	Dialect Dialect
	Logger  *slog.Logger // nil: nothing is logged
}

// A Link is a client's session with an MCP server over connections that may be
// lost. It connects again by itself, with backoff.
//
// With a server that resumes sessions, such as weft's, nothing is lost and
// nothing is done twice (docs/mcp-over-websocket.md, section 8). With others the
// session begins anew: initialize is repeated, requests in flight that are
// idempotent or had not been sent yet are sent again, the others are answered
// with error -32603 that says so, and subscriptions/listen is sent again. Nothing is sent again when
// either side closed with 1002, 1003, 1007 or 1009: it would do so again.
//
// Somebody must Read; what the server says waits until it is. All methods may
// be called from any goroutine.
type Link struct {
	url  string
	opts LinkOptions
	log  *slog.Logger

	ctx    context.Context
	cancel context.CancelCauseFunc
	out    chan []byte
	done   sync.WaitGroup

	// Used by OpenLink, then by the goroutine of run.
	recv    *Receiver       // of the present connection
	noteDue bool            // the first message of the present connection may be a note
	bare    bool            // the server refuses clients that offer to resume
	plain   bool            // the server does not resume sessions
	known   bool            // it does: it has said so
	silent  int             // connections in a row on which it should have said so, and did not
	refused *ws.CloseError  // one side closed the last connection because of what the other sent
	untried map[string]bool // requests, by id, that no connection has seen; while a session is begun anew
	wait    time.Duration   // before the next attempt
	failing time.Time       // since when attempts fail; zero: they do not

	mu       sync.Mutex
	sent     *Replay
	received uint64 // WebSocket messages of this session; no note is counted
	note     SessionNote
	flight   map[string]flying // our requests, by id
	order    uint64
	initMsg  []byte
	ready    bool // notifications/initialized was sent
	fresh    int
	hold     chan struct{} // closed when writers may go on; nil: they may
}

type flying struct {
	raw    []byte
	method string
	order  uint64
}

// OpenLink connects. The first attempt is made before it returns; its failure
// is an error. The context bounds that attempt only.
func OpenLink(ctx context.Context, url string, opts *LinkOptions) (*Link, error) {
	l := &Link{url: url, out: make(chan []byte), flight: map[string]flying{}, untried: map[string]bool{}}
	if opts != nil {
		l.opts = *opts
	}
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&l.opts.BackoffMin, 250*time.Millisecond)
	def(&l.opts.BackoffMax, 30*time.Second)
	def(&l.opts.GiveUp, 5*time.Minute)
	if l.opts.KeepMax == 0 {
		l.opts.KeepMax = 4 << 20
	}
	if l.log = l.opts.Logger; l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	l.ctx, l.cancel = context.WithCancelCause(context.Background())
	l.sent = NewReplay(l.opts.KeepMax)
	secret := newID() + newID()
	c, err := l.dial(ctx, ResumeNew(secret))
	if err == nil {
		l.note.Resume, l.noteDue = secret, true
		err = l.sent.Attach(c, 0)
	}
	if err != nil {
		l.cancel(err)
		return nil, err
	}
	l.done.Go(func() { l.run(c) })
	return l, nil
}

// dial connects and offers to resume.
func (l *Link) dial(ctx context.Context, resume string) (*ws.Conn, error) {
	var o ws.DialOptions
	if l.opts.Dial != nil {
		o = *l.opts.Dial
	}
	o.Config = l.opts.Dialect.Config(Defaults(o.Config))
	if l.opts.Token != "" {
		o.Header = o.Header.Clone()
		if o.Header == nil {
			o.Header = http.Header{}
		}
		o.Header.Set("Authorization", "Bearer "+l.opts.Token)
	}
	o.Subprotocols = []string{Subprotocol, resume}
	if l.bare {
		o.Subprotocols = o.Subprotocols[:1]
	}
	c, err := ws.Dial(ctx, l.url, &o)
	var he *ws.HandshakeError
	if !l.bare && !l.known && errors.As(err, &he) && he.Status == http.StatusBadRequest {
		// Some servers want the offer to be "mcp" to the letter.
		o.Subprotocols = o.Subprotocols[:1]
		bare, again := ws.Dial(ctx, l.url, &o)
		if again != nil {
			return nil, err
		}
		c, err, l.bare, l.plain = bare, nil, true, true
	}
	if err != nil {
		return nil, err
	}
	l.recv = NewReceiver(l.opts.Dialect, int(o.Config.MaxMessageSize), func() bool { return true }, func(msg []byte) error {
		// What we say about a message that cannot be read is counted like
		// everything else. It is not worth waiting for room.
		l.session().Send(l.line(msg), false)
		return nil
	})
	return c, nil
}

// line is a message as it is sent.
func (l *Link) line(msg []byte) []byte {
	if l.opts.Dialect.Newline == NewlineAlways {
		return append(bytes.Clone(msg), '\n')
	}
	return msg
}

func (l *Link) session() *Replay {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sent
}

// Read returns the next message of the server, which the caller owns: one JSON
// value without a line feed. The error is that of ctx, or says why the Link has
// ended.
func (l *Link) Read(ctx context.Context) ([]byte, error) {
	select {
	case m := <-l.out:
		return m, nil
	case <-l.ctx.Done():
		return nil, context.Cause(l.ctx)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Write sends one message, a JSON value, now or when there is a connection
// again. It waits while too much is waiting, until ctx ends. A message that is
// not JSON or not UTF-8 is refused and nothing happens; any other error but
// that of ctx says why the Link has ended.
func (l *Link) Write(ctx context.Context, msg []byte) error {
	m, err := envelope.Parse(msg)
	if err != nil {
		return err
	}
	if !utf8.Valid(msg) {
		return &envelope.UTF8Error{}
	}
	l.mu.Lock()
	for l.hold != nil { // a session is being begun anew
		hold := l.hold
		l.mu.Unlock()
		select {
		case <-hold:
		case <-l.ctx.Done():
			return context.Cause(l.ctx)
		case <-ctx.Done():
			return ctx.Err()
		}
		l.mu.Lock()
	}
	id := string(m.IDBytes())
	switch {
	case m.Kind == envelope.Request:
		l.order++
		l.flight[id] = flying{bytes.Clone(m.Raw), string(m.Method), l.order}
		if m.Is("initialize") {
			l.initMsg = bytes.Clone(m.Raw)
		}
	case m.Is("notifications/cancelled"):
		// Nobody waits for it any more, and it is not worth another attempt.
		delete(l.flight, string(m.Bytes(m.Cancelled)))
	case m.Is("notifications/initialized"):
		l.ready = true
	}
	order, sent := l.order, l.sent
	l.mu.Unlock()
	err = sent.send(ctx, l.line(msg), true)
	switch {
	case err == nil:
		return nil
	case l.ctx.Err() != nil:
		return context.Cause(l.ctx)
	case errors.Is(err, errReplayClosed):
		// The session was begun anew meanwhile: a request is in flight and was
		// dealt with there, and other messages mean nothing to a new session.
		return nil
	}
	l.mu.Lock()
	if f, ok := l.flight[id]; ok && m.Kind == envelope.Request && f.order == order {
		delete(l.flight, id) // it was not sent
	}
	l.mu.Unlock()
	return err
}

var errLinkClosed = errors.New("the link was closed")

// Close sends what waits, for up to 5 s if there is a connection, closes it
// with 1000 and ends the session.
func (l *Link) Close() error {
	ctx, cancel := context.WithTimeout(l.ctx, flushTimeout)
	l.session().flush(ctx)
	cancel()
	l.end(errLinkClosed)
	l.done.Wait()
	return nil
}

// flushTimeout is how long Close may take to send what waits.
const flushTimeout = 5 * time.Second

// run reads one connection after the other.
func (l *Link) run(c *ws.Conn) {
	for {
		began := time.Now()
		heard, err := l.read(c)
		l.session().Detach()
		if l.ctx.Err() != nil {
			_ = c.Close(ws.CloseNormal, "")
			return
		}
		_ = c.CloseNow()
		if heard || time.Since(began) >= l.opts.BackoffMax {
			l.wait, l.failing = 0, time.Time{}
		}
		var ce *ws.CloseError
		l.refused = nil
		if errors.As(err, &ce) {
			switch {
			case ce.Code == ws.CloseNormal && ce.Remote:
				l.end(fmt.Errorf("the server ended the session: %w", err))
				return
			case ce.Code == ws.CloseProtocolError, ce.Code == ws.CloseUnsupportedData,
				ce.Code == ws.CloseInvalidPayload, ce.Code == ws.CloseMessageTooBig:
				l.refused = ce
			}
		}
		l.log.Warn("connection lost", "err", err)
		if c = l.again(err); c == nil {
			return
		}
	}
}

func (l *Link) end(err error) {
	l.cancel(err)
	l.session().Close()
}

// read passes on what the server says until the connection ends. It reports
// whether the server said anything.
func (l *Link) read(c *ws.Conn) (heard bool, err error) {
	for {
		note := false
		err := l.recv.Next(l.ctx, c, func(m *envelope.Message) error {
			if l.noteDue && m.Is(SessionMethod) {
				note = true
				return l.noted(m)
			}
			l.noteDue = false
			return l.pass(m)
		})
		if err != nil {
			return heard, err
		}
		if l.noteDue = false; !note {
			heard = true
			l.mu.Lock()
			l.received++
			l.mu.Unlock()
		}
	}
}

func (l *Link) noted(m *envelope.Message) error {
	var n SessionNote
	if err := n.Parse(m.Bytes(m.Params)); err != nil {
		return err
	}
	l.known, l.plain, l.silent = true, false, 0
	l.mu.Lock()
	l.note = n
	l.mu.Unlock()
	return nil
}

func (l *Link) pass(m *envelope.Message) error {
	if m.Kind == envelope.Result || m.Kind == envelope.Error {
		l.mu.Lock()
		delete(l.flight, string(m.IDBytes()))
		l.mu.Unlock()
	}
	select {
	case l.out <- bytes.Clone(m.Raw):
		return nil
	case <-l.ctx.Done():
		return closing(ws.CloseNormal, "", context.Cause(l.ctx))
	}
}

// again connects until it succeeds, or ends the Link and returns nil. cause is
// why the last connection is lost.
func (l *Link) again(cause error) *ws.Conn {
	if l.failing.IsZero() {
		l.failing = time.Now()
	}
	for {
		if l.opts.GiveUp > 0 && time.Since(l.failing) >= l.opts.GiveUp {
			l.end(fmt.Errorf("no connection for %v: %w", l.opts.GiveUp, cause))
			return nil
		}
		if l.wait > 0 {
			select {
			case <-time.After(l.wait + rand.N(l.wait/4+1)):
			case <-l.ctx.Done():
				return nil
			}
		}
		l.wait = min(max(2*l.wait, l.opts.BackoffMin), l.opts.BackoffMax)
		c, err := l.reconnect()
		if err == nil {
			return c
		}
		if l.ctx.Err() != nil {
			return nil
		}
		var he *ws.HandshakeError
		if errors.As(err, &he) && (he.Status == http.StatusUnauthorized || he.Status == http.StatusForbidden || he.Status == http.StatusNotFound) {
			l.end(fmt.Errorf("the server does not let us in again: %w", err))
			return nil
		}
		cause = err
		l.log.Info("connecting again failed", "err", err)
	}
}

// reconnect resumes the session or begins a new one.
func (l *Link) reconnect() (*ws.Conn, error) {
	l.mu.Lock()
	token, received := l.note.Resume, l.received
	l.mu.Unlock()
	if token != "" && !l.plain && l.refused == nil {
		c, err := l.resume(token, received)
		var he *ws.HandshakeError
		switch {
		case err == nil:
			return c, nil
		case errors.Is(err, errPlain):
			l.plain = true
		case errors.Is(err, errForgotten), errors.As(err, &he) && he.Status == http.StatusGone:
		default:
			return nil, err
		}
		l.log.Warn("the session cannot be resumed, beginning anew", "err", err)
		l.mu.Lock()
		l.note = SessionNote{}
		l.mu.Unlock()
	}
	return l.anew()
}

// resume goes on with the session, or says that it cannot be done with an error
// that is errPlain, errForgotten or a 410. Other errors are worth another try.
func (l *Link) resume(token string, received uint64) (*ws.Conn, error) {
	c, err := l.dial(l.ctx, ResumeWith(token, received))
	if err != nil {
		return nil, err
	}
	if err := l.rejoin(c); err != nil {
		_ = c.CloseNow()
		return nil, err
	}
	return c, nil
}

// rejoin reads the note with which a resumed session begins: it says what the
// server has. A server that has never said such a thing, and does not now, took
// us for a new client.
func (l *Link) rejoin(c *ws.Conn) error {
	wait := resumeTimeout
	if !l.known {
		wait = plainTimeout
	}
	ctx, cancel := context.WithTimeout(l.ctx, wait)
	defer cancel()
	_, p, err := c.ReadMessage(ctx)
	if err != nil {
		if ctx.Err() == nil || l.ctx.Err() != nil {
			return err // the connection was lost, or the Link closed
		}
		if !l.known {
			return errPlain
		}
		if l.silent++; l.silent >= silentMax {
			return errForgotten
		}
		return errors.New("the server did not say that it has the session")
	}
	m, err := envelope.Parse(p)
	if err != nil || !m.Is(SessionMethod) || l.noted(&m) != nil {
		return errPlain
	}
	l.mu.Lock()
	has, sent := l.note.Received, l.sent
	l.mu.Unlock()
	l.noteDue = false
	if err := sent.Attach(c, has); err != nil {
		return fmt.Errorf("%w: %w", errForgotten, err)
	}
	return nil
}

const (
	resumeTimeout = 10 * time.Second
	plainTimeout  = 2 * time.Second
	silentMax     = 3 // connections without a note until the session is given up
)

var (
	errPlain     = errors.New("the server does not resume sessions")
	errForgotten = errors.New("the server does not have the session as we do")
)

// anew begins a session that knows nothing of the last one.
func (l *Link) anew() (*ws.Conn, error) {
	secret := newID() + newID()
	c, err := l.dial(l.ctx, ResumeNew(secret))
	if err != nil {
		return nil, err
	}
	l.noteDue = !l.bare
	l.mu.Lock()
	if l.hold == nil {
		l.hold = make(chan struct{})
	}
	for _, msg := range l.sent.untried() {
		l.untried[string(idOf(msg))] = true
	}
	l.sent.Close()
	l.sent = NewReplay(l.opts.KeepMax)
	sent := l.sent
	l.received = 0
	l.note = SessionNote{Resume: secret}
	initMsg, ready := l.initMsg, l.ready
	f, ok := l.flight[string(idOf(initMsg))]
	initialising := ok && f.method == "initialize" // it is sent again like other requests
	l.fresh++
	n := l.fresh
	l.mu.Unlock()
	if l.ctx.Err() != nil {
		sent.Close() // end has closed the one before
	}
	if initMsg != nil && !initialising {
		err = l.reinitialize(c, initMsg, n, ready)
	}
	if err == nil {
		err = sent.Attach(c, sent.base)
	}
	if err != nil {
		_ = c.CloseNow()
		l.mu.Lock()
		l.note = SessionNote{} // what has barely begun is not resumed
		l.mu.Unlock()
		return nil, err
	}
	l.replayFlight(sent)
	clear(l.untried)
	l.mu.Lock()
	close(l.hold)
	l.hold = nil
	l.mu.Unlock()
	return c, nil
}

func idOf(raw []byte) []byte {
	m, err := envelope.Parse(raw)
	if err != nil {
		return nil
	}
	return m.IDBytes()
}

// reinitialize repeats the handshake of the revisions that have one. Its
// messages are not kept, so the counters are set accordingly.
func (l *Link) reinitialize(c *ws.Conn, initMsg []byte, n int, ready bool) error {
	m, err := envelope.Parse(initMsg)
	if err != nil {
		return err
	}
	id := strconv.AppendInt([]byte(`"weft again `), int64(n), 10)
	id = append(id, '"')
	ctx, cancel := context.WithTimeout(l.ctx, initTimeout)
	defer cancel()
	if err := c.WriteMessage(ctx, ws.Text, l.line(envelope.AppendEdited(nil, &m, envelope.Edit{At: m.ID, With: id}))); err != nil {
		return err
	}
	written, received := uint64(1), uint64(0)
	for answered := false; !answered; {
		note := false
		err := l.recv.Next(ctx, c, func(a *envelope.Message) error {
			switch {
			case l.noteDue && a.Is(SessionMethod):
				note = true
				return l.noted(a)
			case string(a.IDBytes()) != string(id):
				// Before initialize is answered a server has nothing to say
				// that a client of the last session would want to know.
			case a.Kind == envelope.Error:
				return fmt.Errorf("the server refused the repeated initialize: %s", a.Bytes(a.Error))
			case a.Kind == envelope.Result:
				answered = true
			}
			return nil
		})
		if err != nil {
			return err
		}
		if l.noteDue = false; !note {
			received++
		}
	}
	if ready {
		if err := c.WriteMessage(ctx, ws.Text, l.line([]byte(`{"jsonrpc":"2.0","method":"notifications/initialized"}`))); err != nil {
			return err
		}
		written++
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.received = received
	l.sent.base = written
	return nil
}

// initTimeout is how long a server may take to answer a repeated initialize: it
// may have to be started.
const initTimeout = time.Minute

// replayFlight sends again what may be sent again and fails the rest.
func (l *Link) replayFlight(sent *Replay) {
	l.mu.Lock()
	list := slices.SortedFunc(maps.Values(l.flight), func(a, b flying) int { return cmp.Compare(a.order, b.order) })
	l.mu.Unlock()
	for _, f := range list {
		why := "the session could not be resumed; it may or may not have been carried out, so it was not sent again"
		switch {
		case l.refused != nil:
			why = fmt.Sprintf("may be the reason, so it was not sent again: %v", l.refused)
		case !Idempotent(f.method) && !l.untried[string(idOf(f.raw))]:
		case sent.Send(l.line(f.raw), false):
			continue
		default:
			why = "too much waits to be sent again; ask again"
		}
		id := idOf(f.raw)
		l.mu.Lock()
		delete(l.flight, string(id))
		l.mu.Unlock()
		lost := envelope.AppendError(nil, id, envelope.Legacy, envelope.CodeInternal,
			fmt.Sprintf("the connection was lost while %s was in flight and %s", f.method, why))
		l.done.Go(func() {
			select {
			case l.out <- lost:
			case <-l.ctx.Done():
			}
		})
	}
}
