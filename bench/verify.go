//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/klauspost/compress/flate"

	"github.com/weft-ws/weft/bench/internal/load"
)

// verify runs every contender of the jobs through the check of its suite and
// prints a line for each.
func verify(on cores, todo []job, w io.Writer) error {
	bad := 0
	seen := map[*contender]bool{}
	for _, j := range todo {
		for _, c := range j.contenders {
			if seen[c] || j.suite.check == nil {
				continue
			}
			seen[c] = true
			if err := j.suite.check(on, c); err != nil {
				bad++
				fmt.Fprintf(w, "%-16s %v\n", c.name, err)
				continue
			}
			fmt.Fprintf(w, "%-16s ok\n", c.name)
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d of %d adapters do not do what is measured", bad, len(seen))
	}
	return nil
}

// checkEngine checks the bytes that come back in every mode the contender has.
func checkEngine(on cores, c *contender) error {
	for _, mode := range []struct {
		o     options
		check func(cores, *server) error
	}{
		{options{Mode: modeEcho, MaxMessage: hugeLimit}, checkEcho},
		{options{Mode: modeEcho, MaxMessage: hugeLimit, CheckUTF8: true, MessageTimeout: time.Minute}, checkEcho},
		{options{Mode: modeEcho, Deflate: noTakeover}, checkDeflate},
		{options{Mode: modeEcho, Deflate: takeover}, checkDeflate},
		{options{Mode: modeStream, MaxMessage: hugeLimit}, checkEcho},
		{options{Mode: modePush, Size: 4 << 20}, checkPush},
		{options{Mode: modeBroadcast}, checkBroadcast},
	} {
		if c.modes[mode.o.Mode] == nil {
			continue
		}
		switch mode.o.Deflate {
		case noTakeover:
			if !slices.Contains(deflaters, c.name) {
				continue
			}
		case takeover:
			if !slices.Contains(takeovers, c.name) {
				continue
			}
		}
		s, err := startServer(on, c, mode.o)
		if err != nil {
			return err
		}
		err = mode.check(on, s)
		s.stop()
		if err != nil {
			return fmt.Errorf("%s %s: %w", mode.o.Mode, mode.o.Deflate, err)
		}
	}
	if c.modes[modeClient] != nil {
		if err := checkClient(on, c); err != nil {
			return fmt.Errorf("%s: %w", modeClient, err)
		}
	}
	return nil
}

// A checker is a connection that keeps what it receives.
type checker struct {
	*load.Conn
	raw      bool // plain TCP: what comes back is what was sent, masked
	noEmpty  bool
	server   bool // we are the server, so we do not mask
	buf      []byte
	message  []byte // begun
	rsv1     bool   // of the message begun
	messages [][]byte
	deflated []bool
	pongs    []string
}

// newChecker checks s, or with isServer the client s.
func newChecker(c *load.Conn, s *server, isServer bool) *checker {
	k := &checker{Conn: c, buf: make([]byte, 64<<10), raw: s.contender.raw, noEmpty: s.contender.noEmpty, server: isServer}
	c.Data = func(op load.Opcode, rsv1 bool, p []byte, last bool) {
		if op != load.Continuation {
			k.rsv1 = rsv1
		}
		if k.message = append(k.message, p...); last {
			k.messages = append(k.messages, k.message)
			k.deflated = append(k.deflated, k.rsv1)
			k.message = nil
		}
	}
	c.Control = func(op load.Opcode, p []byte) {
		switch op {
		case load.Ping:
			c.Send(load.AppendFrame(nil, load.Frame{Opcode: load.Pong, Fin: true, Masked: !k.server}, p))
		case load.Pong:
			k.pongs = append(k.pongs, string(p))
		}
	}
	return k
}

// next waits for one more message. Sending happens on another goroutine while
// we wait here, for huge messages fill both directions.
func (k *checker) next() ([]byte, error) {
	for len(k.messages) == 0 {
		n, err := k.Receive(k.buf)
		if err != nil {
			return nil, fmt.Errorf("waiting for a message, %d bytes of it here: %w", len(k.message), err)
		}
		if err := k.Scan(k.buf[:n]); err != nil {
			return nil, err
		}
	}
	m := k.messages[0]
	k.messages = k.messages[1:]
	return m, nil
}

// ask sends the message and compares the answer.
func (k *checker) ask(op load.Opcode, p []byte, fragment int) error {
	if len(p) == 0 && k.noEmpty {
		return nil
	}
	out := load.AppendMessage(nil, load.Frame{Opcode: op, Masked: !k.server}, p, fragment)
	if k.raw {
		return k.askRaw(out)
	}
	l, err := load.NewLoop([]*load.Conn{k.Conn})
	if err != nil {
		return err
	}
	defer l.Close()
	k.Script = load.Repeat(out, 1)
	if err := l.Grant(k.Conn, 1); err != nil {
		return err
	}
	for end := time.Now().Add(10 * time.Second); len(k.messages) == 0; {
		if time.Now().After(end) {
			return fmt.Errorf("%d bytes in fragments of %d: no answer within ten seconds", len(p), fragment)
		}
		if err := l.Step(time.Second); err != nil {
			return fmt.Errorf("%d bytes in fragments of %d: %w", len(p), fragment, err)
		}
	}
	return k.same(p, fmt.Sprintf("%d bytes in fragments of %d", len(p), fragment))
}

func (k *checker) same(p []byte, what string) error {
	m := k.messages[0]
	k.messages = k.messages[1:]
	if !bytes.Equal(m, p) {
		return fmt.Errorf("%s: the answer of %d bytes differs", what, len(m))
	}
	return nil
}

func (k *checker) askRaw(out []byte) error {
	for len(out) > 0 {
		n := min(len(out), 16<<10)
		if err := k.Send(out[:n]); err != nil {
			return err
		}
		got := make([]byte, n)
		for at := 0; at < n; {
			m, err := k.Receive(got[at:])
			if err != nil {
				return err
			}
			at += m
		}
		if !bytes.Equal(got, out[:n]) {
			return errors.New("the bytes differ")
		}
		out = out[n:]
	}
	return nil
}

func dialChecker(s *server, o load.Options) (*checker, error) {
	conns, err := s.dial(1, o)
	if err != nil {
		return nil, err
	}
	return newChecker(conns[0], s, false), nil
}

func checkEcho(_ cores, s *server) error {
	k, err := dialChecker(s, load.Options{})
	if err != nil {
		return err
	}
	defer k.Close()
	return askAll(k)
}

// askAll sends messages at every boundary of the length field, whole and in
// fragments, as text and as binary.
func askAll(k *checker) error {
	for _, n := range []int{0, 1, 125, 126, 127, 65_535, 65_536, videoFrame, largeFrame} {
		if err := k.ask(load.Binary, noise(n), 0); err != nil {
			return err
		}
	}
	for _, n := range []int{0, 128, 1024, 64_000} {
		if err := k.ask(load.Text, mixed(n), 0); err != nil {
			return fmt.Errorf("text: %w", err)
		}
	}
	for _, fragment := range []int{4096, 16 << 10, 1 << 20} {
		if err := k.ask(load.Binary, noise(huge), fragment); err != nil {
			return err
		}
	}
	// Cut inside characters: only the whole message has to be valid.
	return k.ask(load.Text, mixed(10_000), 7)
}

// checkDeflate follows the script of the compressed cells for more than a
// window's worth and inflates every answer.
func checkDeflate(_ cores, s *server) error {
	var o options
	offer := "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
	k, err := dialChecker(s, load.Options{Extensions: offer})
	if err != nil {
		return err
	}
	defer func() { k.Close() }()
	script, err := deflateScript(k.Extensions, false)
	if err != nil {
		// This server is to take over; ask for that.
		k.Close()
		if k, err = dialChecker(s, load.Options{Extensions: "permessage-deflate; client_max_window_bits"}); err != nil {
			return err
		}
		if script, err = deflateScript(k.Extensions, true); err != nil {
			return err
		}
		o.Deflate = takeover
	}
	docs := documents(16, documentSize)
	var window []byte
	begin := 0
	for i := range 3 * len(docs) {
		j := i
		if i >= len(script.Ends) {
			j = script.Loop + (i-script.Loop)%(len(script.Ends)-script.Loop)
		}
		if begin = 0; j > 0 {
			begin = script.Ends[j-1]
		}
		if err := k.Send(script.Bytes[begin:script.Ends[j]]); err != nil {
			return err
		}
		m, err := k.next()
		if err != nil {
			return err
		}
		if k.deflated[i] {
			r := flate.NewReaderDict(io.MultiReader(bytes.NewReader(m), bytes.NewReader([]byte{0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff})), window)
			if m, err = io.ReadAll(r); err != nil {
				return fmt.Errorf("message %d: %w", i, err)
			}
		}
		if !bytes.Equal(m, docs[i%len(docs)]) {
			return fmt.Errorf("message %d comes back changed", i)
		}
		if !k.deflated[i] {
			return fmt.Errorf("message %d comes back uncompressed", i)
		}
		if o.Deflate == takeover {
			window = append(window, m...)
			window = window[max(len(window)-32<<10, 0):]
		}
	}
	return nil
}

func checkPush(_ cores, s *server) error {
	k, err := dialChecker(s, load.Options{})
	if err != nil {
		return err
	}
	defer k.Close()
	text := load.Frame{Opcode: load.Text, Fin: true, Masked: true}
	out := load.AppendFrame(nil, text, []byte("send"))
	if err := k.Send(load.AppendFrame(out, load.Frame{Opcode: load.Ping, Fin: true, Masked: true}, []byte("peer"))); err != nil {
		return err
	}
	time.Sleep(5 * pingEvery) // let pings wait behind the message
	m, err := k.next()
	if err != nil {
		return err
	}
	if !bytes.Equal(m, noise(4<<20)) {
		return errors.New("the message pushed is another")
	}
	if err := k.Send(load.AppendFrame(nil, text, []byte("stop"))); err != nil {
		return err
	}
	if err := k.SetTimeout(10 * pingEvery); err != nil {
		return err
	}
	if _, err := k.next(); !errors.Is(err, load.ErrTimeout) {
		return fmt.Errorf("after the message pushed came another, or %w", err)
	}
	var own []float64
	if err := s.call("pings", &own); err != nil {
		return err
	}
	if len(own) < 2 || slices.Max(own) > 5000 {
		return fmt.Errorf("own pings took %v ms", own)
	}
	if !slices.Contains(k.pongs, "peer") {
		return fmt.Errorf("the peer's ping was answered by %q", k.pongs)
	}
	return nil
}

func checkBroadcast(_ cores, s *server) error {
	var all []*checker
	defer func() {
		for _, k := range all {
			k.Close()
		}
	}()
	for range 5 {
		k, err := dialChecker(s, load.Options{})
		if err != nil {
			return err
		}
		all = append(all, k)
	}
	time.Sleep(100 * time.Millisecond) // until the last handler has joined
	for i := range 20 {
		msg := noise(1024 + i)
		if err := all[0].Send(load.AppendFrame(nil, load.Frame{Opcode: load.Binary, Fin: true, Masked: true}, msg)); err != nil {
			return err
		}
		for n, k := range all {
			m, err := k.next()
			if err != nil {
				return fmt.Errorf("connection %d: %w", n, err)
			}
			if !bytes.Equal(m, msg) {
				return fmt.Errorf("connection %d got another message", n)
			}
		}
	}
	return nil
}

func checkClient(on cores, c *contender) error {
	s, conn, err := startClient(on, c, options{Mode: modeClient, MaxMessage: hugeLimit})
	if err != nil {
		return err
	}
	defer s.stop()
	defer conn.Close()
	return askAll(newChecker(conn, s, true))
}
