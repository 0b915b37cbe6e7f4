package ws

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-ws/weft/internal/deflate"
	"github.com/weft-ws/weft/internal/wire"
	"github.com/weft-ws/weft/internal/wstest"
)

// params are agreements that differ in what they ask of either end.
var params = []deflate.Params{
	{ServerMaxWindowBits: 15, ClientMaxWindowBits: 15},
	{ServerMaxWindowBits: 15, ClientMaxWindowBits: 15, ServerNoContextTakeover: true, ClientNoContextTakeover: true},
	{ServerMaxWindowBits: 9, ClientMaxWindowBits: 15, ClientNoContextTakeover: true},
	{ServerMaxWindowBits: 8, ClientMaxWindowBits: 9, ServerNoContextTakeover: true},
}

// compressible returns n bytes of what looks like JSON.
func compressible(n int, seed byte) []byte {
	var b []byte
	for i := 0; len(b) < n; i++ {
		b = fmt.Appendf(b, `{"id":%d,"name":"user %c","tags":["é","%d"]},`, i*7919, 'a'+seed%26, i%13)
	}
	return bytes.ToValidUTF8(b[:n], nil)
}

// compress returns p as the payload of a compressed message of its own.
func compress(p []byte) []byte {
	var d deflate.Deflater
	d.Reset(15, false)
	defer d.Close()
	return d.AppendMessage(nil, p)
}

// rsv1 is a whole compressed message in one frame, in the language of vectors.
func rsv1(op string, p []byte) string { return fmt.Sprintf("%s rsv1 x:%x", op, p) }

// Everything comes out as it went in, whatever was agreed on; the doctor checks
// on the wire that each window is kept.
func TestIntegrationDeflate(t *testing.T) {
	for i, p := range params {
		synctest.Test(t, func(t *testing.T) {
			cfg := Config{FragmentSize: 500}
			c, srv := setup{client: cfg, server: cfg, deflate: &p}.connect(t)
			for _, pair := range [][2]*Conn{{c, srv}, {srv, c}} {
				from, to := pair[0], pair[1]
				for _, n := range []int{0, 1, 100, 511, 512, 513, 5000, 70000} {
					for round, msg := range [][]byte{compressible(n, byte(n)), pattern(n, byte(n))} {
						typ := Text
						if round == 1 {
							typ = Binary
						}
						read := reading(background, to)
						mustWrite(t, from, typ, msg)
						if r := <-read; r.err != nil || r.typ != typ || !bytes.Equal(r.p, msg) {
							t.Fatalf("agreement %d, %d bytes: got %d, %v", i, n, len(r.p), r.err)
						}
						append1 := async(func() error { return from.WriteMessage(background, typ, msg) })
						if _, got, err := to.AppendMessage(background, []byte("x")); err != nil || !bytes.Equal(got[1:], msg) {
							t.Fatalf("agreement %d, %d bytes appended: got %d, %v", i, n, len(got), err)
						}
						<-append1
						stream := async(func() error { return from.WriteMessage(background, typ, msg) })
						r, err := to.NextReader(background)
						if err != nil {
							t.Fatal(err)
						}
						if got, err := io.ReadAll(onlyReader{r}); err != nil || !bytes.Equal(got, msg) {
							t.Fatalf("agreement %d, %d bytes streamed: got %d, %v", i, n, len(got), err)
						}
						<-stream
					}
				}
				if sent := from.Stats().Sent; sent.Bytes > 3*(70000+5000)*3/2 {
					t.Errorf("agreement %d: %d bytes were sent: nothing was compressed", i, sent.Bytes)
				}
			}
		})
	}
}

// Short messages go plain; a negative threshold compresses all, empty ones too.
func TestBuffersDeflateThreshold(t *testing.T) {
	for threshold, want := range map[int][3]bool{0: {false, false, true}, -1: {true, true, true}, 2000: {false, false, false}, 100: {false, true, true}} {
		bubble(t, func(t *testing.T, role Role) {
			cfg := Config{Compression: &Compression{Threshold: threshold}}
			c, p, _ := setup{client: cfg, server: cfg, deflate: takeover}.scripted(t, role)
			for i, n := range []int{0, 511, 512} {
				mustWrite(t, c, Binary, make([]byte, n))
				if f := p.Next(); f.RSV1 != want[i] {
					t.Errorf("threshold %d, message of %d bytes: compressed %t", threshold, n, f.RSV1)
				}
			}
		})
	}
}

