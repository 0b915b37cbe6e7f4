// Package chat is video calls in the terminal: a server with rooms, whose
// members see each other as text, and a client with camera, microphone and
// screen. It speaks ACIP (package acip) with weft peers, with the C programs of
// ascii-chat and with its browser client.
//
// A good order to read: server.go (who gets in), member.go (one client),
// room.go (who sees what), audio.go (who hears what), client.go and source.go
// (the other end).
package chat

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/weft-ws/weft/acip"
	"github.com/weft-ws/weft/ws"
)

const (
	// ClientsMax, RoomMax and AddressMax are the defaults of ServerConfig.
	ClientsMax = 256
	RoomMax    = 64
	AddressMax = 64
	// roomNameMax bounds the name of a room in bytes.
	roomNameMax = 64
	// failuresBurst and failuresEvery bound failed authentications per address.
	failuresBurst = 10
	failuresEvery = 6 * time.Second
)

// A FragmentPolicy says when long packets leave in several WebSocket frames.
type FragmentPolicy uint8

const (
	FragmentAuto  FragmentPolicy = iota // towards peers that announce that they reassemble
	FragmentNever                       // whole packets in one frame
	FragmentAlways
)

// ParseFragmentPolicy is for flags: "auto", "never" or "always".
func ParseFragmentPolicy(s string) (FragmentPolicy, error) {
	switch s {
	case "auto":
		return FragmentAuto, nil
	case "never":
		return FragmentNever, nil
	case "always":
		return FragmentAlways, nil
	}
	return 0, fmt.Errorf("fragments is %q; allowed are auto, never and always", s)
}

// ServerConfig tunes a Server. Zero means the default that the comment names,
// negative means no limit.
type ServerConfig struct {
	// ACIP says whom the server admits.
	ACIP acip.ServerConfig
	// Clients bounds all clients, Room those of one room, Address those from one
	// IP address. Default ClientsMax, RoomMax, AddressMax; then 503 or
	// ERROR_MESSAGE 48.
	Clients, Room, Address int
	// Names puts the members' names on their tiles.
	Names bool
	// Fragments says when packets leave in several WebSocket frames.
	Fragments FragmentPolicy
	// Origins are the web origins that may connect besides the server's own.
	Origins []string
	// Hosts, if not empty, are what the Host header may name.
	Hosts []string
	// Decoder opens a decoder for H.265; nil: such clients are told to send raw
	// pictures.
	Decoder func() (VideoDecoder, error)
	// Trace, if set, returns hooks for the frames of a new WebSocket.
	Trace func() *ws.Trace
	// Logger gets a line for each client that joins and leaves. Default: none.
	Logger *slog.Logger
}

// A Server keeps rooms and their members. Safe for concurrent use.
type Server struct {
	cfg   ServerConfig
	stats counters

	ctx  context.Context
	stop context.CancelCauseFunc
	wait sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	rooms    map[string]*room
	clients  int
	perAddr  map[netip.Addr]int
	failures map[netip.Addr]*rate.Limiter
	nextID   uint32
}

// counters are what /metrics shows.
type counters struct {
	joined, left                    atomic.Uint64
	refused, violations             atomic.Uint64
	imagesIn, framesOut             atomic.Uint64
	framesDropped, rendered, reused atomic.Uint64
	audioIn, audioOut               atomic.Uint64
	bytesIn, bytesOut               atomic.Uint64
	gapMax                          atomic.Int64 // ns between two frames to one client
}

// NewServer returns a Server. Close it with Shutdown.
func NewServer(cfg ServerConfig) *Server {
	orDefault(&cfg.Clients, ClientsMax)
	orDefault(&cfg.Room, RoomMax)
	orDefault(&cfg.Address, AddressMax)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, rooms: map[string]*room{}, perAddr: map[netip.Addr]int{}, failures: map[netip.Addr]*rate.Limiter{}}
	s.ctx, s.stop = context.WithCancelCause(context.Background())
	return s
}

func orDefault(n *int, def int) {
	if *n == 0 {
		*n = def
	} else if *n < 0 {
		*n = 1 << 30
	}
}

