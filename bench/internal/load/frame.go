// Package load is the common client of every benchmark: hand-written frames,
// one thread, no library under test. What it costs is the same for every
// server, and as little as we could make it.
package load

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// An Opcode is the kind of a frame, RFC 6455 section 5.2.
type Opcode byte

// The opcodes of RFC 6455 section 11.8.
const (
	Continuation Opcode = 0x0
	Text         Opcode = 0x1
	Binary       Opcode = 0x2
	Close        Opcode = 0x8
	Ping         Opcode = 0x9
	Pong         Opcode = 0xA
)

// A Frame says what AppendFrame is to write.
type Frame struct {
	Opcode Opcode
	Fin    bool
	RSV1   bool // set on the first frame of a compressed message, RFC 7692 section 6
	Masked bool // clients mask, servers do not, RFC 6455 section 5.1
}

// key masks every frame of the load client. A constant is good enough: the
// peers are ours, and no proxy is there to be confused. Its bytes differ and
// none is zero, so a server that unmasks wrongly is found out.
var key = [4]byte{0x37, 0xfa, 0x21, 0x3d}

// AppendFrame appends the frame f with payload p to dst. The length is written
// in the fewest bytes, as RFC 6455 section 5.2 demands.
func AppendFrame(dst []byte, f Frame, p []byte) []byte {
	dst = AppendHeader(dst, f, uint64(len(p)))
	if !f.Masked {
		return append(dst, p...)
	}
	at := len(dst)
	dst = append(dst, p...)
	for i := range p {
		dst[at+i] ^= key[i&3]
	}
	return dst
}

// AppendHeader appends the header alone, for a payload of n bytes that may
// never come.
func AppendHeader(dst []byte, f Frame, n uint64) []byte {
	b0 := byte(f.Opcode)
	if f.Fin {
		b0 |= 0x80
	}
	if f.RSV1 {
		b0 |= 0x40
	}
	var mask byte
	if f.Masked {
		mask = 0x80
	}
	switch {
	case n < 126:
		dst = append(dst, b0, mask|byte(n))
	case n <= 0xffff:
		dst = binary.BigEndian.AppendUint16(append(dst, b0, mask|126), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, b0, mask|127), n)
	}
	if f.Masked {
		dst = append(dst, key[:]...)
	}
	return dst
}

// AppendMessage appends the whole message p cut into frames of at most
// fragment payload bytes, or one frame when fragment is 0.
func AppendMessage(dst []byte, f Frame, p []byte, fragment int) []byte {
	if fragment <= 0 {
		fragment = max(len(p), 1)
	}
	for {
		n := min(fragment, len(p))
		f.Fin = n == len(p)
		dst = AppendFrame(dst, f, p[:n])
		if p = p[n:]; f.Fin {
			return dst
		}
		f.Opcode, f.RSV1 = Continuation, false
	}
}

// A Scanner follows a stream of frames, cut anywhere, and counts. It looks at
// headers only; payload of data frames is skipped unless Data is set.
type Scanner struct {
	Messages int64 // data messages seen whole
	Frames   int64 // data frames whose header was seen
	Payload  int64 // payload bytes of data frames
	Wire     int64 // all bytes

	// Control is called for each whole control frame, payload unmasked. The
	// payload is valid until it returns.
	Control func(op Opcode, p []byte)
	// Data is called for each piece of a data frame as it comes: the opcode of
	// the frame, whether its header had RSV1, the piece, unmasked in place, and
	// whether the message ends with it.
	Data func(op Opcode, rsv1 bool, p []byte, last bool)

	left    uint64 // payload bytes of the current frame still to come
	inFrame bool   // a header has been read and its frame has not ended
	fin     bool
	rsv1    bool
	op      Opcode
	at      int  // payload bytes of the frame that have come
	open    bool // a message has begun and its last frame has not
	mask    [4]byte
	masked  bool
	head    []byte // a header that came in pieces
	control []byte
	headBuf [14]byte
	ctlBuf  [125]byte
}

// ErrFrame is wrapped by every error of Scan.
var ErrFrame = errors.New("the server broke its framing")

// Scan takes the next bytes of the stream.
func (s *Scanner) Scan(p []byte) error {
	s.Wire += int64(len(p))
	for len(p) > 0 {
		if s.inFrame {
			n := int(min(s.left, uint64(len(p))))
			s.take(p[:n])
			p = p[n:]
			continue
		}
		if len(s.head) == 0 { // the usual case: the whole header is here
			if n, ok := headerSize(p); ok {
				if err := s.header(p[:n]); err != nil {
					return err
				}
				p = p[n:]
				continue
			}
		}
		s.head = append(s.headBuf[:len(s.head)], p[0])
		p = p[1:]
		if n, ok := headerSize(s.head); ok {
			if err := s.header(s.head[:n]); err != nil {
				return err
			}
			s.head = s.head[:0]
		}
	}
	return nil
}

// headerSize returns the size of the header at the start of p, and whether all
// of it is there.
func headerSize(p []byte) (int, bool) {
	if len(p) < 2 {
		return 0, false
	}
	n := 2
	switch p[1] & 0x7f {
	case 126:
		n += 2
	case 127:
		n += 8
	}
	if p[1]&0x80 != 0 {
		n += 4
	}
	return n, len(p) >= n
}

func (s *Scanner) header(h []byte) error {
	s.fin, s.rsv1, s.op = h[0]&0x80 != 0, h[0]&0x40 != 0, Opcode(h[0]&0x0f)
	s.masked = h[1]&0x80 != 0
	switch h[1] & 0x7f {
	case 126:
		s.left = uint64(binary.BigEndian.Uint16(h[2:]))
	case 127:
		s.left = binary.BigEndian.Uint64(h[2:])
	default:
		s.left = uint64(h[1] & 0x7f)
	}
	if s.masked {
		copy(s.mask[:], h[len(h)-4:])
	}
	switch s.op {
	case Continuation, Text, Binary:
		if (s.op == Continuation) != s.open {
			return fmt.Errorf("%w: opcode %d while a message is open: %t", ErrFrame, s.op, s.open)
		}
		s.open = !s.fin
		s.Frames++
		s.Payload += int64(s.left)
	case Close, Ping, Pong:
		if s.left > 125 || !s.fin {
			return fmt.Errorf("%w: control frame of %d bytes, FIN %t", ErrFrame, s.left, s.fin)
		}
		s.control = s.ctlBuf[:0]
	default:
		return fmt.Errorf("%w: opcode %d", ErrFrame, s.op)
	}
	s.inFrame, s.at = true, 0
	if s.left == 0 {
		s.take(nil)
	}
	return nil
}

// take consumes payload bytes of the current frame and ends it when they were
// the last.
func (s *Scanner) take(p []byte) {
	s.left -= uint64(len(p))
	control := s.op >= Close
	if control {
		s.control = append(s.control, p...)
	} else if s.Data != nil {
		if s.masked {
			for i := range p {
				p[i] ^= s.mask[(s.at+i)&3]
			}
		}
		s.at += len(p)
		s.Data(s.op, s.rsv1, p, s.left == 0 && s.fin)
	}
	if s.left > 0 {
		return
	}
	s.inFrame = false
	switch {
	case !control:
		if s.fin {
			s.Messages++
		}
	case s.Control != nil:
		if s.masked {
			for i := range s.control {
				s.control[i] ^= s.mask[i&3]
			}
		}
		s.Control(s.op, s.control)
	}
}
