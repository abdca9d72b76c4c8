package store

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// sessionTTL is how long a writer that has died is taken for alive (seconds).
	sessionTTL = 5
	// sessionEvery is the time between two signs of life.
	sessionEvery = sessionTTL * time.Second / 4
)

// session is the key that says that this writer lives. Every transaction
// compares its revision, so writing it anew is a fence: what was sent before and
// has not been carried out yet never will be.
type session struct {
	mu    sync.Mutex
	lease clientv3.LeaseID
	// revision of etcd at which the key was written; 0 before the first time.
	revision int64
}

// sessionRevision is what transactions compare with.
func (e *Etcd) sessionRevision(ctx context.Context) (int64, error) {
	e.session.mu.Lock()
	at := e.session.revision
	e.session.mu.Unlock()
	if at != 0 {
		return at, nil
	}
	return e.renewSession(ctx, 0)
}

// renewSession writes the key anew if it still is at the revision used.
func (e *Etcd) renewSession(ctx context.Context, used int64) (int64, error) {
	s := &e.session
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.revision != used {
		return s.revision, nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	at, err := e.writeSession(ctx)
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		s.lease = 0
		at, err = e.writeSession(ctx)
	}
	if err == nil {
		s.revision = at
	}
	return at, err
}

// writeSession writes the key, under a new lease if there is none. The caller
// holds mu.
func (e *Etcd) writeSession(ctx context.Context) (int64, error) {
	if e.session.lease == 0 {
		granted, err := e.client.Grant(ctx, sessionTTL)
		if err != nil {
			return 0, err
		}
		e.session.lease = granted.ID
	}
	resp, err := e.client.Txn(ctx).Then(
		clientv3.OpPut(e.keys.session(e.writer), strings.TrimSpace(e.options.ID+" "+e.options.Name+" "+e.options.Reach), clientv3.WithLease(e.session.lease)),
		clientv3.OpPut(e.keys.head(), headRecord{writer: e.writer}.String()),
	).Commit()
	if err != nil {
		return 0, err
	}
	return resp.Header.Revision, nil
}

// runSession gives signs of life until the context ends, then takes the key away.
func (e *Etcd) runSession(ctx context.Context) error {
	ticker := time.NewTicker(sessionEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			e.endSession()
			return nil
		case <-ticker.C:
			e.keepAlive(ctx)
		}
	}
}

func (e *Etcd) keepAlive(ctx context.Context) {
	e.session.mu.Lock()
	lease, used := e.session.lease, e.session.revision
	e.session.mu.Unlock()
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var err error
	if lease != 0 {
		_, err = e.client.KeepAliveOnce(call, lease)
	}
	if lease == 0 || errors.Is(err, rpctypes.ErrLeaseNotFound) {
		e.session.mu.Lock()
		if e.session.lease == lease {
			e.session.lease = 0
		}
		e.session.mu.Unlock()
		_, err = e.renewSession(ctx, used)
	}
	if ctx.Err() == nil {
		e.report(err)
	}
}

// Others are the names of the other servers that use the store and live. What an
// earlier process of this server left does not count.
func (e *Etcd) Others(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := e.client.Get(ctx, e.keys.session(""), clientv3.WithPrefix())
	if err != nil {
		return nil, e.explain(err)
	}
	var names []string
	for _, kv := range resp.Kvs {
		if fields := strings.Fields(string(kv.Value)); len(fields) > 1 && fields[0] != e.options.ID {
			names = append(names, fields[1])
		}
	}
	slices.Sort(names)
	return names, nil
}

// Reachable are the addresses (EtcdOptions.Reach) of all servers that use the
// store and live, this one included.
func (e *Etcd) Reachable(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := e.client.Get(ctx, e.keys.session(""), clientv3.WithPrefix())
	if err != nil {
		return nil, e.explain(err)
	}
	var addresses []string
	for _, kv := range resp.Kvs {
		if fields := strings.Fields(string(kv.Value)); len(fields) > 2 {
			addresses = append(addresses, fields[2])
		}
	}
	slices.Sort(addresses)
	return slices.Compact(addresses), nil
}

func (e *Etcd) endSession() {
	e.session.mu.Lock()
	defer e.session.mu.Unlock()
	if e.session.lease != 0 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, _ = e.client.Revoke(ctx, e.session.lease) // it ends by itself otherwise
	}
}
