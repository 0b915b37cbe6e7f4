package load

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"testing"
)

// The examples of RFC 6455, section 5.7; its masking key is the one used here.
func TestAppendFrameRFCExamples(t *testing.T) {
	long := bytes.Repeat([]byte{'x'}, 65536)
	for _, tt := range []struct {
		name string
		f    Frame
		p    []byte
		want string // hexadecimal, of the first bytes
	}{
		{"unmasked text", Frame{Opcode: Text, Fin: true}, []byte("Hello"), "810548656c6c6f"},
		{"masked text", Frame{Opcode: Text, Fin: true, Masked: true}, []byte("Hello"), "818537fa213d7f9f4d5158"},
		{"first fragment", Frame{Opcode: Text}, []byte("Hel"), "010348656c"},
		{"last fragment", Frame{Opcode: Continuation, Fin: true}, []byte("lo"), "80026c6f"},
		{"ping", Frame{Opcode: Ping, Fin: true}, []byte("Hello"), "890548656c6c6f"},
		{"masked pong", Frame{Opcode: Pong, Fin: true, Masked: true}, []byte("Hello"), "8a8537fa213d7f9f4d5158"},
		{"256 bytes", Frame{Opcode: Binary, Fin: true}, long[:256], "827e0100"},
		{"65536 bytes", Frame{Opcode: Binary, Fin: true}, long, "827f0000000000010000"},
		{"125 bytes", Frame{Opcode: Binary, Fin: true}, long[:125], "827d78"},
		{"126 bytes", Frame{Opcode: Binary, Fin: true}, long[:126], "827e007e78"},
		{"compressed", Frame{Opcode: Text, Fin: true, RSV1: true}, []byte{0xf2}, "c101f2"},
		{"empty masked", Frame{Opcode: Binary, Fin: true, Masked: true}, nil, "828037fa213d"},
	} {
		got := AppendFrame(nil, tt.f, tt.p)
		want, err := hex.DecodeString(tt.want)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(got, want) {
			t.Errorf("%s: % x, want it to begin % x", tt.name, got[:min(len(got), 16)], want)
		}
		size, ok := headerSize(got)
		if !ok || len(got) != size+len(tt.p) {
			t.Errorf("%s: %d bytes with a header of %d for %d of payload", tt.name, len(got), size, len(tt.p))
		}
	}
}

func TestAppendMessageFragments(t *testing.T) {
	got := AppendMessage(nil, Frame{Opcode: Text, RSV1: true}, []byte("Hello"), 2)
	want := []byte{0x41, 2, 'H', 'e', 0x00, 2, 'l', 'l', 0x80, 1, 'o'}
	if !bytes.Equal(got, want) {
		t.Errorf("five bytes in fragments of two: % x, want % x", got, want)
	}
	whole := AppendMessage(nil, Frame{Opcode: Text}, []byte("Hello"), 0)
	if want := AppendFrame(nil, Frame{Opcode: Text, Fin: true}, []byte("Hello")); !bytes.Equal(whole, want) {
		t.Errorf("unfragmented: % x, want % x", whole, want)
	}
	if empty := AppendMessage(nil, Frame{Opcode: Binary}, nil, 0); !bytes.Equal(empty, []byte{0x82, 0}) {
		t.Errorf("empty message: % x", empty)
	}
}

// stream is two messages, one fragmented with a ping inside, and a close.
func stream(masked bool) []byte {
	var b []byte
	b = AppendFrame(b, Frame{Opcode: Binary, Fin: true, Masked: masked}, bytes.Repeat([]byte{1}, 300))
	b = AppendFrame(b, Frame{Opcode: Text, Masked: masked}, []byte("Hel"))
	b = AppendFrame(b, Frame{Opcode: Ping, Fin: true, Masked: masked}, []byte("mid"))
	b = AppendFrame(b, Frame{Opcode: Continuation, Masked: masked}, nil)
	b = AppendFrame(b, Frame{Opcode: Continuation, Fin: true, Masked: masked}, []byte("lo"))
	return AppendFrame(b, Frame{Opcode: Close, Fin: true, Masked: masked}, []byte{0x03, 0xe8})
}

// Any cut of the stream is counted alike.
func TestScannerCuts(t *testing.T) {
	for _, masked := range []bool{false, true} {
		for _, size := range []int{1, 2, 3, 7, 100, 1 << 20} {
			var s Scanner
			var controls []string
			var data []byte
			ends := 0
			s.Control = func(op Opcode, p []byte) { controls = append(controls, fmt.Sprintf("%d %x", op, p)) }
			s.Data = func(_ Opcode, _ bool, p []byte, last bool) {
				data = append(data, p...)
				if last {
					ends++
				}
			}
			in := stream(masked)
			want := append(bytes.Repeat([]byte{1}, 300), "Hello"...)
			for c := range slices.Chunk(in, size) {
				if err := s.Scan(c); err != nil {
					t.Fatalf("masked %t, cut at %d: %v", masked, size, err)
				}
			}
			if s.Messages != 2 || s.Frames != 4 || s.Payload != 305 || s.Wire != int64(len(in)) || ends != 2 || !bytes.Equal(data, want) {
				t.Errorf("masked %t, cut at %d: %d messages, %d frames, %d payload, %d wire, %d ends, %d data",
					masked, size, s.Messages, s.Frames, s.Payload, s.Wire, ends, len(data))
			}
			if want := []string{"9 6d6964", "8 03e8"}; !slices.Equal(controls, want) {
				t.Errorf("masked %t, cut at %d: control frames %q, want %q", masked, size, controls, want)
			}
		}
	}
}

func TestScannerRefusesBrokenFraming(t *testing.T) {
	for name, b := range map[string][]byte{
		"continuation without a message": {0x80, 0},
		"message inside a message":       {0x01, 0, 0x81, 0},
		"reserved opcode":                {0x83, 0},
		"fragmented ping":                {0x09, 0},
		"long ping":                      {0x89, 126, 0, 126},
	} {
		if err := new(Scanner).Scan(b); !errors.Is(err, ErrFrame) {
			t.Errorf("%s: %v, want an error that wraps ErrFrame", name, err)
		}
	}
}

func BenchmarkScan128(b *testing.B) {
	buf := bytes.Repeat(AppendFrame(nil, Frame{Opcode: Text, Fin: true}, make([]byte, 128)), 16)
	var s Scanner
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Scan(buf); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(s.Messages), "ns/message")
}
