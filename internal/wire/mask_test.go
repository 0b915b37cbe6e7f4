package wire

import (
	"bytes"
	"fmt"
	"testing"
)

// maskByte is the definition: RFC 6455 section 5.3, byte by byte.
func maskByte(key [4]byte, dst, src []byte) [4]byte {
	for i := range src {
		dst[i] = src[i] ^ key[i%4]
	}
	n := len(src)
	return [4]byte{key[n%4], key[(n+1)%4], key[(n+2)%4], key[(n+3)%4]}
}

// keyOf is the key as mask wants it.
func keyOf(key [4]byte) uint32 {
	return uint32(key[0]) | uint32(key[1])<<8 | uint32(key[2])<<16 | uint32(key[3])<<24
}

// pattern returns n bytes that repeat nowhere near.
func pattern(n int) []byte {
	p := make([]byte, n)
	x := uint32(1)
	for i := range p {
		x = x*1664525 + 1013904223
		p[i] = byte(x >> 24)
	}
	return p
}

// TestMaskEveryLengthAndAlignment goes through all kernels of this processor,
// copying and in place, with guard bytes around what they may write.
func TestMaskEveryLengthAndAlignment(t *testing.T) {
	const guard, lenMax = 64, 300
	src := pattern(lenMax + 64)
	untouched := bytes.Repeat([]byte{0xEE}, guard+64+lenMax+guard)
	want, got := bytes.Clone(untouched), bytes.Clone(untouched)
	for _, l := range levels() {
		t.Run(l.String(), func(t *testing.T) {
			for n := 0; n <= lenMax; n++ {
				for off := range 64 {
					// Sources begin at every offset, destinations too, not at the
					// same one, with every phase of the key.
					from := src[off : off+n]
					at := guard + (off*5+3)%64
					key := maskByte([4]byte{0x11, 0x82, 0x47, 0xF3}, make([]byte, 3), src[:off%4])
					copy(want, untouched)
					wantKey := keyOf(maskByte(key, want[at:], from))

					for _, inPlace := range []bool{false, true} {
						copy(got, untouched)
						dst, in := got[at:at+n:at+n], from
						if inPlace {
							copy(dst, from)
							in = dst
						}
						if k := mask(l, keyOf(key), dst, in); k != wantKey {
							t.Fatalf("%d bytes at %d: key to go on with %08x, want %08x", n, off, k, wantKey)
						}
						if !bytes.Equal(got, want) {
							t.Fatalf("%d bytes at %d, in place %v: memory is wrong in the %d bytes from %d, or around them\n got %x\nwant %x",
								n, off, inPlace, n, at, got, want)
						}
					}
				}
			}
			if !bytes.Equal(src, pattern(len(src))) {
				t.Error("wrote to the source")
			}
		})
	}
}

func TestMaskLong(t *testing.T) {
	key := [4]byte{0xA1, 0x02, 0x73, 0xD4}
	src := pattern(2*pieceMax + 3*maskVectorMin)
	want := make([]byte, len(src))
	got := make([]byte, len(src))
	for _, l := range levels() {
		t.Run(l.String(), func(t *testing.T) {
			for _, piece := range []int{1024, 16 << 10, pieceMax, pieceMax + maskVectorMin, 2 * pieceMax, 2*pieceMax + maskVectorMin} {
				for n := piece - 5; n <= piece+5; n++ {
					wantKey := keyOf(maskByte(key, want, src[:n]))
					clear(got)
					if k := mask(l, keyOf(key), got[:n], src[:n]); k != wantKey {
						t.Fatalf("%d bytes: key to go on with %08x, want %08x", n, k, wantKey)
					}
					if !bytes.Equal(got[:n], want[:n]) {
						t.Fatalf("%d bytes: masked wrongly", n)
					}
					if !bytes.Equal(got[n:], make([]byte, len(got)-n)) {
						t.Fatalf("%d bytes: wrote beyond them", n)
					}
				}
			}
		})
	}
}

func TestMaskIsItsOwnInverse(t *testing.T) {
	key := [4]byte{1, 2, 3, 4}
	for n := range 200 {
		p := pattern(n)
		after := Mask(key, p)
		if n > 4 && bytes.Equal(p, pattern(n)) {
			t.Fatalf("%d bytes: not masked", n)
		}
		if again := Mask(key, p); again != after {
			t.Fatalf("%d bytes: keys to go on with %x and %x differ", n, after, again)
		}
		if !bytes.Equal(p, pattern(n)) {
			t.Fatalf("%d bytes: twice masked is not the original", n)
		}
	}
}

