package ws

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weft-ws/weft/internal/deflate"
	"github.com/weft-ws/weft/internal/proto"
	"github.com/weft-ws/weft/internal/wire"
)

// directMin is how many payload bytes of a frame must be missing for them to be
// read straight into the message, past the read buffer.
const directMin = readBufferSize

// A readSide belongs to whoever is inside its lock.
type readSide struct {
	lock    readLock
	recv    proto.Receiver
	paused  atomic.Bool // the reader waits for the Budget, not for the peer
	serving bool        // a callback loop reads; set before the first read
	held    bool        // the receiver's clocks are stopped
	owes    bool        // a callback loop may have something to send before it waits

	in  []byte      // read, not yet consumed: part of buf, or came with the handshake
	buf *readBuffer // nil while nothing is there

	try     func(fd uintptr) bool // c.attemptRead, made once
	dst     []byte                // where attemptRead reads to; nil: buf
	n       int
	err     error
	waitCtx context.Context
	stop    func() bool

	kept     *kept     // of a message whose read was cancelled; nil: nothing
	inflater *unpacker // nil: no compression
	charged  int64     // bytes of the present message charged to the budget

	count intake // of the owner
	mu    sync.Mutex
	seen  *intake // published from count; made with the first
}

// kept is what a cancelled read leaves to the next.
type kept struct {
	partial []byte       // of the message
	event   *proto.Event // what was read, and not taken
}

// keep returns what is kept for the next read, to add to it.
func (r *readSide) keep() *kept {
	if r.kept == nil {
		r.kept = new(kept)
	}
	return r.kept
}

// takePartial takes what is kept of a message that is not complete.
func (r *readSide) takePartial() []byte {
	if r.kept == nil {
		return nil
	}
	p := r.kept.partial
	if r.kept.partial = nil; r.kept.event == nil {
		r.kept = nil
	}
	return p
}

// takeEvent takes the event that is kept, or returns nil.
func (r *readSide) takeEvent() *proto.Event {
	if r.kept == nil {
		return nil
	}
	ev := r.kept.event
	if r.kept.event = nil; r.kept.partial == nil {
		r.kept = nil
	}
	return ev
}

// A Message is a complete data message.
type Message struct {
	Type      MessageType
	Data      []byte
	Fragments int // frames that it arrived in
}

func (r *readSide) snapshot() Traffic {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen == nil {
		return Traffic{}
	}
	return r.seen.snapshot()
}

// publish lets others see the counters.
func (r *readSide) publish() {
	if s := r.seen; s == nil && r.count.bytes == 0 ||
		s != nil && r.count.bytes == s.bytes && r.count.frames == s.frames && r.count.messages == s.messages {
		return // only the owner writes seen
	}
	r.mu.Lock()
	if r.seen == nil {
		r.seen = new(intake)
	}
	r.count.publish(r.seen)
	r.mu.Unlock()
}

// enter begins a call that reads; leave ends it.
func (c *Conn) enterRead(ctx context.Context) error {
	if err := c.r.lock.lock(ctx, c.refuseRead); err != nil {
		return err
	}
	c.resumeClocks()
	return nil
}

func (c *Conn) leaveRead(own bool) {
	c.holdClocks()
	c.r.publish()
	if own {
		c.r.lock.leave()
	} else {
		c.r.lock.unlock()
	}
}

// holdClocks stops the receiver's clocks: what follows is the application's
// time, not the peer's.
func (c *Conn) holdClocks() {
	if c.r.recv.Timed() {
		c.r.held = true
		c.r.recv.Hold(time.Now())
	}
}

func (c *Conn) resumeClocks() {
	if c.r.held {
		c.r.held = false
		c.r.recv.Resume(time.Now())
	}
}

// refuseRead is the error of a reader that comes too late.
func (c *Conn) refuseRead() error {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if c.w.final != nil {
		return c.w.final
	}
	return errClosing
}

// next returns the next piece of a data message. Control frames are dealt with
// on the way. Its payload is valid until the next call.
func (c *Conn) next(ctx context.Context) (*proto.Event, error) {
	if ev := c.r.takeEvent(); ev != nil {
		return ev, nil
	}
	for {
		if ev, err := c.atHand(); ev != nil || err != nil {
			return ev, err
		}
		c.flushOwed()
		if _, err := c.fill(ctx, nil); err != nil {
			return nil, err
		}
	}
}

