package deflate

import (
	"bytes"
	"compress/flate"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand"
	"runtime"
	"strings"
	"testing"
)

// inflateAll runs r over one message in one piece, with room for limit bytes and
// then some.
func inflateAll(r *Inflater, src []byte, limit int) ([]byte, error) {
	out := make([]byte, limit+64)
	n, ns, done, err := r.Step(out, src, true)
	if err == nil && (!done || ns != len(src)) {
		err = fmt.Errorf("not done after %d of %d bytes", ns, len(src))
	}
	return out[:n], err
}

// inflateCut runs r over one message in pieces: input and output are cut after
// as many bytes as in and out say, in turn.
func inflateCut(r *Inflater, src []byte, in, out func() int) ([]byte, error) {
	var all []byte
	src = bytes.Clone(src)
	for idle := 0; idle < 4; {
		n := min(in(), len(src))
		dst := make([]byte, out())
		nd, ns, done, err := r.Step(dst, src[:n], n == len(src))
		all = append(all, dst[:nd]...)
		clear(src[:ns]) // r must not look at it again
		clear(dst)
		src = src[ns:]
		if err != nil || done {
			return all, err
		}
		if ns == 0 && nd == 0 && len(dst) > 0 && (n > 0 || len(src) == 0) {
			idle++ // it must either take or give
		}
	}
	return all, errors.New("no progress")
}

func always(n int) func() int { return func() int { return n } }

// stdMessage compresses p as a message payload with the standard library.
func stdMessage(t testing.TB, p []byte, level int) []byte {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, level)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(p); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte(Tail))
}

// bitWriter puts a DEFLATE stream together by hand.
type bitWriter struct {
	b []byte
	n uint // bits in use
}

// num adds a number of n bits, lowest first.
func (w *bitWriter) num(v, n uint) *bitWriter {
	for i := range n {
		if w.n%8 == 0 {
			w.b = append(w.b, 0)
		}
		w.b[w.n/8] |= byte(v>>i&1) << (w.n % 8)
		w.n++
	}
	return w
}

// code adds a Huffman code of n bits, highest first.
func (w *bitWriter) code(v, n uint) *bitWriter {
	for i := range n {
		w.num(v>>(n-1-i), 1)
	}
	return w
}

func (w *bitWriter) align() *bitWriter {
	w.n = (w.n + 7) &^ 7
	return w
}

func (w *bitWriter) raw(p string) *bitWriter {
	w.b = append(w.align().b, p...)
	w.n = uint(8 * len(w.b))
	return w
}

// fixed adds literal/length symbols in the fixed code.
func (w *bitWriter) fixed(syms ...uint) *bitWriter {
	for _, s := range syms {
		switch {
		case s < 144:
			w.code(0x30+s, 8)
		case s < 256:
			w.code(0x190+s-144, 9)
		case s < 280:
			w.code(s-256, 7)
		default:
			w.code(0xc0+s-280, 8)
		}
	}
	return w
}

// match adds a match of three bytes at a distance, in the fixed code.
func (w *bitWriter) match(dist int) *bitWriter {
	sym := distSym(uint32(dist - 1))
	m := distMeaning[sym]
	return w.fixed(257).code(uint(sym), 5).num(uint(dist-m.value()), m.total())
}

// dynamic begins a dynamic block with the given code lengths, each of which takes
// four bits.
func (w *bitWriter) dynamic(lit, dist []uint) *bitWriter {
	w.num(2<<1, 3).num(uint(len(lit))-257, 5).num(uint(len(dist))-1, 5).num(15, 4)
	w.num(0, 9) // 16, 17 and 18 are not used
	for range 16 {
		w.num(4, 3)
	}
	for _, l := range append(append([]uint{}, lit...), dist...) {
		w.code(l, 4)
	}
	return w
}

// lengths returns n code lengths, zero but for those given in pairs.
func lengths(n int, pairs ...uint) []uint {
	l := make([]uint, n)
	for i := 0; i < len(pairs); i += 2 {
		l[pairs[i]] = pairs[i+1]
	}
	return l
}

