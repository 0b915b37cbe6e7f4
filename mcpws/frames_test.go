package mcpws

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/weft-ws/weft/internal/wire"
	"github.com/weft-ws/weft/internal/wstest"
	"github.com/weft-ws/weft/ws"
)

// What RFC 6455 asks, on a live endpoint of the binding: the frames are made by
// hand. The requirement's number is in each name.

const (
	finBit  = 0x80
	maskBit = 0x80
)

// frame is a client's frame; the masking key is zero, so the payload is plain.
func frame(b0 byte, payload string) []byte {
	b := []byte{b0}
	switch n := len(payload); {
	case n < 126:
		b = append(b, maskBit|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, maskBit|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, maskBit|127), uint64(n))
	}
	return append(append(b, 0, 0, 0, 0), payload...)
}

// player returns a client's end of an accepted connection, played by hand.
func player(t *testing.T, url string) *wstest.Peer {
	t.Helper()
	return wstest.NewPeer(t, hijack(t, url), ws.RoleClient)
}

// frameText sends text frames until FIN, each with its part of the message.
func frameText(p *wstest.Peer, parts ...string) {
	for i, part := range parts {
		op := wire.Continuation
		if i == 0 {
			op = wire.Text
		}
		p.SendFrame(op, i == len(parts)-1, []byte(part))
	}
}

// wantText reads the next message, which has these parts.
func wantText(t *testing.T, p *wstest.Peer, parts ...string) {
	t.Helper()
	var got []byte
	for {
		f := p.Next()
		if f.Opcode.Control() {
			t.Fatalf("got %v instead of a message", f)
		}
		if got = append(got, f.Payload...); f.Fin {
			break
		}
	}
	for _, part := range parts {
		if !strings.Contains(string(got), part) {
			t.Errorf("got %s, want %s in it", got, part)
		}
	}
}

func begin(t *testing.T, p *wstest.Peer) {
	t.Helper()
	frameText(p, fmt.Sprintf(initialize, "0", "2025-11-25"))
	wantText(t, p, `"id":0`, "serverInfo")
	frameText(p, `{"jsonrpc":"2.0","method":"notifications/initialized"}`)
}

// A message ends with FIN, in however many fragments it comes, and not with a
// line feed or with the end of its JSON.
func TestF1_MessagesEndWithFIN(t *testing.T) {
	url, _ := serveMCP(t, nil)
	p := player(t, url)
	begin(t, p)
	for n, call := range []string{echoCall("1", "x"), echoCall("2", "x") + "\n"} {
		for size := 1; size < len(call); size = size*3 + 1 {
			var parts []string
			for rest := call; rest != ""; {
				k := min(size, len(rest))
				parts = append(parts, rest[:k])
				rest = rest[k:]
			}
			frameText(p, append(parts, "")...) // the empty last one has the FIN
			wantText(t, p, fmt.Sprintf(`"id":%d`, n+1), "result")
		}
	}
	// All but FIN is here, and nothing is answered yet: the pong comes first.
	p.SendFrame(wire.Text, false, []byte(echoCall("3", "x")+"\n"))
	p.Send(`PING "still open"`)
	p.Want(`PONG "still open"`)
	p.SendFrame(wire.Continuation, true, nil)
	wantText(t, p, `"id":3`, "result")
}

// A control frame between two fragments is dealt with before the message ends.
func TestF2_ControlFramesBetweenFragments(t *testing.T) {
	url, _ := serveMCP(t, nil)
	p := player(t, url)
	begin(t, p)
	call := echoCall("1", "x")
	p.SendFrame(wire.Text, false, []byte(call[:9]))
	p.Send(`PING "one"`, `PONG "unasked"`)
	p.Want(`PONG "one"`)
	p.SendFrame(wire.Continuation, false, []byte(call[9:30]))
	p.Send(`PING ""`)
	p.Want(`PONG ""`)
	p.SendFrame(wire.Continuation, true, []byte(call[30:]))
	wantText(t, p, `"id":1`, "result")
	p.SendFrame(wire.Text, false, []byte(call[:9]))
	p.SendBytes(frame(finBit|8, "\x03\xe8")) // a Close need not wait for the message either
	p.WantClose(ws.CloseNormal, "a Close inside a message is answered")
}

