// Package gateway puts MCP servers behind one safe WebSocket port: programs
// that speak stdio, servers in this process, and remote ones. Clients are kept
// apart from each other, every call gets an answer, and nothing outlives the
// gateway.
//
// A good order to read the source: gateway.go (the door), route.go and
// session.go (who is connected to what), hub.go (what passes between one
// server and its clients), supervise.go (servers that fail), command.go,
// group_unix.go and watch.go (programs).
package gateway

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weft-ws/weft/mcpws"
	"github.com/weft-ws/weft/ws"
)

// Options shape a Gateway. The zero value works: it lets everybody in who can
// reach it, so give it an Auth.
type Options struct {
	// Accept shapes opening handshakes and connections: Origins, Hosts,
	// Config. Subprotocols are the gateway's own business. Zero limits mean
	// those of package mcpws.
	Accept ws.AcceptOptions

	Auth Authenticator // nil: Anyone

	// ConnectionsMax bounds all clients, PerAddressMax those of one address,
	// loopback excepted, PerPrincipalMax those of one principal. One more is
	// answered 503 with Retry-After. Zero: 1000, 64, none; negative: none.
	ConnectionsMax, PerAddressMax, PerPrincipalMax int

	// CallsPerAddress and CallsPerPrincipal bound the requests without an
	// answer; a Route's CallsMax those of one connection. BytesPerConnection,
	// BytesPerAddress and BytesPerPrincipal bound the bytes of such requests
	// and of answers that wait to be read. One request more is answered -32603;
	// a request alone is always taken. Loopback is no address here. Zero or
	// negative: none.
	CallsPerAddress, CallsPerPrincipal                     int
	BytesPerConnection, BytesPerAddress, BytesPerPrincipal int64

	// Resource says where tokens come from, in 401 answers and under
	// /.well-known/oauth-protected-resource. Nil: that is not told.
	Resource *Resource

	// ResumeGrace is how long the session of a client that asked for it
	// outlives a lost connection. Zero: 2 minutes; negative: not at all.
	ResumeGrace time.Duration

	// Attach names the principals who may attach servers of their own at
	// /mcp/attach. Empty: nobody.
	Attach []string

	// NoMerged switches off the merged endpoint: /mcp, with the tools of all
	// servers under names of the form SERVER__TOOL.
	NoMerged bool

	Logger *slog.Logger // nil: slog.Default()
}

const (
	defaultPerAddress  = 64
	defaultResumeGrace = 2 * time.Minute
)

// A Gateway is an http.Handler for /mcp/NAME, /mcp/ws, /mcp, /mcp/ticket and
// /.well-known/oauth-protected-resource. All its methods may be called from any
// goroutine.
type Gateway struct {
	opts     Options
	log      *slog.Logger
	registry *memory

	writers  *writers
	draining atomic.Bool
	stop     chan struct{}
	sweeping sync.WaitGroup

	mu        sync.Mutex
	routes    map[string]*route
	together  *route // the merged endpoint; nil: none
	conns     int
	addresses map[string]int
	persons   map[string]int
	metered   map[string]*meter // by "address …" and "principal …", of those who have sessions
	sessions  sync.WaitGroup
	resumable map[[sha256.Size]byte]*session // by the hash of the resume token
	closes    map[ws.CloseCode]int64
	past      ws.Stats
	accepted  int64
	refusals  map[int]int64 // by HTTP status
}

// New returns a Gateway without routes.
func New(opts Options) *Gateway {
	g := &Gateway{opts: opts, log: opts.Logger, stop: make(chan struct{}), routes: map[string]*route{},
		addresses: map[string]int{}, persons: map[string]int{}, closes: map[ws.CloseCode]int64{}, refusals: map[int]int64{},
		resumable: map[[sha256.Size]byte]*session{}, metered: map[string]*meter{}}
	g.writers = newWriters(g.stop)
	if g.log == nil {
		g.log = slog.Default()
	}
	if g.opts.Auth == nil {
		g.opts.Auth = Anyone{}
	}
	limit := func(v *int, def int) {
		switch {
		case *v == 0:
			*v = def
		case *v < 0:
			*v = 0
		}
	}
	if g.opts.ResumeGrace == 0 {
		g.opts.ResumeGrace = defaultResumeGrace
	}
	limit(&g.opts.ConnectionsMax, mcpws.DefaultConns)
	limit(&g.opts.PerAddressMax, defaultPerAddress)
	limit(&g.opts.PerPrincipalMax, 0)
	if !g.opts.NoMerged {
		g.together = newRoute(g, Route{Name: mergedRoute, Backend: &merged{g}, CallTimeout: -1})
	}
	g.registry = &memory{g: g, sessions: map[string]Session{}}
	g.sweeping.Go(g.sweep)
	return g
}

