// Package capture is where recorded bytes of a connection come from.
//
// A recording is a series of chunks: which end sent them, when, and the bytes
// as they stood on the stream, or how that end's half of the TCP connection
// ended. Package doctor judges such a series; this package only reads and
// writes it. The one format so far is weft's own trace file, described in
// docs/trace-format.md; others will be further implementations of Source.
//
// A good order to read: capture.go (the words), reader.go, writer.go.
package capture

import (
	"iter"
	"time"
)

// A Side is the end of a connection that sent the bytes.
type Side uint8

const (
	Client Side = 1 + iota // the end that sent the HTTP upgrade request
	Server                 // the end that answered it
)

// String returns "client" or "server".
func (s Side) String() string {
	if s == Client {
		return "client"
	}
	return "server"
}

// Peer returns the other end.
func (s Side) Peer() Side {
	if s == Client {
		return Server
	}
	return Client
}

// An EndKind says how one direction of a connection ended.
type EndKind uint8

const (
	// Open: the direction has not ended (the value of a chunk with bytes).
	Open EndKind = iota
	// FIN: the side closed its half of the TCP connection in order.
	FIN
	// RST: the side reset the TCP connection, or its process died.
	RST
	// Timeout: nothing more was heard and whoever watched gave up; what TCP
	// did is not known.
	Timeout
)

// String returns "open", "fin", "rst" or "timeout".
func (k EndKind) String() string {
	switch k {
	case FIN:
		return "fin"
	case RST:
		return "rst"
	case Timeout:
		return "timeout"
	}
	return "open"
}

// ParseEndKind is the inverse of EndKind.String for the three ends.
func ParseEndKind(s string) (k EndKind, ok bool) {
	switch s {
	case "fin":
		return FIN, true
	case "rst":
		return RST, true
	case "timeout":
		return Timeout, true
	}
	return Open, false
}

// A Chunk is some bytes that one side sent, or the end of what it sent.
// Where chunks are cut means nothing.
type Chunk struct {
	From Side
	At   time.Time
	Data []byte  // borrowed from the Source until the next chunk
	End  EndKind // Open while there are bytes; then Data is empty
}

// A Source yields the chunks of one connection in the order in which they were
// seen. It stops after the first error.
type Source interface {
	Chunks() iter.Seq2[Chunk, error]
}
