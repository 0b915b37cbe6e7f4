package ws

import (
	"bytes"
	"context"
	"fmt"
	"reflect"
	"testing"
	"testing/synctest"
	"time"
)

// TestStatsCounters: every counter of a connection, against what its peer sent
// and got.
func TestStatsCounters(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		s := setup{}
		s.client.FragmentSize = 100
		s.server = s.client
		c, peer, _ := s.scripted(t, role)
		opened := time.Now()
		read := async(func() error { return c.Drain(background) })
		frames := peer.Frames(`TEXT "one"`, `PING "p"`, `BINARY fin=0 "a"`, `PONG "unasked"`, `CONT fin=0 "bcd"`, `CONT`, `TEXT fin=0`, `CONT "12345678"`)
		for _, f := range frames {
			peer.SendBytes(f)
			synctest.Wait()
		}
		peer.Want(`PONG "p"`)
		in := Traffic{Bytes: uint64(len(bytes.Join(frames, nil))), Frames: 8, Control: 2, Messages: 3, Fragmented: 2, LargestMessage: 8}
		in.Fragments[0], in.Fragments[1] = 1, 2
		mustWrite(t, c, Text, words(50, 1))
		mustWrite(t, c, Text, words(1000, 1)) // in frames of at most 100 bytes
		_, sent := nextMessage(t, peer)
		_, more := nextMessage(t, peer)
		sent = append(sent, more...)
		head, bucket := uint64(2), 3 // 11 fragments of 96 bytes or less
		if role == RoleClient {
			head = 6
		}
		if len(more) < 8 || len(more) > 15 {
			t.Fatalf("%d fragments", len(more))
		}
		out := Traffic{Frames: uint64(1 + len(sent)), Control: 1, Messages: 2, Fragmented: 1, LargestMessage: 1000}
		out.Bytes = out.Frames*head + 1 + 50 + 1000
		out.Fragments[0], out.Fragments[bucket] = 1, 1
		want := Stats{Sent: out, Received: in, Opened: opened, Connections: 1}
		synctest.Wait()
		if got := c.Stats(); got != want {
			t.Errorf("counted\n%+v, want\n%+v", got, want)
		}
		closed := async(func() error { return c.Close(4000, "bye") })
		peer.WantClose(4000, "Close was called")
		peer.Send(`CLOSE code=4000`)
		synctest.Wait()
		peer.Close()
		if r := <-closed; r.err != nil {
			t.Error(r.err)
		}
		<-read
		got := c.Stats()
		if got.CloseCode != 4000 || got.Sent.Control != 2 || got.Received.Control != 3 {
			t.Errorf("after the end: %+v", got)
		}
	})
}

// TestStatsPings: the latest round trip, what was put between the fragments of
// a message, how long it waited, and pings that were not answered.
func TestStatsPings(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		s := setup{}
		s.client.FragmentSize = 100
		s.server = s.client
		s.pipe.Window = 100
		c, peer, _ := s.scripted(t, role)
		read := reading(background, c)
		ping := async(func() error {
			rtt, err := c.Ping(background)
			if rtt != 3*time.Second {
				t.Errorf("round trip %v", rtt)
			}
			return err
		})
		f := peer.Next()
		time.Sleep(3 * time.Second)
		peer.Send(fmt.Sprintf("PONG x:%x", f.Payload))
		if r := now(t, ping, "it was answered"); r.err != nil {
			t.Fatal(r.err)
		}
		// A message streams out and waits; a flood of pings comes in meanwhile.
		w, err := c.NextWriter(background, Binary)
		if err != nil {
			t.Fatal(err)
		}
		wrote := async(func() error {
			if _, err := w.Write(make([]byte, 1000)); err != nil {
				return err
			}
			return w.Close()
		})
		pending(t, wrote, "the pipe is full")
		waits := async(func() error { return c.WriteMessage(background, Text, []byte("next")) })
		for range 20 {
			peer.Send(`PING`)
			synctest.Wait()
		}
		if s := c.Stats(); s.PongsDropped != 20-pongsMax || s.Waiting != 1 {
			t.Errorf("%d pongs dropped, %d writers wait", s.PongsDropped, s.Waiting)
		}
		time.Sleep(2 * time.Second)
		for got := 0; got < 2; {
			if f := peer.Next(); !f.Opcode.Control() && f.Fin {
				got++
			}
		}
		if r := now(t, wrote, "it was read"); r.err != nil {
			t.Fatal(r.err)
		}
		if r := now(t, waits, "it was read"); r.err != nil {
			t.Fatal(r.err)
		}
		st := c.Stats()
		if st.PingRTT != 3*time.Second || st.ControlWait != 2*time.Second || st.Sent.Control != 1+pongsMax || st.Interleaved != pongsMax || st.Waiting != 0 {
			t.Errorf("round trip %v, longest wait %v, %d control frames, %d inside a message, %d wait", st.PingRTT, st.ControlWait, st.Sent.Control, st.Interleaved, st.Waiting)
		}
		pending(t, read, "no message has come")
	})
}

