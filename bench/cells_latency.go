//go:build linux

package main

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/weft-ws/weft/bench/internal/load"
	"github.com/weft-ws/weft/bench/internal/stat"
)

// latencyCells is the control frame that must not wait for a message.
var latencyCells = []*cell{{
	id:    "ping",
	title: "ping round trip while 32 MiB leaves in one call",
	about: "The server sends 32 MiB in a single call to a peer that reads 20 MB/s through a receive buffer of 64 KiB, the sender's socket as the system gives it. Meanwhile the server pings every 20 ms; the peer answers each ping when it reads it, and pings the server every 20 ms too. A ping that is never answered counts as long as it was waited for: gorilla gives a pong up after a second behind its own message.",
	options: options{
		Mode: modePush,
		Size: 32 << 20,
	},
	metrics: []metric{
		{id: "p99", title: "own ping p99 ms"},
		{id: "p50", title: "own ping p50 ms"},
		{id: "answer", title: "peer's ping p99 ms"},
	},
	targets: []target{{metric: "p99", atMost: 15}},
	run:     pingWhilePushing,
}}

// readRate is how fast the slow peer reads, in bytes per second.
const readRate = 20e6

func pingWhilePushing(t *trial) (sample, error) {
	size := int64(t.options.Size)
	conns, err := t.dial(1, load.Options{ReceiveBuffer: 64 << 10})
	if err != nil {
		return nil, err
	}
	defer closeAll(conns)
	c := conns[0]
	control := load.Frame{Fin: true, Masked: true}
	asked := map[string]time.Time{}
	var millis []float64
	var owed []byte // pongs and pings to send
	c.Control = func(op load.Opcode, p []byte) {
		switch op {
		case load.Ping:
			control.Opcode = load.Pong
			owed = load.AppendFrame(owed, control, p)
		case load.Pong:
			if at, ok := asked[string(p)]; ok {
				millis = append(millis, float64(time.Since(at))/1e6)
				delete(asked, string(p))
			}
		}
	}
	say := func(s string) error {
		return c.Send(load.AppendFrame(nil, load.Frame{Opcode: load.Text, Fin: true, Masked: true}, []byte(s)))
	}
	if err := say("send"); err != nil {
		return nil, err
	}
	if err := c.SetTimeout(20 * time.Millisecond); err != nil {
		return nil, err
	}
	buf := make([]byte, 16<<10)
	var done time.Time // when the message had been read
	if _, err := t.measure(func() error {
		start, pings := time.Now(), 0
		for c.Scanner.Wire < size || len(asked) > 0 || done.IsZero() || time.Since(done) < 300*time.Millisecond {
			now := time.Since(start)
			if done.IsZero() && now > time.Duration(pings)*pingEvery {
				id := strconv.Itoa(pings)
				pings++
				asked[id] = time.Now()
				control.Opcode = load.Ping
				owed = load.AppendFrame(owed, control, []byte(id))
			}
			if len(owed) > 0 {
				if err := c.Send(owed); err != nil {
					return err
				}
				owed = owed[:0]
			}
			// Read only as much as a link of readRate would have delivered.
			may := int64(now.Seconds()*readRate) - c.Wire
			if may < int64(len(buf)) && done.IsZero() {
				time.Sleep(time.Duration(float64(int64(len(buf))-may) / readRate * 1e9))
				continue
			}
			n, err := c.Receive(buf)
			if err == load.ErrTimeout {
				if now > 20*time.Second {
					return fmt.Errorf("%d of %d bytes came within %s", c.Wire, size, now)
				}
			} else if err != nil {
				return err
			}
			if err := c.Scan(buf[:n]); err != nil {
				return err
			}
			if c.Messages > 0 && done.IsZero() {
				done = time.Now()
				if err := say("stop"); err != nil {
					return err
				}
			}
			if !done.IsZero() && time.Since(done) > 3*time.Second {
				break // some of our pings will not be answered
			}
		}
		return nil
	}); err != nil {
		return nil, err
	}
	for _, at := range asked {
		millis = append(millis, float64(time.Since(at))/1e6)
	}
	var own []float64
	if err := t.call("pings", &own); err != nil {
		return nil, err
	}
	if len(own) < 10 || len(millis) < 10 {
		return nil, fmt.Errorf("%s: only %d pings and %d answers", t.contender.name, len(own), len(millis))
	}
	slices.Sort(own)
	slices.Sort(millis)
	return sample{"p50": stat.Quantile(own, 0.5), "p99": stat.Quantile(own, 0.99), "answer": stat.Quantile(millis, 0.99)}, nil
}
