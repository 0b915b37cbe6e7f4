package acip_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/weft-ws/weft/acip"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const (
	wsKey       = "16cf6fb509cd1185cfeb7528409d8f587c816d00e5b0a16fa0ef5d502e6a0b46"
	wsServerKey = "0209c160a03e65dd47ed207901d2472de4197af2a9f3ef3da45cd7f88f7d7433" // private half
	wsServerPub = "46a2f7c4cd9dafe5a54b9d04e783f19f40a7d80823fc20478d26439c5763e24b"
	wsClientPub = "abbcad12b45307d934d5ab0554d3172f7e17ad5798efcaa43452d8d320511f1a"
	password    = "correct-horse-battery"
)

func TestChecksum(t *testing.T) {
	if got := acip.Checksum([]byte("123456789")); got != 0xE3069283 {
		t.Fatalf("CRC-32C of 123456789 is %08x, want e3069283", got)
	}
}

// Whole packets as the C programs sent them.
func TestPacketBytes(t *testing.T) {
	params := acip.CryptoParameters{Kex: 1, Cipher: 1, KexKeySize: 32, SecretSize: 32, NonceSize: 24, MACSize: 16, HMACSize: 32}
	kex := acip.KeyExchange{Ephemeral: [32]byte(unhex(t, wsClientPub))}
	for _, c := range []struct {
		name string
		p    acip.Packet
		want string
	}{
		{"key exchange response", acip.Packet{Type: acip.TypeKeyExchangeResp, Payload: kex.AppendTo(nil, acip.TypeKeyExchangeResp)},
			"0000000a5c11c4a1044f000000201bd41ce100000000" + wsClientPub},
		{"parameters", acip.Packet{Type: acip.TypeCryptoParameters, Payload: params.AppendTo(nil)},
			"0000000a5c11c4a1044d00000012f73826b300000000010001000020000000000020181020000000"},
		{"handshake complete", acip.Packet{Type: acip.TypeHandshakeComplete},
			"0000000a5c11c4a10454000000000000000000000000"},
		{"server state", acip.Packet{Type: acip.TypeServerState, Payload: acip.State{Connected: 1, Active: 1}.AppendTo(nil)},
			"0000000a5c11c4a1139000000020537e361200000000" + "0000000100000001000000000000000000000000000000000000000000000000"},
		{"stream start", acip.Packet{Type: acip.TypeStreamStart, Payload: (acip.StreamVideo | acip.StreamAudio).AppendTo(nil)},
			"0000000a5c11c4a1138d000000045b37b8330000000000000003"},
		{"clear console", acip.Packet{Type: acip.TypeClearConsole}, "0000000a5c11c4a1138f000000000000000000000000"},
		{"silent opus", acip.Packet{Type: acip.TypeOpusBatch, Client: 0x5c77bff7, Payload: (&acip.OpusBatch{Rate: 48000, FrameMS: 20, Frames: [][]byte{{0xf8, 0xff, 0xfe}}}).AppendTo(nil)},
			"0000000a5c11c4a10fa100000015965f24825c77bff70000bb800000001400000001000000000003f8fffe"},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := unhex(t, c.want)
			if got := c.p.AppendTo(nil); !bytes.Equal(got, want) {
				t.Fatalf("sent\n%x, want\n%x", got, want)
			}
			p, n, err := acip.Parse(want)
			if err != nil || n != len(want) || p.Type != c.p.Type || p.Client != c.p.Client || !bytes.Equal(p.Payload, c.p.Payload) {
				t.Fatalf("parsed %v %d %v", p, n, err)
			}
		})
	}
}

// codec is one payload layout: a value, its bytes, and the way back.
type codec struct {
	t     acip.Type
	value any
	bytes string
	parse func([]byte) (any, error)
}

