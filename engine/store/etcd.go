package store

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// Waits for etcd.
const (
	// callTimeout bounds one call, so that another member is asked soon.
	callTimeout = 2 * time.Second
	// askTimeout is how long a read asks, readTimeout how long it waits in all.
	askTimeout  = 5 * time.Second
	readTimeout = 8 * time.Second
	// writeTimeout and largeTimeout bound a transaction with all its attempts.
	writeTimeout = 15 * time.Second
	largeTimeout = time.Minute
	// openTimeout is how long a start waits for etcd.
	openTimeout = time.Minute
	retryEvery  = 200 * time.Millisecond
)

// EtcdOptions are what an Etcd is made of.
type EtcdOptions struct {
	Address EtcdAddress
	Log     *slog.Logger
	// Name of this server, for people. ID tells servers apart, the same one at
	// each start.
	Name, ID string
	// Reach is the address at which clients reach this server, told to the
	// others. Optional.
	Reach string
	// CompactEvery is the time between two compactions of etcd's history, each
	// up to where it was at the one before; 0 for none.
	CompactEvery time.Duration
}

// Etcd is the Store in an etcd, for several servers at once. Each holds all
// pairs in memory and follows what the others write; a read first asks etcd for
// the number of the newest write, so it sees all that was acknowledged.
type Etcd struct {
	options EtcdOptions
	client  *clientv3.Client
	tls     *tls.Config
	members []string
	keys    etcdKeys
	// writer is this Etcd among all that use the prefix.
	writer   string
	sequence atomic.Uint64
	session  session
	barrier  barrier
	progress progress

	// mirror is changed by the feed alone. later is where etcd has pairs that
	// were written after their transaction, and large the large transaction
	// that is being carried out; both change with the tree, under its lock.
	mirror
	later map[string]int64
	large *largeState

	// from is the revision of etcd that the feed goes on after; staged is what it
	// has seen of large transactions. Both are the feed's own.
	from   int64
	staged map[string]map[int][]byte

	submit  chan *largeTxn
	settle  chan struct{}
	restart chan struct{}
	closing chan struct{}
	running atomic.Bool

	trouble trouble
	looks   looks
	// at is called at each step of a large transaction, by tests.
	at func(step string)
}

var _ Store = (*Etcd)(nil)

// OpenEtcd reads everything below the prefix. While etcd does not answer it
// tries again, for up to a minute. Until Run is called nothing can be written, and
// reads see what was there when it was opened.
func OpenEtcd(ctx context.Context, o EtcdOptions) (*Etcd, error) {
	endpoints, prefix, err := o.Address.endpoints()
	if err != nil {
		return nil, err
	}
	secure, err := o.Address.tls()
	if err != nil {
		return nil, err
	}
	client, err := connect(endpoints, secure)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", o.Address.URL, err)
	}
	e := &Etcd{
		options: o, client: client, keys: etcdKeys{prefix}, writer: strings.ToLower(rand.Text()[:16]),
		tls:     secure,
		mirror:  mirror{current: new(tree), log: newEventLog(0)},
		submit:  make(chan *largeTxn),
		settle:  make(chan struct{}, 1),
		restart: make(chan struct{}, 1),
		closing: make(chan struct{}),
		at:      func(string) {},
	}
	for _, endpoint := range endpoints {
		_, address, _ := strings.Cut(endpoint, "://")
		e.members = append(e.members, address)
	}
	e.barrier.ask = e.askHead
	e.trouble.log = o.Log
	e.progress.init()
	if err := e.loadFirst(ctx); err != nil {
		client.Close()
		return nil, fmt.Errorf("open store %s: %w", o.Address.URL, err)
	}
	return e, nil
}

func connect(endpoints []string, secure *tls.Config) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Endpoints: endpoints, TLS: secure, Logger: zap.NewNop(),
		DialTimeout: callTimeout, DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 3 * time.Second,
		// We try again ourselves: the client would keep the reason for itself.
		MaxUnaryRetries: 2,
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: retryEvery, Multiplier: 1.6, Jitter: 0.2, MaxDelay: callTimeout},
			MinConnectTimeout: callTimeout,
		})},
	})
}

// where is the addresses of the members, for messages.
func (e *Etcd) where() string { return strings.Join(e.members, ", ") }

func (e *Etcd) loadFirst(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	for {
		err := e.probe(ctx)
		if err == nil {
			err = e.load(ctx, false)
		}
		if err == nil {
			e.report(nil)
			return nil
		}
		if refused(err) || ctx.Err() == nil && e.hopeless() {
			return e.explain(err)
		}
		e.report(err)
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; start etcd, or say where it is with --store", e.explain(err))
		case <-time.After(time.Second):
		}
	}
}

// probe asks for little: without an answer the reason is said soon.
func (e *Etcd) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := e.client.Get(ctx, e.keys.head())
	return err
}

// Run follows etcd until the context ends.
func (e *Etcd) Run(ctx context.Context) error {
	e.running.Store(true)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return e.follow(ctx) })
	g.Go(func() error { return e.runSession(ctx) })
	g.Go(func() error { return e.runLarge(ctx) })
	g.Go(func() error { return e.compact(ctx) })
	g.Go(func() error {
		<-ctx.Done()
		close(e.closing)
		return nil
	})
	err := g.Wait()
	e.log.close()
	e.client.Close()
	return err
}

// open fails when the store is shutting down.
func (e *Etcd) open() error {
	select {
	case <-e.closing:
		return ErrClosed
	default:
		return nil
	}
}

func (e *Etcd) poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Name of the server that this store was opened for.
func (e *Etcd) Name() string { return e.options.Name }

// Get implements Store.
func (e *Etcd) Get(ctx context.Context, key string) (KV, bool, error) {
	if err := e.sync(ctx); err != nil {
		return KV{}, false, err
	}
	return e.mirror.Get(ctx, key)
}

// List implements Store.
func (e *Etcd) List(ctx context.Context, r ListRequest) (Page, error) {
	// A revision that this server has not seen may be one that another handed out.
	if r.At == 0 || r.At > e.Revision() {
		if err := e.sync(ctx); err != nil {
			return Page{}, err
		}
	}
	return e.mirror.List(ctx, r)
}

// Watch implements Store.
func (e *Etcd) Watch(ctx context.Context, prefix string, after int64) (Watcher, error) {
	if after > e.Revision() {
		if err := e.sync(ctx); err != nil {
			return nil, err
		}
	}
	return e.mirror.Watch(ctx, prefix, after)
}

// compact lets etcd forget its history, which nobody reads: each server keeps
// the window of changes itself.
func (e *Etcd) compact(ctx context.Context) error {
	if e.options.CompactEvery == 0 {
		return nil
	}
	ticker := time.NewTicker(e.options.CompactEvery)
	defer ticker.Stop()
	var before int64
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		call, cancel := context.WithTimeout(ctx, callTimeout)
		if before > 0 {
			// Who comes second is told that it is done already.
			if _, err := e.client.Compact(call, before); err != nil && ctx.Err() == nil {
				e.options.Log.Debug("compact etcd", "err", err)
			}
		}
		if resp, err := e.client.Get(call, e.keys.head()); err == nil {
			before = resp.Header.Revision
		}
		cancel()
	}
}
