package wire

import (
	"strconv"
	"strings"
	"testing"
)

// TestCloseCodeSendable goes through all 65,536 codes. RFC 6455 section 7.4.2
// gives the ranges; 1012 to 1014 were registered with IANA later.
func TestCloseCodeSendable(t *testing.T) {
	for i := range 1 << 16 {
		want := false
		switch {
		case i < 1000: // "Status codes in the range 0-999 are not used."
		case i == 1004: // "Reserved."
		case i == 1005, i == 1006, i == 1015: // "MUST NOT be set as a status code in a Close control frame"
		case i <= 1014: // defined
			want = true
		case i < 3000: // reserved for the protocol, not defined
		case i < 5000: // libraries, frameworks and applications; private use
			want = true
		}
		if got := CloseCode(i).Sendable(); got != want {
			t.Errorf("CloseCode(%d).Sendable() = %v, want %v", i, got, want)
		}
	}
}

func TestCloseCodeString(t *testing.T) {
	named := map[CloseCode]string{
		CloseNormal:             "1000 (normal closure)",
		CloseGoingAway:          "1001 (going away)",
		CloseProtocolError:      "1002 (protocol error)",
		CloseUnsupportedData:    "1003 (unsupported data)",
		CloseNoStatus:           "1005 (no status)",
		CloseAbnormal:           "1006 (abnormal closure)",
		CloseInvalidPayload:     "1007 (invalid payload)",
		ClosePolicyViolation:    "1008 (policy violation)",
		CloseMessageTooBig:      "1009 (message too big)",
		CloseMandatoryExtension: "1010 (mandatory extension)",
		CloseInternalError:      "1011 (internal error)",
		CloseServiceRestart:     "1012 (service restart)",
		CloseTryAgainLater:      "1013 (try again later)",
		CloseBadGateway:         "1014 (bad gateway)",
		CloseTLSHandshake:       "1015 (TLS handshake)",
	}
	for i := range 1 << 16 {
		c := CloseCode(i)
		want, ok := named[c]
		if !ok {
			want = strconv.Itoa(i)
		}
		if got := c.String(); got != want {
			t.Errorf("CloseCode(%d).String() = %q, want %q", i, got, want)
		}
		if !strings.HasPrefix(c.String(), strconv.Itoa(i)) {
			t.Errorf("CloseCode(%d).String() = %q does not begin with the number", i, c)
		}
	}
}
