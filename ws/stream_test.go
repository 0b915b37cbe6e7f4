package ws

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/weft-ws/weft/capture"
	"github.com/weft-ws/weft/internal/deflate"
	"github.com/weft-ws/weft/internal/wire"
	"github.com/weft-ws/weft/internal/wstest"
)

// takeover is permessage-deflate as most peers agree on it.
var takeover = &deflate.Params{ServerMaxWindowBits: 15, ClientMaxWindowBits: 15}

// However a message is written, it arrives as it is; each fragment keeps to
// FragmentSize and text is cut between characters.
func TestReassemblyStreamWrittenInAnyPieces(t *testing.T) {
	for _, packed := range []*deflate.Params{nil, takeover} {
		bubble(t, func(t *testing.T, role Role) {
			rng := rand.New(rand.NewPCG(1, uint64(role)))
			for _, size := range []int{18, 33, 64, 1000} {
				cfg := Config{FragmentSize: size}
				s := setup{client: cfg, server: cfg, deflate: packed}
				if packed == nil {
					s.pipe.Tap = fragmentCheck(t, size)
				}
				c, peer := s.connect(t)
				if role == RoleServer {
					c, peer = peer, c
				}
				for i := range 60 {
					typ := Text
					msg := []byte(strings.Repeat("a€é🧶", 1+size/3))
					msg = msg[:rng.IntN(len(msg)+1)]
					for !utf8.Valid(msg) {
						msg = msg[:len(msg)-1]
					}
					if i%3 == 0 {
						typ, msg = Binary, pattern(rng.IntN(4*size), byte(i))
					}
					read := reading(background, peer)
					w, err := c.NextWriter(background, typ)
					if err != nil {
						t.Fatal(err)
					}
					for rest := msg; len(rest) > 0; {
						n := min(len(rest), 1+rng.IntN(3*size))
						if k, err := w.Write(rest[:n]); k != n || err != nil {
							t.Fatal(k, err)
						}
						if rest = rest[n:]; rng.IntN(4) == 0 {
							if err := w.Flush(); err != nil {
								t.Fatal(err)
							}
						}
					}
					if err := w.Close(); err != nil {
						t.Fatal(err)
					}
					if r := <-read; r.err != nil || r.typ != typ || !bytes.Equal(r.p, msg) {
						t.Fatalf("fragments of %d, message %d: got %q, %v\nwant %q", size, i, r.p, r.err, msg)
					}
				}
			}
		})
	}
}

// A stream of 64 MiB passes in constant memory, both ways of writing it.
func TestBuffersStreamInConstantMemory(t *testing.T) {
	const size = 64 << 20
	synctest.Test(t, func(t *testing.T) {
		cfg := Config{MaxMessageSize: -1}
		c, s := setup{client: cfg, server: cfg}.connect(t)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		write := async(func() error {
			w, err := c.NextWriter(background, Binary)
			if err != nil {
				return err
			}
			if n, err := io.Copy(w, io.LimitReader(zeros{}, size/2)); n != size/2 || err != nil {
				return err
			}
			buf := make([]byte, 1<<20)
			for range size / 2 / len(buf) {
				if _, err := w.Write(buf); err != nil {
					return err
				}
			}
			return w.Close()
		})
		r, err := s.NextReader(background)
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, onlyReader{r})
		if n != size || err != nil {
			t.Error(n, err)
		}
		if r := <-write; r.err != nil {
			t.Error(r.err)
		}
		runtime.ReadMemStats(&after)
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 4<<20 && !raceEnabled {
			t.Errorf("%d bytes were allocated for a stream of %d", grown, size)
		}
	})
}

