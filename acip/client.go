package acip

import (
	"crypto/hmac"
	"errors"
	"io"
	"time"
)

// A ClientConfig says what a client shows of itself and demands of a server.
type ClientConfig struct {
	// Identity is shown to servers that ask for one; nil for none.
	Identity *Identity
	// Password is what both ends have to know; nil for none.
	Password *Key
	// ServerKey is the identity that the server must have; nil for any.
	ServerKey *PublicKey
	// CheckServer judges the server's identity, nil if it shows none; see
	// KnownHosts.Check. It is called during Handle.
	CheckServer func(*PublicKey) error
	// AllowUnproven goes on when there is a password and the server never asks
	// for it, as C servers on WebSocket do. Anybody could be such a server.
	AllowUnproven bool
	// Strict refuses what is tolerated for the sake of C servers: session packets
	// outside ENCRYPTED, rekey requests, and the values that strict.go lists.
	Strict bool
	// PingInterval and SilenceTimeout and HandshakeTimeout replace the constants
	// of the same name; negative means none.
	PingInterval, SilenceTimeout, HandshakeTimeout time.Duration

	random io.Reader
}

// ErrNoPassword is reported when the server asks for a password and there is
// none.
var ErrNoPassword = errors.New("the server asks for a password and none was given")

// ErrNoKey is reported when the server asks for a client key and there is none.
var ErrNoKey = errors.New("the server asks for a client key and none was given")

// A Client is the client's end of one session.
type Client struct {
	core
	cfg      ClientConfig
	params   CryptoParameters
	nonceOut [32]byte // our nonce, which the server answers
	server   *PublicKey
	pingAt   time.Time // when the next ping is due
	pingSent time.Time // when the unanswered ping left
	rtt      time.Duration
}

var _ Machine = (*Client)(nil)

// NewClient returns the client's end of a session that begins now.
func NewClient(t Transport, cfg ClientConfig) *Client {
	c := &Client{core: core{transport: t, strict: cfg.Strict, random: cfg.random, phase: wantParameters}, cfg: cfg}
	if t == TCP {
		c.phase = wantVersion
	}
	return c
}

// Start returns the packets that open the session: on TCP the version, on a
// WebSocket nothing, because the server speaks first.
func (c *Client) Start(now time.Time) []Out {
	if err := c.setup(now); err != nil || c.transport == WebSocket {
		return nil
	}
	return []Out{{Type: TypeProtocolVersion, Payload: ProtocolVersion{Version: 1, Mode: c.mode()}.AppendTo(nil)}}
}

// mode is what the C client asks for in the same situation.
func (c *Client) mode() CryptoMode {
	m := ModeEncrypt
	if c.cfg.Password != nil || c.cfg.Identity != nil {
		m |= ModeAuthenticate
	}
	return m
}

// Server returns the server's identity, if it proved one.
func (c *Client) Server() (PublicKey, bool) {
	if c.server == nil {
		return PublicKey{}, false
	}
	return *c.server, true
}

// Established reports whether the handshake is complete.
func (c *Client) Established() bool { return c.phase == established }

// RTT returns the round trip of the last ping that was answered, 0 before.
func (c *Client) RTT() time.Duration { return c.rtt }

// Early returns nothing: no packet of a server counts later than it came.
func (c *Client) Early() []Packet { return nil }

// Handle takes a packet of the server.
func (c *Client) Handle(now time.Time, p Packet) (Event, []Out, error) {
	c.seen = now
	switch {
	case c.core.ephemeral == nil && c.opener == nil:
		return Event{}, nil, &Violation{Rule: RuleSeal, Code: CodeCrypto, Detail: "the client has no key: it has not been started"}
	case p.Type == TypeEncrypted:
		if c.phase != established {
			return Event{}, nil, c.outOfOrder(p.Type)
		}
		inner, err := c.opener.Open(p.Payload)
		if err != nil {
			return Event{}, nil, err
		}
		return c.session(now, inner)
	case p.Type.handshake():
		return c.handshake(now, p)
	}
	return c.plaintext(now, p)
}

// plaintext judges a session packet outside ENCRYPTED. C servers send
// SERVER_STATE that way before and during the handshake, and ERROR_MESSAGE and
// REMOTE_LOG at any time. None of them changes what is shown or sent.
func (c *Client) plaintext(now time.Time, p Packet) (Event, []Out, error) {
	tolerated := p.Type == TypeServerState || p.Type == TypeError || p.Type == TypeRemoteLog
	if c.strict {
		// Without a key a server has no other way to say that it refuses.
		tolerated = p.Type == TypeError && c.phase != established
	}
	if !tolerated {
		return Event{}, nil, violation(RulePlaintext, p.Type, "the packet has to travel inside ENCRYPTED")
	}
	return c.session(now, p)
}

