package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/weft-ws/weft/gateway"
)

// credentials decides what lets clients in: what the configuration says, if
// there is one, or a token. It leaves g.auth nil for everybody.
func (g *gate) credentials(c *gateway.Config) error {
	f := g.flags
	ca := f.clientCA != "" || c != nil && c.TLS != nil && c.TLS.ClientCA != ""
	if f.noAuth {
		if ca {
			// TLS lets nobody in without a certificate: that is what they need then.
			g.auth = &gateway.Credentials{Certificates: &gateway.Certificates{Instead: true}}
		}
		return nil
	}
	creds := &gateway.Credentials{}
	if c != nil {
		var err error
		if creds, err = c.Credentials(g.log); err != nil {
			return err
		}
	}
	if ca && creds.Certificates == nil {
		creds.Certificates = &gateway.Certificates{}
	}
	g.auth, g.static = creds, true
	switch {
	case creds.Tokens != nil:
	case f.tokenFile == "" && (creds.OIDC != nil || creds.Certificates != nil && creds.Certificates.Instead):
		creds.Tokens, g.static = gateway.NewTokens(), false // for tickets
	default:
		return g.makeTokens()
	}
	return nil
}

// makeTokens takes the token of the command line, or makes one.
func (g *gate) makeTokens() error {
	token := os.Getenv(tokenEnv)
	if f := g.flags.tokenFile; f != "" {
		b, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		if token = strings.TrimSpace(string(b)); token == "" {
			return fmt.Errorf("%s is empty; put a token in it", f)
		}
	}
	if token == "" {
		token = gateway.NewSecret()
		g.token = token
	}
	if len(token) < 16 {
		return errors.New("the token has less than 16 characters; take a longer one, for instance the output of: openssl rand -base64 24")
	}
	g.auth.Tokens = gateway.NewTokens()
	g.auth.Tokens.Add(owner, token)
	return nil
}

// openTLS reads the files for wss, if there are any. Flags win over the
// configuration. g.auth is known by then.
func (g *gate) openTLS(c *gateway.Config) error {
	f := g.flags
	var o gateway.TLSOptions
	if c != nil {
		o = c.TLSOptions()
	}
	if f.tlsCert != "" || f.tlsKey != "" {
		if f.tlsCert == "" || f.tlsKey == "" {
			return errors.New("--tls-cert and --tls-key belong together")
		}
		o.Cert, o.Key, o.ACME = f.tlsCert, f.tlsKey, nil
	}
	if f.clientCA != "" {
		o.ClientCA = f.clientCA
	}
	if o.Cert == "" && o.Key == "" && o.ACME == nil {
		switch {
		case f.clientCA != "":
			return errors.New("--tls-client-ca needs --tls-cert and --tls-key")
		case c == nil || c.TLS == nil:
			return nil
		}
	}
	if a := g.auth; a != nil && a.Certificates != nil {
		o.ClientCertOptional = a.Certificates.Instead && (g.static || a.OIDC != nil)
	}
	o.Logger = g.log
	var err error
	if g.tls, err = gateway.NewServerTLS(o); err != nil && c != nil && f.tlsCert == "" && f.clientCA == "" {
		return c.TLSError(err)
	}
	return err
}

// findIssuer tells at the start if the issuer of tokens cannot be reached. That
// stops nobody else, so it is logged and not an error.
func (g *gate) findIssuer() {
	if g.auth == nil || g.auth.OIDC == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = g.auth.OIDC.Find(ctx)
}

// welcomeAuth prints what clients need and returns what stands before a
// command that connects.
func (g *gate) welcomeAuth(w io.Writer, url string) (prefix string) {
	if g.auth == nil {
		fmt.Fprintln(w, "weft: no token is needed (--no-auth)")
		return ""
	}
	cert := g.auth.Certificates
	switch {
	case g.token != "":
		prefix = tokenEnv + "=" + g.token + " "
		fmt.Fprintf(w, "weft: clients need this header   Authorization: Bearer %s\n", g.token)
		if t, err := g.auth.Tokens.Ticket(owner, 10*time.Minute); err == nil {
			fmt.Fprintf(w, "weft: or, once within 10 min     %s?ticket=%s\n", url, t)
		}
	case g.static || g.auth.OIDC != nil:
		prefix = tokenEnv + "=… "
		fmt.Fprintln(w, "weft: clients need the token as  Authorization: Bearer …")
	}
	if o := g.auth.OIDC; o != nil {
		fmt.Fprintf(w, "weft: tokens are those of        %s for %s\n", o.Issuer(), o.Audience())
	}
	switch {
	case cert == nil:
	case !cert.Instead:
		fmt.Fprintln(w, "weft: and                        a client certificate")
	case prefix == "":
		fmt.Fprintln(w, "weft: clients need               a client certificate")
	default:
		fmt.Fprintln(w, "weft: or instead                 a client certificate")
	}
	return prefix
}
