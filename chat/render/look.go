// Package render turns pictures into text for terminals: it fits, resizes,
// chooses characters and colours, and puts several pictures into a grid.
//
// A good order to read: look.go (what a terminal wants), layout.go (where the
// pictures go), resize.go (pixels to pixels), text.go (pixels to text),
// render.go (all of it, and only for what changed).
package render

import (
	"unicode/utf8"

	"github.com/weft-ws/weft/acip"
)

// A Look is everything that decides how a terminal's picture is written. Equal
// Looks get equal text, so one rendering serves all terminals that share one.
type Look struct {
	Cols, Rows int
	Level      acip.ColorLevel
	Mode       acip.RenderMode
	Palette    acip.Palette
	Custom     string // characters of PaletteCustom, dark to bright
	Padding    bool   // centre the picture
}

// LookOf returns the Look that a client asked for.
func LookOf(c *acip.Capabilities) Look {
	l := Look{Cols: c.Width, Rows: c.Height, Level: c.Level, Mode: c.Mode, Palette: c.Palette, Padding: c.Padding}
	if l.Palette == acip.PaletteCustom {
		l.Custom = c.CustomPalette
	}
	return l
}

// characters returns the palette, dark to bright.
func (l *Look) characters() string {
	switch l.Palette {
	case acip.PaletteBlocks:
		return "   ░░▒▒▓▓██"
	case acip.PaletteDigital:
		return "   -=≡≣▰▱◼"
	case acip.PaletteMinimal:
		return "   .-+*#"
	case acip.PaletteCool:
		return "   ▁▂▃▄▅▆▇█"
	case acip.PaletteCustom:
		if l.Custom != "" {
			return l.Custom
		}
	}
	return "   ...',;:clodxkO0KXNWM"
}

// A glyph is a palette character as bytes.
type glyph struct {
	b [utf8.UTFMax]byte
	n uint8
}

func (g *glyph) bytes() []byte { return g.b[:g.n] }

// glyphs returns the character for each luminance.
func (l *Look) glyphs() (table [256]glyph) {
	chars := []rune(l.characters())
	n := len(chars)
	for y := range table {
		i := (y*(n-1) + 127) / 255
		if l.Mode != acip.HalfBlock && l.Level <= acip.Color16 {
			// What the C server means for few colours. It then uses the result as
			// an index once more, which leaves 16 colours blank.
			i = ((y>>2)*(n-1) + 31) / 63
		}
		g := &table[y]
		g.n = uint8(utf8.EncodeRune(g.b[:], chars[i]))
	}
	return table
}

// luminance of a pixel, 0 to 255.
func luminance(r, g, b byte) byte {
	return byte((77*uint32(r) + 150*uint32(g) + 29*uint32(b) + 128) >> 8)
}
