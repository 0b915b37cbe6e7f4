package proto_test

import (
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/weft-ws/weft/internal/proto"
	"github.com/weft-ws/weft/internal/wire"
)

// A watch drives a Receiver through time as a reader does: it ticks before it
// reads, and again when the deadline has passed.
type watch struct {
	t   *testing.T
	r   *proto.Receiver
	c   collector
	now time.Time
}

func newWatch(t *testing.T, lim proto.Limits) *watch {
	r := proto.NewReceiver(proto.Server, &lim)
	w := &watch{t: t, r: r, c: collector{t: t, r: r}, now: time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)}
	w.mustTick()
	return w
}

func (w *watch) mustTick() {
	w.t.Helper()
	if err := w.r.Tick(w.now); err != nil {
		w.t.Fatal(err)
	}
}

// gets delivers bytes now, and ticks as the next read begins.
func (w *watch) gets(p []byte) {
	w.t.Helper()
	if _, err := w.c.receive(p); err != nil {
		w.t.Fatal(err)
	}
	w.mustTick()
}

// wait lets time pass in which nothing comes; nothing must expire.
func (w *watch) wait(d time.Duration) {
	w.t.Helper()
	w.now = w.now.Add(d)
	w.mustTick()
}

// expires wants the named deadline to come exactly after d, and to be final.
func (w *watch) expires(d time.Duration, limit string, after time.Duration) {
	w.t.Helper()
	at := w.now.Add(d)
	if got := w.r.Deadline(); !got.Equal(at) {
		w.t.Fatalf("deadline in %v, want %v", got.Sub(w.now), d)
	}
	w.now = at.Add(-1)
	w.mustTick()
	w.now = at
	err := w.r.Tick(at)
	var te *proto.TimeoutError
	if !errors.As(err, &te) || te.Limit != limit || te.After != after || te.Code != wire.ClosePolicyViolation {
		w.t.Fatalf("got %v, want %s of %v", err, limit, after)
	}
	var ne net.Error
	if !errors.As(err, &ne) || !ne.Timeout() {
		w.t.Error("not a net.Error that timed out for good")
	}
	if !strings.Contains(err.Error(), limit) || !strings.Contains(err.Error(), after.String()) {
		w.t.Errorf("%q", err)
	}
	if again := w.r.Tick(at.Add(time.Hour)); again != err {
		w.t.Errorf("then %v", again)
	}
	if _, _, again := w.r.Next([]byte{0x82, 0}); again != err {
		w.t.Errorf("Next after a missed deadline: %v", again)
	}
	if !w.r.Deadline().IsZero() {
		w.t.Error("a deadline after the end")
	}
}

func (w *watch) never() {
	w.t.Helper()
	if d := w.r.Deadline(); !d.IsZero() {
		w.t.Errorf("deadline in %v, want none", d.Sub(w.now))
	}
}

// Frames of a server.
var (
	firstFragment = []byte("\x01\x03hel")
	nextFragment  = []byte("\x00\x02lo")
	lastFragment  = []byte("\x80\x01!")
	wholeMessage  = []byte("\x82\x02hi")
	pingFrame     = []byte("\x89\x01p")
	closeFrame    = []byte("\x88\x00")
)

const (
	second = time.Second
	minute = time.Minute
)

