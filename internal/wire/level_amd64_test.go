//go:build !purego

package wire

import "testing"

func TestLevelOfProcessor(t *testing.T) {
	const (
		leaf1  = osxsave | avx
		ebx512 = leafAVX2 | avx512F | avx512BW
	)
	tests := []struct {
		name                  string
		ecx1, ebx7, ecx7, xcr uint32
		want                  level
	}{
		{"nothing", 0, 0, 0, 0, plain},
		{"AVX only", leaf1, 0, 0, xcr0YMM, plain},
		{"AVX2", leaf1, leafAVX2, 0, xcr0YMM, avx2},
		{"AVX2, system without XGETBV", avx, leafAVX2, 0, xcr0YMM, plain},
		{"AVX2 without AVX", osxsave, leafAVX2, 0, xcr0YMM, plain},
		{"AVX2, YMM not saved", leaf1, leafAVX2, 0, 1<<0 | 1<<1, plain},
		{"AVX-512 with all", leaf1, ebx512, avx512VBMI, xcr0ZMM, avx512},
		{"AVX-512, ZMM not saved", leaf1, ebx512, avx512VBMI, xcr0YMM, avx2},
		{"AVX-512, YMM not saved", leaf1, ebx512, avx512VBMI, xcr0ZMM &^ xcr0YMM, plain},
		{"AVX-512, mask registers not saved", leaf1, ebx512, avx512VBMI, xcr0ZMM &^ (1 << 5), avx2},
		{"AVX-512 without VBMI", leaf1, ebx512, 0, xcr0ZMM, avx2},
		{"AVX-512 without BW", leaf1, ebx512 &^ avx512BW, avx512VBMI, xcr0ZMM, avx2},
		{"AVX-512 without F", leaf1, ebx512 &^ avx512F, avx512VBMI, xcr0ZMM, avx2},
	}
	for _, tt := range tests {
		if got := levelOf(tt.ecx1, tt.ebx7, tt.ecx7, tt.xcr); got != tt.want {
			t.Errorf("%s: level %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestCPUID(t *testing.T) {
	// Leaf 0 answers with the vendor's name in EBX, EDX and ECX.
	maxLeaf, ebx, ecx, edx := cpuid(0, 0)
	if maxLeaf == 0 {
		t.Error("CPUID leaf 0 knows of no leaf 1")
	}
	for _, r := range []uint32{ebx, edx, ecx} {
		for i := range 4 {
			if c := byte(r >> (8 * i)); c < ' ' || c > '~' {
				t.Fatalf("vendor %08x %08x %08x is not printable", ebx, edx, ecx)
			}
		}
	}
	if best > plain && xgetbv()&xcr0YMM != xcr0YMM {
		t.Errorf("level %v, but XCR0 is %#x", best, xgetbv())
	}
}
