package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"
)

// TLSOptions say with which certificate a server answers, and which
// certificates of clients it takes.
type TLSOptions struct {
	// Cert and Key name PEM files with a certificate, its chain behind it, and
	// its key.
	Cert, Key string
	// ACME gets the certificate from an authority instead.
	ACME *ACMEOptions

	// ClientCA names a PEM file with the authorities of clients' certificates.
	// Clients then need one. May be empty.
	ClientCA string
	// ClientCertOptional lets clients without a certificate in all the same;
	// one that is not good is refused in any case.
	ClientCertOptional bool

	Logger *slog.Logger // nil: slog.Default()
}

// ACMEOptions say how certificates are had from an authority that speaks ACME
// (RFC 8555). Its operator's terms are thereby accepted. The authority connects
// to port 443 of each domain (challenge tls-alpn-01, RFC 8737), which must lead
// to this server.
type ACMEOptions struct {
	Domains   []string // the names that certificates are asked for, and no others
	Cache     string   // directory for certificates and the account's key
	Email     string   // where the authority can write to; may be empty
	Directory string   // URL of the authority; empty: Let's Encrypt
}

// A ServerTLS is the TLS side of a server. Its files are looked at with every
// new connection and read again when they have changed; what cannot be used is
// logged and changes nothing. All methods may be called from any goroutine.
type ServerTLS struct {
	o    TLSOptions
	log  *slog.Logger
	acme *autocert.Manager // nil: files

	mu       sync.Mutex
	pair     watched
	current  *tls.Certificate
	ca       watched
	withCA   *tls.Config // for clients, with the authorities of now
	acmeFail time.Time   // when a failure was logged last
}

// A watched notices when one of its files has changed.
type watched struct {
	files  []string
	stamps []fileStamp
}

type fileStamp struct {
	modified time.Time
	size     int64
}

// changed compares the files with the last time.
func (w *watched) changed() bool {
	now := make([]fileStamp, len(w.files))
	for i, f := range w.files {
		if info, err := os.Stat(f); err == nil {
			now[i] = fileStamp{info.ModTime(), info.Size()}
		}
	}
	changed := !slices.Equal(now, w.stamps)
	w.stamps = now
	return changed
}

// NewServerTLS reads the files. A mistake in an option or a file is an error.
func NewServerTLS(o TLSOptions) (*ServerTLS, error) {
	s := &ServerTLS{o: o, log: o.Logger}
	if s.log == nil {
		s.log = slog.Default()
	}
	switch {
	case o.ACME != nil && (o.Cert != "" || o.Key != ""):
		return nil, &badSetting{"acme", "there is a certificate in a file and one by ACME", "choose one of them"}
	case o.ACME != nil:
		if err := s.startACME(); err != nil {
			return nil, err
		}
	case o.Cert == "" && o.Key == "":
		return nil, &badSetting{"cert", "there is no certificate", "name PEM files with a certificate and its key (cert, key), or get one by ACME (acme)"}
	case o.Key == "":
		return nil, &badSetting{"cert", "there is a certificate without a key", "name the key's PEM file too"}
	case o.Cert == "":
		return nil, &badSetting{"key", "there is a key without a certificate", "name the certificate's PEM file too"}
	default:
		s.pair.files = []string{o.Cert, o.Key}
		s.pair.changed()
		var err error
		if s.current, err = s.loadPair(); err != nil {
			return nil, &badSetting{"cert", err.Error(), "the certificate comes first in its PEM file, then the chain; the key has a file of its own"}
		}
	}
	if o.ClientCA != "" {
		s.ca.files = []string{o.ClientCA}
		s.ca.changed()
		var err error
		if s.withCA, err = s.loadCA(); err != nil {
			return nil, &badSetting{"client_ca", err.Error(), "name a PEM file with the certificates of authorities"}
		}
	}
	return s, nil
}

// Config returns the configuration for a listener.
func (s *ServerTLS) Config() *tls.Config {
	c := s.plain()
	c.GetConfigForClient = s.forClient
	return c
}

// plain is what all configurations have in common. WebSocket begins with
// HTTP/1.1.
func (s *ServerTLS) plain() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: s.certificate, NextProtos: []string{"http/1.1"}}
}

// Reload reads the files now, changed or not.
func (s *ServerTLS) Reload() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pair.stamps, s.ca.stamps = nil, nil
	s.refreshLocked()
}

// refreshLocked reads what has changed.
func (s *ServerTLS) refreshLocked() {
	if s.acme == nil && s.pair.changed() {
		if c, err := s.loadPair(); err != nil {
			s.log.Error("the new certificate cannot be used, the old one stays in use", "err", err)
		} else {
			s.current = c
		}
	}
	if s.o.ClientCA != "" && s.ca.changed() {
		if c, err := s.loadCA(); err != nil {
			s.log.Error("the new authorities for client certificates cannot be used, the old ones stay in use", "err", err)
		} else {
			s.withCA = c
		}
	}
}

