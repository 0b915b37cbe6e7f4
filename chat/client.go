package chat

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weft-ws/weft/acip"
	"github.com/weft-ws/weft/ws"
)

const (
	// PortWebSocket and PortTCP are where servers listen by default.
	PortWebSocket = "27226"
	PortTCP       = "27224"
	// dialTimeout bounds the opening of a connection, TLS and HTTP included.
	dialTimeout = 15 * time.Second
)

// ClientConfig tunes a Client.
type ClientConfig struct {
	// URL is ws://HOST[:PORT][/ROOM], wss://…, or tcp://HOST[:PORT].
	URL string
	// ACIP is what the client shows of itself and demands of the server.
	ACIP acip.ClientConfig
	// TLS is for wss; nil trusts what the system trusts.
	TLS *tls.Config
	// Capabilities are the terminal and what to show on it.
	Capabilities acip.Capabilities
	// Source is what to send; nil for nothing. FPS is the pace of sources
	// without a clock, default 30, at most acip.FPSMax.
	Source Source
	FPS    int
	// Microphone and Speaker are nil when there are none.
	Microphone Microphone
	Speaker    Speaker
	// Name is how the others see this client; empty: the server chooses.
	Name string
	// Fragments says when packets leave in several WebSocket frames.
	Fragments FragmentPolicy
	// Trace, if set, sees the frames of the WebSocket.
	Trace *ws.Trace
	// Wrap, if set, is the [ws.DialOptions] Wrap of the WebSocket.
	Wrap func(net.Conn) net.Conn
	// Events are told what comes; any may be nil.
	Events Events
}

// Events are what a Client reports. They are called one at a time from the
// goroutine that reads, and hold it up.
type Events struct {
	// Established is called when the handshake is complete.
	Established func(c *Client)
	// Frame is called with the text of a frame, valid until it returns.
	Frame func(f acip.ASCIIFrame)
	// Clear is called when the server wants the screen empty.
	Clear func()
	// State is called with the number of clients.
	State func(s acip.State)
	// Text is called with a chat line.
	Text func(t acip.Text)
	// Members is called when somebody has come, gone or changed name; see
	// Client.Members.
	Members func(list []Member)
	// Notice is called with an error or a log line that the server sent.
	Notice func(line string)
}

// A Microphone gives sound, mono at 48 kHz.
type Microphone interface {
	// Read fills dst, waiting for it.
	Read(dst []float32) error
}

// A Speaker takes sound, mono at 48 kHz. Play does not wait.
type Speaker interface{ Play(samples []float32) }

// A Client is one connection of a client. All methods are safe for concurrent
// use.
type Client struct {
	cfg  ClientConfig
	sess *acip.Session
	stop context.CancelCauseFunc
	ctx  context.Context

	mu    sync.Mutex
	caps  acip.Capabilities
	weft  bool // the server is a weft server
	can   acip.Features
	muted bool
	own   uint32 // our number in the room
	list  []acip.Member
	mutes map[uint32]bool // whom we do not want to hear

	work     sync.WaitGroup
	images   acip.BufferPool
	sounds   acip.BufferPool
	decoder  decoder
	captured atomic.Uint64
	frames   atomic.Uint64
	gapMax   atomic.Int64
	lastSeen time.Time // of the last frame; only the reading goroutine looks
}

// Dial opens the connection. Run then carries out the session.
func Dial(ctx context.Context, cfg ClientConfig) (*Client, error) {
	if cfg.FPS == 0 {
		cfg.FPS = 30
	}
	if cfg.FPS < 1 || cfg.FPS > acip.FPSMax {
		return nil, fmt.Errorf("%d frames a second; allowed are 1 to %d", cfg.FPS, acip.FPSMax)
	}
	u, err := ParseURL(cfg.URL)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var conn acip.Conn
	if u.Scheme == "tcp" {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", u.Host)
		if err != nil {
			return nil, err
		}
		conn = acip.OnTCP(c)
	} else {
		o := ws.DialOptions{Subprotocols: []string{acip.Subprotocol}, TLS: cfg.TLS, Wrap: cfg.Wrap, Config: acip.WebSocketConfig()}
		o.Config.Trace = cfg.Trace
		if cfg.Fragments == FragmentAlways {
			o.Config.FragmentSize = 0
		}
		c, err := ws.Dial(ctx, u.String(), &o)
		if err != nil {
			return nil, err
		}
		conn = acip.OnWebSocket(c)
	}
	c := &Client{cfg: cfg, caps: cfg.Capabilities}
	c.sess = acip.NewSession(conn, acip.NewClient(conn.Transport(), cfg.ACIP), c)
	return c, nil
}

