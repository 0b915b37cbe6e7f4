//go:build linux

package main

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/flate"

	"github.com/weft-ws/weft/bench/internal/load"
)

const documentSize = 4096

// deflateCells are compressed echoes: the server inflates, and compresses
// again, 4 KB of JSON.
var deflateCells = []*cell{
	{
		id:      "deflate",
		title:   "permessage-deflate without takeover, 4 KB JSON",
		about:   "Speed counts the JSON, one way. The ratio is the bytes of an answer on the wire to those of the message.",
		options: options{Mode: modeEcho, Deflate: noTakeover},
		metrics: []metric{{id: "mbs", title: "MB/s", higher: true}, {id: "wire", title: "wire ratio"}},
		targets: []target{
			{metric: "mbs", atLeast: 1.2, versus: "gws"},
			{metric: "mbs", atLeast: 1.3, versus: "gws", stretch: true},
		},
		only: deflaters,
		run:  deflateSpeed,
	},
	{
		id:      "deflate-memory",
		title:   "permessage-deflate without takeover, connection at rest",
		about:   "500 connections that have each echoed eight messages, after garbage collection.",
		options: options{Mode: modeEcho, Deflate: noTakeover},
		metrics: []metric{{id: "kib", title: "KiB/connection"}},
		targets: []target{{metric: "kib", atMost: 10}},
		only:    deflaters,
		fresh:   true,
		run:     deflateMemory,
	},
	{
		id:      "takeover",
		title:   "permessage-deflate with context takeover, 4 KB JSON",
		about:   "The same with the window kept from message to message in both directions, sizes as the library chooses them.",
		options: options{Mode: modeEcho, Deflate: takeover},
		metrics: []metric{{id: "mbs", title: "MB/s", higher: true}, {id: "wire", title: "wire ratio"}},
		targets: []target{
			{metric: "mbs", atLeast: 1.05, versus: "coder"},
			{metric: "wire", atMost: 1, versus: "gws"},
			{metric: "mbs", atLeast: 35, stretch: true},
		},
		only: takeovers,
		run:  deflateSpeed,
	},
	{
		id:      "takeover-memory",
		title:   "permessage-deflate with context takeover, connection at rest",
		about:   "As without takeover; the windows stay.",
		options: options{Mode: modeEcho, Deflate: takeover},
		metrics: []metric{{id: "kib", title: "KiB/connection"}},
		targets: []target{{metric: "kib", atMost: 1, versus: "gws"}},
		only:    takeovers,
		fresh:   true,
		run:     deflateMemory,
	},
}

var (
	deflaters = []string{"weft", "gorilla", "coder", "gobwas", "gws", "nbio"}
	takeovers = []string{"weft", "coder", "gws"}
)

func deflateSpeed(t *trial) (sample, error) {
	conns, script, err := dialDeflate(t, 8)
	if err != nil {
		return nil, err
	}
	defer closeAll(conns)
	u, l, err := t.echo(conns, script, 4)
	if err != nil {
		return nil, err
	}
	plain := l.Messages * documentSize
	return sample{"mbs": u.megabytes(plain), "wire": float64(l.Wire) / float64(plain)}, nil
}

func deflateMemory(t *trial) (sample, error) {
	before, _, err := t.rss()
	if err != nil {
		return nil, err
	}
	n := t.scale(500, 50)
	conns, script, err := dialDeflate(t, n)
	if err != nil {
		return nil, err
	}
	defer closeAll(conns)
	for _, c := range conns {
		c.Script = script
	}
	l, err := load.NewLoop(conns)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	for i := range 8 {
		if err := l.Start(1); err != nil {
			return nil, err
		}
		if err := l.Until(int64((i+1)*n), 30*time.Second); err != nil {
			return nil, err
		}
	}
	after, _, err := t.rss()
	return sample{"kib": (after - before) / 1024 / float64(n)}, err
}

// dialDeflate opens n connections that compress, and makes the script for what
// was agreed.
func dialDeflate(t *trial, n int) ([]*load.Conn, *load.Script, error) {
	offer := "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
	if t.options.Deflate == takeover {
		offer = "permessage-deflate; client_max_window_bits"
	}
	conns, err := t.dial(n, load.Options{Extensions: offer})
	if err != nil {
		return nil, nil, err
	}
	script, err := deflateScript(conns[0].Extensions, t.options.Deflate == takeover)
	if err != nil {
		closeAll(conns)
		return nil, nil, fmt.Errorf("%s: %w", t.contender.name, err)
	}
	return conns, script, nil
}

// deflateScript compresses sixteen documents as the server agreed to have them
// compressed.
//
// With takeover the documents are compressed twice in a row, and the script
// goes back to the second pass for ever: both passes are longer than the
// window, so the text before a message is then the same each time round, and
// the same bytes stay valid.
func deflateScript(agreed string, wantTakeover bool) (*load.Script, error) {
	params := strings.Split(agreed, ";")
	if strings.TrimSpace(params[0]) != "permessage-deflate" {
		return nil, fmt.Errorf("the server agreed to %q, not to permessage-deflate", agreed)
	}
	window, clientTakeover, serverTakeover := 15, true, true
	for _, p := range params[1:] {
		name, value, _ := strings.Cut(strings.TrimSpace(p), "=")
		switch name {
		case "client_no_context_takeover":
			clientTakeover = false
		case "server_no_context_takeover":
			serverTakeover = false
		case "client_max_window_bits":
			n, err := strconv.Atoi(strings.Trim(value, `"`))
			if err != nil || n < 8 || n > 15 {
				return nil, fmt.Errorf("the server agreed to %q", agreed)
			}
			window = n
		}
	}
	if clientTakeover != wantTakeover || serverTakeover != wantTakeover {
		return nil, fmt.Errorf("the server agreed to %q, which is not what the cell measures", agreed)
	}
	docs := documents(16, documentSize)
	s := &load.Script{}
	var out bytes.Buffer
	w, err := flate.NewWriterWindow(&out, 1<<window)
	if err != nil {
		return nil, err
	}
	passes := 1
	if clientTakeover {
		passes, s.Loop = 2, len(docs)
	}
	for range passes {
		for _, d := range docs {
			if !clientTakeover {
				w.Reset(&out)
			}
			out.Reset()
			if _, err := w.Write(d); err != nil {
				return nil, err
			}
			if err := w.Flush(); err != nil {
				return nil, err
			}
			// RFC 7692, 7.2.1: remove the tail 00 00 ff ff of the empty block.
			p := bytes.TrimSuffix(out.Bytes(), []byte{0, 0, 0xff, 0xff})
			s.Add(load.AppendFrame(nil, load.Frame{Opcode: load.Text, Fin: true, RSV1: true, Masked: true}, p))
		}
	}
	return s, nil
}
