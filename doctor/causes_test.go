package doctor_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/weft-ws/weft/capture"
	"github.com/weft-ws/weft/doctor"
	"github.com/weft-ws/weft/internal/wire"
)

// A said is what a side sent at a time of a recording, or how it ended.
type said struct {
	from capture.Side
	at   time.Duration
	p    []byte
	end  capture.EndKind
}

// judge inspects a recording.
func judge(opts doctor.Options, all ...said) *doctor.Inspector {
	in := doctor.New(opts)
	for _, s := range all {
		in.Chunk(capture.Chunk{From: s.from, At: t0.Add(s.at), Data: s.p, End: s.end})
	}
	return in
}

// Mistakes that people make: the first finding is the one that explains the
// rest, and the hint says what to look for.
func TestTypicalMistakes(t *testing.T) {
	client := func(p ...[]byte) said { return said{from: capture.Client, p: bytes.Join(p, nil)} }
	server := func(p ...[]byte) said { return said{from: capture.Server, p: bytes.Join(p, nil)} }
	opening := []said{client([]byte(goodRequest)), server([]byte(goodResponse))}
	zero := maskedFrame(wire.Text, [4]byte{}, []byte("a"))
	for _, c := range []struct {
		name string
		all  []said
		rule string
		hint string
	}{
		{"a message cut by hand", append(opening, client(clientFrame(wire.Binary, true, "aaaa"), clientFrame(wire.Continuation, false, "aaaa"))), "MS-02", "pieces of 4 bytes by hand"},
		{"two writers, one in fragments", append(opening, client(clientFrame(wire.Binary, false, "aa"), clientFrame(wire.Text, true, "{}"), clientFrame(wire.Continuation, true, "aa"))), "MS-03", "without a lock around a whole message"},
		{"a client library that does not mask", append(opening, client(serverFrame(wire.Text, true, "hi"))), "FR-01", "thinks that it is the server"},
		{"a masking key of zero", append(opening, client(zero, zero, zero, zero)), "FR-12", "four random bytes"},
		{"the client's frames sent back", append(opening, server(clientFrame(wire.Text, true, "hi"))), "FR-02", "forwarded the client's frames unchanged"},
		{"compressed without agreement", append(opening, server([]byte("\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00"))), "FR-03", "permessage-deflate was not agreed on"},
		{"an error page inside the stream", append(opening, server([]byte("<html><body>502 Bad Gateway"))), "FR-04", "error page of a proxy"},
		{"JSON past the library", append(opening, server([]byte(`{"error":"x"}`))), "FR-04", "output past the WebSocket library"},
		{"Latin-1 as text", append(opening, server(serverFrame(wire.Text, true, "gr\xfc\xdfe"))), "MS-05", "another encoding than UTF-8"},
		{"text cut at a byte count", append(opening, server(serverFrame(wire.Text, true, "gr\xc3"))), "MS-06", "instead of between characters"},
		{"code 1006 passed on", append(opening, client(clientFrame(wire.Close, true, "\x03\xee"))), "CL-03", "reports for a lost connection"},
		{"a long ping", append(opening, client(clientFrame(wire.Ping, true, strings.Repeat("x", 126)))), "FR-10", "belongs in a message"},
		{"always the same form of length", append(opening, server([]byte("\x81\x7e\x00\x02hi"))), "FR-08", "the same form of length"},
		{"a writer that goes on after Close", append(opening, client(clientFrame(wire.Close, true, "\x03\xe8"), clientFrame(wire.Text, true, "x"))), "CL-07", "was not told that the connection is closing"},
		{"nobody reads", append(opening, server(serverFrame(wire.Ping, true, "1")), said{from: capture.Server, at: time.Minute, p: serverFrame(wire.Text, true, "x")}), "CT-01", "nobody reads"},
		{"a recording of TLS", []said{client([]byte("\x16\x03\x01\x02\x00"))}, "HS-01", "made of the decrypted bytes"},
	} {
		in := judge(doctor.Options{Handshake: true}, c.all...)
		fs := in.Findings()
		if len(fs) == 0 {
			t.Errorf("%s: nothing found, want %s", c.name, c.rule)
			continue
		}
		if fs[0].Rule.ID != c.rule || !strings.Contains(fs[0].Cause, c.hint) {
			t.Errorf("%s: found %s with the hint %q, want %s with %q", c.name, fs[0].Rule.ID, fs[0].Cause, c.rule, c.hint)
		}
	}
}

