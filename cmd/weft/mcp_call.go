package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/weft-ws/weft/mcpws"
	"github.com/weft-ws/weft/ws"
)

// clientFlags are the flags of every command that connects to an MCP server.
type clientFlags struct {
	tokenFile  string
	header     []string
	messageMax byteSize
	protocol   string
	secure     clientTLS
	trace      tracer
}

func (f *clientFlags) add(fs *pflag.FlagSet) {
	f.messageMax = 64 << 20
	fs.StringVar(&f.tokenFile, "token-file", "", "file with the bearer token (default: $"+tokenEnv+")")
	fs.StringArrayVar(&f.header, "header", nil, "NAME: VALUE to send with the upgrade request")
	fs.Var(&f.messageMax, "max-message", "largest message to accept")
	f.secure.add(fs)
	f.trace.add(fs)
}

// token returns the bearer token, "" if there is none.
func (f *clientFlags) token() (string, error) {
	if f.tokenFile == "" {
		return os.Getenv(tokenEnv), nil
	}
	b, err := os.ReadFile(f.tokenFile)
	return strings.TrimSpace(string(b)), err
}

func (f *clientFlags) dial() (*ws.DialOptions, error) {
	o := &ws.DialOptions{Header: http.Header{}, Wrap: f.trace.wrap(), Config: ws.Config{MaxMessageSize: int64(f.messageMax)}}
	var err error
	if o.TLS, err = f.secure.config(); err != nil {
		return nil, err
	}
	for _, h := range f.header {
		name, value, ok := strings.Cut(h, ":")
		if !ok {
			return nil, fmt.Errorf("--header %q is not of the form NAME: VALUE", h)
		}
		o.Header.Add(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	return o, nil
}

func newMCPCallCmd() *cobra.Command {
	f := clientFlags{trace: tracer{verb: "mcp call"}}
	var asJSON bool
	var timeout time.Duration
	var answer string
	cmd := &cobra.Command{
		Use:   "call URL TOOL [ARGUMENTS]",
		Short: "Call one tool and print its answer",
		Long: `call connects, calls one tool with ARGUMENTS, a JSON object, and prints what it
answers. Progress is shown on standard error. If the server asks a question, it
is put to you at the terminal, or answered with --answer.

Without TOOL the tools are listed.

Exit code: 0 if the tool succeeded, 1 if it answered with an error, 2 if it could
not be called.`,
		Example: `  weft mcp call ws://127.0.0.1:8080/mcp/ws echo '{"text":"hello"}'
  weft mcp call ws://127.0.0.1:8080/mcp/ws slow '{"steps":5,"seconds":2}'`,
		Args: takes(1, 3, "the URL of an MCP server, and perhaps a tool and its arguments"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if timeout > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, timeout)
				defer cancel()
			}
			c := caller{stdout: cmd.OutOrStdout(), stderr: cmd.ErrOrStderr(), stdin: cmd.InOrStdin(), json: asJSON, answer: answer}
			if len(args) == 3 {
				if err := json.Unmarshal([]byte(args[2]), &c.args); err != nil || c.args == nil {
					return fmt.Errorf("ARGUMENTS %q is not a JSON object; write for instance '{\"text\":\"hello\"}'", args[2])
				}
			} else {
				c.args = map[string]json.RawMessage{}
			}
			if err := f.trace.open(cmd.ErrOrStderr()); err != nil {
				return err
			}
			defer f.trace.close()
			session, err := c.connect(ctx, args[0], &f)
			if err != nil {
				return explainDial(err)
			}
			defer session.Close()
			if len(args) == 1 {
				return c.list(ctx, session)
			}
			return c.call(ctx, session, args[1])
		},
	}
	f.add(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the whole result as JSON")
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "give up after so long")
	cmd.Flags().StringVar(&answer, "answer", "", "what to answer if the server asks")
	cmd.Flags().StringVar(&f.protocol, "protocol", "", "MCP revision to speak, such as 2025-11-25 (default: the newest that both know)")
	return cmd
}