func (w *bitWriter) end() []byte { return w.num(0, 3).align().b }

func bitsOf() *bitWriter { return new(bitWriter) }

func TestInflateExamplesOfTheRFC(t *testing.T) {
	// RFC 7692, 7.2.3.1 to 7.2.3.6, in their order.
	for _, tt := range []struct{ name, messages, want string }{
		{"one block", "f248cdc9c90700", "Hello"},
		{"sharing the window", "f248cdc9c90700 f200110000", "Hello Hello"},
		{"stored block", "000500faff48656c6c6f00", "Hello"},
		{"final block", "f348cdc9c9070000", "Hello"},
		{"two blocks", "f248050000 00ffffcac9c90700", "He llo"},
		{"empty", "00", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			messages, want := strings.Fields(tt.messages), strings.Fields(tt.want)
			if tt.name == "two blocks" { // one message of two blocks
				messages, want = []string{strings.Join(messages, "")}, []string{"Hello"}
			}
			var r Inflater
			r.Reset(15, true)
			for i, m := range messages {
				b, err := hex.DecodeString(m)
				if err != nil {
					t.Fatal(err)
				}
				got, err := inflateAll(&r, b, 100)
				if err != nil || string(got) != strings.Join(want[min(i, len(want)):min(i+1, len(want))], "") {
					t.Errorf("message %d: got %q, error %v", i, got, err)
				}
				if r.TailLeft() {
					t.Errorf("message %d: the tail was not there", i)
				}
			}
		})
	}
}

func TestInflateWhatOthersDeflate(t *testing.T) {
	for level := flate.HuffmanOnly; level <= flate.BestCompression; level++ {
		for i, p := range samples() {
			m := stdMessage(t, p, level)
			var r Inflater
			got, err := inflateAll(&r, m, len(p))
			if err != nil || !bytes.Equal(got, p) {
				t.Errorf("level %d, message %d of %d bytes: got %d bytes, error %v", level, i, len(p), len(got), err)
			}
		}
	}
}

// handMade are messages with everything that DEFLATE allows and compressors
// rarely write.
func handMade() map[string][]byte {
	stored := func(final uint, p string) *bitWriter {
		n := uint(len(p))
		return bitsOf().num(final, 3).align().num(n, 16).num(^n, 16).raw(p)
	}
	plain := bitsOf().num(1<<1, 3).fixed('H', 'e', 'l', 'l', 'o', 256)
	final := bitsOf().num(1|1<<1, 3).fixed('H', 'e', 256).align()
	return map[string][]byte{
		"empty":                   bitsOf().end(),
		"empty blocks":            bitsOf().num(1<<1, 3).fixed(256).num(1<<1, 3).fixed(256).end(),
		"stored":                  stored(0, "stored bytes").end(),
		"stored behind fixed":     (&bitWriter{plain.b, plain.n}).num(0, 3).align().num(2, 16).num(0xfffd, 16).raw("!!").end(),
		"empty stored in between": (&bitWriter{bytes.Clone(plain.b), plain.n}).num(0, 3).raw(Tail).num(1<<1, 3).match(5).fixed(256).end(),
		"final, then stored":      append(final.b, stored(0, "llo").end()...),
		"final, then final":       append(bytes.Clone(final.b), append(bitsOf().num(1|1<<1, 3).match(2).fixed(256).align().b, 0)...),
		"final and stored":        stored(1, "stored and final").end(),
		"final empty stored":      append(bytes.Clone(final.b), stored(1, "").end()...),
		"only the end of block":   bitsOf().dynamic(lengths(257, 256, 1), lengths(1)).code(0, 1).end(),
		"no distance codes":       bitsOf().dynamic(lengths(257, 'x', 1, 256, 1), lengths(1)).code(0, 1).code(0, 1).code(1, 1).end(),
		"one distance code": bitsOf().dynamic(lengths(258, 'x', 1, 256, 2, 257, 2), lengths(1, 0, 1)).
			code(0, 1).code(3, 2).code(0, 1).code(2, 2).end(),
		"repeated code lengths": bitsOf().num(2<<1, 3).num(1, 5).num(0, 5).num(15, 4).
			// 18, 17, 16 and the lengths 1 and 2 have codes of 3, 3, 2, 2 and 2 bits.
			num(2, 3).num(3, 3).num(3, 3).num(0, 3*12).num(2, 3).num(0, 3).num(2, 3).num(0, 3).
			// 120 zeros, 'x' with length 1, 121 to 255 zero, 256 and 257 with length 2.
			code(7, 3).num(120-11, 7).code(0, 2).code(7, 3).num(125-11, 7).code(6, 3).num(10-3, 3).
			code(1, 2).code(1, 2).code(0, 2).
			// x, a match of three at distance 1, the end.
			code(0, 1).code(3, 2).code(0, 1).code(2, 2).end(),
		"length 258 and distance 32768": longMatches(),
		"codes of fifteen bits":         skewed(),
	}
}

