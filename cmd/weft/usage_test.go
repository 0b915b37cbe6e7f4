package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/weft-ws/weft/chat"
	"github.com/weft-ws/weft/ws"
)

// tell runs a command line and returns what it printed and its exit code.
func tell(t *testing.T, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs output
	root := newRootCmd()
	root.SetArgs(args)
	root.SetIn(strings.NewReader(stdin))
	root.SetOut(&out)
	root.SetErr(&errs)
	code = execute(t.Context(), root)
	return out.String(), errs.String(), code
}

// verbs calls f for every command that people see and that does something.
func verbs(c *cobra.Command, f func(*cobra.Command)) {
	for _, sub := range c.Commands() {
		if sub.Hidden || sub.Name() == "help" || sub.Name() == "completion" {
			continue
		}
		if sub.HasSubCommands() {
			verbs(sub, f)
		} else {
			f(sub)
		}
	}
}

// words splits a line as a shell does, as far as examples need it.
func words(line string) []string {
	var out []string
	for _, m := range regexp.MustCompile(`(?:[^\s']|'[^']*')+`).FindAllString(line, -1) {
		out = append(out, strings.ReplaceAll(m, "'", ""))
	}
	return out
}

// The help of every verb has an example that it takes, says its exit codes, and
// has a word on each flag.
func TestHelpHelps(t *testing.T) {
	seen := 0
	verbs(newRootCmd(), func(c *cobra.Command) {
		seen++
		if !strings.Contains(c.Long, "Exit code: 0") || c.Short == "" {
			t.Errorf("%s: the help does not say its exit codes", c.CommandPath())
		}
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" {
				t.Errorf("%s --%s has no explanation", c.CommandPath(), f.Name)
			}
		})
		examples := 0
		for line := range strings.Lines(c.Example) {
			for part := range strings.SplitSeq(strings.ReplaceAll(line, ">", "|"), "|") {
				args := words(part)
				if len(args) == 0 || args[0] != "weft" {
					continue
				}
				examples++
				found, rest, err := newRootCmd().Find(args[1:])
				if err == nil && found.CommandPath() != c.CommandPath() {
					t.Errorf("%s: the example %q is one of %s", c.CommandPath(), line, found.CommandPath())
				}
				if err == nil {
					err = found.ParseFlags(rest)
				}
				if err == nil {
					err = found.ValidateArgs(found.Flags().Args())
				}
				if err != nil {
					t.Errorf("%s: the example %q: %v", c.CommandPath(), line, err)
				}
			}
		}
		if examples == 0 {
			t.Errorf("%s: no example", c.CommandPath())
		}
	})
	if seen < 14 {
		t.Errorf("only %d verbs", seen)
	}
}

// A command line that lacks something, or has too much, is answered with one
// line on what, the usage and an example.
func TestUsage(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"dial", "weft: dial needs the URL of a WebSocket server"},
		{"dial a b", `weft: dial takes the URL of a WebSocket server, and "b" is one argument more`},
		{"doctor", "weft: doctor needs the file of a recording"},
		{"echo x", `weft: echo takes no arguments, and "x" is one`},
		{"serve x", "weft: serve takes no arguments"},
		{"mcp serve", "weft: mcp serve needs a server to run"},
		{"mcp call", "weft: mcp call needs the URL"},
		{"mcp connect", "weft: mcp connect needs the URL"},
		{"mcp probe", "weft: mcp probe needs the URL"},
		{"mcp kill", "weft: mcp kill needs a session"},
		{"chat join", "weft: chat join needs the URL"},
		{"chat decode", "weft: chat decode needs the file"},
		{"version x", "weft: version takes no arguments"},
		{"dial --nope ws://a", "weft: unknown flag: --nope"},
		{"echo --idle-timeout 3", "weft: invalid argument"},
	} {
		out, errs, code := tell(t, "", strings.Fields(c.args)...)
		lines := strings.Split(strings.TrimRight(errs, "\n"), "\n")
		if code != 2 || out != "" || len(lines) < 3 || !strings.HasPrefix(lines[0], c.want) ||
			!strings.HasPrefix(lines[1], "usage: "+program()+" ") || !strings.HasPrefix(lines[2], "example: "+program()+" ") {
			t.Errorf("weft %s: exit code %d, %q\n%s", c.args, code, out, errs)
		}
	}
	for _, c := range []struct{ args, want string }{
		{"srve", "hint: perhaps " + program() + " serve was meant"},
		{"nonsense", "hint: there are chat, dial, doctor, echo, mcp, serve, version;"},
		{"mcp nonsense", `weft: there is no verb "mcp nonsense"`},
		{"chat jion", "hint: perhaps " + program() + " chat join was meant"},
		{"chat nonsense", "hint: there are decode, join, mirror, serve;"},
	} {
		if out, errs, code := tell(t, "", strings.Fields(c.args)...); code != 2 || out != "" || !strings.Contains(errs, c.want) {
			t.Errorf("weft %s: exit code %d, %q\n%s", c.args, code, out, errs)
		}
	}
	for _, args := range []string{"", "mcp", "chat", "--help", "mcp call --help"} {
		if out, errs, code := tell(t, "", strings.Fields(args)...); code != 0 || errs != "" || !strings.Contains(out, "Usage:") {
			t.Errorf("weft %s: exit code %d, %q, %q", args, code, out, errs)
		}
	}
}

