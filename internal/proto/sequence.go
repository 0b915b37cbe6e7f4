package proto

import "github.com/weft-ws/weft/internal/wire"

// A sequence holds the one rule that everything else serves: CONTINUATION if
// and only if a message is open. Receiver, Sender and the fuzzers step it.
//
// It remembers the open message, not the last FIN bit: a ping in between has
// FIN set as well.
type sequence struct {
	open  bool // a message has been begun and its FIN not been seen
	begun bool // there has been a data frame
}

// step judges the next frame of a direction by its place alone and returns the
// ID of the rule it breaks, or "".
func (s *sequence) step(op wire.Opcode, fin bool) string {
	switch {
	case op.Control():
		// RFC 6455, 5.4: "Control frames MAY be injected in the middle of a
		// fragmented message." They change nothing.
		return ""
	case op == wire.Continuation && !s.open:
		if !s.begun {
			return "MS-01"
		}
		return "MS-02"
	case op != wire.Continuation && s.open:
		return "MS-03"
	}
	s.open, s.begun = !fin, true
	return ""
}
