package acip

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf8"
)

const (
	gpgKeyIDMax      = 40
	noteMax          = 512 // text of ERROR_MESSAGE and REMOTE_LOG in bytes
	capabilitiesSize = 168
	nameMax          = 32 // display name in bytes
	textHeader       = 5
	// TextMax is the longest chat line in bytes.
	TextMax = 1024
	// MembersMax is how many members a WEFT_MEMBERS lists; more are left out.
	MembersMax = 1024
)

var be = binary.BigEndian

// wrongSize is the error of a payload that was handed to the wrong parser or
// cut short.
func wrongSize(t Type, got int, want string) error {
	return &Violation{Rule: RuleLength, Type: t, Code: CodeSize,
		Detail: fmt.Sprintf("%d payload bytes; %s has %s", got, t, want)}
}

// ---- handshake ----

// ProtocolVersion is the payload of PROTOCOL_VERSION (1), TCP only. Real peers
// say version 1, revision 0, whatever their headers claim.
type ProtocolVersion struct {
	Version, Revision uint16
	Mode              CryptoMode
	// Compression and Features are 0 everywhere; kept for decoding.
	Compression, CompressionThreshold uint8
	Features                          uint16
}

// A CryptoMode says what a peer asks for.
type CryptoMode uint8

const (
	ModeEncrypt      CryptoMode = 1
	ModeAuthenticate CryptoMode = 2
)

// AppendTo appends the 16 bytes of the payload.
func (v ProtocolVersion) AppendTo(dst []byte) []byte {
	dst = be.AppendUint16(dst, v.Version)
	dst = be.AppendUint16(dst, v.Revision)
	dst = append(dst, byte(v.Mode), v.Compression, v.CompressionThreshold)
	dst = be.AppendUint16(dst, v.Features)
	return append(dst, 0, 0, 0, 0, 0, 0, 0)
}

// ParseProtocolVersion decodes the payload of PROTOCOL_VERSION.
func ParseProtocolVersion(b []byte) (ProtocolVersion, error) {
	if len(b) != 16 {
		return ProtocolVersion{}, wrongSize(TypeProtocolVersion, len(b), "16")
	}
	return ProtocolVersion{be.Uint16(b), be.Uint16(b[2:]), CryptoMode(b[4]), b[5], b[6], be.Uint16(b[7:])}, nil
}

// Algorithms, all of which have one member: X25519, Ed25519 and
// XSalsa20-Poly1305.
const (
	KexX25519           = 1
	AuthNone            = 0
	AuthEd25519         = 1
	CipherXSalsa20Poly1 = 1
)

// CryptoCapabilities is the payload of CRYPTO_CAPABILITIES (1100), TCP only.
type CryptoCapabilities struct {
	Kex, Auth, Cipher                          uint16 // bit sets
	RequiresVerification                       bool
	PreferredKex, PreferredAuth, PreferredCiph uint8
}

// AppendTo appends the 10 bytes of the payload.
func (c CryptoCapabilities) AppendTo(dst []byte) []byte {
	dst = be.AppendUint16(dst, c.Kex)
	dst = be.AppendUint16(dst, c.Auth)
	dst = be.AppendUint16(dst, c.Cipher)
	return append(dst, flag(c.RequiresVerification), c.PreferredKex, c.PreferredAuth, c.PreferredCiph)
}

// ParseCryptoCapabilities decodes the payload of CRYPTO_CAPABILITIES.
func ParseCryptoCapabilities(b []byte) (CryptoCapabilities, error) {
	if len(b) != 10 {
		return CryptoCapabilities{}, wrongSize(TypeCryptoCapabilities, len(b), "10")
	}
	return CryptoCapabilities{be.Uint16(b), be.Uint16(b[2:]), be.Uint16(b[4:]), b[6] != 0, b[7], b[8], b[9]}, nil
}

// CryptoParameters is the payload of CRYPTO_PARAMETERS (1101): what the server
// has chosen.
type CryptoParameters struct {
	Kex, Auth, Cipher uint8
	Verification      bool   // the client has to show an identity
	KexKeySize        uint16 // 32
	AuthKeySize       uint16 // 0 or 32
	SignatureSize     uint16 // 0 or 64
	SecretSize        uint16 // 32
	NonceSize         uint8  // 24
	MACSize           uint8  // 16
	HMACSize          uint8  // 32
}

