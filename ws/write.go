package ws

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weft-ws/weft/internal/proto"
	"github.com/weft-ws/weft/internal/wire"
)

// A writeSide is what writers share. mu is held for moments only, never while
// the network is waited for. The two locks are flags under it, so that a
// holder can hand over in order and send for those who wait:
//
//   - open, the message lock: held from a message's first fragment to its FIN.
//   - busy, the frame lock: held while frames are put on the wire.
//
// A control frame needs only the second. If it is taken, the control frame is
// queued, and the holder puts it between the next two fragments.
type writeSide struct {
	mu      sync.Mutex
	busy    bool
	lent    bool // what is left of a batch keeps the frame lock: see lend
	open    bool
	closing bool // Close was called: no new messages
	lowat   bool // TCP_NOTSENT_LOWAT is set

	gathering atomic.Bool // more input is at hand: replies may be held together

	final  *CloseError   // the connection has ended; see setFinal
	ending chan struct{} // closed by setFinal; made when asked for
	sender proto.Sender
	closes proto.Closing

	first, last *turn // writers that wait for the message lock, in order
	waiting     int
	resumer     *turn // the holder of the message lock, waiting for the frame lock

	control controls
	flushed chan struct{} // closed when the frame lock is free at the end

	corked    *batch      // replies that leave together
	corkTimer *time.Timer // bounds how long they are held

	deflater *packer // nil: no compression

	sent  traffic
	stats *writeStats // made with the first of what it counts
	sendQ *sendQueue  // made with the first Send
}

// writeStats are the counters of a writeSide beside its traffic.
type writeStats struct {
	interleaved, replaced, refused, pongsDropped uint64
	controlWait                                  time.Duration
}

// counters returns the counters to add to them. mu is held.
func (w *writeSide) counters() *writeStats {
	if w.stats == nil {
		w.stats = new(writeStats)
	}
	return w.stats
}

// waited notes how long a control frame waited for the wire, zero if none was
// sent. mu is held.
func (w *writeSide) waited(d time.Duration) {
	if d > 0 {
		n := w.counters()
		n.controlWait = max(n.controlWait, d)
	}
}

func (w *writeSide) snapshot() Stats {
	frames, bytes := w.sender.Framed()
	s := Stats{
		Sent:    w.sent.snapshot(),
		Waiting: w.waiting,
	}
	s.Sent.Frames, s.Sent.Bytes = uint64(frames), uint64(bytes)
	if n := w.stats; n != nil {
		s.Interleaved, s.ControlWait = n.interleaved, n.controlWait
		s.Replaced, s.Refused, s.PongsDropped = n.replaced, n.refused, n.pongsDropped
	}
	if w.sendQ != nil {
		s.Queued = w.sendQ.bytes
	}
	if w.final != nil {
		s.CloseCode = w.final.Code
	}
	return s
}

// WriteMessage sends p as one message, in as many frames as FragmentSize asks,
// and returns when the system has taken all of it. p is not modified.
//
// Text is checked before its first byte leaves: if it is not UTF-8 nothing is
// sent. If ctx ends before the first frame, nothing was sent and the Conn is as
// good as before. If it ends between fragments the message cannot be taken back
// and the connection is closed with 1011; if it ends inside a frame the stream
// is of no use and is dropped. A write that need not wait succeeds even on a
// ctx that has ended. See docs/cancellation.md.
func (c *Conn) WriteMessage(ctx context.Context, typ MessageType, p []byte) error {
	if typ != Text && typ != Binary {
		return errMessageType
	}
	if typ == Text && !wire.ValidUTF8(p) {
		return errNotUTF8
	}
	return c.writeMessage(ctx, wire.Opcode(typ), p)
}

