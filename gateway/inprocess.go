package gateway

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// InProcess is a backend of servers of the official Go SDK in this process.
type InProcess struct {
	// Name is how the backend is listed.
	Name string
	// Server returns the server for a caller; it may be the same each time.
	// Handlers of its tools see the caller's header and principal as Extra.
	Server func(Caller) *mcp.Server
}

// String returns the name.
func (b *InProcess) String() string { return b.Name + " (in process)" }

// Open connects a session to a server.
func (b *InProcess) Open(_ context.Context, caller Caller) (Peer, error) {
	p := &inPeer{
		in: make(chan jsonrpc.Message), out: make(chan []byte), over: make(chan struct{}),
		extra: &mcp.RequestExtra{Header: caller.Header},
	}
	if caller.Principal != "" {
		p.extra.TokenInfo = &auth.TokenInfo{UserID: caller.Principal}
	}
	session, err := b.Server(caller).Connect(context.Background(), p, nil)
	if err != nil {
		return nil, err
	}
	p.session = session
	return p, nil
}

// An inPeer is both ends of a connection without a wire: a Peer for the
// gateway, and a transport and connection for the SDK. Nothing is buffered, so
// whoever is slow keeps the other waiting.
type inPeer struct {
	in      chan jsonrpc.Message
	out     chan []byte
	over    chan struct{}
	once    sync.Once
	extra   *mcp.RequestExtra
	session *mcp.ServerSession
}

var errInEnded = errors.New("the server ended the session")

func (p *inPeer) end() { p.once.Do(func() { close(p.over) }) }

// Connect is called by the SDK.
func (p *inPeer) Connect(context.Context) (mcp.Connection, error) { return inConn{p}, nil }

// Read returns what the server says.
func (p *inPeer) Read() ([]byte, error) {
	select {
	case b := <-p.out:
		return b, nil
	case <-p.over:
		return nil, errInEnded
	}
}

// Write gives the server a message.
func (p *inPeer) Write(msg []byte) error {
	m, err := jsonrpc.DecodeMessage(msg)
	if err != nil {
		return err
	}
	if req, ok := m.(*jsonrpc.Request); ok {
		req.Extra = p.extra
	}
	select {
	case p.in <- m:
		return nil
	case <-p.over:
		return errInEnded
	}
}

// Close ends the session; handlers in flight are cancelled.
func (p *inPeer) Close() error {
	p.end()
	_ = p.session.Wait()
	return nil
}

// An inConn is the SDK's end.
type inConn struct{ p *inPeer }

func (c inConn) Read(ctx context.Context) (jsonrpc.Message, error) {
	select {
	case m := <-c.p.in:
		return m, nil
	case <-c.p.over:
		return nil, io.EOF
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (c inConn) Write(ctx context.Context, m jsonrpc.Message) error {
	b, err := jsonrpc.EncodeMessage(m)
	if err != nil {
		return err
	}
	select {
	case c.p.out <- b:
		return nil
	case <-c.p.over:
		return mcp.ErrConnectionClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c inConn) Close() error {
	c.p.end()
	return nil
}

func (c inConn) SessionID() string { return "" }