// Mistakes are answered with one line that says what is wrong and one that says
// what may help.
func TestMistakesAreExplained(t *testing.T) {
	t.Setenv(tokenEnv, "0123456789abcdef")
	echo, _ := started(t, `listening on (ws://[^/]+)/`, "echo", "--listen", "127.0.0.1:0")
	gate, _ := started(t, `listening on (ws://[^/]+)/[^\0]*try in`, "serve", "--listen", "127.0.0.1:0")
	text := file(t, "text", "hello\n")
	config := file(t, "weft.toml", "# nothing\n")
	busy := strings.TrimPrefix(echo[1], "ws://")
	call := []string{"chat", "join", "--known-hosts", "none", "-S"}
	for _, c := range []struct {
		args []string
		code int
		want string // in the error
		hint string
	}{
		{[]string{"dial", "--fragment-size", "0", echo[1]}, 2, "weft: a size of 0 is not possible\n", "off removes a limit"},
		{[]string{"dial", "--deflate", "--deflate-level", "12", echo[1]}, 2, "--deflate-level is 1 to 9, not 12", ""},
		{[]string{"dial", "-H", "nocolon", echo[1]}, 2, `header "nocolon" is not of the form`, "as in -H"},
		{[]string{"dial", "-H", "Host: x", echo[1]}, 2, "the Host header", "--host"},
		{[]string{"dial", "-H", "sec-websocket-protocol: x", echo[1]}, 2, "the subprotocols", "--subprotocol"},
		{[]string{"dial", "http://" + busy}, 2, `scheme is "http"`, "write ws:// instead"},
		{[]string{"dial", busy}, 2, "", "a URL begins with ws://"},
		{[]string{"dial", "--host", "evil.example", echo[1]}, 2, `the server says: opening handshake refused: host "evil.example"`, "--host"},
		{[]string{"dial", "--origin", "http://evil.example", echo[1]}, 2, `the server says: opening handshake refused: origin`, "--origin"},
		{[]string{"dial", "--tls-ca", text, "wss://" + busy}, 2, "has no certificate in PEM form", ""},
		{[]string{"dial", "--tls-client-cert", text, "wss://" + busy}, 2, "go together", ""},
		{[]string{"dial", "wss://" + busy}, 2, "the TLS handshake", "try ws:// instead of wss://"},
		{[]string{"dial", gate[1] + "/"}, 2, `the server says: there is nothing at "/"; WebSockets are at /mcp/ws, /echo, /chat`, ""},
		{[]string{"echo", "--listen", busy}, 2, "address already in use", "another program has this port"},
		{[]string{"echo", "--listen", "9001"}, 2, "missing port", "an address has a port"},
		{[]string{"echo", "--listen", "127.0.0.1:99999"}, 2, "invalid port", "1 to 65535"},
		{[]string{"echo", "--listen", "127.0.0.1:0", "--dial", echo[1]}, 2, "exclude each other", ""},
		{[]string{"serve", "--listen", busy}, 2, "address already in use", "another program has this port"},
		{[]string{"serve", "--listen", "127.0.0.1:0", "--config", config}, 2, "there is no server in it", "[servers.git]"},
		{[]string{"chat", "serve", "--listen", busy}, 2, "address already in use", "another program has this port"},
		{[]string{"doctor", text}, 2, "not a weft trace", "dial --trace FILE URL"},
		{[]string{"chat", "decode", text}, 2, "neither pcap nor pcapng", "tcpdump -w FILE"},
		{[]string{"mcp", "serve", "--listen", "127.0.0.1:0", "--", filepath.Join(t.TempDir(), "no", "program")}, 2, "there is no program", "is the path right?"},
		{[]string{"mcp", "serve", "--listen", "127.0.0.1:0", "no-such-program", "-y"}, 2, "there is no program", "in $PATH?"},
		{[]string{"mcp", "call", echo[1], "echo"}, 2, "not one that speaks MCP", "under /mcp/ws"},
		{[]string{"mcp", "call", "--timeout", "-1s", echo[1], "echo"}, 2, "cannot be negative", ""},
		{[]string{"mcp", "call", gate[1] + "/mcp/ws", "nonsense"}, 2, `unknown tool "nonsense"`, "lists those that there are"},
		{[]string{"mcp", "call", "--token-file", text, gate[1] + "/mcp/ws"}, 2, "401", "set " + tokenEnv},
		{[]string{"mcp", "call", "--token-file", "/does/not/exist", gate[1] + "/mcp/ws"}, 2, "--token-file: open", ""},
		{[]string{"mcp", "ls", "--admin", busy}, 2, "the gateway answers 426", "is it a gateway of weft?"},
		{[]string{"mcp", "ls", "--admin", "ftp://" + busy}, 2, "the scheme is ftp", "http://HOST:PORT"},
		{append(call, "nope"), 2, `"nope" is not a URL`, "as in ws://nope:27226"},
		{append(call, "http://127.0.0.1:1"), 2, `the scheme is "http"`, "write ws://127.0.0.1:1"},
		{append(call, "ws://127.0.0.1:1", "--source", "webcam:/does/not/exist"), 2, "", "--source pattern"},
		{append(call, "ws://127.0.0.1:1", "--source", "pattern", "--width", "-3"), 2, "cannot be negative", ""},
		{append(call, "ws://127.0.0.1:1", "--source", "pattern", "--palette", ""), 2, `--palette "" cannot be used`, "one of the palettes"},
		{append(call, echo[1], "--source", "pattern", "--timeout", "50ms"), 2, "the handshake is not complete", "is there a video call at this URL?"},
		{[]string{"chat", "mirror", "-S", "--source", "webcam:/does/not/exist"}, 2, "", "--source pattern"},
	} {
		_, errs, code := tell(t, "", c.args...)
		first, rest, _ := strings.Cut(errs, "\n")
		if code != c.code || !strings.HasPrefix(first, "weft: ") || strings.Contains(first, "hint") || !strings.Contains(errs, c.want) ||
			(c.hint != "") != strings.Contains(rest, "hint: ") || strings.Count(rest, "hint: ") > 1 || !strings.Contains(rest, c.hint) {
			t.Errorf("%q: exit code %d, want %d with %q and hint %q\n%s", c.args, code, c.code, c.want, c.hint, errs)
		}
	}
}

