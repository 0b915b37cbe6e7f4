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
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
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
	fs.StringArrayVarP(&f.header, "header", "H", nil, `request header, as "Name: value"; may be repeated`)
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
	if err != nil {
		return "", fmt.Errorf("--token-file: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

func (f *clientFlags) dial() (*ws.DialOptions, error) {
	o := &ws.DialOptions{Header: http.Header{}, Wrap: f.trace.wrap(), Config: ws.Config{MaxMessageSize: int64(f.messageMax)}}
	var err error
	if o.TLS, err = f.secure.config(); err != nil {
		return nil, err
	}
	return o, parseHeaders(o.Header, f.header)
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
			ctx, end := context.WithCancel(cmd.Context())
			defer end()
			if timeout < 0 {
				return fmt.Errorf("--timeout is %v; it cannot be negative", timeout)
			}
			if timeout > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeoutCause(ctx, timeout, fmt.Errorf("%v are over (--timeout)", timeout))
				defer cancel()
			}
			c := caller{stdout: cmd.OutOrStdout(), stderr: cmd.ErrOrStderr(), stdin: cmd.InOrStdin(), json: asJSON, answer: answer, done: ctx.Done()}
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
				err = c.list(ctx, session)
			} else {
				err = c.call(ctx, session, args[1])
			}
			return overdue(ctx, err)
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
			return hinted(err, "set "+tokenEnv+" to the token that the server printed, or use a fresh ticket URL")
		case http.StatusNotFound:
			return hinted(err, "weft serve answers under /mcp/ws, or /mcp/NAME if there are several servers")
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
	done           <-chan struct{} // closed when the command is to end
	reading        sync.Once
	lines          chan inputLine // of stdin, once it is read
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
	wait := time.AfterFunc(patience, func() {
		fmt.Fprintln(c.stderr, "weft: no answer yet; a server that has to be installed and started first may take a minute, Ctrl-C ends the wait")
	})
	defer wait.Stop()
	ctx, giveUp := context.WithCancelCause(ctx)
	end := time.AfterFunc(helloTimeout, func() { giveUp(fmt.Errorf("no answer within %v", helloTimeout)) })
	t := &notedTransport{Transport: &mcpws.ClientTransport{URL: url, Token: token, Dial: dial}}
	session, err := client.Connect(ctx, t, &mcp.ClientSessionOptions{ProtocolVersion: f.protocol})
	cause := context.Cause(ctx)
	if !end.Stop() || err != nil {
		giveUp(nil) // else ctx stays for the session, until that of the caller ends
	}
	if err == nil || !t.connected {
		return session, err
	}
	var wire *jsonrpc.Error
	switch isWire := errors.As(err, &wire); {
	case cause != nil:
		return nil, hinted(fmt.Errorf("there is a WebSocket server, but no answer to initialize: %w", cause), "does an MCP server run behind it, and is this its URL? "+program()+" dial -v URL shows what comes")
	case isWire && wire.Code != jsonrpc.CodeMethodNotFound:
		return nil, hinted(err, "the server behind this URL did not begin; the log of the gateway tells more")
	}
	// An echo, for one, sends our own question back, and gets our answer.
	return nil, hinted(fmt.Errorf("there is a WebSocket server, but not one that speaks MCP: %w", err),
		"weft serve has MCP under /mcp/ws; "+program()+" dial -v URL shows what comes")
}

const (
	// patience is the time after which a word is due on why nothing happens yet.
	patience = 5 * time.Second
	// helloTimeout bounds the wait for the answer to initialize. A server may have
	// to be fetched and started first.
	helloTimeout = 2 * time.Minute
)

// overdue says what a call was ended by: --timeout, as far as ctx knows.
func overdue(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(err, context.DeadlineExceeded) && cause != nil {
		return fmt.Errorf("no answer: %w", cause)
	}
	return err
}

// A notedTransport knows whether there was a connection.
type notedTransport struct {
	mcp.Transport
	connected bool
}

func (t *notedTransport) Connect(ctx context.Context) (mcp.Connection, error) {
	c, err := t.Transport.Connect(ctx)
	t.connected = err == nil
	return c, err
}

// ask puts a question of the server to the person at the terminal.
func (c *caller) ask(ctx context.Context, req *mcp.ElicitRequest) (*mcp.ElicitResult, error) {
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
		line, err := c.line(ctx)
		if text = strings.TrimSpace(line); text == "" {
			if err != nil && !errors.Is(err, io.EOF) {
				return nil, err
			}
			return &mcp.ElicitResult{Action: "decline"}, nil
		}
	}
	return &mcp.ElicitResult{Action: "accept", Content: map[string]any{name: text}}, nil
}

// An inputLine is a line of standard input, or why there is none.
type inputLine struct {
	text string
	err  error
}

// line reads a line, or gives up when ctx or the command ends: a terminal may
// never send one. One goroutine reads for all questions.
func (c *caller) line(ctx context.Context) (string, error) {
	c.reading.Do(func() {
		c.lines = make(chan inputLine)
		go func() {
			r := bufio.NewReader(c.stdin)
			for {
				text, err := r.ReadString('\n')
				select {
				case c.lines <- inputLine{text, err}:
				case <-c.done:
					return
				}
			}
		}()
	})
	select {
	case l := <-c.lines:
		return l.text, l.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	case <-c.done:
		return "", context.Canceled
	}
}

func (c *caller) call(ctx context.Context, session *mcp.ClientSession, tool string) error {
	params := &mcp.CallToolParams{Name: tool, Arguments: c.args}
	params.SetProgressToken("weft")
	result, err := session.CallTool(ctx, params)
	var wire *jsonrpc.Error
	if errors.As(err, &wire) && wire.Code == jsonrpc.CodeInvalidParams && strings.Contains(wire.Message, tool) {
		return hinted(err, "without a tool, weft mcp call lists those that there are")
	}
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
