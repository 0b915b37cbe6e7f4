package ws

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

// quiet is for servers whose clients fail on purpose.
var quiet = log.New(io.Discard, "", 0)

// splice copies both ways until both have ended.
func splice(a, b net.Conn) {
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = io.Copy(a, b); a.Close() })
	wg.Go(func() { _, _ = io.Copy(b, a); b.Close() })
	wg.Wait()
}

// A connectProxy is an HTTP proxy that knows CONNECT. Whatever the host asked
// for, it connects to target.
type connectProxy struct {
	target string
	auth   string      // Proxy-Authorization to ask for
	asked  chan string // the host:port that was asked for
}

func (p *connectProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect {
		http.Error(w, "only CONNECT", http.StatusMethodNotAllowed)
		return
	}
	if got := r.Header.Get("Proxy-Authorization"); got != p.auth {
		w.Header().Set("Proxy-Authenticate", `Basic realm="test"`)
		http.Error(w, "who are you?", http.StatusProxyAuthRequired)
		return
	}
	p.asked <- r.RequestURI + " for " + r.Host
	out, err := net.Dial("tcp", p.target)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	in, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		out.Close()
		return
	}
	_, _ = io.WriteString(in, "HTTP/1.1 200 Connection established\r\n\r\n")
	splice(in, out)
}

func proxyTo(u *url.URL) func(*http.Request) (*url.URL, error) {
	return func(*http.Request) (*url.URL, error) { return u, nil }
}

// TestDialThroughConnect: HTTP and HTTPS proxies, with and without a password,
// for ws and wss. The server's name is the proxy's to resolve.
func TestDialThroughConnect(t *testing.T) {
	s := &Server{Handler: Handler{Message: echo}}
	plain := serveOn(t, NewHTTPServer(s))
	secure, cfg := testTLS(t, s.ServeHTTP)
	for _, tc := range []struct {
		name, url, target string
		overTLS           bool
		user              *url.Userinfo
		auth              string
		asked             string
	}{
		{name: "ws", url: "ws://chat.test/x", target: plain, asked: "chat.test:80"},
		{name: "ws with a password", url: "ws://chat.test:8080/x", target: plain, user: url.UserPassword("me", "pass"), auth: "Basic bWU6cGFzcw==", asked: "chat.test:8080"},
		{name: "wss", url: "wss://example.com/x", target: secure, asked: "example.com:443"},
		{name: "ws over a TLS proxy", url: "ws://chat.test/x", target: plain, overTLS: true, asked: "chat.test:80"},
		{name: "wss over a TLS proxy", url: "wss://example.com/x", target: secure, overTLS: true, user: url.UserPassword("me", ""), auth: "Basic bWU6", asked: "example.com:443"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := &connectProxy{target: tc.target, auth: tc.auth, asked: make(chan string, 1)}
			srv := httptest.NewUnstartedServer(p)
			u := &url.URL{Scheme: "http", User: tc.user}
			client := cfg
			if tc.overTLS {
				u.Scheme = "https"
				srv.StartTLS()
				client = cfg.Clone()
				client.RootCAs = x509.NewCertPool()
				client.RootCAs.AddCert(srv.Certificate())
				client.ServerName = "example.com" // of the server; the proxy has its own
			} else {
				srv.Start()
			}
			t.Cleanup(srv.Close)
			u.Host = srv.Listener.Addr().String()
			c := mustDial(t, tc.url, &DialOptions{Proxy: proxyTo(u), TLS: client})
			if got := ask(t, c, "through"); got != "through" {
				t.Errorf("got %q", got)
			}
			if got, want := <-p.asked, tc.asked+" for "+tc.asked; got != want {
				t.Errorf("asked for %q, want %q", got, want)
			}
			_ = c.Close(CloseNormal, "")
		})
	}
}