// ParseURL understands ws://, wss:// and tcp:// with a host and optional port
// and path, and fills in the default port. A host alone means tcp, as it does
// to the C client.
func ParseURL(s string) (*url.URL, error) {
	if !strings.Contains(s, "://") {
		s = "tcp://" + s
	}
	u, err := url.Parse(s)
	if err != nil {
		return nil, err
	}
	port := PortWebSocket
	switch u.Scheme {
	case "ws":
	case "wss":
		port = "443"
	case "tcp":
		port = PortTCP
		if strings.Trim(u.Path, "/") != "" {
			return nil, fmt.Errorf("%s: over tcp there is only the default room", s)
		}
	default:
		return nil, fmt.Errorf("%s: the scheme is %q; allowed are ws, wss and tcp", s, u.Scheme)
	}
	if u.Hostname() == "" {
		return nil, fmt.Errorf("%s names no host", s)
	}
	if u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), port)
	}
	if u.Path == "" {
		u.Path = "/"
	}
	return u, nil
}

// Run carries out the session until it ends, and returns why: nil for an
// orderly end, whoever wanted it. Nothing that it started is left when it
// returns.
func (c *Client) Run(ctx context.Context) error {
	c.mu.Lock()
	c.ctx, c.stop = context.WithCancelCause(ctx)
	c.mu.Unlock()
	err := c.sess.Run(c.ctx)
	c.stop(acip.ErrLeave)
	c.work.Wait()
	if errors.Is(err, acip.ErrLeave) {
		return nil
	}
	return err
}

// Leave ends the session in order.
func (c *Client) Leave() {
	c.mu.Lock()
	stop, weft := c.stop, c.weft
	c.mu.Unlock()
	if weft {
		// C servers know this packet, but no C client has ever sent it.
		_ = c.sess.Link.Control(acip.Out{Type: acip.TypeLeave, Sealed: true})
	}
	if stop != nil {
		stop(acip.ErrLeave)
	}
}

// Established sends what the client is, and begins to capture.
func (c *Client) Established(s *acip.Session) error {
	c.mu.Lock()
	caps := c.caps
	c.mu.Unlock()
	var mask acip.StreamMask
	if c.cfg.Source != nil {
		mask |= acip.StreamVideo
	}
	if c.cfg.Microphone != nil {
		mask |= acip.StreamAudio
	}
	if err := s.Link.Control(acip.Out{Type: acip.TypeCapabilities, Payload: caps.AppendTo(nil), Sealed: true}); err != nil {
		return err
	}
	if mask != 0 {
		if err := s.Link.Control(acip.Out{Type: acip.TypeStreamStart, Payload: mask.AppendTo(nil), Sealed: true}); err != nil {
			return err
		}
	}
	if c.cfg.Source != nil {
		c.work.Go(c.capture)
	}
	if c.cfg.Microphone != nil {
		c.work.Go(c.listen)
	}
	if f := c.cfg.Events.Established; f != nil {
		f(c)
	}
	return nil
}

