package deflate

import (
	"errors"
	"fmt"
)

// reference is an inflater that is dumber than ours: it wants the whole input,
// reads a bit at a time, keeps the whole output, and follows RFC 1951 from top to
// bottom. It is the model that the tests compare with, and it says what a window
// of a given size would have had to hold.
type reference struct {
	in  []byte
	bit int // next bit of in

	out     []byte
	start   int // of this message in out
	distMax int // longest back-reference
	beyond  int // how far back-references went before start, at most
}

var (
	errReferenceEnd     = errors.New("reference: input ends")
	errReferenceCorrupt = errors.New("reference: corrupt")
)

// message appends the output of one message, the payload of which has Tail taken
// off.
func (r *reference) message(p []byte) error {
	r.in, r.bit = append(append([]byte{}, p...), Tail...), 0
	r.start, r.distMax, r.beyond = len(r.out), 0, 0
	for r.bit < 8*len(r.in) {
		final, err := r.block()
		if err != nil {
			return err
		}
		if final {
			r.align()
		}
	}
	return nil
}

func (r *reference) align() { r.bit = (r.bit + 7) &^ 7 }

func (r *reference) bits(n int) (v int, err error) {
	for i := range n {
		if r.bit >= 8*len(r.in) {
			return 0, errReferenceEnd
		}
		v |= int(r.in[r.bit/8]>>(r.bit%8)&1) << i
		r.bit++
	}
	return v, nil
}

// referenceCode has the symbols of each code length in order. Their codes follow
// each other, and those of the length before.
type referenceCode [16][]int

func codeOf(lens []uint8) (c referenceCode) {
	for sym, l := range lens {
		c[l] = append(c[l], sym)
	}
	return c
}

// symbol reads one code.
func (r *reference) symbol(c *referenceCode) (int, error) {
	code, first := 0, 0
	for _, syms := range c[1:] {
		b, err := r.bits(1)
		if err != nil {
			return 0, err
		}
		code, first = code<<1|b, first<<1
		if code >= first && code-first < len(syms) {
			return syms[code-first], nil
		}
		first += len(syms)
	}
	return 0, errReferenceCorrupt
}

func (r *reference) block() (final bool, err error) {
	head, err := r.bits(3)
	if err != nil {
		return false, err
	}
	final = head&1 == 1
	switch head >> 1 {
	case 0:
		return final, r.stored()
	case 1:
		lit, dist := make([]uint8, 288), make([]uint8, 30)
		for i := range lit {
			lit[i] = []uint8{8, 9, 7, 8}[b2i(i >= 144)+b2i(i >= 256)+b2i(i >= 280)]
		}
		for i := range dist {
			dist[i] = 5
		}
		return final, r.data(lit, dist)
	case 2:
		lit, dist, err := r.lengths()
		if err != nil {
			return final, err
		}
		return final, r.data(lit, dist)
	}
	return final, errReferenceCorrupt
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (r *reference) stored() error {
	r.align()
	n, err := r.bits(16)
	if err != nil {
		return err
	}
	inverse, err := r.bits(16)
	if err != nil {
		return err
	}
	if n != inverse^0xffff {
		return errReferenceCorrupt
	}
	for range n {
		b, err := r.bits(8)
		if err != nil {
			return err
		}
		r.out = append(r.out, byte(b))
	}
	return nil
}

func (r *reference) lengths() (lit, dist []uint8, err error) {
	var n [3]int
	for i, bits := range []int{5, 5, 4} {
		if n[i], err = r.bits(bits); err != nil {
			return nil, nil, err
		}
		n[i] += []int{257, 1, 4}[i]
	}
	pre := make([]uint8, 19)
	for _, sym := range []int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}[:n[2]] {
		l, err := r.bits(3)
		if err != nil {
			return nil, nil, err
		}
		pre[sym] = uint8(l)
	}
	var lens []uint8
	preCode := codeOf(pre)
	for len(lens) < n[0]+n[1] {
		sym, err := r.symbol(&preCode)
		if err != nil {
			return nil, nil, err
		}
		if sym < 16 {
			lens = append(lens, uint8(sym))
			continue
		}
		extra, err := r.bits([]int{2, 3, 7}[sym-16])
		if err != nil {
			return nil, nil, err
		}
		v := uint8(0)
		if sym == 16 {
			if len(lens) == 0 {
				return nil, nil, errReferenceCorrupt
			}
			v = lens[len(lens)-1]
		}
		for range extra + []int{3, 3, 11}[sym-16] {
			lens = append(lens, v)
		}
	}
	if len(lens) > n[0]+n[1] || n[0] > 286 || n[1] > 30 {
		return nil, nil, errReferenceCorrupt
	}
	return lens[:n[0]], lens[n[0]:], nil
}

func (r *reference) data(litLens, distLens []uint8) error {
	lit, dist := codeOf(litLens), codeOf(distLens)
	for {
		sym, err := r.symbol(&lit)
		switch {
		case err != nil:
			return err
		case sym < 256:
			r.out = append(r.out, byte(sym))
			continue
		case sym == 256:
			return nil
		case sym > 285:
			return errReferenceCorrupt
		}
		n := []int{3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258}[sym-257]
		extra, err := r.bits([]int{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0}[sym-257])
		if err != nil {
			return err
		}
		n += extra
		if sym, err = r.symbol(&dist); err != nil {
			return err
		}
		d := []int{1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577}[sym]
		if extra, err = r.bits(max(0, sym/2-1)); err != nil {
			return err
		}
		d += extra
		if d > len(r.out) {
			return fmt.Errorf("%w: back-reference over %d of %d bytes", errReferenceCorrupt, d, len(r.out))
		}
		r.distMax = max(r.distMax, d)
		r.beyond = max(r.beyond, d-(len(r.out)-r.start))
		for range n {
			r.out = append(r.out, r.out[len(r.out)-d])
		}
	}
}
