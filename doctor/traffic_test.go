package doctor_test

import (
	"bytes"
	"compress/flate"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	kflate "github.com/klauspost/compress/flate"

	"github.com/weft-ws/weft/capture"
	"github.com/weft-ws/weft/doctor"
	"github.com/weft-ws/weft/internal/wire"
)

var (
	connections = flag.Int("connections", legalConnections, "how many generated legal connections the doctor must find nothing in")
	firstSeed   = flag.Uint64("seed", 1, "seed of the first generated connection")
)

// A traffic is a generated legal connection: what two correct ends, each with
// its own delays and moods, may put on the wire.
type traffic struct {
	rng    *rand.Rand
	now    time.Time
	chunks []capture.Chunk
	opts   doctor.Options
	ends   [2]*end
}

// messageMax is what both ends accept: more than any message drawn.
const messageMax = 200_000

// An end is one side of a generated connection.
type end struct {
	t         *traffic
	side      capture.Side
	peer      *end
	pieces    [][]byte // of the open message, still to be sent
	first     bool     // the next piece begins the message
	opcode    wire.Opcode
	packed    bool // the message is compressed
	inbox     []delivery
	owed      [][]byte // pings to answer
	pinged    int      // pings of ours without an answer on the wire
	sentClose bool
	gotClose  bool
	deflate   *compressor
}

// A delivery is a frame under way to the other end.
type delivery struct {
	opcode  wire.Opcode
	payload []byte
}

// A compressor makes compressed messages within a window.
type compressor struct {
	buf bytes.Buffer
	w   interface {
		Write([]byte) (int, error)
		Flush() error
	}
	reset    func()
	takeover bool
	used     bool
}

func newCompressor(rng *rand.Rand, bits int, takeover bool) *compressor {
	c := &compressor{takeover: takeover}
	if bits == 15 {
		w, err := flate.NewWriter(&c.buf, rng.IntN(12)-2)
		if err != nil {
			panic(err)
		}
		c.w, c.reset = w, func() { w.Reset(&c.buf) }
		return c
	}
	w, err := kflate.NewWriterWindow(&c.buf, 1<<bits)
	if err != nil {
		panic(err)
	}
	c.w, c.reset = w, func() { w.Reset(&c.buf) }
	return c
}

// message compresses one message as RFC 7692, 7.2.1 says.
func (c *compressor) message(p []byte) []byte {
	c.buf.Reset()
	if c.used && !c.takeover {
		c.reset()
	}
	c.used = true
	if len(p) == 0 {
		return []byte{0}
	}
	if _, err := c.w.Write(p); err != nil {
		panic(err)
	}
	if err := c.w.Flush(); err != nil {
		panic(err)
	}
	return bytes.Clone(bytes.TrimSuffix(c.buf.Bytes(), []byte{0, 0, 0xff, 0xff}))
}

