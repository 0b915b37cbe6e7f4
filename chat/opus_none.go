//go:build !(opus && cgo)

package chat

// EncodesOpus says whether this build sends sound as Opus. It does when it was
// built with the tag opus, which needs a C compiler and libopus; there is no
// encoder in Go of which the same quality is known.
const EncodesOpus = false

// An opusEncoder is nothing in this build.
type opusEncoder struct{}

func newOpusEncoder() (*opusEncoder, error) { return nil, errNoOpusEncoder }

func (*opusEncoder) encode(*[mixFrame]float32, *[opusPacketMax]byte) ([]byte, error) {
	return nil, errNoOpusEncoder
}