// sweep looks for calls that take too long.
func (g *Gateway) sweep() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			for _, rt := range g.every() {
				rt.each(func(h *hub) { h.sweep(now) })
			}
		case <-g.stop:
			return
		}
	}
}

func (g *Gateway) all() []*route {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]*route, 0, len(g.routes))
	for _, rt := range g.routes {
		out = append(out, rt)
	}
	slices.SortFunc(out, func(a, b *route) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// every is all routes and the merged endpoint.
func (g *Gateway) every() []*route {
	if g.together == nil {
		return g.all()
	}
	return append(g.all(), g.together)
}

// Registry returns what is known about sessions and servers.
func (g *Gateway) Registry() Registry { return g.registry }

func (g *Gateway) addRoute(r Route) error {
	if err := r.check(); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.routes[r.Name] != nil {
		return fmt.Errorf("there is a server %q already", r.Name)
	}
	g.routes[r.Name] = newRoute(g, r)
	return nil
}

func (g *Gateway) removeRoute(name string) error {
	g.mu.Lock()
	rt := g.routes[name]
	delete(g.routes, name)
	g.mu.Unlock()
	if rt == nil {
		return fmt.Errorf("%w: %s", ErrNoServer, name)
	}
	for _, s := range g.registry.all() {
		if s, ok := s.(*session); ok && s.route == rt {
			s.End(ws.CloseServiceRestart, "the server was removed or changed; connect again")
		}
	}
	rt.close(errRouteClosed)
	return nil
}

// SetRoutes makes routes the routes there are. One with the Fingerprint that
// it has already is left alone with its sessions; the sessions of others that
// are gone or changed are closed with 1012. Nothing is changed if a route is
// not valid.
func (g *Gateway) SetRoutes(routes []Route) error {
	names := map[string]Route{}
	for _, r := range routes {
		if err := r.check(); err != nil {
			return err
		}
		if _, dup := names[r.Name]; dup {
			return fmt.Errorf("there are two servers %q", r.Name)
		}
		names[r.Name] = r
	}
	for _, rt := range g.all() {
		r, ok := names[rt.Name]
		if rt.single && !ok {
			continue // it was attached, not configured
		}
		if ok && r.Fingerprint != "" && r.Fingerprint == rt.Fingerprint {
			delete(names, rt.Name)
			continue
		}
		g.log.Info("server removed or changed", "server", rt.Name)
		_ = g.removeRoute(rt.Name)
	}
	for _, r := range routes {
		if _, ok := names[r.Name]; ok {
			if err := g.addRoute(r); err != nil {
				return err
			}
		}
	}
	return nil
}

func (g *Gateway) servers() []ServerInfo {
	out := []ServerInfo{}
	for _, rt := range g.all() {
		out = append(out, rt.info())
	}
	return out
}

// Ready reports whether newcomers are let in.
func (g *Gateway) Ready() bool { return !g.draining.Load() }

// ServeHTTP serves /mcp/NAME and, if there is one server only, /mcp/ws and
// /mcp; with several servers /mcp is the merged endpoint. POST /mcp/ticket
// exchanges a token for a one-time ticket. With a Resource it serves its
// metadata under /.well-known/oauth-protected-resource, with and without the
// path of a server behind it.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == metadataPath || strings.HasPrefix(r.URL.Path, metadataPath+"/") {
		g.serveMetadata(w, r)
		return
	}
	name := strings.Trim(strings.TrimPrefix(r.URL.Path, "/mcp"), "/")
	switch name {
	case "ticket":
		g.serveTicket(w, r)
		return
	case "attach":
		g.serveAttach(w, r)
		return
	}
	opts := g.opts.Accept
	var rt *route
	var s *session
	var at *seat
	var again bool // s is resumed
	var has uint64
	opts.ChooseSubprotocol = func(r *http.Request, offered []string) (string, error) {
		// Method, Host and Origin have been judged by now.
		var err error
		req := mcpws.ParseResume(offered)
		if has = req.Received; req.Token != "" {
			s, at, err = g.comeBack(r, offered, name, req.Token, req.Received)
			again = true
		} else if s, err = g.admit(r, offered, name); err == nil {
			at = s.seat
		}
		if err != nil {
			return "", err
		}
		if req.Wanted && !again && g.opts.ResumeGrace > 0 {
			s.replay = mcpws.NewReplay(replayMax)
			g.chosenToken(s, req.Secret)
		}
		rt = s.route
		if slices.Contains(offered, mcpws.Subprotocol) {
			return mcpws.Subprotocol, nil
		}
		return "", nil
	}
	// The configuration is the route's, which is known after admission; a
	// request for a route that does not exist is refused in admit.
	if found := g.find(name); found != nil {
		opts.Config = found.config
	}
	_, err := ws.Serve(w, r, &opts, ws.Handler{
		Open: func(_ context.Context, c *ws.Conn) error {
			g.log.Info("connected", "session", s.caller.Session, "resumed", again, "route", rt.Name, "principal", s.ident.Principal, "remote", s.remote)
			return s.enter(at, c, has)
		},
		Message: func(ctx context.Context, c *ws.Conn, typ ws.MessageType, p []byte) error {
			return s.message(ctx, c, typ, p)
		},
		Closed: func(c *ws.Conn, err error) {
			g.count(c)
			g.log.Info("disconnected", "session", s.caller.Session, "route", rt.Name, "err", err)
			s.leave(at, err)
		},
	})
	if err != nil {
		var he *ws.HandshakeError
		status := http.StatusInternalServerError
		if errors.As(err, &he) {
			status = he.Status
		}
		g.mu.Lock()
		g.refusals[status]++
		g.mu.Unlock()
		g.log.Info("upgrade refused", "path", r.URL.Path, "remote", r.RemoteAddr, "status", status, "err", err)
		if at != nil { // admitted, but the upgrade failed
			s.mu.Lock()
			s.final = s.final || !again
			s.mu.Unlock()
			s.leave(at, nil)
		}
	}
}

