// Package worktree reads a working directory as a revision without a commit, and
// the commits of the repository that it lies in, for berth validate and berth
// plan. It reads files and never writes.
package worktree

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"

	"berth.dev/berth/api/revision"
	"berth.dev/berth/sources/tree"
)

// maxFiles bounds what is listed.
const maxFiles = 200_000

// Open lists the folder dir. Paths are relative to the top of the repository
// that dir lies in, or to dir if it lies in none; the second result is dir in
// those terms, "" for the top.
func Open(ctx context.Context, dir string) (revision.Revision, string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return revision.Revision{}, "", fmt.Errorf("open %s: %w", dir, err)
	}
	if info, err := os.Stat(abs); err != nil {
		return revision.Revision{}, "", fmt.Errorf("open %s: %w", dir, err)
	} else if !info.IsDir() {
		return revision.Revision{}, "", fmt.Errorf("open %s: it is a file; name the folder", dir)
	}
	top := topLevel(abs)
	below := ""
	if rel, err := filepath.Rel(top, abs); err == nil && rel != "." {
		below = filepath.ToSlash(rel)
	}
	w := &worktree{top: top, dir: below, reach: tree.NewReach(below)}
	if err := w.reach.Steps(func() (bool, error) { return w.all(ctx) }); err != nil {
		return revision.Revision{}, "", fmt.Errorf("read %s: %w", dir, err)
	}
	sort.Slice(w.files, func(i, j int) bool { return w.files[i].Path < w.files[j].Path })
	return revision.Revision{Subject: "working tree", Tree: w}, below, nil
}

// topLevel is the nearest folder above dir that holds .git; else dir.
func topLevel(dir string) string {
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Lstat(filepath.Join(d, ".git")); err == nil {
			return d
		}
		if d == filepath.Dir(d) {
			return dir
		}
	}
}

// maxKustomization is the size of the largest kustomization that is looked into
// for what it names outside, in bytes.
const maxKustomization = 1 << 20

type worktree struct {
	top    string
	dir    string
	reach  *tree.Reach
	module bool
	files  []revision.File
}

var _ revision.Tree = (*worktree)(nil)

func within(dir, name string) bool {
	return dir == "" || name == dir || strings.HasPrefix(name, dir+"/")
}

// all lists the tree; true if a kustomization reaches further than was known.
func (w *worktree) all(ctx context.Context) (grown bool, err error) {
	w.files = nil
	if err := w.list(ctx, "", nil); err != nil || w.dir == "" {
		return false, err
	}
	for _, f := range w.files {
		if f.Kind != revision.Regular || f.Size > maxKustomization || !tree.Kustomization(f.Path) {
			continue
		}
		content, err := os.ReadFile(filepath.Join(w.top, filepath.FromSlash(f.Path)))
		if err != nil {
			return false, err
		}
		grown = w.reach.Learn(f.Path, content) || grown
	}
	return grown, nil
}

func (w *worktree) list(ctx context.Context, at string, ignore tree.Ignore) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	entries, err := os.ReadDir(filepath.Join(w.top, filepath.FromSlash(at)))
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch {
		case e.Name() == tree.IgnoreFile && e.Type().IsRegular():
			content, err := os.ReadFile(filepath.Join(w.top, filepath.FromSlash(at), e.Name()))
			if err != nil {
				return err
			}
			ignore = ignore.Add(at, content)
		case e.Name() == "cue.mod" && within(at, w.dir):
			w.module = true
		}
	}
	for _, e := range entries {
		if err := w.entry(ctx, e, path.Join(at, e.Name()), ignore); err != nil {
			return err
		}
	}
	return nil
}

func (w *worktree) entry(ctx context.Context, e fs.DirEntry, name string, ignore tree.Ignore) error {
	inside := w.reach.Holds(name) || !e.IsDir() && tree.CUEAbove(name, w.dir)
	if e.Name() == ".git" || ignore.Match(name, e.IsDir()) || !inside && !(e.IsDir() && w.reach.LeadsTo(name)) && !w.module {
		return nil
	}
	if e.IsDir() {
		return w.list(ctx, name, ignore)
	}
	if !inside && path.Ext(name) != ".cue" {
		return nil
	}
	if len(w.files) >= maxFiles {
		return fmt.Errorf("more than %d files", maxFiles)
	}
	f := revision.File{Path: name}
	switch {
	case e.Type()&fs.ModeSymlink != 0:
		f.Kind = revision.Symlink
	case !e.Type().IsRegular():
		return nil
	default:
		info, err := e.Info()
		if err != nil {
			return err
		}
		f.Size = info.Size()
		// Files change under a working tree: only a look at the content tells.
		if f.Hash, err = hash(filepath.Join(w.top, filepath.FromSlash(name)), info); err != nil {
			return err
		}
	}
	w.files = append(w.files, f)
	return nil
}

// hash names the content of a file that may be read, and only the size and time
// of larger ones, which never are.
func hash(name string, info fs.FileInfo) (_ string, err error) {
	h := sha256.New()
	if info.Size() > 8<<20 {
		fmt.Fprintf(h, "%d %d", info.Size(), info.ModTime().UnixNano())
		return hex.EncodeToString(h.Sum(nil)), nil
	}
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func (w *worktree) Files(context.Context) ([]revision.File, error) {
	return append([]revision.File(nil), w.files...), nil
}

func (w *worktree) Read(_ context.Context, name string, limit int64) ([]byte, error) {
	i := sort.Search(len(w.files), func(i int) bool { return w.files[i].Path >= name })
	if i == len(w.files) || w.files[i].Path != name || w.files[i].Kind != revision.Regular {
		return nil, fmt.Errorf("read %s: no such file", name)
	}
	f, err := os.Open(filepath.Join(w.top, filepath.FromSlash(name)))
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	content, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(content)) > limit {
		err = fmt.Errorf("read %s: the file has more than %d bytes", name, limit)
	}
	return content, err
}
