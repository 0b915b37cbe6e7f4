// Package coder is the coder/websocket half of docs/migrating.md: the code that
// a reader has now. What stands between "docs:" comments is printed there.
package coder

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// docs: echo

func echo(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // Accept has answered
	}
	defer c.CloseNow()
	for {
		typ, p, err := c.Read(context.Background())
		if err != nil {
			return
		}
		if err := c.Write(context.Background(), typ, p); err != nil {
			return
		}
	}
}

// docs: end

// docs: dial

func ask(ctx context.Context, url, question string) (string, error) {
	c, _, err := websocket.Dial(ctx, url, nil)
	if err != nil {
		return "", err // the first bytes of the refusal are in the *http.Response
	}
	defer c.Close(websocket.StatusNormalClosure, "")
	if err := c.Write(ctx, websocket.MessageText, []byte(question)); err != nil {
		return "", err
	}
	_, p, err := c.Read(ctx)
	return string(p), err
}

// docs: end

// docs: writers

// Any goroutine may write. A queue is ours to build, so that a slow peer holds
// up nobody.
type client struct {
	conn *websocket.Conn
	send chan []byte
}

func (c *client) writePump(ctx context.Context) error {
	for {
		select {
		case p := <-c.send:
			if err := c.conn.Write(ctx, websocket.MessageText, p); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// docs: end

// docs: limits

func readLimited(ctx context.Context, c *websocket.Conn, handle func([]byte)) error {
	c.SetReadLimit(4 << 20) // otherwise 32 KiB
	for {
		next, cancel := context.WithTimeout(ctx, time.Minute)
		_, p, err := c.Read(next)
		cancel()
		if err != nil {
			return err // also after a timeout: it closes the connection
		}
		handle(p)
	}
}

// docs: end

// docs: keepalive

func keepAlive(ctx context.Context, c *websocket.Conn) error {
	t := time.NewTicker(30 * time.Second)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			pong, cancel := context.WithTimeout(ctx, 10*time.Second)
			err := c.Ping(pong)
			cancel()
			if err != nil {
				return c.CloseNow()
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// docs: end

// docs: close

func hangUp(c *websocket.Conn) error {
	return c.Close(websocket.StatusNormalClosure, "")
}

func explain(err error) string {
	var ce websocket.CloseError
	switch {
	case websocket.CloseStatus(err) == websocket.StatusNormalClosure, websocket.CloseStatus(err) == websocket.StatusGoingAway:
		return "the peer is done"
	case errors.As(err, &ce):
		return "the peer closed: " + ce.Reason
	case errors.Is(err, websocket.ErrMessageTooBig):
		return "the message is too big"
	}
	return "the connection is lost, or the peer broke the protocol" // a text is all that there is
}

// docs: end

// docs: broadcast

func broadcast(ctx context.Context, conns []*websocket.Conn, p []byte) {
	for _, c := range conns {
		if err := c.Write(ctx, websocket.MessageText, p); err != nil { // framed, and compressed, once for each
			log.Print(err)
		}
	}
}

// docs: end

// docs: stream

func sendFile(ctx context.Context, c *websocket.Conn, file io.Reader) error {
	w, err := c.Writer(ctx, websocket.MessageBinary)
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, file); err != nil {
		return err
	}
	return w.Close()
}

func receiveFile(ctx context.Context, c *websocket.Conn, file io.Writer) error {
	_, r, err := c.Reader(ctx)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, r)
	return err
}

// docs: end

// docs: compression

var compressing = &websocket.AcceptOptions{CompressionMode: websocket.CompressionContextTakeover}

// docs: end

// docs: policy

var choosy = &websocket.AcceptOptions{
	Subprotocols:   []string{"chat.v2", "chat.v1"},
	OriginPatterns: []string{"example.com", "*.example.com"},
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
	c, err := websocket.Accept(w, r, nil)
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
		c.CloseNow()
		h.wg.Done()
	}()
	for {
		if _, _, err := c.Read(context.Background()); err != nil {
			return
		}
	}
}

func (h *hub) shutdown() {
	h.mu.Lock()
	for c := range h.conns {
		go c.Close(websocket.StatusGoingAway, "")
	}
	h.mu.Unlock()
	h.wg.Wait()
}

// docs: end

// docs: netconn

func tunnel(ctx context.Context, c *websocket.Conn) net.Conn {
	return websocket.NetConn(ctx, c, websocket.MessageBinary)
}

// docs: end

// docs: context

func poll(ctx context.Context, c *websocket.Conn, wait time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	_, p, err := c.Read(ctx)
	return p, err // a timeout has closed the connection
}

// docs: end
