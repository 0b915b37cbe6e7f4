package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-ws/weft/ws"
)

// A door is a gateway with one session whose client is the far end of a pipe
// that holds nothing: what is not read is not taken.
type door struct {
	t   *testing.T
	g   *Gateway
	s   *session
	c   *ws.Conn
	far net.Conn
}

func newDoor(t *testing.T, r Route) *door {
	t.Helper()
	g := New(Options{Logger: testLog(t)})
	if err := g.SetRoutes([]Route{r}); err != nil {
		t.Fatal(err)
	}
	rt := g.find(r.Name)
	s := newSession(g, rt, Caller{Route: r.Name, Session: "1"}, "192.0.2.1", Identity{})
	if err := g.registry.Join(s); err != nil {
		t.Fatal(err)
	}
	g.sessions.Add(1)
	near, far := net.Pipe()
	d := &door{t, g, s, ws.NewConn(near, ws.RoleServer, &rt.config), far}
	if err := s.enter(s.seat, d.c, 0); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *door) say(format string, args ...any) {
	d.t.Helper()
	if err := d.s.message(d.t.Context(), d.c, ws.Text, fmt.Appendf(nil, format, args...)); err != nil {
		d.t.Error(err)
	}
}

// close ends everything, as a handler's end and a Drain would.
func (d *door) close() {
	_ = d.far.Close()
	_ = d.c.CloseNow()
	d.s.leave(d.s.seat, d.c.Err())
	d.g.Drain(context.Background())
}

// S4, S6: a client that does not read is closed with 1013 and a reason, in every
// mode, though its socket takes no Close any more.
func TestS4_ClientThatDoesNotRead(t *testing.T) {
	allModes(t, func(t *testing.T, i Isolation) {
		for _, tt := range []struct {
			name string
			n    int // bytes of the answer
			min  time.Duration
		}{{"small", 10, stallTimeout}, {"large", queueSoft, slowTimeout}} {
			t.Run(tt.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					d := newDoor(t, testRoute(i))
					defer d.close()
					begin := time.Now()
					d.say(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"large","arguments":{"n":%d}}}`, tt.n)
					<-d.c.Done()
					var ce *ws.CloseError
					if !errors.As(d.c.Err(), &ce) || ce.Code != ws.CloseTryAgainLater || ce.Reason != reasonSlow {
						t.Errorf("the connection ended with %v", d.c.Err())
					}
					if code := d.c.Stats().CloseCode; code != ws.CloseTryAgainLater {
						t.Errorf("the figures say %d", code)
					}
					// Two seconds until it is looked at, and CloseTimeout for the
					// Close to be sent and again for it to be answered.
					if d := time.Since(begin); d < tt.min || d > tt.min+12*time.Second {
						t.Errorf("it took %v", d)
					}
				})
			})
		}
	})
}

// A client that reads slowly is no client that does not read.
func TestS4_SlowReaderIsLeftAlone(t *testing.T) {
	allModes(t, func(t *testing.T, i Isolation) {
		synctest.Test(t, func(t *testing.T) {
			d := newDoor(t, testRoute(i))
			defer d.close()
			const n = 900_000
			d.say(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"large","arguments":{"n":%d}}}`, n)
			begin, got := time.Now(), 0
			buf := make([]byte, 40<<10)
			for got < n {
				k, err := d.far.Read(buf)
				if got += k; err != nil {
					t.Fatalf("after %d bytes and %v: %v", got, time.Since(begin), err)
				}
				time.Sleep(time.Second)
			}
			if took := time.Since(begin); took < slowTimeout {
				t.Errorf("it took only %v, which tests nothing", took)
			}
		})
	})
}

