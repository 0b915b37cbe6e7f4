package gateway

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/acme"

	"github.com/weft-ws/weft/ws"
)

// An authority issues certificates for a test.
type authority struct {
	key    *ecdsa.PrivateKey
	cert   *x509.Certificate
	serial atomic.Int64
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority of a test"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// sign issues a certificate for a key; change may adjust it.
func (a *authority) sign(key crypto.PublicKey, change func(*x509.Certificate)) ([]byte, error) {
	template := &x509.Certificate{SerialNumber: big.NewInt(1 + a.serial.Add(1)), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	change(template)
	return x509.CreateCertificate(rand.Reader, template, a.cert, key, a.key)
}

func (a *authority) issue(t *testing.T, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := a.sign(key.Public(), change)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func named(names ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.DNSNames = names }
}

// texts are the PEM forms of a certificate and its key.
func texts(t *testing.T, c tls.Certificate) (cert, key []byte) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// put writes a file whose time of modification is that of no earlier one, as
// far as the file system tells times apart.
func put(t *testing.T, file string, text []byte) {
	t.Helper()
	before, _ := os.Stat(file)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if before != nil {
		at := before.ModTime().Add(time.Second)
		if err := os.Chtimes(file, at, at); err != nil {
			t.Fatal(err)
		}
	}
}

// tlsServer serves h with TLS on loopback and returns its address.
func tlsServer(t *testing.T, s *ServerTLS, h http.Handler) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := ws.NewHTTPServer(h)
	srv.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug) // every refused handshake
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(tls.NewListener(ln, s.Config())) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return ln.Addr().String()
}

// servedBy returns the serial number of the certificate that a new connection
// gets.
func servedBy(t *testing.T, addr string, cfg *tls.Config) (int64, error) {
	t.Helper()
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: 20 * time.Second}, "tcp", addr, cfg)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].SerialNumber.Int64(), nil
}

