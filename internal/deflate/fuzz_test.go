package deflate

import (
	"bytes"
	"compress/flate"
	"errors"
	"io"
	"testing"

	kflate "github.com/klauspost/compress/flate"
)

// FuzzDeflateParams: no header makes the parser or the negotiation panic; what is
// parsed can be written and parsed again; what a server answers, a client that
// could have made the offer understands the same way.
func FuzzDeflateParams(f *testing.F) {
	for _, s := range []string{
		"permessage-deflate", "permessage-deflate; client_max_window_bits", `permessage-deflate; server_max_window_bits="10"`,
		"permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=8; client_max_window_bits=8",
		"permessage-deflate; client_max_window_bits=15, permessage-deflate", "x; y=z,, permessage-deflate; a", `a; b="`, "a;;", "\xff",
	} {
		f.Add(s, "", uint16(0))
		f.Add(s, s, uint16(0x5a5a))
	}
	f.Fuzz(func(t *testing.T, line1, line2 string, wish uint16) {
		o := Options{
			OwnNoContextTakeover:  wish&1 != 0,
			PeerNoContextTakeover: wish&2 != 0,
			RequirePeerWindow:     wish&4 != 0,
			OwnWindowBits:         int(wish >> 4 & 15),
			PeerWindowBits:        int(wish >> 8 & 15),
		}
		list, err := ParseExtensions([]string{line1, line2})
		if err != nil {
			var e *Error
			if list != nil || !errors.As(err, &e) || e.RuleID != "HS-15" {
				t.Fatalf("%v, error %v", list, err)
			}
			return
		}
		var lines []string
		for _, e := range list {
			lines = append(lines, e.element())
		}
		again, err := ParseExtensions(lines)
		if err != nil || len(again) != len(list) {
			t.Fatalf("%q parsed again: %v, error %v", lines, again, err)
		}
		for i := range list {
			if list[i].element() != again[i].element() {
				t.Fatalf("%q became %q", list[i].element(), again[i].element())
			}
		}

		// As an offer.
		p, response, ok := Accept(list, o)
		if ok {
			for _, bits := range []int{p.ServerMaxWindowBits, p.ClientMaxWindowBits} {
				if bits < WindowBitsMin || bits > WindowBitsMax {
					t.Fatalf("%q accepted with %+v", lines, p)
				}
			}
			if p.ServerMaxWindowBits > o.ownBits() || o.OwnNoContextTakeover && !p.ServerNoContextTakeover || o.PeerNoContextTakeover && !p.ClientNoContextTakeover {
				t.Fatalf("%q accepted with %+v although we want %+v", lines, p, o)
			}
			r, err := ParseExtensions([]string{response})
			if err != nil {
				t.Fatal(err)
			}
			got, active, err := Confirm(Options{}, r)
			if err != nil || !active || got != p {
				t.Fatalf("response %q to %q: the server means %+v, the client understands %+v, error %v", response, lines, p, got, err)
			}
		}

		// As a response.
		p, active, err := Confirm(o, list)
		if err != nil {
			var e *Error
			if active || !errors.As(err, &e) || e.Offset >= 0 {
				t.Fatalf("active %t, error %v", active, err)
			}
			return
		}
		if active && (p.ClientMaxWindowBits > o.ownBits() || p.ServerMaxWindowBits > o.peerBits() ||
			o.PeerNoContextTakeover && !p.ServerNoContextTakeover || o.OwnNoContextTakeover && !p.ClientNoContextTakeover) {
			t.Fatalf("%q confirmed as %+v although we want %+v", lines, p, o)
		}
	})
}

// oracle inflates a message with another inflater, block sequence by block
// sequence, since that ends where BFINAL is set. It reports how many bytes of
// the payload and of Tail are left, and the error of the last part.
func oracle(newReader func(io.Reader, []byte) io.Reader, m, history []byte, limit int) (out []byte, left int, err error) {
	src := bytes.NewReader(append(bytes.Clone(m), Tail...))
	for {
		part, err := io.ReadAll(io.LimitReader(newReader(src, lastOf(append(bytes.Clone(history), out...), 1<<15)), int64(limit-len(out)+1)))
		out = append(out, part...)
		if err != nil || src.Len() == 0 || len(out) > limit {
			return out, src.Len(), err
		}
	}
}

