package ws

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-ws/weft/internal/wire"
)

// A silent peer is pinged every KeepAlive, however long its pongs may take: the
// way to it is kept open, and PongTimeout does not make the pauses longer.
func TestTimeoutsKeepAliveInterval(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		cfg := Config{KeepAlive: 30 * time.Second, PongTimeout: time.Minute}
		c, p, _ := setup{client: cfg, server: cfg}.scripted(t, role)
		read := reading(background, c)
		p.Patience = time.Hour
		last := time.Now()
		for n := range 20 {
			f := p.Next()
			if since := time.Since(last); f.Opcode != wire.Ping || since != cfg.KeepAlive {
				t.Fatalf("ping %d: %v, %v after the last sign of life", n, f, since)
			}
			p.SendFrame(wire.Pong, true, f.Payload)
			synctest.Wait()
			last = time.Now()
		}
		pending(t, read, "the peer answers")
		for asked := time.Now(); ; {
			if f := p.Next(); f.Opcode == wire.Close {
				if took := time.Since(asked); took != cfg.KeepAlive+cfg.PongTimeout {
					t.Errorf("given up %v after the last pong", took)
				}
				break
			}
		}
		p.Close()
		now(t, read, "the connection is over")
	})
}
