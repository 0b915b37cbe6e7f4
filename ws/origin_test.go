package ws

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// originRequest is a request with a Host and, unless it is "-", an Origin.
func originRequest(host, origin string) *http.Request {
	r := httptest.NewRequest("GET", "/", nil)
	r.Host = host
	if origin != "-" {
		r.Header.Set("Origin", origin)
	}
	return r
}

// TestOriginSame: without any option only pages of the server itself connect,
// and programs, which send no Origin.
func TestOriginSame(t *testing.T) {
	for _, tc := range []struct {
		host, origin string
		tls          bool
		want         bool
	}{
		{"example.com", "-", false, true},
		{"example.com", "http://example.com", false, true},
		{"example.com", "https://example.com", false, true}, // TLS ends at a proxy
		{"example.com", "https://example.com", true, true},
		{"EXAMPLE.com", "http://example.COM", false, true},
		{"example.com", "HTTP://example.com", false, true},
		{"example.com:80", "http://example.com", false, true},
		{"example.com", "http://example.com:80", false, true},
		{"example.com:443", "https://example.com", true, true},
		{"example.com:8080", "http://example.com:8080", false, true},
		{"127.0.0.1:8080", "http://127.0.0.1:8080", false, true},
		{"[::1]:8080", "http://[::1]:8080", false, true},
		{"[::1]", "http://[::1]", false, true},

		{"example.com", "http://evil.example", false, false},
		{"example.com", "http://example.com.evil.example", false, false},
		{"example.com", "http://evilexample.com", false, false},
		{"example.com", "http://sub.example.com", false, false},
		{"sub.example.com", "http://example.com", false, false},
		{"example.com:8080", "http://example.com", false, false},
		{"example.com:8080", "http://example.com:8081", false, false},
		{"example.com", "http://example.com:8080", false, false},
		{"example.com", "http://example.com", true, false}, // the page came without TLS
		{"example.com:443", "http://example.com", false, false},
		{"localhost", "http://127.0.0.1", false, false},
		{"127.0.0.1", "http://localhost", false, false},
		{"example.com", "null", false, false},
		{"null", "null", false, false},
		{"example.com", "", false, false},
		{"example.com", "example.com", false, false},
		{"example.com", "://example.com", false, false},
		{"example.com", "http://", false, false},
		{"example.com", "http://example.com/", false, false},
		{"example.com", "http://example.com/path", false, false},
		{"example.com", "http://user@example.com", false, false},
		{"example.com", "http://evil.example#example.com", false, false},
		{"example.com", "http://evil.example, http://example.com", false, false},
		{"example.com", "http://example.com http://evil.example", false, false},
		{"example.com", "file://example.com", false, false},
		{"example.com", "chrome-extension://example.com", false, false},
		{"*", "http://*", false, false},
	} {
		r := originRequest(tc.host, tc.origin)
		if tc.tls {
			r.TLS = &tls.ConnectionState{}
		}
		he := judgeOrigin(r, &AcceptOptions{})
		if (he == nil) != tc.want {
			t.Errorf("host %q, origin %q, TLS %v: got %v, want allowed %v", tc.host, tc.origin, tc.tls, he, tc.want)
		}
		if he != nil && (he.Status != 403 || !strings.Contains(he.Reason, "AcceptOptions.Origins")) {
			t.Errorf("origin %q: the refusal does not say what to set: %v", tc.origin, he)
		}
	}
}

