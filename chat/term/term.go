// Package term shows text frames on a terminal: it reads the SGR sequences of a
// frame into cells, writes only the cells that changed, and keeps everything
// else that a peer might send away from the terminal.
//
// A good order to read: term.go (text to cells), screen.go (cells to a
// terminal).
package term

import (
	"bytes"
	"image/color"
	"unicode/utf8"
)

// A Color is the colour of a character or of what is behind it. The zero value
// is the terminal's default.
type Color uint32

const (
	indexed   Color = 1 << 24 // low byte: 0 to 255
	truecolor Color = 2 << 24 // low three bytes: red, green, blue
)

// Index returns a colour of the 256-colour palette; the first 16 are the
// terminal's own.
func Index(n uint8) Color { return indexed | Color(n) }

// RGB returns a 24-bit colour.
func RGB(r, g, b uint8) Color { return truecolor | Color(r)<<16 | Color(g)<<8 | Color(b) }

// A Cell is one place on a terminal. The zero value is an empty one.
type Cell struct {
	Rune   rune // 0 is a space
	FG, BG Color
}

// A Grid is a picture in cells, row by row.
type Grid struct {
	Cols, Rows int
	Cells      []Cell
}

// Reset makes the grid empty and of the given size.
func (g *Grid) Reset(cols, rows int) {
	g.Cols, g.Rows = cols, rows
	n := cols * rows
	if cap(g.Cells) < n {
		g.Cells = make([]Cell, n)
	}
	g.Cells = g.Cells[:n]
	clear(g.Cells)
}

// Row returns the cells of a row.
func (g *Grid) Row(y int) []Cell { return g.Cells[y*g.Cols : (y+1)*g.Cols] }

// paramsMax bounds the parameters of one sequence.
const paramsMax = 32

// A token is a piece of a frame: a character, a newline, or a sequence.
type token struct {
	text   []byte // the piece
	r      rune   // of a character
	final  byte   // of a control sequence; 0 for anything else
	params [paramsMax]int
	n      int // parameters
}

// next cuts the first token off p. A sequence that is not a control sequence of
// digits and semicolons has final 0 and rune 0: it is dropped.
func next(p []byte, t *token) (rest []byte) {
	*t = token{}
	if p[0] != 0x1b {
		r, size := utf8.DecodeRune(p)
		t.text = p[:size]
		if r == '\n' || r >= 0x20 && (r < 0x7f || r > 0x9f) && r != utf8.RuneError {
			t.r = r
		}
		return p[size:]
	}
	if len(p) < 2 || p[1] != '[' {
		return p[min(2, len(p)):]
	}
	i, v, plain := 2, 0, true
	for ; i < len(p) && (p[i] < 0x40 || p[i] > 0x7e); i++ {
		switch c := p[i]; {
		case c >= '0' && c <= '9':
			v = min(v*10+int(c-'0'), 1<<16)
		case c == ';' && t.n < paramsMax-1:
			t.params[t.n] = v
			t.n++
			v = 0
		default:
			plain = false
		}
		if p[i] < 0x20 { // a control character ends a broken sequence
			return p[i:]
		}
	}
	if i == len(p) {
		return nil
	}
	t.params[t.n] = v
	t.n++
	t.text = p[:i+1]
	if plain {
		t.final = p[i]
	}
	return p[i+1:]
}

// Append appends a frame's text without anything but printable characters,
// newlines, colours (SGR) and repetitions (REP): what a stranger sends must not
// move the cursor, set the title or write to the clipboard.
func Append(dst, frame []byte) []byte {
	var t token
	for len(frame) > 0 {
		frame = next(frame, &t)
		if t.r != 0 || t.final == 'm' || t.final == 'b' {
			dst = append(dst, t.text...)
		}
	}
	return dst
}

// Read fills g, whose size stays, with a frame. What does not fit is cut off.
func Read(g *Grid, frame []byte) {
	clear(g.Cells)
	var t token
	var pen Cell
	x, y := 0, 0
	put := func(r rune) {
		if x < g.Cols && y < g.Rows {
			c := pen
			if c.Rune = r; r == ' ' {
				c.Rune, c.FG = 0, 0
			}
			g.Cells[y*g.Cols+x] = c
		}
		x++
	}
	var last rune
	for len(frame) > 0 {
		frame = next(frame, &t)
		switch {
		case t.r == '\n':
			x, y = 0, y+1
		case t.r != 0:
			put(t.r)
			last = t.r
		case t.final == 'b' && last != 0:
			for range min(max(t.params[0], 1), max(g.Cols-x, 0)) {
				put(last)
			}
		case t.final == 'm':
			pen = sgr(pen, t.params[:t.n])
		}
	}
}

// sgr applies the colours of a sequence; other attributes are ignored.
func sgr(pen Cell, p []int) Cell {
	for i := 0; i < len(p); i++ {
		switch n := p[i]; {
		case n == 0:
			pen = Cell{}
		case n >= 30 && n <= 37:
			pen.FG = Index(uint8(n - 30))
		case n >= 90 && n <= 97:
			pen.FG = Index(uint8(n - 90 + 8))
		case n == 39:
			pen.FG = 0
		case n >= 40 && n <= 47:
			pen.BG = Index(uint8(n - 40))
		case n >= 100 && n <= 107:
			pen.BG = Index(uint8(n - 100 + 8))
		case n == 49:
			pen.BG = 0
		case n == 38 || n == 48:
			var c Color
			switch {
			case i+4 < len(p) && p[i+1] == 2:
				c = RGB(uint8(p[i+2]), uint8(p[i+3]), uint8(p[i+4]))
				i += 4
			case i+2 < len(p) && p[i+1] == 5:
				c = Index(uint8(p[i+2]))
				i += 2
			default:
				return pen
			}
			if n == 38 {
				pen.FG = c
			} else {
				pen.BG = c
			}
		}
	}
	return pen
}

// Size returns the columns and rows that a frame takes, repetitions expanded.
func Size(frame []byte) (cols, rows int) {
	rows = 1 + bytes.Count(frame, []byte{'\n'})
	var t token
	x := 0
	for len(frame) > 0 {
		frame = next(frame, &t)
		switch {
		case t.r == '\n':
			x = 0
		case t.r != 0:
			x++
		case t.final == 'b':
			x += max(t.params[0], 1)
		}
		cols = max(cols, x)
	}
	return cols, rows
}

// RGBA returns the colour as most terminals show it; def stands for the
// default.
func (c Color) RGBA(def color.RGBA) color.RGBA {
	switch {
	case c == 0:
		return def
	case c&truecolor != 0:
		return color.RGBA{uint8(c >> 16), uint8(c >> 8), uint8(c), 0xff}
	}
	n := int(c & 0xff)
	switch {
	case n < 16: // as xterm
		v := uint8(0xcd)
		if n >= 8 {
			v = 0xff
		}
		on := func(bit int) uint8 {
			if n>>bit&1 != 0 {
				return v
			}
			return 0
		}
		switch n {
		case 7:
			return color.RGBA{0xe5, 0xe5, 0xe5, 0xff}
		case 8:
			return color.RGBA{0x7f, 0x7f, 0x7f, 0xff}
		}
		return color.RGBA{on(0), on(1), on(2), 0xff}
	case n < 232:
		level := func(i int) uint8 {
			if i == 0 {
				return 0
			}
			return uint8(55 + 40*i)
		}
		n -= 16
		return color.RGBA{level(n / 36), level(n / 6 % 6), level(n % 6), 0xff}
	}
	v := uint8(8 + 10*(n-232))
	return color.RGBA{v, v, v, 0xff}
}
