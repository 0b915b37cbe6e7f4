package ws

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-ws/weft/capture"
	"github.com/weft-ws/weft/internal/wire"
	"github.com/weft-ws/weft/internal/wstest"
)

// Real sockets take another way through the engine than a net.Conn of any other
// kind: what bubbles prove of one is checked here for the other.

// begins tells when the first byte has left a connection.
func begins(cfg *Config) <-chan struct{} {
	ch := make(chan struct{})
	var once sync.Once
	cfg.Trace = &Trace{Bytes: func(dir Direction, b []byte) {
		if dir == Out {
			once.Do(func() { close(ch) })
		}
	}}
	return ch
}

func TestIntegrationLargeMessage(t *testing.T) {
	size := 64 << 20
	if raceEnabled {
		size = 8 << 20
	}
	msg := pattern(size, 1)
	eachRole(t, func(t *testing.T, role Role) {
		cnc, snc := tcpPair(t, 0)
		cfg := &Config{MaxMessageSize: int64(size)}
		from, to := NewConn(cnc, RoleClient, cfg), NewConn(snc, RoleServer, cfg)
		if role == RoleServer {
			from, to = to, from
		}
		for range 2 {
			write := async(func() error { return from.WriteMessage(background, Binary, msg) })
			if _, p, err := to.ReadMessage(background); err != nil || !bytes.Equal(p, msg) {
				t.Fatal(len(p), err)
			}
			if r := <-write; r.err != nil {
				t.Fatal(r.err)
			}
			write = async(func() error {
				w, err := from.NextWriter(background, Binary)
				if err != nil {
					return err
				}
				if _, err := io.Copy(w, onlyReader{bytes.NewReader(msg)}); err != nil {
					return err
				}
				return w.Close()
			})
			r, err := to.NextReader(background)
			if err != nil {
				t.Fatal(err)
			}
			if p, err := io.ReadAll(r); err != nil || !bytes.Equal(p, msg) {
				t.Fatal(len(p), err)
			}
			if r := <-write; r.err != nil {
				t.Fatal(r.err)
			}
		}
		drain := async(func() error { return to.Drain(background) })
		if err := from.Close(CloseNormal, ""); err != nil {
			t.Error(err)
		}
		if r := <-drain; r.err != nil {
			t.Error(r.err)
		}
		<-to.Done()
	})
}

// The rows "inside a frame" and "between fragments" on a socket whose buffers
// are full.
func TestConcurrencyCancelWriteOnASocket(t *testing.T) {
	eachRole(t, func(t *testing.T, role Role) {
		for _, fragment := range []int{18, 100, 5000, -1} {
			cfg := Config{FragmentSize: fragment}
			begun := begins(&cfg)
			c, p := tcpPeer(t, role, cfg, 16<<10, brokenOff...)
			ctx, cancel := context.WithCancel(background)
			write := async(func() error { return c.WriteMessage(ctx, Binary, make([]byte, 4<<20)) })
			waiting := async(func() error { <-begun; return c.WriteMessage(ctx, Text, []byte("never begun")) })
			<-begun
			cancel()
			r := <-write
			if !errors.Is(r.err, context.Canceled) || !errors.Is(r.err, net.ErrClosed) {
				t.Fatalf("fragments of %d: %v", fragment, r.err)
			}
			if r := <-waiting; r.err != context.Canceled && r.err != c.Err() {
				t.Errorf("fragments of %d: a message that was never begun: %v", fragment, r.err)
			}
			var last wstest.Frame
			for {
				f, err := p.Read()
				if err != nil {
					break
				}
				last = f
			}
			want := CloseAbnormal
			if last.Opcode == wire.Close {
				want = CloseInternalError
			}
			wantCloseError(t, r.err, want, false)
			if last.Opcode != wire.Close && last.Fin && fragment > 0 {
				t.Errorf("fragments of %d: the message was finished", fragment)
			}
			<-c.Done()
		}
	})
}

// A peer that takes nothing misses WriteTimeout on a socket too.
func TestTimeoutsWriteOnASocket(t *testing.T) {
	eachRole(t, func(t *testing.T, role Role) {
		cfg := Config{WriteTimeout: 30 * time.Millisecond}
		c, _ := tcpPeer(t, role, cfg, 16<<10, brokenOff...)
		err := c.WriteMessage(background, Binary, make([]byte, 64<<20))
		wantTimeout(t, err, "WriteTimeout", cfg.WriteTimeout, CloseAbnormal)
	})
}

