package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/weft-ws/weft/mcpws"
	"github.com/weft-ws/weft/mcpws/envelope"
)

// shop is a server with one of everything. It speaks the versions given, all
// if there are none.
func shop(name string, versions ...string) *mcp.Server {
	s := mcp.NewServer(&mcp.Implementation{Name: name, Version: "1"}, &mcp.ServerOptions{
		SupportedProtocolVersions: versions,
		SubscribeHandler:          func(context.Context, *mcp.SubscribeRequest) error { return nil },
		UnsubscribeHandler:        func(context.Context, *mcp.UnsubscribeRequest) error { return nil },
		CompletionHandler: func(_ context.Context, r *mcp.CompleteRequest) (*mcp.CompleteResult, error) {
			return &mcp.CompleteResult{Completion: mcp.CompletionResultDetails{Values: []string{name, r.Params.Ref.Name, r.Params.Argument.Value}}}, nil
		},
	})
	s.AddTool(&mcp.Tool{Name: "who", InputSchema: json.RawMessage(`{"type":"object"}`)},
		func(context.Context, *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			return say("tool of " + name), nil
		})
	s.AddPrompt(&mcp.Prompt{Name: "greet"}, func(_ context.Context, r *mcp.GetPromptRequest) (*mcp.GetPromptResult, error) {
		return &mcp.GetPromptResult{Messages: []*mcp.PromptMessage{{Role: "user", Content: &mcp.TextContent{Text: "prompt of " + name}}}}, nil
	})
	read := func(_ context.Context, r *mcp.ReadResourceRequest) (*mcp.ReadResourceResult, error) {
		return &mcp.ReadResourceResult{Contents: []*mcp.ResourceContents{{URI: r.Params.URI, Text: "resource of " + name}}}, nil
	}
	s.AddResource(&mcp.Resource{Name: "r", URI: name + "://one"}, read)
	s.AddResource(&mcp.Resource{Name: "same", URI: "both://same"}, read)
	s.AddResourceTemplate(&mcp.ResourceTemplate{Name: "t", URITemplate: name + "://items/{id}"}, read)
	return s
}

func shopRoute(s *mcp.Server, name string, i Isolation) Route {
	return Route{Name: name, Isolation: i, Backend: &InProcess{Name: name, Server: func(Caller) *mcp.Server { return s }}}
}

