//go:build opus && cgo

package chat

/*
#cgo pkg-config: opus
#include <opus.h>

// cgo cannot call functions with a variable number of arguments.
static int weft_set_bitrate(OpusEncoder *e, opus_int32 bits) {
	return opus_encoder_ctl(e, OPUS_SET_BITRATE(bits));
}
*/
import "C"

import (
	"fmt"
	"runtime"
	"unsafe"
)

// EncodesOpus says whether this build sends sound as Opus; see opus_none.go.
const EncodesOpus = true

// An opusEncoder makes Opus packets of the sound of one stream, mono at 48 kHz,
// with libopus. One goroutine uses it at a time. libopus gets its memory from C,
// which is given back when nothing refers to the encoder any more.
type opusEncoder struct {
	state *C.OpusEncoder
}

// newOpusEncoder returns an encoder with the settings of the C programs: the
// application "audio" at 128 kbit/s.
func newOpusEncoder() (*opusEncoder, error) {
	var code C.int
	e := &opusEncoder{C.opus_encoder_create(mixRate, 1, C.OPUS_APPLICATION_AUDIO, &code)}
	if code != C.OPUS_OK {
		return nil, opusError("opening the encoder", code)
	}
	runtime.AddCleanup(e, func(s *C.OpusEncoder) { C.opus_encoder_destroy(s) }, e.state)
	if code := C.weft_set_bitrate(e.state, opusBitrate); code != C.OPUS_OK {
		return nil, opusError("setting the bit rate", code)
	}
	return e, nil
}

// encode returns the Opus packet of 20 ms of sound, valid until the next call.
func (e *opusEncoder) encode(samples *[mixFrame]float32, room *[opusPacketMax]byte) ([]byte, error) {
	n := C.opus_encode_float(e.state, (*C.float)(unsafe.Pointer(&samples[0])), mixFrame,
		(*C.uchar)(unsafe.Pointer(&room[0])), opusPacketMax)
	runtime.KeepAlive(e)
	if n < 0 {
		return nil, opusError("encoding", C.int(n))
	}
	return room[:n], nil
}

func opusError(doing string, code C.int) error {
	return fmt.Errorf("opus: %s: %s", doing, C.GoString(C.opus_strerror(code)))
}
