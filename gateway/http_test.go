package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/weft-ws/weft/mcpws"
	"github.com/weft-ws/weft/mcpws/envelope"
)

// sdkServer is a server of the official SDK with the tools that tests need.
// cancelled is told when the tool "hang" is cancelled.
func sdkServer(cancelled chan<- string) *mcp.Server {
	s := NewBuiltin("1")
	s.AddTool(&mcp.Tool{Name: "raw", InputSchema: json.RawMessage(`{"type":"object"}`)},
		func(_ context.Context, req *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			return say(string(req.Params.Arguments)), nil
		})
	s.AddTool(&mcp.Tool{Name: "hang", InputSchema: json.RawMessage(`{"type":"object"}`)},
		func(ctx context.Context, req *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			if token := req.Params.GetProgressToken(); token != nil {
				if err := req.Session.NotifyProgress(ctx, &mcp.ProgressNotificationParams{ProgressToken: token, Progress: 1}); err != nil {
					return nil, err
				}
			}
			<-ctx.Done()
			cancelled <- "hang"
			return nil, ctx.Err()
		})
	s.AddTool(&mcp.Tool{Name: "elicit", InputSchema: json.RawMessage(`{"type":"object"}`)},
		func(ctx context.Context, req *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			r, err := req.Session.Elicit(ctx, &mcp.ElicitParams{Message: "well?", RequestedSchema: map[string]any{"type": "object"}})
			if err != nil {
				return nil, err
			}
			return say(fmt.Sprint(r.Content["answer"])), nil
		})
	s.AddTool(&mcp.Tool{Name: "headed", InputSchema: json.RawMessage(`{"type":"object","properties":{
		"region":{"type":"string","x-mcp-header":"Region"},"deep":{"type":"object","properties":{"n":{"type":"integer","x-mcp-header":"N"},"b":{"type":"boolean","x-mcp-header":"B"}}}}}`)},
		func(_ context.Context, req *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			h := req.Extra.Header
			return say(h.Get("Mcp-Param-Region") + " " + h.Get("Mcp-Param-N") + " " + h.Get("Mcp-Param-B")), nil
		})
	return s
}

// front is an HTTP server whose handler can be changed, and which counts.
type front struct {
	*httptest.Server
	mu      sync.Mutex
	handler http.Handler
	seen    map[string]int
}

func newFront(t *testing.T, h http.Handler) *front {
	f := &front{handler: h, seen: map[string]int{}}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.seen[r.Method]++
		h := f.handler
		f.mu.Unlock()
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(f.Close)
	return f
}

func (f *front) set(h http.Handler) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.handler = h
}

func (f *front) count(method string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seen[method]
}

func sdkHandler(s *mcp.Server, opts mcp.StreamableHTTPOptions) http.Handler {
	return mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return s }, &opts)
}

// forgetful is a handler whose sessions are never ended by their clients, since
// it will be replaced.
func forgetful(t *testing.T) http.Handler {
	s := sdkServer(nil)
	t.Cleanup(func() {
		for ss := range s.Sessions() {
			_ = ss.Close()
		}
	})
	return sdkHandler(s, mcp.StreamableHTTPOptions{})
}

func httpRoute(f *front, i Isolation) Route {
	return Route{Name: "far", Isolation: i, Backend: &HTTP{URL: f.URL + "/mcp?key=hidden-in-the-query",
		Header: http.Header{"Authorization": {"Bearer hidden-in-a-header"}}}}
}

// httpModes are the ways in which the SDK serves Streamable HTTP.
func httpModes() map[string]mcp.StreamableHTTPOptions {
	return map[string]mcp.StreamableHTTPOptions{
		"stateful":       {},
		"stateful, JSON": {JSONResponse: true},
		"resumable":      {EventStore: mcp.NewMemoryEventStore(nil)},
		"stateless":      {Stateless: true, PropagateRequestCancellation: true},
		"stateless JSON": {Stateless: true, JSONResponse: true},
	}
}

