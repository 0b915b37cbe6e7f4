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
			if bits != 9 && bits != 15 && level > 2 {
				break // the levels do not know about windows
			}
			if raceDetector && level > 0 {
				break // it learns nothing from more of the same and takes its time
			}
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

// A message of unknown length comes out the same, however it is cut, flushed and
// interrupted.
func TestDeflaterStreams(t *testing.T) {
	rnd := rand.New(rand.NewSource(4))
	for _, takeover := range []bool{false, true} {
		for _, bits := range []int{8, 12, 15} {
			var d Deflater
			d.Reset(bits, takeover)
			var r Inflater
			r.Reset(bits, takeover)
			for round := range 3 {
				for i, p := range samples() {
					var wire []byte
					for rest := p; len(rest) > 0; {
						n := min(len(rest), 1+rnd.Intn(1<<(1+rnd.Intn(16))))
						wire = d.Append(wire, rest[:n])
						rest = rest[n:]
						switch rnd.Intn(4) {
						case 0:
							flushed := d.Flush(wire)
							if len(flushed) == len(wire) && d.Held() >= encoderSize && n > 0 {
								t.Fatalf("message %d: Flush wrote nothing", i)
							}
							wire = flushed
							if again := d.Flush(wire); len(again) != len(wire) {
								t.Fatalf("message %d: a second Flush wrote %d bytes", i, len(again)-len(wire))
							}
						case 1:
							before := d.Held()
							d.Release() // input is waiting: nothing may happen
							if d.Held() != before {
								t.Fatalf("message %d: Release took back %d bytes while input was waiting", i, before-d.Held())
							}
						case 2:
							wire = d.Flush(wire)
							d.Release()
							if most := 1<<contextBitsDefault + 100; d.Held() > most {
								t.Fatalf("message %d: holds %d bytes after Release", i, d.Held())
							}
						}
					}
					wire = d.Finish(wire)
					got, err := inflateAll(&r, wire, len(p))
					if err != nil || !bytes.Equal(got, p) {
						t.Fatalf("takeover %t, window %d, round %d, message %d: %d bytes of %d came out, error %v", takeover, bits, round, i, len(got), len(p), err)
					}
				}
			}
		}
	}
}

// What was flushed can be read before the message ends.
func TestFlushSendsEverything(t *testing.T) {
	var d Deflater
	var r Inflater
	dst := make([]byte, 100)
	for _, part := range []string{"Hello", " ", "Hello Hello Hello"} {
		wire := d.Flush(d.Append(nil, []byte(part)))
		nd, ns, done, err := r.Step(dst, wire, false)
		if string(dst[:nd]) != part || ns != len(wire) || done || err != nil {
			t.Errorf("after %q: read %q, done %t, error %v", part, dst[:nd], done, err)
		}
	}
	if nd, _, done, err := r.Step(dst, d.Finish(nil), true); nd != 0 || !done || err != nil {
		t.Errorf("at the end: read %q, done %t, error %v", dst[:nd], done, err)
	}
}

// A message compressed once, without context, may be sent to a receiver with one,
// whose context it enters.
func TestRemember(t *testing.T) {
	for _, takeover := range []bool{false, true} {
		var once, d Deflater
		d.Reset(15, takeover)
		var r Inflater
		r.Reset(15, takeover)
		rnd := rand.New(rand.NewSource(6))
		p := make([]byte, 700)
		for i := range 30 {
			var wire []byte
			switch i % 3 {
			case 0:
				rnd.Read(p)
				wire = once.AppendMessage(nil, p)
				d.Remember(p)
			case 1: // the same again, so that all of it may refer to the one before
				wire = d.AppendMessage(nil, p)
				if takeover != (len(wire) < 50) {
					t.Errorf("takeover %t, message %d: %d bytes for what was sent just before", takeover, i, len(wire))
				}
			case 2:
				rnd.Read(p)
				wire = d.AppendMessage(nil, p)
			}
			if got, err := inflateAll(&r, wire, len(p)); err != nil || !bytes.Equal(got, p) {
				t.Fatalf("takeover %t, message %d: %d bytes, error %v", takeover, i, len(got), err)
			}
		}
	}
}

// More effort, smaller output: each level earns its keep on text.
func TestLevels(t *testing.T) {
	messages := corpus(12, 12, 6000)
	size := func(level int, takeover bool) (n int) {
		var d Deflater
		d.Reset(15, takeover)
		d.SetLevel(level)
		for _, p := range messages {
			n += len(d.AppendMessage(nil, p))
		}
		return n
	}
	for _, takeover := range []bool{false, true} {
		for level := 2; level <= LevelMax; level++ {
			if a, b := size(level-1, takeover), size(level, takeover); b > a+a/500 {
				t.Errorf("takeover %t: level %d makes %d bytes, level %d makes %d", takeover, level-1, a, level, b)
			}
		}
		want := levelFresh
		if takeover {
			want = levelTakeover
		}
		for _, level := range []int{0, -1, LevelMax + 1} {
			if a, b := size(level, takeover), size(want, takeover); a != b {
				t.Errorf("takeover %t: level %d makes %d bytes, the default %d", takeover, level, a, b)
			}
		}
	}
	if fresh, taken := size(3, false), size(3, true); taken > fresh*98/100 {
		t.Errorf("takeover makes %d bytes of what takes %d without", taken, fresh)
	}
}

// A larger context helps and costs what it says.
func TestContext(t *testing.T) {
	messages := corpus(13, 40, 1500)
	last := 1 << 30
	for _, bits := range []int{8, 10, 12, 14, 15} {
		var d Deflater
		d.Reset(15, true)
		d.SetContext(bits)
		n := 0
		for _, p := range messages {
			n += len(d.AppendMessage(nil, p))
		}
		if n >= last {
			t.Errorf("context %d: %d bytes, a smaller one makes %d", bits, n, last)
		}
		last = n
		if held := d.Held(); held < 1<<bits || held > 1<<bits+64 {
			t.Errorf("context %d: holds %d bytes", bits, held)
		}
		d.SetContext(0)
		d.AppendMessage(nil, messages[0])
		if held := d.Held(); held > max(1<<bits, 1<<contextBitsDefault)+64 {
			t.Errorf("context %d, then the default: holds %d bytes", bits, held)
		}
		d.Reset(9, true)
		d.SetContext(bits)
		d.AppendMessage(nil, messages[1])
		if held := d.Held(); held > 512+64 {
			t.Errorf("window 9, context %d: holds %d bytes", bits, held)
		}
		d.Append(nil, messages[2])
		d.Close()
		if d.Held() != 0 {
			t.Errorf("holds %d bytes after Close", d.Held())
		}
	}
}

// A message that was given up with Close leaves nothing behind in the pool.
func TestDeflaterCloseInTheMiddle(t *testing.T) {
	p := corpus(14, 1, 3000)[0]
	var want Deflater
	w := want.AppendMessage(nil, p)
	for range 4 {
		var d Deflater
		d.Append(nil, slices.Repeat(p, 20)) // more than a block, so that bits are left over
		d.Close()
		if got := d.AppendMessage(nil, p); !bytes.Equal(got, w) {
			t.Fatal("the message after Close differs")
		}
	}
}