// TestOriginPatterns: what Origins allows besides.
func TestOriginPatterns(t *testing.T) {
	for _, tc := range []struct {
		pattern, origin string
		want            bool
	}{
		{"app.example", "http://app.example", true},
		{"app.example", "https://app.example", true},
		{"App.Example", "https://APP.example", true},
		{"app.example/", "https://app.example", true},
		{"app.example", "https://app.example:443", true},
		{"app.example", "http://app.example:443", false},
		{"app.example", "https://app.example:8443", false},
		{"app.example", "https://www.app.example", false},
		{"app.example", "https://app.example.evil.example", false},
		{"app.example:8443", "https://app.example:8443", true},
		{"app.example:8443", "https://app.example", false},
		{"app.example:443", "https://app.example", true},
		{"app.example:443", "http://app.example", false},
		{"https://app.example", "https://app.example", true},
		{"https://app.example", "http://app.example", false},
		{"https://app.example:8443", "https://app.example:8443", true},
		{"https://app.example:8443", "https://app.example", false},
		{"*.example.com", "https://a.example.com", true},
		{"*.example.com", "https://a.b.example.com", true},
		{"*.example.com", "https://example.com", false},
		{"*.example.com", "https://evilexample.com", false},
		{"*.example.com", "https://a.example.com.evil.example", false},
		{"https://*.example.com", "http://a.example.com", false},
		{"app?.example", "https://app1.example", true},
		{"app?.example", "https://app12.example", false},
		{"app?.example", "https://app.example", false},
		{"localhost:*", "http://localhost:5173", true},
		{"localhost:*", "http://localhost", true},
		{"localhost:*", "http://localhost.evil.example:5173", false},
		{"[::1]:*", "http://[::1]:5173", true},
		{"[::1]", "http://[::1]", true},
		{"[::1]", "http://[::2]", false},
		{"http://*", "http://anything.example", true},
		{"http://*", "https://anything.example", false},
		{"chrome-extension://abcdef", "chrome-extension://abcdef", true},
		{"chrome-extension://*", "chrome-extension://abcdef", true},
		{"abcdef", "chrome-extension://abcdef", false},
		{"chrome-extension://abcdef", "moz-extension://abcdef", false},
		{"null", "null", true},
		{"null", "http://null.example", false},
		{"null", "NULL", false},
		{"*", "null", true},
		{"*", "gopher://anything", true},
		{"*", "no origin at all", true},
		{"", "http://app.example", false},
		{"http://", "http://app.example", false},
		{"**.example", "https://a.example", true},
		{"a*b*c", "https://a1b2b3c", true},
		{"a*b*c", "https://a1b2b3d", false},
	} {
		he := judgeOrigin(originRequest("server.example", tc.origin), &AcceptOptions{Origins: []string{"other.example", tc.pattern}})
		if (he == nil) != tc.want {
			t.Errorf("pattern %q, origin %q: got %v, want allowed %v", tc.pattern, tc.origin, he, tc.want)
		}
	}
}

// TestOriginOptions: CheckOrigin decides alone, RequireOrigin wants one, and a
// browser's request that has lost its Origin is refused whatever is set.
func TestOriginOptions(t *testing.T) {
	yes := func(*http.Request) bool { return true }
	no := func(*http.Request) bool { return false }
	two := originRequest("a.example", "http://a.example")
	two.Header.Add("Origin", "http://a.example")
	browser := originRequest("a.example", "-")
	browser.Header.Set("Sec-Fetch-Dest", "websocket")
	for _, tc := range []struct {
		name string
		r    *http.Request
		o    AcceptOptions
		says string // "": allowed
		rule string
	}{
		{name: "CheckOrigin allows", r: originRequest("a.example", "http://evil.example"), o: AcceptOptions{CheckOrigin: yes, RequireOrigin: true}},
		{name: "CheckOrigin allows none at all", r: originRequest("a.example", "-"), o: AcceptOptions{CheckOrigin: yes, RequireOrigin: true}},
		{name: "CheckOrigin refuses", r: originRequest("a.example", "http://a.example"), o: AcceptOptions{CheckOrigin: no, Origins: []string{"*"}}, says: "CheckOrigin"},
		{name: "CheckOrigin refuses none at all", r: originRequest("a.example", "-"), o: AcceptOptions{CheckOrigin: no}, says: "absent"},
		{name: "RequireOrigin", r: originRequest("a.example", "-"), o: AcceptOptions{RequireOrigin: true, Origins: []string{"*"}}, says: "RequireOrigin"},
		{name: "RequireOrigin and there is one", r: originRequest("a.example", "http://a.example"), o: AcceptOptions{RequireOrigin: true}},
		{name: "two", r: two, o: AcceptOptions{Origins: []string{"*"}}, says: "2 Origin"},
		{name: "browser", r: browser, o: AcceptOptions{Origins: []string{"*"}}, says: "Sec-Fetch", rule: "HS-17"},
	} {
		he := judgeOrigin(tc.r, &tc.o)
		switch {
		case tc.says == "" && he != nil:
			t.Errorf("%s: %v", tc.name, he)
		case tc.says != "" && (he == nil || he.Status != 403 || !strings.Contains(he.Reason, tc.says)):
			t.Errorf("%s: got %v, want 403 and %q", tc.name, he, tc.says)
		case tc.rule != "":
			wantRule(t, he, tc.rule)
		}
	}
}

