//go:build opus && cgo

package chat

import (
	"math"
	"testing"

	"github.com/weft-ws/weft/acip"
)

// What libopus encodes, the decoder in Go takes for what it was, at a sixth of
// the bytes of raw samples or less.
func TestOpusIsDecodedAgain(t *testing.T) {
	v := newVoice(acip.AudioOpus, logger(&logBuffer{}))
	in := tone(500)
	var d decoder
	var out []float32
	bytes := 0
	for round := range 10 {
		for at := 0; at < len(in); at += mixFrame {
			typ, p := v.append(nil, (*[mixFrame]float32)(in[at:]))
			if typ != acip.TypeOpusBatch {
				t.Fatalf("%s goes out", typ)
			}
			o, err := acip.ParseOpusBatch(p)
			if err != nil || len(o.Frames) != 1 || o.Rate != 48000 || o.FrameMS != 20 {
				t.Fatalf("%+v, %v", o, err)
			}
			bytes += len(p)
			if s := d.decode(acip.Packet{Type: typ, Payload: p}); round > 0 {
				out = append(out, s...)
			}
		}
	}
	if want := 9 * len(in); len(out) != want {
		t.Fatalf("%d samples of %d", len(out), want)
	}
	if got := level(out, 500); math.Abs(got-0.25) > 0.02 {
		t.Errorf("level %.3f of the tone, want 0.25", got)
	}
	if got := level(out, 730); got > 0.01 {
		t.Errorf("level %.3f where there was nothing", got)
	}
	if raw := 10 * 4 * len(in); bytes*6 > raw {
		t.Errorf("%d bytes for %d of raw samples", bytes, raw)
	}
}

func BenchmarkOpusEncode(b *testing.B) {
	v := newVoice(acip.AudioOpus, logger(&logBuffer{}))
	in := (*[mixFrame]float32)(tone(500))
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		_, dst = v.append(dst[:0], in)
	}
}
