package proto_test

import (
	"bytes"
	"testing"

	"github.com/weft-ws/weft/internal/proto"
	"github.com/weft-ws/weft/internal/wire"
)

// The Sender tells the place of each frame as the Receiver of its bytes does.
func TestSenderPlacesFrames(t *testing.T) {
	for _, role := range roles {
		s := proto.NewSender(role, func() [4]byte { return [4]byte{1, 2, 3, 4} })
		r := proto.NewReceiver(role, &proto.Limits{Deflate: true})
		c := collector{t: t, r: r}
		check := func(_ *wire.Header, err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			f := s.Frame()
			b := proto.AppendFrame(nil, f.Header, bytes.Repeat([]byte("a"), int(f.Length)))
			if _, err := c.receive(b); err != nil {
				t.Fatal(err)
			}
			got := r.Frame()
			if f.Dir != proto.Out {
				t.Error("direction", f.Dir)
			}
			got.Dir = f.Dir
			if got != f {
				t.Errorf("sent     %+v\nreceived %+v", f, got)
			}
		}
		for _, n := range []int{0, 125, 126, 65535, 65536} {
			check(s.Data(wire.Text, false, true, n))
			check(s.Control(wire.Ping, 3))
			check(s.Data(wire.Text, true, false, n))
		}
	}
}

// Frames that are taken back leave no gap.
func TestSenderTakesFramesBack(t *testing.T) {
	for _, role := range roles {
		s := proto.NewSender(role, func() [4]byte { return [4]byte{} })
		frame := func(n int) proto.FrameInfo {
			t.Helper()
			if _, err := s.Data(wire.Binary, true, false, n); err != nil {
				t.Fatal(err)
			}
			return s.Frame()
		}
		first, lost := frame(10), frame(300)
		frames, bytes := s.Framed()
		s.Unframe(1, bytes-lost.Offset)
		second := frame(5)
		if frames != 2 || second.Index != lost.Index || second.Offset != lost.Offset || second.Offset <= first.Offset {
			t.Errorf("%v: %+v took the place of %+v", role, second, lost)
		}
	}
}
