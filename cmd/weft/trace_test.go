package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
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
	"testing"

	"github.com/weft-ws/weft/capture"
	"github.com/weft-ws/weft/ws"
)

// started runs a command until the test ends, or stop is called, and returns
// what it printed when that matches: the submatches of ready.
func started(t *testing.T, ready string, args ...string) (match []string, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	pattern := regexp.MustCompile(ready)
	errs := &output{told: make(chan struct{}, 1)}
	root := newRootCmd()
	root.SetArgs(args)
	root.SetErr(errs)
	done := make(chan error, 1)
	go func() { done <- root.ExecuteContext(ctx) }()
	ended := false
	stop = func() {
		cancel()
		if ended {
			return
		}
		ended = true
		if err := <-done; err != nil {
			t.Errorf("%q ended with %v", args, err)
		}
	}
	t.Cleanup(stop)
	for {
		select {
		case <-errs.told:
			if m := pattern.FindStringSubmatch(errs.String()); m != nil {
				return m, stop
			}
		case err := <-done:
			ended = true
			t.Fatalf("%q ended: %v\n%s", args, err, errs.String())
		}
	}
}

// testCert writes a certificate for 127.0.0.1 and its key to files.
func testCert(t *testing.T) (cert, key string) {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	defer s.Close()
	pair := s.TLS.Certificates[0]
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	cert = file(t, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]})))
	key = file(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	return cert, key
}

// sound lets the doctor look at a recording, which has to be of a connection
// that began and on which something was said, and returns it. That of a client
// has the end of the connection too; a server that is told to stop may be faster.
func sound(t *testing.T, name string, client bool) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	out, errs, code := runDoctor(t, "", name)
	if code != 0 || errs != "" || !strings.Contains(out, "nothing found") || strings.Contains(out, "not judged") ||
		strings.Contains(out, " 0 frames") {
		t.Errorf("%s: exit code %d\n%s%s\n%.2000s", name, code, out, errs, b)
	}
	if client && !strings.Contains(string(b), " end ") {
		t.Errorf("%s does not say how the connection ended:\n%.2000s", name, b)
	}
	return string(b)
}

const testToken = "0123456789abcdefghijkl"

// Every verb that has --trace records what the doctor finds nothing in, on
// either side, and without the token.
func TestTraceOfEveryVerb(t *testing.T) {
	t.Setenv(tokenEnv, testToken)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const gate = `listening on (ws://[^/]+)/[^\0]*try in a second shell`
	call := func(url string) []string { return []string{"mcp", "call", url, "echo", `{"text":"hello"}`} }
	for _, c := range []struct {
		name, ready string
		server      []string
		client      func(base string) []string
		stdin       string
	}{
		{"echo", `listening on (ws://[^/]+)/`, []string{"echo", "--listen", "127.0.0.1:0"},
			func(base string) []string { return []string{"dial", base + "/"} }, "hello\n"},
		{"echo compressed", `listening on (ws://[^/]+)/`, []string{"echo", "--listen", "127.0.0.1:0", "--deflate"},
			func(base string) []string {
				return []string{"dial", "--deflate", "--deflate-threshold", "off", base + "/"}
			}, strings.Repeat("hello ", 20_000) + "\n"},
		{"serve", gate, []string{"serve", "--listen", "127.0.0.1:0"},
			func(base string) []string { return call(base + "/mcp/ws") }, ""},
		{"mcp serve", gate, []string{"mcp", "serve", "--listen", "127.0.0.1:0", "--env", "WEFT_TEST_STDIO=1", "--", exe},
			func(base string) []string { return call(base + "/mcp/ws") }, ""},
		{"mcp connect", gate, []string{"serve", "--listen", "127.0.0.1:0"},
			func(base string) []string { return []string{"mcp", "connect", base + "/mcp/ws"} }, `{"jsonrpc":"2.0","id":1,"method":"ping"}` + "\n"},
		{"chat", `chat on (ws://[^/]+)/`, []string{"chat", "serve", "--quiet", "--listen", "127.0.0.1:0", "--tcp", "none"},
			func(base string) []string {
				return []string{"chat", "join", base, "--source", "pattern", "-S", "--known-hosts", "none"}
			}, ""},
		{"chat in fragments", `chat on (ws://[^/]+)/`, []string{"chat", "serve", "--quiet", "--listen", "127.0.0.1:0", "--tcp", "none", "--fragments", "always"},
			func(base string) []string {
				return []string{"chat", "join", base, "--source", "pattern", "-S", "--known-hosts", "none", "--fragments", "always"}
			}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			here, there := filepath.Join(t.TempDir(), "client.trace"), filepath.Join(t.TempDir(), "server.trace")
			// Flags go before the command of mcp serve.
			server := append([]string{}, c.server...)
			for i, a := range server {
				if a == "--listen" {
					server = append(append(append([]string{}, server[:i]...), "--trace", there), server[i:]...)
					break
				}
			}
			m, stop := started(t, c.ready, server...)
			args := append(c.client(m[1]), "--trace", here)
			if _, errs, err := mcpCommand(t.Context(), c.stdin, args...); err != nil {
				t.Fatalf("%q: %v\n%s", args, err, errs)
			}
			stop()
			for _, name := range []string{here, there} {
				b := sound(t, name, name == here)
				if strings.Contains(b, testToken) || strings.Contains(b, "Authorization: B") != strings.Contains(b, "Authorization: Bearer redacted") {
					t.Errorf("the token stands in %s:\n%.1000s", name, b)
				}
				if st, err := os.Stat(name); err != nil || st.Mode().Perm()&0o077 != 0 && runtime.GOOS != "windows" {
					t.Errorf("%s: %v, mode %v", name, err, st.Mode())
				}
			}
		})
	}
}

