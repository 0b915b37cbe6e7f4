package ws

import (
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// A wrapped is what DialOptions.Wrap returns in the test: it keeps what was
// written first, and counts closes.
type wrapped struct {
	net.Conn
	mu     sync.Mutex
	first  string
	closed int
}

func (w *wrapped) Write(p []byte) (int, error) {
	w.mu.Lock()
	if w.first == "" {
		w.first = string(p)
	}
	w.mu.Unlock()
	return w.Conn.Write(p)
}

func (w *wrapped) Close() error {
	w.mu.Lock()
	w.closed++
	w.mu.Unlock()
	return w.Conn.Close()
}

// TestDialWrap: the wrapper stands inside TLS, sees the request first, and is
// closed whether the server accepts or not.
func TestDialWrap(t *testing.T) {
	addr, cfg := testTLS(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		c, err := Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		echoOne(t, c)
	})
	for _, path := range []string{"/yes", "/no"} {
		w := &wrapped{}
		c, err := Dial(t.Context(), "wss://"+addr+path, &DialOptions{TLS: cfg, Wrap: func(nc net.Conn) net.Conn {
			w.Conn = nc
			return w
		}})
		if (err == nil) != (path == "/yes") {
			t.Fatalf("%s: %v", path, err)
		}
		if err == nil {
			if got := ask(t, c, "wrapped"); got != "wrapped" {
				t.Errorf("got %q", got)
			}
			_ = c.CloseNow()
			<-c.Done()
		}
		w.mu.Lock()
		if !strings.HasPrefix(w.first, "GET "+path+" HTTP/1.1\r\n") || w.closed == 0 {
			t.Errorf("%s: first written %.40q, closed %d times", path, w.first, w.closed)
		}
		w.mu.Unlock()
	}
}
