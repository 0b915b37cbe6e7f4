package wstest

import (
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weft-ws/weft/capture"
	"github.com/weft-ws/weft/doctor"
)

// An Oracle is the doctor listening in on a connection of a test. The test
// fails if an end that is ours breaks a rule, so that each test is one of the
// framing as well, whatever else it is about.
type Oracle struct {
	t    testing.TB
	opts OracleOptions

	mu   sync.Mutex
	in   *doctor.Inspector
	done bool
}

// OracleOptions say what an Oracle looks at.
type OracleOptions struct {
	// Ours are the ends that must not break a rule. Default: both.
	Ours []capture.Side
	// Allow lists rules, by ID, that our ends may break in this test. Say why.
	Allow []string
	// Doctor is how to judge.
	Doctor doctor.Options
}

// NewOracle returns an Oracle that gives its verdict at the end of the test, or
// when Check is called. Its Tap goes into PipeOptions.
func NewOracle(t testing.TB, o OracleOptions) *Oracle {
	if o.Ours == nil {
		o.Ours = []capture.Side{capture.Client, capture.Server}
	}
	or := &Oracle{t: t, opts: o, in: doctor.New(o.Doctor)}
	t.Cleanup(or.Check)
	return or
}

// Tap takes what goes over the wire.
func (o *Oracle) Tap(k capture.Chunk) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.done {
		o.in.Chunk(k)
	}
}

// Check gives the verdict: it fails the test for what has been found. Nothing
// that follows counts, so a test that is over may drop its connections. The end
// of the test calls it too.
func (o *Oracle) Check() {
	o.t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.done {
		return
	}
	o.done = true
	o.in.Advance(time.Now())
	for _, f := range o.in.Findings() {
		if !slices.Contains(o.opts.Ours, f.From) || slices.Contains(o.opts.Allow, f.Rule.ID) {
			continue
		}
		var b strings.Builder
		_ = f.WriteText(&b)
		o.t.Errorf("the doctor found:\n%s", b.String())
	}
	if n := o.in.Lost(); n > 0 {
		o.t.Errorf("and %d findings more", n)
	}
}

// Found returns the IDs of the rules that the given side has broken, in order.
func (o *Oracle) Found(side capture.Side) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.in.Advance(time.Now())
	var ids []string
	for _, f := range o.in.Findings() {
		if f.From == side {
			ids = append(ids, f.Rule.ID)
		}
	}
	return ids
}

// Frames is how many frames of a side were judged.
func (o *Oracle) Frames(side capture.Side) int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.in.Frames(side)
}

// Conn taps a real connection at the given end of it.
func (o *Oracle) Conn(nc net.Conn, side capture.Side) net.Conn {
	return &tappedConn{Conn: nc, o: o, side: side}
}

// A tappedConn shows an Oracle what its end reads, and what it is about to
// write: a written byte may be answered before Write has returned.
type tappedConn struct {
	net.Conn
	o     *Oracle
	side  capture.Side
	ahead int // bytes told of that are not written yet; writers take turns
}

func (c *tappedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.o.Tap(capture.Chunk{From: c.side.Peer(), At: time.Now(), Data: p[:n]})
	}
	var ne net.Error
	switch {
	case err == io.EOF:
		c.o.Tap(capture.Chunk{From: c.side.Peer(), At: time.Now(), End: capture.FIN})
	case err != nil && !errors.Is(err, net.ErrClosed) && !(errors.As(err, &ne) && ne.Timeout()):
		c.o.Tap(capture.Chunk{From: c.side.Peer(), At: time.Now(), End: capture.RST})
	}
	return n, err
}

// Write tells of p before it is written: the answer may be heard before it
// returns. What a write that was cut short did not take comes again, and is
// not told twice.
func (c *tappedConn) Write(p []byte) (int, error) {
	told := max(c.ahead, len(p))
	if c.ahead < len(p) {
		c.o.Tap(capture.Chunk{From: c.side, At: time.Now(), Data: p[c.ahead:]})
	}
	n, err := c.Conn.Write(p)
	c.ahead = told - n
	return n, err
}

// Unwrap returns the connection below.
func (c *tappedConn) Unwrap() net.Conn { return c.Conn }

func (c *tappedConn) CloseWrite() error {
	c.o.Tap(capture.Chunk{From: c.side, At: time.Now(), End: capture.FIN})
	if hc, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return hc.CloseWrite()
	}
	return errors.ErrUnsupported
}

func (c *tappedConn) Close() error {
	c.o.Tap(capture.Chunk{From: c.side, At: time.Now(), End: capture.FIN})
	return c.Conn.Close()
}
