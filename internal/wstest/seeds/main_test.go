package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const root = "../../.."

// TestSeedsAreCommitted: each file is what this program writes, small, and no
// target has too many to begin with.
func TestSeedsAreCommitted(t *testing.T) {
	c, err := collect(os.DirFS(root))
	if err != nil {
		t.Fatal(err)
	}
	per := map[string]int{}
	for name, want := range c.files {
		got, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
		if err != nil {
			t.Fatalf("%v; run: go run ./internal/wstest/seeds", err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what this program writes; run: go run ./internal/wstest/seeds", name)
		}
		if len(want) > 64<<10 {
			t.Errorf("%s has %d bytes; a seed is small", name, len(want))
		}
		per[filepath.ToSlash(filepath.Dir(name))]++
	}
	for _, target := range []string{
		"internal/wire/testdata/fuzz/FuzzHeader", "internal/proto/testdata/fuzz/FuzzReceiver", "internal/proto/testdata/fuzz/FuzzRoundTrip",
		"internal/proto/testdata/fuzz/FuzzText", "internal/deflate/testdata/fuzz/FuzzDeflateParams", "internal/deflate/testdata/fuzz/FuzzInflate",
		"ws/testdata/fuzz/FuzzHandshakeRequest", "ws/testdata/fuzz/FuzzHandshakeResponse", "capture/testdata/fuzz/FuzzTrace", "doctor/testdata/fuzz/FuzzInspector",
	} {
		if n := per[target]; n < 12 || n > 40 {
			t.Errorf("%s has %d seeds, want a dozen or two", target, n)
		}
	}
}

// TestSeedsAreOfTargets: a seed of no target would never be run.
func TestSeedsAreOfTargets(t *testing.T) {
	c, err := collect(os.DirFS(root))
	if err != nil {
		t.Fatal(err)
	}
	sources := map[string]string{}
	for name := range c.files {
		dir, rest, _ := strings.Cut(name, "/testdata/fuzz/")
		target, _, _ := strings.Cut(rest, "/")
		if sources[dir] == "" {
			files, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(dir), "*_test.go"))
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range files {
				b, err := os.ReadFile(f)
				if err != nil {
					t.Fatal(err)
				}
				sources[dir] += string(b)
			}
		}
		if !strings.Contains(sources[dir], "\nfunc "+target+"(f *testing.F)") {
			t.Errorf("%s: there is no target %s in %s", name, target, dir)
		}
	}
}
