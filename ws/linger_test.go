package ws

import (
	"io"
	"net"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-ws/weft/internal/wire"
	"github.com/weft-ws/weft/internal/wstest"
)

// afterClose are the rules that a peer breaks when it goes on after its Close.
var afterClose = []string{"CL-07", "CL-13"}

// A server that both sent and got a Close ends its direction of TCP and then
// waits for the client's end: a client that sends on must not get a reset, which
// on some systems destroys the Close that it has not read yet.
func TestEdgeCasesServerWaitsForTheClientsFIN(t *testing.T) {
	for _, cs := range []struct {
		name   string
		ending func(p *wstest.Peer, begun time.Time)
		after  time.Duration
	}{
		{"a FIN", func(p *wstest.Peer, begun time.Time) {
			time.Sleep(farewellTime / 2)
			p.Close()
		}, farewellTime / 2},
		{"late frames", func(p *wstest.Peer, begun time.Time) {
			for range 20 {
				p.Send(`PING "x"`, `BINARY "x"*40000`)
			}
			p.Close()
		}, 0},
		{"nothing", func(*wstest.Peer, time.Time) {}, farewellTime},
	} {
		t.Run(cs.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, p, _ := setup{allow: afterClose}.scripted(t, RoleServer)
				reader := async(func() error { return c.Drain(background) })
				p.Send(`CLOSE code=1000`)
				p.WantClose(CloseNormal, "")
				begun := time.Now()
				p.WantEnd("RFC 6455, 7.1.1: the server ends TCP first")
				cs.ending(p, begun)
				<-c.Done()
				if took := time.Since(begun); took != cs.after {
					t.Errorf("over after %v, want %v", took, cs.after)
				}
				if r := <-reader; r.err != nil {
					t.Error(r.err)
				}
			})
		})
	}
}

// The same on a socket, where the kernel does the resetting.
func TestEdgeCasesNoResetAfterTheClose(t *testing.T) {
	for name, first := range map[string]string{"closed in order": `CLOSE code=1000`, "failed": `0x3`} {
		t.Run(name, func(t *testing.T) {
			nc, ours := tcpPair(t, 16<<10)
			c := NewConn(ours, RoleServer, nil)
			reader := async(func() error { return c.Drain(background) })
			p := wstest.NewPeer(t, nc, RoleClient)
			p.Send(first)
			if f := p.Next(); f.Opcode != wire.Close {
				t.Fatal(f)
			}
			p.WantEnd("the server's FIN")
			// More than the buffers of both ends hold: it fits only if somebody reads.
			if _, err := nc.Write(make([]byte, 256<<10)); err != nil {
				t.Error(err)
			}
			nc.Close()
			<-reader
			<-c.Done()
		})
	}
}

// Peers that closed in order, or broke a rule, and stay cost no buffer each while
// they are waited for.
func TestBuffersLingerHoldsNone(t *testing.T) {
	const conns, each = 200, 16 << 10
	for name, first := range map[string][]byte{
		"closed in order": {0x88, 0x80, 1, 2, 3, 4},
		"failed":          {0x83, 0x80, 1, 2, 3, 4},
	} {
		t.Run(name, func(t *testing.T) {
			var peers []net.Conn
			var all []*Conn
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			for range conns {
				nc, ours := tcpPair(t, 0)
				c := NewConn(ours, RoleServer, &Config{CloseTimeout: -1})
				peers, all = append(peers, nc), append(all, c)
				go c.Drain(background)
				if _, err := nc.Write(first); err != nil {
					t.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, nc); err != nil { // to the FIN
					t.Fatal(err)
				}
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			if got := int64(after.HeapAlloc) - int64(before.HeapAlloc); got > conns*each {
				t.Errorf("%d connections that wait for a FIN hold %d bytes of heap each, want at most %d", conns, got/conns, each)
			}
			for i, nc := range peers {
				nc.Close()
				<-all[i].Done()
			}
		})
	}
}
