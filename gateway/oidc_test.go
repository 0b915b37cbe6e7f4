package gateway

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-ws/weft/internal/wstest"
	"github.com/weft-ws/weft/ws"
)

// An issuer is an OpenID Connect issuer of a test: it publishes its
// configuration and its keys, and signs what it is told to.
type issuer struct {
	ec  *ecdsa.PrivateKey
	rsa *rsa.PrivateKey // nil: not needed yet, it takes long to make

	url      string
	mu       sync.Mutex
	ecID     string // kid of ec
	down     atomic.Bool
	keysDown atomic.Bool
	fetched  atomic.Int64 // times that the keys were asked for
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	i := &issuer{ecID: "ec-1"}
	var err error
	if i.ec, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	return i
}

// listens gives the issuer a port.
func (i *issuer) listens(t *testing.T) *issuer {
	s := httptest.NewServer(i)
	t.Cleanup(s.Close)
	i.url = s.URL
	return i
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func (i *issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case i.down.Load():
		http.Error(w, "down for maintenance", http.StatusServiceUnavailable)
	case r.URL.Path == "/.well-known/openid-configuration":
		writeJSON(w, map[string]any{"issuer": i.url, "jwks_uri": i.url + "/keys",
			"id_token_signing_alg_values_supported": []string{"ES256", "RS256", "HS256", "none"}})
	case r.URL.Path == "/keys":
		i.fetched.Add(1)
		if i.keysDown.Load() {
			http.Error(w, "no keys today", http.StatusInternalServerError)
			return
		}
		point, err := i.ec.PublicKey.Bytes()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		keys := []any{map[string]any{"kty": "EC", "crv": "P-256", "use": "sig", "kid": i.ecID, "x": b64(point[1:33]), "y": b64(point[33:])}}
		if i.rsa != nil {
			keys = append(keys, map[string]any{"kty": "RSA", "use": "sig", "kid": "rsa-1", "n": b64(i.rsa.N.Bytes()), "e": b64(big.NewInt(int64(i.rsa.E)).Bytes())})
		}
		writeJSON(w, map[string]any{"keys": keys})
	default:
		http.NotFound(w, r)
	}
}

func part(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b64(b)
}

// es256 signs claims with the issuer's key under a key ID.
func (i *issuer) es256(kid string, claims map[string]any) string {
	in := part(map[string]any{"alg": "ES256", "kid": kid, "typ": "JWT"}) + "." + part(claims)
	sum := sha256.Sum256([]byte(in))
	r, s, err := ecdsa.Sign(rand.Reader, i.ec, sum[:])
	if err != nil {
		panic(err)
	}
	var sig [64]byte
	r.FillBytes(sig[:32])
	s.FillBytes(sig[32:])
	return in + "." + b64(sig[:])
}

func (i *issuer) rs256(claims map[string]any) string {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.rsa == nil {
		var err error
		if i.rsa, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			panic(err)
		}
	}
	in := part(map[string]any{"alg": "RS256", "kid": "rsa-1"}) + "." + part(claims)
	sum := sha256.Sum256([]byte(in))
	sig, err := rsa.SignPKCS1v15(nil, i.rsa, crypto.SHA256, sum[:])
	if err != nil {
		panic(err)
	}
	return in + "." + b64(sig)
}

func hs256(kid string, secret []byte, claims map[string]any) string {
	in := part(map[string]any{"alg": "HS256", "kid": kid}) + "." + part(claims)
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(in))
	return in + "." + b64(mac.Sum(nil))
}

const audience = "https://mcp.example.com"

