package chat

import (
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
	for m.slot = 0; m.slot < len(r.members) && r.members[m.slot].slot == m.slot; m.slot++ {
	}
	r.members = slices.Insert(r.members, m.slot, m)
	m.room = r
	s.stats.joined.Add(1)
	r.announce()
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
	r.recount()
	r.tune()
	r.announce()
	s.stats.left.Add(1)
	if len(r.members) == 0 && s.rooms[r.name] == r {
		delete(s.rooms, r.name)
	}
}

// announce tells everybody how many are there. r.mu is held.
func (r *room) announce() {
	st := acip.State{Connected: uint32(len(r.members)), Weft: true, Features: acip.FeatureFragments | acip.FeatureText}
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
		v = &view{room: r, key: k, stop: make(chan struct{})}
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
	members []*member // under room.mu
}

// run renders until the view is closed. Frames go out at the rate that was
// asked for, whether or not something changed; what has not changed is not
// rendered again.
func (v *view) run() {
	renderer := render.New(v.key.look)
	tick := time.NewTicker(time.Second / time.Duration(v.key.fps))
	defer tick.Stop()
	var sources, last []render.Source
	var held []*acip.Buffer
	var frame *acip.Buffer // the last one
	defer func() {
		if frame != nil {
			frame.Release()
		}
	}()
	for {
		select {
		case <-v.stop:
			return
		case <-tick.C:
		}
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
