package acip

import "bytes"

// filterMax is the last colour filter that has a name, "rainbow".
const filterMax = 12

// strictly refuses session packets that parse and are tolerated because C
// programs or the browser client send them. What no peer could do better stays
// allowed: utf8_support in host order, which is the byte order of all, version
// 1.0, H.265, and an end without a word.
func strictly(p Packet) error {
	refuse := func(format string, args ...any) error {
		return violation(RuleStrict, p.Type, format, args...)
	}
	if p.Client != 0 {
		return refuse("the header names client %#x; that field is 0", p.Client)
	}
	switch p.Type {
	case TypeCapabilities:
		if c, err := ParseCapabilities(p.Payload); err == nil && c.Filter > filterMax {
			return refuse("the colour filter is %d; allowed is 0 to %d", c.Filter, filterMax)
		}
	case TypeImageFrame:
		if f, err := ParseImageFrame(p.Payload); err == nil && f.Format != PixelRGB24 {
			return refuse("the pixel format is %d; RGB24 is %d", f.Format, PixelRGB24)
		}
	case TypeOpusBatch:
		o, err := ParseOpusBatch(p.Payload)
		if err != nil {
			return nil // its parser says so
		}
		for i, f := range o.Frames {
			if len(f) == 0 || len(f) > opusFrameMax {
				return refuse("Opus packet %d has %d bytes; allowed is 1 to %d", i, len(f), opusFrameMax)
			}
			if in, err := ParseOpusBatch(f); err == nil && in.Rate == o.Rate && in.FrameMS == o.FrameMS {
				return refuse("Opus packet %d is a whole batch", i)
			}
		}
	case TypeASCIIFrame:
		if f, err := ParseASCIIFrame(p.Payload); err == nil && bytes.Count(f.Text, []byte{'\n'}) >= f.Height {
			return refuse("%d rows for a terminal of %d", 1+bytes.Count(f.Text, []byte{'\n'}), f.Height)
		}
	}
	return nil
}
