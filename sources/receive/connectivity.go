package receive

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/storer"
)

// complete proves that every object of a push is well formed and that all it
// leads to is in the push or in the repository. So whatever the repository holds
// is complete, whether a ref leads to it or not.
func complete(ctx context.Context, upper, lower storer.EncodedObjectStorer) error {
	iter, err := upper.IterEncodedObjects(plumbing.AnyObject)
	if err != nil {
		return err
	}
	defer iter.Close()
	return iter.ForEach(func(o plumbing.EncodedObject) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		next, err := leadsTo(upper, o)
		if err != nil {
			return fmt.Errorf("object %s is malformed: %w", o.Hash(), err)
		}
		for _, h := range next {
			if upper.HasEncodedObject(h) != nil && lower.HasEncodedObject(h) != nil {
				return fmt.Errorf("object %s is missing from the push", h)
			}
		}
		return nil
	})
}

// leadsTo lists the objects that an object names.
func leadsTo(s storer.EncodedObjectStorer, o plumbing.EncodedObject) ([]plumbing.Hash, error) {
	switch o.Type() {
	case plumbing.CommitObject:
		commit, err := object.DecodeCommit(s, o)
		if err != nil {
			return nil, err
		}
		return append([]plumbing.Hash{commit.TreeHash}, commit.ParentHashes...), nil
	case plumbing.TagObject:
		tag, err := object.DecodeTag(s, o)
		if err != nil {
			return nil, err
		}
		return []plumbing.Hash{tag.Target}, nil
	case plumbing.TreeObject:
		t, err := object.DecodeTree(s, o)
		if err != nil {
			return nil, err
		}
		return entries(t)
	case plumbing.BlobObject:
		return nil, nil
	}
	return nil, errors.New("its type is unknown")
}

func entries(t *object.Tree) ([]plumbing.Hash, error) {
	out := make([]plumbing.Hash, 0, len(t.Entries))
	names := make(map[string]bool, len(t.Entries))
	for _, e := range t.Entries {
		if e.Name == "" || e.Name == "." || e.Name == ".." || strings.EqualFold(e.Name, ".git") || strings.ContainsAny(e.Name, "/\x00") || names[e.Name] {
			return nil, fmt.Errorf("a tree has the entry %q, which is not allowed or there twice", e.Name)
		}
		names[e.Name] = true
		switch e.Mode {
		case filemode.Submodule:
		case filemode.Dir, filemode.Regular, filemode.Executable, filemode.Symlink, filemode.Deprecated:
			out = append(out, e.Hash)
		default:
			return nil, fmt.Errorf("the entry %q has the mode %s", e.Name, e.Mode)
		}
	}
	return out, nil
}

func typeOf(s storer.EncodedObjectStorer, h plumbing.Hash) (plumbing.ObjectType, error) {
	o, err := s.EncodedObject(plumbing.AnyObject, h)
	if err != nil {
		return plumbing.InvalidObject, err
	}
	return o.Type(), nil
}
