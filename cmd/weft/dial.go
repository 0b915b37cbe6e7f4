package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/weft-ws/weft/ws"
)

// lineMax is the longest line that dial sends as a message, in bytes.
const lineMax = 64 << 20

func newDialCmd() *cobra.Command {
	var (
		conn         connFlags
		subprotocols []string
		headers      []string
		origin, host string
		secure       clientTLS
		verbose      bool
		binary       bool
		raw          bool
		stats        bool
		ping         time.Duration
		quiet        time.Duration
		trace        = tracer{verb: "dial"}
	)
	cmd := &cobra.Command{
		Use:   "dial URL",
		Short: "Talk to a WebSocket server: lines in, messages out",
		Long: `dial sends each line of standard input as a message and prints each message that
comes on a line of its own. At the end of input it waits until nothing has come
for --quiet, closes the connection, and prints what still comes before the
server's Close.

-v prints every frame both ways to standard error: its place, opcode, FIN, size.

Exit code: 0 if the connection was closed in order, 1 if it was lost or a rule was
broken, 2 if there was none.`,
		Example: `  weft dial ws://127.0.0.1:9001/
  echo hello | weft dial ws://127.0.0.1:9001/
  weft dial --host app.example -H 'Authorization: Bearer …' ws://127.0.0.1:8080/
  head -c 200000 /dev/zero | weft dial --binary --raw -v ws://127.0.0.1:9001/ | wc -c`,
		Args: takes(1, 1, "the URL of a WebSocket server"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := conn.config()
			if err != nil {
				return err
			}
			h := http.Header{}
			if err := parseHeaders(h, headers); err != nil {
				return err
			}
			if origin != "" {
				h.Set("Origin", origin)
			}
			if verbose {
				cfg.Trace = &ws.Trace{Frame: framePrinter(cmd.ErrOrStderr())}
			}
			opts := &ws.DialOptions{Subprotocols: subprotocols, Header: h, Host: host, Config: cfg, Wrap: trace.wrap()}
			if opts.TLS, err = secure.config(); err != nil {
				return err
			}
			d := dialer{stderr: cmd.ErrOrStderr(), out: cmd.OutOrStdout(), in: cmd.InOrStdin(), binary: binary, raw: raw, ping: ping, quiet: quiet, verbose: verbose, came: make(chan struct{}, 1)}
			if err := trace.open(cmd.ErrOrStderr()); err != nil {
				return err
			}
			defer trace.close()
			c, err := ws.Dial(cmd.Context(), args[0], opts)
			if err != nil {
				return &exitError{2, err}
			}
			if f, ok := d.in.(*os.File); ok && term.IsTerminal(int(f.Fd())) && !binary {
				fmt.Fprintln(d.stderr, "weft: connected; each line is a message, Ctrl-D ends")
			}
			err = d.run(cmd.Context(), c)
			if stats {
				printStats(cmd.ErrOrStderr(), c.Stats())
			}
			return err
		},
	}
	fs := cmd.Flags()
	fs.BoolVarP(&verbose, "verbose", "v", false, "print every frame both ways to standard error")
	fs.StringSliceVar(&subprotocols, "subprotocol", nil, "subprotocols to offer, in order of preference")
	fs.StringArrayVarP(&headers, "header", "H", nil, `request header, as "Name: value"; may be repeated`)
	fs.StringVar(&origin, "origin", "", "Origin to send, as a browser would")
	fs.StringVar(&host, "host", "", "Host header to send, if it is not to be the URL's host")
	secure.add(fs)
	fs.BoolVar(&binary, "binary", false, "send all of standard input as one binary message")
	fs.BoolVar(&raw, "raw", false, "print the payload alone, without a newline after it")
	fs.BoolVar(&stats, "stats", false, "print the connection's counters at the end, to standard error")
	fs.DurationVar(&ping, "ping", 0, "send a ping this often and print the round trip to standard error")
	fs.DurationVar(&quiet, "quiet", 300*time.Millisecond, "after the end of input, close when nothing has come for this long")
	trace.add(fs)
	conn.add(fs, echoMessageMax)
	fs.Var(&conn.fragmentSize, "fragment", "short for --fragment-size")
	return cmd
}

// A dialer is weft dial.
type dialer struct {
	in      io.Reader
	out     io.Writer
	stderr  io.Writer
	binary  bool
	raw     bool
	verbose bool
	ping    time.Duration
	quiet   time.Duration
	came    chan struct{} // a message has come
}

