package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weft-ws/weft/mcpws/envelope"
)

// pipes is a backend that runs fakeServer in this process.
type pipes struct {
	mu   sync.Mutex
	last *pipePeer
	n    int
	sent []string // every line written to any of its servers
	fail error    // Open fails with it
}

func (b *pipes) String() string { return "pipes" }

func (b *pipes) Open(context.Context, Caller) (Peer, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail != nil {
		return nil, b.fail
	}
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	go func() {
		err := fakeServer(inR, outW)
		if err == nil {
			err = io.EOF
		}
		outW.CloseWithError(err)
		inR.CloseWithError(io.ErrClosedPipe)
	}()
	b.n++
	b.last = &pipePeer{b, inW, outR, newLineReader(outR, 1<<20)}
	return b.last, nil
}

func (b *pipes) lines() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.sent...)
}

type pipePeer struct {
	b     *pipes
	in    *io.PipeWriter
	out   *io.PipeReader
	lines *lineReader
}

func (p *pipePeer) Read() ([]byte, error) { return p.lines.next() }

func (p *pipePeer) Write(msg []byte) error {
	p.b.mu.Lock()
	p.b.sent = append(p.b.sent, string(msg))
	p.b.mu.Unlock()
	_, err := p.in.Write(append(msg, '\n'))
	return err
}

func (p *pipePeer) Close() error {
	p.in.Close()
	p.out.CloseWithError(errors.New("closed"))
	return nil
}

func newTestHub(t *testing.T, b Backend, shared bool) *hub {
	h := newHub("test", b, Caller{Route: "test"})
	h.log, h.shared = testLog(t), shared
	h.start()
	t.Cleanup(func() { h.close(errors.New("the test is over")) })
	return h
}

// A guest is a client of a hub. What it is told is kept as text.
type guest struct {
	t    *testing.T
	h    *hub
	p    *port
	told chan string
}

func newGuest(t *testing.T, h *hub) *guest {
	g := &guest{t: t, h: h, told: make(chan string, 1000)}
	g.p = h.join(func(msg []byte) { g.told <- string(msg) })
	return g
}

func (g *guest) say(format string, args ...any) {
	g.t.Helper()
	m, err := envelope.Parse([]byte(fmt.Sprintf(format, args...)))
	if err != nil {
		g.t.Fatal(err)
	}
	g.h.handle(g.p, &m)
}

func (g *guest) call(id, tool, args string) {
	g.t.Helper()
	g.say(`{"jsonrpc":"2.0","id":%s,"method":"tools/call","params":{"name":%q,"arguments":%s,"_meta":{"progressToken":"p"}}}`, id, tool, args)
}

func (g *guest) hears() string {
	g.t.Helper()
	select {
	case s := <-g.told:
		return s
	case <-time.After(time.Minute):
		g.t.Fatal("nothing heard within a minute")
		return ""
	}
}

func (g *guest) wants(parts ...string) {
	g.t.Helper()
	got := g.hears()
	for _, part := range parts {
		if !strings.Contains(got, part) {
			g.t.Errorf("heard %s, want %s in it", got, part)
		}
	}
}

func (g *guest) wantsSilence() {
	g.t.Helper()
	g.say(`{"jsonrpc":"2.0","id":"silence","method":"ping"}`)
	g.wants(`"id":"silence","result":{}`)
}

func (g *guest) initialize(id string) {
	g.t.Helper()
	g.say(`{"jsonrpc":"2.0","id":%s,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}`, id)
	g.wants(`"id":`+id, `"serverInfo"`)
	g.say(`{"jsonrpc":"2.0","method":"notifications/initialized"}`)
}

func both(t *testing.T, f func(t *testing.T, shared bool)) {
	t.Run("connection", func(t *testing.T) { f(t, false) })
	t.Run("shared", func(t *testing.T) { f(t, true) })
}

func TestJ4_IDsComeBackByteForByte(t *testing.T) {
	both(t, func(t *testing.T, shared bool) {
		g := newGuest(t, newTestHub(t, &pipes{}, shared))
		for _, id := range []string{`9007199254740993`, `1.0`, `"9007199254740993"`, `"\u0061"`, `-0.5e+3`, `""`} {
			g.call(id, "echo", `{"text":"x"}`)
			g.wants(`"jsonrpc":"2.0","id":` + id + `}`)
		}
	})
}

