package deflate

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// lengthSym is the symbol, less 257, of a match length less three.
var lengthSym = lengthSyms()

func lengthSyms() (t [256]uint8) {
	for i := range litLenMax - lengthSymBase {
		m := litMeaning[lengthSymBase+i]
		for l := m.value(); l < m.value()+1<<m.total() && l <= matchLenMax; l++ {
			t[l-3] = uint8(i) // 258 has a symbol of its own, the last
		}
	}
	return t
}

// distSym is the symbol of a distance less one.
func distSym(d uint32) uint32 {
	if d < 4 {
		return d
	}
	n := uint32(bits.Len32(d)) - 2
	return 2*n + 2 + d>>n&1
}

// A code is a Huffman code as the writer needs it: the bits, first one lowest,
// and above them, from bit 16, how many they are.
type code uint32

func (c code) bits() uint64 { return uint64(c & 0xffff) }
func (c code) len() uint    { return uint(c >> 16) }

type (
	litCodes  [litLenMaxAll]code
	distCodes [distMaxAll]code
)

// The fixed codes of RFC 1951, 3.2.6.
var (
	fixedLitCodes  = litCodes(assignCodes(make([]code, litLenMaxAll), fixedLitLens[:]))
	fixedDistCodes = distCodes(assignCodes(make([]code, distMaxAll), fixedDistLens[:]))
)

// assignCodes fills in the canonical code of the given lengths (RFC 1951, 3.2.2).
func assignCodes(codes []code, lens []uint8) []code {
	var count, next [codeBitsMax + 2]uint16
	for _, l := range lens {
		count[l&15]++
	}
	count[0] = 0
	for l := 1; l <= codeBitsMax; l++ {
		next[l+1] = (next[l] + count[l]) << 1
	}
	codes = codes[:len(lens)]
	for sym, l := range lens {
		l &= 15
		codes[sym] = code(bits.Reverse16(next[l])>>((16-l)&15)) | code(l)<<16
		next[l]++
	}
	return codes
}

// A blockWriter writes sequences as blocks, each of the shortest kind.
type blockWriter struct {
	acc  uint64 // bits not yet written, next one lowest
	nacc uint   // fewer than eight between calls

	// The codes of a dynamic block and what its header says about them.
	lit         litCodes
	dist        distCodes
	lens        [litLenMaxAll + distMaxAll]uint8 // all code lengths, literals first
	nlit, ndist int
	pre         [codeLenSyms]code // the code of the code lengths
	preLens     [codeLenSyms]uint8
	npre        int                               // how many of preLens are sent
	runs        [litLenMaxAll + distMaxAll]uint16 // lens in run lengths: symbol, from bit 8 extra bits
	nruns       int
	builder     codeBuilder
}

// write appends the sequences of m's block to dst.
func (w *blockWriter) write(dst []byte, m *matcher) []byte {
	m.litFreq[endOfBlock] = 1
	raw := m.buf[m.start:m.end]

	extra := extraBits(m)
	stored := 3 + 7 + 32 + 8*len(raw)
	fixed := 3 + extra + codeBits(m.litFreq[:], fixedLitLens[:]) + codeBits(m.distFreq[:], fixedDistLens[:])
	dynamic := w.describe(m) + extra + codeBits(m.litFreq[:w.nlit], w.lens[:w.nlit]) +
		codeBits(m.distFreq[:w.ndist], w.lens[w.nlit:w.nlit+w.ndist])

	best := min(stored, fixed, dynamic)
	// Bits go out in words of eight bytes.
	dst = slices.Grow(dst, (int(w.nacc)+best)/8+8)
	if best == stored {
		return w.stored(dst, raw)
	}
	o, out := len(dst), dst[:cap(dst)]
	if best == fixed {
		o = w.put(out, o, 1<<1, 3)
		o = w.sequences(out, o, m, &fixedLitCodes, &fixedDistCodes)
		return out[:o]
	}
	o = w.header(out, o)
	assignCodes(w.lit[:], w.lens[:w.nlit])
	assignCodes(w.dist[:], w.lens[w.nlit:w.nlit+w.ndist])
	o = w.sequences(out, o, m, &w.lit, &w.dist)
	return out[:o]
}