// Broken framing closes with 1002, whatever was under way, and harms nobody
// else.
func TestF3_BrokenFramingCloses1002(t *testing.T) {
	url, _ := serveMCP(t, nil)
	other := player(t, url)
	begin(t, other)
	cases := map[string][]byte{
		"continuation without a message": frame(finBit, "x"),
		"message inside a message":       append(frame(1, "{"), frame(finBit|1, "{}")...),
		"fragmented ping":                frame(9, "x"),
		"fragmented close":               frame(8, "\x03\xe8"),
		"ping of 126 bytes":              frame(finBit|9, strings.Repeat("x", 126)),
		"5 in 16 bits":                   {finBit | 1, maskBit | 126, 0, 5, 0, 0, 0, 0, 'h', 'e', 'l', 'l', 'o'},
		"5 in 64 bits":                   {finBit | 1, maskBit | 127, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 'h', 'e', 'l', 'l', 'o'},
		"65535 in 64 bits":               {finBit | 1, maskBit | 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0},
		"length with the top bit":        {finBit | 1, maskBit | 127, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
	}
	for _, op := range []byte{3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf} {
		cases[fmt.Sprintf("opcode %x", op)] = frame(finBit|op, "x")
	}
	for _, rsv := range []byte{0x40, 0x20, 0x10} {
		cases[fmt.Sprintf("RSV %x", rsv)] = frame(finBit|rsv|1, "{}")
		cases[fmt.Sprintf("RSV %x in a ping", rsv)] = frame(finBit|rsv|9, "")
	}
	for name, b := range cases {
		p := player(t, url)
		begin(t, p)
		p.SendBytes(b)
		p.WantClose(ws.CloseProtocolError, name)
	}
	frameText(other, echoCall("1", "alive"))
	wantText(t, other, "alive")
}

// Who masks when it must not, or does not when it must, is closed with 1002.
func TestF4_Masking(t *testing.T) {
	url, _ := serveMCP(t, nil)
	p := player(t, url)
	p.SendBytes([]byte{finBit | 1, 2, '{', '}'})
	p.WantClose(ws.CloseProtocolError, "an unmasked frame of a client")

	closed := make(chan string, 1)
	server := listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		nc, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer nc.Close()
		fmt.Fprintf(nc, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
			"Sec-WebSocket-Accept: %s\r\nSec-WebSocket-Protocol: mcp\r\n\r\n", acceptKey(r.Header.Get("Sec-WebSocket-Key")))
		_, _ = nc.Write(frame(finBit|1, `{"jsonrpc":"2.0","id":1,"result":{}}`))
		closed <- nextClose(buffered.Reader)
	}))
	client := mcp.NewClient(&mcp.Implementation{Name: "c", Version: "1"}, nil)
	_, err := client.Connect(t.Context(), &ClientTransport{URL: server}, nil)
	if err == nil || !strings.Contains(err.Error(), "server-frame-masked") {
		t.Errorf("the client got %v", err)
	}
	if got := <-closed; got != "1002" {
		t.Errorf("the client closed with %s", got)
	}
}

func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// nextClose skips a client's frames up to its Close and returns the code.
func nextClose(r *bufio.Reader) string {
	for {
		var h [14]byte
		if _, err := readFull(r, h[:2]); err != nil {
			return err.Error()
		}
		n := int(h[1] & 0x7f)
		if n == 126 {
			if _, err := readFull(r, h[2:4]); err != nil {
				return err.Error()
			}
			n = int(binary.BigEndian.Uint16(h[2:]))
		}
		body := make([]byte, 4+n)
		if _, err := readFull(r, body); err != nil {
			return err.Error()
		}
		if h[0]&0x0f == 8 && n >= 2 {
			return fmt.Sprint(uint16(body[4]^body[0])<<8 | uint16(body[5]^body[1]))
		}
	}
}