// capture sends pictures until the session ends or the source does.
func (c *Client) capture() {
	tick := time.NewTicker(time.Second / time.Duration(c.cfg.FPS))
	defer tick.Stop()
	for n := uint32(0); ; n++ {
		b := c.images.Get()
		b.B = append(b.B, make([]byte, acip.FrameHeaderSize)...)
		pix, size, err := c.cfg.Source.Next(c.ctx, b.B)
		if err != nil {
			b.Release()
			if c.ctx.Err() == nil {
				c.notice("the source has ended: " + err.Error())
			}
			return
		}
		b.B = pix
		f := acip.ImageFrame{Width: size.W, Height: size.H, Format: acip.PixelRGB24}
		f.AppendHeader(b.B[:0])
		c.captured.Add(1)
		c.sess.Link.Video(acip.TypeImageFrame, b)
		select {
		case <-c.ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// listen sends sound until the session ends.
func (c *Client) listen() {
	var samples [mixFrame]float32
	v := newVoice(acip.AudioRaw|acip.AudioOpus, slog.New(slog.DiscardHandler)) // every server takes both
	for c.ctx.Err() == nil {
		if err := c.cfg.Microphone.Read(samples[:]); err != nil {
			if c.ctx.Err() == nil {
				c.notice("the microphone has ended: " + err.Error())
			}
			return
		}
		c.mu.Lock()
		muted := c.muted
		c.mu.Unlock()
		if muted {
			continue
		}
		b := c.sounds.Get()
		var t acip.Type
		t, b.B = v.append(b.B, &samples)
		c.sess.Link.Audio(t, b)
	}
}

func (c *Client) notice(line string) {
	if f := c.cfg.Events.Notice; f != nil {
		f(line)
	}
}

// Packet takes a packet of the server, which the machine has checked.
func (c *Client) Packet(s *acip.Session, p acip.Packet) error {
	e := &c.cfg.Events
	switch p.Type {
	case acip.TypeASCIIFrame:
		f, err := acip.ParseASCIIFrame(p.Payload)
		if err != nil {
			return err
		}
		now := time.Now()
		if c.frames.Add(1) > 1 {
			c.gapMax.Store(max(c.gapMax.Load(), int64(now.Sub(c.lastSeen))))
		}
		c.lastSeen = now
		if e.Frame != nil {
			e.Frame(f)
		}
	case acip.TypeClearConsole:
		if e.Clear != nil {
			e.Clear()
		}
	case acip.TypeServerState:
		st, err := acip.ParseState(p.Payload)
		if err != nil {
			return err
		}
		c.meet(st)
		if e.State != nil {
			e.State(st)
		}
	case acip.TypeText:
		t, err := acip.ParseText(p.Payload)
		if err != nil {
			return err
		}
		if e.Text != nil {
			e.Text(t)
		}
	case acip.TypeMembers:
		l, err := acip.ParseMembers(p.Payload)
		if err != nil {
			return err
		}
		c.roster(l)
		if e.Members != nil {
			e.Members(c.Members())
		}
	case acip.TypeError:
		m, err := acip.ParseErrorMessage(p.Payload)
		if err != nil {
			return err
		}
		c.notice(fmt.Sprintf("the server reports error %s: %s", m.Code, m.Message))
	case acip.TypeRemoteLog:
		l, err := acip.ParseRemoteLog(p.Payload)
		if err != nil {
			return err
		}
		if l.Level >= acip.LogWarn {
			c.notice("the server says: " + l.Message)
		}
	case acip.TypeAudioBatch, acip.TypeOpusBatch:
		if c.cfg.Speaker != nil {
			c.cfg.Speaker.Play(c.decoder.decode(p))
		}
	}
	return nil
}

// meet learns that the server is a weft server, once the session stands: what
// came in the clear proves nothing.
func (c *Client) meet(st acip.State) {
	if !st.Weft || !c.sess.Established() {
		return
	}
	c.mu.Lock()
	first := !c.weft
	c.weft, c.can = true, st.Features
	c.caps.SetFeatures(features)
	caps := acip.Out{Type: acip.TypeCapabilities, Payload: c.caps.AppendTo(nil), Sealed: true}
	c.mu.Unlock()
	if !first {
		return
	}
	// Only now does the server learn what it talks to: a C server gets the
	// packet that its own clients send.
	_ = c.sess.Link.Control(caps)
	if st.Features&acip.FeatureFragments != 0 && c.cfg.Fragments == FragmentAuto {
		c.sess.Conn().Fragment()
	}
	if c.cfg.Name != "" {
		flags := uint32(acip.JoinColor)
		if c.cfg.Source != nil {
			flags |= acip.JoinVideo
		}
		if c.cfg.Microphone != nil {
			flags |= acip.JoinAudio
		}
		j := acip.Join{Name: c.cfg.Name, Flags: flags}
		_ = c.sess.Link.Control(acip.Out{Type: acip.TypeJoin, Payload: j.AppendTo(nil), Sealed: true})
	}
}

// Resize tells the server the size of the terminal.
func (c *Client) Resize(cols, rows int) {
	c.mu.Lock()
	c.caps.Width, c.caps.Height = min(max(cols, 1), acip.TerminalMax), min(max(rows, 1), acip.TerminalMax)
	o := acip.Out{Type: acip.TypeCapabilities, Payload: c.caps.AppendTo(nil), Sealed: true}
	c.mu.Unlock()
	if c.sess.Established() {
		_ = c.sess.Link.Control(o)
	}
}

// ErrNoText is returned by Say when the server cannot pass text on.
var ErrNoText = errors.New("this server does not pass text on")

// Say sends a chat line of at most acip.TextMax bytes.
func (c *Client) Say(line string) error {
	c.mu.Lock()
	weft := c.weft
	c.mu.Unlock()
	if !weft {
		return ErrNoText // a C server would end the session
	}
	return c.sess.Link.Control(acip.Out{Type: acip.TypeText, Payload: acip.Text{Line: line}.AppendTo(nil), Sealed: true})
}

// A Member is one client in the room.
type Member struct {
	acip.Member
	Own   bool // this client
	Muted bool // not heard by this client
}

// roster takes a new list of members; a mute ends with its member.
func (c *Client) roster(l acip.Members) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.own, c.list = l.Own, l.List
	still := map[uint32]bool{}
	for _, m := range l.List {
		if c.mutes[m.ID] {
			still[m.ID] = true
		}
	}
	c.mutes = still
}

// Members returns who is in the room, as far as the server tells: C servers do
// not.
func (c *Client) Members() []Member {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]Member, len(c.list))
	for i, m := range c.list {
		list[i] = Member{Member: m, Own: m.ID == c.own, Muted: c.mutes[m.ID]}
	}
	return list
}

