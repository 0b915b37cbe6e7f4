package ws

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weft-ws/weft/internal/deflate"
)

// DialOptions shape the client's side of the opening handshake. The zero value
// works. DialOptions are only read and may be shared.
type DialOptions struct {
	// Subprotocols are offered to the server, the preferred first. They are tokens,
	// each there once. Conn.Subprotocol is the one that it chose, if any.
	Subprotocols []string

	// Header is added to the request. The fields of the handshake itself are
	// refused: Host has an option, Sec-WebSocket-Protocol is Subprotocols,
	// Sec-WebSocket-Extensions is Config.Compression.
	Header http.Header

	// Host is the Host header, if it is not to be the URL's host. TLS.ServerName
	// is separate.
	Host string

	// TLS configures wss, and the way to an https proxy. ServerName defaults to the
	// URL's host; ALPN is always http/1.1, which the handshake needs. Default:
	// the system's roots.
	TLS *tls.Config

	// DialContext makes the TCP connection, to the server or to the proxy. It must
	// return when its ctx ends. Default: a net.Dialer.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)

	// Proxy names the proxy for a request, whose URL is http for ws and https for
	// wss: a URL with scheme http, https (CONNECT) or socks5, socks5h, and perhaps
	// user and password; nil means none. The proxy resolves the server's name.
	// Default: http.ProxyFromEnvironment, that is HTTP_PROXY, HTTPS_PROXY and
	// NO_PROXY.
	Proxy func(*http.Request) (*url.URL, error)

	// Wrap, if set, is given the connection on which the opening handshake is about
	// to be made, behind proxy and TLS, and returns the one to use in its place: one
	// that records what passes, for instance.
	Wrap func(net.Conn) net.Conn

	// HandshakeTimeout bounds all of Dial when ctx has no deadline. Default 10 s;
	// negative: none.
	HandshakeTimeout time.Duration

	// Config tunes the connection.
	Config Config
}

// refusalBodyTimeout is how long a server may take over the body of a refusal,
// which is wanted for the error's sake only.
const refusalBodyTimeout = 2 * time.Second

// interimMax bounds the 1xx responses before the one that counts.
const interimMax = 5

// Dial connects to rawURL, whose scheme is ws or wss, and performs the opening
// handshake (RFC 6455, 4.1). User and password of the URL become basic
// authorization unless Header has an Authorization of its own. A nil opts is
// the zero value.
//
// A refusal, and an answer that breaks the protocol, are a *HandshakeError with
// the response's status, header and first 1,024 bytes of body. Redirects are not
// followed; Location is in the header. Other errors wrap what the network, TLS
// or ctx said. When ctx ends, or HandshakeTimeout where ctx has no deadline,
// Dial returns at once and leaves no socket and no goroutine. Once it has
// returned, ctx has no meaning for the connection.
func Dial(ctx context.Context, rawURL string, opts *DialOptions) (*Conn, error) {
	if opts == nil {
		opts = &DialOptions{}
	}
	d, err := newDialing(rawURL, opts)
	if err != nil {
		return nil, err
	}
	timeout := opts.HandshakeTimeout
	if timeout == 0 {
		timeout = handshakeTimeoutDefault
	}
	if _, ok := ctx.Deadline(); !ok && timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, fmt.Errorf("DialOptions.HandshakeTimeout of %v is over", timeout))
		defer cancel()
	}
	proxy, err := d.proxy(ctx)
	if err != nil {
		return nil, err
	}
	addr := d.addr
	if proxy != nil {
		addr = proxyAddr(proxy)
	}
	dial := opts.DialContext
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	tcp, err := dial(ctx, "tcp", addr)
	if err != nil {
		return nil, d.failed("connecting", ctx, err)
	}
	// One watcher for everything that follows: whatever blocks on the socket
	// returns when it is closed.
	stop := context.AfterFunc(ctx, func() { tcp.Close() })
	nc, est, doing, err := d.open(ctx, tcp, proxy)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		tcp.Close()
		if nc != nil && opts.Wrap != nil {
			nc.Close() // the wrapper may have something of its own to close
		}
		return nil, d.failed(doing, ctx, err)
	}
	return newConn(nc, RoleClient, opts.Config, est), nil
}

// A dialing is what one Dial has worked out before it connects.
type dialing struct {
	opts    *DialOptions
	url     *url.URL
	secure  bool
	host    string // without brackets, port and zone
	addr    string // host:port to connect to
	key     string
	offered *deflate.Options // nil: no extension
	request []byte
}

