//go:build unix

package main

import "syscall"

// hangup asks weft serve to read its configuration again.
const hangup = syscall.SIGHUP
