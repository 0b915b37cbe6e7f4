//go:build linux

package load

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Loop drives many connections from one thread.
type Loop struct {
	Messages int64 // echoed messages (or pongs) of all connections
	Payload  int64 // payload bytes of data frames received
	Wire     int64 // bytes received

	// MayClose lets servers end connections; otherwise that is an error.
	MayClose bool
	// Closed counts connections that a server ended, Codes their close codes
	// (0 for none).
	Closed int
	Codes  map[int]int

	ep    int
	conns []*Conn
	buf   []byte
	ev    []unix.EpollEvent
}

// NewLoop makes a loop over conns. Their sockets become non-blocking.
func NewLoop(conns []*Conn) (*Loop, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	l := &Loop{ep: ep, conns: conns, buf: make([]byte, 256<<10), ev: make([]unix.EpollEvent, 256), Codes: map[int]int{}}
	for i, c := range conns {
		if err := unix.SetNonblock(c.fd, true); err != nil {
			l.Close()
			return nil, fmt.Errorf("non-blocking: %w", err)
		}
		if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, c.fd, &unix.EpollEvent{Events: c.events(), Fd: int32(i)}); err != nil {
			l.Close()
			return nil, fmt.Errorf("epoll: %w", err)
		}
		if c.Control == nil {
			c.Control = c.control
		}
		c.index, c.seen = i, c.progress()
	}
	return l, nil
}

// events are what the loop waits for on c while nothing is left to send.
func (c *Conn) events() uint32 {
	if c.Deaf {
		return 0
	}
	return unix.EPOLLIN
}

// Close ends the loop. The connections stay.
func (l *Loop) Close() { unix.Close(l.ep) }

func (c *Conn) control(op Opcode, p []byte) {
	switch op {
	case Pong:
		c.Pongs++
	case Close:
		c.code = 1005 // RFC 6455 section 7.1.5: no status code was present
		if len(p) >= 2 {
			c.code = int(binary.BigEndian.Uint16(p))
		}
	}
}

func (c *Conn) progress() int64 {
	if c.CountPongs {
		return c.Pongs
	}
	return c.Messages
}

// Start lets every connection have window messages under way.
func (l *Loop) Start(window int) error {
	for _, c := range l.conns {
		if err := l.Grant(c, window); err != nil {
			return err
		}
	}
	return nil
}

// Grant lets c send n more messages of its script.
func (l *Loop) Grant(c *Conn, n int) error {
	if c.closed {
		return nil
	}
	c.credits += n
	if c.Timed {
		c.since = time.Now()
	}
	if c.blocked {
		return nil // the next EPOLLOUT sends them
	}
	return l.flush(c)
}

// flush sends what the credits allow, as many messages a write as lie side by
// side in the script.
func (l *Loop) flush(c *Conn) error {
	s := c.Script
	for writes := 0; c.credits > 0; writes++ {
		if writes == writesMax {
			return l.wantOut(c, true) // the other connections have their turn
		}
		begin := c.partial
		if c.pos > 0 {
			begin += s.Ends[c.pos-1]
		}
		last := min(c.pos+c.credits, len(s.Ends)) - 1
		n, errno := rawWrite(c.fd, s.Bytes[begin:s.Ends[last]])
		switch errno {
		case 0:
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return l.wantOut(c, true)
		default:
			return l.end(c, errno)
		}
		for c.partial += n; c.credits > 0; {
			size := s.Ends[c.pos]
			if c.pos > 0 {
				size -= s.Ends[c.pos-1]
			}
			if c.partial < size {
				break
			}
			c.partial -= size
			c.credits--
			if c.pos++; c.pos == len(s.Ends) {
				c.pos = s.Loop
			}
		}
	}
	if c.blocked {
		return l.wantOut(c, false)
	}
	return nil
}

// writesMax bounds what one connection writes before others are looked at.
const writesMax = 16

