package gateway

import (
	"maps"
	"math"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weft-ws/weft/ws"
)

// Collector returns the figures of the gateway for a Prometheus registry. They
// are read when they are asked for; nothing is labelled by client.
func (g *Gateway) Collector() prometheus.Collector { return collector{g} }

type collector struct{ g *Gateway }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("weft_"+name, help, labels, nil)
}

var (
	descSessions   = desc("sessions", "Sessions open.", "server")
	descAccepted   = desc("sessions_total", "Sessions opened since the start.")
	descRefused    = desc("handshakes_refused_total", "Upgrade requests refused, by HTTP status.", "status")
	descCloses     = desc("connections_closed_total", "Connections that have ended, by close code.", "code")
	descBytes      = desc("websocket_bytes_total", "Bytes of WebSocket frames, headers included.", "direction")
	descFrames     = desc("websocket_frames_total", "WebSocket frames, control frames included.", "direction")
	descControl    = desc("websocket_control_frames_total", "Pings, pongs and closes.", "direction")
	descMessages   = desc("websocket_messages_total", "WebSocket messages.", "direction")
	descFragmented = desc("websocket_fragmented_messages_total", "WebSocket messages of more than one frame.", "direction")
	descFragments  = desc("websocket_message_fragments", "Frames per WebSocket message.", "direction")
	descRTT        = desc("ping_rtt_seconds_max", "The longest of the latest ping round trips of open sessions.")
	descQueued     = desc("queued_bytes", "Bytes that wait for clients who do not read fast enough.")

	descInstances = desc("server_instances", "Running instances of a server, by state.", "server", "state")
	descWarm      = desc("server_warm", "Instances started in advance.", "server")
	descFailures  = desc("server_failures_total", "Instances that failed or could not be started.", "server")
	descIn        = desc("server_messages_total", "Messages to and from servers.", "server", "direction")
	descInBytes   = desc("server_bytes_total", "Bytes of messages to and from servers.", "server", "direction")
	descPending   = desc("calls_in_flight", "Requests of clients that wait for an answer.", "server")
	descLost      = desc("calls_failed_total", "Requests that the gateway had to answer itself after passing them on.", "server")
	descNot       = desc("messages_refused_total", "Messages that were answered with an error and not passed on.", "server")
	descDropped   = desc("notifications_dropped_total", "Notifications of servers that concerned no client.", "server")
	descErrors    = desc("calls_errors_total", "Requests that the server answered with an error.", "server")
	descDuration  = desc("call_duration_seconds", "Time from a request to its answer.", "server")
)

// Describe describes nothing: servers, and so figures, come and go.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	g := c.g
	count := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	g.mu.Lock()
	stats, accepted := g.past, g.accepted
	closes, refusals := maps.Clone(g.closes), maps.Clone(g.refusals)
	g.mu.Unlock()
	open := map[string]int{}
	var queued int64
	var rtt float64
	for _, s := range g.registry.all() {
		s, ok := s.(*session)
		if !ok {
			continue
		}
		open[s.route.Name]++
		queued += s.queued.Load()
		s.mu.Lock()
		conn := s.conn
		s.mu.Unlock()
		if conn != nil {
			st := conn.Stats()
			rtt = math.Max(rtt, st.PingRTT.Seconds())
			stats.Add(st)
		}
	}
	count(descAccepted, float64(accepted))
	for status, n := range refusals {
		count(descRefused, float64(n), strconv.Itoa(status))
	}
	for code, n := range closes {
		count(descCloses, float64(n), strconv.Itoa(int(code)))
	}
	gauge(descRTT, rtt)
	gauge(descQueued, float64(queued))
	for _, d := range []struct {
		name string
		t    *ws.Traffic
	}{{"in", &stats.Received}, {"out", &stats.Sent}} {
		count(descBytes, float64(d.t.Bytes), d.name)
		count(descFrames, float64(d.t.Frames), d.name)
		count(descControl, float64(d.t.Control), d.name)
		count(descMessages, float64(d.t.Messages), d.name)
		count(descFragmented, float64(d.t.Fragmented), d.name)
		buckets, total, frames := map[float64]uint64{}, uint64(0), d.t.Frames-d.t.Control
		for i, n := range d.t.Fragments {
			total += n
			if i < len(d.t.Fragments)-1 {
				buckets[float64(uint64(2)<<i-1)] = total
			}
		}
		ch <- prometheus.MustNewConstHistogram(descFragments, total, float64(frames), buckets, d.name)
	}
	for _, rt := range g.all() {
		gauge(descSessions, float64(open[rt.Name]), rt.Name)
		info := rt.info()
		states := map[string]int{}
		for _, s := range info.Running {
			states[s.State]++
		}
		for state, n := range states {
			gauge(descInstances, float64(n), rt.Name, state)
		}
		gauge(descWarm, float64(info.Warm), rt.Name)
		gauge(descPending, float64(rt.pending()), rt.Name)
		st := &rt.stats
		count(descFailures, float64(st.restarts.Load()), rt.Name)
		count(descIn, float64(st.messagesIn.Load()), rt.Name, "to")
		count(descIn, float64(st.messagesOut.Load()), rt.Name, "from")
		count(descInBytes, float64(st.bytesIn.Load()), rt.Name, "to")
		count(descInBytes, float64(st.bytesOut.Load()), rt.Name, "from")
		count(descLost, float64(st.failed.Load()), rt.Name)
		count(descNot, float64(st.refused.Load()), rt.Name)
		count(descDropped, float64(st.dropped.Load()), rt.Name)
		count(descErrors, float64(st.errors.Load()), rt.Name)
		buckets, total := map[float64]uint64{}, uint64(0)
		for i := range st.seconds {
			total += uint64(st.seconds[i].Load())
			if i < len(latencyBounds) {
				buckets[latencyBounds[i].Seconds()] = total
			}
		}
		ch <- prometheus.MustNewConstHistogram(descDuration, total, float64(st.nanoseconds.Load())/1e9, buckets, rt.Name)
	}
}
