//go:build linux

package main

import (
	"fmt"
	"time"

	"github.com/weft-ws/weft/bench/internal/load"
)

const (
	hostileLimit   = 16 << 20
	hostileTimeout = time.Second // the deadline for half a message, where there is one
)

// hostileCells are peers that mean harm. The servers accept messages up to
// 16 MiB in all of them.
var hostileCells = []*cell{
	{
		id:      "lie",
		title:   "a header that declares 15 MiB, then silence",
		about:   "Memory a connection costs whose peer announced 15 MiB, sent 1 KiB of it and stopped; and whether the server ends it within twice its deadline for half a message, set to one second where the library has one (1 is yes).",
		options: options{Mode: modeEcho, MaxMessage: hostileLimit, MessageTimeout: hostileTimeout},
		metrics: []metric{{id: "kib", title: "KiB/connection"}, {id: "closed", title: "ended", higher: true}},
		targets: []target{
			{metric: "kib", atMost: 8},
			{metric: "closed", atLeast: 1},
		},
		fresh: true,
		only:  libraries,
		run:   lie,
	},
	{
		id:      "one-byte",
		title:   "endless fragments of one byte",
		about:   "Processor time for each fragment of a message that never ends, and whether the server ends it within a million fragments (1 is yes).",
		options: options{Mode: modeEcho, MaxMessage: hostileLimit},
		metrics: floodMetrics,
		targets: floodTargets,
		only:    libraries,
		run:     func(t *trial) (sample, error) { return flood(t, []byte{'x'}) },
	},
	{
		id:      "empty",
		title:   "endless empty fragments",
		about:   "The same with fragments that carry nothing, so that no limit on bytes of payload is ever reached.",
		options: options{Mode: modeEcho, MaxMessage: hostileLimit},
		metrics: floodMetrics,
		targets: floodTargets,
		only:    libraries,
		run:     func(t *trial) (sample, error) { return flood(t, nil) },
	},
}

var (
	libraries    = []string{"weft", "gorilla", "coder", "gobwas", "gws", "nbio"}
	floodMetrics = []metric{{id: "cpu", title: "CPU ns/fragment"}, {id: "ended", title: "ended", higher: true}}
	floodTargets = []target{
		{metric: "cpu", atMost: 1, versus: "gorilla"},
		{metric: "ended", atLeast: 1},
		{metric: "cpu", atMost: 60, stretch: true},
	}
)

func lie(t *trial) (sample, error) {
	_, m0, err := t.rss()
	if err != nil {
		return nil, err
	}
	n := t.scale(64, 8)
	conns, err := t.dial(n, load.Options{})
	if err != nil {
		return nil, err
	}
	defer closeAll(conns)
	head := load.AppendHeader(nil, load.Frame{Opcode: load.Binary, Fin: true, Masked: true}, 15<<20)
	head = append(head, noise(1024)...)
	for _, c := range conns {
		if err := c.Send(head); err != nil {
			return nil, err
		}
	}
	// Long enough to be read, and well before the deadline.
	time.Sleep(hostileTimeout / 4)
	_, m1, err := t.rss()
	if err != nil {
		return nil, err
	}
	l, err := load.NewLoop(conns)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	l.MayClose = true
	if err := l.Run(2 * hostileTimeout); err != nil {
		return nil, err
	}
	kib := (float64(m1.Heap+m1.Stack) - float64(m0.Heap+m0.Stack)) / 1024 / float64(n)
	return sample{"kib": kib, "closed": float64(l.Closed) / float64(n)}, nil
}

// flood sends a message that never ends. After every batch of fragments comes
// a ping: its pong says that the server has taken them all. A server that ends
// the connection gets a new one, until enough time has been measured.
func flood(t *trial, p []byte) (sample, error) {
	const batch, most = 4096, 1_000_000
	first := load.AppendFrame(nil, load.Frame{Opcode: load.Binary, Masked: true}, p)
	next := load.AppendFrame(nil, load.Frame{Opcode: load.Continuation, Masked: true}, p)
	ping := load.AppendFrame(nil, load.Frame{Opcode: load.Ping, Fin: true, Masked: true}, nil)
	script := &load.Script{Loop: 1}
	script.Add(append(append([]byte(nil), first...), ping...))
	var b []byte
	for range batch {
		b = append(b, next...)
	}
	script.Add(append(b, ping...))

	fragments, ended := int64(0), 0.0
	u, err := t.measure(func() error {
		// For the measured time, and on until the message has been ended or is
		// long enough.
		for end := time.Now().Add(t.slice); time.Now().Before(end); {
			conns, err := t.dial(1, load.Options{})
			if err != nil {
				return err
			}
			c := conns[0]
			c.Script, c.Echo, c.CountPongs = script, true, true
			l, err := load.NewLoop(conns)
			if err != nil {
				return err
			}
			l.MayClose = true
			err = l.Start(3)
			for err == nil && l.Closed == 0 && (time.Now().Before(end) || ended == 0 && l.Messages*batch < most) {
				err = l.Step(50 * time.Millisecond)
			}
			// The first pong stands for one fragment, each later one for a batch.
			fragments += max(l.Messages-1, 0) * batch
			if l.Closed > 0 {
				ended = 1
			}
			l.Close()
			closeAll(conns)
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if fragments == 0 {
		return nil, fmt.Errorf("%s took less than %d fragments", t.contender.name, batch)
	}
	return sample{"cpu": u.ns(fragments), "ended": ended}, nil
}
