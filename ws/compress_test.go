package ws

import (
	"bytes"
	"compress/flate"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-ws/weft/internal/deflate"
	"github.com/weft-ws/weft/internal/wire"
	"github.com/weft-ws/weft/internal/wstest"
)

// words returns n bytes that compress well and repeat themselves at all
// distances.
func words(n int, seed uint32) []byte {
	list := strings.Fields("warp weft loom shuttle heddle reed selvedge twill satin plain weave thread bobbin pick shed beam")
	var b []byte
	for x := seed*2 + 1; len(b) < n; {
		x = x*1664525 + 1013904223
		b = append(append(b, list[x>>28]...), " \n,.;:!?"[x>>20&7])
	}
	return b[:n]
}

// packed compresses p with another implementation, as RFC 7692, 7.2.1 says:
// without the tail.
func packed(t testing.TB, p []byte, level int) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, level)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write(p)
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte(deflate.Tail))
}

// unpacked inflates with another implementation. dict is what the peer
// remembers of earlier messages.
func unpacked(t testing.TB, p, dict []byte) []byte {
	t.Helper()
	r := flate.NewReaderDict(io.MultiReader(bytes.NewReader(p), strings.NewReader(deflate.Tail+"\x01\x00\x00\xff\xff")), dict)
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("compress/flate does not understand the message: %v after %d bytes", err, len(out))
	}
	return out
}

// A bitReader and farthest are a decoder of DEFLATE (RFC 1951) that cares for
// nothing but the distances.
type bitReader struct {
	p []byte
	n int
}

func (r *bitReader) bits(n int) (v int) {
	for i := range n {
		v |= int(r.p[r.n>>3]>>(r.n&7)&1) << i
		r.n++
	}
	return v
}

// A prefixCode maps length and bits to symbols.
type prefixCode map[[2]int]int

// codeOf is the canonical code with the given lengths (RFC 1951, 3.2.2).
func codeOf(lens []int) prefixCode {
	c := prefixCode{}
	next := 0
	for n := 1; n < 16; n++ {
		for s, l := range lens {
			if l == n {
				c[[2]int{n, next}] = s
				next++
			}
		}
		next <<= 1
	}
	return c
}

// symbol reads one symbol.
func (r *bitReader) symbol(c prefixCode) int {
	code := 0
	for n := 1; n < 16; n++ {
		code = code<<1 | r.bits(1)
		if s, ok := c[[2]int{n, code}]; ok {
			return s
		}
	}
	panic("no such code")
}

// farthest returns the longest back-reference of a compressed message and how
// far before its beginning one reaches, in bytes.
func farthest(p []byte) (distMax, before int) {
	r := &bitReader{p: append(slices.Clone(p), deflate.Tail+"\x01\x00\x00\xff\xff"...)}
	out := 0
	for {
		final, typ := r.bits(1), r.bits(2)
		var lit, dist prefixCode
		switch typ {
		case 0:
			r.n = (r.n + 7) &^ 7
			n := r.bits(16)
			r.n += 16 + 8*n
			out += n
		case 1:
			lens := slices.Concat(slices.Repeat([]int{8}, 144), slices.Repeat([]int{9}, 112), slices.Repeat([]int{7}, 24), slices.Repeat([]int{8}, 8))
			lit, dist = codeOf(lens), codeOf(slices.Repeat([]int{5}, 30))
		case 2:
			nlit, ndist, nlen := r.bits(5)+257, r.bits(5)+1, r.bits(4)+4
			lens := make([]int, 19)
			order := [...]int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}
			for _, s := range order[:nlen] {
				lens[s] = r.bits(3)
			}
			lengths := codeOf(lens)
			var all []int
			for len(all) < nlit+ndist {
				switch s := r.symbol(lengths); s {
				case 16:
					all = append(all, slices.Repeat(all[len(all)-1:], 3+r.bits(2))...)
				case 17:
					all = append(all, make([]int, 3+r.bits(3))...)
				case 18:
					all = append(all, make([]int, 11+r.bits(7))...)
				default:
					all = append(all, s)
				}
			}
			lit, dist = codeOf(all[:nlit]), codeOf(all[nlit:])
		}
		for typ != 0 {
			s := r.symbol(lit)
			if s == 256 {
				break
			}
			if s < 256 {
				out++
				continue
			}
			n := s - 254
			if s == 285 {
				n = 258
			} else if s >= 265 {
				extra := (s - 261) / 4
				n = 3 + (4+(s-261)%4)<<extra + r.bits(extra)
			}
			d := r.symbol(dist)
			back := d + 1
			if d >= 4 {
				extra := d/2 - 1
				back = 1 + (2+d%2)<<extra + r.bits(extra)
			}
			distMax, before = max(distMax, back), max(before, back-out)
			out += n
		}
		if final == 1 {
			return distMax, before
		}
	}
}

