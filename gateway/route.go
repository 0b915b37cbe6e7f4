package gateway

import (
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/weft-ws/weft/mcpws"
	"github.com/weft-ws/weft/mcpws/envelope"
	"github.com/weft-ws/weft/ws"
)

// An Isolation says which clients have a server in common.
type Isolation uint8

const (
	// PerConnection: a server of its own for each session. The default.
	PerConnection Isolation = iota
	// Pool: like PerConnection, with servers started in advance, because a
	// cold start can take seconds. A server is used by one session only.
	Pool
	// Shared: one server for all clients. Clients that the server could ask
	// something (sampling, elicitation, roots) share other instances than
	// those that it cannot, one for each combination of these; in them the
	// calls of one client at a time are in flight, so that it is known whom
	// the server means.
	Shared
)

// String is the word in configuration files.
func (i Isolation) String() string {
	return [...]string{"connection", "pool", "shared"}[i]
}

// ParseIsolation is the inverse of [Isolation.String].
func ParseIsolation(s string) (Isolation, error) {
	for _, i := range []Isolation{PerConnection, Pool, Shared} {
		if s == i.String() {
			return i, nil
		}
	}
	return 0, fmt.Errorf("isolation %q is none of connection, pool, shared", s)
}

// A Route offers one server under /mcp/NAME.
type Route struct {
	Name      string
	Backend   Backend
	Isolation Isolation
	PoolSize  int // warm servers of a pool; 0: 2

	Dialect mcpws.Dialect

	MessageMax  int64         // bytes of a message from a client; 0: 16 MiB, then close 1009
	RequestMax  int           // bytes of a message to the server; 0: MessageMax; more is answered -32600
	CallsMax    int           // requests of a client in flight; 0: 256
	CallTimeout time.Duration // without answer or progress, then -32603; 0: 10 min; negative: none

	// Allow and Deny are patterns of tool names (path.Match). With Allow only
	// matching tools exist for clients; Deny wins over Allow.
	Allow, Deny []string

	// Principals who may use the route; empty: all.
	Principals []string

	// Fingerprint tells whether a route is the same after a reload. Routes
	// with the same non-empty fingerprint are left as they are.
	Fingerprint string

	single bool // there is one server and never another: Shared without classes
}

const (
	defaultPoolSize    = 2
	defaultCallTimeout = 10 * time.Minute
)

var routeName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)

// reservedNames mean something else under /mcp/.
var reservedNames = []string{"ws", "attach", "ticket"}

func (r *Route) check() error {
	switch {
	case !routeName.MatchString(r.Name):
		return fmt.Errorf("server name %q: use up to 64 letters, digits, dots, dashes and underscores", r.Name)
	case slices.Contains(reservedNames, r.Name):
		return fmt.Errorf("server name %q is taken by the gateway itself; choose another", r.Name)
	case r.Backend == nil:
		return fmt.Errorf("server %q has nothing behind it", r.Name)
	}
	for _, p := range append(append([]string(nil), r.Allow...), r.Deny...) {
		if _, err := path.Match(p, ""); err != nil {
			return fmt.Errorf("server %q: %q is no pattern of tool names", r.Name, p)
		}
	}
	return nil
}

// policy returns what decides which tools exist, nil for all.
func (r *Route) policy() func(string) bool {
	if len(r.Allow) == 0 && len(r.Deny) == 0 {
		return nil
	}
	match := func(patterns []string, name string) bool {
		return slices.ContainsFunc(patterns, func(p string) bool { ok, _ := path.Match(p, name); return ok })
	}
	return func(name string) bool {
		return (len(r.Allow) == 0 || match(r.Allow, name)) && !match(r.Deny, name)
	}
}

// A route is a Route in operation.
type route struct {
	Route
	g      *Gateway
	stats  routeStats
	config ws.Config

	mu     sync.Mutex
	closed bool
	hubs   map[*hub]struct{}
	shared [8]*hub // by what the server may ask the client
	warm   []Peer
	busy   int       // goroutines that close hubs or fill the pool
	idle   sync.Cond // busy has become 0
}

func newRoute(g *Gateway, r Route) *route {
	if r.MessageMax == 0 {
		r.MessageMax = mcpws.DefaultMessageMax
	}
	if r.RequestMax == 0 {
		r.RequestMax = int(r.MessageMax)
	}
	if r.CallsMax == 0 {
		r.CallsMax = defaultCallsMax
	}
	if r.PoolSize == 0 {
		r.PoolSize = defaultPoolSize
	}
	switch {
	case r.CallTimeout == 0:
		r.CallTimeout = defaultCallTimeout
	case r.CallTimeout < 0:
		r.CallTimeout = 0
	}
	rt := &route{Route: r, g: g, hubs: map[*hub]struct{}{}, config: g.opts.Accept.Config}
	rt.idle.L = &rt.mu
	rt.config.MaxMessageSize = r.MessageMax
	if rt.config.WriteTimeout == 0 {
		rt.config.WriteTimeout = writeTimeout
	}
	rt.config = r.Dialect.Config(mcpws.Defaults(rt.config))
	rt.config.SendQueue = -1 // sessions count themselves
	if r.Isolation == Pool {
		rt.mu.Lock()
		rt.fillLocked()
		rt.mu.Unlock()
	}
	return rt
}

// goLocked runs f on a goroutine that close waits for. A WaitGroup would not
// do: sessions end, and so begin to close their hubs, while close waits.
func (rt *route) goLocked(f func()) {
	rt.busy++
	go func() {
		f()
		rt.mu.Lock()
		defer rt.mu.Unlock()
		if rt.busy--; rt.busy == 0 {
			rt.idle.Broadcast()
		}
	}()
}

