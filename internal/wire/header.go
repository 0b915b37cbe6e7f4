package wire

import "encoding/binary"

// HeaderMax is the longest frame header: 2 bytes, a 64-bit length and a
// masking key.
const HeaderMax = 14

// ControlPayloadMax is the longest payload of a control frame in bytes,
// RFC 6455 section 5.5.
const ControlPayloadMax = 125

// A Header is a frame header, RFC 6455 section 5.2.
type Header struct {
	Fin              bool
	RSV1, RSV2, RSV3 bool
	Masked           bool
	Opcode           Opcode
	// LengthForm is how many bytes the payload length took: 1, 3 (16-bit form)
	// or 9 (64-bit form). AppendHeader ignores it and writes the shortest.
	LengthForm uint8
	Key        [4]byte // masking key; zero unless Masked
	// Length is the payload length in bytes, as announced. A 64-bit form may
	// announce more than an int64 holds; compare before converting.
	Length uint64
}

// HeaderSize returns how many bytes a header takes whose second byte is b1.
func HeaderSize(b1 byte) int {
	n := 2
	switch b1 & 0x7f {
	case 126:
		n += 2
	case 127:
		n += 8
	}
	if b1&0x80 != 0 {
		n += 4
	}
	return n
}

// ParseHeader decodes the header at the beginning of b. It returns the number
// of bytes that the header takes, or 0 if b is too short to hold all of it.
// It judges nothing: reserved opcodes and needlessly long forms are returned
// as they stand.
func ParseHeader(b []byte) (h Header, n int) {
	if len(b) < 2 {
		return h, 0
	}
	b0, b1 := b[0], b[1]
	n = HeaderSize(b1)
	if len(b) < n {
		return h, 0
	}
	h.Fin = b0&0x80 != 0
	h.RSV1 = b0&0x40 != 0
	h.RSV2 = b0&0x20 != 0
	h.RSV3 = b0&0x10 != 0
	h.Opcode = Opcode(b0 & 0x0f)
	h.Masked = b1&0x80 != 0
	switch l := b1 & 0x7f; l {
	case 126:
		h.Length, h.LengthForm = uint64(binary.BigEndian.Uint16(b[2:])), 3
	case 127:
		h.Length, h.LengthForm = binary.BigEndian.Uint64(b[2:]), 9
	default:
		h.Length, h.LengthForm = uint64(l), 1
	}
	if h.Masked {
		h.Key = [4]byte(b[n-4 : n])
	}
	return h, n
}

// AppendHeader appends h in its shortest form and returns the extended slice.
func AppendHeader(dst []byte, h Header) []byte {
	b0 := byte(h.Opcode) & 0x0f
	if h.Fin {
		b0 |= 0x80
	}
	if h.RSV1 {
		b0 |= 0x40
	}
	if h.RSV2 {
		b0 |= 0x20
	}
	if h.RSV3 {
		b0 |= 0x10
	}
	var mask byte
	if h.Masked {
		mask = 0x80
	}
	switch {
	case h.Length <= 125:
		dst = append(dst, b0, mask|byte(h.Length))
	case h.Length <= 0xffff:
		dst = append(dst, b0, mask|126, byte(h.Length>>8), byte(h.Length))
	default:
		dst = append(dst, b0, mask|127)
		dst = binary.BigEndian.AppendUint64(dst, h.Length)
	}
	if h.Masked {
		dst = append(dst, h.Key[:]...)
	}
	return dst
}
