//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
)

// A child is the process of one contender: the server, or the client where
// that is what a cell measures. It listens on 127.0.0.1 and obeys commands that
// come as lines on standard input, each answered by one line of JSON on
// standard output. It ends with its standard input.
type child struct {
	options
	ln       net.Listener
	commands map[string]func() (any, error)
}

// memory is the answer to the command "memory".
type memory struct {
	Heap  uint64 // bytes in use
	Stack uint64
}

// reply is one line of a child's standard output.
type reply struct {
	Error string          `json:",omitempty"`
	Value json.RawMessage `json:",omitempty"`
}

// runChild is main of a child process.
func runChild(arg string) error {
	c := &child{commands: map[string]func() (any, error){}}
	if err := json.Unmarshal([]byte(arg), &c.options); err != nil {
		return err
	}
	start, err := mode(c.options)
	if err != nil {
		return err
	}
	if c.ln, err = net.Listen("tcp4", "127.0.0.1:0"); err != nil {
		return err
	}
	if c.Profile != "" {
		runtime.MemProfileRate = 512
	}
	var profile *os.File
	c.commands["memory"] = func() (any, error) {
		// Twice, for sync.Pool keeps what it holds through one collection.
		runtime.GC()
		runtime.GC()
		debug.FreeOSMemory()
		if c.Profile != "" {
			if err := writeHeapProfile(c.Profile + ".heap"); err != nil {
				return nil, err
			}
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return memory{m.HeapInuse, m.StackInuse}, nil
	}
	c.commands["profile"] = func() (any, error) {
		if profile, err = os.Create(c.Profile); err != nil {
			return nil, err
		}
		return nil, pprof.StartCPUProfile(profile)
	}
	c.commands["profiled"] = func() (any, error) {
		pprof.StopCPUProfile()
		return nil, profile.Close()
	}
	if err := start(c); err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(map[string]string{"Addr": c.ln.Addr().String()}); err != nil {
		return err
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		if err := out.Encode(c.obey(in.Text())); err != nil {
			return err
		}
	}
	return in.Err()
}

func writeHeapProfile(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return pprof.Lookup("heap").WriteTo(f, 0)
}

func (c *child) obey(name string) (r reply) {
	f := c.commands[name]
	if f == nil {
		return reply{Error: fmt.Sprintf("no command %q", name)}
	}
	v, err := f()
	if err == nil {
		r.Value, err = json.Marshal(v)
	}
	if err != nil {
		return reply{Error: err.Error()}
	}
	return r
}

func mode(o options) (func(*child) error, error) {
	for _, s := range suites() {
		if c := s.contender(o.Contender); c != nil && c.modes[o.Mode] != nil {
			return c.modes[o.Mode], nil
		}
	}
	return nil, fmt.Errorf("%s has no mode %q", o.Contender, o.Mode)
}

// childEnv tells a process that it is a child, and which.
const childEnv = "WEFT_BENCH_CHILD"

var errGone = errors.New("the process under test has gone away; its messages are above")
