package proto

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
	"unsafe"
)

// textEdges are the first and last byte of every range that the syntax of
// UTF-8 tells apart.
var textEdges = []byte{
	0x00, 0x7F,
	0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF,
	0xC0, 0xC1, 0xC2, 0xDF,
	0xE0, 0xE1, 0xEC, 0xED, 0xEE, 0xEF,
	0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFF,
}

// firstHopeless is the reference: the index of the first byte of p after which
// no valid text is possible any more, or -1. It asks unicode/utf8, byte after
// byte.
func firstHopeless(p []byte) int {
	begin := 0 // of the character that p[i] belongs to
	for i := range p {
		char := p[begin : i+1]
		if !utf8.FullRune(char) {
			continue // it may still become one
		}
		if r, size := utf8.DecodeRune(char); r == utf8.RuneError && size == 1 {
			return i
		}
		begin = i + 1
	}
	return -1
}

// feed gives the pieces to a Text and returns the index of the first hopeless
// byte in all of them together, and whether they are complete.
func feed(pieces ...[]byte) (bad int, complete bool) {
	var t Text
	at := 0
	for _, p := range pieces {
		if i := t.Next(p); i >= 0 {
			return at + i, t.Complete()
		}
		at += len(p)
	}
	return -1, t.Complete()
}

// A verdict is what the reference says of a text.
type verdict struct {
	text     []byte
	bad      int // first hopeless byte, or -1
	complete bool
}

func judge(p []byte) verdict { return verdict{p, firstHopeless(p), utf8.Valid(p)} }

// check feeds the text cut in the given places.
func (v verdict) check(t *testing.T, cuts ...int) {
	t.Helper()
	pieces := make([][]byte, 0, 4)
	from := 0
	for _, c := range cuts {
		pieces = append(pieces, v.text[from:c])
		from = c
	}
	bad, complete := feed(append(pieces, v.text[from:])...)
	if bad != v.bad {
		t.Fatalf("%x cut at %v: first hopeless byte %d, want %d", v.text, cuts, bad, v.bad)
	}
	if complete != v.complete {
		t.Fatalf("%x cut at %v: complete %v, want %v", v.text, cuts, complete, v.complete)
	}
}

func TestTextIsSmall(t *testing.T) {
	if n := unsafe.Sizeof(Text{}); n > 16 {
		t.Errorf("a Text takes %d bytes, more than 16", n)
	}
}

// TestTextFourBytes: all sequences of one to four bytes from the edges, whole
// and byte by byte; sequences of three also in all other cuts.
func TestTextFourBytes(t *testing.T) {
	n := len(textEdges)
	p := make([]byte, 4)
	for i := range n * n * n * n {
		p[0], p[1], p[2], p[3] = textEdges[i/n/n/n], textEdges[i/n/n%n], textEdges[i/n%n], textEdges[i%n]
		v := judge(p)
		v.check(t)
		v.check(t, 1, 2, 3)
		if i%n == 0 { // each of the shorter ones once
			for length := range 3 {
				judge(p[:length]).check(t)
			}
			v = judge(p[:3])
			v.check(t)
			v.check(t, 1)
			v.check(t, 2)
			v.check(t, 1, 2)
		}
	}
}

// corpus is valid text and text with one fault each, short enough for all its
// cuts in three and long enough for more than a vector.
var corpus = func() [][]byte {
	long := strings.Repeat("Größe 中文 😀 ", 5)
	texts := [][]byte{
		nil,
		[]byte("a"),
		[]byte("\x00"),
		[]byte("é中😀"),
		[]byte(long),
		[]byte(strings.Repeat("a", 100)),
		[]byte(strings.Repeat("😀", 20)),
		[]byte("\u0080\u07ff\u0800\ud7ff\ue000\uffff\U00010000\U0010ffff\u007f"),
	}
	faults := []string{
		"\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xf5\x80\x80\x80", "\xfe", "\xff",
		"\xe0\x80\x80", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xed\xbf\xbf", "\xed\xad\xbf\xed\xbe\x80",
		"\xf0\x80\x80\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf4\xbf\xbf\xbf",
		"\xc3", "\xe4\xb8", "\xf0\x9f\x98", "\xc3a", "\xe4a", "\xe4\xb8a", "\xf0\x9fa", "\xf0\x9f\x98a",
		"\xe4é", "\xf0\x9f中", "中\x80", "é\x80", "😀\x80",
		"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80edited",
	}
	for _, f := range faults {
		texts = append(texts, []byte(f), []byte("a"+f+"b"), []byte(long+f), []byte(strings.Repeat("a", 70)+f+long))
	}
	return texts
}()

func TestTextEveryCut(t *testing.T) {
	for _, p := range corpus {
		v := judge(p)
		v.check(t)
		for i := range len(p) + 1 {
			v.check(t, i)
			for j := i; j <= len(p); j++ {
				v.check(t, i, j)
			}
		}
		every := make([]int, len(p))
		for i := range every {
			every[i] = i
		}
		v.check(t, every...)
	}
}

