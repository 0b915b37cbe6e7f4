package mcpws

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"go.uber.org/goleak"

	"github.com/weft-ws/weft/capture"
	"github.com/weft-ws/weft/doctor"
	"github.com/weft-ws/weft/internal/wstest"
	"github.com/weft-ws/weft/mcpws/envelope"
	"github.com/weft-ws/weft/ws"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newServer is an SDK server whose tools do what tests need.
func newServer() *mcp.Server {
	s := mcp.NewServer(&mcp.Implementation{Name: "test", Version: "1"}, nil)
	type text struct {
		Text string `json:"text"`
	}
	mcp.AddTool(s, &mcp.Tool{Name: "echo"}, func(_ context.Context, _ *mcp.CallToolRequest, in text) (*mcp.CallToolResult, any, error) {
		return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: in.Text}}}, nil, nil
	})
	mcp.AddTool(s, &mcp.Tool{Name: "who"}, func(_ context.Context, req *mcp.CallToolRequest, _ struct{}) (*mcp.CallToolResult, any, error) {
		who := "nobody"
		if req.Extra != nil && req.Extra.TokenInfo != nil {
			who = req.Extra.TokenInfo.UserID
		}
		return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: who + " " + req.Extra.Header.Get("X-Test")}}}, nil, nil
	})
	mcp.AddTool(s, &mcp.Tool{Name: "hang"}, func(ctx context.Context, req *mcp.CallToolRequest, _ struct{}) (*mcp.CallToolResult, any, error) {
		if token := req.Params.GetProgressToken(); token != nil {
			if err := req.Session.NotifyProgress(ctx, &mcp.ProgressNotificationParams{ProgressToken: token, Progress: 1}); err != nil {
				return nil, nil, err
			}
		}
		<-ctx.Done()
		return nil, nil, ctx.Err()
	})
	mcp.AddTool(s, &mcp.Tool{Name: "ask"}, func(_ context.Context, req *mcp.CallToolRequest, in text) (*mcp.CallToolResult, any, error) {
		if a, ok := req.Params.InputResponses["a"].(*mcp.ElicitResult); ok {
			return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: fmt.Sprint(a.Content["x"])}}}, nil, nil
		}
		return &mcp.CallToolResult{InputRequests: mcp.InputRequestMap{"a": &mcp.ElicitParams{Message: in.Text}}}, nil, nil
	})
	return s
}

// listen serves h on loopback and returns its ws URL.
func listen(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return "ws" + strings.TrimPrefix(s.URL, "http")
}

func serveMCP(t *testing.T, opts *HandlerOptions) (url string, h *Handler) {
	t.Helper()
	server := newServer()
	h = NewHandler(func(*http.Request) *mcp.Server { return server }, opts)
	url = listen(t, h)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := h.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		for s := range server.Sessions() {
			_ = s.Wait()
		}
	})
	return url, h
}

func text(r *mcp.CallToolResult) string {
	if len(r.Content) == 0 {
		return ""
	}
	c, _ := r.Content[0].(*mcp.TextContent)
	if c == nil {
		return ""
	}
	return c.Text
}

var eras = map[string]string{"legacy": "2025-11-25", "modern": "2026-07-28"}

