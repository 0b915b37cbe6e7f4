package envelope

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func mustParse(t *testing.T, s string) *Message {
	t.Helper()
	m, err := Parse([]byte(s))
	if err != nil {
		t.Fatalf("Parse(%q): %v", s, err)
	}
	return &m
}

func TestKinds(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want Kind
	}{
		{`{"jsonrpc":"2.0","id":1,"method":"ping"}`, Request},
		{`{"method":"ping","id":"a","jsonrpc":"2.0","params":null}`, Request},
		{`{"jsonrpc":"2.0","method":"notifications/initialized"}`, Notification},
		{`{"result":{},"jsonrpc":"2.0","id":1}`, Result},
		{`{"result":null,"jsonrpc":"2.0","id":1}`, Result},
		{`{"result":{},"error":null,"jsonrpc":"2.0","id":1}`, Result},
		{`{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":""}}`, Error},
		{`{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":""}}`, Error},
		{`{"jsonrpc":"2.0","error":{"code":1,"message":""}}`, Error},
		{`[]`, Batch},
		{`[{"jsonrpc":"2.0","id":1,"method":"ping"}]`, Batch},
	} {
		if m := mustParse(t, tt.in); m.Kind != tt.want {
			t.Errorf("%s: kind %v (%s), want %v", tt.in, m.Kind, m.Reason, tt.want)
		}
	}
}

// J2: JSON that is no JSON-RPC message is told apart from text that is no JSON.
func TestJ2_NotAMessage(t *testing.T) {
	for _, tt := range []struct{ in, reason string }{
		{`1`, "is an object"},
		{`"x"`, "is an object"},
		{`null`, "is an object"},
		{`{}`, `"jsonrpc" must be "2.0"`},
		{`{"jsonrpc":"1.0","id":1,"method":"a"}`, `"jsonrpc" must be "2.0"`},
		{`{"jsonrpc":2.0,"id":1,"method":"a"}`, `"jsonrpc" must be "2.0"`},
		{`{"jsonrpc":"2.0"}`, "neither method"},
		{`{"jsonrpc":"2.0","id":1}`, "neither method"},
		{`{"jsonrpc":"2.0","id":null,"method":"a"}`, "must not be null"},
		{`{"jsonrpc":"2.0","method":"a","id":null}`, "must not be null"},
		{`{"jsonrpc":"2.0","id":true,"method":"a"}`, "a string or a number"},
		{`{"jsonrpc":"2.0","id":{},"method":"a"}`, "a string or a number"},
		{`{"jsonrpc":"2.0","id":[1],"method":"a"}`, "a string or a number"},
		{`{"jsonrpc":"2.0","id":1,"method":7}`, "a method is a string"},
		{`{"jsonrpc":"2.0","id":1,"method":"a","params":1}`, "params is an object"},
		{`{"jsonrpc":"2.0","id":1,"method":"a","result":{}}`, "either a method or"},
		{`{"jsonrpc":"2.0","id":1,"result":{},"error":{}}`, "either a result or"},
		{`{"jsonrpc":"2.0","result":{}}`, "a result needs an id"},
		{`{"jsonrpc":"2.0","id":1,"error":"no"}`, "an error is an object"},
	} {
		m := mustParse(t, tt.in)
		if m.Kind != Invalid || !strings.Contains(m.Reason, tt.reason) {
			t.Errorf("%s: %v, reason %q, want %q in it", tt.in, m.Kind, m.Reason, tt.reason)
		}
	}
}

