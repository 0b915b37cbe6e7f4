package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/weft-ws/weft/acip"
	"github.com/weft-ws/weft/chat"
	"github.com/weft-ws/weft/ws"
)

func newChatCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "chat",
		Short: "Video calls in the terminal",
		Long: `weft chat speaks ACIP, the protocol of ascii-chat, over WebSocket and TCP.

  weft chat serve                                       a server on this machine
  weft chat join ws://127.0.0.1:27226 --source pattern  a client that shows everybody`,
		Args: takesVerb,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newChatServeCmd(), newChatJoinCmd(), newChatMirrorCmd(), newChatDecodeCmd())
	return cmd
}

// chatServerFlags are the flags that a chat server has wherever it runs.
type chatServerFlags struct {
	passwordFile, hostKey, clientsFile string
	strict, names                      bool
	fragments                          string
	clients, room, address             int
	origins                            []string
}

func (f *chatServerFlags) add(cmd *cobra.Command, prefix string) {
	fl := cmd.Flags()
	fl.StringVar(&f.passwordFile, prefix+"password-file", "", "every client must know the password in this `file`")
	fl.StringVar(&f.hostKey, prefix+"host-key", "", "show clients the identity in this OpenSSH private key `file`")
	fl.StringVar(&f.clientsFile, prefix+"clients-file", "", "admit only clients whose keys are in this authorized_keys `file`")
	fl.BoolVar(&f.strict, prefix+"strict", false, "refuse what is tolerated for the sake of the C programs and the browser client")
	fl.BoolVar(&f.names, prefix+"names", false, "write the names of the members on their tiles")
	fl.StringVar(&f.fragments, prefix+"fragments", "auto", "send long packets in several WebSocket frames: auto (to peers that say they can), never, always")
	fl.IntVar(&f.clients, prefix+"max-clients", chat.ClientsMax, "clients at a time")
	fl.IntVar(&f.room, prefix+"max-per-room", chat.RoomMax, "clients in one room")
	fl.IntVar(&f.address, prefix+"max-per-address", chat.AddressMax, "clients from one IP address")
	fl.StringArrayVar(&f.origins, prefix+"origin", nil, "let pages of this web origin connect besides the server's own (repeatable)")
}

// guarded reports whether a client has to prove something.
func (f *chatServerFlags) guarded() bool { return f.passwordFile != "" || f.clientsFile != "" }

// config makes a configuration of the flags.
func (f *chatServerFlags) config(hosts []string, log *slog.Logger) (chat.ServerConfig, error) {
	cfg := chat.ServerConfig{ACIP: acip.ServerConfig{Strict: f.strict}, Names: f.names, Clients: f.clients, Room: f.room, Address: f.address,
		Origins: f.origins, Hosts: hosts, Logger: log, Decoder: chat.NewFFmpegDecoder}
	var err error
	if cfg.Fragments, err = chat.ParseFragmentPolicy(f.fragments); err != nil {
		return cfg, err
	}
	if f.passwordFile != "" {
		p, err := readPassword(f.passwordFile)
		if err != nil {
			return cfg, err
		}
		if cfg.ACIP.Password, err = acip.PasswordKey(p); err != nil {
			return cfg, fmt.Errorf("%s: %w", f.passwordFile, err)
		}
	}
	if f.hostKey != "" {
		if cfg.ACIP.Identity, err = acip.LoadIdentity(f.hostKey, askPassphrase(f.hostKey)); err != nil {
			return cfg, err
		}
	}
	if f.clientsFile != "" {
		if cfg.ACIP.Clients, err = acip.LoadAllowList(f.clientsFile); err != nil {
			return cfg, err
		}
		if cfg.ACIP.Clients.Len() == 0 {
			return cfg, fmt.Errorf("%s holds no key, so nobody could join", f.clientsFile)
		}
	}
	return cfg, nil
}

// mountChat carries a chat server on a mux that serves other things too: under
// path, whose remainder names the room. The caller shuts the server down.
func mountChat(mux *http.ServeMux, path string, cfg chat.ServerConfig) *chat.Server {
	s := chat.NewServer(cfg)
	path = "/" + strings.Trim(path, "/")
	h := http.StripPrefix(path, s)
	mux.Handle(path, h)
	mux.Handle(path+"/", h)
	return s
}