// A large frame goes past the read buffer, straight to where the reader wants
// it: with bad text in it, a context that ends, and an end of the stream too.
func TestBuffersReadPastTheBuffer(t *testing.T) {
	const size = 1 << 20
	text := bytes.Repeat([]byte("€urope "), size/9)
	bubble(t, func(t *testing.T, role Role) {
		cfg := Config{MaxMessageSize: 2 * size}
		start := func(cut int, change func([]byte)) (*Conn, *wstest.Peer, []byte) {
			c, p, _ := setup{client: cfg, server: cfg, pipe: wstest.PipeOptions{Window: 4 * size}}.scripted(t, role)
			msg := bytes.Clone(text)
			change(msg)
			f := p.Frames(fmt.Sprintf("TEXT x:%x", msg))[0]
			p.SendBytes(f[:cut])
			return c, p, f[cut:]
		}
		reads := map[string]func(ctx context.Context, c *Conn) ([]byte, error){
			"ReadMessage": func(ctx context.Context, c *Conn) ([]byte, error) {
				_, b, err := c.ReadMessage(ctx)
				return b, err
			},
			"NextReader": func(ctx context.Context, c *Conn) ([]byte, error) {
				r, err := c.NextReader(ctx)
				if err != nil {
					return nil, err
				}
				var b []byte
				for buf := make([]byte, 200_000); ; {
					n, err := r.Read(buf)
					b = append(b, buf[:n]...)
					if err == context.DeadlineExceeded { // and carries on
						r.SetContext(background)
						continue
					}
					if err == io.EOF {
						return b, nil
					}
					if err != nil {
						return b, err
					}
				}
			},
		}
		for name, read := range reads {
			ctx, cancel := context.WithTimeout(background, time.Second)
			c, p, rest := start(300_000, func([]byte) {})
			call := async(func() error {
				b, err := read(ctx, c)
				if err == context.DeadlineExceeded {
					b, err = read(background, c)
				}
				if err == nil && !bytes.Equal(b, text) {
					t.Errorf("%s: %d bytes, want %d", name, len(b), len(text))
				}
				return err
			})
			time.Sleep(2 * time.Second)
			p.SendBytes(rest)
			if r := now(t, call, "the message is complete"); r.err != nil {
				t.Errorf("%s: %v", name, r.err)
			}
			cancel()

			c, p, rest = start(300_000, func(b []byte) { b[900_000] = 0xff })
			call = async(func() error { _, err := read(background, c); return err })
			synctest.Wait()
			p.SendBytes(rest)
			var v *ProtocolError
			if r := now(t, call, "a bad byte"); !errors.As(r.err, &v) || v.Rule.ID != "MS-05" || v.Offset < 900_000 || v.Offset > 900_020 {
				t.Errorf("%s: %v", name, r.err)
			}
			p.WantClose(CloseInvalidPayload, name)
			p.Close()

			c, p, _ = start(300_000, func([]byte) {})
			call = async(func() error { _, err := read(background, c); return err })
			synctest.Wait()
			p.Close()
			if r := now(t, call, "the stream has ended"); !errors.Is(r.err, io.ErrUnexpectedEOF) || !strings.Contains(r.err.Error(), "inside the payload of frame 1") {
				t.Errorf("%s: %v", name, r.err)
			}
		}
	})
}

// zeros yields zeros without an end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// idleSource never yields anything.
type idleSource struct{}

func (idleSource) Read([]byte) (int, error) { return 0, nil }

// onlyReader hides every method but Read.
type onlyReader struct{ io.Reader }

// brokenSource yields some bytes and then an error.
type brokenSource struct{ n int }

var errSource = errors.New("the source failed")

func (r *brokenSource) Read(p []byte) (int, error) {
	if r.n == 0 {
		return 0, errSource
	}
	n := min(r.n, len(p))
	r.n -= n
	clear(p[:n])
	return n, nil
}

