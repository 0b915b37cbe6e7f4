package gateway

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func write(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestConfig(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"weft.toml": `listen = "127.0.0.1:9999"
origins = ["app.example"]
import = ["desktop.json"]

[auth]
tokens = [{ principal = "ada", file = "ada.token" }]

[limits]
connections = 50
calls_per_address = 1
calls_per_principal = 2
bytes_per_connection = "3KiB"
bytes_per_address = 4
bytes_per_principal = "5MiB"

[servers.git]
command = "uvx"
args = ["mcp-server-git"]
env = { A = "1" }
inherit = ["GIT_DIR"]
isolation = "shared"
allow = ["git_*"]
message_max = "32MiB"
call_timeout = "90s"

[servers.far]
url = "wss://tools.example/mcp"

[servers.demo]
builtin = true
call_timeout = "off"
message_max = 1000

[servers.unused]
command = "x"
disabled = true
`,
		"desktop.json": `{"mcpServers": {"My Files": {"command": "npx", "args": ["-y", "server-filesystem"], "alwaysAllow": ["x"]}}}`,
		"ada.token":    "0123456789abcdef\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := LoadConfig(filepath.Join(dir, "weft.toml"))
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != "127.0.0.1:9999" || len(c.Origins) != 1 {
		t.Errorf("%+v", c)
	}
	if want := (LimitsConfig{Connections: 50, CallsPerAddress: 1, CallsPerPrincipal: 2, BytesPerConnection: 3 << 10,
		BytesPerAddress: 4, BytesPerPrincipal: 5 << 20}); c.Limits != want {
		t.Errorf("limits %+v, want %+v", c.Limits, want)
	}
	tokens, err := c.Tokens()
	if err != nil {
		t.Fatal(err)
	}
	if p, ok := tokens.Verify("0123456789abcdef"); !ok || p != "ada" {
		t.Errorf("the token is %q's, %v", p, ok)
	}
	routes, err := c.Routes(Env{Builtin: &pipes{}})
	if err != nil {
		t.Fatal(err)
	}
	by := map[string]Route{}
	for _, r := range routes {
		by[r.Name] = r
	}
	if len(by) != 4 {
		t.Errorf("routes %v", by)
	}
	git := by["git"]
	cmd, _ := git.Backend.(*Command)
	if cmd == nil || cmd.String() != "uvx mcp-server-git" || cmd.Env["A"] != "1" || cmd.Inherit[0] != "GIT_DIR" ||
		git.Isolation != Shared || git.MessageMax != 32<<20 || cmd.LineMax != 32<<20 || git.RequestMax != 10<<20 || git.CallTimeout != 90*time.Second {
		t.Errorf("git is %+v, %+v", git, cmd)
	}
	if by["far"].Backend.String() != "wss://tools.example/mcp" {
		t.Errorf("far is %v", by["far"].Backend)
	}
	if d := by["demo"]; d.CallTimeout >= 0 || d.MessageMax != 1000 {
		t.Errorf("demo is %+v", d)
	}
	if by["My-Files"].Backend.String() != "npx -y server-filesystem" {
		t.Errorf("My-Files is %v", by["My-Files"].Backend)
	}
}

// A mistake names the file, the line and the remedy.
func TestConfigMistakes(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"listen = \n", "weft.toml:1: "},
		{"a = 1\n", `weft.toml:1: there is no setting "a"; remove it`},
		{"listen = \"x\"\n[servers.git]\ncomand = \"x\"\n", `weft.toml:3: there is no setting "servers.git.comand"; did you mean "command"?`},
		{"[limit]\nconnections = 1\n", `weft.toml:1: there is no setting "limit"; did you mean "limits"?`},
		{"[servers.git]\ncommand = \"x\"\nisolation = \"one\"\n", `weft.toml:3: isolation "one" is none of connection, pool, shared`},
		{"[servers.git]\ncommand = \"x\"\nmessage_max = \"big\"\n", `"16MiB"`},
		{"[servers.git]\ncommand = \"x\"\ncall_timeout = \"soon\"\n", `"30s"`},
		{"[servers.git]\nisolation = \"shared\"\n", `weft.toml:1: server "git" has 0 of command, url and builtin; give exactly one`},
		{"[servers.git]\ncommand = \"x\"\nurl = \"ws://a\"\n", `has 2 of command`},
		{"[servers.git]\nurl = \"ftp://a\"\n", `weft.toml:2: url begins with "ftp", not with http`},
		{"[servers.git]\nurl = \"tools.example\"\n", `weft.toml:2: url is not the URL of a server`},
		{"[servers.git]\nurl = \"https://a\"\nisolation = \"pool\"\n", `weft.toml:3: server "git" is reached over HTTP, where nothing can be started in advance; use "connection" or "shared"`},
		{"[servers.git]\nurl = \"https://a\"\nheaders = { A = \"${WEFT_TEST_UNSET}\" }\n", `weft.toml:3: the variable WEFT_TEST_UNSET in the header A is not set`},
		{"[servers.git]\nurl = \"https://a/${WEFT_TEST_UNSET}\"\n", `weft.toml:2: the variable WEFT_TEST_UNSET in the url is not set`},
		{"[servers.git]\nurl = \"https://a\"\nheaders = { \"A:\" = \"b\" }\n", `"A:" cannot be the name of a header`},
		{"[servers.git]\nurl = \"https://a\"\nheaders = { A = \"b\\n\" }\n", `a line feed`},
		{"[servers.git]\ncommand = \"npx -y server\"\n", `weft.toml:2: command "npx -y server" is not run by a shell; put the words after the first into args`},
		{"[servers.\"a b\"]\ncommand = \"x\"\n", `server name "a b"`},
		{"[servers.ticket]\ncommand = \"x\"\n", `weft.toml:1: server name "ticket" is taken`},
		{"[servers.git]\ncommand = \"x\"\nallow = [\"[\"]\n", `is no pattern of tool names`},
		{"import = [\"none.json\"]\n", `weft.toml:1: `},
	} {
		c, err := LoadConfig(write(t, "weft.toml", tt.text))
		if err == nil {
			_, err = c.Routes(Env{Builtin: &pipes{}})
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v, want %q", tt.text, err, tt.want)
		}
	}
	for _, tt := range []struct{ text, want string }{
		{"{\n\n]", "desktop.json:3: "},
		{"{}", `there is no "mcpServers" in it`},
		{"{\"mcpServers\": {\n\"a\": {\"command\": 7}}}", "desktop.json:2: "},
		{"{\"mcpServers\": {\n\"a\": {\"type\": \"sse\", \"url\": \"https://a/sse\"}}}", `desktop.json:2: server "a" uses the HTTP+SSE transport`},
		{"{\"mcpServers\": {\n\"a\": {\"type\": \"ws\", \"url\": \"https://a\"}}}", `desktop.json:2: server "a" has type "ws" and a URL that is neither`},
		{"{\"mcpServers\": {\n\"a\": {\"type\": \"http\", \"url\": \"ws://a\"}}}", `desktop.json:2: server "a" has type "http" and a WebSocket URL`},
		{"{\"mcpServers\": {\n\"a\": {\"type\": \"grpc\", \"url\": \"https://a\"}}}", `desktop.json:2: server "a" has type "grpc"`},
	} {
		_, err := LoadConfig(write(t, "desktop.json", tt.text))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v, want %q", tt.text, err, tt.want)
		}
	}
}

