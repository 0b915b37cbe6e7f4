// Package deflate is the permessage-deflate extension of RFC 7692: the
// negotiation, an inflater that is fed and a deflater that appends. It does no
// I/O, starts no goroutine and takes no lock. A value belongs to one goroutine
// at a time; different values may be used at the same time.
//
// A good order to read: extension.go (the header grammar), negotiate.go (what
// was agreed), inflate.go (the state machine, slow and resumable at any byte),
// inflate_fast.go (the same symbols while there is room to run), window.go,
// tables.go, then deflater.go (messages), match.go (finding repetitions) and
// block.go (writing them down).
package deflate

import (
	"errors"
	"fmt"
)

const (
	// WindowBitsMin and WindowBitsMax bound the base-two logarithm of a window
	// size. RFC 7692, 7.1.2.1: "a decimal integer value without leading zeroes
	// between 8 to 15, inclusive".
	WindowBitsMin = 8
	WindowBitsMax = 15
)

// Tail is what the sender of a compressed message takes off its end and the
// receiver puts back: the length fields of an empty stored block (RFC 7692,
// 7.2.1). AppendMessage leaves it off and Inflater.Step supplies it.
const Tail = "\x00\x00\xff\xff"

// ErrCorrupt is matched (errors.Is) by every error of Inflater.Step: the
// compressed message cannot be read. The connection fails with 1007.
var ErrCorrupt = errors.New("compressed message is not valid")

// An Error is a rule that the peer broke: in its Sec-WebSocket-Extensions
// header or in the payload of a compressed message.
type Error struct {
	// RuleID is a row of the rule catalogue: HS-15 and HR-06 for the header, DF-04
	// to DF-09 for the parameters, DF-10 to DF-12 for compressed data.
	RuleID string
	// Offset counts the bytes of compressed payload (of this message, all fragments
	// together) that were read when the breach showed; -1 in a handshake.
	Offset int64
	// Detail says what was seen, in words.
	Detail string
}

// Error names the rule, what was seen and, in compressed data, where.
func (e *Error) Error() string {
	if e.Offset < 0 {
		return fmt.Sprintf("permessage-deflate: %s (%s)", e.Detail, e.RuleID)
	}
	return fmt.Sprintf("permessage-deflate: %s after %d bytes of compressed payload (%s)", e.Detail, e.Offset, e.RuleID)
}

// Is makes errors.Is(err, ErrCorrupt) hold for what Inflater.Step returns.
func (e *Error) Is(target error) bool { return target == ErrCorrupt && e.Offset >= 0 }

// clampWindowBits maps everything outside 8 to 15 to 15, the value that RFC
// 7692 assumes where nothing was agreed.
func clampWindowBits(bits int) int {
	if bits < WindowBitsMin || bits > WindowBitsMax {
		return WindowBitsMax
	}
	return bits
}
