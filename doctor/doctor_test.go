package doctor_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weft-ws/weft/capture"
	"github.com/weft-ws/weft/doctor"
	"github.com/weft-ws/weft/internal/wire"
)

var t0 = time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)

// serverFrame is a frame as a server sends it.
func serverFrame(op wire.Opcode, fin bool, payload string) []byte {
	b := wire.AppendHeader(nil, wire.Header{Fin: fin, Opcode: op, Length: uint64(len(payload))})
	return append(b, payload...)
}

// clientFrame is a frame as a client sends it.
func clientFrame(op wire.Opcode, fin bool, payload string) []byte {
	h := wire.Header{Fin: fin, Opcode: op, Length: uint64(len(payload)), Masked: true, Key: [4]byte(binary.BigEndian.AppendUint32(nil, rand.Uint32()))}
	b := wire.AppendHeader(nil, h)
	n := len(b)
	b = append(b, payload...)
	wire.Mask(h.Key, b[n:])
	return b
}

// ids returns the rules found, in order.
func ids(in *doctor.Inspector) string {
	var out []string
	for _, f := range in.Findings() {
		out = append(out, f.Rule.ID)
	}
	return strings.Join(out, " ")
}

const goodRequest = "GET /chat?token=secret HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
const goodResponse = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"

func TestFeedYieldsInOrder(t *testing.T) {
	in := doctor.New(doctor.Options{Handshake: true})
	in.Write(capture.Client, t0, []byte(goodRequest))
	b := []byte(goodResponse)
	b = append(b, serverFrame(wire.Text, true, "a\xff")...)
	b = append(b, serverFrame(wire.Ping, true, "")...)
	b = append(b, serverFrame(wire.Continuation, true, "")...)
	b = append(b, serverFrame(wire.Text, true, "not judged any more")...)
	before := bytes.Clone(b)
	var got []string
	for ev := range in.Feed(capture.Server, t0, b) {
		switch {
		case ev.Opening != nil:
			got = append(got, fmt.Sprint(ev.Opening.Status))
		case ev.Frame != nil:
			got = append(got, ev.Frame.Opcode.String())
		case ev.Finding != nil:
			got = append(got, ev.Finding.Rule.ID)
		}
	}
	if want := "101 TEXT MS-05 PING CONT MS-02"; strings.Join(got, " ") != want {
		t.Errorf("events %v, want %s", got, want)
	}
	if !bytes.Equal(b, before) {
		t.Error("the bytes were changed")
	}
	o := in.Opening()
	if o.Target != "/chat?token=secret" || o.Status != 101 || o.RequestSize != int64(len(goodRequest)) || o.ResponseSize != int64(len(goodResponse)) {
		t.Errorf("opening %+v", o)
	}
}

// A loop that ends early loses events, not bytes.
func TestFeedLeftEarly(t *testing.T) {
	in := doctor.New(doctor.Options{})
	b := append(serverFrame(wire.Text, true, "one"), serverFrame(wire.Text, true, "\xff")...)
	for range in.Feed(capture.Server, t0, b) {
		break
	}
	for range in.Feed(capture.Server, t0, serverFrame(wire.Text, true, "three")) {
		break
	}
	if in.Frames(capture.Server) != 3 || ids(in) != "MS-05" {
		t.Errorf("%d frames, findings %s", in.Frames(capture.Server), ids(in))
	}
}

// One direction that cannot be followed any more leaves the other alone.
func TestBlindInOneDirection(t *testing.T) {
	in := doctor.New(doctor.Options{})
	in.Write(capture.Client, t0, serverFrame(wire.Text, true, "not masked"))
	in.Write(capture.Client, t0, []byte("and whatever follows"))
	in.Write(capture.Server, t0, serverFrame(wire.Continuation, true, ""))
	if ids(in) != "FR-01 MS-01" {
		t.Errorf("found %s", ids(in))
	}
	if in.Blind(capture.Client) == "" || in.Blind(capture.Server) != "" {
		t.Errorf("blind: client %q, server %q", in.Blind(capture.Client), in.Blind(capture.Server))
	}
}

func TestFindingsAreBounded(t *testing.T) {
	in := doctor.New(doctor.Options{FindingsMax: 3, Ignore: []string{"CL-07"}})
	for range 10 {
		in.Write(capture.Server, t0, serverFrame(wire.Text, true, "\xff"))
	}
	if len(in.Findings()) != 3 || in.Lost() != 7 {
		t.Errorf("%d findings kept, %d lost; want 3 and 7", len(in.Findings()), in.Lost())
	}
}

func TestIgnore(t *testing.T) {
	for _, name := range []string{"MS-05", "text-not-utf8"} {
		in := doctor.New(doctor.Options{Ignore: []string{name}})
		in.Write(capture.Server, t0, serverFrame(wire.Text, true, "\xff"))
		in.Write(capture.Server, t0, serverFrame(wire.Continuation, true, ""))
		if ids(in) != "MS-02" {
			t.Errorf("ignoring %s: found %s", name, ids(in))
		}
	}
}

