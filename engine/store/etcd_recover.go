package store

import (
	"context"
	"errors"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"
)

// placeOps is how many pairs of a large transaction are put in their place at once.
const placeOps = 100

// errLost: another server has taken the lock over and does the rest.
var errLost = errors.New("the lock was taken over by another server")

// finish puts the pairs of the decided transaction in their places and removes
// its traces. The mirror has it.
func (e *Etcd) finish(ctx context.Context, lock int64) error {
	e.mu.RLock()
	large, pairs := e.large, e.current
	e.mu.RUnlock()
	if large == nil {
		return errLost
	}
	g, placing := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for _, write := range e.places(large, pairs) {
		g.Go(func() error {
			err := e.underLock(placing, lock, write)
			e.at("placing")
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	e.at("placed")
	return e.underLock(ctx, lock, e.clear(large.id))
}

// places are the writes that put each pair in its place, as etcd takes them.
func (e *Etcd) places(large *largeState, pairs *tree) [][]clientv3.Op {
	var all [][]clientv3.Op
	var write []clientv3.Op
	bytes := 0
	seen := map[string]bool{}
	for _, op := range large.ops {
		if seen[op.Key] {
			continue
		}
		seen[op.Key] = true
		key, value := e.keys.data(op.Key), ""
		kv, exists := pairs.Get(op.Key)
		if exists {
			value = laterValue(kv)
		}
		n := len(key) + len(value) + 64
		if len(write) == placeOps || (len(write) > 0 && bytes+n > requestBytes) {
			all = append(all, write)
			write, bytes = nil, 0
		}
		bytes += n
		if exists {
			write = append(write, clientv3.OpPut(key, value))
		} else {
			write = append(write, clientv3.OpDelete(key))
		}
	}
	return append(all, write)
}

// underLock writes only while the lock is ours.
func (e *Etcd) underLock(ctx context.Context, lock int64, write []clientv3.Op) error {
	if len(write) == 0 {
		return nil
	}
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := e.client.Txn(call).If(clientv3.Compare(clientv3.ModRevision(e.keys.lock()), "=", lock)).Then(write...).Commit()
	if err == nil && !resp.Succeeded {
		return errLost
	}
	return err
}

// recover takes over the lock of a writer that has died, or one that this
// writer holds without knowing, and finishes or removes its transaction.
func (e *Etcd) recover(ctx context.Context) error {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	resp, err := e.client.Get(call, e.keys.lock())
	cancel()
	if err != nil || len(resp.Kvs) == 0 {
		return err
	}
	held := parseLock(resp.Kvs[0].Value)
	lock := resp.Kvs[0].ModRevision
	if held.writer != e.writer {
		if lock, err = e.takeOver(ctx, held, lock); err != nil || lock == 0 {
			return err
		}
	}
	if err := e.await(ctx, lock); err != nil {
		return err
	}
	e.mu.RLock()
	decided := e.large != nil
	e.mu.RUnlock()
	if !decided {
		err = e.underLock(ctx, lock, e.clear(held.id))
	} else {
		err = e.finish(ctx, lock)
	}
	if errors.Is(err, errLost) {
		return nil
	}
	if err == nil {
		e.options.Log.Info("finished what a server left half done", "decided", decided)
	}
	return err
}

// takeOver returns the revision of the lock that is now ours, or 0 while its
// writer lives.
func (e *Etcd) takeOver(ctx context.Context, held lockRecord, lock int64) (int64, error) {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := e.client.Txn(call).If(
		clientv3.Compare(clientv3.ModRevision(e.keys.lock()), "=", lock),
		clientv3.Compare(clientv3.CreateRevision(e.keys.session(held.writer)), "=", 0),
	).Then(
		clientv3.OpPut(e.keys.lock(), lockRecord{e.writer, held.id}.String()),
		clientv3.OpPut(e.keys.head(), headRecord{writer: e.writer}.String()),
	).Commit()
	if err != nil || !resp.Succeeded {
		return 0, err
	}
	return resp.Header.Revision, nil
}

// removeOrphans removes what writers that have died staged without a lock.
func (e *Etcd) removeOrphans(ctx context.Context) {
	call, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	resp, err := e.client.Get(call, e.keys.staging(""), clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		e.report(err)
		return
	}
	ids := map[string]bool{}
	for _, kv := range resp.Kvs {
		if id, _, ok := e.keys.isChunk(string(kv.Key)); ok {
			ids[id] = true
		}
	}
	for id := range ids {
		writer, _, _ := strings.Cut(id, "-")
		_, err := e.client.Txn(call).If(
			clientv3.Compare(clientv3.CreateRevision(e.keys.session(writer)), "=", 0),
			// What is locked is the business of recover.
			clientv3.Compare(clientv3.CreateRevision(e.keys.lock()), "=", 0),
		).Then(clientv3.OpDelete(e.keys.staging(id)+"/", clientv3.WithPrefix())).Commit()
		e.report(err)
	}
}
