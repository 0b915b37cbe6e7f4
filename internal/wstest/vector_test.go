package wstest

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/weft-ws/weft/capture"
	"github.com/weft-ws/weft/internal/proto"
	"github.com/weft-ws/weft/internal/wire"
)

func TestVectorStream(t *testing.T) {
	v, err := ParseVector("message/x.txt", `# a comment
rule: continuation-without-message
section: 5.4
comment: one
comment: two
role: both
expect: message binary "abcd"; ping 0; violation at frame 3; close 1002

BINARY fin=1 "ab" x:6364
PING

CONT fin=1 rsv2 mask=01020304 x:00*3
`)
	if err != nil {
		t.Fatal(err)
	}
	if v.Kind != Stream || v.Comment != "one two" || len(v.Roles) != 2 || v.ReceiverRule != "continuation-without-message" {
		t.Errorf("head read as %+v", v)
	}
	e := v.Expect
	if len(e.Events) != 2 || string(e.Events[0].Data) != "abcd" || e.Events[0].Opcode != wire.Binary || e.Events[1].Kind != PingEvent {
		t.Errorf("events read as %+v", e.Events)
	}
	if !e.Violation || e.Frame != 3 || e.Payload != -1 || e.Close != 1002 {
		t.Errorf("end read as %+v", e)
	}
	if len(v.Doctor) != 1 || v.Doctor[0].Rule != v.Rule || v.Doctor[0].Frame != 3 {
		t.Errorf("the doctor's part should follow from the receiver's: %+v", v.Doctor)
	}
	server := v.Chunks(proto.Server)
	if !bytes.Equal(server[0], []byte("\x82\x04abcd")) || !bytes.Equal(server[1], []byte{0x89, 0}) {
		t.Errorf("frames from a server: % x", server)
	}
	for _, role := range []proto.Role{proto.Client, proto.Server} {
		got := v.Chunks(role)[2]
		if want := []byte{0xa0, 0x83, 1, 2, 3, 4, 1, 2, 3}; !bytes.Equal(got, want) {
			t.Errorf("frame 3 from the %s: % x, want % x", role, got, want)
		}
	}
	if client := v.Chunks(proto.Client); client[0][1] != 0x84 || len(client[0]) != 10 || bytes.Equal(client[0][2:6], client[1][2:6]) {
		t.Errorf("a client's frames must be masked, each with a key of its own: % x", client[:2])
	}
	if got := v.Offset(proto.Server, 3, -1); got != 8 {
		t.Errorf("frame 3 begins at %d, want 8", got)
	}
	if got := v.Offset(proto.Client, 3, 1); got != 10+6+6+1 {
		t.Errorf("second payload byte of frame 3 is at %d, want 23", got)
	}
}

