package main

import (
	"bytes"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/weft-ws/weft/ws"
)

// Whoever is refused learns what the server said, and what may help.
func TestComplaintsHelp(t *testing.T) {
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	defer page.Close()
	guarded := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = ws.Accept(w, r, &ws.AcceptOptions{Hosts: []string{"example.com"}})
	}))
	defer guarded.Close()
	tls := httptest.NewTLSServer(http.NotFoundHandler())
	defer tls.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().String()
	l.Close()
	for _, c := range []struct{ url, want string }{
		{"ws" + strings.TrimPrefix(page.URL, "http"), "ordinary web page"},
		{"ws" + strings.TrimPrefix(guarded.URL, "http"), "the server says:"},
		{"ws" + strings.TrimPrefix(tls.URL, "https"), "try wss://"},
		{"wss" + strings.TrimPrefix(tls.URL, "https"), "--insecure"},
		{"wss" + strings.TrimPrefix(page.URL, "http"), "try ws://"},
		{"ws://" + closed + "/", "nothing listens there"},
		{closed, "begins with ws://"},
	} {
		_, err := ws.Dial(t.Context(), c.url, nil)
		if err == nil {
			t.Fatalf("%s: no error", c.url)
		}
		var b bytes.Buffer
		complain(&b, err)
		if !strings.HasPrefix(b.String(), "weft: ") || !strings.Contains(b.String(), c.want) {
			t.Errorf("%s: %q does not say %q", c.url, b.String(), c.want)
		}
	}
}
