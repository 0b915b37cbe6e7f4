//go:build purego || !(amd64 || arm64)

package wire

// utf8VectorMin is not reached: the level is plain.
const utf8VectorMin = 64

func utf8Vector(_ level, p []byte) bool { return validPlain(p) }