func TestMessageTimeout(t *testing.T) {
	lim := proto.Limits{MessageTime: 30 * second}
	t.Run("from the first byte to FIN, in silence", func(t *testing.T) {
		w := newWatch(t, lim)
		w.never()
		if w.r.Timed() {
			t.Error("timed before anything has begun")
		}
		w.wait(time.Hour)
		w.gets(firstFragment[:1])
		if !w.r.Timed() {
			t.Error("not timed inside a message")
		}
		w.expires(30*second, "MessageTimeout", 30*second)
	})
	t.Run("whatever comes in between", func(t *testing.T) {
		w := newWatch(t, lim)
		w.gets(firstFragment)
		for range 29 {
			w.wait(second)
			w.gets(nextFragment)
			w.gets(pingFrame)
		}
		w.expires(second, "MessageTimeout", 30*second)
	})
	t.Run("each message anew", func(t *testing.T) {
		w := newWatch(t, lim)
		for range 5 {
			w.gets(firstFragment)
			w.wait(29 * second)
			w.gets(lastFragment)
			w.never()
		}
		w.gets(append(append([]byte{}, wholeMessage...), firstFragment...))
		w.wait(20 * second)
		w.gets(append(append([]byte{}, lastFragment...), firstFragment...)) // both in one read
		w.expires(30*second, "MessageTimeout", 30*second)
	})
	t.Run("a header or a control frame counts as well", func(t *testing.T) {
		for _, p := range [][]byte{wholeMessage[:1], wholeMessage[:3], pingFrame[:1], pingFrame[:2]} {
			w := newWatch(t, lim)
			w.gets(p)
			w.wait(10 * second)
			w.expires(20*second, "MessageTimeout", 30*second)
		}
	})
	t.Run("a header that comes byte by byte begins with its first byte", func(t *testing.T) {
		w := newWatch(t, lim)
		w.gets(firstFragment[:1])
		w.wait(10 * second)
		w.gets(firstFragment[1:2])
		w.wait(10 * second)
		w.gets(firstFragment[2:])
		w.expires(10*second, "MessageTimeout", 30*second)
	})
	t.Run("not after a Close", func(t *testing.T) {
		w := newWatch(t, lim)
		w.gets(firstFragment)
		w.gets(closeFrame)
		w.never()
		w.wait(time.Hour)
	})
}

func TestGapTimeout(t *testing.T) {
	lim := proto.Limits{GapTime: 10 * second, MessageTime: 30 * second}
	t.Run("stands still", func(t *testing.T) {
		w := newWatch(t, lim)
		w.gets(firstFragment)
		w.wait(9 * second)
		w.gets(nextFragment[:3])
		w.wait(9 * second)
		w.gets(nextFragment[3:])
		w.expires(10*second, "GapTimeout", 10*second)
	})
	t.Run("a ping is no progress", func(t *testing.T) {
		w := newWatch(t, lim)
		w.gets(firstFragment)
		w.wait(9 * second)
		w.gets(pingFrame)
		w.expires(second, "GapTimeout", 10*second)
	})
	t.Run("an empty fragment is", func(t *testing.T) {
		w := newWatch(t, proto.Limits{GapTime: 10 * second})
		w.gets(firstFragment)
		for range 10 {
			w.wait(9 * second)
			w.gets([]byte("\x00\x00"))
		}
		w.expires(10*second, "GapTimeout", 10*second)
	})
	t.Run("the earlier of two", func(t *testing.T) {
		w := newWatch(t, lim)
		w.gets(firstFragment)
		for range 3 {
			w.wait(9 * second)
			w.gets(nextFragment)
		}
		w.expires(3*second, "MessageTimeout", 30*second)
	})
	t.Run("not between messages", func(t *testing.T) {
		w := newWatch(t, lim)
		w.gets(wholeMessage)
		w.never()
		w.wait(time.Hour)
		w.gets(wholeMessage)
		w.wait(time.Hour)
	})
}

