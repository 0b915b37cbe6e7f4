package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/weft-ws/weft/mcpws"
	"github.com/weft-ws/weft/mcpws/envelope"
)

// A hub stands between one server and its clients: one client when every
// client has a server of its own, many when they share it. All ids are
// rewritten, in both modes and in both directions:
//
//   - A request to the server gets a number of ours as its id and, if it asked
//     for progress, the same number as its progress token. Two clients may use
//     the same id, and a server whose JSON library rounds numbers above 2^53
//     or normalises strings cannot damage an id it never sees.
//   - A request of the server gets a number of ours on its way to the client:
//     a server that was restarted begins its ids anew, and an answer to its
//     predecessor must not be taken for one to it.
//
// Locks: wmu is held for one write to the server and taken before mu. mu
// guards everything else and is never held while a message is written or
// delivered.
//
// Lines for a server that is up are collected in out. Who adds the first one
// writes them all: what many clients say at about the same time reaches the
// server in one write, and it is woken once.
type hub struct {
	name    string
	backend Backend
	caller  Caller
	shared  bool // several clients: initialize is answered from memory, and so on
	turns   bool // shared, and the server may ask clients: one client's calls at a time
	limits  hubLimits
	policy  func(tool string) bool // nil: every tool is allowed
	log     *slog.Logger
	stats   *routeStats
	onBreak func(error) // the circuit breaker opened

	wmu sync.Mutex

	mu      sync.Mutex
	state   hubState
	peer    Peer
	broken  error     // why there is no server, for answers meanwhile
	cause   error     // why the present peer was given up, better than what its Read will say
	since   time.Time // start of the present peer
	fails   int       // failures in a row
	backlog []item    // to be written when the server is up
	backlen int       // bytes of it
	out     []item    // to be written now
	outlen  int       // bytes of it
	spare   []item    // memory for the next out
	writing bool      // somebody is about to write out
	stop    chan struct{}
	wg      sync.WaitGroup

	ports  map[*port]struct{}
	nextID uint64
	calls  map[uint64]*call
	asks   map[uint64]*ask
	asked  map[string]uint64 // the server's id of an ask, as written → ours
	subs   map[string]map[*port]struct{}

	// What a shared server may be working on still although nobody waits for
	// it. While there is such a call of one client, what the server asks or
	// says could be about it, and is given to no other client.
	ghosts  map[uint64]ghost
	blurred time.Time // when there were too many ghosts to remember; zero: there were not

	initMsg     []byte // the initialize that was answered
	initID      envelope.Span
	initResult  []byte  // its result, for later clients of a shared server
	initOwner   *call   // an initialize in flight
	initWaiting []*call // clients that wait for it
	inited      bool    // the server has answered an initialize
	ready       bool    // the server has got notifications/initialized

	holder      *port // whose turn it is
	holderCalls int
	waiting     []item
}

type hubLimits struct {
	calls       int           // in flight per client
	messageMax  int           // bytes of one message to the server
	callTimeout time.Duration // without answer or progress; 0: none
}

type hubState uint8

const (
	hubStarting hubState = iota // no server yet, or it is being initialised again
	hubUp
	hubBroken // the circuit breaker is open
	hubClosed
)

// String is the word in listings.
func (s hubState) String() string {
	return [...]string{"starting", "up", "broken", "closed"}[s]
}

// A port is one client's place at a hub. Its fields belong to the hub's mu.
type port struct {
	deliver func(msg []byte)    // to the client; msg is valid during the call
	take    func(buf *[]byte)   // the same for a buffer that is given away; may be nil
	check   func(now time.Time) // called every second, without a lock; may be nil
	meters  meters

	inflight map[string]*call // by the client's id, as written
	active   int              // calls the server is working on for this client
	gone     bool
	modern   bool
	version  string // negotiated by initialize
}

// A call is a client's request in flight.
type call struct {
	id        uint64
	port      *port // nil: a request of the gateway itself
	rawID     []byte
	size      int // counted by the port's meters; 0: it is not
	token     []byte
	method    string
	uri       string
	started   time.Time
	last      time.Time // progress
	sent      bool
	turn      bool
	cancelled bool
	again     bool                                 // sent a second time, since the first server had not taken it
	filter    bool                                 // the answer lists tools that the policy may hide
	reply     func(m *envelope.Message, err error) // of a request of the gateway
}

// A ghost is a call that was given up, by its client, by the end of its client
// or by a deadline, and that the server has not answered.
type ghost struct {
	port  *port
	since time.Time
}

// ghostsMax bounds the ghosts that are remembered one by one.
const ghostsMax = 4096