// AppendTo appends the 18 bytes of the payload.
func (c CryptoParameters) AppendTo(dst []byte) []byte {
	dst = append(dst, c.Kex, c.Auth, c.Cipher, flag(c.Verification))
	dst = be.AppendUint16(dst, c.KexKeySize)
	dst = be.AppendUint16(dst, c.AuthKeySize)
	dst = be.AppendUint16(dst, c.SignatureSize)
	dst = be.AppendUint16(dst, c.SecretSize)
	return append(dst, c.NonceSize, c.MACSize, c.HMACSize, 0, 0, 0)
}

// ParseCryptoParameters decodes the payload of CRYPTO_PARAMETERS.
func ParseCryptoParameters(b []byte) (CryptoParameters, error) {
	if len(b) != 18 {
		return CryptoParameters{}, wrongSize(TypeCryptoParameters, len(b), "18")
	}
	return CryptoParameters{b[0], b[1], b[2], b[3] != 0, be.Uint16(b[4:]), be.Uint16(b[6:]),
		be.Uint16(b[8:]), be.Uint16(b[10:]), b[12], b[13], b[14]}, nil
}

// A KeyExchange is the payload of CRYPTO_KEY_EXCHANGE_INIT (1102) and
// CRYPTO_KEY_EXCHANGE_RESP (1103): an ephemeral X25519 key and, optionally, an
// Ed25519 identity with its signature over that key.
type KeyExchange struct {
	Ephemeral [32]byte
	Signed    bool // the long form: Identity and Signature are there
	Identity  [32]byte
	Signature [64]byte
	GPGKeyID  string // response only; at most 40 bytes
}

// AppendTo appends the payload of t, which is TypeKeyExchangeInit (32 or 128
// bytes) or TypeKeyExchangeResp (32 or at least 129).
func (k *KeyExchange) AppendTo(dst []byte, t Type) []byte {
	dst = append(dst, k.Ephemeral[:]...)
	if !k.Signed {
		return dst
	}
	dst = append(dst, k.Identity[:]...)
	dst = append(dst, k.Signature[:]...)
	if t == TypeKeyExchangeResp {
		dst = append(dst, byte(len(k.GPGKeyID)))
		dst = append(dst, k.GPGKeyID...)
	}
	return dst
}

// ParseKeyExchange decodes the payload of t, which is TypeKeyExchangeInit or
// TypeKeyExchangeResp. A response without a GPG key id byte (128 bytes) is
// accepted, as the C server accepts it. The signature is not verified here.
func ParseKeyExchange(t Type, b []byte) (KeyExchange, error) {
	var k KeyExchange
	switch {
	case len(b) == 32:
		copy(k.Ephemeral[:], b)
		return k, nil
	case len(b) < 128:
		return k, wrongSize(t, len(b), "32 or at least 128")
	case t == TypeKeyExchangeInit && len(b) != 128:
		return k, wrongSize(t, len(b), "32 or 128")
	}
	k.Signed = true
	copy(k.Ephemeral[:], b)
	copy(k.Identity[:], b[32:])
	copy(k.Signature[:], b[64:])
	if len(b) > 128 {
		id, err := parseGPGKeyID(t, b[128:])
		if err != nil {
			return KeyExchange{}, err
		}
		k.GPGKeyID = id
	}
	return k, nil
}

// parseGPGKeyID decodes the length-prefixed tail that 1103 and 1105 share.
func parseGPGKeyID(t Type, b []byte) (string, error) {
	n := int(b[0])
	if n > gpgKeyIDMax || len(b) != 1+n {
		return "", violation(RuleValue, t, "the GPG key id is %d bytes long with %d bytes left; at most %d", n, len(b)-1, gpgKeyIDMax)
	}
	return string(b[1:]), nil
}

// AuthFlags are the flags of AUTH_CHALLENGE (what is required) and AUTH_FAILED
// (what was wrong).
type AuthFlags uint8

const (
	ChallengePassword  AuthFlags = 1
	ChallengeClientKey AuthFlags = 2

	FailedPasswordRequired AuthFlags = 1
	FailedPassword         AuthFlags = 2
	FailedKeyRequired      AuthFlags = 4
	FailedKeyRejected      AuthFlags = 8
	FailedSignature        AuthFlags = 0x10
)

