package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weft-ws/weft/capture"
)

const crashTrace = "../../testdata/ascii-chat-crash.trace"

// runDoctor runs weft doctor and returns what it printed and its exit code.
func runDoctor(t *testing.T, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := newDoctorCmd()
	var out, errs bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	cmd.SetIn(strings.NewReader(stdin))
	cmd.SetArgs(append([]string{}, args...)) // nil means those of the test
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	err := cmd.Execute()
	var exit *exitError
	switch {
	case errors.As(err, &exit):
		code = exit.code
		if exit.err != nil {
			errs.WriteString(exit.err.Error())
		}
	case err != nil:
		code = 2
		errs.WriteString(err.Error())
	}
	return out.String(), errs.String(), code
}

// recording writes a trace and returns the name of its file.
func recording(t *testing.T, write func(w *capture.Writer, start time.Time)) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "x.trace")
	var b bytes.Buffer
	start := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	w := capture.NewWriter(&b, capture.Meta{Start: start})
	write(w, start)
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestDoctorCrash(t *testing.T) {
	out, errs, code := runDoctor(t, "", crashTrace)
	if code != 1 {
		t.Errorf("exit code %d, want 1; %s", code, errs)
	}
	for _, want := range []string{
		crashTrace + ": client → server, frame 2, byte 4 104, 19:15:24.595",
		"continuation-without-message      RFC 6455 §5.4      close 1002",
		"#1  BINARY  FIN=1  4 096   message complete",
		"every piece but the last needs FIN=0",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("stdout lacks %q:\n%s", want, out)
		}
	}
	if strings.Contains(out, "dropped-without-close") || !strings.Contains(errs, "1 more found; --all prints them") {
		t.Errorf("only the first finding belongs on stdout, a word on the others on stderr:\n%s\n%s", out, errs)
	}
	out, _, code = runDoctor(t, "", "--all", crashTrace)
	if code != 1 || !strings.Contains(out, "continuation-without-message") || !strings.Contains(out, "dropped-without-close") {
		t.Errorf("--all: exit code %d\n%s", code, out)
	}
}

func TestDoctorJSONFromStdin(t *testing.T) {
	in, err := os.ReadFile(crashTrace)
	if err != nil {
		t.Fatal(err)
	}
	out, _, code := runDoctor(t, string(in), "--json", "-")
	var got struct {
		Source  string
		Opening struct {
			Status      int
			Subprotocol string
		}
		Client   struct{ Frames int }
		Findings []struct {
			Rule, Name, Severity string
			CloseCode            int `json:"close_code"`
			Offset               int64
			Frame                struct{ Index int }
			Cause                string `json:"likely_cause"`
		}
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if code != 1 || got.Source != "-" || got.Opening.Status != 101 || got.Opening.Subprotocol != "acip" || got.Client.Frames != 2 || len(got.Findings) != 2 {
		t.Fatalf("exit code %d, read as %+v", code, got)
	}
	if f := got.Findings[0]; f.Rule != "MS-02" || f.Severity != "violation" || f.CloseCode != 1002 || f.Offset != 4104 || f.Frame.Index != 2 || f.Cause == "" {
		t.Errorf("first finding %+v", f)
	}
}

func TestDoctorClean(t *testing.T) {
	clean := recording(t, func(w *capture.Writer, at time.Time) {
		w.Chunk(capture.Server, at, []byte("\x81\x02hi"))
		w.Chunk(capture.Server, at.Add(time.Second), []byte("\x89\x00"))
		w.Chunk(capture.Client, at.Add(time.Second), []byte("\x8a\x80\x01\x02\x03\x04"))
	})
	out, errs, code := runDoctor(t, "", clean)
	if code != 0 || errs != "" || !strings.Contains(out, "nothing found in 1 frame from the client and 2 frames from the server") {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, out, errs)
	}
	out, _, code = runDoctor(t, "", "--json", clean)
	if code != 0 || !strings.Contains(out, `"findings":[]`) {
		t.Errorf("exit code %d, %s", code, out)
	}
	refused := recording(t, func(w *capture.Writer, at time.Time) {
		w.Chunk(capture.Client, at, []byte("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"))
		w.Chunk(capture.Server, at, []byte("HTTP/1.1 403 Forbidden\r\n\r\nno"))
	})
	out, _, code = runDoctor(t, "", refused)
	if code != 0 || !strings.Contains(out, "not judged: the server refused the upgrade with status 403") {
		t.Errorf("a refusal is no breach, but must show: exit code %d, %s", code, out)
	}
}

