package ws

import (
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weft-ws/weft/internal/deflate"
	"github.com/weft-ws/weft/internal/proto"
)

// This file judges opening handshakes, both ways, and does no I/O: judgeRequest
// for the server, judgeResponse for the client. Each names the first rule of
// the catalogue that was broken. accept.go and dial.go do the rest.

// Limits of an opening handshake, for both roles.
const (
	handshakeTimeoutDefault = 10 * time.Second
	handshakeSizeMax        = 16 << 10 // bytes of a header, request or status line included
	handshakeFieldsMax      = 100      // header fields
	refusalBodyMax          = 1 << 10  // bytes of a refusal's body that are kept
	subprotocolsMax         = 64       // subprotocols in one offer

	// retryAfter is what a client that met a full or stopping server is told to
	// wait.
	retryAfter = 5 * time.Second
)

// The handshake's own header fields, as net/http spells them.
const (
	headerKey        = "Sec-Websocket-Key"
	headerAccept     = "Sec-Websocket-Accept"
	headerVersion    = "Sec-Websocket-Version"
	headerProtocol   = "Sec-Websocket-Protocol"
	headerExtensions = "Sec-Websocket-Extensions"
)

// version is the only protocol version there is. RFC 6455, 4.1: "The value of
// this header field MUST be 13."
const version = "13"

// acceptGUID is the constant of RFC 6455, 1.3.
const acceptGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

// acceptKey is the Sec-WebSocket-Accept that answers key. RFC 6455, 4.2.2: "the
// base64-encoding of the SHA-1 of the concatenation of the key and the GUID".
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + acceptGUID))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// refusal is the error for a broken rule of the catalogue; its status is the
// rule's. The reason says what was seen and what to change.
func refusal(id, format string, args ...any) *HandshakeError {
	rule := proto.RuleByID(id)
	return &HandshakeError{Status: rule.Status, Rule: rule, Reason: fmt.Sprintf(format, args...)}
}

// denial is the error for something that no rule forbids but this end does not
// do or allow.
func denial(status int, format string, args ...any) *HandshakeError {
	return &HandshakeError{Status: status, Reason: fmt.Sprintf(format, args...)}
}

// withHeader adds a header field to the refusal.
func (e *HandshakeError) withHeader(name string, values ...string) *HandshakeError {
	if e.Header == nil {
		e.Header = http.Header{}
	}
	e.Header[name] = values
	return e
}

// retryLater adds Retry-After to the refusal of an end that has no room.
func (e *HandshakeError) retryLater() *HandshakeError {
	return e.withHeader("Retry-After", strconv.Itoa(int(retryAfter/time.Second)))
}

// shown quotes what a peer sent, for an error: escaped and cut short.
func shown(s string) string {
	const max = 80
	if len(s) > max {
		return fmt.Sprintf("%q and %d bytes more", s[:max], len(s)-max)
	}
	return fmt.Sprintf("%q", s)
}

// An offer is what a client's request asks for.
type offer struct {
	key          string
	subprotocols []string
	extensions   []deflate.Extension
}

