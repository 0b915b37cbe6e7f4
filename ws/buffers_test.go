package ws

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-ws/weft/internal/wire"
	"github.com/weft-ws/weft/internal/wstest"
)

// wantLimit checks that the connection ended because of the named limit.
func wantLimit(t *testing.T, err error, limit string, most int64, code CloseCode) {
	t.Helper()
	var le *LimitError
	if !errors.As(err, &le) || le.Limit != limit || le.Max != most || le.Code != code {
		t.Fatalf("got %v, want %s of %d", err, limit, most)
	}
	wantCloseError(t, err, code, false)
}

// The size of a message is bounded when it is announced and while it grows, and
// at the limit itself it passes.
func TestBuffersMessageSizeLimit(t *testing.T) {
	for name, frames := range map[string][]string{
		"announced":           {`BINARY length=1001`},
		"hugely announced":    {`BINARY length=0x7fffffffffffffff`},
		"running":             {`BINARY fin=0 x:00*999`, `CONT fin=0 x:00`, `CONT x:00`},
		"in many":             {`TEXT fin=0 "0123456789"`, `CONT fin=0 "0123456789" repeat=99`, `CONT fin=0 "x"`},
		"beside control ones": {`BINARY fin=0 x:00*1000`, `PING x:00*125 repeat=20`, `CONT length=1`},
	} {
		bubble(t, func(t *testing.T, role Role) {
			cfg := Config{MaxMessageSize: 1000}
			c, p, _ := setup{client: cfg, server: cfg}.scripted(t, role)
			read := reading(background, c)
			p.Send(`BINARY x:07*1000`)
			if r := now(t, read, ""); len(r.p) != 1000 {
				t.Fatal(r.err)
			}
			read = reading(background, c)
			p.Send(frames...)
			p.WantCloseAfter(CloseMessageTooBig, name)
			p.Close()
			wantLimit(t, now(t, read, name).err, "MaxMessageSize", 1000, CloseMessageTooBig)
		})
	}
}

func TestBuffersFragmentLimit(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		cfg := Config{MaxFragments: 3}
		c, p, _ := setup{client: cfg, server: cfg}.scripted(t, role)
		for range 3 {
			p.Send(`TEXT fin=0 "a"`, `PING`, `CONT fin=0 "b"`, `CONT "c"`)
			wantMessage(t, c, Text, []byte("abc"))
			p.Want(`PONG`)
		}
		read := reading(background, c)
		p.Send(`TEXT fin=0 "a"`, `CONT fin=0 "b" repeat=3`)
		p.WantClose(ClosePolicyViolation, "")
		p.Close()
		wantLimit(t, now(t, read, "").err, "MaxFragments", 3, ClosePolicyViolation)
	})
}

// Limits that are switched off do not end anything.
func TestBuffersLimitsSwitchedOff(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		cfg := Config{MaxMessageSize: -1, MaxFragments: -1, SendQueue: -1}
		c, p, _ := setup{client: cfg, server: cfg, pipe: wstest.PipeOptions{Window: 4 << 20}}.scripted(t, role)
		read := reading(background, c)
		p.Send(`BINARY fin=0`, `CONT fin=0 x:00*65000 repeat=50`, `CONT`)
		if r := now(t, read, ""); len(r.p) != 50*65000 {
			t.Errorf("%d bytes, %v", len(r.p), r.err)
		}
	})
}