func codecs() []codec {
	pub, sig := strings.Repeat("ab", 32), strings.Repeat("cd", 64)
	caps := acip.Capabilities{Flags: 0x1f, Level: acip.TrueColor, Colors: 0x01000000, Width: 110, Height: 70, Term: "xterm-256color",
		ColorTerm: "truecolor", Reliable: true, UTF8: true, Palette: acip.PaletteStandard, FPS: 60, Video: 7, Audio: 3}
	weft := caps
	weft.SetFeatures(acip.FeatureFragments | acip.FeatureText)
	return []codec{
		{acip.TypeProtocolVersion, acip.ProtocolVersion{Version: 1, Mode: 3}, "0001 0000 03 00 00 0000 00000000000000",
			func(b []byte) (any, error) { return acip.ParseProtocolVersion(b) }},
		{acip.TypeCryptoCapabilities, acip.CryptoCapabilities{Kex: 1, Auth: 1, Cipher: 1, PreferredKex: 1, PreferredAuth: 1, PreferredCiph: 1}, "0001 0001 0001 00 01 01 01",
			func(b []byte) (any, error) { return acip.ParseCryptoCapabilities(b) }},
		{acip.TypeCryptoParameters, acip.CryptoParameters{Kex: 1, Auth: 1, Cipher: 1, KexKeySize: 32, AuthKeySize: 32, SignatureSize: 64, SecretSize: 32, NonceSize: 24, MACSize: 16, HMACSize: 32},
			"01 01 01 00 0020 0020 0040 0020 18 10 20 000000", func(b []byte) (any, error) { return acip.ParseCryptoParameters(b) }},
		{acip.TypeKeyExchangeInit, acip.KeyExchange{Ephemeral: [32]byte(bytes.Repeat([]byte{0xab}, 32)), Signed: true, Identity: [32]byte(bytes.Repeat([]byte{0xab}, 32)), Signature: [64]byte(bytes.Repeat([]byte{0xcd}, 64))},
			pub + pub + sig, func(b []byte) (any, error) { return acip.ParseKeyExchange(acip.TypeKeyExchangeInit, b) }},
		{acip.TypeKeyExchangeResp, acip.KeyExchange{Ephemeral: [32]byte(bytes.Repeat([]byte{0xab}, 32)), Signed: true, Identity: [32]byte(bytes.Repeat([]byte{0xab}, 32)), Signature: [64]byte(bytes.Repeat([]byte{0xcd}, 64)), GPGKeyID: "7F"},
			pub + pub + sig + "02 3746", func(b []byte) (any, error) { return acip.ParseKeyExchange(acip.TypeKeyExchangeResp, b) }},
		{acip.TypeAuthChallenge, acip.AuthChallenge{Flags: 1, Nonce: [32]byte(bytes.Repeat([]byte{0xab}, 32))}, "01" + pub,
			func(b []byte) (any, error) { return acip.ParseAuthChallenge(b) }},
		{acip.TypeAuthResponse, acip.AuthResponse{HMAC: [32]byte(bytes.Repeat([]byte{0xab}, 32)), ClientNonce: [32]byte(bytes.Repeat([]byte{0xcd}, 32))}, pub + sig[:64],
			func(b []byte) (any, error) { return acip.ParseAuthResponse(b) }},
		{acip.TypeAuthResponse, acip.AuthResponse{Signed: true, Signature: [64]byte(bytes.Repeat([]byte{0xcd}, 64)), ClientNonce: [32]byte(bytes.Repeat([]byte{0xab}, 32))}, sig + pub + "00",
			func(b []byte) (any, error) { return acip.ParseAuthResponse(b) }},
		{acip.TypeError, acip.ErrorMessage{Code: 44, Message: "CLIENT_CAPABILITIES payload size 190 (expected 168)"}, "0000002c 00000033" + hex.EncodeToString([]byte("CLIENT_CAPABILITIES payload size 190 (expected 168)")),
			func(b []byte) (any, error) { return acip.ParseErrorMessage(b) }},
		{acip.TypeRemoteLog, acip.RemoteLog{Level: acip.LogInfo, Direction: acip.LogToClient, Message: "Encryption established - secure channel ready"}, "02 01 0000 0000002d" + hex.EncodeToString([]byte("Encryption established - secure channel ready")),
			func(b []byte) (any, error) { return acip.ParseRemoteLog(b) }},
		{acip.TypeCapabilities, caps, "0000001f 00000003 01000000 00000000 006e 0046" + hex.EncodeToString([]byte("xterm-256color")) + strings.Repeat("00", 18) +
			hex.EncodeToString([]byte("truecolor")) + strings.Repeat("00", 23) + "01 01000000 00000001" + strings.Repeat("00", 64) + "3c 00 00 00000007 00000003",
			func(b []byte) (any, error) { return acip.ParseCapabilities(b) }},
		{acip.TypeCapabilities, weft, "8300001f 00000003 01000000 00000000 006e 0046" + hex.EncodeToString([]byte("xterm-256color")) + strings.Repeat("00", 18) +
			hex.EncodeToString([]byte("truecolor")) + strings.Repeat("00", 23) + "01 01000000 00000001" + strings.Repeat("00", 64) + "3c 00 00 00000007 00000003",
			func(b []byte) (any, error) { return acip.ParseCapabilities(b) }},
		{acip.TypeStreamStop, acip.StreamAudio, "00000002", func(b []byte) (any, error) { return acip.ParseStreamMask(acip.TypeStreamStop, b) }},
		{acip.TypeJoin, acip.Join{Client: 7, Name: "mia-4711", Flags: acip.JoinVideo | acip.JoinAudio}, "00000007" + hex.EncodeToString([]byte("mia-4711")) + strings.Repeat("00", 24) + "00000003",
			func(b []byte) (any, error) { return acip.ParseJoin(b) }},
		{acip.TypeServerState, acip.State{Connected: 3, Active: 2, Weft: true, Features: acip.FeatureText}, "00000003 00000002" + strings.Repeat("00", 16) + "77656674 00000002",
			func(b []byte) (any, error) { return acip.ParseState(b) }},
		{acip.TypeText, acip.Text{Client: 9, Name: "mia", Line: "grüße"}, "00000009 03 6d6961 6772c3bcc39f65", func(b []byte) (any, error) { return acip.ParseText(b) }},
		{acip.TypeMembers, acip.Members{Own: 2, List: []acip.Member{{ID: 1, Name: "mia"}, {ID: 2}}}, "00000002 00000001 03 6d6961 00000002 00",
			func(b []byte) (any, error) { return acip.ParseMembers(b) }},
		{acip.TypeMute, acip.Mute{Client: 9, On: true}, "00000009 01", func(b []byte) (any, error) { return acip.ParseMute(b) }},
		{acip.TypeASCIIFrame, acip.ASCIIFrame{Width: 80, Height: 24, Text: []byte("a\nb")}, "00000050 00000018 00000003 00000000 9fbe5b48 00000000 610a62",
			func(b []byte) (any, error) { return acip.ParseASCIIFrame(b) }},
		{acip.TypeImageFrame, acip.ImageFrame{Width: 2, Height: 1, Format: 1, Timestamp: 5, Pixels: []byte{1, 2, 3, 4, 5, 6}}, "00000002 00000001 00000001 00000000 00000000 00000005 010203040506",
			func(b []byte) (any, error) { return acip.ParseImageFrame(b) }},
		{acip.TypeImageFrameH265, acip.H265Frame{Key: true, Resized: true, Width: 320, Height: 240, Data: []byte{0, 0, 1}}, "03 0140 00f0 000001",
			func(b []byte) (any, error) { return acip.ParseH265Frame(b) }},
		{acip.TypeOpusBatch, acip.OpusBatch{Rate: 48000, FrameMS: 20, Frames: [][]byte{{0xf8, 0xff, 0xfe}, {1}}}, "0000bb80 00000014 00000002 00000000 0003 0001 f8fffe 01",
			func(b []byte) (any, error) { return acip.ParseOpusBatch(b) }},
		{acip.TypeAudioBatch, acip.AudioBatch{Batches: 1, Rate: 48000, Channels: 1, Samples: []float32{0, 1, -1}}, "00000001 00000003 0000bb80 00000001 00000000 7fffffff 80000001",
			func(b []byte) (any, error) { return acip.ParseAudioBatch(b, nil) }},
	}
}

