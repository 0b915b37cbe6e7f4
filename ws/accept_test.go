package ws

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// maskedFrame is a whole frame of a client with the key zero, which masks
// nothing.
func maskedFrame(opcode byte, payload string) string {
	head := []byte{0x80 | opcode}
	switch n := len(payload); {
	case n < 126:
		head = append(head, 0x80|byte(n))
	default:
		head = append(head, 0x80|126, byte(n>>8), byte(n))
	}
	return string(head) + "\x00\x00\x00\x00" + payload
}

// upgradeRaw sends a request, and bytes right behind it, and reads the 101.
func upgradeRaw(t *testing.T, addr, request string) (net.Conn, *bufio.Reader, *http.Response) {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	if _, err := io.WriteString(nc, request); err != nil {
		t.Fatal(err)
	}
	br := bufio.NewReader(nc)
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(resp.Body)
		t.Fatalf("%s: %s", resp.Status, body)
	}
	return nc, br, resp
}

// echoOne answers one message and closes.
func echoOne(t *testing.T, c *Conn) {
	t.Helper()
	typ, p, err := c.ReadMessage(context.Background())
	if err == nil {
		err = c.WriteMessage(context.Background(), typ, p)
	}
	if err != nil {
		t.Error(err)
	}
	_ = c.Close(CloseNormal, "")
}

// A hijackable is a ResponseWriter that gives away a connection of the test's.
type hijackable struct {
	*httptest.ResponseRecorder
	nc  net.Conn
	brw *bufio.ReadWriter
	err error
}

func (h *hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) { return h.nc, h.brw, h.err }

// A recordingConn notes what is done to it and can fail.
type recordingConn struct {
	net.Conn
	writes             []string
	deadline, writeEnd []time.Time
	writeErr, setErr   error
	closed             bool
}

func (c *recordingConn) Write(p []byte) (int, error) {
	c.writes = append(c.writes, string(p))
	if c.writeErr != nil {
		return 0, c.writeErr
	}
	return len(p), nil
}

func (c *recordingConn) SetDeadline(t time.Time) error {
	c.deadline = append(c.deadline, t)
	return c.setErr
}

func (c *recordingConn) SetWriteDeadline(t time.Time) error {
	c.writeEnd = append(c.writeEnd, t)
	return nil
}

func (c *recordingConn) SetReadDeadline(time.Time) error { return nil }
func (c *recordingConn) Close() error                    { c.closed = true; return nil }
func (c *recordingConn) RemoteAddr() net.Addr            { return &net.TCPAddr{} }
func (c *recordingConn) Read([]byte) (int, error)        { return 0, io.EOF }

// goodRequest is upgradeRequest, changed, as net/http's server would pass it on.
func goodRequest(t *testing.T, more string) *http.Request {
	t.Helper()
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(edit(t, upgradeRequest, "", more))))
	if err != nil {
		t.Fatal(err)
	}
	r.RemoteAddr = "192.0.2.1:1234"
	return r
}

// TestAcceptResponse: the 101 to the byte, in a single write.
func TestAcceptResponse(t *testing.T) {
	nc := &recordingConn{}
	w := &hijackable{ResponseRecorder: httptest.NewRecorder(), nc: nc}
	w.Header().Set("Set-Cookie", "session=1")
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("Content-Length", "3")
	w.Header().Set("Connection", "keep-alive")
	w.Header().Set(http.TrailerPrefix+"X", "1")
	w.Header().Set("Trailer", "X")
	c, err := Accept(w, goodRequest(t, "Sec-WebSocket-Protocol: superchat, chat\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"),
		&AcceptOptions{
			Subprotocols: []string{"chat", "superchat"},
			Header:       http.Header{"X-Room": {"1", "2"}, "Server": {"weft"}},
			Config:       Config{Compression: &Compression{ClientMaxWindowBits: 10}},
		})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	want := "HTTP/1.1 101 Switching Protocols\r\n" +
		"Upgrade: websocket\r\n" +
		"Connection: Upgrade\r\n" +
		"Sec-WebSocket-Accept: " + sampleAccept + "\r\n" +
		"Sec-WebSocket-Protocol: chat\r\n" +
		"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=10\r\n" +
		"Set-Cookie: session=1\r\n" +
		"Server: weft\r\n" +
		"X-Room: 1\r\n" +
		"X-Room: 2\r\n" +
		"\r\n"
	if !slices.Equal(nc.writes, []string{want}) {
		t.Errorf("wrote %q,\nwant one write of %q", nc.writes, want)
	}
	if c.Subprotocol() != "chat" || c.Role() != RoleServer {
		t.Errorf("subprotocol %q, role %v", c.Subprotocol(), c.Role())
	}
	if w.Body.Len() != 0 || w.Code != 200 {
		t.Errorf("something went through the ResponseWriter: %d %q", w.Code, w.Body)
	}
	// The deadlines of net/http's server are gone, and so is that of the write.
	if n := len(nc.deadline); n == 0 || !nc.deadline[n-1].IsZero() {
		t.Errorf("deadlines set: %v, want none in the end", nc.deadline)
	}
	if n := len(nc.writeEnd); n < 2 || nc.writeEnd[0].IsZero() || !nc.writeEnd[n-1].IsZero() {
		t.Errorf("write deadlines set: %v, want one and then none", nc.writeEnd)
	}
}

