package ws

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-ws/weft/internal/wire"
	"github.com/weft-ws/weft/internal/wstest"
)

// serving starts h on c.
func serving(c *Conn, h Handler) { c.startServe(h, func() {}) }

// A countingConn counts the writes below a connection.
type countingConn struct {
	*wstest.PipeConn
	mu     sync.Mutex
	writes []int
}

func (c *countingConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.writes = append(c.writes, len(p))
	c.mu.Unlock()
	return c.PipeConn.Write(p)
}

func (c *countingConn) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(c.writes)
	c.writes = nil
	return n
}

// countedServer is a serving end whose writes are counted, and its peer.
func countedServer(t *testing.T, cfg Config, h Handler) (*Conn, *wstest.Peer, *countingConn) {
	s := setup{server: cfg}
	cp, sp, o := s.newPipe(t)
	cc := &countingConn{PipeConn: sp}
	c := newConn(cc, RoleServer, cfg, established{})
	serving(c, h)
	p := wstest.NewPeer(t, cp, RoleClient)
	s.end(t, o, c)
	t.Cleanup(p.Close)
	return c, p, cc
}

// Requests that come in one segment are answered in one write; a lone one is
// answered at once.
func TestBuffersServeAnswersABatchInOneWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, p, cc := countedServer(t, Config{}, Handler{Message: echo})
		var lines []string
		for i := range 16 {
			lines = append(lines, fmt.Sprintf(`TEXT "request %d"`, i))
		}
		p.Send(lines...)
		p.Want(lines...)
		if n := cc.count(); n != 1 {
			t.Errorf("sixteen answers took %d writes", n)
		}
		begin := time.Now()
		p.Send(`TEXT "alone"`)
		p.Want(`TEXT "alone"`)
		if n := cc.count(); n != 1 || !time.Now().Equal(begin) {
			t.Errorf("a lone answer took %d writes and %v", n, time.Since(begin))
		}
		// Half a request at the end holds nothing up, and pongs go along.
		half := p.Frames(`TEXT "other half"`)[0]
		p.SendBytes(append(bytes.Join(p.Frames(`TEXT "one"`, `PING "p"`, `TEXT "two"`), nil), half[:9]...))
		p.Want(`TEXT "one"`, `TEXT "two"`, `PONG "p"`)
		if n := cc.count(); n != 1 {
			t.Errorf("%d writes", n)
		}
		p.SendBytes(half[9:])
		p.Want(`TEXT "other half"`)
		if n := cc.count(); n != 1 {
			t.Errorf("%d writes", n)
		}
	})
}

// Held answers are bounded in bytes, and keep their order with those that are
// not held.
func TestBuffersServeBoundsWhatItHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		big := bytes.Repeat([]byte("x"), 10<<10)
		n := 0
		_, p, cc := countedServer(t, Config{}, Handler{Message: func(ctx context.Context, c *Conn, typ MessageType, p []byte) error {
			n++
			reply := append(fmt.Appendf(nil, "%d ", n), big...)
			if n%4 == 0 { // past the ones that are held
				return c.WriteMessage(background, typ, reply)
			}
			return c.WriteMessage(ctx, typ, reply)
		}})
		var lines []string
		for range 30 {
			lines = append(lines, `TEXT`)
		}
		p.Send(lines...)
		for i := range 30 {
			p.WantMessage(wire.Text, append(fmt.Appendf(nil, "%d ", i+1), big...))
		}
		if writes := cc.count(); writes < 7 || writes > 16 {
			t.Errorf("%d writes", writes)
		}
	})
}

// A slow handler does not keep answers back for longer than a millisecond.
func TestTimeoutsServeFlushesForASlowHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, p, _ := countedServer(t, Config{}, Handler{Message: func(ctx context.Context, c *Conn, typ MessageType, p []byte) error {
			if string(p) == "slow" {
				time.Sleep(time.Second)
			}
			return c.WriteMessage(ctx, typ, p)
		}})
		for range 3 {
			begin := time.Now()
			p.Send(`TEXT "quick"`, `TEXT "slow"`, `TEXT "last"`)
			p.Want(`TEXT "quick"`)
			if d := time.Since(begin); d != corkDelay {
				t.Errorf("the quick answer came after %v", d)
			}
			p.Want(`TEXT "slow"`, `TEXT "last"`)
			if d := time.Since(begin); d != time.Second {
				t.Errorf("the others came after %v", d)
			}
		}
	})
}

