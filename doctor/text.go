package doctor

import "unicode/utf8"

// A text checks that bytes given in any pieces are UTF-8, and stops at the
// first byte after which no continuation could be valid.
type text struct {
	seq    [4]byte // the character begun
	n      int     // bytes of it seen
	size   int     // bytes it takes
	lo, hi byte    // range of its next byte
}

// write checks the next bytes and returns the index of the first bad one, or
// -1. After a bad byte, char holds the sequence that it ended.
func (t *text) write(p []byte) int {
	i := 0
	for t.n > 0 && i < len(p) {
		if !t.next(p[i]) {
			return i
		}
		i++
	}
	// Whole characters are checked in bulk; the exact byte matters only if
	// something is wrong.
	if whole := len(p) - cutTail(p[i:]); whole > i && utf8.Valid(p[i:whole]) {
		i = whole
	}
	for ; i < len(p); i++ {
		if !t.next(p[i]) {
			return i
		}
	}
	return -1
}

// cutTail is how many bytes at the end of p begin a character that p does not
// finish.
func cutTail(p []byte) int {
	for back := 1; back <= 3 && back <= len(p); back++ {
		switch c := p[len(p)-back]; {
		case c >= 0xf0 && back < 4, c >= 0xe0 && c < 0xf0 && back < 3, c >= 0xc0 && c < 0xe0 && back < 2:
			return back
		case c < 0x80 || c >= 0xc0:
			return 0
		}
	}
	return 0
}

// next takes one byte. RFC 3629, 4 lists what may follow what.
func (t *text) next(c byte) bool {
	if t.n == 0 {
		if c < 0x80 {
			return true
		}
		t.seq[0], t.n = c, 1
		t.lo, t.hi = 0x80, 0xbf
		switch {
		case c >= 0xc2 && c <= 0xdf:
			t.size = 2
		case c == 0xe0:
			t.size, t.lo = 3, 0xa0 // shorter forms exist below
		case c == 0xed:
			t.size, t.hi = 3, 0x9f // surrogates above
		case c >= 0xe1 && c <= 0xef:
			t.size = 3
		case c == 0xf0:
			t.size, t.lo = 4, 0x90 // shorter forms exist below
		case c == 0xf4:
			t.size, t.hi = 4, 0x8f // above U+10FFFF
		case c >= 0xf1 && c <= 0xf3:
			t.size = 4
		default:
			return false
		}
		return true
	}
	t.seq[t.n] = c
	t.n++
	if c < t.lo || c > t.hi {
		return false
	}
	t.lo, t.hi = 0x80, 0xbf
	if t.n == t.size {
		t.n = 0
	}
	return true
}

// char returns the bytes of the character that is unfinished or was refused.
func (t *text) char() []byte { return t.seq[:t.n] }

// open reports whether a character is unfinished.
func (t *text) open() bool { return t.n > 0 }
