package chat

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"flag"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/nacl/secretbox"

	"github.com/weft-ws/weft/acip"
	"github.com/weft-ws/weft/chat/render"
)

// report is where BenchmarkReport puts its tables; empty: standard output.
var report = flag.String("report", "", "a `file` whose part between the marks BenchmarkReport replaces by its tables")

// quick makes BenchmarkReport as short as it can be; its figures mean nothing.
var quick = flag.Bool("quick", false, "run BenchmarkReport as fast as possible, to see whether it works")

// BenchmarkReport measures everything that docs/acip.md says about speed and
// writes the tables. It takes about eight minutes; use -benchtime 1x.
func BenchmarkReport(b *testing.B) {
	for b.Loop() {
		var out bytes.Buffer
		fmt.Fprintf(&out, "Measured on %s with %d processors, %s/%s, %s. How much other programs disturbed the calls stands in their last column.\n\n",
			time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version())
		reportPackets(b, &out)
		reportRender(b, &out)
		reportCalls(b, &out)
		reportPairs(b, &out)
		b.ReportMetric(0, "ns/op")
		if *report == "" {
			fmt.Println(out.String())
			continue
		}
		const begin, end = "<!-- bench: begin -->\n", "<!-- bench: end -->\n"
		file, err := os.ReadFile(*report)
		if err != nil {
			b.Fatal(err)
		}
		before, rest, ok := strings.Cut(string(file), begin)
		_, after, found := strings.Cut(rest, end)
		if !ok || !found {
			b.Fatalf("%s has no marks %q and %q", *report, begin, end)
		}
		if err := os.WriteFile(*report, []byte(before+begin+"\n"+out.String()+end+after), 0o644); err != nil {
			b.Fatal(err)
		}
	}
}

// shorter is a duration, or a token of it with -quick.
func shorter(d time.Duration) time.Duration {
	if *quick {
		return d / 20
	}
	return d
}

// each returns how long f takes, by its own account, called over and over.
func each(f func() time.Duration) time.Duration {
	f()
	var total time.Duration
	n := 0
	for ; total < shorter(400*time.Millisecond); n++ {
		total += f()
	}
	return total / time.Duration(n)
}

// timed is a function that is measured whole.
func timed(f func()) func() time.Duration {
	return func() time.Duration {
		t := time.Now()
		f()
		return time.Since(t)
	}
}

