package ws

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/weft-ws/weft/internal/proto"
)

// errClosing is the error of reads and writes that begin after Close was called
// and before the closing handshake is over.
var errClosing = fmt.Errorf("ws: closing handshake under way: %w", net.ErrClosed)

// reasonMax is the longest close reason in bytes: a control frame's payload
// less the code.
const reasonMax = 123

// Done returns a channel that is closed when the connection is over: its socket
// is closed and nothing of it runs any more. Err then says why.
func (c *Conn) Done() <-chan struct{} {
	c.life.mu.Lock()
	defer c.life.mu.Unlock()
	if c.life.done == nil {
		c.life.done = make(chan struct{})
		if c.life.ended {
			close(c.life.done)
		}
	}
	return c.life.done
}

// Err is why the connection ended, a *CloseError, or nil while it has not.
func (c *Conn) Err() error { return c.ended() }

// Close runs the closing handshake: it lets a message in flight finish if it can
// do so within CloseTimeout, sends a Close frame, and waits for the peer's for up
// to CloseTimeout. Messages that wait for their turn fail. It reads, and drops,
// what the peer still sends, unless somebody else is reading. Then it waits for
// the end of TCP: a client for CloseTimeout, a server for a second.
//
// It returns nil if both Close frames were exchanged, whoever began; otherwise
// the connection's *CloseError. It may be called more than once, and from a
// Handler. CloseNoStatus sends a Close without a code. A code that may not be
// sent, or a reason that is not UTF-8 or over 123 bytes, is refused and nothing
// happens.
func (c *Conn) Close(code CloseCode, reason string) error {
	ctx, cancel := context.Background(), context.CancelFunc(func() {})
	if d := c.cfg.CloseTimeout; d > 0 {
		ctx, cancel = context.WithTimeout(ctx, d)
	}
	defer cancel()
	if err := c.startClose(code, reason); err != nil {
		return err
	}
	c.awaitClose(ctx)
	<-c.Done()
	return c.closedBy()
}

// CloseSend is the first half of Close: it sends a Close frame as soon as a
// message in flight is finished, and returns at once. Whoever reads goes on to
// get what the peer still sends before its own Close. If that does not come
// within CloseTimeout the connection is dropped.
func (c *Conn) CloseSend(code CloseCode, reason string) error {
	if err := c.startClose(code, reason); err != nil {
		return err
	}
	if d := c.cfg.CloseTimeout; d > 0 {
		c.life.mu.Lock()
		defer c.life.mu.Unlock()
		if !c.life.over && c.life.closing == nil {
			c.life.closing = time.AfterFunc(d, c.closeTimedOut)
		}
	}
	return nil
}

// startClose queues our Close behind the message in flight.
func (c *Conn) startClose(code CloseCode, reason string) error {
	switch {
	case code == CloseNoStatus && reason != "", code != CloseNoStatus && !code.Sendable():
		return errCloseCode
	case len(reason) > reasonMax || !utf8.ValidString(reason):
		return errCloseReason
	}
	w := &c.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.final != nil || w.closing {
		return nil
	}
	w.closing = true
	for t := w.pop(); t != nil; t = w.pop() {
		t.settle(done, errClosing)
	}
	w.control.later = &CloseFrame{Code: code, Reason: reason}
	if !w.busy && !w.open {
		w.busy = true
		c.release() // finds the Close and sends it
	}
	return nil
}

// closedBy is nil if both Close frames were exchanged.
func (c *Conn) closedBy() error {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if c.w.closes.Done() && (c.w.final.Cause == nil || c.w.final.Cause == errCutShort) {
		return nil
	}
	return c.w.final
}

