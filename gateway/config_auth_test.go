package gateway

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

const authToml = `[tls]
cert      = "cert.pem"
key       = "/etc/weft/key.pem"
client_ca = "clients.pem"

[auth]
attach = ["cert:lamp"]
tokens = [{ principal = "ci", env = "CI_TOKEN" }]

[auth.oidc]
issuer     = "https://id.example.com/realms/tools"
audience   = "https://mcp.example.com"
scopes     = ["mcp:tools"]
claims     = { groups = "engineers", email_verified = true, level = 3, "realm_access.roles" = "mcp" }
algorithms = ["ES256"]
public_url = "https://mcp.example.com"

[auth.certificate]
use  = "instead"
name = "uri"
`

func TestConfigAuth(t *testing.T) {
	t.Setenv("CI_TOKEN", "0123456789abcdef")
	file := write(t, "weft.toml", authToml)
	c, err := LoadConfig(file)
	if err != nil {
		t.Fatal(err)
	}
	creds, err := c.Credentials(testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	if p, ok := creds.Tokens.Verify("0123456789abcdef"); !ok || p != "ci" {
		t.Errorf("the token is %q's, %v", p, ok)
	}
	want := OIDCOptions{Issuer: "https://id.example.com/realms/tools", Audience: "https://mcp.example.com", Scopes: []string{"mcp:tools"},
		Claims: map[string]any{"groups": "engineers", "email_verified": true, "level": int64(3), "realm_access.roles": "mcp"}, Algorithms: []string{"ES256"}}
	got := creds.OIDC.o
	got.Logger = nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the issuer is %+v, want %+v", got, want)
	}
	if *creds.Certificates != (Certificates{Instead: true, Name: URIName}) {
		t.Errorf("certificates %+v", *creds.Certificates)
	}
	if r := c.Resource(); !reflect.DeepEqual(*r, Resource{PublicURL: "https://mcp.example.com", AuthorizationServers: []string{want.Issuer}, Scopes: want.Scopes}) {
		t.Errorf("resource %+v", *r)
	}
	dir := filepath.Dir(file)
	if o := c.TLSOptions(); !reflect.DeepEqual(o, TLSOptions{Cert: filepath.Join(dir, "cert.pem"), Key: "/etc/weft/key.pem", ClientCA: filepath.Join(dir, "clients.pem")}) {
		t.Errorf("TLS %+v", o)
	}
	if c, err = LoadConfig(write(t, "weft.toml", "[tls.acme]\ndomains = [\"a.example\"]\ncache = \"acme\"\nemail = \"ops@a.example\"\ndirectory = \"https://acme.example/dir\"\n")); err != nil {
		t.Fatal(err)
	}
	acme := c.TLSOptions().ACME
	if acme == nil || filepath.Base(acme.Cache) != "acme" || !filepath.IsAbs(acme.Cache) || acme.Email != "ops@a.example" || acme.Directory != "https://acme.example/dir" || len(acme.Domains) != 1 {
		t.Errorf("ACME %+v", acme)
	}
	if c, err = LoadConfig(write(t, "weft.toml", "")); err != nil {
		t.Fatal(err)
	}
	creds, err = c.Credentials(testLog(t))
	if err != nil || *creds != (Credentials{}) || c.Resource() != nil || !reflect.DeepEqual(c.TLSOptions(), TLSOptions{}) {
		t.Errorf("without any: %+v, %v", creds, err)
	}
}

