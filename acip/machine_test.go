package acip_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weft-ws/weft/acip"
	"github.com/weft-ws/weft/chat/decode"
)

var t0 = time.Date(2026, 7, 17, 12, 0, 0, 0, time.UTC)

// end is one end of a session in a test: a machine and its seal.
type end struct {
	acip.Machine
	t      *testing.T
	sealer *acip.Sealer
	events []acip.Packet
	ready  bool
	now    time.Time
}

func newEnd(t *testing.T, m acip.Machine) *end { return &end{t: t, Machine: m, now: t0} }

// wire turns what the machine wants sent into packets as they would travel.
func (e *end) wire(outs []acip.Out) (list []acip.Packet) {
	e.t.Helper()
	for _, o := range outs {
		p := acip.Packet{Type: o.Type, Payload: o.Payload}
		if o.Sealed {
			p = e.seal(p)
		}
		list = append(list, p)
	}
	return list
}

func (e *end) seal(p acip.Packet) acip.Packet {
	e.t.Helper()
	if e.sealer == nil {
		k, ok := e.Key()
		if !ok {
			e.t.Fatal("no key yet")
		}
		s, err := acip.NewSealer(k, rand.Reader)
		if err != nil {
			e.t.Fatal(err)
		}
		e.sealer = s
		e.OpenWith(s.SessionID())
	}
	b, err := e.sealer.Seal(nil, p)
	if err != nil {
		e.t.Fatal(err)
	}
	return acip.Packet{Type: acip.TypeEncrypted, Payload: b[acip.HeaderSize:]}
}

// take hands the machine packets and returns its answers as they travel.
func (e *end) take(in ...acip.Packet) (out []acip.Packet, err error) {
	e.t.Helper()
	for _, p := range in {
		ev, outs, err := e.Handle(e.now, p)
		if err != nil {
			return out, err
		}
		switch ev.Kind {
		case acip.EventEstablished:
			e.ready = true
			e.events = append(e.events, e.Early()...)
		case acip.EventPacket:
			ev.Packet.Payload = bytes.Clone(ev.Packet.Payload)
			e.events = append(e.events, ev.Packet)
		}
		out = append(out, e.wire(outs)...)
	}
	return out, nil
}

// names lists the types of packets.
func names(list []acip.Packet) string {
	var s []string
	for _, p := range list {
		s = append(s, p.Type.String())
	}
	return strings.Join(s, " ")
}

// meet runs the handshake of two ends to its end.
func meet(t *testing.T, client, server *end) (clientErr, serverErr error) {
	t.Helper()
	toServer := client.wire(client.Start(t0))
	toClient := server.wire(server.Start(t0))
	for range 10 {
		if len(toServer)+len(toClient) == 0 {
			return nil, nil
		}
		var a, b []acip.Packet
		if a, clientErr = client.take(toClient...); clientErr != nil {
			var r *acip.RemoteError
			if !errors.As(clientErr, &r) {
				return clientErr, nil
			}
			return clientErr, serverErr
		}
		if serverErr != nil {
			return nil, serverErr
		}
		if b, serverErr = server.take(toServer...); serverErr != nil {
			// What the session layer does: tell the client why.
			var v *acip.Violation
			if errors.As(serverErr, &v) && v.Failed != 0 {
				b = append(b, acip.Packet{Type: acip.TypeAuthFailed, Payload: acip.AppendAuthFailed(nil, v.Failed)})
			}
		}
		toServer, toClient = a, b
	}
	t.Fatal("the handshake does not end")
	return nil, nil
}

// passwordKey is acip.PasswordKey, once per password: it is slow on purpose.
func passwordKey(s string) (*acip.Key, error) {
	if k, ok := passwords.Load(s); ok {
		return k.(*acip.Key), nil
	}
	k, err := acip.PasswordKey(s)
	passwords.Store(s, k)
	return k, err
}

var passwords sync.Map

var transports = []acip.Transport{acip.WebSocket, acip.TCP}

