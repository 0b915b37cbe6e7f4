package gateway

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"mime"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/weft-ws/weft/mcpws/envelope"
)

// HTTP is a backend that is an MCP server on Streamable HTTP, in both eras:
//
//   - Up to 2025-11-25: initialize opens a session (Mcp-Session-Id), every
//     message is a POST, what the server says by itself comes on a GET, a
//     stream that was cut is continued with Last-Event-ID, and DELETE ends the
//     session. A session that the server has forgotten (404) is opened again,
//     and a call that met the 404 is sent again, once.
//   - 2026-07-28: every request stands for itself and is told in headers what
//     it is (Mcp-Method, Mcp-Name, Mcp-Param-…). Closing its stream cancels it.
//
// Which era a message belongs to is seen in the message. Redirects are followed
// on the same host and with the same method only.
type HTTP struct {
	URL        string
	Header     http.Header       // of every request, credentials included
	MessageMax int64             // bytes of one message from the server; 0: 16 MiB
	Transport  http.RoundTripper // nil: one of its own, with the proxies of the environment
	Logger     *slog.Logger      // nil: slog.Default()

	mu     sync.Mutex
	own    *http.Transport
	peers  int
	params paramHeaders
}

// Limits of one server on HTTP.
const (
	httpPendingMax   = 4 << 20          // bytes to be sent before Write waits
	httpBigEvents    = 2                // events over eventSmall in memory at a time
	httpEventTimeout = 30 * time.Second // for the rest of an event or an answer once it has begun
	httpSendTimeout  = 60 * time.Second // for the body of a request
	httpNoteTimeout  = 30 * time.Second // for the answer to a notification
	httpTailTimeout  = 5 * time.Second  // for the end of a stream after its answer
	httpDialTimeout  = 10 * time.Second
	httpDeleteMax    = 5 * time.Second
	httpFlushMax     = 2 * time.Second // for notifications that wait when the peer is closed
	httpResumes      = 5               // connections in a row that bring nothing new
	httpResendMax    = 64 << 10        // a larger message is not kept once it has been sent
	httpErrorMax     = 64 << 10        // bytes of an error page
	httpHeaderMax    = 64 << 10
)

// String returns the URL without its query and user, which may hold secrets.
func (b *HTTP) String() string { return shownURL(b.URL) }

// shownURL is a URL that can be shown.
func shownURL(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return "a server"
	}
	u.RawQuery, u.User, u.Fragment = "", nil, ""
	return u.String()
}

// Open makes a client of the server. Nothing is sent before the first message.
func (b *HTTP) Open(context.Context, Caller) (Peer, error) {
	max := int(b.MessageMax)
	if max == 0 {
		max = defaultLineMax
	}
	p := &httpPeer{b: b, max: max, log: b.Logger, out: make(chan httpSaid), over: make(chan struct{}),
		big: make(chan struct{}, httpBigEvents), calls: map[string]*post{}}
	if p.log == nil {
		p.log = slog.Default()
	}
	p.room.L = &p.mu
	p.ctx, p.cancel = context.WithCancelCause(context.Background())
	b.mu.Lock()
	defer b.mu.Unlock()
	rt := b.Transport
	if rt == nil {
		if b.own == nil {
			b.own = &http.Transport{
				Proxy:                  http.ProxyFromEnvironment,
				DialContext:            (&net.Dialer{Timeout: httpDialTimeout, KeepAlive: httpDialTimeout}).DialContext,
				TLSHandshakeTimeout:    httpDialTimeout,
				MaxIdleConnsPerHost:    32,
				IdleConnTimeout:        90 * time.Second,
				MaxResponseHeaderBytes: httpHeaderMax,
				ForceAttemptHTTP2:      true,
				DisableCompression:     true, // limits count what is on the wire, and events are not held back
			}
		}
		rt = b.own
	}
	b.peers++
	p.client = http.Client{Transport: rt, CheckRedirect: sameHost}
	return p, nil
}

// release ends connections that nobody uses when the last peer has gone.
func (b *HTTP) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.peers--; b.peers == 0 && b.own != nil {
		b.own.CloseIdleConnections()
	}
}

