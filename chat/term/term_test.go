package term

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weft-ws/weft/acip"
)

// A terminal in a test: what a Screen writes, applied to cells.
type terminal struct {
	g    Grid
	x, y int
	pen  Cell
	sync bool
	t    *testing.T
}

func (m *terminal) Write(p []byte) (int, error) {
	n := len(p)
	for s := string(p); s != ""; {
		if s[0] != 0x1b {
			r := []rune(s)[0]
			s = s[len(string(r)):]
			if m.x < m.g.Cols { // no wrapping
				c := m.pen
				if c.Rune = r; r == ' ' {
					c.Rune, c.FG = 0, 0
				}
				m.g.Cells[m.y*m.g.Cols+m.x] = c
				m.x++
			}
			continue
		}
		i := 2 + strings.IndexFunc(s[2:], func(r rune) bool { return r >= '@' && r <= '~' })
		seq := s[2 : i+1]
		s = s[i+1:]
		var tok token
		next([]byte("\x1b["+seq), &tok)
		switch {
		case seq == "?2026h":
			m.sync = true
		case seq == "?2026l":
			m.sync = false
		case tok.final == 'H':
			m.y, m.x = tok.params[0]-1, tok.params[1]-1
		case seq == "2J":
			clear(m.g.Cells)
		case tok.final == 'm':
			m.pen = sgr(m.pen, tok.params[:tok.n])
		case seq[0] == '?':
		default:
			m.t.Errorf("the screen wrote %q", seq)
		}
	}
	return n, nil
}

// Whatever was on the screen before, the terminal ends up with the frame: for
// all frames of the C server, in all orders of two.
func TestScreenShowsTheFrame(t *testing.T) {
	files, err := filepath.Glob("../render/testdata/ascii_*")
	if err != nil || len(files) < 20 {
		t.Fatal(files, err)
	}
	const cols, rows = 90, 26
	m := &terminal{t: t}
	m.g.Reset(cols, rows)
	s := NewScreen(m, cols, rows)
	if err := s.Open(); err != nil {
		t.Fatal(err)
	}
	for i, name := range append(files, files[0], files[9], files[3]) {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		f, err := acip.ParseASCIIFrame(b)
		if err != nil {
			t.Fatal(err)
		}
		if i%5 == 4 {
			s.Resize(cols, rows)
		}
		if err := s.Status(name[:12]); err != nil {
			t.Fatal(err)
		}
		if err := s.Show(f.Text); err != nil {
			t.Fatal(err)
		}
		want := Grid{Cols: cols, Rows: rows - 1, Cells: make([]Cell, cols*(rows-1))}
		Read(&want, f.Text)
		for k, c := range want.Cells {
			if m.g.Cells[k] != c {
				t.Fatalf("%s: cell %d,%d is %+v, want %+v", name, k%cols, k/cols, m.g.Cells[k], c)
			}
		}
		if m.g.Row(rows - 1)[0].Rune != rune(name[0]) || m.sync {
			t.Fatalf("%s: the status line is missing, or the frame is not finished", name)
		}
	}
}

func TestOnlyChangesAreWritten(t *testing.T) {
	var out bytes.Buffer
	s := NewScreen(&out, 80, 24)
	if err := s.Open(); err != nil {
		t.Fatal(err)
	}
	frame := bytes.Repeat([]byte(strings.Repeat("x", 80)+"\n"), 22)
	if err := s.Show(frame); err != nil {
		t.Fatal(err)
	}
	out.Reset()
	if err := s.Show(frame); err != nil || out.Len() != 0 {
		t.Fatalf("an unchanged frame takes %d bytes (%v)", out.Len(), err)
	}
	frame[81*3+7] = 'y'
	if err := s.Show(frame); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); got != syncBegin+"\x1b[4;8H\x1b[0my"+syncEnd {
		t.Fatalf("one changed cell takes %q", got)
	}
}

func TestTheTerminalIsRestored(t *testing.T) {
	var out bytes.Buffer
	s := NewScreen(&out, 10, 5)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		defer s.Close()
		if err := s.Open(); err != nil {
			t.Fatal(err)
		}
		panic("in the middle of a frame")
	}()
	if got := out.String(); !strings.HasPrefix(got, enter) || !strings.HasSuffix(got, leave) {
		t.Fatalf("%q", got)
	}
	out.Reset()
	if err := s.Close(); err != nil || out.Len() != 0 {
		t.Errorf("closing twice writes %q", out.String())
	}
	if err := s.Show([]byte("late")); err != nil || out.Len() != 0 {
		t.Errorf("a frame after the end writes %q", out.String())
	}
}

// A frame can carry anything; the terminal gets characters and colours.
func TestFramesCannotSteerTheTerminal(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"a\x1b[2Jb", "ab"}, {"\x1b]0;title\x07x", "0;titlex"}, {"\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m"},
		{"x\x1b[9b", "x\x1b[9b"}, {"\x1b[?25lq", "q"}, {"a\r\bb\x00", "ab"}, {"\x1b", ""}, {"\x1b[", ""}, {"\x1b[31", ""},
		{"\u009b2J", "2J"}, {"\xff\xfe", ""}, {"\x1bPq\x1b\\x", "qx"}, {"▀▀\n▀", "▀▀\n▀"}, {"\x1b[3\x1b[1my", "\x1b[1my"},
	} {
		if got := string(Append(nil, []byte(c.in))); got != c.want {
			t.Errorf("%q becomes %q, want %q", c.in, got, c.want)
		}
	}
}

func TestSize(t *testing.T) {
	if c, r := Size([]byte("\x1b[31mab\x1b[4b\nx")); c != 6 || r != 2 {
		t.Errorf("%d×%d, want 6×2", c, r)
	}
}

func FuzzFrame(f *testing.F) {
	f.Add([]byte("\x1b[38;2;1;2;3mX\x1b[5b\n▀\x1b[0m"))
	f.Add([]byte("\x1b]52;c;AAAA\x07\x1b[?1049h"))
	f.Fuzz(func(t *testing.T, b []byte) {
		clean := Append(nil, b)
		if !bytes.Equal(Append(nil, clean), clean) {
			t.Fatalf("%q is not clean", clean)
		}
		a, c := Grid{}, Grid{}
		a.Reset(20, 5)
		c.Reset(20, 5)
		Read(&a, b)
		Read(&c, clean)
		for i := range a.Cells {
			if a.Cells[i] != c.Cells[i] {
				t.Fatal("cleaning changes the picture")
			}
		}
	})
}

func BenchmarkShow(b *testing.B) {
	raw, err := os.ReadFile("../render/testdata/ascii_grid5_l3_r0_200x60.payload.bin")
	if err != nil {
		b.Fatal(err)
	}
	f, err := acip.ParseASCIIFrame(raw)
	if err != nil {
		b.Fatal(err)
	}
	var n counter
	s := NewScreen(&n, 200, 61)
	if err := s.Open(); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i&1 == 1 {
			s.Clear() // every cell is written
		}
		if err := s.Show(f.Text); err != nil {
			b.Fatal(err)
		}
	}
}

type counter int

func (c *counter) Write(p []byte) (int, error) { *c += counter(len(p)); return len(p), nil }
