//go:build linux

package main

import (
	"slices"
	"strconv"
	"sync"
	"time"
)

// A pusher sends one huge message in a single call and pings the peer beside
// it, every pingEvery, however long an earlier ping takes: an application's
// heartbeat does not know that its library is busy. The library's adapter calls
// start at the peer's first message, pong for each pong, and finish at the
// peer's second message, sent when it has read everything.
type pusher struct {
	mu     sync.Mutex
	asked  map[string]time.Time
	millis []float64
	stop   chan struct{}
}

const pingEvery = 20 * time.Millisecond

func newPusher(c *child) *pusher {
	p := &pusher{}
	// "pings" tells the round trips in milliseconds of the run that ended. A
	// ping that was never answered counts as long as we waited for it.
	c.commands["pings"] = func() (any, error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, t := range p.asked {
			p.millis = append(p.millis, float64(time.Since(t))/1e6)
		}
		p.asked = nil
		slices.Sort(p.millis)
		return p.millis, nil
	}
	return p
}

// start runs write and the pings, each on a goroutine of its own. ping sends a
// ping with this payload; it may return at once or wait for the pong, and when
// it waits it calls pong itself.
func (p *pusher) start(write func(), ping func(payload string)) {
	p.mu.Lock()
	p.asked, p.millis, p.stop = map[string]time.Time{}, nil, make(chan struct{})
	stop := p.stop
	p.mu.Unlock()
	go write()
	go func() {
		tick := time.NewTicker(pingEvery)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-tick.C:
				payload := strconv.Itoa(i)
				p.mu.Lock()
				if p.asked != nil {
					p.asked[payload] = time.Now()
				}
				p.mu.Unlock()
				go ping(payload)
			}
		}
	}()
}

// pong notes the answer to a ping.
func (p *pusher) pong(payload string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t, ok := p.asked[payload]; ok {
		p.millis = append(p.millis, float64(time.Since(t))/1e6)
		delete(p.asked, payload)
	}
}

// finish ends the pings.
func (p *pusher) finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stop != nil {
		close(p.stop)
		p.stop = nil
	}
}

// A hub holds the connections that a broadcast goes to.
type hub[C comparable] struct {
	mu    sync.Mutex
	conns []C
}

func (h *hub[C]) add(c C) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.conns = append(h.conns, c)
}

func (h *hub[C]) remove(c C) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.conns = slices.DeleteFunc(h.conns, func(x C) bool { return x == c })
}

// each calls f for every connection. A connection that fails is left to its
// reader.
func (h *hub[C]) each(f func(C)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.conns {
		f(c)
	}
}
