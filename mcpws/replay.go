package mcpws

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/weft-ws/weft/ws"
)

// Resuming a session, docs/mcp-over-websocket.md section 8.
const (
	// ResumeOffer is the subprotocol that a client offers beside "mcp" to get
	// a session that can be resumed. It is never selected.
	ResumeOffer = "mcp.resume"
	// SessionMethod is the notification with which such a session begins.
	SessionMethod = "notifications/weft/session"
)

// A SessionNote is what the server tells in a SessionMethod notification.
type SessionNote struct {
	Session  string `json:"session"`
	Resume   string `json:"resume"`   // single-use token for the next connection
	Received uint64 `json:"received"` // messages of this session that the server has from the client
	Grace    int    `json:"grace"`    // seconds that the session outlives a lost connection
}

// ResumeNew is the subprotocol that a client offers to begin a session that it
// can resume with a secret of its own, even if the connection is lost before
// the server's first message arrives. The secret has at least 22 characters
// of base64url: 128 bits.
func ResumeNew(secret string) string { return ResumeOffer + ".new." + secret }

// ResumeWith is the subprotocol that a client offers to resume a session of
// which it has received so many messages.
func ResumeWith(token string, received uint64) string {
	return ResumeOffer + "." + token + "." + strconv.FormatUint(received, 10)
}

// A ResumeRequest is what a client offers about resumption.
type ResumeRequest struct {
	Wanted   bool   // there was an offer
	Secret   string // of a new session, "" if the client chose none
	Token    string // of the session to resume, "" for a new one
	Received uint64 // messages of it that the client has
}

const secretLenMin = 22

// ParseResume finds an offer of [ResumeOffer], [ResumeNew] or [ResumeWith].
func ParseResume(offered []string) ResumeRequest {
	var r ResumeRequest
	for _, p := range offered {
		rest, ok := strings.CutPrefix(p, ResumeOffer)
		if !ok || rest != "" && rest[0] != '.' {
			continue
		}
		if secret, ok := strings.CutPrefix(rest, ".new."); ok {
			if r.Wanted = true; len(secret) >= secretLenMin {
				r.Secret = secret
			}
			continue
		}
		if rest == "" {
			r.Wanted = true
			continue
		}
		i := strings.LastIndexByte(rest, '.')
		if n, err := strconv.ParseUint(rest[i+1:], 10, 64); err == nil && i > 1 {
			return ResumeRequest{Wanted: true, Token: rest[1:i], Received: n}
		}
	}
	return r
}

// A Replay sends the messages of one direction of a session, over one
// connection after the other, and keeps each until the peer is known to have
// it: every message arrives exactly once, in order, whenever connections are
// cut. The peer's pong to a ping that was sent after a message proves that the
// message arrived, so peers need not acknowledge anything. All methods may be
// called from any goroutine.
type Replay struct {
	max int

	mu     sync.Mutex
	base   uint64   // messages that the peer has for certain
	list   [][]byte // the messages after these
	bytes  int      // of list
	next   int      // index in list of the first not yet written to conn
	tried  uint64   // messages that were written to some connection, or begun
	conn   *ws.Conn // nil: none at present
	gen    int      // of conn
	busy   bool     // a pump runs for gen
	asking bool     // a ping is under way
	closed bool
	room   chan struct{} // closed when list shrinks; nil: nobody waits
	quiet  chan struct{} // closed when the pump stops; nil: nobody waits
}

// ackBytes and ackMessages are how much may be unconfirmed before a ping asks.
const (
	ackBytes    = 64 << 10
	ackMessages = 64
)

// NewReplay returns a Replay that keeps about max bytes; a single message may
// be larger. It begins without a connection: see [Replay.Attach].
func NewReplay(max int) *Replay { return &Replay{max: max} }

var (
	errReplayClosed = errors.New("the session has ended")
	errReplayFull   = errors.New("too much waits to be sent already")
)

// Send queues a copy of a message, which must be UTF-8. While more than the
// limit waits for the peer, wait says whether Send waits too or returns false
// at once; it returns false as well when the Replay is closed.
func (r *Replay) Send(msg []byte, wait bool) bool {
	return r.send(context.Background(), msg, wait) == nil
}

// send is Send with an end to its patience. The message was queued if and only
// if the error is nil.
func (r *Replay) send(ctx context.Context, msg []byte, wait bool) error {
	msg = bytes.Clone(msg)
	r.mu.Lock()
	for !r.closed && len(r.list) > 0 && r.bytes+len(msg) > r.max {
		if !wait {
			r.mu.Unlock()
			return errReplayFull
		}
		r.askLocked()
		if r.room == nil {
			r.room = make(chan struct{})
		}
		room := r.room
		r.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
		r.mu.Lock()
	}
	defer r.mu.Unlock()
	if r.closed {
		return errReplayClosed
	}
	r.list = append(r.list, msg)
	r.bytes += len(msg)
	r.pumpLocked()
	return nil
}

