//go:build purego || !(amd64 || arm64)

package wire

// maskVectorMin is not reached: the level is plain.
const maskVectorMin = 64

func maskVector(_ level, k uint32, dst, src []byte) { maskWords(k, dst, src) }
