//go:build linux

package main

import "slices"

// suites returns every table of the benchmark. A new table, or a new row of an
// old one, is added here and nowhere else.
func suites() []*suite {
	return []*suite{engine}
}

// engine is the WebSocket engine beside the libraries that Go programs use
// today.
var engine = &suite{
	id:         "engine",
	title:      "WebSocket engine",
	contenders: []*contender{weft, rawTCP, gorilla, gorillaTuned, coder, gobwas, gobwasTuned, gwsLib, nbio, nbioBlocking},
	cells:      slices.Concat(echoCells, largeCells, textCells, deflateCells, memoryCells, latencyCells, hostileCells),
	check:      checkEngine,
}