// The SDK's client through the gateway to the SDK's server: tools, progress,
// a question to the client, an error, in whichever era the two agree on.
func TestHTTPBackendWithSDK(t *testing.T) {
	for name, opts := range httpModes() {
		for _, i := range []Isolation{PerConnection, Shared} {
			t.Run(name+" "+i.String(), func(t *testing.T) {
				f := newFront(t, sdkHandler(sdkServer(nil), opts))
				_, url := serve(t, Options{}, httpRoute(f, i))
				progress := make(chan string, 10)
				client := mcp.NewClient(&mcp.Implementation{Name: "t", Version: "1"}, &mcp.ClientOptions{
					ProgressNotificationHandler: func(_ context.Context, r *mcp.ProgressNotificationClientRequest) {
						progress <- r.Params.Message
					},
					ElicitationHandler: func(context.Context, *mcp.ElicitRequest) (*mcp.ElicitResult, error) {
						return &mcp.ElicitResult{Action: "accept", Content: map[string]any{"answer": "blue"}}, nil
					},
				})
				cs, err := client.Connect(t.Context(), &mcpws.ClientTransport{URL: url + "far"}, nil)
				if err != nil {
					t.Fatal(err)
				}
				defer cs.Close()
				want := "2026-07-28"
				if !opts.Stateless {
					want = "2025-11-25"
				}
				if got := cs.InitializeResult().ProtocolVersion; got != want {
					t.Errorf("the era is %s, want %s", got, want)
				}
				ask := func(p *mcp.CallToolParams) string {
					t.Helper()
					r, err := cs.CallTool(t.Context(), p)
					if err != nil {
						t.Fatal(err)
					}
					return r.Content[0].(*mcp.TextContent).Text
				}
				if got := ask(&mcp.CallToolParams{Name: "echo", Arguments: map[string]any{"text": "hello"}}); got != "hello" {
					t.Errorf("echo says %q", got)
				}
				if got := ask(&mcp.CallToolParams{Name: "large", Arguments: map[string]any{"bytes": 1 << 20}}); len(got) != 1<<20 {
					t.Errorf("large says %d bytes", len(got))
				}
				if got := ask(&mcp.CallToolParams{Name: "ask", Arguments: map[string]any{"question": "what?"}}); got != "The client said: blue" {
					t.Errorf("ask says %q", got)
				}
				slow := &mcp.CallToolParams{Name: "slow", Arguments: map[string]any{"steps": 2, "seconds": 0}}
				if !opts.JSONResponse { // in JSON mode the SDK has no way for progress
					slow.SetProgressToken("p")
				}
				if got := ask(slow); got != "done in 2 steps" {
					t.Errorf("slow says %q", got)
				}
				if !opts.JSONResponse {
					if got := <-progress + ", " + <-progress; got != "step 1 of 2, step 2 of 2" {
						t.Errorf("progress %q", got)
					}
				}
				if r, err := cs.CallTool(t.Context(), &mcp.CallToolParams{Name: "none"}); err == nil {
					t.Errorf("a tool that does not exist: %v", r)
				}
			})
		}
	}
}

// A question of the server comes on the stream of the call. The session is
// ended with DELETE, and not before the client has gone.
func TestHTTPBackendAsks(t *testing.T) {
	f := newFront(t, sdkHandler(sdkServer(nil), mcp.StreamableHTTPOptions{}))
	_, url := serve(t, Options{}, httpRoute(f, PerConnection))
	w := dial(t, url+"far")
	w.initialize(`{"elicitation":{}}`)
	w.call("1", "elicit", "{}")
	m, err := envelope.Parse([]byte(w.hears("elicitation/create")))
	if err != nil {
		t.Fatal(err)
	}
	w.say(`{"jsonrpc":"2.0","id":%s,"result":{"action":"accept","content":{"answer":"quite"}}}`, m.IDBytes())
	w.hears("quite", `"id":1`)
	if n := f.count("DELETE"); n != 0 {
		t.Errorf("%d sessions ended too early", n)
	}
	w.c.CloseNow()
	until(t, "DELETE", func() bool { return f.count("DELETE") == 1 })
}

