package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/weft-ws/weft/acip"
	"github.com/weft-ws/weft/chat"
	"github.com/weft-ws/weft/chat/render"
	chatterm "github.com/weft-ws/weft/chat/term"
	"github.com/weft-ws/weft/ws"
)

const (
	// The size of a picture when there is no terminal, as of the C client.
	chatCols, chatRows = 110, 70
	// farewellTimeout is how long a user who leaves waits for the goodbye.
	farewellTimeout = 500 * time.Millisecond
)

// lookFlags say what the picture is to look like.
type lookFlags struct {
	width, height          int
	color, render, palette string
	fps                    int
}

func (f *lookFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.IntVar(&f.width, "width", 0, "columns of the picture (default: the terminal's, or 110)")
	fl.IntVar(&f.height, "height", 0, "rows of the picture (default: the terminal's, or 70)")
	fl.StringVar(&f.color, "color", "auto", "auto, truecolor, 256, 16 or none")
	fl.StringVar(&f.render, "render", "foreground", "foreground, background or half-block")
	fl.StringVar(&f.palette, "palette", "standard", "standard, blocks, digital, minimal, cool, or the characters themselves from dark to bright")
	fl.IntVar(&f.fps, "fps", 60, "frames a second to ask for, 1 to 144")
}

// capabilities makes what the client tells the server of itself. cols and rows
// are the terminal's, or 0.
func (f *lookFlags) capabilities(cols, rows int) (acip.Capabilities, error) {
	c := acip.Capabilities{Flags: acip.CanUTF8, Reliable: true, UTF8: true, Palette: acip.PaletteStandard,
		Term: os.Getenv("TERM"), ColorTerm: os.Getenv("COLORTERM"), Video: acip.VideoRaw}
	first := func(v ...int) int {
		for _, n := range v {
			if n > 0 {
				return n
			}
		}
		return 0
	}
	c.Width, c.Height = first(f.width, cols, chatCols), first(f.height, rows, chatRows)
	if f.width < 0 || f.height < 0 {
		return c, errors.New("--width and --height cannot be negative")
	}
	if c.Width > acip.TerminalMax || c.Height > acip.TerminalMax {
		return c, fmt.Errorf("the picture is %d×%d; allowed is 1×1 to %d×%[3]d", c.Width, c.Height, acip.TerminalMax)
	}
	if f.fps < 1 || f.fps > acip.FPSMax {
		return c, fmt.Errorf("--fps is %d; allowed is 1 to %d", f.fps, acip.FPSMax)
	}
	c.FPS = uint8(f.fps)
	color := f.color
	if color == "auto" {
		color = terminalColor(cols > 0)
	}
	switch color {
	case "truecolor":
		c.Level, c.Colors = acip.TrueColor, 1<<24
		c.Flags |= acip.Can16Colors | acip.Can256Colors | acip.CanTrueColor | acip.CanBackground
	case "256":
		c.Level, c.Colors = acip.Color256, 256
		c.Flags |= acip.Can16Colors | acip.Can256Colors | acip.CanBackground
	case "16":
		c.Level, c.Colors = acip.Color16, 16
		c.Flags |= acip.Can16Colors | acip.CanBackground
	case "none":
	default:
		return c, fmt.Errorf("--color is %q; allowed are auto, truecolor, 256, 16 and none", f.color)
	}
	switch f.render {
	case "foreground":
	case "background":
		c.Mode = acip.Background
	case "half-block", "half":
		c.Mode = acip.HalfBlock
	default:
		return c, fmt.Errorf("--render is %q; allowed are foreground, background and half-block", f.render)
	}
	switch f.palette {
	case "standard":
	case "blocks":
		c.Palette = acip.PaletteBlocks
	case "digital":
		c.Palette = acip.PaletteDigital
	case "minimal":
		c.Palette = acip.PaletteMinimal
	case "cool":
		c.Palette = acip.PaletteCool
	default:
		c.Palette, c.CustomPalette = acip.PaletteCustom, f.palette
	}
	if _, err := acip.ParseCapabilities(c.AppendTo(nil)); err != nil {
		if c.Palette == acip.PaletteCustom {
			err = hinted(fmt.Errorf("--palette %q cannot be used: %w", f.palette, err), "name one of the palettes of --help, or write characters from dark to bright")
		}
		return c, err
	}
	return c, nil
}

