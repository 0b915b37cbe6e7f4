//go:build windows

package main

import "syscall"

// hangup is never sent on Windows: restart weft serve instead.
const hangup = syscall.SIGHUP
