package doctor

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/weft-ws/weft/capture"
)

// An Opening is what the opening handshake agreed on.
type Opening struct {
	Target      string // of the request, as sent; it may hold secrets
	Status      int    // of the response; 0 until it has come
	Subprotocol string // "" where none was chosen
	Extensions  string // as the server answered
	// RequestSize and ResponseSize are the bytes that come before the frames of
	// the client and of the server. Offsets of frames count behind them.
	RequestSize, ResponseSize int64

	deflate agreement
}

// headMax bounds an HTTP head in bytes.
const headMax = 64 << 10

// A head is an HTTP head as far as it has come.
type head struct {
	buf   []byte
	line  int // where the current line begins
	count int // complete lines
	bare  int // number of the first line that ends with LF alone, from 1
}

// A headLine is a line of a head without its end.
type headLine struct {
	text   string
	offset int
}

// A field is a header field.
type field struct {
	name  string // lower case
	value string // without the white space around it
	line  int    // from 1
	at    int    // where the value begins in its line
}

// feedHead takes in bytes of an HTTP head and returns what follows it.
func (s *stream) feedHead(p []byte) []byte {
	h := &s.head
	for len(p) > 0 {
		n := bytes.IndexByte(p, '\n') + 1
		if n == 0 {
			n = len(p)
		}
		for _, c := range p[:n] {
			ok := c >= ' ' && c != 0x7f || c == '\t' || c == '\r' || c == '\n'
			if ok && len(h.buf) < headMax {
				h.buf = append(h.buf, c)
				continue
			}
			if ok {
				s.in.noHTTP(s, fmt.Sprintf("the HTTP head of the %s is longer than %s bytes", s.from, group(headMax)))
				return nil
			}
			s.notHTTP(c)
			return nil
		}
		p = p[n:]
		if h.buf[len(h.buf)-1] != '\n' {
			return nil
		}
		line := h.buf[h.line : len(h.buf)-1]
		h.count++
		if len(line) > 0 && line[len(line)-1] == '\r' {
			line = line[:len(line)-1]
		} else if h.bare == 0 {
			h.bare = h.count
		}
		h.line = len(h.buf)
		if len(line) > 0 {
			continue
		}
		if h.count == 1 {
			// RFC 9112, 2.2: an empty line before the request line is ignored.
			h.buf, h.line, h.count, h.bare = h.buf[:0], 0, 0, 0
			continue
		}
		if s.from == capture.Client {
			s.requestCame()
		} else if s.responseCame() {
			continue
		}
		h.buf = nil
		return p
	}
	return p
}

// notHTTP handles a byte that no HTTP head can hold.
func (s *stream) notHTTP(c byte) {
	h := &s.head
	if s.from == capture.Client {
		cause := ""
		if len(h.buf) == 0 && c == 0x16 {
			cause = "this looks like TLS: the recording has to be made of the decrypted bytes"
		} else if len(h.buf) == 0 {
			cause = "the recording may begin after the opening handshake"
		}
		line := string(h.buf[h.line:])
		s.in.report("HS-01", Finding{
			From: s.from, Frame: Frame{From: s.from, At: s.in.now}, Offset: int64(len(h.buf)), Payload: -1,
			LineNumber: h.count + 1, Line: shown(line, h.count == 0), Detail: fmt.Sprintf("byte 0x%02x cannot stand in an HTTP head", c), Cause: cause,
		})
	}
	s.in.noHTTP(s, "the bytes of the "+s.from.String()+" are not HTTP")
}

// noHTTP gives up both directions: without the upgrade nothing says what the
// bytes mean.
func (in *Inspector) noHTTP(s *stream, why string) {
	s.head = head{}
	for i := range in.streams {
		if in.streams[i].phase != isBlind {
			in.streams[i].goBlind(why)
		}
	}
}

