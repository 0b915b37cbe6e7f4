package ws

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/weft-ws/weft/capture"
	"github.com/weft-ws/weft/internal/wire"
	"github.com/weft-ws/weft/internal/wstest"
)

// tcpPair returns both ends of a connection over the loopback interface, with
// socket buffers of about the given size in bytes; 0 leaves them alone.
func tcpPair(t testing.TB, buffer int) (client, server *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	client, server = c.(*net.TCPConn), s.(*net.TCPConn)
	if buffer > 0 {
		for _, nc := range []*net.TCPConn{client, server} {
			if err := errors.Join(nc.SetReadBuffer(buffer), nc.SetWriteBuffer(buffer)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return client, server
}

// tcpPeer is one end of ours on a real socket and its peer by hand, the doctor
// sitting at the peer's end.
func tcpPeer(t testing.TB, role Role, cfg Config, buffer int, allow ...string) (*Conn, *wstest.Peer) {
	t.Helper()
	ours, theirs := tcpPair(t, buffer)
	if role == RoleServer {
		ours, theirs = theirs, ours
	}
	o := wstest.NewOracle(t, wstest.OracleOptions{Ours: []capture.Side{side(role)}, Allow: allow})
	c := NewConn(ours, role, &cfg)
	p := wstest.NewPeer(t, o.Conn(theirs, side(role.Peer())), role.Peer())
	t.Cleanup(func() {
		o.Check()
		c.CloseNow()
		p.Close()
		<-c.Done()
	})
	return c, p
}

func eachRole(t *testing.T, f func(t *testing.T, role Role)) {
	for _, role := range []Role{RoleClient, RoleServer} {
		t.Run(role.String(), func(t *testing.T) { f(t, role) })
	}
}

// The report that this library answers, from the server's end: one connection,
// sixty-four goroutines, images of 230 KB, pings, the doctor on the wire. Each
// image arrives whole and in its writer's order.
func TestIntegrationManyWritersOneConnection(t *testing.T) {
	const writers, size = 64, 230_424
	each := 250
	if raceEnabled {
		each = 25
	}
	cnc, snc := tcpPair(t, 0)
	o := wstest.NewOracle(t, wstest.OracleOptions{})
	client := NewConn(o.Conn(cnc, capture.Client), RoleClient, nil)
	server := NewConn(snc, RoleServer, nil)
	images := make([][]byte, writers)
	for i := range images {
		images[i] = pattern(size, byte(i))
		binary.BigEndian.PutUint32(images[i], uint32(i))
	}
	var wg, reading sync.WaitGroup
	reading.Go(func() { _ = server.Drain(background) }) // for the pongs
	var pings atomic.Int64
	for i := range writers {
		wg.Go(func() {
			image := bytes.Clone(images[i])
			for n := range each {
				binary.BigEndian.PutUint32(image[4:], uint32(n))
				if err := server.WriteMessage(background, Binary, image); err != nil {
					t.Errorf("writer %d, message %d: %v", i, n, err)
					return
				}
				if n%25 == i%25 {
					if _, err := server.Ping(background); err != nil {
						t.Errorf("writer %d, ping: %v", i, err)
						return
					}
					pings.Add(1)
				}
			}
		})
	}
	next := make([]uint32, writers)
	var buf []byte
	for range writers * each {
		typ, p, err := client.AppendMessage(background, buf[:0])
		if err != nil {
			t.Fatal(err)
		}
		buf = p
		if typ != Binary || len(p) != size {
			t.Fatalf("%v of %d bytes", typ, len(p))
		}
		i, n := binary.BigEndian.Uint32(p), binary.BigEndian.Uint32(p[4:])
		if i >= writers || next[i] != n || !bytes.Equal(p[8:], images[i][8:]) {
			t.Fatalf("message %d of writer %d is torn or out of order", n, i)
		}
		next[i]++
	}
	reading.Go(func() { _ = client.Drain(background) })
	wg.Wait()
	if pings.Load() != int64(writers*each/25) {
		t.Errorf("%d pings were answered", pings.Load())
	}
	st := server.Stats()
	if st.Sent.Messages != uint64(writers*each) {
		t.Errorf("%d messages", st.Sent.Messages)
	}
	if err := server.Close(CloseNormal, "done"); err != nil {
		t.Error(err)
	}
	reading.Wait()
	<-client.Done()
	if frames := o.Frames(capture.Server); frames != int64(st.Sent.Frames)+1 {
		t.Errorf("the doctor saw %d frames, %d were sent", frames, st.Sent.Frames+1)
	}
}

// The same in the other direction, where every byte is masked.
func TestIntegrationManyClientWriters(t *testing.T) {
	const writers, each, size = 16, 60, 70_001
	cnc, snc := tcpPair(t, 32<<10)
	o := wstest.NewOracle(t, wstest.OracleOptions{})
	client := NewConn(cnc, RoleClient, nil)
	server := NewConn(o.Conn(snc, capture.Server), RoleServer, nil)
	var wg sync.WaitGroup
	wg.Go(func() { _ = client.Drain(background) })
	var writing sync.WaitGroup
	for i := range writers {
		writing.Go(func() {
			for n := range each {
				p := pattern(size-i*4000, byte(i))
				p[0], p[1] = byte(i), byte(n)
				if err := client.WriteMessage(background, Binary, p); err != nil {
					t.Error(err)
					return
				}
				if n%10 == 0 {
					if _, err := client.Ping(background); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	var next [writers]byte
	for range writers * each {
		_, p, err := server.ReadMessage(background)
		if err != nil {
			t.Fatal(err)
		}
		i := int(p[0])
		if i >= writers || p[1] != next[i] || !bytes.Equal(p[2:], pattern(size-i*4000, byte(i))[2:]) {
			t.Fatalf("message of writer %d is torn or out of order", i)
		}
		next[i]++
	}
	wg.Go(func() { _ = server.Drain(background) })
	writing.Wait()
	if err := client.Close(CloseNormal, ""); err != nil {
		t.Error(err)
	}
	wg.Wait()
}

// A pong passes between the fragments of a batch that the kernel has taken only
// half of: the peer reads nothing until the ping has been received.
func TestConcurrencyPongPassesInAHalfTakenBatch(t *testing.T) {
	eachRole(t, func(t *testing.T, role Role) {
		const size = 8 << 20
		var written atomic.Int64 // bytes that the kernel has taken
		var at int64             // when the ping had come
		begun, pinged := make(chan struct{}), make(chan struct{})
		var once sync.Once
		cfg := Config{Trace: &Trace{
			Bytes: func(dir Direction, b []byte) {
				if dir == Out {
					written.Add(int64(len(b)))
					once.Do(func() { close(begun) })
				}
			},
			Frame: func(f FrameInfo) {
				if f.Dir == In && f.Opcode == wire.Ping {
					at = written.Load()
					close(pinged)
				}
			},
		}}
		c, p := tcpPeer(t, role, cfg, 16<<10)
		go c.Drain(background)
		msg := pattern(size, 3)
		write := async(func() error { return c.WriteMessage(background, Binary, msg) })
		<-begun
		p.Send(`PING "now"`)
		<-pinged
		var before int64
		var frames []wstest.Frame
		for {
			f := p.Next()
			if f.Opcode == wire.Pong {
				break
			}
			frames = append(frames, f)
			before += int64(len(f.Payload))
		}
		// What the kernel had, the rest of a frame, and what a writer that was not
		// waiting just then may have put into its batch.
		if most := at + 2*batchMax; before > most {
			t.Errorf("the pong came after %d bytes, the kernel had %d", before, at)
		}
		if frames[len(frames)-1].Fin {
			t.Error("the pong came after the message")
		}
		for before < size {
			f := p.Next()
			before += int64(len(f.Payload))
		}
		if r := <-write; r.err != nil {
			t.Error(r.err)
		}
		if s := c.Stats(); s.Interleaved != 1 {
			t.Errorf("%d control frames between fragments", s.Interleaved)
		}
	})
}
