package ws

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-ws/weft/internal/deflate"
	"github.com/weft-ws/weft/internal/wstest"
)

// budgeted returns a connection that shares b, and its peer.
func budgeted(t *testing.T, role Role, b *Budget, cfg Config) (*Conn, *wstest.Peer) {
	t.Helper()
	cfg.Budget = b
	if cfg.MaxMessageSize == 0 {
		cfg.MaxMessageSize = 64 << 20
	}
	s := setup{client: cfg, server: cfg, allow: []string{"FR-13", "MS-11"}}
	s.pipe.Window = 1 << 20
	c, peer, _ := s.scripted(t, role)
	return c, peer
}

// part sends a fragment of n bytes, as frames of 50,000 bytes at most.
func part(p *wstest.Peer, first, last bool, n int) {
	for n > 0 {
		k := min(n, 50_000)
		n -= k
		op, fin := "CONT", 0
		if first {
			op = "BINARY"
		}
		if last && n == 0 {
			fin = 1
		}
		p.Send(fmt.Sprintf(`%s fin=%d "x"*%d`, op, fin, k))
		first = false
		synctest.Wait()
	}
}

func wantUsed(t *testing.T, b *Budget, low, high int64, why string) {
	t.Helper()
	synctest.Wait()
	if u := b.Used(); u < low || u > high {
		t.Errorf("%d bytes are used, want %d to %d: %s", u, low, high, why)
	}
}

// TestBudgetCounts what unfinished messages hold beyond 64 KiB, and gives it
// back.
func TestBudgetCounts(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		var b Budget // bounds nothing
		c, peer := budgeted(t, role, &b, Config{})
		got := reading(background, c)
		part(peer, true, false, 50_000)
		wantUsed(t, &b, 0, 0, "small messages are free")
		part(peer, false, false, 250_000)
		wantUsed(t, &b, 300_000, 700_000, "300,000 bytes have come")
		part(peer, false, true, 50_000)
		if r := now(t, got, "the message is whole"); len(r.p) != 350_000 {
			t.Fatal(len(r.p), r.err)
		}
		wantUsed(t, &b, 0, 0, "nothing is unfinished")
		if p := b.Peak(); p < 350_000 || p > 700_000 {
			t.Errorf("peak %d", p)
		}
		ctx, cancel := context.WithCancel(background)
		got = reading(ctx, c)
		part(peer, true, false, 200_000)
		wantUsed(t, &b, 200_000, 400_000, "a message is under way")
		cancel()
		<-got
		got = reading(background, c)
		part(peer, false, false, 250_000)
		wantUsed(t, &b, 450_000, 1_000_000, "the message goes on")
		peer.Close()
		<-got
		<-c.Done()
		wantUsed(t, &b, 0, 0, "the connection is over")
	})
}

// TestBudgetCountsInflated bytes, not those that came.
func TestBudgetCountsInflated(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		b := Budget{Hard: 3 << 20}
		s := setup{deflate: &deflate.Params{ServerMaxWindowBits: 15, ClientMaxWindowBits: 15}}
		s.client.Budget, s.client.MaxMessageSize = &b, 64<<20
		s.server = s.client
		c, peer, _ := s.scripted(t, role)
		got := reading(background, c)
		peer.Send(fmt.Sprintf("BINARY rsv1 fin=0 x:%x", bomb(t, 1)))
		wantUsed(t, &b, 1<<20, 3<<20, "a megabyte came out of a kilobyte")
		peer.Send(fmt.Sprintf("CONT x:%x", append([]byte(deflate.Tail), bomb(t, 9)...)))
		peer.WantClose(CloseTryAgainLater, "ten megabytes are too much")
		wantCloseError(t, now(t, got, "").err, CloseTryAgainLater, false)
		wantUsed(t, &b, 0, 0, "it was ended")
	})
}