// A web server at its root tells what there is; for what is not there it tells
// what is.
func TestServeIndex(t *testing.T) {
	t.Setenv(tokenEnv, "0123456789abcdef")
	m, _ := started(t, `listening on ws(://[^/]+)/[^\0]*try in`, "serve", "--listen", "127.0.0.1:0")
	for _, c := range []struct {
		method, path string
		status       int
		want         string
	}{
		{"GET", "/", 200, "\n  /chat "}, {"GET", "/", 200, "\n  /mcp/ws "}, {"GET", "/", 200, "\n  /metrics "}, {"HEAD", "/", 200, ""},
		{"POST", "/", 405, ""}, {"GET", "/x\"y", 404, `there is nothing at "/x\"y"; WebSockets are at /mcp/ws, /echo, /chat`},
		{"GET", "/healthz", 200, "ok"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, "http"+m[1]+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != c.status || !strings.Contains(string(body), c.want) || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") {
			t.Errorf("%s %s: %v, %s, %q", c.method, c.path, err, resp.Status, body)
		}
	}
}

// A picture without colours is plain text.
func TestNoColoursNoEscapes(t *testing.T) {
	w, _ := chatSite(t)
	for _, render := range []string{"foreground", "background", "half-block"} {
		look := []string{"--source", "pattern", "-S", "--width", "60", "--height", "20", "--color", "none", "--render", render}
		for _, args := range [][]string{append([]string{"mirror"}, look...), append([]string{"join", w, "--known-hosts", "none"}, look...)} {
			out, err := chatRun(t, args...)
			if err != nil || strings.Count(out, "\n") != 20 || strings.ContainsFunc(out, func(r rune) bool { return r < ' ' && r != '\n' || r == 0x7f }) {
				t.Errorf("%q: %v, %.200q", args, err, out)
			}
			lines := strings.Split(out, "\n")
			for _, line := range lines[:len(lines)-1] {
				if n := utf8.RuneCountInString(line); n < 40 || n != utf8.RuneCountInString(lines[0]) {
					t.Errorf("%q: a line of %d characters", args, n)
					break
				}
			}
		}
	}
}

