//go:build !purego

package wire

// maskVectorMin is the shortest payload in bytes for maskVector.
const maskVectorMin = 64

func maskVector(l level, k uint32, dst, src []byte) {
	if l == avx512 {
		maskAVX512(k, dst, src)
		return
	}
	maskAVX2(k, dst, src)
}

// maskAVX2 needs at least 32 bytes.
//
//go:noescape
func maskAVX2(k uint32, dst, src []byte)

// maskAVX512 needs at least 64 bytes.
//
//go:noescape
func maskAVX512(k uint32, dst, src []byte)