func TestDoctorFlags(t *testing.T) {
	file := recording(t, func(w *capture.Writer, at time.Time) {
		w.Chunk(capture.Server, at, append([]byte("\x82\x7e\x80\x01"), make([]byte, 32769)...))
		w.Chunk(capture.Server, at.Add(time.Minute), []byte("\xc1\x02hi"))
	})
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{file}, 1, "rsv1-without-extension"},
		{[]string{"--hints", file}, 1, "rsv1-without-extension"}, // a violation goes before a hint
		{[]string{"--hints", "--all", file}, 1, "larger-than-intermediaries-allow"},
		{[]string{"--ignore", "FR-03", file}, 0, "nothing found"},
		{[]string{"--ignore", "rsv1-without-extension,HX-06", "--hints", file}, 0, "nothing found"},
		{[]string{"--extensions", "permessage-deflate", file}, 1, "deflate-data-invalid"},
		{[]string{"--client-max-message-size", "32KiB", file}, 1, "reads-past-frame-limit"},
		{[]string{"--client-max-message-size", "1MiB", "--ignore", "FR-03", file}, 0, "nothing found"},
		{[]string{"--handshake", "yes", file}, 0, "not judged: the bytes of the server are not HTTP"},
	} {
		out, errs, code := runDoctor(t, "", c.args...)
		if code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("%v: exit code %d, want %d with %q\n%s%s", c.args, code, c.code, c.want, out, errs)
		}
	}
}

func TestDoctorSeveralFiles(t *testing.T) {
	same := func(w *capture.Writer, at time.Time) {
		w.Chunk(capture.Client, at, []byte("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"))
	}
	a, b := recording(t, same), recording(t, same)
	out, _, code := runDoctor(t, "", a, b)
	if code != 1 || !strings.Contains(out, "key-reused") || !strings.Contains(out, "nothing found") {
		t.Errorf("exit code %d\n%s", code, out)
	}
}

func TestDoctorCannotLook(t *testing.T) {
	short := recording(t, func(w *capture.Writer, at time.Time) { w.Chunk(capture.Server, at, []byte("\x81\x02hi")) })
	head, err := os.ReadFile(short)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		stdin string
		args  []string
		want  string
	}{
		{"", []string{"no-such-file"}, "no-such-file: "},
		{"", []string{"-"}, "not a weft trace"},
		{"\xd4\xc3\xb2\xa1\x02\x00\n", []string{"-"}, "looks like pcap"},
		{string(head) + "rubbish\n", []string{"-"}, "line 4"},
		{"", []string{"--handshake", "perhaps", "-"}, "auto, yes or no"},
		{"", []string{"--ignore", "XX-1", "-"}, "no rule is called"},
		{"", nil, "needs the file of a recording"},
	} {
		out, errs, code := runDoctor(t, c.stdin, c.args...)
		if code != 2 || !strings.Contains(errs, c.want) {
			t.Errorf("%v: exit code %d, want 2 with %q\n%s%s", c.args, code, c.want, out, errs)
		}
	}
	out, errs, code := runDoctor(t, "weft-trace 1\nstart: 2026-03-04T05:06:07Z\n", "-")
	if code != 0 || !strings.Contains(out, "no connection is recorded in it") {
		t.Errorf("nothing in it: exit code %d, stdout %q, stderr %q", code, out, errs)
	}
	// A file of which the end is missing is judged as far as it goes.
	out, errs, code = runDoctor(t, string(head)+"1.0 < 81", "-")
	if code != 0 || !strings.Contains(errs, "incomplete") || !strings.Contains(out, "nothing found") {
		t.Errorf("cut file: exit code %d, stdout %q, stderr %q", code, out, errs)
	}
	if len(head) == 0 || !strings.HasPrefix(string(head), "weft-trace 1\n") {
		t.Errorf("the recording begins with %.20q", head)
	}
}

// A recording of one side is judged alone, without the other's silence.
func TestDoctorOneSide(t *testing.T) {
	const request = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	for _, c := range []struct {
		name, frames string
		code         int
		out          string
	}{
		{"legal", "\x89\x80\x01\x02\x03\x04", 0, "nothing found in 1 frame from the client"},
		{"broken", "\x80\x80\x01\x02\x03\x04", 1, "continuation-first"},
		{"cut", "\x82\x90\x01\x02\x03\x04abc", 0, "stop inside frame 1, after 3 of its 16 bytes"},
	} {
		file := recording(t, func(w *capture.Writer, at time.Time) {
			w.Chunk(capture.Client, at, []byte(request))
			w.Chunk(capture.Client, at.Add(time.Second), []byte(c.frames))
			w.Chunk(capture.Client, at.Add(time.Hour), nil)
		})
		out, errs, code := runDoctor(t, "", file)
		if code != c.code || !strings.Contains(out, c.out) || !strings.Contains(errs, "the client's bytes alone are recorded") {
			t.Errorf("%s: exit code %d, stdout %q, stderr %q", c.name, code, out, errs)
		}
	}
}
