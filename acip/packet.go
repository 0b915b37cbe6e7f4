// Package acip speaks ACIP, the protocol of ascii-chat: live terminal video,
// audio and text over WebSocket or raw TCP, end to end on one encrypted
// connection between a client and a server. Wire format and sessions are
// described in docs/acip.md.
//
// A good order to read: packet.go (the 22-byte header), payload.go and
// media.go (what stands behind it), reassemble.go (bytes to packets), crypto.go
// and identity.go, machine.go, server.go and client.go (the two ends as pure
// state machines), link.go (one send path), transport.go (WebSocket and TCP),
// session.go (all of it together).
package acip

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strconv"
)

const (
	// HeaderSize is the length of a packet header in bytes: magic 8, type 2,
	// length 4, CRC 4, client 4.
	HeaderSize = 22
	// Magic is the first field of every packet.
	Magic = 0x0000_000A_5C11_C4A1
	// PacketMax is the longest payload in bytes that a header may announce.
	PacketMax = 5 << 20
	// SealedMax is the longest packet in bytes, its header included, that may
	// be encrypted. The C programs refuse more.
	SealedMax = 1 << 20
	// Subprotocol is the WebSocket subprotocol of ACIP.
	Subprotocol = "acip"
)

// castagnoli is the polynomial of every checksum in ACIP.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Checksum returns the CRC-32C of p.
func Checksum(p []byte) uint32 { return crc32.Checksum(p, castagnoli) }

// A Type is the kind of a packet.
type Type uint16

const (
	TypeProtocolVersion    Type = 1
	TypeClientHello        Type = 1000
	TypeCryptoCapabilities Type = 1100
	TypeCryptoParameters   Type = 1101
	TypeKeyExchangeInit    Type = 1102
	TypeKeyExchangeResp    Type = 1103
	TypeAuthChallenge      Type = 1104
	TypeAuthResponse       Type = 1105
	TypeAuthFailed         Type = 1106
	TypeServerAuthResp     Type = 1107
	TypeHandshakeComplete  Type = 1108
	TypeNoEncryption       Type = 1109
	TypeEncrypted          Type = 1200
	TypeRekeyRequest       Type = 1201
	TypeRekeyResponse      Type = 1202
	TypeRekeyComplete      Type = 1203
	TypeSize               Type = 2000
	TypeAudio              Type = 2001 // legacy; nobody sends it
	TypeText               Type = 2002 // reserved by the C programs; between weft peers a chat line
	TypeError              Type = 2003
	TypeRemoteLog          Type = 2004
	TypeASCIIFrame         Type = 3000
	TypeImageFrame         Type = 3001
	TypeImageFrameH265     Type = 3002
	TypeAudioBatch         Type = 4000
	TypeOpusBatch          Type = 4001
	TypeCapabilities       Type = 5000
	TypePing               Type = 5001
	TypePong               Type = 5002
	TypeJoin               Type = 5003
	TypeLeave              Type = 5004
	TypeStreamStart        Type = 5005
	TypeStreamStop         Type = 5006
	TypeClearConsole       Type = 5007
	TypeServerState        Type = 5008
	TypeMembers            Type = 5100 // weft's own, between weft peers only
	TypeMute               Type = 5101 // weft's own, between weft peers only
)

// A direction says who may send a packet.
type direction uint8

const (
	toServer direction = 1 << iota
	toClient
	bothWays = toServer | toClient
)

// typeInfo is what can be said of a packet from its header alone.
type typeInfo struct {
	name     string
	min, max int // payload bytes
	dir      direction
}

