package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"berth.dev/berth/engine/election"
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
	bolt    *store.Bolt // the store, or nil
	etcd    *store.Etcd // the store, or nil
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
	forgetLeader(b)
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
	if err := s.alone(ctx); err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
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

// leaseKey is where the Lease of the leader is. It is no part of a restore, which
// so ends the leader's time: the next begins with what was restored.
const leaseKey = "/coordination.k8s.io/leases/" + election.Namespace + "/" + election.Name

func forgetLeader(b *store.Backup) {
	b.KVs = slices.DeleteFunc(b.KVs, func(kv store.KV) bool { return kv.Key == leaseKey })
}

// alone: no other server needs the present key.
func (s *storage) alone(ctx context.Context) error {
	if s.etcd == nil {
		return nil
	}
	others, err := s.etcd.Others(ctx)
	if err != nil || len(others) == 0 {
		return err
	}
	return fmt.Errorf("the servers %s read Secrets with the present key, and would be locked out: stop them, call this again at the one that is left, copy its %s to the others, and start them", strings.Join(others, ", "), s.keyFile)
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
