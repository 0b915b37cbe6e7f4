package ws

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

// scripted runs f for each connection to a port of its own, and waits for all
// of them when the test ends.
func scripted(t *testing.T, f func(nc net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			f(nc)
			nc.Close()
		}
	}()
	t.Cleanup(func() {
		ln.Close()
		<-done
	})
	return ln.Addr().String()
}

// answers is a server that reads a request and answers with a template, in which
// ACCEPT stands for the digest. It waits for the client to close.
func answers(t *testing.T, template string) string {
	return "ws://" + scripted(t, func(nc net.Conn) {
		r, err := http.ReadRequest(bufio.NewReader(nc))
		if err != nil {
			return
		}
		_, _ = io.WriteString(nc, answerTo(r.Header.Get("Sec-WebSocket-Key"), template))
		if tc, ok := nc.(*net.TCPConn); ok {
			_ = tc.CloseWrite()
		}
		_, _ = io.Copy(io.Discard, nc)
	})
}

// noProxy keeps the environment of the machine out of the tests.
func noProxy(*http.Request) (*url.URL, error) { return nil, nil }

// TestDialRejectsBrokenResponses: each rule of the server's handshake, through
// Dial on a real socket.
func TestDialRejectsBrokenResponses(t *testing.T) {
	for _, tc := range responseCases {
		t.Run(tc.rule+" "+tc.name, func(t *testing.T) {
			addr := answers(t, edit(t, switchResponse, tc.old, tc.new))
			c, err := Dial(context.Background(), addr, &DialOptions{Subprotocols: tc.subprotocols, Config: Config{Compression: tc.compression}})
			if err == nil {
				c.CloseNow()
			}
			if he := wantRule(t, err, tc.rule); he.Status != 101 {
				t.Errorf("status %d", he.Status)
			}
		})
	}
}

// TestDialRequest: the request to the byte, but for the key.
func TestDialRequest(t *testing.T) {
	for _, tc := range []struct {
		name, url string
		opts      DialOptions
		want      string // ADDR is the server, KEY the key
	}{
		{"plain", "ws://ADDR", DialOptions{},
			"GET / HTTP/1.1\r\nHost: ADDR\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: KEY\r\nSec-WebSocket-Version: 13\r\n\r\n"},
		{"everything", "WS://us%20er:p%C3%A4ss@ADDR/a%20b/c?d=e&f=%23", DialOptions{
			Subprotocols: []string{"b", "a"},
			Host:         "other.example:99",
			Header:       http.Header{"Origin": {"https://app.example"}, "X-B": {"1", "2"}, "Cookie": {"a=b"}},
			Config:       Config{Compression: &Compression{ServerMaxWindowBits: 9, NoContextTakeover: true}},
		}, "GET /a%20b/c?d=e&f=%23 HTTP/1.1\r\nHost: other.example:99\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: KEY\r\nSec-WebSocket-Version: 13\r\n" +
			"Sec-WebSocket-Protocol: b, a\r\n" +
			"Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=9; client_max_window_bits\r\n" +
			"Authorization: Basic dXMgZXI6cMOkc3M=\r\n" +
			"Cookie: a=b\r\nOrigin: https://app.example\r\nX-B: 1\r\nX-B: 2\r\n\r\n"},
		{"the header's authorization wins", "ws://user:password@ADDR/", DialOptions{Header: http.Header{"authorization": {"Bearer x"}}},
			"GET / HTTP/1.1\r\nHost: ADDR\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: KEY\r\nSec-WebSocket-Version: 13\r\nauthorization: Bearer x\r\n\r\n"},
		{"a query alone", "ws://user@ADDR?q", DialOptions{},
			"GET /?q HTTP/1.1\r\nHost: ADDR\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: KEY\r\nSec-WebSocket-Version: 13\r\nAuthorization: Basic dXNlcjo=\r\n\r\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			seen := make(chan string, 1)
			addr := scripted(t, func(nc net.Conn) {
				buf := make([]byte, 4096)
				n, err := nc.Read(buf) // the request comes in one write
				if err != nil {
					t.Error(err)
				}
				seen <- string(buf[:n])
			})
			_, err := Dial(context.Background(), strings.Replace(tc.url, "ADDR", addr, 1), &tc.opts)
			if !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("got %v, want an unexpected end", err)
			}
			got := <-seen
			_, key, _ := strings.Cut(got, "Sec-WebSocket-Key: ")
			key, _, _ = strings.Cut(key, "\r\n")
			if !validKey(key) {
				t.Errorf("key %q", key)
			}
			if want := strings.NewReplacer("ADDR", addr, "KEY", key).Replace(tc.want); got != want {
				t.Errorf("got %q,\nwant %q", got, want)
			}
		})
	}
}