// atHand is next without a wait: it returns nil when the input is used up.
func (c *Conn) atHand() (*proto.Event, error) {
	r := &c.r
	for len(r.in) > 0 {
		ev := c.event()
		n, err := r.recv.Step(ev, r.in)
		r.in = r.in[n:]
		if ev.FrameStart {
			c.gotFrame(ev)
		}
		if err != nil {
			return nil, c.failRead(err)
		}
		switch ev.Kind {
		case proto.Data:
			if ev.Last {
				r.count.message(r.recv.Received(), r.recv.Fragments())
			}
			return ev, nil
		case proto.Ping:
			c.gotPing(ev.Payload)
		case proto.Pong:
			c.gotPong(ev.Payload)
		case proto.Close:
			code, reason := ev.Code, string(ev.Payload)
			c.releaseBuf() // nothing that follows counts
			return nil, c.gotClose(code, reason)
		}
	}
	return nil, nil
}

// gather takes the payload of whole fragments that are at hand into dst, as far
// as they neither begin nor end a message, and returns how much that is. They
// need no event each; whoever traces frames gets one all the same.
func (c *Conn) gather(dst []byte) int {
	r := &c.r
	if t := c.trace(); len(r.in) == 0 || r.kept != nil || t != nil && t.Frame != nil {
		return 0
	}
	n, took, frames := r.recv.Gather(dst, r.in)
	r.in = r.in[took:]
	r.count.frames += uint64(frames)
	return n
}

// gotFrame counts a frame whose header was accepted.
func (c *Conn) gotFrame(ev *proto.Event) {
	t := &c.r.count
	t.frames++
	if ev.Kind != proto.Data { // a data frame is one at once, also without payload
		t.control++
	}
	if trace := c.trace(); trace != nil && trace.Frame != nil {
		trace.Frame(c.r.recv.Frame())
	}
}

// nextDirect reads payload of the current frame straight into dst, which is not
// empty.
func (c *Conn) nextDirect(ctx context.Context, dst []byte) (*proto.Event, error) {
	r := &c.r
	if want := r.recv.Want(); int64(len(dst)) > want {
		dst = dst[:want]
	}
	c.flushOwed()
	n, err := c.fill(ctx, dst)
	if err != nil {
		return nil, err
	}
	ev := c.event()
	if _, err := r.recv.Step(ev, dst[:n]); err != nil {
		return nil, c.failRead(err)
	}
	if ev.Last {
		r.count.message(r.recv.Received(), r.recv.Fragments())
	}
	return ev, nil
}

// fill reads the network once, into dst, or else into the read buffer, which
// becomes in. The error is ctx's if that ends first: then nothing was lost. Any
// other error is final.
func (c *Conn) fill(ctx context.Context, dst []byte) (int, error) {
	r := &c.r
	for {
		if r.recv.Timed() {
			if err := r.recv.Tick(time.Now()); err != nil {
				return 0, c.failRead(err)
			}
		}
		r.publish()
		var n int
		var err error
		if c.raw != nil {
			n, err = c.fillRaw(ctx, dst)
		} else {
			n, err = c.fillGeneric(ctx, dst)
		}
		if n, err = c.filled(ctx, dst, n, err); n > 0 || err != nil {
			return n, err
		}
	}
}

// filled deals with the outcome of a read of the network: n bytes, a final
// error, or neither if the reader was woken for no reason of its own.
func (c *Conn) filled(ctx context.Context, dst []byte, n int, err error) (int, error) {
	r := &c.r
	if r.stop != nil {
		r.stop()
		r.stop = nil
	}
	if n > 0 {
		if dst == nil {
			dst = r.buf.b[:]
			r.in = dst[:n]
		}
		if c.cfg.ControlRate > 0 {
			r.recv.Refill(time.Now())
		}
		c.received(dst[:n])
		return n, nil
	}
	c.releaseBuf()
	if err == nil {
		err = io.EOF
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		if r.waitCtx = nil; err == ctx.Err() {
			return 0, err
		}
		return 0, c.failRead(err)
	}
	// Reset first, look afterwards: who interrupts sets the reason first.
	c.resetRead()
	if err := c.ended(); err != nil {
		return 0, err
	}
	return 0, ctx.Err()
}

