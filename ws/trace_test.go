package ws

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/weft-ws/weft/capture"
	"github.com/weft-ws/weft/internal/deflate"
	"github.com/weft-ws/weft/internal/wire"
	"github.com/weft-ws/weft/internal/wstest"
)

// A traceLog is everything that a Trace was told.
type traceLog struct {
	mu       sync.Mutex
	bytes    [2][]byte // by direction: In, Out
	frames   [2][]FrameInfo
	breaches []*ProtocolError
	closed   []*CloseError
}

func (l *traceLog) trace() *Trace {
	return &Trace{
		Bytes: func(d Direction, b []byte) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.bytes[d-In] = append(l.bytes[d-In], b...)
		},
		Frame: func(f FrameInfo) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.frames[f.Dir-In] = append(l.frames[f.Dir-In], f)
		},
		Violation: func(e *ProtocolError) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.breaches = append(l.breaches, e)
		},
		Closed: func(e *CloseError) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.closed = append(l.closed, e)
		},
	}
}

// TestTraceBytes: what the trace is told is what is on the wire, both ways and
// at both ends, to the last byte of the closing handshake.
func TestTraceBytes(t *testing.T) {
	for name, params := range map[string]*deflate.Params{
		"plain": nil, "compressed": {ServerMaxWindowBits: 15, ClientMaxWindowBits: 15},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var logs [2]traceLog
				var onWire [2][]byte // from the client, from the server
				s := setup{deflate: params}
				s.client.Trace, s.server.Trace = logs[0].trace(), logs[1].trace()
				s.client.FragmentSize, s.server.FragmentSize = 1000, -1
				s.pipe.Tap = func(k capture.Chunk) {
					i := 0
					if k.From == capture.Server {
						i = 1
					}
					onWire[i] = append(onWire[i], k.Data...)
				}
				client, server := s.connect(t)
				echoed := async(func() error {
					for m, err := range server.Messages(background) {
						if err != nil {
							return err
						}
						if err := server.WriteMessage(background, m.Type, m.Data); err != nil {
							return err
						}
					}
					return nil
				})
				for i, n := range []int{0, 10, 5000, 200_000} {
					p := words(n, uint32(i))
					wrote := async(func() error { return client.WriteMessage(background, Text, p) })
					wantMessage(t, client, Text, p)
					if r := <-wrote; r.err != nil {
						t.Fatal(r.err)
					}
				}
				if err := client.Close(CloseNormal, "done"); err != nil {
					t.Error(err)
				}
				<-server.Done()
				if r := <-echoed; r.err != nil {
					t.Error(r.err)
				}
				for i, l := range []*traceLog{&logs[0], &logs[1]} {
					if !bytes.Equal(l.bytes[1], onWire[i]) || !bytes.Equal(l.bytes[0], onWire[1-i]) {
						t.Errorf("end %d saw %d bytes in and %d out, the wire %d and %d", i, len(l.bytes[0]), len(l.bytes[1]), len(onWire[1-i]), len(onWire[i]))
					}
					if len(l.closed) != 1 || l.closed[0].Code != CloseNormal || l.closed[0].Reason != "done" {
						t.Errorf("end %d: Closed was told %v", i, l.closed)
					}
					if len(l.breaches) != 0 {
						t.Errorf("end %d: %v", i, l.breaches)
					}
				}
				// A frame is described alike at both ends, in the same order.
				for i := range 2 {
					out, in := logs[i].frames[1], logs[1-i].frames[0]
					if len(out) != len(in) || len(out) < 5 {
						t.Fatalf("%d frames sent, %d received", len(out), len(in))
					}
					offset := int64(0)
					for k := range out {
						a, b := out[k], in[k]
						if a.Index != int64(k+1) || a.Offset != offset || a.Index != b.Index || a.Offset != b.Offset || a.Header.Opcode != b.Header.Opcode || a.Header.Length != b.Header.Length || a.Header.Fin != b.Header.Fin || a.Header.RSV1 != b.Header.RSV1 {
							t.Fatalf("frame %d: sent as %+v, received as %+v; want offset %d", k+1, a, b, offset)
						}
						offset += headerLen(a) + int64(a.Header.Length)
					}
					if offset != int64(len(onWire[i])) {
						t.Errorf("the frames have %d bytes, the wire %d", offset, len(onWire[i]))
					}
				}
			})
		})
	}
}

