package ws

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-ws/weft/internal/wire"
	"github.com/weft-ws/weft/internal/wstest"
)

// The table of docs/cancellation.md, row by row.

// brokenOff are the rules that an end breaks when it drops TCP in the middle of
// something, as it must when a context ends inside a frame.
var brokenOff = []string{"FR-13", "MS-11", "CL-08", "CL-10"}

// wireReader reads the raw stream of a peer, so many bytes at a time.
type wireReader struct {
	t   *testing.T
	nc  net.Conn
	all []byte
}

func (w *wireReader) take(n int) {
	w.t.Helper()
	buf := make([]byte, n)
	if _, err := io.ReadFull(w.nc, buf); err != nil {
		w.t.Fatal(err)
	}
	w.all = append(w.all, buf...)
}

// rest reads to the end of the stream.
func (w *wireReader) rest() {
	b, _ := io.ReadAll(w.nc)
	w.all = append(w.all, b...)
}

// frames parses what was read: whole frames, and how many bytes of another.
func (w *wireReader) frames() (frames []wstest.Frame, partial int) {
	p := w.all
	for len(p) > 0 {
		h, n := wire.ParseHeader(p)
		if n == 0 || len(p) < n+int(h.Length) {
			break
		}
		f := wstest.Frame{Header: h, Payload: bytes.Clone(p[n : n+int(h.Length)])}
		if h.Masked {
			wire.Mask(h.Key, f.Payload)
		}
		frames = append(frames, f)
		p = p[n+int(h.Length):]
	}
	return frames, len(p)
}

// Row "between fragments" and row "inside a frame", at every byte at which the
// peer may have stopped reading, with a pong between the fragments.
func TestConcurrencyCancelWriteAtEveryByte(t *testing.T) {
	const (
		window = 40
		size   = 2000 // more fragments than one batch takes
		total  = 3000 // more than the message takes on the wire
	)
	for _, role := range []Role{RoleClient, RoleServer} {
		inside, between, finished := 0, 0, 0
		for k := 0; finished == 0 && k < total; k++ {
			synctest.Test(t, func(t *testing.T) {
				cfg := Config{FragmentSize: 32}
				s := setup{client: cfg, server: cfg, allow: brokenOff, pipe: wstest.PipeOptions{Window: window}}
				c, p, _ := s.scripted(t, role)
				wr := &wireReader{t: t, nc: p.Conn}
				go c.Drain(background)
				ctx, cancel := context.WithCancel(background)
				write := async(func() error { return c.WriteMessage(ctx, Binary, pattern(size, 3)) })
				synctest.Wait()
				p.Send(`PING "pi"`) // answered between the fragments
				synctest.Wait()
				wr.take(k)
				synctest.Wait()
				sent := int(p.Conn.(*wstest.PipeConn).Buffered()) + k
				cancel()
				synctest.Wait()
				if len(write) == 0 {
					t.Fatalf("%v, %d bytes taken: WriteMessage waits on", role, k)
				}
				err := (<-write).err
				if err == nil {
					finished++
					wr.take(sent - k)
					frames, partial := wr.frames()
					if last := frames[len(frames)-1]; partial != 0 || !last.Fin {
						t.Fatalf("%v, %d bytes taken: finished, but the wire ends with %v and %d bytes", role, k, last, partial)
					}
					return
				}
				if !errors.Is(err, context.Canceled) || !errors.Is(err, net.ErrClosed) {
					t.Fatalf("%v, %d bytes taken: %v", role, k, err)
				}
				if c.Err() != err {
					t.Fatalf("%v, %d bytes taken: the call says %v, the connection %v", role, k, err, c.Err())
				}
				wr.rest()
				frames, partial := wr.frames()
				last := wstest.Frame{}
				if len(frames) > 0 {
					last = frames[len(frames)-1]
				}
				switch {
				case last.Opcode == wire.Close:
					between++
					wantCloseError(t, err, CloseInternalError, false)
					if partial != 0 || len(last.Payload) < 2 || last.Payload[0] != 3 || last.Payload[1] != 0xf3 {
						t.Fatalf("%v, %d bytes taken: the wire ends with %v and %d bytes", role, k, last, partial)
					}
				default:
					inside++
					wantCloseError(t, err, CloseAbnormal, false)
					if partial == 0 {
						t.Fatalf("%v, %d bytes taken: cut between two frames without a Close", role, k)
					}
					if len(wr.all) != sent {
						t.Fatalf("%v, %d bytes taken: something followed half a frame", role, k)
					}
				}
			})
			if t.Failed() {
				return
			}
		}
		if inside == 0 || between < 3 || finished == 0 {
			t.Errorf("%v: %d inside a frame, %d between two, %d finished", role, inside, between, finished)
		}
	}
}

