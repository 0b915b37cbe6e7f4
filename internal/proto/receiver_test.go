package proto_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/weft-ws/weft/internal/proto"
	"github.com/weft-ws/weft/internal/wire"
)

// An event is what a Receiver delivered, with the pieces of a message joined.
type event struct {
	kind       proto.EventKind
	opcode     wire.Opcode
	compressed bool
	code       wire.CloseCode
	payload    string
}

// A collector collects the events of a Receiver.
type collector struct {
	t       testing.TB
	r       *proto.Receiver
	message []byte
	open    bool
}

// receive hands the chunks to the Receiver one after the other and returns the
// events up to the first error. It checks on the way what holds for every call
// of Next.
func (c *collector) receive(chunks ...[]byte) (events []event, err error) {
	c.t.Helper()
	for _, p := range chunks {
		for len(p) > 0 {
			ev, n, err := c.r.Next(p)
			if err != nil {
				if _, n, again := c.r.Next(p); again != err || n != 0 {
					c.t.Fatalf("the first violation must be final: then %v, %d bytes", again, n)
				}
				return events, err
			}
			if n <= 0 || n > len(p) {
				c.t.Fatalf("Next took %d of %d bytes", n, len(p))
			}
			switch ev.Kind {
			case proto.None:
			case proto.Data:
				if ev.First == c.open {
					c.t.Fatalf("First is %t, but a message was open: %t", ev.First, c.open)
				}
				c.message = append(c.message, ev.Payload...)
				if c.open = !ev.Last; ev.Last {
					if got := c.r.Received(); got != int64(len(c.message)) {
						c.t.Fatalf("Received is %d after a message of %d bytes", got, len(c.message))
					}
					events = append(events, event{kind: proto.Data, opcode: ev.Opcode, compressed: ev.Compressed, payload: string(c.message)})
					c.message = c.message[:0]
				}
			default:
				if c.r.Want() != 0 {
					c.t.Fatal("Want counts a control frame")
				}
				events = append(events, event{kind: ev.Kind, code: ev.Code, payload: string(ev.Payload)})
			}
			p = p[n:]
		}
	}
	return events, nil
}

// receive is collector.receive for a Receiver that begins with the chunks.
func receive(t testing.TB, r *proto.Receiver, chunks ...[]byte) ([]event, error) {
	t.Helper()
	return (&collector{t: t, r: r}).receive(chunks...)
}

// bytewise cuts p into single bytes.
func bytewise(p []byte) [][]byte {
	out := make([][]byte, len(p))
	for i := range p {
		out[i] = p[i : i+1]
	}
	return out
}

// A sent is what a well-behaved end has put on the wire.
type sent struct {
	t testing.TB
	s *proto.Sender
	b []byte
}

func newSent(t testing.TB, role proto.Role) *sent {
	var n byte
	return &sent{t: t, s: proto.NewSender(role, func() [4]byte { n++; return [4]byte{n, 0x55, 0xaa, n} })}
}

func (s *sent) data(op wire.Opcode, last bool, payload string) *sent {
	s.t.Helper()
	var err error
	if s.b, err = s.s.AppendData(s.b, op, last, []byte(payload)); err != nil {
		s.t.Fatal(err)
	}
	return s
}

func (s *sent) control(op wire.Opcode, payload string) *sent {
	s.t.Helper()
	var err error
	if s.b, err = s.s.AppendControl(s.b, op, []byte(payload)); err != nil {
		s.t.Fatal(err)
	}
	return s
}

var roles = []proto.Role{proto.Client, proto.Server}