// writeMessage sends p, which has been checked.
func (c *Conn) writeMessage(ctx context.Context, op wire.Opcode, p []byte) error {
	w := &c.w
	packed := w.deflater != nil && len(p) >= w.deflater.threshold
	single := !packed && c.single(len(p))
	w.mu.Lock()
	if err := c.acquire(ctx, op, p, single); err != nil || w.final != nil {
		if errors.Is(err, errSent) {
			return nil
		}
		if err == nil {
			c.release()
			err = w.final
			w.mu.Unlock()
		}
		return err
	}
	// Both locks are ours, and mu is held.
	if single {
		return c.sendSingle(ctx, op, p)
	}
	w.open = true
	if packed {
		return c.sendPacked(ctx, op, p)
	}
	err := c.sendFragments(ctx, op, p, fragmentOpts{last: true, size: int64(len(p))})
	return c.finish(err)
}

// single reports whether a payload of n bytes leaves as one frame.
func (c *Conn) single(n int) bool {
	size := c.cfg.FragmentSize
	return size == 0 || n+c.headerSize(n) <= size
}

// headerSize is how long the header of a frame with n payload bytes is.
func (c *Conn) headerSize(n int) int {
	size := 2
	if n > 0xffff {
		size = 10
	} else if n > 125 {
		size = 4
	}
	if c.role == RoleClient {
		size += 4
	}
	return size
}

// fragmentMax is the most payload that one fragment carries.
func (c *Conn) fragmentMax() int {
	size := c.cfg.FragmentSize
	return size - c.headerSize(size)
}

// errSent says that another writer has sent the message.
var errSent = errors.New("ws: sent")

// acquire takes the message lock and the frame lock. mu is held when it is
// called, and when it returns nil; otherwise it is not. A single frame may be
// sent by the holder meanwhile: then the error is errSent.
func (c *Conn) acquire(ctx context.Context, op wire.Opcode, p []byte, single bool) error {
	w := &c.w
	if err := w.refuse(); err != nil {
		w.mu.Unlock()
		return err
	}
	if !w.busy && !w.open && w.first == nil {
		w.busy = true
		return nil
	}
	t := &turn{op: op, p: p, single: single, ready: make(chan struct{})}
	if w.last == nil {
		w.first = t
	} else {
		w.last.next = t
	}
	w.last = t
	w.waiting++
	w.mu.Unlock()
	return c.await(ctx, t)
}

// refuse is the error of a writer that comes too late.
func (w *writeSide) refuse() error {
	if w.final != nil {
		return w.final
	}
	if w.closing {
		return errClosing
	}
	return nil
}

// await waits until t is granted the locks, sent or failed. It returns nil,
// with mu held, in the first case alone.
func (c *Conn) await(ctx context.Context, t *turn) error {
	w := &c.w
	select {
	case <-t.ready:
	case <-ctx.Done():
		w.mu.Lock()
		switch {
		case t.state == queued:
			w.remove(t)
			w.mu.Unlock()
			return ctx.Err()
		case t.state == batched:
			// Its bytes are with the holder, and may be on the wire.
			t.cancelled = true
			w.mu.Unlock()
			c.interruptWrite()
		default:
			w.mu.Unlock()
		}
		<-t.ready
	}
	w.mu.Lock()
	if t.state == granted {
		return nil // the locks are ours: no need to wait, so it succeeds
	}
	err := t.err
	w.mu.Unlock()
	switch {
	case t.cancelled && err == context.Canceled: // taken out before it was begun
		return ctx.Err()
	case err == nil:
		return errSent
	}
	return err
}

// setFinal ends the connection for everybody who asks from now on. mu is held.
func (w *writeSide) setFinal(e *CloseError) {
	w.final = e
	if w.ending != nil {
		close(w.ending)
	}
}

// ending returns a channel that is closed when the connection begins to end.
func (c *Conn) ending() <-chan struct{} {
	w := &c.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ending == nil {
		w.ending = make(chan struct{})
		if w.final != nil {
			close(w.ending)
		}
	}
	return w.ending
}