// extraBits is how many bits the block takes besides its codes, which is the same
// for all codes.
func extraBits(m *matcher) int {
	n := 0
	// The first eight lengths and four distances have none.
	for i, f := range m.litFreq[lengthSymBase+8 : litLenMax] {
		n += int(f) * int(litMeaning[lengthSymBase+8+i].total())
	}
	for i, f := range m.distFreq[4:distMax] {
		n += int(f) * int(distMeaning[4+i].total())
	}
	return n
}

func codeBits(freq []uint16, lens []uint8) int {
	n := 0
	lens = lens[:len(freq)]
	for i, f := range freq {
		n += int(f) * int(lens[i])
	}
	return n
}

// put adds n bits, at most 48, and writes the whole bytes. out has room for eight
// bytes at o.
func (w *blockWriter) put(out []byte, o int, v uint64, n uint) int {
	w.acc |= v << (w.nacc & 63)
	w.nacc += n
	binary.LittleEndian.PutUint64(out[o:], w.acc)
	o += int(w.nacc >> 3)
	w.acc >>= w.nacc &^ 7 & 63
	w.nacc &= 7
	return o
}

// align appends the header of a stored block and fills up its last byte.
func (w *blockWriter) align(dst []byte) []byte {
	dst = append(dst, byte(w.acc))
	if w.nacc > 5 {
		dst = append(dst, 0)
	}
	w.acc, w.nacc = 0, 0
	return dst
}

// aligned says whether everything so far has left in whole bytes.
func (w *blockWriter) aligned() bool { return w.nacc == 0 }

func (w *blockWriter) stored(dst, raw []byte) []byte {
	dst = w.align(dst)
	n := len(raw)
	dst = append(dst, byte(n), byte(n>>8), ^byte(n), ^byte(n>>8))
	return append(dst, raw...)
}

// sequences writes the block's data in the given codes, and its end.
func (w *blockWriter) sequences(out []byte, o int, m *matcher, lit *litCodes, dist *distCodes) int {
	acc, nacc := w.acc, w.nacc
	at := m.start
	for _, s := range m.seqs[:m.nseqs] {
		run := m.buf[at : at+int(s.literals)]
		at += int(s.literals) + int(s.lengthLess3) + 3
		for ; len(run) >= 3; run = run[3:] {
			// At most seven bits are left over and three literals take 45.
			c0, c1, c2 := lit[run[0]], lit[run[1]], lit[run[2]]
			acc |= c0.bits() << (nacc & 63)
			nacc += c0.len()
			acc |= c1.bits() << (nacc & 63)
			nacc += c1.len()
			acc |= c2.bits() << (nacc & 63)
			nacc += c2.len()
			binary.LittleEndian.PutUint64(out[o:], acc)
			o += int(nacc >> 3)
			acc >>= nacc &^ 7 & 63
			nacc &= 7
		}
		for _, b := range run {
			c := lit[b]
			acc |= c.bits() << (nacc & 63)
			nacc += c.len()
		}
		binary.LittleEndian.PutUint64(out[o:], acc)
		o += int(nacc >> 3)
		acc >>= nacc &^ 7 & 63
		nacc &= 7

		// At most 15 and 5 bits for the length, 15 and 13 for the distance.
		sym := lengthSymBase + int(lengthSym[uint8(s.lengthLess3)]&31)
		c, mean := lit[sym], litMeaning[sym]
		acc |= c.bits() << (nacc & 63)
		nacc += c.len()
		acc |= uint64(int(s.lengthLess3)+3-mean.value()) << (nacc & 63)
		nacc += mean.total()
		sym = int(distSym(uint32(s.distLess1)) & 31)
		c, mean = dist[sym], distMeaning[sym]
		acc |= c.bits() << (nacc & 63)
		nacc += c.len()
		acc |= uint64(int(s.distLess1)+1-mean.value()) << (nacc & 63)
		nacc += mean.total()
		binary.LittleEndian.PutUint64(out[o:], acc)
		o += int(nacc >> 3)
		acc >>= nacc &^ 7 & 63
		nacc &= 7
	}
	w.acc, w.nacc = acc, nacc
	for _, b := range m.buf[at:m.end] {
		o = w.put(out, o, lit[b].bits(), lit[b].len())
	}
	return w.put(out, o, lit[endOfBlock].bits(), lit[endOfBlock].len())
}

