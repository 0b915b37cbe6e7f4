package ws

import (
	"net"
	"os"
	"syscall"
	"unsafe"
)

// rawConn returns the socket for reads and writes that never block by
// themselves, or nil if nc is not a plain socket. With it an idle connection
// holds no buffer, a write that need not wait sets no deadline, and a control
// frame can still be put between the fragments of a batch that the kernel has
// taken only in part.
func rawConn(nc net.Conn) syscall.RawConn {
	var sc syscall.Conn
	switch nc := nc.(type) {
	case *net.TCPConn:
		sc = nc
	case *net.UnixConn:
		sc = nc
	default:
		return nil
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	return rc
}

// sysRead reads once. again means that nothing is there yet.
func sysRead(fd uintptr, p []byte) (n int, again bool, err error) {
	for {
		n, err = syscall.Read(int(fd), p)
		switch err {
		case nil:
			return n, false, nil
		case syscall.EINTR:
		case syscall.EAGAIN:
			return 0, true, nil
		default:
			return 0, false, os.NewSyscallError("read", err)
		}
	}
}

// iovecMax bounds the pieces of one writev; the kernel's own limit is 1024.
const iovecMax = 64

// An iovec is what writev takes.
type iovec = syscall.Iovec

// sysWrite writes pieces once, with iov as scratch. again means that the
// kernel has taken less than all of it.
func sysWrite(fd uintptr, pieces [][]byte, iov []iovec) (n int, again bool, err error) {
	total := 0
	if len(pieces) > 1 {
		iov = iov[:0]
		for _, p := range pieces[:min(len(pieces), iovecMax)] {
			if len(p) == 0 {
				continue
			}
			v := syscall.Iovec{Base: &p[0]}
			v.SetLen(len(p))
			iov = append(iov, v)
			total += len(p)
		}
	}
	for {
		if len(pieces) == 1 {
			total = len(pieces[0])
			n, err = syscall.Write(int(fd), pieces[0])
		} else {
			r, _, errno := syscall.Syscall(syscall.SYS_WRITEV, fd, uintptr(unsafe.Pointer(unsafe.SliceData(iov))), uintptr(len(iov)))
			n, err = int(r), nil
			if errno != 0 {
				n, err = 0, errno
			}
		}
		switch err {
		case nil:
			return n, n < total, nil
		case syscall.EINTR:
		case syscall.EAGAIN:
			return 0, true, nil
		default:
			return 0, false, os.NewSyscallError("write", err)
		}
	}
}

// tcpNotSentLowat is TCP_NOTSENT_LOWAT of linux/tcp.h.
const tcpNotSentLowat = 25
