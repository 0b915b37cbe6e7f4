package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/weft-ws/weft/mcpws/envelope"
)

// A member is one of the merged servers.
type member struct {
	peer   *mergedPeer
	route  *route
	caller Caller
	lanes  [2]*lane
}

// lane returns the way to the server for requests of an era. Clients use one
// of the two.
func (mb *member) lane(modern bool) *lane {
	if modern {
		return mb.lanes[1]
	}
	return mb.lanes[0]
}

// A lane is the client's place at a server, for requests of one era.
type lane struct {
	mb     *member
	modern bool // the era of the client's requests

	mu        sync.Mutex
	hub       *hub
	port      *port
	ready     bool            // initialised, or found to need no initialize
	translate bool            // modern, and the server knows initialize only
	offers    map[string]bool // capabilities of the server
	probe     *time.Timer
	failed    error
	gone      bool
	waiting   []*envelope.Message
	replies   map[string]func(*envelope.Message)
}

const (
	laneInitID     = `"initialize"`
	laneDiscoverID = `"discover"`
)

func (l *lane) started() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hub != nil
}

// send passes a message to the server, which is started and initialised first
// if need be.
func (l *lane) send(raw []byte) {
	m, err := envelope.Parse(raw)
	if err != nil {
		return
	}
	l.mu.Lock()
	if l.gone {
		l.mu.Unlock()
		return
	}
	if l.hub == nil && l.failed == nil {
		l.start()
	}
	switch {
	case l.failed != nil:
		err := l.failed
		l.mu.Unlock()
		if m.Kind == envelope.Request {
			l.deliver(envelope.AppendError(nil, m.IDBytes(), envelope.Legacy, envelope.CodeInternal, err.Error()))
		}
	case !l.ready:
		l.waiting = append(l.waiting, &m)
		l.mu.Unlock()
	default:
		h, p := l.hub, l.port
		l.mu.Unlock()
		l.forward(h, p, &m)
	}
}

// forward gives a message to a server that is ready.
func (l *lane) forward(h *hub, p *port, m *envelope.Message) {
	l.mu.Lock()
	translate := l.translate
	kind, _, _ := strings.Cut(string(m.Method), "/")
	if kind == "completion" {
		kind = "completions"
	}
	lacks := l.offers != nil && !l.offers[kind] && (kind == "prompts" || kind == "resources" || kind == "completions")
	l.mu.Unlock()
	switch {
	case m.Kind == envelope.Request && lacks:
		l.deliver(envelope.AppendError(nil, m.IDBytes(), envelope.Legacy, envelope.CodeMethodNotFound, fmt.Sprintf("the server %s offers no %s", l.mb.route.Name, kind)))
		return
	case translate && m.Is("subscriptions/listen"):
		// Its notifications come without being asked for, except those about
		// certain resources.
		var params struct{ Notifications listenFilter }
		_ = json.Unmarshal(m.Bytes(m.Params), &params)
		for _, uri := range params.Notifications.URIs {
			sub, err := envelope.Parse(fmt.Appendf(nil, `{"jsonrpc":"2.0","id":%s,"method":"resources/subscribe","params":%s}`, l.request("subscribe", nil), uriParams(uri)))
			if err == nil {
				h.handle(p, &sub)
			}
		}
		return
	case translate && m.Kind == envelope.Request && m.Modern():
		old, err := envelope.Parse(legacyRequest(m))
		if err != nil {
			l.deliver(envelope.AppendError(nil, m.IDBytes(), envelope.Legacy, envelope.CodeInvalidParams, err.Error()))
			return
		}
		m = &old
	}
	h.handle(p, m)
}

// legacyRequest is a request of 2026-07-28 without what that revision added to
// its _meta: a server that knows initialize only may refuse it. All values stay
// as they were written.
func legacyRequest(m *envelope.Message) []byte {
	var params, meta map[string]json.RawMessage
	if json.Unmarshal(m.Bytes(m.Params), &params) != nil || json.Unmarshal(params["_meta"], &meta) != nil {
		return m.Raw
	}
	for name := range meta {
		if strings.HasPrefix(name, "io.modelcontextprotocol/") {
			delete(meta, name)
		}
	}
	encode := func(v map[string]json.RawMessage) []byte {
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		if e.Encode(v) != nil {
			return []byte("{}")
		}
		return bytes.TrimSpace(b.Bytes())
	}
	if params["_meta"] = encode(meta); len(meta) == 0 {
		delete(params, "_meta")
	}
	return envelope.AppendEdited(nil, m, envelope.Edit{At: m.Params, With: encode(params)})
}