// describe works out the codes of a dynamic block. It returns how many bits the
// block's header takes.
func (w *blockWriter) describe(m *matcher) int {
	w.nlit, w.ndist = litLenMax, distMax
	for w.nlit > endOfBlock+1 && m.litFreq[w.nlit-1] == 0 {
		w.nlit--
	}
	for w.ndist > 1 && m.distFreq[w.ndist-1] == 0 {
		w.ndist--
	}
	all := w.lens[:w.nlit+w.ndist]
	w.builder.lengths(all[:w.nlit], m.litFreq[:], codeBitsMax)
	w.builder.lengths(all[w.nlit:], m.distFreq[:], codeBitsMax)

	var freq [codeLenSyms]uint16
	w.countRuns(all, &freq)
	w.builder.lengths(w.preLens[:], freq[:], codeLenBits)
	w.npre = codeLenSyms
	for w.npre > 4 && w.preLens[codeLenOrder[w.npre-1]] == 0 {
		w.npre--
	}
	n := 3 + 5 + 5 + 4 + 3*w.npre + codeBits(freq[:], w.preLens[:])
	for i, f := range freq[lenRepeat:] {
		n += int(f) * int(lenMeaning[lenRepeat+i].total())
	}
	return n
}

// countRuns puts the code lengths into run lengths (RFC 1951, 3.2.7) and counts
// the symbols that takes.
func (w *blockWriter) countRuns(lens []uint8, freq *[codeLenSyms]uint16) {
	k := 0
	for i := 0; i < len(lens); {
		v, n := lens[i], 1
		for i+n < len(lens) && lens[i+n] == v {
			n++
		}
		i += n
		if v != 0 { // only after the first is there something to repeat
			w.runs[k] = uint16(v)
			freq[v]++
			k++
			n--
		}
		for n >= 3 {
			sym, first, most := 16, 3, 6
			switch {
			case v == 0 && n >= 11:
				sym, first, most = 18, 11, 138
			case v == 0:
				sym, first, most = 17, 3, 10
			}
			run := min(n, most)
			w.runs[k] = uint16(sym | (run-first)<<8)
			freq[sym]++
			k++
			n -= run
		}
		for ; n > 0; n-- {
			w.runs[k] = uint16(v)
			freq[v]++
			k++
		}
	}
	w.nruns = k
}

// header writes the header that describe worked out.
func (w *blockWriter) header(out []byte, o int) int {
	o = w.put(out, o, 2<<1|uint64(w.nlit-257)<<3|uint64(w.ndist-1)<<8|uint64(w.npre-4)<<13, 17)
	for _, sym := range codeLenOrder[:w.npre] {
		o = w.put(out, o, uint64(w.preLens[sym]), 3)
	}
	assignCodes(w.pre[:], w.preLens[:])
	for _, r := range w.runs[:w.nruns] {
		c := w.pre[r&0xff]
		o = w.put(out, o, c.bits()|uint64(r>>8)<<c.len(), c.len()+lenMeaning[r&0xff].total())
	}
	return o
}

// A codeBuilder finds the lengths of Huffman codes.
type codeBuilder struct {
	leaves, other [litLenMaxAll]uint32 // frequency, symbol in the lower half; rarest first
	nodes         [litLenMaxAll]uint32
	// Here and not in sort, whose caller is a connection's goroutine with a small
	// stack to itself.
	count [256]uint16
}

