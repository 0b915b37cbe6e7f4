package chat

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/weft-ws/weft/acip"
	"github.com/weft-ws/weft/chat/render"
)

// A room is where clients see and hear each other.
type room struct {
	server *Server
	name   string

	mu      sync.Mutex
	members []*member // by slot, which is their order in the picture
	views   map[viewKey]*view
	mixer   *mixer
	frames  acip.BufferPool
	images  acip.BufferPool
	// sources counts the members that send video; when it changes, every
	// terminal is cleared.
	sources int
}

// viewKey is what clients share whose pictures are the same.
type viewKey struct {
	look render.Look
	fps  uint8
}

// join puts m into its room, in the lowest free slot.
func (s *Server) join(m *member) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.rooms[m.roomName]
	if r == nil {
		r = &room{server: s, name: m.roomName, views: map[viewKey]*view{}}
		s.rooms[m.roomName] = r
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.members) >= s.cfg.Room {
		return &acip.Violation{Rule: acip.RuleRate, Code: acip.CodeSessionFull, Detail: "the room is full"}
	}
	s.nextID++
	m.id = s.nextID
	m.name = fmt.Sprintf("guest-%d", m.id)
	for m.slot = 0; m.slot < len(r.members) && r.members[m.slot].slot == m.slot; m.slot++ {
	}
	r.members = slices.Insert(r.members, m.slot, m)
	m.room = r
	s.stats.joined.Add(1)
	r.announce()
	r.introduce()
	return nil
}

// leave takes m out of its room. A room without members is gone.
func (s *Server) leave(m *member) {
	r := m.room
	if r == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.members = slices.DeleteFunc(r.members, func(x *member) bool { return x == m })
	r.unview(m)
	m.streams = 0
	if m.picture != nil {
		m.picture.Release()
		m.picture = nil
	}
	for _, o := range r.members {
		delete(o.mutes, m.id)
	}
	r.recount()
	r.tune()
	r.announce()
	r.introduce()
	s.stats.left.Add(1)
	if len(r.members) == 0 && s.rooms[r.name] == r {
		delete(s.rooms, r.name)
	}
}

// announce tells everybody how many are there. r.mu is held.
func (r *room) announce() {
	st := acip.State{Connected: uint32(len(r.members)), Weft: true, Features: features}
	for _, m := range r.members {
		if m.streams != 0 {
			st.Active++
		}
	}
	o := acip.Out{Type: acip.TypeServerState, Payload: st.AppendTo(nil), Sealed: true}
	for _, m := range r.members {
		_ = m.sess.Link.Control(o) // a link that has ended says so itself
	}
}

// features are those of this program, as a server and as a client.
const features = acip.FeatureFragments | acip.FeatureText | acip.FeatureMute

// introduce tells all members that can mute each other who is there. r.mu is
// held.
func (r *room) introduce() {
	for _, m := range r.members {
		if m.features&acip.FeatureMute != 0 {
			r.list(m)
		}
	}
}

// list tells m who is there. r.mu is held.
func (r *room) list(m *member) {
	l := acip.Members{Own: m.id}
	for _, o := range r.members {
		l.List = append(l.List, acip.Member{ID: o.id, Name: o.name})
	}
	_ = m.sess.Link.Control(acip.Out{Type: acip.TypeMembers, Payload: l.AppendTo(nil), Sealed: true})
}

// mute leaves a member out of what m hears, or takes it in again. A member that
// has just left is none.
func (r *room) mute(m *member, x acip.Mute) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !x.On {
		delete(m.mutes, x.Client)
		return
	}
	if !slices.ContainsFunc(r.members, func(o *member) bool { return o.id == x.Client && o != m }) {
		return
	}
	if m.mutes == nil {
		m.mutes = map[uint32]bool{}
	}
	m.mutes[x.Client] = true
}

// recount clears all terminals if the number of pictures has changed. r.mu is
// held.
func (r *room) recount() {
	n := 0
	for _, m := range r.members {
		if m.picture != nil {
			n++
		}
	}
	if n == r.sources {
		return
	}
	r.sources = n
	for _, m := range r.members {
		if m.view != nil {
			m.cleared = false
		}
	}
}

// view gives m the picture that its capabilities ask for. r.mu is held.
func (r *room) viewFor(m *member, c *acip.Capabilities) {
	k := viewKey{render.LookOf(c), c.FPS}
	if m.view != nil && m.view.key == k {
		return
	}
	r.unview(m)
	v := r.views[k]
	if v == nil {
		v = &view{room: r, key: k, stop: make(chan struct{}), wake: make(chan struct{}, 1)}
		r.views[k] = v
		r.server.wait.Go(v.run)
	}
	v.members = append(v.members, m)
	m.view, m.cleared = v, false
}

// unview takes m's picture away. r.mu is held.
func (r *room) unview(m *member) {
	v := m.view
	if v == nil {
		return
	}
	m.view = nil
	v.members = slices.DeleteFunc(v.members, func(x *member) bool { return x == m })
	if len(v.members) == 0 {
		close(v.stop)
		delete(r.views, v.key)
	}
}

// A view renders the room for all members that share a viewKey, at their frame
// rate.
type view struct {
	room    *room
	key     viewKey
	stop    chan struct{}
	wake    chan struct{} // a picture has come
	members []*member     // under room.mu
}

// A pace decides when a view shows its next frame. It lets frames go at the
// rate that was asked for, no faster on average, and in step with the pictures
// where their rate allows: a picture need not wait for a clock of our own.
type pace struct {
	interval time.Duration
	saved    float64       // frames that may go beyond one per interval; refills, up to savedMax
	at       time.Time     // when saved was right
	last     time.Time     // when the last frame went
	picture  time.Time     // when the last picture came
	period   time.Duration // between the last two pictures
}