// giveUpLocked notes that nobody waits for c any more.
func (h *hub) giveUpLocked(c *call, now time.Time) {
	switch {
	case !h.shared || c.port == nil || !c.sent || c.cancelled || !attributable(c.method):
	case len(h.ghosts) >= ghostsMax:
		h.blurred = now
	default:
		h.ghosts[c.id] = ghost{c.port, now}
	}
}

// An ask is a request of the server that a client has to answer.
type ask struct {
	port     *port
	serverID []byte
	token    []byte
}

// An item is a line for the server.
type item struct {
	line []byte
	call *call   // nil for notifications and answers
	buf  *[]byte // where line lies, if it goes back to lines; else nil
}

// free gives the memory of the line back once it is written.
func (it *item) free() {
	if it.buf != nil {
		putLine(it.buf)
		it.buf = nil
	}
}

const (
	outMax        = 256 << 10 // bytes to be written beyond which clients wait
	backlogMax    = 4 << 20   // bytes for a server that is starting
	backlogLenMax = 1024
	// cancelledTime is how long a server may take to stop working on a call
	// that was given up: so long the id stays taken, and the call is thought
	// of when the server asks something. Servers need not answer such calls.
	cancelledTime = time.Minute
)

// lines are buffers for messages on their way. Large ones are not kept.
var lines = sync.Pool{New: func() any { b := make([]byte, 0, 4<<10); return &b }}

const lineKeepMax = 256 << 10

func putLine(b *[]byte) {
	if cap(*b) <= lineKeepMax {
		lines.Put(b)
	}
}

// lineOf returns an empty buffer with room for n bytes.
func lineOf(n int) *[]byte {
	b := lines.Get().(*[]byte)
	if *b = (*b)[:0]; cap(*b) < n {
		*b = make([]byte, 0, n)
	}
	return b
}

func newHub(name string, b Backend, caller Caller) *hub {
	return &hub{
		name: name, backend: b, caller: caller, log: slog.Default(), stats: &routeStats{},
		stop: make(chan struct{}), ports: map[*port]struct{}{}, calls: map[uint64]*call{},
		asks: map[uint64]*ask{}, asked: map[string]uint64{}, subs: map[string]map[*port]struct{}{}, ghosts: map[uint64]ghost{},
		limits: hubLimits{calls: defaultCallsMax, messageMax: defaultLineMax},
	}
}

// join gives a client a place. deliver must not call the hub back, and at a
// shared hub it must not block for long: it is called by the one goroutine
// that reads the server.
func (h *hub) join(deliver func([]byte)) *port {
	p := &port{deliver: deliver, inflight: map[string]*call{}}
	h.mu.Lock()
	h.ports[p] = struct{}{}
	h.mu.Unlock()
	return p
}

// leave ends a client's place. What it had in flight is cancelled at the
// server, what the server had asked it is answered with an error, and its
// subscriptions end unless others have them too.
func (h *hub) leave(p *port) {
	h.mu.Lock()
	if p.gone {
		h.mu.Unlock()
		return
	}
	p.gone = true
	delete(h.ports, p)
	var out []item
	for _, c := range p.inflight {
		if c.sent && !c.cancelled {
			out = append(out, cancelLine(c.id, "the client has gone"))
		}
		h.giveUpLocked(c, time.Now())
		out = append(out, h.dropLocked(c)...)
	}
	keep := h.waiting[:0]
	for _, it := range h.waiting {
		if it.call.port != p {
			keep = append(keep, it)
		}
	}
	h.waiting = keep
	if h.initOwner != nil && h.initOwner.port == p {
		// The next in line becomes the owner: the answer will come.
		h.initOwner = nil
		for i, c := range h.initWaiting {
			if !c.port.gone {
				h.initWaiting = append(h.initWaiting[:i], h.initWaiting[i+1:]...)
				out = append(out, h.sendInitLocked(c)...)
				break
			}
		}
	}
	for id, a := range h.asks {
		if a.port == p {
			delete(h.asks, id)
			delete(h.asked, string(a.serverID))
			out = append(out, item{line: envelope.AppendError(nil, a.serverID, envelope.Legacy, envelope.CodeInternal,
				"the client has gone")})
		}
	}
	if h.shared {
		for uri, owners := range h.subs {
			if _, ok := owners[p]; !ok {
				continue
			}
			delete(owners, p)
			if len(owners) == 0 {
				delete(h.subs, uri)
				out = append(out, h.ownCallLocked("resources/unsubscribe", uriParams(uri), nil))
			}
		}
	}
	h.sendLocked(out)
}

