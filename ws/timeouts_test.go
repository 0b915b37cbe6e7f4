package ws

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-ws/weft/internal/wire"
	"github.com/weft-ws/weft/internal/wstest"
)

// wantTimeout checks that a call ended because of the named deadline.
func wantTimeout(t *testing.T, err error, limit string, after time.Duration, code CloseCode) {
	t.Helper()
	var te *TimeoutError
	if !errors.As(err, &te) || te.Limit != limit || te.After != after {
		t.Fatalf("got %v, want %s of %v", err, limit, after)
	}
	var ne net.Error
	if !errors.As(err, &ne) || !ne.Timeout() {
		t.Errorf("%v is no net.Error that timed out", err)
	}
	wantCloseError(t, err, code, false)
}

// A message that has begun ends by its deadline, in silence too, and the peer
// is told with 1008.
func TestTimeoutsUnfinishedMessageInSilence(t *testing.T) {
	for name, cs := range map[string]struct {
		cfg   Config
		limit string
		after time.Duration
	}{
		"the default":    {Config{}, "MessageTimeout", 30 * time.Second},
		"MessageTimeout": {Config{MessageTimeout: 3 * time.Second}, "MessageTimeout", 3 * time.Second},
		"GapTimeout":     {Config{GapTimeout: 2 * time.Second}, "GapTimeout", 2 * time.Second},
		"IdleTimeout":    {Config{IdleTimeout: time.Second}, "IdleTimeout", time.Second},
	} {
		for _, begun := range []string{`TEXT fin=0 "hel"`, `TEXT length=10 "hel"`} {
			bubble(t, func(t *testing.T, role Role) {
				c, p, _ := setup{client: cs.cfg, server: cs.cfg}.scripted(t, role)
				read := reading(background, c)
				synctest.Wait()
				p.Send(begun)
				begin := time.Now()
				time.Sleep(cs.after - 1)
				p.WantNothing("the message still has a nanosecond to finish")
				p.WantClose(ClosePolicyViolation, "an unfinished message must end in silence too")
				p.Close()
				r := now(t, read, "")
				if d := r.at.Sub(begin); d != cs.after {
					t.Errorf("%s: after %v", name, d)
				}
				wantTimeout(t, r.err, cs.limit, cs.after, ClosePolicyViolation)
			})
		}
	}
}

// Whoever reads, and however: the deadline is the peer's.
func TestTimeoutsEveryWayOfReading(t *testing.T) {
	for name, read := range map[string]func(c *Conn) error{
		"AppendMessage": func(c *Conn) error { _, _, err := c.AppendMessage(background, nil); return err },
		"Drain":         func(c *Conn) error { return c.Drain(background) },
		"Messages": func(c *Conn) (end error) {
			for _, err := range c.Messages(background) {
				end = err
			}
			return end
		},
		"NextReader": func(c *Conn) error {
			r, err := c.NextReader(background)
			if err == nil {
				err = r.Discard()
			}
			return err
		},
		"Handler": func(c *Conn) error {
			serving(c, Handler{Message: echo})
			<-c.Done()
			return c.Err()
		},
	} {
		bubble(t, func(t *testing.T, role Role) {
			c, p, _ := setup{}.scripted(t, role)
			call := async(func() error { return read(c) })
			p.Send(`TEXT fin=0 "hel"`)
			time.Sleep(29 * time.Second)
			p.Send(`CONT fin=0 "lo"`)
			time.Sleep(time.Second)
			p.WantClose(ClosePolicyViolation, name)
			p.Close()
			wantTimeout(t, (<-call).err, "MessageTimeout", 30*time.Second, ClosePolicyViolation)
		})
	}
}

// Each message has its own time, and a slow but honest peer gets more of it.
func TestTimeoutsHonestPeers(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		cfg := Config{MinRate: 10}
		c, p, _ := setup{client: cfg, server: cfg}.scripted(t, role)
		read := reading(background, c)
		p.Send(`BINARY fin=0`)
		for range 120 { // twenty bytes a second, for two minutes
			time.Sleep(time.Second)
			p.Send(`CONT fin=0 x:00*20`)
		}
		p.Send(`CONT`)
		if r := now(t, read, ""); r.err != nil || len(r.p) != 2400 {
			t.Fatal(len(r.p), r.err)
		}
		for range 5 {
			read := reading(background, c)
			p.Send(`TEXT fin=0 "a"`)
			time.Sleep(25 * time.Second)
			p.Send(`CONT "b"`)
			if r := now(t, read, ""); r.err != nil {
				t.Fatal(r.err)
			}
			time.Sleep(time.Hour) // between messages time does not count
		}
	})
}

