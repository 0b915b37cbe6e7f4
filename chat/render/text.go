package render

import (
	"strconv"

	"github.com/weft-ws/weft/acip"
)

// decimal is each byte value in digits.
var decimal = func() (t [256]glyph) {
	for i := range t {
		t[i].n = uint8(len(strconv.AppendInt(t[i].b[:0], int64(i), 10)))
	}
	return t
}()

// reset switches all attributes off.
const reset = "\x1b[0m"

// ansi16 are the sixteen colours in the order of their codes.
var ansi16 = [16][3]int32{
	{0, 0, 0}, {128, 0, 0}, {0, 128, 0}, {128, 128, 0}, {0, 0, 128}, {128, 0, 128}, {0, 128, 128}, {192, 192, 192},
	{128, 128, 128}, {255, 0, 0}, {0, 255, 0}, {255, 255, 0}, {0, 0, 255}, {255, 0, 255}, {0, 255, 255}, {255, 255, 255},
}

// nearest16 returns the nearest of the sixteen colours; the lowest wins.
func nearest16(r, g, b int32) (best uint8) {
	least := int32(1 << 30)
	for i := range ansi16 {
		c := &ansi16[i]
		dr, dg, db := r-c[0], g-c[1], b-c[2]
		if d := dr*dr + dg*dg + db*db; d < least {
			best, least = uint8(i), d
		}
	}
	return best
}

// index256 returns the colour of the 256-colour palette: the grey ramp for
// what is nearly grey, else the 6×6×6 cube.
func index256(r, g, b byte) uint8 {
	R, G, B := int(r), int(g), int(b)
	avg := (R + G + B) / 3
	if abs(R-avg)+abs(G-avg)+abs(B-avg) < 30 {
		return uint8(232 + avg*23/255)
	}
	return uint8(16 + 36*(5*R/255) + 6*(5*G/255) + 5*B/255)
}

func abs(n int) int {
	if n < 0 {
		return -n
	}
	return n
}

// layer is foreground (38, 30, 90) or background (48, 40, 100).
type layer uint8

const (
	fg layer = '3'
	bg layer = '4'
)

func appendRGB(dst []byte, l layer, r, g, b byte) []byte {
	dst = append(dst, 0x1b, '[', byte(l), '8', ';', '2', ';')
	dst = append(dst, decimal[r].bytes()...)
	dst = append(dst, ';')
	dst = append(dst, decimal[g].bytes()...)
	dst = append(dst, ';')
	dst = append(dst, decimal[b].bytes()...)
	return append(dst, 'm')
}

func append256(dst []byte, l layer, n uint8) []byte {
	dst = append(dst, 0x1b, '[', byte(l), '8', ';', '5', ';')
	dst = append(dst, decimal[n].bytes()...)
	return append(dst, 'm')
}

func append16(dst []byte, l layer, n uint8) []byte {
	if n < 8 {
		return append(dst, 0x1b, '[', byte(l), '0'+n, 'm')
	}
	if l == fg {
		return append(dst, 0x1b, '[', '9', '0'+n-8, 'm')
	}
	return append(dst, 0x1b, '[', '1', '0', '0'+n-8, 'm')
}

// appendRun writes a run of n equal cells, with REP where that is shorter.
func appendRun(dst, g []byte, n int) []byte {
	dst = append(dst, g...)
	n--
	if n > 1 && n > digits(n)+3 {
		dst = append(dst, 0x1b, '[')
		dst = strconv.AppendInt(dst, int64(n), 10)
		return append(dst, 'b')
	}
	for ; n > 0; n-- {
		dst = append(dst, g...)
	}
	return dst
}

func digits(n int) (d int) {
	for ; n > 0; n /= 10 {
		d++
	}
	return d
}

// state is what one row leaves behind for the next: colours as 1<<24 | R<<16 |
// G<<8 | B, or 0 for none. Only truecolor text keeps them over the end of a row.
type state struct {
	now  uint32 // the foreground that the terminal has
	last uint32 // the one last written before an ASCII character
}