// Nothing in a message changes on its way: ids, numbers and strings are bytes.
func TestHTTPBackendBytes(t *testing.T) {
	for name, opts := range httpModes() {
		t.Run(name, func(t *testing.T) {
			f := newFront(t, sdkHandler(sdkServer(nil), opts))
			_, url := serve(t, Options{}, httpRoute(f, PerConnection))
			w := dial(t, url+"far")
			meta := ""
			if opts.Stateless {
				meta = modernMeta
			} else {
				w.initialize("{}")
			}
			for _, id := range []string{"9007199254740993", "1.0", "1e3", `"a"`, `"\u0061\/\"é"`, "-1"} {
				w.say(`{"jsonrpc":"2.0","id":%s,"method":"tools/call","params":{"name":"raw","arguments":{"n":9007199254740993,"f":1.10,"s":"é\u0061"}%s}}`, id, meta)
				w.hears(`"id":`+id, `9007199254740993`, `1.10`, `é\\u0061`)
			}
		})
	}
}

const modernMeta = `,"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"t","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}`

// A call is cancelled by a notification in the era of sessions, and by closing
// its stream in the other. Either way the tool learns of it.
func TestHTTPBackendCancels(t *testing.T) {
	for _, name := range []string{"stateful", "stateless"} {
		t.Run(name, func(t *testing.T) {
			opts := httpModes()[name]
			cancelled := make(chan string, 2)
			f := newFront(t, sdkHandler(sdkServer(cancelled), opts))
			_, url := serve(t, Options{}, httpRoute(f, PerConnection))
			w := dial(t, url+"far")
			meta := `,"_meta":{"progressToken":"p"}`
			if opts.Stateless {
				meta = strings.Replace(modernMeta, "{", `{"progressToken":"p",`, 1)
			} else {
				w.initialize("{}")
			}
			for id := range 2 {
				w.say(`{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"hang","arguments":{}%s}}`, id, meta)
				w.hears("progress")
			}
			w.say(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":0}}`)
			<-cancelled
			w.c.CloseNow() // cancels the other
			<-cancelled
		})
	}
}

// subscriptions/listen is a stream that stays open; what changes comes on it.
func TestHTTPBackendListens(t *testing.T) {
	s := sdkServer(nil)
	f := newFront(t, sdkHandler(s, mcp.StreamableHTTPOptions{Stateless: true}))
	_, url := serve(t, Options{}, httpRoute(f, PerConnection))
	w := dial(t, url+"far")
	w.say(`{"jsonrpc":"2.0","id":"l","method":"subscriptions/listen","params":{"notifications":{"toolsListChanged":true}%s}}`, modernMeta)
	w.hears("acknowledged", `"io.modelcontextprotocol/subscriptionId":"l"`)
	s.AddTool(&mcp.Tool{Name: "more", InputSchema: json.RawMessage(`{"type":"object"}`)}, nil)
	w.hears("tools/list_changed", `"io.modelcontextprotocol/subscriptionId":"l"`)
}

// The stream of what a server says by itself.
func TestHTTPBackendStandaloneStream(t *testing.T) {
	s := sdkServer(nil)
	f := newFront(t, sdkHandler(s, mcp.StreamableHTTPOptions{}))
	_, url := serve(t, Options{}, httpRoute(f, PerConnection))
	w := dial(t, url+"far")
	w.initialize("{}")
	until(t, "the stream is open", func() bool { return f.count("GET") == 1 })
	w.call("1", "echo", `{"text":"hello"}`)
	w.hears("hello")
	s.AddTool(&mcp.Tool{Name: "more", InputSchema: json.RawMessage(`{"type":"object"}`)}, nil)
	w.hears("tools/list_changed")
}

// A server that was started anew knows no session (404): it is initialised
// again, and the call that found out is carried out.
func TestHTTPBackendSessionLost(t *testing.T) {
	for _, i := range []Isolation{PerConnection, Shared} {
		t.Run(i.String(), func(t *testing.T) {
			f := newFront(t, forgetful(t))
			_, url := serve(t, Options{}, httpRoute(f, i))
			w := dial(t, url+"far")
			w.initialize("{}")
			w.call("1", "echo", `{"text":"one"}`)
			w.hears("one")
			f.set(forgetful(t))
			w.call("2", "echo", `{"text":"two"}`)
			w.hears("two", `"id":2`)
			f.set(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { // as examples of other SDKs do
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(http.StatusBadRequest)
				io.WriteString(w, `{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: No valid session ID provided"},"id":null}`)
				f.set(forgetful(t))
			}))
			w.call("3", "echo", `{"text":"three"}`)
			w.hears("three", `"id":3`)
		})
	}
}