// remove takes t out of the queue.
func (w *writeSide) remove(t *turn) {
	if w.resumer == t {
		w.resumer = nil
		return
	}
	var before *turn
	for at := w.first; at != nil; before, at = at, at.next {
		if at != t {
			continue
		}
		if before == nil {
			w.first = t.next
		} else {
			before.next = t.next
		}
		if w.last == t {
			w.last = before
		}
		w.waiting--
		return
	}
}

// pop takes the first waiting writer.
func (w *writeSide) pop() *turn {
	t := w.first
	if t == nil {
		return nil
	}
	if w.first = t.next; w.first == nil {
		w.last = nil
	}
	t.next = nil
	w.waiting--
	return t
}

// settle ends the wait of t, once. mu is held.
func (t *turn) settle(state turnState, err error) {
	if t.state == granted || t.state == done {
		return
	}
	t.state, t.err = state, err
	if t.ready != nil {
		close(t.ready)
	}
}

// release gives the frame lock to the next who needs it. mu is held.
func (c *Conn) release() {
	w := &c.w
	if w.lent {
		return // who has it releases it
	}
	if !w.open && w.control.later != nil {
		w.control.frame, w.control.later = w.control.later, nil
	}
	switch {
	case w.final != nil || w.sender.Closed():
		w.busy = false
		c.dropWaiters()
		w.signalFlushed()
	case !w.open && w.first != nil && w.control.frame == nil:
		w.pop().settle(granted, nil) // sends what is due before its own
	case w.open && w.resumer != nil && w.control.frame == nil:
		t := w.resumer
		w.resumer = nil
		t.settle(granted, nil)
	case w.control.due():
		go c.flushControl() // takes over the lock
	default:
		w.busy = false
		w.signalFlushed()
	}
}

// signalFlushed tells who ends the connection that the frame lock is free.
func (w *writeSide) signalFlushed() {
	if w.flushed != nil {
		close(w.flushed)
		w.flushed = nil
	}
}

// dropWaiters fails everybody who waits to write. mu is held.
func (c *Conn) dropWaiters() {
	w := &c.w
	err := w.refuse()
	if err == nil {
		err = errClosing
	}
	if t := w.resumer; t != nil {
		w.resumer = nil
		t.settle(done, err)
	}
	for t := w.pop(); t != nil; t = w.pop() {
		t.settle(done, err)
	}
}

// begin starts a batch with what has to leave first: replies that are held
// together, then control frames. mu and the frame lock are held.
func (c *Conn) begin() *batch {
	w := &c.w
	b := w.corked
	w.corked = nil
	if b == nil {
		b = newBatch(c)
	}
	c.takeControl(b)
	return b
}

// sendSingle sends a message of one frame, and with it those of writers that
// wait. mu and both locks are held; it releases all of them.
func (c *Conn) sendSingle(ctx context.Context, op wire.Opcode, p []byte) error {
	w := &c.w
	if c.mayCork(ctx, len(p)) {
		err := c.corkReply(op, p)
		if err != nil {
			return c.finish(errClosing) // our Close is on its way
		}
		c.release()
		w.mu.Unlock()
		return nil
	}
	b := c.begin()
	h, err := w.sender.Data(op, true, false, len(p))
	if err != nil {
		return c.ownFault(b, err)
	}
	c.traceFrame()
	b.frame(h, p, &b.self)
	var others bool
	for w.first != nil && w.first.single && !b.full(c.batchMax()) {
		t := w.pop()
		h, err := w.sender.Data(t.op, true, false, len(t.p))
		if err != nil {
			t.settle(done, err)
			continue
		}
		c.traceFrame()
		t.state = batched
		b.frame(h, t.p, t)
		others = true
	}
	w.mu.Unlock()
	err = b.write(ctx)
	w.mu.Lock()
	taken := b.self.err
	if (err == nil || err == errOthers) && taken == nil {
		w.sent.message(int64(len(p)), 1)
	}
	if err == errOthers {
		c.lend(b)
		w.mu.Unlock()
		return taken
	}
	var lost []*turn
	if others {
		lost = b.settleOthers()
	}
	w.waited(b.waited)
	b.free()
	if err == nil {
		c.release()
		if errors.Is(taken, errClosing) {
			taken = w.refuse()
		}
		w.mu.Unlock()
		return taken
	}
	err = c.finish(err)
	w.settleLost(lost, err)
	return err
}

