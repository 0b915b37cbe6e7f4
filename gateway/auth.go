package gateway

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"
)

// An Identity is who a client has proved to be.
type Identity struct {
	// Principal names who it is, for limits, logs and the server behind. Two
	// clients with the same credential have the same Principal.
	Principal string
	// Expires ends the session with 1008; zero: never.
	Expires time.Time
}

// An Authenticator says who sent a request. offered are the subprotocols that
// the client offered, where browsers put credentials. The error is told to
// the client: it must not help to guess.
type Authenticator interface {
	Authenticate(r *http.Request, offered []string) (Identity, error)
}

// ErrNoCredential is a request without any credential.
var ErrNoCredential = errors.New("a token is needed: send it as \"Authorization: Bearer TOKEN\", or in a browser as subprotocol \"mcp.auth.TOKEN\" or a one-time ticket")

// errBadCredential is a credential that is not known, or no longer.
var errBadCredential = errors.New("the token or ticket is not valid")

// Anyone lets everybody in, as nobody in particular.
type Anyone struct{}

// Authenticate returns the empty Identity.
func (Anyone) Authenticate(*http.Request, []string) (Identity, error) { return Identity{}, nil }

// Credential finds the bearer token of an upgrade request: in the
// Authorization header, in the header that Claude Code sends to IDEs, or among
// the offered subprotocols as "mcp.auth.TOKEN" or as "bearer" followed by the
// token. None of these protocols is ever selected, so none is echoed.
func Credential(r *http.Request, offered []string) string {
	if scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "bearer") {
		return strings.TrimSpace(token)
	}
	if token := r.Header.Get("X-Claude-Code-Ide-Authorization"); token != "" {
		return token
	}
	for i, p := range offered {
		if token, ok := strings.CutPrefix(p, "mcp.auth."); ok {
			return token
		}
		if strings.EqualFold(p, "bearer") && i+1 < len(offered) {
			return offered[i+1]
		}
	}
	return ""
}

// Tokens authenticates by long-lived tokens and by one-time tickets that were
// given out for them. Only hashes are kept. All methods may be called from any
// goroutine.
type Tokens struct {
	mu      sync.Mutex
	tokens  map[string][sha256.Size]byte // by principal
	tickets map[[sha256.Size]byte]ticket
	now     func() time.Time
}

type ticket struct {
	principal string
	expires   time.Time
}

// TicketLife is how long a one-time ticket may wait for its use.
const TicketLife = 30 * time.Second

// ticketsMax bounds the tickets that wait for their use.
const ticketsMax = 10_000

// NewTokens returns an empty Tokens.
func NewTokens() *Tokens {
	return &Tokens{tokens: map[string][sha256.Size]byte{}, tickets: map[[sha256.Size]byte]ticket{}, now: time.Now}
}

// NewSecret returns 256 random bits as text that may stand in a header, in a
// subprotocol and in a URL.
func NewSecret() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// Add makes token the credential of principal, in the place of an earlier one.
func (t *Tokens) Add(principal, token string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tokens[principal] = sha256.Sum256([]byte(token))
}

// Verify returns whose token it is. Every known token is compared, each in
// constant time, so that time tells nothing.
func (t *Tokens) Verify(token string) (principal string, ok bool) {
	sum := sha256.Sum256([]byte(token))
	t.mu.Lock()
	defer t.mu.Unlock()
	for p, known := range t.tokens {
		if subtle.ConstantTimeCompare(sum[:], known[:]) == 1 {
			principal, ok = p, true
		}
	}
	return principal, ok
}

// Ticket returns a ticket that lets principal in once within life.
func (t *Tokens) Ticket(principal string, life time.Duration) (string, error) {
	s := NewSecret()
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	if len(t.tickets) >= ticketsMax {
		for k, old := range t.tickets {
			if now.After(old.expires) {
				delete(t.tickets, k)
			}
		}
		if len(t.tickets) >= ticketsMax {
			return "", errors.New("too many tickets wait for their use")
		}
	}
	t.tickets[sha256.Sum256([]byte(s))] = ticket{principal, now.Add(life)}
	return s, nil
}

// redeem uses a ticket up.
func (t *Tokens) redeem(s string) (string, bool) {
	sum := sha256.Sum256([]byte(s))
	t.mu.Lock()
	defer t.mu.Unlock()
	// The key is a hash of 256 random bits: a lookup tells no more than the
	// comparison of hashes would.
	k, ok := t.tickets[sum]
	delete(t.tickets, sum)
	return k.principal, ok && !t.now().After(k.expires)
}

// Authenticate accepts a token of the places that [Credential] knows, or a
// ticket in the query of the URL. A token in the URL is refused with a hint:
// URLs end up in logs and histories.
func (t *Tokens) Authenticate(r *http.Request, offered []string) (Identity, error) {
	q := r.URL.Query()
	if s := q.Get("ticket"); s != "" {
		if p, ok := t.redeem(s); ok {
			return Identity{Principal: p}, nil
		}
		return Identity{}, errBadCredential
	}
	if q.Has("token") {
		return Identity{}, errors.New("a token must not stand in a URL; exchange it for a one-time ticket")
	}
	token := Credential(r, offered)
	if token == "" {
		return Identity{}, ErrNoCredential
	}
	if p, ok := t.Verify(token); ok {
		return Identity{Principal: p}, nil
	}
	return Identity{}, errBadCredential
}
