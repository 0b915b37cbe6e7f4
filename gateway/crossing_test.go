package gateway

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weft-ws/weft/mcpws"
	"github.com/weft-ws/weft/mcpws/envelope"
)

// puppet is a backend whose one server is played by the test.
type puppet struct {
	t    *testing.T
	got  chan string // what the gateway writes
	says chan string
	over chan struct{}
	once sync.Once
}

func newPuppet(t *testing.T) *puppet {
	return &puppet{t: t, got: make(chan string, 100), says: make(chan string), over: make(chan struct{})}
}

func (s *puppet) String() string                             { return "puppet" }
func (s *puppet) Open(context.Context, Caller) (Peer, error) { return s, nil }

func (s *puppet) Read() ([]byte, error) {
	select {
	case m := <-s.says:
		return []byte(m), nil
	case <-s.over:
		return nil, errors.New("the show is over")
	}
}

func (s *puppet) Write(msg []byte) error {
	select {
	case s.got <- string(msg):
		return nil
	case <-s.over:
		return errors.New("the show is over")
	}
}

func (s *puppet) Close() error {
	s.once.Do(func() { close(s.over) })
	return nil
}

// gets returns the next message of the gateway, which has these parts.
func (s *puppet) gets(parts ...string) *envelope.Message {
	s.t.Helper()
	select {
	case raw := <-s.got:
		for _, part := range parts {
			if !strings.Contains(raw, part) {
				s.t.Errorf("the server got %s, want %s in it", raw, part)
			}
		}
		m, err := envelope.Parse([]byte(raw))
		if err != nil {
			s.t.Fatal(err)
		}
		return &m
	case <-time.After(time.Minute):
		s.t.Fatal("the server got nothing within a minute")
		return nil
	}
}

func (s *puppet) say(format string, args ...any) {
	s.t.Helper()
	select {
	case s.says <- fmt.Sprintf(format, args...):
	case <-time.After(time.Minute):
		s.t.Fatal("the gateway does not read")
	}
}

// A call that was given up may still be worked on. What the server asks, says
// or answers about it reaches nobody else, in each way in which a call can be
// given up; once the server has answered it, or a minute later, others can be
// asked again.
func TestJ7_GivenUpCallsReachNobodyElse(t *testing.T) {
	for _, turns := range []bool{true, false} {
		for name, giveUp := range map[string]func(h *hub, a *guest){
			"cancelled": func(h *hub, a *guest) {
				a.say(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}`)
			},
			"left": func(h *hub, a *guest) { h.leave(a.p) },
			"late": func(h *hub, a *guest) { h.sweep(time.Now().Add(h.limits.callTimeout)) },
		} {
			t.Run(fmt.Sprintf("%s, turns %v", name, turns), func(t *testing.T) {
				s := newPuppet(t)
				h := newTestHub(t, s, true)
				h.turns = turns
				h.limits.callTimeout = time.Minute
				a, b := newGuest(t, h), newGuest(t, h)
				a.call("1", "slow", `{}`)
				first := s.gets("tools/call")
				giveUp(h, a)
				s.gets("notifications/cancelled", `"requestId":`+string(first.IDBytes()))
				b.call("1", "quick", `{}`)
				second := s.gets("tools/call")

				// All of this may be about a's call.
				s.say(`{"jsonrpc":"2.0","id":"q","method":"sampling/createMessage","params":{"prompt":"the secret of a"}}`)
				s.gets(`"id":"q","error":{"code":-32603`, "cannot be told which client is meant")
				s.say(`{"jsonrpc":"2.0","method":"notifications/message","params":{"data":"the secret of a"}}`)
				s.say(`{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":%s,"progress":1}}`, first.IDBytes())
				// The late answer ends the doubt; it is for a, or for nobody.
				s.say(`{"jsonrpc":"2.0","id":%s,"result":{"text":"the secret of a"}}`, first.IDBytes())
				s.say(`{"jsonrpc":"2.0","id":"r","method":"sampling/createMessage","params":{"prompt":"for b"}}`)
				b.wants("for b") // and not the secret
				s.say(`{"jsonrpc":"2.0","id":%s,"result":{"text":"done"}}`, second.IDBytes())
				b.wants(`"id":1,"result"`, "done")
				if len(b.told) != 0 {
					t.Errorf("b was told %s", b.hears())
				}
			})
		}
	}
}

// A server that never answers what was given up is not doubted for ever, and
// a client's own calls are never in doubt because of its others.
func TestJ7_DoubtEnds(t *testing.T) {
	s := newPuppet(t)
	h := newTestHub(t, s, true)
	h.turns = true
	a, b := newGuest(t, h), newGuest(t, h)
	a.call("1", "slow", `{}`)
	s.gets("tools/call")
	a.say(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}`)
	s.gets("notifications/cancelled")
	a.call("2", "ask", `{}`)
	own := s.gets("tools/call")
	s.say(`{"jsonrpc":"2.0","id":1,"method":"sampling/createMessage","params":{"prompt":"for a"}}`)
	a.wants("for a")
	s.say(`{"jsonrpc":"2.0","id":%s,"result":{}}`, own.IDBytes())
	a.wants(`"id":2,"result"`)

	b.call("1", "ask", `{}`)
	s.gets("tools/call")
	s.say(`{"jsonrpc":"2.0","id":2,"method":"sampling/createMessage","params":{}}`)
	s.gets(`"id":2,"error"`)
	h.sweep(time.Now().Add(cancelledTime))
	s.say(`{"jsonrpc":"2.0","id":3,"method":"sampling/createMessage","params":{"prompt":"for b"}}`)
	b.wants("for b")
}

// What is remembered of calls that were given up is bounded; beyond, nothing
// can be attributed for a while, and nothing is.
func TestGivenUpCallsAreBounded(t *testing.T) {
	s := newPuppet(t)
	h := newTestHub(t, s, true)
	h.limits.calls = ghostsMax + 10
	a, b := newGuest(t, h), newGuest(t, h)
	for i := range ghostsMax + 10 {
		a.call(fmt.Sprint(i), "slow", `{}`)
		s.gets("tools/call")
		a.say(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":%d}}`, i)
		s.gets("notifications/cancelled")
	}
	h.mu.Lock()
	n := len(h.ghosts)
	h.mu.Unlock()
	if n > ghostsMax {
		t.Errorf("%d are remembered", n)
	}
	b.call("1", "ask", `{}`)
	s.gets("tools/call")
	s.say(`{"jsonrpc":"2.0","id":1,"method":"sampling/createMessage","params":{}}`)
	s.gets(`"id":1,"error"`)
	h.sweep(time.Now().Add(cancelledTime))
	s.say(`{"jsonrpc":"2.0","id":2,"method":"sampling/createMessage","params":{"prompt":"for b"}}`)
	b.wants("for b")
}

// A server cannot speak as the gateway about how a session is resumed.
func TestServerCannotForgeTheSessionNote(t *testing.T) {
	both(t, func(t *testing.T, shared bool) {
		s := newPuppet(t)
		g := newGuest(t, newTestHub(t, s, shared))
		g.call("1", "x", `{}`)
		m := s.gets("tools/call")
		s.say(`{"jsonrpc":"2.0","method":%q,"params":{"session":"x","resume":"forged","received":0,"grace":1}}`, mcpws.SessionMethod)
		s.say(`{"jsonrpc":"2.0","id":%s,"result":{}}`, m.IDBytes())
		g.wants(`"id":1,"result"`)
	})
}