// nextMessage reads the frames of one message, pings aside, and returns its
// payload.
func nextMessage(t testing.TB, p *wstest.Peer) (payload []byte, frames []wstest.Frame) {
	t.Helper()
	for {
		f := p.Next()
		if f.Opcode.Control() {
			continue
		}
		frames = append(frames, f)
		if payload = append(payload, f.Payload...); f.Fin {
			return payload, frames
		}
	}
}

// TestCompressEveryWindow: what either role sends stays within the window that
// was agreed, and another implementation reads it.
func TestCompressEveryWindow(t *testing.T) {
	for bits := 8; bits <= 15; bits++ {
		for _, takeover := range []bool{true, false} {
			t.Run(fmt.Sprintf("%d/takeover=%t", bits, takeover), func(t *testing.T) {
				bubble(t, func(t *testing.T, role Role) {
					params := deflate.Params{ServerMaxWindowBits: bits, ClientMaxWindowBits: 15, ServerNoContextTakeover: !takeover}
					if role == RoleClient {
						params = deflate.Params{ClientMaxWindowBits: bits, ServerMaxWindowBits: 15, ClientNoContextTakeover: !takeover}
					}
					s := setup{deflate: &params}
					s.client.Compression = &Compression{Threshold: -1, Level: 9}
					s.server = s.client
					c, peer, _ := s.scripted(t, role)
					var past []byte
					sum, sumDist, sumBefore := 0, 0, 0
					for i, n := range []int{60_000, 0, 5, 700, 700, 40_000, 3_000, 1} {
						p := words(n, uint32(i/2))
						sent := async(func() error { return c.WriteMessage(background, Binary, p) })
						body, frames := nextMessage(t, peer)
						if err := (<-sent).err; err != nil {
							t.Fatal(err)
						}
						for j, f := range frames {
							if f.RSV1 != (j == 0) {
								t.Fatalf("frame %d of the message is %v", j+1, f)
							}
						}
						dict := past[max(0, len(past)-1<<bits):]
						if !takeover {
							dict = nil
						}
						if got := unpacked(t, body, dict); !bytes.Equal(got, p) {
							t.Fatalf("message %d of %d bytes came out as %d bytes", i, n, len(got))
						}
						dist, before := farthest(body)
						if dist > 1<<bits {
							t.Errorf("message %d refers %d bytes back, the window has %d", i, dist, 1<<bits)
						}
						if before > 0 && !takeover {
							t.Errorf("message %d refers to the one before", i)
						}
						sum, sumDist, sumBefore = sum+len(body), max(sumDist, dist), max(sumBefore, before)
						past = append(past, p...)
					}
					if sumDist <= 1<<(bits-1) {
						t.Errorf("no reference of more than %d bytes: the window is not used", sumDist)
					}
					if takeover && sumBefore == 0 {
						t.Error("no message refers to an earlier one")
					}
					if sum > 60_000 {
						t.Errorf("compressed to %d bytes of 104 thousand", sum)
					}
				})
			})
		}
	}
}

// TestCompressReceivesFromOthers: messages compressed by another
// implementation, at every level, stored blocks among them, cut into frames
// anywhere with pings between.
func TestCompressReceivesFromOthers(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		s := setup{deflate: &deflate.Params{ServerMaxWindowBits: 15, ClientMaxWindowBits: 15}}
		c, peer, _ := s.scripted(t, role)
		for level := flate.HuffmanOnly; level <= 9; level++ {
			for _, n := range []int{1, 100, 70_000} {
				p := words(n, uint32(level+9))
				body := packed(t, p, level)
				if level == 0 && len(body) <= n {
					t.Fatal("no stored block")
				}
				got := reading(background, c)
				at := n % 7 % len(body)
				peer.Send(fmt.Sprintf(`TEXT rsv1 fin=0 x:%x`, body[:at]), `PING "1"`, `CONT fin=0`, `PING "2"`)
				peer.Send(fmt.Sprintf(`CONT x:%x`, body[at:]))
				peer.Want(`PONG "1"`, `PONG "2"`)
				if r := <-got; r.err != nil || r.typ != Text || !bytes.Equal(r.p, p) {
					t.Fatalf("level %d, %d bytes: got %d bytes, %v", level, n, len(r.p), r.err)
				}
			}
		}
	})
}

