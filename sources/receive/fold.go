package receive

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/idxfile"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/storer"
)

const (
	// maxPacks is how many packs gather before the small ones are made one.
	maxPacks = 50
	// smallPack is the number of objects below which a pack is folded.
	smallPack = 10_000
)

// reindex makes the store look for packs again.
func (r *repository) reindex() {
	_ = r.objects.Do(func(storer.EncodedObjectStorer) error {
		r.store.Reindex()
		return nil
	})
}

// fold joins the small packs into one. The packs before stay open in the store,
// so that trees in use remain readable, until the program ends.
func (r *repository) fold() error {
	dir := filepath.Join(r.dir, "objects/pack")
	names, err := filepath.Glob(filepath.Join(dir, "pack-*.idx"))
	if err != nil || len(names) <= maxPacks {
		return err
	}
	var hashes []plumbing.Hash
	var folded []string
	seen := map[plumbing.Hash]bool{}
	for _, name := range names {
		found, err := indexed(name)
		if err != nil {
			return fmt.Errorf("read %s: %w", filepath.Base(name), err)
		}
		if len(found) > smallPack {
			continue
		}
		folded = append(folded, name)
		for _, h := range found {
			if !seen[h] {
				seen[h] = true
				hashes = append(hashes, h)
			}
		}
	}
	temp, err := os.MkdirTemp(r.dir, "incoming-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(temp) }()
	if err := os.MkdirAll(filepath.Join(temp, "objects/pack"), 0o700); err != nil {
		return err
	}
	if err := r.pack(temp, hashes); err != nil {
		return err
	}
	if err := r.adopt(temp); err != nil {
		return err
	}
	made, err := filepath.Glob(filepath.Join(temp, "objects/pack/pack-*.idx"))
	if err != nil || len(made) == 0 {
		return errors.Join(err, errors.New("no pack was made"))
	}
	for _, name := range folded {
		if filepath.Base(name) == filepath.Base(made[0]) {
			continue
		}
		pack := name[:len(name)-len(".idx")] + ".pack"
		// The pack first: who looks in between must not find one without an index.
		if err := errors.Join(os.Remove(pack), os.Remove(name)); err != nil {
			return err
		}
	}
	r.reindex()
	return syncPath(dir)
}

func (r *repository) pack(dir string, hashes []plumbing.Hash) error {
	store := openStore(dir)
	defer func() { _ = store.Close() }()
	w, err := store.PackfileWriter()
	if err != nil {
		return err
	}
	_, err = packfile.NewEncoder(w, r.reader(), false).Encode(hashes, 10)
	return errors.Join(err, w.Close())
}

// indexed lists the objects of a pack.
func indexed(name string) (_ []plumbing.Hash, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	idx := idxfile.NewMemoryIndex()
	if err := idxfile.NewDecoder(f).Decode(idx); err != nil {
		return nil, err
	}
	entries, err := idx.Entries()
	if err != nil {
		return nil, err
	}
	var out []plumbing.Hash
	for {
		e, err := entries.Next()
		if err != nil {
			return out, nil
		}
		out = append(out, e.Hash)
	}
}
