package ws

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-ws/weft/internal/deflate"
	"github.com/weft-ws/weft/internal/wire"
	"github.com/weft-ws/weft/internal/wstest"
)

// Pongs pass between the fragments of a long message, soon, and never inside a
// frame, whatever the size of the fragments.
func TestConcurrencyPongsPassBetweenFragments(t *testing.T) {
	const window = 10_000
	for _, size := range []int{18, 100, 4000, 10_000, 16 << 10, 40_000} {
		bubble(t, func(t *testing.T, role Role) {
			cfg := Config{FragmentSize: size}
			c, p, _ := setup{client: cfg, server: cfg, pipe: wstest.PipeOptions{Window: window}}.scripted(t, role)
			go c.Drain(background)
			msg := pattern(max(30*size, 300_000), 5)
			write := async(func() error { return c.WriteMessage(background, Binary, msg) })
			var got []byte
			var since, pings, pongs int // bytes since a ping was sent
			for asked := false; len(got) < len(msg); {
				if !asked {
					synctest.Wait()
					p.Send(fmt.Sprintf(`PING "%d"`, pings))
					synctest.Wait()
					asked, since = true, 0
					pings++
				}
				f := p.Next()
				if f.Opcode == wire.Pong {
					if want := fmt.Sprint(pings - 1); string(f.Payload) != want {
						t.Fatalf("fragments of %d: pong %q, want %q", size, f.Payload, want)
					}
					// What is in the pipe, and one write of ours: at most 64 KiB in whole
					// frames, or what one batch holds of small ones.
					if most := window + 64<<10 + 2*size; since > most {
						t.Fatalf("fragments of %d: %d bytes before the pong, at most %d", size, since, most)
					}
					asked = false
					pongs++
					continue
				}
				got = append(got, f.Payload...)
				since += len(f.Payload)
			}
			if !bytes.Equal(got, msg) {
				t.Errorf("fragments of %d: the message was torn", size)
			}
			if pongs < 4 {
				t.Errorf("fragments of %d: only %d pongs came between them", size, pongs)
			}
			if r := now(t, write, ""); r.err != nil {
				t.Error(r.err)
			}
			if s := c.Stats(); s.Interleaved == 0 || s.Sent.Control < uint64(pongs) {
				t.Errorf("fragments of %d: %d interleaved of %d, %d seen", size, s.Interleaved, s.Sent.Control, pongs)
			}
		})
	}
}

// RFC 6455, 5.5.3: pings are answered in order from a queue of sixteen; beyond
// it the newest alone counts.
func TestBuffersPongQueue(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		c, p, _ := setup{pipe: wstest.PipeOptions{Window: 30_000}}.scripted(t, role)
		go c.Drain(background)
		for n := range 10 { // room on the wire: each is answered, in order
			p.Send(fmt.Sprintf(`PING "%d"`, n))
		}
		for n := range 10 {
			p.Want(fmt.Sprintf(`PONG "%d"`, n))
		}
		block := async(func() error { return c.WriteMessage(background, Binary, make([]byte, 30_000)) })
		synctest.Wait()
		for n := range 1000 {
			p.Send(fmt.Sprintf(`PING "%d"`, n))
			synctest.Wait()
		}
		pongs := []wstest.Frame{}
		for _, f := range p.WantMessage(wire.Binary, make([]byte, 30_000)) {
			if f.Opcode == wire.Pong {
				pongs = append(pongs, f)
			}
		}
		for len(pongs) < pongsMax {
			pongs = append(pongs, p.Next())
		}
		for i, f := range pongs {
			want := fmt.Sprint(i)
			if i == pongsMax-1 {
				want = "999"
			}
			if f.Opcode != wire.Pong || string(f.Payload) != want {
				t.Errorf("pong %d is %v, want %s", i, f, want)
			}
		}
		p.WantNothing("sixteen are owed at most")
		if got := c.Stats().PongsDropped; got != 1000-pongsMax {
			t.Errorf("%d dropped", got)
		}
		now(t, block, "")
	})
}

