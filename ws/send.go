package ws

import (
	"context"

	"github.com/weft-ws/weft/internal/wire"
)

// A Policy says what Send does when the queue has no room.
type Policy uint8

const (
	// Wait waits for room, honouring the context.
	Wait Policy = iota
	// Fail returns ErrQueueFull.
	Fail
	// Latest puts the message in the place of one with the same Key that has not
	// been begun, room or not; without one it waits for room. A video frame that
	// is late is worth nothing: the newest takes its place.
	Latest
)

// An Outgoing is a message for Send.
type Outgoing struct {
	Type MessageType
	Data []byte // not to be changed until Done is called
	// Policy is what to do when the queue is full. Default Wait.
	Policy Policy
	// Key names what the message is about, for policy Latest.
	Key string
	// Done is called once, from any goroutine: with nil when the system has taken
	// the message, ErrReplaced when a newer one took its place, or the connection's
	// error. It must not block. May be nil.
	Done func(error)
}

func (o *Outgoing) done(err error) {
	if o.Done != nil {
		o.Done(err)
	}
}

// A sendQueue holds messages given to Send, in order. It is guarded by
// writeSide.mu. A goroutine sends them while there are any.
type sendQueue struct {
	list    []Outgoing
	bytes   int64
	running bool
	room    chan struct{} // closed when a message leaves the queue; nil: nobody waits
}

// Send puts a message into the connection's queue and returns, usually before
// it is on the wire; Outgoing.Done tells when. The queue holds at most
// Config.SendQueue bytes, or one message. Messages of one caller keep their
// order, except that policy Latest gives a new message the place of the old one.
//
// It takes its turns beside WriteMessage, which does not pass through the queue.
func (c *Conn) Send(ctx context.Context, o Outgoing) error {
	if o.Type != Text && o.Type != Binary {
		return errMessageType
	}
	if o.Type == Text && !wire.ValidUTF8(o.Data) {
		return errNotUTF8
	}
	w := &c.w
	w.mu.Lock()
	if w.sendQ == nil {
		w.sendQ = new(sendQueue)
	}
	q := w.sendQ
	for {
		if err := w.refuse(); err != nil {
			w.mu.Unlock()
			return err
		}
		if o.Policy == Latest {
			for i := range q.list {
				if q.list[i].Policy != Latest || q.list[i].Key != o.Key {
					continue
				}
				old := q.list[i]
				q.list[i] = o
				q.bytes += int64(len(o.Data) - len(old.Data))
				w.counters().replaced++
				w.mu.Unlock()
				old.done(ErrReplaced)
				return nil
			}
		}
		limit := int64(c.cfg.SendQueue)
		if limit <= 0 || len(q.list) == 0 || q.bytes+int64(len(o.Data)) <= limit {
			break
		}
		if o.Policy == Fail {
			w.counters().refused++
			w.mu.Unlock()
			return ErrQueueFull
		}
		if q.room == nil {
			q.room = make(chan struct{})
		}
		room := q.room
		w.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
		w.mu.Lock()
	}
	q.list = append(q.list, o)
	q.bytes += int64(len(o.Data))
	start := !q.running
	q.running = true
	w.mu.Unlock()
	if start {
		go c.pump()
	}
	return nil
}

// pump sends what the queue holds until it is empty.
func (c *Conn) pump() {
	w := &c.w
	w.mu.Lock()
	q := w.sendQ
	w.mu.Unlock()
	for {
		w.mu.Lock()
		if len(q.list) == 0 {
			q.running, q.list = false, nil
			w.mu.Unlock()
			return
		}
		o := q.list[0]
		q.list[0] = Outgoing{}
		q.list = q.list[1:]
		q.bytes -= int64(len(o.Data))
		if q.room != nil {
			close(q.room)
			q.room = nil
		}
		w.mu.Unlock()
		o.done(c.writeMessage(context.Background(), wire.Opcode(o.Type), o.Data))
	}
}

// closeQueue wakes who waits for room: the connection is over. What the queue
// holds fails as pump comes to it.
func (c *Conn) closeQueue() {
	w := &c.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if q := w.sendQ; q != nil && q.room != nil {
		close(q.room)
		q.room = nil
	}
}
