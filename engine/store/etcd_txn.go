package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// What etcd takes in one transaction, by its defaults (--max-txn-ops 128,
// --max-request-bytes 1.5 MiB), less what we add. Larger ones are staged.
const (
	smallOps     = 120
	requestBytes = 1_400_000
)

// errRetry: nothing was changed, and another attempt may do.
var errRetry = errors.New("another write came between")

// Txn implements Store. When the context ends first, the transaction may still
// be carried out.
func (e *Etcd) Txn(ctx context.Context, ops []Op) ([]int64, error) {
	if err := e.open(); err != nil {
		return nil, err
	}
	small, err := fits(ops)
	if err != nil {
		return nil, err
	}
	if !small {
		return e.txnLarge(ctx, ops)
	}
	limited, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	// While etcd is away a question is asked in the place of the write, for its
	// failure leaves nothing open.
	if e.away() {
		if err := e.syncNow(limited); err != nil {
			return nil, err
		}
	}
	for {
		revisions, err := e.attempt(limited, ops)
		if !errors.Is(err, errRetry) {
			return revisions, e.timely(ctx, err)
		}
	}
}

// timely explains an error of a call whose own time limit may have passed.
func (e *Etcd) timely(ctx context.Context, err error) error {
	var conflict *ConflictError
	switch {
	case err == nil, errors.As(err, &conflict), errors.Is(err, ErrUnknown), errors.Is(err, ErrUnavailable):
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	case e.open() != nil:
		return ErrClosed
	}
	e.report(err)
	return e.explain(err)
}

// fits reports whether etcd takes the operations in one transaction.
func fits(ops []Op) (small bool, err error) {
	if len(ops) > maxOps {
		return false, fmt.Errorf("a transaction of %d operations; the most is %d", len(ops), maxOps)
	}
	bytes := 0
	seen := make(map[string]bool, min(len(ops), smallOps))
	small = len(ops) <= smallOps
	for _, op := range ops {
		n := 2*len(op.Key) + len(op.Value) + 64
		if n > requestBytes {
			return false, fmt.Errorf("the value of %s has %d bytes; etcd takes about %d", op.Key, len(op.Value), requestBytes)
		}
		bytes += n
		small = small && !seen[op.Key]
		if small {
			seen[op.Key] = true
		}
	}
	return small && bytes <= requestBytes, nil
}

// attempt tries a transaction that fits once.
func (e *Etcd) attempt(ctx context.Context, ops []Op) ([]int64, error) {
	if err := e.unlocked(ctx); err != nil {
		return nil, err
	}
	used, err := e.sessionRevision(ctx)
	if err != nil {
		return nil, e.again(ctx, err)
	}
	plan, err := e.plan(ops)
	if err != nil {
		// The mirror may be behind: only what is fresh is a conflict.
		if err := e.syncNow(ctx); err != nil {
			return nil, err
		}
		if plan, err = e.plan(ops); err != nil {
			return nil, err
		}
	}
	at, err := e.send(ctx, used, plan)
	if err != nil {
		return nil, err
	}
	for i, op := range ops {
		if !op.Check {
			plan.revisions[i] = revisionOf(at, int(plan.revisions[i]))
		}
	}
	return plan.revisions, nil
}

// unlocked waits while a large transaction is carried out.
func (e *Etcd) unlocked(ctx context.Context) error {
	for {
		wait, cancel := context.WithTimeout(ctx, retryEvery)
		err := e.progress.wait(wait, func(p *progress) bool { return p.lock == nil })
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
		if err := e.open(); err != nil {
			return err
		}
		e.poke(e.settle) // its writer may have died
	}
}

// smallPlan is a transaction in etcd's terms.
type smallPlan struct {
	compare []clientv3.Cmp
	write   []clientv3.Op
	// revisions of the operations, as positions but for those of checks.
	revisions []int64
}

