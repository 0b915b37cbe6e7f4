package probe

import (
	"fmt"
	"net/http"
	"strings"
)

// A probeCase is one question.
type probeCase struct {
	id, name, want, why, fix string
	applies                  func(*probing) bool
	run                      func(*probing) (got string, ok bool)
}

// closes makes a case that sends something after the handshake and wants a
// Close with one of the codes.
func closes(send func(*rawConn) error, codes ...int) func(*probing) (string, bool) {
	return func(p *probing) (string, bool) {
		c, err := p.open()
		if err != nil {
			return err.Error(), false
		}
		defer c.close()
		if err := send(c); err != nil {
			return err.Error(), false
		}
		c.slow = false
		got := c.end()
		for _, code := range codes {
			if strings.HasPrefix(got, fmt.Sprintf("<close %d ", code)) {
				return got, true
			}
		}
		return got, false
	}
}

// talks makes a case within an initialised session.
func talks(run func(*rawConn) (string, bool)) func(*probing) (string, bool) {
	return func(p *probing) (string, bool) {
		c, err := p.session("2025-11-25")
		if err != nil {
			return err.Error(), false
		}
		defer c.close()
		return run(c)
	}
}

// refused makes a case in which a message is answered with an error of this
// code and the session goes on.
func refused(msg string, code int) func(*probing) (string, bool) {
	return talks(func(c *rawConn) (string, bool) {
		if err := c.text(msg); err != nil {
			return err.Error(), false
		}
		got := c.rpcError()
		if string(member(got, "error", "code")) != fmt.Sprint(code) {
			return short(got), false
		}
		if !c.alive() {
			return short(got) + ", then the session was dead", false
		}
		return short(got), true
	})
}

// echoes makes a case in which ping has to come back with this very id.
func echoes(id string) func(*probing) (string, bool) {
	return talks(func(c *rawConn) (string, bool) {
		if err := c.text(`{"jsonrpc":"2.0","id":` + id + `,"method":"ping"}`); err != nil {
			return err.Error(), false
		}
		got := c.reply()
		_, as := kind(got)
		return short(got), as == id
	})
}

// ignored makes a case in which a message is not answered and the session goes
// on.
func ignored(msg string) func(*probing) (string, bool) {
	return talks(func(c *rawConn) (string, bool) {
		if err := c.text(msg); err != nil {
			return err.Error(), false
		}
		if err := c.text(`{"jsonrpc":"2.0","id":90003,"method":"ping"}`); err != nil {
			return err.Error(), false
		}
		got := c.reply()
		_, id := kind(got)
		return short(got), id == "90003"
	})
}

func status(change map[string]string, wanted ...int) func(*probing) (string, bool) {
	return func(p *probing) (string, bool) {
		c, resp, err := p.handshake(change, "mcp")
		if err != nil {
			return err.Error(), false
		}
		if c != nil {
			c.close()
			return "101, a connection", false
		}
		for _, w := range wanted {
			if resp.StatusCode == w {
				return resp.Status, true
			}
		}
		return resp.Status, false
	}
}

func selects(want string, offer ...string) func(*probing) (string, bool) {
	return func(p *probing) (string, bool) {
		c, resp, err := p.handshake(nil, offer...)
		if err != nil {
			return err.Error(), false
		}
		if c == nil {
			return "HTTP " + resp.Status, false
		}
		c.close()
		got := strings.Join(resp.Header.Values("Sec-WebSocket-Protocol"), ", ")
		if got == "" {
			return "no subprotocol", want == ""
		}
		return "subprotocol " + got, got == want
	}
}

func sends(parts ...func(*rawConn) error) func(*rawConn) error {
	return func(c *rawConn) error {
		for _, f := range parts {
			if err := f(c); err != nil {
				return err
			}
		}
		return nil
	}
}

func frame(b0 byte, payload string) func(*rawConn) error {
	return func(c *rawConn) error { return c.frame(b0, []byte(payload)) }
}

func raw(b ...byte) func(*rawConn) error { return func(c *rawConn) error { return c.raw(b) } }

const pingMsg = `{"jsonrpc":"2.0","id":90002,"method":"ping"}`

