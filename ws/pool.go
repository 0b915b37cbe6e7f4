package ws

import (
	"context"
	"sync"

	"github.com/weft-ws/weft/internal/proto"
)

// readBufferSize is how much one read of the network takes at most. The buffer
// comes from a pool when bytes are there and goes back when they are consumed:
// an idle connection holds none.
const readBufferSize = 64 << 10

var readBuffers = sync.Pool{New: func() any { return new(readBuffer) }}

// A readBuffer is what one read takes, and the latest event in it.
type readBuffer struct {
	b  [readBufferSize]byte
	ev proto.Event
}

// A messageBuffer collects the fragments of a message. It grows as bytes
// arrive, never by what a header promises.
type messageBuffer struct {
	b       []byte
	base    int  // where the message begins
	foreign bool // the memory is the caller's

	small []byte       // set aside when b outgrew it
	large *largeBuffer // whose memory b is, or nil
}

// A largeBuffer is memory of more than messageBufferSmall. One that has served
// is reused by any message that has outgrown a small one; that takes no new
// memory.
type largeBuffer struct{ b []byte }

var (
	messageBuffers = sync.Pool{New: func() any { return new(messageBuffer) }}
	largeBuffers   sync.Pool // of *largeBuffer
)

const (
	messageBufferFirst = 1 << 10
	messageBufferSmall = 64 << 10
	// messageBufferKeep is the largest buffer that goes back to a pool; a
	// sync.Pool drops what two collections have not used. The byte is the one
	// that shows that a message is over a limit of 64 MiB, see room.
	messageBufferKeep = 64<<20 + 1
	// giveBackMin is the size from which the memory of an outgrown buffer is
	// given back to the system at once, so that growing a message does not hold
	// it twice.
	giveBackMin = 1 << 20
)

// end is how far m may be filled: to where memory ends, or what has been charged
// to the budget. The caller's own memory is not charged.
func (m *messageBuffer) end(c *Conn) int {
	if c.cfg.Budget == nil || m.foreign {
		return cap(m.b)
	}
	return int(min(int64(cap(m.b)), int64(m.base)+max(c.r.charged, messageBufferSmall)))
}

// room sees to it that need more bytes have room. The buffer at least doubles,
// so that a message costs few moves, and never grows ahead of that, nor past
// what a message may hold and the byte that shows that it holds more.
func (m *messageBuffer) room(ctx context.Context, c *Conn, need int) error {
	n := len(m.b)
	if m.end(c)-n >= need {
		return nil
	}
	size := n + max(need, n-m.base, messageBufferFirst)
	if limit := c.cfg.MaxMessageSize; limit > 0 && int64(size-m.base) >= limit {
		// The last step: what is inflated may be one byte over, and then it ends.
		size = max(n+need, m.base+int(limit)+1)
	}
	if err := c.charge(ctx, int64(size-m.base)); err != nil {
		return err
	}
	if cap(m.b)-n >= need {
		return nil // memory of an earlier message, which is now paid for
	}
	if m.foreign || size <= messageBufferSmall {
		m.move(make([]byte, 0, size))
		return nil
	}
	if l, _ := largeBuffers.Get().(*largeBuffer); l != nil && cap(l.b) >= size {
		m.move(l.b[:0])
		m.large = l
		return nil
	}
	m.move(make([]byte, 0, size))
	return nil
}

// roomDirect makes room to read some of the want bytes to come from the network
// straight into the buffer.
func (m *messageBuffer) roomDirect(ctx context.Context, c *Conn, want int64) error {
	if free := int64(m.end(c) - len(m.b)); free >= min(want, directMin/2) {
		return nil
	}
	return m.room(ctx, c, int(min(want, int64(max(len(m.b)-m.base, messageBufferSmall)))))
}

// move goes on in new memory.
func (m *messageBuffer) move(to []byte) {
	old := m.b
	m.b = append(to, old...)
	switch {
	case m.foreign:
	case cap(old) <= messageBufferSmall && cap(to) > messageBufferSmall:
		m.small = old[:0]
	case cap(old) >= giveBackMin:
		giveBack(old[:cap(old)])
	}
	m.large = nil
}

// handOver gives the memory of the message to the caller for good.
func (m *messageBuffer) handOver() []byte {
	b := m.b
	m.b, m.large = nil, nil
	return b
}

// release puts the buffer back for others.
func (m *messageBuffer) release() {
	if n := cap(m.b); n > messageBufferSmall {
		if n <= messageBufferKeep {
			l := m.large
			if l == nil {
				l = new(largeBuffer)
			}
			l.b = m.b[:0]
			largeBuffers.Put(l)
		}
		m.b, m.small, m.large = m.small, nil, nil
	}
	m.b, m.base, m.foreign = m.b[:0], 0, false
	messageBuffers.Put(m)
}
