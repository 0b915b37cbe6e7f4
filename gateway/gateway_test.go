package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/weft-ws/weft/mcpws"
	"github.com/weft-ws/weft/mcpws/envelope"
	"github.com/weft-ws/weft/ws"
)

// serve runs a gateway with routes on loopback. It is drained at the end. Unless
// opts have a logger the test's log is used.
func serve(t *testing.T, opts Options, routes ...Route) (g *Gateway, url string) {
	t.Helper()
	if opts.Logger == nil {
		opts.Logger = testLog(t)
	}
	g = New(opts)
	if err := g.SetRoutes(routes); err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(g)
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		g.Drain(ctx)
		s.Close()
	})
	return g, "ws" + strings.TrimPrefix(s.URL, "http") + "/mcp/"
}

// A wire is a raw WebSocket client.
type wire struct {
	t *testing.T
	c *ws.Conn
}

func dialErr(t *testing.T, url string, header http.Header, subprotocols ...string) (*ws.Conn, *ws.HandshakeError) {
	t.Helper()
	c, err := ws.Dial(t.Context(), url, &ws.DialOptions{Header: header, Subprotocols: subprotocols, Config: ws.Config{MaxMessageSize: 64 << 20}})
	var he *ws.HandshakeError
	if err != nil && !errors.As(err, &he) {
		t.Fatal(err)
	}
	if c != nil {
		t.Cleanup(func() { c.CloseNow() })
	}
	return c, he
}

func dial(t *testing.T, url string) *wire {
	t.Helper()
	c, he := dialErr(t, url, nil, "mcp")
	if he != nil {
		t.Fatal(he)
	}
	return &wire{t, c}
}