// sort sorts leaves by frequency, a byte at a time. The order that the lower half
// had, that of the symbols, stays.
func (b *codeBuilder) sort(leaves []uint32) []uint32 {
	to := b.other[:len(leaves)]
	for shift := 16; shift < 32; shift += 8 {
		clear(b.count[:])
		for _, l := range leaves {
			b.count[uint8(l>>shift)]++
		}
		if int(b.count[0]) == len(leaves) {
			continue // nothing this frequent
		}
		next := uint16(0)
		for i := range b.count {
			b.count[i], next = next, next+b.count[i]
		}
		for _, l := range leaves {
			k := uint8(l >> shift)
			to[b.count[k]] = l
			b.count[k]++
		}
		leaves, to = to, leaves
	}
	return leaves
}

// lengths sets lens to the lengths of a prefix code that is optimal for the
// frequencies, but for codes that would be longer than bitsMax.
func (b *codeBuilder) lengths(lens []uint8, freq []uint16, bitsMax int) {
	leaves := b.leaves[:0]
	for sym := range lens {
		lens[sym] = 0
		if f := freq[sym]; f != 0 {
			leaves = append(leaves, uint32(f)<<16|uint32(sym))
		}
	}
	if len(leaves) < 2 {
		// RFC 1951, 3.2.7: "If only one distance code is used, it is encoded using
		// one bit, not zero bits". It also serves where none is used.
		sym := 0
		if len(leaves) == 1 {
			sym = int(leaves[0] & 0xffff)
		}
		lens[sym] = 1
		return
	}
	leaves = b.sort(leaves)
	count := b.countLengths(leaves, bitsMax)
	i := 0
	for l := bitsMax; l > 0; l-- { // the rarest symbols get the longest codes
		for range count[l] {
			lens[leaves[i]&0xffff] = uint8(l)
			i++
		}
	}
}

// countLengths returns how many codes of each length there are, for two symbols
// or more. It builds Huffman's tree in one array, as Moffat and Katajainen showed
// ("In-place calculation of minimum-redundancy codes", 1995): an inner node first
// holds its weight, then its parent, then its depth.
func (b *codeBuilder) countLengths(leaves []uint32, bitsMax int) (count [codeBitsMax + 1]int) {
	n := len(leaves)
	nodes := b.nodes[:n-1] // inner nodes, in the order in which they are made
	leaf, free := 0, 0     // the next leaf, and the next node without a parent
	for next := range nodes {
		weight := uint32(0)
		for range 2 {
			if leaf < n && (free == next || leaves[leaf]>>16 <= nodes[free]) {
				weight += leaves[leaf] >> 16
				leaf++
			} else {
				weight += nodes[free]
				nodes[free] = uint32(next)
				free++
			}
		}
		nodes[next] = weight
	}
	// From the root down. A level has twice as many places as the one above has
	// inner nodes; those that no inner node takes are leaves.
	nodes[n-2] = 0
	for i := n - 3; i >= 0; i-- {
		nodes[i] = nodes[nodes[i]] + 1
	}
	places, i := 1, n-2
	for depth := 0; places > 0; depth++ {
		inner := 0
		for i >= 0 && int(nodes[i]) == depth {
			inner++
			i--
		}
		count[min(depth, bitsMax)] += places - inner
		places = 2 * inner
	}
	// Codes cut to bitsMax take more room than there is, in units of a code of
	// bitsMax. Turning a shorter leaf into a node for two, one of which is a code
	// that was cut, saves one unit.
	room := 1 << bitsMax
	for l := 1; l <= bitsMax; l++ {
		room -= count[l] << (bitsMax - l)
	}
	for ; room < 0; room++ {
		l := bitsMax - 1
		for count[l] == 0 {
			l--
		}
		count[l]--
		count[l+1] += 2
		count[bitsMax]--
	}
	return count
}
