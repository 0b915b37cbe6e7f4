package acip_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/weft-ws/weft/acip"
)

// identity returns a fixed identity, one per number.
func identity(t testing.TB, n byte) *acip.Identity {
	t.Helper()
	seed := [ed25519.SeedSize]byte{n, 'w', 'e', 'f', 't'}
	return acip.NewIdentity(ed25519.NewKeyFromSeed(seed[:]))
}

// writeKey writes an OpenSSH private key file.
func writeKey(t testing.TB, k any, passphrase string, mode os.FileMode) string {
	t.Helper()
	var block *pem.Block
	var err error
	if passphrase == "" {
		block, err = ssh.MarshalPrivateKey(k, "test")
	} else {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(k, "test", []byte(passphrase))
	}
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "id")
	if err := os.WriteFile(path, pem.EncodeToMemory(block), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadIdentity(t *testing.T) {
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	want := acip.PublicKey(pub)
	id, err := acip.LoadIdentity(writeKey(t, priv, "", 0o600), nil)
	if err != nil || id.Public() != want {
		t.Fatalf("%v %v", id, err)
	}
	locked := writeKey(t, priv, "open sesame", 0o600)
	id, err = acip.LoadIdentity(locked, func() ([]byte, error) { return []byte("open sesame"), nil })
	if err != nil || id.Public() != want {
		t.Fatalf("with a passphrase: %v %v", id, err)
	}
	if _, err := acip.LoadIdentity(locked, nil); err == nil || !strings.Contains(err.Error(), "passphrase") {
		t.Errorf("nobody to ask: %v", err)
	}
	if _, err := acip.LoadIdentity(locked, func() ([]byte, error) { return []byte("no"), nil }); err == nil {
		t.Error("a wrong passphrase opens the key")
	}
	if _, err := acip.LoadIdentity(writeKey(t, priv, "", 0o644), nil); err == nil || !strings.Contains(err.Error(), "0600") {
		t.Errorf("a key that others can read: %v", err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := acip.LoadIdentity(writeKey(t, ec, "", 0o600), nil); err == nil || !strings.Contains(err.Error(), "ssh-keygen") {
		t.Errorf("an ECDSA key: %v", err)
	}
}

func TestAllowList(t *testing.T) {
	a, b := identity(t, 1).Public(), identity(t, 2).Public()
	path := filepath.Join(t.TempDir(), "clients")
	write := func(s string) {
		if err := os.WriteFile(path, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# friends\n\n" + a.AuthorizedKey() + " mia@laptop\n" + hex.EncodeToString(b[:]) + "\n")
	l, err := acip.LoadAllowList(path)
	if err != nil || l.Len() != 2 || !l.Has(a) || !l.Has(b) || l.Has(identity(t, 3).Public()) {
		t.Fatalf("%v %v", l, err)
	}
	write(a.AuthorizedKey() + "\nssh-ed25519 nonsense\n")
	if _, err := acip.LoadAllowList(path); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("a broken line: %v", err)
	}
}

func TestKnownHosts(t *testing.T) {
	a, b := identity(t, 1).Public(), identity(t, 2).Public()
	path := filepath.Join(t.TempDir(), "sub", "known_hosts")
	h := acip.NewKnownHosts(path)
	added := 0
	h.Added = func(addr string, k acip.PublicKey) {
		added++
		if addr != "127.0.0.1:27226" || k != a {
			t.Errorf("added %s %s", addr, k)
		}
	}
	if err := h.Check("127.0.0.1:27226", nil); err != nil || added != 0 {
		t.Fatalf("an unknown server without identity: %v", err)
	}
	for range 2 {
		if err := h.Check("127.0.0.1:27226", &a); err != nil {
			t.Fatal(err)
		}
	}
	if added != 1 {
		t.Fatalf("added %d times", added)
	}
	var e *acip.HostKeyError
	if err := h.Check("127.0.0.1:27226", &b); !errors.As(err, &e) || e.Want != a || e.Got != b || e.Line != 1 || e.None {
		t.Errorf("a changed identity: %v", err)
	}
	if err := h.Check("127.0.0.1:27226", nil); !errors.As(err, &e) || !e.None {
		t.Errorf("an identity that is gone: %v", err)
	}
	h.Added = nil
	if err := h.Check("127.0.0.1:27224", &b); err != nil {
		t.Errorf("another port is another server: %v", err)
	}
	file, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(file), "[127.0.0.1]:27226 ssh-ed25519 ") {
		t.Errorf("the file is not in OpenSSH's form: %s %v", file, err)
	}
}