// TestAcceptHandshakeTimeout: a client that does not take the 101 does not hold
// the handler for longer than 10 s, or what is set.
func TestAcceptHandshakeTimeout(t *testing.T) {
	for _, tc := range []struct{ set, want time.Duration }{{0, 10 * time.Second}, {3 * time.Second, 3 * time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			ours, theirs := net.Pipe()
			defer theirs.Close()
			start := time.Now()
			_, err := Accept(&hijackable{ResponseRecorder: httptest.NewRecorder(), nc: ours}, goodRequest(t, ""), &AcceptOptions{HandshakeTimeout: tc.set})
			var ne net.Error
			if !errors.As(err, &ne) || !ne.Timeout() {
				t.Fatalf("got %v, want a timeout", err)
			}
			if took := time.Since(start); took != tc.want {
				t.Errorf("took %v, want %v", took, tc.want)
			}
			if _, err := ours.Write(nil); err != io.ErrClosedPipe {
				t.Errorf("the connection is still open: %v", err)
			}
		})
	}
	nc := &recordingConn{}
	c, err := Accept(&hijackable{ResponseRecorder: httptest.NewRecorder(), nc: nc}, goodRequest(t, ""), &AcceptOptions{HandshakeTimeout: -1})
	if err != nil {
		t.Fatal(err)
	}
	c.CloseNow()
	if len(nc.writeEnd) > 0 && !nc.writeEnd[0].IsZero() {
		t.Errorf("a negative timeout sets deadlines: %v", nc.writeEnd)
	}
}

