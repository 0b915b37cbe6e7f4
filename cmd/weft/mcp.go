package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/weft-ws/weft/gateway"
)

func newMCPCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "mcp",
		Short: "The Model Context Protocol over WebSocket",
		Long: `mcp puts MCP servers on WebSocket and calls them there. The binding is
described in docs/mcp-over-websocket.md, the gateway in docs/gateway.md.`,
		Example: `  weft mcp serve --no-auth -- npx -y @modelcontextprotocol/server-everything stdio
  weft mcp call ws://127.0.0.1:8080/mcp/ws echo '{"message":"hello"}'`,
		Args: takesVerb,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newMCPServeCmd(), newMCPCallCmd(), newMCPConnectCmd(), newMCPProbeCmd(), newMCPLsCmd(), newMCPKillCmd(), newMCPWatchCmd())
	return cmd
}

// newMCPWatchCmd is the process that outlives a killed gateway just long
// enough to end its children. The gateway starts it; nobody else needs it.
func newMCPWatchCmd() *cobra.Command {
	return &cobra.Command{
		Use:    "watch-children",
		Short:  "End the process groups named on standard input when it closes",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE:   func(*cobra.Command, []string) error { return gateway.Watch(os.Stdin) },
	}
}