// TestDialKeyIsFresh: each connection has a key of its own (HS-11).
func TestDialKeyIsFresh(t *testing.T) {
	seen := map[string]bool{}
	const n = 1000
	for range n {
		d, err := newDialing("ws://example.com/", &DialOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if b, err := base64.StdEncoding.DecodeString(d.key); err != nil || len(b) != 16 {
			t.Fatalf("key %q: %v", d.key, err)
		}
		seen[d.key] = true
	}
	if len(seen) != n {
		t.Errorf("%d keys in %d requests", len(seen), n)
	}
}

// TestDialAddresses: what a URL says about where to connect and whom to ask.
func TestDialAddresses(t *testing.T) {
	for _, tc := range []struct{ url, addr, hostHeader, tlsName string }{
		{"ws://example.com/", "example.com:80", "example.com", "example.com"},
		{"ws://example.com:80/", "example.com:80", "example.com", "example.com"},
		{"ws://example.com:0080/", "example.com:80", "example.com", "example.com"},
		{"ws://example.com:/", "example.com:80", "example.com", "example.com"},
		{"ws://example.com:443/", "example.com:443", "example.com:443", "example.com"},
		{"wss://example.com", "example.com:443", "example.com", "example.com"},
		{"wss://example.com:443", "example.com:443", "example.com", "example.com"},
		{"wss://example.com:80", "example.com:80", "example.com:80", "example.com"},
		{"WSS://Example.com", "Example.com:443", "Example.com", "Example.com"},
		{"ws://127.0.0.1:8080", "127.0.0.1:8080", "127.0.0.1:8080", "127.0.0.1"},
		{"ws://[::1]", "[::1]:80", "[::1]", "::1"},
		{"wss://[::1]:8443", "[::1]:8443", "[::1]:8443", "::1"},
		{"ws://[fe80::1%25eth0]:8080", "[fe80::1%eth0]:8080", "[fe80::1]:8080", "fe80::1"},
	} {
		d, err := newDialing(tc.url, &DialOptions{})
		if err != nil {
			t.Errorf("%s: %v", tc.url, err)
			continue
		}
		_, host, _ := strings.Cut(string(d.request), "Host: ")
		host, _, _ = strings.Cut(host, "\r\n")
		if d.addr != tc.addr || host != tc.hostHeader || d.host != tc.tlsName || d.secure != strings.HasPrefix(strings.ToLower(tc.url), "wss") {
			t.Errorf("%s: address %q, Host %q, TLS name %q, secure %v", tc.url, d.addr, host, d.host, d.secure)
		}
	}
}

// TestDialBadArguments: what cannot be a handshake fails before any connection,
// names the field, and shows no password.
func TestDialBadArguments(t *testing.T) {
	header := func(name, value string) DialOptions { return DialOptions{Header: http.Header{name: {value}}} }
	for _, tc := range []struct {
		url  string
		opts DialOptions
		says string
	}{
		{url: "ws://h/#top", says: "fragment"},
		{url: "ws://h/#", says: "fragment"},
		{url: "ws://user:secret@h/#", says: "fragment"},
		{url: "http://h/", says: "must be ws or wss"},
		{url: "h/path", says: "must be ws or wss"},
		{url: "", says: "must be ws or wss"},
		{url: "ws:///path", says: "names no host"},
		{url: "ws://user:secret@/path", says: "names no host"},
		{url: "ws:h", says: "names no host"},
		{url: "ws://user:secret@h:port/", says: "cannot be parsed"},
		{url: "ws://h\r\nX: y/", says: "cannot be parsed"},
		{url: "ws://h:0/", says: "port"},
		{url: "ws://h:65536/", says: "port"},
		{url: "ws://h:99999999999999999999/", says: "port"},
		{url: "ws://b\u00fccher.example/", says: "xn--"},
		{url: "ws://h/?a b", says: "percent-encode it"},
		{url: "ws://h/?\u00e4", says: "percent-encode it"},
		{url: "ws://h", opts: DialOptions{Host: "a\r\nX-Evil: 1"}, says: "DialOptions.Host"},
		{url: "ws://h", opts: DialOptions{Host: "a/b"}, says: "DialOptions.Host"},
		{url: "ws://h", opts: DialOptions{Host: "a b"}, says: "DialOptions.Host"},
		{url: "ws://h", opts: header("Host", "a"), says: "DialOptions.Host"},
		{url: "ws://h", opts: header("connection", "close"), says: "belongs to the opening handshake"},
		{url: "ws://h", opts: header("Upgrade", "h2c"), says: "belongs to the opening handshake"},
		{url: "ws://h", opts: header("Sec-WebSocket-Key", "x"), says: "belongs to the opening handshake"},
		{url: "ws://h", opts: header("sec-websocket-protocol", "x"), says: "Subprotocols"},
		{url: "ws://h", opts: header("Sec-Websocket-Extensions", "x"), says: "Config.Compression"},
		{url: "ws://h", opts: header("Content-Length", "1"), says: "belongs to the opening handshake"},
		{url: "ws://h", opts: header("X-A", "1\r\nX-Evil: 1"), says: "line break"},
		{url: "ws://h", opts: header("X A", "1"), says: "not a header name"},
		{url: "ws://h", opts: DialOptions{Subprotocols: []string{"a", "a"}}, says: "twice"},
		{url: "ws://h", opts: DialOptions{Subprotocols: []string{"a b"}}, says: "not a token"},
		{url: "ws://h", opts: DialOptions{Subprotocols: []string{""}}, says: "not a token"},
	} {
		tc.opts.DialContext = func(context.Context, string, string) (net.Conn, error) {
			t.Errorf("%q: it connects", tc.url)
			return nil, errors.New("no")
		}
		_, err := Dial(context.Background(), tc.url, &tc.opts)
		if err == nil || !strings.Contains(err.Error(), tc.says) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: got %v, want %q and no password", tc.url, err, tc.says)
		}
	}
}

