package gateway

import (
	"sync/atomic"
	"time"
)

// routeStats counts what passes through the hubs of one route. All fields may
// be used by any goroutine.
type routeStats struct {
	messagesIn, messagesOut atomic.Int64 // to and from the server
	bytesIn, bytesOut       atomic.Int64
	calls, errors           atomic.Int64 // answered by the server; of these, with an error
	refused, failed         atomic.Int64 // answered by the gateway: not passed on; passed on and lost
	dropped                 atomic.Int64 // notifications that concern nobody
	restarts                atomic.Int64
	seconds                 [len(latencyBounds) + 1]atomic.Int64
	nanoseconds             atomic.Int64
}

// latencyBounds are the upper bounds of the histogram of call durations.
var latencyBounds = [...]time.Duration{
	100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond, time.Millisecond, 2500 * time.Microsecond,
	5 * time.Millisecond, 10 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 5 * time.Second, 30 * time.Second,
}

func (s *routeStats) toServer(n int) {
	s.messagesIn.Add(1)
	s.bytesIn.Add(int64(n))
}

func (s *routeStats) fromServer(n int) {
	s.messagesOut.Add(1)
	s.bytesOut.Add(int64(n))
}

func (s *routeStats) answered(took time.Duration, isError bool) {
	s.calls.Add(1)
	if isError {
		s.errors.Add(1)
	}
	i := 0
	for i < len(latencyBounds) && took > latencyBounds[i] {
		i++
	}
	s.seconds[i].Add(1)
	s.nanoseconds.Add(int64(took))
}
