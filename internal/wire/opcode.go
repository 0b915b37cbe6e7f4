// Package wire is the byte layout of RFC 6455 section 5.2, without any state:
// opcodes, frame headers, masking and close codes.
//
// Whether a header may stand where it stands is decided in package proto.
package wire

import "strconv"

// An Opcode is the four-bit frame type of RFC 6455 section 5.2.
type Opcode uint8

const (
	Continuation Opcode = 0x0
	Text         Opcode = 0x1
	Binary       Opcode = 0x2
	Close        Opcode = 0x8
	Ping         Opcode = 0x9
	Pong         Opcode = 0xA
)

// Control reports whether the opcode is a control opcode, defined or reserved
// (0x8 to 0xF).
func (o Opcode) Control() bool { return o&0x8 != 0 }

// Reserved reports whether RFC 6455 assigns no meaning to the opcode.
func (o Opcode) Reserved() bool {
	return o > Binary && o < Close || o > Pong
}

// String returns the field's short name, as in "TEXT" or "CONT"; a reserved
// opcode reads "0x3".
func (o Opcode) String() string {
	switch o {
	case Continuation:
		return "CONT"
	case Text:
		return "TEXT"
	case Binary:
		return "BINARY"
	case Close:
		return "CLOSE"
	case Ping:
		return "PING"
	case Pong:
		return "PONG"
	}
	return "0x" + strconv.FormatUint(uint64(o), 16)
}