// TestAcceptKeepsEarlyBytes: frames that come in the same segment as the request
// are read like any other (a client should not do this: HS-16).
func TestAcceptKeepsEarlyBytes(t *testing.T) {
	for _, payload := range []string{"hi", strings.Repeat("x", 3000), strings.Repeat("y", 60000)} {
		for _, how := range []string{"Accept", "Serve"} {
			t.Run(fmt.Sprintf("%s %d", how, len(payload)), func(t *testing.T) {
				addr := listenHTTP(t, func(w http.ResponseWriter, r *http.Request) {
					if how == "Serve" {
						_, err := Serve(w, r, nil, Handler{Message: func(ctx context.Context, c *Conn, typ MessageType, p []byte) error {
							return c.WriteMessage(ctx, typ, p)
						}})
						if err != nil {
							t.Error(err)
						}
						return
					}
					c, err := Accept(w, r, nil)
					if err != nil {
						t.Error(err)
						return
					}
					echoOne(t, c)
				})
				nc, br, _ := upgradeRaw(t, addr, upgradeRequest+maskedFrame(1, payload))
				got := readPayload(t, br)
				if got != payload {
					t.Errorf("got %d bytes back, want %d", len(got), len(payload))
				}
				if _, err := io.WriteString(nc, maskedFrame(8, "\x03\xe8")); err != nil {
					t.Error(err)
				}
				if _, err := io.Copy(io.Discard, br); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// readPayload reads one unmasked message, in as many frames as it has.
func readPayload(t *testing.T, br *bufio.Reader) string {
	t.Helper()
	var payload []byte
	for {
		var head [4]byte
		if _, err := io.ReadFull(br, head[:2]); err != nil {
			t.Fatal(err)
		}
		n := int(head[1])
		if n == 126 {
			if _, err := io.ReadFull(br, head[2:4]); err != nil {
				t.Fatal(err)
			}
			n = int(head[2])<<8 | int(head[3])
		}
		p := make([]byte, n)
		if _, err := io.ReadFull(br, p); err != nil {
			t.Fatal(err)
		}
		payload = append(payload, p...)
		if head[0]&0x80 != 0 {
			return string(payload)
		}
	}
}

// TestAcceptSubprotocol: the server's order decides, nothing is chosen that was
// not offered, and the choice is said once.
func TestAcceptSubprotocol(t *testing.T) {
	choose := func(s string, err error) func(*http.Request, []string) (string, error) {
		return func(*http.Request, []string) (string, error) { return s, err }
	}
	for _, tc := range []struct {
		name    string
		offered string
		o       AcceptOptions
		want    string
		status  int
	}{
		{name: "none anywhere"},
		{name: "none offered", o: AcceptOptions{Subprotocols: []string{"a"}}},
		{name: "none spoken", offered: "a"},
		{name: "none in common", offered: "a", o: AcceptOptions{Subprotocols: []string{"b"}}},
		{name: "other case", offered: "A", o: AcceptOptions{Subprotocols: []string{"a"}}},
		{name: "the server prefers", offered: "a, b", o: AcceptOptions{Subprotocols: []string{"b", "a"}}, want: "b"},
		{name: "a function", offered: "a, b", o: AcceptOptions{Subprotocols: []string{"a"}, ChooseSubprotocol: choose("b", nil)}, want: "b"},
		{name: "a function chooses none", offered: "a, b", o: AcceptOptions{Subprotocols: []string{"a"}, ChooseSubprotocol: choose("", nil)}},
		{name: "a function invents one", offered: "a, b", o: AcceptOptions{ChooseSubprotocol: choose("c", nil)}, status: 500},
		{name: "a function refuses", offered: "a", o: AcceptOptions{ChooseSubprotocol: choose("", errors.New("no bearer"))}, status: 400},
		{name: "with a status", offered: "a", o: AcceptOptions{ChooseSubprotocol: choose("", &HandshakeError{Status: 401, Reason: "no bearer",
			Header: http.Header{"Www-Authenticate": {"Bearer"}}})}, status: 401},
		{name: "with a status that is none", offered: "a", o: AcceptOptions{ChooseSubprotocol: choose("", &HandshakeError{Reason: "no bearer"})}, status: 400},
	} {
		t.Run(tc.name, func(t *testing.T) {
			nc := &recordingConn{}
			w := &hijackable{ResponseRecorder: httptest.NewRecorder(), nc: nc}
			more := ""
			if tc.offered != "" {
				more = "Sec-WebSocket-Protocol: " + tc.offered + "\r\n"
			}
			c, err := Accept(w, goodRequest(t, more), &tc.o)
			if tc.status != 0 {
				var he *HandshakeError
				if !errors.As(err, &he) || he.Status != tc.status || w.Code != tc.status {
					t.Fatalf("got %v and %d, want %d", err, w.Code, tc.status)
				}
				if tc.status == 401 && w.Header().Get("WWW-Authenticate") != "Bearer" {
					t.Errorf("the header of the refusal is lost: %v", w.Header())
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer c.CloseNow()
			want := 0
			if tc.want != "" {
				want = 1
			}
			if n := strings.Count(nc.writes[0], "Sec-WebSocket-Protocol: "); c.Subprotocol() != tc.want || n != want {
				t.Errorf("chose %q and said so %d times, want %q", c.Subprotocol(), n, tc.want)
			}
		})
	}
	// The function sees what the client offered, in its order.
	var seen []string
	o := AcceptOptions{ChooseSubprotocol: func(r *http.Request, offered []string) (string, error) {
		seen = offered
		return "", errors.New("enough")
	}}
	_, _ = Accept(httptest.NewRecorder(), goodRequest(t, "Sec-WebSocket-Protocol: b, a\r\n"), &o)
	if !slices.Equal(seen, []string{"b", "a"}) {
		t.Errorf("the function saw %q", seen)
	}
}

// TestAcceptHeaderInjection: fields of the application cannot end the header,
// split it or speak for the handshake.
func TestAcceptHeaderInjection(t *testing.T) {
	for _, tc := range []struct{ name, value string }{
		{"X-A", "b\r\nX-Evil: 1"},
		{"X-A", "b\nX-Evil: 1"},
		{"X-A", "b\r"},
		{"X-A", "b\x00"},
		{"X-A", "b\x7f"},
		{"X-A\r\nX-Evil", "1"},
		{"X A", "1"},
		{"X:A", "1"},
		{"", "1"},
		{"H\u00e9", "1"},
		{"Upgrade", "h2c"},
		{"connection", "close"},
		{"sec-websocket-accept", "x"},
		{"Sec-WebSocket-Protocol", "x"},
		{"Sec-Websocket-Extensions", "x"},
		{"Content-Length", "1"},
		{"Transfer-Encoding", "chunked"},
	} {
		nc := &recordingConn{}
		w := &hijackable{ResponseRecorder: httptest.NewRecorder(), nc: nc}
		_, err := Accept(w, goodRequest(t, ""), &AcceptOptions{Header: http.Header{tc.name: {tc.value}}})
		var he *HandshakeError
		if !errors.As(err, &he) || he.Status != 500 || w.Code != 500 {
			t.Errorf("%q: %q: got %v and %d, want 500", tc.name, tc.value, err, w.Code)
			continue
		}
		if !strings.Contains(err.Error(), "AcceptOptions.Header") {
			t.Errorf("%q: the error does not say where it came from: %v", tc.name, err)
		}
		if strings.Contains(w.Body.String(), "Evil") || len(nc.writes) > 0 {
			t.Errorf("%q: sent %q and %q", tc.name, w.Body, nc.writes)
		}
	}
	// Middleware can be wrong as well.
	w := &hijackable{ResponseRecorder: httptest.NewRecorder(), nc: &recordingConn{}}
	w.Header()["X-A"] = []string{"b\r\nX-Evil: 1"}
	if _, err := Accept(w, goodRequest(t, ""), nil); err == nil || !strings.Contains(err.Error(), "ResponseWriter.Header") {
		t.Errorf("got %v", err)
	}
}

// TestAcceptDeclinesBadDeflateOffers: an offer that is not valid is declined
// (DF-03, DF-06), which is no reason to refuse the connection or to pass over
// the next offer.
func TestAcceptDeclinesBadDeflateOffers(t *testing.T) {
	const good = "permessage-deflate; server_no_context_takeover"
	for _, bad := range []string{
		"permessage-deflate; mux",
		"permessage-deflate; server_no_context_takeover; server_no_context_takeover",
		"permessage-deflate; server_max_window_bits=7",
		"permessage-deflate; server_max_window_bits=16",
		"permessage-deflate; server_max_window_bits=09",
		"permessage-deflate; server_max_window_bits",
		"permessage-deflate; client_max_window_bits=x",
		"permessage-deflate; client_no_context_takeover=yes",
		"x-webkit-deflate-frame",
	} {
		for _, offer := range []struct{ line, want string }{{bad, ""}, {bad + ", " + good, good}, {good + ", " + bad, good}} {
			a, he := (&AcceptOptions{Config: Config{Compression: &Compression{}}}).
				answer(httptest.NewRecorder(), goodRequest(t, "Sec-WebSocket-Extensions: "+offer.line+"\r\n"))
			if he != nil {
				t.Errorf("%s: %v", offer.line, he)
				continue
			}
			_, got, _ := strings.Cut(string(a.response), "Sec-WebSocket-Extensions: ")
			got, _, _ = strings.Cut(got, "\r\n")
			if got != offer.want || (a.est.deflate == nil) != (offer.want == "") {
				t.Errorf("%s: answered %q, want %q", offer.line, got, offer.want)
			}
		}
	}
	// Without Compression nothing is accepted.
	a, he := (&AcceptOptions{}).answer(httptest.NewRecorder(), goodRequest(t, "Sec-WebSocket-Extensions: "+good+"\r\n"))
	if he != nil || a.est.deflate != nil || bytes.Contains(a.response, []byte("Extensions")) {
		t.Errorf("got %v, %q", he, a.response)
	}
}

// A wrapper is a ResponseWriter of a middleware.
type wrapper struct{ w http.ResponseWriter }

func (w *wrapper) Header() http.Header         { return w.w.Header() }
func (w *wrapper) Write(p []byte) (int, error) { return w.w.Write(p) }
func (w *wrapper) WriteHeader(status int)      { w.w.WriteHeader(status) }

// An unwrapper is one that can be taken off.
type unwrapper struct{ wrapper }

func (w *unwrapper) Unwrap() http.ResponseWriter { return w.w }

// TestAcceptThroughMiddleware: wrappers with Unwrap are no obstacle; one without
// is named.
func TestAcceptThroughMiddleware(t *testing.T) {
	addr := listenHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/chat" {
			w = &unwrapper{wrapper{&unwrapper{wrapper{w}}}}
		} else {
			w = &unwrapper{wrapper{&wrapper{w}}}
		}
		c, err := Accept(w, r, nil)
		if r.URL.Path == "/chat" {
			if err != nil {
				t.Error(err)
				return
			}
			echoOne(t, c)
			return
		}
		if !errors.Is(err, http.ErrNotSupported) || !strings.Contains(err.Error(), "Unwrap") {
			t.Errorf("got %v, want an error that names Unwrap", err)
		}
	})
	nc, br, _ := upgradeRaw(t, addr, upgradeRequest)
	if _, err := io.WriteString(nc, maskedFrame(2, "through")+maskedFrame(8, "")); err != nil {
		t.Fatal(err)
	}
	if got := readPayload(t, br); got != "through" {
		t.Errorf("got %q", got)
	}
	resp, body := askRaw(t, addr, edit(t, upgradeRequest, "/chat", "/closed"))
	if resp.StatusCode != 500 || !strings.Contains(body, "unwrapper") {
		t.Errorf("%s: %q, want 500 and the name of the wrapper", resp.Status, body)
	}
}

// TestAcceptFails: errors after the request was found good.
func TestAcceptFails(t *testing.T) {
	gone := errors.New("gone")
	nc := &recordingConn{writeErr: gone}
	_, err := Accept(&hijackable{ResponseRecorder: httptest.NewRecorder(), nc: nc}, goodRequest(t, ""), nil)
	if !errors.Is(err, gone) || !nc.closed {
		t.Errorf("write: got %v, closed %v", err, nc.closed)
	}
	nc = &recordingConn{setErr: gone}
	_, err = Accept(&hijackable{ResponseRecorder: httptest.NewRecorder(), nc: nc}, goodRequest(t, ""), nil)
	if !errors.Is(err, gone) || !nc.closed || len(nc.writes) > 0 {
		t.Errorf("deadline: got %v, closed %v, wrote %q", err, nc.closed, nc.writes)
	}
	w := &hijackable{ResponseRecorder: httptest.NewRecorder(), err: gone}
	if _, err = Accept(w, goodRequest(t, ""), nil); !errors.Is(err, gone) || w.Code != 500 {
		t.Errorf("hijack: got %v, status %d", err, w.Code)
	}
	if _, err = Serve(httptest.NewRecorder(), goodRequest(t, ""), nil, Handler{}); !errors.Is(err, http.ErrNotSupported) {
		t.Errorf("Serve: got %v", err)
	}
}

// TestAcceptBufferedByWrapper: a middleware's Hijack may return any ReadWriter;
// what is in it belongs to the stream.
func TestAcceptBufferedByWrapper(t *testing.T) {
	for _, brw := range []*bufio.ReadWriter{nil, {}, bufio.NewReadWriter(bufio.NewReader(strings.NewReader("")), nil)} {
		if got := leftover(brw); got != nil {
			t.Errorf("got %q from nothing", got)
		}
	}
	br := bufio.NewReader(strings.NewReader("early bytes"))
	if _, err := br.Peek(5); err != nil {
		t.Fatal(err)
	}
	if got := string(leftover(bufio.NewReadWriter(br, nil))); got != "early bytes" {
		t.Errorf("got %q", got)
	}
}

// TestAcceptHTTP2: a request over HTTP/2 is told what to do.
func TestAcceptHTTP2(t *testing.T) {
	refused := make(chan error, 1)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := Accept(w, r, nil)
		refused <- err
	}))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	resp, err := srv.Client().Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if resp.ProtoMajor != 2 || resp.StatusCode != 505 || !strings.Contains(string(body), "HTTP/1.1") {
		t.Errorf("%s %s: %q, want 505 over HTTP/2 that names HTTP/1.1", resp.Proto, resp.Status, body)
	}
	if err := <-refused; err == nil {
		t.Error("Accept returned no error")
	}
}

// TestAcceptRefusalEndsTheStream: after an upgrade that was refused the
// connection is closed, so that frames sent early are not taken for a request.
// A plain request leaves it open.
func TestAcceptRefusalEndsTheStream(t *testing.T) {
	paths := make(chan string, 8)
	addr := listenHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		paths <- r.URL.Path
		_, _ = Accept(w, r, nil)
	})
	smuggled := "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := io.WriteString(nc, edit(t, upgradeRequest, "Version: 13", "Version: 12")+smuggled); err != nil {
		t.Fatal(err)
	}
	answer, _ := io.ReadAll(nc) // to the end: the server closes
	if n := strings.Count(string(answer), "HTTP/1.1 "); n != 1 {
		t.Errorf("%d answers in %q, want one", n, answer)
	}
	if got := <-paths; got != "/chat" || len(paths) > 0 {
		t.Errorf("first request %q, %d more", got, len(paths))
	}
	nc, err = net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	br := bufio.NewReader(nc)
	for range 2 {
		if _, err := io.WriteString(nc, "GET /plain HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		if resp.StatusCode != 426 {
			t.Errorf("%s, want 426", resp.Status)
		}
	}
}