// R25: the C programs ignore password, key and allow-list on a WebSocket. One
// table of who gets in, for both transports.
func TestR25_SameAuthenticationOnEveryTransport(t *testing.T) {
	mia, leo, host, other := identity(t, 1), identity(t, 2), identity(t, 3), identity(t, 4)
	good, err := passwordKey(password)
	if err != nil {
		t.Fatal(err)
	}
	bad, err := passwordKey("another-password")
	if err != nil {
		t.Fatal(err)
	}
	list := acip.NewAllowList(mia.Public())
	hostKey, otherKey := host.Public(), other.Public()
	for _, c := range []struct {
		name    string
		client  acip.ClientConfig
		server  acip.ServerConfig
		want    string // part of the client's error; empty: connected
		serverR acip.Rule
	}{
		{"open", acip.ClientConfig{}, acip.ServerConfig{}, "", ""},
		{"password", acip.ClientConfig{Password: good}, acip.ServerConfig{Password: good}, "", ""},
		{"wrong password", acip.ClientConfig{Password: bad}, acip.ServerConfig{Password: good}, "wrong password", acip.RulePassword},
		{"no password", acip.ClientConfig{}, acip.ServerConfig{Password: good}, "asks for a password", ""},
		{"password that nobody asks for", acip.ClientConfig{Password: good}, acip.ServerConfig{}, "has not proved", ""},
		{"the same, allowed", acip.ClientConfig{Password: good, AllowUnproven: true}, acip.ServerConfig{}, "", ""},
		{"client key", acip.ClientConfig{Identity: mia}, acip.ServerConfig{Clients: list}, "", ""},
		{"client key, server identity", acip.ClientConfig{Identity: mia}, acip.ServerConfig{Clients: list, Identity: host}, "", ""},
		{"stranger", acip.ClientConfig{Identity: leo}, acip.ServerConfig{Clients: list}, "not on the list", acip.RuleIdentity},
		{"no client key", acip.ClientConfig{}, acip.ServerConfig{Clients: list}, "asks for a client key", ""},
		{"key that nobody asks for", acip.ClientConfig{Identity: leo}, acip.ServerConfig{}, "", ""},
		{"password and key", acip.ClientConfig{Identity: mia, Password: good}, acip.ServerConfig{Clients: list, Password: good}, "", ""},
		{"password right, key wrong", acip.ClientConfig{Identity: leo, Password: good}, acip.ServerConfig{Clients: list, Password: good}, "not on the list", acip.RuleIdentity},
		{"key right, password wrong", acip.ClientConfig{Identity: mia, Password: bad}, acip.ServerConfig{Clients: list, Password: good}, "wrong password", acip.RulePassword},
		{"server key", acip.ClientConfig{ServerKey: &hostKey}, acip.ServerConfig{Identity: host}, "", ""},
		{"wrong server key", acip.ClientConfig{ServerKey: &otherKey}, acip.ServerConfig{Identity: host}, "expected SHA256:", ""},
		{"server without key", acip.ClientConfig{ServerKey: &hostKey}, acip.ServerConfig{}, "shows no identity", ""},
	} {
		for _, tr := range transports {
			t.Run(c.name+" "+tr.String(), func(t *testing.T) {
				client, server := newEnd(t, acip.NewClient(tr, c.client)), newEnd(t, acip.NewServer(tr, c.server))
				ce, se := meet(t, client, server)
				if c.want == "" {
					if ce != nil || se != nil || !client.ready || !server.ready {
						t.Fatalf("client %v %v, server %v %v", client.ready, ce, server.ready, se)
					}
					ck, _ := client.Key()
					sk, _ := server.Key()
					if ck != sk || ck == (acip.Key{}) {
						t.Fatal("the ends have different keys")
					}
					if id := c.client.Identity; id != nil && c.server.Clients != nil {
						if got, ok := server.Machine.(*acip.Server).Client(); !ok || got != id.Public() {
							t.Fatalf("the server knows the client as %v %v", got, ok)
						}
					}
					return
				}
				// A server without demands is content before the client has judged it.
				demands := c.server.Password != nil || c.server.Clients != nil
				if client.ready || server.ready && demands {
					t.Fatalf("client %v, server %v: somebody thinks that the session stands", client.ready, server.ready)
				}
				if ce == nil || !strings.Contains(ce.Error(), c.want) {
					t.Fatalf("the client says %v, want %q", ce, c.want)
				}
				var v *acip.Violation
				if c.serverR != "" && (!errors.As(se, &v) || v.Rule != c.serverR) {
					t.Fatalf("the server says %v, want rule %s", se, c.serverR)
				}
			})
		}
	}
}

