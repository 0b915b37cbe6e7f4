package proto

import (
	"fmt"
	"time"

	"github.com/weft-ws/weft/internal/wire"
)

// An EventKind says what Next produced.
type EventKind uint8

const (
	None  EventKind = iota // all bytes consumed, nothing to report yet
	Data                   // payload bytes of a data message, possibly none
	Ping                   // a whole ping; Payload is its application data
	Pong                   // a whole pong; Payload is its application data
	Close                  // a whole close; Code and Payload, the reason
)

// An Event is something the peer did. Payload borrows the bytes given to Next,
// or memory of the Receiver, until the next call.
type Event struct {
	Kind       EventKind
	Opcode     wire.Opcode // of the message, never Continuation
	First      bool        // the event begins the message
	Last       bool        // the event ends it
	Compressed bool        // the message had RSV1 set: Payload is DEFLATE data
	FrameStart bool        // a frame header was accepted: see Receiver.Frame
	Code       wire.CloseCode
	Payload    []byte
}

// A Receiver judges and decodes one direction of a stream of frames. It is not
// safe for concurrent use.
type Receiver struct {
	lim *Limits
	err error // the first violation; final

	from    Role
	seq     sequence
	closed  bool        // a Close was received: everything after it is discarded
	inFrame bool        // a header was accepted and its payload is not complete
	begun   bool        // an event of the open message was delivered
	packed  bool        // the open message is compressed
	opcode  wire.Opcode // of the open message
	headLen uint8       // bytes held in head
	head    [wire.HeaderMax]byte
	key     [4]byte // masking key, rotated to the next payload byte

	frame    FrameInfo // the latest; its Index counts the frames begun
	left     uint64    // payload bytes of frame still to come
	frags    int       // data frames of the open message so far
	size     int64     // payload bytes announced for the open message so far
	overhead int64     // bytes by which its frames were shorter than FrameCost
	got      int64     // payload bytes received of it
	text     Text
	offset   int64 // bytes consumed
	first    int64 // frame in which the present message began
	lastFin  int64 // frame in which the last message ended

	control *controlPieces // made with the first that needs it
	clock   *clocks        // made with the first Tick
}

// controlPieces are the payload of a control frame that comes in pieces.
type controlPieces struct {
	n int
	b [wire.ControlPayloadMax]byte
}

// An instant is a time in nanoseconds since clocks.base, plus one; zero means
// not set. Five of them take less room in an idle connection than one and a half
// time.Time.
type instant int64

// clocks are what Tick keeps between calls.
type clocks struct {
	base     time.Time // of the first Tick
	start    instant   // since when the incomplete message or frame is waited for
	progress instant   // when it last grew
	alive    instant   // when any byte was last seen
	held     instant   // since when the clocks are stopped
	bucket   instant   // when tokens was last filled
	offset   int64     // Receiver.offset at the last Tick
	unit     int64     // what start belongs to, see Receiver.unit
	mark     int64     // how far it had come at the last Tick
	tokens   float64   // control frames still allowed
}

// at turns a time into an instant.
func (c *clocks) at(t time.Time) instant {
	if c.base.IsZero() {
		c.base = t
	}
	return instant(t.Sub(c.base)) + 1
}

// NewReceiver returns a Receiver for what the given end sends. lim may be
// shared and must not change.
func NewReceiver(from Role, lim *Limits) *Receiver {
	r := new(Receiver)
	r.Init(from, lim)
	return r
}

// Init makes r ready, as NewReceiver does.
func (r *Receiver) Init(from Role, lim *Limits) {
	r.from, r.lim = from, lim
	if lim.ControlRate > 0 {
		r.clock = &clocks{tokens: float64(lim.ControlBurst)}
	}
}

// Frame is the frame whose header was accepted last.
func (r *Receiver) Frame() FrameInfo { return r.frame }

// Fragments is how many data frames the open message, or else the last one,
// has had.
func (r *Receiver) Fragments() int { return r.frags }

// Want is how many payload bytes of the current data frame are still to come:
// a caller holding the destination may read the network straight into it.
func (r *Receiver) Want() int64 {
	if !r.inFrame || r.frame.Opcode.Control() || r.err != nil {
		return 0
	}
	return int64(r.left)
}

