package capture

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"strconv"
	"strings"
	"time"
)

// ErrNotTrace is returned for input whose first line is not that of a trace.
var ErrNotTrace = errors.New("not a weft trace: the first line must be " + strconv.Quote(version))

// A Reader reads a trace file. It holds one line, whatever the file's size.
// A Reader is used by one goroutine.
type Reader struct {
	br     *bufio.Reader
	meta   Meta
	line   int   // number of the current line, from 1
	offset int64 // bytes of complete lines read
	ahead  []byte
	data   []byte // of the current chunk
	cut    bool
	err    error
}

var _ Source = (*Reader)(nil)

// NewReader reads the head of a trace file, up to and not including its first
// chunk.
func NewReader(r io.Reader) (*Reader, error) {
	tr := &Reader{br: bufio.NewReaderSize(r, lineMax)}
	begin, _ := tr.br.Peek(guessMax) // fewer are no reason to stop: a guess is all that they are for
	looks := guess(begin)
	first, err := tr.readLine()
	if err != nil || string(first) != version {
		if err != nil && err != io.EOF && !errors.Is(err, bufio.ErrBufferFull) {
			return nil, fmt.Errorf("trace: %w", err)
		}
		return nil, fmt.Errorf("trace: %w%s", ErrNotTrace, looks)
	}
	for {
		l, err := tr.readLine()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, tr.fail(err)
		}
		if len(l) == 0 || l[0] == '#' {
			continue
		}
		if l[0] >= '0' && l[0] <= '9' {
			tr.ahead = l
			break
		}
		if err := tr.parseMeta(string(l)); err != nil {
			return nil, tr.fail(err)
		}
	}
	if tr.meta.Start.IsZero() && !tr.cut {
		return nil, errors.New("trace: no \"start:\" line before the first chunk")
	}
	return tr, nil
}

// guessMax is how many bytes guess looks at.
const guessMax = 32

// guess says what input that is no trace looks like, from how it begins.
func guess(begin []byte) string {
	if len(begin) == 0 {
		return " (the input is empty)"
	}
	for _, g := range [...]struct{ magic, looks string }{
		{"\x0a\x0d\x0d\x0a", "pcapng, which is not read"},
		{"\xd4\xc3\xb2\xa1", "pcap, which is not read"},
		{"\xa1\xb2\xc3\xd4", "pcap, which is not read"},
		{"\x4d\x3c\xb2\xa1", "pcap, which is not read"},
		{"\xa1\xb2\x3c\x4d", "pcap, which is not read"},
		{"\x1f\x8b", "gzip; unpack it first"},
		{"\x28\xb5\x2f\xfd", "zstd; unpack it first"},
		{"\xff\xfe", "UTF-16, as some shells redirect output; save it as ASCII or UTF-8"},
		{"\xfe\xff", "UTF-16, as some shells redirect output; save it as ASCII or UTF-8"},
		{"\xef\xbb\xbf", "text with a byte order mark; take it off"},
		{"{", "JSON; what a browser exports has messages, but not the frames"},
		{"GET ", "the bytes themselves; without times and directions they cannot be judged"},
		{"HTTP/", "the bytes themselves; without times and directions they cannot be judged"},
	} {
		if bytes.HasPrefix(begin, []byte(g.magic)) {
			return " (this looks like " + g.looks + ")"
		}
	}
	if v, ok := bytes.CutPrefix(begin, []byte("weft-trace ")); ok {
		v, _, _ = bytes.Cut(v, []byte{'\n'})
		return fmt.Sprintf(" (this is version %.16q)", bytes.TrimSuffix(v, []byte{'\r'}))
	}
	return ""
}

func (r *Reader) parseMeta(l string) error {
	key, value, ok := strings.Cut(l, ": ")
	if !ok && strings.HasSuffix(l, ":") {
		key, ok = l[:len(l)-1], true
	}
	if !ok || !validKey(key) {
		return fmt.Errorf("want a meta line \"key: value\" or a chunk, got %.40q", l)
	}
	if strings.HasPrefix(value, `"`) {
		v, err := strconv.Unquote(value)
		if err != nil {
			return fmt.Errorf("value of %s is not a quoted string", key)
		}
		value = v
	}
	if key == "start" {
		t, err := time.Parse(time.RFC3339Nano, value)
		if err != nil {
			return fmt.Errorf("start: want a time as in 2006-01-02T15:04:05.999999999Z, got %.40q", value)
		}
		r.meta.Start = t
		return nil
	}
	if len(r.meta.Fields) == metaMax {
		return fmt.Errorf("more than %d meta lines", metaMax)
	}
	r.meta.Fields = append(r.meta.Fields, Field{key, value})
	return nil
}

