package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"

	"github.com/spf13/cobra"

	"github.com/weft-ws/weft/mcpws"
	"github.com/weft-ws/weft/mcpws/envelope"
)

func newMCPConnectCmd() *cobra.Command {
	f := clientFlags{trace: tracer{verb: "mcp connect"}}
	cmd := &cobra.Command{
		Use:   "connect URL",
		Short: "Be a stdio MCP server that is on WebSocket elsewhere",
		Long: `connect speaks MCP's stdio framing on standard input and output and WebSocket to
URL: what a client that only knows stdio puts in its configuration. A lost
connection is made again; with a server that resumes sessions nothing is lost.
It ends when standard input does and the answers have been written.

Exit code: 0 when it ended so or by a signal, 2 if the server cannot be reached
or has gone for good.`,
		Example: `  weft mcp connect ws://127.0.0.1:8080/mcp/ws

  in the configuration of a desktop client:
  {"mcpServers": {"far": {"command": "weft", "args": ["mcp", "connect", "wss://tools.example/mcp"]}}}`,
		Args: takes(1, 1, "the URL of an MCP server"),
		RunE: func(cmd *cobra.Command, args []string) error {
			token, err := f.token()
			if err != nil {
				return err
			}
			dial, err := f.dial()
			if err != nil {
				return err
			}
			if err := f.trace.open(cmd.ErrOrStderr()); err != nil {
				return err
			}
			defer f.trace.close()
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			link, err := mcpws.OpenLink(cmd.Context(), args[0], &mcpws.LinkOptions{Token: token, Dial: dial, Logger: log})
			if err != nil {
				return explainDial(err)
			}
			defer link.Close()
			return bridge(cmd.Context(), link, cmd.InOrStdin(), cmd.OutOrStdout(), int(f.messageMax))
		},
	}
	f.add(cmd.Flags())
	return cmd
}

// bridge carries lines of in to the link and messages of the link to out,
// until in has ended and every request in it has its answer, or ctx ends.
func bridge(ctx context.Context, link *mcpws.Link, in io.Reader, out io.Writer, lineMax int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex
	open := map[string]bool{} // our requests without an answer
	inDone := false
	w := bufio.NewWriter(out)
	write := func(msg []byte) error {
		envelope.OneLine(msg)
		mu.Lock()
		defer mu.Unlock()
		_, _ = w.Write(msg)
		_ = w.WriteByte('\n')
		return w.Flush()
	}
	errDone := errors.New("done")
	go func() {
		lines := bufio.NewScanner(in)
		lines.Buffer(nil, lineMax)
		for lines.Scan() {
			m, err := envelope.Parse(lines.Bytes())
			if err != nil {
				if len(lines.Bytes()) > 0 {
					_ = write(envelope.AppendError(nil, nil, envelope.Legacy, envelope.CodeParse, err.Error()))
				}
				continue
			}
			if m.Kind == envelope.Request {
				mu.Lock()
				open[string(m.IDBytes())] = true
				mu.Unlock()
			}
			if err := link.Write(ctx, m.Raw); err != nil {
				cancel(err)
				return
			}
		}
		if err := lines.Err(); err != nil {
			cancel(fmt.Errorf("standard input: %w", err))
			return
		}
		mu.Lock()
		inDone = true
		none := len(open) == 0
		mu.Unlock()
		if none {
			cancel(errDone)
		}
	}()
	for {
		msg, err := link.Read(ctx)
		if err != nil {
			if cause := context.Cause(ctx); errors.Is(cause, errDone) || errors.Is(cause, context.Canceled) {
				return nil
			} else if cause != nil {
				return cause
			}
			return err
		}
		m, err := envelope.Parse(msg)
		if err != nil {
			continue
		}
		if err := write(msg); err != nil {
			return fmt.Errorf("standard output: %w", err)
		}
		if m.Kind == envelope.Result || m.Kind == envelope.Error {
			mu.Lock()
			delete(open, string(m.IDBytes()))
			done := inDone && len(open) == 0
			mu.Unlock()
			if done {
				return nil
			}
		}
	}
}