// longMatches is a message with the longest matches, from close by and from as
// far as there is.
func longMatches() []byte {
	w := bitsOf().num(1<<1, 3).fixed('a', 'b', 'c')
	for range 128 {
		w.fixed(285).code(1, 5) // 258 bytes at distance 2
	}
	for _, d := range []int{1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 100, 257, 258, 259, 4096, 32767, 32768} {
		w.match(d)
		sym := distSym(uint32(d - 1))
		w.fixed(284).num(30, 5).code(uint(sym), 5).num(uint(d-distMeaning[sym].value()), distMeaning[sym].total())
	}
	return w.fixed(256).end()
}

// skewed is a message whose codes have all lengths up to fifteen bits, so that
// every kind of table entry is used.
func skewed() []byte {
	lit := lengths(286)
	dist := lengths(30)
	for i := uint(1); i <= 14; i++ {
		lit['a'+i] = i
		dist[i] = i
	}
	lit[256], lit[265] = 15, 15
	dist[20], dist[21] = 15, 15
	w := bitsOf().dynamic(lit, dist)
	codes := func(lens []uint) []code {
		l := make([]uint8, len(lens))
		for i, v := range lens {
			l[i] = uint8(v)
		}
		return assignCodes(make([]code, len(lens)), l)
	}
	lc, dc := codes(lit), codes(dist)
	put := func(c code) { w.num(uint(c.bits()), c.len()) }
	for round := range 3 {
		for i := range 14 {
			for range 40 {
				put(lc['b'+(i*5+round)%14])
			}
		}
		for _, sym := range []int{1, 2, 3, 5, 8, 10, 12, 14, 20, 21, 21, 14, 1} {
			if sym >= 20 && round < 2 {
				continue // not that much has been written yet
			}
			put(lc[265])
			w.num(1, 1)
			put(dc[sym])
			w.num(uint(sym), distMeaning[sym].total())
		}
	}
	put(lc[256])
	return w.end()
}

func TestInflateAnyBlocks(t *testing.T) {
	for name, m := range handMade() {
		var ref reference
		if err := ref.message(m); err != nil {
			t.Errorf("%s: the reference says %v", name, err)
			continue
		}
		var r Inflater
		got, err := inflateAll(&r, m, len(ref.out))
		if err != nil || !bytes.Equal(got, ref.out) {
			t.Errorf("%s: got %d bytes of %d, error %v", name, len(got), len(ref.out), err)
		}
	}
}