// terminalColor guesses what the terminal can show, from what it says of
// itself. Without a terminal somebody wants the picture in a file: in full.
func terminalColor(terminal bool) string {
	t, ct := os.Getenv("TERM"), os.Getenv("COLORTERM")
	switch {
	case os.Getenv("NO_COLOR") != "":
		return "none"
	case !terminal, ct == "truecolor", ct == "24bit", strings.Contains(t, "direct"):
		return "truecolor"
	case t == "dumb":
		return "none"
	case strings.Contains(t, "256color"):
		return "256"
	}
	return "16"
}

// joinFlags are the flags of chat join beyond the look.
type joinFlags struct {
	lookFlags
	source                             string
	captureFPS                         int
	snapshot                           bool
	delay                              float64
	askPassword, allowUnproven, strict bool
	passwordFile, key, serverKey       string
	knownHosts                         string
	ca                                 string
	insecure                           bool
	name, fragments                    string
	noReconnect, noAudio               bool
	timeout                            time.Duration
	trace                              tracer
	stderr                             io.Writer
}

func newChatJoinCmd() *cobra.Command {
	f := joinFlags{trace: tracer{verb: "chat join"}}
	cmd := &cobra.Command{
		Use:   "join URL",
		Short: "Join a video call",
		Long: `Join a video call at ws://HOST[:PORT][/ROOM], wss://HOST[:PORT][/ROOM] or tcp://HOST[:PORT].

Keys: q or Ctrl-C leaves, m mutes the microphone, t writes a line to everybody.

Exit code: 0 when you left or the frame was printed, 1 if the server refused, 2 if
it could not be reached or something is amiss here.`,
		Example: `  weft chat join ws://127.0.0.1:27226 --source pattern
  weft chat join ws://127.0.0.1:27226/tea --source pattern -S -D 1 > frame.txt`,
		Args: takes(1, 1, "the URL of a server, ws://HOST:PORT or tcp://HOST:PORT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.stderr = cmd.ErrOrStderr()
			return f.run(cmd, args[0])
		},
	}
	f.lookFlags.add(cmd)
	fl := cmd.Flags()
	fl.StringVar(&f.source, "source", "webcam", "what to send: pattern, webcam[:DEVICE], file:PATH, image:PATH or none")
	fl.IntVar(&f.captureFPS, "capture-fps", 30, "pictures a second to send, 1 to 144")
	fl.BoolVarP(&f.snapshot, "snapshot", "S", false, "print one frame to standard output and leave")
	fl.Float64VarP(&f.delay, "snapshot-delay", "D", 0, "`seconds` from the first frame to the one that is printed")
	fl.StringVar(&f.passwordFile, "password-file", "", "the password is in this `file`")
	fl.BoolVar(&f.askPassword, "password", false, "ask for the password")
	fl.BoolVar(&f.allowUnproven, "allow-unproven", false, "go on if the server does not ask for the password; anybody could be such a server")
	fl.StringVar(&f.key, "key", "", "show the server the identity in this OpenSSH private key `file`")
	fl.StringVar(&f.serverKey, "server-key", "", "accept only the server with this OpenSSH public `key`, or file of one")
	fl.StringVar(&f.knownHosts, "known-hosts", "", `remember the identities of servers in this `+"`file`"+` ("none": do not; default: known_hosts in weft's directory)`)
	fl.StringVar(&f.ca, "tls-ca", "", "trust the certificates in this PEM `file`")
	fl.BoolVar(&f.insecure, "insecure", false, "do not verify the server's certificate")
	fl.BoolVar(&f.insecure, "tls-insecure", false, "the same")
	fl.BoolVar(&f.strict, "strict", false, "refuse what is tolerated for the sake of the C programs")
	fl.StringVar(&f.name, "name", userName(), "how the others see you")
	fl.StringVar(&f.fragments, "fragments", "auto", "send long packets in several WebSocket frames: auto (to servers that say they can), never, always")
	fl.BoolVar(&f.noReconnect, "no-reconnect", false, "leave when the connection is lost")
	fl.BoolVar(&f.noAudio, "no-audio", false, "neither microphone nor speaker")
	fl.DurationVar(&f.timeout, "timeout", 15*time.Second, "longest handshake with a server that has been reached")
	f.trace.add(fl)
	return cmd
}

func userName() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return "guest"
}

