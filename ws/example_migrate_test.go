package ws_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/weft-ws/weft/ws"
)

// What stands between "docs:" comments is printed in docs/migrating.md, beside
// the same for gorilla/websocket and coder/websocket.

// docs: echo

func echo(w http.ResponseWriter, r *http.Request) {
	c, err := ws.Accept(w, r, nil)
	if err != nil {
		return // Accept has answered
	}
	defer c.CloseNow()
	ctx := context.Background()
	for m, err := range c.Messages(ctx) {
		if err != nil {
			return
		}
		if err := c.WriteMessage(ctx, m.Type, m.Data); err != nil {
			return
		}
	}
}

// docs: end

// docs: dial

func ask(ctx context.Context, url, question string) (string, error) {
	c, err := ws.Dial(ctx, url, nil)
	if err != nil {
		return "", err // a *HandshakeError holds the refusal's status, header and first bytes
	}
	defer c.Close(ws.CloseNormal, "")
	if err := c.WriteMessage(ctx, ws.Text, []byte(question)); err != nil {
		return "", err
	}
	_, p, err := c.ReadMessage(ctx)
	return string(p), err
}

// docs: end

// docs: writers

// Any goroutine may call WriteMessage. Send is for those that must not wait.
func offer(ctx context.Context, c *ws.Conn, p []byte) bool {
	err := c.Send(ctx, ws.Outgoing{Type: ws.Text, Data: p, Policy: ws.Fail})
	return !errors.Is(err, ws.ErrQueueFull) // more than Config.SendQueue bytes are waiting
}

// docs: end

// docs: limits

var limits = ws.Config{
	MaxMessageSize: 4 << 20,          // otherwise 1 MiB
	MessageTimeout: 10 * time.Second, // from a message's first byte to its last; otherwise 30 s
	IdleTimeout:    time.Minute,      // without any byte; otherwise none
}

func readLimited(ctx context.Context, c *ws.Conn, handle func([]byte)) error {
	for m, err := range c.Messages(ctx) {
		if err != nil {
			return err
		}
		handle(m.Data)
	}
	return nil // a normal closure
}

// docs: end

// docs: keepalive

var watched = ws.Config{
	KeepAlive:   30 * time.Second, // of silence, then a ping
	PongTimeout: 10 * time.Second, // for the answer, then close 1001
}

// docs: end

// docs: close

func hangUp(c *ws.Conn) error {
	return c.Close(ws.CloseNormal, "")
}

func explain(err error) string {
	var (
		ce *ws.CloseError
		pe *ws.ProtocolError
		le *ws.LimitError
		te *ws.TimeoutError
	)
	switch {
	case errors.As(err, &pe):
		return fmt.Sprintf("the peer broke %s in frame %d at byte %d", pe.Rule.Name, pe.Frame.Index, pe.Offset)
	case errors.As(err, &le):
		return "the peer exceeded " + le.Limit
	case errors.As(err, &te):
		return "the peer missed " + te.Limit
	case errors.As(err, &ce) && ce.Remote:
		return fmt.Sprintf("the peer closed with %d %s", ce.Code, ce.Reason)
	}
	return "the connection is lost"
}

// docs: end

// docs: broadcast

func broadcast(ctx context.Context, conns iter.Seq[*ws.Conn], p []byte) error {
	m, err := ws.NewPrepared(ws.Text, p)
	if err != nil {
		return err
	}
	for c := range conns { // of a Server: s.Conns()
		if err := c.WritePrepared(ctx, m); err != nil {
			log.Print(err)
		}
	}
	return nil
}

// docs: end

// docs: stream

func sendFile(ctx context.Context, c *ws.Conn, file io.Reader) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // if the file cannot be read to its end: the message ends here, and with it the connection
	w, err := c.NextWriter(ctx, ws.Binary)
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, file); err != nil {
		return err
	}
	return w.Close()
}

func receiveFile(ctx context.Context, c *ws.Conn, file io.Writer) error {
	r, err := c.NextReader(ctx)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, r)
	return err
}

// docs: end

// docs: compression

var compressing = &ws.AcceptOptions{Config: ws.Config{Compression: &ws.Compression{}}}

// docs: end

// docs: policy

var choosy = &ws.AcceptOptions{
	Subprotocols: []string{"chat.v2", "chat.v1"},
	Origins:      []string{"example.com", "*.example.com"},
}

// docs: end

// docs: shutdown

func run(ctx context.Context, l net.Listener, h ws.Handler) error {
	s := &ws.Server{Handler: h}
	hs := ws.NewHTTPServer(s)
	go hs.Serve(l)
	<-ctx.Done()
	grace, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	hs.Shutdown(grace)       // the listener
	return s.Shutdown(grace) // the connections: 1001 to each, then waits for all
}

