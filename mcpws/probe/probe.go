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
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/weft-ws/weft/internal/wire"
	"github.com/weft-ws/weft/mcpws/envelope"
)

// Options tune a probe. URL must be set; the rest may be zero.
type Options struct {
	URL   string // ws or wss
	Token string // bearer token; "" if none is needed
	// Timeout is how long one answer may take. Zero: 5 s.
	Timeout time.Duration
	// SlowTimeout is how long the first answer of a connection may take, since
	// a server may have to be started for it. Zero: 30 s.
	SlowTimeout time.Duration
	// TLS is for wss; nil: the defaults of crypto/tls.
	TLS *tls.Config
}

// A Result is the outcome of one case.
type Result struct {
	ID   string `json:"id"` // H: opening handshake, F: frames, M: framing of messages, J: JSON-RPC, P: MCP
	Case string `json:"case"`
	Want string `json:"want"`
	Got  string `json:"got"` // at most 163 bytes of what the endpoint said
	OK   bool   `json:"ok"`
	Why  string `json:"why,omitempty"` // it matters; only if not OK
	Fix  string `json:"fix,omitempty"` // what to change; only if not OK
}

// A probing is one run.
type probing struct {
	ctx  context.Context
	o    Options
	u    *url.URL
	addr string

	until time.Time // when the present case is over, whatever the endpoint says
	deaf  error     // why there can be no session; nil: there can
}

// errNoSession is the outcome of a case that needs a session when there is none
// to be had.
var errNoSession = errors.New("not asked, since there was no session")

// Run runs all cases that apply, one after the other, and calls each with the
// result as soon as it is known. If initialize is not answered the cases that
// need a session are left out, and case P1 says so. The error says that the
// endpoint could not be asked at all: it is out of reach, or no WebSocket
// endpoint, or ctx has ended. A case takes at most SlowTimeout and four times
// Timeout, whatever the endpoint does.
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
		hint := "there is no WebSocket endpoint at this URL; look at the path"
		switch resp.StatusCode {
		case http.StatusUnauthorized:
			hint = "is a token missing, or is it the wrong one?"
		case http.StatusForbidden:
			hint = "it does not let us in, or not under this host name"
		case http.StatusServiceUnavailable, http.StatusTooManyRequests:
			hint = "it is full, or about to stop; try again"
		}
		return fmt.Errorf("the endpoint answers HTTP %s instead of 101: %s", resp.Status, hint)
	}
	c.close()
	p.begin()
	if c, p.deaf = p.session("2025-11-25"); p.deaf == nil {
		c.close()
	}
	for _, cs := range cases() {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if cs.applies != nil && !cs.applies(p) {
			continue
		}
		p.begin()
		r := Result{ID: cs.id, Case: cs.name, Want: cs.want}
		r.Got, r.OK = cs.run(p)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if r.Got == errNoSession.Error() {
			continue
		}
		if !r.OK {
			r.Why, r.Fix = cs.why, cs.fix
		}
		each(r)
	}
	return nil
}

// begin starts the clock of a case.
func (p *probing) begin() { p.until = time.Now().Add(p.o.SlowTimeout + 4*p.o.Timeout) }

// deadline is when an answer is given up.
func (p *probing) deadline(wait time.Duration) time.Time {
	at := time.Now().Add(wait)
	if !p.until.IsZero() && p.until.Before(at) {
		return p.until
	}
	return at
}

// A rawConn is a connection on which anything can be said.
type rawConn struct {
	p     *probing
	nc    net.Conn
	br    *bufio.Reader
	slow  bool // the first answer has not come
	id    int
	queue []string    // messages that came with others in one
	stop  func() bool // of the watch for the end of the context
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
	_ = nc.SetDeadline(p.deadline(p.o.SlowTimeout))
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
	stop := context.AfterFunc(p.ctx, func() { _ = nc.Close() })
	return &rawConn{p: p, nc: nc, br: br, slow: true, stop: stop}, resp, nil
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
	if p.deaf != nil {
		return nil, errNoSession
	}
	c, err := p.open()
	if err != nil {
		return nil, err
	}
	if err := c.text(fmt.Sprintf(initialize, version)); err != nil {
		c.close()
		return nil, err
	}
	if got := c.answer("90001"); !has(got, "result", "serverInfo") {
		c.close()
		return nil, fmt.Errorf("initialize was answered with %s", short(got))
	}
	return c, c.text(`{"jsonrpc":"2.0","method":"notifications/initialized"}`)
}

