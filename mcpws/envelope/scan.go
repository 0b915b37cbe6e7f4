// Package envelope reads the envelope of a JSON-RPC message, as the Model
// Context Protocol uses it, without decoding the message: which kind it is, its
// id, its method and the few members that a relay has to know or to change
// (progress token, cancelled request, subscription, protocol version).
//
// Everything else stays the bytes that it was. One pass, linear in the size of
// the message, validates the whole value; ids are carried byte for byte, so
// 9007199254740993, 1.0 and "\u0061" all come back as they were sent.
//
// The scanner is strict where JSON parsers differ from each other, because a
// difference between a relay and the server behind it is a hole in the relay's
// rules: names are compared exactly and after unescaping, a name given twice,
// a name that differs from a known one only in letter case and a name with a
// NUL in it are refused (RFC 8259 section 4 says that names SHOULD be unique).
package envelope

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"
)

// MaxDepth is how deep arrays and objects may be nested. Deeper messages are
// refused as unparsable, before they can exhaust a recursive parser behind us.
const MaxDepth = 1000

// A Kind says what sort of JSON-RPC message a value is.
type Kind uint8

const (
	Invalid      Kind = iota // JSON, but not a JSON-RPC message
	Request                  // method and id: wants an answer
	Notification             // method, no id
	Result                   // an answer with a result
	Error                    // an answer with an error; the id may be absent or null
	Batch                    // an array; see [Elements]
)

// String returns the name of the kind in lower case.
func (k Kind) String() string {
	switch k {
	case Request:
		return "request"
	case Notification:
		return "notification"
	case Result:
		return "result"
	case Error:
		return "error"
	case Batch:
		return "batch"
	}
	return "invalid"
}

// A Span is a range of bytes in Message.Raw. The zero Span means absent.
type Span struct{ Start, End int }

// Present reports whether the member was there.
func (s Span) Present() bool { return s.End > s.Start }

// A Message is one JSON value with what its envelope says. All spans and
// slices point into Raw or, for a name written with escapes, to a decoded copy.
type Message struct {
	Raw  []byte // exactly one JSON value, without space around it
	Kind Kind

	ID     Span   // id as written: a number or a string, quotes included
	Method []byte // method, unescaped; nil when absent

	Params Span // params, whatever it is
	Result Span
	Error  Span

	Token        Span   // params._meta.progressToken of a request
	Progress     Span   // params.progressToken of notifications/progress
	Cancelled    Span   // params.requestId of notifications/cancelled
	Subscription Span   // _meta["io.modelcontextprotocol/subscriptionId"] of params or result
	MetaVersion  Span   // params._meta["io.modelcontextprotocol/protocolVersion"]: a message of the 2026-07-28 era
	Version      Span   // protocolVersion of params or result: initialize
	Capabilities Span   // params.capabilities: initialize
	Name         Span   // params.name: the tool or prompt asked for
	URI          Span   // params.uri
	name         []byte // params.name, unescaped

	// Reason says why Kind is Invalid. It is fit for an error message.
	Reason string
}

// Bytes returns what a span covers.
func (m *Message) Bytes(s Span) []byte { return m.Raw[s.Start:s.End:s.End] }

// IDBytes returns the id as written, nil when there is none.
func (m *Message) IDBytes() []byte {
	if !m.ID.Present() {
		return nil
	}
	return m.Bytes(m.ID)
}

// Is reports whether the message has this method.
func (m *Message) Is(method string) bool { return string(m.Method) == method }

// ParamName returns params.name unescaped, "" when absent or not a string.
func (m *Message) ParamName() string { return string(m.name) }

// Modern reports whether a request carries its protocol version in _meta, as
// MCP 2026-07-28 wants it; such a peer needs no initialize.
func (m *Message) Modern() bool { return m.MetaVersion.Present() }

// Text returns the string that a span covers, unescaped; "" if it is not one.
func (m *Message) Text(s Span) string {
	b := m.Bytes(s)
	if len(b) < 2 || b[0] != '"' {
		return ""
	}
	return string(unescape(b[1 : len(b)-1]))
}

// A SyntaxError is text that is not JSON. JSON-RPC answers it with -32700.
type SyntaxError struct {
	Offset int // of the byte that cannot be, from the start of the text
	Reason string
}

