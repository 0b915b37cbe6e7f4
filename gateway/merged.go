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

// mergeMark stands between the name of a server and the name of its tool. It
// fits the names that clients allow: letters, digits, dash and underscore.
const mergeMark = "__"

// mergedRoute is the name of the merged endpoint in listings.
const mergedRoute = "(all)"

// merged is a backend that is all other servers together: their tools, each
// under a name that begins with its server's. It speaks the revisions with
// initialize; modern clients are told so and fall back.
type merged struct{ g *Gateway }

func (m *merged) String() string { return "all servers" }

// Open joins the client to a hub of each server that it may use.
func (m *merged) Open(_ context.Context, caller Caller) (Peer, error) {
	p := &mergedPeer{members: map[string]*member{}, asks: map[uint64]mergedAsk{}, owner: map[string]*member{}}
	p.more.L = &p.mu
	for _, rt := range m.g.all() {
		if len(rt.Principals) > 0 && !slices.Contains(rt.Principals, caller.Principal) {
			continue
		}
		p.members[rt.Name] = &member{peer: p, route: rt, caller: caller}
	}
	return p, nil
}

// A mergedPeer is the merged endpoint of one client: a server to the hub above
// it and a client of the hubs below it.
type mergedPeer struct {
	mu      sync.Mutex
	more    sync.Cond // queue has grown, or over
	queue   [][]byte
	queued  int
	over    bool
	members map[string]*member
	init    []byte               // the client's initialize
	asks    map[uint64]mergedAsk // requests of servers, by the id told upwards
	lastAsk uint64
	owner   map[string]*member // calls in flight, by id
	lists   int
}

type mergedAsk struct {
	from *member
	id   []byte
}

// mergedQueueMax bounds what the members may have said that the client has
// not been sent yet.
const mergedQueueMax = 64 << 20

// listTimeout is how long one server may keep the others' tools waiting.
const listTimeout = 20 * time.Second

// A member is one of the merged servers.
type member struct {
	peer   *mergedPeer
	route  *route
	caller Caller

	mu      sync.Mutex
	hub     *hub
	port    *port
	ready   bool // initialized
	failed  error
	gone    bool
	waiting []*envelope.Message
	replies map[string]func(*envelope.Message)
}

var supportedLegacy = []string{"2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"}

// Write takes a message of the client. Ids are numbers of the hub above.
func (p *mergedPeer) Write(raw []byte) error {
	m, err := envelope.Parse(raw)
	if err != nil {
		return err
	}
	switch m.Kind {
	case envelope.Request:
		p.request(&m)
	case envelope.Notification:
		p.notification(&m)
	case envelope.Result, envelope.Error:
		n, _ := number(m.IDBytes())
		p.mu.Lock()
		a, ok := p.asks[n]
		delete(p.asks, n)
		p.mu.Unlock()
		if ok {
			a.from.sendRaw(envelope.AppendEdited(nil, &m, envelope.Edit{At: m.ID, With: a.id}))
		}
	}
	return nil
}

func (p *mergedPeer) request(m *envelope.Message) {
	switch string(m.Method) {
	case "initialize":
		version := m.Text(m.Version)
		if !slices.Contains(supportedLegacy, version) {
			version = supportedLegacy[0]
		}
		p.mu.Lock()
		p.init = bytes.Clone(m.Raw)
		p.mu.Unlock()
		p.say(envelope.AppendResult(nil, m.IDBytes(), fmt.Appendf(nil,
			`{"protocolVersion":%q,"capabilities":{"tools":{"listChanged":true}},"serverInfo":{"name":"weft","title":"all servers of this gateway","version":"1"}}`, version)))
	case "ping":
		p.say(envelope.AppendResult(nil, m.IDBytes(), []byte("{}")))
	case "tools/list":
		id := bytes.Clone(m.IDBytes())
		go p.list(id)
	case "tools/call":
		server, tool, ok := strings.Cut(m.ParamName(), mergeMark)
		mb := p.members[server]
		if !ok || mb == nil {
			p.say(envelope.AppendError(nil, m.IDBytes(), envelope.Legacy, envelope.CodeInvalidParams,
				fmt.Sprintf("there is no tool %q; names are SERVER%sTOOL", m.ParamName(), mergeMark)))
			return
		}
		p.mu.Lock()
		p.owner[string(m.IDBytes())] = mb
		p.mu.Unlock()
		mb.sendRaw(envelope.AppendEdited(nil, m, envelope.Edit{At: m.Name, With: envelope.AppendString(nil, tool)}))
	case "server/discover":
		b, _ := json.Marshal(supportedLegacy)
		p.say(fmt.Appendf(nil, `{"jsonrpc":"2.0","id":%s,"error":{"code":%d,"message":"the merged endpoint speaks the revisions with initialize","data":{"supported":%s,"requested":%q}}}`,
			m.IDBytes(), envelope.CodeUnsupportedVersion, b, m.Text(m.MetaVersion)))
	default:
		p.say(envelope.AppendError(nil, m.IDBytes(), envelope.Legacy, envelope.CodeMethodNotFound,
			fmt.Sprintf("the merged endpoint offers tools only, not %s; connect to /mcp/NAME for the rest", m.Method)))
	}
}

