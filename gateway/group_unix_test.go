//go:build unix

package gateway

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// A named pipe that every member of a family holds open ends when the last of
// them is dead, whoever their parent is by then.
func familyPipe(t *testing.T) (name string, allDead <-chan error) {
	t.Helper()
	name = filepath.Join(t.TempDir(), "alive")
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	dead := make(chan error, 1)
	go func() {
		f, err := os.Open(name)
		if err == nil {
			_, err = io.Copy(io.Discard, f)
			f.Close()
		}
		dead <- err
	}()
	return name, dead
}

func wantDead(t *testing.T, allDead <-chan error) {
	t.Helper()
	select {
	case err := <-allDead:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Error("a descendant is still alive after 20 s")
	}
}

func TestCloseKillsTheWholeGroup(t *testing.T) {
	fifo, allDead := familyPipe(t)
	c := &Command{Path: "/bin/sh", Args: family(fifo), StdinGrace: time.Millisecond, TermGrace: 50 * time.Millisecond, Logger: testLog(t)}
	p := open(t, c)
	if got := readLine(t, p); got != "ready" {
		t.Fatal(got)
	}
	p.Close()
	wantDead(t, allDead)
}

func TestDeathOfTheLeaderEndsTheGroup(t *testing.T) {
	fifo, allDead := familyPipe(t)
	c := &Command{Path: "/bin/sh", Args: family(fifo), TermGrace: 50 * time.Millisecond, Logger: testLog(t)}
	p := open(t, c)
	if got := readLine(t, p); got != "ready" {
		t.Fatal(got)
	}
	if err := syscall.Kill(p.(*process).pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	wantDead(t, allDead)
	if _, err := p.Read(); err == nil || err.Error() != "the server exited: signal: killed" {
		t.Errorf("got %v", err)
	}
}

// kill -9 of the gateway: the watcher ends child and grandchild.
func TestWatcherOutlivesTheGateway(t *testing.T) {
	fifo, allDead := familyPipe(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	gw := exec.Command(exe, fifo)
	gw.Env = append(os.Environ(), helperEnv+"=gateway")
	out, err := gw.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	gw.Stderr = t.Output()
	if err := gw.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "ready\n" {
		t.Errorf("%q, %v", line, err)
	}
	if err := gw.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = gw.Wait()
	wantDead(t, allDead)
}

func TestWatcherIsReplaced(t *testing.T) {
	fifo, allDead := familyPipe(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	w := NewWatcher(testLog(t), exe, "watch")
	c := &Command{Path: "/bin/sh", Args: family(fifo), TermGrace: 50 * time.Millisecond, Logger: testLog(t), Watcher: w}
	p := open(t, c)
	if got := readLine(t, p); got != "ready" {
		t.Fatal(got)
	}
	first := w.cmd.Process.Pid
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, "another watcher", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.cmd != nil && w.cmd.Process.Pid != first
	})
	// The new one knows the old one's groups.
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	wantDead(t, allDead)
}
