package ws

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-ws/weft/internal/wire"
	"github.com/weft-ws/weft/internal/wstest"
)

// closing calls Close in a goroutine.
func closing(c *Conn, code CloseCode, reason string) <-chan result {
	return async(func() error { return c.Close(code, reason) })
}

func wantFrames(t *testing.T, ce *CloseError, sent, received *CloseFrame) {
	t.Helper()
	show := func(f *CloseFrame) string {
		if f == nil {
			return "none"
		}
		return fmt.Sprint(*f)
	}
	if show(ce.Sent) != show(sent) || show(ce.Received) != show(received) {
		t.Errorf("sent %s, received %s; want %s, %s", show(ce.Sent), show(ce.Received), show(sent), show(received))
	}
}

// wantOver checks what holds for a connection that has ended.
func wantOver(t *testing.T, c *Conn) {
	t.Helper()
	synctest.Wait()
	select {
	case <-c.Done():
	default:
		t.Fatal("Done is not closed")
	}
	err := c.Err()
	if err == nil || !errors.Is(err, net.ErrClosed) {
		t.Fatalf("Err is %v", err)
	}
	calls := map[string]func() error{
		"ReadMessage":   func() error { _, _, err := c.ReadMessage(background); return err },
		"AppendMessage": func() error { _, _, err := c.AppendMessage(background, nil); return err },
		"NextReader":    func() error { _, err := c.NextReader(background); return err },
		"WriteMessage":  func() error { return c.WriteMessage(background, Text, nil) },
		"NextWriter":    func() error { _, err := c.NextWriter(background, Text); return err },
		"Ping":          func() error { _, err := c.Ping(background); return err },
		"Send":          func() error { return c.Send(background, Outgoing{Type: Text}) },
		"WritePrepared": func() error {
			p, err := NewPrepared(Text, nil)
			if err != nil {
				return err
			}
			return c.WritePrepared(background, p)
		},
	}
	for name, call := range calls {
		if got := call(); got != err {
			t.Errorf("%s: %v, want the connection's error, %v", name, got, err)
		}
	}
	if err := c.CloseNow(); err != nil {
		t.Errorf("CloseNow: %v", err)
	}
	if c.Err() != err {
		t.Errorf("the error has changed to %v", c.Err())
	}
}

func TestEdgeCasesCloseWeBegin(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		c, p, _ := setup{}.scripted(t, role)
		if c.Err() != nil {
			t.Error(c.Err())
		}
		cl := closing(c, 4321, "over and out")
		if reason := p.WantClose(4321, ""); reason != "over and out" {
			t.Errorf("%q", reason)
		}
		pending(t, cl, "the peer has not answered")
		if err := c.WriteMessage(background, Text, nil); !errors.Is(err, net.ErrClosed) {
			t.Error("a message after Close:", err)
		}
		if _, err := c.Ping(background); !errors.Is(err, net.ErrClosed) {
			t.Error("a ping after Close:", err)
		}
		p.Send(`TEXT "still on its way"`, `PING`, `CLOSE code=4321`)
		if role == RoleServer {
			p.WantEnd("the server closes TCP first")
		} else {
			pending(t, cl, "RFC 6455, 7.1.1: the server closes TCP first")
		}
		p.Close()
		if r := now(t, cl, "both have closed"); r.err != nil {
			t.Error(r.err)
		}
		ce := wantCloseError(t, c.Err(), 4321, false)
		wantFrames(t, ce, &CloseFrame{Code: 4321, Reason: "over and out"}, &CloseFrame{Code: 4321})
		if ce.Cause != nil || ce.Error() != `ws: closed: 4321 "over and out"` {
			t.Errorf("%q", ce)
		}
		if err := c.Close(1000, ""); err != nil {
			t.Error("a second Close:", err)
		}
		if got := c.Stats().CloseCode; got != 4321 {
			t.Error(got)
		}
		wantOver(t, c)
	})
}

