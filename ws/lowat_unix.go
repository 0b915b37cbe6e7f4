//go:build linux || darwin

package ws

import (
	"net"
	"syscall"
)

// setNotSentLowat asks the kernel to hold at most n unsent bytes below us:
// a ping behind megabytes of its send buffer would still be late. It is a
// matter of latency alone, so a system that refuses is left as it is.
func setNotSentLowat(nc net.Conn, n int) {
	if inner, ok := nc.(interface{ NetConn() net.Conn }); ok { // a tls.Conn
		nc = inner.NetConn()
	}
	tc, ok := nc.(*net.TCPConn)
	if !ok {
		return
	}
	if rc, err := tc.SyscallConn(); err == nil {
		_ = rc.Control(func(fd uintptr) {
			_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpNotSentLowat, n)
		})
	}
}
