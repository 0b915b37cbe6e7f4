package doctor

import (
	"fmt"
	"hash/maphash"
	"time"

	"github.com/weft-ws/weft/capture"
	"github.com/weft-ws/weft/internal/wire"
)

// This file holds the rules that take both directions, the end of TCP, or time.

// pingsMax is how many pings are remembered per direction.
const pingsMax = 64

// seed makes sums of ping payloads hard to collide on purpose.
var seed = maphash.MakeSeed()

// A ping is one that has been sent. Its payload is kept as a sum only.
type ping struct {
	frame Frame
	sum   uint64
}

// A pingLog is what one side has asked for by pings.
type pingLog struct {
	waiting []ping   // not answered, oldest first
	done    []uint64 // sums of pings answered by a later pong; oldest first
	lost    int      // pings that waiting had no room for
	odd     bool     // a pong has come meanwhile whose payload nobody asked for
}

func (l *pingLog) clear() {
	l.waiting, l.done, l.lost, l.odd = l.waiting[:0], l.done[:0], 0, false
}

// pinged takes note of a ping by s.
func (in *Inspector) pinged(s *stream, p []byte) {
	l := &s.pings
	if s.peer.closed {
		return // whoever has sent a Close need not answer any more
	}
	if len(l.waiting) == pingsMax {
		l.waiting = l.waiting[:copy(l.waiting, l.waiting[1:])]
		l.lost++
	}
	l.waiting = append(l.waiting, ping{s.frame, maphash.Bytes(seed, p)})
	in.armPings(s)
}

// armPings sets the timer of the oldest ping of s that waits.
func (in *Inspector) armPings(s *stream) {
	if len(s.pings.waiting) > 0 && in.opts.PongTime > 0 {
		in.arm(s.pings.waiting[0].frame.At.Add(in.opts.PongTime))
	}
}

// ponged takes note of a pong by s, an answer or not.
//
// RFC 6455, 5.5.3: "If an endpoint receives a Ping frame and has not yet sent
// Pong frame(s) in response to previous Ping frame(s), the endpoint MAY elect
// to send a Pong frame for only the most recently processed Ping frame." So a
// pong answers all pings before its own. "A Pong frame MAY be sent
// unsolicited": a pong that matches nothing is no breach by itself.
func (in *Inspector) ponged(s *stream, p []byte) {
	l := &s.peer.pings
	sum := maphash.Bytes(seed, p)
	for i := len(l.waiting) - 1; i >= 0; i-- {
		if l.waiting[i].sum != sum {
			continue
		}
		// The sender of something too long learns from the pong that the
		// receiver has read past it. An empty pong may be a heartbeat.
		if o := &s.peer.overLimit; o.armed() && l.waiting[i].frame.Index > o.frame.Index && len(p) > 0 {
			in.readOn(s.peer, "it answered a later ping", in.now)
		}
		for _, w := range l.waiting[:i] {
			// Earlier pings may be answered on their own all the same.
			l.done = append(l.done, w.sum)
		}
		l.done = l.done[max(len(l.done)-pingsMax, 0):]
		l.waiting = l.waiting[:copy(l.waiting, l.waiting[i+1:])]
		l.lost, l.odd = 0, false
		in.armPings(s.peer)
		return
	}
	for i, d := range l.done {
		if d == sum {
			l.done = append(l.done[:i], l.done[i+1:]...)
			return
		}
	}
	if l.lost > 0 {
		l.lost--
		return
	}
	l.odd = len(l.waiting) > 0
	s.countUnasked()
}

// cancelPings forgets the pings of both sides: one of them can no longer be
// held to answer, or to have asked.
func (in *Inspector) cancelPings(s *stream) {
	s.pings.clear()
	s.peer.pings.clear()
}

// noPong reports that the oldest ping of s stays unanswered.
func (in *Inspector) noPong(s *stream, at time.Time, detail string) {
	l := &s.pings
	f := Finding{From: s.peer.from, At: at, Frame: l.waiting[0].frame, Offset: l.waiting[0].frame.Offset, Payload: -1, Detail: detail}
	rule := "CT-01"
	if l.odd {
		// 5.5.3: a Pong in response to a Ping "must have identical
		// "Application data" as found in the message body of the Ping frame".
		rule = "CT-02"
		f.Detail = "a pong came, but with another payload"
	}
	l.clear()
	in.report(rule, f)
}

