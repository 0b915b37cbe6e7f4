package deflate

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"testing"

	kflate "github.com/klauspost/compress/flate"
)

// A codec does both directions of one connection.
type codec interface {
	deflate(dst, p []byte) []byte
	inflate(dst, m []byte) []byte
}

// A contender makes a codec for a new connection.
type contender struct {
	name string
	open func() codec
}

const benchMessages, benchSize = 240, 4096

// BenchmarkFresh and BenchmarkTakeover compress and inflate 4 KB of JSON, a
// different message each time, and do what an echo does: both. The contenders
// make the calls of other libraries; docs/adr/0002-inflater.md has the figures.
func BenchmarkFresh(b *testing.B) {
	run(b, false, []contender{
		ours(false, 0, 0),
		ours(false, 2, 0),
		ours(false, 4, 0),
		sharedWriter("klauspost1", newKlauspostWriter(b, 1), 0), // gws
		sharedWriter("klauspost2", newKlauspostWriter(b, 2), 0),
		stateless(0),
		{"std1", func() codec { return newStd(b, false) }}, // gorilla, coder
	})
}

func BenchmarkTakeover(b *testing.B) {
	run(b, true, []contender{
		ours(true, 0, 0),
		ours(true, 1, 0),
		ours(true, 4, 0),
		ours(true, 0, 13),
		sharedWriter("klauspost-window12", newWindowWriter(b, 12), 12), // gws as it comes
		sharedWriter("klauspost1-dict15", newKlauspostWriter(b, 1), 15),
		sharedWriter("klauspost2-dict12", newKlauspostWriter(b, 2), 12),
		sharedWriter("klauspost3-dict12", newKlauspostWriter(b, 3), 12),
		stateless(13),
		{"std1-kept", func() codec { return newStd(b, true) }}, // coder
	})
}

func run(b *testing.B, takeover bool, contenders []contender) {
	messages := corpus(1, benchMessages, benchSize)
	in := make([][]byte, len(messages))
	var buf bytes.Buffer
	zw, err := flate.NewWriter(&buf, flate.DefaultCompression)
	if err != nil {
		b.Fatal(err)
	}
	for i, p := range messages {
		buf.Reset()
		if !takeover {
			zw.Reset(&buf)
		}
		zw.Write(p)
		zw.Flush()
		in[i] = bytes.Clone(bytes.TrimSuffix(buf.Bytes(), []byte(Tail)))
	}
	for _, c := range contenders {
		for _, way := range []string{"deflate", "inflate", "echo"} {
			b.Run(c.name+"/"+way, func(b *testing.B) {
				b.SetBytes(benchSize)
				b.ReportAllocs()
				var conn codec
				var out, back []byte
				wire, i := 0, 0
				for b.Loop() {
					k := i % len(messages)
					if k == 0 { // in begins anew
						conn = c.open()
					}
					i++
					p := messages[k]
					if way != "deflate" {
						back = conn.inflate(back[:0], in[k])
						if p = back; len(p) != benchSize {
							b.Fatalf("inflated to %d bytes", len(p))
						}
					}
					if way != "inflate" {
						out = conn.deflate(out[:0], p)
						wire += len(out)
					}
				}
				if wire > 0 {
					b.ReportMetric(float64(wire)/float64(i)/benchSize, "ratio")
				}
			})
		}
	}
}

func ours(takeover bool, level, context int) contender {
	name := "weft"
	if level != 0 {
		name += fmt.Sprint(level)
	}
	if context != 0 {
		name += fmt.Sprint("-context", context)
	}
	var c weftCodec
	return contender{name, func() codec {
		c.d.Reset(15, takeover)
		c.d.SetLevel(level)
		c.d.SetContext(context)
		c.r.Reset(15, takeover)
		return &c
	}}
}

// weftCodec is a pair with room for the output, as the engine uses it.
type weftCodec struct{ pair }

func (c *weftCodec) deflate(dst, p []byte) []byte { return c.d.AppendMessage(dst, p) }

func (c *weftCodec) inflate(dst, m []byte) []byte {
	if cap(dst) < 2*benchSize {
		dst = make([]byte, 0, 2*benchSize)
	}
	n, _, done, err := c.r.Step(dst[:cap(dst)], m, true)
	if err != nil || !done {
		panic(err)
	}
	return dst[:n]
}

