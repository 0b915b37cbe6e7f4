package capture

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"
)

var start = time.Date(2026, 2, 20, 19, 15, 24, 222000000, time.UTC)

// readAll returns the chunks of a trace with their bytes copied.
func readAll(t *testing.T, in string) (Meta, []Chunk, bool) {
	t.Helper()
	r, err := NewReader(strings.NewReader(in))
	if err != nil {
		t.Fatal(err)
	}
	var out []Chunk
	for c, err := range r.Chunks() {
		if err != nil {
			t.Fatal(err)
		}
		c.Data = bytes.Clone(c.Data)
		out = append(out, c)
	}
	return r.Meta(), out, r.Cut()
}

func TestTraceFile(t *testing.T) {
	var b strings.Builder
	w := NewWriter(&b, Meta{Start: start, Fields: []Field{{"url", "ws://127.0.0.1:1/a b"}, {"note", " two\nlines"}, {"empty", ""}}})
	w.Chunk(Client, start, []byte("GET / HTTP/1.1\r\n\r\n"))
	w.Chunk(Server, start.Add(1500*time.Microsecond), []byte{0x81, 0x02, 'h', 'i'})
	w.Chunk(Client, start.Add(-time.Second), []byte("say \"hi\"\t\\"))
	w.End(Client, start.Add(time.Minute+time.Nanosecond), RST)
	if err := w.End(Server, start.Add(time.Minute+time.Nanosecond), Timeout); err != nil {
		t.Fatal(err)
	}
	want := `weft-trace 1
start: 2026-02-20T19:15:24.222Z
url: ws://127.0.0.1:1/a b
note: " two\nlines"
empty: 
0.000000000 > "GET / HTTP/1.1\r\n\r\n"
0.001500000 < 81026869
0.000000000 > "say \"hi\"\t\\"
60.000000001 > end rst
60.000000001 < end timeout
`
	if b.String() != want {
		t.Errorf("written\n%s\nwant\n%s", b.String(), want)
	}
	meta, chunks, cut := readAll(t, b.String())
	if !meta.Start.Equal(start) || meta.Get("url") != "ws://127.0.0.1:1/a b" || meta.Get("note") != " two\nlines" || meta.Get("empty") != "" || meta.Get("none") != "" || len(meta.Fields) != 3 || cut {
		t.Errorf("meta read as %+v", meta)
	}
	if len(chunks) != 5 || string(chunks[1].Data) != "\x81\x02hi" || chunks[1].From != Server || !chunks[1].At.Equal(start.Add(1500*time.Microsecond)) ||
		string(chunks[2].Data) != "say \"hi\"\t\\" || chunks[3].End != RST || chunks[3].From != Client || chunks[4].End != Timeout ||
		!chunks[4].At.Equal(start.Add(time.Minute+time.Nanosecond)) {
		t.Errorf("chunks read as %+v", chunks)
	}
}

// A long chunk takes several lines; put together they are the same bytes.
func TestTraceLongChunk(t *testing.T) {
	var b strings.Builder
	w := NewWriter(&b, Meta{})
	data := make([]byte, 3*chunkMax+5)
	for i := range data {
		data[i] = byte(i * 7)
	}
	if err := w.Chunk(Server, start, data); err != nil {
		t.Fatal(err)
	}
	w.Chunk(Server, start, bytes.Repeat([]byte{'"'}, chunkMax)) // the longest line there is
	meta, chunks, _ := readAll(t, b.String())
	if !meta.Start.Equal(start) {
		t.Errorf("without Meta.Start the first chunk's time counts, got %v", meta.Start)
	}
	var got []byte
	for _, c := range chunks {
		got = append(got, c.Data...)
	}
	if want := string(data) + strings.Repeat(`"`, chunkMax); string(got) != want {
		t.Errorf("%d bytes came back, want %d, or they differ", len(got), len(want))
	}
	if len(chunks) != 5 {
		t.Errorf("%d lines, want 5", len(chunks))
	}
}