// find returns the route that a path names, nil if there is none.
func (g *Gateway) find(name string) *route {
	g.mu.Lock()
	defer g.mu.Unlock()
	if rt := g.routes[name]; rt != nil {
		return rt
	}
	if (name == "ws" || name == "") && len(g.routes) == 1 {
		for _, rt := range g.routes {
			return rt
		}
	}
	if name == "" && len(g.routes) > 1 {
		return g.together
	}
	return nil
}

func refusal(status int, format string, args ...any) *ws.HandshakeError {
	return &ws.HandshakeError{Status: status, Reason: fmt.Sprintf(format, args...)}
}

// admit authenticates a client and takes its place in the limits.
func (g *Gateway) admit(r *http.Request, offered []string, name string) (*session, error) {
	if g.draining.Load() {
		return nil, later("the gateway is shutting down")
	}
	ident, err := g.opts.Auth.Authenticate(r, offered)
	if err != nil {
		return nil, g.denial(r, err)
	}
	rt := g.find(name)
	if rt == nil || len(rt.Principals) > 0 && !slices.Contains(rt.Principals, ident.Principal) {
		// Who may not use a server need not know that it exists.
		return nil, refusal(http.StatusNotFound, "there is no server %q here; %s", name, g.hint(ident))
	}
	address, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		address = r.RemoteAddr
	}
	ip := net.ParseIP(address)
	loopback := ip != nil && ip.IsLoopback()
	g.mu.Lock()
	defer g.mu.Unlock()
	switch o := &g.opts; {
	case g.draining.Load(): // again: under mu nobody slips past Drain's wait
		return nil, later("the gateway is shutting down")
	case o.ConnectionsMax > 0 && g.conns >= o.ConnectionsMax:
		return nil, later("the gateway has all the %d clients that it allows", o.ConnectionsMax)
	case o.PerAddressMax > 0 && !loopback && g.addresses[address] >= o.PerAddressMax:
		return nil, later("%s has all the %d connections that one address may have", address, o.PerAddressMax)
	case o.PerPrincipalMax > 0 && ident.Principal != "" && g.persons[ident.Principal] >= o.PerPrincipalMax:
		return nil, later("%s has all the %d connections that one principal may have", ident.Principal, o.PerPrincipalMax)
	}
	header := r.Header.Clone()
	for _, secret := range []string{"Authorization", "Cookie", "Sec-Websocket-Protocol", "X-Claude-Code-Ide-Authorization"} {
		header.Del(secret)
	}
	s := newSession(g, rt, Caller{Route: rt.Name, Session: newSessionID(), Principal: ident.Principal, Header: header}, address, ident)
	s.meters = g.metersLocked(address, loopback, ident.Principal)
	g.conns++
	g.addresses[address]++
	g.persons[ident.Principal]++
	g.accepted++
	g.sessions.Add(1)
	if err := g.registry.Join(s); err != nil {
		return nil, err
	}
	return s, nil
}

