//go:build linux

package main

import (
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"time"

	"github.com/weft-ws/weft/bench/internal/stat"
)

// A runner measures cells.
type runner struct {
	on       cores
	rounds   int           // paired rounds of each cell
	most     int           // rounds at most, when intervals stay wide
	slice    time.Duration // of each sample
	quick    bool
	profile  string // directory for profiles of weft; none when empty
	progress io.Writer

	started time.Time
	done    int // samples taken
	planned int
}

// Limits of what a runner tolerates.
const (
	wide      = 0.10 // half width of an interval that asks for more rounds
	noisy     = 0.10 // share of the two cores that others may take of a sample
	noisyTake = 3    // attempts at a quiet sample; the quietest is kept
	rotation  = 1    // seed of the order within rounds

	// profileSlice is long enough for two hundred samples of a profile.
	profileSlice = 2 * time.Second
)

// job is a cell with those who take part.
type job struct {
	suite      *suite
	cell       *cell
	contenders []*contender
}

// jobs lists what is to be measured: cells by id (all when empty), libraries by
// name (all but variants when empty).
func jobs(list []*suite, cells, libs []string) ([]job, error) {
	var out []job
	known := map[string]bool{}
	for _, s := range list {
		for _, c := range s.contenders {
			known[c.name] = true
		}
		for _, c := range s.cells {
			known[c.id], known[s.id] = true, true
			if len(cells) > 0 && !slices.Contains(cells, c.id) && !slices.Contains(cells, s.id) {
				continue
			}
			j := job{suite: s, cell: c}
			for _, l := range s.contenders {
				if l.modes[c.options.Mode] == nil && l.launch == nil || len(libs) == 0 && l.variant || len(libs) > 0 && !slices.Contains(libs, l.name) {
					continue
				}
				if c.only != nil && !slices.Contains(c.only, l.name) && !l.variant {
					continue
				}
				j.contenders = append(j.contenders, l)
			}
			if len(j.contenders) > 0 {
				out = append(out, j)
			}
		}
	}
	for _, name := range slices.Concat(cells, libs) {
		if !known[name] {
			return nil, fmt.Errorf("no cell, suite or library is called %q; -list names them all", name)
		}
	}
	return out, nil
}

// run measures all jobs. A contender that fails is left out of its cell, with
// the reason.
func (r *runner) run(list []job) ([]cellResult, error) {
	r.started = time.Now()
	for _, j := range list {
		r.planned += r.rounds * len(j.contenders)
	}
	var out []cellResult
	for i, j := range list {
		res, err := r.cell(fmt.Sprintf("cell %d of %d, %s", i+1, len(list), j.cell.id), j)
		if err != nil {
			return out, err
		}
		out = append(out, res)
	}
	return out, nil
}

func (r *runner) cell(name string, j job) (cellResult, error) {
	res := cellResult{Suite: j.suite.id, ID: j.cell.id, Values: map[string]map[string][]float64{}, Failed: map[string]string{}}
	for _, m := range j.cell.metrics {
		res.Values[m.id] = map[string][]float64{}
	}
	servers := map[string]*server{}
	defer func() {
		for _, s := range servers {
			s.stop()
		}
	}()
	in := slices.Clone(j.contenders)
	fail := func(c *contender, err error) {
		res.Failed[c.name] = err.Error()
		fmt.Fprintf(r.progress, "%s: %s left out: %v\n", name, c.name, err)
		in = slices.DeleteFunc(in, func(x *contender) bool { return x == c })
		for _, m := range res.Values {
			delete(m, c.name)
		}
	}
	if !j.cell.fresh && !j.cell.starts {
		for _, c := range j.contenders {
			s, err := startServer(r.on, c, j.cell.options)
			if err != nil {
				fail(c, err)
				continue
			}
			servers[c.name] = s
		}
	}
	rng := rand.New(rand.NewPCG(rotation, uint64(len(j.cell.id))))
	planned := r.rounds
	for round := 0; round < planned && len(in) > 0; round++ {
		fmt.Fprintf(r.progress, "%s: round %d of %d%s\n", name, round+1, planned, r.left())
		order := slices.Clone(in)
		rng.Shuffle(len(order), func(a, b int) { order[a], order[b] = order[b], order[a] })
		for _, c := range order {
			v, foreign, err := r.quietSample(j, c, servers[c.name])
			r.done++
			if err != nil {
				fail(c, err)
				continue
			}
			res.Noise = max(res.Noise, foreign)
			for _, m := range j.cell.metrics {
				res.Values[m.id][c.name] = append(res.Values[m.id][c.name], v[m.id])
			}
		}
		if round+1 == planned && planned < r.most && res.widest(j) > wide {
			planned = min(planned+max(r.rounds/2, 1), r.most)
			r.planned += (planned - round - 1) * len(in)
		}
		res.Rounds = round + 1
	}
	if r.profile != "" {
		for _, c := range in {
			if c.name != ours {
				continue
			}
			if _, err := r.sample(j, c, nil, filepath.Join(r.profile, j.cell.id+".pprof")); err != nil {
				return res, fmt.Errorf("profile of %s: %w", j.cell.id, err)
			}
		}
	}
	res.Taken = time.Now().UTC().Format(time.DateOnly)
	return res, nil
}

