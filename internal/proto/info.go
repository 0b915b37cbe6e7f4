// Package proto is the protocol of RFC 6455 as state machines without I/O.
// Nothing here blocks, locks, logs or asks for the time.
//
// A good order to read: rules.go (the catalogue), sequence.go (the rule that
// everything else serves), receiver.go, sender.go, closing.go.
package proto

import (
	"fmt"
	"strings"

	"github.com/weft-ws/weft/internal/wire"
)

// A Role is the end of a connection that somebody speaks for. Clients mask,
// servers do not.
type Role uint8

const (
	Client Role = 1 + iota
	Server
)

// String returns "client" or "server".
func (r Role) String() string {
	if r == Client {
		return "client"
	}
	return "server"
}

// Peer returns the other end.
func (r Role) Peer() Role {
	if r == Client {
		return Server
	}
	return Client
}

// A Direction says which way bytes went, as seen from this end.
type Direction uint8

const (
	In Direction = 1 + iota
	Out
)

// String returns "in" or "out".
func (d Direction) String() string {
	if d == In {
		return "in"
	}
	return "out"
}

// FrameInfo is a frame header with its place in the stream.
type FrameInfo struct {
	wire.Header
	Dir      Direction
	Index    int64 // ordinal of the frame in its direction, from 1
	Offset   int64 // byte offset of the header in its direction's stream of frames
	Fragment int   // ordinal within its message, from 1; 0 for a control frame
}

// A Violation is a rule broken by the peer, with the frame that broke it.
type Violation struct {
	Rule  *Rule
	From  Role // who broke it
	Frame FrameInfo
	// Offset is the byte in its direction's stream of frames at which the breach
	// shows: the header, or the bad byte of a payload.
	Offset int64
	Detail string // what was seen, in words; may be empty
}

// Error names the offender, the rule, its source, the frame and the byte.
func (v *Violation) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s broke %s (%s", v.From, v.Rule.Name, v.Rule.ID)
	if v.Rule.RFC != "" {
		fmt.Fprintf(&b, ", RFC %s %s", v.Rule.RFC, v.Rule.Section)
	}
	fmt.Fprintf(&b, ") in frame %d at byte %d", v.Frame.Index, v.Offset)
	if v.Detail != "" {
		b.WriteString(": " + v.Detail)
	}
	return b.String()
}
