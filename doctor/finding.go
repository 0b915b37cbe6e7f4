package doctor

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/weft-ws/weft/capture"
	"github.com/weft-ws/weft/internal/proto"
)

// A Severity says how a finding is to be taken.
type Severity uint8

const (
	Violation Severity = 1 + iota // a requirement is broken
	Note                          // a SHOULD, or something that every receiver has to tolerate
	Hint                          // legal, but a known cause of trouble
)

// String returns "violation", "note" or "hint".
func (s Severity) String() string {
	switch s {
	case Violation:
		return "violation"
	case Note:
		return "note"
	}
	return "hint"
}

// severity is how a breach of a rule is to be taken.
func severity(r *Rule) Severity {
	switch {
	case r.Level == proto.LevelHint:
		return Hint
	// Frames other than data after a Close, and a compressed message with its
	// tail left on, are to be ignored or tolerated by whoever gets them.
	case r.Level == proto.LevelShould, r.ID == "CL-13", r.ID == "DF-13":
		return Note
	}
	return Violation
}

// A Finding is a broken rule with the evidence. It holds no payload beyond the
// few bytes that are to blame.
type Finding struct {
	Rule     Rule
	Severity Severity
	From     capture.Side // who broke the rule; for a rule that binds receivers, the receiver
	Proxy    bool         // an intermediary broke it, and From says which side's bytes show it
	At       time.Time
	// Frame is the frame that shows it; Frame.From is the direction to look at.
	// Index is 0 for the opening handshake and where there is no frame.
	Frame Frame
	// Offset is the guilty byte in its direction: of the frames, that is behind
	// the opening handshake, or of the handshake where Frame.Index is 0.
	Offset  int64
	Payload int64  // the guilty byte within the frame's payload, from 0; -1: not in the payload
	Detail  string // what was seen, in words
	Cause   string // what is likely behind it; "" where there is no guess
	History []Frame

	// Bytes is what a hex dump shows: the header, or the few guilty payload
	// bytes, unmasked. BytesAt is where they stand, -1 where they do not stand
	// together. Mark is the guilty part, and Note what it says.
	Bytes   []byte
	BytesAt int64
	Mark    [2]int
	Note    string
	// Line is the line of the opening handshake to blame, its LineNumber from
	// 1, or "" and 0. Mark then counts in it. Values that may be secret are
	// left out.
	Line       string
	LineNumber int

	Source string // Options.Source
}

// String is one line: who broke which rule where.
func (f *Finding) String() string {
	s := f.offender() + " broke " + f.Rule.Name + " (" + f.Rule.ID
	if f.Rule.RFC != "" {
		s += ", RFC " + f.Rule.RFC + " " + f.Rule.Section
	}
	s += ")"
	if f.Frame.Index > 0 {
		s += fmt.Sprintf(" in frame %d from the %s at byte %d", f.Frame.Index, f.Frame.From, f.Offset)
	} else {
		s += fmt.Sprintf(" at byte %d from the %s", f.Offset, f.Frame.From)
	}
	if f.Detail != "" {
		s += ": " + f.Detail
	}
	return s
}

func (f *Finding) offender() string {
	if f.Proxy {
		return "intermediary"
	}
	return f.From.String()
}

