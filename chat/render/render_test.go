package render

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/weft-ws/weft/acip"
)

// picture is the image of all golden frames, 320×240.
func picture(t testing.TB) Picture {
	t.Helper()
	b, err := os.ReadFile("testdata/image_frame_320x240.payload.bin")
	if err != nil {
		t.Fatal(err)
	}
	f, err := acip.ParseImageFrame(b)
	if err != nil {
		t.Fatal(err)
	}
	return Picture{Size{f.Width, f.Height}, f.Pixels}
}

// golden returns the text that the C server made.
func golden(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/ascii_" + name + ".payload.bin")
	if err != nil {
		t.Fatal(err)
	}
	f, err := acip.ParseASCIIFrame(b)
	if err != nil {
		t.Fatal(err)
	}
	return f.Text
}

func sources(p Picture, n int) (list []Source) {
	for i := range n {
		list = append(list, Source{Picture: p, Version: 1, ID: uint64(i)})
	}
	return list
}

var rightFrames = []struct {
	name string
	look Look
	n    int
}{
	{"l3_r0_80x24", Look{Cols: 80, Rows: 24, Level: 3, Palette: 1}, 1},
	{"l3_r0_80x24_pal2", Look{Cols: 80, Rows: 24, Level: 3, Palette: 2}, 1},
	{"l3_r0_80x24_pal3", Look{Cols: 80, Rows: 24, Level: 3, Palette: 3}, 1},
	{"l3_r0_80x24_pal4", Look{Cols: 80, Rows: 24, Level: 3, Palette: 4}, 1},
	{"l3_r0_80x24_pal5", Look{Cols: 80, Rows: 24, Level: 3, Palette: 5}, 1},
	{"l3_r0_110x70", Look{Cols: 110, Rows: 70, Level: 3, Palette: 1}, 1},
	{"l3_r0_100x30_pad", Look{Cols: 100, Rows: 30, Level: 3, Palette: 1, Padding: true}, 1},
	{"l2_r0_80x24", Look{Cols: 80, Rows: 24, Level: 2, Palette: 1}, 1},
	{"grid2_l3_r0_120x40", Look{Cols: 120, Rows: 40, Level: 3, Palette: 1}, 2},
	{"grid3_l3_r0_120x40", Look{Cols: 120, Rows: 40, Level: 3, Palette: 1}, 3},
	{"grid5_l3_r0_200x60", Look{Cols: 200, Rows: 60, Level: 3, Palette: 1}, 5},
}

// diff says where two texts part.
func diff(got, want []byte) string {
	i := 0
	for i < min(len(got), len(want)) && got[i] == want[i] {
		i++
	}
	return fmt.Sprintf("%d bytes, want %d; they part at byte %d:\n%q, want\n%q", len(got), len(want), i,
		got[max(0, i-20):min(len(got), i+60)], want[max(0, i-20):min(len(want), i+60)])
}

// What the C server gets right is ours to the byte.
func TestGoldenFrames(t *testing.T) {
	p := picture(t)
	for _, c := range rightFrames {
		t.Run(c.name, func(t *testing.T) {
			r := New(c.look)
			for range 2 { // the second time from what was kept
				if got, want := r.Append(nil, sources(p, c.n)), golden(t, c.name); !bytes.Equal(got, want) {
					t.Fatal(diff(got, want))
				}
			}
		})
	}
}

// strip replaces every character that is not part of a sequence by x.
func strip(b []byte) string {
	var s strings.Builder
	for esc, text := false, []rune(string(b)); len(text) > 0; text = text[1:] {
		switch c := text[0]; {
		case c == 0x1b:
			esc = true
			s.WriteRune(c)
		case esc:
			s.WriteRune(c)
			esc = c == '[' || c >= '0' && c <= '9' || c == ';'
		case c == '\n':
			s.WriteRune(c)
		default:
			s.WriteByte('x')
		}
	}
	return s.String()
}

