package ws

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// NetConn returns a net.Conn over c: each Write is one message of the given
// type, and Read returns the bytes of messages of that type one after the
// other, whatever their bounds. A message of the other type closes the
// connection with 1003. ctx bounds the life of the net.Conn; Close runs the
// closing handshake with 1000. Read returns io.EOF after a normal closure.
//
// Unlike those of a socket, a write deadline that passes inside a message ends
// the connection; a read deadline does not.
func NetConn(ctx context.Context, c *Conn, typ MessageType) net.Conn {
	return &netConn{c: c, typ: typ, ctx: ctx, readBy: netDeadline{parent: ctx}, writeBy: netDeadline{parent: ctx}}
}

type netConn struct {
	c   *Conn
	typ MessageType
	ctx context.Context

	readMu sync.Mutex
	reader *MessageReader

	readBy, writeBy netDeadline
}

// A netDeadline is a deadline of a net.Conn: it may be moved while calls are
// under way, so they share a context that ends when it passes.
type netDeadline struct {
	parent context.Context

	mu     sync.Mutex
	ctx    context.Context // nil before the first call
	cancel context.CancelFunc
	timer  *time.Timer
}

// context is what a call is bounded by.
func (d *netDeadline) context() context.Context {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.renew()
	return d.ctx
}

// renew makes the context if there is none. mu is held.
func (d *netDeadline) renew() {
	if d.ctx == nil {
		d.ctx, d.cancel = context.WithCancel(d.parent)
	}
}

// set moves the deadline to t; zero means never.
func (d *netDeadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.renew()
	if d.timer != nil && !d.timer.Stop() {
		<-d.ctx.Done() // it has fired, and is about to end the context
	}
	d.timer = nil
	if d.ctx.Err() != nil {
		d.ctx = nil
		d.renew()
	}
	if t.IsZero() {
		return
	}
	if wait := time.Until(t); wait > 0 {
		d.timer = time.AfterFunc(wait, d.cancel)
	} else {
		d.cancel()
	}
}

// end gives back what the deadline holds: the connection is over.
func (d *netDeadline) end() { d.set(time.Unix(1, 0)) }

// passed is the error of a call that comes after the deadline, also if it need
// not wait.
func (n *netConn) passed(ctx context.Context) error {
	if ctx.Err() == nil || n.c.Err() != nil {
		return nil
	}
	return n.mapError(ctx, ctx.Err())
}

func (n *netConn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n.readMu.Lock()
	defer n.readMu.Unlock()
	for {
		ctx := n.readBy.context()
		err := n.passed(ctx)
		if err != nil {
			return 0, err
		}
		k, err := n.read(ctx, p)
		switch {
		case err != nil:
			if err = n.mapError(ctx, err); normalEnd(err) {
				err = io.EOF
			}
			return k, err
		case k > 0:
			return k, nil
		}
	}
}

// normalEnd reports whether err is a normal closure, and between two messages.
func normalEnd(err error) bool {
	var ce *CloseError
	return errors.As(err, &ce) && ce.normal() && !errors.Is(err, io.ErrUnexpectedEOF)
}

func (n *netConn) read(ctx context.Context, p []byte) (int, error) {
	if n.reader == nil {
		r, err := n.c.NextReader(ctx)
		if err != nil {
			return 0, err
		}
		if r.Type != n.typ {
			return 0, n.c.fail(CloseUnsupportedData, "unexpected "+r.Type.String()+" message", nil, false)
		}
		n.reader = r
	}
	n.reader.SetContext(ctx)
	k, err := n.reader.Read(p)
	if err == io.EOF {
		n.reader, err = nil, nil
	}
	return k, err
}

func (n *netConn) Write(p []byte) (int, error) {
	ctx := n.writeBy.context()
	if err := n.passed(ctx); err != nil {
		return 0, err
	}
	if err := n.c.WriteMessage(ctx, n.typ, p); err != nil {
		return 0, n.mapError(ctx, err)
	}
	return len(p), nil
}

// mapError speaks the language of net.Conn.
func (n *netConn) mapError(ctx context.Context, err error) error {
	var ce *CloseError
	if ctx.Err() != nil && n.ctx.Err() == nil && !errors.As(err, &ce) {
		return os.ErrDeadlineExceeded
	}
	return err
}

// Close runs the closing handshake.
func (n *netConn) Close() error {
	err := n.c.Close(CloseNormal, "")
	n.readBy.end()
	n.writeBy.end()
	return err
}

func (n *netConn) LocalAddr() net.Addr  { return n.c.LocalAddr() }
func (n *netConn) RemoteAddr() net.Addr { return n.c.RemoteAddr() }

func (n *netConn) SetDeadline(t time.Time) error {
	return errors.Join(n.SetReadDeadline(t), n.SetWriteDeadline(t))
}

func (n *netConn) SetReadDeadline(t time.Time) error {
	n.readBy.set(t)
	return nil
}

func (n *netConn) SetWriteDeadline(t time.Time) error {
	n.writeBy.set(t)
	return nil
}
