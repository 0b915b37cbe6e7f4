// Package doctor finds the first frame that broke the protocol.
//
// An Inspector watches both directions of one connection, from the HTTP
// upgrade to the end of TCP, and judges them by every rule of RFC 6455 and
// RFC 7692 that shows in the bytes. It shares the catalogue of rules with the
// engine and nothing else: HTTP, extension, frame, text and inflate parsers
// are its own, so that the judge cannot inherit a mistake of the judged.
//
// A Set compares the handshakes of several connections, and a Pair the two
// sides of an intermediary.
//
// A good order to read: doctor.go (the way in), finding.go (what comes out),
// stream.go (frames and messages of one direction), cross.go (what takes both
// directions), opening.go and extensions.go (the upgrade), inflate.go and
// text.go (payloads), hints.go, pair.go, set.go.
package doctor

import (
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/weft-ws/weft/capture"
	"github.com/weft-ws/weft/internal/proto"
	"github.com/weft-ws/weft/internal/wire"
)

type (
	// A Rule is one requirement on the wire.
	Rule = proto.Rule
	// An Opcode is the frame type of RFC 6455 section 5.2.
	Opcode = wire.Opcode
	// A CloseCode is a status code of RFC 6455 section 7.4.
	CloseCode = wire.CloseCode
)

// Rules yields every rule that is judged, in the order of docs/rules.md.
func Rules() iter.Seq[Rule] { return proto.Rules() }

// Options say how to judge. The zero value judges streams of frames without
// an opening handshake, extension or size limit.
type Options struct {
	// Handshake: the streams begin with the HTTP upgrade. Extensions are then
	// taken from it.
	Handshake bool
	// Extensions is the Sec-WebSocket-Extensions value on which both ends
	// agreed, for streams without Handshake. Default: none is active.
	Extensions string

	// Only says that the recording holds what this side sent and nothing of the
	// other: rules that the other's silence would seem to break are not judged.
	// After a request alone, permessage-deflate counts as agreed on if it was
	// offered. Default: both sides are there.
	Only capture.Side

	// Client and Server are what each end accepts from the other. They judge
	// the receiver: whoever reads on past its own limit breaks a rule.
	Client, Server Limits

	// SilenceTime is how long an unfinished message may be silent before the
	// sender counts as gone (message-never-finished). Default: only the end of
	// the stream decides.
	SilenceTime time.Duration
	// PongTime is how long a ping may go unanswered. Default 30 s; negative:
	// for ever.
	PongTime time.Duration
	// CloseTime is how long the server may keep TCP open after both Close
	// frames. Default 10 s; negative: for ever.
	CloseTime time.Duration
	// ReactTime is how long a receiver may take to close after something over
	// its limit was announced. Default 5 s; negative: for ever.
	ReactTime time.Duration

	// Hints asks for what is legal but often a cause of trouble; nil: no hints.
	Hints *Hints
	// Ignore lists rules, by ID or name, that are not reported.
	Ignore []string
	// FindingsMax bounds how many findings are kept; the rest is counted.
	// Default 100.
	FindingsMax int
	// Set is told of the connection's handshake key, to notice one used twice.
	Set *Set
	// Source names the recording in what a Finding prints, such as a file name.
	Source string
}

// Limits are sizes that an end accepts, in bytes; zero means any size.
type Limits struct {
	FrameSize   int64 // payload of one frame as announced
	MessageSize int64 // payload of one message, after inflating
}

const (
	defaultPongTime    = 30 * time.Second
	defaultCloseTime   = 10 * time.Second
	defaultReactTime   = 5 * time.Second
	defaultFindingsMax = 100
)