func TestTraceWithoutAByte(t *testing.T) {
	var b strings.Builder
	if err := NewWriter(&b, Meta{Start: start}).Flush(); err != nil {
		t.Fatal(err)
	}
	if _, chunks, _ := readAll(t, b.String()); len(chunks) != 0 {
		t.Errorf("%d chunks", len(chunks))
	}
	b.Reset()
	if err := NewWriter(&b, Meta{}).Flush(); err != nil || b.Len() > 0 {
		t.Errorf("without a time there is nothing to write yet: %q, %v", b.String(), err)
	}
}

// Whatever the dying process left, what is complete can be read.
func TestTraceCutLastLine(t *testing.T) {
	var b strings.Builder
	w := NewWriter(&b, Meta{Start: start, Fields: []Field{{"a", "b"}}})
	for i := range 3 {
		w.Chunk(Client, start.Add(time.Duration(i)*time.Second), []byte{0x89, 0x80, 1, 2, 3, byte(i)})
	}
	whole := b.String()
	for n := len(version) + 1; n < len(whole); n++ {
		r, err := NewReader(strings.NewReader(whole[:n]))
		if err != nil {
			// Only a head without its time is refused.
			if !strings.Contains(err.Error(), "start:") || strings.Contains(whole[:n], "222Z\n") {
				t.Fatalf("cut at %d: %v", n, err)
			}
			continue
		}
		lines := 0
		for _, err := range r.Chunks() {
			if err != nil {
				t.Fatalf("cut at %d: %v", n, err)
			}
			lines++
		}
		if want := strings.Count(whole[:n], " > 8980"+"010203"); lines > want {
			t.Errorf("cut at %d: %d chunks, at most %d are complete", n, lines, want)
		}
		if r.Cut() != (whole[n-1] != '\n') {
			t.Errorf("cut at %d: Cut is %v", n, r.Cut())
		}
	}
}