const redirectsMax = 3

// sameHost follows redirects that change neither host nor method. Others
// would carry credentials elsewhere, or turn a POST into a GET.
func sameHost(req *http.Request, via []*http.Request) error {
	first := via[0]
	if len(via) > redirectsMax || req.Method != first.Method || req.URL.Host != first.URL.Host || req.URL.Scheme != first.URL.Scheme {
		return http.ErrUseLastResponse
	}
	return nil
}

// An httpPeer is one client of a server on HTTP.
type httpPeer struct {
	b      *HTTP
	max    int
	log    *slog.Logger
	client http.Client
	ctx    context.Context // ends with the peer
	cancel context.CancelCauseFunc
	out    chan httpSaid // unbuffered: who is not read from does not read
	over   chan struct{} // closed when nothing more is said
	big    chan struct{} // a token for each large event in memory
	wg     sync.WaitGroup
	once   sync.Once
	freed  sync.Once

	mu      sync.Mutex
	room    sync.Cond // pending has shrunk, or sending has ended, or closed
	closed  bool
	failure error
	session string // Mcp-Session-Id
	version string // negotiated by initialize
	calls   map[string]*post
	gate    bool // initialize or initialized is on its way: what follows waits
	held    []*post
	notes   []*post // notifications and answers, sent one after the other
	sending bool
	listens bool
	pending int // bytes of held, notes and bodies on their way
}

// httpSaid is what Read returns.
type httpSaid struct {
	msg []byte
	err error
}

// A post is a message to the server.
type post struct {
	m      envelope.Message
	id     string // of a request, as written
	modern bool
	ctx    context.Context
	cancel context.CancelCauseFunc
	sent   chan struct{} // closed when the body has been written, or never will be

	mu      sync.Mutex
	body    []byte // nil: sent and too large to be kept
	counted bool   // in pending
	closed  bool   // sent is closed
}

// errCancelled ends a request of the 2026-07-28 era that its client gave up.
var errCancelled = errors.New("the client has cancelled the call")

var errHTTPClosed = errors.New("the connection to the server has been closed")

// A sessionLostError is the end of a session that the server has forgotten.
// The messages in unsent have not been carried out.
type sessionLostError struct{ unsent [][]byte }

// Error says so.
func (*sessionLostError) Error() string {
	return "the server has forgotten the session; the call may or may not have been carried out"
}

// Read returns the next message of any stream.
func (p *httpPeer) Read() ([]byte, error) {
	select {
	case s := <-p.out:
		return s.msg, s.err
	case <-p.over:
		p.mu.Lock()
		defer p.mu.Unlock()
		return nil, p.failure
	}
}

// say hands something to Read and reports whether it was taken.
func (p *httpPeer) say(s httpSaid) bool {
	select {
	case p.out <- s:
		return true
	case <-p.over:
		return false
	}
}

// finishLocked makes Read and Write fail. The first reason counts.
func (p *httpPeer) finishLocked(err error) {
	if p.failure == nil {
		p.failure = err
		close(p.over)
		p.room.Broadcast()
	}
}

// fail answers a request that will have no other answer.
func (p *httpPeer) fail(x *post, format string, args ...any) {
	if x == nil || x.m.Kind != envelope.Request || errors.Is(context.Cause(x.ctx), errCancelled) {
		return
	}
	p.answered(x, nil)
	p.say(httpSaid{msg: envelope.AppendError(nil, []byte(x.id), envelope.Legacy, envelope.CodeInternal, p.redact(fmt.Sprintf(format, args...)))})
}

// redact removes configured secrets from a text that the server had a hand in.
func (p *httpPeer) redact(s string) string {
	for _, values := range p.b.Header {
		for _, v := range values {
			for _, secret := range append(strings.Fields(v), v) {
				if len(secret) >= 8 {
					s = strings.ReplaceAll(s, secret, "…")
				}
			}
		}
	}
	return s
}

