package chat

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/weft-ws/weft/acip"
	"github.com/weft-ws/weft/capture"
	"github.com/weft-ws/weft/doctor"
	"github.com/weft-ws/weft/internal/wstest"
	"github.com/weft-ws/weft/ws"
)

// A site is a server on all three transports, with the doctor listening in on
// every WebSocket and a log that can be read.
type site struct {
	*Server
	ws, wss, tcp string // URLs
	log          *logBuffer
	roots        *x509.CertPool
	oracles      func() []*wstest.Oracle
	shutdown     func() error
}

// logBuffer collects log lines.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// doctored returns a trace that shows the doctor both directions of a
// connection, as seen from one end.
func doctored(t testing.TB, end ws.Role) (*ws.Trace, *wstest.Oracle) {
	o := wstest.NewOracle(t, wstest.OracleOptions{})
	self, peer := capture.Server, capture.Client
	if end == ws.RoleClient {
		self, peer = peer, self
	}
	return &ws.Trace{Bytes: func(dir ws.Direction, b []byte) {
		side := peer
		if dir == ws.Out {
			side = self
		}
		o.Tap(capture.Chunk{From: side, At: time.Now(), Data: b})
	}}, o
}

// newSite starts a server. It is shut down, and has to be empty then, when the
// test ends.
func newSite(t testing.TB, cfg ServerConfig) *site {
	t.Helper()
	s := &site{log: &logBuffer{}}
	cfg.Logger = slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var mu sync.Mutex
	var oracles []*wstest.Oracle
	if _, ok := t.(*testing.T); ok && cfg.Trace == nil {
		cfg.Trace = func() *ws.Trace {
			tr, o := doctored(t, ws.RoleServer)
			mu.Lock()
			oracles = append(oracles, o)
			mu.Unlock()
			return tr
		}
	}
	s.oracles = func() []*wstest.Oracle { mu.Lock(); defer mu.Unlock(); return oracles }
	s.Server = NewServer(cfg)
	pair, roots := certificate(t)
	s.roots = roots
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	plain, secure, raw := listen(), listen(), listen()
	s.ws, s.wss, s.tcp = "ws://"+plain.Addr().String(), "wss://"+secure.Addr().String(), "tcp://"+raw.Addr().String()
	hs := ws.NewHTTPServer(s.Server)
	hs.ErrorLog = log.New(s.log, "", 0)
	hs.TLSConfig = &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"http/1.1"}}
	var wg sync.WaitGroup
	wg.Go(func() { _ = hs.Serve(plain) })
	wg.Go(func() { _ = hs.ServeTLS(secure, "", "") })
	ctx, cancel := context.WithCancel(context.Background())
	wg.Go(func() { _ = s.ServeTCP(ctx, raw) })
	var once sync.Once
	s.shutdown = func() (err error) {
		once.Do(func() {
			cancel()
			end, done := context.WithTimeout(context.Background(), 10*time.Second)
			defer done()
			err = s.Shutdown(end)
			_ = hs.Close()
			wg.Wait()
		})
		return err
	}
	t.Cleanup(func() {
		if err := s.shutdown(); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if st := s.Stats(); st.Clients != 0 || st.Rooms != 0 || st.Renderers != 0 {
			t.Errorf("left behind: %+v", st)
		}
	})
	return s
}

// urls are the ways in.
func (s *site) urls() map[string]string {
	return map[string]string{"ws": s.ws, "wss": s.wss, "tcp": s.tcp}
}

// certificate makes a self-signed certificate for 127.0.0.1.
func certificate(t testing.TB) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// A guest is a client in a test.
type guest struct {
	*Client
	t      testing.TB
	ended  chan error
	frames chan []byte // the latest frame; never blocks the client
	states chan acip.State
	texts  chan acip.Text
	notes  chan string
	cancel context.CancelFunc
	pipes  [2]*wstest.PipeConn // in a bubble
}

// freeze stops the client: nothing of it arrives and it takes nothing.
func (g *guest) freeze() { g.pipes[0].Stall(); g.pipes[1].Stall() }

func (g *guest) thaw() { g.pipes[0].Resume(); g.pipes[1].Resume() }

// config is a client of 80×24 in truecolor that sends the test pattern.
func (s *site) config(url string) ClientConfig {
	return ClientConfig{URL: url, TLS: &tls.Config{RootCAs: s.roots}, FPS: 30, Source: NewPattern(), Capabilities: capabilities(80, 24)}
}

func capabilities(cols, rows int) acip.Capabilities {
	return acip.Capabilities{Flags: 0x1f, Level: acip.TrueColor, Colors: 1 << 24, Width: cols, Height: rows, Term: "xterm-256color",
		ColorTerm: "truecolor", Reliable: true, UTF8: true, Palette: acip.PaletteStandard, FPS: 60, Video: acip.VideoRaw, Audio: acip.AudioRaw}
}

