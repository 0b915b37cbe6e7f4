package gateway

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
	"unicode/utf8"

	"github.com/weft-ws/weft/mcpws/envelope"
)

// Restarting. A server that fails is started again after 0, 250 ms, 500 ms,
// 1 s, 2 s. After breakerFails failures in a row the circuit breaker opens:
// calls are answered at once with the reason, and one attempt is made every
// breakerWait. A server that ran for healthyAfter, or answered initialize,
// starts the count anew when it fails.
const (
	backoffFirst = 250 * time.Millisecond
	breakerFails = 5
	breakerWait  = 30 * time.Second
	healthyAfter = 10 * time.Second
	openTimeout  = 30 * time.Second // to start a server or to dial one
	initTimeout  = 60 * time.Second // for the answer to a repeated initialize
)

// backoff is the wait before attempt fails+1, without jitter.
func backoff(fails int) time.Duration {
	if fails <= 1 {
		return 0
	}
	return backoffFirst << min(fails-2, 10)
}

// jitter makes a wait up to a quarter longer, so that many who lost the same
// server do not all come back at once.
func jitter(wait time.Duration) time.Duration { return wait + rand.N(wait/4+1) }

// start begins the life of the hub. It returns at once.
func (h *hub) start() {
	h.wg.Go(h.run)
}

// startWith is start with a peer that runs already: one of a pool.
func (h *hub) startWith(peer Peer) {
	h.wg.Go(func() {
		h.serve(peer)
		h.run()
	})
}

