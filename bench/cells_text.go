//go:build linux

package main

import "github.com/weft-ws/weft/bench/internal/load"

// textCells is what checking UTF-8 costs.
var textCells = []*cell{{
	id:      "text",
	title:   "64 KB mixed UTF-8 as text against the same bytes as binary",
	about:   "The same bytes in the same way, once as text and once as binary, checks switched on where they are off by default (gws). Libraries that never check text (gorilla, coder) show what the comparison is when nothing is done.",
	options: options{Mode: modeEcho, MaxMessage: 1 << 20, CheckUTF8: true},
	metrics: []metric{{id: "ratio", title: "text/binary CPU"}, {id: "text", title: "text CPU µs"}, {id: "binary", title: "binary CPU µs"}},
	targets: []target{
		{metric: "ratio", atMost: 1.2},
		{metric: "ratio", atMost: 1.15, stretch: true},
	},
	only: []string{"weft", "gorilla", "coder", "gobwas", "gws", "nbio"},
	run: func(t *trial) (sample, error) {
		out := sample{}
		// Text comes last, so that a profile shows it.
		for _, kind := range []load.Opcode{load.Binary, load.Text} {
			name := map[load.Opcode]string{load.Binary: "binary", load.Text: "text"}[kind]
			msg := load.AppendFrame(nil, load.Frame{Opcode: kind, Fin: true, Masked: true}, mixed(64_000))
			u, l, err := t.echoOn(4, load.Repeat(msg, 2), 2)
			if err != nil {
				return nil, err
			}
			out[name] = u.ns(l.Messages) / 1e3
		}
		out["ratio"] = out["text"] / out["binary"]
		return out, nil
	},
}}