// settleLost ends the wait of those whose messages were lost with the
// connection.
func (w *writeSide) settleLost(lost []*turn, err error) {
	if len(lost) == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range lost {
		t.settle(done, err)
	}
}

// settleOthers ends the wait of those whose messages were in b and are on the
// wire. It returns those that were lost with the connection. mu is held.
func (b *batch) settleOthers() (lost []*turn) {
	for i, p := range b.pieces {
		t := p.turn
		switch {
		case t == nil || t == &b.self || t.state != batched || !p.end:
		case i < b.at:
			b.c.w.sent.message(int64(len(t.p)), 1)
			t.settle(done, nil)
		default:
			lost = append(lost, t)
		}
	}
	return lost
}

// batchMax is how many bytes one batch takes.
func (c *Conn) batchMax() int {
	if c.role == RoleClient {
		return batchMaskedMax
	}
	return batchMax
}

// fragmentOpts say how the fragments of sendFragments stand in their message.
type fragmentOpts struct {
	last       bool   // they end the message
	compressed bool   // the message is compressed
	begun      bool   // fragments of the message are on the wire already
	head       []byte // payload of a fragment that comes before the others
	size       int64  // payload of the whole message, with last
}

// sendFragments sends p as fragments of the open message, at least one. mu and
// both locks are held, on return as well.
func (c *Conn) sendFragments(ctx context.Context, op wire.Opcode, p []byte, o fragmentOpts) error {
	w := &c.w
	if !w.lowat && (int64(len(p)) > lowatFrom || o.size > lowatFrom) {
		w.lowat = true
		setNotSentLowat(c.nc, lowatBytes)
	}
	fragMax := c.fragmentMax()
	if c.cfg.FragmentSize == 0 {
		fragMax = max(len(p), 1)
	}
	for first := true; first || len(p) > 0; first = false {
		if err := w.halt(); err != nil {
			return err
		}
		b := c.begin()
		b.self.begun = o.begun
		for {
			part := o.head
			if o.head = nil; len(part) == 0 {
				n := proto.Cut(p, fragMax, op == wire.Text && !o.compressed)
				part, p = p[:n], p[n:]
			}
			h, err := w.sender.Data(op, o.last && len(p) == 0, o.compressed, len(part))
			if err != nil {
				b.free()
				return err
			}
			c.traceFrame()
			b.frame(h, part, &b.self)
			if len(p) == 0 || b.full(c.batchMax()) {
				break
			}
		}
		b.goesOn = !o.last || len(p) > 0
		w.mu.Unlock()
		err := b.write(ctx)
		w.mu.Lock()
		w.waited(b.waited)
		taken := b.self.err
		if err == errOthers {
			c.lend(b)
			err = nil
		} else {
			b.free()
		}
		switch {
		case err != nil:
			return err
		case errors.Is(taken, errClosing):
			return taken // our Close went out between two fragments
		case taken != nil:
			w.sender.Abandon()
			return &unsentError{taken}
		}
		o.begun = true
	}
	if o.last {
		w.sent.message(o.size, w.sender.Fragments())
	}
	return nil
}

// An unsentError is the context's error of a message that was not begun.
type unsentError struct{ error }

func (e *unsentError) Unwrap() error { return e.error }

// halt is non-nil when nothing more may be sent.
func (w *writeSide) halt() error {
	if w.final != nil {
		return w.final
	}
	if w.sender.Closed() {
		return errClosing
	}
	return nil
}

const (
	// lowatFrom is the message size in bytes from which the kernel is asked to
	// hold little unsent data; smaller messages are no obstacle to a ping.
	lowatFrom = 64 << 10
	// lowatBytes is how much it may hold: at 10 Mbit/s about 50 ms.
	lowatBytes = 64 << 10
)