// awaitClose waits for the peer's Close, reading if nobody else does, and gives
// up when ctx ends.
func (c *Conn) awaitClose(ctx context.Context) {
	for {
		outside, over := c.r.lock.whenOutside()
		switch {
		case over:
			select {
			case <-c.Done():
				return
			case <-ctx.Done():
			}
		case outside == nil:
			if !c.r.lock.takeOver() {
				continue
			}
			c.detachInput()
			for {
				if _, err := c.next(ctx); err != nil {
					break
				}
			}
			c.r.publish()
			c.r.lock.leave()
		default:
			select {
			case <-outside:
				continue
			case <-c.Done():
				return
			case <-ctx.Done():
			}
		}
		break
	}
	if ctx.Err() != nil {
		c.closeTimedOut()
	}
}

// closeTimedOut ends a closing handshake for which the peer, or a message in
// flight, took too long.
func (c *Conn) closeTimedOut() {
	c.w.mu.Lock()
	frame := c.w.control.later
	sent := c.w.sender.Closed()
	c.w.mu.Unlock()
	err := &TimeoutError{Limit: "CloseTimeout", After: c.cfg.CloseTimeout}
	if frame != nil && !sent {
		c.fail(frame.Code, frame.Reason, err, false)
		return
	}
	c.drop(err, false)
}

// detachInput leaves the read buffer to a handler that may still look at it, and
// goes on in another.
func (c *Conn) detachInput() {
	r := &c.r
	if r.buf == nil {
		return
	}
	rest := append([]byte(nil), r.in...)
	r.buf, r.in = nil, rest
}

// CloseNow drops the connection without a closing handshake. A connection that
// is ending already, because of an error that a read has just returned, say, is
// left to come to its end, which CloseTimeout bounds: the peer is still to learn
// why. So CloseNow may be deferred.
func (c *Conn) CloseNow() error {
	if c.ended() == nil {
		c.drop(nil, false)
	}
	return nil
}

// kill closes the socket, whatever is under way.
func (c *Conn) kill() {
	c.drop(nil, false)
}

// fail ends the connection for the given cause, with a Close of the given code.
// holding says that the caller has the frame lock. It returns the connection's
// final error and leaves the rest to a goroutine that CloseTimeout bounds.
func (c *Conn) fail(code CloseCode, reason string, cause error, holding bool) error {
	w := &c.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.final != nil {
		if holding {
			c.release()
		}
		return w.final
	}
	// RFC 6455, 5.5.1: the reason is "UTF-8-encoded data", also when a handler
	// gave it.
	reason = strings.ToValidUTF8(reason, "\uFFFD")
	reason = reason[:proto.CutText([]byte(reason), reasonMax)]
	frame := &CloseFrame{Code: code, Reason: reason}
	if !w.sender.Closed() {
		w.control.frame, w.control.later = frame, nil
		w.closes.Sent(code, reason)
	}
	sent, received, remote := w.closes.Frames()
	w.setFinal(&CloseError{Code: code, Reason: reason, Remote: remote, Sent: sent, Received: received, Cause: cause})
	c.beginEnd(holding)
	return w.final
}

// beginEnd starts the end of the connection. mu is held. Our Close leaves at
// once if the socket takes it: a program that ends when a call has told it that
// the connection is over need not wait for anything to let the peer know why.
func (c *Conn) beginEnd(holding bool) {
	if !holding {
		holding = c.w.lockFrame()
	}
	c.dropWaiters()
	var rest *batch
	if holding {
		rest = c.tryLast()
	}
	go c.teardown(holding, rest)
}

// tryLast sends what is due, our Close last, without waiting for the network. It
// returns what the socket has not taken, or nil. mu and the frame lock are held.
func (c *Conn) tryLast() *batch {
	w := &c.w
	if !w.control.due() && w.corked == nil {
		return nil
	}
	b := c.begin()
	if c.raw != nil {
		b.once = true
		_ = c.raw.Write(b.try) // teardown meets the error again
		b.once = false
	}
	if !b.done() {
		return b
	}
	w.waited(b.waited)
	b.free()
	return nil
}

