// Package wstest is the test kit of the engine: an in-memory network with
// faults, a peer that speaks frames by script, and a parser for the vectors
// under testdata.
//
// It knows the layout of frames and nothing of package ws, so that the
// engine's own tests can use it. Package oracle, below it, puts the doctor on
// a Pipe.
//
// A good order to read: pipe.go, peer.go, vector.go.
package wstest

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/weft-ws/weft/capture"
)

// WindowDefault is how many bytes each direction of a Pipe holds by default.
const WindowDefault = 64 << 10

// PipeOptions shape a Pipe. The zero value is a perfect network.
type PipeOptions struct {
	// Window is how many bytes each direction holds between a Write and the
	// other end's Read; a Write of more blocks. Unlike net.Pipe's it is not
	// zero, and unlike a socket's it is exact, so that two ends that wait for
	// each other show. Default WindowDefault.
	Window int

	// Client and Server are what befalls the bytes that this end sends.
	Client, Server Faults

	// Tap is told everything that goes into the pipe, both directions in one
	// order. Data is borrowed until it returns. It must not call the Pipe.
	Tap func(capture.Chunk)
}

// Faults befall one direction of a Pipe. Positions count the bytes sent in that
// direction; zero means never.
type Faults struct {
	// ReadMax bounds what one Read returns. With Rand each Read returns 1 to
	// ReadMax bytes.
	ReadMax int
	Rand    *rand.Rand
	// Rate is how many bytes per second arrive, so that time passes while a
	// message does. Default: all at once.
	Rate int

	// ResetAt resets the connection when so many bytes have been sent. The
	// receiver reads those, then both ends get ECONNRESET.
	ResetAt int64
	// CutAt ends the direction as a FIN does after so many bytes. What is sent
	// beyond vanishes.
	CutAt int64
	// StallAt delivers nothing beyond so many bytes, until Resume.
	StallAt int64
}

// Pipe returns both ends of an in-memory TCP connection. Deadlines run on the
// clock of a testing/synctest bubble if it is made in one, and goroutines that
// wait in it are durably blocked.
//
// It keeps the customs of TCP that protocols trip over: an end that closes with
// bytes unread resets the connection, which destroys what the other has not
// read yet, and whoever writes to an end that is gone learns it by an error.
func Pipe(o PipeOptions) (client, server *PipeConn) {
	if o.Window <= 0 {
		o.Window = WindowDefault
	}
	p := &pipe{tap: o.Tap}
	p.cond.L = &p.mu
	toServer := &half{pipe: p, from: capture.Client, window: o.Window, faults: o.Client}
	toClient := &half{pipe: p, from: capture.Server, window: o.Window, faults: o.Server}
	toServer.other, toClient.other = toClient, toServer
	client = &PipeConn{pipe: p, side: capture.Client, out: toServer, in: toClient}
	server = &PipeConn{pipe: p, side: capture.Server, out: toClient, in: toServer}
	return client, server
}

// A pipe is what both ends share. One lock for both directions gives the tap
// one order.
type pipe struct {
	mu   sync.Mutex
	cond sync.Cond // something has changed
	tap  func(capture.Chunk)
}

// A half is one direction.
type half struct {
	pipe    *pipe
	other   *half
	from    capture.Side
	window  int
	faults  Faults
	buf     []byte // sent and not read
	memory  []byte // of which buf is a part
	sent    int64
	read    int64
	stalled bool // see Stall
	fin     bool // the sender has closed, or CutAt was reached: nothing will follow buf
	shut    bool // the sender may not write
	cut     bool // CutAt was reached: what is written vanishes
	gone    bool // the receiver has closed
	reset   bool
	ended   bool      // the tap knows
	next    time.Time // when the next byte arrives, with Faults.Rate
}

// A PipeConn is one end of a Pipe: a net.Conn that is safe for concurrent use.
type PipeConn struct {
	pipe    *pipe
	side    capture.Side
	in, out *half
	writing bool // a Write is under way: others wait for it
	closed  bool
	rd, wd  deadline
}

