package ws

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/weft-ws/weft/internal/wire"
	"github.com/weft-ws/weft/internal/wstest"
)

// sendCut sends p as fragments of the given sizes, and the rest in a last one,
// with an empty fragment and a ping wherever odd says so.
func sendCut(p *wstest.Peer, op wire.Opcode, msg []byte, odd func() bool, sizes ...int) (pings int) {
	for _, n := range sizes {
		n = min(n, len(msg))
		p.SendFrame(op, false, msg[:n])
		msg, op = msg[n:], wire.Continuation
		if odd() {
			p.SendFrame(wire.Continuation, false, nil)
			p.SendFrame(wire.Ping, true, fmt.Append(nil, pings))
			pings++
		}
	}
	p.SendFrame(op, true, msg)
	return pings
}

// A message cut at every pair of places arrives whole, in both types and roles.
func TestReassemblyAtEveryCut(t *testing.T) {
	msg := []byte("häl€🧶, whole again") // characters of one to four bytes
	bubble(t, func(t *testing.T, role Role) {
		c, p, _ := setup{}.scripted(t, role)
		n := 0
		for first := range len(msg) + 1 {
			for second := range len(msg) - first + 1 {
				n++
				read := reading(background, c)
				pings := sendCut(p, wire.Text, msg, func() bool { return n%3 == 0 }, first, second)
				if r := now(t, read, "the message is complete"); r.err != nil || r.typ != Text || !bytes.Equal(r.p, msg) {
					t.Fatalf("cut after %d and %d: %q, %v", first, second, r.p, r.err)
				}
				for i := range pings {
					p.Want(fmt.Sprintf(`PONG "%d"`, i))
				}
			}
		}
		if s := c.Stats().Received; s.Messages != uint64(n) || s.Fragmented != uint64(n) {
			t.Errorf("%d messages, %d fragmented, want %d", s.Messages, s.Fragmented, n)
		}
	})
}

// Messages of all kinds of sizes in fragments of all kinds of sizes, however the
// network cuts them, read in every way.
func TestReassemblyOfRandomFragments(t *testing.T) {
	for seed := range uint64(12) {
		bubble(t, func(t *testing.T, role Role) {
			rng := rand.New(rand.NewPCG(seed, uint64(role)))
			f := wstest.Faults{ReadMax: []int{1, 7, 1000, 100000}[seed%4], Rand: rand.New(rand.NewPCG(seed, 9))}
			s := setup{pipe: wstest.PipeOptions{Client: f, Server: f, Window: 300_000}}
			c, p, _ := s.scripted(t, role)
			for i := range 25 {
				size := rng.IntN([]int{2, 200, 5000, 200_000}[rng.IntN(4)])
				if seed%4 < 2 {
					size %= 5000
				}
				msg := pattern(size, byte(i))
				var sizes []int
				for left := size; left > 0 && len(sizes) < 40; {
					n := rng.IntN(left + 1)
					sizes = append(sizes, n)
					left -= n
				}
				room := rng.IntN(size + 1)
				sent := make(chan int, 1)
				got := make(chan []byte, 1)
				go func() {
					switch i % 3 {
					case 0:
						_, b, _ := c.ReadMessage(background)
						got <- b
					case 1:
						_, b, _ := c.AppendMessage(background, make([]byte, 0, room))
						got <- b
					default:
						for m, err := range c.Messages(background) {
							if least := 1 + len(sizes); err != nil || m.Fragments < least {
								t.Errorf("%d fragments of %d and more, %v", m.Fragments, least, err)
							}
							got <- m.Data
							break
						}
					}
				}()
				sent <- sendCut(p, wire.Binary, msg, func() bool { return rng.IntN(4) == 0 }, sizes...)
				if b := <-got; !bytes.Equal(b, msg) {
					t.Fatalf("seed %d, message %d: %d bytes, want %d", seed, i, len(b), size)
				}
				for range <-sent {
					if f := p.Next(); f.Opcode != wire.Pong {
						t.Fatal(f)
					}
				}
			}
		})
	}
}

