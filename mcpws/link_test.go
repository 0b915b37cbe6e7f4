package mcpws

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/weft-ws/weft/internal/wstest"
	"github.com/weft-ws/weft/mcpws/envelope"
	"github.com/weft-ws/weft/ws"
)

// A network is pipes to an HTTP server, for a bubble: dialling makes a pipe,
// and fate says what befalls it.
type network struct {
	conns chan net.Conn
	over  chan struct{}
	fate  func() wstest.PipeOptions // nil: nothing

	mu  sync.Mutex
	all []*wstest.PipeConn // both ends of each
}

func newNetwork(t *testing.T, h http.Handler) *network {
	return newNetworkServer(t, &http.Server{Handler: h})
}

func newNetworkServer(t *testing.T, s *http.Server) *network {
	n := &network{conns: make(chan net.Conn), over: make(chan struct{})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(n)
	}()
	t.Cleanup(func() {
		_ = s.Close()
		<-done
		n.cut()
	})
	return n
}

func (n *network) Accept() (net.Conn, error) {
	select {
	case c := <-n.conns:
		return c, nil
	case <-n.over:
		return nil, net.ErrClosed
	}
}

func (n *network) Close() error   { close(n.over); return nil }
func (n *network) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

func (n *network) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	var o wstest.PipeOptions
	n.mu.Lock()
	if n.fate != nil {
		o = n.fate()
	}
	client, server := wstest.Pipe(o)
	n.all = append(n.all, client, server)
	n.mu.Unlock()
	select {
	case n.conns <- server:
		return client, nil
	case <-n.over:
		return nil, errors.New("nobody listens")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// cut resets every connection.
func (n *network) cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.all {
		c.Reset()
	}
	n.all = nil
}

// A lineServer is a server of the binding written for these tests from section
// 8 of its document. It counts what it is asked to do.
type lineServer struct {
	t       *testing.T
	resumes bool
	refuse  func() bool // answer 503
	chatter bool        // notifications between answers
	poison  string      // a method that is closed with 1009
	mute    bool        // nothing is answered any more
	forged  bool        // a note in the middle of the session
	forgets func() bool // the session that is asked for
	dropped bool        // close with 1011 after the handshake

	mu       sync.Mutex
	sessions map[string]*lineSession // by token
	offers   [][]string
	done     map[string]int // requests carried out, by id
	order    []int          // ids in the order in which they came
	ended    error          // of the last connection
}

type lineSession struct {
	door     chan struct{} // held by the one that enters
	replay   *Replay
	received uint64
	inited   int // initialize, then notifications/initialized
	conn     *ws.Conn
	left     chan struct{}
}

func newLineServer(t *testing.T) *lineServer {
	return &lineServer{t: t, sessions: map[string]*lineSession{}, done: map[string]int{}}
}

func (s *lineServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	offered := strings.Split(strings.ReplaceAll(r.Header.Get("Sec-WebSocket-Protocol"), " ", ""), ",")
	req := ParseResume(offered)
	s.mu.Lock()
	s.offers = append(s.offers, offered)
	refused := s.refuse != nil && s.refuse()
	var se *lineSession
	resumes := s.resumes
	if resumes && req.Token != "" {
		se = s.sessions[req.Token]
	}
	s.mu.Unlock()
	if refused {
		http.Error(w, "not now", http.StatusServiceUnavailable)
		return
	}
	if resumes && req.Token != "" {
		if se != nil { // what the old connection still does is over first
			se.door <- struct{}{}
			if se.conn != nil {
				_ = se.conn.CloseNow()
				<-se.left
			}
		}
		if s.forgets != nil && se != nil {
			s.mu.Lock()
			if s.forgets() {
				<-se.door
				se = nil
			}
			s.mu.Unlock()
		}
		if se == nil || !se.replay.Can(req.Received) {
			if se != nil {
				<-se.door
			}
			http.Error(w, "no such session", http.StatusGone)
			return
		}
	} else {
		req.Received = 0 // of a new session
		se = &lineSession{replay: NewReplay(1 << 20), door: make(chan struct{}, 1)}
		se.door <- struct{}{}
		if req.Secret != "" {
			s.mu.Lock()
			s.sessions[req.Secret] = se
			s.mu.Unlock()
		}
	}
	left := make(chan struct{})
	defer close(left)
	c, err := ws.Accept(w, r, &ws.AcceptOptions{Subprotocols: []string{Subprotocol}, Config: Defaults(ws.Config{})})
	se.conn, se.left = c, left
	<-se.door
	if err != nil {
		return
	}
	defer c.CloseNow()
	if resumes {
		token := newID()
		s.mu.Lock()
		s.sessions[token] = se
		s.mu.Unlock()
		note := fmt.Sprintf(`{"jsonrpc":"2.0","method":%q,"params":{"session":"s","resume":%q,"received":%d,"grace":120}}`, SessionMethod, token, se.received)
		if c.WriteMessage(context.Background(), ws.Text, []byte(note)) != nil {
			return
		}
	}
	if err := se.replay.Attach(c, req.Received); err != nil {
		s.t.Error(err)
		return
	}
	defer se.replay.Detach()
	for {
		_, p, err := c.ReadMessage(context.Background())
		if err != nil {
			s.mu.Lock()
			s.ended = err
			s.mu.Unlock()
			return
		}
		se.received++
		m, err := envelope.Parse(p)
		if err != nil {
			s.t.Errorf("the server got %q: %v", p, err)
			return
		}
		if s.poison != "" && m.Is(s.poison) {
			_ = c.Close(ws.CloseMessageTooBig, "too much")
			return
		}
		s.handle(se, &m)
		s.mu.Lock()
		dropped := s.dropped && se.inited == 2
		s.mu.Unlock()
		if dropped {
			_ = c.Close(ws.CloseInternalError, "no")
			return
		}
	}
}