func TestIntegrationPing(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		c, p, _ := setup{}.scripted(t, role)
		go c.Drain(background)
		ping := func(ctx context.Context) (<-chan result, *time.Duration, wstest.Frame) {
			rtt := new(time.Duration)
			ch := async(func() (err error) { *rtt, err = c.Ping(ctx); return err })
			f := p.Next()
			if f.Opcode != wire.Ping {
				t.Fatal(f)
			}
			return ch, rtt, f
		}
		pong := func(f wstest.Frame) { p.Send(fmt.Sprintf("PONG x:%x", f.Payload)) }

		ch, rtt, f := ping(background)
		p.Send(`PONG`, `PONG "other"`, `PONG x:0000000000000000`, `PONG x:ffffffffffffffff`)
		pending(t, ch, "those answer nothing")
		time.Sleep(70 * time.Millisecond)
		pong(f)
		if r := now(t, ch, ""); r.err != nil || *rtt != 70*time.Millisecond {
			t.Error(r.err, *rtt)
		}
		if got := c.Stats().PingRTT; got != *rtt {
			t.Error(got)
		}

		// RFC 6455, 5.5.3: a later pong answers earlier pings too.
		first, firstRTT, _ := ping(background)
		time.Sleep(time.Second)
		second, secondRTT, f := ping(background)
		time.Sleep(time.Second)
		pong(f)
		pong(f)
		now(t, first, "")
		now(t, second, "")
		if *firstRTT != 2*time.Second || *secondRTT != time.Second {
			t.Error(*firstRTT, *secondRTT)
		}

		ctx, cancel := context.WithTimeout(background, time.Second)
		defer cancel()
		ch, _, f = ping(ctx)
		time.Sleep(time.Second)
		if r := now(t, ch, ""); r.err != context.DeadlineExceeded {
			t.Error(r.err)
		}
		pong(f) // late, and nobody minds
		ch, _, _ = ping(background)
		p.Send(`CLOSE code=1000`)
		p.WantClose(1000, "")
		p.Close()
		if r := now(t, ch, "the connection has ended"); r.err != c.Err() {
			t.Error(r.err)
		}
	})
}

// Pings that nobody answers are bounded.
func TestBuffersPingsAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		c, p, _ := setup{}.scripted(t, role)
		ctx, cancel := context.WithCancel(background)
		var calls []<-chan result
		for range pingsMax {
			calls = append(calls, async(func() error { _, err := c.Ping(ctx); return err }))
		}
		synctest.Wait()
		if _, err := c.Ping(ctx); err != errPings {
			t.Error(err)
		}
		cancel()
		for _, ch := range calls {
			if r := now(t, ch, ""); r.err != context.Canceled {
				t.Fatal(r.err)
			}
		}
		for range pingsMax {
			p.Next()
		}
		go c.Drain(background)
		ch := async(func() error { _, err := c.Ping(background); return err })
		f := p.Next()
		p.Send(fmt.Sprintf("PONG x:%x", f.Payload))
		if r := now(t, ch, ""); r.err != nil {
			t.Error("there is room again:", r.err)
		}
	})
}

