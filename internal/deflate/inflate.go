package deflate

import (
	"errors"
	"fmt"
)

// An Inflater decompresses the messages of one direction of a connection. It is
// fed: Step takes whatever arrived and fills whatever room there is, stops at
// any byte of either and goes on there the next time. So the caller decides how
// much memory a message may take, and an error shows as soon as the bits that
// prove it are in.
//
// Between messages it holds the window if context takeover was agreed, otherwise
// nothing. The zero value is ready for messages without context takeover and
// with back-references of up to 32 KiB.
type Inflater struct {
	bitsMax  uint8 // logarithm of the window; 0 means 15
	takeover bool

	state     inflateState
	final     bool // the block at hand has BFINAL set
	lastFinal bool // … so had the one before it
	lastEmpty bool // the block before was stored and empty
	tailLeft  bool // what TailLeft answers

	win *window
	tab *tables    // nil outside dynamic blocks
	lit *litTable  // codes of the block at hand
	dst *distTable // "
	err error

	hold  uint64 // bits read from src but not used, next one lowest
	nhold uint   // how many; the bits above are zero

	in       int64 // bytes of src taken in this message
	left     int   // bytes of a stored block or a match that are still to be written
	copyDist int   // how far back they come from, for a match

	// The header of a dynamic block, while it is read.
	nlit, ndist, nlen uint16 // symbols of each code
	nread             uint16 // code lengths read so far
}

type inflateState uint8

const (
	atHeader    inflateState = iota // a block begins
	atStoredLen                     // LEN and NLEN of a stored block
	inStored                        // its bytes
	atCodes                         // HLIT, HDIST and HCLEN of a dynamic block
	inCodeLens                      // the code of the code lengths
	inLens                          // the code lengths
	inSymbols                       // literals and matches
	inMatch                         // a match that did not fit into dst
)

// What the message was in the middle of when it ended, for errors.
var stateNames = [...]string{
	"before a block", "in the length of a stored block", "in a stored block",
	"in the header of a block", "in the header of a block", "in the header of a block",
	"in a compressed block", "in a compressed block",
}

// Reset makes r ready for the first message of a connection whose sender uses
// windows of up to 1<<windowBits bytes (8 to 15; anything else means 15) with or
// without context takeover. What r held goes back to the pools.
func (r *Inflater) Reset(windowBits int, takeover bool) {
	r.Close()
	*r = Inflater{bitsMax: uint8(clampWindowBits(windowBits)), takeover: takeover}
}

// Step inflates the next bytes of the current message. It takes some of src,
// writes at most len(dst) bytes to the front of dst (the rest of dst may be used
// as scratch) and returns how many of each. last says that the message ends with
// src; the four octets that the sender took off (Tail) are then supplied.
//
// Unless done or err is set, Step has used up src or filled dst: call it again
// with more of either. With last set, call it with what is left of src, maybe
// nothing, until done. The call after that begins the next message.
//
// The error is an *Error that matches ErrCorrupt; the bytes written before it are
// good. It stays: every later call returns it. RFC 7692, 7.2.2: with rule
//
//	DF-10 the payload is not valid DEFLATE data, or ends too early
//	DF-11 a back-reference is longer than the window that was agreed on
//	DF-12 a back-reference goes past the start of the message, without takeover
//
// Step never allocates more than the window and the tables of one block, both
// from pools, whatever the input.
func (r *Inflater) Step(dst, src []byte, last bool) (nd, ns int, done bool, err error) {
	if r.err != nil {
		return 0, 0, false, r.err
	}
	c := cursor{dst: dst, src: src}
	done, err = r.run(&c, last)
	nd, ns = c.o, c.i
	r.in += int64(ns)
	if err != nil {
		r.fail(err)
		return nd, ns, false, r.err
	}
	if r.takeover || !done {
		r.win = r.win.remember(dst[:nd], r.windowBits())
	}
	if done {
		r.endMessage()
	}
	return nd, ns, done, nil
}

// TailLeft reports whether the sender of the last complete message left the
// octets 00 00 ff ff on its end, which RFC 7692, 7.2.1 says it must remove
// (DF-13). Nothing is lost by it.
func (r *Inflater) TailLeft() bool { return r.tailLeft }

// Release returns to the pools what the next message does not need. Between
// messages there is nothing to return: Step does so at the end of each. After an
// error it returns everything; in the middle of a message, which needs what is
// there, it does nothing.
func (r *Inflater) Release() {
	if r.err != nil {
		r.drop()
	}
}

