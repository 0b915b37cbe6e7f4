//go:build linux

package sys

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestCPUCountsOurWork(t *testing.T) {
	before, err := CPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	sum := 0
	for now := before; now-before < 20*time.Millisecond; {
		for i := range 100_000 {
			sum += i
		}
		if now, err = CPU(os.Getpid()); err != nil {
			t.Fatal(err)
		}
		if now < before {
			t.Fatal("processor time went backwards")
		}
	}
	if sum == 0 {
		t.Error("the loop was optimised away")
	}
}

func TestMemoryAndPeak(t *testing.T) {
	pid := os.Getpid()
	if err := ResetPeak(pid); err != nil {
		t.Fatal(err)
	}
	before, err := Memory(pid, "VmHWM")
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 32<<20)
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
	after, err := Memory(pid, "VmHWM")
	if err != nil {
		t.Fatal(err)
	}
	if grown := after - before; grown < 24<<20 || grown > 48<<20 {
		t.Errorf("32 MiB touched, peak grew by %d bytes", grown)
	}
	if b[4096] != 1 {
		t.Error("the buffer was optimised away")
	}
	if _, err := Memory(pid, "VmNothing"); err == nil {
		t.Error("a field that does not exist has a value")
	}
}

func TestStartBinds(t *testing.T) {
	cores, err := Cores()
	if err != nil {
		t.Fatal(err)
	}
	last := cores[len(cores)-1]
	cmd := exec.Command("cat", "/proc/self/status")
	var out strings.Builder
	cmd.Stdout = &out
	if err := Start(cmd, last, cores[0]); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(out.String(), "Cpus_allowed_list:")
	list, _, _ = strings.Cut(strings.TrimSpace(list), "\n")
	if want := strconv.Itoa(last); list != want {
		t.Errorf("the child may run on %q, want core %s alone", list, want)
	}
}

func TestBusyGrows(t *testing.T) {
	cores, err := Cores()
	if err != nil {
		t.Fatal(err)
	}
	all, err := Busy(cores...)
	if err != nil || all <= 0 {
		t.Errorf("busy time %s, %v", all, err)
	}
	if none, err := Busy(); none != 0 || err != nil {
		t.Errorf("no core was busy for %s, %v", none, err)
	}
	if Processor() == "" {
		t.Error("the processor has no name")
	}
}
