package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/pflag"

	"github.com/weft-ws/weft/gateway"
	"github.com/weft-ws/weft/ws"
)

// tokenEnv holds the token, for servers and clients alike: a flag would stand
// in the list of processes.
const tokenEnv = "WEFT_TOKEN"

// gateFlags are the flags of every command that opens the gateway's port.
type gateFlags struct {
	listen    string
	noAuth    bool
	exposed   bool
	tokenFile string
	origins   []string
	hosts     []string
	tlsCert   string
	tlsKey    string
	clientCA  string
	logLevel  string
	logJSON   bool
	drain     time.Duration
	trace     tracer
}

func (f *gateFlags) add(fs *pflag.FlagSet) {
	fs.StringVar(&f.listen, "listen", "127.0.0.1:8080", "address to listen on")
	fs.BoolVar(&f.noAuth, "no-auth", false, "let everybody in who can reach the address")
	fs.BoolVar(&f.exposed, "let-strangers-run-my-tools", false, "with --no-auth: listen beyond this machine all the same")
	fs.StringVar(&f.tokenFile, "token-file", "", "file with the token that clients need (default: $"+tokenEnv+", else a new one is printed)")
	fs.StringSliceVar(&f.origins, "origin", nil, "allow web pages from this host pattern besides the own one; * allows all")
	fs.StringSliceVar(&f.hosts, "host", nil, "names that the Host header may have (default on loopback: names of this machine; elsewhere: any)")
	fs.StringVar(&f.tlsCert, "tls-cert", "", "PEM file with the certificate: speak wss; read again when it changes")
	fs.StringVar(&f.tlsKey, "tls-key", "", "PEM file with its key")
	fs.StringVar(&f.clientCA, "tls-client-ca", "", "PEM file with authorities: clients need a certificate of one of them")
	fs.StringVar(&f.logLevel, "log-level", "warn", "debug, info, warn or error")
	fs.BoolVar(&f.logJSON, "log-json", false, "log as JSON")
	fs.DurationVar(&f.drain, "drain", 30*time.Second, "how long calls in flight may take after SIGTERM")
	f.trace.add(fs)
}

// A gate is the port of a gateway with everything on it.
type gate struct {
	flags   *gateFlags
	stderr  io.Writer
	log     *slog.Logger
	watcher *gateway.Watcher
	auth    *gateway.Credentials // nil: everybody
	static  bool                 // there are long-lived tokens
	token   string               // to print, "" if it was not made here
	tls     *gateway.ServerTLS   // nil: ws
	gw      *gateway.Gateway
	echo    ws.Server
	http    *http.Server
	ln      net.Listener
	scheme  string  // ws or wss
	places  []place // that mux knows
}

// principal of the one token that the command line knows.
const owner = "owner"

// open checks the flags and listens. c, if not nil, says who may come in and
// how TLS is spoken where flags do not; change may adjust the gateway's options.
func (f *gateFlags) open(stderr io.Writer, c *gateway.Config, change func(*gateway.Options)) (*gate, error) {
	g := &gate{flags: f, stderr: stderr, scheme: "ws"}
	var err error
	if g.log, err = f.logger(stderr); err != nil {
		return nil, err
	}
	loopback, err := onLoopback(f.listen)
	if err != nil {
		return nil, err
	}
	if err := g.credentials(c); err != nil {
		return nil, err
	}
	if g.auth == nil && !loopback && !f.exposed {
		return nil, hinted(fmt.Errorf("%s can be reached from other machines, and --no-auth would let anybody there run the tools", f.listen),
			"listen on 127.0.0.1, or leave --no-auth out, or say --let-strangers-run-my-tools")
	}
	hosts := f.hosts
	if len(hosts) == 0 && loopback {
		hosts = ws.LoopbackHosts()
	}
	opts := gateway.Options{Logger: g.log, Accept: ws.AcceptOptions{Origins: f.origins, Hosts: hosts}}
	if g.auth != nil {
		opts.Auth = g.auth
		if c != nil && g.auth.OIDC != nil {
			opts.Resource = c.Resource()
		}
	}
	if change != nil {
		change(&opts)
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	g.watcher = gateway.NewWatcher(g.log, exe, "mcp", "watch-children")
	if err := g.openTLS(c); err != nil {
		return nil, err
	}
	if err := f.trace.open(stderr); err != nil {
		return nil, err
	}
	if g.ln, err = net.Listen("tcp", f.listen); err != nil {
		f.trace.close()
		return nil, err
	}
	if g.tls != nil {
		g.ln, g.scheme = tls.NewListener(g.ln, g.tls.Config()), "wss"
	}
	g.findIssuer()
	g.ln = f.trace.listener(g.ln)
	g.gw = gateway.New(opts)
	g.echo.Options = opts.Accept
	g.echo.Options.Config.MaxMessageSize = echoMessageMax
	g.echo.Handler.Message = func(ctx context.Context, c *ws.Conn, typ ws.MessageType, p []byte) error {
		return c.WriteMessage(ctx, typ, p)
	}
	return g, nil
}

// logger returns the logger that the flags ask for.
func (f *gateFlags) logger(stderr io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return nil, fmt.Errorf("--log-level %q is none of debug, info, warn, error", f.logLevel)
	}
	if f.logJSON {
		return slog.New(slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: level})), nil
	}
	return slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level})), nil
}

