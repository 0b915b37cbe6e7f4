//go:build linux

package main

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"github.com/klauspost/compress/flate"

	"github.com/weft-ws/weft/bench/internal/load"
)

// three is a suite with the shape of the real ones, for tests of the verdicts.
func three() (*suite, *cell) {
	c := &cell{id: "c", title: "a cell", metrics: []metric{{id: "cpu", title: "ns"}, {id: "rate", title: "per second", higher: true}}}
	return &suite{id: "s", title: "a suite", contenders: []*contender{{name: ours}, {name: "floor", raw: true}, {name: "a"}, {name: "b"}, {name: "b-tuned", variant: true}}, cells: []*cell{c}}, c
}

func TestBestIsALibraryAndNotOurs(t *testing.T) {
	s, c := three()
	values := map[string][]float64{ours: {1}, "floor": {0.5}, "a": {3, 30, 3}, "b": {4, 4, 4}, "b-tuned": {2}}
	if got := best(s, &c.metrics[0], values); got != "a" {
		t.Errorf("lowest median of the libraries: %q, want a", got)
	}
	if got := best(s, &c.metrics[1], values); got != "b" {
		t.Errorf("highest median of the libraries: %q, want b", got)
	}
	if got := best(s, &c.metrics[0], map[string][]float64{ours: {1}}); got != "" {
		t.Errorf("best of none: %q", got)
	}
}

func TestVerdicts(t *testing.T) {
	s, c := three()
	steady := func(x float64) []float64 { return []float64{x, x * 1.01, x * 0.99, x} }
	for _, tt := range []struct {
		name   string
		target target
		mine   []float64
		want   string
	}{
		{"well under", target{metric: "cpu", atMost: 1, versus: "a"}, steady(50), "met by 50 %"},
		{"well over", target{metric: "cpu", atMost: 1, versus: "a"}, steady(150), "missed by 50 %"},
		{"just over, within the interval", target{metric: "cpu", atMost: 1, versus: "a"}, []float64{90, 115, 95, 105}, "met, within the interval"},
		{"a rate that is too low", target{metric: "rate", atLeast: 2, versus: "a"}, steady(100), "missed by 50 %"},
		{"a rate that is high", target{metric: "rate", atLeast: 0.5, versus: "a"}, steady(100), "met by 100 %"},
		{"a plain value", target{metric: "cpu", atMost: 40}, steady(50), "missed by 25 %"},
		{"never", target{metric: "rate", atLeast: 1}, []float64{0, 0}, "missed by 100 %"},
		{"always", target{metric: "rate", atLeast: 1}, []float64{1, 1}, "met"},
		{"once", target{metric: "cpu", atMost: 1, versus: "a"}, []float64{500}, "one round decides nothing"},
		{"against the best", target{metric: "cpu", atMost: 1, versus: "best"}, steady(200), "missed by 100 %"},
	} {
		a := []float64{100, 101, 99, 100}
		res := &cellResult{Values: map[string]map[string][]float64{}}
		for _, m := range c.metrics {
			res.Values[m.id] = map[string][]float64{ours: tt.mine, "a": a, "b": {300, 300, 300, 300}}
		}
		v, ok := judge(s, c, res, tt.target)
		if !ok {
			t.Errorf("%s: not judged", tt.name)
			continue
		}
		if got := v.String(); got != tt.want {
			t.Errorf("%s: %q with %+v, want %q", tt.name, got, v.interval, tt.want)
		}
	}
	if _, ok := judge(s, c, &cellResult{Values: map[string]map[string][]float64{"cpu": {ours: {1}}}}, target{metric: "cpu", atMost: 1, versus: "gone"}); ok {
		t.Error("judged against a contender that was not measured")
	}
}

// Every target must name a metric that its cell has, and a contender that takes
// part in it.
func TestTargetsRefer(t *testing.T) {
	ids := map[string]bool{}
	for _, s := range suites() {
		for _, c := range s.cells {
			if ids[c.id] {
				t.Errorf("two cells are called %s", c.id)
			}
			ids[c.id] = true
			for _, x := range c.targets {
				if c.metric(x.metric) == nil {
					t.Errorf("%s: a target for %q, which is not measured", c.id, x.metric)
				}
				if (x.atMost > 0) == (x.atLeast > 0) {
					t.Errorf("%s: the target for %s needs one bound", c.id, x.metric)
				}
				if x.versus != "" && x.versus != "best" {
					other := s.contender(x.versus)
					if other == nil || other.modes[c.options.Mode] == nil && other.launch == nil {
						t.Errorf("%s: a target against %q, which takes no part", c.id, x.versus)
					}
				}
			}
		}
	}
}

func TestJobsRefusesUnknownNames(t *testing.T) {
	if _, err := jobs(suites(), []string{"nonsense"}, nil); err == nil || !strings.Contains(err.Error(), `"nonsense"`) {
		t.Errorf("error %v, want one that names the cell", err)
	}
	list, err := jobs(suites(), []string{"video"}, []string{"weft", "gobwas-tuned"})
	if err != nil || len(list) != 1 || len(list[0].contenders) != 2 {
		t.Errorf("one cell, two contenders: %+v, %v", list, err)
	}
}

