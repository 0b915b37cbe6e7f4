package ws

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/weft-ws/weft/internal/wire"
)

const (
	// batchMax is how many bytes of frames leave in one system call, at least
	// one frame. What the kernel does not take at once can still be passed by a
	// control frame.
	batchMax = 256 << 10
	// batchMaskedMax is the same where the payload is copied to be masked; it
	// stays within a processor's second-level cache.
	batchMaskedMax = 128 << 10
	// batchPieces bounds the pieces of a batch: header and payload of each frame.
	batchPieces = 64
	// copyMax is the payload up to which copying it next to its header is
	// cheaper than a second piece.
	copyMax = 4 << 10
	// copiedKeepMax bounds the copy buffer that goes back to the pool with its
	// batch.
	copiedKeepMax = 512 << 10
)

// A turn is one message of a writer: waiting for its turn, or on its way.
type turn struct {
	op     wire.Opcode
	p      []byte
	single bool // fits in one frame, so that another writer may send it

	next      *turn
	state     turnState
	ready     chan struct{} // closed on every change from queued or batched; nil for the holder's own
	cancelled bool          // its context ended while it was in another's batch
	begun     bool          // bytes of it are on the wire
	err       error
}

type turnState uint8

const (
	queued  turnState = iota
	granted           // it holds the locks
	batched           // the holder is sending it
	done              // sent, or failed with err
)

// A piece is what a batch knows about one of its byte slices.
type piece struct {
	turn  *turn // nil for control frames and corked replies
	end   bool  // a frame ends with it
	close bool  // it is our Close: nothing follows
	since time.Time

	frames int // that end with it, if they are several
}

// A batch is frames on their way to the wire, in order.
type batch struct {
	c      *Conn
	ctx    context.Context
	bufs   [][]byte
	pieces []piece
	at     int  // the first piece not wholly written
	cut    bool // bufs[at] is partly written
	size   int

	head   []byte // memory of headers that stand alone; never grows
	copied []byte // memory of frames that are copied
	flat   []byte // what generic connections are written from
	iov    []iovec
	self   turn // of the writer that holds the locks

	try      func(fd uintptr) bool // b.attempt, made once
	err      error
	tries    int
	once     bool // do not wait for the socket
	waiting  bool
	goesOn   bool // the message of self does, in another batch
	moved    bool // bytes were taken since the last interruption
	stale    int  // interruptions in a row that were not for this write
	deadline time.Time
	stop     func() bool
	waited   time.Duration // longest wait of a control frame in it
}

var batches = sync.Pool{New: func() any {
	b := &batch{
		bufs:   make([][]byte, 0, batchPieces),
		pieces: make([]piece, 0, batchPieces),
		head:   make([]byte, 0, batchPieces*wire.HeaderMax),
		iov:    make([]iovec, 0, iovecMax),
	}
	b.try = b.attempt
	return b
}}

func newBatch(c *Conn) *batch {
	b := batches.Get().(*batch)
	b.c = c
	return b
}

func (b *batch) free() {
	clear(b.bufs)
	clear(b.pieces)
	clear(b.iov)
	b.c, b.ctx, b.err, b.stop = nil, nil, nil, nil
	b.bufs, b.pieces, b.head, b.copied = b.bufs[:0], b.pieces[:0], b.head[:0], b.copied[:0]
	if cap(b.copied) > copiedKeepMax {
		b.copied = nil
	}
	b.at, b.cut, b.size, b.self = 0, false, 0, turn{}
	b.tries, b.waiting, b.deadline, b.waited = 0, false, time.Time{}, 0
	b.goesOn, b.moved, b.stale = false, false, 0
	batches.Put(b)
}

// full reports whether no further data frame belongs into the batch.
func (b *batch) full(sizeMax int) bool {
	return b.size >= sizeMax || len(b.pieces)+2 > batchPieces-4 // room for control frames
}

// frame adds a frame of the message of t. The payload is borrowed until the
// batch is written, unless it is copied because it is short or masked.
func (b *batch) frame(h *wire.Header, payload []byte, t *turn) {
	b.size += wire.HeaderMax + len(payload)
	if !h.Masked && len(payload) > copyMax && len(b.head)+wire.HeaderMax <= cap(b.head) {
		at := len(b.head)
		b.head = wire.AppendHeader(b.head, *h)
		b.bufs = append(b.bufs, b.head[at:], payload)
		b.pieces = append(b.pieces, piece{turn: t}, piece{turn: t, end: true})
		return
	}
	b.copyFrame(h, payload, piece{turn: t, end: true})
}