// Error names the reason and the offset.
func (e *SyntaxError) Error() string {
	return fmt.Sprintf("not JSON at byte %d: %s", e.Offset, e.Reason)
}

// Parse reads b as exactly one JSON value, with white space around it allowed,
// and returns its envelope. The error is a *[SyntaxError]. A value that is JSON
// but no JSON-RPC message is no error: its Kind is Invalid and Reason says why.
// The result points into b.
func Parse(b []byte) (Message, error) {
	m, end, err := parseFirst(b)
	if err != nil {
		return Message{}, err
	}
	if i := skipSpace(b, end); i < len(b) {
		return Message{}, &SyntaxError{i, "text after the end of the value"}
	}
	return m, nil
}

// parseFirst reads the first value of b and returns the offset of its end.
func parseFirst(b []byte) (Message, int, error) {
	p := parser{b: b}
	p.i = skipSpace(b, 0)
	start := p.i
	p.base = start
	if p.i == len(b) {
		return Message{}, p.i, p.fail("no value")
	}
	var err error
	switch b[p.i] {
	case '{':
		err = p.object(levelTop)
		if err == nil {
			p.judge()
		}
	case '[':
		p.m.Kind = Batch
		err = p.value()
	default:
		p.m.Reason = "a JSON-RPC message is an object"
		err = p.value()
	}
	if err != nil {
		return Message{}, p.i, err
	}
	p.m.Raw = b[start:p.i:p.i]
	return p.m, p.i, nil
}

// Elements returns the members of a batch, each parsed. The error is non-nil
// if m is no batch, empty, or has more than limit members.
func Elements(m *Message, limit int) ([]Message, error) {
	if m.Kind != Batch {
		return nil, fmt.Errorf("not a batch")
	}
	var out []Message
	b := m.Raw[1 : len(m.Raw)-1]
	i := skipSpace(b, 0)
	if i == len(b) {
		return nil, fmt.Errorf("a batch must not be empty")
	}
	for {
		if len(out) == limit {
			return nil, fmt.Errorf("a batch of more than %d messages", limit)
		}
		e, end, err := parseFirst(b[i:])
		if err != nil {
			return nil, err
		}
		if e.Kind == Batch {
			e.Kind, e.Reason = Invalid, "a batch inside a batch"
		}
		out = append(out, e)
		i = skipSpace(b, i+end)
		if i == len(b) {
			return out, nil
		}
		i = skipSpace(b, i+1) // the comma: m is known to be valid JSON
	}
}

type level uint8

const (
	levelTop level = iota
	levelParams
	levelResult
	levelParamsMeta
	levelResultMeta
)

// Names that the scanner knows, per level. A name of this list may stand only
// once, and no other name may differ from it in letter case alone.
var known = [...][]string{
	levelTop:        {"jsonrpc", "id", "method", "params", "result", "error"},
	levelParams:     {"_meta", "progressToken", "requestId", "protocolVersion", "capabilities", "name", "uri"},
	levelResult:     {"_meta", "protocolVersion"},
	levelParamsMeta: {"progressToken", metaSubscription, metaVersion},
	levelResultMeta: {metaSubscription},
}

const (
	metaSubscription = "io.modelcontextprotocol/subscriptionId"
	metaVersion      = "io.modelcontextprotocol/protocolVersion"
)

type parser struct {
	b     []byte
	i     int
	base  int // where the value starts; spans are relative to it
	depth int
	m     Message

	version   bool // "jsonrpc":"2.0" seen
	badMethod bool
}

func (p *parser) fail(reason string) error { return &SyntaxError{p.i, reason} }

// invalid keeps the first reason why the message is no JSON-RPC message. The
// scan goes on: where the value ends must be known all the same.
func (p *parser) invalid(format string, args ...any) {
	if p.m.Reason == "" {
		p.m.Reason = fmt.Sprintf(format, args...)
	}
}

