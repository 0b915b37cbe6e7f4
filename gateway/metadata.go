package gateway

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/weft-ws/weft/ws"
)

// A Resource is what clients without a good token are told, so that they find
// out by themselves where to get one (RFC 9728).
type Resource struct {
	// PublicURL is the scheme and host under which clients reach the gateway,
	// "https://mcp.example.com", for gateways behind something that changes
	// them. Empty: those of each request.
	PublicURL string
	// AuthorizationServers are the issuers of tokens.
	AuthorizationServers []string
	// Scopes are those that a token needs.
	Scopes []string
}

// metadataPath is where the metadata of https://HOST are; those of
// https://HOST/PATH are at metadataPath/PATH (RFC 9728, 3.1).
const metadataPath = "/.well-known/oauth-protected-resource"

// resourcePath is the path of the resource that a request is for, cleaned of
// what cannot be a server's name. Whether there is such a server is not told to
// those who have not shown a token.
func resourcePath(path string) (string, bool) {
	path = strings.TrimSuffix(path, "/")
	switch name, ok := strings.CutPrefix(path, "/mcp"); {
	case path == "", path == "/mcp":
		return path, true
	case !ok || name[0] != '/' || !routeName.MatchString(name[1:]):
		return "", false
	}
	return path, true
}

// base is the scheme and host under which a request has come.
func (m *Resource) base(r *http.Request) string {
	if m.PublicURL != "" {
		return strings.TrimSuffix(m.PublicURL, "/")
	}
	if r.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

// serveMetadata answers what the resource at a path is. RFC 9728, 2: "resource:
// REQUIRED. The protected resource's resource identifier", which is the URL of
// the WebSocket with https in the place of wss.
func (g *Gateway) serveMetadata(w http.ResponseWriter, r *http.Request) {
	path, ok := resourcePath(strings.TrimPrefix(r.URL.Path, metadataPath))
	m := g.opts.Resource
	if m == nil || !ok {
		http.NotFound(w, r)
		return
	}
	// It is public, and pages of clients read it from their own origins.
	w.Header().Set("Access-Control-Allow-Origin", "*")
	switch r.Method {
	case http.MethodGet, http.MethodHead:
	case http.MethodOptions:
		w.Header().Set("Access-Control-Allow-Methods", "GET")
		w.Header().Set("Access-Control-Allow-Headers", "MCP-Protocol-Version")
		w.WriteHeader(http.StatusNoContent)
		return
	default:
		w.Header().Set("Allow", "GET, HEAD, OPTIONS")
		http.Error(w, "GET gives the metadata", http.StatusMethodNotAllowed)
		return
	}
	writeJSON(w, struct {
		Resource string   `json:"resource"`
		Servers  []string `json:"authorization_servers,omitempty"`
		Scopes   []string `json:"scopes_supported,omitempty"`
		Methods  []string `json:"bearer_methods_supported"`
		Name     string   `json:"resource_name"`
	}{m.base(r) + path, m.AuthorizationServers, m.Scopes, []string{"header"}, "MCP over WebSocket"})
}

// denial is the answer to a request that err says is not to be let in.
func (g *Gateway) denial(r *http.Request, err error) *ws.HandshakeError {
	ae := &AuthError{Code: codeInvalidToken, Reason: err.Error()}
	errors.As(err, &ae)
	he := refusal(cmp.Or(ae.Status, http.StatusUnauthorized), "%s", ae.Reason)
	he.Header = http.Header{}
	if he.Status == http.StatusUnauthorized || he.Status == http.StatusForbidden {
		he.Header.Set("WWW-Authenticate", g.challenge(r, ae))
	}
	if ae.RetryAfter > 0 {
		he.Header.Set("Retry-After", strconv.Itoa(int((ae.RetryAfter+time.Second-1)/time.Second)))
	}
	return he
}

// challenge is the WWW-Authenticate header of a refusal (RFC 6750, 3; RFC 9728,
// 5.1).
func (g *Gateway) challenge(r *http.Request, ae *AuthError) string {
	var params []string
	add := func(name, value string) { params = append(params, fmt.Sprintf("%s=\"%s\"", name, value)) }
	if m := g.opts.Resource; m != nil {
		path, _ := resourcePath(r.URL.Path)
		add("resource_metadata", m.base(r)+metadataPath+path)
	}
	if ae.Code != "" {
		add("error", ae.Code)
		add("error_description", strings.Map(descriptive, ae.Reason))
	}
	if m := g.opts.Resource; m != nil && len(m.Scopes) > 0 {
		add("scope", strings.Join(m.Scopes, " "))
	}
	if params == nil {
		return "Bearer"
	}
	return "Bearer " + strings.Join(params, ", ")
}

// descriptive replaces what may not stand in an error_description. RFC 6750, 3:
// it "MUST NOT include characters outside the set %x20-21 / %x23-5B /
// %x5D-7E".
func descriptive(c rune) rune {
	switch {
	case c == '"':
		return '\''
	case c < ' ' || c > '~' || c == '\\':
		return '?'
	}
	return c
}

// refuse answers a request that is no upgrade.
func (g *Gateway) refuse(w http.ResponseWriter, r *http.Request, err error) {
	he := g.denial(r, err)
	for name, values := range he.Header {
		w.Header()[name] = values
	}
	http.Error(w, he.Reason, he.Status)
}