// comeBack finds the session that a client resumes.
func (g *Gateway) comeBack(r *http.Request, offered []string, name, token string, received uint64) (*session, *seat, error) {
	if g.draining.Load() {
		return nil, nil, later("the gateway is shutting down")
	}
	ident, err := g.opts.Auth.Authenticate(r, offered)
	if err != nil {
		return nil, nil, g.denial(r, err)
	}
	key := sha256.Sum256([]byte(token))
	g.mu.Lock()
	s := g.resumable[key]
	// A token is no identity: with another principal it is worth nothing.
	if s != nil && s.ident.Principal != ident.Principal {
		g.mu.Unlock()
		return nil, nil, refusal(http.StatusForbidden, "the session belongs to somebody else")
	}
	if s != nil {
		s.used = key
	}
	g.mu.Unlock()
	if s == nil || s.route != g.find(name) {
		return nil, nil, refusal(http.StatusGone, "there is no session to resume with this token; begin a new one")
	}
	at := s.move(ident.Expires)
	if !s.replay.Can(received) {
		close(at.done)
		s.end()
		return nil, nil, refusal(http.StatusGone, "the messages after number %d are not kept any more; begin a new session", received)
	}
	return s, at, nil
}

// resumeToken makes the token for the next time that the session is resumed.
// The one before stays good until the client is known to have the new one: a
// connection may be cut before the token arrives.
func (g *Gateway) resumeToken(s *session) string {
	token := NewSecret()
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, k := range s.keys {
		if k != s.used {
			delete(g.resumable, k)
		}
	}
	s.keys = [2][sha256.Size]byte{s.used, sha256.Sum256([]byte(token))}
	g.resumable[s.keys[1]] = s
	return token
}

// chosenToken makes a secret of the client's the first token of its session.
func (g *Gateway) chosenToken(s *session, secret string) {
	key := sha256.Sum256([]byte(secret))
	g.mu.Lock()
	defer g.mu.Unlock()
	if secret == "" || g.resumable[key] != nil {
		return
	}
	s.used = key
	g.resumable[key] = s
}

// confirmToken uses up the tokens before the newest.
func (g *Gateway) confirmToken(s *session, newest [sha256.Size]byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s.keys[1] == newest {
		delete(g.resumable, s.keys[0])
	}
}

func (g *Gateway) forgetToken(s *session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, k := range s.keys {
		delete(g.resumable, k)
	}
	delete(g.resumable, s.used)
}

// left gives a session's place back.
func (g *Gateway) left(s *session) {
	g.registry.Leave(s.caller.Session)
	g.mu.Lock()
	g.conns--
	if countDown(g.addresses, s.remote) {
		delete(g.metered, "address "+s.remote)
	}
	if countDown(g.persons, s.ident.Principal) {
		delete(g.metered, "principal "+s.ident.Principal)
	}
	g.mu.Unlock()
	g.sessions.Done()
}

// countDown reports whether that was the last.
func countDown(m map[string]int, key string) bool {
	if m[key]--; m[key] > 0 {
		return false
	}
	delete(m, key)
	return true
}

// metersLocked are the meters of a new session.
func (g *Gateway) metersLocked(address string, loopback bool, principal string) meters {
	var ms meters
	o := &g.opts
	if o.BytesPerConnection > 0 {
		ms = append(ms, &meter{of: "one connection", max: allowance{bytes: o.BytesPerConnection}})
	}
	shared := func(key, of string, max allowance) {
		if max.calls <= 0 && max.bytes <= 0 {
			return
		}
		if g.metered[key] == nil {
			g.metered[key] = &meter{of: of, max: max}
		}
		ms = append(ms, g.metered[key])
	}
	if !loopback {
		shared("address "+address, "one address", allowance{int64(o.CallsPerAddress), o.BytesPerAddress})
	}
	if principal != "" {
		shared("principal "+principal, "one principal", allowance{int64(o.CallsPerPrincipal), o.BytesPerPrincipal})
	}
	return ms
}