// received counts and traces bytes before they are unmasked.
func (c *Conn) received(p []byte) {
	c.r.count.bytes += uint64(len(p))
	if t := c.trace(); t != nil && t.Bytes != nil {
		t.Bytes(In, p)
	}
}

func (c *Conn) fillRaw(ctx context.Context, dst []byte) (int, error) {
	r := &c.r
	r.dst, r.n, r.err, r.waitCtx = dst, 0, nil, ctx
	if err := c.raw.Read(r.try); err != nil {
		return 0, err
	}
	return r.n, r.err
}

// attemptRead is one try on a raw socket; false means to be called again when
// there is something. It takes a buffer for the moment of the try only.
func (c *Conn) attemptRead(fd uintptr) bool {
	r := &c.r
	p := r.dst
	if p == nil {
		c.takeBuf()
		p = r.buf.b[:]
	}
	n, again, err := sysRead(fd, p)
	if !again {
		r.n, r.err = n, err
		return true
	}
	c.releaseBuf()
	return !c.waitRead()
}

// waitRead prepares to wait for the network; false means not to.
func (c *Conn) waitRead() bool {
	r := &c.r
	if r.recv.Timed() {
		c.setReadDeadline(r.recv.Deadline())
	}
	if r.stop == nil && r.waitCtx != nil && !c.isHandlerCtx(r.waitCtx) && r.waitCtx.Done() != nil {
		if err := r.waitCtx.Err(); err != nil {
			r.err = err
			return false
		}
		r.stop = context.AfterFunc(r.waitCtx, c.interruptRead)
	}
	return true
}

func (c *Conn) fillGeneric(ctx context.Context, dst []byte) (int, error) {
	r := &c.r
	r.waitCtx = ctx
	if dst == nil {
		c.takeBuf()
		dst = r.buf.b[:]
	}
	if !c.waitRead() {
		// The context has ended already. If something is there no waiting is
		// needed, and the read succeeds.
		c.setReadDeadline(time.Now().Add(time.Millisecond))
		n, err := c.nc.Read(dst)
		if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
			c.resetRead()
			err = r.err
		}
		return n, err
	}
	return c.nc.Read(dst)
}

func (c *Conn) takeBuf() {
	if c.r.buf == nil {
		c.r.buf = readBuffers.Get().(*readBuffer)
	}
}

// event is where the latest event is kept: with the read buffer, since an idle
// connection has neither.
func (c *Conn) event() *proto.Event {
	c.takeBuf()
	return &c.r.buf.ev
}

func (c *Conn) releaseBuf() {
	if c.r.buf != nil {
		c.r.buf.ev.Payload = nil
		readBuffers.Put(c.r.buf)
		c.r.buf, c.r.in = nil, nil
	}
}

// forgetInput drops what was read and will not be asked for: the connection is
// over, and nobody is inside the read lock. A handler or a MessageReader may
// still look at the memory, so it does not go back to the pool.
func (c *Conn) forgetInput() {
	r := &c.r
	r.buf, r.in, r.kept = nil, nil, nil
}

// refuse ends the connection for a mistake of the peer.
func (c *Conn) refuse(code CloseCode, reason string, cause error) error {
	if f := c.cfg.CloseWith; f != nil {
		code, reason = f(cause, code, reason)
	}
	return c.fail(code, reason, cause, false)
}