// handle takes one request, notification or answer from a client.
func (h *hub) handle(p *port, m *envelope.Message) {
	switch m.Kind {
	case envelope.Request:
		h.request(p, m)
	case envelope.Notification:
		h.notification(p, m)
	case envelope.Result, envelope.Error:
		h.answer(p, m)
	}
}

func (h *hub) refuse(p *port, m *envelope.Message, code int, format string, args ...any) {
	h.stats.refused.Add(1)
	p.deliver(envelope.AppendError(nil, m.IDBytes(), envelope.Legacy, code, fmt.Sprintf(format, args...)))
}

func (h *hub) request(p *port, m *envelope.Message) {
	if max := h.limits.messageMax; max > 0 && len(m.Raw) > max {
		h.refuse(p, m, envelope.CodeInvalidRequest,
			"the request has %d bytes, and this server takes at most %d; send less or raise the limit of the route", len(m.Raw), max)
		return
	}
	c := &call{port: p, rawID: bytes.Clone(m.IDBytes()), method: string(m.Method), started: time.Now()}
	c.last = c.started
	if m.Token.Present() {
		c.token = bytes.Clone(m.Bytes(m.Token))
	}
	if h.policy != nil {
		switch c.method {
		case "tools/call":
			if name := m.ParamName(); !h.policy(name) {
				h.refuse(p, m, envelope.CodeInvalidParams, "tool %q is not offered here", name)
				return
			}
		case "tools/list":
			c.filter = true
		}
	}

	h.mu.Lock()
	if m.Modern() {
		p.modern = true
	}
	switch {
	case p.gone:
		h.mu.Unlock()
		return
	case h.state == hubClosed, h.state == hubBroken:
		err := h.broken
		h.mu.Unlock()
		h.refuse(p, m, envelope.CodeInternal, "%s", reason(err))
		return
	case p.inflight[string(c.rawID)] != nil:
		h.mu.Unlock()
		h.refuse(p, m, envelope.CodeInvalidRequest, "id %s is in flight already; every request needs an id of its own", cut(c.rawID))
		return
	case len(p.inflight) >= h.limits.calls:
		h.mu.Unlock()
		h.refuse(p, m, envelope.CodeInternal, "%d requests are in flight, the limit of one client; wait for an answer", h.limits.calls)
		return
	}
	switch c.method {
	case "initialize":
		if h.initialize(p, c, m) {
			return
		}
	case "resources/subscribe":
		c.uri = m.Text(m.URI)
		if h.subs[c.uri] == nil {
			h.subs[c.uri] = map[*port]struct{}{}
		}
		h.subs[c.uri][p] = struct{}{}
	case "resources/unsubscribe":
		uri := m.Text(m.URI)
		owners := h.subs[uri]
		delete(owners, p)
		if len(owners) > 0 {
			h.mu.Unlock()
			p.deliver(envelope.AppendResult(nil, c.rawID, []byte("{}")))
			return
		}
		delete(h.subs, uri)
	}
	if c.method != "initialize" { // which others may wait for
		if err := p.meters.take(len(m.Raw)); err != nil {
			h.mu.Unlock()
			h.refuse(p, m, envelope.CodeInternal, "%s", err)
			return
		}
		c.size = len(m.Raw)
	}
	h.registerLocked(c)
	it := h.rewrite(m, c)
	if h.turns && turnMethod(c.method) && !h.takeTurnLocked(c) {
		if len(h.waiting) >= backlogLenMax {
			h.dropLocked(c)
			h.mu.Unlock()
			h.refuse(p, m, envelope.CodeInternal, "too many clients wait for their turn at this server; try again")
			return
		}
		h.waiting = append(h.waiting, it)
		h.mu.Unlock()
		return
	}
	h.sendLocked([]item{it})
}

// turnMethod reports whether the server may ask the client something while it
// works on this method.
func turnMethod(method string) bool {
	switch method {
	case "initialize", "ping", "logging/setLevel", "tools/list", "resources/list", "prompts/list",
		"resources/templates/list", "resources/subscribe", "resources/unsubscribe", "subscriptions/listen", "server/discover":
		return false
	}
	return true
}

// rewrite makes the request with our id and progress token in it.
func (h *hub) rewrite(m *envelope.Message, c *call) item {
	var num [20]byte
	id := strconv.AppendUint(num[:0], c.id, 10)
	envelope.OneLine(m.Raw)
	b := lineOf(len(m.Raw) + 24)
	*b = envelope.AppendEdited(*b, m, envelope.Edit{At: m.ID, With: id}, envelope.Edit{At: m.Token, With: id})
	return item{call: c, line: *b, buf: b}
}