const (
	// A frame with a new picture may be early, and one without waits for a
	// picture that is expected; both by a fifth of an interval.
	slack = 5
	// savedMax bounds a burst. Who is half a frame behind its rate waits for
	// nothing.
	savedMax = 2
	// periodMax is how rare pictures may be, in intervals, to be waited for.
	periodMax = 3
)

// came notes a picture.
func (p *pace) came(now time.Time) { p.period, p.picture = now.Sub(p.picture), now }

// next returns how long to wait for the next frame; zero means now. fresh says
// that there is a picture which was not shown yet.
func (p *pace) next(now time.Time, fresh bool) time.Duration {
	p.saved = min(p.saved+float64(now.Sub(p.at))/float64(p.interval), savedMax)
	p.at = now
	due := p.last.Add(p.interval)
	if fresh {
		due = due.Add(-p.interval / slack)
	} else if expected := p.picture.Add(p.period); p.saved < 0.5 && p.period < periodMax*p.interval && expected.Add(p.interval/slack).After(now) {
		due = due.Add(p.interval / slack)
		if due.After(expected.Add(-p.interval + p.interval/slack)) {
			// A frame now would be in the way of the picture.
			due = expected.Add(p.interval / slack)
		}
	}
	if paid := now.Add(time.Duration(-p.saved * float64(p.interval))); paid.After(due) {
		due = paid
	}
	return max(due.Sub(now), 0)
}

// sent notes a frame.
func (p *pace) sent(now time.Time) { p.saved, p.last = p.saved-1, now }

// run renders until the view is closed. Frames go out at the rate that was
// asked for, whether or not something changed; what has not changed is not
// rendered again.
func (v *view) run() {
	renderer := render.New(v.key.look)
	p := pace{interval: time.Second / time.Duration(v.key.fps), saved: 1, at: time.Now()}
	timer := time.NewTimer(p.interval)
	defer timer.Stop()
	fresh := false
	var sources, last []render.Source
	var held []*acip.Buffer
	var frame *acip.Buffer // the last one
	defer func() {
		if frame != nil {
			frame.Release()
		}
	}()
	for {
		now := time.Now()
		if wait := p.next(now, fresh); wait > 0 {
			timer.Reset(wait)
			select {
			case <-v.stop:
				return
			case <-v.wake:
				fresh = true
				p.came(time.Now())
			case <-timer.C:
			}
			continue
		}
		p.sent(now)
		fresh = false
		sources, held = v.room.snapshot(sources[:0], held[:0])
		if len(sources) == 0 {
			if frame != nil {
				frame.Release()
				frame, last = nil, last[:0]
			}
			continue
		}
		if frame == nil || !same(sources, last) {
			next := v.room.frames.Get()
			next.B = append(next.B, make([]byte, acip.FrameHeaderSize)...)
			next.B = renderer.Append(next.B, sources)
			f := acip.ASCIIFrame{Width: v.key.look.Cols, Height: v.key.look.Rows}
			f.PutHeader(next.B)
			if frame != nil {
				frame.Release()
			}
			frame = next
			v.room.server.stats.rendered.Add(1)
			last = append(last[:0], sources...)
		} else {
			v.room.server.stats.reused.Add(1)
		}
		for _, b := range held {
			b.Release()
		}
		clear(held)
		v.send(frame)
	}
}

// same reports whether two frames would show the same.
func same(a, b []render.Source) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].ID != b[i].ID || a[i].Version != b[i].Version || a[i].Name != b[i].Name {
			return false
		}
	}
	return true
}

// send offers the frame to all members of the view.
func (v *view) send(frame *acip.Buffer) {
	r := v.room
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for _, m := range v.members {
		if !m.cleared {
			// Before the first frame, and whenever the number of pictures changed.
			m.cleared = true
			if m.sess.Link.Control(acip.Out{Type: acip.TypeClearConsole, Sealed: true}) != nil {
				continue
			}
		}
		m.sess.Link.Video(acip.TypeASCIIFrame, frame.Retain())
		m.sentFrame(now)
	}
}

// snapshot collects the pictures of the room; the caller releases held.
func (r *room) snapshot(dst []render.Source, held []*acip.Buffer) ([]render.Source, []*acip.Buffer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.members {
		if m.picture == nil {
			continue
		}
		if len(dst) == render.TilesMax {
			break
		}
		s := render.Source{Picture: render.Picture{Size: m.size, Pix: m.picture.Retain().B}, Version: m.version, ID: uint64(m.id)}
		if r.server.cfg.Names {
			s.Name = m.name
		}
		dst, held = append(dst, s), append(held, m.picture)
	}
	return dst, held
}

// show takes a new picture of m. It takes over the reference to b.
func (r *room) show(m *member, b *acip.Buffer, size render.Size) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m.stopped&acip.StreamVideo != 0 || m.room == nil {
		b.Release()
		return
	}
	first := m.picture == nil
	if !first {
		m.picture.Release()
	}
	m.picture, m.size = b, size
	m.version++
	for _, v := range r.views {
		select {
		case v.wake <- struct{}{}:
		default:
		}
	}
	if first {
		m.streams |= acip.StreamVideo
		r.recount()
		r.announce()
	}
}

// say sends a line of text to all members that can show it.
func (r *room) say(t acip.Text) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := acip.Out{Type: acip.TypeText, Payload: t.AppendTo(nil), Sealed: true}
	for _, m := range r.members {
		if m.features&acip.FeatureText != 0 {
			_ = m.sess.Link.Control(o)
		}
	}
}