func cases() []probeCase {
	hasToken := func(p *probing) bool { return p.o.Token != "" }
	loopback := func(p *probing) bool {
		h := p.u.Hostname()
		return h == "localhost" || strings.HasPrefix(h, "127.") || h == "::1"
	}
	return []probeCase{
		{id: "H1", name: "subprotocol mcp is offered", want: "subprotocol mcp",
			why: "browsers and Node's ws fail the connection when what they offered is not selected", fix: "select mcp when it is offered",
			run: selects("mcp", "mcp")},
		{id: "H2", name: "mcp is offered among others", want: "subprotocol mcp",
			why: "clients offer credentials or versions beside it", fix: "look for mcp in the whole list",
			run: selects("mcp", "x-unknown", "mcp")},
		{id: "H3", name: "no subprotocol is offered", want: "no subprotocol",
			why: "a client must fail the connection if something is selected that it did not offer (RFC 6455 4.1)", fix: "select nothing then",
			run: selects("")},
		{id: "H4", name: "an unknown subprotocol is offered", want: "no subprotocol",
			why: "selecting it promises to speak it", fix: "ignore what you do not know",
			run: selects("", "x-unknown")},
		{id: "H5", name: "a credential is offered as subprotocol", want: "subprotocol mcp",
			why: "the answer would carry the secret into logs", fix: "never select mcp.auth.*",
			run: selects("mcp", "mcp.auth.c2VjcmV0", "mcp")},
		{id: "H6", name: "WebSocket version 12", want: "426 or 400",
			why: "the client must learn which version is spoken (RFC 6455 4.2.2)", fix: "answer 426 with Sec-WebSocket-Version: 13",
			run: status(map[string]string{"Sec-WebSocket-Version": "12"}, http.StatusUpgradeRequired, http.StatusBadRequest)},
		{id: "H7", name: "no Sec-WebSocket-Key", want: "400 or 426",
			why: "it is no WebSocket handshake then (RFC 6455 4.2.1)", fix: "check the header",
			run: status(map[string]string{"Sec-WebSocket-Key": ""}, http.StatusBadRequest, http.StatusUpgradeRequired)},
		{id: "H8", name: "Origin https://evil.example", want: "403",
			why: "any web page could use the tools with the user's rights", fix: "check Origin against a list; refuse others",
			run: status(map[string]string{"Origin": "https://evil.example"}, http.StatusForbidden)},
		{id: "H9", name: "Host evil.example on loopback", want: "403",
			why: "DNS rebinding makes a page's own name point here and passes the Origin check", fix: "accept names of this machine only",
			applies: loopback, run: status(map[string]string{"Host": "evil.example"}, http.StatusForbidden, http.StatusMisdirectedRequest)},
		{id: "H10", name: "no token", want: "401",
			why: "the token protects nothing if it can be left out", fix: "authenticate before the upgrade",
			applies: hasToken, run: status(map[string]string{"Authorization": ""}, http.StatusUnauthorized, http.StatusForbidden)},

		{id: "F1", name: "a message in three fragments", want: "an answer",
			why: "browsers and proxies fragment as they like (RFC 6455 5.4)", fix: "put fragments together until FIN",
			run: talks(func(c *rawConn) (string, bool) {
				_ = c.frame(opText, []byte(pingMsg[:7]))
				_ = c.frame(opCont, []byte(pingMsg[7:20]))
				_ = c.frame(fin|opCont, []byte(pingMsg[20:]))
				got := c.answer("90002")
				return short(got), has(got, "result")
			})},
		{id: "F2", name: "a ping between two fragments", want: "a pong before the message is complete",
			why: "a long upload would look like a dead connection", fix: "answer control frames at once (RFC 6455 5.4)",
			run: talks(func(c *rawConn) (string, bool) {
				_ = c.frame(opText, []byte(pingMsg[:7]))
				_ = c.frame(fin|opPing, []byte("between"))
				for {
					b0, p, err := c.next()
					if err != nil {
						return ended(err), false
					}
					if b0&0x0f == opPong {
						return fmt.Sprintf("pong %q", p), string(p) == "between"
					}
				}
			})},
		{id: "F3", name: "10,000 fragments of one byte", want: "an answer",
			why: "legal, if odd", fix: "bound bytes, not fragments",
			run: talks(func(c *rawConn) (string, bool) {
				msg := `{"jsonrpc":"2.0","id":90002,"method":"ping","params":{"_meta":{"x":"` + strings.Repeat("y", 9900) + `"}}}`
				for i := range len(msg) {
					b0 := opCont
					if i == 0 {
						b0 = opText
					}
					if i == len(msg)-1 {
						b0 |= fin
					}
					if err := c.frame(b0, []byte(msg[i:i+1])); err != nil {
						return c.end(), false
					}
				}
				got := c.answer("90002")
				return short(got), has(got, "result")
			})},
		{id: "F4", name: "a message of 1 MiB", want: "an answer",
			why: "tool arguments and results are often that large", fix: "raise the limit",
			run: talks(func(c *rawConn) (string, bool) {
				if err := c.text(`{"jsonrpc":"2.0","id":90002,"method":"ping","params":{"_meta":{"x":"` + strings.Repeat("y", 1<<20) + `"}}}`); err != nil {
					return c.end(), false
				}
				got := c.answer("90002")
				return short(got), has(got, "result")
			})},
		{id: "F5", name: "continuation without a message", want: "close 1002",
			why: "the sender has lost its place; going on delivers garbage", fix: "fail the connection (RFC 6455 5.4)",
			run: closes(frame(fin|opCont, "x"), 1002)},
		{id: "F6", name: "a new message inside a fragmented one", want: "close 1002",
			why: "two senders mix their messages", fix: "fail the connection (RFC 6455 5.4)",
			run: closes(sends(frame(opText, "{"), frame(fin|opText, "{}")), 1002)},
		{id: "F7", name: "RSV1 without an extension", want: "close 1002",
			why: "the payload means something that was not agreed upon", fix: "fail the connection (RFC 6455 5.2)",
			run: closes(frame(fin|0x40|opText, pingMsg), 1002)},
		{id: "F8", name: "reserved opcode 3", want: "close 1002",
			why: "nobody knows what it means", fix: "fail the connection (RFC 6455 5.2)",
			run: closes(frame(fin|3, "x"), 1002)},
		{id: "F9", name: "a fragmented ping", want: "close 1002",
			why: "control frames must not be fragmented", fix: "fail the connection (RFC 6455 5.5)",
			run: closes(frame(opPing, "x"), 1002)},
		{id: "F10", name: "a ping of 126 bytes", want: "close 1002",
			why: "control frames have at most 125 bytes", fix: "fail the connection (RFC 6455 5.5)",
			run: closes(frame(fin|opPing, strings.Repeat("x", 126)), 1002)},
		{id: "F11", name: "a length of 5 written in 16 bits", want: "close 1002",
			why: "the shortest form is a MUST; two forms are two readings", fix: "fail the connection (RFC 6455 5.2)",
			run: closes(raw(fin|opText, 0x80|126, 0, 5, 0, 0, 0, 0, 'h', 'e', 'l', 'l', 'o'), 1002)},
		{id: "F12", name: "an unmasked frame", want: "close 1002",
			why: "masking protects proxies from what clients write", fix: "fail the connection (RFC 6455 5.1)",
			run: closes(raw(fin|opText, 2, '{', '}'), 1002)},
		{id: "F13", name: "a length with the top bit set", want: "close 1002 or 1009",
			why: "negative lengths have crashed servers", fix: "compare as unsigned, allocate nothing",
			run: closes(raw(fin|opText, 0x80|127, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), 1002, 1009)},
		{id: "F14", name: "2^62 bytes are announced", want: "close 1009",
			why: "waiting for them ties up memory or the connection", fix: "check the announced length",
			run: closes(raw(fin|opText, 0x80|127, 0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), 1009)},
		{id: "F15", name: "a binary message", want: "close 1003",
			why: "MCP messages are text; silence loses the message", fix: "close 1003",
			run: closes(frame(fin|opBin, pingMsg), 1003)},
		{id: "F16", name: "text that is not UTF-8", want: "close 1007",
			why: "what is passed on would not be what was sent", fix: "check UTF-8 (RFC 6455 8.1)",
			run: closes(frame(fin|opText, "\"\xff\""), 1007)},
		{id: "F17", name: "invalid UTF-8 in the first fragment", want: "close 1007 at once",
			why: "the rest may never come", fix: "check while the fragments arrive",
			run: closes(frame(opText, "\"\xff"), 1007)},
		{id: "F18", name: "Close with 1000", want: "close 1000",
			why: "the client waits for it", fix: "echo the code (RFC 6455 5.5.1)",
			run: closes(frame(fin|opEnd, "\x03\xe8"), 1000)},
		{id: "F19", name: "Close with a payload of one byte", want: "close 1002",
			why: "a code has two bytes", fix: "fail the connection (RFC 6455 5.5.1)",
			run: closes(frame(fin|opEnd, "\x03"), 1002)},
		{id: "F20", name: "Close with 1005", want: "close 1002",
			why: "1005 must not be sent", fix: "fail the connection (RFC 6455 7.4.1)",
			run: closes(frame(fin|opEnd, "\x03\xed"), 1002)},
		{id: "F21", name: "Close with a reason that is not UTF-8", want: "close 1007 or 1002",
			why: "a reason is text", fix: "check it (RFC 6455 5.5.1)",
			run: closes(frame(fin|opEnd, "\x03\xe8\xff"), 1007, 1002)},

		{id: "M1", name: "a newline after the message", want: "an answer",
			why: "clients made for stdio send one", fix: "allow white space around the value",
			run: talks(func(c *rawConn) (string, bool) {
				_ = c.text(pingMsg + "\n")
				got := c.answer("90002")
				return short(got), has(got, "result")
			})},
		{id: "M2", name: "two messages on two lines", want: "two answers",
			why: "one of them, or both, is lost without a word", fix: "split at line feeds",
			run: talks(func(c *rawConn) (string, bool) {
				_ = c.text(`{"jsonrpc":"2.0","id":90004,"method":"ping"}` + "\n" + `{"jsonrpc":"2.0","id":90005,"method":"ping"}`)
				a, b := c.reply(), c.reply()
				_, idA := kind(a)
				_, idB := kind(b)
				return short(a + " " + b), idA == "90004" && idB == "90005" || idA == "90005" && idB == "90004"
			})},
		{id: "M3", name: "an empty message", want: "nothing happens", why: "some clients send one to keep the connection open", fix: "ignore it", run: ignored("")},
		{id: "M4", name: "pretty-printed JSON", want: "an answer",
			why: "line breaks between tokens are legal JSON", fix: "try the whole message before splitting",
			run: talks(func(c *rawConn) (string, bool) {
				_ = c.text("{\n  \"jsonrpc\": \"2.0\",\n  \"id\": 90002,\n  \"method\": \"ping\"\n}")
				got := c.answer("90002")
				return short(got), has(got, "result")
			})},

		{id: "J1", name: "text that is not JSON", want: "-32700, and the session goes on",
			why: "silence makes the client wait for ever", fix: "answer with a parse error", run: refused("{broken", -32700)},
		{id: "J2", name: "an object without \"jsonrpc\"", want: "-32600, and the session goes on",
			why: "the client waits for its id", fix: "answer with an invalid request", run: refused(`{"id":90008,"method":"ping"}`, -32600)},
		{id: "J3", name: "a number", want: "-32600, and the session goes on", why: "it is JSON, and no message", fix: "answer with an invalid request", run: refused("42", -32600)},
		{id: "J4", name: "a batch in a 2025-11-25 session", want: "-32600, and the session goes on",
			why: "batches were removed in 2025-06-18", fix: "refuse arrays", run: refused("["+pingMsg+"]", -32600)},
		{id: "J5", name: "a request with a null id", want: "-32600, and the session goes on", why: "MCP forbids it: the answer has no address", fix: "refuse it",
			run: refused(`{"jsonrpc":"2.0","id":null,"method":"ping"}`, -32600)},
		{id: "J6", name: "METHOD instead of method", want: "-32600, and the session goes on",
			why: "parsers that ignore case see another message than those that do not", fix: "compare names exactly",
			run: refused(`{"jsonrpc":"2.0","id":90008,"METHOD":"ping"}`, -32600)},
		{id: "J7", name: "id 9007199254740993", want: "the same id", why: "2^53+1 is another number after a trip through a float", fix: "carry ids as bytes", run: echoes("9007199254740993")},
		{id: "J8", name: "id \"abc\"", want: "the same id", why: "string ids are legal; some gateways turn them to null", fix: "carry ids as bytes", run: echoes(`"abc"`)},
		{id: "J9", name: "id \"7\"", want: "the same id, a string", why: "a number is another id", fix: "carry ids as bytes", run: echoes(`"7"`)},
		{id: "J10", name: "id 0", want: "the same id", why: "zero is an id like any other", fix: "tell zero from absent", run: echoes("0")},
		{id: "J11", name: "an unknown method", want: "-32601, and the session goes on", why: "the client waits", fix: "answer with method not found",
			run: refused(`{"jsonrpc":"2.0","id":90008,"method":"weft/no-such-method"}`, -32601)},
		{id: "J12", name: "an unknown notification", want: "nothing happens", why: "notifications are never answered", fix: "ignore it",
			run: ignored(`{"jsonrpc":"2.0","method":"notifications/weft/unknown"}`)},
		{id: "J13", name: "an answer to nothing", want: "nothing happens", why: "an answer is never answered", fix: "ignore it",
			run: ignored(`{"jsonrpc":"2.0","id":987654,"result":{}}`)},

		{id: "P1", name: "initialize", want: "serverInfo", why: "nothing works without it before 2026-07-28", fix: "answer it",
			run: func(p *probing) (string, bool) {
				if p.deaf != nil {
					return p.deaf.Error() + "; nothing that needs a session was asked", false
				}
				return "serverInfo", true
			}},
		{id: "P2", name: "initialize with revision 1999-01-01", want: "a revision that exists, or an error",
			why: "client and server have to agree on one", fix: "answer with the newest that you speak",
			run: func(p *probing) (string, bool) {
				if p.deaf != nil {
					return errNoSession.Error(), false
				}
				c, err := p.open()
				if err != nil {
					return err.Error(), false
				}
				defer c.close()
				_ = c.text(fmt.Sprintf(initialize, "1999-01-01"))
				got := c.answer("90001")
				return short(got), strings.HasPrefix(string(member(got, "result", "protocolVersion")), `"20`) || has(got, "error")
			}},
		{id: "P3", name: "server/discover (2026-07-28)", want: "a result or an error", why: "a client that tries the new era first must not wait for ever", fix: "answer it, with -32601 if need be",
			run: func(p *probing) (string, bool) {
				c, err := p.open()
				if err != nil {
					return err.Error(), false
				}
				defer c.close()
				_ = c.text(`{"jsonrpc":"2.0","id":90006,"method":"server/discover","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"weft probe","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}}}`)
				got := c.answer("90006")
				return short(got), has(got, "result") || has(got, "error")
			}},
		{id: "P4", name: "a tool that does not exist", want: "an error, and the session goes on", why: "the client waits", fix: "answer with an error",
			run: talks(func(c *rawConn) (string, bool) {
				_ = c.text(`{"jsonrpc":"2.0","id":90007,"method":"tools/call","params":{"name":"weft-no-such-tool","arguments":{}}}`)
				got := c.answer("90007")
				ok := has(got, "error") || string(member(got, "result", "isError")) == "true"
				return short(got), ok && c.alive()
			})},
		{id: "P5", name: "cancelling a request that does not exist", want: "nothing happens", why: "it may have been answered a moment ago", fix: "ignore it",
			run: ignored(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"none"}}`)},
		{id: "P6", name: "two clients with the same ids", want: "each gets its own answer once", why: "answers that reach another client leak what it must not see", fix: "keep clients apart",
			run: func(p *probing) (string, bool) {
				a, err := p.session("2025-11-25")
				if err != nil {
					return err.Error(), false
				}
				defer a.close()
				b, err := p.session("2025-11-25")
				if err != nil {
					return "second client: " + err.Error(), false
				}
				defer b.close()
				_ = a.text(`{"jsonrpc":"2.0","id":1,"method":"weft/asked-by-a"}`)
				_ = b.text(`{"jsonrpc":"2.0","id":1,"method":"ping"}`)
				gotA, gotB := a.answer("1"), b.answer("1")
				if !has(gotA, "error") || !has(gotB, "result") {
					return short("a got " + gotA + ", b got " + gotB), false
				}
				if !a.alive() || !b.alive() {
					return "a session was dead afterwards", false
				}
				return "each its own", true
			}},
	}
}
