package doctor

import (
	"bytes"
	"compress/flate"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

// inflateAll runs one message through an inflater in pieces of a given size.
func inflateAll(p []byte, size int) (out []byte, f *inflateFault) {
	z := newInflater(15, true, 0, func(b []byte) { out = append(out, b...) })
	z.begin()
	for len(p) > 0 && f == nil {
		n := min(size, len(p))
		f = z.write(p[:n])
		p = p[n:]
	}
	if f == nil {
		f = z.end()
	}
	return out, f
}

// standard is what the standard library makes of a message: RFC 7692, 7.2.2
// appends 00 00 ff ff, and an empty last block makes the decoder stop there.
func standard(p []byte) ([]byte, error) {
	return io.ReadAll(flate.NewReader(io.MultiReader(bytes.NewReader(p), strings.NewReader("\x00\x00\xff\xff\x01\x00\x00\xff\xff"))))
}

// TestInflateAgainstStandardLibrary: what the standard library compresses, at
// every level, comes back whatever the pieces.
func TestInflateAgainstStandardLibrary(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 300 {
		var p []byte
		for n := rng.IntN(5000 * (i%7 + 1)); len(p) < n; {
			switch rng.IntN(3) {
			case 0:
				p = append(p, byte(rng.Uint32()))
			case 1:
				p = append(p, "the same words again and again "[:rng.IntN(31)]...)
			case 2:
				if len(p) > 0 {
					from := rng.IntN(len(p))
					p = append(p, p[from:from+rng.IntN(min(len(p)-from, 300)+1)]...)
				}
			}
		}
		var b bytes.Buffer
		w, err := flate.NewWriter(&b, i%12-2)
		if err != nil {
			t.Fatal(err)
		}
		w.Write(p)
		w.Flush()
		if i%5 == 0 {
			w.Close() // a block with BFINAL, and then the one that 7.2.1 wants
			b.WriteByte(0)
		}
		in := bytes.TrimSuffix(b.Bytes(), []byte{0, 0, 0xff, 0xff})
		for _, size := range []int{1 << 20, 1, 3, 100} {
			out, f := inflateAll(in, size)
			if f != nil || !bytes.Equal(out, p) {
				t.Fatalf("message %d in pieces of %d: %d bytes of %d, fault %+v", i, size, len(out), len(p), f)
			}
		}
	}
}

// FuzzInflate: never panics, cuts do not matter, and what the standard library
// takes for valid gives the same bytes.
func FuzzInflate(f *testing.F) {
	for _, s := range []string{
		"\xf2\x48\xcd\xc9\xc9\x07\x00", "\x00", "", "\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00",
		"\xf3\x48\xcd\xc9\xc9\x07\x00\x00", "\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00", "\x07", "\x06", "\x02",
		"\x04\xc1\x81\x08\x00\x00\x00\x00\x20\x7f\xeb\x0b\x00\x00",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		whole, wf := inflateAll(p, 1<<20)
		for _, size := range []int{1, 7} {
			out, of := inflateAll(p, size)
			if !bytes.Equal(out, whole) || (of == nil) != (wf == nil) || of != nil && *of != *wf {
				t.Fatalf("pieces of %d: %x, %+v; whole: %x, %+v", size, out, of, whole, wf)
			}
		}
		want, err := standard(p)
		var corrupt flate.CorruptInputError
		switch {
		case errors.As(err, &corrupt) && wf == nil:
			// The standard library stops at BFINAL and then finds no more to say;
			// an error of its own means that ours must see one too, unless the
			// payload ended exactly behind a block, which every decoder forgives.
			z := newInflater(15, true, 0, func([]byte) {})
			z.begin()
			if z.write(p); z.state != blockHeader {
				t.Fatalf("accepted %x, the standard library says %v", p, err)
			}
		case err == nil && wf != nil && wf.rule == "DF-10" && !strings.Contains(wf.detail, "ends inside") && !bytes.HasPrefix(whole, want):
			t.Fatalf("refused %x (%+v), the standard library inflates it to %x", p, wf, want)
		case err == nil && wf == nil && !bytes.HasPrefix(whole, want):
			t.Fatalf("inflated %x to %x, the standard library to %x", p, whole, want)
		}
	})
}

// TestInflateFaults: each way to be malformed has words of its own.
func TestInflateFaults(t *testing.T) {
	for _, c := range []struct {
		what, in, rule, detail string
	}{
		{"block type 3", "\x06", "DF-10", "block type 3"},
		{"stored lengths", "\x00\x01\x00\x00\x00", "DF-10", "disagree"},
		{"stored, cut", "\x00\x05\x00\xfa\xffHe", "DF-10", "ends inside a block"},
		{"half the tail left on", "\xf2\x48\xcd\xc9\xc9\x07\x00\x00\x00", "DF-10", "ends inside a block"},
		{"tail left on", "\xf2\x48\xcd\xc9\xc9\x07\x00\x00\x00\xff\xff", "DF-13", "00 00 ff ff included"},
		{"reference before the beginning", "\x02\x01", "DF-10", "only 0 bytes came before"},
		{"too many lengths", "\xfc\xff\xff", "DF-10", "claims"},
		{"ends in a match", "\x4b", "DF-10", "ends inside a block"},
	} {
		_, f := inflateAll([]byte(c.in), 1<<20)
		if f == nil || f.rule != c.rule || !strings.Contains(f.detail, c.detail) {
			t.Errorf("%s: got %+v, want %s with %q", c.what, f, c.rule, c.detail)
		}
	}
	for _, ok := range []string{"", "\x00", "\x01", "\xf3\x48\xcd\xc9\xc9\x07\x00"} {
		if _, f := inflateAll([]byte(ok), 1); f != nil {
			t.Errorf("%x: %+v", ok, f)
		}
	}
}

