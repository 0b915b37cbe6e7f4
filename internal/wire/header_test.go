package wire

import (
	"bytes"
	"math"
	"testing"
)

// TestHeaderFirstTwoBytes parses every beginning that a header can have, cut
// at every byte.
func TestHeaderFirstTwoBytes(t *testing.T) {
	buf := []byte{0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14}
	for b0 := range 256 {
		for b1 := range 256 {
			buf[0], buf[1] = byte(b0), byte(b1)
			want := Header{
				Fin: b0&0x80 != 0, RSV1: b0&0x40 != 0, RSV2: b0&0x20 != 0, RSV3: b0&0x10 != 0,
				Opcode: Opcode(b0 % 16),
				Masked: b1 >= 0x80, Length: uint64(b1 % 128), LengthForm: 1,
			}
			size := 2
			switch b1 % 128 {
			case 126:
				want.Length, want.LengthForm, size = 0x0102, 3, 4
			case 127:
				want.Length, want.LengthForm, size = 0x0102030405060708, 9, 10
			}
			if want.Masked {
				copy(want.Key[:], buf[size:])
				size += 4
			}
			if n := HeaderSize(byte(b1)); n != size || n > HeaderMax {
				t.Fatalf("HeaderSize(%#x) = %d, want %d", b1, n, size)
			}
			for cut := range size {
				if h, n := ParseHeader(buf[:cut]); n != 0 || h != (Header{}) {
					t.Fatalf("ParseHeader(%x) = %+v, %d, want nothing", buf[:cut], h, n)
				}
			}
			for cut := size; cut <= len(buf); cut++ {
				if h, n := ParseHeader(buf[:cut]); n != size || h != want {
					t.Fatalf("ParseHeader(%x) = %+v, %d, want %+v, %d", buf[:cut], h, n, want, size)
				}
			}
		}
	}
}

func TestHeaderLengths(t *testing.T) {
	tests := []struct {
		length uint64
		form   uint8
		b1     byte
	}{
		{0, 1, 0}, {1, 1, 1}, {125, 1, 125},
		{126, 3, 126}, {127, 3, 126}, {65535, 3, 126},
		{65536, 9, 127}, {math.MaxInt32, 9, 127}, {1 << 31, 9, 127}, {1 << 32, 9, 127},
		{math.MaxInt64, 9, 127}, {1 << 63, 9, 127}, {math.MaxUint64, 9, 127},
	}
	for _, tt := range tests {
		for _, masked := range []bool{false, true} {
			h := Header{Fin: true, Opcode: Binary, Length: tt.length, LengthForm: tt.form, Masked: masked}
			b1, size := tt.b1, 1+int(tt.form)
			if masked {
				h.Key = [4]byte{1, 2, 3, 4}
				b1, size = b1|0x80, size+4
			}
			b := AppendHeader([]byte("before"), h)
			b, ok := bytes.CutPrefix(b, []byte("before"))
			if !ok {
				t.Fatalf("AppendHeader of length %d overwrote what was there", tt.length)
			}
			if len(b) != size || b[0] != 0x82 || b[1] != b1 {
				t.Errorf("AppendHeader of length %d, masked %v: %x, want %d bytes from 82 %x", tt.length, masked, b, size, b1)
			}
			if got, n := ParseHeader(b); n != size || got != h {
				t.Errorf("ParseHeader(%x) = %+v, %d, want %+v, %d", b, got, n, h, size)
			}
		}
	}
}

// TestHeaderRFCExamples are the headers of the frames in RFC 6455 section 5.7.
func TestHeaderRFCExamples(t *testing.T) {
	tests := []struct {
		name string
		wire []byte
		want Header
	}{
		{"single-frame unmasked text", []byte{0x81, 0x05}, Header{Fin: true, Opcode: Text, Length: 5, LengthForm: 1}},
		{"single-frame masked text", []byte{0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d},
			Header{Fin: true, Opcode: Text, Masked: true, Key: [4]byte{0x37, 0xfa, 0x21, 0x3d}, Length: 5, LengthForm: 1}},
		{"first fragment", []byte{0x01, 0x03}, Header{Opcode: Text, Length: 3, LengthForm: 1}},
		{"last fragment", []byte{0x80, 0x02}, Header{Fin: true, Opcode: Continuation, Length: 2, LengthForm: 1}},
		{"ping", []byte{0x89, 0x05}, Header{Fin: true, Opcode: Ping, Length: 5, LengthForm: 1}},
		{"masked pong", []byte{0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d},
			Header{Fin: true, Opcode: Pong, Masked: true, Key: [4]byte{0x37, 0xfa, 0x21, 0x3d}, Length: 5, LengthForm: 1}},
		{"256 bytes of binary", []byte{0x82, 0x7E, 0x01, 0x00}, Header{Fin: true, Opcode: Binary, Length: 256, LengthForm: 3}},
		{"64 KiB of binary", []byte{0x82, 0x7F, 0, 0, 0, 0, 0, 1, 0, 0}, Header{Fin: true, Opcode: Binary, Length: 65536, LengthForm: 9}},
	}
	for _, tt := range tests {
		if h, n := ParseHeader(tt.wire); n != len(tt.wire) || h != tt.want {
			t.Errorf("%s: ParseHeader = %+v, %d, want %+v, %d", tt.name, h, n, tt.want, len(tt.wire))
		}
		if b := AppendHeader(nil, tt.want); !bytes.Equal(b, tt.wire) {
			t.Errorf("%s: AppendHeader = %x, want %x", tt.name, b, tt.wire)
		}
	}
}

