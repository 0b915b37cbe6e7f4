package mcpws

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/weft-ws/weft/mcpws/envelope"
	"github.com/weft-ws/weft/ws"
)

// unreadMax is how many bytes of answers may wait for a peer that does not
// read before its next requests are left on the wire.
const unreadMax = 1 << 20

// A conn is an SDK connection over a WebSocket connection, either side.
//
// The SDK decodes ids to Go values, which rounds numbers above 2^53 and
// normalises strings. So the ids of the peer's requests are replaced by
// numbers of ours on the way in and put back on the way out.
type conn struct {
	ws      *ws.Conn // nil: link
	link    *Link
	opts    Options
	extra   *mcp.RequestExtra // of every request; server side
	session string
	recv    *Receiver
	queue   []jsonrpc.Message // decoded, not yet read; used by Read only

	mu      sync.Mutex
	nextID  int64
	ids     map[int64]foreign // requests of the peer in flight
	taken   map[string]int64  // their ids as written → ours
	version string            // negotiated by initialize
	initID  int64             // of the initialize in flight, when we answer it
	unread  int               // bytes of messages being written
	room    chan struct{}     // closed when unread falls below the limit
	expiry  *time.Timer       // of the peer's credential; nil: it does not expire
}

// foreign is what a request of the peer said itself.
type foreign struct {
	id, token []byte
}

func newConn(c *ws.Conn, opts Options, sizeMax int, extra *mcp.RequestExtra) *conn {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	mc := &conn{ws: c, opts: opts, extra: extra, session: newID(), ids: map[int64]foreign{}, taken: map[string]int64{}}
	mc.recv = NewReceiver(opts.Dialect, sizeMax, mc.batches, func(msg []byte) error {
		mc.opts.Logger.Info("a message could not be read", "answer", string(msg))
		return mc.write(context.Background(), msg)
	})
	return mc
}

// newID returns 128 random bits in base64url.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// SessionID returns the id of this connection in logs; it is no credential.
func (c *conn) SessionID() string { return c.session }

func (c *conn) batches() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.version == "2025-03-26"
}

// Read returns the next message of the peer. What is no JSON-RPC message is
// answered here: an error of Read would end the session.
func (c *conn) Read(ctx context.Context) (jsonrpc.Message, error) {
	for len(c.queue) == 0 {
		if c.link != nil {
			raw, err := c.link.Read(ctx)
			if err == nil {
				err = c.recv.Take(time.Now(), ws.Text, raw, c.take)
			}
			if err != nil {
				return nil, err
			}
			continue
		}
		if err := c.waitForReader(ctx); err != nil {
			return nil, err
		}
		if err := c.recv.Next(ctx, c.ws, c.take); err != nil {
			return nil, ended(err)
		}
	}
	m := c.queue[0]
	c.queue = c.queue[1:]
	return m, nil
}

// ended turns a normal end of the connection into io.EOF.
func ended(err error) error {
	var ce *ws.CloseError
	if errors.As(err, &ce) && ce.Remote && (ce.Code == ws.CloseNormal || ce.Code == ws.CloseGoingAway || ce.Code == ws.CloseNoStatus) {
		return io.EOF
	}
	return err
}

