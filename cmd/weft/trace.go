package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/weft-ws/weft/capture"
)

// traceFilesMax bounds the files that one --trace writes.
const traceFilesMax = 1000

// A tracer is the flag --trace: it records WebSocket connections, the first to
// the named file, the others to the name with .2, .3 and so on.
type tracer struct {
	name string
	verb string

	mu     sync.Mutex
	stderr io.Writer
	first  *os.File // the named file, until a connection takes it
	n      int      // files begun
}

func (t *tracer) add(fs *pflag.FlagSet) {
	fs.StringVar(&t.name, "trace", "", "record the WebSocket connections for weft doctor: the first to this file, the others to FILE.2 and so on")
}

// open creates the file, so that whoever cannot have it is told at once, not
// when the first connection comes. The caller closes the tracer.
func (t *tracer) open(stderr io.Writer) error {
	if t.name == "" {
		return nil
	}
	f, err := createTrace(t.name)
	if err != nil {
		return &exitError{2, hinted(fmt.Errorf("--trace: %w", err), "the file is created anew; its directory has to exist, and you have to be allowed to write there")}
	}
	t.stderr, t.first = stderr, f
	return nil
}

// createTrace creates a file that only its owner reads: what a connection
// carries may be private.
func createTrace(name string) (*os.File, error) {
	return os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
}

// close makes an empty recording of the file that no connection took.
func (t *tracer) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.first == nil {
		return
	}
	meta := capture.Meta{Start: time.Now(), Fields: []capture.Field{{Key: "by", Value: "weft " + t.verb}}}
	if err := errors.Join(capture.NewWriter(t.first, meta).Flush(), t.first.Close()); err != nil {
		fmt.Fprintln(t.stderr, "weft: --trace:", err)
	}
	t.first = nil
}

// next returns the file of the next connection, nil if there is none for it.
func (t *tracer) next() *os.File {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n++; t.n > traceFilesMax {
		if t.n == traceFilesMax+1 {
			fmt.Fprintf(t.stderr, "weft: --trace: %d connections are recorded, those that follow are not\n", traceFilesMax)
		}
		return nil
	}
	if t.n == 1 {
		f := t.first
		t.first = nil
		return f
	}
	f, err := createTrace(fmt.Sprintf("%s.%d", t.name, t.n))
	if err != nil {
		fmt.Fprintln(t.stderr, "weft: --trace:", err)
		return nil
	}
	return f
}

// wrap is a DialOptions.Wrap that records the connection, or nil if there is
// nothing to trace.
func (t *tracer) wrap() func(net.Conn) net.Conn {
	if t.name == "" {
		return nil
	}
	return func(nc net.Conn) net.Conn {
		return &tracedConn{Conn: nc, rec: recorder{t: t, side: capture.Client, nc: nc}}
	}
}

// listener records each accepted connection. l is that of TLS where there is
// TLS: what is inside is recorded.
func (t *tracer) listener(l net.Listener) net.Listener {
	if t.name == "" {
		return l
	}
	return &tracedListener{Listener: l, t: t}
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
	c := &tracedConn{Conn: nc, rec: recorder{t: l.t, side: capture.Server, nc: nc}}
	if tc, ok := nc.(*tls.Conn); ok {
		return &tracedTLS{tracedConn: c, tls: tc}, nil
	}
	return c, nil
}

// A tracedConn writes down what passes.
type tracedConn struct {
	net.Conn
	rec recorder
	in  sync.Once // the peer's end is written once
	out sync.Once // ours too

	ahead int // bytes recorded that are not written yet; writers take turns
}

func (c *tracedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.rec.chunk(c.rec.side.Peer(), p[:n])
	}
	switch {
	case errors.Is(err, io.EOF):
		c.in.Do(func() { c.rec.end(c.rec.side.Peer(), capture.FIN) })
	case errors.Is(err, syscall.ECONNRESET):
		c.in.Do(func() { c.rec.end(c.rec.side.Peer(), capture.RST) })
	}
	return n, err
}

func (c *tracedConn) Write(p []byte) (int, error) {
	// Before the write: the answer may be read before it returns. What a write
	// that was cut short did not take comes again, and is not recorded twice.
	told := max(c.ahead, len(p))
	if c.ahead < len(p) {
		c.rec.chunk(c.rec.side, p[c.ahead:])
	}
	n, err := c.Conn.Write(p)
	c.ahead = told - n
	return n, err
}

func (c *tracedConn) CloseWrite() error {
	c.out.Do(func() { c.rec.end(c.rec.side, capture.FIN) })
	if hc, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return hc.CloseWrite()
	}
	return errors.ErrUnsupported
}

func (c *tracedConn) Close() error {
	c.out.Do(func() { c.rec.end(c.rec.side, capture.FIN) })
	err := c.Conn.Close()
	c.rec.close()
	return err
}

// NetConn returns the socket, whose options package ws sets.
func (c *tracedConn) NetConn() net.Conn {
	if inner, ok := c.Conn.(interface{ NetConn() net.Conn }); ok {
		return inner.NetConn()
	}
	return c.Conn
}

// A tracedTLS is a tracedConn of a server with TLS inside. net/http does the TLS
// handshake of a *tls.Conn only, but asks any connection for its state before
// it reads.
type tracedTLS struct {
	*tracedConn
	tls *tls.Conn
}

// tlsTimeout bounds the TLS handshake of a traced connection.
const tlsTimeout = 10 * time.Second

// ConnectionState returns the state after the TLS handshake. If that fails, the
// first read says so.
func (c *tracedTLS) ConnectionState() tls.ConnectionState {
	_ = c.tls.SetDeadline(time.Now().Add(tlsTimeout))
	err := c.tls.Handshake()
	_ = c.tls.SetDeadline(time.Time{})
	var re tls.RecordHeaderError
	if errors.As(err, &re) && re.Conn != nil && string(re.RecordHeader[:4]) == "GET " {
		// As net/http answers.
		_, _ = io.WriteString(re.Conn, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")
		_ = re.Conn.Close()
	}
	return c.tls.ConnectionState()
}