func reportPackets(b *testing.B, out *bytes.Buffer) {
	img := acip.ImageFrame{Width: 320, Height: 240, Format: 1, Pixels: make([]byte, 3*320*240)}
	p := acip.Packet{Type: acip.TypeImageFrame, Payload: img.AppendTo(nil)}
	sealer, err := acip.NewSealer(acip.Key{1}, rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	opener := acip.NewOpener(acip.Key{1}, [16]byte{})
	var plain, wire, box, opened []byte
	var nonce [24]byte
	var key [32]byte
	check := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	plain = p.AppendTo(nil)
	rows := []struct {
		name string
		d    time.Duration
	}{
		{"encode: header and checksum", each(timed(func() { wire = p.AppendTo(wire[:0]) }))},
		{"decode: header, checksum, picture", each(timed(func() {
			q, _, err := acip.Parse(plain)
			check(err)
			_, err = acip.ParseImageFrame(q.Payload)
			check(err)
		}))},
		{"encode and encrypt", each(timed(func() { wire, err = sealer.Seal(wire[:0], p); check(err) }))},
		{"decrypt and decode", each(func() time.Duration {
			wire, err = sealer.Seal(wire[:0], p)
			check(err)
			q, _, err := acip.Parse(wire)
			check(err)
			t := time.Now()
			_, err = opener.Open(q.Payload)
			check(err)
			return time.Since(t)
		})},
		{"secretbox alone, encrypting", each(timed(func() { box = secretbox.Seal(box[:0], plain, &nonce, &key) }))},
		{"secretbox alone, decrypting", each(timed(func() {
			var ok bool
			if opened, ok = secretbox.Open(opened[:0], box, &nonce, &key); !ok {
				b.Fatal("the box does not open")
			}
		}))},
	}
	fmt.Fprintf(out, "A picture of 320×240, %s bytes:\n\n| | µs | MB/s |\n|---|---|---|\n", "230,424")
	for _, r := range rows {
		fmt.Fprintf(out, "| %s | %.0f | %.0f |\n", r.name, r.d.Seconds()*1e6, float64(len(p.Payload))/1e6/r.d.Seconds())
	}
	out.WriteString("\n")
}

func reportRender(b *testing.B, out *bytes.Buffer) {
	var pictures [2][]byte
	src := NewPattern()
	var size render.Size
	for i := range pictures {
		var err error
		if pictures[i], size, err = src.Next(b.Context(), nil); err != nil {
			b.Fatal(err)
		}
	}
	for i := range pictures[0] {
		pictures[1][i] = pictures[0][i] + 3 // every pixel differs
	}
	fmt.Fprintf(out, "A frame in which every pixel has changed, µs:\n\n| | colours | foreground | background | half-block |\n|---|---|---|---|---|\n")
	for _, s := range []struct {
		name       string
		cols, rows int
		tiles      int
	}{{"80×24", 80, 24, 1}, {"200×60", 200, 60, 1}, {"200×60, nine tiles", 200, 60, 9}} {
		for level, colours := range []string{"mono", "16", "256", "truecolor"} {
			fmt.Fprintf(out, "| %s | %s |", s.name, colours)
			for mode := range acip.RenderMode(3) {
				r := render.New(render.Look{Cols: s.cols, Rows: s.rows, Level: acip.ColorLevel(level), Mode: mode, Palette: acip.PaletteStandard})
				in := make([]render.Source, s.tiles)
				var dst []byte
				n := uint64(0)
				d := each(timed(func() {
					n++
					for i := range in {
						in[i] = render.Source{Picture: render.Picture{Size: size, Pix: pictures[n%2]}, Version: n, ID: uint64(i + 1)}
					}
					dst = r.Append(dst[:0], in)
				}))
				fmt.Fprintf(out, " %.0f |", d.Seconds()*1e6)
			}
			out.WriteString("\n")
		}
	}
	out.WriteString("\n")
}

func reportCalls(b *testing.B, out *bytes.Buffer) {
	type cell struct {
		transport    string
		clients, fps int
		fragments    FragmentPolicy
	}
	var cells []cell
	for _, n := range []int{1, 4, 9, 32} {
		for _, tr := range []string{"ws", "tcp"} {
			cells = append(cells, cell{tr, n, 30, FragmentNever})
		}
	}
	cells = append(cells, cell{"ws", 4, 60, FragmentNever}, cell{"ws", 4, 60, FragmentAlways},
		cell{"ws", 9, 60, FragmentNever}, cell{"ws", 9, 60, FragmentAlways}, cell{"tcp", 9, 60, FragmentNever})
	rounds := 3
	if *quick {
		rounds = 1
	}
	results := make([][]result, len(cells))
	for round := range rounds {
		for k := range cells {
			i := (k + round*5) % len(cells) // in another order each time
			c := cells[i]
			results[i] = append(results[i], call(b, c.transport, c.clients, c.fps, c.fragments, shorter(6*time.Second)))
		}
	}
	fmt.Fprintf(out, "Calls on one machine, server and all clients together, every client sending 320×240 and seeing all at 80×24 in truecolor; "+
		"the median of %d calls of %v each, and the worst gap of all of them:\n\n", rounds, shorter(6*time.Second))
	out.WriteString("| clients | asked | over | long packets | frames/s of the slowest client | longest gap, ms | capture to screen p50, ms | p99, ms | processor per client, % of one core | pictures replaced, % | others, % of all cores |\n|---|---|---|---|---|---|---|---|---|---|---|\n")
	for i, c := range cells {
		rs := results[i]
		ms := func(d time.Duration) float64 { return d.Seconds() * 1e3 }
		over, long := "WebSocket", "whole"
		if c.transport == "tcp" {
			over, long = "TCP", "–"
		} else if c.fragments == FragmentAlways {
			long = "16 KiB fragments"
		}
		worst := slices.MaxFunc(rs, func(a, b result) int { return cmp.Compare(a.gap, b.gap) })
		fmt.Fprintf(out, "| %d | %d | %s | %s | %.1f | %.0f | %.1f | %.1f | %.1f | %.1f | %s |\n", c.clients, c.fps, over, long,
			median(rs, func(r result) float64 { return r.fps }), ms(worst.gap), median(rs, func(r result) float64 { return ms(r.p50) }),
			median(rs, func(r result) float64 { return ms(r.p99) }), 100*median(rs, func(r result) float64 { return r.cpu }),
			100*median(rs, func(r result) float64 { return r.dropped }), percent(median(rs, func(r result) float64 { return r.others })))
	}
	out.WriteString("\n")
}

// percent writes a share, or that it is not known.
func percent(x float64) string {
	if math.IsNaN(x) {
		return "–"
	}
	return fmt.Sprintf("%.0f", 100*x)
}

// median returns the median of a figure.
func median(rs []result, of func(result) float64) float64 {
	v := make([]float64, len(rs))
	for i, r := range rs {
		v[i] = of(r)
	}
	slices.Sort(v)
	return v[len(v)/2]
}

func reportPairs(b *testing.B, out *bytes.Buffer) {
	const rounds = 10
	out.WriteString("Pairs, measured in turns for ten rounds; the ratio with its 95 % interval:\n\n| | first | second | first/second |\n|---|---|---|---|\n")
	pair := func(name, format string, f func(k int) float64) {
		var sum [2]float64
		var ratios []float64
		for round := range rounds {
			var v [2]float64
			for k := range 2 {
				i := (round + k) % 2
				v[i] = f(i)
				sum[i] += v[i] / rounds
			}
			ratios = append(ratios, v[0]/v[1])
		}
		mean, half := interval(ratios)
		fmt.Fprintf(out, "| %s | "+format+" | "+format+" | %.3f ± %.3f |\n", name, sum[0], sum[1], mean, half)
	}
	transports := [2]string{"ws", "tcp"}
	var cpu [rounds][2]float64
	at := [2]int{}
	pair("frames/s in a call of two at 60, WebSocket and TCP", "%.1f", func(k int) float64 {
		r := call(b, transports[k], 2, 60, FragmentNever, shorter(3*time.Second))
		cpu[at[k]][k] = r.cpu
		at[k]++
		return r.fps
	})
	at = [2]int{}
	pair("… processor per client, % of one core", "%.2f", func(k int) float64 { at[k]++; return 100 * cpu[at[k]-1][k] })
	pair("encrypted pictures/s, as fast as it goes, WebSocket and TCP", "%.0f", func(k int) float64 {
		return flood(b, transports[k], false, shorter(time.Second))
	})
	pair("… over WebSocket, in 16 KiB fragments and whole", "%.0f", func(k int) float64 {
		return flood(b, "ws", k == 0, shorter(time.Second))
	})
	out.WriteString("\n")
}