// Opcode is the type of the open message, or else of the last one.
func (r *Receiver) Opcode() wire.Opcode { return r.opcode }

// Compressed reports whether the open message, or else the last one, has RSV1
// set.
func (r *Receiver) Compressed() bool { return r.packed }

// Received is how many payload bytes of the open message, or else of the last
// one, have come.
func (r *Receiver) Received() int64 { return r.got }

// Where says in words at which place the stream stands, for an error.
func (r *Receiver) Where() string {
	switch {
	case r.headLen > 0:
		return fmt.Sprintf("inside the header of frame %d, at byte %d", r.frame.Index+1, r.offset)
	case r.inFrame:
		return fmt.Sprintf("inside the payload of frame %d, at byte %d with %d missing", r.frame.Index, r.offset, r.left)
	case r.seq.open:
		return fmt.Sprintf("between two fragments, after frame %d at byte %d", r.frame.Index, r.offset)
	}
	return fmt.Sprintf("without a Close, after frame %d at byte %d", r.frame.Index, r.offset)
}

// Open reports whether a message has been begun and its FIN not been seen.
func (r *Receiver) Open() bool { return r.seq.open }

// Partial reports whether a message or a frame has been begun and is not
// complete.
func (r *Receiver) Partial() bool {
	return r.seq.open || r.inFrame || r.headLen > 0
}

// Next consumes a prefix of p, unmasking it in place, and reports at most one
// event. It may be given any split of the stream: one byte, one segment, ten
// messages. The first violation is final; later calls return it again.
//
// The error is a *Violation, whose rule names the close code, or a *LimitError.
//
// An observer that must forward the bytes copies them first: Next unmasks.
func (r *Receiver) Next(p []byte) (ev Event, n int, err error) {
	n, err = r.Step(&ev, p)
	return ev, n, err
}

// Step is Next with the event in the caller's memory.
func (r *Receiver) Step(ev *Event, p []byte) (n int, err error) {
	*ev = Event{}
	if r.err != nil {
		return 0, r.err
	}
	if r.closed {
		// RFC 6455, 1.4: after receiving a Close "any further data received is
		// discarded".
		r.offset += int64(len(p))
		return len(p), nil
	}
	if !r.inFrame {
		if n = r.whole(ev, p); n > 0 {
			return n, nil
		}
		if n = r.header(p); r.err != nil || !r.inFrame {
			return n, r.err
		}
		ev.FrameStart = true
	}
	if r.frame.Opcode.Control() {
		n += r.controlPayload(ev, p[n:])
	} else {
		n += r.dataPayload(ev, p[n:])
	}
	return n, r.err
}

// whole is the short way for nearly every frame: a data frame, not compressed,
// all of it in p. It takes the frame if it breaks no rule and exceeds no limit,
// and returns its length; anything else is left as it was, for the long way to
// judge.
func (r *Receiver) whole(ev *Event, p []byte) int {
	if len(p) < 2 || r.headLen > 0 || r.packed && r.seq.open {
		return 0
	}
	op, fin := wire.Opcode(p[0]&0x0f), p[0]&0x80 != 0
	masked := p[1]&0x80 != 0
	if p[0]&0x70 != 0 || op > wire.Binary || masked != (r.from == Client) {
		return 0
	}
	n, at, form := int(p[1]&0x7f), 2, uint8(1)
	if n == 126 && len(p) >= 4 {
		n, at, form = int(p[2])<<8|int(p[3]), 4, 3
		if n <= 125 {
			return 0
		}
	} else if n >= 126 {
		return 0
	}
	var key [4]byte
	if masked {
		if len(p) < at+4 {
			return 0
		}
		key = [4]byte(p[at:])
		at += 4
	}
	if len(p)-at < n {
		return 0
	}
	frags, size, overhead, got := r.frags+1, r.size+int64(n), r.overhead, r.got+int64(n)
	if op != wire.Continuation {
		frags, size, overhead, got = 1, int64(n), 0, int64(n)
	}
	if n < FrameCost && !fin {
		overhead += FrameCost - int64(n)
	}
	lim := r.lim
	if !lim.affords(size, overhead) || lim.Fragments > 0 && frags > lim.Fragments {
		return 0
	}
	seq := r.seq
	if seq.step(op, fin) != "" {
		return 0
	}
	payload := p[at : at+n]
	if masked {
		wire.Mask(key, payload)
	}
	typ := op
	if op == wire.Continuation {
		typ = r.opcode
	}
	if typ == wire.Text {
		ok := false
		if op != wire.Continuation && fin {
			ok = wire.ValidUTF8(payload)
		} else {
			text := r.text
			if op != wire.Continuation {
				text.Reset()
			}
			if ok = text.Next(payload) < 0 && (!fin || text.Complete()); ok {
				r.text = text
			}
		}
		if !ok {
			wire.Mask(key, payload) // as it came
			return 0
		}
	}
	r.frame.Index++
	if op != wire.Continuation {
		r.first, r.opcode, r.packed = r.frame.Index, op, false
	}
	r.seq, r.frags, r.size, r.overhead, r.got, r.begun = seq, frags, size, overhead, got, true
	if fin {
		r.lastFin = r.frame.Index
	}
	f := &r.frame
	f.Header = wire.Header{Fin: fin, Masked: masked, Opcode: op, LengthForm: form, Key: key, Length: uint64(n)}
	f.Dir, f.Offset, f.Fragment = In, r.offset, frags
	r.offset += int64(at + n)
	ev.Kind, ev.Opcode, ev.FrameStart, ev.First, ev.Last, ev.Payload = Data, typ, true, op != wire.Continuation, fin, payload
	return at + n
}

