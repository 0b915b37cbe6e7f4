package chat

import (
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/weft-ws/weft/acip"
	"github.com/weft-ws/weft/chat/render"
)

const (
	// imagesPerSecond is how many pictures of one client are taken; more are
	// dropped. Twice the highest frame rate.
	imagesPerSecond = 2 * acip.FPSMax
	// controlPerSecond bounds all packets of a client that are neither video nor
	// audio; more end the session with ERROR_MESSAGE 46.
	controlPerSecond, controlBurst = 50, 200
	// soundsPerSecond is how many packets of sound are decoded; more are dropped.
	// Everybody sends 50.
	soundsPerSecond = 200
	// linesPerSecond bounds chat lines, which go to everybody.
	linesPerSecond, linesBurst = 2, 10
)

// A member is one client of the server. The first block belongs to the
// goroutine that runs its session, the second to the room.
type member struct {
	server   *Server
	sess     *acip.Session
	addr     string
	began    time.Time
	roomName string
	reason   string // of CLIENT_LEAVE
	images   uint64
	pictures *rate.Limiter
	control  *rate.Limiter
	lines    *rate.Limiter
	sounds   *rate.Limiter
	warned   bool // about H.265
	video    VideoDecoder
	sound    *decoder

	room     *room // set once, by join
	slot     int
	id       uint32
	name     string
	features acip.Features
	streams  acip.StreamMask // what it sends
	stopped  acip.StreamMask // what it said to have stopped
	codecs   uint32          // of sound that it takes
	mutes    map[uint32]bool // members that it does not want to hear, by id
	picture  *acip.Buffer    // the latest, or nil
	size     render.Size
	version  uint64
	view     *view
	cleared  bool // CLEAR_CONSOLE was sent since the number of pictures changed
	ring     ring // sound to be mixed
	lastSent time.Time

	gapMax atomic.Int64
}

var _ acip.Handler = (*member)(nil)

// Established puts the client into its room.
func (m *member) Established(s *acip.Session) error {
	m.pictures = rate.NewLimiter(imagesPerSecond, imagesPerSecond)
	m.control = rate.NewLimiter(controlPerSecond, controlBurst)
	m.sounds = rate.NewLimiter(soundsPerSecond, soundsPerSecond)
	m.lines = rate.NewLimiter(linesPerSecond, linesBurst)
	if s.Conn().Transport() == acip.TCP {
		// C clients on TCP wait for nothing but show this.
		l := acip.RemoteLog{Level: acip.LogInfo, Direction: acip.LogToClient, Message: "encryption established"}
		if err := s.Link.Control(acip.Out{Type: acip.TypeRemoteLog, Payload: l.AppendTo(nil), Sealed: true}); err != nil {
			return err
		}
	}
	if err := m.server.join(m); err != nil {
		return err
	}
	m.server.cfg.Logger.Info("client joined", "peer", m.addr, "transport", s.Conn().Transport().String(), "room", m.roomName, "name", m.name)
	return nil
}