// TestDialRefused: a refusal arrives with status, header and the beginning of
// the body, and the error says what to do.
func TestDialRefused(t *testing.T) {
	for _, tc := range []struct {
		name, response string
		status         int
		body, says     string
	}{
		{"length", "HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\nX-Why: origin\r\n\r\nno!\n", 403, "no!\n", "403 Forbidden"},
		{"chunks", "HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\nRetry-After: 7\r\n\r\n3\r\nlat\r\n2\r\ner\r\n0\r\n\r\n", 503, "later", `retry after "7"`},
		{"until the end", "HTTP/1.0 500 Oops\r\n\r\nsorry", 500, "sorry", "500 Oops"},
		{"a body cut short", "HTTP/1.1 500 Oops\r\nContent-Length: 99\r\n\r\nso", 500, "so", "500"},
		{"a long body", "HTTP/1.1 404 Not Found\r\n\r\n" + strings.Repeat("x", 100_000), 404, strings.Repeat("x", 1024), "404"},
		{"a redirect", "HTTP/1.1 302 Found\r\nLocation: wss://elsewhere.example/\r\nContent-Length: 0\r\n\r\n", 302, "", "wss://elsewhere.example/"},
		{"a redirect to nowhere", "HTTP/1.1 307 x\r\nContent-Length: 0\r\n\r\n", 307, "", "absent"},
		{"authentication", "HTTP/1.1 401 x\r\nWWW-Authenticate: Bearer\r\nContent-Length: 0\r\n\r\n", 401, "", "Bearer"},
		{"authentication, unnamed", "HTTP/1.1 401 x\r\nContent-Length: 0\r\n\r\n", 401, "", "wants credentials and does not say which"},
		{"another version", "HTTP/1.1 426 x\r\nSec-WebSocket-Version: 8, 7\r\nContent-Length: 0\r\n\r\n", 426, "", "8, 7"},
		{"no upgrade at all", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", 200, "hi", "instead of switching"},
		{"after an interim response", "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 404 x\r\nContent-Length: 2\r\n\r\nhi", 404, "hi", "404"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Dial(context.Background(), answers(t, tc.response), nil)
			var he *HandshakeError
			if !errors.As(err, &he) {
				t.Fatalf("got %v", err)
			}
			if he.Status != tc.status || string(he.Body) != tc.body || !strings.Contains(he.Reason, tc.says) || he.Rule != nil {
				t.Errorf("status %d, body %q, %q; want %d, %q and %q", he.Status, he.Body, he.Reason, tc.status, tc.body, tc.says)
			}
			if tc.name == "length" && he.Header.Get("X-Why") != "origin" {
				t.Errorf("header %v", he.Header)
			}
		})
	}
}

