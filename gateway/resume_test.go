package gateway

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/weft-ws/weft/mcpws"
	"github.com/weft-ws/weft/mcpws/envelope"
	"github.com/weft-ws/weft/ws"
)

// cuts dials connections that can be cut: after a number of bytes in either
// direction, or by hand.
type cuts struct {
	mu    sync.Mutex
	conns map[net.Conn]struct{}
	after func() int // bytes until the cut; nil: none
	n     int        // connections that were cut
}

func (k *cuts) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	nc, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	c := &cutConn{Conn: nc, k: k, left: 1 << 60}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.conns == nil {
		k.conns = map[net.Conn]struct{}{}
	}
	k.conns[c] = struct{}{}
	if k.after != nil {
		c.left = k.after()
	}
	return c, nil
}

func (k *cuts) all() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for c := range k.conns {
		c.Close()
		delete(k.conns, c)
		k.n++
	}
}

func (k *cuts) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.n
}

type cutConn struct {
	net.Conn
	k    *cuts
	mu   sync.Mutex
	left int
}

// spend takes n bytes from what is left and returns how many may pass.
func (c *cutConn) spend(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n = min(n, c.left)
	c.left -= n
	if c.left == 0 {
		c.Conn.Close()
		c.k.mu.Lock()
		if _, ok := c.k.conns[c]; ok {
			delete(c.k.conns, c)
			c.k.n++
		}
		c.k.mu.Unlock()
	}
	return n
}

func (c *cutConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if m := c.spend(n); m < n || m == 0 {
		return m, errors.New("cut")
	}
	return n, err
}

func (c *cutConn) Write(p []byte) (int, error) {
	n := min(len(p), func() int { c.mu.Lock(); defer c.mu.Unlock(); return c.left }())
	m, err := c.Conn.Write(p[:n])
	if c.spend(m); err == nil && m < len(p) {
		err = errors.New("cut")
	}
	return m, err
}

