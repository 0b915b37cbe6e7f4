package wire

import (
	"bytes"
	"fmt"
	"testing"
	"unicode/utf8"
)

// edges are the first and last byte of every range that the syntax of UTF-8
// tells apart.
var edges = []byte{
	0x00, 0x7F,
	0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF,
	0xC0, 0xC1, 0xC2, 0xDF,
	0xE0, 0xE1, 0xEC, 0xED, 0xEE, 0xEF,
	0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFF,
}

// firstHopeless returns the index of the first byte of p after which no valid
// text is possible any more, or -1. It asks unicode/utf8 alone.
func firstHopeless(p []byte) int {
	for i := 0; i < len(p); {
		r, size := utf8.DecodeRune(p[i:])
		if r != utf8.RuneError || size != 1 {
			i += size
			continue
		}
		for n := i + 1; n <= len(p); n++ {
			if utf8.FullRune(p[i:n]) { // whole, or as much of it as can be wrong
				return n - 1
			}
		}
		return -1 // cut off
	}
	return -1
}

// vectors returns the levels that have kernels.
func vectors() []level { return levels()[1:] }

func checkUTF8(t *testing.T, l level, p []byte, want bool) {
	t.Helper()
	if got := validUTF8(l, p); got != want {
		t.Fatalf("%v: %d bytes valid: %v, want %v, with %d the first hopeless; they begin %x",
			l, len(p), got, want, firstHopeless(p), p[:min(len(p), 400)])
	}
}

// TestUTF8FourBytes puts all sequences of four bytes from the edges where
// vectors and words begin and end.
func TestUTF8FourBytes(t *testing.T) {
	// In 100 bytes a vector begins at 3, 35 or 67, and the last one at 36, 68 or
	// 84.
	places := []int{0, 33, 65, 82, 96}
	buf := bytes.Repeat([]byte{'a'}, 100)
	short := make([]byte, 4)
	for _, a := range edges {
		for _, b := range edges {
			for _, c := range edges {
				for _, d := range edges {
					copy(short, []byte{a, b, c, d})
					want := utf8.Valid(short)
					checkUTF8(t, plain, short, want)
					// It means the same at the end of a text and before ASCII.
					for _, at := range places {
						copy(buf[at:], short)
						for _, l := range vectors() {
							checkUTF8(t, l, buf, want)
						}
						copy(buf[at:], "aaaa")
					}
				}
			}
		}
	}
}

// TestUTF8EveryPair goes through all pairs of bytes, with none to two
// continuation bytes after them: what a first byte allows does not depend on
// more than that.
func TestUTF8EveryPair(t *testing.T) {
	buf := bytes.Repeat([]byte{'a'}, 80)
	for pair := range 1 << 16 {
		for more := range 3 {
			p := append(buf[:33], byte(pair>>8), byte(pair))
			p = append(p, "\x80\xbf"[:more]...)
			want := utf8.Valid(p[33:])
			checkUTF8(t, plain, p[33:], want)
			for _, l := range vectors() {
				checkUTF8(t, l, buf, want)
			}
			copy(buf[33:], "aaaa")
		}
	}
}

// TestUTF8EveryCodePoint: all that Unicode has are valid, and the surrogates
// are not.
func TestUTF8EveryCodePoint(t *testing.T) {
	var all []byte
	buf := bytes.Repeat([]byte{'a'}, 80)
	for r := rune(0); r <= utf8.MaxRune; r++ {
		enc := []byte{0xE0 | byte(r>>12), 0x80 | byte(r>>6)&0x3F, 0x80 | byte(r)&0x3F} // what a surrogate would be
		surrogate := r >= 0xD800 && r <= 0xDFFF
		if !surrogate {
			enc = utf8.AppendRune(enc[:0], r)
			all = append(all, enc...)
		}
		checkUTF8(t, plain, enc, !surrogate)
		copy(buf[33:], enc)
		for _, l := range vectors() {
			checkUTF8(t, l, buf, !surrogate)
		}
		copy(buf[33:], "aaaa")
	}
	checkUTF8(t, plain, all, true)
	for _, l := range vectors() {
		for i := range 4 {
			checkUTF8(t, l, append([]byte("aaa")[:i], all...), true)
		}
	}
}

// texts are of several scripts, long enough for every path of the kernels.
func texts() map[string][]byte {
	fill := func(n int, pieces ...string) []byte {
		var p []byte
		for x := uint32(1); len(p) < n; {
			x = x*1664525 + 1013904223
			p = append(p, pieces[int(x>>16)%len(pieces)]...)
		}
		return p
	}
	return map[string][]byte{
		"ascii":  fill(700, "a", "Z", " ", "\n", "\x00", "\x7f"),
		"sparse": fill(700, fmt.Sprintf("%0150d", 1), "é", "€"),
		"greek":  fill(700, "α", "ω", "ß", " "),
		"cjk":    fill(700, "中", "文", "字", "가", "힣"),
		"emoji":  fill(700, "😀", "🎉", "\U0010ffff"),
		"mixed":  fill(700, "a", "é", "中", "😀", "\U00010000", "\ufffd", "ࠀ", "\ud7ff", "\ue000"),
	}
}

// TestUTF8EveryByteAnywhere replaces each byte of each text by every edge.
func TestUTF8EveryByteAnywhere(t *testing.T) {
	for name, p := range texts() {
		t.Run(name, func(t *testing.T) {
			if !utf8.Valid(p) {
				t.Fatal("the text itself is not valid")
			}
			p = p[:400-PartialUTF8(p[:400])]
			for i, was := range p {
				for _, b := range edges {
					p[i] = b
					want := utf8.Valid(p)
					for _, l := range levels() {
						checkUTF8(t, l, p, want)
					}
				}
				p[i] = was
			}
		})
	}
}