// newTraffic generates the connection of a seed.
func newTraffic(seed uint64) *traffic {
	rng := rand.New(rand.NewPCG(seed, 0x77656674))
	t := &traffic{rng: rng, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	t.ends = [2]*end{{t: t, side: capture.Client}, {t: t, side: capture.Server}}
	t.ends[0].peer, t.ends[1].peer = t.ends[1], t.ends[0]
	t.opts.Handshake = rng.IntN(4) > 0
	t.opts.Client.MessageSize, t.opts.Server.MessageSize = messageMax, messageMax
	t.open()
	for range rng.IntN(120) {
		t.step()
	}
	t.finish()
	return t
}

func (t *traffic) send(from *end, p []byte) {
	t.chunks = append(t.chunks, capture.Chunk{From: from.side, At: t.now, Data: p})
}

// open agrees on extensions and writes the opening handshake.
func (t *traffic) open() {
	rng := t.rng
	offer, answer := "", ""
	if rng.IntN(4) == 0 {
		offer, answer = t.negotiate()
	}
	if !t.opts.Handshake {
		t.opts.Extensions = answer
		return
	}
	var nonce [16]byte
	for i := range nonce {
		nonce[i] = byte(rng.Uint32())
	}
	key := base64.StdEncoding.EncodeToString(nonce[:])
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	request := []string{"Host: " + pick(rng, "example.com", "example.com:8080", "[::1]:9"), "Upgrade: " + pick(rng, "websocket", "WebSocket", "h2c, websocket"),
		"Connection: " + pick(rng, "Upgrade", "keep-alive, Upgrade", "upgrade"), "Sec-WebSocket-Key: " + key, "Sec-WebSocket-Version: 13"}
	response := []string{"Upgrade: " + pick(rng, "websocket", "WebSocket"), "Connection: " + pick(rng, "Upgrade", "upgrade", "Upgrade, keep-alive"),
		"Sec-WebSocket-Accept: " + base64.StdEncoding.EncodeToString(sum[:])}
	if rng.IntN(2) == 0 {
		request = append(request, "User-Agent: Mozilla/5.0", "Origin: http://example.com", "Sec-Fetch-Mode: websocket")
	}
	if rng.IntN(3) == 0 {
		request = append(request, "Sec-WebSocket-Protocol: "+pick(rng, "chat", "mcp, chat", "chat,acip"))
		if rng.IntN(2) == 0 {
			response = append(response, "Sec-WebSocket-Protocol: chat")
		}
	}
	if offer != "" {
		request = append(request, "Sec-WebSocket-Extensions: "+offer)
	}
	if answer != "" {
		response = append(response, "Sec-WebSocket-Extensions: "+answer)
	}
	head := func(first string, lines []string) []byte {
		rng.Shuffle(len(lines), func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
		for i, l := range lines {
			name, value, _ := strings.Cut(l, ": ")
			lines[i] = pick(rng, name, strings.ToLower(name), strings.ToUpper(name)) + ":" + pick(rng, " ", "", "\t ") + value + pick(rng, "", " ")
		}
		return []byte(first + "\r\n" + strings.Join(lines, "\r\n") + "\r\n\r\n")
	}
	t.send(t.ends[0], head("GET "+pick(rng, "/", "/chat?a=b", "ws://example.com/x")+" HTTP/1.1", request))
	t.now = t.now.Add(time.Duration(rng.IntN(1000)) * time.Millisecond)
	if rng.IntN(20) == 0 {
		t.send(t.ends[1], []byte("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"))
	}
	t.send(t.ends[1], head(pick(rng, "HTTP/1.1 101 Switching Protocols", "HTTP/1.1 101 ", "HTTP/1.1 101"), response))
}

func pick(rng *rand.Rand, s ...string) string { return s[rng.IntN(len(s))] }

// negotiate draws an offer of permessage-deflate and a fitting answer.
func (t *traffic) negotiate() (offer, answer string) {
	rng := t.rng
	bits, takeover := [2]int{15, 15}, [2]bool{true, true}
	offer, answer = "permessage-deflate", "permessage-deflate"
	if rng.IntN(2) == 0 {
		offer += "; client_max_window_bits"
		if rng.IntN(2) == 0 {
			bits[0] = 8 + rng.IntN(8)
			answer += fmt.Sprintf("; client_max_window_bits=%d", bits[0])
		}
	}
	if rng.IntN(2) == 0 {
		want := 8 + rng.IntN(8)
		bits[1] = 8 + rng.IntN(want-7)
		offer += fmt.Sprintf("; server_max_window_bits=%d", want)
		answer += fmt.Sprintf("; server_max_window_bits=%d", bits[1])
	}
	if rng.IntN(3) == 0 {
		takeover[1] = false
		offer += "; server_no_context_takeover"
		answer += "; server_no_context_takeover"
	}
	if rng.IntN(3) == 0 {
		takeover[0] = false
		answer += "; client_no_context_takeover"
	}
	if rng.IntN(4) == 0 {
		offer = pick(rng, "x-unknown; a=1, ", "permessage-deflate; oops, ", "") + offer + pick(rng, ", permessage-deflate", "")
	}
	for i, e := range t.ends {
		e.deflate = newCompressor(rng, bits[i], takeover[i])
	}
	return offer, answer
}

// frame puts one frame on the wire.
func (e *end) frame(op wire.Opcode, fin, rsv1 bool, payload []byte) {
	h := wire.Header{Fin: fin, RSV1: rsv1, Opcode: op, Masked: e.side == capture.Client, Length: uint64(len(payload))}
	if h.Masked {
		k := e.t.rng.Uint32()
		h.Key = [4]byte{byte(k), byte(k >> 8), byte(k >> 16), byte(k >> 24)}
	}
	b := wire.AppendHeader(nil, h)
	n := len(b)
	b = append(b, payload...)
	if h.Masked {
		wire.Mask(h.Key, b[n:])
	}
	e.t.send(e, b)
	if op.Control() {
		e.peer.inbox = append(e.peer.inbox, delivery{op, payload})
	}
}

// begin draws a message and cuts it.
func (e *end) begin() {
	rng := e.t.rng
	size := rng.IntN(40)
	switch rng.IntN(100) {
	case 0:
		size = rng.IntN(70000)
	case 1, 2, 3, 4, 5, 6, 7, 8, 9, 10:
		size = rng.IntN(2000)
	}
	e.opcode = wire.Binary
	var p []byte
	if rng.IntN(2) == 0 {
		e.opcode = wire.Text
		for len(p) < size {
			r := rune(rng.IntN(0x80))
			switch rng.IntN(8) {
			case 0:
				r = rune(0x80 + rng.IntN(0x780))
			case 1:
				r = rune(0xe000 + rng.IntN(0x2000))
			case 2:
				r = rune(0x10000 + rng.IntN(0x100000))
			}
			p = append(p, string(r)...)
		}
	} else {
		for len(p) < size {
			if len(p) > 8 && rng.IntN(3) == 0 {
				// Something that came before, so that there is something to compress.
				back := 1 + rng.IntN(len(p))
				p = append(p, p[len(p)-back:len(p)-back+rng.IntN(back)]...)
			} else {
				p = binary.NativeEndian.AppendUint64(p, rng.Uint64())
			}
		}
	}
	e.packed = e.deflate != nil && rng.IntN(4) > 0
	if e.packed {
		p = e.deflate.message(p)
	}
	e.first, e.pieces = true, nil
	for rng.IntN(3) == 0 && len(e.pieces) < 20 {
		n := rng.IntN(len(p) + 1)
		e.pieces, p = append(e.pieces, p[:n]), p[n:]
	}
	e.pieces = append(e.pieces, p)
}

// piece sends the next fragment.
func (e *end) piece() {
	op := wire.Continuation
	if e.first {
		op = e.opcode
	}
	p := e.pieces[0]
	e.pieces = e.pieces[1:]
	e.frame(op, len(e.pieces) == 0, e.packed && e.first, p)
	e.first = false
}

// read takes in the next frame that is under way to us.
func (e *end) read() {
	if len(e.inbox) == 0 {
		return
	}
	d := e.inbox[0]
	e.inbox = e.inbox[1:]
	switch d.opcode {
	case wire.Ping:
		e.owed = append(e.owed, d.payload)
	case wire.Close:
		e.gotClose = true
	}
}

// pong answers pings: all, or only the last one.
func (e *end) pong() {
	if len(e.owed) == 0 || e.sentClose {
		return
	}
	if e.t.rng.IntN(2) == 0 {
		e.owed = e.owed[len(e.owed)-1:]
	}
	for _, p := range e.owed {
		e.frame(wire.Pong, true, false, p)
	}
	e.owed = nil
	e.peer.pinged = 0
	for _, d := range e.inbox {
		if d.opcode == wire.Ping {
			e.peer.pinged++
		}
	}
}

func (e *end) close() {
	if e.sentClose {
		return
	}
	e.pong()
	e.sentClose = true
	var body []byte
	if e.t.rng.IntN(3) > 0 {
		codes := []int{1000, 1001, 1003, 1007, 1008, 1009, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999}
		c := codes[e.t.rng.IntN(len(codes))]
		body = append([]byte{byte(c >> 8), byte(c)}, pick(e.t.rng, "", "bye", "grüße 🧶", strings.Repeat("x", 123))...)
	}
	e.frame(wire.Close, true, false, body)
}

func (e *end) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(e.t.rng.Uint32())
	}
	return b
}