func link(t *testing.T, url string, k *cuts, token string) *mcpws.Link {
	t.Helper()
	l, err := mcpws.OpenLink(t.Context(), url, &mcpws.LinkOptions{Token: token, BackoffMin: time.Millisecond, BackoffMax: 20 * time.Millisecond,
		GiveUp: 20 * time.Second, Dial: &ws.DialOptions{DialContext: k.dial}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// A thousand cuts at random places, in mid-frame and in the handshake, while
// calls fly in both directions: every call has exactly one answer, and the
// server got every call exactly once.
func TestResumeThousandCuts(t *testing.T) {
	allModes(t, func(t *testing.T, i Isolation) {
		b := &pipes{}
		_, url := serve(t, Options{}, Route{Name: "fake", Backend: b, Isolation: i, PoolSize: 1})
		k := &cuts{}
		l := link(t, url+"fake", k, "")
		rng := rand.New(rand.NewPCG(1, uint64(i)))
		k.mu.Lock()
		k.after = func() int { return 1 + rng.IntN(6000) }
		k.mu.Unlock()
		k.all()
		const target = 400 // in each of three modes
		answered := map[string]int{}
		var mu sync.Mutex
		go func() {
			for {
				raw, err := l.Read(t.Context())
				if err != nil {
					return
				}
				m, err := envelope.Parse(raw)
				if err != nil || m.Kind != envelope.Result || !strings.Contains(string(raw), "answer to "+string(m.IDBytes())+" ") {
					t.Errorf("heard %.200s", raw)
				}
				mu.Lock()
				answered[string(m.IDBytes())]++
				mu.Unlock()
			}
		}()
		calls := 0
		for ; k.count() < target; calls++ {
			msg := fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"echo","arguments":{"text":"answer to %d %s"}}}`,
				calls, calls, strings.Repeat("x", calls%700))
			if err := l.Write(t.Context(), []byte(msg)); err != nil {
				t.Fatal(err)
			}
			until(t, "not too many answers are missing", func() bool {
				mu.Lock()
				defer mu.Unlock()
				return len(answered) > calls-20
			})
		}
		until(t, "all answers", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(answered) == calls
		})
		for id, n := range answered {
			if n != 1 {
				t.Errorf("call %s was answered %d times", id, n)
			}
		}
		got := 0
		for _, line := range b.lines() {
			if strings.Contains(line, "tools/call") {
				got++
			}
		}
		if got != calls || b.n > 2 {
			t.Errorf("%d calls, the server got %d; %d servers", calls, got, b.n)
		}
		t.Logf("%d calls over %d cuts", calls, k.count())
	})
}

// While the client is away its server goes on, and what it says waits.
func TestResumeKeepsTheServer(t *testing.T) {
	g, url := serve(t, Options{}, testRoute(PerConnection))
	k := &cuts{}
	l := link(t, url+"fake", k, "")
	say := func(s string) {
		if err := l.Write(t.Context(), []byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	hear := func(want string) {
		raw, err := l.Read(t.Context())
		if err != nil || !strings.Contains(string(raw), want) {
			t.Fatalf("heard %s, %v, want %s", raw, err, want)
		}
	}
	say(fmt.Sprintf(initMsg, "1", "2025-11-25", "{}"))
	hear("serverInfo")
	id := g.Registry().Sessions()[0].ID
	say(`{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"hang","arguments":{},"_meta":{"progressToken":1}}}`)
	hear("progress")
	k.all()
	say(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":2}}`)
	hear(`"cancelled"`)
	if all := g.Registry().Sessions(); len(all) != 1 || all[0].ID != id {
		t.Errorf("sessions %+v, want the same one", all)
	}
}

func TestResumeTokens(t *testing.T) {
	tokens := NewTokens()
	tokens.Add("ada", "a")
	tokens.Add("bob", "b")
	g, url := serve(t, Options{Auth: tokens}, testRoute(PerConnection))
	as := func(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }
	open := func(token, offer string) (*wire, mcpws.SessionNote, int) {
		c, he := dialErr(t, url+"fake", as(token), "mcp", offer)
		if he != nil {
			return nil, mcpws.SessionNote{}, he.Status
		}
		if c.Subprotocol() != "mcp" {
			t.Errorf("the server chose %q", c.Subprotocol())
		}
		w := &wire{t, c}
		return w, note(t, w), 0
	}
	w, n, _ := open("a", "mcp.resume")
	if n.Grace != 120 || n.Received != 0 || n.Session != g.Registry().Sessions()[0].ID {
		t.Errorf("note %+v", n)
	}
	w.initialize("{}")
	w.call("0", "echo", `{"text":"what came before has been received"}`)
	w.hears("what came before")
	if _, _, status := open("b", mcpws.ResumeWith(n.Resume, 1)); status != http.StatusForbidden {
		t.Errorf("bob with ada's token: HTTP %d, want 403", status)
	}
	if _, _, status := open("a", mcpws.ResumeWith(NewSecret(), 1)); status != http.StatusGone {
		t.Errorf("an unknown token: HTTP %d, want 410", status)
	}
	// ada comes back although her old connection still stands: it is evicted.
	w2, n2, status := open("a", mcpws.ResumeWith(n.Resume, 0))
	if status != 0 || n2.Session != n.Session || n2.Received != 3 {
		t.Fatalf("HTTP %d, note %+v", status, n2)
	}
	w2.hears("serverInfo") // she said that she had received nothing
	w2.hears("what came before")
	w2.call("1", "echo", `{"text":"once more"}`)
	w2.hears("once more")
	go func() { _ = w2.c.Drain(t.Context()) }() // answers the ping that confirms the second token
	until(t, "the first token is used up", func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.resumable[sha256.Sum256([]byte(n.Resume))] == nil
	})
	if _, _, status := open("a", mcpws.ResumeWith(n.Resume, 0)); status != http.StatusGone {
		t.Errorf("a used token: HTTP %d, want 410", status)
	}
	// A client that claims more than was sent is refused, and its session ends.
	if _, _, status := open("a", mcpws.ResumeWith(n2.Resume, 99)); status != http.StatusGone {
		t.Errorf("99 messages received: HTTP %d, want 410", status)
	}
	until(t, "no session is left", func() bool { return len(g.Registry().Sessions()) == 0 })
}

func note(t *testing.T, w *wire) mcpws.SessionNote {
	t.Helper()
	m, err := envelope.Parse([]byte(w.hears(mcpws.SessionMethod)))
	if err != nil {
		t.Fatal(err)
	}
	var n mcpws.SessionNote
	if err := n.Parse(m.Bytes(m.Params)); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestGracePeriodEnds(t *testing.T) {
	g, url := serve(t, Options{ResumeGrace: 30 * time.Millisecond}, testRoute(PerConnection))
	c, he := dialErr(t, url+"fake", nil, "mcp", "mcp.resume")
	if he != nil {
		t.Fatal(he)
	}
	n := note(t, &wire{t, c})
	c.CloseNow()
	until(t, "the session is gone", func() bool { return len(g.Registry().Sessions()) == 0 })
	if _, he := dialErr(t, url+"fake", nil, "mcp", mcpws.ResumeWith(n.Resume, 0)); he == nil || he.Status != http.StatusGone {
		t.Errorf("after the grace period: %v", he)
	}
}

// A Close that was meant ends the session at once, and so does a client that
// did not ask for resumption.
func TestNoGraceWithoutReason(t *testing.T) {
	g, url := serve(t, Options{}, testRoute(PerConnection))
	for _, offer := range []string{"mcp.resume", "x"} {
		c, he := dialErr(t, url+"fake", nil, "mcp", offer)
		if he != nil {
			t.Fatal(he)
		}
		if offer == "x" {
			c.CloseNow()
		} else {
			c.Close(ws.CloseNormal, "")
		}
		until(t, "the session is gone", func() bool { return len(g.Registry().Sessions()) == 0 })
	}
}

// Without resumption at the server: idempotent requests are sent again, others
// fail with a reason, and the server has got the initialize again.
func TestLinkBeginsAnew(t *testing.T) {
	b := &pipes{}
	_, url := serve(t, Options{ResumeGrace: -1}, Route{Name: "fake", Backend: b})
	k := &cuts{}
	l := link(t, url+"fake", k, "")
	say := func(s string) {
		if err := l.Write(t.Context(), []byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	hear := func() string {
		raw, err := l.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	say(fmt.Sprintf(initMsg, "1", "2025-11-25", "{}"))
	hear()
	say(`{"jsonrpc":"2.0","method":"notifications/initialized"}`)
	say(`{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"hang","arguments":{},"_meta":{"progressToken":1}}}`)
	hear()
	say(`{"jsonrpc":"2.0","id":3,"method":"subscriptions/listen","params":{}}`)
	if got := hear(); !strings.Contains(got, "acknowledged") {
		t.Errorf("heard %s", got)
	}
	k.all()
	heard := hear() + hear()
	for _, want := range []string{"acknowledged", `"id":2,"error":{"code":-32603`, "may or may not have been carried out"} {
		if !strings.Contains(heard, want) {
			t.Errorf("heard %s, want %s", heard, want)
		}
	}
	say(`{"jsonrpc":"2.0","id":4,"method":"tools/call","params":{"name":"echo","arguments":{"text":"works"}}}`)
	if got := hear(); !strings.Contains(got, "works") {
		t.Errorf("heard %s", got)
	}
	inits := 0
	for _, line := range b.lines() {
		if strings.Contains(line, `"method":"initialize"`) {
			inits++
		}
	}
	if inits != 2 || b.n != 2 {
		t.Errorf("%d initialize to %d servers", inits, b.n)
	}
}

// The SDK's client over a Link does not notice that connections are cut.
func TestSDKOverLink(t *testing.T) {
	_, url := serve(t, Options{}, Route{Name: "b", Backend: &InProcess{Name: "builtin", Server: func(Caller) *mcp.Server { return NewBuiltin("test") }}})
	k := &cuts{}
	client := mcp.NewClient(&mcp.Implementation{Name: "c", Version: "1"}, nil)
	s, err := client.Connect(t.Context(), &mcpws.ClientTransport{URL: url + "b", Dial: &ws.DialOptions{DialContext: k.dial},
		Reconnect: &mcpws.LinkOptions{BackoffMin: time.Millisecond}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i := range 20 {
		k.all()
		r, err := s.CallTool(t.Context(), &mcp.CallToolParams{Name: "echo", Arguments: map[string]any{"text": fmt.Sprint(i)}})
		if err != nil || r.Content[0].(*mcp.TextContent).Text != fmt.Sprint(i) {
			t.Errorf("call %d: %v, %v", i, r, err)
		}
	}
}
