package term

import (
	"io"
	"strconv"
	"sync"
	"unicode/utf8"
)

// A Screen is a terminal in full-screen mode: it shows a picture and a status
// line below it, and writes only what changed since the last time. Safe for
// concurrent use.
type Screen struct {
	mu     sync.Mutex
	w      io.Writer
	shown  Grid // what the terminal has
	want   Grid
	buf    []byte
	all    bool // the terminal's content is not known
	open   bool
	status string
}

// NewScreen returns a Screen on the terminal behind w. Open it first.
func NewScreen(w io.Writer, cols, rows int) *Screen {
	s := &Screen{w: w}
	s.resize(cols, rows)
	return s
}

const (
	// enter: alternate screen, no cursor, no wrapping at the right edge, clear.
	enter = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
	// leave undoes it. It is written even if it was written before, so that no
	// order of events leaves a terminal that cannot be used.
	leave = "\x1b[?2026l\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"
	// Synchronised output: the terminal shows a frame at once. Terminals that do
	// not know the mode ignore it.
	syncBegin = "\x1b[?2026h"
	syncEnd   = "\x1b[?2026l"
)

// Open switches to the alternate screen.
func (s *Screen) Open() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open, s.all = true, true
	_, err := io.WriteString(s.w, enter)
	return err
}

// Close restores the terminal. It may be called more than once, from a signal
// handler's goroutine and from a deferred function after a panic.
func (s *Screen) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.open {
		return nil
	}
	s.open = false
	_, err := io.WriteString(s.w, leave)
	return err
}

// Resize tells that the terminal has another size; its content is lost.
func (s *Screen) Resize(cols, rows int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resize(cols, rows)
}

func (s *Screen) resize(cols, rows int) {
	cols, rows = max(cols, 1), max(rows, 1)
	s.shown.Reset(cols, rows)
	s.want.Reset(cols, rows)
	s.all = true
}

// Clear forgets the picture.
func (s *Screen) Clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.want.Cells)
}

// Show puts a frame on the screen, above the status line.
func (s *Screen) Show(frame []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	picture := Grid{s.want.Cols, s.want.Rows - 1, s.want.Cells[:s.want.Cols*(s.want.Rows-1)]}
	Read(&picture, frame)
	return s.flush()
}

// Status replaces the last line.
func (s *Screen) Status(line string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = line
	return s.flush()
}

// flush writes what differs. Nothing is written while the screen is closed.
func (s *Screen) flush() error {
	if !s.open {
		return nil
	}
	row := s.want.Row(s.want.Rows - 1)
	clear(row)
	x := 0
	for _, r := range s.status {
		if x == len(row) {
			break
		}
		if r < 0x20 || r >= 0x7f && r < 0xa0 {
			r = utf8.RuneError
		}
		row[x] = Cell{Rune: r, FG: Index(15), BG: Index(8)}
		x++
	}
	for ; x < len(row); x++ {
		row[x] = Cell{BG: Index(8)}
	}
	b := s.diff(s.buf[:0])
	s.buf = b
	if len(b) == 0 {
		return nil
	}
	_, err := s.w.Write(b)
	return err
}

// gapMax is how many unchanged cells in one row are written again rather than
// jumped over: a jump takes about as many bytes.
const gapMax = 4

// diff appends what turns the shown grid into the wanted one.
func (s *Screen) diff(b []byte) []byte {
	b = append(b, syncBegin...)
	start := len(b)
	if s.all {
		b = append(b, "\x1b[0m\x1b[2J"...)
		clear(s.shown.Cells)
		s.all = false
	}
	var pen Cell
	fresh := true // the pen of the terminal is not known
	for y := range s.want.Rows {
		want, shown := s.want.Row(y), s.shown.Row(y)
		at := -1 // where the cursor is, if it is in this row
		for x := 0; x < len(want); x++ {
			if want[x] == shown[x] {
				continue
			}
			if at < 0 || x-at > gapMax {
				b = append(b, 0x1b, '[')
				b = strconv.AppendInt(b, int64(y+1), 10)
				b = append(b, ';')
				b = strconv.AppendInt(b, int64(x+1), 10)
				b = append(b, 'H')
				at = x
			}
			for ; at <= x; at++ {
				c := want[at]
				if fresh {
					b = append(b, "\x1b[0m"...)
					pen, fresh = Cell{}, false
				}
				if c.FG != pen.FG && c.Rune != 0 {
					b = appendColor(b, '3', '9', c.FG)
					pen.FG = c.FG
				}
				if c.BG != pen.BG {
					b = appendColor(b, '4', '9', c.BG)
					pen.BG = c.BG
				}
				if c.Rune == 0 {
					b = append(b, ' ')
				} else {
					b = utf8.AppendRune(b, c.Rune)
				}
			}
		}
	}
	copy(s.shown.Cells, s.want.Cells)
	if len(b) == start {
		return b[:0]
	}
	return append(b, syncEnd...)
}

// appendColor writes a colour; layer is '3' for characters and '4' for what is
// behind them.
func appendColor(b []byte, layer, def byte, c Color) []byte {
	b = append(b, 0x1b, '[', layer)
	switch {
	case c == 0:
		b = append(b, def)
	case c&truecolor != 0:
		b = append(b, "8;2;"...)
		b = strconv.AppendUint(b, uint64(c>>16&0xff), 10)
		b = append(b, ';')
		b = strconv.AppendUint(b, uint64(c>>8&0xff), 10)
		b = append(b, ';')
		b = strconv.AppendUint(b, uint64(c&0xff), 10)
	default:
		b = append(b, "8;5;"...)
		b = strconv.AppendUint(b, uint64(c&0xff), 10)
	}
	return append(b, 'm')
}