// count keeps the figures of a connection that has ended.
func (g *Gateway) count(c *ws.Conn) {
	stats := c.Stats()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.past.Add(stats)
	g.closes[stats.CloseCode]++
}

func later(format string, args ...any) *ws.HandshakeError {
	he := refusal(http.StatusServiceUnavailable, format, args...)
	he.Header = http.Header{"Retry-After": {"5"}}
	return he
}

// hint names the servers that ident may use.
func (g *Gateway) hint(ident Identity) string {
	var names []string
	for _, rt := range g.all() {
		if len(rt.Principals) == 0 || slices.Contains(rt.Principals, ident.Principal) {
			names = append(names, "/mcp/"+rt.Name)
		}
	}
	if len(names) == 0 {
		return "there is none at all"
	}
	return "there is " + strings.Join(names, ", ")
}

// newSessionID returns 128 random bits in hexadecimal.
func newSessionID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	// Letters and digits alone: an ID that begins with a dash would be taken for
	// a flag on a command line.
	return hex.EncodeToString(b[:])
}

// serveTicket exchanges a token, in the Authorization header, for a ticket
// that a browser can put in the URL of its WebSocket.
func (g *Gateway) serveTicket(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "POST with a token in the Authorization header gives a one-time ticket", http.StatusMethodNotAllowed)
		return
	}
	tokens, ok := g.opts.Auth.(interface {
		TicketFor(ident Identity, life time.Duration) (string, error)
	})
	if !ok {
		http.Error(w, "this gateway gives out no tickets", http.StatusNotFound)
		return
	}
	// A browser adds a client certificate by itself, whatever page asks.
	if err := http.NewCrossOriginProtection().Check(r); err != nil {
		http.Error(w, "a page of another origin gets no ticket here", http.StatusForbidden)
		return
	}
	bare := r.Clone(r.Context())
	bare.URL.RawQuery = "" // a ticket must not beget tickets
	ident, err := g.opts.Auth.Authenticate(bare, nil)
	if err != nil {
		g.refuse(w, r, err)
		return
	}
	t, err := tokens.TicketFor(ident, TicketLife)
	if err != nil {
		w.Header().Set("Retry-After", "30")
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(map[string]any{"ticket": t, "expires_in": int(TicketLife / time.Second)})
}

// Drain lets the calls in flight finish, refuses new ones, closes every
// session with 1001 and ends all servers. If ctx ends first, the calls still in
// flight are answered with an error; servers are ended in any case. A Gateway
// that was drained stays so.
func (g *Gateway) Drain(ctx context.Context) {
	g.mu.Lock()
	again := g.draining.Swap(true)
	g.mu.Unlock()
	if again {
		return
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
waiting:
	for {
		n := 0
		for _, rt := range g.every() {
			n += rt.pending()
		}
		if n == 0 {
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			g.log.Warn("calls in flight are given up", "calls", n)
			break waiting
		}
	}
	why := errors.New("the gateway is shutting down")
	var all sync.WaitGroup
	for _, rt := range g.every() {
		for _, s := range g.registry.all() {
			if s, ok := s.(*session); ok && s.route == rt {
				s.failCalls(why)
				s.End(ws.CloseGoingAway, "the gateway is shutting down")
			}
		}
	}
	if g.together != nil {
		g.together.close(why) // before the servers that it is a client of
	}
	for _, rt := range g.all() {
		all.Go(func() { rt.close(why) })
	}
	all.Wait()
	g.sessions.Wait()
	for _, rt := range g.every() {
		rt.wait()
	}
	close(g.stop)
	g.sweeping.Wait()
}

// failCalls answers what the session still waits for.
func (s *session) failCalls(why error) {
	s.mu.Lock()
	h, p := s.hub, s.port
	s.mu.Unlock()
	if h == nil {
		return
	}
	h.mu.Lock()
	var calls []*call
	for _, c := range p.inflight {
		calls = append(calls, c)
	}
	h.failLocked(calls, why)
}
