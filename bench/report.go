//go:build linux

package main

import (
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/weft-ws/weft/bench/internal/stat"
)

// A table is one suite, ready to be printed.
type table struct {
	suite   *suite
	columns []string // contenders, ours last
	rows    [][]string
	targets [][]string
}

// tables arranges the results.
func tables(r *results) ([]table, error) {
	var out []table
	for _, s := range suites() {
		t := table{suite: s}
		for _, c := range s.contenders {
			if c.name != ours && !c.own && r.has(s.id, c.name) {
				t.columns = append(t.columns, c.name)
			}
		}
		for _, c := range s.contenders {
			if (c.name == ours || c.own) && r.has(s.id, c.name) {
				t.columns = append(t.columns, c.name)
			}
		}
		for i := range r.Cells {
			res := &r.Cells[i]
			if res.Suite != s.id {
				continue
			}
			_, c, err := res.find()
			if err != nil {
				return nil, err
			}
			t.add(c, res)
		}
		if len(t.rows) > 0 {
			out = append(out, t)
		}
	}
	return out, nil
}

func (r *results) has(suite, contender string) bool {
	for _, c := range r.Cells {
		if c.Suite != suite {
			continue
		}
		for _, m := range c.Values {
			if len(m[contender]) > 0 {
				return true
			}
		}
	}
	return false
}

// add makes the rows of one cell: one for each metric, and one for each target.
func (t *table) add(c *cell, res *cellResult) {
	for i, m := range c.metrics {
		title := ""
		if i == 0 {
			title = c.title
		}
		row := []string{title, m.title}
		values := res.Values[m.id]
		for _, name := range t.columns {
			row = append(row, number(stat.Median(values[name])))
		}
		floor := t.suite.floor()
		top := best(t.suite, &c.metrics[i], values)
		row = append(row, ratio(values, top, true))
		if floor != "" {
			row = append(row, ratio(values, floor, false))
		}
		t.rows = append(t.rows, row)
	}
	for _, x := range c.targets {
		t.targets = append(t.targets, targetRow(t.suite, c, res, x))
	}
}

// floor names the contender that does nothing but pass bytes; empty when the
// suite has none.
func (s *suite) floor() string {
	for _, x := range s.contenders {
		if x.raw {
			return x.name
		}
	}
	return ""
}

// ratios are the headings of the columns after the contenders'.
func (s *suite) ratios() []string {
	if s.floor() == "" {
		return []string{"weft/best"}
	}
	return []string{"weft/best", "weft/floor"}
}

func targetRow(s *suite, c *cell, res *cellResult, x target) []string {
	bound := "at most " + number(x.atMost)
	if x.atLeast > 0 {
		bound = "at least " + number(x.atLeast)
	}
	if x.versus != "" {
		bound += " × " + x.versus
	}
	if x.stretch {
		bound += " (stretch)"
	}
	row := []string{c.title + ": " + c.metric(x.metric).title, bound}
	v, ok := judge(s, c, res, x)
	if !ok {
		return append(row, "–", "not measured")
	}
	return append(row, interval(v.interval), v.String())
}

func (v verdict) String() string {
	by := math.Abs(v.by()) * 100
	places := 0
	if by < 10 {
		places = 1
	}
	switch {
	case math.IsInf(v.interval.High, 1):
		return "one round decides nothing"
	case v.missed():
		return fmt.Sprintf("missed by %.*f %%", places, by)
	case v.by() > 0:
		return "met, within the interval"
	case by < 1:
		return "met"
	default:
		return fmt.Sprintf("met by %.*f %%", places, by)
	}
}

// ratio is ours against another's, with its interval.
func ratio(values map[string][]float64, versus string, named bool) string {
	if versus == "" || len(values[ours]) == 0 || len(values[versus]) == 0 {
		return "–"
	}
	iv := stat.Ratio(values[ours], values[versus])
	if math.IsNaN(iv.Mid) {
		return "–"
	}
	if named {
		return interval(iv) + " " + versus
	}
	return interval(iv)
}

func interval(iv stat.Interval) string {
	if math.IsInf(iv.High, 0) {
		return number(iv.Mid)
	}
	return fmt.Sprintf("%s [%s, %s]", number(iv.Mid), number(iv.Low), number(iv.High))
}

// number prints three significant digits, and whole numbers above a thousand.
func number(x float64) string {
	switch {
	case math.IsNaN(x):
		return "–"
	case x == 0:
		return "0"
	case math.Abs(x) >= 1e6:
		return fmt.Sprintf("%.3g M", x/1e6)
	case math.Abs(x) >= 1000:
		s := fmt.Sprintf("%.0f", x)
		return s[:len(s)-3] + "," + s[len(s)-3:]
	case math.Abs(x) >= 100:
		return fmt.Sprintf("%.0f", x)
	default:
		return fmt.Sprintf("%.3g", x)
	}
}

