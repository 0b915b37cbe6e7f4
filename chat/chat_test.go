package chat

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-ws/weft/acip"
	"github.com/weft-ws/weft/chat/decode"
	"github.com/weft-ws/weft/chat/render"
	"github.com/weft-ws/weft/chat/term"
	"github.com/weft-ws/weft/ws"
)

func TestRoomsAreApart(t *testing.T) {
	s := newSite(t, ServerConfig{Names: true})
	a, b := s.config(s.ws+"/tea"), s.config(s.ws+"/tea")
	a.Name, b.Name = "mia", "leo"
	mia, leo := join(t, a), join(t, b)
	stranger := join(t, s.config(s.tcp)) // the default room
	eventually(t, "both names are in mia's picture", func() bool {
		f := string(mia.frame())
		return strings.Contains(f, "mia") && strings.Contains(f, "leo")
	})
	if f := string(stranger.frame()); strings.Contains(f, "mia") {
		t.Error("the stranger sees mia")
	}
	if err := mia.Say("grüße\x1b[2J"); err != nil {
		t.Fatal(err)
	}
	for _, g := range []*guest{mia, leo} {
		if x := <-g.texts; x.Name != "mia" || x.Line != "grüße\ufffd[2J" || x.Client == 0 {
			t.Errorf("got %+v", x)
		}
	}
	if err := stranger.Say("anybody?"); err != nil {
		t.Fatal(err)
	}
	if x := <-stranger.texts; !strings.HasPrefix(x.Name, "guest-") {
		t.Errorf("a stranger is called %q", x.Name)
	}
	if len(mia.texts)+len(leo.texts) != 0 {
		t.Error("lines pass from room to room")
	}
	leo.leave()
	eventually(t, "mia is alone", func() bool { st := <-mia.states; return st.Connected == 1 })
	eventually(t, "leo's picture is gone", func() bool { return !strings.Contains(string(mia.frame()), "leo") })
	if _, err := tryJoin(t, s.config(s.ws+"/no%20such")); err == nil {
		t.Error("a room with a space in its name")
	}
}

// The terminal of each client decides what it gets, and may change.
func TestEveryClientGetsItsOwnLook(t *testing.T) {
	s := newSite(t, ServerConfig{})
	sender := join(t, s.config(s.ws))
	sender.frame()
	cfg := s.config(s.tcp)
	cfg.Source = nil
	cfg.Capabilities = capabilities(40, 12)
	cfg.Capabilities.Level = acip.Color256
	viewer := join(t, cfg)
	f := viewer.frame()
	if c, r := term.Size(f); c != 32 || r != 12 || !bytes.Contains(f, []byte("\x1b[38;5;")) || bytes.Contains(f, []byte("38;2;")) {
		t.Errorf("%d×%d: %.100q", c, r, f)
	}
	viewer.Resize(100, 30)
	eventually(t, "the picture grows", func() bool { c, r := term.Size(viewer.frame()); return c == 80 && r == 30 })
	if c, r := term.Size(sender.frame()); c != 64 || r != 24 {
		t.Errorf("the sender's picture is now %d×%d", c, r)
	}
	if n := s.Stats().Renderers; n != 2 {
		t.Errorf("%d renderings for two looks", n)
	}
	same := join(t, s.config(s.ws))
	same.frame()
	if n := s.Stats().Renderers; n != 2 {
		t.Errorf("%d renderings for two looks and three clients", n)
	}
}

// tone is a sine at a frequency.
func tone(hz float64) []float32 {
	s := make([]float32, 10*mixFrame)
	for i := range s {
		s[i] = 0.25 * float32(math.Sin(2*math.Pi*hz*float64(i)/acip.SampleRate))
	}
	return s
}

// level is the amount of one frequency in samples.
func level(s []float32, hz float64) float64 {
	var re, im float64
	for i, v := range s {
		x := 2 * math.Pi * hz * float64(i) / acip.SampleRate
		re += float64(v) * math.Cos(x)
		im += float64(v) * math.Sin(x)
	}
	return 2 * math.Hypot(re, im) / float64(len(s))
}

