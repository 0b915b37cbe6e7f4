package main

import (
	"bytes"
	"strconv"
	"strings"
)

const (
	// redacted stands in a trace where a credential was. It is a token, so that it
	// may stand wherever one stood.
	redacted = "redacted"
	// secretLenMin is the length in characters from which a value in a query, or a
	// part of the name of a subprotocol, counts as a credential.
	secretLenMin = 20
)

// secretWords are parts of the names of header fields and query parameters
// whose values are credentials.
var secretWords = [...]string{"auth", "cookie", "token", "secret", "pass", "key", "credential", "session", "ticket", "sig", "jwt", "code"}

// openFields are the fields that have such a part and hold none.
const openFields = " www-authenticate proxy-authenticate sec-websocket-key "

func isSecret(name string) bool {
	name = strings.ToLower(name)
	for _, w := range secretWords {
		if strings.Contains(name, w) {
			return !strings.Contains(openFields, " "+name+" ")
		}
	}
	return false
}

// redactHead returns an HTTP head, complete or not, without credentials: in
// header fields, in the query of its URL and in subprotocols. Everything that
// the rules of the handshake are about is left as it was.
func redactHead(head []byte) []byte {
	out := make([]byte, 0, len(head))
	first, field := true, ""
	for line := range bytes.Lines(head) {
		text := string(bytes.TrimRight(line, "\r\n"))
		end := string(line[len(text):])
		switch name, value, ok := strings.Cut(text, ":"); {
		case text == "":
		case first:
			first = false
			text = redactStart(text)
		case text[0] == ' ' || text[0] == '\t':
			// An obsolete way to go on with the field above.
			if isSecret(field) {
				text = " " + redacted
			}
		case ok:
			field = strings.TrimSpace(name)
			text = name + ":" + redactValue(field, value)
		default:
			field = "" // no field; it may be the beginning of one
			if isSecret(text) {
				text = redacted
			}
		}
		out = append(append(out, text...), end...)
	}
	return out
}

// redactStart redacts a request line. A status line has nothing to hide.
func redactStart(line string) string {
	parts := strings.Split(line, " ")
	if len(parts) < 2 || strings.HasPrefix(line, "HTTP/") {
		return line
	}
	for i := range parts {
		parts[i] = redactQuery(parts[i])
	}
	return strings.Join(parts, " ")
}

// redactQuery redacts the query of a URL.
func redactQuery(url string) string {
	path, query, ok := strings.Cut(url, "?")
	if !ok {
		return url
	}
	pairs := strings.Split(query, "&")
	for i, p := range pairs {
		name, value, ok := strings.Cut(p, "=")
		switch {
		case ok && value != "" && (isSecret(name) || len(value) >= secretLenMin):
			pairs[i] = name + "=" + redacted
		case !ok && len(name) >= secretLenMin:
			pairs[i] = redacted
		}
	}
	return path + "?" + strings.Join(pairs, "&")
}

// redactValue redacts the value of a header field.
func redactValue(name, value string) string {
	trimmed := strings.TrimLeft(value, " \t")
	space := value[:len(value)-len(trimmed)]
	switch {
	case strings.EqualFold(name, "Sec-WebSocket-Protocol"):
		return space + redactProtocols(trimmed)
	case strings.EqualFold(name, "Location"), strings.EqualFold(name, "Referer"):
		return space + redactQuery(trimmed)
	case trimmed == "" || !isSecret(name):
		return value
	case strings.HasSuffix(strings.ToLower(name), "authorization"):
		if scheme, _, ok := strings.Cut(trimmed, " "); ok && len(scheme) < secretLenMin {
			return space + scheme + " " + redacted
		}
	}
	return space + redacted
}

// redactProtocols redacts the subprotocols that browsers send credentials in,
// since they can set no header: mcp.auth.TOKEN, bearer followed by a token,
// mcp.resume.TOKEN.N and the like. Two that were different stay different.
func redactProtocols(list string) string {
	elements := strings.Split(list, ",")
	previous := ""
	seen := 0
	for i, e := range elements {
		name := strings.TrimSpace(e)
		parts := strings.Split(name, ".")
		for j, p := range parts {
			if len(p) < secretLenMin && !(j == 0 && strings.EqualFold(previous, "bearer")) && !(j > 0 && isSecret(parts[j-1])) {
				continue
			}
			to := strings.Join(append(parts[:j:j], redacted), ".")
			if seen++; seen > 1 {
				to += "-" + strconv.Itoa(seen)
			}
			elements[i] = strings.Replace(e, name, to, 1)
			break
		}
		previous = name
	}
	return strings.Join(elements, ",")
}