// headerLen is how many bytes the header of a frame had on the wire.
func headerLen(f FrameInfo) int64 { return int64(len(wire.AppendHeader(nil, f.Header))) }

// TestTraceViolation is told before the connection is closed, once.
func TestTraceViolation(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		var l traceLog
		s := setup{}
		s.client.Trace = l.trace()
		s.server = s.client
		c, peer, _ := s.scripted(t, role)
		got := reading(background, c)
		peer.Send(`TEXT "fine"`, `CONT "no message is open"`, `TEXT "after"`)
		if r := <-got; r.err != nil {
			t.Fatal(r.err)
		}
		_, _, err := c.ReadMessage(background)
		wantCloseError(t, err, CloseProtocolError, false)
		if len(l.breaches) != 1 || l.breaches[0].Rule.ID != "MS-02" || l.breaches[0].Frame.Index != 2 {
			t.Errorf("told of %v", l.breaches)
		}
		if len(l.closed) != 0 {
			t.Error("closed although the Close is not read")
		}
		peer.WantClose(CloseProtocolError, "")
		peer.Close()
		<-c.Done()
		if len(l.closed) != 1 || l.closed[0] != err {
			t.Errorf("Closed was told %v, want %v", l.closed, err)
		}
		if got := l.frames[0]; len(got) != 1 { // the second header was not accepted
			t.Errorf("frames: %v", got)
		}
	})
}

// TestTraceClosed is told once, however many end the connection at once.
func TestTraceClosed(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		for range 20 {
			var l traceLog
			// A CloseNow behind a Close ends TCP before the server does.
			s := setup{allow: []string{"CL-11"}}
			s.client.Trace = l.trace()
			s.server = s.client
			c, peer, _ := s.scripted(t, role)
			read := async(func() error { return c.Drain(background) })
			var wg sync.WaitGroup
			for i := range 4 {
				wg.Go(func() {
					if i%2 == 0 {
						c.CloseNow()
					} else {
						_ = c.Close(CloseNormal, "")
					}
				})
			}
			peer.Close()
			wg.Wait()
			<-read
			<-c.Done()
			if len(l.closed) != 1 || l.closed[0] != c.Err() {
				t.Errorf("told of %v", l.closed)
			}
		}
	})
}

// TestTraceOverSockets: the bytes of a real socket, those that came with the
// handshake and those that linger at the end included.
func TestTraceOverSockets(t *testing.T) {
	client, server := socketPair(t)
	var l traceLog
	c := newConn(server, RoleServer, Config{Trace: l.trace()}, established{early: []byte("\x81\x85\x01\x02\x03\x04")})
	peer := wstest.NewPeer(t, client, RoleClient)
	first := []byte{'h' ^ 1, 'e' ^ 2, 'l' ^ 3, 'l' ^ 4, 'o' ^ 1}
	frames := slices.Concat(peer.Frames(`PING "x"`, `CLOSE code=1000`)...)
	peer.SendBytes(first)
	wantMessage(t, c, Text, []byte("hello"))
	big := pattern(300_000, 1)
	wrote := async(func() error { return c.WriteMessage(background, Binary, big) })
	out := &bytes.Buffer{}
	peer.Conn = teeConn{client, out}
	peer.WantMessage(2, big)
	if r := <-wrote; r.err != nil {
		t.Fatal(r.err)
	}
	peer.SendBytes(frames)
	if err := c.Drain(background); err != nil {
		t.Error(err)
	}
	peer.Want(`PONG "x"`)
	peer.WantClose(CloseNormal, "")
	peer.WantEnd("the server closes first")
	client.Close()
	<-c.Done()
	in := slices.Concat([]byte("\x81\x85\x01\x02\x03\x04"), first, frames)
	if !bytes.Equal(l.bytes[0], in) {
		t.Errorf("in: %x, want %x", l.bytes[0], in)
	}
	if !bytes.Equal(l.bytes[1], out.Bytes()) {
		t.Errorf("out: %d bytes, want %d", len(l.bytes[1]), out.Len())
	}
	if len(l.closed) != 1 {
		t.Error(fmt.Sprint(l.closed))
	}
}

// teeConn copies what is read.
type teeConn struct {
	net.Conn
	w io.Writer
}

func (c teeConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	_, _ = c.w.Write(p[:n])
	return n, err
}

// socketPair returns both ends of a TCP connection.
func socketPair(t *testing.T) (client, server net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if client, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}
