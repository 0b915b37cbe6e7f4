package ws

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"syscall"
	"testing"

	"github.com/weft-ws/weft/internal/wire"
)

// A program may end as soon as a call has told it that the connection is over.
// So the Close is with the system by then, if the socket takes it.
func TestIntegrationCloseLeavesBeforeTheError(t *testing.T) {
	for _, tc := range []struct {
		name, frame string
		code        CloseCode
	}{
		{"violation", `PING fin=0 "x"`, CloseProtocolError},
		{"limit", `BINARY length=1001`, CloseMessageTooBig},
		{"answer", `CLOSE code=4321 "bye"`, 4321},
	} {
		t.Run(tc.name, func(t *testing.T) {
			eachRole(t, func(t *testing.T, role Role) {
				var mu sync.Mutex
				var sent []byte
				cfg := Config{MaxMessageSize: 1000, Trace: &Trace{Bytes: func(dir Direction, b []byte) {
					mu.Lock()
					defer mu.Unlock()
					if dir == Out {
						sent = append(sent, b...)
					}
				}}}
				c, p := tcpPeer(t, role, cfg, 0, brokenOff...)
				p.Send(tc.frame)
				_, _, err := c.ReadMessage(background)
				mu.Lock()
				got := bytes.Clone(sent)
				mu.Unlock()
				if !errors.As(err, new(*CloseError)) {
					t.Fatal(err)
				}
				h, n := wire.ParseHeader(got)
				if n == 0 || h.Opcode != wire.Close || len(got) != n+int(h.Length) {
					t.Fatalf("when the read returned, %x was on the wire, want a Close", got)
				}
				body := got[n:]
				wire.Mask(h.Key, body)
				if code := CloseCode(body[0])<<8 | CloseCode(body[1]); code != tc.code {
					t.Errorf("Close with %d, want %d", code, tc.code)
				}
				p.WantClose(tc.code, "")
			})
		})
	}
}

// A socket that takes nothing does not hold up the reader, and the Close leaves
// when it takes something again.
func TestIntegrationCloseOnAFullSocket(t *testing.T) {
	peer, ours := tcpPair(t, 16<<10)
	defer peer.Close()
	c := NewConn(ours, RoleServer, nil)
	rc, err := ours.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	filled := 0
	for full := false; !full; {
		if err := rc.Write(func(fd uintptr) bool {
			n, err := syscall.Write(int(fd), make([]byte, 1<<10))
			filled += max(n, 0)
			full = err != nil
			return true
		}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := peer.Write([]byte("\x81\x00")); err != nil { // not masked: FR-01
		t.Fatal(err)
	}
	var v *ProtocolError
	if _, _, err := c.ReadMessage(background); !errors.As(err, &v) || v.Rule.ID != "FR-01" {
		t.Fatal(err)
	}
	got, err := io.ReadAll(peer)
	if err != nil {
		t.Fatal(err)
	}
	if got = got[min(filled, len(got)):]; len(got) < 4 || got[0] != 0x88 || len(got) != 2+int(got[1]) {
		t.Errorf("behind what filled the socket came %x, want one Close", got)
	}
	peer.Close()
	<-c.Done()
}
