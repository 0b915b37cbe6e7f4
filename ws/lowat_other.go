//go:build !linux && !darwin

package ws

import "net"

// setNotSentLowat does nothing: the system has no such setting.
func setNotSentLowat(net.Conn, int) {}
