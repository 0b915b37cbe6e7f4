package mcpws

import (
	"context"
	"net/http"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/weft-ws/weft/mcpws/envelope"
	"github.com/weft-ws/weft/ws"
)

// A ClientTransport connects to an MCP server over WebSocket. It implements
// [mcp.Transport]:
//
//	session, err := client.Connect(ctx, &mcpws.ClientTransport{URL: "ws://127.0.0.1:8080/mcp/ws"}, nil)
//
// The server's Close with 1000 or 1001 ends the session like the end of a
// stream; every other end is an error that says why.
type ClientTransport struct {
	URL string // ws or wss

	// Token is sent as a bearer token in the Authorization header.
	Token string

	// Dial shapes the opening handshake and the connection. Subprotocols is
	// set by Connect: "mcp" and nothing else. Nil and zero values mean this
	// package's defaults.
	Dial *ws.DialOptions

	// Reconnect, if not nil, makes the session survive lost connections: see
	// [Link]. Its Token and Dial are those of the transport.
	Reconnect *LinkOptions

	Options Options
}

// Connect dials the server; ctx bounds the dialling. The error is that of
// [ws.Dial]: a *ws.HandshakeError if the server answered with something else
// than 101, 401 for instance.
func (t *ClientTransport) Connect(ctx context.Context) (mcp.Connection, error) {
	if t.Reconnect != nil {
		o := *t.Reconnect
		o.Token, o.Dial, o.Dialect = t.Token, t.Dial, t.Options.Dialect
		l, err := OpenLink(ctx, t.URL, &o)
		if err != nil {
			return nil, err
		}
		// The Link has cut what arrived into messages already.
		whole := t.Options
		whole.Dialect.Framing = envelope.PerMessage
		c := newConn(nil, whole, DefaultMessageMax, nil)
		c.link = l
		return c, nil
	}
	var o ws.DialOptions
	if t.Dial != nil {
		o = *t.Dial
	}
	o.Subprotocols = []string{Subprotocol}
	o.Config = t.Options.Dialect.Config(Defaults(o.Config))
	if t.Token != "" {
		o.Header = o.Header.Clone()
		if o.Header == nil {
			o.Header = http.Header{}
		}
		o.Header.Set("Authorization", "Bearer "+t.Token)
	}
	c, err := ws.Dial(ctx, t.URL, &o)
	if err != nil {
		return nil, err
	}
	return newConn(c, t.Options, int(o.Config.MaxMessageSize), nil), nil
}

// A ServerTransport serves one accepted connection. It implements
// [mcp.Transport]. Most programs want a [Handler] instead.
type ServerTransport struct {
	// Conn is read by the session alone. Its Config is best made with
	// [Defaults] and [Dialect.Config].
	Conn *ws.Conn
	// Extra is what handlers of requests see as Extra: the header of the
	// upgrade request and who sent it. May be nil.
	Extra   *mcp.RequestExtra
	Options Options
}

// Connect returns the connection.
func (t *ServerTransport) Connect(context.Context) (mcp.Connection, error) {
	return newConn(t.Conn, t.Options, DefaultMessageMax, t.Extra), nil
}

var (
	_ mcp.Transport = (*ClientTransport)(nil)
	_ mcp.Transport = (*ServerTransport)(nil)
)
