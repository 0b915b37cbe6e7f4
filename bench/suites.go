//go:build linux

package main

import (
	"path/filepath"
	"slices"
)

// suites returns every table of the benchmark. A new table, or a new row of an
// old one, is added here and nowhere else.
func suites() []*suite {
	return []*suite{engine, mcp}
}

// suiteOf finds a suite by its name.
func suiteOf(id string) *suite {
	for _, s := range suites() {
		if s.id == id {
			return s
		}
	}
	return nil
}

// results is where a full run of the suite is kept.
func (s *suite) results() string { return filepath.Join("results", s.file+".json") }

// engine is the WebSocket engine beside the libraries that Go programs use
// today.
var engine = &suite{
	id:         "engine",
	title:      "WebSocket engine",
	file:       "latest",
	contenders: []*contender{weft, rawTCP, gorilla, gorillaTuned, coder, gobwas, gobwasTuned, gwsLib, nbio, nbioBlocking},
	cells:      slices.Concat(echoCells, largeCells, textCells, deflateCells, memoryCells, latencyCells, hostileCells),
	check:      checkEngine,
}

// mcp is the gateway beside the one that people use today, with the same
// stdio server behind both.
var mcp = &suite{
	id:         "mcp",
	title:      "MCP gateway",
	file:       "mcp",
	prepare:    prepareMCP,
	contenders: []*contender{supergateway, weftShared, weftConnection, weftPool},
	cells:      mcpCells,
	check:      checkMCP,
}