// An overLimit is something longer than its receiver accepts, from when it was
// announced until the receiver reacts.
type overLimit struct {
	rule  string // "": nothing yet
	frame Frame
	limit uint64
	what  string
	done  bool // judged, or no longer to be judged
}

func (o *overLimit) armed() bool { return o.rule != "" && !o.done }

// limits returns what a side accepts.
func (in *Inspector) limits(of capture.Side) Limits {
	if of == capture.Client {
		return in.opts.Client
	}
	return in.opts.Server
}

// checkLimits compares a data frame with what its receiver accepts.
func (s *stream) checkLimits(f *Frame) {
	l, m := s.in.limits(s.peer.from), &s.message
	switch {
	case l.FrameSize > 0 && f.Length > uint64(l.FrameSize):
		s.in.wentOver(s, "FR-14", uint64(l.FrameSize))
	case l.MessageSize <= 0 || m.compressed || s.in.foreign:
	case f.Length > uint64(l.MessageSize):
		s.in.wentOver(s, "FR-14", uint64(l.MessageSize))
	case m.size > uint64(l.MessageSize):
		s.in.wentOver(s, "MS-07", uint64(l.MessageSize))
	}
}

// wentOver begins to wait for the receiver's reaction to the current frame.
func (in *Inspector) wentOver(s *stream, rule string, limit uint64) {
	o := &s.overLimit
	if o.done || o.rule != "" || s.peer.closed || s.peer.end != capture.Open {
		return
	}
	o.rule, o.frame, o.limit = rule, s.frame, limit
	switch rule {
	case "FR-14":
		o.what = "a frame of " + group(s.frame.Length)
	case "MS-07":
		o.what = "a message of " + group(s.message.size) + " so far"
	default:
		o.what = "a compressed message that inflates to more"
	}
	if in.opts.ReactTime > 0 {
		in.arm(in.now.Add(in.opts.ReactTime))
	}
}

// readOn reports the receiver of s for going on past its limit.
func (in *Inspector) readOn(s *stream, why string, at time.Time) {
	o := &s.overLimit
	o.done = true
	in.report(o.rule, Finding{
		From: s.peer.from, At: at, Frame: o.frame, Offset: o.frame.Offset, Payload: -1, History: s.history(),
		Detail: fmt.Sprintf("the %s accepts %s bytes and was sent %s, but %s", s.peer.from, group(o.limit), o.what, why),
	})
}

// closing takes note of the first Close that s sends.
func (in *Inspector) closing(s *stream, body []byte) {
	if s.closed {
		return
	}
	s.closed, s.closeFrame, s.closeCode = true, s.frame, wire.CloseNoStatus
	if len(body) >= 2 {
		s.closeCode = CloseCode(body[0])<<8 | CloseCode(body[1])
	}
	peer := s.peer
	// This Close need not be an answer, even if the peer's came first: they may
	// have crossed. So it says nothing about what s has read.
	peer.overLimit.done = true
	if peer.closed {
		in.both = in.now
		if in.opts.CloseTime > 0 && in.streams[1].end == capture.Open {
			in.arm(in.now.Add(in.opts.CloseTime))
		}
	} else if s.closeCode == wire.CloseProtocolError && !s.muted {
		in.unjustClose(s)
	}
	// 5.5.2: a ping is answered "unless it already received a Close frame", and
	// who has sent one is not expected to go on.
	in.cancelPings(s)
}

