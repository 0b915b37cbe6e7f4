package ws

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/weft-ws/weft/capture"
	"github.com/weft-ws/weft/internal/deflate"
	"github.com/weft-ws/weft/internal/wire"
	"github.com/weft-ws/weft/internal/wstest"
)

func loadVectors(t *testing.T, kind wstest.VectorKind) []*wstest.Vector {
	t.Helper()
	all, err := wstest.LoadVectors(os.DirFS("../testdata/vectors"))
	if err != nil {
		t.Fatal(err)
	}
	var vs []*wstest.Vector
	for _, v := range all {
		if v.Kind == kind {
			vs = append(vs, v)
		}
	}
	if len(vs) < 30 {
		t.Fatalf("only %d vectors of kind %v", len(vs), kind)
	}
	return vs
}

// agreed is what a Sec-WebSocket-Extensions value of a response settles.
func agreed(t *testing.T, extensions string) *deflate.Params {
	t.Helper()
	if extensions == "" {
		return nil
	}
	ext, err := deflate.ParseExtensions([]string{extensions})
	if err != nil {
		t.Fatal(err)
	}
	p, active, err := deflate.Confirm(deflate.Options{}, ext)
	if err != nil || !active {
		t.Fatal(extensions, active, err)
	}
	return &p
}

// TestVectorsStreams: every vector of frames arrives at a connection, in each
// role that it binds. Those that need inflation show their point only here.
func TestVectorsStreams(t *testing.T) {
	inflated := 0
	for _, v := range loadVectors(t, wstest.Stream) {
		if v.Receiver == wstest.NeedsInflate {
			inflated++
		}
		for _, role := range v.Roles {
			t.Run(v.Path+"/"+role.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { runStreamVector(t, v, role) })
			})
		}
	}
	if inflated < 7 {
		t.Errorf("only %d vectors need inflation", inflated)
	}
}

func runStreamVector(t *testing.T, v *wstest.Vector, role Role) {
	var broken []*ProtocolError
	cfg := Config{
		MaxMessageSize: v.MessageLimit,
		MessageTimeout: -1, // vectors say nothing of time
		Trace:          &Trace{Violation: func(e *ProtocolError) { broken = append(broken, e) }},
	}
	if cfg.MaxMessageSize == 0 {
		cfg.MaxMessageSize = -1
	}
	s := setup{client: cfg, server: cfg, deflate: agreed(t, v.Extensions)}
	c, peer, _ := s.scripted(t, role)

	var closes, messages, pongs []wstest.ExpectedEvent
	for _, e := range v.Expect.Events {
		switch e.Kind {
		case wstest.MessageEvent:
			messages = append(messages, e)
		case wstest.PingEvent:
			pongs = append(pongs, e)
		case wstest.CloseEvent:
			closes = append(closes, e)
		}
	}
	end := async(func() error {
		for i := 0; ; i++ {
			typ, p, err := c.ReadMessage(background)
			if err != nil {
				if i != len(messages) {
					t.Errorf("%d messages and then %v, want %d messages", i, err, len(messages))
				}
				return err
			}
			if i >= len(messages) {
				t.Errorf("message %d of %d bytes is one too many", i+1, len(p))
				continue
			}
			want := messages[i]
			if wire.Opcode(typ) != want.Opcode || len(p) != want.Len || want.Data != nil && !bytes.Equal(p, want.Data) {
				t.Errorf("message %d is %v %.40q (%d bytes), want %v", i+1, typ, p, len(p), want)
			}
		}
	})
	// A frame at a time, as long as we are listened to. A vector may go on after
	// its violation.
	for _, chunk := range v.Chunks(role.Peer()) {
		if _, err := peer.Conn.Write(chunk); err != nil {
			break
		}
		synctest.Wait() // so that each ping finds room in the queue of pongs
	}
	for _, p := range pongs {
		f := peer.Next()
		if f.Opcode != wire.Pong || len(f.Payload) != p.Len || p.Data != nil && !bytes.Equal(f.Payload, p.Data) {
			t.Fatalf("got %v instead of the answer to ping %q", f, p.Data)
		}
	}
	e := &v.Expect
	var ce *CloseError
	switch {
	case e.Violation || e.Limit != "":
		peer.WantClose(e.Close, v.Comment)
		errors.As(now(t, end, "the vector ends the connection").err, &ce)
		if ce == nil || ce.Code != e.Close || ce.Remote {
			t.Fatalf("ended with %v, want our own close %v", ce, e.Close)
		}
	case len(closes) > 0:
		want := e.Close
		if want == 0 {
			want = closes[0].Code
		}
		peer.WantClose(want, "a Close is answered")
		errors.As(now(t, end, "the peer has closed").err, &ce)
		if ce == nil || !ce.Remote || ce.Code != closes[0].Code || closes[0].Data != nil && ce.Reason != string(closes[0].Data) {
			t.Fatalf("ended with %v, want the peer's close %v %q", ce, closes[0].Code, closes[0].Data)
		}
	default:
		pending(t, end, "nothing ends the connection")
		peer.WantNothing("nothing is wrong")
		if len(broken) > 0 && len(v.Doctor) == 0 {
			t.Errorf("tolerated %v, which the vector does not expect", broken[0])
		}
	}
	if e.Violation {
		var pe *ProtocolError
		if !errors.As(ce, &pe) || pe.Rule.Name != v.ReceiverRule || pe.Frame.Index != int64(e.Frame) || pe.From != role.Peer() {
			t.Errorf("got %v, want %s in frame %d", ce, v.ReceiverRule, e.Frame)
		}
		if len(broken) != 1 || broken[0] != pe {
			t.Errorf("the trace was told of %v", broken)
		}
	}
	if e.Limit != "" {
		var le *LimitError
		if !errors.As(ce, &le) || le.Limit != e.Limit {
			t.Errorf("got %v, want limit %s", ce, e.Limit)
		}
	}
	peer.Close()
}