// info returns the catalogue entry of t. A type that is not in the catalogue
// has no name; a receiver that skips it still has to hold it, hence its bound.
func (t Type) info() typeInfo {
	switch t {
	case TypeProtocolVersion:
		return typeInfo{"PROTOCOL_VERSION", 16, 16, bothWays}
	case TypeClientHello:
		return typeInfo{"CRYPTO_CLIENT_HELLO", 32, 32, toServer}
	case TypeCryptoCapabilities:
		return typeInfo{"CRYPTO_CAPABILITIES", 10, 10, toServer}
	case TypeCryptoParameters:
		return typeInfo{"CRYPTO_PARAMETERS", 18, 18, toClient}
	case TypeKeyExchangeInit:
		return typeInfo{"CRYPTO_KEY_EXCHANGE_INIT", 32, 128, toClient}
	case TypeKeyExchangeResp:
		return typeInfo{"CRYPTO_KEY_EXCHANGE_RESP", 32, 129 + gpgKeyIDMax, toServer}
	case TypeAuthChallenge:
		return typeInfo{"CRYPTO_AUTH_CHALLENGE", 33, 33, toClient}
	case TypeAuthResponse:
		return typeInfo{"CRYPTO_AUTH_RESPONSE", 33, 97 + gpgKeyIDMax, toServer}
	case TypeAuthFailed:
		return typeInfo{"CRYPTO_AUTH_FAILED", 8, 8, toClient}
	case TypeServerAuthResp:
		return typeInfo{"CRYPTO_SERVER_AUTH_RESP", 32, 32, toClient}
	case TypeHandshakeComplete:
		return typeInfo{"CRYPTO_HANDSHAKE_COMPLETE", 0, 0, toClient}
	case TypeNoEncryption:
		return typeInfo{"CRYPTO_NO_ENCRYPTION", 0, 0, bothWays}
	case TypeEncrypted:
		return typeInfo{"ENCRYPTED", sealOverhead + HeaderSize, sealOverhead + SealedMax, bothWays}
	case TypeRekeyRequest:
		return typeInfo{"REKEY_REQUEST", 32, 32, bothWays}
	case TypeRekeyResponse:
		return typeInfo{"REKEY_RESPONSE", 32, 32, bothWays}
	case TypeRekeyComplete:
		return typeInfo{"REKEY_COMPLETE", 1, 1, bothWays}
	case TypeSize:
		return typeInfo{"SIZE_MESSAGE", 0, 64, toServer}
	case TypeAudio:
		return typeInfo{"AUDIO_MESSAGE", 0, 64 << 10, bothWays}
	case TypeText:
		return typeInfo{"TEXT_MESSAGE", textHeader, textHeader + nameMax + TextMax, bothWays}
	case TypeError:
		return typeInfo{"ERROR_MESSAGE", 8, 8 + noteMax, bothWays}
	case TypeRemoteLog:
		return typeInfo{"REMOTE_LOG", 8, 8 + noteMax, bothWays}
	case TypeASCIIFrame:
		return typeInfo{"ASCII_FRAME", frameHeader, PacketMax, toClient}
	case TypeImageFrame:
		return typeInfo{"IMAGE_FRAME", frameHeader + 3, PacketMax, toServer}
	case TypeImageFrameH265:
		return typeInfo{"IMAGE_FRAME_H265", 5, PacketMax, toServer}
	case TypeAudioBatch:
		return typeInfo{"AUDIO_BATCH", audioHeader, audioHeader + 4*AudioSamplesMax, bothWays}
	case TypeOpusBatch:
		return typeInfo{"AUDIO_OPUS_BATCH", audioHeader, audioHeader + opusFramesMax*(2+opusFrameMax), bothWays}
	case TypeCapabilities:
		return typeInfo{"CLIENT_CAPABILITIES", capabilitiesSize, capabilitiesSize, toServer}
	case TypePing:
		return typeInfo{"PING", 0, 0, bothWays}
	case TypePong:
		return typeInfo{"PONG", 0, 0, bothWays}
	case TypeJoin:
		return typeInfo{"CLIENT_JOIN", 40, 40, toServer}
	case TypeLeave:
		return typeInfo{"CLIENT_LEAVE", 0, 256, toServer}
	case TypeStreamStart:
		return typeInfo{"STREAM_START", 4, 4, toServer}
	case TypeStreamStop:
		return typeInfo{"STREAM_STOP", 4, 4, toServer}
	case TypeClearConsole:
		return typeInfo{"CLEAR_CONSOLE", 0, 0, toClient}
	case TypeServerState:
		return typeInfo{"SERVER_STATE", 32, 32, toClient}
	case TypeMembers:
		return typeInfo{"WEFT_MEMBERS", 4, 4 + MembersMax*(textHeader+nameMax), toClient}
	case TypeMute:
		return typeInfo{"WEFT_MUTE", 5, 5, toServer}
	}
	return typeInfo{"", 0, 64 << 10, bothWays}
}

// String returns the name of the packet as the C headers spell it, or the
// number of a type that has none.
func (t Type) String() string {
	if n := t.info().name; n != "" {
		return n
	}
	return "packet type " + strconv.Itoa(int(t))
}

// Known reports whether t is in the catalogue.
func (t Type) Known() bool { return t.info().name != "" }

// handshake reports whether t never travels inside ENCRYPTED: 1, 1000,
// 1100 to 1109 and 1201 to 1203.
func (t Type) handshake() bool {
	return t == TypeProtocolVersion || t == TypeClientHello ||
		t >= TypeCryptoCapabilities && t <= TypeNoEncryption ||
		t >= TypeRekeyRequest && t <= TypeRekeyComplete
}

