package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/weft-ws/weft/gateway"
	"github.com/weft-ws/weft/ws"
)

// selfSigned makes a certificate that is its own authority, good for both
// sides, and writes it and its key to files.
func selfSigned(t *testing.T, dir, name string) (cert tls.Certificate, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		NotBefore:   time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, certFile, keyFile
}

// What counts as authentication, so that a port may be open to other machines
// without the flag with the ugly name.
func TestGateCredentials(t *testing.T) {
	const oidc = "[auth.oidc]\nissuer = \"https://id.example\"\naudience = \"a\"\n"
	const certs = "[tls]\nclient_ca = \"ca.pem\"\n[auth.certificate]\n"
	tokenFile := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(tokenFile, []byte("0123456789abcdef\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(tokenEnv, "")
	for name, tt := range map[string]struct {
		noAuth                        bool
		clientCA, tokenFile           string
		config                        string // "": none
		anyone, static, made, besides bool
		oidc, instead                 bool
	}{
		"nothing":                           {made: true, static: true},
		"an empty file":                     {config: "\n", made: true, static: true},
		"no-auth":                           {noAuth: true, anyone: true},
		"no-auth and authorities":           {noAuth: true, clientCA: "ca.pem", instead: true},
		"authorities":                       {clientCA: "ca.pem", made: true, static: true, besides: true},
		"a token file":                      {tokenFile: tokenFile, static: true},
		"an issuer":                         {config: oidc, oidc: true},
		"an issuer and a token file":        {tokenFile: tokenFile, config: oidc, oidc: true, static: true},
		"no-auth and an issuer":             {noAuth: true, config: oidc, anyone: true},
		"certificates instead":              {config: certs + "use = \"instead\"\n", instead: true},
		"certificates besides":              {config: certs, made: true, static: true, besides: true},
		"certificates besides of an issuer": {config: certs + oidc, oidc: true, besides: true},
		"certificates and an issuer":        {config: certs + "use = \"instead\"\n" + oidc, oidc: true, instead: true},
	} {
		var c *gateway.Config
		if tt.config != "" {
			file := filepath.Join(t.TempDir(), "weft.toml")
			if err := os.WriteFile(file, []byte(tt.config), 0o600); err != nil {
				t.Fatal(err)
			}
			var err error
			if c, err = gateway.LoadConfig(file); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		g := &gate{flags: &gateFlags{noAuth: tt.noAuth, clientCA: tt.clientCA, tokenFile: tt.tokenFile}, log: slog.New(slog.DiscardHandler)}
		if err := g.credentials(c); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if g.auth == nil {
			if !tt.anyone {
				t.Errorf("%s: everybody is let in", name)
			}
			continue
		}
		cert := g.auth.Certificates
		if tt.anyone || g.static != tt.static || (g.token != "") != tt.made || (g.auth.OIDC != nil) != tt.oidc ||
			(cert != nil && cert.Instead) != tt.instead || (cert != nil && !cert.Instead) != tt.besides {
			t.Errorf("%s: %+v, certificates %+v, static %v, made %v", name, g.auth, cert, g.static, g.token != "")
		}
		// Whoever shows nothing is not let in.
		if ident, err := g.auth.Authenticate(&http.Request{URL: &url.URL{Path: "/mcp"}, Header: http.Header{}}, nil); err == nil {
			t.Errorf("%s: nobody is let in as %+v", name, ident)
		}
	}
}

// All of a configuration together: TLS, certificates of clients, an issuer that
// cannot be reached.
func TestServeWithCertificatesAndIssuer(t *testing.T) {
	t.Setenv(tokenEnv, "")
	dir := t.TempDir()
	server, _, _ := selfSigned(t, dir, "gateway.test")
	client, _, _ := selfSigned(t, dir, "ada")
	file := filepath.Join(dir, "weft.toml")
	if err := os.WriteFile(file, []byte(`listen = "127.0.0.1:0"
hosts = ["gateway.test", "127.0.0.1"]
[tls]
cert = "gateway.test.pem"
key = "gateway.test.key"
client_ca = "ada.pem"
[auth.certificate]
use = "instead"
[auth.oidc]
issuer = "http://127.0.0.1:1"
audience = "a"
public_url = "https://gateway.test"
[servers.demo]
builtin = true
`), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	errs := &output{told: make(chan struct{}, 1)}
	root := newRootCmd()
	root.SetArgs([]string{"serve", "--config", file})
	root.SetOut(io.Discard)
	root.SetErr(errs)
	done := make(chan error, 1)
	go func() { done <- root.ExecuteContext(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	base := ""
	for base == "" {
		select {
		case <-errs.told:
			if m := regexp.MustCompile(`weft: listening on (wss://[^/]+)/(?s:.*)mcp call`).FindStringSubmatch(errs.String()); m != nil {
				base = m[1]
			}
		case err := <-done:
			done <- nil
			t.Fatalf("it ended: %v\n%s", err, errs.String())
		}
	}
	for _, want := range []string{"the issuer of tokens cannot be used", "weft: tokens are those of        http://127.0.0.1:1 for a", "weft: or instead                 a client certificate"} {
		if !strings.Contains(errs.String(), want) {
			t.Errorf("it does not print %q:\n%s", want, errs.String())
		}
	}
	leaf, err := x509.ParseCertificate(server.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	dial := func(cert *tls.Certificate) (*ws.Conn, error) {
		cfg := &tls.Config{RootCAs: roots, ServerName: "gateway.test"}
		if cert != nil {
			cfg.Certificates = []tls.Certificate{*cert}
		}
		return ws.Dial(ctx, base+"/mcp/demo", &ws.DialOptions{TLS: cfg, Subprotocols: []string{"mcp"}})
	}
	c, err := dial(&client)
	if err != nil {
		t.Fatalf("with a certificate: %v", err)
	}
	defer c.CloseNow()
	var he *ws.HandshakeError
	if _, err := dial(nil); !errors.As(err, &he) || he.Status != 401 ||
		he.Header.Get("WWW-Authenticate") != `Bearer resource_metadata="https://gateway.test/.well-known/oauth-protected-resource/mcp/demo"` {
		t.Errorf("without: %v", err)
	}
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "gateway.test"}, DisableKeepAlives: true}}
	for path, want := range map[string]string{
		"/.well-known/oauth-protected-resource/mcp/demo": `"resource":"https://gateway.test/mcp/demo"`,
		"/admin/sessions": "a token is needed",
	} {
		resp, err := web.Get("https" + strings.TrimPrefix(base, "wss") + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || !strings.Contains(string(body), want) {
			t.Errorf("%s: %s, %v, want %q", path, body, err, want)
		}
	}
}
