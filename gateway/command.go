package gateway

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// A Command is a backend that runs a program and speaks MCP's stdio framing
// with it: one JSON value per line on standard input and output.
//
// The program is executed with its arguments as given, never through a shell.
// It gets a process group of its own, which is killed as a whole: launchers
// such as npx start a shell that starts the server. It inherits no file
// descriptors and an environment of the names in [BaseEnv], Inherit and Env
// only.
type Command struct {
	Path string // looked up in PATH unless it contains a separator
	Args []string
	Dir  string // working directory; "": that of the gateway

	Env     map[string]string // set for the program
	Inherit []string          // names taken over from the gateway's environment

	LineMax int // bytes of one message from the program; 0: 16 MiB

	// StdinGrace is how long the program may run on after its standard input
	// was closed before its group gets SIGTERM, TermGrace how long after that
	// before SIGKILL. Zero: 5 s each.
	StdinGrace, TermGrace time.Duration
	// StallTimeout is how long a write to the program may take, at least,
	// before it is taken for dead. Zero: 60 s; negative: for ever.
	StallTimeout time.Duration

	Logger  *slog.Logger // gets the program's standard error; nil: slog.Default()
	Watcher *Watcher     // kills the group should the gateway die; nil: nobody does
}

// baseEnv are the variables that every program gets when the gateway has them.
var baseEnv = []string{"PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR",
	// Without these Windows programs do not start.
	"SYSTEMROOT", "SYSTEMDRIVE", "TEMP", "TMP", "USERPROFILE", "APPDATA", "LOCALAPPDATA", "PATHEXT", "COMSPEC"}

// BaseEnv returns the names of the variables that every program gets.
func BaseEnv() []string { return append([]string(nil), baseEnv...) }

const (
	defaultLineMax      = 16 << 20
	defaultGrace        = 5 * time.Second
	defaultStallTimeout = 60 * time.Second

	// Standard error goes to the log, not faster than this.
	stderrLinesPerSecond = 50
	stderrLineMax        = 4 << 10
)

// String returns the program and its arguments. Values of the environment are
// not in it.
func (c *Command) String() string {
	return strings.Join(append([]string{c.Path}, c.Args...), " ")
}

func (c *Command) environ() []string {
	env := []string{}
	for _, name := range append(append([]string(nil), baseEnv...), c.Inherit...) {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	for name, v := range c.Env {
		env = append(env, name+"="+v)
	}
	return env
}

// Open starts the program.
func (c *Command) Open(_ context.Context, caller Caller) (Peer, error) {
	log := c.Logger
	if log == nil {
		log = slog.Default()
	}
	cmd := exec.Command(c.Path, c.Args...)
	cmd.Dir = c.Dir
	cmd.Env = c.environ()
	prepare(cmd)

	inR, inW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		closeAll(inR, inW)
		return nil, err
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		closeAll(inR, inW, outR, outW)
		return nil, err
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = inR, outW, errW
	if c.Watcher != nil {
		if err := c.Watcher.ready(); err != nil {
			closeAll(inR, inW, outR, outW, errR, errW)
			return nil, fmt.Errorf("the process that watches over children could not be started: %w", err)
		}
	}
	if err := cmd.Start(); err != nil {
		closeAll(inR, inW, outR, outW, errR, errW)
		return nil, fmt.Errorf("cannot start %s: %w", c.Path, err)
	}
	closeAll(inR, outW, errW)
	group, err := adopt(cmd)
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		closeAll(inW, outR, errR)
		return nil, fmt.Errorf("cannot form a process group for %s: %w", c.Path, err)
	}
	if c.Watcher != nil {
		c.Watcher.add(group.id())
	}
	log = log.With("server", caller.Route, "pid", cmd.Process.Pid)
	log.Info("server started", "command", c.String(), "session", caller.Session)

	lineMax := c.LineMax
	if lineMax <= 0 {
		lineMax = defaultLineMax
	}
	p := &process{
		cmd: cmd, group: group, log: log, watcher: c.Watcher,
		stdin: inW, stdout: outR, lines: newLineReader(outR, lineMax),
		stdinGrace: orDefault(c.StdinGrace, defaultGrace),
		termGrace:  orDefault(c.TermGrace, defaultGrace),
		stall:      c.StallTimeout,
		exited:     make(chan struct{}), gone: make(chan struct{}), closing: make(chan struct{}),
	}
	if p.stall == 0 {
		p.stall = defaultStallTimeout
	}
	go p.logStderr(errR)
	go p.wait()
	return p, nil
}

func orDefault(d, def time.Duration) time.Duration {
	if d <= 0 {
		return def
	}
	return d
}