// String reads the flags as those of AUTH_FAILED.
func (f AuthFlags) String() string {
	var s []string
	for i, name := range [...]string{"password required", "wrong password", "client key required",
		"client key not on the list", "signature invalid"} {
		if f&(1<<i) != 0 {
			s = append(s, name)
		}
	}
	if rest := f &^ 0x1f; rest != 0 || f == 0 {
		s = append(s, fmt.Sprintf("flags %#02x", uint8(f)))
	}
	return strings.Join(s, ", ")
}

// AuthChallenge is the payload of CRYPTO_AUTH_CHALLENGE (1104).
type AuthChallenge struct {
	Flags AuthFlags
	Nonce [32]byte
}

// AppendTo appends the 33 bytes of the payload.
func (c AuthChallenge) AppendTo(dst []byte) []byte {
	return append(append(dst, byte(c.Flags)), c.Nonce[:]...)
}

// ParseAuthChallenge decodes the payload of CRYPTO_AUTH_CHALLENGE.
func ParseAuthChallenge(b []byte) (AuthChallenge, error) {
	if len(b) != 33 {
		return AuthChallenge{}, wrongSize(TypeAuthChallenge, len(b), "33")
	}
	return AuthChallenge{AuthFlags(b[0]), [32]byte(b[1:])}, nil
}

// AuthResponse is the payload of CRYPTO_AUTH_RESPONSE (1105): either the HMAC
// of the password form (64 bytes) or the signature of the key form (97 or
// more).
type AuthResponse struct {
	Signed      bool // the key form
	HMAC        [32]byte
	Signature   [64]byte
	ClientNonce [32]byte
	GPGKeyID    string
}

// AppendTo appends the payload.
func (r *AuthResponse) AppendTo(dst []byte) []byte {
	if !r.Signed {
		return append(append(dst, r.HMAC[:]...), r.ClientNonce[:]...)
	}
	dst = append(append(dst, r.Signature[:]...), r.ClientNonce[:]...)
	return append(append(dst, byte(len(r.GPGKeyID))), r.GPGKeyID...)
}

// ParseAuthResponse decodes the payload of CRYPTO_AUTH_RESPONSE. The 33 bytes
// that C clients send in place of the key form carry no proof of anything and
// are refused.
func ParseAuthResponse(b []byte) (AuthResponse, error) {
	var r AuthResponse
	switch {
	case len(b) == 64:
		copy(r.HMAC[:], b)
		copy(r.ClientNonce[:], b[32:])
		return r, nil
	case len(b) >= 97:
		r.Signed = true
		copy(r.Signature[:], b)
		copy(r.ClientNonce[:], b[64:])
		id, err := parseGPGKeyID(TypeAuthResponse, b[96:])
		r.GPGKeyID = id
		return r, err
	}
	return r, wrongSize(TypeAuthResponse, len(b), "64 (password) or at least 97 (key)")
}

// AppendAuthFailed appends the 8 bytes of CRYPTO_AUTH_FAILED (1106).
func AppendAuthFailed(dst []byte, f AuthFlags) []byte {
	return append(dst, byte(f), 0, 0, 0, 0, 0, 0, 0)
}

// ParseAuthFailed decodes the payload of CRYPTO_AUTH_FAILED.
func ParseAuthFailed(b []byte) (AuthFlags, error) {
	if len(b) != 8 {
		return 0, wrongSize(TypeAuthFailed, len(b), "8")
	}
	return AuthFlags(b[0]), nil
}

// ---- session ----

// Bits of Capabilities.Flags. The low five are those of the C programs; the
// high ones are read by weft peers and ignored by all others.
const (
	Can16Colors   = 1 << 0
	Can256Colors  = 1 << 1
	CanTrueColor  = 1 << 2
	CanUTF8       = 1 << 3
	CanBackground = 1 << 4

	// weftMark is set by weft clients; without it the feature bits mean nothing.
	weftMark = 1 << 31
	// featureShift is where Features stand in Capabilities.Flags.
	featureShift = 24
	featureMask  = 0x7f
)

// Features are what weft peers tell each other: a weft client in the high bits
// of its CLIENT_CAPABILITIES, a weft server in fields of SERVER_STATE that the
// C programs neither set nor read.
type Features uint8

const (
	FeatureFragments Features = 1 << iota // reassembles fragmented WebSocket messages of any number of fragments
	FeatureText                           // understands TEXT_MESSAGE
	FeatureMute                           // understands WEFT_MEMBERS, or as a server WEFT_MUTE
)

// A ColorLevel is the number of colours a terminal can show.
type ColorLevel uint8

