package gateway

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"os/exec"
	"strconv"
	"sync"
	"time"
)

// A Watcher is a small process beside the gateway that kills the process
// groups of the gateway's children if the gateway dies without doing so
// itself, whatever killed it. A parent-death signal is not enough: it reaches
// the child, not the child's children.
//
// The process reads from a pipe that only the gateway holds. The lines "+N"
// and "-N" say that process group N has come or gone; the end of the pipe says
// that the gateway is dead. The process must call [Watch] with its standard
// input. One process watches over all children and costs nothing per child.
type Watcher struct {
	command []string
	log     *slog.Logger

	mu     sync.Mutex
	pipe   io.WriteCloser
	cmd    *exec.Cmd
	groups map[int]bool
}

// NewWatcher returns a Watcher that runs command when the first child starts.
func NewWatcher(log *slog.Logger, command ...string) *Watcher {
	if log == nil {
		log = slog.Default()
	}
	return &Watcher{command: command, log: log, groups: map[int]bool{}}
}

// ready starts the process unless it runs.
func (w *Watcher) ready() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.start()
}

func (w *Watcher) start() error {
	if w.pipe != nil {
		return nil
	}
	cmd := exec.Command(w.command[0], w.command[1:]...)
	cmd.Env = []string{}
	apart(cmd)
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	w.pipe, w.cmd = pipe, cmd
	for g := range w.groups {
		fmt.Fprintf(pipe, "+%d\n", g)
	}
	go func() {
		err := cmd.Wait()
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.cmd != cmd {
			return // Close ended it
		}
		w.pipe, w.cmd = nil, nil
		if len(w.groups) > 0 {
			w.log.Warn("the process that watches over children died, starting another", "err", err)
			if err := w.start(); err != nil {
				w.log.Error("children are not watched over", "err", err)
			}
		}
	}()
	return nil
}

func (w *Watcher) add(g int)    { w.tell('+', g) }
func (w *Watcher) remove(g int) { w.tell('-', g) }

func (w *Watcher) tell(sign byte, g int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if sign == '+' {
		w.groups[g] = true
	} else {
		delete(w.groups, g)
	}
	if w.pipe != nil {
		fmt.Fprintf(w.pipe, "%c%d\n", sign, g)
	}
}

// Close ends the watching process. Groups still running are killed by it.
func (w *Watcher) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pipe == nil {
		return nil
	}
	err := w.pipe.Close()
	w.pipe, w.cmd = nil, nil
	return err
}

// watchGrace is what a group gets between SIGTERM and SIGKILL once the gateway
// is dead. Its standard input has ended by then.
const watchGrace = 2 * time.Second

// Watch is the body of the watching process: it reads process groups from r
// until r ends and then ends every group that is left.
func Watch(r io.Reader) error {
	groups := map[int]bool{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := lines.Text()
		if len(line) < 2 {
			continue
		}
		n, err := strconv.Atoi(line[1:])
		if err != nil || n <= 1 {
			return fmt.Errorf("%q does not name a process group", line)
		}
		if line[0] == '+' {
			groups[n] = true
		} else {
			delete(groups, n)
		}
	}
	var all sync.WaitGroup
	for n := range groups {
		all.Go(func() { endGroup(n, watchGrace) })
	}
	all.Wait()
	return lines.Err()
}
