package wstest

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-ws/weft/capture"
	"github.com/weft-ws/weft/internal/proto"
	"github.com/weft-ws/weft/internal/wire"
)

func TestPipeCarriesBothWays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var taps [3]strings.Builder
		c, s := Pipe(PipeOptions{Window: 3, Tap: func(k capture.Chunk) {
			taps[k.From].Write(k.Data)
			if k.End != capture.Open {
				taps[k.From].WriteString("|" + k.End.String())
			}
		}})
		go func() {
			b, _ := io.ReadAll(s)
			s.Write(bytes.ToUpper(b))
			s.Close()
		}()
		if n, err := c.Write([]byte("to the server")); n != 13 || err != nil {
			t.Fatal(n, err)
		}
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Error("a write after CloseWrite:", err)
		}
		if b, err := io.ReadAll(c); string(b) != "TO THE SERVER" || err != nil {
			t.Fatalf("%q %v", b, err)
		}
		if got := taps[capture.Client].String(); got != "to the server|fin" {
			t.Errorf("client's tap: %q", got)
		}
		if got := taps[capture.Server].String(); got != "TO THE SERVER|fin" {
			t.Errorf("server's tap: %q", got)
		}
		if c.Sent() != 13 || s.Sent() != 13 || c.Closed() || !s.Closed() {
			t.Error(c.Sent(), s.Sent(), c.Closed(), s.Closed())
		}
	})
}

func TestPipeWindowBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := Pipe(PipeOptions{Window: 10})
		c.SetWriteDeadline(time.Now().Add(time.Second))
		begin := time.Now()
		n, err := c.Write(make([]byte, 25))
		if n != 10 || !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begin) != time.Second {
			t.Fatal(n, err, time.Since(begin))
		}
		var ne net.Error
		if !errors.As(err, &ne) || !ne.Timeout() {
			t.Error("not a net.Error that timed out")
		}
		if s.Buffered() != 10 {
			t.Error(s.Buffered())
		}
		c.SetWriteDeadline(time.Time{})
		done := make(chan error)
		go func() {
			_, err := c.Write(make([]byte, 15))
			done <- err
		}()
		synctest.Wait()
		select {
		case <-done:
			t.Fatal("a write of more than the window returned")
		default:
		}
		if _, err := io.ReadFull(s, make([]byte, 25)); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}

func TestPipeDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := Pipe(PipeOptions{})
		begin := time.Now()
		c.SetDeadline(begin.Add(2 * time.Second))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begin) != 2*time.Second {
			t.Fatal(err, time.Since(begin))
		}
		c.SetReadDeadline(time.Time{})
		go func() {
			time.Sleep(time.Second)
			c.SetReadDeadline(time.Unix(1, 0)) // wakes the read under way
		}()
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begin) != 3*time.Second {
			t.Fatal(err, time.Since(begin))
		}
		go func() {
			time.Sleep(time.Second)
			c.Close()
		}()
		c.SetReadDeadline(time.Time{})
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Fatal(err)
		}
		for name, err := range map[string]error{"Close": c.Close(), "CloseWrite": c.CloseWrite(), "SetDeadline": c.SetDeadline(begin)} {
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("%s after Close: %v", name, err)
			}
		}
	})
}

func TestPipeEnds(t *testing.T) {
	buf := make([]byte, 10)
	t.Run("close with nothing unread", func(t *testing.T) {
		c, s := Pipe(PipeOptions{})
		s.Write([]byte("bye"))
		s.Close()
		if _, err := c.Write(buf); !errors.Is(err, syscall.EPIPE) {
			t.Error(err)
		}
		if b, err := io.ReadAll(c); string(b) != "bye" || err != nil {
			t.Errorf("%q %v", b, err)
		}
	})
	t.Run("close with bytes unread", func(t *testing.T) {
		c, s := Pipe(PipeOptions{})
		c.Write(buf)
		s.Write([]byte("bye"))
		s.Close()
		if _, err := c.Read(buf); !errors.Is(err, syscall.ECONNRESET) {
			t.Error("unread input must make a reset of the close:", err)
		}
	})
	t.Run("reset", func(t *testing.T) {
		var ends []capture.EndKind
		c, s := Pipe(PipeOptions{Tap: func(k capture.Chunk) {
			if k.End != capture.Open {
				ends = append(ends, k.End)
			}
		}})
		s.Reset()
		s.Reset()
		if _, err := c.Read(buf); !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
		if _, err := c.Write(buf); err == nil {
			t.Error("a write to an end that is gone succeeded")
		}
		if len(ends) != 1 || ends[0] != capture.RST {
			t.Error(ends)
		}
	})
}