const (
	Mono ColorLevel = iota
	Color16
	Color256
	TrueColor
)

// A RenderMode says how pixels become characters.
type RenderMode uint8

const (
	Foreground RenderMode = iota
	Background
	HalfBlock
)

// A Palette is a set of characters from dark to bright.
type Palette uint8

const (
	PaletteUnset Palette = iota
	PaletteStandard
	PaletteBlocks
	PaletteDigital
	PaletteMinimal
	PaletteCool
	PaletteCustom // characters in Capabilities.CustomPalette
)

// Bits of the codec fields of Capabilities.
const (
	VideoRaw  = 1
	VideoH265 = 2
	VideoJPEG = 4
	AudioRaw  = 1
	AudioOpus = 2
)

const (
	// TerminalMax is the largest width or height in characters.
	TerminalMax = 4096
	// FPSMax is the highest frame rate that may be asked for.
	FPSMax = 144
)

// Capabilities is the payload of CLIENT_CAPABILITIES (5000): the client's
// terminal and what it would like to see. It may be sent again at any time.
type Capabilities struct {
	Flags         uint32
	Level         ColorLevel
	Colors        uint32 // 0x01000000 for truecolor
	Mode          RenderMode
	Width, Height int    // characters, 1 to TerminalMax
	Term          string // at most 31 bytes
	ColorTerm     string // at most 31 bytes
	Reliable      bool
	UTF8          bool
	Palette       Palette
	CustomPalette string // at most 63 bytes of UTF-8
	FPS           uint8  // 1 to FPSMax
	Filter        uint8  // C clients leave it uninitialised; weft ignores it
	Padding       bool   // centre the picture with spaces and newlines
	Video, Audio  uint32 // codec bits
}

// Features returns what a weft client says of itself, and whether it is one.
func (c *Capabilities) Features() (Features, bool) {
	if c.Flags&weftMark == 0 {
		return 0, false
	}
	return Features(c.Flags >> featureShift & featureMask), true
}

// SetFeatures marks c as sent by a weft client that has the given features.
func (c *Capabilities) SetFeatures(f Features) {
	c.Flags = c.Flags&^(featureMask<<featureShift) | weftMark | uint32(f&featureMask)<<featureShift
}

// AppendTo appends the 168 bytes of the payload. Strings that are too long are
// cut.
func (c *Capabilities) AppendTo(dst []byte) []byte {
	dst = be.AppendUint32(dst, c.Flags)
	dst = be.AppendUint32(dst, uint32(c.Level))
	dst = be.AppendUint32(dst, c.Colors)
	dst = be.AppendUint32(dst, uint32(c.Mode))
	dst = be.AppendUint16(dst, uint16(c.Width))
	dst = be.AppendUint16(dst, uint16(c.Height))
	dst = appendText(dst, c.Term, 32)
	dst = appendText(dst, c.ColorTerm, 32)
	dst = append(dst, flag(c.Reliable))
	// C clients put this field in host order. All that its readers ask is
	// whether it is zero, so the byte order that C clients use on today's
	// machines is kept and our packet is theirs to the byte.
	dst = append(dst, flag(c.UTF8), 0, 0, 0)
	dst = be.AppendUint32(dst, uint32(c.Palette))
	dst = appendText(dst, c.CustomPalette, 64)
	dst = append(dst, c.FPS, c.Filter, flag(c.Padding))
	dst = be.AppendUint32(dst, c.Video)
	return be.AppendUint32(dst, c.Audio)
}

