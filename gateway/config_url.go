package gateway

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"unicode"
)

// remote returns the backend for a server that has a URL.
func (c *Config) remote(name string, s ServerConfig, i Isolation, env Env) (Backend, error) {
	wrong := func(key, remedy, format string, args ...any) (Backend, error) {
		return nil, c.wrong(fmt.Sprintf(format, args...), remedy, "servers", name, key)
	}
	target, missing := expand(s.URL)
	if missing != "" {
		return wrong("url", "set it, or write ${"+missing+":-DEFAULT}", "the variable %s in the url is not set", missing)
	}
	u, err := url.Parse(target)
	switch {
	case err != nil || u.Host == "":
		return wrong("url", "give for instance https://tools.example/mcp or wss://tools.example/mcp", "url is not the URL of a server")
	case u.Scheme != "ws" && u.Scheme != "wss" && u.Scheme != "http" && u.Scheme != "https":
		return wrong("url", "give the URL of a Streamable HTTP or WebSocket server", "url begins with %q, not with http, https, ws or wss", u.Scheme)
	}
	h := http.Header{}
	for k, v := range s.Headers {
		value, missing := expand(v)
		switch {
		case missing != "":
			return wrong("headers", "set it, or write ${"+missing+":-DEFAULT}", "the variable %s in the header %s is not set", missing, k)
		case !headerName.MatchString(k):
			return wrong("headers", "use letters, digits and dashes", "%q cannot be the name of a header", k)
		case strings.ContainsFunc(value, unicode.IsControl):
			return wrong("headers", "remove it; a file that ends with a line feed may be where it came from",
				"there is a line feed or another control character in the header %s", k)
		}
		h.Set(k, value)
	}
	if strings.HasPrefix(u.Scheme, "ws") {
		return &Remote{URL: target, Header: h, MessageMax: int64(s.MessageMax)}, nil
	}
	if i == Pool {
		return wrong("isolation", "use \"connection\" or \"shared\"", "server %q is reached over HTTP, where nothing can be started in advance", name)
	}
	return &HTTP{URL: target, Header: h, MessageMax: int64(s.MessageMax), Logger: env.Logger}, nil
}

var (
	headerName = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
	variable   = regexp.MustCompile(`\$\{(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(:-[^}]*)?\}|\$([A-Za-z_][A-Za-z0-9_]*)`)
)

// expand puts variables of the environment into a text, in the forms that
// mcpServers files use: $NAME, ${NAME}, ${env:NAME}, ${NAME:-default}. missing
// is one that is not set.
func expand(s string) (out, missing string) {
	out = variable.ReplaceAllStringFunc(s, func(v string) string {
		m := variable.FindStringSubmatch(v)
		name := m[1] + m[3]
		value, ok := os.LookupEnv(name)
		switch {
		case value == "" && m[2] != "":
			return m[2][len(":-"):]
		case !ok:
			missing = name
		}
		return value
	})
	return out, missing
}

// typeMistake says what is wrong with the type of a server that has a URL. The
// names of the types differ between clients; without one the URL says enough.
func (s *jsonServer) typeMistake() (what, remedy string) {
	if s.URL == "" {
		return "", ""
	}
	socket := strings.HasPrefix(s.URL, "ws://") || strings.HasPrefix(s.URL, "wss://")
	switch strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(s.Type)) {
	case "":
	case "ws", "websocket":
		if !socket {
			return fmt.Sprintf("has type %q and a URL that is neither ws nor wss", s.Type), "make the two agree"
		}
	case "http", "streamablehttp":
		if socket {
			return fmt.Sprintf("has type %q and a WebSocket URL", s.Type), "make the two agree"
		}
	case "sse":
		return "uses the HTTP+SSE transport, which is deprecated and not spoken here",
			"give the URL of its Streamable HTTP endpoint, often /mcp instead of /sse, with \"type\": \"http\"; or add \"disabled\": true"
	default:
		return fmt.Sprintf("has type %q", s.Type), "a server with a URL has the type \"http\" or \"ws\""
	}
	return "", ""
}
