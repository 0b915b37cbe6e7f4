package ws

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// serverURL serves s on a port of its own.
func serverURL(t *testing.T, s *Server) string {
	t.Helper()
	return "ws://" + serveOn(t, NewHTTPServer(s)) + "/"
}

func mustDial(t *testing.T, url string, opts *DialOptions) *Conn {
	t.Helper()
	c, err := Dial(context.Background(), url, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.CloseNow() })
	return c
}

// ask sends a message and reads the answer.
func ask(t *testing.T, c *Conn, p string) string {
	t.Helper()
	if err := c.WriteMessage(context.Background(), Text, []byte(p)); err != nil {
		t.Fatal(err)
	}
	_, got, err := c.ReadMessage(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return string(got)
}

func echo(ctx context.Context, c *Conn, typ MessageType, p []byte) error {
	return c.WriteMessage(ctx, typ, p)
}

// wantStatus dials and wants to be refused.
func wantStatus(t *testing.T, url string, status int) *HandshakeError {
	t.Helper()
	c, err := Dial(context.Background(), url, nil)
	if err == nil {
		c.CloseNow()
		t.Fatalf("accepted, want %d", status)
	}
	var he *HandshakeError
	if !errors.As(err, &he) || he.Status != status {
		t.Fatalf("got %v, want %d", err, status)
	}
	return he
}

// TestServerShutdown: every connection gets 1001, newcomers 503, and Shutdown
// returns when the last Handler has.
func TestServerShutdown(t *testing.T) {
	var closed atomic.Int32
	s := &Server{Handler: Handler{Message: echo, Closed: func(c *Conn, err error) {
		var ce *CloseError
		if !errors.As(err, &ce) || ce.Code != CloseGoingAway || ce.Received == nil {
			t.Errorf("server's connection ended with %v", err)
		}
		closed.Add(1)
	}}}
	url := serverURL(t, s)
	const n = 20
	var readers sync.WaitGroup
	for range n {
		c := mustDial(t, url, nil)
		if got := ask(t, c, "hello"); got != "hello" {
			t.Errorf("got %q", got)
		}
		readers.Go(func() {
			_, _, err := c.ReadMessage(context.Background())
			var ce *CloseError
			if !errors.As(err, &ce) || ce.Code != CloseGoingAway || !ce.Remote {
				t.Errorf("client's connection ended with %v, want 1001 from the server", err)
			}
		})
	}
	if live := count(s); live != n {
		t.Errorf("%d connections, want %d", live, n)
	}
	if err := s.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got := closed.Load(); got != n {
		t.Errorf("%d Handlers had returned, want %d", got, n)
	}
	readers.Wait()
	if live := count(s); live != 0 {
		t.Errorf("%d connections are left", live)
	}
	he := wantStatus(t, url, http.StatusServiceUnavailable)
	if he.Header.Get("Retry-After") == "" || !strings.Contains(he.Reason, "retry after") {
		t.Errorf("no Retry-After: %v", he)
	}
	if st := s.Stats(); st.Connections != n || st.Received.Messages != n || st.Sent.Messages != n {
		t.Errorf("sums after the end: %+v", st)
	}
	// Once more, with nothing to do.
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
}

func count(s *Server) (n int) {
	for range s.Conns() {
		n++
	}
	return n
}

// TestServerShutdownDrops: a peer that never answers the Close is dropped when
// ctx ends, and ctx's error is returned.
func TestServerShutdownDrops(t *testing.T) {
	ended := make(chan error, 1)
	s := &Server{
		Options: AcceptOptions{Config: Config{CloseTimeout: -1}},
		Handler: Handler{Message: echo, Closed: func(c *Conn, err error) { ended <- err }},
	}
	addr := serveOn(t, NewHTTPServer(s))
	nc, br, _ := upgradeRaw(t, addr, upgradeRequest)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(ctx) }()
	if got := readPayload(t, br); got != "\x03\xe9server is shutting down" {
		t.Errorf("got %q, want a Close with 1001", got)
	}
	cancel() // the Close is out and will never be answered
	if err := <-done; err != context.Canceled {
		t.Errorf("got %v, want ctx's error", err)
	}
	if err := <-ended; err == nil {
		t.Error("the connection ended without an error")
	}
	if _, err := io.Copy(io.Discard, br); err != nil && !errors.Is(err, io.EOF) {
		// A reset is as good as an end.
		var ne *net.OpError
		if !errors.As(err, &ne) {
			t.Error(err)
		}
	}
	nc.Close()
}