// Meta returns the meta lines that stand before the first chunk.
func (r *Reader) Meta() Meta { return r.meta }

// Cut reports whether the last line was incomplete and has been left out, as
// after the recording process died. It is known once Chunks has ended.
func (r *Reader) Cut() bool { return r.cut }

// Offset is how many bytes of the file have been read, for a progress display.
func (r *Reader) Offset() int64 { return r.offset }

// Chunks yields the chunks in the order of the file. A malformed line ends the
// sequence with an error that names the line. The sequence can be ranged over
// once; a second loop carries on where the first stopped.
func (r *Reader) Chunks() iter.Seq2[Chunk, error] {
	return func(yield func(Chunk, error) bool) {
		for r.err == nil {
			c, err := r.next()
			if err == io.EOF {
				r.err = err
				return
			}
			if err != nil {
				r.err = r.fail(err)
				yield(Chunk{}, r.err)
				return
			}
			if !yield(c, nil) {
				return
			}
		}
	}
}

func (r *Reader) next() (Chunk, error) {
	l := r.ahead
	r.ahead = nil
	for len(l) == 0 || l[0] == '#' {
		var err error
		if l, err = r.readLine(); err != nil {
			return Chunk{}, err
		}
	}
	return r.parseChunk(l)
}

// parseChunk decodes a line such as
//
//	0.143480000 > 82fe10001c9a7702
//	0.000000000 < "HTTP/1.1 101 Switching Protocols\r\n"
//	0.373000000 > end rst
func (r *Reader) parseChunk(l []byte) (Chunk, error) {
	stamp, rest, ok := bytes.Cut(l, []byte{' '})
	var d time.Duration
	if ok {
		d, ok = parseOffset(string(stamp))
	}
	if !ok {
		return Chunk{}, fmt.Errorf("want a chunk such as 0.000000000 > 8100, got %.40q", l)
	}
	c := Chunk{At: r.meta.Start.Add(d)}
	switch {
	case len(rest) >= 2 && rest[0] == '>' && rest[1] == ' ':
		c.From = Client
	case len(rest) >= 2 && rest[0] == '<' && rest[1] == ' ':
		c.From = Server
	default:
		return Chunk{}, fmt.Errorf("want > (from the client) or < (from the server) after the time, got %.20q", rest)
	}
	rest = rest[2:]
	switch {
	case bytes.HasPrefix(rest, []byte("end ")):
		if c.End, ok = ParseEndKind(string(rest[len("end "):])); !ok {
			return Chunk{}, fmt.Errorf("want end fin, end rst or end timeout, got %.20q", rest)
		}
		return c, nil
	case len(rest) > 0 && rest[0] == '"':
		s, err := strconv.Unquote(string(rest))
		if err != nil {
			return Chunk{}, errors.New("the quoted bytes are malformed")
		}
		r.data = append(r.data[:0], s...)
	default:
		var err error
		if r.data, err = hex.AppendDecode(r.data[:0], rest); err != nil {
			return Chunk{}, fmt.Errorf("the bytes are neither quoted nor pairs of hex digits: %w", err)
		}
	}
	c.Data = r.data
	return c, nil
}

// parseOffset reads seconds with up to nine decimals.
func parseOffset(s string) (time.Duration, bool) {
	sec, frac, _ := strings.Cut(s, ".")
	n, err := strconv.ParseUint(sec, 10, 32)
	if err != nil || len(frac) > 9 {
		return 0, false
	}
	d := time.Duration(n) * time.Second
	if frac != "" {
		f, err := strconv.ParseUint(frac, 10, 32)
		if err != nil {
			return 0, false
		}
		for range 9 - len(frac) {
			f *= 10
		}
		d += time.Duration(f)
	}
	return d, true
}

// readLine returns the next complete line without its end. The memory is valid
// until the next call. An incomplete last line is noted and left out.
func (r *Reader) readLine() ([]byte, error) {
	l, err := r.br.ReadSlice('\n')
	r.line++
	if err == io.EOF {
		r.cut = r.cut || len(l) > 0
		if r.line == 1 {
			return l, err
		}
		return nil, err
	}
	if errors.Is(err, bufio.ErrBufferFull) {
		if r.line == 1 {
			return l[:64], err
		}
		return nil, fmt.Errorf("the line is longer than %d characters", lineMax)
	}
	if err != nil {
		return nil, err
	}
	r.offset += int64(len(l))
	l = l[:len(l)-1]
	if len(l) > 0 && l[len(l)-1] == '\r' {
		l = l[:len(l)-1]
	}
	return l, nil
}

// fail adds the place to an error.
func (r *Reader) fail(err error) error {
	return fmt.Errorf("trace: line %d: %w", r.line, err)
}
