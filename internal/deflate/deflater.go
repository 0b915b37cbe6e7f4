package deflate

// A Deflater compresses the messages of one direction of a connection. Between
// messages it holds the end of what was sent, if context takeover was agreed,
// otherwise nothing. The zero value compresses without context takeover and with
// back-references of up to 32 KiB.
type Deflater struct {
	bitsMax  uint8 // logarithm of the window; 0 means 15
	takeover bool
	open     bool // a message was begun with Append
}

// Reset makes d ready for the first message of a connection whose receiver has a
// window of 1<<windowBits bytes (8 to 15; anything else means 15), with or
// without context takeover. What d held goes back to the pools.
func (d *Deflater) Reset(windowBits int, takeover bool) {
	*d = Deflater{bitsMax: uint8(clampWindowBits(windowBits)), takeover: takeover}
}

// AppendMessage appends the compressed payload of the whole message p to dst and
// returns the longer slice (RFC 7692, 7.2.1; Tail is not part of it). p is not
// kept. An incompressible message grows by at most five bytes per 65,535 and one
// at the end. It must not be called between Append and Finish.
func (d *Deflater) AppendMessage(dst, p []byte) []byte {
	return d.Finish(d.Append(dst, p))
}

// Append appends to dst what is ready of the compressed payload after p, the next
// part of a message of unknown length. Some input may stay in d until later. Cut
// the output into fragments wherever you like.
func (d *Deflater) Append(dst, p []byte) []byte {
	d.open = true
	for len(p) > 0 {
		n := min(len(p), storedLenMax)
		dst = append(dst, 0, byte(n), byte(n>>8), ^byte(n), ^byte(n>>8))
		dst = append(dst, p[:n]...)
		p = p[n:]
	}
	return dst
}

// Flush appends to dst everything that Append kept back, so that the receiver can
// inflate all of the message so far. It costs a few bytes.
func (d *Deflater) Flush(dst []byte) []byte { return dst }

// Finish appends the end of the message to dst. The next Append begins another.
func (d *Deflater) Finish(dst []byte) []byte {
	d.open = false
	return append(dst, 0)
}

// Remember takes p, a message that somebody else compressed for this connection
// (once for many receivers), into the context, as its receiver will. Without
// takeover it does nothing.
func (d *Deflater) Remember(p []byte) {}

// Release returns to the pools what the next message does not need. Between
// messages there is nothing to return: AppendMessage and Finish do so. In the
// middle of a message, which needs what is there, it does nothing.
func (d *Deflater) Release() {}

// Close returns everything to the pools. A message at hand cannot go on.
func (d *Deflater) Close() {}

// Held is the number of bytes that d keeps from the pools at the moment, beyond
// its own size.
func (d *Deflater) Held() int { return 0 }