// ended reports whether anybody still wants to hear anything.
func (p *httpPeer) ended() bool {
	select {
	case <-p.over:
		return true
	default:
		return false
	}
}

// goLocked runs f unless the peer is closed.
func (p *httpPeer) goLocked(f func()) {
	if !p.closed {
		p.wg.Go(f)
	}
}

// Write begins to send a message. It waits while too much is on its way.
func (p *httpPeer) Write(msg []byte) error {
	raw := bytes.Clone(msg)
	m, err := envelope.Parse(raw)
	if err != nil {
		return err
	}
	x := &post{m: m, id: string(m.IDBytes()), modern: m.Modern(), body: raw, sent: make(chan struct{})}
	x.ctx, x.cancel = context.WithCancelCause(p.ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.pending > httpPendingMax && !p.closed && p.failure == nil {
		p.room.Wait()
	}
	switch {
	case p.failure != nil:
		return p.failure
	case p.closed:
		return errHTTPClosed
	}
	x.counted = true
	p.pending += len(raw)
	p.dispatchLocked(x)
	return nil
}

// settle notes that a message is no longer on its way.
func (p *httpPeer) settle(x *post) {
	x.mu.Lock()
	n := 0
	if x.counted {
		n, x.counted = len(x.m.Raw), false
	}
	if !x.closed {
		x.closed = true
		close(x.sent)
	}
	x.mu.Unlock()
	if n > 0 {
		p.mu.Lock()
		p.pending -= n
		p.room.Broadcast()
		p.mu.Unlock()
	}
}

// dispatchLocked sends a message, or keeps it until those before it have had
// their effect.
func (p *httpPeer) dispatchLocked(x *post) {
	if p.closed {
		return
	}
	if p.gate && !x.modern {
		p.held = append(p.held, x)
		return
	}
	if x.m.Kind == envelope.Request {
		if x.m.Is("initialize") {
			p.gate, p.session, p.version = true, "", ""
		}
		p.calls[x.id] = x
		p.goLocked(func() { p.call(x) })
		return
	}
	if x.m.Is("notifications/cancelled") {
		c := p.calls[string(x.m.Bytes(x.m.Cancelled))]
		switch {
		case c == nil: // it has been answered
			p.dropLocked(x)
			return
		case c.modern:
			// 2026-07-28: on HTTP a request is cancelled by closing its stream.
			c.cancel(errCancelled)
			p.dropLocked(x)
			return
		}
		time.AfterFunc(cancelledTime, func() { c.cancel(errCancelled) })
	}
	if x.m.Is("notifications/initialized") {
		p.gate = true
	}
	p.notes = append(p.notes, x)
	if !p.sending {
		p.sending = true
		p.goLocked(p.sendNotes)
	}
}

func (p *httpPeer) dropLocked(x *post) {
	x.cancel(nil)
	p.pending -= len(x.m.Raw)
	x.counted = false
	p.room.Broadcast()
}

// openLocked lets the messages go that waited for the session.
func (p *httpPeer) openLocked() {
	p.gate = false
	held := p.held
	p.held = nil
	for i, x := range held {
		if p.gate {
			p.held = append(p.held, held[i:]...)
			return
		}
		p.dispatchLocked(x)
	}
}

// answered is called when a request is known to have its answer, before the
// answer is passed on. m is nil if there is none.
func (p *httpPeer) answered(x *post, m *envelope.Message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.calls[x.id] != x {
		return
	}
	delete(p.calls, x.id)
	if !x.m.Is("initialize") {
		return
	}
	if m != nil && m.Kind == envelope.Result {
		p.version = m.Text(m.Version)
	}
	p.openLocked()
}

// sendNotes sends what wants no answer, in order.
func (p *httpPeer) sendNotes() {
	for {
		p.mu.Lock()
		if len(p.notes) == 0 {
			p.sending = false
			p.room.Broadcast()
			p.mu.Unlock()
			return
		}
		x := p.notes[0]
		p.notes = p.notes[1:]
		var about *post
		if x.m.Is("notifications/cancelled") {
			about = p.calls[string(x.m.Bytes(x.m.Cancelled))]
		}
		p.mu.Unlock()
		p.note(x, about)
	}
}

// note sends one of them. about is the request that it must not overtake.
func (p *httpPeer) note(x, about *post) {
	defer x.cancel(nil)
	defer p.settle(x)
	ctx, cancel := context.WithTimeout(x.ctx, httpNoteTimeout)
	defer cancel()
	if about != nil {
		select {
		case <-about.sent:
		case <-ctx.Done():
			return
		}
	}
	initialized := x.m.Is("notifications/initialized")
	resp, err := p.post(ctx, x)
	if err == nil {
		defer resp.Body.Close()
		session := resp.Request.Header.Get("Mcp-Session-Id")
		switch body, _ := io.ReadAll(io.LimitReader(resp.Body, httpErrorMax)); {
		case resp.StatusCode/100 == 2:
		case session != "" && sessionLost(resp.StatusCode, body):
			p.lose(nil)
			return
		default:
			err = errors.New(p.redact(p.statusText(resp, body)))
		}
	} else {
		err = p.unreachable(ctx, err)
	}
	if err != nil && p.ctx.Err() == nil {
		p.log.Warn("a message to the server was not taken", "kind", x.m.Kind.String(), "method", string(x.m.Method), "err", err)
	}
	if initialized {
		p.mu.Lock()
		defer p.mu.Unlock()
		if err == nil && !p.listens {
			p.listens = true
			p.goLocked(p.listen)
		}
		p.openLocked()
	}
}

// post makes the request. The caller closes the body.
func (p *httpPeer) post(ctx context.Context, x *post) (*http.Response, error) {
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteRequest: func(httptrace.WroteRequestInfo) { p.wrote(x) },
	}), http.MethodPost, p.b.URL, nil)
	if err != nil {
		return nil, err
	}
	req.ContentLength = int64(len(x.m.Raw))
	req.GetBody = x.reader
	if req.Body, err = x.reader(); err != nil {
		return nil, err
	}
	maps.Copy(req.Header, p.b.Header)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, text/event-stream")
	if x.modern {
		p.modernHeader(req.Header, &x.m)
	} else if !x.m.Is("initialize") {
		p.sessionHeader(req.Header)
	}
	resp, err := p.client.Do(req)
	if err == nil {
		p.wrote(x) // whoever answers has it
	}
	return resp, err
}

