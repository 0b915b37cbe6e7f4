//go:build linux

// Bench measures weft beside other WebSocket libraries for Go and beside plain
// TCP. Each server runs in a process of its own bound to one core, a common
// load client in this process bound to another, and all are measured in turns.
//
//	go run .                        everything; writes results/latest.json
//	go run . -list                  the cells and contenders
//	go run . -cells echo-32x16      some of it, printed only
//	go run . -quick                 everything in a minute or two, too short for figures
//	go run . -verify                does every adapter echo rightly?
//	go run . -profile DIR -cells X  processor profiles of weft
//	go run . -render FILE           put the tables of the last results into a document
//	go run . -suite mcp             the MCP gateway instead; writes results/mcp.json
package main

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/weft-ws/weft/bench/internal/sys"
)

func main() {
	if arg, ok := os.LookupEnv(childEnv); ok {
		exit(runChild(arg))
	}
	if len(os.Args) == 2 && os.Args[1] == stdioArg {
		exit(serveStdio(os.Stdin, os.Stdout))
	}
	exit(run())
}

// exit ends the process: 2 when something could not be measured or read.
func exit(err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "weft: bench: %v\n", err)
		os.Exit(2)
	}
	os.Exit(0)
}

const boundEnv = "WEFT_BENCH_BOUND"

func run() error {
	var (
		which   = flag.String("suite", engine.id, "what to measure: engine or mcp")
		cells   = flag.String("cells", "", "measure only these cells, separated by commas")
		libs    = flag.String("libs", "", "measure only these contenders, separated by commas; variants are measured only when named")
		rounds  = flag.Int("rounds", 10, "paired rounds of each cell")
		most    = flag.Int("max-rounds", 0, "rounds at most for cells with wide intervals (default twice -rounds)")
		slice   = flag.Duration("slice", 500*time.Millisecond, "measured time of each sample")
		quick   = flag.Bool("quick", false, "two short rounds with few connections: does it run?")
		check   = flag.Bool("verify", false, "check that every adapter echoes rightly, and measure nothing")
		list    = flag.Bool("list", false, "list cells and contenders")
		out     = flag.String("out", "", "file for the results; with -cells the rest of the file is kept (default that of the suite for a full run)")
		from    = flag.String("in", "", "results that -render reads (default that of the suite)")
		doc     = flag.String("render", "", "put the tables into this document and measure nothing")
		profile = flag.String("profile", "", "directory for processor profiles of weft, one more sample of each cell")
		client  = flag.Int("client-core", -1, "core of the load client (default the first of this process)")
		server  = flag.Int("server-core", -1, "core of the process under test (default the second)")
	)
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q; cells are chosen with -cells", flag.Arg(0))
	}
	s := suiteOf(*which)
	if s == nil {
		return fmt.Errorf("-suite %s: there is none of this name; -list names them all", *which)
	}
	if *list {
		printList()
		return nil
	}
	if *doc != "" {
		r, err := readResults(cmp.Or(*from, s.results()))
		if err != nil {
			return err
		}
		return r.render(*doc, s)
	}
	todo, err := jobs([]*suite{s}, split(*cells), split(*libs))
	if err != nil {
		return err
	}
	if _, again := os.LookupEnv(boundEnv); s.prepare != nil && !again {
		if err := s.prepare(); err != nil {
			return err
		}
	}
	on, err := chooseCores(*client, *server)
	if err != nil {
		return err
	}
	if *check {
		return verify(on, todo, os.Stdout)
	}
	r := &runner{on: on, rounds: *rounds, most: *most, slice: *slice, quick: *quick, profile: *profile, progress: os.Stderr}
	if r.most == 0 {
		r.most = 2 * r.rounds
	}
	if r.quick {
		r.rounds, r.most, r.slice = 2, 2, 60*time.Millisecond
	}
	if r.rounds < 1 || r.slice < time.Millisecond {
		return fmt.Errorf("-rounds %d and -slice %s measure nothing", r.rounds, r.slice)
	}
	if r.profile != "" {
		if err := os.MkdirAll(r.profile, 0o755); err != nil {
			return err
		}
	}
	res := newResults(r.slice.Milliseconds(), s)
	if res.Cells, err = r.run(todo); err != nil {
		return err
	}
	if err := res.print(os.Stdout); err != nil {
		return err
	}
	full := *cells == "" && *libs == "" && !r.quick
	if *out == "" && full {
		*out = s.results()
	}
	if *out != "" {
		if err := res.save(*out, full); err != nil {
			return err
		}
	}
	if n := res.failures(); n > 0 {
		return fmt.Errorf("%d times a contender was left out of a cell, see above", n)
	}
	return nil
}

func split(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

// chooseCores settles who runs where, and starts this process again bound to
// the client's core if it is not yet.
func chooseCores(client, server int) (cores, error) {
	var on cores
	if s, ok := os.LookupEnv(boundEnv); ok {
		_, err := fmt.Sscanf(s, "%d,%d", &on.client, &on.server)
		return on, err
	}
	have, err := sys.Cores()
	if err != nil {
		return on, err
	}
	if len(have) < 2 {
		return on, fmt.Errorf("client and server need a core each, and this process may use %d", len(have))
	}
	on = cores{have[0], have[1]}
	if client >= 0 {
		on.client = client
	}
	if server >= 0 {
		on.server = server
	}
	if on.client == on.server {
		return on, fmt.Errorf("client and server cannot share core %d", on.client)
	}
	return on, sys.Reexec(on.client, fmt.Sprintf("%s=%d,%d", boundEnv, on.client, on.server))
}

func printList() {
	for _, s := range suites() {
		fmt.Printf("%s: %s\n", s.id, s.title)
		for _, c := range s.contenders {
			kind := ""
			if c.variant {
				kind = " (only when named)"
			}
			fmt.Printf("  library  %-16s %s%s\n", c.name, c.about, kind)
		}
		for _, c := range s.cells {
			fmt.Printf("  cell     %-16s %s\n", c.id, c.title)
		}
	}
}
