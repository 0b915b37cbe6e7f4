package ws

import (
	"bufio"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/weft-ws/weft/internal/deflate"
)

// AcceptOptions shape the server's side of the opening handshake. The zero
// value accepts requests of the server's own origin and of programs that send
// no Origin, and chooses no subprotocol. AcceptOptions are only read and may be
// shared; the functions in them are then called concurrently.
type AcceptOptions struct {
	// Subprotocols are the ones that this end speaks, the preferred first. The
	// first that the client offered is chosen; without one the handshake succeeds
	// and Conn.Subprotocol is empty. Names are compared exactly.
	Subprotocols []string

	// ChooseSubprotocol replaces Subprotocols when it is set. It gets what the
	// client offered, in the client's order, and returns one of these or "". An
	// error refuses the handshake, with the error's own Status if it is a
	// *HandshakeError and with 400 otherwise.
	ChooseSubprotocol func(r *http.Request, offered []string) (string, error)

	// Origins are patterns of the web origins that may connect besides the
	// server's own: the one whose host and port equal those of the Host header.
	// A pattern is a host, with scheme or without (then http and https), with port
	// or without (then the scheme's default port), in any case; * stands for any
	// run of characters, dots included, and ? for one:
	//
	//	example.com                  http://example.com, https://example.com
	//	https://example.com:8443     that one
	//	*.example.com                any host below example.com, not itself
	//	localhost:*                  any port
	//	chrome-extension://abcdef    schemes of browser extensions must be named
	//	null                         files and sandboxed frames
	//	*                            every origin: no protection at all
	Origins []string

	// CheckOrigin replaces the whole origin policy (Origins, RequireOrigin, the
	// server's own origin) when it is set. False answers 403.
	CheckOrigin func(r *http.Request) bool

	// RequireOrigin refuses requests without an Origin header. They come from
	// programs, which could send any: without it they are let in. A browser's
	// request whose Origin was lost on the way is always refused.
	RequireOrigin bool

	// Hosts, if it is not empty, lists what the Host header may name; others get
	// 403. An element is a host pattern as in Origins without a scheme, an IP
	// address in any spelling, or a network such as 10.0.0.0/8. Without a port it
	// allows every port. See LoopbackHosts.
	Hosts []string

	// Header is added to the 101 response. Fields that belong to the handshake,
	// and values that would break the header, answer 500. Fields that middleware
	// has set on the ResponseWriter are sent as well, apart from those that
	// describe a body.
	Header http.Header

	// HandshakeTimeout bounds the writing of the 101 response. Default 10 s;
	// negative: none. Reading the request is net/http's task: see NewHTTPServer.
	HandshakeTimeout time.Duration

	// Config tunes the connection. While its Budget is above the soft mark,
	// newcomers are answered 503 with Retry-After.
	Config Config
}

// Accept answers an upgrade request with 101 Switching Protocols (RFC 6455,
// 4.2) and returns the connection. After an error, which is a *HandshakeError,
// the HTTP response is already written: with the status and a text that says
// what to change. A nil opts is the zero value.
//
// The ResponseWriter may be wrapped by middleware whose wrappers have an Unwrap
// method (see http.ResponseController). The request must have come over
// HTTP/1.1; authentication belongs before Accept.
//
// Accept is for handlers that stay and read. A handler that has nothing to do
// but wait for messages costs less memory with Serve.
func Accept(w http.ResponseWriter, r *http.Request, opts *AcceptOptions) (*Conn, error) {
	if opts == nil {
		opts = &AcceptOptions{}
	}
	return accept(w, r, opts, nil)
}

// Serve accepts like Accept and returns at once; h is called for each message
// on a goroutine of the connection's own. The HTTP handler should return too:
// then net/http's goroutine, the request and all buffers are free.
func Serve(w http.ResponseWriter, r *http.Request, opts *AcceptOptions, h Handler) (*Conn, error) {
	c, err := Accept(w, r, opts)
	if err != nil {
		return nil, err
	}
	c.startServe(h, func() {})
	return c, nil
}

// accept is Accept, for a connection that s (if not nil) keeps track of.
func accept(w http.ResponseWriter, r *http.Request, o *AcceptOptions, s *Server) (*Conn, error) {
	a, he := o.answer(w, r)
	if he != nil {
		return nil, refuse(w, r, o, he)
	}
	nc, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		he := denial(http.StatusInternalServerError, "the connection cannot be taken over from %T; wrappers of the ResponseWriter need a method Unwrap() http.ResponseWriter, or Hijack", w)
		he.Err = err
		return nil, refuse(w, r, o, he)
	}
	if err := send101(nc, a.response, o.HandshakeTimeout); err != nil {
		nc.Close()
		he := denial(http.StatusSwitchingProtocols, "the response could not be sent")
		he.Err = err
		return nil, o.refused(r, he)
	}
	a.est.early = leftover(buffered)
	a.est.server = s
	// From here on nothing refers to the request, to w or to net/http's buffers.
	return newConn(nc, RoleServer, o.Config, a.est), nil
}

// An answer is a 101 response and what it agrees to.
type answer struct {
	response []byte
	est      established
}

