package gateway

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"github.com/weft-ws/weft/mcpws"
	"github.com/weft-ws/weft/mcpws/envelope"
)

// A Config is what a weft.toml says. docs/gateway.md describes every key.
type Config struct {
	Listen  string   `toml:"listen"`
	Origins []string `toml:"origins"`
	Hosts   []string `toml:"hosts"`
	Merged  *bool    `toml:"merged"` // offer all servers together under /mcp; default true

	// Import names files with "mcpServers", as desktop clients have them.
	Import []string `toml:"import"`

	Auth    AuthConfig              `toml:"auth"`
	TLS     *TLSConfig              `toml:"tls"`
	Limits  LimitsConfig            `toml:"limits"`
	Servers map[string]ServerConfig `toml:"servers"`

	file string
	text []byte
}

// AuthConfig says who may come in.
type AuthConfig struct {
	None        bool               `toml:"none"`
	Tokens      []TokenConfig      `toml:"tokens"`
	Attach      []string           `toml:"attach"` // principals who may attach servers
	OIDC        *OIDCConfig        `toml:"oidc"`
	Certificate *CertificateConfig `toml:"certificate"`
}

// OIDCConfig says which tokens of an issuer are good: [OIDCOptions].
type OIDCConfig struct {
	Issuer     string         `toml:"issuer"`
	Audience   string         `toml:"audience"`
	Scopes     []string       `toml:"scopes"`
	Claims     map[string]any `toml:"claims"`
	Algorithms []string       `toml:"algorithms"`
	Keys       string         `toml:"keys"`
	PublicURL  string         `toml:"public_url"` // Resource.PublicURL
}

// CertificateConfig says what a client's certificate is good for:
// [Certificates].
type CertificateConfig struct {
	Use  string `toml:"use"`  // besides (a token; default) or instead
	Name string `toml:"name"` // which name is the principal's
}

// TLSConfig says how the port speaks TLS: [TLSOptions].
type TLSConfig struct {
	Cert     string      `toml:"cert"`
	Key      string      `toml:"key"`
	ClientCA string      `toml:"client_ca"`
	ACME     *ACMEConfig `toml:"acme"`
}

// ACMEConfig says where the certificate comes from: [ACMEOptions].
type ACMEConfig struct {
	Domains   []string `toml:"domains"`
	Cache     string   `toml:"cache"`
	Email     string   `toml:"email"`
	Directory string   `toml:"directory"`
}

// TokenConfig is a long-lived token, kept outside the file.
type TokenConfig struct {
	Principal string `toml:"principal"`
	File      string `toml:"file"`
	Env       string `toml:"env"`
}

// LimitsConfig bounds clients.
type LimitsConfig struct {
	Connections  int `toml:"connections"`
	PerAddress   int `toml:"per_address"`
	PerPrincipal int `toml:"per_principal"`

	CallsPerAddress    int  `toml:"calls_per_address"`
	CallsPerPrincipal  int  `toml:"calls_per_principal"`
	BytesPerConnection Size `toml:"bytes_per_connection"`
	BytesPerAddress    Size `toml:"bytes_per_address"`
	BytesPerPrincipal  Size `toml:"bytes_per_principal"`
}

// ServerConfig is one server: a command, the URL of a WebSocket or Streamable
// HTTP server, or the built-in tools.
type ServerConfig struct {
	Command string            `toml:"command"`
	Args    []string          `toml:"args"`
	Dir     string            `toml:"dir"`
	Env     map[string]string `toml:"env"`
	Inherit []string          `toml:"inherit"`

	URL     string            `toml:"url"`
	Headers map[string]string `toml:"headers"`

	Builtin bool `toml:"builtin"`

	Disabled   bool     `toml:"disabled"`
	Isolation  string   `toml:"isolation"`
	PoolSize   int      `toml:"pool_size"`
	Allow      []string `toml:"allow"`
	Deny       []string `toml:"deny"`
	Principals []string `toml:"principals"`

	Framing string `toml:"framing"`
	Newline string `toml:"newline"`
	Binary  string `toml:"binary"`
	Errors  string `toml:"errors"`

	MessageMax  Size     `toml:"message_max"`
	RequestMax  Size     `toml:"request_max"`
	CallsMax    int      `toml:"calls_max"`
	CallTimeout Duration `toml:"call_timeout"`
}

// A Size is a number of bytes, written as a number or as text with a unit:
// "64KiB", "16MiB".
type Size int64

