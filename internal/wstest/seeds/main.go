// Command seeds writes the corpora with which the fuzz targets of the engine
// begin, testdata/fuzz in each package: streams and handshakes of the vectors,
// the recording of the ascii-chat crash, and inputs at the edges of what the
// formats allow. Run it from the root of the module:
//
//	go run ./internal/wstest/seeds
//
// Files that the fuzzer has found beside them are left alone. A test insists
// that what is committed is what this program writes.
package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"strings"

	"github.com/weft-ws/weft/capture"
	"github.com/weft-ws/weft/internal/proto"
	"github.com/weft-ws/weft/internal/wire"
	"github.com/weft-ws/weft/internal/wstest"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("seeds: ")
	c, err := collect(os.DirFS("."))
	if err != nil {
		log.Fatal(err)
	}
	for name, text := range c.files {
		if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
			log.Fatal(err)
		}
		if err := os.WriteFile(filepath.FromSlash(name), text, 0o666); err != nil {
			log.Fatal(err)
		}
	}
}

// A corpus holds files by their path in the module.
type corpus struct {
	files   map[string][]byte
	vectors map[string]*wstest.Vector
}

// collect makes all corpora from what testdata in the module's root holds.
func collect(root fs.FS) (*corpus, error) {
	vectors, err := fs.Sub(root, "testdata/vectors")
	if err != nil {
		return nil, err
	}
	list, err := wstest.LoadVectors(vectors)
	if err != nil {
		return nil, err
	}
	crash, err := fs.ReadFile(root, "testdata/ascii-chat-crash.trace")
	if err != nil {
		return nil, err
	}
	c := &corpus{files: map[string][]byte{}, vectors: map[string]*wstest.Vector{}}
	for _, v := range list {
		c.vectors[strings.TrimSuffix(v.Path, ".txt")] = v
	}
	client, server, err := sides(crash)
	if err != nil {
		return nil, err
	}
	c.headers()
	c.receiver(client)
	c.roundTrip()
	c.text()
	c.deflate()
	c.handshake()
	c.trace(crash)
	c.inspector(client, server)
	return c, nil
}

// add writes one input for the target: its arguments as Go writes them, which is
// what "go test fuzz v1" is.
func (c *corpus) add(target, name string, args ...any) {
	var b bytes.Buffer
	b.WriteString("go test fuzz v1\n")
	for _, a := range args {
		switch a := a.(type) {
		case []byte:
			fmt.Fprintf(&b, "[]byte(%q)\n", a)
		case byte:
			fmt.Fprintf(&b, "byte(%q)\n", rune(a))
		default:
			fmt.Fprintf(&b, "%T(%#v)\n", a, a)
		}
	}
	dir, fuzz, _ := strings.Cut(target, ".")
	c.files[dir+"/testdata/fuzz/"+fuzz+"/"+strings.ReplaceAll(name, "/", "-")] = b.Bytes()
}

// vector is the vector of that path, which must be there.
func (c *corpus) vector(path string) *wstest.Vector {
	v := c.vectors[path]
	if v == nil {
		log.Fatalf("there is no vector %s", path)
	}
	return v
}

// stream is the stream of a vector as the given end sends it.
func (c *corpus) stream(path string, from proto.Role) []byte {
	return bytes.Join(c.vector(path).Chunks(from), nil)
}

// sides are the bytes of both directions of a recording.
func sides(trace []byte) (client, server []byte, err error) {
	r, err := capture.NewReader(bytes.NewReader(trace))
	if err != nil {
		return nil, nil, err
	}
	for k, err := range r.Chunks() {
		if err != nil {
			return nil, nil, err
		}
		if k.From == capture.Client {
			client = append(client, k.Data...)
		} else {
			server = append(server, k.Data...)
		}
	}
	return client, server, nil
}

// frames puts frames as the vectors write them on the wire.
func frames(from proto.Role, lines ...string) []byte {
	v, err := wstest.ParseVector("seed", "comment: a seed\nrole: "+from.Peer().String()+"\nexpect:\n\n"+strings.Join(lines, "\n")+"\n")
	if err != nil {
		log.Fatalf("%q: %v", lines, err)
	}
	return bytes.Join(v.Chunks(from), nil)
}

