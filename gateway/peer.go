package gateway

import (
	"context"
	"fmt"
	"net/http"
)

// A Peer is one running MCP server as the gateway sees it: whole JSON values
// in, whole JSON values out. One goroutine reads; writers are serialised by
// the gateway.
type Peer interface {
	// Read returns the next message. It is valid until the next Read. The
	// error is final, except a *[LineTooLongError], after which reading goes
	// on with the next message.
	Read() ([]byte, error)
	// Write sends one message, which has no line feed in it. Write may use
	// the capacity behind msg and keeps neither. An error is final.
	Write(msg []byte) error
	// Close ends the server in an orderly way and returns when it is gone.
	// It unblocks Read and Write and may be called more than once.
	Close() error
}

// A Backend starts peers.
type Backend interface {
	// Open starts a server, or a connection to one. The context bounds the
	// start, not the life of the peer. The caller describes the first client
	// that wants it; for shared peers only the route is filled in.
	Open(ctx context.Context, caller Caller) (Peer, error)
	// String describes the backend in one line for logs and listings. It
	// holds no secrets.
	String() string
}

// A Caller is what a backend may know about the client.
type Caller struct {
	Route     string
	Session   string
	Principal string      // who authenticated; "" when nobody had to
	Header    http.Header // of the upgrade request, without credentials
}

// A LineTooLongError is a message from a server over the limit. The message is
// lost; ID is the id that it answers, if it could be found.
type LineTooLongError struct {
	Max int
	ID  []byte
}

// Error names the limit.
func (e *LineTooLongError) Error() string {
	return fmt.Sprintf("the server sent a message of more than %d bytes", e.Max)
}
