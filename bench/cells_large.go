//go:build linux

package main

import (
	"fmt"
	"time"

	"github.com/weft-ws/weft/bench/internal/load"
	"github.com/weft-ws/weft/bench/internal/sys"
)

const (
	videoFrame = 230_424 // a 160 × 120 × 12 byte picture and its header: what once broke a chat program
	largeFrame = 300_000 // above 256 KiB, where one library's buffer pool ends
	huge       = 16 << 20
	hugeLimit  = 20 << 20 // message limit of servers in cells with huge messages
)

// largeCells are messages whose cost is copying and memory.
var largeCells = []*cell{
	{
		id:      "video",
		title:   "230,424 B binary echo, 1 connection",
		about:   "Whole messages in one frame, four under way.",
		options: options{Mode: modeEcho, MaxMessage: hugeLimit},
		metrics: videoMetrics,
		targets: []target{
			{metric: "cpu", atMost: 1.1, versus: "tcp"},
			{metric: "cpu", atMost: 1.08, versus: "tcp", stretch: true},
			{metric: "cpu", atMost: 0.85, versus: "gws", stretch: true},
		},
		run: func(t *trial) (sample, error) { return video(t, 1, videoFrame) },
	},
	{
		id:      "video-8",
		title:   "230,424 B binary echo, 8 connections",
		about:   "The same on eight connections, four messages under way on each.",
		options: options{Mode: modeEcho, MaxMessage: hugeLimit},
		metrics: videoMetrics,
		targets: []target{{metric: "cpu", atMost: 1.1, versus: "tcp"}},
		run:     func(t *trial) (sample, error) { return video(t, 8, videoFrame) },
	},
	{
		id:      "video-300k",
		title:   "300,000 B binary echo, 1 connection",
		about:   "The same above 256 KiB, where pools of buffers tend to end.",
		options: options{Mode: modeEcho, MaxMessage: hugeLimit},
		metrics: videoMetrics,
		targets: []target{{metric: "cpu", atMost: 1.1, versus: "tcp"}},
		run:     func(t *trial) (sample, error) { return video(t, 1, largeFrame) },
	},
	{
		id:      "client",
		title:   "the library's client, 230,424 B",
		about:   "The library dials the load client and writes back, masked, what that sends; four messages under way.",
		options: options{Mode: modeClient, MaxMessage: hugeLimit},
		metrics: videoMetrics,
		targets: []target{
			{metric: "cpu", atMost: 1, versus: "gws"},
			{metric: "cpu", atMost: 0.95, versus: "gws", stretch: true},
		},
		starts: true,
		run:    clientEcho,
	},
	{
		id:      "fragments",
		title:   "16 MiB in 4 KiB fragments, echo",
		about:   "A large message that a peer cut small, one at a time: reassembly.",
		options: options{Mode: modeEcho, MaxMessage: hugeLimit},
		metrics: []metric{{id: "mbs", title: "MB/s", higher: true}, {id: "cpu", title: "CPU ms/message"}},
		targets: []target{{metric: "mbs", atLeast: 0.69, versus: "tcp"}},
		run: func(t *trial) (sample, error) {
			u, l, err := t.echoOn(1, load.Repeat(hugeMessage(huge), 1), 1)
			if err != nil {
				return nil, err
			}
			return sample{"mbs": u.megabytes(l.Payload), "cpu": u.ns(l.Payload) * huge / 1e6}, nil
		},
	},
	{
		id:      "fragments-memory",
		title:   "16 MiB in 4 KiB fragments, peak memory",
		about:   "How much the process grows, at its highest, over what it held before the first of two such messages; as a multiple of the message.",
		options: options{Mode: modeEcho, MaxMessage: hugeLimit},
		metrics: []metric{{id: "peak", title: "× the message"}},
		targets: []target{{metric: "peak", atMost: 1.3}},
		fresh:   true,
		run: func(t *trial) (sample, error) {
			peak, err := peakGrowth(t, huge)
			return sample{"peak": peak / huge}, err
		},
	},
	{
		id:      "stream",
		title:   "16 MiB in 4 KiB fragments, streamed",
		about:   "The same echoed through the library's streaming reader and writer.",
		options: options{Mode: modeStream, MaxMessage: 4*huge + 1<<20},
		metrics: []metric{{id: "mbs", title: "MB/s", higher: true}, {id: "cpu", title: "CPU ms/message"}},
		targets: []target{{metric: "mbs", atLeast: 0.69, versus: "tcp"}},
		run: func(t *trial) (sample, error) {
			u, l, err := t.echoOn(1, load.Repeat(hugeMessage(huge), 1), 1)
			if err != nil {
				return nil, err
			}
			return sample{"mbs": u.megabytes(l.Payload), "cpu": u.ns(l.Payload) * huge / 1e6}, nil
		},
	},
	{
		id:      "stream-memory",
		title:   "64 MiB in 4 KiB fragments, streamed, peak memory",
		about:   "How much the process grows over what it held before, for a message four times as long: streaming must not depend on the length.",
		options: options{Mode: modeStream, MaxMessage: 4*huge + 1<<20},
		metrics: []metric{{id: "peak", title: "MiB"}},
		targets: []target{{metric: "peak", atMost: 1}},
		fresh:   true,
		run: func(t *trial) (sample, error) {
			peak, err := peakGrowth(t, t.scale(4*huge, huge))
			return sample{"peak": peak / (1 << 20)}, err
		},
	},
}

