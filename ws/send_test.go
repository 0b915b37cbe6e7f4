package ws

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/weft-ws/weft/internal/wire"
	"github.com/weft-ws/weft/internal/wstest"
)

// blocked returns a connection whose pipe is full of a message of 300 bytes,
// and whose queue has sent nothing: the message that pump has taken waits.
func blocked(t *testing.T, role Role, queue int) (*Conn, *wstest.Peer) {
	t.Helper()
	s := setup{allow: []string{"FR-13"}} // some tests drop the connection inside the long message
	s.client.SendQueue, s.client.WriteTimeout = queue, -1
	s.server = s.client
	s.pipe.Window = 100
	c, peer, _ := s.scripted(t, role)
	pending(t, async(func() error { return c.WriteMessage(background, Binary, make([]byte, 300)) }), "the pipe is full")
	return c, peer
}

// A doneLog collects what Outgoing.Done is told.
type doneLog struct{ ch chan string }

func (l *doneLog) of(name string) func(error) {
	return func(err error) { l.ch <- fmt.Sprintf("%s: %v", name, err) }
}

func (l *doneLog) all() []string {
	synctest.Wait()
	var out []string
	for len(l.ch) > 0 {
		out = append(out, <-l.ch)
	}
	return out
}

func sending(ctx context.Context, c *Conn, o Outgoing) <-chan result {
	return async(func() error { return c.Send(ctx, o) })
}

// TestSendKeepsOrder: Send returns before the wire, messages keep their order,
// and Done is called once for each.
func TestSendKeepsOrder(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		c, peer := blocked(t, role, 0)
		log := doneLog{make(chan string, 100)}
		for i := range 20 {
			if err := c.Send(background, Outgoing{Type: Text, Data: fmt.Appendf(nil, "message %d", i), Done: log.of(fmt.Sprint(i))}); err != nil {
				t.Fatal(err)
			}
		}
		if got := log.all(); len(got) != 0 {
			t.Errorf("done already: %v", got)
		}
		if q := c.Stats().Queued; q < 9*19 || q > 10*20 {
			t.Errorf("%d bytes queued", q)
		}
		peer.WantMessage(wire.Binary, make([]byte, 300))
		var want []string
		for i := range 20 {
			peer.Want(fmt.Sprintf(`TEXT "message %d"`, i))
			want = append(want, fmt.Sprintf("%d: <nil>", i))
		}
		if got := log.all(); !slices.Equal(got, want) {
			t.Errorf("done: %v", got)
		}
		if q := c.Stats().Queued; q != 0 {
			t.Errorf("%d bytes still queued", q)
		}
		// The queue starts anew, and Done may be left out.
		if err := c.Send(background, Outgoing{Type: Binary, Data: []byte{1}}); err != nil {
			t.Fatal(err)
		}
		peer.Want(`BINARY x:01`)
	})
}

// TestSendRefusesBadMessages before anything is queued.
func TestSendRefusesBadMessages(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		c, peer, _ := setup{}.scripted(t, role)
		called := func(error) { t.Error("Done of a message that was refused") }
		if err := c.Send(background, Outgoing{Data: []byte("x"), Done: called}); !errors.Is(err, errMessageType) {
			t.Error(err)
		}
		if err := c.Send(background, Outgoing{Type: Text, Data: []byte("\xff"), Done: called}); !errors.Is(err, errNotUTF8) {
			t.Error(err)
		}
		peer.WantNothing("both were refused")
	})
}

// TestSendWaits for room, until its context ends.
func TestSendWaits(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		c, peer := blocked(t, role, 100)
		first := bytes.Repeat([]byte{1}, 150) // larger than the queue, which is empty
		for _, p := range [][]byte{first, bytes.Repeat([]byte{2}, 90)} {
			if r := now(t, sending(background, c, Outgoing{Type: Binary, Data: p}), "there is room"); r.err != nil {
				t.Fatal(r.err)
			}
		}
		ctx, cancel := context.WithCancel(background)
		given := sending(ctx, c, Outgoing{Type: Binary, Data: make([]byte, 20), Done: func(error) { t.Error("Done of a message that was not queued") }})
		waits := sending(background, c, Outgoing{Type: Binary, Data: bytes.Repeat([]byte{3}, 20)})
		latest := sending(background, c, Outgoing{Type: Binary, Data: bytes.Repeat([]byte{3}, 20), Policy: Latest, Key: "k"})
		pending(t, given, "90 and 20 are more than 100")
		pending(t, waits, "90 and 20 are more than 100")
		pending(t, latest, "there is nothing to replace")
		cancel()
		if r := now(t, given, "its context has ended"); !errors.Is(r.err, context.Canceled) {
			t.Error(r.err)
		}
		peer.WantMessage(wire.Binary, make([]byte, 300))
		peer.WantMessage(wire.Binary, first)
		for _, ch := range []<-chan result{waits, latest} {
			if r := now(t, ch, "there is room again"); r.err != nil {
				t.Error(r.err)
			}
		}
		peer.WantMessage(wire.Binary, bytes.Repeat([]byte{2}, 90))
		for range 2 {
			peer.WantMessage(wire.Binary, bytes.Repeat([]byte{3}, 20))
		}
	})
}