// finish ends a message and deals with the error that it met, if any. mu and
// both locks are held; it releases all of them.
func (c *Conn) finish(err error) error {
	w := &c.w
	w.open = false
	if err == nil {
		c.release()
		w.mu.Unlock()
		return nil
	}
	return c.finishFailed(err)
}

func (c *Conn) finishFailed(err error) error {
	w := &c.w
	var unsent *unsentError
	var ce *CloseError
	var cut *interruptedError
	switch {
	case errors.As(err, &unsent):
		c.release()
		w.mu.Unlock()
		return unsent.error
	case errors.Is(err, errClosing), errors.As(err, &ce):
		err = w.refuse()
		c.release()
		w.mu.Unlock()
		return err
	case errors.As(err, &cut) && !cut.inside:
		w.mu.Unlock()
		return c.fail(CloseInternalError, "message could not be finished", cut.cause, true)
	}
	w.mu.Unlock()
	return c.drop(err, true)
}

// ownFault fails the connection because our own side was about to break a rule.
// mu and both locks are held; it releases all of them.
func (c *Conn) ownFault(b *batch, err error) error {
	b.free()
	c.w.open = false
	c.w.mu.Unlock()
	return c.fail(CloseInternalError, "", err, true)
}

// sendPacked compresses p and sends it. The order of compression is the order
// of the wire, since a window may pass from message to message: it happens
// under the message lock. mu and both locks are held; it releases all of them.
func (c *Conn) sendPacked(ctx context.Context, op wire.Opcode, p []byte) error {
	w := &c.w
	w.mu.Unlock()
	buf := packBuffers.Get().(*messageBuffer)
	buf.b = w.deflater.AppendMessage(buf.b[:0], p)
	w.mu.Lock()
	err := c.sendFragments(ctx, op, buf.b, fragmentOpts{last: true, compressed: true, size: int64(len(buf.b))})
	var unsent *unsentError
	if errors.As(err, &unsent) {
		c.resetDeflater()
	}
	w.deflater.Release()
	if cap(buf.b) <= copiedKeepMax {
		packBuffers.Put(buf)
	}
	return c.finish(err)
}

// resetDeflater makes the deflater forget a message that the peer will not see
// to its end: nothing of it may get into the next one, and none refer to it.
func (c *Conn) resetDeflater() {
	c.w.deflater.Close()
	c.w.deflater.Reset(c.ownWindowBits(), c.ownTakeover())
}

var packBuffers = sync.Pool{New: func() any { return new(messageBuffer) }}

// A MessageWriter writes one message of unknown length. FIN travels on the last
// data fragment, so it holds back up to one fragment until Close. It belongs to
// one goroutine.
type MessageWriter struct {
	c    *Conn
	ctx  context.Context
	op   wire.Opcode
	stop func() bool

	// use is held by whoever is in one of the methods, or ends the message
	// because ctx has ended. It is a channel, so that waiting for it is like any
	// other waiting, and guards what follows.
	use    chan struct{}
	buf    []byte // payload of the next fragment
	text   proto.Text
	packed bool
	begun  bool
	closed bool
	err    error
	size   int64
}

// NextWriter starts a message of unknown length. Other writers wait until it is
// closed; control frames do not. ctx bounds the whole message: if it ends when
// a fragment has been sent, the connection is closed with 1011.
//
// The caller must Close the writer.
func (c *Conn) NextWriter(ctx context.Context, typ MessageType) (*MessageWriter, error) {
	if typ != Text && typ != Binary {
		return nil, errMessageType
	}
	w := &c.w
	w.mu.Lock()
	if err := c.acquire(ctx, wire.Opcode(typ), nil, false); err != nil {
		return nil, err
	}
	if w.final != nil {
		err := w.final
		c.release()
		w.mu.Unlock()
		return nil, err
	}
	w.open = true
	m := &MessageWriter{c: c, ctx: ctx, op: wire.Opcode(typ), packed: w.deflater != nil, use: make(chan struct{}, 1)}
	c.release()
	w.mu.Unlock()
	if ctx.Done() != nil {
		m.stop = context.AfterFunc(ctx, func() {
			m.use <- struct{}{}
			defer m.leave()
			m.abandon(ctx.Err())
		})
	}
	return m, nil
}