// WriteText renders the finding for people: where, which rule, what came
// before, the guilty bytes with a mark below them, and the likely cause.
func (f *Finding) WriteText(w io.Writer) error {
	var b strings.Builder
	if f.Source != "" {
		b.WriteString(f.Source + ": ")
	}
	fmt.Fprintf(&b, "%s → %s", f.Frame.From, f.Frame.From.Peer())
	switch {
	case f.Frame.Index > 0:
		fmt.Fprintf(&b, ", frame %s", group(uint64(f.Frame.Index)))
	case f.Rule.Layer == "handshake" || f.LineNumber > 0:
		b.WriteString(", opening handshake")
		if f.LineNumber > 0 {
			fmt.Fprintf(&b, ", line %d", f.LineNumber)
		}
	}
	fmt.Fprintf(&b, ", byte %s", group(uint64(f.Offset)))
	if !f.At.IsZero() {
		b.WriteString(", " + f.At.UTC().Format("15:04:05.000"))
	}
	b.WriteString("\n\n  " + f.Rule.Name)
	for _, part := range []string{source(&f.Rule), f.consequence()} {
		if part != "" {
			b.WriteString("      " + part)
		}
	}
	b.WriteString("\n  " + f.explanation() + "\n")
	if f.Proxy || f.From != f.Frame.From {
		fmt.Fprintf(&b, "  broken by the %s\n", f.offender())
	}
	f.writeHistory(&b)
	f.writeBytes(&b)
	f.writeLine(&b)
	if f.Cause != "" {
		b.WriteString("\nhint: " + f.Cause + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// source is where a rule stands, as in "RFC 6455 §5.4".
func source(r *Rule) string {
	if r.RFC == "" {
		return ""
	}
	return "RFC " + r.RFC + " §" + r.Section
}

// consequence is what a receiver does about it, and how grave it is.
func (f *Finding) consequence() string {
	s := ""
	switch {
	case f.Rule.Code != 0:
		s = "close " + strconv.Itoa(int(f.Rule.Code))
	case f.Rule.Status != 0:
		s = "HTTP " + strconv.Itoa(f.Rule.Status)
	default:
		s = f.Rule.Action
	}
	if f.Severity != Violation {
		s += " (" + f.Severity.String() + ")"
	}
	return s
}

func (f *Finding) explanation() string {
	if f.Detail != "" {
		return f.Detail
	}
	return f.Rule.Says
}

// writeHistory shows the frames before the guilty one, and that one.
func (f *Finding) writeHistory(b *strings.Builder) {
	if f.Frame.Index == 0 && len(f.History) == 0 {
		return
	}
	frames := f.History
	guilty := -1
	if f.Frame.Index > 0 {
		guilty = len(frames)
		for i := range frames {
			if frames[i].Index == f.Frame.Index && frames[i].From == f.Frame.From {
				guilty = i
			}
		}
		if guilty == len(frames) {
			frames = append(frames[:len(frames):len(frames)], f.Frame)
		}
	}
	var cells [][4]string
	var width [4]int
	for i := range frames {
		fr := &frames[i]
		c := [4]string{"#" + group(uint64(fr.Index)), fr.Opcode.String(), "FIN=0", group(fr.Length)}
		if fr.Fin {
			c[2] = "FIN=1"
		}
		if fr.LengthForm == 0 {
			c = [4]string{c[0], "?", "", ""} // its header is not complete
		}
		for n, set := range []bool{fr.RSV1, fr.RSV2, fr.RSV3} {
			if set {
				c[2] += " RSV" + strconv.Itoa(n+1)
			}
		}
		cells = append(cells, c)
		for k := range c {
			width[k] = max(width[k], len(c[k]))
		}
	}
	b.WriteByte('\n')
	for i, c := range cells {
		fr := &frames[i]
		if i > 0 && frames[i-1].From == fr.From && frames[i-1].Index+1 < fr.Index {
			fmt.Fprintf(b, "    …%s  %s\n", strings.Repeat(" ", max(width[0]-1, 0)), count(int(fr.Index-frames[i-1].Index-1), "frame"))
		}
		line := fmt.Sprintf("    %*s  %-*s  %-*s  %-*s  ", width[0], c[0], width[1], c[1], width[2], c[2], width[3], c[3])
		switch {
		case i == guilty:
			line += remark(f)
		case fr.Fragment > 0 && fr.Fin:
			line += " message complete, " + count(int(fr.Total), "byte")
		}
		if fr.From != f.Frame.From {
			line += " from the " + fr.From.String()
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
}

// remark is what is said beside the guilty frame.
func remark(f *Finding) string {
	switch f.Rule.ID {
	case "MS-01", "MS-02":
		return " nothing to continue"
	case "MS-03", "MS-04":
		return " another message is open"
	case "CL-07", "CL-13":
		return " after the Close"
	case "MS-11":
		return " the last fragment that came"
	case "CT-01", "CT-02":
		return " no pong for this"
	case "CL-08":
		return " no Close in answer"
	case "FR-13":
		return " cut short"
	}
	return " this frame"
}

// writeBytes shows the bytes in hex with a mark below the guilty ones.
func (f *Finding) writeBytes(b *strings.Builder) {
	if len(f.Bytes) == 0 {
		return
	}
	addr := "      "
	if f.BytesAt >= 0 {
		addr = fmt.Sprintf("%06x", f.BytesAt)
	}
	fmt.Fprintf(b, "\n    %s  % x", addr, f.Bytes)
	if f.Payload < 0 && f.Frame.Length > 0 {
		b.WriteString("  …")
	}
	b.WriteByte('\n')
	from, to := f.Mark[0], min(f.Mark[1], len(f.Bytes))
	if from < to {
		fmt.Fprintf(b, "    %*s  %s%s %s\n", len(addr), "", strings.Repeat("   ", from), strings.Repeat("^", 3*(to-from)-1), f.Note)
	}
}

// writeLine shows the line of the handshake with a mark below the guilty part.
func (f *Finding) writeLine(b *strings.Builder) {
	if f.Line == "" {
		return
	}
	fmt.Fprintf(b, "\n    %s\n", f.Line)
	from, to := f.Mark[0], min(f.Mark[1], len(f.Line))
	if from < to {
		fmt.Fprintf(b, "    %s%s\n", strings.Repeat(" ", from), strings.Repeat("^", to-from))
	}
}

// MarshalJSON renders the finding for programs. Fields that do not apply are
// left out.
func (f *Finding) MarshalJSON() ([]byte, error) {
	type frame struct {
		From     string `json:"from"`
		Index    int64  `json:"index"`
		Offset   int64  `json:"offset"`
		Opcode   string `json:"opcode"`
		Fin      bool   `json:"fin"`
		RSV1     bool   `json:"rsv1,omitempty"`
		RSV2     bool   `json:"rsv2,omitempty"`
		RSV3     bool   `json:"rsv3,omitempty"`
		Masked   bool   `json:"masked"`
		Length   uint64 `json:"length"`
		Fragment int    `json:"fragment,omitempty"`
		Total    uint64 `json:"message_length,omitempty"`
	}
	convert := func(x *Frame) frame {
		return frame{x.From.String(), x.Index, x.Offset, x.Opcode.String(), x.Fin, x.RSV1, x.RSV2, x.RSV3, x.Masked, x.Length, x.Fragment, x.Total}
	}
	out := struct {
		Source    string     `json:"source,omitempty"`
		Rule      string     `json:"rule"`
		Name      string     `json:"name"`
		RFC       string     `json:"rfc,omitempty"`
		Section   string     `json:"section,omitempty"`
		Level     string     `json:"level"`
		Severity  string     `json:"severity"`
		Says      string     `json:"says"`
		Action    string     `json:"action"`
		CloseCode int        `json:"close_code,omitempty"`
		Status    int        `json:"http_status,omitempty"`
		Offender  string     `json:"offender"`
		Direction string     `json:"direction"`
		At        *time.Time `json:"at,omitempty"`
		Offset    int64      `json:"offset"`
		Payload   *int64     `json:"payload_offset,omitempty"`
		Detail    string     `json:"detail,omitempty"`
		Cause     string     `json:"likely_cause,omitempty"`
		Frame     *frame     `json:"frame,omitempty"`
		History   []frame    `json:"history,omitempty"`
		Bytes     string     `json:"bytes,omitempty"`
		Line      string     `json:"line,omitempty"`
		LineNo    int        `json:"line_number,omitempty"`
	}{
		Source: f.Source, Rule: f.Rule.ID, Name: f.Rule.Name, RFC: f.Rule.RFC, Section: f.Rule.Section,
		Level: f.Rule.Level.String(), Severity: f.Severity.String(), Says: f.Rule.Says, Action: f.Rule.Action,
		CloseCode: int(f.Rule.Code), Status: f.Rule.Status, Offender: f.offender(), Direction: f.Frame.From.String(),
		Offset: f.Offset, Detail: f.Detail, Cause: f.Cause, Bytes: hex.EncodeToString(f.Bytes), Line: f.Line, LineNo: f.LineNumber,
	}
	if !f.At.IsZero() {
		out.At = &f.At
	}
	if f.Payload >= 0 {
		out.Payload = &f.Payload
	}
	if f.Frame.Index > 0 {
		x := convert(&f.Frame)
		out.Frame = &x
	}
	for i := range f.History {
		out.History = append(out.History, convert(&f.History[i]))
	}
	return json.Marshal(out)
}

// likelyCause guesses what is behind a finding, from what is usually behind it.
func likelyCause(f *Finding) string {
	switch f.Rule.ID {
	case "FR-03", "FR-04", "FR-05", "FR-06":
		if beginsText(&f.Frame) {
			return "these bytes look like text that was written to the socket as it is: the error page of a proxy, or output past the WebSocket library"
		}
	}
	switch f.Rule.ID {
	case "MS-01":
		return "the recording or the connection was joined in the middle of a message"
	case "MS-02":
		return continuationCause(f)
	case "MS-03", "MS-04":
		return "two writers share this connection without a lock around a whole message"
	case "MS-05":
		return "binary data was sent as a text message, or text in another encoding than UTF-8"
	case "MS-06", "CL-06":
		return "text was cut at a byte count instead of between characters"
	case "MS-11":
		return "the sender died or gave up in the middle of a message"
	case "MS-12", "MS-13":
		return "the receiver does not know fragments, or control frames between them"
	case "FR-01":
		return "the sender thinks that it is the server, or a proxy took the mask off"
	case "FR-02":
		return "the sender thinks that it is the client, or a proxy forwarded the client's frames unchanged"
	case "FR-03":
		return "the sender compresses although permessage-deflate was not agreed on"
	case "FR-04", "FR-05", "FR-06":
		return "what is read as a header is not one: an earlier length was wrong, two writers mixed their bytes, or the sender uses an extension that was not agreed on"
	case "FR-07":
		return "a negative or uninitialised length was written"
	case "FR-08", "FR-09":
		return "the sender always writes the same form of length"
	case "FR-10":
		return "data belongs in a message; and a close reason is cut to 123 bytes"
	case "FR-12":
		if f.Frame.Key == [4]byte{} {
			return "with a key of zero nothing is masked: the sender needs four random bytes for each frame"
		}
		return "the sender's source of masking keys is a constant or a counter"
	case "FR-13", "CL-10":
		return "the process died, or closed the socket without a closing handshake"
	case "CL-03":
		return "the sender passed on the code that its own library reports for a lost connection"
	case "CL-07":
		return "a writer was not told that the connection is closing"
	case "CT-01":
		return "nobody reads on the other side, or it reads only between long messages"
	case "HS-11":
		return "the client's source of keys is a constant, or these are two recordings of one connection"
	case "HS-16":
		return "the client does not wait for the response"
	case "DF-11":
		return "the sender's compressor does not honour the window that was agreed on"
	case "DF-12":
		return "the sender's compressor is not reset between messages"
	case "DF-13":
		return "the sender does not take 00 00 ff ff off what its compressor flushed"
	case "HX-07":
		return "a proxy or load balancer cuts idle connections; send pings more often"
	}
	return ""
}

// beginsText reports whether a header could be the beginning of HTTP, HTML or
// JSON.
func beginsText(f *Frame) bool {
	first := byte(f.Opcode)
	for i, set := range []bool{f.RSV3, f.RSV2, f.RSV1, f.Fin} {
		if set {
			first |= 0x10 << i
		}
	}
	return !f.Masked && f.LengthForm == 1 && f.Length >= ' ' && strings.IndexByte("<{[H", first) >= 0
}

// continuationCause guesses why nothing was open to continue. Pieces of one
// size that begin with a complete message show a message cut by hand.
func continuationCause(f *Finding) string {
	const writers = "two writers share this connection without a lock"
	for i := len(f.History) - 1; i >= 0; i-- {
		h := &f.History[i]
		if h.Fragment == 0 {
			continue
		}
		if h.Fragment == 1 && h.Length == f.Frame.Length {
			return fmt.Sprintf("frame %s looks like the first piece of a message that was cut into pieces of %s by hand, but it was sent with FIN=1: "+
				"every piece but the last needs FIN=0; or %s", group(uint64(h.Index)), count(int(h.Length), "byte"), writers)
		}
		break
	}
	return "the sender ended a message too early, or " + writers
}

// badByte says why a character is hopeless; its last byte is the one.
func badByte(char []byte) string {
	c := char[len(char)-1]
	hexes := fmt.Sprintf("%02x", c)
	switch {
	case len(char) == 1 && c < 0xc0:
		return hexes + " continues a character that did not begin"
	case len(char) == 1 && c < 0xc2:
		return hexes + " begins an overlong form"
	case len(char) == 1:
		return hexes + " is never part of UTF-8"
	case c < 0x80 || c >= 0xc0:
		return hexes + " stands where a character should go on"
	case char[0] == 0xed && len(char) == 2:
		return hexes + " makes a surrogate"
	case char[0] == 0xf4 && len(char) == 2:
		return hexes + " makes a value above U+10FFFF"
	}
	return hexes + " makes an overlong form"
}

// group writes a number with spaces between groups of three digits.
func group(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + " " + s[i:]
	}
	return s
}

// count writes a number of things.
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return group(uint64(n)) + " " + thing + "s"
}