// appendTo calls the value's AppendTo, whatever its signature.
func appendTo(t *testing.T, c codec) []byte {
	t.Helper()
	v := reflect.New(reflect.TypeOf(c.value))
	v.Elem().Set(reflect.ValueOf(c.value))
	args := []reflect.Value{reflect.ValueOf([]byte(nil))}
	m := v.MethodByName("AppendTo")
	if m.Type().NumIn() == 2 {
		args = append(args, reflect.ValueOf(c.t))
	}
	return m.Call(args)[0].Bytes()
}

// R17: an Opus batch header of 12 instead of 16 bytes once made every call
// mute. Every layout is pinned to bytes, in both directions, and no truncation
// of it is taken for whole.
func TestR17_GoldenBytesOfEveryLayout(t *testing.T) {
	for _, c := range codecs() {
		t.Run(c.t.String(), func(t *testing.T) {
			want := unhex(t, c.bytes)
			if c.t == acip.TypeASCIIFrame {
				binary.BigEndian.PutUint32(want[16:], acip.Checksum(want[24:]))
			}
			if got := appendTo(t, c); !bytes.Equal(got, want) {
				t.Fatalf("wrote\n%x, want\n%x", got, want)
			}
			got, err := c.parse(want)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, c.value) {
				t.Fatalf("read\n%+v, want\n%+v", got, c.value)
			}
			for n := range want {
				if _, err := c.parse(want[:n]); err == nil && !shortIsLegal(c, n) {
					t.Fatalf("the first %d of %d bytes parse", n, len(want))
				}
			}
		})
	}
}