// TestDialConnectRefused: what a proxy can answer but should not.
func TestDialConnectRefused(t *testing.T) {
	for _, tc := range []struct {
		name, response string
		status         int
		says, body     string
	}{
		{"no", "HTTP/1.1 403 Forbidden\r\nX-Why: policy\r\nContent-Length: 4\r\n\r\nno!\n", 403, "403 Forbidden", "no!\n"},
		{"authentication", "HTTP/1.1 407 x\r\nProxy-Authenticate: Basic\r\n\r\n", 407, "user and password", ""},
		{"an upgrade", "HTTP/1.1 101 Switching\r\n\r\n", 101, "to CONNECT", ""},
		{"bytes in the tunnel", "HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 101 forged\r\n\r\n", 200, "before it was used", ""},
		{"nothing", "", 0, "the proxy closed the connection without an answer", ""},
		{"no HTTP", "hello\r\n\r\n", 0, "the proxy did not answer with an HTTP response", "hello\r\n\r\n"},
		{"a header too long", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("y", 1<<20), 0, "longer than", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("y", 1024-20)},
		{"interim responses without end", strings.Repeat("HTTP/1.1 100 x\r\n\r\n", 99), 0, "interim", strings.Repeat("HTTP/1.1 100 x\r\n\r\n", 99)[:1024]},
	} {
		t.Run(tc.name, func(t *testing.T) {
			u, err := url.Parse("http" + strings.TrimPrefix(answers(t, tc.response), "ws"))
			if err != nil {
				t.Fatal(err)
			}
			_, err = Dial(context.Background(), "ws://chat.test", &DialOptions{Proxy: proxyTo(u)})
			var he *HandshakeError
			if !errors.As(err, &he) || he.Status != tc.status || !strings.Contains(he.Reason, tc.says) || string(he.Body) != tc.body {
				t.Errorf("got %v, body %.100q; want %d and %q", err, errBody(err), tc.status, tc.says)
			}
			if tc.name == "no" && he.Header.Get("X-Why") != "policy" {
				t.Errorf("header %v", he.Header)
			}
		})
	}
	gone := errors.New("gone")
	opts := &DialOptions{DialContext: func(context.Context, string, string) (net.Conn, error) { return &recordingConn{writeErr: gone}, nil }}
	for _, scheme := range []string{"http", "https", "socks5"} {
		opts.Proxy = proxyTo(&url.URL{Scheme: scheme, Host: "p.test", User: url.UserPassword("me", "secret")})
		if _, err := Dial(context.Background(), "ws://chat.test", opts); !errors.Is(err, gone) || strings.Contains(err.Error(), "secret") ||
			!strings.Contains(err.Error(), "asking the proxy "+scheme) {
			t.Errorf("%s: got %v", scheme, err)
		}
	}
}

// TestDialProxyAddress: where a proxy without a port is, and URLs that are none.
func TestDialProxyAddress(t *testing.T) {
	seen := errors.New("seen")
	for _, tc := range []struct{ proxy, addr string }{
		{"http://p.test", "p.test:80"},
		{"https://p.test", "p.test:443"},
		{"socks5://p.test", "p.test:1080"},
		{"socks5h://p.test", "p.test:1080"},
		{"http://[::1]:3128", "[::1]:3128"},
	} {
		u, err := url.Parse(tc.proxy)
		if err != nil {
			t.Fatal(err)
		}
		var asked string
		_, err = Dial(context.Background(), "ws://chat.test", &DialOptions{Proxy: proxyTo(u),
			DialContext: func(_ context.Context, network, addr string) (net.Conn, error) {
				asked = network + " " + addr
				return nil, seen
			}})
		if !errors.Is(err, seen) || asked != "tcp "+tc.addr {
			t.Errorf("%s: asked for %q, %v", tc.proxy, asked, err)
		}
	}
	for proxy, says := range map[string]string{"ftp://p.test": "scheme", "http://": "names no host", "//p.test": "scheme"} {
		u, err := url.Parse(proxy)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Dial(context.Background(), "ws://chat.test", &DialOptions{Proxy: proxyTo(u)}); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: got %v, want %q", proxy, err, says)
		}
	}
}

// TestDialProxyRequest: the function sees http for ws and https for wss, and no
// password.
func TestDialProxyRequest(t *testing.T) {
	enough := errors.New("enough")
	for dialed, want := range map[string]string{
		"ws://me:secret@chat.test:8080/x?y": "GET http://chat.test:8080/x?y",
		"wss://chat.test/x":                 "GET https://chat.test/x",
	} {
		var got string
		_, err := Dial(context.Background(), dialed, &DialOptions{Proxy: func(r *http.Request) (*url.URL, error) {
			got = r.Method + " " + r.URL.String()
			if r.Header == nil || r.Host != r.URL.Host {
				t.Errorf("header %v, host %q", r.Header, r.Host)
			}
			return nil, enough
		}})
		if !errors.Is(err, enough) || got != want {
			t.Errorf("%s: the function saw %q, want %q (%v)", dialed, got, want, err)
		}
	}
}

