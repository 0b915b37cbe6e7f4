package wstest

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/weft-ws/weft/capture"
	"github.com/weft-ws/weft/internal/proto"
	"github.com/weft-ws/weft/internal/wire"
)

// A Vector is one file under testdata/vectors: bytes on the wire and what a
// receiver and the doctor must make of them. The format is described in
// testdata/vectors/README.md.
type Vector struct {
	Path    string // within the vectors' directory
	Rule    string // name of the rule that is broken; "" for legal traffic
	Section string
	Comment string
	Kind    VectorKind

	// Roles are the ends that may receive the stream of a Stream vector, or
	// the ends that a Handshake vector tests.
	Roles []proto.Role

	// Receiver says what an endpoint, which sees one direction only, makes of
	// the vector.
	Receiver ReceiverView
	// ReceiverRule is the rule that a receiver names: Rule, unless the file
	// says otherwise.
	ReceiverRule string
	Expect       Expect

	// Doctor is what the doctor must find, in order.
	Doctor []WantFinding
	Hints  bool // the doctor is asked for hints as well

	// Extensions is the negotiated Sec-WebSocket-Extensions value, without
	// which no extension is active. For Stream and Trace vectors without an
	// opening handshake of their own.
	Extensions string
	// MessageLimit and FrameLimit are what the receiving ends accept, in
	// bytes; 0 means no limit. Settings holds further limits by name.
	MessageLimit int64
	FrameLimit   int64
	Settings     map[string]string

	Frames []VectorFrame // Stream
	Steps  []Step        // every other kind
}

// A VectorKind says what a vector's body holds.
type VectorKind uint8

const (
	// Stream: the frames of one direction, in the order sent.
	Stream VectorKind = 1 + iota
	// Handshake: a request, a response, or both.
	Handshake
	// Trace: both directions of one connection, with times.
	Trace
	// Connections: the traces of several connections of one client.
	Connections
	// Proxy: both sides of an intermediary.
	Proxy
)

var kindNames = [...]string{Stream: "stream", Handshake: "handshake", Trace: "trace", Connections: "connections", Proxy: "proxy"}

// String returns the name that stands in the file.
func (k VectorKind) String() string { return kindNames[k] }

// A ReceiverView says what an endpoint makes of a vector.
type ReceiverView uint8

const (
	// Sees: the endpoint must behave as Expect says.
	Sees ReceiverView = iota
	// CannotSee: nothing in what the endpoint receives tells it.
	CannotSee
	// NeedsInflate: an endpoint sees it once it inflates compressed messages;
	// a receiver of frames alone does not.
	NeedsInflate
)

// An Expect is what an endpoint does with a vector.
type Expect struct {
	Events []ExpectedEvent // delivered before the end, in order

	// Violation reports whether ReceiverRule is broken, in frame number Frame
	// (from 1). Payload is the first bad byte of that frame's payload, from 0,
	// or -1 where the header is to blame or the file does not say.
	Violation bool
	Frame     int
	Payload   int
	// Limit names the limit exceeded, as a field of ws.Config, instead of a
	// violation.
	Limit string

	Close  wire.CloseCode // with which the endpoint closes; 0: it does not
	Status int            // Handshake, server: refuses with this HTTP status
	Fail   bool           // Handshake, client: fails the connection
	Accept bool           // Handshake: goes on
}

// An EventKind is what a receiver delivers.
type EventKind uint8

const (
	MessageEvent EventKind = 1 + iota // a whole message
	PingEvent
	PongEvent
	CloseEvent // the peer's Close
)

// An ExpectedEvent is something a receiver delivers. Compressed messages are
// given inflated.
type ExpectedEvent struct {
	Kind   EventKind
	Opcode wire.Opcode // Text or Binary, for a MessageEvent
	Len    int         // payload bytes; for a CloseEvent those of the reason
	Data   []byte      // payload or close reason; nil if the file gives only Len
	Code   wire.CloseCode
}

