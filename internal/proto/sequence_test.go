package proto_test

import (
	"errors"
	"testing"
	"time"

	"github.com/weft-ws/weft/capture"
	"github.com/weft-ws/weft/doctor"
	"github.com/weft-ws/weft/internal/proto"
	"github.com/weft-ws/weft/internal/wire"
)

// A symbol is one of the eleven frames of which every sequence is tried.
type symbol struct {
	op  wire.Opcode
	fin bool
}

var symbols = [11]symbol{
	{wire.Text, true}, {wire.Text, false}, {wire.Binary, true}, {wire.Binary, false},
	{wire.Continuation, true}, {wire.Continuation, false},
	{wire.Ping, true}, {wire.Pong, true}, {wire.Close, true},
	{wire.Ping, false}, {0x3, true},
}

// sequenceMax is the length up to which all sequences are tried:
// 11 + 11² + 11³ + 11⁴ + 11⁵ = 177,155.
const (
	sequenceMax   = 5
	sequenceCount = 177155
)

// eachSequence calls f with every sequence, as indexes of symbols.
func eachSequence(f func(seq []int)) (n int) {
	var seq [sequenceMax]int
	for size := 1; size <= sequenceMax; size++ {
		clear(seq[:])
		for carry := false; !carry; {
			f(seq[:size])
			n++
			carry = true
			for i := 0; i < size && carry; i++ {
				seq[i]++
				if carry = seq[i] == len(symbols); carry {
					seq[i] = 0
				}
			}
		}
	}
	return n
}

// model is the reference: RFC 6455, 5.4 and 5.5, looking only at the frames
// that came before. It returns the rule that frame s breaks, or "".
func model(before []int, s symbol) string {
	var last *symbol // data frame
	for _, b := range before {
		if !symbols[b].op.Control() {
			last = &symbols[b]
		}
	}
	open := last != nil && !last.fin
	switch {
	case s.op == 0x3:
		return "FR-05"
	case s.op == wire.Ping && !s.fin:
		return "FR-11"
	case s.op == wire.Continuation && last == nil:
		return "MS-01"
	case s.op == wire.Continuation && !open:
		return "MS-02"
	case !s.op.Control() && s.op != wire.Continuation && open:
		return "MS-03"
	}
	return ""
}

// judge runs the model over a sequence: how many frames are delivered before
// the end, and which rule ends it, if one does. After a Close nothing counts.
func judge(seq []int) (frames int, rule string) {
	for i, s := range seq {
		if rule := model(seq[:i], symbols[s]); rule != "" {
			return i, rule
		}
		if symbols[s].op == wire.Close {
			return i + 1, ""
		}
	}
	return len(seq), ""
}

// symbolBytes is each symbol as sent by an end, with a payload of one byte
// (none in a Close).
func symbolBytes(from proto.Role) (out [len(symbols)][]byte) {
	for i, s := range symbols {
		h := wire.Header{Fin: s.fin, Opcode: s.op, Masked: from == proto.Client, Key: [4]byte{1, 2, 3, byte(i)}, Length: 1}
		payload := []byte("a")
		if s.op == wire.Close {
			h.Length, payload = 0, nil
		}
		out[i] = proto.AppendFrame(nil, h, payload)
	}
	return out
}

// Every sequence of one to five frames ends as the model says, whole and, up to
// four frames, byte by byte.
func TestEverySequenceThroughTheReceiver(t *testing.T) {
	for _, from := range roles {
		bytesOf := symbolBytes(from)
		lim := &proto.Limits{}
		var stream, scratch []byte
		var r proto.Receiver
		n := eachSequence(func(seq []int) {
			stream = stream[:0]
			for _, s := range seq {
				stream = append(stream, bytesOf[s]...)
			}
			frames, rule := judge(seq)
			for _, chunk := range []int{len(stream), 1} {
				if chunk == 1 && len(seq) > 4 {
					continue
				}
				r = proto.Receiver{}
				r.Init(from, lim)
				scratch = append(scratch[:0], stream...)
				got, err := countFrames(&r, scratch, chunk)
				gotRule := ""
				var v *proto.Violation
				if errors.As(err, &v) {
					gotRule = v.Rule.ID
					if v.Frame.Index != int64(frames)+1 || v.Frame.Opcode != symbols[seq[frames]].op {
						t.Fatalf("from %v, %v: guilty frame %+v", from, seq, v.Frame)
					}
				}
				if got != frames || gotRule != rule || err != nil && v == nil {
					t.Fatalf("from %v, %v in pieces of %d: %d frames and %q, want %d and %q", from, seq, chunk, got, gotRule, frames, rule)
				}
			}
		})
		if n != sequenceCount {
			t.Fatalf("%d sequences, want %d", n, sequenceCount)
		}
	}
}