// Gather is the short way for a message that the peer has cut small, without an
// event for each fragment. From the beginning of p it takes whole frames that
// continue the open message and do not end it, puts their payload, unmasked,
// one behind the other into dst, and returns how much that is, how many bytes of
// p it took, and how many frames. It stops at the first frame that is anything
// else, is not all there, breaks a rule, exceeds a limit or has no room in dst;
// Step judges that one. p is not changed.
func (r *Receiver) Gather(dst, p []byte) (nd, np, frames int) {
	if r.err != nil || r.closed || r.inFrame || r.headLen > 0 || !r.seq.open || r.packed {
		return 0, 0, 0
	}
	head, second := 2, byte(0)
	if r.from == Client {
		head, second = 6, 0x80
	}
	lim := r.lim
	text := r.opcode == wire.Text
	last, lastSize := p, 0
	for lim.Fragments <= 0 || r.frags+frames < lim.Fragments {
		b := p[np:]
		// RFC 6455, 5.2: FIN and the reserved bits clear, opcode 0.
		if len(b) < head || b[0] != 0 || b[1]&0x80 != second {
			break
		}
		n, at := int(b[1]&0x7f), head
		if n >= 126 {
			if at += 2; n == 127 || len(b) < at {
				break
			}
			if n = int(b[2])<<8 | int(b[3]); n <= 125 {
				break
			}
		}
		if len(b)-at < n || len(dst)-nd < n {
			break
		}
		size, overhead := r.size+int64(n), r.overhead+max(FrameCost-int64(n), 0)
		if !lim.affords(size, overhead) {
			break
		}
		if n > 0 {
			to, from := dst[nd:nd+n], b[at:at+n]
			switch {
			case second == 0:
				copy(to, from)
			case n < 8: // quicker than a call
				key := b[at-4 : at]
				for i, x := range from {
					to[i] = x ^ key[i&3]
				}
			default:
				wire.MaskCopy([4]byte(b[at-4:at]), to, from)
			}
			if text {
				t := r.text
				if t.Next(to) >= 0 {
					break
				}
				r.text = t
			}
		}
		r.size, r.overhead = size, overhead
		nd, np, frames = nd+n, np+at+n, frames+1
		last, lastSize = b, n
	}
	if frames == 0 {
		return 0, 0, 0
	}
	r.got, r.frags, r.offset = r.got+int64(nd), r.frags+frames, r.offset+int64(np)
	f := &r.frame
	f.Header, _ = wire.ParseHeader(last)
	f.Index, f.Fragment = f.Index+int64(frames), r.frags
	f.Offset = r.offset - int64(wire.HeaderSize(last[1])+lastSize)
	return nd, np, frames
}

