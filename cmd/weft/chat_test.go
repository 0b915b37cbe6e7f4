package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"github.com/weft-ws/weft/chat"
)

// chatSite serves a chat as weft chat serve does, with the given flags, and
// returns its URLs.
func chatSite(t *testing.T, flags ...string) (wsURL, tcpURL string) {
	t.Helper()
	var f chatServerFlags
	cmd := &cobra.Command{}
	f.add(cmd, "")
	if err := cmd.ParseFlags(flags); err != nil {
		t.Fatal(err)
	}
	cfg, err := f.config(nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	var l [2]net.Listener
	for i := range l {
		if l[i], err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- serveChat(ctx, chat.NewServer(cfg), l[0], l[1], "ws", "", io.Discard) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	return "ws://" + l[0].Addr().String(), "tcp://" + l[1].Addr().String()
}

// chatRun runs weft chat with arguments and returns what it printed.
func chatRun(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := newChatCmd()
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(io.Discard)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func file(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// keyPair writes a private key file and returns it with the public line.
func keyPair(t *testing.T) (private, public string) {
	t.Helper()
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(priv, "")
	if err != nil {
		t.Fatal(err)
	}
	k, err := ssh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return file(t, "id", string(pem.EncodeToMemory(block))), string(ssh.MarshalAuthorizedKey(k))
}

func TestChatSnapshot(t *testing.T) {
	password, wrong := file(t, "pw", "correct-horse-battery\n"), file(t, "pw2", "another-password\n")
	host, hostPub := keyPair(t)
	mia, miaPub := keyPair(t)
	_, leoPub := keyPair(t)
	known := filepath.Join(t.TempDir(), "known_hosts")
	for _, c := range []struct {
		name   string
		server []string
		client []string
		want   string // part of the error
	}{
		{"open", nil, nil, ""},
		{"password", []string{"--password-file", password}, []string{"--password-file", password}, ""},
		{"wrong password", []string{"--password-file", password}, []string{"--password-file", wrong}, "wrong password"},
		{"no password", []string{"--password-file", password}, nil, "hint: --password"},
		{"keys", []string{"--host-key", host, "--clients-file", file(t, "clients", miaPub)}, []string{"--key", mia, "--known-hosts", known}, ""},
		{"known by now", []string{"--host-key", host}, []string{"--server-key", hostPub}, ""},
		{"wrong key", []string{"--clients-file", file(t, "clients", leoPub)}, []string{"--key", mia}, "not on the list"},
		{"wrong server", []string{"--host-key", host}, []string{"--server-key", leoPub}, "expected SHA256:"},
	} {
		w, tcp := chatSite(t, c.server...)
		for _, url := range []string{w, tcp} {
			args := append([]string{"join", url, "--source", "pattern", "-S", "-D", "0", "--width", "80", "--height", "24"}, c.client...)
			if !strings.Contains(strings.Join(args, " "), "--known-hosts") {
				args = append(args, "--known-hosts", "none")
			}
			out, err := chatRun(t, args...)
			if c.want == "" {
				if err != nil || !strings.Contains(out, "\x1b[38;2;") || strings.Count(out, "\n") != 24 {
					t.Errorf("%s over %s: %v, %d bytes", c.name, url, err, len(out))
				}
				continue
			}
			var exit *exitError
			if err == nil || !strings.Contains(err.Error(), c.want) || !errors.As(err, &exit) || exit.code != 1 || out != "" {
				t.Errorf("%s over %s: %v, want %q; printed %d bytes", c.name, url, err, c.want, len(out))
			}
		}
	}
	if b, err := os.ReadFile(known); err != nil || strings.Count(string(b), "ssh-ed25519") != 2 {
		t.Errorf("known hosts: %s %v", b, err)
	}
}

func TestChatNobodyThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "tcp://" + l.Addr().String()
	l.Close()
	_, err = chatRun(t, "join", url, "--source", "none", "-S", "--known-hosts", "none")
	var exit *exitError
	if err == nil || errors.As(err, &exit) {
		t.Errorf("a server that is not there: %v", err)
	}
}

func TestChatFlagsThatMakeNoSense(t *testing.T) {
	for _, args := range [][]string{
		{"join", "http://x", "-S"}, {"join", "ws://x", "-S", "--color", "pink"}, {"join", "ws://x", "-S", "--fps", "0"},
		{"join", "ws://x", "-S", "--render", "oil"}, {"join", "ws://x", "-S", "--width", "5000"}, {"join", "ws://x", "-S", "--fragments", "some"},
		{"join", "ws://x", "-S", "--source", "radio", "--known-hosts", "none"}, {"join", "ws://x", "-S", "--password-file", "/does/not/exist"},
		{"join"}, {"decode"}, {"decode", "--key", "12", "x"}, {"serve", "--tls-cert", "x"}, {"serve", "--fragments", "some"},
		{"mirror", "--source", "none", "-S"},
	} {
		if _, err := chatRun(t, args...); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
}

func TestChatMirror(t *testing.T) {
	out, err := chatRun(t, "mirror", "-S", "--source", "pattern", "--width", "60", "--height", "20", "--color", "16", "--render", "half-block")
	if err != nil || strings.Count(out, "\n") != 20 || !strings.Contains(out, "▀") || strings.Contains(out, "38;2") {
		t.Errorf("%v %.100q", err, out)
	}
}

func TestChatDecode(t *testing.T) {
	const key = "16cf6fb509cd1185cfeb7528409d8f587c816d00e5b0a16fa0ef5d502e6a0b46"
	recording := "../../acip/testdata/captures/ws-encrypted-snapshot.pcap"
	out, err := chatRun(t, "decode", recording, "--key", key)
	if err != nil || strings.Count(out, "IMAGE_FRAME ") != 8 || !strings.Contains(out, "110×70, colour level 3") || strings.Contains(out, "*ENCRYPTED") {
		t.Errorf("with the key: %v\n%.500s", err, out)
	}
	out, err = chatRun(t, "decode", recording)
	if err != nil || strings.Contains(out, "IMAGE_FRAME") || !strings.Contains(out, "*ENCRYPTED") {
		t.Errorf("without: %v\n%.500s", err, out)
	}
	out, err = chatRun(t, "decode", recording, "--json", "--key", key)
	if err != nil || !strings.Contains(out, `"type":"CLIENT_CAPABILITIES","number":5000,"encrypted":true,"counter":1,"length":168`) {
		t.Errorf("as JSON: %v\n%.300s", err, out)
	}
	if _, err := chatRun(t, "decode", "chat_test.go"); err == nil {
		t.Error("a source file is a recording")
	}
}

// weft serve carries the chat beside other things.
func TestMountChat(t *testing.T) {
	mux := http.NewServeMux()
	s := mountChat(mux, "/chat", chat.ServerConfig{})
	hs := httptest.NewServer(mux)
	defer hs.Close()
	defer func() {
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	base := "ws" + strings.TrimPrefix(hs.URL, "http")
	for _, path := range []string{"/chat", "/chat/tea"} {
		out, err := chatRun(t, "join", base+path, "--source", "pattern", "-S", "--known-hosts", "none")
		if err != nil || !strings.Contains(out, "\x1b[38;2;") {
			t.Errorf("%s: %v", path, err)
		}
	}
}
