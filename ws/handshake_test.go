package ws

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/weft-ws/weft/internal/deflate"
	"github.com/weft-ws/weft/internal/proto"
)

// sampleKey and sampleAccept are the example of RFC 6455, 1.3.
const (
	sampleKey    = "dGhlIHNhbXBsZSBub25jZQ=="
	sampleAccept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
)

// upgradeRequest is a request that breaks no rule.
const upgradeRequest = "GET /chat?room=1 HTTP/1.1\r\n" +
	"Host: server.example\r\n" +
	"Upgrade: websocket\r\n" +
	"Connection: Upgrade\r\n" +
	"Sec-WebSocket-Key: " + sampleKey + "\r\n" +
	"Sec-WebSocket-Version: 13\r\n" +
	"\r\n"

// edit returns a head with the first old replaced by new; no old appends new
// before the empty line.
func edit(t testing.TB, head, old, new string) string {
	t.Helper()
	if old == "" {
		return strings.TrimSuffix(head, "\r\n") + new + "\r\n"
	}
	if !strings.Contains(head, old) {
		t.Fatalf("%q is not in %q", old, head)
	}
	return strings.Replace(head, old, new, 1)
}

// A ruleCase is one way to break one rule: a change to a good head.
type ruleCase struct {
	rule     string
	name     string
	old, new string
	// byHTTP: net/http itself answers, before the handler.
	byHTTP bool
}

const (
	keyLine     = "Sec-WebSocket-Key: " + sampleKey + "\r\n"
	versionLine = "Sec-WebSocket-Version: 13\r\n"
	upgradeLine = "Upgrade: websocket\r\n"
	connLine    = "Connection: Upgrade\r\n"
)

