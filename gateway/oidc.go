package gateway

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
)

// OIDCOptions say which tokens of an OpenID Connect issuer are good.
type OIDCOptions struct {
	// Issuer is the "iss" of its tokens, and where its configuration is found:
	// at Issuer + "/.well-known/openid-configuration". https, unless it is on
	// this machine.
	Issuer string
	// Audience must be among the "aud" of a token: a token for another service
	// must not open this one (RFC 8725, 3.9).
	Audience string
	// Keys is the URL of the issuer's JSON Web Key Set, for issuers without
	// such a configuration. May be empty.
	Keys string
	// Algorithms of signatures. Empty: those that the issuer announces, RS256
	// if it announces none. Symmetric ones and "none" are never taken.
	Algorithms []string
	// Scopes that a token needs, all of them, in "scope" or "scp".
	Scopes []string
	// Claims that a token needs: a string, a number or a boolean that the claim
	// must be, or hold if it is an array. A name with dots that is not itself
	// that of a claim leads into objects: "realm_access.roles".
	Claims map[string]any

	Logger *slog.Logger     // nil: slog.Default()
	Now    func() time.Time // nil: time.Now

	// Transport fetches the configuration and the keys. Nil: one that keeps
	// no connections.
	Transport http.RoundTripper
}

// An OIDC verifies tokens of one issuer: JSON Web Tokens (RFC 7519) that are
// signed with a key that the issuer publishes. The principal of a token is
// ISSUER#SUBJECT, and its session ends when the token expires. All methods may
// be called from any goroutine.
type OIDC struct {
	o          OIDCOptions
	log        *slog.Logger
	now        func() time.Time
	configured *http.Client // for the issuer's configuration
	keyed      *fetcher     // for its keys

	turn chan struct{} // who holds it looks for the configuration
	mu   sync.Mutex
	keys *oidc.RemoteKeySet // nil: not found yet
	algs []string
	next time.Time // no earlier attempt to find them
	err  error     // of the last attempt
}

const (
	// fetchInterval is the least time between two requests for the same thing
	// to an issuer: tokens that nobody has signed must not become a flood there.
	fetchInterval = 10 * time.Second
	// fetchTimeout bounds one of them, fetchMax its answer.
	fetchTimeout = 10 * time.Second
	fetchMax     = 1 << 20
)

// asymmetric are the algorithms of signatures that a public key verifies.
var asymmetric = []string{oidc.RS256, oidc.RS384, oidc.RS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.PS256, oidc.PS384, oidc.PS512, oidc.EdDSA}

// A badSetting is a mistake in one setting of a table.
type badSetting struct{ key, what, remedy string }

func (e *badSetting) Error() string { return e.what + "; " + e.remedy }

// NewOIDC returns an OIDC. It does not look for the issuer yet.
func NewOIDC(o OIDCOptions) (*OIDC, error) {
	if o.Issuer == "" {
		return nil, &badSetting{"issuer", "there is no issuer", "give the URL that stands as \"iss\" in its tokens"}
	}
	if what := unsafeURL(o.Issuer); what != "" {
		return nil, &badSetting{"issuer", fmt.Sprintf("issuer %q %s", o.Issuer, what), "give the URL that stands as \"iss\" in its tokens"}
	}
	if o.Audience == "" {
		return nil, &badSetting{"audience", "there is no audience, so that a token for any other service would do here", "give the \"aud\" that the issuer puts into tokens for this gateway"}
	}
	if what := unsafeURL(o.Keys); o.Keys != "" && what != "" {
		return nil, &badSetting{"keys", fmt.Sprintf("keys %q %s", o.Keys, what), "give the URL of the issuer's key set, or leave it out to have it looked up"}
	}
	for _, a := range o.Algorithms {
		if !slices.Contains(asymmetric, a) {
			return nil, &badSetting{"algorithms", fmt.Sprintf("algorithm %q is none that a published key verifies", a), "choose from " + strings.Join(asymmetric, ", ")}
		}
	}
	for _, s := range o.Scopes {
		if s == "" || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }) {
			return nil, &badSetting{"scopes", fmt.Sprintf("%q is not a scope", s), "write each as an element of its own: scopes = [\"read\", \"write\"]"}
		}
	}
	for name, v := range o.Claims {
		switch v.(type) {
		case string, bool, int64, float64:
		default:
			return nil, &badSetting{"claims", fmt.Sprintf("claim %q is neither a text, a number nor true or false", name), "write the one value that it must be or hold; for a claim inside another use a name with a dot"}
		}
	}
	v := &OIDC{o: o, log: o.Logger, now: o.Now, turn: make(chan struct{}, 1)}
	if v.log == nil {
		v.log = slog.Default()
	}
	if v.now == nil {
		v.now = time.Now
	}
	base := o.Transport
	if base == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.DisableKeepAlives = true // a request in hours
		base = t
	}
	v.configured = v.client(&fetcher{base: base, now: v.now})
	v.keyed = &fetcher{base: base, now: v.now, interval: fetchInterval, failed: func(err error) {
		v.log.Error("the keys of the issuer of tokens cannot be fetched; tokens with a key that is not known yet are answered 503", "issuer", o.Issuer, "err", err, "next_attempt_after", fetchInterval)
	}}
	return v, nil
}