// onLoopback reports whether an address can be reached from this machine only.
func onLoopback(listen string) (bool, error) {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return false, fmt.Errorf("--listen %q: %w; write HOST:PORT, such as 127.0.0.1:8080", listen, err)
	}
	if host == "localhost" {
		return true, nil
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback(), nil
}

// A place is something that the port answers, for people.
type place struct{ path, what string }

// mux returns everything that the port answers.
func (g *gate) mux() *http.ServeMux {
	g.places = []place{{"/mcp/ws", "MCP servers on WebSocket: the first one, or /mcp/NAME"}, {"/echo", "every WebSocket message comes back"},
		{"/healthz", "it runs"}, {"/readyz", "it takes clients"}, {"/metrics", "figures for Prometheus"}}
	mux := http.NewServeMux()
	mux.HandleFunc("/", g.index)
	mux.Handle("/mcp", g.gw)
	mux.Handle("/mcp/", g.gw)
	mux.Handle("/echo", &g.echo)
	mux.Handle("/.well-known/oauth-protected-resource", g.gw)
	mux.Handle("/.well-known/oauth-protected-resource/", g.gw)
	if g.auth != nil {
		mux.Handle("/admin/", g.gw.Admin(g.auth.Admins()))
	} else {
		mux.Handle("/admin/", g.gw.Admin(gateway.Anyone{}))
	}
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !g.gw.Ready() {
			http.Error(w, "shutting down", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	reg := prometheus.NewRegistry()
	reg.MustRegister(g.gw.Collector(), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	metrics := promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		if ip := net.ParseIP(host); g.auth != nil && (ip == nil || !ip.IsLoopback()) {
			if _, err := g.auth.Authenticate(r, nil); err != nil {
				w.Header().Set("WWW-Authenticate", "Bearer")
				http.Error(w, err.Error(), http.StatusUnauthorized)
				return
			}
		}
		metrics.ServeHTTP(w, r)
	})
	return mux
}

// index answers at / with a list of what there is, and elsewhere that there is
// nothing.
func (g *gate) index(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.URL.Path != "/" || r.Header.Get("Upgrade") != "" {
		var sockets []string
		for _, p := range g.places {
			if strings.Contains(p.what, "WebSocket") {
				sockets = append(sockets, p.path)
			}
		}
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprintf(w, "there is nothing at %q; WebSockets are at %s\n", r.URL.Path, strings.Join(sockets, ", "))
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	fmt.Fprintf(w, "This is weft. On this port there are:\n\n")
	for _, p := range g.places {
		fmt.Fprintf(w, "  %-10s %s\n", p.path, p.what)
	}
}

// run serves until ctx ends, then lets the calls in flight finish.
func (g *gate) run(ctx context.Context, handler http.Handler) error {
	g.http = ws.NewHTTPServer(handler)
	g.http.ErrorLog = slog.NewLogLogger(g.log.Handler(), slog.LevelDebug)
	failed := make(chan error, 1)
	go func() { failed <- g.http.Serve(g.ln) }()
	var err error
	select {
	case err = <-failed:
	case <-ctx.Done():
		g.log.Info("shutting down")
	}
	drain, cancel := context.WithTimeout(context.Background(), g.flags.drain)
	defer cancel()
	patient := time.AfterFunc(time.Second, func() {
		fmt.Fprintf(g.stderr, "weft: waiting for calls in flight, at most %v; a second Ctrl-C ends them\n", g.flags.drain)
	})
	g.gw.Drain(drain)
	patient.Stop()
	last, cancelLast := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancelLast()
	_ = g.echo.Shutdown(last)
	_ = g.http.Shutdown(last)
	_ = g.watcher.Close()
	g.flags.trace.close()
	return err
}

// url is the address of a path on the port.
func (g *gate) url(path string) string { return g.scheme + "://" + reachable(g.ln.Addr()) + path }

// reachable is the address of a listener for somebody on this machine to dial.
func reachable(a net.Addr) string {
	if t, ok := a.(*net.TCPAddr); ok && t.IP.IsUnspecified() {
		return net.JoinHostPort("127.0.0.1", strconv.Itoa(t.Port))
	}
	return a.String()
}

// welcome prints how to reach the port: the token as a header to paste, a URL
// with a one-time ticket, and the next command to try.
func (g *gate) welcome(w io.Writer, path, tool, args string) {
	fmt.Fprintf(w, "weft: listening on %s\n", g.url(path))
	prefix := g.welcomeAuth(w, g.url(path))
	call := g.url(path)
	if tool != "" {
		call += " " + tool + " '" + args + "'"
	}
	fmt.Fprintf(w, "weft: try in a second shell:\n\n  %s%s mcp call %s\n\n", prefix, program(), call)
}