// A refusal turns a client away before the handshake.
type refusal struct {
	code   acip.ErrorCode
	reason string
}

func (r *refusal) Error() string { return r.reason }

// admit takes a place for a client from addr, or says why there is none.
func (s *Server) admit(addr netip.Addr) (release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch l := s.failures[addr]; {
	case s.closed:
		return nil, &refusal{acip.CodeSessionFull, "the server is shutting down"}
	case s.clients >= s.cfg.Clients:
		return nil, &refusal{acip.CodeSessionFull, fmt.Sprintf("the server is full: %d clients", s.cfg.Clients)}
	case s.perAddr[addr] >= s.cfg.Address:
		return nil, &refusal{acip.CodeSessionFull, fmt.Sprintf("%d clients from this address; that is all", s.cfg.Address)}
	case l != nil && l.Tokens() < 1:
		return nil, &refusal{acip.CodeRate, "too many failed attempts to authenticate; wait a minute"}
	}
	s.clients++
	s.perAddr[addr]++
	s.wait.Add(1)
	return func() {
		s.mu.Lock()
		s.clients--
		if s.perAddr[addr]--; s.perAddr[addr] == 0 {
			delete(s.perAddr, addr)
		}
		s.mu.Unlock()
		s.wait.Done()
	}, nil
}

// failed counts a failed authentication from addr.
func (s *Server) failed(addr netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// An entry that is full again has forgotten, so it may go.
	for a, l := range s.failures {
		if l.Tokens() >= failuresBurst {
			delete(s.failures, a)
		}
	}
	l := s.failures[addr]
	if l == nil {
		l = rate.NewLimiter(rate.Every(failuresEvery), failuresBurst)
		s.failures[addr] = l
	}
	l.Allow()
}

func addrOf(a net.Addr) netip.Addr {
	if ap, err := netip.ParseAddrPort(a.String()); err == nil {
		return ap.Addr().Unmap()
	}
	return netip.Addr{}
}

// ServeHTTP answers /healthz and /metrics and takes everything that wants to be
// a WebSocket: the path names the room, "/" the default one.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") == "" {
		s.serveHTTP(w, r)
		return
	}
	name, ok := roomName(r.URL.Path)
	if !ok {
		http.Error(w, fmt.Sprintf("the name of a room is at most %d bytes of letters, digits, '-', '_', '.' and '/'", roomNameMax), http.StatusNotFound)
		return
	}
	addr, _ := netip.ParseAddrPort(r.RemoteAddr)
	release, err := s.admit(addr.Addr().Unmap())
	if err != nil {
		s.stats.refused.Add(1)
		s.cfg.Logger.Info("refused", "peer", r.RemoteAddr, "reason", err)
		w.Header().Set("Retry-After", "10")
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	defer release()
	opts := ws.AcceptOptions{
		ChooseSubprotocol: chooseSubprotocol,
		Origins:           s.cfg.Origins,
		Hosts:             s.cfg.Hosts,
		Config:            acip.WebSocketConfig(),
	}
	if s.cfg.Fragments == FragmentAlways {
		opts.Config.FragmentSize = 0
	}
	if s.cfg.Trace != nil {
		opts.Config.Trace = s.cfg.Trace()
	}
	c, err := ws.Accept(w, r, &opts)
	if err != nil {
		s.stats.refused.Add(1)
		s.cfg.Logger.Info("refused", "peer", r.RemoteAddr, "reason", err)
		return
	}
	s.serve(acip.OnWebSocket(c), name)
}

// chooseSubprotocol takes acip, or a client that offers nothing at all, as the C
// server does.
func chooseSubprotocol(_ *http.Request, offered []string) (string, error) {
	for _, p := range offered {
		if p == acip.Subprotocol {
			return p, nil
		}
	}
	if len(offered) > 0 {
		return "", fmt.Errorf("none of the subprotocols %s is spoken here; offer %s", strings.Join(offered, ", "), acip.Subprotocol)
	}
	return "", nil
}

