package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/weft-ws/weft/ws"
)

// echoMessageMax is the largest message that echo takes by default, in bytes.
const echoMessageMax = 64 << 20

func newEchoCmd() *cobra.Command {
	var (
		conn         connFlags
		listen, dial string
		origins      []string
		hosts        []string
		subprotocols []string
		certFile     string
		keyFile      string
		stream       bool
		secure       clientTLS
		trace        = tracer{verb: "echo"}
	)
	cmd := &cobra.Command{
		Use:   "echo [--listen ADDR | --dial URL]",
		Short: "Echo every message, as a server or as a client",
		Long: `echo sends every message back as it came: the target for conformance suites,
load tests and first tries. With --dial it is the client, and echoes what the
server sends until the connection ends.

Each limit of the engine is a flag; --trace records the bytes for weft doctor.

Exit code: 0 after Ctrl-C, or when the server closed as it should; 1 when the
connection of --dial was lost or broke a rule; 2 if it could not begin.`,
		Example: `  weft echo --listen 127.0.0.1:9001
  weft echo --listen 127.0.0.1:9001 --deflate --max-message-size 1MiB
  weft echo --dial 'ws://127.0.0.1:9001/runCase?case=1&agent=weft'`,
		Args: takes(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := conn.config()
			if err != nil {
				return err
			}
			if dial != "" && cmd.Flags().Changed("listen") {
				return errors.New("--listen and --dial exclude each other")
			}
			if err := trace.open(cmd.ErrOrStderr()); err != nil {
				return err
			}
			defer trace.close()
			if dial != "" {
				opts := &ws.DialOptions{Subprotocols: subprotocols, Config: cfg, Wrap: trace.wrap()}
				if opts.TLS, err = secure.config(); err != nil {
					return err
				}
				return echoClient(cmd.Context(), dial, opts, stream)
			}
			s := &echoServer{
				stream: stream,
				server: ws.Server{Options: ws.AcceptOptions{Origins: origins, Hosts: hosts, Subprotocols: subprotocols, Config: cfg}},
			}
			return s.run(cmd.Context(), listen, certFile, keyFile, &trace, cmd.ErrOrStderr())
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&listen, "listen", "127.0.0.1:9001", "address to listen on")
	fs.StringVar(&dial, "dial", "", "URL to connect to instead")
	fs.StringSliceVar(&origins, "origin", nil, "allow web pages from this host pattern besides the own one; * allows all")
	fs.StringSliceVar(&hosts, "host", nil, "names that the Host header may have (default on loopback: names of this machine; elsewhere: any)")
	fs.StringSliceVar(&subprotocols, "subprotocol", nil, "subprotocols to accept or to offer, in order of preference")
	fs.StringVar(&certFile, "tls-cert", "", "PEM file with the certificate: speak wss")
	fs.StringVar(&keyFile, "tls-key", "", "PEM file with its key")
	secure.add(fs)
	fs.BoolVar(&stream, "stream", false, "echo fragment by fragment, in constant memory")
	trace.add(fs)
	conn.add(fs, echoMessageMax)
	return cmd
}

// echoMessage is the Handler of an echo.
func echoMessage(ctx context.Context, c *ws.Conn, typ ws.MessageType, p []byte) error {
	return c.WriteMessage(ctx, typ, p)
}

// echoStream echoes fragment by fragment until the connection ends.
func echoStream(ctx context.Context, c *ws.Conn) error {
	buf := make([]byte, 32<<10)
	for {
		r, err := c.NextReader(ctx)
		if err != nil {
			return err
		}
		w, err := c.NextWriter(ctx, r.Type)
		if err != nil {
			return err
		}
		if _, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, buf); err != nil {
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
	}
}

// An echoServer is weft echo --listen.
type echoServer struct {
	stream bool
	server ws.Server
}

// drainTimeout bounds how long a stopping server waits for its peers.
const drainTimeout = 700 * time.Millisecond

func (s *echoServer) run(ctx context.Context, addr, certFile, keyFile string, trace *tracer, stderr io.Writer) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return &exitError{2, err}
	}
	if (certFile == "") != (keyFile == "") {
		l.Close()
		return &exitError{2, errors.New("--tls-cert and --tls-key go together")}
	}
	scheme := "ws"
	tl := l
	if certFile != "" || keyFile != "" {
		cert, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			l.Close()
			return &exitError{2, err}
		}
		scheme = "wss"
		tl = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}})
	}
	tl = trace.listener(tl)
	if a, ok := l.Addr().(*net.TCPAddr); ok && a.IP.IsLoopback() && len(s.server.Options.Hosts) == 0 {
		s.server.Options.Hosts = ws.LoopbackHosts()
	}
	s.server.Handler = ws.Handler{Message: echoMessage}
	hs := ws.NewHTTPServer(s)
	done := make(chan error, 1)
	go func() { done <- hs.Serve(tl) }()
	fmt.Fprintf(stderr, "listening on %s://%s/\n", scheme, reachable(l.Addr()))
	select {
	case err := <-done:
		return &exitError{2, err}
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	_ = l.Close()
	_ = s.server.Shutdown(grace) // its error says that some peers did not answer in time
	_ = hs.Close()
	<-done
	return nil
}

// ServeHTTP serves the echo, and a health check beside it.
func (s *echoServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/healthz" {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintln(w, `{"status":"ok"}`)
		return
	}
	if !s.stream {
		s.server.ServeHTTP(w, r)
		return
	}
	if c, err := s.server.Accept(w, r); err == nil {
		_ = echoStream(context.Background(), c) // the connection's end is its peer's affair
	}
}

// echoClient is weft echo --dial.
func echoClient(ctx context.Context, url string, opts *ws.DialOptions, stream bool) error {
	c, err := ws.Dial(ctx, url, opts)
	if err != nil {
		return &exitError{2, err}
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Close(ws.CloseGoingAway, "") })
	defer stop()
	loop := context.Background()
	if stream {
		err = echoStream(loop, c)
	} else {
		err = echoLoop(loop, c)
	}
	<-c.Done()
	var ce *ws.CloseError
	if errors.As(err, &ce) && (ce.Cause == nil || ctx.Err() != nil) {
		return nil // closed as one of the two wanted
	}
	return &exitError{1, err}
}

func echoLoop(ctx context.Context, c *ws.Conn) error {
	var buf []byte
	for {
		typ, p, err := c.AppendMessage(ctx, buf[:0])
		if err != nil {
			return err
		}
		if err := c.WriteMessage(ctx, typ, p); err != nil {
			return err
		}
		if cap(p) <= 1<<20 {
			buf = p
		}
	}
}