var requestCases = []ruleCase{
	{rule: "HS-01", name: "a line that is no header", new: "this is not a header\r\n", byHTTP: true},
	{rule: "HS-01", name: "space before the colon", new: "X-Thing : 1\r\n", byHTTP: true},
	{rule: "HS-01", name: "no version", old: " HTTP/1.1", byHTTP: true},
	{rule: "HS-01", name: "NUL in a value", new: "X-Thing: a\x00b\r\n", byHTTP: true},
	{rule: "HS-02", name: "POST", old: "GET", new: "POST"},
	{rule: "HS-02", name: "lower case", old: "GET", new: "get"},
	{rule: "HS-02", name: "HEAD", old: "GET", new: "HEAD"},
	{rule: "HS-03", name: "HTTP/1.0", old: "HTTP/1.1", new: "HTTP/1.0"},
	{rule: "HS-04", name: "fragment", old: "room=1", new: "room=1#top"},
	{rule: "HS-04", name: "empty fragment", old: "/chat?room=1", new: "/chat#"},
	{rule: "HS-05", name: "absent", old: "Host: server.example\r\n", byHTTP: true},
	{rule: "HS-05", name: "twice", new: "Host: server.example\r\n", byHTTP: true},
	{rule: "HS-05", name: "empty", old: "Host: server.example", new: "Host:"},
	{rule: "HS-06", name: "absent", old: upgradeLine},
	{rule: "HS-06", name: "another protocol", old: upgradeLine, new: "Upgrade: h2c\r\n"},
	{rule: "HS-06", name: "only a part", old: upgradeLine, new: "Upgrade: websocket13\r\n"},
	{rule: "HS-06", name: "within quotes", old: upgradeLine, new: "Upgrade: \"a, websocket, b\"\r\n"},
	{rule: "HS-06", name: "Kelvin sign for k", old: upgradeLine, new: "Upgrade: websoc\u212aet\r\n"},
	{rule: "HS-07", name: "absent", old: connLine},
	{rule: "HS-07", name: "keep-alive", old: connLine, new: "Connection: keep-alive\r\n"},
	{rule: "HS-07", name: "only a part", old: connLine, new: "Connection: upgraded, not-upgrade\r\n"},
	{rule: "HS-08", name: "absent", old: keyLine},
	{rule: "HS-09", name: "empty", old: sampleKey},
	{rule: "HS-09", name: "15 bytes", old: sampleKey, new: "MTIzNDU2Nzg5MDEyMzQ1"},
	{rule: "HS-09", name: "17 bytes", old: sampleKey, new: "MTIzNDU2Nzg5MDEyMzQ1Njc="},
	{rule: "HS-09", name: "18 bytes in 24 characters", old: sampleKey, new: "MTIzNDU2Nzg5MDEyMzQ1Njc4"},
	{rule: "HS-09", name: "no base64", old: sampleKey, new: "dGhlIHNhbXBsZSBub25j!Q=="},
	{rule: "HS-09", name: "no padding", old: sampleKey, new: "dGhlIHNhbXBsZSBub25jZQ"},
	{rule: "HS-09", name: "two joined", old: sampleKey, new: sampleKey + ", " + sampleKey},
	{rule: "HS-10", name: "twice", new: keyLine},
	{rule: "HS-10", name: "two different ones", new: "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"},
	{rule: "HS-12", name: "absent", old: versionLine},
	{rule: "HS-12", name: "8", old: "Version: 13", new: "Version: 8"},
	{rule: "HS-12", name: "14", old: "Version: 13", new: "Version: 14"},
	{rule: "HS-12", name: "empty", old: "Version: 13", new: "Version:"},
	{rule: "HS-12", name: "a list", old: "Version: 13", new: "Version: 13, 8"},
	{rule: "HS-12", name: "leading zero", old: "Version: 13", new: "Version: 013"},
	{rule: "HS-13", name: "twice", new: versionLine},
	{rule: "HS-13", name: "two different ones", new: "Sec-WebSocket-Version: 8\r\n"},
	{rule: "HS-14", name: "empty", new: "Sec-WebSocket-Protocol:\r\n"},
	{rule: "HS-14", name: "empty element", new: "Sec-WebSocket-Protocol: a,,b\r\n"},
	{rule: "HS-14", name: "comma at the end", new: "Sec-WebSocket-Protocol: a,\r\n"},
	{rule: "HS-14", name: "twice", new: "Sec-WebSocket-Protocol: a, b, a\r\n"},
	{rule: "HS-14", name: "twice on two lines", new: "Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: a\r\n"},
	{rule: "HS-14", name: "space inside", new: "Sec-WebSocket-Protocol: a b\r\n"},
	{rule: "HS-14", name: "separator", new: "Sec-WebSocket-Protocol: a/b\r\n"},
	{rule: "HS-14", name: "quoted", new: "Sec-WebSocket-Protocol: \"a\"\r\n"},
	{rule: "HS-14", name: "not ASCII", new: "Sec-WebSocket-Protocol: pr\u00f6to\r\n"},
	{rule: "HS-14", name: "not UTF-8", new: "Sec-WebSocket-Protocol: \xff\xfe\r\n"},
	{rule: "HS-15", name: "empty", new: "Sec-WebSocket-Extensions:\r\n"},
	{rule: "HS-15", name: "two words", new: "Sec-WebSocket-Extensions: foo bar\r\n"},
	{rule: "HS-15", name: "no name", new: "Sec-WebSocket-Extensions: ; a=b\r\n"},
	{rule: "HS-15", name: "no parameter", new: "Sec-WebSocket-Extensions: foo;\r\n"},
	{rule: "HS-15", name: "no value", new: "Sec-WebSocket-Extensions: foo; a=\r\n"},
	{rule: "HS-15", name: "quotes left open", new: "Sec-WebSocket-Extensions: foo; a=\"b\r\n"},
	{rule: "HS-15", name: "no token in quotes", new: "Sec-WebSocket-Extensions: foo; a=\"b c\"\r\n"},
	{rule: "HS-15", name: "second line", new: "Sec-WebSocket-Extensions: foo\r\nSec-WebSocket-Extensions: =\r\n"},
	{rule: "HS-17", name: "a browser without Origin", new: "Sec-Fetch-Site: cross-site\r\n"},
	{rule: "HS-17", name: "another of its headers", new: "Sec-Fetch-Mode: websocket\r\n"},
}

