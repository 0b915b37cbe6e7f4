package proto_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/weft-ws/weft/internal/proto"
	"github.com/weft-ws/weft/internal/wire"
	"github.com/weft-ws/weft/internal/wstest"
)

// fuzzLimits derives limits from a byte, so that the fuzzer reaches them.
func fuzzLimits(b byte) *proto.Limits {
	lim := &proto.Limits{Deflate: b&1 != 0}
	lim.MessageSize = []int64{0, 4, 300, 1 << 20}[b>>1&3]
	lim.Fragments = []int{0, 1, 3, 1000}[b>>3&3]
	if b&32 != 0 {
		lim.ControlRate, lim.ControlBurst = 1, 2
	}
	return lim
}

// FuzzReceiver: whatever the bytes, nothing panics, and how they were cut makes
// no difference to what is delivered and to the error.
func FuzzReceiver(f *testing.F) {
	for _, v := range loadVectors(f) {
		if v.Kind != wstest.Stream {
			continue
		}
		for i, receiver := range v.Roles {
			if b := bytes.Join(v.Chunks(receiver.Peer()), nil); len(b) < 1<<10 {
				f.Add(receiver == proto.Server, byte(len(b)), uint64(i), b)
			}
		}
	}
	f.Add(true, byte(0), uint64(1), []byte("\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, fromClient bool, limits byte, seed uint64, b []byte) {
		from := proto.Server
		if fromClient {
			from = proto.Client
		}
		run := func(chunks [][]byte) string {
			r := proto.NewReceiver(from, fuzzLimits(limits))
			events, err := receive(t, r, chunks...)
			if err != nil {
				return fmt.Sprintf("%v, %v", events, err)
			}
			return fmt.Sprintf("%v, %s", events, r.Where())
		}
		whole := run([][]byte{bytes.Clone(b)})
		if got := run(bytewise(bytes.Clone(b))); got != whole {
			t.Errorf("byte by byte: %s\nwhole:        %s", got, whole)
		}
		rng := rand.New(rand.NewPCG(seed, 0))
		var chunks [][]byte
		for rest := bytes.Clone(b); len(rest) > 0; {
			n := min(1+rng.IntN(40), len(rest))
			chunks = append(chunks, rest[:n])
			rest = rest[n:]
		}
		if got := run(chunks); got != whole {
			t.Errorf("cut at random: %s\nwhole:         %s", got, whole)
		}
	})
}

// FuzzRoundTrip: a program of calls to a Sender comes out of a Receiver as it
// went in, in both roles.
func FuzzRoundTrip(f *testing.F) {
	f.Add(uint64(1), []byte("hello"))
	f.Add(uint64(2), []byte("h\xc3\xa9llo 🧶\x00\x01\x02\x03\x04"))
	f.Add(uint64(3), bytes.Repeat([]byte{5, 9, 1, 0x7e, 0xff}, 300))
	f.Fuzz(func(t *testing.T, seed uint64, program []byte) {
		for _, role := range roles {
			rng := rand.New(rand.NewPCG(seed, uint64(role)))
			s := proto.NewSender(role, func() [4]byte { k := rng.Uint32(); return [4]byte{byte(k), byte(k >> 8), byte(k >> 16), byte(k >> 24)} })
			var stream []byte
			var want []event
			var message []byte
			for left := program; len(left) > 0; {
				op, n := left[0], 0
				rest := left[1:]
				if len(rest) > 0 {
					n = min(int(rest[0]), len(rest))
				}
				payload := rest[:n]
				var err error
				switch op % 8 {
				case 0, 1: // control
					kind, code := proto.Ping, wire.Ping
					if op%8 == 1 {
						kind, code = proto.Pong, wire.Pong
					}
					payload = payload[:min(n, wire.ControlPayloadMax)]
					stream, err = s.AppendControl(stream, code, payload)
					want = append(want, event{kind: kind, payload: string(payload)})
				default: // data
					last := op%8 < 5
					stream, err = s.AppendData(stream, wire.Binary, last, payload)
					if message = append(message, payload...); last {
						want = append(want, event{kind: proto.Data, opcode: wire.Binary, payload: string(message)})
						message = nil
					}
				}
				if err != nil {
					t.Fatal(err)
				}
				left = rest[n:]
			}
			got, err := receive(t, proto.NewReceiver(role, &proto.Limits{}), stream)
			if err != nil || !slices.Equal(got, want) {
				t.Fatalf("%v: got %v, %v\nwant %v", role, got, err, want)
			}
		}
	})
}