// failRead ends the connection for what the receiver or the network said.
func (c *Conn) failRead(err error) error {
	c.releaseBuf()
	var v *ProtocolError
	var l *LimitError
	var t *TimeoutError
	switch {
	case errors.As(err, &v):
		if trace := c.trace(); trace != nil && trace.Violation != nil {
			trace.Violation(v)
		}
		return c.refuse(v.Rule.Code, v.Rule.ID+" "+v.Rule.Name, v)
	case errors.As(err, &l):
		return c.refuse(l.Code, "over "+l.Limit+" "+fmt.Sprint(l.Max), l)
	case errors.As(err, &t):
		return c.refuse(t.Code, t.Limit+" "+t.After.String(), t)
	}
	if err := c.ended(); err != nil {
		return err
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return c.drop(fmt.Errorf("stream ended %s: %w", c.r.recv.Where(), err), false)
}

// ended is the connection's final error, or nil.
func (c *Conn) ended() error {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if c.w.final != nil {
		return c.w.final
	}
	return nil
}

// take moves the payload of ev into buf.
func (c *Conn) take(ctx context.Context, buf *messageBuffer, ev *proto.Event) error {
	if !ev.Compressed {
		if err := buf.room(ctx, c, len(ev.Payload)); err != nil {
			return err
		}
		buf.b = append(buf.b, ev.Payload...)
		return nil
	}
	for {
		if err := buf.room(ctx, c, 1); err != nil { // it grows as bytes come
			return err
		}
		n, ns, done, err := c.inflate(buf.b[len(buf.b):buf.end(c)], ev.Payload, ev)
		if err != nil {
			return err // final, and ev is another's: the read buffer has been given back
		}
		buf.b, ev.Payload = buf.b[:len(buf.b)+n], ev.Payload[ns:]
		if done || len(ev.Payload) == 0 && !ev.Last && n == 0 {
			return nil
		}
	}
}

// inflate turns compressed payload of the present message into dst, at most up
// to the limit, and checks text.
func (c *Conn) inflate(dst, src []byte, ev *proto.Event) (nd, ns int, done bool, err error) {
	r := &c.r
	limit := c.cfg.MaxMessageSize
	z := r.inflater
	if limit > 0 && int64(len(dst)) > limit-z.size+1 {
		dst = dst[:limit-z.size+1]
	}
	nd, ns, done, err = z.Step(dst, src, ev.Last)
	if err != nil {
		v := &ProtocolError{Rule: proto.RuleByID("DF-10"), From: c.role.Peer(), Frame: r.recv.Frame(), Detail: err.Error()}
		var de *deflate.Error
		if errors.As(err, &de) {
			v.Rule, v.Detail = proto.RuleByID(de.RuleID), de.Detail
		}
		v.Offset = v.Frame.Offset
		return nd, ns, false, c.failRead(v)
	}
	z.size += int64(nd)
	if limit > 0 && z.size > limit {
		return nd, ns, false, c.failRead(&LimitError{Limit: "MaxMessageSize", Max: limit, Code: CloseMessageTooBig, Frame: r.recv.Frame()})
	}
	if ev.Opcode == wire.Text {
		bad := z.text.Next(dst[:nd])
		if bad >= 0 || done && !z.text.Complete() {
			v := &ProtocolError{Rule: proto.RuleByID("MS-05"), From: c.role.Peer(), Frame: r.recv.Frame(), Detail: "after inflation"}
			if bad < 0 {
				v.Rule = proto.RuleByID("MS-06")
			}
			v.Offset = v.Frame.Offset
			return nd, ns, false, c.failRead(v)
		}
	}
	if done {
		if trace := c.trace(); trace != nil && trace.Violation != nil && z.TailLeft() {
			// Tolerated: the message is whole.
			trace.Violation(&ProtocolError{Rule: proto.RuleByID("DF-13"), From: c.role.Peer(), Frame: r.recv.Frame(), Offset: r.recv.Frame().Offset})
		}
		z.size = 0
		z.text.Reset()
		z.Release()
	}
	return nd, ns, done, nil
}

// ReadMessage returns the next whole message; the caller owns the bytes. If ctx
// ends first nothing is lost: the next read carries on where this one stopped.
// A read that need not wait succeeds even on a ctx that has ended.
//
// After the end of the connection the error is its *CloseError.
func (c *Conn) ReadMessage(ctx context.Context) (MessageType, []byte, error) {
	m, err := c.readWhole(ctx)
	return m.Type, m.Data, err
}

// readWhole collects a message in a pooled buffer, and hands over a copy, or
// the buffer if it is large.
func (c *Conn) readWhole(ctx context.Context) (Message, error) {
	if err := c.enterRead(ctx); err != nil {
		return Message{}, err
	}
	buf := messageBuffers.Get().(*messageBuffer)
	typ, frags, err := c.collect(ctx, buf, nil)
	m := Message{Type: typ, Fragments: frags}
	if err == nil {
		if len(buf.b) < handOverMin {
			m.Data = append(make([]byte, 0, len(buf.b)), buf.b...)
		} else {
			m.Data = buf.handOver()
		}
	}
	buf.release()
	c.leaveRead(false)
	return m, err
}

// handOverMin is the message size in bytes from which ReadMessage gives its
// buffer away rather than a copy of it.
const handOverMin = 1 << 20

// AppendMessage is ReadMessage into the caller's memory: the message is
// appended to dst. It allocates only when dst has no room.
func (c *Conn) AppendMessage(ctx context.Context, dst []byte) (MessageType, []byte, error) {
	if err := c.enterRead(ctx); err != nil {
		return 0, dst, err
	}
	buf := messageBuffer{b: dst, base: len(dst), foreign: true}
	typ, _, err := c.collect(ctx, &buf, nil)
	c.leaveRead(false)
	if err != nil {
		return 0, dst, err
	}
	return typ, buf.b, nil
}

// errMore says that a message needs more input, for which a callback loop waits.
var errMore = errors.New("ws: more input is needed")

// collect reads a whole message into buf. A message that is begun is given as
// ev. In a callback loop that waits for input itself the error may be errMore:
// then it is to be called again with the same buf.
func (c *Conn) collect(ctx context.Context, buf *messageBuffer, ev *proto.Event) (MessageType, int, error) {
	r := &c.r
	buf.b = append(buf.b, r.takePartial()...)
	for {
		e := ev
		var err error
		switch want := r.recv.Want(); {
		case ev != nil:
			ev = nil
		case len(r.in) == 0 && r.kept == nil && want >= directMin && len(buf.b)-buf.base >= directMin/2 && !r.recv.Compressed():
			if err = buf.roomDirect(ctx, c, want); err != nil {
				break
			}
			n := len(buf.b)
			if e, err = c.nextDirect(ctx, buf.b[n:buf.end(c)]); err == nil {
				buf.b = buf.b[:n+len(e.Payload)]
				e.Payload = nil
			}
		case c.waitsHere():
			if e, err = c.atHand(); e == nil && err == nil {
				return 0, 0, errMore
			}
		default:
			e, err = c.next(ctx)
		}
		if err == nil && (len(e.Payload) > 0 || e.Compressed && e.Last) {
			if err = c.take(ctx, buf, e); err != nil && c.ended() == nil {
				left := *e
				r.keep().event = &left
			}
		}
		if err != nil {
			c.uncharge()
			if c.ended() == nil && (r.recv.Partial() || r.kept != nil) {
				r.keep().partial = append([]byte(nil), buf.b[buf.base:]...)
			}
			return 0, 0, err
		}
		if e.Last {
			c.uncharge()
			return MessageType(e.Opcode), r.recv.Fragments(), nil
		}
		n := len(buf.b)
		buf.b = buf.b[:n+c.gather(buf.b[n:buf.end(c)])]
	}
}

// Messages ranges over incoming messages. It ends after a normal closure (1000,
// 1001 or no code) and yields a final error after any other end, ctx's included.
func (c *Conn) Messages(ctx context.Context) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		for {
			m, err := c.readWhole(ctx)
			if err != nil {
				var ce *CloseError
				if !errors.As(err, &ce) || !ce.normal() {
					yield(Message{}, err)
				}
				return
			}
			if !yield(m, nil) {
				return
			}
		}
	}
}