// row writes one row of characters, or the part of it that begins at column x.
// For half-blocks top and bottom are the two rows of pixels, else both are the
// same.
func (r *Renderer) row(dst []byte, st *state, x int, top, bottom []byte) []byte {
	switch {
	case r.look.Mode == acip.HalfBlock && r.look.Level == acip.Mono:
		return r.shades(dst, top, bottom)
	case r.look.Mode == acip.HalfBlock:
		return r.halves(dst, top, bottom)
	case r.look.Level == acip.Mono:
		return r.plain(dst, top)
	case r.look.Level == acip.Color16:
		return r.sixteen(dst, x, top)
	case r.look.Mode == acip.Background:
		return r.grounds(dst, top)
	case r.look.Level == acip.Color256:
		return r.cube(dst, top)
	}
	return r.truecolor(dst, st, top)
}

// truecolor is 24-bit foreground: a colour only where it changes, but before
// every character that is not ASCII, and no reset at the end of a row.
//
// The C server does not count the colours that it writes before characters that
// are not ASCII, so an ASCII character after one may get the wrong colour. Of a
// space nobody sees that, and there its text is followed to the byte.
func (r *Renderer) truecolor(dst []byte, st *state, p []byte) []byte {
	last, now := st.last, st.now
	for ; len(p) >= 3; p = p[3:] {
		R, G, B := p[0], p[1], p[2]
		g := &r.glyphs[luminance(R, G, B)]
		rgb := 1<<24 | uint32(R)<<16 | uint32(G)<<8 | uint32(B)
		if g.n > 1 {
			dst = appendRGB(dst, fg, R, G, B)
			dst = append(dst, g.b[:g.n]...)
			now = rgb
			continue
		}
		if rgb != last || rgb != now && g.b[0] != ' ' {
			dst = appendRGB(dst, fg, R, G, B)
			last, now = rgb, rgb
		}
		dst = append(dst, g.b[0])
	}
	st.last, st.now = last, now
	return dst
}

// cube is 256-colour foreground.
func (r *Renderer) cube(dst, p []byte) []byte {
	for ; len(p) >= 3; p = p[3:] {
		dst = append256(dst, fg, index256(p[0], p[1], p[2]))
		dst = append(dst, r.glyphs[luminance(p[0], p[1], p[2])].bytes()...)
	}
	return append(dst, reset...)
}

// grounds is 24-bit or 256-colour background: the character stands in black or
// white on the colour. The C server writes sixteen colours for the one and the
// foreground for the other.
func (r *Renderer) grounds(dst, p []byte) []byte {
	last, ink := uint32(1<<31), byte(0)
	for ; len(p) >= 3; p = p[3:] {
		R, G, B := p[0], p[1], p[2]
		n := uint32(R)<<16 | uint32(G)<<8 | uint32(B)
		if r.look.Level == acip.Color256 {
			n = uint32(index256(R, G, B))
		}
		if n != last {
			if r.look.Level == acip.Color256 {
				dst = append256(dst, bg, uint8(n))
			} else {
				dst = appendRGB(dst, bg, R, G, B)
			}
			last = n
		}
		dst, ink = appendInk(dst, ink, (77*int(R)+150*int(G)+29*int(B))/256)
		dst = append(dst, r.glyphs[luminance(R, G, B)].bytes()...)
	}
	return append(dst, reset...)
}

// appendInk writes white on dark and black on bright, if it is not the ink in
// use already.
func appendInk(dst []byte, last byte, y int) ([]byte, byte) {
	ink := byte('3') // black
	if y < 127 {
		ink = '9' // white
	}
	if ink == last {
		return dst, ink
	}
	if ink == '9' {
		return append(dst, "\x1b[97m"...), ink
	}
	return append(dst, "\x1b[30m"...), ink
}

// sixteen is 16-colour foreground or background with error diffusion.
func (r *Renderer) sixteen(dst []byte, x int, p []byte) []byte {
	for ; len(p) >= 3; x, p = x+1, p[3:] {
		c := r.dither.pixel(x, p[0], p[1], p[2])
		if r.look.Mode == acip.Background {
			dst = append16(dst, bg, c)
			v := &ansi16[c]
			dst, _ = appendInk(dst, 0, int(77*v[0]+150*v[1]+29*v[2])/256)
		} else {
			dst = append16(dst, fg, c)
		}
		dst = append(dst, r.glyphs[luminance(p[0], p[1], p[2])].bytes()...)
	}
	return append(dst, reset...)
}

// dither diffuses the error of sixteen colours after Floyd and Steinberg.
type dither struct {
	cur, below [][3]int32 // errors of this row and the next, one cell of margin on both sides
}