// FuzzInflate: the same bytes come out of our inflater, of the standard
// library's, of klauspost's and of the reference, or an error out of ours and a
// reason for it; and it does not matter where input and output are cut.
func FuzzInflate(f *testing.F) {
	for _, m := range handMade() {
		f.Add(m, byte(15), byte(1), byte(1))
	}
	for _, p := range samples() {
		if len(p) < 2000 {
			f.Add(stdMessage(f, p, 6), byte(15), byte(7), byte(9))
			f.Add(stdMessage(f, p, 6), byte(9), byte(3), byte(100))
			f.Add(append(stdMessage(f, p, 1), Tail...), byte(15), byte(3), byte(100))
		}
	}
	f.Fuzz(checkInflate)
}

// checkInflate inflates m and compares with everybody else.
func checkInflate(t *testing.T, m []byte, bits, in, room byte) {
	const limit = 1 << 13
	history := []byte("earlier message ")
	for _, takeover := range []bool{false, true} {
		var r Inflater
		r.Reset(int(bits), takeover)
		before := []byte{}
		if takeover {
			before = history
			if _, err := inflateAll(&r, new(Deflater).AppendMessage(nil, history), len(history)); err != nil {
				t.Fatal(err)
			}
		}
		whole := make([]byte, limit+1)
		n, ns, done, err := r.Step(whole, m, true)
		whole = whole[:n]
		tail := r.TailLeft()
		if n > limit {
			continue // nothing is known about the rest
		}
		if err == nil && (!done || ns != len(m)) {
			t.Fatalf("took %d of %d bytes, made %d, done %t", ns, len(m), n, done)
		}

		// Cuts.
		r.Reset(int(bits), takeover)
		if takeover {
			if _, err := inflateAll(&r, new(Deflater).AppendMessage(nil, history), len(history)); err != nil {
				t.Fatal(err)
			}
		}
		cut, cutErr := inflateCut(&r, m, always(1+int(in)), always(1+int(room)))
		if !bytes.Equal(cut, whole) || (err == nil) != (cutErr == nil) || err == nil && tail != r.TailLeft() {
			t.Fatalf("whole: %d bytes, error %v, tail left %t; by %d and %d: %d bytes, error %v, tail left %t",
				n, err, tail, 1+int(in), 1+int(room), len(cut), cutErr, r.TailLeft())
		}
		var e, cutE *Error
		if err != nil {
			if !errors.As(err, &e) || !errors.As(cutErr, &cutE) || *e != *cutE {
				t.Fatalf("whole: error %v; by %d and %d: error %v", err, 1+int(in), 1+int(room), cutErr)
			}
		}

		// Others.
		ref := reference{out: bytes.Clone(before)}
		refErr := ref.message(m)
		refOut := ref.out[len(before):]
		if err == nil {
			if ref.distMax > 1<<clampWindowBits(int(bits)) || !takeover && ref.beyond > 0 {
				t.Fatalf("accepted a back-reference over %d bytes, %d before the start; window %d, takeover %t", ref.distMax, ref.beyond, bits, takeover)
			}
			// The reference is fed the tail in any case; where we tolerate that it is
			// superfluous, it stops inside.
			if !bytes.Equal(refOut, whole) || refErr != nil && !errors.Is(refErr, errReferenceEnd) {
				t.Fatalf("the reference has %d bytes, error %v, we %d", len(refOut), refErr, len(whole))
			}
			for name, newReader := range map[string]func(io.Reader, []byte) io.Reader{
				"compress/flate":     func(r io.Reader, d []byte) io.Reader { return flate.NewReaderDict(r, d) },
				"klauspost/compress": func(r io.Reader, d []byte) io.Reader { return kflate.NewReaderDict(r, d) },
			} {
				out, left, oErr := oracle(newReader, m, before, limit)
				if !bytes.Equal(out, whole) || left != 0 || oErr != nil && oErr != io.ErrUnexpectedEOF {
					t.Fatalf("%s has %d bytes, %d left, error %v, we %d", name, len(out), left, oErr, len(whole))
				}
			}
			continue
		}
		switch e.RuleID {
		case "DF-11":
			if ref.distMax <= 1<<clampWindowBits(int(bits)) && !errors.Is(refErr, errReferenceCorrupt) {
				t.Fatalf("%v: the longest back-reference is over %d bytes", err, ref.distMax)
			}
		case "DF-12":
			if takeover || ref.beyond <= 0 && !errors.Is(refErr, errReferenceCorrupt) {
				t.Fatalf("%v: takeover %t, back-references go %d bytes before the start", err, takeover, ref.beyond)
			}
		case "DF-10":
			// A message cut short may be whole with the tail's octets taken as data;
			// and the reference, like RFC 1951, has nothing against codes that are
			// incomplete. Where it objects, we do.
		default:
			t.Fatalf("rule %s", e.RuleID)
		}
		if !bytes.HasPrefix(refOut, whole) {
			t.Fatalf("before the error we wrote %d bytes that the reference has not", len(whole))
		}
	}
}

