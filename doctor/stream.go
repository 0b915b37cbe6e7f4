package doctor

import (
	"math"
	"strconv"
	"time"

	"github.com/weft-ws/weft/capture"
	"github.com/weft-ws/weft/internal/wire"
)

// A phase says what the next bytes of a direction are.
type phase uint8

const (
	inHead   phase = iota // of an HTTP request or response
	waiting               // the client's first frames, before the response
	inFrames              // frames
	isBlind               // nobody can tell
)

// historyMax is how many frames before the guilty one a finding shows.
const historyMax = 8

// earlyMax is how many bytes are kept that a client sends before the response.
const earlyMax = 16 << 10

// A stream is one direction of the connection.
type stream struct {
	in    *Inspector
	peer  *stream // the other direction
	from  capture.Side
	phase phase
	blind string // why, once phase is isBlind
	head  head
	early []byte

	header  [wire.HeaderMax]byte
	nheader int
	offset  int64  // bytes of frames taken in
	index   int64  // frames taken in
	frame   Frame  // the current one
	left    uint64 // payload bytes of it to come
	key     [4]byte
	use     payloadUse
	control [wire.ControlPayloadMax]byte
	ncontr  int

	message  message
	previous message // the last complete one, for what follows it
	begun    bool    // there has been a data frame
	recent   [historyMax]Frame
	inflater *inflater
	spoiled  bool // the inflater has lost the thread

	keys        keyWatch
	faulty      bool // this side has broken a rule that ends a connection
	muted       bool // frames can be told apart, but are not judged
	closed      bool // a Close frame was sent
	closeFrame  Frame
	closeCode   CloseCode
	dataSaid    bool // data after Close was reported
	framesSaid  bool // other frames after Close were reported
	pings       pingLog
	overLimit   overLimit
	silenceSaid bool

	end    capture.EndKind
	endAt  time.Time
	lastAt time.Time // of the last byte
	flood  flood
	tap    *tap
}

// payloadUse says what is done with the payload of the current frame.
type payloadUse uint8

const (
	skipPayload payloadUse = iota
	controlPayload
	textPayload
	deflatedPayload
)

// A message is a data message as far as it has come.
type message struct {
	open        bool
	opcode      Opcode
	compressed  bool
	fragments   int
	empty       int    // fragments without payload and without FIN
	size        uint64 // payload bytes announced so far, as on the wire
	first, end  Frame  // its first frame and its last so far
	started     time.Time
	last        time.Time // when its last fragment's header came
	interleaved bool      // a control frame came between its fragments
	stalled     bool      // reported as stalling
	skip        bool      // its content is not judged any more
	text        text
	inflated    uint64
}

// feed takes in the next bytes.
func (s *stream) feed(p []byte) {
	for len(p) > 0 {
		switch s.phase {
		case inHead:
			p = s.feedHead(p)
		case waiting:
			s.feedEarly(p)
			return
		case inFrames:
			p = s.feedFrames(p)
		case isBlind:
			return
		}
	}
}

// feedFrames takes in bytes up to the end of a frame and returns the rest.
func (s *stream) feedFrames(p []byte) []byte {
	if s.left == 0 {
		need := 2
		if s.nheader >= 2 {
			need = headerNeed(s.header[1])
		}
		n := copy(s.header[s.nheader:need], p)
		s.nheader += n
		s.offset += int64(n)
		p = p[n:]
		if s.nheader == 2 {
			need = headerNeed(s.header[1])
			n := copy(s.header[2:need], p)
			s.nheader += n
			s.offset += int64(n)
			p = p[n:]
		}
		if s.nheader < need || s.nheader < 2 {
			return p
		}
		s.beginFrame()
		if s.phase != inFrames {
			return nil
		}
		s.nheader = 0
		s.key = s.frame.Key
		s.left = s.frame.Length
		if s.left == 0 {
			s.endFrame()
		}
		return p
	}
	n := len(p)
	if uint64(n) > s.left {
		n = int(s.left)
	}
	s.payload(p[:n])
	s.left -= uint64(n)
	s.offset += int64(n)
	if s.left == 0 {
		s.endFrame()
	}
	return p[n:]
}

