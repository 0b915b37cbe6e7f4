// Package probe asks an MCP endpoint on WebSocket everything that a
// well-behaved one must answer: the framing rules of RFC 6455, JSON-RPC, and
// MCP's handshake. It speaks raw frames of its own, since no proper client can
// say what has to be asked.
package probe

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/weft-ws/weft/internal/wire"
)

// Options tune a probe.
type Options struct {
	URL   string // ws or wss
	Token string // bearer token; "" if none is needed
	// Timeout is how long one answer may take. Zero: 5 s.
	Timeout time.Duration
	// SlowTimeout is how long the first answer of a connection may take, since
	// a server may have to be started for it. Zero: 30 s.
	SlowTimeout time.Duration
	TLS         *tls.Config
}

// A Result is the outcome of one case.
type Result struct {
	ID   string `json:"id"`
	Case string `json:"case"`
	Want string `json:"want"`
	Got  string `json:"got"`
	OK   bool   `json:"ok"`
	Why  string `json:"why,omitempty"` // it matters
	Fix  string `json:"fix,omitempty"`
}

// A probing is one run.
type probing struct {
	ctx  context.Context
	o    Options
	u    *url.URL
	addr string
}

// Run runs all cases that apply, one after the other, and calls each with the
// result as soon as it is known. The error says that the endpoint could not be
// reached at all.
func Run(ctx context.Context, o Options, each func(Result)) error {
	u, err := url.Parse(o.URL)
	if err != nil || u.Scheme != "ws" && u.Scheme != "wss" || u.Host == "" {
		return fmt.Errorf("%q is no ws or wss URL", o.URL)
	}
	if u.Query().Has("ticket") {
		return errors.New("a one-time ticket is good for one connection, and a probe needs many; give a token")
	}
	if o.Timeout <= 0 {
		o.Timeout = 5 * time.Second
	}
	if o.SlowTimeout <= 0 {
		o.SlowTimeout = 30 * time.Second
	}
	p := &probing{ctx: ctx, o: o, u: u, addr: u.Host}
	if u.Port() == "" {
		port := "80"
		if u.Scheme == "wss" {
			port = "443"
		}
		p.addr = net.JoinHostPort(u.Hostname(), port)
	}
	c, resp, err := p.handshake(nil, "mcp")
	if err != nil {
		return err
	}
	if c == nil {
		return fmt.Errorf("the endpoint answers HTTP %s instead of 101; is a token missing?", resp.Status)
	}
	c.close()
	for _, cs := range cases() {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if cs.applies != nil && !cs.applies(p) {
			continue
		}
		r := Result{ID: cs.id, Case: cs.name, Want: cs.want}
		r.Got, r.OK = cs.run(p)
		if !r.OK {
			r.Why, r.Fix = cs.why, cs.fix
		}
		each(r)
	}
	return nil
}

// A rawConn is a connection on which anything can be said.
type rawConn struct {
	p    *probing
	nc   net.Conn
	br   *bufio.Reader
	slow bool // the first answer has not come
	id   int
}

func (p *probing) dial() (net.Conn, error) {
	d := net.Dialer{Timeout: p.o.Timeout}
	if p.u.Scheme == "wss" {
		cfg := p.o.TLS.Clone()
		if cfg == nil {
			cfg = &tls.Config{}
		}
		cfg.NextProtos = []string{"http/1.1"}
		return (&tls.Dialer{NetDialer: &d, Config: cfg}).DialContext(p.ctx, "tcp", p.addr)
	}
	return d.DialContext(p.ctx, "tcp", p.addr)
}

// handshake upgrades with the given changes to the request: a value replaces a
// header, an empty one removes it. Without a 101 the connection is nil.
func (p *probing) handshake(change map[string]string, offer ...string) (*rawConn, *http.Response, error) {
	nc, err := p.dial()
	if err != nil {
		return nil, nil, err
	}
	_ = nc.SetDeadline(time.Now().Add(p.o.SlowTimeout))
	var nonce [16]byte
	_, _ = rand.Read(nonce[:])
	key := base64.StdEncoding.EncodeToString(nonce[:])
	h := [][2]string{{"Host", p.u.Host}, {"Upgrade", "websocket"}, {"Connection", "Upgrade"},
		{"Sec-WebSocket-Version", "13"}, {"Sec-WebSocket-Key", key}}
	if p.o.Token != "" {
		h = append(h, [2]string{"Authorization", "Bearer " + p.o.Token})
	}
	if len(offer) > 0 {
		h = append(h, [2]string{"Sec-WebSocket-Protocol", strings.Join(offer, ", ")})
	}
	var req strings.Builder
	fmt.Fprintf(&req, "GET %s HTTP/1.1\r\n", p.u.RequestURI())
	for _, f := range h {
		if v, ok := change[f[0]]; ok {
			f[1] = v
		}
		if f[1] != "" {
			fmt.Fprintf(&req, "%s: %s\r\n", f[0], f[1])
		}
	}
	if v := change["Origin"]; v != "" {
		fmt.Fprintf(&req, "Origin: %s\r\n", v)
	}
	req.WriteString("\r\n")
	if _, err := io.WriteString(nc, req.String()); err != nil {
		nc.Close()
		return nil, nil, err
	}
	br := bufio.NewReader(nc)
	resp, err := http.ReadResponse(br, &http.Request{Method: http.MethodGet})
	if err != nil {
		nc.Close()
		return nil, nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		nc.Close()
		return nil, resp, nil
	}
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	if resp.Header.Get("Sec-WebSocket-Accept") != base64.StdEncoding.EncodeToString(sum[:]) {
		nc.Close()
		return nil, resp, errors.New("the Sec-WebSocket-Accept header is wrong")
	}
	return &rawConn{p: p, nc: nc, br: br, slow: true}, resp, nil
}

