package main

import (
	"bytes"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/weft-ws/weft/capture"
)

// traceHeadMax bounds an HTTP head that is kept until it is complete, in bytes.
const traceHeadMax = 64 << 10

// phase is how far a recorded connection has come.
type phase uint8

const (
	looking phase = iota // for a request that wants a WebSocket: others are not recorded
	opening              // the request is recorded; the response has not come
	framing              // the response was 101
	refused              // it was another one, and its body may follow
	stopped              // there is no file for what follows
)

// A recorder writes down one connection, from its upgrade request on, without
// the credentials in the heads of the opening handshake. Heads are written when
// they are complete, everything else as it comes.
type recorder struct {
	t    *tracer
	side capture.Side // ours
	nc   net.Conn     // for its addresses

	mu    sync.Mutex
	phase phase
	skip  bool   // looking: what the client sends is not a head, until the server has answered
	head  []byte // of a request while looking, of a response while opening
	file  *os.File
	w     *capture.Writer
}

// chunk records bytes that a side sent.
func (r *recorder) chunk(from capture.Side, p []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if from == capture.Client {
		p = r.request(now, p)
	} else {
		p = r.response(now, p)
	}
	if len(p) > 0 && r.w != nil {
		_ = r.w.Chunk(from, now, p)
	}
}

// request takes what belongs to the head of an upgrade request off p.
func (r *recorder) request(now time.Time, p []byte) []byte {
	if r.phase == refused {
		// The connection stays for another request, which has a recording of its own.
		r.stop(looking)
	}
	if r.phase != looking || r.skip {
		return p
	}
	r.head = append(r.head, p...)
	end := headEnd(r.head)
	switch {
	case end < 0 && len(r.head) <= traceHeadMax:
		return nil
	case end < 0 || !wantsUpgrade(r.head[:end]):
		r.head, r.skip = nil, true
		return nil
	case !r.begin(now):
		return nil
	}
	_ = r.w.Chunk(capture.Client, now, redactHead(r.head[:end]))
	p, r.head, r.phase = r.head[end:], nil, opening
	return p
}

// response takes what belongs to the heads of responses off p.
func (r *recorder) response(now time.Time, p []byte) []byte {
	if r.phase == looking {
		r.head, r.skip = nil, false
	}
	if r.phase != opening {
		return p
	}
	r.head = append(r.head, p...)
	for r.phase == opening {
		const begins = "HTTP/1."
		if !strings.HasPrefix(begins, string(r.head[:min(len(r.head), len(begins))])) {
			break // whatever this is
		}
		end := headEnd(r.head)
		if end < 0 {
			if len(r.head) > traceHeadMax {
				r.stop(stopped)
			}
			return nil
		}
		head := r.head[:end]
		_ = r.w.Chunk(capture.Server, now, redactHead(head))
		r.head = r.head[end:]
		switch status := string(head[min(len("HTTP/1.1 "), end):min(len("HTTP/1.1 101"), end)]); {
		case status == "101":
			r.phase = framing
		case !strings.HasPrefix(status, "1"): // other 1xx come before the one that counts
			r.phase = refused
		}
	}
	if r.phase == opening {
		r.phase = refused
	}
	p, r.head = r.head, nil
	return p
}

// end records that a side's half of the connection ended.
func (r *recorder) end(from capture.Side, how capture.EndKind) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.w == nil {
		return
	}
	now := time.Now()
	if from == capture.Server && r.phase == opening && len(r.head) > 0 {
		_ = r.w.Chunk(from, now, redactHead(r.head))
		r.head = nil
	}
	_ = r.w.End(from, now, how)
}

// close ends the recording.
func (r *recorder) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stop(stopped)
}

// begin takes a file and reports whether there was one.
func (r *recorder) begin(now time.Time) bool {
	if r.file = r.t.next(); r.file == nil {
		r.stop(stopped)
		return false
	}
	r.w = capture.NewWriter(r.file, capture.Meta{
		Start: now,
		Fields: []capture.Field{
			{Key: "by", Value: "weft " + r.t.verb},
			{Key: r.side.String(), Value: r.nc.LocalAddr().String()},
			{Key: r.side.Peer().String(), Value: r.nc.RemoteAddr().String()},
		},
	})
	return true
}

func (r *recorder) stop(next phase) {
	if r.file != nil {
		_ = r.file.Close() // a full disk has been told of by nobody; the recording ends where it ends
	}
	r.file, r.w, r.head, r.skip, r.phase = nil, nil, nil, false, next
}

// headEnd returns where an HTTP head ends, its empty line included, or -1.
func headEnd(p []byte) int {
	some := false // there was a line that is not empty
	for at := 0; ; {
		n := bytes.IndexByte(p[at:], '\n') + 1
		if n == 0 {
			return -1
		}
		empty := len(bytes.TrimRight(p[at:at+n], "\r\n")) == 0
		if at += n; empty && some {
			return at
		}
		some = some || !empty
	}
}

// wantsUpgrade reports whether a request has to do with WebSocket, well formed
// or not.
func wantsUpgrade(head []byte) bool {
	for line := range bytes.Lines(head) {
		name, _, _ := bytes.Cut(line, []byte(":"))
		name = bytes.ToLower(name)
		if string(name) == "upgrade" || bytes.HasPrefix(name, []byte("sec-websocket-")) {
			return true
		}
	}
	return false
}