func TestEdgeCasesCloseThePeerBegins(t *testing.T) {
	for _, cs := range []struct {
		frame, answer string
		code          CloseCode
		reason        string
		normal        bool
	}{
		{`CLOSE`, `CLOSE`, CloseNoStatus, "", true},
		{`CLOSE code=1000 "bye"`, `CLOSE code=1000`, 1000, "bye", true},
		{`CLOSE code=1001`, `CLOSE code=1001`, 1001, "", true},
		{`CLOSE code=1011 "oops"`, `CLOSE code=1011`, 1011, "oops", false},
		{`CLOSE code=4999 "über"`, `CLOSE code=4999`, 4999, "über", false},
	} {
		bubble(t, func(t *testing.T, role Role) {
			c, p, _ := setup{}.scripted(t, role)
			read := reading(background, c)
			var ends []error
			msgs := async(func() error {
				for _, err := range c.Messages(background) {
					ends = append(ends, err)
				}
				return nil
			})
			synctest.Wait()
			p.Send(cs.frame)
			p.Want(cs.answer)
			p.Close()
			ce := wantCloseError(t, now(t, read, "").err, cs.code, true)
			wantFrames(t, ce, &CloseFrame{Code: cs.code}, &CloseFrame{Code: cs.code, Reason: cs.reason})
			if ce.Reason != cs.reason || c.Err() != error(ce) {
				t.Error(ce)
			}
			now(t, msgs, "the connection has ended")
			if cs.normal != (len(ends) == 0) || !cs.normal && ends[0] != error(ce) {
				t.Errorf("Messages ends with %v", ends)
			}
			if err := c.Drain(background); (err == nil) != cs.normal {
				t.Errorf("Drain: %v", err)
			}
			if err := c.Close(1000, ""); err != nil {
				t.Errorf("both Close frames were exchanged, but Close says %v", err)
			}
			wantOver(t, c)
		})
	}
}

// RFC 6455, 7.4.1: 1010 "is not used by the server", so it is not echoed.
func TestEdgeCasesServerDoesNotEcho1010(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		c, p, _ := setup{}.scripted(t, role)
		read := reading(background, c)
		p.Send(`CLOSE code=1010 "no extension"`)
		want := CloseMandatoryExtension
		if role == RoleServer {
			want = CloseNormal
		}
		p.WantClose(want, "")
		p.Close()
		wantCloseError(t, now(t, read, "").err, CloseMandatoryExtension, true)
	})
}

func TestConcurrencyCloseFromBothAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := setup{}
		cp, sp, o := s.newPipe(t)
		c, srv := s.conn(cp, RoleClient), s.conn(sp, RoleServer)
		s.end(t, o, c, srv)
		cp.Stall()
		sp.Stall()
		a, b := closing(c, 1000, "client"), closing(srv, 1001, "server")
		synctest.Wait()
		c2, s2 := closing(c, 4000, "ignored"), closing(srv, 4000, "ignored")
		pending(t, a, "the frames cross")
		cp.Resume()
		sp.Resume()
		for _, ch := range []<-chan result{a, b, c2, s2} {
			if r := now(t, ch, "both have closed"); r.err != nil {
				t.Error(r.err)
			}
		}
		ce := wantCloseError(t, c.Err(), 1000, false)
		wantFrames(t, ce, &CloseFrame{Code: 1000, Reason: "client"}, &CloseFrame{Code: 1001, Reason: "server"})
		ce = wantCloseError(t, srv.Err(), 1001, false)
		wantFrames(t, ce, &CloseFrame{Code: 1001, Reason: "server"}, &CloseFrame{Code: 1000, Reason: "client"})
		wantOver(t, c)
		wantOver(t, srv)
	})
}

// Close lets a message in flight finish; messages that wait fail.
func TestConcurrencyCloseDuringOurMessage(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		cfg := Config{FragmentSize: 200}
		c, p, _ := setup{client: cfg, server: cfg, pipe: wstest.PipeOptions{Window: 500}}.scripted(t, role)
		msg := pattern(5000, 9)
		write := async(func() error { return c.WriteMessage(background, Binary, msg) })
		synctest.Wait()
		waiting := async(func() error { return c.WriteMessage(background, Text, []byte("too late")) })
		synctest.Wait()
		cl := closing(c, 1000, "")
		if r := now(t, waiting, "Close was called"); !errors.Is(r.err, net.ErrClosed) {
			t.Error(r.err)
		}
		pending(t, write, "the message may finish")
		time.Sleep(4 * time.Second)
		p.WantMessage(wire.Binary, msg)
		p.WantClose(1000, "after the message")
		p.Send(`CLOSE code=1000`)
		p.Close()
		if r := now(t, write, ""); r.err != nil {
			t.Error(r.err)
		}
		if r := now(t, cl, ""); r.err != nil {
			t.Error(r.err)
		}
	})
}