func closeAll(files ...*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

// A process is a running Command.
type process struct {
	cmd     *exec.Cmd
	group   group
	log     *slog.Logger
	watcher *Watcher

	stdin  *os.File
	stdout *os.File
	lines  *lineReader

	stdinGrace, termGrace, stall time.Duration

	deadline time.Time // set on stdin; of the one writer

	closeOnce sync.Once
	closing   chan struct{} // Close was called
	exited    chan struct{} // the leader has been reaped
	gone      chan struct{} // the group has been dealt with
	status    error         // of the leader, after exited
}

// pid returns the process id, for listings.
func (p *process) pid() int { return p.cmd.Process.Pid }

// Read returns the next line of standard output that is not blank.
func (p *process) Read() ([]byte, error) {
	for {
		line, err := p.lines.next()
		var long *LineTooLongError
		if err != nil && !errors.As(err, &long) {
			// What the program said by exiting is the better reason.
			select {
			case <-p.gone:
			case <-time.After(p.termGrace):
			}
			_ = p.stdout.Close()
			return nil, p.exitError()
		}
		if err != nil {
			return nil, err
		}
		if len(line) > 0 && line[len(line)-1] == '\r' {
			line = line[:len(line)-1]
		}
		if len(line) > 0 {
			return line, nil
		}
	}
}

func (p *process) exitError() error {
	select {
	case <-p.exited:
		if p.status != nil {
			return fmt.Errorf("the server exited: %w", p.status)
		}
		return errors.New("the server exited")
	default:
		return errors.New("the server closed its standard output")
	}
}

// Write sends one line with one write.
func (p *process) Write(msg []byte) error { return p.write(append(msg, '\n')) }

// gatherMax is how many bytes of lines leave in one write: what a pipe holds.
const gatherMax = 64 << 10

// writeLines sends lines, several with one write unless they are long.
func (p *process) writeLines(items []item) error {
	if len(items) == 1 {
		return p.Write(items[0].line)
	}
	gathered := lineOf(0)
	defer putLine(gathered)
	leave := func() error {
		if len(*gathered) == 0 {
			return nil
		}
		err := p.write(*gathered)
		*gathered = (*gathered)[:0]
		return err
	}
	for i := range items {
		line := items[i].line
		long := len(line) >= gatherMax/2
		if long || len(*gathered)+len(line) >= gatherMax {
			if err := leave(); err != nil {
				return err
			}
		}
		if long {
			if err := p.Write(line); err != nil {
				return err
			}
			continue
		}
		*gathered = append(append(*gathered, line...), '\n')
	}
	return leave()
}

// write writes to the program. To set a deadline costs as much as a small write,
// so it is set a little too far and moved only when that has gone by.
func (p *process) write(b []byte) error {
	if p.stall > 0 {
		if now := time.Now(); p.deadline.Sub(now) < p.stall {
			p.deadline = now.Add(p.stall + p.stall/4)
			_ = p.stdin.SetWriteDeadline(p.deadline)
		}
	}
	if _, err := p.stdin.Write(b); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("the server has not read its standard input for %v", p.stall)
		}
		return fmt.Errorf("cannot write to the server: %w", err)
	}
	return nil
}

// Close closes standard input, waits, sends SIGTERM to the group, waits, sends
// SIGKILL, and returns when the program is gone.
func (p *process) Close() error {
	p.closeOnce.Do(func() { close(p.closing) })
	<-p.gone
	return nil
}

// wait reaps the leader, sees to it that its whole group ends, and drives the
// orderly end once Close was called.
func (p *process) wait() {
	defer close(p.gone)
	go func() {
		p.status = p.cmd.Wait()
		close(p.exited)
	}()
	select {
	case <-p.exited:
	case <-p.closing:
		_ = p.stdin.Close()
		if !p.exitsWithin(p.stdinGrace) {
			p.group.terminate()
			if !p.exitsWithin(p.termGrace) {
				p.group.kill()
				<-p.exited
			}
		}
	}
	// The leader is gone. Its descendants must not outlive it.
	p.group.end(p.termGrace)
	if p.watcher != nil {
		p.watcher.remove(p.group.id())
	}
	_ = p.stdin.Close()
	// Everything written before the end can still be read: the write end is
	// closed with the group, so Read finds the end of file by itself. A
	// descendant in another group could hold it open; the deadline cuts that.
	_ = p.stdout.SetReadDeadline(time.Now().Add(p.termGrace))
	p.log.Info("server exited", "status", p.cmd.ProcessState.String())
}

func (p *process) exitsWithin(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-p.exited:
		return true
	case <-t.C:
		return false
	}
}

// logStderr passes standard error to the log, line by line and rate limited.
func (p *process) logStderr(r *os.File) {
	defer r.Close()
	limit := rate.NewLimiter(stderrLinesPerSecond, 2*stderrLinesPerSecond)
	br := bufio.NewReaderSize(r, stderrLineMax)
	dropped := 0
	for {
		line, more, err := br.ReadLine()
		if err != nil {
			if err != io.EOF {
				p.log.Debug("reading standard error", "err", err)
			}
			return
		}
		switch {
		case !limit.Allow():
			dropped++
		default:
			if dropped > 0 {
				p.log.Warn("standard error too fast", "lines_dropped", dropped)
				dropped = 0
			}
			p.log.Info("stderr", "line", string(line), "cut", more)
		}
		for more && err == nil { // the rest of an overlong line is dropped
			_, more, err = br.ReadLine()
		}
	}
}