// docs: end

// docs: netconn

func tunnel(ctx context.Context, c *ws.Conn) net.Conn {
	return ws.NetConn(ctx, c, ws.Binary)
}

// docs: end

// docs: context

func poll(ctx context.Context, c *ws.Conn, wait time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	_, p, err := c.ReadMessage(ctx)
	return p, err // after a timeout the next call goes on where this one stopped
}

// docs: end

// serving runs a handler and returns its ws URL.
func serving(h http.HandlerFunc) (url string, stop func()) {
	srv := httptest.NewServer(h)
	return strings.Replace(srv.URL, "http", "ws", 1), srv.Close
}

// dialing connects to a handler.
func dialing(h http.HandlerFunc, opts *ws.DialOptions) (c *ws.Conn, stop func()) {
	url, closeServer := serving(h)
	c, err := ws.Dial(context.Background(), url, opts)
	if err != nil {
		log.Panic(err)
	}
	return c, func() {
		c.CloseNow()
		closeServer()
	}
}

// accepting is a handler that hands its connection to f.
func accepting(opts *ws.AcceptOptions, f func(c *ws.Conn)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, err := ws.Accept(w, r, opts)
		if err != nil {
			return
		}
		f(c)
	}
}

func Example_echo() {
	url, stop := serving(echo)
	defer stop()
	answer, err := ask(context.Background(), url, "hello")
	fmt.Println(answer, err)
	// Output: hello <nil>
}

// Sixty-four goroutines, one connection, no lock.
func Example_manyWriters() {
	c, stop := dialing(echo, nil)
	defer stop()
	ctx := context.Background()
	var all sync.WaitGroup
	for i := range 64 {
		all.Go(func() {
			if err := c.WriteMessage(ctx, ws.Text, bytes.Repeat([]byte{byte('0' + i)}, 40_000)); err != nil {
				log.Print(err)
			}
		})
	}
	whole := 0
	for range 64 {
		_, p, err := c.ReadMessage(ctx)
		if err == nil && len(slices.Compact(p)) == 1 {
			whole++
		}
	}
	all.Wait()
	fmt.Println(whole, "messages came back unmixed")
	// Output: 64 messages came back unmixed
}

// A peer that does not read holds up its own queue and nobody else.
func Example_queue() {
	mine, theirs := net.Pipe() // nobody reads theirs
	defer theirs.Close()
	c := ws.NewConn(mine, ws.RoleServer, &ws.Config{SendQueue: 1000})
	defer c.CloseNow()
	taken := 0
	for offer(context.Background(), c, make([]byte, 400)) {
		taken++
	}
	// One may be on its way already, two more fit into a thousand bytes.
	fmt.Println("full:", taken == 2 || taken == 3)
	// Output: full: true
}

func Example_limits() {
	c, stop := dialing(accepting(&ws.AcceptOptions{Config: limits}, func(c *ws.Conn) {
		_ = readLimited(context.Background(), c, func([]byte) {})
	}), nil)
	defer stop()
	go c.WriteMessage(context.Background(), ws.Binary, make([]byte, 5<<20))
	_, _, err := c.ReadMessage(context.Background())
	fmt.Println(explain(err))
	// Output: the peer closed with 1009 over MaxMessageSize 4194304
}

func Example_keepAlive() {
	c, stop := dialing(echo, &ws.DialOptions{Config: watched})
	defer stop()
	fmt.Println(hangUp(c))
	// Output: <nil>
}

// What a peer's mistake looks like: CONTINUATION, and no message to continue.
func Example_explain() {
	mine, theirs := net.Pipe()
	defer theirs.Close()
	c := ws.NewConn(mine, ws.RoleClient, nil)
	defer c.CloseNow()
	go theirs.Write([]byte{0x81, 2, 'h', 'i', 0x80, 2, 'h', 'o'})
	for {
		_, p, err := c.ReadMessage(context.Background())
		if err != nil {
			fmt.Println(explain(err))
			return
		}
		fmt.Printf("%s\n", p)
	}
	// Output:
	// hi
	// the peer broke continuation-without-message in frame 2 at byte 4
}