// copyFrame adds a frame, masked if h says so, in memory of the batch.
func (b *batch) copyFrame(h *wire.Header, payload []byte, p piece) {
	at := len(b.copied)
	b.appendFrame(h, payload)
	b.bufs = append(b.bufs, b.copied[at:])
	b.pieces = append(b.pieces, p)
}

func (b *batch) appendFrame(h *wire.Header, payload []byte) {
	b.copied = slices.Grow(b.copied, wire.HeaderMax+len(payload))
	b.copied = wire.AppendHeader(b.copied, *h)
	if !h.Masked {
		b.copied = append(b.copied, payload...)
		return
	}
	body := len(b.copied)
	b.copied = b.copied[:body+len(payload)]
	wire.MaskCopy(h.Key, b.copied[body:], payload)
}

// cork adds a reply. The batch holds replies alone, joined to one piece.
func (b *batch) cork(h *wire.Header, payload []byte) {
	b.size += wire.HeaderMax + len(payload)
	b.appendFrame(h, payload)
	if len(b.pieces) == 0 {
		b.bufs = append(b.bufs, nil)
		b.pieces = append(b.pieces, piece{end: true})
	}
	b.bufs[0] = b.copied
}

// boundary reports whether what is written ends with a whole frame.
func (b *batch) boundary() bool {
	return !b.cut && (b.at == 0 || b.pieces[b.at-1].end)
}

// nextBoundary is the index of the first piece at or after at that begins a
// frame.
func (b *batch) nextBoundary() int {
	i := b.at
	if b.cut {
		i++
	}
	for i > 0 && i < len(b.pieces) && !b.pieces[i-1].end {
		i++
	}
	return i
}

// advance notes that n more bytes are on the wire.
func (b *batch) advance(n int) {
	b.moved = b.moved || n > 0
	trace := b.c.trace()
	for b.at < len(b.bufs) {
		buf, p := b.bufs[b.at], &b.pieces[b.at]
		took := min(n, len(buf))
		if took > 0 {
			if trace != nil && trace.Bytes != nil {
				trace.Bytes(Out, buf[:took])
			}
			if p.turn != nil {
				p.turn.begun = true
			}
		}
		if took == len(buf) && !p.since.IsZero() {
			b.waited = max(b.waited, time.Since(p.since))
		}
		if n < len(buf) {
			b.bufs[b.at], b.cut = buf[n:], b.cut || n > 0
			return
		}
		n -= took
		b.at++
		b.cut = false
	}
}

// done reports whether all of the batch is on the wire.
func (b *batch) done() bool { return b.at == len(b.bufs) }

// attempt is one try on a raw socket: it returns false to be called again when
// the socket takes bytes.
func (b *batch) attempt(fd uintptr) bool {
	if b.tries++; b.tries > 1 {
		// RFC 6455, 5.4: "control frames MAY be injected in the middle of a
		// fragmented message". What was queued while we waited goes first.
		b.c.w.mu.Lock()
		b.c.interleave(b)
		b.c.w.mu.Unlock()
	}
	for !b.done() {
		n, again, err := sysWrite(fd, b.bufs[b.at:], b.iov)
		if err != nil {
			b.err = err
			return true
		}
		b.advance(n)
		if again {
			return b.once || !b.wait(n > 0)
		}
	}
	return true
}

// wait is called when the socket takes no more. It sets the deadline and lets
// the context interrupt, which a write that need not wait does without. It
// returns false if waiting would be in vain.
func (b *batch) wait(progress bool) bool {
	c := b.c
	if progress || b.deadline.IsZero() {
		b.deadline = time.Time{}
		if d := c.cfg.WriteTimeout; d > 0 {
			b.deadline = time.Now().Add(d)
		}
		c.setWriteDeadline(b.deadline)
	}
	if b.waiting {
		return true
	}
	b.waiting = true
	if b.ctx != nil && !c.isHandlerCtx(b.ctx) && b.ctx.Done() != nil {
		if err := b.ctx.Err(); err != nil {
			b.err = os.ErrDeadlineExceeded
			return false
		}
		b.stop = context.AfterFunc(b.ctx, c.interruptWrite)
	}
	return true
}