// TestDialNoHTTP: answers that are no response, or none of a size to read.
func TestDialNoHTTP(t *testing.T) {
	for _, tc := range []struct{ name, response, says, body string }{
		{"nothing", "", "without an answer", ""},
		{"half a header", "HTTP/1.1 101 x\r\nUpgra", "in the middle", "HTTP/1.1 101 x\r\nUpgra"},
		{"another protocol", "SSH-2.0-OpenSSH\r\n\r\n", "did not answer with an HTTP response", "SSH-2.0-OpenSSH\r\n\r\n"},
		{"TLS", "\x15\x03\x01\x00\x02\x02\x46", "use wss://", "\x15\x03\x01\x00\x02\x02\x46"},
		{"a bad header", "HTTP/1.1 101 x\r\nno colon\r\n\r\n", "did not answer with an HTTP response", "HTTP/1.1 101 x\r\nno colon\r\n\r\n"},
		{"a header too long", "HTTP/1.1 101 x\r\nX: " + strings.Repeat("y", 1<<20), "longer than 16384", "HTTP/1.1 101 x\r\nX: " + strings.Repeat("y", 1024-19)},
		{"a line too long", strings.Repeat("z", 1<<20), "longer than 16384", strings.Repeat("z", 1024)},
		{"interim responses without end", strings.Repeat("HTTP/1.1 100 x\r\n\r\n", 100), "interim", strings.Repeat("HTTP/1.1 100 x\r\n\r\n", 100)[:1024]},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Dial(context.Background(), answers(t, tc.response), nil)
			var he *HandshakeError
			if !errors.As(err, &he) || he.Status != 0 || !strings.Contains(he.Reason, tc.says) || string(he.Body) != tc.body {
				t.Errorf("got %v, body %.100q; want %q", err, he.Body, tc.says)
			}
			if strings.Contains(tc.says, "answer") && tc.name != "another protocol" && tc.name != "a bad header" && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%v is no unexpected end", err)
			}
		})
	}
}