func (d *dialer) run(ctx context.Context, c *ws.Conn) error {
	stop := context.AfterFunc(ctx, func() { _ = c.Close(ws.CloseGoingAway, "") })
	defer stop()
	if d.ping > 0 {
		go d.pings(c)
	}
	go func() {
		if err := d.send(c); err != nil && !errors.Is(err, io.EOF) {
			fmt.Fprintln(d.stderr, "weft:", err)
		}
		d.awaitQuiet(c)
		// The receiving loop below prints what still comes.
		_ = c.CloseSend(ws.CloseNormal, "")
	}()
	var err error
	for {
		var m ws.Message
		m.Type, m.Data, err = c.ReadMessage(context.Background())
		if err != nil {
			break
		}
		select {
		case d.came <- struct{}{}:
		default:
		}
		if err := d.print(m); err != nil {
			_ = c.CloseNow()
			return &exitError{2, err}
		}
	}
	<-c.Done()
	var ce *ws.CloseError
	if !errors.As(c.Err(), &ce) {
		return &exitError{2, err}
	}
	if d.verbose {
		fmt.Fprintln(d.stderr, ce)
	}
	switch {
	case ctx.Err() != nil, ce.Cause == nil && (ce.Code == ws.CloseNormal || ce.Code == ws.CloseGoingAway || ce.Code == ws.CloseNoStatus):
		return nil
	}
	return &exitError{1, ce}
}

// awaitQuiet waits until no message has come for a while, or the connection has
// ended.
func (d *dialer) awaitQuiet(c *ws.Conn) {
	for {
		select {
		case <-d.came:
		case <-c.Done():
			return
		case <-time.After(d.quiet):
			return
		}
	}
}

// send sends standard input.
func (d *dialer) send(c *ws.Conn) error {
	ctx := context.Background()
	if d.binary {
		w, err := c.NextWriter(ctx, ws.Binary)
		if err != nil {
			return err
		}
		if _, err := io.Copy(w, d.in); err != nil {
			return err
		}
		return w.Close()
	}
	lines := bufio.NewScanner(d.in)
	lines.Buffer(make([]byte, 64<<10), lineMax)
	for lines.Scan() {
		if err := c.WriteMessage(ctx, ws.Text, lines.Bytes()); err != nil {
			return err
		}
	}
	return lines.Err()
}

// print prints a message.
func (d *dialer) print(m ws.Message) error {
	var err error
	switch {
	case d.raw:
		_, err = d.out.Write(m.Data)
	case m.Type == ws.Text:
		_, err = fmt.Fprintf(d.out, "%s\n", m.Data)
	default:
		_, err = fmt.Fprintf(d.out, "%x\n", m.Data)
	}
	return err
}

func (d *dialer) pings(c *ws.Conn) {
	tick := time.NewTicker(d.ping)
	defer tick.Stop()
	for {
		select {
		case <-c.Done():
			return
		case <-tick.C:
		}
		if rtt, err := c.Ping(context.Background()); err == nil {
			fmt.Fprintf(d.stderr, "ping %v\n", rtt.Round(time.Microsecond))
		}
	}
}

// framePrinter returns a hook that prints a line for each frame.
func framePrinter(w io.Writer) func(ws.FrameInfo) {
	var mu sync.Mutex
	begun := time.Now()
	return func(f ws.FrameInfo) {
		arrow := "<-"
		if f.Dir == ws.Out {
			arrow = "->"
		}
		fin := 0
		if f.Fin {
			fin = 1
		}
		line := fmt.Sprintf("%9.3fs %s #%-5d %-6s FIN=%d %8d bytes", time.Since(begun).Seconds(), arrow, f.Index, f.Opcode, fin, f.Length)
		if f.RSV1 {
			line += "  compressed"
		}
		if f.Fragment > 1 || f.Fragment == 1 && !f.Fin {
			line += fmt.Sprintf("  fragment %d", f.Fragment)
		}
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintln(w, line)
	}
}

// printStats prints the counters of a connection.
func printStats(w io.Writer, s ws.Stats) {
	for _, d := range []struct {
		name string
		t    ws.Traffic
	}{{"sent", s.Sent}, {"received", s.Received}} {
		fmt.Fprintf(w, "%-9s %d bytes, %d frames (%d control), %d messages (%d fragmented), largest %d bytes\n",
			d.name, d.t.Bytes, d.t.Frames, d.t.Control, d.t.Messages, d.t.Fragmented, d.t.LargestMessage)
	}
	fmt.Fprintf(w, "control   %d sent between fragments, longest wait %v, ping round trip %v\n", s.Interleaved, s.ControlWait, s.PingRTT)
}
