package tree

import (
	"errors"
	"path"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
)

// Module is the commit of a submodule.
type Module struct {
	Objects *Objects
	Commit  plumbing.Hash
}

// Modules are submodules by their paths, those within others too.
type Modules map[string]Module

// enclosing is the innermost module that a path is in, or is.
func (m Modules) enclosing(name string) (Module, bool) {
	_, found, ok := m.Enclosing(name)
	return found, ok
}

// Enclosing is the path of the innermost module that a path is in, or is, and
// that module.
func (m Modules) Enclosing(name string) (string, Module, bool) {
	for at := name; len(m) > 0 && at != "." && at != ""; at = path.Dir(at) {
		if found, ok := m[at]; ok {
			return at, found, true
		}
	}
	return "", Module{}, false
}

// ReadFile returns a file of a commit, of at most limit bytes; nil if there is none.
func ReadFile(o *Objects, commit plumbing.Hash, name string, limit int64) ([]byte, error) {
	s := o.Store()
	hash, err := Peel(s, commit)
	if err != nil {
		return nil, err
	}
	c, err := object.GetCommit(s, hash)
	if err != nil {
		return nil, &ErrIncomplete{Hash: hash.String(), Err: err}
	}
	t, err := object.GetTree(s, c.TreeHash)
	if err != nil {
		return nil, &ErrIncomplete{Hash: c.TreeHash.String(), Err: err}
	}
	entry, err := t.FindEntry(name)
	if errors.Is(err, object.ErrEntryNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return readBlob(s, entry.Hash, limit)
}