// The closing handshake: good codes come back, no code is answered by none,
// what may not be sent is 1002 and a reason that is not UTF-8 is 1007.
func TestF5_ClosingHandshake(t *testing.T) {
	url, _ := serveMCP(t, nil)
	code := func(n uint16) string { return string([]byte{byte(n >> 8), byte(n)}) }
	cases := []struct {
		name, body string
		want       ws.CloseCode
	}{
		{"no code", "", ws.CloseNoStatus},
		{"one byte", "\x03", ws.CloseProtocolError},
		{"a long reason", code(1000) + strings.Repeat("x", 123), 1000},
		{"a reason that is not UTF-8", code(1000) + "\xff", ws.CloseInvalidPayload},
		{"a reason cut inside a character", code(1000) + "\xe2\x82", ws.CloseInvalidPayload},
	}
	for _, n := range []uint16{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1011, 1012, 1013, 3000, 4999} {
		cases = append(cases, struct {
			name, body string
			want       ws.CloseCode
		}{fmt.Sprint(n), code(n), ws.CloseCode(n)})
	}
	for _, n := range []uint16{0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535} {
		cases = append(cases, struct {
			name, body string
			want       ws.CloseCode
		}{fmt.Sprint(n), code(n), ws.CloseProtocolError})
	}
	for _, cs := range cases {
		p := player(t, url)
		p.SendBytes(frame(finBit|8, cs.body))
		p.WantClose(cs.want, cs.name)
		p.WantEnd("the server closes TCP first (RFC 6455, 7.1.1): " + cs.name)
	}
}

// The announced length is enough to refuse a message, and so is the sum of its
// fragments; an honest message in very many fragments passes, a flood of empty
// ones does not.
func TestF8_LimitsBeforeThePayload(t *testing.T) {
	url, _ := serveMCP(t, nil) // 16 MiB
	announced := player(t, url)
	announced.SendBytes(append(binary.BigEndian.AppendUint64([]byte{finBit | 1, maskBit | 127}, DefaultMessageMax+1), 0, 0, 0, 0))
	announced.WantClose(ws.CloseMessageTooBig, "nothing of the payload was sent")

	sum := player(t, url)
	sum.SendFrame(wire.Text, false, bytes.Repeat([]byte(" "), 1<<20))
	sum.SendBytes(append(binary.BigEndian.AppendUint64([]byte{0, maskBit | 127}, DefaultMessageMax-1<<20+1), 0, 0, 0, 0))
	sum.WantClose(ws.CloseMessageTooBig, "the second fragment goes over the limit")

	p := player(t, url)
	begin(t, p)
	call := echoCall("1", strings.Repeat("x", 10_000))
	var b []byte
	for i := range call {
		b0 := byte(0)
		if i == 0 {
			b0 = 1
		}
		b = append(b, frame(b0, call[i:i+1])...)
	}
	p.SendBytes(append(b, frame(finBit, "")...))
	wantText(t, p, `"id":1`, "result")

	flood := player(t, url)
	go func() { // until it is closed; 10 M would be 60 MB
		_, _ = flood.Conn.Write(append(frame(1, ""), bytes.Repeat(frame(0, ""), 10_000_000/16)...))
	}()
	flood.WantClose(ws.ClosePolicyViolation, "fragments without end")
}

