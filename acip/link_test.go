package acip_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-ws/weft/acip"
	"github.com/weft-ws/weft/ws"
)

// wire is a Conn in a test: what is written waits to be taken, what is to be
// read waits to be put in.
type wire struct {
	tr      acip.Transport
	in      chan []byte
	out     chan []byte
	once    sync.Once
	closed  chan struct{}
	code    ws.CloseCode
	reason  string
	aborted bool
}

func newWire(tr acip.Transport, room int) *wire {
	return &wire{tr: tr, in: make(chan []byte, 16), out: make(chan []byte, room), closed: make(chan struct{})}
}

func (w *wire) Transport() acip.Transport { return w.tr }

func (w *wire) ReadChunk() ([]byte, error) {
	select {
	case b := <-w.in:
		return b, nil
	case <-w.closed:
		return nil, io.EOF
	}
}

func (w *wire) WritePacket(p []byte) error {
	select {
	case w.out <- append([]byte(nil), p...):
		return nil
	case <-w.closed:
		return net.ErrClosed
	}
}

func (w *wire) Fragment()         {}
func (w *wire) Fragments() uint64 { return 0 }
func (w *wire) Close(code ws.CloseCode, reason string) error {
	w.once.Do(func() { w.code, w.reason = code, reason; close(w.closed) })
	return nil
}
func (w *wire) Abort() error {
	w.once.Do(func() { w.aborted = true; close(w.closed) })
	return nil
}
func (w *wire) RemoteAddr() net.Addr { return &net.TCPAddr{} }

// handler lets a test be told.
type handler struct {
	established func(*acip.Session) error
	packet      func(*acip.Session, acip.Packet) error
}

func (h handler) Established(s *acip.Session) error {
	if h.established != nil {
		return h.established(s)
	}
	return nil
}

func (h handler) Packet(s *acip.Session, p acip.Packet) error {
	if h.packet != nil {
		return h.packet(s, p)
	}
	return nil
}

// sessions runs a client against a server session over two wires joined
// together, inside a bubble, until the test is over.
func sessions(t *testing.T, ch, sh handler) (client, server *acip.Session, end func()) {
	t.Helper()
	cw, sw := newWire(acip.WebSocket, 0), newWire(acip.WebSocket, 0)
	cw.in, sw.in = sw.out, cw.out
	client = acip.NewSession(cw, acip.NewClient(acip.WebSocket, acip.ClientConfig{}), ch)
	server = acip.NewSession(sw, acip.NewServer(acip.WebSocket, acip.ServerConfig{}), sh)
	var wg sync.WaitGroup
	wg.Go(func() { _ = client.Run(t.Context()) })
	wg.Go(func() { _ = server.Run(t.Context()) })
	synctest.Wait()
	if !client.Established() || !server.Established() {
		t.Fatal("no session")
	}
	return client, server, func() { _ = cw.Abort(); _ = sw.Abort(); wg.Wait() }
}

// opened decrypts what a link wrote.
type opened struct {
	t *testing.T
	o *acip.Opener
	n uint64 // last counter
}

func (o *opened) next(w *wire) acip.Packet {
	o.t.Helper()
	var b []byte
	select {
	case b = <-w.out:
	case <-time.After(time.Minute):
		o.t.Fatal("nothing is written")
	}
	p, _, err := acip.Parse(b)
	if err != nil {
		o.t.Fatal(err)
	}
	if c := binary.BigEndian.Uint64(p.Payload[16:]); c != o.n+1 {
		o.t.Fatalf("counter %d after %d", c, o.n)
	}
	o.n++
	if p, err = o.o.Open(p.Payload); err != nil {
		o.t.Fatal(err)
	}
	return p
}

// blocked returns a server session whose client has stopped reading, with one
// packet stuck on its way to the wire.
func blocked(t *testing.T) (s *acip.Session, w *wire, o *opened, end func() error) {
	t.Helper()
	w = newWire(acip.WebSocket, 8) // room for the handshake
	s = acip.NewSession(w, acip.NewServer(acip.WebSocket, acip.ServerConfig{}), handler{})
	done := make(chan error, 1)
	go func() { done <- s.Run(t.Context()) }()
	synctest.Wait()
	c := newEnd(t, acip.NewClient(acip.WebSocket, acip.ClientConfig{}))
	c.Start(time.Now())
	for range 2 {
		p, _, err := acip.Parse(<-w.out)
		if err != nil {
			t.Fatal(err)
		}
		out, err := c.take(p)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range out {
			w.in <- p.AppendTo(nil)
		}
	}
	<-w.out // HANDSHAKE_COMPLETE
	synctest.Wait()
	key, _ := c.Key()
	for i := range 9 { // eight fill the room, the ninth is stuck
		if err := s.Link.Control(acip.Out{Type: acip.TypePong, Sealed: true}); err != nil {
			t.Fatal(i, err)
		}
	}
	synctest.Wait()
	return s, w, &opened{t: t, o: acip.NewOpener(key, [16]byte{})}, func() error { return <-done }
}

