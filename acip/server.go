package acip

import (
	"crypto/hmac"
	"io"
	"time"
)

// A ServerConfig says whom a server admits. The zero value admits everybody.
type ServerConfig struct {
	// Identity signs the server's key exchange; nil for none.
	Identity *Identity
	// Password is required of every client, on every transport; nil for none.
	Password *Key
	// Clients may join, after proving that they hold one of these keys; nil
	// admits any.
	Clients *AllowList
	// Strict refuses what is tolerated for the sake of the C programs and the
	// browser: session packets outside ENCRYPTED, rekey requests, and the values
	// that strict.go lists.
	Strict bool
	// HandshakeTimeout, SilenceTimeout and QuietTimeout replace the constants
	// of the same name; negative means none.
	HandshakeTimeout, SilenceTimeout, QuietTimeout time.Duration

	random io.Reader
}

// A Server is the server's end of one session.
type Server struct {
	core
	cfg       ServerConfig
	client    KeyExchange // the client's key and identity
	challenge [32]byte
	greeted   bool // CRYPTO_CLIENT_HELLO has come
	capable   bool // CLIENT_CAPABILITIES has come
	pinged    bool // the client pings, so it promised to go on
	early     []Packet
}

var _ Machine = (*Server)(nil)

// NewServer returns the server's end of a session that begins now.
func NewServer(t Transport, cfg ServerConfig) *Server {
	s := &Server{core: core{transport: t, strict: cfg.Strict, random: cfg.random}, cfg: cfg}
	if t == WebSocket {
		s.phase = wantResponse // the server speaks first
	}
	return s
}

// Start returns the packets that open the session: on a WebSocket the server
// speaks first, on TCP it waits for the client's version.
func (s *Server) Start(now time.Time) []Out {
	if err := s.setup(now); err != nil || s.transport == TCP {
		// Without randomness there is no key; the handshake then ends at its
		// first step, in Handle.
		return nil
	}
	return s.offer()
}

// offer returns the server's half of the key exchange.
func (s *Server) offer() []Out {
	p := CryptoParameters{Kex: KexX25519, Cipher: CipherXSalsa20Poly1, Verification: s.cfg.Clients != nil,
		KexKeySize: 32, SecretSize: 32, NonceSize: nonceSize, MACSize: 16, HMACSize: 32}
	k := KeyExchange{Ephemeral: [32]byte(s.ephemeral.PublicKey().Bytes())}
	if id := s.cfg.Identity; id != nil {
		p.Auth, p.AuthKeySize, p.SignatureSize = AuthEd25519, 32, 64
		k.Signed, k.Identity, k.Signature = true, id.public, id.sign(k.Ephemeral[:])
	}
	return []Out{
		{Type: TypeCryptoParameters, Payload: p.AppendTo(nil)},
		{Type: TypeKeyExchangeInit, Payload: k.AppendTo(nil, TypeKeyExchangeInit)},
	}
}

// Client returns the client's identity, if it proved one.
func (s *Server) Client() (PublicKey, bool) {
	return s.client.Identity, s.phase == established && s.client.Signed && s.client.Identity != PublicKey{}
}

// Established reports whether the handshake is complete.
func (s *Server) Established() bool { return s.phase == established }

// Early returns the CLIENT_CAPABILITIES and STREAM_START that a client without
// encryption of its own sent before the handshake.
func (s *Server) Early() []Packet {
	e := s.early
	s.early = nil
	return e
}

// Handle takes a packet of the client.
func (s *Server) Handle(now time.Time, p Packet) (Event, []Out, error) {
	s.seen = now
	switch {
	case s.core.ephemeral == nil && s.opener == nil:
		return Event{}, nil, &Violation{Rule: RuleSeal, Code: CodeCrypto, Detail: "the server has no key: it has not been started"}
	case p.Type == TypeEncrypted:
		if s.phase != established {
			return Event{}, nil, s.outOfOrder(p.Type)
		}
		inner, err := s.opener.Open(p.Payload)
		if err != nil {
			return Event{}, nil, err
		}
		return s.session(now, inner)
	case p.Type.handshake():
		return s.handshake(now, p)
	}
	return s.plaintext(now, p)
}