func (c *corpus) headers() {
	const target = "internal/wire.FuzzHeader"
	for name, h := range map[string]wire.Header{
		"empty-text":      {Fin: true, Opcode: wire.Text},
		"length-125":      {Fin: true, Opcode: wire.Binary, Length: 125, Masked: true, Key: [4]byte{1, 2, 3, 4}},
		"length-126":      {Opcode: wire.Binary, Length: 126},
		"length-65535":    {Opcode: wire.Continuation, Length: 65535, Masked: true},
		"length-65536":    {Fin: true, Opcode: wire.Continuation, Length: 65536, Masked: true, Key: [4]byte{0xff, 0xff, 0xff, 0xff}},
		"length-greatest": {Fin: true, Opcode: wire.Text, Length: 1<<63 - 1},
		"compressed":      {Fin: true, RSV1: true, Opcode: wire.Text, Length: 7},
		"every-bit":       {Fin: true, RSV1: true, RSV2: true, RSV3: true, Opcode: 15, Length: 1<<64 - 1, Masked: true, Key: [4]byte{0xff, 0xff, 0xff, 0xff}},
	} {
		c.add(target, name, wire.AppendHeader(nil, h))
	}
	for _, path := range []string{"frame/length-16-not-minimal", "frame/length-64-not-minimal", "frame/length-top-bit-set", "frame/control-frame-too-long", "frame/reserved-control-opcode", "frame/stream-ends-inside-frame"} {
		if v := c.vector(path); v.Kind == wstest.Stream {
			b := c.stream(path, proto.Client)
			c.add(target, path, b[:min(len(b), wire.HeaderMax)])
		}
	}
	c.add(target, "one-byte", []byte{0x81})
	c.add(target, "cut-in-the-length", []byte{0x82, 0x7f, 0, 0, 0})
	c.add(target, "cut-in-the-key", []byte{0x82, 0xfe, 0, 126, 1, 2, 3})
	c.add(target, "more-than-a-header", []byte("\x89\x85abcdhello world"))
}