// ParseCapabilities decodes and checks the payload of CLIENT_CAPABILITIES. The
// error of a value out of range names the field.
func ParseCapabilities(b []byte) (Capabilities, error) {
	const t = TypeCapabilities
	if len(b) != capabilitiesSize {
		return Capabilities{}, wrongSize(t, len(b), "168")
	}
	level, mode, palette := be.Uint32(b[4:]), be.Uint32(b[12:]), be.Uint32(b[89:])
	c := Capabilities{
		Flags: be.Uint32(b), Level: ColorLevel(level), Colors: be.Uint32(b[8:]), Mode: RenderMode(mode),
		Width: int(be.Uint16(b[16:])), Height: int(be.Uint16(b[18:])),
		Term: text(b[20:52]), ColorTerm: text(b[52:84]),
		Reliable: b[84] != 0,
		// Network order from browsers, host order from C clients.
		UTF8:    be.Uint32(b[85:]) != 0,
		Palette: Palette(palette), CustomPalette: text(b[93:157]),
		FPS: b[157], Filter: b[158], Padding: b[159] != 0,
		Video: be.Uint32(b[160:]), Audio: be.Uint32(b[164:]),
	}
	bad := func(field string, got any, want string) (Capabilities, error) {
		return Capabilities{}, violation(RuleValue, t, "%s is %v; allowed is %s", field, got, want)
	}
	switch {
	case level > uint32(TrueColor):
		return bad("color_level", level, "0 to 3")
	case mode > uint32(HalfBlock):
		return bad("render_mode", mode, "0 to 2")
	case c.Width < 1 || c.Width > TerminalMax:
		return bad("width", c.Width, "1 to 4096")
	case c.Height < 1 || c.Height > TerminalMax:
		return bad("height", c.Height, "1 to 4096")
	case palette > uint32(PaletteCustom):
		return bad("palette_type", palette, "0 to 6")
	case c.FPS < 1 || c.FPS > FPSMax:
		return bad("desired_fps", c.FPS, "1 to 144")
	}
	if c.Palette == PaletteCustom {
		if !utf8.ValidString(c.CustomPalette) || c.CustomPalette == "" {
			return bad("palette_custom", fmt.Sprintf("%q", c.CustomPalette), "one or more UTF-8 characters")
		}
		for _, r := range c.CustomPalette {
			// The palette comes back inside the picture: an escape in it would
			// let one client write anything to its own terminal, and to those
			// that share its rendering.
			if r < 0x20 || r >= 0x7f && r < 0xa0 {
				return bad("palette_custom", fmt.Sprintf("%q", c.CustomPalette), "printable characters")
			}
		}
	}
	return c, nil
}

// A StreamMask names media in STREAM_START (5005) and STREAM_STOP (5006).
type StreamMask uint32

const (
	StreamVideo StreamMask = 1
	StreamAudio StreamMask = 2
)

// AppendTo appends the 4 bytes of the payload.
func (m StreamMask) AppendTo(dst []byte) []byte { return be.AppendUint32(dst, uint32(m)) }

// ParseStreamMask decodes the payload of t, TypeStreamStart or TypeStreamStop.
func ParseStreamMask(t Type, b []byte) (StreamMask, error) {
	if len(b) != 4 {
		return 0, wrongSize(t, len(b), "4")
	}
	m := StreamMask(be.Uint32(b))
	if m == 0 || m&^(StreamVideo|StreamAudio) != 0 {
		return 0, violation(RuleValue, t, "the stream mask is %#x; allowed are 1 (video), 2 (audio) and 3", uint32(m))
	}
	return m, nil
}

// Bits of Join.Flags.
const (
	JoinVideo   = 1
	JoinAudio   = 2
	JoinColor   = 4
	JoinStretch = 8
)

// Join is the payload of CLIENT_JOIN (5003).
type Join struct {
	Client uint32
	Name   string // not empty, at most 31 bytes
	Flags  uint32
}

// AppendTo appends the 40 bytes of the payload. A name that is too long is cut.
func (j Join) AppendTo(dst []byte) []byte {
	dst = be.AppendUint32(dst, j.Client)
	dst = appendText(dst, j.Name, nameMax)
	return be.AppendUint32(dst, j.Flags)
}

// ParseJoin decodes and checks the payload of CLIENT_JOIN. Control characters
// in the name become U+FFFD.
func ParseJoin(b []byte) (Join, error) {
	if len(b) != 40 {
		return Join{}, wrongSize(TypeJoin, len(b), "40")
	}
	j := Join{be.Uint32(b), Printable(text(b[4:36])), be.Uint32(b[36:])}
	switch {
	case j.Name == "":
		return Join{}, violation(RuleValue, TypeJoin, "the display name is empty")
	case j.Flags == 0 || j.Flags&^0xf != 0:
		return Join{}, violation(RuleValue, TypeJoin, "the capabilities are %#x; allowed are 1 to 0xf", j.Flags)
	}
	return j, nil
}

// weftServer marks a SERVER_STATE as sent by a weft server.
const weftServer = 0x77656674 // "weft"

// State is the payload of SERVER_STATE (5008).
type State struct {
	Connected, Active uint32
	// Weft says that the server is a weft server, with these features. Both
	// stand in fields that are zero from C servers and ignored by C clients.
	Weft     bool
	Features Features
}