// What the C server gets wrong is right here, and equal in all that it gets
// right. Each case says what differs.
func TestFramesThatAreRightHere(t *testing.T) {
	p := sources(picture(t), 1)
	// Sixteen colours: the same colours, but characters that can be seen.
	got, theirs := New(Look{Cols: 80, Rows: 24, Level: 1, Palette: 1}).Append(nil, p), golden(t, "l1_r0_80x24")
	if g, w := strip(got), strip(theirs); g != w {
		t.Error("16 colours, foreground: ", diff([]byte(g), []byte(w)))
	}
	if ours, c := visible(got), visible(theirs); c != 0 || ours < 500 {
		t.Errorf("16 colours: %d visible characters, theirs %d", ours, c)
	}
	// Background in sixteen colours is what theirs writes for truecolor.
	got, theirs = New(Look{Cols: 80, Rows: 24, Level: 1, Mode: 1, Palette: 1}).Append(nil, p), golden(t, "l3_r1_80x24")
	if g, w := strip(got), strip(theirs); g != w {
		t.Error("16 colours, background: ", diff([]byte(g), []byte(w)))
	}
	// Half-blocks: theirs on 24 rows is ours on 30, in the sizes and to the byte.
	for _, c := range []struct {
		name  string
		level acip.ColorLevel
	}{{"l3_r2_80x24", 3}, {"l2_r2_80x24", 2}, {"l1_r2_80x24", 1}} {
		got = New(Look{Cols: 80, Rows: 30, Level: c.level, Mode: 2}).Append(nil, p)
		if want := golden(t, c.name); !bytes.Equal(got, want) {
			t.Errorf("%s: %s", c.name, diff(got, want))
		}
	}
	// Without colour white is the brightest character, not the sixth.
	got, theirs = New(Look{Cols: 80, Rows: 24, Palette: 1}).Append(nil, p), golden(t, "l0_r0_80x24")
	if !bytes.Contains(got, []byte("d")) || bytes.Contains(theirs, []byte("d")) {
		t.Error("mono: green is not 'd'")
	}
	white := []Source{{Picture: Picture{Size{2, 2}, bytes.Repeat([]byte{255}, 12)}}}
	if got = New(Look{Cols: 4, Rows: 2, Palette: 1}).Append(nil, white); string(got) != "MMMM\nMMMM" {
		t.Errorf("mono: white is %q", got)
	}
	// Backgrounds in truecolor are backgrounds in truecolor.
	got = New(Look{Cols: 80, Rows: 24, Level: 3, Mode: 1, Palette: 1}).Append(nil, p)
	if !bytes.Contains(got, []byte("\x1b[48;2;")) || bytes.Contains(golden(t, "l3_r1_80x24"), []byte("\x1b[48;2;")) {
		t.Error("truecolor background: no 24-bit background")
	}
	got = New(Look{Cols: 80, Rows: 24, Level: 2, Mode: 1, Palette: 1}).Append(nil, p)
	if !bytes.Contains(got, []byte("\x1b[48;5;")) || bytes.Contains(golden(t, "l2_r1_80x24"), []byte("\x1b[48;5;")) {
		t.Error("256 colours, background: no background")
	}
}

// visible counts characters other than spaces, sequences aside.
func visible(b []byte) (n int) {
	for s := string(b); s != ""; {
		if s[0] == 0x1b {
			i := strings.IndexFunc(s, func(r rune) bool { return r >= 'a' && r <= 'z' })
			s = s[i+1:]
			continue
		}
		if s[0] != ' ' && s[0] != '\n' {
			n++
		}
		s = s[1:]
	}
	return n
}

func everyLook(f func(Look)) {
	for level := range acip.ColorLevel(4) {
		for mode := range acip.RenderMode(3) {
			for _, size := range []Size{{80, 24}, {81, 25}, {1, 1}, {7, 3}, {200, 60}} {
				f(Look{Cols: size.W, Rows: size.H, Level: level, Mode: mode, Palette: acip.PaletteBlocks, Padding: size.H == 25})
			}
		}
	}
}

// No frame has more rows or columns than its terminal.
func TestEveryFrameFitsItsTerminal(t *testing.T) {
	p := picture(t)
	tall := Picture{Size{3, 900}, make([]byte, 3*3*900)}
	wide := Picture{Size{900, 2}, make([]byte, 3*900*2)}
	dot := Picture{Size{1, 1}, []byte{255, 0, 128}}
	everyLook(func(l Look) {
		for _, list := range [][]Picture{{p}, {tall}, {wide}, {dot}, {p, tall}, {wide, p, dot}, {p, p, p, p, p, p, p, p, p, p, p, p}} {
			var in []Source
			for i, pic := range list {
				in = append(in, Source{Picture: pic, ID: uint64(i), Version: 1, Name: "a-name-of-some-length"})
			}
			text := New(l).Append(nil, in)
			lines := strings.Split(string(text), "\n")
			if len(lines) > l.Rows {
				t.Fatalf("%+v, %d pictures: %d rows", l, len(list), len(lines))
			}
			for _, line := range lines {
				if n := columnsOf(line); n > l.Cols {
					t.Fatalf("%+v, %d pictures: %d columns in %q", l, len(list), n, line)
				}
			}
		}
	})
}

// columnsOf counts the columns that a line takes, REP expanded.
func columnsOf(s string) (n int) {
	for s != "" {
		if s[0] != 0x1b {
			r := []rune(s)[0]
			s = s[len(string(r)):]
			n++
			continue
		}
		i := strings.IndexAny(s, "mb")
		if s[i] == 'b' {
			k := 0
			fmt.Sscanf(s[2:i], "%d", &k)
			n += k
		}
		s = s[i+1:]
	}
	return n
}