// The SDK's client at the merged endpoint in both eras: tools, prompts and
// resources of servers of both eras.
func TestMergedBothEras(t *testing.T) {
	for _, version := range []string{"2025-11-25", "2026-07-28"} {
		for _, i := range []Isolation{PerConnection, Shared} {
			t.Run(version+" "+i.String(), func(t *testing.T) {
				deny := shopRoute(shop("nay"), "nay", i)
				deny.Deny = []string{"who"}
				_, url := serve(t, Options{}, testRoute(i), shopRoute(shop("new"), "new", i), shopRoute(shop("old", "2025-11-25"), "old", i), deny)
				client := mcp.NewClient(&mcp.Implementation{Name: "t", Version: "1"}, nil)
				cs, err := client.Connect(t.Context(), &mcpws.ClientTransport{URL: strings.TrimSuffix(url, "/")}, &mcp.ClientSessionOptions{ProtocolVersion: version})
				if err != nil {
					t.Fatal(err)
				}
				defer cs.Close()
				if got := cs.InitializeResult().ProtocolVersion; got != version {
					t.Fatalf("the era is %s", got)
				}
				var names []string
				for x, err := range cs.Tools(t.Context(), nil) {
					if err != nil {
						t.Fatal(err)
					}
					names = append(names, x.Name)
				}
				for x, err := range cs.Prompts(t.Context(), nil) {
					if err != nil {
						t.Fatal(err)
					}
					names = append(names, x.Name)
				}
				for x, err := range cs.Resources(t.Context(), nil) {
					if err != nil {
						t.Fatal(err)
					}
					names = append(names, x.URI)
				}
				for x, err := range cs.ResourceTemplates(t.Context(), nil) {
					if err != nil {
						t.Fatal(err)
					}
					names = append(names, x.URITemplate)
				}
				slices.Sort(names)
				want := "both://same fake__crash fake__echo nay://items/{id} nay://one nay__greet new://items/{id} new://one new__greet new__who old://items/{id} old://one old__greet old__who"
				if got := strings.Join(names, " "); got != want {
					t.Errorf("the lists are\n%s, want\n%s", got, want)
				}
				if r, err := cs.CallTool(t.Context(), &mcp.CallToolParams{Name: "fake__echo", Arguments: map[string]any{"text": "hello"}}); err != nil || r.Content[0].(*mcp.TextContent).Text != "hello" {
					t.Errorf("fake__echo: %+v, %v", r, err)
				}
				for _, name := range []string{"new", "old"} {
					if r, err := cs.CallTool(t.Context(), &mcp.CallToolParams{Name: name + "__who"}); err != nil || r.Content[0].(*mcp.TextContent).Text != "tool of "+name {
						t.Errorf("%s__who: %+v, %v", name, r, err)
					}
					if r, err := cs.GetPrompt(t.Context(), &mcp.GetPromptParams{Name: name + "__greet"}); err != nil || r.Messages[0].Content.(*mcp.TextContent).Text != "prompt of "+name {
						t.Errorf("%s__greet: %+v, %v", name, r, err)
					}
					for _, uri := range []string{name + "://one", name + "://items/7"} {
						if r, err := cs.ReadResource(t.Context(), &mcp.ReadResourceParams{URI: uri}); err != nil || r.Contents[0].Text != "resource of "+name || r.Contents[0].URI != uri {
							t.Errorf("%s: %+v, %v", uri, r, err)
						}
					}
					for ref, want := range map[*mcp.CompleteReference]string{
						{Type: "ref/prompt", Name: name + "__greet"}:        name + " greet v",
						{Type: "ref/resource", URI: name + "://items/{id}"}: name + "  v",
					} {
						r, err := cs.Complete(t.Context(), &mcp.CompleteParams{Ref: ref, Argument: mcp.CompleteParamsArgument{Name: "a", Value: "v"}})
						if err != nil || strings.Join(r.Completion.Values, " ") != want {
							t.Errorf("completion of %+v: %+v, %v", ref, r, err)
						}
					}
				}
				if r, err := cs.ReadResource(t.Context(), &mcp.ReadResourceParams{URI: "both://same"}); err != nil || r.Contents[0].Text != "resource of nay" {
					t.Errorf("both://same: %+v, %v", r, err)
				}
				for _, name := range []string{"nay__who", "none__who", "who"} {
					if r, err := cs.CallTool(t.Context(), &mcp.CallToolParams{Name: name}); err == nil {
						t.Errorf("%s: %+v", name, r)
					}
				}
				if r, err := cs.ReadResource(t.Context(), &mcp.ReadResourceParams{URI: "none://x"}); err == nil || !strings.Contains(err.Error(), "no server lists") {
					t.Errorf("none://x: %+v, %v", r, err)
				}
			})
		}
	}
}

