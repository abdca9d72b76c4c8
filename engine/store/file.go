package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
)

// partial is where a file is written before it takes the place of the store's.
// One that a crash left is removed at the next start.
func partial(path string) string { return path + ".new" }

// buildBatch bounds the transactions in which a new file is filled, in bytes.
const buildBatch = 4 << 20

// lockFile opens an existing file and takes its lock, which lasts as long as
// the file is open: bbolt is handed the same file.
func lockFile(path string) (*os.File, error) {
	deadline := time.Now().Add(lockTimeout)
	for {
		f, err := os.OpenFile(path, os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil && sameFile(f, path) {
			return f, nil
		}
		f.Close()
		if err != nil && !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock: %w", err)
		}
		if time.Now().After(deadline) {
			return nil, errors.New("another process holds it; stop that one first")
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// sameFile tells whether path is still this file: a compaction may have put
// another one in its place while its lock was waited for.
func sameFile(f *os.File, path string) bool {
	mine, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(path)
	return err == nil && os.SameFile(mine, there)
}

// openDB hands a file that is open and locked to bbolt.
func openDB(f *os.File) (*bolt.DB, error) {
	return bolt.Open(f.Name(), 0o600, &bolt.Options{
		Timeout: lockTimeout, FreelistType: bolt.FreelistMapType, NoFreelistSync: true,
		OpenFile: func(string, int, os.FileMode) (*os.File, error) { return f, nil },
	})
}

// build writes pairs to a new file beside path. It is on disk, open and locked
// when build returns.
func build(path string, pairs *tree, s state, stop <-chan struct{}) (*bolt.DB, error) {
	name := partial(path)
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	db, err := openDB(f)
	if err != nil {
		os.Remove(name)
		return nil, err
	}
	db.NoSync = true
	err = fill(db, pairs, s, stop)
	if err == nil {
		db.NoSync = false
		err = db.Sync()
	}
	if err != nil {
		discard(db)
		return nil, err
	}
	return db, nil
}

// discard closes a file that was not put in place, and removes it.
func discard(db *bolt.DB) {
	name := db.Path()
	db.Close()
	os.Remove(name)
}

var errStopped = errors.New("was stopped")

func fill(db *bolt.DB, pairs *tree, s state, stop <-chan struct{}) error {
	err := db.Update(func(tx *bolt.Tx) error {
		if _, err := tx.CreateBucket(bucketPairs()); err != nil {
			return err
		}
		meta, err := tx.CreateBucket(bucketState())
		if err != nil {
			return err
		}
		return meta.Put(keyState(), encodeState(s))
	})
	rest := pairs.Values()
	for len(rest) > 0 && err == nil {
		select {
		case <-stop:
			return errStopped
		default:
		}
		err = db.Update(func(tx *bolt.Tx) error {
			bucket := tx.Bucket(bucketPairs())
			bucket.FillPercent = 0.9 // the keys come in order
			for size := 0; len(rest) > 0 && size < buildBatch; rest = rest[1:] {
				kv := rest[0]
				if err := bucket.Put([]byte(kv.Key), encodePair(kv)); err != nil {
					return err
				}
				size += len(kv.Key) + len(kv.Value) + 64
			}
			return nil
		})
	}
	return err
}

// install puts a file that build made in the place of path. Until it returns,
// either file may be the one that a crash leaves: both hold the same.
func install(path string) error { return Install(partial(path), path) }

// Install puts a file in the place of another one in the same folder, at once
// and for good.
func Install(file, path string) error {
	if err := os.Rename(file, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes renames in a folder last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
