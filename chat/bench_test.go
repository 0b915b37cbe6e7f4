package chat

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/weft-ws/weft/acip"
	"github.com/weft-ws/weft/chat/render"
	"github.com/weft-ws/weft/chat/term"
	"github.com/weft-ws/weft/ws"
)

// numbered is a source of 320×240 pictures whose colour is their number, so
// that a viewer knows which one it sees.
type numbered struct {
	mu   sync.Mutex
	n    int
	sent []time.Time
}

func (s *numbered) Next(_ context.Context, dst []byte) ([]byte, render.Size, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n++
	s.sent = append(s.sent, time.Now())
	at := len(dst)
	const size = 3 * 320 * 240
	if cap(dst) < at+size {
		dst = append(make([]byte, 0, at+size), dst...)
	}
	dst = dst[:at+size]
	p := dst[at:]
	// Bright enough for a visible character, so that its colour is written.
	p[0], p[1], p[2] = 255, byte(s.n>>8), byte(s.n)
	for k := 3; k < len(p); k *= 2 {
		copy(p[k:], p[:k])
	}
	return dst, render.Size{W: 320, H: 240}, nil
}

func (*numbered) Close() error { return nil }

// seen returns the number of the picture that a frame shows first.
func seen(text []byte) (int, bool) {
	const mark = "\x1b[38;2;255;"
	for i := 0; i+len(mark) < len(text); i++ {
		if string(text[i:i+len(mark)]) != mark {
			continue
		}
		var v [2]int
		k := i + len(mark)
		for j := range v {
			end := k
			for end < len(text) && text[end] >= '0' && text[end] <= '9' {
				end++
			}
			n, err := strconv.Atoi(string(text[k:end]))
			if err != nil {
				return 0, false
			}
			v[j], k = n, end+1
		}
		return v[0]<<8 | v[1], true
	}
	return 0, false
}

// result is what a call of some seconds measured.
type result struct {
	fps      float64       // frames a second of the client that got the fewest
	gap      time.Duration // longest time between two frames
	p50, p99 time.Duration // from capture to the first client's own screen
	cpu      float64       // share of one core per client, server and client together
	dropped  float64       // share of the pictures that gave way to newer ones
	others   float64       // share of all cores that other processes took; NaN where the system does not tell
}

// call lets n clients send and see each other for a while.
func call(b *testing.B, transport string, n, fps int, fragments FragmentPolicy, long time.Duration) (r result) {
	s := newSite(b, ServerConfig{Fragments: fragments, Clients: 64, Room: 64, Address: 64})
	url := s.urls()[transport]
	first := &numbered{}
	var mu sync.Mutex
	var delays []time.Duration
	measuring := false
	var guests []*Client
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	for i := range n {
		cfg := s.config(url)
		cfg.FPS, cfg.Fragments = fps, fragments
		cfg.Capabilities.FPS = uint8(fps)
		cfg.Source = NewPattern()
		screen := term.NewScreen(io.Discard, 80, 25)
		if err := screen.Open(); err != nil {
			b.Fatal(err)
		}
		cfg.Events.Frame = func(f acip.ASCIIFrame) { _ = screen.Show(f.Text) }
		if i == 0 {
			cfg.Source = first
			last := 0
			cfg.Events.Frame = func(f acip.ASCIIFrame) {
				_ = screen.Show(f.Text) // io.Discard takes everything
				now := time.Now()
				if k, ok := seen(f.Text); ok && k != last && k > 0 {
					last = k
					first.mu.Lock()
					if k > len(first.sent) { // another client's picture stands first
						first.mu.Unlock()
						return
					}
					at := first.sent[k-1]
					first.mu.Unlock()
					mu.Lock()
					if measuring {
						delays = append(delays, now.Sub(at))
					}
					mu.Unlock()
				}
			}
		}
		c, err := Dial(ctx, cfg)
		if err != nil {
			b.Fatal(err)
		}
		guests = append(guests, c)
		established := make(chan struct{})
		c.cfg.Events.Established = func(*Client) { close(established) }
		wg.Go(func() {
			if err := c.Run(ctx); err != nil && ctx.Err() == nil {
				b.Errorf("client %d of %d: %v", i, n, err)
			}
		})
		<-established
	}
	<-time.After(time.Second + time.Duration(n)*25*time.Millisecond) // until all are in step
	before := make([]uint64, n)
	for i, c := range guests {
		before[i] = c.Stats().Frames
		c.gapMax.Store(0)
	}
	mu.Lock()
	measuring = true
	mu.Unlock()
	cpu, all, began := cpuTime(), busyTime(), time.Now()
	<-time.After(long) // what is measured
	took := time.Since(began)
	used := cpuTime() - cpu
	r.cpu = used.Seconds() / took.Seconds() / float64(n)
	r.others = math.NaN()
	if all > 0 {
		r.others = max((busyTime()-all-used).Seconds(), 0) / took.Seconds() / float64(runtime.NumCPU())
	}
	r.fps = math.Inf(1)
	var captured, dropped uint64
	for i, c := range guests {
		st := c.Stats()
		r.fps = min(r.fps, float64(st.Frames-before[i])/took.Seconds())
		r.gap = max(r.gap, st.GapMax)
		captured, dropped = captured+st.Captured, dropped+st.Sent.VideoDropped
	}
	if r.fps == 0 && !*quick {
		b.Errorf("%d clients over %s at %d frames/s: one of them got no frame in %v", n, transport, fps, took)
	}
	r.dropped = float64(dropped) / float64(captured)
	mu.Lock()
	if slices.Sort(delays); len(delays) > 0 {
		r.p50, r.p99 = delays[len(delays)/2], delays[len(delays)*99/100]
	}
	mu.Unlock()
	cancel()
	wg.Wait()
	if err := s.shutdown(); err != nil {
		b.Fatal(err)
	}
	return r
}