// feedEarly keeps bytes that the client sends before the response.
//
// RFC 6455, 4.1: "Once the client's opening handshake has been sent, the client
// MUST wait for a response from the server before sending any further data."
func (s *stream) feedEarly(p []byte) {
	if len(s.early) == 0 {
		s.in.report("HS-16", Finding{
			From: s.from, Frame: Frame{From: s.from, At: s.in.now}, Offset: s.in.opening.RequestSize, Payload: -1,
			Detail: "the response is not there yet, and the client goes on",
		})
	}
	if len(s.early)+len(p) > earlyMax {
		s.goBlind("the client sent more than " + group(earlyMax) + " bytes before the response")
		return
	}
	s.early = append(s.early, p...)
}

// lines returns the lines of the head, without the empty one that ends it.
func (h *head) lines() []headLine {
	var out []headLine
	for at := 0; at < len(h.buf); {
		n := bytes.IndexByte(h.buf[at:], '\n') + 1
		l := strings.TrimSuffix(string(h.buf[at:at+n-1]), "\r")
		if l != "" {
			out = append(out, headLine{l, at})
		}
		at += n
	}
	return out
}

// fields parses the header lines; bad is the number of the first malformed
// one, from 1, or 0.
func fields(lines []headLine) (out []field, bad int) {
	for i, l := range lines[1:] {
		name, value, ok := strings.Cut(l.text, ":")
		if !ok || !isToken(name) || strings.ContainsRune(value, '\r') {
			if bad == 0 {
				bad = i + 2
			}
			continue
		}
		v := strings.TrimLeft(value, " \t")
		out = append(out, field{strings.ToLower(name), strings.TrimRight(v, " \t"), i + 2, len(l.text) - len(v)})
	}
	return out, bad
}

// isToken reports whether s is a token of RFC 9110, 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte("\"(),/:;<=>?@[\\]{}", c) >= 0 {
			return false
		}
	}
	return s != ""
}

// all returns the fields of a name.
func all(fs []field, name string) []field {
	var out []field
	for _, f := range fs {
		if f.name == name {
			out = append(out, f)
		}
	}
	return out
}

// elements splits the values of comma-separated lists; empty elements stay.
func elements(fs []field) []string {
	var out []string
	for _, f := range fs {
		for e := range strings.SplitSeq(f.value, ",") {
			out = append(out, strings.Trim(e, " \t"))
		}
	}
	return out
}

// hasToken reports whether a list holds the token, in any case.
func hasToken(fs []field, token string) bool {
	return slices.ContainsFunc(elements(fs), func(e string) bool { return strings.EqualFold(e, token) })
}

// A request is what is kept of the opening request until the response.
type request struct {
	lines       []headLine
	fields      []field
	faults      []string // IDs of the rules it broke
	key         string
	version     []field
	protocols   []string
	extensions  []extension
	extensionOK bool
}

// A judge reports about one head.
type judge struct {
	in    *Inspector
	s     *stream
	lines []headLine
	said  []string // IDs of what was reported
}

// say reports a rule, pointing at a field, or at line n where f is nil.
func (j *judge) say(rule string, f *field, n int, detail string) {
	j.said = append(j.said, rule)
	out := Finding{From: j.s.from, Frame: Frame{From: j.s.from, At: j.in.now}, Payload: -1, Detail: detail}
	at, length := 0, 0
	if f != nil {
		n, at, length = f.line, f.at, len(f.value)
	}
	if n > 0 {
		l := j.lines[n-1]
		out.Offset = int64(l.offset + at)
		out.LineNumber, out.Line = n, shown(l.text, n == 1)
		if f != nil && at+length <= len(out.Line) {
			out.Mark = [2]int{at, at + length}
		}
	}
	j.in.report(rule, out)
}