func TestJ5_DuplicateID(t *testing.T) {
	both(t, func(t *testing.T, shared bool) {
		g := newGuest(t, newTestHub(t, &pipes{}, shared))
		g.call(`7`, "hang", `{}`)
		g.wants(`"progressToken":"p"`)
		g.call(`7`, "echo", `{}`)
		g.wants(`"id":7,"error":{"code":-32600`, "in flight already")
		g.call(`"7"`, "echo", `{"text":"another id"}`)
		g.wants("another id", `"id":"7"`)
		g.say(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7}}`)
		g.wants(`"cancelled"`, `"id":7`)
		g.call(`7`, "echo", `{"text":"again"}`)
		g.wants("again", `"id":7`)
	})
}

func TestJ7_CancelledCrosses(t *testing.T) {
	both(t, func(t *testing.T, shared bool) {
		b := &pipes{}
		h := newTestHub(t, b, shared)
		a, other := newGuest(t, h), newGuest(t, h)
		a.call(`"x"`, "hang", `{}`)
		a.wants(`"progressToken":"p"`)
		if shared { // somebody else's cancel of the same id does nothing
			other.say(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"x"}}`)
			other.wantsSilence()
			a.wantsSilence()
		}
		a.say(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"x","reason":"enough"}}`)
		a.wants(`"cancelled"`, `"id":"x"`)
	})
}

// J7: a closed socket cancels what it had in flight.
func TestJ7_LeavingCancels(t *testing.T) {
	b := &pipes{}
	h := newTestHub(t, b, true)
	g := newGuest(t, h)
	g.call(`1`, "hang", `{}`)
	g.wants("progress")
	h.leave(g.p)
	other := newGuest(t, h)
	other.wantsSilence()
	var cancelled bool
	for _, line := range b.lines() {
		cancelled = cancelled || strings.Contains(line, `"notifications/cancelled","params":{"requestId":1,`)
	}
	if !cancelled {
		t.Errorf("the server was not told: %q", b.lines())
	}
	if n := h.pending(); n != 0 {
		t.Errorf("%d calls are still in flight", n)
	}
}

func TestProgressGoesToItsCall(t *testing.T) {
	both(t, func(t *testing.T, shared bool) {
		h := newTestHub(t, &pipes{}, shared)
		guests := []*guest{newGuest(t, h)}
		if shared {
			guests = append(guests, newGuest(t, h), newGuest(t, h))
		}
		for i, g := range guests {
			g.call(`1`, "progress", fmt.Sprintf(`{"n":%d}`, i+1))
		}
		for i, g := range guests {
			for n := range i + 1 {
				g.wants(`"progressToken":"p"`, fmt.Sprintf(`"progress":%d`, n))
			}
			g.wants(`"id":1`)
		}
	})
}

// Three clients with the same ids and tokens, all in flight at once: nothing
// crosses.
func TestSharedKeepsClientsApart(t *testing.T) {
	h := newTestHub(t, &pipes{}, true)
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			g := newGuest(t, h)
			for n := range 50 {
				g.call(fmt.Sprint(n), "echo", fmt.Sprintf(`{"text":"client %d call %d"}`, i, n))
			}
			for n := range 50 {
				g.wants(fmt.Sprintf(`"client %d call %d"`, i, n), fmt.Sprintf(`"id":%d}`, n))
			}
			h.leave(g.p)
		})
	}
	all.Wait()
}

func TestSharedInitializeIsAnsweredFromMemory(t *testing.T) {
	b := &pipes{}
	h := newTestHub(t, b, true)
	for _, id := range []string{`"first"`, `2`, `"third"`} {
		newGuest(t, h).initialize(id)
	}
	var inits, readies int
	for _, line := range b.lines() {
		if strings.Contains(line, `"initialize"`) {
			inits++
		}
		if strings.Contains(line, `"notifications/initialized"`) {
			readies++
		}
	}
	if inits != 1 || readies != 1 {
		t.Errorf("the server got %d initialize and %d initialized, want one of each", inits, readies)
	}
}

func TestServerRequestsGoToTheirCaller(t *testing.T) {
	both(t, func(t *testing.T, shared bool) {
		h := newTestHub(t, &pipes{}, shared)
		h.turns = shared
		guests := []*guest{newGuest(t, h)}
		if shared {
			guests = append(guests, newGuest(t, h), newGuest(t, h))
		}
		var all sync.WaitGroup
		for i, g := range guests {
			all.Go(func() {
				for n := range 10 {
					g.call(fmt.Sprint(n), "ask", fmt.Sprintf(`{"text":"question %d.%d"}`, i, n))
					got := g.hears()
					if want := fmt.Sprintf(`"prompt":"question %d.%d"`, i, n); !strings.Contains(got, want) {
						t.Errorf("asked %s, want %s", got, want)
					}
					m, err := envelope.Parse([]byte(got))
					if err != nil {
						t.Error(err)
						return
					}
					if string(m.IDBytes()) != string(m.Bytes(m.Token)) {
						t.Errorf("the progress token was not rewritten with the id: %s", got)
					}
					g.say(`{"jsonrpc":"2.0","id":%s,"result":{"said":"%d.%d"}}`, m.IDBytes(), i, n)
					g.wants(fmt.Sprintf(`{\"said\":\"%d.%d\"}`, i, n), fmt.Sprintf(`"id":%d}`, n))
				}
			})
		}
		all.Wait()
	})
}