// The application's own time is not the peer's.
func TestTimeoutsSlowApplication(t *testing.T) {
	cfg := Config{MessageTimeout: 10 * time.Second, GapTimeout: 5 * time.Second, IdleTimeout: 20 * time.Second}
	bubble(t, func(t *testing.T, role Role) {
		c, p, _ := setup{client: cfg, server: cfg}.scripted(t, role)
		time.Sleep(time.Hour) // nobody reads
		p.Send(`TEXT fin=0 "hel"`)
		ctx, cancel := context.WithTimeout(background, 4*time.Second)
		defer cancel()
		if _, _, err := c.ReadMessage(ctx); err != context.DeadlineExceeded {
			t.Fatal(err)
		}
		time.Sleep(time.Hour) // nobody reads the rest
		r, err := c.NextReader(background)
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 3)
		if n, err := r.Read(buf); string(buf[:n]) != "hel" || err != nil {
			t.Fatal(n, err)
		}
		time.Sleep(time.Hour)
		p.Send(`CONT fin=0 "lo"`)
		if n, err := r.Read(buf); string(buf[:n]) != "lo" || err != nil {
			t.Fatal(n, err)
		}
		begin := time.Now()
		_, err = r.Read(buf)
		if d := time.Since(begin); d != 5*time.Second {
			t.Errorf("after %v of reading", d)
		}
		wantTimeout(t, err, "GapTimeout", 5*time.Second, ClosePolicyViolation)
	})
	bubble(t, func(t *testing.T, role Role) { // a handler may take its time as well
		c, p, _ := setup{client: cfg, server: cfg}.scripted(t, role)
		var handled int
		serving(c, Handler{Message: func(context.Context, *Conn, MessageType, []byte) error {
			time.Sleep(time.Hour)
			handled++
			return nil
		}})
		half := p.Frames(`TEXT "three"`)[0]
		p.Send(`TEXT "one"`, `TEXT "two"`)
		p.SendBytes(half[:4])
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		if handled != 2 {
			t.Errorf("%d messages were handled: %v", handled, c.Err())
		}
	})
}

// A limit that is switched off does not fire.
func TestTimeoutsSwitchedOff(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		cfg := Config{MessageTimeout: -1, GapTimeout: -1, IdleTimeout: -1, WriteTimeout: -1, KeepAlive: -1, MinRate: -1}
		c, p, _ := setup{client: cfg, server: cfg, pipe: wstest.PipeOptions{Window: 100}}.scripted(t, role)
		read := reading(background, c)
		p.Send(`TEXT fin=0 "hel"`)
		write := async(func() error { return c.WriteMessage(background, Binary, make([]byte, 1000)) })
		time.Sleep(10_000 * time.Hour)
		pending(t, read, "no deadline")
		pending(t, write, "no deadline")
		p.Send(`CONT "lo"`)
		if r := now(t, read, ""); string(r.p) != "hello" {
			t.Error(r.err)
		}
		p.WantMessage(wire.Binary, make([]byte, 1000))
		if r := now(t, write, ""); r.err != nil {
			t.Error(r.err)
		}
	})
}

