package chat

import (
	"github.com/weft-ws/weft/acip"
	"github.com/weft-ws/weft/chat/render"
)

// A VideoDecoder turns H.265 into pictures. Feed may drop data rather than
// wait; Picture returns the newest picture that was not returned yet.
type VideoDecoder interface {
	// Feed takes Annex B data of a stream whose pictures have the given size.
	Feed(data []byte, size render.Size) error
	// Picture appends the pixels, and reports whether there were any.
	Picture(dst []byte) (pix []byte, size render.Size, ok bool)
	Close() error
}

// h265 takes a packet of C clients that were not told to send raw pictures.
func (m *member) h265(payload []byte) error {
	f, err := acip.ParseH265Frame(payload)
	if err != nil {
		return err
	}
	if len(f.Data) == 0 {
		return nil // the first packet of C clients carries nothing
	}
	if m.video == nil && m.server.cfg.Decoder != nil && !m.warned {
		if m.video, err = m.server.cfg.Decoder(); err != nil {
			m.video = nil
			m.server.cfg.Logger.Info("no H.265 decoder", "peer", m.addr, "reason", err)
		}
	}
	if m.video == nil {
		if m.warned {
			return nil
		}
		m.warned = true
		e := acip.ErrorMessage{Code: acip.CodeParameter,
			Message: "this server cannot show H.265 video; start the client with --video-codec raw"}
		return m.sess.Link.Control(acip.Out{Type: acip.TypeError, Payload: e.AppendTo(nil), Sealed: true})
	}
	if err := m.video.Feed(f.Data, render.Size{W: f.Width, H: f.Height}); err != nil {
		m.server.cfg.Logger.Info("the H.265 decoder has ended", "peer", m.addr, "reason", err)
		m.video.Close()
		m.video = nil
		return nil
	}
	b := m.room.images.Get()
	if pix, size, ok := m.video.Picture(b.B); ok && m.pictures.Allow() {
		b.B = pix
		m.images++
		m.server.stats.imagesIn.Add(1)
		m.room.show(m, b, size)
	} else {
		b.Release()
	}
	return nil
}