// waitForReader waits while the peer lets its answers lie.
func (c *conn) waitForReader(ctx context.Context) error {
	for {
		c.mu.Lock()
		if c.unread <= unreadMax {
			c.mu.Unlock()
			return nil
		}
		if c.room == nil {
			c.room = make(chan struct{})
		}
		room := c.room
		c.mu.Unlock()
		select {
		case <-room:
		case <-c.ws.Done():
			return ended(c.ws.Err())
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// take prepares one message for the SDK.
func (c *conn) take(m *envelope.Message) error {
	switch {
	case m.Kind == envelope.Request:
		return c.takeRequest(m)
	case m.Kind == envelope.Error && !m.ID.Present():
		c.opts.Logger.Warn("the peer could not read a message", "error", string(m.Bytes(m.Error)))
		return nil
	case m.Is("notifications/cancelled"):
		c.mu.Lock()
		id, ok := c.taken[string(m.Bytes(m.Cancelled))]
		c.mu.Unlock()
		if !ok {
			return nil // answered already
		}
		return c.decode(envelope.AppendEdited(nil, m, envelope.Edit{At: m.Cancelled, With: strconv.AppendInt(nil, id, 10)}), nil)
	}
	return c.decode(m.Raw, nil)
}

func (c *conn) takeRequest(m *envelope.Message) error {
	f := foreign{id: append([]byte(nil), m.IDBytes()...)}
	if m.Token.Present() && !exact(m.Bytes(m.Token)) {
		f.token = append([]byte(nil), m.Bytes(m.Token)...)
	}
	c.mu.Lock()
	_, dup := c.taken[string(f.id)]
	full := len(c.ids) >= c.opts.callsMax()
	if !dup && !full {
		c.nextID++
		c.ids[c.nextID] = f
		c.taken[string(f.id)] = c.nextID
		if m.Is("initialize") {
			c.initID = c.nextID
		}
	}
	id := c.nextID
	c.mu.Unlock()
	switch {
	case dup:
		return c.recv.fault(envelope.CodeInvalidRequest, f.id, "this id is in flight already; every request needs an id of its own")
	case full:
		return c.recv.send(envelope.AppendError(nil, f.id, envelope.Legacy, envelope.CodeInternal,
			fmt.Sprintf("%d requests are in flight, the limit of one connection; wait for an answer", c.opts.callsMax())))
	}
	num := strconv.AppendInt(nil, id, 10)
	edits := []envelope.Edit{{At: m.ID, With: num}}
	if f.token != nil {
		edits = append(edits, envelope.Edit{At: m.Token, With: num})
	}
	err := c.decode(envelope.AppendEdited(nil, m, edits...), f.id)
	if err != nil {
		c.forget(id)
	}
	return err
}

// decode hands one message to the SDK's codec and queues it.
func (c *conn) decode(raw, id []byte) error {
	m, err := jsonrpc.DecodeMessage(raw)
	if err != nil {
		return c.recv.fault(envelope.CodeInvalidRequest, id, err.Error())
	}
	if req, ok := m.(*jsonrpc.Request); ok && c.extra != nil {
		req.Extra = c.extra
	}
	c.queue = append(c.queue, m)
	return nil
}

// exact reports whether a token survives a trip through float64 and back as
// the same bytes: a string without escapes or a whole number of 15 digits.
func exact(token []byte) bool {
	if token[0] == '"' {
		for _, b := range token {
			if b == '\\' {
				return false
			}
		}
		return true
	}
	if len(token) > 15 || token[0] == '-' {
		return false
	}
	for _, b := range token {
		if b < '0' || b > '9' {
			return false
		}
	}
	return true
}

func (c *conn) forget(id int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.taken, string(c.ids[id].id))
	delete(c.ids, id)
}

// Write sends one message of the SDK.
func (c *conn) Write(ctx context.Context, msg jsonrpc.Message) error {
	raw, err := jsonrpc.EncodeMessage(msg)
	if err != nil {
		return err
	}
	m, err := envelope.Parse(raw)
	if err != nil {
		return err
	}
	var edits [2]envelope.Edit
	c.mu.Lock()
	switch m.Kind {
	case envelope.Result, envelope.Error:
		if id, err := strconv.ParseInt(string(m.IDBytes()), 10, 64); err == nil {
			if f, ok := c.ids[id]; ok {
				edits[0] = envelope.Edit{At: m.ID, With: f.id}
				if string(m.Bytes(m.Subscription)) == string(m.IDBytes()) {
					edits[1] = envelope.Edit{At: m.Subscription, With: f.id}
				}
				delete(c.taken, string(f.id))
				delete(c.ids, id)
				if id == c.initID && m.Version.Present() {
					c.version = m.Text(m.Version)
				}
			}
		}
	case envelope.Notification:
		if f, ok := c.named(m.Bytes(m.Subscription)); ok {
			edits[0] = envelope.Edit{At: m.Subscription, With: f.id}
		}
		if f, ok := c.named(m.Bytes(m.Progress)); ok && f.token != nil {
			edits[1] = envelope.Edit{At: m.Progress, With: f.token}
		}
	}
	c.mu.Unlock()
	if edits[0].At.Present() || edits[1].At.Present() {
		raw = envelope.AppendEdited(make([]byte, 0, len(raw)+64), &m, edits[:]...)
	}
	return c.write(ctx, raw)
}

// named is the request in flight that a number of ours stands for.
func (c *conn) named(num []byte) (foreign, bool) {
	id, err := strconv.ParseInt(string(num), 10, 64)
	if err != nil {
		return foreign{}, false
	}
	f, ok := c.ids[id]
	return f, ok
}

func (c *conn) write(ctx context.Context, raw []byte) error {
	if c.link != nil {
		return c.link.Write(ctx, raw)
	}
	if c.recv.Newline() {
		raw = append(raw, '\n')
	}
	c.mu.Lock()
	c.unread += len(raw)
	c.mu.Unlock()
	err := c.ws.WriteMessage(ctx, ws.Text, raw)
	c.mu.Lock()
	c.unread -= len(raw)
	if c.unread <= unreadMax && c.room != nil {
		close(c.room)
		c.room = nil
	}
	c.mu.Unlock()
	return err
}

// expire closes the connection when the peer's credential is good no longer.
func (c *conn) expire(at time.Time) {
	t := time.AfterFunc(time.Until(at), func() {
		_ = c.ws.Close(ws.ClosePolicyViolation, "the credential has expired; connect again with a new one")
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expiry = t
}

// Close closes the connection with 1000.
func (c *conn) Close() error {
	c.mu.Lock()
	if c.expiry != nil {
		c.expiry.Stop()
	}
	c.mu.Unlock()
	if c.link != nil {
		return c.link.Close()
	}
	err := c.ws.Close(ws.CloseNormal, "")
	if c.ws.Err() != nil {
		return nil // it had ended before
	}
	return err
}
