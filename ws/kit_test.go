package ws

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/weft-ws/weft/capture"
	"github.com/weft-ws/weft/doctor"
	"github.com/weft-ws/weft/internal/deflate"
	"github.com/weft-ws/weft/internal/wstest"
)

// TestMain fails the package if a goroutine is left when all tests are done.
// net/http's server waits half a second before it closes a connection whose
// request it has refused, whoever has shut it down.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

// A setup says how two ends are to be connected.
type setup struct {
	client, server Config
	deflate        *deflate.Params
	pipe           wstest.PipeOptions
	allow          []string // rules that our ends may break in this test
	hold           bool     // leave the end of the connections to the test
}

// side is the doctor's word for a role.
func side(r Role) capture.Side {
	if r == RoleClient {
		return capture.Client
	}
	return capture.Server
}

// pipe returns a pipe with the doctor on it.
func (s *setup) newPipe(t testing.TB, ours ...capture.Side) (client, server *wstest.PipeConn, o *wstest.Oracle) {
	accepts := func(c Config) doctor.Limits {
		return doctor.Limits{MessageSize: c.withDefaults().MaxMessageSize}
	}
	opts := wstest.OracleOptions{Ours: ours, Allow: s.allow}
	opts.Doctor.Client, opts.Doctor.Server = accepts(s.client), accepts(s.server)
	// A client waits as long as its CloseTimeout for the server to close TCP.
	opts.Doctor.CloseTime = min(s.client.withDefaults().CloseTimeout, s.server.withDefaults().CloseTimeout) - 1
	if s.deflate != nil {
		opts.Doctor.Extensions = extensionsOf(*s.deflate)
	}
	o = wstest.NewOracle(t, opts)
	tap := s.pipe.Tap
	s.pipe.Tap = func(k capture.Chunk) {
		o.Tap(k)
		if tap != nil {
			tap(k)
		}
	}
	client, server = wstest.Pipe(s.pipe)
	return client, server, o
}

// extensionsOf is what both ends agreed on, as it stands in the 101 response.
func extensionsOf(p deflate.Params) string {
	s := fmt.Sprintf("permessage-deflate; server_max_window_bits=%d; client_max_window_bits=%d", p.ServerMaxWindowBits, p.ClientMaxWindowBits)
	if p.ServerNoContextTakeover {
		s += "; server_no_context_takeover"
	}
	if p.ClientNoContextTakeover {
		s += "; client_no_context_takeover"
	}
	return s
}

// conn is one end of ours on the pipe.
func (s *setup) conn(pc *wstest.PipeConn, role Role) *Conn {
	cfg := s.client
	if role == RoleServer {
		cfg = s.server
	}
	if s.deflate != nil && cfg.Compression == nil {
		cfg.Compression = &Compression{Threshold: -1}
	}
	return newConn(pc, role, cfg, established{deflate: s.deflate})
}

// connect returns both ends of a connection, ours, over a pipe.
func (s setup) connect(t testing.TB) (client, server *Conn) {
	cp, sp, o := s.newPipe(t)
	client, server = s.conn(cp, RoleClient), s.conn(sp, RoleServer)
	s.end(t, o, client, server)
	return client, server
}

// scripted returns one end of ours, and its peer by hand.
func (s setup) scripted(t testing.TB, role Role) (*Conn, *wstest.Peer, *wstest.Oracle) {
	cp, sp, o := s.newPipe(t, side(role))
	ours, theirs := sp, cp
	if role == RoleClient {
		ours, theirs = cp, sp
	}
	c := s.conn(ours, role)
	p := wstest.NewPeer(t, theirs, role.Peer())
	s.end(t, o, c)
	t.Cleanup(p.Close)
	return c, p, o
}

// end ends what is left of the connections when the test is over, after the
// doctor's verdict.
func (s *setup) end(t testing.TB, o *wstest.Oracle, conns ...*Conn) {
	t.Cleanup(func() {
		o.Check()
		for _, c := range conns {
			if !s.hold {
				c.CloseNow()
			}
			<-c.Done()
		}
	})
}

// bubble runs f in a synctest bubble, once for each role of the end under test.
func bubble(t *testing.T, f func(t *testing.T, role Role)) {
	t.Helper()
	for _, role := range []Role{RoleClient, RoleServer} {
		t.Run(role.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { f(t, role) })
		})
	}
}

var background = context.Background()

// result is what a call in a goroutine of its own came back with.
type result struct {
	err error
	at  time.Time
	typ MessageType
	p   []byte
}

// async calls f in a goroutine.
func async(f func() error) <-chan result {
	ch := make(chan result, 1)
	go func() {
		err := f()
		ch <- result{err: err, at: time.Now()}
	}()
	return ch
}

// reading reads a message in a goroutine.
func reading(ctx context.Context, c *Conn) <-chan result {
	ch := make(chan result, 1)
	go func() {
		typ, p, err := c.ReadMessage(ctx)
		ch <- result{err: err, at: time.Now(), typ: typ, p: p}
	}()
	return ch
}

// pending fails the test if the call has come back when everybody waits.
func pending(t *testing.T, ch <-chan result, why string) {
	t.Helper()
	synctest.Wait()
	select {
	case r := <-ch:
		t.Fatalf("came back with %v: %s", r.err, why)
	default:
	}
}

// now returns the result of a call that must have come back.
func now(t *testing.T, ch <-chan result, why string) result {
	t.Helper()
	synctest.Wait()
	select {
	case r := <-ch:
		return r
	default:
		t.Fatal("is still waiting: " + why)
		panic("unreachable")
	}
}

func wantMessage(t testing.TB, c *Conn, typ MessageType, want []byte) {
	t.Helper()
	got, p, err := c.ReadMessage(background)
	if err != nil || got != typ || !bytes.Equal(p, want) {
		t.Fatalf("got %v of %d bytes, %.40q, %v; want %v of %d bytes, %.40q", got, len(p), p, err, typ, len(want), want)
	}
}

func mustWrite(t testing.TB, c *Conn, typ MessageType, p []byte) {
	t.Helper()
	if err := c.WriteMessage(background, typ, p); err != nil {
		t.Fatal(err)
	}
}

// wantCloseError checks how a connection ended.
func wantCloseError(t testing.TB, err error, code CloseCode, remote bool) *CloseError {
	t.Helper()
	var ce *CloseError
	if !errors.As(err, &ce) {
		t.Fatalf("got %v, want a *CloseError", err)
	}
	if ce.Code != code || ce.Remote != remote {
		t.Fatalf("got %v (remote %t), want code %v, remote %t", ce, ce.Remote, code, remote)
	}
	return ce
}

// pattern returns n bytes that tell where they are.
func pattern(n int, seed byte) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i) ^ byte(i>>8) ^ byte(i>>16)*7 ^ seed
	}
	return p
}

// letters returns n bytes of text, some characters longer than a byte.
func letters(n int) []byte {
	var b []byte
	for i := 0; len(b) < n; i++ {
		b = append(b, []string{"a", "é", "€", "🧶", "\n"}[i*i%5]...)
	}
	for n < len(b) && b[n]&0xc0 == 0x80 {
		n--
	}
	return append(b[:n:n], "zzz"[:0]...)
}

// canceled is a context that has ended.
func canceled() context.Context {
	ctx, cancel := context.WithCancel(background)
	cancel()
	return ctx
}