// TestDialKeepsEarlyBytes: frames that come with the response, also after an
// interim one and with bare line feeds, are read like any other.
func TestDialKeepsEarlyBytes(t *testing.T) {
	frame := "\x81\x05hello" + "\x88\x02\x03\xe8"
	for _, tc := range []struct{ name, template string }{
		{"in one segment", switchResponse},
		{"after interim responses", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + switchResponse},
		{"Connection with close in it", strings.Replace(switchResponse, "Connection: Upgrade", "Connection: close, Upgrade", 1)},
		{"bare line feeds", strings.ReplaceAll(switchResponse, "\r\n", "\n")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := Dial(context.Background(), answers(t, tc.template+frame), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer c.CloseNow()
			typ, p, err := c.ReadMessage(context.Background())
			if err != nil || typ != Text || string(p) != "hello" {
				t.Errorf("got %v %q %v", typ, p, err)
			}
		})
	}
	// Byte by byte, and a message that spans the end of what was read.
	long := "\x82\x7e\x40\x00" + strings.Repeat("x", 1<<14) + "\x88\x02\x03\xe8"
	addr := "ws://" + scripted(t, func(nc net.Conn) {
		r, err := http.ReadRequest(bufio.NewReader(nc))
		if err != nil {
			return
		}
		all := answerTo(r.Header.Get("Sec-WebSocket-Key"), switchResponse)
		for i := range len(all) - 1 {
			_, _ = io.WriteString(nc, all[i:i+1])
		}
		_, _ = io.WriteString(nc, all[len(all)-1:]+long)
		_, _ = io.Copy(io.Discard, nc)
	})
	c, err := Dial(context.Background(), addr, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	if _, p, err := c.ReadMessage(context.Background()); err != nil || len(p) != 1<<14 {
		t.Errorf("got %d bytes, %v", len(p), err)
	}
}

// TestDialAgrees: what both ends settled is what both ends say, in a round trip.
func TestDialAgrees(t *testing.T) {
	addr := listenHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		c, err := Accept(w, r, &AcceptOptions{Subprotocols: []string{"b"}, Config: Config{Compression: &Compression{}}, RequireOrigin: true})
		if err != nil {
			t.Error(err)
			return
		}
		if c.Subprotocol() != "b" {
			t.Errorf("the server has %q", c.Subprotocol())
		}
		echoOne(t, c)
	})
	c := mustDial(t, "ws://"+addr+"/x?y", &DialOptions{
		Subprotocols: []string{"a", "b"},
		Header:       http.Header{"Origin": {"http://" + addr}},
		Config:       Config{Compression: &Compression{ClientMaxWindowBits: 9, ServerMaxWindowBits: 9}},
	})
	if c.Subprotocol() != "b" || c.Role() != RoleClient {
		t.Errorf("the client has %q, role %v", c.Subprotocol(), c.Role())
	}
	text := strings.Repeat("the same again and again ", 400)
	if got := ask(t, c, text); got != text {
		t.Errorf("got %d bytes back", len(got))
	}
	if st := c.Stats(); st.Sent.Bytes >= uint64(len(text)) {
		t.Errorf("%d bytes sent for %d: not compressed", st.Sent.Bytes, len(text))
	}
}

// testTLS is a TLS server for h and what a client needs to trust it.
func testTLS(t *testing.T, h http.HandlerFunc) (addr string, client *tls.Config) {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.EnableHTTP2 = true // ALPN must keep it away
	srv.TLS = &tls.Config{NextProtos: []string{"h2", "http/1.1"}}
	srv.Config.ErrorLog = quiet
	srv.StartTLS()
	t.Cleanup(srv.Close)
	pool := x509.NewCertPool()
	pool.AddCert(srv.Certificate())
	return srv.Listener.Addr().String(), &tls.Config{RootCAs: pool}
}

// TestDialTLS: wss negotiates http/1.1, checks the certificate against the URL's
// host or the configured name, and leaves the caller's configuration alone.
func TestDialTLS(t *testing.T) {
	addr, cfg := testTLS(t, func(w http.ResponseWriter, r *http.Request) {
		if p := r.TLS.NegotiatedProtocol; p != "http/1.1" {
			t.Errorf("ALPN %q", p)
		}
		c, err := Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		echoOne(t, c)
	})
	c := mustDial(t, "wss://"+addr+"/", &DialOptions{TLS: cfg})
	if got := ask(t, c, "over TLS"); got != "over TLS" {
		t.Errorf("got %q", got)
	}
	named := cfg.Clone()
	named.ServerName, named.NextProtos = "example.com", []string{"h2"}
	c = mustDial(t, "wss://"+addr+"/", &DialOptions{TLS: named, Host: "example.com"})
	ask(t, c, "with a name")
	if !slices.Equal(named.NextProtos, []string{"h2"}) || cfg.ServerName != "" {
		t.Errorf("the caller's configuration was changed: %v, %q", named.NextProtos, cfg.ServerName)
	}

	var ua x509.UnknownAuthorityError
	if _, err := Dial(context.Background(), "wss://"+addr+"/", nil); !errors.As(err, &ua) || !strings.Contains(err.Error(), "the TLS handshake") {
		t.Errorf("unknown authority: got %v", err)
	}
	wrong := cfg.Clone()
	wrong.ServerName = "wrong.test"
	var hn x509.HostnameError
	if _, err := Dial(context.Background(), "wss://"+addr+"/", &DialOptions{TLS: wrong}); !errors.As(err, &hn) {
		t.Errorf("wrong name: got %v", err)
	}

	// ws to a TLS server, and wss to a plain one.
	if _, err := Dial(context.Background(), "ws://"+addr+"/", nil); err == nil || !strings.Contains(string(errBody(err)), "HTTPS server") {
		t.Errorf("plain text to TLS: got %v", err)
	}
	plain := listenHTTP(t, http.NotFound)
	if _, err := Dial(context.Background(), "wss://"+plain+"/", nil); err == nil || !strings.Contains(err.Error(), "ws://") {
		t.Errorf("TLS to plain text: got %v", err)
	}
}

