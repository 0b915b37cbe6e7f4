package deflate

import (
	"runtime"
	"testing"
	"unsafe"
)

// pair is both directions of a connection.
type pair struct {
	d Deflater
	r Inflater
}

// exchange sends messages both ways until everything has its final size.
func (c *pair) exchange(messages, wires [][]byte, dst []byte) []byte {
	for i, p := range messages {
		dst = c.d.AppendMessage(dst[:0], p)
		if _, _, done, err := c.r.Step(dst[:cap(dst)], wires[i], true); err != nil || !done {
			panic(err)
		}
	}
	return dst
}

// wiresOf is what a peer with the largest context sends.
func wiresOf(messages [][]byte, takeover bool) [][]byte {
	var d Deflater
	d.Reset(15, takeover)
	d.SetContext(15)
	wires := make([][]byte, len(messages))
	for i, p := range messages {
		wires[i] = d.AppendMessage(nil, p)
	}
	return wires
}

// An idle connection without takeover holds next to nothing, one with takeover
// the peer's window and our context: 36 KiB of at most 42.
func TestIdleMemory(t *testing.T) {
	const connections = 60
	messages := corpus(20, 16, 4096)
	for _, tt := range []struct {
		takeover      bool
		heldMax, most int
	}{
		{false, 0, 1 << 10},
		{true, 32<<10 + 4<<10 + 128, 42 << 10},
	} {
		wires := wiresOf(messages, tt.takeover)
		dst := make([]byte, 0, 64<<10)
		heap := func() uint64 {
			// Twice, because pools keep what they hold for one collection.
			runtime.GC()
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		before := heap()
		pairs := make([]*pair, connections)
		for i := range pairs {
			pairs[i] = new(pair)
			pairs[i].d.Reset(15, tt.takeover)
			pairs[i].r.Reset(15, tt.takeover)
			pairs[i].exchange(messages, wires, dst)
			if held := pairs[i].d.Held() + pairs[i].r.Held(); held > tt.heldMax {
				t.Fatalf("takeover %t: a pair says that it holds %d bytes, at most %d were expected", tt.takeover, held, tt.heldMax)
			}
		}
		each := int(heap()-before) / connections
		held := pairs[0].d.Held() + pairs[0].r.Held() + int(unsafe.Sizeof(pair{}))
		t.Logf("takeover %t: %d bytes on the heap for each connection, %d by its own account", tt.takeover, each, held)
		if each > tt.most {
			t.Errorf("takeover %t: %d bytes on the heap for each connection, at most %d allowed", tt.takeover, each, tt.most)
		}
		// The account and the heap agree, but for size classes and the pools' share.
		if each > held+held/8+512 {
			t.Errorf("takeover %t: %d bytes on the heap for each connection, which accounts for %d", tt.takeover, each, held)
		}
		for _, c := range pairs {
			c.d.Close()
			c.r.Close()
			if held := c.d.Held() + c.r.Held(); held != 0 {
				t.Fatalf("takeover %t: holds %d bytes after Close", tt.takeover, held)
			}
		}
	}
}

// A connection that saw little holds little, with takeover too.
func TestIdleMemoryGrowsWithUse(t *testing.T) {
	p := corpus(21, 1, 300)[0]
	var c pair
	c.d.Reset(15, true)
	c.r.Reset(15, true)
	if held := c.d.Held() + c.r.Held(); held != 0 {
		t.Errorf("holds %d bytes before the first message", held)
	}
	c.exchange([][]byte{p}, wiresOf([][]byte{p}, true), make([]byte, 0, 1<<12))
	if held := c.d.Held() + c.r.Held(); held > 2*(1024+64) {
		t.Errorf("holds %d bytes after a message of 300", held)
	}
}

// In the middle of a message an Inflater holds the window so far and the tables of
// the block; a Deflater its encoder.
func TestHeldInTheMiddle(t *testing.T) {
	p := corpus(22, 1, 4096)[0]
	wire := wiresOf([][]byte{p}, false)[0]
	var r Inflater
	if _, _, done, err := r.Step(make([]byte, 1000), wire, true); done || err != nil {
		t.Fatal(done, err)
	}
	if held := r.Held(); held < 1000+tablesSize || held > 2048+64+tablesSize {
		t.Errorf("inflater holds %d bytes after 1,000 of output", held)
	}
	r.Release()
	if r.Held() == 0 {
		t.Error("Release took what the message needs")
	}
	var d Deflater
	d.Append(nil, p)
	if d.Held() != encoderSize {
		t.Errorf("deflater holds %d bytes, want %d", d.Held(), encoderSize)
	}
}

func TestNoAllocations(t *testing.T) {
	if raceDetector {
		return // under the race detector pools drop things on purpose
	}
	messages := corpus(23, 12, 4096)
	for _, takeover := range []bool{false, true} {
		wires := wiresOf(messages, takeover)
		var c pair
		c.d.Reset(15, takeover)
		dst := make([]byte, 0, 1<<13)
		if n := testing.AllocsPerRun(100, func() {
			c.r.Reset(15, takeover) // wires begin anew
			c.exchange(messages, wires, dst)
		}); n != 0 {
			t.Errorf("takeover %t: %v allocations for %d messages both ways", takeover, n, len(messages))
		}
		if n := testing.AllocsPerRun(100, func() {
			for _, p := range messages {
				dst = inTwoParts(&c.d, dst, p)
			}
		}); n != 0 {
			t.Errorf("takeover %t: %v allocations for %d streamed messages", takeover, n, len(messages))
		}
	}
}

// inTwoParts streams p in two parts, with a pause between them.
func inTwoParts(d *Deflater, dst, p []byte) []byte {
	dst = d.Flush(d.Append(dst[:0], p[:len(p)/2]))
	d.Release()
	return d.Finish(d.Append(dst, p[len(p)/2:]))
}
