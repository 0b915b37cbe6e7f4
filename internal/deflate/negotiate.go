package deflate

import (
	"fmt"
	"strconv"
	"strings"
)

// Name is the extension's registered name (RFC 7692, 9.1).
const Name = "permessage-deflate"

const (
	serverNoContextTakeover = "server_no_context_takeover"
	clientNoContextTakeover = "client_no_context_takeover"
	serverMaxWindowBits     = "server_max_window_bits"
	clientMaxWindowBits     = "client_max_window_bits"
)

// Params is what both sides agreed on: what each compressor does and what each
// decompressor may rely on. Window sizes are base-two logarithms, 8 to 15.
type Params struct {
	// The server (the client) starts every message with an empty window, so the
	// other side need not keep one between messages.
	ServerNoContextTakeover, ClientNoContextTakeover bool
	// No back-reference of the server (the client) reaches further than 2 to this
	// power.
	ServerMaxWindowBits, ClientMaxWindowBits int
}

// Options is what our side wants. The zero value offers and accepts context
// takeover and 32 KiB windows in both directions.
type Options struct {
	// OwnNoContextTakeover: our compressor forgets after each message, so nothing is
	// held between messages to send. The peer is told.
	OwnNoContextTakeover bool
	// PeerNoContextTakeover: the peer is asked to forget after each message, so
	// nothing is held between messages received. A server that accepts our offer
	// must comply (DF-09); a client must comply with our response.
	PeerNoContextTakeover bool
	// OwnWindowBits is the largest window of our compressor, 8 to 15; 0 means 15. A
	// smaller value that the peer asks for is honoured. Negative, in a client: the
	// offer leaves client_max_window_bits out, so that the server cannot ask.
	OwnWindowBits int
	// PeerWindowBits is the largest window that we want to hold for what the peer
	// sends, 8 to 15; 0 means 15. A server that accepts our offer must comply
	// (DF-08). A client can be told only if its offer had client_max_window_bits.
	PeerWindowBits int
	// RequirePeerWindow lets a server decline offers that leave no way to tell the
	// client PeerWindowBits. Without it such an offer is accepted at 15.
	RequirePeerWindow bool
}

func (o Options) ownBits() int  { return clampWindowBits(o.OwnWindowBits) }
func (o Options) peerBits() int { return clampWindowBits(o.PeerWindowBits) }

// offersClientWindow says whether our offer holds client_max_window_bits.
func (o Options) offersClientWindow() bool { return o.OwnWindowBits >= 0 }

// Offer returns the element of Sec-WebSocket-Extensions with which a client
// asks for permessage-deflate (RFC 7692, 7.1).
func Offer(o Options) string {
	p := Params{
		ServerNoContextTakeover: o.PeerNoContextTakeover,
		ClientNoContextTakeover: o.OwnNoContextTakeover,
		ServerMaxWindowBits:     o.peerBits(),
		ClientMaxWindowBits:     o.ownBits(),
	}
	s := p.String()
	// RFC 7692, 7.1.2.2: "By including this parameter in an extension negotiation
	// offer, a client informs the peer server that the client supports the
	// "client_max_window_bits" extension parameter in an extension negotiation
	// response". Without a value there is no hint besides.
	if o.offersClientWindow() && p.ClientMaxWindowBits == WindowBitsMax {
		s += "; " + clientMaxWindowBits
	}
	return s
}

// String is the header element that states p; windows of 15 bits, which is what
// silence means, are left out.
func (p Params) String() string {
	var b strings.Builder
	b.WriteString(Name)
	if p.ServerNoContextTakeover {
		b.WriteString("; " + serverNoContextTakeover)
	}
	if p.ClientNoContextTakeover {
		b.WriteString("; " + clientNoContextTakeover)
	}
	if p.ServerMaxWindowBits != WindowBitsMax {
		b.WriteString("; " + serverMaxWindowBits + "=" + strconv.Itoa(p.ServerMaxWindowBits))
	}
	if p.ClientMaxWindowBits != WindowBitsMax {
		b.WriteString("; " + clientMaxWindowBits + "=" + strconv.Itoa(p.ClientMaxWindowBits))
	}
	return b.String()
}

// Accept chooses, for a server, the first offer of permessage-deflate that is
// well formed and that o allows. It returns what is agreed, the element of
// Sec-WebSocket-Extensions to answer with, and whether there was such an offer.
//
// RFC 7692, 7.1: "A server MUST decline an extension negotiation offer for this
// extension if" a parameter is not defined for use in an offer, has an invalid
// value, or is repeated. A client may send several offers in order of
// preference, so a declined one does not end the search.
func Accept(offers []Extension, o Options) (Params, string, bool) {
	for _, e := range offers {
		if e.Name != Name {
			continue
		}
		offer, err := readParams(e, true)
		if err != nil {
			continue
		}
		if p, ok := o.answer(offer); ok {
			return p, offerAnswer(p, offer), true
		}
	}
	return Params{}, "", false
}

// answer applies a server's wishes to an offer.
func (o Options) answer(offer paramSet) (Params, bool) {
	p := Params{
		// RFC 7692, 7.1.1.1: "A server accepts an extension negotiation offer that
		// includes the "server_no_context_takeover" extension parameter by including
		// [it] in the corresponding extension negotiation response".
		ServerNoContextTakeover: offer.serverNoTakeover || o.OwnNoContextTakeover,
		// RFC 7692, 7.1.1.2: the client's is a hint; answering it frees our window.
		ClientNoContextTakeover: offer.clientNoTakeover || o.PeerNoContextTakeover,
		// RFC 7692, 7.1.2.1: "with the same or smaller value as the offer".
		ServerMaxWindowBits: min(o.ownBits(), offer.serverBitsOr15()),
		ClientMaxWindowBits: WindowBitsMax,
	}
	if offer.clientBitsGiven {
		p.ClientMaxWindowBits = min(o.peerBits(), offer.clientBitsOr15())
	} else if o.RequirePeerWindow && o.peerBits() < WindowBitsMax {
		return Params{}, false
	}
	return p, true
}