// TestHuffmanCodes: sets of code lengths that are no code, or leave codes
// unused, are refused.
func TestHuffmanCodes(t *testing.T) {
	for _, c := range []struct {
		lens    []uint8
		mayLack bool
		ok      bool
	}{
		{[]uint8{1, 1}, false, true},
		{[]uint8{1, 2, 2}, false, true},
		{[]uint8{1, 1, 1}, true, false},
		{[]uint8{2, 2, 2}, true, false},
		{[]uint8{0, 0}, false, false},
		{[]uint8{0, 0}, true, true},
		{[]uint8{1, 0}, true, true},
		{[]uint8{1, 0}, false, false},
		{[]uint8{2, 0}, true, false},
	} {
		var h huffman
		if got := h.build(c.lens, c.mayLack); got != c.ok {
			t.Errorf("%v (may lack: %v): %v, want %v", c.lens, c.mayLack, got, c.ok)
		}
	}
}

// dynamic makes a block with its own codes from bit strings, lowest bit first.
func dynamic(fields ...[2]int) []byte {
	var out []byte
	acc, n := 0, 0
	for _, f := range append([][2]int{{0, 1}, {2, 2}}, fields...) {
		acc |= f[0] << n
		n += f[1]
		for n >= 8 {
			out = append(out, byte(acc))
			acc, n = acc>>8, n-8
		}
	}
	return append(out, byte(acc))
}

func TestInflateTables(t *testing.T) {
	// The first three of the 19 code lengths are for 16, 17 and 18, the fourth
	// for 0; the eighteenth for 1.
	sizes := func(nlit, ndist int) [][2]int { return [][2]int{{nlit - 257, 5}, {ndist - 1, 5}, {18 - 4, 4}} }
	lens := func(pairs map[int]int) (out [][2]int) {
		for i := range 18 {
			out = append(out, [2]int{pairs[i], 3})
		}
		return out
	}
	join := func(parts ...[][2]int) (out [][2]int) {
		for _, p := range parts {
			out = append(out, p...)
		}
		return out
	}
	for _, c := range []struct {
		what   string
		fields [][2]int
		want   string
	}{
		{"no code lengths", join(sizes(257, 1), lens(nil)), "code of the code lengths"},
		{"repeat of nothing", join(sizes(257, 1), lens(map[int]int{0: 1, 17: 1}), [][2]int{{1, 1}, {0, 2}}), "repeated before there is one"},
		// Symbols 1 (code 0) and 18 (code 1): 138 zeros twice are more than 258.
		{"too many", join(sizes(257, 1), lens(map[int]int{2: 1, 17: 1}), [][2]int{{1, 1}, {127, 7}, {1, 1}, {127, 7}}), "more code lengths than announced"},
		// 138 + 119 zeros leave the last length of the literals, that of 256, zero.
		{"no end of block", join(sizes(257, 1), lens(map[int]int{2: 1, 17: 1}), [][2]int{{1, 1}, {127, 7}, {1, 1}, {108, 7}, {0, 1}}), "no code for its end"},
		// Four symbols of length 1.
		{"literals", join(sizes(257, 1), lens(map[int]int{2: 1, 17: 1}),
			[][2]int{{0, 1}, {0, 1}, {1, 1}, {127, 7}, {1, 1}, {105, 7}, {0, 1}, {0, 1}}), "code of the literals"},
		// 256 zeros, one length for 256, then three distances of length 1.
		{"distances", join(sizes(257, 3), lens(map[int]int{2: 1, 17: 1}),
			[][2]int{{1, 1}, {127, 7}, {1, 1}, {107, 7}, {0, 1}, {0, 1}, {0, 1}, {0, 1}}), "code of the distances"},
		// Only the end of block has a code, 0; the data begin with 1.
		{"no such symbol", join(sizes(257, 1), lens(map[int]int{2: 1, 17: 1}),
			[][2]int{{1, 1}, {127, 7}, {1, 1}, {107, 7}, {0, 1}, {0, 1}, {0x7fff, 15}}), "no symbol has this code"},
	} {
		_, f := inflateAll(dynamic(c.fields...), 1)
		if f == nil || f.rule != "DF-10" || !strings.Contains(f.detail, c.want) {
			t.Errorf("%s: got %+v, want %q", c.what, f, c.want)
		}
	}
}