// A renewed certificate needs no restart, and a broken one changes nothing.
func TestTLSReload(t *testing.T) {
	a := newAuthority(t)
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	first, second, third := a.issue(t, named("gateway.test")), a.issue(t, named("gateway.test")), a.issue(t, named("gateway.test"))
	serial := func(c tls.Certificate) int64 {
		x, err := x509.ParseCertificate(c.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		return x.SerialNumber.Int64()
	}
	cert, key := texts(t, first)
	put(t, certFile, cert)
	put(t, keyFile, key)
	var l logs
	s, err := NewServerTLS(TLSOptions{Cert: certFile, Key: keyFile, Logger: l.logger()})
	if err != nil {
		t.Fatal(err)
	}
	addr := tlsServer(t, s, http.NotFoundHandler())
	cfg := &tls.Config{RootCAs: a.pool(), ServerName: "gateway.test"}
	wants := func(when string, c tls.Certificate, errs int) {
		t.Helper()
		for range 3 {
			if n, err := servedBy(t, addr, cfg); err != nil || n != serial(c) {
				t.Errorf("%s: certificate %d, %v, want %d", when, n, err, serial(c))
			}
		}
		if n := strings.Count(l.String(), "the new certificate cannot be used, the old one stays in use"); n != errs {
			t.Errorf("%s: %d errors in the log, want %d:\n%s", when, n, errs, l.String())
		}
	}
	wants("at the start", first, 0)
	old, err := tls.Dial("tcp", addr, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()

	cert, key = texts(t, second)
	put(t, certFile, cert)
	wants("with the new certificate and the old key", first, 1)
	put(t, keyFile, key)
	wants("with the new key too", second, 1)
	put(t, certFile, []byte("-----BEGIN CERTIFICATE-----\nhalf of i"))
	wants("with half a file", second, 2)
	if err := os.Remove(keyFile); err != nil {
		t.Fatal(err)
	}
	wants("without a key", second, 3)
	s.Reload()
	wants("told to reload it", second, 4)
	cert, key = texts(t, third)
	put(t, certFile, cert)
	put(t, keyFile, key)
	wants("with both", third, 4)

	// The file is the same to the eye: same size, same time. On SIGHUP it is
	// read all the same.
	info, err := os.Stat(certFile)
	if err != nil {
		t.Fatal(err)
	}
	broken := []byte(strings.Repeat("x", int(info.Size())))
	if err := os.WriteFile(certFile, broken, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(certFile, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	wants("unchanged to the eye", third, 4)
	s.Reload()
	wants("told to reload", third, 5)
	if strings.Contains(l.String(), "PRIVATE KEY") {
		t.Error("a key is in the log")
	}
	// A connection from before goes on.
	if _, err := io.WriteString(old, "GET / HTTP/1.1\r\nHost: gateway.test\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(old); err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 404") {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := servedBy(t, addr, &tls.Config{RootCAs: a.pool(), ServerName: "gateway.test", MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("TLS 1.1 is spoken")
	}
}

// The authorities of clients can be exchanged while the server runs.
func TestTLSClientCAReload(t *testing.T) {
	a, b := newAuthority(t), newAuthority(t)
	dir := t.TempDir()
	certFile, keyFile, caFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "ca.pem")
	cert, key := texts(t, a.issue(t, named("gateway.test")))
	put(t, certFile, cert)
	put(t, keyFile, key)
	ca := func(a *authority) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
	}
	put(t, caFile, ca(a))
	var l logs
	s, err := NewServerTLS(TLSOptions{Cert: certFile, Key: keyFile, ClientCA: caFile, Logger: l.logger()})
	if err != nil {
		t.Fatal(err)
	}
	addr := tlsServer(t, s, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.TLS.VerifiedChains[0][0].Subject.CommonName, " resumed ", r.TLS.DidResume)
	}))
	ada := func(c *x509.Certificate) { c.Subject.CommonName = "ada" }
	ofA, ofB := a.issue(t, ada), b.issue(t, ada)
	cache := tls.NewLRUClientSessionCache(8)
	get := func(cert *tls.Certificate) (string, error) {
		cfg := &tls.Config{RootCAs: a.pool(), ServerName: "gateway.test", ClientSessionCache: cache}
		if cert != nil {
			cfg.Certificates = []tls.Certificate{*cert}
		}
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: cfg, DisableKeepAlives: true}, Timeout: 20 * time.Second}
		resp, err := client.Get("https://" + addr)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return string(body), err
	}
	wants := func(when string, inA, inB bool) {
		t.Helper()
		for _, who := range []struct {
			name string
			cert *tls.Certificate
			in   bool
		}{{"of A", &ofA, inA}, {"of B", &ofB, inB}, {"without", nil, false}} {
			if body, err := get(who.cert); who.in != (err == nil && body == "ada resumed false") {
				t.Errorf("%s, a client %s: %q, %v", when, who.name, body, err)
			}
		}
	}
	wants("at the start", true, false)
	put(t, caFile, ca(b))
	wants("with another authority", false, true)
	put(t, caFile, []byte("nonsense"))
	wants("with a broken file", false, true)
	if !strings.Contains(l.String(), "the old ones stay in use") {
		t.Errorf("the log says %s", l.String())
	}
	put(t, caFile, append(ca(a), ca(b)...))
	wants("with both", true, true)
}

