package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"sync"

	"github.com/weft-ws/weft/mcpws/envelope"
)

// paramHeaders are the headers into which a tool wants arguments copied
// (2026-07-28, "x-mcp-header"), known from the lists that have passed.
type paramHeaders struct {
	mu    sync.Mutex
	tools map[string][]paramHeader
}

type paramHeader struct {
	path   []string
	header string
}

const (
	paramToolsMax  = 1024
	paramPagesMax  = 20
	codeHeaderFail = -32020 // headers and body do not match
)

var paramMark = []byte("x-mcp-header")

// learn remembers what a list of tools says about headers.
func (p *httpPeer) learn(x *post, m *envelope.Message) {
	if !x.modern || !x.m.Is("tools/list") || m.Kind != envelope.Result {
		return
	}
	p.b.params.learn(m.Bytes(m.Result))
}

type paramSchema struct {
	Header     string                 `json:"x-mcp-header"`
	Properties map[string]paramSchema `json:"properties"`
}

func (h *paramHeaders) learn(result []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.tools) == 0 && !bytes.Contains(result, paramMark) {
		return // the usual case, without a look inside
	}
	var list struct {
		Tools []struct {
			Name        string
			InputSchema json.RawMessage
		}
	}
	if json.Unmarshal(result, &list) != nil {
		return
	}
	if h.tools == nil {
		h.tools = map[string][]paramHeader{}
	}
	for _, t := range list.Tools {
		delete(h.tools, t.Name)
		var s paramSchema
		if len(h.tools) >= paramToolsMax || !bytes.Contains(t.InputSchema, paramMark) || json.Unmarshal(t.InputSchema, &s) != nil {
			continue
		}
		if found := s.collect(nil, nil); len(found) > 0 {
			h.tools[t.Name] = found
		}
	}
}

func (s paramSchema) collect(path []string, out []paramHeader) []paramHeader {
	for name, prop := range s.Properties {
		at := append(append([]string(nil), path...), name)
		if prop.Header != "" {
			out = append(out, paramHeader{at, prop.Header})
		}
		out = prop.collect(at, out)
	}
	return out
}

func (h *paramHeaders) of(tool string) []paramHeader {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.tools[tool]
}

// set copies arguments into headers. Only the arguments of tools that ask for
// it are decoded.
func (h *paramHeaders) set(header http.Header, m *envelope.Message) {
	wanted := h.of(m.ParamName())
	if len(wanted) == 0 {
		return
	}
	var params struct{ Arguments json.RawMessage }
	if json.Unmarshal(m.Bytes(m.Params), &params) != nil {
		return
	}
	for _, w := range wanted {
		raw := params.Arguments
		for _, name := range w.path {
			var members map[string]json.RawMessage
			if json.Unmarshal(raw, &members) != nil {
				raw = nil
				break
			}
			raw = members[name]
		}
		if text, ok := paramText(raw); ok {
			header.Set("Mcp-Param-"+w.header, text)
		}
	}
}

// paramText is a string, an integer or a boolean as the value of a header.
func paramText(raw []byte) (string, bool) {
	var v any
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if d.Decode(&v) != nil {
		return "", false
	}
	switch v := v.(type) {
	case string:
		return headerText(v, true), true
	case bool:
		return fmt.Sprint(v), true
	case json.Number:
		f, err := v.Float64()
		if err != nil || f != float64(int64(f)) || f > 1<<53-1 || f < -(1<<53-1) {
			return "", false
		}
		return fmt.Sprint(int64(f)), true
	}
	return "", false
}

// withParams sends a tool call again whose headers the server missed, after
// it has asked for the list of tools, which nobody may have done before.
func (p *httpPeer) withParams(ctx context.Context, x *post, resp *http.Response) (*http.Response, error) {
	body, err := io.ReadAll(io.LimitReader(resp.Body, httpErrorMax))
	resp.Body.Close()
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	var answer struct{ Error struct{ Code int } }
	if json.Unmarshal(body, &answer) != nil || answer.Error.Code != codeHeaderFail || len(p.b.params.of(x.m.ParamName())) > 0 {
		return resp, nil
	}
	x.mu.Lock()
	kept := x.body != nil
	x.mu.Unlock()
	var params struct {
		Meta map[string]json.RawMessage `json:"_meta"`
	}
	if !kept || json.Unmarshal(x.m.Bytes(x.m.Params), &params) != nil {
		return resp, nil
	}
	delete(params.Meta, "progressToken")
	cursor := ""
	for range paramPagesMax {
		ask := map[string]any{"_meta": params.Meta}
		if cursor != "" {
			ask["cursor"] = cursor
		}
		if cursor, err = p.listTools(ctx, ask); err != nil || cursor == "" {
			break
		}
	}
	if err != nil || len(p.b.params.of(x.m.ParamName())) == 0 {
		return resp, nil
	}
	return p.post(ctx, x)
}

// listTools asks for one page of tools, learns from it and returns where the
// next begins.
func (p *httpPeer) listTools(ctx context.Context, params map[string]any) (cursor string, err error) {
	raw, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": "weft tools", "method": "tools/list", "params": params})
	if err != nil {
		return "", err
	}
	m, err := envelope.Parse(raw)
	if err != nil {
		return "", err
	}
	x := &post{m: m, id: string(m.IDBytes()), modern: true, body: raw, sent: make(chan struct{}), ctx: ctx}
	ctx, cancel := context.WithTimeout(ctx, httpNoteTimeout)
	defer cancel()
	resp, err := p.post(ctx, x)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var answer []byte
	if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); kind == "text/event-stream" {
		for r := newEventReader(resp.Body, p.max); ; {
			ev, err := r.next()
			if err != nil {
				return "", err
			}
			if m, err := envelope.Parse(ev.data); err == nil && string(m.IDBytes()) == x.id {
				answer = ev.data
				break
			}
		}
	} else if answer, err = io.ReadAll(io.LimitReader(resp.Body, int64(p.max))); err != nil {
		return "", err
	}
	if m, err = envelope.Parse(answer); err != nil {
		return "", err
	}
	p.learn(x, &m)
	var page struct{ NextCursor string }
	return page.NextCursor, json.Unmarshal(m.Bytes(m.Result), &page)
}
