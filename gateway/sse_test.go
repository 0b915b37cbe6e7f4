package gateway

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// told reads a stream to its end and writes down its events.
func told(r io.Reader, max int) string {
	e := newEventReader(r, max)
	var out []string
	for {
		ev, err := e.next()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				out = append(out, err.Error())
			}
			return strings.Join(out, "|")
		}
		s := ev.name + "," + string(ev.data)
		if ev.hasID {
			s += ",id=" + ev.id
		}
		if ev.retry >= 0 {
			s += ",retry=" + ev.retry.String()
		}
		if ev.long != nil {
			s += ",long " + string(ev.long.ID)
		}
		out = append(out, s)
	}
}

func TestEvents(t *testing.T) {
	long := func(before, after string) string {
		return "data: {" + before + `"x":"` + strings.Repeat("y", 10_000) + `"` + after + "}\n\n"
	}
	for _, tt := range []struct{ in, want string }{
		{"data: {}\n\n", ",{}"},
		{"data:{}\r\n\r\n", ",{}"},
		{"data: {}\r\rdata: 1\n\n", ",{}|,1"},
		{"\ufeffdata: {}\n\n", ",{}"},
		{": hello\n\n:\n\ndata: 1\n: between\ndata: 2\n\n", ",1\n2"},
		{"event: message\nid: a_1\ndata: 1\n\n", "message,1,id=a_1"},
		{"id: prime\nretry: 250\n\n", ",,id=prime,retry=250ms"},
		{"id\ndata\n\n", ",,id="},
		{"id: a\x00b\nretry: 1s\nretry: +5\ndata: 1\n\n", ",1"},
		{"retry: 99999999\n\n", ",,retry=5m0s"},
		{"data: 1\n\ndata: the stream ends here\n", ",1"},
		{"\n\n\nfoo: bar\n\ndata: 1\n\n", ",|,1"},
		{"data:  two spaces\n\n", ", two spaces"},
		{long(`"id":7,`, "") + "data: 1\n\n", ",,long 7|,1"},
		{"id: e1\n" + long("", `,"id":8`) + "data: 1\n\n", ",,id=e1,long 8|,1"},
		{strings.Replace(long("", ""), "\n\n", "\nid: e2\n\n", 1) + "data: 1\n\n", ",,id=e2,long |,1"},
		{"data: " + strings.Repeat("x", 1000) + "\n\n", "," + strings.Repeat("x", 1000)},
		{"data: " + strings.Repeat("x", 1001) + "\n\n", ",,long "},
		{":" + strings.Repeat("comment", 10_000) + "\ndata: 1\n\n", ",1"},
		{strings.Repeat("data: 0123456789\n", 100) + "\ndata: 1\n\n", ",,long |,1"},
	} {
		for name, r := range map[string]io.Reader{"at once": strings.NewReader(tt.in), "by byte": iotest.OneByteReader(strings.NewReader(tt.in))} {
			if got := told(r, 1000); got != tt.want {
				t.Errorf("%.60q %s:\ngot  %.200q\nwant %.200q", tt.in, name, got, tt.want)
			}
		}
	}
}

// What has no end is not kept.
func TestEventsAreBounded(t *testing.T) {
	for _, in := range []string{"x", "data: 0123456789\n", ":", "\r", "id: x\n"} {
		e := newEventReader(io.LimitReader(&repeat{s: in}, 256<<10), 1<<10)
		for {
			if _, err := e.next(); err != nil {
				break
			}
		}
		if n := cap(e.line) + cap(e.data) + cap(e.head) + cap(e.tail) + cap(e.buf); n > 64<<10 {
			t.Errorf("%q: %d bytes are kept", in, n)
		}
	}
}

// The hooks are told about what is incomplete and what is large.
func TestEventHooks(t *testing.T) {
	var got []string
	in := io.MultiReader(strings.NewReader(": nothing yet\n"), strings.NewReader("da"), strings.NewReader("ta: 1\n"), strings.NewReader("\n"),
		strings.NewReader("data: "+strings.Repeat("x", eventSmall)), strings.NewReader("\n\n"))
	e := newEventReader(in, 1<<20)
	e.partial = func(b bool) { got = append(got, fmt.Sprint(b)) }
	e.big = func() { got = append(got, "big") }
	for {
		if _, err := e.next(); err != nil {
			break
		}
	}
	if s := strings.Join(got, " "); !strings.HasPrefix(s, "true true false true") || !strings.Contains(s, "big true") || !strings.HasSuffix(s, "false") {
		t.Errorf("told %s", s)
	}
}

// Cutting a stream elsewhere changes nothing.
func FuzzEvents(f *testing.F) {
	f.Add([]byte("id: 1\ndata: {\"id\":1}\r\n\r\nretry: 5\rdata: x\r\r: c\n"), uint(9))
	f.Fuzz(func(t *testing.T, p []byte, cut uint) {
		at := int(cut % uint(len(p)+1))
		whole := told(strings.NewReader(string(p)), 64)
		parts := told(io.MultiReader(strings.NewReader(string(p[:at])), strings.NewReader(string(p[at:]))), 64)
		if whole != parts {
			t.Fatalf("whole: %q\ncut at %d: %q", whole, at, parts)
		}
	})
}

func BenchmarkEvents(b *testing.B) {
	for _, size := range []int{100, 64 << 10, 4 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			one := "event: message\ndata: " + strings.Repeat("x", size) + "\n\n"
			b.SetBytes(int64(len(one)))
			e := newEventReader(&repeat{s: one}, 16<<20)
			for b.Loop() {
				if ev, err := e.next(); err != nil || len(ev.data) != size {
					b.Fatal(len(ev.data), err)
				}
			}
		})
	}
}

// repeat is a text again and again, cut anywhere.
type repeat struct {
	s string
	i int
}

func (r *repeat) Read(p []byte) (int, error) {
	n := copy(p, r.s[r.i:])
	r.i = (r.i + n) % len(r.s)
	return n, nil
}