// What a certificate is good for: instead of a token or besides one.
func TestClientCertificates(t *testing.T) {
	a := newAuthority(t)
	dir := t.TempDir()
	certFile, keyFile, caFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "ca.pem")
	cert, key := texts(t, a.issue(t, named("gateway.test")))
	put(t, certFile, cert)
	put(t, keyFile, key)
	put(t, caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}))
	spiffe, err := url.Parse("spiffe://example/agent")
	if err != nil {
		t.Fatal(err)
	}
	full := a.issue(t, func(c *x509.Certificate) {
		c.Subject.CommonName, c.DNSNames, c.EmailAddresses, c.URIs = "ada", []string{"ada.example", "x.example"}, []string{"ada@example"}, []*url.URL{spiffe}
	})
	bare := a.issue(t, func(*x509.Certificate) {})
	stranger := newAuthority(t).issue(t, func(c *x509.Certificate) { c.Subject.CommonName = "ada" })
	expired := a.issue(t, func(c *x509.Certificate) { c.Subject.CommonName, c.NotAfter = "ada", time.Now().Add(-time.Minute) })
	server := a.issue(t, func(c *x509.Certificate) {
		c.Subject.CommonName, c.ExtKeyUsage = "ada", []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	})

	const aborted = -1 // TLS itself refuses
	for _, tt := range []struct {
		name  string
		certs *Certificates
		cert  *tls.Certificate
		token string
		want  int    // HTTP status; 0: in
		as    string // principal
	}{
		{"instead: a certificate", &Certificates{Instead: true}, &full, "", 0, "cert:ada"},
		{"instead: its DNS name", &Certificates{Instead: true, Name: DNSName}, &full, "", 0, "cert:ada.example"},
		{"instead: its address", &Certificates{Instead: true, Name: EmailName}, &full, "", 0, "cert:ada@example"},
		{"instead: its URI", &Certificates{Instead: true, Name: URIName}, &full, "", 0, "cert:spiffe://example/agent"},
		{"instead: a certificate without the name", &Certificates{Instead: true, Name: URIName}, &bare, "", 403, ""},
		{"instead: a token", &Certificates{Instead: true}, nil, "ada-token", 0, "ada"},
		{"instead: both", &Certificates{Instead: true}, &full, "ada-token", 0, "ada"},
		{"instead: a certificate and a bad token", &Certificates{Instead: true}, &full, "bad-token", 401, ""},
		{"instead: nothing", &Certificates{Instead: true}, nil, "", 401, ""},
		{"instead: of another authority", &Certificates{Instead: true}, &stranger, "", aborted, ""},
		{"instead: expired", &Certificates{Instead: true}, &expired, "", aborted, ""},
		{"instead: not for clients", &Certificates{Instead: true}, &server, "", aborted, ""},
		{"besides: both", &Certificates{}, &bare, "ada-token", 0, "ada"},
		{"besides: no token", &Certificates{}, &full, "", 401, ""},
		{"besides: a bad token", &Certificates{}, &full, "bad-token", 401, ""},
		{"besides: no certificate", &Certificates{}, nil, "ada-token", aborted, ""},
		{"besides: of another authority", &Certificates{}, &stranger, "ada-token", aborted, ""},
	} {
		tokens := NewTokens()
		tokens.Add("ada", "ada-token")
		s, err := NewServerTLS(TLSOptions{Cert: certFile, Key: keyFile, ClientCA: caFile, ClientCertOptional: tt.certs.Instead, Logger: testLog(t)})
		if err != nil {
			t.Fatal(err)
		}
		g := New(Options{Auth: &Credentials{Tokens: tokens, Certificates: tt.certs}, PerPrincipalMax: 1, Logger: testLog(t)})
		if err := g.SetRoutes([]Route{testRoute(PerConnection)}); err != nil {
			t.Fatal(err)
		}
		addr := tlsServer(t, s, g)
		dial := func() (*ws.Conn, error) {
			o := &ws.DialOptions{TLS: &tls.Config{RootCAs: a.pool(), ServerName: "gateway.test"}, Subprotocols: []string{"mcp"}}
			if tt.cert != nil {
				// Whatever authorities the server names, this certificate is shown.
				o.TLS.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return tt.cert, nil }
			}
			if tt.token != "" {
				o.Header = bearer(tt.token)
			}
			return ws.Dial(t.Context(), "wss://"+addr+"/mcp/fake", o)
		}
		c, err := dial()
		var he *ws.HandshakeError
		switch errors.As(err, &he); {
		case tt.want == 0 && err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case tt.want == aborted && (err == nil || he != nil && he.Status != 0):
			t.Errorf("%s: %v, want TLS to fail", tt.name, err)
		case tt.want > 0 && (he == nil || he.Status != tt.want):
			t.Errorf("%s: %v, want HTTP %d", tt.name, err, tt.want)
		}
		if c != nil {
			if info := g.Registry().Sessions(); len(info) != 1 || info[0].Principal != tt.as {
				t.Errorf("%s: sessions %+v, want one of %q", tt.name, info, tt.as)
			}
			if _, err := dial(); !errors.As(err, &he) || he.Status != http.StatusServiceUnavailable {
				t.Errorf("%s: one connection more than a principal may have: %v, want 503", tt.name, err)
			}
			c.CloseNow()
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		g.Drain(ctx)
	}
}