// TestHandshakeRequestRules breaks each rule of the client's handshake on a
// real socket. The refusal has the right status, names the rule, and says what
// to change; Accept's error says the same.
func TestHandshakeRequestRules(t *testing.T) {
	accepted := make(chan error, 1)
	addr := listenHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		_, err := Accept(w, r, nil)
		accepted <- err
	})
	for _, tc := range requestCases {
		t.Run(tc.rule+" "+tc.name, func(t *testing.T) {
			resp, body := askRaw(t, addr, edit(t, upgradeRequest, tc.old, tc.new))
			rule := proto.RuleByID(tc.rule)
			if resp.StatusCode != rule.Status {
				t.Errorf("status %d, want %d", resp.StatusCode, rule.Status)
			}
			if tc.byHTTP {
				return
			}
			if !strings.Contains(body, tc.rule) && resp.Request.Method != "HEAD" {
				t.Errorf("the body does not name %s: %q", tc.rule, body)
			}
			he := wantRule(t, <-accepted, tc.rule)
			if he.Status != rule.Status || he.Reason == "" || len(he.Body) == 0 {
				t.Errorf("the error lacks something: %+v", he)
			}
			switch rule.Status {
			case http.StatusMethodNotAllowed:
				if got := resp.Header.Get("Allow"); got != "GET" {
					t.Errorf("Allow is %q, want GET", got)
				}
			case http.StatusUpgradeRequired:
				// HR-11: the refusal lists the supported version.
				if got := resp.Header.Values("Sec-WebSocket-Version"); !slices.Equal(got, []string{"13"}) {
					t.Errorf("Sec-WebSocket-Version is %q, want 13", got)
				}
				if got := resp.Header.Get("Upgrade"); got != "websocket" {
					t.Errorf("Upgrade is %q", got)
				}
				if !hasToken(resp.Header["Connection"], "upgrade") {
					t.Errorf("Connection is %q, want Upgrade in it", resp.Header["Connection"])
				}
			}
		})
	}
}

// TestHandshakeRuleOrder: a request that breaks several rules is told the first
// of the catalogue.
func TestHandshakeRuleOrder(t *testing.T) {
	head := upgradeRequest
	var last string
	for _, tc := range slices.Backward(requestCases) {
		switch {
		case tc.byHTTP, tc.rule == last, tc.old != "" && !strings.Contains(head, tc.old):
			continue
		case tc.rule == "HS-10", tc.rule == "HS-13":
			continue // a field that is there twice cannot also be absent
		case tc.rule == "HS-17":
			continue // the origin policy comes after the rules
		}
		last = tc.rule
		head = edit(t, head, tc.old, tc.new)
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head)))
		if err != nil {
			t.Fatal(err)
		}
		_, he := judgeRequest(r)
		wantRule(t, asError(he), tc.rule)
	}
	if last != "HS-02" {
		t.Errorf("the first rule tried was %s", last)
	}
}

// TestHandshakeSpellings: what may be written in several ways is accepted in
// all of them.
func TestHandshakeSpellings(t *testing.T) {
	for _, tc := range []struct{ name, old, new string }{
		{"as it should be", "", ""},
		{"names in lower case", "Upgrade: websocket\r\nConnection", "upgrade: websocket\r\nconnection"},
		{"value in upper case", upgradeLine, "Upgrade: WEBSOCKET\r\n"},
		{"Upgrade as a list", upgradeLine, "Upgrade: h2c,websocket\r\n"},
		{"Upgrade on two lines", upgradeLine, "Upgrade: h2c\r\nUpgrade: WebSocket\r\n"},
		{"no space", connLine, "Connection:upgrade\r\n"},
		{"tabs and spaces", connLine, "Connection: \t keep-alive ,\t UPGRADE \t\r\n"},
		{"Connection on two lines", connLine, "Connection: keep-alive\r\nConnection: Upgrade\r\n"},
		{"empty elements", connLine, "Connection: ,, keep-alive,,Upgrade,\r\n"},
		{"a quoted string before", connLine, "Connection: \"a\\\"b,\", Upgrade\r\n"},
		{"space around the key", sampleKey, "\t" + sampleKey + " "},
		{"space around the version", "Version: 13", "Version:  13\t"},
		{"absolute target", "/chat?room=1", "http://server.example/chat"},
		{"escaped #", "room=1", "room=%23"},
		{"an empty body", "", "Content-Length: 0\r\n"},
		{"subprotocols", "", "Sec-WebSocket-Protocol: a,b ,\tc\r\nSec-WebSocket-Protocol: d!#$%&'*+-.^_`|~\r\n"},
		{"extensions", "", "Sec-WebSocket-Extensions: a; b=\"c\", , d\r\nSec-WebSocket-Extensions: e;f;g=h\r\n"},
		{"a deflate offer that must be declined, not refused", "", "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=99\r\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(edit(t, upgradeRequest, tc.old, tc.new))))
			if err != nil {
				t.Fatal(err)
			}
			o, he := judgeRequest(r)
			if he != nil {
				t.Fatal(he)
			}
			if o.key != sampleKey {
				t.Errorf("key %q", o.key)
			}
		})
	}
}