// roomName makes the name of a room of the path of a request.
func roomName(path string) (string, bool) {
	name := strings.Trim(path, "/")
	if len(name) > roomNameMax {
		return "", false
	}
	for _, c := range []byte(name) {
		ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.' || c == '/'
		if !ok {
			return "", false
		}
	}
	return name, true
}

// ServeTCP accepts clients that speak ACIP without WebSocket, until ctx ends or
// the listener is closed. They meet in the default room.
func (s *Server) ServeTCP(ctx context.Context, l net.Listener) error {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			var ne net.Error
			if errors.As(err, &ne) && ne.Timeout() {
				continue
			}
			return err
		}
		go s.serveTCP(c)
	}
}

func (s *Server) serveTCP(c net.Conn) {
	conn := acip.OnTCP(c)
	release, err := s.admit(addrOf(c.RemoteAddr()))
	if err != nil {
		s.stats.refused.Add(1)
		s.cfg.Logger.Info("refused", "peer", c.RemoteAddr(), "reason", err)
		var r *refusal
		if errors.As(err, &r) {
			p := acip.Packet{Type: acip.TypeError, Payload: acip.ErrorMessage{Code: r.code, Message: r.reason}.AppendTo(nil)}
			_ = conn.WritePacket(p.AppendTo(nil)) // it is refused whether it hears or not
		}
		_ = conn.Close(ws.CloseTryAgainLater, "")
		return
	}
	defer release()
	s.serve(conn, "")
}

// serve runs a session to its end.
func (s *Server) serve(c acip.Conn, room string) {
	m := &member{server: s, roomName: room, addr: c.RemoteAddr().String(), began: time.Now()}
	m.sess = acip.NewSession(c, acip.NewServer(c.Transport(), s.cfg.ACIP), m)
	err := m.sess.Run(s.ctx)
	m.leave()
	s.ended(m, err)
}

// ended counts and logs the end of a session: one line that says why.
func (s *Server) ended(m *member, err error) {
	var v *acip.Violation
	if errors.As(err, &v) {
		s.stats.violations.Add(1)
		if v.Failed != 0 {
			s.failed(addrOf(m.sess.Conn().RemoteAddr()))
		}
	}
	_, in := m.sess.Received()
	out := m.sess.Link.Stats()
	s.stats.bytesIn.Add(in)
	s.stats.bytesOut.Add(out.Bytes)
	s.stats.framesOut.Add(out.Video)
	s.stats.framesDropped.Add(out.VideoDropped)
	s.stats.audioOut.Add(out.Audio)
	reason := "left"
	switch {
	case errors.Is(err, acip.ErrShutdown):
		reason = "server is shutting down"
	case err != nil:
		reason = err.Error()
	case !m.sess.Established():
		reason = "left during the handshake"
	case m.reason != "":
		reason = "left: " + m.reason
	}
	s.cfg.Logger.Info("client left", "peer", m.addr, "name", m.name, "transport", m.sess.Conn().Transport().String(), "room", m.roomName,
		"established", m.sess.Established(), "reason", reason, "after", time.Since(m.began).Round(time.Millisecond),
		"images", m.images, "frames", out.Video, "dropped", out.VideoDropped, "gap_max", time.Duration(m.gapMax.Load()).Round(time.Millisecond))
}

// Shutdown tells every client that the server goes away (close code 1001) and
// waits until all have gone, or ctx ends.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.stop(acip.ErrShutdown)
	done := make(chan struct{})
	go func() { s.wait.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Stats is a snapshot of a Server.
type Stats struct {
	Clients, Rooms, Renderers int
	Joined, Left              uint64
	Images, Rendered, Reused  uint64
}

// Stats returns what the server holds and has done.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{Clients: s.clients, Rooms: len(s.rooms), Joined: s.stats.joined.Load(), Left: s.stats.left.Load(),
		Images: s.stats.imagesIn.Load(), Rendered: s.stats.rendered.Load(), Reused: s.stats.reused.Load()}
	for _, r := range s.rooms {
		r.mu.Lock()
		st.Renderers += len(r.views)
		r.mu.Unlock()
	}
	return st
}