// A WantFinding is a finding that the doctor must report.
type WantFinding struct {
	Rule    string       // name
	From    capture.Side // who broke it; 0 where the file does not say
	Proxy   bool         // an intermediary broke it
	Frame   int          // number of the frame in its direction, from 1; 0: not stated
	Payload int          // first guilty payload byte, from 0; -1: not stated
	Conn    int          // Connections: ordinal of the connection, from 1
}

// A VectorFrame is one line of frames: a header, written down field by field
// so that illegal ones can be, and the payload before masking and after
// compression.
type VectorFrame struct {
	Header  wire.Header // Length is the announced one
	Payload []byte
	Mask    MaskMode
	Raw     []byte // instead of a frame: bytes as they stand on the wire
}

// A MaskMode says whether a frame is masked.
type MaskMode uint8

const (
	MaskByRole MaskMode = iota // as the sender's role demands
	MaskNever
	MaskAlways
	MaskKey // with the key in Header.Key
)

// A Step is a chunk of a timed vector.
type Step struct {
	Conn  int // Connections: ordinal, from 1
	Leg   Leg // Proxy
	From  capture.Side
	At    time.Duration // since the start
	Data  []byte        // bytes on the wire
	End   capture.EndKind
	Frame bool // Data is a frame (or raw bytes), not part of the handshake
}

// A Leg is one side of an intermediary.
type Leg uint8

const (
	Near Leg = 1 + iota // between the client and the intermediary
	Far                 // between the intermediary and the server
)

// Chunks returns the frames of a Stream vector as they stand on the wire when
// sent by the given role, one element per frame or raw line.
func (v *Vector) Chunks(sender proto.Role) [][]byte {
	out := make([][]byte, len(v.Frames))
	for i, f := range v.Frames {
		out[i] = f.append(nil, sender, i)
	}
	return out
}

// Offset returns the byte of the sender's stream at which a frame (from 1)
// begins, or with payload >= 0 that byte of its payload.
func (v *Vector) Offset(sender proto.Role, frame, payload int) int64 {
	var off int64
	for i, f := range v.Frames[:frame] {
		b := f.append(nil, sender, i)
		if i == frame-1 {
			if payload >= 0 {
				off += int64(len(b) - len(f.Payload) + payload)
			}
			break
		}
		off += int64(len(b))
	}
	return off
}

// append adds the frame in its wire form. n is its place, from which the
// masking key is derived: fixed, so that runs can be repeated, yet without a
// pattern, since a predictable key is a breach of its own.
func (f *VectorFrame) append(dst []byte, sender proto.Role, n int) []byte {
	if f.Raw != nil {
		return append(dst, f.Raw...)
	}
	h := f.Header
	switch f.Mask {
	case MaskByRole:
		h.Masked = sender == proto.Client
	case MaskNever:
		h.Masked = false
	case MaskAlways, MaskKey:
		h.Masked = true
	}
	if h.Masked && f.Mask != MaskKey {
		h.Key = vectorKey(n)
	}
	dst = appendHeaderForm(dst, h)
	at := len(dst)
	dst = append(dst, f.Payload...)
	if h.Masked {
		wire.Mask(h.Key, dst[at:])
	}
	return dst
}

// vectorKey is the n-th output of the SplitMix64 generator, shortened.
func vectorKey(n int) [4]byte {
	z := (uint64(n) + 1) * 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	z ^= z >> 31
	return [4]byte{byte(z), byte(z >> 8), byte(z >> 16), byte(z >> 24)}
}

// appendHeaderForm is wire.AppendHeader, but obeys LengthForm.
func appendHeaderForm(dst []byte, h wire.Header) []byte {
	start := len(dst)
	dst = wire.AppendHeader(dst, wire.Header{Fin: h.Fin, RSV1: h.RSV1, RSV2: h.RSV2, RSV3: h.RSV3, Opcode: h.Opcode})
	dst = dst[:start+1]
	var mask byte
	if h.Masked {
		mask = 0x80
	}
	form := h.LengthForm
	if form == 0 {
		switch {
		case h.Length <= 125:
			form = 1
		case h.Length <= 0xffff:
			form = 3
		default:
			form = 9
		}
	}
	switch form {
	case 1:
		dst = append(dst, mask|byte(h.Length))
	case 3:
		dst = append(dst, mask|126, byte(h.Length>>8), byte(h.Length))
	default:
		dst = append(dst, mask|127)
		for shift := 56; shift >= 0; shift -= 8 {
			dst = append(dst, byte(h.Length>>shift))
		}
	}
	if h.Masked {
		dst = append(dst, h.Key[:]...)
	}
	return dst
}