func (c *corpus) receiver(crash []byte) {
	const target = "internal/proto.FuzzReceiver"
	// The second argument chooses the limits: see fuzzLimits in the package.
	const none, deflate, size4, size300, fragments1, fragments3, control = byte(0), byte(1), byte(2), byte(4), byte(8), byte(16), byte(32)
	_, afterHandshake, _ := bytes.Cut(crash, []byte("\r\n\r\n"))
	c.add(target, "ascii-chat-crash", true, none, uint64(1), afterHandshake)
	c.add(target, "ascii-chat-crash-request", true, none, uint64(2), crash[:100])
	for _, path := range []string{
		"message/continuation-first", "message/continuation-without-message", "message/message-inside-message", "message/fragments-interleaved",
		"message/text-not-utf8", "message/text-ends-inside-character", "clean/character-across-fragments", "clean/control-between-fragments",
		"close/close-body-one-byte", "close/close-reason-not-utf8",
	} {
		if v := c.vector(path); v.Kind == wstest.Stream {
			from := v.Roles[0].Peer()
			c.add(target, path, from == proto.Client, none, uint64(len(path)), c.stream(path, from))
		}
	}
	for name, s := range map[string]struct {
		limits byte
		lines  []string
	}{
		"over-a-size-of-4":           {size4, []string{`BINARY fin=0 "abc"`, `PING "between"`, `CONT "de"`}},
		"exactly-a-size-of-4":        {size4, []string{`BINARY fin=0 "abc"`, `CONT "d"`, `TEXT "abcd"`}},
		"second-fragment-of-1":       {fragments1, []string{`TEXT fin=0 "a"`, `CONT "b"`}},
		"fourth-fragment-of-3":       {fragments3, []string{`TEXT fin=0 "a"`, `CONT fin=0`, `CONT fin=0`, `CONT`}},
		"control-frames-at-once":     {control, []string{`PING`, `PONG`, `PING "third"`, `CLOSE code=1000`}},
		"compressed-fragments":       {deflate, []string{`TEXT rsv1 fin=0 x:f248cd`, `PING`, `CONT x:c9c90700`, `TEXT "plain"`}},
		"compressed-continuation":    {deflate, []string{`TEXT rsv1 fin=0 x:f248cd`, `CONT rsv1 x:c9c90700`}},
		"compressed-over-300":        {deflate | size300, []string{`BINARY rsv1 fin=0 "x"*300`, `CONT "x"*2000`}},
		"announces-more-than-300":    {size300, []string{`BINARY length=9223372036854775807 form=9 "x"`}},
		"many-in-one-segment":        {none, []string{`TEXT repeat=20 "hello"`, `PING "p"`, `BINARY "x"*130`, `CLOSE code=4999 "bye"`}},
		"after-the-close":            {none, []string{`CLOSE`, `TEXT "late"`, `0x3`}},
		"empty-fragments":            {none, []string{`TEXT fin=0`, `CONT fin=0 repeat=50`, `CONT`}},
		"byte-order-mark-and-beyond": {none, []string{`TEXT fin=0 x:efbb`, `PONG`, `CONT x:bff48fbfbf`, `TEXT x:f4908080`}},
		"close-inside-a-message":     {none, []string{`BINARY fin=0 "a"`, `CLOSE code=1001`, `CONT "b"`}},
		"longest-control-frames":     {none, []string{`PING "x"*125`, `CLOSE code=1011 "y"*123`}},
	} {
		c.add(target, name, true, s.limits, uint64(len(name)), frames(proto.Client, s.lines...))
	}
	b := frames(proto.Server, `TEXT fin=0 "grüße"`, `PING "x"`, `CONT "b"`)
	c.add(target, "cut-in-a-payload", false, none, uint64(3), b[:5])
	c.add(target, "cut-in-a-header", false, none, uint64(4), b[:len(b)-2])
}

// roundTrip: the input is a program, pairs of an operation and a length.
func (c *corpus) roundTrip() {
	const target = "internal/proto.FuzzRoundTrip"
	const ping, pong, last, fragment = 0, 1, 2, 5
	x := func(n int) []byte { return bytes.Repeat([]byte{'x'}, n) }
	for name, program := range map[string][]byte{
		"nothing":              nil,
		"empty-message":        {last, 0},
		"three-fragments":      {fragment, 1, 'a', fragment, 0, last, 1, 'b'},
		"ping-between":         {fragment, 2, 'a', 'b', ping, 1, 'p', pong, 0, last, 1, 'c'},
		"never-finished":       {fragment, 3, 'a', 'b', 'c'},
		"lengths-125-and-126":  append(append([]byte{last, 125}, x(125)...), append([]byte{last, 126}, x(126)...)...),
		"longest-ping":         append([]byte{ping, 255}, x(255)...),
		"length-beyond-input":  {last, 255, 'a'},
		"operation-at-the-end": {last, 1, 'a', fragment},
		"many-empty-fragments": bytes.Repeat([]byte{fragment, 0}, 60),
		"controls-only":        bytes.Repeat([]byte{ping, 0, pong, 0}, 20),
		"large-fragments":      append(bytes.Repeat(append([]byte{fragment, 255}, x(255)...), 4), last, 0),
	} {
		c.add(target, name, uint64(len(program)), program)
	}
}