// judge decides what the top-level members amount to.
func (p *parser) judge() {
	m := &p.m
	switch {
	case m.Reason != "":
	case !p.version:
		m.Reason = `"jsonrpc" must be "2.0"`
	case m.Method != nil && (m.Result.Present() || m.Error.Present()):
		m.Reason = "a message has either a method or a result or an error"
	case m.Result.Present() && m.Error.Present():
		m.Reason = "an answer has either a result or an error"
	case m.Method != nil && m.ID.Present():
		m.Kind = Request
	case m.Method != nil:
		m.Kind = Notification
	case m.Result.Present() && m.ID.Present():
		m.Kind = Result
	case m.Error.Present():
		m.Kind = Error
	case m.Result.Present():
		m.Reason = "a result needs an id"
	default:
		m.Reason = "neither method nor result nor error"
	}
}

// object reads an object whose members the envelope may need.
func (p *parser) object(at level) error {
	if err := p.enter(); err != nil {
		return err
	}
	p.i++ // {
	var seen uint
	for first := true; ; first = false {
		p.i = skipSpace(p.b, p.i)
		if p.i == len(p.b) {
			return p.fail("the text ends inside an object")
		}
		if p.b[p.i] == '}' && first {
			break
		}
		if !first {
			if p.b[p.i] == '}' {
				break
			}
			if p.b[p.i] != ',' {
				return p.fail("a comma or a closing brace must stand here")
			}
			p.i = skipSpace(p.b, p.i+1)
		}
		key, err := p.key()
		if err != nil {
			return err
		}
		which := -1
		for n, name := range known[at] {
			if string(key) == name {
				which = n
				if seen&(1<<n) != 0 {
					p.invalid("%q stands twice", name)
				}
				seen |= 1 << n
				break
			}
		}
		if which < 0 {
			p.unknown(at, key)
			if err := p.value(); err != nil {
				return err
			}
			continue
		}
		if err := p.member(at, known[at][which]); err != nil {
			return err
		}
	}
	p.i++ // }
	p.depth--
	return nil
}

// unknown refuses names that some parser could take for a known one.
func (p *parser) unknown(at level, key []byte) {
	if bytes.IndexByte(key, 0) >= 0 {
		p.invalid("a name with a NUL in it")
		return
	}
	for _, name := range known[at] {
		// EqualFold also folds K to the Kelvin sign and s to the long s, as
		// case-insensitive JSON decoders do.
		if bytes.EqualFold(key, []byte(name)) {
			p.invalid("a name that differs from %q only in letter case", name)
			return
		}
	}
}

// member reads the value of a known name.
func (p *parser) member(at level, name string) error {
	c := byte(0)
	if p.i < len(p.b) {
		c = p.b[p.i]
	}
	start := p.i
	// Objects that hold members of the envelope are entered; all else is
	// skipped as a whole.
	var err error
	switch {
	case c == '{' && at == levelTop && name == "params":
		err = p.object(levelParams)
	case c == '{' && at == levelTop && name == "result":
		err = p.object(levelResult)
	case c == '{' && at == levelParams && name == "_meta":
		err = p.object(levelParamsMeta)
	case c == '{' && at == levelResult && name == "_meta":
		err = p.object(levelResultMeta)
	default:
		err = p.value()
	}
	if err != nil {
		return err
	}
	s := Span{start - p.base, p.i - p.base}
	raw := p.b[start:p.i]
	scalar := c == '"' || c == '-' || c >= '0' && c <= '9'
	m := &p.m
	switch at {
	case levelTop:
		switch name {
		case "jsonrpc":
			p.version = string(raw) == `"2.0"`
		case "id":
			switch {
			case scalar:
				m.ID = s
			case c == 'n':
				// An answer to something unreadable has a null id; a request
				// must not (MCP, "Requests").
				if m.Method != nil || p.badMethod {
					p.invalid("a request id must not be null")
				}
				p.nullID()
			default:
				p.invalid("an id is a string or a number")
			}
		case "method":
			if c != '"' {
				p.badMethod = true
				p.invalid("a method is a string")
				break
			}
			m.Method = unescape(raw[1 : len(raw)-1])
			if m.Method == nil {
				m.Method = []byte{}
			}
			if p.hasNullID() {
				p.invalid("a request id must not be null")
			}
		case "params":
			m.Params = s
			if c != '{' && c != '[' && c != 'n' {
				p.invalid("params is an object")
			}
		case "result":
			m.Result = s
		case "error":
			if c == 'n' {
				break // some libraries write "error":null beside a result
			}
			m.Error = s
			if c != '{' {
				p.invalid("an error is an object")
			}
		}
	case levelParams:
		switch name {
		case "progressToken":
			if scalar {
				m.Progress = s
			}
		case "requestId":
			if scalar {
				m.Cancelled = s
			}
		case "protocolVersion":
			m.Version = s
		case "capabilities":
			m.Capabilities = s
		case "name":
			m.Name = s
			if c == '"' {
				m.name = unescape(raw[1 : len(raw)-1])
			}
		case "uri":
			m.URI = s
		}
	case levelResult:
		if name == "protocolVersion" {
			m.Version = s
		}
	case levelParamsMeta:
		switch name {
		case "progressToken":
			if scalar {
				m.Token = s
			}
		case metaSubscription:
			if scalar {
				m.Subscription = s
			}
		case metaVersion:
			m.MetaVersion = s
		}
	case levelResultMeta:
		if scalar {
			m.Subscription = s
		}
	}
	return nil
}