// LoadVectors parses every file under root whose name ends in .txt, in the
// order of their paths.
func LoadVectors(fsys fs.FS) ([]*Vector, error) {
	var out []*Vector
	err := fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path.Ext(p) != ".txt" {
			return err
		}
		b, err := fs.ReadFile(fsys, p)
		if err != nil {
			return err
		}
		v, err := ParseVector(p, string(b))
		if err != nil {
			return err
		}
		out = append(out, v)
		return nil
	})
	return out, err
}

// ParseVector parses one vector. Errors name the file and the line.
func ParseVector(name, text string) (*Vector, error) {
	p := &vectorParser{v: &Vector{Path: name, Kind: Stream, Settings: map[string]string{}}}
	p.v.Expect.Payload = -1
	sc := bufio.NewScanner(strings.NewReader(text))
	sc.Buffer(nil, 1<<20)
	head := true
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimRight(sc.Text(), " \t\r")
		var err error
		switch {
		case strings.HasPrefix(line, "#"):
		case head && line == "":
			head = false
		case head:
			err = p.header(line)
		case line != "":
			err = p.body(line)
		}
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, n, err)
		}
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err := p.finish(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return p.v, nil
}

type vectorParser struct {
	v         *Vector
	at        time.Duration
	conn      int
	leg       Leg
	frameNo   map[[3]int]int // connection, leg, side → frames so far
	doctorSet bool
	seen      map[string]bool
}

// onceOnly are the header keys that may not be given twice.
const onceOnly = " rule section kind role receiver extensions message-limit frame-limit hints "

func (p *vectorParser) header(line string) error {
	key, val, ok := strings.Cut(line, ":")
	if !ok {
		return fmt.Errorf("want a header \"key: value\", got %q", line)
	}
	val = strings.TrimSpace(val)
	if p.seen[key] && strings.Contains(onceOnly, " "+key+" ") {
		return fmt.Errorf("%s is given twice", key)
	}
	if p.seen == nil {
		p.seen = map[string]bool{}
	}
	p.seen[key] = true
	v := p.v
	var err error
	switch key {
	case "rule":
		if proto.RuleByID(val) == nil {
			return fmt.Errorf("no rule is called %q", val)
		}
		v.Rule = proto.RuleByID(val).Name
	case "section":
		v.Section = val
	case "comment":
		v.Comment = strings.TrimSpace(v.Comment + " " + val)
	case "kind":
		for k, s := range kindNames {
			if s == val && s != "" {
				v.Kind = VectorKind(k)
				return nil
			}
		}
		return fmt.Errorf("no kind of vector is called %q", val)
	case "role":
		switch val {
		case "client":
			v.Roles = []proto.Role{proto.Client}
		case "server":
			v.Roles = []proto.Role{proto.Server}
		case "both":
			v.Roles = []proto.Role{proto.Client, proto.Server}
		default:
			return fmt.Errorf("role is client, server or both, got %q", val)
		}
	case "receiver":
		switch {
		case val == "cannot see":
			v.Receiver = CannotSee
		case val == "needs inflate":
			v.Receiver = NeedsInflate
		case strings.HasPrefix(val, "names "):
			r := proto.RuleByID(val[len("names "):])
			if r == nil {
				return fmt.Errorf("no rule is called %q", val[len("names "):])
			}
			v.ReceiverRule = r.Name
		default:
			return fmt.Errorf("receiver is \"cannot see\", \"needs inflate\" or \"names RULE\", got %q", val)
		}
	case "extensions":
		v.Extensions = val
	case "message-limit":
		v.MessageLimit, err = strconv.ParseInt(val, 10, 64)
	case "frame-limit":
		v.FrameLimit, err = strconv.ParseInt(val, 10, 64)
	case "hints":
		v.Hints = val == "on"
	case "set":
		name, value, ok := strings.Cut(val, "=")
		if !ok {
			return fmt.Errorf("want set: name=value, got %q", val)
		}
		v.Settings[name] = value
	case "expect":
		for item := range strings.SplitSeq(val, ";") {
			if err := p.expect(strings.TrimSpace(item)); err != nil {
				return err
			}
		}
	case "doctor":
		p.doctorSet = true
		if val == "nothing" {
			return nil
		}
		for item := range strings.SplitSeq(val, ";") {
			if err := p.finding(strings.Fields(item)); err != nil {
				return err
			}
		}
	default:
		return fmt.Errorf("no header is called %q", key)
	}
	return err
}