// handshake steps the strict part: each packet once and in its place.
func (c *Client) handshake(now time.Time, p Packet) (Event, []Out, error) {
	switch {
	case p.Type == TypeProtocolVersion && c.phase == wantVersion:
		v, err := ParseProtocolVersion(p.Payload)
		if err != nil {
			return Event{}, nil, err
		}
		if v.Version != 1 || v.Mode != c.mode() {
			return Event{}, nil, violation(RuleMode, p.Type, "version %d with mode %d; expected version 1 with mode %d", v.Version, v.Mode, c.mode())
		}
		c.phase = wantParameters
		caps := CryptoCapabilities{Kex: KexX25519, Auth: AuthEd25519, Cipher: CipherXSalsa20Poly1,
			PreferredKex: KexX25519, PreferredCiph: CipherXSalsa20Poly1}
		if c.mode()&ModeAuthenticate != 0 {
			caps.PreferredAuth = AuthEd25519
		}
		return Event{}, []Out{{Type: TypeCryptoCapabilities, Payload: caps.AppendTo(nil)}}, nil

	case p.Type == TypeCryptoParameters && c.phase == wantParameters:
		v, err := ParseCryptoParameters(p.Payload)
		if err != nil {
			return Event{}, nil, err
		}
		if v.Kex != KexX25519 || v.Cipher != CipherXSalsa20Poly1 || v.KexKeySize != 32 || v.NonceSize != nonceSize || v.MACSize != 16 {
			return Event{}, nil, violation(RuleValue, p.Type, "key exchange %d and cipher %d; spoken here are X25519 (1) and XSalsa20-Poly1305 (1)", v.Kex, v.Cipher)
		}
		c.params, c.phase = v, wantInit
		return Event{}, nil, nil

	case p.Type == TypeKeyExchangeInit && c.phase == wantInit:
		return c.answerInit(p)

	case p.Type == TypeHandshakeComplete && c.phase == wantVerdict:
		if c.cfg.Password != nil && !c.cfg.AllowUnproven {
			return Event{}, nil, &Violation{Rule: RuleServerProof, Type: p.Type, Code: CodeCrypto,
				Detail: "the server did not ask for the password, so it has not proved that it knows it"}
		}
		return c.establish(now)

	case p.Type == TypeAuthChallenge && c.phase == wantVerdict:
		return c.answerChallenge(p)

	case p.Type == TypeServerAuthResp && c.phase == wantServerAuth:
		if len(p.Payload) != 32 {
			return Event{}, nil, wrongSize(p.Type, len(p.Payload), "32")
		}
		if want := proof(c.cfg.Password, c.key, c.nonceOut); !hmac.Equal(want[:], p.Payload) {
			return Event{}, nil, &Violation{Rule: RuleServerProof, Type: p.Type, Code: CodeCrypto, Detail: "the server does not know the password"}
		}
		return c.establish(now)

	case p.Type == TypeAuthFailed && (c.phase == wantVerdict || c.phase == wantServerAuth):
		f, err := ParseAuthFailed(p.Payload)
		if err != nil {
			return Event{}, nil, err
		}
		return Event{}, nil, &RemoteError{Failed: f}

	case p.Type == TypeNoEncryption:
		return Event{}, nil, violation(RuleMode, p.Type, "the server does not encrypt")

	case p.Type >= TypeRekeyRequest && p.Type <= TypeRekeyComplete && c.phase == established && !c.strict:
		return Event{}, nil, nil // see Server.handshake
	}
	return Event{}, nil, c.outOfOrder(p.Type)
}

// answerInit judges the server's identity and answers its key.
func (c *Client) answerInit(p Packet) (Event, []Out, error) {
	k, err := ParseKeyExchange(p.Type, p.Payload)
	if err != nil {
		return Event{}, nil, err
	}
	refuse := func(format string, args ...any) (Event, []Out, error) {
		v := violation(RuleIdentity, p.Type, format, args...)
		v.Code = CodeCrypto
		return Event{}, nil, v
	}
	if k.Signed {
		id := PublicKey(k.Identity)
		if !id.verify(k.Ephemeral[:], k.Signature) {
			return refuse("the server's signature over its ephemeral key is wrong")
		}
		c.server = &id
	}
	if want := c.cfg.ServerKey; want != nil {
		switch {
		case c.server == nil:
			return refuse("the server shows no identity; expected %s", *want)
		case *c.server != *want:
			return refuse("the server has identity %s; expected %s", *c.server, *want)
		}
	}
	if c.cfg.CheckServer != nil {
		if err := c.cfg.CheckServer(c.server); err != nil {
			return Event{}, nil, err
		}
	}
	r := KeyExchange{Ephemeral: [32]byte(c.ephemeral.PublicKey().Bytes())}
	if c.params.Verification || k.Signed {
		// The long form, filled with zeros by clients that have no identity.
		r.Signed = true
		if id := c.cfg.Identity; id != nil {
			r.Identity, r.Signature = id.public, id.sign(r.Ephemeral[:])
		}
	}
	if err := c.exchange(p.Type, k.Ephemeral); err != nil {
		return Event{}, nil, err
	}
	c.phase = wantVerdict
	return Event{}, []Out{{Type: TypeKeyExchangeResp, Payload: r.AppendTo(nil, TypeKeyExchangeResp)}}, nil
}