// Pongs that are owed leave before a long message has been read.
func TestTimeoutsServePongDuringALongMessage(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		cfg := Config{MaxMessageSize: 8 << 20, MessageTimeout: -1}
		c, p, _ := setup{client: cfg, server: cfg, pipe: wstest.PipeOptions{Window: 1 << 20}}.scripted(t, role)
		got := make(chan int, 1)
		serving(c, Handler{Message: func(ctx context.Context, c *Conn, typ MessageType, p []byte) error {
			got <- len(p)
			return nil
		}})
		ping, long := p.Frames(`PING "now"`)[0], p.Frames(`BINARY x:00*4000000`)[0]
		begin := time.Now()
		p.SendBytes(append(ping, long[:100_000]...))
		p.Want(`PONG "now"`)
		if d := time.Since(begin); d != 0 {
			t.Errorf("the pong came after %v", d)
		}
		for rest := long[100_000:]; len(rest) > 0; {
			n := min(len(rest), 300_000)
			time.Sleep(time.Second)
			p.SendBytes(rest[:n])
			rest = rest[n:]
		}
		synctest.Wait()
		if n := <-got; n != 4000000 {
			t.Error(n)
		}
	})
}

func TestEdgeCasesServeHandlerFails(t *testing.T) {
	for name, cs := range map[string]struct {
		fail   func() error
		code   CloseCode
		reason string
	}{
		"error":                 {func() error { return errSource }, CloseInternalError, ""},
		"a close code":          {func() error { return &CloseError{Code: 4001, Reason: "go away"} }, 4001, "go away"},
		"a wrapped close code":  {func() error { return fmt.Errorf("x: %w", &CloseError{Code: ClosePolicyViolation}) }, ClosePolicyViolation, ""},
		"a code that cannot be": {func() error { return &CloseError{Code: 1006} }, CloseInternalError, ""},
		"a long reason":         {func() error { return &CloseError{Code: 4000, Reason: "x" + strings.Repeat("é", 100)} }, 4000, "x" + strings.Repeat("é", 61)},
		"a reason in no UTF-8":  {func() error { return &CloseError{Code: 4000, Reason: "caf\xe9"} }, 4000, "caf\uFFFD"},
		"panic":                 {func() error { panic("handler bug") }, CloseInternalError, ""},
		"the error of another":  {func() error { return &CloseError{Code: 1000, Received: &CloseFrame{Code: 1000}} }, CloseInternalError, ""},
	} {
		for _, where := range []string{"Open", "Message"} {
			bubble(t, func(t *testing.T, role Role) {
				var log strings.Builder
				cfg := Config{Logger: slog.New(slog.NewTextHandler(&log, nil))}
				c, p, _ := setup{client: cfg, server: cfg}.scripted(t, role)
				var order []string
				h := Handler{
					Open: func(ctx context.Context, c *Conn) error {
						order = append(order, "open")
						return nil
					},
					Message: func(ctx context.Context, c *Conn, typ MessageType, p []byte) error {
						order = append(order, "message "+string(p))
						if string(p) == "bad" {
							return cs.fail()
						}
						return c.WriteMessage(ctx, typ, p)
					},
					Closed: func(c *Conn, err error) {
						order = append(order, "closed")
						if err != c.Err() {
							t.Errorf("Closed got %v", err)
						}
					},
				}
				want := "[open message good message bad closed]"
				if where == "Open" {
					h.Open, want = func(context.Context, *Conn) error { return cs.fail() }, "[closed]"
				}
				serving(c, h)
				p.Send(`TEXT "good"`, `TEXT "bad"`, `TEXT "never"`)
				if where == "Message" {
					p.Want(`TEXT "good"`) // the answers before it leave first
				}
				if reason := p.WantClose(cs.code, name); reason != cs.reason {
					t.Errorf("%s: reason %q", name, reason)
				}
				p.Close()
				synctest.Wait()
				if got := fmt.Sprint(order); got != want {
					t.Errorf("%s: %s, want %s", name, got, want)
				}
				ce := wantCloseError(t, c.Err(), cs.code, false)
				if ce.Cause == nil {
					t.Errorf("%s: no cause", name)
				}
				if name == "panic" && (!strings.Contains(log.String(), "handler bug") || !strings.Contains(log.String(), "serve_test.go")) {
					t.Errorf("the log tells neither what nor where: %s", log.String())
				}
			})
		}
	}
	// A panic in Closed is the last thing that happens.
	bubble(t, func(t *testing.T, role Role) {
		c, p, _ := setup{}.scripted(t, role)
		serving(c, Handler{Message: echo, Closed: func(*Conn, error) { panic("at last") }})
		p.Send(`CLOSE code=1000`)
		p.WantClose(1000, "")
		p.Close()
		synctest.Wait()
		wantOver(t, c)
	})
}