// busyTime is what all processes together have used of all cores, and what the
// host withheld, on Linux; 0 elsewhere. The kernel counts in hundredths of a
// second.
func busyTime() time.Duration {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	var name string
	var user, nice, system, idle, wait, irq, soft, steal int64
	if _, err := fmt.Sscan(string(b), &name, &user, &nice, &system, &idle, &wait, &irq, &soft, &steal); err != nil || name != "cpu" {
		return 0
	}
	return time.Duration(user+nice+system+irq+soft+steal) * 10 * time.Millisecond
}

func (r result) report(b *testing.B) {
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(r.fps, "fps")
	b.ReportMetric(float64(r.gap)/1e6, "gap-ms")
	b.ReportMetric(float64(r.p50)/1e6, "p50-ms")
	b.ReportMetric(float64(r.p99)/1e6, "p99-ms")
	b.ReportMetric(100*r.cpu, "cpu%/client")
	b.ReportMetric(100*r.dropped, "dropped%")
}

// BenchmarkCall is a call on loopback: every client sends pictures of 320×240
// and sees all at 80×24 in truecolor; server and clients share the machine. An
// operation is five seconds long: use -benchtime 1x.
func BenchmarkCall(b *testing.B) {
	for _, c := range []struct{ clients, fps int }{{1, 30}, {4, 30}, {9, 30}, {32, 30}, {2, 60}, {9, 60}} {
		for _, tr := range []string{"ws", "tcp"} {
			b.Run(fmt.Sprintf("%s/clients=%d/fps=%d", tr, c.clients, c.fps), func(b *testing.B) {
				for b.Loop() {
					call(b, tr, c.clients, c.fps, FragmentNever, 5*time.Second).report(b)
				}
			})
		}
	}
	for name, p := range map[string]FragmentPolicy{"whole": FragmentNever, "fragments": FragmentAlways} {
		b.Run("ws/clients=4/fps=60/"+name, func(b *testing.B) {
			for b.Loop() {
				call(b, "ws", 4, 60, p, 5*time.Second).report(b)
			}
		})
	}
}

// BenchmarkTransports compares WebSocket with TCP in ten rounds, each of both
// in turns: how many pictures a second arrive, encrypted on one end and
// decrypted on the other, when they are sent as fast as it goes. The ratio comes
// with a 95 percent interval over the rounds.
func BenchmarkTransports(b *testing.B) {
	for b.Loop() {
		var ratios []float64
		var total [2]float64
		for round := range 10 {
			var rate [2]float64
			for k := range 2 {
				i := (round + k) % 2
				rate[i] = flood(b, []string{"ws", "tcp"}[i], false, time.Second)
				total[i] += rate[i]
			}
			ratios = append(ratios, rate[0]/rate[1])
		}
		mean, half := interval(ratios)
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(total[0]/10, "ws-pictures/s")
		b.ReportMetric(total[1]/10, "tcp-pictures/s")
		b.ReportMetric(mean, "ws/tcp")
		b.ReportMetric(half, "±")
	}
}

// interval returns the mean and half the width of its 95 percent interval, by
// Student's t for ten values.
func interval(v []float64) (mean, half float64) {
	for _, x := range v {
		mean += x / float64(len(v))
	}
	var ss float64
	for _, x := range v {
		ss += (x - mean) * (x - mean)
	}
	const t9 = 2.262
	return mean, t9 * math.Sqrt(ss/float64(len(v)-1)/float64(len(v)))
}

// flood sends encrypted pictures one after the other, to an end that decrypts
// and checks them, and returns how many a second arrive.
func flood(b *testing.B, transport string, fragments bool, long time.Duration) float64 {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	cfg := acip.WebSocketConfig()
	accepted := make(chan acip.Conn, 1)
	go func() {
		nc, err := l.Accept()
		if err != nil {
			return
		}
		if transport == "tcp" {
			accepted <- acip.OnTCP(nc)
		} else {
			accepted <- acip.OnWebSocket(ws.NewConn(nc, ws.RoleServer, &cfg))
		}
	}()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	from := acip.OnTCP(nc)
	if transport == "ws" {
		from = acip.OnWebSocket(ws.NewConn(nc, ws.RoleClient, &cfg))
	}
	if fragments {
		from.Fragment()
	}
	to := <-accepted
	sealer, err := acip.NewSealer(acip.Key{1}, rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	n := 0
	end := time.Now().Add(long)
	received := make(chan error, 1)
	go func() {
		var r acip.Reassembler
		o := acip.NewOpener(acip.Key{1}, [16]byte{})
		for {
			chunk, err := to.ReadChunk()
			if err != nil {
				received <- nil
				return
			}
			for len(chunk) > 0 {
				p, k, ok, err := r.Next(chunk)
				if err == nil && ok {
					_, err = o.Open(p.Payload)
					if time.Now().Before(end) {
						n++
					}
				}
				if err != nil {
					received <- err
					return
				}
				chunk = chunk[k:]
			}
		}
	}()
	img := acip.ImageFrame{Width: 320, Height: 240, Format: 1, Pixels: make([]byte, 3*320*240)}
	p := acip.Packet{Type: acip.TypeImageFrame, Payload: img.AppendTo(nil)}
	var wire []byte
	for time.Now().Before(end) {
		if wire, err = sealer.Seal(wire[:0], p); err != nil {
			b.Fatal(err)
		}
		if err := from.WritePacket(wire); err != nil {
			b.Fatal(err)
		}
	}
	_ = from.Abort()
	if err := <-received; err != nil {
		b.Fatal(err)
	}
	_ = to.Abort()
	return float64(n) / long.Seconds()
}
