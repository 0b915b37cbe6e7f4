package ws

import (
	"context"
	"sync"
	"sync/atomic"
)

// A readLock queues readers, first come first served, honouring contexts.
//
// Who has the read side owns it until its message is finished, also between
// two calls of MessageReader.Read or while a handler runs; it is only inside
// while it really reads. Whoever closes the connection may step in between, as
// the owner will not read on.
type readLock struct {
	// state holds inside, over and wanted. Owners step out and in for every
	// message, so they do without mu unless somebody waits for it.
	state   atomic.Uint32
	mu      sync.Mutex
	owned   bool
	serving bool          // owned by a callback loop for good
	waiters *readWaiter   // the last in line, whose next is the first
	closer  chan struct{} // made with wanted, closed when nobody is inside
}

// A readWaiter is a reader in line.
type readWaiter struct {
	next    *readWaiter // the one behind it; behind the last, the first
	ready   chan struct{}
	granted bool // it is inside; else it was sent away
}

// add puts w at the end of the line. mu is held.
func (l *readLock) add(w *readWaiter) {
	if w.next = w; l.waiters != nil {
		w.next, l.waiters.next = l.waiters.next, w
	}
	l.waiters = w
}

// remove takes w out of the line and reports whether it was there. mu is held.
func (l *readLock) remove(w *readWaiter) bool {
	before := l.waiters
	if before == nil {
		return false
	}
	for before.next != w {
		if before = before.next; before == l.waiters {
			return false
		}
	}
	if before.next = w.next; l.waiters == w {
		l.waiters = before
	}
	if before == w { // it was alone
		l.waiters = nil
	}
	return true
}

// Bits of readLock.state.
const (
	lockInside uint32 = 1 << iota // the owner reads
	lockOver                      // the connection ends: nobody gets in any more
	lockWanted                    // somebody waits for inside to end
)

func (l *readLock) is(bit uint32) bool { return l.state.Load()&bit != 0 }

// lock takes ownership and steps inside. It fails with ctx's error if ctx ends
// first; it does not fail if it need not wait.
func (l *readLock) lock(ctx context.Context, ended func() error) error {
	l.mu.Lock()
	if !l.owned && !l.is(lockOver) {
		l.owned = true
		l.state.Or(lockInside)
		l.mu.Unlock()
		return nil
	}
	if over := l.is(lockOver); over || l.serving {
		l.mu.Unlock()
		if over {
			return ended()
		}
		return errServing
	}
	w := &readWaiter{ready: make(chan struct{})}
	l.add(w)
	l.mu.Unlock()
	select {
	case <-w.ready:
	case <-ctx.Done():
		l.mu.Lock()
		if l.remove(w) {
			l.mu.Unlock()
			return ctx.Err()
		}
		l.mu.Unlock() // its turn came in the same moment: no need to wait, so it succeeds
	}
	if !w.granted {
		return ended()
	}
	return nil
}

// serve makes the read side a callback loop's, for good. It returns false if
// the connection has ended.
func (l *readLock) serve() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.is(lockOver) {
		return false
	}
	l.owned, l.serving = true, true
	l.state.Or(lockInside)
	return true
}

// leave steps outside and keeps ownership.
func (l *readLock) leave() {
	if l.state.CompareAndSwap(lockInside, 0) {
		return
	}
	l.mu.Lock()
	l.outside()
	l.mu.Unlock()
}

// enter steps inside again; false means that the connection has ended.
func (l *readLock) enter() bool {
	if l.state.CompareAndSwap(0, lockInside) {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.is(lockOver) {
		return false
	}
	l.state.Or(lockInside)
	return true
}

// unlock steps outside and gives ownership to the next in line.
func (l *readLock) unlock() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.outside()
	if l.is(lockOver) {
		return
	}
	if l.waiters == nil {
		l.owned = false
		return
	}
	l.state.Or(lockInside)
	first := l.waiters.next
	l.remove(first)
	first.granted = true
	close(first.ready)
}

// outside notes that nobody is inside and lets who waits for it know; mu is
// held.
func (l *readLock) outside() {
	l.state.And(^(lockInside | lockWanted))
	if l.closer != nil {
		close(l.closer)
		l.closer = nil
	}
}

// active reports whether somebody is inside.
func (l *readLock) active() bool { return l.is(lockInside) }

// watch returns a channel that is closed when nobody is inside; nil means now.
// mu is held.
func (l *readLock) watch() <-chan struct{} {
	for {
		s := l.state.Load()
		if s&lockInside == 0 {
			return nil
		}
		if l.state.CompareAndSwap(s, s|lockWanted) {
			break // from now on whoever is inside takes mu to step outside
		}
	}
	if l.closer == nil {
		l.closer = make(chan struct{})
	}
	return l.closer
}

// finish lets nobody in any more, sends those who wait away, and returns a
// channel that is closed when nobody is inside; nil means now.
func (l *readLock) finish() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state.Or(lockOver)
	l.sendAway()
	return l.watch()
}

// sendAway wakes those who wait, to find the connection ending. mu is held.
func (l *readLock) sendAway() {
	for l.waiters != nil {
		first := l.waiters.next
		l.remove(first)
		close(first.ready)
	}
}

// whenOutside returns a channel that is closed when nobody is inside; nil means
// now. over says that the connection is ending.
func (l *readLock) whenOutside() (ch <-chan struct{}, over bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.is(lockOver) {
		return nil, true
	}
	return l.watch(), false
}

// takeOver steps inside, for good, in place of an owner who is outside, or of
// nobody. It returns false if somebody is inside.
func (l *readLock) takeOver() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.state.CompareAndSwap(0, lockInside|lockOver) {
		return false
	}
	l.owned = true
	l.sendAway()
	return true
}
