package gateway

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"
)

func open(t *testing.T, c *Command) Peer {
	t.Helper()
	p, err := c.Open(t.Context(), Caller{Route: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Close()
		for { // Read to the end, as the gateway does
			var long *LineTooLongError
			if _, err := p.Read(); err != nil && !errors.As(err, &long) {
				return
			}
		}
	})
	return p
}

func readLine(t *testing.T, p Peer) string {
	t.Helper()
	line, err := p.Read()
	if err != nil {
		t.Fatal(err)
	}
	return string(line)
}

func TestCommandTalksInLines(t *testing.T) {
	p := open(t, self(t, "mcp"))
	for _, id := range []string{"1", "2"} {
		if err := p.Write([]byte(`{"jsonrpc":"2.0","id":` + id + `,"method":"ping"}`)); err != nil {
			t.Fatal(err)
		}
		if got, want := readLine(t, p), `{"jsonrpc":"2.0","id":`+id+`,"result":{}}`; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Read(); err == nil || err.Error() != "the server exited" {
		t.Errorf("after Close: %v", err)
	}
}

func TestCommandStartsFromAnEmptyEnvironment(t *testing.T) {
	t.Setenv("NODE_OPTIONS", "--require evil")
	t.Setenv("WANTED", "yes")
	c := self(t, "environ")
	c.Inherit = []string{"WANTED", "NOT_THERE"}
	c.Env["SET"] = "1"
	env := " " + readLine(t, open(t, c)) + " "
	for _, want := range []string{" WANTED=yes ", " SET=1 ", " PATH="} {
		if !strings.Contains(env, want) {
			t.Errorf("%q is missing in %q", want, env)
		}
	}
	for _, bad := range []string{"NODE_OPTIONS", "NOT_THERE"} {
		if strings.Contains(env, bad) {
			t.Errorf("%s was passed on: %q", bad, env)
		}
	}
}

func TestCommandUsesNoShell(t *testing.T) {
	c := self(t, "args", "$HOME", "a b", ";", "`id`")
	if got, want := readLine(t, open(t, c)), `["$HOME","a b",";","`+"`id`"+`"]`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestCommandThatCannotStart(t *testing.T) {
	_, err := (&Command{Path: "no-such-program-anywhere", Logger: testLog(t)}).Open(t.Context(), Caller{})
	if err == nil || !strings.Contains(err.Error(), "cannot start no-such-program-anywhere") {
		t.Errorf("got %v", err)
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestCommandStderrGoesToTheLog(t *testing.T) {
	var log syncBuffer
	c := self(t, "stderr")
	c.Logger = slog.New(slog.NewTextHandler(&log, nil))
	p := open(t, c)
	if got := readLine(t, p); got != "done" {
		t.Errorf("standard output is %q", got)
	}
	until(t, "standard error in the log", func() bool { return strings.Contains(log.String(), `line="what went wrong"`) })
}

func TestCommandLineLimit(t *testing.T) {
	c := self(t, "long")
	c.LineMax = 50_000
	p := open(t, c)
	var long *LineTooLongError
	if _, err := p.Read(); !errors.As(err, &long) || long.Max != 50_000 {
		t.Errorf("got %v", err)
	}
	if got := readLine(t, p); got != "short" {
		t.Errorf("the line after the long one is %q", got)
	}
}

func TestCommandThatDoesNotListenIsKilled(t *testing.T) {
	c := self(t, "deaf")
	c.StdinGrace, c.TermGrace = time.Millisecond, time.Second
	p := open(t, c)
	if got := readLine(t, p); got != "ready" {
		t.Fatal(got)
	}
	p.Close()
	if _, err := p.Read(); err == nil || !strings.Contains(err.Error(), "signal: terminated") {
		t.Errorf("got %v", err)
	}
}

func TestCommandThatDoesNotReadStalls(t *testing.T) {
	c := self(t, "deaf")
	c.StdinGrace, c.TermGrace, c.StallTimeout = time.Millisecond, time.Millisecond, 20*time.Millisecond
	p := open(t, c)
	err := p.Write(make([]byte, 1<<20))
	if err == nil || !strings.Contains(err.Error(), "has not read its standard input for 20ms") {
		t.Errorf("got %v", err)
	}
}

// lineReader gives the same lines whatever the reads look like.
func TestLineReader(t *testing.T) {
	long := strings.Repeat("y", 3*lineBufferSize)
	text := "a\n\nbb\r\n" + long + "\n" + `{"jsonrpc":"2.0","id":41,"result":"` + strings.Repeat("z", 300_000) + "\"}\nend\n"
	for _, size := range []int{1, 7, 4096, 1 << 20} {
		l := newLineReader(&sliceReader{[]byte(text), size}, 200_000)
		for _, want := range []string{"a", "", "bb\r", long} {
			if got, err := l.next(); err != nil || string(got) != want {
				t.Fatalf("reads of %d: got %.20q, %v, want %.20q", size, got, err, want)
			}
		}
		_, err := l.next()
		var tooLong *LineTooLongError
		if !errors.As(err, &tooLong) || string(tooLong.ID) != "41" {
			t.Errorf("reads of %d: %v, id %q", size, err, tooLong.ID)
		}
		if got, err := l.next(); err != nil || string(got) != "end" {
			t.Errorf("reads of %d: after the long line %q, %v", size, got, err)
		}
		if cap(l.head) > 2*lineEdge || cap(l.tail) > 4*lineEdge {
			t.Errorf("%d and %d bytes kept of a skipped line", cap(l.head), cap(l.tail))
		}
	}
}

type sliceReader struct {
	p    []byte
	size int
}

func (r *sliceReader) Read(p []byte) (int, error) {
	if len(r.p) == 0 {
		return 0, errors.New("end")
	}
	n := copy(p[:min(len(p), r.size)], r.p)
	r.p = r.p[n:]
	return n, nil
}

func TestEdgeID(t *testing.T) {
	for _, tt := range []struct{ head, tail, want string }{
		{`{"jsonrpc":"2.0","id":7,"result":{"id":8`, `"}]}}`, "7"},
		{`{"result":{"id":8,"c":[`, `"}]},"jsonrpc":"2.0","id":9}`, "9"},
		{`{"result":{"id":8,"c":[`, `"}]},"id":9,"jsonrpc":"2.0"}`, "9"},
		{`{"result":{"id":8,"c":[`, `"}],"id":9}}`, ""},
		{`{"result":{"id":8,"c":[`, `xxxx`, ""},
		{``, ``, ""},
	} {
		if got := string(edgeID([]byte(tt.head), []byte(tt.tail))); got != tt.want {
			t.Errorf("%s … %s: id %q, want %q", tt.head, tt.tail, got, tt.want)
		}
	}
}