func TestTimeoutsKeepAlive(t *testing.T) {
	cfg := Config{KeepAlive: 20 * time.Second}
	t.Run("pings a silent peer and closes one that stays so", func(t *testing.T) {
		bubble(t, func(t *testing.T, role Role) {
			c, p, _ := setup{client: cfg, server: cfg}.scripted(t, role)
			read := reading(background, c)
			begin := time.Now()
			f := p.Next()
			if f.Opcode != wire.Ping || time.Since(begin) != 20*time.Second {
				t.Fatalf("%v after %v", f, time.Since(begin))
			}
			p.Send(fmt.Sprintf("PONG x:%x", f.Payload))
			time.Sleep(3 * time.Second)
			if f = p.Next(); f.Opcode != wire.Ping {
				t.Fatal(f)
			}
			asked := time.Now()
			if reason := p.WantClose(CloseGoingAway, "the ping was not answered"); reason != "ping not answered" {
				t.Errorf("%q", reason)
			}
			if d := time.Since(asked); d != pongTimeoutDefault {
				t.Errorf("closed %v after the ping", d)
			}
			p.Close()
			wantTimeout(t, now(t, read, "").err, "PongTimeout", pongTimeoutDefault, CloseGoingAway)
		})
	})
	t.Run("does not ping one that talks", func(t *testing.T) {
		bubble(t, func(t *testing.T, role Role) {
			c, p, _ := setup{client: cfg, server: cfg}.scripted(t, role)
			drain := async(func() error { return c.Drain(background) })
			for range 20 {
				time.Sleep(15 * time.Second)
				p.Send(`TEXT "here"`)
			}
			p.WantNothing("it was never silent")
			pending(t, drain, "")
		})
	})
	t.Run("anything answers a ping", func(t *testing.T) {
		bubble(t, func(t *testing.T, role Role) {
			c, p, _ := setup{client: cfg, server: cfg}.scripted(t, role)
			drain := async(func() error { return c.Drain(background) })
			for range 5 {
				if f := p.Next(); f.Opcode != wire.Ping {
					t.Fatal(f)
				}
				time.Sleep(9 * time.Second)
				p.Send(`TEXT "busy, but alive"`)
			}
			pending(t, drain, "")
		})
	})
	t.Run("only while somebody reads", func(t *testing.T) {
		bubble(t, func(t *testing.T, role Role) {
			c, p, _ := setup{client: cfg, server: cfg}.scripted(t, role)
			f := p.Next()
			p.Send(fmt.Sprintf("PONG x:%x", f.Payload))
			time.Sleep(time.Hour)
			if c.Err() != nil {
				t.Fatal(c.Err())
			}
			p.Send(`TEXT "x"`)
			wantMessage(t, c, Text, []byte("x"))
		})
	})
	t.Run("without PongTimeout nobody minds", func(t *testing.T) {
		bubble(t, func(t *testing.T, role Role) {
			cfg := Config{KeepAlive: 20 * time.Second, PongTimeout: -1}
			c, p, _ := setup{client: cfg, server: cfg, allow: []string{"CT-01"}}.scripted(t, role)
			drain := async(func() error { return c.Drain(background) })
			for range 10 {
				begin := time.Now()
				if f := p.Next(); f.Opcode != wire.Ping || time.Since(begin) != 20*time.Second {
					t.Fatalf("%v after %v", f, time.Since(begin))
				}
			}
			pending(t, drain, "")
		})
	})
	t.Run("measures the round trip", func(t *testing.T) {
		bubble(t, func(t *testing.T, role Role) {
			c, p, _ := setup{client: cfg, server: cfg}.scripted(t, role)
			go c.Drain(background)
			f := p.Next()
			time.Sleep(30 * time.Millisecond)
			p.Send(fmt.Sprintf("PONG x:%x", f.Payload))
			synctest.Wait()
			if rtt := c.Stats().PingRTT; rtt != 30*time.Millisecond {
				t.Error(rtt)
			}
		})
	})
}

// A limit on control frames ends a flood and lets a heartbeat pass.
func TestTimeoutsControlRate(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		cfg := Config{ControlRate: 2}
		c, p, _ := setup{client: cfg, server: cfg}.scripted(t, role)
		read := reading(background, c)
		for range 30 {
			p.Send(`PING "beat"`)
			p.Want(`PONG "beat"`)
			time.Sleep(500 * time.Millisecond)
		}
		p.Send(`PONG repeat=4`) // the burst is twice the rate
		pending(t, read, "a burst is allowed")
		p.Send(`PONG`)
		r := now(t, read, "")
		var le *LimitError
		if !errors.As(r.err, &le) || le.Limit != "ControlRate" || le.Max != 2 {
			t.Error(r.err)
		}
		p.WantClose(ClosePolicyViolation, "")
	})
	bubble(t, func(t *testing.T, role Role) {
		cfg := Config{ControlRate: 1, ControlBurst: -1} // any number at once: no limit
		c, p, _ := setup{client: cfg, server: cfg}.scripted(t, role)
		read := reading(background, c)
		p.Send(`PONG repeat=1000`, `CLOSE code=1000`)
		p.WantClose(1000, "")
		p.Close()
		wantCloseError(t, now(t, read, "").err, 1000, true)
	})
}