// A message that does not finish in time is cut off, between two fragments.
func TestTimeoutsCloseCutsOurMessage(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		c, p, _ := setup{}.scripted(t, role)
		w, err := c.NextWriter(background, Text)
		if err != nil {
			t.Fatal(err)
		}
		w.Write([]byte("begun"))
		w.Flush()
		p.Want(`TEXT fin=0 "begun"`)
		begin := time.Now()
		cl := closing(c, 1001, "bye")
		pending(t, cl, "the message may finish")
		w.Write([]byte(" and going on"))
		w.Flush()
		p.Want(`CONT fin=0 " and going on"`)
		p.WantClose(1001, "the message did not finish in time")
		if d := time.Since(begin); d != closeTimeoutDefault {
			t.Errorf("after %v", d)
		}
		p.Send(`CLOSE code=1001`)
		p.Close()
		r := now(t, cl, "")
		var te *TimeoutError
		if !errors.As(r.err, &te) || te.Limit != "CloseTimeout" {
			t.Error(r.err)
		}
		if _, err := w.Write([]byte("x")); err != c.Err() {
			t.Error(err)
		}
	})
}

// The peer is in the middle of a message when we close.
func TestConcurrencyCloseDuringTheirMessage(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		c, p, _ := setup{}.scripted(t, role)
		p.Send(`TEXT fin=0 "half a "`)
		cl := closing(c, 1000, "")
		p.WantClose(1000, "it does not wait for the peer's message")
		p.Send(`CONT "message"`, `TEXT "another"`, `CLOSE code=1000`)
		p.Close()
		if r := now(t, cl, ""); r.err != nil {
			t.Error(r.err)
		}
	})
}

func TestTimeoutsPeerNeverAnswersClose(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		c, p, _ := setup{allow: []string{"CL-11"}}.scripted(t, role)
		begin := time.Now()
		cl := closing(c, 1000, "")
		p.WantClose(1000, "")
		stop := make(chan struct{})
		go func() { // a peer that goes on talking is no better
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Second):
					_, _ = p.Conn.Write(p.Frames(`PING`)[0])
				}
			}
		}()
		r := <-cl
		close(stop)
		if d := r.at.Sub(begin); d < closeTimeoutDefault || d > closeTimeoutDefault+10*time.Millisecond {
			t.Errorf("after %v", d)
		}
		var te *TimeoutError
		if !errors.As(r.err, &te) || te.Limit != "CloseTimeout" || te.After != closeTimeoutDefault {
			t.Error(r.err)
		}
		ce := wantCloseError(t, r.err, 1000, false)
		wantFrames(t, ce, &CloseFrame{Code: 1000}, nil)
		wantOver(t, c)
	})
}

// With the timeout switched off Close waits for ever.
func TestTimeoutsCloseWithoutTimeout(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		cfg := Config{CloseTimeout: -1}
		c, p, _ := setup{client: cfg, server: cfg}.scripted(t, role)
		cl := closing(c, 1000, "")
		p.WantClose(1000, "")
		time.Sleep(1000 * time.Hour)
		pending(t, cl, "there is no timeout")
		p.Send(`CLOSE code=1000`)
		p.Close()
		if r := now(t, cl, ""); r.err != nil {
			t.Error(r.err)
		}
	})
}

func TestConcurrencyCloseWhileAnotherReads(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		c, p, _ := setup{}.scripted(t, role)
		read := reading(background, c)
		synctest.Wait()
		cl := closing(c, 1000, "")
		p.WantClose(1000, "")
		p.Send(`TEXT "one more"`)
		if r := now(t, read, ""); string(r.p) != "one more" {
			t.Errorf("who was reading gets what comes: %q, %v", r.p, r.err)
		}
		if _, _, err := c.ReadMessage(background); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a read that begins after Close: %v", err)
		}
		p.Send(`CLOSE code=1000`)
		p.Close()
		if r := now(t, cl, ""); r.err != nil {
			t.Error(r.err)
		}
	})
}

