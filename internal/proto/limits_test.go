package proto_test

import (
	"errors"
	"math"
	"testing"

	"github.com/weft-ws/weft/internal/proto"
	"github.com/weft-ws/weft/internal/wire"
)

// A feeder sends frames of zeros from a server straight into a Receiver.
type feeder struct {
	t   *testing.T
	r   *proto.Receiver
	buf []byte
}

func newFeeder(t *testing.T, lim *proto.Limits) *feeder {
	return &feeder{t: t, r: proto.NewReceiver(proto.Server, lim)}
}

const frameMax = 1 << 20

// frame sends one frame of n bytes.
func (f *feeder) frame(op wire.Opcode, fin bool, n int) error {
	f.buf = wire.AppendHeader(f.buf[:0], wire.Header{Fin: fin, Opcode: op, Length: uint64(n)})
	f.buf = append(f.buf, make([]byte, min(n, frameMax))...) // the header of a longer one must be enough
	for p := f.buf; len(p) > 0; {
		_, k, err := f.r.Next(p)
		if err != nil {
			return err
		}
		p = p[k:]
	}
	return nil
}

// message sends a message of size bytes in fragments of n and returns how many
// frames were accepted.
func (f *feeder) message(size, n int) (frames int, err error) {
	op := wire.Binary
	for first := true; first || size > 0; first = false {
		k := min(n, size)
		size -= k
		if err := f.frame(op, size == 0, k); err != nil {
			return frames, err
		}
		frames++
		op = wire.Continuation
	}
	return frames, nil
}

func (f *feeder) wantLimit(err error, limit string, max int64, code wire.CloseCode) {
	f.t.Helper()
	var le *proto.LimitError
	if !errors.As(err, &le) {
		f.t.Fatalf("got %v, want limit %s", err, limit)
	}
	if le.Limit != limit || le.Max != max || le.Code != code || le.Frame.Index == 0 {
		f.t.Errorf("got %+v, want %s of %d, close %v", le, limit, max, code)
	}
}

func TestMessageSizeAnnouncedAndRunning(t *testing.T) {
	for _, c := range []struct {
		frames []int
		guilty int // 1-based; 0: none
	}{
		{[]int{1000}, 0}, {[]int{1001}, 1}, {[]int{math.MaxInt32}, 1},
		{[]int{1, 999}, 0}, {[]int{1, 1000}, 2}, {[]int{999, 1, 0}, 0}, {[]int{1000, 1}, 2}, {[]int{0, 0, 1001}, 3},
	} {
		f := newFeeder(t, &proto.Limits{MessageSize: 1000})
		for round := range 2 { // the count begins anew with each message
			if round == 1 && c.guilty > 0 {
				break
			}
			op := wire.Text
			for i, n := range c.frames {
				err := f.frame(op, i == len(c.frames)-1, n)
				if i+1 == c.guilty {
					f.wantLimit(err, "MaxMessageSize", 1000, wire.CloseMessageTooBig)
					if f.r.Received() > 1000 {
						t.Error("payload over the limit was taken")
					}
					break
				}
				if err != nil {
					t.Fatalf("%v: frame %d: %v", c.frames, i+1, err)
				}
				op = wire.Continuation
			}
		}
	}
}