// judgeRequest returns what r offers, or the first rule that it breaks. Rules
// that net/http enforces before a handler is called (HS-01, most of HS-05) are
// repeated only where a handler could still see the breach.
func judgeRequest(r *http.Request) (*offer, *HandshakeError) {
	if r.ProtoMajor > 1 {
		// An extended CONNECT (RFC 8441) is another handshake, and its stream is
		// not a net.Conn.
		return nil, denial(http.StatusHTTPVersionNotSupported,
			"%s cannot carry an Upgrade and WebSocket over it (extended CONNECT, RFC 8441) is not supported; connect with HTTP/1.1 (ALPN http/1.1)", r.Proto)
	}
	if r.Method != http.MethodGet {
		return nil, refusal("HS-02", "the method is %s; use GET", shown(r.Method)).withHeader("Allow", http.MethodGet)
	}
	if !r.ProtoAtLeast(1, 1) {
		return nil, refusal("HS-03", "the request is %s; use HTTP/1.1", shown(r.Proto))
	}
	if target := r.RequestURI; strings.Contains(target, "#") || r.URL != nil && r.URL.Fragment != "" {
		return nil, refusal("HS-04", "the request target %s has a fragment; leave out the # and what follows, or write %%23", shown(target))
	}
	if r.Host == "" {
		return nil, refusal("HS-05", "the Host header is absent or empty; send the host that the URL names")
	}
	if n := len(r.Header["Host"]); n > 1 {
		return nil, refusal("HS-05", "there are %d Host headers; send one", n)
	}
	// RFC 6455, 4.2.1: "An |Upgrade| header field containing the value
	// "websocket", treated as an ASCII case-insensitive value." RFC 9110, 7.8,
	// makes it a list.
	if !hasToken(r.Header["Upgrade"], "websocket") {
		return nil, refusal("HS-06", "this is a WebSocket endpoint and Upgrade is %s; send Upgrade: websocket", shownHeader(r.Header["Upgrade"])).
			withHeader("Upgrade", "websocket").withHeader("Sec-WebSocket-Version", version)
	}
	if !hasToken(r.Header["Connection"], "upgrade") {
		return nil, refusal("HS-07", "Connection is %s; send Connection: Upgrade (a proxy that does not know WebSocket removes it)", shownHeader(r.Header["Connection"]))
	}
	keys := r.Header[headerKey]
	switch {
	case len(keys) == 0:
		return nil, refusal("HS-08", "there is no Sec-WebSocket-Key; send 16 random bytes in base64")
	case len(keys) > 1:
		return nil, refusal("HS-10", "there are %d Sec-WebSocket-Key headers; send one", len(keys))
	}
	key := trim(keys[0])
	if !validKey(key) {
		return nil, refusal("HS-09", "Sec-WebSocket-Key %s is not 16 bytes in base64; send 16 random bytes as 24 characters", shown(key))
	}
	versions := r.Header[headerVersion]
	if len(versions) > 1 {
		return nil, refusal("HS-13", "there are %d Sec-WebSocket-Version headers; send one", len(versions))
	}
	if len(versions) == 0 || trim(versions[0]) != version {
		// RFC 6455, 4.2.2: "the server MUST abort the WebSocket handshake and
		// instead send an appropriate HTTP error code (such as 426 Upgrade
		// Required) and a |Sec-WebSocket-Version| header field indicating the
		// version(s) the server is capable of understanding."
		return nil, refusal("HS-12", "Sec-WebSocket-Version is %s; send 13", shownHeader(versions)).
			withHeader("Upgrade", "websocket").withHeader("Sec-WebSocket-Version", version)
	}
	subprotocols, he := parseSubprotocols(r.Header[headerProtocol])
	if he != nil {
		return nil, he
	}
	extensions, err := deflate.ParseExtensions(r.Header[headerExtensions])
	if err != nil {
		return nil, extensionRefusal(err)
	}
	// Bytes after the header are frames to us and a body to whoever forwarded
	// the request by its Content-Length: the classic of request smuggling.
	if r.ContentLength != 0 || len(r.TransferEncoding) > 0 {
		return nil, denial(http.StatusBadRequest, "the request announces a body; an opening handshake has none")
	}
	return &offer{key: key, subprotocols: subprotocols, extensions: extensions}, nil
}

