package acip

import (
	"math"
)

const (
	frameHeader = 24
	audioHeader = 16
	// ImageSideMax is the largest width or height of an IMAGE_FRAME in pixels.
	ImageSideMax = 8192
	// ImageMax is the largest picture in bytes (three per pixel): what fits
	// into an encrypted packet.
	ImageMax = SealedMax - HeaderSize - frameHeader
	// AudioSamplesMax is the longest AUDIO_BATCH in samples.
	AudioSamplesMax = 16384
	opusFramesMax   = 1000
	// opusFrameMax is the longest Opus packet in bytes, RFC 6716 section 3.4:
	// 1275 per frame; nobody sends more than one frame per packet here.
	opusFrameMax = 1275
	// SampleRate is the sample rate of all audio in hertz.
	SampleRate = 48000
)

// Pixel formats of an IMAGE_FRAME. Servers treat 1 to 4 all as RGB24: C clients
// say 1 and browsers 3 for the same bytes.
const (
	PixelRGB24        = 1
	PixelRGB24Browser = 3
)

// An ImageFrame is the payload of IMAGE_FRAME (3001): a picture, rows from top
// to bottom, three bytes R, G, B per pixel.
type ImageFrame struct {
	Width, Height int // pixels, 1 to ImageSideMax each
	Format        uint32
	Timestamp     uint32 // 0, or the low 32 bits of a time in milliseconds
	Pixels        []byte // 3*Width*Height bytes, at most ImageMax
}

// AppendTo appends header and pixels.
func (f *ImageFrame) AppendTo(dst []byte) []byte {
	return append(f.AppendHeader(dst), f.Pixels...)
}

// AppendHeader appends the 24 bytes that stand before the pixels.
func (f *ImageFrame) AppendHeader(dst []byte) []byte {
	dst = be.AppendUint32(dst, uint32(f.Width))
	dst = be.AppendUint32(dst, uint32(f.Height))
	dst = be.AppendUint32(dst, f.Format)
	dst = be.AppendUint32(dst, 0) // compressed size: never compressed
	dst = be.AppendUint32(dst, 0) // checksum: unchecked by everybody
	return be.AppendUint32(dst, f.Timestamp)
}

// ParseImageFrame decodes and checks the payload of IMAGE_FRAME. The pixels
// alias b.
func ParseImageFrame(b []byte) (ImageFrame, error) {
	const t = TypeImageFrame
	if len(b) < frameHeader {
		return ImageFrame{}, wrongSize(t, len(b), "at least 24")
	}
	w, h := be.Uint32(b), be.Uint32(b[4:])
	f := ImageFrame{int(w), int(h), be.Uint32(b[8:]), be.Uint32(b[20:]), b[frameHeader:]}
	switch {
	case w < 1 || w > ImageSideMax || h < 1 || h > ImageSideMax:
		return ImageFrame{}, violation(RuleValue, t, "the picture is %d×%d; allowed is 1×1 to %d×%[3]d", w, h, ImageSideMax)
	case f.Format < 1 || f.Format > 4:
		return ImageFrame{}, violation(RuleValue, t, "the pixel format is %d; allowed is 1 to 4, all of them RGB24", f.Format)
	case len(f.Pixels) != 3*f.Width*f.Height:
		return ImageFrame{}, violation(RuleLength, t, "%d bytes of pixels; %d×%d has %d", len(f.Pixels), w, h, 3*f.Width*f.Height)
	}
	return f, nil
}

// An H265Frame is the payload of IMAGE_FRAME_H265 (3002).
type H265Frame struct {
	Key, Resized  bool
	Width, Height int
	Data          []byte // HEVC Annex B; empty in the first packet of C clients
}

// AppendTo appends the payload.
func (f *H265Frame) AppendTo(dst []byte) []byte {
	dst = append(dst, flag(f.Key)|flag(f.Resized)<<1)
	dst = be.AppendUint16(dst, uint16(f.Width))
	dst = be.AppendUint16(dst, uint16(f.Height))
	return append(dst, f.Data...)
}