// Servers on HTTP as desktop clients write them down.
func TestConfigHTTP(t *testing.T) {
	t.Setenv("FAR_TOKEN", "s3cret-s3cret")
	t.Setenv("EMPTY", "")
	c, err := LoadConfig(write(t, "desktop.json", `{"mcpServers": {
		"plain": {"url": "https://tools.example/mcp?key=${FAR_TOKEN}"},
		"http": {"type": "http", "url": "http://127.0.0.1:1/mcp", "headers": {"Authorization": "Bearer ${FAR_TOKEN}", "x-a": "$FAR_TOKEN ${env:FAR_TOKEN} ${EMPTY:-c} $ 5"}},
		"cline": {"type": "streamableHttp", "url": "http://127.0.0.1:2/mcp"},
		"code": {"type": "streamable-http", "url": "http://127.0.0.1:3/mcp"},
		"old": {"type": "sse", "url": "http://127.0.0.1:4/sse", "disabled": true},
		"socket": {"type": "ws", "url": "ws://127.0.0.1:5/mcp"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	routes, err := c.Routes(Env{})
	if err != nil {
		t.Fatal(err)
	}
	by := map[string]Backend{}
	for _, r := range routes {
		by[r.Name] = r.Backend
	}
	for _, name := range []string{"plain", "http", "cline", "code"} {
		if _, ok := by[name].(*HTTP); !ok {
			t.Fatalf("%s is a %T", name, by[name])
		}
	}
	if _, ok := by["socket"].(*Remote); !ok || len(by) != 5 {
		t.Errorf("the servers are %v", by)
	}
	if s := by["plain"].String(); s != "https://tools.example/mcp" || by["plain"].(*HTTP).URL != s+"?key=s3cret-s3cret" {
		t.Errorf("plain is listed as %s and dialled as %s", s, by["plain"].(*HTTP).URL)
	}
	h := by["http"].(*HTTP).Header
	if h.Get("Authorization") != "Bearer s3cret-s3cret" || h.Get("X-A") != "s3cret-s3cret s3cret-s3cret c $ 5" {
		t.Errorf("headers %v", h)
	}
}

func TestConfigTokenMistakes(t *testing.T) {
	t.Setenv("SHORT", "abc")
	for _, tt := range []struct{ token, want string }{
		{`{ principal = "a" }`, "neither or both of file and env"},
		{`{ principal = "a", env = "SHORT" }`, "less than 16 characters"},
		{`{ env = "SHORT" }`, "belongs to nobody"},
		{`{ principal = "a", file = "none" }`, "put the token in this file"},
	} {
		c, err := LoadConfig(write(t, "weft.toml", "[auth]\ntokens = ["+tt.token+"]\n"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Tokens(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.token, err, tt.want)
		}
	}
}

// A gateway in front of a gateway: the far server is reached over WebSocket,
// and a lost connection is made again.
func TestRemoteBackend(t *testing.T) {
	allModes(t, func(t *testing.T, i Isolation) {
		far, farURL := serve(t, Options{}, testRoute(PerConnection))
		_, url := serve(t, Options{}, Route{Name: "near", Isolation: i, Backend: &Remote{URL: farURL + "fake?secret=1"}, PoolSize: 1})
		w := dial(t, url+"near")
		w.initialize("{}")
		w.call("9007199254740993", "echo", `{"text":"far away"}`)
		w.hears("far away", `"id":9007199254740993`)
		w.call("2", "hang", "{}")
		w.hears("progress")
		for _, s := range far.Registry().Sessions() {
			if s, ok := far.Registry().Session(s.ID); ok {
				s.End(1012, "again")
			}
		}
		if got := w.hears(`"id":2,"error"`, "the connection to the server was lost"); strings.Contains(got, "secret") {
			t.Errorf("a secret in %s", got)
		}
		w.call("3", "echo", `{"text":"back"}`)
		w.hears("back")
	})
}
