package doctor

import (
	"fmt"
	"math/bits"
)

// An inflater decodes one direction's compressed messages (RFC 1951 as RFC
// 7692 uses it), fed in pieces of any size. Unlike a general decoder it knows
// where each message began, so it can tell how far back a reference reaches.
//
// RFC 7692, 7.2.1: a sender ends a message at a byte boundary with an empty
// stored block and takes off its last four bytes, 00 00 ff ff. So a payload
// ends just behind the three header bits of that block.
type inflater struct {
	windowSize int    // agreed window, in bytes
	takeover   bool   // messages may refer to earlier ones
	max        uint64 // stop when a message gets longer; 0: never
	out        func([]byte)

	window  []byte // ring of the last windowSize bytes
	pos     int    // where the next byte goes
	flushed int    // window[flushed:pos] has not been given to out
	total   uint64 // bytes of all messages
	message uint64 // bytes of this message

	in    []byte
	acc   uint64 // bits not used yet, lowest first
	nacc  uint
	state inflateState
	final bool // the current block is the last of its stream
	empty bool // the last block was stored and empty

	left        int // stored bytes to come, or bytes of a match
	dist        int
	nlit, ndist int
	nclen, have int
	lens        [320]uint8
	lit, dst    huffman
	clen        huffman
	plit, pdst  *huffman // tables in use
	sym         int
}

type inflateState uint8

const (
	blockHeader inflateState = iota
	storedLength
	storedBytes
	tableSizes
	codeLengths
	tableLengths
	symbol
	lengthExtra
	distance
	distanceExtra
)

// An inflateFault says why a message cannot be inflated.
type inflateFault struct {
	rule   string // "" where only the limit was reached
	detail string
}

func invalid(format string, args ...any) *inflateFault {
	return &inflateFault{"DF-10", fmt.Sprintf(format, args...)}
}

func newInflater(windowBits int, takeover bool, max uint64, out func([]byte)) *inflater {
	return &inflater{windowSize: 1 << windowBits, takeover: takeover, max: max, out: out, window: make([]byte, 1<<windowBits)}
}

// begin starts a message.
func (z *inflater) begin() {
	z.message, z.state, z.acc, z.nacc, z.final, z.empty = 0, blockHeader, 0, 0, false, false
}

// write inflates the next bytes of the message.
func (z *inflater) write(p []byte) *inflateFault {
	z.in = p
	f := z.run()
	z.flush()
	z.in = nil
	return f
}

// end judges where the payload of the message ended.
func (z *inflater) end() *inflateFault {
	switch {
	case z.state == storedLength && z.nacc == 0:
		return nil
	case z.state == blockHeader && z.empty && z.nacc == 0:
		return &inflateFault{"DF-13", "the message ends with a whole empty block, 00 00 ff ff included"}
	case z.state == blockHeader:
		// Ended exactly behind a block. A sender has to add one more empty
		// block, but every decoder copes.
		return nil
	}
	return invalid("the message ends inside a block, after %s inflated bytes", group(z.message))
}

// need makes n bits available.
func (z *inflater) need(n uint) bool {
	for z.nacc < n {
		if len(z.in) == 0 {
			return false
		}
		z.acc |= uint64(z.in[0]) << z.nacc
		z.in = z.in[1:]
		z.nacc += 8
	}
	return true
}

// take removes n bits, which must be there.
func (z *inflater) take(n uint) int {
	v := int(z.acc & (1<<n - 1))
	z.acc >>= n
	z.nacc -= n
	return v
}

func (z *inflater) flush() {
	if z.flushed < z.pos {
		z.out(z.window[z.flushed:z.pos])
	}
	z.flushed = z.pos
}

func (z *inflater) put(c byte) {
	z.window[z.pos] = c
	z.pos++
	z.total++
	z.message++
	if z.pos == len(z.window) {
		z.flush()
		z.pos, z.flushed = 0, 0
	}
}

// over reports whether the message has become longer than the limit.
func (z *inflater) over() bool { return z.max > 0 && z.message > z.max }