func errBody(err error) []byte {
	var he *HandshakeError
	if errors.As(err, &he) {
		return he.Body
	}
	return nil
}

// TestDialRedactsPasswords: errors show where, but not with which password.
func TestDialRedactsPasswords(t *testing.T) {
	refused := errors.New("refused")
	_, err := Dial(context.Background(), "ws://user:secret@h/path", &DialOptions{Proxy: noProxy,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return nil, refused }})
	if !errors.Is(err, refused) || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "h/path") {
		t.Errorf("got %v", err)
	}
}

// TestDialDefaultTimeout: a server that takes the connection and is silent costs
// 10 s, or what was set, or what ctx says, and neither socket nor goroutine. The
// same at every stage of the handshake.
func TestDialDefaultTimeout(t *testing.T) {
	socks := &url.URL{Scheme: "socks5", Host: "proxy.test"}
	connect := &url.URL{Scheme: "http", Host: "proxy.test"}
	secure := &url.URL{Scheme: "https", Host: "proxy.test"}
	for _, tc := range []struct {
		name  string
		url   string
		proxy *url.URL
		opts  DialOptions
		ctx   time.Duration
		say   string // what the peer says before it is silent
		doing string
		want  time.Duration
	}{
		{name: "default", url: "ws://h", doing: "opening handshake", want: 10 * time.Second},
		{name: "set", url: "ws://h", opts: DialOptions{HandshakeTimeout: time.Minute}, doing: "opening handshake", want: time.Minute},
		{name: "ctx is shorter", url: "ws://h", ctx: time.Second, doing: "opening handshake", want: time.Second},
		{name: "ctx is longer", url: "ws://h", ctx: time.Hour, doing: "opening handshake", want: time.Hour},
		{name: "ctx wins over none", url: "ws://h", ctx: time.Hour, opts: DialOptions{HandshakeTimeout: -1}, doing: "opening handshake", want: time.Hour},
		{name: "half a header", url: "ws://h", say: "HTTP/1.1 101 x\r\n", doing: "opening handshake", want: 10 * time.Second},
		{name: "TLS", url: "wss://h", doing: "TLS", want: 10 * time.Second},
		{name: "CONNECT", url: "ws://h", proxy: connect, doing: "proxy http://proxy.test", want: 10 * time.Second},
		{name: "half an answer to CONNECT", url: "ws://h", proxy: connect, say: "HTTP/1.1 200 x\r\n", doing: "proxy http://proxy.test", want: 10 * time.Second},
		{name: "TLS to the proxy", url: "ws://h", proxy: secure, doing: "proxy https://proxy.test", want: 10 * time.Second},
		{name: "SOCKS5", url: "ws://h", proxy: socks, doing: "proxy socks5://proxy.test", want: 10 * time.Second},
		{name: "half of SOCKS5", url: "ws://h", proxy: socks, say: "\x05\x00\x05", doing: "proxy socks5://proxy.test", want: 10 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				go func() { _, _ = io.WriteString(theirs, tc.say) }()
				drained := make(chan struct{})
				go func() {
					defer close(drained)
					_, _ = io.Copy(io.Discard, theirs)
				}()
				tc.opts.DialContext = func(context.Context, string, string) (net.Conn, error) { return ours, nil }
				tc.opts.Proxy = func(*http.Request) (*url.URL, error) { return tc.proxy, nil }
				ctx := context.Background()
				if tc.ctx > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, tc.ctx)
					defer cancel()
				}
				start := time.Now()
				_, err := Dial(ctx, tc.url, &tc.opts)
				if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), tc.doing) {
					t.Errorf("got %v, want a deadline and %q", err, tc.doing)
				}
				if named := strings.Contains(err.Error(), "DialOptions.HandshakeTimeout"); named != (tc.ctx == 0) {
					t.Errorf("the error names the wrong limit: %v", err)
				}
				if took := time.Since(start); took != tc.want {
					t.Errorf("took %v, want %v", took, tc.want)
				}
				<-drained // our end is closed
				// Leaving the bubble waits for every goroutine in it.
			})
		})
	}
}

