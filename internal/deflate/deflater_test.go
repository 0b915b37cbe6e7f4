package deflate

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"math/rand"
	"slices"
	"testing"

	kflate "github.com/klauspost/compress/flate"
)

// samples are messages of all kinds: empty, tiny, text, repetitive, random, and
// longer than a block and than the window.
func samples() [][]byte {
	rnd := rand.New(rand.NewSource(3))
	random := make([]byte, 70000)
	rnd.Read(random)
	few := bytes.Clone(random)
	for i := range few {
		few[i] &= 3
	}
	json := slices.Concat(corpus(5, 30, 4096)...)
	return [][]byte{
		{}, []byte("a"), []byte("ab"), []byte("abc"), []byte("Hello"), []byte("HelloHelloHello"),
		bytes.Repeat([]byte{0}, 3), bytes.Repeat([]byte{0}, 100), bytes.Repeat([]byte{'x'}, 100000),
		bytes.Repeat([]byte("0123456789abcdef"), 30), bytes.Repeat(random[:300], 5), bytes.Repeat(random[:33000], 3),
		json[:100], json[100:1000], json[1000:5096], json[5096:], json[:40000],
		random[:1], random[:50], random[:1000], random[:65535], random,
		few[:60], few[:3000], few, slices.Concat(random[:5000], json[:5000], random[5000:9000], json[:9000]),
	}
}

// stdInflate reads a message with the standard library, given what came before.
func stdInflate(dict, m []byte) ([]byte, error) {
	r := flate.NewReaderDict(io.MultiReader(bytes.NewReader(m), bytes.NewReader([]byte(Tail+"\x01\x00\x00\xff\xff"))), dict)
	return io.ReadAll(r)
}

func klauspostInflate(dict, m []byte) ([]byte, error) {
	r := kflate.NewReaderDict(io.MultiReader(bytes.NewReader(m), bytes.NewReader([]byte(Tail+"\x01\x00\x00\xff\xff"))), dict)
	return io.ReadAll(r)
}

// lastOf returns the last n bytes of p, or all of it.
func lastOf(p []byte, n int) []byte { return p[max(0, len(p)-n):] }

func TestRoundTrip(t *testing.T) {
	messages := samples()
	for bits := WindowBitsMin; bits <= WindowBitsMax; bits++ {
		for level := 0; level <= LevelMax; level++ {
			for _, takeover := range []bool{false, true} {
				t.Run(fmt.Sprintf("window %d level %d takeover %t", bits, level, takeover), func(t *testing.T) {
					var d Deflater
					d.Reset(bits, takeover)
					d.SetLevel(level)
					var r Inflater
					r.Reset(bits, takeover)
					var history []byte
					var wire []byte
					for i, p := range messages {
						wire = d.AppendMessage(wire[:0], p)
						if most := len(p) + 5*(1+len(p)>>15) + 1; len(wire) > most {
							t.Errorf("message %d of %d bytes became %d, more than %d", i, len(p), len(wire), most)
						}
						if !takeover {
							history = history[:0]
						}
						// Nobody but us gets more of the past than the window.
						dict := lastOf(history, 1<<bits)
						if got, err := stdInflate(dict, wire); err != nil || !bytes.Equal(got, p) {
							t.Fatalf("message %d: the standard library reads %d of %d bytes, error %v", i, len(got), len(p), err)
						}
						if got, err := klauspostInflate(dict, wire); err != nil || !bytes.Equal(got, p) {
							t.Fatalf("message %d: klauspost/compress reads %d of %d bytes, error %v", i, len(got), len(p), err)
						}
						if got, err := inflateAll(&r, wire, len(p)); err != nil || !bytes.Equal(got, p) {
							t.Fatalf("message %d: we read %d of %d bytes, error %v", i, len(got), len(p), err)
						}
						history = append(history, p...)
					}
				})
			}
		}
	}
}

// A peer that asked for a window of 512 bytes has only that, and within a message
// too, so it is the reference inflater that judges.
func TestDeflaterKeepsToTheWindow(t *testing.T) {
	for bits := WindowBitsMin; bits <= WindowBitsMax; bits++ {
		for _, takeover := range []bool{false, true} {
			var d Deflater
			d.Reset(bits, takeover)
			d.SetContext(WindowBitsMax)
			d.SetLevel(6)
			var ref reference
			longest, beyond := 0, 0
			for i, p := range append(corpus(9, 12, 5000), slices.Concat(corpus(10, 20, 5000)...)) {
				if err := ref.message(d.AppendMessage(nil, p)); err != nil {
					t.Fatalf("window %d, message %d: %v", bits, i, err)
				}
				if !bytes.Equal(ref.out[ref.start:], p) {
					t.Fatalf("window %d, message %d: other bytes came out", bits, i)
				}
				longest, beyond = max(longest, ref.distMax), max(beyond, ref.beyond)
			}
			if longest > 1<<bits {
				t.Errorf("window %d: a back-reference goes %d bytes back", bits, longest)
			}
			if longest < 1<<bits*9/10 {
				t.Errorf("window %d: the longest back-reference is %d bytes, so the window is not used", bits, longest)
			}
			if takeover != (beyond > 0) {
				t.Errorf("window %d, takeover %t: back-references go %d bytes before the message", bits, takeover, beyond)
			}
		}
	}
}