func (z *inflater) run() *inflateFault {
	for {
		switch z.state {
		case blockHeader:
			if !z.need(3) {
				return nil
			}
			z.final = z.take(1) == 1
			switch z.take(2) {
			case 0:
				z.take(z.nacc & 7) // a stored block begins at a byte boundary
				z.state = storedLength
			case 1:
				z.plit, z.pdst, z.state = &fixedLit, &fixedDist, symbol
			case 2:
				z.plit, z.pdst, z.state = &z.lit, &z.dst, tableSizes
			default:
				return invalid("block type 3 does not exist; after %s inflated bytes", group(z.message))
			}

		case storedLength:
			if !z.need(32) {
				return nil
			}
			n, not := z.take(16), z.take(16)
			if n != ^not&0xffff {
				return invalid("the two lengths of a stored block disagree, after %s inflated bytes", group(z.message))
			}
			z.left, z.empty, z.state = n, n == 0, storedBytes

		case storedBytes:
			for ; z.left > 0; z.left-- {
				if !z.need(8) {
					return nil
				}
				z.put(byte(z.take(8)))
				if z.over() {
					return &inflateFault{}
				}
			}
			z.endBlock(z.empty)

		case tableSizes:
			if !z.need(14) {
				return nil
			}
			z.nlit, z.ndist, z.nclen = z.take(5)+257, z.take(5)+1, z.take(4)+4
			if z.nlit > 286 || z.ndist > 30 {
				return invalid("a block claims %d lengths and %d distances", z.nlit, z.ndist)
			}
			z.lens, z.have, z.state = [320]uint8{}, 0, codeLengths

		case codeLengths:
			for ; z.have < z.nclen; z.have++ {
				if !z.need(3) {
					return nil
				}
				z.lens[codeOrder[z.have]] = uint8(z.take(3))
			}
			if !z.clen.build(z.lens[:19], false) {
				return invalid("the code of the code lengths is malformed")
			}
			z.lens, z.have, z.state = [320]uint8{}, 0, tableLengths

		case tableLengths:
			if z.have < z.nlit+z.ndist {
				if f, ok := z.tableLength(); f != nil || !ok {
					return f
				}
				continue
			}
			switch {
			case z.lens[256] == 0:
				return invalid("a block has no code for its end")
			case !z.lit.build(z.lens[:z.nlit], true):
				return invalid("the code of the literals is malformed")
			case !z.dst.build(z.lens[z.nlit:z.nlit+z.ndist], true):
				return invalid("the code of the distances is malformed")
			}
			z.state = symbol

		case symbol:
			s, ok := z.decode(z.plit)
			if !ok {
				return nil
			}
			switch {
			case s < 0 || s > 285:
				return invalid("no symbol has this code, after %s inflated bytes", group(z.message))
			case s < 256:
				z.put(byte(s))
				if z.over() {
					return &inflateFault{}
				}
			case s == 256:
				z.endBlock(false)
			default:
				z.sym, z.state = s-257, lengthExtra
			}

		case lengthExtra:
			n := uint(lengthBits[z.sym])
			if !z.need(n) {
				return nil
			}
			z.left, z.state = int(lengthBase[z.sym])+z.take(n), distance

		case distance:
			s, ok := z.decode(z.pdst)
			if !ok {
				return nil
			}
			if s < 0 || s > 29 {
				return invalid("no distance has this code, after %s inflated bytes", group(z.message))
			}
			z.sym, z.state = s, distanceExtra

		case distanceExtra:
			n := uint(distBits[z.sym])
			if !z.need(n) {
				return nil
			}
			z.dist, z.state = int(distBase[z.sym])+z.take(n), symbol
			if f := z.checkDistance(); f != nil {
				return f
			}
			for ; z.left > 0; z.left-- {
				from := z.pos - z.dist
				if from < 0 {
					from += len(z.window)
				}
				z.put(z.window[from])
			}
			if z.over() {
				return &inflateFault{}
			}
		}
	}
}

// endBlock goes on to the next block. RFC 7692, 7.2.3.4 allows a sender to
// end a DEFLATE stream (BFINAL) and begin another within a message; the next
// one begins at a byte boundary.
func (z *inflater) endBlock(empty bool) {
	if z.final {
		z.take(z.nacc & 7)
	}
	z.empty, z.state = empty, blockHeader
}

// checkDistance judges a reference to earlier bytes.
func (z *inflater) checkDistance() *inflateFault {
	d := uint64(z.dist)
	switch {
	case d > z.total:
		return invalid("a reference %s bytes back, but only %s bytes came before it", group(d), group(z.total))
	case !z.takeover && d > z.message:
		return &inflateFault{"DF-12", fmt.Sprintf("a reference %s bytes back, %s inflated bytes into the message; it reaches into an earlier one",
			group(d), group(z.message))}
	case z.dist > z.windowSize:
		return &inflateFault{"DF-11", fmt.Sprintf("a reference %s bytes back, the window agreed on has %s", group(d), group(uint64(z.windowSize)))}
	}
	return nil
}