// Close returns everything to the pools. A message at hand cannot go on.
func (r *Inflater) Close() {
	r.drop()
	r.err = errClosed
}

// Held is the number of bytes that r keeps from the pools at the moment, beyond
// its own size.
func (r *Inflater) Held() int {
	n := r.win.held()
	if r.tab != nil {
		n += tablesSize
	}
	return n
}

var errClosed = errors.New("permessage-deflate: inflater was closed")

func (r *Inflater) windowBits() int { return clampWindowBits(int(r.bitsMax)) }

func (r *Inflater) drop() {
	r.dropTables()
	if r.win != nil {
		r.win.put()
		r.win = nil
	}
}

func (r *Inflater) dropTables() {
	if r.tab != nil {
		tablesPool.Put(r.tab)
		r.tab = nil
	}
	r.lit, r.dst = nil, nil
}

// endMessage forgets what must not reach the next message.
func (r *Inflater) endMessage() {
	r.dropTables()
	if !r.takeover && r.win != nil {
		r.win.put()
		r.win = nil
	}
	r.state, r.final, r.lastFinal, r.lastEmpty = atHeader, false, false, false
	r.hold, r.nhold, r.in = 0, 0, 0
}

// fail keeps the first error, with its place.
func (r *Inflater) fail(err error) {
	if e, ok := err.(*Error); ok {
		e.Offset = r.in - int64(r.nhold/8)
	}
	r.err = err
}

// corrupt is an error whose place Step fills in.
func corrupt(detail string) error { return &Error{RuleID: "DF-10", Detail: detail} }

// A cursor is the input and output of one Step and how far each was used.
type cursor struct {
	dst, src []byte
	o, i     int
}

// need tries to have n bits in hold, at most 56.
func (r *Inflater) need(c *cursor, n uint) bool {
	for r.nhold < n {
		if c.i == len(c.src) {
			return false
		}
		r.hold |= uint64(c.src[c.i]) << (r.nhold & 63)
		r.nhold += 8
		c.i++
	}
	return true
}

// take removes the next n bits from hold, which has them.
func (r *Inflater) take(n uint) int {
	v := r.hold & (1<<(n&63) - 1)
	r.hold >>= n & 63
	r.nhold -= n
	return int(v)
}

// align drops the bits up to the next byte of the input.
func (r *Inflater) align() { r.take(r.nhold & 7) }

// progress is why a part of the state machine returned.
type progress uint8

const (
	goOn    progress = iota // the state changed
	starved                 // src is used up
	full                    // dst is full
)

// run is the state machine. It returns when the message is complete, when src
// is used up or dst is full.
func (r *Inflater) run(c *cursor, last bool) (done bool, err error) {
	for {
		var p progress
		switch r.state {
		case atHeader:
			p, err = r.blockHeader(c)
		case atStoredLen:
			p, err = r.storedLen(c)
		case inStored:
			p = r.stored(c)
		case atCodes:
			p, err = r.codes(c)
		case inCodeLens:
			p, err = r.codeLens(c)
		case inLens:
			p, err = r.lens(c)
		case inSymbols:
			p, err = r.symbols(c)
		case inMatch:
			p = r.match(c)
		}
		switch {
		case err != nil || p == full:
			return false, err
		case p == starved && last:
			return true, r.end()
		case p == starved:
			return false, nil
		}
	}
}

// end judges where a message ended. RFC 7692, 7.2.2: the receiver appends the
// octets 00 00 ff ff and inflates. In what a sender makes (7.2.1) they are always
// the length of an empty stored block, so that nothing has to be appended: the
// data must end where that length is awaited. Anything else was cut short, and
// would take the four octets for data.
func (r *Inflater) end() error {
	r.tailLeft = false
	if r.nhold == 0 {
		switch {
		case r.state == atStoredLen:
			return nil
		case r.state == atHeader && r.lastEmpty:
			r.tailLeft = true
			return nil
		case r.state == atHeader && r.lastFinal:
			// RFC 7692, 7.2.3.4 has one octet 00 follow a final block. A sender that
			// leaves it out has still sent a complete DEFLATE stream.
			return nil
		}
	}
	return corrupt("the message ends " + stateNames[r.state])
}