// A client that lets more than queueHard lie beside its largest message is
// closed at once, without waiting for a deadline.
func TestS4_TooMuchUnread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t, testRoute(Shared))
		defer d.close()
		begin := time.Now()
		d.s.enqueue(make([]byte, 12<<20)) // one large message is no reason
		synctest.Wait()                   // it is being written
		for range queueHard/(1<<20) + 1 {
			d.s.enqueue(make([]byte, 1<<20))
		}
		synctest.Wait()
		d.s.mu.Lock()
		final := d.s.final
		d.s.mu.Unlock()
		if !final {
			t.Error("it is still open")
		}
		if q := d.s.queued.Load(); q != 12<<20 {
			t.Errorf("%d bytes are still kept, not only those that are being written", q)
		}
		<-d.c.Done()
		if took := time.Since(begin); took > 12*time.Second {
			t.Errorf("it took %v", took)
		}
		if code := d.c.Stats().CloseCode; code != ws.CloseTryAgainLater {
			t.Errorf("close code %d", code)
		}
	})
}

// What was said before a session is ended is sent before its Close.
func TestEndFlushes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t, testRoute(Shared))
		defer d.close()
		client := ws.NewConn(d.far, ws.RoleClient, nil)
		for i := range 100 {
			d.s.enqueue(fmt.Appendf(nil, `{"n":%d}`, i))
		}
		d.s.End(ws.CloseGoingAway, "that is all")
		for i := range 100 {
			_, p, err := client.ReadMessage(t.Context())
			if want := fmt.Sprintf(`{"n":%d}`, i); err != nil || string(p) != want {
				t.Fatalf("%q, %v, want %s", p, err, want)
			}
		}
		_, _, err := client.ReadMessage(t.Context())
		var ce *ws.CloseError
		if !errors.As(err, &ce) || ce.Code != ws.CloseGoingAway || ce.Reason != "that is all" {
			t.Error(err)
		}
	})
}

func TestOutbox(t *testing.T) {
	var o outbox
	msg := func(n int) *[]byte { b := make([]byte, n); return &b }
	// Messages leave in order, however many have left before.
	next := 0
	for i := 1; i <= 1000; i++ {
		if taken, start, _ := o.put(msg(i)); !taken || start != (i == 1) {
			t.Fatalf("message %d: taken %t, start %t", i, taken, start)
		}
		if i%3 != 0 {
			next++
			if b := o.first(); len(*b) != next {
				t.Fatalf("%d bytes are first, want %d", len(*b), next)
			}
			o.sent()
		}
	}
	for b := o.first(); b != nil; b = o.first() {
		if next++; len(*b) != next {
			t.Fatalf("%d bytes are first, want %d", len(*b), next)
		}
		o.sent()
	}
	if next != 1000 || o.bytes != 0 || o.writing {
		t.Errorf("%d messages, %d bytes, writing %t", next, o.bytes, o.writing)
	}
	// After close only what is being written stays.
	for range 3 {
		o.put(msg(10))
	}
	if n := o.close(); n != 20 || o.bytes != 10 {
		t.Errorf("%d bytes forgotten, %d kept", n, o.bytes)
	}
	if taken, _, full := o.put(msg(1)); taken || full {
		t.Error("taken after the end")
	}
	o.sent()
	if o.first() != nil {
		t.Error("something is left")
	}
}

// The lines of many clients arrive whole and each client's in order, however
// they are gathered.
func TestManyWriters(t *testing.T) {
	for _, limit := range []int{0, 40 << 10} { // gathered; too long to be
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		var got strings.Builder
		done := make(chan struct{})
		go func() { _, _ = io.Copy(&got, r); close(done) }()
		h := newHub("test", &pipes{}, Caller{})
		h.state, h.peer = hubUp, &process{stdin: w}
		const clients, each = 16, 50
		pad := strings.Repeat("x", limit)
		var all sync.WaitGroup
		for i := range clients {
			all.Go(func() {
				for k := range each {
					h.mu.Lock()
					h.sendLocked([]item{{line: fmt.Appendf(nil, "%d %d %s", i, k, pad)}})
				}
			})
		}
		all.Wait()
		// The last may be under way on another's goroutine.
		until(t, "everything written", func() bool {
			h.mu.Lock()
			defer h.mu.Unlock()
			return !h.writing
		})
		_ = w.Close()
		<-done
		_ = r.Close()
		lines := strings.Split(strings.TrimSuffix(got.String(), "\n"), "\n")
		next := make([]int, clients)
		for _, l := range lines {
			var i, k int
			if _, err := fmt.Sscanf(l, "%d %d", &i, &k); err != nil || k != next[i] || len(l) < limit {
				t.Fatalf("%.40q: %v, want number %d of client %d", l, err, next[i], i)
			}
			next[i]++
		}
		if len(lines) != clients*each {
			t.Errorf("%d lines, want %d", len(lines), clients*each)
		}
		if m := h.stats.messagesIn.Load(); m != clients*each {
			t.Errorf("%d lines counted", m)
		}
	}
}