// TestHandshakeOfferIsRead: subprotocols and extensions arrive whole and in
// order, from any number of lines.
func TestHandshakeOfferIsRead(t *testing.T) {
	head := edit(t, upgradeRequest, "", "Sec-WebSocket-Protocol: a, b\r\nSec-WebSocket-Protocol: c\r\n"+
		"Sec-WebSocket-Extensions: x; p=\"q\"; r\r\nSec-WebSocket-Extensions: y\r\n")
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head)))
	if err != nil {
		t.Fatal(err)
	}
	o, he := judgeRequest(r)
	if he != nil {
		t.Fatal(he)
	}
	if want := []string{"a", "b", "c"}; !slices.Equal(o.subprotocols, want) {
		t.Errorf("subprotocols %q, want %q", o.subprotocols, want)
	}
	if len(o.extensions) != 2 || o.extensions[0].Name != "x" || len(o.extensions[0].Params) != 2 ||
		o.extensions[0].Params[0] != (deflate.Param{Name: "p", Value: "q", HasValue: true}) || o.extensions[1].Name != "y" {
		t.Errorf("extensions %+v", o.extensions)
	}
}

// TestHandshakeNotOurRules: what no rule of the catalogue forbids but cannot
// work is refused too, and says so.
func TestHandshakeNotOurRules(t *testing.T) {
	many := make([]string, subprotocolsMax+1)
	for i := range many {
		many[i] = fmt.Sprintf("p%d", i)
	}
	for _, tc := range []struct {
		name, new string
		change    func(*http.Request)
		status    int
		says      string
	}{
		{name: "a body", new: "Content-Length: 5\r\n", status: 400, says: "body"},
		{name: "a body in chunks", new: "Transfer-Encoding: chunked\r\n", status: 400, says: "body"},
		{name: "too many subprotocols", new: "Sec-WebSocket-Protocol: " + strings.Join(many, ",") + "\r\n", status: 400, says: "64"},
		{name: "HTTP/2", change: func(r *http.Request) { r.ProtoMajor, r.ProtoMinor, r.Proto = 2, 0, "HTTP/2.0" }, status: 505, says: "extended CONNECT"},
		{name: "HTTP/3", change: func(r *http.Request) { r.ProtoMajor, r.ProtoMinor, r.Proto = 3, 0, "HTTP/3.0" }, status: 505, says: "HTTP/1.1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(edit(t, upgradeRequest, "", tc.new))))
			if err != nil {
				t.Fatal(err)
			}
			if tc.change != nil {
				tc.change(r)
			}
			_, he := judgeRequest(r)
			if he == nil || he.Rule != nil || he.Status != tc.status || !strings.Contains(he.Reason, tc.says) {
				t.Errorf("got %v, want status %d and %q", he, tc.status, tc.says)
			}
		})
	}
	// A request that was not made by net/http's server may have what its parser
	// would have refused.
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Add("Host", "a")
	r.Header.Add("Host", "b")
	_, he := judgeRequest(r)
	wantRule(t, asError(he), "HS-05")
	r.RequestURI, r.URL.Fragment = "", "x"
	_, he = judgeRequest(r)
	wantRule(t, asError(he), "HS-04")
}

// switchResponse is a response that breaks no rule. ACCEPT stands for what the
// request's key calls for.
const switchResponse = "HTTP/1.1 101 Switching Protocols\r\n" +
	"Upgrade: websocket\r\n" +
	"Connection: Upgrade\r\n" +
	"Sec-WebSocket-Accept: ACCEPT\r\n" +
	"\r\n"

const acceptLine = "Sec-WebSocket-Accept: ACCEPT\r\n"

// A responseCase is a way for a server to break a rule, given what the client
// offered.
type responseCase struct {
	ruleCase
	subprotocols []string
	compression  *Compression
}

func brokenResponse(rule, name, old, new string) responseCase {
	return responseCase{ruleCase: ruleCase{rule: rule, name: name, old: old, new: new}}
}

func brokenDeflate(rule, name string, c Compression, answer string) responseCase {
	rc := brokenResponse(rule, name, "", "Sec-WebSocket-Extensions: "+answer+"\r\n")
	rc.compression = &c
	return rc
}

func brokenSubprotocol(rule, name, header string) responseCase {
	rc := brokenResponse(rule, name, "", header)
	rc.subprotocols = []string{"chat", "superchat"}
	return rc
}

