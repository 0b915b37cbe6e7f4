package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/spf13/cobra"

	"github.com/weft-ws/weft/acip"
	"github.com/weft-ws/weft/chat"
	"github.com/weft-ws/weft/gateway"
	"github.com/weft-ws/weft/ws"
)

func newServeCmd() *cobra.Command {
	gf := gateFlags{trace: tracer{verb: "serve"}}
	var file string
	var attach bool
	var cf chatServerFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Everything on one port",
		Long: `serve opens one port with MCP servers on WebSocket under /mcp, video calls under
/chat (and for every client that offers the subprotocol acip, whatever its path),
an echo of WebSocket messages under /echo, and /healthz, /readyz and /metrics.

On an address that others can reach /chat is there only with a password or a list
of keys; MCP wants its token everywhere.

With --config it offers the servers of a weft.toml, or of the JSON file with
"mcpServers" that a desktop client has already; on SIGHUP the file is read again
and servers that did not change are left alone. Flags win over the file.

Without configuration it offers a built-in MCP server with the tools echo, add,
large, slow and ask, and prints the next command to try.

Exit code: 0 after Ctrl-C or SIGTERM, 2 if it could not listen or serve.`,
		Example: `  weft serve
  weft serve --config weft.toml
  weft serve --config ~/.config/Claude/claude_desktop_config.json`,
		Args: takes(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s := serving{file: file, flags: &gf, attach: attach, chatFlags: &cf}
			if err := s.open(cmd); err != nil {
				return err
			}
			return s.run(cmd)
		},
	}
	gf.add(cmd.Flags())
	cf.add(cmd, "chat-")
	cmd.Flags().StringVar(&file, "config", "", "weft.toml, or a JSON file with mcpServers")
	cmd.Flags().BoolVar(&attach, "attach", false, "let servers dial in at /mcp/attach?name=NAME, with the token that clients need")
	return cmd
}

// serving is one run of weft serve.
type serving struct {
	file    string
	flags   *gateFlags
	gate    *gate
	builtin gateway.Backend
	config  *gateway.Config
	attach  bool

	chatFlags *chatServerFlags
}

func (s *serving) open(cmd *cobra.Command) error {
	server := gateway.NewBuiltin(version())
	s.builtin = &gateway.InProcess{Name: "built-in tools", Server: func(gateway.Caller) *mcp.Server { return server }}
	if s.file != "" {
		var err error
		if s.config, err = gateway.LoadConfig(s.file); err != nil {
			return err
		}
		c, changed := s.config, cmd.Flags().Changed
		if c.Listen != "" && !changed("listen") {
			s.flags.listen = c.Listen
		}
		if len(c.Origins) > 0 && !changed("origin") {
			s.flags.origins = c.Origins
		}
		if len(c.Hosts) > 0 && !changed("host") {
			s.flags.hosts = c.Hosts
		}
		if c.Auth.None && !changed("no-auth") {
			s.flags.noAuth = true
		}
	}
	g, err := s.flags.open(cmd.ErrOrStderr(), s.config, func(o *gateway.Options) {
		if s.attach {
			o.Attach = []string{owner}
			if o.Auth == nil {
				o.Attach = []string{""}
			}
		}
		if s.config != nil {
			if len(s.config.Auth.Attach) > 0 {
				o.Attach = s.config.Auth.Attach
			}
			o.NoMerged = s.config.Merged != nil && !*s.config.Merged
			o.ConnectionsMax, o.PerAddressMax, o.PerPrincipalMax = s.config.Limits.Connections, s.config.Limits.PerAddress, s.config.Limits.PerPrincipal
			l := s.config.Limits
			o.CallsPerAddress, o.CallsPerPrincipal = l.CallsPerAddress, l.CallsPerPrincipal
			o.BytesPerConnection, o.BytesPerAddress, o.BytesPerPrincipal = int64(l.BytesPerConnection), int64(l.BytesPerAddress), int64(l.BytesPerPrincipal)
		}
	})
	if err != nil {
		return err
	}
	s.gate = g
	routes, err := s.routes(s.config)
	if err == nil && s.attach && g.auth != nil && !g.static && (s.config == nil || len(s.config.Auth.Attach) == 0) {
		err = hinted(errors.New("--attach is for the bearer of the gateway's own token, and there is none"),
			"name the principals who may attach servers: attach = [\"…\"] under [auth]")
	}
	if err == nil {
		err = g.gw.SetRoutes(routes)
	}
	if err != nil {
		_ = g.ln.Close()
	}
	return err
}

