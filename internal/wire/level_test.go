package wire

func (l level) String() string {
	return [...]string{plain: "plain", neon: "neon", avx2: "avx2", avx512: "avx512"}[l]
}

// levels returns every level that this processor can run.
func levels() []level {
	switch best {
	case neon:
		return []level{plain, neon}
	case avx2:
		return []level{plain, avx2}
	case avx512:
		return []level{plain, avx2, avx512}
	}
	return []level{plain}
}