// ErrNoMute is returned by MuteMember when the server cannot leave a member
// out.
var ErrNoMute = errors.New("this server does not mute single members")

// MuteMember leaves all others of that name out of what this client hears, or
// takes them in again. Nobody else hears a difference. It lasts until they, or
// this client, leave. An error says that there is nobody of that name.
func (c *Client) MuteMember(name string, on bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.can&acip.FeatureMute == 0 {
		return ErrNoMute
	}
	found := false
	for _, m := range c.list {
		if m.Name != name || m.ID == c.own {
			continue
		}
		found = true
		if c.mutes[m.ID] == on {
			continue
		}
		o := acip.Out{Type: acip.TypeMute, Payload: acip.Mute{Client: m.ID, On: on}.AppendTo(nil), Sealed: true}
		if err := c.sess.Link.Control(o); err != nil {
			return err
		}
		if c.mutes[m.ID] = on; !on {
			delete(c.mutes, m.ID)
		}
	}
	if !found {
		return fmt.Errorf("nobody here is called %q", name)
	}
	return nil
}

// Mute stops or resumes the microphone, and tells the server.
func (c *Client) Mute(on bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.muted == on || c.cfg.Microphone == nil {
		return nil
	}
	c.muted = on
	t := acip.TypeStreamStart
	if on {
		t = acip.TypeStreamStop
	}
	return c.sess.Link.Control(acip.Out{Type: t, Payload: acip.StreamAudio.AppendTo(nil), Sealed: true})
}

// ClientStats is a snapshot of a Client.
type ClientStats struct {
	Captured uint64 // pictures that the source gave
	Sent     acip.LinkStats
	Frames   uint64        // frames received
	Bytes    uint64        // received, below WebSocket framing
	GapMax   time.Duration // longest time between two frames
	RTT      time.Duration // of the last ping that was answered
	// Fragmented counts messages that left in more than one WebSocket frame.
	Fragmented uint64
}

// Stats returns what the client has done so far.
func (c *Client) Stats() ClientStats {
	_, in := c.sess.Received()
	s := ClientStats{Captured: c.captured.Load(), Sent: c.sess.Link.Stats(), Frames: c.frames.Load(), Bytes: in,
		GapMax: time.Duration(c.gapMax.Load()), Fragmented: c.sess.Conn().Fragments()}
	c.sess.Machine(func(m acip.Machine) { s.RTT = m.(*acip.Client).RTT() })
	return s
}

// Final reports whether an error of Dial or Run would come again if the client
// tried again: refusals and broken rules, as opposed to connections that were
// lost.
func Final(err error) bool {
	var v *acip.Violation
	var r *acip.RemoteError
	var h *acip.HostKeyError
	var he *ws.HandshakeError
	var cert *tls.CertificateVerificationError
	switch {
	case errors.As(err, &v):
		return v.Rule != acip.RuleTimeout
	case errors.As(err, &he):
		return he.Status != 503 && he.Status != 502 && he.Status != 504
	}
	return errors.As(err, &r) || errors.As(err, &h) || errors.As(err, &cert) ||
		errors.Is(err, acip.ErrNoPassword) || errors.Is(err, acip.ErrNoKey)
}

// Backoff is how long to wait before attempt n, counted from 0: from a quarter
// of a second, doubling, to ten seconds, less up to half of it by chance.
func Backoff(n int) time.Duration {
	d := min(250*time.Millisecond<<min(n, 10), 10*time.Second)
	return d - rand.N(d/2)
}