func TestVectorLengthForms(t *testing.T) {
	for line, want := range map[string]string{
		`TEXT form=3 "a"`:           "\x81\x7e\x00\x01a",
		`TEXT form=9 "a"`:           "\x81\x7f\x00\x00\x00\x00\x00\x00\x00\x01a",
		`0x7 length=0x1ffff`:        "\x87\x7f\x00\x00\x00\x00\x00\x01\xff\xff",
		`0xb fin=0 rsv3 length=300`: "\x1b\x7e\x01\x2c",
		`raw x:81 "a"`:              "\x81a",
		`CLOSE code=1000 "x"`:       "\x88\x03\x03\xe8x",
	} {
		f, err := parseFrames(line)
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		if got := string(f[0].append(nil, proto.Server, 0)); got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
	if f, err := parseFrames(`CONT fin=0 repeat=7`); err != nil || len(f) != 7 {
		t.Errorf("repeat=7 gave %d frames, %v", len(f), err)
	}
}

func TestVectorTimed(t *testing.T) {
	v, err := ParseVector("x.txt", `rule: HS-11
comment: c
kind: connections
receiver: cannot see
set: a=b
message-limit: 5
frame-limit: 6
hints: on
extensions: permessage-deflate
doctor: key-reused from client connection 2 frame 3 payload 4; HX-07 from server

connection
> GET / HTTP/1.1
at 1.5s
server PING "a"
client end rst
connection
<raw "x" x:00
>raw "y"
client TEXT "b" repeat=2
`)
	if err != nil {
		t.Fatal(err)
	}
	if v.Rule != "key-reused" || !v.Hints || v.MessageLimit != 5 || v.FrameLimit != 6 || v.Settings["a"] != "b" || v.Extensions == "" || v.Receiver != CannotSee {
		t.Errorf("head read as %+v", v)
	}
	if want := (WantFinding{Rule: "key-reused", From: capture.Client, Conn: 2, Frame: 3, Payload: 4}); v.Doctor[0] != want {
		t.Errorf("finding read as %+v", v.Doctor[0])
	}
	if len(v.Steps) != 7 {
		t.Fatalf("%d steps, want 7", len(v.Steps))
	}
	if s := v.Steps[0]; s.Conn != 1 || s.From != capture.Client || string(s.Data) != "GET / HTTP/1.1\r\n" || s.Frame {
		t.Errorf("first step %+v", s)
	}
	if s := v.Steps[1]; s.At != 1500*time.Millisecond || s.From != capture.Server || string(s.Data) != "\x89\x01a" || !s.Frame {
		t.Errorf("second step %+v", s)
	}
	if s := v.Steps[2]; s.End != capture.RST {
		t.Errorf("third step %+v", s)
	}
	if s := v.Steps[3]; s.Conn != 2 || s.At != 0 || string(s.Data) != "x\x00" {
		t.Errorf("fourth step %+v", s)
	}
	if bytes.Equal(v.Steps[5].Data, v.Steps[6].Data) {
		t.Error("repeated frames must have different masking keys")
	}
}

func TestVectorProxyLegs(t *testing.T) {
	v, err := ParseVector("x.txt", "rule: MS-09\ncomment: c\nkind: proxy\nreceiver: cannot see\ndoctor: MS-09 from proxy\n\nnear client PING\nfar client PING\nnear client end fin\n")
	if err != nil {
		t.Fatal(err)
	}
	if v.Steps[0].Leg != Near || v.Steps[1].Leg != Far || v.Steps[2].Leg != Near || !v.Doctor[0].Proxy {
		t.Errorf("legs read as %+v", v.Steps)
	}
}

func TestVectorHandshakeExpectations(t *testing.T) {
	v, err := ParseVector("x.txt", "rule: HS-02\ncomment: c\nkind: handshake\nrole: server\nexpect: refuse 405\ndoctor: HS-02\n\n> POST / HTTP/1.1\n>\n")
	if err != nil {
		t.Fatal(err)
	}
	if v.Expect.Status != 405 || string(v.Steps[1].Data) != "\r\n" {
		t.Errorf("read as %+v", v)
	}
	if v, err = ParseVector("x.txt", "comment: c\nrole: client\nexpect: peer-close 1000 \"bye\"; limit MaxMessageSize; fail; accept\n\nCLOSE\n"); err != nil {
		t.Fatal(err)
	}
	if e := v.Expect; e.Events[0].Code != 1000 || string(e.Events[0].Data) != "bye" || e.Limit != "MaxMessageSize" || !e.Fail || !e.Accept {
		t.Errorf("read as %+v", e)
	}
	// A semicolon divides items even in quotes; that must not pass silently.
	if _, err = ParseVector("x.txt", "comment: c\nrole: client\nexpect: ping \"a;b\"\n\nPING\n"); err == nil {
		t.Error("a payload with a semicolon was accepted")
	}
}

func TestVectorErrors(t *testing.T) {
	const head = "comment: c\nrole: both\n"
	for text, want := range map[string]string{
		"rule: no-such-rule\n":                          "no rule",
		"rule MS-02\n":                                  "key: value",
		"colour: red\n":                                 "no header",
		"role: proxy\n":                                 "role is",
		"role: both\nrole: both\n":                      "twice",
		"kind: film\n":                                  "no kind",
		"receiver: maybe\n":                             "receiver is",
		"receiver: names nothing\n":                     "no rule",
		"message-limit: many\n":                         "invalid syntax",
		"set: x\n":                                      "name=value",
		"expect: joy\n":                                 "no expectation",
		"expect: message \"a\"\n":                       "message text or message binary",
		"expect: message text\n":                        "length or the payload",
		"expect: message text \"a\n":                    "not closed",
		"expect: ping zz\n":                             "cannot read",
		"expect: peer-close soon\n":                     "close code",
		"expect: peer-close 1000 zz\n":                  "cannot read",
		"expect: violation at last\n":                   "frame N",
		"expect: limit\n":                               "limit NAME",
		"expect: close\n":                               "number",
		"expect: close now\n":                           "number",
		"doctor: MS-02 frame\n":                         "want RULE",
		"doctor: MS-99\n":                               "no rule",
		"doctor: MS-02 from mars\n":                     "cannot read",
		"role: both\n\nTEXT\n":                          "no comment",
		"comment: c\n\nTEXT\n":                          "needs a role",
		head + "\n":                                     "needs frames",
		head + "\nNOISE\n":                              "no opcode",
		head + "\nTEXT fin=2\n":                         "unknown field",
		head + "\nTEXT mask=0102\n":                     "4 bytes",
		head + "\nTEXT mask=zz\n":                       "invalid byte",
		head + "\nTEXT x:0\n":                           "malformed hex",
		head + "\nTEXT \"a\n":                           "not closed",
		head + "\nTEXT \"a\"*-1\n":                      "want *N",
		head + "\nTEXT \"a\"9\n":                        "want *N",
		head + "\nTEXT \"a\"*99999999\n":                "want *N",
		head + "\nTEXT nonsense\n":                      "cannot read",
		head + "\nTEXT length=x\n":                      "invalid syntax",
		head + "\nTEXT repeat=x\n":                      "invalid syntax",
		head + "\nTEXT code=70000\n":                    "out of range",
		head + "\nraw\n":                                "needs bytes",
		head + "\nraw zz\n":                             "cannot read",
		head + "\n \"\n":                                "not closed",
		head + "expect: violation at frame 2\n\nTEXT\n": "frame 2 of 1",
		head + "doctor: MS-02\n\nTEXT\n":                "no rule is named",
		head + "rule: MS-02\n\nTEXT\n":                  "does not say what a receiver does",
		head + "rule: MS-02\nexpect: ping 0\n\nTEXT\n":  "does not say what the doctor finds",
		head + "rule: MS-02\nexpect: ping 0\ndoctor: MS-03\n\nTEXT\n": "not asked to find",
		head + "kind: trace\n\nclient TEXT\n":                         "for the doctor",
		"comment: c\nkind: handshake\n\n> a\n":                        "needs a role",
		head + "kind: trace\nreceiver: cannot see\n\n":                "no bytes",
		head + "kind: trace\n\nat noon\n":                             "at:",
		head + "kind: trace\n\nat 2s\nat 1s\n":                        "goes back",
		head + "kind: trace\n\nconnection\n":                          "belong in",
		head + "kind: trace\n\nnear client TEXT\n":                    "belong in",
		head + "kind: trace\n\nclient end well\n":                     "want end fin",
		head + "kind: trace\n\nclient NOISE\n":                        "no opcode",
		head + "kind: trace\n\n>raw zz\n":                             "cannot read",
		head + "kind: trace\n\nTEXT\n":                                "cannot read the step",
	} {
		_, err := ParseVector("bad.txt", text)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "bad.txt") {
			t.Errorf("%q: error %v, want one with %q", text, err, want)
		}
	}
}