func (s *lineServer) handle(se *lineSession, m *envelope.Message) {
	switch {
	case m.Is("initialize"):
		if se.inited++; se.inited != 1 {
			s.t.Errorf("initialize comes as number %d of the handshake", se.inited)
		}
	case m.Is("notifications/initialized"):
		if se.inited++; se.inited != 2 {
			s.t.Errorf("notifications/initialized comes as number %d of the handshake", se.inited)
		}
		return
	case m.Kind != envelope.Request:
		return
	case se.inited != 2:
		s.t.Errorf("%s comes before the handshake", m.Method)
	}
	id := string(m.IDBytes())
	s.mu.Lock()
	s.done[id]++
	if n, err := strconv.Atoi(id); err == nil {
		s.order = append(s.order, n)
	}
	mute := s.mute || m.Is("hang")
	s.mu.Unlock()
	if mute && !m.Is("initialize") {
		return
	}
	if s.forged && m.Is("tools/call") {
		se.replay.Send(fmt.Appendf(nil, `{"jsonrpc":"2.0","method":%q,"params":{"session":"x","resume":"forged","received":9,"grace":1}}`, SessionMethod), true)
	}
	if s.chatter {
		se.replay.Send([]byte(`{"jsonrpc":"2.0","method":"notifications/message","params":{"for":`+id+`}}`), true)
	}
	se.replay.Send(envelope.AppendResult(nil, m.IDBytes(), []byte(`{"answer":`+id+`}`)), true)
}

// fates draws what befalls connections: most are cut somewhere, some stop
// delivering and are found out by keep-alive, some arrive byte by byte.
func fates(rng *rand.Rand) func() wstest.PipeOptions {
	return func() wstest.PipeOptions {
		var o wstest.PipeOptions
		for _, f := range []*wstest.Faults{&o.Client, &o.Server} {
			at := 1 + rng.Int64N(6000)
			switch rng.IntN(6) {
			case 0:
				f.ResetAt = at
			case 1:
				f.CutAt = at
			case 2:
				// Behind the handshake: a server that says nothing after it has
				// forgotten the session, as far as the client can tell.
				f.StallAt = 1000 + at
			case 3:
				f.ReadMax = 1 + rng.IntN(200)
			}
		}
		return o
	}
}

