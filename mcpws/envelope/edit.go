package envelope

import (
	"bytes"
	"encoding/json"
	"strconv"
	"unicode/utf8"
)

// An Edit replaces the bytes of a span.
type Edit struct {
	At   Span
	With []byte
}

// AppendEdited appends m.Raw to dst with the edits made. Edits whose span is
// absent are left out; the others must not overlap, and their order is free.
// At most four edits are made; more are a mistake of the caller and panic.
func AppendEdited(dst []byte, m *Message, edits ...Edit) []byte {
	var order [4]Edit
	n := 0
	for _, e := range edits {
		if !e.At.Present() {
			continue
		}
		i := n
		for i > 0 && order[i-1].At.Start > e.At.Start {
			order[i] = order[i-1]
			i--
		}
		order[i] = e
		n++
	}
	from := 0
	for _, e := range order[:n] {
		dst = append(dst, m.Raw[from:e.At.Start]...)
		dst = append(dst, e.With...)
		from = e.At.End
	}
	return append(dst, m.Raw[from:]...)
}

// OneLine makes one line of a valid JSON value, in place: a line feed or a
// carriage return can only stand between tokens, where a space means the same.
// The length does not change, so spans stay right.
func OneLine(value []byte) {
	for _, c := range []byte{'\n', '\r'} {
		for rest := value; ; {
			i := bytes.IndexByte(rest, c)
			if i < 0 {
				break
			}
			rest[i] = ' '
			rest = rest[i+1:]
		}
	}
}

// JSON-RPC error codes. The range -32020 to -32099 belongs to MCP.
const (
	CodeParse          = -32700
	CodeInvalidRequest = -32600
	CodeMethodNotFound = -32601
	CodeInvalidParams  = -32602
	CodeInternal       = -32603
	// CodeUnsupportedVersion answers a modern request in a protocol version
	// that the server does not speak (MCP 2026-07-28).
	CodeUnsupportedVersion = -32022
)

// An Era is which generation of MCP a peer speaks. It decides how an error
// without a readable id looks: MCP before 2026-07-28 inherits JSON-RPC's
// "id":null, 2026-07-28 leaves the member out.
type Era uint8

const (
	Legacy Era = iota // revisions with initialize, up to 2025-11-25
	Modern            // 2026-07-28: the version travels in each request
)

// AppendError appends a JSON-RPC error answer. The id is written as given; a
// nil id is left out for a modern peer and null for a legacy one. Text that is
// not UTF-8 is made so.
func AppendError(dst, id []byte, era Era, code int, message string) []byte {
	dst = append(dst, `{"jsonrpc":"2.0",`...)
	if id != nil {
		dst = append(append(append(dst, `"id":`...), id...), ',')
	} else if era == Legacy {
		dst = append(dst, `"id":null,`...)
	}
	dst = append(dst, `"error":{"code":`...)
	dst = strconv.AppendInt(dst, int64(code), 10)
	dst = append(dst, `,"message":`...)
	dst = AppendString(dst, message)
	return append(dst, "}}"...)
}

// AppendResult appends a JSON-RPC answer with a result that is JSON already.
func AppendResult(dst, id, result []byte) []byte {
	dst = append(append(dst, `{"jsonrpc":"2.0","id":`...), id...)
	dst = append(append(dst, `,"result":`...), result...)
	return append(dst, '}')
}

// AppendString appends s as a JSON string.
func AppendString(dst []byte, s string) []byte {
	plain := utf8.ValidString(s)
	for i := 0; plain && i < len(s); i++ {
		plain = s[i] >= 0x20 && s[i] != '"' && s[i] != '\\'
	}
	if plain {
		return append(append(append(dst, '"'), s...), '"')
	}
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string can always be marshalled
	}
	return append(dst, b...)
}