// UnmarshalTOML reads a number or a text.
func (s *Size) UnmarshalTOML(v any) error {
	switch v := v.(type) {
	case int64:
		*s = Size(v)
		return nil
	case string:
		num, factor := v, int64(1)
		for suffix, f := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
			if rest, ok := strings.CutSuffix(v, suffix); ok {
				num, factor = strings.TrimSpace(rest), f
			}
		}
		n, err := strconv.ParseInt(num, 10, 64)
		if err == nil && n >= 0 && n <= 1<<62/factor {
			*s = Size(n * factor)
			return nil
		}
	}
	return fmt.Errorf("%v is not a size; write a number of bytes or for instance \"16MiB\"", v)
}

// A Duration is a time written as text: "30s", "10m"; "off" is negative.
type Duration time.Duration

// UnmarshalTOML reads a text.
func (d *Duration) UnmarshalTOML(v any) error {
	s, ok := v.(string)
	if ok && s == "off" {
		*d = -1
		return nil
	}
	t, err := time.ParseDuration(s)
	if !ok || err != nil || t < 0 {
		return fmt.Errorf("%v is not a time; write for instance \"30s\" or \"10m\", or \"off\"", v)
	}
	*d = Duration(t)
	return nil
}

// A ConfigError is a mistake in a configuration file.
type ConfigError struct {
	File   string
	Line   int    // 0: unknown
	What   string // what is wrong
	Remedy string // what to do
}

// Error is "file:line: what; remedy".
func (e *ConfigError) Error() string {
	where := e.File
	if e.Line > 0 {
		where += ":" + strconv.Itoa(e.Line)
	}
	if e.Remedy == "" {
		return where + ": " + e.What
	}
	return where + ": " + e.What + "; " + e.Remedy
}

// LoadConfig reads a weft.toml, or a JSON file with "mcpServers", and the files
// it imports. A mistake is a *[ConfigError].
func LoadConfig(file string) (*Config, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	c := &Config{file: file, text: text, Servers: map[string]ServerConfig{}}
	if strings.HasSuffix(file, ".json") {
		return c, c.addJSON(file, text)
	}
	md, err := toml.NewDecoder(bytes.NewReader(text)).Decode(c)
	if err != nil {
		ce := &ConfigError{File: file, What: err.Error()}
		var pe toml.ParseError
		if errors.As(err, &pe) {
			ce.Line, ce.What = pe.Position.Line, pe.Message
			if ce.What == "" {
				ce.What = strings.TrimPrefix(pe.Error(), "toml: ")
			}
		}
		return nil, ce
	}
	if extra := md.Undecoded(); len(extra) > 0 {
		key := extra[0]
		ce := &ConfigError{File: file, Line: c.line(key...), What: fmt.Sprintf("there is no setting %q", key.String()), Remedy: "remove it"}
		if near := nearest(key[len(key)-1], settings(key[:len(key)-1])); near != "" {
			ce.Remedy = fmt.Sprintf("did you mean %q?", near)
		}
		return nil, ce
	}
	for _, name := range c.Import {
		path := c.path(name)
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, c.wrong(err.Error(), "create the file or remove it from import", "import")
		}
		if err := c.addJSON(path, b); err != nil {
			return nil, err
		}
	}
	return c, c.checkAuth()
}

// checkAuth finds what contradicts itself.
func (c *Config) checkAuth() error {
	a := &c.Auth
	if a.None && (a.OIDC != nil || len(a.Tokens) > 0 || a.Certificate != nil) {
		return c.wrong("nobody needs a credential, and there are credentials", "remove none, or the others", "auth", "none")
	}
	if a.Certificate == nil {
		return nil
	}
	if c.TLS == nil || c.TLS.ClientCA == "" {
		return c.wrong("client certificates are wanted, and no authority for them is known", "name the authority's PEM file: client_ca under [tls]", "auth", "certificate")
	}
	if !slices.Contains([]string{"", "besides", "instead"}, a.Certificate.Use) {
		return c.wrong(fmt.Sprintf("use %q is none of besides, instead", a.Certificate.Use), "choose one of them: a certificate besides a token, or instead of it", "auth", "certificate", "use")
	}
	if !slices.Contains([]CertificateName{"", CommonName, DNSName, EmailName, URIName}, CertificateName(a.Certificate.Name)) {
		return c.wrong(fmt.Sprintf("name %q is none of common_name, dns, email, uri", a.Certificate.Name), "choose one of them", "auth", "certificate", "name")
	}
	return nil
}