// claims are those of a good token at a time, with changes; a change to nil
// takes a claim away.
func (i *issuer) claims(now time.Time, changes map[string]any) map[string]any {
	c := map[string]any{"iss": i.url, "sub": "ada", "aud": audience, "scope": "openid mcp:tools",
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix()}
	maps.Copy(c, changes)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

// A clock moves by hand, from now: sessions end by the real one.
type clock struct{ at atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.at.Store(time.Now().UnixNano())
	return c
}

func (c *clock) now() time.Time          { return time.Unix(0, c.at.Load()) }
func (c *clock) advance(d time.Duration) { c.at.Add(int64(d)) }

// logs is a log that can be looked through.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logs) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func mustOIDC(t *testing.T, o OIDCOptions) *OIDC {
	t.Helper()
	v, err := NewOIDC(o)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// serveLogged is serve with a log that the test can look through.
func serveLogged(t *testing.T, l *logs, opts Options, routes ...Route) string {
	t.Helper()
	opts.Logger = l.logger()
	_, url := serve(t, opts, routes...)
	return url
}

func bearer(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }

// Every way in which a token can be good or bad, against a real issuer, before
// the upgrade. No token is in the log or in an answer.
func TestOIDCTokens(t *testing.T) {
	i := newIssuer(t).listens(t)
	other := newIssuer(t)
	other.url = "https://other.example"
	c := newClock()
	var l logs
	tokens := NewTokens()
	tokens.Add("device", "a-static-token-of-a-device")
	creds := &Credentials{Tokens: tokens, OIDC: mustOIDC(t, OIDCOptions{Issuer: i.url, Audience: audience, Scopes: []string{"mcp:tools"},
		Claims: map[string]any{"email_verified": true, "realm_access.roles": "engineer", "level": int64(3)}, Now: c.now, Logger: l.logger()})}
	url := serveLogged(t, &l, Options{Auth: creds, Resource: &Resource{PublicURL: audience, AuthorizationServers: []string{i.url}, Scopes: []string{"mcp:tools"}}},
		testRoute(PerConnection))

	more := map[string]any{"email_verified": true, "realm_access": map[string]any{"roles": []string{"reader", "engineer"}}, "level": 3}
	with := func(changes map[string]any) map[string]any {
		all := maps.Clone(more)
		maps.Copy(all, changes)
		return i.claims(c.now(), all)
	}
	good := i.es256("ec-1", with(nil))
	head, rest, _ := strings.Cut(good, ".")
	claims, sig, _ := strings.Cut(rest, ".")
	point, err := i.ec.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	const invalid, scope = `error="invalid_token"`, `error="insufficient_scope"`
	for _, tt := range []struct {
		name, token string
		status      int
		challenge   string // in WWW-Authenticate
		reason      string // in the answer
	}{
		{"good", good, 0, "", ""},
		{"good, RSA", i.rs256(with(nil)), 0, "", ""},
		{"one of several audiences", i.es256("ec-1", with(map[string]any{"aud": []string{"x", audience}})), 0, "", ""},
		{"scopes in scp", i.es256("ec-1", with(map[string]any{"scope": nil, "scp": []string{"x", "mcp:tools"}})), 0, "", ""},
		{"begins within the leeway", i.es256("ec-1", with(map[string]any{"nbf": c.now().Add(4 * time.Minute).Unix()})), 0, "", ""},
		{"a static token besides", "a-static-token-of-a-device", 0, "", ""},

		{"another audience", i.es256("ec-1", with(map[string]any{"aud": "https://other.example"})), 401, invalid, "for another audience; ask " + i.url + " for one for " + audience},
		{"no audience", i.es256("ec-1", with(map[string]any{"aud": nil})), 401, invalid, "another audience"},
		{"the audience as a part of another", i.es256("ec-1", with(map[string]any{"aud": audience + ".evil.example"})), 401, invalid, "another audience"},
		{"another issuer in its name", i.es256("ec-1", with(map[string]any{"iss": "https://other.example"})), 401, invalid, "another issuer"},
		{"signed by another issuer", other.es256("ec-1", with(nil)), 401, invalid, "not signed with a key of " + i.url},
		{"expired", i.es256("ec-1", with(map[string]any{"exp": c.now().Add(-time.Second).Unix()})), 401, invalid, "expired; get a new one from " + i.url},
		{"without expiry", i.es256("ec-1", with(map[string]any{"exp": nil})), 401, invalid, "expired"},
		{"not valid yet", i.es256("ec-1", with(map[string]any{"nbf": c.now().Add(10 * time.Minute).Unix()})), 401, invalid, "not valid yet"},
		{"alg none", part(map[string]any{"alg": "none"}) + "." + claims + ".", 401, invalid, "not a JWT signed with ES256 or RS256"},
		{"alg None with a signature", part(map[string]any{"alg": "None", "kid": "ec-1"}) + "." + claims + "." + sig, 401, invalid, "not a JWT signed with"},
		{"HS256 with the public key as secret", hs256("ec-1", point, with(nil)), 401, invalid, "not a JWT signed with ES256 or RS256"},
		{"RS256 in the header over an EC signature", part(map[string]any{"alg": "RS256", "kid": "ec-1"}) + "." + claims + "." + sig, 401, invalid, "not signed with a key"},
		{"unknown kid", i.es256("ec-9", with(nil)), 401, invalid, "not signed with a key"},
		{"its own key in the header", part(map[string]any{"alg": "ES256", "jwk": map[string]any{"kty": "EC", "crv": "P-256", "x": b64(point[1:33]), "y": b64(point[33:])}}) +
			"." + part(with(map[string]any{"sub": "root"})) + "." + sig, 401, invalid, ""},
		{"changed claims", head + "." + part(with(map[string]any{"sub": "root"})) + "." + sig, 401, invalid, "not signed with a key"},
		{"no signature", head + "." + claims + ".", 401, invalid, ""},
		{"garbage in three parts", "a.b.c", 401, invalid, "not a JWT"},
		{"garbage", "garbage", 401, invalid, "the token or ticket is not valid"},
		{"five parts, as if encrypted", good + ".x.y", 401, invalid, "the token or ticket is not valid"},
		{"claims that are no object", i.es256("ec-1", nil)[:20] + "." + b64([]byte(`[]`)) + "." + sig, 401, invalid, ""},
		{"nobody's", i.es256("ec-1", with(map[string]any{"sub": nil})), 401, invalid, `no "sub"`},
		{"bound to a certificate that is not there", i.es256("ec-1", with(map[string]any{"cnf": map[string]any{"x5t#S256": "x"}})), 401, invalid, "bound to a client certificate"},
		{"bound to a key by DPoP", i.es256("ec-1", with(map[string]any{"cnf": map[string]any{"jkt": "x"}})), 401, invalid, "cannot check"},
		{"without the scope", i.es256("ec-1", with(map[string]any{"scope": "openid mcp:tool"})), 403, scope, "lacks scope mcp:tools"},
		{"without any scope", i.es256("ec-1", with(map[string]any{"scope": nil})), 403, scope, "lacks scope mcp:tools"},
		{"a claim that is false", i.es256("ec-1", with(map[string]any{"email_verified": false})), 403, scope, `\"email_verified\"`},
		{"a claim as text", i.es256("ec-1", with(map[string]any{"email_verified": "true"})), 403, scope, `\"email_verified\"`},
		{"a claim missing", i.es256("ec-1", with(map[string]any{"level": nil})), 403, scope, `\"level\"`},
		{"a claim within another without the value", i.es256("ec-1", with(map[string]any{"realm_access": map[string]any{"roles": []string{"reader"}}})), 403, scope, "realm_access.roles"},
		{"nothing", "", 401, "Bearer resource_metadata=\"" + audience + "/.well-known/oauth-protected-resource/mcp/fake\", scope=\"mcp:tools\"", "a token is needed"},
	} {
		header := bearer(tt.token)
		if tt.token == "" {
			header = nil
		}
		conn, he := dialErr(t, url+"fake", header, "mcp")
		if tt.status == 0 {
			if he != nil {
				t.Errorf("%s: %v %s", tt.name, he, he.Body)
				continue
			}
			conn.CloseNow()
			continue
		}
		if he == nil || he.Status != tt.status {
			t.Errorf("%s: %v, want HTTP %d", tt.name, he, tt.status)
			continue
		}
		challenge := he.Header.Get("WWW-Authenticate")
		if !strings.Contains(challenge, tt.challenge) || !strings.Contains(challenge, `resource_metadata="`+audience+`/.well-known/oauth-protected-resource/mcp/fake"`) {
			t.Errorf("%s: WWW-Authenticate: %s, want %s in it", tt.name, challenge, tt.challenge)
		}
		if want := strings.ReplaceAll(tt.reason, `\"`, `"`); !strings.Contains(string(he.Body), want) {
			t.Errorf("%s: the answer is %q, want %q in it", tt.name, he.Body, want)
		}
		for where, text := range map[string]string{"the answer": string(he.Body), "the challenge": challenge, "the log": l.String()} {
			for _, piece := range strings.Split(tt.token, ".") {
				if len(piece) > 10 && strings.Contains(text, piece) {
					t.Errorf("%s: a part of the token is in %s", tt.name, where)
				}
			}
		}
	}
	if strings.Contains(l.String(), sig) || strings.Contains(l.String(), "a-static-token") {
		t.Error("a token is in the log")
	}
	if !strings.Contains(l.String(), "principal="+i.url+"#ada") {
		t.Errorf("the principal is not issuer and subject:\n%s", l.String())
	}
	// All those bad signatures, and the issuer was asked for its keys once.
	if n := i.fetched.Load(); n != 1 {
		t.Errorf("the keys were fetched %d times within one moment", n)
	}
}

// Limits count the principal of a token, whatever token it is.
func TestOIDCPrincipal(t *testing.T) {
	i := newIssuer(t).listens(t)
	c := newClock()
	creds := &Credentials{OIDC: mustOIDC(t, OIDCOptions{Issuer: i.url, Audience: audience, Now: c.now, Logger: testLog(t)})}
	_, url := serve(t, Options{Auth: creds, PerPrincipalMax: 1, Attach: []string{i.url + "#device"}}, testRoute(PerConnection),
		Route{Name: "private", Backend: &pipes{}, Principals: []string{i.url + "#bob"}})
	as := func(sub string, more string) http.Header {
		return bearer(i.es256("ec-1", i.claims(c.now(), map[string]any{"sub": sub, "jti": more})))
	}
	if _, he := dialErr(t, url+"fake", as("ada", "1"), "mcp"); he != nil {
		t.Fatal(he)
	}
	if _, he := dialErr(t, url+"fake", as("ada", "2"), "mcp"); he == nil || he.Status != http.StatusServiceUnavailable {
		t.Errorf("another token of ada: %v, want 503", he)
	}
	if _, he := dialErr(t, url+"private", as("eve", "1"), "mcp"); he == nil || he.Status != http.StatusNotFound {
		t.Errorf("a server that is not eve's: %v, want 404", he)
	}
	if _, he := dialErr(t, url+"private", as("bob", "1"), "mcp"); he != nil {
		t.Errorf("bob's own server: %v", he)
	}
	if _, he := dialErr(t, url+"attach?name=x", as("eve", "1"), "mcp"); he == nil || he.Status != http.StatusForbidden {
		t.Errorf("eve attaches a server: %v, want 403", he)
	}
}

// An issuer that cannot be reached costs its own tokens only, and is asked
// again after a while.
func TestOIDCIssuerDown(t *testing.T) {
	i := newIssuer(t).listens(t)
	i.down.Store(true)
	c := newClock()
	var l logs
	v := mustOIDC(t, OIDCOptions{Issuer: i.url, Audience: audience, Now: c.now, Logger: l.logger()})
	err := v.Find(t.Context())
	if err == nil || !strings.Contains(err.Error(), "issuer "+i.url) || !strings.Contains(err.Error(), "HTTP 503") {
		t.Errorf("at the start: %v", err)
	}
	if !strings.Contains(l.String(), "level=ERROR") || !strings.Contains(l.String(), "answered 503") {
		t.Errorf("the log says %s", l.String())
	}
	tokens := NewTokens()
	tokens.Add("ada", "a-static-token-of-ada")
	_, url := serve(t, Options{Auth: &Credentials{Tokens: tokens, OIDC: v}}, testRoute(PerConnection))
	good := bearer(i.es256("ec-1", i.claims(c.now(), nil)))
	want503 := func(when string, header http.Header) {
		t.Helper()
		_, he := dialErr(t, url+"fake", header, "mcp")
		if he == nil || he.Status != http.StatusServiceUnavailable || he.Header.Get("Retry-After") != "10" || !strings.Contains(string(he.Body), "issuer cannot be reached") {
			t.Errorf("%s: %v, want 503 with Retry-After", when, he)
		}
	}
	wantIn := func(when string, header http.Header) {
		t.Helper()
		if _, he := dialErr(t, url+"fake", header, "mcp"); he != nil {
			t.Errorf("%s: %v", when, he)
		}
	}
	want503("down", good)
	wantIn("a static token meanwhile", bearer("a-static-token-of-ada"))
	i.down.Store(false)
	want503("up again, not asked yet", good)
	c.advance(fetchInterval)
	wantIn("asked again", good)

	// Its keys change while it is out of reach.
	i.keysDown.Store(true)
	wantIn("a known key while the keys cannot be had", good)
	i.mu.Lock()
	i.ecID = "ec-2"
	i.mu.Unlock()
	c.advance(fetchInterval)
	rotated := bearer(i.es256("ec-2", i.claims(c.now(), nil)))
	want503("a new key while the keys cannot be had", rotated)
	wantIn("a known key besides", good)
	i.keysDown.Store(false)
	n := i.fetched.Load()
	want503("the keys can be had, not asked yet", rotated)
	if i.fetched.Load() != n {
		t.Error("the issuer was asked again at once")
	}
	c.advance(fetchInterval)
	wantIn("the new key", rotated)
	if !strings.Contains(l.String(), "keys of the issuer of tokens cannot be fetched") {
		t.Errorf("the log says %s", l.String())
	}
}

// An issuer whose name, keys or answers are not right says so at the start.
func TestOIDCIssuerWrong(t *testing.T) {
	var answer atomic.Value
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, answer.Load().(string)) }))
	defer s.Close()
	for _, tt := range []struct{ answer, want string }{
		{`{"issuer":"https://else.example","jwks_uri":"` + s.URL + `"}`, `it calls itself "https://else.example"`},
		{`{"issuer":"` + s.URL + `","jwks_uri":"http://keys.example/"}`, "is not an https URL"},
		{`{"issuer":"` + s.URL + `"}`, "is not a URL"},
		{`<html>`, "not JSON"},
		{`"` + strings.Repeat("x", fetchMax) + `"`, "more than 1048576 bytes"},
	} {
		answer.Store(tt.answer)
		v := mustOIDC(t, OIDCOptions{Issuer: s.URL, Audience: audience, Logger: testLog(t)})
		if err := v.Find(t.Context()); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.60s: %v, want %q", tt.answer, err, tt.want)
		}
	}
	closed := httptest.NewServer(nil)
	closed.Close()
	v := mustOIDC(t, OIDCOptions{Issuer: closed.URL, Audience: audience, Logger: testLog(t)})
	if err := v.Find(t.Context()); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("nobody listens: %v", err)
	}
}