// playing is a microphone in a bubble: it gives a tone at the pace of real
// sound, until the test ends.
type playing struct {
	ctx context.Context
	hz  float64
	at  int
}

func (p *playing) Read(dst []float32) error {
	select {
	case <-time.After(20 * time.Millisecond):
	case <-p.ctx.Done():
		return p.ctx.Err()
	}
	for i := range dst {
		dst[i] = 0.25 * float32(math.Sin(2*math.Pi*p.hz*float64(p.at)/acip.SampleRate))
		p.at++
	}
	return nil
}

// ear is a speaker that remembers.
type ear struct {
	mu    sync.Mutex
	heard []float32
}

func (e *ear) Play(s []float32) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.heard = append(e.heard, s...)
}

// take returns what was heard and forgets it.
func (e *ear) take() []float32 {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.heard
	e.heard = nil
	return s
}

// Everybody hears all others and not themselves; who is muted is not heard.
func TestEverybodyHearsTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dial, _ := bubble(t, ServerConfig{})
		ctx, stop := context.WithCancel(t.Context())
		var ears [3]ear
		var guests [3]*guest
		tones := [3]float64{400, 600, 0}
		for i, tr := range []acip.Transport{acip.WebSocket, acip.TCP, acip.WebSocket} {
			cfg := ClientConfig{Capabilities: capabilities(80, 24), FPS: 30, Speaker: &ears[i]}
			if tones[i] != 0 {
				cfg.Microphone = &playing{ctx: ctx, hz: tones[i]}
			}
			guests[i] = dial(cfg, tr)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		for i, want := range [3][2]float64{{0, 0.25}, {0.25, 0}, {0.25, 0.25}} {
			h := ears[i].take()
			if len(h) < 2*acip.SampleRate {
				t.Fatalf("guest %d heard %d samples in three seconds", i, len(h))
			}
			h = h[len(h)-acip.SampleRate:]
			for k, w := range want {
				if got := level(h, tones[k]); math.Abs(got-w) > 0.02 {
					t.Errorf("guest %d hears %.3f of tone %d, want %.2f", i, got, k, w)
				}
			}
		}
		if err := guests[0].Mute(true); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		ears[2].take()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		h := ears[2].take()
		if got := level(h, 400); got > 0.001 {
			t.Errorf("%.3f of a guest who is muted", got)
		}
		if got := level(h[:acip.SampleRate], 600); math.Abs(got-0.25) > 0.02 {
			t.Errorf("%.3f of the other", got)
		}
		stop()
		if err := s.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// A client can leave others out of what it hears; nobody else notices.
func TestMutingOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dial, _ := bubble(t, ServerConfig{})
		ctx, stop := context.WithCancel(t.Context())
		var ears [2]ear
		names := [4]string{"mia", "leo", "ada", "kim"}
		var guests [4]*guest
		for i, tr := range []acip.Transport{acip.WebSocket, acip.TCP, acip.WebSocket, acip.TCP} {
			cfg := ClientConfig{Capabilities: capabilities(80, 24), FPS: 30, Name: names[i]}
			if i < 2 {
				cfg.Speaker = &ears[i]
			} else {
				cfg.Microphone = &playing{ctx: ctx, hz: []float64{400, 600}[i-2]}
			}
			guests[i] = dial(cfg, tr)
		}
		// listen checks what mia and leo hear of ada and kim.
		listen := func(when string, want [2][2]float64) {
			t.Helper()
			time.Sleep(time.Second / 2)
			synctest.Wait()
			ears[0].take()
			ears[1].take()
			time.Sleep(1100 * time.Millisecond)
			synctest.Wait()
			for i := range ears {
				h := ears[i].take()
				if want[i] == [2]float64{} {
					if len(h) != 0 {
						t.Errorf("%s: %s is sent %d samples of nobody", when, names[i], len(h))
					}
					continue
				}
				if len(h) < acip.SampleRate {
					t.Fatalf("%s: %s hears %d samples", when, names[i], len(h))
				}
				for k, hz := range []float64{400, 600} {
					if got := level(h[:acip.SampleRate], hz); math.Abs(got-want[i][k]) > 0.02 {
						t.Errorf("%s: %s hears %.3f of %s, want %.2f", when, names[i], got, names[2+k], want[i][k])
					}
				}
			}
		}
		mute := func(name string, on bool) {
			t.Helper()
			if err := guests[0].MuteMember(name, on); err != nil {
				t.Fatal(err)
			}
		}
		both, kim := [2]float64{0.25, 0.25}, [2]float64{0, 0.25}
		listen("at first", [2][2]float64{both, both})
		mute("ada", true)
		mute("ada", true) // again changes nothing
		listen("ada is muted", [2][2]float64{kim, both})
		var list []string
		for _, m := range guests[0].Members() {
			list = append(list, fmt.Sprint(m.Name, m.Own, m.Muted))
		}
		slices.Sort(list) // they came in any order
		if got := fmt.Sprint(list); got != "[adafalse true kimfalse false leofalse false miatrue false]" {
			t.Errorf("mia's list is %s", got)
		}
		mute("kim", true)
		listen("both are muted", [2][2]float64{{}, both})
		mute("ada", false)
		mute("kim", false)
		listen("nobody is muted", [2][2]float64{both, both})
		for _, name := range []string{"mia", "nobody"} { // oneself, and nobody
			if err := guests[0].MuteMember(name, true); err == nil {
				t.Errorf("%s was muted", name)
			}
		}
		mute("ada", true)
		guests[2].Leave()
		<-guests[2].ended
		time.Sleep(time.Second)
		synctest.Wait()
		if n := len(guests[0].Members()); n != 3 {
			t.Errorf("mia's list has %d members", n)
		}
		s.mu.Lock()
		for _, m := range s.rooms[""].members {
			if len(m.mutes) != 0 {
				t.Errorf("%s still mutes %v", m.name, m.mutes)
			}
		}
		s.mu.Unlock()
		stop()
		if err := s.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// C clients are sent nothing of what only weft peers know, and their sound comes
// in the codec that this build has: Opus, or raw samples.
func TestWhatCClientsAreSent(t *testing.T) {
	s := newSite(t, ServerConfig{})
	conn, err := ws.Dial(t.Context(), s.ws, &ws.DialOptions{Subprotocols: []string{"acip"}, Config: acip.WebSocketConfig()})
	if err != nil {
		t.Fatal(err)
	}
	var came tally
	h := &scripted{packet: came.add}
	sess := acip.NewSession(acip.OnWebSocket(conn), acip.NewClient(acip.WebSocket, acip.ClientConfig{}), h)
	h.ready = func() {
		caps := capabilities(80, 24)
		caps.Audio = acip.AudioRaw | acip.AudioOpus
		_ = sess.Link.Control(acip.Out{Type: acip.TypeCapabilities, Payload: caps.AppendTo(nil), Sealed: true})
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- sess.Run(ctx) }()
	cfg := s.config(s.tcp)
	cfg.Name, cfg.Microphone = "mia", &noise{}
	mia := join(t, cfg)
	mia.frame()
	if err := mia.Say("hello"); err != nil {
		t.Fatal(err)
	}
	<-mia.texts
	sound, other := acip.TypeAudioBatch, acip.TypeOpusBatch
	if EncodesOpus {
		sound, other = other, sound
	}
	eventually(t, "sound and pictures", func() bool { return came.of(sound) > 5 && came.of(acip.TypeASCIIFrame) > 5 })
	eventually(t, "mia knows who is there", func() bool { return len(mia.Members()) == 2 })
	cancel()
	<-done
	for _, typ := range []acip.Type{acip.TypeMembers, acip.TypeText, other} {
		if n := came.of(typ); n != 0 {
			t.Errorf("a C client was sent %d of %s", n, typ)
		}
	}
}

// A voice speaks what the peer takes and this build can.
func TestVoice(t *testing.T) {
	var samples [mixFrame]float32
	copy(samples[:], tone(500))
	log := logger(&logBuffer{})
	for codecs, opus := range map[uint32]bool{acip.AudioRaw: false, acip.AudioRaw | acip.AudioOpus: EncodesOpus, acip.AudioOpus: EncodesOpus} {
		v := newVoice(codecs, log)
		typ, p := v.append([]byte("head"), &samples)
		if (typ == acip.TypeOpusBatch) != opus || string(p[:4]) != "head" {
			t.Fatalf("codecs %d: %s", codecs, typ)
		}
		var d decoder
		if n := len(d.decode(acip.Packet{Type: typ, Payload: p[4:]})); n != mixFrame {
			t.Errorf("codecs %d: %d samples come out", codecs, n)
		}
	}
}

func TestRingKeepsTheNewest(t *testing.T) {
	var r ring
	var out [mixFrame]float32
	r.put(make([]float32, mixFrame))
	if r.take(&out) {
		t.Error("it plays before there is enough")
	}
	long := make([]float32, ringMax+500)
	for i := range long {
		long[i] = float32(i)
	}
	r.put(long[:100])
	r.put(long)
	if !r.take(&out) || out[0] != 500 || r.n != ringMax-mixFrame {
		t.Errorf("first sample %v, %d left", out[0], r.n)
	}
}

func TestSoundOfOtherRates(t *testing.T) {
	var d decoder
	in := tone(500)
	half := make([]float32, 0, len(in))
	for i := 0; i < len(in); i += 2 { // 24 kHz, in stereo
		half = append(half, in[i], in[i])
	}
	a := acip.AudioBatch{Batches: 1, Rate: 24000, Channels: 2, Samples: half}
	out := d.decode(acip.Packet{Type: acip.TypeAudioBatch, Payload: a.AppendTo(nil)})
	if len(out) < len(in)-4 || len(out) > len(in)+4 {
		t.Fatalf("%d samples, want %d", len(out), len(in))
	}
	if got := level(out[:9*mixFrame], 500); math.Abs(got-0.25) > 0.01 {
		t.Errorf("level %.3f, want 0.25", got)
	}
}

// The C programs' Opus packets, recorded, and things that only claim to be
// Opus.
func TestOpus(t *testing.T) {
	key, err := hex.DecodeString("16cf6fb509cd1185cfeb7528409d8f587c816d00e5b0a16fa0ef5d502e6a0b46")
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open("../acip/testdata/captures/ws-encrypted-snapshot.pcap")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var d decoder
	packets, samples := 0, 0
	for e, err := range decode.Read(f, []acip.Key{acip.Key(key)}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Packet.Type == acip.TypeOpusBatch {
			packets++
			samples += len(d.decode(e.Packet))
		}
	}
	if packets < 10 || samples < packets*mixFrame*8/10 {
		t.Errorf("%d packets gave %d samples", packets, samples)
	}
	whole := acip.OpusBatch{Rate: 48000, FrameMS: 20, Frames: [][]byte{bytes.Repeat([]byte{0xbb}, 40), {}, {0xf8, 0xff, 0xfe}}}
	if out := d.decode(acip.Packet{Type: acip.TypeOpusBatch, Payload: whole.AppendTo(nil)}); len(out) > ringMax {
		t.Errorf("%d samples", len(out))
	}
}

// C clients send H.265 unless told otherwise: they are told, once, and stay.
func TestH265WithoutADecoder(t *testing.T) {
	s := newSite(t, ServerConfig{})
	sender := join(t, s.config(s.ws))
	sender.frame()
	cfg := s.config(s.ws)
	cfg.Source = nil
	g := join(t, cfg)
	g.frame()
	for _, data := range [][]byte{nil, {0, 0, 0, 1, 0x40}, {0, 0, 0, 1, 0x42}} {
		f := acip.H265Frame{Key: true, Width: 320, Height: 240, Data: data}
		if err := g.sess.Link.Control(acip.Out{Type: acip.TypeImageFrameH265, Payload: f.AppendTo(nil), Sealed: true}); err != nil {
			t.Fatal(err)
		}
	}
	if n := <-g.notes; !strings.Contains(n, "--video-codec raw") {
		t.Errorf("told %q", n)
	}
	for range 3 {
		g.frame()
	}
	if len(g.notes) != 0 {
		t.Errorf("told again: %q", <-g.notes)
	}
}

// fakeDecoder shows a grey picture for each packet.
type fakeDecoder struct {
	fed    int
	closed *int
}

func (d *fakeDecoder) Feed([]byte, render.Size) error { d.fed++; return nil }
func (d *fakeDecoder) Picture(dst []byte) ([]byte, render.Size, bool) {
	return append(dst, bytes.Repeat([]byte{99}, 3*8*6)...), render.Size{W: 8, H: 6}, true
}
func (d *fakeDecoder) Close() error { *d.closed++; return nil }

func TestH265WithADecoder(t *testing.T) {
	closed := 0
	s := newSite(t, ServerConfig{Decoder: func() (VideoDecoder, error) { return &fakeDecoder{closed: &closed}, nil }})
	cfg := s.config(s.ws)
	cfg.Source = nil
	g := join(t, cfg)
	eventually(t, "the session stands", g.sess.Established)
	f := acip.H265Frame{Key: true, Width: 8, Height: 6, Data: []byte{1}}
	if err := g.sess.Link.Control(acip.Out{Type: acip.TypeImageFrameH265, Payload: f.AppendTo(nil), Sealed: true}); err != nil {
		t.Fatal(err)
	}
	if text := g.frame(); !bytes.Contains(text, []byte("38;2;99;99;99")) {
		t.Errorf("the picture is %.60q", text)
	}
	g.leave()
	if err := s.shutdown(); err != nil {
		t.Fatal(err)
	}
	if closed != 1 {
		t.Errorf("the decoder was closed %d times", closed)
	}
}

func TestLimits(t *testing.T) {
	s := newSite(t, ServerConfig{Clients: 3, Room: 2, Address: 3})
	a := join(t, s.config(s.ws))
	join(t, s.config(s.tcp))
	a.frame()
	// The room is full, the server is not.
	third := join(t, s.config(s.ws))
	if err := third.wait(); err == nil || !strings.Contains(third.note(), "room is full") {
		t.Errorf("the third in a room for two: %v", err)
	}
	eventually(t, "the third is gone", func() bool { return s.Stats().Clients == 2 })
	join(t, s.config(s.ws+"/other"))
	if _, err := tryJoin(t, s.config(s.ws+"/other")); err == nil || Final(err) || !strings.Contains(err.Error(), "503") {
		t.Errorf("the fourth on a server for three: %v", err)
	}
	g := join(t, s.config(s.tcp))
	if err := g.wait(); err == nil || !strings.Contains(err.Error(), "full") {
		t.Errorf("the same over TCP: %v", err)
	}
}

// note returns a notice, or nothing.
func (g *guest) note() string {
	select {
	case n := <-g.notes:
		return n
	case <-time.After(patience):
		return ""
	}
}

// Guessing passwords ends after ten attempts; later there is one every six
// seconds.
func TestGuessingIsSlow(t *testing.T) {
	s := newSite(t, ServerConfig{ACIP: acip.ServerConfig{Password: passwordKey()}})
	cfg := s.config(s.ws)
	cfg.ACIP.Password = wrongKey()
	for attempt := 1; ; attempt++ {
		g, err := tryJoin(t, cfg)
		if err != nil {
			if attempt <= failuresBurst {
				t.Errorf("attempt %d is refused: %v", attempt, err)
			}
			var he *ws.HandshakeError
			if !errors.As(err, &he) {
				t.Fatalf("attempt %d is refused with %v", attempt, err)
			}
			if Final(err) || he.Status != 503 || !strings.Contains(string(he.Body), "too many failed attempts") {
				t.Errorf("attempt %d is refused with %v, %q", attempt, err, he.Body)
			}
			return
		}
		if err := g.wait(); err == nil {
			t.Fatal("the wrong password is right")
		}
		eventually(t, "the attempt is counted", func() bool { return s.Stats().Clients == 0 })
		// What refills meanwhile depends on the machine, but not by so much.
		if attempt == 5*failuresBurst {
			t.Fatalf("%d attempts, and the next is let in", attempt)
		}
	}
}

// A browser: nothing but the two packets in the clear, no ping, pixel format 3.
// And a C client that was told not to encrypt, which says both before the
// handshake.
func TestBrowserAndUnencryptedClients(t *testing.T) {
	for name, early := range map[string]bool{"browser": false, "no-encrypt": true} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, ServerConfig{})
			cfg := acip.WebSocketConfig()
			conn, err := ws.Dial(t.Context(), s.ws+"/", &ws.DialOptions{Subprotocols: []string{"acip"}, Config: cfg})
			if err != nil {
				t.Fatal(err)
			}
			c := acip.OnWebSocket(conn)
			caps := capabilities(80, 24)
			hello := func() {
				for _, p := range []acip.Packet{{Type: acip.TypeCapabilities, Payload: caps.AppendTo(nil)}, {Type: acip.TypeStreamStart, Payload: []byte{0, 0, 0, 1}}} {
					if err := c.WritePacket(p.AppendTo(nil)); err != nil {
						t.Error(err)
					}
				}
			}
			if early {
				hello()
			}
			frames := make(chan struct{}, 1)
			h := &scripted{packet: func(p acip.Packet) {
				if p.Type == acip.TypeASCIIFrame {
					put(frames, struct{}{})
				}
			}}
			sess := acip.NewSession(c, acip.NewClient(acip.WebSocket, acip.ClientConfig{PingInterval: -1}), h)
			h.ready = func() {
				if !early {
					hello()
				}
				img := acip.ImageFrame{Width: 32, Height: 24, Format: acip.PixelRGB24Browser, Timestamp: 77, Pixels: make([]byte, 3*32*24)}
				_ = sess.Link.Control(acip.Out{Type: acip.TypeImageFrame, Payload: img.AppendTo(nil), Sealed: true})
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- sess.Run(ctx) }()
			select {
			case <-frames:
			case err := <-done:
				t.Fatal(err)
			case <-time.After(patience):
				t.Fatal("no frame")
			}
			cancel()
			<-done
		})
	}
}