// TestServerShutdownDuringHandshake: a handshake that was under way when the
// server stopped ends in a connection that is closed with 1001 like the others;
// one whose connection was to be dropped by then is.
func TestServerShutdownDuringHandshake(t *testing.T) {
	for _, patience := range []string{"plenty", "none"} {
		t.Run(patience, func(t *testing.T) {
			entered, goOn := make(chan bool), make(chan bool)
			s := &Server{Options: AcceptOptions{CheckOrigin: func(*http.Request) bool {
				close(entered)
				<-goOn
				return true
			}}}
			addr := serveOn(t, NewHTTPServer(s))
			nc, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			if _, err := io.WriteString(nc, upgradeRequest); err != nil {
				t.Fatal(err)
			}
			<-entered
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			done := make(chan error, 1)
			go func() { done <- s.Shutdown(ctx) }()
			for !stopping(s) {
				runtime.Gosched()
			}
			if patience == "none" {
				cancel()
				if err := <-done; err != context.Canceled {
					t.Errorf("Shutdown returned %v", err)
				}
			}
			close(goOn)
			br := bufio.NewReader(nc)
			if _, err := http.ReadResponse(br, nil); err != nil {
				t.Fatal(err)
			}
			if patience == "none" {
				if b, _ := io.ReadAll(br); len(b) > 0 {
					t.Errorf("got %q before the end, want nothing", b)
				}
				return
			}
			if got := readPayload(t, br); !strings.HasPrefix(got, "\x03\xe9") {
				t.Errorf("got %q, want 1001", got)
			}
			if _, err := io.WriteString(nc, maskedFrame(8, "\x03\xe9")); err != nil {
				t.Error(err)
			}
			if err := <-done; err != nil {
				t.Errorf("Shutdown returned %v", err)
			}
		})
	}
}

func stopping(s *Server) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.drained != nil
}

// TestServerConnectionsMax: one more than allowed is told to come back, and may
// when another has gone. A refused or panicking handshake holds no place.
func TestServerConnectionsMax(t *testing.T) {
	ended := make(chan bool, 8)
	s := &Server{ConnectionsMax: 2, Handler: Handler{Message: echo}, Options: AcceptOptions{
		Config: Config{Trace: &Trace{Closed: func(*CloseError) { ended <- true }}},
		CheckOrigin: func(r *http.Request) bool {
			if r.URL.Path == "/panic" {
				panic(http.ErrAbortHandler)
			}
			return r.URL.Path != "/refused"
		},
	}}
	url := serverURL(t, s)
	for range 3 {
		wantStatus(t, url+"refused", http.StatusForbidden)
		if _, err := Dial(context.Background(), url+"panic", nil); err == nil {
			t.Error("accepted by a function that panics")
		}
	}
	a, b := mustDial(t, url, nil), mustDial(t, url, nil)
	ask(t, a, "a")
	ask(t, b, "b")
	he := wantStatus(t, url, http.StatusServiceUnavailable)
	if he.Header.Get("Retry-After") == "" || !strings.Contains(string(he.Body), "ConnectionsMax") {
		t.Errorf("got %v, %q", he, he.Body)
	}
	if err := a.Close(CloseNormal, ""); err != nil {
		t.Error(err)
	}
	<-ended
	c := mustDial(t, url, nil)
	if got := ask(t, c, "c"); got != "c" {
		t.Errorf("got %q", got)
	}
}

// TestServerAccept: a connection that the caller reads is tracked as well.
func TestServerAccept(t *testing.T) {
	s := &Server{}
	url := "ws://" + listenHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		c, err := s.Accept(w, r)
		if err != nil {
			return
		}
		for m, err := range c.Messages(context.Background()) {
			if err == nil {
				err = c.WriteMessage(context.Background(), m.Type, m.Data)
			}
			if err != nil {
				break
			}
		}
	})
	c := mustDial(t, url, nil)
	ask(t, c, "one")
	if n := count(s); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
	if st := s.Stats(); st.Connections != 1 || st.Received.Messages != 1 {
		t.Errorf("sums of what is open: %+v", st)
	}
	for range s.Conns() {
		break // a loop may be left
	}
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(context.Background()) }()
	_, _, err := c.ReadMessage(context.Background())
	var ce *CloseError
	if !errors.As(err, &ce) || ce.Code != CloseGoingAway {
		t.Errorf("got %v, want 1001", err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestServerEndedBeforeTracked: a connection may end before the server has
// written it down; it is counted once and not kept.
func TestServerEndedBeforeTracked(t *testing.T) {
	s := &Server{}
	if he := s.reserve(); he != nil {
		t.Fatal(he)
	}
	c := newConn(&recordingConn{}, RoleServer, Config{}, established{server: s})
	c.CloseNow()
	s.settle(c, false)
	if count(s) != 0 || len(s.early) != 0 {
		t.Errorf("%d connections and %d early ones are left", count(s), len(s.early))
	}
	if st := s.Stats(); st.Connections != 1 {
		t.Errorf("%d connections counted, want 1", st.Connections)
	}
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
}

// TestServerManyAtOnce: connections that come and go from many goroutines while
// the sums are read and the server stops. Run with -race.
func TestServerManyAtOnce(t *testing.T) {
	s := &Server{Handler: Handler{Message: echo}}
	url := serverURL(t, s)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 10 {
				c, err := Dial(context.Background(), url, nil)
				if err != nil {
					var he *HandshakeError
					if !errors.As(err, &he) || he.Status != http.StatusServiceUnavailable {
						t.Error(err)
					}
					return
				}
				if err := c.WriteMessage(context.Background(), Text, fmt.Append(nil, i)); err == nil {
					_, _, _ = c.ReadMessage(context.Background())
				}
				_ = s.Stats()
				_ = c.Close(CloseNormal, "")
				if i == 8 {
					wg.Go(func() {
						if err := s.Shutdown(context.Background()); err != nil {
							t.Error(err)
						}
					})
				}
			}
		})
	}
	wg.Wait()
	if count(s) != 0 || len(s.early) != 0 || s.opening != 0 || s.serving != 0 {
		t.Errorf("left: %d connections, %d early, %d opening, %d serving", count(s), len(s.early), s.opening, s.serving)
	}
}