// A server that does not know the password, but pretends to, is found out.
func TestServerMustProveThePassword(t *testing.T) {
	good, err := passwordKey(password)
	if err != nil {
		t.Fatal(err)
	}
	client := newEnd(t, acip.NewClient(acip.WebSocket, acip.ClientConfig{Password: good}))
	server := newEnd(t, acip.NewServer(acip.WebSocket, acip.ServerConfig{}))
	client.Start(t0)
	resp, err := client.take(server.wire(server.Start(t0))...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := server.take(resp...); err != nil {
		t.Fatal(err)
	}
	if _, err = client.take(acip.Packet{Type: acip.TypeAuthChallenge, Payload: acip.AuthChallenge{Flags: acip.ChallengePassword}.AppendTo(nil)}); err != nil {
		t.Fatal(err)
	}
	_, err = client.take(acip.Packet{Type: acip.TypeServerAuthResp, Payload: make([]byte, 32)})
	var v *acip.Violation
	if !errors.As(err, &v) || v.Rule != acip.RuleServerProof || client.ready {
		t.Fatalf("%v, established %v", err, client.ready)
	}
}

// recorded returns one side's packets of a session of the C programs, the
// outermost layer as it travelled.
func recorded(t *testing.T, name string, fromServer bool) (list []acip.Packet) {
	t.Helper()
	f, err := os.Open("testdata/captures/" + name + ".pcap")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for e, err := range decode.Read(f, nil) {
		if err != nil || e.Err != nil {
			t.Fatal(err, e.Err)
		}
		if e.End == "" && e.FromServer == fromServer {
			e.Packet.Payload = bytes.Clone(e.Packet.Payload)
			list = append(list, e.Packet)
		}
	}
	return list
}

// Our server, given the private key that the C server drew, answers the C
// client's packets and understands all of them.
func TestServerAnswersTheRecordedClient(t *testing.T) {
	const (
		tcpKey  = "ea4c43d9a937df3ed911376747f598c77e01b62da779967c6fb42cac3168da38"
		passKey = "ba7d19912dd3895115fb8444fe531afd900e8467b832f2a250d73fb314601356"
	)
	good, err := passwordKey(password)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, key string
		tr        acip.Transport
		cfg       acip.ServerConfig
		random    string
		answers   string
		packets   string
	}{
		{"ws-encrypted-snapshot", wsKey, acip.WebSocket, acip.ServerConfig{Strict: true}, "",
			"CRYPTO_PARAMETERS CRYPTO_KEY_EXCHANGE_INIT CRYPTO_HANDSHAKE_COMPLETE ENCRYPTED",
			"CLIENT_CAPABILITIES STREAM_START" + strings.Repeat(" IMAGE_FRAME", 8)},
		{"tcp-encrypted-start", tcpKey, acip.TCP, acip.ServerConfig{Strict: true}, "",
			"PROTOCOL_VERSION CRYPTO_PARAMETERS CRYPTO_KEY_EXCHANGE_INIT CRYPTO_HANDSHAKE_COMPLETE",
			"CLIENT_CAPABILITIES STREAM_START IMAGE_FRAME"},
		{"tcp-password-start", passKey, acip.TCP, acip.ServerConfig{Strict: true, Password: good},
			"de475e4be2a005e70b14e16fef202a690cc0305f628cd12454b85188b009c565",
			"PROTOCOL_VERSION CRYPTO_PARAMETERS CRYPTO_KEY_EXCHANGE_INIT CRYPTO_AUTH_CHALLENGE CRYPTO_SERVER_AUTH_RESP",
			"CLIENT_CAPABILITIES STREAM_START IMAGE_FRAME"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := acip.NewServer(c.tr, c.cfg.Fixed(append(unhex(t, c.random), make([]byte, 64)...)))
			s := newEnd(t, m)
			isWS := c.tr == acip.WebSocket
			if isWS {
				m.SetEphemeral(unhex(t, wsServerKey))
			}
			out := s.wire(s.Start(t0))
			for _, p := range recorded(t, c.name, false) {
				if p.Type == acip.TypeAuthResponse {
					m.SetKey(acip.Key(unhex(t, c.key)))
				}
				a, err := s.take(p)
				if err != nil {
					t.Fatalf("%s: %v", p.Type, err)
				}
				out = append(out, a...)
				// The C server's key is known in one recording only; elsewhere the
				// session key is.
				if p.Type == acip.TypeKeyExchangeResp && !isWS {
					m.SetKey(acip.Key(unhex(t, c.key)))
				}
			}
			if k, _ := s.Key(); k != acip.Key(unhex(t, c.key)) {
				t.Error("another session key")
			}
			if got := names(out); got != c.answers {
				t.Errorf("answers\n%s, want\n%s", got, c.answers)
			}
			if got := names(s.events); got != c.packets {
				t.Errorf("packets\n%s, want\n%s", got, c.packets)
			}
			// What the C server sent at the same points is ours to the byte, its
			// random parts given.
			var theirs []acip.Packet
			for _, p := range recorded(t, c.name, true) {
				if p.Type != acip.TypeServerState && p.Type != acip.TypeEncrypted {
					theirs = append(theirs, p)
				}
			}
			for i, p := range theirs {
				if out[i].Type != p.Type {
					t.Fatalf("answer %d is %s, theirs %s", i, out[i].Type, p.Type)
				}
				if p.Type == acip.TypeKeyExchangeInit && !isWS {
					continue
				}
				if !bytes.Equal(out[i].Payload, p.Payload) {
					t.Errorf("%s\n%x, theirs\n%x", p.Type, out[i].Payload, p.Payload)
				}
			}
		})
	}
}

// Our client understands everything that the C server sent.
func TestClientTakesTheRecordedServer(t *testing.T) {
	good, err := passwordKey(password)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, key string
		tr        acip.Transport
		cfg       acip.ClientConfig
		nonce     string
		frames    int
	}{
		{"ws-encrypted-snapshot", wsKey, acip.WebSocket, acip.ClientConfig{}, "", 10},
		{"tcp-encrypted-start", "ea4c43d9a937df3ed911376747f598c77e01b62da779967c6fb42cac3168da38", acip.TCP, acip.ClientConfig{}, "", 0},
		{"tcp-password-start", "ba7d19912dd3895115fb8444fe531afd900e8467b832f2a250d73fb314601356", acip.TCP, acip.ClientConfig{Password: good},
			"681c2c2d64eef78a765db3d74d4806c02574c23b9fdde12d2f7dfebe17707026", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := acip.NewClient(c.tr, c.cfg.Fixed(append(unhex(t, c.nonce), make([]byte, 64)...)))
			e := newEnd(t, m)
			sent := e.wire(e.Start(t0))
			for _, p := range recorded(t, c.name, true) {
				out, err := e.take(p)
				if err != nil {
					t.Fatalf("%s: %v", p.Type, err)
				}
				sent = append(sent, out...)
				if p.Type == acip.TypeKeyExchangeInit {
					m.SetKey(acip.Key(unhex(t, c.key)))
				}
			}
			if !e.ready {
				t.Fatal("not established")
			}
			theirs := recorded(t, c.name, false)
			for i, p := range sent {
				if p.Type != theirs[i].Type || len(p.Payload) != len(theirs[i].Payload) {
					t.Fatalf("packet %d is %s of %d bytes; the C client's is %s of %d", i, p.Type, len(p.Payload), theirs[i].Type, len(theirs[i].Payload))
				}
				if p.Type != acip.TypeKeyExchangeResp && !bytes.Equal(p.Payload, theirs[i].Payload) {
					t.Errorf("%s\n%x, theirs\n%x", p.Type, p.Payload, theirs[i].Payload)
				}
			}
			if got := strings.Count(names(e.events), "ASCII_FRAME"); got < c.frames {
				t.Errorf("%d frames, want %d", got, c.frames)
			}
		})
	}
}