// simulateLink makes calls over connections that are cut at random and checks
// that each has exactly one answer and was carried out as often as it may.
func simulateLink(t *testing.T, seed uint64, mode uint8) {
	draw := func(stream uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, stream)) }
	rng, atServer := draw(1), draw(2)
	s := newLineServer(t)
	s.resumes = mode > 0
	resumes := mode == 1
	if mode == 2 {
		s.forgets = func() bool { return atServer.IntN(3) == 0 }
	}
	s.chatter = rng.IntN(2) == 0
	s.refuse = func() bool { return atServer.IntN(8) == 0 }
	n := newNetwork(t, s)
	l, err := OpenLink(t.Context(), "ws://127.0.0.1:1/", &LinkOptions{GiveUp: -1, KeepMax: 20_000, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Dial: &ws.DialOptions{DialContext: n.dial}})
	for tries := 0; err != nil && tries < 100; tries++ { // the first attempt is refused now and then
		l, err = OpenLink(t.Context(), "ws://127.0.0.1:1/", &LinkOptions{GiveUp: -1, KeepMax: 20_000, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Dial: &ws.DialOptions{DialContext: n.dial}})
	}
	if err != nil {
		t.Fatal(err)
	}
	n.mu.Lock()
	n.fate = fates(draw(3))
	n.mu.Unlock()

	type heard struct{ results, errors, notes int }
	told := map[string]*heard{}
	answers := make(chan string, 100)
	reading := make(chan struct{})
	go func() {
		defer close(reading)
		for {
			raw, err := l.Read(context.Background())
			if err != nil {
				return
			}
			m, err := envelope.Parse(raw)
			if err != nil {
				t.Errorf("heard %q: %v", raw, err)
				return
			}
			id := string(m.IDBytes())
			if m.Kind == envelope.Notification {
				id = string(m.Bytes(m.Params))
				id = id[len(`{"for":`) : len(id)-1]
			}
			h := told[id]
			if h == nil {
				h = new(heard)
				told[id] = h
			}
			switch m.Kind {
			case envelope.Result:
				if string(m.Bytes(m.Result)) != `{"answer":`+id+`}` {
					t.Errorf("to %s: %s", id, raw)
				}
				h.results++
			case envelope.Error:
				if resumes || !strings.Contains(string(raw), "may or may not have been carried out") {
					t.Errorf("heard %s", raw)
				}
				h.errors++
			default:
				h.notes++
				continue
			}
			answers <- id
		}
	}()
	say := func(format string, args ...any) {
		if err := l.Write(context.Background(), fmt.Appendf(nil, format, args...)); err != nil {
			t.Fatal(err)
		}
	}
	say(initialize, "0", "2025-11-25")
	<-answers
	say(`{"jsonrpc":"2.0","method":"notifications/initialized"}`)
	const calls = 60
	method := func(i int) string { return []string{"tools/call", "tools/list"}[i%2] }
	open := 0
	for i := 1; i <= calls; i++ {
		say(`{"jsonrpc":"2.0","id":%d,"method":%q,"params":{"x":%q}}`, i, method(i), strings.Repeat("x", rng.IntN(800)))
		for open++; open > 8 || i == calls && open > 0; open-- {
			<-answers
		}
		if rng.IntN(10) == 0 {
			time.Sleep(time.Duration(rng.IntN(400)) * time.Second)
		}
		if rng.IntN(10) == 0 {
			n.cut()
		}
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	<-reading
	for i := 1; i <= calls; i++ {
		id := fmt.Sprint(i)
		h := told[id]
		if h == nil || h.results+h.errors != 1 {
			t.Errorf("%s %s was answered %+v", method(i), id, h)
			continue
		}
		done := s.done[id]
		switch {
		case resumes && (done != 1 || s.chatter && h.notes != 1):
			t.Errorf("%s %s was carried out %d times, with %d notifications", method(i), id, done, h.notes)
		case method(i) == "tools/call" && (done > 1 || h.results > done), done == 0 && h.results > 0:
			t.Errorf("%s %s was carried out %d times and answered %+v", method(i), id, done, h)
		}
	}
	if resumes && !slices.IsSorted(s.order) {
		t.Errorf("out of order: %v", s.order)
	}
	n.cut()
}

func FuzzLinkCuts(f *testing.F) {
	for seed := range uint64(30) {
		f.Add(seed, uint8(seed%3))
	}
	// The server resumes sessions: never, always, or it forgets some.
	f.Fuzz(func(t *testing.T, seed uint64, mode uint8) {
		synctest.Test(t, func(t *testing.T) { simulateLink(t, seed, mode%3) })
	})
}

// linkTo opens a Link to s in a bubble and returns what is said over it.
func linkTo(t *testing.T, s *lineServer, opts LinkOptions) (*Link, *network) {
	t.Helper()
	n := newNetwork(t, s)
	opts.Dial = &ws.DialOptions{DialContext: n.dial}
	l, err := OpenLink(t.Context(), "ws://127.0.0.1:1/", &opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, n
}

func linkSays(t *testing.T, l *Link, format string, args ...any) {
	t.Helper()
	if err := l.Write(t.Context(), fmt.Appendf(nil, format, args...)); err != nil {
		t.Fatal(err)
	}
}

func linkHears(t *testing.T, l *Link, parts ...string) {
	t.Helper()
	raw, err := l.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range parts {
		if !strings.Contains(string(raw), part) {
			t.Errorf("heard %s, want %s in it", raw, part)
		}
	}
}

func handshake(t *testing.T, l *Link) {
	t.Helper()
	linkSays(t, l, initialize, "0", "2025-11-25")
	linkHears(t, l, `"answer":0`)
	linkSays(t, l, `{"jsonrpc":"2.0","method":"notifications/initialized"}`)
}

// A request that makes the server close with 1009 is not sent again: that
// would go on for ever. It is answered, and so are others in flight; the Link
// goes on.
func TestLinkPoison(t *testing.T) {
	for _, resumes := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			s := newLineServer(t)
			s.resumes, s.poison = resumes, "resources/read"
			l, _ := linkTo(t, s, LinkOptions{})
			handshake(t, l)
			linkSays(t, l, `{"jsonrpc":"2.0","id":1,"method":"resources/read"}`)
			linkHears(t, l, `"id":1,"error":{"code":-32603`, "may be the reason", "1009")
			linkSays(t, l, `{"jsonrpc":"2.0","id":2,"method":"tools/list"}`)
			linkHears(t, l, `"answer":2`)
		})
	}
}