// header takes header bytes from p and returns how many. When the header is
// complete and right, inFrame is set.
func (r *Receiver) header(p []byte) int {
	var h wire.Header
	n, begin := 0, r.offset-int64(r.headLen)
	if r.headLen == 0 {
		if h, n = wire.ParseHeader(p); n == 0 {
			r.headLen = uint8(copy(r.head[:], p))
			r.offset += int64(len(p))
			return len(p)
		}
	} else {
		for {
			var size int
			if h, size = wire.ParseHeader(r.head[:r.headLen]); size > 0 {
				break
			}
			if n == len(p) {
				r.offset += int64(n)
				return n
			}
			r.head[r.headLen] = p[n]
			r.headLen++
			n++
		}
		r.headLen = 0
	}
	r.offset += int64(n)
	r.frame.Index++
	f := &r.frame
	f.Header, f.Dir, f.Offset, f.Fragment = h, In, begin, 0
	if id, detail := r.judge(&h); id != "" {
		r.violate(id, begin, detail)
		return n
	}
	if h.Opcode.Control() {
		if r.lim.ControlRate > 0 {
			if r.clock.tokens--; r.clock.tokens < 0 {
				r.exceed("ControlRate", int64(r.lim.ControlRate), wire.ClosePolicyViolation)
				return n
			}
		}
	} else if !r.beginData(&h) {
		return n
	}
	r.inFrame, r.left, r.key = true, h.Length, h.Key
	return n
}

// judge applies the rules that a header alone can break.
func (r *Receiver) judge(h *wire.Header) (id, detail string) {
	control := h.Opcode.Control()
	switch {
	case h.RSV1 && !r.lim.Deflate:
		return "FR-03", ""
	case h.RSV1 && control:
		return "DF-02", ""
	case h.RSV1 && h.Opcode == wire.Continuation:
		return "DF-01", ""
	case h.RSV2 || h.RSV3:
		return "FR-04", ""
	case h.Opcode.Reserved():
		if control {
			return "FR-06", "opcode " + h.Opcode.String()
		}
		return "FR-05", "opcode " + h.Opcode.String()
	case !h.Masked && r.from == Client:
		return "FR-01", ""
	case h.Masked && r.from == Server:
		return "FR-02", ""
	case control && !h.Fin:
		return "FR-11", h.Opcode.String()
	case control && h.Length > wire.ControlPayloadMax:
		return "FR-10", fmt.Sprintf("%s of %d bytes", h.Opcode, h.Length)
	case h.Length>>63 != 0:
		return "FR-07", ""
	case h.LengthForm == 3 && h.Length <= 125:
		return "FR-08", fmt.Sprintf("%d bytes", h.Length)
	case h.LengthForm == 9 && h.Length <= 0xffff:
		return "FR-09", fmt.Sprintf("%d bytes", h.Length)
	}
	if id = r.seq.step(h.Opcode, h.Fin); id != "" {
		switch {
		case id == "MS-03":
			detail = fmt.Sprintf("the message that began in frame %d is still open", r.first)
		case r.lastFin > 0:
			detail = fmt.Sprintf("the last message ended in frame %d", r.lastFin)
		}
	}
	return id, detail
}

// beginData counts a data frame against the limits of its message.
func (r *Receiver) beginData(h *wire.Header) bool {
	if h.Opcode != wire.Continuation {
		r.opcode, r.packed, r.begun = h.Opcode, h.RSV1, false
		r.frags, r.size, r.overhead, r.got = 0, 0, 0, 0
		r.first = r.frame.Index
		r.text.Reset()
	}
	r.frags++
	r.frame.Fragment = r.frags
	if m := r.lim.Fragments; m > 0 && r.frags > m {
		return r.exceed("MaxFragments", int64(m), wire.ClosePolicyViolation)
	}
	sizeMax := r.lim.MessageSize
	wireMax := sizeMax
	if r.packed {
		// The inflated size is what counts, and whoever inflates counts it;
		// incompressible data grows a little.
		wireMax += sizeMax>>6 + 1<<10
	}
	// Compare before any arithmetic: the announced length may be near 2^63.
	if sizeMax > 0 && h.Length > uint64(wireMax-r.size) {
		return r.exceed("MaxMessageSize", sizeMax, wire.CloseMessageTooBig)
	}
	r.size += int64(h.Length)
	if r.size < 0 {
		r.size = 1<<63 - 1
	}
	if h.Length < FrameCost && !h.Fin {
		r.overhead += FrameCost - int64(h.Length)
		switch budget := max(sizeMax, FrameBudgetMin); {
		case sizeMax > 0 && r.size+r.overhead > budget:
			return r.exceed("MaxMessageSize (each fragment costs at least 64 bytes)", sizeMax, wire.ClosePolicyViolation)
		case sizeMax <= 0 && r.overhead > r.size+FrameCost*FrameBudgetMin:
			return r.exceed("share of fragments under 64 bytes", FrameBudgetMin, wire.ClosePolicyViolation)
		}
	}
	return true
}