// requestCame judges the client's request, RFC 6455, 4.1.
func (s *stream) requestCame() {
	in, h := s.in, &s.head
	r := &request{lines: h.lines()}
	j := &judge{in: in, s: s, lines: r.lines}
	in.opening.RequestSize = int64(len(h.buf))
	s.phase = waiting

	var badLine int
	r.fields, badLine = fields(r.lines)
	parts := strings.Split(r.lines[0].text, " ")
	lineOK := len(parts) == 3 && isToken(parts[0]) && parts[1] != "" && isVersion(parts[2])
	switch {
	case !lineOK:
		j.say("HS-01", nil, 1, "the request line is not method, target and version with one space between")
	case badLine > 0:
		j.say("HS-01", nil, badLine, "the line is not \"name: value\"")
	case h.bare > 0:
		j.say("HS-01", nil, min(h.bare, len(r.lines)), "line "+strconv.Itoa(h.bare)+" ends with LF alone; HTTP wants CR LF")
	}
	if lineOK {
		in.opening.Target = parts[1]
		// "The method of the request MUST be GET, and the HTTP version MUST be
		// at least 1.1."
		if parts[0] != "GET" {
			j.say("HS-02", nil, 1, "the method is "+parts[0])
		}
		if parts[2] < "HTTP/1.1" {
			j.say("HS-03", nil, 1, "the version is "+parts[2])
		}
		if strings.Contains(parts[1], "#") {
			j.say("HS-04", nil, 1, "the fragment part of a URL stays with the client")
		}
	}

	host := all(r.fields, "host")
	switch {
	case len(host) == 0:
		j.say("HS-05", nil, 0, "there is no Host header")
	case len(host) > 1:
		j.say("HS-05", &host[1], 0, "a second Host header")
	case host[0].value == "":
		j.say("HS-05", &host[0], 0, "the Host header is empty")
	}
	if f := all(r.fields, "upgrade"); !hasToken(f, "websocket") {
		j.say("HS-06", first(f), 0, missing("Upgrade", f, "websocket"))
	}
	if f := all(r.fields, "connection"); !hasToken(f, "upgrade") {
		j.say("HS-07", first(f), 0, missing("Connection", f, "Upgrade"))
	}
	j.key(r)
	j.version(r)

	if f := all(r.fields, "sec-websocket-protocol"); len(f) > 0 {
		r.protocols = elements(f)
		for i, p := range r.protocols {
			what := ""
			switch {
			case p == "":
				what = "an element is empty"
			case !isToken(p):
				what = "an element is not a token"
			case slices.Contains(r.protocols[:i], p):
				what = p + " is offered twice"
			}
			if what != "" {
				j.say("HS-14", &f[0], 0, what)
				break
			}
		}
	}
	if f := all(r.fields, "sec-websocket-extensions"); len(f) > 0 {
		r.extensions, r.extensionOK = j.parseExtensions(f)
		for _, e := range r.extensions {
			if e.name == deflateName {
				for _, bad := range checkDeflate(e, false) {
					if bad.rule == "DF-06" {
						j.say("DF-06", &f[0], 0, bad.detail)
					}
				}
			}
		}
	} else {
		r.extensionOK = true
	}
	r.faults = slices.Clone(j.said)
	r.faults = slices.DeleteFunc(r.faults, func(id string) bool { return id == "DF-06" })

	// "The request MUST include a header field with the name |Origin| if the
	// request is coming from a browser client."
	if len(all(r.fields, "origin")) == 0 {
		for _, f := range r.fields {
			if strings.HasPrefix(f.name, "sec-fetch-") || f.name == "user-agent" && strings.HasPrefix(f.value, "Mozilla/") {
				j.say("HS-17", &f, 0, "only browsers send this header, and they send Origin with it")
				break
			}
		}
	}
	if n, err := base64.StdEncoding.DecodeString(r.key); err == nil && len(n) == 16 && in.opts.Set != nil && in.opts.Set.repeated([16]byte(n)) {
		f := all(r.fields, "sec-websocket-key")
		j.say("HS-11", &f[0], 0, "the key was used on an earlier connection; it has to be random")
	}
	in.request = r
	if in.opts.Only == capture.Client {
		// No response will say what was agreed on.
		if slices.ContainsFunc(r.extensions, func(e extension) bool { return e.name == deflateName }) {
			in.activate(extension{name: deflateName})
		}
		s.phase = inFrames
	}
}

