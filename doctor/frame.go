package doctor

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"time"

	"github.com/weft-ws/weft/capture"
	"github.com/weft-ws/weft/internal/wire"
)

// A Frame is a frame header with its place in the recording.
type Frame struct {
	From   capture.Side // which end sent it
	At     time.Time    // when its header was complete
	Index  int64        // ordinal in its direction, from 1; 0: not a frame
	Offset int64        // of the header in its direction's bytes after the opening handshake

	Opcode           Opcode
	Fin              bool
	RSV1, RSV2, RSV3 bool
	Masked           bool
	Key              [4]byte // masking key; zero unless Masked
	LengthForm       uint8   // bytes that the length took: 1, 3 or 9
	Length           uint64  // payload bytes as announced

	Fragment int    // ordinal within its message, from 1; 0 for a control frame and one out of place
	Total    uint64 // payload bytes of its message so far, this frame included
}

// headerSize is how many bytes the header takes.
func (f *Frame) headerSize() int {
	n := 1 + int(f.LengthForm)
	if f.Masked {
		n += 4
	}
	return n
}

// control reports whether the frame is a control frame, defined or reserved.
func (f *Frame) control() bool { return f.Opcode >= 8 }

// headerNeed is how many bytes a header takes whose second byte is b1.
func headerNeed(b1 byte) int {
	n := 2
	if b1&0x7f == 126 {
		n = 4
	} else if b1&0x7f == 127 {
		n = 10
	}
	if b1&0x80 != 0 {
		n += 4
	}
	return n
}

// decode reads a complete header.
//
// RFC 6455, 5.2: FIN, RSV1 to RSV3 and the opcode share the first byte, MASK
// and the 7-bit length the second; 126 and 127 announce a 16-bit and a 64-bit
// length in network byte order; a masking key follows if MASK is set.
func (f *Frame) decode(b []byte) {
	f.Fin, f.RSV1, f.RSV2, f.RSV3 = b[0]>>7&1 == 1, b[0]>>6&1 == 1, b[0]>>5&1 == 1, b[0]>>4&1 == 1
	f.Opcode = Opcode(b[0] & 15)
	f.Masked = b[1]>>7 == 1
	f.LengthForm, f.Length = 1, uint64(b[1]&0x7f)
	switch f.Length {
	case 126:
		f.LengthForm, f.Length = 3, uint64(binary.BigEndian.Uint16(b[2:]))
	case 127:
		f.LengthForm, f.Length = 9, binary.BigEndian.Uint64(b[2:])
	}
	f.Key = [4]byte{}
	if f.Masked {
		copy(f.Key[:], b[1+f.LengthForm:])
	}
}

// unmask writes src to dst with the mask taken off and returns the key turned
// so that it fits the byte that follows src.
func unmask(key [4]byte, dst, src []byte) [4]byte {
	k := uint64(binary.LittleEndian.Uint32(key[:]))
	k |= k << 32
	n := len(src)
	i := 0
	for ; i+8 <= n; i += 8 {
		binary.LittleEndian.PutUint64(dst[i:], binary.LittleEndian.Uint64(src[i:])^k)
	}
	for ; i < n; i++ {
		dst[i] = src[i] ^ key[i&3]
	}
	binary.LittleEndian.PutUint32(key[:], bits.RotateLeft32(uint32(k), -8*(n&3)))
	return key
}

// A headerFault is what is wrong with a header by itself.
type headerFault struct {
	rule   string
	detail string
	mark   [2]int // guilty bytes of the header
	note   string // what they say
}

