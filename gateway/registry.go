package gateway

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/weft-ws/weft/ws"
)

// A Session is one client's logical connection: it may outlive the WebSocket
// connection that began it.
type Session interface {
	Info() SessionInfo
	// Send delivers a message to the client of the session.
	Send(msg []byte) error
	// End closes the connection with a code and a reason and ends the session.
	End(code ws.CloseCode, reason string)
}

// SessionInfo describes a session.
type SessionInfo struct {
	ID        string    `json:"id"`
	Route     string    `json:"route"`
	Principal string    `json:"principal,omitempty"`
	Remote    string    `json:"remote"`
	Opened    time.Time `json:"opened"`
	Attached  bool      `json:"attached"` // has a connection now
	Version   string    `json:"version,omitempty"`
	Calls     []Call    `json:"calls,omitempty"`
	PingRTT   float64   `json:"ping_rtt_seconds,omitempty"`
	Received  uint64    `json:"received"` // messages from the client
	Sent      uint64    `json:"sent"`     // messages to the client
}

// A Call is a request in flight.
type Call struct {
	ID      string  `json:"id"`
	Method  string  `json:"method"`
	Seconds float64 `json:"seconds"` // since it came
}

// ServerInfo describes a server.
type ServerInfo struct {
	Name      string   `json:"name"`
	Backend   string   `json:"backend"`
	Isolation string   `json:"isolation"`
	Running   []Server `json:"running"`
	Warm      int      `json:"warm,omitempty"`
}

// A Server is one running instance.
type Server struct {
	State    string `json:"state"`
	PID      int    `json:"pid,omitempty"`
	Session  string `json:"session,omitempty"` // whose it is, unless shared
	Clients  int    `json:"clients"`
	Calls    int    `json:"calls"`
	Failures int    `json:"failures,omitempty"` // in a row
	Reason   string `json:"reason,omitempty"`   // why it is not up
}

// A Registry knows the sessions and the servers. Messages are routed by
// session id. All methods may be called from any goroutine.
type Registry interface {
	Join(Session) error
	Leave(id string)
	Session(id string) (Session, bool)
	Sessions() []SessionInfo
	// Send routes a message to the client of a session.
	Send(id string, msg []byte) error

	AddServer(Route) error
	RemoveServer(name string) error
	Servers() []ServerInfo
}

// ErrNoSession and ErrNoServer say that nothing has this id or name.
var (
	ErrNoSession = errors.New("no such session")
	ErrNoServer  = errors.New("no such server")
)

// memory is the Registry of one process. Servers are kept by the gateway.
type memory struct {
	g        *Gateway
	mu       sync.RWMutex
	sessions map[string]Session
}

func (r *memory) Join(s Session) error {
	id := s.Info().ID
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.sessions[id]; ok {
		return fmt.Errorf("there is a session %s already", id)
	}
	r.sessions[id] = s
	return nil
}

func (r *memory) Leave(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.sessions, id)
}

func (r *memory) Session(id string) (Session, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	s, ok := r.sessions[id]
	return s, ok
}

func (r *memory) all() []Session {
	r.mu.RLock()
	defer r.mu.RUnlock()
	out := make([]Session, 0, len(r.sessions))
	for _, s := range r.sessions {
		out = append(out, s)
	}
	return out
}

// Sessions returns all sessions, the oldest first.
func (r *memory) Sessions() []SessionInfo {
	all := r.all()
	out := make([]SessionInfo, 0, len(all))
	for _, s := range all {
		out = append(out, s.Info())
	}
	slices.SortFunc(out, func(a, b SessionInfo) int {
		return cmp.Or(a.Opened.Compare(b.Opened), cmp.Compare(a.ID, b.ID))
	})
	return out
}

func (r *memory) Send(id string, msg []byte) error {
	s, ok := r.Session(id)
	if !ok {
		return ErrNoSession
	}
	return s.Send(msg)
}

func (r *memory) AddServer(route Route) error    { return r.g.addRoute(route) }
func (r *memory) RemoveServer(name string) error { return r.g.removeRoute(name) }
func (r *memory) Servers() []ServerInfo          { return r.g.servers() }