// A hub and the server that dials it.
func TestTraceOfAttach(t *testing.T) {
	t.Setenv(tokenEnv, testToken)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	far := filepath.Join(t.TempDir(), "far.trace")
	m, _ := started(t, `listening on (ws://[^/]+)/[^\0]*try in`, "serve", "--listen", "127.0.0.1:0", "--attach", "--log-level", "info")
	_, stop := started(t, `attached to the hub`, "mcp", "serve", "--log-level", "info", "--trace", far, "--dial", m[1]+"/mcp/attach?name=far", "--env", "WEFT_TEST_STDIO=1", "--", exe)
	for {
		out, _, err := mcpCommand(t.Context(), "", "mcp", "call", m[1]+"/mcp/far", "echo", `{"text":"hello"}`)
		var he *ws.HandshakeError
		if errors.As(err, &he) && he.Status == http.StatusNotFound && t.Context().Err() == nil {
			continue // the hub is not as far as we are
		}
		if err != nil || out != "hello\n" {
			t.Errorf("%q, %v", out, err)
		}
		break
	}
	stop()
	if b := sound(t, far, true); strings.Contains(b, testToken) {
		t.Errorf("the token stands in the recording:\n%.1000s", b)
	}
}

// Over TLS the recording is of what is inside.
func TestTraceInsideTLS(t *testing.T) {
	cert, key := testCert(t)
	here, there := filepath.Join(t.TempDir(), "client.trace"), filepath.Join(t.TempDir(), "server.trace")
	m, stop := started(t, `listening on (wss://[^/]+)/`, "echo", "--listen", "127.0.0.1:0", "--trace", there, "--tls-cert", cert, "--tls-key", key)
	out, errs, err := mcpCommand(t.Context(), "inside\n", "dial", m[1]+"/?ticket=abc", "--trace", here, "--tls-ca", cert)
	if err != nil || out != "inside\n" {
		t.Fatalf("%q, %v\n%s", out, err, errs)
	}
	// Whoever does not speak TLS is told so, traced or not.
	_, err = ws.Dial(t.Context(), "ws"+strings.TrimPrefix(m[1], "wss")+"/", nil)
	var he *ws.HandshakeError
	if !errors.As(err, &he) || he.Status != http.StatusBadRequest || !strings.Contains(string(he.Body), "HTTPS") {
		t.Errorf("plain HTTP: %v", err)
	}
	stop()
	for _, name := range []string{here, there} {
		if b := sound(t, name, name == here); !strings.Contains(b, `> "GET /?ticket=redacted HTTP/1.1\r\n`) {
			t.Errorf("the request is not readable, or shows its ticket:\n%.500s", b)
		}
	}
}

