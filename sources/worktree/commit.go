package worktree

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-git/go-billy/v5"
	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/storage/filesystem"
	"github.com/go-git/go-git/v5/storage/filesystem/dotgit"

	"berth.dev/berth/api/revision"
	"berth.dev/berth/sources/tree"
)

// objectCache is how much of the objects of a repository is kept, in bytes.
const objectCache = 16 << 20

// At reads the folder dir as it is in a commit of the repository that dir lies
// in. The commit is named as git does: by its ID or the beginning of one, a
// branch, a tag, or HEAD~1. The second result is as Open's. What Git LFS and
// submodules hold is not in the commit, and is not read.
func At(ctx context.Context, dir, commit string) (rev revision.Revision, below string, err error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return rev, "", fmt.Errorf("open %s: %w", dir, err)
	}
	top := topLevel(abs)
	if rel, err := filepath.Rel(top, abs); err == nil && rel != "." {
		below = filepath.ToSlash(rel)
	}
	store, err := repository(top)
	if errors.Is(err, os.ErrNotExist) {
		return rev, "", fmt.Errorf("look for commit %s: %s lies in no Git repository; name a folder that does", commit, dir)
	}
	if err != nil {
		return rev, "", fmt.Errorf("open the repository of %s: %w", dir, err)
	}
	defer func() {
		if err != nil {
			_ = store.Close() // only read
		}
	}()
	hash, err := resolve(store, commit)
	if err != nil {
		return rev, "", fmt.Errorf("the repository of %s has no commit %q (%w); git log --oneline lists those that it has, git fetch brings those of its remotes", dir, commit, err)
	}
	if rev, err = tree.Revision(ctx, tree.NewObjects(store), hash, below); err != nil {
		return rev, "", fmt.Errorf("read commit %s: %w", commit, err)
	}
	return rev, below, nil
}

// repository opens the store of a working tree, also of one that git worktree
// made, whose .git is a file.
func repository(top string) (*filesystem.Storage, error) {
	own := filepath.Join(top, ".git")
	info, err := os.Stat(own)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		if own, err = pointer(own, "gitdir:"); err != nil {
			return nil, err
		}
	}
	fs := osfs.New(own)
	shared, err := pointer(filepath.Join(own, "commondir"), "")
	switch {
	case err == nil:
		return storage(dotgit.NewRepositoryFilesystem(fs, osfs.New(shared))), nil
	case errors.Is(err, os.ErrNotExist):
		return storage(fs), nil
	}
	return nil, err
}

// pointer reads the path that a file of git holds behind a word.
func pointer(file, word string) (string, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	path := strings.TrimSpace(strings.TrimPrefix(string(content), word))
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(file), path)
	}
	return path, nil
}

func storage(fs billy.Filesystem) *filesystem.Storage {
	return filesystem.NewStorageWithOptions(fs, cache.NewObjectLRU(objectCache), filesystem.Options{AlternatesFS: osfs.New("/")})
}