func (h *hub) registerLocked(c *call) {
	h.nextID++
	c.id = h.nextID
	h.calls[c.id] = c
	if c.port != nil {
		c.port.inflight[string(c.rawID)] = c
	}
}

// dropLocked forgets a call and returns what may go now that its turn is over.
func (h *hub) dropLocked(c *call) []item {
	if h.calls[c.id] != c {
		return nil
	}
	delete(h.calls, c.id)
	if c.port != nil {
		delete(c.port.inflight, string(c.rawID))
		h.idleLocked(c)
		if c.size > 0 {
			c.port.meters.give(c.size)
			c.size = 0
		}
	}
	return h.endTurnLocked(c)
}

// idleLocked notes that the server no longer works on c for its client.
func (h *hub) idleLocked(c *call) {
	if c.sent && !c.cancelled && attributable(c.method) {
		c.port.active--
	}
}

// attributable reports whether what the server says while it works on this
// method can be about it. A subscription is open all the time and says
// nothing about who caused what.
func attributable(method string) bool { return method != "subscriptions/listen" }

func (h *hub) takeTurnLocked(c *call) bool {
	if h.holder != nil && (h.holder != c.port || len(h.waiting) > 0) {
		return false
	}
	h.holder, c.turn = c.port, true
	h.holderCalls++
	return true
}

func (h *hub) endTurnLocked(c *call) []item {
	if !c.turn {
		return nil
	}
	c.turn = false
	if h.holderCalls--; h.holderCalls > 0 {
		return nil
	}
	h.holder = nil
	var out, keep []item
	for _, it := range h.waiting {
		p := it.call.port
		switch {
		case p.gone || it.call.cancelled || h.calls[it.call.id] == nil:
		case h.holder == nil || h.holder == p:
			h.holder, it.call.turn = p, true
			h.holderCalls++
			out = append(out, it)
		default:
			keep = append(keep, it)
		}
	}
	h.waiting = keep
	return out
}

// sendLocked writes items to the server, or keeps them until it is up. It is
// called with mu held and returns without it, when they are written or somebody
// else is about to write them. While much waits to be written it waits too, so
// that clients are not read from; the goroutine that reads the server must not
// come here, see postLocked.
func (h *hub) sendLocked(items []item) {
	first, much := h.queueLocked(items)
	switch {
	case first:
		h.flush()
	case much:
		h.wmu.Lock() // until the write under way is over
		h.wmu.Unlock()
	}
}

// postLocked is sendLocked for those who cannot wait for the server: one that
// waits for its answers to be read would never read.
func (h *hub) postLocked(items []item) {
	if first, _ := h.queueLocked(items); first {
		go h.flush()
	}
}

// queueLocked puts items where they belong. It is called with mu held and
// returns without it. first says that the caller has to flush, much that too
// much waits.
func (h *hub) queueLocked(items []item) (first, much bool) {
	if len(items) == 0 {
		h.mu.Unlock()
		return false, false
	}
	switch h.state {
	case hubUp:
		for _, it := range items {
			h.sentLocked(it.call)
			h.outlen += len(it.line)
		}
		h.out = append(h.out, items...)
		first, much = !h.writing, h.outlen > outMax
		h.writing = true
		h.mu.Unlock()
		return first, much
	case hubStarting:
		var over []*call
		for _, it := range items {
			if len(h.backlog) >= backlogLenMax || h.backlen+len(it.line) > backlogMax && len(h.backlog) > 0 {
				if it.call != nil {
					over = append(over, it.call)
				}
				continue
			}
			h.backlog = append(h.backlog, it)
			h.backlen += len(it.line)
		}
		h.failLocked(over, errors.New("the server is starting and too much waits for it already; try again"))
	default:
		var lost []*call
		for _, it := range items {
			if it.call != nil {
				lost = append(lost, it.call)
			}
		}
		h.failLocked(lost, h.broken)
	}
	return false, false
}

// flush writes what is to be written. Others may add to it meanwhile; after a
// few rounds somebody else goes on, for the caller has a client to read from.
func (h *hub) flush() {
	h.mu.Lock()
	alone := len(h.calls) <= 1
	h.mu.Unlock()
	if !alone {
		// Those who have something to say already may say it first: the write
		// and the server's waking up are shared then. With one call in flight
		// nobody is about to come, and it does not wait.
		runtime.Gosched()
	}
	for range flushRounds {
		h.wmu.Lock()
		h.mu.Lock()
		items, peer := h.out, h.peer
		up := h.state == hubUp
		h.out, h.outlen, h.spare = h.spare[:0], 0, nil
		if len(items) == 0 {
			h.writing, h.spare = false, items
			h.mu.Unlock()
			h.wmu.Unlock()
			return
		}
		h.mu.Unlock()
		if up { // else they were for a server that is gone, and their calls have been answered
			h.writeAll(peer, items)
		}
		for i := range items {
			items[i].free()
		}
		clear(items)
		h.mu.Lock()
		if cap(items) <= spareMax {
			h.spare = items[:0]
		}
		h.mu.Unlock()
		h.wmu.Unlock()
	}
	go h.flush()
}