// newDialing checks the arguments of Dial and writes down the request.
func newDialing(rawURL string, opts *DialOptions) (*dialing, error) {
	d := &dialing{opts: opts}
	// RFC 6455, 3: "Fragment identifiers are meaningless in the context of
	// WebSocket URIs and MUST NOT be used on these URIs."
	if strings.Contains(rawURL, "#") {
		return nil, errors.New("ws: the URL has a fragment (#...), which WebSocket URLs must not have (RFC 6455 3); write %23 for a # in the path")
	}
	u, err := url.Parse(rawURL)
	if err != nil {
		// The error of url.Parse shows the whole URL, password included.
		if ue := (*url.Error)(nil); errors.As(err, &ue) {
			err = ue.Err
		}
		return nil, fmt.Errorf("ws: the URL cannot be parsed: %w", err)
	}
	d.url = u
	port := "80"
	switch u.Scheme {
	case "ws":
	case "wss":
		port, d.secure = "443", true
	default:
		return nil, fmt.Errorf("ws: the URL's scheme is %s; it must be ws or wss", shown(u.Scheme))
	}
	name := u.Hostname()
	if name == "" {
		return nil, fmt.Errorf("ws: the URL %s names no host; write %s://host/path", shown(u.Redacted()), u.Scheme)
	}
	if !isVisible(name) {
		return nil, fmt.Errorf("ws: the URL's host %s is not ASCII; write it in its xn-- form", shown(name))
	}
	d.host, _, _ = strings.Cut(name, "%") // the zone means nothing to the peer
	hostHeader := d.host
	if strings.Contains(d.host, ":") {
		hostHeader = "[" + d.host + "]"
	}
	if p := u.Port(); p != "" {
		n, err := strconv.Atoi(p)
		if err != nil || n < 1 || n > 65535 {
			return nil, fmt.Errorf("ws: the URL's port is %s; it must be 1 to 65535", shown(p))
		}
		// RFC 6455, 4.1: "optionally followed by a ":" and a /port/ (when not using
		// the default port)".
		if p = strconv.Itoa(n); p != port {
			port = p
			hostHeader += ":" + port
		}
	}
	d.addr = net.JoinHostPort(name, port)
	if opts.Host != "" {
		hostHeader = opts.Host
	}
	return d, d.writeRequest(hostHeader)
}

// writeRequest writes down the request of RFC 6455, 4.1.
func (d *dialing) writeRequest(host string) error {
	target := d.url.RequestURI()
	if !isVisible(target) {
		return fmt.Errorf("ws: the URL's path and query %s have a space or a character that is not ASCII; percent-encode it", shown(target))
	}
	if strings.ContainsAny(host, "/?#@,") || !isVisible(host) {
		return fmt.Errorf("ws: DialOptions.Host %s is not a host", shown(host))
	}
	if err := checkHeader("DialOptions.Header", d.opts.Header); err != nil {
		return err
	}
	for i, p := range d.opts.Subprotocols {
		if !isToken(p) {
			return fmt.Errorf("ws: DialOptions.Subprotocols: %s is not a token; use letters, digits and !#$%%&'*+-.^_`|~", shown(p))
		}
		if slices.Contains(d.opts.Subprotocols[:i], p) {
			return fmt.Errorf("ws: DialOptions.Subprotocols: %s is there twice", shown(p))
		}
	}
	// RFC 6455, 4.1: "The nonce MUST be selected randomly for each connection."
	var nonce [16]byte
	rand.Read(nonce[:]) // never fails
	d.key = base64.StdEncoding.EncodeToString(nonce[:])

	b := make([]byte, 0, 512)
	b = fmt.Appendf(b, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n", target, host)
	b = fmt.Appendf(b, "Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: %s\r\n", d.key, version)
	if list := d.opts.Subprotocols; len(list) > 0 {
		b = fmt.Appendf(b, "Sec-WebSocket-Protocol: %s\r\n", strings.Join(list, ", "))
	}
	if c := d.opts.Config.Compression; c != nil {
		o := c.options(RoleClient)
		d.offered = &o
		b = fmt.Appendf(b, "Sec-WebSocket-Extensions: %s\r\n", deflate.Offer(o))
	}
	if u := d.url.User; u != nil && !hasField(d.opts.Header, "Authorization") {
		b = fmt.Appendf(b, "Authorization: %s\r\n", basicAuth(u))
	}
	b = appendHeader(b, d.opts.Header)
	d.request = append(b, "\r\n"...)
	return nil
}

// isVisible reports whether s has nothing but visible ASCII characters.
func isVisible(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return true
}

// hasField reports whether h has the field, whatever the case of its name.
func hasField(h http.Header, name string) bool {
	for n := range h {
		if equalFold(n, name) {
			return true
		}
	}
	return false
}

// basicAuth is user and password as RFC 7617 wants them.
func basicAuth(u *url.Userinfo) string {
	password, _ := u.Password()
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(u.Username()+":"+password))
}