// Close steps in for a reader that holds a message and does not read on.
func TestConcurrencyCloseWhileAMessageIsHeld(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		c, p, _ := setup{}.scripted(t, role)
		p.Send(`TEXT fin=0 "abc"`)
		r, err := c.NextReader(background)
		if err != nil {
			t.Fatal(err)
		}
		queued := reading(background, c)
		synctest.Wait()
		cl := closing(c, 1000, "")
		p.WantClose(1000, "")
		if r := now(t, queued, "nobody gets to read any more"); !errors.Is(r.err, net.ErrClosed) {
			t.Error(r.err)
		}
		// The holder comes back while Close reads in its place.
		late := async(func() error { _, err := io.ReadAll(r); return err })
		p.Send(`CONT "def"`, `PING`, `TEXT "ghi"`)
		if r := now(t, late, "its message will not be finished"); !errors.Is(r.err, net.ErrClosed) {
			t.Error(r.err)
		}
		pending(t, cl, "Close goes on reading")
		if !c.r.lock.active() {
			t.Error("nobody is inside the read lock, but Close reads")
		}
		p.Send(`CLOSE code=1000`)
		p.Close()
		if r := now(t, cl, ""); r.err != nil {
			t.Error(r.err)
		}
	})
}

func TestConcurrencyCloseInsideAHandler(t *testing.T) {
	for _, where := range []string{"Open", "Message"} {
		bubble(t, func(t *testing.T, role Role) {
			c, p, _ := setup{}.scripted(t, role)
			var closed []error
			results := make(chan error, 1)
			h := Handler{
				Message: func(ctx context.Context, c *Conn, typ MessageType, p []byte) error {
					if string(p) == "end" {
						results <- c.Close(1000, "asked to")
						if string(p) != "end" {
							t.Errorf("the handler's message has become %q", p)
						}
					}
					return nil
				},
				Closed: func(c *Conn, err error) { closed = append(closed, err) },
			}
			if where == "Open" {
				h.Open = func(ctx context.Context, c *Conn) error {
					results <- c.Close(1000, "asked to")
					return nil
				}
			}
			c.startServe(h, func() {})
			p.Send(`TEXT "end"`, `TEXT "in the same segment"`)
			p.WantClose(1000, "")
			p.Send(`TEXT "more"`, `CLOSE code=1000`)
			p.Close()
			synctest.Wait()
			if err := <-results; err != nil {
				t.Error(err)
			}
			synctest.Wait()
			if len(closed) != 1 || closed[0] != c.Err() {
				t.Errorf("Closed was called with %v", closed)
			}
			wantOver(t, c)
		})
	}
}

// Close from elsewhere while a handler works, which then comes back.
func TestConcurrencyCloseWhileAHandlerWorks(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		c, p, _ := setup{}.scripted(t, role)
		work := make(chan struct{})
		var closed bool
		c.startServe(Handler{
			Message: func(ctx context.Context, c *Conn, typ MessageType, p []byte) error {
				<-work
				if string(p) != "first" {
					t.Errorf("%q", p)
				}
				if err := c.WriteMessage(ctx, Text, p); !errors.Is(err, net.ErrClosed) {
					t.Error(err)
				}
				return nil
			},
			Closed: func(*Conn, error) { closed = true },
		}, func() {})
		p.Send(`TEXT "first"`, `TEXT "never handled"`)
		synctest.Wait()
		cl := closing(c, 1001, "")
		p.WantClose(1001, "")
		p.Send(`TEXT "nobody reads this"`)
		close(work)
		pending(t, cl, "the peer has not answered")
		p.Send(`CLOSE code=1001`)
		p.Close()
		if r := now(t, cl, ""); r.err != nil {
			t.Error(r.err)
		}
		synctest.Wait()
		if !closed {
			t.Error("Closed was not called")
		}
	})
}

