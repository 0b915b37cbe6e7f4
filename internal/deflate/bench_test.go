package deflate

import (
	"bytes"
	"compress/flate"
	"io"
	"testing"

	kflate "github.com/klauspost/compress/flate"
)

// A codec is one way to do both directions of one connection.
type codec interface {
	deflate(dst, p []byte) []byte
	inflate(dst, m []byte) []byte
}

const benchMessages, benchSize = 240, 4096

func benchCodec(b *testing.B, takeover bool, fresh func() codec) {
	messages := corpus(1, benchMessages, benchSize)
	in := make([][]byte, len(messages))
	var zw *flate.Writer
	var buf bytes.Buffer
	for i, p := range messages {
		if zw == nil || !takeover {
			zw, _ = flate.NewWriter(&buf, 6)
		}
		zw.Write(p)
		zw.Flush()
		in[i] = bytes.Clone(bytes.TrimSuffix(buf.Bytes(), []byte(Tail)))
		buf.Reset()
	}
	for _, way := range []string{"deflate", "inflate", "echo"} {
		b.Run(way, func(b *testing.B) {
			b.SetBytes(benchSize)
			b.ReportAllocs()
			var c codec
			var out, back []byte
			wire := 0
			i := 0
			for b.Loop() {
				k := i % len(messages)
				if k == 0 {
					c = fresh()
				}
				i++
				p := messages[k]
				if way != "deflate" {
					back = c.inflate(back[:0], in[k])
					if len(back) != benchSize {
						b.Fatalf("inflated to %d bytes", len(back))
					}
					p = back
				}
				if way != "inflate" {
					out = c.deflate(out[:0], p)
					wire += len(out)
				}
			}
			if wire > 0 {
				b.ReportMetric(float64(wire)/float64(i)/benchSize, "ratio")
			}
		})
	}
}

func BenchmarkFresh(b *testing.B) {
	b.Run("weft", func(b *testing.B) { benchCodec(b, false, func() codec { return newOurs(false, 15) }) })
	b.Run("klauspost1", func(b *testing.B) { benchCodec(b, false, func() codec { return newKlauspost(1, 0) }) })
	b.Run("std1", func(b *testing.B) { benchCodec(b, false, func() codec { return newStd(false) }) })
}

func BenchmarkTakeover(b *testing.B) {
	b.Run("weft", func(b *testing.B) { benchCodec(b, true, func() codec { return newOurs(true, 15) }) })
	b.Run("klauspost-window12", func(b *testing.B) { benchCodec(b, true, func() codec { return newKlauspost(1, 12) }) })
	b.Run("klauspost1-dict15", func(b *testing.B) { benchCodec(b, true, func() codec { return newKlauspost(1, 15) }) })
	b.Run("std1-kept", func(b *testing.B) { benchCodec(b, true, func() codec { return newStd(true) }) })
}

type ours struct {
	d Deflater
	r Inflater
}

func newOurs(takeover bool, bits int) *ours {
	o := new(ours)
	o.d.Reset(bits, takeover)
	o.r.Reset(15, takeover)
	return o
}

func (o *ours) deflate(dst, p []byte) []byte { return o.d.AppendMessage(dst, p) }

func (o *ours) inflate(dst, m []byte) []byte {
	if cap(dst) < 2*benchSize {
		dst = make([]byte, 0, 2*benchSize)
	}
	n, _, done, err := o.r.Step(dst[:cap(dst)], m, true)
	if err != nil || !done {
		panic(err)
	}
	return dst[:n]
}

// klauspost makes the calls of a library that shares writers between
// connections and, with takeover, keeps the last 1<<bits bytes of each direction
// to load them as a dictionary.
type klauspost struct {
	w            *kflate.Writer
	r            io.ReadCloser
	mid          bytes.Buffer
	copyBuf      []byte
	bits         int
	wdict, rdict []byte
}

var klauspostWriters = map[int]*kflate.Writer{}

func newKlauspost(level, bits int) *klauspost {
	k := &klauspost{bits: bits, r: kflate.NewReader(nil), copyBuf: make([]byte, 32<<10)}
	k.w = klauspostWriters[bits]
	if k.w == nil {
		if bits == 0 || bits == 15 {
			k.w, _ = kflate.NewWriter(nil, level)
		} else {
			k.w, _ = kflate.NewWriterWindow(nil, 1<<bits)
		}
		klauspostWriters[bits] = k.w
	}
	return k
}

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

func (k *klauspost) deflate(dst, p []byte) []byte {
	b := bytes.NewBuffer(dst)
	k.w.ResetDict(b, k.wdict)
	k.w.Write(p)
	k.w.Flush()
	k.wdict = slide(k.wdict, p, k.bits)
	return bytes.TrimSuffix(b.Bytes(), []byte(Tail))
}

func (k *klauspost) inflate(dst, m []byte) []byte {
	src := bytes.NewBuffer(append(m[:len(m):len(m)], Tail+"\x01\x00\x00\xff\xff"...))
	k.r.(kflate.Resetter).Reset(src, k.rdict)
	k.mid.Reset()
	io.CopyBuffer(&k.mid, k.r, k.copyBuf)
	dst = append(dst, k.mid.Bytes()...)
	if k.bits != 0 {
		k.rdict = slide(k.rdict, dst, 15)
	}
	return dst
}

// std makes the calls of a library that keeps one writer of the standard
// library's fastest level per connection with takeover, and shares one without.
type std struct {
	w     *flate.Writer
	b     bytes.Buffer
	r     io.ReadCloser
	keep  bool
	rdict []byte
}

func newStd(keep bool) *std {
	s := &std{keep: keep, r: flate.NewReader(nil)}
	s.w, _ = flate.NewWriter(&s.b, flate.BestSpeed)
	return s
}

func (s *std) deflate(dst, p []byte) []byte {
	s.b.Reset()
	if !s.keep {
		s.w.Reset(&s.b)
	}
	s.w.Write(p)
	s.w.Flush()
	return append(dst, bytes.TrimSuffix(s.b.Bytes(), []byte(Tail))...)
}

func (s *std) inflate(dst, m []byte) []byte {
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
