package chat

import (
	"errors"
	"fmt"
	"sync"

	"github.com/jfreymuth/pulse"

	"github.com/weft-ws/weft/acip"
)

// playMax bounds the sound that waits to be played: 300 ms.
const playMax = 15 * mixFrame

// An Audio is a microphone and a speaker of a PulseAudio or PipeWire server,
// reached through its socket. It implements Microphone and Speaker.
type Audio struct {
	client *pulse.Client
	record *pulse.RecordStream
	play   *pulse.PlaybackStream

	mu      sync.Mutex
	ready   sync.Cond
	taken   []float32 // from the microphone
	waiting []float32 // for the speaker
	closed  bool
}

// errAudioClosed ends a Read that waits.
var errAudioClosed = errors.New("the audio device is closed")

// OpenAudio connects to the user's sound server.
func OpenAudio() (*Audio, error) {
	c, err := pulse.NewClient(pulse.ClientApplicationName("weft chat"))
	if err != nil {
		return nil, fmt.Errorf("no PulseAudio or PipeWire: %w", err)
	}
	a := &Audio{client: c}
	a.ready.L = &a.mu
	if a.record, err = c.NewRecord(pulse.Float32Writer(a.fromMicrophone), pulse.RecordMono, pulse.RecordSampleRate(acip.SampleRate), pulse.RecordLatency(0.02)); err == nil {
		a.play, err = c.NewPlayback(pulse.Float32Reader(a.toSpeaker), pulse.PlaybackMono, pulse.PlaybackSampleRate(acip.SampleRate), pulse.PlaybackLatency(0.04))
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("the sound server: %w", err)
	}
	a.record.Start()
	a.play.Start()
	return a, nil
}

// fromMicrophone is called with what was recorded; what nobody reads is
// dropped.
func (a *Audio) fromMicrophone(s []float32) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.taken = append(a.taken, s...)
	if over := len(a.taken) - playMax; over > 0 {
		a.taken = append(a.taken[:0], a.taken[over:]...)
	}
	a.ready.Signal()
	return len(s), nil
}

// Read fills dst from the microphone, waiting for it.
func (a *Audio) Read(dst []float32) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.taken) < len(dst) && !a.closed {
		a.ready.Wait()
	}
	if a.closed {
		return errAudioClosed
	}
	n := copy(dst, a.taken)
	a.taken = append(a.taken[:0], a.taken[n:]...)
	return nil
}

// Play queues sound. What is more than 300 ms late is dropped.
func (a *Audio) Play(s []float32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting = append(a.waiting, s...)
	if over := len(a.waiting) - playMax; over > 0 {
		a.waiting = append(a.waiting[:0], a.waiting[over:]...)
	}
}

// toSpeaker fills the sound server's buffer; silence where there is nothing.
func (a *Audio) toSpeaker(dst []float32) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := copy(dst, a.waiting)
	a.waiting = append(a.waiting[:0], a.waiting[n:]...)
	clear(dst[n:])
	return len(dst), nil
}

// Close ends both and wakes a Read that waits.
func (a *Audio) Close() error {
	a.mu.Lock()
	if a.closed {
		a.mu.Unlock()
		return nil
	}
	a.closed = true
	a.ready.Broadcast()
	a.mu.Unlock()
	a.record.Close()
	a.play.Close()
	a.client.Close()
	return nil
}
