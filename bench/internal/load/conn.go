//go:build linux

package load

import (
	"bytes"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrTimeout is returned by a blocking read or write that took too long.
var ErrTimeout = errors.New("the server did nothing for too long")

const blockingTimeout = 10 * time.Second

// Options say how to connect.
type Options struct {
	Raw           bool          // no opening handshake: the server is not a WebSocket server
	Extensions    string        // offered Sec-WebSocket-Extensions; none when empty
	Path          string        // request target; "/" when empty
	Source        netip.Addr    // local address; the system's choice when zero
	ReceiveBuffer int           // SO_RCVBUF in bytes as given to the system; its own choice when 0
	Patience      time.Duration // for blocking reads, the handshake's too; ten seconds when 0
}

// A Conn is one connection of the load client: a bare socket. It is not safe
// for use by several goroutines.
type Conn struct {
	Scanner
	Extensions string // what the server's response accepted
	Script     *Script
	Echo       bool // each message (or pong, see CountPongs) that comes back sends the next
	CountPongs bool // progress is pongs, not messages
	Pongs      int64
	Deaf       bool      // send and never read
	Timed      bool      // note the time of each answer; one message under way at most
	Times      []float64 // nanoseconds from the first byte sent to the last received

	fd      int
	index   int // in its Loop
	timeout time.Duration
	closed  bool
	code    int // close code seen, 0 for none
	credits int // messages of the script that may be sent
	pos     int // message of the script to send next
	partial int // bytes of it that have left already
	blocked bool
	seen    int64
	since   time.Time // the message under way was begun
}

// A Script is what a connection sends: messages one after the other, and when
// they are used up again from message Loop on. A script is shared by many
// connections and never written to.
type Script struct {
	Bytes []byte
	Ends  []int // of each message in Bytes
	Loop  int
}

// Repeat makes a script of n copies of the message m, so that up to n leave in
// one write.
func Repeat(m []byte, n int) *Script {
	s := &Script{Bytes: bytes.Repeat(m, n), Ends: make([]int, n)}
	for i := range s.Ends {
		s.Ends[i] = (i + 1) * len(m)
	}
	return s
}

// Add appends one message to the script.
func (s *Script) Add(m []byte) {
	s.Bytes = append(s.Bytes, m...)
	s.Ends = append(s.Ends, len(s.Bytes))
}

// Dial connects to addr and, unless opts says otherwise, performs the opening
// handshake of a WebSocket client.
func Dial(addr netip.AddrPort, opts Options) (*Conn, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	c := &Conn{fd: fd}
	if err := c.dial(addr, opts); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *Conn) dial(addr netip.AddrPort, opts Options) error {
	if opts.ReceiveBuffer > 0 {
		// Before connect: the window scale is settled with the SYN.
		if err := unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, opts.ReceiveBuffer); err != nil {
			return fmt.Errorf("SO_RCVBUF: %w", err)
		}
	}
	if opts.Source.IsValid() {
		// The port is chosen at connect, so that many connections may share it
		// towards different servers.
		if err := unix.SetsockoptInt(c.fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
			return fmt.Errorf("IP_BIND_ADDRESS_NO_PORT: %w", err)
		}
		if err := unix.Bind(c.fd, &unix.SockaddrInet4{Addr: opts.Source.As4()}); err != nil {
			return fmt.Errorf("bind %s: %w", opts.Source, err)
		}
	}
	if err := c.prepare(); err != nil {
		return err
	}
	if err := unix.Connect(c.fd, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}); err != nil {
		return fmt.Errorf("connect %s: %w", addr, err)
	}
	if opts.Patience > 0 {
		if err := c.SetTimeout(opts.Patience); err != nil {
			return err
		}
	}
	if opts.Raw {
		return nil
	}
	return c.handshake(addr, opts)
}

