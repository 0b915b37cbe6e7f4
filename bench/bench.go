//go:build linux

package main

import (
	"time"
)

// A contender is one implementation under test. Its modes are the processes it
// can be: the server or client that a cell needs. A contender without the mode
// of a cell is left out of it.
type contender struct {
	name    string
	module  string // whose version the report names; empty for the standard library
	about   string // how it is used here
	variant bool   // measured only when asked for by name
	raw     bool   // plain TCP: no handshake, no framing of its own
	noEmpty bool   // the library never delivers an empty message
	modes   map[string]func(*child) error
	version string                                // where it is no Go module
	own     bool                                  // another way to run weft: shown, and no rival
	launch  func(cores, options) (*server, error) // starts a program of its own instead of a mode of this one
}

// Modes that the cells of the engine ask for.
const (
	modeEcho      = "echo"      // whole messages
	modeStream    = "stream"    // echo through the streaming reader and writer
	modePush      = "push"      // one huge message, with pings beside it; see pusher
	modeBroadcast = "broadcast" // each message received goes to all connections
	modeClient    = "client"    // the library's client, echoing what options.Target sends
)

// The options of a child process; they travel as JSON.
type options struct {
	Contender      string
	Mode           string
	MaxMessage     int64         // bytes; the library's default when 0
	Deflate        string        // "", noTakeover or takeover
	CheckUTF8      bool          // switch the check of text on where it is off by default
	MessageTimeout time.Duration // for half a message, where the library has such a thing
	Target         string        // URL, for clients
	Size           int           // of the pushed message
	BothCores      bool          // programs may use the client's core as well
	Profile        string        // file for a processor profile; a heap profile goes beside it
}

const (
	noTakeover = "no-takeover"
	takeover   = "takeover"
)

// A metric is one figure of a cell.
type metric struct {
	id     string
	title  string // with the unit
	higher bool   // is better
}

// A sample is what one round gave for one contender, by metric.
type sample map[string]float64

// A target is what weft has to reach. Exactly one bound is set; versus names
// the contender whose figure of the same round it is a multiple of, or "best"
// for the best library, and is empty for a bound in the metric's own unit.
type target struct {
	metric  string
	atMost  float64
	atLeast float64
	versus  string
	stretch bool // wished for, not demanded
}

// A cell is one row of the comparison. To add one, append it to a suite in
// suites.go; to add an implementation, append a contender there.
type cell struct {
	id      string
	title   string
	about   string // what is measured, for the document
	options options
	metrics []metric
	targets []target
	only    []string // contenders; all of the suite when nil
	fresh   bool     // a new server process for each sample
	starts  bool     // run starts the process itself
	run     func(*trial) (sample, error)
}

// A suite is a table: its contenders side by side in its cells. The first
// contender called "weft" is ours, the first that is raw is the floor.
type suite struct {
	id         string
	title      string
	file       string       // name of its results
	prepare    func() error // before anything else, still on all cores; what is missing is told, not an error
	contenders []*contender
	cells      []*cell
	check      func(cores, *contender) error // does the contender do rightly what the cells measure? For -verify
}

func (s *suite) contender(name string) *contender {
	for _, c := range s.contenders {
		if c.name == name {
			return c
		}
	}
	return nil
}

func (c *cell) metric(id string) *metric {
	for i := range c.metrics {
		if c.metrics[i].id == id {
			return &c.metrics[i]
		}
	}
	return nil
}