// flush waits until everything has been written to the present connection, or
// there is none, or ctx ends.
func (r *Replay) flush(ctx context.Context) {
	for {
		r.mu.Lock()
		if !r.busy || r.closed || r.conn == nil {
			r.mu.Unlock()
			return
		}
		if r.quiet == nil {
			r.quiet = make(chan struct{})
		}
		quiet := r.quiet
		r.mu.Unlock()
		select {
		case <-quiet:
		case <-ctx.Done():
			return
		}
	}
}

// Can reports whether a peer that has received so many messages can go on.
func (r *Replay) Can(received uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.closed && received >= r.base && received <= r.base+uint64(len(r.list))
}

// Attach continues on c with the message after the received ones. It fails if
// the peer cannot have received that many, or if they are no longer kept.
func (r *Replay) Attach(c *ws.Conn, received uint64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.closed:
		return errReplayClosed
	case received < r.base || received > r.base+uint64(len(r.list)):
		return fmt.Errorf("the peer says it has %d messages, kept are those from %d to %d", received, r.base, r.base+uint64(len(r.list)))
	}
	r.dropLocked(received)
	r.nextGenLocked()
	r.conn, r.next = c, 0
	r.pumpLocked()
	return nil
}

// Detach stops sending on the present connection.
func (r *Replay) Detach() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conn = nil
	r.nextGenLocked()
}

// untried returns the messages that no connection has seen. There must be none
// at present.
func (r *Replay) untried() [][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.list[max(r.tried, r.base)-r.base:]
}

// Close forgets everything and wakes whoever waits.
func (r *Replay) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed, r.conn, r.list, r.bytes = true, nil, nil, 0
	r.nextGenLocked()
	r.wakeLocked()
}

// nextGenLocked disowns the pump and the ping of the present connection.
func (r *Replay) nextGenLocked() {
	r.gen++
	r.busy, r.asking = false, false
	r.quietLocked()
}

func (r *Replay) quietLocked() {
	if r.quiet != nil {
		close(r.quiet)
		r.quiet = nil
	}
}

func (r *Replay) wakeLocked() {
	if r.room != nil {
		close(r.room)
		r.room = nil
	}
}

// dropLocked forgets what the peer has.
func (r *Replay) dropLocked(received uint64) {
	for r.base < received && len(r.list) > 0 {
		r.bytes -= len(r.list[0])
		r.list[0] = nil
		r.list = r.list[1:]
		r.base++
		r.next = max(r.next-1, 0)
	}
	r.wakeLocked()
}

func (r *Replay) pumpLocked() {
	if r.conn == nil || r.busy || r.next >= len(r.list) {
		return
	}
	r.busy = true
	go r.pump(r.conn, r.gen)
}

// pump writes what waits, until nothing does or the connection is another.
func (r *Replay) pump(c *ws.Conn, gen int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.gen == gen && r.next < len(r.list) {
		msg := r.list[r.next]
		r.next++
		r.tried = max(r.tried, r.base+uint64(r.next))
		r.mu.Unlock()
		err := c.WriteMessage(context.Background(), ws.Text, msg)
		r.mu.Lock()
		if err != nil {
			break
		}
		if r.gen == gen && (r.bytes > min(ackBytes, r.max/2) || len(r.list) > ackMessages) {
			r.askLocked()
		}
	}
	if r.gen == gen {
		r.busy = false
		r.quietLocked()
	}
}

// askLocked pings; the pong confirms everything written before the ping.
func (r *Replay) askLocked() {
	if r.conn == nil || r.asking || r.next == 0 {
		return
	}
	r.asking = true
	c, gen, sent := r.conn, r.gen, r.base+uint64(r.next)
	if r.busy {
		sent-- // the last one may still be on its way into the connection
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
		defer cancel()
		_, err := c.Ping(ctx)
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.gen != gen {
			return
		}
		r.asking = false
		if err != nil {
			return
		}
		r.dropLocked(sent)
		if r.bytes > min(ackBytes, r.max/2) || len(r.list) > ackMessages {
			r.askLocked()
		}
	}()
}

// askTimeout is how long a pong may take. A connection without pongs is ended
// by its keep-alive.
const askTimeout = 30 * time.Second

// Idempotent reports whether a request may be sent again without harm when it
// is not known whether the first attempt was carried out.
func Idempotent(method string) bool {
	switch method {
	case "ping", "server/discover", "tools/list", "resources/list", "resources/templates/list", "resources/read",
		"prompts/list", "prompts/get", "completion/complete", "logging/setLevel",
		"resources/subscribe", "resources/unsubscribe", "subscriptions/listen", "initialize":
		return true
	}
	return false
}

// Parse reads the params of a SessionMethod notification.
func (n *SessionNote) Parse(params []byte) error { return json.Unmarshal(params, n) }