// plaintext judges a session packet outside ENCRYPTED. Browsers send their
// capabilities and their stream start that way after the handshake, and C
// clients told not to encrypt do so before it, although both encrypt all else.
// Neither says anything secret, and both are limited to those two packets.
func (s *Server) plaintext(now time.Time, p Packet) (Event, []Out, error) {
	harmless := p.Type == TypeCapabilities || p.Type == TypeStreamStart
	switch {
	case p.Type == TypeError:
		// A client that refuses the server has no key yet, or none that it trusts.
		// Whatever it says, and whoever says it, ends the session.
		m, err := ParseErrorMessage(p.Payload)
		if err != nil {
			return Event{}, nil, err
		}
		return Event{}, nil, &RemoteError{Code: m.Code, Message: m.Message}
	case s.transport == TCP && s.phase == wantVersion:
		return Event{}, nil, violation(RuleMode, p.Type, "this server encrypts; start the client without --no-encrypt")
	case s.transport == TCP, s.strict, !harmless:
		return Event{}, nil, violation(RulePlaintext, p.Type, "the packet has to travel inside ENCRYPTED")
	case s.phase == established:
		return s.session(now, p)
	}
	if err := check(p); err != nil {
		return Event{}, nil, err
	}
	for i := range s.early {
		if s.early[i].Type == p.Type {
			return Event{}, nil, violation(RuleOrder, p.Type, "sent twice before the handshake")
		}
	}
	p.Payload = append([]byte(nil), p.Payload...)
	s.early = append(s.early, p)
	return Event{}, nil, nil
}

// check parses the packets that may come early.
func check(p Packet) (err error) {
	if p.Type == TypeCapabilities {
		_, err = ParseCapabilities(p.Payload)
	} else {
		_, err = ParseStreamMask(p.Type, p.Payload)
	}
	return err
}

// handshake steps the strict part: each packet once and in its place.
func (s *Server) handshake(now time.Time, p Packet) (Event, []Out, error) {
	switch {
	case p.Type == TypeProtocolVersion && s.phase == wantVersion:
		v, err := ParseProtocolVersion(p.Payload)
		if err != nil {
			return Event{}, nil, err
		}
		if v.Version != 1 {
			return Event{}, nil, violation(RuleValue, p.Type, "protocol version %d; spoken here is 1", v.Version)
		}
		if v.Mode&ModeEncrypt == 0 {
			return Event{}, nil, violation(RuleMode, p.Type, "this server encrypts; start the client without --no-encrypt")
		}
		s.phase = wantCapabilities
		// The client compares: it hangs up on a mode that is not its own.
		v = ProtocolVersion{Version: 1, Mode: v.Mode}
		return Event{}, []Out{{Type: p.Type, Payload: v.AppendTo(nil)}}, nil

	case p.Type == TypeCryptoCapabilities && s.phase == wantCapabilities:
		c, err := ParseCryptoCapabilities(p.Payload)
		if err != nil {
			return Event{}, nil, err
		}
		if c.Kex&KexX25519 == 0 || c.Cipher&CipherXSalsa20Poly1 == 0 {
			return Event{}, nil, violation(RuleValue, p.Type, "key exchange %#x and cipher %#x; spoken here are X25519 (1) and XSalsa20-Poly1305 (1)", c.Kex, c.Cipher)
		}
		s.phase = wantResponse
		return Event{}, s.offer(), nil

	case p.Type == TypeClientHello && s.phase == wantResponse && s.transport == TCP && !s.greeted:
		// The key that the client hopes to find. Ours is in the packet that has
		// already left, so the client is the one to judge.
		s.greeted = true
		return Event{}, nil, nil

	case p.Type == TypeKeyExchangeResp && s.phase == wantResponse:
		k, err := ParseKeyExchange(p.Type, p.Payload)
		if err != nil {
			return Event{}, nil, err
		}
		// A client without identity fills the long form with zeros.
		if k.Signed = k.Signed && k.Identity != [32]byte{}; k.Signed && !PublicKey(k.Identity).verify(k.Ephemeral[:], k.Signature) {
			return Event{}, nil, &Violation{Rule: RuleIdentity, Type: p.Type, Code: CodeCrypto, Failed: FailedSignature,
				Detail: "the signature over the ephemeral key is wrong"}
		}
		if err := s.exchange(p.Type, k.Ephemeral); err != nil {
			return Event{}, nil, err
		}
		s.client = k
		var need AuthFlags
		if s.cfg.Password != nil {
			need |= ChallengePassword
		}
		if s.cfg.Clients != nil {
			need |= ChallengeClientKey
		}
		if need == 0 {
			return s.establish(now, Out{Type: TypeHandshakeComplete})
		}
		if s.challenge, err = s.nonce(); err != nil {
			return Event{}, nil, err
		}
		s.phase = wantAuth
		c := AuthChallenge{need, s.challenge}
		return Event{}, []Out{{Type: TypeAuthChallenge, Payload: c.AppendTo(nil)}}, nil

	case p.Type == TypeAuthResponse && s.phase == wantAuth:
		return s.authenticate(now, p)

	case p.Type == TypeNoEncryption:
		return Event{}, nil, violation(RuleMode, p.Type, "encryption mode mismatch: this server encrypts; start the client without --no-encrypt")

	case p.Type >= TypeRekeyRequest && p.Type <= TypeRekeyComplete && s.phase == established && !s.strict:
		// Rekey packets are plaintext that nothing authenticates: whoever sits
		// in between could agree on a key of its own. The session goes on under
		// the key that was authenticated.
		return Event{}, nil, nil
	}
	return Event{}, nil, s.outOfOrder(p.Type)
}

