package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"
)

// A transaction that etcd does not take in one piece is carried out so:
//
//  1. its operations are staged, in parts;
//  2. the lock is taken, which holds back all other writers of all servers;
//  3. its expectations are checked;
//  4. the commit record is written: that decides it, and every server applies it;
//  5. the pairs are written to their places;
//  6. what was staged, the commit record and the lock are removed.
//
// Whoever finds the lock of a writer that has died does steps 5 and 6 if there is
// a commit record, and removes what was staged if there is none.

const (
	// parallel is how many requests of a large transaction are under way at once.
	parallel = 4
	// orphansEvery is the time between two looks for what dead writers have staged.
	orphansEvery = time.Minute
)

// largeTxn is a large transaction that waits for its turn.
type largeTxn struct {
	ctx context.Context
	// make gives the operations once the lock is held; nil when they are known.
	make      func(*tree) []Op
	ops       []Op // without checks
	all       []Op
	revisions []int64
	err       error
	done      chan struct{}
}

func (e *Etcd) txnLarge(ctx context.Context, all []Op) ([]int64, error) {
	limited, cancel := context.WithTimeout(ctx, largeTimeout)
	defer cancel()
	t := &largeTxn{ctx: limited, done: make(chan struct{})}
	t.set(all)
	return e.wait(ctx, t)
}

// set gives the transaction its operations.
func (t *largeTxn) set(all []Op) {
	t.all, t.ops = all, nil
	for _, op := range all {
		if !op.Check {
			t.ops = append(t.ops, op)
		}
	}
}

// Replace makes the store hold kvs and nothing else, in one transaction, but for
// what belongs to the servers of the store itself. Other writers wait for it.
func (e *Etcd) Replace(ctx context.Context, kvs []KV) (Replacement, error) {
	limited, cancel := context.WithTimeout(ctx, 5*largeTimeout)
	defer cancel()
	var r Replacement
	t := &largeTxn{ctx: limited, done: make(chan struct{})}
	t.make = func(now *tree) (ops []Op) {
		r, ops = difference(now, kvs)
		return ops
	}
	if _, err := e.wait(ctx, t); err != nil {
		return Replacement{}, err
	}
	r.Revision = e.Revision()
	return r, nil
}

// wait hands a transaction over and waits for its end.
func (e *Etcd) wait(ctx context.Context, t *largeTxn) ([]int64, error) {
	limited := t.ctx
	select {
	case e.submit <- t:
	case <-limited.Done():
		return nil, e.timely(ctx, limited.Err())
	case <-e.closing:
		return nil, ErrClosed
	}
	select {
	case <-t.done:
		return t.revisions, e.timely(ctx, t.err)
	case <-limited.Done():
		return nil, e.timely(ctx, fmt.Errorf("%w: %s", ErrUnknown, limited.Err()))
	case <-e.closing:
		return nil, ErrClosed
	}
}

// runLarge carries out large transactions, one at a time, and finishes those of
// writers that have died.
func (e *Etcd) runLarge(ctx context.Context) error {
	ticker := time.NewTicker(orphansEvery)
	defer ticker.Stop()
	for {
		e.removeOrphans(ctx)
		if err := e.serveLarge(ctx, ticker.C); err != nil {
			return nil
		}
	}
}

// serveLarge works until it is time to look for orphans, or the context ends.
func (e *Etcd) serveLarge(ctx context.Context, due <-chan time.Time) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-due:
			return nil
		case <-e.settle:
			e.report(e.recover(ctx))
		case t := <-e.submit:
			e.carryOut(ctx, t)
		}
	}
}

func (e *Etcd) carryOut(ctx context.Context, t *largeTxn) {
	for {
		at, lock, err := e.decide(ctx, t)
		if errors.Is(err, errRetry) && t.ctx.Err() == nil && ctx.Err() == nil {
			continue
		}
		if err == nil {
			for i, position := 0, 0; i < len(t.all); i++ {
				if t.all[i].Check {
					t.revisions = append(t.revisions, t.all[i].Expect)
					continue
				}
				t.revisions = append(t.revisions, revisionOf(at, position))
				position++
			}
		}
		t.err = err
		close(t.done)
		if err == nil {
			e.finishAlways(ctx, lock)
		}
		return
	}
}