// wait returns when no such goroutine runs.
func (rt *route) wait() {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	for rt.busy > 0 {
		rt.idle.Wait()
	}
}

func (rt *route) newHub(caller Caller) *hub {
	caller.Route = rt.Name
	h := newHub(rt.Name, rt.Backend, caller)
	h.log = rt.g.log.With("server", rt.Name)
	h.stats = &rt.stats
	h.policy = rt.policy()
	h.limits = hubLimits{calls: rt.CallsMax, messageMax: rt.RequestMax, callTimeout: rt.CallTimeout}
	return h
}

var errRouteClosed = errors.New("the server has been removed from the gateway")

// own returns a started hub with a server of its own for a session.
func (rt *route) own(caller Caller, onBreak func(error)) (*hub, error) {
	h := rt.newHub(caller)
	h.onBreak = onBreak
	rt.mu.Lock()
	defer rt.mu.Unlock()
	if rt.closed {
		return nil, errRouteClosed
	}
	rt.hubs[h] = struct{}{}
	if n := len(rt.warm); n > 0 {
		peer := rt.warm[n-1]
		rt.warm = rt.warm[:n-1]
		h.startWith(peer)
		rt.fillLocked()
	} else {
		h.start()
	}
	return h, nil
}

// disown closes a hub of own in the background.
func (rt *route) disown(h *hub, why error) {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	rt.goLocked(func() {
		h.close(why)
		rt.mu.Lock()
		defer rt.mu.Unlock()
		delete(rt.hubs, h)
	})
}

// fillLocked starts warm servers in the background until there are enough. One
// filler runs at a time per missing server; failures are left to the session
// that would have needed the server.
func (rt *route) fillLocked() {
	rt.goLocked(func() {
		for {
			rt.mu.Lock()
			enough := rt.closed || len(rt.warm) >= rt.PoolSize
			rt.mu.Unlock()
			if enough {
				return
			}
			ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
			peer, err := rt.Backend.Open(ctx, Caller{Route: rt.Name})
			cancel()
			if err != nil {
				rt.g.log.Warn("a server could not be started in advance", "server", rt.Name, "err", err)
				return
			}
			rt.mu.Lock()
			if rt.closed || len(rt.warm) >= rt.PoolSize {
				rt.mu.Unlock()
				_ = peer.Close()
				drainPeer(peer)
				return
			}
			rt.warm = append(rt.warm, peer)
			rt.mu.Unlock()
		}
	})
}

// drainPeer reads a closed peer to its end, which frees what it holds.
func drainPeer(p Peer) {
	for {
		var long *LineTooLongError
		if _, err := p.Read(); err != nil && !errors.As(err, &long) {
			return
		}
	}
}

// What a server may ask of a client, as bits: the class of a shared server.
const (
	asksSampling = 1 << iota
	asksElicitation
	asksRoots
)

// classOf reads the capabilities that a client declares in its initialize.
func classOf(m *envelope.Message) int {
	if !m.Capabilities.Present() {
		return 0
	}
	caps := topNames(m.Bytes(m.Capabilities))
	class := 0
	if caps["sampling"] {
		class |= asksSampling
	}
	if caps["elicitation"] {
		class |= asksElicitation
	}
	if caps["roots"] {
		class |= asksRoots
	}
	return class
}

// forClass returns the shared hub for clients of a class, started.
func (rt *route) forClass(class int) (*hub, error) {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	if rt.closed {
		return nil, errRouteClosed
	}
	if rt.single {
		class = 0
	}
	if h := rt.shared[class]; h != nil {
		return h, nil
	}
	h := rt.newHub(Caller{})
	h.shared, h.turns = true, class != 0 || rt.single
	rt.shared[class] = h
	rt.hubs[h] = struct{}{}
	h.start()
	return h, nil
}

// close ends all servers of the route and waits for them.
func (rt *route) close(why error) {
	rt.mu.Lock()
	rt.closed = true
	hubs := make([]*hub, 0, len(rt.hubs))
	for h := range rt.hubs {
		hubs = append(hubs, h)
	}
	warm := rt.warm
	rt.warm = nil
	rt.mu.Unlock()
	var all sync.WaitGroup
	for _, h := range hubs {
		all.Go(func() { h.close(why) })
	}
	for _, p := range warm {
		all.Go(func() { _ = p.Close(); drainPeer(p) })
	}
	all.Wait()
	rt.wait()
}

func (rt *route) each(f func(*hub)) {
	rt.mu.Lock()
	hubs := make([]*hub, 0, len(rt.hubs))
	for h := range rt.hubs {
		hubs = append(hubs, h)
	}
	rt.mu.Unlock()
	for _, h := range hubs {
		f(h)
	}
}

func (rt *route) pending() (n int) {
	rt.each(func(h *hub) { n += h.pending() })
	return n
}

func (rt *route) info() ServerInfo {
	info := ServerInfo{Name: rt.Name, Backend: rt.Backend.String(), Isolation: rt.Isolation.String(), Running: []Server{}}
	rt.mu.Lock()
	info.Warm = len(rt.warm)
	rt.mu.Unlock()
	rt.each(func(h *hub) { info.Running = append(info.Running, h.info()) })
	slices.SortFunc(info.Running, func(a, b Server) int { return strings.Compare(a.Session, b.Session) })
	return info
}

func (h *hub) info() Server {
	calls := h.pending()
	h.mu.Lock()
	defer h.mu.Unlock()
	s := Server{State: h.state.String(), Session: h.caller.Session, Clients: len(h.ports), Calls: calls, Failures: h.fails}
	if p, ok := h.peer.(interface{ pid() int }); ok {
		s.PID = p.pid()
	}
	if h.broken != nil && h.state != hubUp {
		s.Reason = h.broken.Error()
	}
	return s
}