// TestCompressFragmentsWithPings: a long compressed message of ours lets a
// ping pass between its fragments.
func TestCompressFragmentsWithPings(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		s := setup{deflate: &deflate.Params{ServerMaxWindowBits: 15, ClientMaxWindowBits: 15}}
		s.client.FragmentSize, s.server.FragmentSize = 1000, 1000
		s.pipe.Window = 2000
		c, peer, _ := s.scripted(t, role)
		p := words(1_000_000, 3)
		sent := async(func() error { return c.WriteMessage(background, Text, p) })
		pending(t, sent, "the pipe is full")
		read := reading(background, c)
		ping := async(func() error { _, err := c.Ping(background); return err })
		synctest.Wait()
		var body []byte
		frames, pings := 0, 0
		for fin := false; !fin; {
			f := peer.Next()
			if f.Opcode == wire.Ping {
				pings++
				peer.Send(fmt.Sprintf("PONG x:%x", f.Payload))
				continue
			}
			if len(f.Payload) > 1000 || f.RSV1 != (frames == 0) {
				t.Fatalf("frame %d is %v", frames+1, f)
			}
			frames++
			body, fin = append(body, f.Payload...), f.Fin
		}
		if got := unpacked(t, body, nil); !bytes.Equal(got, p) || frames < 10 || pings != 1 {
			t.Fatalf("%d bytes in %d frames with %d pings between", len(got), frames, pings)
		}
		if r := now(t, sent, "all is read"); r.err != nil {
			t.Error(r.err)
		}
		if r := now(t, ping, "it was answered"); r.err != nil {
			t.Error(r.err)
		}
		if st := c.Stats(); st.Interleaved != 1 || st.Sent.LargestMessage != int64(len(body)) {
			t.Errorf("counted %d control frames inside, largest message %d; want 1, %d", st.Interleaved, st.Sent.LargestMessage, len(body))
		}
		peer.Send(fmt.Sprintf("TEXT rsv1 x:%x", packed(t, []byte("done"), 9)))
		if r := now(t, read, "a message has come"); string(r.p) != "done" {
			t.Errorf("%q, %v", r.p, r.err)
		}
	})
}

// TestCompressBlocks: BFINAL, several blocks after it, stored blocks longer than
// a fragment, and the block of padding that some libraries add.
func TestCompressBlocks(t *testing.T) {
	long := words(40_000, 4)
	var finals bytes.Buffer
	for _, part := range [][]byte{long[:9000], long[9000:9000], long[9000:]} {
		w, _ := flate.NewWriter(&finals, 6)
		_, _ = w.Write(part)
		_ = w.Close() // BFINAL, then to the next byte
	}
	final := finals.Bytes()
	// RFC 7692, 7.2.3.5: a message whose last block has BFINAL gets one octet more.
	body := append(slices.Clone(final), 0)
	stored := packed(t, long, flate.NoCompression)
	bubble(t, func(t *testing.T, role Role) {
		s := setup{deflate: &deflate.Params{ServerMaxWindowBits: 15, ClientMaxWindowBits: 15}}
		c, peer, _ := s.scripted(t, role)
		for name, b := range map[string][]byte{"three final blocks": body, "stored": stored} {
			for _, cut := range []int{1, len(b) / 2, len(b) - 1} {
				got := reading(background, c)
				peer.Send(fmt.Sprintf("BINARY rsv1 fin=0 x:%x", b[:cut]), fmt.Sprintf("CONT x:%x", b[cut:]))
				if r := now(t, got, name); !bytes.Equal(r.p, long) {
					t.Errorf("%s, cut at %d: %d bytes, %v", name, cut, len(r.p), r.err)
				}
			}
		}
	})
}

