package chat

import (
	"log/slog"
	"slices"
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

// tune starts or stops the mixer: it runs while somebody speaks and somebody
// hears. r.mu is held.
func (r *room) tune() {
	speaks, hears := false, false
	for _, m := range r.members {
		speaks = speaks || m.streams&acip.StreamAudio != 0
		hears = hears || m.hears()
	}
	switch on := speaks && hears; {
	case on && r.mixer == nil:
		x := &mixer{room: r, stop: make(chan struct{}), voices: map[*member]*voice{}}
		r.mixer = x
		r.server.wait.Go(x.run)
	case !on && r.mixer != nil:
		close(r.mixer.stop)
		r.mixer = nil
	}
}

// A mixer sends everybody the sound of all others, 50 times a second. All but
// the first line belongs to the goroutine that runs it.
type mixer struct {
	room *room
	stop chan struct{}

	total  [mixFrame]float32
	parts  [][mixFrame]float32 // of the members, by place in the room
	heard  []bool              // whether a part holds sound
	mixes  []mixed             // what goes out
	voices map[*member]*voice
	pool   acip.BufferPool
}

// mixed is what one member is to hear.
type mixed struct {
	to      *member
	codecs  uint32 // that it takes
	whole   bool   // the sum of all: nobody is left out
	samples [mixFrame]float32
}

func (x *mixer) run() {
	tick := time.NewTicker(time.Second / 50)
	defer tick.Stop()
	for {
		select {
		case <-x.stop:
			return
		case <-tick.C:
			x.mix()
			x.send()
		}
	}
}

// mix takes 20 ms of every sender and makes for each listener the sum of the
// others, less those whom the listener has muted.
func (x *mixer) mix() {
	r := x.room
	r.mu.Lock()
	defer r.mu.Unlock()
	x.mixes = x.mixes[:0]
	if over := len(r.members) - len(x.parts); over > 0 {
		x.parts = append(x.parts, make([][mixFrame]float32, over)...)
		x.heard = append(x.heard, make([]bool, over)...)
	}
	clear(x.total[:])
	speaking := 0
	for i, m := range r.members {
		if x.heard[i] = m.ring.take(&x.parts[i]); !x.heard[i] {
			continue
		}
		speaking++
		for k, v := range x.parts[i] {
			x.total[k] += v
		}
	}
	for _, m := range r.members {
		if speaking == 0 || !m.hears() {
			continue
		}
		out := mixed{to: m, codecs: m.codecs, samples: x.total}
		left := speaking
		for i, o := range r.members {
			if !x.heard[i] || o != m && !m.mutes[o.id] {
				continue
			}
			left--
			for k, v := range x.parts[i] {
				out.samples[k] -= v
			}
		}
		// Who has nobody to hear is sent nothing.
		if out.whole = left == speaking; left > 0 {
			x.mixes = append(x.mixes, out)
		}
	}
	for m := range x.voices {
		if !slices.Contains(r.members, m) {
			delete(x.voices, m)
		}
	}
}

// send encodes and sends the mixes. The room is not locked: encoding takes its
// time.
func (x *mixer) send() {
	var shared *acip.Buffer // raw samples, for all who hear everybody
	for i := range x.mixes {
		out := &x.mixes[i]
		v := x.voices[out.to]
		if v == nil || v.codecs != out.codecs {
			v = newVoice(out.codecs, out.to.server.cfg.Logger)
			x.voices[out.to] = v
		}
		if out.whole && v.opus == nil && shared != nil {
			out.to.sess.Link.Audio(acip.TypeAudioBatch, shared.Retain())
			continue
		}
		b := x.pool.Get()
		var t acip.Type
		t, b.B = v.append(b.B, &out.samples)
		if out.whole && v.opus == nil {
			shared = b.Retain()
		}
		out.to.sess.Link.Audio(t, b)
	}
	if shared != nil {
		shared.Release()
	}
}

// A voice makes the packets of one stream of sound: Opus, if this build has an
// encoder and the peer takes it, and else raw samples, which everybody takes.
// One goroutine uses it at a time.
type voice struct {
	codecs uint32
	opus   *opusEncoder // nil: raw samples
	room   [opusPacketMax]byte
}

const (
	mixRate       = acip.SampleRate
	opusBitrate   = 128_000 // bits a second, as the C programs
	opusPacketMax = 1275    // bytes; RFC 6716 section 3.4
)

// newVoice returns a voice for a peer that takes the given codecs.
func newVoice(codecs uint32, log *slog.Logger) *voice {
	v := &voice{codecs: codecs}
	if !EncodesOpus || codecs&acip.AudioOpus == 0 {
		return v
	}
	e, err := newOpusEncoder()
	if err != nil {
		log.Warn("sound goes out as raw samples", "reason", err)
		return v
	}
	v.opus = e
	return v
}

// append appends the payload of a packet with 20 ms of sound.
func (v *voice) append(dst []byte, samples *[mixFrame]float32) (acip.Type, []byte) {
	if v.opus != nil {
		if p, err := v.opus.encode(samples, &v.room); err == nil {
			o := acip.OpusBatch{Rate: mixRate, FrameMS: 20, Frames: [][]byte{p}}
			return acip.TypeOpusBatch, o.AppendTo(dst)
		}
		// 20 ms that cannot be encoded are no reason for silence.
	}
	a := acip.AudioBatch{Batches: 1, Rate: mixRate, Channels: 1, Samples: samples[:]}
	return acip.TypeAudioBatch, a.AppendTo(dst)
}
