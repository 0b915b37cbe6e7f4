package doctor

import "sync"

// A Set compares connections with each other: give the same Set in the Options
// of the Inspector of each. It notices a Sec-WebSocket-Key that has been used
// before, RFC 6455, 4.1: "The nonce MUST be selected randomly for each
// connection." A Set may be used by any number of goroutines.
type Set struct {
	mu   sync.Mutex
	max  int
	seen map[[16]byte]struct{}
	ring [][16]byte // in the order seen, to forget the oldest
	next int
}

// NewSet returns a Set that remembers the keys of the last max connections;
// max 0 means 65,536, about 3 MiB when full.
func NewSet(max int) *Set {
	if max <= 0 {
		max = 1 << 16
	}
	return &Set{max: max, seen: map[[16]byte]struct{}{}}
}

// repeated remembers a key and reports whether it was known.
func (s *Set) repeated(key [16]byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.seen[key]; ok {
		return true
	}
	if len(s.ring) < s.max {
		s.ring = append(s.ring, key)
	} else {
		delete(s.seen, s.ring[s.next])
		s.ring[s.next] = key
		s.next = (s.next + 1) % s.max
	}
	s.seen[key] = struct{}{}
	return false
}
