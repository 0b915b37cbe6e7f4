package doctor

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"iter"
	"slices"

	"github.com/weft-ws/weft/capture"
	"github.com/weft-ws/weft/internal/wire"
)

// A Leg is one side of an intermediary.
type Leg uint8

const (
	Near Leg = 1 + iota // between the client and the intermediary
	Far                 // between the intermediary and the server
)

// PairOptions say how to judge an intermediary.
type PairOptions struct {
	Options // for each leg by itself

	// Blind: the intermediary did not see the opening handshake, so it may not
	// touch the framing at all.
	Blind bool
	// Knows are the extensions, by name, whose meaning the intermediary knows.
	Knows []string
}

// A Pair watches both sides of one intermediary, and compares what goes in
// with what comes out: RFC 6455, 5.4 says what an intermediary may do to
// frames. Each side is also judged by an Inspector of its own. A Pair is used
// by one goroutine at a time.
//
// Messages are compared as they are on the wire: an intermediary that changes
// payloads, or compresses anew, is not judged. Memory is bounded; if one side
// runs ahead of the other by more than 16,384 frames, the direction is given up.
type Pair struct {
	opts     PairOptions
	legs     [2]*Inspector
	dirs     [2]relay // client's, server's
	findings []Finding
}

// NewPair returns a Pair that has seen nothing.
func NewPair(opts PairOptions) *Pair {
	p := &Pair{opts: opts}
	setDefault(&p.opts.FindingsMax, defaultFindingsMax)
	for i := range p.legs {
		p.legs[i] = New(opts.Options)
		for k := range p.legs[i].streams {
			p.legs[i].streams[k].tap = &tap{pair: p, leg: Leg(i + 1)}
		}
	}
	return p
}

// Inspector returns the judge of one leg, for its own findings.
func (p *Pair) Inspector(leg Leg) *Inspector { return p.legs[leg-1] }

// Chunk takes what was seen on one leg. Chunks of both legs are given in the
// order in which they were seen.
func (p *Pair) Chunk(leg Leg, c capture.Chunk) { p.legs[leg-1].Chunk(c) }

// Findings returns what the intermediary broke. The findings of each leg by
// itself are with its Inspector.
func (p *Pair) Findings() []Finding { return p.findings }

// CompareSides judges an intermediary from recordings of its two sides. Their
// clocks must agree well enough to tell what came first.
func CompareSides(near, far capture.Source, opts PairOptions) (*Pair, error) {
	p := NewPair(opts)
	type side struct {
		next func() (capture.Chunk, error, bool)
		c    capture.Chunk
		ok   bool
	}
	var sides [2]side
	for i, src := range []capture.Source{near, far} {
		next, stop := iter.Pull2(src.Chunks())
		defer stop()
		sides[i].next = next
	}
	advance := func(s *side) (err error) {
		s.c, err, s.ok = s.next()
		return err
	}
	for i := range sides {
		if err := advance(&sides[i]); err != nil {
			return p, err
		}
	}
	for sides[0].ok || sides[1].ok {
		i := 0
		if !sides[0].ok || sides[1].ok && sides[1].c.At.Before(sides[0].c.At) {
			i = 1
		}
		p.Chunk(Leg(i+1), sides[i].c)
		if err := advance(&sides[i]); err != nil {
			return p, err
		}
	}
	return p, nil
}

// relayMax bounds the frames that wait for the other leg, and controlsMax the
// control frames.
const (
	relayMax    = 16384
	controlsMax = 64
)

// A relay compares one direction on both legs.
type relay struct {
	legs  [2]passage // entry first, then exit
	given bool       // given up: one leg is too far ahead
}

// A passage is one direction on one leg.
type passage struct {
	messages []passedMessage // complete, not compared yet
	open     *passedMessage
	hash     maphash.Hash // of the open message's payload
	frames   int          // in messages and open
	controls []passedControl
	last     passedMessage // the last one compared
}

// A passedFrame is a data frame by its looks.
type passedFrame struct {
	frame Frame
	sum   uint64
}

type passedMessage struct {
	frames []passedFrame
	sum    uint64 // of the whole payload, once complete
	size   uint64
	rsv    bool
}

type passedControl struct {
	frame   Frame
	payload []byte
}

// A tap is what a stream tells the Pair about one direction on one leg.
type tap struct {
	pair    *Pair
	leg     Leg
	active  bool // between header and end
	data    bool // the frame is a fragment in its place
	fault   string
	hash    maphash.Hash
	control []byte
}