// routes are those of the configuration, or the built-in tools.
func (s *serving) routes(c *gateway.Config) ([]gateway.Route, error) {
	if c == nil {
		return []gateway.Route{{Name: "builtin", MessageMax: gateway.BuiltinLargeMax + 1<<20, Backend: s.builtin}}, nil
	}
	routes, err := c.Routes(gateway.Env{Logger: s.gate.log, Watcher: s.gate.watcher, Builtin: s.builtin})
	if err == nil && len(routes) == 0 {
		err = hinted(fmt.Errorf("%s: there is no server in it", s.file), `add a table, for instance [servers.git] with the line command = "uvx" and the line args = ["mcp-server-git"]`)
	}
	for _, r := range routes {
		// The others are served all the same, and the program may come yet.
		if b, ok := r.Backend.(*gateway.Command); ok {
			if err := findProgram(b.Path, b.Dir); err != nil {
				s.gate.log.Warn("a server cannot be started", "server", r.Name, "err", strings.ReplaceAll(err.Error(), "\n", "; "))
			}
		}
	}
	return routes, err
}

func (s *serving) run(cmd *cobra.Command) error {
	g := s.gate
	if s.config == nil {
		g.welcome(cmd.ErrOrStderr(), "/mcp/ws", "echo", `{"text":"hello"}`)
	} else {
		for _, info := range g.gw.Registry().Servers() {
			fmt.Fprintf(cmd.ErrOrStderr(), "weft: %s  %s\n", g.url("/mcp/"+info.Name), info.Backend)
		}
		if n := len(g.gw.Registry().Servers()); n > 1 && (s.config.Merged == nil || *s.config.Merged) {
			fmt.Fprintf(cmd.ErrOrStderr(), "weft: %s  the tools of all %d\n", g.url("/mcp"), n)
		}
		g.welcome(cmd.ErrOrStderr(), "/mcp/"+g.gw.Registry().Servers()[0].Name, "", "")
	}
	ctx, stop := context.WithCancel(cmd.Context())
	defer stop()
	if s.config != nil {
		go s.reloads(ctx)
	}
	var calls *chat.Server
	mux := g.mux()
	handler := http.Handler(mux)
	if loopback := listensOnLoopback(s.flags.listen); loopback || s.chatFlags.guarded() {
		hosts := s.flags.hosts
		if loopback && len(hosts) == 0 {
			hosts = ws.LoopbackHosts()
		}
		cfg, err := s.chatFlags.config(hosts, g.log)
		if err != nil {
			return err
		}
		calls = mountChat(mux, "/chat", cfg)
		g.places = append(g.places, place{"/chat", "video calls on WebSocket, for " + program() + " chat join; /chat/ROOM for others"})
		handler = bySubprotocol(calls, mux)
		fmt.Fprintf(cmd.ErrOrStderr(), "weft: for a video call          %s chat join %s --source pattern\n", program(), g.url("/chat"))
	}
	if calls == nil {
		fmt.Fprintln(cmd.ErrOrStderr(), "weft: no video calls: on an address that others can reach, /chat needs --chat-password-file or --chat-clients-file")
	}
	err := g.run(ctx, handler)
	if calls != nil {
		grace, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = calls.Shutdown(grace) // its error says that some did not answer in time
	}
	return err
}

// bySubprotocol sends clients that offer ACIP to the calls, whatever path they
// ask for: those of other makers know none but "/".
func bySubprotocol(calls, rest http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/chat") && offers(r, acip.Subprotocol) {
			calls.ServeHTTP(w, r)
			return
		}
		rest.ServeHTTP(w, r)
	})
}

// offers reports whether the upgrade request offers the subprotocol.
func offers(r *http.Request, name string) bool {
	for _, line := range r.Header.Values("Sec-WebSocket-Protocol") {
		if slices.ContainsFunc(strings.Split(line, ","), func(p string) bool { return strings.TrimSpace(p) == name }) {
			return true
		}
	}
	return false
}

// reloads reads the configuration again on every SIGHUP. A mistake in it is
// logged and changes nothing.
func (s *serving) reloads(ctx context.Context) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, hangup)
	defer signal.Stop(hup)
	for {
		select {
		case <-hup:
			if s.gate.tls != nil {
				s.gate.tls.Reload()
			}
			c, err := gateway.LoadConfig(s.file)
			var routes []gateway.Route
			if err == nil {
				routes, err = s.routes(c)
			}
			if err == nil {
				err = s.gate.gw.SetRoutes(routes)
			}
			if err != nil {
				s.gate.log.Error("the configuration was not changed", "err", err)
				continue
			}
			s.gate.log.Warn("the configuration was read again", "servers", len(routes))
		case <-ctx.Done():
			return
		}
	}
}