// SDK client and server talk over the binding in both eras: calls, progress,
// questions to the client, headers and identity.
func TestSDKBothEras(t *testing.T) {
	for name, version := range eras {
		t.Run(name, func(t *testing.T) {
			url, _ := serveMCP(t, &HandlerOptions{Verify: func(r *http.Request) (*auth.TokenInfo, error) {
				if r.Header.Get("Authorization") != "Bearer secret" {
					return nil, errors.New("no token")
				}
				return &auth.TokenInfo{UserID: "ada", Expiration: time.Now().Add(time.Hour)}, nil
			}})
			progress := make(chan float64, 1)
			client := mcp.NewClient(&mcp.Implementation{Name: "c", Version: "1"}, &mcp.ClientOptions{
				ElicitationHandler: func(_ context.Context, req *mcp.ElicitRequest) (*mcp.ElicitResult, error) {
					return &mcp.ElicitResult{Action: "accept", Content: map[string]any{"x": "re: " + req.Params.Message}}, nil
				},
				ProgressNotificationHandler: func(_ context.Context, r *mcp.ProgressNotificationClientRequest) {
					progress <- r.Params.Progress
				},
			})
			// The doctor listens: neither end may break a rule of RFC 6455.
			oracle := wstest.NewOracle(t, wstest.OracleOptions{Doctor: doctor.Options{Handshake: true}})
			tr := &ClientTransport{URL: url, Token: "secret", Dial: &ws.DialOptions{Header: http.Header{"X-Test": {"header"}},
				DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
					nc, err := new(net.Dialer).DialContext(ctx, network, addr)
					if err != nil {
						return nil, err
					}
					return oracle.Conn(nc, capture.Client), nil
				}}}
			session, err := client.Connect(t.Context(), tr, &mcp.ClientSessionOptions{ProtocolVersion: version})
			if err != nil {
				t.Fatal(err)
			}
			defer session.Close()
			if got := session.InitializeResult().ProtocolVersion; got != version {
				t.Errorf("negotiated %s, want %s", got, version)
			}
			for tool, want := range map[string]string{"echo": "hello", "who": "ada header", "ask": "re: hello"} {
				args := map[string]any{"text": "hello"}
				if tool == "who" {
					args = map[string]any{}
				}
				r, err := session.CallTool(t.Context(), &mcp.CallToolParams{Name: tool, Arguments: args})
				if err != nil || text(r) != want {
					t.Errorf("%s: %v, %v, want %q", tool, r, err, want)
				}
			}
			ctx, cancel := context.WithCancel(t.Context())
			params := &mcp.CallToolParams{Name: "hang", Arguments: map[string]any{}}
			params.SetProgressToken("p")
			done := make(chan error, 1)
			go func() {
				_, err := session.CallTool(ctx, params)
				done <- err
			}()
			if got := <-progress; got != 1 {
				t.Errorf("progress %v", got)
			}
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled call: %v", err)
			}
			if n := oracle.Frames(capture.Client); n < 5 {
				t.Errorf("the doctor has seen %d frames of the client", n)
			}
		})
	}
}

func TestNoTokenIs401(t *testing.T) {
	url, _ := serveMCP(t, &HandlerOptions{Verify: func(*http.Request) (*auth.TokenInfo, error) { return nil, errors.New("no token") }})
	_, err := (&ClientTransport{URL: url}).Connect(t.Context())
	var he *ws.HandshakeError
	if !errors.As(err, &he) || he.Status != http.StatusUnauthorized || he.Header.Get("WWW-Authenticate") == "" {
		t.Errorf("got %v", err)
	}
}

func TestS5_ConnectionsMaxIs503(t *testing.T) {
	url, _ := serveMCP(t, &HandlerOptions{ConnectionsMax: 1})
	rawDial(t, url, "mcp")
	_, err := (&ClientTransport{URL: url}).Connect(t.Context())
	var he *ws.HandshakeError
	if !errors.As(err, &he) || he.Status != http.StatusServiceUnavailable || he.Header.Get("Retry-After") == "" {
		t.Errorf("got %v", err)
	}
}

// A rawClient speaks text to an endpoint.
type rawClient struct {
	t *testing.T
	c *ws.Conn
}

func rawDial(t *testing.T, url string, subprotocols ...string) *rawClient {
	t.Helper()
	c, err := ws.Dial(t.Context(), url, &ws.DialOptions{Subprotocols: subprotocols, Config: ws.Config{MaxMessageSize: DefaultMessageMax}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.CloseNow() })
	return &rawClient{t, c}
}