// Wherever input and output are cut, the same bytes come out.
func TestInflateAnyCut(t *testing.T) {
	messages := handMade()
	for i, p := range samples() {
		if len(p) < 5000 {
			messages[fmt.Sprintf("sample %d", i)] = stdMessage(t, p, 1+i%9)
		}
	}
	for name, m := range messages {
		var whole Inflater
		want, err := inflateAll(&whole, m, 100000)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, takeover := range []bool{false, true} {
			var r Inflater
			r.Reset(15, takeover)
			check := func(how string, got []byte, err error) {
				if err != nil || !bytes.Equal(got, want) {
					t.Fatalf("%s, takeover %t, %s: got %d bytes of %d, error %v", name, takeover, how, len(got), len(want), err)
				}
			}
			for cut := 0; cut <= len(m); cut += 1 + len(m)*len(want)>>18 {
				first := true
				got, err := inflateCut(&r, m, func() int {
					if first {
						first = false
						return cut
					}
					return len(m)
				}, always(1+len(want)))
				check(fmt.Sprintf("cut after %d", cut), got, err)
			}
			for _, n := range []int{1, 2, 3, 8, 9, 64, 259} {
				got, err := inflateCut(&r, m, always(n), always(100000))
				check(fmt.Sprintf("input by %d", n), got, err)
				got, err = inflateCut(&r, m, always(len(m)), always(n))
				check(fmt.Sprintf("output by %d", n), got, err)
				got, err = inflateCut(&r, m, always(n), always(n))
				check(fmt.Sprintf("both by %d", n), got, err)
			}
			rnd := rand.New(rand.NewSource(1))
			for range 8 {
				got, err := inflateCut(&r, m, func() int { return rnd.Intn(40) }, func() int { return rnd.Intn(400) })
				check("at random", got, err)
			}
		}
	}
}

