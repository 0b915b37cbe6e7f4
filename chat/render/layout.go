package render

import "math"

const (
	// TilesMax is how many pictures a grid shows; more are left out, as the C
	// server does.
	TilesMax = 9
	// Cells of a grid are at least this large, in characters.
	tileColsMin, tileRowsMin = 20, 10
)

// A Size is a width and a height.
type Size struct{ W, H int }

// fit returns the size in characters of a picture of p pixels on a terminal of
// t characters. A character is twice as high as it is wide.
func fit(p, t Size) Size {
	w := int(math.Round(float64(t.H) * float64(p.W) / float64(p.H) * 2))
	if w <= t.W {
		return Size{max(w, 1), t.H}
	}
	h := int(math.Round(float64(t.W) / 2 * float64(p.H) / float64(p.W)))
	return Size{t.W, min(max(h, 1), t.H)}
}

// fitHalf is fit in half-blocks, which are square: the result is in pixels, and
// two rows of them make a row of characters. The C server doubles the height
// once too often, so that the picture does not fit the terminal.
func fitHalf(p, t Size) Size {
	w := int(math.Round(2 * float64(t.H) * float64(p.W) / float64(p.H)))
	if w <= t.W {
		return Size{max(w, 1), 2 * t.H}
	}
	h := int(math.Round(float64(t.W) * float64(p.H) / float64(p.W)))
	return Size{t.W, min(max(h, 1), 2*t.H)}
}

// fitCell returns the size of a picture in a cell, both in square pixels.
func fitCell(p, cell Size) Size {
	s := float64(p.W) / float64(p.H)
	if s > float64(cell.W)/float64(cell.H) {
		return Size{cell.W, min(max(int(math.Floor(float64(cell.W)/s+0.5)), 1), cell.H)}
	}
	return Size{min(max(int(math.Floor(float64(cell.H)*s+0.5)), 1), cell.W), cell.H}
}

// columns returns how many columns the grid of n pictures has on a terminal of
// t characters: the arrangement whose cells the pictures fill best. aspect is
// the mean of width over height.
func columns(n int, aspect float64, t Size) int {
	best, most := 1, 0.0
	for cols := 1; cols <= n; cols++ {
		rows := (n + cols - 1) / cols
		if cols*rows-n > cols {
			continue
		}
		cw, ch := t.W/cols, t.H/rows
		if cw < tileColsMin || ch < tileRowsMin {
			continue
		}
		w, h := int(2*float64(ch)*aspect), ch
		if aspect > float64(cw)/float64(2*ch) {
			w, h = cw, int(float64(cw)/aspect/2)
		}
		used := float64(min(w, cw)*min(h, ch)) / float64(cw*ch)
		if used > most {
			best, most = cols, used
		}
	}
	return best
}

// A tile is where one picture goes: a rectangle of the canvas.
type tile struct {
	x, y int // of the upper left pixel
	size Size
}

// tiles lays out the pictures on a canvas of t.W times 2·t.H square pixels.
func tiles(dst []tile, pics []Size, t Size) []tile {
	var aspect float64
	for _, p := range pics {
		aspect += float64(p.W) / float64(p.H)
	}
	cols := columns(len(pics), aspect/float64(len(pics)), t)
	rows := (len(pics) + cols - 1) / cols
	cell := Size{max(t.W/cols, 1), max(2*t.H/rows, 1)}
	for i, p := range pics {
		f := fitCell(p, cell)
		dst = append(dst, tile{i%cols*cell.W + (cell.W-f.W)/2, i/cols*cell.H + (cell.H-f.H)/2, f})
	}
	return dst
}
