//go:build !purego

package wire

// maskVectorMin is the shortest payload in bytes for maskVector.
const maskVectorMin = 64

func maskVector(_ level, k uint32, dst, src []byte) { maskNEON(k, dst, src) }

// maskNEON needs at least 16 bytes.
//
//go:noescape
func maskNEON(k uint32, dst, src []byte)