// TestTextFailsFast names the byte, as the peer's fault is reported.
func TestTextFailsFast(t *testing.T) {
	tests := []struct {
		name   string
		pieces []string
		want   []int // what Next returns
	}{
		{"beyond Unicode", []string{"\xf4\x90"}, []int{1}},
		{"beyond Unicode, cut", []string{"\xf4", "\x90"}, []int{-1, 0}},
		{"largest of Unicode, cut", []string{"\xf4", "\x8f", "\xbf", "\xbf"}, []int{-1, -1, -1, -1}},
		{"surrogate", []string{"abc\xed\xa0\x80"}, []int{4}},
		{"surrogate, cut", []string{"abc\xed", "\xa0"}, []int{-1, 0}},
		{"overlong of two", []string{"\xc0\xaf"}, []int{0}},
		{"overlong of three", []string{"\xe0\x9f\xbf"}, []int{1}},
		{"overlong of four", []string{"\xf0", "\x8f\xbf\xbf"}, []int{-1, 0}},
		{"five bytes", []string{"\xf8\x88\x80\x80\x80"}, []int{0}},
		{"lone continuation", []string{"ab", "\x80"}, []int{-1, 0}},
		{"ASCII inside a character", []string{"\xe4\xb8", "a"}, []int{-1, 0}},
		{"character inside a character", []string{"\xf0\x9f", "", "中"}, []int{-1, -1, 0}},
		{"hopeless for good", []string{"\xff", "abc", "", "\x80"}, []int{0, 0, -1, 0}},
	}
	for _, tt := range tests {
		var text Text
		var got []int
		for _, p := range tt.pieces {
			got = append(got, text.Next([]byte(p)))
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: Next returned %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestTextComplete(t *testing.T) {
	var text Text
	if !text.Complete() {
		t.Error("an empty message is not complete")
	}
	steps := []struct {
		piece string
		want  bool
	}{
		{"", true}, {"abc", true}, {"\xc3", false}, {"", false}, {"\xa9", true},
		{"\xf0", false}, {"\x9f", false}, {"\x98", false}, {"\x80", true}, {strings.Repeat("中", 50), true},
		{strings.Repeat("中", 50) + "\xe4\xb8", false}, {"\xad" + strings.Repeat("a", 100), true},
	}
	for _, s := range steps {
		if bad := text.Next([]byte(s.piece)); bad >= 0 {
			t.Fatalf("Next(%x) = %d", s.piece, bad)
		}
		if text.Complete() != s.want {
			t.Errorf("after %x complete: %v, want %v", s.piece, text.Complete(), s.want)
		}
	}
	text.Next([]byte("\xff"))
	if text.Complete() {
		t.Error("complete after FF")
	}
	text.Reset()
	if !text.Complete() || text.Next([]byte("é")) >= 0 {
		t.Error("Reset does not begin anew")
	}
}

func TestCutText(t *testing.T) {
	const s = "aé中😀" // 1, 2, 3 and 4 bytes: begin at 0, 1, 3, 6, end at 10
	for n, want := range []int{0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 10} {
		if got := CutText([]byte(s), n); got != want {
			t.Errorf("CutText(%q, %d) = %d, want %d", s, n, got, want)
		}
	}
	if got := CutText([]byte(s), -1); got != 0 {
		t.Errorf("CutText(%q, -1) = %d, want 0", s, got)
	}
	if got := CutText([]byte(s[:9]), 100); got != 6 {
		t.Errorf("CutText of a text cut inside its last character = %d, want 6", got)
	}
}

// TestCutTextIsLargest compares with the definition at every n of every valid
// text, and of every beginning of one.
func TestCutTextIsLargest(t *testing.T) {
	for _, whole := range corpus {
		if !utf8.Valid(whole) {
			continue
		}
		for end := range len(whole) + 1 {
			p := whole[:end]
			for n := range len(p) + 2 {
				want := min(n, len(p))
				for !utf8.Valid(p[:want]) {
					want--
				}
				if got := CutText(p, n); got != want {
					t.Fatalf("CutText(%x, %d) = %d, want %d", p, n, got, want)
				}
			}
		}
	}
}

func FuzzText(f *testing.F) {
	for _, p := range corpus {
		f.Add(p, uint16(len(p)/2), uint16(3))
	}
	f.Add([]byte("\xf4\x90\x80\x80"), uint16(1), uint16(2))
	f.Add(bytes.Repeat([]byte("中文 "), 100), uint16(64), uint16(100))
	f.Fuzz(func(t *testing.T, p []byte, a, b uint16) {
		i := min(int(a), len(p))
		j := min(i+int(b), len(p))
		v := judge(p)
		v.check(t)
		v.check(t, i)
		v.check(t, i, j)
		if v.complete {
			n := CutText(p, i)
			if n > i || i-n > 3 || !utf8.Valid(p[:n]) || !utf8.Valid(p[n:]) {
				t.Fatalf("CutText(%x, %d) = %d", p, i, n)
			}
		}
	})
}

func BenchmarkText(b *testing.B) {
	for _, unit := range []string{"a", "aé 中b😀"} {
		for _, n := range []int{1, 128, 64 << 10} {
			p := bytes.Repeat([]byte(unit), n/len(unit)+1)
			p = p[:CutText(p, n)]
			b.Run(fmt.Sprintf("%q/%d", unit, n), func(b *testing.B) {
				b.SetBytes(int64(len(p)))
				var t Text
				for b.Loop() {
					t.Next(p)
				}
			})
		}
	}
}