// expect parses one item of an expect line.
func (p *vectorParser) expect(item string) error {
	f, err := fields(item)
	if err != nil {
		return err
	}
	if len(f) == 0 {
		return nil
	}
	e := &p.v.Expect
	ev := ExpectedEvent{}
	switch f[0] {
	case "message", "ping", "pong":
		rest := f[1:]
		switch f[0] {
		case "ping":
			ev.Kind = PingEvent
		case "pong":
			ev.Kind = PongEvent
		default:
			ev.Kind = MessageEvent
			if len(rest) == 0 || rest[0] != "text" && rest[0] != "binary" {
				return fmt.Errorf("want message text or message binary, got %q", item)
			}
			ev.Opcode = wire.Text
			if rest[0] == "binary" {
				ev.Opcode = wire.Binary
			}
			rest = rest[1:]
		}
		if len(rest) != 1 {
			return fmt.Errorf("want a length or the payload at the end of %q", item)
		}
		if n, err := strconv.Atoi(rest[0]); err == nil {
			ev.Len = n
		} else if ev.Data, err = payloadToken(nil, rest[0]); err != nil {
			return err
		} else {
			ev.Len = len(ev.Data)
		}
		e.Events = append(e.Events, ev)
	case "peer-close":
		ev.Kind = CloseEvent
		ev.Code = wire.CloseNoStatus
		if len(f) > 1 && f[1] != "none" {
			n, err := strconv.ParseUint(f[1], 10, 16)
			if err != nil {
				return fmt.Errorf("want a close code or none, got %q", f[1])
			}
			ev.Code = wire.CloseCode(n)
		}
		ev.Data = []byte{}
		if len(f) > 2 {
			if ev.Data, err = payloadToken(nil, f[2]); err != nil {
				return err
			}
		}
		ev.Len = len(ev.Data)
		e.Events = append(e.Events, ev)
	case "violation":
		e.Violation = true
		for i := 1; i+1 < len(f); i++ {
			n, err := strconv.Atoi(f[i+1])
			switch {
			case f[i] == "frame" && err == nil:
				e.Frame = n
			case f[i] == "payload" && err == nil:
				e.Payload = n
			}
		}
		if e.Frame < 1 {
			return fmt.Errorf("want violation at frame N [payload N], got %q", item)
		}
	case "limit":
		if len(f) != 2 {
			return fmt.Errorf("want limit NAME, got %q", item)
		}
		e.Limit = f[1]
	case "close", "refuse":
		if len(f) != 2 {
			return fmt.Errorf("want a number after %s", f[0])
		}
		n, err := strconv.ParseUint(f[1], 10, 16)
		if err != nil {
			return fmt.Errorf("want a number after %s, got %q", f[0], f[1])
		}
		if f[0] == "close" {
			e.Close = wire.CloseCode(n)
		} else {
			e.Status = int(n)
		}
	case "fail":
		e.Fail = true
	case "accept":
		e.Accept = true
	default:
		return fmt.Errorf("no expectation is called %q", f[0])
	}
	return nil
}