func TestInflateRefuses(t *testing.T) {
	allOnes := func(n int) []uint { return lengths(n, 0, 1, 1, 1, 2, 1, 256, 1) }
	ab := lengths(258, 'a', 2, 'b', 2, 256, 2, 257, 2)
	for _, tt := range []struct {
		name     string
		m        []byte
		bits     int
		takeover bool
		rule     string
		detail   string
	}{
		{"block type 3", bitsOf().num(3<<1, 3).b, 15, false, "DF-10", "block type 3"},
		{"length of a stored block", bitsOf().num(0, 3).align().num(5, 16).num(5, 16).raw("Hello").end(), 15, false, "DF-10", "length 0x0005 has the check 0x0005"},
		{"too many literal codes", bitsOf().num(2<<1, 3).num(30, 5).num(0, 5).num(0, 4).b, 15, false, "DF-10", "287 literal/length and 1 distance"},
		{"too many distance codes", bitsOf().num(2<<1, 3).num(0, 5).num(30, 5).num(0, 4).b, 15, false, "DF-10", "257 literal/length and 31 distance"},
		{"code lengths over-subscribed", bitsOf().num(2<<1, 3).num(0, 14).num(0x249, 12).b, 15, false, "DF-10", "code lengths of a block"},
		{"code lengths incomplete", bitsOf().num(2<<1, 3).num(0, 14).num(2|2<<3, 12).b, 15, false, "DF-10", "code lengths of a block"},
		{"no code lengths", bitsOf().num(2<<1, 3).num(0, 14).num(0, 12).b, 15, false, "DF-10", "a code length has an undefined code"},
		{"undefined code length", bitsOf().num(2<<1, 3).num(0, 14).num(1<<9, 12).num(1, 1).b, 15, false, "DF-10", "a code length has an undefined code"},
		{"repeat of nothing", bitsOf().num(2<<1, 3).num(0, 14).num(1|1<<9, 12).code(1, 1).num(0, 2).b, 15, false, "DF-10", "repeats the one before"},
		{"repeat too often", bitsOf().num(2<<1, 3).num(0, 14).num(1<<6|1<<9, 12).code(1, 1).num(127, 7).code(1, 1).num(127, 7).b, 15, false, "DF-10", "past the last code"},
		{"no end of block", bitsOf().dynamic(lengths(257, 'a', 1, 'b', 1), lengths(1)).b, 15, false, "DF-10", "no code for its end"},
		{"literals over-subscribed", bitsOf().dynamic(allOnes(257), lengths(1)).b, 15, false, "DF-10", "literals and lengths of a block"},
		{"literals incomplete", bitsOf().dynamic(lengths(257, 'a', 2, 256, 2), lengths(1)).b, 15, false, "DF-10", "literals and lengths of a block"},
		{"distances over-subscribed", bitsOf().dynamic(ab, lengths(3, 0, 1, 1, 1, 2, 1)).b, 15, false, "DF-10", "distances of a block"},
		{"distances incomplete", bitsOf().dynamic(ab, lengths(3, 0, 2, 1, 2, 2, 2)).b, 15, false, "DF-10", "distances of a block"},
		{"undefined literal", bitsOf().dynamic(lengths(257, 256, 1), lengths(1)).code(1, 1).b, 15, false, "DF-10", "a literal or length has an undefined"},
		{"literal 286", bitsOf().num(1<<1, 3).fixed('a', 286).b, 15, false, "DF-10", "a literal or length has an undefined"},
		{"literal 287", bitsOf().num(1<<1, 3).fixed('a', 287).b, 15, false, "DF-10", "a literal or length has an undefined"},
		{"distance 30", bitsOf().num(1<<1, 3).fixed('a', 257).code(30, 5).b, 15, false, "DF-10", "a distance has an undefined"},
		{"distance 31", bitsOf().num(1<<1, 3).fixed('a', 257).code(31, 5).b, 15, false, "DF-10", "a distance has an undefined"},
		{"no distance codes", bitsOf().dynamic(ab, lengths(1)).code(0, 2).code(3, 2).b, 15, false, "DF-10", "a distance has an undefined"},
		{"undefined distance", bitsOf().dynamic(ab, lengths(1, 0, 1)).code(0, 2).code(3, 2).code(1, 1).b, 15, false, "DF-10", "a distance has an undefined"},

		{"start of the message", bitsOf().num(1<<1, 3).fixed('a').match(2).b, 15, false, "DF-12", "over 2 bytes, the message has only 1"},
		{"nothing there", bitsOf().num(1<<1, 3).match(1).b, 15, false, "DF-12", "over 1 bytes, the message has only 0"},
		{"start of the connection", bitsOf().num(1<<1, 3).fixed('a').match(2).b, 15, true, "DF-10", "over 2 bytes, only 1 were sent"},
		{"window of 256", farther(257), 8, false, "DF-11", "over 257 bytes, the window has 256"},
		{"window of 512", farther(513), 9, true, "DF-11", "over 513 bytes, the window has 512"},
		{"window of 1024", farther(1025), 10, false, "DF-11", "over 1025 bytes, the window has 1024"},
		{"window of 16384", farther(16385), 14, true, "DF-11", "over 16385 bytes, the window has 16384"},
		{"window before start", bitsOf().num(1<<1, 3).fixed('a').match(300).b, 8, false, "DF-11", "over 300 bytes, the window has 256"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, behind := range []int{0, 1, 64} {
				m := append(bytes.Clone(tt.m), make([]byte, behind)...)
				var first *Error
				for _, cut := range [][2]int{{len(m), 1 << 17}, {1, 1}, {1, 1 << 17}, {len(m), 1}, {3, 300}} {
					var r Inflater
					r.Reset(tt.bits, tt.takeover)
					_, err := inflateCut(&r, m, always(cut[0]), always(cut[1]))
					var e *Error
					if !errors.As(err, &e) || !errors.Is(err, ErrCorrupt) {
						t.Fatalf("%v: error %v", cut, err)
					}
					if e.RuleID != tt.rule || !strings.Contains(e.Detail, tt.detail) {
						t.Errorf("%v: error %v, want %s: %s", cut, err, tt.rule, tt.detail)
					}
					if e.Offset > int64(len(tt.m)) {
						t.Errorf("%v: shows after %d bytes, it is in the first %d", cut, e.Offset, len(tt.m))
					}
					if first == nil {
						first = e
					} else if *first != *e {
						t.Errorf("%v: error %v, another cut says %v", cut, e, first)
					}
					if _, _, _, again := r.Step(make([]byte, 10), []byte{0}, true); again != err {
						t.Errorf("%v: the next message has error %v", cut, again)
					}
					r.Release()
					if r.Held() != 0 {
						t.Errorf("%v: holds %d bytes after an error", cut, r.Held())
					}
				}
			}
		})
	}
}

