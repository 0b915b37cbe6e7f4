package ws

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-ws/weft/internal/wstest"
)

// A holder is a connection with a message in parts, for tests of a Budget.
type holder struct {
	t    *testing.T
	c    *Conn
	p    *wstest.Peer
	read <-chan result
	sent []byte
}

func newHolder(t *testing.T, role Role, b *Budget, cfg Config) *holder {
	cfg.Budget = b
	c, p, _ := setup{client: cfg, server: cfg, pipe: wstest.PipeOptions{Window: 1 << 20}}.scripted(t, role)
	return &holder{t: t, c: c, p: p}
}

// begin sends n bytes as the first fragment of a message that somebody reads.
func (h *holder) begin(ctx context.Context, n int) {
	h.t.Helper()
	h.read = reading(ctx, h.c)
	h.send("BINARY fin=0", n)
}

func (h *holder) send(what string, n int) {
	h.t.Helper()
	part := pattern(n, byte(len(h.sent)))
	h.sent = append(h.sent, part...)
	h.p.Send(fmt.Sprintf("%s x:%x", what, part))
	synctest.Wait()
}

func (h *holder) finish() {
	h.t.Helper()
	h.send("CONT", 1)
	if r := now(h.t, h.read, "the message is complete"); r.err != nil || !bytes.Equal(r.p, h.sent) {
		h.t.Fatalf("got %d bytes, %v", len(r.p), r.err)
	}
}

// Above the soft mark a message that grows large waits, unread, until others
// have finished; its peer's time does not run meanwhile.
func TestBuffersBudgetSoftMark(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		b := &Budget{Soft: 150 << 10}
		cfg := Config{KeepAlive: 20 * time.Second}
		first, second, small := newHolder(t, role, b, Config{}), newHolder(t, role, b, cfg), newHolder(t, role, b, Config{})
		first.begin(background, 200<<10)
		if b.Used() < 200<<10 || b.Used() > 400<<10 {
			t.Errorf("%d bytes used", b.Used())
		}
		second.begin(background, 200<<10)
		if got := b.Used(); got > 400<<10 {
			t.Errorf("%d bytes used: the second did not wait", got)
		}
		// The wait is ours: neither MessageTimeout nor a missing pong may end it.
		time.Sleep(25 * time.Second)
		first.send("CONT fin=0", 1)
		time.Sleep(4 * time.Second) // the first has 30 s
		first.send("CONT fin=0", 1)
		pending(t, second.read, "there is no room")
		small.begin(background, 1000) // what stays small need not wait
		small.finish()
		first.finish()
		time.Sleep(20 * time.Second)
		second.finish()
		if b.Used() != 0 || b.Peak() < 200<<10 {
			t.Errorf("used %d, peak %d", b.Used(), b.Peak())
		}
		for _, h := range []*holder{first, second, small} {
			if h.c.Err() != nil {
				t.Error(h.c.Err())
			}
		}
	})
}

// A wait for the budget honours the context, and loses nothing.
func TestConcurrencyCancelWhileTheBudgetIsUsedUp(t *testing.T) {
	for name, packed := range map[string]bool{"plain": false, "compressed": true} {
		bubble(t, func(t *testing.T, role Role) {
			b := &Budget{Soft: 100 << 10}
			first := newHolder(t, role, b, Config{})
			first.begin(background, 200<<10)
			cfg := Config{Budget: b}
			s := setup{client: cfg, server: cfg, pipe: wstest.PipeOptions{Window: 1 << 20}}
			if packed {
				s.deflate = takeover
			}
			c, p, _ := s.scripted(t, role)
			msg := pattern(300<<10, 5)
			line := fmt.Sprintf("BINARY x:%x", msg)
			if packed {
				line = rsv1("BINARY", compress(msg))
			}
			p.Send(line)
			for range 3 {
				ctx, cancel := context.WithTimeout(background, time.Second)
				begin := time.Now()
				r := <-reading(ctx, c)
				cancel()
				if r.err != context.DeadlineExceeded || r.at.Sub(begin) != time.Second {
					t.Fatalf("%s: %v after %v", name, r.err, r.at.Sub(begin))
				}
			}
			read := reading(background, c)
			pending(t, read, "there is no room")
			first.finish()
			if r := now(t, read, "there is room"); r.err != nil || !bytes.Equal(r.p, msg) {
				t.Errorf("%s: got %d bytes, %v", name, len(r.p), r.err)
			}
			if b.Used() != 0 {
				t.Errorf("%s: %d bytes used", name, b.Used())
			}
			p.Send(`TEXT "next"`)
			wantMessage(t, c, Text, []byte("next"))
		})
	}
}

// Above the hard mark the largest unfinished message goes, with 1013.
func TestBuffersBudgetHardMark(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		b := &Budget{Hard: 1600 << 10}
		large, other, third := newHolder(t, role, b, Config{}), newHolder(t, role, b, Config{}), newHolder(t, role, b, Config{})
		large.begin(background, 600<<10)
		other.begin(background, 130<<10)
		if large.c.Err() != nil || other.c.Err() != nil {
			t.Fatal(large.c.Err(), other.c.Err())
		}
		third.begin(background, 130<<10)
		third.send("CONT fin=0", 140<<10)
		r := now(t, large.read, "it is the largest")
		ce := wantCloseError(t, r.err, CloseTryAgainLater, false)
		var le *LimitError
		if !errors.As(ce, &le) || le.Limit != "Budget" || le.Max != 1600<<10 {
			t.Error(ce)
		}
		large.p.WantClose(CloseTryAgainLater, "")
		large.p.Close()
		other.finish()
		third.finish()
		if b.Used() != 0 {
			t.Errorf("%d bytes used", b.Used())
		}

		// One message over the mark all by itself.
		alone := newHolder(t, role, b, Config{MaxMessageSize: -1})
		alone.begin(background, 900<<10)
		alone.send("CONT fin=0", 900<<10)
		wantCloseError(t, now(t, alone.read, "").err, CloseTryAgainLater, false)
		if synctest.Wait(); b.Used() != 0 {
			t.Errorf("%d bytes used", b.Used())
		}
	})
}

// What inflates counts as well.
func TestBuffersBudgetCountsInflatedBytes(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		b := &Budget{Hard: 256 << 10}
		cfg := Config{Budget: b}
		c, p, _ := setup{client: cfg, server: cfg, deflate: takeover}.scripted(t, role)
		read := reading(background, c)
		p.Send(rsv1("BINARY", compress(make([]byte, 900<<10))))
		r := now(t, read, "")
		wantCloseError(t, r.err, CloseTryAgainLater, false)
		p.WantClose(CloseTryAgainLater, "")
		if synctest.Wait(); b.Used() != 0 || b.Peak() > 1<<20 {
			t.Errorf("used %d, peak %d", b.Used(), b.Peak())
		}
	})
}

// A connection that ends while it waits for room gives up.
func TestConcurrencyBudgetWaitEndsWithTheConnection(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		b := &Budget{Soft: 100 << 10}
		first, second := newHolder(t, role, b, Config{}), newHolder(t, role, b, Config{})
		first.begin(background, 200<<10)
		second.begin(background, 200<<10)
		pending(t, second.read, "there is no room")
		cl := closing(second.c, CloseGoingAway, "")
		second.p.WantClose(CloseGoingAway, "")
		time.Sleep(closeTimeoutDefault)
		now(t, cl, "")
		if r := now(t, second.read, "the connection has ended"); r.err != second.c.Err() {
			t.Error(r.err)
		}
		first.finish()
		if b.Used() != 0 {
			t.Errorf("%d bytes used", b.Used())
		}
	})
}
