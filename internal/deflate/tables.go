package deflate

import (
	"math/bits"
	"strings"
	"sync"
	"unsafe"
)

// Numbers of RFC 1951, 3.2.5 to 3.2.7.
const (
	endOfBlock    = 256
	litLenMax     = 286 // literal/length symbols that may be used
	distMax       = 30  // distance symbols that may be used
	codeLenSyms   = 19
	codeBitsMax   = 15
	codeLenBits   = 7
	matchLenMax   = 258
	litLenMaxAll  = 288 // with the two that only take part in the fixed code
	distMaxAll    = 32
	storedLenMax  = 65535
	lengthSymBase = 257
)

// A table entry says what the next bits mean:
//
//	bits 0..7   all bits the symbol takes: code and extra bits
//	bits 8..11  bits of the code alone
//	bits 12..15 kind
//	bits 16..31 literal, base of a length or distance, or start of a subtable
//
// Zero is a code that the block did not define.
type entry uint32

const (
	kindLiteral  entry = 1 << 12
	kindBase     entry = 2 << 12 // a length or a distance with extra bits
	kindEnd      entry = 4 << 12
	kindSubtable entry = 8 << 12
	// kindBad marks symbols that RFC 1951 gives a code but no meaning: 286 and 287
	// in the fixed literal/length code, 30 and 31 in the fixed distance code.
	kindBad = kindEnd | kindSubtable
)

func (e entry) total() uint    { return uint(e & 0xff) }
func (e entry) codeBits() uint { return uint(e>>8) & 15 }
func (e entry) value() int     { return int(e >> 16) }

// Sizes of the first table, and room for all subtables. A complete code of at
// most 15 bits needs no more than 1,334 entries behind 10 bits for 288 symbols,
// and 402 behind 8 bits for 32 symbols (the bounds of zlib's enough.c); the
// arrays are powers of two so that a masked index needs no bounds check.
const (
	litBits   = 10
	distBits  = 8
	litRoom   = 2048
	distRoom  = 512
	lenBits   = codeLenBits
	lenRoom   = 1 << lenBits
	lenRepeat = 16 // first of the three code length symbols that repeat
)

type (
	litTable  [litRoom]entry
	distTable [distRoom]entry
)

// tables is what a dynamic block needs while it is read. It is taken from a pool
// when such a block begins and given back when its message ends.
type tables struct {
	lit  litTable
	dist distTable
	lens [litLenMaxAll + distMaxAll]uint8 // code lengths while they are read
	pre  [lenRoom]entry                   // the code of the code lengths
	// Symbols by the length of their codes, while a table is built: here and not
	// in build, whose caller is a connection's goroutine with a small stack.
	sorted [litLenMaxAll]uint16
}

const tablesSize = int(unsafe.Sizeof(tables{}))

var tablesPool = sync.Pool{New: func() any { return new(tables) }}

// What each symbol means, without its code.
var (
	litMeaning  = litMeanings()
	distMeaning = distMeanings()
	lenMeaning  = lenMeanings()

	fixedLit, fixedDist = fixedTables()
)

func litMeanings() (m [litLenMaxAll]entry) {
	for i := range endOfBlock {
		m[i] = kindLiteral | entry(i)<<16
	}
	m[endOfBlock] = kindEnd
	base := 3
	for i := range 29 {
		extra := max(0, i/4-1)
		if i == 28 {
			base, extra = matchLenMax, 0
		}
		m[lengthSymBase+i] = kindBase | entry(base)<<16 | entry(extra)
		base += 1 << extra
	}
	m[286], m[287] = kindBad, kindBad
	return m
}

func distMeanings() (m [distMaxAll]entry) {
	base := 1
	for i := range distMax {
		extra := max(0, i/2-1)
		m[i] = kindBase | entry(base)<<16 | entry(extra)
		base += 1 << extra
	}
	m[30], m[31] = kindBad, kindBad
	return m
}

func lenMeanings() (m [codeLenSyms]entry) {
	for i := range m {
		m[i] = kindLiteral | entry(i)<<16
	}
	m[16] += 2 // extra bits
	m[17] += 3
	m[18] += 7
	return m
}

// Code lengths of the fixed codes of RFC 1951, 3.2.6.
var (
	fixedLitLens  = fixedLens()
	fixedDistLens = [distMaxAll]uint8([]byte(strings.Repeat("\x05", distMaxAll)))
)

