package ws

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/weft-ws/weft/internal/proto"
	"github.com/weft-ws/weft/internal/wire"
)

// A CloseCode is a status code of RFC 6455 section 7.4.
type CloseCode = wire.CloseCode

// Close codes of RFC 6455 and of the IANA registry. Applications may use 3000
// to 4999 as well.
const (
	CloseNormal             = wire.CloseNormal             // 1000
	CloseGoingAway          = wire.CloseGoingAway          // 1001: a server that stops, a page left
	CloseProtocolError      = wire.CloseProtocolError      // 1002: framing
	CloseUnsupportedData    = wire.CloseUnsupportedData    // 1003: a type of message not accepted
	CloseNoStatus           = wire.CloseNoStatus           // 1005, never on the wire: a Close without a code
	CloseAbnormal           = wire.CloseAbnormal           // 1006, never on the wire: no Close at all
	CloseInvalidPayload     = wire.CloseInvalidPayload     // 1007: bad UTF-8 or bad deflate data
	ClosePolicyViolation    = wire.ClosePolicyViolation    // 1008: a deadline, budget or rate
	CloseMessageTooBig      = wire.CloseMessageTooBig      // 1009
	CloseMandatoryExtension = wire.CloseMandatoryExtension // 1010
	CloseInternalError      = wire.CloseInternalError      // 1011: our own fault
	CloseServiceRestart     = wire.CloseServiceRestart     // 1012
	CloseTryAgainLater      = wire.CloseTryAgainLater      // 1013: overload
)

// A ProtocolError is a rule of RFC 6455 or 7692 broken by the peer: which
// rule, which frame, at which byte. The connection was closed with the rule's
// code.
type ProtocolError = proto.Violation

// A LimitError is a limit of Config exceeded by the peer.
type LimitError = proto.LimitError

// A TimeoutError is a deadline of Config missed by the peer. It implements
// net.Error.
type TimeoutError = proto.TimeoutError

// A CloseFrame is what a Close frame said.
type CloseFrame = proto.CloseFrame

// A CloseError says how a connection ended. After the end every method of the
// Conn returns the same one. errors.Is(err, net.ErrClosed) holds, and
// errors.As reaches the Cause: a *ProtocolError, *LimitError, *TimeoutError,
// or what the network said.
type CloseError struct {
	// Code and Reason are of the Close frame that came first, the peer's if
	// Remote is set. CloseAbnormal means that there was none.
	Code   CloseCode
	Reason string
	Remote bool
	// Sent and Received are both Close frames; nil for one that there was not.
	Sent, Received *CloseFrame
	// Cause is what made the connection end; nil for a closing handshake that
	// one of the applications asked for.
	Cause error
}

// Error tells who closed, with what, and why.
func (e *CloseError) Error() string {
	var b strings.Builder
	b.WriteString("ws: ")
	switch {
	case e.Remote:
		fmt.Fprintf(&b, "closed by peer: %v", e.Code)
	case e.Sent != nil:
		fmt.Fprintf(&b, "closed: %v", e.Code)
	default:
		b.WriteString("connection lost")
	}
	if e.Reason != "" {
		fmt.Fprintf(&b, " %q", e.Reason)
	}
	if e.Cause != nil {
		fmt.Fprintf(&b, ": %v", e.Cause)
	}
	if e.Sent != nil && e.Received == nil && e.Cause == nil {
		b.WriteString(" (not answered)")
	}
	return b.String()
}

// Unwrap makes net.ErrClosed and the Cause reachable, the Cause first: both may
// be a net.Error, and whether it was a timeout is told by the Cause.
func (e *CloseError) Unwrap() []error {
	if e.Cause == nil {
		return []error{net.ErrClosed}
	}
	return []error{e.Cause, net.ErrClosed}
}

// normal reports whether the connection ended as both sides meant it to.
func (e *CloseError) normal() bool {
	return e.Cause == nil && e.Received != nil &&
		(e.Code == CloseNormal || e.Code == CloseGoingAway || e.Code == CloseNoStatus)
}

// A HandshakeError is a refused or malformed opening handshake.
type HandshakeError struct {
	// Status is the HTTP status: what we answered, or what the server did.
	Status int
	// Reason says what was wrong and what to change.
	Reason string
	// Rule is the rule that was broken, nil for a refusal by policy.
	Rule *proto.Rule
	// Header and Body are of the server's refusal; Body holds its first 1,024
	// bytes.
	Header http.Header
	Body   []byte
	// Err is an underlying error, such as that of the network. May be nil.
	Err error
}

// Error names the status, the rule and the reason.
func (e *HandshakeError) Error() string {
	var b strings.Builder
	b.WriteString("ws: opening handshake")
	if e.Status != 0 {
		fmt.Fprintf(&b, ": HTTP %d", e.Status)
	}
	if e.Rule != nil {
		fmt.Fprintf(&b, ": %s (%s, RFC %s %s)", e.Rule.Name, e.Rule.ID, e.Rule.RFC, e.Rule.Section)
	}
	if e.Reason != "" {
		b.WriteString(": " + e.Reason)
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	return b.String()
}

// Unwrap returns the underlying error.
func (e *HandshakeError) Unwrap() error { return e.Err }

// ErrQueueFull is returned by Send with policy Fail when the queue has no room.
var ErrQueueFull = errors.New("ws: send queue is full")

// ErrReplaced is given to Outgoing.Done when a newer message with the same key
// took the place of one that had not been begun.
var ErrReplaced = errors.New("ws: replaced by a newer message")

// Errors of arguments. Nothing was sent and the connection is as good as
// before.
var (
	errMessageType  = errors.New("ws: message type is neither Text nor Binary")
	errNotUTF8      = errors.New("ws: text message is not valid UTF-8; nothing was sent")
	errCloseCode    = errors.New("ws: close code may not be sent; use 1000 to 1003, 1007 to 1014 or 3000 to 4999")
	errCloseReason  = errors.New("ws: close reason must be UTF-8 of at most 123 bytes")
	errPings        = errors.New("ws: too many pings wait for an answer")
	errWriterClosed = errors.New("ws: message writer is closed")
)