var responseCases = []responseCase{
	brokenResponse("HR-02", "absent", upgradeLine, ""),
	brokenResponse("HR-02", "another protocol", upgradeLine, "Upgrade: h2c\r\n"),
	brokenResponse("HR-02", "another one besides", upgradeLine, "Upgrade: websocket, h2c\r\n"),
	brokenResponse("HR-02", "empty", upgradeLine, "Upgrade:\r\n"),
	brokenResponse("HR-03", "absent", connLine, ""),
	brokenResponse("HR-03", "keep-alive", connLine, "Connection: keep-alive\r\n"),
	brokenResponse("HR-04", "absent", acceptLine, ""),
	brokenResponse("HR-04", "of another key", "ACCEPT", "AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
	brokenResponse("HR-04", "empty", "ACCEPT", ""),
	brokenResponse("HR-04", "the key itself", "ACCEPT", "KEY"),
	brokenResponse("HR-04", "in lower case", "ACCEPT", "LOWER"),
	brokenResponse("HR-05", "twice", "", acceptLine),
	brokenResponse("HR-06", "no extension was offered", "", "Sec-WebSocket-Extensions: permessage-deflate\r\n"),
	brokenDeflate("HR-06", "another extension", Compression{}, "x-webkit-deflate-frame"),
	brokenDeflate("HR-06", "twice", Compression{}, "permessage-deflate, permessage-deflate"),
	brokenDeflate("HR-07", "twice", Compression{}, "permessage-deflate\r\nSec-WebSocket-Extensions: permessage-deflate"),
	brokenDeflate("HS-15", "not the grammar", Compression{}, "permessage-deflate;;"),
	brokenSubprotocol("HR-08", "another one", "Sec-WebSocket-Protocol: soap\r\n"),
	brokenSubprotocol("HR-08", "in another case", "Sec-WebSocket-Protocol: CHAT\r\n"),
	brokenSubprotocol("HR-08", "both", "Sec-WebSocket-Protocol: chat, superchat\r\n"),
	brokenResponse("HR-08", "none was offered", "", "Sec-WebSocket-Protocol: chat\r\n"),
	brokenSubprotocol("HR-09", "twice", "Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: chat\r\n"),
	brokenSubprotocol("HR-10", "empty", "Sec-WebSocket-Protocol:\r\n"),
	brokenSubprotocol("HR-10", "space", "Sec-WebSocket-Protocol: \t\r\n"),
	brokenDeflate("DF-04", "unknown parameter", Compression{}, "permessage-deflate; mux"),
	brokenDeflate("DF-05", "twice", Compression{}, "permessage-deflate; server_no_context_takeover; server_no_context_takeover"),
	brokenDeflate("DF-06", "window of 16", Compression{}, "permessage-deflate; server_max_window_bits=16"),
	brokenDeflate("DF-06", "window of 7", Compression{}, "permessage-deflate; client_max_window_bits=7"),
	brokenDeflate("DF-06", "leading zero", Compression{}, "permessage-deflate; server_max_window_bits=09"),
	brokenDeflate("DF-06", "no value", Compression{}, "permessage-deflate; client_max_window_bits"),
	brokenDeflate("DF-06", "value where none belongs", Compression{}, "permessage-deflate; client_no_context_takeover=1"),
	brokenDeflate("DF-07", "not offered", Compression{ClientMaxWindowBits: -1}, "permessage-deflate; client_max_window_bits=10"),
	brokenDeflate("DF-08", "left out", Compression{ServerMaxWindowBits: 9}, "permessage-deflate"),
	brokenDeflate("DF-08", "larger", Compression{ServerMaxWindowBits: 9}, "permessage-deflate; server_max_window_bits=10"),
	brokenDeflate("DF-09", "left out", Compression{NoContextTakeover: true}, "permessage-deflate; client_no_context_takeover"),
}

// answerTo fills in what a response template leaves to the request's key.
func answerTo(key, template string) string {
	accept := acceptKey(key)
	return strings.NewReplacer("ACCEPT", accept, "KEY", key, "LOWER", strings.ToLower(accept)).Replace(template)
}

// judgeText judges a response template as Dial does.
func judgeText(t *testing.T, template string, subprotocols []string, c *Compression) (established, *HandshakeError) {
	t.Helper()
	head := answerTo(sampleKey, template)
	resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(head)), nil)
	if err != nil {
		t.Fatal(err)
	}
	var offered *deflate.Options
	if c != nil {
		o := c.options(RoleClient)
		offered = &o
	}
	return judgeResponse(resp, sampleKey, subprotocols, offered)
}