// Drain reads and drops messages until the connection ends or ctx does. It
// returns nil after a normal closure.
func (c *Conn) Drain(ctx context.Context) error {
	for {
		m, err := c.NextReader(ctx)
		if err == nil {
			err = m.Discard()
		}
		if err != nil {
			var ce *CloseError
			if errors.As(err, &ce) && ce.normal() {
				return nil
			}
			return err
		}
	}
}

// A MessageReader reads one message. It belongs to one goroutine, and holds the
// read side of the connection until it has returned io.EOF or another error, or
// Discard was called.
type MessageReader struct {
	Type MessageType

	c   *Conn
	ctx context.Context
	ev  proto.Event // what was read and not yet handed out
	fin bool
	err error
}

// NextReader streams the next message without holding it in memory. ctx bounds
// the wait for its beginning and each Read. Other readers wait until it is
// finished.
func (c *Conn) NextReader(ctx context.Context) (*MessageReader, error) {
	if err := c.enterRead(ctx); err != nil {
		return nil, err
	}
	m := &MessageReader{c: c, ctx: ctx}
	if p := c.r.takePartial(); len(p) > 0 {
		// A cancelled ReadMessage has read part of it.
		m.ev = proto.Event{Kind: proto.Data, Payload: p, Opcode: c.r.recv.Opcode()}
		m.Type = MessageType(m.ev.Opcode)
		c.leaveRead(true)
		return m, nil
	}
	ev, err := c.next(ctx)
	if err != nil {
		c.leaveRead(false)
		return nil, err
	}
	m.ev, m.Type = *ev, MessageType(ev.Opcode)
	c.leaveRead(true)
	return m, nil
}