// A slow but honest peer gets more time for what it delivers.
func TestMinRate(t *testing.T) {
	lim := proto.Limits{MessageTime: 30 * second, MinRate: 1000}
	w := newWatch(t, lim)
	w.gets([]byte("\x02\x7e\x27\x10")) // 10,000 bytes follow
	w.expires(30*second, "MessageTimeout", 30*second)

	w = newWatch(t, lim)
	w.gets([]byte("\x02\x7e\x27\x10"))
	for i := range 20 {
		w.wait(29*second - 20*time.Millisecond)
		w.gets(make([]byte, 500)) // half a second each
		if i == 0 {
			if got := w.r.Deadline().Sub(w.now); got != 30*second+500*time.Millisecond-29*second+20*time.Millisecond {
				t.Errorf("deadline in %v", got)
			}
			break
		}
	}
	// At twice the rate it may go on for as long as it likes.
	w = newWatch(t, lim)
	w.gets([]byte("\x02\x7f\x00\x00\x00\x00\x00\x0f\x42\x40")) // 1,000,000 bytes
	for range 999 {
		w.wait(500 * time.Millisecond)
		w.gets(make([]byte, 1000))
	}
	w.expires(30*second+499500*time.Millisecond, "MessageTimeout", 30*second)

	// Rates that do not divide a second.
	w = newWatch(t, proto.Limits{MessageTime: 30 * second, MinRate: 3})
	w.gets([]byte("\x02\x05abcd"))
	w.expires(30*second+second+333333333, "MessageTimeout", 30*second)
}

func TestIdleTimeout(t *testing.T) {
	lim := proto.Limits{IdleTime: minute}
	w := newWatch(t, lim)
	if !w.r.Timed() {
		t.Error("an idle timeout always runs")
	}
	w.wait(59 * second)
	w.gets(pingFrame)
	w.wait(59 * second)
	w.gets(pingFrame[:1])
	w.wait(59 * second)
	w.gets(pingFrame[1:])
	w.gets(wholeMessage)
	w.expires(minute, "IdleTimeout", minute)
}

// The clocks stand still while the application is slow.
func TestHoldStopsTheClocks(t *testing.T) {
	lim := proto.Limits{MessageTime: 30 * second, GapTime: 20 * second, IdleTime: 40 * second}
	w := newWatch(t, lim)
	w.gets(firstFragment)
	w.wait(15 * second)
	w.r.Hold(w.now)
	w.never()
	w.wait(minute)
	w.r.Hold(w.now) // twice is once
	w.wait(time.Hour)
	w.r.Resume(w.now)
	w.r.Resume(w.now)
	w.expires(5*second, "GapTimeout", 20*second)

	w = newWatch(t, lim)
	w.gets(firstFragment)
	w.wait(19 * second)
	w.gets(nextFragment)
	w.r.Hold(w.now)
	w.now = w.now.Add(time.Hour)
	w.r.Resume(w.now)
	w.mustTick()
	w.expires(11*second, "MessageTimeout", 30*second)

	w = newWatch(t, lim) // before anything has come
	w.r.Hold(w.now)
	w.now = w.now.Add(time.Hour)
	w.r.Resume(w.now)
	w.mustTick()
	w.expires(40*second, "IdleTimeout", 40*second)

	r := proto.NewReceiver(proto.Server, &lim) // before the first Tick
	r.Hold(w.now)
	r.Resume(w.now.Add(time.Hour))
	if !r.Deadline().IsZero() {
		t.Error(r.Deadline())
	}
}

func TestControlRateRefills(t *testing.T) {
	w := newWatch(t, proto.Limits{ControlRate: 2, ControlBurst: 3})
	if !w.r.Timed() {
		t.Error("a rate needs the time")
	}
	for range 3 {
		w.gets(pingFrame)
	}
	for range 10 { // two a second, for as long as it likes
		w.wait(500 * time.Millisecond)
		w.gets(pingFrame)
	}
	w.wait(time.Hour) // saves no more than the burst
	for range 3 {
		w.gets(pingFrame)
	}
	w.now = w.now.Add(500 * time.Millisecond) // nobody ticks while nothing comes
	w.r.Refill(w.now)
	w.gets(pingFrame)
	var le *proto.LimitError
	if _, err := w.c.receive(pingFrame); !errors.As(err, &le) || le.Limit != "ControlRate" {
		t.Error(err)
	}
}

// With nothing to watch nothing expires, and time may stand or jump.
func TestNoLimitsNoDeadline(t *testing.T) {
	w := newWatch(t, proto.Limits{})
	w.gets(firstFragment)
	if w.r.Timed() {
		t.Error("timed without a limit")
	}
	w.never()
	w.wait(1000 * time.Hour)
}