func TestEdgeCasesMessageWriter(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		c, p, _ := setup{client: Config{FragmentSize: 64}, server: Config{FragmentSize: 64}}.scripted(t, role)
		open := func(typ MessageType) *MessageWriter {
			t.Helper()
			w, err := c.NextWriter(background, typ)
			if err != nil {
				t.Fatal(err)
			}
			return w
		}
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		if _, err := c.NextWriter(background, 3); err != errMessageType {
			t.Error(err)
		}

		w := open(Text) // an empty message
		must(w.Flush())
		p.WantNothing("there is nothing to flush")
		must(w.Close())
		p.Want(`TEXT`)
		for name, err := range map[string]error{"Close": w.Close(), "Flush": w.Flush()} {
			if err != errWriterClosed {
				t.Errorf("%s after Close: %v", name, err)
			}
		}
		if _, err := w.Write([]byte("x")); err != errWriterClosed {
			t.Error(err)
		}
		if _, err := w.ReadFrom(strings.NewReader("x")); err != errWriterClosed {
			t.Error(err)
		}

		w = open(Text) // an unfinished character stays
		w.Write([]byte("a\xe2\x82"))
		must(w.Flush())
		p.Want(`TEXT fin=0 "a"`)
		must(w.Flush())
		p.WantNothing("half a character cannot leave")
		w.Write([]byte("\xac"))
		must(w.Close())
		p.Want(`CONT "€"`)

		w = open(Binary) // everything has left: FIN travels alone
		w.Write([]byte("all"))
		must(w.Flush())
		must(w.Close())
		p.Want(`BINARY fin=0 "all"`, `CONT`)

		w = open(Binary) // the source fails, the message goes on
		if n, err := w.ReadFrom(&brokenSource{n: 10}); n != 10 || err != errSource {
			t.Error(n, err)
		}
		w.Write([]byte("!"))
		must(w.Close())
		p.Want(`BINARY x:00*10 "!"`)

		w = open(Binary) // a source that neither yields nor ends
		if n, err := w.ReadFrom(idleSource{}); n != 0 || err != io.ErrNoProgress {
			t.Error(n, err)
		}
		must(w.Close())
		p.Want(`BINARY`)

		// What is not UTF-8 and has not left costs the message only.
		for _, bad := range []string{"\xff", "a\xc0", "\xed\xa0\x80"} {
			w = open(Text)
			w.Write([]byte("fine "))
			if n, err := w.Write([]byte(bad)); n != 0 || err != errNotUTF8 {
				t.Errorf("%q: %d, %v", bad, n, err)
			}
			if err := w.Close(); err != errNotUTF8 {
				t.Error(err)
			}
			if err := w.Flush(); err != errNotUTF8 {
				t.Error(err)
			}
		}
		w = open(Text)
		w.Write([]byte("cut \xf0\x9f"))
		if err := w.Close(); err != errNotUTF8 {
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(background)
		cancel()
		w, err := c.NextWriter(ctx, Text) // it need not wait, but cannot be finished
		must(err)
		synctest.Wait()
		if _, err := w.Write([]byte("x")); err != context.Canceled {
			t.Error(err)
		}
		if err := w.Close(); err != context.Canceled {
			t.Error(err)
		}
		p.WantNothing("none of these was begun")
		mustWrite(t, c, Text, []byte("next"))
		p.Want(`TEXT "next"`)
		if c.Err() != nil {
			t.Error(c.Err())
		}
	})
}

// Text that turns out not to be UTF-8 after its beginning has left.
func TestValidationWriterRefusesBadTextOnTheWay(t *testing.T) {
	for name, finish := range map[string]func(w *MessageWriter) error{
		"a bad byte":         func(w *MessageWriter) error { _, err := w.Write([]byte("\xff")); return err },
		"inside a character": func(w *MessageWriter) error { w.Write([]byte("\xe2")); return w.Close() },
	} {
		bubble(t, func(t *testing.T, role Role) {
			c, p, _ := setup{}.scripted(t, role)
			w, err := c.NextWriter(background, Text)
			if err != nil {
				t.Fatal(err)
			}
			w.Write([]byte("begun"))
			w.Flush()
			p.Want(`TEXT fin=0 "begun"`)
			if err := finish(w); err != errNotUTF8 {
				t.Errorf("%s: %v", name, err)
			}
			p.WantClose(CloseInternalError, name)
			if ce := wantCloseError(t, c.Err(), CloseInternalError, false); !errors.Is(ce, errNotUTF8) {
				t.Error(ce)
			}
			if err := c.WriteMessage(background, Text, nil); err != c.Err() {
				t.Error(err)
			}
		})
	}
}