// texts are byte sequences at the edges of UTF-8, and just beyond them.
var texts = map[string]string{
	"greek":                        "\u03ba\u1f79\u03c3\u03bc\u03b5",
	"greek-then-above-10FFFF":      "\u03ba\u1f79\u03c3\u03bc\u03b5\xf4\x90\x80\x80edited",
	"surrogate":                    "\u03ba\u1f79\u03c3\u03bc\u03b5\xed\xa0\x80edited",
	"surrogate-pair":               "\xed\xa0\x80\xed\xb0\x80",
	"last-before-surrogates":       "\ud7ff\ue000",
	"overlong-slash-2":             "\xc0\xaf",
	"overlong-slash-3":             "\xe0\x80\xaf",
	"overlong-slash-4":             "\xf0\x80\x80\xaf",
	"overlong-nul":                 "\xc0\x80",
	"least-of-each-length":         "\x00\u0080\u0800\U00010000",
	"greatest-of-each-length":      "\x7f\u07ff\uffff\U0010ffff",
	"five-byte-form":               "\xf8\x88\x80\x80\x80",
	"fe-ff":                        "\xfe\xff",
	"continuation-alone":           "ascii then \x80",
	"cut-after-1-of-4":             "text \xf0",
	"cut-after-3-of-4":             "text \xf0\x9f\xa7",
	"bad-after-32-ascii":           "0123456789abcdef0123456789abcdef\xff",
	"bad-as-64th-byte":             "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\xc3",
	"characters-across-64":         "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\U0001f9f6\u00e9\u4e2d",
	"three-byte-forms":             "\u4e2d\u6587\u4e2d\u6587\u4e2d\u6587\u4e2d\u6587\u4e2d\u6587\u4e2d\u6587\u4e2d\u6587",
	"byte-order-mark-noncharacter": "\ufeff\ufffe\ufdd0\U0001ffff",
}

func (c *corpus) text() {
	for name, p := range texts {
		c.add("internal/proto.FuzzText", name, []byte(p), uint16(len(p)/2), uint16(2))
		c.add("internal/wire.FuzzValidUTF8", name, []byte(p), uint16(7*len(p)), p[len(p)/2])
		c.add("doctor.FuzzText", name, []byte(p), byte(len(p)%5))
	}
}