func TestSources(t *testing.T) {
	ctx := t.Context()
	p := NewPattern()
	a, size, err := p.Next(ctx, nil)
	if err != nil || size.W != 320 || size.H != 240 || len(a) != 3*320*240 {
		t.Fatal(size, len(a), err)
	}
	b, _, err := p.Next(ctx, []byte("head"))
	if err != nil || string(b[:4]) != "head" || bytes.Equal(a, b[4:]) {
		t.Error("the pattern does not move, or overwrites what was there")
	}

	dir := t.TempDir()
	img := image.NewRGBA(image.Rect(0, 0, 960, 540))
	for i := range img.Pix {
		img.Pix[i] = 255
	}
	img.Set(0, 0, color.Black)
	var buf bytes.Buffer
	if err := png.Encode(&buf, img); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "x.png")
	if err := os.WriteFile(path, buf.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := OpenSource(ctx, "image:"+path, 30)
	if err != nil {
		t.Fatal(err)
	}
	pix, size, err := s.Next(ctx, nil)
	if err != nil || size != (render.Size{W: 480, H: 270}) || len(pix) != 3*480*270 || pix[len(pix)-1] != 255 {
		t.Errorf("%v, %d bytes, %v", size, len(pix), err)
	}
	for _, spec := range []string{"image:" + filepath.Join(dir, "none.png"), "webcam:" + filepath.Join(dir, "none"), "radio", "file:" + filepath.Join(dir, "none")} {
		if _, err := OpenSource(ctx, spec, 30); err == nil {
			t.Errorf("%s opens", spec)
		}
	}
	if s, err := OpenSource(ctx, "none", 30); s != nil || err != nil {
		t.Error("none is something")
	}
}