var videoMetrics = []metric{{id: "cpu", title: "CPU µs/message"}, {id: "mbs", title: "MB/s", higher: true}}

func video(t *trial, conns, size int) (sample, error) {
	const window = 4
	msg := load.AppendFrame(nil, load.Frame{Opcode: load.Binary, Fin: true, Masked: true}, noise(size))
	u, l, err := t.echoOn(conns, load.Repeat(msg, 1), window)
	if err != nil {
		return nil, err
	}
	return sample{"cpu": u.ns(l.Payload) * float64(size) / 1e3, "mbs": u.megabytes(l.Payload)}, nil
}

// clientEcho is the load client as a server for the library's client.
func clientEcho(t *trial) (sample, error) {
	s, conn, err := startClient(t.cores, t.contender, t.options)
	if err != nil {
		return nil, err
	}
	defer s.stop()
	defer conn.Close()
	t.server = s
	msg := load.AppendFrame(nil, load.Frame{Opcode: load.Binary, Fin: true}, noise(videoFrame))
	u, l, err := t.echo([]*load.Conn{conn}, load.Repeat(msg, 1), 4)
	if err != nil {
		return nil, err
	}
	return sample{"cpu": u.ns(l.Payload) * videoFrame / 1e3, "mbs": u.megabytes(l.Payload)}, nil
}

// startClient starts the contender as a client of the load client, and returns
// its connection.
func startClient(on cores, c *contender, o options) (*server, *load.Conn, error) {
	ln, err := load.Listen()
	if err != nil {
		return nil, nil, err
	}
	defer ln.Close()
	o.Target = "ws://" + ln.Addr.String() + "/"
	// The child is ready only when it has dialled, and it can dial only when
	// somebody accepts.
	type accepted struct {
		conn *load.Conn
		err  error
	}
	ch := make(chan accepted, 1)
	go func() {
		conn, err := ln.Accept()
		ch <- accepted{conn, err}
	}()
	s, err := startServer(on, c, o)
	a := <-ch
	switch {
	case err != nil:
		if a.conn != nil {
			a.conn.Close()
		}
		return nil, nil, err
	case a.err != nil:
		s.stop()
		return nil, nil, a.err
	}
	return s, a.conn, nil
}

// hugeMessage is n bytes of noise in masked frames of 4 KiB of payload.
func hugeMessage(n int) []byte {
	const fragment = 4096
	return load.AppendMessage(make([]byte, 0, n+n/fragment*8+8), load.Frame{Opcode: load.Binary, Masked: true}, noise(n), fragment)
}

// peakGrowth echoes two messages of n bytes in fragments, one after the other,
// and returns by how many bytes the process grew at its highest.
func peakGrowth(t *trial, n int) (float64, error) {
	conns, err := t.dial(1, load.Options{})
	if err != nil {
		return 0, err
	}
	defer closeAll(conns)
	// A small message first: what the connection holds anyway is not growth.
	c := conns[0]
	c.Script = load.Repeat(load.AppendFrame(nil, load.Frame{Opcode: load.Binary, Fin: true, Masked: true}, noise(64)), 1)
	if _, err := c.RoundTrips(time.Millisecond); err != nil {
		return 0, err
	}
	before, _, err := t.rss()
	if err != nil {
		return 0, err
	}
	if err := sys.ResetPeak(t.pid); err != nil {
		return 0, fmt.Errorf("resetting the peak of the resident memory: %w", err)
	}
	c.Script = load.Repeat(hugeMessage(n), 1)
	l, err := load.NewLoop(conns)
	if err != nil {
		return 0, err
	}
	defer l.Close()
	for i := range 2 {
		if err := l.Grant(c, 1); err != nil {
			return 0, err
		}
		if err := l.Until(int64(i+1), 30*time.Second); err != nil {
			return 0, err
		}
	}
	peak, err := sys.Memory(t.pid, "VmHWM")
	if err != nil {
		return 0, err
	}
	return max(float64(peak)-before, 0), nil
}