// answer judges the request and writes down the response.
func (o *AcceptOptions) answer(w http.ResponseWriter, r *http.Request) (answer, *HandshakeError) {
	var a answer
	offer, he := judgeRequest(r)
	if he == nil {
		he = judgeHost(r, o.Hosts)
	}
	if he == nil {
		he = judgeOrigin(r, o)
	}
	if b := o.Config.Budget; he == nil && b != nil && b.Soft > 0 && b.Used() >= b.Soft {
		he = denial(http.StatusServiceUnavailable, "the server has no memory to spare (Config.Budget)").retryLater()
	}
	if he == nil {
		a.est.subprotocol, he = o.choose(r, offer.subprotocols)
	}
	if he != nil {
		return answer{}, he
	}
	b := make([]byte, 0, 512)
	b = append(b, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"...)
	b = fmt.Appendf(b, "Sec-WebSocket-Accept: %s\r\n", acceptKey(offer.key))
	if p := a.est.subprotocol; p != "" {
		b = fmt.Appendf(b, "Sec-WebSocket-Protocol: %s\r\n", p)
	}
	if c := o.Config.Compression; c != nil {
		if params, response, ok := deflate.Accept(offer.extensions, c.options(RoleServer)); ok {
			a.est.deflate = &params
			b = fmt.Appendf(b, "Sec-WebSocket-Extensions: %s\r\n", response)
		}
	}
	for _, h := range [...]struct {
		option string
		fields http.Header
	}{{"ResponseWriter.Header", carried(w.Header())}, {"AcceptOptions.Header", o.Header}} {
		if err := checkHeader(h.option, h.fields); err != nil {
			he := denial(http.StatusInternalServerError, "the server is set up wrongly")
			he.Err = err
			return answer{}, he
		}
		b = appendHeader(b, h.fields)
	}
	a.response = append(b, "\r\n"...)
	return a, nil
}

// choose picks the subprotocol.
func (o *AcceptOptions) choose(r *http.Request, offered []string) (string, *HandshakeError) {
	if o.ChooseSubprotocol == nil {
		for _, p := range o.Subprotocols {
			if slices.Contains(offered, p) {
				return p, nil
			}
		}
		return "", nil
	}
	chosen, err := o.ChooseSubprotocol(r, offered)
	if err != nil {
		he := denial(http.StatusBadRequest, "%v", err)
		if own := (*HandshakeError)(nil); errors.As(err, &own) {
			*he = *own
			he.Header = own.Header.Clone()
			if he.Status < 400 {
				he.Status = http.StatusBadRequest
			}
		}
		return "", he
	}
	// RFC 6455, 4.2.2: "The value chosen MUST be derived from the client's
	// handshake".
	if chosen != "" && !slices.Contains(offered, chosen) {
		he := denial(http.StatusInternalServerError, "the server is set up wrongly")
		he.Err = fmt.Errorf("ws: AcceptOptions.ChooseSubprotocol returned %q, the client offered %q", chosen, offered)
		return "", he
	}
	// A part of the request's header must not keep the whole of it in memory.
	return strings.Clone(chosen), nil
}

// carried returns the fields of a ResponseWriter's header that make sense in a
// 101 response: not those that describe a body or this hop.
func carried(h http.Header) http.Header {
	var c http.Header
	for name, values := range h {
		if strings.HasPrefix(name, "Content-") || strings.HasPrefix(name, http.TrailerPrefix) || name == "Trailer" || ownedByHandshake(name) {
			continue
		}
		if c == nil {
			c = http.Header{}
		}
		c[name] = values
	}
	return c
}

// send101 writes the response in one call and leaves the connection without
// the deadlines that net/http's server has set.
func send101(nc net.Conn, response []byte, timeout time.Duration) error {
	if timeout == 0 {
		timeout = handshakeTimeoutDefault
	}
	if err := nc.SetDeadline(time.Time{}); err != nil {
		return err
	}
	if timeout > 0 {
		nc.SetWriteDeadline(time.Now().Add(timeout))
		defer nc.SetWriteDeadline(time.Time{})
	}
	_, err := nc.Write(response)
	return err
}

// leftover copies the bytes that net/http has read beyond the request. A client
// should wait for the response (HS-16), but what it sent early is the beginning
// of its frames and must not be lost.
func leftover(buffered *bufio.ReadWriter) []byte {
	if buffered == nil || buffered.Reader == nil || buffered.Reader.Buffered() == 0 {
		return nil
	}
	early := make([]byte, buffered.Reader.Buffered())
	n, _ := buffered.Reader.Read(early)
	return early[:n]
}

// refuse writes the HTTP response for he and returns it.
func refuse(w http.ResponseWriter, r *http.Request, o *AcceptOptions, he *HandshakeError) error {
	text := "opening handshake refused: " + he.Reason
	if he.Rule != nil {
		text += fmt.Sprintf(" (%s %s, RFC %s %s)", he.Rule.ID, he.Rule.Name, he.Rule.RFC, he.Rule.Section)
	}
	h := w.Header()
	maps.Copy(h, he.Header)
	if r.ProtoMajor == 1 {
		h.Del("Connection")
		// A client that asked for an upgrade may have sent frames already. They must
		// not be read as the next request.
		if len(r.Header["Upgrade"]) > 0 {
			h.Add("Connection", "close")
		}
		// RFC 9110, 7.8: "A sender of Upgrade MUST also send an "Upgrade" connection
		// option".
		if len(h["Upgrade"]) > 0 {
			h.Add("Connection", "Upgrade")
		}
	}
	he.Body = []byte(text)
	http.Error(w, text, he.Status)
	return o.refused(r, he)
}

// refused logs he and returns it.
func (o *AcceptOptions) refused(r *http.Request, he *HandshakeError) error {
	if l := o.Config.Logger; l != nil {
		l.Info("opening handshake refused", "remote", r.RemoteAddr, "path", r.URL.Path, "err", he)
	}
	return he
}
