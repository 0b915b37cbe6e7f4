package envelope

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// feed gives the decoder WebSocket messages and writes down what comes out:
// the id or method of each message, "syntax" for each fault.
func feed(d *Decoder, messages ...string) (string, error) {
	var out []string
	for _, p := range messages {
		err := d.Feed(time.Time{}, []byte(p), func(m *Message, err error) error {
			switch {
			case err != nil:
				out = append(out, "syntax")
			case m.ID.Present():
				out = append(out, string(m.IDBytes()))
			case m.Kind == Invalid:
				out = append(out, "invalid")
			default:
				out = append(out, string(m.Method))
			}
			return nil
		})
		if err != nil {
			return strings.Join(out, " "), err
		}
	}
	return strings.Join(out, " "), nil
}

func ping(id string) string { return `{"jsonrpc":"2.0","id":` + id + `,"method":"ping"}` }

const pretty = "{\n  \"jsonrpc\": \"2.0\",\n  \"id\": 5,\n  \"method\": \"ping\"\n}"

func check(t *testing.T, d *Decoder, want string, messages ...string) {
	t.Helper()
	if got, err := feed(d, messages...); err != nil || got != want {
		t.Errorf("%q: got %q, %v, want %q", messages, got, err, want)
	}
}

func TestM1_OneValuePerMessage(t *testing.T) {
	check(t, new(Decoder), "1 2 3", ping("1"), ping("2")+"\n", ping("3")+"\r\n")
}

func TestM2_SeveralLinesInOneMessage(t *testing.T) {
	check(t, new(Decoder), "1 2 3", ping("1")+"\n"+ping("2")+"\r\n"+ping("3"))
	check(t, new(Decoder), "1 syntax 3", ping("1")+"\n{broken\n"+ping("3")+"\n")
	check(t, new(Decoder), "1 syntax", ping("1")+"\n"+ping("2")+ping("3")) // no line feed between the last two
}

func TestM3_StreamMode(t *testing.T) {
	d := &Decoder{Framing: Stream}
	all := ping(`"a"`) + "\n" + ping(`"b"`) + "\r\n\n" + ping("3") + "\n"
	for cut := range len(all) {
		check(t, d, `"a" "b" 3`, all[:cut], all[cut:])
	}
	var single []string
	for i := range len(all) {
		single = append(single, all[i:i+1])
	}
	check(t, d, `"a" "b" 3`, single...)
	check(t, d, "", ping("9")) // no newline, no message
	check(t, d, "9", "\n")
	check(t, d, "syntax 2", "{broken\n"+ping("2")+"\n")
}

func TestM3_StreamLimits(t *testing.T) {
	d := &Decoder{Framing: Stream, SizeMax: 64}
	if _, err := feed(d, strings.Repeat(" ", 64)); err != nil {
		t.Errorf("64 bytes: %v", err)
	}
	_, err := feed(d, " ")
	var big *TooBigError
	if !errors.As(err, &big) || err.Error() != "Message exceeds maximum size of 64 bytes" {
		t.Errorf("65 bytes: %v", err)
	}
	d = &Decoder{Framing: Stream, SizeMax: 64}
	if _, err := feed(d, strings.Repeat(" ", 65)+"\n"); !errors.As(err, &big) {
		t.Errorf("65 bytes in one message: %v", err)
	}
	var u *UTF8Error
	if _, err := feed(&Decoder{Framing: Stream}, "\"\xff\"\n"); !errors.As(err, &u) {
		t.Errorf("invalid UTF-8: %v", err)
	}
}

// F9, in the streamed dialect: the timer runs from the first byte of the line.
func TestF9_StreamDeadline(t *testing.T) {
	d := &Decoder{Framing: Stream}
	start := time.Unix(1000, 0)
	nothing := func(*Message, error) error { return nil }
	if !d.Deadline().IsZero() {
		t.Error("a deadline without an unfinished line")
	}
	_ = d.Feed(start, []byte(ping("1")+"\n{"), nothing)
	_ = d.Feed(start.Add(20*time.Second), []byte("\"a"), nothing)
	if want := start.Add(30 * time.Second); !d.Deadline().Equal(want) {
		t.Errorf("deadline %v, want %v: later bytes do not extend it", d.Deadline(), want)
	}
	if err := d.Expire(start.Add(30*time.Second - 1)); err != nil {
		t.Errorf("a nanosecond early: %v", err)
	}
	var late *LateError
	if err := d.Expire(start.Add(30 * time.Second)); !errors.As(err, &late) {
		t.Errorf("at the deadline: %v", err)
	}
	_ = d.Feed(start.Add(31*time.Second), []byte("\n"), nothing)
	if !d.Deadline().IsZero() {
		t.Error("the deadline outlived its line")
	}
}