// write puts the batch on the wire and returns nil when all of it is there.
// Messages whose context ended before they were begun are taken out; for the
// holder's own, self.err says so. The error is errOthers if what is left need
// not keep the holder, an *interruptedError if a message that was begun cannot be
// finished, anything else if the connection is lost.
func (b *batch) write(ctx context.Context) error {
	c := b.c
	b.ctx = ctx
	defer b.unwait()
	for {
		b.err, b.tries, b.waiting = nil, 0, false
		var err error
		if c.raw != nil {
			if err = c.raw.Write(b.try); err == nil {
				err = b.err
			}
		} else {
			err = b.writeGeneric()
		}
		if err == nil {
			return nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		deadline := b.deadline
		b.unwait()
		if verdict := b.interrupted(deadline); verdict != nil {
			return verdict
		}
		if b.ctx != nil && b.ctx.Err() != nil {
			if b.ctx = nil; !b.done() {
				return errOthers
			}
		}
	}
}

// errOthers says that the context has ended, that the holder's own message is
// on the wire or taken out, and that what is left of the batch is others'.
var errOthers = errors.New("ws: what is left to write is others'")

// lend leaves what others have in b to a goroutine, so that the holder can come
// back at once. The frame lock goes with it. mu is held.
func (c *Conn) lend(b *batch) {
	c.w.lent = true
	go func() {
		w := &c.w
		err := b.write(context.Background())
		w.mu.Lock()
		w.lent = false
		w.waited(b.waited)
		lost := b.settleOthers()
		b.free()
		if err == nil {
			c.release()
			w.mu.Unlock()
			return
		}
		w.mu.Unlock()
		w.settleLost(lost, c.drop(err, true))
	}()
}

func (b *batch) unwait() {
	if b.stop != nil {
		b.stop()
		b.stop = nil
	}
	if b.waiting || !b.deadline.IsZero() {
		b.c.setWriteDeadline(time.Time{})
		b.waiting, b.deadline = false, time.Time{}
	}
}

// An interruptedError says that a message cannot be finished because its
// context ended.
type interruptedError struct {
	inside bool // inside a frame; else between two fragments
	cause  error
}

func (e *interruptedError) Error() string {
	if e.inside {
		return "write interrupted inside a frame: " + e.cause.Error()
	}
	return "write interrupted between two fragments: " + e.cause.Error()
}

func (e *interruptedError) Unwrap() error { return e.cause }

// interrupted decides what becomes of a batch whose write was interrupted, by
// the table in docs/cancellation.md: messages of which nothing is on the wire
// are taken out, and nil means to go on with the rest. deadline is when the
// peer should have taken something.
func (b *batch) interrupted(deadline time.Time) error {
	c := b.c
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	last := c.clearInterrupt()
	out := func(t *turn) bool {
		return t != nil && (t.cancelled || t == &b.self && b.ctx != nil && b.ctx.Err() != nil)
	}
	hit := b.ctx != nil && b.ctx.Err() != nil
	for _, p := range b.pieces[b.at:] {
		hit = hit || out(p.turn)
	}
	if !hit {
		return b.unasked(deadline, last)
	}
	for _, p := range b.pieces[b.at:] {
		if t := p.turn; out(t) && t.begun {
			e := &interruptedError{inside: !b.boundary(), cause: context.Canceled}
			if t == &b.self {
				e.cause = b.ctx.Err()
			}
			return e
		}
	}
	if b.goesOn && b.self.begun && b.ctx != nil && b.ctx.Err() != nil {
		return &interruptedError{inside: !b.boundary(), cause: b.ctx.Err()}
	}
	first := b.nextBoundary()
	bufs, pieces := b.bufs[:first], b.pieces[:first]
	for i := first; i < len(b.pieces); i++ {
		if t := b.pieces[i].turn; out(t) {
			if t == &b.self {
				t.err = b.ctx.Err()
			} else {
				t.settle(done, context.Canceled)
			}
			b.unframe(i)
			continue
		}
		bufs, pieces = append(bufs, b.bufs[i]), append(pieces, b.pieces[i])
	}
	b.bufs, b.pieces = bufs, pieces
	return nil
}

// unframe notes that piece i, which has not been begun, is not sent. mu is held.
func (b *batch) unframe(i int) {
	frames := int64(0)
	if p := &b.pieces[i]; p.end {
		frames = int64(max(p.frames, 1))
	}
	b.c.w.sender.Unframe(frames, int64(len(b.bufs[i])))
}

// staleMax bounds the interruptions in a row that are taken for one that was
// meant for somebody else: a tls.Conn reports the first for ever.
const staleMax = 8

// unasked judges an interruption that no context has asked for: the deadline
// has passed, or whoever wanted to interrupt a write came too late, and hit
// this one. last is when all writes end.
func (b *batch) unasked(deadline, last time.Time) error {
	now := time.Now()
	passed := func(t time.Time) bool { return !t.IsZero() && !now.Before(t) }
	moved := b.moved
	if b.moved = false; moved {
		b.stale = 0
	}
	if b.stale++; passed(last) || passed(deadline) && !moved || b.stale > staleMax {
		return &TimeoutError{Limit: "WriteTimeout", After: b.c.cfg.WriteTimeout}
	}
	return nil
}

// writeGeneric writes through the net.Conn, at most flatMax bytes at a time
// and whole frames where it can, since a tls.Conn makes a record of each
// write.
func (b *batch) writeGeneric() error {
	const flatMax = 64 << 10
	c := b.c
	for first := true; !b.done(); first = false {
		if !first {
			c.w.mu.Lock()
			c.interleave(b)
			c.w.mu.Unlock()
		}
		chunk, i := b.bufs[b.at], b.at+1
		if i < len(b.bufs) && len(chunk)+len(b.bufs[i]) <= flatMax {
			b.flat = append(b.flat[:0], chunk...)
			for ; i < len(b.bufs) && len(b.flat)+len(b.bufs[i]) <= flatMax; i++ {
				b.flat = append(b.flat, b.bufs[i]...)
			}
			chunk = b.flat
		} else {
			chunk = chunk[:min(len(chunk), flatMax)]
		}
		if !b.waiting {
			b.waiting = true
			if b.ctx != nil && !c.isHandlerCtx(b.ctx) && b.ctx.Done() != nil && b.ctx.Err() == nil {
				b.stop = context.AfterFunc(b.ctx, c.interruptWrite)
			}
		}
		now := time.Now()
		switch d := c.cfg.WriteTimeout; {
		case b.ctx != nil && b.ctx.Err() != nil:
			// The context ended before we began. If no waiting is needed the
			// message still goes out.
			b.deadline = now.Add(time.Millisecond)
			c.setWriteDeadline(b.deadline)
		case d > 0:
			b.deadline = now.Add(d)
			c.setWriteDeadline(b.deadline)
		}
		n, err := c.nc.Write(chunk)
		b.advance(n)
		if err != nil {
			return err
		}
	}
	return nil
}

// insideMessage reports whether the pieces before and after i are frames of one
// message.
func (b *batch) insideMessage(i int) bool {
	last := func(pieces []piece) *turn {
		for _, p := range slices.Backward(pieces) {
			if p.turn != nil {
				return p.turn
			}
		}
		return nil
	}
	before := last(b.pieces[:i])
	if before == nil && b.self.begun {
		before = &b.self // in an earlier batch
	}
	return before == &b.self && before == last(b.pieces[i:])
}

// interleave puts the control frames that wait between two frames of b. If our
// Close is among them the rest of b is dropped: nothing may follow it. mu is
// held.
func (c *Conn) interleave(b *batch) {
	w := &c.w
	if !w.control.due() || b.done() && b.cut {
		return
	}
	i := b.nextBoundary()
	from := len(b.pieces)
	inside := b.insideMessage(i)
	n := w.counters()
	count := n.interleaved
	c.takeControl(b)
	if n.interleaved = count; inside {
		n.interleaved += uint64(len(b.pieces) - from)
	}
	bufs, pieces := slices.Clone(b.bufs[from:]), slices.Clone(b.pieces[from:])
	if len(pieces) == 0 {
		return
	}
	b.bufs, b.pieces = b.bufs[:from], b.pieces[:from]
	if pieces[len(pieces)-1].close {
		cause := w.refuse()
		if cause == nil {
			cause = errClosing
		}
		for j, p := range b.pieces[i:] {
			b.unframe(i + j)
			switch {
			case p.turn == &b.self:
				b.self.err = errClosing
			case p.turn != nil && p.turn.state == batched:
				p.turn.settle(done, cause)
			}
		}
		b.bufs, b.pieces = b.bufs[:i], b.pieces[:i]
	}
	b.bufs = slices.Insert(b.bufs, i, bufs...)
	b.pieces = slices.Insert(b.pieces, i, pieces...)
}

// traceFrame tells the trace about the frame that was framed last. mu is held.
func (c *Conn) traceFrame() {
	if t := c.trace(); t != nil && t.Frame != nil {
		t.Frame(c.w.sender.Frame())
	}
}
