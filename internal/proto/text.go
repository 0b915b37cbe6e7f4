package proto

import "github.com/weft-ws/weft/internal/wire"

// Text checks that a text message is UTF-8 while it arrives, cut anywhere: "a
// particular text frame might include a partial UTF-8 sequence; however, the
// whole message MUST contain valid UTF-8" (RFC 6455 section 5.6). The zero
// value is ready for a message; it takes 8 bytes.
type Text struct {
	state wire.UTF8State
}

// Next takes the next bytes of the message. It returns -1 if all bytes so far
// may be the beginning of valid UTF-8, and else the index in p of the first
// byte after which nothing can mend them: in F4 90 80 80 the 90, in ED A0 80
// the A0, C0 and F5 themselves. Where the message was cut before p makes no
// difference to which byte it is. From then on, until Reset, every byte is
// hopeless.
func (t *Text) Next(p []byte) int {
	i := 0
	for i < len(p) && !t.state.Complete() { // a character begun before p
		if t.state = t.state.Step(p[i]); t.state.Hopeless() {
			return i
		}
		i++
	}
	// All characters that p finishes, at once. If that fails, the same bytes
	// tell one by one where. A few bytes are quicker one by one.
	if whole := len(p) - wire.PartialUTF8(p); whole-i >= 8 && wire.ValidUTF8(p[i:whole]) {
		i = whole
	}
	for ; i < len(p); i++ {
		if t.state = t.state.Step(p[i]); t.state.Hopeless() {
			return i
		}
	}
	return -1
}

// Complete reports whether the bytes so far are valid as a whole: a message
// must not end inside a character.
func (t *Text) Complete() bool { return t.state.Complete() }

// Reset makes t ready for the next message.
func (t *Text) Reset() { *t = Text{} }

// CutText returns where to cut p, a text or the beginning of one, so that its
// first part is as long as can be, at most n bytes, and does not end inside a
// character. That is 0 if n is shorter than the first character, and less than
// len(p) even if n is not when p itself ends inside a character.
func CutText(p []byte, n int) int {
	n = min(max(n, 0), len(p))
	return n - wire.PartialUTF8(p[:n])
}