func TestConcurrencyCancelReadOnASocket(t *testing.T) {
	eachRole(t, func(t *testing.T, role Role) {
		c, p := tcpPeer(t, role, Config{}, 0)
		gone, cancel := context.WithCancel(background)
		cancel()
		if _, _, err := c.ReadMessage(gone); err != context.Canceled {
			t.Fatal(err)
		}
		frame := p.Frames(`TEXT "in pieces"`)[0]
		for i := range frame {
			p.SendBytes(frame[i : i+1])
			ctx, cancel := context.WithTimeout(background, time.Millisecond)
			_, b, err := c.ReadMessage(ctx)
			cancel()
			if i < len(frame)-1 && err != context.DeadlineExceeded {
				t.Fatalf("after %d bytes: %q, %v", i+1, b, err)
			}
			if i == len(frame)-1 && err != nil {
				wantMessage(t, c, Text, []byte("in pieces"))
			}
		}
		for range 5 { // interruptions that come too late
			c.interruptRead()
			c.interruptWrite()
			p.Send(`BINARY "x"`)
			wantMessage(t, c, Binary, []byte("x"))
			mustWrite(t, c, Binary, []byte("y"))
			p.Want(`BINARY "y"`)
		}
		if err := c.WriteMessage(gone, Text, []byte("no need to wait")); err != nil {
			t.Error(err)
		}
		p.Want(`TEXT "no need to wait"`)
	})
}

func TestEdgeCasesSocketEnds(t *testing.T) {
	eachRole(t, func(t *testing.T, role Role) {
		c, p := tcpPeer(t, role, Config{}, 0, brokenOff...)
		p.Send(`TEXT fin=0 "half"`)
		r, err := c.NextReader(background)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(r, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
		reset(p)
		_, err = io.ReadAll(r)
		if wantCloseError(t, err, CloseAbnormal, false); !errors.Is(err, syscall.ECONNRESET) || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Error(err)
		}

		c, p = tcpPeer(t, role, Config{}, 0, brokenOff...)
		p.Close()
		_, _, err = c.ReadMessage(background)
		if wantCloseError(t, err, CloseAbnormal, false); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Error(err)
		}

		// A write to a peer that is gone ends the connection for all.
		c, p = tcpPeer(t, role, Config{}, 0, brokenOff...)
		reset(p)
		for err = nil; err == nil; {
			err = c.WriteMessage(background, Binary, make([]byte, 1000))
		}
		if wantCloseError(t, err, CloseAbnormal, false); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			t.Error(err)
		}
		if _, _, err2 := c.ReadMessage(background); err2 != err {
			t.Error(err2)
		}
		<-c.Done()
	})
}

// reset closes the peer's socket as a process that dies does.
func reset(p *wstest.Peer) {
	nc := p.Conn
	for {
		switch u := nc.(type) {
		case *net.TCPConn:
			_ = u.SetLinger(0)
			_ = u.Close()
			return
		case interface{ Unwrap() net.Conn }:
			nc = u.Unwrap()
		default:
			panic("not a socket")
		}
	}
}

// Sixteen requests in one segment are answered in one system call: the replies
// that were held are one piece of it, the last another.
func TestBuffersServeOnASocket(t *testing.T) {
	pieces := 0
	cfg := Config{Trace: &Trace{Bytes: func(dir Direction, b []byte) {
		if dir == Out {
			pieces++
		}
	}}}
	c, p := tcpPeer(t, RoleServer, cfg, 0)
	serving(c, Handler{Message: echo})
	var lines []string
	for i := range 16 {
		lines = append(lines, fmt.Sprintf(`TEXT "%d"`, i))
	}
	for range 3 {
		p.Send(lines...)
		p.Want(lines...)
	}
	cl := closing(c, CloseGoingAway, "")
	p.WantClose(CloseGoingAway, "")
	p.Send(`CLOSE code=1001`)
	if r := <-cl; r.err != nil {
		t.Error(r.err)
	}
	if pieces != 3*2+1 {
		t.Errorf("%d pieces for three batches and a Close", pieces)
	}
	if c.r.buf != nil {
		t.Error("a connection that is over holds a buffer")
	}
}

// Unix sockets are sockets as well.
func TestIntegrationUnixSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "weft") // t.TempDir may be too long for a socket's name
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ln, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	cnc, err := net.Dial("unix", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	snc, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	o := wstest.NewOracle(t, wstest.OracleOptions{})
	client, server := NewConn(o.Conn(cnc, capture.Client), RoleClient, nil), NewConn(snc, RoleServer, nil)
	serving(server, Handler{Message: echo})
	for _, n := range []int{0, 1000, 900_000} {
		msg := pattern(n, 1)
		write := async(func() error { return client.WriteMessage(background, Binary, msg) })
		wantMessage(t, client, Binary, msg)
		<-write
	}
	if err := client.Close(CloseNormal, ""); err != nil {
		t.Error(err)
	}
	<-server.Done()
}