func TestReceiverDeliversWhatWasSent(t *testing.T) {
	for _, from := range roles {
		s := newSent(t, from).
			data(wire.Text, false, "hé").control(wire.Ping, "now").data(wire.Text, false, "").data(wire.Text, true, "llo").
			control(wire.Pong, "").data(wire.Binary, true, "").data(wire.Binary, true, strings.Repeat("x", 70000)).
			control(wire.Close, "\x0f\xa0bye")
		want := []event{
			{kind: proto.Ping, payload: "now"},
			{kind: proto.Data, opcode: wire.Text, payload: "héllo"},
			{kind: proto.Pong},
			{kind: proto.Data, opcode: wire.Binary},
			{kind: proto.Data, opcode: wire.Binary, payload: strings.Repeat("x", 70000)},
			{kind: proto.Close, code: 4000, payload: "bye"},
		}
		for name, chunks := range map[string][][]byte{"whole": {bytes.Clone(s.b)}, "byte by byte": bytewise(bytes.Clone(s.b))} {
			r := proto.NewReceiver(from, &proto.Limits{})
			got, err := receive(t, r, chunks...)
			if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%v, %s: %.200v, %v", from, name, got, err)
			}
			if f := r.Frame(); f.Index != 8 || f.Dir != proto.In || f.Fragment != 0 || r.Partial() {
				t.Errorf("%v, %s: ends at %+v, partial %t", from, name, f, r.Partial())
			}
			if got, err := receive(t, r, []byte("\xff\xff anything at all")); len(got) != 0 || err != nil {
				t.Errorf("%v, %s: after a Close everything is discarded, but got %v, %v", from, name, got, err)
			}
		}
	}
}

func TestReceiverTellsWhereItStands(t *testing.T) {
	r := proto.NewReceiver(proto.Server, &proto.Limits{})
	c := collector{t: t, r: r}
	stream := newSent(t, proto.Server).data(wire.Text, true, "a").data(wire.Binary, false, "bcd").data(wire.Binary, true, strings.Repeat("e", 200)).b
	for _, step := range []struct {
		bytes   int
		want    string
		partial bool
		missing int64
		frags   int
		got     int64
	}{
		{0, "without a Close, after frame 0 at byte 0", false, 0, 0, 0},
		{1, "inside the header of frame 1, at byte 1", true, 0, 0, 0},
		{1, "inside the payload of frame 1, at byte 2 with 1 missing", true, 1, 1, 0},
		{1, "without a Close, after frame 1 at byte 3", false, 0, 1, 1},
		{4, "inside the payload of frame 2, at byte 7 with 1 missing", true, 1, 1, 2},
		{1, "between two fragments, after frame 2 at byte 8", true, 0, 1, 3},
		{3, "inside the header of frame 3, at byte 11", true, 0, 1, 3},
		{2, "inside the payload of frame 3, at byte 13 with 199 missing", true, 199, 2, 4},
		{199, "without a Close, after frame 3 at byte 212", false, 0, 2, 203},
	} {
		if _, err := c.receive(stream[:step.bytes]); err != nil {
			t.Fatal(err)
		}
		stream = stream[step.bytes:]
		if r.Where() != step.want || r.Partial() != step.partial || r.Want() != step.missing {
			t.Errorf("%q, partial %t, want %d; want %q, %t, %d", r.Where(), r.Partial(), r.Want(), step.want, step.partial, step.missing)
		}
		if r.Fragments() != step.frags || r.Received() != step.got {
			t.Errorf("%s: %d fragments, %d bytes; want %d, %d", step.want, r.Fragments(), r.Received(), step.frags, step.got)
		}
	}
	if r.Opcode() != wire.Binary || r.Compressed() {
		t.Error(r.Opcode(), r.Compressed())
	}
}

// A header that lies costs nothing: no length is reserved, none overflows.
func TestReceiverHugeLengths(t *testing.T) {
	for _, from := range roles {
		for _, n := range []uint64{1 << 16, 1 << 31, 1<<31 + 1, 1 << 32, 1 << 40, 1 << 62, math.MaxInt64} {
			for _, limit := range []int64{0, 1, 1 << 20, math.MaxInt64 - 1} {
				h := wire.AppendHeader(nil, wire.Header{Fin: true, Opcode: wire.Binary, Masked: from == proto.Client, Length: n})
				r := proto.NewReceiver(from, &proto.Limits{MessageSize: limit})
				_, err := receive(t, r, bytes.Clone(h))
				over := limit > 0 && n > uint64(limit)
				var le *proto.LimitError
				if errors.As(err, &le) != over {
					t.Errorf("from %v, %d bytes announced, limit %d: %v", from, n, limit, err)
				}
				if over && (le.Code != wire.CloseMessageTooBig || le.Limit != "MaxMessageSize" || le.Max != limit || le.Frame.Index != 1) {
					t.Errorf("%+v", le)
				}
				if !over && r.Want() != int64(n) {
					t.Errorf("Want %d, want %d", r.Want(), n)
				}
			}
		}
	}
}

