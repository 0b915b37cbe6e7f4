package wstest

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-ws/weft/internal/proto"
	"github.com/weft-ws/weft/internal/wire"
)

// A Peer is one end of a connection that a test plays by hand, frame by frame,
// legal or not. It answers nothing by itself. Frames are written in the
// language of the vectors (testdata/vectors/README.md):
//
//	peer.Send(`TEXT fin=0 "hel"`, `PING "x"`)
//	peer.Want(`PONG "x"`)
//	peer.WantClose(1008, "an unfinished message must end in silence too")
//
// A Peer belongs to the test's goroutine: it ends the test when it does not get
// what it wants.
type Peer struct {
	Conn net.Conn
	Role proto.Role // the end that the Peer plays
	// Patience is how long it waits for what it wants, by the clock of the
	// bubble if there is one. Default a minute.
	Patience time.Duration

	t    testing.TB
	sent int // frames, from which the masking keys follow
	in   []byte
	got  int64 // frames received
}

// NewPeer returns a Peer that plays the given role on nc.
func NewPeer(t testing.TB, nc net.Conn, role proto.Role) *Peer {
	return &Peer{Conn: nc, Role: role, Patience: time.Minute, t: t}
}

// A Frame is a frame as a Peer received it, unmasked.
type Frame struct {
	wire.Header
	Payload []byte
}

// String describes the frame in the language of the vectors.
func (f Frame) String() string {
	s := f.Opcode.String()
	if !f.Fin {
		s += " fin=0"
	}
	for i, set := range []bool{f.RSV1, f.RSV2, f.RSV3} {
		if set {
			s += fmt.Sprintf(" rsv%d", i+1)
		}
	}
	switch n := len(f.Payload); {
	case n > 64:
		return s + fmt.Sprintf(" x:%x… (%d bytes)", f.Payload[:16], n)
	case n > 0 && bytes.IndexFunc(f.Payload, func(r rune) bool { return r < ' ' || r > '~' }) < 0:
		return s + fmt.Sprintf(" %q", f.Payload)
	case n > 0:
		return s + fmt.Sprintf(" x:%x", f.Payload)
	}
	return s
}

// Frames returns the frames as they stand on the wire when the Peer sends them
// next, one element per frame.
func (p *Peer) Frames(lines ...string) [][]byte {
	p.t.Helper()
	var out [][]byte
	for _, line := range lines {
		for _, f := range p.parse(line) {
			out = append(out, f.append(nil, p.Role, p.sent))
			p.sent++
		}
	}
	return out
}

func (p *Peer) parse(line string) []VectorFrame {
	p.t.Helper()
	frames, err := parseFrames(line)
	if err != nil {
		p.t.Fatalf("%s: %v", line, err)
	}
	return frames
}

// Send sends the frames in one write.
func (p *Peer) Send(lines ...string) {
	p.t.Helper()
	p.SendBytes(bytes.Join(p.Frames(lines...), nil))
}

// SendFrame sends a frame with the given payload.
func (p *Peer) SendFrame(op wire.Opcode, fin bool, payload []byte) {
	p.t.Helper()
	f := VectorFrame{Header: wire.Header{Opcode: op, Fin: fin, Length: uint64(len(payload))}, Payload: payload}
	p.sent++
	p.SendBytes(f.append(nil, p.Role, p.sent-1))
}

// SendBytes sends b as it is.
func (p *Peer) SendBytes(b []byte) {
	p.t.Helper()
	p.check(p.Conn.SetWriteDeadline(time.Now().Add(p.Patience)))
	if n, err := p.Conn.Write(b); err != nil {
		p.t.Fatalf("peer: sent %d of %d bytes: %v", n, len(b), err)
	}
}

func (p *Peer) check(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatalf("peer: %v", err)
	}
}

// frameMax bounds what a Peer collects for one frame, in bytes.
const frameMax = 1 << 30