// A file that cannot be written is told at the start, with the exit code for
// what could not be done.
func TestTraceThatCannotBeWritten(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "nobody", "x.trace")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"echo", "--listen", "127.0.0.1:0"}, {"echo", "--dial", "ws://127.0.0.1:9/"}, {"dial", "ws://127.0.0.1:9/"},
		{"serve", "--listen", "127.0.0.1:0"}, {"mcp", "call", "ws://127.0.0.1:9/"}, {"mcp", "connect", "ws://127.0.0.1:9/"},
		{"chat", "serve", "--listen", "127.0.0.1:0", "--tcp", "none"}, {"chat", "join", "ws://127.0.0.1:9/", "-S", "--source", "pattern", "--known-hosts", "none"},
		{"mcp", "serve", "--listen", "127.0.0.1:0", "--trace", bad, exe}, {"mcp", "serve", "--dial", "ws://127.0.0.1:9/", "--trace", bad, exe},
	} {
		if args[len(args)-1] != exe {
			args = append(args, "--trace", bad)
		}
		_, _, err := mcpCommand(t.Context(), "", args...)
		var exit *exitError
		if !errors.As(err, &exit) || exit.code != 2 || !strings.Contains(err.Error(), "--trace: open ") || !strings.Contains(err.Error(), "\nhint: ") {
			t.Errorf("%q: %v", args, err)
		}
	}
	if _, _, err := mcpCommand(t.Context(), "", "chat", "join", "tcp://127.0.0.1:9", "-S", "--source", "none", "--trace", bad); err == nil || !strings.Contains(err.Error(), "tcp:// is none") {
		t.Errorf("a call over TCP: %v", err)
	}
}

// Without a connection there is a recording without one.
func TestTraceOfNothing(t *testing.T) {
	name := filepath.Join(t.TempDir(), "x.trace")
	_, stop := started(t, `listening on`, "echo", "--listen", "127.0.0.1:0", "--trace", name)
	stop()
	if out, errs, code := runDoctor(t, "", name); code != 0 || errs != "" || !strings.Contains(out, "nothing found in 0 frames") {
		t.Errorf("exit code %d\n%s%s", code, out, errs)
	}
}

// recorded gives pieces, each behind the sign of who sent it, to a recorder and
// returns what is in each of its files.
func recorded(t *testing.T, pieces ...string) []string {
	t.Helper()
	dir := t.TempDir()
	tr := &tracer{name: filepath.Join(dir, "x"), verb: "test"}
	if err := tr.open(io.Discard); err != nil {
		t.Fatal(err)
	}
	a, b := net.Pipe()
	b.Close()
	r := recorder{t: tr, side: capture.Server, nc: a}
	for _, p := range pieces {
		from := capture.Client
		if p[0] == '<' {
			from = capture.Server
		}
		r.chunk(from, []byte(p[1:]))
	}
	r.end(capture.Server, capture.FIN)
	r.close()
	a.Close()
	tr.close()
	var out []string
	for n := 1; ; n++ {
		name := tr.name
		if n > 1 {
			name = fmt.Sprintf("%s.%d", name, n)
		}
		f, err := os.Open(name)
		if err != nil {
			return out
		}
		defer f.Close()
		src, err := capture.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		text := ""
		last := byte(0)
		for c, err := range src.Chunks() {
			if err != nil {
				t.Fatal(err)
			}
			side := byte('>')
			if c.From == capture.Server {
				side = '<'
			}
			if side != last {
				text += string(side)
				last = side
			}
			if text += string(c.Data); c.End != capture.Open {
				text += "END"
			}
		}
		out = append(out, text)
	}
}

// What is recorded of a connection does not depend on where its bytes are cut,
// begins with an upgrade, and has no credentials.
func TestRecorder(t *testing.T) {
	const (
		get     = "GET / HTTP/1.1\r\nHost: a\r\nCookie: x=y\r\n\r\n"
		ok      = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
		upgrade = "GET /?ticket=t HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nAuthorization: Bearer t\r\n\r\n"
		upped   = "GET /?ticket=redacted HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nAuthorization: Bearer redacted\r\n\r\n"
		hint    = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
		yes     = "HTTP/1.1 101 Switching Protocols\r\nSet-Cookie: id=7\r\n\r\n"
		said    = "HTTP/1.1 101 Switching Protocols\r\nSet-Cookie: redacted\r\n\r\n"
		no      = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\nContent-Length: 3\r\n\r\nno\n"
		frame   = "\x81\x02hi Authorization: stays\r\n\r\n"
	)
	for _, c := range []struct {
		name   string
		pieces []string
		want   []string
	}{
		{"an upgrade", []string{">" + upgrade, "<" + yes + frame, ">" + frame}, []string{">" + upped + "<" + said + frame + ">" + frame + "<END"}},
		{"after another request", []string{">" + get, "<" + ok, ">" + upgrade, "<" + hint + yes}, []string{">" + upped + "<" + hint + said + "END"}},
		{"refused, and tried again", []string{">" + upgrade, "<" + no, ">" + upgrade, "<" + yes, ">" + frame}, []string{">" + upped + "<" + no, ">" + upped + "<" + said + ">" + frame + "<END"}},
		{"refused, and then something else", []string{">" + upgrade, "<" + no, ">" + get, "<" + ok}, []string{">" + upped + "<" + no}},
		{"nothing but requests", []string{">" + get, "<" + ok, ">POST / HTTP/1.1\r\n\r\nUpgrade: websocket\r\n\r\n", "<" + ok}, []string{""}},
		{"a head without an end", []string{">" + upgrade, "<HTTP/1.1 101 S\r\nSet-Cookie: id"}, []string{">" + upped + "<HTTP/1.1 101 S\r\nSet-Cookie: redactedEND"}},
		{"no HTTP", []string{">" + upgrade, "<SSH-2.0\r\n"}, []string{">" + upped + "<SSH-2.0\r\nEND"}},
		{"too long a head", []string{">GET / HTTP/1.1\r\nUpgrade: " + strings.Repeat("x", traceHeadMax), ">\r\n\r\n"}, []string{""}},
	} {
		whole := recorded(t, c.pieces...)
		var bytewise []string
		for _, p := range c.pieces {
			if len(p) > 1000 {
				bytewise = append(bytewise, p)
				continue
			}
			for i := range len(p) - 1 {
				bytewise = append(bytewise, p[:1]+p[1+i:2+i])
			}
		}
		for how, got := range map[string][]string{"whole": whole, "byte by byte": recorded(t, bytewise...)} {
			if strings.Join(got, "|") != strings.Join(c.want, "|") {
				t.Errorf("%s, %s:\n%q, want\n%q", c.name, how, got, c.want)
			}
		}
	}
}

