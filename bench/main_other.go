//go:build !linux

// Bench measures weft beside other WebSocket libraries for Go. It binds
// processes to cores and reads their costs in ways that only Linux has.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "weft: bench: needs Linux")
	os.Exit(2)
}