// A writer that nobody closes holds up others until its context ends; then
// they go on, or learn why they cannot.
func TestTimeoutsAbandonedWriter(t *testing.T) {
	for _, packed := range []*deflate.Params{nil, takeover} {
		bubble(t, func(t *testing.T, role Role) {
			c, s := setup{deflate: packed}.connect(t)
			if role == RoleServer {
				c, s = s, c
			}
			ctx, cancel := context.WithTimeout(background, time.Minute)
			defer cancel()
			w, err := c.NextWriter(ctx, Text)
			if err != nil {
				t.Fatal(err)
			}
			w.Write([]byte("an abandoned message"))
			read := reading(background, s)
			next := async(func() error { return c.WriteMessage(background, Text, []byte("the next message")) })
			pending(t, next, "the message lock is taken")
			time.Sleep(time.Minute)
			if r := now(t, next, "the writer's context has ended"); r.err != nil {
				t.Fatal(r.err)
			}
			if r := now(t, read, ""); string(r.p) != "the next message" {
				t.Fatalf("%q, %v", r.p, r.err)
			}
			if _, err := w.Write([]byte("x")); err != context.DeadlineExceeded {
				t.Error(err)
			}
			if err := w.Close(); err != context.DeadlineExceeded {
				t.Error(err)
			}

			// Once begun, the message cannot be taken back.
			ctx, cancel = context.WithTimeout(background, time.Minute)
			defer cancel()
			if w, err = c.NextWriter(ctx, Text); err != nil {
				t.Fatal(err)
			}
			w.Write([]byte("begun"))
			w.Flush()
			read = reading(background, s)
			next = async(func() error { return c.WriteMessage(background, Text, []byte("never sent")) })
			time.Sleep(20 * time.Second) // the peer would give up after 30
			read2 := reading(background, s)
			time.Sleep(9 * time.Second)
			cancel()
			r := now(t, next, "the writer's context has ended")
			wantCloseError(t, r.err, CloseInternalError, false)
			wantCloseError(t, now(t, read, "").err, CloseInternalError, true)
			wantCloseError(t, now(t, read2, "").err, CloseInternalError, true)
			if _, err := w.Write(nil); !errors.Is(err, context.Canceled) || !errors.Is(err, net.ErrClosed) {
				t.Error(err)
			}
		})
	}
}

// The context of a writer ends while a fragment is on its way, a pong before
// it: the row of the table is the fragment's.
func TestConcurrencyCancelStreamWhileItWaits(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		c, p, _ := setup{pipe: wstest.PipeOptions{Window: 3}, allow: brokenOff}.scripted(t, role)
		go c.Drain(background)
		ctx, cancel := context.WithCancel(background)
		defer cancel()
		w, err := c.NextWriter(ctx, Binary)
		if err != nil {
			t.Fatal(err)
		}
		p.Conn.(*wstest.PipeConn).SetWriteDeadline(time.Time{})
		sendPing := p.Frames(`PING "12345678"`)[0]
		go p.Conn.Write(sendPing)
		synctest.Wait() // the pong fills the window
		w.Write([]byte("not begun"))
		flush := async(w.Flush)
		pending(t, flush, "the pong is not out")
		cancel()
		if r := now(t, flush, "cancelled"); r.err != context.Canceled {
			t.Error(r.err)
		}
		p.Want(`PONG "12345678"`)
		next := async(func() error { return c.WriteMessage(background, Text, []byte("next")) })
		p.Want(`TEXT "next"`)
		if r := now(t, next, ""); r.err != nil {
			t.Error(r.err)
		}
	})
}

