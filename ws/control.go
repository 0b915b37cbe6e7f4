package ws

import (
	"context"
	"encoding/binary"
	"time"

	"github.com/weft-ws/weft/internal/wire"
)

// pongsMax is how many pongs may be owed. RFC 6455, 5.5.3: an endpoint that has
// not answered earlier pings "MAY elect to send a Pong frame for only the most
// recently processed Ping frame". So a short queue is enough, and a flood costs
// the flooder.
const pongsMax = 16

// controls are control frames that wait for the wire. They are guarded by
// writeSide.mu.
type controls struct {
	owed  *owed       // made with the first ping of either side
	frame *CloseFrame // our Close, as soon as a frame boundary comes
	later *CloseFrame // our Close, when the message in flight is finished
}

// owed are pings and pongs that wait for the wire.
type owed struct {
	since time.Time // since when the oldest waits
	pings []uint64
	n     int // pongs in list
	list  [pongsMax]struct {
		n int
		b [wire.ControlPayloadMax]byte
	}
}

// due reports whether a control frame waits.
func (q *controls) due() bool {
	return q.frame != nil || q.owed != nil && (q.owed.n > 0 || len(q.owed.pings) > 0)
}

// owe returns the pings and pongs that wait, to add one.
func (q *controls) owe() *owed {
	if q.owed == nil {
		q.owed = new(owed)
	}
	if q.owed.since.IsZero() {
		q.owed.since = time.Now()
	}
	return q.owed
}

// push owes a pong. When the queue is full the newest takes the place of the
// newest, and push returns false.
func (q *controls) push(payload []byte) bool {
	o := q.owe()
	room := o.n < pongsMax
	if room {
		o.n++
	}
	p := &o.list[o.n-1]
	p.n = copy(p.b[:], payload)
	return room
}

// takeControl moves the control frames that wait into b, our Close last. mu and
// the frame lock are held.
func (c *Conn) takeControl(b *batch) {
	w := &c.w
	q := &w.control
	if !q.due() {
		return
	}
	var since time.Time
	add := func(op wire.Opcode, payload []byte, last bool) {
		open := w.sender.Open()
		h, err := w.sender.Control(op, len(payload))
		if err != nil {
			return // a Close has been sent: nothing may follow
		}
		c.traceFrame()
		w.sent.control++
		if open {
			w.counters().interleaved++
		}
		b.size += wire.HeaderMax + len(payload)
		b.copyFrame(h, payload, piece{end: true, close: last, since: since})
	}
	if o := q.owed; o != nil {
		since, o.since = o.since, since
		for i := range o.list[:o.n] {
			p := &o.list[i]
			add(wire.Pong, p.b[:p.n], false)
		}
		for _, id := range o.pings {
			add(wire.Ping, binary.BigEndian.AppendUint64(nil, id), false)
		}
		o.n, o.pings = 0, o.pings[:0]
	}
	if q.frame != nil {
		w.closes.Sent(q.frame.Code, q.frame.Reason)
		add(wire.Close, closeBody(q.frame), true)
		q.frame = nil
	}
}

// closeBody is the payload of a Close frame.
func closeBody(f *CloseFrame) []byte {
	if f.Code == CloseNoStatus {
		return nil
	}
	return append([]byte{byte(f.Code >> 8), byte(f.Code)}, f.Reason...)
}

// flushControl sends the control frames that wait, and replies that are held.
// The frame lock is held; it releases it.
func (c *Conn) flushControl() {
	c.w.mu.Lock()
	c.flush()
}

// flush is flushControl with mu held; it releases both.
func (c *Conn) flush() {
	w := &c.w
	if !w.control.due() && w.corked == nil {
		c.release()
		w.mu.Unlock()
		return
	}
	b := c.begin()
	w.mu.Unlock()
	err := b.write(context.Background())
	w.mu.Lock()
	w.waited(b.waited)
	b.free()
	if err != nil {
		w.mu.Unlock()
		c.drop(err, true)
		return
	}
	c.release()
	w.mu.Unlock()
}

// flushSoon sees to it that somebody sends the control frames that wait. mu is
// held.
func (c *Conn) flushSoon() {
	w := &c.w
	if !w.busy && w.final == nil {
		w.busy = true
		go c.flushControl()
	}
}

// gotPing owes an answer to a ping. The reader never writes it: two peers whose
// buffers are full would wait for each other. A callback loop sends what it owes
// when it has consumed its input.
func (c *Conn) gotPing(payload []byte) {
	w := &c.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.final != nil || w.sender.Closed() {
		return
	}
	if !w.control.push(payload) {
		w.counters().pongsDropped++
	}
	if c.r.owes = c.r.serving; !c.r.owes {
		c.flushSoon()
	}
}