// step lets one end do something.
func (t *traffic) step() {
	rng := t.rng
	t.now = t.now.Add(time.Duration(rng.IntN(50)) * time.Millisecond)
	if rng.IntN(30) == 0 && t.ends[0].pinged+t.ends[1].pinged == 0 && !(t.ends[0].sentClose && t.ends[1].sentClose) {
		t.now = t.now.Add(time.Duration(rng.IntN(3600)) * time.Second)
	}
	e := t.ends[rng.IntN(2)]
	switch k := rng.IntN(100); {
	case k < 30:
		e.read()
	case k < 45:
		e.pong()
	case e.gotClose && k < 70:
		e.close()
	case e.sentClose:
	case k < 85:
		if len(e.pieces) == 0 {
			e.begin()
		}
		e.piece()
	case k < 92:
		e.frame(wire.Ping, true, false, e.bytes(rng.IntN(126)))
		if !e.peer.sentClose {
			e.pinged++
		}
	case k < 95:
		e.frame(wire.Pong, true, false, e.bytes(rng.IntN(126)))
	case k < 96 && rng.IntN(4) == 0:
		e.close()
	}
}

// finish ends the connection in one of the ways that break no rule.
func (t *traffic) finish() {
	rng := t.rng
	fin := func(e *end, how capture.EndKind) {
		t.chunks = append(t.chunks, capture.Chunk{From: e.side, At: t.now, End: how})
	}
	client, server := t.ends[0], t.ends[1]
	switch rng.IntN(8) {
	case 0:
		return // the recording stops
	case 1:
		// Both finish what they are at, and TCP ends without a Close; no rule
		// says more than that this is abnormal.
		if client.sentClose || server.sentClose {
			break
		}
		for _, e := range t.ends {
			for len(e.pieces) > 0 {
				e.piece()
			}
		}
		a, b := client, server
		if rng.IntN(2) == 0 {
			a, b = b, a
		}
		fin(a, []capture.EndKind{capture.FIN, capture.RST}[rng.IntN(2)])
		fin(b, []capture.EndKind{capture.FIN, capture.RST}[rng.IntN(2)])
		return
	case 2:
		// The client announces more than the server takes, and the server
		// closes before it has come.
		if client.sentClose || server.sentClose || len(client.pieces) > 0 {
			break
		}
		for len(server.pieces) > 0 {
			server.piece()
		}
		client.frame(wire.Binary, true, false, make([]byte, messageMax+1))
		c := &t.chunks[len(t.chunks)-1]
		c.Data = c.Data[:rng.IntN(len(c.Data)-1)+1]
		t.now = t.now.Add(time.Duration(rng.IntN(4000)) * time.Millisecond)
		server.frame(wire.Close, true, false, []byte{0x03, 0xf1}) // 1009
		fin(server, capture.FIN)
		fin(client, capture.RST)
		return
	}
	a, b := client, server
	if rng.IntN(2) == 0 {
		a, b = b, a
	}
	a.close()
	for len(b.inbox) > 0 {
		b.read()
	}
	for rng.IntN(3) > 0 && len(b.pieces) > 0 && !b.sentClose {
		b.piece()
	}
	b.close()
	t.now = t.now.Add(time.Duration(rng.IntN(2000)) * time.Millisecond)
	fin(server, capture.FIN)
	fin(client, []capture.EndKind{capture.FIN, capture.RST}[rng.IntN(2)])
}

