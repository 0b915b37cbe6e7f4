package proto

import (
	"fmt"
	"time"

	"github.com/weft-ws/weft/internal/wire"
)

// FrameCost is what a data frame costs at least of its message's frame budget,
// in bytes. It ends floods of empty and of one-byte fragments with one rule,
// while a message in honest fragments of that size still passes whole.
const FrameCost = 64

// FrameBudgetMin is the smallest frame budget of a message in bytes, so that
// a short message limit does not refuse a short message in tiny fragments.
const FrameBudgetMin = 1 << 20

// Limits bound what a peer may make us hold or wait for. Zero means no limit.
type Limits struct {
	MessageSize  int64         // payload bytes of a message
	Fragments    int           // data frames of a message
	MessageTime  time.Duration // from the first byte of a message to its FIN
	GapTime      time.Duration // without a byte of an open message
	MinRate      int64         // bytes per second that extend MessageTime
	IdleTime     time.Duration // without a byte at all
	ControlRate  int           // control frames per second
	ControlBurst int           // control frames at once, when ControlRate is set
	Deflate      bool          // permessage-deflate is in force: RSV1 has a meaning
}

// affords reports whether a message of so many payload bytes, whose frames were
// so much shorter than FrameCost, surely stays within its limits.
func (l *Limits) affords(size, overhead int64) bool {
	if l.MessageSize > 0 {
		return size <= l.MessageSize && size+overhead <= max(l.MessageSize, FrameBudgetMin)
	}
	return overhead <= FrameCost*FrameBudgetMin
}

// A LimitError is a limit of ours exceeded by the peer.
type LimitError struct {
	Limit string         // name of the limit, as in the configuration
	Max   int64          // its value
	Code  wire.CloseCode // close code that the peer sees
	Frame FrameInfo      // frame at which it was exceeded, where there is one
}

// Error names the limit, its value and the frame.
func (e *LimitError) Error() string {
	s := fmt.Sprintf("peer exceeded %s of %d", e.Limit, e.Max)
	if e.Frame.Index > 0 {
		s += fmt.Sprintf(" in frame %d at byte %d", e.Frame.Index, e.Frame.Offset)
	}
	return s
}

// A TimeoutError is a deadline of ours missed by the peer. It implements
// net.Error.
type TimeoutError struct {
	Limit string         // name of the limit, as in the configuration
	After time.Duration  // its value
	Code  wire.CloseCode // close code that the peer sees; 0 where none could be sent
}

// Error names the deadline and its value.
func (e *TimeoutError) Error() string {
	return fmt.Sprintf("peer missed %s of %v", e.Limit, e.After)
}

// Timeout returns true.
func (e *TimeoutError) Timeout() bool { return true }

// Temporary returns false: the connection is over.
func (e *TimeoutError) Temporary() bool { return false }
