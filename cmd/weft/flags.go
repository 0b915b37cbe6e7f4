package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/weft-ws/weft/ws"
)

// A byteSize is a flag in bytes that understands KiB, MiB and GiB, and "off".
type byteSize int64

var byteUnits = []struct {
	suffix string
	factor int64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"k", 1 << 10}, {"M", 1 << 20}, {"G", 1 << 30}}

func (b *byteSize) Set(s string) error {
	if s == "off" {
		*b = -1
		return nil
	}
	factor := int64(1)
	for _, u := range byteUnits {
		if rest, ok := strings.CutSuffix(s, u.suffix); ok {
			s, factor = strings.TrimSpace(rest), u.factor
			break
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < -1 || n > 1<<62/factor {
		return fmt.Errorf("%q is not a number of bytes, such as 4096, 64KiB or 16MiB, nor off", s)
	}
	*b = byteSize(n * factor)
	return nil
}

func (b *byteSize) String() string {
	switch n := int64(*b); {
	case n < 0:
		return "off"
	case n >= 1<<20 && n%(1<<20) == 0:
		return strconv.FormatInt(n>>20, 10) + "MiB"
	case n >= 1<<10 && n%(1<<10) == 0:
		return strconv.FormatInt(n>>10, 10) + "KiB"
	default:
		return strconv.FormatInt(n, 10)
	}
}

func (b *byteSize) Type() string { return "size" }

// connFlags are the flags of ws.Config: one for each limit, named after it.
type connFlags struct {
	cfg          ws.Config
	fragmentSize byteSize
	messageMax   byteSize
	minRate      byteSize
	sendQueue    byteSize
	budgetSoft   byteSize
	budgetHard   byteSize
	deflate      bool
	compression  ws.Compression
	threshold    byteSize
}

// add declares the flags. messageMax is the default of --max-message-size.
func (f *connFlags) add(fs *pflag.FlagSet, messageMax int64) {
	f.fragmentSize, f.messageMax, f.minRate = 16<<10, byteSize(messageMax), -1
	f.sendQueue, f.threshold = 1<<20, 512
	c := &f.cfg
	fs.Var(&f.fragmentSize, "fragment-size", "largest frame sent, header included; off: never split")
	fs.Var(&f.messageMax, "max-message-size", "largest message taken, else close 1009")
	fs.IntVar(&c.MaxFragments, "max-fragments", 0, "most frames of a message taken, else close 1008; 0: no limit")
	fs.DurationVar(&c.MessageTimeout, "message-timeout", 0, "first fragment to FIN, else close 1008 (default 30s; -1s: off)")
	fs.DurationVar(&c.GapTimeout, "gap-timeout", 0, "longest standstill inside a message, else close 1008; 0: no limit")
	fs.Var(&f.minRate, "min-rate", "bytes per second that extend --message-timeout for a slow sender")
	fs.DurationVar(&c.IdleTimeout, "idle-timeout", 0, "longest silence, else close 1008; 0: no limit")
	fs.DurationVar(&c.WriteTimeout, "write-timeout", 0, "longest the peer may take no byte (default 30s; -1s: off)")
	fs.DurationVar(&c.CloseTimeout, "close-timeout", 0, "longest closing handshake (default 5s; -1s: off)")
	fs.DurationVar(&c.KeepAlive, "keep-alive", 0, "ping a peer that has been silent for this long; 0: never")
	fs.DurationVar(&c.PongTimeout, "pong-timeout", 0, "longest wait for the answer to that ping (default 10s)")
	fs.IntVar(&c.ControlRate, "control-rate", 0, "most control frames taken per second, else close 1008; 0: no limit")
	fs.IntVar(&c.ControlBurst, "control-burst", 0, "most of them at once (default twice the rate)")
	fs.Var(&f.sendQueue, "send-queue", "most bytes that wait to be sent by the queue")
	fs.Var(&f.budgetSoft, "budget-soft", "bytes of unfinished messages, all connections together, above which new large ones wait; 0: none")
	fs.Var(&f.budgetHard, "budget-hard", "bytes above which the largest is closed with 1013; 0: none")
	fs.BoolVar(&f.deflate, "deflate", false, "offer or accept permessage-deflate")
	fs.IntVar(&f.compression.Level, "deflate-level", 0, "1 (fast) to 9 (small) (default 1, with context takeover 3)")
	fs.Var(&f.threshold, "deflate-threshold", "smallest message that is compressed; off: all are")
	fs.BoolVar(&f.compression.NoContextTakeover, "no-context-takeover", false, "compress each message on its own")
	fs.IntVar(&f.compression.ServerMaxWindowBits, "server-max-window-bits", 0, "8 to 15 (default 15)")
	fs.IntVar(&f.compression.ClientMaxWindowBits, "client-max-window-bits", 0, "8 to 15 (default 15)")
}

// config is the Config that the flags ask for.
func (f *connFlags) config() (ws.Config, error) {
	c := f.cfg
	c.FragmentSize = int(f.fragmentSize)
	c.MaxMessageSize = int64(f.messageMax)
	c.MinRate = int64(f.minRate)
	c.SendQueue = int(f.sendQueue)
	if f.fragmentSize == 0 || f.messageMax == 0 || f.sendQueue == 0 {
		return c, hinted(errors.New("a size of 0 is not possible"), "off removes a limit")
	}
	if f.budgetSoft > 0 || f.budgetHard > 0 {
		c.Budget = &ws.Budget{Soft: max(int64(f.budgetSoft), 0), Hard: max(int64(f.budgetHard), 0)}
	}
	if f.deflate {
		d := f.compression
		d.Threshold = int(f.threshold)
		if d.Level < 0 || d.Level > 9 {
			return c, fmt.Errorf("--deflate-level is 1 to 9, not %d", d.Level)
		}
		for _, bits := range []int{d.ServerMaxWindowBits, d.ClientMaxWindowBits} {
			if bits != 0 && (bits < 8 || bits > 15) {
				return c, fmt.Errorf("window bits are 8 to 15, not %d", bits)
			}
		}
		c.Compression = &d
	}
	return c, nil
}

// parseHeaders reads header fields of the form Name: value into h.
func parseHeaders(h http.Header, fields []string) error {
	for _, f := range fields {
		name, value, ok := strings.Cut(f, ":")
		name = strings.TrimSpace(name)
		switch {
		case !ok || name == "":
			return hinted(fmt.Errorf("header %q is not of the form Name: value", f), "as in -H 'X-Team: blue'")
		case strings.EqualFold(name, "Host"):
			return hinted(errors.New("the Host header is not one of those that -H sets"), "weft dial has --host for it")
		case strings.EqualFold(name, "Sec-WebSocket-Protocol"):
			return hinted(errors.New("the subprotocols are not a header that -H sets"), "weft dial has --subprotocol for them")
		}
		h.Add(name, strings.TrimSpace(value))
	}
	return nil
}

// clientTLS are the flags of a client that may speak wss.
type clientTLS struct {
	ca, cert, key string
	insecure      bool
}

func (f *clientTLS) add(fs *pflag.FlagSet) {
	fs.StringVar(&f.ca, "tls-ca", "", "PEM file with authorities to trust instead of the system's")
	fs.StringVar(&f.cert, "tls-client-cert", "", "PEM file with a certificate to show the server")
	fs.StringVar(&f.key, "tls-client-key", "", "PEM file with its key")
	fs.BoolVar(&f.insecure, "insecure", false, "do not verify the server's certificate")
}

// config returns what the flags ask for, nil for the default.
func (f *clientTLS) config() (*tls.Config, error) {
	if *f == (clientTLS{}) {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: f.insecure}
	if f.ca != "" {
		var err error
		if c.RootCAs, err = certPool(f.ca); err != nil {
			return nil, err
		}
	}
	if (f.cert == "") != (f.key == "") {
		return nil, errors.New("--tls-client-cert and --tls-client-key go together")
	}
	if f.cert != "" {
		pair, err := tls.LoadX509KeyPair(f.cert, f.key)
		if err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// certPool reads the certificates of a PEM file.
func certPool(name string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s has no certificate in PEM form", name)
	}
	return pool, nil
}