// A session ends with the certificate that it was opened with, and with the
// token if that ends first.
func TestClientCertificateExpires(t *testing.T) {
	a := newAuthority(t)
	x, err := x509.ParseCertificate(a.issue(t, func(c *x509.Certificate) { c.Subject.CommonName = "ada" }).Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("GET", "/mcp", nil)
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{x}, VerifiedChains: [][]*x509.Certificate{{x, a.cert}}}
	tokens := NewTokens()
	ticket := func(expires time.Time) *http.Request {
		s, err := tokens.TicketFor(Identity{Principal: "bob", Expires: expires}, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		r := r.Clone(t.Context())
		r.URL.RawQuery = "ticket=" + s
		return r
	}
	soon := x.NotAfter.Add(-time.Minute)
	for name, tt := range map[string]struct {
		creds *Credentials
		r     *http.Request
		want  Identity
	}{
		"alone":                        {&Credentials{Certificates: &Certificates{Instead: true}}, r, Identity{"cert:ada", x.NotAfter}},
		"besides a token without end":  {&Credentials{Tokens: tokens, Certificates: &Certificates{}}, ticket(time.Time{}), Identity{"bob", x.NotAfter}},
		"besides one that ends sooner": {&Credentials{Tokens: tokens, Certificates: &Certificates{}}, ticket(soon), Identity{"bob", soon}},
		"besides one that ends later":  {&Credentials{Tokens: tokens, Certificates: &Certificates{}}, ticket(x.NotAfter.Add(time.Hour)), Identity{"bob", x.NotAfter}},
	} {
		if got, err := tt.creds.Authenticate(tt.r, nil); err != nil || got.Principal != tt.want.Principal || !got.Expires.Equal(tt.want.Expires) {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, tt.want)
		}
	}
	// A certificate that nobody has verified is none.
	r.TLS.VerifiedChains = nil
	for _, instead := range []bool{true, false} {
		if got, err := (&Credentials{Certificates: &Certificates{Instead: instead}}).Authenticate(r, nil); err == nil {
			t.Errorf("not verified: %+v", got)
		}
	}
}

// A token that is bound to a certificate is good with that one only.
func TestCertificateBoundToken(t *testing.T) {
	a := newAuthority(t)
	i := newIssuer(t).listens(t)
	v := mustOIDC(t, OIDCOptions{Issuer: i.url, Audience: audience, Logger: testLog(t)})
	request := func() (*http.Request, string) {
		x, err := x509.ParseCertificate(a.issue(t, func(*x509.Certificate) {}).Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest("GET", "/mcp", nil)
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{x}}
		sum := sha256.Sum256(x.Raw)
		return r, i.es256("ec-1", i.claims(time.Now(), map[string]any{"cnf": map[string]any{"x5t#S256": b64(sum[:])}}))
	}
	mine, token := request()
	if _, err := v.verify(mine, token); err != nil {
		t.Error(err)
	}
	theirs, _ := request()
	if _, err := v.verify(theirs, token); err == nil || !strings.Contains(err.Error(), "bound to a client certificate") {
		t.Errorf("with another certificate: %v", err)
	}
}