// Without turns a request that could be meant for either of two is given to
// neither.
func TestSharedAmbiguousRequestIsRefused(t *testing.T) {
	h := newTestHub(t, &pipes{}, true)
	a, b := newGuest(t, h), newGuest(t, h)
	a.call(`1`, "hang", `{}`)
	a.wants("progress")
	b.call(`1`, "ask", `{"text":"secret"}`)
	b.wants("cannot be told which client is meant", `"id":1`)
	b.call(`2`, "log", `{"text":"secret"}`)
	b.wants(`"id":2`) // the log line of the server was given to nobody
	a.wantsSilence()
}

func TestAnswersOfStrangersAreIgnored(t *testing.T) {
	h := newTestHub(t, &pipes{}, true)
	h.turns = true
	a, b := newGuest(t, h), newGuest(t, h)
	a.call(`1`, "ask", `{"text":"for a"}`)
	m, _ := envelope.Parse([]byte(a.hears()))
	b.say(`{"jsonrpc":"2.0","id":%s,"result":{"said":"by b"}}`, m.IDBytes())
	a.say(`{"jsonrpc":"2.0","id":%s,"result":{"said":"by a"}}`, m.IDBytes())
	a.wants("by a")
}

func TestResourceSubscriptionsHaveOwners(t *testing.T) {
	b := &pipes{}
	h := newTestHub(t, b, true)
	one, two, none := newGuest(t, h), newGuest(t, h), newGuest(t, h)
	sub := `{"jsonrpc":"2.0","id":1,"method":"resources/%s","params":{"uri":"file:///a"}}`
	for _, g := range []*guest{one, two} {
		g.say(sub, "subscribe")
		g.wants(`"id":1,"result":{}`)
	}
	none.call(`5`, "update", `{"text":"file:///a"}`)
	one.wants("resources/updated", "file:///a")
	two.wants("resources/updated", "file:///a")
	none.wants(`"id":5`)

	one.say(sub, "unsubscribe") // two still wants it: the server is not told
	one.wants(`"id":1,"result":{}`)
	none.call(`6`, "update", `{"text":"file:///a"}`)
	two.wants("resources/updated")
	none.wants(`"id":6`)
	one.wantsSilence()
	if n := strings.Count(strings.Join(b.lines(), "\n"), "resources/unsubscribe"); n != 0 {
		t.Errorf("the server was told %d times to unsubscribe", n)
	}
	h.leave(two.p) // the last owner: now it is
	none.wantsSilence()
	if n := strings.Count(strings.Join(b.lines(), "\n"), "resources/unsubscribe"); n != 1 {
		t.Errorf("the server was told %d times to unsubscribe", n)
	}
}

