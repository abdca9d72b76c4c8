package worktree

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/storer"
	"github.com/go-git/go-git/v5/storage/filesystem"

	"berth.dev/berth/sources/tree"
)

// shortest beginning of an ID that names a commit.
const shortest = 4

// resolve finds a commit by its name (gitrevisions): an ID or the beginning of
// one, a ref, and from there parents with ~ and ^.
func resolve(store *filesystem.Storage, name string) (plumbing.Hash, error) {
	base, steps := name, ""
	if i := strings.IndexAny(name, "~^"); i >= 0 {
		base, steps = name[:i], name[i:]
	}
	hash, err := named(store, base)
	if err != nil {
		return hash, err
	}
	if hash, err = tree.Peel(store, hash); err != nil {
		return hash, err
	}
	commit, err := object.GetCommit(store, hash)
	if err != nil {
		return hash, fmt.Errorf("%s is no commit", base)
	}
	for steps != "" {
		mark, rest := steps[0], steps[1:]
		end := 0
		for end < len(rest) && rest[end] >= '0' && rest[end] <= '9' {
			end++
		}
		n := 1
		if end > 0 {
			if n, err = strconv.Atoi(rest[:end]); err != nil {
				return hash, err
			}
		}
		if steps = rest[end:]; steps != "" && !strings.ContainsRune("~^", rune(steps[0])) {
			return hash, fmt.Errorf("%q is not understood", steps)
		}
		if commit, err = ancestor(store, commit, mark, n); err != nil {
			return hash, err
		}
	}
	return commit.Hash, nil
}

// ancestor goes n times to the first parent (~), or to the nth (^).
func ancestor(store storer.EncodedObjectStorer, c *object.Commit, mark byte, n int) (*object.Commit, error) {
	times, parent := n, 0
	if mark == '^' {
		times, parent = min(n, 1), n-1
	}
	for range times {
		if parent >= len(c.ParentHashes) {
			return nil, fmt.Errorf("%s has %d parents", c.Hash.String()[:10], len(c.ParentHashes))
		}
		var err error
		if c, err = object.GetCommit(store, c.ParentHashes[parent]); err != nil {
			return nil, fmt.Errorf("its parent is not here: %w", err)
		}
	}
	return c, nil
}

// named finds an ID or a ref, in git's order.
func named(store *filesystem.Storage, name string) (plumbing.Hash, error) {
	if name == "@" {
		name = "HEAD"
	}
	if plumbing.IsHash(name) {
		return plumbing.NewHash(name), nil
	}
	for _, format := range plumbing.RefRevParseRules {
		if name == "" {
			break
		}
		ref, err := storer.ResolveReference(store, plumbing.ReferenceName(fmt.Sprintf(format, name)))
		if err == nil {
			return ref.Hash(), nil
		}
	}
	if len(name) < shortest || strings.Trim(name, "0123456789abcdef") != "" {
		return plumbing.ZeroHash, errors.New("no branch, tag or ID is called that")
	}
	prefix, err := hex.DecodeString(name[:len(name)/2*2])
	if err != nil {
		return plumbing.ZeroHash, err
	}
	hashes, err := store.HashesWithPrefix(prefix)
	if err != nil {
		return plumbing.ZeroHash, err
	}
	var found []plumbing.Hash
	for _, h := range hashes {
		if _, err := object.GetCommit(store, h); err == nil && strings.HasPrefix(h.String(), name) {
			found = append(found, h)
		}
	}
	switch len(found) {
	case 0:
		return plumbing.ZeroHash, errors.New("no ID begins so")
	case 1:
		return found[0], nil
	}
	return plumbing.ZeroHash, fmt.Errorf("the IDs of %d commits begin so", len(found))
}
