//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"time"

	"github.com/weft-ws/weft/bench/internal/load"
	"github.com/weft-ws/weft/bench/internal/sys"
)

// A server is the parent's side of a child process.
type server struct {
	contender *contender
	addr      netip.AddrPort
	path      string // request target of the handshake
	pid       int
	program   bool // not this program: it obeys no commands
	warmed    bool // it has been at work for a while

	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// cores says who runs where.
type cores struct{ client, server int }

// startServer starts the contender as o says, bound to its core, and waits
// until it listens.
func startServer(on cores, c *contender, o options) (*server, error) {
	if c.launch != nil {
		s, err := c.launch(on, o)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
		s.contender = c
		return s, nil
	}
	o.Contender = c.name
	arg, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := &server{contender: c, cmd: exec.Command(self)}
	s.cmd.Env = append(os.Environ(), childEnv+"="+string(arg))
	s.cmd.Stderr = os.Stderr
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.out = bufio.NewReader(stdout)
	if err := sys.Start(s.cmd, on.client, on.server); err != nil {
		return nil, fmt.Errorf("%s: %w", c.name, err)
	}
	s.pid = s.cmd.Process.Pid
	var hello struct{ Addr string }
	line, err := s.out.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &hello)
	}
	if err == nil {
		s.addr, err = netip.ParseAddrPort(hello.Addr)
	}
	if err != nil {
		s.stop()
		return nil, fmt.Errorf("%s as %s: %w (%v)", c.name, o.Mode, errGone, err)
	}
	return s, nil
}

// stop ends the process: it goes when its standard input does, or is killed.
func (s *server) stop() {
	if s.program {
		s.stopProgram()
		return
	}
	s.in.Close()
	kill := time.AfterFunc(2*time.Second, func() { s.cmd.Process.Kill() })
	defer kill.Stop()
	s.cmd.Wait()
}

// call sends a command and decodes the answer into v, unless v is nil.
func (s *server) call(command string, v any) error {
	if _, err := io.WriteString(s.in, command+"\n"); err != nil {
		return fmt.Errorf("%s: %w (%v)", s.contender.name, errGone, err)
	}
	line, err := s.out.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("%s: %w (%v)", s.contender.name, errGone, err)
	}
	var r reply
	if err := json.Unmarshal(line, &r); err != nil {
		return fmt.Errorf("%s answered %q: %w", s.contender.name, line, err)
	}
	if r.Error != "" {
		return fmt.Errorf("%s: %s: %w", s.contender.name, command, errors.New(r.Error))
	}
	if v == nil {
		return nil
	}
	return json.Unmarshal(r.Value, v)
}

// dial opens n connections to the server.
func (s *server) dial(n int, o load.Options) ([]*load.Conn, error) {
	o.Raw = o.Raw || s.contender.raw
	if o.Path == "" {
		o.Path = s.path
	}
	conns := make([]*load.Conn, 0, n)
	for i := range n {
		if n > portsEach {
			// One source address has fewer ports than we need connections.
			o.Source = netip.AddrFrom4([4]byte{127, 0, 0, byte(1 + i/portsEach)})
		}
		c, err := load.Dial(s.addr, o)
		if err != nil {
			closeAll(conns)
			return nil, fmt.Errorf("%s, connection %d: %w", s.contender.name, i+1, err)
		}
		conns = append(conns, c)
	}
	return conns, nil
}

// portsEach is how many connections share a source address: the system's range
// holds 28,232 ports, and some are in use by others.
const portsEach = 20_000

func closeAll(conns []*load.Conn) {
	for _, c := range conns {
		c.Close()
	}
}

// rss returns the resident memory of the process in bytes, after it has
// collected its garbage and returned what it could.
func (s *server) rss() (float64, memory, error) {
	var m memory
	if err := s.call("memory", &m); err != nil {
		return 0, m, err
	}
	n, err := sys.Memory(s.pid, "VmRSS")
	return float64(n), m, err
}