func (r *rawClient) send(msg string) {
	r.t.Helper()
	if err := r.c.WriteMessage(r.t.Context(), ws.Text, []byte(msg)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rawClient) hears(parts ...string) string {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
	defer cancel()
	_, p, err := r.c.ReadMessage(ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, part := range parts {
		if !strings.Contains(string(p), part) {
			r.t.Errorf("heard %s, want %s in it", p, part)
		}
	}
	return string(p)
}

func (r *rawClient) wantsClose(code ws.CloseCode, reason string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
	defer cancel()
	_, p, err := r.c.ReadMessage(ctx)
	var ce *ws.CloseError
	if !errors.As(err, &ce) || ce.Code != code || !strings.Contains(ce.Reason, reason) {
		r.t.Errorf("heard %q, %v, want close %d %q", p, err, code, reason)
	}
}

const initialize = `{"jsonrpc":"2.0","id":%s,"method":"initialize","params":{"protocolVersion":%q,"capabilities":{},"clientInfo":{"name":"raw","version":"1"}}}`

func (r *rawClient) initialize(version string) {
	r.t.Helper()
	r.send(fmt.Sprintf(initialize, `"init"`, version))
	r.hears(`"id":"init"`, `"serverInfo"`)
	r.send(`{"jsonrpc":"2.0","method":"notifications/initialized"}`)
}

func echoCall(id, text string) string {
	b, _ := json.Marshal(text)
	return fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,"method":"tools/call","params":{"name":"echo","arguments":{"text":%s}}}`, id, b)
}

func TestSubprotocol(t *testing.T) {
	url, _ := serveMCP(t, nil)
	for _, tt := range []struct {
		offer []string
		want  string
	}{{nil, ""}, {[]string{"mcp"}, "mcp"}, {[]string{"x", "mcp", "y"}, "mcp"}, {[]string{"mcp.auth.token"}, ""}} {
		if got := rawDial(t, url, tt.offer...).c.Subprotocol(); got != tt.want {
			t.Errorf("offered %q, the server chose %q, want %q", tt.offer, got, tt.want)
		}
	}
}

func TestF6_BinaryIsRefused(t *testing.T) {
	url, _ := serveMCP(t, nil)
	c := rawDial(t, url, "mcp")
	if err := c.c.WriteMessage(t.Context(), ws.Binary, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	c.wantsClose(ws.CloseUnsupportedData, "MCP messages are text")
}

func TestF6_BinaryAsText(t *testing.T) {
	url, _ := serveMCP(t, &HandlerOptions{Options: Options{Dialect: Dialect{Binary: BinaryAsText}}})
	c := rawDial(t, url, "mcp")
	if err := c.c.WriteMessage(t.Context(), ws.Binary, []byte(fmt.Sprintf(initialize, "1", "2025-11-25"))); err != nil {
		t.Fatal(err)
	}
	c.hears(`"id":1`)
}

func TestF7_InvalidUTF8(t *testing.T) {
	url, _ := serveMCP(t, nil)
	c := rawDial(t, url, "mcp")
	// The engine does not send invalid text, so the frame is made by hand: FIN,
	// text, masked with zeros, one byte 0xff.
	nc := hijack(t, url)
	if _, err := nc.Write([]byte{0x81, 0x81, 0, 0, 0, 0, 0xff}); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4)
	if _, err := readFull(nc, b); err != nil || b[0] != 0x88 || int(b[2])<<8|int(b[3]) != 1007 {
		t.Errorf("got % x, %v, want a Close with 1007", b, err)
	}
	c.initialize("2025-11-25") // others go on
}

func TestF8_TooBig(t *testing.T) {
	url, _ := serveMCP(t, &HandlerOptions{Accept: ws.AcceptOptions{Config: ws.Config{MaxMessageSize: 1000}}})
	c := rawDial(t, url, "mcp")
	_ = c.c.WriteMessage(t.Context(), ws.Text, []byte(strings.Repeat(" ", 1001)))
	c.wantsClose(ws.CloseMessageTooBig, "")
}

// The dialects, on a live session.
func TestM1_M2_M4_Dialects(t *testing.T) {
	url, _ := serveMCP(t, nil)
	c := rawDial(t, url, "mcp")
	c.initialize("2025-11-25")
	ids := func(n int) map[string]bool {
		got := map[string]bool{}
		for range n {
			m, err := envelope.Parse([]byte(c.hears("result")))
			if err != nil {
				t.Fatal(err)
			}
			got[string(m.IDBytes())] = true
		}
		return got
	}
	c.send(echoCall("1", "x") + "\n")
	c.send(echoCall("2", "x") + "\r\n" + echoCall("3", "x") + "\n\n" + echoCall("4", "x"))
	c.send("")
	c.send("\n")
	c.send(strings.ReplaceAll(echoCall("5", "x"), ",", ",\n  "))
	if got := ids(5); len(got) != 5 {
		t.Errorf("answers to %v", got)
	}
}

func TestM5_NewlineMirror(t *testing.T) {
	url, _ := serveMCP(t, &HandlerOptions{Options: Options{Dialect: Dialect{Newline: NewlineMirror}}})
	for _, nl := range []string{"", "\n"} {
		c := rawDial(t, url, "mcp")
		c.send(fmt.Sprintf(initialize, "1", "2025-11-25") + nl)
		if got := c.hears(`"id":1`); strings.HasSuffix(got, "\n") != (nl == "\n") {
			t.Errorf("first message ended with %q, the answer is %q", nl, got)
		}
	}
}

func TestM3_StreamMode(t *testing.T) {
	url, _ := serveMCP(t, &HandlerOptions{Options: Options{Dialect: Strict()}})
	c := rawDial(t, url, "mcp")
	msg := fmt.Sprintf(initialize, "1", "2025-11-25") + "\n"
	c.send(msg[:20])
	c.send(msg[20:50])
	c.send(msg[50:])
	if got := c.hears(`"id":1`); !strings.HasSuffix(got, "\n") {
		t.Errorf("no newline after %s", got)
	}
}

// The reason strings of the streamed dialect, word for word.
func TestStrictReasons(t *testing.T) {
	url, _ := serveMCP(t, &HandlerOptions{Options: Options{Dialect: Strict()}})
	c := rawDial(t, url, "mcp")
	c.send("{broken\n")
	c.wantsClose(ws.CloseProtocolError, "JSON-RPC parse error")

	r := NewReceiver(Strict(), 100, nil, nil)
	nothing := func(*envelope.Message) error { return nil }
	var ce *ws.CloseError
	now := time.Unix(0, 0)
	if err := r.Take(now, ws.Text, []byte(strings.Repeat("x", 101)), nothing); !errors.As(err, &ce) ||
		ce.Code != ws.CloseMessageTooBig || ce.Reason != "Message exceeds maximum size of 100 bytes" {
		t.Errorf("too big: %v", err)
	}
	r = NewReceiver(Strict(), 100, nil, nil)
	if err := r.Take(now, ws.Text, []byte("\"\xff\"\n"), nothing); !errors.As(err, &ce) ||
		ce.Code != ws.CloseProtocolError || ce.Reason != "Invalid UTF-8 encoding" {
		t.Errorf("UTF-8: %v", err)
	}
	r = NewReceiver(Strict(), 100, nil, nil)
	if err := r.Take(now, ws.Text, []byte("{"), nothing); err != nil {
		t.Fatal(err)
	}
	if err := r.Expire(now.Add(29 * time.Second)); err != nil {
		t.Errorf("early: %v", err)
	}
	if err := r.Expire(now.Add(30 * time.Second)); !errors.As(err, &ce) ||
		ce.Code != ws.CloseProtocolError || ce.Reason != "Fragment reassembly timeout" {
		t.Errorf("late: %v", err)
	}
	if err := r.Take(now, ws.Binary, nil, nothing); !errors.As(err, &ce) || ce.Code != ws.CloseUnsupportedData {
		t.Errorf("binary: %v", err)
	}
}

// J1: bad JSON is answered and the session goes on, in both eras.
func TestJ1_BadJSON(t *testing.T) {
	url, _ := serveMCP(t, nil)
	c := rawDial(t, url, "mcp")
	c.send("{broken")
	c.hears(`{"jsonrpc":"2.0","id":null,"error":{"code":-32700`)
	c.initialize("2025-11-25")
	c.send("nonsense")
	c.hears(`"id":null,"error":{"code":-32700`)
	c.send(echoCall("1", "alive"))
	c.hears("alive")

	m := rawDial(t, url, "mcp")
	m.send(`{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"m","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}}}`)
	m.hears(`"id":1`, "2026-07-28")
	m.send("{broken")
	if got := m.hears(`"error":{"code":-32700`); strings.Contains(got, `"id"`) {
		t.Errorf("a modern peer got an id: %s", got)
	}
}

func TestJ1_ManyBadMessages(t *testing.T) {
	url, _ := serveMCP(t, &HandlerOptions{Options: Options{Dialect: Dialect{BadMessagesMax: 3}}})
	c := rawDial(t, url, "mcp")
	c.send("{")
	c.hears("-32700")
	c.send("{")
	c.hears("-32700")
	c.send(fmt.Sprintf(initialize, "1", "2025-11-25")) // a good one: the count begins anew
	c.hears(`"id":1`)
	for range 2 {
		c.send("{")
		c.hears("-32700")
	}
	c.send("{")
	c.wantsClose(ws.ClosePolicyViolation, "3 messages in a row")
}

func TestJ2_NotJSONRPC(t *testing.T) {
	url, _ := serveMCP(t, nil)
	c := rawDial(t, url, "mcp")
	c.send(`{"id":7,"method":"ping"}`)
	c.hears(`"id":7,"error":{"code":-32600`)
	c.send(`42`)
	c.hears(`"id":null,"error":{"code":-32600`)
	c.initialize("2025-11-25")
}

func TestJ3_Batches(t *testing.T) {
	url, _ := serveMCP(t, nil)
	batch := "[" + echoCall("1", "one") + "," + echoCall("2", "two") + "]"
	for version, served := range map[string]bool{"2025-03-26": true, "2025-06-18": false, "2025-11-25": false} {
		c := rawDial(t, url, "mcp")
		c.initialize(version)
		c.send(batch)
		if !served {
			c.hears(`"id":null,"error":{"code":-32600`)
			continue
		}
		if both := c.hears("result") + c.hears("result"); !strings.Contains(both, "one") || !strings.Contains(both, "two") {
			t.Errorf("%s: %s", version, both)
		}
	}
}

func TestJ4_IDs(t *testing.T) {
	url, _ := serveMCP(t, nil)
	c := rawDial(t, url, "mcp")
	c.initialize("2025-11-25")
	for _, id := range []string{"9007199254740993", "1.0", `"\u0061"`, `"9007199254740993"`, "-1e2", "123456789012345678901234567890"} {
		c.send(echoCall(id, "x"))
		c.hears(`"id":` + id)
		c.send(`{"jsonrpc":"2.0","id":` + id + `,"method":"tools/call","params":{"name":"none"}}`)
		c.hears(`"id":`+id, `"error"`)
	}
}

func TestJ4_ProgressTokens(t *testing.T) {
	url, _ := serveMCP(t, nil)
	c := rawDial(t, url, "mcp")
	c.initialize("2025-11-25")
	for i, token := range []string{`9007199254740993`, `"\u0061"`, `"plain"`, `7`, `1.50`} {
		c.send(fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"hang","arguments":{},"_meta":{"progressToken":%s}}}`, i, token))
		c.hears(`"progressToken":` + token)
	}
}

func TestJ5_DuplicateID(t *testing.T) {
	url, _ := serveMCP(t, nil)
	c := rawDial(t, url, "mcp")
	c.initialize("2025-11-25")
	hang := `{"jsonrpc":"2.0","id":"h","method":"tools/call","params":{"name":"hang","arguments":{},"_meta":{"progressToken":1}}}`
	c.send(hang)
	c.hears("progress")
	c.send(hang)
	c.hears(`"id":"h","error":{"code":-32600`, "in flight already")
	c.send(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"h"}}`)
	c.hears(`"id":"h"`)
	c.send(echoCall(`"h"`, "free again"))
	c.hears("free again")
}

// J7: what a client had in flight is cancelled when its socket closes, in order
// or not.
func TestJ7_ClosedSocketCancels(t *testing.T) {
	cancelled := make(chan error, 1)
	server := newServer()
	mcp.AddTool(server, &mcp.Tool{Name: "wait"}, func(ctx context.Context, req *mcp.CallToolRequest, _ struct{}) (*mcp.CallToolResult, any, error) {
		if err := req.Session.NotifyProgress(ctx, &mcp.ProgressNotificationParams{ProgressToken: req.Params.GetProgressToken(), Progress: 1}); err != nil {
			return nil, nil, err
		}
		<-ctx.Done()
		cancelled <- ctx.Err()
		return nil, nil, ctx.Err()
	})
	h := NewHandler(func(*http.Request) *mcp.Server { return server }, nil)
	url := listen(t, h)
	t.Cleanup(func() { h.Shutdown(context.Background()) })
	for _, end := range []func(*ws.Conn) error{
		func(c *ws.Conn) error { return c.Close(ws.CloseNormal, "") },
		func(c *ws.Conn) error { return c.CloseNow() },
	} {
		c := rawDial(t, url, "mcp")
		c.initialize("2025-11-25")
		c.send(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"wait","arguments":{},"_meta":{"progressToken":1}}}`)
		c.hears("progress")
		if err := end(c.c); err != nil {
			t.Error(err)
		}
		select {
		case err := <-cancelled:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("ended with %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("the call goes on without its client")
		}
	}
}

// J8: two open subscriptions share a connection, each under its own id as it
// was written.
func TestJ8_SubscriptionsShareAConnection(t *testing.T) {
	url, _ := serveMCP(t, nil)
	c := rawDial(t, url, "mcp")
	for _, id := range []string{`"\u0061"`, "9007199254740993"} {
		c.send(`{"jsonrpc":"2.0","id":` + id + `,"method":"subscriptions/listen","params":{"notifications":{"toolsListChanged":true},"_meta":{` + modernMeta + `}}}`)
		c.hears("acknowledged", `"io.modelcontextprotocol/subscriptionId":`+id)
	}
}

// S1: connections have ids of 128 bits, all different.
func TestS1_SessionIDs(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		id := newConn(nil, Options{}, 0, nil).SessionID()
		if b, err := base64.RawURLEncoding.DecodeString(id); err != nil || len(b) != 16 || seen[id] {
			t.Fatalf("%q: %d bytes, %v", id, len(b), err)
		}
		seen[id] = true
	}
}

const modernMeta = `"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"m","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}`

func TestCallsInFlightAreBounded(t *testing.T) {
	url, _ := serveMCP(t, &HandlerOptions{Options: Options{CallsMax: 2}})
	c := rawDial(t, url, "mcp")
	c.initialize("2025-11-25")
	for i := range 2 {
		c.send(fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"hang","arguments":{},"_meta":{"progressToken":1}}}`, i))
		c.hears("progress")
	}
	c.send(echoCall("2", "x"))
	c.hears(`"id":2,"error":{"code":-32603`, "2 requests are in flight")
}

// F13: many senders of all sizes; every answer arrives whole and once.
func TestF13_ConcurrentCalls(t *testing.T) {
	url, _ := serveMCP(t, nil)
	client := mcp.NewClient(&mcp.Implementation{Name: "c", Version: "1"}, nil)
	session, err := client.Connect(t.Context(), &ClientTransport{URL: url}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	var all sync.WaitGroup
	for i := range 32 {
		all.Go(func() {
			for n := range 5 {
				want := strings.Repeat(fmt.Sprintf("%d.%d ", i, n), 1+i*i*n*3)
				r, err := session.CallTool(t.Context(), &mcp.CallToolParams{Name: "echo", Arguments: map[string]any{"text": want}})
				if err != nil || text(r) != want {
					t.Errorf("%d.%d: %v", i, n, err)
				}
			}
		})
	}
	all.Wait()
}

func TestS6_ShutdownCloses1001(t *testing.T) {
	url, h := serveMCP(t, nil)
	c := rawDial(t, url, "mcp")
	c.initialize("2025-11-25")
	done := make(chan error, 1)
	go func() { done <- h.Shutdown(context.Background()) }()
	c.wantsClose(ws.CloseGoingAway, "")
	if err := <-done; err != nil {
		t.Error(err)
	}
	_, err := (&ClientTransport{URL: url}).Connect(t.Context())
	var he *ws.HandshakeError
	if !errors.As(err, &he) || he.Status != http.StatusServiceUnavailable {
		t.Errorf("a newcomer during shutdown: %v", err)
	}
}

// A client that floods and does not read is not read either.
func TestS4_FloodWithoutReading(t *testing.T) {
	url, _ := serveMCP(t, nil)
	c := rawDial(t, url, "mcp")
	c.initialize("2025-11-25")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	payload := strings.Repeat("x", 64<<10)
	sent := 0
	for sent < 4000 {
		if err := c.c.WriteMessage(ctx, ws.Text, []byte(echoCall(fmt.Sprint(sent), payload))); err != nil {
			break
		}
		sent++
	}
	// 4,000 calls are 250 MiB. What fits in the sockets and in 1 MiB of
	// answers is far less.
	if sent >= 1000 {
		t.Errorf("%d calls of 64 KiB were taken from a client that reads nothing", sent)
	}
}