// TestHTTPServerLimits: a header of more than 16 KiB or 100 fields is answered
// 431, a connection that sends none is closed after 10 s.
func TestHTTPServerLimits(t *testing.T) {
	addr := listenHTTP(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) })
	request := func(more string) string { return "GET / HTTP/1.1\r\nHost: x\r\n" + more + "\r\n" }
	for _, tc := range []struct {
		name, request string
		status        int
	}{
		{"small", request(""), 204},
		{"100 fields", request(strings.Repeat("X-A: 1\r\n", 100)), 204}, // net/http takes Host out
		{"101 fields", request(strings.Repeat("X-A: 1\r\n", 101)), 431},
		{"101 names", request(fields(101)), 431},
		{"15 KiB", request("X-A: " + strings.Repeat("a", 15<<10) + "\r\n"), 204},
		{"17 KiB", request("X-A: " + strings.Repeat("a", 17<<10) + "\r\n"), 431},
		{"1 MB of spaces", request("X-A: " + strings.Repeat(" ", 1<<20) + "\r\n"), 431},
	} {
		t.Run(tc.name, func(t *testing.T) {
			nc, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			// The server may answer and close before it has read everything.
			wrote := make(chan struct{})
			go func() {
				defer close(wrote)
				_, _ = io.WriteString(nc, tc.request)
			}()
			resp, err := http.ReadResponse(bufio.NewReader(nc), nil)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != tc.status {
				t.Errorf("%s, want %d", resp.Status, tc.status)
			}
			nc.Close()
			<-wrote
		})
	}
	srv := NewHTTPServer(http.NotFoundHandler())
	if srv.ReadHeaderTimeout != 10*time.Second || srv.IdleTimeout == 0 || srv.Protocols.HTTP2() || !srv.Protocols.HTTP1() {
		t.Errorf("limits: %+v", srv)
	}
}

// A pipeListener accepts one connection, from memory.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case nc := <-l.conns:
		return nc, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { close(l.done); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// TestHTTPServerSlowHeader: a request that comes in at a byte per second is not
// waited for longer than one that does not come at all: 10 s.
func TestHTTPServerSlowHeader(t *testing.T) {
	for _, pause := range []time.Duration{time.Second, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			ours, theirs := net.Pipe()
			ln := &pipeListener{make(chan net.Conn, 1), make(chan struct{})}
			ln.conns <- ours
			srv := NewHTTPServer(&Server{})
			done := make(chan struct{})
			go func() {
				defer close(done)
				_ = srv.Serve(ln)
			}()
			start := time.Now()
			wrote := make(chan struct{})
			go func() {
				defer close(wrote)
				for i := range len(upgradeRequest) {
					if _, err := io.WriteString(theirs, upgradeRequest[i:i+1]); err != nil {
						return
					}
					time.Sleep(pause)
				}
			}()
			_, _ = io.Copy(io.Discard, theirs)
			if took := time.Since(start); took != 10*time.Second {
				t.Errorf("a byte each %v: closed after %v, want 10 s", pause, took)
			}
			_ = srv.Close()
			<-done
			<-wrote
		})
	}
}

func fields(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "X-%d: 1\r\n", i)
	}
	return b.String()
}

// TestServerRefusalBeforeUpgrade: a server that is full says so to everybody,
// whatever else is wrong with the request.
func TestServerRefusalBeforeUpgrade(t *testing.T) {
	s := &Server{}
	if err := s.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if w.Code != http.StatusServiceUnavailable {
		t.Errorf("got %d", w.Code)
	}
}