// A server that answers 404 whatever session it has just given is not asked
// for ever.
func TestHTTPBackendSessionLostForGood(t *testing.T) {
	good := forgetful(t)
	f := newFront(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		if strings.Contains(string(b), "tools/call") {
			http.Error(w, "no session", http.StatusNotFound)
			return
		}
		r.Body = io.NopCloser(strings.NewReader(string(b)))
		good.ServeHTTP(w, r)
	}))
	_, url := serve(t, Options{}, httpRoute(f, PerConnection))
	w := dial(t, url+"far")
	w.initialize("{}")
	w.call("1", "echo", `{"text":"one"}`)
	w.hears(`"id":1,"error"`, "has forgotten the session")
}

// cutter passes n bytes of an answer to a POST on, then breaks the connection.
type cutter struct {
	http.Handler
	after string // the text that is still passed on
	cuts  atomic.Int32
}

func (c *cutter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(strings.NewReader(string(b)))
	if r.Method == "POST" && strings.Contains(string(b), "tools/call") && c.cuts.Add(-1) >= 0 {
		w = &cutWriter{ResponseWriter: w, after: c.after}
	}
	c.Handler.ServeHTTP(w, r)
	if cw, ok := w.(*cutWriter); ok && cw.cut {
		panic(http.ErrAbortHandler)
	}
}

type cutWriter struct {
	http.ResponseWriter
	after string
	cut   bool
}

func (w *cutWriter) Write(p []byte) (int, error) {
	if w.cut {
		return 0, errors.New("cut")
	}
	if i := strings.Index(string(p), w.after); i >= 0 {
		w.cut = true
		w.ResponseWriter.Write(p[:i+len(w.after)])
		w.Flush()
		return 0, errors.New("cut")
	}
	return w.ResponseWriter.Write(p)
}

func (w *cutWriter) Flush() { http.NewResponseController(w.ResponseWriter).Flush() }

// A stream that is cut is resumed where it was: nothing is lost, nothing comes
// twice.
func TestHTTPBackendResumes(t *testing.T) {
	c := &cutter{Handler: sdkHandler(sdkServer(nil), mcp.StreamableHTTPOptions{EventStore: mcp.NewMemoryEventStore(nil)}), after: "step 2"}
	c.cuts.Store(1)
	f := newFront(t, c)
	b := httpRoute(f, PerConnection)
	_, url := serve(t, Options{}, b)
	w := dial(t, url+"far")
	w.initialize("{}")
	until(t, "the stream of the server is open", func() bool { return f.count("GET") == 1 })
	w.call("1", "slow", `{"steps":3,"seconds":0}`)
	for i := range 3 {
		w.hears(fmt.Sprintf("step %d of 3", i+1))
	}
	w.hears("done in 3 steps", `"id":1`)
	if n := f.count("GET"); n != 2 {
		t.Errorf("%d GETs, want the server's stream and a resumption", n)
	}
}

