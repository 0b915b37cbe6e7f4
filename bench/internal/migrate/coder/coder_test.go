package coder

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/weft-ws/weft/ws"
)

// serve runs a handler and returns its ws URL.
func serve(t *testing.T, h http.HandlerFunc) string {
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return strings.Replace(srv.URL, "http", "ws", 1)
}

// weft connects to a handler as weft's client.
func weft(t *testing.T, h http.HandlerFunc, cfg ws.Config) *ws.Conn {
	c, err := ws.Dial(t.Context(), serve(t, h), &ws.DialOptions{Config: cfg})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.CloseNow() })
	return c
}

// accepted is a handler that hands its connection to f.
func accepted(t *testing.T, o *websocket.AcceptOptions, f func(c *websocket.Conn)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, o)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.CloseNow()
		f(c)
	}
}

func TestEcho(t *testing.T) {
	answer, err := ask(t.Context(), serve(t, echo), "hello")
	if answer != "hello" || err != nil {
		t.Fatalf("answer %q, error %v", answer, err)
	}
}

func TestWritePump(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	c := weft(t, accepted(t, nil, func(c *websocket.Conn) {
		q := &client{conn: c, send: make(chan []byte, 1)}
		q.send <- []byte("first")
		ended <- q.writePump(ctx)
	}), ws.Config{})
	if _, p, err := c.ReadMessage(t.Context()); string(p) != "first" || err != nil {
		t.Fatalf("message %q, error %v", p, err)
	}
	cancel()
	if err := <-ended; err == nil {
		t.Fatal("the pump ended without an error")
	}
}

func TestLimit(t *testing.T) {
	said := make(chan string, 1)
	c := weft(t, accepted(t, nil, func(c *websocket.Conn) {
		said <- explain(readLimited(context.Background(), c, func([]byte) {}))
	}), ws.Config{})
	go c.WriteMessage(t.Context(), ws.Binary, make([]byte, 5<<20))
	if got := <-said; got != "the message is too big" {
		t.Fatal(got)
	}
}

func TestHangUp(t *testing.T) {
	done := make(chan error, 1)
	c := weft(t, accepted(t, nil, func(c *websocket.Conn) {
		ctx, cancel := context.WithCancel(context.Background())
		go func() { _ = keepAlive(ctx, c) }()
		done <- hangUp(c)
		cancel()
	}), ws.Config{})
	if err := c.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestExplain(t *testing.T) {
	said := make(chan string, 1)
	c := weft(t, accepted(t, nil, func(c *websocket.Conn) {
		_, _, err := c.Read(context.Background())
		said <- explain(err)
	}), ws.Config{})
	go c.Close(3000, "because")
	if got := <-said; got != "the peer closed: because" {
		t.Fatal(got)
	}
}

func TestBroadcast(t *testing.T) {
	c := weft(t, accepted(t, compressing, func(c *websocket.Conn) {
		broadcast(context.Background(), []*websocket.Conn{c}, bytes.Repeat([]byte("news "), 1000))
	}), ws.Config{Compression: &ws.Compression{}})
	if _, p, err := c.ReadMessage(t.Context()); len(p) != 5000 || err != nil {
		t.Fatalf("%d bytes, error %v", len(p), err)
	}
}

func TestStream(t *testing.T) {
	file := bytes.Repeat([]byte("weft"), 5_000)
	c := weft(t, accepted(t, nil, func(c *websocket.Conn) {
		var got bytes.Buffer
		if err := receiveFile(context.Background(), c, &got); err != nil {
			t.Error(err)
		}
		if err := sendFile(context.Background(), c, &got); err != nil {
			t.Error(err)
		}
	}), ws.Config{})
	if err := c.WriteMessage(t.Context(), ws.Binary, file); err != nil {
		t.Fatal(err)
	}
	if _, p, err := c.ReadMessage(t.Context()); !bytes.Equal(p, file) || err != nil {
		t.Fatalf("%d bytes, error %v", len(p), err)
	}
}

func TestPolicy(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if c, err := websocket.Accept(w, r, choosy); err == nil {
			c.CloseNow()
		}
	})
	for origin, want := range map[string]bool{"https://www.example.com": true, "https://evil.net": false} {
		c, err := ws.Dial(t.Context(), url, &ws.DialOptions{Subprotocols: []string{"chat.v1"}, Header: http.Header{"Origin": {origin}}})
		if got := err == nil; got != want {
			t.Errorf("%s: let in: %v, want %v", origin, got, want)
		}
		if err == nil {
			c.CloseNow()
		}
	}
}

func TestShutdown(t *testing.T) {
	h := &hub{conns: map[*websocket.Conn]bool{}}
	c := weft(t, h.serve, ws.Config{})
	for n := 0; n == 0; runtime.Gosched() { // the client is quicker than the hub
		h.mu.Lock()
		n = len(h.conns)
		h.mu.Unlock()
	}
	go h.shutdown()
	if err := c.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.wg.Wait()
}

func TestTunnel(t *testing.T) {
	c := weft(t, accepted(t, nil, func(c *websocket.Conn) {
		nc := tunnel(context.Background(), c)
		_, _ = io.CopyN(nc, nc, 4) // what went wrong shows at the other end
	}), ws.Config{})
	nc := ws.NetConn(t.Context(), c, ws.Binary)
	if _, err := nc.Write([]byte("weft")); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 4)
	if _, err := io.ReadFull(nc, p); string(p) != "weft" || err != nil {
		t.Fatalf("%q, error %v", p, err)
	}
}

// A read whose context ends closes the connection, as migrating.md says.
func TestPoll(t *testing.T) {
	over := make(chan struct{})
	c := weft(t, accepted(t, nil, func(c *websocket.Conn) {
		if _, err := poll(context.Background(), c, 200*time.Millisecond); err == nil {
			t.Error("a read without a message came back without an error")
		}
		<-over
	}), ws.Config{})
	_, _, err := c.ReadMessage(t.Context())
	close(over)
	if !errors.Is(err, net.ErrClosed) {
		t.Fatalf("the other end saw %v", err)
	}
}
