package ws

import (
	"context"
	"sync"
)

// A Budget bounds the memory of unfinished incoming messages of all the
// connections that share it through Config.Budget. It counts what a message
// holds beyond 64 KiB. The zero value bounds nothing. Its methods are safe for
// concurrent use.
type Budget struct {
	// Soft is the number of bytes above which a message that grows large has to
	// wait: its connection is not read until others have finished, so that TCP
	// slows its peer down. Zero: no soft mark.
	Soft int64
	// Hard is the number of bytes above which the largest unfinished message is
	// ended: its connection is closed with 1013. Zero: no hard mark.
	Hard int64

	mu      sync.Mutex
	used    int64
	peak    int64
	holders map[*Conn]int64
	room    chan struct{} // closed when bytes are given back; nil: nobody waits
}

// Used is how many bytes are held at the moment.
func (b *Budget) Used() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// Peak is the most bytes that were held at once.
func (b *Budget) Peak() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.peak
}

// charge accounts for a message that is about to hold size bytes. If it has to
// wait, ctx bounds that.
func (c *Conn) charge(ctx context.Context, size int64) error {
	b := c.cfg.Budget
	if b == nil || size <= messageBufferSmall {
		return nil
	}
	begun := c.r.charged > 0
	if !begun && b.Soft > 0 {
		if err := b.await(ctx, c); err != nil {
			return err
		}
	}
	largest := b.take(c, size)
	c.r.charged = size
	switch {
	case largest == nil:
		return nil
	case largest == c:
		return c.failRead(b.limitError())
	}
	// The victim's reader gives the bytes back when it finds the connection
	// ended.
	largest.fail(CloseTryAgainLater, "over Budget", b.limitError(), false)
	return nil
}

func (b *Budget) limitError() *LimitError {
	return &LimitError{Limit: "Budget", Max: b.Hard, Code: CloseTryAgainLater}
}

// take sets what c holds and returns whose message must go, if one must.
func (b *Budget) take(c *Conn, size int64) (largest *Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.holders == nil {
		b.holders = make(map[*Conn]int64)
	}
	b.used += size - b.holders[c]
	b.holders[c] = size
	b.peak = max(b.peak, b.used)
	if b.Hard <= 0 || b.used <= b.Hard {
		return nil
	}
	largest = c
	for h, n := range b.holders {
		if n > b.holders[largest] {
			largest = h
		}
	}
	return largest
}

// await waits until less than Soft is used, or nothing is. The wait is ours,
// not the peer's: its clocks stand still.
func (b *Budget) await(ctx context.Context, c *Conn) error {
	for {
		b.mu.Lock()
		if b.used < b.Soft || len(b.holders) == 0 {
			b.mu.Unlock()
			return nil
		}
		if b.room == nil {
			b.room = make(chan struct{})
		}
		room := b.room
		b.mu.Unlock()
		c.holdClocks()
		c.r.paused.Store(true)
		var err error
		select {
		case <-room:
		case <-c.ending():
			err = c.ended()
		case <-ctx.Done():
			err = ctx.Err()
		}
		c.r.paused.Store(false)
		c.resumeClocks()
		if err != nil {
			return err
		}
	}
}

// uncharge gives back what the present message held.
func (c *Conn) uncharge() {
	b := c.cfg.Budget
	if b == nil || c.r.charged == 0 {
		return
	}
	c.r.charged = 0
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= b.holders[c]
	delete(b.holders, c)
	if b.room != nil && b.used < b.Soft {
		close(b.room)
		b.room = nil
	}
}