// A socksProxy speaks SOCKS5 as RFC 1928 has it. Whatever is asked for, it
// connects to target.
type socksProxy struct {
	target         string
	user, password string // "": no authentication
	bound          []byte // address type and address in the reply
	asked          chan string
}

func (p *socksProxy) serve(nc net.Conn) error {
	read := func(n int) []byte {
		b := make([]byte, n)
		_, _ = io.ReadFull(nc, b)
		return b
	}
	hello := read(2)
	methods := read(int(hello[1]))
	want := byte(0)
	if p.user != "" {
		want = 2
	}
	if hello[0] != 5 || !strings.Contains(string(methods), string(want)) {
		_, err := nc.Write([]byte{5, 0xff})
		return err
	}
	if _, err := nc.Write([]byte{5, want}); err != nil {
		return err
	}
	if want == 2 {
		version := read(1)[0]
		user := string(read(int(read(1)[0])))
		password := string(read(int(read(1)[0])))
		status := byte(0)
		if version != 1 || user != p.user || password != p.password {
			status = 1
		}
		if _, err := nc.Write([]byte{1, status}); err != nil || status != 0 {
			return err
		}
	}
	head := read(4)
	var host string
	switch head[3] {
	case 1:
		host = net.IP(read(4)).String()
	case 3:
		host = "name " + string(read(int(read(1)[0])))
	case 4:
		host = net.IP(read(16)).String()
	}
	port := read(2)
	p.asked <- fmt.Sprintf("%v %s %d", head[:3], host, int(port[0])<<8|int(port[1]))
	out, err := net.Dial("tcp", p.target)
	if err != nil {
		return err
	}
	reply := append(append([]byte{5, 0, 0}, p.bound...), 0, 0)
	if _, err := nc.Write(reply); err != nil {
		return err
	}
	splice(nc, out)
	return nil
}

// TestDialThroughSOCKS5: names go to the proxy as they are, addresses as
// addresses; user and password are given where they are asked for.
func TestDialThroughSOCKS5(t *testing.T) {
	s := &Server{Handler: Handler{Message: echo}}
	plain := serveOn(t, NewHTTPServer(s))
	secure, cfg := testTLS(t, s.ServeHTTP)
	v4 := []byte{1, 127, 0, 0, 1}
	v6 := append([]byte{4}, net.IPv6loopback...)
	name := append([]byte{3, 5}, "proxy"...)
	for _, tc := range []struct {
		name, url, target string
		scheme            string
		user, password    string
		bound             []byte
		asked             string
	}{
		{name: "a name", url: "ws://chat.test/", target: plain, bound: v4, asked: "[5 1 0] name chat.test 80"},
		{name: "a name, socks5h", scheme: "socks5h", url: "ws://chat.test:8080/", target: plain, bound: name, asked: "[5 1 0] name chat.test 8080"},
		{name: "IPv4", url: "ws://192.0.2.1/", target: plain, bound: v6, asked: "[5 1 0] 192.0.2.1 80"},
		{name: "IPv6", url: "ws://[2001:db8::1]:443/", target: plain, bound: v4, asked: "[5 1 0] 2001:db8::1 443"},
		{name: "IPv6 with a zone", url: "ws://[fe80::1%25eth0]/", target: plain, bound: v4, asked: "[5 1 0] fe80::1 80"},
		{name: "a password", url: "ws://chat.test/", target: plain, user: "me", password: "pass", bound: v4, asked: "[5 1 0] name chat.test 80"},
		{name: "wss", url: "wss://example.com/", target: secure, user: "me", bound: v4, asked: "[5 1 0] name example.com 443"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := &socksProxy{target: tc.target, user: tc.user, password: tc.password, bound: tc.bound, asked: make(chan string, 1)}
			u := &url.URL{Scheme: "socks5", Host: scripted(t, func(nc net.Conn) {
				if err := p.serve(nc); err != nil {
					t.Error(err)
				}
			})}
			if tc.scheme != "" {
				u.Scheme = tc.scheme
			}
			if tc.user != "" {
				u.User = url.UserPassword(tc.user, tc.password)
			}
			c := mustDial(t, tc.url, &DialOptions{Proxy: proxyTo(u), TLS: cfg})
			if got := ask(t, c, "through"); got != "through" {
				t.Errorf("got %q", got)
			}
			if got := <-p.asked; got != tc.asked {
				t.Errorf("asked for %q, want %q", got, tc.asked)
			}
			_ = c.Close(CloseNormal, "")
		})
	}
}

