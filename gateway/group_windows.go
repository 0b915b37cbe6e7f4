//go:build windows

package gateway

import (
	"os/exec"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
)

func prepare(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: windows.CREATE_NEW_PROCESS_GROUP}
}

func apart(cmd *exec.Cmd) { prepare(cmd) }

// A group is a job object. Windows kills the processes of the job when its
// last handle closes, the death of the gateway included, so the watching
// process has nothing to do there.
type group struct {
	job windows.Handle
	pid int
}

func adopt(cmd *exec.Cmd) (group, error) {
	job, err := windows.CreateJobObject(nil, nil)
	if err != nil {
		return group{}, err
	}
	var info windows.JOBOBJECT_EXTENDED_LIMIT_INFORMATION
	info.BasicLimitInformation.LimitFlags = windows.JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
	_, err = windows.SetInformationJobObject(job, windows.JobObjectExtendedLimitInformation,
		uintptr(unsafe.Pointer(&info)), uint32(unsafe.Sizeof(info)))
	if err == nil {
		var h windows.Handle
		h, err = windows.OpenProcess(windows.PROCESS_SET_QUOTA|windows.PROCESS_TERMINATE, false, uint32(cmd.Process.Pid))
		if err == nil {
			err = windows.AssignProcessToJobObject(job, h)
			_ = windows.CloseHandle(h)
		}
	}
	if err != nil {
		_ = windows.CloseHandle(job)
		return group{}, err
	}
	return group{job, cmd.Process.Pid}, nil
}

func (g group) id() int { return g.pid }

// terminate does what kill does: Windows has no signal that asks.
func (g group) terminate() { g.kill() }
func (g group) kill()      { _ = windows.TerminateJobObject(g.job, 1) }

func (g group) end(time.Duration) {
	g.kill()
	_ = windows.CloseHandle(g.job)
}

// endGroup is not needed: the job has died with the gateway.
func endGroup(int, time.Duration) {}
