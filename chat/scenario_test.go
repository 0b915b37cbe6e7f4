package chat

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"

	"github.com/weft-ws/weft/acip"
	"github.com/weft-ws/weft/ws"
)

// rounds is how often the scenario of the report is run; make soak sets it.
var rounds = flag.Int("rounds", 20, "runs of TestReportedScenario")

// The report that all this started from: a server on a random port between
// 30000 and 40000, a client in snapshot mode with no delay, capture, sound and
// pings sent together over WebSocket. The first picture of 230,424 bytes killed
// the client. Here each round ends with a frame and an orderly goodbye, and the
// doctor, who listens on both ends, finds nothing.
func TestReportedScenario(t *testing.T) {
	for i := range *rounds {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			s := newSite(t, ServerConfig{Fragments: FragmentPolicy(i % 2)})
			l := randomPort(t)
			hs := ws.NewHTTPServer(s.Server)
			served := make(chan error, 1)
			go func() { served <- hs.Serve(l) }()
			cfg := s.config("ws://" + l.Addr().String())
			cfg.FPS, cfg.Microphone = 144, &noise{}
			cfg.ACIP.PingInterval = 1e6 // a ping every millisecond
			cfg.Capabilities.Width, cfg.Capabilities.Height = 110, 70
			cfg.Fragments = FragmentPolicy(i % 2)
			g := join(t, cfg)
			frame := g.frame()
			g.leave()
			if err := g.wait(); err != nil {
				t.Errorf("the client: %v", err)
			}
			if rows := 1 + bytes.Count(frame, []byte{'\n'}); rows != 41 || !bytes.Contains(frame, []byte("\x1b[38;2;")) {
				t.Errorf("a frame of %d rows", rows)
			}
			eventually(t, "the server says that the client left", func() bool { return strings.Contains(s.log.String(), "client left") })
			if strings.Contains(s.log.String(), "broke") || !strings.Contains(s.log.String(), "reason=left") {
				t.Errorf("the server says\n%s", s.log)
			}
			if st := g.Stats(); st.Sent.Video == 0 || st.Sent.Control < 2 {
				t.Errorf("sent %+v", st.Sent)
			}
			_ = hs.Close()
			<-served
		})
	}
}

// randomPort listens on a free port between 30000 and 40000.
func randomPort(t *testing.T) net.Listener {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 30000+rand.IntN(10000)))
		if err == nil {
			return l
		}
	}
	t.Fatal("no free port between 30000 and 40000")
	return nil
}

// Clients that are killed, frozen or send garbage disturb nobody, and the server
// says why each of them went.
func TestBadClientsDisturbNobody(t *testing.T) {
	s := newSite(t, ServerConfig{Trace: func() *ws.Trace { return nil }})
	good := join(t, s.config(s.ws))
	good.frame()
	garbage := bytes.Repeat([]byte{0xff, 0x00, 'x'}, 1000)
	for _, bad := range []struct {
		name string
		do   func()
		why  string
	}{
		{"garbage over TCP", func() {
			c, err := net.Dial("tcp", strings.TrimPrefix(s.tcp, "tcp://"))
			if err != nil {
				t.Fatal(err)
			}
			_, _ = c.Write(garbage)
			c.Close()
		}, "peer broke acip rule magic"},
		{"garbage in a message", func() {
			c, err := ws.Dial(t.Context(), s.ws, &ws.DialOptions{Subprotocols: []string{"acip"}})
			if err != nil {
				t.Fatal(err)
			}
			_ = c.WriteMessage(t.Context(), ws.Binary, garbage)
			_ = c.Drain(t.Context())
		}, "peer broke acip rule magic"},
		{"garbage instead of frames", func() {
			c, err := net.Dial("tcp", strings.TrimPrefix(s.ws, "ws://"))
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: acip\r\nSec-WebSocket-Version: 13\r\n\r\n")
			readHead(t, c)
			_, _ = c.Write(garbage)
			// To hang up now would be another reason to end: who writes to a
			// closed socket may learn of that first.
			_, _ = io.Copy(io.Discard, c)
			c.Close()
		}, "client broke"},
		{"a text message", func() {
			c, err := ws.Dial(t.Context(), s.ws, &ws.DialOptions{Subprotocols: []string{"acip"}})
			if err != nil {
				t.Fatal(err)
			}
			_ = c.WriteMessage(t.Context(), ws.Text, []byte("hello"))
			_ = c.Drain(t.Context())
		}, "a text message"},
		{"killed in the middle of a picture", func() {
			g := join(t, s.config(s.tcp))
			g.frame()
			_ = g.sess.Conn().Abort()
			_ = g.wait()
		}, "EOF"},
		{"a flood of control packets", func() {
			g := join(t, s.config(s.ws))
			g.frame()
			for range 1000 {
				if g.sess.Link.Control(acip.Out{Type: acip.TypeStreamStart, Payload: acip.StreamVideo.AppendTo(nil), Sealed: true}) != nil {
					break
				}
			}
			_ = g.wait()
		}, "control packets a second"},
	} {
		before := len(s.log.String())
		bad.do()
		eventually(t, bad.name+": the server says why", func() bool { return strings.Contains(s.log.String()[before:], "client left") })
		line := s.log.String()[before:]
		if !strings.Contains(line, bad.why) && bad.why != "EOF" {
			t.Errorf("%s: the log says\n%s, want %q", bad.name, line, bad.why)
		}
		if n := strings.Count(line, "client left"); n != 1 {
			t.Errorf("%s: %d lines", bad.name, n)
		}
		good.frame()
	}
	eventually(t, "only the good one is there", func() bool { return s.Stats().Clients == 1 })
	good.leave()
	if err := good.wait(); err != nil {
		t.Errorf("the good client: %v", err)
	}
}