// Row "waiting for the message lock": nothing of ours is on the wire.
func TestConcurrencyCancelWaitingWriter(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		c, p, _ := setup{pipe: wstest.PipeOptions{Window: 100}}.scripted(t, role)
		first := async(func() error { return c.WriteMessage(background, Binary, pattern(500, 1)) })
		synctest.Wait()
		ctx, cancel := context.WithTimeoutCause(background, time.Second, errors.New("cause"))
		defer cancel()
		single := async(func() error { return c.WriteMessage(ctx, Text, []byte("never sent")) })
		long := async(func() error { return c.WriteMessage(ctx, Text, letters(100000)) })
		stream := async(func() error { _, err := c.NextWriter(ctx, Text); return err })
		last := async(func() error { return c.WriteMessage(background, Text, []byte("last")) })
		pending(t, single, "another message is on its way")
		begin := time.Now()
		time.Sleep(time.Second)
		for _, ch := range []<-chan result{single, long, stream} {
			r := now(t, ch, "its context has ended")
			if r.err != context.DeadlineExceeded || r.at.Sub(begin) != time.Second {
				t.Errorf("%v after %v", r.err, r.at.Sub(begin))
			}
		}
		if n := c.Stats().Waiting; n != 1 {
			t.Errorf("%d writers wait", n)
		}
		p.WantMessage(wire.Binary, pattern(500, 1))
		p.Want(`TEXT "last"`)
		for _, ch := range []<-chan result{first, last} {
			if r := now(t, ch, "the peer has read all"); r.err != nil {
				t.Error(r.err)
			}
		}
		if c.Err() != nil {
			t.Error(c.Err())
		}
	})
}

