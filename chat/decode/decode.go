// Package decode reads ACIP sessions out of recordings of network traffic: TCP
// segments from pcap and pcapng files, put back in order, stripped of HTTP and
// WebSocket framing where there is any, cut into packets and, if the session
// key is at hand, decrypted.
//
// It judges as strictly as a peer would, but reports what it finds and goes on
// with the other connections.
package decode

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/netip"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/weft-ws/weft/acip"
	"github.com/weft-ws/weft/internal/wire"
)

const (
	// aheadMax bounds the bytes held of one direction while a segment before
	// them is missing.
	aheadMax = 16 << 20
	// flowsMax bounds the connections in one recording.
	flowsMax = 4096
	// headMax bounds an HTTP head.
	headMax = 64 << 10
)

// An Entry is one thing that a recording shows: a packet, an end of a
// direction, or an error after which that direction is not decoded further.
type Entry struct {
	At         time.Time
	FromServer bool
	Client     netip.AddrPort // names the connection
	Server     netip.AddrPort
	WebSocket  bool

	// Packet is the packet in the clear; its payload is valid until the next
	// entry. Type ENCRYPTED means that no key opened it.
	Packet acip.Packet
	// Sealed says that it travelled inside ENCRYPTED; Counter is its nonce
	// counter.
	Sealed  bool
	Counter uint64
	// End is "FIN" or "RST"; then there is no packet.
	End string
	// Err ends the decoding of this direction.
	Err error
}

// Read decodes the recording r. Each of keys is tried on each connection.
// The iteration ends with a non-nil second value if the file itself cannot be
// read.
func Read(r io.Reader, keys []acip.Key) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		src, err := open(r)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		d := decoder{flows: map[flowID]*flow{}, keys: keys}
		for {
			data, ci, err := src.ReadPacketData()
			if err == io.EOF {
				return
			}
			if err != nil {
				yield(Entry{}, fmt.Errorf("reading the recording: %w", err))
				return
			}
			p := gopacket.NewPacket(data, src.LinkType(), gopacket.DecodeOptions{NoCopy: true, Lazy: true})
			if !d.segment(p, ci.Timestamp, func(e Entry) bool { return yield(e, nil) }) {
				return
			}
		}
	}
}

type source interface {
	ReadPacketData() ([]byte, gopacket.CaptureInfo, error)
	LinkType() layers.LinkType
}

// open tells pcap from pcapng by the first four bytes.
func open(r io.Reader) (source, error) {
	br := bufio.NewReader(r)
	first, err := br.Peek(4)
	if err != nil {
		return nil, errors.New("the file is shorter than the head of a pcap file")
	}
	if binary.BigEndian.Uint32(first) == 0x0a0d0d0a {
		s, err := pcapgo.NewNgReader(br, pcapgo.DefaultNgReaderOptions)
		if err != nil {
			return nil, fmt.Errorf("not a pcapng file: %w", err)
		}
		return s, nil
	}
	s, err := pcapgo.NewReader(br)
	if err != nil {
		return nil, fmt.Errorf("neither pcap nor pcapng: %w", err)
	}
	return s, nil
}

type flowID struct{ a, b netip.AddrPort } // a is the smaller one

type flow struct {
	client, server netip.AddrPort
	key            *acip.Key
	half           [2]half // 0: from the client, 1: from the server
}

// half is one direction of a connection.
type half struct {
	began  bool
	next   uint32 // sequence number expected
	ahead  []piece
	held   int
	over   bool
	layer  layer
	head   []byte // of HTTP or of a WebSocket frame, while incomplete
	frame  wire.Header
	left   uint64 // payload bytes of the frame still to come
	masked int    // position in the masking key
	cut    acip.Reassembler
	opener *acip.Opener
}

type piece struct {
	seq  uint32
	data []byte
}

type layer uint8

const (
	unknown layer = iota
	httpHead
	frames
	raw
)

type decoder struct {
	flows map[flowID]*flow
	keys  []acip.Key
}

// segment takes one recorded network packet.
func (d *decoder) segment(p gopacket.Packet, at time.Time, yield func(Entry) bool) bool {
	tcp, _ := p.Layer(layers.LayerTypeTCP).(*layers.TCP)
	if tcp == nil {
		return true
	}
	nl := p.NetworkLayer()
	if nl == nil {
		return true
	}
	src, dst := addr(nl.NetworkFlow().Src().Raw(), uint16(tcp.SrcPort)), addr(nl.NetworkFlow().Dst().Raw(), uint16(tcp.DstPort))
	id := flowID{src, dst}
	if dst.Compare(src) < 0 {
		id = flowID{dst, src}
	}
	f := d.flows[id]
	if f == nil || tcp.SYN && !tcp.ACK {
		if len(d.flows) >= flowsMax {
			return true
		}
		f = &flow{client: src, server: dst}
		// A recording that begins in the middle: servers have the lower port.
		if tcp.SYN && tcp.ACK || !tcp.SYN && src.Port() < dst.Port() {
			f.client, f.server = dst, src
		}
		d.flows[id] = f
	}
	dir := 0
	if src == f.server {
		dir = 1
	}
	h := &f.half[dir]
	e := Entry{At: at, FromServer: dir == 1, Client: f.client, Server: f.server}
	seq := tcp.Seq
	if tcp.SYN {
		h.began, h.next = true, seq+1
		return true
	}
	if !h.began {
		h.began, h.next = true, seq
	}
	for data := range h.order(seq, tcp.Payload) {
		if !d.bytes(f, h, e, data, yield) {
			return false
		}
	}
	if h.held > aheadMax {
		held := h.held
		h.ahead, h.held = nil, 0
		if !h.fail(e, fmt.Errorf("a segment is missing: %d bytes wait behind it", held), yield) {
			return false
		}
	}
	if (tcp.FIN || tcp.RST) && !h.over {
		h.over = true
		e.WebSocket = h.layer == frames || h.layer == httpHead
		if e.End = "FIN"; tcp.RST {
			e.End = "RST"
		}
		return yield(e)
	}
	return true
}