// AppendTo appends the 32 bytes of the payload.
func (s State) AppendTo(dst []byte) []byte {
	dst = be.AppendUint32(dst, s.Connected)
	dst = be.AppendUint32(dst, s.Active)
	var mark, features uint32
	if s.Weft {
		mark, features = weftServer, uint32(s.Features)
	}
	dst = append(dst, make([]byte, 16)...)
	dst = be.AppendUint32(dst, mark)
	return be.AppendUint32(dst, features)
}

// ParseState decodes the payload of SERVER_STATE.
func ParseState(b []byte) (State, error) {
	if len(b) != 32 {
		return State{}, wrongSize(TypeServerState, len(b), "32")
	}
	s := State{Connected: be.Uint32(b), Active: be.Uint32(b[4:])}
	if be.Uint32(b[24:]) == weftServer {
		s.Weft, s.Features = true, Features(be.Uint32(b[28:]))
	}
	return s, nil
}

// A Text is the payload of TEXT_MESSAGE (2002): a chat line. The number is
// reserved and unused in the C programs; the layout is weft's, and weft sends
// it only to peers that announced FeatureText. From a client the name is empty:
// the server fills in the one it knows.
type Text struct {
	Client uint32
	Name   string // at most 32 bytes
	Line   string // at most TextMax bytes
}

// AppendTo appends the payload. What is too long is cut between characters.
func (t Text) AppendTo(dst []byte) []byte {
	name, line := cut(t.Name, nameMax), cut(t.Line, TextMax)
	dst = be.AppendUint32(dst, t.Client)
	dst = append(dst, byte(len(name)))
	return append(append(dst, name...), line...)
}

// ParseText decodes the payload of TEXT_MESSAGE. Control characters become
// U+FFFD, so that a line can be shown as it is.
func ParseText(b []byte) (Text, error) {
	if len(b) < textHeader || len(b) < textHeader+int(b[4]) || b[4] > nameMax || len(b)-textHeader-int(b[4]) > TextMax {
		return Text{}, wrongSize(TypeText, len(b), "5, a name of at most 32 and a line of at most 1024")
	}
	n := textHeader + int(b[4])
	return Text{be.Uint32(b), Printable(string(b[textHeader:n])), Printable(string(b[n:]))}, nil
}

// A Member is one client in a room, as others know it.
type Member struct {
	ID   uint32 // not 0
	Name string // at most 32 bytes
}

// Members is the payload of WEFT_MEMBERS (5100), which a weft server sends to
// clients that announced FeatureMute whenever it changes: who is in the room.
type Members struct {
	Own  uint32   // the receiver's ID
	List []Member // at most MembersMax
}

// AppendTo appends the payload. What is too long is cut.
func (m Members) AppendTo(dst []byte) []byte {
	dst = be.AppendUint32(dst, m.Own)
	for _, x := range m.List[:min(len(m.List), MembersMax)] {
		name := cut(x.Name, nameMax)
		dst = be.AppendUint32(dst, x.ID)
		dst = append(append(dst, byte(len(name))), name...)
	}
	return dst
}

// ParseMembers decodes the payload of WEFT_MEMBERS. Control characters in names
// become U+FFFD.
func ParseMembers(b []byte) (Members, error) {
	const want = "4, and 5 and a name of at most 32 for each member"
	if len(b) < 4 {
		return Members{}, wrongSize(TypeMembers, len(b), want)
	}
	m := Members{Own: be.Uint32(b)}
	for rest := b[4:]; len(rest) > 0; {
		if len(rest) < textHeader || rest[4] > nameMax || len(rest) < textHeader+int(rest[4]) || len(m.List) == MembersMax {
			return Members{}, wrongSize(TypeMembers, len(b), want)
		}
		n := textHeader + int(rest[4])
		m.List = append(m.List, Member{be.Uint32(rest), Printable(string(rest[textHeader:n]))})
		rest = rest[n:]
	}
	return m, nil
}

// Mute is the payload of WEFT_MUTE (5101): whether the sender wants to hear a
// member of its room. A server that announced FeatureMute leaves a muted
// member out of the sound for this client, and for no other.
type Mute struct {
	Client uint32
	On     bool
}

// AppendTo appends the 5 bytes of the payload.
func (m Mute) AppendTo(dst []byte) []byte {
	return append(be.AppendUint32(dst, m.Client), flag(m.On))
}