func (p *mergedPeer) notification(m *envelope.Message) {
	switch string(m.Method) {
	case "notifications/initialized":
		// Members are initialised when they are first needed.
	case "notifications/cancelled":
		p.mu.Lock()
		mb := p.owner[string(m.Bytes(m.Cancelled))]
		p.mu.Unlock()
		if mb != nil {
			mb.sendRaw(bytes.Clone(m.Raw))
		}
	case "notifications/progress":
		n, _ := number(m.Bytes(m.Progress))
		p.mu.Lock()
		a, ok := p.asks[n]
		p.mu.Unlock()
		if ok {
			a.from.sendRaw(envelope.AppendEdited(nil, m, envelope.Edit{At: m.Progress, With: a.id}))
		}
	default:
		for _, mb := range p.members {
			mb.mu.Lock()
			started := mb.hub != nil
			mb.mu.Unlock()
			if started {
				mb.sendRaw(bytes.Clone(m.Raw))
			}
		}
	}
}

// list asks every server for its tools, all pages, and answers with those of
// the servers that answer in time.
func (p *mergedPeer) list(id []byte) {
	names := make([]string, 0, len(p.members))
	for name := range p.members {
		names = append(names, name)
	}
	slices.Sort(names)
	parts := make([][]json.RawMessage, len(names))
	ctx, cancel := context.WithTimeout(context.Background(), listTimeout)
	defer cancel()
	var all sync.WaitGroup
	for i, name := range names {
		all.Go(func() {
			tools, err := p.members[name].tools(ctx)
			if err != nil {
				p.members[name].route.g.log.Warn("a server is missing in the merged list", "server", name, "err", err)
			}
			parts[i] = tools
		})
	}
	all.Wait()
	result := []byte(`{"tools":[`)
	for _, tools := range parts {
		for _, t := range tools {
			if result[len(result)-1] != '[' {
				result = append(result, ',')
			}
			result = append(result, t...)
		}
	}
	p.say(envelope.AppendResult(nil, id, append(result, "]}"...)))
}

// pagesMax bounds the pages of one server's list.
const pagesMax = 100

// tools returns the server's tools under their merged names.
func (mb *member) tools(ctx context.Context) ([]json.RawMessage, error) {
	var out []json.RawMessage
	cursor := ""
	for range pagesMax {
		mb.peer.mu.Lock()
		mb.peer.lists++
		id := fmt.Sprintf(`"list %d"`, mb.peer.lists)
		mb.peer.mu.Unlock()
		msg := `{"jsonrpc":"2.0","id":` + id + `,"method":"tools/list","params":{`
		if cursor != "" {
			msg += `"cursor":` + string(envelope.AppendString(nil, cursor))
		}
		answer := make(chan []byte, 1)
		mb.mu.Lock()
		if mb.replies == nil {
			mb.replies = map[string]func(*envelope.Message){}
		}
		mb.replies[id] = func(m *envelope.Message) { answer <- bytes.Clone(m.Raw) }
		mb.mu.Unlock()
		mb.sendRaw([]byte(msg + "}}"))
		var raw []byte
		select {
		case raw = <-answer:
		case <-ctx.Done():
			mb.mu.Lock()
			delete(mb.replies, id)
			mb.mu.Unlock()
			return out, errors.New("it did not list its tools in time")
		}
		m, err := envelope.Parse(raw)
		if err != nil {
			return out, err
		}
		if m.Kind == envelope.Error {
			return out, fmt.Errorf("%s", cut(m.Bytes(m.Error)))
		}
		var page struct {
			Tools      []json.RawMessage
			NextCursor string `json:"nextCursor"`
		}
		if err := json.Unmarshal(filterTools(m.Bytes(m.Result), nil, mb.route.Name+mergeMark), &page); err != nil {
			return out, err
		}
		out = append(out, page.Tools...)
		if cursor = page.NextCursor; cursor == "" {
			return out, nil
		}
	}
	return out, errors.New("its list has no end")
}

// sendRaw passes a message to the server, which is started and initialised
// first if need be.
func (mb *member) sendRaw(raw []byte) {
	m, err := envelope.Parse(raw)
	if err != nil {
		return
	}
	mb.mu.Lock()
	if mb.gone {
		mb.mu.Unlock()
		return
	}
	if mb.hub == nil && mb.failed == nil {
		mb.start()
	}
	switch {
	case mb.failed != nil:
		err := mb.failed
		mb.mu.Unlock()
		if m.Kind == envelope.Request {
			mb.deliver(envelope.AppendError(nil, m.IDBytes(), envelope.Legacy, envelope.CodeInternal, err.Error()))
		}
	case !mb.ready:
		mb.waiting = append(mb.waiting, &m)
		mb.mu.Unlock()
	default:
		h, p := mb.hub, mb.port
		mb.mu.Unlock()
		h.handle(p, &m)
	}
}

const memberInitID = `"initialize"`

