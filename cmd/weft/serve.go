package main

import (
	"net/http"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/spf13/cobra"

	"github.com/weft-ws/weft/gateway"
)

func newServeCmd() *cobra.Command {
	var gf gateFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Everything on one port",
		Long: `serve opens one port with MCP servers on WebSocket under /mcp, an echo of
WebSocket messages under /echo, and /healthz, /readyz and /metrics.

Without configuration it offers a built-in MCP server with the tools echo, add,
large, slow and ask, and prints the next command to try.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			g, err := gf.open(cmd.ErrOrStderr(), nil)
			if err != nil {
				return err
			}
			if err := g.gw.SetRoutes([]gateway.Route{builtinRoute()}); err != nil {
				_ = g.ln.Close()
				return err
			}
			g.welcome(cmd.ErrOrStderr(), "/mcp/ws", "echo", `{"text":"hello"}`)
			return g.run(cmd.Context(), g.mux(mountMore))
		},
	}
	gf.add(cmd.Flags())
	return cmd
}

// mountMore adds what is not the gateway's to the port of weft serve.
func mountMore(mux *http.ServeMux) {
}

// builtinRoute offers the built-in server, one for all clients: it keeps
// nothing about them.
func builtinRoute() gateway.Route {
	server := gateway.NewBuiltin(version())
	return gateway.Route{Name: "builtin", MessageMax: gateway.BuiltinLargeMax + 1<<20,
		Backend: &gateway.InProcess{Name: "built-in tools", Server: func(gateway.Caller) *mcp.Server { return server }}}
}