// bubblePlayer connects by hand to h in a bubble.
func bubblePlayer(t *testing.T, h http.Handler) *wstest.Peer {
	t.Helper()
	n := newNetwork(t, h)
	nc, err := n.dial(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(nc, "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	br := bufio.NewReader(oneByOne{nc})
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v, %v", resp, err)
	}
	p := wstest.NewPeer(t, nc, ws.RoleClient)
	p.Patience = 24 * time.Hour
	return p
}

// oneByOne keeps a bufio.Reader from reading past the handshake.
type oneByOne struct{ net.Conn }

func (c oneByOne) Read(p []byte) (int, error) { return c.Conn.Read(p[:1]) }

// handlerFor is a handler for a bubble, with what ends it.
func handlerFor(t *testing.T, opts *HandlerOptions) *Handler {
	server := newServer()
	h := NewHandler(func(*http.Request) *mcp.Server { return server }, opts)
	t.Cleanup(func() {
		_ = h.Shutdown(context.Background())
		for s := range server.Sessions() {
			_ = s.Wait()
		}
	})
	return h
}

// An unfinished message is closed with 1008 after 30 s, in silence and also
// when a byte comes each second; the strict dialect says 1002 and its own
// words.
func TestF9_FragmentTimer(t *testing.T) {
	for _, strict := range []bool{false, true} {
		for _, trickle := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				opts := &HandlerOptions{}
				code, reason := ws.ClosePolicyViolation, "MessageTimeout"
				if strict {
					opts.Options.Dialect = Strict()
					code, reason = ws.CloseProtocolError, "Fragment reassembly timeout"
				}
				p := bubblePlayer(t, handlerFor(t, opts))
				began := time.Now()
				p.SendFrame(wire.Text, false, []byte("{"))
				for range 29 {
					time.Sleep(time.Second)
					if trickle {
						p.SendFrame(wire.Continuation, false, []byte(" "))
					}
				}
				p.WantNothing("30 s are not over")
				if got := p.WantClose(code, "30 s are over"); !strings.HasPrefix(got, reason) || strict && got != reason {
					t.Errorf("reason %q, want %q", got, reason)
				}
				if took := time.Since(began); took != 30*time.Second {
					t.Errorf("after %v", took)
				}
				p.Close()
			})
		}
	}
}

// What is no proper upgrade request is answered over HTTP, and who wants a
// version that is not spoken is told which one is.
func TestF10_OpeningHandshake(t *testing.T) {
	url, _ := serveMCP(t, nil)
	host := strings.TrimPrefix(url, "ws://")
	good := map[string]string{"Host": host, "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
		"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
	for _, cs := range []struct {
		header, value string
		want          int
	}{
		{"Host", host, http.StatusSwitchingProtocols},
		{"Upgrade", "", http.StatusUpgradeRequired},
		{"Upgrade", "h2c", http.StatusUpgradeRequired},
		{"Connection", "", http.StatusBadRequest},
		{"Connection", "close", http.StatusBadRequest},
		{"Sec-WebSocket-Version", "", http.StatusUpgradeRequired},
		{"Sec-WebSocket-Version", "12", http.StatusUpgradeRequired},
		{"Sec-WebSocket-Key", "", http.StatusBadRequest},
		{"Sec-WebSocket-Key", "short", http.StatusBadRequest},
	} {
		nc, err := net.Dial("tcp", host)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		b.WriteString("GET / HTTP/1.1\r\n")
		for name, value := range good {
			if name == cs.header {
				value = cs.value
			}
			if value != "" {
				fmt.Fprintf(&b, "%s: %s\r\n", name, value)
			}
		}
		fmt.Fprint(nc, b.String()+"\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(nc), nil)
		nc.Close()
		if err != nil {
			t.Fatalf("%s %q: %v", cs.header, cs.value, err)
		}
		if resp.StatusCode != cs.want || cs.want == http.StatusUpgradeRequired && resp.Header.Get("Sec-WebSocket-Version") != "13" {
			t.Errorf("%s %q: HTTP %s, version %q; want %d", cs.header, cs.value, resp.Status, resp.Header.Get("Sec-WebSocket-Version"), cs.want)
		}
	}
}

// Half an upgrade request does not hold a connection: 10 s with the server that
// package ws makes, and a header has a limit.
func TestF10_HalfAHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetworkServer(t, ws.NewHTTPServer(handlerFor(t, nil)))
		nc, err := n.dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		fmt.Fprint(nc, "GET / HTTP/1.1\r\nHost: h\r\nUpgr")
		got, _ := io.ReadAll(nc)
		if took := time.Since(began); took > 15*time.Second || strings.Contains(string(got), "101") {
			t.Errorf("%q after %v", got, took)
		}
		nc.Close()
		if nc, err = n.dial(t.Context(), "", ""); err != nil {
			t.Fatal(err)
		}
		go fmt.Fprintf(nc, "GET / HTTP/1.1\r\nHost: h\r\nX: %s\r\n\r\n", strings.Repeat("x", 40<<10))
		resp, err := http.ReadResponse(bufio.NewReader(nc), nil)
		if err != nil || resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("a header of 40 KiB: %v, %v", resp, err)
		}
		nc.Close()
		time.Sleep(time.Minute)
	})
}