// blockHeader reads BFINAL and BTYPE (RFC 1951, 3.2.3).
func (r *Inflater) blockHeader(c *cursor) (progress, error) {
	if !r.need(c, 3) {
		return starved, nil
	}
	r.final = r.take(1) == 1
	switch r.take(2) {
	case 0:
		r.align()
		r.state = atStoredLen
	case 1:
		r.lit, r.dst = fixedLit, fixedDist
		r.state = inSymbols
	case 2:
		r.state = atCodes
	default:
		return 0, corrupt("block type 3 does not exist")
	}
	return goOn, nil
}

// endBlock is called behind the last bit of a block.
func (r *Inflater) endBlock(empty bool) {
	r.lastFinal, r.lastEmpty = r.final, empty
	if r.final {
		// RFC 7692, 7.2.1: "When any DEFLATE block with the "BFINAL" bit set to 1
		// doesn't end at a byte boundary, an endpoint MUST add minimal padding bits
		// of 0 to make it end at a byte boundary. The next DEFLATE block follows the
		// padded data if any."
		r.align()
	}
	r.state = atHeader
}

func (r *Inflater) storedLen(c *cursor) (progress, error) {
	if !r.need(c, 32) {
		return starved, nil
	}
	n, inverse := r.take(16), r.take(16)
	if n != ^inverse&storedLenMax {
		return 0, corrupt(fmt.Sprintf("stored block of length %#04x has the check %#04x", n, inverse))
	}
	if r.left = n; n == 0 {
		r.endBlock(true)
		return goOn, nil
	}
	r.state = inStored
	return goOn, nil
}

func (r *Inflater) stored(c *cursor) progress {
	// The length ended at a byte and nothing reads ahead, so hold is empty.
	n := copy(c.dst[c.o:], c.src[c.i:min(len(c.src), c.i+r.left)])
	c.o += n
	c.i += n
	r.left -= n
	switch {
	case r.left == 0:
		r.endBlock(false)
		return goOn
	case c.i == len(c.src):
		return starved
	}
	return full
}

// codes reads how many codes a dynamic block describes (RFC 1951, 3.2.7).
func (r *Inflater) codes(c *cursor) (progress, error) {
	if !r.need(c, 14) {
		return starved, nil
	}
	r.nlit = uint16(r.take(5)) + endOfBlock + 1
	r.ndist = uint16(r.take(5)) + 1
	r.nlen = uint16(r.take(4)) + 4
	if r.nlit > litLenMax || r.ndist > distMax {
		return 0, corrupt(fmt.Sprintf("block has %d literal/length and %d distance codes, the most are 286 and 30", r.nlit, r.ndist))
	}
	if r.tab == nil {
		r.tab = tablesPool.Get().(*tables)
	}
	r.nread = 0
	r.state = inCodeLens
	return goOn, nil
}

// codeLenOrder is the order in which lengths of the code length code are sent.
var codeLenOrder = [codeLenSyms]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

func (r *Inflater) codeLens(c *cursor) (progress, error) {
	lens := r.tab.lens[:codeLenSyms]
	for ; r.nread < r.nlen; r.nread++ {
		if !r.need(c, 3) {
			return starved, nil
		}
		lens[codeLenOrder[r.nread]] = uint8(r.take(3))
	}
	for _, sym := range codeLenOrder[r.nlen:] {
		lens[sym] = 0
	}
	if !r.tab.build(r.tab.pre[:], lenBits, lens, lenMeaning[:]) {
		return 0, corrupt("the code lengths of a block have no valid code")
	}
	r.nread = 0
	r.state = inLens
	return goOn, nil
}

func (r *Inflater) lens(c *cursor) (progress, error) {
	lens, all := &r.tab.lens, r.nlit+r.ndist
	for r.nread < all {
		e, n, ok := r.peek(c, r.tab.pre[:], lenBits, 0)
		if !ok {
			return starved, nil
		}
		if e == 0 {
			return 0, corrupt("a code length has an undefined code")
		}
		v := e.value()
		if v < lenRepeat {
			r.take(n)
			lens[r.nread] = uint8(v)
			r.nread++
			continue
		}
		repeat, length := 3, uint8(0)
		switch v {
		case 16:
			if r.nread == 0 {
				return 0, corrupt("the first code length repeats the one before it")
			}
			length = lens[r.nread-1]
		case 18:
			repeat = 11
		}
		r.take(e.codeBits())
		if repeat += r.take(n - e.codeBits()); repeat > int(all-r.nread) {
			return 0, corrupt("a code length is repeated past the last code")
		}
		for range repeat {
			lens[r.nread] = length
			r.nread++
		}
	}
	if lens[endOfBlock] == 0 {
		return 0, corrupt("a block has no code for its end")
	}
	if !r.tab.build(r.tab.lit[:], litBits, lens[:r.nlit], litMeaning[:]) {
		return 0, corrupt("the literals and lengths of a block have no valid code")
	}
	if !r.tab.build(r.tab.dist[:], distBits, lens[r.nlit:all], distMeaning[:]) {
		return 0, corrupt("the distances of a block have no valid code")
	}
	r.lit, r.dst = &r.tab.lit, &r.tab.dist
	r.state = inSymbols
	return goOn, nil
}