// config makes a client's configuration of the flags, the source aside.
func (f *joinFlags) config(url string, cols, rows int) (cfg chat.ClientConfig, err error) {
	u, err := chat.ParseURL(url)
	if err != nil {
		return cfg, err
	}
	if u.Scheme == "tcp" && f.trace.name != "" {
		return cfg, hinted(errors.New("--trace records WebSocket connections, and tcp:// is none"), "tcpdump records TCP, and weft chat decode reads that")
	}
	cfg = chat.ClientConfig{URL: url, Wrap: f.trace.wrap(), Name: f.name, FPS: f.captureFPS, ACIP: acip.ClientConfig{Strict: f.strict, AllowUnproven: f.allowUnproven, HandshakeTimeout: f.timeout}}
	if cfg.Capabilities, err = f.capabilities(cols, rows); err != nil {
		return cfg, err
	}
	if cfg.Fragments, err = chat.ParseFragmentPolicy(f.fragments); err != nil {
		return cfg, err
	}
	password := ""
	switch {
	case f.passwordFile != "":
		if password, err = readPassword(f.passwordFile); err != nil {
			return cfg, err
		}
	case f.askPassword:
		p, err := askSecret("password of " + u.Host + ": ")
		if err != nil {
			return cfg, err
		}
		password = string(p)
	}
	if password != "" {
		if cfg.ACIP.Password, err = acip.PasswordKey(password); err != nil {
			return cfg, err
		}
	}
	if f.key != "" {
		if cfg.ACIP.Identity, err = acip.LoadIdentity(f.key, askPassphrase(f.key)); err != nil {
			return cfg, err
		}
	}
	if f.serverKey != "" {
		line := f.serverKey
		if b, err := os.ReadFile(f.serverKey); err == nil {
			line = string(b)
		}
		k, err := acip.ParsePublicKey(line)
		if err != nil {
			return cfg, fmt.Errorf("--server-key: %w", err)
		}
		cfg.ACIP.ServerKey = &k
	} else if f.knownHosts != "none" {
		path := f.knownHosts
		if path == "" {
			dir, err := os.UserConfigDir()
			if err != nil {
				return cfg, fmt.Errorf("nowhere to remember servers: %w; see --known-hosts", err)
			}
			path = filepath.Join(dir, "weft", "known_hosts")
		}
		known := acip.NewKnownHosts(path)
		known.Added = func(addr string, k acip.PublicKey) {
			fmt.Fprintf(f.stderr, "weft: %s has identity %s, seen for the first time and kept in %s\r\n", addr, k, path)
		}
		cfg.ACIP.CheckServer = func(k *acip.PublicKey) error { return known.Check(u.Host, k) }
	}
	if f.ca != "" || f.insecure {
		cfg.TLS = &tls.Config{InsecureSkipVerify: f.insecure, MinVersion: tls.VersionTLS12}
		if f.ca != "" {
			if cfg.TLS.RootCAs, err = certPool(f.ca); err != nil {
				return cfg, err
			}
		}
	}
	return cfg, nil
}

func (f *joinFlags) run(cmd *cobra.Command, url string) error {
	if err := checkChatURL(url); err != nil {
		return err
	}
	cols, rows := 0, 0
	out := int(os.Stdout.Fd())
	interactive := term.IsTerminal(out) && !f.snapshot
	if w, h, err := term.GetSize(out); err == nil {
		cols, rows = w, h
		if interactive {
			rows-- // the status line
		}
	}
	if !interactive && !f.snapshot {
		return hinted(errors.New("standard output is not a terminal"), "-S prints one frame")
	}
	cfg, err := f.config(url, cols, rows)
	if err != nil {
		return err
	}
	cfg.Capabilities.Padding = interactive
	if err := f.trace.open(cmd.ErrOrStderr()); err != nil {
		return err
	}
	defer f.trace.close()
	if cfg.Source, err = openSource(cmd.Context(), f.source, f.captureFPS); err != nil {
		return err
	}
	if cfg.Source != nil {
		defer cfg.Source.Close()
	}
	if f.snapshot {
		return joinError(f.shoot(cmd.Context(), cfg, cmd.OutOrStdout()))
	}
	if !f.noAudio {
		audio, err := chat.OpenAudio()
		if err != nil {
			fmt.Fprintf(f.stderr, "weft: no sound: %v\n", err)
		} else {
			defer audio.Close()
			cfg.Microphone, cfg.Speaker = audio, audio
			cfg.Capabilities.Audio = acip.AudioRaw | acip.AudioOpus
		}
	}
	return joinError(f.call(cmd.Context(), cfg))
}

