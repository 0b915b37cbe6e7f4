package gateway

import (
	"bytes"
	"io"
)

const (
	lineBufferSize = 32 << 10
	lineBufferKeep = 256 << 10 // a larger buffer is dropped when it is empty
	lineEdge       = 4 << 10   // of a line over the limit, kept to find its id
)

// A lineReader reads lines that end with a line feed. Its buffer grows with
// the line, never beyond max and one read more.
type lineReader struct {
	r    io.Reader
	max  int
	buf  []byte
	from int // first byte not yet returned
	seen int // bytes from here on have not been searched
	to   int // end of what has been read
	err  error

	skipping   bool
	head, tail []byte
}

func newLineReader(r io.Reader, max int) *lineReader {
	return &lineReader{r: r, max: max}
}

// next returns the next line without its line feed. It is valid until the next
// call. A line over the limit is skipped and reported as *LineTooLongError.
func (l *lineReader) next() ([]byte, error) {
	for {
		if i := bytes.IndexByte(l.buf[l.seen:l.to], '\n'); i >= 0 {
			end := l.seen + i
			line := l.buf[l.from:end]
			l.from, l.seen = end+1, end+1
			if l.skipping || len(line) > l.max {
				return nil, l.skipped(line)
			}
			return line, nil
		}
		l.seen = l.to
		if l.skipping || l.to-l.from > l.max {
			l.skip(l.buf[l.from:l.to])
			l.from, l.seen, l.to = 0, 0, 0
		}
		if l.err != nil {
			return nil, l.err
		}
		l.room()
		n, err := l.r.Read(l.buf[l.to:])
		l.to += n
		l.err = err
	}
}

// room makes space for a read: at the front, or by growing.
func (l *lineReader) room() {
	if l.from == l.to {
		l.from, l.seen, l.to = 0, 0, 0
		if cap(l.buf) > lineBufferKeep {
			l.buf = nil
		}
	}
	if l.buf == nil {
		l.buf = make([]byte, lineBufferSize)
	}
	if l.to < len(l.buf) {
		return
	}
	if l.from > 0 && l.to-l.from < len(l.buf)/2 {
		copy(l.buf, l.buf[l.from:l.to])
	} else {
		// By four: memory that has to be cleared and copied is what a long line
		// costs, and most lines that outgrow the first buffers are far longer.
		grown := make([]byte, max(min(4*len(l.buf), l.max+lineBufferSize), len(l.buf)+lineBufferSize))
		copy(grown, l.buf[l.from:l.to])
		l.buf = grown
	}
	l.to -= l.from
	l.seen -= l.from
	l.from = 0
}

// skip takes a part of a line over the limit and keeps its two ends.
func (l *lineReader) skip(p []byte) {
	if !l.skipping {
		l.skipping = true
		l.head = append(l.head[:0], p[:min(len(p), lineEdge)]...)
		l.tail = l.tail[:0]
	}
	if len(p) >= lineEdge {
		l.tail = append(l.tail[:0], p[len(p)-lineEdge:]...)
		return
	}
	if over := len(l.tail) + len(p) - lineEdge; over > 0 {
		l.tail = append(l.tail[:0], l.tail[over:]...)
	}
	l.tail = append(l.tail, p...)
}

// skipped ends a line over the limit whose last part is p.
func (l *lineReader) skipped(p []byte) error {
	l.skip(p)
	l.skipping = false
	return &LineTooLongError{Max: l.max, ID: edgeID(l.head, l.tail)}
}

// edgeID looks for the id of an answer of which only the two ends are known.
// Servers write it as the first or as the last members of the object; the ids
// of our own requests are plain numbers, so a pattern is enough.
func edgeID(head, tail []byte) []byte {
	if i := bytes.Index(head, []byte(`"id":`)); i > 0 && !bytes.Contains(head[1:i], []byte("{")) {
		if id := digits(head[i+len(`"id":`):]); id != nil {
			return id
		}
	}
	if i := bytes.LastIndex(tail, []byte(`"id":`)); i >= 0 {
		rest := tail[i+len(`"id":`):]
		if id := digits(rest); id != nil {
			after := bytes.TrimSpace(rest[bytes.Index(rest, id)+len(id):])
			if bytes.Equal(after, []byte("}")) || bytes.Equal(after, []byte(`,"jsonrpc":"2.0"}`)) {
				return id
			}
		}
	}
	return nil
}

func digits(p []byte) []byte {
	p = bytes.TrimLeft(p, " ")
	n := 0
	for n < len(p) && p[n] >= '0' && p[n] <= '9' {
		n++
	}
	if n == 0 || n > 19 || n == len(p) {
		return nil
	}
	return p[:n:n]
}