func TestTLSMistakes(t *testing.T) {
	dir := t.TempDir()
	a := newAuthority(t)
	cert, key := texts(t, a.issue(t, named("gateway.test")))
	_, otherKey := texts(t, a.issue(t, named("gateway.test")))
	file := func(name string, text []byte) string {
		put(t, filepath.Join(dir, name), text)
		return filepath.Join(dir, name)
	}
	c, k, other := file("cert.pem", cert), file("key.pem", key), file("other.pem", otherKey)
	for _, tt := range []struct {
		o         TLSOptions
		key, want string
	}{
		{TLSOptions{Cert: c}, "cert", "without a key"},
		{TLSOptions{Key: k}, "key", "without a certificate"},
		{TLSOptions{Cert: c, Key: filepath.Join(dir, "none")}, "cert", "none"},
		{TLSOptions{Cert: c, Key: other}, "cert", "does not match"},
		{TLSOptions{Cert: k, Key: k}, "cert", "key.pem"},
		{TLSOptions{Cert: c, Key: k, ClientCA: k}, "client_ca", "no certificate in PEM form"},
		{TLSOptions{Cert: c, Key: k, ACME: &ACMEOptions{Domains: []string{"a.example"}, Cache: dir}}, "acme", "choose one"},
		{TLSOptions{ACME: &ACMEOptions{Cache: dir}}, "acme.domains", "no domain"},
		{TLSOptions{ACME: &ACMEOptions{Domains: []string{"*.example.com"}, Cache: dir}}, "acme.domains", "not the name of one host"},
		{TLSOptions{ACME: &ACMEOptions{Domains: []string{"a.example", "192.0.2.1"}, Cache: dir}}, "acme.domains", `"192.0.2.1"`},
		{TLSOptions{ACME: &ACMEOptions{Domains: []string{"localhost"}, Cache: dir}}, "acme.domains", "not the name"},
		{TLSOptions{ACME: &ACMEOptions{Domains: []string{"https://a.example"}, Cache: dir}}, "acme.domains", "not the name"},
		{TLSOptions{ACME: &ACMEOptions{Domains: []string{"a.example"}}}, "acme.cache", "no place"},
		{TLSOptions{ACME: &ACMEOptions{Domains: []string{"a.example"}, Cache: filepath.Join(c, "x")}}, "acme.cache", "can write to"},
		{TLSOptions{ACME: &ACMEOptions{Domains: []string{"a.example"}, Cache: dir, Directory: "http://acme.example"}}, "acme.directory", "not an https URL"},
	} {
		tt.o.Logger = testLog(t)
		_, err := NewServerTLS(tt.o)
		var bad *badSetting
		if !errors.As(err, &bad) || bad.key != tt.key || !strings.Contains(err.Error(), tt.want) || bad.remedy == "" {
			t.Errorf("%+v: %v, want %s: %q", tt.o, err, tt.key, tt.want)
		}
	}
}

// An acmeServer is an authority that speaks as much of RFC 8555 as a client
// needs that proves its domain by tls-alpn-01, and that does what an authority
// must: it connects to the server and looks for its key authorization there.
type acmeServer struct {
	t      *testing.T
	ca     *authority
	url    string
	target string // where every domain leads

	mu         sync.Mutex
	n          int
	thumbprint string
	contact    []string
	orders     []string // domains, in the order of their orders
	valid      map[int]bool
	certs      map[int][]byte
	refuse     bool
}

func (s *acmeServer) fail(w http.ResponseWriter, status int, format string, args ...any) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"type": "urn:ietf:params:acme:error:unauthorized", "detail": fmt.Sprintf(format, args...), "status": status})
}