const initialize = `{"jsonrpc":"2.0","id":90001,"method":"initialize","params":{"protocolVersion":%q,"capabilities":{},"clientInfo":{"name":"weft probe","version":"1"}}}`

func (c *rawConn) close() {
	c.stop()
	_ = c.nc.Close()
}

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
	_ = c.nc.SetWriteDeadline(c.p.deadline(c.p.o.Timeout))
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
	_ = c.nc.SetReadDeadline(c.p.deadline(wait))
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
	if n > messageMax {
		return 0, nil, fmt.Errorf("a frame of %d bytes", n)
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(c.br, payload)
	return b0, payload, err
}

// message reads the next text or binary message, answering pings. A Close, the
// end and silence are told as text in angle brackets.
func (c *rawConn) message() string {
	if len(c.queue) > 0 {
		m := c.queue[0]
		c.queue = c.queue[1:]
		return m
	}
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
			if len(whole)+len(p) > messageMax {
				return "<a message without end>"
			}
			whole = append(whole, p...)
			if b0&fin != 0 {
				return c.cut(whole)
			}
		}
	}
}

// messageMax bounds what is read of one message, in bytes.
const messageMax = 64 << 20

// cut returns the first of the JSON values in a message and queues the others.
func (c *rawConn) cut(whole []byte) string {
	var all []string
	var dec envelope.Decoder
	_ = dec.Feed(time.Now(), whole, func(m *envelope.Message, err error) error {
		if err == nil {
			all = append(all, string(m.Raw))
		}
		return err
	})
	if len(all) == 0 {
		return string(whole)
	}
	c.queue = all[1:]
	return all[0]
}

// over reports whether a message stands for the end of the connection, or for
// silence.
func over(m string) bool { return strings.HasPrefix(m, "<") }

// kind is what sort of message m is, and its id as written.
func kind(m string) (envelope.Kind, string) {
	parsed, err := envelope.Parse([]byte(m))
	if err != nil {
		return envelope.Invalid, ""
	}
	return parsed.Kind, string(parsed.IDBytes())
}

// has reports whether m is an object with the member that the path of names
// leads to.
func has(m string, path ...string) bool { return member(m, path...) != nil }

// member returns the value that a path of names leads to, nil if there is none.
func member(m string, path ...string) json.RawMessage {
	v := json.RawMessage(m)
	for _, name := range path {
		var object map[string]json.RawMessage
		if json.Unmarshal(v, &object) != nil {
			return nil
		}
		if v = object[name]; v == nil {
			return nil
		}
	}
	return v
}

// The ids of the probe's own requests are numbers: whether an endpoint carries
// strings is a case of its own, and must not spoil the others.

// answer reads messages until one has this id.
func (c *rawConn) answer(id string) string {
	for {
		m := c.message()
		k, got := kind(m)
		if over(m) || got == id && (k == envelope.Result || k == envelope.Error) {
			return m
		}
		if got == id && k == envelope.Request {
			return "its own text: " + m // an echo
		}
	}
}

// reply reads messages until one is an answer: servers may send notifications
// and requests of their own at any time.
func (c *rawConn) reply() string {
	for {
		m := c.message()
		if k, _ := kind(m); over(m) || k != envelope.Request && k != envelope.Notification {
			return m
		}
	}
}

// rpcError reads messages until one is an error.
func (c *rawConn) rpcError() string {
	for {
		m := c.message()
		if over(m) || has(m, "error") {
			return m
		}
	}
}

// end reads until the connection is closed.
func (c *rawConn) end() string {
	for {
		if m := c.message(); over(m) {
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

// alive asks MCP's ping under a new id and reports whether it is answered.
func (c *rawConn) alive() bool {
	c.id++
	id := fmt.Sprint(91000 + c.id)
	if c.text(`{"jsonrpc":"2.0","id":`+id+`,"method":"ping"}`) != nil {
		return false
	}
	return has(c.answer(id), "result")
}

func short(s string) string {
	if len(s) > 160 {
		return s[:160] + "…"
	}
	return s
}