// The first half of Close leaves the reading to whoever does it.
func TestEdgeCasesCloseSend(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		c, p, _ := setup{}.scripted(t, role)
		if err := c.CloseSend(1000, "done"); err != nil {
			t.Fatal(err)
		}
		p.WantClose(1000, "")
		p.Send(`TEXT "rest 1"`, `TEXT "rest 2"`)
		wantMessage(t, c, Text, []byte("rest 1"))
		wantMessage(t, c, Text, []byte("rest 2"))
		if err := c.WriteMessage(background, Text, nil); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		p.Send(`CLOSE code=1000`)
		p.Close()
		_, _, err := c.ReadMessage(background)
		wantCloseError(t, err, 1000, false)
		if err := c.CloseSend(1000, ""); err != nil {
			t.Error(err)
		}
		wantOver(t, c)

		// Without an answer the connection is dropped in time.
		c, p, _ = setup{allow: []string{"CL-11"}}.scripted(t, role)
		begin := time.Now()
		read := reading(background, c)
		if err := c.CloseSend(1000, ""); err != nil {
			t.Fatal(err)
		}
		p.WantClose(1000, "")
		r := <-read
		var te *TimeoutError
		if d := r.at.Sub(begin); d != closeTimeoutDefault || !errors.As(r.err, &te) || te.Limit != "CloseTimeout" {
			t.Errorf("%v after %v", r.err, d)
		}
	})
}

func TestValidationCloseArguments(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		c, p, _ := setup{}.scripted(t, role)
		for code := range 6000 {
			if cc := CloseCode(code); !cc.Sendable() && cc != CloseNoStatus {
				if err := c.Close(cc, ""); err != errCloseCode {
					t.Fatalf("Close(%d): %v", code, err)
				}
				if err := c.CloseSend(cc, ""); err != errCloseCode {
					t.Fatalf("CloseSend(%d): %v", code, err)
				}
			}
		}
		for _, bad := range []string{"\xff", "half\xe2\x82", strings.Repeat("x", 124)} {
			if err := c.Close(1000, bad); err != errCloseReason {
				t.Errorf("%q: %v", bad, err)
			}
		}
		if err := c.Close(CloseNoStatus, "a reason needs a code"); err != errCloseCode {
			t.Error(err)
		}
		p.WantNothing("nothing has happened")
		cl := closing(c, 3000, strings.Repeat("x", 123))
		if reason := p.WantClose(3000, ""); len(reason) != 123 {
			t.Error(len(reason))
		}
		p.Send(`CLOSE code=3000`)
		p.Close()
		now(t, cl, "")
	})
}

func TestEdgeCasesCloseWithoutCode(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		c, p, _ := setup{}.scripted(t, role)
		cl := closing(c, CloseNoStatus, "")
		p.Want(`CLOSE`)
		p.Send(`CLOSE`)
		p.Close()
		if r := now(t, cl, ""); r.err != nil {
			t.Error(r.err)
		}
		wantCloseError(t, c.Err(), CloseNoStatus, false)
	})
}

func TestConcurrencyCloseNowAnywhere(t *testing.T) {
	type state struct {
		c *Conn
		p *wstest.Peer
	}
	for name, into := range map[string]func(t *testing.T, s state) (wait []<-chan result){
		"idle": func(t *testing.T, s state) []<-chan result { return nil },
		"reading": func(t *testing.T, s state) []<-chan result {
			return []<-chan result{reading(background, s.c), reading(background, s.c)}
		},
		"reading inside a message": func(t *testing.T, s state) []<-chan result {
			s.p.Send(`TEXT fin=0 "abc"`)
			return []<-chan result{reading(background, s.c)}
		},
		"writing": func(t *testing.T, s state) []<-chan result {
			w := func() error { return s.c.WriteMessage(background, Binary, make([]byte, 1<<20)) }
			return []<-chan result{async(w), async(w), async(w)}
		},
		"pinging": func(t *testing.T, s state) []<-chan result {
			return []<-chan result{async(func() error { _, err := s.c.Ping(background); return err })}
		},
		"closing": func(t *testing.T, s state) []<-chan result {
			return []<-chan result{closing(s.c, 1000, ""), closing(s.c, 1000, "")}
		},
		"closed by the peer": func(t *testing.T, s state) []<-chan result {
			s.p.Send(`CLOSE code=1000`)
			return []<-chan result{reading(background, s.c)}
		},
	} {
		bubble(t, func(t *testing.T, role Role) {
			c, p, _ := setup{allow: append([]string{"CL-11"}, brokenOff...)}.scripted(t, role)
			calls := into(t, state{c, p})
			synctest.Wait()
			was := c.Err()
			if err := c.CloseNow(); err != nil {
				t.Error(name, err)
			}
			if err := c.CloseNow(); err != nil {
				t.Error(name, err)
			}
			for _, ch := range calls {
				if r := now(t, ch, name); !errors.Is(r.err, net.ErrClosed) && was == nil {
					t.Errorf("%s: %v", name, r.err)
				}
			}
			if was != nil {
				p.Close() // it was ending, and comes to its end
			} else if name != "closing" {
				if ce := wantCloseError(t, c.Err(), CloseAbnormal, false); !errors.Is(ce, errDropped) || ce.normal() {
					t.Error(name, ce)
				}
			}
			wantOver(t, c)
		})
	}
}

