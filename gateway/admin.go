package gateway

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"

	"github.com/weft-ws/weft/ws"
)

// Admin returns the handler of the administrative endpoint: GET /admin/sessions
// and /admin/servers list, DELETE /admin/sessions/ID ends a session, DELETE
// /admin/sessions/ID/calls?id=JSON cancels one call, DELETE /admin/servers/NAME
// ends the running instances of a server, which are started again. Requests
// must come from loopback and satisfy auth.
func (g *Gateway) Admin(auth Authenticator) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /admin/sessions", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, g.registry.Sessions()) })
	mux.HandleFunc("GET /admin/servers", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, g.servers()) })
	mux.HandleFunc("DELETE /admin/sessions/{id}", func(w http.ResponseWriter, r *http.Request) {
		s, ok := g.registry.Session(r.PathValue("id"))
		if !ok {
			http.Error(w, ErrNoSession.Error(), http.StatusNotFound)
			return
		}
		s.End(ws.CloseNormal, "ended by an administrator")
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("DELETE /admin/sessions/{id}/calls", func(w http.ResponseWriter, r *http.Request) {
		s, ok := g.registry.Session(r.PathValue("id"))
		if own, is := s.(*session); ok && is && own.cancelCall(r.URL.Query().Get("id")) {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		http.Error(w, "no such call", http.StatusNotFound)
	})
	mux.HandleFunc("DELETE /admin/servers/{name}", func(w http.ResponseWriter, r *http.Request) {
		rt := g.find(r.PathValue("name"))
		if rt == nil || rt.Name != r.PathValue("name") {
			http.Error(w, ErrNoServer.Error(), http.StatusNotFound)
			return
		}
		rt.each(func(h *hub) { h.kill(errors.New("the server was ended by an administrator")) })
		w.WriteHeader(http.StatusNoContent)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !fromLoopback(r) {
			http.Error(w, "the administrative endpoint answers on loopback only", http.StatusForbidden)
			return
		}
		if _, err := auth.Authenticate(r, nil); err != nil {
			g.refuse(w, r, err)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// fromLoopback reports whether a request comes from this machine, directly
// and under a name of this machine: not through a page whose own name was made
// to resolve here.
func fromLoopback(r *http.Request) bool {
	local := func(hostport string) bool {
		host, _, err := net.SplitHostPort(hostport)
		if err != nil {
			host = strings.Trim(hostport, "[]")
		}
		ip := net.ParseIP(host)
		return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
	}
	return local(r.RemoteAddr) && local(r.Host) && r.Header.Get("Origin") == ""
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(v)
}

// kill ends the present instance; the supervision starts another.
func (h *hub) kill(why error) {
	h.mu.Lock()
	peer := h.peer
	h.cause = why
	h.mu.Unlock()
	if peer != nil {
		go peer.Close()
	}
}

// cancelCall answers a call of the client with an error and cancels it at the
// server.
func (s *session) cancelCall(id string) bool {
	s.mu.Lock()
	h, p := s.hub, s.port
	s.mu.Unlock()
	if h == nil {
		return false
	}
	h.mu.Lock()
	c := p.inflight[id]
	if c == nil || c.cancelled {
		h.mu.Unlock()
		return false
	}
	sent, n := c.sent, c.id
	h.failLocked([]*call{c}, errors.New("the call was cancelled by an administrator"))
	if sent {
		h.mu.Lock()
		h.sendLocked([]item{cancelLine(n, "cancelled by an administrator")})
	}
	return true
}
