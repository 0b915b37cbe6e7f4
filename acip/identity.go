package acip

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// A PublicKey is an Ed25519 public key, the long-term name of a peer.
type PublicKey [ed25519.PublicKeySize]byte

// String returns the fingerprint as OpenSSH prints it: "SHA256:…".
func (k PublicKey) String() string {
	s, err := k.ssh()
	if err != nil {
		return "invalid key"
	}
	return ssh.FingerprintSHA256(s)
}

func (k PublicKey) ssh() (ssh.PublicKey, error) { return ssh.NewPublicKey(ed25519.PublicKey(k[:])) }

// AuthorizedKey returns the key as a line of an OpenSSH public key file,
// without newline.
func (k PublicKey) AuthorizedKey() string {
	s, err := k.ssh()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(s)))
}

// ParsePublicKey decodes a line of an OpenSSH public key file ("ssh-ed25519
// AAAA… comment") or 64 hexadecimal digits. Other key types are an error.
func ParsePublicKey(line string) (PublicKey, error) {
	line = strings.TrimSpace(line)
	if b, err := hex.DecodeString(line); err == nil && len(b) == ed25519.PublicKeySize {
		return PublicKey(b), nil
	}
	k, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		return PublicKey{}, fmt.Errorf("acip: not an OpenSSH public key: %w", err)
	}
	c, ok := k.(ssh.CryptoPublicKey)
	if !ok {
		return PublicKey{}, fmt.Errorf("acip: a key of type %s; only ssh-ed25519 is used here", k.Type())
	}
	e, ok := c.CryptoPublicKey().(ed25519.PublicKey)
	if !ok {
		return PublicKey{}, fmt.Errorf("acip: a key of type %s; only ssh-ed25519 is used here", k.Type())
	}
	return PublicKey(e), nil
}

// An Identity is an Ed25519 key pair. It prints as its fingerprint.
type Identity struct {
	private ed25519.PrivateKey
	public  PublicKey
}

// NewIdentity returns the identity with the given private key.
func NewIdentity(k ed25519.PrivateKey) *Identity {
	return &Identity{k, PublicKey(k.Public().(ed25519.PublicKey))}
}

// Public returns the public half.
func (i *Identity) Public() PublicKey { return i.public }

// String returns the fingerprint of the public half.
func (i *Identity) String() string { return i.public.String() }

// Format prints the fingerprint, whatever the verb: the private half is not
// for output.
func (i *Identity) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, i.public.String()) }

func (i *Identity) sign(p []byte) (sig [64]byte) { return [64]byte(ed25519.Sign(i.private, p)) }

func (k PublicKey) verify(p []byte, sig [64]byte) bool {
	return ed25519.Verify(ed25519.PublicKey(k[:]), p, sig[:])
}

// keyFileMax bounds every key and list file that is read.
const keyFileMax = 1 << 20

// LoadIdentity reads an OpenSSH private key file that holds an Ed25519 key.
// passphrase is asked for only if the file is encrypted; nil means that it must
// not be. On systems with Unix permissions a file that others can read is an
// error, as it is for ssh.
func LoadIdentity(path string, passphrase func() ([]byte, error)) (*Identity, error) {
	b, err := readSmallFile(path)
	if err != nil {
		return nil, err
	}
	if runtime.GOOS != "windows" {
		if fi, err := os.Stat(path); err == nil && fi.Mode().Perm()&0o077 != 0 {
			return nil, fmt.Errorf("acip: %s can be read by others (mode %#o); make it 0600", path, fi.Mode().Perm())
		}
	}
	raw, err := ssh.ParseRawPrivateKey(b)
	var missing *ssh.PassphraseMissingError
	if errors.As(err, &missing) {
		if passphrase == nil {
			return nil, fmt.Errorf("acip: %s is protected by a passphrase and there is nobody to ask", path)
		}
		phrase, err := passphrase()
		if err != nil {
			return nil, err
		}
		raw, err = ssh.ParseRawPrivateKeyWithPassphrase(b, phrase)
		if err != nil {
			return nil, fmt.Errorf("acip: %s: %w", path, err)
		}
	} else if err != nil {
		return nil, fmt.Errorf("acip: %s: %w", path, err)
	}
	switch k := raw.(type) {
	case *ed25519.PrivateKey:
		return NewIdentity(*k), nil
	case ed25519.PrivateKey:
		return NewIdentity(k), nil
	}
	return nil, fmt.Errorf("acip: %s does not hold an Ed25519 key; ssh-keygen -t ed25519 makes one", path)
}

func readSmallFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, keyFileMax+1))
	if err == nil && len(b) > keyFileMax {
		err = fmt.Errorf("acip: %s is longer than %d bytes", path, keyFileMax)
	}
	return b, err
}

// An AllowList is the set of clients that a server admits. Read only after it
// was made; safe for concurrent use.
type AllowList struct{ keys map[PublicKey]bool }

// NewAllowList returns the list of the given keys.
func NewAllowList(keys ...PublicKey) *AllowList {
	l := &AllowList{keys: map[PublicKey]bool{}}
	for _, k := range keys {
		l.keys[k] = true
	}
	return l
}

// LoadAllowList reads a file of public keys, one per line, in the form of
// OpenSSH's authorized_keys. Empty lines and lines that begin with # are
// skipped; any other line that is not an Ed25519 key is an error that names it.
func LoadAllowList(path string) (*AllowList, error) {
	b, err := readSmallFile(path)
	if err != nil {
		return nil, err
	}
	l := NewAllowList()
	sc := bufio.NewScanner(bytes.NewReader(b))
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimSpace(sc.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		k, err := ParsePublicKey(line)
		if err != nil {
			return nil, fmt.Errorf("%s line %d: %w", path, n, err)
		}
		l.keys[k] = true
	}
	return l, sc.Err()
}

// Has reports whether k is on the list.
func (l *AllowList) Has(k PublicKey) bool { return l.keys[k] }

// Len returns the number of keys.
func (l *AllowList) Len() int { return len(l.keys) }

// KnownHosts remembers the identities of servers in a file in the form of
// OpenSSH's known_hosts: the first one seen at an address is trusted, a
// different one later is refused. Not safe for concurrent use.
type KnownHosts struct {
	path string
	// Added is called after an identity was recorded; may be nil.
	Added func(addr string, k PublicKey)
}

// NewKnownHosts uses the file at path, which need not exist yet.
func NewKnownHosts(path string) *KnownHosts { return &KnownHosts{path: path} }

// A HostKeyError is a server whose identity is not the one that is known.
type HostKeyError struct {
	Addr string
	Path string
	Line int       // of the known key
	Want PublicKey // the known key
	Got  PublicKey // zero if the server shows none
	// None says that the server shows no identity although one is known.
	None bool
}

// Error names the file and the line to look at.
func (e *HostKeyError) Error() string {
	if e.None {
		return fmt.Sprintf("the server at %s shows no identity, but %s line %d knows one", e.Addr, e.Path, e.Line)
	}
	return fmt.Sprintf("the server at %s has identity %s; %s line %d knows %s", e.Addr, e.Got, e.Path, e.Line, e.Want)
}

// Check compares the identity of the server at addr (host:port); nil means
// that it shows none. An unknown server with an identity is recorded, one
// without passes. An identity that has changed or is gone is a *HostKeyError.
func (h *KnownHosts) Check(addr string, k *PublicKey) error {
	probe := PublicKey{}
	if k != nil {
		probe = *k
	}
	got, err := probe.ssh()
	if err != nil {
		return err
	}
	known := error(&knownhosts.KeyError{})
	if _, err := os.Stat(h.path); err == nil {
		check, err := knownhosts.New(h.path)
		if err != nil {
			return fmt.Errorf("acip: %w", err)
		}
		known = check(addr, address(addr), got)
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	var ke *knownhosts.KeyError
	switch {
	case known == nil:
		return nil
	case !errors.As(known, &ke):
		return known
	case len(ke.Want) > 0:
		e := &HostKeyError{Addr: addr, Path: h.path, Line: ke.Want[0].Line, Got: probe, None: k == nil}
		if c, ok := ke.Want[0].Key.(ssh.CryptoPublicKey); ok {
			if w, ok := c.CryptoPublicKey().(ed25519.PublicKey); ok {
				e.Want = PublicKey(w)
			}
		}
		return e
	case k == nil:
		return nil
	}
	if err := h.add(addr, got); err != nil {
		return err
	}
	if h.Added != nil {
		h.Added(addr, *k)
	}
	return nil
}

func (h *KnownHosts) add(addr string, k ssh.PublicKey) error {
	if err := os.MkdirAll(filepath.Dir(h.path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(h.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, knownhosts.Line([]string{addr}, k))
	return errors.Join(err, f.Close())
}

// address makes a net.Addr of host:port, which package knownhosts asks for.
type address string

var _ net.Addr = address("")

func (address) Network() string  { return "tcp" }
func (a address) String() string { return string(a) }
