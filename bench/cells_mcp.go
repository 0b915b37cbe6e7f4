//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/weft-ws/weft/bench/internal/load"
	"github.com/weft-ws/weft/bench/internal/stat"
	"github.com/weft-ws/weft/bench/internal/sys"
)

const (
	bigText  = 20 << 20
	bigLimit = 32 << 20 // for the cell with 20 MiB
	beside   = 8        // clients beside the one with 20 MiB
)

var rateMetrics = []metric{
	{id: "rate", title: "calls/s", higher: true}, {id: "p50", title: "p50 µs"}, {id: "p99", title: "p99 µs"}, {id: "cpu", title: "gateway's CPU µs/call"},
	{id: "all", title: "the same with the stdio server"},
}

// mcpCells are calls of a tool that answers with its text.
var mcpCells = []*cell{
	{
		id: "mcp-1", title: "calls, 1 client",
		about:   "One call of 32 bytes of text after the other.",
		metrics: rateMetrics,
		targets: []target{{metric: "rate", atLeast: 1.8, versus: "supergateway"}, {metric: "p50", atMost: 0.7, versus: "supergateway"}},
		run:     calls(1, 32),
	},
	{
		id: "mcp-32", title: "calls, 32 clients",
		about:   "The same from 32 clients at once, each with one call in flight.",
		metrics: rateMetrics,
		targets: []target{{metric: "rate", atLeast: 1.8, versus: "supergateway"}, {metric: "p50", atMost: 0.7, versus: "supergateway"}},
		run:     calls(32, 32),
	},
	{
		id: "mcp-64k", title: "calls of 64 KiB, 1 client", about: "One call after the other, the text comes back.",
		metrics: rateMetrics[:3], run: calls(1, 64<<10),
	},
	{
		id: "mcp-1m", title: "calls of 1 MiB, 1 client", about: "The same with 1 MiB.",
		metrics: rateMetrics[:3], run: calls(1, 1<<20),
	},
	{
		id:    "mcp-20m",
		title: "one call of 20 MiB, 8 other clients",
		about: "From the first byte of a call with 20 MiB of text to the last byte of its answer, and how eight others fare that begin a call meanwhile, each one after the other. " +
			"The gateway and its stdio servers may use both cores here. In shared mode both messages pass through the one pipe to and from the server, and whoever calls then waits for that: the longest.",
		options: options{MaxMessage: bigLimit, BothCores: true},
		metrics: []metric{{id: "seconds", title: "s"}, {id: "p50", title: "others' p50 ms"}, {id: "p99", title: "others' p99 ms"}, {id: "longest", title: "others' longest ms"}},
		targets: []target{{metric: "seconds", atMost: 0.25, versus: "supergateway"}, {metric: "p99", atMost: 10}},
		run:     bigCall,
	},
	{
		id: "mcp-idle", title: "memory with one client", about: "Resident memory of the gateway's processes, the stdio server not counted, after a client's first call.",
		metrics: []metric{{id: "mib", title: "MiB"}}, targets: []target{{metric: "mib", atMost: 20}},
		fresh: true, run: func(t *trial) (sample, error) { return clientsMemory(t, 1) },
	},
	{
		id: "mcp-1000", title: "memory with 1,000 clients", about: "The same when a thousand have called once and stay.",
		metrics: []metric{{id: "mib", title: "MiB"}}, targets: []target{{metric: "mib", atMost: 60}},
		only:  []string{"supergateway", ours},
		fresh: true, run: func(t *trial) (sample, error) { return clientsMemory(t, t.scale(1000, 100)) },
	},
	{
		id:    "mcp-flood",
		title: "a client that calls and does not read",
		about: "How much the gateway's process grows at its highest, over what it held before, while a client sends calls of 4 KiB as fast as they are taken for a second and reads nothing; " +
			"and how another client fares meanwhile, one call after the other. It has made 5,000 of them before, so that what any process needs once it is at work is there.",
		metrics: []metric{{id: "mib", title: "MiB"}, {id: "p99", title: "other's p99 ms"}},
		targets: []target{{metric: "mib", atMost: 4}},
		fresh:   true,
		run:     floodCalls,
	},
}

func clientText(p []byte) []byte {
	return load.AppendFrame(nil, load.Frame{Opcode: load.Text, Fin: true, Masked: true}, p)
}

