package probe

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/weft-ws/weft/mcpws"
	"github.com/weft-ws/weft/mcpws/envelope"
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
	for _, id := range []string{"H1", "H3", "P1"} {
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

// scripted serves WebSocket clients with what answer returns for each message:
// text to send, "" for nothing, "close" to close the connection.
func scripted(t *testing.T, answer func(raw string, m *envelope.Message, err error) string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := ws.Accept(w, r, &ws.AcceptOptions{Subprotocols: []string{"mcp"}, Hosts: ws.LoopbackHosts(), Config: ws.Config{MaxMessageSize: 16 << 20}})
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			typ, p, err := c.ReadMessage(t.Context())
			if err != nil {
				return
			}
			if typ == ws.Binary {
				_ = c.Close(ws.CloseUnsupportedData, "")
				return
			}
			var dec envelope.Decoder
			err = dec.Feed(time.Now(), p, func(m *envelope.Message, err error) error {
				raw := p
				if m == nil {
					m = &envelope.Message{}
				} else {
					raw = m.Raw
				}
				switch say := answer(string(raw), m, err); say {
				case "":
				case "close":
					_ = c.Close(ws.CloseProtocolError, "bad")
				default:
					return c.WriteMessage(t.Context(), ws.Text, []byte(say))
				}
				return nil
			})
			if err != nil {
				return
			}
		}
	}))
	t.Cleanup(s.Close)
	return "ws" + strings.TrimPrefix(s.URL, "http")
}

// spaced is a server that writes JSON with spaces after colons, as many do, and
// does everything else as wanted of requests.
func spaced(m *envelope.Message) string {
	id := string(m.IDBytes())
	switch {
	case m.Kind != envelope.Request:
		return ""
	case m.Is("initialize"):
		return `{"jsonrpc": "2.0", "id": ` + id + `, "result": {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "x"}}}`
	case m.Is("ping"):
		return `{"result": {}, "id": ` + id + `, "jsonrpc": "2.0"}`
	}
	return `{"jsonrpc": "2.0", "id": ` + id + `, "error": {"code": -32601, "message": "no"}}`
}

// patience is long where an answer is expected and short where silence is.
var patience = Options{Timeout: 10 * time.Second, SlowTimeout: time.Second}

// Servers with one fault each are found to have that fault, and no other of the
// same kind: a probe that cries wolf is of no use.
func TestOneFault(t *testing.T) {
	for name, cs := range map[string]struct {
		answer func(raw string, m *envelope.Message, err error) string
		failed string // cases of JSON-RPC and MCP that fail
	}{
		"only spaces": {func(raw string, m *envelope.Message, err error) string {
			switch {
			case err != nil:
				return `{"jsonrpc": "2.0", "id": null, "error": {"code": -32700, "message": "bad"}}`
			case m.Kind == envelope.Invalid || m.Kind == envelope.Batch:
				return `{"jsonrpc": "2.0", "id": null, "error": {"code": -32600, "message": "bad"}}`
			}
			return spaced(m)
		}, ""},
		"closes on bad JSON": {func(raw string, m *envelope.Message, err error) string {
			switch {
			case err != nil:
				return "close"
			case m.Kind == envelope.Invalid || m.Kind == envelope.Batch:
				return `{"jsonrpc": "2.0", "id": null, "error": {"code": -32600, "message": "bad"}}`
			}
			return spaced(m)
		}, "J1"},
		"string ids become null": {func(raw string, m *envelope.Message, err error) string {
			switch {
			case err != nil:
				return `{"jsonrpc": "2.0", "id": null, "error": {"code": -32700, "message": "bad"}}`
			case m.Kind == envelope.Invalid || m.Kind == envelope.Batch:
				return `{"jsonrpc": "2.0", "id": null, "error": {"code": -32600, "message": "bad"}}`
			case strings.HasPrefix(string(m.IDBytes()), `"`):
				return `{"jsonrpc": "2.0", "id": null, "result": {}}`
			}
			return spaced(m)
		}, "J8 J9"},
	} {
		o := patience
		o.URL = scripted(t, cs.answer)
		got := run(t, o)
		var failed []string
		for _, c := range cases() {
			if r, ok := got[c.id]; ok && !r.OK && (c.id[0] == 'J' || c.id[0] == 'P') {
				failed = append(failed, c.id)
			}
		}
		if all := strings.Join(failed, " "); all != cs.failed {
			t.Errorf("%s: %q failed, want %q", name, all, cs.failed)
			for _, id := range failed {
				t.Logf("%+v", got[id])
			}
		}
	}
}

// What is no MCP server, or says nothing, or too much, is told apart in bounded
// time: the cases that need a session are not asked one by one.
func TestNoSession(t *testing.T) {
	for name, cs := range map[string]struct {
		answer func(raw string, m *envelope.Message, err error) string
		got    string
	}{
		"echo": {func(raw string, _ *envelope.Message, _ error) string { return raw }, "its own text"},
		"mute": {func(string, *envelope.Message, error) string { return "" }, "<silence>"},
	} {
		o := patience
		o.URL = scripted(t, cs.answer)
		got := run(t, o)
		if r := got["P1"]; r.OK || !strings.Contains(r.Got, cs.got) || r.Fix == "" {
			t.Errorf("%s: %+v", name, r)
		}
		if _, asked := got["J1"]; asked || len(got) < 20 {
			t.Errorf("%s: %d cases were asked", name, len(got))
		}
		for _, id := range []string{"F5", "F12", "F18"} {
			if !got[id].OK {
				t.Errorf("%s: %+v", name, got[id])
			}
		}
	}
}

// An endpoint that never stops talking does not keep a case from ending.
func TestEndlessTalk(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := ws.Accept(w, r, &ws.AcceptOptions{Subprotocols: []string{"mcp"}})
		if err != nil {
			return
		}
		defer c.CloseNow()
		go c.Drain(t.Context())
		for c.WriteMessage(t.Context(), ws.Text, []byte(`{"jsonrpc":"2.0","method":"notifications/x"}`)) == nil {
		}
	}))
	t.Cleanup(s.Close)
	o := Options{URL: "ws" + strings.TrimPrefix(s.URL, "http"), Timeout: 5 * time.Millisecond, SlowTimeout: 10 * time.Millisecond}
	if r := run(t, o)["P1"]; r.OK {
		t.Errorf("%+v", r)
	}
}

// The end of the context ends a wait.
func TestContextEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	url := scripted(t, func(string, *envelope.Message, error) string { cancel(); return "" })
	if err := Run(ctx, Options{URL: url, Timeout: time.Hour, SlowTimeout: time.Hour}, func(r Result) { t.Errorf("%+v", r) }); !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}