// TestDialRefusalWithoutEnd: a refusal whose body never ends is reported after
// two seconds, with what there is.
func TestDialRefusalWithoutEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		go func() {
			_, _ = io.WriteString(theirs, "HTTP/1.1 403 Forbidden\r\nContent-Length: 100\r\n\r\nhalf")
			_, _ = io.Copy(io.Discard, theirs)
		}()
		go func() { _, _ = io.Copy(io.Discard, theirs) }()
		start := time.Now()
		_, err := Dial(context.Background(), "ws://h", &DialOptions{Proxy: noProxy,
			DialContext: func(context.Context, string, string) (net.Conn, error) { return ours, nil }})
		var he *HandshakeError
		if !errors.As(err, &he) || he.Status != 403 || string(he.Body) != "half" {
			t.Errorf("got %v, body %q", err, errBody(err))
		}
		if took := time.Since(start); took != refusalBodyTimeout {
			t.Errorf("took %v, want %v", took, refusalBodyTimeout)
		}
	})
}

// TestDialCancelled: a context that ends at any byte of the exchange ends Dial,
// and nothing is left of it.
func TestDialCancelled(t *testing.T) {
	leaks := goleak.IgnoreCurrent()
	answer := answerTo(sampleKey, switchResponse) // the digest will be wrong: Dial must not get that far
	for cut := 0; cut < len(answer); cut += 7 {
		ctx, cancel := context.WithCancel(context.Background())
		ours, theirs := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			if _, err := http.ReadRequest(bufio.NewReader(theirs)); err != nil {
				t.Error(err)
			}
			_, _ = io.WriteString(theirs, answer[:cut])
			cancel()
			_, _ = io.Copy(io.Discard, theirs)
		}()
		_, err := Dial(ctx, "ws://h", &DialOptions{Proxy: noProxy,
			DialContext: func(context.Context, string, string) (net.Conn, error) { return ours, nil }})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("after %d bytes: got %v", cut, err)
		}
		<-done
	}
	// Before the first byte, and while it connects.
	ctx, cancel := context.WithCancel(context.Background())
	_, err := Dial(ctx, "ws://h", &DialOptions{Proxy: noProxy, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		cancel()
		<-ctx.Done()
		return nil, errors.New("the dialer's own words")
	}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("while connecting: got %v", err)
	}
	if _, err = Dial(ctx, "ws://127.0.0.1:1", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("before: got %v", err)
	}
	goleak.VerifyNone(t, leaks)
}

// TestDialCancelledAtTheEnd: a context that ends when the last byte is there
// gives a connection or an error, never half of each.
func TestDialCancelledAtTheEnd(t *testing.T) {
	leaks := goleak.IgnoreCurrent()
	var good, bad int
	for range 200 {
		ctx, cancel := context.WithCancel(context.Background())
		ours, theirs := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			r, err := http.ReadRequest(bufio.NewReader(theirs))
			if err != nil {
				return
			}
			_, _ = io.WriteString(theirs, answerTo(r.Header.Get("Sec-WebSocket-Key"), switchResponse))
			cancel()
			_, _ = io.Copy(io.Discard, theirs)
		}()
		c, err := Dial(ctx, "ws://h", &DialOptions{Proxy: noProxy,
			DialContext: func(context.Context, string, string) (net.Conn, error) { return ours, nil }})
		switch {
		case err == nil:
			good++
			if err := c.WriteMessage(context.Background(), Text, []byte("alive")); err != nil {
				t.Errorf("the connection is not good: %v", err)
			}
			c.CloseNow()
		case errors.Is(err, context.Canceled):
			bad++
		default:
			t.Errorf("got %v", err)
		}
		<-done
	}
	if good+bad != 200 {
		t.Errorf("%d good, %d cancelled", good, bad)
	}
	goleak.VerifyNone(t, leaks)
}