// clients opens n sessions.
func (t *trial) clients(n int, o load.Options) ([]*load.Conn, error) {
	o.Patience = time.Minute // a gateway may still be busy with 20 MiB
	conns, err := t.dial(n, o)
	if err != nil {
		return nil, err
	}
	hello := clientText([]byte(`{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}`))
	then := clientText([]byte(`{"jsonrpc":"2.0","method":"notifications/initialized"}`))
	buf := make([]byte, 4096)
	for _, c := range conns {
		if err = c.Send(hello); err == nil {
			err = next(c, buf)
		}
		if err == nil {
			err = c.Send(then)
		}
		if err != nil {
			closeAll(conns)
			return nil, fmt.Errorf("initialize: %w", err)
		}
	}
	return conns, nil
}

// next waits for one more message.
func next(c *load.Conn, buf []byte) error {
	for want := c.Messages + 1; c.Messages < want; {
		n, err := c.Receive(buf)
		if err != nil {
			return err
		}
		if err := c.Scan(buf[:n]); err != nil {
			return err
		}
	}
	return nil
}

// timed are all times of the connections, sorted, in nanoseconds.
func timed(conns []*load.Conn) []float64 {
	var all []float64
	for _, c := range conns {
		all = append(all, c.Times...)
	}
	slices.Sort(all)
	return all
}

// firstWarm is how long a server that has just started is called before it is
// measured: Node compiles what it runs often, and that takes a while.
const firstWarm = 2 * time.Second

// calls has n clients call with a text of so many bytes, one call in flight
// each.
func calls(n, size int) func(*trial) (sample, error) {
	return func(t *trial) (sample, error) {
		conns, err := t.clients(n, load.Options{})
		if err != nil {
			return nil, err
		}
		defer closeAll(conns)
		script := load.Repeat(clientText(echoCall(1, bytes.Repeat([]byte{'x'}, size))), 1)
		for _, c := range conns {
			c.Script, c.Echo, c.Timed = script, true, true
		}
		l, err := load.NewLoop(conns)
		if err != nil {
			return nil, err
		}
		defer l.Close()
		if err := l.Start(1); err != nil {
			return nil, err
		}
		if err := l.Until(int64(n), 20*time.Second); err != nil {
			return nil, err
		}
		warm := t.warm
		if !t.warmed && !t.quick {
			warm, t.warmed = firstWarm, true
		}
		if err := l.Run(warm); err != nil {
			return nil, err
		}
		l.Messages = 0
		for _, c := range conns {
			c.Times = c.Times[:0]
		}
		pids, err := t.gateway()
		if err != nil {
			return nil, err
		}
		before := sumCPU(pids)
		// At least a few calls, however slow they are.
		u, err := t.measure(func() error {
			if err := l.Run(t.slice); err != nil {
				return err
			}
			return l.Until(3, 20*time.Second)
		})
		if err != nil {
			return nil, err
		}
		cpu := sumCPU(pids) - before
		all := timed(conns)
		return sample{"rate": u.perSecond(l.Messages), "p50": stat.Quantile(all, 0.5) / 1e3, "p99": stat.Quantile(all, 0.99) / 1e3,
			"cpu": float64(cpu) / 1e3 / float64(l.Messages), "all": u.ns(l.Messages) / 1e3}, nil
	}
}

func bigCall(t *trial) (sample, error) {
	conns, err := t.clients(1+beside, load.Options{})
	if err != nil {
		return nil, err
	}
	defer closeAll(conns)
	small := load.Repeat(clientText(echoCall(1, bytes.Repeat([]byte{'x'}, 32))), 1)
	size := t.scale(bigText, 1<<20)
	big, others := conns[0], conns[1:]
	big.Script = load.Repeat(clientText(echoCall(1, bytes.Repeat([]byte{'x'}, size))), 1)
	big.Timed = true
	for _, c := range others {
		c.Script, c.Echo, c.Timed = small, true, true
	}
	l, err := load.NewLoop(conns)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	for _, c := range others {
		if err := l.Grant(c, 1); err != nil {
			return nil, err
		}
	}
	if err := l.Run(t.warm); err != nil {
		return nil, err
	}
	for _, c := range others {
		c.Times = nil
	}
	got := big.Messages
	if _, err := t.measure(func() error {
		if err := l.Grant(big, 1); err != nil {
			return err
		}
		for end := time.Now().Add(time.Minute); big.Messages == got; {
			if time.Now().After(end) {
				return fmt.Errorf("no answer to %d bytes within a minute", size)
			}
			if err := l.Step(time.Second); err != nil {
				return err
			}
		}
		// A call that still waits behind the large one counts as well.
		for _, c := range others {
			c.Echo = false
		}
		return l.Run(t.warm)
	}); err != nil {
		return nil, err
	}
	all := timed(others)
	if len(all) == 0 {
		return nil, fmt.Errorf("no other client had an answer")
	}
	return sample{"seconds": big.Times[0] / 1e9, "p50": stat.Quantile(all, 0.5) / 1e6, "p99": stat.Quantile(all, 0.99) / 1e6,
		"longest": all[len(all)-1] / 1e6}, nil
}