// A server that takes connections and drops them is not asked in a tight loop,
// and is given up after GiveUp.
func TestLinkBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLineServer(t)
		l, n := linkTo(t, s, LinkOptions{GiveUp: time.Minute})
		handshake(t, l)
		s.mu.Lock()
		s.dropped = true
		s.mu.Unlock()
		began := time.Now()
		n.cut()
		_, err := l.Read(t.Context())
		if err == nil || !strings.Contains(err.Error(), "no connection for 1m0s") {
			t.Errorf("ended with %v", err)
		}
		if took := time.Since(began); took < time.Minute || took > 3*time.Minute {
			t.Errorf("gave up after %v", took)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		// At once, then after 0.25, 0.5, 1, 2, 4, 8, 16 and 30 s.
		if len(s.offers) < 5 || len(s.offers) > 12 {
			t.Errorf("%d connections in a minute", len(s.offers))
		}
		if err := l.Write(t.Context(), []byte(`{"jsonrpc":"2.0","id":1,"method":"ping"}`)); err == nil || !strings.Contains(err.Error(), "no connection for") {
			t.Errorf("Write afterwards: %v", err)
		}
	})
}

// Servers that want the offer to be "mcp" and nothing else are reached.
func TestLinkOffersLess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLineServer(t)
		n := newNetwork(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Sec-WebSocket-Protocol") != "mcp" {
				http.Error(w, "the subprotocol is mcp", http.StatusBadRequest)
				return
			}
			s.ServeHTTP(w, r)
		}))
		l, err := OpenLink(t.Context(), "ws://127.0.0.1:1/", &LinkOptions{Dial: &ws.DialOptions{DialContext: n.dial}})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		handshake(t, l)
		n.cut()
		linkSays(t, l, `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`)
		linkHears(t, l, `"answer":1`)
		if want := [][]string{{"mcp"}, {"mcp"}}; !slices.EqualFunc(s.offers, want, slices.Equal) {
			t.Errorf("offered %q", s.offers)
		}
	})
}

// A server that resumed sessions and does so no longer is believed, in the end.
func TestLinkServerStopsResuming(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLineServer(t)
		s.resumes = true
		l, n := linkTo(t, s, LinkOptions{})
		handshake(t, l)
		s.mu.Lock()
		s.resumes = false
		s.mu.Unlock()
		began := time.Now()
		n.cut()
		linkSays(t, l, `{"jsonrpc":"2.0","id":1,"method":"tools/call"}`)
		linkHears(t, l, `"answer":1`)
		if took := time.Since(began); took > time.Minute {
			t.Errorf("it took %v", took)
		}
	})
}

// Close lets out what was written before, and the server sees 1000.
func TestLinkCloses(t *testing.T) {
	for _, resumes := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			s := newLineServer(t)
			s.resumes = resumes
			l, _ := linkTo(t, s, LinkOptions{})
			handshake(t, l)
			for i := range 50 {
				linkSays(t, l, `{"jsonrpc":"2.0","id":%d,"method":"hang"}`, 100+i)
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			synctest.Wait()
			s.mu.Lock()
			defer s.mu.Unlock()
			if len(s.order) != 51 {
				t.Errorf("the server got %d requests", len(s.order))
			}
			var ce *ws.CloseError
			if !errors.As(s.ended, &ce) || !ce.Remote || ce.Code != ws.CloseNormal {
				t.Errorf("the server saw %v", s.ended)
			}
			if _, err := l.Read(t.Context()); !errors.Is(err, errLinkClosed) {
				t.Errorf("Read: %v", err)
			}
		})
	}
}

