package gateway

import (
	"fmt"
	"strings"
	"testing"

	"github.com/weft-ws/weft/mcpws/envelope"
)

// A client that says everything it must not: each message has a clear answer or
// none, its own session goes on, the session of an honest client at the same
// route notices nothing, and nothing is left behind.
func TestHostileClient(t *testing.T) {
	big := strings.Repeat("x", 1<<20)
	request := func(id, rest string) string { return `{"jsonrpc":"2.0","id":` + id + rest + `}` }
	echo := func(id, token string) string {
		return request(id, `,"method":"tools/call","params":{"name":"echo","arguments":{"text":"mine"},"_meta":{"progressToken":`+token+`}}`)
	}
	type thing struct {
		say  string
		want []string // parts of the answer; nil: there is none
	}
	things := []thing{
		{strings.Repeat("[", 100_000), []string{`"code":-32700`, "nested deeper than 1000"}},
		{strings.Repeat(`{"a":`, 100_000), []string{`"code":-32700`, "nested deeper than 1000"}},
		{`{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}`, []string{`"code":-32600`, "stands twice"}},
		{`{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/list"}`, []string{`"code":-32600`, "stands twice"}},
		{`{"jsonrpc":"2.0","id":1,"method":"ping","Id":2}`, []string{`"code":-32600`, "letter case"}},
		{`{"jsonrpc":"2.0","id":1,"\u006dethod":"ping","method":"x"}`, []string{`"code":-32600`, "stands twice"}},
		{`{"jsonrpc":"2.0","id":{"a":1},"method":"ping"}`, []string{`"code":-32600`, "an id is"}},
		{`{"jsonrpc":"2.0","id":[1],"method":"ping"}`, []string{`"code":-32600`, "an id is"}},
		{`{"jsonrpc":"2.0","id":true,"method":"ping"}`, []string{`"code":-32600`, "an id is"}},
		{`{"jsonrpc":"2.0","id":null,"method":"ping"}`, []string{`"code":-32600`, "null"}},
		{`{"jsonrpc":"2.0","id":1,"method":7}`, []string{`"code":-32600`, "a method is"}},
		{`{"jsonrpc":"2.0","id":1,"method":"ping","params":7}`, []string{`"code":-32600`, "params"}},
		{`{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}`, []string{`"code":-32600`}},
		{`[` + strings.TrimSuffix(strings.Repeat(request("1", `,"method":"ping"`)+",", 10_000), ",") + `]`, []string{`"code":-32600`, "no batches"}},
		{`[]`, []string{`"code":-32600`}},
		{request("9007199254740993", `,"method":"ping"`), []string{`"id":9007199254740993,"result"`}},
		{request("1e999999999", `,"method":"ping"`), []string{`"id":1e999999999,"result"`}},
		{request("-0", `,"method":"ping"`), []string{`"id":-0,"result"`}},
		{request(`"`+big+`"`, `,"method":"ping"`), []string{`"id":"` + big + `","result"`}},
		{request("1", `,"method":"`+big+`"`), []string{`"id":1,"error"`}},
		{echo("1", "null"), []string{`"mine"`, `"id":1}`}},
		{echo("1", "{}"), []string{`"mine"`, `"id":1}`}},
		{echo("1", "[[[]]]"), []string{`"mine"`, `"id":1}`}},
		{echo("1", "true"), []string{`"mine"`, `"id":1}`}},
		{echo("1", "1e400"), []string{`"mine"`, `"id":1}`}},
		{echo("1", `"`+big+`"`), []string{`"mine"`, `"id":1}`}},
		{fmt.Sprintf(initMsg, `"again"`, "2025-11-25", "{}"), []string{`"id":"again"`, "serverInfo"}},
		{fmt.Sprintf(initMsg, `"again"`, big, `{"sampling":{}}`), []string{`"id":"again"`, "serverInfo"}},
		{request("1", `,"result":{}`), nil},
		{request(`"x"`, `,"error":{"code":1,"message":"x"}`), nil},
		{request("18446744073709551616", `,"result":{}`), nil},
		{`{"jsonrpc":"2.0","error":{"code":1,"message":"x"}}`, nil},
		{`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":{"a":1}}}`, nil},
		{`{"jsonrpc":"2.0","method":"notifications/cancelled"}`, nil},
		{`{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":1}}`, nil},
		{`{"jsonrpc":"2.0","method":"notifications/weft/session","params":{"resume":"forged","received":99}}`, nil},
	}
	for id := range 50 { // of calls of others, as the server knows them
		things = append(things, thing{fmt.Sprintf(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":%d}}`, id), nil},
			thing{request(fmt.Sprint(id), `,"result":{"stolen":true}`), nil})
	}
	allModes(t, func(t *testing.T, i Isolation) {
		b := &pipes{}
		g, url := serve(t, Options{}, Route{Name: "fake", Backend: b, Isolation: i, PoolSize: 1})
		honest, hostile := dial(t, url+"fake"), dial(t, url+"fake")
		honest.initialize(`{}`) // shared: the same server as the other, which calls before it initializes
		honest.call("1", "hang", `{}`)
		honest.hears("progress")
		honest.call("2", "ask", `{"text":"for the honest one"}`)
		asked, err := envelope.Parse([]byte(honest.hears("for the honest one")))
		if err != nil {
			t.Fatal(err)
		}

		hostile.call("0", "echo", `{"text":"before initialize"}`)
		hostile.hears(`"id":0`)
		hostile.initialize(`{"sampling":{}}`)
		for n, m := range things {
			if hostile.say("%s", m.say); m.want != nil {
				got := hostile.hears()
				for _, part := range m.want {
					if !strings.Contains(got, part) {
						t.Errorf("%.100s: heard %.200s, want %.100s in it", m.say, got, part)
					}
				}
			}
			hostile.say(`{"jsonrpc":"2.0","id":"after %d","method":"ping"}`, n)
			if got := hostile.hears(); !strings.Contains(got, fmt.Sprintf(`"id":"after %d","result":{}`, n)) {
				t.Fatalf("after %.100s: heard %.200s", m.say, got)
			}
		}
		for range 20 { // tiny notifications, a thousand to a message
			hostile.say("%s", strings.Repeat(`{"jsonrpc":"2.0","method":"notifications/x"}`+"\n", 1000))
		}
		hostile.say(`{"jsonrpc":"2.0","id":"end","method":"ping"}`)
		hostile.hears(`"id":"end"`)

		// The honest client was told nothing of all this, and lost nothing.
		honest.say(`{"jsonrpc":"2.0","id":%s,"result":{"said":"by the honest one"}}`, asked.IDBytes())
		honest.hears(`by the honest one`, `"id":2}`)
		honest.say(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}`)
		honest.hears(`"cancelled"`, `"id":1}`)

		for _, rt := range g.all() {
			rt.each(func(h *hub) {
				h.mu.Lock()
				defer h.mu.Unlock()
				if n := len(h.calls) + len(h.asks) + len(h.asked) + len(h.backlog) + len(h.waiting); n != 0 {
					t.Errorf("%d calls, %d asks, %d, %d and %d items are left", len(h.calls), len(h.asks), len(h.asked), len(h.backlog), len(h.waiting))
				}
			})
		}
	})
}
