package git

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync/atomic"

	"berth.dev/berth/api/revision"
	"berth.dev/berth/sources/tree"
)

const (
	// maxPointer is the size of the largest pointer, in bytes, by the
	// specification of Git LFS.
	maxPointer = 1024
	// maxLarge is how many files of a revision may be in LFS.
	maxLarge = 10_000
)

// pointer stands in a repository for a file that is kept in LFS.
type pointer struct {
	oid  string // SHA-256, in hexadecimal digits
	size int64
}

var pointerText = regexp.MustCompile(`\Aversion https://git-lfs\.github\.com/spec/v1\n(?:[a-z0-9.-]+ .*\n)*?oid sha256:([0-9a-f]{64})\nsize ([0-9]{1,18})\n`)

func parsePointer(content []byte) (pointer, bool) {
	m := pointerText.FindSubmatch(content)
	if m == nil {
		return pointer{}, false
	}
	size, err := strconv.ParseInt(string(m[2]), 10, 64)
	return pointer{string(m[1]), size}, err == nil
}

// largeFiles is a revision.Tree with the content of LFS in the place of pointers.
type largeFiles struct {
	revision.Tree
	dir      string
	pointers map[string]pointer // by path
	damaged  *atomic.Bool
}

var _ revision.Tree = (*largeFiles)(nil)

// Files implements revision.Tree.
func (l *largeFiles) Files(ctx context.Context) ([]revision.File, error) {
	files, err := l.Tree.Files(ctx)
	for i := range files {
		if p, ok := l.pointers[files[i].Path]; ok {
			files[i].Hash, files[i].Size = "sha256:"+p.oid, p.size
		}
	}
	return files, err
}

// Read implements revision.Tree.
func (l *largeFiles) Read(ctx context.Context, name string, limit int64) ([]byte, error) {
	p, ok := l.pointers[name]
	if !ok {
		return l.Tree.Read(ctx, name, limit)
	}
	if p.size > limit {
		return nil, fmt.Errorf("read %s: the file has %d bytes; at most %d are read", name, p.size, limit)
	}
	content, err := os.ReadFile(filepath.Join(l.dir, p.oid))
	if sum := sha256.Sum256(content); err == nil && hex.EncodeToString(sum[:]) != p.oid {
		err = errors.Join(errors.New("it is damaged on the disk"), os.Remove(filepath.Join(l.dir, p.oid)))
	}
	if err != nil {
		l.damaged.Store(true)
		return nil, fmt.Errorf("read %s, which is in Git LFS: %w", name, err)
	}
	return content, nil
}

func (c *clone) largeDir() string { return filepath.Join(c.dir, "lfs") }

// large fetches what is kept in LFS of a revision. urls are those of the
// repository and of its submodules, by their paths.
func (c *clone) large(ctx context.Context, v *visit, rev revision.Revision, modules tree.Modules, urls map[string]string) (revision.Revision, error) {
	out := &largeFiles{Tree: rev.Tree, dir: c.largeDir(), pointers: map[string]pointer{}, damaged: &atomic.Bool{}}
	files, err := rev.Tree.Files(ctx)
	if err != nil {
		return rev, err
	}
	wanted := map[string]map[string]int64{} // sizes by URL and oid
	for _, f := range files {
		if f.Kind != revision.Regular || f.Size >= maxPointer || f.Size < sha256.Size {
			continue
		}
		content, err := rev.Tree.Read(ctx, f.Path, maxPointer)
		if err != nil {
			return rev, err
		}
		p, ok := parsePointer(content)
		if !ok {
			continue
		}
		if len(out.pointers) >= maxLarge {
			return rev, fmt.Errorf("more than %d files are in Git LFS; deploy a smaller folder", maxLarge)
		}
		at, _, _ := modules.Enclosing(f.Path)
		if wanted[urls[at]] == nil {
			wanted[urls[at]] = map[string]int64{}
		}
		out.pointers[f.Path], wanted[urls[at]][p.oid] = p, p.size
	}
	if err := c.fetchLarge(ctx, v, wanted); err != nil {
		return rev, err
	}
	c.largeDamaged, rev.Tree = out.damaged, out
	return rev, nil
}

// fetchLarge brings the folder of large files to what is wanted.
func (c *clone) fetchLarge(ctx context.Context, v *visit, wanted map[string]map[string]int64) error {
	keep := map[string]bool{}
	for _, sizes := range wanted {
		for oid := range sizes {
			keep[oid] = true
		}
	}
	if err := c.forgetLarge(keep); err != nil {
		return err
	}
	taken := c.taken()
	for _, url := range slices.Sorted(maps.Keys(wanted)) {
		sizes := wanted[url]
		missing := map[string]int64{}
		for oid, size := range sizes {
			if info, err := os.Stat(filepath.Join(c.largeDir(), oid)); err != nil || info.Size() != size {
				missing[oid] = size
				if taken += size; taken > v.limit || taken < 0 {
					return overSize(v.limit, max(taken, v.limit))
				}
			}
		}
		if len(missing) == 0 {
			continue
		}
		if err := os.MkdirAll(c.largeDir(), 0o700); err != nil {
			return err
		}
		if err := c.downloadLarge(ctx, v, url, missing); err != nil {
			return fmt.Errorf("fetch from Git LFS of %s: %w", display(url), err)
		}
	}
	return nil
}

// forgetLarge removes the files that nothing points at any more.
func (c *clone) forgetLarge(keep map[string]bool) error {
	entries, err := os.ReadDir(c.largeDir())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if !keep[e.Name()] {
			err = errors.Join(err, os.Remove(filepath.Join(c.largeDir(), e.Name())))
		}
	}
	return err
}

// storeLarge writes what is read to the file of an object, if it is that object.
func (c *clone) storeLarge(r io.Reader, oid string, size int64) (err error) {
	temp, err := os.CreateTemp(c.largeDir(), "incoming-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(temp.Name()))
		}
	}()
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(temp, sum), io.LimitReader(r, size+1))
	if err := errors.Join(err, temp.Close()); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); n != size || got != oid {
		return fmt.Errorf("object %.10s: the server sends another content (%d bytes, SHA-256 %.10s) than the pointer says (%d bytes)", oid, n, got, size)
	}
	return os.Rename(temp.Name(), filepath.Join(c.largeDir(), oid))
}