// TestCompressGarbage: data that is not DEFLATE, and messages cut at every
// byte, end the connection with 1007 on the wire, whoever reads and however.
func TestCompressGarbage(t *testing.T) {
	good := packed(t, words(300, 5), 9)
	bodies := map[string][]byte{
		"block type 3":      {0x07},
		"bad stored length": {0x00, 0x05, 0x00, 0x00, 0x00},
		"distance too far":  {0x4b, 0x04, 0x82, 0xff, 0xff},
		"all ones":          bytes.Repeat([]byte{0xff}, 100),
	}
	for cut := 1; cut < len(good)-1; cut += 1 + cut/16 {
		bodies[fmt.Sprintf("cut at %d of %d", cut, len(good))] = good[:cut]
	}
	read := map[string]func(c *Conn) error{
		"ReadMessage": func(c *Conn) error { _, _, err := c.ReadMessage(background); return err },
		"stream": func(c *Conn) error {
			m, err := c.NextReader(background)
			if err == nil {
				_, err = io.Copy(io.Discard, m)
			}
			return err
		},
		"Drain": func(c *Conn) error { return c.Drain(background) },
	}
	bubble(t, func(t *testing.T, role Role) {
		for name, body := range bodies {
			for how, f := range read {
				s := setup{deflate: &deflate.Params{ServerMaxWindowBits: 15, ClientMaxWindowBits: 15}}
				c, peer, _ := s.scripted(t, role)
				got := async(func() error { return f(c) })
				peer.Send(fmt.Sprintf("BINARY rsv1 x:%x", body))
				peer.WantClose(CloseInvalidPayload, name)
				r := now(t, got, name)
				ce := wantCloseError(t, r.err, CloseInvalidPayload, false)
				var pe *ProtocolError
				if !errors.As(ce, &pe) || !strings.HasPrefix(pe.Rule.ID, "DF-1") || pe.Frame.Index != 1 || pe.Detail == "" {
					t.Errorf("%s, %s: %v", name, how, ce)
				}
				if how == "stream" && !errors.Is(r.err, io.ErrUnexpectedEOF) {
					t.Errorf("%s: a stream that is cut short says %v", name, r.err)
				}
				peer.Close()
				<-c.Done()
			}
		}
	})
}

// bomb is a message of about a megabyte that inflates to n MiB of zeros.
func bomb(t *testing.T, n int) []byte {
	t.Helper()
	mega := append(packed(t, make([]byte, 1<<20), 9), deflate.Tail...)
	return bytes.TrimSuffix(bytes.Repeat(mega, n), []byte(deflate.Tail))
}

// TestCompressBomb: a megabyte that would inflate to a gigabyte ends at the
// limit, in the memory of the limit, with 1009.
func TestCompressBomb(t *testing.T) {
	body := bomb(t, 1024)
	if len(body) > 3<<19 {
		t.Fatalf("the bomb has %d bytes", len(body))
	}
	read := map[string]func(c *Conn) error{
		"ReadMessage":   func(c *Conn) error { _, _, err := c.ReadMessage(background); return err },
		"AppendMessage": func(c *Conn) error { _, _, err := c.AppendMessage(background, nil); return err },
		"stream": func(c *Conn) error {
			m, err := c.NextReader(background)
			if err == nil {
				_, err = io.Copy(io.Discard, m)
			}
			return err
		},
	}
	const slack = 2 << 20
	for how, f := range read {
		for _, limit := range []int64{1 << 20, 8 << 20} {
			t.Run(fmt.Sprintf("%s/%d MiB", how, limit>>20), func(t *testing.T) {
				bubble(t, func(t *testing.T, role Role) {
					s := setup{deflate: &deflate.Params{ServerMaxWindowBits: 15, ClientMaxWindowBits: 15}}
					s.client.MaxMessageSize, s.server.MaxMessageSize = limit, limit
					cp, sp := wstest.Pipe(wstest.PipeOptions{Window: 1 << 20})
					ours, theirs := sp, cp
					if role == RoleClient {
						ours, theirs = cp, sp
					}
					c := s.conn(ours, role)
					peer := wstest.NewPeer(t, theirs, role.Peer())
					frames := bytes.Join(peer.Frames(fmt.Sprintf("BINARY rsv1 x:%x", body)), nil)
					runtime.GC()
					var before, after runtime.MemStats
					runtime.ReadMemStats(&before)
					got := async(func() error { return f(c) })
					go func() { _, _ = theirs.Write(frames) }()
					peer.WantClose(CloseMessageTooBig, "the limit counts inflated bytes")
					err := (<-got).err
					runtime.ReadMemStats(&after)
					var le *LimitError
					if ce := wantCloseError(t, err, CloseMessageTooBig, false); !errors.As(ce, &le) || le.Max != limit {
						t.Error(ce)
					}
					// All that was ever allocated bounds the heap's peak. A buffer that
					// doubles up to the limit comes to twice that; a stream needs none.
					allowed := 2*limit + slack
					if how == "stream" {
						allowed = slack
					}
					if grew := int64(after.TotalAlloc - before.TotalAlloc); grew > allowed {
						t.Errorf("allocated %d bytes for a limit of %d", grew, limit)
					}
					peer.Close()
					c.CloseNow()
					<-c.Done()
				})
			})
		}
	}
}