// A client that gives up does not spoil the search for the others.
func TestOIDCClientGivesUp(t *testing.T) {
	i := newIssuer(t).listens(t)
	v := mustOIDC(t, OIDCOptions{Issuer: i.url, Audience: audience, Logger: testLog(t)})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = v.Find(ctx) // either way
	if err := v.Find(t.Context()); err != nil {
		t.Error(err)
	}
}

// Issuers without a configuration document have their keys named.
func TestOIDCKeysNamed(t *testing.T) {
	i := newIssuer(t).listens(t)
	v := mustOIDC(t, OIDCOptions{Issuer: "https://plain.example", Keys: i.url + "/keys", Algorithms: []string{"ES256"}, Audience: audience, Logger: testLog(t)})
	r := httptest.NewRequest("GET", "/mcp", nil)
	claims := i.claims(time.Now(), map[string]any{"iss": "https://plain.example"})
	if ident, err := v.verify(r, i.es256("ec-1", claims)); err != nil || ident.Principal != "https://plain.example#ada" {
		t.Errorf("%+v, %v", ident, err)
	}
	if _, err := v.verify(r, i.rs256(claims)); err == nil || !strings.Contains(err.Error(), "not a JWT signed with ES256") {
		t.Errorf("an algorithm that is not taken: %v", err)
	}
}

