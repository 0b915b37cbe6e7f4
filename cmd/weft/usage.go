package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// A usageError is a command line that makes no sense as it stands.
type usageError struct {
	cmd *cobra.Command
	err error
}

func (e *usageError) Error() string { return e.err.Error() }

func (e *usageError) Unwrap() error { return e.err }

// lines tell how the command is meant, for somebody who knows nothing of it.
func (e *usageError) lines() []string {
	out := []string{"usage: " + asCalled(e.cmd.UseLine())}
	if first, _, _ := strings.Cut(strings.TrimSpace(e.cmd.Example), "\n"); first != "" {
		out = append(out, "example: "+asCalled(first))
	}
	return out
}

// takes checks the number of arguments; what names them in words, for errors.
func takes(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		verb := strings.TrimPrefix(cmd.CommandPath(), "weft ")
		switch {
		case len(args) < least:
			return &usageError{cmd, fmt.Errorf("%s needs %s", verb, what)}
		case len(args) > most && most == 0:
			return &usageError{cmd, fmt.Errorf("%s takes no arguments, and %q is one", verb, args[0])}
		case len(args) > most:
			return &usageError{cmd, fmt.Errorf("%s takes %s, and %q is one argument more; what has spaces in it needs quotes", verb, what, args[most])}
		}
		return nil
	}
}

// anyNumber is for takes.
const anyNumber = 1 << 30

// takesVerb is for commands that are only there for those below them.
func takesVerb(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := fmt.Errorf("there is no verb %q", strings.TrimPrefix(cmd.CommandPath()+" "+args[0], "weft "))
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return hinted(err, "perhaps "+asCalled(cmd.CommandPath()+" "+near[0])+" was meant")
	}
	var verbs []string
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() && sub.Name() != "help" && sub.Name() != "completion" {
			verbs = append(verbs, sub.Name())
		}
	}
	return hinted(err, "there are "+strings.Join(verbs, ", ")+"; --help tells what they do")
}

// asCalled puts the way in which this program was called in the place of its
// name at the beginning of a command line.
func asCalled(line string) string {
	if rest, ok := strings.CutPrefix(line, "weft "); ok {
		return program() + " " + rest
	}
	return line
}

// program is how this program was called, for commands to copy.
func program() string {
	cwd, _ := os.Getwd() // without it the module path is good everywhere
	module := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		module = info.Path
		if v := info.Main.Version; v != "" && v != "(devel)" {
			module += "@" + v
		}
	}
	return calledAs(os.Args[0], cwd, module)
}

// calledAs is program for a program of that name, called in the directory cwd,
// which is package module.
func calledAs(name, cwd, module string) string {
	if strings.Contains(filepath.ToSlash(name), "/go-build") {
		// go run compiles to a directory that is gone afterwards.
		here := filepath.Join("cmd", "weft")
		if _, err := os.Stat(filepath.Join(cwd, here, "main.go")); err == nil {
			return "go run ./cmd/weft"
		}
		switch _, err := os.Stat(filepath.Join(cwd, "main.go")); {
		case err == nil && strings.HasSuffix(cwd, here):
			return "go run ."
		case module != "":
			return "go run " + module
		}
	}
	if strings.ContainsAny(name, " \t'\"$&;()<>|*?`") {
		return "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
	}
	return name
}
