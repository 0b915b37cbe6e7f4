//go:build linux

package load

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// echoServer echoes bytes; with opening handshakes answered first if upgrade.
func echoServer(t *testing.T, upgrade bool) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer nc.Close()
				br := bufio.NewReader(nc)
				if upgrade {
					req, err := http.ReadRequest(br)
					if err != nil {
						return
					}
					if req.Header.Get("Sec-WebSocket-Version") != "13" || !strings.EqualFold(req.Header.Get("Upgrade"), "websocket") {
						io.WriteString(nc, "HTTP/1.1 400 Bad Request\r\n\r\n")
						return
					}
					io.WriteString(nc, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "+
						accept(req.Header.Get("Sec-WebSocket-Key"))+"\r\n\r\n")
				}
				io.Copy(nc, br)
			}()
		}
	}()
	return netip.MustParseAddrPort(ln.Addr().String())
}

// The example of RFC 6455, section 1.3.
func TestAcceptKey(t *testing.T) {
	if got := accept("dGhlIHNhbXBsZSBub25jZQ=="); got != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Errorf("accept key %q", got)
	}
}

// Every message of the script comes back, through partial writes too: four
// connections with messages larger than any socket buffer takes at once.
func TestLoopCountsEchoes(t *testing.T) {
	addr := echoServer(t, true)
	small := AppendFrame(nil, Frame{Opcode: Text, Fin: true, Masked: true}, []byte("hello"))
	large := AppendMessage(nil, Frame{Opcode: Binary, Masked: true}, make([]byte, 5<<20), 4096)
	script := &Script{Loop: 1}
	script.Add(small)
	script.Add(large)
	script.Add(small)
	var conns []*Conn
	for range 4 {
		c, err := Dial(addr, Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.Script = script
		conns = append(conns, c)
	}
	l, err := NewLoop(conns)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Start(5); err != nil { // small, large, small, large, small
		t.Fatal(err)
	}
	if err := l.Until(20, 20*time.Second); err != nil {
		t.Fatal(err)
	}
	if want := int64(4 * (2*5<<20 + 3*5)); l.Payload != want || l.Messages != 20 {
		t.Errorf("%d messages with %d bytes of payload came back, want 20 with %d", l.Messages, l.Payload, want)
	}
	for i, c := range conns {
		if c.pos != 1 || c.credits != 0 || c.partial != 0 {
			t.Errorf("connection %d stands at message %d, byte %d, with %d to send; want it back at message 1", i, c.pos, c.partial, c.credits)
		}
	}
}

func TestRoundTrips(t *testing.T) {
	c, err := Dial(echoServer(t, false), Options{Raw: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Script = Repeat(AppendFrame(nil, Frame{Opcode: Text, Fin: true, Masked: true}, []byte("x")), 1)
	ns, err := c.RoundTrips(20 * time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if len(ns) == 0 || int64(len(ns)) != c.Messages {
		t.Errorf("%d round trips for %d messages", len(ns), c.Messages)
	}
}

func TestReceiveTimesOut(t *testing.T) {
	c, err := Dial(echoServer(t, false), Options{Raw: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetTimeout(10 * time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Receive(make([]byte, 1)); !errors.Is(err, ErrTimeout) {
		t.Errorf("reading from a silent server: %v", err)
	}
}

// A refusal is reported with what the server said, and no connection is left.
func TestDialRefused(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go http.Serve(ln, http.NotFoundHandler())
	_, err = Dial(netip.MustParseAddrPort(ln.Addr().String()), Options{})
	if err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("error %v, want the status that was answered", err)
	}
}

// A server that ends the connection is an error unless that is expected.
func TestLoopEnd(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			nc.Write(AppendFrame(nil, Frame{Opcode: Close, Fin: true}, []byte{0x03, 0xf0})) // 1008
			nc.Close()
		}
	}()
	for _, may := range []bool{true, false} {
		c, err := Dial(netip.MustParseAddrPort(ln.Addr().String()), Options{Raw: true})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		l, err := NewLoop([]*Conn{c})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		l.MayClose = may
		err = l.Run(10 * time.Second)
		if (err == nil) != may || l.Closed != 1 || l.Codes[1008] != 1 {
			t.Errorf("allowed to end: %t; error %v, %d ended, codes %v", may, err, l.Closed, l.Codes)
		}
	}
}
