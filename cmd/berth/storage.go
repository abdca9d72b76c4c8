package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"time"

	"berth.dev/berth/engine/store"
	"berth.dev/berth/engine/sync"
)

// Files in the data directory.
const (
	storeFile = "store.db"
	keysFile  = "secrets.key"
)

// maxBackup bounds a backup that is restored, in bytes.
const maxBackup = 8 << 30

// storage are the calls that look after the store as a whole.
type storage struct {
	sealed  *store.Sealed
	bolt    *store.Bolt // nil when the store is another one
	engine  *sync.Engine
	keyFile string
	log     *slog.Logger
}

// backup writes everything to the answer.
func (s *storage) backup(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/octet-stream")
	info, err := store.WriteBackup(r.Context(), s.sealed, w, version, time.Now())
	if err != nil {
		// The answer has begun: the client sees that its end is missing.
		s.log.Warn("backup", "err", err)
		panic(http.ErrAbortHandler)
	}
	s.log.Info("a backup was made", "revision", info.Revision, "pairs", info.Pairs)
}

type restoreAnswer struct {
	Backup store.BackupInfo  `json:"backup"`
	Did    store.Replacement `json:"did"`
}

// restore replaces everything by the backup in the body.
func (s *storage) restore(w http.ResponseWriter, r *http.Request) {
	keys, err := base64.StdEncoding.DecodeString(r.Header.Get(keysHeader))
	if err != nil {
		http.Error(w, "the key file is not in base64", http.StatusBadRequest)
		return
	}
	b, err := store.ReadBackup(http.MaxBytesReader(w, r.Body, maxBackup))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	// A client that goes away does not end what has begun.
	did, err := s.sealed.Restore(context.WithoutCancel(r.Context()), b, keys)
	if err != nil {
		s.log.Warn("restore", "err", err)
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	s.log.Warn("a backup was restored", "of", b.Time, "written", did.Written, "deleted", did.Deleted, "revision", did.Revision)
	s.engine.Recheck()
	reply(w, restoreAnswer{Backup: b.BackupInfo, Did: did})
}

type rotateAnswer struct {
	Secrets int    `json:"secrets"`
	KeyFile string `json:"keyFile"`
}

// rotateKey seals all Secrets with a new key.
func (s *storage) rotateKey(w http.ResponseWriter, r *http.Request) {
	ctx := context.WithoutCancel(r.Context())
	n, err := s.sealed.Rotate(ctx)
	if err == nil {
		err = s.sweep(ctx)
	}
	if err != nil {
		s.log.Warn("rotate the key of Secrets", "err", err)
		http.Error(w, err.Error()+"; call it again, nothing is lost", http.StatusInternalServerError)
		return
	}
	s.log.Info("the key of Secrets was rotated", "secrets", n)
	reply(w, rotateAnswer{Secrets: n, KeyFile: s.keyFile})
}

// sweep removes what the file still holds of replaced values.
func (s *storage) sweep(ctx context.Context) error {
	if s.bolt == nil {
		return nil
	}
	return s.bolt.Compact(ctx)
}

// sealAll seals what an earlier version left in plain text, and ends a
// rotation that was cut short.
func (s *storage) sealAll(ctx context.Context) error {
	n, err := s.sealed.Reseal(ctx)
	if err == nil && n > 0 {
		s.log.Info("Secrets in the store are encrypted now", "secrets", n, "keys", s.keyFile)
		err = s.sweep(ctx)
	}
	if err != nil {
		return fmt.Errorf("encrypt the Secrets: %w", err)
	}
	return nil
}

func keyPath(dataDir string) string { return filepath.Join(dataDir, keysFile) }
