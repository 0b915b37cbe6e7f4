//go:build !purego

package wire

// utf8VectorMin is the shortest text in bytes that is worth a kernel and long
// enough for one: a vector, the three bytes before it, and three more because
// the characters that are decoded first may end that much later.
const utf8VectorMin = 32 + 3 + 3

// utf8Vector reports whether no byte of p[3:] breaks a rule together with the
// three before it. p[:3] is known to be valid and to end with a character, and
// may begin within one.
func utf8Vector(l level, p []byte) bool {
	if l == avx512 && len(p) >= 64+3 {
		return utf8AVX512(p)
	}
	return utf8AVX2(p)
}

// utf8AVX2 needs at least 32+3 bytes.
//
//go:noescape
func utf8AVX2(p []byte) bool

// utf8AVX512 needs at least 64+3 bytes.
//
//go:noescape
func utf8AVX512(p []byte) bool
