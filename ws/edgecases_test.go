package ws

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-ws/weft/internal/wire"
	"github.com/weft-ws/weft/internal/wstest"
)

func TestEdgeCasesEmptyMessages(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		c, p, _ := setup{}.scripted(t, role)
		for _, line := range []string{`TEXT`, `BINARY`} {
			p.Send(line)
			typ, b, err := c.ReadMessage(background)
			if err != nil || len(b) != 0 || b == nil || wire.Opcode(typ).String() != line {
				t.Errorf("%s: %v %v %v", line, typ, b, err)
			}
			mustWrite(t, c, typ, nil)
			p.Want(line)
		}
		p.Send(`TEXT fin=0`, `CONT fin=0`, `CONT`, `BINARY "next"`)
		wantMessage(t, c, Text, nil)
		wantMessage(t, c, Binary, []byte("next"))
	})
}

func TestEdgeCasesLongestControlFrames(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		c, p, _ := setup{}.scripted(t, role)
		read := reading(background, c)
		for _, n := range []int{0, 1, 124, 125} {
			p.Send(fmt.Sprintf(`PING x:a5*%d`, n))
			p.Want(fmt.Sprintf(`PONG x:a5*%d`, n))
		}
		reason := strings.Repeat("é", 61) + "x" // 123 bytes
		p.Send(fmt.Sprintf(`CLOSE code=4000 %q`, reason))
		p.Want(`CLOSE code=4000`)
		if ce := wantCloseError(t, now(t, read, "").err, 4000, true); ce.Reason != reason {
			t.Errorf("%q", ce.Reason)
		}
	})
}

// Bytes that came with the opening handshake are the first of the stream,
// wherever they end.
func TestEdgeCasesBytesWithTheHandshake(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		whole := pattern(100_000, 1)
		lines := []string{`TEXT fin=0 "early "`, `PING "p"`, `CONT "bird"`, fmt.Sprintf("BINARY x:%x", whole), `TEXT "last"`}
		size := len(bytes.Join(wstest.NewPeer(t, nil, role.Peer()).Frames(lines...), nil))
		for i := range 60 {
			cut := i // in the first frames, and in the last
			if i >= 40 {
				cut = size - 60 + i + 1
			}
			s := setup{pipe: wstest.PipeOptions{Window: 1 << 20}}
			cp, sp, o := s.newPipe(t, side(role))
			ours, theirs := sp, cp
			if role == RoleClient {
				ours, theirs = cp, sp
			}
			p := wstest.NewPeer(t, theirs, role.Peer())
			stream := bytes.Join(p.Frames(lines...), nil)
			p.SendBytes(stream[cut:])
			var traced int
			cfg := Config{Trace: &Trace{Bytes: func(dir Direction, b []byte) {
				if dir == In {
					traced += len(b)
				}
			}}}
			c := newConn(ours, role, cfg, established{early: bytes.Clone(stream[:cut]), subprotocol: "weft"})
			wantMessage(t, c, Text, []byte("early bird"))
			wantMessage(t, c, Binary, whole)
			wantMessage(t, c, Text, []byte("last"))
			p.Want(`PONG "p"`)
			if traced != len(stream) || c.Stats().Received.Bytes != uint64(len(stream)) {
				t.Errorf("cut at %d: %d bytes traced, %d counted, %d came", cut, traced, c.Stats().Received.Bytes, len(stream))
			}
			if c.Subprotocol() != "weft" {
				t.Error(c.Subprotocol())
			}
			o.Check()
			c.CloseNow()
			<-c.Done()
		}
	})
}

func TestEdgeCasesWhatAConnSaysOfItself(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		begin := time.Now()
		c, p, _ := setup{}.scripted(t, role)
		if c.Role() != role || c.LocalAddr() != p.Conn.RemoteAddr() || c.RemoteAddr() != p.Conn.LocalAddr() || c.Subprotocol() != "" || c.Err() != nil {
			t.Error(c.Role(), c.LocalAddr(), c.RemoteAddr(), c.Subprotocol(), c.Err())
		}
		if s := c.Stats(); !s.Opened.Equal(begin) || s.Connections != 1 || s.CloseCode != 0 {
			t.Errorf("%+v", s)
		}
		select {
		case <-c.Done():
			t.Error("it has ended")
		default:
		}
	})
}

