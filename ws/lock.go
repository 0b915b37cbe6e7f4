package ws

import (
	"context"
	"sync"
)

// A readLock queues readers, first come first served, honouring contexts.
//
// Who has the read side owns it until its message is finished, also between
// two calls of MessageReader.Read or while a handler runs; it is only "inside"
// while it really reads. Whoever closes the connection may step in between, as
// the owner will not read on.
type readLock struct {
	mu      sync.Mutex
	owned   bool
	inside  bool
	over    bool // the connection has ended: nobody gets in any more
	serving bool // owned by a callback loop for good
	waiters []chan struct{}
	closer  chan struct{} // waits for inside to become false
}

// lock takes ownership and steps inside. It fails with ctx's error if ctx ends
// first; it does not fail if it need not wait.
func (l *readLock) lock(ctx context.Context, ended func() error) error {
	l.mu.Lock()
	if !l.owned && !l.over {
		l.owned, l.inside = true, true
		l.mu.Unlock()
		return nil
	}
	if l.over || l.serving {
		serving := l.serving
		l.mu.Unlock()
		if err := ended(); err != nil || !serving {
			return err
		}
		return errServing
	}
	ch := make(chan struct{})
	l.waiters = append(l.waiters, ch)
	l.mu.Unlock()
	select {
	case <-ch:
	case <-ctx.Done():
		l.mu.Lock()
		for i, w := range l.waiters {
			if w == ch {
				l.waiters = append(l.waiters[:i], l.waiters[i+1:]...)
				l.mu.Unlock()
				return ctx.Err()
			}
		}
		l.mu.Unlock() // granted in the same moment: no need to wait, so it succeeds
	}
	l.mu.Lock()
	over := l.over
	l.mu.Unlock()
	if over {
		return ended()
	}
	return nil
}

// serve makes the read side a callback loop's, for good. It returns false if
// the connection has ended.
func (l *readLock) serve() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return false
	}
	l.owned, l.inside, l.serving = true, true, true
	return true
}

// leave steps outside and keeps ownership.
func (l *readLock) leave() {
	l.mu.Lock()
	l.outside()
	l.mu.Unlock()
}

// enter steps inside again; false means that the connection has ended.
func (l *readLock) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return false
	}
	l.inside = true
	return true
}

// unlock steps outside and gives ownership to the next in line.
func (l *readLock) unlock() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.outside()
	if l.over {
		return
	}
	if len(l.waiters) == 0 {
		l.owned = false
		return
	}
	l.inside = true
	close(l.waiters[0])
	l.waiters = l.waiters[1:]
}

// outside notes that nobody is inside and lets a closer know; mu is held.
func (l *readLock) outside() {
	l.inside = false
	if l.closer != nil {
		close(l.closer)
		l.closer = nil
	}
}

// active reports whether somebody is inside.
func (l *readLock) active() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.inside
}

// finish lets nobody in any more, sends those who wait away, and returns a
// channel that is closed when nobody is inside; nil means now.
func (l *readLock) finish() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	for _, w := range l.waiters {
		close(w)
	}
	l.waiters = nil
	if !l.inside {
		return nil
	}
	if l.closer == nil {
		l.closer = make(chan struct{})
	}
	return l.closer
}

// whenOutside returns a channel that is closed when nobody is inside; nil means
// now. over says that the connection is ending.
func (l *readLock) whenOutside() (ch <-chan struct{}, over bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over || !l.inside {
		return nil, l.over
	}
	if l.closer == nil {
		l.closer = make(chan struct{})
	}
	return l.closer, false
}

// takeOver steps inside, for good, in place of an owner who is outside, or of
// nobody. It returns false if somebody is inside.
func (l *readLock) takeOver() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.inside || l.over {
		return false
	}
	l.owned, l.inside, l.over = true, true, true
	for _, w := range l.waiters {
		close(w)
	}
	l.waiters = nil
	return true
}