// TestText compares what people get to read.
func TestText(t *testing.T) {
	for _, c := range []struct {
		name string
		opts doctor.Options
		run  func(in *doctor.Inspector)
		want string
	}{
		{"early FIN", doctor.Options{Source: "session.trace"}, func(in *doctor.Inspector) {
			in.Write(capture.Client, t0, clientFrame(wire.Text, true, "hello"))
			in.Write(capture.Client, t0, clientFrame(wire.Binary, false, strings.Repeat("x", 65536)))
			in.Write(capture.Client, t0, clientFrame(wire.Continuation, true, strings.Repeat("x", 32768)))
			b := clientFrame(wire.Continuation, true, strings.Repeat("x", 16384))
			copy(b[4:8], []byte{0x1c, 0x9a, 0x77, 0x02})
			in.Write(capture.Client, t0.Add(595*time.Millisecond), b)
		}, `session.trace: client → server, frame 4, byte 98 337, 07:08:09.595

  continuation-without-message      RFC 6455 §5.4      close 1002
  a continuation frame must follow an open message; the last one ended in frame 3

    #1  TEXT    FIN=1  5        message complete, 5 bytes
    #2  BINARY  FIN=0  65 536
    #3  CONT    FIN=1  32 768   message complete, 98 304 bytes
    #4  CONT    FIN=1  16 384   nothing to continue

    018021  80 fe 40 00 1c 9a 77 02  …
            ^^ FIN=1, opcode 0 (CONT)

hint: the sender ended a message too early, or two writers share this connection without a lock
`},
		{"long message", doctor.Options{}, func(in *doctor.Inspector) {
			in.Write(capture.Server, t0, serverFrame(wire.Text, false, "a"))
			for range 20 {
				in.Write(capture.Server, t0, serverFrame(wire.Continuation, false, "bc"))
			}
			in.Write(capture.Server, t0, serverFrame(wire.Continuation, true, "d\xed\xa0"))
		}, `server → client, frame 22, byte 87, 07:08:09.000

  text-not-utf8      RFC 6455 §8.1      close 1007
  a0 makes a surrogate, byte 2 of the frame's payload

     #1  TEXT  FIN=0  1
    …    13 frames
    #15  CONT  FIN=0  2
    #16  CONT  FIN=0  2
    #17  CONT  FIN=0  2
    #18  CONT  FIN=0  2
    #19  CONT  FIN=0  2
    #20  CONT  FIN=0  2
    #21  CONT  FIN=0  2
    #22  CONT  FIN=1  3   this frame

    000056  ed a0
               ^^ a0 makes a surrogate

hint: binary data was sent as a text message, or text in another encoding than UTF-8
`},
		{"handshake", doctor.Options{Handshake: true, Source: "x"}, func(in *doctor.Inspector) {
			in.Write(capture.Client, t0, []byte(strings.Replace(goodRequest, "dGhlIHNhbXBsZSBub25jZQ==", "YWJj", 1)))
		}, `x: client → server, opening handshake, line 5, byte 112, 07:08:09.000

  key-not-16-bytes      RFC 6455 §4.1      HTTP 400
  the key decodes to 3 bytes, not 16

    Sec-WebSocket-Key: YWJj
                       ^^^^
`},
		{"secrets stay", doctor.Options{Handshake: true}, func(in *doctor.Inspector) {
			in.Write(capture.Client, t0, []byte(strings.Replace(goodRequest, "GET", "POST", 1)))
		}, `client → server, opening handshake, line 1, byte 0, 07:08:09.000

  method-not-get      RFC 6455 §4.1      HTTP 405
  the method is POST

    POST /chat?… HTTP/1.1
`},
		{"receiver", doctor.Options{Server: doctor.Limits{MessageSize: 10}}, func(in *doctor.Inspector) {
			in.Write(capture.Client, t0, clientFrame(wire.Text, true, strings.Repeat("x", 11)))
			in.Advance(t0.Add(time.Minute))
		}, `client → server, frame 1, byte 0, 07:08:14.000

  reads-past-frame-limit      RFC 6455 §10.4      close 1009
  the server accepts 10 bytes and was sent a frame of 11, but it did not close within 5s
  broken by the server

    #1  TEXT  FIN=1  11   this frame
`},
		{"note", doctor.Options{}, func(in *doctor.Inspector) {
			in.Write(capture.Server, t0, serverFrame(wire.Close, true, "\x03\xe8"))
			in.Write(capture.Server, t0, serverFrame(wire.Pong, true, "x"))
		}, `server → client, frame 2, byte 4, 07:08:09.000

  frames-after-close      RFC 6455 §5.5.1      ignore (note)
  nothing is expected after a Close; the Close was frame 1

    #1  CLOSE  FIN=1  2
    #2  PONG   FIN=1  1   after the Close

    000004  8a 01  …
            ^^ opcode 10 (PONG)
`},
		{"header cut", doctor.Options{}, func(in *doctor.Inspector) {
			in.Write(capture.Server, time.Time{}, []byte{0x82, 0x7e, 0x01})
			in.Close(capture.Server, time.Time{}, capture.RST)
		}, `server → client, frame 1, byte 3

  stream-ends-inside-frame      RFC 6455 §7.2.1      treat as abnormal closure
  3 bytes came of the next frame's header, then TCP ended (rst)

    #1  ?       cut short

    000000  82 7e 01
            ^^^^^^^^ the end

hint: the process died, or closed the socket without a closing handshake
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := doctor.New(c.opts)
			c.run(in)
			if len(in.Findings()) == 0 {
				t.Fatal("nothing was found")
			}
			var b strings.Builder
			if err := in.Findings()[0].WriteText(&b); err != nil {
				t.Fatal(err)
			}
			if b.String() != c.want {
				t.Errorf("reads\n%s\nwant\n%s", b.String(), c.want)
			}
		})
	}
	f := doctor.Finding{}
	broken := errors.New("pipe")
	if err := f.WriteText(writerFunc(func([]byte) (int, error) { return 0, broken })); !errors.Is(err, broken) {
		t.Errorf("a write error is lost: %v", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestFindingJSONAndString(t *testing.T) {
	in := doctor.New(doctor.Options{Source: "s"})
	in.Write(capture.Server, t0, serverFrame(wire.Text, false, "ab"))
	in.Write(capture.Server, t0, serverFrame(wire.Continuation, true, "c\xc3"))
	b, err := json.Marshal(&in.Findings()[0])
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{
		"source": "s", "rule": "MS-06", "name": "text-ends-inside-character", "rfc": "6455", "section": "5.6", "level": "MUST", "severity": "violation",
		"close_code": 1007.0, "offender": "server", "direction": "server", "offset": 8.0, "payload_offset": 2.0, "bytes": "c3", "at": "2026-05-06T07:08:09Z",
	} {
		if got[key] != want {
			t.Errorf("%s is %v, want %v", key, got[key], want)
		}
	}
	frame, _ := got["frame"].(map[string]any)
	history, _ := got["history"].([]any)
	if frame["index"] != 2.0 || frame["opcode"] != "CONT" || frame["fin"] != true || frame["message_length"] != 4.0 || len(history) != 1 {
		t.Errorf("frame %v, history %v", frame, history)
	}
	want := "server broke text-ends-inside-character (MS-06, RFC 6455 5.6) in frame 2 from the server at byte 8: the message ends after 1 of the 2 bytes of a character"
	if s := in.Findings()[0].String(); s != want {
		t.Errorf("String is %q, want %q", s, want)
	}
}

func TestSeverity(t *testing.T) {
	for s, want := range map[doctor.Severity]string{doctor.Violation: "violation", doctor.Note: "note", doctor.Hint: "hint"} {
		if s.String() != want {
			t.Errorf("%d is %q, want %q", s, s, want)
		}
	}
}

// TestOpeningHandshakes: one thing wrong, or unusual, at a time.
func TestOpeningHandshakes(t *testing.T) {
	swap := func(s, old, new string) string {
		if !strings.Contains(s, old) {
			t.Fatalf("%q is not in %q", old, s)
		}
		return strings.Replace(s, old, new, 1)
	}
	add := func(s, line string) string { return strings.TrimSuffix(s, "\r\n") + line + "\r\n\r\n" }
	for _, c := range []struct {
		what, request, response, want string
	}{
		{"nothing", goodRequest, goodResponse, ""},
		{"empty lines before", "\r\n\r\n" + goodRequest, goodResponse, ""},
		{"two spaces", swap(goodRequest, "GET /", "GET  /"), "", "HS-01"},
		{"no version", swap(goodRequest, " HTTP/1.1", ""), "", "HS-01"},
		{"HTTP/2.0", swap(goodRequest, "HTTP/1.1", "HTTP/2.0"), "", ""},
		{"HTTP/0.9", swap(goodRequest, "HTTP/1.1", "HTTP/0.9"), "", "HS-03"},
		{"space before colon", swap(goodRequest, "Host:", "Host :"), "", "HS-01 HS-05"},
		{"folded line", add(goodRequest, "X: a\r\n b"), "", "HS-01"},
		{"bare CR", add(goodRequest, "X: a\rb"), "", "HS-01"},
		{"bare LF", swap(goodRequest, "example.com\r\n", "example.com\n"), "", "HS-01"},
		{"only LF", strings.ReplaceAll(goodRequest, "\r", ""), "", "HS-01"},
		{"NUL", swap(goodRequest, "example", "exa\x00mple"), "", "HS-01"},
		{"TLS", "\x16\x03\x01", "", "HS-01"},
		{"frames", "\x81\x85", "", ""}, // high bytes may stand in a head; nothing is sure yet
		{"empty Host", swap(goodRequest, " example.com", ""), "", "HS-05"},
		{"no Upgrade", swap(goodRequest, "Upgrade: websocket\r\n", ""), "", "HS-06"},
		{"no Connection", swap(goodRequest, "Connection: Upgrade\r\n", ""), "", "HS-07"},
		{"key is not base64", swap(goodRequest, "dGhl", "####"), "", "HS-09"},
		{"no version header", swap(goodRequest, "Sec-WebSocket-Version: 13\r\n", ""), "", "HS-12"},
		{"version list", swap(goodRequest, "Version: 13", "Version: 13, 8"), "", "HS-12"},
		{"empty subprotocol", add(goodRequest, "Sec-WebSocket-Protocol: a,,b"), "", "HS-14"},
		{"no subprotocol at all", add(goodRequest, "Sec-WebSocket-Protocol: "), "", "HS-14"},
		{"subprotocol in quotes", add(goodRequest, `Sec-WebSocket-Protocol: "a"`), "", "HS-14"},
		{"empty extensions", add(goodRequest, "Sec-WebSocket-Extensions: ,"), "", "HS-15"},
		{"extension without a name", add(goodRequest, "Sec-WebSocket-Extensions: ;a"), "", "HS-15"},
		{"extension with a bad value", add(goodRequest, `Sec-WebSocket-Extensions: x; a="b c"`), "", "HS-15"},
		{"extension with an open quote", add(goodRequest, `Sec-WebSocket-Extensions: x; a="b`), "", "HS-15"},
		{"extension with no value", add(goodRequest, `Sec-WebSocket-Extensions: x; a=`), "", "HS-15"},
		{"extensions without comma", add(goodRequest, `Sec-WebSocket-Extensions: x y`), "", "HS-15"},
		{"extension with an escape", add(goodRequest, `Sec-WebSocket-Extensions: ,x;a="b\c" ,, y ; d = e`), "", ""},
		{"browser without Origin", add(goodRequest, "User-Agent: Mozilla/5.0 (X)"), "", "HS-17"},
		{"browser with Origin", add(goodRequest, "User-Agent: Mozilla/5.0 (X)\r\nOrigin: null"), goodResponse, ""},

		{"not HTTP", goodRequest, "SSH-2.0-x\r\n\r\n", ""},
		{"binary response", goodRequest, "\x00\x01", ""},
		{"bad status", goodRequest, "HTTP/1.1 1x1 a\r\n\r\n", ""},
		{"early hints", goodRequest, "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + goodResponse, ""},
		{"refused", goodRequest, "HTTP/1.1 401 Unauthorized\r\n\r\n", ""},
		{"other version refused, and told", swap(goodRequest, "13", "7"), "HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\n\r\n", "HS-12"},
		{"other version refused for another reason", swap(goodRequest, "13", "7"), "HTTP/1.1 401 Unauthorized\r\n\r\n", "HS-12"},
		{"refused, more than the version wrong", swap(swap(goodRequest, "13", "7"), "GET", "PUT"), "HTTP/1.1 400 Bad\r\n\r\n", "HS-02 HS-12"},
		{"refused, no version asked for", swap(goodRequest, "Sec-WebSocket-Version: 13\r\n", ""), "HTTP/1.1 400 Bad\r\n\r\n", "HS-12"},
		{"broken request accepted", swap(goodRequest, "13", "7"), goodResponse, "HS-12 HR-01"},
		{"Upgrade list", goodRequest, swap(goodResponse, "Upgrade: websocket", "Upgrade: websocket, h2c"), "HR-02"},
		{"no Connection", goodRequest, swap(goodResponse, "Connection: Upgrade\r\n", ""), "HR-03"},
		{"no Accept", goodRequest, swap(goodResponse, "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n", ""), "HR-04"},
		{"two Accepts, none right", goodRequest, add(swap(goodResponse, "s3p", "xxx"), "Sec-WebSocket-Accept: a"), "HR-04 HR-05"},
		{"subprotocol of its own", goodRequest, add(goodResponse, "Sec-WebSocket-Protocol: chat"), "HR-08"},
		{"foreign extension, offered", add(goodRequest, "Sec-WebSocket-Extensions: x-y; z"), add(goodResponse, "Sec-WebSocket-Extensions: x-y"), ""},
		{"extension activated twice", add(goodRequest, "Sec-WebSocket-Extensions: permessage-deflate"),
			add(goodResponse, "Sec-WebSocket-Extensions: permessage-deflate, permessage-deflate"), "HR-06"},
		{"malformed extensions of the server", add(goodRequest, "Sec-WebSocket-Extensions: permessage-deflate"),
			add(goodResponse, "Sec-WebSocket-Extensions: permessage-deflate;"), "HS-15"},
		{"client window too large", add(goodRequest, "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=10"),
			add(goodResponse, "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=11"), "DF-07"},
		{"server window too large", add(goodRequest, "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=10"),
			add(goodResponse, "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=11"), "DF-08"},
		{"answer fits the second offer", add(goodRequest, "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_max_window_bits, permessage-deflate"),
			add(goodResponse, "Sec-WebSocket-Extensions: permessage-deflate"), ""},
		{"takeover with a value", add(goodRequest, "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover=1"), "", "DF-06"},
		{"server window without a value", add(goodRequest, "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits"), "", "DF-06"},
		{"window of 7 in the answer", add(goodRequest, "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"),
			add(goodResponse, "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=7"), "DF-06"},
	} {
		for _, size := range []int{1 << 20, 1} {
			in := doctor.New(doctor.Options{Handshake: true})
			for _, x := range []struct {
				from capture.Side
				s    string
			}{{capture.Client, c.request}, {capture.Server, c.response}} {
				for p := []byte(x.s); len(p) > 0; {
					n := min(size, len(p))
					in.Write(x.from, t0, p[:n])
					p = p[n:]
				}
			}
			if got := ids(in); got != c.want {
				t.Errorf("%s: found %q, want %q: %v", c.what, got, c.want, in.Findings())
			}
			for i := range in.Findings() {
				var b strings.Builder
				in.Findings()[i].WriteText(&b)
				if strings.Contains(b.String(), "secret") {
					t.Errorf("%s: the query is printed:\n%s", c.what, b.String())
				}
			}
		}
	}
}

// Values of headers that may hold secrets are not printed.
func TestHandshakeSecrets(t *testing.T) {
	for _, line := range []string{"Authorization : Bearer hush-hush", "Cookie session=hush-hush", "X-Api-Key: hush\rhush", "Authorization: hush\x01hush"} {
		in := doctor.New(doctor.Options{Handshake: true})
		in.Write(capture.Client, t0, []byte(strings.TrimSuffix(goodRequest, "\r\n")+line+"\r\n\r\n"))
		if ids(in) != "HS-01" {
			t.Errorf("%q: found %q", line, ids(in))
			continue
		}
		var b strings.Builder
		in.Findings()[0].WriteText(&b)
		js, _ := json.Marshal(&in.Findings()[0])
		if strings.Contains(b.String()+string(js), "hush") {
			t.Errorf("%q is printed:\n%s\n%s", line, b.String(), js)
		}
	}
}

func TestHeadTooLong(t *testing.T) {
	in := doctor.New(doctor.Options{Handshake: true})
	in.Write(capture.Client, t0, []byte("GET / HTTP/1.1\r\nX: "))
	for range 100 {
		in.Write(capture.Client, t0, bytes.Repeat([]byte{'x'}, 1024))
	}
	if len(in.Findings()) != 0 || !strings.Contains(in.Blind(capture.Client), "longer than 65 536 bytes") || in.Blind(capture.Server) == "" {
		t.Errorf("found %s, blind %q", ids(in), in.Blind(capture.Client))
	}
}

// What the client sends too early is kept and judged once the response is there.
func TestEarlyBytes(t *testing.T) {
	in := doctor.New(doctor.Options{Handshake: true})
	in.Write(capture.Client, t0, append([]byte(goodRequest), clientFrame(wire.Text, true, "hi")...))
	in.Write(capture.Client, t0, clientFrame(wire.Continuation, true, ""))
	in.Write(capture.Server, t0, []byte(goodResponse))
	if ids(in) != "HS-16 MS-02" {
		t.Errorf("found %s", ids(in))
	}
	in = doctor.New(doctor.Options{Handshake: true})
	in.Write(capture.Client, t0, append([]byte(goodRequest), make([]byte, 17<<10)...))
	in.Write(capture.Server, t0, []byte(goodResponse))
	if ids(in) != "HS-16" || !strings.Contains(in.Blind(capture.Client), "before the response") {
		t.Errorf("found %s, blind %q", ids(in), in.Blind(capture.Client))
	}
	// A response without a request: what takes both cannot be judged.
	in = doctor.New(doctor.Options{Handshake: true})
	in.Write(capture.Server, t0, []byte(goodResponse))
	if ids(in) != "" {
		t.Errorf("found %s", ids(in))
	}
}

// An extension that nobody knows may give bits, opcodes and payloads any
// meaning; what it cannot change is still judged.
func TestForeignExtension(t *testing.T) {
	for _, ext := range []string{"x-mine; a=1", "permessage-deflate, x-mine", "a b"} {
		in := doctor.New(doctor.Options{Extensions: ext, Client: doctor.Limits{MessageSize: 1}})
		in.Write(capture.Server, t0, []byte{0xf3, 2, 0xff, 0xff, 0x80, 0, 0x41, 1, 0xff})
		if ids(in) != "" {
			t.Errorf("%s: found %s", ext, ids(in))
		}
		in.Write(capture.Server, t0, []byte{0x81, 0x80, 0, 0, 0, 0})
		if ids(in) != "FR-02" {
			t.Errorf("%s: found %s, want FR-02", ext, ids(in))
		}
	}
}

// A script is what both sides do, one word each.
func play(in *doctor.Inspector, script string) {
	at := t0
	for word := range strings.FieldsSeq(script) {
		side, frame := capture.Client, clientFrame
		if word[0] == 's' {
			side, frame = capture.Server, serverFrame
		}
		op, arg, _ := strings.Cut(word[1:], "=")
		switch op {
		case "ext", "+": // time passes
			d, err := time.ParseDuration(arg)
			if err != nil {
				panic(err)
			}
			at = at.Add(d)
			in.Advance(at)
		case "text":
			in.Write(side, at, frame(wire.Text, true, arg))
		case "begin":
			in.Write(side, at, frame(wire.Text, false, arg))
		case "cont":
			in.Write(side, at, frame(wire.Continuation, false, arg))
		case "last":
			in.Write(side, at, frame(wire.Continuation, true, arg))
		case "ping":
			in.Write(side, at, frame(wire.Ping, true, arg))
		case "pong":
			in.Write(side, at, frame(wire.Pong, true, arg))
		case "close":
			body := ""
			if arg != "" {
				var code uint16
				fmt.Sscan(arg, &code)
				body = string([]byte{byte(code >> 8), byte(code)})
			}
			in.Write(side, at, frame(wire.Close, true, body))
		case "half": // of a frame
			b := frame(wire.Binary, true, "0123456789")
			in.Write(side, at, b[:len(b)-5])
		case "fin":
			in.Close(side, at, capture.FIN)
		case "rst":
			in.Close(side, at, capture.RST)
		case "gone":
			in.Close(side, at, capture.Timeout)
		default:
			panic(word)
		}
	}
}

// TestEnds: who is to blame for how a connection ends, and who is not.
func TestEnds(t *testing.T) {
	limit := doctor.Options{Client: doctor.Limits{MessageSize: 5}, Server: doctor.Limits{MessageSize: 5}}
	for _, c := range []struct {
		script string
		want   string
	}{
		{"cclose=1000 sclose=1000 sfin cfin", ""},
		{"cclose=1000 sclose=1000 srst crst", ""},
		{"sclose=1001 cclose=1001 sfin cfin", ""},
		{"cclose=1000 sclose=1000 cfin sfin", "CL-11"},
		{"cclose=1000 cfin sclose=1000 sfin", "CL-11"},
		{"cclose=1000 sclose=1000 c+=11s cfin", "CL-09"}, // the client has waited long enough
		{"cclose=1000 c+=11s cfin sfin", ""},             // and here, though nothing is said of a server that never answered in time
		{"cclose=1000 sfin cfin", "CL-08"},
		{"sclose=1000 cfin sfin", "CL-08"},
		{"sclose=1000 sfin cfin", ""}, // the server did not wait; the client could not answer
		{"cclose=1000 sgone cgone", ""},
		{"ctext=a cfin sfin", ""},
		{"ctext=\xff sclose=1007 cclose=1007 sfin cfin", "MS-05"},
		{"ctext=\xff sclose=1007 sfin crst", "MS-05"},
		{"ctext=\xff srst crst", "MS-05 CL-10"},
		{"ctext=\xff crst srst", "MS-05 CL-10"},
		{"clast=a sclose=1002 cclose=1002 sfin cfin", "MS-01"},
		{"clast=a sclose=1002 crst sfin", "MS-01"}, // not judged any more
		{"chalf cfin", "FR-13"},
		{"chalf crst", "FR-13"},
		{"chalf cgone", "MS-11"},
		{"chalf sclose=1009 sfin crst", ""},
		{"chalf sfin crst", ""},
		{"cbegin=a cfin", "MS-11"},
		{"cbegin=a cgone", "MS-11"},
		{"cbegin=a sclose=1000 cclose=1000 sfin cfin", ""},
		{"cbegin=a cclose=1011 sclose=1011 sfin cfin", ""},
		{"cbegin=a chalf cfin", "MS-03 CL-10"}, // what is half there does not count
		{"cclose=1000 cping=a cclose=1000 ctext=a ctext=b sclose=1000 sfin cfin", "CL-13 CL-07"},
		{"cfin cfin ctext=after cgone", ""},

		{"cbegin=a cping=x cgone", "MS-11"},
		{"cbegin=a clast=b sclose=1002", "MS-13"},
		{"cbegin=a cpong=x clast=b sclose=1002", "MS-12"},
		{"cbegin=a sclose=1002", "MS-13"},
		{"ctext=a sclose=1002", ""},
		{"cbegin=a clast=b ctext=c sclose=1002", ""},
		{"cbegin=a clast=\xff sclose=1002", "MS-05"},
		{"cbegin=a clast=b sclose=1003", ""},
		{"cbegin=a clast=b cclose=1000 sclose=1002", ""},
		{"sclose=1002", ""},
	} {
		in := doctor.New(doctor.Options{})
		play(in, c.script)
		if got := ids(in); got != c.want {
			t.Errorf("%q: found %q, want %q: %v", c.script, got, c.want, in.Findings())
		}
	}
	for _, c := range []struct {
		script string
		want   string
	}{
		{"ctext=123456 sclose=1009 cclose=1009 sfin cfin", ""},
		{"ctext=123456 sfin cfin", "CL-10"},
		{"ctext=123456 s+=6s sclose=1009", "FR-14"},
		{"ctext=123456 s+=4s sclose=1009", ""},
		{"cping=a ctext=123456 spong=a s+=1s sclose=1009", ""},
		{"ctext=123456 cping=a spong=a sclose=1009", "FR-14"},
		{"ctext=123456 cping= spong= sclose=1009", ""},
		{"ctext=123456 cclose=1000 sclose=1000", ""}, // the Close frames may have crossed
		{"ctext=123456 cclose=1000 sclose=1009", ""},
		{"sbegin=123 slast=456 c+=6s ctext=ok", "MS-07"},
		{"sbegin=123 slast=45 c+=6s ctext=ok", ""},
		{"sclose=1000 ctext=123456 c+=6s", ""},
		{"cbegin=123 ccont=456 clast=789 sclose=1002", ""},
	} {
		in := doctor.New(limit)
		play(in, c.script)
		if got := ids(in); got != c.want {
			t.Errorf("with limits, %q: found %q, want %q: %v", c.script, got, c.want, in.Findings())
		}
	}
	in := doctor.New(doctor.Options{Client: doctor.Limits{FrameSize: 3}})
	play(in, "stext=1234 c+=1m")
	if ids(in) != "FR-14" {
		t.Errorf("frame limit: found %q", ids(in))
	}
	in = doctor.New(doctor.Options{CloseTime: -1, PongTime: -1, ReactTime: -1, Client: doctor.Limits{FrameSize: 3}})
	play(in, "stext=1234 cping=a c+=1h cclose sclose s+=1h cfin")
	if ids(in) != "CL-11" {
		t.Errorf("without times only what needs none is found, got %q", ids(in))
	}
}

// TestPings: a late, a missing and a wrong pong.
func TestPings(t *testing.T) {
	many := ""
	for i := range 70 {
		many += fmt.Sprintf("cping=%d ", i)
	}
	for _, c := range []struct{ script, want string }{
		{"cping=a c+=31s", "CT-01"},
		{"cping=a c+=31s c+=1h", "CT-01"},
		{"cping=a c+=29s spong=a c+=1h", ""},
		{"cping=a c+=20s cping=b c+=11s", "CT-01"},
		{"cping=a c+=20s cping=b spong=b c+=1h", ""},
		{"cping=a cping=b cping=c spong=b c+=31s", "CT-01"},
		{"cping=a cping=b spong=b spong=a c+=1h", ""},
		{"cping= cping= spong= c+=1h", ""},
		{"cping= cping= spong= spong= c+=1h", ""},
		{"cping=a spong=b c+=31s", "CT-02"},
		{"cping=a spong=b spong=a c+=31s", ""},
		{"cping=a spong=b cclose=1000 sclose=1000", ""}, // the Close frames may have crossed
		{"cping=a spong=b sclose=1000 cclose=1000", ""},
		{"cping=a cclose=1000 sclose=1000", ""},
		{"cping=a cclose=1000 c+=1h", ""},
		{"cping=a sclose=1000 c+=1h", ""},
		{"cping=a sfin c+=1h", ""},
		{"cping=a ctext=\xff c+=1h", "MS-05 CT-01"},
		{"cping=a clast=x c+=1h", "MS-01"},
		{"cping=a sping=b c+=31s", "CT-01 CT-01"},
		{"spong=a spong=b c+=1h", ""},
		{many + "spong=0 c+=31s", "CT-01"}, // the first six were forgotten, so this may be an answer
		{many + "spong=69 c+=31s", ""},
	} {
		in := doctor.New(doctor.Options{})
		play(in, c.script)
		if got := ids(in); got != c.want {
			t.Errorf("%q: found %q, want %q: %v", c.script, got, c.want, in.Findings())
		}
	}
}

// TestHints: thresholds, each given once, and off when negative.
func TestHints(t *testing.T) {
	off := doctor.Hints{EmptyFragments: -1, TinyFragments: -1, GapTime: -1, MessageTime: -1, ControlRate: -1, UnaskedPongs: -1, FrameSize: -1, MessageSize: -1, IdleTolerance: -1}
	few := doctor.Hints{EmptyFragments: 2, TinyFragments: 4, TinyMean: 3, ControlRate: 3, UnaskedPongs: 2, FrameSize: 50, MessageSize: 100}
	big := strings.Repeat("x", 51)
	eight := "sbegin=" + strings.Repeat(" scont="+big, 16)
	for _, c := range []struct {
		hints        doctor.Hints
		script, want string
	}{
		{few, "sbegin= scont= slast=a", ""},
		{few, "sbegin= scont= scont= scont= slast=a", "HX-01"},
		{few, "sbegin=aa scont=bb scont=cc slast=dd sbegin=aa scont=bb scont=cc slast=dd", "HX-02"},
		{few, "sbegin=aaa scont=bbb scont=ccc slast=ddd", ""},
		{few, "cping=1 cping=2 cping=3 cpong=4 spong=3", "HX-04"},
		{few, "cping=1 cping=2 cping=3 c+=1s cpong=4 spong=3", ""},
		{few, "cpong=1 c+=1s cpong=2 c+=1s cpong=3 c+=1s cpong=4", "HX-05"},
		{few, "stext=" + big + " stext=" + big, "HX-06"},
		{few, "sbegin=" + big + " slast=" + big, "HX-06 HX-06"},
		{few, eight, "HX-06 HX-06 HX-06"},
		{doctor.Hints{}, "cbegin=a c+=11s ccont=b c+=11s ccont=c c+=11s clast=d", "HX-03"},
		{doctor.Hints{}, "cbegin=a c+=9s ccont=b c+=9s ccont=c c+=9s ccont=c c+=9s clast=d", "HX-03"},
		{doctor.Hints{}, "cbegin=a c+=9s ccont=b c+=9s ccont=c c+=9s clast=d cbegin=a clast=b", ""},
		{doctor.Hints{}, "cbegin=a c+=9s sclose=1000 c+=1h", ""},
		{doctor.Hints{}, "ctext=a c+=1m0.5s sfin cfin", "HX-07"},
		{doctor.Hints{}, "ctext=a c+=5m crst", "HX-07"},
		{doctor.Hints{}, "ctext=a c+=70s crst", ""},
		{doctor.Hints{}, "ctext=a c+=1m cclose=1000 cfin", "CL-11"},
		{doctor.Hints{}, "c+=1m crst", ""},
		{off, eight + " sping=1 c+=1h spong=2 c+=1h sfin", "CT-01 MS-11"},
	} {
		in := doctor.New(doctor.Options{Hints: &c.hints})
		play(in, c.script)
		if got := ids(in); got != c.want {
			t.Errorf("%.80q: found %q, want %q: %v", c.script, got, c.want, in.Findings())
		}
	}
	if in := doctor.New(doctor.Options{}); true {
		play(in, "sbegin= "+strings.Repeat("scont= ", 200)+strings.Repeat("spong= ", 200)+"c+=1m sfin")
		if ids(in) != "MS-11" {
			t.Errorf("without Hints there are none, got %q", ids(in))
		}
	}
}

// TestSilence: an unfinished message that nobody goes on with.
func TestSilence(t *testing.T) {
	for _, c := range []struct{ script, want string }{
		{"cbegin=a c+=9s ccont=b c+=9s ccont=c c+=9s clast=d c+=1h", ""},
		{"cbegin=a c+=11s clast=b", "MS-11"},
		{"cbegin=a c+=9s cping=x spong=x c+=9s clast=b", ""}, // a control frame is a sign of life
		{"cbegin=a c+=11s cfin", "MS-11 MS-11"},
		{"cbegin=a c+=11s cgone", "MS-11"},
		{"cbegin=a cclose=1001 c+=11s", ""},
		{"cbegin=a sclose=1001 c+=11s", ""},
	} {
		in := doctor.New(doctor.Options{SilenceTime: 10 * time.Second})
		play(in, c.script)
		if got := ids(in); got != c.want {
			t.Errorf("%q: found %q, want %q", c.script, got, c.want)
		}
	}
}

// Overdue things are reported in the order in which they became so, with the
// time at which they did.
func TestOverdueInOrder(t *testing.T) {
	in := doctor.New(doctor.Options{SilenceTime: 40 * time.Second})
	play(in, "cbegin=a c+=2s sping=x")
	in.Advance(t0.Add(time.Hour))
	if ids(in) != "CT-01 MS-11" {
		t.Fatalf("found %s", ids(in))
	}
	for i, want := range []time.Duration{32 * time.Second, 40 * time.Second} {
		if got := in.Findings()[i].At.Sub(t0); got != want {
			t.Errorf("%s at %v, want %v", in.Findings()[i].Rule.ID, got, want)
		}
	}
}

// Close returns the first thing that only the end could show.
func TestCloseReturns(t *testing.T) {
	in := doctor.New(doctor.Options{})
	play(in, "cbegin=a")
	if f := in.Close(capture.Client, t0, capture.Open); f != nil {
		t.Errorf("Open is no end: %v", f)
	}
	if f := in.Close(capture.Client, t0, capture.FIN); f == nil || f.Rule.ID != "MS-11" {
		t.Errorf("got %v, want MS-11", f)
	}
	if f := in.Close(capture.Server, t0, capture.FIN); f != nil {
		t.Errorf("got %v, want nothing", f)
	}
}

// TestMaskingKeys: patterns are found at once, random keys never.
func TestMaskingKeys(t *testing.T) {
	for _, c := range []struct {
		what   string
		key    func(i uint32) uint32
		detail string
	}{
		{"constant", func(uint32) uint32 { return 0x12345678 }, "same masking key"},
		{"zero", func(uint32) uint32 { return 0 }, "same masking key"},
		{"counter", func(i uint32) uint32 { return i }, "plus a constant"},
		{"steps", func(i uint32) uint32 { return 0xfffffff0 + i*0x01010101 }, "plus a constant"},
		{"cycle", func(i uint32) uint32 { return []uint32{9, 1 << 30, 77, 1 << 20, 5}[i%5] }, "come back"},
		{"random", func(uint32) uint32 { return rand.Uint32() }, ""},
	} {
		in := doctor.New(doctor.Options{})
		for i := range uint32(2000) {
			k := c.key(i)
			b := append([]byte{0x82, 0x81}, byte(k>>24), byte(k>>16), byte(k>>8), byte(k), 'x')
			in.Write(capture.Client, t0, b)
		}
		f := in.Findings()
		if c.detail == "" {
			if len(f) != 0 {
				t.Errorf("%s: %v", c.what, &f[0])
			}
			continue
		}
		if len(f) != 1 || f[0].Rule.ID != "FR-12" || !strings.Contains(f[0].Detail, c.detail) || f[0].Frame.Index > 8 {
			t.Errorf("%s: found %v, want one FR-12 with %q within eight frames", c.what, f, c.detail)
		}
	}
	// The key of an empty payload hides nothing.
	in := doctor.New(doctor.Options{})
	for range 100 {
		in.Write(capture.Client, t0, []byte{0x82, 0x80, 0, 0, 0, 0})
	}
	if ids(in) != "" {
		t.Errorf("empty payloads: %s", ids(in))
	}
}

// TestCompressedText: text is judged after inflating, over fragments too.
func TestCompressedText(t *testing.T) {
	c := newCompressor(newTraffic(1).rng, 12, true)
	frame := func(p []byte) []byte {
		return append(wire.AppendHeader(nil, wire.Header{Fin: true, RSV1: true, Opcode: wire.Text, Length: uint64(len(p))}), p...)
	}
	in := doctor.New(doctor.Options{Extensions: "permessage-deflate; server_max_window_bits=12"})
	in.Write(capture.Server, t0, frame(c.message([]byte("good text, good text"))))
	in.Write(capture.Server, t0, frame(c.message([]byte("ends early \xf0\x9f"))))
	in.Write(capture.Server, t0, frame(c.message([]byte("goes wrong \xff here"))))
	in.Write(capture.Server, t0, frame(c.message([]byte("good text, good text"))))
	if ids(in) != "MS-06 MS-05" {
		t.Fatalf("found %s", ids(in))
	}
	if f := in.Findings()[1]; !strings.Contains(f.Detail, "byte 11 of the inflated message") || f.Frame.Index != 3 {
		t.Errorf("the bad byte is said to be %q in frame %d", f.Detail, f.Frame.Index)
	}
	// Bad data in one message does not spoil the next where each stands alone.
	in = doctor.New(doctor.Options{Extensions: "permessage-deflate; server_no_context_takeover"})
	in.Write(capture.Server, t0, frame([]byte{0x07}))
	in.Write(capture.Server, t0, frame([]byte{0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0}))
	in.Write(capture.Server, t0, frame([]byte{0x06}))
	if ids(in) != "DF-10 DF-10" {
		t.Errorf("found %s", ids(in))
	}
	// With takeover nobody knows what the window holds after bad data.
	in = doctor.New(doctor.Options{Extensions: "permessage-deflate"})
	in.Write(capture.Server, t0, frame([]byte{0x07}))
	in.Write(capture.Server, t0, frame([]byte{0xf2, 0x00, 0x11, 0, 0}))
	if ids(in) != "DF-10" {
		t.Errorf("found %s", ids(in))
	}
	// Fragments without RSV1 of their own are blamed without showing a header
	// that says nothing.
	in = doctor.New(doctor.Options{Extensions: "permessage-deflate"})
	in.Write(capture.Server, t0, []byte{0x42, 1, 0x00})
	in.Write(capture.Server, t0, []byte{0x80, 4, 0, 1, 2, 3})
	if ids(in) != "DF-10" || in.Findings()[0].Bytes != nil || in.Findings()[0].Frame.Index != 2 {
		t.Errorf("found %v", in.Findings())
	}
}

func TestSet(t *testing.T) {
	set := doctor.NewSet(2)
	try := func(key string) string {
		in := doctor.New(doctor.Options{Handshake: true, Set: set})
		in.Write(capture.Client, t0, []byte(strings.Replace(goodRequest, "dGhlIHNhbXBsZSBub25jZQ==", key, 1)))
		return ids(in)
	}
	const a, b, c = "AAAAAAAAAAAAAAAAAAAAAA==", "BBBBBBBBBBBBBBBBBBBBBA==", "CCCCCCCCCCCCCCCCCCCCCA=="
	for i, step := range []struct{ key, want string }{
		{a, ""}, {b, ""}, {a, "HS-11"}, {c, ""}, {b, "HS-11"}, {a, ""}, // a was forgotten for c
		{"YWJj", "HS-09"}, {"YWJj", "HS-09"},
	} {
		if got := try(step.key); got != step.want {
			t.Errorf("step %d: found %q, want %q", i, got, step.want)
		}
	}
}

// source is a capture.Source from a list.
type source []capture.Chunk

func (s source) Chunks() iter.Seq2[capture.Chunk, error] {
	return func(yield func(capture.Chunk, error) bool) {
		for _, c := range s {
			var err error
			if c.Data == nil && c.End == capture.Open {
				err = errors.New("disk")
			}
			if !yield(c, err) {
				return
			}
		}
	}
}

func pairIDs(p *doctor.Pair) string {
	var out []string
	for _, f := range p.Findings() {
		out = append(out, f.Rule.ID)
	}
	return strings.Join(out, " ")
}

func TestCompareSides(t *testing.T) {
	send := func(d time.Duration, from capture.Side, frames ...[]byte) capture.Chunk {
		return capture.Chunk{From: from, At: t0.Add(d), Data: slices.Concat(frames...)}
	}
	one, two, three := serverFrame(wire.Text, false, "one"), serverFrame(wire.Continuation, false, "two"), serverFrame(wire.Continuation, true, "three")
	joined := serverFrame(wire.Text, true, "onetwothree")
	ping := serverFrame(wire.Ping, true, "abcdef")
	for _, c := range []struct {
		what      string
		near, far source
		opts      doctor.PairOptions
		want      string
	}{
		{"same", source{send(1, capture.Server, one, two, three)}, source{send(0, capture.Server, one, two, three)}, doctor.PairOptions{Blind: true}, ""},
		{"may join", source{send(1, capture.Server, joined)}, source{send(0, capture.Server, one, two, three)}, doctor.PairOptions{}, ""},
		{"blind may not", source{send(1, capture.Server, joined)}, source{send(0, capture.Server, one, two, three)}, doctor.PairOptions{Blind: true}, "MS-08"},
		{"unknown extension", source{send(1, capture.Server, joined)}, source{send(0, capture.Server, one, two, three)},
			doctor.PairOptions{Options: doctor.Options{Extensions: "permessage-deflate"}}, "MS-08"},
		{"known extension", source{send(1, capture.Server, joined)}, source{send(0, capture.Server, one, two, three)},
			doctor.PairOptions{Options: doctor.Options{Extensions: "permessage-deflate"}, Knows: []string{"permessage-deflate"}}, ""},
		{"first fragment late", source{send(1, capture.Server, two, one, three)}, source{send(0, capture.Server, one, two, three)}, doctor.PairOptions{}, "MS-10"},
		{"last fragment early", source{send(1, capture.Server, one, three, two)}, source{send(0, capture.Server, one, two, three)}, doctor.PairOptions{}, "MS-10"},
		{"other payload", source{send(1, capture.Server, serverFrame(wire.Text, true, "other"))}, source{send(0, capture.Server, one, two, three)}, doctor.PairOptions{Blind: true}, ""},
		{"ping split", source{send(1, capture.Server, serverFrame(wire.Ping, true, "abc"), serverFrame(wire.Ping, true, "def"))}, source{send(0, capture.Server, ping)}, doctor.PairOptions{}, "MS-09"},
		{"pings joined", source{send(1, capture.Server, ping)}, source{send(0, capture.Server, serverFrame(wire.Ping, true, "abc"), serverFrame(wire.Ping, true, "def"))}, doctor.PairOptions{}, "MS-09"},
		{"ping fragmented", source{send(1, capture.Server, serverFrame(wire.Ping, false, "abc"))}, source{send(0, capture.Server, ping)}, doctor.PairOptions{}, "MS-09"},
		{"pings of its own", source{send(1, capture.Server, serverFrame(wire.Ping, true, "abcdeX"), ping)}, source{send(0, capture.Server, ping), send(2, capture.Server, serverFrame(wire.Ping, true, "later"))}, doctor.PairOptions{}, ""},
		{"out before in", source{send(0, capture.Server, joined, ping)}, source{send(1, capture.Server, one, two, three, ping)}, doctor.PairOptions{Blind: true}, "MS-08"},
		{"ignored", source{send(1, capture.Server, joined)}, source{send(0, capture.Server, one, two, three)}, doctor.PairOptions{Blind: true, Options: doctor.Options{Ignore: []string{"MS-08"}}}, ""},
	} {
		p, err := doctor.CompareSides(c.near, c.far, c.opts)
		if err != nil {
			t.Fatal(err)
		}
		if got := pairIDs(p); got != c.want {
			t.Errorf("%s: found %q, want %q", c.what, got, c.want)
			continue
		}
		for i := range p.Findings() {
			f := &p.Findings()[i]
			var b strings.Builder
			f.WriteText(&b)
			if !f.Proxy || !strings.Contains(b.String(), "broken by the intermediary") || !strings.HasPrefix(f.String(), "intermediary broke") {
				t.Errorf("%s: reads\n%s", c.what, b.String())
			}
		}
	}
	for i, bad := range []source{{{}}, {send(0, capture.Server, ping), {}}} {
		if _, err := doctor.CompareSides(bad, source{send(1, capture.Server, ping)}, doctor.PairOptions{}); err == nil {
			t.Errorf("source %d: its error is lost", i)
		}
	}
}

// An intermediary that holds everything back is given up, not remembered.
func TestPairIsBounded(t *testing.T) {
	p := doctor.NewPair(doctor.PairOptions{Blind: true})
	one := serverFrame(wire.Binary, true, "x")
	for range 40000 {
		p.Chunk(doctor.Far, capture.Chunk{From: capture.Server, At: t0, Data: one})
	}
	for range 200 {
		p.Chunk(doctor.Near, capture.Chunk{From: capture.Client, At: t0, Data: clientFrame(wire.Ping, true, fmt.Sprint(rand.Uint64()))})
	}
	p.Chunk(doctor.Near, capture.Chunk{From: capture.Server, At: t0, Data: serverFrame(wire.Binary, false, "")})
	p.Chunk(doctor.Near, capture.Chunk{From: capture.Server, At: t0, Data: serverFrame(wire.Continuation, true, "x")})
	if got := pairIDs(p); got != "" {
		t.Errorf("found %s", got)
	}
	if n := p.Inspector(doctor.Far).Frames(capture.Server); n != 40000 {
		t.Errorf("%d frames judged, want 40,000", n)
	}
}

// FuzzInspector: two streams of any bytes, in any cut, end without a panic and
// with the same findings.
func FuzzInspector(f *testing.F) {
	f.Add([]byte(goodRequest), []byte(goodResponse+"\x81\x02hi\x88\x02\x03\xe8"), true, "", uint8(3))
	f.Add([]byte("\x81\x82abcd\x00\x00"), []byte("\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00"), false, "permessage-deflate; server_max_window_bits=8", uint8(0))
	f.Add(maskedFrame(wire.Text, [4]byte{1, 2, 3, 4}, []byte("grüße")), serverFrame(wire.Ping, true, "x"), false, "", uint8(7))
	f.Fuzz(func(t *testing.T, client, server []byte, handshake bool, ext string, size uint8) {
		run := func(size int) string {
			limits := doctor.Limits{MessageSize: 100, FrameSize: 1000}
			in := doctor.New(doctor.Options{Handshake: handshake, Extensions: ext, Client: limits, Server: limits, Hints: &doctor.Hints{}})
			at := t0
			for _, x := range []struct {
				from capture.Side
				p    []byte
			}{{capture.Client, client}, {capture.Server, server}, {capture.Client, client}} {
				for p := x.p; len(p) > 0; {
					n := min(size, len(p))
					in.Write(x.from, at, p[:n])
					p = p[n:]
				}
				at = at.Add(20 * time.Second)
			}
			in.Close(capture.Server, at, capture.FIN)
			in.Close(capture.Client, at, capture.RST)
			var b strings.Builder
			for i := range in.Findings() {
				if err := in.Findings()[i].WriteText(&b); err != nil {
					t.Fatal(err)
				}
			}
			return b.String()
		}
		if whole, cut := run(1<<20), run(int(size)+1); whole != cut {
			t.Fatalf("in pieces of %d:\n%s\nwhole:\n%s", int(size)+1, cut, whole)
		}
	})
}

func BenchmarkInspector(b *testing.B) {
	text := strings.Repeat("plain text, ", 16<<10/12)
	mixed := strings.Repeat("gemischter Text, größer als ASCII; ", 16<<10/37)
	random := make([]byte, 16<<10)
	for i := range random {
		random[i] = byte(rand.Uint32())
	}
	c := newCompressor(newTraffic(1).rng, 15, true)
	packed := c.message([]byte(text))
	for _, bench := range []struct {
		name string
		from capture.Side
		ext  string
		b    []byte
	}{
		{"binary 16 KiB, masked", capture.Client, "", clientFrame(wire.Binary, true, string(random))},
		{"binary 16 KiB", capture.Server, "", serverFrame(wire.Binary, true, string(random))},
		{"binary 128 B, masked", capture.Client, "", clientFrame(wire.Binary, true, string(random[:128]))},
		{"text 16 KiB, masked", capture.Client, "", clientFrame(wire.Text, true, text)},
		{"mixed text 16 KiB, masked", capture.Client, "", clientFrame(wire.Text, true, mixed)},
		{"deflated text", capture.Server, "permessage-deflate; server_no_context_takeover",
			append(wire.AppendHeader(nil, wire.Header{Fin: true, RSV1: true, Opcode: wire.Text, Length: uint64(len(packed))}), packed...)},
	} {
		b.Run(bench.name, func(b *testing.B) {
			in := doctor.New(doctor.Options{Extensions: bench.ext, Ignore: []string{"FR-12"}})
			b.SetBytes(int64(len(bench.b)))
			if bench.ext != "" {
				b.SetBytes(int64(len(text)))
			}
			b.ReportAllocs()
			for b.Loop() {
				in.Write(bench.from, t0, bench.b)
			}
			if len(in.Findings()) > 0 {
				b.Fatal(&in.Findings()[0])
			}
		})
	}
}