// TestVectorsHandshakes: each handshake vector, on a real socket, against
// Accept or Dial.
func TestVectorsHandshakes(t *testing.T) {
	for _, v := range loadVectors(t, wstest.Handshake) {
		for _, role := range v.Roles {
			t.Run(v.Path+"/"+role.String(), func(t *testing.T) {
				var request, response strings.Builder
				for _, s := range v.Steps {
					if s.From == capture.Client {
						request.Write(s.Data)
					} else {
						response.Write(s.Data)
					}
				}
				if role == RoleServer {
					acceptVector(t, v, request.String())
				} else {
					dialVector(t, v, request.String(), response.String())
				}
			})
		}
	}
}

func acceptVector(t *testing.T, v *wstest.Vector, request string) {
	result := make(chan error, 1)
	var asked atomic.Bool // else net/http has refused by itself
	addr := listenHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Store(true)
		c, err := Accept(w, r, &AcceptOptions{
			Subprotocols:  []string{"chat"},
			RequireOrigin: v.Rule == "origin-missing",
			Config:        Config{Compression: &Compression{}},
		})
		result <- err
		if err == nil {
			c.CloseNow()
		}
	})
	resp, _ := askRaw(t, addr, request)
	want := v.Expect.Status
	if v.Expect.Accept {
		want = http.StatusSwitchingProtocols
	}
	if resp.StatusCode != want {
		t.Fatalf("HTTP %d, want %d: %s", resp.StatusCode, want, v.Comment)
	}
	if v.Rule == "deflate-parameter-invalid" && resp.Header.Get("Sec-WebSocket-Extensions") != "" {
		t.Errorf("the offer was accepted: %v", resp.Header)
	}
	if !asked.Load() {
		if v.Expect.Accept || v.Rule != "request-not-http" && v.Rule != "host-missing" {
			t.Errorf("Accept was not asked")
		}
		return
	}
	err := <-result
	var he *HandshakeError
	switch {
	case v.Expect.Accept && err != nil:
		t.Error(err)
	case !v.Expect.Accept && !errors.As(err, &he):
		t.Errorf("got %v, want a HandshakeError", err)
	case he != nil && v.Receiver == wstest.Sees && (he.Rule == nil || he.Rule.Name != v.ReceiverRule):
		t.Errorf("got %v, want %s", err, v.ReceiverRule)
	}
}

func dialVector(t *testing.T, v *wstest.Vector, request, response string) {
	offer, err := http.ReadRequest(bufio.NewReader(strings.NewReader(request)))
	if err != nil {
		t.Fatal(err)
	}
	opts := &DialOptions{Proxy: noProxy}
	if p := offer.Header.Get("Sec-WebSocket-Protocol"); p != "" {
		opts.Subprotocols = strings.Split(p, ", ")
	}
	// What the vector's client offers is asked of ours as Compression.
	if x := offer.Header.Get("Sec-WebSocket-Extensions"); x != "" {
		opts.Config.Compression = &Compression{NoContextTakeover: strings.Contains(x, "server_no_context_takeover")}
		if !strings.Contains(x, "client_max_window_bits") {
			opts.Config.Compression.ClientMaxWindowBits = -1
		}
		if _, bits, ok := strings.Cut(x, "server_max_window_bits="); ok {
			if opts.Config.Compression.ServerMaxWindowBits, err = strconv.Atoi(bits); err != nil {
				t.Fatal(err)
			}
		}
	}
	addr := scripted(t, func(nc net.Conn) {
		r, err := http.ReadRequest(bufio.NewReader(nc))
		if err != nil {
			return
		}
		text := strings.ReplaceAll(response, sampleAccept, acceptKey(r.Header.Get("Sec-WebSocket-Key")))
		_, _ = io.WriteString(nc, text)
		if tc, ok := nc.(*net.TCPConn); ok {
			_ = tc.CloseWrite()
		}
		_, _ = io.Copy(io.Discard, nc)
	})
	c, err := Dial(background, "ws://"+addr, opts)
	if v.Expect.Accept {
		if err != nil {
			t.Fatalf("%v: %s", err, v.Comment)
		}
		c.CloseNow()
		<-c.Done()
		return
	}
	var he *HandshakeError
	if !v.Expect.Fail || !errors.As(err, &he) {
		t.Fatalf("got %v, want a HandshakeError: %s", err, v.Comment)
	}
	if v.Receiver == wstest.Sees && (he.Rule == nil || he.Rule.Name != v.ReceiverRule) {
		t.Errorf("got %v, want %s", err, v.ReceiverRule)
	}
}