// Read returns what the other end has sent, at most len(b) bytes of it.
func (c *PipeConn) Read(b []byte) (int, error) {
	p, h := c.pipe, c.in
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case c.closed:
			return 0, c.opError("read", net.ErrClosed)
		case c.rd.passed():
			return 0, c.opError("read", os.ErrDeadlineExceeded)
		case len(b) == 0:
			return 0, nil
		}
		n, stalled := h.ready()
		switch {
		case n > 0:
			n = copy(b[:min(len(b), h.readMax())], h.buf[:n])
			h.read += int64(n)
			h.buf = h.buf[n:]
			if r := h.faults.Rate; r > 0 {
				h.next = time.Now().Add(time.Duration(n) * time.Second / time.Duration(r))
			}
			p.cond.Broadcast()
			return n, nil
		case h.reset && !stalled:
			return 0, c.opError("read", syscall.ECONNRESET)
		case h.fin && !stalled:
			return 0, io.EOF
		}
		p.cond.Wait()
	}
}

// ready is how many bytes can be read now, and whether more are held back.
func (h *half) ready() (n int, stalled bool) {
	n = len(h.buf)
	at := h.faults.StallAt
	wait := time.Duration(0)
	if !h.next.IsZero() {
		wait = time.Until(h.next)
	}
	switch {
	case h.stalled:
		return 0, true
	case wait > 0:
		time.AfterFunc(wait, func() {
			h.pipe.mu.Lock()
			defer h.pipe.mu.Unlock()
			h.pipe.cond.Broadcast()
		})
		return 0, true
	case at > 0 && at-h.read < int64(n):
		return int(at - h.read), true
	}
	return n, at > 0 && h.read == at
}

// readMax is how many bytes the next Read may return.
func (h *half) readMax() int {
	switch f := &h.faults; {
	case f.ReadMax <= 0:
		return len(h.buf)
	case f.Rand != nil:
		return 1 + f.Rand.IntN(f.ReadMax)
	default:
		return f.ReadMax
	}
}

// Write sends b. It blocks while the window is full.
func (c *PipeConn) Write(b []byte) (n int, err error) {
	p := c.pipe
	p.mu.Lock()
	defer p.mu.Unlock()
	for c.writing {
		if err := c.writeError(); err != nil {
			return 0, err
		}
		p.cond.Wait()
	}
	c.writing = true
	defer func() {
		c.writing = false
		p.cond.Broadcast()
	}()
	for {
		if err := c.writeError(); err != nil {
			return n, err
		}
		if n == len(b) {
			return n, nil
		}
		k := c.out.send(b[n:])
		n += k
		if k > 0 {
			p.cond.Broadcast()
		} else {
			p.cond.Wait()
		}
	}
}

// writeError is why nothing can be written now, or nil.
func (c *PipeConn) writeError() error {
	switch h := c.out; {
	case c.closed, h.shut:
		return c.opError("write", net.ErrClosed)
	case c.wd.passed():
		return c.opError("write", os.ErrDeadlineExceeded)
	case h.reset:
		return c.opError("write", syscall.ECONNRESET)
	case h.gone:
		return c.opError("write", syscall.EPIPE)
	}
	return nil
}

// send puts some of b into the window and returns how much.
func (h *half) send(b []byte) int {
	if h.cut {
		return len(b)
	}
	f := &h.faults
	b = b[:min(len(b), h.window-len(h.buf))]
	for _, at := range []int64{f.ResetAt, f.CutAt} {
		if at > 0 {
			b = b[:min(int64(len(b)), at-h.sent)]
		}
	}
	if len(b) > 0 {
		if len(h.buf)+len(b) > cap(h.buf) { // back to the front of the memory
			if len(h.buf)+len(b) > len(h.memory) {
				h.memory = make([]byte, min(2*(len(h.buf)+len(b)), h.window))
			}
			h.buf = h.memory[:copy(h.memory, h.buf)]
		}
		h.buf = append(h.buf, b...)
		h.sent += int64(len(b))
		if h.pipe.tap != nil {
			h.pipe.tap(capture.Chunk{From: h.from, At: time.Now(), Data: b})
		}
	}
	switch h.sent {
	case 0:
	case f.ResetAt:
		h.end(capture.RST)
		h.other.end(capture.RST)
		h.reset, h.other.reset, h.other.buf = true, true, nil
	case f.CutAt:
		h.end(capture.FIN)
		h.fin, h.cut = true, true
	}
	return len(b)
}

// end tells the tap, once, how the direction ended.
func (h *half) end(how capture.EndKind) {
	if !h.ended && h.pipe.tap != nil {
		h.pipe.tap(capture.Chunk{From: h.from, At: time.Now(), End: how})
	}
	h.ended = true
}