// start forgets all errors and sets the width.
func (d *dither) start(w int) {
	if len(d.cur) != w+2 {
		d.cur, d.below = make([][3]int32, w+2), make([][3]int32, w+2)
	}
	clear(d.cur)
	clear(d.below)
}

// next begins a row.
func (d *dither) next() {
	d.cur, d.below = d.below, d.cur
	clear(d.below)
}

func (d *dither) pixel(x int, r, g, b byte) uint8 {
	v := [3]int32{int32(r), int32(g), int32(b)}
	var c [3]int32
	for i := range v {
		v[i] += d.cur[x+1][i]
		c[i] = min(max(v[i], 0), 255)
	}
	n := nearest16(c[0], c[1], c[2])
	for i := range v {
		e := v[i] - ansi16[n][i]
		d.cur[x+2][i] += e * 7 / 16
		d.below[x][i] += e * 3 / 16
		d.below[x+1][i] += e * 5 / 16
		d.below[x+2][i] += e * 1 / 16
	}
	return n
}

// plain is characters without colour.
func (r *Renderer) plain(dst, p []byte) []byte {
	for len(p) >= 3 {
		g := r.glyphs[luminance(p[0], p[1], p[2])]
		n := 0
		for ; len(p) >= 3 && r.glyphs[luminance(p[0], p[1], p[2])] == g; p = p[3:] {
			n++
		}
		dst = appendRun(dst, g.bytes(), n)
	}
	return dst
}

const halfBlock = "▀"

// halves writes two rows of pixels as one row of half-blocks.
func (r *Renderer) halves(dst, top, bottom []byte) []byte {
	lastTop, lastBottom := uint32(1<<31), uint32(1<<31)
	colored := false
	for len(top) >= 3 {
		t, b := r.color(top), r.color(bottom)
		black := top[0]|top[1]|top[2]|bottom[0]|bottom[1]|bottom[2] == 0
		n := 0
		for ; len(top) >= 3 && r.color(top) == t && r.color(bottom) == b &&
			(top[0]|top[1]|top[2]|bottom[0]|bottom[1]|bottom[2] == 0) == black; top, bottom = top[3:], bottom[3:] {
			n++
		}
		if black {
			if colored {
				dst = append(dst, reset...)
				colored = false
				lastTop, lastBottom = 1<<31, 1<<31
			}
			dst = appendRun(dst, []byte{' '}, n)
			continue
		}
		if t != lastTop {
			dst = r.appendColor(dst, fg, t)
			lastTop = t
		}
		if b != lastBottom {
			dst = r.appendColor(dst, bg, b)
			lastBottom = b
		}
		colored = true
		dst = appendRun(dst, []byte(halfBlock), n)
	}
	return append(dst, reset...)
}

// color returns the pixel in the colours of the terminal.
func (r *Renderer) color(p []byte) uint32 {
	switch r.look.Level {
	case acip.Color16:
		return uint32(nearest16(int32(p[0]), int32(p[1]), int32(p[2])))
	case acip.Color256:
		return uint32(index256(p[0], p[1], p[2]))
	}
	return uint32(p[0])<<16 | uint32(p[1])<<8 | uint32(p[2])
}

func (r *Renderer) appendColor(dst []byte, l layer, c uint32) []byte {
	switch r.look.Level {
	case acip.Color16:
		return append16(dst, l, uint8(c))
	case acip.Color256:
		return append256(dst, l, uint8(c))
	}
	return appendRGB(dst, l, byte(c>>16), byte(c>>8), byte(c))
}

var shadeBlocks = [4]string{"░", "▒", "▓", "█"}

// shades is half-blocks without colour: the mean of both pixels as one of four
// shades. The C server looks at the upper pixel only.
func (r *Renderer) shades(dst, top, bottom []byte) []byte {
	for len(top) >= 3 {
		s := shade(top, bottom)
		n := 0
		for ; len(top) >= 3 && shade(top, bottom) == s; top, bottom = top[3:], bottom[3:] {
			n++
		}
		if s < 0 {
			dst = appendRun(dst, []byte{' '}, n)
		} else {
			dst = appendRun(dst, []byte(shadeBlocks[s]), n)
		}
	}
	return dst
}

func shade(top, bottom []byte) int {
	y := func(p []byte) int { return (76*int(p[0]) + 150*int(p[1]) + 29*int(p[2])) >> 8 }
	a, b := y(top), y(bottom)
	if a < 16 && b < 16 {
		return -1
	}
	return (a + b) / 2 >> 6
}