// TestStatsBuckets: messages of 2^i to 2^(i+1)-1 frames, the last everything
// above.
func TestStatsBuckets(t *testing.T) {
	var tr traffic
	want := Traffic{LargestMessage: 9}
	for frags, bucket := range map[int]int{1: 0, 2: 1, 3: 1, 4: 2, 7: 2, 8: 3, 1 << 14: 14, 1<<15 - 1: 14, 1 << 15: 15, 1 << 20: 15} {
		tr.message(9, frags)
		want.Messages++
		want.Fragments[bucket]++
		if frags > 1 {
			want.Fragmented++
		}
	}
	if got := tr.snapshot(); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// fill sets every number of v to what next gives, in order.
func fill(v reflect.Value, next func() uint64) {
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i), next)
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i), next)
		}
	case reflect.Uint64, reflect.Uint16:
		v.SetUint(next())
	case reflect.Int64, reflect.Int:
		v.SetInt(int64(next()))
	default:
		panic(v.Kind())
	}
}

// TestStatsAdd: every field is summed, or is one of the exceptions that its
// comment names.
func TestStatsAdd(t *testing.T) {
	var a, b, want Stats
	n := uint64(0)
	count := func() uint64 { n++; return n }
	fill(reflect.ValueOf(&a).Elem(), count)
	fill(reflect.ValueOf(&b).Elem(), count)
	half := n / 2
	n = 0
	fill(reflect.ValueOf(&want).Elem(), func() uint64 { n++; return 2*n + half })
	early, late := time.Unix(1, 0), time.Unix(2, 0)
	a.Opened, b.Opened, want.Opened = late, early, early
	want.Sent.LargestMessage, want.Received.LargestMessage = b.Sent.LargestMessage, b.Received.LargestMessage
	want.ControlWait, want.PingRTT, want.CloseCode = b.ControlWait, b.PingRTT, a.CloseCode
	sum := a
	sum.Add(b)
	if sum != want {
		t.Errorf("%+v, want\n%+v", sum, want)
	}
	// The larger of maxima and the earlier of times, whichever is added; no ping is
	// no later one. A snapshot of before connections were counted is one.
	sum = b
	sum.Add(Stats{Opened: late})
	if sum.Opened != early || sum.PingRTT != b.PingRTT || sum.ControlWait != b.ControlWait || sum.Sent.LargestMessage != b.Sent.LargestMessage || sum.Connections != b.Connections+1 {
		t.Errorf("%+v", sum)
	}
	sum = Stats{}
	sum.Add(a)
	if sum.Opened != late {
		t.Error(sum.Opened)
	}
}

// TestStatsServer sums the connections, open and ended.
func TestStatsServer(t *testing.T) {
	s := &Server{Handler: Handler{Message: func(ctx context.Context, c *Conn, typ MessageType, p []byte) error {
		return c.WriteMessage(ctx, typ, p)
	}}}
	url := serverURL(t, s)
	var want Stats
	var first *Conn
	for i := range 3 {
		c := mustDial(t, url, &DialOptions{Proxy: noProxy})
		for range i + 1 {
			ask(t, c, "weft")
		}
		if i == 0 {
			first = c
			continue
		}
		if err := c.Close(CloseNormal, ""); err != nil {
			t.Fatal(err)
		}
		want.Add(c.Stats())
	}
	ask(t, first, "still open")
	// The client's end may know of the end before the server's.
	ended := func(which func(addr string) bool) {
		for conn := range s.Conns() {
			if which(conn.RemoteAddr().String()) {
				<-conn.Done()
			}
		}
	}
	mine := first.LocalAddr().String()
	ended(func(addr string) bool { return addr != mine })
	now := want
	now.Add(first.Stats())
	if got := s.Stats(); got.Connections != 3 || got.Sent != now.Received {
		t.Errorf("while one is open the server counted\n%+v, its clients\n%+v", got, now)
	}
	if err := first.Close(CloseNormal, ""); err != nil {
		t.Fatal(err)
	}
	ended(func(string) bool { return true })
	want.Add(first.Stats())
	if got := s.Stats(); got.Connections != 3 || got.Sent != want.Received || got.Received != want.Sent {
		t.Errorf("the server counted\n%+v, its clients\n%+v", got, want)
	}
}