func (s *ServerTLS) loadPair() (*tls.Certificate, error) {
	c, err := tls.LoadX509KeyPair(s.o.Cert, s.o.Key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", s.o.Cert, s.o.Key, err)
	}
	if left := time.Until(c.Leaf.NotAfter); left < 0 {
		s.log.Warn("the certificate has expired", "file", s.o.Cert, "not_after", c.Leaf.NotAfter)
	}
	s.log.Info("certificate read", "file", s.o.Cert, "names", c.Leaf.DNSNames, "not_after", c.Leaf.NotAfter)
	return &c, nil
}

// loadCA returns the configuration for clients of the authorities in the file.
func (s *ServerTLS) loadCA() (*tls.Config, error) {
	pem, err := os.ReadFile(s.o.ClientCA)
	if err != nil {
		return nil, err
	}
	c := s.plain()
	c.ClientCAs = x509.NewCertPool()
	if !c.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s has no certificate in PEM form", s.o.ClientCA)
	}
	c.ClientAuth = tls.RequireAndVerifyClientCert
	if s.o.ClientCertOptional {
		c.ClientAuth = tls.VerifyClientCertIfGiven
	}
	// A resumed TLS session would bring a certificate along whose authority may
	// not be in the file any more.
	c.SessionTicketsDisabled = true
	return c, nil
}

// certificate is GetCertificate of all configurations.
func (s *ServerTLS) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if s.acme != nil {
		return s.issued(hello)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refreshLocked()
	return s.current, nil
}

// forClient is GetConfigForClient: what applies to clients may have changed.
func (s *ServerTLS) forClient(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	if s.acme != nil && slices.Equal(hello.SupportedProtos, []string{acme.ALPNProto}) {
		// It is the authority, which has no certificate of ours. RFC 8737, 3:
		// such a connection carries no data; net/http closes it because it knows
		// no such protocol.
		c := s.plain()
		c.NextProtos = []string{acme.ALPNProto}
		return c, nil
	}
	if s.o.ClientCA == "" {
		return nil, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refreshLocked()
	return s.withCA, nil
}

// hostName is a full name in ASCII: labels of letters, digits and dashes, and a
// last one that begins with a letter, so no address.
var hostName = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z][A-Za-z0-9-]{0,62}$`)

func (s *ServerTLS) startACME() error {
	o := s.o.ACME
	if len(o.Domains) == 0 {
		return &badSetting{"acme.domains", "there is no domain to ask a certificate for", "name those under which clients reach the gateway: domains = [\"mcp.example.com\"]"}
	}
	for _, d := range o.Domains {
		if !hostName.MatchString(d) {
			return &badSetting{"acme.domains", fmt.Sprintf("%q is not the name of one host", d), "name each in full, without *, port or path; a certificate for * or an address has to be put into files"}
		}
	}
	if o.Cache == "" {
		return &badSetting{"acme.cache", "there is no place for the certificates", "name a directory that only the gateway can read: cache = \"acme\"; without one every start would ask for new ones, which authorities allow a few times a week"}
	}
	if what := unsafeURL(o.Directory); o.Directory != "" && what != "" {
		return &badSetting{"acme.directory", fmt.Sprintf("directory %q %s", o.Directory, what), "give the URL of the authority's ACME directory, or leave it out for Let's Encrypt"}
	}
	if err := os.MkdirAll(o.Cache, 0o700); err != nil {
		return &badSetting{"acme.cache", err.Error(), "name a directory that the gateway can write to"}
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DisableKeepAlives = true // a few requests in months
	s.acme = &autocert.Manager{
		Prompt:     autocert.AcceptTOS,
		Cache:      autocert.DirCache(o.Cache),
		HostPolicy: autocert.HostWhitelist(o.Domains...),
		Email:      o.Email,
		Client:     &acme.Client{DirectoryURL: o.Directory, HTTPClient: &http.Client{Transport: t, Timeout: time.Minute}, UserAgent: "weft"},
	}
	if o.Directory == "" {
		s.acme.Client.DirectoryURL = autocert.DefaultACMEDirectory
	}
	return nil
}

// errNotOurs is a client that asks for a name that no certificate is for.
var errNotOurs = errors.New("there is no certificate for this name")

// issued returns the certificate of the authority. Without one in the cache it
// is asked for, which takes seconds.
func (s *ServerTLS) issued(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if s.acme.HostPolicy(context.Background(), strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))) != nil {
		return nil, errNotOurs
	}
	c, err := s.acme.GetCertificate(hello)
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		if now := time.Now(); now.Sub(s.acmeFail) >= time.Minute { // clients try again and again
			s.acmeFail = now
			s.log.Error("no certificate could be had by ACME", "name", hello.ServerName, "err", err)
		}
	}
	return c, err
}
