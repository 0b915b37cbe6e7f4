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

// An AuthError is a refusal of an [Authenticator] with an answer of its own.
// Any other error is answered 401 with error="invalid_token" (RFC 6750, 3.1).
type AuthError struct {
	Status     int           // of HTTP; 0: 401
	Code       string        // error of the challenge, RFC 6750, 3.1; "": none
	Reason     string        // for the client; it must not help to guess
	RetryAfter time.Duration // rounded up to seconds; 0: not said
}

// Error is the reason.
func (e *AuthError) Error() string { return e.Reason }

// Values of AuthError.Code.
const (
	codeInvalidToken      = "invalid_token"
	codeInsufficientScope = "insufficient_scope"
)

// ErrNoCredential is a request without any credential. RFC 6750, 3.1: "If the
// request lacks any authentication information [...], the resource server
// SHOULD NOT include an error code".
var ErrNoCredential error = &AuthError{Reason: "a token is needed: send it as \"Authorization: Bearer TOKEN\", or in a browser as subprotocol \"mcp.auth.TOKEN\" or a one-time ticket"}

// errBadCredential is a credential that is not known, or no longer.
var errBadCredential error = &AuthError{Code: codeInvalidToken, Reason: "the token or ticket is not valid"}

// errTokenInURL is a token where it ends up in logs and histories.
var errTokenInURL error = &AuthError{Code: codeInvalidToken, Reason: "a token must not stand in a URL; exchange it for a one-time ticket"}

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
	ident   Identity
	expires time.Time
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
	return t.TicketFor(Identity{Principal: principal}, life)
}

// TicketFor returns a ticket that lets its bearer in once within life, as
// ident: a session that begins with it ends when ident expires.
func (t *Tokens) TicketFor(ident Identity, life time.Duration) (string, error) {
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
	t.tickets[sha256.Sum256([]byte(s))] = ticket{ident, now.Add(life)}
	return s, nil
}

// redeem uses a ticket up.
func (t *Tokens) redeem(s string) (Identity, bool) {
	sum := sha256.Sum256([]byte(s))
	t.mu.Lock()
	defer t.mu.Unlock()
	// The key is a hash of 256 random bits: a lookup tells no more than the
	// comparison of hashes would.
	k, ok := t.tickets[sum]
	delete(t.tickets, sum)
	return k.ident, ok && !t.now().After(k.expires)
}

// Authenticate accepts a token of the places that [Credential] knows, or a
// ticket in the query of the URL. A token in the URL is refused with a hint:
// URLs end up in logs and histories.
func (t *Tokens) Authenticate(r *http.Request, offered []string) (Identity, error) {
	return (&Credentials{Tokens: t}).Authenticate(r, offered)
}

// Credentials are the kinds of credential that a gateway takes. What is nil is
// not taken. The methods may be called from any goroutine; the fields must not
// change any more by then.
type Credentials struct {
	Tokens       *Tokens       // long-lived tokens and one-time tickets
	OIDC         *OIDC         // tokens of an issuer
	Certificates *Certificates // certificates of clients
}

// Authenticate looks at the client's certificate, its ticket and its token, as
// far as they are taken. A token that is not valid is never made up for by a
// certificate. Where both are needed the principal is the token's, and the
// session ends with whichever ends first.
func (c *Credentials) Authenticate(r *http.Request, offered []string) (Identity, error) {
	if c.Certificates == nil {
		return c.token(r, offered)
	}
	cert, certErr := c.Certificates.identify(r)
	if certErr != nil && !(c.Certificates.Instead && errors.Is(certErr, errNoCertificate)) {
		return Identity{}, certErr
	}
	ident, err := c.token(r, offered)
	switch {
	case certErr != nil: // none, and none is needed
		return ident, err
	case c.Certificates.Instead && errors.Is(err, ErrNoCredential):
		return cert, nil
	case err != nil:
		return Identity{}, err
	}
	if ident.Expires.IsZero() || cert.Expires.Before(ident.Expires) {
		ident.Expires = cert.Expires
	}
	return ident, nil
}