// dataPayload takes payload bytes of the current data frame from p.
func (r *Receiver) dataPayload(ev *Event, p []byte) int {
	if uint64(len(p)) > r.left {
		p = p[:r.left]
	}
	r.left -= uint64(len(p))
	at := r.offset
	r.offset += int64(len(p))
	r.got += int64(len(p))
	if r.frame.Masked {
		r.key = wire.Mask(r.key, p)
	}
	r.inFrame = r.left > 0
	ev.Kind, ev.Opcode, ev.Compressed, ev.Payload = Data, r.opcode, r.packed, p
	ev.First = !r.begun
	ev.Last = !r.inFrame && r.frame.Fin
	r.begun = true
	if ev.Last {
		r.lastFin = r.frame.Index
	}
	if r.opcode == wire.Text && !r.packed {
		if bad := r.text.Next(p); bad >= 0 {
			r.violate("MS-05", at+int64(bad), fmt.Sprintf("byte %#02x in fragment %d", p[bad], r.frags))
			return len(p)
		}
		if ev.Last && !r.text.Complete() {
			r.violate("MS-06", r.offset, "")
		}
	}
	return len(p)
}

// controlPayload takes payload bytes of the current control frame from p. Only
// the whole frame is an event.
func (r *Receiver) controlPayload(ev *Event, p []byte) int {
	if uint64(len(p)) > r.left {
		p = p[:r.left]
	}
	n := len(p)
	r.left -= uint64(n)
	r.offset += int64(n)
	if r.frame.Masked {
		r.key = wire.Mask(r.key, p)
	}
	r.inFrame = r.left > 0
	if r.inFrame && r.control == nil {
		r.control = new(controlPieces)
	}
	if c := r.control; r.inFrame || c != nil && c.n > 0 {
		c.n += copy(c.b[c.n:], p)
		if r.inFrame {
			return n
		}
		p, c.n = c.b[:c.n], 0
	}
	ev.Payload = p
	switch r.frame.Opcode {
	case wire.Ping:
		ev.Kind = Ping
	case wire.Pong:
		ev.Kind = Pong
	default:
		r.close(ev, p)
	}
	return n
}

// close judges the body of a Close frame.
func (r *Receiver) close(ev *Event, body []byte) {
	at := r.offset - int64(len(body))
	if len(body) == 0 {
		ev.Kind, ev.Code, r.closed = Close, wire.CloseNoStatus, true
		return
	}
	if len(body) == 1 {
		r.violate("CL-01", at, "")
		return
	}
	code := wire.CloseCode(body[0])<<8 | wire.CloseCode(body[1])
	if id := CloseCodeRule(code); id != "" {
		r.violate(id, at, fmt.Sprintf("code %d", uint16(code)))
		return
	}
	reason := body[2:]
	var t Text
	if bad := t.Next(reason); bad >= 0 || !t.Complete() {
		if bad < 0 {
			bad = len(reason)
		}
		r.violate("CL-06", at+2+int64(bad), "")
		return
	}
	ev.Kind, ev.Code, ev.Payload, r.closed = Close, code, reason, true
}

// CloseCodeRule returns the ID of the rule that a code in a Close frame breaks,
// or "".
func CloseCodeRule(code wire.CloseCode) string {
	switch {
	case code.Sendable():
		return ""
	case code < 1000:
		return "CL-02"
	case code == wire.CloseNoStatus, code == wire.CloseAbnormal, code == wire.CloseTLSHandshake:
		return "CL-03"
	case code < 3000:
		return "CL-04"
	}
	return "CL-05"
}

func (r *Receiver) violate(id string, offset int64, detail string) {
	r.inFrame = false
	r.err = &Violation{Rule: rule(id), From: r.from, Frame: r.frame, Offset: offset, Detail: detail}
}