// TestCompressThreshold: messages below it go plain, others do not, and the
// default is 512.
func TestCompressThreshold(t *testing.T) {
	for _, tc := range []struct {
		set, from int
	}{{0, 512}, {100, 100}, {-1, 0}} {
		t.Run(fmt.Sprint(tc.set), func(t *testing.T) {
			bubble(t, func(t *testing.T, role Role) {
				s := setup{deflate: &deflate.Params{ServerMaxWindowBits: 15, ClientMaxWindowBits: 15}}
				s.client.Compression = &Compression{Threshold: tc.set}
				s.server = s.client
				c, peer, _ := s.scripted(t, role)
				for _, n := range []int{0, 1, tc.from - 1, tc.from, tc.from + 1} {
					if n < 0 {
						continue
					}
					mustWrite(t, c, Text, words(n, 6))
					if f := peer.Next(); f.RSV1 != (n >= tc.from) {
						t.Errorf("%d bytes: %v", n, f)
					}
				}
			})
		})
	}
}

// TestCompressLevels: a higher level never sends more, the highest much less
// than the lowest, and each is read back.
func TestCompressLevels(t *testing.T) {
	p := words(200_000, 7)
	bubble(t, func(t *testing.T, role Role) {
		size := map[int]int{}
		for level := range 10 {
			s := setup{deflate: &deflate.Params{ServerMaxWindowBits: 15, ClientMaxWindowBits: 15}}
			s.client.Compression = &Compression{Level: level}
			s.server = s.client
			c, peer, _ := s.scripted(t, role)
			sent := async(func() error { return c.WriteMessage(background, Text, p) })
			body, _ := nextMessage(t, peer)
			if r := now(t, sent, "it was read"); r.err != nil {
				t.Fatal(r.err)
			}
			if got := unpacked(t, body, nil); !bytes.Equal(got, p) {
				t.Errorf("level %d: %d bytes came out", level, len(got))
			}
			size[level] = len(body)
		}
		if size[0] != size[3] {
			t.Errorf("without a level %d bytes, with 3, the default, %d", size[0], size[3])
		}
		if size[9] > size[5] || size[5] > size[1] || size[9] > size[1]*95/100 {
			t.Errorf("sizes by level: %v", size)
		}
	})
}

// TestCompressStreams: a message written and read as a stream, flushed on the
// way, text and binary, between whole messages.
func TestCompressStreams(t *testing.T) {
	for _, takeover := range []bool{true, false} {
		for _, bits := range []int{9, 15} {
			t.Run(fmt.Sprintf("takeover=%t/%d", takeover, bits), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := setup{deflate: &deflate.Params{
						ServerMaxWindowBits: bits, ClientMaxWindowBits: bits,
						ServerNoContextTakeover: !takeover, ClientNoContextTakeover: !takeover,
					}}
					client, server := s.connect(t)
					for _, dir := range [][2]*Conn{{client, server}, {server, client}} {
						streamBothWays(t, dir[0], dir[1])
					}
				})
			})
		}
	}
}

func streamBothWays(t *testing.T, from, to *Conn) {
	t.Helper()
	for _, typ := range []MessageType{Text, Binary} {
		p := words(100_000, 8)
		if typ == Text {
			p = letters(100_000)
		}
		w, err := from.NextWriter(background, typ)
		if err != nil {
			t.Fatal(err)
		}
		r := (*MessageReader)(nil)
		opened := async(func() (err error) { r, err = to.NextReader(background); return err })
		// What was flushed arrives before the message is closed.
		if _, err := w.Write(p[:301]); err != nil {
			t.Fatal(err)
		}
		pending(t, opened, "nothing was flushed")
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		if res := now(t, opened, "there is a fragment"); res.err != nil || r.Type != typ {
			t.Fatal(res.err)
		}
		head := make([]byte, 301)
		if _, err := io.ReadFull(r, head); err != nil || !bytes.Equal(head, p[:301]) {
			t.Fatalf("%.40q, %v", head, err)
		}
		wrote := async(func() error {
			if _, err := w.ReadFrom(bytes.NewReader(p[301:])); err != nil {
				return err
			}
			return w.Close()
		})
		rest, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(rest, p[301:]) {
			t.Fatalf("%d bytes, %v", len(rest), err)
		}
		if res := <-wrote; res.err != nil {
			t.Fatal(res.err)
		}
		// And a whole message, into the caller's memory.
		written := async(func() error { return from.WriteMessage(background, typ, p) })
		got, q, err := to.AppendMessage(background, []byte("before"))
		if err != nil || got != typ || !bytes.Equal(q, append([]byte("before"), p...)) {
			t.Fatalf("%v of %d bytes, %v", got, len(q), err)
		}
		if res := <-written; res.err != nil {
			t.Fatal(res.err)
		}
		if n := from.w.deflater.Held(); n > 1<<15 {
			t.Errorf("between messages the deflater holds %d bytes", n)
		}
	}
}

