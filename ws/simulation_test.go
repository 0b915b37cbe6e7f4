package ws

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-ws/weft/internal/deflate"
	"github.com/weft-ws/weft/internal/wstest"
)

var (
	simSeeds = flag.Int("sim.seeds", 0, "how many seeds TestConcurrencySimulation runs; 0: 200, or 50 with the race detector")
	simFirst = flag.Uint64("sim.first", 1, "the first of them")
)

// A simulation is two ends of ours in a bubble, drawn from a seed: writers of
// every kind, sizes, fragment sizes, contexts that end, pings, windows, short
// reads, stalls, resets, closes. Whatever happens,
//
//   - the doctor finds nothing about what we send;
//   - a message that arrives is one that was sent, whole, once, and in its
//     writer's order, although readers' contexts end at random as well;
//   - a message whose write failed with the context's error never arrives;
//   - after a clean closing handshake nothing is missing that was written;
//   - both ends come to their end in time, and no goroutine is left: the bubble
//     would not end.
type simulation struct {
	t    *testing.T
	seed uint64
	rng  *rand.Rand
	ends [2]*simEnd
	wg   sync.WaitGroup // writers
	rude bool           // something may end the connection without a handshake
}

// A simEnd is one end, with what it has sent and received.
type simEnd struct {
	s    *simulation
	c    *Conn
	peer *simEnd

	mu      sync.Mutex
	sent    map[string]error // by ID; errPending until the result is known
	got     map[string]int
	last    map[string]int // by stream: number of the latest message
	closed  bool           // Close was called here: what the peer sends is dropped
	handled sync.WaitGroup
	streams int
}

var errPending = errors.New("no result yet")

func TestConcurrencySimulation(t *testing.T) {
	n := uint64(*simSeeds)
	if n == 0 {
		if n = 200; raceEnabled {
			n = 50
		}
	}
	for seed := *simFirst; seed < *simFirst+n; seed++ {
		synctest.Test(t, func(t *testing.T) {
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("repeat with -run TestConcurrencySimulation -sim.first %d -sim.seeds 1", seed)
				}
			})
			simulate(t, seed)
		})
	}
}

func simulate(t *testing.T, seed uint64) {
	s := &simulation{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 7))}
	set := setup{client: s.config(), server: s.config(), hold: true}
	set.pipe.Window = s.pick(1, 7, 100, 1000, 5000, 64<<10)
	set.pipe.Client, set.pipe.Server = s.faults(), s.faults()
	if s.chance(3) {
		set.deflate = &deflate.Params{
			ServerMaxWindowBits: s.pick(8, 9, 15), ClientMaxWindowBits: s.pick(9, 15),
			ServerNoContextTakeover: s.chance(2), ClientNoContextTakeover: s.chance(2),
		}
		set.client.Compression = &Compression{Threshold: s.pick(-1, 100)}
		set.server.Compression = &Compression{Threshold: s.pick(-1, 100)}
	}
	// A context that ends inside a frame drops TCP, and so do the faults. A
	// stalled peer cannot be answered in time.
	set.allow = append([]string{"CL-09", "CL-11", "CT-01"}, brokenOff...)
	cp, sp, o := set.newPipe(t)
	s.ends[0] = &simEnd{s: s, c: set.conn(cp, RoleClient)}
	s.ends[1] = &simEnd{s: s, c: set.conn(sp, RoleServer)}
	set.end(t, o, s.ends[0].c, s.ends[1].c)
	for i, e := range s.ends {
		e.peer = s.ends[1-i]
		e.sent, e.got, e.last = map[string]error{}, map[string]int{}, map[string]int{}
		e.startReader(rand.New(rand.NewPCG(seed, 100+uint64(i))))
	}
	for i, e := range s.ends {
		for w := range s.rng.IntN(5) {
			e.startWriter(rand.New(rand.NewPCG(seed, 1000+uint64(10*i+w))))
		}
	}
	var background sync.WaitGroup
	for _, pc := range []*wstest.PipeConn{cp, sp} {
		if s.chance(4) {
			at, d := s.duration(2*time.Second), s.duration(20*time.Second)
			background.Go(func() {
				time.Sleep(at)
				pc.Stall()
				time.Sleep(d)
				pc.Resume()
			})
		}
		background.Go(func() { // ends the stall that a fault began
			time.Sleep(time.Minute)
			pc.Resume()
		})
	}
	if s.chance(10) {
		s.rude = true
		e, at := s.ends[s.rng.IntN(2)], s.duration(3*time.Second)
		background.Go(func() {
			time.Sleep(at)
			e.c.CloseNow()
		})
	}
	if s.chance(2) { // somebody closes in the middle of it
		e, at := s.ends[s.rng.IntN(2)], s.duration(3*time.Second)
		background.Go(func() {
			time.Sleep(at)
			e.close()
		})
	}
	s.wg.Wait()
	order := []*simEnd{s.ends[0], s.ends[1]}
	if s.chance(2) {
		order[0], order[1] = order[1], order[0]
	}
	both := s.chance(2)
	begin := time.Now()
	if both {
		background.Go(order[1].close)
	}
	order[0].close()
	for _, e := range s.ends {
		<-e.c.Done()
	}
	if d := time.Since(begin); d > 4*time.Minute {
		s.errorf("the ends came to their end %v after Close", d)
	}
	background.Wait()
	for _, e := range s.ends {
		e.handled.Wait()
	}
	for _, e := range s.ends {
		e.check()
	}
}