// ParseH265Frame decodes the payload of IMAGE_FRAME_H265. The data alias b.
func ParseH265Frame(b []byte) (H265Frame, error) {
	if len(b) < 5 {
		return H265Frame{}, wrongSize(TypeImageFrameH265, len(b), "at least 5")
	}
	return H265Frame{b[0]&1 != 0, b[0]&2 != 0, int(be.Uint16(b[1:])), int(be.Uint16(b[3:])), b[5:]}, nil
}

// Bits of ASCIIFrame.Flags.
const (
	frameColor      = 1
	frameCompressed = 2
)

// An ASCIIFrame is the payload of ASCII_FRAME (3000): a picture as text with
// SGR sequences, rows separated by newlines.
type ASCIIFrame struct {
	Width, Height int // of the receiver's terminal, not of the text
	Flags         uint32
	Text          []byte
}

// AppendTo appends header and text.
func (f *ASCIIFrame) AppendTo(dst []byte) []byte {
	n := len(dst)
	dst = append(dst, make([]byte, frameHeader)...)
	dst = append(dst, f.Text...)
	f.PutHeader(dst[n:])
	return dst
}

// PutHeader writes the 24-byte header into b, whose remainder is the text, so
// that a renderer can leave room and write the text in place.
func (f *ASCIIFrame) PutHeader(b []byte) {
	text := b[frameHeader:]
	be.PutUint32(b, uint32(f.Width))
	be.PutUint32(b[4:], uint32(f.Height))
	be.PutUint32(b[8:], uint32(len(text)))
	be.PutUint32(b[12:], 0) // compressed size; browsers refuse compressed frames
	be.PutUint32(b[16:], Checksum(text))
	be.PutUint32(b[20:], f.Flags)
}

// FrameHeaderSize is the length of the header of ASCII_FRAME and IMAGE_FRAME in
// bytes.
const FrameHeaderSize = frameHeader

// ParseASCIIFrame decodes and checks the payload of ASCII_FRAME. The text
// aliases b. Compressed frames are refused: no server sends them.
func ParseASCIIFrame(b []byte) (ASCIIFrame, error) {
	const t = TypeASCIIFrame
	if len(b) < frameHeader {
		return ASCIIFrame{}, wrongSize(t, len(b), "at least 24")
	}
	w, h := be.Uint32(b), be.Uint32(b[4:])
	text := b[frameHeader:]
	f := ASCIIFrame{int(w), int(h), be.Uint32(b[20:]), text}
	switch {
	case w > TerminalMax || h > TerminalMax:
		return ASCIIFrame{}, violation(RuleValue, t, "the terminal is %d×%d; allowed is up to %d×%[3]d", w, h, TerminalMax)
	case f.Flags&frameCompressed != 0 || be.Uint32(b[12:]) != 0:
		return ASCIIFrame{}, violation(RuleValue, t, "the text is compressed; no server does that")
	case int64(be.Uint32(b[8:])) != int64(len(text)):
		return ASCIIFrame{}, violation(RuleLength, t, "%d bytes of text; the frame states %d", len(text), be.Uint32(b[8:]))
	case be.Uint32(b[16:]) != Checksum(text):
		return ASCIIFrame{}, violation(RuleChecksum, t, "the frame says CRC-32C %08x, the text has %08x", be.Uint32(b[16:]), Checksum(text))
	}
	return f, nil
}

// AudioBatch is the head of AUDIO_BATCH (4000); behind it stand the samples,
// 32-bit integers.
type AudioBatch struct {
	Batches, Rate, Channels uint32
	Samples                 []float32 // -1 to 1; at most AudioSamplesMax
}

// AppendTo appends the payload. Samples beyond ±1 are clipped.
func (a *AudioBatch) AppendTo(dst []byte) []byte {
	dst = be.AppendUint32(dst, a.Batches)
	dst = be.AppendUint32(dst, uint32(len(a.Samples)))
	dst = be.AppendUint32(dst, a.Rate)
	dst = be.AppendUint32(dst, a.Channels)
	for _, s := range a.Samples {
		var v int32
		switch {
		case s >= 1:
			v = math.MaxInt32
		case s <= -1:
			v = -math.MaxInt32
		case s == s: // not NaN
			v = int32(float64(s) * math.MaxInt32)
		}
		dst = be.AppendUint32(dst, uint32(v))
	}
	return dst
}

