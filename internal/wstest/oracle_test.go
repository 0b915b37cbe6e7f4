package wstest

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/weft-ws/weft/capture"
	"github.com/weft-ws/weft/internal/proto"
)

// A recordingTB stands in for the test that an Oracle fails.
type recordingTB struct {
	testing.TB
	cleanup []func()
	errors  []string
}

func (r *recordingTB) Helper()          {}
func (r *recordingTB) Cleanup(f func()) { r.cleanup = append(r.cleanup, f) }
func (r *recordingTB) end()             { r.cleanup[0]() }
func (r *recordingTB) Errorf(f string, a ...any) {
	r.errors = append(r.errors, fmt.Sprintf(f, a...))
}

func TestOracleFailsTheTestForOurs(t *testing.T) {
	tb := &recordingTB{TB: t}
	o := NewOracle(tb, OracleOptions{})
	c, _ := Pipe(PipeOptions{Tap: o.Tap})
	NewPeer(t, c, proto.Client).Send(`BINARY "abcd"`, `CONT "ef"`)
	tb.end()
	if len(tb.errors) != 1 || !strings.Contains(tb.errors[0], "continuation-without-message") {
		t.Errorf("%q", tb.errors)
	}
	if got := o.Found(capture.Client); !slices.Equal(got, []string{"MS-02"}) {
		t.Error(got)
	}
	if o.Frames(capture.Client) != 2 || len(o.Found(capture.Server)) != 0 {
		t.Error(o.Frames(capture.Client), o.Found(capture.Server))
	}
}

func TestOracleSparesOthers(t *testing.T) {
	for name, opts := range map[string]OracleOptions{
		"the peer's breach": {Ours: []capture.Side{capture.Server}},
		"an allowed breach": {Allow: []string{"MS-02"}},
	} {
		tb := &recordingTB{TB: t}
		o := NewOracle(tb, opts)
		c, _ := Pipe(PipeOptions{Tap: o.Tap})
		NewPeer(t, c, proto.Client).Send(`BINARY "abcd"`, `CONT "ef"`)
		tb.end()
		if len(tb.errors) != 0 {
			t.Errorf("%s: %q", name, tb.errors)
		}
	}
}

// On a real connection the Oracle sits at one end and sees both directions and
// how they end.
func TestOracleOnTCP(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	nc, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	sc, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	tb := &recordingTB{TB: t}
	o := NewOracle(tb, OracleOptions{})
	client := NewPeer(t, o.Conn(nc, capture.Client), proto.Client)
	server := NewPeer(t, sc, proto.Server)
	client.Send(`TEXT fin=0 "half"`)
	server.Want(`TEXT fin=0 "half"`)
	server.Send(`PING "x"`)
	client.Want(`PING "x"`)
	if err := client.Conn.(*tappedConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	server.WantEnd("the client has closed its side")
	server.Close()
	if _, err := client.Read(); err != io.EOF {
		t.Error(err)
	}
	client.Close()
	if got := o.Found(capture.Client); !slices.Equal(got, []string{"MS-11"}) {
		t.Error(got)
	}
	tb.end()
	if len(tb.errors) != 1 {
		t.Errorf("%q", tb.errors)
	}
}