// --host is what the server sees as Host.
func TestDialHost(t *testing.T) {
	seen := make(chan string, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen <- r.Host
		http.Error(w, "no", http.StatusForbidden)
	}))
	defer s.Close()
	if _, errs, code := tell(t, "", "dial", "--host", "app.example:81", "ws"+strings.TrimPrefix(s.URL, "http")); code != 2 || !strings.Contains(errs, "403") {
		t.Errorf("exit code %d, %s", code, errs)
	}
	if got := <-seen; got != "app.example:81" {
		t.Errorf("the server saw %q", got)
	}
}

func TestCalledAs(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Setenv("TMP", os.TempDir())
	}
	const run = "/var/folders/go-build123/b001/exe/weft"
	root := filepath.Join(t.TempDir(), "x")
	if err := os.MkdirAll(filepath.Join(root, "cmd", "weft"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "cmd", "weft", "main.go"), []byte("package main\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, cwd, want string }{
		{"weft", root, "weft"}, {"./weft", root, "./weft"}, {"../bin/weft", root, "../bin/weft"}, {"/opt/my bin/weft", root, "'/opt/my bin/weft'"},
		{"./it's", root, `'./it'\''s'`},
		{run, root, "go run ./cmd/weft"}, {run, filepath.Join(root, "cmd", "weft"), "go run ."}, {run, t.TempDir(), "go run example.org/weft@v1"},
		{run, "", "go run example.org/weft@v1"},
	} {
		if got := calledAs(c.name, c.cwd, "example.org/weft@v1"); got != c.want {
			t.Errorf("%s in %s: %q, want %q", c.name, c.cwd, got, c.want)
		}
	}
}

func TestFindProgram(t *testing.T) {
	dir := t.TempDir()
	name := "server"
	if runtime.GOOS == "windows" {
		name = "server.exe"
	}
	good := filepath.Join(dir, name)
	if err := os.WriteFile(good, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	plain := file(t, "plain", "x")
	for _, c := range []struct{ name, dir, want string }{
		{good, "", ""}, {"." + string(filepath.Separator) + name, dir, ""},
		{"./nothing", dir, "is the path right?"}, {"npx-that-is-not-there", "", "is it installed"},
		{"npx -y foo", "", "leave the quotes out"}, {good, filepath.Join(dir, "no"), "--dir: "}, {good, good, "is not a directory"},
	} {
		err := findProgram(c.name, c.dir)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s in %q: %v, want %q", c.name, c.dir, err, c.want)
		}
	}
	if err := findProgram(plain, ""); runtime.GOOS != "windows" && (err == nil || !strings.Contains(err.Error(), "chmod +x")) {
		t.Errorf("a file that is no program: %v", err)
	}
	t.Setenv("PATH", t.TempDir())
	for name, want := range map[string]string{"npx": "Node.js", "uvx": "uv"} {
		if err := findProgram(name, ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAdminURL(t *testing.T) {
	for in, want := range map[string]string{
		"127.0.0.1:8080": "http://127.0.0.1:8080", "ws://h:1/mcp/ws": "http://h:1", "wss://h/": "https://h", "http://h:1/": "http://h:1", "https://h": "https://h",
		"ftp://h": "", "http://": "", "http://%zz": "",
	} {
		got, err := adminURL(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v, want %q", in, got, err, want)
		}
	}
}

// A server that takes the connection and says nothing is not waited for without
// a word, and what a user stops has not failed in a way that needs more words.
func TestNoAnswer(t *testing.T) {
	asked := make(chan struct{}, 1)
	silent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := ws.Accept(w, r, nil)
		if err != nil {
			return
		}
		if _, _, err := c.ReadMessage(context.Background()); err == nil {
			asked <- struct{}{}
		}
		_ = c.Drain(context.Background())
	}))
	defer silent.Close()
	late := errors.New("the time is over")
	for _, c := range []struct {
		cause error
		want  string
	}{
		{late, "no answer to initialize: the time is over\nhint: does an MCP server run behind it"},
		{nil, context.Canceled.Error()},
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() {
			<-asked
			cancel(c.cause)
		}()
		root := newRootCmd()
		root.SetArgs([]string{"mcp", "call", "ws" + strings.TrimPrefix(silent.URL, "http"), "echo"})
		root.SetErr(io.Discard)
		if err := root.ExecuteContext(ctx); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
		cancel(nil)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var errs output
	root := newRootCmd()
	root.SetArgs([]string{"mcp", "call", "ws" + strings.TrimPrefix(silent.URL, "http"), "echo"})
	root.SetErr(&errs)
	if code := execute(ctx, root); code != 2 || errs.String() != "weft: interrupted\n" {
		t.Errorf("exit code %d, %q", code, errs.String())
	}
	over, cancelOver := context.WithTimeoutCause(t.Context(), -1, late)
	defer cancelOver()
	if err := overdue(over, fmt.Errorf("call: %w", over.Err())); err == nil || err.Error() != "no answer: the time is over" {
		t.Error(err)
	}
	other := errors.New("something else")
	if err := overdue(over, other); err != other {
		t.Error(err)
	}
}

// A question that nobody answers does not keep a user who wants to leave.
func TestQuestionInterrupted(t *testing.T) {
	t.Setenv(tokenEnv, "0123456789abcdef")
	m, _ := started(t, `listening on (ws://[^/]+)/[^\0]*try in`, "serve", "--listen", "127.0.0.1:0")
	stdin, keyboard := io.Pipe()
	defer keyboard.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	errs := &output{told: make(chan struct{}, 1)}
	root := newRootCmd()
	root.SetArgs([]string{"mcp", "call", m[1] + "/mcp/ws", "ask", `{"question":"how?"}`})
	root.SetIn(stdin)
	root.SetErr(errs)
	code := make(chan int, 1)
	go func() { code <- execute(ctx, root) }()
	for !strings.Contains(errs.String(), "the server asks: how?") {
		select {
		case <-errs.told:
		case c := <-code:
			t.Fatalf("exit code %d, %s", c, errs.String())
		}
	}
	cancel()
	if c := <-code; c != 2 || !strings.HasSuffix(errs.String(), "weft: interrupted\n") {
		t.Errorf("exit code %d, %q", c, errs.String())
	}
}

// Where there never was a call the client does not try again and again.
func TestNoCallNoReconnect(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "ws://" + l.Addr().String()
	l.Close()
	ui := &chatUI{wake: make(chan struct{}, 1)}
	if err := new(joinFlags).stay(t.Context(), chat.ClientConfig{URL: url}, ui); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%v", err)
	}
}