// judgeResponse returns what a server's 101 response switches on, or the first
// rule that it breaks, given what the client sent.
func judgeResponse(resp *http.Response, key string, subprotocols []string, offered *deflate.Options) (established, *HandshakeError) {
	var est established
	fail := func(e *HandshakeError) (established, *HandshakeError) {
		e.Status, e.Header = resp.StatusCode, resp.Header
		return established{}, e
	}
	if resp.ProtoMajor != 1 || resp.ProtoMinor != 1 {
		return fail(denial(0, "the 101 response is %s, which has no Upgrade; the server must answer HTTP/1.1", shown(resp.Proto)))
	}
	// RFC 6455, 4.1: "If the response lacks an |Upgrade| header field or the
	// |Upgrade| header field contains a value that is not an ASCII
	// case-insensitive match for the value "websocket", the client MUST _Fail the
	// WebSocket Connection_."
	if upgrade := resp.Header["Upgrade"]; !onlyToken(upgrade, "websocket") {
		return fail(refusal("HR-02", "Upgrade is %s, not websocket", shownHeader(upgrade)))
	}
	if connection := resp.Header["Connection"]; !hasToken(connection, "upgrade") {
		return fail(refusal("HR-03", "Connection is %s, not Upgrade", shownHeader(connection)))
	}
	accepts := resp.Header[headerAccept]
	if len(accepts) > 1 {
		return fail(refusal("HR-05", "there are %d Sec-WebSocket-Accept headers", len(accepts)))
	}
	if want := acceptKey(key); len(accepts) == 0 || trim(accepts[0]) != want {
		return fail(refusal("HR-04", "Sec-WebSocket-Accept is %s, not %s: the answer is not from a WebSocket server or was made for another request", shownHeader(accepts), want))
	}
	if lines := resp.Header[headerExtensions]; len(lines) > 1 {
		return fail(refusal("HR-07", "there are %d Sec-WebSocket-Extensions headers", len(lines)))
	}
	extensions, err := deflate.ParseExtensions(resp.Header[headerExtensions])
	if err != nil {
		return fail(extensionRefusal(err))
	}
	switch {
	case offered != nil:
		params, active, err := deflate.Confirm(*offered, extensions)
		if err != nil {
			return fail(extensionRefusal(err))
		}
		if active {
			est.deflate = &params
		}
	case len(extensions) > 0:
		return fail(refusal("HR-06", "the server activates %s; no extension was offered", shown(extensions[0].Name)))
	}
	chosen := resp.Header[headerProtocol]
	switch {
	case len(chosen) == 0:
		return est, nil
	case len(chosen) > 1:
		return fail(refusal("HR-09", "there are %d Sec-WebSocket-Protocol headers", len(chosen)))
	case trim(chosen[0]) == "":
		return fail(refusal("HR-10", "Sec-WebSocket-Protocol is empty; a server that chooses none leaves it out"))
	}
	// RFC 6455, 4.1: "if this header field indicates the use of a subprotocol
	// that was not present in the client's handshake ... the client MUST _Fail
	// the WebSocket Connection_." The caller's string is kept, not the peer's.
	i := slices.Index(subprotocols, trim(chosen[0]))
	if i < 0 {
		return fail(refusal("HR-08", "the server chose the subprotocol %s; offered were %q", shown(chosen[0]), subprotocols))
	}
	est.subprotocol = subprotocols[i]
	return est, nil
}

// extensionRefusal is an error of package deflate about a header.
func extensionRefusal(err error) *HandshakeError {
	id, detail := "HS-15", err.Error()
	if de := (*deflate.Error)(nil); errors.As(err, &de) {
		id, detail = de.RuleID, de.Detail
	}
	return refusal(id, "%s", detail)
}

// options maps the tuning of permessage-deflate to the view of one role.
func (c *Compression) options(role Role) deflate.Options {
	o := deflate.Options{
		OwnNoContextTakeover:  c.NoContextTakeover,
		PeerNoContextTakeover: c.NoContextTakeover,
		OwnWindowBits:         c.ServerMaxWindowBits,
		PeerWindowBits:        c.ClientMaxWindowBits,
	}
	if role == RoleClient {
		o.OwnWindowBits, o.PeerWindowBits = o.PeerWindowBits, o.OwnWindowBits
	}
	return o
}

// validKey reports whether key is the base64 of 16 bytes. RFC 6455, 4.1: "a
// nonce consisting of a randomly selected 16-byte value that has been
// base64-encoded".
func validKey(key string) bool {
	if len(key) != 24 {
		return false
	}
	var b [18]byte // what 24 characters without padding would make
	n, err := base64.StdEncoding.Decode(b[:], []byte(key))
	return err == nil && n == 16
}

// parseSubprotocols reads all lines of Sec-WebSocket-Protocol as one list. RFC
// 6455, 4.1: "The elements that comprise this value MUST be non-empty strings
// with characters in the range U+0021 to U+007E not including separator
// characters as defined in [RFC2616] and MUST all be unique strings."
func parseSubprotocols(lines []string) ([]string, *HandshakeError) {
	var list []string
	for _, line := range lines {
		s := listScanner{in: line}
		for elem, ok := s.next(); ok; elem, ok = s.next() {
			switch {
			case elem == "":
				return nil, refusal("HS-14", "Sec-WebSocket-Protocol has an empty element; leave it out")
			case !isToken(elem):
				return nil, refusal("HS-14", "Sec-WebSocket-Protocol: %s is not a token; use letters, digits and !#$%%&'*+-.^_`|~", shown(elem))
			case slices.Contains(list, elem):
				return nil, refusal("HS-14", "Sec-WebSocket-Protocol has %s twice; send it once", shown(elem))
			case len(list) == subprotocolsMax:
				return nil, denial(http.StatusBadRequest, "Sec-WebSocket-Protocol has more than %d elements", subprotocolsMax)
			}
			list = append(list, elem)
		}
	}
	return list, nil
}