// The recorded client without a usable signature is refused as the C server
// refused it; the unencrypted one and the one that asks for a server key first
// are told, or served.
func TestServerAndTheFailedRecordings(t *testing.T) {
	in := recorded(t, "tcp-clientkey", false)
	kex, err := acip.ParseKeyExchange(acip.TypeKeyExchangeResp, in[2].Payload)
	if err != nil {
		t.Fatal(err)
	}
	s := newEnd(t, acip.NewServer(acip.TCP, acip.ServerConfig{Clients: acip.NewAllowList(acip.PublicKey(kex.Identity))}))
	s.Start(t0)
	_, err = s.take(in...)
	var v *acip.Violation
	if !errors.As(err, &v) || v.Failed != acip.FailedKeyRejected || v.Type != acip.TypeAuthResponse {
		t.Errorf("the empty signature: %v", err)
	}

	s = newEnd(t, acip.NewServer(acip.TCP, acip.ServerConfig{}))
	s.Start(t0)
	_, err = s.take(recorded(t, "tcp-noenc-raw", false)...)
	if !errors.As(err, &v) || v.Rule != acip.RuleMode || !strings.Contains(err.Error(), "--no-encrypt") {
		t.Errorf("the client without encryption: %v", err)
	}

	s = newEnd(t, acip.NewServer(acip.TCP, acip.ServerConfig{Identity: identity(t, 1)}))
	s.Start(t0)
	hello := recorded(t, "tcp-serverkey", false)
	if names(hello) != "PROTOCOL_VERSION CRYPTO_CAPABILITIES CRYPTO_CLIENT_HELLO" {
		t.Fatal(names(hello))
	}
	out, err := s.take(hello...)
	if err != nil || names(out) != "PROTOCOL_VERSION CRYPTO_PARAMETERS CRYPTO_KEY_EXCHANGE_INIT" {
		t.Errorf("the client that names the server's key: %s %v", names(out), err)
	}
	theirs := recorded(t, "tcp-serverkey", true)
	if !bytes.Equal(out[1].Payload, theirs[1].Payload) {
		t.Errorf("parameters with identity\n%x, theirs\n%x", out[1].Payload, theirs[1].Payload)
	}
	if _, err := s.take(hello[2]); err == nil {
		t.Error("a second CLIENT_HELLO is taken")
	}
}

// pair returns two ends with a session.
func pair(t *testing.T, tr acip.Transport, cc acip.ClientConfig, sc acip.ServerConfig) (client, server *end) {
	t.Helper()
	client, server = newEnd(t, acip.NewClient(tr, cc)), newEnd(t, acip.NewServer(tr, sc))
	if ce, se := meet(t, client, server); ce != nil || se != nil {
		t.Fatal(ce, se)
	}
	return client, server
}

func capabilities() acip.Packet {
	c := acip.Capabilities{Flags: 0x1f, Level: acip.TrueColor, Width: 80, Height: 24, Palette: 1, FPS: 60}
	return acip.Packet{Type: acip.TypeCapabilities, Payload: c.AppendTo(nil)}
}

// R16: duplicate CRYPTO_PARAMETERS confused the C client. Every handshake
// packet is accepted once, in its place, and nowhere else: all packets at all
// points of both handshakes.
func TestR16_TheHandshakeIsStrict(t *testing.T) {
	good, err := passwordKey(password)
	if err != nil {
		t.Fatal(err)
	}
	all := []acip.Type{1, 1000, 1100, 1101, 1102, 1103, 1104, 1105, 1106, 1107, 1108, 1109, 1200, 1201, 1202, 1203}
	for _, tr := range transports {
		// One good run, recorded packet by packet.
		client, server := newEnd(t, acip.NewClient(tr, acip.ClientConfig{Password: good})), newEnd(t, acip.NewServer(tr, acip.ServerConfig{Password: good}))
		var toServer, toClient []acip.Packet
		a, b := client.wire(client.Start(t0)), server.wire(server.Start(t0))
		for len(a)+len(b) > 0 {
			toServer, toClient = append(toServer, a...), append(toClient, b...)
			x, err := client.take(b...)
			if err != nil {
				t.Fatal(err)
			}
			y, err := server.take(a...)
			if err != nil {
				t.Fatal(err)
			}
			a, b = x, y
		}
		for at := 0; at <= len(toClient); at++ {
			for _, typ := range all {
				// A client that has come this far gets one packet of each type.
				m := acip.NewClient(tr, acip.ClientConfig{Password: good, Strict: true})
				e := newEnd(t, m)
				e.Start(t0)
				for _, p := range toClient[:at] {
					if _, err := e.take(p); err != nil {
						// Only the server's proof depends on what this client drew.
						if p.Type != acip.TypeServerAuthResp {
							t.Fatal(err)
						}
					}
				}
				p := sample(typ, toClient)
				_, err := e.take(p)
				expected := at < len(toClient) && toClient[at].Type == typ && typ != acip.TypeServerAuthResp
				refusal := typ == acip.TypeAuthFailed && at >= len(toClient)-2
				early := at == len(toClient)-2 && typ == acip.TypeHandshakeComplete // refused for the password
				if (err == nil) != expected {
					t.Errorf("%s client, %d packets into the handshake, %s: %v", tr, at, typ, err)
				}
				var v *acip.Violation
				if !expected && !refusal && !early && typ != acip.TypeServerAuthResp && (!errors.As(err, &v) || v.Type != typ) {
					t.Errorf("%s client, %d packets in, %s: not a violation: %v", tr, at, typ, err)
				}
			}
		}
		for at := 0; at < len(toServer); at++ {
			for _, typ := range all {
				e := newEnd(t, acip.NewServer(tr, acip.ServerConfig{Password: good, Strict: true}))
				e.Start(t0)
				if _, err := e.take(toServer[:at]...); err != nil {
					t.Fatal(err)
				}
				_, err := e.take(sample(typ, toServer))
				expected := toServer[at].Type == typ && typ != acip.TypeAuthResponse // the proof is for another challenge
				hello := typ == acip.TypeClientHello && tr == acip.TCP && at == 2
				if (err == nil) != (expected || hello) {
					t.Errorf("%s server, %d packets into the handshake, %s: %v", tr, at, typ, err)
				}
			}
		}
	}
}