func (s *simulation) errorf(format string, args ...any) {
	s.t.Errorf("seed %d: %s", s.seed, fmt.Sprintf(format, args...))
}

func (s *simulation) chance(oneIn int) bool                     { return s.rng.IntN(oneIn) == 0 }
func (s *simulation) pick(from ...int) int                      { return from[s.rng.IntN(len(from))] }
func (s *simulation) duration(most time.Duration) time.Duration { return upTo(s.rng, most) }

func upTo(rng *rand.Rand, most time.Duration) time.Duration {
	return time.Duration(rng.Int64N(int64(most)))
}

func (s *simulation) config() Config {
	cfg := Config{
		FragmentSize: s.pick(-1, 18, 40, 300, 5000, 0),
		SendQueue:    s.pick(1, 1000, 0),
		CloseTimeout: time.Duration(s.pick(1, 5)) * time.Second,
	}
	if s.chance(4) {
		cfg.KeepAlive = 3 * time.Second
	}
	if s.chance(4) {
		cfg.WriteTimeout = 2 * time.Second
	}
	return cfg
}

func (s *simulation) faults() wstest.Faults {
	var f wstest.Faults
	if s.chance(2) {
		f.ReadMax, f.Rand = s.pick(1, 3, 50, 2000), rand.New(rand.NewPCG(s.seed, s.rng.Uint64()))
	}
	f.Rate = s.pick(0, 0, 3000, 30_000, 300_000)
	at := int64(1 + s.rng.IntN(s.pick(20, 500, 100000)))
	switch s.rng.IntN(12) {
	case 0:
		f.ResetAt, s.rude = at, true
	case 1:
		f.CutAt, s.rude = at, true
	case 2:
		f.StallAt = at
	}
	return f
}

// close runs the closing handshake from this end.
func (e *simEnd) close() {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	_ = e.c.Close(CloseNormal, "")
}

// draft is a message of the given stream: what it is, and how long, can be told
// from its beginning.
func draft(id string, size int, text bool) []byte {
	p := fmt.Appendf(nil, "%s/%d|", id, size)
	if text {
		return append(p, letters(size)...)
	}
	return append(p, pattern(size, byte(len(id)))...)
}

