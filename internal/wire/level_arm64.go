//go:build !purego

package wire

// best is the level of every arm64 processor that Go runs on.
const best = neon
