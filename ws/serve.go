package ws

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/weft-ws/weft/internal/proto"
	"github.com/weft-ws/weft/internal/wire"
)

// A Handler is called for what happens on a connection, always from one
// goroutine, which is the connection's own.
//
// The ctx that its functions get ends with the connection. Replies written with
// that very ctx while more input is at hand leave together, when the input is
// consumed, when 64 KiB have gathered, or after a millisecond: a server that
// answers sixteen requests that came in one segment pays for one system call.
// The reply to a lone message leaves at once, and so does everything that is
// written with another ctx.
type Handler struct {
	// Open is called before the first message. An error closes the connection as
	// Message's does. May be nil.
	Open func(ctx context.Context, c *Conn) error

	// Message is called for each message. p is valid until it returns; a slow
	// Message keeps the peer waiting (that is the backpressure), and pings with
	// it. An error closes the connection: a *CloseError with its code and reason,
	// any other with 1011. So does a panic, which is logged.
	Message func(ctx context.Context, c *Conn, typ MessageType, p []byte) error

	// Closed is called last, with the connection's final error. May be nil.
	Closed func(c *Conn, err error)
}

// A handlerCtx is a Conn as the context of its Handler, which ends with the
// connection.
type handlerCtx Conn

func (h *handlerCtx) Deadline() (time.Time, bool) { return time.Time{}, false }
func (h *handlerCtx) Done() <-chan struct{}       { return (*Conn)(h).Done() }
func (h *handlerCtx) Value(any) any               { return nil }

func (h *handlerCtx) Err() error {
	select {
	case <-h.Done():
		return context.Canceled
	default:
		return nil
	}
}

// isHandlerCtx reports whether ctx is the very one that handlers are given. It
// ends with the connection, so nobody need watch it.
func (c *Conn) isHandlerCtx(ctx context.Context) bool {
	h, ok := ctx.(*handlerCtx)
	return ok && (*Conn)(h) == c
}

const (
	// corkedMax is how many bytes of replies are held together.
	corkedMax = 64 << 10
	// corkDelay bounds how long they are held when the handler is slow.
	corkDelay = time.Millisecond
)

// errServing is the error of reads on a connection that a Handler reads.
var errServing = errors.New("ws: a Handler reads this connection")

// errTakenOver ends a callback loop that finds, on its way back inside, that
// whoever closes the connection reads it now.
var errTakenOver = errors.New("ws: the closing handshake reads this connection")

// startServe reads the connection for h until it ends, on a goroutine of its
// own, and then calls finally. The read side belongs to it at once.
func (c *Conn) startServe(h Handler, finally func()) {
	l := &callbackLoop{c: c, h: h, finally: finally}
	if l.owner = c.r.lock.serve(); l.owner {
		c.r.serving = true
	}
	go l.run()
}

// A callbackLoop reads a connection for its Handler. It waits for input where
// its stack is low, also in the middle of a message, and keeps what it has here
// rather than there: the goroutine of a connection that is silent gets by with
// the smallest stack there is.
type callbackLoop struct {
	c       *Conn
	h       Handler
	finally func()
	buf     *messageBuffer // what has come of a message that takes several reads, or nil
	owner   bool           // the read side is the loop's; false if the connection had ended already
}

func (l *callbackLoop) run() {
	if l.owner {
		l.loop()
	}
	<-l.c.Done()
	if l.h.Closed != nil {
		l.c.guard(func() error { l.h.Closed(l.c, l.c.Err()); return nil })
	}
	l.finally()
}

// loop is run from inside the read lock.
func (l *callbackLoop) loop() {
	err := l.open()
	for err == nil {
		if err = l.c.awaitInput(); err == nil {
			err = l.step()
		}
	}
	if l.buf != nil {
		l.buf.release()
		l.buf = nil
	}
	if err != errTakenOver {
		l.c.r.publish()
		l.c.r.lock.leave()
	}
}

// waitsHere reports whether awaitInput waits for input, and nobody further in.
func (c *Conn) waitsHere() bool { return c.r.serving && c.raw != nil }

// awaitInput waits for input when there is none. It is fill's own wait.
func (c *Conn) awaitInput() error {
	r := &c.r
	if len(r.in) > 0 || !c.waitsHere() {
		return nil
	}
	c.flushOwed()
	if r.recv.Timed() {
		if err := r.recv.Tick(time.Now()); err != nil {
			return c.failRead(err)
		}
		c.setReadDeadline(r.recv.Deadline())
	}
	r.publish()
	ctx := (*handlerCtx)(c)
	n, err := c.fillRaw(ctx, nil)
	_, err = c.filled(ctx, nil, n, err)
	return err
}