// wrote is called when the body of a request is on the wire.
func (p *httpPeer) wrote(x *post) {
	p.settle(x)
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.body) > httpResendMax {
		x.body = nil
	}
}

// reader returns the body from its start, again if need be: after a redirect,
// or when an idle connection turned out to be dead.
func (x *post) reader() (io.ReadCloser, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.body == nil {
		return nil, errors.New("the message is too large to be sent again")
	}
	return io.NopCloser(bytes.NewReader(x.body)), nil
}

// sessionHeader says which session a request belongs to (2025-11-25, "Session
// Management" and "Protocol Version Header").
func (p *httpPeer) sessionHeader(h http.Header) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.session != "" {
		h.Set("Mcp-Session-Id", p.session)
	}
	if p.version != "" {
		h.Set("Mcp-Protocol-Version", p.version)
	}
}

// modernHeader says in headers what a request of 2026-07-28 is about.
func (p *httpPeer) modernHeader(h http.Header, m *envelope.Message) {
	h.Set("Mcp-Protocol-Version", m.Text(m.MetaVersion))
	if m.Kind != envelope.Request {
		return
	}
	h.Set("Mcp-Method", string(m.Method))
	switch string(m.Method) {
	case "tools/call":
		h.Set("Mcp-Name", headerText(m.ParamName(), false))
		p.b.params.set(h, m)
	case "prompts/get":
		h.Set("Mcp-Name", headerText(m.ParamName(), false))
	case "resources/read":
		h.Set("Mcp-Name", headerText(m.Text(m.URI), false))
	}
}