// The log has a line for each connection that does not end as it should, and
// none for one that does.
func TestEdgeCasesLog(t *testing.T) {
	for name, cs := range map[string]struct {
		end  func(t *testing.T, c *Conn, p *wstest.Peer)
		want string
	}{
		"normal": {func(t *testing.T, c *Conn, p *wstest.Peer) { p.Send(`CLOSE code=1000`) }, ""},
		"breach": {func(t *testing.T, c *Conn, p *wstest.Peer) { p.Send(`CONT`) }, "code=1002"},
		"lost":   {func(t *testing.T, c *Conn, p *wstest.Peer) { p.Close() }, "code=1006"},
		"ours":   {func(t *testing.T, c *Conn, p *wstest.Peer) { c.CloseNow() }, ""},
	} {
		bubble(t, func(t *testing.T, role Role) {
			var mu sync.Mutex
			var b strings.Builder
			log := slog.New(slog.NewTextHandler(lockedWriter{&mu, &b}, &slog.HandlerOptions{Level: slog.LevelDebug}))
			cfg := Config{Logger: log}
			c, p, _ := setup{client: cfg, server: cfg, allow: brokenOff}.scripted(t, role)
			drain := async(func() error { return c.Drain(background) })
			synctest.Wait()
			cs.end(t, c, p)
			<-drain
			p.Close()
			<-c.Done()
			mu.Lock()
			defer mu.Unlock()
			if got := b.String(); (cs.want == "") != (got == "") || !strings.Contains(got, cs.want) || cs.want != "" && !strings.Contains(got, "connection ended") {
				t.Errorf("%s: %q", name, got)
			}
		})
	}
}

// A ping that waits while nobody reads is a mistake that a line can tell.
func TestEdgeCasesLogOfAPingThatNobodyWillSeeAnswered(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		var mu sync.Mutex
		var b strings.Builder
		log := slog.New(slog.NewTextHandler(lockedWriter{&mu, &b}, &slog.HandlerOptions{Level: slog.LevelDebug}))
		cfg := Config{Logger: log}
		c, p, _ := setup{client: cfg, server: cfg}.scripted(t, role)
		ctx, cancel := context.WithTimeout(background, time.Second)
		defer cancel()
		ping := async(func() error { _, err := c.Ping(ctx); return err })
		f := p.Next()
		p.Send(fmt.Sprintf("PONG x:%x", f.Payload))
		if r := <-ping; r.err != context.DeadlineExceeded {
			t.Error(r.err)
		}
		mu.Lock()
		defer mu.Unlock()
		if !strings.Contains(b.String(), "nobody reads") {
			t.Errorf("%q", b.String())
		}
	})
}

type lockedWriter struct {
	mu *sync.Mutex
	b  *strings.Builder
}

func (w lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

// Writers and readers are served in the order in which they came.
func TestConcurrencyFirstComeFirstServed(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		c, p, _ := setup{pipe: wstest.PipeOptions{Window: 200}}.scripted(t, role)
		var writes, reads []<-chan result
		for i := range 20 {
			n := 10 + 300*(i%3) // some share a frame with others, some do not
			msg := append([]byte{byte(i)}, make([]byte, n)...)
			writes = append(writes, async(func() error { return c.WriteMessage(background, Binary, msg) }))
			synctest.Wait()
			reads = append(reads, reading(background, c))
			synctest.Wait()
		}
		for i := range writes {
			if f := p.Next(); f.Payload[0] != byte(i) {
				t.Fatalf("message %d came in place %d", f.Payload[0], i)
			}
		}
		for i := range reads {
			p.Send(fmt.Sprintf(`TEXT "%d"`, i))
		}
		for i := range writes {
			if r := now(t, writes[i], ""); r.err != nil {
				t.Error(r.err)
			}
			if r := now(t, reads[i], ""); string(r.p) != fmt.Sprint(i) {
				t.Errorf("reader %d got %q, %v", i, r.p, r.err)
			}
		}
	})
}

// Any number of goroutines read at once; each message goes to one of them.
func TestConcurrencyManyReaders(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		c, peer := setup{}.connect(t)
		if role == RoleServer {
			c, peer = peer, c
		}
		const readers, messages = 8, 400
		var mu sync.Mutex
		got := map[string]int{}
		var wg sync.WaitGroup
		for i := range readers {
			wg.Go(func() {
				for {
					var b []byte
					var err error
					switch i % 3 {
					case 0:
						_, b, err = c.ReadMessage(background)
					case 1:
						_, b, err = c.AppendMessage(background, nil)
					default:
						var r *MessageReader
						if r, err = c.NextReader(background); err == nil {
							var buf bytes.Buffer
							if _, err = buf.ReadFrom(r); err == nil {
								b = buf.Bytes()
							}
						}
					}
					if err != nil {
						return
					}
					mu.Lock()
					got[string(b)]++
					mu.Unlock()
				}
			})
		}
		for i := range messages {
			mustWrite(t, peer, Text, fmt.Append(nil, i))
		}
		if err := peer.Close(CloseNormal, ""); err != nil {
			t.Error(err)
		}
		wg.Wait()
		for i := range messages {
			if got[fmt.Sprint(i)] != 1 {
				t.Errorf("message %d was read %d times", i, got[fmt.Sprint(i)])
			}
		}
	})
}
