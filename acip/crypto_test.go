package acip_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"golang.org/x/crypto/nacl/secretbox"

	"github.com/weft-ws/weft/acip"
)

// Messages of a session of the C programs, sealed and opened.
func TestSealedBytes(t *testing.T) {
	key := acip.Key(unhex(t, wsKey))
	for _, c := range []struct {
		name, id string
		counter  uint64
		p        acip.Packet
		want     string
	}{
		{"stream start", "a714d477460ef31057c99bf0f071c5da", 2, acip.Packet{Type: acip.TypeStreamStart, Payload: []byte{0, 0, 0, 3}},
			"0000000a5c11c4a104b0000000425575833800000000a714d477460ef31057c99bf0f071c5da0000000000000002e5140e2fa5d2ed68628cb190c44eb51689ebf2715e1ef88191dea273add1709595d3a4143dc30fb5c037"},
		{"clear console", "21741cf68e5bebe0fd3e584d5c4a97a5", 4, acip.Packet{Type: acip.TypeClearConsole},
			"0000000a5c11c4a104b00000003e9418a45f0000000021741cf68e5bebe0fd3e584d5c4a97a500000000000000043af6565dce7a0468f49b78e56cf07799d34d08fb82d24416550ecc86fc46fd0996d4411ac0d7"},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := unhex(t, c.want)
			s := acip.SealerWith(key, [16]byte(unhex(t, c.id)), c.counter-1)
			got, err := s.Seal([]byte("before"), c.p)
			if err != nil || !bytes.Equal(got[6:], want) || string(got[:6]) != "before" {
				t.Fatalf("sealed\n%x, want\n%x (%v)", got, want, err)
			}
			outer, _, err := acip.Parse(want)
			if err != nil {
				t.Fatal(err)
			}
			p, err := acip.NewOpener(key, [16]byte{}).Open(outer.Payload)
			if err != nil || p.Type != c.p.Type || !bytes.Equal(p.Payload, c.p.Payload) {
				t.Fatalf("opened %v: %v", p, err)
			}
		})
	}
}

func TestPasswordVectors(t *testing.T) {
	k, err := acip.PasswordKey(password)
	if err != nil {
		t.Fatal(err)
	}
	if want := acip.Key(unhex(t, "c6bceb7eceaf8b34edb071ffbdc4f671dd6fa3fa3e8d28ac1efb1a1004e9c751")); *k != want {
		t.Fatal("Argon2id gives another key")
	}
	session := acip.Key(unhex(t, "ba7d19912dd3895115fb8444fe531afd900e8467b832f2a250d73fb314601356"))
	challenge := [32]byte(unhex(t, "de475e4be2a005e70b14e16fef202a690cc0305f628cd12454b85188b009c565"))
	nonce := [32]byte(unhex(t, "681c2c2d64eef78a765db3d74d4806c02574c23b9fdde12d2f7dfebe17707026"))
	if got := acip.Proof(k, session, challenge); !bytes.Equal(got[:], unhex(t, "d1689f2bd854a790db75ee05532bd2a64bdfcb96296f04a53d47121bce06c4a4")) {
		t.Errorf("the client's HMAC is %x", got)
	}
	if got := acip.Proof(k, session, nonce); !bytes.Equal(got[:], unhex(t, "2d01a2fbd0945e142fce14c0f12cb5bc6cc6595922d77655a6943a931338d695")) {
		t.Errorf("the server's HMAC is %x", got)
	}
	for _, bad := range []string{"", "1234567", strings.Repeat("x", 257), "\xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8"} {
		if _, err := acip.PasswordKey(bad); err == nil {
			t.Errorf("password of %d bytes %q is taken", len(bad), bad[:min(8, len(bad))])
		}
	}
}

// open returns the payload of a sealed packet.
func open(t testing.TB, b []byte) []byte {
	t.Helper()
	p, n, err := acip.Parse(b)
	if err != nil || n != len(b) || p.Type != acip.TypeEncrypted {
		t.Fatalf("%v %d %v", p.Type, n, err)
	}
	return p.Payload
}