// headerText is a text as the value of a header: as it is, or in base64 where
// that cannot be. Of names the SDKs expect other letters than ASCII as they
// are, of parameters (plain) they do not.
func headerText(s string, plain bool) string {
	encode := strings.TrimSpace(s) != s || strings.HasPrefix(s, "=?base64?") && strings.HasSuffix(s, "?=")
	for i := 0; i < len(s) && !encode; i++ {
		encode = s[i] < 0x20 || s[i] == 0x7f || plain && s[i] > 0x7f
	}
	if !encode {
		return s
	}
	return "=?base64?" + base64.StdEncoding.EncodeToString([]byte(s)) + "?="
}

// call carries out a request.
func (p *httpPeer) call(x *post) {
	defer func() {
		p.answered(x, nil)
		p.settle(x)
		x.cancel(nil)
	}()
	late := time.AfterFunc(httpSendTimeout, func() {
		select {
		case <-x.sent:
		default:
			x.cancel(fmt.Errorf("the server did not take the request within %v", httpSendTimeout))
		}
	})
	defer late.Stop()
	at := newExchange(x.ctx)
	defer at.cancel(nil)
	ctx := at.ctx
	resp, err := p.post(ctx, x)
	if err != nil {
		p.fail(x, "%v", p.unreachable(ctx, err))
		return
	}
	if x.m.Is("initialize") && !x.modern {
		p.mu.Lock()
		p.session = resp.Header.Get("Mcp-Session-Id")
		p.mu.Unlock()
	}
	if x.modern && resp.StatusCode == http.StatusBadRequest && x.m.Is("tools/call") {
		if resp, err = p.withParams(ctx, x, resp); err != nil {
			p.fail(x, "%v", p.unreachable(ctx, err))
			return
		}
	}
	switch kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); {
	case resp.StatusCode/100 != 2:
		p.refused(ctx, x, resp)
	case kind == "text/event-stream":
		p.follow(at, x, resp)
	case kind == "application/json":
		p.single(at, x, resp)
	default:
		resp.Body.Close()
		if kind == "" {
			kind = "nothing"
		}
		p.fail(x, "the server answered HTTP %d with %s instead of a message; is the URL that of its MCP endpoint?", resp.StatusCode, kind)
	}
}

// unreachable says why there is no answer at all.
func (p *httpPeer) unreachable(ctx context.Context, err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err // without the URL, whose query may hold secrets
	}
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, context.DeadlineExceeded):
		return errors.New("the server did not answer in time")
	case cause != nil && !errors.Is(cause, context.Canceled):
		return cause
	}
	return fmt.Errorf("the server cannot be reached: %s", p.redact(err.Error()))
}

// sessionLost reports whether a refusal means that the session is unknown. 404
// is what the specification demands; servers that follow the examples of the
// TypeScript and Python SDKs answer 400 and speak of the session ID.
func sessionLost(status int, body []byte) bool {
	if status == http.StatusNotFound {
		return true
	}
	if status != http.StatusBadRequest {
		return false
	}
	m, err := envelope.Parse(body)
	return err == nil && m.Kind == envelope.Error && !m.ID.Present() && bytes.Contains(bytes.ToLower(m.Bytes(m.Error)), []byte("session id"))
}

// refused answers a request that the server answered with an HTTP error.
func (p *httpPeer) refused(ctx context.Context, x *post, resp *http.Response) {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, httpErrorMax))
	resp.Body.Close()
	session := resp.Request.Header.Get("Mcp-Session-Id")
	if session != "" && sessionLost(resp.StatusCode, body) {
		p.lose(x)
		return
	}
	if ctx.Err() != nil {
		p.fail(x, "%v", p.unreachable(ctx, ctx.Err()))
		return
	}
	// In 2026-07-28 an error has both an HTTP status and a JSON-RPC body.
	if m, err := envelope.Parse(body); err == nil && m.Kind == envelope.Error {
		p.answered(x, &m)
		if m.ID.Present() {
			body = envelope.AppendEdited(nil, &m, envelope.Edit{At: m.ID, With: []byte(x.id)})
		} else {
			body = append([]byte(`{"jsonrpc":"2.0","id":`), x.id...)
			body = append(append(append(body, `,"error":`...), m.Bytes(m.Error)...), '}')
		}
		p.say(httpSaid{msg: body})
		return
	}
	p.fail(x, "%s", p.statusText(resp, body))
}