func TestReceiverReservesNothing(t *testing.T) {
	stream := wire.AppendHeader(nil, wire.Header{Opcode: wire.Binary, Fin: true, Length: 1 << 40})
	stream = append(stream, make([]byte, 1000)...)
	r, lim := new(proto.Receiver), new(proto.Limits)
	if n := testing.AllocsPerRun(100, func() {
		*r = proto.Receiver{}
		r.Init(proto.Server, lim)
		for _, p := range [][]byte{stream[:1], stream[1:5], stream[5:]} {
			for len(p) > 0 {
				_, k, err := r.Next(p)
				if err != nil {
					t.Fatal(err)
				}
				p = p[k:]
			}
		}
	}); n != 0 {
		t.Errorf("a header that announces 1 TiB costs %v allocations", n)
	}
}

// Sums of announced lengths must not overflow either.
func TestReceiverHugeSums(t *testing.T) {
	for _, limit := range []int64{0, math.MaxInt64} {
		r := proto.NewReceiver(proto.Server, &proto.Limits{MessageSize: limit, Deflate: true})
		head := func(op wire.Opcode, rsv1 bool, n uint64) error {
			_, err := receive(t, r, wire.AppendHeader(nil, wire.Header{Opcode: op, RSV1: rsv1, Length: n}))
			return err
		}
		if err := head(wire.Binary, true, math.MaxInt64); err != nil {
			t.Fatalf("limit %d: %v", limit, err)
		}
		if r.Want() != math.MaxInt64 {
			t.Error(r.Want())
		}
	}
}

func TestViolationNamesEverything(t *testing.T) {
	r := proto.NewReceiver(proto.Client, &proto.Limits{})
	s := newSent(t, proto.Client).data(wire.Binary, true, "abcd")
	s.b = wire.AppendHeader(s.b, wire.Header{Fin: true, Opcode: wire.Continuation, Masked: true, Length: 2})
	_, err := receive(t, r, s.b)
	var v *proto.Violation
	if !errors.As(err, &v) {
		t.Fatal(err)
	}
	if v.Rule.Name != "continuation-without-message" || v.From != proto.Client || v.Frame.Index != 2 || v.Frame.Offset != 10 || v.Offset != 10 {
		t.Errorf("%+v", v)
	}
	want := "client broke continuation-without-message (MS-02, RFC 6455 5.4) in frame 2 at byte 10: the last message ended in frame 1"
	if err.Error() != want {
		t.Errorf("got  %q\nwant %q", err, want)
	}
	hint := &proto.Violation{Rule: proto.RuleByID("HX-01"), From: proto.Server}
	if got := hint.Error(); got != "server broke empty-fragment-flood (HX-01) in frame 0 at byte 0" {
		t.Errorf("%q", got)
	}
}

func TestCloseCodeRule(t *testing.T) {
	for code := range 1 << 16 {
		c := wire.CloseCode(code)
		want := ""
		switch {
		case c < 1000:
			want = "CL-02"
		case c == 1005 || c == 1006 || c == 1015:
			want = "CL-03"
		case c == 1004 || c > 1015 && c < 3000:
			want = "CL-04"
		case c >= 5000:
			want = "CL-05"
		}
		if got := proto.CloseCodeRule(c); got != want {
			t.Fatalf("%d: %q, want %q", code, got, want)
		}
	}
}