// judge runs the doctor over the chunks, cut as rng likes.
func (t *traffic) judge(rng *rand.Rand) *doctor.Inspector {
	in := doctor.New(t.opts)
	for _, c := range t.chunks {
		if c.End != capture.Open {
			in.Chunk(c)
			continue
		}
		for p := c.Data; len(p) > 0; {
			n := len(p)
			if rng.IntN(4) == 0 {
				n = 1 + rng.IntN(len(p))
			}
			in.Write(c.From, c.At, p[:n])
			p = p[n:]
		}
	}
	return in
}

// TestLegalTraffic: the doctor finds nothing in legal connections, whatever
// they look like. A failure prints the seed, to be given with -seed and
// -connections 1.
func TestLegalTraffic(t *testing.T) {
	var frames, packed, fragmented int64
	for i := range uint64(*connections) {
		seed := *firstSeed + i
		tr := newTraffic(seed)
		in := tr.judge(tr.rng)
		if f := in.Findings(); len(f) > 0 {
			var text strings.Builder
			f[0].WriteText(&text)
			t.Fatalf("seed %d: a legal connection has %d findings, the first\n%s", seed, len(f), text.String())
		}
		for _, side := range []capture.Side{capture.Client, capture.Server} {
			if why := in.Blind(side); why != "" {
				t.Fatalf("seed %d: the %s was not judged to the end: %s", seed, side, why)
			}
			frames += in.Frames(side)
		}
		if tr.ends[0].deflate != nil {
			packed++
		}
		if !tr.ends[0].first && len(tr.ends[0].pieces) > 0 {
			fragmented++
		}
	}
	t.Logf("%d connections, %d frames; %d with permessage-deflate, %d left inside a fragmented message", *connections, frames, packed, fragmented)
	// The generator must not dry up unnoticed.
	if n := int64(*connections); n >= 1000 && (frames < 10*n || packed < n/8 || fragmented == 0) {
		t.Error("the generated traffic has lost its variety")
	}
}

