// Package cue turns a revision into objects: CUE packages, YAML and JSON below
// the deployed folder, checked with the definitions of cue/schema. It owns all
// use of CUE. It reads the revision's tree and nothing else; it never looks at
// the cluster, so the same revision always gives the same Set.
package cue

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"berth.dev/berth/api/manifest"
	"berth.dev/berth/api/revision"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/cue/check"
	"berth.dev/berth/cue/document"
	"berth.dev/berth/cue/eval"
	"berth.dev/berth/cue/schema"
	"berth.dev/berth/cue/sops"
	"berth.dev/berth/cue/worker"
)

// Compiler compiles revisions. It is safe for concurrent use. It keeps the
// results of files and folders that the last compile of a Source held, and
// nothing else.
type Compiler struct {
	kinds kinds
	eval  *eval.Evaluator
	cache *cache
	// apart evaluates packages in processes of their own; nil: in this one.
	apart *worker.Pool
	// needed says that a process was used since the start.
	needed atomic.Bool
}

// Options of one compile.
type Options struct {
	// Source is the name of the Source; compiles of one name share a cache.
	Source string
	// Path is the folder that is deployed; "" is the whole repository.
	Path string
	// TargetNamespace is given to namespaced objects without a namespace. If
	// empty, they are left without.
	TargetNamespace string
	// Limits of the evaluation of each folder of CUE, where it has a process of
	// its own; the zero value is DefaultLimits.
	Limits worker.Limits
	// Decryption opens encrypted files.
	Decryption Decryption
	// Kinds are what the cluster carries out; nil means every kind of the schema.
	Kinds KindSet
}

// New reads the schema.
func New() (*Compiler, error) {
	files, err := schema.Files()
	if err != nil {
		return nil, fmt.Errorf("read the schema: %w", err)
	}
	evaluator, err := eval.New(files)
	if err != nil {
		return nil, err
	}
	plain := make(map[string][]byte, len(files))
	for name, content := range files {
		if !schema.Shorthand(name) {
			plain[name] = content
		}
	}
	definitions, err := check.Read(plain)
	if err != nil {
		return nil, err
	}
	ks, err := newKinds(definitions)
	if err != nil {
		return nil, err
	}
	return &Compiler{kinds: ks, eval: evaluator, cache: newCache()}, nil
}

// Forget drops what is kept of a Source that is gone.
func (c *Compiler) Forget(source string) { c.cache.forget(source) }

// Compile returns the objects of a revision, or every fault in it. The error is
// not the user's: the tree could not be read, or ctx has ended.
func (c *Compiler) Compile(ctx context.Context, rev revision.Revision, opts Options) (manifest.Set, error) {
	root := strings.Trim(path.Clean("/"+opts.Path), "/")
	files, err := rev.Tree.Files(ctx)
	if err != nil {
		return manifest.Set{}, fmt.Errorf("list the files: %w", err)
	}
	in := sift(rev.Tree, files, root)
	j := &job{compiler: c, in: in, root: root, limits: cmp.Or(opts.Limits, DefaultLimits()), decryption: opts.Decryption, opens: opts.Decryption.id(), keys: map[string]bool{}}
	tasks, err := j.tasks(ctx)
	if err != nil {
		return manifest.Set{}, fmt.Errorf("compile: %w", err)
	}
	results := make([]admitted, len(tasks))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(max(1, runtime.GOMAXPROCS(0)))
	for i := range results {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			var err error
			results[i], err = tasks[i](ctx)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return manifest.Set{}, fmt.Errorf("compile: %w", err)
	}
	c.cache.retain(opts.Source, j.keys)
	for i := range results {
		results[i] = in.relocate(results[i])
	}
	return assemble(in.problems, results, c.kinds, opts), nil
}

// job is one compile.
type job struct {
	compiler   *Compiler
	in         *inputs
	root       string
	limits     worker.Limits
	decryption Decryption
	// opens is what decryption is identified by.
	opens string
	mu    sync.Mutex
	keys  map[string]bool
}