// print writes the tables for people.
func (r *results) print(w io.Writer) error {
	list, err := tables(r)
	if err != nil {
		return err
	}
	for _, t := range list {
		fmt.Fprintf(w, "%s: medians; ratios of weft with 95 %% intervals\n", t.suite.title)
		tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(tw, strings.Join(slices.Concat([]string{"", ""}, t.columns, t.suite.ratios()), "\t"))
		for _, row := range t.rows {
			fmt.Fprintln(tw, strings.Join(row, "\t"))
		}
		fmt.Fprintln(tw)
		for _, row := range t.targets {
			fmt.Fprintln(tw, strings.Join(row, "\t"))
		}
		if err := tw.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// marks are the lines of a document between which -render puts the tables of a
// suite.
func (s *suite) marks() (begin, end string) {
	if s.id == engine.id {
		return "<!-- bench: begin, generated by go run . -render -->", "<!-- bench: end -->"
	}
	return fmt.Sprintf("<!-- bench %s: begin, generated by go run . -suite %s -render -->", s.id, s.id), fmt.Sprintf("<!-- bench %s: end -->", s.id)
}

// render replaces what stands between the suite's marks in the document.
func (r *results) render(name string, s *suite) error {
	beginMark, endMark := s.marks()
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(b), beginMark)
	_, after, ok2 := strings.Cut(rest, endMark)
	if !ok || !ok2 {
		return fmt.Errorf("%s lacks the lines %q and %q", name, beginMark, endMark)
	}
	md, err := r.markdown()
	if err != nil {
		return err
	}
	return os.WriteFile(name, []byte(before+beginMark+"\n\n"+md+endMark+after), 0o644)
}

func (r *results) markdown() (string, error) {
	list, err := tables(r)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Processor: %s. %s. Samples of %d ms.\n\n", r.Processor, r.Go, r.SliceMS)
	for _, t := range list {
		fmt.Fprintf(&b, "### %s\n\n", t.suite.title)
		markdownTable(&b, slices.Concat([]string{"cell", "median of"}, r.columns(t), t.suite.ratios()), t.rows)
		if len(t.targets) > 0 {
			fmt.Fprintf(&b, "Targets of weft, estimate with 95 %% interval:\n\n")
			markdownTable(&b, []string{"figure", "target", "reached", "verdict"}, t.targets)
		}
	}
	b.WriteString(r.remarks())
	for _, t := range list {
		fmt.Fprintf(&b, "### Cells and contenders of: %s\n\n", t.suite.title)
		for _, c := range t.suite.cells {
			fmt.Fprintf(&b, "- **%s** (`%s`). %s\n", c.title, c.id, c.about)
		}
		b.WriteString("\n")
		for _, c := range t.suite.contenders {
			when := ""
			if c.variant {
				when = " Only when named with `-libs`."
			}
			fmt.Fprintf(&b, "- **%s**: %s.%s\n", c.name, c.about, when)
		}
		b.WriteString("\n")
	}
	return b.String(), nil
}

// columns are the headings, with versions.
func (r *results) columns(t table) []string {
	var out []string
	for _, c := range t.columns {
		if v := strings.TrimPrefix(r.Versions[c], "v"); v != "" {
			c += " " + v
		}
		out = append(out, c)
	}
	return out
}

func markdownTable(b *strings.Builder, head []string, rows [][]string) {
	fmt.Fprintf(b, "| %s |\n|%s\n", strings.Join(head, " | "), strings.Repeat(" --- |", len(head)))
	for _, row := range rows {
		fmt.Fprintf(b, "| %s |\n", strings.Join(row, " | "))
	}
	b.WriteString("\n")
}

// remarks say what the tables do not show: noise, repeats, and who failed.
func (r *results) remarks() string {
	var b strings.Builder
	rounds, noise := map[int][]string{}, 0.0
	for _, c := range r.Cells {
		rounds[c.Rounds] = append(rounds[c.Rounds], c.ID)
		noise = max(noise, c.Noise)
	}
	fewest := math.MaxInt
	for n := range rounds {
		fewest = min(fewest, n)
	}
	fmt.Fprintf(&b, "Paired rounds: %d", fewest)
	for _, n := range slices.Sorted(maps.Keys(rounds)) {
		if n > fewest {
			fmt.Fprintf(&b, "; %d in %s, whose intervals were wide", n, strings.Join(rounds[n], ", "))
		}
	}
	fmt.Fprintf(&b, ". Other programs took at most %.0f %% of the two cores during a sample that was kept.\n\n", 100*noise)
	for _, c := range r.Cells {
		for _, name := range slices.Sorted(maps.Keys(c.Failed)) {
			fmt.Fprintf(&b, "- %s took no part in %s: %s\n", name, c.ID, c.Failed[name])
		}
	}
	if r.failures() > 0 {
		b.WriteString("\n")
	}
	return b.String()
}
