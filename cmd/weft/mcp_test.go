package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weft-ws/weft/gateway"
)

// output collects what a command prints while it runs.
type output struct {
	mu   sync.Mutex
	b    bytes.Buffer
	told chan struct{} // if there is one, it gets a value after a Write
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case o.told <- struct{}{}:
	default:
	}
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// mcpCommand runs a command of weft in this process.
func mcpCommand(ctx context.Context, stdin string, args ...string) (stdout, stderr string, err error) {
	var out, errs output
	root := newRootCmd()
	root.SetArgs(args)
	root.SetIn(strings.NewReader(stdin))
	root.SetOut(&out)
	root.SetErr(&errs)
	err = root.ExecuteContext(ctx)
	return out.String(), errs.String(), err
}

var listening = regexp.MustCompile(`weft: listening on (ws://[^/]+)(\S*)`)

// serving runs a server command until the test ends and returns the address of
// its port and what it printed.
func servingCommand(t *testing.T, args ...string) (base, path, printed string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var errs output
	root := newRootCmd()
	root.SetArgs(args)
	root.SetErr(&errs)
	done := make(chan error, 1)
	go func() { done <- root.ExecuteContext(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for {
		if m := listening.FindStringSubmatch(errs.String()); m != nil && strings.Contains(errs.String(), "try in a second shell") {
			return m[1], m[2], errs.String()
		}
		select {
		case err := <-done:
			done <- err
			t.Fatalf("it ended: %v\n%s", err, errs.String())
		case <-tick.C:
		case <-deadline:
			t.Fatalf("it does not listen: %s", errs.String())
		}
	}
}

// The first command of a newcomer prints the next one, and that works.
func TestServePrintsTheNextCommand(t *testing.T) {
	t.Setenv(tokenEnv, "")
	base, path, printed := servingCommand(t, "serve", "--listen", "127.0.0.1:0")
	m := regexp.MustCompile(`(?m)^  ` + tokenEnv + `=(\S+) .* mcp call (\S+) (\S+) '(.*)'$`).FindStringSubmatch(printed)
	if m == nil || m[2] != base+path {
		t.Fatalf("no command to copy in:\n%s", printed)
	}
	t.Setenv(tokenEnv, m[1])
	out, _, err := mcpCommand(t.Context(), "", "mcp", "call", m[2], m[3], m[4])
	if err != nil || out != "hello\n" {
		t.Errorf("%q, %v", out, err)
	}
	ticket := regexp.MustCompile(`ws://\S+\?ticket=\S+`).FindString(printed)
	t.Setenv(tokenEnv, "")
	if out, _, err := mcpCommand(t.Context(), "", "mcp", "call", ticket, "echo", `{"text":"once"}`); err != nil || out != "once\n" {
		t.Errorf("with the ticket: %q, %v", out, err)
	}
	if _, _, err := mcpCommand(t.Context(), "", "mcp", "call", ticket, "echo", `{"text":"twice"}`); err == nil || !strings.Contains(err.Error(), "hint: set "+tokenEnv) {
		t.Errorf("with the ticket again: %v", err)
	}
}

func TestMCPCommands(t *testing.T) {
	t.Setenv(tokenEnv, "0123456789abcdef")
	file := filepath.Join(t.TempDir(), "weft.toml")
	if err := os.WriteFile(file, []byte("[servers.one]\nbuiltin = true\n[servers.two]\nbuiltin = true\nisolation = \"shared\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	base, _, _ := servingCommand(t, "serve", "--listen", "127.0.0.1:0", "--config", file)
	one := base + "/mcp/one"

	t.Run("list", func(t *testing.T) {
		out, _, err := mcpCommand(t.Context(), "", "mcp", "call", base+"/mcp")
		if err != nil || !strings.Contains(out, "one__echo") || !strings.Contains(out, "two__ask") {
			t.Errorf("%q, %v", out, err)
		}
	})
	t.Run("progress", func(t *testing.T) {
		out, errs, err := mcpCommand(t.Context(), "", "mcp", "call", one, "slow", `{"steps":2,"seconds":0.2}`)
		if err != nil || out != "done in 2 steps\n" || !strings.Contains(errs, "progress 1 of 2") {
			t.Errorf("%q, %q, %v", out, errs, err)
		}
	})
	t.Run("ask", func(t *testing.T) {
		out, errs, err := mcpCommand(t.Context(), "green\n", "mcp", "call", one, "ask", `{"question":"which colour?"}`)
		if err != nil || out != "The client said: green\n" || !strings.Contains(errs, "which colour?") {
			t.Errorf("%q, %q, %v", out, errs, err)
		}
	})
	t.Run("json", func(t *testing.T) {
		out, _, err := mcpCommand(t.Context(), "", "mcp", "call", one, "add", `{"a":1,"b":2}`, "--json")
		var r struct{ StructuredContent struct{ Sum float64 } }
		if err == nil {
			err = json.Unmarshal([]byte(out), &r)
		}
		if err != nil || r.StructuredContent.Sum != 3 {
			t.Errorf("%q, %v", out, err)
		}
	})
	t.Run("a tool that fails", func(t *testing.T) {
		_, _, err := mcpCommand(t.Context(), "", "mcp", "call", one, "large", `{"bytes":-1}`)
		if exit, ok := err.(*exitError); !ok || exit.code != 1 {
			t.Errorf("%v, want exit code 1", err)
		}
	})
	t.Run("bad arguments", func(t *testing.T) {
		if _, _, err := mcpCommand(t.Context(), "", "mcp", "call", one, "echo", `hello`); err == nil || !strings.Contains(err.Error(), "is not a JSON object") {
			t.Errorf("%v", err)
		}
	})
	t.Run("no such server", func(t *testing.T) {
		if _, _, err := mcpCommand(t.Context(), "", "mcp", "call", base+"/mcp/none"); err == nil || !strings.Contains(err.Error(), "hint: weft serve answers under") {
			t.Errorf("%v", err)
		}
	})
	t.Run("probe", func(t *testing.T) {
		out, _, err := mcpCommand(t.Context(), "", "mcp", "probe", one)
		if err != nil || !strings.Contains(out, ", 0 not") {
			t.Errorf("%s, %v", out, err)
		}
	})
	t.Run("connect", func(t *testing.T) {
		in := `{"jsonrpc":"2.0","id":9007199254740993,"method":"ping"}` + "\nbroken\n" + `{"jsonrpc":"2.0","id":"b","method":"ping"}` + "\n"
		out, _, err := mcpCommand(t.Context(), in, "mcp", "connect", one)
		for _, want := range []string{`"id":9007199254740993`, `"id":"b"`, "-32700"} {
			if !strings.Contains(out, want) {
				t.Errorf("%s is missing in %q", want, out)
			}
		}
		if err != nil || strings.Count(out, "\n") != 3 {
			t.Errorf("%q, %v", out, err)
		}
	})
	t.Run("ls and kill", func(t *testing.T) {
		admin := "http" + strings.TrimPrefix(base, "ws")
		done := make(chan error, 1)
		go func() {
			_, _, err := mcpCommand(context.Background(), "", "mcp", "call", one, "slow", `{"steps":1,"seconds":60}`, "--protocol", "2025-11-25")
			done <- err
		}()
		var session, call string
		deadline := time.Now().Add(10 * time.Second)
		for call == "" {
			out, _, err := mcpCommand(t.Context(), "", "mcp", "ls", "--admin", admin, "--json")
			var list struct{ Sessions []gateway.SessionInfo }
			if err == nil {
				err = json.Unmarshal([]byte(out), &list)
			}
			if err != nil || time.Now().After(deadline) {
				t.Fatalf("%q, %v", out, err)
			}
			for _, s := range list.Sessions {
				for _, c := range s.Calls {
					if c.Method == "tools/call" { // not its initialize, which is over soon
						session, call = s.ID, c.ID
					}
				}
			}
		}
		out, _, err := mcpCommand(t.Context(), "", "mcp", "ls", "--admin", admin)
		if err != nil || !strings.Contains(out, "tools/call") || !strings.Contains(out, session) {
			t.Errorf("%s, %v", out, err)
		}
		if _, _, err := mcpCommand(t.Context(), "", "mcp", "kill", "--admin", admin, session, "--call", call); err != nil {
			t.Error(err)
		}
		if err := <-done; err == nil || !strings.Contains(err.Error(), "cancelled by an administrator") {
			t.Errorf("the call ended with %v", err)
		}
		_, _, err = mcpCommand(t.Context(), "", "mcp", "kill", "--admin", admin, "nobody")
		if exit, ok := err.(*exitError); !ok || exit.code != 1 {
			t.Errorf("killing nobody: %v, want exit code 1", err)
		}
	})
}

// A server offered to a hub is called there.
func TestServeDial(t *testing.T) {
	t.Setenv(tokenEnv, "0123456789abcdef")
	base, _, _ := servingCommand(t, "serve", "--listen", "127.0.0.1:0", "--attach")
	ctx, cancel := context.WithCancel(t.Context())
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, _, err := mcpCommand(ctx, "", "mcp", "serve", "--dial", base+"/mcp/attach?name=far", "--env", "WEFT_TEST_STDIO=1", "--", exe)
		done <- err
	}()
	deadline := time.Now().Add(10 * time.Second)
	for {
		out, _, err := mcpCommand(t.Context(), "", "mcp", "call", base+"/mcp/far", "echo", `{"text":"from afar"}`)
		if err == nil && out == "from afar\n" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%q, %v", out, err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestServeRefusesToBeOpen(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"serve", "--listen", "0.0.0.0:0", "--no-auth"}, "--let-strangers-run-my-tools"},
		{[]string{"serve", "--listen", "8080"}, "HOST:PORT"},
		{[]string{"serve", "--log-level", "loud"}, "none of debug"},
		{[]string{"serve", "--tls-cert", "x"}, "belong together"},
		{[]string{"mcp", "serve"}, "needs a server to run"},
		{[]string{"mcp", "serve", "--isolation", "x", "--", "true"}, "none of connection, pool, shared"},
	} {
		t.Setenv(tokenEnv, "0123456789abcdef")
		if _, _, err := mcpCommand(t.Context(), "", tt.args...); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v, want %q", tt.args, err, tt.want)
		}
	}
	t.Setenv(tokenEnv, "short")
	if _, _, err := mcpCommand(t.Context(), "", "serve", "--listen", "127.0.0.1:0"); err == nil || !strings.Contains(err.Error(), "less than 16 characters") {
		t.Errorf("a short token: %v", err)
	}
}

func TestNameOf(t *testing.T) {
	for want, args := range map[string][]string{
		"server-everything": {"npx", "-y", "@modelcontextprotocol/server-everything", "stdio"},
		"mcp-server-git":    {"uvx", "mcp-server-git"},
		"my-server":         {"/opt/my server", "x"},
		"server":            {"/opt/___"},
	} {
		if got := nameOf(args); got != want {
			t.Errorf("%q: %q, want %q", args, got, want)
		}
	}
}