// start joins a hub of the server and begins its initialize. It is called with
// mu held.
func (mb *member) start() {
	mb.peer.mu.Lock()
	raw := mb.peer.init
	mb.peer.mu.Unlock()
	if raw == nil {
		raw = []byte(`{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"weft","version":"1"}}}`)
	}
	m, err := envelope.Parse(raw)
	if err != nil {
		mb.failed = err
		return
	}
	if mb.route.Isolation == Shared {
		mb.hub, err = mb.route.forClass(classOf(&m))
	} else {
		mb.hub, err = mb.route.own(mb.caller, nil)
	}
	if err != nil {
		mb.hub, mb.failed = nil, err
		return
	}
	mb.port = mb.hub.join(mb.deliver)
	m, _ = envelope.Parse(envelope.AppendEdited(nil, &m, envelope.Edit{At: m.ID, With: []byte(memberInitID)}))
	h, p := mb.hub, mb.port
	// The hub may answer at once, and deliver takes mu.
	go h.handle(p, &m)
}

// initialised takes the answer to the member's initialize.
func (mb *member) initialised(m *envelope.Message) {
	mb.mu.Lock()
	waiting := mb.waiting
	mb.waiting = nil
	h, p := mb.hub, mb.port
	if m.Kind == envelope.Error {
		mb.mu.Unlock()
		for _, w := range waiting {
			if w.Kind == envelope.Request {
				mb.deliver(envelope.AppendEdited(nil, m, envelope.Edit{At: m.ID, With: w.IDBytes()}))
			}
		}
		// The next message tries again.
		mb.mu.Lock()
		mb.hub, mb.port = nil, nil
		mb.mu.Unlock()
		mb.release(h, p)
		return
	}
	mb.ready = true
	mb.mu.Unlock()
	ready, _ := envelope.Parse([]byte(`{"jsonrpc":"2.0","method":"notifications/initialized"}`))
	h.handle(p, &ready)
	for _, w := range waiting {
		h.handle(p, w)
	}
}

// deliver takes a message of the server for this client.
func (mb *member) deliver(raw []byte) {
	m, err := envelope.Parse(raw)
	if err != nil {
		return
	}
	p := mb.peer
	switch m.Kind {
	case envelope.Result, envelope.Error:
		id := string(m.IDBytes())
		if id == memberInitID {
			c, _ := envelope.Parse(bytes.Clone(m.Raw))
			go mb.initialised(&c)
			return
		}
		mb.mu.Lock()
		reply := mb.replies[id]
		delete(mb.replies, id)
		mb.mu.Unlock()
		if reply != nil {
			reply(&m)
			return
		}
		p.mu.Lock()
		delete(p.owner, id)
		p.mu.Unlock()
	case envelope.Request:
		p.mu.Lock()
		p.lastAsk++
		n := p.lastAsk
		p.asks[n] = mergedAsk{mb, bytes.Clone(m.IDBytes())}
		p.mu.Unlock()
		num := strconv.AppendUint(nil, n, 10)
		p.say(envelope.AppendEdited(nil, &m, envelope.Edit{At: m.ID, With: num}, envelope.Edit{At: m.Token, With: num}))
		return
	case envelope.Notification:
		if m.Is("notifications/cancelled") {
			p.mu.Lock()
			var num []byte
			for n, a := range p.asks {
				if a.from == mb && bytes.Equal(a.id, m.Bytes(m.Cancelled)) {
					num = strconv.AppendUint(nil, n, 10)
					delete(p.asks, n)
				}
			}
			p.mu.Unlock()
			if num != nil {
				p.say(envelope.AppendEdited(nil, &m, envelope.Edit{At: m.Cancelled, With: num}))
			}
			return
		}
	}
	p.say(bytes.Clone(m.Raw))
}

func (mb *member) release(h *hub, p *port) {
	if h == nil {
		return
	}
	h.leave(p)
	if !h.shared {
		mb.route.disown(h, errors.New("the client has gone"))
	}
}

// say queues a message for the client. It does not wait: it is called by the
// goroutines that read shared servers.
func (p *mergedPeer) say(msg []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return
	}
	p.queue = append(p.queue, msg)
	if p.queued += len(msg); p.queued > mergedQueueMax && len(p.queue) > 1 {
		p.over = true
	}
	p.more.Signal()
}

// Read returns the next message for the client.
func (p *mergedPeer) Read() ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.queue) == 0 && !p.over {
		p.more.Wait()
	}
	if p.over {
		return nil, errors.New("the merged endpoint has ended")
	}
	m := p.queue[0]
	p.queue[0] = nil
	p.queue = p.queue[1:]
	p.queued -= len(m)
	return m, nil
}

// Close leaves all servers.
func (p *mergedPeer) Close() error {
	p.mu.Lock()
	p.over = true
	p.queue = nil
	p.more.Broadcast()
	p.mu.Unlock()
	for _, mb := range p.members {
		mb.mu.Lock()
		h, port := mb.hub, mb.port
		mb.hub, mb.port, mb.gone = nil, nil, true
		mb.mu.Unlock()
		mb.release(h, port)
	}
	return nil
}