const (
	flushRounds = 8
	spareMax    = 1024 // items for which memory is kept
)

func (h *hub) sentLocked(c *call) {
	if c == nil || c.sent {
		return
	}
	c.sent = true
	if c.port != nil && !c.cancelled && attributable(c.method) {
		c.port.active++
	}
}

// write hands lines to a server that may not be up yet.
func (h *hub) write(peer Peer, items []item) {
	h.wmu.Lock()
	defer h.wmu.Unlock()
	h.writeAll(peer, items)
}

// writeAll writes lines, many in one write if the server can take them so. wmu
// is held. A server that cannot be written to is ended; its reader then sees to
// the rest.
func (h *hub) writeAll(peer Peer, items []item) {
	err := error(nil)
	if b, ok := peer.(interface{ writeLines([]item) error }); ok {
		err = b.writeLines(items)
	} else {
		for i := 0; i < len(items) && err == nil; i++ {
			err = peer.Write(items[i].line)
		}
	}
	if err != nil {
		h.log.Debug("write to server", "err", err)
		h.mu.Lock()
		if h.peer == peer && h.cause == nil {
			h.cause = err
		}
		h.mu.Unlock()
		go peer.Close()
		return
	}
	for _, it := range items {
		h.stats.toServer(len(it.line))
	}
}

// respond answers a request of the server from the goroutine that reads it.
func (h *hub) respond(peer Peer, line []byte) {
	h.mu.Lock()
	if h.peer != peer || h.state != hubUp {
		h.mu.Unlock()
		h.write(peer, []item{{line: line}})
		return
	}
	h.postLocked([]item{{line: line}})
}

// failLocked answers calls with an error. It is called with mu held and
// returns without it. Turns that end may start other calls.
func (h *hub) failLocked(calls []*call, err error) {
	var next []item
	type reply struct {
		c *call
		p *port
	}
	var replies []reply
	for _, c := range calls {
		if h.calls[c.id] != c {
			continue
		}
		next = append(next, h.dropLocked(c)...)
		if h.initOwner == c {
			h.initOwner = nil
			for _, w := range h.initWaiting {
				delete(w.port.inflight, string(w.rawID))
				if !w.port.gone {
					replies = append(replies, reply{w, w.port})
				}
			}
			h.initWaiting = nil
		}
		if c.port == nil || !c.port.gone && !c.cancelled {
			replies = append(replies, reply{c, c.port})
		}
	}
	h.postLocked(next)
	for _, r := range replies {
		if r.c.reply != nil {
			r.c.reply(nil, err)
			continue
		}
		if r.p == nil {
			continue
		}
		h.stats.failed.Add(1)
		r.p.deliver(envelope.AppendError(nil, r.c.rawID, envelope.Legacy, envelope.CodeInternal, reason(err)))
	}
}

func reason(err error) string {
	if err == nil {
		return "the server is not running"
	}
	return err.Error()
}

// cut shortens an id for an error message.
func cut(id []byte) string {
	if len(id) > 64 {
		return string(id[:64]) + "…"
	}
	return string(id)
}

// initialize deals with the initialize of a client. It is called with mu held.
// If it returns true it has done everything and released mu.
func (h *hub) initialize(p *port, c *call, m *envelope.Message) bool {
	if h.shared && h.inited {
		result := h.initResult
		p.version = versionOf(result)
		h.mu.Unlock()
		p.deliver(envelope.AppendResult(nil, c.rawID, result))
		return true
	}
	if h.initOwner != nil {
		if !h.shared {
			h.mu.Unlock()
			h.refuse(p, m, envelope.CodeInvalidRequest, "another initialize is in flight")
			return true
		}
		p.inflight[string(c.rawID)] = c
		h.initWaiting = append(h.initWaiting, c)
		h.mu.Unlock()
		return true
	}
	h.initOwner = c
	h.initMsg = bytes.Clone(m.Raw)
	envelope.OneLine(h.initMsg)
	h.initID = m.ID
	return false
}

// sendInitLocked sends the initialize that is known on behalf of c.
func (h *hub) sendInitLocked(c *call) []item {
	h.initOwner = c
	h.registerLocked(c)
	return []item{{call: c, line: h.initLine(c.id)}}
}