// authenticate judges the answer to the challenge.
func (s *Server) authenticate(now time.Time, p Packet) (Event, []Out, error) {
	refuse := func(f AuthFlags, r Rule, code ErrorCode, detail string) (Event, []Out, error) {
		return Event{}, nil, &Violation{Rule: r, Type: p.Type, Code: code, Failed: f, Detail: detail}
	}
	r, err := ParseAuthResponse(p.Payload)
	if err != nil {
		f := FailedPasswordRequired
		if s.cfg.Password == nil {
			f = FailedKeyRejected
		}
		return refuse(f, RuleIdentity, CodeCrypto, err.Error())
	}
	if s.cfg.Password != nil {
		if r.Signed {
			return refuse(FailedPasswordRequired, RulePassword, CodePassword, "a signature instead of the password's HMAC")
		}
		if want := proof(s.cfg.Password, s.key, s.challenge); !hmac.Equal(want[:], r.HMAC[:]) {
			return refuse(FailedPassword, RulePassword, CodePassword, "wrong password")
		}
	}
	if s.cfg.Clients != nil {
		id := PublicKey(s.client.Identity)
		switch {
		case !s.client.Signed:
			return refuse(FailedKeyRequired, RuleIdentity, CodeCrypto, "the client has no key")
		case !s.cfg.Clients.Has(id):
			return refuse(FailedKeyRejected, RuleIdentity, CodeCrypto, "client key "+id.String()+" is not on the list")
		// With a password the answer is the HMAC. It covers the session key, and
		// the identity has signed the ephemeral key that this came from.
		case s.cfg.Password == nil && !r.Signed:
			return refuse(FailedKeyRejected, RuleIdentity, CodeCrypto, "an HMAC instead of the key's signature")
		case s.cfg.Password == nil && !id.verify(s.challenge[:], r.Signature):
			return refuse(FailedSignature, RuleIdentity, CodeCrypto, "the signature over the challenge is wrong")
		}
	}
	sum := proof(s.cfg.Password, s.key, r.ClientNonce)
	return s.establish(now, Out{Type: TypeServerAuthResp, Payload: sum[:]})
}

