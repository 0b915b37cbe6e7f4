package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"time"

	"github.com/weft-ws/weft/mcpws/envelope"
)

// acquire takes a token for a large event.
func (p *httpPeer) acquire(ctx context.Context) bool {
	select {
	case p.big <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// An exchange is one HTTP request and its answer.
type exchange struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
}

func newExchange(parent context.Context) exchange {
	ctx, cancel := context.WithCancelCause(parent)
	return exchange{ctx, cancel}
}

// A watchdog ends an exchange whose event is not finished in time.
type watchdog struct {
	cancel context.CancelCauseFunc
	timer  *time.Timer
}

func (w *watchdog) partial(on bool) {
	switch {
	case on && w.timer == nil:
		w.timer = time.AfterFunc(httpEventTimeout, func() {
			w.cancel(fmt.Errorf("the server did not finish a message within %v", httpEventTimeout))
		})
	case !on && w.timer != nil:
		w.timer.Stop()
		w.timer = nil
	}
}

// single passes on an answer that is a JSON body.
func (p *httpPeer) single(at exchange, x *post, resp *http.Response) {
	defer resp.Body.Close()
	ctx := at.ctx
	dog := watchdog{cancel: at.cancel}
	defer dog.partial(false)
	body := make([]byte, 0, 4<<10)
	if n := resp.ContentLength; n > 0 && n <= eventSmall {
		body = make([]byte, 0, n+1)
	}
	held := false
	defer func() {
		if held {
			<-p.big
		}
	}()
	for {
		if len(body) == cap(body) {
			if len(body) >= eventSmall && !held {
				dog.partial(false)
				if held = p.acquire(ctx); !held {
					p.fail(x, "%v", p.unreachable(ctx, ctx.Err()))
					return
				}
			}
			body = append(body, 0)[:len(body)]
		}
		n, err := resp.Body.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		if len(body) > p.max {
			p.answered(x, nil)
			p.say(httpSaid{err: &LineTooLongError{Max: p.max, ID: []byte(x.id)}})
			return
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			p.fail(x, "the answer of the server was cut off: %v; the call may or may not have been carried out", p.unreachable(ctx, err))
			return
		}
		dog.partial(true)
	}
	m, err := envelope.Parse(body)
	switch {
	case err != nil:
		p.fail(x, "the server answered with something that is %v", err)
		return
	case m.Kind != envelope.Batch && (m.Kind != envelope.Result && m.Kind != envelope.Error || string(m.IDBytes()) != x.id):
		p.fail(x, "the server answered with a message that is no answer to the request")
		return
	}
	p.learn(x, &m)
	p.answered(x, &m)
	p.say(httpSaid{msg: body})
}

// A stream is what is known of a stream of events, over all its connections.
type stream struct {
	last  string        // id of the last event that was passed on
	retry time.Duration // what the server asks for; negative: nothing
}

// events passes on the messages of one connection and returns why it ended,
// and whether the answer to x was among them. x is nil on the stream of what
// the server says by itself. The body is closed.
func (p *httpPeer) events(at exchange, x *post, st *stream, resp *http.Response) (done bool, err error) {
	defer resp.Body.Close()
	dog := watchdog{cancel: at.cancel}
	defer dog.partial(false)
	held := false
	release := func() {
		if held {
			held = false
			<-p.big
		}
	}
	defer release()
	var tail *time.Timer
	defer func() {
		if tail != nil {
			tail.Stop()
		}
	}()
	r := newEventReader(resp.Body, p.max)
	r.partial = dog.partial
	r.big = func() {
		dog.partial(false) // it is not the server that we wait for
		held = p.acquire(at.ctx)
	}
	for {
		ev, err := r.next()
		if err != nil {
			if err == io.EOF {
				err = errors.New("the server ended the stream")
			}
			return done, err
		}
		if ev.retry >= 0 {
			st.retry = ev.retry
		}
		switch {
		case ev.long != nil:
			if !p.say(httpSaid{err: ev.long}) {
				return done, errHTTPClosed
			}
			if x != nil && string(ev.long.ID) == x.id {
				p.answered(x, nil)
				done = true
			}
		case len(ev.data) > 0 && (ev.name == "" || ev.name == "message"):
			m, err := envelope.Parse(ev.data)
			if x != nil && err == nil && (m.Kind == envelope.Result || m.Kind == envelope.Error) && string(m.IDBytes()) == x.id {
				p.learn(x, &m)
				p.answered(x, &m)
				done = true
			}
			if !p.say(httpSaid{msg: ev.data}) {
				return done, errHTTPClosed
			}
		}
		release()
		if ev.hasID {
			st.last = ev.id
		}
		if done && tail == nil {
			// The stream is read to its end, so that its connection can be
			// used again.
			tail = time.AfterFunc(httpTailTimeout, func() { at.cancel(nil) })
		}
	}
}

// follow passes on the stream that answers a request, over as many connections
// as it takes.
func (p *httpPeer) follow(at exchange, x *post, resp *http.Response) {
	st := &stream{retry: -1}
	for tries := 0; ; {
		before := st.last
		done, err := p.events(at, x, st, resp)
		if why := context.Cause(at.ctx); why != nil {
			err = why
		}
		at.cancel(nil)
		if done || p.ended() {
			return
		}
		if st.last != before {
			tries = 0
		}
		const unknown = "the call may or may not have been carried out"
		if st.last == "" || x.modern || x.ctx.Err() != nil {
			p.fail(x, "%s before the answer came; %s", p.redactErr(err), unknown)
			return
		}
		for resp = nil; resp == nil; {
			if tries++; tries > httpResumes {
				p.fail(x, "%s before the answer came, and the stream could not be resumed; %s", p.redactErr(err), unknown)
				return
			}
			if !pause(x.ctx, resumeDelay(st, tries)) {
				return
			}
			at = newExchange(x.ctx)
			var again bool
			if resp, again, err = p.get(at.ctx, st.last); err != nil {
				at.cancel(nil)
				if !again {
					p.fail(x, "%s; %s", p.redactErr(err), unknown)
					return
				}
			}
		}
	}
}

func (p *httpPeer) redactErr(err error) string {
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	return p.redact(err.Error())
}

// Backoff of connections that continue a stream.
const (
	resumeFirst = time.Second
	resumeMax   = 30 * time.Second
)

// resumeDelay is how long to wait before the try. The server's own wish counts
// for the first; it cannot make us hammer it.
func resumeDelay(st *stream, try int) time.Duration {
	if try <= 1 && st.retry >= 0 {
		return st.retry
	}
	return jitter(max(st.retry, min(resumeFirst<<min(try-1, 10), resumeMax)))
}

// pause waits, and reports whether the context lasted.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// get opens a stream of events: after last, or of what the server says by
// itself. again says that another try may succeed.
func (p *httpPeer) get(ctx context.Context, last string) (resp *http.Response, again bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.b.URL, nil)
	if err != nil {
		return nil, false, err
	}
	maps.Copy(req.Header, p.b.Header)
	req.Header.Set("Accept", "text/event-stream")
	p.sessionHeader(req.Header)
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	if resp, err = p.client.Do(req); err != nil {
		return nil, true, err
	}
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if resp.StatusCode == http.StatusOK && kind == "text/event-stream" {
		return resp, false, nil
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, httpErrorMax))
	resp.Body.Close()
	if resp.Request.Header.Get("Mcp-Session-Id") != "" && last != "" && sessionLost(resp.StatusCode, body) {
		p.lose(nil)
	}
	code := resp.StatusCode
	again = code == http.StatusConflict || code == http.StatusTooManyRequests || code >= 500
	if code == http.StatusOK {
		return nil, false, fmt.Errorf("the server answered a GET with %q instead of a stream of events", kind)
	}
	return nil, again, &streamRefusedError{code, p.statusText(resp, body)}
}

// A streamRefusedError is an HTTP error in place of a stream.
type streamRefusedError struct {
	status int
	text   string
}

func (e *streamRefusedError) Error() string { return e.text }

// listen passes on what the server says by itself, for as long as it offers to.
func (p *httpPeer) listen() {
	st := &stream{retry: -1}
	had := false
	for tries := 0; ; {
		at := newExchange(p.ctx)
		resp, again, err := p.get(at.ctx, st.last)
		if err == nil {
			had = true
			before := st.last
			opened := time.Now()
			_, err = p.events(at, nil, st, resp)
			if st.last != before || time.Since(opened) > resumeMax {
				tries = 0
			}
			again = true
		}
		at.cancel(nil)
		if p.ended() {
			return
		}
		var refused *streamRefusedError
		if errors.As(err, &refused) && refused.status == http.StatusNotFound && had {
			p.lose(nil)
			return
		}
		if !again {
			// 405 says that there is no such stream; servers have other ways.
			p.log.Debug("the server has no stream of its own", "err", p.redactErr(err))
			return
		}
		tries++
		if !pause(p.ctx, resumeDelay(st, tries)) {
			return
		}
	}
}