// Read reads into p. It returns io.EOF only after FIN; if the connection ends
// earlier errors.Is(err, io.ErrUnexpectedEOF) holds beside the *CloseError. If
// ctx ends first nothing is lost and Read may be called again after
// SetContext.
func (m *MessageReader) Read(p []byte) (n int, err error) {
	if m.err != nil {
		return 0, m.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	c := m.c
	if !c.r.lock.enter() {
		// Whoever closes the connection reads it now: nothing of it is ours.
		m.err = cutShort(c.refuseRead())
		return 0, m.err
	}
	c.resumeClocks()
	for n == 0 {
		if m.fin {
			return 0, m.end(io.EOF)
		}
		if m.ev.Compressed {
			var ns int
			var done bool
			n, ns, done, err = c.inflate(p, m.ev.Payload, &m.ev)
			m.ev.Payload = m.ev.Payload[ns:]
			m.fin = done
			if err != nil || n > 0 {
				break
			}
		} else {
			if n, err = m.copy(p); n > 0 {
				break
			}
		}
		if len(m.ev.Payload) == 0 && !m.ev.Last {
			if len(c.r.in) == 0 && len(p) >= directMin && c.r.recv.Want() >= directMin && !m.ev.Compressed {
				var ev *proto.Event
				if ev, err = c.nextDirect(m.ctx, p); err == nil {
					n, m.fin = len(ev.Payload), ev.Last
				}
				break
			}
			ev, nextErr := c.next(m.ctx)
			if nextErr != nil {
				err = nextErr
				break
			}
			m.ev = *ev
		}
	}
	if err != nil {
		if c.ended() == nil { // the context's: nothing is lost
			c.leaveRead(true)
			return n, err
		}
		return n, m.end(err)
	}
	c.leaveRead(true)
	return n, nil
}

// copy hands out the payload at hand, of as many fragments as have come.
func (m *MessageReader) copy(p []byte) (n int, err error) {
	for {
		k := copy(p[n:], m.ev.Payload)
		n += k
		m.ev.Payload = m.ev.Payload[k:]
		m.fin = m.ev.Last && len(m.ev.Payload) == 0
		if m.fin || n == 0 || n == len(p) {
			return n, nil
		}
		if n += m.c.gather(p[n:]); n == len(p) {
			return n, nil
		}
		ev, err := m.c.atHand()
		if ev == nil || err != nil {
			return n, err
		}
		m.ev = *ev
	}
}

// end finishes the message, from inside the lock.
func (m *MessageReader) end(err error) error {
	m.err = cutShort(err)
	m.c.leaveRead(false)
	return m.err
}

// cutShort turns the end of the connection into that of a message.
func cutShort(err error) error {
	var ce *CloseError
	if errors.As(err, &ce) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return &cutShortError{ce}
	}
	return err
}

// A cutShortError is the end of a connection inside a message.
type cutShortError struct{ *CloseError }

func (e *cutShortError) Unwrap() []error { return []error{e.CloseError, io.ErrUnexpectedEOF} }

// SetContext replaces the context given to NextReader for the reads to come.
func (m *MessageReader) SetContext(ctx context.Context) { m.ctx = ctx }

// Discard reads and drops the rest of the message.
func (m *MessageReader) Discard() error {
	if errors.Is(m.err, io.EOF) && m.err == io.EOF {
		return nil
	}
	buf := readBuffers.Get().(*readBuffer)
	defer readBuffers.Put(buf)
	for {
		if _, err := m.Read(buf.b[:]); err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
	}
}
