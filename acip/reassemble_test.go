package acip_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/weft-ws/weft/acip"
)

// session is a stream of packets of many sizes.
func session(seed uint64) (stream []byte, packets []acip.Packet) {
	r := rand.New(rand.NewPCG(seed, 1))
	for range 40 {
		p := acip.Packet{Type: acip.TypePing}
		switch r.IntN(4) {
		case 0:
			p = acip.Packet{Type: acip.TypeStreamStart, Payload: []byte{0, 0, 0, 1}}
		case 1:
			p = acip.Packet{Type: acip.TypeLeave, Payload: bytes.Repeat([]byte{'x'}, r.IntN(257))}
		case 2:
			p = acip.Packet{Type: acip.TypeImageFrame, Payload: bytes.Repeat([]byte{byte(r.Uint32())}, 27+r.IntN(3000))}
		}
		packets = append(packets, p)
		stream = p.AppendTo(stream)
	}
	return stream, packets
}

// collect feeds the chunks and checks that the packets come out, whole and in
// order, each as soon as its last byte is there.
func collect(t *testing.T, chunks [][]byte, want []acip.Packet) {
	t.Helper()
	var r acip.Reassembler
	var fed, ends int
	n := 0
	for _, c := range chunks {
		fed += len(c)
		for len(c) > 0 {
			p, took, ok, err := r.Next(c)
			if err != nil {
				t.Fatal(err)
			}
			c = c[took:]
			if !ok {
				continue
			}
			if n == len(want) || p.Type != want[n].Type || !bytes.Equal(p.Payload, want[n].Payload) {
				t.Fatalf("packet %d is %s of %d bytes", n, p.Type, len(p.Payload))
			}
			ends += acip.HeaderSize + len(p.Payload)
			n++
		}
		if n < len(want) && fed >= ends+acip.HeaderSize+len(want[n].Payload) {
			t.Fatalf("packet %d is complete but was not handed out", n)
		}
	}
	if n != len(want) || r.Pending() != 0 {
		t.Fatalf("%d packets of %d, %d bytes pending", n, len(want), r.Pending())
	}
}

// R3: an incomplete packet was once returned when the final fragment came
// early. Only the length field ends a packet.
func TestR03_OnlyTheLengthFieldEndsAPacket(t *testing.T) {
	stream, packets := session(1)
	for _, size := range []int{1, 2, 7, 21, 22, 23, 100, 4096, len(stream)} {
		var chunks [][]byte
		for c := range cuts(stream, size) {
			chunks = append(chunks, c)
		}
		collect(t, chunks, packets)
	}
	for seed := range uint64(50) {
		stream, packets := session(seed)
		r := rand.New(rand.NewPCG(seed, 2))
		var chunks [][]byte
		for len(stream) > 0 {
			n := min(1+r.IntN(1+r.IntN(5000)), len(stream))
			chunks, stream = append(chunks, stream[:n]), stream[n:]
		}
		collect(t, chunks, packets)
	}
}

func cuts(b []byte, size int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(b) > 0 {
			n := min(size, len(b))
			if !yield(b[:n]) {
				return
			}
			b = b[n:]
		}
	}
}

// R5: packets that came together in one message were lost. All of them are
// handed out before more input is asked for.
func TestR05_CoalescedPacketsAllComeOut(t *testing.T) {
	stream, packets := session(5)
	collect(t, [][]byte{stream}, packets)
	// The last packet in pieces, behind whole ones.
	cut := len(stream) - 3
	collect(t, [][]byte{stream[:cut], stream[cut:]}, packets)
}

// R4: a reassembly buffer once overflowed and timers killed good sessions. The
// Reassembler knows no time, and what it holds is bounded by what came and by
// one packet.
func TestR04_ReassemblyIsBoundedByBytesThatCame(t *testing.T) {
	head := acip.Packet{Type: acip.TypeImageFrame, Payload: make([]byte, acip.PacketMax)}.AppendTo(nil)[:acip.HeaderSize]
	allocated := testing.AllocsPerRun(10, func() {
		var r acip.Reassembler
		if _, _, ok, err := r.Next(head); ok || err != nil {
			t.Fatal(ok, err)
		}
		if r.Pending() != acip.HeaderSize {
			t.Fatalf("%d bytes held", r.Pending())
		}
	})
	if allocated > 2 {
		t.Fatalf("%v allocations for a header that promises 5 MiB", allocated)
	}
}

func TestReassemblerErrorIsFinal(t *testing.T) {
	var r acip.Reassembler
	junk := bytes.Repeat([]byte{0xff}, 64)
	if _, _, _, err := r.Next(junk); err == nil {
		t.Fatal("garbage is taken")
	}
	if _, _, _, err := r.Next(acip.Packet{Type: acip.TypePing}.AppendTo(nil)); err == nil {
		t.Fatal("the stream goes on after garbage")
	}
}

func FuzzReassembler(f *testing.F) {
	s, _ := session(3)
	f.Add(s[:500], uint16(7))
	f.Add(s, uint16(1000))
	f.Fuzz(func(t *testing.T, b []byte, size uint16) {
		// Cuts do not matter: whole and in pieces give the same packets.
		run := func(size int) (list []acip.Packet, failed bool) {
			var r acip.Reassembler
			for c := range cuts(b, size) {
				for len(c) > 0 {
					p, n, ok, err := r.Next(c)
					if err != nil {
						return list, true
					}
					c = c[n:]
					if ok {
						list = append(list, acip.Packet{Type: p.Type, Payload: bytes.Clone(p.Payload)})
					}
					if r.Pending() > len(b) {
						t.Fatal("holds more than it was given")
					}
				}
			}
			return list, false
		}
		whole, bad1 := run(len(b) + 1)
		parts, bad2 := run(1 + int(size))
		if bad1 != bad2 || len(whole) != len(parts) {
			t.Fatalf("whole: %d packets, failed=%v; in pieces of %d: %d, failed=%v", len(whole), bad1, 1+int(size), len(parts), bad2)
		}
		for i := range whole {
			if whole[i].Type != parts[i].Type || !bytes.Equal(whole[i].Payload, parts[i].Payload) {
				t.Fatalf("packet %d differs", i)
			}
		}
	})
}

// FuzzPayloads feeds the payload parsers: none may panic, and a refusal says
// why.
func FuzzPayloads(f *testing.F) {
	for _, c := range codecs() {
		f.Add(uint16(c.t), unhex(f, c.bytes))
	}
	f.Fuzz(func(t *testing.T, typ uint16, b []byte) {
		for _, c := range codecs() {
			if uint16(c.t) == typ {
				if _, err := c.parse(b); err != nil && err.Error() == "" {
					t.Fatal("an error without words")
				}
			}
		}
	})
}
