package proto

import (
	"iter"

	"github.com/weft-ws/weft/internal/wire"
)

// A Level says how strongly a rule binds.
type Level uint8

const (
	LevelMust   Level = 1 + iota // a MUST of the RFC
	LevelShould                  // a SHOULD of the RFC
	LevelRule                    // follows from the RFC's text without the word
	LevelHint                    // legal, but a known cause of trouble
)

// String returns "MUST", "SHOULD", "RULE" or "HINT".
func (l Level) String() string {
	switch l {
	case LevelMust:
		return "MUST"
	case LevelShould:
		return "SHOULD"
	case LevelRule:
		return "RULE"
	}
	return "HINT"
}

// An Offender is the party that a rule binds.
type Offender uint8

const (
	EitherSide Offender = 1 + iota // whoever sends
	ClientSide
	ServerSide
	ReceiverSide // whoever receives
	ProxySide    // an intermediary
)

// String returns "either", "client", "server", "receiver" or "proxy".
func (o Offender) String() string {
	switch o {
	case ClientSide:
		return "client"
	case ServerSide:
		return "server"
	case ReceiverSide:
		return "receiver"
	case ProxySide:
		return "proxy"
	}
	return "either"
}

// A Rule is one requirement on the wire.
type Rule struct {
	ID       string // short and stable: "MS-02"
	Name     string // what was done wrong: "continuation-without-message"
	RFC      string // "6455", "7692" or "" for a hint
	Section  string // "5.4"
	Level    Level
	Offender Offender
	// Layer is "handshake", "frame", "message", "control", "close" or "deflate".
	Layer string
	// Needs is what an observer must see to judge: "stream" (one direction),
	// "hs" (the handshake), "both" (both directions), "tcp" (how and when TCP
	// ended), "2side" (both sides of an intermediary) or "multi" (several
	// connections).
	Needs  string
	Says   string         // the breach, in a sentence
	Action string         // what a receiver does about it
	Code   wire.CloseCode // close code for the offender; 0 where there is none
	Status int            // HTTP status of the refusal; 0 outside the handshake
}

// Rules yields the catalogue in its order.
func Rules() iter.Seq[Rule] {
	return func(yield func(Rule) bool) {
		for i := range catalogue {
			if !yield(catalogue[i]) {
				return
			}
		}
	}
}

// RuleByID returns the rule with the given ID or name, or nil.
func RuleByID(id string) *Rule {
	for i := range catalogue {
		if catalogue[i].ID == id || catalogue[i].Name == id {
			r := catalogue[i]
			return &r
		}
	}
	return nil
}

// rule is RuleByID for the catalogue's own package: an unknown ID is a
// programming error.
func rule(id string) *Rule {
	r := RuleByID(id)
	if r == nil {
		panic("proto: no rule " + id)
	}
	return r
}

