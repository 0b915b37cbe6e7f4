package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/weft-ws/weft/mcpws/envelope"
)

// mergeMark stands between the name of a server and the name of its tool or
// prompt. It fits the names that clients allow: letters, digits, dash and
// underscore.
const mergeMark = "__"

// mergedRoute is the name of the merged endpoint in listings.
const mergedRoute = "(all)"

// merged is a backend that is all other servers together. Their tools and
// prompts have names that begin with their server's; a resource belongs to the
// server that lists its URI. It speaks both eras: a client of 2026-07-28 may
// use servers that only know initialize, and then has what these can do
// without asking the client back.
type merged struct{ g *Gateway }

func (m *merged) String() string { return "all servers" }

// Open joins the client to a hub of each server that it may use. The hubs are
// begun when they are first needed.
func (m *merged) Open(_ context.Context, caller Caller) (Peer, error) {
	p := &mergedPeer{members: map[string]*member{}, asks: map[uint64]mergedAsk{}, owner: map[string]*lane{},
		resources: map[string]*member{}, listens: map[string]*listen{}}
	p.more.L = &p.mu
	p.ctx, p.cancel = context.WithCancel(context.Background())
	for _, rt := range m.g.all() {
		if len(rt.Principals) > 0 && !slices.Contains(rt.Principals, caller.Principal) {
			continue
		}
		mb := &member{peer: p, route: rt, caller: caller}
		mb.lanes = [2]*lane{{mb: mb}, {mb: mb, modern: true}}
		p.members[rt.Name] = mb
		p.names = append(p.names, rt.Name)
	}
	slices.Sort(p.names)
	return p, nil
}

// A mergedPeer is the merged endpoint of one client: a server to the hub above
// it and a client of the hubs below it.
type mergedPeer struct {
	members map[string]*member
	names   []string // of the members, sorted
	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup

	mu        sync.Mutex
	more      sync.Cond // queue has grown, or over
	queue     [][]byte
	queued    int
	over      bool
	init      []byte               // the client's initialize
	meta      []byte               // _meta of the client's last request of 2026-07-28
	asks      map[uint64]mergedAsk // requests of servers, by the id told upwards
	lastAsk   uint64
	owner     map[string]*lane   // calls in flight, by id
	resources map[string]*member // by URI
	templates []template
	listens   map[string]*listen // by id
	lastOwn   uint64             // of our own requests
}

type mergedAsk struct {
	from *lane
	id   []byte
}

// A template is the literal beginning of a template of URIs.
type template struct {
	prefix string
	of     *member
}

const (
	// mergedQueueMax bounds what the members may have said that the client has
	// not been sent yet.
	mergedQueueMax = 64 << 20
	// listTimeout is how long one server may keep the others' lists waiting.
	listTimeout = 20 * time.Second
	// probeTimeout is how long a server may take to answer server/discover
	// before it is taken for one that does not know it.
	probeTimeout = 30 * time.Second
	// listenAgain is the wait before a subscription that a server has ended is
	// made again. It doubles up to listenAgainMax.
	listenAgain    = 5 * time.Second
	listenAgainMax = 5 * time.Minute
	// pagesMax bounds the pages of one server's list, resourcesMax the URIs
	// that are remembered for one client.
	pagesMax     = 100
	resourcesMax = 100_000
)

const modernVersion = "2026-07-28"

var supportedLegacy = []string{"2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"}

const mergedCapabilities = `{"tools":{"listChanged":true},"prompts":{"listChanged":true},"resources":{"listChanged":true,"subscribe":true},"completions":{}}`

const mergedInfo = `{"name":"weft","title":"all servers of this gateway","version":"1"}`

// do runs f on a goroutine that Close waits for.
func (p *mergedPeer) do(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.over {
		p.wg.Go(f)
	}
}

// Write takes a message of the client. Ids are numbers of the hub above.
func (p *mergedPeer) Write(raw []byte) error {
	m, err := envelope.Parse(bytes.Clone(raw))
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
			a.from.send(envelope.AppendEdited(nil, &m, envelope.Edit{At: m.ID, With: a.id}))
		}
	}
	return nil
}

func (p *mergedPeer) refuse(m *envelope.Message, code int, format string, args ...any) {
	p.say(envelope.AppendError(nil, m.IDBytes(), envelope.Legacy, code, fmt.Sprintf(format, args...)))
}

// lists are the lists that can be merged: where in the result they are, and
// whether their names are prefixed.
var lists = map[string]struct {
	key   string
	named bool
}{
	"tools/list":               {"tools", true},
	"prompts/list":             {"prompts", true},
	"resources/list":           {"resources", false},
	"resources/templates/list": {"resourceTemplates", false},
}