// beginFrame judges a header that is complete.
func (s *stream) beginFrame() {
	in := s.in
	s.frame.decode(s.header[:s.nheader])
	f := &s.frame
	s.index++
	f.From, f.At, f.Index, f.Offset = s.from, in.now, s.index, s.offset-int64(s.nheader)
	f.Fragment, f.Total = 0, 0
	s.use, s.ncontr = skipPayload, 0

	if s.muted {
		// Close frames are still taken note of: they explain how it ended.
		if f.Opcode == wire.Close && f.Length <= wire.ControlPayloadMax {
			s.use = controlPayload
		}
		return
	}
	fault := in.checkHeader(f)
	var out *headerFault
	if fault == nil && !f.control() && !s.closed {
		out = s.enterMessage(f)
	}
	s.recent[s.index%historyMax] = *f
	in.emit(Event{Frame: f})
	if s.tap != nil {
		s.tap.header(s.from, f, ruleOf(fault, out))
	}
	if fault != nil {
		s.faulty = true
		in.report(fault.rule, s.blame(fault))
		s.goBlind("frame " + group(uint64(s.index)) + " broke the framing; where the next one begins is anybody's guess")
		return
	}
	if out != nil {
		s.faulty, s.muted = true, true
		in.cancelPings(s)
		s.overLimit.done = true
		in.report(out.rule, s.blame(out))
		return
	}
	if f.Masked && f.Length > 0 {
		if what := s.keys.next(f.Key); what != "" {
			s.keys.reported = true
			n := f.headerSize()
			in.report("FR-12", s.blame(&headerFault{"FR-12", what, [2]int{n - 4, n}, "masking key"}))
		}
	}
	if s.closed {
		s.afterClose(f)
		return
	}
	if f.control() {
		s.use = controlPayload
		if s.message.open {
			s.message.interleaved = true
		}
		s.countControl(f)
		return
	}
	s.beginData(f)
}

// ruleOf returns the rule of the first fault there is, or "".
func ruleOf(faults ...*headerFault) string {
	for _, f := range faults {
		if f != nil {
			return f.rule
		}
	}
	return ""
}

// blame makes a finding about the current frame's header.
func (s *stream) blame(h *headerFault) Finding {
	return Finding{
		From: s.from, Frame: s.frame, Offset: s.frame.Offset, Payload: -1, Detail: h.detail, History: s.history(),
		Bytes: append([]byte(nil), s.header[:s.frame.headerSize()]...), BytesAt: s.frame.Offset, Mark: h.mark, Note: h.note,
	}
}

// history returns the frames before the current one that a person needs to see
// what went wrong: the first of the message and the last few.
func (s *stream) history() []Frame {
	from := max(s.index-historyMax+1, 1)
	var out []Frame
	m := &s.message
	if !m.open {
		m = &s.previous
	}
	if i := m.first.Index; i > 0 && i < from {
		out = append(out, m.first)
	}
	for i := from; i < s.index; i++ {
		out = append(out, s.recent[i%historyMax])
	}
	return out
}

// goBlind stops judging this direction.
func (s *stream) goBlind(why string) {
	s.phase, s.blind = isBlind, why
	s.early = nil
	s.in.cancelPings(s)
	s.overLimit.done = true
}

