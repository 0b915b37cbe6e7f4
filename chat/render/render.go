package render

import (
	"bytes"
	"unicode/utf8"

	"github.com/weft-ws/weft/acip"
)

// A Source is a picture in a grid.
type Source struct {
	Picture
	// Version changes whenever the pixels do. Pictures of one version are the
	// same picture and are not scaled again.
	Version uint64
	// ID tells sources apart; a place that another source takes is drawn anew.
	ID uint64
	// Name is written on the tile; empty for none.
	Name string
}

// A Renderer writes pictures for one Look. It keeps what it wrote, and redoes
// the tiles and rows that changed. It allocates nothing once its buffers have
// grown. Not safe for concurrent use.
type Renderer struct {
	look   Look
	glyphs [256]glyph
	dither dither

	layout  []drawn // of the last frame
	sizes   []Size
	tiles   []tile
	scalers []scaler
	rows    []int32 // the canvas row that each pixel row shows
	size    Size    // of pix
	pix     []byte  // pixels as the terminal shows them

	old    []byte // pix of the last frame
	text   []byte // the last frame
	spare  []byte
	starts []span
	spans  []span
	whole  bool // everything is to be written anew
}

// drawn is a tile as it was drawn.
type drawn struct {
	tile
	id, version uint64
	name        string
}

// span is where a row stands in the text, and the state that it began with.
type span struct {
	from, to      int
	before, after state
}

// New returns a Renderer for the Look.
func New(l Look) *Renderer { return &Renderer{look: l, glyphs: l.glyphs()} }

// Look returns what the Renderer writes for.
func (r *Renderer) Look() Look { return r.look }

// Append appends the text of a frame that shows the sources, at most TilesMax
// of them: one fills the terminal as far as its shape allows, several stand in
// a grid. Without sources the text is empty.
func (r *Renderer) Append(dst []byte, sources []Source) []byte {
	if len(sources) == 0 {
		r.layout = r.layout[:0]
		return dst
	}
	sources = sources[:min(len(sources), TilesMax)]
	r.arrange(sources)
	r.draw(sources)
	r.write(sources)
	return append(dst, r.text...)
}

// arrange decides where the sources go.
func (r *Renderer) arrange(sources []Source) {
	t := Size{r.look.Cols, r.look.Rows}
	half := r.look.Mode == acip.HalfBlock
	r.tiles, r.sizes = r.tiles[:0], r.sizes[:0]
	var canvas Size // what the rows of pix are taken from
	size := t
	if len(sources) == 1 {
		f := fit(sources[0].Size, t)
		if half {
			f = fitHalf(sources[0].Size, t)
		}
		size, canvas = f, f
		r.tiles = append(r.tiles, tile{0, 0, f})
	} else {
		canvas = Size{t.W, 2 * t.H}
		if half {
			size.H *= 2
		}
		for _, s := range sources {
			r.sizes = append(r.sizes, s.Size)
		}
		r.tiles = tiles(r.tiles, r.sizes, t)
	}
	if r.size != size || len(r.rows) != size.H || len(r.layout) != len(sources) {
		r.forget(size, canvas.H)
	}
	for i := range r.layout {
		if r.layout[i].tile != r.tiles[i] {
			r.forget(size, canvas.H)
			break
		}
	}
}

// forget begins with an empty, black canvas.
func (r *Renderer) forget(size Size, canvasH int) {
	r.size, r.layout, r.whole = size, r.layout[:0], true
	n := 3 * size.W * size.H
	if cap(r.pix) < n {
		r.pix, r.old = make([]byte, n), make([]byte, n)
	}
	r.pix, r.old = r.pix[:n], r.old[:n]
	clear(r.pix)
	var s sampler
	s.index = r.rows
	s.set(canvasH, size.H)
	r.rows = s.index
}

// draw scales the sources that are new or have changed.
func (r *Renderer) draw(sources []Source) {
	for len(r.scalers) < len(sources) {
		r.scalers = append(r.scalers, scaler{})
	}
	for i, s := range sources {
		d := drawn{r.tiles[i], s.ID, s.Version, s.Name}
		if i < len(r.layout) {
			if r.layout[i].name != s.Name {
				r.whole = true
			}
			if r.layout[i] == d {
				continue
			}
			r.layout[i] = d
		} else {
			r.layout = append(r.layout, d)
		}
		r.scalers[i].draw(r.pix, r.size.W, r.rows, s.Picture, d.x, d.y, d.size)
	}
}

