package acip

import (
	"fmt"
	"strconv"
	"strings"
)

// A Rule names what a peer has to obey.
type Rule string

const (
	RuleMagic       Rule = "magic"        // a packet begins with the magic number
	RuleLength      Rule = "length"       // the payload length fits the type
	RuleChecksum    Rule = "checksum"     // the CRC-32C fits the payload
	RuleOrder       Rule = "order"        // the packet is allowed at this point of the session
	RuleDirection   Rule = "direction"    // the packet may travel this way
	RuleUnknown     Rule = "unknown-type" // the type is in the catalogue
	RuleValue       Rule = "value"        // a field is in range
	RulePlaintext   Rule = "plaintext"    // session packets travel inside ENCRYPTED
	RuleSeal        Rule = "seal"         // the box opens under the session key
	RuleReplay      Rule = "replay"       // nonce counters rise strictly
	RuleMode        Rule = "mode"         // both ends want encryption
	RuleIdentity    Rule = "identity"     // the identity is the expected one and signs what it must
	RulePassword    Rule = "password"     // the peer knows the password
	RuleTimeout     Rule = "timeout"      // the peer speaks in time
	RuleRate        Rule = "rate"         // the peer sends no faster than allowed
	RuleStrict      Rule = "strict"       // nothing that is only tolerated, where Strict asks for that
	RuleServerProof Rule = "server-proof" // the server proves that it knows the password
)

// An ErrorCode is the number in an ERROR_MESSAGE.
type ErrorCode uint32

const (
	CodeNetwork     ErrorCode = 40
	CodeTimeout     ErrorCode = 43
	CodeProtocol    ErrorCode = 44
	CodeSize        ErrorCode = 45
	CodeRate        ErrorCode = 46
	CodeSessionFull ErrorCode = 48
	CodePassword    ErrorCode = 49
	CodeUnknown     ErrorCode = 54
	CodeCrypto      ErrorCode = 60
	CodeParameter   ErrorCode = 86
)

// String returns the number and, where one is known, its meaning.
func (c ErrorCode) String() string {
	s := strconv.FormatUint(uint64(c), 10)
	switch c {
	case CodeNetwork:
		return s + " (network)"
	case CodeTimeout:
		return s + " (timeout)"
	case CodeProtocol:
		return s + " (protocol violation)"
	case CodeSize:
		return s + " (size)"
	case CodeRate:
		return s + " (rate limited)"
	case CodeSessionFull:
		return s + " (session full)"
	case CodePassword:
		return s + " (wrong password)"
	case CodeUnknown:
		return s + " (unknown packet)"
	case CodeCrypto:
		return s + " (crypto)"
	case CodeParameter:
		return s + " (invalid parameter)"
	}
	return s
}

// A Violation is a rule broken by the peer. It ends the session; Code is what
// an ERROR_MESSAGE to the peer says.
type Violation struct {
	Rule   Rule
	Type   Type // of the packet that broke it; 0 if there was none
	Code   ErrorCode
	Detail string // what was seen, in words
	// Failed holds the flags of the AUTH_FAILED that answers this violation
	// instead of an ERROR_MESSAGE; 0 for none.
	Failed AuthFlags
}

// Error names the rule, the packet and what was seen.
func (v *Violation) Error() string {
	var b strings.Builder
	b.WriteString("peer broke acip rule " + string(v.Rule))
	if v.Type != 0 {
		b.WriteString(" with " + v.Type.String())
	}
	if v.Detail != "" {
		b.WriteString(": " + v.Detail)
	}
	return b.String()
}

// A RemoteError is an ERROR_MESSAGE or AUTH_FAILED that the peer sent. The
// text is the peer's, with control characters replaced.
type RemoteError struct {
	Code    ErrorCode // 0 for AUTH_FAILED
	Failed  AuthFlags // flags of AUTH_FAILED; 0 for ERROR_MESSAGE
	Message string
}

// Error says what the peer reported.
func (e *RemoteError) Error() string {
	if e.Failed != 0 {
		return "the server refused us: " + e.Failed.String()
	}
	return fmt.Sprintf("the peer reports error %s: %s", e.Code, e.Message)
}

// violation builds the common kind: a packet out of place or out of range.
func violation(r Rule, t Type, format string, args ...any) *Violation {
	return &Violation{Rule: r, Type: t, Code: CodeProtocol, Detail: fmt.Sprintf(format, args...)}
}