// openSource opens what --source names.
func openSource(ctx context.Context, spec string, fps int) (chat.Source, error) {
	src, err := chat.OpenSource(ctx, spec, fps)
	if err != nil && strings.HasPrefix(spec, "webcam") {
		err = hinted(err, "--source pattern is a test picture that needs no camera")
	}
	return src, err
}

// checkChatURL explains what a URL of a call looks like.
func checkChatURL(url string) error {
	_, err := chat.ParseURL(url)
	switch scheme, rest, ok := strings.Cut(url, "://"); {
	case !ok:
		host := strings.Trim(url, "/")
		if _, _, err := net.SplitHostPort(host); err != nil {
			host += ":" + chat.PortWebSocket
		}
		return hinted(fmt.Errorf("%q is not a URL", url), "a URL of a call begins with ws://, wss:// or tcp://, as in ws://"+host)
	case scheme == "http" && err != nil:
		return hinted(err, "write ws://"+rest)
	case scheme == "https" && err != nil:
		return hinted(err, "write wss://"+rest)
	case err != nil:
		return hinted(err, "a URL of a call looks like ws://127.0.0.1:"+chat.PortWebSocket)
	}
	return nil
}

// joinError adds a hint where the mistake can be guessed.
func joinError(err error) error {
	if err == nil {
		return nil
	}
	var remote *acip.RemoteError
	var host *acip.HostKeyError
	var v *acip.Violation
	var he *ws.HandshakeError
	hint := ""
	switch {
	case errors.As(err, &he) && he.Status == 0:
		hint = "if that is the port for raw TCP, the URL begins with tcp://"
	case errors.Is(err, errNoFrame):
		hint = "if that is the port for WebSocket, the URL begins with ws://, or wss:// if the server has TLS"
	case errors.As(err, &v) && v.Rule == acip.RuleServerProof:
		hint = "a server that needs no password is joined without one; --allow-unproven sends it your pictures all the same"
	case errors.As(err, &v) && v.Rule == acip.RuleIdentity:
		hint = "if that is the server you mean, --server-key has to name its key"
	case errors.As(err, &v):
		hint = "is there a video call at this URL? weft chat serve prints its own, and weft serve has one under /chat"
	case errors.Is(err, acip.ErrNoPassword):
		hint = "--password asks for it, --password-file FILE reads it"
	case errors.Is(err, acip.ErrNoKey):
		hint = "--key FILE shows an OpenSSH key; ssh-keygen -t ed25519 makes one"
	case errors.As(err, &remote) && remote.Failed&acip.FailedKeyRejected != 0:
		hint = "the server's clients file has to hold the public half of your key"
	case errors.As(err, &host):
		hint = "if the server really has a new identity, remove that line"
	}
	if hint != "" {
		err = hinted(err, hint)
	}
	// Refused is a result; a server that is not there is not.
	if chat.Final(err) {
		return &exitError{1, err}
	}
	return err
}

// errNoFrame is reported when a session ends before there was a picture.
var errNoFrame = errors.New("the call ended before there was a frame")

// shoot joins, waits for a frame, and prints the one that is current when the
// delay after the first is over.
func (f *joinFlags) shoot(ctx context.Context, cfg chat.ClientConfig, w io.Writer) error {
	var mu sync.Mutex
	var last []byte
	first := make(chan struct{})
	cfg.Events = chat.Events{
		Frame: func(fr acip.ASCIIFrame) {
			mu.Lock()
			defer mu.Unlock()
			if last == nil {
				close(first)
			}
			last = chatterm.Append(append(last[:0], 0)[:0], fr.Text)
		},
		Notice: func(line string) { fmt.Fprintln(f.stderr, "weft:", line) },
	}
	c, err := chat.Dial(ctx, cfg)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	select {
	case <-first:
	case err := <-ended:
		if err == nil {
			err = errNoFrame
		}
		return err
	}
	t := time.NewTimer(time.Duration(f.delay * float64(time.Second)))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	case err := <-ended:
		if err == nil {
			err = errors.New("the server ended the call")
		}
		return err
	}
	c.Leave()
	if err := <-ended; err != nil {
		return err
	}
	mu.Lock()
	defer mu.Unlock()
	return printFrame(w, last, cfg.Capabilities)
}