// TestMaskInPieces: where a payload is cut does not matter.
func TestMaskInPieces(t *testing.T) {
	start := [4]byte{0x37, 0xFA, 0x21, 0x3D}
	const n = 150
	want := make([]byte, n)
	maskByte(start, want, pattern(n))
	for i := 0; i <= n; i++ {
		for j := i; j <= n; j++ {
			got := pattern(n)
			key := Mask(start, got[:i])
			key = MaskCopy(key, got[i:j], got[i:j])
			Mask(key, got[j:])
			if !bytes.Equal(got, want) {
				t.Fatalf("cut at %d and %d: masked wrongly", i, j)
			}
		}
	}
}

// TestMaskRFCExample is the masked "Hello" of RFC 6455 section 5.7.
func TestMaskRFCExample(t *testing.T) {
	key := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	want := []byte{0x7f, 0x9f, 0x4d, 0x51, 0x58}
	got := make([]byte, 8)
	if k := MaskCopy(key, got, []byte("Hello")); k != [4]byte{0xfa, 0x21, 0x3d, 0x37} {
		t.Errorf("key to go on with %x, want fa213d37", k)
	}
	if !bytes.Equal(got, append(want, 0, 0, 0)) {
		t.Errorf("masked Hello is %x, want %x and nothing beyond", got, want)
	}
}

func TestMaskCopyRefusesShortDestination(t *testing.T) {
	spare := make([]byte, 10)
	defer func() {
		if recover() == nil {
			t.Error("MaskCopy wrote beyond the destination's length")
		}
		if !bytes.Equal(spare, make([]byte, 10)) {
			t.Errorf("destination's spare capacity is %x", spare)
		}
	}()
	MaskCopy([4]byte{1, 2, 3, 4}, spare[:4], make([]byte, 5))
}

func FuzzMask(f *testing.F) {
	f.Add([]byte("Hello"), uint32(0x3d21fa37), uint16(2))
	f.Add(pattern(64), uint32(0xffffffff), uint16(0))
	f.Add(pattern(1000), uint32(0x01020304), uint16(129))
	f.Fuzz(func(t *testing.T, p []byte, k uint32, cut uint16) {
		key := [4]byte{byte(k), byte(k >> 8), byte(k >> 16), byte(k >> 24)}
		want := make([]byte, len(p))
		wantKey := keyOf(maskByte(key, want, p))
		c := min(int(cut), len(p))
		for _, l := range levels() {
			got := bytes.Clone(p)
			next := mask(l, keyOf(key), got[:c], got[:c])
			next = mask(l, next, got[c:], got[c:])
			if !bytes.Equal(got, want) || next != wantKey {
				t.Errorf("%v: %d bytes with key %x cut at %d: masked wrongly, or key to go on with %08x, want %08x", l, len(p), key, c, next, wantKey)
			}
		}
	})
}

// BenchmarkMask masks in place. memmove, which only copies, gives the scale.
func BenchmarkMask(b *testing.B) {
	for _, n := range []int{1, 16, 125, 1024, 16 << 10, 64 << 10, 230424, 16 << 20} {
		p, q := pattern(n), make([]byte, n)
		b.Run(fmt.Sprintf("%d/memmove", n), func(b *testing.B) {
			b.SetBytes(int64(n))
			for b.Loop() {
				copy(q, p)
			}
		})
		for _, l := range levels() {
			b.Run(fmt.Sprintf("%d/%v", n, l), func(b *testing.B) {
				b.SetBytes(int64(n))
				k := uint32(0x3d21fa37)
				for b.Loop() {
					k = mask(l, k, p, p)
				}
			})
		}
	}
}

// BenchmarkMaskCopy is the client's path: mask while copying.
func BenchmarkMaskCopy(b *testing.B) {
	for _, n := range []int{1, 125, 16 << 10, 230424} {
		p, q := pattern(n), make([]byte, n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.SetBytes(int64(n))
			key := [4]byte{0x37, 0xfa, 0x21, 0x3d}
			for b.Loop() {
				key = MaskCopy(key, q, p)
			}
		})
	}
}