// enterMessage is the doctor's own check of RFC 6455, 5.4, from what the
// frames before it left behind.
//
// "A fragmented message consists of a single frame with the FIN bit clear and
// an opcode other than 0, followed by zero or more frames with the FIN bit
// clear and the opcode set to 0, and terminated by a single frame with the FIN
// bit set and an opcode of 0." And: "The fragments of one message MUST NOT be
// interleaved between the fragments of another message unless an extension has
// been negotiated that can interpret the interleaving."
func (s *stream) enterMessage(f *Frame) *headerFault {
	if s.in.foreign {
		return nil
	}
	m := &s.message
	switch {
	case f.Opcode == wire.Continuation && m.open:
		m.fragments++
	case f.Opcode == wire.Continuation && !s.begun:
		return misplaced("MS-01", f, "a continuation frame must follow an open message; there was no data frame before it")
	case f.Opcode == wire.Continuation:
		return misplaced("MS-02", f, "a continuation frame must follow an open message; the last one ended in frame "+
			group(uint64(s.previous.end.Index)))
	case m.open && f.Fin:
		return misplaced("MS-03", f, "a "+f.Opcode.String()+" message starts while "+m.unfinished())
	case m.open:
		return misplaced("MS-04", f, "a second fragmented message starts while "+m.unfinished())
	default:
		*m = message{open: true, opcode: f.Opcode, compressed: f.RSV1, fragments: 1, started: f.At}
	}
	s.begun = true
	m.last = f.At
	if m.size += f.Length; m.size < f.Length {
		m.size = math.MaxUint64
	}
	f.Fragment, f.Total = m.fragments, m.size
	if m.fragments == 1 {
		m.first = *f
	}
	m.end = *f
	return nil
}

// misplaced says that a data frame stands where it may not.
func misplaced(rule string, f *Frame, detail string) *headerFault {
	note := "FIN=0, "
	if f.Fin {
		note = "FIN=1, "
	}
	return &headerFault{rule, detail, [2]int{0, 1}, note + opcodeNote(f.Opcode)}
}

func (m *message) unfinished() string {
	return "the message that began in frame " + group(uint64(m.first.Index)) + " has not had its FIN frame"
}

// afterClose judges a frame that comes after this side's own Close.
//
// RFC 6455, 5.5.1: "The application MUST NOT send any more data frames after
// sending a Close frame." Other frames there serve nobody, but break nothing.
func (s *stream) afterClose(f *Frame) {
	rule, detail := "CL-07", "nothing may follow a Close"
	said := &s.dataSaid
	if f.control() {
		rule, detail, said = "CL-13", "nothing is expected after a Close", &s.framesSaid
	}
	if *said {
		return
	}
	*said = true
	detail += "; the Close was frame " + group(uint64(s.closeFrame.Index))
	s.in.report(rule, s.blame(&headerFault{rule, detail, [2]int{0, 1}, opcodeNote(f.Opcode)}))
}

// beginData prepares for the payload of a data frame in its place.
func (s *stream) beginData(f *Frame) {
	in, m := s.in, &s.message
	s.checkLimits(f)
	s.countData(f)
	in.watchSilence(s)
	if in.foreign {
		return
	}
	if m.compressed && m.fragments == 1 {
		s.beginInflate()
	}
	switch {
	case m.skip:
	case m.compressed:
		s.use = deflatedPayload
	case m.opcode == wire.Text:
		s.use = textPayload
	}
}

// beginInflate prepares for a compressed message.
func (s *stream) beginInflate() {
	m := &s.message
	if s.inflater == nil {
		side := s.in.opening.deflate.of(s.from)
		limit := uint64(max(s.in.limits(s.peer.from).MessageSize, 0))
		s.inflater = newInflater(side.windowBits, side.takeover, limit, func(p []byte) { s.inflated(p) })
	}
	// After bad data nobody knows what the window holds.
	m.skip = s.spoiled && s.inflater.takeover
	s.inflater.begin()
}

// payload takes in some of the current frame's payload. It looks at a masked
// one in pieces, since p is only borrowed and must stay as it is.
func (s *stream) payload(p []byte) {
	if s.use == skipPayload && s.tap == nil {
		return
	}
	at := s.frame.Length - s.left
	if !s.frame.Masked {
		s.judge(at, p)
		return
	}
	if s.in.scratch == nil {
		s.in.scratch = make([]byte, scratchSize)
	}
	for len(p) > 0 {
		q := s.in.scratch[:min(len(p), scratchSize)]
		s.key = unmask(s.key, q, p[:len(q)])
		s.judge(at, q)
		at += uint64(len(q))
		p = p[len(q):]
	}
}