// An Inspector judges one connection. It does no I/O, asks for no time and
// keeps no payload. Its memory is bounded: about 10 KiB and 40 KiB more for
// each direction that sends compressed messages, up to 64 KiB a direction while
// an HTTP head is incomplete, and half a KiB and the history for each finding.
//
// An Inspector is used by one goroutine at a time: give it the bytes of both
// directions in the order in which they were seen.
type Inspector struct {
	opts     Options
	streams  [2]stream // client's, server's
	now      time.Time
	due      time.Time // when the next timer may fire; zero: never
	deflate  bool      // permessage-deflate is active
	foreign  bool      // an extension that we do not know is active
	opening  Opening
	request  *request // until the response has come
	findings []Finding
	lost     int64
	yield    func(Event) bool
	scratch  []byte
	both     time.Time // when the second Close was seen
	hints    Hints
}

// New returns an Inspector of a connection from which nothing has been seen.
func New(opts Options) *Inspector {
	in := &Inspector{opts: opts}
	setDefault(&in.opts.PongTime, defaultPongTime)
	setDefault(&in.opts.CloseTime, defaultCloseTime)
	setDefault(&in.opts.ReactTime, defaultReactTime)
	setDefault(&in.opts.FindingsMax, defaultFindingsMax)
	if opts.Hints != nil {
		in.hints = opts.Hints.withDefaults()
	}
	for i, side := range []capture.Side{capture.Client, capture.Server} {
		s := &in.streams[i]
		s.in, s.from, s.phase = in, side, inFrames
		s.peer = &in.streams[1-i]
		if opts.Handshake {
			s.phase = inHead
		}
	}
	if !opts.Handshake {
		in.agree(opts.Extensions)
	}
	return in
}

func setDefault[T int | int64 | time.Duration](p *T, v T) {
	if *p == 0 {
		*p = v
	}
}

// An Event is what an Inspector learnt: exactly one of the fields is set.
type Event struct {
	Frame   *Frame   // a header was complete and its direction is still judged
	Finding *Finding // a rule was broken
	Opening *Opening // the server has answered the upgrade request
}

// Feed takes the next bytes that a side sent and yields what they tell, in
// order: a frame before the findings about it. p is not changed and not kept.
// Bytes are taken in while the sequence is ranged over; a loop that ends early
// still takes in all of p. Pointers in an Event are valid until the next one.
func (in *Inspector) Feed(from capture.Side, at time.Time, p []byte) iter.Seq[Event] {
	return func(yield func(Event) bool) {
		in.yield = yield
		in.Write(from, at, p)
		in.yield = nil
	}
}

// Write is Feed for those who look at Findings later: it allocates nothing
// unless there is something to report.
func (in *Inspector) Write(from capture.Side, at time.Time, p []byte) {
	in.Advance(at)
	s := in.stream(from)
	if s.end == capture.Open && len(p) > 0 {
		s.feed(p)
		s.lastAt = in.now
	}
}

// Close takes note of how a side's half of the connection ended, and returns
// the first thing that could be known only then, or nil. An end of kind
// capture.Timeout says that the side fell silent, not that TCP ended.
func (in *Inspector) Close(from capture.Side, at time.Time, how capture.EndKind) *Finding {
	in.Advance(at)
	s := in.stream(from)
	if s.end != capture.Open || how == capture.Open {
		return nil
	}
	n := len(in.findings)
	in.ended(s, how)
	if n < len(in.findings) {
		return &in.findings[n]
	}
	return nil
}

// Advance tells the time at which nothing was seen; what is overdue then is
// reported. Time does not go back: an earlier time than the last is ignored.
func (in *Inspector) Advance(at time.Time) {
	if at.After(in.now) {
		in.now = at
	}
	if !in.due.IsZero() && in.now.After(in.due) {
		in.runTimers()
	}
}

// Chunk takes what a capture.Source yields.
func (in *Inspector) Chunk(c capture.Chunk) {
	if c.End != capture.Open {
		in.Close(c.From, c.At, c.End)
		return
	}
	in.Write(c.From, c.At, c.Data)
}

// Findings returns what has been found so far, in the order in which it
// showed. The slice belongs to the Inspector and grows with later calls.
func (in *Inspector) Findings() []Finding { return in.findings }

