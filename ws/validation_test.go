package ws

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-ws/weft/internal/proto"
	"github.com/weft-ws/weft/internal/wire"
	"github.com/weft-ws/weft/internal/wstest"
)

// A breach is one way in which a peer breaks a rule, and what must be seen on
// the wire.
type breach struct {
	frames []string
	roles  []Role // of the end that judges; nil: both
	cfg    Config
	packed bool
	code   CloseCode
	reason string        // the Close's reason begins with it
	wait   time.Duration // before the Close comes
}

// breaches has one for each rule of the catalogue that tells an endpoint to
// close with a code and shows in frames. Rules that bind the receiver are ours
// to keep: their breach is that we go on.
var breaches = map[string]breach{
	"FR-01": {frames: []string{`TEXT mask=none "x"`}, roles: []Role{RoleServer}, code: 1002},
	"FR-02": {frames: []string{`TEXT mask=yes "x"`}, roles: []Role{RoleClient}, code: 1002},
	"FR-03": {frames: []string{`TEXT rsv1 "x"`}, code: 1002},
	"FR-04": {frames: []string{`TEXT "fine"`, `PING rsv3`}, code: 1002},
	"FR-05": {frames: []string{`0x7 "x"`}, code: 1002},
	"FR-06": {frames: []string{`0xf "x"`}, code: 1002},
	"FR-07": {frames: []string{`BINARY length=0x8000000000000000`}, code: 1002},
	"FR-08": {frames: []string{`BINARY form=3 "x"`}, code: 1002},
	"FR-09": {frames: []string{`BINARY form=9 "x"`}, code: 1002},
	"FR-10": {frames: []string{`PING x:00*126`}, code: 1002},
	"FR-11": {frames: []string{`PING fin=0 "x"`}, code: 1002},
	"FR-14": {frames: []string{`BINARY length=1001`}, cfg: Config{MaxMessageSize: 1000}, code: 1009, reason: "over MaxMessageSize 1000"},
	"MS-01": {frames: []string{`CONT "x"`}, code: 1002},
	"MS-02": {frames: []string{`TEXT "x"`, `CONT "x"`}, code: 1002},
	"MS-03": {frames: []string{`TEXT fin=0 "x"`, `TEXT "x"`}, code: 1002},
	"MS-04": {frames: []string{`TEXT fin=0 "x"`, `BINARY fin=0 "x"`}, code: 1002, reason: "MS-03"},
	"MS-05": {frames: []string{`TEXT fin=0 "fine" x:c0`}, code: 1007},
	"MS-06": {frames: []string{`TEXT x:f09fa7`}, code: 1007},
	"MS-07": {frames: []string{`BINARY fin=0 x:00*600`, `CONT x:00*401`}, cfg: Config{MaxMessageSize: 1000}, code: 1009, reason: "over MaxMessageSize 1000"},
	"MS-11": {frames: []string{`TEXT fin=0 "x"`}, cfg: Config{MessageTimeout: 50 * time.Second}, code: 1008, reason: "MessageTimeout 50s", wait: 50 * time.Second},
	"CT-01": {cfg: Config{KeepAlive: 20 * time.Second, PongTimeout: 7 * time.Second}, code: 1001, reason: "ping not answered", wait: 27 * time.Second},
	"CL-01": {frames: []string{`CLOSE x:03`}, code: 1002},
	"CL-02": {frames: []string{`CLOSE code=999`}, code: 1002},
	"CL-03": {frames: []string{`CLOSE code=1006`}, code: 1002},
	"CL-04": {frames: []string{`CLOSE code=1016`}, code: 1002},
	"CL-05": {frames: []string{`CLOSE code=5000`}, code: 1002},
	"CL-06": {frames: []string{`CLOSE code=1000 x:ff`}, code: 1007},
	"DF-01": {frames: []string{`TEXT fin=0 rsv1 x:f2`, `CONT rsv1 x:00`}, packed: true, code: 1002},
	"DF-02": {frames: []string{`PING rsv1`}, packed: true, code: 1002},
	"DF-10": {frames: []string{`BINARY rsv1 x:ff`}, packed: true, code: 1007},
	"DF-11": {frames: []string{rsv1("BINARY", farBack(600))}, packed: true, code: 1007},
	"DF-12": {frames: []string{`TEXT rsv1 x:f248cdc9c9d751f000510000`, `TEXT rsv1 x:f240622b24a62766e60100`}, packed: true, code: 1007},
	"DF-14": {frames: []string{rsv1("BINARY", compress(make([]byte, 5000)))}, cfg: Config{MaxMessageSize: 1000}, packed: true, code: 1009, reason: "over MaxMessageSize 1000"},
	"HX-01": {frames: []string{`BINARY fin=0`, `CONT fin=0 repeat=20000`}, code: 1008, reason: "over MaxMessageSize (each fragment costs at least 64 bytes)"},
	"HX-02": {frames: []string{`BINARY fin=0`, `CONT fin=0 "x" repeat=20000`}, code: 1008, reason: "over MaxMessageSize (each fragment costs at least 64 bytes)"},
	"HX-03": {frames: []string{`TEXT fin=0 "x"`}, cfg: Config{GapTimeout: 5 * time.Second}, code: 1008, reason: "GapTimeout 5s", wait: 5 * time.Second},
	"HX-04": {frames: []string{`PONG repeat=21`}, cfg: Config{ControlRate: 10}, code: 1008, reason: "over ControlRate 10"},
}

