package acip

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// controlMax bounds the bytes of control packets that wait for the wire. A
	// peer that lets that many pile up does not read.
	controlMax = 1 << 20
	// audioMax bounds the audio packets that wait: 160 ms at 20 ms each. Older
	// ones give way, since sound that comes late is of no use.
	audioMax = 8
)

// A Buffer is a payload that several links can send without copying it. It
// goes back to its pool when the last of them has let go. Whoever holds a
// reference may read B; only the holder of the only one may change it.
type Buffer struct {
	B    []byte
	refs atomic.Int32
	pool *BufferPool
}

// A BufferPool hands out Buffers. The zero value is ready. Safe for concurrent
// use.
type BufferPool struct{ p sync.Pool }

// Get returns an empty Buffer with one reference.
func (p *BufferPool) Get() *Buffer {
	b, _ := p.p.Get().(*Buffer)
	if b == nil {
		b = &Buffer{pool: p}
	}
	b.B = b.B[:0]
	b.refs.Store(1)
	return b
}

// Retain adds a reference and returns b.
func (b *Buffer) Retain() *Buffer {
	b.refs.Add(1)
	return b
}

// Release drops a reference.
func (b *Buffer) Release() {
	if n := b.refs.Add(-1); n == 0 {
		b.pool.p.Put(b)
	} else if n < 0 {
		panic("acip: a Buffer was released more often than retained")
	}
}

// A Link is the one way out of a session. Any goroutine puts packets in; one
// goroutine takes them out, draws the nonce, encrypts and writes, so that
// packets are never interleaved and counters rise in the order of the wire.
//
// What waits is ordered by kind: control packets first, all of them, in order;
// then audio, of which only the last few wait; then one video frame, the
// newest. A frame that was not begun when a newer one came is dropped and
// counted. A packet that was begun is finished.
type Link struct {
	conn Conn

	mu      sync.Mutex
	control []queued
	pending int // bytes in control
	audio   [audioMax]queuedBuffer
	audioAt int // index of the oldest
	audioN  int
	video   queuedBuffer
	sealer  *Sealer
	err     error
	closing bool // nothing more is taken
	stats   LinkStats

	wake chan struct{} // of capacity 1: something is there
	done chan struct{} // closed when the writer has ended
	full chan error    // of capacity 1: why the session has to end although the writer waits

	seal *Sealer // the writer's copy of sealer
	wire []byte  // the writer's buffer
}

type queued struct {
	Out
	at time.Time
}

type queuedBuffer struct {
	typ Type
	buf *Buffer
	at  time.Time
}

// LinkStats counts what a Link did.
type LinkStats struct {
	Control, Audio, Video      uint64 // packets that went to the wire
	AudioDropped, VideoDropped uint64 // packets that gave way to newer ones
	Bytes                      uint64 // on the wire, below WebSocket framing
	// WaitMax is the longest that a packet waited in the Link before its turn.
	WaitMax time.Duration
}

// ErrLinkClosed is returned for packets that come after the end.
var ErrLinkClosed = errors.New("acip: the session is over")

func newLink(c Conn) *Link {
	return &Link{conn: c, wake: make(chan struct{}, 1), done: make(chan struct{}), full: make(chan error, 1)}
}

// Control queues a packet that must arrive. It returns before the packet is on
// the wire; an error means that the session is over, or ends now because the
// peer does not read.
func (l *Link) Control(o Out) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.err != nil:
		return l.err
	case l.closing:
		return ErrLinkClosed
	case l.pending+len(o.Payload)+HeaderSize > controlMax:
		l.err = fmt.Errorf("acip: the peer does not read: %d bytes of control packets wait", l.pending)
		l.full <- l.err // the only one, since nothing is taken after an error
		l.signal()
		return l.err
	}
	l.control = append(l.control, queued{o, time.Now()})
	l.pending += len(o.Payload) + HeaderSize
	l.signal()
	return nil
}

// Audio queues a packet of sound; it takes over the caller's reference to b.
// When too many wait, the oldest is dropped.
func (l *Link) Audio(t Type, b *Buffer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil || l.closing {
		b.Release()
		return
	}
	if l.audioN == audioMax {
		l.audio[l.audioAt].buf.Release()
		l.audioAt, l.audioN = (l.audioAt+1)%audioMax, l.audioN-1
		l.stats.AudioDropped++
	}
	l.audio[(l.audioAt+l.audioN)%audioMax] = queuedBuffer{t, b, time.Now()}
	l.audioN++
	l.signal()
}