func (p *mergedPeer) request(m *envelope.Message) {
	modern := m.Modern()
	if modern {
		if v := m.Text(m.MetaVersion); v != modernVersion {
			b, _ := json.Marshal(append([]string{modernVersion}, supportedLegacy...))
			p.say(fmt.Appendf(nil, `{"jsonrpc":"2.0","id":%s,"error":{"code":%d,"message":"the merged endpoint does not speak this version","data":{"supported":%s,"requested":%s}}}`,
				m.IDBytes(), envelope.CodeUnsupportedVersion, b, envelope.AppendString(nil, v)))
			return
		}
		meta := metaOf(m)
		p.mu.Lock()
		p.meta = meta
		p.mu.Unlock()
	}
	switch method := string(m.Method); method {
	case "initialize":
		version := m.Text(m.Version)
		if !slices.Contains(supportedLegacy, version) {
			version = supportedLegacy[0]
		}
		p.mu.Lock()
		p.init = m.Raw
		p.mu.Unlock()
		p.say(envelope.AppendResult(nil, m.IDBytes(), fmt.Appendf(nil,
			`{"protocolVersion":%q,"capabilities":%s,"serverInfo":%s}`, version, mergedCapabilities, mergedInfo)))
	case "server/discover":
		b, _ := json.Marshal(append([]string{modernVersion}, supportedLegacy...))
		p.say(envelope.AppendResult(nil, m.IDBytes(), fmt.Appendf(nil,
			`{"resultType":"complete","supportedVersions":%s,"capabilities":%s,"ttlMs":0,"cacheScope":"private","_meta":{"io.modelcontextprotocol/serverInfo":%s}}`,
			b, mergedCapabilities, mergedInfo)))
	case "ping":
		p.say(envelope.AppendResult(nil, m.IDBytes(), []byte("{}")))
	case "tools/list", "prompts/list", "resources/list", "resources/templates/list":
		p.do(func() { p.list(m.IDBytes(), method, modern) })
	case "tools/call", "prompts/get":
		server, name, ok := strings.Cut(m.ParamName(), mergeMark)
		mb := p.members[server]
		if !ok || mb == nil {
			what := "tool"
			if method == "prompts/get" {
				what = "prompt"
			}
			p.refuse(m, envelope.CodeInvalidParams, "there is no %s %q; names are SERVER%sNAME", what, m.ParamName(), mergeMark)
			return
		}
		p.pass(mb.lane(modern), m, envelope.Edit{At: m.Name, With: envelope.AppendString(nil, name)})
	case "resources/read", "resources/subscribe", "resources/unsubscribe":
		p.byURI(m, modern, m.Text(m.URI), envelope.Edit{})
	case "completion/complete":
		p.complete(m, modern)
	case "subscriptions/listen":
		p.listen(m)
	default:
		p.refuse(m, envelope.CodeMethodNotFound, "the merged endpoint does not offer %s; connect to /mcp/NAME for all that a server can do", m.Method)
	}
}

// metaOf returns the _meta of a request as it is written.
func metaOf(m *envelope.Message) []byte {
	var params struct {
		Meta json.RawMessage `json:"_meta"`
	}
	if json.Unmarshal(m.Bytes(m.Params), &params) != nil {
		return nil
	}
	return params.Meta
}

// pass hands a request on and notes who has it.
func (p *mergedPeer) pass(l *lane, m *envelope.Message, edit envelope.Edit) {
	p.mu.Lock()
	p.owner[string(m.IDBytes())] = l
	p.mu.Unlock()
	l.send(envelope.AppendEdited(nil, m, edit))
}

// byURI hands a request on to the server whose resource it is about. If that is
// not known yet, the servers are asked for their lists first.
func (p *mergedPeer) byURI(m *envelope.Message, modern bool, uri string, edit envelope.Edit) {
	if mb := p.ownerOf(uri); mb != nil {
		p.pass(mb.lane(modern), m, edit)
		return
	}
	p.do(func() {
		for _, method := range []string{"resources/list", "resources/templates/list"} {
			p.gather(method, modern)
		}
		mb := p.ownerOf(uri)
		if mb == nil {
			p.refuse(m, envelope.CodeInvalidParams, "no server lists a resource %q or a template for it; connect to /mcp/NAME to read it from a certain server", cut([]byte(uri)))
			return
		}
		p.pass(mb.lane(modern), m, edit)
	})
}

// ownerOf is the server that lists a URI, or the longest beginning of it in a
// template.
func (p *mergedPeer) ownerOf(uri string) *member {
	p.mu.Lock()
	defer p.mu.Unlock()
	if mb := p.resources[uri]; mb != nil {
		return mb
	}
	var best template
	for _, t := range p.templates {
		if strings.HasPrefix(uri, t.prefix) && len(t.prefix) > len(best.prefix) {
			best = t
		}
	}
	return best.of
}

