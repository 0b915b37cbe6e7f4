package deflate

import (
	"errors"
	"strings"
	"testing"
)

func parse(t testing.TB, header string) []Extension {
	t.Helper()
	if header == "" {
		return nil
	}
	list, err := ParseExtensions([]string{header})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestOffer(t *testing.T) {
	for _, tt := range []struct {
		o    Options
		want string
	}{
		{Options{}, "permessage-deflate; client_max_window_bits"},
		{Options{OwnWindowBits: -1}, "permessage-deflate"},
		{Options{OwnWindowBits: 15, PeerWindowBits: 15}, "permessage-deflate; client_max_window_bits"},
		{Options{OwnWindowBits: 10}, "permessage-deflate; client_max_window_bits=10"},
		{Options{OwnWindowBits: -1, PeerWindowBits: 9}, "permessage-deflate; server_max_window_bits=9"},
		{Options{OwnNoContextTakeover: true}, "permessage-deflate; client_no_context_takeover; client_max_window_bits"},
		{Options{OwnNoContextTakeover: true, PeerNoContextTakeover: true, OwnWindowBits: 8, PeerWindowBits: 8},
			"permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=8; client_max_window_bits=8"},
		{Options{OwnWindowBits: 7, PeerWindowBits: 16}, "permessage-deflate; client_max_window_bits"},
	} {
		if got := Offer(tt.o); got != tt.want {
			t.Errorf("%+v: got %q, want %q", tt.o, got, tt.want)
		}
	}
}

func TestAccept(t *testing.T) {
	none := Options{}
	for _, tt := range []struct {
		name, offer string
		o           Options
		response    string // empty: declined
		want        Params
	}{
		{"plain", "permessage-deflate", none, "permessage-deflate", Params{false, false, 15, 15}},
		{"nothing", "", none, "", Params{}},
		{"other extension", "permessage-bzip2; server_max_window_bits=9", none, "", Params{}},
		{"name in capitals", "Permessage-Deflate", none, "", Params{}},
		{"what a browser offers", "permessage-deflate; client_max_window_bits", none, "permessage-deflate", Params{false, false, 15, 15}},
		{"server takeover", "permessage-deflate; server_no_context_takeover", none, "permessage-deflate; server_no_context_takeover", Params{true, false, 15, 15}},
		{"client takeover", "permessage-deflate; client_no_context_takeover", none, "permessage-deflate; client_no_context_takeover", Params{false, true, 15, 15}},
		{"server window", "permessage-deflate; server_max_window_bits=9", none, "permessage-deflate; server_max_window_bits=9", Params{false, false, 9, 15}},
		{"server window of 8", "permessage-deflate; server_max_window_bits=8", none, "permessage-deflate; server_max_window_bits=8", Params{false, false, 8, 15}},
		{"server window of 15", "permessage-deflate; server_max_window_bits=15", none, "permessage-deflate; server_max_window_bits=15", Params{false, false, 15, 15}},
		{"quoted value", `permessage-deflate; server_max_window_bits="10"`, none, "permessage-deflate; server_max_window_bits=10", Params{false, false, 10, 15}},
		{"client window", "permessage-deflate; client_max_window_bits=11", none, "permessage-deflate; client_max_window_bits=11", Params{false, false, 15, 11}},
		{"client window of 8", "permessage-deflate; client_max_window_bits=8", none, "permessage-deflate; client_max_window_bits=8", Params{false, false, 15, 8}},
		{"we want a client window", "permessage-deflate; client_max_window_bits", Options{PeerWindowBits: 12}, "permessage-deflate; client_max_window_bits=12", Params{false, false, 15, 12}},
		{"… smaller than the hint", "permessage-deflate; client_max_window_bits=14", Options{PeerWindowBits: 12}, "permessage-deflate; client_max_window_bits=12", Params{false, false, 15, 12}},
		{"… larger than the hint", "permessage-deflate; client_max_window_bits=10", Options{PeerWindowBits: 12}, "permessage-deflate; client_max_window_bits=10", Params{false, false, 15, 10}},
		{"… and cannot say so", "permessage-deflate", Options{PeerWindowBits: 12}, "permessage-deflate", Params{false, false, 15, 15}},
		{"… and insist", "permessage-deflate", Options{PeerWindowBits: 12, RequirePeerWindow: true}, "", Params{}},
		{"… and insist on 15", "permessage-deflate", Options{RequirePeerWindow: true}, "permessage-deflate", Params{false, false, 15, 15}},
		{"… and insist, second offer", "permessage-deflate, permessage-deflate; client_max_window_bits", Options{PeerWindowBits: 12, RequirePeerWindow: true},
			"permessage-deflate; client_max_window_bits=12", Params{false, false, 15, 12}},
		{"our own window", "permessage-deflate", Options{OwnWindowBits: 10}, "permessage-deflate; server_max_window_bits=10", Params{false, false, 10, 15}},
		{"… smaller than asked", "permessage-deflate; server_max_window_bits=12", Options{OwnWindowBits: 10}, "permessage-deflate; server_max_window_bits=10", Params{false, false, 10, 15}},
		{"… larger than asked", "permessage-deflate; server_max_window_bits=9", Options{OwnWindowBits: 10}, "permessage-deflate; server_max_window_bits=9", Params{false, false, 9, 15}},
		{"we forget", "permessage-deflate", Options{OwnNoContextTakeover: true}, "permessage-deflate; server_no_context_takeover", Params{true, false, 15, 15}},
		{"the client shall forget", "permessage-deflate", Options{PeerNoContextTakeover: true}, "permessage-deflate; client_no_context_takeover", Params{false, true, 15, 15}},
		{"everything", "permessage-deflate; client_max_window_bits=9; server_max_window_bits=9; client_no_context_takeover; server_no_context_takeover", none,
			"permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=9; client_max_window_bits=9", Params{true, true, 9, 9}},
		{"first of several", "x, permessage-deflate; server_max_window_bits=10, permessage-deflate", none, "permessage-deflate; server_max_window_bits=10", Params{false, false, 10, 15}},

		// RFC 7692, 7.1: offers that a server must decline (DF-03).
		{"unknown parameter", "permessage-deflate; window=9", none, "", Params{}},
		{"repeated parameter", "permessage-deflate; server_no_context_takeover; server_no_context_takeover", none, "", Params{}},
		{"repeated window", "permessage-deflate; client_max_window_bits; client_max_window_bits=9", none, "", Params{}},
		{"takeover with value", "permessage-deflate; server_no_context_takeover=1", none, "", Params{}},
		{"client takeover with value", "permessage-deflate; client_no_context_takeover=true", none, "", Params{}},
		{"server window without value", "permessage-deflate; server_max_window_bits", none, "", Params{}},
		{"declined, then accepted", "permessage-deflate; server_max_window_bits=7, permessage-deflate", none, "permessage-deflate", Params{false, false, 15, 15}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, response, ok := Accept(parse(t, tt.offer), tt.o)
			if ok != (tt.response != "") || response != tt.response || p != tt.want {
				t.Errorf("got %+v, %q, %t, want %+v, %q", p, response, ok, tt.want, tt.response)
			}
		})
	}
}

