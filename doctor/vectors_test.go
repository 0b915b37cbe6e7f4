package doctor_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/weft-ws/weft/capture"
	"github.com/weft-ws/weft/doctor"
	"github.com/weft-ws/weft/internal/proto"
	"github.com/weft-ws/weft/internal/wstest"
)

// vectorsDir holds the vectors of the whole project.
const vectorsDir = "../testdata/vectors"

// vectorStart is when every timed vector begins.
var vectorStart = time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)

// A cut divides a chunk into the pieces that are fed.
type cut struct {
	name string
	cut  func(frames [][]byte) [][]byte
}

var cuts = []cut{
	{"whole", func(f [][]byte) [][]byte {
		var all []byte
		for _, b := range f {
			all = append(all, b...)
		}
		return [][]byte{all}
	}},
	{"per frame", func(f [][]byte) [][]byte { return f }},
	{"per byte", func(f [][]byte) [][]byte {
		var out [][]byte
		for _, b := range f {
			for i := range b {
				out = append(out, b[i:i+1])
			}
		}
		return out
	}},
}

// TestVectors runs every vector through the doctor: whole, frame by frame and
// byte by byte, from each side that may send it.
func TestVectors(t *testing.T) {
	vectors, err := wstest.LoadVectors(os.DirFS(vectorsDir))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range vectors {
		t.Run(strings.TrimSuffix(v.Path, ".txt"), func(t *testing.T) {
			for _, c := range cuts {
				t.Run(c.name, func(t *testing.T) {
					switch v.Kind {
					case wstest.Stream:
						for _, role := range v.Roles {
							checkFindings(t, v, role, runStream(t, v, role, c))
						}
					case wstest.Connections:
						checkFindings(t, v, 0, runConnections(t, v, c))
					case wstest.Proxy:
						checkFindings(t, v, 0, runPair(t, v, c))
					default:
						checkFindings(t, v, 0, runTrace(t, v, c))
					}
				})
			}
		})
	}
}

// found is a finding with the connection on which it was.
type found struct {
	doctor.Finding
	conn int
}

func vectorOptions(t *testing.T, v *wstest.Vector) doctor.Options {
	limits := doctor.Limits{MessageSize: v.MessageLimit, FrameSize: v.FrameLimit}
	o := doctor.Options{Extensions: v.Extensions, Client: limits, Server: limits}
	if v.Hints {
		o.Hints = &doctor.Hints{}
	}
	for name, value := range v.Settings {
		d, err := time.ParseDuration(value)
		n, err2 := strconv.Atoi(value)
		if err != nil && err2 != nil {
			t.Fatalf("setting %s=%s is neither a time nor a number", name, value)
		}
		switch name {
		case "SilenceTime":
			o.SilenceTime = d
		case "EmptyFragments":
			o.Hints.EmptyFragments = n
		default:
			t.Fatalf("no setting is called %s", name)
		}
	}
	return o
}

func runStream(t *testing.T, v *wstest.Vector, receiver proto.Role, c cut) []found {
	in := doctor.New(vectorOptions(t, v))
	from := capture.Client
	if receiver == proto.Client {
		from = capture.Server
	}
	for _, p := range c.cut(v.Chunks(receiver.Peer())) {
		in.Write(from, vectorStart, p)
	}
	return plain(in.Findings())
}

func plain(fs []doctor.Finding) (out []found) {
	for _, f := range fs {
		out = append(out, found{f, 0})
	}
	return out
}

// batches joins steps that follow each other without a change of side or time,
// and cuts each batch.
func batches(steps []wstest.Step, c cut, feed func(s wstest.Step, p []byte)) {
	for i := 0; i < len(steps); {
		s := steps[i]
		if s.End != capture.Open {
			feed(s, nil)
			i++
			continue
		}
		var frames [][]byte
		for i < len(steps) && steps[i].End == capture.Open && steps[i].From == s.From && steps[i].At == s.At && steps[i].Leg == s.Leg {
			frames = append(frames, steps[i].Data)
			i++
		}
		for _, p := range c.cut(frames) {
			feed(s, p)
		}
	}
}

func hasHandshake(steps []wstest.Step) bool {
	return len(steps) > 0 && !steps[0].Frame && steps[0].End == capture.Open
}

func runTrace(t *testing.T, v *wstest.Vector, c cut) []found {
	o := vectorOptions(t, v)
	o.Handshake = hasHandshake(v.Steps)
	in := doctor.New(o)
	batches(v.Steps, c, func(s wstest.Step, p []byte) {
		in.Chunk(capture.Chunk{From: s.From, At: vectorStart.Add(s.At), Data: p, End: s.End})
	})
	return plain(in.Findings())
}

func runConnections(t *testing.T, v *wstest.Vector, c cut) (out []found) {
	o := vectorOptions(t, v)
	o.Set = doctor.NewSet(0)
	for conn := 1; ; conn++ {
		var steps []wstest.Step
		for _, s := range v.Steps {
			if s.Conn == conn {
				steps = append(steps, s)
			}
		}
		if steps == nil {
			return out
		}
		o.Handshake = hasHandshake(steps)
		in := doctor.New(o)
		batches(steps, c, func(s wstest.Step, p []byte) {
			in.Chunk(capture.Chunk{From: s.From, At: vectorStart.Add(s.At), Data: p, End: s.End})
		})
		for _, f := range in.Findings() {
			out = append(out, found{f, conn})
		}
	}
}

func runPair(t *testing.T, v *wstest.Vector, c cut) []found {
	o := doctor.PairOptions{Options: vectorOptions(t, v)}
	o.Handshake = hasHandshake(v.Steps)
	p := doctor.NewPair(o)
	batches(v.Steps, c, func(s wstest.Step, b []byte) {
		p.Chunk(doctor.Leg(s.Leg), capture.Chunk{From: s.From, At: vectorStart.Add(s.At), Data: b, End: s.End})
	})
	out := plain(p.Findings())
	out = append(out, plain(p.Inspector(doctor.Near).Findings())...)
	return append(out, plain(p.Inspector(doctor.Far).Findings())...)
}

// checkFindings compares what was found with what the vector asks for.
func checkFindings(t *testing.T, v *wstest.Vector, receiver proto.Role, got []found) {
	t.Helper()
	describe := func() string {
		var b strings.Builder
		for _, f := range got {
			fmt.Fprintf(&b, "\n\t%v", &f.Finding)
		}
		return b.String()
	}
	if len(got) != len(v.Doctor) {
		t.Fatalf("received by %v: %d findings, want %d:%s", receiver, len(got), len(v.Doctor), describe())
	}
	for i, w := range v.Doctor {
		f := got[i]
		switch {
		case f.Rule.Name != w.Rule,
			w.Frame > 0 && f.Frame.Index != int64(w.Frame),
			w.Frame == 0 && v.Kind == wstest.Handshake && f.Frame.Index != 0,
			w.Payload >= 0 && f.Payload != int64(w.Payload),
			w.From != 0 && f.From != w.From,
			w.Proxy != f.Proxy,
			w.Conn > 0 && f.conn != w.Conn:
			t.Errorf("received by %v: finding %d is not %+v:%s", receiver, i+1, w, describe())
		}
		if v.Kind == wstest.Stream && w.Payload >= 0 && f.Offset != v.Offset(receiver.Peer(), w.Frame, w.Payload) {
			t.Errorf("received by %v: finding %d is at byte %d, want %d", receiver, i+1, f.Offset, v.Offset(receiver.Peer(), w.Frame, w.Payload))
		}
		if f.Detail == "" {
			t.Errorf("finding %d says nothing in words: %v", i+1, &f.Finding)
		}
	}
}
