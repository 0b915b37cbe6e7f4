package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/weft-ws/weft/capture"
)

// traceFilesMax bounds the files that one --trace writes.
const traceFilesMax = 1000

// A tracer records connections: the first to the named file, the others to the
// name with .2, .3 and so on.
type tracer struct {
	name string
	verb string

	mu sync.Mutex
	n  int
}

// wrap returns nc with everything that passes written down. side is ours.
func (t *tracer) wrap(nc net.Conn, side capture.Side) net.Conn {
	if t.name == "" {
		return nc
	}
	t.mu.Lock()
	t.n++
	n := t.n
	t.mu.Unlock()
	if n > traceFilesMax {
		return nc
	}
	name := t.name
	if n > 1 {
		name = fmt.Sprintf("%s.%d", t.name, n)
	}
	f, err := os.Create(name)
	if err != nil {
		fmt.Fprintln(os.Stderr, "weft: trace:", err)
		return nc
	}
	return &tracedConn{Conn: nc, side: side, file: f, w: capture.NewWriter(f, capture.Meta{
		Start: time.Now(),
		Fields: []capture.Field{
			{Key: "by", Value: "weft " + t.verb},
			{Key: side.String(), Value: nc.LocalAddr().String()},
			{Key: side.Peer().String(), Value: nc.RemoteAddr().String()},
		},
	})}
}

// listener wraps each accepted connection.
func (t *tracer) listener(l net.Listener) net.Listener {
	if t.name == "" {
		return l
	}
	return &tracedListener{Listener: l, t: t}
}

// dial is a DialContext that wraps the connection, or nil if there is nothing
// to trace.
func (t *tracer) dial() func(ctx context.Context, network, addr string) (net.Conn, error) {
	if t.name == "" {
		return nil
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		nc, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return t.wrap(nc, capture.Client), nil
	}
}

type tracedListener struct {
	net.Listener
	t *tracer
}

func (l *tracedListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.t.wrap(nc, capture.Server), nil
}

// A tracedConn writes down what passes. Over TLS that is the inside, since TLS
// wraps it.
type tracedConn struct {
	net.Conn
	side capture.Side
	w    *capture.Writer
	file *os.File
	in   sync.Once // the peer's end is written once
	out  sync.Once // ours too

	ahead int // bytes recorded that are not written yet; writers take turns
}

func (c *tracedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		_ = c.w.Chunk(c.side.Peer(), time.Now(), p[:n])
	}
	switch {
	case errors.Is(err, io.EOF):
		c.in.Do(func() { _ = c.w.End(c.side.Peer(), time.Now(), capture.FIN) })
	case errors.Is(err, syscall.ECONNRESET):
		c.in.Do(func() { _ = c.w.End(c.side.Peer(), time.Now(), capture.RST) })
	}
	return n, err
}

func (c *tracedConn) Write(p []byte) (int, error) {
	// Before the write: the answer may be read before it returns. What a write
	// that was cut short did not take comes again, and is not recorded twice.
	told := max(c.ahead, len(p))
	if c.ahead < len(p) {
		_ = c.w.Chunk(c.side, time.Now(), p[c.ahead:])
	}
	n, err := c.Conn.Write(p)
	c.ahead = told - n
	return n, err
}

func (c *tracedConn) CloseWrite() error {
	c.out.Do(func() { _ = c.w.End(c.side, time.Now(), capture.FIN) })
	if hc, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return hc.CloseWrite()
	}
	return errors.ErrUnsupported
}

func (c *tracedConn) Close() error {
	c.out.Do(func() { _ = c.w.End(c.side, time.Now(), capture.FIN) })
	err := c.Conn.Close()
	_ = c.file.Close()
	return err
}