// How TCP ends, and where: in a header, in a payload, between two fragments,
// between two messages.
func TestEdgeCasesStreamEnds(t *testing.T) {
	for where, cut := range map[string]struct {
		extra int64 // bytes after the first fragment
		want  string
	}{
		"header":            {1, "inside the header of frame 2, at byte"},
		"payload":           {12, "inside the payload of frame 2, at byte"},
		"between fragments": {0, "between two fragments, after frame 1 at byte"},
	} {
		for how, fault := range map[string]func(at int64) wstest.Faults{
			"reset": func(at int64) wstest.Faults { return wstest.Faults{ResetAt: at} },
			"cut":   func(at int64) wstest.Faults { return wstest.Faults{CutAt: at} },
		} {
			bubble(t, func(t *testing.T, role Role) {
				first := int64(2 + 3)
				if role == RoleServer {
					first += 4
				}
				f := fault(first + cut.extra)
				s := setup{pipe: wstest.PipeOptions{Client: f, Server: f}, hold: true}
				c, p, _ := s.scripted(t, role)
				read := reading(background, c)
				_, _ = p.Conn.Write(append(p.Frames(`TEXT fin=0 "abc"`)[0], p.Frames(`CONT "0123456789abcdef"`)[0]...))
				r := now(t, read, where)
				ce := wantCloseError(t, r.err, CloseAbnormal, false)
				if !strings.Contains(ce.Error(), cut.want) {
					t.Errorf("%s, %s: %q does not say %q", where, how, ce, cut.want)
				}
				want := io.ErrUnexpectedEOF
				if how == "reset" {
					want = syscall.ECONNRESET
				}
				if !errors.Is(ce, want) {
					t.Errorf("%s, %s: %v", where, how, ce)
				}
				wantFrames(t, ce, nil, nil)
				wantOver(t, c)
			})
		}
	}
	bubble(t, func(t *testing.T, role Role) {
		c, p, _ := setup{}.scripted(t, role)
		p.Send(`TEXT "whole"`)
		p.Close()
		wantMessage(t, c, Text, []byte("whole"))
		_, _, err := c.ReadMessage(background)
		ce := wantCloseError(t, err, CloseAbnormal, false)
		if !strings.Contains(ce.Error(), "without a Close, after frame 1") {
			t.Error(ce)
		}
		wantOver(t, c)
	})
}

// Our Close reaches a peer that has sent much that we shall not read: closing
// TCP with input unread would make a reset of it.
func TestEdgeCasesCloseSurvivesUnreadInput(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		c, p, _ := setup{}.scripted(t, role)
		read := reading(background, c)
		bad := p.Frames(`0x3 "x"`)[0]
		flood := make([]byte, 40<<10)
		p.SendBytes(append(bad, flood...))
		r := now(t, read, "")
		wantCloseError(t, r.err, CloseProtocolError, false)
		p.SendBytes(flood) // goes on as if nothing had been said
		p.WantClose(CloseProtocolError, "")
		if role == RoleServer {
			p.WantEnd("half closed, so that the peer sees the end")
		}
		p.Close()
		synctest.Wait()
		wantOver(t, c)
	})
}