// sample returns a well-formed packet of type t, from the run if it had one.
func sample(t acip.Type, run []acip.Packet) acip.Packet {
	for _, p := range run {
		if p.Type == t {
			return p
		}
	}
	for _, c := range codecs() {
		if c.t == t {
			b, _ := decodeHex(c.bytes)
			return acip.Packet{Type: t, Payload: b}
		}
	}
	size := map[acip.Type]int{1000: 32, 1106: 8, 1107: 32, 1200: 62, 1201: 32, 1202: 32, 1203: 1}[t]
	return acip.Packet{Type: t, Payload: make([]byte, size)}
}

// R14: frames before CLIENT_CAPABILITIES crashed the C server.
func TestR14_NoPictureBeforeCapabilities(t *testing.T) {
	for _, tr := range transports {
		client, server := pair(t, tr, acip.ClientConfig{}, acip.ServerConfig{})
		img := (&acip.ImageFrame{Width: 2, Height: 2, Format: 1, Pixels: make([]byte, 12)}).AppendTo(nil)
		_, err := server.take(client.seal(acip.Packet{Type: acip.TypeImageFrame, Payload: img}))
		var v *acip.Violation
		if !errors.As(err, &v) || v.Rule != acip.RuleOrder {
			t.Errorf("%s: %v", tr, err)
		}
		client, server = pair(t, tr, acip.ClientConfig{}, acip.ServerConfig{})
		if _, err := server.take(client.seal(capabilities()), client.seal(acip.Packet{Type: acip.TypeImageFrame, Payload: img})); err != nil {
			t.Errorf("%s, in order: %v", tr, err)
		}
		if got := names(server.events); got != "CLIENT_CAPABILITIES IMAGE_FRAME" {
			t.Errorf("%s: %s", tr, got)
		}
	}
}

// R15: capabilities that were sent before the handshake was over got lost. The
// client says nothing of its own before, and the server keeps what came early
// for the moment when the session stands.
func TestR15_EarlyPacketsAreKeptOrRefused(t *testing.T) {
	start := acip.Packet{Type: acip.TypeStreamStart, Payload: []byte{0, 0, 0, 3}}
	client, server := newEnd(t, acip.NewClient(acip.WebSocket, acip.ClientConfig{})), newEnd(t, acip.NewServer(acip.WebSocket, acip.ServerConfig{}))
	client.Start(t0)
	server.wire(server.Start(t0))
	if _, err := server.take(capabilities(), start); err != nil {
		t.Fatal(err)
	}
	if len(server.events) != 0 {
		t.Fatal("early packets count before the session stands")
	}
	if _, err := server.take(start); err == nil {
		t.Error("an early packet is taken twice")
	}
	server = newEnd(t, acip.NewServer(acip.WebSocket, acip.ServerConfig{}))
	offer := server.wire(server.Start(t0))
	if _, err := server.take(capabilities(), start); err != nil {
		t.Fatal(err)
	}
	resp, err := client.take(offer...)
	if err != nil || names(resp) != "CRYPTO_KEY_EXCHANGE_RESP" {
		t.Fatalf("the client says %s before the session stands (%v)", names(resp), err)
	}
	if _, err := server.take(resp...); err != nil {
		t.Fatal(err)
	}
	if got := names(server.events); got != "CLIENT_CAPABILITIES STREAM_START" {
		t.Fatalf("after the handshake: %q", got)
	}

	for name, s := range map[string]*end{
		"strict": newEnd(t, acip.NewServer(acip.WebSocket, acip.ServerConfig{Strict: true})),
		"tcp":    newEnd(t, acip.NewServer(acip.TCP, acip.ServerConfig{})),
	} {
		s.Start(t0)
		if _, err := s.take(capabilities()); err == nil {
			t.Errorf("%s: early capabilities are taken", name)
		}
	}
}