// Several goroutines may use one writer, and its context may end at any
// moment: no order of things lets an illegal frame out.
func TestConcurrencyWriterUsedByMany(t *testing.T) {
	for _, packed := range []*deflate.Params{nil, takeover} {
		for seed := range uint64(30) {
			synctest.Test(t, func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, 1))
				cfg := Config{FragmentSize: 40}
				c, s := setup{client: cfg, server: cfg, deflate: packed, allow: brokenOff, pipe: wstest.PipeOptions{Window: 100}}.connect(t)
				var wg sync.WaitGroup
				defer wg.Wait()
				wg.Go(func() { c.Drain(background) })
				wg.Go(func() { s.Drain(background) })
				for range 20 {
					ctx, cancel := context.WithTimeout(background, time.Duration(rng.IntN(20))*time.Millisecond)
					wg.Go(func() {
						for range 3 {
							if c.WriteMessage(background, Binary, pattern(50, 1)) != nil {
								return
							}
							time.Sleep(time.Millisecond)
						}
					})
					w, err := c.NextWriter(ctx, Text)
					if err != nil {
						cancel()
						continue
					}
					for i := range 3 {
						wg.Go(func() {
							for range 4 {
								w.Write([]byte("some text, some text"))
								time.Sleep(time.Duration(i) * time.Millisecond)
								w.Flush()
							}
						})
					}
					time.Sleep(time.Duration(rng.IntN(20)) * time.Millisecond)
					w.Close()
					cancel()
				}
				c.Close(CloseNormal, "")
			})
		}
	}
}

func TestEdgeCasesReaderHandsOutInOrder(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		c, p, _ := setup{}.scripted(t, role)
		p.Send(`TEXT fin=0 "abc"`, `PING`, `CONT "def"`, `BINARY`, `TEXT "g"`)
		r, err := c.NextReader(background)
		if err != nil || r.Type != Text {
			t.Fatal(err)
		}
		buf := make([]byte, 2)
		for _, want := range []string{"ab", "cd", "ef"} {
			if n, err := r.Read(buf); string(buf[:n]) != want || err != nil {
				t.Fatalf("%q, %v, want %q", buf[:n], err, want)
			}
			if n, err := r.Read(nil); n != 0 || err != nil {
				t.Fatal(n, err)
			}
		}
		for range 2 {
			if n, err := r.Read(buf); n != 0 || err != io.EOF {
				t.Fatal(n, err)
			}
		}
		if err := r.Discard(); err != nil {
			t.Error(err)
		}
		r, _ = c.NextReader(background)
		if n, err := r.Read(buf); r.Type != Binary || n != 0 || err != io.EOF {
			t.Error(r.Type, n, err)
		}
		r, _ = c.NextReader(background)
		if err := r.Discard(); err != nil {
			t.Error(err)
		}
		p.Want(`PONG`)
	})
}

// A connection that ends inside a message says so to who reads it.
func TestEdgeCasesReaderCutShort(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		c, p, _ := setup{}.scripted(t, role)
		p.Send(`TEXT fin=0 "abc"`)
		r, err := c.NextReader(background)
		if err != nil {
			t.Fatal(err)
		}
		p.Send(`CLOSE code=1001 "away"`)
		b, err := io.ReadAll(r)
		if string(b) != "abc" || !errors.Is(err, io.ErrUnexpectedEOF) || !errors.Is(err, net.ErrClosed) {
			t.Errorf("%q, %v", b, err)
		}
		wantCloseError(t, err, CloseGoingAway, true)
		if err2 := r.Discard(); err2 != err {
			t.Error(err2)
		}
		p.WantClose(CloseGoingAway, "the answer")
		if role == RoleServer {
			p.WantEnd("the server closes TCP first")
		}
	})
}

// fragmentCheck fails the test if a frame is longer than size, or cut inside a
// character.
func fragmentCheck(t *testing.T, size int) func(capture.Chunk) {
	var in [3][]byte
	var text [3]bool
	return func(k capture.Chunk) {
		p := append(in[k.From], k.Data...)
		for {
			h, n := wire.ParseHeader(p)
			if n == 0 || len(p) < n+int(h.Length) {
				break
			}
			body := bytes.Clone(p[n : n+int(h.Length)])
			if h.Masked {
				wire.Mask(h.Key, body)
			}
			if p = p[n+len(body):]; h.Opcode.Control() {
				continue
			}
			if h.Opcode != wire.Continuation {
				text[k.From] = h.Opcode == wire.Text
			}
			if n+len(body) > size {
				t.Errorf("a frame of %d bytes, FragmentSize is %d", n+len(body), size)
			}
			if text[k.From] && !utf8.Valid(body) {
				t.Errorf("cut inside a character: %q", body)
			}
		}
		in[k.From] = p
	}
}