func newChatServeCmd() *cobra.Command {
	var f chatServerFlags
	var listen, tcp, cert, key string
	var quiet bool
	trace := tracer{verb: "chat serve"}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve video calls over WebSocket and TCP",
		Long: `Serve video calls. The path of a WebSocket URL names the room; "/" and every TCP
client share the default one. GET /healthz and /metrics tell how it goes.

Exit code: 0 after Ctrl-C or SIGTERM, 2 if it could not listen or serve.`,
		Example: `  weft chat serve
  weft chat serve --listen 0.0.0.0:27226 --password-file secret.txt --tls-cert cert.pem --tls-key key.pem`,
		Args: takes(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var log *slog.Logger
			if !quiet {
				log = chatLogger(cmd.ErrOrStderr())
			}
			var hosts []string
			if listensOnLoopback(listen) {
				hosts = ws.LoopbackHosts()
			}
			cfg, err := f.config(hosts, log)
			if err != nil {
				return err
			}
			if cert == "" != (key == "") {
				return errors.New("--tls-cert and --tls-key go together")
			}
			var tlsConfig *tls.Config
			scheme := "ws"
			if cert != "" {
				pair, err := tls.LoadX509KeyPair(cert, key)
				if err != nil {
					return err
				}
				tlsConfig, scheme = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}, "wss"
			}
			if err := trace.open(cmd.ErrOrStderr()); err != nil {
				return err
			}
			defer trace.close()
			l, err := net.Listen("tcp", listen)
			if err != nil {
				return err
			}
			defer l.Close()
			if tlsConfig != nil {
				l = tls.NewListener(l, tlsConfig)
			}
			var tl net.Listener
			if tcp != "" && tcp != "none" {
				if tl, err = net.Listen("tcp", tcp); err != nil && cmd.Flags().Changed("tcp") {
					return err
				} else if err != nil {
					fmt.Fprintf(cmd.ErrOrStderr(), "weft: no raw TCP: %v\n", err)
				}
			}
			if trace.name != "" && tl != nil {
				fmt.Fprintln(cmd.ErrOrStderr(), "weft: --trace records WebSocket connections, not those over raw TCP")
			}
			join := fmt.Sprintf("%s chat join %s://%s --source pattern", program(), scheme, reachable(l.Addr()))
			if f.passwordFile != "" {
				join += " --password"
			}
			if f.clientsFile != "" {
				join += " --key FILE"
			}
			return serveChat(cmd.Context(), chat.NewServer(cfg), trace.listener(l), tl, scheme, join, cmd.ErrOrStderr())
		},
	}
	f.add(cmd, "")
	fl := cmd.Flags()
	fl.StringVar(&listen, "listen", "127.0.0.1:"+chat.PortWebSocket, "WebSocket `address`")
	fl.StringVar(&tcp, "tcp", "127.0.0.1:"+chat.PortTCP, `raw TCP `+"`address`"+`; "none" for no raw TCP`)
	fl.StringVar(&cert, "tls-cert", "", "serve wss with the certificate in this PEM `file`")
	fl.StringVar(&key, "tls-key", "", "private key of the certificate, a PEM `file`")
	trace.add(fl)
	fl.BoolVar(&quiet, "quiet", false, "no line for each client that joins and leaves")
	return cmd
}

// chatShutdownTimeout is how long clients have to hang up.
const chatShutdownTimeout = 900 * time.Millisecond

// serveChat serves until ctx ends, and then says goodbye. scheme is that of l's
// URL, tl is for raw TCP or nil, join the command that clients may copy.
func serveChat(ctx context.Context, s *chat.Server, l, tl net.Listener, scheme, join string, stderr io.Writer) error {
	hs := ws.NewHTTPServer(s)
	failed := make(chan error, 2)
	go func() { failed <- hs.Serve(l) }()
	fmt.Fprintf(stderr, "weft: chat on %s://%s/\n", scheme, reachable(l.Addr()))
	if tl != nil {
		go func() {
			if err := s.ServeTCP(ctx, tl); err != nil {
				failed <- err
			}
		}()
		fmt.Fprintf(stderr, "weft: chat on tcp://%s\n", reachable(tl.Addr()))
	}
	fmt.Fprintf(stderr, "weft: join in a second shell:\n\n  %s\n\n", join)
	var err error
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.Background(), chatShutdownTimeout)
	defer cancel()
	if tl != nil {
		tl.Close()
	}
	l.Close()
	// Clients that do not hang up in time are dropped with the process.
	_ = s.Shutdown(end)
	_ = hs.Close()
	return err
}

// chatLogger writes one line per event.
func chatLogger(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			a.Value = slog.StringValue(a.Value.Time().Format("15:04:05.000"))
		}
		return a
	}}))
}

// listensOnLoopback reports whether an address to listen on is reached from this
// machine only.
func listensOnLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// readPassword returns the first line of a file.
func readPassword(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	line, err := bufio.NewReaderSize(f, 4096).ReadSlice('\n')
	if len(line) == 0 && err != nil {
		return "", fmt.Errorf("%s is empty", path)
	}
	return strings.TrimRight(string(line), "\r\n"), nil
}

// askPassphrase asks on the terminal.
func askPassphrase(path string) func() ([]byte, error) {
	return func() ([]byte, error) { return askSecret("passphrase of " + path + ": ") }
}

func askSecret(prompt string) ([]byte, error) {
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return nil, errors.New("there is no terminal to ask on")
	}
	fmt.Fprint(os.Stderr, prompt)
	p, err := term.ReadPassword(int(os.Stdin.Fd()))
	fmt.Fprintln(os.Stderr)
	return p, err
}