// finding parses "RULE [from client|server|proxy] [frame N] [payload N] [connection N]".
func (p *vectorParser) finding(f []string) error {
	if len(f) == 0 || len(f)%2 == 0 {
		return fmt.Errorf("want RULE [from SIDE] [frame N] [payload N] [connection N], got %q", f)
	}
	r := proto.RuleByID(f[0])
	if r == nil {
		return fmt.Errorf("no rule is called %q", f[0])
	}
	w := WantFinding{Rule: r.Name, Payload: -1}
	for i := 1; i < len(f); i += 2 {
		n, err := strconv.Atoi(f[i+1])
		switch {
		case f[i] == "from" && f[i+1] == "client":
			w.From = capture.Client
		case f[i] == "from" && f[i+1] == "server":
			w.From = capture.Server
		case f[i] == "from" && f[i+1] == "proxy":
			w.Proxy = true
		case f[i] == "frame" && err == nil:
			w.Frame = n
		case f[i] == "payload" && err == nil:
			w.Payload = n
		case f[i] == "connection" && err == nil:
			w.Conn = n
		default:
			return fmt.Errorf("cannot read %q of a finding", f[i]+" "+f[i+1])
		}
	}
	p.v.Doctor = append(p.v.Doctor, w)
	return nil
}

func (p *vectorParser) body(line string) error {
	if p.v.Kind == Stream {
		frames, err := parseFrames(line)
		p.v.Frames = append(p.v.Frames, frames...)
		return err
	}
	return p.step(line)
}

// step parses a line of a timed vector.
func (p *vectorParser) step(line string) error {
	word, rest, _ := strings.Cut(line, " ")
	s := Step{Conn: p.conn, Leg: p.leg, At: p.at}
	switch word {
	case "at":
		d, err := time.ParseDuration(rest)
		if err != nil {
			return fmt.Errorf("at: %w", err)
		}
		if d < p.at {
			return fmt.Errorf("at %v: time goes back", d)
		}
		p.at = d
		return nil
	case "connection":
		if p.v.Kind != Connections {
			return errors.New("connection lines belong in vectors of kind connections")
		}
		p.conn++
		p.at = 0
		return nil
	case "near", "far":
		if p.v.Kind != Proxy {
			return fmt.Errorf("%s lines belong in vectors of kind proxy", word)
		}
		p.leg = Near
		if word == "far" {
			p.leg = Far
		}
		err := p.step(rest)
		p.leg = 0
		return err
	case ">", "<":
		s.From = capture.Client
		if word == "<" {
			s.From = capture.Server
		}
		s.Data = []byte(rest + "\r\n")
		p.v.Steps = append(p.v.Steps, s)
		return nil
	case ">raw", "<raw":
		s.From = capture.Client
		if word == "<raw" {
			s.From = capture.Server
		}
		f, err := fields(rest)
		for _, t := range f {
			if err == nil {
				s.Data, err = payloadToken(s.Data, t)
			}
		}
		p.v.Steps = append(p.v.Steps, s)
		return err
	case "client", "server":
		s.From = capture.Client
		sender := proto.Client
		if word == "server" {
			s.From, sender = capture.Server, proto.Server
		}
		if how, ok := strings.CutPrefix(rest, "end "); ok {
			if s.End, ok = capture.ParseEndKind(how); !ok {
				return fmt.Errorf("want end fin, end rst or end timeout, got %q", rest)
			}
			p.v.Steps = append(p.v.Steps, s)
			return nil
		}
		frames, err := parseFrames(rest)
		if err != nil {
			return err
		}
		s.Frame = true
		if p.frameNo == nil {
			p.frameNo = map[[3]int]int{}
		}
		for i := range frames {
			// Keys differ between the directions and connections as well.
			k := [3]int{s.Conn, int(s.Leg), int(s.From)}
			s.Data = frames[i].append(nil, sender, p.frameNo[k]+1000*s.Conn+100000*int(s.Leg))
			p.frameNo[k]++
			p.v.Steps = append(p.v.Steps, s)
		}
		return nil
	}
	return fmt.Errorf("cannot read the step %q", line)
}