// R6: queues that were too short dropped control packets, or the connection.
// Video gives way to newer video and is counted; of audio only the last few
// wait; control is never dropped, keeps its order and never stands behind
// video; and what waits is bounded in bytes.
func TestR06_WhatWaitsIsBoundedByPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, w, o, end := blocked(t)
		var pool acip.BufferPool
		for i := range byte(20) {
			frame, sound := pool.Get(), pool.Get()
			frame.B = (&acip.ASCIIFrame{Width: 1, Height: 1, Text: []byte{'a' + i}}).AppendTo(frame.B)
			sound.B = (&acip.AudioBatch{Batches: uint32(i), Rate: 48000, Channels: 1}).AppendTo(sound.B)
			s.Link.Video(acip.TypeASCIIFrame, frame)
			s.Link.Audio(acip.TypeAudioBatch, sound)
			if err := s.Link.Control(acip.Out{Type: acip.TypeText, Payload: acip.Text{Line: string(rune('a' + i))}.AppendTo(nil), Sealed: true}); err != nil {
				t.Fatal(err)
			}
		}
		for range 9 {
			if p := o.next(w); p.Type != acip.TypePong {
				t.Fatalf("first %s", p.Type)
			}
		}
		for i := range 20 {
			p := o.next(w)
			if p.Type != acip.TypeText || p.Payload[len(p.Payload)-1] != byte('a'+i) {
				t.Fatalf("control packet %d is %s %x", i, p.Type, p.Payload)
			}
		}
		for i := range 8 { // the last eight
			p := o.next(w)
			if b, err := acip.ParseAudioBatch(p.Payload, nil); p.Type != acip.TypeAudioBatch || err != nil || b.Batches != uint32(12+i) {
				t.Fatalf("packet of sound %d is %s %x, %v", i, p.Type, p.Payload, err)
			}
		}
		p := o.next(w) // the newest
		if f, err := acip.ParseASCIIFrame(p.Payload); p.Type != acip.TypeASCIIFrame || err != nil || string(f.Text) != "t" {
			t.Fatalf("the frame is %s %x, %v", p.Type, p.Payload, err)
		}
		synctest.Wait()
		if len(w.out) != 0 {
			t.Error("more comes out")
		}
		st := s.Link.Stats()
		if st.VideoDropped != 19 || st.AudioDropped != 12 {
			t.Errorf("%d frames and %d packets of sound were dropped; want 19 and 12", st.VideoDropped, st.AudioDropped)
		}
		_ = w.Abort()
		_ = end() // it was aborted
	})
}

func TestR06_APeerThatDoesNotReadEndsItsOwnSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, w, _, end := blocked(t)
		line := acip.Out{Type: acip.TypeText, Payload: make([]byte, 1000), Sealed: true}
		n := 0
		for ; n < 5000 && s.Link.Control(line) == nil; n++ {
		}
		if n < 900 || n > 1100 {
			t.Fatalf("%d packets of 1,000 bytes wait; the bound is 1 MiB", n)
		}
		began := time.Now()
		if err := end(); err == nil || !strings.Contains(err.Error(), "does not read") {
			t.Errorf("the session ends with %v", err)
		}
		if d := time.Since(began); d > 2*time.Second || !w.aborted {
			t.Errorf("it ended after %v, aborted %v", d, w.aborted)
		}
	})
}

// R9: sends once waited for a loop that looked every 50 ms. Here a packet is on
// the wire before any time has passed.
func TestR09_SendingWakesTheWriterAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []time.Time
		client, _, end := sessions(t, handler{}, handler{packet: func(_ *acip.Session, p acip.Packet) error {
			if p.Type == acip.TypeLeave {
				got = append(got, time.Now())
			}
			return nil
		}})
		defer end()
		for range 100 {
			time.Sleep(77 * time.Millisecond) // idle
			now := time.Now()
			if err := client.Link.Control(acip.Out{Type: acip.TypeLeave, Sealed: true}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if len(got) == 0 || got[len(got)-1] != now {
				t.Fatalf("not there at once: %v", now)
			}
		}
		if w := client.Link.Stats().WaitMax; w != 0 {
			t.Errorf("a packet waited %v", w)
		}
	})
}