// HARDENING 13: window sizes outside 8 to 15, in every spelling.
func TestWindowBits(t *testing.T) {
	good := map[string]bool{"8": true, "9": true, "10": true, "11": true, "12": true, "13": true, "14": true, "15": true}
	for _, v := range []string{
		"8", "9", "10", "11", "12", "13", "14", "15",
		"0", "1", "7", "16", "20", "99", "08", "09", "010", "015", "-8", "+8", "8.0", "1e1", "0x8", "15a", "a",
		"1", "100", "1000", "4294967304", "18446744073709551624", "99999999999999999999999999", "true", "1:", "1/",
	} {
		for _, name := range []string{serverMaxWindowBits, clientMaxWindowBits} {
			e := []Extension{{Name: Name, Params: []Param{{Name: name, Value: v, HasValue: true}}}}
			if _, _, ok := Accept(e, Options{}); ok != good[v] {
				t.Errorf("%s=%s in an offer: accepted %t", name, v, ok)
			}
			_, ok, err := Confirm(Options{}, e)
			if ok != good[v] || (err == nil) != good[v] {
				t.Errorf("%s=%s in a response: accepted %t, error %v", name, v, ok, err)
			}
			var de *Error
			if err != nil && (!errors.As(err, &de) || de.RuleID != "DF-06" || len(err.Error()) > 200) {
				t.Errorf("%s=%s in a response: error %v, want DF-06", name, v, err)
			}
		}
	}
}