// A listScanner walks the comma-separated elements of a header line (RFC 9110,
// 5.6.1) once from left to right: each step of its loop moves pos on, so the
// work is linear whatever the line holds. Commas within quotes separate
// nothing.
type listScanner struct {
	in  string
	pos int // next byte to look at; beyond the end when all is done
}

// next returns the next element without the space around it. An empty line has
// one empty element.
func (s *listScanner) next() (elem string, ok bool) {
	if s.pos > len(s.in) {
		return "", false
	}
	start, end, quoted := -1, -1, false
	for s.pos < len(s.in) {
		c := s.in[s.pos]
		s.pos++
		switch {
		case c == ',' && !quoted:
			return s.element(start, end), true
		case c == ' ' || c == '\t':
			continue
		case c == '"':
			quoted = !quoted
		}
		if start < 0 {
			start = s.pos - 1
		}
		if c == '\\' && quoted && s.pos < len(s.in) {
			s.pos++ // quoted-pair, RFC 9110, 5.6.4
		}
		end = s.pos
	}
	s.pos++
	return s.element(start, end), true
}

func (s *listScanner) element(start, end int) string {
	if start < 0 {
		return ""
	}
	return s.in[start:end]
}

// hasToken reports whether token, in any case, is an element of the list in
// lines.
func hasToken(lines []string, token string) bool {
	for _, line := range lines {
		s := listScanner{in: line}
		for elem, ok := s.next(); ok; elem, ok = s.next() {
			if equalFold(elem, token) {
				return true
			}
		}
	}
	return false
}

// onlyToken reports whether token, in any case, is there and nothing else.
func onlyToken(lines []string, token string) bool {
	for _, line := range lines {
		s := listScanner{in: line}
		for elem, ok := s.next(); ok; elem, ok = s.next() {
			if elem != "" && !equalFold(elem, token) {
				return false
			}
		}
	}
	return hasToken(lines, token)
}

// equalFold compares without regard to the case of ASCII letters, and of those
// only: strings.EqualFold takes the Kelvin sign for a k.
func equalFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// trim takes off the optional whitespace of RFC 9110, 5.6.3.
func trim(s string) string { return strings.Trim(s, " \t") }

// isToken reports whether s is a token (RFC 9110, 5.6.2).
func isToken(s string) bool {
	for i := range len(s) {
		c := lower(s[i])
		if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return s != ""
}

// isFieldValue reports whether s may stand in a header line: it holds no
// control character that could end the line or confuse who reads it.
func isFieldValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// shownHeader quotes the lines of a header field for an error.
func shownHeader(lines []string) string {
	if len(lines) == 0 {
		return "absent"
	}
	return shown(strings.Join(lines, ", "))
}

// checkHeader says what is wrong with header fields that the application wants
// in its opening handshake: a name or value that would break the header, or a
// field that belongs to the handshake. option names where they came from.
func checkHeader(option string, h http.Header) error {
	for _, name := range slices.Sorted(maps.Keys(h)) {
		if !isToken(name) {
			return fmt.Errorf("ws: %s: %s is not a header name", option, shown(name))
		}
		if ownedByHandshake(name) {
			return fmt.Errorf("ws: %s: %s belongs to the opening handshake; see Subprotocols, Config.Compression and DialOptions.Host", option, name)
		}
		for _, v := range h[name] {
			if !isFieldValue(v) {
				return fmt.Errorf("ws: %s: the value of %s holds a line break or another control character", option, name)
			}
		}
	}
	return nil
}

// ownedByHandshake reports whether a header field is the handshake's own or
// would change where the header ends.
func ownedByHandshake(name string) bool {
	switch name = textproto.CanonicalMIMEHeaderKey(name); name {
	case "Host", "Connection", "Upgrade", "Content-Length", "Transfer-Encoding":
		return true
	}
	return strings.HasPrefix(name, "Sec-Websocket-")
}

// appendHeader appends header fields in the order of their names, one line per
// value. They have passed checkHeader.
func appendHeader(b []byte, h http.Header) []byte {
	for _, name := range slices.Sorted(maps.Keys(h)) {
		for _, v := range h[name] {
			b = fmt.Appendf(b, "%s: %s\r\n", name, v)
		}
	}
	return b
}