func Example_broadcast() {
	here := make(chan bool)
	s := &ws.Server{Handler: ws.Handler{
		Open:    func(context.Context, *ws.Conn) error { here <- true; return nil },
		Message: func(context.Context, *ws.Conn, ws.MessageType, []byte) error { return nil },
	}}
	url, stop := serving(s.ServeHTTP)
	defer stop()
	ctx := context.Background()
	var clients []*ws.Conn
	for range 3 {
		c, err := ws.Dial(ctx, url, nil)
		if err != nil {
			log.Panic(err)
		}
		defer c.CloseNow()
		clients = append(clients, c)
		<-here // the client knows of its connection a little earlier than the server
	}
	if err := broadcast(ctx, s.Conns(), []byte("news")); err != nil {
		log.Panic(err)
	}
	for _, c := range clients {
		_, p, err := c.ReadMessage(ctx)
		fmt.Println(string(p), err)
	}
	// Output:
	// news <nil>
	// news <nil>
	// news <nil>
}

func Example_stream() {
	c, stop := dialing(accepting(&ws.AcceptOptions{Config: ws.Config{MaxMessageSize: 64 << 20}}, func(c *ws.Conn) {
		var sum counter
		if err := receiveFile(context.Background(), c, &sum); err != nil {
			log.Print(err)
		}
		_ = c.WriteMessage(context.Background(), ws.Text, fmt.Append(nil, int(sum)))
		_ = hangUp(c)
	}), nil)
	defer stop()
	ctx := context.Background()
	if err := sendFile(ctx, c, io.LimitReader(zeros{}, 20<<20)); err != nil {
		log.Print(err)
	}
	_, p, err := c.ReadMessage(ctx)
	fmt.Println(string(p), err)
	// Output: 20971520 <nil>
}

// A counter counts what is written to it.
type counter int

func (n *counter) Write(p []byte) (int, error) {
	*n += counter(len(p))
	return len(p), nil
}

// zeros is an endless file.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func Example_compression() {
	c, stop := dialing(accepting(compressing, func(c *ws.Conn) {
		for m, err := range c.Messages(context.Background()) {
			if err != nil || c.WriteMessage(context.Background(), m.Type, m.Data) != nil {
				return
			}
		}
	}), &ws.DialOptions{Config: ws.Config{Compression: &ws.Compression{}}})
	defer stop()
	ctx := context.Background()
	if err := c.WriteMessage(ctx, ws.Text, bytes.Repeat([]byte("weft "), 10_000)); err != nil {
		log.Print(err)
	}
	_, p, err := c.ReadMessage(ctx)
	s := c.Stats()
	fmt.Println(len(p), err, s.Sent.Bytes < 1000, s.Received.Bytes < 1000)
	// Output: 50000 <nil> true true
}

func Example_policy() {
	url, stop := serving(accepting(choosy, func(c *ws.Conn) { _ = hangUp(c) }))
	defer stop()
	ctx := context.Background()
	for _, origin := range []string{"https://www.example.com", "https://example.com.evil.net"} {
		c, err := ws.Dial(ctx, url, &ws.DialOptions{Subprotocols: []string{"chat.v1"}, Header: http.Header{"Origin": {origin}}})
		var he *ws.HandshakeError
		switch {
		case errors.As(err, &he):
			fmt.Println(origin, he.Status)
		case err == nil:
			fmt.Println(origin, c.Subprotocol())
			c.CloseNow()
		}
	}
	// Output:
	// https://www.example.com chat.v1
	// https://example.com.evil.net 403
}

func Example_shutdown() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Panic(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, l, ws.Handler{Message: (&last{stop: stop}).message}) }()
	_, err = ask(context.Background(), "ws://"+l.Addr().String(), "stop")
	fmt.Println(explain(err))
	fmt.Println(<-ended)
	// Output:
	// the peer closed with 1001 server is shutting down
	// <nil>
}

// last is a handler whose first message stops the server.
type last struct{ stop func() }

func (h *last) message(context.Context, *ws.Conn, ws.MessageType, []byte) error {
	h.stop()
	return nil
}

func ExampleNetConn() {
	c, stop := dialing(echo, nil)
	defer stop()
	nc := tunnel(context.Background(), c)
	defer nc.Close()
	fmt.Fprint(nc, "any protocol")
	p := make([]byte, len("any protocol"))
	_, err := io.ReadFull(nc, p)
	fmt.Println(string(p), err)
	// Output: any protocol <nil>
}

// A read that gives up leaves the connection as it was.
func Example_poll() {
	c, stop := dialing(echo, nil)
	defer stop()
	ctx := context.Background()
	_, err := poll(ctx, c, time.Millisecond)
	fmt.Println(err)
	if err := c.WriteMessage(ctx, ws.Text, []byte("still there")); err != nil {
		log.Print(err)
	}
	p, err := poll(ctx, c, time.Minute)
	fmt.Println(string(p), err)
	// Output:
	// context deadline exceeded
	// still there <nil>
}