// complete hands on the completion of an argument of a prompt or a template.
func (p *mergedPeer) complete(m *envelope.Message, modern bool) {
	var params map[string]json.RawMessage
	var ref map[string]json.RawMessage
	var name, uri string
	if json.Unmarshal(m.Bytes(m.Params), &params) == nil && json.Unmarshal(params["ref"], &ref) == nil {
		_ = json.Unmarshal(ref["name"], &name)
		_ = json.Unmarshal(ref["uri"], &uri)
	}
	if uri != "" {
		p.byURI(m, modern, uri, envelope.Edit{})
		return
	}
	server, prompt, ok := strings.Cut(name, mergeMark)
	mb := p.members[server]
	if !ok || mb == nil {
		p.refuse(m, envelope.CodeInvalidParams, "there is no prompt %q; names are SERVER%sNAME", name, mergeMark)
		return
	}
	ref["name"] = envelope.AppendString(nil, prompt)
	var err error
	if params["ref"], err = json.Marshal(ref); err != nil {
		p.refuse(m, envelope.CodeInternal, "%v", err)
		return
	}
	b, err := json.Marshal(params)
	if err != nil {
		p.refuse(m, envelope.CodeInternal, "%v", err)
		return
	}
	p.pass(mb.lane(modern), m, envelope.Edit{At: m.Params, With: b})
}

func (p *mergedPeer) notification(m *envelope.Message) {
	switch string(m.Method) {
	case "notifications/initialized":
		// Members are initialised when they are first needed.
	case "notifications/cancelled":
		id := string(m.Bytes(m.Cancelled))
		p.mu.Lock()
		l := p.owner[id]
		ln := p.listens[id]
		delete(p.listens, id)
		p.mu.Unlock()
		if l != nil {
			l.send(m.Raw)
		}
		if ln != nil {
			p.unlisten(ln)
		}
	case "notifications/progress":
		n, _ := number(m.Bytes(m.Progress))
		p.mu.Lock()
		a, ok := p.asks[n]
		p.mu.Unlock()
		if ok {
			a.from.send(envelope.AppendEdited(nil, m, envelope.Edit{At: m.Progress, With: a.id}))
		}
	default:
		for _, name := range p.names {
			if l := p.members[name].lane(m.Modern()); l.started() {
				l.send(bytes.Clone(m.Raw))
			}
		}
	}
}

// list answers with the lists of all servers that answer in time.
func (p *mergedPeer) list(id []byte, method string, modern bool) {
	parts := p.gather(method, modern)
	result := []byte("{")
	if modern {
		result = append(result, `"resultType":"complete","ttlMs":0,"cacheScope":"private",`...)
	}
	result = append(append(append(result, '"'), lists[method].key...), `":[`...)
	first := true
	for _, part := range parts {
		for _, entry := range part {
			if !first {
				result = append(result, ',')
			}
			first = false
			result = append(result, entry...)
		}
	}
	p.say(envelope.AppendResult(nil, id, append(result, "]}"...)))
}

// gather asks every server for a list, all pages. A server that fails leaves
// the others alone.
func (p *mergedPeer) gather(method string, modern bool) [][]json.RawMessage {
	parts := make([][]json.RawMessage, len(p.names))
	ctx, cancel := context.WithTimeout(p.ctx, listTimeout)
	defer cancel()
	var all sync.WaitGroup
	for i, name := range p.names {
		all.Go(func() {
			mb := p.members[name]
			entries, err := mb.lane(modern).list(ctx, method)
			if err != nil && p.ctx.Err() == nil {
				mb.route.g.log.Warn("a server is missing in the merged list", "server", name, "list", method, "err", err)
			}
			parts[i] = entries
		})
	}
	all.Wait()
	switch method {
	case "resources/list":
		p.own(parts)
	case "resources/templates/list":
		p.ownTemplates(parts)
	}
	return parts
}

// own notes whose resources they are. A URI, or a template below, that two
// servers list is that of the first, and left out of the other's list.
func (p *mergedPeer) own(parts [][]json.RawMessage) {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.resources)
	for i, part := range parts {
		mb := p.members[p.names[i]]
		parts[i] = slices.DeleteFunc(part, func(entry json.RawMessage) bool {
			uri := entryMember(entry, "uri")
			if of := p.resources[uri]; of != nil && of != mb {
				return true
			}
			if len(p.resources) < resourcesMax {
				p.resources[uri] = mb
			}
			return false
		})
	}
}

func (p *mergedPeer) ownTemplates(parts [][]json.RawMessage) {
	var all []template
	seen := map[string]int{}
	for i, part := range parts {
		parts[i] = slices.DeleteFunc(part, func(entry json.RawMessage) bool {
			whole := entryMember(entry, "uriTemplate")
			if of, ok := seen[whole]; ok && of != i {
				return true
			}
			seen[whole] = i
			if prefix, _, _ := strings.Cut(whole, "{"); prefix != "" && len(all) < resourcesMax {
				all = append(all, template{prefix, p.members[p.names[i]]})
			}
			return false
		})
	}
	p.mu.Lock()
	p.templates = all
	p.mu.Unlock()
}

