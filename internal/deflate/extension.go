package deflate

import (
	"fmt"
	"strings"
)

// An Extension is one element of a Sec-WebSocket-Extensions header: an offer of
// the client or an acceptance by the server.
type Extension struct {
	Name   string
	Params []Param // in the order of the header, repetitions included
}

// A Param is one parameter of an Extension.
type Param struct {
	Name     string
	Value    string // quotes and backslashes taken off
	HasValue bool   // "name=value" rather than "name"
}

// ParseExtensions parses all lines of a Sec-WebSocket-Extensions header, in
// their order, as one list (RFC 6455, 9.1: splitting the list over several lines
// means the same as joining it). No line at all is no extension. The time is
// linear in the length of the input. The error is an *Error with rule HS-15.
func ParseExtensions(values []string) ([]Extension, error) {
	var list []Extension
	for i, v := range values {
		p := extensionParser{s: v, line: i + 1}
		var err error
		if list, err = p.list(list); err != nil {
			return nil, err
		}
	}
	// RFC 6455, 9.1: "extension-list = 1#extension". Empty elements may stand in
	// the list but do not count.
	if len(values) > 0 && len(list) == 0 {
		return nil, handshakeError("HS-15", "Sec-WebSocket-Extensions is there but names no extension")
	}
	return list, nil
}

// extensionParser walks one header line from left to right and never goes back.
type extensionParser struct {
	s    string
	i    int
	line int
}

func (p *extensionParser) list(list []Extension) ([]Extension, error) {
	for {
		p.space()
		switch {
		case p.i == len(p.s):
			return list, nil
		case p.s[p.i] == ',':
			p.i++ // an empty element, RFC 2616, 2.1
			continue
		}
		e, err := p.extension()
		if err != nil {
			return nil, err
		}
		list = append(list, e)
		if p.i < len(p.s) && p.s[p.i] != ',' {
			return nil, p.want(`"," or ";"`)
		}
	}
}

// extension = extension-token *( ";" extension-param )
func (p *extensionParser) extension() (e Extension, err error) {
	if e.Name = p.token(); e.Name == "" {
		return e, p.want("the name of an extension")
	}
	for p.space(); p.i < len(p.s) && p.s[p.i] == ';'; p.space() {
		p.i++
		p.space()
		param, err := p.param()
		if err != nil {
			return e, err
		}
		e.Params = append(e.Params, param)
	}
	return e, nil
}

// extension-param = token [ "=" (token | quoted-string) ]
func (p *extensionParser) param() (a Param, err error) {
	if a.Name = p.token(); a.Name == "" {
		return a, p.want("the name of a parameter")
	}
	p.space()
	if p.i == len(p.s) || p.s[p.i] != '=' {
		return a, nil
	}
	p.i++
	p.space()
	a.HasValue = true
	if p.i < len(p.s) && p.s[p.i] == '"' {
		a.Value, err = p.quoted()
		return a, err
	}
	if a.Value = p.token(); a.Value == "" {
		return a, p.want("the value of parameter " + clip(a.Name))
	}
	return a, nil
}

// quoted reads a quoted-string. RFC 6455, 9.1: "When using the quoted-string
// syntax variant, the value after quoted-string unescaping MUST conform to the
// 'token' ABNF." So each character can be judged as it is met.
func (p *extensionParser) quoted() (string, error) {
	p.i++ // the opening quote
	var b strings.Builder
	for p.i < len(p.s) {
		c := p.s[p.i]
		if c == '"' {
			if b.Len() == 0 {
				return "", p.want("a token between the quotes")
			}
			p.i++
			return b.String(), nil
		}
		if c == '\\' && p.i+1 < len(p.s) {
			p.i++
			c = p.s[p.i]
		}
		if !isTokenByte(c) {
			return "", p.want("a character of a token inside the quotes")
		}
		b.WriteByte(c)
		p.i++
	}
	return "", p.want("a closing quote")
}

func (p *extensionParser) token() string {
	start := p.i
	for p.i < len(p.s) && isTokenByte(p.s[p.i]) {
		p.i++
	}
	return p.s[start:p.i]
}

func (p *extensionParser) space() {
	for p.i < len(p.s) && (p.s[p.i] == ' ' || p.s[p.i] == '\t') {
		p.i++
	}
}

func (p *extensionParser) want(what string) error {
	seen := "the end"
	if p.i < len(p.s) {
		seen = fmt.Sprintf("%q", p.s[p.i])
	}
	return handshakeError("HS-15", fmt.Sprintf("Sec-WebSocket-Extensions line %d, byte %d: want %s, found %s",
		p.line, p.i, what, seen))
}

// isTokenByte reports whether c may stand in a token (RFC 2616, 2.2: any CHAR
// except CTLs or separators).
func isTokenByte(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// clip keeps what a peer wrote short enough for an error message.
func clip(s string) string {
	if len(s) > 40 {
		return fmt.Sprintf("%q...", s[:40])
	}
	return fmt.Sprintf("%q", s)
}

func handshakeError(ruleID, detail string) *Error {
	return &Error{RuleID: ruleID, Offset: -1, Detail: detail}
}
