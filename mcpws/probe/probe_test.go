package probe

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/weft-ws/weft/mcpws"
	"github.com/weft-ws/weft/ws"
)

func run(t *testing.T, o Options) map[string]Result {
	t.Helper()
	got := map[string]Result{}
	if err := Run(t.Context(), o, func(r Result) { got[r.ID] = r }); err != nil {
		t.Fatal(err)
	}
	return got
}

// Our own endpoint does everything as wanted.
func TestOwnEndpoint(t *testing.T) {
	server := mcp.NewServer(&mcp.Implementation{Name: "t", Version: "1"}, nil)
	h := mcpws.NewHandler(func(*http.Request) *mcp.Server { return server },
		&mcpws.HandlerOptions{Accept: ws.AcceptOptions{Hosts: ws.LoopbackHosts()}})
	s := httptest.NewServer(h)
	t.Cleanup(func() { s.Close(); h.Shutdown(t.Context()) })
	got := run(t, Options{URL: "ws" + strings.TrimPrefix(s.URL, "http")})
	if len(got) < 50 {
		t.Errorf("%d cases", len(got))
	}
	for id, r := range got {
		if !r.OK {
			t.Errorf("%s %s: got %s, want %s", id, r.Case, r.Got, r.Want)
		}
	}
}

// An endpoint with known faults is found out, and every finding says why and
// what to do.
func TestFaultsAreFound(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := ws.Accept(w, r, &ws.AcceptOptions{CheckOrigin: func(*http.Request) bool { return true },
			ChooseSubprotocol: func(_ *http.Request, offered []string) (string, error) {
				if len(offered) > 0 {
					return offered[0], nil // the first, whatever it is
				}
				return "", nil
			}})
		if err != nil {
			return
		}
		for { // answers initialize and nothing else
			_, p, err := c.ReadMessage(t.Context())
			if err != nil {
				return
			}
			if strings.Contains(string(p), `"initialize"`) {
				_ = c.WriteMessage(t.Context(), ws.Text, []byte(`{"jsonrpc":"2.0","id":90001,"result":{"protocolVersion":"2025-11-25","serverInfo":{}}}`))
			}
		}
	}))
	t.Cleanup(s.Close)
	got := run(t, Options{URL: "ws" + strings.TrimPrefix(s.URL, "http"), Timeout: 20 * time.Millisecond, SlowTimeout: time.Second})
	for _, id := range []string{"H2", "H4", "H5", "H8", "H9", "F1", "F4", "F15", "M1", "M2", "J1", "J2", "J7", "J11", "P4", "P6"} {
		r := got[id]
		if r.OK || r.Why == "" || r.Fix == "" || r.Got == "" {
			t.Errorf("%s: %+v", id, r)
		}
	}
	for _, id := range []string{"H1", "H3", "F5", "F12", "F16", "P1"} {
		if r := got[id]; !r.OK {
			t.Errorf("%s: %+v", id, r)
		}
	}
}

func TestCannotLook(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(s.Close)
	for _, url := range []string{"http://127.0.0.1/", "ws" + strings.TrimPrefix(s.URL, "http"), "ws://127.0.0.1:1/", "ws://127.0.0.1/?ticket=x"} {
		if err := Run(t.Context(), Options{URL: url}, func(Result) { t.Error("a case was run") }); err == nil {
			t.Errorf("%s: no error", url)
		}
	}
}