// A message that another writer sends along in its batch: its context ends when
// the peer has taken k bytes.
func TestConcurrencyCancelWriterInABatch(t *testing.T) {
	for _, role := range []Role{RoleClient, RoleServer} {
		outcomes := map[string]int{}
		for k := range 150 {
			synctest.Test(t, func(t *testing.T) {
				c, p, _ := setup{allow: brokenOff, pipe: wstest.PipeOptions{Window: 20}}.scripted(t, role)
				wr := &wireReader{t: t, nc: p.Conn}
				ctx, cancel := context.WithCancel(background)
				defer cancel()
				write := func(ctx context.Context, seed byte) <-chan result {
					ch := async(func() error { return c.WriteMessage(ctx, Binary, pattern(20, seed)) })
					synctest.Wait()
					return ch
				}
				block := write(background, 0) // holds the locks while the others queue
				first, victim, last := write(background, 1), write(ctx, 2), write(background, 3)
				var tookAll bool
				for n := k; n > 0 && !tookAll; n-- {
					synctest.Wait()
					if tookAll = p.Conn.(*wstest.PipeConn).Buffered() == 0; !tookAll {
						wr.take(1)
					}
				}
				if tookAll {
					outcomes["all sent"]++
					return
				}
				synctest.Wait()
				sent := int64(p.Conn.(*wstest.PipeConn).Buffered() + len(wr.all))
				cancel()
				synctest.Wait()
				frame := int64(22)
				if role == RoleClient {
					frame = 26
				}
				switch begun, ended := sent > 2*frame, sent >= 3*frame; {
				case begun && !ended:
					outcomes["inside"]++
					for _, ch := range []<-chan result{victim, last} {
						wantCloseError(t, now(t, ch, "").err, CloseAbnormal, false)
					}
					wr.rest()
					if n := len(wr.all); int64(n) != sent {
						t.Fatalf("%v, %d taken: %d bytes, then more", role, k, sent)
					}
				case !begun:
					outcomes["not begun"]++
					wr.take(3*int(frame) - len(wr.all))
					if err := now(t, victim, "").err; err != context.Canceled {
						t.Fatalf("%v, %d taken: %v", role, k, err)
					}
					for _, ch := range []<-chan result{block, first, last} {
						if err := now(t, ch, "").err; err != nil {
							t.Fatalf("%v, %d taken: another writer got %v", role, k, err)
						}
					}
					if frames, partial := wr.frames(); len(frames) != 3 || partial != 0 || !bytes.Equal(frames[2].Payload, pattern(20, 3)) {
						t.Fatalf("%v, %d taken: %v and %d bytes", role, k, frames, partial)
					}
					if st := c.Stats().Sent; st.Frames != 3 || st.Bytes != uint64(3*frame) || st.Messages != 3 {
						t.Fatalf("%v, %d taken: counted as %d frames, %d bytes, %d messages", role, k, st.Frames, st.Bytes, st.Messages)
					}
				default:
					outcomes["sent"]++
					wr.take(4*int(frame) - len(wr.all))
					if err := now(t, victim, "").err; err != nil {
						t.Fatalf("%v, %d taken: its bytes were on the wire, but %v", role, k, err)
					}
				}
			})
			if t.Failed() {
				return
			}
		}
		for _, want := range []string{"not begun", "inside", "sent", "all sent"} {
			if outcomes[want] == 0 {
				t.Errorf("%v: never %s: %v", role, want, outcomes)
			}
		}
	}
}

// A message that its context takes back before its first byte is not counted,
// in however many frames it was to leave, nor by the frames after it.
func TestConcurrencyTakenBackIsNotCounted(t *testing.T) {
	prepared, err := NewPrepared(Text, bytes.Repeat([]byte("abc"), 50))
	if err != nil {
		t.Fatal(err)
	}
	for name, write := range map[string]func(c *Conn, ctx context.Context) error{
		"one frame": func(c *Conn, ctx context.Context) error { return c.WriteMessage(ctx, Binary, pattern(30, 1)) },
		"fragments": func(c *Conn, ctx context.Context) error { return c.WriteMessage(ctx, Binary, pattern(1000, 1)) },
		"prepared":  func(c *Conn, ctx context.Context) error { return c.WritePrepared(ctx, prepared) },
		"of a MessageWriter": func(c *Conn, ctx context.Context) error {
			w, err := c.NextWriter(ctx, Binary)
			if err != nil {
				return err
			}
			_, err = w.Write(pattern(1000, 1))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, role Role) {
				var offset int64
				cfg := Config{FragmentSize: 60, Trace: &Trace{Frame: func(f FrameInfo) {
					if f.Dir == Out {
						offset = f.Offset
					}
				}}}
				const window = 50
				c, p, _ := setup{client: cfg, server: cfg, pipe: wstest.PipeOptions{Window: window}}.scripted(t, role)
				fits := pattern(window-c.headerSize(40), 9)
				mustWrite(t, c, Binary, fits) // now the peer has to read first
				ctx, cancel := context.WithCancel(background)
				victim := async(func() error { return write(c, ctx) })
				synctest.Wait()
				cancel()
				if r := now(t, victim, "its context has ended"); r.err != context.Canceled {
					t.Fatal(r.err)
				}
				if st := c.Stats().Sent; st.Frames != 1 || st.Bytes != window || st.Messages != 1 || st.LargestMessage != int64(len(fits)) {
					t.Errorf("counted as %d frames, %d bytes, %d messages", st.Frames, st.Bytes, st.Messages)
				}
				p.WantMessage(wire.Binary, fits)
				mustWrite(t, c, Text, []byte("next"))
				p.Want(`TEXT "next"`)
				if st := c.Stats().Sent; st.Frames != 2 || offset != window || st.Bytes != uint64(window+4+c.headerSize(4)) {
					t.Errorf("the next frame is at %d, counted as %d frames, %d bytes", offset, st.Frames, st.Bytes)
				}
			})
		})
	}
}