// The context of a handler ends with the connection, and nobody else reads.
func TestConcurrencyServeContext(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		c, p, _ := setup{}.scripted(t, role)
		var saved context.Context
		serving(c, Handler{Message: func(ctx context.Context, c *Conn, typ MessageType, p []byte) error {
			saved = ctx
			if _, ok := ctx.Deadline(); ok || ctx.Err() != nil || ctx.Value(1) != nil {
				t.Error("the context of a handler has something to say")
			}
			return nil
		}})
		if _, _, err := c.ReadMessage(background); err != errServing {
			t.Errorf("a read beside the handler: %v", err)
		}
		p.Send(`TEXT "x"`)
		synctest.Wait()
		select {
		case <-saved.Done():
			t.Error("it has ended")
		default:
		}
		p.Send(`CLOSE code=1000`)
		p.WantClose(1000, "")
		p.Close()
		<-saved.Done()
		if saved.Err() != context.Canceled {
			t.Error(saved.Err())
		}
		if _, _, err := c.ReadMessage(background); err != c.Err() {
			t.Error(err)
		}
	})
}

// Messages in fragments and compressed ones reach the handler whole.
func TestReassemblyServe(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		c, p, _ := setup{deflate: takeover}.scripted(t, role)
		var got []string
		serving(c, Handler{Message: func(ctx context.Context, c *Conn, typ MessageType, p []byte) error {
			got = append(got, typ.String()+" "+string(p))
			return nil
		}})
		p.Send(`TEXT fin=0 "frag"`, `CONT fin=0`, `PING "p"`, `CONT "mented"`, rsv1("TEXT", compress([]byte("compressed"))), `BINARY`)
		p.Want(`PONG "p"`)
		synctest.Wait()
		if want := "[text fragmented text compressed binary ]"; fmt.Sprint(got) != want {
			t.Errorf("%q, want %s", got, want)
		}
	})
}

// Replies from other goroutines and streams mix with held ones, in order.
func TestConcurrencyServeManyWriters(t *testing.T) {
	for seed := range 20 {
		synctest.Test(t, func(t *testing.T) {
			cfg := Config{FragmentSize: 64}
			c, srv := setup{client: cfg, server: cfg, pipe: wstest.PipeOptions{Window: 300 + 50*seed}}.connect(t)
			var wg sync.WaitGroup
			defer wg.Wait()
			serving(srv, Handler{Message: func(ctx context.Context, c *Conn, typ MessageType, p []byte) error {
				q := bytes.Clone(p)
				wg.Go(func() { c.WriteMessage(background, typ, q) })
				wg.Go(func() {
					if w, err := c.NextWriter(background, typ); err == nil {
						w.Write(q)
						w.Flush()
						w.Close()
					}
				})
				return c.WriteMessage(ctx, typ, p)
			}})
			const n = 30
			wg.Go(func() {
				for i := range n {
					if err := c.WriteMessage(background, Text, fmt.Appendf(nil, "%d %s", i, strings.Repeat("é", i))); err != nil {
						t.Error(err)
					}
				}
			})
			got := map[string]int{}
			for range 3 * n {
				_, p, err := c.ReadMessage(background)
				if err != nil {
					t.Fatal(err)
				}
				got[string(p)]++
			}
			for p, times := range got {
				if times != 3 {
					t.Errorf("%q came %d times", p, times)
				}
			}
			if err := c.Close(CloseNormal, ""); err != nil {
				t.Error(err)
			}
		})
	}
}