func (v *OIDC) client(f *fetcher) *http.Client {
	return &http.Client{Transport: f, Timeout: fetchTimeout, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if what := unsafeURL(r.URL.String()); what != "" {
			return errors.New("a redirect to a URL that " + what)
		}
		if len(via) >= 5 {
			return errors.New("more than 5 redirects")
		}
		return nil
	}}
}

// unsafeURL says what is wrong with the URL of an issuer, "" if nothing is.
// Keys that come in the clear may be anybody's.
func unsafeURL(s string) string {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "":
		return "is not a URL"
	case u.Scheme == "https":
	case u.Scheme != "http":
		return "is not an https URL"
	case u.Hostname() != "localhost":
		if ip, err := netip.ParseAddr(u.Hostname()); err != nil || !ip.IsLoopback() {
			return "is not an https URL"
		}
	}
	if u.Fragment != "" || u.User != nil {
		return "has a fragment or a user name in it"
	}
	return ""
}

// Issuer is where tokens come from.
func (v *OIDC) Issuer() string { return v.o.Issuer }

// Audience is what tokens have to be for.
func (v *OIDC) Audience() string { return v.o.Audience }

// Find looks up where the issuer's keys are, unless that is known. A gateway
// need not call it: the first token does. It tells at the start whether the
// issuer can be reached.
func (v *OIDC) Find(ctx context.Context) error {
	_, _, err := v.find(ctx)
	return err
}

