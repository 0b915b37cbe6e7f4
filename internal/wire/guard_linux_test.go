package wire

import (
	"bytes"
	"runtime/debug"
	"syscall"
	"testing"
	"unicode/utf8"
)

// guarded returns a page of memory between two that nobody may touch.
func guarded(t *testing.T) []byte {
	t.Helper()
	size := syscall.Getpagesize()
	mem, err := syscall.Mmap(-1, 0, 3*size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Munmap(mem); err != nil {
			t.Error(err)
		}
	})
	for _, forbidden := range [][]byte{mem[:size], mem[2*size:]} {
		if err := syscall.Mprotect(forbidden, syscall.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	return mem[size : 2*size]
}

// TestKernelsStayWithinTheirMemory: a kernel that reads or writes one byte
// before or after what it was given dies here.
func TestKernelsStayWithinTheirMemory(t *testing.T) {
	page := guarded(t)
	other := guarded(t)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))

	want := make([]byte, 300)
	key := [4]byte{1, 2, 3, 4}
	for _, text := range texts() {
		for _, l := range levels() {
			for n := range 300 {
				for _, p := range [][]byte{page[:n], page[len(page)-n:]} {
					copy(p, text)
					if got := validUTF8(l, p); got != utf8.Valid(p) {
						t.Fatalf("%v: %d bytes valid: %v", l, n, got)
					}
					maskByte(key, want, p)
					for _, dst := range [][]byte{other[:n], other[len(other)-n:], p} {
						mask(l, keyOf(key), dst, p)
						if !bytes.Equal(dst, want[:n]) {
							t.Fatalf("%v: %d bytes masked wrongly", l, n)
						}
					}
				}
			}
		}
	}
}