// A subscription of 2026-07-28 at the merged endpoint hears of changes at
// servers of both eras, under the client's id; one that was cancelled does not.
func TestMergedListens(t *testing.T) {
	servers := map[string]*mcp.Server{"new": shop("new"), "old": shop("old", "2025-11-25")}
	_, url := serve(t, Options{}, shopRoute(servers["new"], "new", PerConnection), shopRoute(servers["old"], "old", PerConnection))
	w := dial(t, strings.TrimSuffix(url, "/"))
	w.say(`{"jsonrpc":"2.0","id":"first","method":"subscriptions/listen","params":{"notifications":{"toolsListChanged":true,"resourceSubscriptions":["new://one","old://one"]}%s}}`, modernMeta)
	w.hears("subscriptions/acknowledged", `"io.modelcontextprotocol/subscriptionId":"first"`, `"toolsListChanged":true`)
	notice := func(got, method, with string) bool {
		if !strings.Contains(got, method) {
			return false
		}
		if !strings.Contains(got, `"io.modelcontextprotocol/subscriptionId":"first"`) || !strings.Contains(got, with) {
			t.Errorf("told %s", got)
		}
		return true
	}
	for name, s := range servers {
		// Subscribing takes a while; an update is told when it has been done.
		n := 0
		until(t, "an update of "+name+" is told", func() bool {
			n++
			if err := s.ResourceUpdated(t.Context(), &mcp.ResourceUpdatedNotificationParams{URI: name + "://one"}); err != nil {
				t.Fatal(err)
			}
			w.say(`{"jsonrpc":"2.0","id":"p%d","method":"tools/call","params":{"name":"%s__who","arguments":{}%s}}`, n, name, modernMeta)
			for told := false; ; {
				got := w.hears("")
				told = notice(got, "resources/updated", name+"://one") || told
				if strings.Contains(got, fmt.Sprintf(`"id":"p%d"`, n)) {
					if !strings.Contains(got, `"resultType":"complete"`) {
						t.Errorf("no resultType in %s", got)
					}
					return told
				}
			}
		})
		s.AddTool(&mcp.Tool{Name: "more", InputSchema: json.RawMessage(`{"type":"object"}`)}, nil)
		for !notice(w.hears(""), "tools/list_changed", "") {
		}
	}
	w.say(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"first"}}`)
	call := func(id, name string) {
		w.say(`{"jsonrpc":"2.0","id":%q,"method":"tools/call","params":{"name":"%s__who","arguments":{}%s}}`, id, name, modernMeta)
	}
	for name, s := range servers {
		call("before "+name, name)
		for !strings.Contains(w.hears(""), "before "+name) {
		}
		if err := s.ResourceUpdated(t.Context(), &mcp.ResourceUpdatedNotificationParams{URI: name + "://one"}); err != nil {
			t.Fatal(err)
		}
		call("after "+name, name)
		w.hears("after " + name)
	}
}

// A version that nobody speaks is refused with those that are spoken.
func TestMergedVersions(t *testing.T) {
	_, url := serve(t, Options{}, testRoute(PerConnection), Route{Name: "bad", Backend: &pipes{fail: errors.New("broken")}})
	w := dial(t, strings.TrimSuffix(url, "/"))
	w.say(`{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2031-01-01"}}}`)
	w.hears(`"code":-32022`, `"supported":["2026-07-28","2025-11-25"`, `"requested":"2031-01-01"`)
	w.say(`{"jsonrpc":"2.0","id":2,"method":"server/discover","params":{"x":1%s}}`, modernMeta)
	w.hears(`"supportedVersions":["2026-07-28"`, `"resultType":"complete"`, `"prompts"`)
	// A server with initialize only, for a client without: its result is made
	// complete, and its question is answered for it.
	w.say(`{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"fake__ask","arguments":{"text":"?"}%s}}`, modernMeta)
	w.hears(`"id":3`, `"resultType":"complete"`, "the client takes no requests")
	// A server that is broken leaves the others alone.
	w.say(`{"jsonrpc":"2.0","id":4,"method":"tools/list","params":{"x":1%s}}`, modernMeta)
	w.hears(`"id":4`, `"name":"fake__echo"`, `"resultType":"complete"`)
	w.say(`{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"bad__x"%s}}`, modernMeta)
	w.hears(`"id":5,"error"`, "broken")
}

// What a server with initialize is not to see is gone, the rest as it was.
func TestLegacyRequest(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{`{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":9007199254740993,"b":"<é\u0061>","f":1.10` + modernMeta + `}}`,
			`{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":9007199254740993,"b":"<é\u0061>","f":1.10}}`},
		{`{"jsonrpc":"2.0","id":1,"method":"m","params":{` + strings.Replace(modernMeta[1:], "{", `{"progressToken":7,`, 1) + `}}`,
			`{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":{"progressToken":7}}}`},
	} {
		m, err := envelope.Parse([]byte(tt.in))
		if err != nil {
			t.Fatal(err)
		}
		if got := string(legacyRequest(&m)); got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
	}
}

func TestCompletedResult(t *testing.T) {
	for in, want := range map[string]string{
		`{}`:                          `{"resultType":"complete"}`,
		`{ }`:                         `{"resultType":"complete" }`,
		`{"a":"resultType"}`:          `{"resultType":"complete","a":"resultType"}`,
		`{"a":{"resultType":"x"}}`:    `{"resultType":"complete","a":{"resultType":"x"}}`,
		`{"resultType":"incomplete"}`: `{"resultType":"incomplete"}`,
		`[]`:                          `[]`,
	} {
		m, err := envelope.Parse([]byte(`{"jsonrpc":"2.0","id":1,"result":` + in + `}`))
		if err != nil {
			t.Fatal(err)
		}
		if got := string(envelope.AppendEdited(nil, &m, completed(&m))); got != `{"jsonrpc":"2.0","id":1,"result":`+want+`}` {
			t.Errorf("%s became %s", in, got)
		}
	}
}
