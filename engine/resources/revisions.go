package resources

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"

	"berth.dev/berth/api/manifest"
	"berth.dev/berth/engine/store"
)

const (
	// revisionPrefix is where the objects of applied commits are, sealed: there
	// are Secrets among them.
	revisionPrefix = "/berth/revisions/"
	// maxRevision is the size that a kept commit may have, compressed: what etcd
	// takes in one value, with room to spare.
	maxRevision = 1 << 20
	// maxRevisionOpen is the size that it may have after decompression.
	maxRevisionOpen = 512 << 20
)

func revisionKey(source, commit string) string { return revisionPrefix + source + "/" + commit }

// Keep adds the objects of a commit to the transaction, so that it can be gone
// back to without its repository. False says that they are too large to be kept.
func (t *Tx) Keep(source, commit string, objects []manifest.Manifest) (bool, error) {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		return false, err
	}
	if err := json.NewEncoder(z).Encode(objects); err != nil {
		return false, fmt.Errorf("encode the objects of %s: %w", commit, err)
	}
	if err := z.Close(); err != nil {
		return false, fmt.Errorf("compress the objects of %s: %w", commit, err)
	}
	if b.Len() > maxRevision {
		return false, nil
	}
	t.kept = append(t.kept, store.Op{Key: revisionKey(source, commit), Value: b.Bytes(), Expect: store.Any})
	return true, nil
}

// Kept returns the objects of a commit; false when they are not kept.
func (r *Resources) Kept(ctx context.Context, source, commit string) ([]manifest.Manifest, bool, error) {
	kv, ok, err := r.store.Get(ctx, revisionKey(source, commit))
	if err != nil || !ok {
		return nil, false, err
	}
	z, err := gzip.NewReader(bytes.NewReader(kv.Value))
	if err != nil {
		return nil, false, fmt.Errorf("read the objects of %s: %w", commit, err)
	}
	var out []manifest.Manifest
	if err := json.NewDecoder(io.LimitReader(z, maxRevisionOpen)).Decode(&out); err != nil {
		return nil, false, fmt.Errorf("read the objects of %s: %w", commit, err)
	}
	return out, true, nil
}

// LastKept is the commit of a Source whose objects were kept last; empty when
// none are.
func (r *Resources) LastKept(ctx context.Context, source string) (string, error) {
	page, err := r.store.List(ctx, store.ListRequest{Prefix: revisionKey(source, "")})
	if err != nil {
		return "", err
	}
	last, at := "", int64(0)
	for _, kv := range page.KVs {
		if kv.Revision > at {
			last, at = kv.Key[len(revisionKey(source, "")):], kv.Revision
		}
	}
	return last, nil
}

// DropKept forgets the commits of a Source, all but those to keep.
func (r *Resources) DropKept(ctx context.Context, source string, keep map[string]bool) error {
	page, err := r.store.List(ctx, store.ListRequest{Prefix: revisionKey(source, "")})
	if err != nil {
		return err
	}
	var ops []store.Op
	for _, kv := range page.KVs {
		if !keep[kv.Key[len(revisionKey(source, "")):]] {
			ops = append(ops, store.Op{Key: kv.Key, Expect: kv.Revision})
		}
	}
	if len(ops) == 0 {
		return nil
	}
	_, err = r.store.Txn(ctx, ops)
	return err
}
