package proto_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/weft-ws/weft/internal/proto"
	"github.com/weft-ws/weft/internal/wstest"
)

func loadVectors(t testing.TB) []*wstest.Vector {
	t.Helper()
	vectors, err := wstest.LoadVectors(os.DirFS("../../testdata/vectors"))
	if err != nil {
		t.Fatal(err)
	}
	return vectors
}

// cuts are the ways in which each vector's bytes arrive.
var cuts = map[string]func(frames [][]byte) [][]byte{
	"whole":        func(f [][]byte) [][]byte { return [][]byte{bytes.Join(f, nil)} },
	"per frame":    func(f [][]byte) [][]byte { return f },
	"byte by byte": func(f [][]byte) [][]byte { return bytewise(bytes.Join(f, nil)) },
}

// Every vector of frames goes through a Receiver in each role that it binds,
// however it is cut.
func TestVectors(t *testing.T) {
	judged := map[string]bool{}
	for _, v := range loadVectors(t) {
		if v.Kind != wstest.Stream {
			continue // what a Receiver does not see: handshakes, times, both directions
		}
		judged[v.Path] = true
		for _, receiver := range v.Roles {
			for name, cut := range cuts {
				t.Run(fmt.Sprintf("%s/%v/%s", v.Path, receiver, name), func(t *testing.T) {
					runVector(t, v, receiver, cut(v.Chunks(receiver.Peer())))
				})
			}
		}
	}
	if len(judged) < 40 {
		t.Errorf("only %d vectors are streams of frames", len(judged))
	}
}

func runVector(t *testing.T, v *wstest.Vector, receiver proto.Role, chunks [][]byte) {
	lim := &proto.Limits{MessageSize: v.MessageLimit, Deflate: strings.Contains(v.Extensions, "permessage-deflate")}
	r := proto.NewReceiver(receiver.Peer(), lim)
	got, err := receive(t, r, chunks...)
	if v.Receiver == wstest.NeedsInflate {
		// Frames alone are in order; package ws runs these vectors to their end.
		if err != nil || r.Frame().Index != int64(len(v.Frames)) {
			t.Errorf("after frame %d of %d: %v", r.Frame().Index, len(v.Frames), err)
		}
		return
	}
	e := &v.Expect
	if len(got) != len(e.Events) {
		t.Fatalf("got %v, want %d events", got, len(e.Events))
	}
	kinds := map[wstest.EventKind]proto.EventKind{
		wstest.MessageEvent: proto.Data, wstest.PingEvent: proto.Ping, wstest.PongEvent: proto.Pong, wstest.CloseEvent: proto.Close,
	}
	for i, want := range e.Events {
		g := got[i]
		if g.compressed { // expected inflated
			g.payload = string(want.Data)
		}
		if g.kind != kinds[want.Kind] || g.opcode != want.Opcode || len(g.payload) != want.Len || want.Data != nil && g.payload != string(want.Data) || g.code != want.Code {
			t.Errorf("event %d is %v, want %v", i+1, g, want)
		}
	}
	var viol *proto.Violation
	var limit *proto.LimitError
	switch {
	case e.Violation:
		if !errors.As(err, &viol) {
			t.Fatalf("got %v, want %s", err, v.ReceiverRule)
		}
		if viol.Rule.Name != v.ReceiverRule || viol.Frame.Index != int64(e.Frame) || viol.From != receiver.Peer() || viol.Rule.Code != e.Close {
			t.Errorf("got %v with code %v, want %s in frame %d, code %v", viol, viol.Rule.Code, v.ReceiverRule, e.Frame, e.Close)
		}
		if want := v.Offset(receiver.Peer(), e.Frame, -1); viol.Frame.Offset != want {
			t.Errorf("frame at byte %d, want %d", viol.Frame.Offset, want)
		}
		if e.Payload >= 0 {
			if want := v.Offset(receiver.Peer(), e.Frame, e.Payload); viol.Offset != want {
				t.Errorf("breach at byte %d, want %d", viol.Offset, want)
			}
		}
	case e.Limit != "":
		if !errors.As(err, &limit) || limit.Limit != e.Limit || limit.Code != e.Close {
			t.Errorf("got %v, want limit %s with code %v", err, e.Limit, e.Close)
		}
	case err != nil:
		t.Error(err)
	}
}
