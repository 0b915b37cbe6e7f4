package ws

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/weft-ws/weft/internal/wire"
	"github.com/weft-ws/weft/internal/wstest"
)

// All 256 first bytes of a frame, between messages and inside one, with a body
// of two bytes: what each leads to follows from its bits.
func TestOpcodesEveryFirstByte(t *testing.T) {
	for _, inside := range []bool{false, true} {
		for b0 := range 256 {
			fin, rsv, op := b0&0x80 != 0, b0&0x70, wire.Opcode(b0&0x0f)
			want := ""
			switch {
			case rsv&0x40 != 0:
				want = "FR-03"
			case rsv != 0:
				want = "FR-04"
			case op >= 3 && op <= 7:
				want = "FR-05"
			case op >= 11:
				want = "FR-06"
			case op >= 8 && !fin:
				want = "FR-11"
			case op == 0 && !inside:
				want = "MS-01"
			case (op == 1 || op == 2) && inside:
				want = "MS-03"
			}
			for _, role := range []Role{RoleClient, RoleServer} {
				synctest.Test(t, func(t *testing.T) {
					c, p, _ := setup{}.scripted(t, role)
					if inside {
						p.Send(`BINARY fin=0 "begun"`)
					}
					read := reading(background, c)
					frame := p.Frames(`BINARY x:0c41`)[0] // text, and a close code: 3137
					frame[0] = byte(b0)
					p.SendBytes(frame)
					synctest.Wait()
					name := fmt.Sprintf("%#02x, inside %t, %v", b0, inside, role)
					if want != "" {
						var v *ProtocolError
						if r := now(t, read, name); !errors.As(r.err, &v) || v.Rule.ID != want {
							t.Fatalf("%s: %v, want %s", name, r.err, want)
						}
						p.WantClose(CloseProtocolError, name)
						return
					}
					switch op {
					case wire.Ping:
						p.Want(`PONG x:0c41`)
						pending(t, read, name)
					case wire.Close:
						p.WantClose(3137, name)
						wantCloseError(t, now(t, read, name).err, 3137, true)
					case wire.Pong:
						p.WantNothing("a pong asks for nothing")
						pending(t, read, name)
					default:
						if !fin {
							pending(t, read, name)
							break
						}
						r := now(t, read, name)
						wantType, payload := MessageType(op), "\x0cA"
						if inside {
							wantType, payload = Binary, "begun\x0cA"
						}
						if r.err != nil || r.typ != wantType || string(r.p) != payload {
							t.Fatalf("%s: %v %q, %v", name, r.typ, r.p, r.err)
						}
					}
					if op != wire.Close {
						p.WantNothing(name)
						if c.Err() != nil {
							t.Fatalf("%s: %v", name, c.Err())
						}
					}
				})
				if t.Failed() {
					return
				}
			}
		}
	}
}

// The opcodes of what we send follow from what is asked for.
func TestOpcodesOfWhatWeSend(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		size := 26 // eighteen bytes of payload, whichever end we are
		if role == RoleClient {
			size = 24
		}
		cfg := Config{FragmentSize: size}
		c, p, _ := setup{client: cfg, server: cfg}.scripted(t, role)
		go c.Drain(background)
		n := c.fragmentMax()
		for typ, op := range map[MessageType]string{Text: "TEXT", Binary: "BINARY"} {
			mustWrite(t, c, typ, nil)
			p.Want(op)
			mustWrite(t, c, typ, make([]byte, n))
			p.Want(fmt.Sprintf("%s x:00*%d", op, n))
			mustWrite(t, c, typ, make([]byte, 2*n+1))
			p.Want(fmt.Sprintf("%s fin=0 x:00*%d", op, n), fmt.Sprintf("CONT fin=0 x:00*%d", n), `CONT x:00`)
			w, err := c.NextWriter(background, typ)
			if err != nil {
				t.Fatal(err)
			}
			w.Write([]byte("a"))
			w.Flush()
			p.Want(op + ` fin=0 "a"`)
			p.Send(`PING "between"`)
			p.Want(`PONG "between"`)
			w.Write([]byte("b"))
			w.Flush()
			p.Want(`CONT fin=0 "b"`)
			w.Write([]byte("c"))
			w.Close()
			p.Want(`CONT "c"`)
		}
		for range 3 {
			p.SendFrame(wire.Ping, true, nil)
			f := p.Next()
			if f.Masked != (role == RoleClient) {
				t.Errorf("masked %t", f.Masked)
			}
		}
	})
}

// RFC 6455, 5.3: a client masks each frame with a fresh key.
func TestOpcodesMaskingKeysAreFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := map[[4]byte]bool{}
		for range 4 {
			c, p, _ := setup{}.scripted(t, RoleClient)
			for range 256 {
				mustWrite(t, c, Binary, []byte("same"))
				f := p.Next()
				if !f.Masked || seen[f.Key] {
					t.Fatalf("masked %t, key %x, seen before %t", f.Masked, f.Key, seen[f.Key])
				}
				seen[f.Key] = true
			}
		}
	})
}

// A Config is copied on use, its zero value works, and its limits mean what
// they say at their edges.
func TestOpcodesFragmentSizeAtItsEdges(t *testing.T) {
	for _, size := range []int{-1, 1, 18, 19, 20, 125, 126, 127, 130, 131, 135, 65535, 65540, 65545, 70000} {
		bubble(t, func(t *testing.T, role Role) {
			cfg := Config{FragmentSize: size}
			limit := max(size, fragmentSizeMin)
			s := setup{client: cfg, server: cfg, pipe: wstest.PipeOptions{Window: 1 << 20}}
			if size > 0 {
				s.pipe.Tap = fragmentCheck(t, limit)
			}
			c, p, _ := s.scripted(t, role)
			for _, n := range []int{0, 1, 100, 125, 126, 127, 65535, 65536, 70001} {
				msg := pattern(n, 1)
				mustWrite(t, c, Binary, msg)
				frames := p.WantMessage(wire.Binary, msg)
				if size < 0 && len(frames) != 1 {
					t.Errorf("a message of %d bytes was split", n)
				}
				// Messages that fit are never split.
				if size > 0 && len(frames) > 1 && n+c.headerSize(n) <= limit {
					t.Errorf("fragments of %d: a message of %d bytes was split", size, n)
				}
			}
		})
	}
}
