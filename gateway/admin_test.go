package gateway

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weft-ws/weft/ws"
)

func TestAdmin(t *testing.T) {
	g, base := serve(t, Options{}, testRoute(PerConnection))
	tokens := NewTokens()
	tokens.Add("admin", "secret")
	admin := g.Admin(tokens)
	ask := func(method, path string, change func(*http.Request)) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, path, nil)
		r.RemoteAddr, r.Host = "127.0.0.1:1234", "localhost:8080"
		r.Header.Set("Authorization", "Bearer secret")
		if change != nil {
			change(r)
		}
		w := httptest.NewRecorder()
		admin.ServeHTTP(w, r)
		return w
	}
	for what, tt := range map[string]struct {
		change func(*http.Request)
		status int
	}{
		"no token":        {func(r *http.Request) { r.Header.Del("Authorization") }, 401},
		"wrong token":     {func(r *http.Request) { r.Header.Set("Authorization", "Bearer x") }, 401},
		"another machine": {func(r *http.Request) { r.RemoteAddr = "192.0.2.1:99" }, 403},
		"rebound name":    {func(r *http.Request) { r.Host = "evil.example" }, 403},
		"a web page":      {func(r *http.Request) { r.Header.Set("Origin", "http://localhost:8080") }, 403},
		"all right":       {nil, 200},
	} {
		if got := ask("GET", "/admin/sessions", tt.change).Code; got != tt.status {
			t.Errorf("%s: HTTP %d, want %d", what, got, tt.status)
		}
	}

	w := dial(t, base+"fake")
	w.initialize("{}")
	w.call(`"a b"`, "hang", "{}")
	w.hears("progress")
	var sessions []SessionInfo
	if err := json.Unmarshal(ask("GET", "/admin/sessions", nil).Body.Bytes(), &sessions); err != nil || len(sessions) != 1 || len(sessions[0].Calls) != 1 {
		t.Fatalf("%v, %+v", err, sessions)
	}
	path := "/admin/sessions/" + sessions[0].ID
	if got := ask("DELETE", path+"/calls?id="+url.QueryEscape(`"a b"`), nil).Code; got != 204 {
		t.Errorf("cancelling a call: HTTP %d", got)
	}
	w.hears(`"id":"a b","error"`, "cancelled by an administrator")
	if got := ask("DELETE", path+"/calls?id=1", nil).Code; got != 404 {
		t.Errorf("cancelling nothing: HTTP %d", got)
	}
	var servers []ServerInfo
	if err := json.Unmarshal(ask("GET", "/admin/servers", nil).Body.Bytes(), &servers); err != nil || len(servers) != 1 || len(servers[0].Running) != 1 {
		t.Fatalf("%v, %+v", err, servers)
	}
	w.call("2", "hang", "{}")
	w.hears("progress")
	if got := ask("DELETE", "/admin/servers/fake", nil).Code; got != 204 {
		t.Errorf("ending a server: HTTP %d", got)
	}
	w.hears(`"id":2,"error"`, "ended by an administrator")
	w.call("3", "echo", `{"text":"again"}`)
	w.hears("again")
	if got := ask("DELETE", path, nil).Code; got != 204 {
		t.Errorf("ending a session: HTTP %d", got)
	}
	w.wantsClose(ws.CloseNormal, "ended by an administrator")
	for _, p := range []string{path, "/admin/servers/none"} {
		if p == path {
			until(t, "the session is gone", func() bool { return len(g.Registry().Sessions()) == 0 })
		}
		if got := ask("DELETE", p, nil).Code; got != 404 {
			t.Errorf("%s: HTTP %d", p, got)
		}
	}
}

func TestS8_Metrics(t *testing.T) {
	g, url := serve(t, Options{}, testRoute(Shared))
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(g.Collector())
	w := dial(t, url+"fake")
	w.initialize("{}")
	w.call("1", "large", `{"n":100000}`)
	w.hears("xxx")
	w.call("2", "nosuch", `{}`)
	w.hears("no tool")
	w.say("{")
	w.hears("-32700")
	gather := func() map[string]float64 {
		families, err := r.Gather()
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]float64{}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				name := f.GetName()
				for _, l := range m.GetLabel() {
					name += " " + l.GetValue()
				}
				switch {
				case m.Counter != nil:
					got[name] = m.Counter.GetValue()
				case m.Gauge != nil:
					got[name] = m.Gauge.GetValue()
				case m.Histogram != nil:
					got[name] = float64(m.Histogram.GetSampleCount())
				}
			}
		}
		return got
	}
	// What was sent is counted when it has left, so its reader may be quicker.
	until(t, "all that was heard is counted", func() bool { return gather()["weft_websocket_messages_total out"] >= 4 })
	got := gather()
	for name, want := range map[string]float64{
		"weft_sessions fake": 1, "weft_sessions_total": 1, "weft_server_instances fake up": 1, "weft_calls_errors_total fake": 1,
		"weft_call_duration_seconds fake": 3, "weft_messages_refused_total fake": 1, "weft_websocket_messages_total in": 5,
		"weft_websocket_messages_total out": 4, "weft_websocket_fragmented_messages_total out": 1, "weft_calls_in_flight fake": 0,
		"weft_websocket_message_fragments out": 4,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	for name := range got {
		if strings.Contains(name, w.c.LocalAddr().String()) {
			t.Errorf("%s is labelled by client", name)
		}
	}
}