func TestPPM(t *testing.T) {
	stream := "P6\n2 1\n255\nabcdef" + "P6 1 1 255 xyz"
	r := bufio.NewReader(strings.NewReader(stream))
	a, size, err := readPPM(r, nil)
	if err != nil || string(a) != "abcdef" || size.W != 2 {
		t.Fatal(string(a), size, err)
	}
	if b, _, err := readPPM(r, nil); err != nil || string(b) != "xyz" {
		t.Fatal(string(b), err)
	}
	for _, bad := range []string{"P5\n1 1\n255\nx", "P6\n99999 99999\n255\n", "P6\n0 1\n255\n", "P6\n1 1\n65535\nxxxxxx", "P6\n1 1\n255\nx", "P6\n-1 1\n255\nx"} {
		if _, _, err := readPPM(bufio.NewReader(strings.NewReader(bad)), nil); err == nil {
			t.Errorf("%q is a picture", bad)
		}
	}
}

func TestYUYV(t *testing.T) {
	// White, black, and a red pair, on the scale of BT.601.
	raw := []byte{235, 128, 16, 128, 81, 90, 81, 240}
	pix, size, ok := appendYUYV(nil, raw, render.Size{W: 4, H: 1})
	if !ok || size.W != 4 || fmt.Sprint(pix) != "[255 255 255 0 0 0 255 0 0 255 0 0]" {
		t.Fatal(pix, size, ok)
	}
	if _, _, ok := appendYUYV(nil, raw[:7], render.Size{W: 4, H: 1}); ok {
		t.Error("a picture that was cut short")
	}
}