// Browsers send two packets in the clear after the handshake. Those pass on a
// WebSocket, unless strict; nothing else does anywhere.
func TestPlaintextAfterTheHandshake(t *testing.T) {
	start := acip.Packet{Type: acip.TypeStreamStart, Payload: []byte{0, 0, 0, 1}}
	img := acip.Packet{Type: acip.TypeImageFrame, Payload: (&acip.ImageFrame{Width: 2, Height: 2, Format: 3, Pixels: make([]byte, 12)}).AppendTo(nil)}
	ping := acip.Packet{Type: acip.TypePing}
	leave := acip.Packet{Type: acip.TypeLeave}
	for _, c := range []struct {
		tr     acip.Transport
		strict bool
		p      acip.Packet
		ok     bool
	}{
		{acip.WebSocket, false, capabilities(), true}, {acip.WebSocket, false, start, true},
		{acip.WebSocket, false, img, false}, {acip.WebSocket, false, ping, false}, {acip.WebSocket, false, leave, false},
		{acip.WebSocket, true, capabilities(), false}, {acip.WebSocket, true, start, false},
		{acip.TCP, false, capabilities(), false}, {acip.TCP, false, start, false}, {acip.TCP, false, img, false},
	} {
		client, server := pair(t, c.tr, acip.ClientConfig{}, acip.ServerConfig{Strict: c.strict})
		if _, err := server.take(client.seal(capabilities())); err != nil {
			t.Fatal(err)
		}
		if _, err := server.take(c.p); (err == nil) != c.ok {
			t.Errorf("%s strict=%v %s: %v", c.tr, c.strict, c.p.Type, err)
		}
	}
	for _, c := range []struct {
		strict bool
		p      acip.Packet
		ok     bool
	}{
		{false, acip.Packet{Type: acip.TypeServerState, Payload: acip.State{}.AppendTo(nil)}, true},
		{false, acip.Packet{Type: acip.TypeError, Payload: acip.ErrorMessage{Code: 44, Message: "no"}.AppendTo(nil)}, true},
		{false, acip.Packet{Type: acip.TypeASCIIFrame, Payload: (&acip.ASCIIFrame{Width: 1, Height: 1, Text: []byte("x")}).AppendTo(nil)}, false},
		{false, acip.Packet{Type: acip.TypeClearConsole}, false},
		{true, acip.Packet{Type: acip.TypeServerState, Payload: acip.State{}.AppendTo(nil)}, false},
	} {
		client, _ := pair(t, acip.WebSocket, acip.ClientConfig{Strict: c.strict}, acip.ServerConfig{})
		if _, err := client.take(c.p); (err == nil) != c.ok {
			t.Errorf("client strict=%v %s: %v", c.strict, c.p.Type, err)
		}
	}
}

// A client that refuses the server says so in the clear: that is the reason why
// the session ends, at any point and on every transport.
func TestAClientMaySayWhyItRefuses(t *testing.T) {
	no := acip.Packet{Type: acip.TypeError, Payload: acip.ErrorMessage{Code: acip.CodeCrypto, Message: "not the key I know"}.AppendTo(nil)}
	for _, tr := range transports {
		for _, strict := range []bool{false, true} {
			early := newEnd(t, acip.NewServer(tr, acip.ServerConfig{Strict: strict}))
			early.Start(t0)
			_, late := pair(t, tr, acip.ClientConfig{}, acip.ServerConfig{Strict: strict})
			for when, server := range map[string]*end{"before": early, "after": late} {
				_, err := server.take(no)
				var r *acip.RemoteError
				if !errors.As(err, &r) || r.Code != acip.CodeCrypto || r.Message != "not the key I know" {
					t.Errorf("%s, strict %v, %s the handshake: %v", tr, strict, when, err)
				}
			}
		}
	}
}

// SERVER_STATE in the clear before and during the handshake is what every C
// server sends.
func TestServerStateAtAnyPoint(t *testing.T) {
	state := acip.Packet{Type: acip.TypeServerState, Payload: acip.State{Connected: 1}.AppendTo(nil)}
	for _, tr := range transports {
		client, server := newEnd(t, acip.NewClient(tr, acip.ClientConfig{})), newEnd(t, acip.NewServer(tr, acip.ServerConfig{}))
		a, b := client.wire(client.Start(t0)), server.wire(server.Start(t0))
		for len(a)+len(b) > 0 {
			var err error
			with := []acip.Packet{state}
			for _, p := range b {
				with = append(with, p, state, state)
			}
			sent := a
			if a, err = client.take(with...); err != nil {
				t.Fatal(err)
			}
			if b, err = server.take(sent...); err != nil {
				t.Fatal(err)
			}
		}
		if !client.ready {
			t.Fatalf("%s: not established", tr)
		}
	}
}