// parseAudioHead decodes and checks everything but the samples.
func parseAudioHead(b []byte) (AudioBatch, error) {
	const t = TypeAudioBatch
	if len(b) < audioHeader {
		return AudioBatch{}, wrongSize(t, len(b), "at least 16")
	}
	n := be.Uint32(b[4:])
	a := AudioBatch{be.Uint32(b), be.Uint32(b[8:]), be.Uint32(b[12:]), nil}
	switch {
	case n > AudioSamplesMax:
		return AudioBatch{}, violation(RuleValue, t, "%d samples; at most %d", n, AudioSamplesMax)
	case len(b)-audioHeader != 4*int(n):
		return AudioBatch{}, violation(RuleLength, t, "%d bytes of samples; %d samples have %d", len(b)-audioHeader, n, 4*n)
	case a.Channels < 1 || a.Channels > 2:
		return AudioBatch{}, violation(RuleValue, t, "%d channels; allowed are 1 and 2", a.Channels)
	case a.Rate < 8000 || a.Rate > 192000:
		return AudioBatch{}, violation(RuleValue, t, "a sample rate of %d; allowed is 8000 to 192000", a.Rate)
	}
	return a, nil
}

// ParseAudioBatch decodes the payload of AUDIO_BATCH; the samples go into
// room, which is extended as needed.
func ParseAudioBatch(b []byte, room []float32) (AudioBatch, error) {
	a, err := parseAudioHead(b)
	if err != nil {
		return a, err
	}
	room = room[:0]
	for p := b[audioHeader:]; len(p) > 0; p = p[4:] {
		room = append(room, float32(float64(int32(be.Uint32(p)))/math.MaxInt32))
	}
	a.Samples = room
	return a, nil
}

// An OpusBatch is the payload of AUDIO_OPUS_BATCH (4001): Opus packets of one
// mono stream.
type OpusBatch struct {
	Rate    uint32 // 48000
	FrameMS uint32 // 20
	Frames  [][]byte
}

// AppendTo appends the payload.
func (o *OpusBatch) AppendTo(dst []byte) []byte {
	dst = be.AppendUint32(dst, o.Rate)
	dst = be.AppendUint32(dst, o.FrameMS)
	dst = be.AppendUint32(dst, uint32(len(o.Frames)))
	dst = be.AppendUint32(dst, 0)
	for _, f := range o.Frames {
		dst = be.AppendUint16(dst, uint16(len(f)))
	}
	for _, f := range o.Frames {
		dst = append(dst, f...)
	}
	return dst
}

// ParseOpusBatch decodes the payload of AUDIO_OPUS_BATCH. The frames alias b.
// A frame need not be Opus: C servers wrap whole batches as if they were, so
// an error of the decoder concerns that frame only.
func ParseOpusBatch(b []byte) (OpusBatch, error) {
	const t = TypeOpusBatch
	if len(b) < audioHeader {
		return OpusBatch{}, wrongSize(t, len(b), "at least 16")
	}
	o := OpusBatch{Rate: be.Uint32(b), FrameMS: be.Uint32(b[4:])}
	n := be.Uint32(b[8:])
	if n > opusFramesMax || len(b)-audioHeader < 2*int(n) {
		return OpusBatch{}, violation(RuleValue, t, "%d Opus packets in %d bytes; at most %d", n, len(b), opusFramesMax)
	}
	sizes, data := b[audioHeader:audioHeader+2*int(n)], b[audioHeader+2*int(n):]
	o.Frames = make([][]byte, 0, n)
	for ; len(sizes) > 0; sizes = sizes[2:] {
		k := int(be.Uint16(sizes))
		if k > len(data) {
			return OpusBatch{}, violation(RuleLength, t, "an Opus packet of %d bytes with %d left", k, len(data))
		}
		o.Frames = append(o.Frames, data[:k:k])
		data = data[k:]
	}
	if len(data) != 0 {
		return OpusBatch{}, violation(RuleLength, t, "%d bytes are left after the last Opus packet", len(data))
	}
	return o, nil
}
