package ws

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/weft-ws/weft/capture"
	"github.com/weft-ws/weft/doctor"
)

// A listeningConn lets the doctor hear what passes, both ways.
type listeningConn struct {
	net.Conn
	mu sync.Mutex
	in *doctor.Inspector
}

func (l *listeningConn) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	l.hear(capture.Client, p[:n])
	return n, err
}

func (l *listeningConn) Write(p []byte) (int, error) {
	l.hear(capture.Server, p)
	return l.Conn.Write(p)
}

func (l *listeningConn) hear(from capture.Side, p []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.in.Write(from, time.Now(), p)
}

// The workload of the crash that weft began with: 64 goroutines send video
// frames of 230,424 bytes on one connection, and ping, all at once. Nothing may
// mix, nothing may be lost, and the doctor on the wire finds nothing.
func TestConcurrencySixtyFourSenders(t *testing.T) {
	const senders, size = 64, 230424
	each := 1000
	if raceEnabled {
		each = 50
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	tap := &listeningConn{Conn: accepted, in: doctor.New(doctor.Options{})}
	client := NewConn(nc, RoleClient, nil)
	server := NewConn(tap, RoleServer, nil)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	payload := func(sender int) []byte { return bytes.Repeat([]byte{byte(sender), 0x5a, byte(^sender)}, size/3) }
	drained := make(chan error, 1)
	go func() { drained <- client.Drain(ctx) }()
	var wg sync.WaitGroup
	for g := range senders {
		wg.Go(func() {
			p := payload(g)
			for i := range each {
				binary.BigEndian.PutUint32(p, uint32(g))
				binary.BigEndian.PutUint32(p[4:], uint32(i))
				if err := client.WriteMessage(ctx, Binary, p); err != nil {
					t.Error(err)
					return
				}
				if i%25 == 0 {
					if _, err := client.Ping(ctx); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	var want [senders][]byte
	for g := range want {
		want[g] = payload(g)
	}
	var next [senders]uint32
	var buf []byte
	for range senders * each {
		_, p, err := server.AppendMessage(ctx, buf[:0])
		if err != nil {
			t.Fatal(err)
		}
		buf = p
		if len(p) != size {
			t.Fatalf("a message of %d bytes", len(p))
		}
		g, i := binary.BigEndian.Uint32(p), binary.BigEndian.Uint32(p[4:])
		if g >= senders || i != next[g] {
			t.Fatalf("message %d of sender %d, after %d others of it", i, g, next[g])
		}
		next[g]++
		if !bytes.Equal(p[8:], want[g][8:]) {
			t.Fatalf("message %d of sender %d came mixed", i, g)
		}
	}
	closed := make(chan error, 1)
	go func() { closed <- server.Drain(ctx) }()
	wg.Wait()
	if err := client.Close(CloseNormal, ""); err != nil {
		t.Error(err)
	}
	for _, ch := range []chan error{closed, drained} {
		if err := <-ch; err != nil {
			t.Error(err)
		}
	}
	<-server.Done()
	tap.mu.Lock()
	defer tap.mu.Unlock()
	for _, f := range tap.in.Findings() {
		var b bytes.Buffer
		_ = f.WriteText(&b)
		t.Errorf("the doctor found:\n%s", b.String())
	}
	if s := client.Stats(); s.Sent.Messages != uint64(senders*each) || s.Sent.Fragmented != s.Sent.Messages {
		t.Errorf("sent %d messages, %d of them in fragments", s.Sent.Messages, s.Sent.Fragmented)
	}
}