// Read returns the next frame, or how the stream ended.
func (p *Peer) Read() (Frame, error) {
	_ = p.Conn.SetReadDeadline(time.Now().Add(p.Patience))
	for {
		h, n := wire.ParseHeader(p.in)
		if n > 0 && h.Length > frameMax {
			return Frame{}, fmt.Errorf("frame of %d bytes", h.Length)
		}
		if size := n + int(h.Length); n > 0 && len(p.in) >= size {
			f := Frame{Header: h, Payload: bytes.Clone(p.in[n:size])}
			if h.Masked {
				wire.Mask(h.Key, f.Payload)
			}
			p.in = p.in[size:]
			p.got++
			return f, nil
		}
		buf := make([]byte, 64<<10)
		n, err := p.Conn.Read(buf)
		if p.in = append(p.in, buf[:n]...); n == 0 && err != nil {
			return Frame{}, err
		}
	}
}

// Next returns the next frame.
func (p *Peer) Next() Frame {
	p.t.Helper()
	f, err := p.Read()
	if err != nil {
		p.t.Fatalf("peer: instead of frame %d: %v", p.got+1, err)
	}
	return f
}

// Want reads as many frames as it is given and compares them.
func (p *Peer) Want(lines ...string) {
	p.t.Helper()
	for _, line := range lines {
		for _, w := range p.parse(line) {
			want := Frame{Header: w.Header, Payload: w.Payload}
			f := p.Next()
			if f.String() != want.String() || !bytes.Equal(f.Payload, want.Payload) {
				p.t.Fatalf("peer: frame %d is %v, want %v", p.got, f, want)
			}
		}
	}
}

// WantClose reads a Close frame with the given code.
func (p *Peer) WantClose(code wire.CloseCode, why string) (reason string) {
	p.t.Helper()
	f := p.Next()
	if f.Opcode != wire.Close {
		p.t.Fatalf("peer: got %v, want CLOSE %v: %s", f, code, why)
	}
	return p.closeCode(f, code, why)
}

// WantCloseAfter skips everything before a Close frame with the given code.
func (p *Peer) WantCloseAfter(code wire.CloseCode, why string) (reason string) {
	p.t.Helper()
	for {
		f, err := p.Read()
		if err != nil {
			p.t.Fatalf("peer: want CLOSE %v: %v: %s", code, err, why)
		}
		if f.Opcode == wire.Close {
			return p.closeCode(f, code, why)
		}
	}
}

func (p *Peer) closeCode(f Frame, code wire.CloseCode, why string) string {
	p.t.Helper()
	got, reason := wire.CloseNoStatus, ""
	if len(f.Payload) >= 2 {
		got = wire.CloseCode(f.Payload[0])<<8 | wire.CloseCode(f.Payload[1])
		reason = string(f.Payload[2:])
	}
	if got != code {
		p.t.Fatalf("peer: got CLOSE %v %q, want %v: %s", got, reason, code, why)
	}
	return reason
}

// WantMessage reads a message, however it is fragmented, and compares it. It
// returns the frames, control frames between the fragments included.
func (p *Peer) WantMessage(op wire.Opcode, payload []byte) []Frame {
	p.t.Helper()
	var frames []Frame
	var got []byte
	for {
		f := p.Next()
		frames = append(frames, f)
		if f.Opcode.Control() {
			continue
		}
		want := op
		if len(got) > 0 || f.Opcode == wire.Continuation {
			want = wire.Continuation
		}
		if f.Opcode != want {
			p.t.Fatalf("peer: frame %d is %v, want %v", p.got, f, want)
		}
		if got = append(got, f.Payload...); f.Fin {
			break
		}
	}
	if !bytes.Equal(got, payload) {
		p.t.Fatalf("peer: message of %d bytes, %.40q…, want %d bytes, %.40q…", len(got), got, len(payload), payload)
	}
	return frames
}

// WantEnd expects the other end to close TCP in order, with nothing before.
func (p *Peer) WantEnd(why string) {
	p.t.Helper()
	if f, err := p.Read(); err != io.EOF {
		p.t.Fatalf("peer: got %v, %v, want the end of the stream: %s", f, err, why)
	}
}

// WantNothing expects that nothing has come when everybody in the bubble waits.
func (p *Peer) WantNothing(why string) {
	p.t.Helper()
	synctest.Wait()
	if n := len(p.in) + p.Conn.(*PipeConn).Buffered(); n > 0 {
		f, err := p.Read()
		p.t.Fatalf("peer: got %v, %v, want nothing: %s", f, err, why)
	}
}

// Close closes the Peer's end of TCP.
func (p *Peer) Close() { _ = p.Conn.Close() }
