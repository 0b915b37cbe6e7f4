package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/weft-ws/weft/gateway"
	"github.com/weft-ws/weft/mcpws"
	"github.com/weft-ws/weft/mcpws/envelope"
	"github.com/weft-ws/weft/ws"
)

// routeFlags are the flags of one route.
type routeFlags struct {
	name        string
	isolation   string
	pool        int
	messageMax  byteSize
	requestMax  byteSize
	callTimeout time.Duration
	allow, deny []string
	framing     string
	newline     string
	binary      string
	errors      string
	env         []string
	dir         string
}

func (f *routeFlags) add(fs *pflag.FlagSet) {
	f.messageMax = mcpws.DefaultMessageMax
	f.requestMax = 10 << 20
	fs.StringVar(&f.name, "name", "", "name of the server in its URL (default: of the command)")
	fs.StringVar(&f.isolation, "isolation", "connection", "which clients have a server in common: connection (none), pool (none, servers are started in advance) or shared (all)")
	fs.IntVar(&f.pool, "pool-size", 2, "servers to keep ready with --isolation pool")
	fs.Var(&f.messageMax, "max-message", "largest message of a client, then close 1009, and of the server, then an error")
	fs.Var(&f.requestMax, "max-request", "largest message to the server, then an error; servers of the TypeScript SDK end at 10MiB")
	fs.DurationVar(&f.callTimeout, "call-timeout", 10*time.Minute, "answer a call with an error after so long without result or progress; negative: never")
	fs.StringSliceVar(&f.allow, "allow", nil, "offer only tools that match one of these patterns")
	fs.StringSliceVar(&f.deny, "deny", nil, "do not offer tools that match one of these patterns")
	fs.StringVar(&f.framing, "framing", "message", "where a JSON-RPC message ends: with its WebSocket message, or at a newline (stream)")
	fs.StringVar(&f.newline, "newline", "never", "end messages to clients with a newline: never, mirror or always")
	fs.StringVar(&f.binary, "binary", "reject", "a binary message: reject (close 1003) or text")
	fs.StringVar(&f.errors, "errors", "reply", "a message that cannot be read: reply with an error, or close with 1002")
	fs.StringArrayVar(&f.env, "env", nil, "NAME=VALUE for the server, or NAME to pass on; its environment is otherwise empty but for PATH, HOME and the like")
	fs.StringVar(&f.dir, "dir", "", "working directory of the server")
}

// dialect reads the words of a dialect.
func dialect(framing, newline, binary, errs string) (mcpws.Dialect, error) {
	var d mcpws.Dialect
	var err error
	if d.Framing, err = envelope.ParseFraming(framing); err != nil {
		return d, err
	}
	if d.Newline, err = mcpws.ParseNewline(newline); err != nil {
		return d, err
	}
	if d.Binary, err = mcpws.ParseBinary(binary); err != nil {
		return d, err
	}
	d.Errors, err = mcpws.ParseErrors(errs)
	return d, err
}

// route returns the route of the flags, without its backend.
func (f *routeFlags) route() (gateway.Route, error) {
	iso, err := gateway.ParseIsolation(f.isolation)
	if err != nil {
		return gateway.Route{}, fmt.Errorf("--isolation: %w", err)
	}
	d, err := dialect(f.framing, f.newline, f.binary, f.errors)
	if err != nil {
		return gateway.Route{}, err
	}
	return gateway.Route{Name: f.name, Isolation: iso, PoolSize: f.pool, Dialect: d, MessageMax: int64(f.messageMax),
		RequestMax: int(f.requestMax), CallTimeout: f.callTimeout, Allow: f.allow, Deny: f.deny}, nil
}

// command returns the backend that runs args.
func (f *routeFlags) command(g *gate, args []string) *gateway.Command {
	c := &gateway.Command{Path: args[0], Args: args[1:], Dir: f.dir, Env: map[string]string{}, LineMax: int(f.messageMax),
		Logger: g.log, Watcher: g.watcher}
	for _, e := range f.env {
		if name, value, ok := strings.Cut(e, "="); ok {
			c.Env[name] = value
		} else {
			c.Inherit = append(c.Inherit, e)
		}
	}
	return c
}

