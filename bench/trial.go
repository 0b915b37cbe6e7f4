//go:build linux

package main

import (
	"fmt"
	"os"
	"time"

	"github.com/weft-ws/weft/bench/internal/load"
	"github.com/weft-ws/weft/bench/internal/sys"
)

// A trial is one sample in the making: one cell, one contender, one round.
type trial struct {
	*server
	cell    *cell
	options options // of the process under test
	cores   cores
	slice   time.Duration // to measure for
	warm    time.Duration // to run before that
	quick   bool

	foreign float64 // of the measured time, the share that others took
	result  sample
}

// A usage is what a measured stretch cost the process under test.
type usage struct {
	cpu  time.Duration // of the process under test
	wall time.Duration
}

func (u usage) ns(n int64) float64        { return float64(u.cpu) / float64(n) }
func (u usage) perSecond(n int64) float64 { return float64(n) / u.wall.Seconds() }
func (u usage) megabytes(n int64) float64 { return u.perSecond(n) / 1e6 }
func (t *trial) scale(n, quick int) int {
	if t.quick {
		return quick
	}
	return n
}

// measure runs f and returns what it cost the process under test. It notes how
// much of the two cores others took meanwhile.
func (t *trial) measure(f func() error) (usage, error) {
	if t.options.Profile != "" {
		if err := t.call("profile", nil); err != nil {
			return usage{}, err
		}
	}
	own := func() (server, client, busy time.Duration, err error) {
		if server, err = t.cpu(); err != nil {
			return
		}
		if client, err = sys.CPU(os.Getpid()); err != nil {
			return
		}
		busy, err = sys.Busy(t.cores.client, t.cores.server)
		return
	}
	s0, c0, b0, err := own()
	if err != nil {
		return usage{}, err
	}
	start := time.Now()
	if err := f(); err != nil {
		return usage{}, err
	}
	wall := time.Since(start)
	s1, c1, b1, err := own()
	if err != nil {
		return usage{}, err
	}
	if t.options.Profile != "" {
		if err := t.call("profiled", nil); err != nil {
			return usage{}, err
		}
	}
	others := float64(b1-b0) - float64(s1-s0) - float64(c1-c0)
	t.foreign = max(t.foreign, others/float64(2*wall))
	return usage{s1 - s0, wall}, nil
}

// echo keeps window messages of the script under way on each connection, for
// the warm-up and then measured, and returns the cost with what came back.
func (t *trial) echo(conns []*load.Conn, script *load.Script, window int) (usage, *load.Loop, error) {
	for _, c := range conns {
		c.Script, c.Echo = script, true
	}
	l, err := load.NewLoop(conns)
	if err != nil {
		return usage{}, nil, err
	}
	defer l.Close()
	if err := l.Start(window); err != nil {
		return usage{}, nil, err
	}
	// The warm-up has to see a message through, however large.
	if err := l.Until(1, 20*time.Second); err != nil {
		return usage{}, nil, err
	}
	if err := l.Run(t.warm); err != nil {
		return usage{}, nil, err
	}
	l.Messages, l.Payload, l.Wire = 0, 0, 0
	u, err := t.measure(func() error { return l.Run(t.slice) })
	if err == nil && l.Messages == 0 {
		err = fmt.Errorf("%s echoed nothing within %s", t.contender.name, t.slice)
	}
	return u, l, err
}

// echoOn is echo over n new connections.
func (t *trial) echoOn(n int, script *load.Script, window int) (usage, *load.Loop, error) {
	conns, err := t.dial(n, load.Options{})
	if err != nil {
		return usage{}, nil, err
	}
	defer closeAll(conns)
	return t.echo(conns, script, window)
}
