package chat

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/weft-ws/weft/acip"
	"github.com/weft-ws/weft/ws"
)

// split counts the long messages of one direction by how they travel.
type split struct{ whole, pieces, longest int }

// splits sees the frames of a client's WebSocket.
type splits struct {
	mu      sync.Mutex
	in, out split
	open    [2]bool
}

// piece is the longest frame of a message in pieces, 16 KiB with its header.
const piece = 16 << 10

func (s *splits) frame(f ws.FrameInfo) {
	if f.Opcode.Control() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d, k := &s.in, 0
	if f.Dir == ws.Out {
		d, k = &s.out, 1
	}
	first := !s.open[k]
	s.open[k] = !f.Fin
	switch {
	case first && !f.Fin:
		d.pieces++
	case first && f.Length > piece:
		d.whole++
	}
	if !first || !f.Fin {
		d.longest = max(d.longest, int(f.Length))
	}
}

// counts returns what was seen so far.
func (s *splits) counts() (in, out split) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.in, s.out
}

// Long packets travel in pieces between weft peers, each of which has announced
// that it puts them together, and in one frame towards all others; a setting of
// each end decides otherwise for what that end sends.
func TestFragmentsOnTheWire(t *testing.T) {
	for _, c := range []struct {
		name            string
		server, client  FragmentPolicy
		weft            bool // the client says that it is a weft client
		fromServer, out bool // pieces are expected of the server, and of the client
	}{
		{"both by default", FragmentAuto, FragmentAuto, true, true, true},
		{"the server never", FragmentNever, FragmentAuto, true, false, true},
		{"the client never", FragmentAuto, FragmentNever, true, true, false},
		{"neither ever", FragmentNever, FragmentNever, true, false, false},
		{"both always", FragmentAlways, FragmentAlways, true, true, true},
		{"a client that is no weft client", FragmentAuto, FragmentNever, false, false, false},
		{"the same, and the server always", FragmentAlways, FragmentNever, false, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t, ServerConfig{Fragments: c.server})
			seen := &splits{}
			trace, _ := doctored(t, ws.RoleClient)
			trace.Frame = seen.frame
			caps := capabilities(200, 60)
			caps.Mode = acip.HalfBlock
			if c.weft {
				cfg := s.config(s.ws)
				cfg.Trace, cfg.Fragments, cfg.Capabilities = trace, c.client, caps
				join(t, cfg)
			} else {
				join(t, s.config(s.tcp)) // somebody to look at
				listenAsC(t, s, trace, caps)
			}
			// The very first packets may leave before both know each other.
			enough := func(got split, pieces bool) bool {
				return pieces && got.pieces >= 5 || !pieces && got.whole >= 5
			}
			eventually(t, "five long packets in the way that is expected", func() bool {
				in, out := seen.counts()
				return enough(in, c.fromServer) && (!c.weft || enough(out, c.out))
			})
			in, out := seen.counts()
			if !c.fromServer && in.pieces != 0 || !c.out && out.pieces != 0 {
				t.Errorf("in pieces: %d from the server, %d from the client", in.pieces, out.pieces)
			}
			if c.server == FragmentAlways && in.whole != 0 || c.client == FragmentAlways && out.whole != 0 {
				t.Errorf("in one frame: %d from the server, %d from the client", in.whole, out.whole)
			}
			if in.longest > piece || out.longest > piece {
				t.Errorf("pieces of up to %d and %d bytes", in.longest, out.longest)
			}
		})
	}
}

// listenAsC joins as the C programs do, until the test ends.
func listenAsC(t *testing.T, s *site, trace *ws.Trace, caps acip.Capabilities) {
	t.Helper()
	cfg := acip.WebSocketConfig()
	cfg.Trace = trace
	conn, err := ws.Dial(t.Context(), s.ws, &ws.DialOptions{Subprotocols: []string{"acip"}, Config: cfg})
	if err != nil {
		t.Fatal(err)
	}
	h := &scripted{}
	sess := acip.NewSession(acip.OnWebSocket(conn), acip.NewClient(acip.WebSocket, acip.ClientConfig{}), h)
	h.ready = func() {
		_ = sess.Link.Control(acip.Out{Type: acip.TypeCapabilities, Payload: caps.AppendTo(nil), Sealed: true})
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- sess.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
}

// A server that is no weft server, in the clear or encrypted, is sent whole
// packets, and none that it would not know.
func TestNoFragmentsTowardsCServers(t *testing.T) {
	var came tally
	ended := make(chan error, 1)
	srv := &ws.Server{Options: ws.AcceptOptions{Subprotocols: []string{"acip"}, Config: acip.WebSocketConfig()}}
	hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := srv.Accept(w, r)
		if err != nil {
			ended <- err
			return
		}
		h := &scripted{packet: came.add}
		sess := acip.NewSession(acip.OnWebSocket(conn), acip.NewServer(acip.WebSocket, acip.ServerConfig{}), h)
		h.ready = func() {
			_ = sess.Link.Control(acip.Out{Type: acip.TypeServerState, Payload: acip.State{Connected: 1}.AppendTo(nil), Sealed: true})
		}
		ended <- sess.Run(context.Background())
	}))
	seen := &splits{}
	trace, _ := doctored(t, ws.RoleClient)
	trace.Frame = seen.frame
	g := join(t, ClientConfig{URL: "ws" + strings.TrimPrefix(hs.URL, "http"), Trace: trace, Name: "mia", FPS: 60, Source: NewPattern(), Capabilities: capabilities(80, 24)})
	eventually(t, "ten pictures", func() bool { return came.of(acip.TypeImageFrame) >= 10 })
	if err := g.Say("hello"); err == nil {
		t.Error("a line for a server that cannot pass it on")
	}
	if err := g.MuteMember("leo", true); err == nil {
		t.Error("a mute for a server that knows none")
	}
	g.leave()
	if err := <-ended; err != nil {
		t.Errorf("the server: %v", err)
	}
	hs.Close()
	if _, out := seen.counts(); out.pieces != 0 || out.whole < 10 {
		t.Errorf("%+v", out)
	}
	for typ, n := range came.n {
		switch typ {
		case acip.TypeImageFrame:
		case acip.TypeCapabilities, acip.TypeStreamStart:
			if n != 1 {
				t.Errorf("%s came %d times", typ, n)
			}
		default:
			t.Errorf("%s came", typ)
		}
	}
}
