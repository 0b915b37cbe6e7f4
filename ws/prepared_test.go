package ws

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/weft-ws/weft/internal/deflate"
	"github.com/weft-ws/weft/internal/wire"
)

func mustPrepare(t *testing.T, typ MessageType, p []byte) *Prepared {
	t.Helper()
	m, err := NewPrepared(typ, p)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestPreparedRefusesBadMessages when they are made.
func TestPreparedRefusesBadMessages(t *testing.T) {
	if _, err := NewPrepared(3, nil); !errors.Is(err, errMessageType) {
		t.Error(err)
	}
	if _, err := NewPrepared(Text, []byte("\xe2\x82")); !errors.Is(err, errNotUTF8) {
		t.Error(err)
	}
}

// TestPreparedIsAsWritten: what leaves is what WriteMessage would send: in every
// role, size of fragments, and with and without compression. The level is the
// one of the connection.
func TestPreparedIsAsWritten(t *testing.T) {
	sizes := []int{0, 1, 125, 126, 600, 5000, 310_000}
	messages := make(map[int]*Prepared)
	for _, n := range sizes {
		p := words(n, 20)
		if n > batchMax { // also when it is compressed
			for i := range randomBytes(p) {
				p[i] &= 0x7f
			}
		}
		messages[n] = mustPrepare(t, Text, p)
	}
	none := deflate.Params{ServerMaxWindowBits: 15, ClientMaxWindowBits: 15, ServerNoContextTakeover: true, ClientNoContextTakeover: true}
	small, takeover := none, none
	small.ServerMaxWindowBits, small.ClientMaxWindowBits = 9, 9
	takeover.ServerNoContextTakeover, takeover.ClientNoContextTakeover = false, false
	for _, fragment := range []int{0, -1, 1000} {
		for name, params := range map[string]*deflate.Params{"plain": nil, "compressed": &none, "small window": &small, "takeover": &takeover} {
			for _, level := range []int{0, 9} {
				t.Run(fmt.Sprintf("%d/%s/level %d", fragment, name, level), func(t *testing.T) {
					bubble(t, func(t *testing.T, role Role) {
						s := setup{deflate: params}
						s.client.FragmentSize = fragment
						s.client.Compression = &Compression{Level: level}
						s.server = s.client
						s.pipe.Window = 2 << 20
						a, byHand, _ := s.scripted(t, role)
						b, prepared, _ := s.scripted(t, role)
						for _, n := range sizes {
							mustWrite(t, a, Text, messages[n].p)
							if err := b.WritePrepared(background, messages[n]); err != nil {
								t.Fatal(err)
							}
							want, wantFrames := nextMessage(t, byHand)
							got, frames := nextMessage(t, prepared)
							if !bytes.Equal(got, want) || len(frames) != len(wantFrames) {
								t.Fatalf("%d bytes: %d bytes in %d frames, want %d in %d", n, len(got), len(frames), len(want), len(wantFrames))
							}
							for i, f := range frames {
								if f.String() != wantFrames[i].String() {
									t.Fatalf("%d bytes: frame %d is %v, want %v", n, i+1, f, wantFrames[i])
								}
							}
						}
						if got, want := b.Stats().Sent, a.Stats().Sent; got != want {
							t.Errorf("counted %+v, want %+v", got, want)
						}
					})
				})
			}
		}
	}
}

// TestPreparedIsShared: receivers that need the same bytes get the same memory.
func TestPreparedIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mustPrepare(t, Binary, pattern(50_000, 1))
		var wg sync.WaitGroup
		for i := range 20 {
			s := setup{}
			s.server.FragmentSize = []int{0, 1000}[i%2]
			c, peer, _ := s.scripted(t, RoleServer)
			wg.Go(func() {
				if err := c.WritePrepared(background, m); err != nil {
					t.Error(err)
				}
			})
			defer func() { peer.WantMessage(wire.Binary, m.p) }()
		}
		wg.Wait()
		if len(m.variants) != 2 {
			t.Errorf("%d variants were made for 20 receivers of 2 kinds", len(m.variants))
		}
	})
}

// TestPreparedTakesItsTurn among other writers.
func TestPreparedTakesItsTurn(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		s := setup{}
		s.client.FragmentSize, s.server.FragmentSize = 200, 200
		s.pipe.Window = 100
		c, peer, _ := s.scripted(t, role)
		var want [][]byte
		var all []<-chan result
		for i := range 12 {
			p := words(900+i, uint32(i))
			want = append(want, p)
			m := mustPrepare(t, Text, p)
			all = append(all, async(func() error {
				if i%2 == 0 {
					return c.WriteMessage(background, Text, p)
				}
				return c.WritePrepared(background, m)
			}))
			synctest.Wait()
		}
		for _, p := range want {
			peer.WantMessage(wire.Text, p)
		}
		for i, ch := range all {
			if r := now(t, ch, "it was read"); r.err != nil {
				t.Error(i, r.err)
			}
		}
	})
}

// TestPreparedCancelled: before its first byte it is taken back, and the
// connection goes on; after the end of the connection it is refused.
func TestPreparedCancelled(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		s := setup{}
		s.client.WriteTimeout, s.server.WriteTimeout = -1, -1
		s.pipe.Window = 100
		c, peer, _ := s.scripted(t, role)
		m := mustPrepare(t, Text, words(500, 1))
		n := 98 // with its header the frame of another fills the pipe, and ours is not begun
		if role == RoleClient {
			n = 94
		}
		full := async(func() error { return c.WriteMessage(background, Binary, make([]byte, n)) })
		synctest.Wait()
		ctx, cancel := context.WithCancel(background)
		waits := async(func() error { return c.WritePrepared(ctx, m) })
		pending(t, waits, "the pipe is full")
		cancel()
		if r := now(t, waits, "its context has ended"); !errors.Is(r.err, context.Canceled) {
			t.Fatal(r.err)
		}
		nextMessage(t, peer)
		if r := now(t, full, "it was read"); r.err != nil {
			t.Fatal(r.err)
		}
		sent := async(func() error { return c.WritePrepared(background, m) })
		peer.WantMessage(wire.Text, m.p)
		if r := now(t, sent, "it was read"); r.err != nil {
			t.Fatal(r.err)
		}
		c.CloseNow()
		wantCloseError(t, c.WritePrepared(background, m), CloseAbnormal, false)
	})
}

// TestPreparedCutsText: text is cut between characters.
func TestPreparedCutsText(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		s := setup{}
		s.client.FragmentSize, s.server.FragmentSize = 50, 50
		c, peer, _ := s.scripted(t, role)
		p := letters(2000)
		if err := c.WritePrepared(background, mustPrepare(t, Text, p)); err != nil {
			t.Fatal(err)
		}
		frames := peer.WantMessage(wire.Text, p)
		if len(frames) < 40 || !slices.ContainsFunc(p, func(b byte) bool { return b > 127 }) {
			t.Fatal(len(frames))
		}
		for i, f := range frames {
			if !wire.ValidUTF8(f.Payload) {
				t.Errorf("frame %d cuts a character", i+1)
			}
		}
	})
}