func (w *wire) say(format string, args ...any) {
	w.t.Helper()
	if err := w.c.WriteMessage(w.t.Context(), ws.Text, fmt.Appendf(nil, format, args...)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *wire) hears(parts ...string) string {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	_, p, err := w.c.ReadMessage(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, part := range parts {
		if !strings.Contains(string(p), part) {
			w.t.Errorf("heard %.300s, want %s in it", p, part)
		}
	}
	return string(p)
}

func (w *wire) wantsClose(code ws.CloseCode, reason string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	_, p, err := w.c.ReadMessage(ctx)
	var ce *ws.CloseError
	if !errors.As(err, &ce) || ce.Code != code || !strings.Contains(ce.Reason, reason) {
		w.t.Errorf("heard %.200q, %v, want close %d %q", p, err, code, reason)
	}
}

func (w *wire) call(id, tool, args string) {
	w.t.Helper()
	w.say(`{"jsonrpc":"2.0","id":%s,"method":"tools/call","params":{"name":%q,"arguments":%s,"_meta":{"progressToken":"p"}}}`, id, tool, args)
}

const initMsg = `{"jsonrpc":"2.0","id":%s,"method":"initialize","params":{"protocolVersion":%q,"capabilities":%s,"clientInfo":{"name":"t","version":"1"}}}`

func (w *wire) initialize(caps string) {
	w.t.Helper()
	w.say(initMsg, `"i"`, "2025-11-25", caps)
	w.hears(`"id":"i"`, "serverInfo")
	w.say(`{"jsonrpc":"2.0","method":"notifications/initialized"}`)
}

func testRoute(i Isolation) Route { return Route{Name: "fake", Backend: &pipes{}, Isolation: i} }

func allModes(t *testing.T, f func(t *testing.T, i Isolation)) {
	for _, i := range []Isolation{PerConnection, Pool, Shared} {
		t.Run(i.String(), func(t *testing.T) { f(t, i) })
	}
}

func TestGatewayCalls(t *testing.T) {
	allModes(t, func(t *testing.T, i Isolation) {
		_, url := serve(t, Options{}, testRoute(i))
		for _, path := range []string{"fake", "ws"} {
			w := dial(t, url+path)
			w.initialize("{}")
			w.call("9007199254740993", "echo", `{"text":"hello"}`)
			w.hears("hello", `"id":9007199254740993}`)
		}
	})
}

// Many clients of all modes, with the same ids and tokens and with questions
// of the server: nothing crosses.
func TestGatewayKeepsClientsApart(t *testing.T) {
	allModes(t, func(t *testing.T, i Isolation) {
		_, url := serve(t, Options{}, testRoute(i))
		var all sync.WaitGroup
		for n := range 40 {
			w := dial(t, url+"fake")
			all.Go(func() {
				w.initialize(`{"sampling":{}}`)
				for k := range 5 {
					w.call("1", "ask", fmt.Sprintf(`{"text":"client %d question %d"}`, n, k))
					m, err := envelope.Parse([]byte(w.hears("sampling/createMessage", fmt.Sprintf("client %d question %d", n, k))))
					if err != nil {
						t.Error(err)
						return
					}
					w.say(`{"jsonrpc":"2.0","id":%s,"result":{"n":"%d.%d"}}`, m.IDBytes(), n, k)
					w.hears(fmt.Sprintf(`\"n\":\"%d.%d\"`, n, k), `"id":1}`)
					w.call("2", "progress", `{"n":2}`)
					w.hears(`"progressToken":"p"`)
					w.hears(`"progressToken":"p"`)
					w.hears(`"id":2`)
				}
			})
		}
		all.Wait()
	})
}

func TestSharedUsesOneServer(t *testing.T) {
	b := &pipes{}
	_, url := serve(t, Options{}, Route{Name: "fake", Backend: b, Isolation: Shared})
	for range 10 {
		w := dial(t, url+"fake")
		w.initialize("{}")
	}
	if b.n != 1 {
		t.Errorf("%d servers for ten clients that can be asked nothing", b.n)
	}
	w := dial(t, url+"fake")
	w.initialize(`{"sampling":{}}`)
	if b.n != 2 {
		t.Errorf("%d servers; a client that can be asked has to have another", b.n)
	}
}

func TestPoolKeepsServersWarm(t *testing.T) {
	b := &pipes{}
	g, url := serve(t, Options{}, Route{Name: "fake", Backend: b, Isolation: Pool, PoolSize: 3})
	warm := func() int { return g.Registry().Servers()[0].Warm }
	until(t, "three warm servers", func() bool { return warm() == 3 })
	w := dial(t, url+"fake")
	w.initialize("{}")
	until(t, "three warm servers again", func() bool { return warm() == 3 })
	b.mu.Lock()
	n := b.n
	b.mu.Unlock()
	if n != 4 {
		t.Errorf("%d servers were started", n)
	}
}

func TestGatewayBadMessages(t *testing.T) {
	allModes(t, func(t *testing.T, i Isolation) {
		_, url := serve(t, Options{}, testRoute(i))
		w := dial(t, url+"fake")
		w.say("{broken")
		w.hears(`"id":null,"error":{"code":-32700`)
		w.say(`{"id":5}`)
		w.hears(`"id":5,"error":{"code":-32600`)
		w.say(`[]`)
		w.hears(`"error":{"code":-32600`)
		w.initialize("{}")
		if err := w.c.WriteMessage(t.Context(), ws.Binary, nil); err != nil {
			t.Fatal(err)
		}
		w.wantsClose(ws.CloseUnsupportedData, "")
	})
}

func TestJ3_GatewayBatches(t *testing.T) {
	allModes(t, func(t *testing.T, i Isolation) {
		_, url := serve(t, Options{}, Route{Name: "fake", Isolation: i, Backend: &InProcess{Name: "sdk", Server: func(Caller) *mcp.Server { return NewBuiltin("test") }}})
		w := dial(t, url+"fake")
		w.say(initMsg, "1", "2025-03-26", "{}")
		w.hears(`"2025-03-26"`)
		w.say(`[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","id":2,"method":"ping"}]`)
		if got := w.hears() + w.hears(); !strings.Contains(got, `"id":1`) || !strings.Contains(got, `"id":2`) {
			t.Errorf("answers: %s", got)
		}
	})
}

// Show: kill -9 of a child in mid-call; the caller gets an error and the next
// call works.
func TestJ6_GatewayChildDies(t *testing.T) {
	allModes(t, func(t *testing.T, i Isolation) {
		_, url := serve(t, Options{}, Route{Name: "fake", Backend: self(t, "mcp"), Isolation: i, PoolSize: 1})
		w := dial(t, url+"fake")
		w.initialize("{}")
		w.call("1", "crash", "{}")
		w.hears(`"id":1,"error":{"code":-32603`, "exit status 3", "it is being started again")
		w.call("2", "echo", `{"text":"back"}`)
		w.hears("back", `"id":2`)
	})
}

func TestBreakerCloses1011(t *testing.T) {
	_, url := serve(t, Options{}, Route{Name: "fake", Backend: &pipes{fail: errors.New("nothing there")}})
	w := dial(t, url+"fake")
	w.call("1", "echo", "{}")
	w.hears(`"id":1,"error"`, "nothing there")
	w.wantsClose(ws.CloseInternalError, "server failed: nothing there")
}

func TestAuth(t *testing.T) {
	tokens := NewTokens()
	tokens.Add("ada", "ada-token")
	tokens.Add("bob", "bob-token")
	_, url := serve(t, Options{Auth: tokens}, testRoute(PerConnection),
		Route{Name: "private", Backend: &pipes{}, Principals: []string{"bob"}})
	ticket := func(life time.Duration) string {
		s, err := tokens.Ticket("ada", life)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	once := ticket(time.Minute)
	bearer := func(s string) http.Header { return http.Header{"Authorization": {"Bearer " + s}} }
	for _, tt := range []struct {
		name   string
		path   string
		header http.Header
		offer  []string
		status int
	}{
		{"nothing", "fake", nil, []string{"mcp"}, 401},
		{"header", "fake", bearer("ada-token"), []string{"mcp"}, 0},
		{"wrong token", "fake", bearer("ada-tokem"), []string{"mcp"}, 401},
		{"empty token", "fake", bearer(""), []string{"mcp"}, 401},
		{"subprotocol", "fake", nil, []string{"mcp", "mcp.auth.bob-token"}, 0},
		{"bearer subprotocol", "fake", nil, []string{"bearer", "ada-token", "mcp"}, 0},
		{"wrong subprotocol", "fake", nil, []string{"mcp", "mcp.auth.x"}, 401},
		{"IDE header", "fake", http.Header{"X-Claude-Code-Ide-Authorization": {"ada-token"}}, []string{"mcp"}, 0},
		{"ticket", "fake?ticket=" + once, nil, []string{"mcp"}, 0},
		{"the ticket again", "fake?ticket=" + once, nil, []string{"mcp"}, 401},
		{"an expired ticket", "fake?ticket=" + ticket(-time.Second), nil, []string{"mcp"}, 401},
		{"a token in the URL", "fake?token=ada-token", nil, []string{"mcp"}, 401},
		{"no such server", "none", bearer("ada-token"), []string{"mcp"}, 404},
		{"no such server, nobody", "none", nil, []string{"mcp"}, 401},
		{"not for ada", "private", bearer("ada-token"), []string{"mcp"}, 404},
		{"for bob", "private", bearer("bob-token"), []string{"mcp"}, 0},
	} {
		c, he := dialErr(t, url+tt.path, tt.header, tt.offer...)
		switch {
		case tt.status == 0 && he != nil:
			t.Errorf("%s: %v", tt.name, he)
		case tt.status == 0 && c.Subprotocol() != "mcp":
			t.Errorf("%s: the server chose %q", tt.name, c.Subprotocol())
		case tt.status != 0 && (he == nil || he.Status != tt.status):
			t.Errorf("%s: %v, want HTTP %d", tt.name, he, tt.status)
		case tt.status == 401 && he.Header.Get("WWW-Authenticate") == "":
			t.Errorf("%s: no WWW-Authenticate", tt.name)
		}
	}
}

func TestTicketEndpoint(t *testing.T) {
	tokens := NewTokens()
	tokens.Add("ada", "secret")
	_, url := serve(t, Options{Auth: tokens}, testRoute(PerConnection))
	post := func(token string) *http.Response {
		req, _ := http.NewRequest("POST", "http"+strings.TrimPrefix(url, "ws")+"ticket", nil)
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close(); http.DefaultClient.CloseIdleConnections() })
		return resp
	}
	if resp := post("wrong"); resp.StatusCode != 401 {
		t.Errorf("wrong token: %s", resp.Status)
	}
	var got struct{ Ticket string }
	resp := post("secret")
	b, _ := io.ReadAll(resp.Body)
	if err := json.Unmarshal(b, &got); err != nil || got.Ticket == "" {
		t.Fatalf("%s: %v", b, err)
	}
	if _, he := dialErr(t, url+"fake?ticket="+got.Ticket, nil, "mcp"); he != nil {
		t.Error(he)
	}
}

// A page on another origin cannot connect, nor can a name that resolves here.
func TestOriginAndHost(t *testing.T) {
	tokens := NewTokens()
	tokens.Add("ada", "secret")
	_, url := serve(t, Options{Auth: tokens, Accept: ws.AcceptOptions{Hosts: ws.LoopbackHosts()}}, testRoute(PerConnection))
	auth := http.Header{"Authorization": {"Bearer secret"}}
	evil := auth.Clone()
	evil.Set("Origin", "https://evil.example")
	if _, he := dialErr(t, url+"fake", evil, "mcp"); he == nil || he.Status != http.StatusForbidden {
		t.Errorf("another origin: %v, want 403", he)
	}
	_, err := ws.Dial(t.Context(), url+"fake", &ws.DialOptions{Host: "evil.example", Header: auth})
	var he *ws.HandshakeError
	if !errors.As(err, &he) || he.Status != http.StatusForbidden {
		t.Errorf("Host: evil.example: %v, want 403", err)
	}
	if _, he := dialErr(t, url+"fake", auth, "mcp"); he != nil {
		t.Error(he)
	}
}

func TestS5_ConnectionLimits(t *testing.T) {
	tokens := NewTokens()
	tokens.Add("ada", "a")
	tokens.Add("bob", "b")
	g, url := serve(t, Options{Auth: tokens, ConnectionsMax: 3, PerPrincipalMax: 2}, testRoute(PerConnection))
	as := func(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }
	want503 := func(who string) {
		t.Helper()
		_, he := dialErr(t, url+"fake", as(who), "mcp")
		if he == nil || he.Status != http.StatusServiceUnavailable || he.Header.Get("Retry-After") == "" {
			t.Errorf("%s: %v, want 503 with Retry-After", who, he)
		}
	}
	var conns []*ws.Conn
	for range 2 {
		c, he := dialErr(t, url+"fake", as("a"), "mcp")
		if he != nil {
			t.Fatal(he)
		}
		conns = append(conns, c)
	}
	want503("a")
	if _, he := dialErr(t, url+"fake", as("b"), "mcp"); he != nil {
		t.Fatal(he)
	}
	want503("b")
	conns[0].Close(ws.CloseNormal, "")
	until(t, "a place is free", func() bool { return len(g.Registry().Sessions()) == 2 })
	if _, he := dialErr(t, url+"fake", as("b"), "mcp"); he != nil {
		t.Error(he)
	}
}

// A credential that expires ends the session with 1008.
func TestS6_ExpiryCloses1008(t *testing.T) {
	_, url := serve(t, Options{Auth: expiring{}}, testRoute(PerConnection))
	dial(t, url+"fake").wantsClose(ws.ClosePolicyViolation, "expired")
}

type expiring struct{}

func (expiring) Authenticate(*http.Request, []string) (Identity, error) {
	return Identity{Principal: "x", Expires: time.Now().Add(50 * time.Millisecond)}, nil
}

func TestS1_S2_Registry(t *testing.T) {
	g, url := serve(t, Options{}, testRoute(Shared))
	r := g.Registry()
	a, b := dial(t, url+"fake"), dial(t, url+"fake")
	a.initialize("{}")
	b.initialize("{}")
	a.call(`"long"`, "hang", "{}")
	a.hears("progress")
	var ids []string
	for _, s := range r.Sessions() {
		if len(s.ID) != 32 { // 128 bits in hexadecimal
			t.Errorf("session id %q", s.ID)
		}
		ids = append(ids, s.ID)
	}
	if len(ids) != 2 || ids[0] == ids[1] {
		t.Fatalf("sessions %q", ids)
	}
	info := r.Sessions()[0]
	if info.Route != "fake" || info.Version != "2025-11-25" || len(info.Calls) != 1 || info.Calls[0].Method != "tools/call" || info.Calls[0].ID != `"long"` {
		t.Errorf("the first session is %+v", info)
	}
	if err := r.Send(ids[1], []byte(`{"jsonrpc":"2.0","method":"notifications/message","params":{"data":"for b"}}`)); err != nil {
		t.Error(err)
	}
	b.hears("for b")
	if err := r.Send("nobody", nil); !errors.Is(err, ErrNoSession) {
		t.Errorf("a message to nobody: %v", err)
	}
	if err := r.AddServer(Route{Name: "more", Backend: &pipes{}}); err != nil {
		t.Error(err)
	}
	m := dial(t, url+"more")
	m.initialize("{}")
	if got := r.Servers(); len(got) != 2 || got[0].Name != "fake" || got[1].Name != "more" || got[1].Running[0].State != "up" {
		t.Errorf("servers %+v", got)
	}
	if err := r.RemoveServer("more"); err != nil {
		t.Error(err)
	}
	m.wantsClose(ws.CloseServiceRestart, "removed")
	if err := r.RemoveServer("more"); !errors.Is(err, ErrNoServer) {
		t.Errorf("removed twice: %v", err)
	}
	if s, ok := r.Session(ids[0]); ok {
		s.End(ws.CloseNormal, "enough")
		a.wantsClose(ws.CloseNormal, "enough")
	}
	b.call("1", "echo", `{"text":"untouched"}`)
	b.hears("untouched")
}

func TestReloadLeavesTheUnchangedAlone(t *testing.T) {
	same := Route{Name: "same", Backend: &pipes{}, Fingerprint: "1"}
	g, url := serve(t, Options{}, same, Route{Name: "other", Backend: &pipes{}, Fingerprint: "1"}, Route{Name: "gone", Backend: &pipes{}, Fingerprint: "1"})
	a, b, c := dial(t, url+"same"), dial(t, url+"other"), dial(t, url+"gone")
	for _, w := range []*wire{a, b, c} {
		w.initialize("{}")
	}
	err := g.SetRoutes([]Route{same, {Name: "other", Backend: &pipes{}, Fingerprint: "2"}, {Name: "bad name", Backend: &pipes{}}})
	if err == nil {
		t.Error("a bad name was accepted")
	}
	a.call("1", "echo", `{"text":"nothing changed"}`)
	a.hears("nothing changed")
	if err := g.SetRoutes([]Route{same, {Name: "other", Backend: &pipes{}, Fingerprint: "2"}}); err != nil {
		t.Fatal(err)
	}
	b.wantsClose(ws.CloseServiceRestart, "connect again")
	c.wantsClose(ws.CloseServiceRestart, "connect again")
	a.call("2", "echo", `{"text":"still here"}`)
	a.hears("still here")
	dial(t, url+"other").initialize("{}")
}

// One bad server leaves the others alone.
func TestOneBadServer(t *testing.T) {
	_, url := serve(t, Options{}, testRoute(Shared), Route{Name: "bad", Isolation: Shared, Backend: &pipes{fail: errors.New("broken")}})
	bad := dial(t, url+"bad")
	bad.call("1", "echo", "{}")
	bad.hears("broken")
	w := dial(t, url+"fake")
	w.initialize("{}")
	w.call("1", "echo", `{"text":"fine"}`)
	w.hears("fine")
}

func TestDrainFinishesWhatIsInFlight(t *testing.T) {
	allModes(t, func(t *testing.T, i Isolation) {
		g, url := serve(t, Options{}, testRoute(i))
		w := dial(t, url+"fake")
		w.initialize(`{"sampling":{}}`)
		w.call("1", "ask", `{"text":"?"}`)
		m, err := envelope.Parse([]byte(w.hears("sampling/createMessage")))
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() { g.Drain(context.Background()); close(done) }()
		until(t, "draining", func() bool { return !g.Ready() })
		w.call("2", "echo", "{}")
		w.hears(`"id":2,"error"`, "shutting down")
		if _, he := dialErr(t, url+"fake", nil, "mcp"); he == nil || he.Status != http.StatusServiceUnavailable {
			t.Errorf("a newcomer: %v", he)
		}
		w.say(`{"jsonrpc":"2.0","id":%s,"result":{"n":1}}`, m.IDBytes())
		w.hears(`"id":1`, "content")
		w.wantsClose(ws.CloseGoingAway, "shutting down")
		<-done
	})
}

func TestDrainGivesUp(t *testing.T) {
	g, url := serve(t, Options{}, testRoute(PerConnection))
	w := dial(t, url+"fake")
	w.initialize("{}")
	w.call("1", "hang", "{}")
	w.hears("progress")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	done := make(chan struct{})
	go func() { g.Drain(ctx); close(done) }()
	w.hears(`"id":1,"error":{"code":-32603`, "shutting down")
	w.wantsClose(ws.CloseGoingAway, "")
	<-done
}

// S4: a client that does not read is not read, and the others do not notice.
func TestS4_SlowClientOfASharedServer(t *testing.T) {
	_, url := serve(t, Options{}, testRoute(Shared))
	slow, quick := dial(t, url+"fake"), dial(t, url+"fake")
	slow.initialize("{}")
	quick.initialize("{}")
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	sent := 0
	for sent < 20_000 {
		msg := fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"large","arguments":{"n":65536}}}`, sent)
		if slow.c.WriteMessage(ctx, ws.Text, []byte(msg)) != nil {
			break
		}
		sent++
	}
	for i := range 20 {
		quick.call(fmt.Sprint(i), "echo", `{"text":"quick"}`)
		quick.hears("quick")
	}
}

// The SDK's client sees a server behind the gateway as it is, in both eras.
func TestSDKThroughGateway(t *testing.T) {
	allModes(t, func(t *testing.T, i Isolation) {
		_, url := serve(t, Options{}, Route{Name: "b", Isolation: i,
			Backend: &InProcess{Name: "builtin", Server: func(Caller) *mcp.Server { return NewBuiltin("test") }}})
		for _, version := range []string{"2025-11-25", "2026-07-28"} {
			var progress []float64
			var mu sync.Mutex
			client := mcp.NewClient(&mcp.Implementation{Name: "c", Version: "1"}, &mcp.ClientOptions{
				ElicitationHandler: func(_ context.Context, req *mcp.ElicitRequest) (*mcp.ElicitResult, error) {
					return &mcp.ElicitResult{Action: "accept", Content: map[string]any{"answer": "blue"}}, nil
				},
				ProgressNotificationHandler: func(_ context.Context, r *mcp.ProgressNotificationClientRequest) {
					mu.Lock()
					progress = append(progress, r.Params.Progress)
					mu.Unlock()
				},
			})
			s, err := client.Connect(t.Context(), &mcpws.ClientTransport{URL: url + "b"}, &mcp.ClientSessionOptions{ProtocolVersion: version})
			if err != nil {
				t.Fatal(err)
			}
			for _, tt := range []struct {
				tool string
				args map[string]any
				want string
			}{
				{"echo", map[string]any{"text": "hello"}, "hello"},
				{"add", map[string]any{"a": 2, "b": 3}, `{"sum":5}`},
				{"large", map[string]any{"bytes": 5}, "All w"},
				{"slow", map[string]any{"steps": 3, "seconds": 0.01}, "done in 3 steps"},
				{"ask", map[string]any{"question": "which colour?"}, "The client said: blue"},
			} {
				p := &mcp.CallToolParams{Name: tt.tool, Arguments: tt.args}
				p.SetProgressToken("p")
				r, err := s.CallTool(t.Context(), p)
				if err != nil || len(r.Content) == 0 || r.Content[0].(*mcp.TextContent).Text != tt.want {
					t.Errorf("%s %s: %+v, %v, want %q", version, tt.tool, r, err, tt.want)
				}
			}
			// The SDK hands a notification to its handler when it has the time,
			// an answer to its caller at once.
			until(t, version+": three notifications of progress", func() bool {
				mu.Lock()
				defer mu.Unlock()
				return slices.Equal(progress, []float64{1, 2, 3})
			})
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

// /mcp offers the tools of all servers, each under its server's name.
func TestMerged(t *testing.T) {
	tokens := NewTokens()
	tokens.Add("ada", "ada")
	_, url := serve(t, Options{Auth: tokens}, testRoute(Shared),
		Route{Name: "own", Backend: &pipes{}, Deny: []string{"crash"}},
		Route{Name: "bad", Backend: &pipes{fail: errors.New("broken")}},
		Route{Name: "private", Backend: &pipes{}, Principals: []string{"bob"}})
	c, he := dialErr(t, strings.TrimSuffix(url, "/"), http.Header{"Authorization": {"Bearer ada"}}, "mcp")
	if he != nil {
		t.Fatal(he)
	}
	w := &wire{t, c}
	w.initialize(`{"sampling":{}}`)
	w.say(`{"jsonrpc":"2.0","id":"l","method":"tools/list"}`)
	var list struct {
		Result struct{ Tools []struct{ Name string } }
	}
	if err := json.Unmarshal([]byte(w.hears(`"id":"l"`)), &list); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, tool := range list.Result.Tools {
		names = append(names, tool.Name)
	}
	if got, want := strings.Join(names, " "), "fake__echo fake__crash own__echo"; got != want {
		t.Errorf("tools %q, want %q", got, want)
	}
	for _, server := range []string{"fake", "own"} {
		w.call("1", server+"__echo", `{"text":"hello"}`)
		w.hears("hello", `"id":1}`)
		w.call("2", server+"__progress", `{"n":1}`)
		w.hears(`"progressToken":"p"`)
		w.hears(`"id":2`)
		w.call("3", server+"__ask", fmt.Sprintf(`{"text":"asked by %s"}`, server))
		m, err := envelope.Parse([]byte(w.hears("asked by " + server)))
		if err != nil {
			t.Fatal(err)
		}
		w.say(`{"jsonrpc":"2.0","id":%s,"result":{"to":%q}}`, m.IDBytes(), server)
		w.hears(server, `"id":3`)
		w.call("4", server+"__hang", "{}")
		w.hears("progress")
		w.say(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":4}}`)
		w.hears(`"cancelled"`, `"id":4`)
	}
	w.call("5", "own__crash", "{}")
	w.hears(`"id":5,"error"`, "not offered")
	w.call("6", "private__echo", "{}")
	w.hears(`"id":6,"error"`, "no tool")
	w.call("7", "bad__echo", "{}")
	w.hears(`"id":7,"error"`, "broken")
	w.say(`{"jsonrpc":"2.0","id":8,"method":"prompts/list"}`)
	w.hears(`"id":8,"result":{"prompts":[]}`)
	w.say(`{"jsonrpc":"2.0","id":9,"method":"server/discover","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}`)
	w.hears(`"id":9,"result":`, `"supportedVersions":["2026-07-28","2025-11-25"`)
	w.say(`{"jsonrpc":"2.0","id":10,"method":"logging/setLevel","params":{"level":"info"}}`)
	w.hears(`"id":10,"error":{"code":-32601`, "/mcp/NAME")
}
