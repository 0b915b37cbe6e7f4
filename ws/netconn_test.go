package ws

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func asyncRead(nc net.Conn, n int) <-chan result {
	ch := make(chan result, 1)
	go func() {
		p := make([]byte, n)
		k, err := nc.Read(p)
		ch <- result{err: err, at: time.Now(), p: p[:k]}
	}()
	return ch
}

// TestNetConnBytes: a stream of bytes, whatever the bounds of messages and
// reads, and io.EOF after a normal closure.
func TestNetConnBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := setup{}.connect(t)
		a, b := NetConn(background, client, Binary), NetConn(background, server, Binary)
		if a.LocalAddr() != client.LocalAddr() || a.RemoteAddr() != client.RemoteAddr() {
			t.Error("the addresses are others than the connection's")
		}
		want := pattern(300_000, 1)
		wrote := async(func() error {
			for p := want; len(p) > 0; {
				n := min(len(p), 1+len(p)/3)
				if k, err := a.Write(p[:n]); err != nil || k != n {
					return errors.Join(err, io.ErrShortWrite)
				}
				if _, err := a.Write(nil); err != nil { // an empty message is no end
					return err
				}
				p = p[n:]
			}
			return a.Close()
		})
		var got []byte
		for buf := make([]byte, 777); ; {
			n, err := b.Read(buf)
			got = append(got, buf[:n]...)
			if err == io.EOF {
				break
			}
			if err != nil || n == 0 {
				t.Fatal(n, err)
			}
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%d bytes, want %d", len(got), len(want))
		}
		if r := <-wrote; r.err != nil {
			t.Error(r.err)
		}
		if n, err := b.Read(nil); n != 0 || err != nil {
			t.Error("an empty read:", n, err)
		}
		if _, err := b.Read(make([]byte, 1)); err != io.EOF {
			t.Error(err)
		}
		if _, err := b.Write([]byte("late")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a write after the end: %v", err)
		}
	})
}

// TestNetConnWrongType closes with 1003.
func TestNetConnWrongType(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		c, peer, _ := setup{}.scripted(t, role)
		nc := NetConn(background, c, Binary)
		got := asyncRead(nc, 10)
		peer.Send(`BINARY "abc"`, `TEXT "no"`)
		if r := now(t, got, "bytes have come"); string(r.p) != "abc" {
			t.Fatal(r)
		}
		got = asyncRead(nc, 10)
		peer.WantClose(CloseUnsupportedData, "text on a binary stream")
		wantCloseError(t, now(t, got, "the connection is closed").err, CloseUnsupportedData, false)
	})
}

// TestNetConnEnds: only a normal closure between messages is io.EOF.
func TestNetConnEnds(t *testing.T) {
	for name, tc := range map[string]struct {
		end  string
		want func(err error) bool
	}{
		"normal":     {`CLOSE code=1000`, func(err error) bool { return err == io.EOF }},
		"going away": {`CLOSE code=1001`, func(err error) bool { return err == io.EOF }},
		"no code":    {`CLOSE`, func(err error) bool { return err == io.EOF }},
		"failure":    {`CLOSE code=1011`, func(err error) bool { return errors.Is(err, net.ErrClosed) && err != io.EOF }},
		"lost":       {``, func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
	} {
		for _, inside := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				bubble(t, func(t *testing.T, role Role) {
					c, peer, _ := setup{}.scripted(t, role)
					nc := NetConn(background, c, Text)
					want := tc.want
					if inside {
						peer.Send(`TEXT fin=0 "half"`)
						if r := <-asyncRead(nc, 10); string(r.p) != "half" {
							t.Fatal(r)
						}
						want = func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }
					}
					got := asyncRead(nc, 10)
					if tc.end == "" {
						peer.Close()
					} else {
						peer.Send(tc.end)
					}
					if r := <-got; len(r.p) > 0 || !want(r.err) {
						t.Errorf("inside a message %t: %v", inside, r.err)
					}
				})
			})
		}
	}
}

