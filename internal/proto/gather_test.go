package proto_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/weft-ws/weft/internal/proto"
	"github.com/weft-ws/weft/internal/wire"
)

// deliver reads chunks to their end or the first error and writes down what
// came of them, with the state at every frame boundary that both ways of
// reading stop at. With gather set, fragments go the short way where it takes
// them, with room bytes of room at a time.
func deliver(t *testing.T, r *proto.Receiver, chunks [][]byte, gather bool, room int) (log string, gathered int) {
	t.Helper()
	var message []byte
	var b bytes.Buffer
	dst := make([]byte, room)
	for _, p := range chunks {
		for len(p) > 0 {
			if gather {
				before := bytes.Clone(p[:min(len(p), 1<<10)])
				nd, np, frames := r.Gather(dst, p)
				if !bytes.HasPrefix(p, before) {
					t.Fatal("Gather changed its input")
				}
				if nd > np || (frames == 0) != (np == 0) {
					t.Fatalf("Gather took %d bytes of payload from %d in %d frames", nd, np, frames)
				}
				message, p, gathered = append(message, dst[:nd]...), p[np:], gathered+frames
				if len(p) == 0 {
					break
				}
			}
			ev, n, err := r.Next(p)
			if err != nil {
				fmt.Fprintf(&b, "%v after %x", err, message)
				return b.String(), gathered
			}
			p = p[n:]
			switch {
			case ev.Kind != proto.Data:
				fmt.Fprintf(&b, "%d %d %x %+v\n", ev.Kind, ev.Code, ev.Payload, r.Frame())
			case ev.Last:
				message = append(message, ev.Payload...)
				fmt.Fprintf(&b, "%v %t %x %+v %d %d\n", ev.Opcode, ev.Compressed, message, r.Frame(), r.Fragments(), r.Received())
				message = message[:0]
			default:
				message = append(message, ev.Payload...)
			}
		}
	}
	fmt.Fprintf(&b, "%s %x %+v %d %d", r.Where(), message, r.Frame(), r.Fragments(), r.Received())
	return b.String(), gathered
}

// The short way for fragments makes no difference to what is delivered, to the
// limits and to the error: whatever the stream, however it is cut, and however
// little room there is.
func TestGatherIsNext(t *testing.T) {
	var gathered int
	for seed := range uint64(3000) {
		rng := rand.New(rand.NewPCG(seed, 1))
		from := roles[rng.IntN(2)]
		var stream []byte
		op := []wire.Opcode{wire.Text, wire.Binary}[rng.IntN(2)]
		add := func(op wire.Opcode, fin, rsv1 bool, n int) {
			h := wire.Header{Fin: fin, RSV1: rsv1, Opcode: op, Length: uint64(n)}
			if from == proto.Client {
				k := rng.Uint32()
				h.Masked, h.Key = true, [4]byte{byte(k), byte(k >> 8), byte(k >> 16), byte(k >> 24)}
			}
			payload := bytes.Repeat([]byte("a\xc3\xa9\xf0\x9f\xa7\xb5"), n/7+1)
			stream = proto.AppendFrame(stream, h, payload[:n])
		}
		size := func() int { return []int{0, 0, 1, 7, 14, 70, 125, 126, 133, 700}[rng.IntN(10)] }
		for range 1 + rng.IntN(4) {
			add(op, false, rng.IntN(8) == 0, size()/7*7)
			for range rng.IntN(40) {
				switch rng.IntN(12) {
				case 0:
					add(wire.Ping, true, false, rng.IntN(20))
				case 1:
					add(wire.Continuation, false, false, size()) // may cut a character
				default:
					add(wire.Continuation, false, false, size()/7*7)
				}
			}
			add(wire.Continuation, true, false, size()/7*7)
		}
		if rng.IntN(3) == 0 { // something is wrong with it
			stream[rng.IntN(len(stream))] ^= 1 << rng.IntN(8)
		}
		lim := fuzzLimits(byte(rng.IntN(256)))
		cut := func() (chunks [][]byte) {
			rng := rand.New(rand.NewPCG(seed, 2))
			for rest := bytes.Clone(stream); len(rest) > 0; {
				n := min(1+rng.IntN(len(stream)), len(rest))
				chunks, rest = append(chunks, rest[:n]), rest[n:]
			}
			return chunks
		}
		want, _ := deliver(t, proto.NewReceiver(from, lim), cut(), false, 0)
		got, n := deliver(t, proto.NewReceiver(from, lim), cut(), true, rng.IntN(300))
		if gathered += n; got != want {
			t.Fatalf("seed %d: with Gather\n%s\nwithout\n%s", seed, got, want)
		}
	}
	if gathered < 10_000 {
		t.Errorf("only %d frames went the short way", gathered)
	}
}

// The cost of short frames ends a message after the same fragment either way,
// also where its size has no limit.
func TestGatherStopsAtTheLimits(t *testing.T) {
	for _, lim := range []proto.Limits{
		{},
		{MessageSize: 300},
		{MessageSize: 2 << 20},
		{Fragments: 1000},
	} {
		for n := range 2 {
			more := make([]byte, 2+n)
			more[1] = byte(n)
			stream := bytes.Repeat(more, proto.FrameBudgetMin*9/8)
			stream[0] = byte(wire.Binary)
			want, _ := deliver(t, proto.NewReceiver(proto.Server, &lim), [][]byte{bytes.Clone(stream)}, false, 0)
			got, gathered := deliver(t, proto.NewReceiver(proto.Server, &lim), [][]byte{stream}, true, 2<<20)
			if got != want || !strings.Contains(got, "exceeded") {
				t.Errorf("%+v, %d bytes: with Gather %.200s\nwithout %.200s", lim, n, got, want)
			}
			if gathered == 0 {
				t.Errorf("%+v, %d bytes: nothing went the short way", lim, n)
			}
		}
	}
}