// TestDialEndsWithTheResponse: once Dial has returned, its context has no
// meaning for the connection.
func TestDialEndsWithTheResponse(t *testing.T) {
	addr := listenHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		c, err := Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		echoOne(t, c)
	})
	ctx, cancel := context.WithCancel(context.Background())
	c, err := Dial(ctx, "ws://"+addr, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	cancel()
	if got := ask(t, c, "still here"); got != "still here" {
		t.Errorf("got %q", got)
	}
}

// TestDialNetworkErrors: errors of the network are wrapped, with what we were
// at.
func TestDialNetworkErrors(t *testing.T) {
	gone := errors.New("gone")
	opts := &DialOptions{Proxy: noProxy, DialContext: func(context.Context, string, string) (net.Conn, error) {
		return &recordingConn{writeErr: gone}, nil
	}}
	if _, err := Dial(context.Background(), "ws://h", opts); !errors.Is(err, gone) || !strings.Contains(err.Error(), "opening handshake") {
		t.Errorf("write: got %v", err)
	}
	opts.DialContext = func(context.Context, string, string) (net.Conn, error) {
		return &failingReader{err: gone}, nil
	}
	if _, err := Dial(context.Background(), "ws://h", opts); !errors.Is(err, gone) {
		t.Errorf("read: got %v", err)
	}
	opts.Proxy = func(*http.Request) (*url.URL, error) { return nil, gone }
	if _, err := Dial(context.Background(), "ws://h", opts); !errors.Is(err, gone) || !strings.Contains(err.Error(), "proxy") {
		t.Errorf("proxy: got %v", err)
	}
	// A port where nobody listens.
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	var oe *net.OpError
	if _, err := Dial(context.Background(), "ws://"+ln.Addr().String(), nil); !errors.As(err, &oe) || !strings.Contains(err.Error(), "connecting") {
		t.Errorf("nobody: got %v", err)
	}
}

// A failingReader takes what is written and fails to read.
type failingReader struct {
	recordingConn
	err error
}

func (c *failingReader) Read([]byte) (int, error) { return 0, c.err }

// TestDialResponseInPieces: the reader of responses finds the end of a head
// wherever the pieces end, keeps the rest, and reads no more than it may.
func TestDialResponseInPieces(t *testing.T) {
	stream := "HTTP/1.1 100 x\r\n\r\nHTTP/1.1 103 y\nA: b\n\nHTTP/1.1 101 z\r\nC: d\r\n\r\nrest"
	for size := 1; size <= len(stream); size++ {
		in := responseReader{who: "the server", method: "GET"}
		src := &pieces{all: []byte(stream), size: size}
		resp, err := in.final(src)
		if err != nil {
			t.Fatalf("in pieces of %d: %v", size, err)
		}
		if resp.StatusCode != 101 || resp.Header.Get("C") != "d" {
			t.Errorf("in pieces of %d: %v %v", size, resp.Status, resp.Header)
		}
		if got := string(in.rest()) + string(src.all); got != "rest" {
			t.Errorf("in pieces of %d: what follows is %q", size, got)
		}
	}
	// The most that a head may have, and one byte more.
	for _, n := range []int{handshakeSizeMax, handshakeSizeMax + 1} {
		head := "HTTP/1.1 101 x\r\nA: "
		head += strings.Repeat("b", n-len(head)-4) + "\r\n\r\n"
		in := responseReader{who: "the server", method: "GET"}
		_, err := in.final(bytes.NewReader([]byte(head)))
		if (err == nil) != (n == handshakeSizeMax) {
			t.Errorf("%d bytes: %v", n, err)
		}
		if len(in.buf) > handshakeSizeMax || cap(in.buf) > 2*handshakeSizeMax {
			t.Errorf("%d bytes: holds %d of %d", n, len(in.buf), cap(in.buf))
		}
	}
}

// pieces gives a stream in reads of at most size bytes.
type pieces struct {
	all  []byte
	size int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.all) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.all[:min(p.size, len(p.all))])
	p.all = p.all[n:]
	return n, nil
}
