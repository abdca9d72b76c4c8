// Package shared keeps the files that all servers of a cluster must have alike,
// such as its authority and its tokens, in the store and in the data directory of
// each server. It owns the keys below Prefix and the file that notes what was last
// alike. It does not know what the files hold, and keeps them nowhere in plain
// text but where they were: the store it is given seals what is below Prefix.
package shared

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"berth.dev/berth/engine/store"
)

// Prefix of the keys. What is below it may only be stored encrypted.
const Prefix = "/berth/shared/"

// notes is the file that says what was last alike.
const notes = "shared.json"

// lookEvery is the time between two looks for a file that was changed by hand.
const lookEvery = 2 * time.Second

// File is one of the files.
type File struct {
	Name string
	Mode fs.FileMode
	// Changes: the file may be changed at any server, and removed. The others
	// stay as the first server made them.
	Changes bool
}

// Options are what Files are made of. All but Changed must be set.
type Options struct {
	Store store.Store
	Dir   string
	Files []File
	Log   *slog.Logger
	// Changed is told that a file was exchanged for what another server wrote.
	Changed func(name string)
}

// Files keeps the files alike.
type Files struct {
	Options
	// alike is the sum of each file that changes, as it was when last alike.
	alike map[string]string
}

// Join makes the files of the data directory those of the cluster. The first
// server of all makes them, with first, and writes them to the store in one
// transaction; the others take them from there.
func Join(ctx context.Context, o Options, first func() error) (*Files, error) {
	f := &Files{Options: o, alike: map[string]string{}}
	if err := f.readNotes(); err != nil {
		return nil, err
	}
	stored, err := f.stored(ctx)
	if err != nil {
		return nil, err
	}
	if len(stored) == 0 {
		if stored, err = f.found(ctx, first); err != nil {
			return nil, err
		}
	}
	return f, f.settle(ctx, stored, true)
}

// found makes the files and stores them, unless another server does so first.
func (f *Files) found(ctx context.Context, first func() error) (map[string]store.KV, error) {
	before, err := f.local()
	if err != nil {
		return nil, err
	}
	if err := first(); err != nil {
		return nil, err
	}
	now, err := f.local()
	if err != nil {
		return nil, err
	}
	var ops []store.Op
	for name, content := range now {
		ops = append(ops, store.Op{Key: Prefix + name, Value: content, Expect: store.Absent})
	}
	_, err = f.Store.Txn(ctx, ops)
	var conflict *store.ConflictError
	if errors.As(err, &conflict) {
		for name := range now { // nobody knows yet what was made a moment ago
			if _, old := before[name]; !old {
				err = errors.Join(err, os.Remove(f.path(name)))
			}
		}
	} else if err != nil {
		return nil, fmt.Errorf("store what the servers share: %w", err)
	}
	return f.stored(ctx)
}

// Run keeps the files alike until the context ends.
func (f *Files) Run(ctx context.Context) error {
	changed := make(chan struct{}, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.watch(ctx, changed)
	}()
	defer func() { <-done }()
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case <-changed:
		}
		// Of any age: a change that is seen late is settled late.
		stored, err := f.stored(store.AnyAge(ctx))
		if err == nil {
			err = f.settle(ctx, stored, false)
		}
		if err != nil && ctx.Err() == nil {
			f.Log.Warn("keep what the servers share alike; it is tried again", "err", err)
		}
	}
}

// watch says when something in the store has changed.
func (f *Files) watch(ctx context.Context, changed chan<- struct{}) {
	for ctx.Err() == nil {
		w, err := f.Store.Watch(ctx, Prefix, f.Store.Revision())
		for err == nil {
			if _, _, err = w.Next(ctx); err == nil {
				select {
				case changed <- struct{}{}:
				default:
				}
			}
		}
		if errors.Is(err, store.ErrClosed) {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(lookEvery):
		}
	}
}

// settle makes each file and its pair in the store the same.
func (f *Files) settle(ctx context.Context, stored map[string]store.KV, joining bool) error {
	local, err := f.local()
	if err != nil {
		return err
	}
	for _, file := range f.Files {
		here, isHere := local[file.Name]
		kv, isStored := stored[file.Name]
		s := state{file, content(here, isHere), kv, content(kv.Value, isStored)}
		if err := f.settleOne(ctx, s, joining); err != nil {
			return err
		}
	}
	return f.writeNotes()
}

