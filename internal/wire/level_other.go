//go:build purego || !(amd64 || arm64)

package wire

const best = plain
