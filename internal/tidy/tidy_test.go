// Package tidy holds rules about the repository itself, as tests.
package tidy

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/weft-ws/weft"

// below says what each layer may import of this module, outside tests. A
// package that is not listed is an application and may import any of these.
var below = map[string][]string{
	"internal/wire":    {},
	"internal/deflate": {},
	"internal/proto":   {"internal/wire"},
	"ws":               {"internal/wire", "internal/proto", "internal/deflate"},
	"capture":          {},
	// The doctor shares the rule catalogue and the words of the wire with the
	// engine, and no judgement: the oracle must not inherit its mistakes.
	"doctor": {"internal/wire", "internal/proto", "capture"},
	"mcpws":  {"ws", "mcpws/envelope"},
	"acip":   {"ws"},
}

// standalone are the packages that need no module but klauspost/compress.
var standalone = []string{"internal/wire", "internal/deflate", "internal/proto", "ws"}

type goPackage struct {
	ImportPath string
	Imports    []string
	Standard   bool
}

func packages(t *testing.T) []goPackage {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", module+"/...").Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %s", exit.Stderr)
		}
		t.Fatal(err)
	}
	var list []goPackage
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
	if len(list) < len(below) {
		t.Fatalf("go list found %d packages, fewer than there are layers", len(list))
	}
	return list
}

// TestImportsGoDown keeps the layers of docs/architecture.md true.
func TestImportsGoDown(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		allowed, layered := below[name]
		seen[name] = true
		for _, imp := range p.Imports {
			rel, own := strings.CutPrefix(imp, module+"/")
			switch {
			case !own || !layered:
			case !slices.Contains(allowed, rel):
				t.Errorf("%s imports %s, which is not below it", name, rel)
			}
			if own && strings.HasPrefix(rel, "cmd/") {
				t.Errorf("%s imports the command %s", name, rel)
			}
		}
	}
	for name := range below {
		if !seen[name] {
			t.Errorf("layer %s is listed and does not exist", name)
		}
	}
}

// TestEngineStandsAlone keeps package ws and everything below it free of
// modules other than klauspost/compress.
func TestEngineStandsAlone(t *testing.T) {
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		if !slices.Contains(standalone, name) {
			continue
		}
		for _, imp := range p.Imports {
			first, _, _ := strings.Cut(imp, "/")
			if strings.Contains(first, ".") && !strings.HasPrefix(imp, module+"/") && !strings.HasPrefix(imp, "github.com/klauspost/compress/") {
				t.Errorf("%s imports %s", name, imp)
			}
		}
	}
}

// root is the top of the repository.
func root(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(filepath.Dir(dir))
}

// goFiles calls f for each Go file of the module, tests included.
func goFiles(t *testing.T, f func(path string, file *ast.File, fset *token.FileSet)) {
	t.Helper()
	fset := token.NewFileSet()
	n := 0
	err := filepath.WalkDir(root(t), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || d.Name() == "node_modules" || strings.HasPrefix(d.Name(), ".")) {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") {
			return nil
		}
		file, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		n++
		f(path, file, fset)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n < 50 {
		t.Fatalf("only %d Go files found", n)
	}
}

// TestExportedIsDocumented wants a comment on each exported identifier of the
// public packages.
func TestExportedIsDocumented(t *testing.T) {
	public := []string{"ws", "doctor", "capture", "mcpws", "gateway", "acip", "chat"}
	top := root(t)
	goFiles(t, func(path string, file *ast.File, fset *token.FileSet) {
		rel, _ := filepath.Rel(top, filepath.Dir(path))
		if !slices.Contains(public, filepath.ToSlash(rel)) || strings.HasSuffix(path, "_test.go") {
			return
		}
		for _, d := range file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && d.Doc == nil && exportedReceiver(d) {
					t.Errorf("%s: %s has no comment", fset.Position(d.Pos()), d.Name.Name)
				}
			case *ast.GenDecl:
				for _, s := range d.Specs {
					if s, ok := s.(*ast.TypeSpec); ok && s.Name.IsExported() && d.Doc == nil && s.Doc == nil {
						t.Errorf("%s: %s has no comment", fset.Position(s.Pos()), s.Name.Name)
					}
				}
			}
		}
	})
}

// exportedReceiver reports whether d is a function or a method of an exported
// type that is not one of an interface's well-known methods.
func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	typ := d.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	id, ok := typ.(*ast.Ident)
	return ok && id.IsExported()
}

// TestNoWaitingInTests wants no skipped test, and no sleep outside a synctest
// bubble.
func TestNoWaitingInTests(t *testing.T) {
	goFiles(t, func(path string, file *ast.File, fset *token.FileSet) {
		if !strings.HasSuffix(path, "_test.go") || strings.Contains(path, filepath.FromSlash("internal/tidy/")) {
			return
		}
		bubble := false
		for _, imp := range file.Imports {
			bubble = bubble || imp.Path.Value == `"testing/synctest"`
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			x, ok := call.X.(*ast.Ident)
			if !ok {
				return true
			}
			switch {
			case x.Name == "time" && call.Sel.Name == "Sleep" && !bubble:
				t.Errorf("%s: sleeps", fset.Position(call.Pos()))
			case strings.HasPrefix(call.Sel.Name, "Skip") && (x.Name == "t" || x.Name == "b"):
				t.Errorf("%s: skips", fset.Position(call.Pos()))
			}
			return true
		})
	})
}