// A message that stands behind a pong in the same batch is taken back, in every
// way of writing one; the pong is not.
func TestConcurrencyCancelBehindAPong(t *testing.T) {
	text := bytes.Repeat([]byte("behind the pong "), 50)
	ways := map[string]func(ctx context.Context, c *Conn) error{
		"one frame":    func(ctx context.Context, c *Conn) error { return c.WriteMessage(ctx, Text, text[:50]) },
		"fragments":    func(ctx context.Context, c *Conn) error { return c.WriteMessage(ctx, Text, text) },
		"many batches": func(ctx context.Context, c *Conn) error { return c.WriteMessage(ctx, Text, bytes.Repeat(text, 50)) },
		"MessageWriter": func(ctx context.Context, c *Conn) error {
			w, err := c.NextWriter(ctx, Text)
			if err != nil {
				return err
			}
			if _, err := w.Write(text); err != nil {
				return err
			}
			return w.Close()
		},
		"WritePrepared": func(ctx context.Context, c *Conn) error {
			m, err := NewPrepared(Text, text)
			if err != nil {
				return err
			}
			return c.WritePrepared(ctx, m)
		},
	}
	for name, write := range ways {
		for _, packed := range []*deflate.Params{nil, takeover, &params[1]} {
			bubble(t, func(t *testing.T, role Role) {
				cfg := Config{FragmentSize: 100}
				s := setup{client: cfg, server: cfg, deflate: packed, pipe: wstest.PipeOptions{Window: 60}}
				c, p, _ := s.scripted(t, role)
				go c.Drain(background)
				// The holder of the locks blocks; a ping comes; the message waits.
				hold := async(func() error { return c.WriteMessage(background, Binary, pattern(70, 1)) })
				synctest.Wait()
				p.Send(`PING "0123456789012345678901234567890123456789"`, `PING "0123456789012345678901234567890123456789"`)
				ctx, cancel := context.WithCancel(background)
				defer cancel()
				call := async(func() error { return write(ctx, c) })
				synctest.Wait()
				wr := &wireReader{t: t, nc: p.Conn}
				for frames := 0; frames == 0; { // the holder's, and not a byte more
					wr.take(1)
					f, _ := wr.frames()
					frames = len(f)
				}
				now(t, hold, "its frame was read: the pongs are next, and fill the window")
				pending(t, call, "the window is full")
				cancel()
				if r := now(t, call, "its context has ended"); r.err != context.Canceled {
					t.Fatalf("%s: %v", name, r.err)
				}
				next := async(func() error { return c.WriteMessage(background, Text, []byte("next")) })
				p.Want(`PONG "0123456789012345678901234567890123456789"`, `PONG "0123456789012345678901234567890123456789"`)
				if f := p.Next(); f.RSV1 != (packed != nil) || !f.Fin || f.Opcode != wire.Text || packed == nil && string(f.Payload) != "next" {
					t.Fatalf("%s: then %v", name, f)
				}
				if r := now(t, next, ""); r.err != nil {
					t.Errorf("%s: %v", name, r.err)
				}
			})
		}
	}
}

// A cancelled call comes back at once, also when bytes of others still wait for
// the peer.
func TestConcurrencyCancelComesBackAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		c, p, _ := setup{pipe: wstest.PipeOptions{Window: 30}}.scripted(t, role)
		go c.Drain(background)
		hold := async(func() error { return c.WriteMessage(background, Binary, pattern(40, 1)) })
		synctest.Wait()
		p.Send(`PING "012345678901234567890123456789"`)
		ctx, cancel := context.WithCancel(background)
		defer cancel()
		call := async(func() error { return c.WriteMessage(ctx, Text, []byte("never")) })
		synctest.Wait()
		other := async(func() error { return c.WriteMessage(background, Text, []byte("sent")) })
		synctest.Wait()
		(&wireReader{t: t, nc: p.Conn}).take(40 + 2 + 4*int(2-role))
		now(t, hold, "")
		cancel()
		if r := now(t, call, "the pong is still on its way, but that is not its business"); r.err != context.Canceled {
			t.Error(r.err)
		}
		pending(t, other, "its bytes wait")
		p.Want(`PONG "012345678901234567890123456789"`, `TEXT "sent"`)
		if r := now(t, other, ""); r.err != nil {
			t.Error(r.err)
		}
		s := c.Stats().Sent
		if wire := c.nc.(*wstest.PipeConn).Sent(); s.Bytes != uint64(wire) || s.Frames != 3 || s.Messages != 2 || s.Control != 1 {
			t.Errorf("%+v, but %d bytes are on the wire: the message that was taken back is counted", s, wire)
		}
	})
}

// Ping does not wait for messages that wait for their turn.
func TestConcurrencyPingOvertakesWaitingMessages(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		c, p, _ := setup{pipe: wstest.PipeOptions{Window: 1000}}.scripted(t, role)
		go c.Drain(background)
		const messages = 5
		var writes []<-chan result
		for range messages {
			writes = append(writes, async(func() error { return c.WriteMessage(background, Binary, make([]byte, 200_000)) }))
		}
		synctest.Wait()
		ping := async(func() error { _, err := c.Ping(background); return err })
		synctest.Wait()
		for finished := 0; finished < messages; {
			f := p.Next()
			switch {
			case f.Opcode == wire.Ping:
				if finished > 0 {
					t.Errorf("%d messages went first", finished)
				}
				p.Send(fmt.Sprintf("PONG x:%x", f.Payload))
			case f.Fin:
				finished++
			}
		}
		for _, ch := range append(writes, ping) {
			if r := now(t, ch, ""); r.err != nil {
				t.Error(r.err)
			}
		}
	})
}