// Where nothing can be resumed the caller is told.
func TestHTTPBackendCut(t *testing.T) {
	for _, name := range []string{"stateful", "stateless", "stateful, JSON"} {
		t.Run(name, func(t *testing.T) {
			opts := httpModes()[name]
			c := &cutter{Handler: sdkHandler(sdkServer(nil), opts), after: "hel"}
			c.cuts.Store(1)
			f := newFront(t, c)
			_, url := serve(t, Options{}, httpRoute(f, PerConnection))
			w := dial(t, url+"far")
			meta := ""
			if opts.Stateless {
				meta = modernMeta
			} else {
				w.initialize("{}")
			}
			w.say(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"text":"hello"}%s}}`, meta)
			w.hears(`"id":1,"error":{"code":-32603`, "may or may not have been carried out")
			w.say(`{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"echo","arguments":{"text":"hello"}%s}}`, meta)
			w.hears("hello", `"id":2`)
		})
	}
}

// Everything that an HTTP server can say instead of an answer has a reason and
// a remedy, and no secret in it.
func TestHTTPBackendRefusals(t *testing.T) {
	elsewhere := newFront(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	reply := func(status int, kind, body string, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", kind)
			for i := 0; i+1 < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(status)
			io.WriteString(w, body)
		}
	}
	f := newFront(t, nil)
	_, url := serve(t, Options{}, httpRoute(f, PerConnection))
	w := dial(t, url+"far")
	for i, tt := range []struct {
		name string
		h    http.HandlerFunc
		want []string
	}{
		{"no credential", reply(401, "text/plain", "Bearer hidden-in-a-header is not known\nmore"), []string{"HTTP 401 Unauthorized", "is not known", "give its credential in headers"}},
		{"not allowed", reply(403, "text/html", "<p>"), []string{"HTTP 403"}},
		{"wrong path", reply(404, "text/html", "<p>"), []string{"HTTP 404", "MCP endpoint"}},
		{"too large", reply(413, "text/plain", ""), []string{"HTTP 413", "send less"}},
		{"overloaded", reply(503, "text/plain", "", "Retry-After", "7"), []string{"HTTP 503", "after 7 s"}},
		{"broken", reply(500, "text/plain", "oops"), []string{"HTTP 500", "oops"}},
		{"redirect", reply(308, "text/plain", "", "Location", elsewhere.URL+"/x?token=hidden-elsewhere"), []string{"HTTP 308", elsewhere.URL + "/x", "not followed"}},
		{"redirect as GET", reply(303, "text/plain", "", "Location", "/other"), []string{"HTTP 303", "/other"}},
		{"a page", reply(200, "text/html; charset=utf-8", "<html>"), []string{"HTTP 200 with text/html"}},
		{"nothing", reply(202, "", ""), []string{"HTTP 202"}},
		{"not JSON", reply(200, "application/json", "<html>"), []string{"not JSON"}},
		{"another id", reply(200, "application/json", `{"jsonrpc":"2.0","id":99,"result":{}}`), []string{"no answer to the request"}},
		{"no event", reply(200, "text/event-stream", ": hello\n\n"), []string{"ended the stream before the answer"}},
		{"JSON-RPC error", reply(400, "application/json", `{"jsonrpc":"2.0","id":null,"error":{"code":-32022,"message":"no","data":{"supported":[1.0]}}}`), []string{`"error":{"code":-32022,"message":"no","data":{"supported":[1.0]}}`}},
	} {
		f.set(tt.h)
		w.say(`{"jsonrpc":"2.0","id":%d,"method":"tools/list"}`, i)
		got := w.hears(append(tt.want, fmt.Sprintf(`"id":%d,`, i), `"error"`)...)
		if strings.Contains(got, "hidden") {
			t.Errorf("%s: a secret in %s", tt.name, got)
		}
	}
	if n := elsewhere.count("POST") + elsewhere.count("GET"); n != 0 {
		t.Errorf("the other host was asked %d times", n)
	}
	f.Close()
	w.say(`{"jsonrpc":"2.0","id":"gone","method":"tools/list"}`)
	if got := w.hears(`"id":"gone"`, "cannot be reached"); strings.Contains(got, "hidden") {
		t.Errorf("a secret in %s", got)
	}
}

// A redirect on the same host keeps the method and is followed.
func TestHTTPBackendRedirectOnTheSameHost(t *testing.T) {
	good := sdkHandler(sdkServer(nil), mcp.StreamableHTTPOptions{})
	f := newFront(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/mcp" {
			http.Redirect(w, r, "/mcp/", http.StatusPermanentRedirect)
			return
		}
		if r.Header.Get("Authorization") == "" {
			http.Error(w, "who?", http.StatusUnauthorized)
			return
		}
		good.ServeHTTP(w, r)
	}))
	_, url := serve(t, Options{}, httpRoute(f, PerConnection))
	w := dial(t, url+"far")
	w.initialize("{}")
	w.call("1", "echo", `{"text":"hello"}`)
	w.hears("hello")
}

// A message over the limit costs its call, not the session.
func TestHTTPBackendTooLong(t *testing.T) {
	for _, name := range []string{"stateful", "stateful, JSON"} {
		t.Run(name, func(t *testing.T) {
			f := newFront(t, sdkHandler(sdkServer(nil), httpModes()[name]))
			r := httpRoute(f, PerConnection)
			r.Backend.(*HTTP).MessageMax = 100_000
			_, url := serve(t, Options{}, r)
			w := dial(t, url+"far")
			w.initialize("{}")
			w.call("1", "large", `{"bytes":200000}`)
			w.hears(`"id":1,"error"`, "more than 100000 bytes")
			w.call("2", "large", `{"bytes":90000}`)
			w.hears(`"id":2`, "dull boy")
		})
	}
}

// Arguments that a tool wants in headers are there, also when nobody has asked
// for its schema before.
func TestHTTPBackendParamHeaders(t *testing.T) {
	f := newFront(t, sdkHandler(sdkServer(nil), mcp.StreamableHTTPOptions{Stateless: true}))
	_, url := serve(t, Options{}, httpRoute(f, PerConnection))
	w := dial(t, url+"far")
	for i := range 2 {
		w.say(`{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"headed","arguments":{"region":"Zürich","deep":{"n":42.0,"b":true}}%s}}`, i, modernMeta)
		w.hears("=?base64?WsO8cmljaA==?= 42 true", fmt.Sprintf(`"id":%d`, i))
	}
	if n := f.count("POST"); n != 4 { // the first was refused, then came the list
		t.Errorf("%d requests, want 4", n)
	}
}

// Many clients, with the same ids: nothing crosses.
func TestHTTPBackendKeepsClientsApart(t *testing.T) {
	f := newFront(t, sdkHandler(sdkServer(nil), mcp.StreamableHTTPOptions{}))
	for _, i := range []Isolation{PerConnection, Shared} {
		t.Run(i.String(), func(t *testing.T) {
			_, url := serve(t, Options{}, httpRoute(f, i))
			var all sync.WaitGroup
			for n := range 8 {
				w := dial(t, url+"far")
				all.Go(func() {
					w.initialize("{}")
					for k := range 10 {
						w.call(fmt.Sprint(k), "echo", fmt.Sprintf(`{"text":"client %d call %d"}`, n, k))
						w.hears(fmt.Sprintf("client %d call %d", n, k), fmt.Sprintf(`"id":%d`, k))
					}
				})
			}
			all.Wait()
		})
	}
}

// fakeTrip answers requests in a bubble of fake time.
type fakeTrip func(*http.Request) (status int, kind string, body io.ReadCloser)

func (f fakeTrip) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		io.Copy(io.Discard, r.Body)
		r.Body.Close()
	}
	status, kind, body := f(r)
	return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {kind}}, Body: body, Request: r, ContentLength: -1}, nil
}

// pipeBody is a body that w writes and that ends with the request.
func pipeBody(r *http.Request, write func(w io.Writer)) io.ReadCloser {
	pr, pw := io.Pipe()
	go write(pw)
	context.AfterFunc(r.Context(), func() { pw.CloseWithError(r.Context().Err()) })
	return pr
}

func httpPair(t *testing.T, f fakeTrip) Peer {
	p, err := (&HTTP{URL: "http://far.example/mcp", Transport: f, Logger: testLog(t)}).Open(t.Context(), Caller{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A message that has begun must be finished in 30 seconds; a stream that says
// nothing may be silent for hours.
func TestHTTPBackendSlowEvent(t *testing.T) {
	for _, kind := range []string{"text/event-stream", "application/json"} {
		synctest.Test(t, func(t *testing.T) {
			p := httpPair(t, func(r *http.Request) (int, string, io.ReadCloser) {
				return 200, kind, pipeBody(r, func(w io.Writer) {
					time.Sleep(3 * time.Hour)
					for { // a byte a second, for ever
						if _, err := io.WriteString(w, "d"); err != nil {
							return
						}
						time.Sleep(time.Second)
					}
				})
			})
			began := time.Now()
			if err := p.Write([]byte(`{"jsonrpc":"2.0","id":1,"method":"ping"}`)); err != nil {
				t.Fatal(err)
			}
			got, err := p.Read()
			if err != nil || !strings.Contains(string(got), "did not finish a message within 30s") {
				t.Errorf("%s: %s, %v", kind, got, err)
			}
			if took := time.Since(began); took != 3*time.Hour+30*time.Second {
				t.Errorf("%s: after %v", kind, took)
			}
			p.Close()
			time.Sleep(2 * time.Second) // until the server has noticed
		})
	}
}

// A stream of the server's own that ends is opened again, more and more
// slowly, with the id of the last event, and after the time that it asks for.
func TestHTTPBackendReconnects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var at []time.Duration
		var last []string
		began := time.Now()
		p := httpPair(t, func(r *http.Request) (int, string, io.ReadCloser) {
			if r.Method != "GET" {
				return 202, "", http.NoBody
			}
			mu.Lock()
			defer mu.Unlock()
			at = append(at, time.Since(began))
			last = append(last, r.Header.Get("Last-Event-ID"))
			switch len(at) {
			case 1:
				return 200, "text/event-stream", io.NopCloser(strings.NewReader("id: one\nretry: 5000\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"a\"}\n\n"))
			case 2, 3, 4:
				return 503, "text/plain", http.NoBody
			}
			return 405, "text/plain", http.NoBody
		})
		defer p.Close()
		if err := p.Write([]byte(`{"jsonrpc":"2.0","method":"notifications/initialized"}`)); err != nil {
			t.Fatal(err)
		}
		if got, err := p.Read(); err != nil || !strings.Contains(string(got), `"a"`) {
			t.Errorf("%s, %v", got, err)
		}
		time.Sleep(time.Hour)
		mu.Lock()
		defer mu.Unlock()
		if strings.Join(last, ",") != ",one,one,one,one" || at[1] != 5*time.Second || at[2] < 10*time.Second || at[4]-at[3] < 5*time.Second {
			t.Errorf("at %v with %q", at, last)
		}
	})
}

// What is on its way is bounded: Write waits, and Close frees it.
func TestHTTPBackendWriteWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, err := (&HTTP{URL: "http://far.example/mcp", Transport: stuck{}}).Open(t.Context(), Caller{})
		if err != nil {
			t.Fatal(err)
		}
		msg := fmt.Appendf(nil, `{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":%q}}`, strings.Repeat("x", httpPendingMax))
		if err := p.Write(msg); err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() { done <- p.Write([]byte(`{"jsonrpc":"2.0","id":2,"method":"x"}`)) }()
		synctest.Wait()
		select {
		case err := <-done:
			t.Errorf("it did not wait: %v", err)
		default:
		}
		go p.Close()
		if err := <-done; err == nil {
			t.Error("written to a closed peer")
		}
		p.Close()
	})
}

