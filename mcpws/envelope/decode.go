package envelope

import (
	"bytes"
	"fmt"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// A Framing says where a JSON-RPC message ends.
type Framing uint8

const (
	// PerMessage: a WebSocket message is one JSON value, or several of them
	// on lines of their own. A newline at the end is neither needed nor a
	// fault, and pretty-printed JSON is understood. This is the default.
	PerMessage Framing = iota
	// Stream: a JSON-RPC message ends with a line feed, wherever WebSocket
	// messages end; one may hold several of the other. A peer that sends no
	// newline is never answered, so this is only for peers known to want it.
	Stream
)

// String returns the word used in configuration files.
func (f Framing) String() string {
	if f == Stream {
		return "stream"
	}
	return "message"
}

// ParseFraming is the inverse of [Framing.String].
func ParseFraming(s string) (Framing, error) {
	switch s {
	case "", "message":
		return PerMessage, nil
	case "stream":
		return Stream, nil
	}
	return 0, fmt.Errorf("framing %q is neither \"message\" nor \"stream\"", s)
}

// faultsMax is how many unreadable lines of one WebSocket message are reported
// one by one. A message of a million broken lines gets this many answers, not
// a million.
const faultsMax = 16

// A Decoder cuts what arrives in WebSocket messages into JSON-RPC messages. It
// belongs to one direction of one connection; one goroutine at a time uses it. It does no I/O and asks for no time.
type Decoder struct {
	Framing Framing
	SizeMax int           // bytes of one JSON-RPC message in Stream framing; 0: 16 MiB
	TimeMax time.Duration // from the first byte of a line to its end in Stream framing; 0: 30 s

	buf     []byte      // an unfinished line
	since   time.Time   // when its first byte came
	first   bool        // something has been decoded
	newline atomic.Bool // read by those who write answers
}

const (
	defaultSizeMax = 16 << 20
	defaultTimeMax = 30 * time.Second
)

// A TooBigError is a line longer than SizeMax. It cannot be skipped, since
// where it ends is unknown: the connection has to be closed with 1009.
type TooBigError struct{ Max int }

// Error has the wording that implementations of the streamed dialect use as
// the close reason.
func (e *TooBigError) Error() string {
	return fmt.Sprintf("Message exceeds maximum size of %d bytes", e.Max)
}

// A LateError is a line that was not finished in time.
type LateError struct{ After time.Duration }

// Error names the limit.
func (e *LateError) Error() string {
	return fmt.Sprintf("no line feed within %v of the first byte of a message", e.After)
}

// A UTF8Error is a line that is not UTF-8.
type UTF8Error struct{}

// Error says so.
func (*UTF8Error) Error() string { return "a message is not UTF-8" }

// Newline reports whether the peer's first message ended with a line feed: the
// dialect to answer in when answers mirror the peer. Any goroutine may ask.
func (d *Decoder) Newline() bool { return d.newline.Load() }

// Feed takes the payload of one text message and calls yield for each JSON-RPC
// message in it, in order. The error given to yield is a *[SyntaxError], after
// which Feed goes on with the next line. Messages point into p (which OneLine
// may alter) and are valid until yield returns. Feed stops and returns the
// first error that yield returns, or a *[TooBigError] or *[UTF8Error] of its
// own, after which the Decoder must not be used.
func (d *Decoder) Feed(now time.Time, p []byte, yield func(*Message, error) error) error {
	if d.Framing == Stream {
		return d.feedStream(now, p, yield)
	}
	return d.feedMessage(p, yield)
}

func (d *Decoder) feedMessage(p []byte, yield func(*Message, error) error) error {
	if !d.first && len(p) > 0 {
		d.first = true
		d.newline.Store(p[len(p)-1] == '\n')
	}
	faults := 0
	for i := skipSpace(p, 0); i < len(p); i = skipSpace(p, i) {
		m, end, err := parseFirst(p[i:])
		if err == nil {
			// Two values must have a line feed between them.
			rest := p[i+end:]
			next := skipSpace(rest, 0)
			if next < len(rest) && bytes.IndexByte(rest[:next], '\n') < 0 {
				err = &SyntaxError{end + next, "text after the end of the value"}
				end += next
			}
		}
		if err == nil {
			i += end
			if err := yield(&m, nil); err != nil {
				return err
			}
			continue
		}
		se := err.(*SyntaxError)
		se.Offset += i
		if faults++; faults <= faultsMax {
			if err := yield(nil, se); err != nil {
				return err
			}
		}
		i = resync(p, i+end)
	}
	return nil
}

// resync finds where to go on after a fault at i: at the next line that begins
// like a message. Indented lines are taken for the rest of the broken one.
func resync(p []byte, i int) int {
	for {
		n := bytes.IndexByte(p[i:], '\n')
		if n < 0 {
			return len(p)
		}
		i += n + 1
		if i < len(p) && (p[i] == '{' || p[i] == '[') {
			return i
		}
	}
}

func (d *Decoder) feedStream(now time.Time, p []byte, yield func(*Message, error) error) error {
	sizeMax := d.SizeMax
	if sizeMax <= 0 {
		sizeMax = defaultSizeMax
	}
	d.newline.Store(true)
	for len(p) > 0 {
		n := bytes.IndexByte(p, '\n')
		if n < 0 {
			if len(d.buf)+len(p) > sizeMax {
				return &TooBigError{sizeMax}
			}
			if len(d.buf) == 0 {
				d.since = now
			}
			d.buf = append(d.buf, p...)
			return nil
		}
		if len(d.buf)+n > sizeMax {
			return &TooBigError{sizeMax}
		}
		line := p[:n]
		if len(d.buf) > 0 {
			d.buf = append(d.buf, line...)
			line = d.buf
		}
		p = p[n+1:]
		d.since = time.Time{}
		if skipSpace(line, 0) < len(line) {
			if !utf8.Valid(line) {
				return &UTF8Error{}
			}
			m, err := Parse(line)
			mp := &m
			if err != nil {
				mp = nil
			}
			if err := yield(mp, err); err != nil {
				return err
			}
		}
		if cap(d.buf) > 64<<10 {
			d.buf = nil // a large line is not kept for the next small one
		} else {
			d.buf = d.buf[:0]
		}
	}
	return nil
}

// Deadline is when an unfinished line is late; zero when there is none.
func (d *Decoder) Deadline() time.Time {
	if d.since.IsZero() {
		return time.Time{}
	}
	return d.since.Add(d.timeMax())
}

// Expire returns a *[LateError] if now is at or past Deadline.
func (d *Decoder) Expire(now time.Time) error {
	if at := d.Deadline(); at.IsZero() || now.Before(at) {
		return nil
	}
	return &LateError{d.timeMax()}
}

func (d *Decoder) timeMax() time.Duration {
	if d.TimeMax <= 0 {
		return defaultTimeMax
	}
	return d.TimeMax
}