func TestResultsRoundTripAndMerge(t *testing.T) {
	name := filepath.Join(t.TempDir(), "r.json")
	r := &results{Processor: "p", Go: "g", Versions: map[string]string{"a": "v1"}, Cells: []cellResult{
		{Suite: "engine", ID: "video", Rounds: 2, Values: map[string]map[string][]float64{"cpu": {"a": {1.23456, 0}, "b": {123456, 2}}}},
	}}
	if err := r.write(name); err != nil {
		t.Fatal(err)
	}
	got, err := readResults(name)
	if err != nil {
		t.Fatal(err)
	}
	if v := got.Cells[0].Values["cpu"]; v["a"][0] != 1.235 || v["a"][1] != 0 || v["b"][0] != 123500 {
		t.Errorf("values %v, want four significant digits", v)
	}
	newer := &results{Processor: "p", Go: "g", Versions: map[string]string{"a": "v1"}, Cells: []cellResult{{Suite: "engine", ID: "echo-32x1"}, {Suite: "engine", ID: "video", Rounds: 5}}}
	if err := newer.merge(got); err != nil {
		t.Fatal(err)
	}
	if len(newer.Cells) != 2 || newer.Cells[0].ID != "echo-32x1" || newer.Cells[1].Rounds != 5 {
		t.Errorf("merged: %+v", newer.Cells)
	}
	for _, other := range []*results{{Processor: "q", Go: "g"}, {Processor: "p", Go: "h"}, {Processor: "p", Go: "g", Versions: map[string]string{"a": "v2"}}} {
		if err := newer.merge(other); err == nil {
			t.Errorf("figures of %+v were merged with those of another machine or version", other)
		}
	}
}