// What the C programs and the browser get wrong, and what a strict end says to
// it. The comments are the defects by their number in the protocol's list.
func TestDefectsAreToleratedUnlessStrict(t *testing.T) {
	caps := parsedCapabilities()
	caps.Filter = 0xcd
	opus := acip.OpusBatch{Rate: 48000, FrameMS: 20, Frames: [][]byte{{0xf8, 0xff, 0xfe}}}
	wrapped := acip.OpusBatch{Rate: 48000, FrameMS: 20, Frames: [][]byte{opus.AppendTo(nil)}}
	img := acip.ImageFrame{Width: 2, Height: 1, Format: acip.PixelRGB24Browser, Pixels: make([]byte, 6)}
	tall := acip.ASCIIFrame{Width: 80, Height: 24, Text: []byte(strings.Repeat("x\n", 29) + "x")}
	state := acip.Packet{Type: acip.TypeServerState, Payload: acip.State{}.AppendTo(nil)}
	for _, c := range []struct {
		name     string
		toClient bool
		clear    bool
		p        acip.Packet
	}{
		{"1: SERVER_STATE in the clear", true, true, state},
		{"2: a colour filter that was never set", false, false, acip.Packet{Type: acip.TypeCapabilities, Payload: caps.AppendTo(nil)}},
		{"4: a client id in the header, to the client", true, false, acip.Packet{Type: acip.TypeOpusBatch, Client: 0x5c77bff7, Payload: opus.AppendTo(nil)}},
		{"4: the same, to the server", false, false, acip.Packet{Type: acip.TypeOpusBatch, Client: 0x5c77bff7, Payload: opus.AppendTo(nil)}},
		{"5: capabilities in the clear", false, true, capabilities()},
		{"6: ERROR_MESSAGE in the clear", true, true, acip.Packet{Type: acip.TypeError, Payload: acip.ErrorMessage{Code: 44, Message: "no"}.AppendTo(nil)}},
		{"7: a frame taller than the terminal", true, false, acip.Packet{Type: acip.TypeASCIIFrame, Payload: tall.AppendTo(nil)}},
		{"8: a batch in a batch", true, false, acip.Packet{Type: acip.TypeOpusBatch, Payload: wrapped.AppendTo(nil)}},
		{"11: pixel format 3", false, false, acip.Packet{Type: acip.TypeImageFrame, Payload: img.AppendTo(nil)}},
		{"REMOTE_LOG in the clear", true, true, acip.Packet{Type: acip.TypeRemoteLog, Payload: acip.RemoteLog{Level: acip.LogInfo, Direction: acip.LogToClient, Message: "x"}.AppendTo(nil)}},
		{"a request to rekey", false, true, sample(acip.TypeRekeyRequest, nil)},
	} {
		for _, strict := range []bool{false, true} {
			client, server := pair(t, acip.WebSocket, acip.ClientConfig{Strict: strict}, acip.ServerConfig{Strict: strict})
			if _, err := server.take(client.seal(capabilities())); err != nil {
				t.Fatalf("%s: strict refuses what is right: %v", c.name, err)
			}
			from, to := client, server
			if c.toClient {
				from, to = server, client
			}
			p := c.p
			if !c.clear {
				p = from.seal(p)
			}
			_, err := to.take(p)
			var v *acip.Violation
			if strict && !errors.As(err, &v) || !strict && err != nil {
				t.Errorf("%s, strict %v: %v", c.name, strict, err)
			}
		}
	}
	// 1 again, before there is a session; and what a server without a key may say.
	for _, strict := range []bool{false, true} {
		client := newEnd(t, acip.NewClient(acip.WebSocket, acip.ClientConfig{Strict: strict}))
		client.Start(t0)
		if _, err := client.take(state); (err != nil) != strict {
			t.Errorf("SERVER_STATE before the handshake, strict %v: %v", strict, err)
		}
		_, err := client.take(acip.Packet{Type: acip.TypeError, Payload: acip.ErrorMessage{Code: 48, Message: "full"}.AppendTo(nil)})
		var r *acip.RemoteError
		if !errors.As(err, &r) {
			t.Errorf("a refusal, strict %v: %v", strict, err)
		}
	}
}

// parsedCapabilities returns the values of capabilities().
func parsedCapabilities() acip.Capabilities {
	c, err := acip.ParseCapabilities(capabilities().Payload)
	if err != nil {
		panic(err)
	}
	return c
}

// A rekey request is plaintext without any proof of its sender. Agreeing to
// one would let anybody in between take the session over.
func TestRekeyIsNotAgreedTo(t *testing.T) {
	client, server := pair(t, acip.TCP, acip.ClientConfig{}, acip.ServerConfig{})
	before, _ := server.Key()
	for _, typ := range []acip.Type{acip.TypeRekeyRequest, acip.TypeRekeyResponse, acip.TypeRekeyComplete} {
		out, err := server.take(sample(typ, nil))
		if err != nil || len(out) != 0 {
			t.Errorf("%s is answered with %s, %v", typ, names(out), err)
		}
	}
	if after, _ := server.Key(); after != before {
		t.Error("the key has changed")
	}
	if _, err := server.take(client.seal(capabilities())); err != nil {
		t.Errorf("the session does not go on: %v", err)
	}
}