// Packet takes a session packet, which the machine has checked.
func (m *member) Packet(s *acip.Session, p acip.Packet) error {
	switch p.Type {
	case acip.TypeImageFrame:
		return m.image(p.Payload)
	case acip.TypeImageFrameH265:
		return m.h265(p.Payload)
	case acip.TypeAudioBatch, acip.TypeOpusBatch:
		if m.sounds.Allow() {
			m.audio(p)
		}
		return nil
	}
	if !m.control.Allow() {
		return &acip.Violation{Rule: acip.RuleRate, Type: p.Type, Code: acip.CodeRate,
			Detail: fmt.Sprintf("more than %d control packets a second", controlPerSecond)}
	}
	r := m.room
	switch p.Type {
	case acip.TypeCapabilities:
		c, err := acip.ParseCapabilities(p.Payload)
		if err != nil {
			return err
		}
		m.capabilities(&c)
	case acip.TypeStreamStart, acip.TypeStreamStop:
		mask, err := acip.ParseStreamMask(p.Type, p.Payload)
		if err != nil {
			return err
		}
		m.stream(mask, p.Type == acip.TypeStreamStart)
	case acip.TypeJoin:
		j, err := acip.ParseJoin(p.Payload)
		if err != nil {
			return err
		}
		r.mu.Lock()
		m.name = j.Name
		r.introduce()
		r.mu.Unlock()
	case acip.TypeLeave:
		reason, err := acip.ParseLeave(p.Payload)
		if err != nil {
			return err
		}
		m.reason = reason
	case acip.TypeText:
		t, err := acip.ParseText(p.Payload)
		if err != nil {
			return err
		}
		if !m.lines.Allow() {
			return nil // too fast to read
		}
		r.mu.Lock()
		t.Client, t.Name = m.id, m.name
		r.mu.Unlock()
		r.say(t)
	case acip.TypeMute:
		x, err := acip.ParseMute(p.Payload)
		if err != nil {
			return err
		}
		r.mute(m, x)
	case acip.TypeRemoteLog:
		l, err := acip.ParseRemoteLog(p.Payload)
		if err != nil {
			return err
		}
		m.server.cfg.Logger.Debug("client says", "peer", m.addr, "message", l.Message)
	case acip.TypeError:
		e, err := acip.ParseErrorMessage(p.Payload)
		if err != nil {
			return err
		}
		m.server.cfg.Logger.Info("client reports", "peer", m.addr, "code", e.Code.String(), "message", e.Message)
	}
	return nil
}

// capabilities takes the client's terminal, now or at a resize.
func (m *member) capabilities(c *acip.Capabilities) {
	r := m.room
	r.mu.Lock()
	defer r.mu.Unlock()
	if f, ok := c.Features(); ok {
		told := m.features&acip.FeatureMute != 0
		m.features = f
		if f&acip.FeatureMute != 0 && !told {
			r.list(m)
		}
		if f&acip.FeatureFragments != 0 && m.server.cfg.Fragments == FragmentAuto {
			m.sess.Conn().Fragment()
		}
	}
	m.codecs = c.Audio
	r.viewFor(m, c)
	r.tune()
}

// hears reports whether there is a codec in which the client can be sent sound.
// The room is locked.
func (m *member) hears() bool {
	return m.codecs&acip.AudioRaw != 0 || EncodesOpus && m.codecs&acip.AudioOpus != 0
}

// stream starts or stops media.
func (m *member) stream(mask acip.StreamMask, start bool) {
	r := m.room
	r.mu.Lock()
	defer r.mu.Unlock()
	if start {
		m.streams |= mask
		m.stopped &^= mask
	} else {
		m.streams &^= mask
		m.stopped |= mask
		if mask&acip.StreamVideo != 0 && m.picture != nil {
			m.picture.Release()
			m.picture = nil
		}
		if mask&acip.StreamAudio != 0 {
			m.ring.reset()
		}
	}
	r.recount()
	r.tune()
	r.announce()
}

// image takes a picture. Only the latest counts.
func (m *member) image(payload []byte) error {
	if !m.pictures.Allow() {
		return nil
	}
	f, err := acip.ParseImageFrame(payload)
	if err != nil {
		return err
	}
	m.images++
	m.server.stats.imagesIn.Add(1)
	b := m.room.images.Get()
	b.B = append(b.B, f.Pixels...)
	m.room.show(m, b, render.Size{W: f.Width, H: f.Height})
	return nil
}

// leave takes the client out of its room and lets go of what it had.
func (m *member) leave() {
	m.server.leave(m)
	if m.video != nil {
		m.video.Close()
	}
}

// sentFrame measures the time between two frames. The room is locked.
func (m *member) sentFrame(now time.Time) {
	if !m.lastSent.IsZero() {
		if gap := int64(now.Sub(m.lastSent)); gap > m.gapMax.Load() {
			m.gapMax.Store(gap)
			if gap > m.server.stats.gapMax.Load() {
				m.server.stats.gapMax.Store(gap)
			}
		}
	}
	m.lastSent = now
}
