package mcpws_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/weft-ws/weft/mcpws"
)

// A server: an SDK server behind a handler.
func ExampleNewHandler() {
	server := mcp.NewServer(&mcp.Implementation{Name: "greeter", Version: "1"}, nil)
	type args struct {
		Name string `json:"name"`
	}
	mcp.AddTool(server, &mcp.Tool{Name: "greet", Description: "say hi"},
		func(_ context.Context, _ *mcp.CallToolRequest, in args) (*mcp.CallToolResult, any, error) {
			return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: "Hi " + in.Name}}}, nil, nil
		})
	h := mcpws.NewHandler(func(*http.Request) *mcp.Server { return server }, nil)
	s := httptest.NewServer(h) // or http.ListenAndServe("127.0.0.1:8080", h)
	defer s.Close()
	defer h.Shutdown(context.Background())

	fmt.Println(call("ws" + strings.TrimPrefix(s.URL, "http")))
	// Output: Hi Ada
}

// A client: the SDK's client over a transport that survives lost connections.
func call(url string) string {
	ctx := context.Background()
	client := mcp.NewClient(&mcp.Implementation{Name: "caller", Version: "1"}, nil)
	session, err := client.Connect(ctx, &mcpws.ClientTransport{URL: url, Reconnect: &mcpws.LinkOptions{}}, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()
	result, err := session.CallTool(ctx, &mcp.CallToolParams{Name: "greet", Arguments: map[string]any{"name": "Ada"}})
	if err != nil {
		log.Fatal(err)
	}
	return result.Content[0].(*mcp.TextContent).Text
}