// pings are the pings of ours that wait for a pong. Guarded by life.mu.
type pings struct {
	last    uint64 // ID of the latest ping
	waiting []pingWait
	rtt     time.Duration
	alive   uint64 // ID of the keep-alive ping under way, 0 if none
	asked   time.Time
	seen    uint64      // bytes received when keep-alive last looked
	timer   *time.Timer // of keep-alive, nil without it
}

type pingWait struct {
	id    uint64
	sent  time.Time
	ready chan time.Duration
}

// pingsMax bounds the pings that may wait for a pong at once.
const pingsMax = 1024

// Ping sends a ping and waits for its pong, or for that of a later ping. It
// returns the round trip, which includes the wait for the wire. Somebody must be
// reading, but not inside Ping: a Handler calls it from a goroutine of its own.
func (c *Conn) Ping(ctx context.Context) (rtt time.Duration, err error) {
	l := &c.life
	l.mu.Lock()
	if l.pings == nil {
		l.pings = new(pings)
	}
	if len(l.pings.waiting) >= pingsMax {
		l.mu.Unlock()
		return 0, errPings
	}
	l.pings.last++
	p := pingWait{id: l.pings.last, sent: time.Now(), ready: make(chan time.Duration, 1)}
	l.pings.waiting = append(l.pings.waiting, p)
	l.mu.Unlock()
	defer c.forgetPing(p.id)
	if err := c.sendPing(p.id); err != nil {
		return 0, err
	}
	if !c.r.lock.active() && c.cfg.Logger != nil {
		c.cfg.Logger.Debug("ping waits, but nobody reads", "remote", c.RemoteAddr())
	}
	select {
	case rtt = <-p.ready:
		return rtt, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-c.Done():
		return 0, c.Err()
	}
}

func (c *Conn) sendPing(id uint64) error {
	w := &c.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.refuse(); err != nil {
		return err
	}
	o := w.control.owe()
	o.pings = append(o.pings, id)
	c.flushSoon()
	return nil
}

func (c *Conn) forgetPing(id uint64) {
	l := &c.life
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, p := range l.pings.waiting {
		if p.id == id {
			l.pings.waiting = append(l.pings.waiting[:i], l.pings.waiting[i+1:]...)
			return
		}
	}
}

// gotPong completes the ping that it answers, and earlier ones. A pong that
// nobody asked for is legal and ignored.
func (c *Conn) gotPong(payload []byte) {
	if len(payload) != 8 {
		return
	}
	id := binary.BigEndian.Uint64(payload)
	l := &c.life
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pings == nil || id == 0 || id > l.pings.last {
		return
	}
	now := time.Now()
	if id >= l.pings.alive && l.pings.alive != 0 {
		l.pings.rtt = now.Sub(l.pings.asked)
		l.pings.alive = 0
		// The silence that is measured goes on: the pong that we have asked for is
		// no word of the peer's own. Otherwise the next ping would be due only
		// after PongTimeout and KeepAlive together.
		l.pings.seen += uint64(2 + len(payload))
		if c.role == RoleServer {
			l.pings.seen += uint64(len(wire.Header{}.Key)) // clients mask
		}
		if !l.over {
			l.pings.timer.Reset(c.cfg.KeepAlive)
		}
	}
	for _, p := range l.pings.waiting {
		if p.id <= id {
			select {
			case p.ready <- now.Sub(p.sent):
				l.pings.rtt = now.Sub(p.sent)
			default: // answered already
			}
		}
	}
}

// startKeepAlive begins to watch the peer's silence.
func (c *Conn) startKeepAlive() {
	c.life.mu.Lock()
	defer c.life.mu.Unlock()
	c.life.pings = &pings{timer: time.AfterFunc(c.cfg.KeepAlive, c.keepAlive)}
}

// keepAlive runs on its own goroutine when the timer fires: it pings a peer
// that has been silent, and gives up on one that stays so.
func (c *Conn) keepAlive() {
	seen := c.r.snapshot().Bytes
	l := &c.life
	l.mu.Lock()
	if l.over {
		l.mu.Unlock()
		return
	}
	p := l.pings
	quiet := seen == p.seen
	p.seen = seen
	next, ping, dead := c.cfg.KeepAlive, uint64(0), false
	switch {
	case !quiet:
		p.alive = 0
	case p.alive != 0 && c.cfg.PongTimeout > 0 && c.r.lock.active() && !c.r.paused.Load():
		dead = true
	case p.alive == 0 || c.cfg.PongTimeout == 0:
		p.last++
		p.alive, p.asked, ping = p.last, time.Now(), p.last
		next = c.cfg.PongTimeout
		if next == 0 {
			next = c.cfg.KeepAlive
		}
	}
	if !dead {
		p.timer.Reset(next)
	}
	l.mu.Unlock()
	if ping != 0 {
		_ = c.sendPing(ping) // an error means that the connection is ending
	}
	if dead {
		c.fail(CloseGoingAway, "ping not answered", &TimeoutError{Limit: "PongTimeout", After: c.cfg.PongTimeout, Code: CloseGoingAway}, false)
	}
}