func (r *Receiver) exceed(limit string, max int64, code wire.CloseCode) bool {
	r.err = &LimitError{Limit: limit, Max: max, Code: code, Frame: r.frame}
	return false
}

// Timed reports whether Tick has anything to watch at the moment.
func (r *Receiver) Timed() bool {
	return r.lim.IdleTime > 0 || r.lim.ControlRate > 0 ||
		(r.lim.MessageTime > 0 || r.lim.GapTime > 0) && r.Partial()
}

// Tick tells the Receiver the time. Callers do so whenever they are about to
// read the network, so that a clock starts when the peer is first waited for,
// and once more when Deadline has passed. A missed deadline is a
// *TimeoutError; it is final.
func (r *Receiver) Tick(now time.Time) error {
	if r.err != nil || r.closed {
		return r.err
	}
	if r.clock == nil {
		r.clock = new(clocks)
	}
	c := r.clock
	t := c.at(now)
	if r.offset != c.offset || c.alive == 0 {
		c.alive, c.offset = t, r.offset
	}
	if unit := r.unit(); unit != c.unit {
		c.unit, c.start, c.progress = unit, t, t
	}
	if mark := r.got + int64(r.frags); mark != c.mark {
		c.mark, c.progress = mark, t
	}
	r.Refill(now)
	at, limit, after := r.next()
	if at != 0 && t >= at {
		r.err = &TimeoutError{Limit: limit, After: after, Code: wire.ClosePolicyViolation}
	}
	return r.err
}

// Refill allows the peer the control frames that it has earned by now. Tick
// does so too; callers that have waited for the network do it before they
// judge what came, so that silence counts.
func (r *Receiver) Refill(now time.Time) {
	rate := r.lim.ControlRate
	if rate <= 0 {
		return
	}
	c := r.clock
	t := c.at(now)
	if c.bucket != 0 {
		c.tokens += time.Duration(t-c.bucket).Seconds() * float64(rate)
		c.tokens = min(c.tokens, float64(r.lim.ControlBurst))
	}
	c.bucket = t
}

// unit identifies what is incomplete: the index of the frame with which it
// began, or 0 if nothing is.
func (r *Receiver) unit() int64 {
	switch {
	case r.seq.open, r.inFrame && !r.frame.Opcode.Control():
		return r.first
	case r.inFrame:
		return r.frame.Index
	case r.headLen > 0:
		return r.frame.Index + 1
	}
	return 0
}

// Deadline is when Tick should next be called; zero means never.
func (r *Receiver) Deadline() time.Time {
	at, _, _ := r.next()
	if at == 0 {
		return time.Time{}
	}
	return r.clock.base.Add(time.Duration(at - 1))
}

// next is the earliest of the running deadlines.
func (r *Receiver) next() (at instant, limit string, after time.Duration) {
	c := r.clock
	if c == nil || r.err != nil || r.closed || c.held != 0 {
		return 0, "", 0
	}
	earlier := func(from instant, d, extra time.Duration, name string) {
		if t := from + instant(d+extra); d > 0 && from != 0 && (at == 0 || t < at) {
			at, limit, after = t, name, d
		}
	}
	if c.unit != 0 {
		var extra time.Duration
		if rate := r.lim.MinRate; rate > 0 {
			extra = time.Duration(r.got/rate)*time.Second +
				time.Duration(r.got%rate)*time.Second/time.Duration(rate)
		}
		earlier(c.start, r.lim.MessageTime, extra, "MessageTimeout")
		earlier(c.progress, r.lim.GapTime, 0, "GapTimeout")
	}
	earlier(c.alive, r.lim.IdleTime, 0, "IdleTimeout")
	return at, limit, after
}

// Hold stops the clocks while the application, not the peer, is slow. Without
// it we would punish an innocent sender, because TCP's backpressure stretches
// its message.
func (r *Receiver) Hold(now time.Time) {
	if c := r.clock; c != nil && c.held == 0 {
		c.held = c.at(now)
	}
}

// Resume starts the clocks again.
func (r *Receiver) Resume(now time.Time) {
	c := r.clock
	if c == nil || c.held == 0 {
		return
	}
	d := c.at(now) - c.held
	c.held = 0
	for _, t := range []*instant{&c.start, &c.progress, &c.alive} {
		if *t != 0 {
			*t += d
		}
	}
}