// entryMember returns a text that an entry of a list has as a member.
func entryMember(entry json.RawMessage, name string) string {
	var members map[string]json.RawMessage
	var s string
	if json.Unmarshal(entry, &members) != nil || json.Unmarshal(members[name], &s) != nil {
		return ""
	}
	return s
}

// A listen is a subscriptions/listen of the client.
type listen struct {
	id     []byte
	filter listenFilter
	subs   map[*lane]string // the ids of its own requests; under the peer's mu
}

type listenFilter struct {
	Tools     bool     `json:"toolsListChanged,omitempty"`
	Prompts   bool     `json:"promptsListChanged,omitempty"`
	Resources bool     `json:"resourcesListChanged,omitempty"`
	URIs      []string `json:"resourceSubscriptions,omitempty"`
}

// wants reports whether a notification without a subscription is for it.
func (f *listenFilter) wants(method, uri string) bool {
	switch method {
	case "notifications/tools/list_changed":
		return f.Tools
	case "notifications/prompts/list_changed":
		return f.Prompts
	case "notifications/resources/list_changed":
		return f.Resources
	case "notifications/resources/updated":
		return slices.Contains(f.URIs, uri)
	}
	return false
}

const subscriptionMeta = `"_meta":{"io.modelcontextprotocol/subscriptionId":`

// listen subscribes the client at all servers, under one id.
func (p *mergedPeer) listen(m *envelope.Message) {
	var params struct {
		Notifications *listenFilter `json:"notifications"`
	}
	if json.Unmarshal(m.Bytes(m.Params), &params) != nil || params.Notifications == nil {
		p.refuse(m, envelope.CodeInvalidParams, "subscriptions/listen needs an object \"notifications\"")
		return
	}
	ln := &listen{id: m.IDBytes(), filter: *params.Notifications, subs: map[*lane]string{}}
	agreed, err := json.Marshal(ln.filter)
	if err != nil {
		p.refuse(m, envelope.CodeInternal, "%v", err)
		return
	}
	p.mu.Lock()
	p.listens[string(ln.id)] = ln
	p.mu.Unlock()
	p.say(fmt.Appendf(nil, `{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{%s%s},"notifications":%s}}`, subscriptionMeta, ln.id, agreed))
	p.do(func() {
		owned := map[*member][]string{}
		if len(ln.filter.URIs) > 0 {
			p.gather("resources/list", true)
			p.gather("resources/templates/list", true)
			for _, uri := range ln.filter.URIs {
				mb := p.ownerOf(uri)
				owned[mb] = append(owned[mb], uri)
			}
		}
		for _, name := range p.names {
			mb := p.members[name]
			f := ln.filter
			f.URIs = owned[mb]
			mb.lane(true).listen(ln, f, listenAgain)
		}
	})
}

// unlisten ends the subscriptions below.
func (p *mergedPeer) unlisten(ln *listen) {
	p.mu.Lock()
	subs := ln.subs
	ln.subs = nil
	p.mu.Unlock()
	for l, id := range subs {
		l.send(fmt.Appendf(nil, `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":%s}}`, id))
	}
}

// changed passes on a notification of a server that knows no subscriptions to
// those that asked for it.
func (p *mergedPeer) changed(m *envelope.Message) {
	method, uri := string(m.Method), m.Text(m.URI)
	p.mu.Lock()
	var ids [][]byte
	for _, ln := range p.listens {
		if ln.filter.wants(method, uri) {
			ids = append(ids, ln.id)
		}
	}
	p.mu.Unlock()
	for _, id := range ids {
		msg := fmt.Appendf(nil, `{"jsonrpc":"2.0","method":%q,"params":{%s%s}`, method, subscriptionMeta, id)
		if uri != "" {
			msg = envelope.AppendString(append(msg, `,"uri":`...), uri)
		}
		p.say(append(msg, "}}"...))
	}
}

// ownID is an id for a request of our own.
func (p *mergedPeer) ownID(what string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lastOwn++
	return fmt.Sprintf("%q", fmt.Sprintf("%s %d", what, p.lastOwn))
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
	p.cancel()
	for _, mb := range p.members {
		for _, l := range mb.lanes {
			l.mu.Lock()
			h, port := l.hub, l.port
			l.hub, l.port, l.gone = nil, nil, true
			if l.probe != nil {
				l.probe.Stop()
			}
			l.mu.Unlock()
			l.release(h, port)
		}
	}
	p.wg.Wait()
	return nil
}