func TestListChangedGoesToEverybody(t *testing.T) {
	h := newTestHub(t, &pipes{}, true)
	a, b := newGuest(t, h), newGuest(t, h)
	a.call(`1`, "changed", `{}`)
	a.wants("tools/list_changed")
	b.wants("tools/list_changed")
}

// J8: subscriptions/listen is multiplexed by the id of the listening request.
func TestJ8_SubscriptionIDs(t *testing.T) {
	h := newTestHub(t, &pipes{}, true)
	a, b := newGuest(t, h), newGuest(t, h)
	for _, g := range []*guest{a, b} {
		g.say(`{"jsonrpc":"2.0","id":"sub","method":"subscriptions/listen","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}`)
		g.wants("acknowledged", `"io.modelcontextprotocol/subscriptionId":"sub"`)
	}
	if n := h.pending(); n != 0 {
		t.Errorf("%d calls hold up a drain, and open subscriptions must not", n)
	}
}

// J6: the death of a server is an answer to each call, and the next call works.
func TestJ6_ServerDies(t *testing.T) {
	both(t, func(t *testing.T, shared bool) {
		c := self(t, "mcp")
		h := newTestHub(t, c, shared)
		g := newGuest(t, h)
		g.initialize("0")
		g.call(`"a"`, "hang", `{}`)
		g.wants("progress")
		g.call(`"b"`, "pid", `{}`)
		before := g.hears()
		h.mu.Lock()
		pid := h.peer.(*process).pid()
		h.mu.Unlock()
		child, err := os.FindProcess(pid)
		if err == nil {
			err = child.Kill()
		}
		if err != nil {
			t.Fatal(err)
		}
		g.wants(`"id":"a","error":{"code":-32603`, "the server exited: signal: killed; it is being started again")
		g.call(`"b"`, "pid", `{}`)
		if after := g.hears(); after == before || !strings.Contains(after, `"id":"b"`) || !strings.Contains(after, "text") {
			t.Errorf("after the restart: %s", after)
		}
	})
}

// The new server has been told what its predecessor knew.
func TestRestartRepeatsInitialize(t *testing.T) {
	b := &pipes{}
	h := newTestHub(t, b, true)
	g := newGuest(t, h)
	g.initialize("1")
	g.say(`{"jsonrpc":"2.0","id":2,"method":"resources/subscribe","params":{"uri":"file:///a"}}`)
	g.wants(`"id":2`)
	b.mu.Lock()
	last, n := b.last, len(b.sent)
	b.mu.Unlock()
	last.Close()
	until(t, "the death is noticed", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.peer != Peer(last)
	})
	g.call("3", "echo", `{"text":"x"}`)
	g.wants(`"id":3`)
	got := strings.Join(b.lines()[n:], "\n")
	for _, want := range []string{`"method":"initialize"`, "notifications/initialized", "resources/subscribe", "tools/call"} {
		i := strings.Index(got, want)
		if i < 0 {
			t.Fatalf("%s is missing, or not in order, in what the new server got:\n%s", want, strings.Join(b.lines()[n:], "\n"))
		}
		got = got[i:]
	}
}

func TestServerThatCannotStart(t *testing.T) {
	h := newTestHub(t, &pipes{fail: errors.New("no such program")}, false)
	g := newGuest(t, h)
	g.call("1", "echo", `{}`)
	g.wants(`"id":1,"error":{"code":-32603`, "no such program")
}

func TestBackoff(t *testing.T) {
	want := []time.Duration{0, 0, 250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second}
	for fails, d := range want {
		if got := backoff(fails); got != d {
			t.Errorf("after %d failures: %v, want %v", fails, got, d)
		}
	}
	if got := backoff(1000); got != 256*time.Second {
		t.Errorf("after 1000 failures: %v", got)
	}
}