// TestHeaderLongForms: needlessly long lengths are read as they stand, for
// somebody else to judge, and never written.
func TestHeaderLongForms(t *testing.T) {
	for _, b := range [][]byte{
		{0x82, 126, 0, 5},
		{0x82, 127, 0, 0, 0, 0, 0, 0, 0, 5},
	} {
		h, n := ParseHeader(b)
		if n != len(b) || h.Length != 5 || int(h.LengthForm) != len(b)-1 {
			t.Errorf("ParseHeader(%x) = %+v, %d", b, h, n)
		}
		if out := AppendHeader(nil, h); !bytes.Equal(out, []byte{0x82, 5}) {
			t.Errorf("AppendHeader wrote %x for length 5", out)
		}
	}
}

func FuzzHeader(f *testing.F) {
	f.Add([]byte{0x81, 0x05})
	f.Add([]byte{0x82, 0xfe, 0x01, 0x00, 1, 2, 3, 4, 0xff})
	f.Add([]byte{0x82, 0x7e, 0x00, 0x7d})
	f.Add([]byte{0xf3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0})
	f.Add([]byte{0x02, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0})
	f.Add([]byte{0x88})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, n := ParseHeader(b)
		if n == 0 {
			if h != (Header{}) {
				t.Fatalf("%x is too short and gives %+v", b, h)
			}
			if len(b) >= HeaderMax {
				t.Fatalf("%d bytes are too short for a header", len(b))
			}
			if len(b) >= 2 && len(b) >= HeaderSize(b[1]) {
				t.Fatalf("%x holds a header of %d bytes and gives none", b, HeaderSize(b[1]))
			}
			return
		}
		if n > len(b) || n != HeaderSize(b[1]) {
			t.Fatalf("header of %x takes %d bytes", b, n)
		}
		out := AppendHeader(nil, h)
		if len(out) > n {
			t.Fatalf("%x written again is longer: %x", b[:n], out)
		}
		back, m := ParseHeader(out)
		if m != len(out) {
			t.Fatalf("%x parses as %d bytes", out, m)
		}
		shortest := len(out) == n
		if shortest && !bytes.Equal(out, b[:n]) {
			t.Fatalf("%x written again is %x", b[:n], out)
		}
		if !shortest && back.LengthForm >= h.LengthForm {
			t.Fatalf("%x is shorter than %x but has no shorter length", out, b[:n])
		}
		back.LengthForm = h.LengthForm
		if back != h {
			t.Fatalf("%x: %+v written and read again is %+v", b[:n], h, back)
		}
	})
}

func BenchmarkParseHeader(b *testing.B) {
	for _, bb := range []struct {
		name   string
		header Header
	}{
		{"short masked", Header{Fin: true, Opcode: Text, Length: 1, Masked: true, Key: [4]byte{1, 2, 3, 4}}},
		{"16-bit", Header{Fin: true, Opcode: Binary, Length: 16380}},
		{"64-bit masked", Header{Fin: true, Opcode: Binary, Length: 230424, Masked: true, Key: [4]byte{1, 2, 3, 4}}},
	} {
		p := AppendHeader(nil, bb.header)
		b.Run(bb.name, func(b *testing.B) {
			for b.Loop() {
				ParseHeader(p)
			}
		})
	}
}

func BenchmarkAppendHeader(b *testing.B) {
	h := Header{Fin: true, Opcode: Binary, Length: 16380}
	buf := make([]byte, 0, HeaderMax)
	for b.Loop() {
		buf = AppendHeader(buf[:0], h)
	}
}
