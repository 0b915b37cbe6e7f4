package deflate

import (
	"math/bits"
	"sync"
	"unsafe"
)

// A window holds the last bytes of a stream for back-references: a ring whose
// size is a power of two. It starts small and grows with what was seen, so a
// connection that exchanges short messages never holds 32 KiB.
type window struct {
	buf  []byte
	next int // where the next byte goes
	n    int // bytes held, at most len(buf)
}

// windowPools keeps unused rings, by the logarithm of their size.
var windowPools [WindowBitsMax + 1]sync.Pool

func getWindow(bits int) *window {
	if w, ok := windowPools[bits].Get().(*window); ok {
		return w
	}
	return &window{buf: make([]byte, 1<<bits)}
}

// put returns w to its pool. What it held is forgotten, not erased: a reader of
// the pool can reach only bytes that it wrote itself.
func (w *window) put() {
	w.reset()
	windowPools[bits.TrailingZeros(uint(len(w.buf)))].Put(w)
}

// remember appends p to the window w, which may be nil, and returns the window
// to use from now on: at most 1<<bitsMax bytes. A window that is too small is
// exchanged for one with room for as much again, so that few are used up on the
// way and little memory between the larger ones is left in pieces.
func (w *window) remember(p []byte, bitsMax int) *window {
	if len(p) == 0 {
		return w
	}
	need, have := len(p), 0
	if w != nil {
		need, have = need+w.n, len(w.buf)
	}
	if have < 1<<bitsMax && have < need {
		grown := getWindow(max(WindowBitsMin, min(bitsMax, bits.Len(uint(2*need-1)))))
		if w != nil {
			grown.write(w.older())
			grown.write(w.buf[:w.next])
			w.put()
		}
		w = grown
	}
	w.write(p)
	return w
}

func (w *window) reset() { w.next, w.n = 0, 0 }

// held is the size of w, which may be nil.
func (w *window) held() int {
	if w == nil {
		return 0
	}
	return len(w.buf) + int(unsafe.Sizeof(*w))
}

// older is the part of the content that lies behind next, the older one.
func (w *window) older() []byte {
	if w.n < len(w.buf) {
		return nil
	}
	return w.buf[w.next:]
}

func (w *window) write(p []byte) {
	w.n = min(len(w.buf), w.n+len(p))
	if len(p) > len(w.buf) {
		p = p[len(p)-len(w.buf):]
	}
	k := copy(w.buf[w.next:], p)
	copy(w.buf, p[k:])
	w.next = (w.next + len(p)) & (len(w.buf) - 1)
}

// read copies bytes that were written dist bytes ago, oldest first, into dst. It
// stops where the window ends, so len(dst) <= dist <= w.n is the caller's duty.
func (w *window) read(dst []byte, dist int) {
	from := (w.next - dist) & (len(w.buf) - 1)
	k := copy(dst, w.buf[from:])
	copy(dst[k:], w.buf)
}