// finishAlways does the rest of a transaction that is decided, however long etcd
// is away.
func (e *Etcd) finishAlways(ctx context.Context, lock int64) {
	for ctx.Err() == nil {
		err := e.finish(ctx, lock)
		if err == nil || errors.Is(err, errLost) {
			return
		}
		e.report(err)
		pauseFor(ctx, retryEvery)
	}
}

// decide does the steps up to the commit record. It returns etcd's revisions of
// the record, which the mirror has, and of the lock, which is held.
func (e *Etcd) decide(ctx context.Context, t *largeTxn) (at, lock int64, err error) {
	session, err := e.sessionRevision(t.ctx)
	if err != nil {
		return 0, 0, e.again(t.ctx, err)
	}
	record := commitRecord{id: e.writer + "-" + strings.ToLower(rand.Text()[:10])}
	if t.make != nil {
		lock, err = e.lockAndStage(t, &record)
	} else {
		lock, err = e.stageAndLock(t, &record)
	}
	if lock == 0 {
		e.unstage(ctx, record.id)
		return 0, 0, err
	}
	if err == nil {
		e.at("locked")
		e.mu.RLock()
		err = check(e.current, t.all)
		e.mu.RUnlock()
	}
	if err == nil {
		at, err = e.commitLarge(ctx, t, session, lock, record)
	}
	if err != nil && !errors.Is(err, ErrUnknown) {
		e.unlock(ctx, lock, record.id)
	}
	if err == nil {
		e.at("committed")
	}
	return at, lock, err
}

// stageAndLock is the usual order: others are held back as shortly as can be.
func (e *Etcd) stageAndLock(t *largeTxn, record *commitRecord) (lock int64, err error) {
	if err := e.stage(t, record); err != nil {
		return 0, err
	}
	e.at("staged")
	if lock, err = e.lock(t.ctx, record.id); err != nil {
		return 0, err
	}
	return lock, nil
}

// lockAndStage is for operations that depend on everything there is.
func (e *Etcd) lockAndStage(t *largeTxn, record *commitRecord) (lock int64, err error) {
	if lock, err = e.lock(t.ctx, record.id); err != nil {
		return 0, err
	}
	e.mu.RLock()
	now := e.current
	e.mu.RUnlock()
	t.set(t.make(now))
	if len(t.ops) > maxOps {
		return lock, fmt.Errorf("a transaction of %d operations; the most is %d", len(t.ops), maxOps)
	}
	return lock, e.stage(t, record)
}

func (e *Etcd) stage(t *largeTxn, record *commitRecord) error {
	chunks := encodeOps(t.ops)
	record.chunks = len(chunks)
	return e.stageAll(t.ctx, record.id, chunks)
}

func (e *Etcd) stageAll(ctx context.Context, id string, chunks [][]byte) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for n, chunk := range chunks {
		g.Go(func() error {
			for {
				call, cancel := context.WithTimeout(ctx, callTimeout)
				_, err := e.client.Put(call, e.keys.chunk(id, n), string(chunk))
				cancel()
				if err == nil {
					return nil
				}
				if err := e.again(ctx, err); !errors.Is(err, errRetry) {
					return err
				}
			}
		})
	}
	return g.Wait()
}

func (e *Etcd) unstage(ctx context.Context, id string) {
	call, cancel := stop(ctx, callTimeout)
	defer cancel()
	_, err := e.client.Delete(call, e.keys.staging(id)+"/", clientv3.WithPrefix())
	e.report(err) // a later start removes what is left
}