// catalogue is never written to.
var catalogue = [...]Rule{
	{ID: "HS-01", Name: "request-not-http", RFC: "6455", Section: "4.1", Level: LevelMust, Offender: ClientSide, Layer: "handshake", Needs: "hs",
		Says:   "Opening request is not a syntactically valid HTTP/1.1 request",
		Action: "refuse the upgrade", Status: 400},
	{ID: "HS-02", Name: "method-not-get", RFC: "6455", Section: "4.1", Level: LevelMust, Offender: ClientSide, Layer: "handshake", Needs: "hs",
		Says:   "Request method is something other than GET",
		Action: "refuse the upgrade", Status: 405},
	{ID: "HS-03", Name: "http-version-too-low", RFC: "6455", Section: "4.1", Level: LevelMust, Offender: ClientSide, Layer: "handshake", Needs: "hs",
		Says:   "Request uses an HTTP version below 1.1",
		Action: "refuse the upgrade", Status: 400},
	{ID: "HS-04", Name: "fragment-in-target", RFC: "6455", Section: "3", Level: LevelMust, Offender: ClientSide, Layer: "handshake", Needs: "hs",
		Says:   "Request target carries a fragment part (#...)",
		Action: "refuse the upgrade", Status: 400},
	{ID: "HS-05", Name: "host-missing", RFC: "6455", Section: "4.1", Level: LevelMust, Offender: ClientSide, Layer: "handshake", Needs: "hs",
		Says:   "Host header is absent (or given more than once)",
		Action: "refuse the upgrade", Status: 400},
	{ID: "HS-06", Name: "upgrade-missing", RFC: "6455", Section: "4.1", Level: LevelMust, Offender: ClientSide, Layer: "handshake", Needs: "hs",
		Says:   "Upgrade header is absent or does not name websocket",
		Action: "refuse the upgrade", Status: 426},
	{ID: "HS-07", Name: "connection-missing", RFC: "6455", Section: "4.1", Level: LevelMust, Offender: ClientSide, Layer: "handshake", Needs: "hs",
		Says:   "Connection header has no Upgrade token",
		Action: "refuse the upgrade", Status: 400},
	{ID: "HS-08", Name: "key-missing", RFC: "6455", Section: "4.1", Level: LevelMust, Offender: ClientSide, Layer: "handshake", Needs: "hs",
		Says:   "Sec-WebSocket-Key header is absent",
		Action: "refuse the upgrade", Status: 400},
	{ID: "HS-09", Name: "key-not-16-bytes", RFC: "6455", Section: "4.1", Level: LevelMust, Offender: ClientSide, Layer: "handshake", Needs: "hs",
		Says:   "Sec-WebSocket-Key does not decode from base64 to exactly 16 bytes",
		Action: "refuse the upgrade", Status: 400},
	{ID: "HS-10", Name: "key-repeated", RFC: "6455", Section: "11.3.1", Level: LevelMust, Offender: ClientSide, Layer: "handshake", Needs: "hs",
		Says:   "Sec-WebSocket-Key header appears more than once",
		Action: "refuse the upgrade", Status: 400},
	{ID: "HS-11", Name: "key-reused", RFC: "6455", Section: "4.1", Level: LevelMust, Offender: ClientSide, Layer: "handshake", Needs: "multi",
		Says:   "The same Sec-WebSocket-Key value is used for more than one connection (nonce is not random)",
		Action: "report only"},
	{ID: "HS-12", Name: "version-not-13", RFC: "6455", Section: "4.1", Level: LevelMust, Offender: ClientSide, Layer: "handshake", Needs: "hs",
		Says:   "Sec-WebSocket-Version is absent or is not 13",
		Action: "refuse and list the supported version", Status: 426},
	{ID: "HS-13", Name: "version-repeated", RFC: "6455", Section: "11.3.5", Level: LevelMust, Offender: ClientSide, Layer: "handshake", Needs: "hs",
		Says:   "Sec-WebSocket-Version header appears more than once in the request",
		Action: "refuse the upgrade", Status: 400},
	{ID: "HS-14", Name: "subprotocol-offer-malformed", RFC: "6455", Section: "4.1", Level: LevelMust, Offender: ClientSide, Layer: "handshake", Needs: "hs",
		Says:   "Offered subprotocol list holds an empty, repeated or non-token element",
		Action: "refuse the upgrade", Status: 400},
	{ID: "HS-15", Name: "extensions-malformed", RFC: "6455", Section: "9.1", Level: LevelMust, Offender: EitherSide, Layer: "handshake", Needs: "hs",
		Says:   "Sec-WebSocket-Extensions value does not follow the extension grammar",
		Action: "fail the handshake", Status: 400},
	{ID: "HS-16", Name: "bytes-before-response", RFC: "6455", Section: "4.1", Level: LevelMust, Offender: ClientSide, Layer: "handshake", Needs: "both",
		Says:   "Client sends bytes after its request and before the server response has arrived",
		Action: "report only"},
	{ID: "HS-17", Name: "origin-missing", RFC: "6455", Section: "4.1", Level: LevelMust, Offender: ClientSide, Layer: "handshake", Needs: "hs",
		Says:   "Request comes from a browser but has no Origin header",
		Action: "apply the origin policy", Status: 403},
	{ID: "HR-01", Name: "accepted-broken-request", RFC: "6455", Section: "4.2.1", Level: LevelMust, Offender: ServerSide, Layer: "handshake", Needs: "both",
		Says:   "Server answers 101 although the request broke a client handshake requirement",
		Action: "client should not rely on it"},
	{ID: "HR-02", Name: "response-upgrade-missing", RFC: "6455", Section: "4.2.2", Level: LevelMust, Offender: ServerSide, Layer: "handshake", Needs: "hs",
		Says:   "101 response has no Upgrade header naming websocket",
		Action: "client fails the connection"},
	{ID: "HR-03", Name: "response-connection-missing", RFC: "6455", Section: "4.2.2", Level: LevelMust, Offender: ServerSide, Layer: "handshake", Needs: "hs",
		Says:   "101 response has no Connection header with the Upgrade token",
		Action: "client fails the connection"},
	{ID: "HR-04", Name: "accept-wrong", RFC: "6455", Section: "4.1", Level: LevelMust, Offender: ServerSide, Layer: "handshake", Needs: "both",
		Says:   "Sec-WebSocket-Accept is absent or is not the digest of the key that was sent",
		Action: "client fails the connection"},
	{ID: "HR-05", Name: "accept-repeated", RFC: "6455", Section: "11.3.3", Level: LevelMust, Offender: ServerSide, Layer: "handshake", Needs: "hs",
		Says:   "Sec-WebSocket-Accept header appears more than once",
		Action: "client fails the connection"},
	{ID: "HR-06", Name: "extension-not-offered", RFC: "6455", Section: "9.1", Level: LevelMust, Offender: ServerSide, Layer: "handshake", Needs: "both",
		Says:   "Response activates an extension the client did not offer",
		Action: "client fails the connection", Code: 1002},
	{ID: "HR-07", Name: "response-extensions-repeated", RFC: "6455", Section: "11.3.2", Level: LevelMust, Offender: ServerSide, Layer: "handshake", Needs: "hs",
		Says:   "Sec-WebSocket-Extensions header appears more than once in the response",
		Action: "client fails the connection"},
	{ID: "HR-08", Name: "subprotocol-not-offered", RFC: "6455", Section: "4.2.2", Level: LevelMust, Offender: ServerSide, Layer: "handshake", Needs: "both",
		Says:   "Response selects a subprotocol the client did not offer",
		Action: "client fails the connection"},
	{ID: "HR-09", Name: "response-subprotocol-repeated", RFC: "6455", Section: "11.3.4", Level: LevelMust, Offender: ServerSide, Layer: "handshake", Needs: "hs",
		Says:   "Sec-WebSocket-Protocol header appears more than once in the response",
		Action: "client fails the connection"},
	{ID: "HR-10", Name: "response-subprotocol-empty", RFC: "6455", Section: "4.2.2", Level: LevelMust, Offender: ServerSide, Layer: "handshake", Needs: "hs",
		Says:   "Response carries an empty Sec-WebSocket-Protocol value instead of leaving the header out",
		Action: "client fails the connection"},
	{ID: "HR-11", Name: "refusal-without-version", RFC: "6455", Section: "4.2.2", Level: LevelMust, Offender: ServerSide, Layer: "handshake", Needs: "both",
		Says:   "Refusal of an unsupported version lacks a Sec-WebSocket-Version header listing the supported ones",
		Action: "report only"},
	{ID: "FR-01", Name: "client-frame-not-masked", RFC: "6455", Section: "5.1", Level: LevelMust, Offender: ClientSide, Layer: "frame", Needs: "stream",
		Says:   "Frame from the client is not masked",
		Action: "server closes", Code: 1002},
	{ID: "FR-02", Name: "server-frame-masked", RFC: "6455", Section: "5.1", Level: LevelMust, Offender: ServerSide, Layer: "frame", Needs: "stream",
		Says:   "Frame from the server is masked",
		Action: "client closes", Code: 1002},
	{ID: "FR-03", Name: "rsv1-without-extension", RFC: "6455", Section: "5.2", Level: LevelMust, Offender: EitherSide, Layer: "frame", Needs: "hs",
		Says:   "RSV1 is set while no negotiated extension gives it a meaning",
		Action: "fail the connection", Code: 1002},
	{ID: "FR-04", Name: "rsv2-rsv3-without-extension", RFC: "6455", Section: "5.2", Level: LevelMust, Offender: EitherSide, Layer: "frame", Needs: "hs",
		Says:   "RSV2 or RSV3 is set while no negotiated extension gives it a meaning",
		Action: "fail the connection", Code: 1002},
	{ID: "FR-05", Name: "reserved-data-opcode", RFC: "6455", Section: "5.2", Level: LevelMust, Offender: EitherSide, Layer: "frame", Needs: "stream",
		Says:   "Data opcode from the reserved range 0x3-0x7",
		Action: "fail the connection", Code: 1002},
	{ID: "FR-06", Name: "reserved-control-opcode", RFC: "6455", Section: "5.2", Level: LevelMust, Offender: EitherSide, Layer: "frame", Needs: "stream",
		Says:   "Control opcode from the reserved range 0xB-0xF",
		Action: "fail the connection", Code: 1002},
	{ID: "FR-07", Name: "length-top-bit-set", RFC: "6455", Section: "5.2", Level: LevelMust, Offender: EitherSide, Layer: "frame", Needs: "stream",
		Says:   "64-bit payload length has its top bit set",
		Action: "fail the connection", Code: 1002},
	{ID: "FR-08", Name: "length-16-not-minimal", RFC: "6455", Section: "5.2", Level: LevelMust, Offender: EitherSide, Layer: "frame", Needs: "stream",
		Says:   "16-bit length form used for a payload of 125 bytes or fewer",
		Action: "fail the connection", Code: 1002},
	{ID: "FR-09", Name: "length-64-not-minimal", RFC: "6455", Section: "5.2", Level: LevelMust, Offender: EitherSide, Layer: "frame", Needs: "stream",
		Says:   "64-bit length form used for a payload of 65535 bytes or fewer",
		Action: "fail the connection", Code: 1002},
	{ID: "FR-10", Name: "control-frame-too-long", RFC: "6455", Section: "5.5", Level: LevelMust, Offender: EitherSide, Layer: "frame", Needs: "stream",
		Says:   "Control frame payload is longer than 125 bytes",
		Action: "fail the connection", Code: 1002},
	{ID: "FR-11", Name: "control-frame-fragmented", RFC: "6455", Section: "5.5", Level: LevelMust, Offender: EitherSide, Layer: "frame", Needs: "stream",
		Says:   "Control frame is fragmented (FIN is 0)",
		Action: "fail the connection", Code: 1002},
	{ID: "FR-12", Name: "masking-key-predictable", RFC: "6455", Section: "5.3", Level: LevelMust, Offender: ClientSide, Layer: "frame", Needs: "stream",
		Says:   "Masking keys are repeated, constant or form a predictable series over frames",
		Action: "report only"},
	{ID: "FR-13", Name: "stream-ends-inside-frame", RFC: "6455", Section: "7.2.1", Level: LevelMust, Offender: EitherSide, Layer: "frame", Needs: "tcp",
		Says:   "TCP stream ends inside a frame header or inside a payload",
		Action: "treat as abnormal closure"},
	{ID: "FR-14", Name: "reads-past-frame-limit", RFC: "6455", Section: "10.4", Level: LevelMust, Offender: ReceiverSide, Layer: "frame", Needs: "both",
		Says:   "Receiver reads on although the declared frame length is over its own limit",
		Action: "close as soon as the header is read", Code: 1009},
	{ID: "MS-01", Name: "continuation-first", RFC: "6455", Section: "5.4", Level: LevelMust, Offender: EitherSide, Layer: "message", Needs: "stream",
		Says:   "CONTINUATION is the first data frame of the connection",
		Action: "fail the connection", Code: 1002},
	{ID: "MS-02", Name: "continuation-without-message", RFC: "6455", Section: "5.4", Level: LevelMust, Offender: EitherSide, Layer: "message", Needs: "stream",
		Says:   "CONTINUATION follows a data frame that had FIN set (nothing is open to continue)",
		Action: "fail the connection", Code: 1002},
	{ID: "MS-03", Name: "message-inside-message", RFC: "6455", Section: "5.4", Level: LevelMust, Offender: EitherSide, Layer: "message", Needs: "stream",
		Says:   "TEXT or BINARY starts while the previous message has not had its FIN frame",
		Action: "fail the connection", Code: 1002},
	{ID: "MS-04", Name: "fragments-interleaved", RFC: "6455", Section: "5.4", Level: LevelMust, Offender: EitherSide, Layer: "message", Needs: "stream",
		Says:   "Fragments of two messages are interleaved without an extension that allows it",
		Action: "fail the connection", Code: 1002},
	{ID: "MS-05", Name: "text-not-utf8", RFC: "6455", Section: "8.1", Level: LevelMust, Offender: EitherSide, Layer: "message", Needs: "stream",
		Says:   "Text message holds bytes that are not UTF-8 (including overlong forms, surrogates, values above U+10FFFF)",
		Action: "fail at the first bad byte", Code: 1007},
	{ID: "MS-06", Name: "text-ends-inside-character", RFC: "6455", Section: "5.6", Level: LevelMust, Offender: EitherSide, Layer: "message", Needs: "stream",
		Says:   "Text message ends in the middle of a UTF-8 sequence",
		Action: "fail the connection", Code: 1007},
	{ID: "MS-07", Name: "accepts-message-over-limit", RFC: "6455", Section: "10.4", Level: LevelMust, Offender: ReceiverSide, Layer: "message", Needs: "both",
		Says:   "Receiver accepts a reassembled message above its own declared limit",
		Action: "close when the running total passes the limit", Code: 1009},
	{ID: "MS-08", Name: "proxy-reframed-message", RFC: "6455", Section: "5.4", Level: LevelMust, Offender: ProxySide, Layer: "message", Needs: "2side",
		Says:   "Intermediary split or joined the frames of a message although an extension it does not know is active (or it did not see the handshake)",
		Action: "report only"},
	{ID: "MS-09", Name: "proxy-changed-control-frame", RFC: "6455", Section: "5.4", Level: LevelMust, Offender: ProxySide, Layer: "message", Needs: "2side",
		Says:   "Intermediary changed the framing of a control frame",
		Action: "report only"},
	{ID: "MS-10", Name: "fragments-reordered", RFC: "6455", Section: "5.4", Level: LevelMust, Offender: ProxySide, Layer: "message", Needs: "2side",
		Says:   "Fragments reach the receiver in another order than they were sent",
		Action: "fail the connection", Code: 1002},
	{ID: "MS-11", Name: "message-never-finished", RFC: "6455", Section: "6.1", Level: LevelMust, Offender: EitherSide, Layer: "message", Needs: "tcp",
		Says:   "Fragmented message never gets a FIN frame before the sender closes or goes silent",
		Action: "drop the partial message", Code: 1008},
	{ID: "MS-12", Name: "rejects-interleaved-control", RFC: "6455", Section: "5.4", Level: LevelMust, Offender: ReceiverSide, Layer: "message", Needs: "both",
		Says:   "Peer fails the connection when a legal control frame arrives between two fragments",
		Action: "report only"},
	{ID: "MS-13", Name: "rejects-fragmentation", RFC: "6455", Section: "5.4", Level: LevelMust, Offender: ReceiverSide, Layer: "message", Needs: "both",
		Says:   "Peer fails the connection when it is sent a legally fragmented message",
		Action: "report only"},
	{ID: "CT-01", Name: "ping-not-answered", RFC: "6455", Section: "5.5.2", Level: LevelMust, Offender: EitherSide, Layer: "control", Needs: "both",
		Says:   "Neither a PING nor any later PING (5.5.3) is answered by a PONG although the peer had not received CLOSE",
		Action: "close when the pong deadline passes", Code: 1001},
	{ID: "CT-02", Name: "pong-payload-differs", RFC: "6455", Section: "5.5.3", Level: LevelRule, Offender: EitherSide, Layer: "control", Needs: "both",
		Says:   "PONG that answers a PING carries a different payload",
		Action: "report only"},
	{ID: "CL-01", Name: "close-body-one-byte", RFC: "6455", Section: "5.5.1", Level: LevelMust, Offender: EitherSide, Layer: "close", Needs: "stream",
		Says:   "CLOSE body is exactly one byte long",
		Action: "fail the connection", Code: 1002},
	{ID: "CL-02", Name: "close-code-below-1000", RFC: "6455", Section: "7.4.2", Level: LevelRule, Offender: EitherSide, Layer: "close", Needs: "stream",
		Says:   "CLOSE status code is below 1000",
		Action: "fail the connection", Code: 1002},
	{ID: "CL-03", Name: "close-code-never-sent", RFC: "6455", Section: "7.4.1", Level: LevelMust, Offender: EitherSide, Layer: "close", Needs: "stream",
		Says:   "CLOSE status code is one that must never be sent: 1005, 1006 or 1015",
		Action: "fail the connection", Code: 1002},
	{ID: "CL-04", Name: "close-code-unassigned", RFC: "6455", Section: "7.4.2", Level: LevelRule, Offender: EitherSide, Layer: "close", Needs: "stream",
		Says:   "CLOSE status code is reserved or unassigned: 1004 or 1016-2999",
		Action: "fail the connection", Code: 1002},
	{ID: "CL-05", Name: "close-code-above-4999", RFC: "6455", Section: "7.4.2", Level: LevelRule, Offender: EitherSide, Layer: "close", Needs: "stream",
		Says:   "CLOSE status code is 5000 or above",
		Action: "fail the connection", Code: 1002},
	{ID: "CL-06", Name: "close-reason-not-utf8", RFC: "6455", Section: "5.5.1", Level: LevelMust, Offender: EitherSide, Layer: "close", Needs: "stream",
		Says:   "CLOSE reason is not valid UTF-8",
		Action: "fail the connection", Code: 1007},
	{ID: "CL-07", Name: "data-after-close", RFC: "6455", Section: "5.5.1", Level: LevelMust, Offender: EitherSide, Layer: "close", Needs: "stream",
		Says:   "Endpoint sends a data frame after its own CLOSE",
		Action: "ignore the data"},
	{ID: "CL-08", Name: "close-not-answered", RFC: "6455", Section: "5.5.1", Level: LevelMust, Offender: EitherSide, Layer: "close", Needs: "both",
		Says:   "CLOSE is not answered with a CLOSE before the TCP connection ends",
		Action: "report only"},
	{ID: "CL-09", Name: "server-keeps-tcp-open", RFC: "6455", Section: "5.5.1", Level: LevelMust, Offender: ServerSide, Layer: "close", Needs: "tcp",
		Says:   "Server keeps the TCP connection open after both CLOSE frames were exchanged",
		Action: "report only"},
	{ID: "CL-10", Name: "dropped-without-close", RFC: "6455", Section: "7.1.7", Level: LevelShould, Offender: EitherSide, Layer: "close", Needs: "tcp",
		Says:   "Connection is dropped (FIN or RST) after an error with no CLOSE frame to tell why",
		Action: "report only"},
	{ID: "CL-11", Name: "client-ends-tcp-first", RFC: "6455", Section: "7.1.1", Level: LevelShould, Offender: ClientSide, Layer: "close", Needs: "tcp",
		Says:   "Client ends the TCP connection first instead of letting the server do it",
		Action: "report only"},
	{ID: "CL-12", Name: "server-sends-1010", RFC: "6455", Section: "7.4.1", Level: LevelRule, Offender: ServerSide, Layer: "close", Needs: "stream",
		Says:   "Server sends status 1010, which is meant for clients",
		Action: "report only"},
	{ID: "CL-13", Name: "frames-after-close", RFC: "6455", Section: "5.5.1", Level: LevelRule, Offender: EitherSide, Layer: "close", Needs: "stream",
		Says:   "Endpoint sends a second CLOSE frame, or other frames, after its first CLOSE",
		Action: "ignore"},
	{ID: "DF-01", Name: "rsv1-on-continuation", RFC: "7692", Section: "6", Level: LevelMust, Offender: EitherSide, Layer: "deflate", Needs: "stream",
		Says:   "RSV1 is set on a CONTINUATION frame",
		Action: "fail the connection", Code: 1002},
	{ID: "DF-02", Name: "rsv1-on-control", RFC: "7692", Section: "6", Level: LevelMust, Offender: EitherSide, Layer: "deflate", Needs: "stream",
		Says:   "RSV1 is set on a control frame",
		Action: "fail the connection", Code: 1002},
	{ID: "DF-03", Name: "accepted-bad-deflate-offer", RFC: "7692", Section: "7.1", Level: LevelMust, Offender: ServerSide, Layer: "deflate", Needs: "both",
		Says:   "Server accepted a permessage-deflate offer that holds an unknown, repeated or invalid parameter (it had to decline it)",
		Action: "report only"},
	{ID: "DF-04", Name: "deflate-parameter-unknown", RFC: "7692", Section: "7.1", Level: LevelMust, Offender: ServerSide, Layer: "deflate", Needs: "hs",
		Says:   "Response holds a parameter that permessage-deflate does not define",
		Action: "client fails the connection", Code: 1002},
	{ID: "DF-05", Name: "deflate-parameter-repeated", RFC: "7692", Section: "7.1", Level: LevelMust, Offender: ServerSide, Layer: "deflate", Needs: "hs",
		Says:   "Response repeats a parameter name",
		Action: "client fails the connection", Code: 1002},
	{ID: "DF-06", Name: "deflate-parameter-invalid", RFC: "7692", Section: "7.1.2", Level: LevelMust, Offender: EitherSide, Layer: "deflate", Needs: "hs",
		Says:   "Window size is not a decimal from 8 to 15 without leading zero, or a no_context_takeover parameter has a value",
		Action: "decline (server) or fail (client)", Code: 1002},
	{ID: "DF-07", Name: "client-window-not-offered", RFC: "7692", Section: "7.1.2.2", Level: LevelMust, Offender: ServerSide, Layer: "deflate", Needs: "both",
		Says:   "Response sets client_max_window_bits although the offer did not contain it",
		Action: "client fails the connection", Code: 1002},
	{ID: "DF-08", Name: "server-window-ignored", RFC: "7692", Section: "7.1.2.1", Level: LevelRule, Offender: ServerSide, Layer: "deflate", Needs: "both",
		Says:   "Offer had server_max_window_bits but the accepting response leaves it out or sets a larger value",
		Action: "client fails the connection", Code: 1002},
	{ID: "DF-09", Name: "server-takeover-ignored", RFC: "7692", Section: "7.1.1.1", Level: LevelRule, Offender: ServerSide, Layer: "deflate", Needs: "both",
		Says:   "Offer asked for server_no_context_takeover but the accepting response leaves it out",
		Action: "client fails the connection", Code: 1002},
	{ID: "DF-10", Name: "deflate-data-invalid", RFC: "7692", Section: "7.2.2", Level: LevelRule, Offender: EitherSide, Layer: "deflate", Needs: "hs",
		Says:   "Compressed message payload is not a valid DEFLATE stream",
		Action: "fail the connection", Code: 1007},
	{ID: "DF-11", Name: "deflate-window-exceeded", RFC: "7692", Section: "7.2.1", Level: LevelMust, Offender: EitherSide, Layer: "deflate", Needs: "hs",
		Says:   "Compressed data points back further than the negotiated window",
		Action: "fail the connection", Code: 1007},
	{ID: "DF-12", Name: "deflate-context-not-reset", RFC: "7692", Section: "7.2.1", Level: LevelMust, Offender: EitherSide, Layer: "deflate", Needs: "hs",
		Says:   "Message depends on the window of an earlier message although no_context_takeover was agreed for that direction",
		Action: "fail the connection", Code: 1007},
	{ID: "DF-13", Name: "deflate-tail-not-removed", RFC: "7692", Section: "7.2.1", Level: LevelRule, Offender: EitherSide, Layer: "deflate", Needs: "hs",
		Says:   "Sender left the empty-block tail 00 00 ff ff on the compressed message",
		Action: "tolerate and report"},
	{ID: "DF-14", Name: "inflates-past-limit", RFC: "6455", Section: "10.4", Level: LevelMust, Offender: ReceiverSide, Layer: "deflate", Needs: "both",
		Says:   "Receiver inflates past its own message limit (decompression bomb)",
		Action: "stop inflating at the limit", Code: 1009},
	{ID: "HX-01", Name: "empty-fragment-flood", RFC: "", Section: "", Level: LevelHint, Offender: EitherSide, Layer: "message", Needs: "stream",
		Says:   "Flood of empty fragments: many zero-length non-final frames in one message",
		Action: "close over the fragment budget", Code: 1008},
	{ID: "HX-02", Name: "tiny-fragments", RFC: "", Section: "", Level: LevelHint, Offender: EitherSide, Layer: "message", Needs: "stream",
		Says:   "Very small fragments: mean payload per frame far below the header cost over a long run",
		Action: "close over the fragment budget", Code: 1008},
	{ID: "HX-03", Name: "message-stalls", RFC: "", Section: "", Level: LevelHint, Offender: EitherSide, Layer: "message", Needs: "tcp",
		Says:   "Message stalls: time between two fragments (or from first fragment to FIN) above the set limit",
		Action: "close at the deadline", Code: 1008},
	{ID: "HX-04", Name: "control-frame-flood", RFC: "", Section: "", Level: LevelHint, Offender: EitherSide, Layer: "control", Needs: "tcp",
		Says:   "Control-frame flood: more PING, PONG or CLOSE frames per second than the set rate",
		Action: "close over the rate", Code: 1008},
	{ID: "HX-05", Name: "unasked-pongs", RFC: "", Section: "", Level: LevelHint, Offender: EitherSide, Layer: "control", Needs: "stream",
		Says:   "Unasked PONG frames in number (legal, but often a sign of a broken keepalive)",
		Action: "report only"},
	{ID: "HX-06", Name: "larger-than-intermediaries-allow", RFC: "", Section: "", Level: LevelHint, Offender: EitherSide, Layer: "message", Needs: "stream",
		Says:   "Frame or message is larger than a common intermediary allows (32 KiB frame, 128 KiB or 1 MiB message)",
		Action: "report only"},
	{ID: "HX-07", Name: "round-idle-time", RFC: "", Section: "", Level: LevelHint, Offender: EitherSide, Layer: "close", Needs: "tcp",
		Says:   "Connection ends at a round idle time (60 s, 100 s, 300 s, 600 s) that points at a proxy timeout",
		Action: "report only"},
}
