package gateway

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/weft-ws/weft/mcpws"
	"github.com/weft-ws/weft/mcpws/envelope"
	"github.com/weft-ws/weft/ws"
)

// Remote is a backend that is an MCP server on WebSocket itself. A connection
// that is lost is made again like a program that died: with backoff, and with
// the client's initialize repeated.
type Remote struct {
	URL        string
	Header     http.Header // of the upgrade request, credentials included
	MessageMax int64       // bytes of one message from the server; 0: 16 MiB
	Dialect    mcpws.Dialect
}

// String returns the URL without its query and user, which may hold secrets.
func (b *Remote) String() string {
	u, err := url.Parse(b.URL)
	if err != nil {
		return "a WebSocket server"
	}
	u.RawQuery, u.User = "", nil
	return u.String()
}

// Open dials the server.
func (b *Remote) Open(ctx context.Context, _ Caller) (Peer, error) {
	c, err := ws.Dial(ctx, b.URL, &ws.DialOptions{Header: b.Header, Subprotocols: []string{mcpws.Subprotocol},
		Config: b.Dialect.Config(mcpws.Defaults(ws.Config{MaxMessageSize: b.MessageMax}))})
	if err != nil {
		return nil, err
	}
	return newConnPeer(c, b.Dialect, b.MessageMax), nil
}

// A connPeer is a server at the other end of a WebSocket connection.
type connPeer struct {
	c     *ws.Conn
	recv  *mcpws.Receiver
	queue [][]byte
	once  sync.Once
}

func newConnPeer(c *ws.Conn, d mcpws.Dialect, sizeMax int64) *connPeer {
	p := &connPeer{c: c}
	p.recv = mcpws.NewReceiver(d, int(sizeMax), func() bool { return true }, func(msg []byte) error { return p.Write(msg) })
	return p
}

// Read returns the next message.
func (p *connPeer) Read() ([]byte, error) {
	for len(p.queue) == 0 {
		err := p.recv.Next(context.Background(), p.c, func(m *envelope.Message) error {
			p.queue = append(p.queue, bytes.Clone(m.Raw))
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("the connection to the server was lost: %w", err)
		}
	}
	m := p.queue[0]
	p.queue = p.queue[1:]
	return m, nil
}

// Write sends one message.
func (p *connPeer) Write(msg []byte) error {
	if p.recv.Newline() {
		msg = append(msg, '\n')
	}
	return p.c.WriteMessage(context.Background(), ws.Text, msg)
}

// Close closes the connection with 1000.
func (p *connPeer) Close() error {
	p.once.Do(func() {
		done := time.AfterFunc(defaultGrace, func() { _ = p.c.CloseNow() })
		defer done.Stop()
		_ = p.c.Close(ws.CloseNormal, "")
	})
	return nil
}