// R17 again: no packet of the catalogue is without its golden bytes, here or
// among the whole packets of TestPacketBytes and TestAuthFailedBytes. The rest
// are empty, legacy or nothing but a key.
func TestR17_NoLayoutIsForgotten(t *testing.T) {
	covered := map[acip.Type]bool{
		acip.TypeAuthFailed: true, acip.TypeEncrypted: true, acip.TypeStreamStart: true, // golden bytes of their own
		acip.TypeServerAuthResp: true, acip.TypeClientHello: true, acip.TypeRekeyRequest: true, acip.TypeRekeyResponse: true, acip.TypeRekeyComplete: true, // opaque bytes
		acip.TypeHandshakeComplete: true, acip.TypeNoEncryption: true, acip.TypePing: true, acip.TypePong: true, acip.TypeClearConsole: true, // empty
		acip.TypeSize: true, acip.TypeAudio: true, acip.TypeLeave: true, // legacy; free text
	}
	for _, c := range codecs() {
		covered[c.t] = true
	}
	known := 0
	for n := range acip.Type(10000) {
		if n.Known() {
			known++
		}
		if n.Known() != covered[n] {
			t.Errorf("%s: in the catalogue %v, pinned %v", n, n.Known(), covered[n])
		}
	}
	if known != len(covered) || known < 30 {
		t.Errorf("%d types in the catalogue", known)
	}
}

// shortIsLegal lists the prefixes of variable layouts that are payloads of
// their own.
func shortIsLegal(c codec, n int) bool {
	switch c.t {
	case acip.TypeKeyExchangeInit:
		return n == 32
	case acip.TypeKeyExchangeResp:
		return n == 32 || n == 128
	case acip.TypeAuthResponse:
		return n == 64
	case acip.TypeText:
		return n >= 8
	case acip.TypeMembers:
		return n == 4 || n == 12 // whole members
	case acip.TypeImageFrameH265:
		return n >= 5
	}
	return false
}

// The payloads of packets without fields are bare.
func TestAuthFailedBytes(t *testing.T) {
	b := acip.AppendAuthFailed(nil, acip.FailedKeyRejected)
	if !bytes.Equal(b, unhex(t, "0800000000000000")) {
		t.Fatalf("%x", b)
	}
	f, err := acip.ParseAuthFailed(b)
	if err != nil || f != acip.FailedKeyRejected || !strings.Contains(f.String(), "not on the list") {
		t.Fatalf("%v %v", f, err)
	}
}

func TestHeaderIsJudgedBeforeThePayload(t *testing.T) {
	head := func(typ acip.Type, length uint32) []byte {
		b := acip.Packet{Type: typ}.AppendTo(nil)
		binary.BigEndian.PutUint32(b[10:], length)
		return b
	}
	bad := head(acip.TypePing, 0)
	bad[0] = 1
	for _, c := range []struct {
		name string
		b    []byte
		rule acip.Rule
	}{
		{"magic", bad, acip.RuleMagic},
		{"ping with payload", head(acip.TypePing, 1), acip.RuleLength},
		{"capabilities too short", head(acip.TypeCapabilities, 167), acip.RuleLength},
		{"4 GiB picture", head(acip.TypeImageFrame, math.MaxUint32), acip.RuleLength},
		{"one byte over", head(acip.TypeImageFrame, acip.PacketMax+1), acip.RuleLength},
		{"box over a MiB", head(acip.TypeEncrypted, 40+acip.SealedMax+1), acip.RuleLength},
		{"unknown type over 64 KiB", head(4711, 64<<10+1), acip.RuleLength},
	} {
		_, _, err := acip.Parse(c.b)
		var v *acip.Violation
		if !errors.As(err, &v) || v.Rule != c.rule {
			t.Errorf("%s: %v, want rule %s", c.name, err, c.rule)
		}
		var r acip.Reassembler
		if _, _, _, err := r.Next(c.b); err == nil || r.Pending() > acip.HeaderSize {
			t.Errorf("%s: the reassembler took it: %v, %d bytes held", c.name, err, r.Pending())
		}
	}
}

