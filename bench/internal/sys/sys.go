//go:build linux

// Package sys asks the system what processes cost and binds them to cores.
package sys

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Cores returns the numbers of the cores this process may use.
func Cores() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("affinity: %w", err)
	}
	var cores []int
	for i := 0; len(cores) < set.Count(); i++ {
		if set.IsSet(i) {
			cores = append(cores, i)
		}
	}
	return cores, nil
}

func bind(cores ...int) error {
	var set unix.CPUSet
	for _, core := range cores {
		set.Set(core)
	}
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("binding to cores %d: %w", cores, err)
	}
	return nil
}

// Reexec replaces this process by a fresh copy of itself that is bound to core
// and has env added to its environment. Binding has to come before the Go
// runtime starts its threads, or only one of them is bound.
func Reexec(core int, env string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := bind(core); err != nil {
		return err
	}
	return syscall.Exec(self, os.Args, append(os.Environ(), env))
}

// Start starts cmd bound to cores, from a process that is bound to own: a child
// inherits the binding of the thread that forks it. The child dies with this
// process.
func Start(cmd *exec.Cmd, own int, cores ...int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := bind(cores...); err != nil {
		return err
	}
	err := cmd.Start()
	if err2 := bind(own); err == nil {
		err = err2
	}
	return err
}

// CPU returns the processor time that process pid has used, user and system,
// to the nanosecond and without disturbing it.
func CPU(pid int) (time.Duration, error) {
	// The clock of another process, as clock_getcpuclockid(3) makes it.
	id := int32(^pid)<<3 | 2
	var ts unix.Timespec
	if err := unix.ClockGettime(id, &ts); err != nil {
		return 0, fmt.Errorf("processor clock of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// Busy returns the time that the cores have spent on anything, stolen time
// included, all added up.
func Busy(cores ...int) (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	var ticks int64
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		num, ok := strings.CutPrefix(f[0], "cpu")
		core, err := strconv.Atoi(num)
		if !ok || err != nil || !slices.Contains(cores, core) {
			continue
		}
		if len(f) < 9 {
			return 0, fmt.Errorf("/proc/stat: %q", line)
		}
		for i, s := range f[1:9] {
			if i == 3 || i == 4 { // idle and iowait
				continue
			}
			n, err := strconv.ParseInt(s, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("/proc/stat: %w", err)
			}
			ticks += n
		}
	}
	return time.Duration(ticks) * (time.Second / 100), nil // USER_HZ is 100 on every Linux
}

// Memory returns the field of /proc/PID/status that is called name, such as
// VmRSS or VmHWM, in bytes.
func Memory(pid int, name string) (int64, error) {
	b, err := os.ReadFile(proc(pid, "status"))
	if err != nil {
		return 0, err
	}
	for sc := bufio.NewScanner(bytes.NewReader(b)); sc.Scan(); {
		if v, ok := strings.CutPrefix(sc.Text(), name+":"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(v), " kB"), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("%s of process %d: %w", name, pid, err)
			}
			return kib << 10, nil
		}
	}
	return 0, fmt.Errorf("process %d has no %s", pid, name)
}

// Pss returns the resident memory of process pid in bytes, each page divided by
// the number of processes that have it.
func Pss(pid int) (int64, error) {
	b, err := os.ReadFile(proc(pid, "smaps_rollup"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "Pss:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(v), "kB")), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("Pss of process %d: %w", pid, err)
			}
			return kib << 10, nil
		}
	}
	return 0, fmt.Errorf("process %d has no Pss", pid)
}

// Tree returns pid and the processes that it and its descendants have started.
func Tree(pid int) ([]int, error) {
	list, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, e := range list {
		n, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile(proc(n, "stat"))
		if err != nil {
			continue // it has just ended
		}
		// The name, in parentheses, may hold anything; the parent is the second
		// field behind it.
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(f) < 2 {
			continue
		}
		if parent, err := strconv.Atoi(f[1]); err == nil {
			children[parent] = append(children[parent], n)
		}
	}
	tree := []int{pid}
	for i := 0; i < len(tree); i++ {
		tree = append(tree, children[tree[i]]...)
	}
	return tree, nil
}

// ResetPeak makes VmHWM of process pid start again from what it holds now.
func ResetPeak(pid int) error { return os.WriteFile(proc(pid, "clear_refs"), []byte("5"), 0) }

func proc(pid int, file string) string {
	return filepath.Join("/proc", strconv.Itoa(pid), file)
}

// Processor returns the name that the processor gives itself.
func Processor() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	for l := range strings.Lines(string(b)) {
		if name, v, ok := strings.Cut(l, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(v)
		}
	}
	return "unknown processor"
}