func (s *acmeServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n++
	w.Header().Set("Replay-Nonce", fmt.Sprintf("nonce-%d", s.n))
	reply := func(status int, v any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(v)
	}
	what, id, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	var n int
	fmt.Sscan(id, &n)
	var payload []byte
	if r.Method == http.MethodPost {
		var jws struct{ Protected, Payload string }
		if err := json.NewDecoder(r.Body).Decode(&jws); err != nil {
			s.fail(w, 400, "%v", err)
			return
		}
		head, _ := b64dec(jws.Protected)
		payload, _ = b64dec(jws.Payload)
		var protected struct {
			JWK *struct{ Crv, Kty, X, Y string }
		}
		if json.Unmarshal(head, &protected) == nil && protected.JWK != nil {
			// RFC 7638, 3: the members of the key in order of their names.
			k := protected.JWK
			sum := sha256.Sum256(fmt.Appendf(nil, `{"crv":%q,"kty":%q,"x":%q,"y":%q}`, k.Crv, k.Kty, k.X, k.Y))
			s.thumbprint = b64(sum[:])
		}
	}
	order := func(n int) map[string]any {
		o := map[string]any{"status": "pending", "identifiers": []any{map[string]any{"type": "dns", "value": s.orders[n]}},
			"authorizations": []string{fmt.Sprintf("%s/authz/%d", s.url, n)}, "finalize": fmt.Sprintf("%s/finalize/%d", s.url, n)}
		if s.valid[n] {
			o["status"] = "ready"
		}
		if s.certs[n] != nil {
			o["status"], o["certificate"] = "valid", fmt.Sprintf("%s/cert/%d", s.url, n)
		}
		return o
	}
	switch what {
	case "dir":
		reply(200, map[string]any{"newNonce": s.url + "/nonce", "newAccount": s.url + "/account", "newOrder": s.url + "/new-order"})
	case "nonce":
	case "account":
		var a struct{ Contact []string }
		_ = json.Unmarshal(payload, &a)
		s.contact = a.Contact
		w.Header().Set("Location", s.url+"/account/1")
		reply(201, map[string]any{"status": "valid"})
	case "new-order":
		if s.refuse {
			s.fail(w, 403, "too many certificates this week")
			return
		}
		var o struct{ Identifiers []struct{ Value string } }
		if json.Unmarshal(payload, &o) != nil || len(o.Identifiers) != 1 {
			s.fail(w, 400, "bad order %s", payload)
			return
		}
		s.orders = append(s.orders, o.Identifiers[0].Value)
		n := len(s.orders) - 1
		w.Header().Set("Location", fmt.Sprintf("%s/order/%d", s.url, n))
		reply(201, order(n))
	case "order":
		w.Header().Set("Location", r.URL.String())
		reply(200, order(n))
	case "authz", "challenge":
		c := map[string]any{"type": "tls-alpn-01", "url": fmt.Sprintf("%s/challenge/%d", s.url, n), "token": fmt.Sprintf("token-%d", n), "status": "pending"}
		status := "pending"
		if what == "challenge" {
			if err := s.validate(s.orders[n], fmt.Sprintf("token-%d", n)); err != nil {
				s.t.Errorf("the authority's validation: %v", err)
				s.fail(w, 403, "%v", err)
				return
			}
			s.valid[n] = true
		}
		if s.valid[n] {
			status, c["status"] = "valid", "valid"
		}
		if what == "challenge" {
			reply(200, c)
			return
		}
		reply(200, map[string]any{"status": status, "identifier": map[string]any{"type": "dns", "value": s.orders[n]}, "challenges": []any{c}})
	case "finalize":
		var f struct{ CSR string }
		_ = json.Unmarshal(payload, &f)
		der, _ := b64dec(f.CSR)
		csr, err := x509.ParseCertificateRequest(der)
		if err != nil || !s.valid[n] {
			s.fail(w, 403, "order %d, %v", n, err)
			return
		}
		der, err = s.ca.sign(csr.PublicKey, func(c *x509.Certificate) { c.DNSNames, c.NotAfter = csr.DNSNames, time.Now().Add(90*24*time.Hour) })
		if err != nil {
			s.fail(w, 500, "%v", err)
			return
		}
		s.certs[n] = der
		w.Header().Set("Location", fmt.Sprintf("%s/order/%d", s.url, n))
		reply(200, order(n))
	case "cert":
		w.Header().Set("Content-Type", "application/pem-certificate-chain")
		_ = pem.Encode(w, &pem.Block{Type: "CERTIFICATE", Bytes: s.certs[n]})
		_ = pem.Encode(w, &pem.Block{Type: "CERTIFICATE", Bytes: s.ca.cert.Raw})
	default:
		s.fail(w, 404, "no %s here", r.URL)
	}
}

func b64dec(s string) ([]byte, error) {
	var b []byte
	err := json.Unmarshal(fmt.Appendf(nil, "%q", strings.NewReplacer("-", "+", "_", "/").Replace(s)+strings.Repeat("=", (4-len(s)%4)%4)), &b)
	return b, err
}