// enter takes hold of m, and fails if m may not be used any more.
func (m *MessageWriter) enter() error {
	m.use <- struct{}{}
	if err := m.usable(); err != nil {
		m.leave()
		return err
	}
	return nil
}

func (m *MessageWriter) leave() { <-m.use }

// usable is the error of a writer that may not be used any more.
func (m *MessageWriter) usable() error {
	switch {
	case m.closed:
		return errWriterClosed
	case m.err != nil:
		return m.err
	}
	m.c.w.mu.Lock()
	defer m.c.w.mu.Unlock()
	if m.c.w.final != nil {
		m.err = m.c.w.final
	}
	return m.err
}

// abandon ends a message that cannot be finished, so that others can go on, or
// learn that they cannot. m.use is held. It returns the error of m from now on.
func (m *MessageWriter) abandon(cause error) error {
	if err := m.usable(); err != nil {
		return err
	}
	c := m.c
	w := &c.w
	if m.begun {
		m.err = c.fail(CloseInternalError, "message could not be finished", cause, false)
		return m.err
	}
	m.err = cause
	w.mu.Lock()
	defer w.mu.Unlock()
	if m.packed {
		c.resetDeflater()
	}
	w.open = false
	if !w.busy { // else its holder gives way to the next when it is done
		w.busy = true
		c.release()
	}
	return m.err
}

// fragment is the payload size at which a fragment leaves.
func (m *MessageWriter) fragment() int {
	if m.c.cfg.FragmentSize == 0 {
		return fragmentSizeDefault
	}
	return m.c.fragmentMax()
}

// Write adds p to the message; full fragments leave at once. Text is checked
// as it comes: on the first byte that cannot be UTF-8 the message cannot be
// finished, and the connection is closed with 1011 if it was begun.
func (m *MessageWriter) Write(p []byte) (int, error) {
	if err := m.enter(); err != nil {
		return 0, err
	}
	defer m.leave()
	if m.op == wire.Text && m.text.Next(p) >= 0 {
		_ = m.abandon(errNotUTF8)
		return 0, errNotUTF8
	}
	n := len(p)
	if m.packed {
		m.buf = m.c.w.deflater.Append(m.buf, p)
		if len(m.buf) > m.fragment() {
			return n, m.send(m.buf, false)
		}
		return n, nil
	}
	for len(p) > 0 {
		room := m.fragment() - len(m.buf)
		switch {
		case len(p) <= room:
			// Held back: it may be the last, and FIN travels with it.
			m.buf = append(slices.Grow(m.buf, len(p)), p...)
			return n, nil
		case len(m.buf) == 0:
			// All but the last fragment leave from p itself.
			k := (len(p) - 1) / m.fragment() * m.fragment()
			if m.op == wire.Text {
				k = proto.CutText(p, k)
			}
			if err := m.transfer(nil, p[:k], false); err != nil {
				return 0, err
			}
			p = p[k:]
		case m.op == wire.Binary:
			// The fragment that is held, filled up, leaves together with those that
			// follow.
			m.buf = append(m.buf, p[:room]...)
			p = p[room:]
			k := max(len(p)-1, 0) / m.fragment() * m.fragment()
			if err := m.transfer(m.buf, p[:k], false); err != nil {
				return 0, err
			}
			m.buf, p = m.buf[:0], p[k:]
		default:
			m.buf = append(m.buf, p[:room]...)
			if err := m.send(m.buf, false); err != nil {
				return 0, err
			}
			if k := len(m.buf); k <= room {
				// The beginning of a character: it goes with the rest of p.
				room, m.buf = room-k, m.buf[:0]
			}
			p = p[room:]
		}
	}
	return n, nil
}