// TestHandshakeResponseRules breaks each rule of the server's handshake that a
// client can see.
func TestHandshakeResponseRules(t *testing.T) {
	for _, tc := range responseCases {
		t.Run(tc.rule+" "+tc.name, func(t *testing.T) {
			est, he := judgeText(t, edit(t, switchResponse, tc.old, tc.new), tc.subprotocols, tc.compression)
			got := wantRule(t, asError(he), tc.rule)
			if got.Status != 101 || got.Header == nil || got.Reason == "" {
				t.Errorf("the error lacks something: %+v", got)
			}
			if est.deflate != nil || est.subprotocol != "" {
				t.Errorf("a broken response still agrees to something: %+v", est)
			}
		})
	}
	_, he := judgeText(t, edit(t, switchResponse, "HTTP/1.1", "HTTP/1.0"), nil, nil)
	if he == nil || !strings.Contains(he.Reason, "HTTP/1.1") {
		t.Errorf("a 101 of HTTP/1.0: %v", he)
	}
}

// TestHandshakeResponseSpellings: good responses, in several spellings.
func TestHandshakeResponseSpellings(t *testing.T) {
	takeover := &deflate.Params{ServerMaxWindowBits: 15, ClientMaxWindowBits: 15}
	for _, tc := range []struct {
		name, old, new string
		compression    *Compression
		subprotocol    string
		deflate        *deflate.Params
	}{
		{name: "as it should be"},
		{name: "upper case", old: upgradeLine + connLine, new: "UPGRADE: WEBSOCKET\r\nCONNECTION: UPGRADE\r\n"},
		{name: "Connection as a list", old: connLine, new: "Connection: keep-alive, upgrade\r\n"},
		{name: "Upgrade twice, the same", new: upgradeLine},
		{name: "space around the digest", old: "ACCEPT", new: " ACCEPT\t"},
		{name: "a length that means nothing", new: "Content-Length: 7\r\n"},
		{name: "subprotocol", new: "Sec-WebSocket-Protocol:  superchat \r\n", subprotocol: "superchat"},
		{name: "offered but not accepted", compression: &Compression{}},
		{name: "deflate", compression: &Compression{}, new: "Sec-WebSocket-Extensions: permessage-deflate\r\n", deflate: takeover},
		{name: "deflate in quotes", compression: &Compression{}, new: "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=\"10\"\r\n",
			deflate: &deflate.Params{ServerMaxWindowBits: 10, ClientMaxWindowBits: 15}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			est, he := judgeText(t, edit(t, switchResponse, tc.old, tc.new), []string{"chat", "superchat"}, tc.compression)
			if he != nil {
				t.Fatal(he)
			}
			if est.subprotocol != tc.subprotocol {
				t.Errorf("subprotocol %q, want %q", est.subprotocol, tc.subprotocol)
			}
			if (est.deflate == nil) != (tc.deflate == nil) || est.deflate != nil && *est.deflate != *tc.deflate {
				t.Errorf("deflate %+v, want %+v", est.deflate, tc.deflate)
			}
		})
	}
}

// TestHandshakeEveryRuleHasATest: each rule of the opening handshake is in one
// of the tables, or is one that a single endpoint cannot enforce and is kept by
// ours, which the named test shows.
func TestHandshakeEveryRuleHasATest(t *testing.T) {
	tested := map[string]string{
		"HS-11": "TestDialKeyIsFresh",
		"HS-16": "TestAcceptKeepsEarlyBytes",
		"HR-01": "TestHandshakeRequestRules: no status is 101",
		"HR-11": "TestHandshakeRequestRules: every 426 names the version",
		"DF-03": "TestAcceptDeclinesBadDeflateOffers",
	}
	for _, tc := range requestCases {
		tested[tc.rule] = "TestHandshakeRequestRules"
	}
	for _, tc := range responseCases {
		tested[tc.rule] = "TestHandshakeResponseRules"
	}
	for rule := range proto.Rules() {
		negotiation := rule.Layer == "deflate" && "DF-03" <= rule.ID && rule.ID <= "DF-09"
		if rule.Layer != "handshake" && !negotiation {
			continue
		}
		if tested[rule.ID] == "" {
			t.Errorf("%s %s has no test", rule.ID, rule.Name)
		}
		delete(tested, rule.ID)
	}
	for id := range tested {
		t.Errorf("%s is tested but is no rule of the handshake", id)
	}
}

// TestAcceptKey is the example of RFC 6455, 1.3.
func TestAcceptKey(t *testing.T) {
	if got := acceptKey(sampleKey); got != sampleAccept {
		t.Errorf("got %s, want %s", got, sampleAccept)
	}
}