// stuck is a server that takes nothing.
type stuck struct{}

func (stuck) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	r.Body.Close()
	return nil, r.Context().Err()
}

// Messages before the session is known, and between initialize and the answer
// to initialized, wait.
func TestHTTPBackendOrder(t *testing.T) {
	var mu sync.Mutex
	var got []string
	f := newFront(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != "POST" {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		b, _ := io.ReadAll(bufio.NewReader(r.Body))
		m, err := envelope.Parse(b)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		got = append(got, string(m.Method)+" "+r.Header.Get("Mcp-Session-Id")+" "+r.Header.Get("Mcp-Protocol-Version"))
		mu.Unlock()
		if m.Kind == envelope.Notification {
			w.WriteHeader(http.StatusAccepted)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Mcp-Session-Id", "s1")
		fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-06-18"}}`, m.IDBytes())
	}))
	p, err := (&HTTP{URL: f.URL}).Open(t.Context(), Caller{})
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range []string{"initialize", "notifications/initialized", "tools/list"} {
		msg := fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":%q}`, i, m)
		if strings.HasPrefix(m, "notifications") {
			msg = fmt.Sprintf(`{"jsonrpc":"2.0","method":%q}`, m)
		}
		if err := p.Write([]byte(msg)); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if _, err := p.Read(); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if s := strings.Join(got, ","); s != "initialize  ,notifications/initialized s1 2025-06-18,tools/list s1 2025-06-18" {
		t.Errorf("the server heard %s", s)
	}
}

// Over HTTP/2, where requests share a connection and end apart.
func TestHTTPBackendHTTP2(t *testing.T) {
	cancelled := make(chan string, 1)
	h := sdkHandler(sdkServer(cancelled), mcp.StreamableHTTPOptions{Stateless: true, PropagateRequestCancellation: true})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			t.Errorf("a request in %s", r.Proto)
		}
		h.ServeHTTP(w, r)
	}))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	_, url := serve(t, Options{}, Route{Name: "far", Backend: &HTTP{URL: s.URL, Transport: s.Client().Transport}})
	w := dial(t, url+"far")
	w.say(`{"jsonrpc":"2.0","id":"h","method":"tools/call","params":{"name":"hang","arguments":{}%s}}`, strings.Replace(modernMeta, "{", `{"progressToken":"p",`, 1))
	w.hears("progress")
	w.say(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"large","arguments":{"bytes":200000}%s}}`, modernMeta)
	w.hears("dull boy", `"id":1`)
	w.say(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"h"}}`)
	<-cancelled
}

// A call through a peer to a server that answers at once.
func BenchmarkHTTPBackend(b *testing.B) {
	for _, kind := range []string{"application/json", "text/event-stream"} {
		b.Run(kind, func(b *testing.B) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				m, err := envelope.Parse(body)
				if err != nil {
					b.Error(err)
				}
				w.Header().Set("Content-Type", kind)
				msg := envelope.AppendResult(nil, m.IDBytes(), []byte(`{"content":[{"type":"text","text":"hello"}]}`))
				if kind != "application/json" {
					msg = fmt.Appendf(nil, "data: %s\n\n", msg)
				}
				w.Write(msg)
			}))
			defer s.Close()
			p, err := (&HTTP{URL: s.URL}).Open(b.Context(), Caller{})
			if err != nil {
				b.Fatal(err)
			}
			defer p.Close()
			n := 0
			for b.Loop() {
				n++
				if err := p.Write(fmt.Appendf(nil, `{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"echo","arguments":{"text":"hello"}}}`, n)); err != nil {
					b.Fatal(err)
				}
				if _, err := p.Read(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
