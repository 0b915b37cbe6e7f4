package acip

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/weft-ws/weft/ws"
)

// A Conn carries packets. WritePacket is called by one goroutine at a time, and
// so is ReadChunk; Close and the others by any.
type Conn interface {
	Transport() Transport
	// ReadChunk returns the next bytes of the stream, cut anywhere, valid until
	// the next call.
	ReadChunk() ([]byte, error)
	// WritePacket sends one whole packet.
	WritePacket(p []byte) error
	// Fragment says that the peer reassembles fragments of any number, so that
	// long packets need not travel in one frame.
	Fragment()
	// Close ends the connection, with a closing handshake where there is one.
	Close(code ws.CloseCode, reason string) error
	// Abort ends it at once.
	Abort() error
	// Fragments is how many packets left in more than one frame; 0 on TCP.
	Fragments() uint64
	RemoteAddr() net.Addr
}

const (
	// KeepAlive and PongTimeout find a dead peer on a WebSocket within ten
	// seconds. Any frame proves that it lives: browsers answer pings but never
	// send an ACIP one.
	KeepAlive   = 5 * time.Second
	PongTimeout = 5 * time.Second
	// fragmentSize is the payload of a fragment between weft peers; with the
	// longest frame header it makes 16 KiB.
	fragmentSize = 16<<10 - 14
	// writeTimeout is how long a TCP peer may take no byte.
	writeTimeout = 30 * time.Second
	// tcpChunk is the most that one read from a TCP connection takes.
	tcpChunk = 64 << 10
)

// WebSocketConfig returns the configuration of the WebSocket below a session:
//
//   - whole packets in one frame, since the C receiver has room for 64
//     fragments and silently drops more;
//   - messages of up to 5 MiB, and no deadline for one, however slowly it comes:
//     a peer that is alive answers pings, and one that does not is dropped;
//   - no compression, since ciphertext does not compress.
func WebSocketConfig() ws.Config {
	return ws.Config{
		FragmentSize:   -1,
		MaxMessageSize: PacketMax + HeaderSize,
		MessageTimeout: -1,
		KeepAlive:      KeepAlive,
		PongTimeout:    PongTimeout,
		ControlRate:    100,
		CloseTimeout:   time.Second,
	}
}

type wsConn struct {
	c        *ws.Conn
	buf      []byte
	fragment bool
	on       chan struct{} // of capacity 1: switch fragmentation on
}

// OnWebSocket returns a Conn on a WebSocket whose opening handshake is done.
// Its configuration should be WebSocketConfig.
func OnWebSocket(c *ws.Conn) Conn { return &wsConn{c: c, on: make(chan struct{}, 1)} }

func (w *wsConn) Transport() Transport { return WebSocket }

func (w *wsConn) ReadChunk() ([]byte, error) {
	typ, b, err := w.c.AppendMessage(context.Background(), w.buf[:0])
	if err != nil {
		return nil, err
	}
	w.buf = b
	if typ != ws.Binary {
		return nil, &Violation{Rule: RuleValue, Code: CodeProtocol, Detail: "a text message; packets travel in binary ones"}
	}
	return b, nil
}

func (w *wsConn) WritePacket(p []byte) error {
	if !w.fragment {
		select {
		case <-w.on:
			w.fragment = true
		default:
		}
	}
	if !w.fragment || len(p) <= fragmentSize {
		return w.c.WriteMessage(context.Background(), ws.Binary, p)
	}
	m, err := w.c.NextWriter(context.Background(), ws.Binary)
	if err != nil {
		return err
	}
	for len(p) > fragmentSize {
		if _, err = m.Write(p[:fragmentSize]); err == nil {
			err = m.Flush()
		}
		if err != nil {
			return errors.Join(err, m.Close())
		}
		p = p[fragmentSize:]
	}
	_, err = m.Write(p)
	return errors.Join(err, m.Close())
}

func (w *wsConn) Fragment() {
	select {
	case w.on <- struct{}{}:
	default:
	}
}

func (w *wsConn) Close(code ws.CloseCode, reason string) error {
	return w.c.Close(code, cut(reason, 120))
}

func (w *wsConn) Abort() error { return w.c.CloseNow() }

func (w *wsConn) Fragments() uint64 { return w.c.Stats().Sent.Fragmented }

func (w *wsConn) RemoteAddr() net.Addr { return w.c.RemoteAddr() }

type tcpConn struct {
	c   net.Conn
	buf []byte
}

// OnTCP returns a Conn on a stream.
func OnTCP(c net.Conn) Conn {
	if t, ok := c.(*net.TCPConn); ok {
		// As the C programs do. An error means a connection that is gone, which
		// the first read will say.
		_ = t.SetNoDelay(true)
		_ = t.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 60 * time.Second, Interval: 10 * time.Second, Count: 8})
	}
	return &tcpConn{c: c, buf: make([]byte, tcpChunk)}
}

func (t *tcpConn) Transport() Transport { return TCP }

func (t *tcpConn) ReadChunk() ([]byte, error) {
	n, err := t.c.Read(t.buf)
	if n > 0 {
		return t.buf[:n], nil
	}
	return nil, err
}

func (t *tcpConn) WritePacket(p []byte) error {
	for len(p) > 0 {
		n := min(len(p), tcpChunk)
		if err := t.c.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
			return err
		}
		if _, err := t.c.Write(p[:n]); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

func (t *tcpConn) Fragment() {}

// Close ends our half first and reads what still comes for a moment: a reset
// would take the last packet, which says why, out of the peer's hands.
func (t *tcpConn) Close(ws.CloseCode, string) error {
	if h, ok := t.c.(interface{ CloseWrite() error }); ok && h.CloseWrite() == nil {
		_ = t.c.SetReadDeadline(time.Now().Add(lingerTimeout))
		var scrap [4096]byte
		for left := lingerMax; left > 0; {
			n, err := t.c.Read(scrap[:])
			if err != nil {
				break
			}
			left -= n
		}
	}
	return t.c.Close()
}

const (
	lingerTimeout = 500 * time.Millisecond
	lingerMax     = 16 << 20
)

func (t *tcpConn) Abort() error { return t.c.Close() }

func (t *tcpConn) Fragments() uint64 { return 0 }

func (t *tcpConn) RemoteAddr() net.Addr { return t.c.RemoteAddr() }