// TestAcceptPolicies: Host, Origin and budget are looked at, in the options of
// the call.
func TestAcceptPolicies(t *testing.T) {
	full := &Budget{Soft: 1}
	full.used = 2
	for _, tc := range []struct {
		name   string
		header string
		o      AcceptOptions
		status int
	}{
		{name: "host", o: AcceptOptions{Hosts: LoopbackHosts()}, status: 403},
		{name: "origin", header: "Origin: https://evil.example\r\n", status: 403},
		{name: "origin, allowed", header: "Origin: https://app.example\r\n", o: AcceptOptions{Origins: []string{"app.example"}}, status: 200},
		{name: "budget", o: AcceptOptions{Config: Config{Budget: full}}, status: 503},
		{name: "budget with room", o: AcceptOptions{Config: Config{Budget: &Budget{Soft: 1}}}, status: 200},
	} {
		w := &hijackable{ResponseRecorder: httptest.NewRecorder(), nc: &recordingConn{}}
		c, err := Accept(w, goodRequest(t, tc.header), &tc.o)
		if w.Code != tc.status || (err == nil) != (tc.status == 200) {
			t.Errorf("%s: got %d and %v, want %d", tc.name, w.Code, err, tc.status)
		}
		if tc.status == 503 && w.Header().Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", tc.name)
		}
		if c != nil {
			c.CloseNow()
		}
	}
}