// Calls and bytes in flight are bounded for all sessions of a principal
// together; an answer makes room.
func TestMeters(t *testing.T) {
	tokens := NewTokens()
	tokens.Add("ada", "a token of ada's")
	tokens.Add("bob", "a token of bob's")
	_, url := serve(t, Options{Auth: tokens, CallsPerPrincipal: 3, BytesPerPrincipal: 2000}, testRoute(PerConnection))
	as := func(token string) *wire {
		c, err := ws.Dial(t.Context(), url+"fake", &ws.DialOptions{Header: http.Header{"Authorization": {"Bearer " + token}}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.CloseNow() })
		return &wire{t: t, c: c}
	}
	one, two, bob := as("a token of ada's"), as("a token of ada's"), as("a token of bob's")
	one.call("1", "hang", `{}`)
	one.hears("progress")
	two.call("1", "hang", `{}`)
	two.hears("progress")
	one.call("2", "hang", `{}`)
	one.hears("progress")
	two.call("2", "echo", `{}`)
	two.hears(`"id":2,"error":{"code":-32603`, "3 requests are in flight, the limit of one principal")
	bob.call("1", "echo", `{"text":"not ada"}`)
	bob.hears("not ada")
	one.say(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":2}}`)
	one.hears("cancelled")
	two.call("3", "echo", `{"text":"room again"}`)
	two.hears("room again")

	long := strings.Repeat("x", 1900)
	two.call("4", "echo", fmt.Sprintf(`{"text":%q}`, long))
	two.hears(`"id":4,"error":{"code":-32603`, "2000 are the limit of one principal")
	// Those who leave give back what they had.
	_ = one.c.CloseNow()
	two.say(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}`)
	two.hears("cancelled")
	until(t, "room", func() bool {
		two.call("5", "echo", fmt.Sprintf(`{"text":%q}`, long))
		_, p, err := two.c.ReadMessage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(string(p), "content")
	})
}

// One request alone is taken, however large.
func TestMetersOneAlone(t *testing.T) {
	ms := meters{{of: "one connection", max: allowance{bytes: 10}}, {of: "one address", max: allowance{calls: 2}}}
	if err := ms.take(100); err != nil {
		t.Error(err)
	}
	if err := ms.take(1); err == nil || !strings.Contains(err.Error(), "100 bytes are in flight or not read") {
		t.Error(err)
	}
	ms.give(100)
	ms.add(10) // an answer that is not read
	if err := ms.take(1); err == nil {
		t.Error("taken beside an answer that fills the allowance")
	}
	ms.add(-10)
	for range 2 {
		if err := ms.take(1); err != nil {
			t.Error(err)
		}
	}
	if err := ms.take(1); err == nil || !strings.Contains(err.Error(), "the limit of one address") {
		t.Error(err)
	}
	ms.give(1)
	ms.give(1)
	for _, m := range ms {
		if c, b := m.calls.Load(), m.bytes.Load(); c != 0 || b != 0 {
			t.Errorf("%s: %d calls and %d bytes are left", m.of, c, b)
		}
	}
}

// BenchmarkLongLine reads one line of 20 MiB, as a child writes it.
func BenchmarkLongLine(b *testing.B) {
	line := append(make([]byte, 20<<20), '\n')
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		l := newLineReader(pipeful{bytes.NewReader(line)}, 32<<20)
		if p, err := l.next(); err != nil || len(p) != 20<<20 {
			b.Fatal(len(p), err)
		}
	}
}

// A pipeful gives what a pipe holds.
type pipeful struct{ r io.Reader }

func (r pipeful) Read(p []byte) (int, error) { return r.r.Read(p[:min(len(p), 64<<10)]) }