// TestDialSOCKS5Refused: every way in which a SOCKS5 proxy can say no, or talk
// nonsense, or stop.
func TestDialSOCKS5Refused(t *testing.T) {
	connected := "\x05\x00"
	for _, tc := range []struct {
		name, says string
		replies    []string // to greeting, password if any, request
		user       *url.Userinfo
		url        string
	}{
		{name: "authentication wanted", says: "put user and password", replies: []string{"\x05\xff"}},
		{name: "a method of its own", says: "method 0x1", replies: []string{"\x05\x01"}},
		{name: "a method not offered", says: "method 0x2", replies: []string{"\x05\x02"}},
		{name: "none of ours", says: "method 0xff", replies: []string{"\x05\xff"}, user: url.UserPassword("me", "pass")},
		{name: "wrong password", says: "refused user and password", replies: []string{"\x05\x02", "\x01\x01"}, user: url.UserPassword("me", "pass")},
		{name: "SOCKS4", says: "does not speak SOCKS5", replies: []string{"\x04\x5b"}},
		{name: "HTTP", says: "does not speak SOCKS5", replies: []string{"HTTP/1.1 400 Bad Request\r\n\r\n"}},
		{name: "HTTP later", says: "does not speak SOCKS5", replies: []string{connected, "HTTP"}},
		{name: "general failure", says: "general failure", replies: []string{connected, "\x05\x01\x00\x01"}},
		{name: "rules", says: "not allowed by its rules", replies: []string{connected, "\x05\x02\x00\x01"}},
		{name: "network", says: "network unreachable", replies: []string{connected, "\x05\x03\x00\x01"}},
		{name: "host", says: "host unreachable", replies: []string{connected, "\x05\x04\x00\x01"}},
		{name: "connection", says: "connection refused", replies: []string{connected, "\x05\x05\x00\x01"}},
		{name: "time", says: "time to live expired", replies: []string{connected, "\x05\x06\x00\x01"}},
		{name: "command", says: "command not supported", replies: []string{connected, "\x05\x07\x00\x01"}},
		{name: "address type", says: "address type not supported", replies: []string{connected, "\x05\x08\x00\x01"}},
		{name: "unknown", says: "reply 0x9", replies: []string{connected, "\x05\x09\x00\x01"}},
		{name: "unknown address", says: "address type 0x2", replies: []string{connected, "\x05\x00\x00\x02"}},
		{name: "end at once", says: "closed the connection", replies: []string{""}},
		{name: "end after the greeting", says: "closed the connection", replies: []string{connected, ""}},
		{name: "end at the password", says: "closed the connection", replies: []string{"\x05\x02", ""}, user: url.UserPassword("me", "pass")},
		{name: "end in the reply", says: "closed the connection", replies: []string{connected, "\x05\x00\x00"}},
		{name: "end in the address", says: "closed the connection", replies: []string{connected, "\x05\x00\x00\x01\x7f"}},
		{name: "end before the name", says: "closed the connection", replies: []string{connected, "\x05\x00\x00\x03"}},
		{name: "a user too long", says: "1 to 255 bytes", replies: []string{""}, user: url.UserPassword(strings.Repeat("u", 256), "")},
		{name: "a password too long", says: "1 to 255 bytes", replies: []string{""}, user: url.UserPassword("u", strings.Repeat("p", 256))},
		{name: "no user", says: "1 to 255 bytes", replies: []string{""}, user: url.UserPassword("", "p")},
		{name: "a name too long", says: "256 bytes", replies: []string{connected}, url: "ws://" + strings.Repeat("h", 256)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			u := &url.URL{Scheme: "socks5", User: tc.user, Host: scripted(t, func(nc net.Conn) {
				buf := make([]byte, 1024)
				for _, reply := range tc.replies {
					if _, err := nc.Read(buf); err != nil {
						return
					}
					_, _ = io.WriteString(nc, reply)
				}
			})}
			dialed := tc.url
			if dialed == "" {
				dialed = "ws://chat.test"
			}
			_, err := Dial(context.Background(), dialed, &DialOptions{Proxy: proxyTo(u)})
			if err == nil || !strings.Contains(err.Error(), tc.says) || strings.Contains(err.Error(), "pass@") {
				t.Errorf("got %v, want %q", err, tc.says)
			}
			if tc.says == "closed the connection" && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%v is no unexpected end", err)
			}
		})
	}
	for _, addr := range []string{"no port", "h:port", "h:65536"} {
		if err := connectSOCKS5(&recordingConn{}, nil, addr); err == nil {
			t.Errorf("%q: no error", addr)
		}
	}
}