// printFrame writes one frame to a file or a terminal. Without colours it is
// plain text: a repetition (REP) would be a riddle there.
func printFrame(w io.Writer, frame []byte, caps acip.Capabilities) error {
	if caps.Level != 0 {
		_, err := w.Write(append(frame, '\n'))
		return err
	}
	cols, rows := chatterm.Size(frame)
	var g chatterm.Grid
	g.Reset(min(cols, acip.TerminalMax), min(rows, acip.TerminalMax))
	chatterm.Read(&g, frame)
	var out []byte
	for y := range g.Rows {
		for _, c := range g.Row(y) {
			out = utf8.AppendRune(out, max(c.Rune, ' '))
		}
		out = append(out, '\n')
	}
	_, err := w.Write(out)
	return err
}

// A chatUI is the terminal of a call.
type chatUI struct {
	screen *chatterm.Screen

	mu      sync.Mutex
	frame   []byte
	fresh   bool
	state   acip.State
	message string // the last line of text or notice
	until   time.Time
	typing  bool
	line    []rune
	muted   bool
	client  *chat.Client
	cols    int
	rows    int
	wake    chan struct{}
}

// call runs an interactive call until the user leaves or it cannot go on.
func (f *joinFlags) call(ctx context.Context, cfg chat.ClientConfig) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	in, out := int(os.Stdin.Fd()), int(os.Stdout.Fd())
	if term.IsTerminal(in) {
		old, err := term.MakeRaw(in)
		if err != nil {
			return err
		}
		defer func() { _ = term.Restore(in, old) }()
	}
	cols, rows, err := term.GetSize(out)
	if err != nil {
		return err
	}
	ui := &chatUI{screen: chatterm.NewScreen(os.Stdout, cols, rows), cols: cols, rows: rows, wake: make(chan struct{}, 1)}
	if err := ui.screen.Open(); err != nil {
		return err
	}
	defer ui.screen.Close()
	cfg.Events = chat.Events{
		Frame:  ui.gotFrame,
		Clear:  ui.clear,
		State:  func(s acip.State) { ui.set(func() { ui.state = s }) },
		Text:   func(t acip.Text) { ui.say(t.Name + ": " + t.Line) },
		Notice: ui.say,
	}
	work := make(chan error, 3)
	guard := func(f func() error) {
		go func() {
			defer func() {
				// A panic on another goroutine would skip every deferred function of
				// this one and leave the terminal as it is.
				if p := recover(); p != nil {
					work <- fmt.Errorf("internal fault: %v", p)
				}
			}()
			work <- f()
		}()
	}
	guard(func() error { return ui.keys(ctx, os.Stdin) })
	guard(func() error { return ui.draw(ctx, out, f.width > 0 || f.height > 0) })
	stayed := make(chan struct{})
	guard(func() error {
		defer close(stayed)
		return f.stay(ctx, cfg, ui)
	})
	select {
	case err = <-work:
	case <-ctx.Done():
	}
	ui.mu.Lock()
	c := ui.client
	ui.mu.Unlock()
	if c != nil {
		c.Leave()
	}
	cancel(acip.ErrLeave)
	select { // for the closing handshake, if it is quick
	case <-stayed:
	case <-time.After(farewellTimeout):
	}
	if errors.Is(err, acip.ErrLeave) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// stay keeps the call up: it connects again when the connection was lost, but not
