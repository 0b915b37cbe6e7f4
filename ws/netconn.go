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
	return &netConn{c: c, typ: typ, ctx: ctx}
}

type netConn struct {
	c   *Conn
	typ MessageType
	ctx context.Context

	readMu sync.Mutex
	reader *MessageReader

	mu      sync.Mutex
	readAt  time.Time
	writeAt time.Time
	cancels [2]context.CancelFunc // of the read and the write under way
}

// bounded derives the context of a call from a deadline.
func (n *netConn) bounded(which int, at *time.Time) (context.Context, context.CancelFunc) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if at.IsZero() {
		ctx, cancel := context.WithCancel(n.ctx)
		n.cancels[which] = cancel
		return ctx, cancel
	}
	ctx, cancel := context.WithDeadline(n.ctx, *at)
	n.cancels[which] = cancel
	return ctx, cancel
}

func (n *netConn) Read(p []byte) (int, error) {
	n.readMu.Lock()
	defer n.readMu.Unlock()
	for {
		ctx, cancel := n.bounded(0, &n.readAt)
		k, err := n.read(ctx, p)
		cancel()
		if err == nil && k > 0 || len(p) == 0 {
			return k, nil
		}
		if err == nil {
			continue
		}
		return k, n.mapError(ctx, err)
	}
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
	ctx, cancel := n.bounded(1, &n.writeAt)
	defer cancel()
	if err := n.c.WriteMessage(ctx, n.typ, p); err != nil {
		return 0, n.mapError(ctx, err)
	}
	return len(p), nil
}

// mapError speaks the language of net.Conn.
func (n *netConn) mapError(ctx context.Context, err error) error {
	var ce *CloseError
	switch {
	case errors.As(err, &ce) && ce.normal():
		return io.EOF
	case errors.As(err, &ce):
		return err
	case ctx.Err() != nil && n.ctx.Err() == nil:
		return os.ErrDeadlineExceeded
	}
	return err
}

func (n *netConn) Close() error         { return n.c.Close(CloseNormal, "") }
func (n *netConn) LocalAddr() net.Addr  { return n.c.LocalAddr() }
func (n *netConn) RemoteAddr() net.Addr { return n.c.RemoteAddr() }

func (n *netConn) SetDeadline(t time.Time) error {
	return errors.Join(n.SetReadDeadline(t), n.SetWriteDeadline(t))
}

func (n *netConn) SetReadDeadline(t time.Time) error {
	n.set(0, &n.readAt, t)
	return nil
}

func (n *netConn) SetWriteDeadline(t time.Time) error {
	n.set(1, &n.writeAt, t)
	return nil
}

// set changes a deadline. A call under way that the new one has already passed
// is woken.
func (n *netConn) set(which int, at *time.Time, t time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	*at = t
	if !t.IsZero() && !t.After(time.Now()) && n.cancels[which] != nil {
		n.cancels[which]()
	}
}
