// Package mcpws carries the Model Context Protocol over WebSocket: transports
// for the official Go SDK on both sides and an HTTP handler that accepts
// clients. The binding is written down in docs/mcp-over-websocket.md.
//
// One JSON-RPC message is one text message; newline-ended, newline-separated
// and pretty-printed messages are understood as well. A message that cannot be
// read is answered with a JSON-RPC error and the connection goes on. Ids are
// carried byte for byte in both directions.
package mcpws

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/weft-ws/weft/mcpws/envelope"
	"github.com/weft-ws/weft/ws"
)

// Subprotocol is what clients offer and servers select.
const Subprotocol = "mcp"

// Defaults of this binding. They apply where a ws.Config given to a transport
// or handler of this package leaves zero.
const (
	DefaultMessageMax = 16 << 20         // bytes of a message, then close 1009
	DefaultKeepAlive  = 30 * time.Second // between pings
	DefaultPong       = 60 * time.Second // for a pong: two intervals without one close 1001
	DefaultIdle       = 5 * time.Minute  // without any frame, then close 1008
	DefaultConns      = 1000             // connections of a Handler
	DefaultCallsMax   = 256              // requests of one peer in flight
)

// A BinaryPolicy says what a binary message means.
type BinaryPolicy uint8

const (
	BinaryReject BinaryPolicy = iota // close 1003
	BinaryAsText                     // read it as UTF-8 text
)

// A NewlinePolicy says whether messages that we send end with a line feed.
type NewlinePolicy uint8

const (
	NewlineNever  NewlinePolicy = iota
	NewlineMirror               // if the peer's first message did
	NewlineAlways
)

// An ErrorPolicy says what a message that cannot be read leads to.
type ErrorPolicy uint8

const (
	ErrorsReply ErrorPolicy = iota // a JSON-RPC error, and the connection goes on
	ErrorsClose                    // the connection is closed with 1002
)

// A Dialect tunes the binding for a peer, see docs/mcp-over-websocket.md,
// section 2. The zero value is right for every SDK; the rest is for peers that
// are known to want it.
type Dialect struct {
	Framing envelope.Framing // where a message ends. Zero: with its WebSocket message
	Binary  BinaryPolicy     // Zero: close 1003
	Newline NewlinePolicy    // after what we send. Zero: none
	Errors  ErrorPolicy      // Zero: a JSON-RPC error, and the connection goes on

	// BadMessagesMax closes the connection with 1008 after this many messages
	// in a row that could not be read. Zero: never.
	BadMessagesMax int
}

// Strict returns the dialect of peers that frame by line feed alone and close
// on the first fault: framing = stream, errors = close. The codes and reasons
// are in docs/mcp-over-websocket.md, section 2.1.
func Strict() Dialect {
	return Dialect{Framing: envelope.Stream, Newline: NewlineAlways, Errors: ErrorsClose}
}

// Reasons that peers of the streamed dialect know, word for word. The fourth is
// that of [envelope.TooBigError].
const (
	reasonLate  = "Fragment reassembly timeout"
	reasonUTF8  = "Invalid UTF-8 encoding"
	reasonParse = "JSON-RPC parse error"
)

// Config returns cfg with what the dialect wants of the engine: with
// ErrorsClose, the codes and reasons for messages that are late, too big or not
// UTF-8, which the engine finds before this package sees them. Other faults of
// the framing keep the codes of RFC 6455. A CloseWith that cfg has is kept.
func (d Dialect) Config(cfg ws.Config) ws.Config {
	if d.Errors == ErrorsClose && cfg.CloseWith == nil {
		cfg.CloseWith = closeStrictly
	}
	return cfg
}

func closeStrictly(cause error, code ws.CloseCode, reason string) (ws.CloseCode, string) {
	var v *ws.ProtocolError
	var l *ws.LimitError
	var t *ws.TimeoutError
	switch {
	case errors.As(cause, &v) && (v.Rule.Name == "text-not-utf8" || v.Rule.Name == "text-ends-inside-character"):
		return ws.CloseProtocolError, reasonUTF8
	case errors.As(cause, &l) && l.Code == ws.CloseMessageTooBig:
		return ws.CloseMessageTooBig, (&envelope.TooBigError{Max: int(l.Max)}).Error()
	case errors.As(cause, &t) && (t.Limit == "MessageTimeout" || t.Limit == "GapTimeout"):
		return ws.CloseProtocolError, reasonLate
	}
	return code, reason
}

// Options tune a transport. The zero value works.
type Options struct {
	Dialect Dialect
	// CallsMax bounds the requests of the peer that are in flight; one more is
	// answered with -32603. Zero: 256.
	CallsMax int
	// Logger gets what the peer did wrong. Nil: nothing is logged.
	Logger *slog.Logger
}

func (o *Options) callsMax() int {
	if o.CallsMax <= 0 {
		return DefaultCallsMax
	}
	return o.CallsMax
}

// Defaults returns cfg with this package's defaults where it has zero. Negative
// values stay: they switch a limit off. In Stream framing a message is bounded
// at 16 MiB all the same, since nothing else ends a line without a line feed.
func Defaults(cfg ws.Config) ws.Config {
	if cfg.MaxMessageSize == 0 {
		cfg.MaxMessageSize = DefaultMessageMax
	}
	if cfg.KeepAlive == 0 {
		cfg.KeepAlive = DefaultKeepAlive
	}
	if cfg.PongTimeout == 0 {
		cfg.PongTimeout = DefaultPong
	}
	if cfg.IdleTimeout == 0 {
		cfg.IdleTimeout = DefaultIdle
	}
	return cfg
}

// ParseBinary reads the word of a BinaryPolicy in a configuration.
func ParseBinary(s string) (BinaryPolicy, error) {
	switch s {
	case "", "reject":
		return BinaryReject, nil
	case "text":
		return BinaryAsText, nil
	}
	return 0, fmt.Errorf("binary %q is neither \"reject\" nor \"text\"", s)
}

// ParseNewline reads the word of a NewlinePolicy in a configuration.
func ParseNewline(s string) (NewlinePolicy, error) {
	switch s {
	case "", "never":
		return NewlineNever, nil
	case "mirror":
		return NewlineMirror, nil
	case "always":
		return NewlineAlways, nil
	}
	return 0, fmt.Errorf("newline %q is none of \"never\", \"mirror\", \"always\"", s)
}

// ParseErrors reads the word of an ErrorPolicy in a configuration.
func ParseErrors(s string) (ErrorPolicy, error) {
	switch s {
	case "", "reply":
		return ErrorsReply, nil
	case "close":
		return ErrorsClose, nil
	}
	return 0, fmt.Errorf("errors %q is neither \"reply\" nor \"close\"", s)
}