// tableLength reads one entry of the list of code lengths.
func (z *inflater) tableLength() (*inflateFault, bool) {
	s, ok := z.peek(&z.clen)
	if !ok {
		return nil, false
	}
	if s.sym < 0 {
		return invalid("no code length has this code"), true
	}
	extra, repeat, value := uint(0), 1, uint8(s.sym)
	switch s.sym {
	case 16:
		if z.have == 0 {
			return invalid("a code length is repeated before there is one"), true
		}
		extra, repeat, value = 2, 3, z.lens[z.have-1]
	case 17:
		extra, repeat, value = 3, 3, 0
	case 18:
		extra, repeat, value = 7, 11, 0
	}
	// The code and its extra bits are taken together, so that running out of
	// input between them needs no state of its own.
	if !z.need(s.bits + extra) {
		return nil, false
	}
	z.take(s.bits)
	repeat += z.take(extra)
	if z.have+repeat > z.nlit+z.ndist {
		return invalid("more code lengths than announced"), true
	}
	for range repeat {
		z.lens[z.have] = value
		z.have++
	}
	return nil, true
}

type coded struct {
	sym  int // -1: no symbol has this code
	bits uint
}

// peek finds the next symbol without taking it.
func (z *inflater) peek(h *huffman) (coded, bool) {
	z.need(15) // as far as there is input
	e := h.fast[z.acc&(1<<fastBits-1)]
	if n := uint(e & 15); n > 0 && n <= z.nacc {
		return coded{int(e >> 4), n}, true
	}
	// Canonical codes of one length are consecutive numbers, first bit highest.
	code, first, index := 0, 0, 0
	for n := uint(1); n <= 15; n++ {
		if n > z.nacc {
			return coded{}, false
		}
		code |= int(z.acc >> (n - 1) & 1)
		count := int(h.count[n])
		if code-first < count {
			return coded{int(h.symbols[index+code-first]), n}, true
		}
		index += count
		first = (first + count) << 1
		code <<= 1
	}
	return coded{-1, 15}, true
}

func (z *inflater) decode(h *huffman) (int, bool) {
	c, ok := z.peek(h)
	if ok && c.sym >= 0 {
		z.take(c.bits)
	}
	return c.sym, ok
}

// fastBits is the length of code that is found with one look.
const fastBits = 9

// A huffman is a canonical prefix code.
type huffman struct {
	fast    [1 << fastBits]uint16 // symbol<<4 | length; 0: longer or none
	count   [16]uint16            // codes of each length
	symbols [288]uint16           // in the order of their codes
}

// build makes the code from the lengths of its symbols' codes. Sets that leave
// codes unused are refused, except that a single code of one bit and, if
// mayLack is set, no code at all are allowed.
func (h *huffman) build(lens []uint8, mayLack bool) bool {
	h.count = [16]uint16{}
	for _, n := range lens {
		h.count[n]++
	}
	used := len(lens) - int(h.count[0])
	h.count[0] = 0
	spare := 1
	for _, c := range h.count[1:] {
		spare = spare<<1 - int(c)
		if spare < 0 {
			return false
		}
	}
	if spare > 0 && !(mayLack && (used == 0 || used == 1 && h.count[1] == 1)) {
		return false
	}
	var next, code [16]uint16
	for n := 1; n < 15; n++ {
		next[n+1] = next[n] + h.count[n]
		code[n+1] = (code[n] + h.count[n]) << 1
	}
	h.fast = [1 << fastBits]uint16{}
	for s, n := range lens {
		if n == 0 {
			continue
		}
		h.symbols[next[n]] = uint16(s)
		next[n]++
		if n <= fastBits {
			r := int(bits.Reverse16(code[n]) >> (16 - n))
			for ; r < 1<<fastBits; r += 1 << n {
				h.fast[r] = uint16(s)<<4 | uint16(n)
			}
		}
		code[n]++
	}
	return true
}

// The tables of RFC 1951, 3.2.5 to 3.2.7. None is ever changed.
var (
	codeOrder  = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}
	lengthBase = [29]uint16{3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258}
	lengthBits = [29]uint8{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0}
	distBase   = [30]uint16{1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577}
	distBits   = [30]uint8{0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13}

	fixedLit, fixedDist = fixedCodes()
)

func fixedCodes() (lit, dist huffman) {
	var l [288]uint8
	for i := range l {
		switch {
		case i < 144:
			l[i] = 8
		case i < 256:
			l[i] = 9
		case i < 280:
			l[i] = 7
		default:
			l[i] = 8
		}
	}
	lit.build(l[:], true)
	// Two of the 32 distance codes stand for nothing; decoding refuses them.
	var d [32]uint8
	for i := range d {
		d[i] = 5
	}
	dist.build(d[:], true)
	return lit, dist
}