// What is taken over from the last frame is what would have been written anew:
// random changes of pictures, names and number, each frame against a fresh
// Renderer.
func TestKeptRowsAreRight(t *testing.T) {
	base := picture(t)
	everyLook(func(l Look) {
		if l.Cols == 200 {
			return
		}
		r := New(l)
		rng := rand.New(rand.NewPCG(1, 2))
		in := make([]Source, 3)
		for i := range in {
			in[i] = Source{Picture: Picture{base.Size, bytes.Clone(base.Pix)}, ID: uint64(i)}
		}
		n := 1
		for frame := range 25 {
			switch i := rng.IntN(3); rng.IntN(4) {
			case 0:
				n = 1 + rng.IntN(3)
			case 1:
				in[i].Name = []string{"", "mia", "leo"}[rng.IntN(3)]
			default:
				row := rng.IntN(base.H)
				for k := range in[i].Pix[3*row*base.W:][:3*40*min(base.W, 20)] {
					in[i].Pix[3*row*base.W:][k] = byte(rng.Uint32())
					if 3*row*base.W+k+1 >= len(in[i].Pix) {
						break
					}
				}
				in[i].Version++
			}
			got, want := r.Append(nil, in[:n]), New(l).Append(nil, in[:n])
			if !bytes.Equal(got, want) {
				t.Fatalf("%+v frame %d: %s", l, frame, diff(got, want))
			}
		}
	})
}

func TestNamesStandOnTheTiles(t *testing.T) {
	p := picture(t)
	in := sources(p, 2)
	in[0].Name, in[1].Name = "mia", "leo\x1b[2J"
	for level := range acip.ColorLevel(4) {
		text := string(New(Look{Cols: 80, Rows: 24, Level: level, Palette: 1}).Append(nil, in))
		if !strings.Contains(text, "mia") || !strings.Contains(text, "leo?[2J") || strings.Contains(text, "\x1b[2J") {
			t.Errorf("level %d: the names are not there, or not as text", level)
		}
	}
}

func TestLayoutAsMeasured(t *testing.T) {
	for _, c := range []struct{ n, cols, rows, want int }{{2, 120, 40, 2}, {3, 120, 40, 2}, {5, 200, 60, 3}, {4, 30, 12, 1}} {
		if got := columns(c.n, 320.0/240, Size{c.cols, c.rows}); got != c.want {
			t.Errorf("%d pictures on %d×%d: %d columns, want %d", c.n, c.cols, c.rows, got, c.want)
		}
	}
}

func TestNoAllocation(t *testing.T) {
	p := picture(t)
	everyLook(func(l Look) {
		r := New(l)
		in := sources(p, 4)
		var dst []byte
		step := func() {
			in[1].Version++
			p.Pix[3]++
			dst = r.Append(dst[:0], in)
		}
		for range 3 {
			step()
		}
		if n := testing.AllocsPerRun(5, step); n != 0 {
			t.Errorf("%+v: %v allocations per frame", l, n)
		}
	})
}

func BenchmarkRender(b *testing.B) {
	p := picture(b)
	q := Picture{p.Size, bytes.Clone(p.Pix)}
	for i := range q.Pix {
		q.Pix[i] += 3 // every pixel differs from the frame before
	}
	names := [...]string{"foreground", "background", "half"}
	for _, size := range []struct {
		name string
		s    Size
		n    int
	}{{"80x24", Size{80, 24}, 1}, {"200x60", Size{200, 60}, 1}, {"grid9-200x60", Size{200, 60}, 9}} {
		for level := range acip.ColorLevel(4) {
			for mode := range acip.RenderMode(3) {
				b.Run(fmt.Sprintf("%s/level%d/%s", size.name, level, names[mode]), func(b *testing.B) {
					r := New(Look{Cols: size.s.W, Rows: size.s.H, Level: level, Mode: mode, Palette: 1})
					even, odd := sources(p, size.n), sources(q, size.n)
					var dst []byte
					b.ReportAllocs()
					for i := 0; b.Loop(); i++ {
						in := even
						if i&1 == 1 {
							in = odd
						}
						for k := range in {
							in[k].Version = uint64(i)
						}
						dst = r.Append(dst[:0], in)
					}
					b.ReportMetric(float64(len(dst)), "bytes/frame")
				})
			}
		}
	}
}

// BenchmarkRenderOneOfNine is a grid in which one picture moves.
func BenchmarkRenderOneOfNine(b *testing.B) {
	p := picture(b)
	r := New(Look{Cols: 200, Rows: 60, Level: 3, Palette: 1})
	in := sources(Picture{p.Size, bytes.Clone(p.Pix)}, 9)
	in[0].Picture = p
	var dst []byte
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		for k := range p.Pix[:3*320*60] {
			p.Pix[k]++
		}
		in[0].Version++
		dst = r.Append(dst[:0], in)
	}
}