func TestParseURL(t *testing.T) {
	for in, want := range map[string]string{
		"ws://h": "ws://h:27226/", "ws://h:1/room": "ws://h:1/room", "wss://h": "wss://h:443/", "tcp://h": "tcp://h:27224/",
		"h": "tcp://h:27224/", "h:9": "tcp://h:9/", "ws://[::1]": "ws://[::1]:27226/", "http://h": "", "ws://": "", "tcp://h/room": "",
	} {
		u, err := ParseURL(in)
		if got := fmt.Sprint(u); err == nil && got != want || err != nil && want != "" {
			t.Errorf("%s: %s %v, want %q", in, got, err, want)
		}
	}
}

func TestBackoff(t *testing.T) {
	for n, most := range []time.Duration{250e6, 500e6, 1e9, 2e9, 4e9, 8e9, 10e9, 10e9} {
		if d := Backoff(n); d > most || d < most/2 {
			t.Errorf("attempt %d waits %v, want %v to %v", n, d, most/2, most)
		}
	}
}

// A view keeps its rate on average and falls into step with the pictures.
func TestPace(t *testing.T) {
	const interval = time.Second / 60
	for _, c := range []struct {
		pictures   time.Duration // time between two pictures; 0 for none
		frames     int           // in ten seconds, at least
		latencyMax time.Duration // of a picture, once in step
	}{
		{0, 599, 0},
		{time.Second / 60, 590, time.Millisecond},
		{time.Second / 30, 590, time.Millisecond},
		{time.Second / 61, 590, interval},
		{time.Second / 25, 590, interval},
		{time.Second / 500, 599, interval},
		{time.Second, 590, interval},
	} {
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		begin, end := now, now.Add(10*time.Second)
		p := pace{interval: interval, saved: 1, at: now}
		next, came := now.Add(3*time.Millisecond), time.Time{}
		fresh, frames := false, 0
		for now.Before(end) {
			wait := p.next(now, fresh)
			if wait == 0 {
				p.sent(now)
				frames++
				if fresh && now.Sub(begin) > time.Second && now.Sub(came) > c.latencyMax {
					t.Fatalf("pictures every %v: one waits %v after %v", c.pictures, now.Sub(came), now.Sub(begin))
				}
				fresh = false
				continue
			}
			if due := now.Add(wait); c.pictures == 0 || due.Before(next) {
				now = due
				continue
			}
			now = next
			next = next.Add(c.pictures)
			if !fresh {
				came = now
			}
			fresh = true
			p.came(now)
		}
		if frames < c.frames || frames > 602 {
			t.Errorf("pictures every %v: %d frames in ten seconds", c.pictures, frames)
		}
	}
}
