//go:build linux

package sys

import (
	"math/big"
	"os"
	"os/exec"
	"slices"
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
	first, last := cores[0], cores[len(cores)-1]
	runs := func(on ...int) string {
		cmd := exec.Command("grep", "Cpus_allowed:", "/proc/self/status")
		var out strings.Builder
		cmd.Stdout = &out
		if err := Start(cmd, first, on...); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		_, mask, _ := strings.Cut(out.String(), ":")
		return strings.TrimLeft(strings.ReplaceAll(strings.TrimSpace(mask), ",", ""), "0")
	}
	mask := func(on ...int) string {
		n := new(big.Int)
		for _, core := range on {
			n.SetBit(n, core, 1)
		}
		return n.Text(16)
	}
	if got, want := runs(last), mask(last); got != want {
		t.Errorf("the child may run on %s, want core %d alone, %s", got, last, want)
	}
	if got, want := runs(last, first), mask(last, first); got != want {
		t.Errorf("the child may run on %s, want two cores, %s", got, want)
	}
}

// Tree finds what a child has started, and Pss is about what is resident at
// most; the kernel counts that in batches.
func TestTree(t *testing.T) {
	cmd := exec.Command("sh", "-c", "cat; :")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write([]byte{'x'}); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil { // cat runs
		t.Fatal(err)
	}
	tree, err := Tree(cmd.Process.Pid)
	if err != nil || len(tree) != 2 || tree[0] != cmd.Process.Pid {
		t.Errorf("%d has started %d, %v, want one more", cmd.Process.Pid, tree, err)
	}
	ours, err := Tree(os.Getpid())
	if err != nil || !slices.Contains(ours, tree[len(tree)-1]) {
		t.Errorf("our own are %d, %v, without %d", ours, err, tree)
	}
	pss, err := Pss(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if peak, err := Memory(os.Getpid(), "VmHWM"); err != nil || pss <= 0 || pss > 2*peak {
		t.Errorf("%d bytes are ours, of a peak of %d, %v", pss, peak, err)
	}
	_ = in.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
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
