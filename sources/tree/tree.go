// Package tree reads the trees of commits out of a Git object store, whole or
// not at all, and knows .berthignore. It never checks anything out.
package tree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"sort"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/storer"

	"berth.dev/berth/api/revision"
)

// Bounds of a tree, against repositories made to exhaust memory.
const (
	maxFiles = 1_000_000
	maxDepth = 100
	// maxAncestry bounds the search for an ancestor.
	maxAncestry = 1_000_000
)

// ErrIncomplete says that an object of a tree is missing or damaged.
type ErrIncomplete struct {
	Path string
	Hash string
	Err  error
}

func (e *ErrIncomplete) Error() string {
	return fmt.Sprintf("the repository is damaged: object %s of %q cannot be read: %v", e.Hash, e.Path, e.Err)
}

func (e *ErrIncomplete) Unwrap() error { return e.Err }

// Objects is an object store that is safe for concurrent use; go-git's are not.
type Objects struct {
	mu      sync.Mutex
	store   storer.EncodedObjectStorer
	damaged atomic.Bool
}

// Damaged reports whether an object could not be read that a tree holds.
func (o *Objects) Damaged() bool { return o.damaged.Load() }

// NewObjects guards a store.
func NewObjects(store storer.EncodedObjectStorer) *Objects { return &Objects{store: store} }

// Do runs f alone with the store.
func (o *Objects) Do(f func(storer.EncodedObjectStorer) error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return f(o.store)
}

// Revision returns a commit, or that of an annotated tag, limited to the folder dir. The whole tree is
// listed at once: an object that is missing is an *ErrIncomplete here.
func Revision(ctx context.Context, o *Objects, hash plumbing.Hash, dir string) (revision.Revision, error) {
	return RevisionWith(ctx, o, hash, dir, nil)
}

// RevisionWith is Revision with the content of submodules in their places.
// Those that are not among modules are listed as what they are.
func RevisionWith(ctx context.Context, o *Objects, hash plumbing.Hash, dir string, modules Modules) (revision.Revision, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	named := hash
	hash, err := Peel(o.store, hash)
	if err != nil {
		return revision.Revision{}, &ErrIncomplete{Hash: hash.String(), Err: err}
	}
	commit, err := object.GetCommit(o.store, hash)
	if err != nil {
		return revision.Revision{}, &ErrIncomplete{Hash: hash.String(), Err: err}
	}
	signatures, err := signed(o.store, named, commit)
	if err != nil {
		return revision.Revision{}, err
	}
	w := &walker{ctx: ctx, store: o.store, dir: strings.Trim(path.Clean("/"+dir), "/"), modules: modules}
	w.reach = NewReach(w.dir)
	if err := w.reach.Steps(func() (bool, error) { return w.list(commit.TreeHash) }); err != nil {
		return revision.Revision{}, err
	}
	sort.Slice(w.files, func(i, j int) bool { return w.files[i].Path < w.files[j].Path })
	subject, _, _ := strings.Cut(strings.TrimSpace(commit.Message), "\n")
	return revision.Revision{
		Commit:  commit.Hash.String(),
		Author:  commit.Author.Name,
		Email:   commit.Author.Email,
		Subject: subject,
		Message: commit.Message,
		Time:    commit.Committer.When,
		Signed:  signatures,
		Tree:    &gitTree{objects: o, files: w.files, modules: modules},
	}, nil
}

// Peel follows annotated tags to what they are of.
func Peel(s storer.EncodedObjectStorer, hash plumbing.Hash) (plumbing.Hash, error) {
	for range 10 {
		tag, err := object.GetTag(s, hash)
		if errors.Is(err, plumbing.ErrObjectNotFound) {
			return hash, nil
		}
		if err != nil {
			return hash, err
		}
		hash = tag.Target
	}
	return hash, errors.New("the tag leads through more than 10 tags")
}

// Ancestor reports whether old is commit or one of its ancestors, as far as the
// store has them: the edge of a shallow clone ends the search.
func Ancestor(s storer.EncodedObjectStorer, old, commit plumbing.Hash) bool {
	seen := map[plumbing.Hash]bool{commit: true}
	queue := []plumbing.Hash{commit}
	for len(queue) > 0 && len(seen) < maxAncestry {
		h := queue[0]
		queue = queue[1:]
		if h == old {
			return true
		}
		found, err := object.GetCommit(s, h)
		if err != nil {
			continue
		}
		for _, p := range found.ParentHashes {
			if !seen[p] {
				seen[p] = true
				queue = append(queue, p)
			}
		}
	}
	return false
}

// walker lists a tree below dir, what kustomizations in it name outside, the CUE
// files above it, and those elsewhere that packages in dir may import, if a CUE
// module encloses it.
type walker struct {
	ctx     context.Context
	store   storer.EncodedObjectStorer
	modules Modules
	dir     string
	reach   *Reach
	module  bool
	files   []revision.File
}

// at is the store that the content of a path is in.
func (w *walker) at(name string) storer.EncodedObjectStorer {
	if m, ok := w.modules.enclosing(name); ok {
		return m.Objects.Store()
	}
	return w.store
}

