//go:build unix

package gateway

import (
	"os/exec"
	"syscall"
	"time"
)

// prepare puts the program in a process group of its own. It also keeps a
// Ctrl-C at the terminal from it: the gateway ends its children itself, after
// the calls in flight.
func prepare(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
}

// apart gives the watching process a session of its own, so that no signal
// meant for the gateway's group reaches it.
func apart(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
}

// A group is the process group that a program leads.
type group int

func adopt(cmd *exec.Cmd) (group, error) { return group(cmd.Process.Pid), nil }

func (g group) id() int    { return int(g) }
func (g group) terminate() { _ = syscall.Kill(-int(g), syscall.SIGTERM) }
func (g group) kill()      { _ = syscall.Kill(-int(g), syscall.SIGKILL) }

// end ends what is left of the group.
func (g group) end(grace time.Duration) { endGroup(int(g), grace) }

// endGroup sends SIGTERM to a group and SIGKILL if that is not enough. An
// empty group costs one system call.
func endGroup(g int, grace time.Duration) {
	if syscall.Kill(-g, syscall.SIGTERM) != nil {
		return
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(grace); time.Now().Before(deadline); {
		<-tick.C
		if syscall.Kill(-g, 0) != nil {
			return
		}
	}
	_ = syscall.Kill(-g, syscall.SIGKILL)
}
