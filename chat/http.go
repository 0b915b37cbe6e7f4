package chat

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

var (
	errOpus          = errors.New("the packet is not Opus")
	errNoOpusEncoder = errors.New("this build does not encode Opus")
	errDecoderSlow   = errors.New("the decoder cannot keep up")
)

// serveHTTP answers requests that are not WebSockets.
func (s *Server) serveHTTP(w http.ResponseWriter, r *http.Request) {
	switch strings.TrimSuffix(r.URL.Path, "/") {
	case "/healthz", "/health":
		st := s.Stats()
		w.Header().Set("Content-Type", "application/json")
		// The error is that of a client that has gone.
		_ = json.NewEncoder(w).Encode(map[string]any{"status": "ok", "protocol": "2.2.1", "clients": st.Clients, "rooms": st.Rooms})
	case "/metrics":
		s.metrics().ServeHTTP(w, r)
	default:
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "websocket")
		http.Error(w, "this is a video call; join it with: weft chat join ws://"+r.Host+r.URL.Path, http.StatusUpgradeRequired)
	}
}

// metrics serves the counters in the form of Prometheus.
func (s *Server) metrics() http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collector{s})
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
}

// collector reads the counters of a server when it is asked to.
type collector struct{ s *Server }

// Describe sends nothing: the metrics are found by collecting.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect sends the counters.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	st, n := c.s.Stats(), &c.s.stats
	send := func(t prometheus.ValueType, name, help string, v float64) {
		ch <- prometheus.MustNewConstMetric(prometheus.NewDesc("weft_chat_"+name, help, nil, nil), t, v)
	}
	gauge := func(name, help string, v float64) { send(prometheus.GaugeValue, name, help, v) }
	count := func(name, help string, v uint64) { send(prometheus.CounterValue, name, help, float64(v)) }
	gauge("clients", "Clients that are connected.", float64(st.Clients))
	gauge("rooms", "Rooms with members.", float64(st.Rooms))
	gauge("views", "Renderings that are shared by clients that look the same.", float64(st.Renderers))
	gauge("frame_gap_max_seconds", "Longest time between two frames to one client.", float64(n.gapMax.Load())/1e9)
	count("joined_total", "Clients that joined a room.", n.joined.Load())
	count("left_total", "Clients that left a room.", n.left.Load())
	count("refused_total", "Clients that were refused before the handshake.", n.refused.Load())
	count("violations_total", "Sessions that ended because the client broke a rule.", n.violations.Load())
	count("images_received_total", "Pictures received.", n.imagesIn.Load())
	count("frames_rendered_total", "Frames rendered.", n.rendered.Load())
	count("frames_reused_total", "Frames sent again because nothing had changed.", n.reused.Load())
	count("frames_sent_total", "Frames written, of clients that have left.", n.framesOut.Load())
	count("frames_dropped_total", "Frames replaced by newer ones before they were written, of clients that have left.", n.framesDropped.Load())
	count("audio_received_total", "Packets of sound received.", n.audioIn.Load())
	count("audio_sent_total", "Packets of sound written, of clients that have left.", n.audioOut.Load())
	count("received_bytes_total", "Bytes received, of clients that have left.", n.bytesIn.Load())
	count("sent_bytes_total", "Bytes written, of clients that have left.", n.bytesOut.Load())
}