// prepare sets the options that every socket of the load client has.
func (c *Conn) prepare() error {
	if err := unix.SetsockoptInt(c.fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return fmt.Errorf("TCP_NODELAY: %w", err)
	}
	// A reset instead of TIME_WAIT: rounds of thousands of connections would
	// use up the ports otherwise.
	if err := unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return fmt.Errorf("SO_LINGER: %w", err)
	}
	tv := unix.NsecToTimeval(int64(blockingTimeout))
	if err := unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv); err != nil {
		return fmt.Errorf("SO_SNDTIMEO: %w", err)
	}
	return c.SetTimeout(blockingTimeout)
}

func accept(key string) string {
	h := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(h[:])
}

func (c *Conn) handshake(addr netip.AddrPort, opts Options) error {
	var nonce [16]byte
	rand.Read(nonce[:])
	k := base64.StdEncoding.EncodeToString(nonce[:])
	path := opts.Path
	if path == "" {
		path = "/"
	}
	req := "GET " + path + " HTTP/1.1\r\nHost: " + addr.String() +
		"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + k + "\r\n"
	if opts.Extensions != "" {
		req += "Sec-WebSocket-Extensions: " + opts.Extensions + "\r\n"
	}
	if err := c.Send([]byte(req + "\r\n")); err != nil {
		return fmt.Errorf("opening handshake: %w", err)
	}
	head, rest, err := c.readHead()
	if err != nil {
		return fmt.Errorf("opening handshake: %w", err)
	}
	lines := strings.Split(head, "\r\n")
	if !strings.HasPrefix(lines[0], "HTTP/1.1 101 ") {
		return fmt.Errorf("opening handshake: the server answered %q", lines[0])
	}
	accepted := false
	for _, l := range lines[1:] {
		name, value, _ := strings.Cut(l, ":")
		switch value = strings.TrimSpace(value); strings.ToLower(name) {
		case "sec-websocket-accept":
			accepted = value == accept(k)
		case "sec-websocket-extensions":
			c.Extensions = value
		}
	}
	if !accepted {
		return errors.New("opening handshake: wrong or missing Sec-WebSocket-Accept")
	}
	if c.Extensions != "" && opts.Extensions == "" {
		return fmt.Errorf("opening handshake: extension %q was not offered", c.Extensions)
	}
	return c.Scan(rest)
}

// readHead reads up to the empty line, and returns what came after it.
func (c *Conn) readHead() (head string, rest []byte, err error) {
	var all []byte
	buf := make([]byte, 4096)
	for len(all) < 16<<10 {
		n, err := c.Receive(buf)
		if err != nil {
			return "", nil, err
		}
		all = append(all, buf[:n]...)
		if i := bytes.Index(all, []byte("\r\n\r\n")); i >= 0 {
			return string(all[:i]), all[i+4:], nil
		}
	}
	return "", nil, errors.New("more than 16 KiB of header")
}

// Send writes all of p, waiting as long as the server takes it.
func (c *Conn) Send(p []byte) error {
	for len(p) > 0 {
		n, errno := rawWrite(c.fd, p)
		switch errno {
		case 0:
			p = p[n:]
		case unix.EINTR:
		case unix.EAGAIN:
			return ErrTimeout
		default:
			return errno
		}
	}
	return nil
}

// Receive reads what is there, waiting for the first byte. It returns io.EOF
// at the end of the stream. The bytes are not scanned.
func (c *Conn) Receive(p []byte) (int, error) {
	var first time.Time
	for {
		n, errno := rawRead(c.fd, p)
		switch errno {
		case 0:
			if n == 0 {
				return 0, io.EOF
			}
			return n, nil
		case unix.EINTR:
			// The runtime interrupts threads that it takes for busy, and the
			// system then starts the timeout afresh.
			if now := time.Now(); first.IsZero() {
				first = now
			} else if now.Sub(first) > c.timeout {
				return 0, ErrTimeout
			}
		case unix.EAGAIN:
			return 0, ErrTimeout
		default:
			return 0, errno
		}
	}
}

// Close drops the connection without ceremony.
func (c *Conn) Close() {
	if c.fd >= 0 {
		unix.Close(c.fd)
		c.fd = -1
	}
}