// quietSample takes a sample during which others left the cores alone; failing
// that, the quietest of a few. On a machine that is far too busy a sample can
// fail for that alone, so a failure is final only when it repeats itself.
func (r *runner) quietSample(j job, c *contender, s *server) (sample, float64, error) {
	best, foreign := sample(nil), math.Inf(1)
	var last error
	for range noisyTake {
		t, err := r.sample(j, c, s, "")
		if err != nil {
			last = err
			continue
		}
		if t.foreign < foreign {
			best, foreign = t.result, t.foreign
		}
		if foreign <= noisy || r.quick {
			break
		}
	}
	if best == nil {
		return nil, 0, last
	}
	return best, foreign, nil
}

// sample takes one sample, from the running server s or, with a profile, from
// a new one.
func (r *runner) sample(j job, c *contender, s *server, profile string) (*trial, error) {
	t := &trial{server: s, cell: j.cell, options: j.cell.options, cores: r.on, slice: r.slice, warm: r.slice / 4, quick: r.quick}
	if t.options.Profile = profile; profile != "" {
		t.slice = max(t.slice, profileSlice)
	}
	switch {
	case j.cell.starts:
		t.server = &server{contender: c}
	case j.cell.fresh || profile != "":
		s, err := startServer(r.on, c, t.options)
		if err != nil {
			return nil, err
		}
		defer s.stop()
		t.server = s
	}
	var err error
	t.result, err = j.cell.run(t)
	return t, err
}

// left estimates the time that remains.
func (r *runner) left() string {
	if r.done == 0 {
		return ""
	}
	each := time.Since(r.started) / time.Duration(r.done)
	return fmt.Sprintf(", about %s left", (each * time.Duration(max(r.planned-r.done, 0))).Round(time.Second))
}

// widest is the half width of the widest interval that a target of the cell is
// judged by.
func (c *cellResult) widest(j job) float64 {
	w := 0.0
	for _, t := range j.cell.targets {
		if t.stretch {
			continue
		}
		if v, ok := judge(j.suite, j.cell, c, t); ok && !math.IsInf(v.interval.High, 1) {
			w = max(w, v.interval.Width())
		}
	}
	return w
}

// A verdict is a target held against what was measured.
type verdict struct {
	target   target
	versus   string // the contender compared with; empty for a plain value
	interval stat.Interval
	bound    float64
}

// missed says that the interval excludes the target.
func (v verdict) missed() bool {
	if v.target.atLeast > 0 {
		return v.interval.High < v.bound
	}
	return v.interval.Low > v.bound
}

// by is how far the estimate lies on the wrong side of the bound, as a fraction
// of the bound; negative on the right side.
func (v verdict) by() float64 {
	if v.target.atLeast > 0 {
		return 1 - v.interval.Mid/v.bound
	}
	return v.interval.Mid/v.bound - 1
}

// judge compares what weft reached with a target. It reports false when one of
// the two was not measured.
func judge(s *suite, c *cell, res *cellResult, t target) (verdict, bool) {
	v := verdict{target: t, bound: max(t.atMost, t.atLeast)}
	values := res.Values[t.metric]
	mine := values[ours]
	if len(mine) == 0 {
		return v, false
	}
	switch v.versus = t.versus; v.versus {
	case "":
		v.interval = stat.Value(mine)
		return v, true
	case "best":
		v.versus = best(s, c.metric(t.metric), values)
	}
	if len(values[v.versus]) == 0 {
		return v, false
	}
	v.interval = stat.Ratio(mine, values[v.versus])
	return v, true
}

// best names the library, other than ours and the floor, with the best median;
// empty when there is none.
func best(s *suite, m *metric, values map[string][]float64) string {
	name, top := "", math.NaN()
	for _, c := range s.contenders {
		if c.name == ours || c.own || c.raw || c.variant || len(values[c.name]) == 0 {
			continue
		}
		v := stat.Median(values[c.name])
		if name == "" || m.higher && v > top || !m.higher && v < top {
			name, top = c.name, v
		}
	}
	return name
}

// ours is the contender that the targets are for.
const ours = "weft"
