//go:build linux

package main

import (
	"fmt"
	"slices"

	"github.com/weft-ws/weft/bench/internal/load"
	"github.com/weft-ws/weft/bench/internal/stat"
)

// echoCells are small messages: what a system call, a wake-up and a frame cost.
var echoCells = []*cell{
	{
		id:      "echo-32x16",
		title:   "128 B text echo, 32 connections × 16 in flight",
		about:   "Each connection keeps 16 messages under way; a server that answers while more input waits can put many answers into one system call.",
		options: options{Mode: modeEcho},
		metrics: []metric{{id: "cpu", title: "CPU ns/message"}, {id: "rate", title: "messages/s", higher: true}},
		targets: []target{
			{metric: "cpu", atMost: 1.0 / 6, versus: "gws"},
			{metric: "cpu", atMost: 1.0 / 7, versus: "gws", stretch: true},
		},
		run: func(t *trial) (sample, error) { return smallEcho(t, 32, 16) },
	},
	{
		id:      "echo-32x1",
		title:   "128 B text echo, 32 connections × 1 in flight",
		about:   "Every message waits for the answer to the one before: nearly all of the cost is the system's.",
		options: options{Mode: modeEcho},
		metrics: []metric{{id: "cpu", title: "CPU ns/message"}, {id: "rate", title: "messages/s", higher: true}},
		targets: []target{{metric: "cpu", atMost: 1.06, versus: "tcp"}},
		run:     func(t *trial) (sample, error) { return smallEcho(t, 32, 1) },
	},
	{
		id:      "round-trip",
		title:   "128 B text round trip, 1 connection",
		about:   "One message at a time on one connection, both sides asleep in between; the whole time from write to answer, as the client sees it.",
		options: options{Mode: modeEcho},
		metrics: []metric{{id: "p50", title: "p50 µs"}, {id: "p99", title: "p99 µs"}},
		targets: []target{
			{metric: "p50", atMost: 1, versus: "tcp"},
			{metric: "p99", atMost: 1, versus: "tcp"},
		},
		run: roundTrip,
	},
}

func smallEcho(t *trial, conns, window int) (sample, error) {
	msg := load.AppendFrame(nil, load.Frame{Opcode: load.Text, Fin: true, Masked: true}, ascii(128))
	u, l, err := t.echoOn(conns, load.Repeat(msg, window), window)
	if err != nil {
		return nil, err
	}
	return sample{"cpu": u.ns(l.Messages), "rate": u.perSecond(l.Messages)}, nil
}

func roundTrip(t *trial) (sample, error) {
	conns, err := t.dial(1, load.Options{})
	if err != nil {
		return nil, err
	}
	defer closeAll(conns)
	c := conns[0]
	c.Script = load.Repeat(load.AppendFrame(nil, load.Frame{Opcode: load.Text, Fin: true, Masked: true}, ascii(128)), 1)
	if _, err := c.RoundTrips(t.warm); err != nil {
		return nil, err
	}
	var ns []float64
	if _, err := t.measure(func() (err error) { ns, err = c.RoundTrips(t.slice); return }); err != nil {
		return nil, err
	}
	if len(ns) == 0 {
		return nil, fmt.Errorf("no round trip within %s", t.slice)
	}
	slices.Sort(ns)
	return sample{"p50": stat.Quantile(ns, 0.5) / 1e3, "p99": stat.Quantile(ns, 0.99) / 1e3}, nil
}