func fixedLens() (lens [litLenMaxAll]uint8) {
	for i := range lens {
		switch {
		case i < 144:
			lens[i] = 8
		case i < 256:
			lens[i] = 9
		case i < 280:
			lens[i] = 7
		default:
			lens[i] = 8
		}
	}
	return lens
}

func fixedTables() (*litTable, *distTable) {
	var lit litTable
	var dist distTable
	t := new(tables)
	t.build(lit[:], litBits, fixedLitLens[:], litMeaning[:])
	t.build(dist[:], distBits, fixedDistLens[:], distMeaning[:])
	return &lit, &dist
}

// build fills table, whose first part has 1<<rootBits entries, with the
// canonical Huffman code of the given lengths (RFC 1951, 3.2.2). It reports
// whether the lengths make a code: complete, or a single code of one bit, or
// none at all, which is what the reference implementation accepts.
func (t *tables) build(table []entry, rootBits int, lens []uint8, meaning []entry) bool {
	var count [codeBitsMax + 1]uint16
	for _, l := range lens {
		count[l&15]++
	}
	var offset [codeBitsMax + 2]uint16
	space, longest := 1, 0 // codes of the current length that are still free
	for l := 1; l <= codeBitsMax; l++ {
		space = space<<1 - int(count[l])
		if space < 0 {
			return false // more codes than bits can tell apart
		}
		if count[l] != 0 {
			longest = l
		}
		offset[l+1] = offset[l] + count[l]
	}
	if space > 0 {
		if longest > 1 {
			return false // some bits mean nothing
		}
		clear(table[:1<<rootBits])
	}
	for sym, l := range lens {
		if l != 0 {
			t.sorted[offset[l]] = uint16(sym)
			offset[l]++
		}
	}
	t.fill(table, rootBits, longest, &count, meaning)
	return true
}

// fill writes the entries in the order of their codes. Deflate packs codes
// from their first bit into the low bits of the stream, so an index is the code
// reversed, and a code of l bits fills every 1<<l-th entry. Instead of writing
// those one by one the table is built at the size of the shortest code and
// doubled, by copying, whenever the codes get longer.
func (t *tables) fill(table []entry, rootBits, longest int, count *[codeBitsMax + 1]uint16, meaning []entry) {
	code := uint(0) // reversed
	next := 0       // in sorted
	size := 1       // entries of the first table that are up to date
	for l := 1; l <= min(longest, rootBits); l++ {
		copy(table[size:2*size], table[:size])
		size *= 2
		for range count[l] {
			table[code] = withCode(meaning[t.sorted[next]], l)
			next++
			code = nextCode(code, l)
		}
	}
	for ; size < 1<<rootBits; size *= 2 {
		copy(table[size:2*size], table[:size])
	}
	end := 1 << rootBits // first free entry
	prefix := -1         // the first rootBits bits of the current subtable's codes
	sub, subBits := 0, 0 // its start and size
	for l := rootBits + 1; l <= longest; l++ {
		for left := int(count[l]); left > 0; left-- {
			if p := int(code & (1<<rootBits - 1)); p != prefix {
				// As many bits as the codes with this prefix turn out to need.
				prefix, subBits = p, l-rootBits
				for room := 1<<subBits - left; room > 0 && rootBits+subBits < longest; {
					subBits++
					room = room<<1 - int(count[rootBits+subBits])
				}
				sub, end = end, end+1<<subBits
				table[p] = kindSubtable | entry(sub)<<16 | entry(rootBits)<<8 | entry(subBits)
			}
			e := withCode(meaning[t.sorted[next]], l)
			next++
			for i := int(code >> rootBits); i < 1<<subBits; i += 1 << (l - rootBits) {
				table[sub+i] = e
			}
			code = nextCode(code, l)
		}
	}
}

func withCode(meaning entry, l int) entry {
	return meaning + entry(l)<<8 + entry(l)
}

// nextCode adds one to a code of l bits whose first bit is the lowest.
func nextCode(code uint, l int) uint {
	// Adding from the far end: clear the ones at the top, set the zero below them.
	free := ^code & (1<<l - 1)
	if free == 0 {
		return 0 // it was the last code there can be
	}
	top := uint(1) << (bits.Len(free) - 1)
	return code&(top-1) | top
}