// explainDial adds what to do about a refused connection.
func explainDial(err error) error {
	var he *ws.HandshakeError
	if errors.As(err, &he) {
		switch he.Status {
		case http.StatusUnauthorized:
			return fmt.Errorf("%w\nhint: set %s to the token that the server printed, or use a fresh ticket URL", err, tokenEnv)
		case http.StatusNotFound:
			return fmt.Errorf("%w\nhint: weft serve answers under /mcp/ws, or /mcp/NAME if there are several servers", err)
		}
	}
	return err
}

// A caller carries out one call.
type caller struct {
	stdout, stderr io.Writer
	stdin          io.Reader
	json           bool
	answer         string
	args           map[string]json.RawMessage
}

func (c *caller) connect(ctx context.Context, url string, f *clientFlags) (*mcp.ClientSession, error) {
	token, err := f.token()
	if err != nil {
		return nil, err
	}
	dial, err := f.dial()
	if err != nil {
		return nil, err
	}
	client := mcp.NewClient(&mcp.Implementation{Name: "weft", Version: version()}, &mcp.ClientOptions{
		ElicitationHandler: c.ask,
		ProgressNotificationHandler: func(_ context.Context, r *mcp.ProgressNotificationClientRequest) {
			p := r.Params
			line := fmt.Sprintf("weft: progress %g", p.Progress)
			if p.Total > 0 {
				line += fmt.Sprintf(" of %g", p.Total)
			}
			if p.Message != "" {
				line += ": " + p.Message
			}
			fmt.Fprintln(c.stderr, line)
		},
	})
	return client.Connect(ctx, &mcpws.ClientTransport{URL: url, Token: token, Dial: dial}, &mcp.ClientSessionOptions{ProtocolVersion: f.protocol})
}

// ask puts a question of the server to the person at the terminal.
func (c *caller) ask(_ context.Context, req *mcp.ElicitRequest) (*mcp.ElicitResult, error) {
	name := "answer"
	if schema, ok := req.Params.RequestedSchema.(map[string]any); ok {
		if props, ok := schema["properties"].(map[string]any); ok {
			for name = range props {
				break
			}
		}
	}
	text := c.answer
	if text == "" {
		fmt.Fprintf(c.stderr, "weft: the server asks: %s\n> ", req.Params.Message)
		line, err := bufio.NewReader(c.stdin).ReadString('\n')
		if text = strings.TrimSpace(line); text == "" {
			if err != nil && !errors.Is(err, io.EOF) {
				return nil, err
			}
			return &mcp.ElicitResult{Action: "decline"}, nil
		}
	}
	return &mcp.ElicitResult{Action: "accept", Content: map[string]any{name: text}}, nil
}

func (c *caller) call(ctx context.Context, session *mcp.ClientSession, tool string) error {
	params := &mcp.CallToolParams{Name: tool, Arguments: c.args}
	params.SetProgressToken("weft")
	result, err := session.CallTool(ctx, params)
	if err != nil {
		return err
	}
	if c.json {
		if err := json.NewEncoder(c.stdout).Encode(result); err != nil {
			return err
		}
	} else {
		for _, content := range result.Content {
			if t, ok := content.(*mcp.TextContent); ok {
				fmt.Fprintln(c.stdout, t.Text)
				continue
			}
			if err := json.NewEncoder(c.stdout).Encode(content); err != nil {
				return err
			}
		}
	}
	if result.IsError {
		return &exitError{code: 1}
	}
	return nil
}

func (c *caller) list(ctx context.Context, session *mcp.ClientSession) error {
	for tool, err := range session.Tools(ctx, nil) {
		if err != nil {
			return err
		}
		if c.json {
			if err := json.NewEncoder(c.stdout).Encode(tool); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(c.stdout, "%-20s %s\n", tool.Name, strings.TrimSpace(tool.Description))
	}
	return nil
}