func TestRenderReplacesOnlyItsPart(t *testing.T) {
	name := filepath.Join(t.TempDir(), "doc.md")
	beginMark, endMark := engine.marks()
	if err := os.WriteFile(name, []byte("before\n"+beginMark+"\nold\n"+endMark+"\nafter\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := &results{Processor: "a processor", Cells: []cellResult{{
		Suite: "engine", ID: "video", Rounds: 2,
		Values: map[string]map[string][]float64{"cpu": {ours: {80, 84}, "tcp": {80, 80}, "gws": {100, 100}}},
	}}}
	for range 2 { // rendering twice changes nothing
		if err := r.render(name, engine); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	doc := string(b)
	if !strings.HasPrefix(doc, "before\n"+beginMark) || !strings.HasSuffix(doc, endMark+"\nafter\n") || strings.Contains(doc, "old") {
		t.Errorf("the document became\n%s", doc)
	}
	for _, want := range []string{"a processor", "| tcp | gws | weft |", "| 80 | 100 | 82 |", "at most 1.1 × tcp"} {
		if !strings.Contains(doc, want) {
			t.Errorf("the table lacks %q:\n%s", want, doc)
		}
	}
	if err := os.WriteFile(name, []byte("no marks"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := r.render(name, engine); err == nil {
		t.Error("a document without marks was accepted")
	}
}

func TestPayloads(t *testing.T) {
	if p := mixed(64_000); len(p) != 64_000 || !utf8.Valid(p) {
		t.Errorf("mixed text of %d bytes, valid %t", len(p), utf8.Valid(p))
	}
	multi := 0
	for _, r := range string(mixed(64_000)) {
		if r >= utf8.RuneSelf {
			multi++
		}
	}
	if share := float64(multi) / float64(utf8.RuneCount(mixed(64_000))); share < 0.3 || share > 0.6 {
		t.Errorf("%.2f of the characters are not ASCII, want about half", share)
	}
	if p := ascii(128); len(p) != 128 {
		t.Errorf("ASCII text of %d bytes", len(p))
	}
	docs := documents(16, documentSize)
	for i, d := range docs {
		if len(d) != documentSize || i > 0 && bytes.Equal(d, docs[i-1]) {
			t.Errorf("document %d has %d bytes or equals the one before", i, len(d))
		}
	}
}

// The script for context takeover comes round to where it began: a receiver
// that keeps its window can inflate it for ever, and needs no larger window
// than the one agreed.
func TestDeflateScript(t *testing.T) {
	docs := documents(16, documentSize)
	for _, tt := range []struct {
		agreed   string
		takeover bool
		window   int
	}{
		{"permessage-deflate; server_no_context_takeover; client_no_context_takeover", false, 0},
		{"permessage-deflate", true, 32 << 10},
		{"permessage-deflate; client_max_window_bits=12", true, 4 << 10},
	} {
		s, err := deflateScript(tt.agreed, tt.takeover)
		if err != nil {
			t.Errorf("%s: %v", tt.agreed, err)
			continue
		}
		var window, msg []byte
		var sc load.Scanner
		sc.Data = func(_ load.Opcode, rsv1 bool, p []byte, last bool) {
			if !rsv1 || !last {
				t.Errorf("%s: a frame without RSV1 or FIN", tt.agreed)
			}
			msg = p
		}
		for i, pos := 0, 0; i < 100; i++ {
			begin := 0
			if pos > 0 {
				begin = s.Ends[pos-1]
			}
			if err := sc.Scan(bytes.Clone(s.Bytes[begin:s.Ends[pos]])); err != nil {
				t.Fatal(err)
			}
			r := flate.NewReaderDict(io.MultiReader(bytes.NewReader(msg), strings.NewReader("\x00\x00\xff\xff\x01\x00\x00\xff\xff")), window)
			got, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(got, docs[i%16]) {
				t.Fatalf("%s: message %d inflates to %d bytes, %v", tt.agreed, i, len(got), err)
			}
			window = append(window, got...)
			window = window[max(len(window)-tt.window, 0):]
			if pos++; pos == len(s.Ends) {
				pos = s.Loop
			}
		}
	}
	for _, agreed := range []string{"", "x-other", "permessage-deflate", "permessage-deflate; client_max_window_bits=99"} {
		if _, err := deflateScript(agreed, false); err == nil {
			t.Errorf("%q was taken for compression without takeover", agreed)
		}
	}
}

func TestNumber(t *testing.T) {
	for x, want := range map[float64]string{0: "0", 0.123456: "0.123", 12.34: "12.3", 123.6: "124", 5466: "5,466", 186_000: "186,000", 2_181_000: "2.18 M", math.NaN(): "–"} {
		if got := number(x); got != want {
			t.Errorf("%v is printed %q, want %q", x, got, want)
		}
	}
}

// The stdio server answers with the bytes it was asked with, however its input
// is cut, and one write holds all answers to what one read brought.
func TestStdioServer(t *testing.T) {
	var in, want []byte
	in = append(in, `{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18"}}`+"\n"...)
	want = append(want, `{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"echo","version":"1"}}}`+"\n"...)
	in = append(in, `{"jsonrpc":"2.0","method":"notifications/initialized"}`+"\n"...)
	for i, text := range [][]byte{[]byte("a"), bytes.Repeat([]byte("x"), 600<<10), mixed(1000), nil} {
		in = append(append(in, echoCall(i, text)...), '\n')
		want = appendEcho(want, fmt.Append(nil, i), text)
	}
	// As another gateway writes it: other order, id a string.
	in = append(in, `{"method":"tools/call","params":{"arguments":{"text":"\"é"},"name":"echo"},"jsonrpc":"2.0","id":"c:1"}`+"\n"...)
	want = appendEcho(want, []byte(`"c:1"`), []byte(`\"é`))
	in = append(in, `{"jsonrpc":"2.0","id":9,"method":"nonsense"}`+"\n"...)
	want = append(want, `{"jsonrpc":"2.0","id":9,"error":{"code":-32601,"message":"no such method"}}`+"\n"...)
	for name, r := range map[string]io.Reader{"whole": bytes.NewReader(in), "bytes": iotest.OneByteReader(bytes.NewReader(in)), "halves": iotest.HalfReader(bytes.NewReader(in))} {
		var out bytes.Buffer
		if err := serveStdio(r, &out); err != nil {
			t.Fatal(name, err)
		}
		if !bytes.Equal(out.Bytes(), want) {
			t.Errorf("%s: %d bytes came back, want %d", name, out.Len(), len(want))
		}
	}
	if err := serveStdio(strings.NewReader("no JSON\n"), io.Discard); err == nil {
		t.Error("a line that is no JSON was taken")
	}
}

// A suite has a part of the document, and a file, of its own.
func TestSuitesAreApart(t *testing.T) {
	seen := map[string]string{}
	for _, s := range suites() {
		begin, end := s.marks()
		for _, name := range []string{begin, end, s.results()} {
			if other := seen[name]; other != "" {
				t.Errorf("%s and %s both have %q", s.id, other, name)
			}
			seen[name] = s.id
		}
		if suiteOf(s.id) != s {
			t.Errorf("%s is not found", s.id)
		}
	}
	if suiteOf("nonsense") != nil {
		t.Error("a suite that does not exist was found")
	}
}

// Without a floor there is no column for it, and another way to run weft is
// shown but is no rival.
func TestSuiteWithoutFloor(t *testing.T) {
	s := &suite{id: "s", contenders: []*contender{{name: ours}, {name: "rival"}, {name: "weft-other", own: true}}}
	c := &cell{id: "c", title: "a cell", metrics: []metric{{id: "rate", title: "per second", higher: true}}}
	values := map[string]map[string][]float64{"rate": {ours: {4, 4}, "rival": {2, 2}, "weft-other": {9, 9}}}
	table := table{suite: s, columns: []string{"rival", ours, "weft-other"}}
	table.add(c, &cellResult{Values: values})
	if want := []string{"a cell", "per second", "2", "4", "9", "2 [2, 2] rival"}; !slices.Equal(table.rows[0], want) {
		t.Errorf("%q, want %q", table.rows[0], want)
	}
	if got := s.ratios(); !slices.Equal(got, []string{"weft/best"}) {
		t.Errorf("%q", got)
	}
}