// A null id is remembered as the impossible span {-1, -1}: not Present, and
// not the zero Span either.
func (p *parser) nullID()         { p.m.ID = Span{-1, -1} }
func (p *parser) hasNullID() bool { return p.m.ID == Span{-1, -1} }

func (p *parser) enter() error {
	p.depth++
	if p.depth > MaxDepth {
		return p.fail(fmt.Sprintf("nested deeper than %d", MaxDepth))
	}
	return nil
}

// key reads a name and its colon and stops at the value.
func (p *parser) key() ([]byte, error) {
	if p.i == len(p.b) || p.b[p.i] != '"' {
		return nil, p.fail("a name in quotes must stand here")
	}
	start := p.i + 1
	if err := p.str(); err != nil {
		return nil, err
	}
	key := unescape(p.b[start : p.i-1])
	p.i = skipSpace(p.b, p.i)
	if p.i == len(p.b) || p.b[p.i] != ':' {
		return nil, p.fail("a colon must stand here")
	}
	p.i = skipSpace(p.b, p.i+1)
	return key, nil
}

// value validates and skips any value.
func (p *parser) value() error {
	if p.i == len(p.b) {
		return p.fail("the text ends where a value must stand")
	}
	switch c := p.b[p.i]; {
	case c == '"':
		return p.str()
	case c == '{' || c == '[':
		return p.container(c)
	case c == '-' || c >= '0' && c <= '9':
		return p.number()
	case c == 't':
		return p.literal("true")
	case c == 'f':
		return p.literal("false")
	case c == 'n':
		return p.literal("null")
	}
	return p.fail("no value begins like this")
}

func (p *parser) container(open byte) error {
	if err := p.enter(); err != nil {
		return err
	}
	end, where := byte(']'), "the text ends inside an array"
	if open == '{' {
		end, where = '}', "the text ends inside an object"
	}
	p.i = skipSpace(p.b, p.i+1)
	for first := true; ; first = false {
		if p.i == len(p.b) {
			return p.fail(where)
		}
		if p.b[p.i] == end {
			break
		}
		if !first {
			if p.b[p.i] != ',' {
				return p.fail("a comma or the end of the " + map[byte]string{'{': "object", '[': "array"}[open] + " must stand here")
			}
			p.i = skipSpace(p.b, p.i+1)
		}
		if open == '{' {
			if p.i == len(p.b) || p.b[p.i] != '"' {
				return p.fail("a name in quotes must stand here")
			}
			if err := p.str(); err != nil {
				return err
			}
			p.i = skipSpace(p.b, p.i)
			if p.i == len(p.b) || p.b[p.i] != ':' {
				return p.fail("a colon must stand here")
			}
			p.i = skipSpace(p.b, p.i+1)
		}
		if err := p.value(); err != nil {
			return err
		}
		p.i = skipSpace(p.b, p.i)
	}
	p.i++
	p.depth--
	return nil
}

func (p *parser) literal(want string) error {
	if len(p.b)-p.i < len(want) || string(p.b[p.i:p.i+len(want)]) != want {
		return p.fail("no value begins like this")
	}
	p.i += len(want)
	return nil
}