// plan decides a transaction on the mirror. It fails with a *ConflictError.
func (e *Etcd) plan(ops []Op) (smallPlan, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	var p smallPlan
	if err := check(e.current, ops); err != nil {
		return p, err
	}
	for _, op := range ops {
		key := e.keys.data(op.Key)
		have, exists := e.current.Get(op.Key)
		p.compare = append(p.compare, clientv3.Compare(clientv3.ModRevision(key), "=", e.placeOf(have)))
		position := len(p.write)
		switch {
		case op.Check:
			p.revisions = append(p.revisions, op.Expect)
			continue
		case op.Value != nil:
			p.write = append(p.write, clientv3.OpPut(key, plainValue(position, have.Created, op.Value)))
		case exists:
			p.write = append(p.write, clientv3.OpDelete(key))
		default: // nothing to delete, and etcd would report no event
			position = max(0, position-1)
		}
		p.revisions = append(p.revisions, int64(position))
	}
	return p, nil
}

// placeOf is the revision at which etcd has a pair; 0 when it has none. The
// caller holds mu.
func (e *Etcd) placeOf(kv KV) int64 {
	if later, ok := e.later[kv.Key]; ok {
		return later
	}
	return kv.Revision >> positionBits
}

// send carries a plan out and returns etcd's revision of it, once the mirror has it.
func (e *Etcd) send(ctx context.Context, used int64, p smallPlan) (int64, error) {
	head := headRecord{writer: e.writer, sequence: e.sequence.Add(1), ops: len(p.write)}
	sent, forget := e.progress.send(head.sequence)
	defer forget()
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := e.client.Txn(call).If(append(p.compare,
		clientv3.Compare(clientv3.ModRevision(e.keys.session(e.writer)), "=", used),
		clientv3.Compare(clientv3.CreateRevision(e.keys.lock()), "=", 0))...).
		Then(append(p.write, clientv3.OpPut(e.keys.head(), head.String()))...).
		Else(clientv3.OpGet(e.keys.session(e.writer)), clientv3.OpGet(e.keys.lock(), clientv3.WithKeysOnly())).
		Commit()
	switch {
	case err != nil && refused(err):
		return 0, err
	case err != nil:
		e.report(err)
		return e.settled(ctx, used, sent)
	case !resp.Succeeded:
		return 0, e.refresh(ctx, used, resp.Responses)
	}
	e.written()
	if err := e.await(ctx, resp.Header.Revision); err != nil {
		return 0, fmt.Errorf("%w: %s", ErrUnknown, err)
	}
	return resp.Header.Revision, nil
}

// refresh makes ready for another attempt after a comparison failed.
func (e *Etcd) refresh(ctx context.Context, used int64, found []*pb.ResponseOp) error {
	session := found[0].GetResponseRange().Kvs
	if len(session) == 0 || session[0].ModRevision != used {
		if _, err := e.renewSession(ctx, used); err != nil {
			return e.again(ctx, err)
		}
	}
	if err := e.syncNow(ctx); err != nil {
		return err
	}
	return errRetry
}

// again waits a moment before another attempt, if the fault may pass.
func (e *Etcd) again(ctx context.Context, err error) error {
	if refused(err) {
		return err
	}
	e.report(err)
	if pauseFor(ctx, retryEvery); ctx.Err() != nil {
		return err
	}
	return errRetry
}

// settled finds out what became of a transaction whose answer was lost. The
// session is written anew: from then on the transaction can no longer be carried
// out, so either the mirror has seen it or it never was.
func (e *Etcd) settled(ctx context.Context, used int64, sent *outcome) (int64, error) {
	for {
		now, err := e.renewSession(ctx, used)
		if err == nil {
			err = e.await(ctx, now)
		}
		if err == nil {
			break
		}
		if ctx.Err() != nil || refused(err) || e.open() != nil {
			return 0, fmt.Errorf("%w: %s", ErrUnknown, e.explain(err))
		}
		pauseFor(ctx, retryEvery)
	}
	e.progress.mu.Lock()
	at, lost := sent.revision, sent.lost
	e.progress.mu.Unlock()
	switch {
	case at != 0:
		return at, nil
	case lost:
		return 0, ErrUnknown
	}
	return 0, errRetry
}

// stop is a deadline for something that must end although its context may not.
func stop(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), d)
}