// request makes an id for a request of our own, whose answer goes to reply.
func (l *lane) request(what string, reply func(*envelope.Message)) string {
	id := l.mb.peer.ownID(what)
	if reply == nil {
		reply = func(*envelope.Message) {}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.replies == nil {
		l.replies = map[string]func(*envelope.Message){}
	}
	l.replies[id] = reply
	return id
}

// start joins a hub of the server and begins its initialize, or asks which era
// it speaks. It is called with mu held.
func (l *lane) start() {
	var first []byte
	class := 0
	if l.modern {
		first = fmt.Appendf(nil, `{"jsonrpc":"2.0","id":%s,"method":"server/discover","params":{"_meta":%s}}`, laneDiscoverID, l.mb.peer.lastMeta())
	} else {
		l.mb.peer.mu.Lock()
		first = l.mb.peer.init
		l.mb.peer.mu.Unlock()
		if first == nil {
			first = fmt.Appendf(nil, `{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":%q,"capabilities":{},"clientInfo":%s}}`, supportedLegacy[0], mergedInfo)
		}
		m, err := envelope.Parse(first)
		if err != nil {
			l.failed = err
			return
		}
		class = classOf(&m)
		first = envelope.AppendEdited(nil, &m, envelope.Edit{At: m.ID, With: []byte(laneInitID)})
	}
	m, err := envelope.Parse(first)
	if err == nil {
		if l.mb.route.Isolation == Shared {
			l.hub, err = l.mb.route.forClass(class)
		} else {
			l.hub, err = l.mb.route.own(l.mb.caller, nil)
		}
	}
	if err != nil {
		l.hub, l.failed = nil, err
		return
	}
	l.port = l.hub.join(l.deliver)
	h, p := l.hub, l.port
	// The hub may answer at once, and deliver takes mu.
	l.mb.peer.do(func() { h.handle(p, &m) })
	if l.modern {
		l.probe = time.AfterFunc(probeTimeout, func() { l.initialize(h, p) })
	}
}

// lastMeta is the _meta for requests of our own.
func (p *mergedPeer) lastMeta() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.meta == nil {
		return []byte("{}")
	}
	return p.meta
}

// discovered takes the answer to server/discover.
func (l *lane) discovered(m *envelope.Message) {
	var r struct {
		SupportedVersions []string
		Capabilities      map[string]json.RawMessage
	}
	l.mu.Lock()
	h, p := l.hub, l.port
	late := l.probe == nil || !l.probe.Stop()
	l.mu.Unlock()
	if late || h == nil {
		return
	}
	if m.Kind == envelope.Result && json.Unmarshal(m.Bytes(m.Result), &r) == nil && slices.Contains(r.SupportedVersions, modernVersion) {
		l.begin(h, p, r.Capabilities)
		return
	}
	l.initialize(h, p)
}

// initialize begins a session for a client that knows none. The server is told
// of no capabilities, since its questions could not be passed on.
func (l *lane) initialize(h *hub, p *port) {
	var meta struct {
		Info json.RawMessage `json:"io.modelcontextprotocol/clientInfo"`
	}
	if json.Unmarshal(l.mb.peer.lastMeta(), &meta) != nil || len(meta.Info) == 0 {
		meta.Info = json.RawMessage(mergedInfo)
	}
	m, err := envelope.Parse(fmt.Appendf(nil, `{"jsonrpc":"2.0","id":%s,"method":"initialize","params":{"protocolVersion":%q,"capabilities":{},"clientInfo":%s}}`, laneInitID, supportedLegacy[0], meta.Info))
	if err != nil {
		return
	}
	l.mu.Lock()
	l.translate = true
	l.mu.Unlock()
	l.mb.peer.do(func() { h.handle(p, &m) })
}

