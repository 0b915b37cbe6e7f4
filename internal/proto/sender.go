package proto

import (
	"errors"
	"slices"

	"github.com/weft-ws/weft/internal/wire"
)

// Faults of our own side. They cannot happen through package ws; a Sender
// checks all the same, so that an illegal frame never leaves.
var (
	errSequence = errors.New("proto: sender: a message of another type is open")
	errClosed   = errors.New("proto: sender: a Close has been sent")
	errControl  = errors.New("proto: sender: control frame over 125 bytes or of no control opcode")
)

// A Sender frames one direction. Callers name the message type and where the
// message ends; opcode, FIN and MASK are the Sender's business. It is not safe
// for concurrent use.
type Sender struct {
	role   Role
	seq    sequence
	closed bool
	opcode wire.Opcode // of the open message
	data   bool        // the latest frame is a data frame
	key    func() [4]byte

	header wire.Header // of the latest frame
	index  int64       // of it, from 1
	offset int64       // bytes framed, it included
	size   int64       // its length, header and payload
	frags  int
}

// NewSender returns a Sender for the given end. key supplies a fresh masking
// key for each frame; RFC 6455, 10.3 wants it unpredictable. Servers may pass
// nil.
func NewSender(role Role, key func() [4]byte) *Sender {
	s := new(Sender)
	s.Init(role, key)
	return s
}

// Init makes s ready, as NewSender does.
func (s *Sender) Init(role Role, key func() [4]byte) { s.role, s.key = role, key }

// Fragments is how many frames the open message, or else the last one, has.
func (s *Sender) Fragments() int { return s.frags }

// Open reports whether a message has been begun and not finished.
func (s *Sender) Open() bool { return s.seq.open }

// Closed reports whether a Close has been framed; nothing may follow it.
func (s *Sender) Closed() bool { return s.closed }

// Data returns the header of the next fragment, of n payload bytes, of the
// message of type op (Text or Binary); last ends the message. compressed sets
// RSV1 on the first fragment. The header is valid until the next call. It fails
// if a message of the other type is open or a Close has been framed.
func (s *Sender) Data(op wire.Opcode, last, compressed bool, n int) (*wire.Header, error) {
	if s.closed {
		return nil, errClosed
	}
	if op != wire.Text && op != wire.Binary || s.seq.open && op != s.opcode {
		return nil, errSequence
	}
	first := !s.seq.open
	if first {
		s.opcode, s.frags = op, 0
	} else {
		op = wire.Continuation
	}
	// The check that we apply to what we receive, applied to what we send.
	if s.seq.step(op, last) != "" {
		return nil, errSequence
	}
	s.frags++
	s.data = true
	return s.place(op, last, compressed && first, n), nil
}

// Abandon forgets the open message. It is for a message of which no byte has
// reached the wire.
func (s *Sender) Abandon() { s.seq.open = false }

// Control returns the header of a control frame of n payload bytes, valid until
// the next call; it may stand inside an open message. Nothing may follow a Close.
func (s *Sender) Control(op wire.Opcode, n int) (*wire.Header, error) {
	if s.closed {
		return nil, errClosed
	}
	if n > wire.ControlPayloadMax || !op.Control() || op.Reserved() {
		return nil, errControl
	}
	s.closed = op == wire.Close
	s.data = false
	return s.place(op, true, false, n), nil
}

// place masks by role and gives the frame its place in the stream.
func (s *Sender) place(op wire.Opcode, fin, rsv1 bool, n int) *wire.Header {
	h := &s.header
	h.Opcode, h.Fin, h.RSV1, h.Length, h.LengthForm = op, fin, rsv1, uint64(n), 1
	switch {
	case n > 0xffff:
		h.LengthForm = 9
	case n > 125:
		h.LengthForm = 3
	}
	size := 1 + int64(h.LengthForm)
	if s.role == Client {
		h.Masked, h.Key = true, s.key()
		size += 4
	}
	s.index++
	s.size = size + int64(n)
	s.offset += s.size
	return h
}

// Frame is the frame whose header was made last.
func (s *Sender) Frame() FrameInfo {
	f := FrameInfo{Header: s.header, Dir: Out, Index: s.index, Offset: s.offset - s.size}
	if s.data {
		f.Fragment = s.frags
	}
	return f
}

// Framed is how many frames have been framed, and how many bytes they take.
func (s *Sender) Framed() (frames, bytes int64) { return s.index, s.offset }

// Unframe takes back frames, of so many bytes in all, that have been framed and
// will not be sent.
func (s *Sender) Unframe(frames, bytes int64) { s.index, s.offset = s.index-frames, s.offset-bytes }

// AppendData appends the next fragment of the message of type op, header and
// payload, to dst.
func (s *Sender) AppendData(dst []byte, op wire.Opcode, last bool, payload []byte) ([]byte, error) {
	h, err := s.Data(op, last, false, len(payload))
	if err != nil {
		return dst, err
	}
	return AppendFrame(dst, *h, payload), nil
}

// AppendControl appends a control frame to dst.
func (s *Sender) AppendControl(dst []byte, op wire.Opcode, payload []byte) ([]byte, error) {
	h, err := s.Control(op, len(payload))
	if err != nil {
		return dst, err
	}
	return AppendFrame(dst, *h, payload), nil
}

// AppendFrame appends h and payload, masked if h says so.
func AppendFrame(dst []byte, h wire.Header, payload []byte) []byte {
	dst = wire.AppendHeader(dst, h)
	if !h.Masked {
		return append(dst, payload...)
	}
	at := len(dst)
	dst = slices.Grow(dst, len(payload))[:at+len(payload)]
	wire.MaskCopy(h.Key, dst[at:], payload)
	return dst
}

// Cut returns how much of p to put in the next frame of at most size bytes of
// payload: all of it, or a prefix that does not split a character when text is
// set. It returns at least 1 for a p that is not empty.
func Cut(p []byte, size int, text bool) int {
	if len(p) <= size {
		return len(p)
	}
	if text {
		if n := CutText(p, size); n > 0 {
			return n
		}
	}
	return max(size, 1)
}
