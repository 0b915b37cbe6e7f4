package gorilla

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/weft-ws/weft/ws"
)

// serve runs a handler and returns its ws URL.
func serve(t *testing.T, h http.HandlerFunc) string {
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return strings.Replace(srv.URL, "http", "ws", 1)
}

// weft connects to a handler as weft's client.
func weft(t *testing.T, h http.HandlerFunc) *ws.Conn {
	c, err := ws.Dial(t.Context(), serve(t, h), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.CloseNow() })
	return c
}

// upgraded is a handler that hands its connection to f.
func upgraded(t *testing.T, u *websocket.Upgrader, f func(c *websocket.Conn)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, err := u.Upgrade(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
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
	c := weft(t, upgraded(t, &upgrader, func(c *websocket.Conn) {
		q := &client{conn: c, send: make(chan []byte, 1)}
		if !q.offer([]byte("first")) || q.offer([]byte("second")) {
			t.Error("a queue of one message takes one message")
		}
		close(q.send)
		q.writePump()
	}))
	if _, p, err := c.ReadMessage(t.Context()); string(p) != "first" || err != nil {
		t.Fatalf("message %q, error %v", p, err)
	}
}

func TestLimit(t *testing.T) {
	said := make(chan string, 1)
	c := weft(t, upgraded(t, &upgrader, func(c *websocket.Conn) {
		said <- explain(readLimited(c, func([]byte) {}))
	}))
	go c.WriteMessage(t.Context(), ws.Binary, make([]byte, 5<<20))
	if got := <-said; got != "the message is too big" {
		t.Fatal(got)
	}
}

func TestHangUp(t *testing.T) {
	done := make(chan error, 1)
	c := weft(t, upgraded(t, &upgrader, func(c *websocket.Conn) {
		end := make(chan struct{})
		defer close(end)
		keepAlive(c, end)
		done <- hangUp(c)
	}))
	if err := c.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestExplain(t *testing.T) {
	said := make(chan string, 1)
	c := weft(t, upgraded(t, &upgrader, func(c *websocket.Conn) {
		_, _, err := c.ReadMessage()
		said <- explain(err)
	}))
	go c.Close(3000, "because")
	if got := <-said; got != "the peer closed: because" {
		t.Fatal(got)
	}
}

func TestBroadcast(t *testing.T) {
	c := weft(t, upgraded(t, &compressing, func(c *websocket.Conn) {
		if err := broadcast([]*websocket.Conn{c}, []byte("news")); err != nil {
			t.Error(err)
		}
	}))
	if _, p, err := c.ReadMessage(t.Context()); string(p) != "news" || err != nil {
		t.Fatalf("message %q, error %v", p, err)
	}
}

func TestStream(t *testing.T) {
	file := bytes.Repeat([]byte("weft"), 100_000)
	c := weft(t, upgraded(t, &upgrader, func(c *websocket.Conn) {
		var got bytes.Buffer
		if err := receiveFile(c, &got); err != nil {
			t.Error(err)
		}
		if err := sendFile(c, &got); err != nil {
			t.Error(err)
		}
	}))
	if err := c.WriteMessage(t.Context(), ws.Binary, file); err != nil {
		t.Fatal(err)
	}
	if _, p, err := c.ReadMessage(t.Context()); !bytes.Equal(p, file) || err != nil {
		t.Fatalf("%d bytes, error %v", len(p), err)
	}
}

func TestPolicy(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if c, err := choosy.Upgrade(w, r, nil); err == nil {
			c.Close()
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
	c := weft(t, h.serve)
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

func TestReadUntil(t *testing.T) {
	ended := make(chan error, 1)
	weft(t, upgraded(t, &upgrader, func(c *websocket.Conn) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err := readUntil(ctx, c)
		ended <- err
	}))
	if err := <-ended; err == nil {
		t.Fatal("a read without a message came back without an error")
	}
}