// countFrames returns how many frames were accepted and delivered to the end.
func countFrames(r *proto.Receiver, p []byte, chunk int) (frames int, err error) {
	for len(p) > 0 {
		q := p[:min(chunk, len(p))]
		for len(q) > 0 {
			ev, n, err := r.Next(q)
			if err != nil {
				return frames, err
			}
			switch ev.Kind {
			case proto.Data:
				if r.Want() == 0 {
					frames++
				}
			case proto.Ping, proto.Pong, proto.Close:
				frames++
			}
			q, p = q[n:], p[n:]
		}
	}
	return frames, nil
}

// The doctor's own check agrees with the model: two judges that share nothing.
// It tells a fragmented second message (MS-04) from a whole one (MS-03). Every
// other sequence is the client's.
func TestEverySequenceThroughTheDoctor(t *testing.T) {
	at := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	sides := [2]capture.Side{capture.Client, capture.Server}
	bytesOf := [2][len(symbols)][]byte{symbolBytes(proto.Client), symbolBytes(proto.Server)}
	opts := doctor.Options{Ignore: []string{"CL-07", "CL-13", "FR-12"}}
	var stream []byte
	end := 0
	eachSequence(func(seq []int) {
		end = 1 - end
		stream = stream[:0]
		for _, s := range seq {
			stream = append(stream, bytesOf[end][s]...)
		}
		frames, want := judge(seq)
		if want == "MS-03" && !symbols[seq[frames]].fin {
			want = "MS-04"
		}
		in := doctor.New(opts)
		in.Write(sides[end], at, stream)
		got, index := "", int64(0)
		if f := in.Findings(); len(f) > 0 {
			got, index = f[0].Rule.ID, f[0].Frame.Index
		}
		// A receiver discards what comes after a Close; the doctor goes on to
		// judge the framing.
		if want == "" && frames < len(seq) && (got == "FR-05" || got == "FR-11") {
			return
		}
		if got != want || want != "" && index != int64(frames)+1 {
			t.Fatalf("%v, %v: the doctor says %q in frame %d, the model %q in frame %d", sides[end], seq, got, index, want, frames+1)
		}
	})
}

// The calls of a Sender that correspond to the symbols. Continuation is not a
// type of message, and neither a fragmented ping nor a reserved opcode can be
// asked for.
func callSender(s *proto.Sender, dst []byte, sym symbol) ([]byte, error) {
	if sym.op.Control() && sym.fin {
		payload := []byte("a")
		if sym.op == wire.Close {
			payload = nil
		}
		return s.AppendControl(dst, sym.op, payload)
	}
	return s.AppendData(dst, sym.op, sym.fin, []byte("a"))
}

// Whatever sequence of calls a Sender gets, what leaves is legal; and it
// refuses nothing that could be made legal.
func TestEverySequenceThroughTheSender(t *testing.T) {
	for _, from := range roles {
		lim := &proto.Limits{}
		var stream []byte
		var r proto.Receiver
		n := eachSequence(func(seq []int) {
			s := proto.NewSender(from, func() [4]byte { return [4]byte{4, 3, 2, 1} })
			stream = stream[:0]
			accepted := 0
			var open wire.Opcode // of the message that the accepted calls have left open
			closed := false
			for _, i := range seq {
				sym := symbols[i]
				can := !closed
				switch sym.op {
				case wire.Text, wire.Binary:
					can = can && (open == 0 || open == sym.op)
				case wire.Ping:
					can = can && sym.fin
				case wire.Continuation, 0x3:
					can = false
				}
				was := len(stream)
				var err error
				if stream, err = callSender(s, stream, sym); (err == nil) != can || err != nil && len(stream) != was {
					t.Fatalf("%v, %v: call %v: %v", from, seq, sym, err)
				}
				if err != nil {
					continue
				}
				accepted++
				switch {
				case sym.op == wire.Close:
					closed = true
				case !sym.op.Control():
					if open = sym.op; sym.fin {
						open = 0
					}
				}
			}
			if s.Open() != (open != 0) || s.Closed() != closed {
				t.Fatalf("%v, %v: open %t, closed %t", from, seq, s.Open(), s.Closed())
			}
			r = proto.Receiver{}
			r.Init(from, lim)
			if got, err := countFrames(&r, stream, len(stream)); err != nil || got != accepted {
				t.Fatalf("%v, %v: the receiver took %d of %d frames: %v", from, seq, got, accepted, err)
			}
		})
		if n != sequenceCount {
			t.Fatalf("%d sequences, want %d", n, sequenceCount)
		}
	}
}
