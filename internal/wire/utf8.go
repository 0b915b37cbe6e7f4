package wire

import "encoding/binary"

// ValidUTF8 reports whether p is valid UTF-8 as a whole (RFC 3629: no overlong
// form, no surrogate, nothing beyond U+10FFFF, no character cut off). It says
// the same as unicode/utf8.Valid.
func ValidUTF8(p []byte) bool {
	return len(p) <= asciiMax && isASCII(p) || validUTF8(best, p)
}

// asciiMax is the text in bytes up to which it is worth to look for ASCII, word
// by word, before a kernel is called: short messages mostly are.
const asciiMax = 256

// isASCII reports whether p has no byte above 0x7F.
func isASCII(p []byte) bool {
	const high = 0x8080808080808080
	for len(p) >= 32 {
		if (binary.LittleEndian.Uint64(p)|binary.LittleEndian.Uint64(p[8:])|
			binary.LittleEndian.Uint64(p[16:])|binary.LittleEndian.Uint64(p[24:]))&high != 0 {
			return false
		}
		p = p[32:]
	}
	for len(p) >= 8 {
		if binary.LittleEndian.Uint64(p)&high != 0 {
			return false
		}
		p = p[8:]
	}
	for _, b := range p {
		if b >= 0x80 {
			return false
		}
	}
	return true
}

// PartialUTF8 returns how many bytes at the end of p begin a character that p
// does not finish: 0 to 3. It believes lead bytes, and so also returns more
// than 0 for a lead that nothing can follow.
func PartialUTF8(p []byte) int {
	n := len(p)
	switch {
	case n >= 1 && p[n-1] >= 0xC0: // lead of two bytes at least
		return 1
	case n >= 2 && p[n-2] >= 0xE0: // of three
		return 2
	case n >= 3 && p[n-3] >= 0xF0: // of four
		return 3
	}
	return 0
}

// A UTF8State is what the bytes of a text so far leave to expect. The zero
// value is the beginning of a text. To compare states use the methods: bits
// without meaning differ.
type UTF8State uint64

// Step returns the state after one byte more.
//
// Each entry of the table holds the next state for all states at once, six
// bits for each, and a state is the place of its six bits in every entry: a
// step is a load that depends on the byte alone, and one shift. There is
// nothing for the processor to guess, whatever the text. (The technique is Per
// Vognsen's shift-based automaton.)
func (s UTF8State) Step(b byte) UTF8State { return utf8Steps[b] >> (s & 63) }

// Complete reports whether the bytes so far end with a whole character.
func (s UTF8State) Complete() bool { return s&63 == utf8Whole }

// Hopeless reports whether no bytes could make valid UTF-8 of those so far. It
// stays so, whatever is added.
func (s UTF8State) Hopeless() bool { return s&63 == utf8Hopeless }

// The states of the automaton, each named for what is due.
const (
	utf8Whole    UTF8State = 6 * iota // a character
	utf8Hopeless                      // nothing will do
	utf8Due1                          // one byte 80..BF
	utf8Due2                          // two
	utf8Due3                          // three
	utf8AfterE0                       // A0..BF and one more
	utf8AfterED                       // 80..9F and one more
	utf8AfterF0                       // 90..BF and two more
	utf8AfterF4                       // 80..8F and two more
)

// utf8Steps is the automaton. It is built here and never changes.
var utf8Steps = func() (t [256]UTF8State) {
	for b := range t {
		for s := utf8Whole; s <= utf8AfterF4; s += 6 {
			t[b] |= utf8Next(s, byte(b)) << s
		}
	}
	return t
}()

// utf8Next is the syntax of RFC 3629 section 4, a row for each line there.
func utf8Next(s UTF8State, b byte) UTF8State {
	in := func(lo, hi byte, next UTF8State) UTF8State {
		if b < lo || b > hi {
			return utf8Hopeless
		}
		return next
	}
	switch s {
	case utf8Whole:
		switch {
		case b <= 0x7F: // UTF8-1
			return utf8Whole
		case b == 0xE0: // UTF8-3
			return utf8AfterE0
		case b == 0xED:
			return utf8AfterED
		case b == 0xF0: // UTF8-4
			return utf8AfterF0
		case b == 0xF4:
			return utf8AfterF4
		case b >= 0xF1:
			return in(0xF1, 0xF3, utf8Due3)
		case b >= 0xE1:
			return utf8Due2
		}
		return in(0xC2, 0xDF, utf8Due1) // UTF8-2
	case utf8Due1: // UTF8-tail
		return in(0x80, 0xBF, utf8Whole)
	case utf8Due2:
		return in(0x80, 0xBF, utf8Due1)
	case utf8Due3:
		return in(0x80, 0xBF, utf8Due2)
	case utf8AfterE0:
		return in(0xA0, 0xBF, utf8Due1)
	case utf8AfterED:
		return in(0x80, 0x9F, utf8Due1)
	case utf8AfterF0:
		return in(0x90, 0xBF, utf8Due2)
	case utf8AfterF4:
		return in(0x80, 0x8F, utf8Due2)
	}
	return utf8Hopeless
}

// validUTF8 is ValidUTF8 with the kernels of level l.
//
// A kernel judges each byte together with the three before it and keeps
// nothing from one vector to the next, so it may judge a byte twice. It begins
// at the fourth byte, or later, where a character begins. What comes before,
// and a character cut off at the end, are looked at here.
func validUTF8(l level, p []byte) bool {
	if l == plain || len(p) < utf8VectorMin {
		return validPlain(p)
	}
	i := 3
	if binary.LittleEndian.Uint32(p)&0x80808080 != 0 {
		s := utf8Whole
		for i = 0; i < 3 || !s.Complete(); i++ {
			if s = s.Step(p[i]); s.Hopeless() {
				return false
			}
		}
	}
	if PartialUTF8(p) != 0 {
		return false
	}
	p = p[i-3:]
	for len(p) > pieceMax+utf8VectorMin {
		whole := pieceMax - PartialUTF8(p[:pieceMax])
		if !utf8Vector(l, p[:whole]) {
			return false
		}
		p = p[whole-3:]
	}
	return utf8Vector(l, p)
}

// validPlain looks for ASCII by words of eight and takes the other bytes one
// by one.
func validPlain(p []byte) bool {
	const high = 0x8080808080808080
	if n := len(p); n >= 8 && n < 64 {
		// Short and all ASCII is what most texts are: see that first, the last
		// word lying over the one before.
		or := binary.LittleEndian.Uint64(p[n-8:])
		for q := p; len(q) >= 8; q = q[8:] {
			or |= binary.LittleEndian.Uint64(q)
		}
		if or&high == 0 {
			return true
		}
	}
	s := utf8Whole
	for len(p) >= 32 {
		q := p[:32]
		if s.Complete() && (binary.LittleEndian.Uint64(q)|binary.LittleEndian.Uint64(q[8:])|
			binary.LittleEndian.Uint64(q[16:])|binary.LittleEndian.Uint64(q[24:]))&high == 0 {
			p = p[32:]
			continue
		}
		for _, b := range q {
			s = s.Step(b)
		}
		p = p[32:]
	}
	for _, b := range p {
		s = s.Step(b)
	}
	return s.Complete()
}