// key names content, and how it is opened: what one Source's keys open is nothing
// to a Source that has others.
func (j *job) key(what, dir string, files []revision.File) string {
	return key(what+"\x00"+j.opens, dir, files)
}

// cached returns what is known under a key, and marks it as used.
func (j *job) cached(key string) (entry, bool) {
	j.mu.Lock()
	j.keys[key] = true
	j.mu.Unlock()
	return j.compiler.cache.get(key)
}

func (j *job) plain(ctx context.Context, f revision.File) (admitted, error) {
	k := j.key("plain", "", []revision.File{f})
	if e, ok := j.cached(k); ok {
		return e.result, nil
	}
	content, problem, err := j.in.read(ctx, f)
	if err != nil {
		return admitted{}, err
	}
	result := admitted{}
	switch name := j.in.written(f.Path); {
	case problem != nil:
		result.problems = []document.Problem{*problem}
	case sops.Detect(name, content) != sops.None:
		result = j.plainEncrypted(f, content)
	default:
		result = j.compiler.kinds.plainFile(f, content, false)
		result.problems = few(result.problems)
	}
	j.compiler.cache.put(k, entry{result: result})
	return result, nil
}

// folder compiles a CUE package. Its own files say how far it reaches; if it
// reads more than them, the result is kept under the key of all it reads.
func (j *job) folder(ctx context.Context, dir string) (admitted, error) {
	root := j.in.moduleRoot(dir)
	files := j.in.files(dir, root, 0)
	own := j.key("package", dir, files)
	e, known := j.cached(own)
	if known && e.reach == 0 {
		return e.result, nil
	}
	contents := map[string][]byte{}
	var problems []document.Problem
	far := e.reach
	if !known {
		var err error
		if far, problems, err = j.in.load(ctx, files, contents); err != nil {
			return admitted{}, err
		}
	}
	full := own
	if far != 0 {
		j.compiler.cache.put(own, entry{reach: far})
		files = j.in.files(dir, root, far)
		full = j.key("reached", dir, files)
		if e, ok := j.cached(full); ok {
			return e.result, nil
		}
		_, more, err := j.in.load(ctx, files, contents)
		if err != nil {
			return admitted{}, err
		}
		problems = append(problems, more...)
	}
	if len(problems) > 0 {
		result := admitted{problems: problems}
		j.compiler.cache.put(full, entry{result: result})
		return result, nil
	}
	return j.evaluate(ctx, full, dir, root, contents)
}

// evaluate evaluates a package and keeps the result for as long as it holds.
func (j *job) evaluate(ctx context.Context, full, dir, root string, contents map[string][]byte) (admitted, error) {
	pkg := eval.Package{Dir: dir, ModuleRoot: root, Files: contents}
	unnamed, problem := packageNames(j.in.cueFiles[dir], contents)
	if problem != nil {
		return admitted{problems: []document.Problem{*problem}}, nil
	}
	pkg.Unnamed = unnamed
	return j.embedding(ctx, full, pkg)
}

func diagnostic(p document.Problem) v1alpha1.Diagnostic {
	d := v1alpha1.Diagnostic{
		Severity: v1alpha1.SeverityError,
		Path:     p.Path, Line: int32(p.Line), Column: int32(p.Column),
		Object: bounded(p.Object), Field: bounded(p.Field), Message: bounded(p.Message),
	}
	if p.Warning {
		d.Severity = v1alpha1.SeverityWarning
	}
	return d
}

// bounded cuts what a repository can make as long as it likes.
func bounded(s string) string {
	const longest = 2000
	if len(s) <= longest {
		return s
	}
	return strings.ToValidUTF8(s[:longest], "") + "…"
}

// maxFileProblems is how many faults of one file are told.
const maxFileProblems = 500

// few cuts a list of faults that nobody reads to its end.
func few(problems []document.Problem) []document.Problem {
	if len(problems) <= maxFileProblems {
		return problems
	}
	last := problems[maxFileProblems]
	rest := document.Problem{Pos: document.Pos{Path: last.Path}, Message: fmt.Sprintf("%d more faults in this file are not told", len(problems)-maxFileProblems)}
	return append(problems[:maxFileProblems:maxFileProblems], rest)
}
