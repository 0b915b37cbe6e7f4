package deflate

import (
	"bytes"
	"compress/flate"
	"fmt"
	"math/rand"
	"testing"
)

// inflateAll runs r over src in one piece with plenty of room.
func inflateAll(r *Inflater, src []byte, limit int) ([]byte, error) {
	var out []byte
	buf := make([]byte, 1<<16)
	for {
		nd, ns, done, err := r.Step(buf, src, true)
		out = append(out, buf[:nd]...)
		src = src[ns:]
		if err != nil || done {
			return out, err
		}
		if len(out) > limit {
			return out, fmt.Errorf("over the limit")
		}
	}
}

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

func TestInflateWhatOthersDeflate(t *testing.T) {
	rnd := rand.New(rand.NewSource(1))
	words := make([][]byte, 300)
	for i := range words {
		words[i] = make([]byte, 1+rnd.Intn(12))
		for j := range words[i] {
			words[i][j] = byte('a' + rnd.Intn(1+rnd.Intn(26)))
		}
	}
	for level := -2; level <= 9; level++ {
		for _, size := range []int{0, 1, 2, 10, 100, 1000, 4096, 70000, 300000} {
			var p []byte
			for len(p) < size {
				p = append(p, words[rnd.Intn(len(words))]...)
				if rnd.Intn(20) == 0 {
					p = append(p, byte(rnd.Intn(256)))
				}
			}
			p = p[:size]
			m := stdMessage(t, p, level)
			var r Inflater
			got, err := inflateAll(&r, m, size)
			if err != nil || !bytes.Equal(got, p) {
				t.Errorf("level %d, %d bytes: got %d bytes, error %v", level, size, len(got), err)
			}
			// One byte in, one byte out.
			got = got[:0]
			var b [1]byte
			for i := 0; ; {
				src := m[i:min(i+1, len(m))]
				nd, ns, done, err := r.Step(b[:], src, i+1 >= len(m))
				if err != nil {
					t.Fatalf("level %d, %d bytes, byte by byte: %v", level, size, err)
				}
				i += ns
				got = append(got, b[:nd]...)
				if done {
					break
				}
			}
			if !bytes.Equal(got, p) {
				t.Errorf("level %d, %d bytes, byte by byte: got %d bytes", level, size, len(got))
			}
		}
	}
}