// state is a file here and in the store.
type state struct {
	File
	here   []byte
	kv     store.KV
	stored []byte
}

// content is nil for what is not there, and only for that.
func content(b []byte, there bool) []byte {
	if !there {
		return nil
	}
	return append([]byte{}, b...)
}

func (f *Files) settleOne(ctx context.Context, s state, joining bool) error {
	here, stored := sum(s.here), sum(s.stored)
	alike := f.alike[s.Name]
	switch {
	case here == stored:
	case !s.Changes && s.here == nil || s.Changes && here == alike:
		return f.take(s)
	case s.stored == nil || s.Changes && stored == alike:
		return f.give(ctx, s)
	case s.Changes:
		aside := f.path(s.Name) + ".local-" + time.Now().UTC().Format("20060102T150405Z")
		if err := os.Rename(f.path(s.Name), aside); err != nil {
			return err
		}
		f.Log.Warn("a file was changed here and at another server at the same time; what the other wrote counts", "file", s.Name, "kept", aside)
		return f.take(s)
	case joining:
		return fmt.Errorf("%s is not that of the cluster whose store this is: the data directory is another cluster's. Choose another one with --data-dir; or, to bring this server into the cluster, move %s away", f.path(s.Name), f.names())
	}
	f.settled(s, here)
	return nil
}

// names of the files, for a sentence.
func (f *Files) names() string {
	var all []string
	for _, file := range f.Files {
		all = append(all, file.Name)
	}
	return strings.Join(all, ", ")
}

func (f *Files) settled(s state, sum string) {
	if s.Changes {
		f.alike[s.Name] = sum
	}
}

// take makes the file here what it is in the store.
func (f *Files) take(s state) error {
	if s.stored == nil {
		if err := os.Remove(f.path(s.Name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	} else if err := store.WriteFile(f.path(s.Name), s.stored); err != nil {
		return err
	} else if err := os.Chmod(f.path(s.Name), s.Mode); err != nil {
		return err
	}
	f.settled(s, sum(s.stored))
	if f.Changed != nil {
		f.Changed(s.Name)
	}
	return nil
}

// give makes the pair in the store what the file is here. When another server
// comes before, the next look settles it.
func (f *Files) give(ctx context.Context, s state) error {
	_, err := f.Store.Txn(ctx, []store.Op{{Key: Prefix + s.Name, Value: s.here, Expect: s.kv.Revision}})
	var conflict *store.ConflictError
	if errors.As(err, &conflict) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("store %s: %w", s.Name, err)
	}
	f.settled(s, sum(s.here))
	return nil
}

func (f *Files) path(name string) string { return filepath.Join(f.Dir, name) }

// stored are the pairs of the store by the names of the files.
func (f *Files) stored(ctx context.Context) (map[string]store.KV, error) {
	page, err := f.Store.List(ctx, store.ListRequest{Prefix: Prefix})
	if err != nil {
		return nil, fmt.Errorf("read what the servers share: %w", err)
	}
	out := map[string]store.KV{}
	for _, kv := range page.KVs {
		out[strings.TrimPrefix(kv.Key, Prefix)] = kv
	}
	return out, nil
}

// local are the files that are here.
func (f *Files) local() (map[string][]byte, error) {
	out := map[string][]byte{}
	for _, file := range f.Files {
		b, err := os.ReadFile(f.path(file.Name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out[file.Name] = append([]byte{}, b...)
	}
	return out, nil
}

// sum is empty for what is not there.
func sum(b []byte) string {
	if b == nil {
		return ""
	}
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

func (f *Files) readNotes() error {
	b, err := os.ReadFile(f.path(notes))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(b, &f.alike)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w; remove it, and the files here are compared with those of the cluster anew", f.path(notes), err)
	}
	return nil
}

func (f *Files) writeNotes() error {
	b, err := json.Marshal(f.alike)
	if err != nil {
		return err
	}
	if was, err := os.ReadFile(f.path(notes)); err == nil && string(was) == string(b) {
		return nil
	}
	return store.WriteFile(f.path(notes), b)
}