// What a lenient parser behind the relay could read differently is refused.
func TestParserDifferences(t *testing.T) {
	for _, tt := range []struct{ in, reason string }{
		{`{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}`, `"method" stands twice`},
		{`{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}`, `"id" stands twice`},
		{`{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call"}`, "letter case"},
		{`{"jsonrpc":"2.0","id":1,"method":"ping","paramſ":{}}`, "letter case"},
		{`{"jsonrpc":"2.0","id":1,"method":"ping","meth\u006fd":"tools/call"}`, `"method" stands twice`},
		{`{"jsonrpc":"2.0","id":1,"method":"ping","method\u0000":"tools/call"}`, "NUL"},
		{`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","name":"b"}}`, `"name" stands twice`},
		{`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","NAME":"b"}}`, "letter case"},
		{`{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"progressToken":1,"progressToken":2}}}`, "stands twice"},
	} {
		m := mustParse(t, tt.in)
		if m.Kind != Invalid || !strings.Contains(m.Reason, tt.reason) {
			t.Errorf("%s: %v, reason %q, want %q in it", tt.in, m.Kind, m.Reason, tt.reason)
		}
	}
	// Inside arguments nothing is ours to judge.
	in := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"x":1,"x":2,"X":3,"a\u0000":4}}}`
	if m := mustParse(t, in); m.Kind != Request {
		t.Errorf("arguments were judged: %s", m.Reason)
	}
}

// J4: ids are carried byte for byte.
func TestJ4_IDBytes(t *testing.T) {
	for _, id := range []string{
		`1`, `-1`, `9007199254740993`, `123456789012345678901234567890`, `1.0`, `1e3`, `-0.5E+10`,
		`"a"`, `""`, `"1"`, `"\u0061\n\"\\"`, `"日本"`, `"` + strings.Repeat("x", 5000) + `"`,
	} {
		m := mustParse(t, ` {"jsonrpc" : "2.0" , "id" : `+id+` , "method":"ping"} `)
		if got := string(m.IDBytes()); got != id {
			t.Errorf("id %s came back as %s", id, got)
		}
	}
}

func TestMembers(t *testing.T) {
	m := mustParse(t, `  {"jsonrpc":"2.0","id":"q","method":"tools\/call","params":{"_meta":{"x":[{}],"progressToken":"tok",`+
		`"io.modelcontextprotocol/protocolVersion":"2026-07-28"},"name":"ec\u0068o","arguments":{"_meta":{"progressToken":9},"name":"no"}}}`)
	check := func(what string, got []byte, want string) {
		t.Helper()
		if string(got) != want {
			t.Errorf("%s is %s, want %s", what, got, want)
		}
	}
	check("method", m.Method, "tools/call")
	check("token", m.Bytes(m.Token), `"tok"`)
	check("version", m.Bytes(m.MetaVersion), `"2026-07-28"`)
	check("name", []byte(m.ParamName()), "echo")
	if !m.Modern() {
		t.Error("a request with its version in _meta is modern")
	}

	m = mustParse(t, `{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":7,"progress":1}}`)
	check("progress token", m.Bytes(m.Progress), `7`)
	m = mustParse(t, `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"a","reason":"x"}}`)
	check("cancelled", m.Bytes(m.Cancelled), `"a"`)
	m = mustParse(t, `{"jsonrpc":"2.0","method":"notifications/x","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":5}}}`)
	check("subscription", m.Bytes(m.Subscription), `5`)
	m = mustParse(t, `{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-11-25","_meta":{"io.modelcontextprotocol/subscriptionId":"s"}}}`)
	check("subscription of a result", m.Bytes(m.Subscription), `"s"`)
	check("version of a result", m.Bytes(m.Version), `"2025-11-25"`)
	if m.Text(m.Version) != "2025-11-25" {
		t.Errorf("Text is %q", m.Text(m.Version))
	}
}

func TestSyntaxErrors(t *testing.T) {
	for _, tt := range []struct {
		in     string
		offset int
	}{
		{``, 0}, {`   `, 3}, {`{`, 1}, {`{"a"`, 4}, {`{"a":`, 5}, {`{"a":1`, 6}, {`{"a":1,`, 7}, {`{"a":1,}`, 7},
		{`{a:1}`, 1}, {`[1,]`, 3}, {`[1 2]`, 3}, {`01`, 1}, {`-`, 1}, {`1.`, 2}, {`1e`, 2}, {`tru`, 0}, {`nulL`, 0},
		{`"abc`, 4}, {`"a` + "\n" + `b"`, 2}, {`"\x"`, 1}, {`"\u12g4"`, 1}, {`{} {}`, 3}, {`NaN`, 0}, {`'a'`, 0},
	} {
		_, err := Parse([]byte(tt.in))
		var se *SyntaxError
		if !errors.As(err, &se) || se.Offset != tt.offset {
			t.Errorf("%q: %v, want a syntax error at byte %d", tt.in, err, tt.offset)
		}
	}
}

func TestNestingBound(t *testing.T) {
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	if _, err := Parse([]byte(deep(MaxDepth))); err != nil {
		t.Errorf("depth %d: %v", MaxDepth, err)
	}
	if _, err := Parse([]byte(deep(MaxDepth + 1))); err == nil {
		t.Errorf("depth %d was accepted", MaxDepth+1)
	}
	if _, err := Parse([]byte(`{"params":` + strings.Repeat(`{"a":`, 5_000_000))); err == nil {
		t.Error("five million open objects were accepted")
	}
}