// number follows the grammar of RFC 8259 section 6.
func (p *parser) number() error {
	b, i := p.b, p.i
	digits := func() bool {
		from := i
		for i < len(b) && b[i] >= '0' && b[i] <= '9' {
			i++
		}
		return i > from
	}
	if b[i] == '-' {
		i++
	}
	if i < len(b) && b[i] == '0' {
		i++
	} else if !digits() {
		p.i = i
		return p.fail("a digit must stand here")
	}
	if i < len(b) && b[i] == '.' {
		i++
		if !digits() {
			p.i = i
			return p.fail("a digit must stand here")
		}
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		if !digits() {
			p.i = i
			return p.fail("a digit must stand here")
		}
	}
	p.i = i
	return nil
}

// str validates and skips a string. Whether it is UTF-8 is checked elsewhere:
// once per message, by the WebSocket engine or on the whole line of a child.
func (p *parser) str() error {
	b, i := p.b, p.i+1
	for {
		// Eight bytes at a time while nothing special is among them: most of
		// a large message is one long string.
		for i+8 <= len(b) {
			v := binary.LittleEndian.Uint64(b[i:])
			s := special(v)
			if s != 0 {
				i += bits.TrailingZeros64(s) / 8
				break
			}
			i += 8
		}
		if i >= len(b) {
			p.i = len(b)
			return p.fail("the text ends inside a string")
		}
		switch c := b[i]; {
		case c == '"':
			p.i = i + 1
			return nil
		case c == '\\':
			n := escapeLen(b[i:])
			if n == 0 {
				p.i = i
				return p.fail("not an escape that JSON knows")
			}
			i += n
		case c < 0x20:
			p.i = i
			return p.fail("a control character inside a string must be escaped")
		default:
			i++
		}
	}
}

const ones, highs = 0x0101010101010101, 0x8080808080808080

// special marks, with the high bit of each byte, a quote, a backslash or a
// control character. The lowest mark is exact; marks above it may be false.
func special(v uint64) uint64 {
	quote := v ^ ones*'"'
	slash := v ^ ones*'\\'
	return ((quote-ones)&^quote | (slash-ones)&^slash | (v-ones*0x20)&^v) & highs
}

// escapeLen is the length of the escape sequence that b begins with, 0 if it
// is none.
func escapeLen(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if len(b) < 6 {
			return 0
		}
		for _, c := range b[2:6] {
			if hexVal(c) < 0 {
				return 0
			}
		}
		return 6
	}
	return 0
}

func hexVal(c byte) rune {
	switch {
	case c >= '0' && c <= '9':
		return rune(c - '0')
	case c >= 'a' && c <= 'f':
		return rune(c - 'a' + 10)
	case c >= 'A' && c <= 'F':
		return rune(c - 'A' + 10)
	}
	return -1
}

// unescape decodes the inside of a valid JSON string. Without escapes it
// returns s itself.
func unescape(s []byte) []byte {
	i := bytes.IndexByte(s, '\\')
	if i < 0 {
		return s
	}
	out := append(make([]byte, 0, len(s)), s[:i]...)
	hex4 := func(at int) rune {
		return hexVal(s[at])<<12 | hexVal(s[at+1])<<8 | hexVal(s[at+2])<<4 | hexVal(s[at+3])
	}
	for i < len(s) {
		if s[i] != '\\' {
			out = append(out, s[i])
			i++
			continue
		}
		switch c := s[i+1]; c {
		case 'u':
			r := hex4(i + 2)
			i += 6
			if utf16.IsSurrogate(r) {
				low := rune(-1)
				if i+6 <= len(s) && s[i] == '\\' && s[i+1] == 'u' {
					low = hex4(i + 2)
				}
				if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
					i += 6
					r = pair
				} else {
					r = utf8.RuneError
				}
			}
			out = utf8.AppendRune(out, r)
		case 'b':
			out, i = append(out, '\b'), i+2
		case 'f':
			out, i = append(out, '\f'), i+2
		case 'n':
			out, i = append(out, '\n'), i+2
		case 'r':
			out, i = append(out, '\r'), i+2
		case 't':
			out, i = append(out, '\t'), i+2
		default: // " \ /
			out, i = append(out, c), i+2
		}
	}
	return out
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\r' || b[i] == '\t') {
		i++
	}
	return i
}