func TestCorruptedPayload(t *testing.T) {
	b := acip.Packet{Type: acip.TypeStreamStart, Payload: []byte{0, 0, 0, 3}}.AppendTo(nil)
	b[len(b)-1] ^= 1
	_, _, err := acip.Parse(b)
	var v *acip.Violation
	if !errors.As(err, &v) || v.Rule != acip.RuleChecksum {
		t.Fatalf("%v", err)
	}
}

func TestValuesOutOfRange(t *testing.T) {
	caps := func(change func(*acip.Capabilities)) []byte {
		c := acip.Capabilities{Level: acip.TrueColor, Width: 80, Height: 24, Palette: 1, FPS: 60}
		change(&c)
		return c.AppendTo(nil)
	}
	for field, b := range map[string][]byte{
		"width":          caps(func(c *acip.Capabilities) { c.Width = 0 }),
		"height":         caps(func(c *acip.Capabilities) { c.Height = 4097 }),
		"color_level":    caps(func(c *acip.Capabilities) { c.Level = 4 }),
		"render_mode":    caps(func(c *acip.Capabilities) { c.Mode = 3 }),
		"palette_type":   caps(func(c *acip.Capabilities) { c.Palette = 7 }),
		"palette_custom": caps(func(c *acip.Capabilities) { c.Palette, c.CustomPalette = acip.PaletteCustom, " \x1b[2J" }),
		"desired_fps":    caps(func(c *acip.Capabilities) { c.FPS = 145 }),
	} {
		if _, err := acip.ParseCapabilities(b); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	if c, err := acip.ParseCapabilities(caps(func(c *acip.Capabilities) { c.Palette, c.CustomPalette = acip.PaletteCustom, " .oO" })); err != nil || c.CustomPalette != " .oO" {
		t.Errorf("a custom palette: %v", err)
	}
	browser := caps(func(*acip.Capabilities) {})
	copy(browser[85:], []byte{0, 0, 0, 1}) // network order
	if c, err := acip.ParseCapabilities(browser); err != nil || !c.UTF8 {
		t.Errorf("utf8_support in network order: %v %v", c.UTF8, err)
	}
	img := (&acip.ImageFrame{Width: 2, Height: 2, Format: 1, Pixels: make([]byte, 12)}).AppendTo(nil)
	for off, val := range map[int]uint32{0: 8193, 4: 0, 8: 0} {
		bad := bytes.Clone(img)
		binary.BigEndian.PutUint32(bad[off:], val)
		if _, err := acip.ParseImageFrame(bad); err == nil {
			t.Errorf("a picture with %d at %d is taken", val, off)
		}
	}
	binary.BigEndian.PutUint32(img[8:], acip.PixelRGB24Browser)
	if _, err := acip.ParseImageFrame(img); err != nil {
		t.Errorf("pixel format 3: %v", err)
	}
}

func TestTextOfPeersCannotSteerTheTerminal(t *testing.T) {
	for _, s := range []string{"\x1b[2J", "a\nb", "\u009b31m", "\u202eabc", "\x7f"} {
		got := acip.Printable(s)
		for _, r := range got {
			if r < 0x20 || r >= 0x7f && r < 0xa0 || r == 0x202e {
				t.Errorf("%q becomes %q", s, got)
			}
		}
	}
	if s := "naïve ▰ 日本"; acip.Printable(s) != s {
		t.Errorf("%q becomes %q", s, acip.Printable(s))
	}
}

// 320×240 as the C client sends it: 230,424 bytes of payload, 230,508 on the
// wire once encrypted.
func TestImageSizes(t *testing.T) {
	b, err := os.ReadFile("../chat/render/testdata/image_frame_320x240.payload.bin")
	if err != nil {
		t.Fatal(err)
	}
	f, err := acip.ParseImageFrame(b)
	if err != nil || f.Width != 320 || f.Height != 240 || f.Format != acip.PixelRGB24 || len(b) != 230424 {
		t.Fatalf("%d×%d format %d, %d bytes: %v", f.Width, f.Height, f.Format, len(b), err)
	}
	s := acip.SealerWith(acip.Key(unhex(t, wsKey)), [16]byte{}, 0)
	w, err := s.Seal(nil, acip.Packet{Type: acip.TypeImageFrame, Payload: b})
	if err != nil || len(w) != 230508 {
		t.Fatalf("%d bytes on the wire: %v", len(w), err)
	}
}

func decodeHex(s string) ([]byte, error) { return hex.DecodeString(strings.ReplaceAll(s, " ", "")) }