// A ticket for a token lasts no longer than the token.
func TestOIDCTicket(t *testing.T) {
	i := newIssuer(t).listens(t)
	creds := &Credentials{Tokens: NewTokens(), OIDC: mustOIDC(t, OIDCOptions{Issuer: i.url, Audience: audience, Logger: testLog(t)})}
	_, url := serve(t, Options{Auth: creds}, testRoute(PerConnection))
	exp := time.Now().Add(time.Hour).Truncate(time.Second)
	post := func(header http.Header) (int, string) {
		req, err := http.NewRequest("POST", "http"+strings.TrimPrefix(url, "ws")+"ticket", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = header
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer http.DefaultClient.CloseIdleConnections()
		defer resp.Body.Close()
		var got struct{ Ticket string }
		_ = json.NewDecoder(resp.Body).Decode(&got)
		return resp.StatusCode, got.Ticket
	}
	header := bearer(i.es256("ec-1", i.claims(time.Now(), map[string]any{"exp": exp.Unix()})))
	_, ticket := post(header)
	ident, err := creds.Authenticate(httptest.NewRequest("GET", "/mcp?ticket="+ticket, nil), nil)
	if err != nil || ident.Principal != i.url+"#ada" || !ident.Expires.Equal(exp) {
		t.Errorf("the ticket is %+v, %v", ident, err)
	}
	_, ticket = post(header)
	if _, err := creds.Admins().Authenticate(httptest.NewRequest("GET", "/admin/sessions?ticket="+ticket, nil), nil); err == nil {
		t.Error("a ticket for a token of the issuer administers the gateway")
	}
	if _, err := creds.Admins().Authenticate(&http.Request{Header: header}, nil); err == nil || !strings.Contains(err.Error(), "long-lived") {
		t.Errorf("a token of the issuer administers the gateway: %v", err)
	}
	foreign := header.Clone()
	foreign.Set("Origin", "https://evil.example")
	if status, _ := post(foreign); status != http.StatusForbidden {
		t.Errorf("a page of another origin: HTTP %d", status)
	}
}

// A memoryListener is what servers listen on and clients dial without sockets,
// so that time can be a bubble's.
type memoryListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newMemoryListener() *memoryListener {
	return &memoryListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *memoryListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := wstest.Pipe(wstest.PipeOptions{})
	select {
	case l.conns <- server:
		return client, nil
	case <-l.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *memoryListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *memoryListener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *memoryListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

// The token of a connection expires: it is closed with 1008 and a reason that
// says what to do, neither early nor late, and a session that was resumed with
// a newer token goes on.
func TestOIDCExpiryCloses1008(t *testing.T) {
	i := newIssuer(t)
	synctest.Test(t, func(t *testing.T) {
		at, door := newMemoryListener(), newMemoryListener()
		i.url = "http://localhost"
		transport := &http.Transport{DialContext: at.dial, DisableKeepAlives: true}
		v := mustOIDC(t, OIDCOptions{Issuer: i.url, Audience: audience, Logger: testLog(t), Transport: transport})
		g := New(Options{Auth: &Credentials{OIDC: v}, Logger: testLog(t), ResumeGrace: time.Minute, Attach: []string{i.url + "#ada"}})
		if err := g.SetRoutes([]Route{testRoute(PerConnection)}); err != nil {
			t.Fatal(err)
		}
		issuing, serving := &http.Server{Handler: i}, &http.Server{Handler: g}
		go issuing.Serve(at)
		go serving.Serve(door)
		defer func() {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			g.Drain(ctx)
			issuing.Close()
			serving.Close()
		}()
		connect := func(path string, life time.Duration, offer ...string) *wire {
			t.Helper()
			token := i.es256("ec-1", i.claims(time.Now(), map[string]any{"exp": time.Now().Add(life).Unix()}))
			c, err := ws.Dial(t.Context(), "ws://gateway/mcp/"+path, &ws.DialOptions{Header: bearer(token), DialContext: door.dial, Subprotocols: append(offer, "mcp")})
			if err != nil {
				t.Fatal(err)
			}
			return &wire{t, c}
		}
		wantAt := func(w *wire, expiry time.Time) {
			t.Helper()
			_, p, err := w.c.ReadMessage(t.Context())
			var ce *ws.CloseError
			if !errors.As(err, &ce) || ce.Code != ws.ClosePolicyViolation || ce.Reason != credentialExpired {
				t.Errorf("heard %q, %v, want close 1008 %q", p, err, credentialExpired)
			}
			if late := time.Since(expiry); late < 0 || late > time.Second {
				t.Errorf("the connection was closed %v after the expiry", late)
			}
		}
		// quiet lets time pass in which the client reads, so that its pongs leave,
		// and hears nothing.
		quiet := func(w *wire, d time.Duration) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), d)
			defer cancel()
			if _, p, err := w.c.ReadMessage(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("heard %q, %v", p, err)
			}
		}
		began := time.Now()
		w := connect("fake", time.Minute)
		w.initialize("{}")
		quiet(w, 50*time.Second)
		w.call("1", "echo", `{"text":"still here"}`)
		w.hears("still here")
		wantAt(w, began.Add(time.Minute))

		// So is a server that was attached, and until then it stays, though it has
		// no clients: more than one ping is answered.
		began = time.Now()
		wantAt(connect("attach?name=lamp", 2*time.Minute), began.Add(2*time.Minute))

		// The connection is lost before, and the client comes back with a token
		// that lasts longer.
		began = time.Now()
		w = connect("fake", time.Minute, "mcp.resume")
		var note struct{ Params struct{ Resume string } }
		if err := json.Unmarshal([]byte(w.hears("notifications/weft/session")), &note); err != nil {
			t.Fatal(err)
		}
		w.initialize("{}")
		quiet(w, 30*time.Second)
		w.c.CloseNow()
		synctest.Wait()
		w = connect("fake", 2*time.Minute, "mcp.resume."+note.Params.Resume+".1")
		w.hears("notifications/weft/session")
		quiet(w, 40*time.Second) // past the first token
		w.call("2", "echo", `{"text":"with another token"}`)
		w.hears("with another token")
		wantAt(w, began.Add(30*time.Second+2*time.Minute))
	})
}

