package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/weft-ws/weft/mcpws"
	"github.com/weft-ws/weft/ws"
)

// A server may dial the gateway instead of being dialled: a device or a laptop
// behind NAT connects to /mcp/attach?name=NAME and is offered under /mcp/NAME
// from then on. It is one server for all clients.

// attached is the backend of such a server: the connection that it has made.
type attached struct {
	name      string
	principal string // who attached it first; nobody else may take its place

	mu      sync.Mutex
	waiting *connPeer     // a connection that no hub has yet
	arrived chan struct{} // closed when there is one
}

func (a *attached) String() string { return "attached by " + a.principal }

// Open takes the connection, or waits for the server to come back.
func (a *attached) Open(ctx context.Context, _ Caller) (Peer, error) {
	for {
		a.mu.Lock()
		if p := a.waiting; p != nil {
			a.waiting = nil
			a.mu.Unlock()
			return p, nil
		}
		arrived := a.arrived
		a.mu.Unlock()
		select {
		case <-arrived:
		case <-ctx.Done():
			return nil, errors.New("the server is not attached at the moment")
		}
	}
}

// offer hands over a connection. One that still waits is given up for it.
func (a *attached) offer(p *connPeer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.waiting != nil {
		go a.waiting.Close()
	}
	a.waiting = p
	close(a.arrived)
	a.arrived = make(chan struct{})
}

// serveAttach accepts a server.
func (g *Gateway) serveAttach(w http.ResponseWriter, r *http.Request) {
	opts := g.opts.Accept
	opts.Config = mcpws.Defaults(opts.Config)
	var a *attached
	var ident Identity
	opts.ChooseSubprotocol = func(r *http.Request, offered []string) (string, error) {
		if g.draining.Load() {
			return "", later("the gateway is shutting down")
		}
		var err error
		ident, err = g.opts.Auth.Authenticate(r, offered)
		if err != nil {
			return "", g.denial(r, err)
		}
		if !slices.Contains(g.opts.Attach, ident.Principal) {
			return "", refusal(http.StatusForbidden, "%q may not attach servers", ident.Principal)
		}
		if a, err = g.attachment(r.URL.Query().Get("name"), ident.Principal); err != nil {
			return "", refusal(http.StatusConflict, "%v", err)
		}
		if slices.Contains(offered, mcpws.Subprotocol) {
			return mcpws.Subprotocol, nil
		}
		return "", nil
	}
	c, err := ws.Accept(w, r, &opts)
	if err != nil {
		return
	}
	g.log.Info("server attached", "server", a.name, "principal", a.principal, "remote", r.RemoteAddr)
	if !ident.Expires.IsZero() {
		go expire(c, ident.Expires)
	}
	a.offer(newConnPeer(c, mcpws.Dialect{}, opts.Config.MaxMessageSize))
	// Before it has clients too, somebody has to read what it sends: pongs, or it
	// would be taken for lost.
	if rt := g.find(a.name); rt != nil {
		_, _ = rt.forClass(0) // an error says that the gateway shuts down
	}
}

// expire closes a connection when its credential does not hold any more.
func expire(c *ws.Conn, at time.Time) {
	timer := time.NewTimer(time.Until(at))
	defer timer.Stop()
	select {
	case <-timer.C:
		_ = c.Close(ws.ClosePolicyViolation, credentialExpired)
	case <-c.Done():
	}
}

// attachment finds or makes the route of an attached server.
func (g *Gateway) attachment(name, principal string) (*attached, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if rt := g.routes[name]; rt != nil {
		a, ok := rt.Backend.(*attached)
		if !ok || a.principal != principal {
			return nil, fmt.Errorf("there is another server %q; choose another name", name)
		}
		return a, nil
	}
	a := &attached{name: name, principal: principal, arrived: make(chan struct{})}
	r := Route{Name: name, Backend: a, Isolation: Shared, single: true}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("%w; attach to /mcp/attach?name=NAME", err)
	}
	g.routes[name] = newRoute(g, r)
	return a, nil
}

// Attach offers a route of this gateway to a hub that it dials, and dials
// again with backoff and jitter whenever the connection is lost. It returns
// when ctx ends, or when the hub refuses for good. opts may be nil.
func (g *Gateway) Attach(ctx context.Context, name, hubURL string, opts *ws.DialOptions) error {
	const first, last = time.Second, 10 * time.Minute
	wait := first
	for {
		began := time.Now()
		err := g.attachOnce(ctx, name, hubURL, opts)
		if ctx.Err() != nil {
			return nil
		}
		var he *ws.HandshakeError
		if errors.As(err, &he) && he.Status >= 400 && he.Status < 500 && he.Status != http.StatusTooManyRequests {
			return err
		}
		if time.Since(began) > time.Minute {
			wait = first
		}
		g.log.Warn("the hub is out of reach", "err", err, "next_attempt_in", wait)
		select {
		case <-time.After(jitter(wait)):
		case <-ctx.Done():
			return nil
		}
		wait = min(2*wait, last)
	}
}

func (g *Gateway) attachOnce(ctx context.Context, name, hubURL string, opts *ws.DialOptions) error {
	rt := g.find(name)
	if rt == nil {
		return ErrNoServer
	}
	var o ws.DialOptions
	if opts != nil {
		o = *opts
	}
	o.Subprotocols = []string{mcpws.Subprotocol}
	o.Config = rt.config
	c, err := ws.Dial(ctx, hubURL, &o)
	if err != nil {
		return err
	}
	s := newSession(g, rt, Caller{Route: name, Session: newSessionID(), Principal: "hub"}, "hub", Identity{Principal: "hub"})
	g.mu.Lock()
	if g.draining.Load() {
		g.mu.Unlock()
		_ = c.Close(ws.CloseGoingAway, "")
		return errors.New("shutting down")
	}
	g.conns++
	g.addresses[s.remote]++
	g.persons[s.ident.Principal]++
	g.sessions.Add(1)
	g.mu.Unlock()
	if err := g.registry.Join(s); err != nil {
		return err
	}
	at := s.seat
	stop := context.AfterFunc(ctx, func() { s.End(ws.CloseGoingAway, "shutting down") })
	defer stop()
	if err = s.enter(at, c, 0); err == nil {
		g.log.Info("attached to the hub", "server", name)
	}
	for err == nil {
		var typ ws.MessageType
		var p []byte
		if typ, p, err = c.ReadMessage(context.Background()); err == nil {
			if err = s.message(ctx, c, typ, p); err != nil {
				mcpws.CloseWith(c, err)
			}
		}
	}
	g.count(c)
	s.leave(at, err)
	return err
}