// Every single bit of a few messages turned over: most are then corrupt, and
// those that are not mean something else.
func TestInflateTurnedBits(t *testing.T) {
	json := corpus(30, 1, 200)[0]
	for name, m := range map[string][]byte{
		"fixed":   stdMessage(t, []byte("Hello, Hello, Hello"), 6),
		"dynamic": stdMessage(t, json, 6),
		"stored":  stdMessage(t, json[:60], 0),
		"skewed":  skewed()[:250],
	} {
		t.Run(name, func(t *testing.T) {
			for i := range 8 * len(m) {
				turned := bytes.Clone(m)
				turned[i/8] ^= 1 << (i % 8)
				checkInflate(t, turned, 15, 10, 200)
			}
		})
	}
}

// FuzzRoundTrip: whatever the messages, the window, the level and the cuts, they
// come out again, at the reference inflater too, which checks the window.
func FuzzRoundTrip(f *testing.F) {
	for i, p := range samples() {
		if len(p) < 3000 {
			f.Add(p, byte(i), byte(i), uint16(100*i))
		}
	}
	f.Fuzz(func(t *testing.T, p []byte, bits, how byte, cut uint16) {
		takeover := how&1 != 0
		window := WindowBitsMin + int(bits)%8
		var d Deflater
		d.Reset(window, takeover)
		d.SetLevel(int(how >> 1 & 15))
		d.SetContext(int(bits >> 3))
		var r Inflater
		r.Reset(window, takeover)
		var ref reference
		at := min(int(cut), len(p))
		for i, q := range [][]byte{p, p[at:], p[:at], bytes.Repeat(p, 3), p} {
			var wire []byte
			if how&0x20 != 0 {
				k := min(at, len(q))
				wire = d.Append(wire, q[:k])
				if how&0x40 != 0 {
					wire = d.Flush(wire)
				}
				if how&0x80 != 0 {
					d.Release()
				}
				wire = d.Finish(d.Append(wire, q[k:]))
			} else {
				wire = d.AppendMessage(nil, q)
			}
			if err := ref.message(wire); err != nil || !bytes.Equal(ref.out[ref.start:], q) {
				t.Fatalf("message %d: the reference reads %d of %d bytes, error %v", i, len(ref.out)-ref.start, len(q), err)
			}
			if ref.distMax > 1<<window || !takeover && ref.beyond > 0 {
				t.Fatalf("message %d: back-reference over %d bytes, %d before the start; window %d, takeover %t", i, ref.distMax, ref.beyond, window, takeover)
			}
			if got, err := inflateAll(&r, wire, len(q)); err != nil || !bytes.Equal(got, q) {
				t.Fatalf("message %d: we read %d of %d bytes, error %v", i, len(got), len(q), err)
			}
		}
	})
}
