package doctor

import (
	"fmt"
	"time"
)

// Hints are thresholds above which legal traffic is worth a remark. Zero means
// the default named in the comment, a negative value switches the hint off.
type Hints struct {
	EmptyFragments int           // HX-01: empty fragments without FIN in one message; default 100
	TinyFragments  int           // HX-02: fragments of one message, in number, before their mean is looked at; default 256
	TinyMean       int           // HX-02: mean payload in bytes below which they are tiny; default 8
	GapTime        time.Duration // HX-03: between two fragments; default 10 s
	MessageTime    time.Duration // HX-03: from the first fragment to FIN; default 30 s
	ControlRate    int           // HX-04: control frames of one side within a second; default 100
	UnaskedPongs   int           // HX-05: pongs of one side that answer no ping; default 10
	FrameSize      int64         // HX-06: payload of a frame in bytes; default 32 KiB
	MessageSize    int64         // HX-06: payload of a message in bytes; default 128 KiB, and again at eight times that
	IdleTolerance  time.Duration // HX-07: around an idle time of 60, 100, 300 or 600 s; default 1 s
}

func (h Hints) withDefaults() Hints {
	setDefault(&h.EmptyFragments, 100)
	setDefault(&h.TinyFragments, 256)
	setDefault(&h.TinyMean, 8)
	setDefault(&h.GapTime, 10*time.Second)
	setDefault(&h.MessageTime, 30*time.Second)
	setDefault(&h.ControlRate, 100)
	setDefault(&h.UnaskedPongs, 10)
	setDefault(&h.FrameSize, 32<<10)
	setDefault(&h.MessageSize, 128<<10)
	setDefault(&h.IdleTolerance, time.Second)
	return h
}

// A flood is what the hints count for one direction. Each is given once.
type flood struct {
	second      time.Time // when the current second of control frames began
	control     int       // control frames in it
	controlSaid bool
	unasked     int
	emptySaid   bool
	tinySaid    bool
	frameSaid   bool
	messageSaid int // 1: over MessageSize, 2: over eight times as much
}

// countControl counts a control frame.
func (s *stream) countControl(f *Frame) {
	in, l := s.in, &s.flood
	if !in.wantHints() || in.hints.ControlRate < 0 || l.controlSaid {
		return
	}
	if l.control == 0 || f.At.Sub(l.second) >= time.Second {
		l.second, l.control = f.At, 0
	}
	if l.control++; l.control > in.hints.ControlRate {
		l.controlSaid = true
		in.report("HX-04", s.blame(&headerFault{detail: fmt.Sprintf("more than %d control frames within a second", in.hints.ControlRate),
			mark: [2]int{0, 1}, note: opcodeNote(f.Opcode)}))
	}
}

// countUnasked counts a pong that nobody asked for.
func (s *stream) countUnasked() {
	in, l := s.in, &s.flood
	if !in.wantHints() || in.hints.UnaskedPongs < 0 {
		return
	}
	if l.unasked++; l.unasked == in.hints.UnaskedPongs+1 {
		in.report("HX-05", s.blame(&headerFault{detail: fmt.Sprintf("%d pongs so far answer no ping", l.unasked),
			mark: [2]int{0, 1}, note: opcodeNote(s.frame.Opcode)}))
	}
}

// countData counts a data frame in its place.
func (s *stream) countData(f *Frame) {
	in, l, m := s.in, &s.flood, &s.message
	if !in.wantHints() {
		return
	}
	h := &in.hints
	if f.Length == 0 && !f.Fin {
		m.empty++
		if h.EmptyFragments >= 0 && m.empty > h.EmptyFragments && !l.emptySaid {
			l.emptySaid = true
			in.report("HX-01", s.blame(&headerFault{detail: fmt.Sprintf("%d empty fragments in the message that began in frame %s",
				m.empty, group(uint64(m.first.Index))), mark: [2]int{1, 2}, note: "length 0"}))
		}
	}
	if full := m.fragments - m.empty; h.TinyFragments >= 0 && full >= h.TinyFragments && !l.tinySaid &&
		m.size < uint64(full)*uint64(max(h.TinyMean, 0)) {
		l.tinySaid = true
		in.report("HX-02", s.blame(&headerFault{detail: fmt.Sprintf("%d fragments hold %s bytes, each with a header of up to 14", full, group(m.size)),
			mark: [2]int{1, 2}, note: "length " + group(f.Length)}))
	}
	if h.FrameSize >= 0 && f.Length > uint64(h.FrameSize) && !l.frameSaid {
		l.frameSaid = true
		in.report("HX-06", s.blame(&headerFault{detail: fmt.Sprintf("a frame of %s bytes; common gateways refuse frames over %s",
			group(f.Length), group(uint64(h.FrameSize))), mark: [2]int{1, 1 + int(f.LengthForm)}, note: "length " + group(f.Length)}))
	}
	if h.MessageSize < 0 {
		return
	}
	class, bound := 0, uint64(h.MessageSize)
	switch {
	case m.size > 8*bound:
		class, bound = 2, 8*bound
	case m.size > bound:
		class = 1
	}
	if class > l.messageSaid {
		l.messageSaid = class
		in.report("HX-06", s.blame(&headerFault{detail: fmt.Sprintf("a message of %s bytes so far; common gateways refuse messages over %s",
			group(m.size), group(bound)), mark: [2]int{1, 1 + int(f.LengthForm)}, note: "length " + group(f.Length)}))
	}
}

// stalls gives the hint that the open message of s takes its time.
func (s *stream) stalls(at time.Time, why string) {
	m := &s.message
	m.stalled = true
	s.in.report("HX-03", Finding{From: s.from, At: at, Frame: m.end, Offset: m.end.Offset, Payload: -1, History: s.history(),
		Detail: "the message that began in frame " + group(uint64(m.first.Index)) + " is not finished: " + why})
}

// hintIdle is called when s is the first to end: a connection that was cut
// after a round time without a byte was probably cut by something in between.
func (s *stream) hintIdle() {
	in := s.in
	if !in.wantHints() || in.hints.IdleTolerance < 0 || s.closed || s.peer.closed || s.index+s.peer.index == 0 {
		return
	}
	lastAt := s.lastAt
	if s.peer.lastAt.After(lastAt) {
		lastAt = s.peer.lastAt
	}
	idle := in.now.Sub(lastAt)
	for _, round := range []time.Duration{60 * time.Second, 100 * time.Second, 300 * time.Second, 600 * time.Second} {
		if (idle - round).Abs() <= in.hints.IdleTolerance {
			in.report("HX-07", Finding{From: s.from, Frame: Frame{From: s.from}, Offset: s.offset, Payload: -1,
				Detail: fmt.Sprintf("TCP ended after %v without a byte in either direction; proxies commonly cut at %v", idle.Round(time.Millisecond), round)})
			return
		}
	}
}