// TestBudgetSoft: above the soft mark a message that grows large waits for
// others, however long, and no clock of the peer runs meanwhile: neither of the
// message, nor of its silence, nor of pings that it cannot answer.
func TestBudgetSoft(t *testing.T) {
	for _, how := range []string{"whole", "handler"} {
		t.Run(how, func(t *testing.T) {
			bubble(t, func(t *testing.T, role Role) {
				b := Budget{Soft: 100_000}
				big, bigPeer := budgeted(t, role, &b, Config{MessageTimeout: -1})
				first := reading(background, big)
				part(bigPeer, true, false, 200_000)
				wantUsed(t, &b, 200_000, 400_000, "the first goes on, over the mark or not")

				c, peer := budgeted(t, role, &b, Config{
					MessageTimeout: 5 * time.Second, GapTimeout: 2 * time.Second, IdleTimeout: 3 * time.Second,
					KeepAlive: time.Second, PongTimeout: time.Second,
				})
				got := make(chan result, 1)
				if how == "handler" {
					c.startServe(Handler{Message: func(_ context.Context, _ *Conn, typ MessageType, p []byte) error {
						got <- result{typ: typ, p: append([]byte(nil), p...)}
						return nil
					}}, func() {})
				} else {
					go func() { got <- <-reading(background, c) }()
				}
				part(peer, true, false, 200_000)
				used := b.Used()
				time.Sleep(time.Hour)
				pending(t, got, "there is no room")
				if err := c.Err(); err != nil {
					t.Fatalf("a peer that we kept waiting was closed: %v", err)
				}
				if b.Used() != used {
					t.Error("the second takes memory although it waits")
				}
				part(bigPeer, false, true, 1000)
				if r := now(t, first, "it is whole"); len(r.p) != 201_000 {
					t.Fatal(len(r.p), r.err)
				}
				wantUsed(t, &b, 200_000, 400_000, "now it is the second's turn")
				part(peer, false, true, 1000)
				if r := now(t, got, "it is whole"); len(r.p) != 201_000 {
					t.Fatal(len(r.p), r.err)
				}
				wantUsed(t, &b, 0, 0, "both are finished")
			})
		})
	}
}

// TestBudgetSoftEnds: a connection that ends while it waits lets go at once,
// whoever ends it.
func TestBudgetSoftEnds(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		for _, end := range []func(c *Conn){
			func(c *Conn) { c.CloseNow() },
			func(c *Conn) { _ = c.Close(CloseNormal, "") },
		} {
			b := Budget{Soft: 100_000}
			big, bigPeer := budgeted(t, role, &b, Config{MessageTimeout: -1})
			first := reading(background, big)
			part(bigPeer, true, false, 200_000)
			c, peer := budgeted(t, role, &b, Config{})
			got := reading(background, c)
			part(peer, true, false, 200_000)
			pending(t, got, "there is no room")
			used := b.Used()
			end(c)
			var ce *CloseError
			if r := now(t, got, "the connection is over"); !errors.As(r.err, &ce) {
				t.Error(r.err)
			}
			<-c.Done()
			if b.Used() != used {
				t.Errorf("%d bytes are used, want those of the other, %d", b.Used(), used)
			}
			part(bigPeer, false, true, 1000)
			if r := now(t, first, "it is whole"); r.err != nil {
				t.Error(r.err)
			}
			wantUsed(t, &b, 0, 0, "all is over")
		}
	})
}

// TestBudgetHard: above the hard mark the largest message is ended with 1013,
// whoever grew last, and the others are left alone.
func TestBudgetHard(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		b := Budget{Hard: 1 << 20}
		small, smallPeer := budgeted(t, role, &b, Config{})
		big, bigPeer := budgeted(t, role, &b, Config{})
		smallRead, bigRead := reading(background, small), reading(background, big)
		part(bigPeer, true, false, 500_000)
		wantUsed(t, &b, 500_000, 1<<20, "one message")
		part(smallPeer, true, false, 300_000)
		bigPeer.WantClose(CloseTryAgainLater, "the largest has to go")
		r := now(t, bigRead, "it was ended by another")
		ce := wantCloseError(t, r.err, CloseTryAgainLater, false)
		var le *LimitError
		if !errors.As(ce, &le) || le.Limit != "Budget" || le.Max != b.Hard {
			t.Error(ce)
		}
		part(smallPeer, false, true, 1000)
		if r := now(t, smallRead, "it is whole"); len(r.p) != 301_000 {
			t.Error(len(r.p), r.err)
		}
		wantUsed(t, &b, 0, 0, "both are over")

		// One that is too large by itself ends itself.
		got := reading(background, small)
		part(smallPeer, true, false, 1_100_000)
		smallPeer.WantClose(CloseTryAgainLater, "it is the largest")
		wantCloseError(t, now(t, got, "").err, CloseTryAgainLater, false)
		wantUsed(t, &b, 0, 0, "it was ended")
	})
}