// Row "already, but no waiting needed".
func TestConcurrencyEndedContextNeedNotWait(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		c, p, _ := setup{pipe: wstest.PipeOptions{Window: 1000}}.scripted(t, role)
		ctx, cancel := context.WithCancel(background)
		cancel()
		for range 3 {
			if err := c.WriteMessage(ctx, Text, []byte("there is room")); err != nil {
				t.Fatal(err)
			}
			p.Want(`TEXT "there is room"`)
		}
		if _, _, err := c.ReadMessage(ctx); err != context.Canceled {
			t.Error("nothing to read:", err)
		}
		p.Send(`BINARY "one"`, `BINARY "two"`)
		for _, want := range []string{"one", "two"} {
			if _, b, err := c.ReadMessage(ctx); string(b) != want || err != nil {
				t.Errorf("%q, %v", b, err)
			}
		}
		// With waiting needed, nothing happens.
		block := async(func() error { return c.WriteMessage(background, Binary, pattern(2000, 1)) })
		synctest.Wait()
		if err := c.WriteMessage(ctx, Text, []byte("no room")); err != context.Canceled {
			t.Error(err)
		}
		p.WantMessage(wire.Binary, pattern(2000, 1))
		now(t, block, "all read")
		p.WantNothing("that write never happened")
	})
}

// A context that ends just as its write is done must not hit the next write.
func TestConcurrencyLateInterruptionHitsNobody(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		c, p, _ := setup{}.scripted(t, role)
		for range 10 {
			c.interruptWrite()
			mustWrite(t, c, Binary, []byte("x"))
			c.interruptRead()
			p.Send(`TEXT "y"`)
			wantMessage(t, c, Text, []byte("y"))
			p.Want(`BINARY "x"`)
		}
		if err := c.Err(); err != nil {
			t.Error(err)
		}
	})
}

// A peer that takes bytes, however slowly, does not miss WriteTimeout; one that
// takes none does, however often somebody is interrupted.
func TestTimeoutsWriteTimeout(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		cfg := Config{WriteTimeout: 10 * time.Second, FragmentSize: -1}
		c, p, _ := setup{client: cfg, server: cfg, allow: brokenOff, pipe: wstest.PipeOptions{Window: 64}}.scripted(t, role)
		w := async(func() error { return c.WriteMessage(background, Binary, pattern(1000, 1)) })
		wr := &wireReader{t: t, nc: p.Conn}
		for range 90 {
			time.Sleep(9 * time.Second)
			wr.take(10)
		}
		pending(t, w, "the peer takes ten bytes every nine seconds")
		begin := time.Now()
		time.Sleep(5 * time.Second)
		c.interruptWrite()
		r := <-w
		if r.at.Sub(begin) < 10*time.Second || r.at.Sub(begin) > 15*time.Second {
			t.Errorf("after %v of silence", r.at.Sub(begin))
		}
		var te *TimeoutError
		if !errors.As(r.err, &te) || te.Limit != "WriteTimeout" || te.After != 10*time.Second {
			t.Error(r.err)
		}
		wantCloseError(t, r.err, CloseAbnormal, false)
	})
}