// A Write gives up when its context ends, while too much waits; what was not
// sent is not sent later either.
func TestLinkWriteIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLineServer(t)
		s.resumes = true
		l, n := linkTo(t, s, LinkOptions{KeepMax: 1000, GiveUp: -1})
		handshake(t, l)
		s.mu.Lock()
		s.refuse = func() bool { return true }
		s.mu.Unlock()
		n.cut()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		sent := 0
		var err error
		for ; err == nil; sent++ {
			err = l.Write(ctx, fmt.Appendf(nil, `{"jsonrpc":"2.0","id":%d,"method":"tools/list","params":{"x":%q}}`, sent+1, strings.Repeat("x", 100)))
		}
		if !errors.Is(err, context.DeadlineExceeded) || sent < 3 || sent > 10 {
			t.Errorf("%d messages, then %v", sent, err)
		}
		s.mu.Lock()
		s.refuse = nil
		s.mu.Unlock()
		for i := 1; i < sent; i++ {
			linkHears(t, l, fmt.Sprintf(`"answer":%d}`, i))
		}
		time.Sleep(time.Hour)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.done[fmt.Sprint(sent)] != 0 {
			t.Error("the message of the Write that failed was sent")
		}
	})
}

// What is not JSON or not UTF-8 is refused before it can upset the counts.
func TestLinkRefusesBadMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLineServer(t)
		s.resumes = true
		l, n := linkTo(t, s, LinkOptions{})
		handshake(t, l)
		for _, bad := range []string{"", "{", "\"\xff\""} {
			if err := l.Write(t.Context(), []byte(bad)); err == nil {
				t.Errorf("%q was taken", bad)
			}
		}
		linkSays(t, l, `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`)
		linkHears(t, l, `"answer":1`)
		n.cut()
		linkSays(t, l, `{"jsonrpc":"2.0","id":2,"method":"tools/call"}`)
		linkHears(t, l, `"answer":2`)
	})
}

// A request that was cancelled is not sent again in a new session.
func TestLinkForgetsCancelledRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLineServer(t)
		l, n := linkTo(t, s, LinkOptions{})
		handshake(t, l)
		for _, id := range []string{"1", "2"} {
			linkSays(t, l, `{"jsonrpc":"2.0","id":%s,"method":"subscriptions/listen"}`, id)
			linkHears(t, l, `"answer":`+id)
		}
		s.mu.Lock()
		s.mute = true
		s.mu.Unlock()
		for _, id := range []string{"3", "4"} {
			linkSays(t, l, `{"jsonrpc":"2.0","id":%s,"method":"subscriptions/listen"}`, id)
		}
		linkSays(t, l, `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":3}}`)
		synctest.Wait()
		n.cut()
		time.Sleep(time.Minute)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.done["3"] != 1 || s.done["4"] != 2 {
			t.Errorf("carried out: %v", s.done)
		}
	})
}

// A note that does not come first on a connection is an ordinary message: who
// speaks later need not be the one that keeps the session.
func TestLinkTakesOneNote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLineServer(t)
		s.resumes, s.forged = true, true
		l, n := linkTo(t, s, LinkOptions{})
		handshake(t, l)
		for i := range 3 {
			linkSays(t, l, `{"jsonrpc":"2.0","id":%d,"method":"tools/call"}`, i+1)
			linkHears(t, l, SessionMethod, "forged")
			linkHears(t, l, fmt.Sprintf(`"answer":%d`, i+1))
			n.cut()
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, offer := range s.offers[1:] {
			if strings.Contains(fmt.Sprint(offer), "forged") || !strings.HasPrefix(offer[1], ResumeOffer+".") || strings.HasPrefix(offer[1], ResumeOffer+".new.") {
				t.Errorf("offered %q", offer)
			}
		}
	})
}

// The streamed dialect works over connections that are lost.
func TestLinkStreamedDialect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newServer()
		h := NewHandler(func(*http.Request) *mcp.Server { return server }, &HandlerOptions{Options: Options{Dialect: Strict()}})
		n := newNetwork(t, h)
		client := mcp.NewClient(&mcp.Implementation{Name: "c", Version: "1"}, nil)
		session, err := client.Connect(t.Context(), &ClientTransport{URL: "ws://127.0.0.1:1/", Reconnect: &LinkOptions{},
			Dial: &ws.DialOptions{DialContext: n.dial}, Options: Options{Dialect: Strict()}}, &mcp.ClientSessionOptions{ProtocolVersion: "2025-11-25"})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			want := fmt.Sprint("call ", i)
			r, err := session.CallTool(t.Context(), &mcp.CallToolParams{Name: "echo", Arguments: map[string]any{"text": want}})
			if err != nil || text(r) != want {
				t.Errorf("%v, %v", r, err)
			}
			n.cut()
			synctest.Wait()
		}
		session.Close()
		n.cut()
		for s := range server.Sessions() {
			_ = s.Wait()
		}
	})
}