func TestTraceErrors(t *testing.T) {
	const head = "weft-trace 1\nstart: 2026-02-20T19:15:24Z\n"
	for in, want := range map[string]string{
		"":                                     "input is empty",
		"hello\n":                              "not a weft trace",
		"weft-trace 2\n":                       "version \"2\"",
		"\n\r\r\n\x0a":                         "not a weft trace",
		"\xd4\xc3\xb2\xa1\x02\n":               "looks like pcap",
		"\x0a\x0d\x0d\x0a\x1c\x00\x00\x00":     "looks like pcapng",
		"\x1f\x8b\x08\x00\n":                   "looks like gzip",
		"\xff\xfew\x00e\x00f\x00t\x00\n":       "looks like UTF-16",
		"{\"log\":{}}":                         "looks like JSON",
		"\x0a\x0d\x0d\x0a":                     "not a weft trace",
		strings.Repeat("x", 1<<20):             "not a weft trace",
		"weft-trace 1\n0.0 > 00\n":             "no \"start:\" line",
		"weft-trace 1\nwhat\n":                 "line 2: want a meta line",
		"weft-trace 1\nA: b\n":                 "line 2: want a meta line",
		"weft-trace 1\na: \"b\n":               "line 2: value of a",
		"weft-trace 1\nstart: today\n0 > 00\n": "line 2: start",
		"weft-trace 1\n" + strings.Repeat("a: b\n", metaMax+1):      "more than 64 meta lines",
		head + strings.Repeat("x", lineMax) + "\n":                  "longer than",
		head + "0 > 00\nstart: now\n":                               "line 4: want a chunk",
		head + "0.0\n":                                              "want a chunk",
		head + "0.0000000001 > 00\n":                                "want a chunk",
		head + "0.x > 00\n":                                         "want a chunk",
		head + "99999999999 > 00\n":                                 "want a chunk",
		head + "0.0 = 00\n":                                         "want > (from the client)",
		head + "0.0 > 0\n":                                          "neither quoted nor pairs",
		head + "0.0 > zz\n":                                         "neither quoted nor pairs",
		head + "0.0 > \"a\n":                                        "quoted bytes are malformed",
		head + "0.0 > end well\n":                                   "want end fin",
		head + "0.0 > 00\n" + strings.Repeat("x", lineMax+1) + "\n": "line 4: the line is longer than",
	} {
		r, err := NewReader(strings.NewReader(in))
		if err == nil {
			for _, e := range r.Chunks() {
				err = e
			}
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: error %v, want one with %q", in, err, want)
		}
	}
	if _, err := NewReader(strings.NewReader("nothing of ours\n")); !errors.Is(err, ErrNotTrace) {
		t.Errorf("got %v, want ErrNotTrace", err)
	}
	broken := errors.New("disk")
	if _, err := NewReader(iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("a read error is lost: %v", err)
	}
	if _, err := NewReader(io.MultiReader(strings.NewReader(head), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("a read error in the head is lost: %v", err)
	}
}

// After an error or a loop left early, a second loop behaves.
func TestTraceLoops(t *testing.T) {
	r, err := NewReader(strings.NewReader("weft-trace 1\r\nstart: 2026-02-20T19:15:24Z\r\n\r\n# a word\r\n0 > 00\r\n\n#\n1 > 01\nx\n2 > 02\n"))
	if err != nil {
		t.Fatal(err)
	}
	for c := range r.Chunks() {
		if c.Data[0] != 0 {
			t.Errorf("first chunk %v", c)
		}
		break
	}
	var last error
	n := 0
	for c, err := range r.Chunks() {
		if last = err; err == nil && c.Data[0] != 1 {
			t.Errorf("second chunk %v", c)
		}
		n++
	}
	if n != 2 || last == nil {
		t.Errorf("the second loop should yield the second chunk and an error: %d, %v", n, last)
	}
	for range r.Chunks() {
		t.Error("there is nothing after an error")
	}
	if r.Offset() == 0 {
		t.Error("Offset does not count")
	}
}

func TestWriterErrors(t *testing.T) {
	broken := errors.New("disk full")
	w := NewWriter(writerFunc(func([]byte) (int, error) { return 0, broken }), Meta{Start: start})
	if err := w.Chunk(Client, start, []byte("a")); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if err := w.End(Client, start, FIN); !errors.Is(err, broken) {
		t.Errorf("the first error stays, got %v", err)
	}
	if err := NewWriter(io.Discard, Meta{Start: start, Fields: []Field{{"Bad Key", ""}}}).Flush(); err == nil {
		t.Error("a key that cannot be read back was accepted")
	}
	if err := NewWriter(io.Discard, Meta{Start: start, Fields: []Field{{"start", "x"}}}).Flush(); err == nil {
		t.Error("start is no ordinary field")
	}
	if err := NewWriter(io.Discard, Meta{Start: start, Fields: make([]Field, metaMax+1)}).Flush(); err == nil {
		t.Error("more fields than can be read back were accepted")
	}
	if err := NewWriter(io.Discard, Meta{}).End(Client, start, Open); err == nil {
		t.Error("Open is no end")
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// Lines of several goroutines do not mix.
func TestWriterConcurrent(t *testing.T) {
	var b strings.Builder
	w := NewWriter(&b, Meta{Start: start})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 100 {
				w.Chunk(Side(1+i%2), start.Add(time.Second), bytes.Repeat([]byte{byte(i)}, 50))
			}
		})
	}
	wg.Wait()
	_, chunks, _ := readAll(t, b.String())
	if len(chunks) != 800 {
		t.Fatalf("%d chunks, want 800", len(chunks))
	}
	for _, c := range chunks {
		if len(c.Data) != 50 || bytes.Count(c.Data, c.Data[:1]) != 50 || c.From != Side(1+c.Data[0]%2) {
			t.Fatalf("chunk mixed: %v", c)
		}
	}
}