// TestListScanner: elements of a list, whatever stands between them.
func TestListScanner(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want []string
	}{
		{"", []string{""}},
		{" \t", []string{""}},
		{"a", []string{"a"}},
		{"a,b", []string{"a", "b"}},
		{" a b\t, c ", []string{"a b", "c"}},
		{",", []string{"", ""}},
		{"a,", []string{"a", ""}},
		{`"a,b",c`, []string{`"a,b"`, "c"}},
		{`"a\",b" , c`, []string{`"a\",b"`, "c"}},
		{`a\,b`, []string{`a\`, "b"}},
		{`"a,b`, []string{`"a,b`}},
		{`"a\`, []string{`"a\`}},
	} {
		if got := elements(tc.in); !slices.Equal(got, tc.want) {
			t.Errorf("%q: got %q, want %q", tc.in, got, tc.want)
		}
	}
}

func elements(in string) []string {
	var list []string
	s := listScanner{in: in}
	for elem, ok := s.next(); ok; elem, ok = s.next() {
		list = append(list, elem)
	}
	return list
}

// TestListScannerIsLinear: 1 MB of what made regular expressions explode. The
// scanner's position only ever grows, each step of its loop moves it, and it
// ends once behind the input: that is the bound on its work.
func TestListScannerIsLinear(t *testing.T) {
	const n = 1 << 20
	for _, unit := range []string{" ", "\t ", ",", " ,", `"`, `\"`, "a ", `" \`} {
		s := listScanner{in: strings.Repeat(unit, n/len(unit))}
		calls, before := 0, -1
		for {
			if s.pos <= before {
				t.Fatalf("%q: position went from %d to %d", unit, before, s.pos)
			}
			before = s.pos
			if _, ok := s.next(); !ok {
				break
			}
			calls++
			if s.pos > len(s.in)+1 {
				t.Fatalf("%q: position %d is beyond the end", unit, s.pos)
			}
			if s.pos == len(s.in)+1 {
				break
			}
		}
		if most := strings.Count(s.in, ",") + 1; calls > most {
			t.Errorf("%q: %d elements, at most %d can be there", unit, calls, most)
		}
	}
}

// TestHandshakeHugeHeaders: values of 1 MB are judged without a copy for each
// of their parts.
func TestHandshakeHugeHeaders(t *testing.T) {
	spaces := strings.Repeat(" ", 1<<20)
	for _, name := range []string{"Upgrade", "Connection", headerKey, headerVersion, headerProtocol, headerExtensions} {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(upgradeRequest)))
		if err != nil {
			t.Fatal(err)
		}
		r.Header[name] = []string{"x" + spaces + "x"}
		var he *HandshakeError
		allocs := testing.AllocsPerRun(1, func() { _, he = judgeRequest(r) })
		if he == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		if len(he.Reason) > 1<<10 {
			t.Errorf("%s: the reason has %d bytes", name, len(he.Reason))
		}
		if allocs > 100 {
			t.Errorf("%s: %v allocations", name, allocs)
		}
	}
}

// FuzzHandshakeRequest: whatever net/http takes for a request is accepted or
// refused with a rule; what is accepted keeps the rules by a dumber reading of
// them, and the answer to it pleases our own client.
func FuzzHandshakeRequest(f *testing.F) {
	f.Add([]byte(upgradeRequest))
	for _, tc := range requestCases {
		f.Add([]byte(edit(f, upgradeRequest, tc.old, tc.new)))
	}
	f.Add([]byte(edit(f, upgradeRequest, "", "Origin: http://server.example\r\nSec-WebSocket-Protocol: a, b\r\n"+
		"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, permessage-deflate; server_no_context_takeover\r\n")))
	opts := AcceptOptions{Subprotocols: []string{"b", "a"}, Config: Config{Compression: &Compression{}}, Hosts: []string{"*"}}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b)))
		if err != nil {
			return
		}
		a, he := opts.answer(httptest.NewRecorder(), r)
		if he != nil {
			if he.Status < 400 || he.Status > 599 || he.Reason == "" || he.Rule != nil && he.Rule.Status != he.Status {
				t.Fatalf("refused without saying why: %+v", he)
			}
			return
		}
		get := func(name string) string { return strings.TrimSpace(strings.Join(r.Header[name], ",")) }
		switch {
		case r.Method != "GET", r.Proto != "HTTP/1.1", r.Host == "", strings.Contains(r.RequestURI, "#"),
			!strings.Contains(strings.ToLower(get("Upgrade")), "websocket"),
			!strings.Contains(strings.ToLower(get("Connection")), "upgrade"),
			len(get(headerKey)) != 24, get(headerVersion) != "13", r.ContentLength != 0:
			t.Fatalf("accepted: %q", b)
		}
		resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(a.response)), nil)
		if err != nil {
			t.Fatalf("%v in the response %q", err, a.response)
		}
		var offered []string
		for _, line := range r.Header[headerProtocol] {
			offered = append(offered, elements(line)...)
		}
		if p := a.est.subprotocol; p != "" && !slices.Contains(offered, p) {
			t.Fatalf("chose %q from %q", p, offered)
		}
		// What the client offered in detail is its own affair: a client that offers
		// anything must not find fault with the rest.
		resp.Header.Del(headerExtensions)
		if _, he := judgeResponse(resp, get(headerKey), offered, nil); he != nil {
			t.Fatalf("our own client refuses the answer: %v", he)
		}
	})
}

// FuzzHandshakeResponse: any bytes for a response, cut anyhow, give the same
// result; what is taken for a switch of protocols has the right digest.
func FuzzHandshakeResponse(f *testing.F) {
	f.Add([]byte(answerTo(sampleKey, switchResponse)))
	f.Add([]byte(answerTo(sampleKey, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"+switchResponse+"\x81\x02hi")))
	for _, tc := range responseCases {
		f.Add([]byte(answerTo(sampleKey, edit(f, switchResponse, tc.old, tc.new))))
	}
	f.Add([]byte("HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 3\r\n\r\nabc"))
	f.Add([]byte("HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"))
	f.Add([]byte("\x15\x03\x01\x00\x02\x02\x46"))
	f.Add([]byte("SSH-2.0-OpenSSH_9.9\r\n"))
	offered := (&Compression{}).options(RoleClient)
	d := &dialing{key: sampleKey, offered: &offered, opts: &DialOptions{Subprotocols: []string{"chat", "superchat"}}}
	f.Fuzz(func(t *testing.T, b []byte) {
		whole, err := d.readResponse(readerConn{Reader: bytes.NewReader(b)})
		cut, cutErr := d.readResponse(readerConn{Reader: iotest.OneByteReader(bytes.NewReader(b))})
		if (err == nil) != (cutErr == nil) || err != nil && err.Error() != cutErr.Error() {
			t.Fatalf("whole: %v; byte by byte: %v", err, cutErr)
		}
		if err != nil {
			var he *HandshakeError
			if !errors.As(err, &he) || he.Reason == "" || len(he.Body) > refusalBodyMax {
				t.Fatalf("no proper error: %#v", err)
			}
			return
		}
		if whole.subprotocol != cut.subprotocol || (whole.deflate == nil) != (cut.deflate == nil) {
			t.Fatalf("whole: %+v; byte by byte: %+v", whole, cut)
		}
		// Byte by byte nothing is read beyond the head.
		if !bytes.Contains(b, []byte(sampleAccept)) || !bytes.HasSuffix(b, whole.early) || len(cut.early) != 0 {
			t.Fatalf("accepted %q, early %q and %q", b, whole.early, cut.early)
		}
	})
}

// A readerConn is a connection that only reads, from memory.
type readerConn struct {
	io.Reader
	net.Conn
}

func (c readerConn) Read(p []byte) (int, error)      { return c.Reader.Read(p) }
func (c readerConn) SetReadDeadline(time.Time) error { return nil }

// asError keeps a nil *HandshakeError from becoming an error that is not nil.
func asError(he *HandshakeError) error {
	if he == nil {
		return nil
	}
	return he
}

// wantRule checks that err is a *HandshakeError for the rule.
func wantRule(t *testing.T, err error, rule string) *HandshakeError {
	t.Helper()
	var he *HandshakeError
	if !errors.As(err, &he) {
		t.Fatalf("got %v, want a HandshakeError for %s", err, rule)
	}
	if he.Rule == nil || he.Rule.ID != rule {
		t.Fatalf("got %v, want %s", he, rule)
	}
	return he
}

// listenHTTP serves h on a port of its own and returns the address.
func listenHTTP(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	return serveOn(t, NewHTTPServer(h))
}

func serveOn(t *testing.T, srv *http.Server) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(ln)
	}()
	t.Cleanup(func() {
		_ = srv.Close()
		<-done
	})
	return ln.Addr().String()
}

// askRaw sends bytes and reads one response with its body.
func askRaw(t *testing.T, addr, request string) (*http.Response, string) {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := io.WriteString(nc, request); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(request, " ")
	var raw bytes.Buffer
	resp, err := http.ReadResponse(bufio.NewReader(io.TeeReader(nc, &raw)), &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	if resp.Header, err = headerOf(raw.Bytes()); err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return resp, ""
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}
