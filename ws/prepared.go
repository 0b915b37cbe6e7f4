package ws

import (
	"context"
	"sync"

	"github.com/weft-ws/weft/internal/deflate"
	"github.com/weft-ws/weft/internal/proto"
	"github.com/weft-ws/weft/internal/wire"
)

// A Prepared message is checked, framed and compressed once for each variant
// that its receivers need, and sent to many. It is safe for concurrent use.
type Prepared struct {
	op wire.Opcode
	p  []byte

	mu       sync.Mutex
	variants map[variant][]byte
}

// A variant is what makes the bytes of a message differ between connections of
// a server.
type variant struct {
	fragment   int
	compressed bool
	windowBits int
	level      int
}

// NewPrepared prepares a message. It keeps p, which must not be changed. Text
// that is not UTF-8 is refused.
func NewPrepared(typ MessageType, p []byte) (*Prepared, error) {
	if typ != Text && typ != Binary {
		return nil, errMessageType
	}
	if typ == Text && !wire.ValidUTF8(p) {
		return nil, errNotUTF8
	}
	return &Prepared{op: wire.Opcode(typ), p: p, variants: make(map[variant][]byte)}, nil
}

// WritePrepared sends a prepared message, as WriteMessage would. A client masks
// each copy anew, and a compressing connection with context takeover compresses
// it anew; all others share the frames.
func (c *Conn) WritePrepared(ctx context.Context, m *Prepared) error {
	w := &c.w
	packed := w.deflater != nil && len(m.p) >= w.deflater.threshold
	if c.role == RoleClient || packed && c.ownTakeover() {
		return c.writeMessage(ctx, m.op, m.p)
	}
	v := variant{fragment: c.cfg.FragmentSize, compressed: packed}
	if packed {
		v.windowBits, v.level = c.ownWindowBits(), c.cfg.Compression.Level
	}
	frames, err := m.frames(c, v)
	if err != nil {
		return err
	}
	if len(frames) > preparedMax {
		// Long enough for a control frame to be wanted between its fragments.
		return c.writeMessage(ctx, m.op, m.p)
	}
	return c.writeFramed(ctx, m, frames, packed)
}

// preparedMax is the length of frames up to which a prepared message leaves in
// one piece.
const preparedMax = batchMax

// frames returns the frames of the variant.
func (m *Prepared) frames(c *Conn, v variant) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if f, ok := m.variants[v]; ok {
		return f, nil
	}
	p := m.p
	if v.compressed {
		var d deflate.Deflater
		d.Reset(v.windowBits, false)
		d.SetLevel(v.level)
		p = d.AppendMessage(nil, p)
		d.Close()
	}
	size := len(p)
	if v.fragment > 0 {
		size = c.fragmentMax()
		if c.single(len(p)) {
			size = len(p)
		}
	}
	s := proto.NewSender(RoleServer, nil)
	var out []byte
	for first := true; first || len(p) > 0; first = false {
		n := proto.Cut(p, size, m.op == wire.Text && !v.compressed)
		h, err := s.Data(m.op, n == len(p), v.compressed, n)
		if err != nil {
			return nil, err
		}
		out = proto.AppendFrame(out, *h, p[:n])
		p = p[n:]
	}
	m.variants[v] = out
	return out, nil
}

// writeFramed sends frames that are framed already, as one message.
func (c *Conn) writeFramed(ctx context.Context, m *Prepared, frames []byte, packed bool) error {
	w := &c.w
	w.mu.Lock()
	if err := c.acquire(ctx, m.op, nil, false); err != nil {
		return err
	}
	if err := w.halt(); err != nil {
		return c.finish(err)
	}
	b := c.begin()
	// Step the Sender over the frames, so that the rule is checked and the frame
	// is counted, as for any other message.
	frags, size := 0, int64(0)
	for at := 0; at < len(frames); frags++ {
		h, n := wire.ParseHeader(frames[at:])
		if _, err := w.sender.Data(m.op, h.Fin, packed, int(h.Length)); err != nil {
			return c.ownFault(b, err)
		}
		c.traceFrame()
		at += n + int(h.Length)
		size += int64(h.Length)
	}
	b.size += len(frames)
	b.bufs = append(b.bufs, frames)
	b.pieces = append(b.pieces, piece{turn: &b.self, end: true, frames: frags})
	w.mu.Unlock()
	err := b.write(ctx)
	w.mu.Lock()
	w.waited(b.waited)
	taken := b.self.err
	if err == errOthers {
		c.lend(b)
		err = nil
	} else {
		b.free()
	}
	if err == nil && taken == nil {
		w.sent.message(size, frags)
	}
	if err == nil && taken != nil {
		err = &unsentError{taken}
	}
	return c.finish(err)
}
