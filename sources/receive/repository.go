package receive

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/storer"
	"github.com/go-git/go-git/v5/storage/filesystem"

	"berth.dev/berth/sources/tree"
)

// repository is one bare repository. Refs are loose files that this program
// alone writes; whatever a ref leads to is complete.
type repository struct {
	name string
	dir  string
	// push lets one push in at a time.
	push    sync.Mutex
	objects *tree.Objects
	store   *filesystem.Storage
}

func openStore(dir string) *filesystem.Storage {
	return filesystem.NewStorageWithOptions(osfs.New(dir), cache.NewObjectLRU(16<<20), filesystem.Options{KeepDescriptors: true})
}

func openRepository(name, dir string) (*repository, error) {
	left, err := filepath.Glob(filepath.Join(dir, "incoming-*"))
	if err != nil {
		return nil, err
	}
	for _, d := range left { // a push that was cut off
		if err := os.RemoveAll(d); err != nil {
			return nil, err
		}
	}
	if err := removeHalves(filepath.Join(dir, "objects/pack")); err != nil {
		return nil, err
	}
	store := openStore(dir)
	return &repository{name: name, dir: dir, store: store, objects: tree.NewObjects(store)}, nil
}

// removeHalves removes packs without an index, and indices without a pack: what
// a process leaves that was killed while it stored a push, which nobody was told
// of, or while it removed what is in another pack. go-git finds nothing at all in
// a repository that has one.
func removeHalves(dir string) error {
	for ext, other := range map[string]string{".pack": ".idx", ".idx": ".pack"} {
		names, err := filepath.Glob(filepath.Join(dir, "pack-*"+ext))
		if err != nil {
			return err
		}
		for _, name := range names {
			_, err := os.Stat(strings.TrimSuffix(name, ext) + other)
			if errors.Is(err, fs.ErrNotExist) {
				err = os.Remove(name)
			}
			if err != nil {
				return fmt.Errorf("mend the repository: %w", err)
			}
		}
	}
	return nil
}

// initialise makes an empty bare repository.
func initialise(dir string) error {
	for _, d := range []string{"objects/pack", "objects/info", "refs/heads", "refs/tags"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return fmt.Errorf("make the repository: %w", err)
		}
	}
	config := "[core]\n\trepositoryformatversion = 0\n\tbare = true\n"
	if err := writeFile(filepath.Join(dir, "config"), config); err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, "HEAD"), "ref: refs/heads/main\n")
}

// writeFile replaces a file so that it survives a loss of power, whole.
func writeFile(name, content string) error {
	temp := name + ".lock"
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(temp, name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return syncPath(filepath.Dir(name))
}

func syncPath(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// reader is the store behind its lock.
func (r *repository) reader() storer.EncodedObjectStorer { return r.objects.Store() }

// refs reads all refs by their full names.
func (r *repository) refs() (map[string]plumbing.Hash, error) {
	out := map[string]plumbing.Hash{}
	if r.dir == "" {
		return out, nil
	}
	root := filepath.Join(r.dir, "refs")
	err := filepath.WalkDir(root, func(name string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || e.IsDir() || strings.HasSuffix(name, ".lock") {
			return err
		}
		content, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(r.dir, name)
		if err != nil {
			return err
		}
		if text := strings.TrimSpace(string(content)); plumbing.IsHash(text) {
			out[filepath.ToSlash(rel)] = plumbing.NewHash(text)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the refs: %w", err)
	}
	return out, nil
}

// setRef writes or, for a zero hash, removes a ref, durably.
func (r *repository) setRef(name string, hash plumbing.Hash) error {
	file := filepath.Join(r.dir, filepath.FromSlash(name))
	if hash.IsZero() {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return syncPath(filepath.Dir(file))
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("a ref with the name of its folder exists already")
	}
	return writeFile(file, hash.String()+"\n")
}

func sortedRefs(refs map[string]plumbing.Hash) []string {
	names := make([]string, 0, len(refs))
	for name := range refs {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// layered looks into the objects of a push first, then into the repository.
type layered struct {
	storer.EncodedObjectStorer
	upper, lower storer.EncodedObjectStorer
}

func (l *layered) EncodedObject(t plumbing.ObjectType, h plumbing.Hash) (plumbing.EncodedObject, error) {
	if o, err := l.upper.EncodedObject(t, h); err == nil {
		return o, nil
	}
	return l.lower.EncodedObject(t, h)
}

func (l *layered) HasEncodedObject(h plumbing.Hash) error {
	if l.upper.HasEncodedObject(h) == nil {
		return nil
	}
	return l.lower.HasEncodedObject(h)
}

func (l *layered) EncodedObjectSize(h plumbing.Hash) (int64, error) {
	if n, err := l.upper.EncodedObjectSize(h); err == nil {
		return n, nil
	}
	return l.lower.EncodedObjectSize(h)
}