// ParseMute decodes the payload of WEFT_MUTE.
func ParseMute(b []byte) (Mute, error) {
	switch {
	case len(b) != 5:
		return Mute{}, wrongSize(TypeMute, len(b), "5")
	case b[4] > 1:
		return Mute{}, violation(RuleValue, TypeMute, "the switch is %d; allowed are 0 and 1", b[4])
	}
	return Mute{be.Uint32(b), b[4] == 1}, nil
}

// ErrorMessage is the payload of ERROR_MESSAGE (2003).
type ErrorMessage struct {
	Code    ErrorCode
	Message string // at most 512 bytes
}

// AppendTo appends the payload.
func (e ErrorMessage) AppendTo(dst []byte) []byte {
	m := cut(e.Message, noteMax)
	dst = be.AppendUint32(dst, uint32(e.Code))
	dst = be.AppendUint32(dst, uint32(len(m)))
	return append(dst, m...)
}

// ParseErrorMessage decodes the payload of ERROR_MESSAGE. Control characters
// in the text become U+FFFD.
func ParseErrorMessage(b []byte) (ErrorMessage, error) {
	if len(b) < 8 || int64(be.Uint32(b[4:])) != int64(len(b)-8) || len(b) > 8+noteMax {
		return ErrorMessage{}, wrongSize(TypeError, len(b), "8 and the text whose length it states, at most 512")
	}
	return ErrorMessage{ErrorCode(be.Uint32(b)), Printable(string(b[8:]))}, nil
}

// A LogLevel is the level of a REMOTE_LOG.
type LogLevel uint8

const (
	LogDev LogLevel = iota
	LogDebug
	LogInfo
	LogWarn
	LogError
	LogFatal
)

// Directions of REMOTE_LOG.
const (
	LogToClient = 1
	LogToServer = 2
)

// RemoteLog is the payload of REMOTE_LOG (2004).
type RemoteLog struct {
	Level     LogLevel
	Direction uint8
	Truncated bool
	Message   string // at most 512 bytes
}

// AppendTo appends the payload.
func (l RemoteLog) AppendTo(dst []byte) []byte {
	m := cut(l.Message, noteMax)
	dst = append(dst, byte(l.Level), l.Direction, 0, flag(l.Truncated))
	dst = be.AppendUint32(dst, uint32(len(m)))
	return append(dst, m...)
}

// ParseRemoteLog decodes the payload of REMOTE_LOG. Control characters in the
// text become U+FFFD.
func ParseRemoteLog(b []byte) (RemoteLog, error) {
	if len(b) < 8 || int64(be.Uint32(b[4:])) != int64(len(b)-8) || len(b) > 8+noteMax {
		return RemoteLog{}, wrongSize(TypeRemoteLog, len(b), "8 and the text whose length it states, at most 512")
	}
	if b[0] > byte(LogFatal) {
		return RemoteLog{}, violation(RuleValue, TypeRemoteLog, "the level is %d; allowed is 0 to 5", b[0])
	}
	if b[1] != LogToClient && b[1] != LogToServer {
		return RemoteLog{}, violation(RuleValue, TypeRemoteLog, "the direction is %d; allowed are 1 and 2", b[1])
	}
	return RemoteLog{LogLevel(b[0]), b[1], be.Uint16(b[2:])&1 != 0, Printable(string(b[8:]))}, nil
}

// ParseLeave decodes the payload of CLIENT_LEAVE (5004), a reason of at most
// 256 bytes. Control characters become U+FFFD.
func ParseLeave(b []byte) (string, error) {
	if len(b) > 256 {
		return "", wrongSize(TypeLeave, len(b), "at most 256")
	}
	return Printable(string(b)), nil
}

// ---- helpers ----

func flag(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// appendText appends s in a NUL-padded field of size bytes. The last byte
// stays NUL, because C readers look for it.
func appendText(dst []byte, s string, size int) []byte {
	s = cut(s, size-1)
	dst = append(dst, s...)
	for n := len(s); n < size; n++ {
		dst = append(dst, 0)
	}
	return dst
}

// text returns a NUL-padded field as a string.
func text(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

// cut shortens s to at most n bytes without splitting a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// Printable returns s with control characters and broken UTF-8 replaced by
// U+FFFD, so that a peer's text cannot steer the terminal that shows it.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r >= 0x7f && r < 0xa0 || r == utf8.RuneError || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return utf8.RuneError
		}
		return r
	}, s)
}