// answerChallenge proves the password, or else the key.
func (c *Client) answerChallenge(p Packet) (Event, []Out, error) {
	ch, err := ParseAuthChallenge(p.Payload)
	if err != nil {
		return Event{}, nil, err
	}
	var r AuthResponse
	switch {
	case ch.Flags&ChallengePassword != 0 && c.cfg.Password == nil:
		return Event{}, nil, ErrNoPassword
	case ch.Flags&ChallengeClientKey != 0 && c.cfg.Identity == nil:
		return Event{}, nil, ErrNoKey
	case ch.Flags&ChallengePassword != 0:
		r.HMAC = proof(c.cfg.Password, c.key, ch.Nonce)
	case c.cfg.Password != nil && !c.cfg.AllowUnproven:
		return Event{}, nil, &Violation{Rule: RuleServerProof, Type: p.Type, Code: CodeCrypto,
			Detail: "the server asks for a key but not for the password, so it will not prove that it knows it"}
	case ch.Flags&ChallengeClientKey != 0:
		r.Signed, r.Signature = true, c.cfg.Identity.sign(ch.Nonce[:])
	default:
		// Nothing is required, yet an answer is: prove the session key.
		r.HMAC = proof(nil, c.key, ch.Nonce)
	}
	if ch.Flags&ChallengePassword == 0 {
		c.cfg.Password = nil // the server's proof is then under the session key
	}
	if r.ClientNonce, err = c.nonce(); err != nil {
		return Event{}, nil, err
	}
	c.nonceOut, c.phase = r.ClientNonce, wantServerAuth
	return Event{}, []Out{{Type: TypeAuthResponse, Payload: r.AppendTo(nil)}}, nil
}

func (c *Client) establish(now time.Time) (Event, []Out, error) {
	c.phase, c.began, c.pingAt = established, now, now
	return Event{Kind: EventEstablished}, nil, nil
}

// session checks a packet that came out of ENCRYPTED, or was allowed without.
func (c *Client) session(now time.Time, p Packet) (Event, []Out, error) {
	var err error
	switch p.Type {
	case TypeServerState:
		_, err = ParseState(p.Payload)
	case TypeASCIIFrame:
		_, err = ParseASCIIFrame(p.Payload)
	case TypeClearConsole:
	case TypePong:
		if !c.pingSent.IsZero() {
			c.rtt, c.pingSent = now.Sub(c.pingSent), time.Time{}
		}
		return Event{}, nil, nil
	case TypePing:
		return Event{}, []Out{sealed(TypePong, nil)}, nil
	case TypeAudioBatch:
		_, err = parseAudioHead(p.Payload)
	case TypeOpusBatch:
		_, err = ParseOpusBatch(p.Payload)
	case TypeText:
		_, err = ParseText(p.Payload)
	case TypeMembers:
		_, err = ParseMembers(p.Payload)
	case TypeRemoteLog:
		_, err = ParseRemoteLog(p.Payload)
	case TypeError:
		m, err := ParseErrorMessage(p.Payload)
		if err != nil {
			return Event{}, nil, err
		}
		// Before the session stands it can only mean refusal. Later it may be a
		// hint, such as that the video codec cannot be shown.
		if c.phase != established {
			return Event{}, nil, &RemoteError{Code: m.Code, Message: m.Message}
		}
	default:
		if p.Type.Known() && p.Type.info().dir&toClient == 0 {
			return Event{}, nil, violation(RuleDirection, p.Type, "servers do not send this")
		}
		return Event{}, nil, nil // the C client ignores what it does not know
	}
	if err == nil && c.strict {
		err = strictly(p)
	}
	if err != nil {
		return Event{}, nil, err
	}
	return Event{Kind: EventPacket, Packet: p}, nil, nil
}

// Deadline is when the next ping is due or the server has been silent for too
// long.
func (c *Client) Deadline() time.Time {
	if c.phase != established {
		return after(c.began, or(c.cfg.HandshakeTimeout, HandshakeTimeout))
	}
	silence := after(c.seen, or(c.cfg.SilenceTimeout, SilenceTimeout))
	if or(c.cfg.PingInterval, PingInterval) < 0 || !silence.IsZero() && silence.Before(c.pingAt) {
		return silence
	}
	return c.pingAt
}

// Tick sends the ping that is due, or reports a silent server.
func (c *Client) Tick(now time.Time) ([]Out, error) {
	if c.phase != established {
		if d := c.Deadline(); !d.IsZero() && !now.Before(d) {
			return nil, &Violation{Rule: RuleTimeout, Code: CodeTimeout, Detail: "the handshake is not complete; expected " + c.phase.String()}
		}
		return nil, nil
	}
	if d := after(c.seen, or(c.cfg.SilenceTimeout, SilenceTimeout)); !d.IsZero() && !now.Before(d) {
		return nil, &Violation{Rule: RuleTimeout, Code: CodeTimeout, Detail: "not a byte for " + now.Sub(c.seen).Round(time.Millisecond).String()}
	}
	interval := or(c.cfg.PingInterval, PingInterval)
	if interval < 0 || now.Before(c.pingAt) {
		return nil, nil
	}
	c.pingAt = now.Add(interval)
	if c.pingSent.IsZero() {
		c.pingSent = now
	}
	return []Out{sealed(TypePing, nil)}, nil
}