// Row "waiting in any read": at every byte of a stream.
func TestConcurrencyCancelReadAtEveryByte(t *testing.T) {
	lines := []string{`TEXT fin=0 "hé"`, `PING "p"`, `CONT fin=0 x:c3`, `CONT x:a9 "!"`, // cut inside a character
		`BINARY`, `BINARY fin=0 x:00*130`, `PONG`, `CONT x:01*130`, `TEXT "last"`}
	want := []string{"héé!", "", string(append(make([]byte, 130), bytes.Repeat([]byte{1}, 130)...)), "last"}
	readers := map[string]func(ctx context.Context, c *Conn) (string, error){
		"ReadMessage": func(ctx context.Context, c *Conn) (string, error) {
			_, p, err := c.ReadMessage(ctx)
			return string(p), err
		},
		"AppendMessage": func(ctx context.Context, c *Conn) (string, error) {
			_, p, err := c.AppendMessage(ctx, []byte("kept:"))
			return string(bytes.TrimPrefix(p, []byte("kept:"))), err
		},
	}
	var held *MessageReader
	var heldBytes []byte
	readers["NextReader"] = func(ctx context.Context, c *Conn) (string, error) {
		if held == nil {
			r, err := c.NextReader(ctx)
			if err != nil {
				return "", err
			}
			held, heldBytes = r, nil
		}
		held.SetContext(ctx)
		b, err := io.ReadAll(held)
		heldBytes = append(heldBytes, b...)
		if err == nil {
			held = nil
		}
		return string(heldBytes), err
	}
	for _, role := range []Role{RoleClient, RoleServer} {
		for name, read := range readers {
			var size int
			for k := 0; k == 0 || k < size; k++ {
				synctest.Test(t, func(t *testing.T) {
					held = nil
					c, p, _ := setup{}.scripted(t, role)
					stream := bytes.Join(p.Frames(lines...), nil)
					size = len(stream)
					ctx, cancel := context.WithTimeout(background, time.Second)
					defer cancel()
					p.SendBytes(stream[:k])
					var got []string
					for {
						m, err := read(ctx, c)
						if err == context.DeadlineExceeded {
							break
						}
						if err != nil {
							t.Fatalf("%v, %s, after %d bytes: %v", role, name, k, err)
						}
						got = append(got, m)
					}
					p.SendBytes(stream[k:])
					for len(got) < len(want) {
						m, err := read(background, c)
						if err != nil {
							t.Fatalf("%v, %s, after %d bytes and a cancel: %v", role, name, k, err)
						}
						got = append(got, m)
					}
					if fmt.Sprint(got) != fmt.Sprint(want) {
						t.Fatalf("%v, %s, cancelled after %d bytes: %q, want %q", role, name, k, got, want)
					}
				})
				if t.Failed() {
					return
				}
			}
		}
	}
}

// A read that was cancelled may be carried on by another kind of read.
func TestConcurrencyCancelledReadCarriedOnByAnother(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		c, p, _ := setup{}.scripted(t, role)
		ctx, cancel := context.WithTimeout(background, time.Second)
		defer cancel()
		p.Send(`TEXT fin=0 "one "`)
		if _, _, err := c.ReadMessage(ctx); err != context.DeadlineExceeded {
			t.Fatal(err)
		}
		p.Send(`CONT fin=0 "two "`)
		if _, b, err := c.AppendMessage(ctx, nil); err != context.DeadlineExceeded || len(b) != 0 {
			t.Fatal(err)
		}
		r, err := c.NextReader(background)
		if err != nil || r.Type != Text {
			t.Fatal(err)
		}
		p.Send(`CONT "three"`)
		if b, err := io.ReadAll(r); string(b) != "one two three" || err != nil {
			t.Errorf("%q, %v", b, err)
		}
	})
}

// Readers queue, and one whose context ends steps out of the line.
func TestConcurrencyCancelWaitingReader(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		c, p, _ := setup{}.scripted(t, role)
		first := reading(background, c)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(background, time.Second)
		defer cancel()
		second := reading(ctx, c)
		synctest.Wait()
		third := reading(background, c)
		pending(t, second, "another reads")
		time.Sleep(time.Second)
		if r := now(t, second, "its context has ended"); r.err != context.DeadlineExceeded {
			t.Error(r.err)
		}
		p.Send(`TEXT "1"`, `TEXT "2"`)
		if r := now(t, first, ""); string(r.p) != "1" {
			t.Errorf("%q, %v", r.p, r.err)
		}
		if r := now(t, third, ""); string(r.p) != "2" {
			t.Errorf("%q, %v", r.p, r.err)
		}
	})
}
