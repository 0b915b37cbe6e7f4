package ws

import (
	"bytes"
	"context"
	"runtime"
	"testing"

	"github.com/weft-ws/weft/internal/wstest"
)

// A callback loop waits where its stack is low, also in the middle of a message:
// further in, a goroutine would need a stack of twice the size.
func TestBuffersServeWaitsOutside(t *testing.T) {
	cnc, snc := tcpPair(t, 0)
	came := make(chan struct{}, 100)
	cfg := Config{Trace: &Trace{Bytes: func(dir Direction, _ []byte) {
		if dir == In {
			came <- struct{}{}
		}
	}}}
	c := newConn(snc, RoleServer, cfg, established{})
	got := make(chan []byte, 1)
	c.startServe(Handler{Message: func(_ context.Context, _ *Conn, _ MessageType, p []byte) error {
		got <- bytes.Clone(p)
		return nil
	}}, func() {})
	p := wstest.NewPeer(t, cnc, RoleClient)
	frames := p.Frames(`TEXT fin=0 "one "`, `CONT fin=0 "two "`, `CONT "three"`)
	for _, piece := range [][]byte{frames[0], frames[1][:9], frames[1][9:], frames[2][:3]} {
		p.SendBytes(piece)
		<-came
		stack := waitingLoop()
		if !bytes.Contains(stack, []byte("awaitInput")) || bytes.Contains(stack, []byte("collect")) {
			t.Errorf("the loop waits here:\n%s", stack)
		}
	}
	p.SendBytes(frames[2][3:])
	if p := <-got; string(p) != "one two three" {
		t.Errorf("got %q", p)
	}
	p.Close()
	<-c.Done()
}

// waitingLoop returns the stack of the callback loop, once it waits for the
// network.
func waitingLoop() []byte {
	for all := make([]byte, 1<<20); ; runtime.Gosched() {
		for stack := range bytes.SplitSeq(all[:runtime.Stack(all, true)], []byte("\n\n")) {
			head, _, _ := bytes.Cut(stack, []byte("\n"))
			if bytes.Contains(head, []byte("IO wait")) && bytes.Contains(stack, []byte("callbackLoop")) {
				return stack
			}
		}
	}
}
