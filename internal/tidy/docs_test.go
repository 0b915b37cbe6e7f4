package tidy

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// printedIn are the documents whose Go code is all printed from files that
// compile. A block of them stands below a comment that names its file, and the
// part of it between "// docs: NAME" and "// docs: end" if it is not the whole:
//
//	<!-- code: ws/example_migrate_test.go echo -->
var printedIn = []string{"README.md", "docs/migrating.md"}

var codeComment = regexp.MustCompile(`^<!-- code: (\S+)( (\S+))? -->$`)

// TestDocsPrintRealCode compares the Go code in documents with the files that it
// comes from.
func TestDocsPrintRealCode(t *testing.T) {
	top := root(t)
	for _, doc := range printedIn {
		blocks := 0
		lines := readLines(t, filepath.Join(top, filepath.FromSlash(doc)))
		for i := 0; i < len(lines); i++ {
			if lines[i] != "```go" {
				continue
			}
			at := i + 1
			end := at + slices.Index(lines[at:], "```")
			if end < at {
				t.Fatalf("%s:%d: a code block without an end", doc, at)
			}
			blocks++
			i = end
			var m []string
			if at >= 2 {
				m = codeComment.FindStringSubmatch(lines[at-2])
			}
			if m == nil {
				t.Errorf("%s:%d: no comment above says which file this code comes from", doc, at)
				continue
			}
			want, err := region(readLines(t, filepath.Join(top, filepath.FromSlash(m[1]))), m[3])
			if err != nil {
				t.Errorf("%s:%d: %s: %v", doc, at, m[1], err)
				continue
			}
			if got := lines[at:end]; !slices.Equal(got, want) {
				t.Errorf("%s:%d: this is not what stands in %s %s:\n%s", doc, at+1, m[1], m[3], strings.Join(want, "\n"))
			}
		}
		if blocks == 0 {
			t.Errorf("%s has no Go code", doc)
		}
	}
}

// region returns the lines of a file that belong to a part of it, without blank
// lines around them, or all lines if name is empty.
func region(lines []string, name string) ([]string, error) {
	if name != "" {
		from := slices.Index(lines, "// docs: "+name)
		if from < 0 {
			return nil, fmt.Errorf("there is no line %q", "// docs: "+name)
		}
		lines = lines[from+1:]
		to := slices.Index(lines, "// docs: end")
		if to < 0 {
			return nil, fmt.Errorf("part %s has no end", name)
		}
		lines = lines[:to]
	}
	for len(lines) > 0 && lines[0] == "" {
		lines = lines[1:]
	}
	for len(lines) > 0 && lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return lines, nil
}

func readLines(t *testing.T, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(string(bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n"))), "\n")
}

var (
	docLink = regexp.MustCompile(`\]\(([^)\s]+)\)|(?:src|srcset|href)="([^"]+)"`)
	heading = regexp.MustCompile("^#{1,6} +(.*)$")
)

// TestDocLinks wants a file, and a heading, behind every link of a document to
// another place in the repository.
func TestDocLinks(t *testing.T) {
	top := root(t)
	links := 0
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != top && (d.Name() == "node_modules" || strings.HasPrefix(d.Name(), ".")) {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".md") {
			return nil
		}
		for i, line := range proseOnly(readLines(t, path)) {
			for _, m := range docLink.FindAllStringSubmatch(line, -1) {
				link := m[1] + m[2]
				if strings.Contains(link, "://") || strings.HasPrefix(link, "mailto:") {
					continue
				}
				links++
				file, anchor, _ := strings.Cut(link, "#")
				target := path
				if file != "" {
					target = filepath.Join(filepath.Dir(path), filepath.FromSlash(file))
				}
				if _, err := os.Stat(target); err != nil {
					t.Errorf("%s:%d: %s: there is no such file", path, i+1, link)
				} else if anchor != "" && !slices.Contains(anchors(t, target), anchor) {
					t.Errorf("%s:%d: %s: there is no such heading", path, i+1, link)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if links < 50 {
		t.Fatalf("only %d links found", links)
	}
}

// anchors returns the names by which the headings of a document can be linked
// to, as the usual renderers make them.
func anchors(t *testing.T, path string) []string {
	var names []string
	seen := map[string]int{}
	for _, line := range proseOnly(readLines(t, path)) {
		m := heading.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		name := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-', r == '_', r >= 'a' && r <= 'z', r >= '0' && r <= '9', r > 127:
				return r
			}
			return -1
		}, strings.ToLower(strings.TrimSpace(m[1])))
		if n := seen[name]; n > 0 {
			names = append(names, fmt.Sprintf("%s-%d", name, n))
		} else {
			names = append(names, name)
		}
		seen[name]++
	}
	return names
}

// proseOnly returns the lines with those of code blocks made empty.
func proseOnly(lines []string) []string {
	out := make([]string, len(lines))
	fence := ""
	for i, line := range lines {
		mark := strings.TrimSpace(line)
		switch {
		case fence == "" && strings.HasPrefix(mark, "```"):
			fence = mark[:len(mark)-len(strings.TrimLeft(mark, "`"))]
		case fence != "" && mark == fence:
			fence = ""
		case fence == "":
			out[i] = line
		}
	}
	return out
}

func TestRegion(t *testing.T) {
	file := []string{"package x", "", "// docs: one", "", "func a()", "", "// docs: end", "// docs: two"}
	if got, err := region(file, "one"); err != nil || !slices.Equal(got, []string{"func a()"}) {
		t.Errorf("part one is %q, error %v", got, err)
	}
	if got, err := region(file, ""); err != nil || len(got) != len(file) {
		t.Errorf("the whole is %q, error %v", got, err)
	}
	for _, name := range []string{"two", "three"} {
		if got, err := region(file, name); err == nil {
			t.Errorf("part %s is %q, want an error", name, got)
		}
	}
}