func clientsMemory(t *trial, n int) (sample, error) {
	conns, err := t.clients(n, load.Options{})
	if err != nil {
		return nil, err
	}
	defer closeAll(conns)
	call := clientText(echoCall(1, bytes.Repeat([]byte{'x'}, 32)))
	buf := make([]byte, 4096)
	for _, c := range conns {
		if err = c.Send(call); err == nil {
			err = next(c, buf)
		}
		if err != nil {
			return nil, err
		}
	}
	time.Sleep(200 * time.Millisecond)
	mem, err := t.gatewayMemory()
	return sample{"mib": mem / (1 << 20)}, err
}

const (
	floodFor    = time.Second // how long the client of mcp-flood sends
	floodBefore = 5000        // calls of the other before that
)

func floodCalls(t *trial) (sample, error) {
	conns, err := t.clients(2, load.Options{ReceiveBuffer: 64 << 10})
	if err != nil {
		return nil, err
	}
	defer closeAll(conns)
	deaf, other := conns[0], conns[1]
	deaf.Deaf = true
	text := bytes.Repeat([]byte{'x'}, 4<<10)
	deaf.Script = &load.Script{}
	for i := range 1024 {
		deaf.Script.Add(clientText(echoCall(1000+i, text)))
	}
	other.Script = load.Repeat(clientText(echoCall(1, text)), 1)
	other.Echo, other.Timed = true, true
	l, err := load.NewLoop(conns)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	l.MayClose = true
	if err := l.Grant(other, 1); err != nil {
		return nil, err
	}
	if err := l.Until(int64(t.scale(floodBefore, 100)), time.Minute); err != nil {
		return nil, err
	}
	other.Times = nil
	before, err := sys.Memory(t.pid, "VmRSS")
	if err != nil {
		return nil, err
	}
	if err := sys.ResetPeak(t.pid); err != nil {
		return nil, err
	}
	if _, err := t.measure(func() error {
		if err := l.Grant(deaf, 1<<30); err != nil {
			return err
		}
		return l.Run(max(time.Duration(t.scale(int(floodFor), int(t.slice))), t.slice))
	}); err != nil {
		return nil, err
	}
	if len(other.Times) == 0 {
		return nil, fmt.Errorf("%s answered no call of the other client", t.contender.name)
	}
	peak, err := sys.Memory(t.pid, "VmHWM")
	if err != nil {
		return nil, err
	}
	all := timed(conns[1:])
	return sample{"mib": float64(peak-before) / (1 << 20), "p99": stat.Quantile(all, 0.99) / 1e6}, nil
}

// checkMCP checks answers byte by byte, with a text that every layer has to
// carry unharmed.
func checkMCP(on cores, c *contender) error {
	s, err := startServer(on, c, options{MaxMessage: bigLimit})
	if err != nil {
		return err
	}
	defer s.stop()
	t := &trial{server: s, cores: on}
	conns, err := t.clients(3, load.Options{})
	if err != nil {
		return err
	}
	defer closeAll(conns)
	buf := make([]byte, 64<<10)
	for i, text := range [][]byte{[]byte("one"), mixed(1 << 20), bytes.Repeat([]byte(`\"`), 1000)} {
		c := conns[i]
		var got []byte
		c.Data = func(_ load.Opcode, _ bool, p []byte, _ bool) { got = append(got, p...) }
		if err := c.Send(clientText(echoCall(7+i, text))); err != nil {
			return err
		}
		if err := next(c, buf); err != nil {
			return err
		}
		want := bytes.TrimSpace(appendEcho(nil, fmt.Append(nil, 7+i), text))
		if !sameMembers(got, want) {
			return fmt.Errorf("a call of %d bytes was answered with %d other bytes", len(text), len(got))
		}
	}
	return nil
}

// sameMembers reports whether two JSON texts say the same; a gateway may write
// members in another order.
func sameMembers(a, b []byte) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}
