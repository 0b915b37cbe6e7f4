package capture

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"
)

// version is the first line of a trace file.
const version = "weft-trace 1"

const (
	// chunkMax is the most payload bytes on one line; longer chunks take
	// several lines with the same time.
	chunkMax = 32 << 10
	// lineMax bounds a line for the reader: chunkMax bytes, each of which may
	// take four characters when quoted, and the fields before them.
	lineMax = 4*chunkMax + 256
	// metaMax is how many meta lines a reader accepts.
	metaMax = 64
)

// A Field is one meta line of a trace file.
type Field struct {
	Key   string // lower case letters, digits and "-"
	Value string // any text; control characters are escaped
}

// Meta is what a trace file says about itself before the first chunk.
type Meta struct {
	// Start is the time from which the offsets count. A Writer given the zero
	// time takes the time of the first chunk.
	Start  time.Time
	Fields []Field // in order; "start" is not among them
}

// Get returns the value of the first field with the key, or "".
func (m Meta) Get(key string) string {
	for _, f := range m.Fields {
		if f.Key == key {
			return f.Value
		}
	}
	return ""
}

// A Writer writes a trace file. All methods may be called from any goroutine.
//
// Each call is one Write to the underlying writer, so a process that dies
// leaves at most its last line incomplete; wrap a file in a bufio.Writer where
// speed matters more. After the first error nothing more is written, and every
// call returns that error.
type Writer struct {
	mu    sync.Mutex
	w     io.Writer
	meta  Meta
	begun bool // the version and meta lines are written
	buf   []byte
	err   error
}

// NewWriter returns a Writer of a trace file with the given meta lines. The
// head of the file is written with the first chunk.
func NewWriter(w io.Writer, meta Meta) *Writer {
	tw := &Writer{w: w, meta: meta}
	for _, f := range meta.Fields {
		if !validKey(f.Key) || f.Key == "start" {
			tw.err = fmt.Errorf("trace: %q cannot be the key of a meta line: use a-z, 0-9 and -, and set Meta.Start for the time", f.Key)
		}
	}
	if len(meta.Fields) > metaMax {
		tw.err = fmt.Errorf("trace: %d meta lines, at most %d are read back", len(meta.Fields), metaMax)
	}
	return tw
}

func validKey(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-') {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

// Chunk records bytes that a side sent at the given time; p is not kept.
func (w *Writer) Chunk(from Side, at time.Time, p []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.begin(at)
	for len(p) > 0 {
		n := min(len(p), chunkMax)
		w.stamp(from, at)
		w.buf = appendPayload(w.buf, p[:n])
		w.buf = append(w.buf, '\n')
		p = p[n:]
	}
	return w.flush()
}

// End records that a side's half of the connection ended, and how.
func (w *Writer) End(from Side, at time.Time, how EndKind) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if how != FIN && how != RST && how != Timeout {
		return errors.New("trace: an end is fin, rst or timeout")
	}
	w.begin(at)
	w.stamp(from, at)
	w.buf = append(w.buf, "end "...)
	w.buf = append(w.buf, how.String()...)
	w.buf = append(w.buf, '\n')
	return w.flush()
}

// Flush writes the head of the file if nothing has been written yet, so that
// the recording of a connection without a byte is a valid file as well. That
// takes Meta.Start; without it Flush does nothing.
func (w *Writer) Flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.meta.Start.IsZero() {
		w.begin(w.meta.Start)
	}
	return w.flush()
}

func (w *Writer) begin(at time.Time) {
	if w.begun {
		return
	}
	w.begun = true
	if w.meta.Start.IsZero() {
		w.meta.Start = at
	}
	w.buf = append(w.buf, version...)
	w.buf = append(w.buf, "\nstart: "...)
	w.buf = w.meta.Start.UTC().AppendFormat(w.buf, time.RFC3339Nano)
	w.buf = append(w.buf, '\n')
	for _, f := range w.meta.Fields {
		w.buf = append(w.buf, f.Key...)
		w.buf = append(w.buf, ": "...)
		if plainValue(f.Value) {
			w.buf = append(w.buf, f.Value...)
		} else {
			w.buf = strconv.AppendQuoteToASCII(w.buf, f.Value)
		}
		w.buf = append(w.buf, '\n')
	}
}

// plainValue reports whether a meta value can stand unquoted on its line.
func plainValue(s string) bool {
	for _, r := range s {
		if r < ' ' || r == 0x7f || r == 0xfffd || r == 0x85 || r == 0x2028 || r == 0x2029 {
			return false
		}
	}
	return s == strings.TrimSpace(s) && !strings.HasPrefix(s, `"`)
}

func (w *Writer) stamp(from Side, at time.Time) {
	// Offsets are never negative and never go back further than the start:
	// several goroutines may take their times in another order than the lock.
	d := max(at.Sub(w.meta.Start), 0)
	w.buf = strconv.AppendInt(w.buf, int64(d/time.Second), 10)
	w.buf = append(w.buf, '.')
	ns := int64(d % time.Second)
	for pow := int64(1e8); pow > 0; pow /= 10 {
		w.buf = append(w.buf, byte('0'+ns/pow%10))
	}
	if from == Client {
		w.buf = append(w.buf, " > "...)
	} else {
		w.buf = append(w.buf, " < "...)
	}
}

// appendPayload writes p between quotes if a person can read it, else in hex.
func appendPayload(dst, p []byte) []byte {
	for _, c := range p {
		if (c < ' ' || c > '~') && c != '\r' && c != '\n' && c != '\t' {
			return hex.AppendEncode(dst, p)
		}
	}
	return strconv.AppendQuoteToASCII(dst, string(p))
}

func (w *Writer) flush() error {
	if w.err == nil && len(w.buf) > 0 {
		if _, err := w.w.Write(w.buf); err != nil {
			w.err = fmt.Errorf("trace: %w", err)
		}
	}
	w.buf = w.buf[:0]
	return w.err
}