func (h *hub) initLine(id uint64) []byte {
	m := envelope.Message{Raw: h.initMsg}
	return envelope.AppendEdited(nil, &m, envelope.Edit{At: h.initID, With: strconv.AppendUint(nil, id, 10)})
}

func versionOf(initResult []byte) string {
	// The scanner knows the member in a message; make it one.
	m, err := envelope.Parse(envelope.AppendResult(nil, []byte("0"), initResult))
	if err != nil {
		return ""
	}
	return m.Text(m.Version)
}

// ownCallLocked makes a request of the gateway itself. Its answer goes to
// reply, or nowhere if that is nil.
func (h *hub) ownCallLocked(method string, params []byte, reply func(*envelope.Message, error)) item {
	c := &call{method: method, started: time.Now(), reply: reply}
	c.last = c.started
	if c.reply == nil {
		c.reply = func(*envelope.Message, error) {}
	}
	h.registerLocked(c)
	line := strconv.AppendUint([]byte(`{"jsonrpc":"2.0","id":`), c.id, 10)
	line = envelope.AppendString(append(line, `,"method":`...), method)
	if params != nil {
		line = append(append(line, `,"params":`...), params...)
	}
	return item{call: c, line: append(line, '}')}
}

func uriParams(uri string) []byte {
	return append(envelope.AppendString([]byte(`{"uri":`), uri), '}')
}