// path finds a file that is named in the configuration: beside it, unless the
// name says where.
func (c *Config) path(name string) string {
	if name == "" || filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(c.file), name)
}

// Credentials returns what the configuration lets clients in by. Tokens is nil
// if there are none in it.
func (c *Config) Credentials(log *slog.Logger) (*Credentials, error) {
	out := &Credentials{}
	var err error
	if len(c.Auth.Tokens) > 0 {
		if out.Tokens, err = c.Tokens(); err != nil {
			return nil, err
		}
	}
	if o := c.Auth.OIDC; o != nil {
		out.OIDC, err = NewOIDC(OIDCOptions{Issuer: o.Issuer, Audience: o.Audience, Keys: o.Keys, Algorithms: o.Algorithms,
			Scopes: o.Scopes, Claims: o.Claims, Logger: log})
		if err != nil {
			return nil, c.badSetting(err, "auth", "oidc")
		}
		if u, err := url.Parse(o.PublicURL); o.PublicURL != "" && (err != nil || unsafeURL(o.PublicURL) != "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "") {
			return nil, c.wrong(fmt.Sprintf("public_url %q is not an https URL without a path", o.PublicURL),
				"write for instance \"https://mcp.example.com\"", "auth", "oidc", "public_url")
		}
	}
	if cert := c.Auth.Certificate; cert != nil {
		out.Certificates = &Certificates{Instead: cert.Use == "instead", Name: CertificateName(cert.Name)}
	}
	return out, nil
}

// Resource is what clients are told about where tokens come from, nil if they
// come from no issuer.
func (c *Config) Resource() *Resource {
	o := c.Auth.OIDC
	if o == nil {
		return nil
	}
	return &Resource{PublicURL: o.PublicURL, AuthorizationServers: []string{o.Issuer}, Scopes: slices.Clone(o.Scopes)}
}

// TLSOptions returns the options of the port, the zero value without a [tls]
// table.
func (c *Config) TLSOptions() TLSOptions {
	if c.TLS == nil {
		return TLSOptions{}
	}
	o := TLSOptions{Cert: c.path(c.TLS.Cert), Key: c.path(c.TLS.Key), ClientCA: c.path(c.TLS.ClientCA)}
	if a := c.TLS.ACME; a != nil {
		o.ACME = &ACMEOptions{Domains: a.Domains, Cache: c.path(a.Cache), Email: a.Email, Directory: a.Directory}
	}
	return o
}

// TLSError says where in the file the cause of an error of [NewServerTLS]
// stands.
func (c *Config) TLSError(err error) error { return c.badSetting(err, "tls") }

// badSetting says where in the file a wrong setting of a table stands.
func (c *Config) badSetting(err error, table ...string) error {
	var bad *badSetting
	if !errors.As(err, &bad) {
		return err
	}
	key := append(slices.Clone(table), strings.Split(bad.key, ".")...)
	return c.wrong(bad.what, bad.remedy, key...)
}

// jsonServer is an entry of "mcpServers" as Claude, Cursor, VS Code and others
// write it. Members that only concern the client are ignored.
type jsonServer struct {
	Type     string            `json:"type"`
	Command  string            `json:"command"`
	Args     []string          `json:"args"`
	Env      map[string]string `json:"env"`
	Cwd      string            `json:"cwd"`
	URL      string            `json:"url"`
	Headers  map[string]string `json:"headers"`
	Disabled bool              `json:"disabled"`
}