// statusText says what an HTTP status means and what to do.
func (p *httpPeer) statusText(resp *http.Response, body []byte) string {
	code := resp.StatusCode
	s := strings.TrimSpace(fmt.Sprintf("the server answered HTTP %d %s", code, http.StatusText(code)))
	if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); kind == "text/plain" {
		if line, _, _ := bytes.Cut(bytes.TrimSpace(body), []byte("\n")); len(line) > 0 {
			s += fmt.Sprintf(" (%s)", strings.ToValidUTF8(string(line[:min(len(line), 200)]), "…"))
		}
	}
	remedy := ""
	switch {
	case code/100 == 3:
		to := "nowhere"
		if u, err := resp.Request.URL.Parse(resp.Header.Get("Location")); err == nil && resp.Header.Get("Location") != "" {
			to = shownURL(u.String())
		}
		remedy = fmt.Sprintf("it redirects to %s, which is not followed: give the URL of the endpoint itself", to)
	case code == http.StatusUnauthorized:
		remedy = "give its credential in headers, for instance Authorization"
	case code == http.StatusForbidden:
		remedy = "the credential in headers may not do this, or the server does not like the host or the origin"
	case code == http.StatusNotFound, code == http.StatusMethodNotAllowed:
		remedy = "is the URL that of its MCP endpoint?"
		if strings.HasSuffix(strings.TrimRight(resp.Request.URL.Path, "/"), "/sse") {
			remedy = "the URL looks like that of the deprecated HTTP+SSE transport; give that of Streamable HTTP, often /mcp"
		}
	case code == http.StatusRequestEntityTooLarge:
		remedy = "send less, or raise the server's limit"
	case code == http.StatusTooManyRequests, code == http.StatusServiceUnavailable:
		if after := resp.Header.Get("Retry-After"); after != "" && len(after) < 40 {
			remedy = "try again after " + after
			if strings.Trim(after, "0123456789") == "" {
				remedy += " s"
			}
		}
	}
	if remedy != "" {
		s += "; " + remedy
	}
	return s
}

// lose ends the peer because its session is unknown to the server. x has not
// been carried out.
func (p *httpPeer) lose(x *post) {
	lost := &sessionLostError{}
	if x != nil {
		x.mu.Lock()
		if x.body != nil {
			lost.unsent = [][]byte{x.body}
		}
		x.mu.Unlock()
	}
	p.mu.Lock()
	p.session = "" // there is nothing to end
	p.finishLocked(lost)
	p.mu.Unlock()
	p.cancel(lost)
}

// Close ends the session: notifications that wait are sent, DELETE says so to
// the server, and all streams are closed.
func (p *httpPeer) Close() error {
	p.once.Do(func() {
		p.mu.Lock()
		p.closed = true
		p.finishLocked(errHTTPClosed)
		p.room.Broadcast()
		alarm := time.AfterFunc(httpFlushMax, func() { p.cancel(errHTTPClosed) })
		for p.sending && p.ctx.Err() == nil {
			p.room.Wait()
		}
		alarm.Stop()
		session := p.session
		p.mu.Unlock()
		if session != "" {
			p.end()
		}
		p.cancel(errHTTPClosed)
	})
	p.wg.Wait()
	p.freed.Do(p.b.release)
	return nil
}

// end deletes the session. Servers need not offer that.
func (p *httpPeer) end() {
	ctx, cancel := context.WithTimeout(context.Background(), httpDeleteMax)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, p.b.URL, nil)
	if err != nil {
		return
	}
	maps.Copy(req.Header, p.b.Header)
	p.sessionHeader(req.Header)
	resp, err := p.client.Do(req)
	if err != nil {
		p.log.Debug("the session could not be ended", "err", p.redactErr(err))
		return
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, httpErrorMax))
	resp.Body.Close()
}