// lockFrame takes the frame lock if it is free. mu is held.
func (w *writeSide) lockFrame() bool {
	if w.busy {
		return false
	}
	w.busy = true
	return true
}

// gotClose deals with the peer's Close. It returns the connection's final error.
func (c *Conn) gotClose(code CloseCode, reason string) error {
	w := &c.w
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closes.Received(code, reason)
	if w.final != nil {
		return w.final
	}
	first := CloseFrame{Code: code, Reason: reason}
	if sent, _, _ := w.closes.Frames(); sent != nil {
		first = *sent
	} else {
		// RFC 6455, 5.5.1: "If an endpoint receives a Close frame and did not
		// previously send a Close frame, the endpoint MUST send a Close frame in
		// response." It may pass between the fragments of a message of ours.
		answer := w.closes.Answer()
		if answer == CloseMandatoryExtension && c.role == RoleServer {
			// 7.4.1: "this status code is not used by the server".
			answer = CloseNormal
		}
		w.control.frame, w.control.later = &CloseFrame{Code: answer}, nil
		w.closes.Sent(answer, "")
	}
	sent, received, remote := w.closes.Frames()
	e := &CloseError{Code: first.Code, Reason: first.Reason, Remote: remote, Sent: sent, Received: received}
	if remote && c.r.recv.Open() {
		e.Cause = errCutShort // legal, but whoever reads is to know
	}
	w.setFinal(e)
	c.beginEnd(false)
	return w.final
}

// teardown ends the connection: it sends what is due, our Close last, lets the
// peer read it, and closes the socket. holding says that the frame lock is ours,
// rest is what tryLast has left.
func (c *Conn) teardown(holding bool, rest *batch) {
	w := &c.w
	var until time.Time
	if d := c.cfg.CloseTimeout; d > 0 {
		until = time.Now().Add(d)
		c.limitWrites(until)
	}
	w.mu.Lock()
	for !holding {
		// Whoever has the frame lock sends our Close at the next boundary, or
		// comes to the end of the deadline above.
		if !w.busy {
			w.busy, holding = true, true
			break
		}
		if w.flushed == nil {
			w.flushed = make(chan struct{})
		}
		flushed := w.flushed
		w.mu.Unlock()
		<-flushed
		w.mu.Lock()
	}
	if rest == nil && (w.control.due() || w.corked != nil) {
		rest = c.begin()
	}
	if rest != nil {
		w.mu.Unlock()
		_ = rest.write(context.Background()) // an error means that the peer is gone
		w.mu.Lock()
		w.waited(rest.waited)
		rest.free()
	}
	w.busy = false
	c.dropWaiters()
	w.signalFlushed()
	exchanged := w.closes.Done()
	w.mu.Unlock()
	if outside := c.r.lock.finish(); outside != nil {
		c.interruptRead()
		<-outside
	}
	c.linger(until, exchanged)
	_ = c.nc.Close()
	c.over()
}

// farewellTime is how long a client may take to end TCP when both Close frames
// were exchanged and nothing else is owed.
const farewellTime = time.Second

// linger reads until the peer has closed its side. RFC 6455, 7.1.1: "one would
// call shutdown() with SHUT_WR on the socket, call recv() until obtaining a
// return value of 0 indicating that the peer has also performed an orderly
// shutdown, and finally call close() on the socket"; the server begins. Input
// that is unread when the socket is closed, or comes later, would make the
// system reset the connection and destroy our Close on its way.
func (c *Conn) linger(until time.Time, exchanged bool) {
	if c.role == RoleServer {
		if hc, ok := c.nc.(interface{ CloseWrite() error }); !ok || hc.CloseWrite() != nil {
			return
		}
		if exchanged {
			until = time.Now().Add(farewellTime)
		}
	}
	if until.IsZero() {
		// The application may wait for ever for a Close, but not for a FIN.
		until = time.Now().Add(closeTimeoutDefault)
	}
	c.resetRead()
	_ = c.nc.SetReadDeadline(until)
	drop := c.dropRaw
	if c.raw == nil {
		buf := make([]byte, lingerChunk)
		drop = func() (int, error) {
			n, err := c.nc.Read(buf)
			c.traceDropped(buf[:n])
			return n, err
		}
	}
	for {
		if n, err := drop(); n == 0 || err != nil {
			return
		}
	}
}

