package acip

import (
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/nacl/secretbox"
)

const (
	nonceSize = 24
	// sealOverhead is what ENCRYPTED adds to the packet inside it, its own
	// header aside.
	sealOverhead = nonceSize + secretbox.Overhead
)

// A Key is a 32-byte secret. It prints as nothing, so that it cannot end up in
// a log by accident.
type Key [32]byte

// String hides the key.
func (Key) String() string { return "[secret]" }

// GoString hides the key.
func (Key) GoString() string { return "acip.Key{secret}" }

// Format hides the key, whatever the verb.
func (Key) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "[secret]") }

// MarshalText refuses, so that no encoder writes the key.
func (Key) MarshalText() ([]byte, error) { return nil, errors.New("acip: a key is not for output") }

const (
	// PasswordMin and PasswordMax bound the length of a password in bytes.
	PasswordMin = 8
	PasswordMax = 256
)

// PasswordKey derives the key that proves knowledge of a password: Argon2id
// with time 2, 64 MiB, one lane, and a salt that is the same everywhere. It
// takes about a tenth of a second and 64 MiB; servers call it once.
func PasswordKey(password string) (*Key, error) {
	if n := len(password); n < PasswordMin || n > PasswordMax {
		return nil, fmt.Errorf("acip: the password is %d bytes long; allowed are %d to %d", n, PasswordMin, PasswordMax)
	}
	if !utf8.ValidString(password) {
		return nil, errors.New("acip: the password is not UTF-8")
	}
	var k Key
	copy(k[:], argon2.IDKey([]byte(password), []byte("ascii-chat-passw"), 2, 64<<10, 1, 32))
	return &k, nil
}

// sharedKey returns the session key. The protocol uses the X25519 output as it
// is; ecdh refuses the low-order points that would make it zero.
func sharedKey(own *ecdh.PrivateKey, peer [32]byte) (Key, error) {
	pub, err := ecdh.X25519().NewPublicKey(peer[:])
	if err != nil {
		return Key{}, err
	}
	s, err := own.ECDH(pub)
	if err != nil {
		return Key{}, err
	}
	return Key(s), nil
}

// proof is the HMAC of both authentication packets: over the other side's
// nonce and the session key, under the password key or, without a password,
// under the session key itself.
func proof(password *Key, session Key, nonce [32]byte) (sum [32]byte) {
	k := session
	if password != nil {
		k = *password
	}
	m := hmac.New(sha256.New, k[:])
	m.Write(nonce[:])
	m.Write(session[:])
	m.Sum(sum[:0])
	return sum
}

// A Sealer encrypts the packets of one direction of one connection. The order
// of its calls is the order of the nonces, so it is called where the packet
// goes to the wire and nowhere else. Not safe for concurrent use.
type Sealer struct {
	key     Key
	nonce   [nonceSize]byte // session id, counter
	counter uint64
	inner   []byte
}

// NewSealer returns a Sealer whose 16-byte session id comes from random.
func NewSealer(key Key, random io.Reader) (*Sealer, error) {
	s := &Sealer{key: key}
	if _, err := io.ReadFull(random, s.nonce[:16]); err != nil {
		return nil, fmt.Errorf("acip: no random session id: %w", err)
	}
	return s, nil
}

// SessionID returns the first 16 bytes of every nonce.
func (s *Sealer) SessionID() [16]byte { return [16]byte(s.nonce[:16]) }

// Seal appends an ENCRYPTED packet, its header included, that holds the given
// packet. It allocates nothing once the buffers have grown. The packet, its
// header included, may be SealedMax bytes long; a longer one is an error and
// costs no nonce.
func (s *Sealer) Seal(dst []byte, p Packet) ([]byte, error) {
	n := HeaderSize + len(p.Payload)
	if n > SealedMax {
		return dst, fmt.Errorf("acip: %s of %d bytes is too long to encrypt; at most %d", p.Type, n, SealedMax)
	}
	s.inner = p.AppendTo(s.inner[:0])
	// The counter starts at 1.
	s.counter++
	be.PutUint64(s.nonce[16:], s.counter)

	at := len(dst)
	dst = append(dst, zeroHeader[:]...)
	dst = append(dst, s.nonce[:]...)
	dst = secretbox.Seal(dst, s.inner, &s.nonce, (*[32]byte)(&s.key))
	putHeader(dst[at:], TypeEncrypted, 0, dst[at+HeaderSize:])
	return dst, nil
}

// An Opener decrypts the packets of one direction of one connection. Not safe
// for concurrent use.
type Opener struct {
	key     Key
	own     [16]byte // session id of our own direction
	id      [16]byte // session id of the peer, once known
	known   bool
	counter uint64
	plain   []byte
}

// NewOpener returns an Opener for what the peer of own sends. Both directions
// share one key, so a packet that carries our own session id is one of ours,
// thrown back by somebody in between, and is refused.
func NewOpener(key Key, own [16]byte) *Opener { return &Opener{key: key, own: own} }

// Open decrypts the payload of an ENCRYPTED packet and returns the packet in
// it, valid until the next call. It allocates nothing once its buffer has
// grown. The session id has to stay, the counter has to rise strictly; an error
// is a *Violation.
func (o *Opener) Open(payload []byte) (Packet, error) {
	const t = TypeEncrypted
	if len(payload) < sealOverhead+HeaderSize {
		return Packet{}, wrongSize(t, len(payload), "at least 62")
	}
	nonce := (*[nonceSize]byte)(payload)
	id, counter := [16]byte(nonce[:16]), be.Uint64(nonce[16:])
	plain, ok := secretbox.Open(o.plain[:0], payload[nonceSize:], nonce, (*[32]byte)(&o.key))
	if !ok {
		return Packet{}, &Violation{Rule: RuleSeal, Type: t, Code: CodeCrypto, Detail: "the box does not open under the session key"}
	}
	o.plain = plain
	switch {
	case id == o.own:
		return Packet{}, &Violation{Rule: RuleReplay, Type: t, Code: CodeCrypto, Detail: "the packet is one of our own, sent back"}
	case o.known && id != o.id:
		return Packet{}, &Violation{Rule: RuleReplay, Type: t, Code: CodeCrypto, Detail: "the session id in the nonce has changed"}
	case counter <= o.counter:
		return Packet{}, &Violation{Rule: RuleReplay, Type: t, Code: CodeCrypto,
			Detail: fmt.Sprintf("nonce counter %d after %d", counter, o.counter)}
	}
	o.id, o.known, o.counter = id, true, counter
	p, n, err := Parse(plain)
	switch {
	case err != nil:
		return Packet{}, err
	case n != len(plain):
		return Packet{}, violation(RuleLength, t, "the box holds %d bytes, which is not one packet", len(plain))
	case p.Type == TypeEncrypted || p.Type.handshake():
		return Packet{}, violation(RuleOrder, p.Type, "the packet does not travel inside ENCRYPTED")
	}
	return p, nil
}