// offerAnswer is p as a response; it differs from p.String() where a value of
// 15 must be said aloud.
func offerAnswer(p Params, offer paramSet) string {
	s := p.String()
	// RFC 7692, 7.1.2.1: an offer with server_max_window_bits is accepted "by
	// including" the parameter, also where the value is 15.
	if offer.serverBits != 0 && p.ServerMaxWindowBits == WindowBitsMax {
		s += "; " + serverMaxWindowBits + "=" + strconv.Itoa(WindowBitsMax)
	}
	return s
}

// Confirm checks, for a client that sent Offer(o) and nothing else, the
// extensions that the server's response activates. It returns what is agreed
// and whether permessage-deflate is active at all. The error is an *Error: HR-06
// for an extension that was not offered or is there twice, DF-04 to DF-09 for
// its parameters; the client must fail the connection.
func Confirm(o Options, resp []Extension) (Params, bool, error) {
	if len(resp) == 0 {
		return Params{}, false, nil
	}
	for i, e := range resp {
		if e.Name != Name {
			return Params{}, false, handshakeError("HR-06", "the response activates "+clip(e.Name)+", which was not offered")
		}
		if i > 0 {
			return Params{}, false, handshakeError("HR-06", "the response activates permessage-deflate twice, it was offered once")
		}
	}
	r, err := readParams(resp[0], false)
	if err != nil {
		return Params{}, false, err
	}
	if r.clientBitsGiven && !o.offersClientWindow() {
		return Params{}, false, handshakeError("DF-07", "the response has client_max_window_bits, the offer had not")
	}
	if o.peerBits() < WindowBitsMax {
		if r.serverBits == 0 {
			return Params{}, false, handshakeError("DF-08", fmt.Sprintf("the offer had server_max_window_bits=%d, the response leaves it out", o.peerBits()))
		}
		if r.serverBits > o.peerBits() {
			return Params{}, false, handshakeError("DF-08", fmt.Sprintf("the offer had server_max_window_bits=%d, the response %d", o.peerBits(), r.serverBits))
		}
	}
	if o.PeerNoContextTakeover && !r.serverNoTakeover {
		return Params{}, false, handshakeError("DF-09", "the offer had server_no_context_takeover, the response leaves it out")
	}
	return Params{
		ServerNoContextTakeover: r.serverNoTakeover,
		ClientNoContextTakeover: r.clientNoTakeover || o.OwnNoContextTakeover,
		ServerMaxWindowBits:     r.serverBitsOr15(),
		ClientMaxWindowBits:     min(o.ownBits(), r.clientBitsOr15()),
	}, true, nil
}

// paramSet is the parameters of one header element as they were written; a
// window of 0 bits was not given, or without a value.
type paramSet struct {
	serverNoTakeover, clientNoTakeover bool
	serverBits, clientBits             int
	clientBitsGiven                    bool
}

func (s paramSet) serverBitsOr15() int { return clampWindowBits(s.serverBits) }
func (s paramSet) clientBitsOr15() int { return clampWindowBits(s.clientBits) }

// readParams reads the parameters of an offer or of a response. The rule ids in
// its errors are those of a response; a server declines and needs no id.
func readParams(e Extension, offer bool) (paramSet, error) {
	var s paramSet
	var seen [4]bool
	for _, a := range e.Params {
		var which int
		var err error
		switch a.Name {
		case serverNoContextTakeover:
			which, s.serverNoTakeover = 0, true
			err = noValue(a)
		case clientNoContextTakeover:
			which, s.clientNoTakeover = 1, true
			err = noValue(a)
		case serverMaxWindowBits:
			which = 2
			s.serverBits, err = windowBits(a)
		case clientMaxWindowBits:
			which, s.clientBitsGiven = 3, true
			// RFC 7692, 7.1.2.2: only in an offer may the value be missing.
			if !offer || a.HasValue {
				s.clientBits, err = windowBits(a)
			}
		default:
			return s, handshakeError("DF-04", "permessage-deflate has no parameter "+clip(a.Name))
		}
		if err != nil {
			return s, err
		}
		if seen[which] {
			return s, handshakeError("DF-05", a.Name+" is there twice")
		}
		seen[which] = true
	}
	return s, nil
}

func noValue(a Param) error {
	if a.HasValue {
		return handshakeError("DF-06", a.Name+" has the value "+clip(a.Value)+", it takes none")
	}
	return nil
}

// windowBits reads "a decimal integer value without leading zeroes between 8 to
// 15, inclusive" (RFC 7692, 7.1.2.1).
func windowBits(a Param) (int, error) {
	switch v := a.Value; {
	case len(v) == 1 && (v == "8" || v == "9"):
		return int(v[0] - '0'), nil
	case len(v) == 2 && v[0] == '1' && '0' <= v[1] && v[1] <= '5':
		return 10 + int(v[1]-'0'), nil
	case !a.HasValue:
		return 0, handshakeError("DF-06", a.Name+" has no value, it needs one from 8 to 15")
	}
	return 0, handshakeError("DF-06", a.Name+" is "+clip(a.Value)+", it must be a number from 8 to 15")
}
