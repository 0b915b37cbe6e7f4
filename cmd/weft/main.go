// Command weft is the command line of the WebSocket engine of the same name.
//
// Results go to standard output, everything else to standard error. The exit
// code is 0 when all is well, 1 when something was found or refused, 2 when the
// command could not do what it was asked.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:]))
}

// run is main without the process: it returns the exit code.
func run(ctx context.Context, args []string) int {
	root := newRootCmd()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var exit *exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		if exit.err != nil {
			fmt.Fprintln(os.Stderr, "weft:", exit.err)
		}
		return exit.code
	}
	fmt.Fprintln(os.Stderr, "weft:", err)
	return 2
}

// An exitError ends the command with a code; err may be nil if all has been
// said.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func newRootCmd() *cobra.Command {
	root := &cobra.Command{
		Use:   "weft",
		Short: "WebSocket that cannot break its framing, and what runs on it",
		Long: `weft speaks WebSocket (RFC 6455, RFC 7692) and tells what is wrong when somebody else does not.

First steps:
  weft serve                         everything on one port, nothing to configure
  weft dial ws://127.0.0.1:8080/echo talk to it; -v shows every frame
  weft doctor FILE                   the first broken rule in a recorded stream`,
		SilenceUsage:      true,
		SilenceErrors:     true,
		DisableAutoGenTag: true,
	}
	root.AddCommand(newServeCmd(), newMCPCmd(), newEchoCmd(), newDialCmd(), newDoctorCmd(), newChatCmd(), newVersionCmd())
	return root
}

func newVersionCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "weft", version())
			return err
		},
	}
}

// version is what the module system knows about this binary.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "devel"
	}
	return info.Main.Version
}