// received takes note of a message.
func (e *simEnd) received(typ MessageType, p []byte) {
	head, _, ok := bytes.Cut(p, []byte("|"))
	f := strings.Split(string(head), "/")
	if !ok || len(f) != 4 {
		e.s.errorf("received what nobody sent: %.60q", p)
		return
	}
	id := strings.Join(f[:3], "/")
	number, _ := strconv.Atoi(f[2])
	size, _ := strconv.Atoi(f[3])
	if !bytes.Equal(p, draft(id, size, typ == Text)) {
		e.s.errorf("message %s is not as it was sent: %d bytes", id, len(p))
	}
	e.peer.mu.Lock()
	_, known := e.peer.sent[id]
	e.peer.mu.Unlock()
	if !known {
		e.s.errorf("message %s was never sent", id)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.got[id]++
	stream := f[0] + "/" + f[1]
	if number <= e.last[stream] {
		e.s.errorf("message %s came after number %d", id, e.last[stream])
	}
	e.last[stream] = number
}

// stream returns what names the messages of a new stream, one after the other.
func (e *simEnd) stream() func() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.streams++
	name, n := fmt.Sprintf("%v/%d", e.c.Role(), e.streams), 0
	return func() string {
		n++
		id := fmt.Sprintf("%s/%d", name, n)
		e.result(id, errPending)
		return id
	}
}

func (e *simEnd) result(id string, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.sent[id] = err
}

// startWriter writes in every way that there is.
func (e *simEnd) startWriter(rng *rand.Rand) {
	direct, queued, latest := e.stream(), e.stream(), e.stream()
	e.s.wg.Go(func() {
		for range 1 + rng.IntN(8) {
			time.Sleep(upTo(rng, 200*time.Millisecond))
			ctx, cancel := background, context.CancelFunc(func() {})
			if rng.IntN(6) == 0 {
				ctx, cancel = context.WithTimeout(background, upTo(rng, 400*time.Millisecond))
			}
			typ := MessageType(1 + rng.IntN(2))
			size := rng.IntN([]int{1, 100, 100, 3000, 40000}[rng.IntN(5)])
			switch rng.IntN(7) {
			case 0, 1:
				id := direct()
				e.result(id, e.c.WriteMessage(ctx, typ, draft(id, size, typ == Text)))
			case 2:
				id := direct()
				m, err := NewPrepared(typ, draft(id, size, typ == Text))
				if err == nil {
					err = e.c.WritePrepared(ctx, m)
				}
				e.result(id, err)
			case 3:
				id := direct()
				e.result(id, e.write(ctx, rng, typ, draft(id, size, typ == Text)))
			case 4:
				id := queued()
				o := Outgoing{Type: typ, Data: draft(id, size, typ == Text), Policy: Policy(rng.IntN(2)), Done: func(err error) { e.result(id, err) }}
				if err := e.c.Send(ctx, o); err != nil {
					e.result(id, err)
				}
			case 5:
				id := latest()
				o := Outgoing{Type: typ, Data: draft(id, size, typ == Text), Policy: Latest, Key: id[:strings.LastIndexByte(id, '/')], Done: func(err error) { e.result(id, err) }}
				if err := e.c.Send(ctx, o); err != nil {
					e.result(id, err)
				}
			case 6:
				_, _ = e.c.Ping(ctx)
			}
			cancel()
		}
	})
}

// write streams a message in pieces. One in eight is never closed, so that its
// context has to end it.
func (e *simEnd) write(ctx context.Context, rng *rand.Rand, typ MessageType, p []byte) error {
	abandon := rng.IntN(8) == 0
	if abandon {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Second)
		defer time.AfterFunc(time.Second, cancel)
	}
	w, err := e.c.NextWriter(ctx, typ)
	if err != nil {
		return err
	}
	for len(p) > 0 {
		n := 1 + rng.IntN(len(p))
		if _, err := w.Write(p[:n]); err != nil {
			return err
		}
		p = p[n:]
		switch rng.IntN(4) {
		case 0:
			if err := w.Flush(); err != nil {
				return err
			}
		case 1:
			time.Sleep(upTo(rng, 50*time.Millisecond))
		}
	}
	if abandon {
		return context.DeadlineExceeded
	}
	return w.Close()
}