func TestRedact(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"GET /a?b=c&api_key=x&d#e HTTP/1.1", "GET /a?b=c&api_key=redacted&d#e HTTP/1.1"},
		{"GET /a?01234567890123456789&n=01234567890123456789 HTTP/1.1", "GET /a?redacted&n=redacted HTTP/1.1"},
		{"GET /a?ticket= HTTP/1.1", "GET /a?ticket= HTTP/1.1"},
		{"HTTP/1.1 302 What?token=x", "HTTP/1.1 302 What?token=x"},
		{"GET / HTTP/1.1\nX-Api-Key: x\nHost: h\nproxy-authorization:Basic eDp5\n", "GET / HTTP/1.1\nX-Api-Key: redacted\nHost: h\nproxy-authorization:Basic redacted\n"},
		{"G\r\nX-Claude-Code-Ide-Authorization: abc\r\nCookie: a=b; c=d\r\n", "G\r\nX-Claude-Code-Ide-Authorization: redacted\r\nCookie: redacted\r\n"},
		{"G\r\nCookie: a=b;\r\n\tc=d\r\nHost: a\r\n b\r\n", "G\r\nCookie: redacted\r\n redacted\r\nHost: a\r\n b\r\n"},
		{"G\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "G\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"},
		{"G\r\nSec-WebSocket-Protocol: mcp, mcp.auth.short, mcp.resume.new.0123456789012345678901, acip\r\n", "G\r\nSec-WebSocket-Protocol: mcp, mcp.auth.redacted, mcp.resume.new.redacted-2, acip\r\n"},
		{"G\r\nSec-WebSocket-Protocol: bearer, short,mcp\r\n", "G\r\nSec-WebSocket-Protocol: bearer, redacted,mcp\r\n"},
		{"G\r\nSec-WebSocket-Protocol: mcp.auth.a.b.c\r\n", "G\r\nSec-WebSocket-Protocol: mcp.auth.redacted\r\n"},
		{"HTTP/1.1 302 F\r\nLocation: /x?session=7\r\n", "HTTP/1.1 302 F\r\nLocation: /x?session=redacted\r\n"},
		{"G\r\nAuthorization: verylongwithoutscheme\r\nAuthorization:\r\n", "G\r\nAuthorization: redacted\r\nAuthorization:\r\n"},
		{"G\r\nauthoriz", "G\r\nredacted"},
	} {
		if got := string(redactHead([]byte(c.in))); got != c.want {
			t.Errorf("%q: %q, want %q", c.in, got, c.want)
		}
	}
}

// The first connections are recorded, those beyond the limit are not, and that
// is said once.
func TestTraceFilesEnd(t *testing.T) {
	var errs output
	tr := &tracer{name: filepath.Join(t.TempDir(), "x"), verb: "test"}
	if err := tr.open(&errs); err != nil {
		t.Fatal(err)
	}
	defer tr.close()
	tr.n = traceFilesMax - 1
	for i, want := range []bool{true, false, false} {
		f := tr.next()
		if (f != nil) != want {
			t.Errorf("connection %d: %v", i, f)
		}
		if f != nil {
			f.Close()
		}
	}
	if n := strings.Count(errs.String(), "\n"); n != 1 {
		t.Errorf("said %q", errs.String())
	}
}
