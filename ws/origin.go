package ws

import (
	"net/http"
	"net/netip"
	"strings"
)

// A page from anywhere may open a WebSocket to anywhere, and the browser sends
// the user's cookies along: nothing but the server's own check of Origin stops
// cross-site hijacking (RFC 6455, 10.2). A name under an attacker's control may
// point at 127.0.0.1: nothing but a check of Host stops DNS rebinding.

// LoopbackHosts is a value for AcceptOptions.Hosts that lets in requests whose
// Host names this machine: localhost, 127.0.0.0/8 and [::1] in all their
// spellings, with any port or none. It is for servers that listen on loopback,
// where it keeps out web pages that had their own name resolve to 127.0.0.1.
func LoopbackHosts() []string {
	return []string{"localhost", "127.0.0.0/8", "[::1]"}
}

// judgeHost applies AcceptOptions.Hosts; an empty list allows every host.
func judgeHost(r *http.Request, allowed []string) *HandshakeError {
	if len(allowed) == 0 || hostAllowed(r.Host, allowed) {
		return nil
	}
	return denial(http.StatusForbidden,
		"host %s is not one that this server answers for; to allow it add it to AcceptOptions.Hosts", shown(r.Host))
}

// hostAllowed reports whether a Host header is matched by an element of
// allowed.
func hostAllowed(hostport string, allowed []string) bool {
	host, port := splitPort(strings.ToLower(hostport))
	host = strings.TrimSuffix(host, ".")
	addr := parseAddr(host)
	for _, pattern := range allowed {
		if prefix, err := netip.ParsePrefix(pattern); err == nil {
			if addr.IsValid() && prefix.Contains(addr) {
				return true
			}
			continue
		}
		wantHost, wantPort := splitPort(strings.ToLower(pattern))
		if wantPort != "" && !match(wantPort, port) {
			continue
		}
		if want := parseAddr(wantHost); want.IsValid() && want == addr || match(wantHost, host) {
			return true
		}
	}
	return false
}

// judgeOrigin applies the origin policy of o.
func judgeOrigin(r *http.Request, o *AcceptOptions) *HandshakeError {
	if o.CheckOrigin != nil {
		if o.CheckOrigin(r) {
			return nil
		}
		return denial(http.StatusForbidden, "origin %s was refused by AcceptOptions.CheckOrigin", shownHeader(r.Header["Origin"]))
	}
	lines := r.Header["Origin"]
	switch {
	case len(lines) > 1:
		return denial(http.StatusForbidden, "there are %d Origin headers; send one", len(lines))
	case len(lines) == 0 && fromBrowser(r):
		// RFC 6455, 4.1: "The request MUST include a header field with the name
		// |Origin| if the request is coming from a browser client."
		return refusal("HS-17", "the request has the Sec-Fetch headers of a browser but no Origin; something on the way removed it")
	case len(lines) == 0 && o.RequireOrigin:
		return denial(http.StatusForbidden, "there is no Origin header and AcceptOptions.RequireOrigin is set")
	case len(lines) == 0:
		// Programs need not send one, and could send any.
		return nil
	}
	origin := trim(lines[0])
	if sameOrigin(r, origin) || originAllowed(origin, o.Origins) {
		return nil
	}
	return denial(http.StatusForbidden,
		"origin %s is not this server's own (host %s); to allow it add it to AcceptOptions.Origins", shown(origin), shown(r.Host))
}

// fromBrowser reports whether r has headers that only a browser sends: scripts
// cannot set names that begin with Sec-.
func fromBrowser(r *http.Request) bool {
	for _, name := range [...]string{"Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest"} {
		if len(r.Header[name]) > 0 {
			return true
		}
	}
	return false
}

// sameOrigin reports whether a page of origin came from the server that r was
// sent to: the same host and port, where no port means the default one.
func sameOrigin(r *http.Request, origin string) bool {
	scheme, host, port, ok := splitOrigin(origin)
	if !ok || defaultPort(scheme) == "" {
		return false
	}
	wantHost, wantPort := splitPort(strings.ToLower(r.Host))
	if wantPort == "" {
		// Without TLS here there may still be TLS at a proxy in front, which only
		// the page's own scheme can tell.
		wantPort = defaultPort(scheme)
		if r.TLS != nil {
			wantPort = "443"
		}
	}
	return host == wantHost && port == wantPort
}

// originAllowed reports whether origin is matched by one of the patterns.
func originAllowed(origin string, patterns []string) bool {
	scheme, host, port, ok := splitOrigin(origin)
	for _, pattern := range patterns {
		pattern = strings.ToLower(strings.TrimSuffix(pattern, "/"))
		if pattern == "*" || pattern == "null" && origin == "null" {
			return true
		}
		if !ok {
			continue
		}
		wantScheme, rest, hasScheme := strings.Cut(pattern, "://")
		if !hasScheme {
			// A pattern that names no scheme means web pages, not the extensions and
			// desktop programs that use schemes of their own.
			if wantScheme, rest = scheme, pattern; defaultPort(scheme) == "" {
				continue
			}
		}
		wantHost, wantPort := splitPort(rest)
		if wantPort == "" {
			wantPort = defaultPort(scheme)
		}
		if wantScheme == scheme && match(wantHost, host) && match(wantPort, port) {
			return true
		}
	}
	return false
}

// splitOrigin splits a serialised origin (RFC 6454, 6.2), in lower case. The
// port is never empty for http and https. "null" and everything that is not an
// origin is not ok.
func splitOrigin(origin string) (scheme, host, port string, ok bool) {
	scheme, rest, ok := strings.Cut(strings.ToLower(origin), "://")
	if !ok || scheme == "" || rest == "" || strings.ContainsAny(rest, "/?#@\\ \t,*") {
		return "", "", "", false
	}
	if host, port = splitPort(rest); port == "" {
		port = defaultPort(scheme)
	}
	return scheme, host, port, host != ""
}

// defaultPort is the port of a web page's URL that names none.
func defaultPort(scheme string) string {
	switch scheme {
	case "http":
		return "80"
	case "https":
		return "443"
	}
	return ""
}

// splitPort splits host, host:port, [v6] and [v6]:port; the host keeps its
// brackets. An IPv6 address without brackets is all host.
func splitPort(s string) (host, port string) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 || i < strings.LastIndexByte(s, ']') || strings.Count(s[:i], ":") > 0 && !strings.HasPrefix(s, "[") {
		return s, ""
	}
	return s[:i], s[i+1:]
}

// parseAddr reads an IP address with or without brackets; the result is not
// valid if it is something else. ::ffff:127.0.0.1 is 127.0.0.1.
func parseAddr(host string) netip.Addr {
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	return addr.Unmap()
}

// match reports whether s is what pattern says: * stands for any run of
// characters, ? for any single one. Only the last * is ever tried again, so the
// work is at most the product of the lengths.
func match(pattern, s string) bool {
	p, i := 0, 0
	star, mark := -1, 0 // the last * and where its run ends for now
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
