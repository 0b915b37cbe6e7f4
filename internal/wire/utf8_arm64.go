//go:build !purego

package wire

// utf8VectorMin is the shortest text in bytes that is worth a kernel, which
// needs 16+3 and loses three to the characters that are decoded first.
const utf8VectorMin = 32

// utf8Vector reports whether no byte of p[3:] breaks a rule together with the
// three before it. p[:3] is known to be valid and to end with a character, and
// may begin within one.
func utf8Vector(_ level, p []byte) bool { return utf8NEON(p) }

// utf8NEON needs at least 16+3 bytes.
//
//go:noescape
func utf8NEON(p []byte) bool