func (c *corpus) deflate() {
	const pmd = "permessage-deflate"
	for name, a := range map[string]struct {
		line1, line2 string
		wish         uint16 // see FuzzDeflateParams
	}{
		"offer-of-browsers":         {pmd + "; client_max_window_bits", "", 0},
		"offer-quoted":              {pmd + `; server_max_window_bits="10"; client_max_window_bits="9"`, "", 0x0f0},
		"offer-quoted-pair":         {pmd + `; server_max_window_bits="1\0"`, "", 0},
		"offer-cut-in-a-quote":      {pmd + `; server_max_window_bits="1`, "", 0},
		"offers-in-two-lines":       {pmd + "; server_no_context_takeover; foo", pmd + "; client_no_context_takeover", 1},
		"offer-everything":          {pmd + "; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=8; client_max_window_bits=15", "", 0x8f3},
		"offer-without-window":      {pmd, "", 0x904},
		"parameter-repeated":        {pmd + "; client_no_context_takeover; client_no_context_takeover", "", 0},
		"parameter-unknown":         {pmd + "; x=1", pmd, 0},
		"window-7":                  {pmd + "; server_max_window_bits=7", "", 0},
		"window-16":                 {pmd + "; server_max_window_bits=16", "", 0},
		"window-08":                 {pmd + "; server_max_window_bits=08", "", 0},
		"window-without-value":      {pmd + "; server_max_window_bits", "", 0x0a0},
		"window-empty":              {pmd + `; client_max_window_bits=""`, "", 0},
		"takeover-with-value":       {pmd + "; server_no_context_takeover=true", "", 2},
		"other-case":                {"Permessage-Deflate; CLIENT_MAX_WINDOW_BITS", "", 0},
		"empty-elements":            {", ,", "," + pmd + ",,", 0},
		"semicolons":                {pmd + ";;", ";" + pmd, 0},
		"spaces-and-tabs":           {pmd + " \t;\tclient_max_window_bits = 9 ", "", 0},
		"not-tokens":                {"permessage\xffdeflate", "a; b=\x00", 0},
		"answer-twice":              {pmd + ", " + pmd, "", 0},
		"answer-smaller-than-asked": {pmd + "; server_max_window_bits=9", "", 0xa00},
	} {
		c.add("internal/deflate.FuzzDeflateParams", name, a.line1, a.line2, a.wish)
	}

	messages := map[string]string{
		"empty":               "",
		"empty-block":         "\x00",
		"hello":               "\xf2\x48\xcd\xc9\xc9\x07\x00", // RFC 7692, 7.2.3.1
		"hello-shared-window": "\xf2\x00\x11\x00\x00",         // 7.2.3.2
		"hello-stored":        "\x00\x05\x00\xfa\xffHello\x00",
		"hello-final-block":   "\xf3\x48\xcd\xc9\xc9\x07\x00\x00",
		"hello-two-blocks":    "\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00",
		"hello-tail-left":     "\xf2\x48\xcd\xc9\xc9\x07\x00\x00\x00\xff\xff",
		"final-then-more":     "\xf3\x48\xcd\xc9\xc9\x07\x00\xf2\x48\xcd\xc9\xc9\x07\x00",
		"final-only":          "\x03\x00",
		"empty-stored-blocks": strings.Repeat("\x00\x00\x00\xff\xff", 20) + "\x00",
		"stored-cut":          "\x00\x05\x00\xfa\xffHel",
		"stored-bad-lengths":  "\x00\x05\x00\xfa\xfeHello",
		"block-type-3":        "\x06",
		"cut-in-a-match":      "\x4b",
		"before-the-start":    "\x02\x01",
		"too-many-codes":      "\xfc\xff\xff",
		"one-code-only":       "\x04\xc1\x81\x08\x00\x00\x00\x00\x20\x7f\xeb\x0b\x00\x00",
		"random":              "\xaa\x55\x13\x37\xde\xad\xbe\xef",
	}
	for name, m := range messages {
		c.add("internal/deflate.FuzzInflate", name, []byte(m), byte(15), byte(2), byte(3))
		c.add("doctor.FuzzInflate", name, []byte(m))
	}
	for _, path := range []string{"deflate/deflate-data-invalid", "deflate/deflate-data-invalid-cut", "deflate/deflate-window-exceeded", "deflate/deflate-context-not-reset", "deflate/deflate-tail-not-removed"} {
		for i, f := range c.vector(path).Frames {
			if len(f.Payload) < 1<<10 {
				name := fmt.Sprintf("%s-%d", path, i+1)
				c.add("internal/deflate.FuzzInflate", name, f.Payload, byte(8), byte(0), byte(200))
				c.add("doctor.FuzzInflate", name, f.Payload)
			}
		}
	}
	for name, p := range map[string]string{
		"nothing":         "",
		"one-byte":        "a",
		"run":             strings.Repeat("a", 600),
		"pairs":           strings.Repeat("ab", 300),
		"far-match":       "needle" + strings.Repeat("0123456789abcdefghijklmnopqrstuvwxyz-", 40) + "needle",
		"json":            `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"text":"hello"}}}`,
		"incompressible":  "\x8f\x1c\x77\xe3\x09\xb2\x5d\xa6\x40\xfb\x31\xc8\x94\x2e\xd7\x6b",
		"control-and-nul": "\x00\x00\x00\xff\xff\x00\x00\xff\xff",
	} {
		c.add("internal/deflate.FuzzRoundTrip", name, []byte(p), byte(len(p)), byte(3*len(p)), uint16(len(p)/3))
	}
}