// open is a handshake that has to work.
func (p *probing) open() (*rawConn, error) {
	c, resp, err := p.handshake(nil, "mcp")
	if err == nil && c == nil {
		err = fmt.Errorf("HTTP %s", resp.Status)
	}
	return c, err
}

// session is open with MCP's initialize done.
func (p *probing) session(version string) (*rawConn, error) {
	c, err := p.open()
	if err != nil {
		return nil, err
	}
	if err := c.text(fmt.Sprintf(initialize, version)); err != nil {
		c.close()
		return nil, err
	}
	if got := c.answer("90001"); !strings.Contains(got, `"serverInfo"`) {
		c.close()
		return nil, fmt.Errorf("initialize was answered with %s", short(got))
	}
	return c, c.text(`{"jsonrpc":"2.0","method":"notifications/initialized"}`)
}

const initialize = `{"jsonrpc":"2.0","id":90001,"method":"initialize","params":{"protocolVersion":%q,"capabilities":{},"clientInfo":{"name":"weft probe","version":"1"}}}`

func (c *rawConn) close() { _ = c.nc.Close() }

// frame sends a masked frame as its header says.
func (c *rawConn) frame(b0 byte, payload []byte) error {
	h := []byte{b0}
	switch n := len(payload); {
	case n < 126:
		h = append(h, 0x80|byte(n))
	case n < 1<<16:
		h = append(h, 0x80|126, byte(n>>8), byte(n))
	default:
		h = append(h, 0x80|127)
		h = binary.BigEndian.AppendUint64(h, uint64(n))
	}
	key := [4]byte{0x12, 0x34, 0x56, 0x78}
	h = append(h, key[:]...)
	at := len(h)
	h = append(h, payload...)
	for i := range payload {
		h[at+i] ^= key[i%4]
	}
	return c.raw(h)
}

func (c *rawConn) raw(b []byte) error {
	_ = c.nc.SetWriteDeadline(time.Now().Add(c.p.o.Timeout))
	_, err := c.nc.Write(b)
	return err
}

const (
	fin    = 0x80
	opCont = byte(wire.Continuation)
	opText = byte(wire.Text)
	opBin  = byte(wire.Binary)
	opEnd  = byte(wire.Close)
	opPing = byte(wire.Ping)
	opPong = byte(wire.Pong)
)

func (c *rawConn) text(s string) error { return c.frame(fin|opText, []byte(s)) }

// next reads one frame of the server.
func (c *rawConn) next() (b0 byte, payload []byte, err error) {
	wait := c.p.o.Timeout
	if c.slow {
		wait = c.p.o.SlowTimeout
	}
	_ = c.nc.SetReadDeadline(time.Now().Add(wait))
	var h [8]byte
	if _, err := io.ReadFull(c.br, h[:2]); err != nil {
		return 0, nil, err
	}
	b0 = h[0]
	n := uint64(h[1] & 0x7f)
	switch n {
	case 126:
		_, err = io.ReadFull(c.br, h[:2])
		n = uint64(binary.BigEndian.Uint16(h[:2]))
	case 127:
		_, err = io.ReadFull(c.br, h[:8])
		n = binary.BigEndian.Uint64(h[:8])
	}
	if err != nil {
		return 0, nil, err
	}
	if n > 64<<20 {
		return 0, nil, fmt.Errorf("a frame of %d bytes", n)
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(c.br, payload)
	return b0, payload, err
}

// message reads the next text or binary message, answering pings. A Close, the
// end and silence are told as text in angle brackets.
func (c *rawConn) message() string {
	var whole []byte
	for {
		b0, p, err := c.next()
		if err != nil {
			return ended(err)
		}
		switch b0 & 0x0f {
		case opPing:
			_ = c.frame(fin|opPong, p)
		case opPong:
		case opEnd:
			return closed(p)
		default:
			c.slow = false
			whole = append(whole, p...)
			if b0&fin != 0 {
				return string(whole)
			}
		}
	}
}

// The ids of the probe's own requests are numbers: whether an endpoint carries
// strings is a case of its own, and must not spoil the others.

// answer reads messages until one has this id.
func (c *rawConn) answer(id string) string {
	for {
		m := c.message()
		if strings.HasPrefix(m, "<") || strings.Contains(m, `"id":`+id) {
			return m
		}
	}
}

// reply reads messages until one is an answer: servers may send notifications
// and requests of their own at any time.
func (c *rawConn) reply() string {
	for {
		m := c.message()
		if strings.HasPrefix(m, "<") || !strings.Contains(m, `"method":`) {
			return m
		}
	}
}

// rpcError reads messages until one is an error.
func (c *rawConn) rpcError() string {
	for {
		m := c.message()
		if strings.HasPrefix(m, "<") || strings.Contains(m, `"error":`) {
			return m
		}
	}
}

// end reads until the connection is closed.
func (c *rawConn) end() string {
	for {
		if m := c.message(); strings.HasPrefix(m, "<") {
			return m
		}
	}
}

func ended(err error) string {
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		return "<silence>"
	}
	return "<hung up without a Close>"
}

func closed(p []byte) string {
	if len(p) < 2 {
		return "<close without a code>"
	}
	return fmt.Sprintf("<close %d %s>", binary.BigEndian.Uint16(p), p[2:])
}

// ping asks MCP's ping under a new id and returns the answer to it.
func (c *rawConn) alive() bool {
	c.id++
	id := fmt.Sprint(91000 + c.id)
	if c.text(`{"jsonrpc":"2.0","id":`+id+`,"method":"ping"}`) != nil {
		return false
	}
	return strings.Contains(c.answer(id), "result")
}

func short(s string) string {
	if len(s) > 160 {
		return s[:160] + "…"
	}
	return s
}