// checkHeader judges a header by what can be said without the frames before
// it. A header with several faults gets the one that explains most.
func (in *Inspector) checkHeader(f *Frame) *headerFault {
	lenMark := [2]int{1, 1 + int(f.LengthForm)}
	// RFC 6455, 5.2: RSV1, RSV2, RSV3 "MUST be 0 unless an extension is
	// negotiated that defines meanings for non-zero values."
	if !in.foreign {
		switch {
		case f.RSV2 || f.RSV3:
			return &headerFault{"FR-04", "no extension that gives RSV2 or RSV3 a meaning was agreed on", [2]int{0, 1}, rsvNote(f)}
		case f.RSV1 && !in.deflate:
			return &headerFault{"FR-03", "no extension that gives RSV1 a meaning was agreed on", [2]int{0, 1}, rsvNote(f)}
		// RFC 7692, 6: "An endpoint MUST NOT set the "Per-Message Compressed"
		// bit of control frames and non-first fragments of a data message."
		case f.RSV1 && f.control():
			return &headerFault{"DF-02", "control frames are never compressed", [2]int{0, 1}, rsvNote(f)}
		case f.RSV1 && f.Opcode == wire.Continuation:
			return &headerFault{"DF-01", "only the first frame of a message says that it is compressed", [2]int{0, 1}, rsvNote(f)}
		case f.Opcode > wire.Binary && f.Opcode < wire.Close:
			return &headerFault{"FR-05", "opcode " + f.Opcode.String() + " is reserved for data frames to come", [2]int{0, 1}, opcodeNote(f.Opcode)}
		case f.Opcode > wire.Pong:
			return &headerFault{"FR-06", "opcode " + f.Opcode.String() + " is reserved for control frames to come", [2]int{0, 1}, opcodeNote(f.Opcode)}
		}
	}
	// RFC 6455, 5.1: "A server MUST NOT mask any frames that it sends to the
	// client"; a client "MUST mask all frames that it sends to the server".
	switch {
	case f.From == capture.Client && !f.Masked:
		return &headerFault{"FR-01", "a client masks every frame, control frames too", [2]int{1, 2}, "MASK=0"}
	case f.From == capture.Server && f.Masked:
		return &headerFault{"FR-02", "a server masks no frame", [2]int{1, 2}, "MASK=1"}
	}
	// RFC 6455, 5.2: "the most significant bit MUST be 0"; "in all cases, the
	// minimal number of bytes MUST be used to encode the length".
	switch {
	case f.LengthForm == 9 && f.Length>>63 == 1:
		return &headerFault{"FR-07", "a payload length has 63 bits at most", [2]int{2, 3}, "top bit of the length"}
	case f.LengthForm == 3 && f.Length <= 125:
		return &headerFault{"FR-08", "a length of " + group(f.Length) + " belongs in the 7-bit form", lenMark, "length " + group(f.Length)}
	case f.LengthForm == 9 && f.Length <= 65535:
		return &headerFault{"FR-09", "a length of " + group(f.Length) + " belongs in a shorter form", lenMark, "length " + group(f.Length)}
	}
	// RFC 6455, 5.5: "All control frames MUST have a payload length of 125
	// bytes or less and MUST NOT be fragmented."
	if f.control() {
		switch {
		case !f.Fin:
			return &headerFault{"FR-11", "control frames are never fragments", [2]int{0, 1}, "FIN=0, " + opcodeNote(f.Opcode)}
		case f.Length > wire.ControlPayloadMax:
			return &headerFault{"FR-10", "a control frame holds 125 bytes at most, this one " + group(f.Length), lenMark, "length " + group(f.Length)}
		}
	}
	return nil
}

// opcodeNote names an opcode as it stands in the header, and in words.
func opcodeNote(op Opcode) string {
	if op > wire.Pong || op > wire.Binary && op < wire.Close {
		return "opcode " + op.String()
	}
	return fmt.Sprintf("opcode %d (%s)", uint8(op), op)
}

func rsvNote(f *Frame) string {
	s := ""
	for i, set := range []bool{f.RSV1, f.RSV2, f.RSV3} {
		if set {
			s += " RSV" + string(rune('1'+i))
		}
	}
	return s[1:] + " set"
}

// A keyWatch notices masking keys that are no surprise.
type keyWatch struct {
	ring     [16]uint32
	n        int    // keys seen
	repeats  uint16 // one bit per recent key that had been seen before
	step     uint32 // difference between the last two keys
	series   int    // how often in a row the difference was the same
	reported bool
}

// next judges the next key. RFC 6455, 5.3: "the masking key MUST be derived
// from a strong source of entropy, and the masking key for a given frame MUST
// NOT make it simple for a server/proxy to predict the masking key for a
// subsequent frame." Random keys do any of this less than once in 10^20 frames:
// three repeats among sixteen keys, or the same difference four times in a row.
func (w *keyWatch) next(key [4]byte) string {
	k := binary.BigEndian.Uint32(key[:])
	seen := uint16(0)
	for _, old := range w.ring[:min(w.n, len(w.ring))] {
		if old == k {
			seen = 1
			break
		}
	}
	w.repeats = w.repeats<<1 | seen
	if w.n > 0 {
		step := k - w.ring[(w.n-1)%len(w.ring)]
		if w.n > 1 && step == w.step {
			w.series++
		} else {
			w.series = 0
		}
		w.step = step
	}
	w.ring[w.n%len(w.ring)] = k
	w.n++
	switch {
	case w.reported:
	case bits.OnesCount16(w.repeats) >= 3 && w.series >= 2 && w.step == 0:
		return "the same masking key on every frame"
	case bits.OnesCount16(w.repeats) >= 3:
		return "masking keys come back after a few frames"
	case w.series >= 3:
		return "each masking key is the one before plus a constant"
	}
	return ""
}