// key judges Sec-WebSocket-Key: "a nonce consisting of a randomly selected
// 16-byte value that has been base64-encoded".
func (j *judge) key(r *request) {
	f := all(r.fields, "sec-websocket-key")
	if len(f) == 0 {
		j.say("HS-08", nil, 0, "there is no Sec-WebSocket-Key header")
		return
	}
	r.key = f[0].value
	if n, err := base64.StdEncoding.DecodeString(r.key); err != nil {
		j.say("HS-09", &f[0], 0, "the key is not base64")
	} else if len(n) != 16 {
		j.say("HS-09", &f[0], 0, "the key decodes to "+count(len(n), "byte")+", not 16")
	}
	if len(f) > 1 {
		j.say("HS-10", &f[1], 0, "a second Sec-WebSocket-Key header")
	}
}

// version judges Sec-WebSocket-Version: "the value of this header field MUST be 13".
func (j *judge) version(r *request) {
	f := all(r.fields, "sec-websocket-version")
	r.version = f
	switch {
	case len(f) == 0:
		j.say("HS-12", nil, 0, "there is no Sec-WebSocket-Version header")
	case f[0].value != "13":
		j.say("HS-12", &f[0], 0, fmt.Sprintf("the version is %.20q", f[0].value))
	}
	if len(f) > 1 {
		j.say("HS-13", &f[1], 0, "a second Sec-WebSocket-Version header")
	}
}

func first(f []field) *field {
	if len(f) == 0 {
		return nil
	}
	return &f[0]
}

func missing(name string, f []field, token string) string {
	if len(f) == 0 {
		return "there is no " + name + " header"
	}
	return "the " + name + " header does not name " + token
}

// isVersion reports whether s is HTTP/digit.digit.
func isVersion(s string) bool {
	return len(s) == 8 && s[:5] == "HTTP/" && s[5] >= '0' && s[5] <= '9' && s[6] == '.' && s[7] >= '0' && s[7] <= '9'
}

// responseCame judges the server's response, RFC 6455, 4.2.2 and 4.1. It
// reports whether another response has to follow.
func (s *stream) responseCame() (more bool) {
	in, h := s.in, &s.head
	lines := h.lines()
	size := int64(len(h.buf))
	h.buf, h.line, h.count, h.bare = h.buf[:0], 0, 0, 0
	in.opening.ResponseSize += size
	client, r := s.peer, in.request
	status, ok := statusOf(lines[0].text)
	switch {
	case !ok:
		in.noHTTP(s, "the response of the server is not HTTP")
		return false
	case status >= 100 && status < 200 && status != 101:
		return true // interim, such as 103
	}
	j := &judge{in: in, s: s, lines: lines}
	f, _ := fields(lines)
	in.opening.Status = status
	in.request = nil
	if status != 101 {
		j.refusal(r, f, status)
		in.emit(Event{Opening: &in.opening})
		in.noHTTP(s, "the server refused the upgrade with status "+strconv.Itoa(status))
		return false
	}
	if r != nil && len(r.faults) > 0 {
		j.say("HR-01", nil, 1, "the request broke "+strings.Join(r.faults, ", "))
	}
	j.response(r, f)
	s.phase = inFrames
	in.emit(Event{Opening: &in.opening})
	if client.phase == waiting {
		early := client.early
		client.early = nil
		client.phase = inFrames
		client.feed(early)
	}
	return false
}

// statusOf reads the status line.
func statusOf(l string) (int, bool) {
	if len(l) < 12 || !isVersion(l[:8]) || l[8] != ' ' || len(l) > 12 && l[12] != ' ' {
		return 0, false
	}
	n, err := strconv.Atoi(l[9:12])
	return n, err == nil && n >= 100
}