// Large answers leave in fragments, none near what some clients refuse, and a
// pong passes between them: the client need not read 1 MiB first.
func TestF11_AnswersAreFragmented(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := bubblePlayer(t, handlerFor(t, nil))
		begin(t, p)
		frameText(p, echoCall("1", strings.Repeat("x", 1<<20)))
		first := p.Next()
		if first.Fin || first.Opcode != wire.Text || len(first.Payload) > 16<<10 {
			t.Fatalf("the first frame is %v", first)
		}
		p.Send(`PING "in between"`)
		synctest.Wait()
		frames, pong := 1, 0
		for f := first; !f.Fin || f.Opcode.Control(); frames++ {
			switch f = p.Next(); {
			case f.Opcode == wire.Pong:
				pong = frames
			case f.Opcode != wire.Continuation || len(f.Payload) > 16<<10:
				t.Fatalf("frame %d is %v", frames, f)
			}
		}
		// The pipe holds 64 KiB that were sent before the ping came.
		if frames < 64 || pong == 0 || pong > frames/2 {
			t.Errorf("%d frames, the pong is number %d", frames, pong)
		}
		p.Close()
	})
}

// permessage-deflate is off unless it is asked for, works with the SDK on both
// sides, and the limit is one of what comes out of it.
func TestF12_Compression(t *testing.T) {
	compressed := ws.Config{Compression: &ws.Compression{}}
	for _, on := range []bool{false, true} {
		opts := &HandlerOptions{}
		opts.Accept.Config.MaxMessageSize = 1 << 20
		if on {
			opts.Accept.Config.Compression = &ws.Compression{}
		}
		url, h := serveMCP(t, opts)
		client := mcp.NewClient(&mcp.Implementation{Name: "c", Version: "1"}, nil)
		session, err := client.Connect(t.Context(), &ClientTransport{URL: url, Dial: &ws.DialOptions{Config: compressed}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		want := strings.Repeat("deflate ", 64<<10/8)
		r, err := session.CallTool(t.Context(), &mcp.CallToolParams{Name: "echo", Arguments: map[string]any{"text": want}})
		if err != nil || text(r) != want {
			t.Errorf("compression %v: %v", on, err)
		}
		session.Close()
		s := h.Stats()
		if small := s.Sent.Bytes < 32<<10 && s.Received.Bytes < 32<<10; small != on {
			t.Errorf("compression %v: %d bytes sent, %d received for an echo of 64 KiB", on, s.Sent.Bytes, s.Received.Bytes)
		}

		c, err := ws.Dial(t.Context(), url, &ws.DialOptions{Subprotocols: []string{"mcp"}, Config: compressed})
		if err != nil {
			t.Fatal(err)
		}
		_ = c.WriteMessage(t.Context(), ws.Text, bytes.Repeat([]byte(" "), 1<<20+1))
		(&rawClient{t, c}).wantsClose(ws.CloseMessageTooBig, "")
	}
}

// A silent peer is pinged every 30 s. One that answers is never given up, one
// that does not is closed with 1001, and without pings a connection on which
// nothing comes is closed after 5 minutes.
func TestS3_KeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := handlerFor(t, nil)
		p := bubblePlayer(t, h)
		began := time.Now()
		for n := 1; n <= 40; n++ {
			f := p.Next()
			if f.Opcode != wire.Ping || len(f.Payload) == 0 {
				t.Fatalf("got %v, want a ping with a payload", f)
			}
			if at, want := time.Since(began), time.Duration(n)*30*time.Second+time.Duration(n-1)*20*time.Millisecond; at != want {
				t.Fatalf("ping %d comes after %v, want %v", n, at, want)
			}
			time.Sleep(20 * time.Millisecond)
			p.SendFrame(wire.Pong, true, f.Payload)
			synctest.Wait()
			if rtt := h.Stats().PingRTT; rtt != 20*time.Millisecond {
				t.Fatalf("the round trip is told as %v", rtt)
			}
		}
		// Now it falls silent: two intervals without a pong are enough.
		f := p.Next()
		asked := time.Now()
		for f.Opcode == wire.Ping {
			f = p.Next()
		}
		if f.Opcode != wire.Close || ws.CloseCode(binary.BigEndian.Uint16(f.Payload)) != ws.CloseGoingAway || time.Since(asked) != DefaultPong {
			t.Errorf("got %v after %v, want a Close with 1001 after %v", f, time.Since(asked), DefaultPong)
		}
		p.Close()
	})
	synctest.Test(t, func(t *testing.T) {
		opts := &HandlerOptions{}
		opts.Accept.Config.KeepAlive = -1
		p := bubblePlayer(t, handlerFor(t, opts))
		time.Sleep(4 * time.Minute)
		p.Send(`PONG ""`) // a pong is a sign of life
		began := time.Now()
		p.WantClose(ws.ClosePolicyViolation, "silence")
		if took := time.Since(began); took != DefaultIdle {
			t.Errorf("closed after %v", took)
		}
		p.Close()
	})
}