// The limit counts what comes out, to the byte, however the frame is cut.
func TestBuffersInflatedMessageLimit(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		for _, n := range []int{999, 1000, 1001, 5000} {
			for _, cut := range []int{0, 1, 2, 6, 7, 8} {
				cfg := Config{MaxMessageSize: 1000}
				c, p, _ := setup{client: cfg, server: cfg, deflate: takeover}.scripted(t, role)
				p.Send(rsv1("BINARY", compress([]byte("first"))))
				wantMessage(t, c, Binary, []byte("first"))
				frame := p.Frames(rsv1("BINARY", compress(make([]byte, n))))[0]
				read := reading(background, c)
				p.SendBytes(frame[:cut])
				synctest.Wait()
				p.SendBytes(frame[cut:])
				r := now(t, read, "")
				if n <= 1000 {
					if r.err != nil || len(r.p) != n {
						t.Errorf("%d bytes, cut at %d: got %d, %v", n, cut, len(r.p), r.err)
					}
					continue
				}
				var le *LimitError
				if !errors.As(r.err, &le) || le.Limit != "MaxMessageSize" || le.Max != 1000 {
					t.Errorf("%d bytes, cut at %d: got %d, %v", n, cut, len(r.p), r.err)
				}
				p.WantClose(CloseMessageTooBig, "")
			}
		}
	})
}

// A bomb is stopped at the limit while it inflates: what it costs depends on
// the limit, not on the bomb.
func TestBuffersBomb(t *testing.T) {
	bomb := compress(make([]byte, 16<<20))
	if len(bomb) > 64<<10 {
		t.Fatalf("the bomb has %d bytes", len(bomb))
	}
	const limit = 2 << 20
	reads := map[string]func(c *Conn) error{
		"ReadMessage":   func(c *Conn) error { _, _, err := c.ReadMessage(background); return err },
		"AppendMessage": func(c *Conn) error { _, _, err := c.AppendMessage(background, nil); return err },
		"NextReader": func(c *Conn) error {
			r, err := c.NextReader(background)
			if err == nil {
				_, err = io.Copy(io.Discard, onlyReader{r})
			}
			return err
		},
	}
	for name, read := range reads {
		synctest.Test(t, func(t *testing.T) {
			cfg := Config{MaxMessageSize: limit}
			c, p, _ := setup{server: cfg, deflate: takeover, pipe: wstest.PipeOptions{Window: 4 << 20}}.scripted(t, RoleServer)
			f := wire.Header{Fin: true, RSV1: true, Opcode: wire.Binary, Masked: true, Length: uint64(len(bomb))}
			b := append(wire.AppendHeader(nil, f), bomb...)
			p.SendBytes(b)
			runtime.GC()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err := read(c)
			runtime.ReadMemStats(&after)
			var le *LimitError
			if !errors.As(err, &le) || le.Code != CloseMessageTooBig {
				t.Errorf("%s: %v", name, err)
			}
			if grown := after.TotalAlloc - before.TotalAlloc; grown > 3*limit+1<<20 && !raceEnabled {
				t.Errorf("%s: %d bytes were allocated, the limit is %d", name, grown, limit)
			}
			p.WantClose(CloseMessageTooBig, name)
			p.Close()
		})
	}
}

// The largest limit that can be written down is no limit, and no trap.
func TestBuffersLargestLimit(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		cfg := Config{MaxMessageSize: math.MaxInt64}
		for _, d := range []*deflate.Params{nil, takeover} {
			c, p, _ := setup{client: cfg, server: cfg, deflate: d}.scripted(t, role)
			line := `BINARY "hello"`
			if d != nil {
				line = rsv1("BINARY", compress([]byte("hello")))
			}
			p.Send(line)
			wantMessage(t, c, Binary, []byte("hello"))
			p.Send(`BINARY fin=0 length=0x3000000000000000`)
			read := reading(background, c)
			pending(t, read, "a long message has begun")
			p.Close()
			now(t, read, "")
		}
	})
}

