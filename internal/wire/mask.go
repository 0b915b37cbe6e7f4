package wire

import (
	"encoding/binary"
	"math/bits"
)

// Mask masks or unmasks b in place (RFC 6455 section 5.3; both are the same
// operation) and returns the key to go on with: the key rotated by len(b), so
// that a payload can be handled piece by piece.
func Mask(key [4]byte, b []byte) [4]byte {
	k := mask(best, binary.LittleEndian.Uint32(key[:]), b, b)
	binary.LittleEndian.PutUint32(key[:], k)
	return key
}

// MaskCopy writes src, masked, to the beginning of dst and returns the key to
// go on with. It writes len(src) bytes and never looks at dst beyond them; dst
// must be at least as long. dst and src must begin at the same byte or not
// overlap.
func MaskCopy(key [4]byte, dst, src []byte) [4]byte {
	dst = dst[:len(dst):len(dst)][:len(src)] // panics rather than write into dst's spare capacity
	k := mask(best, binary.LittleEndian.Uint32(key[:]), dst, src)
	binary.LittleEndian.PutUint32(key[:], k)
	return key
}

// rotateKey returns the key after n bytes of payload: "j = i MOD 4" and
// "transformed-octet-i = original-octet-i XOR masking-key-octet-j" (RFC 6455
// section 5.3) go on counting i where the last piece ended.
func rotateKey(k uint32, n int) uint32 { return bits.RotateLeft32(k, -8*(n&3)) }

// pieceMax is how many bytes one call of a kernel in assembly gets, or a few
// more. The scheduler cannot interrupt assembly: a garbage collection that waits
// for a goroutine in there waits for all of it. 256 KiB take about 10 µs.
const pieceMax = 256 << 10

// mask masks src into dst, which is as long, with the kernels of level l, and
// returns the key to go on with. The key is a little-endian number on every
// processor: its lowest byte masks the next byte of the payload.
//
// Where a payload is no multiple of a word or vector, the last one lies over
// the one before: there is no loop for single bytes.
func mask(l level, k uint32, dst, src []byte) uint32 {
	n := len(src)
	switch {
	case n >= maskVectorMin && l != plain:
		for len(src) > pieceMax+maskVectorMin {
			maskVector(l, k, dst[:pieceMax], src[:pieceMax])
			dst, src = dst[pieceMax:], src[pieceMax:]
		}
		maskVector(l, k, dst, src)
	case n >= 16:
		maskWords(k, dst, src)
	case n >= 8:
		// Both words are read before either is written: in place, the second
		// would otherwise read what the first has masked already.
		k64 := uint64(k)<<32 | uint64(k)
		a, z := binary.LittleEndian.Uint64(src), binary.LittleEndian.Uint64(src[n-8:])
		binary.LittleEndian.PutUint64(dst, a^k64)
		binary.LittleEndian.PutUint64(dst[n-8:], z^bits.RotateLeft64(k64, -8*(n&3)))
	case n >= 4:
		a, z := binary.LittleEndian.Uint32(src), binary.LittleEndian.Uint32(src[n-4:])
		binary.LittleEndian.PutUint32(dst, a^k)
		binary.LittleEndian.PutUint32(dst[n-4:], z^rotateKey(k, n))
	default:
		for i := range src {
			dst[i] = src[i] ^ byte(k>>(8*i))
		}
	}
	return rotateKey(k, n)
}

// maskWords masks at least 8 bytes by words of eight.
func maskWords(k uint32, dst, src []byte) {
	k64 := uint64(k)<<32 | uint64(k)
	n := len(src)
	z := binary.LittleEndian.Uint64(src[n-8:]) ^ bits.RotateLeft64(k64, -8*(n&3))
	last := dst[n-8:]
	for len(src) >= 32 && len(dst) >= 32 {
		binary.LittleEndian.PutUint64(dst, binary.LittleEndian.Uint64(src)^k64)
		binary.LittleEndian.PutUint64(dst[8:], binary.LittleEndian.Uint64(src[8:])^k64)
		binary.LittleEndian.PutUint64(dst[16:], binary.LittleEndian.Uint64(src[16:])^k64)
		binary.LittleEndian.PutUint64(dst[24:], binary.LittleEndian.Uint64(src[24:])^k64)
		src, dst = src[32:], dst[32:]
	}
	for len(src) >= 8 && len(dst) >= 8 {
		binary.LittleEndian.PutUint64(dst, binary.LittleEndian.Uint64(src)^k64)
		src, dst = src[8:], dst[8:]
	}
	binary.LittleEndian.PutUint64(last, z)
}