// A connection ends with the credential that it was opened with.
func TestS6_ExpiryCloses1008(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := time.Now().Add(45 * time.Second)
		p := bubblePlayer(t, handlerFor(t, &HandlerOptions{Verify: func(*http.Request) (*auth.TokenInfo, error) {
			return &auth.TokenInfo{UserID: "ada", Expiration: at}, nil
		}}))
		begin(t, p)
		if got := p.WantClose(ws.ClosePolicyViolation, "the token has expired"); !strings.Contains(got, "credential has expired") || !time.Now().Equal(at) {
			t.Errorf("%q, %v late", got, time.Since(at))
		}
		p.Close()
	})
}

// The strict dialect closes with the codes and reasons of its peers, word for
// word, also for faults that the engine finds; other faults of the framing
// keep the codes of RFC 6455.
func TestStrict_CodesAndReasons(t *testing.T) {
	opts := &HandlerOptions{Options: Options{Dialect: Strict()}}
	opts.Accept.Config.MaxMessageSize = 1000
	url, _ := serveMCP(t, opts)
	for name, cs := range map[string]struct {
		send   []byte
		code   ws.CloseCode
		reason string // "" is any
	}{
		"not UTF-8":                {frame(finBit|1, "\"\xff\"\n"), 1002, "Invalid UTF-8 encoding"},
		"not UTF-8, unfinished":    {frame(1, "\"\xff"), 1002, "Invalid UTF-8 encoding"},
		"cut inside a character":   {frame(finBit|1, "\"\xe2\x82"), 1002, "Invalid UTF-8 encoding"},
		"not JSON":                 {frame(finBit|1, "{\n"), 1002, "JSON-RPC parse error"},
		"not JSON-RPC":             {frame(finBit|1, "{}\n"), 1002, "JSON-RPC parse error"},
		"too big, announced":       {frame(1, strings.Repeat("x", 1001)), 1009, "Message exceeds maximum size of 1000 bytes"},
		"too big, over messages":   {append(frame(finBit|1, strings.Repeat("x", 600)), frame(finBit|1, strings.Repeat("x", 600))...), 1009, "Message exceeds maximum size of 1000 bytes"},
		"binary":                   {frame(finBit|2, "{}"), 1003, ""},
		"reserved opcode":          {frame(finBit|3, ""), 1002, ""},
		"a reason that is no text": {frame(finBit|8, "\x03\xe8\xff"), 1007, ""},
	} {
		p := player(t, url)
		p.SendBytes(cs.send)
		if got := p.WantClose(cs.code, name); cs.reason != "" && got != cs.reason {
			t.Errorf("%s: reason %q, want %q", name, got, cs.reason)
		}
	}
	// A line that is not finished, by messages that are.
	synctest.Test(t, func(t *testing.T) {
		p := bubblePlayer(t, handlerFor(t, opts))
		began := time.Now()
		frameText(p, `{"jsonrpc":`)
		time.Sleep(20 * time.Second)
		frameText(p, `"2.0",`)
		if got := p.WantClose(ws.CloseProtocolError, "no line feed"); got != "Fragment reassembly timeout" || time.Since(began) != 30*time.Second {
			t.Errorf("%q after %v", got, time.Since(began))
		}
		p.Close()
	})
}