// TestDialSOCKS5ReadsNoMore: the first bytes of the tunnel may come with the
// proxy's reply and belong to the stream.
func TestDialSOCKS5ReadsNoMore(t *testing.T) {
	addr := scripted(t, func(nc net.Conn) {
		buf := make([]byte, 1024)
		_, _ = nc.Read(buf)
		_, _ = io.WriteString(nc, "\x05\x00")
		_, _ = nc.Read(buf)
		_, _ = io.WriteString(nc, "\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x50tunnel")
	})
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if err := connectSOCKS5(nc, nil, "h:80"); err != nil {
		t.Fatal(err)
	}
	if got, _ := io.ReadAll(nc); string(got) != "tunnel" {
		t.Errorf("what follows is %q", got)
	}
}

// TestDialProxyFromEnvironment: HTTP_PROXY is for ws, HTTPS_PROXY for wss, and
// NO_PROXY for neither. net/http reads the environment once, so each case has a
// process of its own: this test's.
func TestDialProxyFromEnvironment(t *testing.T) {
	const child = "WEFT_TEST_DIAL"
	if dialed := os.Getenv(child); dialed != "" {
		seen := errors.New("seen")
		_, err := Dial(context.Background(), dialed, &DialOptions{DialContext: func(_ context.Context, _, addr string) (net.Conn, error) {
			fmt.Println("connects to", addr)
			return nil, seen
		}})
		if !errors.Is(err, seen) {
			fmt.Println("error", err)
		}
		return
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		url  string
		env  []string
		want string
	}{
		{"ws://chat.test/", nil, "connects to chat.test:80"},
		{"ws://chat.test/", []string{"HTTP_PROXY=http://p.test:3128", "HTTPS_PROXY=http://q.test:3129"}, "connects to p.test:3128"},
		{"wss://chat.test/", []string{"HTTP_PROXY=http://p.test:3128", "HTTPS_PROXY=http://q.test:3129"}, "connects to q.test:3129"},
		{"ws://chat.test/", []string{"http_proxy=socks5://s.test"}, "connects to s.test:1080"},
		{"ws://chat.test/", []string{"HTTPS_PROXY=http://q.test:3129"}, "connects to chat.test:80"},
		{"ws://chat.test/", []string{"HTTP_PROXY=http://p.test:3128", "NO_PROXY=.test"}, "connects to chat.test:80"},
		{"ws://chat.test:81/", []string{"HTTP_PROXY=http://p.test:3128", "NO_PROXY=chat.test:80"}, "connects to p.test:3128"},
		{"ws://127.0.0.1:9/", []string{"HTTP_PROXY=http://p.test:3128"}, "connects to 127.0.0.1:9"},
		{"ws://chat.test/", []string{"HTTP_PROXY=ftp://p.test"}, "error ws: choosing a proxy"},
	} {
		cmd := exec.Command(exe, "-test.run=^TestDialProxyFromEnvironment$")
		// A race-detecting child would take a second to say that it found nothing.
		cmd.Env = append(tc.env, child+"="+tc.url, "GORACE=atexit_sleep_ms=0")
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.HasPrefix(string(out), tc.want) {
			t.Errorf("%s with %q: got %q, %v; want %q", tc.url, tc.env, out, err, tc.want)
		}
	}
}

// TestDialProxyKeepsTLSApart: the certificate of an https proxy is checked
// against the proxy's name, not against the server's.
func TestDialProxyKeepsTLSApart(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	srv.Config.ErrorLog = quiet
	srv.StartTLS()
	defer srv.Close()
	pool := x509.NewCertPool()
	pool.AddCert(srv.Certificate())
	u := &url.URL{Scheme: "https", Host: srv.Listener.Addr().String()}
	_, port, _ := net.SplitHostPort(u.Host)
	u.Host = net.JoinHostPort("wrong.test", port)
	var hn x509.HostnameError
	_, err := Dial(context.Background(), "wss://example.com", &DialOptions{
		Proxy: proxyTo(u),
		TLS:   &tls.Config{RootCAs: pool, ServerName: "example.com"},
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, srv.Listener.Addr().String())
		},
	})
	if !errors.As(err, &hn) || !strings.Contains(err.Error(), "wrong.test") {
		t.Errorf("got %v, want a wrong name", err)
	}
}
