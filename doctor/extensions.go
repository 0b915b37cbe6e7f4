package doctor

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/weft-ws/weft/capture"
)

// deflateName is the one registered extension.
const deflateName = "permessage-deflate"

// An extension is an element of a Sec-WebSocket-Extensions list.
type extension struct {
	name   string
	params []param
}

type param struct {
	name, value string
	hasValue    bool
}

// parseExtensionList reads a list by the grammar of RFC 6455, 9.1, with white
// space between any two words and empty list elements, as the ABNF of RFC 2616
// on which it builds allows. bad says what is wrong, "" if nothing is.
//
//	extension-list = 1#extension
//	extension = extension-token *( ";" extension-param )
//	extension-param = token [ "=" (token | quoted-string) ]
func parseExtensionList(s string) (out []extension, bad string) {
	p := listParser{rest: s}
	for {
		p.space()
		for p.eat(',') {
			p.space()
		}
		if p.rest == "" {
			if len(out) == 0 {
				return nil, "the list is empty"
			}
			return out, ""
		}
		e := extension{name: p.token()}
		if e.name == "" {
			return nil, p.expected("the name of an extension")
		}
		for p.space(); p.eat(';'); p.space() {
			p.space()
			q := param{name: p.token()}
			if q.name == "" {
				return nil, p.expected("the name of a parameter")
			}
			p.space()
			if p.eat('=') {
				p.space()
				q.hasValue = true
				// "When using the quoted-string syntax variant, the value after
				// quoted-string unescaping MUST conform to the 'token' ABNF."
				if q.value = p.quotedOrToken(); !isToken(q.value) {
					return nil, p.expected("the value of " + q.name + ", a token,")
				}
			}
			e.params = append(e.params, q)
		}
		out = append(out, e)
		if p.rest != "" && p.rest[0] != ',' {
			return nil, p.expected("a comma or a semicolon")
		}
	}
}

type listParser struct{ rest string }

func (p *listParser) space() { p.rest = strings.TrimLeft(p.rest, " \t") }