func addr(ip []byte, port uint16) netip.AddrPort {
	a, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(a.Unmap(), port)
}

// order yields the bytes that are next in the stream, once each.
func (h *half) order(seq uint32, data []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		if len(data) == 0 {
			return
		}
		if int32(seq-h.next) > 0 {
			h.ahead = append(h.ahead, piece{seq, bytes.Clone(data)})
			h.held += len(data)
			return
		}
		if !h.advance(seq, data, yield) {
			return
		}
		for again := true; again; {
			again = false
			for i, p := range h.ahead {
				if int32(p.seq-h.next) > 0 {
					continue
				}
				h.ahead = append(h.ahead[:i], h.ahead[i+1:]...)
				h.held -= len(p.data)
				if !h.advance(p.seq, p.data, yield) {
					return
				}
				again = true
				break
			}
		}
	}
}

// advance yields what data, at seq, adds to the stream.
func (h *half) advance(seq uint32, data []byte, yield func([]byte) bool) bool {
	old := int(h.next - seq) // bytes seen before
	if old >= len(data) {
		return true
	}
	h.next += uint32(len(data) - old)
	return yield(data[old:])
}

func (h *half) fail(e Entry, err error, yield func(Entry) bool) bool {
	h.over = true
	e.Err = err
	return yield(e)
}

// bytes takes the next bytes of one direction.
func (d *decoder) bytes(f *flow, h *half, e Entry, p []byte, yield func(Entry) bool) bool {
	for len(p) > 0 && !h.over {
		switch h.layer {
		case unknown:
			h.head = append(h.head, p[0])
			p = p[1:]
			switch {
			case len(h.head) < 4:
			case string(h.head) == "GET " || string(h.head) == "HTTP":
				h.layer = httpHead
			default:
				h.layer = raw
				p = append(h.head, p...)
				h.head = nil
			}
		case httpHead:
			h.head = append(h.head, p[0])
			p = p[1:]
			if bytes.HasSuffix(h.head, []byte("\r\n\r\n")) {
				h.head, h.layer = h.head[:0], frames
			} else if len(h.head) > headMax {
				return h.fail(e, fmt.Errorf("an HTTP head of more than %d bytes", headMax), yield)
			}
		case frames:
			e.WebSocket = true
			if h.left == 0 {
				h.head = append(h.head, p[0])
				p = p[1:]
				fh, n := wire.ParseHeader(h.head)
				if n == 0 {
					continue
				}
				h.head = h.head[:0]
				h.frame, h.left, h.masked = fh, fh.Length, 0
				continue
			}
			n := int(min(uint64(len(p)), h.left))
			part := bytes.Clone(p[:n])
			p = p[n:]
			h.left -= uint64(n)
			if h.frame.Masked {
				for i := range part {
					part[i] ^= h.frame.Key[(h.masked+i)&3]
				}
				h.masked += n
			}
			if h.frame.Opcode.Control() {
				continue
			}
			if !d.packets(f, h, e, part, yield) {
				return false
			}
		case raw:
			if !d.packets(f, h, e, p, yield) {
				return false
			}
			p = nil
		}
	}
	return true
}

// packets cuts the payload of one direction into packets.
func (d *decoder) packets(f *flow, h *half, e Entry, p []byte, yield func(Entry) bool) bool {
	for len(p) > 0 {
		pkt, n, ok, err := h.cut.Next(p)
		if err != nil {
			return h.fail(e, err, yield)
		}
		p = p[n:]
		if !ok {
			continue
		}
		e.Packet, e.Sealed, e.Counter, e.Err = pkt, false, 0, nil
		if pkt.Type == acip.TypeEncrypted {
			e.Counter = binary.BigEndian.Uint64(pkt.Payload[16:])
			inner, ok, err := d.open(f, h, pkt.Payload)
			if err != nil {
				return h.fail(e, err, yield)
			}
			if ok {
				e.Packet, e.Sealed = inner, true
			}
		}
		if !yield(e) {
			return false
		}
	}
	return true
}

// open decrypts with the connection's key, or finds out which one it is.
func (d *decoder) open(f *flow, h *half, payload []byte) (acip.Packet, bool, error) {
	if h.opener == nil && f.key != nil {
		h.opener = acip.NewOpener(*f.key, [16]byte{})
	}
	if h.opener != nil {
		p, err := h.opener.Open(payload)
		return p, err == nil, err
	}
	for _, k := range d.keys {
		o := acip.NewOpener(k, [16]byte{})
		p, err := o.Open(payload)
		var v *acip.Violation
		if errors.As(err, &v) && v.Rule == acip.RuleSeal {
			continue
		}
		if err != nil {
			return acip.Packet{}, false, err
		}
		f.key, h.opener = &k, o
		return p, true, nil
	}
	return acip.Packet{}, false, nil
}
