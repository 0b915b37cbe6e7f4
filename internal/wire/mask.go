package wire

import (
	"encoding/binary"
	"math/bits"
)

// Mask masks or unmasks b in place (RFC 6455 section 5.3; both are the same
// operation) and returns the key to go on with: the key rotated by len(b), so
// that a payload can be handled piece by piece.
func Mask(key [4]byte, b []byte) [4]byte {
	return maskCopy(key, b, b)
}

// MaskCopy writes src, masked, to dst, which must be at least as long, and
// returns the key to go on with. dst and src must be the same memory or not
// overlap.
func MaskCopy(key [4]byte, dst, src []byte) [4]byte {
	return maskCopy(key, dst[:len(src)], src)
}

func maskCopy(key [4]byte, dst, src []byte) [4]byte {
	n := len(src)
	k := binary.LittleEndian.Uint32(key[:])
	k64 := uint64(k)<<32 | uint64(k)
	for len(src) >= 8 {
		binary.LittleEndian.PutUint64(dst, binary.LittleEndian.Uint64(src)^k64)
		src, dst = src[8:], dst[8:]
	}
	for i := range src {
		dst[i] = src[i] ^ key[i&3]
	}
	binary.LittleEndian.PutUint32(key[:], bits.RotateLeft32(k, -8*(n&3)))
	return key
}
