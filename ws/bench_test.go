package ws

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/weft-ws/weft/internal/proto"
	"github.com/weft-ws/weft/internal/wire"
)

// echoPeer returns the client's end of a TCP connection whose server echoes by
// callback.
func echoPeer(b *testing.B, cfg Config) net.Conn {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	c := newConn(server, RoleServer, cfg, established{})
	c.startServe(Handler{Message: func(ctx context.Context, c *Conn, typ MessageType, p []byte) error {
		return c.WriteMessage(ctx, typ, p)
	}}, func() {})
	b.Cleanup(func() {
		_ = nc.Close()
		_ = c.CloseNow()
		<-c.Done()
	})
	return nc
}

// framed returns count frames of n payload bytes as the given end sends them.
func framed(b *testing.B, role Role, op wire.Opcode, n, count int) []byte {
	b.Helper()
	s := proto.NewSender(role, func() [4]byte { return [4]byte{1, 2, 3, 4} })
	var out []byte
	for range count {
		var err error
		if out, err = s.AppendData(out, op, true, bytes.Repeat([]byte{'x'}, n)); err != nil {
			b.Fatal(err)
		}
	}
	return out
}

// BenchmarkServeEcho is a callback server that echoes batches of messages that
// come in one segment. Nothing is allocated for a message; what is left over is
// the benchmark's own.
func BenchmarkServeEcho(b *testing.B) {
	for _, bm := range []struct{ size, batch int }{{128, 1}, {128, 16}, {128, 256}, {4 << 10, 1}, {230424, 1}} {
		b.Run(fmt.Sprintf("size=%d/batch=%d", bm.size, bm.batch), func(b *testing.B) {
			nc := echoPeer(b, Config{FragmentSize: -1})
			in := framed(b, RoleClient, wire.Text, bm.size, bm.batch)
			out := make([]byte, len(framed(b, RoleServer, wire.Text, bm.size, bm.batch)))
			go func() {
				for range (b.N + bm.batch - 1) / bm.batch {
					if _, err := nc.Write(in); err != nil {
						return
					}
				}
			}()
			b.SetBytes(int64(bm.size))
			b.ReportAllocs()
			b.ResetTimer()
			for i := 0; i < b.N; i += bm.batch {
				if _, err := io.ReadFull(nc, out); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// loopConn is a net.Conn that is read from memory without end and swallows what
// is written.
type loopConn struct {
	net.Conn
	stream []byte
	at     int
}

func (l *loopConn) Read(p []byte) (int, error) {
	n := copy(p, l.stream[l.at:])
	if l.at += n; l.at == len(l.stream) {
		l.at = 0
	}
	return n, nil
}

func (l *loopConn) Write(p []byte) (int, error)      { return len(p), nil }
func (l *loopConn) SetReadDeadline(time.Time) error  { return nil }
func (l *loopConn) SetWriteDeadline(time.Time) error { return nil }

// BenchmarkAppendMessage reads messages into the caller's memory: no allocation
// for a message.
func BenchmarkAppendMessage(b *testing.B) {
	for _, size := range []int{128, 16 << 10, 230424} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			nc, _ := net.Pipe()
			c := NewConn(&loopConn{Conn: nc, stream: framed(b, RoleClient, wire.Text, size, 8)}, RoleServer, nil)
			ctx := context.Background()
			var buf []byte
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				_, p, err := c.AppendMessage(ctx, buf[:0])
				if err != nil || len(p) != size {
					b.Fatal(len(p), err)
				}
				buf = p
			}
		})
	}
}

// BenchmarkFragments reads messages that the peer has cut small; the time is
// that of one fragment.
func BenchmarkFragments(b *testing.B) {
	const fragments = 4096
	for _, size := range []int{0, 1, 16, 256} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			s := proto.NewSender(RoleClient, func() [4]byte { return [4]byte{1, 2, 3, 4} })
			p := make([]byte, size)
			var stream []byte
			for i := range fragments {
				var err error
				if stream, err = s.AppendData(stream, wire.Binary, i == fragments-1, p); err != nil {
					b.Fatal(err)
				}
			}
			nc, _ := net.Pipe()
			c := NewConn(&loopConn{Conn: nc, stream: stream}, RoleServer, &Config{MaxMessageSize: -1})
			var buf []byte
			b.ReportAllocs()
			b.ResetTimer()
			for i := 0; i < b.N; i += fragments {
				_, got, err := c.AppendMessage(context.Background(), buf[:0])
				if err != nil || len(got) != fragments*size {
					b.Fatal(len(got), err)
				}
				buf = got
			}
		})
	}
}

// BenchmarkWriteMessage frames messages in both roles: no allocation for a
// message.
func BenchmarkWriteMessage(b *testing.B) {
	for _, role := range []Role{RoleServer, RoleClient} {
		for _, size := range []int{128, 230424} {
			b.Run(fmt.Sprintf("%v/size=%d", role, size), func(b *testing.B) {
				nc, _ := net.Pipe()
				c := NewConn(&loopConn{Conn: nc}, role, &Config{WriteTimeout: -1})
				ctx := context.Background()
				p := bytes.Repeat([]byte{'x'}, size)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					if err := c.WriteMessage(ctx, Text, p); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkTrace shows that hooks which are not set cost nothing: "unset" and
// "none" are to be the same within the noise.
func BenchmarkTrace(b *testing.B) {
	for _, bm := range []struct {
		name  string
		trace *Trace
	}{
		{"none", nil},
		{"unset", &Trace{}},
		{"set", &Trace{Frame: func(FrameInfo) {}, Bytes: func(Direction, []byte) {}}},
	} {
		b.Run(bm.name, func(b *testing.B) {
			nc, _ := net.Pipe()
			c := NewConn(&loopConn{Conn: nc, stream: framed(b, RoleClient, wire.Binary, 128, 8)}, RoleServer, &Config{Trace: bm.trace})
			ctx := context.Background()
			var buf []byte
			b.ReportAllocs()
			for b.Loop() {
				_, p, err := c.AppendMessage(ctx, buf[:0])
				if err != nil {
					b.Fatal(err)
				}
				buf = p
			}
		})
	}
}