// side returns the passage that the tap reports to and the one on the other
// side of the intermediary; entry says whether frames go in here.
func (t *tap) side(from capture.Side) (r *relay, mine, other *passage, entry bool) {
	r = &t.pair.dirs[0]
	entry = t.leg == Near
	if from == capture.Server {
		r, entry = &t.pair.dirs[1], t.leg == Far
	}
	if entry {
		return r, &r.legs[0], &r.legs[1], true
	}
	return r, &r.legs[1], &r.legs[0], false
}

// header is told of each frame that is judged, and of the rule that its
// header broke.
func (t *tap) header(from capture.Side, f *Frame, fault string) {
	r, mine, other, entry := t.side(from)
	if r.given {
		return
	}
	t.active, t.fault = true, fault
	t.hash.SetSeed(seed)
	t.control = t.control[:0]
	switch {
	case fault == "FR-10" || fault == "FR-11":
		if i := slices.IndexFunc(other.controls, func(c passedControl) bool { return c.frame.Opcode == f.Opcode }); !entry && i >= 0 {
			t.pair.report("MS-09", from, *f, "it came in as frame "+group(uint64(other.controls[i].frame.Index))+", in order, and went out broken")
		}
		t.active = false
	case f.control() || fault != "":
	case f.Opcode != wire.Continuation:
		mine.open = &passedMessage{}
		mine.hash.SetSeed(seed)
	}
	t.data = !f.control() && fault == "" && mine.open != nil
	if t.data {
		m := mine.open
		m.rsv = m.rsv || f.RSV1 || f.RSV2 || f.RSV3
		m.size += f.Length
	}
}

// payload is told of unmasked payload bytes.
func (t *tap) payload(from capture.Side, p []byte) {
	if !t.active {
		return
	}
	_, mine, _, _ := t.side(from)
	t.hash.Write(p)
	if len(t.control)+len(p) <= wire.ControlPayloadMax {
		t.control = append(t.control, p...)
	}
	if t.data {
		mine.hash.Write(p)
	}
}

// end is told that the payload is complete.
func (t *tap) end(from capture.Side, f *Frame) {
	if !t.active {
		return
	}
	t.active = false
	r, mine, other, entry := t.side(from)
	switch {
	case t.fault != "":
		if !entry {
			t.misplaced(from, f, other)
		}
	case f.control():
		mine.controls = append(mine.controls, passedControl{*f, bytes.Clone(t.control)})
		if len(mine.controls) > controlsMax {
			mine.controls = mine.controls[1:]
		}
		t.pair.compareControls(from, r)
	case t.data:
		mine.open.frames = append(mine.open.frames, passedFrame{*f, t.hash.Sum64()})
		if mine.frames++; mine.frames > relayMax {
			*r = relay{given: true}
			return
		}
		if f.Fin {
			mine.open.sum = mine.hash.Sum64()
			mine.messages = append(mine.messages, *mine.open)
			mine.open = nil
			t.pair.compareMessages(from, r)
		}
	}
}

// misplaced judges a data frame that stands where it may not on the way out,
// although the way in was in order: if it came in within the same message, the
// intermediary has changed the order.
func (t *tap) misplaced(from capture.Side, f *Frame, entry *passage) {
	look := append([]passedMessage{entry.last}, entry.messages...)
	if entry.open != nil {
		look = append(look, *entry.open)
	}
	sum := t.hash.Sum64()
	for i := range look {
		for _, in := range look[i].frames {
			if in.sum == sum && in.frame.Length == f.Length && len(look[i].frames) > 1 {
				t.pair.report("MS-10", from, *f, "it came in as frame "+group(uint64(in.frame.Index))+", fragment "+
					group(uint64(in.frame.Fragment))+" of its message, and went out in another place")
				return
			}
		}
	}
}

// compareMessages compares what is complete on both legs.
func (p *Pair) compareMessages(from capture.Side, r *relay) {
	in, out := &r.legs[0], &r.legs[1]
	for len(in.messages) > 0 && len(out.messages) > 0 {
		p.compareMessage(from, &in.messages[0], &out.messages[0])
		for _, l := range []*passage{in, out} {
			l.last = l.messages[0]
			l.frames -= len(l.messages[0].frames)
			l.messages = l.messages[1:]
		}
	}
}