// farBack is a DEFLATE stream that refers n bytes back.
func farBack(n int) []byte {
	p := pattern(n, 1)
	return compress(append(p, p...))
}

// elsewhere are the rules with a code that no frame of a peer can break here:
// those of the opening handshake, and one that an endpoint cannot tell from a
// bad sequence.
var elsewhere = []string{"HR-06", "DF-04", "DF-05", "DF-06", "DF-07", "DF-08", "DF-09", "MS-10"}

// Every rule that names a close code: the peer that breaks it is sent that code
// on the wire, with a reason that names the rule or the limit; nothing follows;
// and the error says the same.
func TestValidationCloseCodeOnTheWire(t *testing.T) {
	for r := range proto.Rules() {
		b, ok := breaches[r.ID]
		if exempt := slices.Contains(elsewhere, r.ID); ok == exempt && r.Code != 0 {
			t.Errorf("%s: in the table %t, exempt %t", r.ID, ok, exempt)
		}
		if !ok {
			continue
		}
		if r.Code != 0 && r.Code != b.code && r.ID != "MS-11" && r.ID != "CT-01" {
			t.Errorf("%s: the catalogue says %v, the table %v", r.ID, r.Code, b.code)
		}
		for _, role := range []Role{RoleClient, RoleServer} {
			if b.roles != nil && !slices.Contains(b.roles, role) {
				continue
			}
			t.Run(r.ID+" "+r.Name+"/"+role.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { b.run(t, r, role) })
			})
		}
	}
}

func (b *breach) run(t *testing.T, r proto.Rule, role Role) {
	var broken []*ProtocolError
	cfg := b.cfg
	cfg.Trace = &Trace{Violation: func(v *ProtocolError) { broken = append(broken, v) }}
	s := setup{client: cfg, server: cfg, pipe: wstest.PipeOptions{Window: 1 << 20}}
	if b.packed {
		s.deflate = &params[3]
		if r.ID == "DF-12" {
			s.deflate = &params[1]
		}
	}
	c, p, _ := s.scripted(t, role)
	ended := async(func() error { return c.Drain(background) })
	begin := time.Now()
	p.Send(b.frames...)
	reason := p.WantCloseAfter(b.code, r.Says)
	if d := time.Since(begin); d != b.wait {
		t.Errorf("after %v, want %v", d, b.wait)
	}
	want := b.reason
	if want == "" {
		want = r.ID + " " + r.Name
	}
	if !strings.HasPrefix(reason, want) {
		t.Errorf("reason %q, want %q", reason, want)
	}
	if role == RoleServer {
		p.WantEnd("nothing follows the Close")
	} else {
		p.WantNothing("nothing follows the Close")
	}
	p.Close()
	ce := wantCloseError(t, now(t, ended, "the peer broke a rule").err, b.code, false)
	if ce.Sent == nil || ce.Sent.Code != b.code || ce.Sent.Reason != reason || ce.Received != nil || ce.Cause == nil {
		t.Errorf("%+v", ce)
	}
	var v *ProtocolError
	if errors.As(ce, &v) {
		if len(broken) != 1 || broken[0] != v || v.From != role.Peer() || v.Rule.ID != want[:5] {
			t.Errorf("the trace got %v, the error is %v", broken, v)
		}
	} else if b.reason == "" {
		t.Errorf("%v tells no rule", ce)
	}
	wantOver(t, c)
}