// where there never was a call, since the URL may be wrong.
func (f *joinFlags) stay(ctx context.Context, cfg chat.ClientConfig, ui *chatUI) error {
	var stood atomic.Bool
	told := cfg.Events.Established
	cfg.Events.Established = func(c *chat.Client) {
		stood.Store(true)
		ui.set(func() { ui.until = time.Time{} }) // it is connected
		if told != nil {
			told(c)
		}
	}
	for attempt := 0; ; attempt++ {
		ui.say("connecting to " + cfg.URL)
		c, err := chat.Dial(ctx, cfg)
		if err == nil {
			ui.set(func() { ui.client = c })
			c.Resize(ui.size())
			began := time.Now()
			err = c.Run(ctx)
			ui.set(func() { ui.client = nil })
			if time.Since(began) > time.Minute {
				attempt = 0
			}
			if err == nil && ctx.Err() == nil {
				err = errors.New("the server ended the call")
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		if f.noReconnect || chat.Final(err) || !stood.Load() {
			return err
		}
		wait := chat.Backoff(attempt)
		ui.say(fmt.Sprintf("%v; trying again in %v", err, wait.Round(100*time.Millisecond)))
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
	}
}

// set changes the UI and draws it.
func (u *chatUI) set(change func()) {
	u.mu.Lock()
	change()
	u.mu.Unlock()
	select {
	case u.wake <- struct{}{}:
	default:
	}
}

func (u *chatUI) size() (cols, rows int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.cols, max(u.rows-1, 1)
}

// gotFrame keeps the newest frame; a slow terminal does not hold up the call.
func (u *chatUI) gotFrame(f acip.ASCIIFrame) {
	u.set(func() { u.frame, u.fresh = append(u.frame[:0], f.Text...), true })
}

func (u *chatUI) clear() { u.set(func() { u.frame, u.fresh = u.frame[:0], true }) }

// say shows a line for a few seconds.
func (u *chatUI) say(line string) {
	u.set(func() { u.message, u.until = acip.Printable(line), time.Now().Add(8*time.Second) })
}

// draw shows frames as they come, the status every half second, and notices
// when the terminal has another size.
func (u *chatUI) draw(ctx context.Context, out int, fixed bool) error {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	var frame []byte
	var shown, fps int
	since := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			now := time.Now()
			fps = int(float64(shown)/now.Sub(since).Seconds() + 0.5)
			shown, since = 0, now
			if cols, rows, err := term.GetSize(out); err == nil {
				u.resize(cols, rows, fixed)
			}
		case <-u.wake:
		}
		u.mu.Lock()
		fresh := u.fresh
		if fresh {
			frame, u.fresh = append(frame[:0], u.frame...), false
		}
		c := u.client
		status := u.status(c, fps)
		u.mu.Unlock()
		if fresh {
			shown++
			if err := u.screen.Show(frame); err != nil {
				return err
			}
		}
		if err := u.screen.Status(status); err != nil {
			return err
		}
	}
}

func (u *chatUI) resize(cols, rows int, fixed bool) {
	u.mu.Lock()
	same := cols == u.cols && rows == u.rows
	u.cols, u.rows = cols, rows
	c := u.client
	u.mu.Unlock()
	if same {
		return
	}
	u.screen.Resize(cols, rows)
	if c != nil && !fixed {
		c.Resize(cols, max(rows-1, 1))
	}
}

// status is the last line. u.mu is held.
func (u *chatUI) status(c *chat.Client, fps int) string {
	if u.typing {
		return "> " + string(u.line) + "_"
	}
	if time.Now().Before(u.until) {
		return " " + u.message // alone, since terminals may be narrow
	}
	if c == nil {
		return " not connected  | q leaves"
	}
	st, muted := c.Stats(), ""
	if u.muted {
		muted = "  muted"
	}
	// What does not fit in a narrow terminal is at the end.
	return fmt.Sprintf(" %d there  %d fps%s  rtt %v  in %s  out %s  dropped %d  fragmented %d  | q leaves, t writes (/mute NAME), m mutes you",
		u.state.Connected, fps, muted, st.RTT.Round(100*time.Microsecond), bytesText(st.Bytes), bytesText(st.Sent.Bytes), st.Sent.VideoDropped, st.Fragmented)
}