// Honest fragments pass, however small: 10,000 of a byte at the default limit,
// and a message of the full size in 64 bytes each.
func TestReassemblyOfHonestSmallFragments(t *testing.T) {
	for _, cs := range []struct{ size, fragment int }{{10_000, 1}, {1 << 20, 64}, {1 << 20, 4096}} {
		bubble(t, func(t *testing.T, role Role) {
			c, p, _ := setup{pipe: wstest.PipeOptions{Window: 4 << 20}}.scripted(t, role)
			msg := pattern(cs.size, 2)
			read := reading(background, c)
			var b []byte
			op := wire.Binary
			for rest := msg; len(rest) > 0; op = wire.Continuation {
				n := min(cs.fragment, len(rest))
				h := wire.Header{Opcode: op, Fin: n == len(rest), Masked: role == RoleServer, Length: uint64(n)}
				b = append(wire.AppendHeader(b, h), rest[:n]...)
				rest = rest[n:]
			}
			p.SendBytes(b)
			if r := now(t, read, "it is complete"); r.err != nil || !bytes.Equal(r.p, msg) {
				t.Errorf("%d bytes in fragments of %d: %d bytes, %v", cs.size, cs.fragment, len(r.p), r.err)
			}
			st := c.Stats().Received
			if want := uint64((cs.size + cs.fragment - 1) / cs.fragment); st.Frames != want || st.LargestMessage != int64(cs.size) {
				t.Errorf("%d frames, want %d; largest %d", st.Frames, want, st.LargestMessage)
			}
		})
	}
}

// A message that is never finished is dropped with the connection, and the next
// connection knows nothing of it.
func TestReassemblyOfAMessageThatNeverEnds(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		for range 3 {
			c, p, _ := setup{}.scripted(t, role)
			p.Send(`TEXT fin=0 "half a message"`)
			ctx, cancel := context.WithCancel(background)
			read := reading(ctx, c)
			synctest.Wait()
			cancel()
			now(t, read, "")
			p.Send(`CLOSE code=1001`)
			_, b, err := c.ReadMessage(background)
			wantCloseError(t, err, CloseGoingAway, true)
			if b != nil {
				t.Errorf("half a message came out: %q", b)
			}
			p.Want(`CLOSE code=1001`)
			p.Close()
		}
		c, p, _ := setup{}.scripted(t, role)
		p.Send(`TEXT "fresh"`)
		wantMessage(t, c, Text, []byte("fresh"))
	})
}

// A message of hundreds of tiny fragments that come in one segment is counted
// frame by frame, however it is read, and a hook for frames sees each of them.
func TestReassemblyCountsEveryFragment(t *testing.T) {
	const fragments = 700
	for _, traced := range []bool{false, true} {
		for _, stream := range []bool{false, true} {
			bubble(t, func(t *testing.T, role Role) {
				var seen, dataSeen int
				cfg := Config{}
				if traced {
					cfg.Trace = &Trace{Frame: func(f FrameInfo) {
						if f.Dir != In {
							return
						}
						if seen++; f.Index != int64(seen) {
							t.Errorf("frame %d was traced as frame %d", seen, f.Index)
						}
						if f.Fragment > 0 {
							if dataSeen++; f.Fragment != dataSeen {
								t.Errorf("fragment %d was traced as %d", dataSeen, f.Fragment)
							}
						}
					}}
				}
				c, p, _ := setup{client: cfg, server: cfg}.scripted(t, role)
				var segment []byte
				for _, f := range p.Frames(`TEXT fin=0 "é"`, fmt.Sprintf(`CONT fin=0 "ü" repeat=%d`, fragments/2-1), `PING "in between"`,
					fmt.Sprintf(`CONT fin=0 "" repeat=%d`, fragments/2-1), `CONT "."`) {
					segment = append(segment, f...)
				}
				want := "é" + strings.Repeat("ü", fragments/2-1) + "."
				p.SendBytes(segment)
				var got []byte
				var err error
				if stream {
					var m *MessageReader
					if m, err = c.NextReader(background); err == nil {
						got, err = io.ReadAll(m)
					}
				} else {
					_, got, err = c.ReadMessage(background)
				}
				if err != nil || string(got) != want {
					t.Fatalf("%d bytes, %v, want %d", len(got), err, len(want))
				}
				p.Want(`PONG "in between"`)
				s := c.Stats().Received
				if s.Frames != fragments+1 || s.Control != 1 || s.Bytes != uint64(len(segment)) || s.Fragments[9] != 1 || s.LargestMessage != int64(len(want)) {
					t.Errorf("%d bytes were counted as %+v", len(segment), s)
				}
				if traced && seen != fragments+1 {
					t.Errorf("%d frames were traced, want %d", seen, fragments+1)
				}
			})
		}
	}
}