// What we are asked to send is judged before its first byte leaves.
func TestValidationOfWhatWeSend(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		c, p, _ := setup{client: Config{FragmentSize: 20}, server: Config{FragmentSize: 20}}.scripted(t, role)
		for _, bad := range []string{"\xff", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", strings.Repeat("fine ", 1000) + "\xe2\x82"} {
			for name, err := range map[string]error{
				"WriteMessage": c.WriteMessage(background, Text, []byte(bad)),
				"Send":         c.Send(background, Outgoing{Type: Text, Data: []byte(bad)}),
				"NewPrepared":  func() error { _, err := NewPrepared(Text, []byte(bad)); return err }(),
			} {
				if err != errNotUTF8 {
					t.Errorf("%s of %.20q: %v", name, bad, err)
				}
			}
		}
		for _, typ := range []MessageType{0, 3, 8, 255} {
			_, prepared := NewPrepared(typ, nil)
			_, writer := c.NextWriter(background, typ)
			for name, err := range map[string]error{
				"WriteMessage": c.WriteMessage(background, typ, nil),
				"Send":         c.Send(background, Outgoing{Type: typ}),
				"NewPrepared":  prepared,
				"NextWriter":   writer,
			} {
				if err != errMessageType {
					t.Errorf("%s of type %d: %v", name, typ, err)
				}
			}
		}
		p.WantNothing("none of it may leave")
		if c.Err() != nil {
			t.Fatal(c.Err())
		}
		mustWrite(t, c, Binary, []byte("\xff\xfe"))
		p.Want(`BINARY x:fffe`)
		if fmt.Sprint(Text, Binary, MessageType(9)) != "text binary invalid message type" {
			t.Error(Text, Binary, MessageType(9))
		}
	})
}

// Every byte of bad text is found, wherever it is cut, at the first hopeless one.
func TestValidationTextAtEveryCut(t *testing.T) {
	for bad, hopeless := range map[string]int{"abc\xffdef": 3, "\xe2\x82\xac\xe2\x28\xa1": 4, "\xf0\x9f\xa7\xb6\xf8": 4, "\xed\xa0\x80": 1} {
		bubble(t, func(t *testing.T, role Role) {
			for cut := range len(bad) {
				for _, inFrames := range []bool{false, true} {
					c, p, _ := setup{}.scripted(t, role)
					read := reading(background, c)
					var at int64
					header := int64(2 + 4*(role-RoleClient))
					if inFrames {
						p.SendFrame(wire.Text, false, []byte(bad[:cut]))
						p.SendFrame(wire.Continuation, true, []byte(bad[cut:]))
						if at = header + int64(hopeless); hopeless >= cut {
							at += header
						}
					} else {
						f := p.Frames(fmt.Sprintf("TEXT x:%x", bad))[0]
						p.SendBytes(f[:int(header)+cut])
						synctest.Wait()
						if len(read) == 0 {
							p.SendBytes(f[int(header)+cut:])
						}
						at = header + int64(hopeless)
					}
					var v *ProtocolError
					if r := now(t, read, ""); !errors.As(r.err, &v) || v.Rule.ID != "MS-05" || v.Offset != at {
						t.Errorf("%q cut at %d (frames %t): %v, want byte %d", bad, cut, inFrames, r.err, at)
					}
					p.WantClose(CloseInvalidPayload, "")
					p.Close()
				}
			}
		})
	}
}
