package gateway

import (
	"bytes"
	"io"
	"strconv"
	"time"
)

// An event is one server-sent event (HTML Living Standard, 9.2).
type event struct {
	name  string
	data  []byte // nil: nothing to pass on
	id    string
	hasID bool
	retry time.Duration     // how long to wait before the next connection; negative: not said
	long  *LineTooLongError // the data was over the limit and is lost
}

const (
	eventBufferSize = 16 << 10
	eventSmall      = 64 << 10 // an event of more bytes is a big one
	eventFieldMax   = 1 << 10  // of an id or a name
	retryMax        = 5 * time.Minute
)

// An eventReader reads server-sent events. What it holds is bounded by the
// limit of one event, and every byte is looked at a fixed number of times
// however the events are cut into reads.
type eventReader struct {
	r   io.Reader
	max int // bytes of the data of one event

	// partial is told when a read begins in the middle of an event, and with
	// false when the event is complete. big is called before an event takes
	// more memory than eventSmall. Both may be nil.
	partial func(bool)
	big     func()

	buf      []byte
	from, to int
	lf, cr   int // where the next of them is in buf, to if there is none
	skipLF   bool
	err      error

	line    []byte // the current line as far as it is known
	data    []byte // of the lines before it
	comment bool
	begun   bool
	grown   bool
	over    bool // the event is over the limit
	head    []byte
	tail    []byte
}

func newEventReader(r io.Reader, max int) *eventReader {
	return &eventReader{r: r, max: max, buf: make([]byte, eventBufferSize)}
}

// next returns the next event. An event that the end of the stream cuts short
// is discarded, as the standard demands.
func (e *eventReader) next() (event, error) {
	ev := event{retry: -1}
	hasData, any := false, false
	for {
		if err := e.readLine(); err != nil {
			return event{}, err
		}
		if e.comment {
			continue
		}
		if len(e.line) == 0 && !e.over {
			e.ended()
			if !any {
				continue
			}
			if hasData {
				ev.data, e.data = e.data, nil
			}
			return ev, nil
		}
		any = true
		if e.over {
			// The rest of this event has no use: find its end.
			ev.long = &LineTooLongError{Max: e.max, ID: edgeID(e.head, e.tail)}
			ev.data, e.data, hasData = nil, nil, false
			if err := e.toBlank(&ev); err != nil {
				return event{}, err
			}
			return ev, nil
		}
		name, value, _ := bytes.Cut(e.line, []byte(":"))
		name = bytes.TrimPrefix(name, []byte("\ufeff")) // a byte order mark may begin the stream
		value = bytes.TrimPrefix(value, []byte(" "))
		if string(name) == "data" {
			switch {
			case !hasData && len(value) > eventSmall/2:
				e.data, e.line = value, nil // instead of a copy
			case hasData:
				e.data = append(append(e.data, '\n'), value...)
			default:
				e.data = append(e.data, value...)
			}
			hasData = true
			continue
		}
		ev.field(string(name), value)
	}
}

// field takes a field that is not data. Unknown ones are ignored.
func (ev *event) field(name string, value []byte) {
	switch name {
	case "event":
		ev.name = string(value[:min(len(value), eventFieldMax)])
	case "id":
		// "If the field value does not contain U+0000 NULL, then set the last
		// event ID buffer to the field value."
		if len(value) <= eventFieldMax && bytes.IndexByte(value, 0) < 0 {
			ev.id, ev.hasID = string(value), true
		}
	case "retry":
		// "If the field value consists of only ASCII digits …"
		if n, err := strconv.ParseUint(string(value), 10, 32); err == nil && value[0] != '+' {
			ev.retry = min(time.Duration(n)*time.Millisecond, retryMax)
		}
	}
}

// toBlank reads the rest of an event over the limit and forgets its data.
func (e *eventReader) toBlank(ev *event) error {
	for {
		e.over = false
		if err := e.readLine(); err != nil {
			return err
		}
		switch name, value, _ := bytes.Cut(e.line, []byte(":")); {
		case e.comment:
		case e.over:
		case len(e.line) == 0:
			e.ended()
			return nil
		case string(name) != "data":
			ev.field(string(name), bytes.TrimPrefix(value, []byte(" ")))
		}
	}
}

// ended is called at the blank line after an event.
func (e *eventReader) ended() {
	e.begun, e.grown = false, false
	if cap(e.line) > eventSmall {
		e.line = nil
	}
	if e.partial != nil {
		e.partial(false)
	}
}

// readLine reads one line into e.line. Lines end with CR LF, LF or CR.
func (e *eventReader) readLine() error {
	e.line, e.comment, e.over = e.line[:0], false, false
	for {
		if e.skipLF && e.from < e.to {
			if e.skipLF = false; e.buf[e.from] == '\n' {
				e.from++
			}
		}
		if e.from < e.to {
			if e.lf < e.from {
				e.lf = e.find('\n')
			}
			if e.cr < e.from {
				e.cr = e.find('\r')
			}
			end := min(e.lf, e.cr)
			e.take(e.buf[e.from:end])
			if end < e.to {
				e.skipLF = end == e.cr
				e.from = end + 1
				return nil
			}
		}
		if e.err != nil {
			return e.err
		}
		if e.begun && e.partial != nil {
			e.partial(true)
		}
		var n int
		n, e.err = e.r.Read(e.buf)
		e.from, e.to, e.lf, e.cr = 0, n, -1, -1
	}
}

func (e *eventReader) find(c byte) int {
	if i := bytes.IndexByte(e.buf[e.from:e.to], c); i >= 0 {
		return e.from + i
	}
	return e.to
}

// lineSlack is what the name of a field takes before its value.
const lineSlack = len("data: ")

// take adds to the line.
func (e *eventReader) take(p []byte) {
	if len(p) == 0 || e.comment {
		return
	}
	if len(e.line) == 0 && !e.over && p[0] == ':' {
		e.comment = true
		return
	}
	e.begun = true
	total := len(e.data) + len(e.line) + len(p)
	switch {
	case e.over:
		e.edge(p)
	case total > e.max+lineSlack:
		e.over = true
		e.head, e.tail = e.head[:0], e.tail[:0]
		if len(e.data) > 0 {
			e.edge(e.data)
		}
		e.line = append(e.line, p...)
		if _, value, ok := bytes.Cut(e.line, []byte(":")); ok {
			e.edge(bytes.TrimPrefix(value, []byte(" ")))
		}
		e.data, e.line = nil, nil
	default:
		if total > eventSmall && !e.grown {
			if e.grown = true; e.big != nil {
				e.big()
			}
		}
		e.line = append(e.line, p...)
	}
}

// edge keeps the two ends of an event over the limit, to find its id.
func (e *eventReader) edge(p []byte) {
	if room := lineEdge - len(e.head); room > 0 {
		e.head = append(e.head, p[:min(len(p), room)]...)
	}
	if len(p) >= lineEdge {
		e.tail = append(e.tail[:0], p[len(p)-lineEdge:]...)
		return
	}
	if over := len(e.tail) + len(p) - lineEdge; over > 0 {
		e.tail = append(e.tail[:0], e.tail[over:]...)
	}
	e.tail = append(e.tail, p...)
}
