package proto

import "github.com/weft-ws/weft/internal/wire"

// A CloseFrame is what a Close frame said.
type CloseFrame struct {
	Code   wire.CloseCode // CloseNoStatus if the frame had no body
	Reason string
}

// A Closing is the closing handshake of both directions, RFC 6455 section 7.
// It is the only thing that the two directions of a connection share.
type Closing struct {
	sent, received *CloseFrame
	remoteFirst    bool
}

// Sent notes that our Close went to the wire.
func (c *Closing) Sent(code wire.CloseCode, reason string) {
	if c.sent == nil {
		c.sent = &CloseFrame{code, reason}
	}
}

// Received notes the peer's Close.
func (c *Closing) Received(code wire.CloseCode, reason string) {
	if c.received == nil {
		c.received = &CloseFrame{code, reason}
		c.remoteFirst = c.sent == nil
	}
}

// Frames returns both Close frames, nil for one that there has not been, and
// whether the peer's came first.
func (c *Closing) Frames() (sent, received *CloseFrame, remoteFirst bool) {
	return c.sent, c.received, c.remoteFirst
}

// Done reports whether the handshake is complete.
func (c *Closing) Done() bool { return c.sent != nil && c.received != nil }

// Answer is the code with which to answer the peer's Close: RFC 6455, 5.5.1,
// "the endpoint typically echos the status code it received", and a Close
// without a code is answered without one.
func (c *Closing) Answer() wire.CloseCode {
	if c.received == nil {
		return wire.CloseNoStatus
	}
	return c.received.Code
}