// lock takes the lock and returns its revision, once the mirror has all before it.
func (e *Etcd) lock(ctx context.Context, id string) (int64, error) {
	for {
		session, err := e.sessionRevision(ctx)
		if err != nil {
			if err := e.again(ctx, err); !errors.Is(err, errRetry) {
				return 0, err
			}
			continue
		}
		call, cancel := context.WithTimeout(ctx, callTimeout)
		resp, err := e.client.Txn(call).If(
			clientv3.Compare(clientv3.CreateRevision(e.keys.lock()), "=", 0),
			clientv3.Compare(clientv3.ModRevision(e.keys.session(e.writer)), "=", session),
		).Then(
			clientv3.OpPut(e.keys.lock(), lockRecord{e.writer, id}.String()),
			clientv3.OpPut(e.keys.head(), headRecord{writer: e.writer}.String()),
		).Else(clientv3.OpGet(e.keys.session(e.writer)), clientv3.OpGet(e.keys.lock())).Commit()
		cancel()
		switch {
		case err != nil:
			err = e.again(ctx, err)
		case resp.Succeeded:
			return resp.Header.Revision, e.await(ctx, resp.Header.Revision)
		default:
			held := resp.Responses[1].GetResponseRange().Kvs
			// The answer to an earlier attempt was lost.
			if len(held) > 0 && parseLock(held[0].Value) == (lockRecord{e.writer, id}) {
				return held[0].ModRevision, e.await(ctx, held[0].ModRevision)
			}
			if err = e.refresh(ctx, session, resp.Responses); len(held) > 0 && errors.Is(err, errRetry) {
				if err := e.recover(ctx); err != nil {
					return 0, err
				}
				if pauseFor(ctx, retryEvery); ctx.Err() != nil {
					err = ctx.Err()
				}
			}
		}
		if !errors.Is(err, errRetry) {
			return 0, err
		}
	}
}

// commitLarge writes the commit record. When the answer is lost it asks until it
// knows, for longer than the caller waits if need be.
func (e *Etcd) commitLarge(ctx context.Context, t *largeTxn, session, lock int64, record commitRecord) (int64, error) {
	if t.ctx.Err() != nil {
		return 0, t.ctx.Err()
	}
	for {
		call, cancel := context.WithTimeout(ctx, callTimeout)
		resp, err := e.client.Txn(call).If(
			clientv3.Compare(clientv3.ModRevision(e.keys.lock()), "=", lock),
			// Since it was staged: otherwise another may have removed it.
			clientv3.Compare(clientv3.ModRevision(e.keys.session(e.writer)), "=", session),
			clientv3.Compare(clientv3.CreateRevision(e.keys.commit()), "=", 0),
		).Then(
			clientv3.OpPut(e.keys.commit(), record.String()),
			clientv3.OpPut(e.keys.head(), headRecord{writer: e.writer, ops: len(t.ops)}.String()),
		).Else(clientv3.OpGet(e.keys.commit())).Commit()
		cancel()
		switch {
		case err == nil && resp.Succeeded:
			return resp.Header.Revision, e.await(ctx, resp.Header.Revision)
		case err == nil:
			if kvs := resp.Responses[0].GetResponseRange().Kvs; len(kvs) > 0 && string(kvs[0].Value) == record.String() {
				return kvs[0].ModRevision, e.await(ctx, kvs[0].ModRevision)
			}
			return 0, errRetry
		case refused(err):
			return 0, err
		case ctx.Err() != nil:
			return 0, ErrUnknown
		}
		e.report(err)
		pauseFor(ctx, retryEvery)
	}
}

// unlock gives up a transaction that was not decided.
func (e *Etcd) unlock(ctx context.Context, lock int64, id string) {
	call, cancel := stop(ctx, callTimeout)
	defer cancel()
	_, err := e.client.Txn(call).
		If(clientv3.Compare(clientv3.ModRevision(e.keys.lock()), "=", lock), clientv3.Compare(clientv3.CreateRevision(e.keys.commit()), "=", 0)).
		Then(e.clear(id)...).Commit()
	if err != nil { // the next writer finds the lock
		e.report(err)
	}
}

// clear removes what a large transaction leaves.
func (e *Etcd) clear(id string) []clientv3.Op {
	return []clientv3.Op{
		clientv3.OpDelete(e.keys.staging(id)+"/", clientv3.WithPrefix()),
		clientv3.OpDelete(e.keys.commit()),
		clientv3.OpDelete(e.keys.lock()),
		clientv3.OpPut(e.keys.head(), headRecord{writer: e.writer}.String()),
	}
}