// ReadFrom adds everything that r gives to the message, in constant memory, and
// does not close it. It stops at r's error, which it returns unless it is io.EOF.
func (m *MessageWriter) ReadFrom(r io.Reader) (n int64, err error) {
	buf := readBuffers.Get().(*readBuffer)
	defer readBuffers.Put(buf)
	for empty := 0; ; {
		k, err := r.Read(buf.b[:])
		if k > 0 {
			w, err := m.Write(buf.b[:k])
			n += int64(w)
			if err != nil {
				return n, err
			}
			empty = 0
		} else if empty++; err == nil && empty > emptyReadsMax {
			return n, io.ErrNoProgress
		}
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// emptyReadsMax is how often a reader may give nothing and no error in a row.
const emptyReadsMax = 100

// send sends what is held, up to the last whole character, and keeps the rest.
func (m *MessageWriter) send(p []byte, last bool) error {
	keep := 0
	if m.op == wire.Text && !m.packed && !last {
		keep = len(p) - proto.CutText(p, len(p))
	}
	if keep == len(p) && !last {
		m.buf = p
		return nil
	}
	if err := m.transfer(nil, p[:len(p)-keep], last); err != nil {
		return err
	}
	m.buf = append(m.buf[:0], p[len(p)-keep:]...)
	return nil
}

// transfer puts head, as one fragment, and p on the wire.
func (m *MessageWriter) transfer(head, p []byte, last bool) error {
	c := m.c
	w := &c.w
	w.mu.Lock()
	if err := c.resume(m.ctx); err != nil {
		w.mu.Unlock()
		if m.ctx.Err() != nil {
			return m.abandon(m.ctx.Err())
		}
		if err := m.usable(); err != nil {
			return err
		}
		m.err = err
		return err
	}
	m.size += int64(len(head) + len(p))
	err := c.sendFragments(m.ctx, m.op, p, fragmentOpts{last: last, compressed: m.packed, begun: m.begun, head: head, size: m.size})
	switch {
	case err != nil:
		if m.packed {
			c.resetDeflater()
		}
		m.err = c.finish(err)
		return m.err
	case !last:
		m.begun = true
		c.release()
		w.mu.Unlock()
		return nil
	}
	m.closed = true
	if m.packed {
		w.deflater.Release()
	}
	return c.finish(nil)
}

// resume takes the frame lock for the holder of the message lock. mu is held
// on call and on return.
func (c *Conn) resume(ctx context.Context) error {
	w := &c.w
	if err := w.halt(); err != nil {
		return err
	}
	if !w.busy {
		w.busy = true
		return nil
	}
	t := &turn{ready: make(chan struct{})}
	w.resumer = t // there is one holder, and MessageWriter.use lets in one at a time
	w.mu.Unlock()
	err := c.await(ctx, t)
	if err != nil {
		w.mu.Lock()
	}
	return err
}

// Flush sends what is held as a fragment, if there is anything: for a message
// whose receiver reads it as a stream. Of text, an unfinished character stays.
func (m *MessageWriter) Flush() error {
	if err := m.enter(); err != nil {
		return err
	}
	defer m.leave()
	if m.packed {
		m.buf = m.c.w.deflater.Flush(m.buf)
	}
	if len(m.buf) == 0 {
		return nil
	}
	return m.send(m.buf, false)
}

// Close ends the message. Others may then write. Text that ends inside a
// character is refused, as Write refuses bad bytes.
func (m *MessageWriter) Close() error {
	if err := m.enter(); err != nil {
		return err
	}
	defer m.leave()
	if m.stop != nil {
		m.stop()
	}
	if m.op == wire.Text && !m.text.Complete() {
		_ = m.abandon(errNotUTF8)
		return errNotUTF8
	}
	if m.packed {
		m.buf = m.c.w.deflater.Finish(m.buf)
	}
	return m.send(m.buf, true)
}
