package wire

import "strconv"

// A CloseCode is the status code of a Close frame, RFC 6455 section 7.4.
type CloseCode uint16

const (
	CloseNormal             CloseCode = 1000
	CloseGoingAway          CloseCode = 1001
	CloseProtocolError      CloseCode = 1002
	CloseUnsupportedData    CloseCode = 1003
	CloseNoStatus           CloseCode = 1005 // never on the wire: the Close had no code
	CloseAbnormal           CloseCode = 1006 // never on the wire: there was no Close
	CloseInvalidPayload     CloseCode = 1007
	ClosePolicyViolation    CloseCode = 1008
	CloseMessageTooBig      CloseCode = 1009
	CloseMandatoryExtension CloseCode = 1010
	CloseInternalError      CloseCode = 1011
	CloseServiceRestart     CloseCode = 1012
	CloseTryAgainLater      CloseCode = 1013
	CloseBadGateway         CloseCode = 1014
	CloseTLSHandshake       CloseCode = 1015 // never on the wire
)

// Sendable reports whether the code may stand in a Close frame: 1000 to 1003,
// 1007 to 1014 and 3000 to 4999 (RFC 6455 section 7.4 and the IANA registry).
func (c CloseCode) Sendable() bool {
	switch {
	case c >= 1000 && c <= 1003, c >= 1007 && c <= 1014, c >= 3000 && c <= 4999:
		return true
	}
	return false
}

// String returns the number and, where one is registered, the name.
func (c CloseCode) String() string {
	s := strconv.FormatUint(uint64(c), 10)
	switch c {
	case CloseNormal:
		return s + " (normal closure)"
	case CloseGoingAway:
		return s + " (going away)"
	case CloseProtocolError:
		return s + " (protocol error)"
	case CloseUnsupportedData:
		return s + " (unsupported data)"
	case CloseNoStatus:
		return s + " (no status)"
	case CloseAbnormal:
		return s + " (abnormal closure)"
	case CloseInvalidPayload:
		return s + " (invalid payload)"
	case ClosePolicyViolation:
		return s + " (policy violation)"
	case CloseMessageTooBig:
		return s + " (message too big)"
	case CloseMandatoryExtension:
		return s + " (mandatory extension)"
	case CloseInternalError:
		return s + " (internal error)"
	case CloseServiceRestart:
		return s + " (service restart)"
	case CloseTryAgainLater:
		return s + " (try again later)"
	case CloseBadGateway:
		return s + " (bad gateway)"
	case CloseTLSHandshake:
		return s + " (TLS handshake)"
	}
	return s
}