func TestProtectedResourceMetadata(t *testing.T) {
	for _, public := range []string{"", "https://mcp.example.com/"} {
		_, url := serve(t, Options{Auth: NewTokens(), Resource: &Resource{PublicURL: public, AuthorizationServers: []string{"https://id.example"}, Scopes: []string{"a", "b"}}},
			testRoute(PerConnection))
		own := "http" + strings.TrimSuffix(strings.TrimPrefix(url, "ws"), "/mcp/")
		base := strings.TrimSuffix(public, "/")
		if public == "" {
			base = own
		}
		get := func(method, path string) (*http.Response, map[string]any) {
			t.Helper()
			req, err := http.NewRequest(method, own+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer http.DefaultClient.CloseIdleConnections()
			defer resp.Body.Close()
			var m map[string]any
			_ = json.NewDecoder(resp.Body).Decode(&m)
			return resp, m
		}
		for path, resource := range map[string]string{"": "", "/mcp": "/mcp", "/mcp/": "/mcp", "/mcp/fake": "/mcp/fake", "/mcp/ws": "/mcp/ws", "/mcp/none": "/mcp/none"} {
			resp, m := get("GET", metadataPath+path)
			servers, _ := m["authorization_servers"].([]any)
			scopes, _ := m["scopes_supported"].([]any)
			methods, _ := m["bearer_methods_supported"].([]any)
			if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/json" || resp.Header.Get("Access-Control-Allow-Origin") != "*" ||
				m["resource"] != base+resource || len(servers) != 1 || servers[0] != "https://id.example" || len(scopes) != 2 || len(methods) != 1 || methods[0] != "header" {
				t.Errorf("%s: %s %v", path, resp.Status, m)
			}
			// The address in a challenge leads here.
			if path == "" {
				continue
			}
			_, he := dialErr(t, "ws"+strings.TrimPrefix(own, "http")+path, nil, "mcp")
			if he == nil || he.Status != 401 || !strings.Contains(he.Header.Get("WWW-Authenticate"), `Bearer resource_metadata="`+base+metadataPath+resource+`", scope="a b"`) ||
				strings.Contains(he.Header.Get("WWW-Authenticate"), "error=") {
				t.Errorf("%s: %v %v", path, he, he.Header)
			}
		}
		for _, path := range []string{"/other", "/mcp/a/b", "/mcpx", "/mcp/%22x"} {
			if resp, _ := get("GET", metadataPath+path); resp.StatusCode != 404 {
				t.Errorf("%s: %s", path, resp.Status)
			}
		}
		if resp, _ := get("OPTIONS", metadataPath); resp.StatusCode != 204 || resp.Header.Get("Access-Control-Allow-Headers") == "" {
			t.Errorf("preflight: %s", resp.Status)
		}
		if resp, _ := get("POST", metadataPath); resp.StatusCode != 405 {
			t.Errorf("POST: %s", resp.Status)
		}
	}
	_, url := serve(t, Options{Auth: NewTokens()}, testRoute(PerConnection))
	resp, err := http.Get("http" + strings.TrimSuffix(strings.TrimPrefix(url, "ws"), "/mcp/") + metadataPath)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if resp.StatusCode != 404 {
		t.Errorf("metadata of a gateway without an issuer: %s", resp.Status)
	}
}

func TestNewOIDCMistakes(t *testing.T) {
	good := OIDCOptions{Issuer: "https://id.example", Audience: "a"}
	for want, change := range map[string]func(*OIDCOptions){
		"there is no issuer":      func(o *OIDCOptions) { o.Issuer = "" },
		"is not an https URL":     func(o *OIDCOptions) { o.Issuer = "http://id.example" },
		"is not a URL":            func(o *OIDCOptions) { o.Issuer = "id.example" },
		"has a fragment":          func(o *OIDCOptions) { o.Issuer = "https://id.example#x" },
		"there is no audience":    func(o *OIDCOptions) { o.Audience = "" },
		`keys "file:///x"`:        func(o *OIDCOptions) { o.Keys = "file:///x" },
		`algorithm "HS256"`:       func(o *OIDCOptions) { o.Algorithms = []string{"ES256", "HS256"} },
		`algorithm "none"`:        func(o *OIDCOptions) { o.Algorithms = []string{"none"} },
		`"a b" is not a scope`:    func(o *OIDCOptions) { o.Scopes = []string{"a b"} },
		`claim "x" is neither a`:  func(o *OIDCOptions) { o.Claims = map[string]any{"x": []any{"y"}} },
		`claim "z" is neither a `: func(o *OIDCOptions) { o.Claims = map[string]any{"z": map[string]any{}} },
	} {
		o := good
		change(&o)
		if _, err := NewOIDC(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if _, err := NewOIDC(OIDCOptions{Issuer: "http://[::1]:8080/realm", Audience: "a"}); err != nil {
		t.Errorf("an issuer on this machine: %v", err)
	}
}