// The C programs check neither session id nor order. Here a packet opens once,
// in order, and in one direction.
func TestReplayIsRefused(t *testing.T) {
	key := acip.Key{1, 2, 3}
	s, err := acip.NewSealer(key, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var wire [][]byte
	for range 4 {
		b, err := s.Seal(nil, acip.Packet{Type: acip.TypePing})
		if err != nil {
			t.Fatal(err)
		}
		wire = append(wire, open(t, b))
	}
	rule := func(err error) acip.Rule {
		var v *acip.Violation
		if errors.As(err, &v) {
			return v.Rule
		}
		return ""
	}
	o := acip.NewOpener(key, [16]byte{9})
	for _, i := range []int{0, 2} { // a gap is fine: stale frames are dropped
		if _, err := o.Open(wire[i]); err != nil {
			t.Fatal(err)
		}
	}
	for _, i := range []int{2, 1, 0} {
		if _, err := o.Open(wire[i]); rule(err) != acip.RuleReplay {
			t.Errorf("packet %d a second time or late: %v", i, err)
		}
	}
	if _, err := o.Open(wire[3]); err != nil {
		t.Errorf("a refused packet spoils the next: %v", err)
	}
	if _, err := acip.NewOpener(key, s.SessionID()).Open(wire[0]); rule(err) != acip.RuleReplay {
		t.Errorf("our own packet, sent back: %v", err)
	}
	other, err := acip.NewSealer(key, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b, err := other.Seal(nil, acip.Packet{Type: acip.TypePing})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.Open(open(t, b)); rule(err) != acip.RuleReplay {
		t.Errorf("another session id: %v", err)
	}
	if _, err := acip.NewOpener(acip.Key{4}, [16]byte{}).Open(wire[0]); rule(err) != acip.RuleSeal {
		t.Errorf("another key: %v", err)
	}
	for i := range wire[0] {
		bad := bytes.Clone(wire[0])
		bad[i] ^= 0x40
		if _, err := acip.NewOpener(key, [16]byte{}).Open(bad); err == nil {
			t.Fatalf("byte %d may be changed", i)
		}
	}
}

func TestNothingUnfitTravelsInABox(t *testing.T) {
	key := acip.Key{7}
	s, err := acip.NewSealer(key, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []acip.Packet{
		{Type: acip.TypeHandshakeComplete},
		{Type: acip.TypeRekeyRequest, Payload: make([]byte, 32)},
		{Type: acip.TypeEncrypted, Payload: make([]byte, 80)},
		{Type: acip.TypePing, Payload: []byte{1}},
	} {
		b, err := s.Seal(nil, p)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := acip.NewOpener(key, [16]byte{}).Open(open(t, b)); err == nil {
			t.Errorf("%s with %d bytes came out of a box", p.Type, len(p.Payload))
		}
	}
	if _, err := s.Seal(nil, acip.Packet{Type: acip.TypeImageFrame, Payload: make([]byte, acip.SealedMax)}); err == nil {
		t.Error("a packet of more than a MiB is sealed")
	}
}

// R27: the C programs log private keys and session secrets. Keys have no
// textual form here.
func TestR27_KeysHaveNoTextualForm(t *testing.T) {
	key := acip.Key(unhex(t, wsKey))
	id := identity(t, 1)
	var log strings.Builder
	l := slog.New(slog.NewTextHandler(&log, nil))
	l.Info("session", "key", key, "pointer", &key, "identity", id)
	j := slog.New(slog.NewJSONHandler(&log, nil))
	j.Info("session", "key", key, "identity", id)
	for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%X", "%s", "%q", "%d"} {
		fmt.Fprintf(&log, verb+" "+verb+" ", key, id)
		fmt.Fprintf(&log, verb+" ", struct{ K acip.Key }{key})
	}
	for _, secret := range []string{wsKey, strings.ToUpper(wsKey), "22 207 111", "0x16, 0xcf", "[22,207"} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("%s is in the output", secret)
		}
	}
	if !strings.Contains(log.String(), "secret") || !strings.Contains(log.String(), "SHA256:") {
		t.Error("nothing was logged")
	}
}

func frame230KB() acip.Packet {
	f := acip.ImageFrame{Width: 320, Height: 240, Format: 1, Pixels: make([]byte, 3*320*240)}
	for i := range f.Pixels {
		f.Pixels[i] = byte(i * i >> 5)
	}
	return acip.Packet{Type: acip.TypeImageFrame, Payload: f.AppendTo(nil)}
}

// Sealing and opening a frame of 230 KB allocates nothing once the buffers
// have grown.
func TestNoAllocationPerFrame(t *testing.T) {
	key, p := acip.Key{1}, frame230KB()
	s, err := acip.NewSealer(key, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	o := acip.NewOpener(key, [16]byte{})
	var wire []byte
	var r acip.Reassembler
	n := testing.AllocsPerRun(20, func() {
		if wire, err = s.Seal(wire[:0], p); err != nil {
			t.Fatal(err)
		}
		outer, _, ok, err := r.Next(wire)
		if !ok || err != nil {
			t.Fatal(ok, err)
		}
		if _, err := o.Open(outer.Payload); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Fatalf("%v allocations per frame", n)
	}
}

func BenchmarkEncode(b *testing.B) {
	p := frame230KB()
	var dst []byte
	b.SetBytes(int64(len(p.Payload)))
	b.ReportAllocs()
	for b.Loop() {
		dst = p.AppendTo(dst[:0])
	}
}

func BenchmarkDecode(b *testing.B) {
	wire := frame230KB().AppendTo(nil)
	b.SetBytes(int64(len(wire)))
	b.ReportAllocs()
	for b.Loop() {
		p, _, err := acip.Parse(wire)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := acip.ParseImageFrame(p.Payload); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSeal(b *testing.B) {
	p := frame230KB()
	s, err := acip.NewSealer(acip.Key{1}, rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	var dst []byte
	b.SetBytes(int64(len(p.Payload)))
	b.ReportAllocs()
	for b.Loop() {
		if dst, err = s.Seal(dst[:0], p); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	p := frame230KB()
	s, err := acip.NewSealer(acip.Key{1}, rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	wire, err := s.Seal(nil, p)
	if err != nil {
		b.Fatal(err)
	}
	payload := open(b, wire)
	b.SetBytes(int64(len(p.Payload)))
	b.ReportAllocs()
	// The same packet opens once per Opener, so each turn has its own with the
	// buffer of the last.
	o := acip.NewOpener(acip.Key{1}, [16]byte{})
	for b.Loop() {
		o.Rewind()
		if _, err := o.Open(payload); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSecretbox is the primitive alone, to compare Seal with.
func BenchmarkSecretbox(b *testing.B) {
	p := frame230KB().AppendTo(nil)
	var nonce [24]byte
	var key [32]byte
	var dst []byte
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		dst = secretbox.Seal(dst[:0], p, &nonce, &key)
	}
}