// join connects; the guest leaves when the test ends.
func join(t testing.TB, cfg ClientConfig) *guest {
	t.Helper()
	g, err := tryJoin(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func tryJoin(t testing.TB, cfg ClientConfig) (*guest, error) {
	t.Helper()
	g := &guest{t: t, ended: make(chan error, 1), frames: make(chan []byte, 1), states: make(chan acip.State, 100),
		texts: make(chan acip.Text, 100), notes: make(chan string, 100)}
	cfg.Events.Frame = func(f acip.ASCIIFrame) {
		select {
		case <-g.frames:
		default:
		}
		g.frames <- bytes.Clone(f.Text)
	}
	cfg.Events.State = func(st acip.State) { put(g.states, st) }
	cfg.Events.Text = func(x acip.Text) { put(g.texts, x) }
	cfg.Events.Notice = func(n string) { put(g.notes, n) }
	if _, ok := t.(*testing.T); ok && cfg.Trace == nil {
		cfg.Trace, _ = doctored(t, ws.RoleClient)
	}
	ctx, cancel := context.WithCancel(context.Background())
	g.cancel = cancel
	c, err := Dial(ctx, cfg)
	if err != nil {
		cancel()
		return nil, err
	}
	g.Client = c
	go func() { g.ended <- c.Run(ctx) }()
	t.Cleanup(func() { g.leave() })
	return g, nil
}

func put[T any](c chan T, v T) {
	select {
	case c <- v:
	default:
	}
}

// patience bounds every wait in these tests; nothing depends on its length.
const patience = time.Minute

// frame waits for a frame.
func (g *guest) frame() []byte {
	g.t.Helper()
	select {
	case f := <-g.frames:
		return f
	case err := <-g.ended:
		g.ended <- err
		g.t.Fatalf("the session ended before a frame: %v", err)
	case <-time.After(patience):
		g.t.Fatal("no frame")
	}
	return nil
}

// wait returns how the session ended.
func (g *guest) wait() error {
	g.t.Helper()
	select {
	case err := <-g.ended:
		g.ended <- err
		return err
	case <-time.After(patience):
		g.t.Fatal("the session does not end")
		return nil
	}
}

// leave ends the session in order.
func (g *guest) leave() {
	g.Client.Leave()
	select {
	case err := <-g.ended:
		g.ended <- err
	case <-time.After(patience):
		g.t.Error("the guest cannot leave")
	}
	g.cancel()
}

// eventually waits for a condition that another goroutine brings about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	end := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("never: %s", what)
		}
	}
}

// identity returns a fixed identity, one per number.
func identity(n byte) *acip.Identity {
	seed := [ed25519.SeedSize]byte{n, 'w', 'e', 'f', 't'}
	return acip.NewIdentity(ed25519.NewKeyFromSeed(seed[:]))
}

var passwordKey = sync.OnceValue(func() *acip.Key {
	k, err := acip.PasswordKey("correct-horse-battery")
	if err != nil {
		panic(err)
	}
	return k
})

var wrongKey = sync.OnceValue(func() *acip.Key {
	k, err := acip.PasswordKey("another-password")
	if err != nil {
		panic(err)
	}
	return k
})

// bubble returns a server and a way to connect to it without a network, for
// tests in a testing/synctest bubble, where time is not real.
func bubble(t *testing.T, cfg ServerConfig, allow ...string) (s *Server, dial func(ClientConfig, acip.Transport) *guest, raw func(acip.Transport) [2]*wstest.PipeConn) {
	t.Helper()
	s = NewServer(cfg)
	raw = func(tr acip.Transport) [2]*wstest.PipeConn {
		var o *wstest.Oracle
		po := wstest.PipeOptions{Window: 1 << 20}
		if tr == acip.WebSocket {
			o = wstest.NewOracle(t, wstest.OracleOptions{Doctor: doctor.Options{Ignore: allow}})
			po.Tap = o.Tap
		}
		cp, sp := wstest.Pipe(po)
		release, err := s.admit(addrOf(sp.RemoteAddr()))
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			defer release()
			s.serve(overPipe(sp, tr, ws.RoleServer), "")
		}()
		return [2]*wstest.PipeConn{cp, sp}
	}
	dial = func(cc ClientConfig, tr acip.Transport) *guest {
		g := &guest{t: t, ended: make(chan error, 1), frames: make(chan []byte, 1), states: make(chan acip.State, 100)}
		c := &Client{cfg: cc, caps: cc.Capabilities}
		g.pipes = raw(tr)
		conn := overPipe(g.pipes[0], tr, ws.RoleClient)
		c.sess = acip.NewSession(conn, acip.NewClient(tr, cc.ACIP), c)
		g.Client = c
		go func() { g.ended <- c.Run(t.Context()) }()
		return g
	}
	return s, dial, raw
}

func overPipe(c *wstest.PipeConn, tr acip.Transport, role ws.Role) acip.Conn {
	if tr == acip.TCP {
		return acip.OnTCP(c)
	}
	cfg := acip.WebSocketConfig()
	return acip.OnWebSocket(ws.NewConn(c, role, &cfg))
}

// closeCode is the code with which a WebSocket ended.
func closeCode(err error) ws.CloseCode {
	var ce *ws.CloseError
	if errors.As(err, &ce) {
		return ce.Code
	}
	return 0
}

var _ http.Handler = (*Server)(nil)

func logger(w *logBuffer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }
