package deflate

import (
	"sync"
	"unsafe"
)

// A Deflater compresses the messages of one direction of a connection. Between
// messages it holds the end of what was sent, if context takeover was agreed,
// otherwise nothing; everything else is borrowed from a pool for as long as a
// message takes. The zero value compresses without context takeover and with
// back-references of up to 32 KiB.
type Deflater struct {
	bitsMax     uint8 // logarithm of the receiver's window; 0 means 15
	contextBits uint8 // logarithm of what is kept between messages; 0 means contextBitsDefault
	level       uint8 // 0: the default
	takeover    bool
	enc         *encoder // nil while no message needs it
	sent        *window  // the end of what was sent, for the next message
}

// contextBitsDefault is the logarithm of how much of what was sent is kept for
// the next message. The receiver's window may be larger, but memory is what
// bounds the number of connections, and what is kept has to be indexed again for
// each message (docs/adr/0002-inflater.md has the figures).
const contextBitsDefault = 12

// encoder is what a message needs while it is compressed.
type encoder struct {
	m matcher
	w blockWriter
}

const encoderSize = int(unsafe.Sizeof(encoder{}))

var encoderPool = sync.Pool{New: func() any { return new(encoder) }}

// efforts are the levels; 0 is not one of them.
var efforts = [...]effort{
	1: {depth: 1},
	2: {depth: 2, nice: 16, lazy: 8},
	3: {depth: 4, nice: 32, lazy: 16},
	4: {depth: 8, nice: 32, lazy: 16},
	5: {depth: 16, nice: 64, lazy: 16},
	6: {depth: 32, nice: 128, lazy: 32},
	7: {depth: 64, nice: matchLenMax, lazy: 64},
	8: {depth: 128, nice: matchLenMax, lazy: 128},
	9: {depth: 512, nice: matchLenMax, lazy: matchLenMax},
}

// LevelMax is the highest level of SetLevel.
const LevelMax = len(efforts) - 1

// Without takeover speed counts, with it the ratio: candidates from earlier
// messages are what it is for.
const (
	levelFresh    = 1
	levelTakeover = 3
)

// Reset makes d ready for the first message of a connection whose receiver has a
// window of 1<<windowBits bytes (8 to 15; anything else means 15), with or
// without context takeover. What d held goes back to the pools. SetLevel and
// SetContext keep their effect.
func (d *Deflater) Reset(windowBits int, takeover bool) {
	d.Close()
	d.bitsMax, d.takeover = uint8(clampWindowBits(windowBits)), takeover
}

// SetLevel chooses between 1, the fastest, and LevelMax, the smallest output.
// Anything else means the default: 1 without context takeover, 3 with it. It
// counts from the next block on.
func (d *Deflater) SetLevel(level int) {
	if level < 1 || level > LevelMax {
		level = 0
	}
	d.level = uint8(level)
}

// SetContext chooses how much of what was sent is kept for the next message with
// context takeover: 1<<bits bytes, 8 to 15, but no more than the receiver's
// window. Anything else means the default, 4 KiB. It counts from the end of the
// next message on.
func (d *Deflater) SetContext(bits int) {
	if bits < WindowBitsMin || bits > WindowBitsMax {
		bits = 0
	}
	d.contextBits = uint8(bits)
}

func (d *Deflater) effort() effort {
	switch {
	case d.level != 0:
		return efforts[d.level]
	case d.takeover:
		return efforts[levelTakeover]
	}
	return efforts[levelFresh]
}

// reach is the longest back-reference that the receiver can follow.
func (d *Deflater) reach() int { return 1 << clampWindowBits(int(d.bitsMax)) }

// keepBits is the logarithm of how much is kept between messages.
func (d *Deflater) keepBits() int {
	bits := contextBitsDefault
	if d.contextBits != 0 {
		bits = int(d.contextBits)
	}
	return min(bits, clampWindowBits(int(d.bitsMax)))
}

// AppendMessage appends the compressed payload of the whole message p to dst and
// returns the longer slice (RFC 7692, 7.2.1; Tail is not part of it). p is not
// kept. What cannot be compressed grows by at most five bytes per 32 KiB begun
// and one at the end. A message begun with Append has to be finished before.
func (d *Deflater) AppendMessage(dst, p []byte) []byte {
	return d.Finish(d.Append(dst, p))
}

// Append appends to dst what is ready of the compressed payload after p, the next
// part of a message of unknown length. Up to 32 KiB of input may stay in d until
// later. The output may be cut into fragments anywhere.
func (d *Deflater) Append(dst, p []byte) []byte {
	for len(p) > 0 {
		m := d.begin()
		n := copy(m.buf[m.end:min(bufMax, m.start+blockMax)], p)
		m.end += n
		if p = p[n:]; len(p) > 0 {
			dst = d.block(dst)
		}
	}
	return dst
}

// begin returns the matcher, with the context of earlier messages in it if it
// had to be borrowed.
func (d *Deflater) begin() *matcher {
	if d.enc != nil {
		return &d.enc.m
	}
	d.enc = encoderPool.Get().(*encoder)
	m := &d.enc.m
	m.reset()
	if d.sent != nil {
		n := copy(m.buf[:], d.sent.older())
		n += copy(m.buf[n:], d.sent.buf[:d.sent.next])
		m.start, m.end = n, n
	}
	return m
}

// block writes the input that is there as a block and makes it history.
func (d *Deflater) block(dst []byte) []byte {
	m := &d.enc.m
	if m.end == m.start {
		return dst
	}
	m.parse(d.effort(), d.reach())
	dst = d.enc.w.write(dst, m)
	m.start = m.end
	if m.end+blockMax > bufMax {
		m.slide(min(m.end, d.reach()))
	}
	return dst
}

// Flush appends to dst everything that Append kept back, so that the receiver can
// inflate all of the message so far. It costs five or six bytes.
func (d *Deflater) Flush(dst []byte) []byte {
	if d.idle() {
		return dst // nothing was kept back
	}
	return append(d.enc.w.align(d.block(dst)), Tail...)
}

// Finish appends the end of the message to dst. The next Append begins another.
//
// RFC 7692, 7.2.1: the message ends with an empty stored block, of which only the
// header is sent. So an empty message is the octet 00 (7.2.3.6).
func (d *Deflater) Finish(dst []byte) []byte {
	if d.enc == nil {
		return append(dst, 0)
	}
	dst = d.enc.w.align(d.block(dst))
	d.giveBack()
	return dst
}

// giveBack returns the encoder, which holds no input, and keeps the context.
func (d *Deflater) giveBack() {
	m := &d.enc.m
	if d.takeover {
		if d.sent != nil {
			d.sent.reset()
		}
		keep := min(m.start, 1<<d.keepBits())
		d.sent = d.sent.remember(m.buf[m.start-keep:m.start], d.keepBits())
	}
	encoderPool.Put(d.enc)
	d.enc = nil
}

// Remember takes p into the context: a message that was compressed elsewhere,
// without context, and sent on this connection, as its receiver will take it
// into its own. So one compression serves many receivers. Without context
// takeover it does nothing. No message may be open.
func (d *Deflater) Remember(p []byte) {
	if d.takeover {
		d.sent = d.sent.remember(p, d.keepBits())
	}
}

// Release returns to the pool what is not needed to go on, for when the sender
// falls quiet. Between messages that is nothing, since Finish has done it. In the
// middle of a message it is everything but the context, if Flush was called last;
// otherwise input is waiting in there and nothing happens.
func (d *Deflater) Release() {
	if d.enc != nil && d.idle() {
		d.giveBack()
	}
}

// idle says whether all input has left in whole bytes.
func (d *Deflater) idle() bool {
	return d.enc == nil || d.enc.m.start == d.enc.m.end && d.enc.w.aligned()
}

// Close returns everything to the pools, a message at hand and the context
// included. Reset makes d usable again.
func (d *Deflater) Close() {
	if d.enc != nil {
		d.enc.w.acc, d.enc.w.nacc = 0, 0
		encoderPool.Put(d.enc)
		d.enc = nil
	}
	if d.sent != nil {
		d.sent.put()
		d.sent = nil
	}
}

// Held is the number of bytes that d keeps from the pools at the moment, beyond
// its own size.
func (d *Deflater) Held() int {
	n := d.sent.held()
	if d.enc != nil {
		n += encoderSize
	}
	return n
}