// A server that waits for a call in flight says so.
func TestDrainTells(t *testing.T) {
	t.Setenv(tokenEnv, "0123456789abcdef")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	errs := &output{told: make(chan struct{}, 1)}
	root := newRootCmd()
	root.SetArgs([]string{"serve", "--listen", "127.0.0.1:0"})
	root.SetErr(errs)
	code := make(chan int, 1)
	go func() { code <- execute(ctx, root) }()
	until := func(text string) {
		for !strings.Contains(errs.String(), text) {
			select {
			case <-errs.told:
			case c := <-code:
				t.Fatalf("exit code %d, %s", c, errs.String())
			}
		}
	}
	until("try in a second shell")
	url := listening.FindStringSubmatch(errs.String())
	clientCtx, hangUp := context.WithCancel(t.Context())
	defer hangUp()
	progress := &output{told: make(chan struct{}, 1)}
	client := newRootCmd()
	client.SetArgs([]string{"mcp", "call", url[1] + url[2], "slow", `{"steps":1000,"seconds":600}`})
	client.SetErr(progress)
	done := make(chan int, 1)
	go func() { done <- execute(clientCtx, client) }()
	for !strings.Contains(progress.String(), "progress") {
		select {
		case <-progress.told:
		case c := <-done:
			t.Fatalf("the call ended with exit code %d, %s", c, progress.String())
		}
	}
	cancel()
	until("waiting for calls in flight")
	hangUp()
	if c := <-code; c != 0 {
		t.Errorf("exit code %d, %s", c, errs.String())
	}
	<-done
}

// A chat server prints the command with which clients join it.
func TestChatServeTellsHowToJoin(t *testing.T) {
	password := file(t, "pw", "correct-horse-battery\n")
	m, _ := started(t, `(?m)^  (.*) chat join (ws://127\.0\.0\.1:\d+) --source pattern --password$`, "chat", "serve", "--quiet", "--listen", "127.0.0.1:0", "--tcp", "none", "--password-file", password)
	if m[1] != program() {
		t.Errorf("called as %q, want %q", m[1], program())
	}
	out, errs, code := tell(t, "", "chat", "join", m[2], "--source", "pattern", "--password-file", password, "-S", "--known-hosts", "none")
	if code != 0 || !strings.Contains(out, "\x1b[38;2;") {
		t.Errorf("exit code %d, %s", code, errs)
	}
}