func TestElements(t *testing.T) {
	m := mustParse(t, ` [ {"jsonrpc":"2.0","id":1,"method":"a"} ,{"jsonrpc":"2.0","method":"b"}, 7, [] ] `)
	got, err := Elements(m, 10)
	if err != nil || len(got) != 4 {
		t.Fatalf("%d elements, %v", len(got), err)
	}
	for i, want := range []Kind{Request, Notification, Invalid, Invalid} {
		if got[i].Kind != want {
			t.Errorf("element %d is a %v, want %v", i, got[i].Kind, want)
		}
	}
	if string(got[0].Raw) != `{"jsonrpc":"2.0","id":1,"method":"a"}` {
		t.Errorf("raw is %s", got[0].Raw)
	}
	if _, err := Elements(m, 3); err == nil {
		t.Error("four elements passed a limit of three")
	}
	if _, err := Elements(mustParse(t, "[ ]"), 3); err == nil {
		t.Error("an empty batch was accepted")
	}
}

func TestAppendEdited(t *testing.T) {
	m := mustParse(t, ` {"jsonrpc":"2.0","id":"long id","method":"m","params":{"_meta":{"progressToken":1}}}`)
	got := string(AppendEdited([]byte("> "), m, Edit{m.Token, []byte("12345")}, Edit{m.ID, []byte("7")}, Edit{m.Cancelled, []byte("no")}))
	want := `> {"jsonrpc":"2.0","id":7,"method":"m","params":{"_meta":{"progressToken":12345}}}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestAppendError(t *testing.T) {
	for _, tt := range []struct {
		id   string
		era  Era
		want string
	}{
		{`9007199254740993`, Legacy, `{"jsonrpc":"2.0","id":9007199254740993,"error":{"code":-32700,"message":"a \"b\"\n"}}`},
		{"", Legacy, `{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"a \"b\"\n"}}`},
		{"", Modern, `{"jsonrpc":"2.0","error":{"code":-32700,"message":"a \"b\"\n"}}`},
	} {
		var id []byte
		if tt.id != "" {
			id = []byte(tt.id)
		}
		if got := string(AppendError(nil, id, tt.era, CodeParse, "a \"b\"\n")); got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		`{"jsonrpc":"2.0","id":1,"method":"a","params":{"_meta":{"progressToken":1}}}`, `[1,{"a":"\u00e9\\"}]`,
		`{"a":"` + strings.Repeat("x", 40) + `"}`, `-1.5e+7`, "\"\x1f\"", `{"result":{"_meta":{}},"id":"x"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if want := json.Valid(b); (err == nil) != want {
			if depth(b) <= MaxDepth {
				t.Fatalf("Parse says %v, encoding/json says valid=%v", err, want)
			}
		}
		if err != nil {
			return
		}
		OneLine(m.Raw)
		if !json.Valid(m.Raw) {
			t.Fatalf("OneLine broke the value: %q", m.Raw)
		}
		if m.Kind == Invalid || m.Kind == Batch {
			return
		}
		// Replacing the id and scanning again finds the new id and nothing
		// else changed.
		if m.ID.Present() {
			n, err := Parse(AppendEdited(nil, &m, Edit{m.ID, []byte(`"new id"`)}))
			if err != nil || string(n.IDBytes()) != `"new id"` || n.Kind != m.Kind || string(n.Method) != string(m.Method) {
				t.Fatalf("after a new id: %v %v %q", err, n.Kind, n.IDBytes())
			}
		}
	})
}

func depth(b []byte) (most int) {
	n := 0
	for _, c := range b {
		switch c {
		case '[', '{':
			n++
			most = max(most, n)
		case ']', '}':
			n--
		}
	}
	return most
}

func BenchmarkParse(b *testing.B) {
	for _, bb := range []struct {
		name string
		text string
	}{
		{"call100B", `{"jsonrpc":"2.0","id":17,"method":"tools/call","params":{"name":"echo","arguments":{"text":"hello"}}}`},
		{"string1MiB", `{"jsonrpc":"2.0","id":17,"result":{"content":[{"type":"text","text":"` + strings.Repeat("hello world ", 87_000) + `"}]}}`},
		{"tokens1MiB", `{"jsonrpc":"2.0","id":17,"result":{"content":[` + strings.Repeat(`{"a":1,"b":[true,null]},`, 43_000) + `0]}}`},
	} {
		b.Run(bb.name, func(b *testing.B) {
			text := []byte(bb.text)
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Parse(text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