// TestCutsDoNotMatter: events do not depend on how the bytes were cut.
func TestCutsDoNotMatter(t *testing.T) {
	for seed := range uint64(150) {
		tr := newTraffic(seed)
		damage(tr, rand.New(rand.NewPCG(seed, 1)))
		events := func(size int) string {
			var b strings.Builder
			in := doctor.New(tr.opts)
			for _, c := range tr.chunks {
				if c.End != capture.Open {
					in.Chunk(c)
				}
				for p := c.Data; len(p) > 0; {
					n := min(size, len(p))
					for ev := range in.Feed(c.From, c.At, p[:n]) {
						switch {
						case ev.Frame != nil:
							fmt.Fprintf(&b, "%+v\n", *ev.Frame)
						case ev.Opening != nil:
							fmt.Fprintf(&b, "%+v\n", *ev.Opening)
						}
					}
					p = p[n:]
				}
			}
			for _, f := range in.Findings() {
				fmt.Fprintf(&b, "%+v\n", f)
			}
			return b.String()
		}
		whole := events(1 << 30)
		for _, size := range []int{1, 2, 7, 100} {
			if got := events(size); got != whole {
				t.Fatalf("seed %d: in pieces of %d bytes:\n%s\nwhole:\n%s", seed, size, got, whole)
			}
		}
	}
}

// damage changes a few bytes of a connection.
func damage(tr *traffic, rng *rand.Rand) {
	if len(tr.chunks) == 0 {
		return
	}
	for range rng.IntN(4) {
		c := &tr.chunks[rng.IntN(len(tr.chunks))]
		if len(c.Data) == 0 {
			continue
		}
		at := rng.IntN(len(c.Data))
		if rng.IntN(2) == 0 {
			at = rng.IntN(min(4, len(c.Data))) // headers are where it hurts
		}
		switch rng.IntN(3) {
		case 0:
			c.Data[at] ^= 1 << rng.IntN(8)
		case 1:
			c.Data[at] = byte(rng.Uint32())
		case 2:
			c.Data = append(c.Data[:at:at], c.Data[at+1:]...)
		}
	}
}

// TestDamagedTraffic: whatever comes, the doctor neither panics nor goes on for
// ever, and what it says can be printed.
func TestDamagedTraffic(t *testing.T) {
	found := map[string]int{}
	for seed := range uint64(3000) {
		tr := newTraffic(seed)
		damage(tr, rand.New(rand.NewPCG(seed, 2)))
		tr.opts.FindingsMax = 5
		in := tr.judge(tr.rng)
		if n := len(in.Findings()); n > 5 || in.Lost() > 0 && n != 5 {
			t.Fatalf("seed %d: %d findings, %d lost; at most 5 were asked for", seed, n, in.Lost())
		}
		for i := range in.Findings() {
			f := &in.Findings()[i]
			found[f.Rule.ID]++
			var b strings.Builder
			if err := f.WriteText(&b); err != nil || !strings.Contains(b.String(), f.Rule.Name) {
				t.Fatalf("seed %d: %v, printed as %q, error %v", seed, f, b.String(), err)
			}
			if _, err := f.MarshalJSON(); err != nil {
				t.Fatalf("seed %d: %v: %v", seed, f, err)
			}
		}
	}
	if len(found) < 15 {
		t.Errorf("damage led to %d rules only: %v", len(found), found)
	}
	t.Logf("%v", found)
}