// unjustClose judges a side that fails the connection with 1002 just after it
// was sent fragments, though its peer has done nothing wrong.
//
// RFC 6455, 5.4: "An endpoint MUST be capable of handling control frames in the
// middle of a fragmented message." And: "Clients and servers MUST support
// receiving both fragmented and unfragmented messages."
func (in *Inspector) unjustClose(s *stream) {
	peer := s.peer
	m := &peer.message
	if peer.faulty || peer.overLimit.rule != "" || in.foreign || m.compressed || peer.phase != inFrames || m.end.Index == 0 {
		return
	}
	if m.fragments < 2 && (!m.open || m.end.Fin) {
		return
	}
	rule, what := "MS-13", "legally fragmented"
	if m.interleaved {
		rule, what = "MS-12", "legal, control frames between its fragments included"
	}
	f := s.blame(&headerFault{rule: rule, mark: [2]int{0, 1}, note: "Close with code 1002"})
	f.Detail = fmt.Sprintf("the %s closes with 1002, but the %s's message that began in its frame %s was %s",
		s.from, peer.from, group(uint64(m.first.Index)), what)
	f.History = append([]Frame{}, peer.history()...)
	if peer.index > 0 {
		f.History = append(f.History, peer.recent[peer.index%historyMax])
	}
	in.report(rule, f)
}

// watchSilence sets the timers of an open message of s.
func (in *Inspector) watchSilence(s *stream) {
	if in.opts.SilenceTime > 0 {
		in.arm(in.now.Add(in.opts.SilenceTime))
	}
	if in.wantHints() {
		if in.hints.GapTime > 0 {
			in.arm(in.now.Add(in.hints.GapTime))
		}
		if in.hints.MessageTime > 0 {
			in.arm(s.message.started.Add(in.hints.MessageTime))
		}
	}
}

// arm makes sure that runTimers is called when t has passed.
func (in *Inspector) arm(t time.Time) {
	if in.due.IsZero() || t.Before(in.due) {
		in.due = t
	}
}

// runTimers reports everything that is overdue, in the order in which it
// became so.
func (in *Inspector) runTimers() {
	for {
		at, fire := in.nextTimer()
		in.due = at
		if fire == nil || !in.now.After(at) {
			return
		}
		fire()
	}
}

// nextTimer finds the deadline that comes next. Each fire takes away the
// reason for its timer.
func (in *Inspector) nextTimer() (at time.Time, fire func()) {
	consider := func(t time.Time, f func()) {
		if fire == nil || t.Before(at) {
			at, fire = t, f
		}
	}
	for i := range in.streams {
		s := &in.streams[i]
		peer := s.peer
		alive := s.end == capture.Open && peer.end == capture.Open
		if len(s.pings.waiting) > 0 && in.opts.PongTime > 0 && alive {
			t := s.pings.waiting[0].frame.At.Add(in.opts.PongTime)
			consider(t, func() {
				in.noPong(s, t, fmt.Sprintf("no pong within %v, and none to a later ping either", in.opts.PongTime))
			})
		}
		if o := &s.overLimit; o.armed() && in.opts.ReactTime > 0 && peer.end == capture.Open {
			t := o.frame.At.Add(in.opts.ReactTime)
			consider(t, func() { in.readOn(s, fmt.Sprintf("it did not close within %v", in.opts.ReactTime), t) })
		}
		m := &s.message
		if !m.open || s.muted || s.closed || peer.closed || s.phase != inFrames || !alive {
			continue
		}
		if in.opts.SilenceTime > 0 && !s.silenceSaid {
			t := s.lastAt.Add(in.opts.SilenceTime)
			consider(t, func() {
				s.silenceSaid = true
				in.neverFinished(s, t, fmt.Sprintf("nothing has come for %v", in.opts.SilenceTime))
			})
		}
		if in.wantHints() && !m.stalled {
			if in.hints.GapTime > 0 {
				t := m.last.Add(in.hints.GapTime)
				consider(t, func() { s.stalls(t, fmt.Sprintf("more than %v since its last fragment", in.hints.GapTime)) })
			}
			if in.hints.MessageTime > 0 {
				t := m.started.Add(in.hints.MessageTime)
				consider(t, func() { s.stalls(t, fmt.Sprintf("more than %v since its first fragment", in.hints.MessageTime)) })
			}
		}
	}
	if server := &in.streams[1]; !in.both.IsZero() && in.opts.CloseTime > 0 && server.end == capture.Open {
		t := in.both.Add(in.opts.CloseTime)
		consider(t, func() {
			in.both = time.Time{}
			// RFC 6455, 7.1.1: "The underlying TCP connection, in most normal
			// cases, SHOULD be closed first by the server", and 5.5.1: "the
			// server MUST close the underlying TCP connection immediately".
			in.report("CL-09", Finding{
				From: capture.Server, At: t, Frame: server.closeFrame, Offset: server.closeFrame.Offset, Payload: -1,
				Detail: fmt.Sprintf("TCP is still open %v after the second Close", in.opts.CloseTime),
			})
		})
	}
	return at, fire
}

