//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"slices"

	"github.com/weft-ws/weft/bench/internal/sys"
)

// results is the file that a run writes.
type results struct {
	Processor string
	Go        string
	Versions  map[string]string // by contender
	SliceMS   int64             // measured time of each sample
	Cells     []cellResult
}

// A cellResult is every round of a cell: Values[metric][contender][round].
type cellResult struct {
	Suite  string
	ID     string
	Taken  string // date, UTC
	Rounds int
	Noise  float64 // the largest share of the two cores that others had during a sample
	Values map[string]map[string][]float64
	Failed map[string]string `json:",omitempty"`
}

func newResults(sliceMS int64, s *suite) *results {
	r := &results{Processor: sys.Processor(), Go: runtime.Version(), SliceMS: sliceMS, Versions: map[string]string{}}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return r
	}
	for _, c := range s.contenders {
		if c.version != "" {
			r.Versions[c.name] = c.version
		}
		for _, d := range info.Deps {
			if d.Path == c.module && c.name != ours {
				r.Versions[c.name] = d.Version
			}
		}
	}
	return r
}

func readResults(name string) (*results, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	r := &results{}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return r, nil
}

// merge takes cells of other that r lacks, so that part of the benchmark can be
// repeated. Cells taken elsewhere, or with other versions, do not belong in the
// same file.
func (r *results) merge(other *results) error {
	if r.Processor != other.Processor || r.Go != other.Go {
		return fmt.Errorf("the file holds figures of %q with %s, this is %q with %s", other.Processor, other.Go, r.Processor, r.Go)
	}
	for name, v := range other.Versions {
		if r.Versions[name] != v {
			return fmt.Errorf("the file holds figures of %s %s, this is %s", name, v, r.Versions[name])
		}
	}
	for _, c := range other.Cells {
		if !slices.ContainsFunc(r.Cells, func(x cellResult) bool { return x.ID == c.ID }) {
			r.Cells = append(r.Cells, c)
		}
	}
	// In the order of the suites.
	place := map[string]int{}
	for _, s := range suites() {
		for _, c := range s.cells {
			place[c.id] = len(place)
		}
	}
	slices.SortStableFunc(r.Cells, func(a, b cellResult) int { return place[a.ID] - place[b.ID] })
	return nil
}

// save writes the results to the file, keeping what else is in it unless they
// are complete.
func (r *results) save(name string, complete bool) error {
	if !complete {
		old, err := readResults(name)
		if err == nil {
			err = r.merge(old)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return r.write(name)
}

// write puts the results into the file, one contender's rounds a line.
func (r *results) write(name string) error {
	for i := range r.Cells {
		c := &r.Cells[i]
		c.Noise = round4(c.Noise)
		for _, m := range c.Values {
			for _, rounds := range m {
				for i := range rounds {
					rounds[i] = round4(rounds[i])
				}
			}
		}
	}
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	b = bytes.ReplaceAll(b, []byte(`],"`), []byte("],\n\""))
	b = bytes.ReplaceAll(b, []byte(`{"Suite"`), []byte("\n{\"Suite\""))
	b = bytes.ReplaceAll(b, []byte(`":{"`), []byte("\":{\n\""))
	if err := os.WriteFile(name, append(b, '\n'), 0o644); err != nil {
		return err
	}
	return nil
}

// failures counts the contenders that were left out of a cell.
func (r *results) failures() int {
	n := 0
	for _, c := range r.Cells {
		n += len(c.Failed)
	}
	return n
}

// round4 keeps four significant digits: more would be noise.
func round4(x float64) float64 {
	if x == 0 || math.IsInf(x, 0) || math.IsNaN(x) {
		return x
	}
	scale := math.Pow(10, 3-math.Floor(math.Log10(math.Abs(x))))
	return math.Round(x*scale) / scale
}

// cell finds the definition of a result; cells that have been removed since
// are skipped.
func (c *cellResult) find() (*suite, *cell, error) {
	for _, s := range suites() {
		for _, x := range s.cells {
			if s.id == c.Suite && x.id == c.ID {
				return s, x, nil
			}
		}
	}
	return nil, nil, errors.New("no such cell: " + c.ID)
}