func (c *Config) addJSON(file string, text []byte) error {
	var f struct {
		MCPServers map[string]jsonServer `json:"mcpServers"`
		Servers    map[string]jsonServer `json:"servers"`
	}
	if err := json.Unmarshal(text, &f); err != nil {
		ce := &ConfigError{File: file, What: err.Error(), Remedy: "the file must be JSON with an object \"mcpServers\""}
		var se *json.SyntaxError
		var te *json.UnmarshalTypeError
		switch {
		case errors.As(err, &se):
			ce.Line = 1 + bytes.Count(text[:min(int(se.Offset), len(text))], []byte("\n"))
		case errors.As(err, &te):
			ce.Line = 1 + bytes.Count(text[:min(int(te.Offset), len(text))], []byte("\n"))
		}
		return ce
	}
	servers := f.MCPServers
	if servers == nil {
		servers = f.Servers // VS Code's name for it
	}
	if servers == nil {
		return &ConfigError{File: file, What: "there is no \"mcpServers\" in it", Remedy: "name a file with the servers of a desktop client"}
	}
	for _, name := range slices.Sorted(maps.Keys(servers)) {
		s := servers[name]
		slug := slugOf(name)
		line := lineOfText(text, strconv.Quote(name))
		if _, dup := c.Servers[slug]; dup {
			return &ConfigError{File: file, Line: line, What: fmt.Sprintf("there are two servers %q", slug), Remedy: "rename one"}
		}
		sc := ServerConfig{Command: s.Command, Args: s.Args, Env: s.Env, Dir: s.Cwd, URL: s.URL, Headers: s.Headers, Disabled: s.Disabled}
		if what, remedy := s.typeMistake(); what != "" && !s.Disabled {
			return &ConfigError{File: file, Line: line, What: fmt.Sprintf("server %q %s", name, what), Remedy: remedy}
		}
		c.Servers[slug] = sc
	}
	return nil
}

// slugOf makes a name fit for a URL.
func slugOf(name string) string {
	s := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_', r == '.':
			return r
		}
		return '-'
	}, name)
	return strings.Trim(s, "-_.")
}

func lineOfText(text []byte, s string) int {
	i := bytes.Index(text, []byte(s))
	if i < 0 {
		return 0
	}
	return 1 + bytes.Count(text[:i], []byte("\n"))
}

var (
	tableLine = regexp.MustCompile(`^\s*\[+\s*([^\]]+?)\s*\]+`)
	keyLine   = regexp.MustCompile(`^\s*([A-Za-z0-9_."'-]+)\s*=`)
)

// line finds where a key stands, 0 if it cannot be told.
func (c *Config) line(key ...string) int {
	want := strings.Join(key, ".")
	table := ""
	for i, l := range strings.Split(string(c.text), "\n") {
		found := ""
		if m := tableLine.FindStringSubmatch(l); m != nil {
			table = strings.Map(unquoteKey, m[1])
			found = table
		} else if m := keyLine.FindStringSubmatch(l); m != nil {
			if found = strings.Map(unquoteKey, m[1]); table != "" {
				found = table + "." + found
			}
		}
		if found != "" && found == want {
			return i + 1
		}
	}
	return 0
}

func unquoteKey(r rune) rune {
	if r == '"' || r == '\'' || r == ' ' {
		return -1
	}
	return r
}

func (c *Config) wrong(what, remedy string, key ...string) error {
	line := 0
	for n := len(key); n > 0 && line == 0; n-- {
		line = c.line(key[:n]...)
	}
	return &ConfigError{File: c.file, Line: line, What: what, Remedy: remedy}
}

// settings are the keys that may stand in a table.
func settings(table []string) []string {
	t := reflect.TypeFor[Config]()
	for _, name := range table {
		for t.Kind() == reflect.Slice || t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		if t.Kind() == reflect.Map {
			t = t.Elem()
			continue
		}
		found := false
		for i := range t.NumField() {
			if t.Field(i).Tag.Get("toml") == name {
				t, found = t.Field(i).Type, true
				break
			}
		}
		if !found {
			return nil
		}
	}
	for t.Kind() == reflect.Slice || t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	var out []string
	for i := range t.NumField() {
		if tag := t.Field(i).Tag.Get("toml"); tag != "" {
			out = append(out, tag)
		}
	}
	return out
}

// nearest is the candidate that a misspelt word was probably meant to be.
func nearest(word string, candidates []string) string {
	best, least := "", 3
	for _, c := range candidates {
		if d := distance(word, c); d < least && d < len(word) {
			best, least = c, d
		}
	}
	return best
}

// distance is how many letters have to be added, removed or changed.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next := min(diagonal+cost, row[j]+1, row[j+1]+1)
			diagonal, row[j+1] = row[j+1], next
		}
	}
	return row[len(b)]
}