// Bad deflate data and bad text inside good data end with 1007 and say why.
func TestValidationDeflateData(t *testing.T) {
	for name, cs := range map[string]struct {
		frame string
		rule  string
	}{
		"garbage":                   {rsv1("BINARY", []byte("\xff\xfe garbage")), "DF-10"},
		"ends too early":            {rsv1("BINARY", compress(compressible(1000, 1))[:30]), "DF-10"},
		"nothing at all":            {rsv1("BINARY", nil), "DF-10"},
		"a bad byte":                {rsv1("TEXT", compress([]byte("fine until \xff here"))), "MS-05"},
		"ends inside a character":   {rsv1("TEXT", compress([]byte("yarn \xf0\x9f\xa7"))), "MS-06"},
		"reaches before the window": {rsv1("BINARY", []byte("\x4b\x44\x00\x04\x00")), "DF-1"},
	} {
		bubble(t, func(t *testing.T, role Role) {
			for _, cutHeader := range []bool{false, true} {
				c, p, _ := setup{deflate: &params[1]}.scripted(t, role)
				read := reading(background, c)
				b := p.Frames(cs.frame)[0]
				if cutHeader {
					for i := range b {
						p.SendBytes(b[i : i+1])
						synctest.Wait()
						if len(read) > 0 {
							break
						}
					}
				} else {
					p.SendBytes(b)
				}
				r := now(t, read, name)
				var v *ProtocolError
				if !errors.As(r.err, &v) || v.Rule.ID[:4] != cs.rule[:4] || v.From != role.Peer() || v.Frame.Index != 1 {
					t.Errorf("%s: %v, want %s", name, r.err, cs.rule)
				}
				p.WantClose(CloseInvalidPayload, name)
				p.Close()
			}
		})
	}
}

// Fragments of a compressed message with control frames between them, both
// ways; and a read that is cancelled in the middle loses nothing.
func TestReassemblyDeflateFragments(t *testing.T) {
	msg := compressible(3000, 3)
	bubble(t, func(t *testing.T, role Role) {
		c, p, _ := setup{deflate: takeover}.scripted(t, role)
		packed := compress(msg)
		for step := 1; step < len(packed); step += 13 {
			ctx, cancel := context.WithCancel(background)
			read := reading(ctx, c)
			op := wire.Text
			for rest := packed; len(rest) > 0; {
				n := min(step, len(rest))
				f := fmt.Sprintf("%s fin=0 x:%x", op, rest[:n])
				if op == wire.Text {
					f += " rsv1"
				}
				if rest = rest[n:]; len(rest) == 0 {
					f = f[:len(op.String())] + " fin=1" + f[len(op.String())+6:]
				}
				p.Send(`PING "between"`, f)
				p.Want(`PONG "between"`)
				synctest.Wait()
				if op == wire.Text && len(rest) > 0 {
					cancel()
					if r := now(t, read, ""); r.err != context.Canceled {
						t.Fatal(r.err)
					}
					read = reading(background, c)
				}
				op = wire.Continuation
			}
			cancel()
			if r := now(t, read, ""); r.err != nil || !bytes.Equal(r.p, msg) {
				t.Fatalf("fragments of %d: got %d bytes, %v", step, len(r.p), r.err)
			}
		}
	})
}

// A compressed message that was never begun leaves nothing behind.
func TestConcurrencyCancelledCompressedMessage(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		c, peer := setup{deflate: takeover, pipe: wstest.PipeOptions{Window: 1000}}.connect(t)
		if role == RoleServer {
			c, peer = peer, c
		}
		go peer.Ping(background)
		synctest.Wait()
		// The pong that the reader owes goes out first, and the message stays behind.
		hold := async(func() error { return c.WriteMessage(background, Binary, pattern(5000, 7)) })
		synctest.Wait()
		ctx, cancel := context.WithTimeout(background, time.Second)
		defer cancel()
		for i := range 3 {
			lost := async(func() error { return c.WriteMessage(ctx, Text, compressible(9000, byte(i))) })
			if r := <-lost; r.err != context.DeadlineExceeded {
				t.Fatal(r.err)
			}
		}
		read := reading(background, peer)
		if r := <-read; r.err != nil || !bytes.Equal(r.p, pattern(5000, 7)) {
			t.Fatal(len(r.p), r.err)
		}
		now(t, hold, "")
		for i := range 3 {
			msg := compressible(9000, byte(i))
			read := reading(background, peer)
			mustWrite(t, c, Text, msg)
			if r := <-read; r.err != nil || !bytes.Equal(r.p, msg) {
				t.Fatal(len(r.p), r.err)
			}
		}
	})
}
