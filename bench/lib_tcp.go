//go:build linux

package main

import (
	"io"
	"net/http"
)

// rawTCP is the floor: bytes in, bytes out, nothing looked at.
var rawTCP = &contender{
	name:  "tcp",
	about: "no WebSocket: io.CopyBuffer with 64 KiB from the socket to itself",
	raw:   true,
	modes: map[string]func(*child) error{modeEcho: tcpEcho, modeStream: tcpEcho},
}

func tcpEcho(c *child) error {
	go func() {
		for {
			nc, err := c.ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer nc.Close()
				// The wrappers hide ReadFrom and WriteTo, which would splice in
				// the kernel: a server that looks at its input has to read it.
				io.CopyBuffer(struct{ io.Writer }{nc}, struct{ io.Reader }{nc}, make([]byte, 64<<10))
			}()
		}
	}()
	return nil
}

// serveHTTP serves f on the child's listener with net/http's own defaults.
func serveHTTP(c *child, f http.HandlerFunc) error {
	go http.Serve(c.ln, f)
	return nil
}