// finish checks that the parts fit together and fills in what follows from
// the others.
func (p *vectorParser) finish() error {
	v := p.v
	if v.Comment == "" {
		return errors.New("no comment says what the vector is about")
	}
	if v.ReceiverRule == "" {
		v.ReceiverRule = v.Rule
	}
	if v.Expect.Frame > len(v.Frames) {
		return fmt.Errorf("violation at frame %d of %d", v.Expect.Frame, len(v.Frames))
	}
	switch v.Kind {
	case Stream:
		if len(v.Roles) == 0 {
			return errors.New("a stream needs a role")
		}
		if len(v.Frames) == 0 {
			return errors.New("a stream needs frames")
		}
		// Unless the file says otherwise the doctor sees what the receiver sees.
		if !p.doctorSet && v.Expect.Violation {
			p.doctorSet = true
			v.Doctor = []WantFinding{{Rule: v.Rule, Frame: v.Expect.Frame, Payload: v.Expect.Payload}}
		}
	case Handshake:
		if len(v.Roles) == 0 {
			return errors.New("a handshake needs a role")
		}
		fallthrough
	default:
		if len(v.Steps) == 0 {
			return errors.New("the vector holds no bytes")
		}
	}
	if v.Kind != Stream && v.Kind != Handshake && v.Receiver == Sees {
		return fmt.Errorf("a vector of kind %s is for the doctor: say \"receiver: cannot see\"", v.Kind)
	}
	if v.Receiver != CannotSee {
		e := &v.Expect
		if v.Rule != "" && !e.Violation && e.Limit == "" && e.Status == 0 && !e.Fail && !e.Accept && len(e.Events) == 0 {
			return errors.New("the vector does not say what a receiver does")
		}
	}
	if !p.doctorSet && v.Rule != "" {
		return errors.New("the vector does not say what the doctor finds")
	}
	if v.Rule != "" {
		found := false
		for _, w := range v.Doctor {
			found = found || w.Rule == v.Rule
		}
		if !found {
			return fmt.Errorf("the doctor is not asked to find %s", v.Rule)
		}
	} else if len(v.Doctor) > 0 {
		return errors.New("findings are expected, but no rule is named")
	}
	return nil
}

var opcodes = map[string]wire.Opcode{
	"CONT": wire.Continuation, "TEXT": wire.Text, "BINARY": wire.Binary,
	"CLOSE": wire.Close, "PING": wire.Ping, "PONG": wire.Pong,
}

