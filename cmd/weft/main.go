// Command weft is the command line of the WebSocket engine of the same name.
//
// Results go to standard output, everything else to standard error. The exit
// code is 0 when all is well, 1 when something was found or refused, 2 when the
// command could not do what it was asked.
package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/weft-ws/weft/ws"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal asks for an orderly end, the second is obeyed at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:]))
}

// run is main without the process: it returns the exit code.
func run(ctx context.Context, args []string) int {
	root := newRootCmd()
	root.SetArgs(args)
	return execute(ctx, root)
}

// execute carries out a command, and says on its standard error what went wrong.
func execute(ctx context.Context, root *cobra.Command) int {
	err := root.ExecuteContext(ctx)
	if err != nil && ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.Cause(ctx))) {
		err = &exitError{2, errors.New("interrupted")}
	}
	var exit *exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		if exit.err != nil {
			complain(root.ErrOrStderr(), exit.err)
		}
		return exit.code
	}
	complain(root.ErrOrStderr(), err)
	return 2
}

// A hintedError is an error with what to do about it, which is printed on a line
// of its own.
type hintedError struct {
	err  error
	hint string
}

// hinted adds a hint to an error.
func hinted(err error, hint string) error { return &hintedError{err, hint} }

func (e *hintedError) Error() string { return e.err.Error() + "\nhint: " + e.hint }

func (e *hintedError) Unwrap() error { return e.err }

// complain prints an error, what a server said with its refusal, and a hint
// where there is one or the mistake can be guessed.
func complain(w io.Writer, err error) {
	text, help := err.Error(), hint(err)
	var told *hintedError
	if errors.As(err, &told) {
		help = told.hint
		text = strings.Replace(text, "\nhint: "+help, "", 1)
	}
	fmt.Fprintln(w, "weft:", text)
	var usage *usageError
	if errors.As(err, &usage) {
		for _, line := range usage.lines() {
			fmt.Fprintln(w, line)
		}
	}
	var he *ws.HandshakeError
	if errors.As(err, &he) && len(he.Body) > 0 {
		line, _, _ := strings.Cut(strings.TrimSpace(string(he.Body)), "\n")
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "<") && !strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) {
			fmt.Fprintln(w, "the server says:", line)
		}
	}
	if help != "" {
		fmt.Fprintln(w, "hint:", help)
	}
}

// hint guesses what went wrong, or returns "".
func hint(err error) string {
	var he *ws.HandshakeError
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var noName *net.DNSError
	text := err.Error()
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there; is the server running, and is this its port?"
	case errors.Is(err, syscall.EADDRINUSE):
		return "another program has this port; port 0 takes a free one, as in 127.0.0.1:0"
	case errors.As(err, &unknown), errors.As(err, &name):
		return "--tls-ca FILE trusts the authority in it; --insecure accepts any certificate, for a try"
	case strings.Contains(text, "HTTP response to HTTPS client"), strings.Contains(text, "first record does not look like a TLS handshake"):
		return "the server does not speak TLS; try ws:// instead of wss://"
	case errors.As(err, &he) && he.Status == http.StatusBadRequest && strings.Contains(string(he.Body), "HTTPS"):
		return "the server speaks TLS; try wss:// instead of ws://"
	case errors.As(err, &he) && he.Status == http.StatusOK:
		return "that is an ordinary web page; is this the path of the WebSocket endpoint?"
	case strings.Contains(text, `scheme is "http"`):
		return "write ws:// instead of http://"
	case strings.Contains(text, `scheme is "https"`):
		return "write wss:// instead of https://"
	case strings.Contains(text, "the URL's scheme is"):
		return "a URL begins with ws:// or wss://, as in ws://127.0.0.1:9001/"
	case errors.As(err, &noName):
		return "is the name of the host spelled right?"
	case errors.As(err, &he) && he.Status == http.StatusForbidden && strings.Contains(string(he.Body), "AcceptOptions.Hosts"):
		return "servers of weft allow more names with the flag --host"
	case errors.As(err, &he) && he.Status == http.StatusForbidden && strings.Contains(string(he.Body), "AcceptOptions.Origins"):
		return "servers of weft allow more pages with the flag --origin"
	case errors.As(err, &he) && he.Status == 0:
		return "what listens there does not speak HTTP as a WebSocket server does; is this its port?"
	case strings.Contains(text, "missing port in address"):
		return "an address has a port, as in 127.0.0.1:8080"
	case strings.Contains(text, "invalid port"):
		return "ports are 1 to 65535, and 0 takes a free one"
	case strings.Contains(text, "missing unit in duration"):
		return "durations have a unit, as in 30s or 500ms"
	case strings.Contains(text, "cannot contain colon"), strings.Contains(text, "unsupported protocol scheme"):
		return "a URL begins with ws:// or wss://, as in ws://127.0.0.1:9001/"
	}
	return ""
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
  weft doctor FILE                   the first broken rule in a recorded stream
  weft chat mirror --source pattern  what a video call looks like, without a server

Exit code: 0 all is well, 1 something was found or refused, 2 it could not be done.`,
		SilenceUsage:      true,
		SilenceErrors:     true,
		DisableAutoGenTag: true,
		Args:              takesVerb,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return &usageError{cmd, err} })
	root.AddCommand(newServeCmd(), newMCPCmd(), newEchoCmd(), newDialCmd(), newDoctorCmd(), newChatCmd(), newVersionCmd())
	return root
}

func newVersionCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Long: `version prints the version of weft, devel if it was built from a working copy.

Exit code: 0.`,
		Example: "  weft version",
		Args:    takes(0, 0, ""),
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