// SetTimeout bounds blocking reads.
func (c *Conn) SetTimeout(d time.Duration) error {
	c.timeout = d
	tv := unix.NsecToTimeval(int64(d))
	return unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
}

// RoundTrips sends the script's first message, waits for its echo, and again
// until d is over. It returns each round trip in nanoseconds.
func (c *Conn) RoundTrips(d time.Duration) ([]float64, error) {
	msg := c.Script.Bytes[:c.Script.Ends[0]]
	buf := make([]byte, 64<<10)
	out := make([]float64, 0, 1<<17)
	for begin := time.Now(); len(out) < cap(out); {
		start := time.Now()
		if start.Sub(begin) >= d {
			break
		}
		if err := c.Send(msg); err != nil {
			return nil, err
		}
		for want := c.Messages + 1; c.Messages < want; {
			n, err := c.Receive(buf)
			if err != nil {
				return nil, err
			}
			if err := c.Scan(buf[:n]); err != nil {
				return nil, err
			}
		}
		out = append(out, float64(time.Since(start)))
	}
	return out, nil
}

// A Listener accepts connections of a library's client: the load client in the
// server's place.
type Listener struct {
	fd   int
	Addr netip.AddrPort
}

// Listen opens a listener on a free port of 127.0.0.1.
func Listen() (*Listener, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	l := &Listener{fd: fd}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		l.Close()
		return nil, fmt.Errorf("bind: %w", err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("getsockname: %w", err)
	}
	in4 := sa.(*unix.SockaddrInet4)
	l.Addr = netip.AddrPortFrom(netip.AddrFrom4(in4.Addr), uint16(in4.Port))
	if err := unix.Listen(fd, 128); err != nil {
		l.Close()
		return nil, fmt.Errorf("listen: %w", err)
	}
	return l, nil
}

// Accept takes one connection and answers its opening handshake. It waits ten
// seconds at most.
func (l *Listener) Accept() (*Conn, error) {
	p := []unix.PollFd{{Fd: int32(l.fd), Events: unix.POLLIN}}
	if n, err := poll(p, blockingTimeout); err != nil {
		return nil, fmt.Errorf("poll: %w", err)
	} else if n == 0 {
		return nil, errors.New("no client came within ten seconds")
	}
	fd, _, err := unix.Accept4(l.fd, unix.SOCK_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("accept: %w", err)
	}
	c := &Conn{fd: fd}
	if err := c.answer(); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func poll(p []unix.PollFd, d time.Duration) (int, error) {
	for end := time.Now().Add(d); ; {
		n, err := unix.Poll(p, int(max(time.Until(end).Milliseconds(), 0)))
		if err != unix.EINTR {
			return n, err
		}
	}
}

func (c *Conn) answer() error {
	if err := c.prepare(); err != nil {
		return err
	}
	head, rest, err := c.readHead()
	if err != nil {
		return fmt.Errorf("opening handshake of a client: %w", err)
	}
	var k string
	for _, l := range strings.Split(head, "\r\n")[1:] {
		if name, value, _ := strings.Cut(l, ":"); strings.EqualFold(name, "sec-websocket-key") {
			k = strings.TrimSpace(value)
		}
	}
	if err := c.Send([]byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + accept(k) + "\r\n\r\n")); err != nil {
		return fmt.Errorf("opening handshake of a client: %w", err)
	}
	return c.Scan(rest)
}

// Close stops listening.
func (l *Listener) Close() { unix.Close(l.fd) }

// rawRead and rawWrite bypass the scheduler's bookkeeping around system calls:
// the load client has its core, and this thread, to itself. A call that blocks
// does so for blockingTimeout at most.
func rawRead(fd int, p []byte) (int, syscall.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	runtime.KeepAlive(p)
	return int(n), errno
}

func rawWrite(fd int, p []byte) (int, syscall.Errno) {
	// MSG_NOSIGNAL: a server that has gone away is an error, not a signal.
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), unix.MSG_NOSIGNAL, 0, 0)
	runtime.KeepAlive(p)
	return int(n), errno
}
