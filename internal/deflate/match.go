package deflate

import (
	"encoding/binary"
	"math/bits"
)

const (
	// bufMax bounds history and block together, so that a position fits into 16
	// bits. That halves the tables and spares all bounds checks on them.
	bufMax = 1<<16 - 1
	// blockMax is how much input one block takes at most.
	blockMax = 1 << 15
	// matchLenMin is the shortest repetition that is looked for. Three bytes rarely
	// cost less as a match than as literals.
	matchLenMin = 4
	hashBits    = 14
	// loadSlack is how far behind the data the matcher may read.
	loadSlack = 8
	// missesPerStep: after this many literals in a row only every second position
	// is tried, after twice as many every third and so on, so that data without
	// repetitions costs little.
	missesPerStep = 64
)

// A sequence is a run of literals, possibly empty, and the match behind it.
// Storing runs instead of single literals spares the reader of sequences a branch
// for each, which nobody could predict.
type sequence struct {
	literals    uint16 // how many
	lengthLess3 uint16 // 0 to 255
	distLess1   uint16 // 0 to 32767
}

// sequencesMax is as many as fit into a block, since a match has four bytes.
const sequencesMax = blockMax / matchLenMin

// An effort says how hard the matcher looks.
type effort struct {
	depth int    // earlier places that are compared, at most
	nice  uint16 // a match of this length is taken without looking for a longer one
	lazy  uint16 // a match below this length gives way to a longer one that begins a byte later
}

// A matcher finds repetitions in history and block. Its tables are most of what
// compressing needs.
type matcher struct {
	buf        [bufMax + 1 + loadSlack]byte
	start, end int // buf[:start] was sent before, buf[start:end] is the block
	indexed    int // buf[:indexed] can be found

	// head is the last position with a hash, prev[i] the one before position i; 0
	// stands for none, so that position 0 itself is never found.
	head [1 << hashBits]uint16
	prev [bufMax + 1]uint16

	// The block in sequences; behind the last one there may be literals.
	seqs  [sequencesMax]sequence
	nseqs int
	// How often each symbol occurs.
	litFreq  [litLenMaxAll]uint16
	distFreq [distMaxAll]uint16
}

// reset empties the matcher and returns where history may be put: the caller
// sets start and end behind it.
func (m *matcher) reset() {
	m.start, m.end, m.indexed = 0, 0, 0
	clear(m.head[:])
}

// slide moves the last keep bytes to the front, as history.
func (m *matcher) slide(keep int) {
	if keep == m.end {
		return
	}
	copy(m.buf[:keep], m.buf[m.end-keep:m.end])
	m.reset()
	m.start, m.end = keep, keep
}

func (m *matcher) load32(i uint16) uint32 { return binary.LittleEndian.Uint32(m.buf[i:]) }
func (m *matcher) load64(i uint16) uint64 { return binary.LittleEndian.Uint64(m.buf[i:]) }

func hash4(u uint32) uint32 { return u * 0x9E3779B1 >> (32 - hashBits) }

// index makes buf[from:to] findable.
func (m *matcher) index(from, to uint16) {
	for i := from; i < to; i++ {
		h := hash4(m.load32(i))
		m.prev[i] = m.head[h]
		m.head[h] = i
	}
}

// matchLen is how many bytes at c and i are equal, at most lenMax. The first
// matchLenMin are known to be.
func (m *matcher) matchLen(c, i, lenMax uint16) uint16 {
	n := uint16(matchLenMin)
	for n < lenMax {
		if x := m.load64(c+n) ^ m.load64(i+n); x != 0 {
			n += uint16(bits.TrailingZeros64(x) >> 3)
			break
		}
		n += 8
	}
	return min(n, lenMax)
}

// find follows the chain of candidates from c and returns the longest match for
// position i of more than best and at most lenMax bytes, and where it begins; 0
// if there is none. Candidates up to far are too far back.
func (m *matcher) find(i, c, best, lenMax, far uint16, eff effort) (length, at uint16) {
	cur, tail := m.load32(i), m.load32(i+best-3)
	for c > far {
		// A longer match has to agree in the byte behind the best one so far.
		if m.load32(c+best-3) == tail && m.load32(c) == cur {
			if n := m.matchLen(c, i, lenMax); n > best {
				best, at = n, c
				if n >= eff.nice || n == lenMax {
					break
				}
				tail = m.load32(i + best - 3)
			}
		}
		if eff.depth--; eff.depth <= 0 {
			break
		}
		c = m.prev[c]
	}
	return best, at
}

