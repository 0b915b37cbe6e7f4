package render

// A Picture is RGB24, rows from top to bottom.
type Picture struct {
	Size
	Pix []byte // 3·W·H bytes
}

// sampler maps the pixels of one axis to those of another, nearest neighbour in
// 16.16 fixed point. It keeps its table while the sizes stay.
type sampler struct {
	from, to int
	index    []int32
}

func (s *sampler) set(from, to int) {
	if s.from == from && s.to == to {
		return
	}
	s.from, s.to = from, to
	s.index = s.index[:0]
	ratio := (from<<16)/to + 1
	for i := range to {
		s.index = append(s.index, int32(min(i*ratio>>16, from-1)))
	}
}

// A scaler draws pictures into a rectangle of a canvas.
type scaler struct{ x, y sampler }

// draw scales src to size and puts it with its upper left corner at x, y of the
// canvas. rows says which row of the canvas each row of dst shows: a character
// shows every second one. What lies outside the canvas is clipped.
func (s *scaler) draw(dst []byte, canvasW int, rows []int32, src Picture, x, y int, size Size) {
	s.x.set(src.W, size.W)
	s.y.set(src.H, size.H)
	w := min(size.W, canvasW-x)
	last := int32(-1)
	var prev []byte
	for i, cy := range rows {
		ty := int(cy) - y
		if ty < 0 || ty >= size.H {
			continue
		}
		out := dst[3*(i*canvasW+x):][:3*w]
		sy := s.y.index[ty]
		if sy == last {
			copy(out, prev)
			continue
		}
		sample(out, src.Pix[3*int(sy)*src.W:][:3*src.W], s.x.index[:w])
		last, prev = sy, out
	}
}

// sample picks the pixels of one row.
func sample(out, row []byte, index []int32) {
	for _, sx := range index {
		p := row[3*sx : 3*sx+3 : 3*sx+3]
		out[0], out[1], out[2] = p[0], p[1], p[2]
		out = out[3:]
	}
}
