package ws

import "github.com/weft-ws/weft/internal/proto"

// A FrameInfo describes one frame and its place in the stream.
type FrameInfo = proto.FrameInfo

// A Direction is In or Out, as seen from this end.
type Direction = proto.Direction

const (
	In  = proto.In
	Out = proto.Out
)

// A Trace holds optional hooks, after the manner of httptrace.ClientTrace. An
// unset hook costs nothing. Hooks run on the goroutine that moves the bytes,
// those of one direction one after the other, and must not call the Conn.
type Trace struct {
	// Frame is called for each frame header accepted, and for each that is about
	// to be sent.
	Frame func(FrameInfo)
	// Bytes is called with the raw stream after the opening handshake, in the
	// order of the wire; b is borrowed.
	Bytes func(dir Direction, b []byte)
	// Violation is called when the peer breaks a rule, before the connection is
	// closed for it, if it is.
	Violation func(*ProtocolError)
	// Closed is called once, when the connection is over.
	Closed func(*CloseError)
}