// parse turns the block into sequences. reach is the receiver's window: RFC
// 7692, 7.1.2.1: "the peer server does not use an LZ77 sliding window size larger
// than" that.
func (m *matcher) parse(eff effort, reach int) {
	m.nseqs = 0
	clear(m.litFreq[:])
	clear(m.distFreq[:])
	// Four bytes have to be there to be hashed.
	limit := max(0, m.end-matchLenMin+1)
	m.index(uint16(m.indexed), uint16(min(m.start, limit)))
	first := uint16(m.start) // the first byte behind the last match
	if eff.depth <= 1 {
		first = m.parseFast(first, uint16(limit), uint16(m.end), reach)
	} else {
		first = m.parseChains(first, uint16(limit), uint16(m.end), reach, eff)
	}
	m.countLiterals(first, uint16(m.end))
	m.indexed = max(m.indexed, limit)
}

// parseFast compares with the last position of the same hash only and takes any
// match. It needs no chains, and of the bytes of a match it indexes only some: a
// loop over all of them would find a little more and take a third longer.
func (m *matcher) parseFast(i, limit, end uint16, reach int) (first uint16) {
	first = i
	for i < limit {
		cur := m.load32(i)
		h := hash4(cur)
		c := m.head[h]
		m.head[h] = i
		if m.load32(c) != cur || c == 0 || int(c) < int(i)-reach {
			m.litFreq[uint8(cur)]++
			i++
			if misses := i - first; misses > missesPerStep {
				to := i + min(misses/missesPerStep, limit-i)
				m.countLiterals(i, to)
				i = to
			}
			continue
		}
		n := m.matchLen(c, i, min(matchLenMax, end-i))
		m.add(i-first, n, i-c)
		first = i + n
		if first < limit {
			for _, j := range [...]uint16{i + 1, first - 3, first - 2, first - 1} {
				m.head[hash4(m.load32(j))] = j
			}
		}
		i = first
	}
	return first
}

// parseChains compares with several positions of the same hash, takes the longest
// match and gives it up if a longer one begins a byte later.
func (m *matcher) parseChains(i, limit, end uint16, reach int, eff effort) (first uint16) {
	const none = matchLenMin - 1
	first = i
	// The match that begins at i-1, while the one that begins at i is looked for.
	have, at := uint16(none), uint16(0)
	for i < limit {
		h := hash4(m.load32(i))
		c := m.head[h]
		m.prev[i] = c
		m.head[h] = i
		if have == none || have < eff.lazy {
			far := uint16(max(0, int(i)-reach-1))
			if lenMax := min(matchLenMax, end-i); c > far && have < lenMax {
				if n, from := m.find(i, c, have, lenMax, far, eff); from != 0 {
					have, at = n, from
					i++
					continue
				}
			}
		}
		if have == none {
			i += min(1+(i-first)/missesPerStep, limit-i)
			continue
		}
		m.countLiterals(first, i-1)
		m.add(i-1-first, have, i-1-at)
		first = i - 1 + have
		m.index(i+1, min(first, limit))
		i, have = first, none
	}
	if have != none {
		m.countLiterals(first, i-1)
		m.add(i-1-first, have, i-1-at)
		first = i - 1 + have
	}
	return first
}

// add adds a run of literals, which are counted already, and a match.
func (m *matcher) add(literals, length, dist uint16) {
	m.seqs[m.nseqs&(sequencesMax-1)] = sequence{literals, length - 3, dist - 1}
	m.nseqs++
	m.litFreq[lengthSymBase+int(lengthSym[uint8(length-3)]&31)]++
	m.distFreq[distSym(uint32(dist-1))&31]++
}

func (m *matcher) countLiterals(from, to uint16) {
	for i := from; i < to; i++ {
		m.litFreq[m.buf[i]]++
	}
}