func (c *corpus) handshake() {
	for path, v := range c.vectors {
		if v.Kind != wstest.Handshake {
			continue
		}
		var request, response []byte
		for _, s := range v.Steps {
			switch {
			case s.Frame:
			case s.From == capture.Client:
				request = append(request, s.Data...)
			default:
				response = append(response, s.Data...)
			}
		}
		if len(request) > 0 && len(response) == 0 {
			c.add("ws.FuzzHandshakeRequest", path, request)
		}
		if len(response) > 0 {
			c.add("ws.FuzzHandshakeResponse", path, response)
		}
	}
	const head = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
	for name, extra := range map[string]string{
		"folded-line":           "X: a\r\n b\r\n",
		"nul-in-a-value":        "X: a\x00b\r\n",
		"space-before-colon":    "X : a\r\n",
		"body-announced":        "Content-Length: 5\r\n\r\nhello",
		"body-in-chunks":        "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"body-announced-twice":  "Content-Length: 0\r\nContent-Length: 5\r\n",
		"two-origins":           "Origin: http://a\r\nOrigin: http://b\r\n",
		"origin-null":           "Origin: null\r\n",
		"subprotocol-not-ascii": "Sec-WebSocket-Protocol: \u00e9\r\n",
		"key-not-canonical":     "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZR==\r\n",
	} {
		c.add("ws.FuzzHandshakeRequest", name, []byte(head+extra+"\r\n"))
	}
	c.add("ws.FuzzHandshakeRequest", "bare-line-feeds", []byte(strings.ReplaceAll(head, "\r", "")+"\n"))
	c.add("ws.FuzzHandshakeRequest", "http2-preface", []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
	c.add("ws.FuzzHandshakeRequest", "request-to-a-proxy", []byte(strings.Replace(head, "GET /", "GET http://b/", 1)+"\r\n"))
}

func (c *corpus) trace(crash []byte) {
	const target = "capture.FuzzTrace"
	const head = "weft-trace 1\nstart: 2026-02-20T19:15:24Z\n"
	c.add(target, "ascii-chat-crash", crash)
	c.add(target, "ascii-chat-crash-cut", crash[:len(crash)/2])
	for name, s := range map[string]string{
		"nothing":             "",
		"head-only":           head,
		"other-version":       "weft-trace 2\n",
		"no-start":            "weft-trace 1\n0 > 81\n",
		"a-pcap-file":         "\xd4\xc3\xb2\xa1\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x00\x00\x01\x00\x00\x00",
		"line-ends-of-dos":    strings.ReplaceAll(head+"0 > \"a\"\n", "\n", "\r\n"),
		"odd-digits":          head + "0 > 818\n",
		"not-a-digit":         head + "0 > 81zz\n",
		"unfinished-string":   head + "0 > \"abc\n",
		"bad-escape":          head + "0 > \"\\q\"\n",
		"every-end":           head + "0 > end fin\n0 < end rst\n1 > end timeout\n",
		"bytes-after-the-end": head + "0 > end fin\n1 > 81\n",
		"time-runs-back":      head + "2 > 81\n1 < 81\n",
		"time-without-bounds": head + "99999999999999999999.5 > 81\n",
		"time-negative":       head + "-1 > 81\n",
		"no-direction":        head + "0 81\n",
		"three-directions":    head + "0 >< 81\n",
		"comment-and-blank":   head + "\n# a comment\n\n0 > 81\n",
		"no-last-line-feed":   head + "0 > 8100",
	} {
		c.add(target, name, []byte(s))
	}
}

func (c *corpus) inspector(client, server []byte) {
	const target = "doctor.FuzzInspector"
	c.add(target, "ascii-chat-crash", client, server, true, "", byte(99))
	for _, path := range []string{
		"clean/a-whole-connection", "clean/answer-inside-a-message", "clean/refused", "close/close-not-answered", "close/data-after-close", "control/ping-not-answered",
		"control/pong-payload-differs", "deflate/accepted-bad-deflate-offer", "deflate/deflate-context-not-reset", "deflate/inflates-past-limit",
		"handshake/bytes-before-response", "handshake/accepted-broken-request", "message/message-stalls", "message/rejects-fragmentation", "message/message-never-finished",
	} {
		v := c.vector(path)
		if v.Kind == wstest.Stream {
			from := v.Roles[0].Peer()
			in := map[proto.Role][]byte{from: c.stream(path, from)}
			c.add(target, path, in[proto.Client], in[proto.Server], false, v.Extensions, byte(len(path)))
			continue
		}
		var client, server []byte
		handshake := false
		for _, s := range v.Steps {
			handshake = handshake || !s.Frame && len(s.Data) > 0
			if s.From == capture.Client {
				client = append(client, s.Data...)
			} else {
				server = append(server, s.Data...)
			}
		}
		if len(client)+len(server) < 4<<10 {
			c.add(target, path, client, server, handshake, v.Extensions, byte(len(path)))
		}
	}
}
