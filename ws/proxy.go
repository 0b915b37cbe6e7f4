package ws

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
)

// checkProxy says what is wrong with a proxy's URL.
func checkProxy(u *url.URL) error {
	switch u.Scheme {
	case "http", "https", "socks5", "socks5h":
	default:
		return fmt.Errorf("the proxy's scheme is %s; it must be http, https, socks5 or socks5h", shown(u.Scheme))
	}
	if u.Hostname() == "" {
		return fmt.Errorf("the proxy's URL %s names no host", shown(u.Redacted()))
	}
	return nil
}

// proxyAddr is the host:port to connect to for a proxy.
func proxyAddr(u *url.URL) string {
	port := u.Port()
	if port == "" {
		switch u.Scheme {
		case "http":
			port = "80"
		case "https":
			port = "443"
		default:
			port = "1080" // RFC 1928, 3
		}
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// tunnel asks the proxy at the other end of nc for a connection to addr
// (host:port) and returns the stream that leads there.
func tunnel(ctx context.Context, nc net.Conn, proxy *url.URL, addr string, cfg *tls.Config) (net.Conn, error) {
	switch proxy.Scheme {
	case "https":
		var err error
		if nc, err = startTLS(ctx, nc, cfg, proxy.Hostname(), true); err != nil {
			return nil, err
		}
		fallthrough
	case "http":
		return nc, connectHTTP(nc, proxy.User, addr)
	default:
		return nc, connectSOCKS5(nc, proxy.User, addr)
	}
}

// connectHTTP asks for a tunnel with CONNECT (RFC 9110, 9.3.6).
func connectHTTP(nc net.Conn, user *url.Userinfo, addr string) error {
	b := fmt.Appendf(nil, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n", addr, addr)
	if user != nil {
		b = fmt.Appendf(b, "Proxy-Authorization: %s\r\n", basicAuth(user))
	}
	if _, err := nc.Write(append(b, "\r\n"...)); err != nil {
		return err
	}
	in := responseReader{who: "the proxy", method: http.MethodConnect}
	resp, err := in.final(nc)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return refusedBy(nc, resp, "the proxy answered %s to CONNECT %s", shown(resp.Status), addr)
	}
	if n := len(in.rest()); n > 0 {
		// A server of HTTP or TLS waits for us. These bytes are the proxy's own, and
		// would be taken for the server's response.
		return denial(resp.StatusCode, "the proxy sent %d bytes into the tunnel before it was used", n)
	}
	return nil
}

// SOCKS5, RFC 1928, with the user and password of RFC 1929.
const (
	socksVersion     = 5
	socksNoAuth      = 0
	socksPassword    = 2
	socksNoMethod    = 0xff
	socksAuthVersion = 1
	socksConnect     = 1
	socksIPv4        = 1
	socksDomain      = 3
	socksIPv6        = 4
	socksLenMax      = 255 // bytes of a name, user or password
)

// connectSOCKS5 asks for a connection to addr. A host name goes to the proxy as
// it is. Replies are read to the byte, so that nothing of the tunnel is taken.
func connectSOCKS5(nc net.Conn, user *url.Userinfo, addr string) error {
	host, portText, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return err
	}
	var name, password string
	methods := []byte{socksVersion, 1, socksNoAuth}
	if user != nil {
		name = user.Username()
		password, _ = user.Password()
		if name == "" || len(name) > socksLenMax || len(password) > socksLenMax {
			return fmt.Errorf("the user for a SOCKS5 proxy must have 1 to %d bytes, the password no more", socksLenMax)
		}
		methods = []byte{socksVersion, 2, socksNoAuth, socksPassword}
	}
	var reply [4]byte
	if err := exchange(nc, methods, reply[:2]); err != nil {
		return err
	}
	if reply[0] != socksVersion {
		return fmt.Errorf("the proxy does not speak SOCKS5: its first byte is %#x", reply[0])
	}
	switch {
	case reply[1] == socksNoAuth:
	case reply[1] == socksPassword && user != nil:
		b := append([]byte{socksAuthVersion, byte(len(name))}, name...)
		b = append(append(b, byte(len(password))), password...)
		if err := exchange(nc, b, reply[:2]); err != nil {
			return err
		}
		if reply[1] != 0 {
			return errors.New("the SOCKS5 proxy refused user and password")
		}
	case reply[1] == socksNoMethod && user == nil:
		return errors.New("the SOCKS5 proxy wants authentication: put user and password into its URL")
	default:
		return fmt.Errorf("the SOCKS5 proxy wants authentication method %#x, which is not supported", reply[1])
	}

	b := []byte{socksVersion, socksConnect, 0}
	if ip, err := netip.ParseAddr(host); err == nil {
		ip = ip.Unmap().WithZone("")
		typ := byte(socksIPv6)
		if ip.Is4() {
			typ = socksIPv4
		}
		b = append(append(b, typ), ip.AsSlice()...)
	} else {
		if len(host) > socksLenMax {
			return fmt.Errorf("the host name has %d bytes; SOCKS5 allows %d", len(host), socksLenMax)
		}
		b = append(append(b, socksDomain, byte(len(host))), host...)
	}
	b = append(b, byte(port>>8), byte(port))
	if err := exchange(nc, b, reply[:4]); err != nil {
		return err
	}
	if reply[0] != socksVersion {
		return fmt.Errorf("the proxy does not speak SOCKS5: its reply begins with %#x", reply[0])
	}
	if reply[1] != 0 {
		return fmt.Errorf("the SOCKS5 proxy could not connect: %s", socksReply(reply[1]))
	}
	// The address that the proxy uses on its far side is of no interest, but it
	// must be read.
	var n int
	switch reply[3] {
	case socksIPv4:
		n = net.IPv4len
	case socksIPv6:
		n = net.IPv6len
	case socksDomain:
		if _, err := io.ReadFull(nc, reply[:1]); err != nil {
			return socksEOF(err)
		}
		n = int(reply[0])
	default:
		return fmt.Errorf("the SOCKS5 proxy's reply has address type %#x, which RFC 1928 does not know", reply[3])
	}
	_, err = io.ReadFull(nc, make([]byte, n+2))
	return socksEOF(err)
}

// exchange sends b and fills reply.
func exchange(nc net.Conn, b, reply []byte) error {
	if _, err := nc.Write(b); err != nil {
		return err
	}
	_, err := io.ReadFull(nc, reply)
	return socksEOF(err)
}

// socksEOF says what the end of the stream means in the middle of SOCKS.
func socksEOF(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the SOCKS5 proxy closed the connection: %w", io.ErrUnexpectedEOF)
	}
	return err
}

// socksReply explains a reply field (RFC 1928, 6).
func socksReply(code byte) string {
	switch code {
	case 1:
		return "general failure"
	case 2:
		return "not allowed by its rules"
	case 3:
		return "network unreachable"
	case 4:
		return "host unreachable"
	case 5:
		return "connection refused"
	case 6:
		return "time to live expired"
	case 7:
		return "command not supported"
	case 8:
		return "address type not supported"
	}
	return fmt.Sprintf("reply %#x", code)
}