func cancelLine(id uint64, why string) item {
	line := strconv.AppendUint([]byte(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":`), id, 10)
	line = envelope.AppendString(append(line, `,"reason":`...), why)
	return item{line: append(line, "}}"...)}
}

func (h *hub) notification(p *port, m *envelope.Message) {
	envelope.OneLine(m.Raw)
	var edit envelope.Edit
	h.mu.Lock()
	switch string(m.Method) {
	case "notifications/cancelled":
		c := p.inflight[string(m.Bytes(m.Cancelled))]
		if c == nil || c.cancelled {
			h.mu.Unlock()
			return
		}
		if !c.sent {
			out := h.dropLocked(c)
			h.dropBacklogLocked(c)
			h.sendLocked(out)
			return
		}
		h.idleLocked(c)
		h.giveUpLocked(c, time.Now())
		c.cancelled, c.last = true, time.Now()
		out := h.endTurnLocked(c)
		line := envelope.AppendEdited(nil, m, envelope.Edit{At: m.Cancelled, With: strconv.AppendUint(nil, c.id, 10)})
		h.sendLocked(append([]item{{line: line}}, out...))
		return
	case "notifications/progress":
		n, ok := number(m.Bytes(m.Progress))
		a := h.asks[n]
		if !ok || a == nil || a.port != p || a.token == nil {
			h.mu.Unlock()
			return
		}
		edit = envelope.Edit{At: m.Progress, With: a.token}
	case "notifications/initialized":
		if h.shared && h.ready {
			h.mu.Unlock()
			return
		}
		h.ready = true
	}
	h.sendLocked([]item{{line: envelope.AppendEdited(nil, m, edit)}})
}

func (h *hub) dropBacklogLocked(c *call) {
	for i, it := range h.backlog {
		if it.call == c {
			h.backlen -= len(it.line)
			h.backlog = append(h.backlog[:i], h.backlog[i+1:]...)
			return
		}
	}
}

// answer takes a client's answer to a request of the server.
func (h *hub) answer(p *port, m *envelope.Message) {
	if !m.ID.Present() {
		h.log.Info("the client could not read a message", "error", string(cut(m.Bytes(m.Error))))
		return
	}
	n, ok := number(m.IDBytes())
	h.mu.Lock()
	a := h.asks[n]
	if !ok || a == nil || a.port != p {
		h.mu.Unlock()
		h.log.Debug("an answer to nothing that was asked", "id", cut(m.IDBytes()))
		return
	}
	delete(h.asks, n)
	delete(h.asked, string(a.serverID))
	envelope.OneLine(m.Raw)
	h.sendLocked([]item{{line: envelope.AppendEdited(nil, m, envelope.Edit{At: m.ID, With: a.serverID})}})
}

func number(b []byte) (uint64, bool) {
	n, err := strconv.ParseUint(string(b), 10, 64)
	return n, err == nil
}

// fromServer takes one message from the server. It is called by the goroutine
// that reads it.
func (h *hub) fromServer(peer Peer, m *envelope.Message) {
	h.stats.fromServer(len(m.Raw))
	switch m.Kind {
	case envelope.Result, envelope.Error:
		h.serverAnswer(peer, m)
	case envelope.Request:
		h.serverRequest(peer, m)
	case envelope.Notification:
		h.serverNotification(peer, m)
	case envelope.Batch:
		elements, err := envelope.Elements(m, batchMax)
		if err != nil {
			h.log.Warn("the server sent a batch that cannot be read", "err", err)
			return
		}
		for i := range elements {
			if elements[i].Kind != envelope.Batch {
				h.fromServer(peer, &elements[i])
			}
		}
	default:
		h.log.Warn("the server sent something that is no JSON-RPC message", "reason", m.Reason)
	}
}

// batchMax bounds a batch of the 2025-03-26 revision.
const batchMax = 256

func (h *hub) serverAnswer(peer Peer, m *envelope.Message) {
	n, ok := number(m.IDBytes())
	h.mu.Lock()
	c := h.calls[n]
	if ok && h.peer == peer {
		delete(h.ghosts, n) // it was given up, and now it is over
	}
	if !ok || c == nil || h.peer != peer {
		h.mu.Unlock()
		if m.ID.Present() {
			h.log.Debug("the server answered nothing that was asked", "id", cut(m.IDBytes()))
		} else {
			h.log.Warn("the server could not read a message", "error", cut(m.Bytes(m.Error)))
		}
		return
	}
	next := h.dropLocked(c)
	var waiters []*call
	if c == h.initOwner {
		h.initOwner = nil
		waiters, h.initWaiting = h.initWaiting, nil
		if m.Kind == envelope.Result {
			h.inited, h.fails = true, 0
			h.initResult = bytes.Clone(m.Bytes(m.Result))
		}
		for _, w := range waiters {
			delete(w.port.inflight, string(w.rawID))
			w.port.version = m.Text(m.Version)
		}
		c.port.version = m.Text(m.Version)
	}
	if c.method == "resources/subscribe" && m.Kind == envelope.Error && c.port != nil {
		delete(h.subs[c.uri], c.port)
		if len(h.subs[c.uri]) == 0 {
			delete(h.subs, c.uri)
		}
	}
	gone := c.port == nil || c.port.gone
	h.postLocked(next)
	if c.reply != nil {
		c.reply(m, nil)
		return
	}
	h.stats.answered(time.Since(c.started), m.Kind == envelope.Error)
	if gone {
		return
	}
	h.pass(c.port, m, c)
	for _, w := range waiters {
		h.pass(w.port, m, w)
	}
}

// pass delivers an answer under the client's own id.
func (h *hub) pass(p *port, m *envelope.Message, c *call) {
	if c.filter && m.Kind == envelope.Result {
		p.deliver(envelope.AppendResult(nil, c.rawID, filterTools(m.Bytes(m.Result), h.policy, "")))
		return
	}
	edits := [2]envelope.Edit{{At: m.ID, With: c.rawID}}
	if n, ok := number(m.Bytes(m.Subscription)); ok && n == c.id {
		edits[1] = envelope.Edit{At: m.Subscription, With: c.rawID}
	}
	b := lineOf(len(m.Raw) + len(c.rawID) + 1) // a line feed may follow
	*b = envelope.AppendEdited(*b, m, edits[:]...)
	if p.take != nil {
		p.take(b)
		return
	}
	p.deliver(*b)
	putLine(b)
}

// concernedLocked is the client that a message of the server must be about:
// the only one there is, or the only one the server works for. nil if that
// cannot be told.
func (h *hub) concernedLocked() *port {
	one := h.holder
	if one == nil {
		for p := range h.ports {
			if !h.shared {
				return p
			}
			if p.active > 0 {
				if one != nil {
					return nil
				}
				one = p
			}
		}
	}
	if !h.blurred.IsZero() {
		return nil
	}
	for _, g := range h.ghosts {
		if g.port != one {
			return nil
		}
	}
	return one
}

func (h *hub) serverRequest(peer Peer, m *envelope.Message) {
	if h.shared && m.Is("ping") {
		h.respond(peer, envelope.AppendResult(nil, m.IDBytes(), []byte("{}")))
		return
	}
	h.mu.Lock()
	p := h.concernedLocked()
	why := ""
	switch {
	case p == nil && h.shared:
		why = "this server is shared and it cannot be told which client is meant"
	case p == nil:
		why = "there is no client"
	case len(h.asks) >= h.limits.calls*max(1, len(h.ports)):
		why = "too many requests wait for clients"
	case h.asked[string(m.IDBytes())] != 0:
		why = "this id is in flight already"
	}
	if why != "" {
		h.mu.Unlock()
		h.log.Debug("a request of the server was not passed on", "method", string(m.Method), "why", why)
		h.respond(peer, envelope.AppendError(nil, m.IDBytes(), envelope.Legacy, envelope.CodeInternal, why))
		return
	}
	a := &ask{port: p, serverID: bytes.Clone(m.IDBytes())}
	if m.Token.Present() {
		a.token = bytes.Clone(m.Bytes(m.Token))
	}
	h.nextID++
	id := h.nextID
	h.asks[id] = a
	h.asked[string(a.serverID)] = id
	h.mu.Unlock()
	num := strconv.AppendUint(nil, id, 10)
	p.deliver(envelope.AppendEdited(nil, m, envelope.Edit{At: m.ID, With: num}, envelope.Edit{At: m.Token, With: num}))
}

func (h *hub) serverNotification(peer Peer, m *envelope.Message) {
	var edit envelope.Edit
	var to []*port
	h.mu.Lock()
	switch method := string(m.Method); {
	case method == mcpws.SessionMethod:
		// This one is the gateway's own: a server must not speak for it.
	case method == "notifications/progress":
		n, ok := number(m.Bytes(m.Progress))
		c := h.calls[n]
		if ok && c != nil && c.token != nil && !c.cancelled {
			c.last = time.Now()
			to = append(to, c.port)
			edit = envelope.Edit{At: m.Progress, With: c.token}
		}
	case m.Subscription.Present():
		n, ok := number(m.Bytes(m.Subscription))
		if c := h.calls[n]; ok && c != nil && c.port != nil {
			to = append(to, c.port)
			edit = envelope.Edit{At: m.Subscription, With: c.rawID}
		}
	case method == "notifications/cancelled":
		id := h.asked[string(m.Bytes(m.Cancelled))]
		if a := h.asks[id]; a != nil {
			delete(h.asks, id)
			delete(h.asked, string(a.serverID))
			to = append(to, a.port)
			edit = envelope.Edit{At: m.Cancelled, With: strconv.AppendUint(nil, id, 10)}
		}
	case h.shared && method == "notifications/resources/updated":
		for p := range h.subs[m.Text(m.URI)] {
			to = append(to, p)
		}
	case h.shared && (method == "notifications/tools/list_changed" ||
		method == "notifications/prompts/list_changed" || method == "notifications/resources/list_changed"):
		for p := range h.ports {
			to = append(to, p)
		}
	default:
		if p := h.concernedLocked(); p != nil {
			to = append(to, p)
		}
	}
	h.mu.Unlock()
	if len(to) == 0 {
		h.stats.dropped.Add(1)
		h.log.Debug("a notification of the server concerns nobody", "method", string(m.Method))
		return
	}
	b := lines.Get().(*[]byte)
	*b = envelope.AppendEdited((*b)[:0], m, edit)
	for _, p := range to {
		p.deliver(*b)
	}
	putLine(b)
}

// sweep answers calls that nobody has heard of for too long and forgets
// cancelled ones.
func (h *hub) sweep(now time.Time) {
	h.mu.Lock()
	var checks []func(time.Time)
	for p := range h.ports {
		if p.check != nil {
			checks = append(checks, p.check)
		}
	}
	h.mu.Unlock()
	for _, check := range checks {
		check(now)
	}
	h.mu.Lock()
	var late []*call
	var out []item
	for _, c := range h.calls {
		switch {
		case c.cancelled && now.Sub(c.last) >= cancelledTime:
			out = append(out, h.dropLocked(c)...)
		case !c.cancelled && c.port != nil && h.limits.callTimeout > 0 && attributable(c.method) && now.Sub(c.last) >= h.limits.callTimeout:
			late = append(late, c)
			h.giveUpLocked(c, now)
			if c.sent {
				out = append(out, cancelLine(c.id, "the call took too long"))
			}
		}
	}
	for id, g := range h.ghosts {
		if now.Sub(g.since) >= cancelledTime {
			delete(h.ghosts, id)
		}
	}
	if now.Sub(h.blurred) >= cancelledTime {
		h.blurred = time.Time{}
	}
	if len(late) > 0 {
		// First: a server that answers the cancellation must find nobody waiting.
		h.failLocked(late, fmt.Errorf("no answer and no progress within %v", h.limits.callTimeout))
		h.mu.Lock()
	}
	h.sendLocked(out)
}

// pending counts the calls that clients wait for.
func (h *hub) pending() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := len(h.initWaiting)
	for _, c := range h.calls {
		if c.port != nil && !c.cancelled && attributable(c.method) {
			n++
		}
	}
	return n
}

// defaultCallsMax is how many requests one client may have in flight.
const defaultCallsMax = 256