func TestPipeFaults(t *testing.T) {
	buf := make([]byte, 10)
	t.Run("short reads", func(t *testing.T) {
		c, s := Pipe(PipeOptions{Client: Faults{ReadMax: 3}})
		c.Write([]byte("abcdefgh"))
		for _, want := range []string{"abc", "def", "gh"} {
			if n, err := s.Read(buf); string(buf[:n]) != want || err != nil {
				t.Errorf("%q %v, want %q", buf[:n], err, want)
			}
		}
	})
	t.Run("random reads", func(t *testing.T) {
		c, s := Pipe(PipeOptions{Client: Faults{ReadMax: 4, Rand: rand.New(rand.NewPCG(1, 2))}})
		sizes := map[int]bool{}
		for range 100 {
			c.Write([]byte("abcdefgh"))
			for left := 8; left > 0; {
				n, _ := s.Read(buf)
				sizes[n] = true
				left -= n
			}
		}
		if len(sizes) != 4 || sizes[0] {
			t.Error(sizes)
		}
	})
	t.Run("rate", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, s := Pipe(PipeOptions{Client: Faults{Rate: 100, ReadMax: 10}})
			c.Write(make([]byte, 50))
			c.CloseWrite()
			begin := time.Now()
			if b, err := io.ReadAll(s); len(b) != 50 || err != nil || time.Since(begin) != 500*time.Millisecond {
				t.Error(len(b), err, time.Since(begin))
			}
		})
	})
	t.Run("reset at a byte", func(t *testing.T) {
		c, s := Pipe(PipeOptions{Client: Faults{ResetAt: 5}})
		s.Write([]byte("lost"))
		if n, err := c.Write([]byte("abcdefgh")); n != 5 || !errors.Is(err, syscall.ECONNRESET) {
			t.Error(n, err)
		}
		if n, err := s.Read(buf); string(buf[:n]) != "abcde" || err != nil {
			t.Errorf("%q %v", buf[:n], err)
		}
		if _, err := s.Read(buf); !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
		if _, err := c.Read(buf); !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
	})
	t.Run("cut at a byte", func(t *testing.T) {
		c, s := Pipe(PipeOptions{Client: Faults{CutAt: 5}})
		if n, err := c.Write([]byte("abcdefgh")); n != 8 || err != nil {
			t.Error(n, err)
		}
		if b, err := io.ReadAll(s); string(b) != "abcde" || err != nil {
			t.Errorf("%q %v", b, err)
		}
	})
	t.Run("stall", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, s := Pipe(PipeOptions{Client: Faults{StallAt: 2}})
			c.Write([]byte("abcd"))
			c.CloseWrite()
			n, _ := s.Read(buf)
			if string(buf[:n]) != "ab" {
				t.Errorf("%q", buf[:n])
			}
			s.SetReadDeadline(time.Now().Add(time.Hour))
			if _, err := s.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("a stalled pipe delivered:", err)
			}
			s.SetReadDeadline(time.Time{})
			c.Resume()
			c.Stall()
			go func() {
				time.Sleep(time.Second)
				c.Resume()
			}()
			begin := time.Now()
			if b, err := io.ReadAll(s); string(b) != "cd" || err != nil || time.Since(begin) != time.Second {
				t.Errorf("%q %v after %v", b, err, time.Since(begin))
			}
		})
	})
}

func TestPeerSpeaksFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := Pipe(PipeOptions{Window: 1 << 20})
		client, server := NewPeer(t, c, proto.Client), NewPeer(t, s, proto.Server)
		client.Send(`TEXT fin=0 "hel"`, `PING "p"`, `CONT "lo"`)
		server.Want(`TEXT fin=0 "hel"`, `PING "p"`)
		server.Want(`CONT "lo"`)
		server.WantNothing("all three were read")
		server.SendFrame(wire.Binary, false, make([]byte, 70000))
		server.Send(`PING`, `CONT x:01`)
		frames := client.WantMessage(wire.Binary, append(make([]byte, 70000), 1))
		if len(frames) != 3 || frames[0].Masked || frames[0].LengthForm != 9 {
			t.Error(frames)
		}
		client.Send(`BINARY "x"`, `CLOSE code=1001 "so long"`)
		if reason := server.WantCloseAfter(wire.CloseGoingAway, ""); reason != "so long" {
			t.Errorf("%q", reason)
		}
		server.Send(`CLOSE`)
		client.WantClose(wire.CloseNoStatus, "")
		server.Close()
		client.WantEnd("")
		if got := (Frame{Header: wire.Header{Opcode: wire.Text, RSV1: true}, Payload: []byte{1}}).String(); got != "TEXT fin=0 rsv1 x:01" {
			t.Error(got)
		}
	})
}
