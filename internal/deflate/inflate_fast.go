package deflate

import "encoding/binary"

// fastMatchSlack is how many bytes behind a match the fast loop may overwrite.
const fastMatchSlack = 8

// fast is symbols for as long as there are eight bytes of input to load at once
// and room for a few literals, which is nearly always. It stops in front of
// anything rare and leaves that to the slow path.
func (r *Inflater) fast(c *cursor) {
	dst, src := c.dst, c.src
	o, i := c.o, c.i
	if len(src)-i < 8 || len(dst)-o < fastMatchSlack {
		return
	}
	lit, dist := r.lit, r.dst
	hold, n := r.hold, r.nhold
	reach := 0 // bytes in the window
	if r.win != nil {
		reach = r.win.n
	}
	distMax := 1 << r.windowBits()
	for len(src)-i >= 8 && len(dst)-o >= fastMatchSlack {
		// Fill hold to at least 56 bits. Bits above n are the next ones of src
		// already; loading them again changes nothing.
		hold |= binary.LittleEndian.Uint64(src[i:]) << (n & 63)
		i += int((63 - n) >> 3)
		n |= 56

		e := lit[hold&(1<<litBits-1)]
		if e&kindLiteral != 0 {
			// Three literals take at most 45 bits.
			hold >>= e & 63
			n -= uint(e & 63)
			dst[o] = byte(e >> 16)
			o++
			if e = lit[hold&(1<<litBits-1)]; e&kindLiteral != 0 {
				hold >>= e & 63
				n -= uint(e & 63)
				dst[o] = byte(e >> 16)
				o++
				if e = lit[hold&(1<<litBits-1)]; e&kindLiteral != 0 {
					hold >>= e & 63
					n -= uint(e & 63)
					dst[o] = byte(e >> 16)
					o++
				}
			}
			continue
		}
		if e&kindBad == kindSubtable {
			e = lit[(uint64(e>>16)+hold>>litBits&(1<<(e&15)-1))&(litRoom-1)]
			if e&kindLiteral != 0 {
				hold >>= e & 63
				n -= uint(e & 63)
				dst[o] = byte(e >> 16)
				o++
				continue
			}
		}
		if e&kindBase == 0 {
			break // the end of the block, or an undefined code
		}
		// A length takes at most 20 bits, a distance 28.
		h, m := hold, uint(e&63)
		length := int(e>>16) + int(h&(1<<m-1)>>(e>>8&15))
		h >>= m
		d := dist[h&(1<<distBits-1)]
		if d&kindBad == kindSubtable {
			d = dist[(uint64(d>>16)+h>>distBits&(1<<(d&15)-1))&(distRoom-1)]
		}
		if d&kindBase == 0 || len(dst)-o < length+fastMatchSlack {
			break
		}
		back := int(d>>16) + int(h&(1<<(d&63)-1)>>(d>>8&15))
		if back > distMax || back > o+reach {
			break // the slow path says what is wrong
		}
		hold = h >> (d & 63)
		n -= m + uint(d&63)
		if back > o {
			k := min(length, back-o)
			r.win.read(dst[o:o+k], back-o)
			o += k
			length -= k
			if length == 0 {
				continue
			}
		}
		end := o + length
		if back < 8 {
			repeat(dst[:end], o, back)
			o = end
			continue
		}
		// Eight bytes at a time, past the end by up to seven.
		for from := o - back; o < end; o, from = o+8, from+8 {
			binary.LittleEndian.PutUint64(dst[o:], binary.LittleEndian.Uint64(dst[from:]))
		}
		o = end
	}
	// Give back whole bytes, so that hold is short and what it holds is clean.
	back := min(int(n>>3), i-c.i)
	i -= back
	n -= uint(back) * 8
	r.hold, r.nhold = hold&(1<<(n&63)-1), n
	c.o, c.i = o, i
}