// neverFinished reports the open message of s.
func (in *Inspector) neverFinished(s *stream, at time.Time, why string) {
	m := &s.message
	detail := "has had " + count(m.fragments, "fragment") + " and no FIN"
	if m.end.Fin {
		detail = fmt.Sprintf("lacks %s of the %s bytes of its last frame", group(s.left), group(m.end.Length))
	}
	in.report("MS-11", Finding{
		From: s.from, At: at, Frame: m.end, Offset: m.end.Offset, Payload: -1, History: s.history(),
		Detail: "the message that began in frame " + group(uint64(m.first.Index)) + " " + detail + "; " + why,
	})
}

// ended judges how and when a side's half of TCP ended.
func (in *Inspector) ended(s *stream, how capture.EndKind) {
	peer := s.peer
	tcp := how != capture.Timeout
	// The side that ends first is to blame; what its peer cannot finish or
	// answer after that is not the peer's fault.
	first := peer.end == capture.Open
	judged := s.phase == inFrames && !s.muted

	if first && tcp {
		s.hintIdle()
	}
	last := s.frame
	f := Finding{From: s.from, Frame: last, Offset: s.offset, Payload: -1, History: s.history()}
	cut := s.left > 0 || s.nheader > 0
	switch {
	case !judged || !first || peer.closed || peer.faulty:
	case cut && tcp:
		f.Detail = fmt.Sprintf("%s came of the %s bytes of the payload", group(last.Length-s.left), group(last.Length))
		if s.nheader > 0 {
			f.Detail = fmt.Sprintf("%s came of the next frame's header", count(s.nheader, "byte"))
			f.Frame = Frame{From: s.from, At: in.now, Index: s.index + 1, Offset: s.offset - int64(s.nheader)}
			f.Bytes, f.BytesAt = append([]byte(nil), s.header[:s.nheader]...), f.Frame.Offset
			f.Mark, f.Note = [2]int{0, s.nheader}, "the end"
		}
		f.Detail += ", then TCP ended (" + how.String() + ")"
		in.report("FR-13", f)
	case s.message.open && !s.closed && tcp:
		in.neverFinished(s, in.now, "TCP ended ("+how.String()+")")
	case s.message.open && !s.closed && !s.silenceSaid:
		in.neverFinished(s, in.now, "the "+s.from.String()+" fell silent")
	}

	switch {
	case !tcp || !first || s.closed || s.phase != inFrames:
	case peer.closed && s.muted:
	case peer.closed:
		in.report("CL-08", Finding{
			From: s.from, Frame: peer.closeFrame, Offset: peer.closeFrame.Offset, Payload: -1,
			Detail: "TCP ended (" + how.String() + ") without a Close in answer to this one",
		})
	case s.faulty || peer.faulty || peer.overLimit.armed():
		in.report("CL-10", Finding{
			From: s.from, Frame: last, Offset: s.offset, Payload: -1,
			Detail: "TCP ended (" + how.String() + ") without a Close that says why",
		})
	}

	if s.from == capture.Client && tcp && first && s.closed && !s.faulty && !peer.faulty && peer.phase == inFrames {
		since := s.closeFrame.At
		if peer.closed {
			since = in.both
		}
		if in.opts.CloseTime < 0 || in.now.Sub(since) <= in.opts.CloseTime {
			in.report("CL-11", Finding{
				From: s.from, Frame: s.closeFrame, Offset: s.closeFrame.Offset, Payload: -1,
				Detail: fmt.Sprintf("the client ended TCP (%s) %v after the last Close, before the server did", how, in.now.Sub(since).Round(time.Millisecond)),
			})
		}
	}

	s.end, s.endAt = how, in.now
	peer.overLimit.done = true
	in.cancelPings(s)
}