// judge looks at unmasked payload; at is where in the frame's payload it is.
func (s *stream) judge(at uint64, p []byte) {
	if s.tap != nil {
		s.tap.payload(s.from, p)
	}
	m := &s.message
	switch s.use {
	case controlPayload:
		s.ncontr += copy(s.control[s.ncontr:], p)
	case textPayload:
		if m.skip {
			return
		}
		if bad := m.text.write(p); bad >= 0 {
			m.skip = true
			s.faulty = true
			i := at + uint64(bad)
			s.in.report("MS-05", s.blameText("MS-05", int64(i), "byte "+group(i)+" of the frame's payload"))
		}
	case deflatedPayload:
		if m.skip {
			return
		}
		if f := s.inflater.write(p); f != nil {
			s.inflateFault(f)
		}
	}
}

// blameText makes a finding about the text of the current frame. i is the
// guilty payload byte; -1 if the text is compressed and has no place of its own.
func (s *stream) blameText(rule string, i int64, where string) Finding {
	t := &s.message.text
	char := append([]byte(nil), t.char()...)
	f := s.blame(&headerFault{rule: rule})
	f.Bytes, f.Mark, f.BytesAt = char, [2]int{len(char) - 1, len(char)}, -1
	f.Note = badByte(char)
	f.Detail = f.Note + ", " + where
	if i >= 0 {
		f.Payload = i
		f.Offset += int64(s.frame.headerSize()) + i
		if i >= int64(len(char))-1 {
			f.BytesAt = f.Offset - int64(len(char)) + 1
		}
	}
	return f
}

// inflated takes in bytes of a compressed message after inflating.
func (s *stream) inflated(p []byte) {
	m := &s.message
	at := m.inflated
	m.inflated += uint64(len(p))
	if m.opcode != wire.Text || m.skip {
		return
	}
	if bad := m.text.write(p); bad >= 0 {
		m.skip = true
		s.faulty = true
		// The window is in order, but nobody will read on: the next message is
		// judged only if it stands alone.
		s.spoiled = true
		s.in.report("MS-05", s.blameText("MS-05", -1, "byte "+group(at+uint64(bad))+" of the inflated message"))
	}
}

// inflateFault reports why the current message cannot be inflated.
func (s *stream) inflateFault(f *inflateFault) {
	m := &s.message
	if m.skip {
		return
	}
	m.skip, s.spoiled = true, true
	if f.rule == "" {
		// Over the receiver's limit: it has to stop here, and so do we.
		s.in.wentOver(s, "DF-14", s.inflater.max)
		return
	}
	s.faulty = true
	b := s.blame(&headerFault{rule: f.rule, detail: f.detail, mark: [2]int{0, 1}, note: "a frame of a compressed message"})
	if !s.frame.RSV1 {
		b.Bytes = nil
	} else {
		b.Note = "RSV1: compressed"
	}
	s.in.report(f.rule, b)
}

// endFrame is called when the payload of the current frame is complete.
func (s *stream) endFrame() {
	f := &s.frame
	s.nheader = 0
	if s.tap != nil {
		s.tap.end(s.from, f)
	}
	switch {
	case s.use == controlPayload:
		s.endControl(s.control[:s.ncontr])
	case f.control() || s.muted || s.closed || !s.message.open || !f.Fin:
		// Nothing ends here.
	default:
		s.endMessage()
	}
}