// A header that lies costs nothing: a message holds what has come, not what was
// promised, until its deadline ends it.
func TestBuffersLyingHeader(t *testing.T) {
	for _, announced := range []uint64{15 << 20, 1 << 40, math.MaxInt64} {
		bubble(t, func(t *testing.T, role Role) {
			cfg := Config{MaxMessageSize: -1}
			const conns = 20
			var before, after runtime.MemStats
			var reads []<-chan result
			var peers []*wstest.Peer
			for range conns {
				c, p, _ := setup{client: cfg, server: cfg}.scripted(t, role)
				reads, peers = append(reads, reading(background, c)), append(peers, p)
			}
			synctest.Wait()
			runtime.ReadMemStats(&before)
			for _, p := range peers {
				p.Send(fmt.Sprintf(`BINARY length=%d "a few bytes"`, announced))
			}
			synctest.Wait()
			runtime.ReadMemStats(&after)
			if grown := (after.TotalAlloc - before.TotalAlloc) / conns; grown > 100<<10 && !raceEnabled {
				t.Errorf("%d bytes announced: %d were allocated for each", announced, grown)
			}
			time.Sleep(messageTimeoutDefault)
			for i, p := range peers {
				p.WantClose(ClosePolicyViolation, "silence")
				p.Close()
				wantTimeout(t, now(t, reads[i], "").err, "MessageTimeout", messageTimeoutDefault, ClosePolicyViolation)
			}
		})
	}
}

// Memory follows what arrives: 131,000 fragments of a byte hold a few times
// their payload, not a slice each.
func TestBuffersManyTinyFragments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 131_000
		cfg := Config{MaxMessageSize: 16 << 20}
		c, p, _ := setup{server: cfg, pipe: wstest.PipeOptions{Window: 2 << 20}}.scripted(t, RoleServer)
		frames := make([]byte, 0, n*7)
		for i := range n {
			op := wire.Continuation
			if i == 0 {
				op = wire.Binary
			}
			frames = append(wire.AppendHeader(frames, wire.Header{Opcode: op, Masked: true, Length: 1, Fin: i == n-1}), byte(i))
		}
		p.SendBytes(frames)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, b, err := c.ReadMessage(background)
		runtime.ReadMemStats(&after)
		if err != nil || len(b) != n || b[1000] != byte(1000%256) {
			t.Fatal(len(b), err)
		}
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 6*n && !raceEnabled {
			t.Errorf("%d bytes were allocated for %d", grown, n)
		}
	})
}

// A peer that does not read holds its writers up, not our memory.
func TestBuffersBackpressure(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		c, p, _ := setup{pipe: wstest.PipeOptions{Window: 1000}}.scripted(t, role)
		var writes []<-chan result
		for range 10 {
			writes = append(writes, async(func() error { return c.WriteMessage(background, Binary, make([]byte, 5000)) }))
		}
		time.Sleep(20 * time.Second)
		for _, ch := range writes {
			pending(t, ch, "the peer reads nothing")
		}
		if s := c.Stats(); s.Waiting != 9 {
			t.Errorf("%d writers wait", s.Waiting)
		}
		for range writes {
			p.WantMessage(wire.Binary, make([]byte, 5000))
		}
		for _, ch := range writes {
			if r := now(t, ch, ""); r.err != nil {
				t.Error(r.err)
			}
		}
	})
}

// AppendMessage uses the caller's memory, leaves what is in it alone, and
// allocates nothing when there is room.
func TestBuffersAppendMessage(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		cfg := Config{MaxMessageSize: 2 << 20}
		c, p, _ := setup{client: cfg, server: cfg, pipe: wstest.PipeOptions{Window: 2 << 20}}.scripted(t, role)
		memory := make([]byte, 0, 1<<20)
		for _, n := range []int{0, 1, 5000, 100_000, 500_000} {
			msg := pattern(n, byte(n))
			p.SendFrame(wire.Binary, true, msg)
			typ, b, err := c.AppendMessage(background, append(memory, "head"...))
			if err != nil || typ != Binary || string(b[:4]) != "head" || !bytes.Equal(b[4:], msg) {
				t.Fatalf("%d bytes: %d, %v", n, len(b), err)
			}
			if &b[:1][0] != &memory[:1][0] {
				t.Errorf("%d bytes: not in the caller's memory", n)
			}
		}
		msg := pattern(1<<20, 3)
		p.SendFrame(wire.Binary, true, msg)
		if _, b, err := c.AppendMessage(background, make([]byte, 3, 10)); err != nil || !bytes.Equal(b[3:], msg) {
			t.Error(len(b), err)
		}
		if _, b, err := c.AppendMessage(canceled(), []byte("kept")); err == nil || string(b) != "kept" {
			t.Errorf("%q, %v", b, err)
		}
	})
}