// peek looks up the code that starts skip bits into hold. It returns the entry,
// which is 0 for an undefined code, and skip plus the bits of the code and of
// what belongs to it; ok is false if they are not all there yet. Nothing is
// taken from hold, so that a symbol cut in two is simply looked up again.
func (r *Inflater) peek(c *cursor, table []entry, rootBits, skip uint) (e entry, n uint, ok bool) {
	for {
		h := r.hold >> (skip & 63)
		e = table[h&(1<<(rootBits&63)-1)]
		if e&kindBad == kindSubtable {
			e = table[uint64(e.value())+h>>(rootBits&63)&(1<<(e.total()&63)-1)]
		}
		// Where bits are missing, hold has zeros, and another code than the real one
		// may have been found; but then it is longer than the bits that are there.
		if n = skip + e.total(); n <= r.nhold {
			return e, n, true
		}
		if !r.need(c, r.nhold+1) {
			return e, n, false
		}
	}
}

// symbols reads the literals and matches of a block.
func (r *Inflater) symbols(c *cursor) (progress, error) {
	for {
		r.fast(c)
		e, n, ok := r.peek(c, r.lit[:], litBits, 0)
		if !ok {
			return starved, nil
		}
		switch e & (kindLiteral | kindBase | kindBad) {
		case kindLiteral:
			if c.o == len(c.dst) {
				return full, nil
			}
			c.dst[c.o] = byte(e.value())
			c.o++
			r.take(n)
			continue
		case kindEnd:
			r.take(n)
			r.endBlock(false)
			return goOn, nil
		case kindBase:
		default:
			return 0, corrupt("a literal or length has an undefined code")
		}
		d, all, ok := r.peek(c, r.dst[:], distBits, n)
		if !ok {
			return starved, nil
		}
		if d&kindBad != 0 || d == 0 {
			return 0, corrupt("a distance has an undefined code")
		}
		r.take(e.codeBits())
		r.left = e.value() + r.take(n-e.codeBits())
		r.take(d.codeBits())
		r.copyDist = d.value() + r.take(all-n-d.codeBits())
		if err := r.checkDist(r.copyDist, c.o); err != nil {
			return 0, err
		}
		r.state = inMatch
		if p := r.match(c); p != goOn {
			return p, nil
		}
	}
}

// checkDist says whether the byte dist before the o-th of this Step's output may
// be referred to.
func (r *Inflater) checkDist(dist, o int) error {
	if dist > 1<<r.windowBits() {
		return &Error{RuleID: "DF-11", Detail: fmt.Sprintf("back-reference over %d bytes, the window has %d", dist, 1<<r.windowBits())}
	}
	if r.win != nil {
		o += r.win.n
	}
	if dist <= o {
		return nil
	}
	if r.takeover {
		return corrupt(fmt.Sprintf("back-reference over %d bytes, only %d were sent so far", dist, o))
	}
	return &Error{RuleID: "DF-12", Detail: fmt.Sprintf("back-reference over %d bytes, the message has only %d so far", dist, o)}
}

// match writes what is left of a match.
func (r *Inflater) match(c *cursor) progress {
	for r.left > 0 {
		if c.o == len(c.dst) {
			return full
		}
		n := min(r.left, len(c.dst)-c.o)
		if back := r.copyDist - c.o; back > 0 {
			n = min(n, back)
			r.win.read(c.dst[c.o:c.o+n], back)
		} else {
			repeat(c.dst[:c.o+n], c.o, r.copyDist)
		}
		c.o += n
		r.left -= n
	}
	r.state = inSymbols
	return goOn
}

// repeat fills p from o on with what is dist bytes before. The two may overlap:
// what is repeated grows with every round.
func repeat(p []byte, o, dist int) {
	for from := o - dist; o < len(p); {
		o += copy(p[o:], p[from:o])
	}
}
