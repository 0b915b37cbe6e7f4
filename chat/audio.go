package chat

import (
	"time"

	"github.com/pion/opus"

	"github.com/weft-ws/weft/acip"
)

const (
	// mixFrame is the length of a mixed packet in samples: 20 ms.
	mixFrame = acip.SampleRate / 50
	// ringMax bounds the sound of one sender that waits to be mixed: 200 ms.
	// What is older is dropped, for a call is about now.
	ringMax = 10 * mixFrame
	// ringMin is how much has to be there before a sender is heard, so that
	// packets that come unevenly do not crackle.
	ringMin = 2 * mixFrame
)

// A ring holds the sound of one sender, mono at 48 kHz. The zero value is
// empty.
type ring struct {
	buf     [ringMax]float32
	at, n   int
	playing bool
}

func (r *ring) reset() { r.at, r.n, r.playing = 0, 0, false }

// put adds samples; the oldest give way.
func (r *ring) put(s []float32) {
	if len(s) > ringMax {
		s = s[len(s)-ringMax:]
	}
	if over := r.n + len(s) - ringMax; over > 0 {
		r.at, r.n = (r.at+over)%ringMax, r.n-over
	}
	for _, v := range s {
		r.buf[(r.at+r.n)%ringMax] = v
		r.n++
	}
}

// take fills dst with the next 20 ms and reports whether there was sound.
func (r *ring) take(dst *[mixFrame]float32) bool {
	if !r.playing && r.n >= ringMin {
		r.playing = true
	}
	if !r.playing || r.n == 0 {
		r.playing = false
		return false
	}
	n := min(r.n, mixFrame)
	for i := range n {
		dst[i] = r.buf[(r.at+i)%ringMax]
	}
	clear(dst[n:])
	r.at, r.n = (r.at+n)%ringMax, r.n-n
	return true
}

// A decoder turns the sound of one sender into mono at 48 kHz.
type decoder struct {
	opus    opus.Decoder
	ready   bool
	samples []float32
	out     []float32
}

// decode returns the samples of a packet, valid until the next call. What
// cannot be decoded is left out: C servers wrap whole batches as if they were
// Opus packets, and one bad packet is a click at most.
func (d *decoder) decode(p acip.Packet) []float32 {
	if p.Type == acip.TypeAudioBatch {
		a, err := acip.ParseAudioBatch(p.Payload, d.samples)
		if err != nil {
			return nil
		}
		d.samples = a.Samples
		return d.convert(a.Samples, int(a.Rate), int(a.Channels))
	}
	o, err := acip.ParseOpusBatch(p.Payload)
	if err != nil {
		return nil
	}
	if !d.ready {
		if d.opus, err = opus.NewDecoderWithOutput(acip.SampleRate, 1); err != nil {
			return nil
		}
		d.ready = true
	}
	const frameMax = acip.SampleRate * 120 / 1000 // the longest Opus packet
	d.out = d.out[:0]
	for _, f := range o.Frames {
		if cap(d.samples) < frameMax {
			d.samples = make([]float32, frameMax)
		}
		n, err := d.decodeOne(f, d.samples[:frameMax])
		if err == nil && n <= frameMax && len(d.out) < ringMax {
			d.out = append(d.out, d.samples[:n]...)
		}
	}
	return d.out
}

// decodeOne keeps a decoder that trips over strange input from taking the
// server along.
func (d *decoder) decodeOne(f []byte, out []float32) (n int, err error) {
	defer func() {
		if p := recover(); p != nil {
			n, err, d.ready = 0, errOpus, false
		}
	}()
	return d.opus.DecodeToFloat32(f, out)
}

// convert mixes stereo down and brings another sample rate to 48 kHz by linear
// interpolation, which is enough for speech.
func (d *decoder) convert(s []float32, rate, channels int) []float32 {
	if channels == 2 {
		for i := range len(s) / 2 {
			s[i] = (s[2*i] + s[2*i+1]) / 2
		}
		s = s[:len(s)/2]
	}
	if rate == acip.SampleRate || len(s) == 0 {
		return s
	}
	d.out = d.out[:0]
	n := len(s) * acip.SampleRate / rate
	for i := range min(n, ringMax) {
		x := float64(i) * float64(rate) / acip.SampleRate
		k := int(x)
		v := s[min(k, len(s)-1)]
		if k+1 < len(s) {
			v += (s[k+1] - v) * float32(x-float64(k))
		}
		d.out = append(d.out, v)
	}
	return d.out
}

// audio takes a packet of sound.
func (m *member) audio(p acip.Packet) {
	if m.sound == nil {
		m.sound = &decoder{}
	}
	s := m.sound.decode(p)
	r := m.room
	r.mu.Lock()
	defer r.mu.Unlock()
	if m.stopped&acip.StreamAudio != 0 {
		return
	}
	if m.streams&acip.StreamAudio == 0 {
		m.streams |= acip.StreamAudio
		r.tune()
	}
	r.server.stats.audioIn.Add(1)
	m.ring.put(s)
}

// A mixer sends everybody the sound of all others, 50 times a second.
type mixer struct{ stop chan struct{} }

// tune starts or stops the mixer: it runs while somebody speaks and somebody
// hears. r.mu is held.
func (r *room) tune() {
	speaks, hears := false, false
	for _, m := range r.members {
		speaks = speaks || m.streams&acip.StreamAudio != 0
		hears = hears || m.hears
	}
	switch on := speaks && hears; {
	case on && r.mixer == nil:
		x := &mixer{make(chan struct{})}
		r.mixer = x
		r.server.wait.Go(func() { r.mix(x) })
	case !on && r.mixer != nil:
		close(r.mixer.stop)
		r.mixer = nil
	}
}

func (r *room) mix(x *mixer) {
	tick := time.NewTicker(time.Second / 50)
	defer tick.Stop()
	var total [mixFrame]float32
	var parts [][mixFrame]float32
	batch := acip.AudioBatch{Batches: 1, Rate: acip.SampleRate, Channels: 1, Samples: make([]float32, mixFrame)}
	var pool acip.BufferPool
	for {
		select {
		case <-x.stop:
			return
		case <-tick.C:
			parts = r.mixOnce(&total, parts, &batch, &pool)
		}
	}
}

// mixOnce takes 20 ms of every sender and sends each listener the sum of the
// others. When nobody is to be heard nothing is sent.
func (r *room) mixOnce(total *[mixFrame]float32, parts [][mixFrame]float32, batch *acip.AudioBatch, pool *acip.BufferPool) [][mixFrame]float32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(parts) < len(r.members) {
		parts = append(parts, [mixFrame]float32{})
	}
	clear(total[:])
	heard := 0
	for i, m := range r.members {
		m.heard = m.ring.take(&parts[i])
		if !m.heard {
			continue
		}
		heard++
		for k, v := range parts[i] {
			total[k] += v
		}
	}
	if heard == 0 {
		return parts
	}
	var shared *acip.Buffer // for all who are not heard themselves
	for i, m := range r.members {
		if !m.hears || m.heard && heard == 1 {
			continue
		}
		if !m.heard && shared != nil {
			m.sess.Link.Audio(acip.TypeAudioBatch, shared.Retain())
			continue
		}
		for k := range batch.Samples {
			batch.Samples[k] = total[k]
			if m.heard {
				batch.Samples[k] -= parts[i][k]
			}
		}
		b := pool.Get()
		b.B = batch.AppendTo(b.B)
		if !m.heard {
			shared = b.Retain()
		}
		m.sess.Link.Audio(acip.TypeAudioBatch, b)
	}
	if shared != nil {
		shared.Release()
	}
	return parts
}
