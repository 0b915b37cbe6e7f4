// Command termshot draws captured terminal text as a PNG picture, for the
// documentation:
//
//	tmux capture-pane -e -p | go run ./internal/termshot -cols 80 -rows 24 -o screen.png -
//
// Each argument is a file, or - for standard input, with an optional place:
// FILE@X,Y,COLSxROWS puts it into a part of the picture, as panes stand on a
// screen. A file whose name ends in .payload.bin is the payload of an
// ASCII_FRAME.
package main

import (
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"io"
	"os"
	"strings"

	"golang.org/x/image/font"
	"golang.org/x/image/font/gofont/gomono"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/math/fixed"

	"github.com/weft-ws/weft/acip"
	"github.com/weft-ws/weft/chat/term"
)

func main() {
	cols := flag.Int("cols", 80, "columns of the picture")
	rows := flag.Int("rows", 24, "rows of the picture")
	size := flag.Int("cell", 8, "width of a cell in pixels; it is twice as high")
	out := flag.String("o", "", "PNG `file` to write")
	flag.Parse()
	if err := run(*cols, *rows, *size, *out, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "termshot:", err)
		os.Exit(2)
	}
}

func run(cols, rows, size int, out string, panes []string) error {
	var screen term.Grid
	screen.Reset(cols, rows)
	for i := range screen.Cells { // what no pane covers is a border
		screen.Cells[i].BG = term.RGB(0x44, 0x4c, 0x56)
	}
	for _, p := range panes {
		name, place, _ := strings.Cut(p, "@")
		x, y, w, h := 0, 0, cols, rows
		if place != "" {
			if _, err := fmt.Sscanf(place, "%d,%d,%dx%d", &x, &y, &w, &h); err != nil {
				return fmt.Errorf("%s: the place is not X,Y,COLSxROWS", p)
			}
		}
		if x < 0 || y < 0 || w < 1 || h < 1 || x+w > cols || y+h > rows {
			return fmt.Errorf("%s does not fit in %d×%d", p, cols, rows)
		}
		b, err := read(name)
		if err != nil {
			return err
		}
		var g term.Grid
		g.Reset(w, h)
		term.Read(&g, b)
		for i := range h {
			copy(screen.Row(y + i)[x:], g.Row(i))
		}
	}
	img, err := paint(&screen, size)
	if err != nil {
		return err
	}
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	enc := png.Encoder{CompressionLevel: png.BestCompression}
	if err := enc.Encode(f, img); err != nil {
		return err
	}
	return f.Close()
}

func read(name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(os.Stdin)
	}
	b, err := os.ReadFile(name)
	if err == nil && strings.HasSuffix(name, ".payload.bin") {
		f, err := acip.ParseASCIIFrame(b)
		return f.Text, err
	}
	return b, err
}

// paint draws the grid. Blocks and shades are drawn as areas, so that they
// meet; the rest comes from a font.
func paint(g *term.Grid, w int) (image.Image, error) {
	h := 2 * w
	f, err := opentype.Parse(gomono.TTF)
	if err != nil {
		return nil, err
	}
	face, err := opentype.NewFace(f, &opentype.FaceOptions{Size: float64(w) / 0.6, DPI: 72, Hinting: font.HintingFull})
	if err != nil {
		return nil, err
	}
	img := image.NewRGBA(image.Rect(0, 0, g.Cols*w, g.Rows*h))
	for y := range g.Rows {
		for x, c := range g.Row(y) {
			box := image.Rect(x*w, y*h, (x+1)*w, (y+1)*h)
			fg, bg := c.FG.RGBA(color.RGBA{0xd0, 0xd7, 0xde, 0xff}), c.BG.RGBA(color.RGBA{0x0d, 0x11, 0x17, 0xff})
			fill(img, box, bg)
			if part, ok := block(c.Rune, box); ok {
				fill(img, part, fg)
				continue
			}
			if k := strings.IndexRune("░▒▓", c.Rune); c.Rune != 0 && k >= 0 {
				fill(img, box, blend(bg, fg, k/len("░")+1))
				continue
			}
			if c.Rune != 0 {
				d := font.Drawer{Dst: img, Src: image.NewUniform(fg), Face: face, Dot: fixed.P(x*w, (y+1)*h-h/4)}
				d.DrawString(string(c.Rune))
			}
		}
	}
	return img, nil
}

func fill(img draw.Image, r image.Rectangle, c color.Color) {
	draw.Draw(img, r, image.NewUniform(c), image.Point{}, draw.Src)
}

// block returns the area of a block character.
func block(r rune, box image.Rectangle) (image.Rectangle, bool) {
	switch {
	case r == '▀':
		box.Max.Y -= box.Dy() / 2
	case r >= '▁' && r <= '█':
		box.Min.Y = box.Max.Y - box.Dy()*int(r-'▁'+1)/8
	case r == '▰' || r == '◼':
		box = box.Inset(1)
	default:
		return box, false
	}
	return box, true
}

// blend mixes quarters of b into a.
func blend(a, b color.RGBA, quarters int) color.RGBA {
	mix := func(x, y uint8) uint8 { return uint8((int(x)*(4-quarters) + int(y)*quarters) / 4) }
	return color.RGBA{mix(a.R, b.R), mix(a.G, b.G), mix(a.B, b.B), 0xff}
}