// A mistake in them names the file, the line and the remedy.
func TestConfigAuthMistakes(t *testing.T) {
	const oidc = "[auth.oidc]\nissuer = \"https://id.example\"\naudience = \"a\"\n"
	for _, tt := range []struct{ text, want string }{
		{"[auth.oidc]\n", `weft.toml:1: there is no issuer; give the URL that stands as "iss"`},
		{"\n[auth.oidc]\nissuer = \"https://id.example\"\n", "weft.toml:2: there is no audience"},
		{"[auth]\noidc = { issuer = \"http://id.example\", audience = \"a\" }\n", "weft.toml:2: issuer \"http://id.example\" is not an https URL"},
		{oidc + "algorithms = [\"HS256\"]\n", `weft.toml:4: algorithm "HS256" is none that a published key verifies; choose from RS256`},
		{oidc + "scopes = [\"a b\"]\n", `weft.toml:4: "a b" is not a scope; write each`},
		{oidc + "keys = \"id.example/keys\"\n", `weft.toml:4: keys "id.example/keys" is not a URL`},
		{oidc + "claims = { groups = [\"a\"] }\n", `weft.toml:4: claim "groups" is neither`},
		{oidc + "[auth.oidc.claims]\ngroups = [\"a\"]\n", `weft.toml:4: claim "groups" is neither`},
		{oidc + "public_url = \"https://a.example/gate\"\n", `weft.toml:4: public_url "https://a.example/gate" is not an https URL without a path; write`},
		{oidc + "audiense = \"a\"\n", `weft.toml:4: there is no setting "auth.oidc.audiense"; did you mean "audience"?`},
		{"[auth]\nnone = true\n" + oidc, "weft.toml:2: nobody needs a credential, and there are credentials; remove none"},
		{"[auth.certificate]\nuse = \"instead\"\n", "weft.toml:1: client certificates are wanted, and no authority for them is known; name the authority's PEM file: client_ca under [tls]"},
		{"[tls]\nclient_ca = \"a\"\n[auth.certificate]\nuse = \"maybe\"\n", `weft.toml:4: use "maybe" is none of besides, instead; choose`},
		{"[tls]\nclient_ca = \"a\"\n[auth.certificate]\nname = \"dn\"\n", `weft.toml:4: name "dn" is none of common_name, dns, email, uri; choose`},
		{"[tls]\nclient_ca = \"a\"\n", "weft.toml:1: there is no certificate; name PEM files"},
		{"[tls]\ncert = \"a\"\n", "weft.toml:2: there is a certificate without a key; name the key's PEM file too"},
		{"[tls]\nkey = \"a\"\n", "weft.toml:2: there is a key without a certificate"},
		{"[tls]\ncert = \"none.pem\"\nkey = \"none.pem\"\n", "weft.toml:2: certificate "},
		{"[tls]\ncerts = \"a\"\n", `weft.toml:2: there is no setting "tls.certs"; did you mean "cert"?`},
		{"[tls.acme]\ncache = \"a\"\n", "weft.toml:1: there is no domain to ask a certificate for"},
		{"[tls.acme]\ndomains = [\"*.a.example\"]\ncache = \"a\"\n", `weft.toml:2: "*.a.example" is not the name of one host; name each in full`},
		{"[tls.acme]\ndomains = [\"a.example\"]\n", "weft.toml:1: there is no place for the certificates; name a directory"},
		{"[tls.acme]\ndomains = [\"a.example\"]\ncache = \"a\"\ndirectory = \"x\"\n", `weft.toml:4: directory "x" is not a URL`},
		{"[tls]\ncert = \"a\"\nkey = \"a\"\n[tls.acme]\ndomains = [\"a.example\"]\ncache = \"a\"\n", "weft.toml:4: there is a certificate in a file and one by ACME; choose one"},
		{"[tls.acme]\ndomain = [\"a.example\"]\n", `weft.toml:2: there is no setting "tls.acme.domain"; did you mean "domains"?`},
	} {
		c, err := LoadConfig(write(t, "weft.toml", tt.text))
		if err == nil {
			_, err = c.Credentials(testLog(t))
		}
		if err == nil {
			if _, err = NewServerTLS(c.TLSOptions()); err != nil {
				err = c.TLSError(err)
			}
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v, want %q", tt.text, err, tt.want)
		}
	}
}

// What the documentation shows can be read, with every key in it, alone and all
// together where that makes sense.
func TestConfigDocumented(t *testing.T) {
	t.Setenv("FAR_TOKEN", "x")
	page, err := os.ReadFile("../docs/gateway.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := 0
	for block := range strings.SplitSeq(string(page), "```toml\n") {
		text, _, ok := strings.Cut(block, "```")
		if !strings.HasPrefix(block, "[") && !strings.HasPrefix(block, "listen") || !ok {
			continue
		}
		blocks++
		if strings.HasPrefix(text, "[auth.certificate]") {
			text += "[tls]\nclient_ca = \"clients.pem\"\n"
		}
		file := write(t, "weft.toml", text)
		if err := os.WriteFile(filepath.Join(filepath.Dir(file), "desktop.json"), []byte(`{"mcpServers":{}}`), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := LoadConfig(file)
		if err != nil {
			t.Errorf("%s\n%v", text, err)
			continue
		}
		if _, err := c.Routes(Env{Builtin: &pipes{}}); err != nil {
			t.Errorf("%s\n%v", text, err)
		}
		c.Auth.Tokens = nil // theirs are elsewhere
		if _, err := c.Credentials(testLog(t)); err != nil {
			t.Errorf("%s\n%v", text, err)
		}
	}
	if blocks < 5 {
		t.Errorf("%d blocks of configuration in the page, want 5 at least", blocks)
	}
}