// refusal judges a response other than 101.
func (j *judge) refusal(r *request, f []field, status int) {
	if r == nil || status != 400 && status != 426 || len(r.version) == 0 || !slices.Equal(r.faults, []string{"HS-12"}) {
		return
	}
	// 4.2.2: "If this version does not match a version understood by the
	// server, the server MUST abort ... and instead send an appropriate HTTP
	// error code and a |Sec-WebSocket-Version| header field indicating the
	// version(s) the server is capable of understanding."
	if len(all(f, "sec-websocket-version")) == 0 {
		j.say("HR-11", nil, 1, "the request asked for another version and is not told which ones there are")
	}
}

// acceptGUID is the string of RFC 6455, 1.3.
const acceptGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

// response judges a 101 response.
func (j *judge) response(r *request, f []field) {
	in := j.in
	if u := all(f, "upgrade"); len(u) != 1 || !strings.EqualFold(u[0].value, "websocket") {
		j.say("HR-02", first(u), 0, missing("Upgrade", u, "websocket, and only that"))
	}
	if c := all(f, "connection"); !hasToken(c, "upgrade") {
		j.say("HR-03", first(c), 0, missing("Connection", c, "Upgrade"))
	}
	accept := all(f, "sec-websocket-accept")
	if r != nil && r.key != "" {
		sum := sha1.Sum([]byte(r.key + acceptGUID))
		want := base64.StdEncoding.EncodeToString(sum[:])
		switch {
		case len(accept) == 0:
			j.say("HR-04", nil, 0, "there is no Sec-WebSocket-Accept header")
		case !slices.ContainsFunc(accept, func(a field) bool { return a.value == want }):
			j.say("HR-04", &accept[0], 0, "the key asks for "+want)
		}
	}
	if len(accept) > 1 {
		j.say("HR-05", &accept[1], 0, "a second Sec-WebSocket-Accept header")
	}

	if e := all(f, "sec-websocket-extensions"); len(e) > 0 {
		if len(e) > 1 {
			j.say("HR-07", &e[1], 0, "a second Sec-WebSocket-Extensions header")
		}
		var values []string
		for _, x := range e {
			values = append(values, x.value)
		}
		in.opening.Extensions = strings.Join(values, ", ")
		j.negotiated(r, e)
	}

	p := all(f, "sec-websocket-protocol")
	switch {
	case len(p) == 0:
	case p[0].value == "":
		j.say("HR-10", &p[0], 0, "no subprotocol is chosen by leaving the header out")
	default:
		in.opening.Subprotocol = p[0].value
		if r != nil && !slices.Contains(r.protocols, p[0].value) {
			j.say("HR-08", &p[0], 0, "the client offered "+quoteList(r.protocols))
		}
	}
	if len(p) > 1 {
		j.say("HR-09", &p[1], 0, "a second Sec-WebSocket-Protocol header")
	}
}

func quoteList(s []string) string {
	if len(s) == 0 {
		return "none"
	}
	l := strings.Join(s, ", ")
	if len(l) > 200 {
		l = l[:200] + "…"
	}
	return l
}

// shownFields are the header fields whose values a finding may show. Others,
// such as Authorization and Cookie, may hold secrets.
const shownFields = " host upgrade connection origin sec-websocket-key sec-websocket-version sec-websocket-protocol" +
	" sec-websocket-extensions sec-websocket-accept sec-fetch-mode sec-fetch-site sec-fetch-dest user-agent "

// shown returns what a finding shows of a line of an HTTP head.
func shown(l string, first bool) string {
	const most = 160
	if first {
		if i := strings.IndexByte(l, '?'); i >= 0 {
			rest := ""
			if sp := strings.IndexByte(l[i:], ' '); sp >= 0 {
				rest = l[i+sp:]
			}
			l = l[:i] + "?…" + rest
		}
	} else if name, _, ok := strings.Cut(l, ":"); !ok || !strings.Contains(shownFields, " "+strings.ToLower(name)+" ") {
		l = name
		if ok {
			l += ": …"
		} else if len(l) > 16 {
			l = l[:16] + "…"
		}
	}
	if len(l) > most {
		l = l[:most] + "…"
	}
	return strings.ToValidUTF8(l, "\ufffd")
}
