package main

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/weft-ws/weft/mcpws/probe"
)

func newMCPProbeCmd() *cobra.Command {
	var f clientFlags
	var asJSON, all bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "probe URL",
		Short: "Ask an MCP endpoint everything that a well-behaved one must answer",
		Long: `probe asks an MCP endpoint on WebSocket some fifty questions about RFC 6455,
JSON-RPC and MCP and prints what was not as wanted, why it matters and how to
mend it. Each question has a connection of its own.

Exit code: 0 if all was as wanted, 1 if something was not, 2 if the endpoint could
not be asked.`,
		Example: `  weft mcp probe ws://127.0.0.1:8080/mcp/ws
  weft mcp probe --json wss://tools.example/mcp`,
		Args: takes(1, 1, "the URL of an MCP server"),
		RunE: func(cmd *cobra.Command, args []string) error {
			token, err := f.token()
			if err != nil {
				return err
			}
			secure, err := f.secure.config()
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			asked, found := 0, 0
			err = probe.Run(cmd.Context(), probe.Options{URL: args[0], Token: token, Timeout: timeout, TLS: secure}, func(r probe.Result) {
				asked++
				if !r.OK {
					found++
				}
				switch {
				case asJSON:
					_ = json.NewEncoder(out).Encode(r)
				case r.OK && all:
					fmt.Fprintf(out, "ok    %-4s %s: %s\n", r.ID, r.Case, r.Got)
				case !r.OK:
					fmt.Fprintf(out, "FAIL  %-4s %s\n            wanted  %s\n            got     %s\n            why     %s\n            fix     %s\n",
						r.ID, r.Case, r.Want, r.Got, r.Why, r.Fix)
				}
			})
			if err != nil {
				return err
			}
			if !asJSON {
				fmt.Fprintf(out, "%d asked, %d as wanted, %d not\n", asked, asked-found, found)
			}
			if found > 0 {
				return &exitError{code: 1}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&f.tokenFile, "token-file", "", "file with the bearer token (default: $"+tokenEnv+")")
	f.secure.add(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print every case as a line of JSON")
	cmd.Flags().BoolVar(&all, "all", false, "print what was as wanted too")
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Second, "how long one answer may take")
	return cmd
}
