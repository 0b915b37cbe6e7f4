package doctor

import (
	"math/rand/v2"
	"testing"
	"unicode/utf8"
)

// textAll checks p in pieces of a given size; bad is the first bad byte, -1 if
// there is none, len(p) if a character is unfinished.
func textAll(p []byte, size int) (bad int) {
	var t text
	for at := 0; at < len(p); at += size {
		if i := t.write(p[at:min(at+size, len(p))]); i >= 0 {
			return at + i
		}
	}
	if t.open() {
		return len(p)
	}
	return -1
}

// hopeless is the reference: the first byte after which no bytes could make
// the text valid.
func hopeless(p []byte) int {
	// All continuations that matter: each tail byte at the edges of its range.
	tails := []string{"", "\x80", "\xbf", "\x80\x80", "\xbf\xbf", "\x80\x80\x80", "\xbf\xbf\xbf", "\x90\x80\x80", "\x9f\x80\x80", "\xa0\x80\x80"}
	for n := 1; n <= len(p); n++ {
		ok := false
		for _, tail := range tails {
			ok = ok || utf8.Valid(append(p[:n:n], tail...))
		}
		if !ok {
			return n - 1
		}
	}
	if !utf8.Valid(p) {
		return len(p)
	}
	return -1
}

// TestTextAllPrefixes walks every sequence of up to four bytes from the edges
// of all classes, in every cut.
func TestTextAllPrefixes(t *testing.T) {
	edges := []byte{0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff}
	var walk func(p []byte)
	checked := 0
	walk = func(p []byte) {
		want := hopeless(p)
		for size := 1; size <= 4; size++ {
			if got := textAll(p, size); got != want {
				t.Fatalf("% x in pieces of %d: %d, want %d", p, size, got, want)
			}
		}
		checked++
		if len(p) < 4 && want == len(p) || len(p) < 2 {
			for _, c := range edges {
				walk(append(p[:len(p):len(p)], c))
			}
		}
	}
	for _, c := range edges {
		walk([]byte{c})
	}
	if checked < 1000 {
		t.Errorf("only %d sequences were walked", checked)
	}
}

func FuzzText(f *testing.F) {
	f.Add([]byte("grüße \xf0\x9f\xa7\xb6"), uint8(1))
	f.Add([]byte("0123456789\xed\xa0\x80 and more text behind it"), uint8(5))
	f.Fuzz(func(t *testing.T, p []byte, size uint8) {
		got := textAll(p, int(size)+1)
		if (got == -1) != utf8.Valid(p) {
			t.Fatalf("%x: %d, valid is %v", p, got, utf8.Valid(p))
		}
		if whole := textAll(p, len(p)+1); whole != got {
			t.Fatalf("%x: %d in pieces of %d, %d whole", p, got, size, whole)
		}
	})
}

func BenchmarkText(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, c := range []struct {
		name string
		mean int
	}{{"ascii", 0}, {"mixed", 8}} {
		var p []byte
		for len(p) < 64<<10 {
			r := rune(' ' + rng.IntN(90))
			if c.mean > 0 && rng.IntN(c.mean) == 0 {
				r = rune(0x400 + rng.IntN(0x100))
			}
			p = utf8.AppendRune(p, r)
		}
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(p)))
			for b.Loop() {
				var t text
				if t.write(p) >= 0 {
					b.Fatal("valid text was refused")
				}
			}
		})
	}
}