func TestConfirm(t *testing.T) {
	small := Options{OwnWindowBits: 10, PeerWindowBits: 10}
	for _, tt := range []struct {
		name, response string
		o              Options
		active         bool
		want           Params
		rule           string
	}{
		{"declined", "", Options{}, false, Params{}, ""},
		{"plain", "permessage-deflate", Options{}, true, Params{false, false, 15, 15}, ""},
		{"server may forget unasked", "permessage-deflate; server_no_context_takeover", Options{}, true, Params{true, false, 15, 15}, ""},
		{"client must forget", "permessage-deflate; client_no_context_takeover", Options{}, true, Params{false, true, 15, 15}, ""},
		{"server window unasked", "permessage-deflate; server_max_window_bits=9", Options{}, true, Params{false, false, 9, 15}, ""},
		{"client window", "permessage-deflate; client_max_window_bits=9", Options{}, true, Params{false, false, 15, 9}, ""},
		{"client window of 8", "permessage-deflate; client_max_window_bits=8", Options{}, true, Params{false, false, 15, 8}, ""},
		{"smaller than asked", "permessage-deflate; server_max_window_bits=9; client_max_window_bits=9", small, true, Params{false, false, 9, 9}, ""},
		{"as asked, our own hint kept", "permessage-deflate; server_max_window_bits=10", small, true, Params{false, false, 10, 10}, ""},
		{"client window above our own", "permessage-deflate; server_max_window_bits=10; client_max_window_bits=15", small, true, Params{false, false, 10, 10}, ""},
		{"our hint not answered", "permessage-deflate", Options{OwnNoContextTakeover: true}, true, Params{false, true, 15, 15}, ""},
		{"asked to forget", "permessage-deflate; server_no_context_takeover", Options{PeerNoContextTakeover: true}, true, Params{true, false, 15, 15}, ""},

		{"another extension", "permessage-bzip2", Options{}, false, Params{}, "HR-06"},
		{"another extension besides", "permessage-deflate, x-frame", Options{}, false, Params{}, "HR-06"},
		{"twice", "permessage-deflate, permessage-deflate", Options{}, false, Params{}, "HR-06"},
		{"unknown parameter", "permessage-deflate; window=9", Options{}, false, Params{}, "DF-04"},
		{"repeated", "permessage-deflate; server_max_window_bits=9; server_max_window_bits=9", Options{}, false, Params{}, "DF-05"},
		{"repeated takeover", "permessage-deflate; client_no_context_takeover; client_no_context_takeover", Options{}, false, Params{}, "DF-05"},
		{"window of 7", "permessage-deflate; server_max_window_bits=7", Options{}, false, Params{}, "DF-06"},
		{"window without value", "permessage-deflate; client_max_window_bits", Options{}, false, Params{}, "DF-06"},
		{"server window without value", "permessage-deflate; server_max_window_bits", Options{}, false, Params{}, "DF-06"},
		{"takeover with value", "permessage-deflate; server_no_context_takeover=1", Options{}, false, Params{}, "DF-06"},
		{"client window not offered", "permessage-deflate; client_max_window_bits=15", Options{OwnWindowBits: -1}, false, Params{}, "DF-07"},
		{"server window left out", "permessage-deflate", small, false, Params{}, "DF-08"},
		{"server window larger", "permessage-deflate; server_max_window_bits=11", small, false, Params{}, "DF-08"},
		{"takeover left out", "permessage-deflate", Options{PeerNoContextTakeover: true}, false, Params{}, "DF-09"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, active, err := Confirm(tt.o, parse(t, tt.response))
			if active != tt.active || p != tt.want {
				t.Errorf("got %+v, %t, want %+v, %t", p, active, tt.want, tt.active)
			}
			var e *Error
			switch {
			case tt.rule == "" && err != nil:
				t.Error(err)
			case tt.rule != "" && (!errors.As(err, &e) || e.RuleID != tt.rule || !strings.Contains(err.Error(), tt.rule)):
				t.Errorf("error %v, want %s", err, tt.rule)
			}
		})
	}
}

// Whatever both sides want, they agree on the same, and on nothing that one of
// them ruled out.
func TestBothSidesAgree(t *testing.T) {
	var all []Options
	for i := range 4 * 4 * 4 {
		bits := []int{0, 8, 10, 15}
		all = append(all, Options{
			OwnNoContextTakeover: i&1 != 0, PeerNoContextTakeover: i&2 != 0,
			OwnWindowBits: bits[i>>2&3], PeerWindowBits: bits[i>>4&3],
		})
	}
	all = append(all, Options{OwnWindowBits: -1}, Options{PeerWindowBits: 9, RequirePeerWindow: true})
	for _, c := range all {
		for _, s := range all {
			server, response, ok := Accept(parse(t, Offer(c)), s)
			if !ok {
				if !s.RequirePeerWindow || c.offersClientWindow() {
					t.Errorf("client %+v, server %+v: declined", c, s)
				}
				continue
			}
			client, active, err := Confirm(c, parse(t, response))
			if err != nil || !active {
				t.Errorf("client %+v, server %+v: response %q refused: %v", c, s, response, err)
				continue
			}
			if client != server {
				t.Errorf("client %+v, server %+v: client understands %+v, server %+v", c, s, client, server)
			}
			if server.ServerMaxWindowBits > min(s.ownBits(), c.peerBits()) ||
				server.ClientMaxWindowBits > c.ownBits() ||
				c.offersClientWindow() && server.ClientMaxWindowBits > s.peerBits() ||
				(c.PeerNoContextTakeover || s.OwnNoContextTakeover) != server.ServerNoContextTakeover ||
				(s.PeerNoContextTakeover || c.OwnNoContextTakeover) != server.ClientNoContextTakeover {
				t.Errorf("client %+v, server %+v: agreed on %+v", c, s, server)
			}
		}
	}
}