// TestUTF8EveryLengthAndAlignment cuts each text at every length: mostly
// between characters of it, often within one.
func TestUTF8EveryLengthAndAlignment(t *testing.T) {
	for name, text := range texts() {
		t.Run(name, func(t *testing.T) {
			buf := make([]byte, len(text)+64)
			for _, off := range []int{0, 1, 2, 3, 15, 31, 33, 61, 63} {
				p := buf[off : off+copy(buf[off:], text)]
				for n := range p {
					want := utf8.Valid(p[:n])
					for _, l := range levels() {
						checkUTF8(t, l, p[:n], want)
					}
					whole := n - PartialUTF8(p[:n])
					if !utf8.Valid(p[:whole]) || n-whole > 3 || want != (n == whole) {
						t.Fatalf("PartialUTF8(%x) = %d", p[max(0, n-8):n], n-whole)
					}
				}
			}
		})
	}
}

// TestUTF8LeadAnywhereInASCII: a lead that ASCII follows shows only with the
// byte after it, which may be the first of a vector, aligned or not.
func TestUTF8LeadAnywhereInASCII(t *testing.T) {
	buf := bytes.Repeat([]byte{'a'}, 1300+64)
	for off := range 64 {
		p := buf[off : off+1300]
		for i := range p {
			p[i] = 0xC3
			for _, l := range vectors() {
				checkUTF8(t, l, p, false)
			}
			p[i] = 'a'
		}
	}
}

// TestUTF8Long puts faults where the kernels are called again.
func TestUTF8Long(t *testing.T) {
	for _, unit := range []string{"a", "é", "中", "😀", "ab中"} {
		n := 2*pieceMax + 500
		p := bytes.Repeat([]byte(unit), n/len(unit))
		for _, l := range vectors() {
			checkUTF8(t, l, p, true)
			checkUTF8(t, l, p[:pieceMax/len(unit)*len(unit)], true)
			// A piece may end up to three bytes early, and the next one with it.
			for _, around := range []int{8, pieceMax, 2 * pieceMax, len(p) - 8} {
				for i := around - 8; i < around+8; i++ {
					for _, b := range []byte{0xFF, 0xC0, 0xF5} { // nowhere valid
						was := p[i]
						p[i] = b
						checkUTF8(t, l, p, false)
						p[i] = was
					}
				}
			}
		}
	}
}

func TestPartialUTF8(t *testing.T) {
	tests := []struct {
		text string
		want int
	}{
		{"", 0}, {"a", 0}, {"é", 0}, {"中", 0}, {"😀", 0},
		{"\xc3", 1}, {"a\xc3", 1}, {"中\xc3", 1},
		{"\xe4", 1}, {"\xe4\xb8", 2}, {"aa\xe4\xb8", 2},
		{"\xf0", 1}, {"\xf0\x9f", 2}, {"\xf0\x9f\x98", 3}, {"😀\xf0\x9f\x98", 3},
		{"\x80\x80\x80", 0}, {"\xff", 1}, // not valid anyway
	}
	for _, tt := range tests {
		if got := PartialUTF8([]byte(tt.text)); got != tt.want {
			t.Errorf("PartialUTF8(%x) = %d, want %d", tt.text, got, tt.want)
		}
	}
}

// TestUTF8State follows all sequences of four bytes from the edges.
func TestUTF8State(t *testing.T) {
	var p [4]byte
	for i := range len(edges) * len(edges) * len(edges) * len(edges) {
		for j, k := 0, i; j < len(p); j, k = j+1, k/len(edges) {
			p[j] = edges[k%len(edges)]
		}
		bad := firstHopeless(p[:])
		var s UTF8State
		for j, b := range p {
			s = s.Step(b)
			hopeless := bad >= 0 && j >= bad
			if s.Hopeless() != hopeless {
				t.Fatalf("%x hopeless: %v, want %v", p[:j+1], s.Hopeless(), hopeless)
			}
			if want := utf8.Valid(p[:j+1]); s.Complete() != want {
				t.Fatalf("%x complete: %v, want %v", p[:j+1], s.Complete(), want)
			}
		}
	}
}

func FuzzValidUTF8(f *testing.F) {
	for _, p := range texts() {
		f.Add(p, uint16(100), byte(0x80))
	}
	f.Add([]byte("\xed\xa0\x80"), uint16(0), byte(0xED))
	f.Add([]byte("a"), uint16(33), byte(0xF4))
	f.Fuzz(func(t *testing.T, p []byte, at uint16, b byte) {
		// Short inputs, repeated, fill a vector.
		p = bytes.Repeat(p, 1+200/(len(p)+1))
		if int(at) < len(p) {
			p[at] = b
		}
		want := utf8.Valid(p)
		for _, l := range levels() {
			if validUTF8(l, p) != want {
				t.Errorf("%v: %x valid: %v, want %v", l, p, !want, want)
			}
		}
	})
}

func BenchmarkValidUTF8(b *testing.B) {
	for _, kind := range []string{"ascii", "mixed", "cjk"} {
		for _, n := range []int{16, 128, 1024, 64 << 10} {
			p := bytes.Repeat(texts()[kind], n/700+1)
			p = p[:n-PartialUTF8(p[:n])]
			b.Run(fmt.Sprintf("%s/%d/stdlib", kind, n), func(b *testing.B) {
				b.SetBytes(int64(len(p)))
				for b.Loop() {
					utf8.Valid(p)
				}
			})
			for _, l := range levels() {
				b.Run(fmt.Sprintf("%s/%d/%v", kind, n, l), func(b *testing.B) {
					b.SetBytes(int64(len(p)))
					for b.Loop() {
						validUTF8(l, p)
					}
				})
			}
		}
	}
}