// proxy asks which proxy to use; nil is none.
func (d *dialing) proxy(ctx context.Context) (*url.URL, error) {
	choose := d.opts.Proxy
	if choose == nil {
		choose = http.ProxyFromEnvironment
	}
	u := *d.url
	u.Scheme, u.User = "http", nil
	if d.secure {
		u.Scheme = "https"
	}
	r := &http.Request{Method: http.MethodGet, URL: &u, Host: u.Host, Header: http.Header{}}
	proxy, err := choose(r.WithContext(ctx))
	if err == nil && proxy != nil {
		err = checkProxy(proxy)
	}
	if err != nil {
		return nil, fmt.Errorf("ws: choosing a proxy: %w", err)
	}
	return proxy, nil
}

// open does everything between the TCP connection and the first frame. doing
// says what it was at when an error came.
func (d *dialing) open(ctx context.Context, tcp net.Conn, proxy *url.URL) (nc net.Conn, est established, doing string, err error) {
	nc = tcp
	if proxy != nil {
		doing = "asking the proxy " + proxy.Redacted()
		if nc, err = tunnel(ctx, nc, proxy, d.addr, d.opts.TLS); err != nil {
			return nil, est, doing, err
		}
	}
	if d.secure {
		doing = "the TLS handshake"
		if nc, err = startTLS(ctx, nc, d.opts.TLS, d.host, false); err != nil {
			return nil, est, doing, err
		}
	}
	doing = "the opening handshake"
	if d.opts.Wrap != nil {
		nc = d.opts.Wrap(nc)
	}
	if _, err := nc.Write(d.request); err != nil {
		return nc, est, doing, err
	}
	est, err = d.readResponse(nc)
	return nc, est, doing, err
}

// startTLS runs the TLS handshake as a client. always: name wins over the
// configured ServerName.
func startTLS(ctx context.Context, nc net.Conn, cfg *tls.Config, name string, always bool) (net.Conn, error) {
	if cfg == nil {
		cfg = &tls.Config{}
	} else {
		cfg = cfg.Clone()
	}
	if cfg.ServerName == "" || always {
		cfg.ServerName = name
	}
	// HTTP/2 has no Upgrade.
	cfg.NextProtos = []string{"http/1.1"}
	tc := tls.Client(nc, cfg)
	err := tc.HandshakeContext(ctx)
	if re := (tls.RecordHeaderError{}); errors.As(err, &re) {
		err = fmt.Errorf("%w (does it speak plain text? then the URL is ws://, or http:// for a proxy)", err)
	}
	return tc, err
}

// failed wraps an error of the network. ctx's own error comes first if ctx has
// ended: then the rest is its consequence.
func (d *dialing) failed(doing string, ctx context.Context, err error) error {
	if he := (*HandshakeError)(nil); errors.As(err, &he) {
		return he
	}
	if e := ctx.Err(); e != nil {
		if cause := context.Cause(ctx); cause != e {
			e = fmt.Errorf("%w: %w", e, cause)
		}
		err = e
	}
	return fmt.Errorf("ws: dial %s: %s: %w", d.url.Redacted(), doing, err)
}

// readResponse reads the server's response from nc and judges it.
func (d *dialing) readResponse(nc net.Conn) (established, error) {
	in := responseReader{who: "the server", method: http.MethodGet}
	resp, err := in.final(nc)
	if err != nil {
		return established{}, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return established{}, refusedBy(nc, resp, "the server answered %s instead of switching to WebSocket", shown(resp.Status))
	}
	est, he := judgeResponse(resp, d.key, d.opts.Subprotocols, d.offered)
	if he != nil {
		return established{}, he
	}
	est.early = in.rest()
	return est, nil
}