// farther is a message with a back-reference over dist bytes, and as many before.
func farther(dist int) []byte {
	w := bitsOf().num(1<<1, 3).fixed('a')
	for n := 1; n < dist; n += 258 {
		w.fixed(285).code(0, 5)
	}
	return w.match(dist).fixed(256).end()
}

// What a window of some size allows, down to the byte, is inflated.
func TestInflateUsesTheWholeWindow(t *testing.T) {
	for bits := WindowBitsMin; bits <= WindowBitsMax; bits++ {
		m := farther(1 << bits)
		var ref reference
		if err := ref.message(m); err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{1, 100, 1 << 17} {
			var r Inflater
			r.Reset(bits, false)
			got, err := inflateCut(&r, m, always(n), always(n))
			if err != nil || !bytes.Equal(got, ref.out) {
				t.Errorf("window %d, by %d: got %d bytes of %d, error %v", bits, n, len(got), len(ref.out), err)
			}
		}
	}
}

// A message that was cut short is an error, wherever.
func TestInflateCutStreams(t *testing.T) {
	json := corpus(2, 1, 700)[0]
	for name, m := range map[string][]byte{
		"fixed":   stdMessage(t, []byte("Hello, hello"), 6),
		"dynamic": stdMessage(t, json, 6),
		"skewed":  skewed(),
		"stored":  append([]byte{0, 9, 0, 246, 255}, "ninebytes\x00"...),
	} {
		for cut := range len(m) {
			if name == "stored" && cut == 1 {
				continue // 00 alone is the empty message
			}
			for _, by := range []int{1, len(m) + 1} {
				var r Inflater
				_, err := inflateCut(&r, m[:cut], always(by), always(300))
				var e *Error
				if !errors.As(err, &e) || e.RuleID != "DF-10" || !strings.Contains(e.Detail, "the message ends ") || e.Offset > int64(cut) {
					t.Errorf("%s cut after %d of %d bytes, by %d: error %v", name, cut, len(m), by, err)
				}
			}
		}
	}
}

func TestInflateToleratesTheTail(t *testing.T) {
	hello := "f248cdc9c90700"
	for _, tt := range []struct {
		name, m string
		left    bool
	}{
		{"tail left", hello + "0000ffff", true},
		{"tail taken off", hello, false},
		{"empty with tail", "000000ffff", true},
		{"final without header of an empty block", "f348cdc9c90700", false},
		{"final empty stored block", hello[:12] + "00" + "0000ffff" + "010000ffff", true},
	} {
		b, err := hex.DecodeString(tt.m)
		if err != nil {
			t.Fatal(err)
		}
		var r Inflater
		r.Reset(15, true)
		for _, by := range []int{1, 100} {
			got, err := inflateCut(&r, b, always(by), always(100))
			if err != nil || r.TailLeft() != tt.left || len(got) != 0 && string(got) != "Hello" {
				t.Errorf("%s: got %q, tail left %t, error %v", tt.name, got, r.TailLeft(), err)
			}
		}
		// The next message is not affected.
		if got, err := inflateAll(&r, []byte{0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00}, 100); err != nil || string(got) != "Hello" || r.TailLeft() {
			t.Errorf("%s: the next message is %q, tail left %t, error %v", tt.name, got, r.TailLeft(), err)
		}
	}
}

// Garbage shows before all of it is in: one bad block type in a long message.
func TestInflateErrorsComeEarly(t *testing.T) {
	m := append([]byte{3 << 1}, make([]byte, 1000)...)
	var r Inflater
	_, ns, _, err := r.Step(nil, m[:1], false)
	if err == nil || ns != 1 {
		t.Errorf("took %d bytes, error %v; the first byte is bad", ns, err)
	}
	// A back-reference too far, with the rest of the message still to come.
	r.Reset(15, false)
	bad := bitsOf().num(1<<1, 3).fixed('a').match(2).b
	_, ns, _, err = r.Step(make([]byte, 10), bad, false)
	if err == nil {
		t.Errorf("took %d bytes of %d without an error", ns, len(bad))
	}
}

