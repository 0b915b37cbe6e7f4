package gateway

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/weft-ws/weft/mcpws/envelope"
	"github.com/weft-ws/weft/ws"
)

// A server behind NAT dials a hub and is called there by many clients.
func TestAttach(t *testing.T) {
	tokens := NewTokens()
	tokens.Add("device", "device-token")
	tokens.Add("ada", "ada-token")
	hub, hubURL := serve(t, Options{Auth: tokens, Attach: []string{"device"}}, testRoute(PerConnection))
	local, _ := serve(t, Options{}, Route{Name: "lamp", Backend: &pipes{}})
	as := func(token string) *ws.DialOptions {
		return &ws.DialOptions{Header: http.Header{"Authorization": {"Bearer " + token}}}
	}
	for _, tt := range []struct {
		token, name string
		status      int
	}{{"wrong", "lamp", 401}, {"ada-token", "lamp", 403}, {"device-token", "fake", 409}, {"device-token", "", 409}} {
		err := local.Attach(t.Context(), "lamp", hubURL+"attach?name="+tt.name, as(tt.token))
		var he *ws.HandshakeError
		if !errors.As(err, &he) || he.Status != tt.status {
			t.Errorf("%s as %q: %v, want HTTP %d", tt.token, tt.name, err, tt.status)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- local.Attach(ctx, "lamp", hubURL+"attach?name=lamp", as("device-token")) }()
	until(t, "the server is attached", func() bool { return len(hub.Registry().Servers()) == 2 })
	var clients []*wire
	for range 3 {
		c, he := dialErr(t, hubURL+"lamp", http.Header{"Authorization": {"Bearer ada-token"}}, "mcp")
		if he != nil {
			t.Fatal(he)
		}
		w := &wire{t, c}
		w.initialize(`{"sampling":{}}`)
		clients = append(clients, w)
	}
	for i, w := range clients {
		w.call("1", "ask", `{"text":"on or off?"}`)
		m, err := envelope.Parse([]byte(w.hears("on or off?")))
		if err != nil {
			t.Fatal(err)
		}
		w.say(`{"jsonrpc":"2.0","id":%s,"result":{"client":%d}}`, m.IDBytes(), i)
		w.hears(`\"client\":`+string(rune('0'+i)), `"id":1`)
	}
	// The connection between the two is lost: calls in flight are answered, and
	// the next ones work when the server is back.
	clients[0].call("2", "hang", "{}")
	clients[0].hears("progress")
	for _, s := range local.Registry().Sessions() {
		if s, ok := local.Registry().Session(s.ID); ok {
			s.End(ws.CloseServiceRestart, "")
		}
	}
	clients[0].hears(`"id":2,"error"`, "connection to the server was lost")
	clients[0].call("3", "echo", `{"text":"back again"}`)
	clients[0].hears("back again")
	// A reload of the hub's configuration leaves attached servers alone.
	if err := hub.SetRoutes(nil); err != nil {
		t.Error(err)
	}
	clients[1].call("4", "echo", `{"text":"still there"}`)
	clients[1].hears("still there")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := hub.Registry().Servers(); len(got) != 1 || !strings.Contains(got[0].Backend, "attached by device") {
		t.Errorf("servers %+v", got)
	}
}