// A peer that is sent away and does not go is dropped in time.
func TestTimeoutsPeerDoesNotGo(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		c, p, _ := setup{allow: []string{"CL-11"}}.scripted(t, role)
		begin := time.Now()
		read := reading(background, c)
		p.Send(`CONT "x"`)
		now(t, read, "a breach is known at once")
		p.WantClose(CloseProtocolError, "")
		<-c.Done()
		if d := time.Since(begin); d != closeTimeoutDefault {
			t.Errorf("dropped after %v", d)
		}
	})
}

// The peer closes while our message is on its way: the answer passes between
// two fragments, and nothing follows it.
func TestConcurrencyAnswerPassesBetweenFragments(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		for _, size := range []int{100, 5000, 16 << 10} {
			cfg := Config{FragmentSize: size}
			c, p, _ := setup{client: cfg, server: cfg, pipe: wstest.PipeOptions{Window: 250}}.scripted(t, role)
			write := async(func() error { return c.WriteMessage(background, Binary, make([]byte, 1<<20)) })
			read := reading(background, c)
			synctest.Wait()
			p.Send(`CLOSE code=1001`)
			synctest.Wait()
			before := 0
			for {
				f := p.Next()
				if f.Opcode == wire.Close {
					break
				}
				before += len(f.Payload)
			}
			if before > 64<<10+size {
				t.Errorf("fragments of %d: the answer came after %d bytes", size, before)
			}
			if role == RoleServer {
				p.WantEnd("nothing follows the Close")
			}
			p.Close()
			for _, ch := range []<-chan result{write, read} {
				if r := now(t, ch, ""); r.err != c.Err() {
					t.Errorf("%v, want the connection's error", r.err)
				}
			}
			wantCloseError(t, c.Err(), 1001, true)
			wantOver(t, c)
		}
	})
}

// The same when the batch holds messages of many writers: those behind the
// answer are not sent, and their writers are told.
func TestConcurrencyAnswerPassesBetweenMessages(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		c, p, _ := setup{pipe: wstest.PipeOptions{Window: 250}}.scripted(t, role)
		read := reading(background, c)
		var writes []<-chan result
		for i := range 40 {
			writes = append(writes, async(func() error { return c.WriteMessage(background, Binary, pattern(4000, byte(i))) }))
			synctest.Wait()
		}
		for range 3 { // the first, and two of the batch that follows
			p.Next()
		}
		synctest.Wait()
		p.Send(`CLOSE code=1001`)
		synctest.Wait()
		arrived := 3
		for p.Next().Opcode != wire.Close {
			arrived++
		}
		p.Close()
		if arrived < 4 || arrived > 30 {
			t.Errorf("%d messages went before the answer", arrived)
		}
		for i, ch := range writes {
			r := now(t, ch, "the connection has ended")
			if i < arrived && r.err != nil || i >= arrived && r.err != c.Err() {
				t.Errorf("message %d of %d that arrived: %v", i+1, arrived, r.err)
			}
		}
		wantCloseError(t, now(t, read, "").err, 1001, true)
		if s := c.Stats().Sent; s.Messages != uint64(arrived) || s.Frames != uint64(arrived)+1 {
			t.Errorf("%d messages and %d frames are counted, %d arrived", s.Messages, s.Frames, arrived)
		}
	})
}

func TestEdgeCasesCloseErrorWords(t *testing.T) {
	cause := errors.New("why")
	for want, ce := range map[string]*CloseError{
		`ws: closed by peer: 1000 (normal closure) "bye"`:  {Code: 1000, Reason: "bye", Remote: true, Received: &CloseFrame{}},
		`ws: closed: 1002 (protocol error): why`:           {Code: 1002, Sent: &CloseFrame{}, Cause: cause},
		`ws: closed: 1000 (normal closure) (not answered)`: {Code: 1000, Sent: &CloseFrame{}},
		`ws: connection lost: why`:                         {Code: CloseAbnormal, Cause: cause},
	} {
		if ce.Error() != want {
			t.Errorf("%q, want %q", ce, want)
		}
		if !errors.Is(ce, net.ErrClosed) || errors.Is(ce, cause) != (ce.Cause != nil) {
			t.Errorf("%v does not unwrap", ce)
		}
	}
}