// write makes text of the pixels, row by row, and takes over the rows that are
// as they were.
func (r *Renderer) write(sources []Source) {
	step := 1
	if r.look.Mode == acip.HalfBlock {
		step = 2
	}
	stride := 3 * r.size.W
	rows := (r.size.H + step - 1) / step
	carries := r.look.Level == acip.Color16 && step == 1 // errors go from row to row
	if carries {
		r.dither.start(r.size.W)
	}
	left, above := 0, 0
	if r.look.Padding {
		left, above = (r.look.Cols-r.size.W)/2, (r.look.Rows-rows)/2
	}
	dst := r.spare[:0]
	r.spans = r.spans[:0]
	for range above {
		dst = append(dst, '\n')
	}
	var st state
	dirty := r.whole
	for y := range rows {
		if y > 0 {
			dst = append(dst, '\n')
		}
		top := r.pix[y*step*stride:][:stride]
		bottom := top // an odd last row of pixels stands for both
		if n := (y*step + 1) * stride; step == 2 && n < len(r.pix) {
			bottom = r.pix[n:][:stride]
		}
		s := span{from: len(dst), before: st}
		same := !dirty && r.starts[y].before == st &&
			bytes.Equal(top, r.old[y*step*stride:][:stride]) &&
			(step == 1 || y*step+1 >= r.size.H || bytes.Equal(bottom, r.old[(y*step+1)*stride:][:stride]))
		if same && carries {
			// The rows above are the same, so the errors that come from them are.
			dst = append(dst, r.text[r.starts[y].from:r.starts[y].to]...)
		} else if same {
			dst = append(dst, r.text[r.starts[y].from:r.starts[y].to]...)
			st = r.starts[y].after
		} else {
			if carries && !dirty {
				// The errors of the rows that were taken over are needed now.
				r.replay(y)
				dirty = true
			}
			for range left {
				dst = append(dst, ' ')
			}
			if carries {
				r.dither.next()
			}
			dst = r.labelled(dst, &st, y, step, top, bottom, sources)
		}
		s.to, s.after = len(dst), st
		r.spans = append(r.spans, s)
	}
	if step == 1 && r.look.Level == acip.TrueColor && r.look.Mode == acip.Foreground {
		dst = append(dst, reset...)
	}
	r.spare, r.text = r.text, dst
	r.starts, r.spans = r.spans, r.starts
	copy(r.old, r.pix)
	r.whole = false
}

// replay runs the error diffusion over the rows above y.
func (r *Renderer) replay(y int) {
	for i := range y {
		p := r.pix[i*3*r.size.W:][:3*r.size.W]
		r.dither.next()
		for x := 0; len(p) >= 3; x, p = x+1, p[3:] {
			r.dither.pixel(x, p[0], p[1], p[2])
		}
	}
}

// labelled writes a row with the names that stand in it: white on black, at the
// lower left of each tile.
func (r *Renderer) labelled(dst []byte, st *state, y, step int, top, bottom []byte, sources []Source) []byte {
	from := 0
	for i := range sources {
		name := sources[i].Name
		if name == "" || r.labelRow(i, step) != y {
			continue
		}
		at := r.tiles[i].x
		cols := min(r.tiles[i].size.W, r.size.W-at)
		if cols < 3 || at < from {
			continue
		}
		if at > from {
			dst = r.row(dst, st, from, top[3*from:3*at], bottom[3*from:3*at])
		}
		var n int
		dst, n = r.appendName(dst, name, cols)
		*st = state{}
		from = at + n
	}
	if 3*from >= len(top) && from > 0 {
		return dst
	}
	return r.row(dst, st, from, top[3*from:], bottom[3*from:])
}

// labelRow is the row of characters in which the name of tile i stands.
func (r *Renderer) labelRow(i, step int) int {
	last := r.tiles[i].y + r.tiles[i].size.H - 1 // in rows of the canvas
	for row := len(r.rows) - 1; row > 0; row-- {
		if int(r.rows[row]) <= last {
			return row / step
		}
	}
	return 0
}

// appendName writes as much of a name as fits in cols columns and returns how
// many it took.
func (r *Renderer) appendName(dst []byte, name string, cols int) ([]byte, int) {
	if r.look.Level != acip.Mono {
		dst = append(dst, "\x1b[0;97;40m"...)
	}
	n := 0
	for _, c := range name {
		if n == cols-1 && n > 0 && utf8.RuneCountInString(name) > cols {
			dst = append(dst, '.')
			n++
			break
		}
		if n == cols {
			break
		}
		if c < 0x20 || c > 0x24f {
			c = '?' // what may be wider than a column would move the row
		}
		dst = utf8.AppendRune(dst, c)
		n++
	}
	if r.look.Level != acip.Mono {
		dst = append(dst, reset...)
	}
	return dst, n
}
