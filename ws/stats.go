package ws

import (
	"math/bits"
	"time"
)

// FragmentBuckets is the length of Traffic.Fragments.
const FragmentBuckets = 16

// Traffic counts one direction.
type Traffic struct {
	Bytes      uint64 // of frames, headers included
	Frames     uint64 // data and control
	Control    uint64 // control frames
	Messages   uint64 // complete data messages
	Fragmented uint64 // messages of more than one frame
	// LargestMessage is the largest complete message's payload, in bytes; as sent
	// and received, that is before inflation.
	LargestMessage int64
	// Fragments is a histogram of fragments per message: Fragments[i] counts
	// messages of 2^i to 2^(i+1)-1 frames, the last bucket everything above.
	Fragments [FragmentBuckets]uint64
}

// Stats is a snapshot of the counters of a connection, or of a sum of them.
type Stats struct {
	Sent, Received Traffic
	// Interleaved counts control frames that we sent inside an open message.
	Interleaved uint64
	// ControlWait is the longest that a control frame of ours has waited for the
	// wire.
	ControlWait time.Duration
	// PingRTT is the latest ping round trip, zero if there has been none.
	PingRTT time.Duration
	// Replaced counts messages dropped by policy Latest, Refused those that
	// failed with ErrQueueFull.
	Replaced, Refused uint64
	// PongsDropped counts pings not answered because newer ones were owed an
	// answer (RFC 6455, 5.5.3).
	PongsDropped uint64
	// Queued is how many bytes Send holds at the moment, Waiting how many
	// writers wait for their turn.
	Queued  int64
	Waiting int
	// Opened is when the connection was opened; of a sum, the earliest.
	Opened time.Time
	// CloseCode is how the connection ended, 0 while it is open.
	CloseCode CloseCode
	// Connections counts connections in a sum, open and ended.
	Connections uint64
}

// traffic is Traffic as a connection keeps it: an idle one should be small, so
// the histogram is there once a message came in several frames.
type traffic struct {
	control, messages, fragmented uint64
	largest                       int64
	fragments                     *[FragmentBuckets]uint64
}

// intake is the traffic of the receiving direction; the Sender counts the bytes
// and frames of the other.
type intake struct {
	traffic
	bytes, frames uint64
}

// message counts a complete message of n payload bytes in frags frames.
func (t *traffic) message(n int64, frags int) {
	t.messages++
	t.largest = max(t.largest, n)
	if frags <= 1 {
		return
	}
	t.fragmented++
	if t.fragments == nil {
		t.fragments = new([FragmentBuckets]uint64)
	}
	t.fragments[min(bits.Len(uint(frags))-1, FragmentBuckets-1)]++
}

// snapshot is t for the public, apart from bytes and frames.
func (t *traffic) snapshot() Traffic {
	s := Traffic{
		Control: t.control, Messages: t.messages, Fragmented: t.fragmented,
		LargestMessage: t.largest,
	}
	if t.fragments != nil {
		s.Fragments = *t.fragments
	}
	s.Fragments[0] = t.messages - t.fragmented
	return s
}

func (t *intake) snapshot() Traffic {
	s := t.traffic.snapshot()
	s.Bytes, s.Frames = t.bytes, t.frames
	return s
}

// publish copies t to the copy that others may see.
func (t *intake) publish(to *intake) {
	hist := to.fragments
	if t.fragments != nil {
		if hist == nil {
			hist = new([FragmentBuckets]uint64)
		}
		*hist = *t.fragments
	}
	*to = *t
	to.fragments = hist
}

func (t *Traffic) add(u *Traffic) {
	t.Bytes += u.Bytes
	t.Frames += u.Frames
	t.Control += u.Control
	t.Messages += u.Messages
	t.Fragmented += u.Fragmented
	t.LargestMessage = max(t.LargestMessage, u.LargestMessage)
	for i := range t.Fragments {
		t.Fragments[i] += u.Fragments[i]
	}
}

// Add adds the counters of t to s: sums for counts, the larger of maxima, the
// earlier Opened, the later PingRTT. CloseCode is left alone.
func (s *Stats) Add(t Stats) {
	s.Sent.add(&t.Sent)
	s.Received.add(&t.Received)
	s.Interleaved += t.Interleaved
	s.ControlWait = max(s.ControlWait, t.ControlWait)
	if t.PingRTT != 0 {
		s.PingRTT = t.PingRTT
	}
	s.Replaced += t.Replaced
	s.Refused += t.Refused
	s.PongsDropped += t.PongsDropped
	s.Queued += t.Queued
	s.Waiting += t.Waiting
	if s.Opened.IsZero() || !t.Opened.IsZero() && t.Opened.Before(s.Opened) {
		s.Opened = t.Opened
	}
	s.Connections += max(t.Connections, 1)
}
