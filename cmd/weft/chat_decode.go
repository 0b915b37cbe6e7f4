package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/weft-ws/weft/acip"
	"github.com/weft-ws/weft/chat/decode"
)

func newChatDecodeCmd() *cobra.Command {
	var keys []string
	var asJSON bool
	var hexMax int
	cmd := &cobra.Command{
		Use:   "decode FILE",
		Short: "List the packets of recorded sessions (pcap, pcapng)",
		Long: `List the packets of recorded sessions. What is encrypted stays closed unless the
session key is given.

Exit code: 0 if all could be read, 1 if something could not be decoded or there is
no packet, 2 if the file could not be read.`,
		Example: `  weft chat decode session.pcap
  weft chat decode session.pcap --json --key 16cf6fb509cd1185…`,
		Args: takes(1, 1, "the file of a recording"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var list []acip.Key
			for _, s := range keys {
				b, err := hex.DecodeString(s)
				if err != nil || len(b) != len(acip.Key{}) {
					return errors.New("--key is not 64 hexadecimal digits")
				}
				list = append(list, acip.Key(b))
			}
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			return decodeChat(cmd, f, list, asJSON, hexMax)
		},
	}
	fl := cmd.Flags()
	fl.StringArrayVar(&keys, "key", nil, "session key, 64 hexadecimal `digits` (repeatable)")
	fl.BoolVar(&asJSON, "json", false, "one JSON object per line")
	fl.IntVar(&hexMax, "hex", 0, "show the first `N` bytes of each payload")
	return cmd
}

// packetLine is a packet in JSON.
type packetLine struct {
	Time      time.Time `json:"time"`
	From      string    `json:"from"`
	Client    string    `json:"client"`
	Server    string    `json:"server"`
	Transport string    `json:"transport"`
	Type      string    `json:"type,omitempty"`
	Number    uint16    `json:"number,omitempty"`
	Encrypted bool      `json:"encrypted"`
	Counter   uint64    `json:"counter,omitempty"`
	Length    int       `json:"length"`
	About     string    `json:"about,omitempty"`
	Payload   string    `json:"payload,omitempty"`
	End       string    `json:"end,omitempty"`
	Error     string    `json:"error,omitempty"`
}

func decodeChat(cmd *cobra.Command, f *os.File, keys []acip.Key, asJSON bool, hexMax int) error {
	out := cmd.OutOrStdout()
	var began time.Time
	packets, closed, failed := 0, 0, 0
	for e, err := range decode.Read(f, keys) {
		if err != nil {
			return hinted(err, "tcpdump -w FILE records what this reads; weft doctor looks at what --trace has recorded")
		}
		if began.IsZero() {
			began = e.At
		}
		l := packetLine{Time: e.At, From: "client", Client: e.Client.String(), Server: e.Server.String(), Transport: "tcp", End: e.End}
		if e.FromServer {
			l.From = "server"
		}
		if e.WebSocket {
			l.Transport = "websocket"
		}
		switch {
		case e.Err != nil:
			failed++
			l.Error = e.Err.Error()
		case e.End == "":
			packets++
			l.Type, l.Number, l.Length = e.Packet.Type.String(), uint16(e.Packet.Type), len(e.Packet.Payload)
			l.Encrypted, l.Counter = e.Sealed || e.Packet.Type == acip.TypeEncrypted, e.Counter
			if e.Packet.Type == acip.TypeEncrypted {
				closed++
			} else {
				l.About = acip.Describe(e.Packet)
			}
			l.Payload = hex.EncodeToString(e.Packet.Payload[:min(len(e.Packet.Payload), hexMax)])
		}
		if asJSON {
			if err := json.NewEncoder(out).Encode(l); err != nil {
				return err
			}
			continue
		}
		arrow := "→"
		if e.FromServer {
			arrow = "←"
		}
		lock := " "
		if l.Encrypted {
			lock = "*"
		}
		line := fmt.Sprintf("%9.3f  %-21s %s %s%-26s", e.At.Sub(began).Seconds(), l.Client, arrow, lock, l.Type+l.End)
		switch {
		case l.Error != "":
			line = fmt.Sprintf("%9.3f  %-21s %s  undecodable from here: %s", e.At.Sub(began).Seconds(), l.Client, arrow, l.Error)
		case l.End == "":
			line += fmt.Sprintf(" %7d bytes", l.Length)
			if l.Counter > 0 {
				line += fmt.Sprintf("  #%d", l.Counter)
			}
			if l.About != "" {
				line += "  " + l.About
			}
			if l.Payload != "" {
				line += "  " + l.Payload
			}
		}
		if _, err := fmt.Fprintln(out, line); err != nil {
			return err
		}
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "weft: %d packets, * was encrypted", packets)
	if closed > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), ", %d still are", closed)
	}
	fmt.Fprintln(cmd.ErrOrStderr())
	switch {
	case packets == 0 && failed == 0:
		return &exitError{1, errors.New("no ACIP packet in the recording")}
	case failed > 0:
		return &exitError{1, fmt.Errorf("%d directions could not be decoded to their end", failed)}
	}
	return nil
}