// initialised takes the answer to initialize.
func (l *lane) initialised(m *envelope.Message) {
	l.mu.Lock()
	h, p := l.hub, l.port
	if h == nil {
		l.mu.Unlock()
		return
	}
	if m.Kind == envelope.Error {
		waiting := l.waiting
		l.waiting = nil
		// The next message tries again.
		l.hub, l.port, l.translate = nil, nil, false
		l.mu.Unlock()
		l.release(h, p)
		for _, w := range waiting {
			if w.Kind == envelope.Request {
				l.deliver(envelope.AppendEdited(nil, m, envelope.Edit{At: m.ID, With: w.IDBytes()}))
			}
		}
		return
	}
	l.mu.Unlock()
	ready, err := envelope.Parse([]byte(`{"jsonrpc":"2.0","method":"notifications/initialized"}`))
	if err == nil {
		h.handle(p, &ready)
	}
	var r struct{ Capabilities map[string]json.RawMessage }
	_ = json.Unmarshal(m.Bytes(m.Result), &r)
	l.begin(h, p, r.Capabilities)
}

// begin lets the messages go that waited, in order.
func (l *lane) begin(h *hub, p *port, offers map[string]json.RawMessage) {
	l.mu.Lock()
	l.offers = map[string]bool{}
	for name := range offers {
		l.offers[name] = true
	}
	for len(l.waiting) > 0 {
		waiting := l.waiting
		l.waiting = nil
		l.mu.Unlock()
		for _, w := range waiting {
			l.forward(h, p, w)
		}
		l.mu.Lock()
	}
	l.ready = true
	l.mu.Unlock()
}

// list returns the entries of a list of the server, tools and prompts under
// their merged names.
func (l *lane) list(ctx context.Context, method string) ([]json.RawMessage, error) {
	kind := lists[method]
	prefix := ""
	if kind.named {
		prefix = l.mb.route.Name + mergeMark
	}
	var out []json.RawMessage
	cursor := ""
	for range pagesMax {
		answer := make(chan []byte, 1)
		id := l.request("list", func(m *envelope.Message) { answer <- bytes.Clone(m.Raw) })
		msg := append(append([]byte(`{"jsonrpc":"2.0","id":`), id...), `,"method":`...)
		msg = append(envelope.AppendString(msg, method), `,"params":{`...)
		if l.modern {
			msg = append(append(msg, `"_meta":`...), l.mb.peer.lastMeta()...)
		}
		if cursor != "" {
			if l.modern {
				msg = append(msg, ',')
			}
			msg = envelope.AppendString(append(msg, `"cursor":`...), cursor)
		}
		l.send(append(msg, "}}"...))
		var raw []byte
		select {
		case raw = <-answer:
		case <-ctx.Done():
			l.mu.Lock()
			delete(l.replies, id)
			l.mu.Unlock()
			return out, errors.New("it did not answer in time")
		}
		m, err := envelope.Parse(raw)
		if err != nil {
			return out, err
		}
		if m.Kind == envelope.Error {
			var e struct{ Code int }
			if json.Unmarshal(m.Bytes(m.Error), &e) == nil && e.Code == envelope.CodeMethodNotFound {
				return out, nil // it has none of these
			}
			return out, fmt.Errorf("%.300s", m.Bytes(m.Error))
		}
		result := m.Bytes(m.Result)
		if kind.named {
			result = filterList(result, kind.key, nil, prefix)
		}
		var page map[string]json.RawMessage
		var entries []json.RawMessage
		if err := json.Unmarshal(result, &page); err != nil {
			return out, err
		}
		if err := json.Unmarshal(page[kind.key], &entries); err != nil {
			return out, err
		}
		out = append(out, entries...)
		cursor = ""
		_ = json.Unmarshal(page["nextCursor"], &cursor)
		if cursor == "" {
			return out, nil
		}
	}
	return out, errors.New("its list has no end")
}

// listen subscribes at the server for a subscription of the client.
func (l *lane) listen(ln *listen, f listenFilter, again time.Duration) {
	p := l.mb.peer
	filter, err := json.Marshal(f)
	if err != nil {
		return
	}
	id := l.request("listen", func(m *envelope.Message) {
		if m.Kind == envelope.Error {
			var e struct{ Code int }
			if json.Unmarshal(m.Bytes(m.Error), &e) == nil && (e.Code == envelope.CodeMethodNotFound || e.Code == envelope.CodeInvalidParams) {
				return // it will not
			}
		}
		p.do(func() {
			if pause(p.ctx, again) {
				l.listen(ln, f, min(2*again, listenAgainMax))
			}
		})
	})
	p.mu.Lock()
	wanted := ln.subs != nil && p.listens[string(ln.id)] == ln
	if wanted {
		ln.subs[l] = id
	}
	p.mu.Unlock()
	if wanted {
		l.send(fmt.Appendf(nil, `{"jsonrpc":"2.0","id":%s,"method":"subscriptions/listen","params":{"_meta":%s,"notifications":%s}}`, id, p.lastMeta(), filter))
	}
}