func (v *OIDC) find(ctx context.Context) (*oidc.RemoteKeySet, []string, error) {
	if keys, algs, err := v.found(); keys != nil || err != nil {
		return keys, algs, err
	}
	select {
	case v.turn <- struct{}{}:
		defer func() { <-v.turn }()
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	if keys, algs, err := v.found(); keys != nil || err != nil {
		return keys, algs, err
	}
	// A client that goes away must not spoil the attempt for the others.
	url, algs, err := v.discover(oidc.ClientContext(context.WithoutCancel(ctx), v.configured))
	v.mu.Lock()
	defer v.mu.Unlock()
	if err != nil {
		v.err = fmt.Errorf("issuer %s: %w", v.o.Issuer, err)
		v.next = v.now().Add(fetchInterval)
		v.log.Error("the issuer of tokens cannot be used; its tokens are answered 503, other credentials are good as ever", "err", v.err, "next_attempt_after", fetchInterval)
		return nil, nil, v.err
	}
	v.keys = oidc.NewRemoteKeySet(oidc.ClientContext(context.Background(), v.client(v.keyed)), url)
	v.algs, v.err = algs, nil
	v.log.Info("found the issuer of tokens", "issuer", v.o.Issuer, "keys", url, "algorithms", algs)
	return v.keys, v.algs, nil
}

// found is what is known, or why it cannot be yet.
func (v *OIDC) found() (*oidc.RemoteKeySet, []string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.keys == nil && v.err != nil && v.now().Before(v.next) {
		return nil, nil, v.err
	}
	return v.keys, v.algs, nil
}

// discover asks the issuer where its keys are and what it signs with.
func (v *OIDC) discover(ctx context.Context) (keys string, algs []string, err error) {
	if v.o.Keys != "" {
		return v.o.Keys, v.o.Algorithms, nil
	}
	p, err := oidc.NewProvider(ctx, v.o.Issuer)
	var wrong *oidc.IssuerMismatchError
	switch {
	case errors.As(err, &wrong):
		return "", nil, fmt.Errorf("it calls itself %q; write it like that, to the letter", wrong.Discovered)
	case err != nil:
		return "", nil, err
	}
	var doc struct {
		Keys string   `json:"jwks_uri"`
		Algs []string `json:"id_token_signing_alg_values_supported"`
	}
	if err := p.Claims(&doc); err != nil {
		return "", nil, err
	}
	if what := unsafeURL(doc.Keys); what != "" {
		return "", nil, fmt.Errorf("its jwks_uri %q %s", doc.Keys, what)
	}
	if algs = v.o.Algorithms; len(algs) == 0 {
		algs = slices.DeleteFunc(doc.Algs, func(a string) bool { return !slices.Contains(asymmetric, a) })
	}
	return doc.Keys, algs, nil
}

// errFetched is a request for keys that are too fresh to have changed.
var errFetched = errors.New("the keys have been fetched a moment ago")

// A fetcher makes the requests to an issuer: answers are bounded and read to
// their end, anything but success and redirects is an error, and within
// interval of one request there is no second.
type fetcher struct {
	base     http.RoundTripper
	now      func() time.Time
	interval time.Duration
	failed   func(error)

	mu   sync.Mutex
	next time.Time
	err  error // of the last request
}

// A fetchError is an answer of an issuer that is of no use.
type fetchError struct{ error }

// RoundTrip implements http.RoundTripper.
func (f *fetcher) RoundTrip(r *http.Request) (*http.Response, error) {
	first := r.Response == nil // not after a redirect
	if first && f.interval > 0 {
		f.mu.Lock()
		early, err := f.now().Before(f.next), f.err
		if !early {
			f.next = f.now().Add(f.interval)
			f.err = fetchError{errors.New("the issuer is being asked for its keys")}
		}
		f.mu.Unlock()
		switch {
		case early && err != nil:
			return nil, err
		case early:
			return nil, errFetched
		}
	}
	resp, err := f.fetch(r)
	if f.interval > 0 {
		f.mu.Lock()
		f.err = err
		f.mu.Unlock()
		if err != nil {
			f.failed(err)
		}
	}
	return resp, err
}

func (f *fetcher) fetch(r *http.Request) (*http.Response, error) {
	resp, err := f.base.RoundTrip(r)
	if err != nil {
		return nil, fetchError{err}
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, fetchMax+1))
	resp.Body.Close()
	redirect := resp.StatusCode >= 300 && resp.StatusCode < 400
	switch {
	case err != nil:
		return nil, fetchError{err}
	case len(body) > fetchMax:
		return nil, fetchError{fmt.Errorf("the answer has more than %d bytes", fetchMax)}
	case resp.StatusCode != http.StatusOK && !redirect:
		return nil, fetchError{fmt.Errorf("the answer is HTTP %d", resp.StatusCode)}
	case !redirect && !json.Valid(body):
		return nil, fetchError{errors.New("the answer is not JSON")}
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

// A verification remembers what became of the signature, which the errors of
// the library do not tell.
type verification struct {
	keys    *oidc.RemoteKeySet
	asked   bool
	payload []byte
	err     error
}

// VerifySignature implements oidc.KeySet.
func (s *verification) VerifySignature(ctx context.Context, jwt string) ([]byte, error) {
	s.asked = true
	s.payload, s.err = s.keys.VerifySignature(ctx, jwt)
	return s.payload, s.err
}

// verify returns whose token it is.
func (v *OIDC) verify(r *http.Request, token string) (Identity, error) {
	if strings.Count(token, ".") != 2 {
		return Identity{}, errBadCredential // no JWT (RFC 7515, 7.1), so nothing to say about it
	}
	keys, algs, err := v.find(r.Context())
	if err != nil {
		return Identity{}, v.unreachable()
	}
	s := &verification{keys: keys}
	// Every check is the library's: algorithm, signature, issuer, audience,
	// expiry, not before (with five minutes of leeway).
	config := &oidc.Config{ClientID: v.o.Audience, SupportedSigningAlgs: algs, Now: v.now}
	t, err := oidc.NewVerifier(v.o.Issuer, s, config).Verify(r.Context(), token)
	if err != nil {
		return Identity{}, v.refuse(s, algs, err)
	}
	var claims map[string]any
	if err := t.Claims(&claims); err != nil || t.Subject == "" {
		return Identity{}, invalidToken("the token does not say whose it is: it has no \"sub\"")
	}
	if err := v.bound(r, claims["cnf"]); err != nil {
		return Identity{}, err
	}
	if missing := lacking(v.o.Scopes, claims); len(missing) > 0 {
		return Identity{}, &AuthError{Status: http.StatusForbidden, Code: codeInsufficientScope,
			Reason: "the token lacks scope " + strings.Join(missing, " ") + "; ask the issuer for a token with it"}
	}
	for name, want := range v.o.Claims {
		if !holds(claim(claims, name), want) {
			return Identity{}, &AuthError{Status: http.StatusForbidden, Code: codeInsufficientScope,
				Reason: fmt.Sprintf("claim %q of the token is not what this gateway asks for; the issuer decides on it", name)}
		}
	}
	// An issuer has no fragment, so the first # ends it.
	return Identity{Principal: v.o.Issuer + "#" + t.Subject, Expires: t.Expiry}, nil
}

func invalidToken(format string, args ...any) error {
	return &AuthError{Code: codeInvalidToken, Reason: fmt.Sprintf(format, args...)}
}

// unreachable is the answer as long as the issuer's keys are not to be had.
func (v *OIDC) unreachable() error {
	return &AuthError{Status: http.StatusServiceUnavailable, RetryAfter: fetchInterval,
		Reason: "the token cannot be checked at the moment, because its issuer cannot be reached; try again later"}
}

// refuse says why a token is not good. What it says about the content of a
// token it says of tokens with a good signature only.
func (v *OIDC) refuse(s *verification, algs []string, err error) error {
	if len(algs) == 0 {
		algs = []string{oidc.RS256}
	}
	if !s.asked {
		return invalidToken("the token is not a JWT signed with %s", strings.Join(algs, " or "))
	}
	if s.err != nil {
		var failed fetchError
		if errors.As(s.err, &failed) || errors.Is(s.err, context.Canceled) || errors.Is(s.err, context.DeadlineExceeded) {
			return v.unreachable()
		}
		return invalidToken("the token is not signed with a key of %s", v.o.Issuer)
	}
	var expired *oidc.TokenExpiredError
	if errors.As(err, &expired) {
		return invalidToken("the token has expired; get a new one from %s", v.o.Issuer)
	}
	var c struct {
		Issuer   string          `json:"iss"`
		Audience json.RawMessage `json:"aud"`
	}
	if json.Unmarshal(s.payload, &c) != nil {
		return invalidToken("the token's claims cannot be read")
	}
	var one string
	var many []string
	if json.Unmarshal(c.Audience, &one) == nil {
		many = []string{one}
	} else if json.Unmarshal(c.Audience, &many) != nil {
		many = nil
	}
	switch {
	case c.Issuer != v.o.Issuer:
		return invalidToken("the token is of another issuer; get one from %s", v.o.Issuer)
	case !slices.Contains(many, v.o.Audience):
		return invalidToken("the token is for another audience; ask %s for one for %s", v.o.Issuer, v.o.Audience)
	}
	return invalidToken("the token is not valid yet, or its times cannot be read; look at its nbf and exp, and at the clocks")
}

// bound checks whom a token is bound to. RFC 8705, 3: "The protected resource
// MUST obtain, from its TLS implementation layer, the client certificate used
// for mutual TLS and MUST verify that the certificate matches the certificate
// associated with the access token".
func (v *OIDC) bound(r *http.Request, cnf any) error {
	if cnf == nil {
		return nil
	}
	m, _ := cnf.(map[string]any)
	want, ok := m["x5t#S256"].(string)
	if !ok || len(m) != 1 {
		// RFC 9449, 7.2: such a token is no bearer token.
		return invalidToken("the token is bound to a key in a way that this gateway cannot check")
	}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		sum := sha256.Sum256(r.TLS.PeerCertificates[0].Raw)
		if subtle.ConstantTimeCompare([]byte(want), []byte(base64.RawURLEncoding.EncodeToString(sum[:]))) == 1 {
			return nil
		}
	}
	return invalidToken("the token is bound to a client certificate that this connection does not have")
}

// lacking returns the scopes that a token does not have. They stand in "scope",
// divided by spaces (RFC 8693, 4.2), or as text or an array in "scp".
func lacking(need []string, claims map[string]any) []string {
	var has []string
	for _, name := range []string{"scope", "scp"} {
		switch c := claims[name].(type) {
		case string:
			has = append(has, strings.Fields(c)...)
		case []any:
			for _, s := range c {
				if s, ok := s.(string); ok {
					has = append(has, s)
				}
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(need), func(s string) bool { return slices.Contains(has, s) })
}

// claim finds a claim by its name, or by a path of names with dots.
func claim(claims map[string]any, name string) any {
	if c, ok := claims[name]; ok {
		return c
	}
	first, rest, ok := strings.Cut(name, ".")
	if inner, is := claims[first].(map[string]any); ok && is {
		return claim(inner, rest)
	}
	return nil
}

// holds reports whether a claim is the value wanted, or an array with it.
func holds(c, want any) bool {
	if n, ok := want.(int64); ok {
		want = float64(n) // as JSON numbers are decoded
	}
	if list, ok := c.([]any); ok {
		return slices.ContainsFunc(list, func(e any) bool { return e == want })
	}
	return c == want
}