func TestLoadVectors(t *testing.T) {
	good := "comment: c\nrole: both\n\nTEXT\n"
	vs, err := LoadVectors(fstest.MapFS{"b/2.txt": {Data: []byte(good)}, "a/1.txt": {Data: []byte(good)}, "README.md": {Data: []byte("#")}})
	if err != nil || len(vs) != 2 || vs[0].Path != "a/1.txt" {
		t.Errorf("got %v, %v", vs, err)
	}
	if _, err := LoadVectors(fstest.MapFS{"a.txt": {Data: []byte("x")}}); err == nil {
		t.Error("a malformed file must be an error")
	}
}

// TestVectorsParse reads the project's own vectors.
func TestVectorsParse(t *testing.T) {
	vs, err := LoadVectors(os.DirFS("../../testdata/vectors"))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range vs {
		dir, file, _ := strings.Cut(v.Path, "/")
		layer := "clean"
		if r := proto.RuleByID(v.Rule); r != nil {
			layer = r.Layer
			if file != r.Name+".txt" && !strings.HasPrefix(file, r.Name+"-") {
				t.Errorf("%s: want the name of the rule, %s.txt", v.Path, r.Name)
			}
			if v.Section != r.Section {
				t.Errorf("%s: section %q, the rule's is %q", v.Path, v.Section, r.Section)
			}
		}
		if dir != layer {
			t.Errorf("%s: belongs in %s/", v.Path, layer)
		}
	}
}