func (s *Server) establish(now time.Time, last Out) (Event, []Out, error) {
	s.phase, s.began = established, now
	return Event{Kind: EventEstablished}, []Out{last}, nil
}

// session checks a packet that came out of ENCRYPTED, or was allowed without.
func (s *Server) session(_ time.Time, p Packet) (Event, []Out, error) {
	var err error
	switch p.Type {
	case TypeCapabilities:
		if _, err = ParseCapabilities(p.Payload); err == nil {
			s.capable = true
		}
	case TypeStreamStart, TypeStreamStop:
		_, err = ParseStreamMask(p.Type, p.Payload)
	case TypeImageFrame, TypeImageFrameH265:
		if !s.capable {
			return Event{}, nil, violation(RuleOrder, p.Type, "no picture before CLIENT_CAPABILITIES")
		}
		if p.Type == TypeImageFrame {
			_, err = ParseImageFrame(p.Payload)
		} else {
			_, err = ParseH265Frame(p.Payload)
		}
	case TypePing:
		s.pinged = true
		return Event{}, []Out{sealed(TypePong, nil)}, nil
	case TypePong, TypeAudio, TypeSize:
		// PONG answers nothing of ours; the other two are legacy whose C
		// handlers do not agree with their C senders.
		return Event{}, nil, nil
	case TypeAudioBatch:
		_, err = parseAudioHead(p.Payload)
	case TypeOpusBatch:
		_, err = ParseOpusBatch(p.Payload)
	case TypeJoin:
		_, err = ParseJoin(p.Payload)
	case TypeLeave:
		_, err = ParseLeave(p.Payload)
	case TypeText:
		_, err = ParseText(p.Payload)
	case TypeMute:
		_, err = ParseMute(p.Payload)
	case TypeError:
		_, err = ParseErrorMessage(p.Payload)
	case TypeRemoteLog:
		var l RemoteLog
		if l, err = ParseRemoteLog(p.Payload); err == nil && l.Direction != LogToServer {
			err = violation(RuleDirection, p.Type, "the log says that it goes to the client")
		}
	default:
		if !p.Type.Known() {
			return Event{}, nil, &Violation{Rule: RuleUnknown, Type: p.Type, Code: CodeUnknown, Detail: "unknown packet type"}
		}
		return Event{}, nil, violation(RuleDirection, p.Type, "clients do not send this")
	}
	if err == nil && s.strict {
		err = strictly(p)
	}
	if err != nil {
		return Event{}, nil, err
	}
	return Event{Kind: EventPacket, Packet: p}, nil, nil
}

// Deadline is when the client has to have been heard.
func (s *Server) Deadline() time.Time {
	if s.phase != established || !s.capable {
		return after(s.began, or(s.cfg.HandshakeTimeout, HandshakeTimeout))
	}
	if s.transport == WebSocket {
		// The WebSocket below pings, and any frame proves its client alive.
		// Browsers never send an ACIP ping.
		return time.Time{}
	}
	if s.pinged {
		return after(s.seen, or(s.cfg.SilenceTimeout, SilenceTimeout))
	}
	return after(s.seen, or(s.cfg.QuietTimeout, QuietTimeout))
}

// Tick reports a client that missed its deadline.
func (s *Server) Tick(now time.Time) ([]Out, error) {
	d := s.Deadline()
	if d.IsZero() || now.Before(d) {
		return nil, nil
	}
	v := &Violation{Rule: RuleTimeout, Code: CodeTimeout}
	switch {
	case s.phase != established:
		v.Detail = "the handshake is not complete; expected " + s.phase.String()
	case !s.capable:
		v.Detail = "no CLIENT_CAPABILITIES after the handshake"
	default:
		v.Detail = "not a byte for " + now.Sub(s.seen).Round(time.Millisecond).String()
	}
	return nil, v
}

// or returns the default for zero.
func or(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return d
}

// after returns t+d, or never for a negative d.
func after(t time.Time, d time.Duration) time.Time {
	if d < 0 {
		return time.Time{}
	}
	return t.Add(d)
}