// refusedBy is the error for a response of nc that is not the one hoped for.
func refusedBy(nc net.Conn, resp *http.Response, format string, args ...any) error {
	he := denial(resp.StatusCode, format, args...)
	switch h := resp.Header; {
	case resp.StatusCode/100 == 3:
		he.Reason += fmt.Sprintf("; it points to %s, and redirects are not followed: dial that", shownHeader(h["Location"]))
	case resp.StatusCode == http.StatusUnauthorized:
		wants := "credentials and does not say which"
		if h := h["Www-Authenticate"]; len(h) > 0 {
			wants = shownHeader(h)
		}
		he.Reason += "; it wants " + wants
	case resp.StatusCode == http.StatusProxyAuthRequired:
		he.Reason += fmt.Sprintf("; it wants %s: put user and password into the proxy's URL", shownHeader(h["Proxy-Authenticate"]))
	case resp.StatusCode == http.StatusUpgradeRequired:
		he.Reason += fmt.Sprintf("; the versions that it supports: %s", shownHeader(h[headerVersion]))
	case len(h["Retry-After"]) > 0:
		he.Reason += fmt.Sprintf("; retry after %s", shownHeader(h["Retry-After"]))
	}
	// What cannot be read of the body is not missed: the status is the answer. If
	// the deadline cannot be set, Dial's context still bounds the wait.
	_ = nc.SetReadDeadline(time.Now().Add(refusalBodyTimeout))
	he.Body, _ = io.ReadAll(io.LimitReader(resp.Body, refusalBodyMax))
	he.Header = resp.Header
	return he
}

// A responseReader reads the heads of HTTP responses from a stream and keeps
// what comes behind them. All together may have handshakeSizeMax bytes.
type responseReader struct {
	who    string // for errors: "the server", "the proxy"
	method string // of the request
	buf    []byte
	done   int // bytes of buf that heads took
}

// final returns the first response that is not an interim one. RFC 9110, 15.2:
// "A client MUST be able to parse one or more 1xx responses received prior to a
// final response". Its Body reads on from r.
func (in *responseReader) final(r io.Reader) (*http.Response, error) {
	for range interimMax {
		head, err := in.head(r)
		if err != nil {
			return nil, err
		}
		all := io.MultiReader(bytes.NewReader(head), bytes.NewReader(in.buf[in.done:]), r)
		resp, err := http.ReadResponse(bufio.NewReader(all), &http.Request{Method: in.method})
		if err != nil {
			return nil, in.failed("%s did not answer with an HTTP response", err)
		}
		if resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			resp.Header, err = headerOf(head)
			return resp, err
		}
	}
	return nil, in.failed("%s sent nothing but interim responses", nil)
}

// headerOf returns the header fields of a head as they are: ReadResponse takes
// Connection away when "close" is in it.
func headerOf(head []byte) (http.Header, error) {
	r := textproto.NewReader(bufio.NewReader(bytes.NewReader(head)))
	_, _ = r.ReadLine() // the status, which ReadResponse has understood
	h, err := r.ReadMIMEHeader()
	return http.Header(h), err
}

// head returns the next head, its empty line included.
func (in *responseReader) head(r io.Reader) ([]byte, error) {
	line := in.done // where the line begins that is being looked at
	for i := in.done; ; i++ {
		if i == len(in.buf) {
			if err := in.more(r); err != nil {
				return nil, err
			}
		}
		if in.buf[i] != '\n' {
			continue
		}
		// RFC 9112, 2.2: "a recipient MAY recognize a single LF as a line terminator
		// and ignore any preceding CR".
		if n := i - line; n == 0 || n == 1 && in.buf[line] == '\r' {
			head := in.buf[in.done : i+1]
			in.done = i + 1
			return head, nil
		}
		line = i + 1
	}
}

// more reads at least one byte into buf.
func (in *responseReader) more(r io.Reader) error {
	n := len(in.buf)
	if n == handshakeSizeMax {
		return in.failed(fmt.Sprintf("the header of %%s's response is longer than %d bytes", handshakeSizeMax), nil)
	}
	if n == cap(in.buf) {
		in.buf = slices.Grow(in.buf, max(1<<10, n))
	}
	m, err := io.ReadAtLeast(r, in.buf[n:min(cap(in.buf), handshakeSizeMax)], 1)
	in.buf = in.buf[:n+m]
	switch {
	case m > 0:
		return nil
	case err != io.EOF:
		return err
	case n == 0:
		return in.failed("%s closed the connection without an answer", io.ErrUnexpectedEOF)
	}
	return in.failed("%s closed the connection in the middle of its answer", io.ErrUnexpectedEOF)
}

// rest returns a copy of what was read beyond the heads, nil if nothing was.
func (in *responseReader) rest() []byte {
	if in.done == len(in.buf) {
		return nil
	}
	return bytes.Clone(in.buf[in.done:])
}

// failed is the error for an answer that is none; what came of it is the body.
func (in *responseReader) failed(format string, err error) error {
	he := denial(0, format, in.who)
	// The first bytes of a TLS alert (RFC 8446, 5.1).
	if bytes.HasPrefix(in.buf, []byte("\x15\x03")) {
		he.Reason += "; it sent a TLS alert: use wss://, or https:// for a proxy"
	}
	he.Err = err
	he.Body = bytes.Clone(in.buf[:min(len(in.buf), refusalBodyMax)])
	return he
}
