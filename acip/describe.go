package acip

import (
	"fmt"
	"strings"
)

// Describe says in a few words what a packet carries, for listings. It shows
// no key, nonce or proof; of what does not parse it shows the error.
func Describe(p Packet) string {
	s, err := describe(p)
	if err != nil {
		return err.Error()
	}
	return s
}

func describe(p Packet) (string, error) {
	switch p.Type {
	case TypeProtocolVersion:
		v, err := ParseProtocolVersion(p.Payload)
		return fmt.Sprintf("version %d.%d, mode %d", v.Version, v.Revision, v.Mode), err
	case TypeCryptoParameters:
		v, err := ParseCryptoParameters(p.Payload)
		return fmt.Sprintf("identity %v, client verification %v", v.Auth != 0, v.Verification), err
	case TypeKeyExchangeInit, TypeKeyExchangeResp:
		k, err := ParseKeyExchange(p.Type, p.Payload)
		if err != nil || !k.Signed {
			return "no identity", err
		}
		return "identity " + PublicKey(k.Identity).String(), nil
	case TypeAuthChallenge:
		c, err := ParseAuthChallenge(p.Payload)
		var need []string
		if c.Flags&ChallengePassword != 0 {
			need = append(need, "password")
		}
		if c.Flags&ChallengeClientKey != 0 {
			need = append(need, "client key")
		}
		return "wants " + strings.Join(need, " and "), err
	case TypeAuthFailed:
		f, err := ParseAuthFailed(p.Payload)
		return f.String(), err
	case TypeCapabilities:
		c, err := ParseCapabilities(p.Payload)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%d×%d, colour level %d, render mode %d, palette %d, %d fps, %q", c.Width, c.Height, c.Level, c.Mode, c.Palette, c.FPS, Printable(c.Term)), nil
	case TypeStreamStart, TypeStreamStop:
		m, err := ParseStreamMask(p.Type, p.Payload)
		return [...]string{"", "video", "audio", "video and audio"}[m&3], err
	case TypeImageFrame:
		f, err := ParseImageFrame(p.Payload)
		return fmt.Sprintf("%d×%d, pixel format %d", f.Width, f.Height, f.Format), err
	case TypeImageFrameH265:
		f, err := ParseH265Frame(p.Payload)
		return fmt.Sprintf("%d×%d, %d bytes of H.265", f.Width, f.Height, len(f.Data)), err
	case TypeASCIIFrame:
		f, err := ParseASCIIFrame(p.Payload)
		return fmt.Sprintf("%d×%d, %d bytes of text", f.Width, f.Height, len(f.Text)), err
	case TypeAudioBatch:
		a, err := ParseAudioBatch(p.Payload, nil)
		return fmt.Sprintf("%d samples at %d Hz", len(a.Samples), a.Rate), err
	case TypeOpusBatch:
		o, err := ParseOpusBatch(p.Payload)
		return fmt.Sprintf("%d Opus packets of %d ms", len(o.Frames), o.FrameMS), err
	case TypeServerState:
		s, err := ParseState(p.Payload)
		return fmt.Sprintf("%d connected, %d active", s.Connected, s.Active), err
	case TypeJoin:
		j, err := ParseJoin(p.Payload)
		return fmt.Sprintf("%q", j.Name), err
	case TypeLeave:
		s, err := ParseLeave(p.Payload)
		return s, err
	case TypeText:
		t, err := ParseText(p.Payload)
		return fmt.Sprintf("%d bytes", len(t.Line)), err
	case TypeMembers:
		m, err := ParseMembers(p.Payload)
		return fmt.Sprintf("%d members", len(m.List)), err
	case TypeMute:
		m, err := ParseMute(p.Payload)
		return fmt.Sprintf("member %d, %v", m.Client, m.On), err
	case TypeError:
		e, err := ParseErrorMessage(p.Payload)
		return e.Code.String() + ": " + e.Message, err
	case TypeRemoteLog:
		l, err := ParseRemoteLog(p.Payload)
		return l.Message, err
	}
	return "", nil
}