// parseFrames parses a line such as
//
//	BINARY fin=0 rsv1 "abcd" x:00ff*3 code=1000 mask=none length=70000 form=9 repeat=5
//	raw x:81
func parseFrames(line string) ([]VectorFrame, error) {
	f, err := fields(line)
	if err != nil {
		return nil, err
	}
	if len(f) == 0 {
		return nil, errors.New("an opcode is missing")
	}
	fr := VectorFrame{Header: wire.Header{Fin: true}, Payload: []byte{}}
	if f[0] == "raw" {
		for _, t := range f[1:] {
			if fr.Raw, err = payloadToken(fr.Raw, t); err != nil {
				return nil, err
			}
		}
		if len(fr.Raw) == 0 {
			return nil, errors.New("raw needs bytes")
		}
		return []VectorFrame{fr}, nil
	}
	op, ok := opcodes[f[0]]
	if !ok {
		n, err := strconv.ParseUint(f[0], 0, 4)
		if err != nil || !strings.HasPrefix(f[0], "0x") {
			return nil, fmt.Errorf("no opcode is called %q", f[0])
		}
		op = wire.Opcode(n)
	}
	fr.Header.Opcode = op
	repeat, length := uint64(1), uint64(0)
	lengthSet := false
	for _, t := range f[1:] {
		key, val, eq := strings.Cut(t, "=")
		if t[0] == '"' || strings.HasPrefix(t, "x:") {
			eq = false
		}
		switch {
		case !eq && t == "rsv1":
			fr.Header.RSV1 = true
		case !eq && t == "rsv2":
			fr.Header.RSV2 = true
		case !eq && t == "rsv3":
			fr.Header.RSV3 = true
		case !eq:
			fr.Payload, err = payloadToken(fr.Payload, t)
		case key == "fin" && (val == "0" || val == "1"):
			fr.Header.Fin = val == "1"
		case key == "code":
			var n uint64
			n, err = strconv.ParseUint(val, 10, 16)
			fr.Payload = append(fr.Payload, byte(n>>8), byte(n))
		case key == "mask" && val == "none":
			fr.Mask = MaskNever
		case key == "mask" && val == "yes":
			fr.Mask = MaskAlways
		case key == "mask":
			fr.Mask = MaskKey
			var k []byte
			k, err = hex.DecodeString(val)
			if err == nil && len(k) != 4 {
				err = errors.New("a masking key has 4 bytes")
			}
			copy(fr.Header.Key[:], k)
		case key == "form" && (val == "1" || val == "3" || val == "9"):
			fr.Header.LengthForm = val[0] - '0'
		case key == "length":
			lengthSet = true
			length, err = strconv.ParseUint(val, 0, 64)
		case key == "repeat":
			repeat, err = strconv.ParseUint(val, 10, 20)
		default:
			err = errors.New("unknown field")
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t, err)
		}
	}
	fr.Header.Length = uint64(len(fr.Payload))
	if lengthSet {
		fr.Header.Length = length
	}
	out := make([]VectorFrame, repeat)
	for i := range out {
		out[i] = fr
	}
	return out, nil
}

// fields splits at spaces outside quotes.
func fields(s string) ([]string, error) {
	var out []string
	for {
		s = strings.TrimLeft(s, " \t")
		if s == "" {
			return out, nil
		}
		end := 0
		if s[0] == '"' {
			q, err := strconv.QuotedPrefix(s)
			if err != nil {
				return nil, fmt.Errorf("a quote is not closed in %.40q", s)
			}
			end = len(q)
		}
		if i := strings.IndexAny(s[end:], " \t"); i >= 0 {
			end += i
		} else {
			end = len(s)
		}
		out = append(out, s[:end])
		s = s[end:]
	}
}

// payloadMax bounds what a payload token may expand to, in bytes.
const payloadMax = 4 << 20

// payloadToken appends the bytes of "text", x:hex, "text"*N or x:hex*N.
func payloadToken(dst []byte, t string) ([]byte, error) {
	var unit []byte
	rest := ""
	switch {
	case strings.HasPrefix(t, `"`):
		q, err := strconv.QuotedPrefix(t)
		if err != nil {
			return nil, fmt.Errorf("malformed quotes in %.40q", t)
		}
		s, err := strconv.Unquote(q)
		if err != nil {
			return nil, fmt.Errorf("malformed quotes in %.40q", t)
		}
		unit, rest = []byte(s), t[len(q):]
	case strings.HasPrefix(t, "x:"):
		digits, times, ok := strings.Cut(t[2:], "*")
		b, err := hex.DecodeString(digits)
		if err != nil {
			return nil, fmt.Errorf("malformed hex in %.40q: %w", t, err)
		}
		unit = b
		if ok {
			rest = "*" + times
		}
	default:
		return nil, fmt.Errorf("cannot read %.40q: want \"text\", x:hex or a field", t)
	}
	n := 1
	if rest != "" {
		var err error
		n, err = strconv.Atoi(strings.TrimPrefix(rest, "*"))
		if err != nil || rest[0] != '*' || n < 0 || n*max(len(unit), 1) > payloadMax {
			return nil, fmt.Errorf("want *N after the bytes, at most %d bytes in all, got %.40q", payloadMax, rest)
		}
	}
	if dst == nil {
		dst = []byte{}
	}
	for range n {
		dst = append(dst, unit...)
	}
	return dst, nil
}
