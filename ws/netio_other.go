//go:build !linux

package ws

import (
	"errors"
	"net"
	"syscall"
)

// rawConn returns nil: reads and writes go through the net.Conn.
func rawConn(net.Conn) syscall.RawConn { return nil }

var errNoRaw = errors.New("ws: no raw socket on this system")

func sysRead(uintptr, []byte) (n int, again bool, err error) { return 0, false, errNoRaw }

// An iovec is unused on this system.
type iovec struct{}

const iovecMax = 64

func sysWrite(uintptr, [][]byte, []iovec) (n int, again bool, err error) {
	return 0, false, errNoRaw
}
