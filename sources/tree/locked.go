package tree

import (
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/storer"
)

// Store is the store with every call behind the lock. It only reads objects by
// their hash.
func (o *Objects) Store() storer.EncodedObjectStorer { return &locked{objects: o} }

// locked is an object store whose every call takes the lock.
type locked struct {
	storer.EncodedObjectStorer
	objects *Objects
}

func (l *locked) EncodedObject(t plumbing.ObjectType, h plumbing.Hash) (o plumbing.EncodedObject, err error) {
	err = l.objects.Do(func(s storer.EncodedObjectStorer) error {
		o, err = s.EncodedObject(t, h)
		return err
	})
	return o, err
}

func (l *locked) HasEncodedObject(h plumbing.Hash) error {
	return l.objects.Do(func(s storer.EncodedObjectStorer) error { return s.HasEncodedObject(h) })
}

func (l *locked) EncodedObjectSize(h plumbing.Hash) (n int64, err error) {
	err = l.objects.Do(func(s storer.EncodedObjectStorer) error {
		n, err = s.EncodedObjectSize(h)
		return err
	})
	return n, err
}
