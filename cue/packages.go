package cue

import (
	"bytes"
	"context"
	"fmt"
	"path"
	"strings"

	"cuelang.org/go/cue/ast"
	"cuelang.org/go/cue/parser"

	"berth.dev/berth/api/revision"
	"berth.dev/berth/cue/document"
	"berth.dev/berth/cue/eval"
)

// reach is what the evaluation of a package reads besides its own folder and
// the folders above it.
type reach int

const (
	// module: packages of the same module, or vendored ones.
	module reach = 1 << iota
	// embedded: any file below the folder.
	embedded
)

// moduleRoot is the nearest folder above dir with a cue.mod; the repository
// stands in where there is none, so that a folder gives the same objects
// whichever one above it is deployed.
func (in *inputs) moduleRoot(dir string) string {
	for d := dir; ; d = folder(d) {
		if _, ok := in.all[path.Join(d, "cue.mod/module.cue")]; ok {
			return d
		}
		if d == "" {
			return ""
		}
	}
}

// files lists what a package reads.
func (in *inputs) files(dir, root string, r reach) []revision.File {
	var out []revision.File
	if f, ok := in.all[path.Join(root, "cue.mod/module.cue")]; ok {
		out = append(out, f)
	}
	if r&module != 0 {
		for _, d := range sortedKeys(in.cueFiles) {
			if within(root, d) && !(d == path.Join(root, "cue.mod")) {
				out = append(out, in.cueFiles[d]...)
			}
		}
	} else {
		for d := dir; ; d = folder(d) {
			out = append(out, in.cueFiles[d]...)
			if d == root || d == "" {
				break
			}
		}
	}
	if r&embedded != 0 {
		for _, name := range sortedKeys(in.all) {
			f := in.all[name]
			if f.Kind == revision.Regular && path.Ext(name) != ".cue" && within(dir, name) && f.Size <= maxFile {
				out = append(out, f)
			}
		}
	}
	return out
}

// load reads files of the module and finds out how far the package reaches.
func (in *inputs) load(ctx context.Context, files []revision.File, into map[string][]byte) (reach, []document.Problem, error) {
	var r reach
	var problems []document.Problem
	for _, f := range files {
		if _, done := into[f.Path]; done {
			continue
		}
		content, problem, err := in.read(ctx, f)
		if err != nil {
			return r, problems, err
		}
		if problem != nil {
			problems = append(problems, *problem)
			continue
		}
		into[f.Path] = content
		if path.Ext(f.Path) != ".cue" {
			continue
		}
		if bytes.Contains(content, []byte("@embed")) {
			r |= embedded
		}
		if syntax, err := parser.ParseFile(f.Path, content, parser.ImportsOnly); err == nil && importsModule(syntax) {
			r |= module
		}
	}
	return r, problems, nil
}

// importsModule reports whether a file imports anything but the schema and
// CUE's own packages, whose paths have no dot in their first part.
func importsModule(f *ast.File) bool {
	for spec := range f.ImportSpecs() {
		name := strings.Trim(spec.Path.Value, `"`)
		first, _, _ := strings.Cut(name, "/")
		if strings.Contains(first, ".") && name != "berth.dev/schema" && !strings.HasPrefix(name, "berth.dev/schema:") {
			return true
		}
	}
	return false
}

// evaluate compiles one CUE package, in this process.
func (c *Compiler) evaluate(ctx context.Context, pkg eval.Package, hide bool) admitted {
	results := map[*document.Node]admitted{}
	result := c.safely(ctx, pkg, func(n *document.Node) []document.Problem {
		results[n] = c.kinds.admit(n, hide)
		return results[n].problems
	})
	out := admitted{problems: result.Problems}
	if !out.failed() {
		for _, o := range result.Objects {
			out.objects = append(out.objects, results[o.Node].objects...)
		}
	}
	return out
}

// safely keeps a panic of the evaluator from taking the program down.
func (c *Compiler) safely(ctx context.Context, pkg eval.Package, check eval.Checker) (result eval.Result) {
	defer func() {
		if fault := recover(); fault != nil {
			if pkg.Encrypted {
				fault = "what it says may hold a value of an encrypted file"
			}
			result = eval.Result{Problems: []document.Problem{{Pos: document.Pos{Path: pkg.Dir},
				Message: fmt.Sprintf("the CUE evaluator failed on this folder: %v; please report it", fault)}}}
		}
	}()
	return c.eval.Evaluate(ctx, pkg, check)
}

// packageNames finds out how the files of a folder name their package: all the
// same, or none at all. It returns the files if none does.
func packageNames(files []revision.File, contents map[string][]byte) ([]string, *document.Problem) {
	var unnamed []string
	var name, at string
	for _, f := range files {
		syntax, err := parser.ParseFile(f.Path, contents[f.Path], parser.PackageClauseOnly)
		if err != nil || skippedByCUE(f.Path) {
			continue
		}
		switch found := syntax.PackageName(); {
		case found == "" || found == "_":
			unnamed = append(unnamed, f.Path)
		case name != "" && found != name:
			return nil, &document.Problem{Pos: document.Pos{Path: f.Path, Line: 1, Column: 1},
				Message: fmt.Sprintf("package %s, but %s is package %s; keep one package in a folder", found, at, name)}
		default:
			name, at = found, f.Path
		}
	}
	if name != "" && len(unnamed) > 0 {
		return nil, &document.Problem{Pos: document.Pos{Path: unnamed[0], Line: 1, Column: 1},
			Message: fmt.Sprintf("the file names no package, but %s is package %s; begin it with: package %s", at, name, name)}
	}
	return unnamed, nil
}

// skippedByCUE: tests and tools are no part of a package's value.
func skippedByCUE(name string) bool {
	base := path.Base(name)
	return strings.HasSuffix(base, "_test.cue") || strings.HasSuffix(base, "_tool.cue") || strings.HasPrefix(base, "_") || strings.HasPrefix(base, ".")
}
