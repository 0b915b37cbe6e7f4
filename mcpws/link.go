package mcpws

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/weft-ws/weft/mcpws/envelope"
	"github.com/weft-ws/weft/ws"
)

// LinkOptions tune a Link. The zero value works.
type LinkOptions struct {
	Token string          // bearer token
	Dial  *ws.DialOptions // Subprotocols is set by the Link

	// BackoffMin and BackoffMax bound the wait between attempts to connect,
	// which doubles each time and is up to a quarter longer at random. Zero:
	// 250 ms and 30 s.
	BackoffMin, BackoffMax time.Duration
	// GiveUp ends the Link when it could not connect for so long. Zero: 5
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
// nothing is done twice. With others the session begins anew: initialize is
// repeated, requests in flight that are idempotent are sent again, the others
// are answered with error -32603 that says so, and subscriptions/listen is sent
// again.
//
// Read and Write may be called at the same time, Write by many goroutines.
type Link struct {
	url  string
	opts LinkOptions
	log  *slog.Logger

	ctx    context.Context
	cancel context.CancelCauseFunc
	out    chan []byte
	done   sync.WaitGroup

	mu       sync.Mutex
	sent     *Replay
	received uint64
	note     SessionNote
	known    bool // the server resumes sessions: it has said so
	plain    bool // it does not
	conn     *ws.Conn
	closing  *ws.Conn          // the one that Close closes, in order
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
	l := &Link{url: url, out: make(chan []byte), flight: map[string]flying{}}
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
	l.note.Resume = newID() + newID()
	c, err := l.dial(ctx, ResumeNew(l.note.Resume))
	if err != nil {
		return nil, err
	}
	if err := l.sent.Attach(c, 0); err != nil {
		return nil, err
	}
	l.conn = c
	l.done.Go(func() { l.run(c) })
	return l, nil
}

func (l *Link) dial(ctx context.Context, resume string) (*ws.Conn, error) {
	var o ws.DialOptions
	if l.opts.Dial != nil {
		o = *l.opts.Dial
	}
	o.Subprotocols = []string{Subprotocol, resume}
	o.Config = Defaults(o.Config)
	if l.opts.Token != "" {
		o.Header = o.Header.Clone()
		if o.Header == nil {
			o.Header = http.Header{}
		}
		o.Header.Set("Authorization", "Bearer "+l.opts.Token)
	}
	return ws.Dial(ctx, l.url, &o)
}

// Read returns the next message of the server, which the caller owns. The
// error says why the Link has ended.
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

// Write sends one message, now or when there is a connection again. It waits
// while too much is waiting.
func (l *Link) Write(ctx context.Context, msg []byte) error {
	m, err := envelope.Parse(msg)
	if err != nil {
		return err
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
	switch {
	case m.Kind == envelope.Request:
		l.order++
		l.flight[string(m.IDBytes())] = flying{bytes.Clone(m.Raw), string(m.Method), l.order}
		if m.Is("initialize") {
			l.initMsg = bytes.Clone(m.Raw)
		}
	case m.Is("notifications/initialized"):
		l.ready = true
	}
	sent := l.sent
	l.mu.Unlock()
	if l.opts.Dialect.Newline == NewlineAlways {
		msg = append(bytes.Clone(msg), '\n')
	}
	// false: the session was begun anew meanwhile; a request is in flight and
	// was dealt with there, and other messages mean nothing to a new session.
	if !sent.Send(msg, true) && l.ctx.Err() != nil {
		return context.Cause(l.ctx)
	}
	return nil
}

var errLinkClosed = errors.New("the link was closed")

// Close closes the connection with 1000 and ends the session.
func (l *Link) Close() error {
	l.mu.Lock()
	c, sent := l.conn, l.sent
	l.closing = c
	l.mu.Unlock()
	l.cancel(errLinkClosed)
	sent.Close()
	if c != nil {
		_ = c.Close(ws.CloseNormal, "")
	}
	l.done.Wait()
	return nil
}

// run reads one connection after the other.
func (l *Link) run(c *ws.Conn) {
	for {
		err := l.read(c)
		l.mu.Lock()
		sent, closing := l.sent, l.closing
		l.mu.Unlock()
		sent.Detach()
		if closing != c {
			_ = c.CloseNow()
		}
		if l.ctx.Err() != nil {
			return
		}
		var ce *ws.CloseError
		if errors.As(err, &ce) && ce.Remote && ce.Code == ws.CloseNormal {
			l.end(fmt.Errorf("the server ended the session: %w", err))
			return
		}
		l.log.Warn("connection lost", "err", err)
		if c = l.again(); c == nil {
			return
		}
	}
}

func (l *Link) end(err error) {
	l.cancel(err)
	l.mu.Lock()
	sent := l.sent
	l.mu.Unlock()
	sent.Close()
}

// read passes on what the server says until the connection ends.
func (l *Link) read(c *ws.Conn) error {
	recv := NewReceiver(l.opts.Dialect, DefaultMessageMax, func() bool { return true }, func(msg []byte) error {
		return c.WriteMessage(l.ctx, ws.Text, msg)
	})
	for {
		typ, p, err := c.ReadMessage(l.ctx)
		if err != nil {
			return err
		}
		note := false
		err = recv.Take(time.Now(), typ, p, func(m *envelope.Message) error {
			if m.Is(SessionMethod) {
				note = true
				return l.noted(m)
			}
			return l.pass(m)
		})
		if !note {
			l.mu.Lock()
			l.received++
			l.mu.Unlock()
		}
		if err != nil {
			if l.ctx.Err() == nil {
				CloseWith(c, err)
			}
			return err
		}
	}
}

func (l *Link) noted(m *envelope.Message) error {
	var n SessionNote
	if err := n.Parse(m.Bytes(m.Params)); err != nil {
		return err
	}
	l.mu.Lock()
	l.note, l.known = n, true
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
		return context.Cause(l.ctx)
	}
}

// again connects until it succeeds, or ends the Link and returns nil.
func (l *Link) again() *ws.Conn {
	began := time.Now()
	wait := l.opts.BackoffMin
	for first := true; ; first = false {
		if !first {
			select {
			case <-time.After(wait + rand.N(wait/4+1)):
			case <-l.ctx.Done():
				return nil
			}
			wait = min(2*wait, l.opts.BackoffMax)
		}
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
		if l.opts.GiveUp > 0 && time.Since(began) >= l.opts.GiveUp {
			l.end(fmt.Errorf("no connection for %v: %w", l.opts.GiveUp, err))
			return nil
		}
		l.log.Info("connecting again failed", "err", err)
	}
}

// reconnect resumes the session or begins a new one.
func (l *Link) reconnect() (*ws.Conn, error) {
	l.mu.Lock()
	token, received, plain := l.note.Resume, l.received, l.plain
	l.mu.Unlock()
	if token != "" && !plain {
		c, err := l.resume(token, received)
		var he *ws.HandshakeError
		if err == nil || !errors.Is(err, errPlain) && (!errors.As(err, &he) || he.Status != http.StatusGone) {
			return c, err
		}
		l.log.Warn("the session cannot be resumed, beginning anew", "err", err)
		l.mu.Lock()
		l.note = SessionNote{}
		l.plain = errors.Is(err, errPlain)
		l.mu.Unlock()
	}
	return l.anew()
}

func (l *Link) resume(token string, received uint64) (*ws.Conn, error) {
	c, err := l.dial(l.ctx, ResumeWith(token, received))
	if err != nil {
		return nil, err
	}
	// The first message says what the server has. A server that has never
	// said such a thing, and does not now, took us for a new client.
	l.mu.Lock()
	known := l.known
	l.mu.Unlock()
	wait := resumeTimeout
	if !known {
		wait = plainTimeout
	}
	ctx, cancel := context.WithTimeout(l.ctx, wait)
	defer cancel()
	_, p, err := c.ReadMessage(ctx)
	if err == nil {
		var m envelope.Message
		if m, err = envelope.Parse(p); err == nil {
			if m.Is(SessionMethod) {
				err = l.noted(&m)
			} else {
				err = errPlain
			}
		}
	} else if !known && ctx.Err() != nil && l.ctx.Err() == nil {
		err = errPlain
	}
	if err == nil {
		l.mu.Lock()
		has := l.note.Received
		l.mu.Unlock()
		err = l.sent.Attach(c, has)
	}
	if err != nil {
		_ = c.CloseNow()
		return nil, err
	}
	l.mu.Lock()
	l.conn = c
	l.mu.Unlock()
	return c, nil
}

const (
	resumeTimeout = 10 * time.Second
	plainTimeout  = 2 * time.Second
)

var errPlain = errors.New("the server does not resume sessions")

// anew begins a session that knows nothing of the last one.
func (l *Link) anew() (*ws.Conn, error) {
	secret := newID() + newID()
	c, err := l.dial(l.ctx, ResumeNew(secret))
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	if l.hold == nil {
		l.hold = make(chan struct{})
	}
	l.sent.Close()
	l.sent = NewReplay(l.opts.KeepMax)
	l.received = 0
	l.note = SessionNote{Resume: secret}
	l.conn = c
	initMsg, ready := l.initMsg, l.ready
	_, initialising := l.flight[string(idOf(initMsg))]
	l.fresh++
	n := l.fresh
	l.mu.Unlock()
	if initMsg != nil && !initialising {
		if err := l.reinitialize(c, initMsg, n, ready); err != nil {
			_ = c.CloseNow()
			return nil, err
		}
	}
	l.mu.Lock()
	sent := l.sent
	l.mu.Unlock()
	if err := sent.Attach(c, sent.base); err != nil {
		_ = c.CloseNow()
		return nil, err
	}
	l.replayFlight()
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
// messages are not part of the session that is counted on our side, so the
// counters are set accordingly.
func (l *Link) reinitialize(c *ws.Conn, initMsg []byte, n int, ready bool) error {
	m, err := envelope.Parse(initMsg)
	if err != nil {
		return err
	}
	id := strconv.AppendInt([]byte(`"weft again `), int64(n), 10)
	id = append(id, '"')
	ctx, cancel := context.WithTimeout(l.ctx, resumeTimeout*6)
	defer cancel()
	messages := [][]byte{envelope.AppendEdited(nil, &m, envelope.Edit{At: m.ID, With: id})}
	if err := c.WriteMessage(ctx, ws.Text, messages[0]); err != nil {
		return err
	}
	received := uint64(0)
	for {
		_, p, err := c.ReadMessage(ctx)
		if err != nil {
			return err
		}
		a, err := envelope.Parse(p)
		if err != nil {
			return err
		}
		if a.Is(SessionMethod) {
			if err := l.noted(&a); err != nil {
				return err
			}
			continue
		}
		received++
		if string(a.IDBytes()) != string(id) {
			continue
		}
		if a.Kind == envelope.Error {
			return fmt.Errorf("the server refused the repeated initialize: %s", a.Bytes(a.Error))
		}
		break
	}
	if ready {
		messages = append(messages, []byte(`{"jsonrpc":"2.0","method":"notifications/initialized"}`))
		if err := c.WriteMessage(ctx, ws.Text, messages[1]); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.received = received
	l.sent.base = uint64(len(messages))
	return nil
}

// replayFlight sends again what may be sent again and fails the rest.
func (l *Link) replayFlight() {
	l.mu.Lock()
	var list []flying
	for _, f := range l.flight {
		list = append(list, f)
	}
	sent := l.sent
	l.mu.Unlock()
	for len(list) > 0 { // in the order in which they were first sent
		i := 0
		for k := range list {
			if list[k].order < list[i].order {
				i = k
			}
		}
		f := list[i]
		list = append(list[:i], list[i+1:]...)
		if Idempotent(f.method) {
			sent.Send(f.raw, false)
			continue
		}
		id := idOf(f.raw)
		l.mu.Lock()
		delete(l.flight, string(id))
		l.mu.Unlock()
		lost := envelope.AppendError(nil, id, envelope.Legacy, envelope.CodeInternal, fmt.Sprintf(
			"the connection was lost while %s was in flight and the session could not be resumed; it may or may not have been carried out, so it was not sent again", f.method))
		l.done.Go(func() {
			select {
			case l.out <- lost:
			case <-l.ctx.Done():
			}
		})
	}
}
