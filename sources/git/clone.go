package git

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/storage/filesystem"

	"berth.dev/berth/api/revision"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/sources/tree"
)

const (
	// maxPacks is how many packs a clone gathers before it is made anew: each
	// fetch adds one, and each lookup asks all of them.
	maxPacks  = 50
	cacheSize = 16 << 20
)

// clone is the bare, shallow repository of one Source. Its trees stay readable
// until it has been made anew twice: the generation before is kept open.
type clone struct {
	mu  sync.Mutex
	dir string
	log *slog.Logger
	url string
	// scope is what of the repository current holds.
	scope scope
	state state
	store *filesystem.Storage
	// former is the generation before, of that number.
	former  *filesystem.Storage
	formerN int
	objects *tree.Objects
	current revision.Revision
	refused refusedSize
	modules modules
	// largeDamaged: a file of LFS could not be read; nil without any.
	largeDamaged *atomic.Bool
	// fresh is true until the first fetch into the store has succeeded.
	fresh bool
}

// state is kept on disk beside the store.
type state struct {
	URL        string   `json:"url"`
	Generation int      `json:"generation"`
	Want       string   `json:"want"`
	Commit     string   `json:"commit"`
	Shallow    []string `json:"shallow"`
	// Whole: the history of all branches and tags was fetched.
	Whole bool `json:"whole,omitempty"`
}

func (c *clone) stateFile() string { return filepath.Join(c.dir, "state.json") }

func (c *clone) generation() string { return filepath.Join(c.dir, strconv.Itoa(c.state.Generation)) }

// load opens what an earlier run left behind.
func (c *clone) load() error {
	if c.store != nil {
		return nil
	}
	content, err := os.ReadFile(c.stateFile())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var s state
	if err := json.Unmarshal(content, &s); err != nil || s.URL != c.url {
		return errors.New("the clone is of another remote")
	}
	c.state = s
	c.open()
	return nil
}

func (c *clone) open() {
	c.store = openStore(c.generation())
	c.objects = tree.NewObjects(c.store)
}

func openStore(dir string) *filesystem.Storage {
	return filesystem.NewStorageWithOptions(osfs.New(dir), cache.NewObjectLRU(cacheSize), filesystem.Options{KeepDescriptors: true, LargeObjectThreshold: 8 << 20})
}

func (c *clone) save() error {
	c.state.URL = c.url
	content, err := json.Marshal(c.state)
	if err != nil {
		return err
	}
	temp := c.stateFile() + ".new"
	if err := os.WriteFile(temp, content, 0o600); err != nil {
		return fmt.Errorf("remember the commit: %w", err)
	}
	return os.Rename(temp, c.stateFile())
}

// renew begins an empty store and drops the one before the present one.
func (c *clone) renew() error {
	if c.store != nil {
		if c.former != nil {
			_ = c.former.Close()
		}
		c.former, c.formerN, c.store = c.store, c.state.Generation, nil
	}
	c.state.Generation++
	c.state.Want, c.state.Shallow, c.state.Whole = "", nil, false
	entries, _ := os.ReadDir(c.dir)
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil && (n != c.formerN || c.former == nil) {
			if err := os.RemoveAll(filepath.Join(c.dir, e.Name())); err != nil {
				return fmt.Errorf("remove an old clone: %w", err)
			}
		}
	}
	if err := os.MkdirAll(c.generation(), 0o700); err != nil {
		return fmt.Errorf("make the clone's folder: %w", err)
	}
	c.open()
	c.fresh = true
	if err := c.store.Init(); err != nil {
		return fmt.Errorf("make the clone: %w", err)
	}
	return nil
}

// discard removes a store that nothing was fetched into.
func (c *clone) discard() {
	if c.store == nil {
		return
	}
	_ = c.store.Close()
	if err := os.RemoveAll(c.generation()); err != nil {
		c.log.Warn("remove half a clone", "err", err)
	}
	c.store, c.objects = nil, nil
}

func (c *clone) close() {
	for _, s := range []*filesystem.Storage{c.store, c.former} {
		if s != nil {
			_ = s.Close()
		}
	}
	c.modules.close()
	c.store, c.former, c.objects, c.current = nil, nil, nil, revision.Revision{}
	c.state.Want = ""
}

func (c *clone) packs() int {
	packs, err := c.store.ObjectPacks()
	if err != nil {
		return maxPacks
	}
	return len(packs)
}

// rewrittenTo reports whether the last commit is known not to lead to want.
func (c *clone) rewrittenTo(want plumbing.Hash) bool {
	last := plumbing.NewHash(c.state.Commit)
	if c.store == nil || last.IsZero() || c.objects.Store().HasEncodedObject(want) != nil {
		return false
	}
	commit, err := tree.Peel(c.objects.Store(), want)
	return err == nil && !tree.Ancestor(c.objects.Store(), last, commit)
}

// gitFolder is the repository in a folder, which may be a working tree.
func gitFolder(dir string) string {
	if _, err := os.Stat(filepath.Join(dir, ".git")); err == nil {
		return filepath.Join(dir, ".git")
	}
	return dir
}

// direct reads a repository of this machine where it is.
func (c *clone) direct(ctx context.Context, f *Fetcher, dir string, src *v1alpha1.Source) (revision.Revision, error) {
	dir = gitFolder(dir)
	if _, err := os.Stat(filepath.Join(dir, "HEAD")); err != nil {
		return revision.Revision{}, &ErrUnreachable{Err: errors.New("there is no Git repository")}
	}
	store := openStore(dir)
	iter, err := store.IterReferences()
	if err != nil {
		return revision.Revision{}, &ErrUnreachable{Err: err}
	}
	a := &advert{hashes: map[string]plumbing.Hash{}}
	err = iter.ForEach(func(r *plumbing.Reference) error {
		if r.Type() == plumbing.HashReference {
			a.hashes[r.Name().String()] = r.Hash()
		}
		return nil
	})
	if err != nil {
		return revision.Revision{}, &ErrUnreachable{Err: err}
	}
	if len(a.hashes) == 0 {
		return revision.Revision{}, ErrEmptyRepository
	}
	want, err := resolve(a, src.Spec.Ref)
	if err != nil {
		return revision.Revision{}, err
	}
	if c.url == src.Spec.URL && c.known(src, want) {
		rev := c.current
		rev.Ref, rev.Rewritten = want.ref, false
		_ = store.Close()
		return rev, nil
	}
	rev, err := c.revision(ctx, f.visitor(src, &url{file: dir}), tree.NewObjects(store), want.Hash)
	if err != nil {
		return revision.Revision{}, err
	}
	commit := plumbing.NewHash(rev.Commit)
	rev.Ref = want.ref
	if last := plumbing.NewHash(c.state.Commit); c.url == src.Spec.URL && !last.IsZero() && last != commit {
		rev.Rewritten = !tree.Ancestor(store, last, commit)
	}
	if c.former != nil {
		_ = c.former.Close()
	}
	c.former, c.store, c.objects = c.store, store, nil
	c.url, c.scope, c.current = src.Spec.URL, scopeOf(src), rev
	c.state.Want, c.state.Commit = want.Hash.String(), rev.Commit
	return rev, nil
}