func newMCPServeCmd() *cobra.Command {
	gf := gateFlags{trace: tracer{verb: "mcp serve"}}
	var rf routeFlags
	var hub string
	cmd := &cobra.Command{
		Use:   "serve [flags] -- COMMAND [ARG…]",
		Short: "Put a stdio MCP server on WebSocket",
		Long: `serve runs an MCP server that speaks stdio and offers it on WebSocket, under
/mcp/NAME and /mcp/ws. By default every client has a server process of its own.
The command is run as it stands, without a shell, and none of its processes
outlives weft.

With --dial it opens no port and offers the server to a hub instead, which it
dials, again and again if need be: a machine behind NAT needs nothing else. A
hub of weft is "weft serve --attach"; the token in $WEFT_TOKEN is the hub's.

Exit code: 0 after Ctrl-C or SIGTERM, 2 if it could not listen or serve.`,
		Example: `  weft mcp serve -- npx -y @modelcontextprotocol/server-everything stdio
  weft mcp serve --isolation shared --name git -- uvx mcp-server-git
  weft mcp serve --dial 'wss://hub.example/mcp/attach?name=lamp' -- ./lamp
  weft mcp serve --framing stream --newline always --errors close -- ./server`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return &usageError{cmd, errors.New("mcp serve needs a server to run")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if rf.name == "" {
				rf.name = nameOf(args)
			}
			r, err := rf.route()
			if err != nil {
				return err
			}
			if err := findProgram(args[0], rf.dir); err != nil {
				return err
			}
			if hub != "" {
				return attach(cmd, hub, &gf, &rf, r, args)
			}
			g, err := gf.open(cmd.ErrOrStderr(), nil, nil)
			if err != nil {
				return err
			}
			r.Backend = rf.command(g, args)
			if err := g.gw.SetRoutes([]gateway.Route{r}); err != nil {
				_ = g.ln.Close()
				return err
			}
			g.welcome(cmd.ErrOrStderr(), "/mcp/"+r.Name, "", "")
			return g.run(cmd.Context(), g.mux())
		},
	}
	cmd.Flags().SetInterspersed(false) // those of the command are its own, with and without "--"
	gf.add(cmd.Flags())
	rf.add(cmd.Flags())
	cmd.Flags().StringVar(&hub, "dial", "", "offer the server to the hub at this URL instead of listening")
	return cmd
}

// findProgram says at the start what every client would be told later.
func findProgram(name, dir string) error {
	if dir != "" {
		if st, err := os.Stat(dir); err != nil {
			return fmt.Errorf("--dir: %w", err)
		} else if !st.IsDir() {
			return fmt.Errorf("--dir: %s is not a directory", dir)
		}
		if !filepath.IsAbs(name) && filepath.Base(name) != name {
			name = filepath.Join(dir, name)
		}
	}
	_, err := exec.LookPath(name)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, exec.ErrDot):
		return hinted(fmt.Errorf("%s is in this directory, where programs are not looked for", name), "write ."+string(filepath.Separator)+name)
	case errors.Is(err, fs.ErrPermission):
		return hinted(fmt.Errorf("%s is not a program that you may run", name), "chmod +x makes a file one; for a script, name its interpreter first")
	}
	hint := "is it installed, and in $PATH?"
	switch base := filepath.Base(name); {
	case base == "npx" || base == "node":
		hint = base + " comes with Node.js; is that installed, and in $PATH?"
	case base == "uvx" || base == "uv":
		hint = base + " comes with uv, a tool for Python; is that installed, and in $PATH?"
	case base != name:
		hint = "is the path right? " + base + " alone would be looked for in $PATH"
	case strings.Contains(name, " "):
		hint = "the program and each of its arguments are words of their own: leave the quotes out"
	}
	return hinted(fmt.Errorf("there is no program %q", name), hint)
}

// attach offers a command to a hub.
func attach(cmd *cobra.Command, hub string, gf *gateFlags, rf *routeFlags, r gateway.Route, args []string) error {
	log, err := gf.logger(cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	token, err := (&clientFlags{tokenFile: gf.tokenFile}).token()
	if err != nil {
		return err
	}
	header := http.Header{}
	if token != "" {
		header.Set("Authorization", "Bearer "+token)
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	g := &gate{log: log, watcher: gateway.NewWatcher(log, exe, "mcp", "watch-children"), gw: gateway.New(gateway.Options{Logger: log})}
	r.Backend = rf.command(g, args)
	if err := g.gw.SetRoutes([]gateway.Route{r}); err != nil {
		return err
	}
	if err := gf.trace.open(cmd.ErrOrStderr()); err != nil {
		return err
	}
	defer gf.trace.close()
	fmt.Fprintf(cmd.ErrOrStderr(), "weft: offering %s to %s\n", r.Name, strings.SplitN(hub, "?", 2)[0])
	err = g.gw.Attach(cmd.Context(), r.Name, hub, &ws.DialOptions{Header: header, Wrap: gf.trace.wrap()})
	ctx, cancel := context.WithTimeout(context.Background(), gf.drain)
	defer cancel()
	g.gw.Drain(ctx)
	_ = g.watcher.Close()
	return explainDial(err)
}

// nameOf makes the name of a route from a command.
func nameOf(args []string) string {
	name := strings.TrimSuffix(filepath.Base(args[0]), ".exe")
	if name == "npx" || name == "uvx" || name == "node" || name == "python" || name == "python3" {
		for _, a := range args[1:] {
			if !strings.HasPrefix(a, "-") {
				name = filepath.Base(a)
				break
			}
		}
	}
	slug := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_', r == '.':
			return r
		}
		return '-'
	}, name)
	if slug = strings.Trim(slug, "-_."); slug == "" {
		return "server"
	}
	return slug
}