// tlsConns puts TLS on both ends of a pipe.
func tlsConns(t *testing.T, cp, sp net.Conn) (client, server *tls.Conn) {
	t.Helper()
	srv := httptest.NewUnstartedServer(nil)
	srv.StartTLS()
	cert := srv.TLS.Certificates[0]
	srv.Close()
	client = tls.Client(cp, &tls.Config{InsecureSkipVerify: true})
	server = tls.Server(sp, &tls.Config{Certificates: []tls.Certificate{cert}})
	done := make(chan error, 1)
	go func() { done <- client.Handshake() }()
	if err := errors.Join(server.Handshake(), <-done); err != nil {
		t.Fatal(err)
	}
	return client, server
}

// Over TLS everything is as without, but for a write that is interrupted: TLS
// cannot go on after one.
func TestIntegrationTLS(t *testing.T) {
	cert := func(t *testing.T) (client, server *tls.Conn) {
		cnc, snc := tcpPair(t, 0)
		return tlsConns(t, cnc, snc)
	}
	ct, st := cert(t)
	o := wstest.NewOracle(t, wstest.OracleOptions{})
	client, server := NewConn(o.Conn(ct, capture.Client), RoleClient, nil), NewConn(st, RoleServer, nil)
	serving(server, Handler{Message: echo})
	for _, n := range []int{0, 1, 125, 126, 65535, 65536, 1 << 20} {
		msg := pattern(n, 1)
		write := async(func() error { return client.WriteMessage(background, Binary, msg) })
		wantMessage(t, client, Binary, msg)
		if r := <-write; r.err != nil {
			t.Fatal(r.err)
		}
	}
	ctx, cancel := context.WithTimeout(background, time.Millisecond)
	defer cancel()
	if _, _, err := client.ReadMessage(ctx); err != context.DeadlineExceeded {
		t.Error(err)
	}
	mustWrite(t, client, Text, []byte("reads survive a cancel"))
	wantMessage(t, client, Text, []byte("reads survive a cancel"))
	if err := client.Close(CloseNormal, "bye"); err != nil {
		t.Error(err)
	}
	<-server.Done()
	wantCloseError(t, server.Err(), CloseNormal, true)
}

// A write that is interrupted over TLS ends the connection at once, whatever
// had left: it does not try for ever.
func TestConcurrencyCancelWriteOverTLS(t *testing.T) {
	eachRole(t, func(t *testing.T, role Role) {
		cnc, snc := tcpPair(t, 16<<10)
		ct, st := tlsConns(t, cnc, snc)
		cfg := Config{}
		begun := begins(&cfg)
		c := NewConn(ct, RoleClient, &cfg)
		if role == RoleServer {
			c = NewConn(st, RoleServer, &cfg)
		}
		ctx, cancel := context.WithCancel(background)
		write := async(func() error { return c.WriteMessage(ctx, Binary, make([]byte, 8<<20)) })
		<-begun
		cancel()
		r := <-write
		if !errors.Is(r.err, context.Canceled) || !errors.Is(r.err, net.ErrClosed) {
			t.Error(r.err)
		}
		cnc.Close()
		snc.Close()
		<-c.Done()
	})
}

// A socket that fails in other ways than by ending.
func TestEdgeCasesFailingConn(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		cp, sp, _ := (&setup{allow: brokenOff}).newPipe(t)
		broken := errors.New("the network is on fire")
		f := &failingNetConn{PipeConn: cp, err: broken}
		c := NewConn(f, role, nil)
		read := reading(background, c)
		synctest.Wait()
		f.fail()
		r := now(t, read, "")
		if wantCloseError(t, r.err, CloseAbnormal, false); !errors.Is(r.err, broken) {
			t.Error(r.err)
		}
		sp.Close()
		<-c.Done()
	})
}

// A failingNetConn fails every read once it is told to.
type failingNetConn struct {
	*wstest.PipeConn
	err error
	bad bool
}

func (c *failingNetConn) fail() {
	c.bad = true
	_ = c.PipeConn.SetReadDeadline(time.Unix(1, 0))
}

func (c *failingNetConn) Read(p []byte) (int, error) {
	n, err := c.PipeConn.Read(p)
	if c.bad && errors.Is(err, os.ErrDeadlineExceeded) {
		err = c.err
	}
	return n, err
}