// TestNetConnDeadlines: as net.Conn says, a deadline counts for calls to come
// and for those under way, may be moved while they wait, and leaves the stream
// whole.
func TestNetConnDeadlines(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		s := setup{}
		s.client.WriteTimeout, s.server.WriteTimeout = -1, -1
		s.pipe.Window = 100
		c, peer, _ := s.scripted(t, role)
		nc := NetConn(background, c, Text)
		start := time.Now()
		wantTimeout := func(r result, at time.Duration, why string) {
			t.Helper()
			var ne net.Error
			if !errors.Is(r.err, os.ErrDeadlineExceeded) || !errors.As(r.err, &ne) || !ne.Timeout() || r.at.Sub(start) != at {
				t.Fatalf("%s: %v after %v, want a timeout after %v", why, r.err, r.at.Sub(start), at)
			}
		}
		set := func(f func(time.Time) error, d time.Duration) {
			t.Helper()
			if err := f(start.Add(d)); err != nil {
				t.Fatal(err)
			}
		}
		set(nc.SetReadDeadline, time.Second)
		wantTimeout(<-asyncRead(nc, 5), time.Second, "set before")
		wantTimeout(<-asyncRead(nc, 5), time.Second, "still passed")
		_ = nc.SetReadDeadline(time.Time{})
		got := asyncRead(nc, 5)
		pending(t, got, "there is no deadline")
		set(nc.SetReadDeadline, 2*time.Second)
		wantTimeout(<-got, 2*time.Second, "set while it waits")
		set(nc.SetReadDeadline, 3*time.Second)
		got = asyncRead(nc, 5)
		synctest.Wait()
		set(nc.SetReadDeadline, 9*time.Second)
		time.Sleep(5 * time.Second)
		pending(t, got, "the deadline was put off")
		set(nc.SetReadDeadline, time.Second)
		wantTimeout(<-got, 7*time.Second, "moved into the past")

		// Within a message as well, and what was there is there afterwards.
		peer.Send(`TEXT fin=0 "weft"`)
		wantTimeout(<-asyncRead(nc, 5), 7*time.Second, "a deadline that has passed counts although bytes are there")
		set(nc.SetReadDeadline, 10*time.Second)
		if r := <-asyncRead(nc, 3); string(r.p) != "wef" {
			t.Fatal(r)
		}
		if r := <-asyncRead(nc, 3); string(r.p) != "t" {
			t.Fatal(r)
		}
		wantTimeout(<-asyncRead(nc, 3), 10*time.Second, "inside a message")
		_ = nc.SetReadDeadline(time.Time{})
		peer.Send(`CONT "warp"`)
		if r := <-asyncRead(nc, 9); string(r.p) != "warp" {
			t.Fatal(r)
		}

		// A write that waits for its turn is taken back, all those that wait are.
		full := async(func() error { return c.WriteMessage(background, Text, words(300, 1)) })
		pending(t, full, "the pipe is full")
		var writes []<-chan result
		for range 3 {
			writes = append(writes, async(func() error { _, err := nc.Write([]byte("never")); return err }))
		}
		synctest.Wait()
		set(nc.SetDeadline, 11*time.Second)
		for _, w := range writes {
			wantTimeout(<-w, 11*time.Second, "all that wait")
		}
		wantTimeout(<-asyncRead(nc, 1), 11*time.Second, "SetDeadline is for both")
		peer.WantMessage(1, words(300, 1))
		wantTimeout(<-async(func() error { _, err := nc.Write([]byte("never")); return err }), 11*time.Second, "although there is room")
		_ = nc.SetDeadline(time.Time{})
		if _, err := nc.Write([]byte("at last")); err != nil {
			t.Fatal(err)
		}
		peer.Want(`TEXT "at last"`)
	})
}

// TestNetConnContext bounds the whole life.
func TestNetConnContext(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		c, _, _ := setup{}.scripted(t, role)
		ctx, cancel := context.WithCancel(background)
		nc := NetConn(ctx, c, Text)
		_ = nc.SetReadDeadline(time.Now().Add(time.Hour))
		got := asyncRead(nc, 1)
		pending(t, got, "nothing has come")
		cancel()
		if r := now(t, got, "the context has ended"); !errors.Is(r.err, context.Canceled) {
			t.Error(r.err)
		}
		if _, err := nc.Write([]byte("x")); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// TestNetConnConcurrent: every method from many goroutines; no write is torn,
// no byte lost.
func TestNetConnConcurrent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := setup{}.connect(t)
		a, b := NetConn(background, client, Binary), NetConn(background, server, Binary)
		const writers, writes, size = 8, 50, 64
		var wg sync.WaitGroup
		for i := range writers {
			wg.Go(func() {
				for range writes {
					if _, err := a.Write(bytes.Repeat([]byte{byte(i)}, size)); err != nil {
						t.Error(err)
					}
					_ = a.SetDeadline(time.Now().Add(time.Hour))
				}
			})
		}
		var mu sync.Mutex
		count := map[byte]int{}
		var readers sync.WaitGroup
		for range 4 {
			readers.Go(func() {
				for buf := make([]byte, size); ; {
					n, err := b.Read(buf)
					if err != nil {
						if err != io.EOF {
							t.Error(err)
						}
						return
					}
					mu.Lock()
					for _, x := range buf[:n] {
						count[x]++
					}
					mu.Unlock()
					_ = b.SetReadDeadline(time.Time{})
				}
			})
		}
		wg.Wait()
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		readers.Wait()
		for i := range writers {
			if count[byte(i)] != writes*size {
				t.Errorf("writer %d: %d bytes arrived of %d", i, count[byte(i)], writes*size)
			}
		}
	})
}
