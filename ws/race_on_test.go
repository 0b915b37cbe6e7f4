//go:build race

package ws

// raceEnabled reports whether the race detector is on: it is slow, and makes
// sync.Pool forget on purpose.
const raceEnabled = true