// endMessage is called when the frame with FIN is complete.
func (s *stream) endMessage() {
	m := &s.message
	if !m.skip && m.compressed && s.inflater != nil {
		if f := s.inflater.end(); f != nil {
			if f.rule == "DF-13" {
				b := s.blame(&headerFault{rule: f.rule})
				b.Detail, b.Bytes = f.detail, nil
				s.in.report(f.rule, b)
			} else {
				s.inflateFault(f)
			}
		}
	}
	if !m.skip && m.opcode == wire.Text && m.text.open() {
		s.faulty = true
		n := m.text.n
		var f Finding
		if m.compressed {
			f = s.blameText("MS-06", -1, "")
		} else {
			f = s.blameText("MS-06", int64(s.frame.Length), "")
			f.BytesAt = -1
			if s.frame.Length >= uint64(n) {
				f.BytesAt = f.Offset - int64(n)
			}
		}
		f.Mark = [2]int{0, n}
		f.Note = "a character of " + group(uint64(m.text.size)) + " bytes"
		f.Detail = "the message ends after " + group(uint64(n)) + " of the " + group(uint64(m.text.size)) + " bytes of a character"
		s.in.report("MS-06", f)
	}
	m.open = false
	s.previous = *m
}

// endControl is called when a control frame is complete.
func (s *stream) endControl(p []byte) {
	switch s.frame.Opcode {
	case wire.Ping:
		if !s.muted {
			s.in.pinged(s, p)
		}
	case wire.Pong:
		if !s.muted {
			s.in.ponged(s, p)
		}
	case wire.Close:
		if !s.muted {
			s.checkCloseBody(p)
		}
		s.in.closing(s, p)
	}
}

// checkCloseBody judges the payload of a Close frame, RFC 6455, 5.5.1 and 7.4.
func (s *stream) checkCloseBody(p []byte) {
	at := s.frame.Offset + int64(s.frame.headerSize())
	say := func(rule, detail string, bytes []byte, from, to int, note string) {
		f := s.blame(&headerFault{rule: rule, detail: detail})
		f.Bytes, f.BytesAt, f.Mark, f.Note = append([]byte(nil), bytes...), at, [2]int{from, to}, note
		f.Offset, f.Payload = at, 0
		s.in.report(rule, f)
	}
	switch len(p) {
	case 0:
		return
	case 1:
		// "If there is a body, the first two bytes of the body MUST be a 2-byte
		// unsigned integer."
		s.faulty = true
		say("CL-01", "a Close has no body or a body of two bytes and more", p, 0, 1, "half a close code")
		return
	}
	code := CloseCode(p[0])<<8 | CloseCode(p[1])
	rule, detail := "", ""
	switch {
	case code < 1000:
		rule, detail = "CL-02", "close codes begin at 1000"
	case code == 1005 || code == 1006 || code == 1015:
		rule, detail = "CL-03", "the code stands for a Close without a code, no Close at all, or failed TLS; it is never sent"
	case code == 1004 || code >= 1016 && code < 3000:
		rule, detail = "CL-04", "the code has no meaning yet"
	case code >= 5000:
		rule, detail = "CL-05", "close codes end at 4999"
	}
	num := strconv.Itoa(int(code))
	if rule != "" {
		s.faulty = true
		say(rule, "code "+num+": "+detail, p[:2], 0, 2, "close code "+num)
	} else if code == 1010 && s.from == capture.Server {
		// 7.4.1: "this status code is not used by the server, because it can
		// fail the WebSocket handshake instead."
		say("CL-12", "code 1010 is for clients; a server refuses the handshake instead", p[:2], 0, 2, "close code 1010")
	}
	// 7.1.6: the close reason is UTF-8.
	var t text
	bad := t.write(p[2:])
	if bad >= 0 || t.open() {
		s.faulty = true
		if bad < 0 {
			bad = len(p) - 2
		}
		char := append([]byte(nil), t.char()...)
		at += 2 + int64(bad)
		detail := "the reason ends inside a character"
		mark := [2]int{0, len(char)}
		note := "an unfinished character"
		first := at - int64(len(char))
		if bad < len(p)-2 {
			mark, note, first = [2]int{len(char) - 1, len(char)}, badByte(char), first+1
			detail = note + ", byte " + group(uint64(bad)) + " of the reason"
		}
		f := s.blame(&headerFault{rule: "CL-06", detail: detail})
		f.Bytes, f.BytesAt, f.Mark, f.Note, f.Offset, f.Payload = char, first, mark, note, at, int64(2+bad)
		s.in.report("CL-06", f)
	}
}