// list lists the tree; true if a kustomization reaches further than was known.
func (w *walker) list(hash plumbing.Hash) (grown bool, err error) {
	w.files = nil
	if err := w.walk(hash, "", nil, 0); err != nil || w.dir == "" {
		return false, err
	}
	for _, f := range w.files {
		if f.Kind != revision.Regular || f.Size > maxIgnore || !Kustomization(f.Path) {
			continue
		}
		content, err := w.blob(plumbing.NewHash(f.Hash), f.Path)
		if err != nil {
			return false, err
		}
		grown = w.reach.Learn(f.Path, content) || grown
	}
	return grown, nil
}

func (w *walker) walk(hash plumbing.Hash, at string, ignore Ignore, depth int) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	if depth > maxDepth {
		return fmt.Errorf("the folder %q nests deeper than %d levels", at, maxDepth)
	}
	t, err := object.GetTree(w.at(at), hash)
	if err != nil {
		return &ErrIncomplete{Path: at, Hash: hash.String(), Err: err}
	}
	for _, e := range t.Entries {
		switch {
		case e.Name == IgnoreFile && e.Mode.IsRegular():
			content, err := w.blob(e.Hash, path.Join(at, e.Name))
			if err != nil {
				return err
			}
			ignore = ignore.Add(at, content)
		case e.Name == "cue.mod" && within(at, w.dir):
			w.module = true
		}
	}
	for _, e := range t.Entries {
		if err := w.entry(e, path.Join(at, e.Name), ignore, depth); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) entry(e object.TreeEntry, name string, ignore Ignore, depth int) error {
	isDir, isModule := e.Mode == filemode.Dir, e.Mode == filemode.Submodule
	inside := w.reach.Holds(name) || !isDir && CUEAbove(name, w.dir)
	leads := (isDir || isModule) && w.reach.LeadsTo(name)
	if !inside && !leads && !w.module || ignore.Match(name, isDir || isModule) {
		return nil
	}
	if m, ok := w.modules[name]; ok && isModule {
		commit, err := object.GetCommit(m.Objects.Store(), m.Commit)
		if err != nil {
			return &ErrIncomplete{Path: name, Hash: m.Commit.String(), Err: err}
		}
		return w.walk(commit.TreeHash, name, ignore, depth+1)
	}
	if isDir {
		return w.walk(e.Hash, name, ignore, depth+1)
	}
	if !inside && !leads && path.Ext(name) != ".cue" {
		return nil
	}
	if len(w.files) >= maxFiles {
		return fmt.Errorf("the repository has more than %d files", maxFiles)
	}
	f := revision.File{Path: name, Hash: e.Hash.String()}
	switch e.Mode {
	case filemode.Submodule:
		f.Kind = revision.Submodule
	case filemode.Symlink:
		f.Kind = revision.Symlink
	default:
		size, err := w.at(name).EncodedObjectSize(e.Hash)
		if err != nil {
			return &ErrIncomplete{Path: name, Hash: e.Hash.String(), Err: err}
		}
		f.Size = size
	}
	w.files = append(w.files, f)
	return nil
}

func (w *walker) blob(hash plumbing.Hash, name string) ([]byte, error) {
	content, err := readBlob(w.at(name), hash, maxIgnore)
	if err != nil {
		return nil, &ErrIncomplete{Path: name, Hash: hash.String(), Err: err}
	}
	return content, nil
}

// CUEAbove reports whether a file is one of CUE in a folder above dir: a package
// in dir includes those of its name.
func CUEAbove(name, dir string) bool {
	folder := path.Dir(name)
	return path.Ext(name) == ".cue" && (folder == "." || within(folder, dir))
}

// within reports whether name is dir or below it; "" is the root.
func within(dir, name string) bool {
	return dir == "" || name == dir || strings.HasPrefix(name, dir+"/")
}

func readBlob(s storer.EncodedObjectStorer, hash plumbing.Hash, limit int64) (content []byte, err error) {
	o, err := s.EncodedObject(plumbing.BlobObject, hash)
	if err != nil {
		return nil, err
	}
	if o.Size() > limit {
		return nil, fmt.Errorf("the file has %d bytes; at most %d are read", o.Size(), limit)
	}
	r, err := o.Reader()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return io.ReadAll(r)
}

// gitTree is a revision.Tree over an object store.
type gitTree struct {
	objects *Objects
	modules Modules
	files   []revision.File
}

var _ revision.Tree = (*gitTree)(nil)

func (t *gitTree) Files(context.Context) ([]revision.File, error) {
	return append([]revision.File(nil), t.files...), nil
}

func (t *gitTree) Read(ctx context.Context, name string, limit int64) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	i := sort.Search(len(t.files), func(i int) bool { return t.files[i].Path >= name })
	if i == len(t.files) || t.files[i].Path != name || t.files[i].Kind != revision.Regular {
		return nil, fmt.Errorf("read %s: no such file in the revision", name)
	}
	if size := t.files[i].Size; size > limit {
		return nil, fmt.Errorf("read %s: the file has %d bytes; at most %d are read", name, size, limit)
	}
	objects := t.objects
	if m, ok := t.modules.enclosing(name); ok {
		objects = m.Objects
	}
	content, err := readBlob(objects.Store(), plumbing.NewHash(t.files[i].Hash), limit)
	if err != nil {
		objects.damaged.Store(true) // its size was known, and is within the limit
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return content, nil
}