// open calls h.Open.
func (l *callbackLoop) open() error {
	if l.h.Open == nil {
		return nil
	}
	c := l.c
	c.r.lock.leave()
	return c.afterHandler(c.guard(func() error { return l.h.Open((*handlerCtx)(c), c) }))
}

// step reads one message and calls the handler, or reads as much as is at hand
// of a message that takes several reads.
func (l *callbackLoop) step() error {
	c, r := l.c, &l.c.r
	ctx := (*handlerCtx)(c)
	var p []byte
	var typ MessageType
	var ev *proto.Event
	var err error
	if l.buf == nil {
		if c.waitsHere() {
			ev, err = c.atHand()
		} else {
			ev, err = c.next(ctx)
		}
		if ev == nil || err != nil {
			return err
		}
		p, typ = ev.Payload, MessageType(ev.Opcode)
		if !(ev.First && ev.Last) || ev.Compressed {
			l.buf = messageBuffers.Get().(*messageBuffer)
		}
	}
	if l.buf != nil {
		if typ, _, err = c.collect(ctx, l.buf, ev); err == errMore {
			return nil
		} else if err != nil {
			return err
		}
		p = l.buf.b
	}
	more := len(r.in) > 0
	if c.w.gathering.Load() != more {
		c.w.gathering.Store(more)
		r.owes = r.owes || more
	}
	if !more {
		r.publish() // who gets the answer finds the question counted
	}
	r.lock.leave()
	err = l.message(ctx, typ, p)
	if l.buf != nil {
		l.buf.release()
		l.buf = nil
	}
	return c.afterHandler(err)
}

// message calls h.Message and turns a panic into an error.
func (l *callbackLoop) message(ctx context.Context, typ MessageType, p []byte) (err error) {
	defer l.c.recovered(&err)
	return l.h.Message(ctx, l.c, typ, p)
}

func (c *Conn) guard(f func() error) (err error) {
	defer c.recovered(&err)
	return f()
}

// recovered turns a panic into an error: it costs one connection, not the
// process.
func (c *Conn) recovered(err *error) {
	v := recover()
	if v == nil {
		return
	}
	*err = fmt.Errorf("handler panicked: %v", v)
	if log := c.cfg.Logger; log != nil {
		log.Error("handler panicked", "remote", c.RemoteAddr(), "panic", v, "stack", string(debug.Stack()))
	}
}

// afterHandler steps inside again, and closes the connection for a handler's
// error.
func (c *Conn) afterHandler(err error) error {
	if !c.r.lock.enter() {
		return errTakenOver
	}
	if err == nil {
		return nil
	}
	var ce *CloseError
	if errors.As(err, &ce) && ce.Code.Sendable() && ce.Sent == nil && ce.Received == nil {
		return c.fail(ce.Code, ce.Reason, err, false)
	}
	return c.fail(CloseInternalError, "", err, false)
}

// mayCork reports whether a reply of n bytes may wait for those that follow.
// mu and both locks are held.
func (c *Conn) mayCork(ctx context.Context, n int) bool {
	w := &c.w
	return w.gathering.Load() && c.isHandlerCtx(ctx) && w.first == nil &&
		(w.corked == nil || w.corked.size+n+wire.HeaderMax <= corkedMax) && n < corkedMax/2
}

// corkReply holds a reply. mu and both locks are held.
func (c *Conn) corkReply(op wire.Opcode, p []byte) error {
	w := &c.w
	h, err := w.sender.Data(op, true, false, len(p))
	if err != nil {
		return err
	}
	w.sent.message(int64(len(p)), 1)
	c.traceFrame()
	if w.corked == nil {
		w.corked = newBatch(c)
		if w.corkTimer == nil {
			w.corkTimer = time.AfterFunc(corkDelay, c.flushReplies)
		} else {
			// It is not stopped when the replies leave: to fire once for nothing
			// when a peer falls silent costs less than to be stopped for each batch.
			w.corkTimer.Reset(corkDelay)
		}
	}
	w.corked.cork(h, p)
	return nil
}

// flushOwed is flushReplies where there can be something to send: a pong, or a
// reply made while more input was at hand.
func (c *Conn) flushOwed() {
	if c.r.owes {
		c.r.owes = false
		c.flushReplies()
	}
}

// flushReplies sends the replies that are held and the pongs that are owed.
func (c *Conn) flushReplies() {
	w := &c.w
	if w.gathering.Load() {
		w.gathering.Store(false)
	}
	w.mu.Lock()
	if w.busy || w.final != nil || w.corked == nil && !w.control.due() {
		w.mu.Unlock() // whoever is busy sends what is due
		return
	}
	w.busy = true
	c.flush()
}
