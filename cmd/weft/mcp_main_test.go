package main

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/weft-ws/weft/gateway"
)

// The test binary is executed again as a stdio MCP server, when the variable
// says so, and as weft itself, for the process that watches over children.
func TestMain(m *testing.M) {
	if os.Getenv("WEFT_TEST_STDIO") != "" {
		if err := gateway.NewBuiltin("test").Run(context.Background(), &mcp.StdioTransport{}); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(0)
	}
	if len(os.Args) > 2 && os.Args[1] == "mcp" {
		os.Exit(run(context.Background(), os.Args[1:]))
	}
	os.Exit(m.Run())
}