func TestWords(t *testing.T) {
	if Client.Peer() != Server || Server.Peer() != Client || Client.String() != "client" || Server.String() != "server" {
		t.Error("sides")
	}
	for _, k := range []EndKind{FIN, RST, Timeout} {
		if got, ok := ParseEndKind(k.String()); !ok || got != k {
			t.Errorf("%v read back as %v", k, got)
		}
	}
	if _, ok := ParseEndKind(Open.String()); ok {
		t.Error("open is no end")
	}
}

// FuzzTrace: any input is read to an end or an error that names a line, and
// what was read, written again, reads the same.
func FuzzTrace(f *testing.F) {
	f.Add([]byte("weft-trace 1\nstart: 2026-02-20T19:15:24.222Z\nurl: ws://a/\nx: \"\\n\"\n0.0 > \"GET /\\r\\n\"\n1.5 < 8100\n2 > end rst\n3.000000001 < end"))
	f.Add([]byte("weft-trace 1\nstart: 2026-02-20T19:15:24+01:00\n\n# c\n0 > \"\\xff\"\n0.1 < 00ff\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := NewReader(bytes.NewReader(in))
		if err != nil {
			return
		}
		var again bytes.Buffer
		w := NewWriter(&again, r.Meta())
		var before []Chunk
		for c, err := range r.Chunks() {
			if err != nil {
				if !strings.Contains(err.Error(), "line ") {
					t.Fatalf("error without a line: %v", err)
				}
				break
			}
			if c.End != Open {
				err = w.End(c.From, c.At, c.End)
			} else {
				err = w.Chunk(c.From, c.At, c.Data)
			}
			if err != nil {
				t.Fatal(err)
			}
			if c.End != Open || len(c.Data) > 0 {
				c.Data = bytes.Clone(c.Data)
				before = append(before, c)
			}
		}
		if again.Len() == 0 || r.Meta().Start.IsZero() {
			return
		}
		r2, err := NewReader(bytes.NewReader(again.Bytes()))
		if err != nil {
			t.Fatalf("what was written is not read: %v\n%s", err, again.Bytes())
		}
		i := 0
		var joined []byte
		for c, err := range r2.Chunks() {
			if err != nil {
				t.Fatalf("what was written is not read: %v\n%s", err, again.Bytes())
			}
			if i >= len(before) {
				t.Fatalf("more chunks than written")
			}
			want := before[i]
			if c.From != want.From || c.End != want.End || !c.At.Equal(want.At) {
				t.Fatalf("chunk %d: %+v, want %+v", i, c, want)
			}
			joined = append(joined, c.Data...)
			if len(joined) < len(want.Data) {
				continue // a long chunk takes several lines
			}
			if !bytes.Equal(joined, want.Data) {
				t.Fatalf("chunk %d: %x, want %x", i, joined, want.Data)
			}
			joined = nil
			i++
		}
		if i != len(before) {
			t.Fatalf("%d chunks came back, want %d", i, len(before))
		}
	})
}

func BenchmarkWriter(b *testing.B) {
	p := make([]byte, 16<<10)
	for i := range p {
		p[i] = byte(rand.Uint32())
	}
	w := NewWriter(io.Discard, Meta{Start: start})
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		w.Chunk(Client, start, p)
	}
}

func BenchmarkReader(b *testing.B) {
	var file bytes.Buffer
	w := NewWriter(&file, Meta{Start: start})
	p := make([]byte, 16<<10)
	for i := range p {
		p[i] = byte(rand.Uint32())
	}
	for range 100 {
		w.Chunk(Client, start, p)
	}
	b.SetBytes(int64(100 * len(p)))
	b.ReportAllocs()
	for b.Loop() {
		r, err := NewReader(bytes.NewReader(file.Bytes()))
		if err != nil {
			b.Fatal(err)
		}
		for range r.Chunks() {
		}
	}
}