// Video offers a frame; it takes over the caller's reference to b. A frame that
// still waits is replaced.
func (l *Link) Video(t Type, b *Buffer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil || l.closing {
		b.Release()
		return
	}
	if l.video.buf != nil {
		l.video.buf.Release()
		l.stats.VideoDropped++
	}
	l.video = queuedBuffer{t, b, time.Now()}
	l.signal()
}

// Stats returns what was sent and dropped so far.
func (l *Link) Stats() LinkStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stats
}

// signal wakes the writer. l.mu is held.
func (l *Link) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// setSealer switches to encrypted packets.
func (l *Link) setSealer(s *Sealer) {
	l.mu.Lock()
	l.sealer = s
	l.mu.Unlock()
}

// next takes out the packet whose turn it is. b is to be released after it was
// written, and nil if the payload is not shared.
func (l *Link) next() (p Packet, sealed bool, b *Buffer, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return Packet{}, false, nil, false
	}
	l.seal = l.sealer
	var at time.Time
	switch {
	case len(l.control) > 0:
		q := l.control[0]
		l.control[0] = queued{}
		if l.control = l.control[1:]; len(l.control) == 0 {
			l.control = l.control[:0:0]
		}
		l.pending -= len(q.Payload) + HeaderSize
		p, sealed, at = Packet{Type: q.Type, Payload: q.Payload}, q.Sealed, q.at
		l.stats.Control++
	case l.audioN > 0:
		q := l.audio[l.audioAt]
		l.audio[l.audioAt] = queuedBuffer{}
		l.audioAt, l.audioN = (l.audioAt+1)%audioMax, l.audioN-1
		p, sealed, b, at = Packet{Type: q.typ, Payload: q.buf.B}, true, q.buf, q.at
		l.stats.Audio++
	case l.video.buf != nil:
		q := l.video
		l.video = queuedBuffer{}
		p, sealed, b, at = Packet{Type: q.typ, Payload: q.buf.B}, true, q.buf, q.at
		l.stats.Video++
	default:
		return Packet{}, false, nil, false
	}
	l.stats.WaitMax = max(l.stats.WaitMax, time.Since(at))
	return p, sealed, b, true
}

// run is the writer. It returns when the link was closed and emptied, or with
// the error of the first write that failed.
func (l *Link) run() error {
	defer close(l.done)
	for {
		p, sealed, b, ok := l.next()
		if ok {
			err := l.write(p, sealed)
			if b != nil {
				b.Release()
			}
			if err != nil {
				return l.fail(err)
			}
			continue
		}
		l.mu.Lock()
		err, closing := l.err, l.closing
		l.mu.Unlock()
		if err != nil || closing {
			l.drop()
			return err
		}
		<-l.wake
	}
}

// write puts one packet on the wire.
func (l *Link) write(p Packet, sealed bool) (err error) {
	if l.wire = l.wire[:0]; !sealed {
		l.wire = p.AppendTo(l.wire)
	} else if l.seal == nil {
		return fmt.Errorf("acip: %s before the handshake is complete", p.Type)
	} else if l.wire, err = l.seal.Seal(l.wire, p); err != nil {
		return err
	}
	if err = l.conn.WritePacket(l.wire); err == nil {
		l.mu.Lock()
		l.stats.Bytes += uint64(len(l.wire))
		l.mu.Unlock()
	}
	return err
}

// fail ends the link at once.
func (l *Link) fail(err error) error {
	l.mu.Lock()
	if l.err == nil {
		l.err = err
	}
	err = l.err
	l.signal()
	l.mu.Unlock()
	l.drop()
	return err
}

// drop lets go of everything that waits.
func (l *Link) drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closing = true
	l.control, l.pending = nil, 0
	for ; l.audioN > 0; l.audioAt, l.audioN = (l.audioAt+1)%audioMax, l.audioN-1 {
		l.audio[l.audioAt].buf.Release()
		l.audio[l.audioAt] = queuedBuffer{}
	}
	if l.video.buf != nil {
		l.video.buf.Release()
		l.video = queuedBuffer{}
	}
}

// finish takes nothing more and lets the writer send the control packets that
// wait, for as long as patience lasts.
func (l *Link) finish(patience time.Duration) {
	l.mu.Lock()
	l.closing = true
	for ; l.audioN > 0; l.audioAt, l.audioN = (l.audioAt+1)%audioMax, l.audioN-1 {
		l.audio[l.audioAt].buf.Release()
		l.audio[l.audioAt] = queuedBuffer{}
	}
	if l.video.buf != nil {
		l.video.buf.Release()
		l.video = queuedBuffer{}
	}
	l.signal()
	l.mu.Unlock()
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-l.done:
	case <-t.C:
	}
}
