package gateway

import (
	"fmt"
	"sync/atomic"
)

// An allowance is how much one connection, address or principal may have under
// way at a time. Zero fields: no limit.
type allowance struct {
	calls int64
	bytes int64 // of requests without an answer and of answers that are not read
}

// A meter counts what is under way for whoever it belongs to, in all of their
// sessions. Any goroutine may use it.
type meter struct {
	of           string // for errors: "one principal"
	max          allowance
	calls, bytes atomic.Int64
}

// meters are those that a session counts for: its own, its address's and its
// principal's.
type meters []*meter

// take counts a request of n bytes, or says which limit it would exceed. A
// request alone may be larger than the limit of bytes: it is bounded by that of
// messages.
func (ms meters) take(n int) error {
	for i, m := range ms {
		calls, bytes := m.calls.Add(1), m.bytes.Add(int64(n))
		var err error
		switch {
		case m.max.calls > 0 && calls > m.max.calls:
			err = fmt.Errorf("%d requests are in flight, the limit of %s; wait for an answer", m.max.calls, m.of)
		case m.max.bytes > 0 && bytes > m.max.bytes && bytes > int64(n):
			err = fmt.Errorf("%d bytes are in flight or not read, and %d are the limit of %s; wait for answers and read them", bytes-int64(n), m.max.bytes, m.of)
		}
		if err != nil {
			ms[:i+1].give(n)
			return err
		}
	}
	return nil
}

// give takes back a request of n bytes.
func (ms meters) give(n int) {
	for _, m := range ms {
		m.calls.Add(-1)
		m.bytes.Add(int64(-n))
	}
}

// add counts n bytes of answers that wait for the client, or with a negative n
// that do so no longer.
func (ms meters) add(n int64) {
	for _, m := range ms {
		m.bytes.Add(n)
	}
}