func TestWords(t *testing.T) {
	for got, want := range map[string]string{
		proto.Client.String(): "client", proto.Server.String(): "server",
		proto.Client.Peer().String(): "server", proto.Server.Peer().String(): "client",
		proto.In.String(): "in", proto.Out.String(): "out",
		proto.LevelMust.String(): "MUST", proto.LevelShould.String(): "SHOULD", proto.LevelRule.String(): "RULE", proto.LevelHint.String(): "HINT",
		proto.EitherSide.String(): "either", proto.ClientSide.String(): "client", proto.ServerSide.String(): "server",
		proto.ReceiverSide.String(): "receiver", proto.ProxySide.String(): "proxy",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// The catalogue is complete and can be looked up both ways.
func TestRules(t *testing.T) {
	n := 0
	for r := range proto.Rules() {
		n++
		for _, key := range []string{r.ID, r.Name} {
			if got := proto.RuleByID(key); got == nil || *got != r {
				t.Errorf("RuleByID(%q) is %v", key, got)
			}
		}
		if r.Name == "" || r.Says == "" || r.Action == "" || r.RFC != "" && r.Section == "" {
			t.Errorf("%+v", r)
		}
		if n == 91 {
			break
		}
	}
	if n != 91 || proto.RuleByID("XX-99") != nil || proto.RuleByID("") != nil {
		t.Error(n)
	}
}

// Tests in which an own mistake must not go unnoticed.
func TestSenderRefusesWhatIsIllegal(t *testing.T) {
	for _, role := range roles {
		s := newSent(t, role)
		data := func(op wire.Opcode, last bool) error {
			b, err := s.s.AppendData(s.b, op, last, []byte("x"))
			if err != nil && len(b) != len(s.b) {
				t.Error("a refused frame left bytes")
			}
			return err
		}
		control := func(op wire.Opcode, n int) error {
			b, err := s.s.AppendControl(s.b, op, make([]byte, n))
			if err != nil && len(b) != len(s.b) {
				t.Error("a refused frame left bytes")
			}
			return err
		}
		for op := range wire.Opcode(16) {
			if err := data(op, true); (err == nil) != (op == wire.Text || op == wire.Binary) {
				t.Errorf("data of opcode %v: %v", op, err)
			}
			if op != wire.Close {
				if err := control(op, 125); (err == nil) != (op == wire.Ping || op == wire.Pong) {
					t.Errorf("control frame of opcode %v: %v", op, err)
				}
			}
		}
		if control(wire.Ping, 126) == nil || control(wire.Close, 126) == nil {
			t.Error("126 bytes in a control frame")
		}
		if data(wire.Text, false) != nil || !s.s.Open() || data(wire.Binary, true) == nil || data(wire.Text, false) != nil || s.s.Fragments() != 2 {
			t.Error("messages mix")
		}
		if s.s.Abandon(); s.s.Open() || data(wire.Binary, true) != nil || s.s.Fragments() != 1 {
			t.Error("an abandoned message is still open")
		}
		if s.s.Closed() || control(wire.Close, 2) != nil || !s.s.Closed() {
			t.Error("cannot close")
		}
		if data(wire.Text, true) == nil || control(wire.Ping, 0) == nil || control(wire.Close, 0) == nil {
			t.Error("something followed the Close")
		}
	}
}

func TestClosingHandshake(t *testing.T) {
	var c proto.Closing
	if c.Done() || c.Answer() != wire.CloseNoStatus {
		t.Error("a fresh Closing is done, or has an answer")
	}
	if s, r, remote := c.Frames(); s != nil || r != nil || remote {
		t.Error(s, r, remote)
	}
	c.Received(4000, "first")
	c.Received(4001, "second: ignored")
	if c.Done() || c.Answer() != 4000 {
		t.Error(c.Done(), c.Answer())
	}
	c.Sent(4000, "")
	c.Sent(1000, "again: ignored")
	s, r, remote := c.Frames()
	if !c.Done() || *s != (proto.CloseFrame{Code: 4000}) || *r != (proto.CloseFrame{Code: 4000, Reason: "first"}) || !remote {
		t.Error(s, r, remote)
	}
	c = proto.Closing{}
	c.Sent(1001, "ours")
	c.Received(1000, "")
	if _, _, remote := c.Frames(); remote || !c.Done() {
		t.Error("ours was first")
	}
}

func TestCut(t *testing.T) {
	for _, c := range []struct {
		p    string
		size int
		text bool
		want int
	}{
		{"", 10, true, 0}, {"abc", 10, true, 3}, {"abc", 3, true, 3}, {"abcd", 3, true, 3},
		{"aé", 2, true, 1}, {"aé", 2, false, 2}, {"€uro", 2, true, 2}, {"€uro", 3, true, 3},
		{"a🧶b", 4, true, 1}, {"a🧶b", 5, true, 5}, {"abc", 0, false, 1}, {"é", 0, true, 1},
	} {
		if got := proto.Cut([]byte(c.p), c.size, c.text); got != c.want {
			t.Errorf("Cut(%q, %d, %t) is %d, want %d", c.p, c.size, c.text, got, c.want)
		}
	}
}
