package ws

import (
	"context"
	"iter"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

// A Server accepts connections and keeps track of them, so that they can be
// counted and closed together. It is an http.Handler. The zero value works;
// its fields must not be changed once it is in use. All methods may be called
// from any goroutine.
type Server struct {
	// Options shape the opening handshake and the connections.
	Options AcceptOptions

	// Handler is called for the messages of connections that ServeHTTP accepts.
	Handler Handler

	// ConnectionsMax bounds the connections that are open at a time, handshakes
	// in progress included; one more is answered 503. Default none.
	ConnectionsMax int

	once     sync.Once
	settings *settings // of all its connections

	mu      sync.Mutex
	conns   map[*Conn]struct{} // open
	early   map[*Conn]struct{} // ended before settle could add them to conns
	opening int                // handshakes in progress
	serving int                // loops that call Handler
	past    Stats              // sum over connections that have ended
	drained chan struct{}      // made by the first Shutdown, closed when nothing is left
	drop    bool               // a Shutdown's patience is over
}

// ServeHTTP upgrades the request and serves the connection with s.Handler. It
// returns as soon as the handshake is done.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if c, err := s.accept(w, r, true); err == nil {
		c.startServe(s.Handler, s.served)
	}
}

// served counts a callback loop that has ended.
func (s *Server) served() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serving--
	s.checkDrained()
}

// Accept is the function Accept for a connection that s keeps track of: the
// caller reads it, Shutdown closes it. While s is full or stopping it answers
// 503 with Retry-After.
func (s *Server) Accept(w http.ResponseWriter, r *http.Request) (*Conn, error) {
	return s.accept(w, r, false)
}

func (s *Server) accept(w http.ResponseWriter, r *http.Request, serving bool) (c *Conn, err error) {
	if he := s.reserve(); he != nil {
		return nil, refuse(w, r, &s.Options, he)
	}
	// Deferred, because the functions in Options may panic.
	defer func() { s.settle(c, serving) }()
	return accept(w, r, &s.Options, s)
}

// reserve takes a place for a handshake, or says why there is none.
func (s *Server) reserve() *HandshakeError {
	s.mu.Lock()
	defer s.mu.Unlock()
	var he *HandshakeError
	switch {
	case s.drained != nil:
		he = denial(http.StatusServiceUnavailable, "the server is shutting down")
	case s.ConnectionsMax > 0 && len(s.conns)+s.opening >= s.ConnectionsMax:
		he = denial(http.StatusServiceUnavailable, "the server has all the %d connections that it allows (Server.ConnectionsMax)", s.ConnectionsMax)
	default:
		s.opening++
		return nil
	}
	return he.retryLater()
}

// settle ends what reserve began; c is nil if the handshake failed.
func (s *Server) settle(c *Conn, serving bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.checkDrained()
	s.opening--
	if c == nil {
		return
	}
	if serving {
		s.serving++
	}
	if _, ended := s.early[c]; ended {
		delete(s.early, c)
		return
	}
	insert(&s.conns, c)
	switch {
	case s.drop:
		go c.kill() // calls remove, which wants s.mu
	case s.drained != nil:
		go goAway(c)
	}
}

// remove counts a connection that has ended, and is called once for each.
func (s *Server) remove(c *Conn) {
	stats := c.Stats()
	stats.Queued, stats.Waiting = 0, 0
	s.mu.Lock()
	defer s.mu.Unlock()
	s.past.Add(stats)
	if _, ok := s.conns[c]; !ok {
		insert(&s.early, c)
		return
	}
	delete(s.conns, c)
	s.checkDrained()
}

func insert(set *map[*Conn]struct{}, c *Conn) {
	if *set == nil {
		*set = map[*Conn]struct{}{}
	}
	(*set)[c] = struct{}{}
}

// checkDrained wakes Shutdown when nothing is left. The caller holds s.mu.
func (s *Server) checkDrained() {
	if s.drained == nil || s.opening > 0 || s.serving > 0 || len(s.conns) > 0 {
		return
	}
	select {
	case <-s.drained:
	default:
		close(s.drained)
	}
}

// goAway closes c as a server does that stops. RFC 6455, 7.4.1: "1001 indicates
// that an endpoint is "going away", such as a server going down".
func goAway(c *Conn) { c.Close(CloseGoingAway, "server is shutting down") }

// Shutdown stops the server: newcomers are answered 503 with Retry-After, every
// connection is closed with 1001, all at the same time, and Shutdown waits
// until the last has ended and every Handler has returned. When ctx ends first
// the remaining connections are dropped and ctx's error is returned. A server
// that was shut down stays so.
//
// http.Server.Shutdown knows nothing of connections that were taken over from
// it: stop the listener with it, and the connections with this.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if s.drained == nil {
		s.drained = make(chan struct{})
	}
	drained := s.drained
	conns := slices.Collect(maps.Keys(s.conns))
	s.checkDrained()
	s.mu.Unlock()

	for _, c := range conns {
		go goAway(c)
	}
	select {
	case <-drained:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	s.drop = true
	conns = slices.Collect(maps.Keys(s.conns))
	s.mu.Unlock()
	for _, c := range conns {
		c.kill()
	}
	return ctx.Err()
}

// Conns yields the connections that are open when the loop begins, in no
// order. One may have ended by the time it is looked at.
func (s *Server) Conns() iter.Seq[*Conn] {
	return func(yield func(*Conn) bool) {
		s.mu.Lock()
		conns := slices.Collect(maps.Keys(s.conns))
		s.mu.Unlock()
		for _, c := range conns {
			if !yield(c) {
				return
			}
		}
	}
}

// Stats sums the counters of all connections so far, open and ended.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	sum := s.past
	conns := slices.Collect(maps.Keys(s.conns))
	s.mu.Unlock()
	for _, c := range conns {
		sum.Add(c.Stats())
	}
	return sum
}

// NewHTTPServer returns an http.Server for h with the limits that an endpoint
// of the open network needs: 10 s for a request's header, which may have 16 KiB
// and 100 fields (431 beyond), a minute for a connection between two requests,
// and HTTP/1.1 only, since WebSocket needs it. Set its other fields, Addr and
// ErrorLog among them, as you like.
func NewHTTPServer(h http.Handler) *http.Server {
	// net/http reads 4,096 bytes more than it is told to.
	const slop = 4 << 10
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { serveLimited(w, r, h) }),
		ReadHeaderTimeout: handshakeTimeoutDefault,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    handshakeSizeMax - slop,
		Protocols:         protocols,
	}
}

// serveLimited bounds the header fields of a request, which net/http cannot.
func serveLimited(w http.ResponseWriter, r *http.Request, h http.Handler) {
	n := 0
	for _, lines := range r.Header {
		n += len(lines)
	}
	if n > handshakeFieldsMax {
		w.Header().Set("Connection", "close")
		http.Error(w, "the request has "+strconv.Itoa(n)+" header fields; at most "+strconv.Itoa(handshakeFieldsMax)+" are allowed",
			http.StatusRequestHeaderFieldsTooLarge)
		return
	}
	h.ServeHTTP(w, r)
}