func (l *Loop) wantOut(c *Conn, on bool) error {
	if c.blocked == on {
		return nil
	}
	c.blocked = on
	ev := unix.EpollEvent{Events: c.events(), Fd: int32(c.index)}
	if on {
		ev.Events |= unix.EPOLLOUT
	}
	if err := unix.EpollCtl(l.ep, unix.EPOLL_CTL_MOD, c.fd, &ev); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	return nil
}

// end notes that the server ended c.
func (l *Loop) end(c *Conn, cause error) error {
	if c.closed {
		return nil
	}
	c.closed = true
	unix.EpollCtl(l.ep, unix.EPOLL_CTL_DEL, c.fd, nil)
	l.Closed++
	l.Codes[c.code]++
	if l.MayClose {
		return nil
	}
	return fmt.Errorf("the server ended a connection, close code %d: %w", c.code, cause)
}

// Step waits at most d for something to happen and handles it.
func (l *Loop) Step(d time.Duration) error {
	n, err := epollWait(l.ep, l.ev, d)
	if err != nil {
		return err
	}
	for _, ev := range l.ev[:n] {
		c := l.conns[ev.Fd]
		if ev.Events&^uint32(unix.EPOLLOUT) != 0 {
			if err := l.read(c); err != nil {
				return err
			}
		}
		if ev.Events&unix.EPOLLOUT != 0 && !c.closed {
			if err := l.flush(c); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *Loop) read(c *Conn) error {
	n, errno := rawRead(c.fd, l.buf)
	switch {
	case errno == unix.EAGAIN || errno == unix.EINTR:
		return nil
	case errno != 0:
		return l.end(c, errno)
	case n == 0:
		return l.end(c, fmt.Errorf("end of stream"))
	}
	payload := c.Payload
	if err := c.Scan(l.buf[:n]); err != nil {
		return err
	}
	l.Wire += int64(n)
	l.Payload += c.Payload - payload
	if now := c.progress(); now > c.seen {
		k := now - c.seen
		c.seen = now
		l.Messages += k
		if c.Timed {
			c.Times = append(c.Times, float64(time.Since(c.since)))
		}
		if c.Echo {
			return l.Grant(c, int(k))
		}
	}
	return nil
}

// Run drives the connections for d. It stops early when the server has ended
// all of them.
func (l *Loop) Run(d time.Duration) error {
	for end := time.Now().Add(d); l.Closed < len(l.conns); {
		left := time.Until(end)
		if left <= 0 {
			break
		}
		if err := l.Step(left); err != nil {
			return err
		}
	}
	return nil
}

// Until drives the connections until n messages have come in all, or fails
// after d.
func (l *Loop) Until(n int64, d time.Duration) error {
	for end := time.Now().Add(d); l.Messages < n; {
		left := time.Until(end)
		if left <= 0 {
			return fmt.Errorf("%d of %d messages came within %s", l.Messages, n, d)
		}
		if l.Closed == len(l.conns) {
			return fmt.Errorf("all connections ended after %d of %d messages", l.Messages, n)
		}
		if err := l.Step(left); err != nil {
			return err
		}
	}
	return nil
}

// epollWait is epoll_pwait2 past the scheduler, see rawRead. It waits at most
// 50 ms, so that the rest of the process is never held up for long.
func epollWait(ep int, ev []unix.EpollEvent, d time.Duration) (int, error) {
	ts := unix.NsecToTimespec(int64(min(max(d, 0), 50*time.Millisecond)))
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT2, uintptr(ep), uintptr(unsafe.Pointer(unsafe.SliceData(ev))), uintptr(len(ev)),
		uintptr(unsafe.Pointer(&ts)), 0, 0)
	runtime.KeepAlive(ev)
	switch errno {
	case 0:
		return int(n), nil
	case unix.EINTR:
		return 0, nil
	}
	return 0, fmt.Errorf("epoll: %w", errno)
}