func (p *Pair) compareMessage(from capture.Side, in, out *passedMessage) {
	at := 0
	for at < len(in.frames) && at < len(out.frames) && same(in.frames[at], out.frames[at]) {
		at++
	}
	if at == len(in.frames) && at == len(out.frames) {
		return
	}
	f := out.frames[min(at, len(out.frames)-1)].frame
	began := "the message that came in as frame " + group(uint64(in.frames[0].frame.Index))
	switch {
	case in.size == out.size && in.sum == out.sum:
		// "An intermediary MUST NOT change the fragmentation of a message if
		// any reserved bit values are used and the meaning of these values is
		// not known to the intermediary", "MUST NOT change the fragmentation of
		// any message in the context of a connection where extensions have been
		// negotiated and the intermediary is not aware of the semantics of the
		// negotiated extensions", and "an intermediary that didn't see the
		// WebSocket handshake ... MUST NOT change the fragmentation of any
		// message". In every other case it may.
		why := ""
		switch {
		case p.opts.Blind:
			why = "it did not see the opening handshake"
		case p.unknown() != "":
			why = "it does not know the extension " + p.unknown()
		case in.rsv && p.legs[0].opening.Extensions == "":
			why = "reserved bits are set whose meaning it does not know"
		default:
			return
		}
		p.report("MS-08", from, f, fmt.Sprintf("%s in %s went out in %s, but %s", began, count(len(in.frames), "frame"), count(len(out.frames), "frame"), why))
	case len(in.frames) == len(out.frames) && slices.Equal(looks(in), looks(out)):
		p.report("MS-10", from, f, began+" went out with its fragments in another order")
	}
}

// same reports whether two frames of a message say the same.
func same(a, b passedFrame) bool {
	return a.sum == b.sum && a.frame.Length == b.frame.Length && a.frame.Fin == b.frame.Fin
}

// looks returns the payloads' sums in an order of their own.
func looks(m *passedMessage) []uint64 {
	var out []uint64
	for _, f := range m.frames {
		out = append(out, f.sum)
	}
	slices.Sort(out)
	return out
}

// unknown returns an active extension that the intermediary does not know.
func (p *Pair) unknown() string {
	list, _ := parseExtensionList(p.legs[0].opening.Extensions)
	for _, e := range list {
		if !slices.Contains(p.opts.Knows, e.name) {
			return e.name
		}
	}
	return ""
}

// compareControls takes away what is on both legs, and then looks for frames
// that were split or joined: "control frames themselves MUST NOT be
// fragmented". An intermediary may drop control frames and send its own.
func (p *Pair) compareControls(from capture.Side, r *relay) {
	in, out := &r.legs[0], &r.legs[1]
	for i := 0; i < len(in.controls); i++ {
		c := in.controls[i]
		k := slices.IndexFunc(out.controls, func(o passedControl) bool {
			return o.frame.Opcode == c.frame.Opcode && bytes.Equal(o.payload, c.payload)
		})
		if k >= 0 {
			in.controls = slices.Delete(in.controls, i, i+1)
			out.controls = slices.Delete(out.controls, k, k+1)
			i--
		}
	}
	if i, k, n, ok := joined(in.controls, out.controls); ok {
		f := out.controls[k].frame
		p.report("MS-09", from, f, "it came in as frame "+group(uint64(in.controls[i].frame.Index))+" and went out in pieces")
		in.controls = slices.Delete(in.controls, i, i+1)
		out.controls = slices.Delete(out.controls, k, k+n)
	} else if k, i, n, ok := joined(out.controls, in.controls); ok {
		p.report("MS-09", from, out.controls[k].frame, "it is made of "+count(n, "control frame")+", the first of which came in as frame "+
			group(uint64(in.controls[i].frame.Index)))
		in.controls = slices.Delete(in.controls, i, i+n)
		out.controls = slices.Delete(out.controls, k, k+1)
	}
}

// joined looks for a frame among whole whose payload is that of n >= 2 frames
// of its opcode in a row among parts, none of them empty.
func joined(whole, parts []passedControl) (w, at, n int, ok bool) {
	for w := range whole {
		for at := range parts {
			rest := whole[w].payload
			for n := 0; at+n < len(parts); n++ {
				p := &parts[at+n]
				if p.frame.Opcode != whole[w].frame.Opcode || len(p.payload) == 0 || !bytes.HasPrefix(rest, p.payload) {
					break
				}
				if rest = rest[len(p.payload):]; len(rest) == 0 && n > 0 {
					return w, at, n + 1, true
				}
			}
		}
	}
	return 0, 0, 0, false
}

// report keeps a finding about the intermediary.
func (p *Pair) report(id string, from capture.Side, frame Frame, detail string) {
	f := Finding{From: from, Proxy: true, At: frame.At, Frame: frame, Offset: frame.Offset, Payload: -1, Detail: detail}
	if len(p.findings) < p.opts.FindingsMax && p.opts.complete(id, &f) {
		p.findings = append(p.findings, f)
	}
}