// deliver takes a message of the server for this client.
func (l *lane) deliver(raw []byte) {
	m, err := envelope.Parse(raw)
	if err != nil {
		return
	}
	p := l.mb.peer
	switch m.Kind {
	case envelope.Result, envelope.Error:
		l.answer(&m)
	case envelope.Request:
		if l.modern {
			// 2026-07-28 has no requests of servers.
			answer := envelope.AppendResult(nil, m.IDBytes(), []byte("{}"))
			if !m.Is("ping") {
				answer = envelope.AppendError(nil, m.IDBytes(), envelope.Legacy, envelope.CodeMethodNotFound, "the client takes no requests")
			}
			p.do(func() { l.send(answer) })
			return
		}
		p.mu.Lock()
		p.lastAsk++
		n := p.lastAsk
		p.asks[n] = mergedAsk{l, bytes.Clone(m.IDBytes())}
		p.mu.Unlock()
		num := strconv.AppendUint(nil, n, 10)
		p.say(envelope.AppendEdited(nil, &m, envelope.Edit{At: m.ID, With: num}, envelope.Edit{At: m.Token, With: num}))
	case envelope.Notification:
		l.notification(&m)
	}
}

func (l *lane) answer(m *envelope.Message) {
	id := string(m.IDBytes())
	if id == laneInitID || id == laneDiscoverID {
		c, err := envelope.Parse(bytes.Clone(m.Raw))
		if err != nil {
			return
		}
		next := l.initialised
		if id == laneDiscoverID {
			next = l.discovered
		}
		l.mb.peer.do(func() { next(&c) })
		return
	}
	p := l.mb.peer
	l.mu.Lock()
	reply := l.replies[id]
	delete(l.replies, id)
	translate := l.translate
	l.mu.Unlock()
	if reply != nil {
		reply(m)
		return
	}
	p.mu.Lock()
	delete(p.owner, id)
	p.mu.Unlock()
	if translate && m.Kind == envelope.Result {
		p.say(envelope.AppendEdited(nil, m, completed(m)))
		return
	}
	p.say(bytes.Clone(m.Raw))
}

// completed makes a result that has no resultType one of 2026-07-28, where
// every result has it.
func completed(m *envelope.Message) envelope.Edit {
	result := m.Bytes(m.Result)
	if len(result) < 2 || result[0] != '{' || bytes.Contains(result, []byte(`"resultType"`)) && topNames(result)["resultType"] {
		return envelope.Edit{}
	}
	with := []byte(`{"resultType":"complete",`)
	if len(bytes.TrimSpace(result[1:len(result)-1])) == 0 {
		with = with[:len(with)-1]
	}
	return envelope.Edit{At: envelope.Span{Start: m.Result.Start, End: m.Result.Start + 1}, With: with}
}

func (l *lane) notification(m *envelope.Message) {
	p := l.mb.peer
	switch {
	case m.Is("notifications/cancelled"):
		p.mu.Lock()
		var num []byte
		for n, a := range p.asks {
			if a.from == l && bytes.Equal(a.id, m.Bytes(m.Cancelled)) {
				num = strconv.AppendUint(nil, n, 10)
				delete(p.asks, n)
			}
		}
		p.mu.Unlock()
		if num != nil {
			p.say(envelope.AppendEdited(nil, m, envelope.Edit{At: m.Cancelled, With: num}))
		}
		return
	case m.Subscription.Present():
		sub := string(m.Bytes(m.Subscription))
		var id []byte
		p.mu.Lock()
		for _, ln := range p.listens {
			if ln.subs[l] == sub {
				id = ln.id
			}
		}
		p.mu.Unlock()
		if id != nil && !m.Is("notifications/subscriptions/acknowledged") {
			p.say(envelope.AppendEdited(nil, m, envelope.Edit{At: m.Subscription, With: id}))
		}
		return
	case l.modern && !m.Is("notifications/progress"):
		l.mu.Lock()
		translate := l.translate
		l.mu.Unlock()
		if translate {
			p.changed(m)
			return
		}
	}
	p.say(bytes.Clone(m.Raw))
}

func (l *lane) release(h *hub, p *port) {
	if h == nil {
		return
	}
	h.leave(p)
	if !h.shared {
		l.mb.route.disown(h, errors.New("the client has gone"))
	}
}