// TestHosts: the allow-list against DNS rebinding, and the value for loopback.
func TestHosts(t *testing.T) {
	loopback := LoopbackHosts()
	for _, tc := range []struct {
		allowed []string
		host    string
		want    bool
	}{
		{nil, "evil.example", true}, // an option, off by default
		{loopback, "localhost", true},
		{loopback, "localhost:8080", true},
		{loopback, "LocalHost:1", true},
		{loopback, "localhost.", true},
		{loopback, "localhost.:8080", true},
		{loopback, "127.0.0.1", true},
		{loopback, "127.0.0.1:8080", true},
		{loopback, "127.8.9.10", true},
		{loopback, "[::1]", true},
		{loopback, "[::1]:8080", true},
		{loopback, "[0:0:0:0:0:0:0:1]:80", true},
		{loopback, "[0000::0001]", true},
		{loopback, "::1", true},
		{loopback, "[::ffff:127.0.0.1]:80", true},
		{loopback, "[::ffff:7f00:1]", true},

		{loopback, "evil.example", false},
		{loopback, "evil.example:8080", false},
		{loopback, "localhost.evil.example", false},
		{loopback, "evil.localhost", false},
		{loopback, "127.0.0.1.evil.example", false},
		{loopback, "128.0.0.1", false},
		{loopback, "192.168.0.1", false},
		{loopback, "0.0.0.0", false},
		{loopback, "[::]", false},
		{loopback, "[::2]", false},
		{loopback, "[::1%25lo]", false},
		{loopback, "[::ffff:8.8.8.8]", false},
		{loopback, "", false},
		{loopback, ":8080", false},

		{[]string{"example.com"}, "Example.COM:123", true},
		{[]string{"example.com:8080"}, "example.com:8080", true},
		{[]string{"example.com:8080"}, "example.com", false},
		{[]string{"example.com:8080"}, "example.com:80", false},
		{[]string{"example.com:80*"}, "example.com:8080", true},
		{[]string{"*.example.com"}, "a.example.com:1", true},
		{[]string{"*.example.com"}, "example.com", false},
		{[]string{"*"}, "anything", true},
		{[]string{"10.0.0.0/8"}, "10.1.2.3:80", true},
		{[]string{"10.0.0.0/8"}, "11.1.2.3", false},
		{[]string{"10.0.0.0/8"}, "ten.example", false},
		{[]string{"fd00::/8"}, "[fd12::1]:80", true},
		{[]string{"192.0.2.1"}, "[::ffff:192.0.2.1]", true},
		{[]string{"[2001:db8::1]:443"}, "[2001:DB8:0::1]:443", true},
		{[]string{"[2001:db8::1]:443"}, "[2001:db8::1]:80", false},
	} {
		r := originRequest(tc.host, "-")
		he := judgeHost(r, tc.allowed)
		if (he == nil) != tc.want {
			t.Errorf("host %q, allowed %q: got %v, want allowed %v", tc.host, tc.allowed, he, tc.want)
		}
		if he != nil && (he.Status != 403 || !strings.Contains(he.Reason, "AcceptOptions.Hosts")) {
			t.Errorf("host %q: the refusal does not say what to set: %v", tc.host, he)
		}
	}
	// Each caller has a list of his own.
	loopback[0] = "evil.example"
	if LoopbackHosts()[0] != "localhost" {
		t.Error("LoopbackHosts can be changed by its callers")
	}
}

// TestMatchIsBounded: patterns that make backtracking matchers explode take at
// most the product of the lengths in steps; 2^64 of them would not end.
func TestMatchIsBounded(t *testing.T) {
	if match(strings.Repeat("*a", 64)+"b", strings.Repeat("a", 4096)) {
		t.Error("matched")
	}
	if !match(strings.Repeat("*a", 64)+"*", strings.Repeat("a", 4096)) {
		t.Error("not matched")
	}
}