// run keeps a server running until the hub is closed.
func (h *hub) run() {
	for {
		h.mu.Lock()
		fails, closed := h.fails, h.state == hubClosed
		h.mu.Unlock()
		if closed {
			return
		}
		wait := backoff(fails)
		if fails >= breakerFails {
			wait = breakerWait
		}
		if wait > 0 {
			wait = jitter(wait)
		}
		select {
		case <-time.After(wait):
		case <-h.stop:
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
		go func() {
			select {
			case <-h.stop:
				cancel()
			case <-ctx.Done():
			}
		}()
		peer, err := h.backend.Open(ctx, h.caller)
		cancel()
		if err != nil {
			h.failed(err, true)
			continue
		}
		h.serve(peer)
	}
}

// serve brings a peer up and reads it to its end.
func (h *hub) serve(peer Peer) {
	h.mu.Lock()
	if h.state == hubClosed {
		h.mu.Unlock()
		_ = peer.Close()
		return
	}
	if h.state == hubBroken {
		h.state = hubStarting
	}
	h.peer, h.broken, h.cause, h.since = peer, nil, nil, time.Now()
	again := h.inited
	h.mu.Unlock()
	if again {
		h.wg.Go(func() { h.reinitialize(peer) })
	} else {
		h.wg.Go(func() { h.bringUp(peer) })
	}
	err := h.read(peer)
	_ = peer.Close()
	h.failed(err, false)
}

// read passes on what the server says and returns why that ended.
func (h *hub) read(peer Peer) error {
	for {
		line, err := peer.Read()
		var long *LineTooLongError
		if errors.As(err, &long) {
			h.tooLong(long)
			continue
		}
		if err != nil {
			return err
		}
		if !utf8.Valid(line) {
			h.log.Warn("the server sent a line that is not UTF-8; it is dropped")
			continue
		}
		m, err := envelope.Parse(line)
		if err != nil {
			// Servers that print to standard output are common; they are
			// told apart from broken ones by the log only.
			h.log.Warn("the server sent a line that is not JSON; it is dropped", "err", err, "begins", cut(line))
			continue
		}
		h.fromServer(peer, &m)
	}
}

func (h *hub) tooLong(e *LineTooLongError) {
	h.log.Warn("a message of the server is over the limit", "max", e.Max, "id", string(e.ID))
	n, ok := number(e.ID)
	h.mu.Lock()
	if ok {
		delete(h.ghosts, n)
	}
	if c := h.calls[n]; ok && c != nil {
		h.failLocked([]*call{c}, fmt.Errorf("%w; raise the limit of the route", e))
		return
	}
	h.mu.Unlock()
}

// reinitialize makes a new server what its predecessor was: it gets the
// clients' initialize and their subscriptions.
func (h *hub) reinitialize(peer Peer) {
	done := make(chan error, 1)
	h.mu.Lock()
	c := &call{method: "initialize", started: time.Now(), last: time.Now(), sent: true, reply: func(m *envelope.Message, err error) {
		if err == nil && m.Kind == envelope.Error {
			err = fmt.Errorf("the server refused the repeated initialize: %s", cut(m.Bytes(m.Error)))
		}
		done <- err
	}}
	h.registerLocked(c)
	line := h.initLine(c.id)
	h.mu.Unlock()
	h.write(peer, []item{{line: line}})
	var err error
	select {
	case err = <-done:
	case <-time.After(initTimeout):
		err = fmt.Errorf("the server did not answer the repeated initialize within %v", initTimeout)
	case <-h.stop:
		return
	}
	if err != nil {
		h.mu.Lock()
		if h.peer == peer && h.cause == nil {
			h.cause = err
		}
		h.mu.Unlock()
		_ = peer.Close()
		return
	}
	h.mu.Lock()
	var again []item
	if h.ready {
		again = append(again, item{line: []byte(`{"jsonrpc":"2.0","method":"notifications/initialized"}`)})
	}
	for uri := range h.subs {
		again = append(again, h.ownCallLocked("resources/subscribe", uriParams(uri), nil))
	}
	for _, it := range again {
		h.sentLocked(it.call)
	}
	h.mu.Unlock()
	h.write(peer, again)
	h.bringUp(peer)
}

// bringUp lets the messages that waited go to the server, in order, and
// those that come from now on after them.
func (h *hub) bringUp(peer Peer) {
	h.wmu.Lock()
	h.mu.Lock()
	if h.peer != peer || h.state == hubClosed {
		h.mu.Unlock()
		h.wmu.Unlock()
		return
	}
	h.state = hubUp
	items := h.backlog
	h.backlog, h.backlen = nil, 0
	for _, it := range items {
		h.sentLocked(it.call)
	}
	h.mu.Unlock()
	for _, it := range items {
		if err := peer.Write(it.line); err != nil {
			go peer.Close()
			break
		}
		h.stats.toServer(len(it.line))
	}
	h.wmu.Unlock()
}

// failed answers what the server left unanswered and decides whether the
// circuit breaker opens. all says that waiting messages have no hope either.
func (h *hub) failed(err error, all bool) {
	h.mu.Lock()
	if h.state == hubClosed {
		err = h.broken
		all = true
	} else {
		if h.cause != nil {
			err, h.cause = h.cause, nil
		}
		var lost *sessionLostError
		if errors.As(err, &lost) {
			h.againLocked(lost.unsent)
		}
		if !h.since.IsZero() && time.Since(h.since) >= healthyAfter {
			h.fails = 0
		}
		h.fails++
		h.state = hubStarting
		h.stats.restarts.Add(1)
		if h.fails >= breakerFails {
			h.state, all = hubBroken, true
			err = fmt.Errorf("%w; it failed %d times in a row, the next attempt is in %v", err, h.fails, breakerWait)
		} else {
			err = fmt.Errorf("%w; it is being started again", err)
		}
	}
	open := h.state == hubBroken && h.fails == breakerFails
	h.peer, h.since, h.broken = nil, time.Time{}, err
	h.out, h.outlen = nil, 0 // their calls are answered below
	var lost []*call
	for _, c := range h.calls {
		if c.sent || all {
			lost = append(lost, c)
		}
	}
	for _, it := range h.waiting {
		if all {
			lost = append(lost, it.call)
		}
	}
	if all {
		h.backlog, h.backlen = nil, 0
	}
	h.asks, h.asked = map[uint64]*ask{}, map[string]uint64{}
	h.ghosts, h.blurred = map[uint64]ghost{}, time.Time{} // they died with the server
	closed := h.state == hubClosed
	h.failLocked(lost, err)
	if closed {
		return
	}
	h.log.Warn("server failed", "err", err)
	if open && h.onBreak != nil {
		h.onBreak(err)
	}
}

// againLocked takes back calls that the server has not carried out. They wait
// for its successor, once.
func (h *hub) againLocked(unsent [][]byte) {
	var items []item
	for _, line := range unsent {
		m, err := envelope.Parse(line)
		if err != nil {
			continue
		}
		n, _ := number(m.IDBytes())
		c := h.calls[n]
		if c == nil || c.port == nil || !c.sent || c.again || c.cancelled {
			continue
		}
		h.idleLocked(c)
		c.sent, c.again = false, true
		items = append(items, item{line: line, call: c})
		h.backlen += len(line)
	}
	h.backlog = append(items, h.backlog...)
}

// close ends the hub and its server. Calls in flight are answered with why.
func (h *hub) close(why error) {
	h.mu.Lock()
	if h.state == hubClosed {
		h.mu.Unlock()
		h.wg.Wait()
		return
	}
	h.state, h.broken = hubClosed, why
	peer := h.peer
	close(h.stop)
	var lost []*call
	for _, c := range h.calls {
		lost = append(lost, c)
	}
	h.backlog = nil
	h.failLocked(lost, why)
	if peer != nil {
		_ = peer.Close()
	}
	h.wg.Wait()
}