// R23: the C code drew nonces outside its send lock, so they could overtake
// each other. Eight goroutines send; the counters on the wire are 1, 2, 3, ….
func TestR23_NoncesAreDrawnAtTheWire(t *testing.T) {
	w := newWire(acip.WebSocket, 4096)
	var hs handler
	s := acip.NewSession(w, acip.NewServer(acip.WebSocket, acip.ServerConfig{}), hs)
	done := make(chan error, 1)
	go func() { done <- s.Run(t.Context()) }()
	c := newEnd(t, acip.NewClient(acip.WebSocket, acip.ClientConfig{}))
	c.Start(time.Now())
	for !c.ready {
		p, _, err := acip.Parse(<-w.out)
		if err != nil {
			t.Fatal(err)
		}
		out, err := c.take(p)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range out {
			w.in <- p.AppendTo(nil)
		}
	}
	const senders, each = 8, 100
	var wg sync.WaitGroup
	var pool acip.BufferPool
	for i := range senders {
		wg.Go(func() {
			for range each {
				b := pool.Get()
				switch i % 3 {
				case 0:
					b.Release()
					if err := s.Link.Control(acip.Out{Type: acip.TypePong, Sealed: true}); err != nil {
						t.Error(err)
					}
				case 1:
					b.B = (&acip.ASCIIFrame{Width: 1, Height: 1, Text: []byte("x")}).AppendTo(b.B)
					s.Link.Video(acip.TypeASCIIFrame, b)
				default:
					b.B = (&acip.AudioBatch{Batches: 1, Rate: 48000, Channels: 1}).AppendTo(b.B)
					s.Link.Audio(acip.TypeAudioBatch, b)
				}
			}
		})
	}
	wg.Wait()
	if err := s.Link.Control(acip.Out{Type: acip.TypeClearConsole, Sealed: true}); err != nil {
		t.Fatal(err)
	}
	key, _ := c.Key()
	o := &opened{t: t, o: acip.NewOpener(key, [16]byte{})}
	pongs := 0
	for {
		p := o.next(w) // checks the counter
		if p.Type == acip.TypePong {
			pongs++
		}
		if p.Type == acip.TypeClearConsole {
			break
		}
	}
	if pongs != 3*each {
		t.Errorf("%d of %d control packets", pongs, 3*each)
	}
	_ = w.Abort()
	<-done
}

// R24: the C client's transport leaves a mutex and a queue uninitialised. A
// session may be used in any order before it runs.
func TestR24_NothingDependsOnTheOrderOfFirstUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var pool acip.BufferPool
		for _, use := range []func(*acip.Session){
			func(s *acip.Session) { s.Link.Video(acip.TypeASCIIFrame, pool.Get()) },
			func(s *acip.Session) { s.Link.Audio(acip.TypeAudioBatch, pool.Get()) },
			func(s *acip.Session) { s.Link.Stats() },
			func(s *acip.Session) { s.Received() },
			func(s *acip.Session) { s.Machine(func(m acip.Machine) { m.Deadline() }) },
			func(s *acip.Session) { _ = s.Conn().Abort() },
		} {
			w := newWire(acip.WebSocket, 8)
			s := acip.NewSession(w, acip.NewServer(acip.WebSocket, acip.ServerConfig{}), handler{})
			use(s)
			done := make(chan error, 1)
			go func() { done <- s.Run(t.Context()) }()
			synctest.Wait()
			_ = w.Abort()
			synctest.Wait()
			select {
			case <-done:
			default:
				t.Fatal("the session does not end")
			}
		}
	})
}

// A panic in a handler ends its session and nothing else.
func TestAFaultEndsOneSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cw, sw := newWire(acip.WebSocket, 0), newWire(acip.WebSocket, 0)
		cw.in, sw.in = sw.out, cw.out
		client := acip.NewSession(cw, acip.NewClient(acip.WebSocket, acip.ClientConfig{}), handler{})
		server := acip.NewSession(sw, acip.NewServer(acip.WebSocket, acip.ServerConfig{}), handler{established: func(*acip.Session) error { panic("oops") }})
		result := make(chan error, 1)
		go func() { _ = client.Run(t.Context()) }()
		go func() { result <- server.Run(t.Context()) }()
		err := <-result
		var f *acip.Fault
		if !errors.As(err, &f) || f.Value != "oops" || sw.code != ws.CloseInternalError {
			t.Fatalf("%v, close code %d", err, sw.code)
		}
		_ = cw.Abort()
		synctest.Wait()
	})
}

// The peer is told why: a violation goes out as ERROR_MESSAGE before the
// connection is closed with 1008.
func TestThePeerIsToldWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, w, o, _ := blocked(t)
		for range 9 {
			o.next(w)
		}
		w.in <- acip.Packet{Type: acip.TypePing}.AppendTo(nil) // in the clear
		p := o.next(w)
		m, err := acip.ParseErrorMessage(p.Payload)
		if err != nil || p.Type != acip.TypeError || m.Code != acip.CodeProtocol {
			t.Fatalf("%s %+v %v", p.Type, m, err)
		}
		synctest.Wait()
		if w.code != ws.ClosePolicyViolation || w.reason == "" {
			t.Fatalf("closed with %d %q", w.code, w.reason)
		}
		if s.Link.Control(acip.Out{Type: acip.TypePong, Sealed: true}) == nil {
			t.Error("the link takes packets after the end")
		}
	})
}

func TestBufferReleasedTooOften(t *testing.T) {
	var pool acip.BufferPool
	b := pool.Get()
	b.Retain().Release()
	b.Release()
	defer func() {
		if recover() == nil {
			t.Error("nobody noticed")
		}
	}()
	b.Release()
}