// TestSendFails at once when the queue has no room, and an unlimited one always
// has.
func TestSendFails(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		c, _ := blocked(t, role, 100)
		var errs []error
		for range 4 {
			errs = append(errs, c.Send(background, Outgoing{Type: Binary, Data: make([]byte, 60), Policy: Fail}))
			synctest.Wait() // pump takes the first
		}
		if errs[0] != nil || errs[1] != nil || !errors.Is(errs[2], ErrQueueFull) || !errors.Is(errs[3], ErrQueueFull) {
			t.Error(errs)
		}
		if s := c.Stats(); s.Refused != 2 || s.Queued != 60 {
			t.Errorf("refused %d, queued %d", s.Refused, s.Queued)
		}
		c, _ = blocked(t, role, -1)
		mega := make([]byte, 1<<20)
		for range 100 {
			if err := c.Send(background, Outgoing{Type: Binary, Data: mega, Policy: Fail}); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestSendLatest: the newest takes the place of the one with the same key that
// has not been begun, at the place of the old one, room or not.
func TestSendLatest(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		c, peer := blocked(t, role, 50)
		log := doneLog{make(chan string, 100)}
		send := func(name, key string, policy Policy, n int) {
			t.Helper()
			p := []byte(name + fmt.Sprintf("%*s", n, ""))
			if r := now(t, sending(background, c, Outgoing{Type: Text, Data: p, Policy: policy, Key: key, Done: log.of(name)}), name); r.err != nil {
				t.Fatal(name, r.err)
			}
		}
		send("begun", "video", Latest, 0) // pump has it
		send("a1", "video", Latest, 0)
		send("b1", "audio", Latest, 0)
		send("plain", "video", Wait, 0) // has the key, but not the policy
		send("a2", "video", Latest, 100)
		send("a3", "video", Latest, 0)
		send("b2", "audio", Latest, 0)
		if got := log.all(); !slices.Equal(got, []string{"a1: " + ErrReplaced.Error(), "a2: " + ErrReplaced.Error(), "b1: " + ErrReplaced.Error()}) {
			t.Errorf("done: %v", got)
		}
		if s := c.Stats(); s.Replaced != 3 || s.Queued != int64(len("a3b2plain")) {
			t.Errorf("replaced %d, queued %d", s.Replaced, s.Queued)
		}
		peer.WantMessage(wire.Binary, make([]byte, 300))
		peer.Want(`TEXT "begun"`, `TEXT "a3"`, `TEXT "b2"`, `TEXT "plain"`)
		if got := log.all(); !slices.Equal(got, []string{"begun: <nil>", "a3: <nil>", "b2: <nil>", "plain: <nil>"}) {
			t.Errorf("done: %v", got)
		}
	})
}

// TestSendEndOfConnection: everybody is told, who is queued and who waits, and
// who comes too late gets the error.
func TestSendEndOfConnection(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		for _, end := range []string{"dropped", "closed", "lost"} {
			c, peer := blocked(t, role, 100)
			told := make(chan error, 10)
			done := func(err error) { told <- err }
			for range 2 {
				if r := now(t, sending(background, c, Outgoing{Type: Binary, Data: make([]byte, 90), Done: done}), "there is room"); r.err != nil {
					t.Fatal(r.err)
				}
			}
			waits := sending(background, c, Outgoing{Type: Binary, Data: make([]byte, 90), Done: done})
			pending(t, waits, "there is no room")
			switch end {
			case "dropped":
				c.CloseNow()
			case "closed":
				_ = c.CloseSend(CloseNormal, "")
			case "lost":
				peer.Close()
			}
			<-c.Done()
			if r := now(t, waits, end); r.err == nil {
				t.Error(end, "a message was queued after the end")
			}
			synctest.Wait()
			if len(told) != 2 {
				t.Fatalf("%s: Done was called %d times, want 2", end, len(told))
			}
			for range 2 {
				if err := <-told; err == nil {
					t.Error(end, "a message that was lost counts as sent")
				}
			}
			err := c.Send(background, Outgoing{Type: Binary, Data: []byte{1}, Done: done})
			var ce *CloseError
			if !errors.As(err, &ce) || len(told) != 0 {
				t.Errorf("%s: afterwards %v, Done called %d times", end, err, len(told))
			}
			if q := c.Stats().Queued; q != 0 {
				t.Errorf("%s: %d bytes queued in a connection that is over", end, q)
			}
		}
	})
}
