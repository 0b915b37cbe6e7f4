//go:build linux

package main

import (
	"time"

	"github.com/weft-ws/weft/bench/internal/load"
)

// memoryCells are connections at rest and one message to many.
var memoryCells = []*cell{
	{
		id:      "idle",
		title:   "idle connection, 10,000 at once",
		about:   "Growth of the process for each connection that is open and silent, through net/http's server (nbio: its own), after garbage collection. Kernel memory is not in it.",
		options: options{Mode: modeEcho},
		metrics: []metric{{id: "kib", title: "KiB resident"}, {id: "heap", title: "KiB heap and stacks"}},
		targets: []target{{metric: "kib", atMost: 5}},
		only:    libraries,
		fresh:   true,
		run: func(t *trial) (sample, error) {
			before, m0, err := t.rss()
			if err != nil {
				return nil, err
			}
			n := t.scale(10_000, 1000)
			conns, err := t.dial(n, load.Options{})
			if err != nil {
				return nil, err
			}
			defer closeAll(conns)
			// The last handler may still be on its way out.
			time.Sleep(100 * time.Millisecond)
			after, m1, err := t.rss()
			if err != nil {
				return nil, err
			}
			heap := float64(m1.Heap+m1.Stack) - float64(m0.Heap+m0.Stack)
			return sample{"kib": (after - before) / 1024 / float64(n), "heap": heap / 1024 / float64(n)}, nil
		},
	},
	{
		id:      "broadcast",
		title:   "broadcast of 1 KiB to 1,000 connections",
		about:   "One connection sends a message, the server passes it on to all, prepared once where the library can do that; two broadcasts under way.",
		options: options{Mode: modeBroadcast},
		metrics: []metric{{id: "rate", title: "deliveries/s", higher: true}, {id: "cpu", title: "CPU µs/delivery"}},
		targets: []target{{metric: "rate", atLeast: 1, versus: "gorilla"}},
		run:     broadcast,
	},
}

func broadcast(t *trial) (sample, error) {
	n := t.scale(1000, 100)
	conns, err := t.dial(n, load.Options{})
	if err != nil {
		return nil, err
	}
	defer closeAll(conns)
	// A connection is in the server's list only when its handler has run; an
	// answer to a first message would be a broadcast itself, so wait.
	time.Sleep(50 * time.Millisecond)
	conns[0].Script = load.Repeat(load.AppendFrame(nil, load.Frame{Opcode: load.Binary, Fin: true, Masked: true}, noise(1024)), 1)
	l, err := load.NewLoop(conns)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	if err := l.Grant(conns[0], 2); err != nil {
		return nil, err
	}
	next := int64(n)
	run := func(d time.Duration) error {
		for end := time.Now().Add(d); ; {
			left := time.Until(end)
			if left <= 0 {
				return nil
			}
			if err := l.Step(left); err != nil {
				return err
			}
			for ; l.Messages >= next; next += int64(n) {
				if err := l.Grant(conns[0], 1); err != nil {
					return err
				}
			}
		}
	}
	if err := l.Until(1, 10*time.Second); err != nil {
		return nil, err
	}
	if err := run(t.warm); err != nil {
		return nil, err
	}
	done := l.Messages
	u, err := t.measure(func() error { return run(t.slice) })
	if err != nil {
		return nil, err
	}
	done = l.Messages - done
	return sample{"rate": u.perSecond(done), "cpu": u.ns(done) / 1e3}, nil
}