// startReader reads in one of the ways that there are, to the end.
func (e *simEnd) startReader(rng *rand.Rand) {
	how := rng.IntN(5)
	if how == 0 {
		e.handled.Add(1)
		e.c.startServe(Handler{Message: func(ctx context.Context, c *Conn, typ MessageType, p []byte) error {
			e.received(typ, p)
			if rng.IntN(10) == 0 {
				time.Sleep(upTo(rng, 100*time.Millisecond))
			}
			return nil
		}}, e.handled.Done)
		return
	}
	e.handled.Go(func() {
		var buf []byte
		var held *MessageReader
		for {
			ctx, cancel := background, context.CancelFunc(func() {})
			if rng.IntN(2) == 0 {
				ctx, cancel = context.WithTimeout(background, time.Duration(rng.IntN(100))*time.Millisecond)
			}
			var typ MessageType
			var p []byte
			var err error
			switch {
			case how == 4 || held != nil:
				typ, p, err = e.readPieces(ctx, rng, &held, &buf)
			case how == 2:
				typ, p, err = e.c.AppendMessage(ctx, make([]byte, 0, rng.IntN(100)))
			default:
				typ, p, err = e.c.ReadMessage(ctx)
			}
			cancel()
			switch {
			case err == nil:
				e.received(typ, p)
			case !errors.Is(err, net.ErrClosed) && errors.Is(err, context.DeadlineExceeded):
			default:
				return
			}
		}
	})
}

// readPieces streams a message; what was read before a context ended is in buf.
func (e *simEnd) readPieces(ctx context.Context, rng *rand.Rand, held **MessageReader, buf *[]byte) (MessageType, []byte, error) {
	if *held == nil {
		r, err := e.c.NextReader(ctx)
		if err != nil {
			return 0, nil, err
		}
		*held, *buf = r, nil
	}
	r := *held
	r.SetContext(ctx)
	piece := make([]byte, 1+rng.IntN(100000))
	for {
		n, err := r.Read(piece)
		*buf = append(*buf, piece[:n]...)
		if err == io.EOF {
			*held = nil
			return r.Type, *buf, nil
		}
		if err != nil {
			return 0, nil, err
		}
	}
}

// check compares what this end has sent with what has arrived.
func (e *simEnd) check() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.peer.mu.Lock()
	defer e.peer.mu.Unlock()
	var ours, theirs *CloseError
	if !errors.As(e.c.Err(), &ours) || !errors.As(e.peer.c.Err(), &theirs) {
		e.s.errorf("the ends ended with %v and %v", e.c.Err(), e.peer.c.Err())
		return
	}
	st := e.c.Stats()
	clean := ours.Cause == nil && theirs.Cause == nil && ours.Received != nil && theirs.Received != nil
	if clean {
		// What was taken back is not counted. What came after the peer's Close is
		// not received.
		written := uint64(0)
		for _, err := range e.sent {
			if err == nil {
				written++
			}
		}
		if wire := uint64(e.c.nc.(*wstest.PipeConn).Sent()); st.Sent.Bytes != wire || st.Sent.Messages != written || st.Received.Bytes > e.peer.c.Stats().Sent.Bytes {
			e.s.errorf("%+v, but %d bytes are on the wire and %d messages were written", st, wire, written)
		}
	}
	for id, err := range e.sent {
		times := e.peer.got[id]
		switch {
		case times > 1:
			e.s.errorf("message %s came %d times", id, times)
		case err == errPending && ours.Cause == nil:
			e.s.errorf("message %s: its writer was never told what became of it", id)
		case err == nil && times == 0 && clean && !e.peer.closed:
			e.s.errorf("message %s was written and not received, but the connection was closed cleanly", id)
		case times == 1 && err != nil && err != errPending && !errors.Is(err, net.ErrClosed):
			e.s.errorf("message %s was received, but its writer was told %v", id, err)
		}
	}
	if !e.s.rude && ours.Code == CloseProtocolError {
		e.s.errorf("our own end was accused: %v", ours)
	}
}
