package wire

// A level names a set of kernels. What a processor can run is its best level
// and every one below, down to plain Go; the tests go through all of them.
//
// The build tag purego leaves the assembly out.
type level uint8

const (
	plain  level = iota // Go alone, any system
	neon                // arm64
	avx2                // amd64 since 2013 (Intel Haswell, AMD Excavator)
	avx512              // amd64 with AVX-512 BW and VBMI (Intel Ice Lake, AMD Zen 4)
)
