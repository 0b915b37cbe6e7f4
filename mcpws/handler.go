package mcpws

import (
	"context"
	"log/slog"
	"net/http"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/weft-ws/weft/ws"
)

// A Handler accepts WebSocket clients and connects each to an MCP server. It
// is an http.Handler, and all its methods may be called from any goroutine.
type Handler struct {
	get  func(*http.Request) *mcp.Server
	opts HandlerOptions
	ws   ws.Server
}

// HandlerOptions tune a Handler. The zero value accepts clients from programs
// and from web pages of the same origin, without authentication.
type HandlerOptions struct {
	// Accept shapes the opening handshake and the connections. Subprotocols is
	// set by the Handler. Zero limits mean this package's defaults.
	Accept ws.AcceptOptions

	// Verify authenticates the upgrade request; an error is answered 401, before
	// the upgrade. What it returns reaches tool handlers as Extra.TokenInfo and
	// may be nil. At its Expiration the connection is closed with 1008. Without
	// Verify the TokenInfo is the one that a middleware
	// such as [auth.RequireBearerToken] left in the request's context.
	Verify func(*http.Request) (*auth.TokenInfo, error)

	// ConnectionsMax bounds the clients; one more is answered 503 with
	// Retry-After. Zero: 1000; negative: none.
	ConnectionsMax int

	Options Options
}

// NewHandler returns a Handler. getServer may return the same server each
// time; if it returns nil the request is answered 404. A nil opts is the zero
// value.
func NewHandler(getServer func(*http.Request) *mcp.Server, opts *HandlerOptions) *Handler {
	h := &Handler{get: getServer}
	if opts != nil {
		h.opts = *opts
	}
	h.ws.Options = h.opts.Accept
	h.ws.Options.Subprotocols = []string{Subprotocol}
	h.ws.Options.Config = h.opts.Options.Dialect.Config(Defaults(h.ws.Options.Config))
	switch {
	case h.opts.ConnectionsMax == 0:
		h.ws.ConnectionsMax = DefaultConns
	case h.opts.ConnectionsMax > 0:
		h.ws.ConnectionsMax = h.opts.ConnectionsMax
	}
	return h
}

// ServeHTTP authenticates, upgrades and connects. It returns when the session
// is established; the session lives on until either side closes it.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	info := auth.TokenInfoFromContext(r.Context())
	if h.opts.Verify != nil {
		var err error
		if info, err = h.opts.Verify(r); err != nil {
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "authentication needed: "+err.Error(), http.StatusUnauthorized)
			return
		}
	}
	server := h.get(r)
	if server == nil {
		http.Error(w, "there is no MCP server here", http.StatusNotFound)
		return
	}
	c, err := h.ws.Accept(w, r)
	if err != nil {
		return // Accept has answered
	}
	log := h.opts.Options.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	t := &serverTransport{conn: newConn(c, h.opts.Options, int(h.ws.Options.Config.MaxMessageSize),
		&mcp.RequestExtra{Header: r.Header.Clone(), TokenInfo: info})}
	if info != nil && !info.Expiration.IsZero() {
		t.conn.expire(info.Expiration)
	}
	// The session outlives the request, whose context ends when ServeHTTP
	// returns.
	if _, err := server.Connect(context.WithoutCancel(r.Context()), t, nil); err != nil {
		log.Error("the session could not be started", "err", err)
		_ = c.Close(ws.CloseInternalError, "the session could not be started")
	}
}

// serverTransport hands out a connection that exists already.
type serverTransport struct{ conn *conn }

func (t *serverTransport) Connect(context.Context) (mcp.Connection, error) { return t.conn, nil }

// Shutdown answers newcomers 503, closes the sessions with 1001 and waits for
// their connections to end, or for ctx.
func (h *Handler) Shutdown(ctx context.Context) error { return h.ws.Shutdown(ctx) }

// Stats sums the counters of all connections so far.
func (h *Handler) Stats() ws.Stats { return h.ws.Stats() }