// bytesText writes a number of bytes for people.
func bytesText(n uint64) string {
	switch {
	case n < 1<<20:
		return fmt.Sprintf("%d KiB", n>>10)
	case n < 10<<30:
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d GiB", n>>30)
}

// keys reads the keyboard.
func (u *chatUI) keys(ctx context.Context, r io.Reader) error {
	var buf [64]byte
	for ctx.Err() == nil {
		n, err := r.Read(buf[:])
		if err != nil {
			<-ctx.Done() // a closed keyboard ends nothing
			return nil
		}
		for _, k := range string(buf[:n]) {
			if u.key(k) {
				return acip.ErrLeave
			}
		}
	}
	return nil
}

// key takes one key and reports whether the user leaves.
func (u *chatUI) key(k rune) (leave bool) {
	const ctrlC, escape, backspace, del = 3, 27, 8, 127
	u.mu.Lock()
	typing, c := u.typing, u.client
	u.mu.Unlock()
	switch {
	case k == ctrlC, k == 'q' && !typing:
		return true
	case !typing && k == 't':
		u.set(func() { u.typing, u.line = true, nil })
	case !typing && k == 'm' && c != nil:
		u.set(func() { u.muted = !u.muted })
		if err := c.Mute(u.muted); err != nil {
			u.say(err.Error())
		}
	case typing && k == escape:
		u.set(func() { u.typing = false })
	case typing && (k == backspace || k == del):
		u.set(func() { u.line = u.line[:max(len(u.line)-1, 0)] })
	case typing && (k == '\r' || k == '\n'):
		line := string(u.line)
		u.set(func() { u.typing = false })
		if c != nil && line != "" {
			if said, err := submit(c, line); err != nil {
				u.say(err.Error())
			} else if said != "" {
				u.say(said)
			}
		}
	case typing && k >= ' ' && len(u.line) < 200:
		u.set(func() { u.line = append(u.line, k) })
	}
	return false
}

func newChatMirrorCmd() *cobra.Command {
	var f lookFlags
	var source string
	var one bool
	cmd := &cobra.Command{
		Use:   "mirror",
		Short: "Show your own source, without a server",
		Long: `Show on this terminal what others would see of you. q or Ctrl-C leaves.

Exit code: 0, or 2 if there is nothing to show or nowhere.`,
		Example: `  weft chat mirror --source pattern
  weft chat mirror --source image:photo.jpg -S --width 80 --height 24`,
		Args: takes(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cols, rows, err := term.GetSize(int(os.Stdout.Fd()))
			if err != nil {
				cols, rows = 0, 0
				if !one {
					return hinted(errors.New("standard output is not a terminal"), "-S prints one frame")
				}
			}
			caps, err := f.capabilities(cols, max(rows-1, 0))
			if err != nil {
				return err
			}
			caps.Padding = !one
			src, err := openSource(cmd.Context(), source, f.fps)
			if err != nil {
				return err
			}
			if src == nil {
				return errors.New("there is nothing to show: --source is none")
			}
			defer src.Close()
			if one {
				pix, size, err := src.Next(cmd.Context(), nil)
				if err != nil {
					return err
				}
				text := render.New(render.LookOf(&caps)).Append(nil, []render.Source{{Picture: render.Picture{Size: size, Pix: pix}}})
				return printFrame(cmd.OutOrStdout(), text, caps)
			}
			return mirror(cmd.Context(), &f, caps, src)
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&source, "source", "webcam", "what to show: pattern, webcam[:DEVICE], file:PATH or image:PATH")
	cmd.Flags().BoolVarP(&one, "snapshot", "S", false, "print one frame to standard output")
	return cmd
}

// mirror shows a source until the user leaves.
func mirror(ctx context.Context, f *lookFlags, caps acip.Capabilities, src chat.Source) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in, out := int(os.Stdin.Fd()), int(os.Stdout.Fd())
	if term.IsTerminal(in) {
		old, err := term.MakeRaw(in)
		if err != nil {
			return err
		}
		defer func() { _ = term.Restore(in, old) }()
	}
	cols, rows, err := term.GetSize(out)
	if err != nil {
		return err
	}
	ui := &chatUI{screen: chatterm.NewScreen(os.Stdout, cols, rows), cols: cols, rows: rows, wake: make(chan struct{}, 1)}
	if err := ui.screen.Open(); err != nil {
		return err
	}
	defer ui.screen.Close()
	go func() {
		_ = ui.keys(ctx, os.Stdin) // it ends because the user leaves
		cancel()
	}()
	tick := time.NewTicker(time.Second / time.Duration(f.fps))
	defer tick.Stop()
	look := render.LookOf(&caps)
	r := render.New(look)
	var pix, text []byte
	for version := uint64(1); ctx.Err() == nil; version++ {
		var size render.Size
		if pix, size, err = src.Next(ctx, pix[:0]); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if w, h, err := term.GetSize(out); err == nil && (w != cols || h != rows) {
			cols, rows = w, h
			ui.screen.Resize(cols, rows)
			if f.width == 0 && f.height == 0 {
				look.Cols, look.Rows = cols, max(rows-1, 1)
				r = render.New(look)
			}
		}
		text = r.Append(text[:0], []render.Source{{Picture: render.Picture{Size: size, Pix: pix}, Version: version}})
		if err := ui.screen.Show(text); err != nil {
			return err
		}
		if err := ui.screen.Status(fmt.Sprintf(" %d×%d  | q leaves", size.W, size.H)); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	return nil
}