// bomb is a message of 1 MB that inflates to more than 1 GB: one bit for each
// length of 258 and one for each distance of 1.
func bomb() []byte {
	w := bitsOf().dynamic(lengths(286, 'x', 2, 256, 2, 285, 1), lengths(1, 0, 1)).code(2, 2)
	b := make([]byte, 1<<20)
	copy(b, w.b) // the matches are zero bits
	return b
}

// HARDENING: 1 MB that inflates to 1 GB costs less than the limit and 1 MB.
func TestInflateBombStopsAtTheLimit(t *testing.T) {
	m := bomb()
	const limit = 16 << 20
	for _, room := range []int{4 << 10, 64 << 10} {
		dst := make([]byte, room)
		var r Inflater
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		made, taken := 0, 0
		for made <= limit {
			nd, ns, done, err := r.Step(dst, m[taken:], true)
			if err != nil || done {
				t.Fatalf("after %d bytes: done %t, error %v", made, done, err)
			}
			made += nd
			taken += ns
		}
		runtime.ReadMemStats(&after)
		if made > limit+room {
			t.Errorf("made %d bytes, the limit is %d", made, limit)
		}
		if taken > limit/1000 {
			t.Errorf("took %d bytes of input for %d of output", taken, made)
		}
		if cost := after.TotalAlloc - before.TotalAlloc; cost > 100<<10 {
			t.Errorf("allocated %d bytes", cost)
		}
		r.Close()
		if r.Held() != 0 {
			t.Errorf("holds %d bytes after Close", r.Held())
		}
		if _, _, _, err := r.Step(dst, m, true); err == nil || errors.Is(err, ErrCorrupt) {
			t.Errorf("Step after Close: error %v", err)
		}
	}
}

// Without room nothing is written, and what needs no room goes on.
func TestInflateWithoutRoom(t *testing.T) {
	m := stdMessage(t, []byte("Hello"), 6)
	var r Inflater
	nd, ns, done, err := r.Step(nil, m, true)
	if nd != 0 || done || err != nil {
		t.Fatalf("wrote %d bytes, done %t, error %v", nd, done, err)
	}
	dst := make([]byte, 5)
	nd, _, done, err = r.Step(dst, m[ns:], true)
	if nd != 5 || !done || err != nil {
		t.Errorf("wrote %d bytes, done %t, error %v; five bytes are room enough", nd, done, err)
	}
	if _, _, done, err = r.Step(nil, []byte{0}, true); !done || err != nil {
		t.Errorf("the empty message: done %t, error %v", done, err)
	}
}

// An input that says nothing is no progress and no error.
func TestInflateNothing(t *testing.T) {
	var r Inflater
	for range 3 {
		nd, ns, done, err := r.Step(make([]byte, 10), nil, false)
		if nd != 0 || ns != 0 || done || err != nil {
			t.Fatalf("got %d, %d, %t, %v", nd, ns, done, err)
		}
	}
	_, _, _, err := r.Step(make([]byte, 10), nil, true)
	if !errors.Is(err, ErrCorrupt) {
		t.Errorf("a message without a single byte: error %v", err)
	}
}

func TestErrorsSayWhatWhereAndWhichRule(t *testing.T) {
	var r Inflater
	_, err := inflateAll(&r, []byte{0, 5, 0, 5, 0}, 10)
	want := "permessage-deflate: stored block of length 0x0005 has the check 0x0005 after 5 bytes of compressed payload (DF-10)"
	if err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
	_, _, err = Confirm(Options{}, []Extension{{Name: "x-other"}})
	want = `permessage-deflate: the response activates "x-other", which was not offered (HR-06)`
	if err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}
