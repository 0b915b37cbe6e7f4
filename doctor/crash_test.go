package doctor_test

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/weft-ws/weft/capture"
	"github.com/weft-ws/weft/doctor"
	"github.com/weft-ws/weft/internal/wire"
)

//go:generate go test . -run ^TestCrashTrace$ -update

const crashTrace = "../testdata/ascii-chat-crash.trace"

// writeCrash writes the recording of the crash of a video chat's client, built
// from its published analysis: a packet of 22 + 230,424 bytes is cut by hand
// into pieces of 4,096 bytes, sent as one BINARY and then CONTINUATION frames,
// and nobody clears FIN on the first. Times are those of the client's log, the
// end of the server's half that of the server's. The picture, the masking keys
// and the handshake key are made up.
func writeCrash(b *bytes.Buffer) error {
	day := func(clock string) time.Time {
		t, err := time.Parse(time.RFC3339Nano, "2026-02-20T"+clock+"Z")
		if err != nil {
			panic(err)
		}
		return t
	}
	w := capture.NewWriter(b, capture.Meta{
		Start: day("19:15:24.222000"),
		Fields: []capture.Field{
			{Key: "url", Value: "ws://127.0.0.1:37944/"},
			{Key: "origin", Value: "rebuilt from the analysis of an ascii-chat client that died on its first picture, 2026-02-20; picture and keys are made up"},
			{Key: "written-by", Value: "go generate ./doctor"},
		},
	})
	const key = "Ym9uam91ciwgd2VmdCE/IQ=="
	accept := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	w.Chunk(capture.Client, day("19:15:24.222000"), []byte(strings.Join([]string{
		"GET / HTTP/1.1", "Pragma: no-cache", "Cache-Control: no-cache", "Host: 127.0.0.1", "Origin: http://127.0.0.1",
		"Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: " + key, "Sec-WebSocket-Protocol: acip",
		"Sec-WebSocket-Version: 13", "", ""}, "\r\n")))
	w.Chunk(capture.Server, day("19:15:24.223000"), []byte(strings.Join([]string{
		"HTTP/1.1 101 Switching Protocols", "Upgrade: WebSocket", "Connection: Upgrade",
		"Sec-WebSocket-Accept: " + base64.StdEncoding.EncodeToString(accept[:]), "Sec-WebSocket-Protocol: acip", "", ""}, "\r\n")))

	const piece = 4096
	packet := crashPacket()
	w.Chunk(capture.Client, day("19:15:24.471513"), maskedFrame(wire.Binary, [4]byte{0x37, 0xfa, 0x21, 0x3d}, packet[:piece]))
	w.Chunk(capture.Client, day("19:15:24.595480"), maskedFrame(wire.Continuation, [4]byte{0x9d, 0x02, 0xc4, 0x6e}, packet[piece:2*piece]))
	w.End(capture.Client, day("19:15:24.595480"), capture.RST)
	return w.End(capture.Server, day("19:15:24.737874"), capture.FIN)
}

// crashPacket is an ACIP packet of type IMAGE_FRAME: a header of 22 bytes, a
// picture header of 24 and 320×240 pixels of 3 bytes.
func crashPacket() []byte {
	const width, height = 320, 240
	var body []byte
	for _, v := range []uint32{width, height, 1 /* RGB24 */, 0, 0, 0} {
		body = binary.BigEndian.AppendUint32(body, v)
	}
	for y := range height {
		for x := range width {
			body = append(body, byte(x), byte(y), byte(x+y))
		}
	}
	p := binary.BigEndian.AppendUint64(nil, 0x0000000a5c11c4a1)
	p = binary.BigEndian.AppendUint16(p, 3001)
	p = binary.BigEndian.AppendUint32(p, uint32(len(body)))
	p = binary.BigEndian.AppendUint32(p, crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)))
	p = binary.BigEndian.AppendUint32(p, 0)
	return append(p, body...)
}

func maskedFrame(op wire.Opcode, key [4]byte, payload []byte) []byte {
	b := wire.AppendHeader(nil, wire.Header{Fin: true, Opcode: op, Masked: true, Key: key, Length: uint64(len(payload))})
	n := len(b)
	b = append(b, payload...)
	wire.Mask(key, b[n:])
	return b
}

func TestCrashTrace(t *testing.T) {
	if n := len(crashPacket()); n != 22+230424 {
		t.Fatalf("the packet has %d bytes, the one of the report 230,446", n)
	}
	var want bytes.Buffer
	if err := writeCrash(&want); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(crashTrace, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(crashTrace)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		t.Error("the trace in testdata is another one; run: go generate ./doctor")
	}
	if len(got) > 64<<10 {
		t.Errorf("the trace has %d bytes, at most 64 KiB were meant", len(got))
	}

	r, err := capture.NewReader(bytes.NewReader(got))
	if err != nil {
		t.Fatal(err)
	}
	in := doctor.New(doctor.Options{Handshake: true, Source: "ascii-chat-crash.trace"})
	for c, err := range r.Chunks() {
		if err != nil {
			t.Fatal(err)
		}
		in.Chunk(c)
	}
	f := in.Findings()
	if len(f) != 2 || f[0].Rule.ID != "MS-02" || f[1].Rule.ID != "CL-10" {
		t.Fatalf("found %v, want the continuation and that the client died without a Close", f)
	}
	if o := in.Opening(); o.Status != 101 || o.Subprotocol != "acip" || o.Extensions != "" {
		t.Errorf("the opening handshake was read as %+v", o)
	}
	var text strings.Builder
	if err := f[0].WriteText(&text); err != nil {
		t.Fatal(err)
	}
	wantText := `ascii-chat-crash.trace: client → server, frame 2, byte 4 104, 19:15:24.595

  continuation-without-message      RFC 6455 §5.4      close 1002
  a continuation frame must follow an open message; the last one ended in frame 1

    #1  BINARY  FIN=1  4 096   message complete, 4 096 bytes
    #2  CONT    FIN=1  4 096   nothing to continue

    001008  80 fe 10 00 9d 02 c4 6e  …
            ^^ FIN=1, opcode 0 (CONT)

hint: frame 1 looks like the first piece of a message that was cut into pieces of 4 096 bytes by hand, but it was sent with FIN=1: every piece but the last needs FIN=0; or two writers share this connection without a lock
`
	if text.String() != wantText {
		t.Errorf("the finding reads\n%s\nwant\n%s", text.String(), wantText)
	}
}
