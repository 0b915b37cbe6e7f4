package decode

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/weft-ws/weft/acip"
)

const captures = "../../acip/testdata/captures/"

func key(t *testing.T, s string) acip.Key {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return acip.Key(b)
}

func read(t *testing.T, name string, keys ...acip.Key) (list []Entry) {
	t.Helper()
	f, err := os.Open(captures + name + ".pcap")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for e, err := range Read(f, keys) {
		if err != nil {
			t.Fatal(err)
		}
		e.Packet.Payload = bytes.Clone(e.Packet.Payload)
		list = append(list, e)
	}
	return list
}

// listed is a line of a listing that another decoder made.
type listed struct {
	server bool
	name   string
	sealed bool
	length int
	count  uint64
	head   string
}

// listing reads the entries of a packets.txt file.
func listing(t *testing.T, name string) (key string, list []listed) {
	t.Helper()
	f, err := os.Open(captures + name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		line := sc.Text()
		if _, rest, ok := strings.Cut(line, "keys ['"); ok {
			key = strings.TrimSuffix(rest, "']")
			continue
		}
		fields := strings.Fields(line)
		if fields[3] == "FIN" || fields[3] == "RST" {
			continue
		}
		l := listed{server: fields[1] == "S>C"}
		l.name, l.sealed = strings.CutPrefix(fields[3], "E:")
		fmt.Sscanf(fields[4], "len=%d", &l.length)
		if l.sealed {
			fmt.Sscanf(fields[6], "ctr=%d", &l.count)
		}
		if last := fields[len(fields)-1]; !strings.Contains(line, "b'") && len(last) >= 8 && !strings.Contains(last, "=") {
			l.head = last
		}
		list = append(list, l)
	}
	return key, list
}

// short maps the names of the listings to those of the C headers.
var short = map[string]string{
	"CRYPTO_PARAMS": "CRYPTO_PARAMETERS", "CRYPTO_CAPS": "CRYPTO_CAPABILITIES", "KEX_INIT": "CRYPTO_KEY_EXCHANGE_INIT",
	"KEX_RESP": "CRYPTO_KEY_EXCHANGE_RESP", "HANDSHAKE_COMPLETE": "CRYPTO_HANDSHAKE_COMPLETE", "CLIENT_CAPS": "CLIENT_CAPABILITIES",
	"AUTH_CHALLENGE": "CRYPTO_AUTH_CHALLENGE", "AUTH_RESPONSE": "CRYPTO_AUTH_RESPONSE", "SERVER_AUTH_RESP": "CRYPTO_SERVER_AUTH_RESP",
}

// Sessions of the C programs decode and decrypt completely, and packet for
// packet as an independent decoder saw them.
func TestCapturedSessions(t *testing.T) {
	for _, c := range []struct{ pcap, listing string }{
		{"ws-encrypted-snapshot", "ws-encrypted-snapshot.packets.txt"},
		{"tcp-encrypted-start", "tcp-encrypted.packets.txt"},
		{"tcp-password-start", "tcp-password.packets.txt"},
	} {
		t.Run(c.pcap, func(t *testing.T) {
			hexKey, want := listing(t, c.listing)
			got := read(t, c.pcap, acip.Key{1}, key(t, hexKey)) // one of two keys fits
			if len(got) < 18 {
				t.Fatalf("%d packets; the recording has more", len(got))
			}
			// The listing is sorted by time over both directions; within a
			// direction the order is certain.
			for _, server := range []bool{false, true} {
				var g []Entry
				var w []listed
				for _, e := range got {
					if e.FromServer == server && e.End == "" {
						g = append(g, e)
					}
				}
				for _, l := range want {
					if l.server == server {
						w = append(w, l)
					}
				}
				for i, e := range g {
					if e.Err != nil {
						t.Fatal(e.Err)
					}
					name := w[i].name
					if long := short[name]; long != "" {
						name = long
					}
					if e.Packet.Type.String() != name || e.Sealed != w[i].sealed || e.Counter != w[i].count || len(e.Packet.Payload) != w[i].length {
						t.Fatalf("packet %d from server=%v: %s sealed=%v counter=%d length=%d; listed %+v",
							i, server, e.Packet.Type, e.Sealed, e.Counter, len(e.Packet.Payload), w[i])
					}
					if h := hex.EncodeToString(e.Packet.Payload); !strings.HasPrefix(h, w[i].head) {
						t.Fatalf("packet %d: payload %.80s; listed %.80s", i, h, w[i].head)
					}
				}
			}
		})
	}
}

func TestWithoutKeyPacketsStaySealed(t *testing.T) {
	n := 0
	for _, e := range read(t, "tcp-encrypted-start", acip.Key{9}) {
		if e.Packet.Type == acip.TypeEncrypted {
			n++
			if e.Sealed || e.Counter == 0 {
				t.Fatalf("%+v", e)
			}
		}
	}
	if n != 13 {
		t.Fatalf("%d sealed packets, want 13", n)
	}
}

func TestEndsAndPlainSessions(t *testing.T) {
	for name, want := range map[string]string{
		"tcp-serverkey": "CRYPTO_CLIENT_HELLO RST",
		"tcp-clientkey": "CRYPTO_AUTH_FAILED FIN FIN",
		"tcp-noenc-raw": "ERROR_MESSAGE FIN FIN",
	} {
		var words []string
		for _, e := range read(t, name) {
			if e.End != "" {
				words = append(words, e.End)
			} else {
				words = append(words, e.Packet.Type.String())
			}
		}
		if got := strings.Join(words, " "); !strings.HasSuffix(got, want) {
			t.Errorf("%s ends with %s, want %s", name, got, want)
		}
	}
}

func TestNotARecording(t *testing.T) {
	for _, in := range []string{"", "abc", "this is text, not pcap", "\x0a\x0d\x0d\x0a broken"} {
		n := 0
		for _, err := range Read(strings.NewReader(in), nil) {
			if err == nil {
				t.Fatalf("%q: an entry came out", in)
			}
			n++
		}
		if n != 1 {
			t.Fatalf("%q: %d errors, want 1", in, n)
		}
	}
}

// Segments that come late, twice or overlapping are put in order.
func TestOrder(t *testing.T) {
	const text = "0123456789abcdef"
	h := &half{began: true, next: 1000}
	var got []byte
	for _, s := range [][2]int{{4, 8}, {0, 3}, {0, 4}, {2, 6}, {12, 16}, {10, 14}, {8, 10}, {0, 16}} {
		for p := range h.order(uint32(1000+s[0]), []byte(text[s[0]:s[1]])) {
			got = append(got, p...)
		}
	}
	if string(got) != text || h.held != 0 {
		t.Fatalf("got %q, %d bytes held", got, h.held)
	}
}

func FuzzRead(f *testing.F) {
	for _, n := range []string{"tcp-clientkey", "tcp-serverkey"} {
		b, err := os.ReadFile(captures + n + ".pcap")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		for e := range Read(bytes.NewReader(b), []acip.Key{{1}}) {
			if n++; n > len(b)+1 {
				t.Fatal("more entries than bytes")
			}
			if e.Err != nil && e.End != "" {
				t.Fatal("an end with an error")
			}
		}
	})
}