// TestCompressEmptyStream: nothing written is an empty message, flushed or not.
func TestCompressEmptyStream(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		s := setup{deflate: &deflate.Params{ServerMaxWindowBits: 15, ClientMaxWindowBits: 15}}
		c, peer, _ := s.scripted(t, role)
		for range 2 {
			w, err := c.NextWriter(background, Text)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(w.Flush(), w.Close()); err != nil {
				t.Fatal(err)
			}
			body, _ := nextMessage(t, peer)
			if got := unpacked(t, body, nil); len(got) != 0 {
				t.Errorf("an empty message has %d bytes", len(got))
			}
		}
	})
}

// TestCompressAbandoned: a message that was compressed and not sent leaves no
// trace in those that follow, whichever way it was written.
func TestCompressAbandoned(t *testing.T) {
	secret := words(3000, 9)
	ways := map[string]func(ctx context.Context, c *Conn) error{
		"WriteMessage": func(ctx context.Context, c *Conn) error { return c.WriteMessage(ctx, Binary, secret) },
		"stream": func(ctx context.Context, c *Conn) error {
			w, err := c.NextWriter(ctx, Binary)
			if err != nil {
				return err
			}
			if _, err := w.Write(secret); err != nil {
				return err
			}
			return w.Close()
		},
	}
	bubble(t, func(t *testing.T, role Role) {
		for name, write := range ways {
			s := setup{deflate: &deflate.Params{ServerMaxWindowBits: 15, ClientMaxWindowBits: 15}}
			s.client.WriteTimeout, s.server.WriteTimeout = -1, -1
			s.pipe.Window = 600
			c, peer, _ := s.scripted(t, role)
			ctx, cancel := context.WithCancel(background)
			// A message whose last byte has no room fills the pipe.
			fill := make([]byte, 600)
			full := async(func() error { return c.WriteMessage(background, Binary, randomBytes(fill)) })
			pending(t, full, "the pipe is full")
			got := async(func() error { return write(ctx, c) })
			pending(t, got, "another message is on its way")
			cancel()
			if r := now(t, got, "its context has ended"); !errors.Is(r.err, context.Canceled) {
				t.Fatalf("%s: %v", name, r.err)
			}
			body, _ := nextMessage(t, peer)
			past := unpacked(t, body, nil)
			if !bytes.Equal(past, fill) {
				t.Fatal("the message before was harmed")
			}
			sent := async(func() error { return c.WriteMessage(background, Binary, secret) })
			body, _ = nextMessage(t, peer)
			if p := unpacked(t, body, past); !bytes.Equal(p, secret) {
				t.Errorf("%s: %d bytes came out", name, len(p))
			}
			if r := now(t, sent, "it was read"); r.err != nil {
				t.Error(r.err)
			}
			if len(body) < 300 {
				t.Errorf("%s: %d bytes for %d: it refers to what was never sent", name, len(body), len(secret))
			}
		}
	})
}

// randomBytes fills p with bytes that do not compress.
func randomBytes(p []byte) []byte {
	x := uint32(1)
	for i := range p {
		x = x*1664525 + 1013904223
		p[i] = byte(x >> 24)
	}
	return p
}