// lingerChunk is what one read of a peer's last bytes takes, where the wait for
// them needs the memory.
const lingerChunk = 2 << 10

// dropRaw reads once from a plain socket and drops what came. It waits without a
// buffer: many peers that never close must not cost one each.
func (c *Conn) dropRaw() (n int, err error) {
	waitErr := c.raw.Read(func(fd uintptr) bool {
		buf := readBuffers.Get().(*readBuffer)
		defer readBuffers.Put(buf)
		var again bool
		n, again, err = sysRead(fd, buf.b[:])
		c.traceDropped(buf.b[:max(n, 0)])
		return !again
	})
	return n, errors.Join(err, waitErr)
}

// traceDropped shows the hook bytes that nobody will read.
func (c *Conn) traceDropped(p []byte) {
	if t := c.trace(); len(p) > 0 && t != nil && t.Bytes != nil {
		t.Bytes(In, p)
	}
}

// drop ends the connection without a further frame. holding says that the
// caller has the frame lock. It returns the connection's final error.
func (c *Conn) drop(cause error, holding bool) error {
	w := &c.w
	w.mu.Lock()
	first := w.final == nil
	if first {
		e := &CloseError{Code: CloseAbnormal, Cause: cause}
		var remote bool
		e.Sent, e.Received, remote = w.closes.Frames()
		switch {
		case remote:
			e.Code, e.Reason, e.Remote = e.Received.Code, e.Received.Reason, true
		case e.Sent != nil:
			e.Code, e.Reason = e.Sent.Code, e.Sent.Reason
		}
		if cause == nil {
			e.Cause = errDropped
		}
		w.setFinal(e)
	}
	if holding {
		c.release()
	} else {
		c.dropWaiters()
	}
	err := w.final
	w.mu.Unlock()
	_ = c.nc.Close()
	if first {
		if outside := c.r.lock.finish(); outside != nil {
			// A reader finds the socket closed; it may be the caller itself.
			go func() {
				<-outside
				c.over()
			}()
		} else {
			c.over()
		}
	}
	return err
}

// errCutShort is the cause when the peer closes inside a message of its own.
var errCutShort = fmt.Errorf("inside an unfinished message: %w", io.ErrUnexpectedEOF)

// errDropped is the cause of CloseNow.
var errDropped = errors.New("dropped by CloseNow")

// over notes that the socket is closed.
func (c *Conn) over() {
	c.w.mu.Lock()
	cork := c.w.corkTimer
	c.w.mu.Unlock()
	l := &c.life
	l.mu.Lock()
	if l.over {
		l.mu.Unlock()
		return
	}
	l.over = true
	for _, t := range []*time.Timer{l.closing, cork} {
		if t != nil {
			t.Stop()
		}
	}
	if p := l.pings; p != nil && p.timer != nil {
		p.timer.Stop()
	}
	l.mu.Unlock()
	c.closeQueue()
	c.closeDeflate()
	c.forgetInput()
	err := c.w.finalError()
	if c.server != nil {
		c.server.remove(c)
	}
	if t := c.trace(); t != nil && t.Closed != nil {
		t.Closed(err)
	}
	if log := c.cfg.Logger; log != nil && !err.normal() && !errors.Is(err, errDropped) {
		log.Info("connection ended", "remote", c.RemoteAddr(), "code", uint16(err.Code), "err", err)
	}
	l.mu.Lock()
	if l.done != nil {
		close(l.done)
	}
	l.ended = true
	l.mu.Unlock()
}

func (w *writeSide) finalError() *CloseError {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.final
}
