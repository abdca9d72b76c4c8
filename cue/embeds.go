package cue

import (
	"bytes"
	"context"
	"path"
	"regexp"
	"slices"
	"strings"

	"cuelang.org/go/cue/ast"
	"cuelang.org/go/cue/parser"

	"berth.dev/berth/cue/document"
	"berth.dev/berth/cue/eval"
	"berth.dev/berth/cue/sops"
)

// embed is an attribute @embed of a CUE file.
type embed struct {
	// in is the CUE file, and begin and end are where the attribute stands in it.
	in         string
	begin, end int
	// file or glob are from the root of the repository; both are empty where it
	// cannot be told, and then it may be any file.
	file, glob string
}

var embedArgument = regexp.MustCompile(`\b(file|glob)\s*=\s*(?:"([^"]*)"|([^\s,)"]+))`)

// embedsOf finds the attributes @embed in CUE files.
func embedsOf(contents map[string][]byte) []embed {
	var out []embed
	for _, name := range sortedKeys(contents) {
		content := contents[name]
		if path.Ext(name) != ".cue" || !bytes.Contains(content, []byte("@embed")) {
			continue
		}
		syntax, err := parser.ParseFile(name, content)
		if err != nil {
			continue // nothing is evaluated then
		}
		ast.Walk(syntax, func(n ast.Node) bool {
			if a, ok := n.(*ast.Attribute); ok && strings.HasPrefix(a.Text, "@embed(") {
				begin := a.Pos().Offset()
				out = append(out, argument(embed{in: name, begin: begin, end: min(len(content), begin+len(a.Text))}, a.Text))
			}
			return true
		}, nil)
	}
	return out
}

func argument(e embed, text string) embed {
	m := embedArgument.FindStringSubmatch(text)
	if m == nil {
		return e
	}
	at := path.Join(folder(e.in), m[2]+m[3])
	if m[1] == "file" {
		e.file = at
	} else if !strings.Contains(at, "**") {
		e.glob = at
	}
	return e
}

func (e embed) names(file string) bool {
	if e.glob != "" {
		ok, err := path.Match(e.glob, file)
		return ok || err != nil
	}
	return e.file == file || e.file == "" && within(folder(e.in), file)
}

// embedding evaluates a package, after the encrypted files that it embeds were
// opened. Others it does not see.
func (j *job) embedding(ctx context.Context, full string, pkg eval.Package) (admitted, error) {
	var sealed []string
	for name, content := range pkg.Files {
		if path.Ext(name) != ".cue" && sops.Detect(name, content) != sops.None {
			sealed = append(sealed, name)
		}
	}
	if len(sealed) == 0 {
		return j.do(ctx, full, request{CUE: &pkg})
	}
	slices.Sort(sealed)
	r := request{CUE: &pkg}
	found := embedsOf(pkg.Files)
	var problems, skipped []document.Problem
	shapeless := false
	closed := map[string]bool{}
	for _, name := range sealed {
		if !slices.ContainsFunc(found, func(e embed) bool { return e.names(name) }) {
			delete(pkg.Files, name)
			continue
		}
		s, problem := j.opened(name, pkg.Files[name])
		r.Encrypted, r.guardian.values = true, append(r.guardian.values, s.values...)
		pkg.Files[name] = s.content
		switch {
		case problem != nil && problem.Warning:
			skipped = append(skipped, *problem)
			closed[name] = true
			shapeless = shapeless || s.shapeless
		case problem != nil:
			problems = append(problems, *problem)
		}
	}
	pkg.Encrypted, r.guardian.written = r.Encrypted, cueFilesOf(pkg)
	if len(problems) > 0 {
		result := admitted{problems: problems}
		j.compiler.cache.put(full, entry{result: result})
		return result, nil
	}
	if len(skipped) == 0 {
		return j.do(ctx, full, r)
	}
	return j.unknowing(ctx, full, r, blanked(pkg, found, closed), shapeless, skipped)
}

// blanked is a package that embeds what is closed no longer: the value there is
// not known.
func blanked(pkg eval.Package, found []embed, closed map[string]bool) eval.Package {
	files := make(map[string][]byte, len(pkg.Files))
	for name, content := range pkg.Files {
		if !closed[name] {
			files[name] = content
		}
	}
	for _, e := range found {
		for name := range closed {
			if e.names(name) {
				content := slices.Clone(files[e.in])
				for i := e.begin; i < e.end; i++ {
					if content[i] != '\n' {
						content[i] = ' '
					}
				}
				files[e.in] = content
				break
			}
		}
	}
	pkg.Files = files
	return pkg
}

// unknowing evaluates a package that embeds files which nobody can open here,
// twice: with values of the same shape in their place, and with none. What is
// wrong without the values is wrong whatever they are. What only lacks a value is
// wrong if it lacks one with any values, too.
func (j *job) unknowing(ctx context.Context, full string, instead request, without eval.Package, shapeless bool, skipped []document.Problem) (admitted, error) {
	// Nothing that is read holds a value that nobody may see.
	open := request{CUE: &without}
	open.CUE.Encrypted, instead.CUE.Encrypted, instead.Encrypted = false, false, false
	out, err := j.do(ctx, full+"\x00without", open)
	if err != nil {
		return admitted{}, err
	}
	var lacking []document.Problem
	if !shapeless {
		with, err := j.do(ctx, full+"\x00instead", instead)
		if err != nil {
			return admitted{}, err
		}
		lacking = with.problems
		out.objects = with.objects
	}
	var problems []document.Problem
	for _, p := range out.problems {
		same := func(q document.Problem) bool {
			return q.Path == p.Path && q.Line == p.Line && q.Field == p.Field && valueless(q) && !ofStandIn.MatchString(q.Message)
		}
		if p.Warning || !valueless(p) || slices.ContainsFunc(lacking, same) {
			problems = append(problems, p)
		}
	}
	out = guardian{}.guard(out)
	out.problems = append(problems, skipped...)
	return out, nil
}

// ofStandIn is a value that stands in the place of an encrypted one.
var ofStandIn = regexp.MustCompile(`[0-9a-f]{64}`)

// valueless: what is said is that a value, or a field, is not there.
func valueless(p document.Problem) bool { return p.Lacks || strings.HasPrefix(p.Message, "missing") }

// cueFilesOf are what the user has written of a package.
func cueFilesOf(pkg eval.Package) [][]byte {
	out := [][]byte{}
	for _, name := range sortedKeys(pkg.Files) {
		if path.Ext(name) == ".cue" {
			out = append(out, pkg.Files[name])
		}
	}
	return out
}