// A Packet is one ACIP packet. On a WebSocket it is one binary message.
type Packet struct {
	Type   Type
	Client uint32 // 0 in nearly every packet; ignored on receipt
	// Payload is what follows the header; at most PacketMax bytes. On a packet
	// that was received it aliases the receiver's memory.
	Payload []byte
}

// AppendTo appends header and payload and returns the extended slice.
func (p Packet) AppendTo(dst []byte) []byte {
	dst = appendHeader(dst, p.Type, p.Client, p.Payload)
	return append(dst, p.Payload...)
}

// appendHeader appends the header of a packet whose payload is, or will be,
// the given bytes.
func appendHeader(dst []byte, t Type, client uint32, payload []byte) []byte {
	n := len(dst)
	dst = append(dst, zeroHeader[:]...)
	putHeader(dst[n:], t, client, payload)
	return dst
}

var zeroHeader [HeaderSize]byte

// putHeader writes the header of a packet with the given payload into h.
func putHeader(h []byte, t Type, client uint32, payload []byte) {
	_ = h[HeaderSize-1]
	binary.BigEndian.PutUint64(h, Magic)
	binary.BigEndian.PutUint16(h[8:], uint16(t))
	binary.BigEndian.PutUint32(h[10:], uint32(len(payload)))
	// The CRC of nothing is 0 in CRC-32C too, so the empty payload needs no
	// case of its own.
	binary.BigEndian.PutUint32(h[14:], Checksum(payload))
	binary.BigEndian.PutUint32(h[18:], client)
}

// A header is a packet header in fields.
type header struct {
	typ    Type
	length int
	crc    uint32
	client uint32
}

// parseHeader decodes the first HeaderSize bytes of b and judges what can be
// judged before a single payload byte is accepted: magic and announced length.
func parseHeader(b []byte) (header, error) {
	_ = b[HeaderSize-1]
	if m := binary.BigEndian.Uint64(b); m != Magic {
		return header{}, &Violation{Rule: RuleMagic, Code: CodeProtocol,
			Detail: fmt.Sprintf("the packet begins with %016x (%q), not %016x", m, Printable(string(b[:8])), uint64(Magic))}
	}
	h := header{
		typ:    Type(binary.BigEndian.Uint16(b[8:])),
		crc:    binary.BigEndian.Uint32(b[14:]),
		client: binary.BigEndian.Uint32(b[18:]),
	}
	n := binary.BigEndian.Uint32(b[10:])
	switch in := h.typ.info(); {
	case int64(n) > int64(in.max):
		return header{}, &Violation{Rule: RuleLength, Type: h.typ, Code: CodeSize,
			Detail: fmt.Sprintf("the header announces %d payload bytes; %s has at most %d", n, h.typ, in.max)}
	case int64(n) < int64(in.min):
		return header{}, &Violation{Rule: RuleLength, Type: h.typ, Code: CodeSize,
			Detail: fmt.Sprintf("the header announces %d payload bytes; %s has at least %d", n, h.typ, in.min)}
	}
	h.length = int(n)
	return h, nil
}

// Parse decodes the packet at the beginning of b and returns the number of
// bytes it takes, or 0 if b does not hold all of it yet. The payload aliases b.
// Errors are *Violation: a wrong magic, a length that the type does not allow,
// or a CRC that does not match.
func Parse(b []byte) (p Packet, n int, err error) {
	if len(b) < HeaderSize {
		return Packet{}, 0, nil
	}
	h, err := parseHeader(b)
	if err != nil {
		return Packet{}, 0, err
	}
	n = HeaderSize + h.length
	if len(b) < n {
		return Packet{}, 0, nil
	}
	p, err = h.packet(b[HeaderSize:n:n])
	return p, n, err
}

// packet joins a header to its payload after checking the CRC.
func (h header) packet(payload []byte) (Packet, error) {
	// The C programs skip this check on a WebSocket. It costs 25 microseconds
	// per megabyte and finds a peer whose stream went out of step.
	if crc := Checksum(payload); crc != h.crc {
		return Packet{}, &Violation{Rule: RuleChecksum, Type: h.typ, Code: CodeProtocol,
			Detail: fmt.Sprintf("the header says CRC-32C %08x, the payload has %08x", h.crc, crc)}
	}
	return Packet{Type: h.typ, Client: h.client, Payload: payload}, nil
}