func TestCircuitBreaker(t *testing.T) {
	h := newHub("test", &pipes{}, Caller{})
	h.log = testLog(t)
	opened := 0
	h.onBreak = func(error) { opened++ }
	g := newGuest(t, h)
	g.call("1", "echo", `{}`) // waits for the server
	for range breakerFails - 1 {
		h.failed(errors.New("boom"), false)
	}
	if opened != 0 || h.state != hubStarting {
		t.Fatalf("after %d failures: opened %d times, %v", breakerFails-1, opened, h.state)
	}
	h.failed(errors.New("boom"), false)
	if opened != 1 || h.state != hubBroken {
		t.Fatalf("after %d failures: opened %d times, %v", breakerFails, opened, h.state)
	}
	g.wants(`"id":1,"error"`, "boom; it failed 5 times in a row, the next attempt is in 30s")
	g.call("2", "echo", `{}`)
	g.wants(`"id":2,"error"`, "boom; it failed 5 times in a row")
}

func TestJ6_CallTimeout(t *testing.T) {
	b := &pipes{}
	h := newTestHub(t, b, false)
	h.limits.callTimeout = time.Minute
	g := newGuest(t, h)
	g.call("1", "hang", `{}`)
	g.wants("progress")
	h.sweep(time.Now().Add(59 * time.Second))
	g.wantsSilence()
	h.sweep(time.Now().Add(61 * time.Second))
	g.wants(`"id":1,"error":{"code":-32603`, "no answer and no progress within 1m0s")
	g.wantsSilence()
	if !strings.Contains(strings.Join(b.lines(), "\n"), "notifications/cancelled") {
		t.Error("the server was not told")
	}
}

func TestJ6_CloseAnswersCalls(t *testing.T) {
	h := newTestHub(t, &pipes{}, false)
	g := newGuest(t, h)
	g.call("1", "hang", `{}`)
	g.wants("progress")
	h.close(errors.New("the gateway is shutting down"))
	g.wants(`"id":1,"error":{"code":-32603,"message":"the gateway is shutting down"`)
}

// J6: a message over the server's limit is answered before it is sent, and a
// message over ours is answered although it was lost.
func TestJ6_TooLarge(t *testing.T) {
	h := newTestHub(t, &pipes{}, false)
	h.limits.messageMax = 1000
	g := newGuest(t, h)
	g.call("1", "echo", `{"text":"`+strings.Repeat("x", 1000)+`"}`)
	g.wants(`"id":1,"error":{"code":-32600`, "takes at most 1000")
	g.call(`"b"`, "large", `{"n":2000000}`) // the pipe's limit is 1 MiB
	g.wants(`"id":"b","error":{"code":-32603`, "more than 1048576 bytes")
	g.wantsSilence()
}

func TestCallsPerClientAreBounded(t *testing.T) {
	h := newTestHub(t, &pipes{}, true)
	h.limits.calls = 3
	g, other := newGuest(t, h), newGuest(t, h)
	for i := range 3 {
		g.call(fmt.Sprint(i), "hang", `{}`)
		g.wants("progress")
	}
	g.call("3", "echo", `{}`)
	g.wants(`"id":3,"error"`, "3 requests are in flight")
	other.call("3", "echo", `{"text":"other"}`)
	other.wants("other")
}

func TestToolPolicy(t *testing.T) {
	h := newTestHub(t, &pipes{}, false)
	h.policy = func(name string) bool { return name == "echo" }
	g := newGuest(t, h)
	g.call("1", "crash", `{}`)
	g.wants(`"id":1,"error":{"code":-32602`, `tool \"crash\" is not offered here`)
	g.say(`{"jsonrpc":"2.0","id":2,"method":"tools/list"}`)
	if got := g.hears(); !strings.Contains(got, `"echo"`) || strings.Contains(got, "crash") {
		t.Errorf("the list is %s", got)
	}
	g.call("3", "echo", `{"text":"x"}`)
	g.wants(`"id":3`)
}

// Pretty-printed JSON is one line for the server (M6).
func TestM6_OneLineForTheServer(t *testing.T) {
	b := &pipes{}
	g := newGuest(t, newTestHub(t, b, false))
	g.say("{\n\"jsonrpc\":\"2.0\",\r\n\"id\":1,\n\"method\":\"ping\"\n}")
	g.wants(`"id":1`)
	if got := b.lines(); len(got) != 1 || strings.ContainsAny(got[0], "\r\n") {
		t.Errorf("the server got %q", got)
	}
}