// TestCompressText: text is checked after inflation, also across the pieces in
// which it comes out, and in a stream.
func TestCompressText(t *testing.T) {
	for rule, text := range map[string]string{
		"MS-05": strings.Repeat("ä", 3000) + "\xc3" + "x",
		"MS-06": strings.Repeat("ä", 3000) + "\xe2\x82",
	} {
		for _, size := range []int{0, 1, 7, 4096} { // 0: the whole message at once
			t.Run(fmt.Sprintf("%s/%d", rule, size), func(t *testing.T) {
				bubble(t, func(t *testing.T, role Role) {
					s := setup{deflate: &deflate.Params{ServerMaxWindowBits: 15, ClientMaxWindowBits: 15}}
					c, peer, _ := s.scripted(t, role)
					got := async(func() error {
						if size == 0 {
							_, _, err := c.ReadMessage(background)
							return err
						}
						m, err := c.NextReader(background)
						for buf := make([]byte, size); err == nil; {
							_, err = m.Read(buf)
						}
						return err
					})
					body := packed(t, []byte(text), 9)
					peer.Send(fmt.Sprintf("TEXT rsv1 fin=0 x:%x", body[:len(body)/2]), fmt.Sprintf("CONT x:%x", body[len(body)/2:]))
					peer.WantClose(CloseInvalidPayload, "text must be UTF-8")
					var pe *ProtocolError
					if err := now(t, got, "the text is bad").err; !errors.As(err, &pe) || pe.Rule.ID != rule {
						t.Errorf("got %v, want %s", err, rule)
					}
				})
			})
		}
	}
}