// A compressed message may grow a little on the wire; what counts is counted by
// whoever inflates it.
func TestMessageSizeCompressed(t *testing.T) {
	const limit = 64 << 10
	for n, ok := range map[uint64]bool{limit + 1: true, limit + limit>>6 + 1<<10: true, limit + limit>>6 + 1<<10 + 1: false} {
		r := proto.NewReceiver(proto.Server, &proto.Limits{MessageSize: limit, Deflate: true})
		_, err := receive(t, r, wire.AppendHeader(nil, wire.Header{Fin: true, RSV1: true, Opcode: wire.Binary, Length: n}))
		if (err == nil) != ok {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func TestFragmentLimit(t *testing.T) {
	f := newFeeder(t, &proto.Limits{Fragments: 3})
	for range 3 {
		if n, err := f.message(300, 100); err != nil || n != 3 {
			t.Fatal(n, err)
		}
	}
	n, err := f.message(301, 100)
	if n != 3 {
		t.Errorf("%d frames passed", n)
	}
	f.wantLimit(err, "MaxFragments", 3, wire.ClosePolicyViolation)
}

// Each data frame costs at least 64 bytes of the frame budget: that ends floods
// and lets honest senders pass.
func TestFrameCost(t *testing.T) {
	const cost = "MaxMessageSize (each fragment costs at least 64 bytes)"
	pass := func(name string, limit int64, size, n, frames int) {
		f := newFeeder(t, &proto.Limits{MessageSize: limit})
		for range 2 {
			if got, err := f.message(size, n); err != nil || got != frames {
				t.Errorf("%s: %d frames, %v", name, got, err)
			}
		}
	}
	pass("10,000 fragments of a byte", 1<<20, 10000, 1, 10000)
	pass("1 MiB in fragments of 64 bytes", 1<<20, 1<<20, 64, 1<<14)
	pass("16 MiB in fragments of 16 KiB", 16<<20, 16<<20, 16<<10, 1<<10)
	pass("16 MiB in fragments of 64 bytes", 16<<20, 16<<20, 64, 1<<18)
	pass("a short message in tiny fragments under a short limit", 1000, 1000, 1, 1000)

	flood := func(name string, limit int64, n int, wantFrames int, wantLimit string, wantMax int64) {
		f := newFeeder(t, &proto.Limits{MessageSize: limit})
		op := wire.Binary
		for i := range 10_000_000 {
			if err := f.frame(op, false, n); err != nil {
				if i != wantFrames {
					t.Errorf("%s: ended by frame %d, want %d", name, i+1, wantFrames+1)
				}
				f.wantLimit(err, wantLimit, wantMax, wire.ClosePolicyViolation)
				return
			}
			op = wire.Continuation
		}
		t.Errorf("%s: 10 million frames passed", name)
	}
	flood("empty fragments", 1<<20, 0, 1<<14, cost, 1<<20)
	flood("fragments of a byte", 1<<20, 1, 1<<14, cost, 1<<20)
	flood("empty fragments, short limit", 1000, 0, 1<<14, cost, 1000)
	flood("empty fragments, 64 MiB", 64<<20, 0, 1<<20, cost, 64<<20)
	flood("empty fragments, no limit", 0, 0, 1<<20, "share of fragments under 64 bytes", proto.FrameBudgetMin)
}

// Without a message limit, tiny fragments may not outweigh what is sent.
func TestFrameCostWithoutLimit(t *testing.T) {
	f := newFeeder(t, &proto.Limits{})
	if _, err := f.message(8<<20, 32); err != nil {
		t.Error("half of the cost is payload, and the message is finished:", err)
	}
}

func TestControlRateLimit(t *testing.T) {
	f := newFeeder(t, &proto.Limits{ControlRate: 10, ControlBurst: 3})
	for i := range 3 {
		if err := f.frame(wire.Ping, true, 5); err != nil {
			t.Fatal(i, err)
		}
	}
	if err := f.frame(wire.Binary, true, 5); err != nil {
		t.Fatal("data is no control frame:", err)
	}
	err := f.frame(wire.Pong, true, 5)
	f.wantLimit(err, "ControlRate", 10, wire.ClosePolicyViolation)
	if want := "peer exceeded ControlRate of 10 in frame 5 at byte 28"; err.Error() != want {
		t.Errorf("%q, want %q", err, want)
	}
	if got := (&proto.LimitError{Limit: "Budget", Max: 7}).Error(); got != "peer exceeded Budget of 7" {
		t.Errorf("%q", got)
	}
}

// Whatever a header announces, a limit of ours and the sum stay in order.
func TestLimitsDoNotOverflow(t *testing.T) {
	for _, limit := range []int64{1, 1 << 20, math.MaxInt64 - 1, math.MaxInt64} {
		for _, deflate := range []bool{false, true} {
			for _, first := range []uint64{0, 1, math.MaxInt64} {
				r := proto.NewReceiver(proto.Server, &proto.Limits{MessageSize: limit, Deflate: deflate})
				_, err := receive(t, r, wire.AppendHeader(nil, wire.Header{Opcode: wire.Binary, RSV1: deflate, Length: first}))
				var le *proto.LimitError
				if err != nil && !errors.As(err, &le) {
					t.Errorf("limit %d, %d bytes: %v", limit, first, err)
				}
				if first <= uint64(limit) && err != nil {
					t.Errorf("limit %d, deflate %t: %d bytes refused: %v", limit, deflate, first, err)
				}
				if first == math.MaxInt64 && limit <= 1<<20 && err == nil {
					t.Errorf("limit %d, deflate %t: %d bytes accepted", limit, deflate, first)
				}
			}
		}
	}
}