func (c *Credentials) token(r *http.Request, offered []string) (Identity, error) {
	q := r.URL.Query()
	if s := q.Get("ticket"); s != "" {
		if c.Tokens != nil {
			if ident, ok := c.Tokens.redeem(s); ok {
				return ident, nil
			}
		}
		return Identity{}, errBadCredential
	}
	if q.Has("token") || q.Has("access_token") {
		return Identity{}, errTokenInURL
	}
	token := Credential(r, offered)
	if token == "" {
		return Identity{}, ErrNoCredential
	}
	if c.Tokens != nil {
		if p, ok := c.Tokens.Verify(token); ok {
			return Identity{Principal: p}, nil
		}
	}
	if c.OIDC != nil {
		return c.OIDC.verify(r, token)
	}
	return Identity{}, errBadCredential
}

// TicketFor is that of Tokens. The error says so if there are none.
func (c *Credentials) TicketFor(ident Identity, life time.Duration) (string, error) {
	if c.Tokens == nil {
		return "", errors.New("this gateway gives out no tickets")
	}
	return c.Tokens.TicketFor(ident, life)
}

// Admins returns what lets in those who may administer the gateway: the bearers
// of long-lived tokens. A ticket does not do, nor does a token of an issuer,
// which anybody there may be given.
func (c *Credentials) Admins() Authenticator { return admins{c.Tokens} }

type admins struct{ tokens *Tokens }

func (a admins) Authenticate(r *http.Request, offered []string) (Identity, error) {
	token := Credential(r, offered)
	if token == "" {
		return Identity{}, ErrNoCredential
	}
	if a.tokens != nil {
		if p, ok := a.tokens.Verify(token); ok {
			return Identity{Principal: p}, nil
		}
	}
	return Identity{}, &AuthError{Code: codeInvalidToken, Reason: "this needs one of the gateway's own long-lived tokens"}
}

// Certificates authenticates by client certificates that TLS has verified.
type Certificates struct {
	// Instead lets a certificate stand instead of a token: its bearer is the
	// principal "cert:NAME", and clients without one need a token. Otherwise
	// every client needs both, and is the principal of its token.
	Instead bool
	// Name says which name of the certificate is NAME.
	Name CertificateName
}

// A CertificateName is one of the names in a certificate; of several of its
// kind it is the first.
type CertificateName string

// The names that can stand for the bearer of a certificate.
const (
	CommonName CertificateName = "common_name" // of the subject
	DNSName    CertificateName = "dns"         // subject alternative names
	EmailName  CertificateName = "email"
	URIName    CertificateName = "uri" // for instance a SPIFFE ID
)

var errNoCertificate error = &AuthError{Reason: "a client certificate is needed: connect over wss with one of an authority that this server knows"}

// identify returns whose certificate the request came with. It ends with the
// certificate.
func (c *Certificates) identify(r *http.Request) (Identity, error) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return Identity{}, errNoCertificate
	}
	leaf := r.TLS.VerifiedChains[0][0]
	ident := Identity{Expires: leaf.NotAfter}
	if !c.Instead {
		return ident, nil
	}
	name := ""
	switch {
	case c.Name == CommonName || c.Name == "":
		name = leaf.Subject.CommonName
	case c.Name == DNSName && len(leaf.DNSNames) > 0:
		name = leaf.DNSNames[0]
	case c.Name == EmailName && len(leaf.EmailAddresses) > 0:
		name = leaf.EmailAddresses[0]
	case c.Name == URIName && len(leaf.URIs) > 0:
		name = leaf.URIs[0].String()
	}
	if name == "" {
		return Identity{}, &AuthError{Status: http.StatusForbidden, Reason: "the client certificate has no " + string(c.Name) + ", which is what clients are told apart by here"}
	}
	// A token's principal can have any name that the configuration gives it; an
	// authority for certificates must not be able to take it.
	ident.Principal = "cert:" + name
	return ident, nil
}