func TestSessionViolations(t *testing.T) {
	for _, c := range []struct {
		name string
		p    acip.Packet
		rule acip.Rule
		code acip.ErrorCode
	}{
		{"unknown type", acip.Packet{Type: 4711}, acip.RuleUnknown, acip.CodeUnknown},
		{"a packet of servers", acip.Packet{Type: acip.TypeClearConsole}, acip.RuleDirection, acip.CodeProtocol},
		{"log that goes the other way", acip.Packet{Type: acip.TypeRemoteLog, Payload: acip.RemoteLog{Direction: acip.LogToClient}.AppendTo(nil)}, acip.RuleDirection, acip.CodeProtocol},
		{"stream mask", acip.Packet{Type: acip.TypeStreamStart, Payload: []byte{0, 0, 0, 8}}, acip.RuleValue, acip.CodeProtocol},
		{"empty name", acip.Packet{Type: acip.TypeJoin, Payload: acip.Join{Flags: 1}.AppendTo(nil)}, acip.RuleValue, acip.CodeProtocol},
		{"audio that lies", acip.Packet{Type: acip.TypeAudioBatch, Payload: unhex(t, "00000001 00000002 0000bb80 00000001 00000000")}, acip.RuleLength, acip.CodeProtocol},
	} {
		client, server := pair(t, acip.WebSocket, acip.ClientConfig{}, acip.ServerConfig{})
		_, err := server.take(client.seal(c.p))
		var v *acip.Violation
		if !errors.As(err, &v) || v.Rule != c.rule || v.Code != c.code {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// R28: the C server never notices a dead client by itself. Ours has a deadline
// that any byte moves, and the client pings.
func TestR28_DeadlinesOfAServer(t *testing.T) {
	s := newEnd(t, acip.NewServer(acip.TCP, acip.ServerConfig{}))
	s.Start(t0)
	if d := s.Deadline(); d != t0.Add(acip.HandshakeTimeout) {
		t.Errorf("the handshake may take until %v", d.Sub(t0))
	}
	if _, err := s.Tick(t0.Add(acip.HandshakeTimeout)); err == nil {
		t.Error("a client that says nothing is kept")
	}

	client, server := pair(t, acip.TCP, acip.ClientConfig{}, acip.ServerConfig{})
	if _, err := server.take(client.seal(capabilities())); err != nil {
		t.Fatal(err)
	}
	if d := server.Deadline().Sub(t0); d < 60*time.Second {
		t.Errorf("a client that never pinged has %v; at least a minute", d)
	}
	out, err := server.take(client.seal(acip.Packet{Type: acip.TypePing}))
	if err != nil || len(out) != 1 {
		t.Fatal(names(out), err)
	}
	if d := server.Deadline(); d != t0.Add(acip.SilenceTimeout) {
		t.Errorf("a client that pings has %v", d.Sub(t0))
	}
	server.Touch(t0.Add(9 * time.Second)) // a part of a large picture
	if _, err := server.Tick(t0.Add(10 * time.Second)); err != nil {
		t.Errorf("a client in the middle of a packet is dropped: %v", err)
	}
	_, err = server.Tick(t0.Add(19 * time.Second))
	var v *acip.Violation
	if !errors.As(err, &v) || v.Rule != acip.RuleTimeout {
		t.Errorf("ten silent seconds: %v", err)
	}
}

func TestClientPingsAndNotices(t *testing.T) {
	client, server := pair(t, acip.WebSocket, acip.ClientConfig{}, acip.ServerConfig{})
	var pings int
	for s := range 10 {
		now := t0.Add(time.Duration(s) * time.Second)
		if d := client.Deadline(); d.After(now) {
			t.Fatalf("nothing due at %v", now.Sub(t0))
		}
		outs, err := client.Tick(now)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range client.wire(outs) {
			pings++
			pong, err := server.take(p)
			if err != nil {
				t.Fatal(err)
			}
			if s == 3 { // one pong comes back, 40 ms later
				client.now = now.Add(40 * time.Millisecond)
				if _, err := client.take(pong...); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if pings != 10 {
		t.Errorf("%d pings in ten seconds", pings)
	}
	// The pings of seconds 0 to 2 were lost; the answer counts from the first.
	if rtt := client.Machine.(*acip.Client).RTT(); rtt != 3040*time.Millisecond {
		t.Errorf("round trip %v", rtt)
	}
	if _, err := client.Tick(client.now.Add(acip.SilenceTimeout)); err == nil {
		t.Error("a dead server is not noticed")
	}
}

// FuzzServer sends a server anything, in a session and before it.
func FuzzServer(f *testing.F) {
	for _, p := range []acip.Packet{capabilities(), {Type: acip.TypePing}, {Type: 4711, Payload: []byte("x")}} {
		f.Add(uint16(p.Type), p.Payload, true, true)
		f.Add(uint16(p.Type), p.Payload, false, false)
	}
	f.Fuzz(func(t *testing.T, typ uint16, payload []byte, seal, tcp bool) {
		tr := acip.WebSocket
		if tcp {
			tr = acip.TCP
		}
		client, server := pair(t, tr, acip.ClientConfig{}, acip.ServerConfig{})
		p := acip.Packet{Type: acip.Type(typ), Payload: payload}
		if p.Type == acip.TypeEncrypted && len(payload) < 62 || len(payload) > 1<<16 {
			return // the reassembler stops these
		}
		for _, to := range []*end{server, client} {
			from := client
			if to == client {
				from = server
			}
			q := p
			if seal {
				q = from.seal(p)
			}
			out, err := to.take(q)
			if err != nil && len(out) > 0 {
				t.Fatal("an answer to what was refused")
			}
			if len(out) > 1 {
				t.Fatalf("%d answers to one packet", len(out))
			}
		}
	})
}