// A recording that begins or stops anywhere says so.
func TestHalfRecordings(t *testing.T) {
	in := judge(doctor.Options{}, said{from: capture.Client, p: []byte("\xda\x15rest")})
	if fs := in.Findings(); len(fs) != 1 || !strings.HasPrefix(fs[0].Cause, "the recording may begin in the middle of a frame; or what is read as a header") {
		t.Errorf("joined inside a frame: %+v", fs)
	}
	in = judge(doctor.Options{}, said{from: capture.Server, p: serverFrame(wire.Continuation, false, "x")})
	if fs := in.Findings(); len(fs) != 1 || fs[0].Rule.ID != "MS-01" || !strings.Contains(fs[0].Cause, "joined in the middle of a message") {
		t.Errorf("joined inside a message: %+v", fs)
	}
	frame := serverFrame(wire.Binary, false, strings.Repeat("x", 1000))
	head := []byte(goodResponse)
	for n, want := range map[int]string{
		0:                            "",
		10:                           "the HTTP head",
		len(head):                    "",
		len(head) + 1:                "the header of frame 1",
		len(head) + 3:                "the header of frame 1",
		len(head) + 4 + 1:            "frame 1, after 1 of its 1 000 bytes",
		len(head) + 4 + 999:          "frame 1, after 999 of its 1 000 bytes",
		len(head) + 4 + 1000:         "the message that began in frame 1",
		len(head) + 4 + 1000 + 2:     "frame 2, after 0 of its 1 byte",
		len(head) + 4 + 1000 + 2 + 1: "",
	} {
		stream := bytes.Join([][]byte{head, frame, serverFrame(wire.Continuation, true, "y")}, nil)
		in := judge(doctor.Options{Handshake: true}, said{from: capture.Client, p: []byte(goodRequest)}, said{from: capture.Server, p: stream[:n]})
		if got := in.Unfinished(capture.Server); got != want || len(in.Findings()) > 0 {
			t.Errorf("after %d bytes: unfinished %q, want %q; %d found", n, got, want, len(in.Findings()))
		}
	}
}

// A recording of one side is judged as far as that side goes, and nobody is
// blamed for answers that were not recorded.
func TestOneSideAlone(t *testing.T) {
	offer := strings.Replace(goodRequest, "\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n", 1)
	quiet := func(p []byte, from capture.Side) []said {
		return []said{{from: from, p: p}, {from: from, at: time.Hour, end: capture.FIN}}
	}
	legal := func(request string, frames ...[]byte) []byte {
		return append([]byte(request), bytes.Join(append(frames, clientFrame(wire.Ping, true, "1"), clientFrame(wire.Pong, true, "2"), clientFrame(wire.Close, true, "\x03\xe8")), nil)...)
	}
	packed := maskedFrame(wire.Text, [4]byte{9, 8, 7, 6}, []byte("\xf2\x48\xcd\xc9\xc9\x07\x00"))
	packed[0] |= 0x40
	for _, c := range []struct {
		name  string
		only  capture.Side
		bytes []byte
		rules string
	}{
		{"client, legal", capture.Client, legal(goodRequest, clientFrame(wire.Text, true, "x")), ""},
		{"client, compressed as offered", capture.Client, legal(offer, packed), ""},
		{"client, compressed and not offered", capture.Client, legal(goodRequest, packed), "FR-03"},
		{"client, a broken request", capture.Client, legal(strings.Replace(goodRequest, "Host:", "Hose:", 1)), "HS-05"},
		{"client, a broken frame", capture.Client, append([]byte(goodRequest), clientFrame(wire.Continuation, true, "x")...), "MS-01"},
		{"server, legal", capture.Server, []byte(goodResponse + "\x89\x01a\x8a\x00\x81\x02hi\x88\x02\x03\xe8"), ""},
		{"server, a broken frame", capture.Server, []byte(goodResponse + "\x81\x02hi\x80\x00"), "MS-02"},
	} {
		in := judge(doctor.Options{Handshake: true, Only: c.only, Hints: &doctor.Hints{}}, quiet(c.bytes, c.only)...)
		var got []string
		for _, f := range in.Findings() {
			got = append(got, f.Rule.ID)
		}
		if strings.Join(got, " ") != c.rules {
			t.Errorf("%s: found %q, want %q", c.name, got, c.rules)
		}
		if in.Frames(c.only) == 0 {
			t.Errorf("%s: no frame was judged", c.name)
		}
	}
}