// TestAcceptLogsRefusals: an operator sees who was refused and why.
func TestAcceptLogsRefusals(t *testing.T) {
	var log bytes.Buffer
	o := AcceptOptions{Hosts: []string{"other.example"}, Config: Config{Logger: slog.New(slog.NewTextHandler(&log, nil))}}
	_, _ = Accept(httptest.NewRecorder(), goodRequest(t, ""), &o)
	for _, want := range []string{"opening handshake refused", "192.0.2.1:1234", "/chat", "server.example", "403"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("%q is not in %s", want, log.String())
		}
	}
}

// TestServeLeavesNothingOfHTTP: once the handler has returned, the request is
// garbage although the connection lives: this is what keeps an idle connection
// small.
func TestServeLeavesNothingOfHTTP(t *testing.T) {
	freed := make(chan struct{})
	addr := listenHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		runtime.AddCleanup(r, func(freed chan struct{}) { close(freed) }, freed)
		_, err := Serve(w, r, &AcceptOptions{ChooseSubprotocol: func(r *http.Request, offered []string) (string, error) {
			return offered[0], nil
		}}, Handler{Message: func(ctx context.Context, c *Conn, typ MessageType, p []byte) error {
			return c.WriteMessage(ctx, typ, p)
		}})
		if err != nil {
			t.Error(err)
		}
	})
	nc, br, _ := upgradeRaw(t, addr, edit(t, upgradeRequest, "", "Sec-WebSocket-Protocol: a\r\n"))
	guard := time.NewTimer(30 * time.Second)
	defer guard.Stop()
	for done := false; !done; {
		runtime.GC()
		select {
		case <-freed:
			done = true
		case <-guard.C:
			t.Fatal("the request is still referred to")
		default:
		}
	}
	if _, err := io.WriteString(nc, maskedFrame(1, "alive")); err != nil {
		t.Fatal(err)
	}
	if got := readPayload(t, br); got != "alive" {
		t.Errorf("got %q", got)
	}
}

// TestAcceptOverTLS: the connection under a Conn may be TLS.
func TestAcceptOverTLS(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		echoOne(t, c)
	}))
	defer srv.Close()
	nc, err := tls.Dial("tcp", srv.Listener.Addr().String(), &tls.Config{RootCAs: srv.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, ServerName: "example.com"})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := io.WriteString(nc, upgradeRequest+maskedFrame(1, "secret")); err != nil {
		t.Fatal(err)
	}
	br := bufio.NewReader(nc)
	if _, err := http.ReadResponse(br, nil); err != nil {
		t.Fatal(err)
	}
	if got := readPayload(t, br); got != "secret" {
		t.Errorf("got %q", got)
	}
	_, _ = io.WriteString(nc, maskedFrame(8, "\x03\xe8"))
}
