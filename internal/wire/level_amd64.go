//go:build !purego

package wire

// best is the best level of this processor. It is set here and never changes.
var best = detect()

func detect() level {
	maxLeaf, _, _, _ := cpuid(0, 0)
	if maxLeaf < 7 {
		return plain
	}
	_, _, ecx1, _ := cpuid(1, 0)
	if ecx1&osxsave == 0 {
		return plain // XGETBV would be an illegal instruction
	}
	_, ebx7, ecx7, _ := cpuid(7, 0)
	return levelOf(ecx1, ebx7, ecx7, xgetbv())
}

// Bits of CPUID and of the register XCR0 (Intel's Software Developer's Manual,
// volume 1, sections 13.3, 14.3 and 15.3).
const (
	osxsave    = 1 << 27 // leaf 1 ECX: the system has set up XGETBV
	avx        = 1 << 28 // leaf 1 ECX
	leafAVX2   = 1 << 5  // leaf 7 EBX
	avx512F    = 1 << 16 // leaf 7 EBX
	avx512BW   = 1 << 30 // leaf 7 EBX
	avx512VBMI = 1 << 1  // leaf 7 ECX

	xcr0YMM = 1<<1 | 1<<2                  // the system saves the XMM and YMM registers
	xcr0ZMM = xcr0YMM | 1<<5 | 1<<6 | 1<<7 // and the mask and ZMM registers
)

// levelOf judges the answers of CPUID. A processor may have registers that its
// system does not save: they count only if XCR0 names them.
//
// VBMI is asked for because the UTF-8 kernel needs it, and because the first
// processors with AVX-512, which have no VBMI, slow down when 512-bit
// registers are in use.
func levelOf(ecx1, ebx7, ecx7, xcr0 uint32) level {
	const need = avx512F | avx512BW
	switch {
	case ecx1&osxsave == 0, ecx1&avx == 0, ebx7&leafAVX2 == 0, xcr0&xcr0YMM != xcr0YMM:
		return plain
	case ebx7&need != need, ecx7&avx512VBMI == 0, xcr0&xcr0ZMM != xcr0ZMM:
		return avx2
	}
	return avx512
}

// cpuid executes CPUID for one leaf and subleaf.
//
//go:noescape
func cpuid(leaf, subleaf uint32) (eax, ebx, ecx, edx uint32)

// xgetbv returns the lower half of XCR0.
//
//go:noescape
func xgetbv() uint32