// Tokens reads the tokens of the configuration.
func (c *Config) Tokens() (*Tokens, error) {
	t := NewTokens()
	for i, tc := range c.Auth.Tokens {
		var secret string
		switch {
		case tc.File != "" && tc.Env == "":
			b, err := os.ReadFile(c.path(tc.File))
			if err != nil {
				return nil, c.wrong(err.Error(), "put the token in this file", "auth.tokens", "file")
			}
			secret = strings.TrimSpace(string(b))
		case tc.Env != "" && tc.File == "":
			secret = os.Getenv(tc.Env)
		default:
			return nil, c.wrong(fmt.Sprintf("token %d has neither or both of file and env", i+1), "name the file or the variable that holds it", "auth.tokens")
		}
		switch {
		case tc.Principal == "":
			return nil, c.wrong(fmt.Sprintf("token %d belongs to nobody", i+1), "add principal = \"NAME\"", "auth.tokens")
		case len(secret) < tokenLenMin:
			return nil, c.wrong(fmt.Sprintf("the token of %q has less than %d characters", tc.Principal, tokenLenMin),
				"take a longer one, for instance the output of: openssl rand -base64 24", "auth.tokens")
		}
		t.Add(tc.Principal, secret)
	}
	return t, nil
}

const tokenLenMin = 16

// Env is what the servers of a configuration need from the program.
type Env struct {
	Logger  *slog.Logger
	Watcher *Watcher
	Builtin Backend
}

// Routes returns the routes of all servers that are not disabled.
func (c *Config) Routes(env Env) ([]Route, error) {
	var out []Route
	for _, name := range slices.Sorted(maps.Keys(c.Servers)) {
		s := c.Servers[name]
		if s.Disabled {
			continue
		}
		r, err := c.route(name, s, env)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

func (c *Config) route(name string, s ServerConfig, env Env) (Route, error) {
	r := Route{Name: name, PoolSize: s.PoolSize, Allow: s.Allow, Deny: s.Deny, Principals: s.Principals,
		MessageMax: int64(s.MessageMax), RequestMax: int(s.RequestMax), CallsMax: s.CallsMax, CallTimeout: time.Duration(s.CallTimeout)}
	var err error
	if r.Isolation, err = ParseIsolation(cmp.Or(s.Isolation, "connection")); err != nil {
		return r, c.wrong(err.Error(), "choose one of them", "servers", name, "isolation")
	}
	d := &r.Dialect
	if d.Framing, err = envelope.ParseFraming(s.Framing); err != nil {
		return r, c.wrong(err.Error(), "choose one of them", "servers", name, "framing")
	}
	if d.Newline, err = mcpws.ParseNewline(s.Newline); err != nil {
		return r, c.wrong(err.Error(), "choose one of them", "servers", name, "newline")
	}
	if d.Binary, err = mcpws.ParseBinary(s.Binary); err != nil {
		return r, c.wrong(err.Error(), "choose one of them", "servers", name, "binary")
	}
	if d.Errors, err = mcpws.ParseErrors(s.Errors); err != nil {
		return r, c.wrong(err.Error(), "choose one of them", "servers", name, "errors")
	}
	kinds := 0
	if s.Command != "" {
		kinds++
		if strings.ContainsAny(s.Command, " ") && len(s.Args) == 0 {
			if _, err := os.Stat(s.Command); err != nil {
				return r, c.wrong(fmt.Sprintf("command %q is not run by a shell", s.Command),
					"put the words after the first into args", "servers", name, "command")
			}
		}
		if r.RequestMax == 0 {
			r.RequestMax = commandRequestMax
		}
		r.Backend = &Command{Path: s.Command, Args: s.Args, Dir: s.Dir, Env: s.Env, Inherit: s.Inherit,
			LineMax: int(s.MessageMax), Logger: env.Logger, Watcher: env.Watcher}
	}
	if s.URL != "" {
		kinds++
		if r.Backend, err = c.remote(name, s, r.Isolation, env); err != nil {
			return r, err
		}
	}
	if s.Builtin {
		kinds++
		r.Backend = env.Builtin
		if r.MessageMax == 0 {
			r.MessageMax = BuiltinLargeMax + 1<<20
		}
	}
	if kinds != 1 {
		return r, c.wrong(fmt.Sprintf("server %q has %d of command, url and builtin", name, kinds), "give exactly one", "servers", name)
	}
	b, err := json.Marshal(s)
	if err != nil {
		return r, err
	}
	r.Fingerprint = string(b)
	if err := r.check(); err != nil {
		return r, c.wrong(err.Error(), "", "servers", name)
	}
	return r, nil
}

// commandRequestMax is what servers of the TypeScript SDK take at most on
// standard input; a larger message ends them.
const commandRequestMax = 10 << 20