// CloseWrite ends what this end sends, as a FIN does. It can go on reading.
func (c *PipeConn) CloseWrite() error {
	c.pipe.mu.Lock()
	defer c.pipe.mu.Unlock()
	if c.closed {
		return c.opError("close", net.ErrClosed)
	}
	c.out.finish()
	return nil
}

// finish is a FIN.
func (h *half) finish() {
	h.shut = true
	if !h.reset {
		h.fin = true
		h.end(capture.FIN)
	}
	h.pipe.cond.Broadcast()
}

// Close ends both directions. If something that the other end has sent is
// unread the connection is reset, and what the other end has not read yet is
// lost.
func (c *PipeConn) Close() error {
	c.pipe.mu.Lock()
	defer c.pipe.mu.Unlock()
	if c.closed {
		return c.opError("close", net.ErrClosed)
	}
	c.close(len(c.in.buf) > 0)
	return nil
}

// Reset closes this end as a process that dies does: the other end gets
// ECONNRESET, and what it has not read yet is lost.
func (c *PipeConn) Reset() {
	c.pipe.mu.Lock()
	defer c.pipe.mu.Unlock()
	if !c.closed {
		c.close(true)
	}
}

func (c *PipeConn) close(reset bool) {
	c.closed = true
	c.rd.set(c.pipe, time.Time{})
	c.wd.set(c.pipe, time.Time{})
	if reset {
		c.out.end(capture.RST)
		c.out.reset, c.out.buf = true, nil
	}
	c.out.finish()
	c.in.gone, c.in.buf = true, nil
}

// Stall holds back what this end sends, from the bytes that are in the pipe
// on, until Resume.
func (c *PipeConn) Stall() {
	c.pipe.mu.Lock()
	defer c.pipe.mu.Unlock()
	c.out.stalled = true
}

// Resume ends a stall, that of Faults.StallAt too.
func (c *PipeConn) Resume() {
	c.pipe.mu.Lock()
	defer c.pipe.mu.Unlock()
	c.out.stalled, c.out.faults.StallAt = false, 0
	c.pipe.cond.Broadcast()
}

// Buffered is how many bytes wait for this end to read them.
func (c *PipeConn) Buffered() int {
	c.pipe.mu.Lock()
	defer c.pipe.mu.Unlock()
	return len(c.in.buf)
}

// Sent is how many bytes this end has sent.
func (c *PipeConn) Sent() int64 {
	c.pipe.mu.Lock()
	defer c.pipe.mu.Unlock()
	return c.out.sent
}

// Closed reports whether this end is closed.
func (c *PipeConn) Closed() bool {
	c.pipe.mu.Lock()
	defer c.pipe.mu.Unlock()
	return c.closed
}

// A deadline is one of a PipeConn's two.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

// set wakes who waits, so that it looks at the new deadline. The lock is held.
func (d *deadline) set(p *pipe, at time.Time) {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.at = at
	if wait := time.Until(at); !at.IsZero() && wait > 0 {
		d.timer = time.AfterFunc(wait, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.cond.Broadcast()
		})
	}
	p.cond.Broadcast()
}

// SetDeadline sets both deadlines.
func (c *PipeConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline bounds reads to come and the one under way; the zero time is
// no bound.
func (c *PipeConn) SetReadDeadline(t time.Time) error { return c.setDeadline(&c.rd, t) }

// SetWriteDeadline bounds writes likewise.
func (c *PipeConn) SetWriteDeadline(t time.Time) error { return c.setDeadline(&c.wd, t) }

func (c *PipeConn) setDeadline(d *deadline, t time.Time) error {
	c.pipe.mu.Lock()
	defer c.pipe.mu.Unlock()
	if c.closed {
		return c.opError("set", net.ErrClosed)
	}
	d.set(c.pipe, t)
	return nil
}

// LocalAddr names this end.
func (c *PipeConn) LocalAddr() net.Addr { return pipeAddr(c.side) }

// RemoteAddr names the other end.
func (c *PipeConn) RemoteAddr() net.Addr { return pipeAddr(c.side.Peer()) }

type pipeAddr capture.Side

func (pipeAddr) Network() string  { return "pipe" }
func (a pipeAddr) String() string { return capture.Side(a).String() }

func (c *PipeConn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "pipe", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}