// validate is RFC 8737, 3: the server must show a certificate for the domain
// with the hash of the key authorization in an extension, to whoever offers
// acme-tls/1.
func (s *acmeServer) validate(domain, token string) error {
	c, err := tls.Dial("tcp", s.target, &tls.Config{ServerName: domain, NextProtos: []string{acme.ALPNProto}, InsecureSkipVerify: true})
	if err != nil {
		return err
	}
	defer c.Close()
	state := c.ConnectionState()
	if state.NegotiatedProtocol != acme.ALPNProto {
		return fmt.Errorf("the server chose %q", state.NegotiatedProtocol)
	}
	leaf := state.PeerCertificates[0]
	if len(leaf.DNSNames) != 1 || leaf.DNSNames[0] != domain {
		return fmt.Errorf("the certificate is for %q", leaf.DNSNames)
	}
	sum := sha256.Sum256([]byte(token + "." + s.thumbprint))
	want := append([]byte{4, 32}, sum[:]...) // OCTET STRING
	for _, e := range leaf.Extensions {
		if e.Id.String() == "1.3.6.1.5.5.7.1.31" && e.Critical && string(e.Value) == string(want) {
			// Nothing is served on such a connection, with or without a certificate.
			if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: "+domain+"\r\n\r\n"); err != nil {
				return nil
			}
			if b, _ := io.ReadAll(c); len(b) > 0 {
				return fmt.Errorf("the server answered %q", b)
			}
			return nil
		}
	}
	return errors.New("the key authorization is not in the certificate")
}

// A certificate is asked for, proved, issued, served and kept, also if clients
// need certificates themselves; other names get none.
func TestACME(t *testing.T) {
	ca := newAuthority(t)
	dir := t.TempDir()
	caFile := filepath.Join(dir, "clients.pem")
	put(t, caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw}))
	authority := &acmeServer{t: t, ca: ca, valid: map[int]bool{}, certs: map[int][]byte{}}
	web := httptest.NewServer(authority)
	defer web.Close()
	authority.url = web.URL
	var l logs
	o := TLSOptions{ClientCA: caFile, Logger: l.logger(), ACME: &ACMEOptions{Domains: []string{"mcp.example.com", "other.example.com"},
		Cache: filepath.Join(dir, "acme"), Email: "ops@example.com", Directory: web.URL + "/dir"}}
	start := func() string {
		t.Helper()
		s, err := NewServerTLS(o)
		if err != nil {
			t.Fatal(err)
		}
		addr := tlsServer(t, s, http.NotFoundHandler())
		authority.mu.Lock()
		authority.target = addr
		authority.mu.Unlock()
		return addr
	}
	addr := start()
	client := ca.issue(t, func(c *x509.Certificate) { c.Subject.CommonName = "ada" })
	cfg := func(name string) *tls.Config {
		return &tls.Config{RootCAs: ca.pool(), ServerName: name, Certificates: []tls.Certificate{client}, NextProtos: []string{"http/1.1"}}
	}
	orders := func() int {
		authority.mu.Lock()
		defer authority.mu.Unlock()
		return len(authority.orders)
	}
	first, err := servedBy(t, addr, cfg("mcp.example.com"))
	if err != nil {
		t.Fatal(err)
	}
	if n, err := servedBy(t, addr, cfg("MCP.example.com")); err != nil || n != first || orders() != 1 {
		t.Errorf("again: certificate %d, %v, after %d orders", n, err, orders())
	}
	if c := authority.contact; len(c) != 1 || c[0] != "mailto:ops@example.com" {
		t.Errorf("the account's contact is %q", c)
	}
	for _, name := range []string{"evil.example.com", "example.com", "x.mcp.example.com", ""} {
		c := cfg(name)
		c.InsecureSkipVerify = true
		if n, err := servedBy(t, addr, c); err == nil {
			t.Errorf("%q: certificate %d", name, n)
		}
	}
	// After a restart the certificate comes from the cache, whatever has become
	// of the authority.
	authority.mu.Lock()
	authority.refuse = true
	authority.mu.Unlock()
	addr = start()
	if n, err := servedBy(t, addr, cfg("mcp.example.com")); err != nil || n != first || orders() != 1 {
		t.Errorf("after a restart: certificate %d, %v, after %d orders", n, err, orders())
	}
	for range 3 {
		if _, err := servedBy(t, addr, cfg("other.example.com")); err == nil {
			t.Error("a certificate that was refused")
		}
	}
	if n := strings.Count(l.String(), "no certificate could be had by ACME"); n != 1 || !strings.Contains(l.String(), "too many certificates this week") {
		t.Errorf("%d failures in the log:\n%s", n, l.String())
	}
	info, err := os.Stat(o.ACME.Cache)
	if err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("the cache is readable by others: %v, %v", info.Mode(), err)
	}
}
