package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weft-ws/weft/mcpws/envelope"
)

func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// helper runs one of the parts that the test binary plays as a child.
func helper(part string) error {
	switch part {
	case "mcp":
		return fakeServer(os.Stdin, os.Stdout)
	case "environ":
		fmt.Println(strings.Join(os.Environ(), " "))
		return nil
	case "args":
		b, err := json.Marshal(os.Args[1:])
		fmt.Println(string(b))
		return err
	case "stderr":
		fmt.Fprintln(os.Stderr, "what went wrong")
		fmt.Println("done")
		_, err := io.Copy(io.Discard, os.Stdin)
		return err
	case "deaf": // reads nothing, ends only when it is made to
		fmt.Println("ready")
		select {}
	case "long":
		fmt.Printf("%s\nshort\n", strings.Repeat("x", 100_000))
		return nil
	case "gateway": // starts a family under a Watcher and waits to be killed
		exe, err := os.Executable()
		if err != nil {
			return err
		}
		log := slog.New(slog.DiscardHandler)
		c := &Command{Path: "/bin/sh", Args: family(os.Args[1]), Logger: log, Watcher: NewWatcher(log, exe, "watch")}
		p, err := c.Open(context.Background(), Caller{})
		if err != nil {
			return err
		}
		line, err := p.Read()
		if err != nil {
			return err
		}
		fmt.Println(string(line))
		select {}
	}
	return fmt.Errorf("no part is called %q", part)
}

// family is a shell with a child and a grandchild that all ignore polite
// signals and the end of their input, and hold the named pipe open.
func family(fifo string) []string {
	return []string{"-c", `exec 3>"$0"; trap '' TERM; (trap '' TERM; sleep 1000 & wait) & echo ready; wait; sleep 1000`, fifo}
}

// fakeServer is an MCP server whose tools do what tests need. It answers each
// request on a goroutine of its own, as real servers may.
func fakeServer(in io.Reader, out io.Writer) error {
	var mu sync.Mutex
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(out, format+"\n", args...)
	}
	type answer struct {
		ID     json.RawMessage
		Result json.RawMessage
		Error  json.RawMessage
	}
	waiting := map[string]chan answer{}
	cancelled := map[string]chan struct{}{}
	asked := 0
	over := make(chan struct{})
	defer close(over)
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		m, err := envelope.Parse(append([]byte(nil), lines.Bytes()...))
		if err != nil {
			return fmt.Errorf("the gateway sent %q: %w", lines.Text(), err)
		}
		id := string(m.IDBytes())
		var params struct {
			Name      string
			URI       string
			RequestID json.RawMessage `json:"requestId"`
			Arguments struct {
				Text string
				N    int
			}
		}
		if m.Params.Present() {
			_ = json.Unmarshal(m.Bytes(m.Params), &params)
		}
		arg := params.Arguments
		text := func(s string) {
			b, _ := json.Marshal(s)
			say(`{"result":{"content":[{"type":"text","text":%s}]},"jsonrpc":"2.0","id":%s}`, b, id)
		}
		switch {
		case m.Kind == envelope.Result || m.Kind == envelope.Error:
			mu.Lock()
			ch := waiting[id]
			delete(waiting, id)
			mu.Unlock()
			if ch == nil {
				return fmt.Errorf("an answer to nothing: %s", m.Raw)
			}
			ch <- answer{Result: m.Bytes(m.Result), Error: m.Bytes(m.Error)}
		case m.Is("notifications/cancelled"):
			mu.Lock()
			if ch := cancelled[string(params.RequestID)]; ch != nil {
				close(ch)
				delete(cancelled, string(params.RequestID))
			}
			mu.Unlock()
		case m.Kind == envelope.Notification:
		case m.Is("initialize"):
			say(`{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"fake","version":"1","pid":%d}}}`, id, os.Getpid())
		case m.Is("tools/list"):
			say(`{"jsonrpc":"2.0","id":%s,"result":{"tools":[{"name":"echo","inputSchema":{"type":"object"}},{"name":"crash","inputSchema":{"type":"object"}}]}}`, id)
		case m.Is("resources/subscribe"), m.Is("resources/unsubscribe"), m.Is("ping"):
			say(`{"jsonrpc":"2.0","id":%s,"result":{}}`, id)
		case m.Is("subscriptions/listen"):
			say(`{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":%s}}}`, id)
		case !m.Is("tools/call"):
			say(`{"jsonrpc":"2.0","id":%s,"error":{"code":-32601,"message":"no method %s"}}`, id, m.Method)
		default:
			token := string(m.Bytes(m.Token))
			switch params.Name {
			case "echo":
				text(arg.Text)
			case "pid":
				text(fmt.Sprint(os.Getpid()))
			case "env":
				text(strings.Join(os.Environ(), " "))
			case "crash":
				os.Exit(3)
			case "large":
				text(strings.Repeat("x", arg.N))
			case "update": // tells whoever subscribed
				say(`{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":%q}}`, arg.Text)
				text("ok")
			case "log":
				say(`{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":%q}}`, arg.Text)
				text("ok")
			case "changed":
				say(`{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}`)
				text("ok")
			case "hang": // until cancelled
				ch := make(chan struct{})
				mu.Lock()
				cancelled[id] = ch
				mu.Unlock()
				if token != "" {
					say(`{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":%s,"progress":1}}`, token)
				}
				go func() {
					select {
					case <-ch:
						text("cancelled")
					case <-over:
					}
				}()
			case "progress":
				for i := range arg.N {
					say(`{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":%s,"progress":%d}}`, token, i)
				}
				text("ok")
			case "ask": // a request to the client, whose answer is the answer
				ch := make(chan answer, 1)
				mu.Lock()
				ask := fmt.Sprint(asked)
				asked++
				waiting[ask] = ch
				mu.Unlock()
				say(`{"jsonrpc":"2.0","id":%s,"method":"sampling/createMessage","params":{"prompt":%q,"_meta":{"progressToken":%s}}}`, ask, arg.Text, ask)
				go func() {
					select {
					case a := <-ch:
						text(string(a.Result) + string(a.Error))
					case <-over:
					}
				}()
			default:
				say(`{"jsonrpc":"2.0","id":%s,"error":{"code":-32602,"message":"no tool %s"}}`, id, params.Name)
			}
		}
	}
	return lines.Err()
}

// until polls a condition that another process or goroutine brings about. It
// fails the test after a minute.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within a minute: %s", what)
		}
	}
}