// Lost is how many findings there were beyond Options.FindingsMax.
func (in *Inspector) Lost() int64 { return in.lost }

// Frames is how many frames of a side were judged.
func (in *Inspector) Frames(from capture.Side) int64 { return in.stream(from).index }

// Blind says why the bytes of a side are no longer judged, or "" while they
// are. After a breach of framing nobody can tell where the next frame begins.
func (in *Inspector) Blind(from capture.Side) string { return in.stream(from).blind }

// Unfinished says inside what the bytes of a side have stopped so far, such as
// "frame 3, after 300 of its 1 000 bytes", or returns "" between messages.
func (in *Inspector) Unfinished(from capture.Side) string {
	s := in.stream(from)
	switch {
	case s.phase == inHead && len(s.head.buf) > 0:
		return "the HTTP head"
	case s.phase != inFrames:
		return ""
	case s.nheader > 0:
		return "the header of frame " + group(uint64(s.index+1))
	case s.left > 0:
		return "frame " + group(uint64(s.index)) + ", after " + group(s.frame.Length-s.left) + " of its " + count(int(s.frame.Length), "byte")
	case s.message.open:
		return "the message that began in frame " + group(uint64(s.message.first.Index))
	}
	return ""
}

// Opening returns what the opening handshake agreed on, as far as it was seen.
func (in *Inspector) Opening() Opening { return in.opening }

func (in *Inspector) stream(from capture.Side) *stream {
	if from == capture.Client {
		return &in.streams[0]
	}
	return &in.streams[1]
}

// emit hands an event to the consumer of Feed, if there is one.
func (in *Inspector) emit(ev Event) {
	if in.yield != nil && !in.yield(ev) {
		in.yield = nil
	}
}

// report completes a finding and keeps it. The caller sets who broke the rule
// and what shows it.
func (in *Inspector) report(id string, f Finding) {
	if f.At.IsZero() {
		f.At = in.now
	}
	switch {
	case !in.opts.complete(id, &f):
	case len(in.findings) >= in.opts.FindingsMax:
		in.lost++
	default:
		in.findings = append(in.findings, f)
		in.emit(Event{Finding: &in.findings[len(in.findings)-1]})
	}
}

// complete adds to a finding what follows from its rule. It reports false if
// the rule is ignored.
func (o *Options) complete(id string, f *Finding) bool {
	r := proto.RuleByID(id)
	if slices.Contains(o.Ignore, r.ID) || slices.Contains(o.Ignore, r.Name) || o.Only != 0 && takesBoth(r.ID) {
		return false
	}
	f.Rule, f.Severity, f.Source = *r, severity(r), o.Source
	if f.Cause == "" {
		f.Cause = likelyCause(f)
		if !o.Handshake && f.Frame.Index == 1 && noHeader(r.ID) {
			f.Cause = strings.TrimSuffix("the recording may begin in the middle of a frame; or "+f.Cause, "; or ")
		}
	}
	return true
}

// noHeader reports whether bytes that are no header at all break the rule first.
func noHeader(id string) bool {
	switch id {
	case "FR-03", "FR-04", "FR-05", "FR-06", "FR-07", "FR-08", "FR-09", "FR-10", "FR-11":
		return true
	}
	return false
}

// takesBoth reports whether a rule is judged by what one side does not do in
// answer to the other: nothing shows that in a recording of one side.
func takesBoth(id string) bool {
	switch id {
	case "HS-16", "CT-01", "CT-02", "CL-08", "CL-09", "CL-10", "CL-11", "MS-12", "MS-13", "HX-05", "HX-07":
		return true
	}
	return false
}

// wantHints reports whether hints are asked for.
func (in *Inspector) wantHints() bool { return in.opts.Hints != nil }

// scratchSize is how many bytes of masked payload are looked at in one piece.
const scratchSize = 4 << 10
