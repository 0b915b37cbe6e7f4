package acip

// A Reassembler cuts a stream of bytes into packets. Senders put one packet
// into one WebSocket message, but only the length field in the header counts:
// a packet may arrive in pieces, and several may arrive in one piece.
//
// It holds at most one packet, its memory grows with the bytes that came and
// not with those that were announced, and it knows no time: a slow packet is
// the business of the connection's deadline. The zero value is ready. Not safe
// for concurrent use.
type Reassembler struct {
	buf  []byte // the packet that is not complete yet, header included
	need int    // length of that packet once its header is known, else 0
	err  error
}

// Next consumes bytes from the front of chunk until a packet is complete. It
// returns the packet and how many bytes it took; ok is false when chunk was
// used up first. Call it again with the rest until nothing is left.
//
// The packet's payload aliases chunk or the Reassembler's buffer and is valid
// until the next call. An error is a *Violation and final.
func (r *Reassembler) Next(chunk []byte) (p Packet, n int, ok bool, err error) {
	if r.err != nil {
		return Packet{}, 0, false, r.err
	}
	p, n, ok, r.err = r.next(chunk)
	return p, n, ok, r.err
}

func (r *Reassembler) next(chunk []byte) (p Packet, n int, ok bool, err error) {
	if r.need > 0 && len(r.buf) == r.need { // the packet handed out last time
		r.buf, r.need = r.buf[:0], 0
	}
	if len(r.buf) == 0 {
		// The usual case: the whole packet is here and is used where it lies.
		p, n, err = Parse(chunk)
		if n > 0 || err != nil {
			return p, n, err == nil, err
		}
	}
	if len(r.buf) < HeaderSize {
		n = r.take(chunk, HeaderSize)
		if len(r.buf) < HeaderSize {
			return Packet{}, n, false, nil
		}
		chunk = chunk[n:]
	}
	h, err := parseHeader(r.buf)
	if err != nil {
		return Packet{}, n, false, err
	}
	r.need = HeaderSize + h.length
	n += r.take(chunk, r.need)
	if len(r.buf) < r.need {
		return Packet{}, n, false, nil
	}
	p, err = h.packet(r.buf[HeaderSize:])
	return p, n, err == nil, err
}

// take moves bytes from chunk into the buffer until it holds want.
func (r *Reassembler) take(chunk []byte, want int) int {
	n := min(want-len(r.buf), len(chunk))
	r.buf = append(r.buf, chunk[:n]...)
	return n
}

// Pending returns how many bytes of an unfinished packet are held.
func (r *Reassembler) Pending() int {
	if r.need > 0 && len(r.buf) == r.need {
		return 0
	}
	return len(r.buf)
}