func TestM4_BlankAndPretty(t *testing.T) {
	check(t, new(Decoder), "", "", "\n", " \r\n\t ")
	check(t, new(Decoder), "5", pretty)
	check(t, new(Decoder), "5 5 1", pretty+"\n"+pretty+"\n\n"+ping("1"))
	check(t, new(Decoder), "1", `{"jsonrpc":"2.0","method":"x","params":{"a":"line\nline"},"id":1}`)
	check(t, &Decoder{Framing: Stream}, "1", "\n\r\n"+ping("1")+"\n")
	// A broken pretty-printed message is one fault, not one per line.
	check(t, new(Decoder), "syntax", strings.Replace(pretty, "5,", "5", 1))
	check(t, new(Decoder), "syntax 1", strings.Replace(pretty, "5,", "5", 1)+"\n"+ping("1"))
}

func TestM5_NewlineDialect(t *testing.T) {
	for in, want := range map[string]bool{ping("1"): false, ping("1") + "\n": true, ping("1") + "\r\n": true} {
		d := new(Decoder)
		check(t, d, "1 2", in, ping("2"))
		if d.Newline() != want {
			t.Errorf("%q: newline %v, want %v", in, d.Newline(), want)
		}
	}
}

func TestM6_OneLine(t *testing.T) {
	p := []byte(strings.ReplaceAll(pretty, `"ping"`, `"a\nb\r"`))
	n := len(p)
	OneLine(p)
	if bytes.ContainsAny(p, "\r\n") || len(p) != n {
		t.Errorf("%q", p)
	}
	m, err := Parse(p)
	if err != nil || string(m.Method) != "a\nb\r" || string(m.IDBytes()) != "5" {
		t.Errorf("%q: %v", p, err)
	}
}

// A message made of broken lines is not answered line by line without end.
func TestFaultsAreBounded(t *testing.T) {
	got, err := feed(new(Decoder), strings.Repeat("{x\n", 100_000)+ping("1"))
	if want := strings.Repeat("syntax ", faultsMax) + "1"; err != nil || got != want {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
}

func TestYieldErrorStops(t *testing.T) {
	stop := errors.New("stop")
	for _, f := range []Framing{PerMessage, Stream} {
		n := 0
		err := (&Decoder{Framing: f}).Feed(time.Time{}, []byte("1\n2\n3\n"), func(*Message, error) error { n++; return stop })
		if err != stop || n != 1 {
			t.Errorf("%v: %v after %d", f, err, n)
		}
	}
}

// Cutting a stream elsewhere changes nothing.
func FuzzStreamCuts(f *testing.F) {
	f.Add([]byte(ping("1")+"\n"+ping("2")+"\n{x\n\n"), uint(7))
	f.Fuzz(func(t *testing.T, p []byte, cut uint) {
		run := func(parts ...[]byte) string {
			var s []string
			for _, p := range parts {
				s = append(s, string(p))
			}
			out, err := feed(&Decoder{Framing: Stream, SizeMax: 1 << 10}, s...)
			return fmt.Sprint(out, err)
		}
		at := int(cut % uint(len(p)+1))
		if a, b := run(p), run(p[:at], p[at:]); a != b {
			t.Fatalf("whole: %s\ncut at %d: %s", a, at, b)
		}
	})
}

// The message decoder never panics, and what it yields is inside its input.
func FuzzMessage(f *testing.F) {
	f.Add([]byte(pretty + "\n" + ping("1") + "\n{broken\n[1]"))
	f.Fuzz(func(t *testing.T, p []byte) {
		total := 0
		_ = new(Decoder).Feed(time.Time{}, p, func(m *Message, err error) error {
			if err == nil {
				total += len(m.Raw)
			}
			return nil
		})
		if total > len(p) {
			t.Fatalf("%d bytes of messages in %d bytes", total, len(p))
		}
	})
}