func (p *listParser) eat(c byte) bool {
	if p.rest == "" || p.rest[0] != c {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

func (p *listParser) token() string {
	n := 0
	for n < len(p.rest) && isToken(p.rest[n:n+1]) {
		n++
	}
	t := p.rest[:n]
	p.rest = p.rest[n:]
	return t
}

func (p *listParser) quotedOrToken() string {
	if !p.eat('"') {
		return p.token()
	}
	var b strings.Builder
	for i := 0; i < len(p.rest); i++ {
		switch c := p.rest[i]; {
		case c == '"':
			p.rest = p.rest[i+1:]
			return b.String()
		case c == '\\' && i+1 < len(p.rest):
			i++
			b.WriteByte(p.rest[i])
		default:
			b.WriteByte(c)
		}
	}
	p.rest = ""
	return ""
}

func (p *listParser) expected(what string) string {
	if p.rest == "" {
		return what + " is missing at the end"
	}
	return fmt.Sprintf("%s is missing before %.20q", what, p.rest)
}

// parseExtensions parses a header and reports a malformed one.
func (j *judge) parseExtensions(f []field) ([]extension, bool) {
	var list []string
	for _, x := range f {
		list = append(list, x.value)
	}
	// RFC 6455, 9.1: several headers are the same as one with all values.
	out, bad := parseExtensionList(strings.Join(list, ", "))
	if bad != "" {
		j.say("HS-15", &f[0], 0, bad)
		return nil, false
	}
	return out, true
}

// A deflateFault is what is wrong with parameters of permessage-deflate.
type deflateFault struct{ rule, detail string }

// checkDeflate judges the parameters of one offer or response by themselves,
// RFC 7692, 7.1. Rules DF-04 and DF-05 are the client's for a response; the
// same faults in an offer make it one that a server has to decline.
func checkDeflate(e extension, response bool) (out []deflateFault) {
	seen := map[string]bool{}
	for _, p := range e.params {
		if seen[p.name] {
			out = append(out, deflateFault{"DF-05", p.name + " is given twice"})
			continue
		}
		seen[p.name] = true
		switch p.name {
		case "server_no_context_takeover", "client_no_context_takeover":
			if p.hasValue {
				out = append(out, deflateFault{"DF-06", p.name + " takes no value"})
			}
		case "server_max_window_bits", "client_max_window_bits":
			if p.name == "client_max_window_bits" && !response && !p.hasValue {
				break // 7.1.2.2: the value may be left out in an offer
			}
			if windowBits(p.value) == 0 {
				out = append(out, deflateFault{"DF-06", fmt.Sprintf("%s=%.12s is not a decimal from 8 to 15", p.name, p.value)})
			}
		default:
			out = append(out, deflateFault{"DF-04", fmt.Sprintf("%.40s is no parameter of %s", p.name, deflateName)})
		}
	}
	return out
}

// windowBits reads a window size: "a decimal integer value without leading zeroes
// between 8 to 15, inclusive" (7.1.2.1). It returns 0 for anything else.
func windowBits(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil || n < 8 || n > 15 || s != strconv.Itoa(n) {
		return 0
	}
	return n
}

// get returns the first parameter of a name.
func (e extension) get(name string) (p param, ok bool) {
	i := slices.IndexFunc(e.params, func(p param) bool { return p.name == name })
	if i < 0 {
		return p, false
	}
	return e.params[i], true
}

// An agreement is what permessage-deflate was negotiated to.
type agreement struct {
	client, server deflateSide // what each side sends
}

type deflateSide struct {
	windowBits int
	takeover   bool
}

func (a agreement) of(side capture.Side) deflateSide {
	if side == capture.Client {
		return a.client
	}
	return a.server
}

// agreementOf reads the parameters of a response.
func agreementOf(e extension) agreement {
	side := func(who string) deflateSide {
		d := deflateSide{windowBits: 15, takeover: true}
		if p, ok := e.get(who + "_max_window_bits"); ok && windowBits(p.value) > 0 {
			d.windowBits = windowBits(p.value)
		}
		if _, ok := e.get(who + "_no_context_takeover"); ok {
			d.takeover = false
		}
		return d
	}
	return agreement{side("client"), side("server")}
}

// agree takes the extensions from Options.
func (in *Inspector) agree(value string) {
	if value == "" {
		return
	}
	list, bad := parseExtensionList(value)
	in.opening.Extensions = value
	in.foreign = bad != ""
	for _, e := range list {
		in.activate(e)
	}
}

func (in *Inspector) activate(e extension) {
	if e.name != deflateName {
		in.foreign = true
		return
	}
	in.deflate = true
	in.opening.deflate = agreementOf(e)
}

// negotiated judges the extensions of a 101 response against what was offered.
func (j *judge) negotiated(r *request, f []field) {
	in := j.in
	list, ok := j.parseExtensions(f)
	if !ok {
		in.foreign = true // whatever they are
		return
	}
	for i, e := range list {
		offered := r == nil || !r.extensionOK || slices.ContainsFunc(r.extensions, func(o extension) bool { return o.name == e.name })
		twice := slices.ContainsFunc(list[:i], func(o extension) bool { return o.name == e.name })
		switch {
		case !offered:
			// RFC 6455, 4.1: a client that is answered with "an extension that was
			// not present in the client's handshake" fails the connection.
			j.say("HR-06", &f[0], 0, fmt.Sprintf("the client did not offer %.40s", e.name))
		case twice:
			j.say("HR-06", &f[0], 0, fmt.Sprintf("%.40s is activated twice", e.name))
			continue
		}
		if e.name == deflateName {
			j.deflate(r, e, &f[0], offered)
		}
		in.activate(e)
	}
}

// deflate judges an accepted permessage-deflate, RFC 7692, 7.1.
func (j *judge) deflate(r *request, e extension, f *field, offered bool) {
	bad := checkDeflate(e, true)
	for _, b := range bad {
		j.say(b.rule, f, 0, b.detail)
	}
	if r == nil || !r.extensionOK || !offered || len(bad) > 0 {
		return
	}
	// The response answers one of the offers; it is in order if it fits any.
	var best []deflateFault
	declined, valid := "", false
	for _, o := range r.extensions {
		if o.name != deflateName {
			continue
		}
		if b := checkDeflate(o, false); len(b) > 0 {
			declined = b[0].detail
			continue
		}
		if m := mismatch(o, e); !valid || len(m) < len(best) {
			best = m
		}
		valid = true
	}
	if !valid {
		// "A server MUST decline an extension negotiation offer for this
		// extension if" a parameter is not defined, given twice or invalid.
		j.say("DF-03", f, 0, "every offer had to be declined: "+declined)
		return
	}
	for _, b := range best {
		j.say(b.rule, f, 0, b.detail)
	}
}

// mismatch lists how a response fails to fit a valid offer.
func mismatch(offer, response extension) (out []deflateFault) {
	// 7.1.2.2: if the offer does not have the parameter, the response "MUST NOT
	// include" it. A value in the offer is a bound for that in the response.
	if got, ok := response.get("client_max_window_bits"); ok {
		want, offered := offer.get("client_max_window_bits")
		if !offered {
			out = append(out, deflateFault{"DF-07", "the offer has no client_max_window_bits"})
		} else if want.hasValue && windowBits(got.value) > windowBits(want.value) {
			out = append(out, deflateFault{"DF-07", "client_max_window_bits=" + got.value + " is more than the " + want.value + " offered"})
		}
	}
	// 7.1.2.1: a server accepts an offer with server_max_window_bits by including
	// it in the response "with the same or smaller value as the offer".
	if want, ok := offer.get("server_max_window_bits"); ok {
		if got, ok := response.get("server_max_window_bits"); !ok {
			out = append(out, deflateFault{"DF-08", "the offer asked for server_max_window_bits=" + want.value + ", the response has none"})
		} else if windowBits(got.value) > windowBits(want.value) {
			out = append(out, deflateFault{"DF-08", "server_max_window_bits=" + got.value + " is more than the " + want.value + " asked for"})
		}
	}
	// 7.1.1.1: a server accepts server_no_context_takeover by including it.
	if _, ok := offer.get("server_no_context_takeover"); ok {
		if _, ok := response.get("server_no_context_takeover"); !ok {
			out = append(out, deflateFault{"DF-09", "the offer asked for server_no_context_takeover, the response has none"})
		}
	}
	return out
}
