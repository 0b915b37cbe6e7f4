// Package gorilla is the gorilla/websocket half of docs/migrating.md: the code
// that a reader has now. What stands between "docs:" comments is printed there.
package gorilla

import (
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// docs: echo

var upgrader websocket.Upgrader

func echo(w http.ResponseWriter, r *http.Request) {
	c, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // Upgrade has answered
	}
	defer c.Close()
	for {
		typ, p, err := c.ReadMessage()
		if err != nil {
			return
		}
		if err := c.WriteMessage(typ, p); err != nil {
			return
		}
	}
}

// docs: end

// docs: dial

func ask(ctx context.Context, url, question string) (string, error) {
	c, _, err := websocket.DefaultDialer.DialContext(ctx, url, nil)
	if err != nil {
		return "", err // ErrBadHandshake: look at the *http.Response for the reason
	}
	defer c.Close()
	if err := c.WriteMessage(websocket.TextMessage, []byte(question)); err != nil {
		return "", err
	}
	_, p, err := c.ReadMessage()
	return string(p), err
}

// docs: end

// docs: writers

// A client has one goroutine that writes. Everybody else gives it messages.
type client struct {
	conn *websocket.Conn
	send chan []byte
}

func (c *client) writePump() {
	defer c.conn.Close()
	for p := range c.send {
		c.conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
		if err := c.conn.WriteMessage(websocket.TextMessage, p); err != nil {
			return
		}
	}
	c.conn.WriteMessage(websocket.CloseMessage, nil)
}

func (c *client) offer(p []byte) bool {
	select {
	case c.send <- p:
		return true
	default:
		return false // the queue is full, counted in messages, whatever their size
	}
}

// docs: end

// docs: limits

func readLimited(c *websocket.Conn, handle func([]byte)) error {
	c.SetReadLimit(4 << 20)
	for {
		c.SetReadDeadline(time.Now().Add(time.Minute))
		_, p, err := c.ReadMessage()
		if err != nil {
			return err // also after a deadline: the connection cannot be read any more
		}
		handle(p)
	}
}

// docs: end

// docs: keepalive

const (
	pingEvery = 30 * time.Second
	pongWait  = 40 * time.Second
)

func keepAlive(c *websocket.Conn, done <-chan struct{}) {
	c.SetReadDeadline(time.Now().Add(pongWait))
	c.SetPongHandler(func(string) error {
		return c.SetReadDeadline(time.Now().Add(pongWait))
	})
	go func() {
		t := time.NewTicker(pingEvery)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				if c.WriteControl(websocket.PingMessage, nil, time.Now().Add(10*time.Second)) != nil {
					return
				}
			case <-done:
				return
			}
		}
	}()
}

// docs: end

// docs: close

func hangUp(c *websocket.Conn) error {
	bye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	if err := c.WriteControl(websocket.CloseMessage, bye, time.Now().Add(time.Second)); err != nil {
		return err
	}
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	for {
		if _, _, err := c.ReadMessage(); err != nil { // the peer's Close comes as an error
			return c.Close()
		}
	}
}

func explain(err error) string {
	var ce *websocket.CloseError
	switch {
	case websocket.IsCloseError(err, websocket.CloseNormalClosure, websocket.CloseGoingAway):
		return "the peer is done"
	case errors.As(err, &ce):
		return "the peer closed: " + ce.Text
	case errors.Is(err, websocket.ErrReadLimit):
		return "the message is too big"
	}
	return "the connection is lost, or the peer broke the protocol" // a text is all that there is
}

// docs: end

// docs: broadcast

func broadcast(conns []*websocket.Conn, p []byte) error {
	m, err := websocket.NewPreparedMessage(websocket.TextMessage, p)
	if err != nil {
		return err
	}
	for _, c := range conns {
		if err := c.WritePreparedMessage(m); err != nil { // nobody else may write to c now
			log.Print(err)
		}
	}
	return nil
}

// docs: end

// docs: stream

func sendFile(c *websocket.Conn, file io.Reader) error {
	w, err := c.NextWriter(websocket.BinaryMessage)
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, file); err != nil {
		return err
	}
	return w.Close()
}

func receiveFile(c *websocket.Conn, file io.Writer) error {
	_, r, err := c.NextReader()
	if err != nil {
		return err
	}
	_, err = io.Copy(file, r)
	return err
}

// docs: end

// docs: compression

var compressing = websocket.Upgrader{EnableCompression: true} // never with context takeover

// docs: end

// docs: policy

var choosy = websocket.Upgrader{
	Subprotocols: []string{"chat.v2", "chat.v1"},
	CheckOrigin: func(r *http.Request) bool {
		switch r.Header.Get("Origin") {
		case "", "https://example.com", "https://www.example.com":
			return true
		}
		return false
	},
}

// docs: end

// docs: shutdown

// A hub knows the connections, since http.Server.Shutdown does not.
type hub struct {
	mu    sync.Mutex
	conns map[*websocket.Conn]bool
	wg    sync.WaitGroup
}

func (h *hub) serve(w http.ResponseWriter, r *http.Request) {
	c, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	h.mu.Lock()
	h.conns[c] = true
	h.wg.Add(1)
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		delete(h.conns, c)
		h.mu.Unlock()
		c.Close()
		h.wg.Done()
	}()
	for {
		if _, _, err := c.ReadMessage(); err != nil {
			return
		}
	}
}

func (h *hub) shutdown() {
	bye := websocket.FormatCloseMessage(websocket.CloseGoingAway, "")
	h.mu.Lock()
	for c := range h.conns {
		c.WriteControl(websocket.CloseMessage, bye, time.Now().Add(time.Second))
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
	}
	h.mu.Unlock()
	h.wg.Wait()
}

// docs: end

// docs: context

func readUntil(ctx context.Context, c *websocket.Conn) ([]byte, error) {
	stop := context.AfterFunc(ctx, func() { c.Close() }) // there is no other way out
	defer stop()
	_, p, err := c.ReadMessage()
	return p, err
}

// docs: end