// TestCompressTailLeft: RFC 7692, 7.2.1 has the sender remove the tail; a
// message with it is whole, so it is delivered, and the trace is told.
func TestCompressTailLeft(t *testing.T) {
	for _, takeover := range []bool{true, false} {
		t.Run(fmt.Sprintf("takeover=%t", takeover), func(t *testing.T) {
			bubble(t, func(t *testing.T, role Role) {
				var broken []*ProtocolError
				s := setup{deflate: &deflate.Params{ServerMaxWindowBits: 15, ClientMaxWindowBits: 15, ServerNoContextTakeover: !takeover, ClientNoContextTakeover: !takeover}}
				s.client.Trace = &Trace{Violation: func(e *ProtocolError) { broken = append(broken, e) }}
				s.server = s.client
				c, peer, _ := s.scripted(t, role)
				for i, tail := range []string{"", deflate.Tail, ""} {
					got := reading(background, c)
					peer.Send(fmt.Sprintf("TEXT rsv1 x:%x%x", packed(t, []byte("weft and warp"), 9), tail))
					if r := now(t, got, "a whole message has come"); string(r.p) != "weft and warp" {
						t.Fatalf("message %d: %q, %v", i, r.p, r.err)
					}
				}
				if len(broken) != 1 || broken[0].Rule.ID != "DF-13" || broken[0].Frame.Index != 2 || broken[0].From != role.Peer() {
					t.Errorf("the trace was told of %v, want DF-13 in frame 2", broken)
				}
				if err := c.Err(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestCompressGivesMemoryBack: nothing is held between messages without context
// takeover, little with it, and nothing after the end, whichever end it is.
func TestCompressGivesMemoryBack(t *testing.T) {
	ends := map[string]func(c *Conn, p *wstest.Peer){
		"CloseNow": func(c *Conn, p *wstest.Peer) { c.CloseNow() },
		"peer":     func(c *Conn, p *wstest.Peer) { p.Send("CLOSE code=1000"); p.WantClose(1000, ""); p.Close() },
		"garbage":  func(c *Conn, p *wstest.Peer) { p.Send("BINARY rsv1 x:07"); p.WantClose(1007, ""); p.Close() },
		"inside":   func(c *Conn, p *wstest.Peer) { p.Send("BINARY rsv1 fin=0 x:4a4c4a4e49"); p.Close() },
	}
	for _, takeover := range []bool{true, false} {
		for name, end := range ends {
			t.Run(fmt.Sprintf("%s/takeover=%t", name, takeover), func(t *testing.T) {
				bubble(t, func(t *testing.T, role Role) {
					s := setup{deflate: &deflate.Params{ServerMaxWindowBits: 15, ClientMaxWindowBits: 15, ServerNoContextTakeover: !takeover, ClientNoContextTakeover: !takeover}}
					c, peer, _ := s.scripted(t, role)
					read := async(func() error { return c.Drain(background) })
					peer.Send(fmt.Sprintf("BINARY rsv1 x:%x", packed(t, words(60_000, 10), 9)))
					mustWrite(t, c, Binary, words(60_000, 11))
					nextMessage(t, peer)
					synctest.Wait()
					in, out := c.r.inflater.Held(), c.w.deflater.Held()
					if takeover && (in == 0 || out == 0 || in > 40<<10 || out > 8<<10) || !takeover && in+out != 0 {
						t.Errorf("between messages %d and %d bytes are held", in, out)
					}
					end(c, peer)
					<-read
					<-c.Done()
					if in, out := c.r.inflater.Held(), c.w.deflater.Held(); in+out != 0 {
						t.Errorf("after the end %d and %d bytes are held", in, out)
					}
				})
			})
		}
	}
}

// TestCompressOverSockets: what both sides ask for is what they get, through
// Dial and Accept, and a Handler answers compressed messages.
func TestCompressOverSockets(t *testing.T) {
	for _, tc := range []struct {
		client, server *Compression
		own, peer      int  // windows of client and server; 0: no compression
		takeover       bool // of both
	}{
		{&Compression{}, &Compression{}, 15, 15, true},
		{&Compression{NoContextTakeover: true}, &Compression{}, 15, 15, false},
		{&Compression{}, &Compression{NoContextTakeover: true}, 15, 15, false},
		{&Compression{ClientMaxWindowBits: 10}, &Compression{ServerMaxWindowBits: 9}, 10, 9, true},
		{&Compression{ServerMaxWindowBits: 8}, &Compression{ClientMaxWindowBits: 8}, 8, 8, true},
		{&Compression{}, nil, 0, 0, false},
		{nil, &Compression{}, 0, 0, false},
	} {
		t.Run(fmt.Sprintf("%+v/%+v", tc.client, tc.server), func(t *testing.T) {
			accepted := make(chan *Conn, 1)
			url := "ws://" + listenHTTP(t, func(w http.ResponseWriter, r *http.Request) {
				c, err := Serve(w, r, &AcceptOptions{Config: Config{Compression: tc.server}}, Handler{Message: echo})
				if err != nil {
					t.Error(err)
				}
				accepted <- c
			})
			c := mustDial(t, url, &DialOptions{Proxy: noProxy, Config: Config{Compression: tc.client}})
			s := <-accepted
			for i, n := range []int{10, 700, 100_000, 700, 100_000} {
				p := string(words(n, uint32(i)))
				if got := ask(t, c, p); got != p {
					t.Fatalf("%d bytes came back as %d", n, len(got))
				}
			}
			if tc.own == 0 {
				if c.w.deflater != nil || s.w.deflater != nil {
					t.Error("compressed although one side does not want it")
				}
			} else if c.ownWindowBits() != tc.own || s.ownWindowBits() != tc.peer || c.ownTakeover() != tc.takeover || s.ownTakeover() != tc.takeover {
				t.Errorf("client %d %t, server %d %t", c.ownWindowBits(), c.ownTakeover(), s.ownWindowBits(), s.ownTakeover())
			}
			if err := c.Close(CloseNormal, ""); err != nil {
				t.Error(err)
			}
			<-s.Done()
			sent, received := c.Stats().Sent, s.Stats().Received
			if sent.Bytes != received.Bytes || sent.Messages != 5 || sent.LargestMessage != received.LargestMessage {
				t.Errorf("client sent %+v, server received %+v", sent, received)
			}
			if compressed := sent.Bytes < 100_000; compressed != (tc.own != 0) {
				t.Errorf("%d bytes on the wire for 201 thousand", sent.Bytes)
			}
		})
	}
}

// TestCompressCancelledRead: a read that is cancelled inside a compressed
// message loses nothing; the next carries on, whole or as a stream.
func TestCompressCancelledRead(t *testing.T) {
	p := words(5000, 12)
	bubble(t, func(t *testing.T, role Role) {
		body := packed(t, p, 9)
		for cut := 0; cut <= len(body); cut += 1 + cut/8 {
			for _, stream := range []bool{false, true} {
				s := setup{deflate: &deflate.Params{ServerMaxWindowBits: 15, ClientMaxWindowBits: 15}}
				c, peer, _ := s.scripted(t, role)
				ctx, cancel := context.WithTimeout(background, time.Second)
				got := reading(ctx, c)
				peer.Send(fmt.Sprintf("BINARY rsv1 fin=0 x:%x", body[:cut]))
				if r := <-got; !errors.Is(r.err, context.DeadlineExceeded) {
					t.Fatal(r.err)
				}
				cancel()
				peer.Send(fmt.Sprintf("CONT x:%x", body[cut:]))
				var q []byte
				var err error
				if stream {
					var m *MessageReader
					if m, err = c.NextReader(background); err == nil {
						q, err = io.ReadAll(m)
					}
				} else {
					_, q, err = c.ReadMessage(background)
				}
				if err != nil || !bytes.Equal(q, p) {
					t.Fatalf("cut at %d of %d, stream %t: %d bytes, %v", cut, len(body), stream, len(q), err)
				}
			}
		}
	})
}