// sharedCodec makes the calls of a library that shares compressors between
// connections and, with takeover, keeps the last 1<<bits bytes of what was sent
// and 32 KiB of what came to load them as dictionaries.
type sharedCodec struct {
	compress     func(b *bytes.Buffer, dict, p []byte)
	r            io.ReadCloser
	mid          bytes.Buffer
	copyBuf      []byte
	bits         int
	wdict, rdict []byte
}

func newKlauspostWriter(b *testing.B, level int) *kflate.Writer {
	w, err := kflate.NewWriter(nil, level)
	if err != nil {
		b.Fatal(err)
	}
	return w
}

func newWindowWriter(b *testing.B, bits int) *kflate.Writer {
	w, err := kflate.NewWriterWindow(nil, 1<<bits)
	if err != nil {
		b.Fatal(err)
	}
	return w
}

func sharedWriter(name string, w *kflate.Writer, bits int) contender {
	return contender{name, func() codec {
		return &sharedCodec{bits: bits, r: kflate.NewReader(nil), copyBuf: make([]byte, 32<<10), compress: func(b *bytes.Buffer, dict, p []byte) {
			w.ResetDict(b, dict)
			w.Write(p)
			w.Flush()
		}}
	}}
}

func stateless(bits int) contender {
	name := "klauspost-stateless"
	if bits != 0 {
		name += fmt.Sprint("-dict", bits)
	}
	return contender{name, func() codec {
		return &sharedCodec{bits: bits, r: kflate.NewReader(nil), copyBuf: make([]byte, 32<<10), compress: func(b *bytes.Buffer, dict, p []byte) {
			kflate.StatelessDeflate(b, p, false, dict)
		}}
	}}
}

// slide keeps the last 1<<bits bytes of what went by, none for 0.
func slide(dict, p []byte, bits int) []byte {
	if bits == 0 {
		return nil
	}
	dict = append(dict, p...)
	if over := len(dict) - 1<<bits; over > 0 {
		dict = dict[:copy(dict, dict[over:])]
	}
	return dict
}

func (c *sharedCodec) deflate(dst, p []byte) []byte {
	b := bytes.NewBuffer(dst)
	c.compress(b, c.wdict, p)
	c.wdict = slide(c.wdict, p, c.bits)
	return bytes.TrimSuffix(b.Bytes(), []byte(Tail))
}

func (c *sharedCodec) inflate(dst, m []byte) []byte {
	src := bytes.NewBuffer(append(m[:len(m):len(m)], Tail+"\x01\x00\x00\xff\xff"...))
	c.r.(kflate.Resetter).Reset(src, c.rdict)
	c.mid.Reset()
	io.CopyBuffer(&c.mid, c.r, c.copyBuf)
	dst = append(dst, c.mid.Bytes()...)
	if c.bits != 0 {
		c.rdict = slide(c.rdict, dst, 15)
	}
	return dst
}

// stdCodec makes the calls of a library that keeps a compressor of the standard
// library for each connection with takeover, and shares them without.
type stdCodec struct {
	w     *flate.Writer
	b     bytes.Buffer
	r     io.ReadCloser
	keep  bool
	rdict []byte
}

func newStd(b *testing.B, keep bool) *stdCodec {
	s := &stdCodec{keep: keep, r: flate.NewReader(nil)}
	var err error
	if s.w, err = flate.NewWriter(&s.b, flate.BestSpeed); err != nil {
		b.Fatal(err)
	}
	return s
}

func (s *stdCodec) deflate(dst, p []byte) []byte {
	s.b.Reset()
	if !s.keep {
		s.w.Reset(&s.b)
	}
	s.w.Write(p)
	s.w.Flush()
	return append(dst, bytes.TrimSuffix(s.b.Bytes(), []byte(Tail))...)
}

func (s *stdCodec) inflate(dst, m []byte) []byte {
	src := bytes.NewReader(append(m[:len(m):len(m)], Tail...))
	s.r.(flate.Resetter).Reset(src, s.rdict)
	b := bytes.NewBuffer(dst)
	var buf [512]byte
	for {
		n, err := s.r.Read(buf[:])
		b.Write(buf[:n])
		if err != nil {
			break
		}
	}
	dst = b.Bytes()
	if s.keep {
		s.rdict = slide(s.rdict, dst, 15)
	}
	return dst
}
