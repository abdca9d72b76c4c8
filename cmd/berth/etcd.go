package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"berth.dev/berth/engine/access"
	"berth.dev/berth/engine/resources"
	"berth.dev/berth/engine/shared"
	"berth.dev/berth/engine/store"
	"berth.dev/berth/nodeagent"
)

// compactEvery is the time between two compactions of etcd's history, as often
// as Kubernetes has it done.
const compactEvery = 5 * time.Minute

// storeOptions say where the store is.
type storeOptions struct {
	address store.EtcdAddress
	keyFile string
}

func (o *storeOptions) register(f *pflag.FlagSet) {
	f.StringVar(&o.address.URL, "store", "", "etcd://HOST:2379,HOST:2379 for several servers (default: a file in the data directory)")
	f.StringVar(&o.address.CA, "store-ca", "", "authority that signed the certificates of etcd; makes it TLS (with etcds:// alone: the system's authorities)")
	f.StringVar(&o.address.Cert, "store-cert", "", "certificate that this server shows to etcd")
	f.StringVar(&o.address.Key, "store-key", "", "key of that certificate")
	f.BoolVar(&o.address.Plain, "store-plain", false, "allow an etcd on another machine without TLS")
	f.StringVar(&o.keyFile, "key-file", "", "key that Secrets are sealed with (default: secrets.key in the data directory)")
}

func (o *storeOptions) complete(dataDir string) error {
	if o.keyFile == "" {
		o.keyFile = filepath.Join(dataDir, keysFile)
	}
	if !o.shared() && (o.address.CA != "" || o.address.Cert != "" || o.address.Key != "" || o.address.Plain) {
		return errors.New("--store-ca, --store-cert, --store-key and --store-plain are about etcd: say where it is with --store etcd://HOST:2379")
	}
	return nil
}

// shared: other servers may use the store too.
func (o *storeOptions) shared() bool { return o.address.URL != "" }

// sharedFiles are what all servers of a cluster have alike. The first is what
// tells one cluster from another.
func sharedFiles() []shared.File {
	return []shared.File{
		{Name: "ca.crt", Mode: 0o644},
		{Name: "ca.key", Mode: 0o600},
		{Name: "service-account.key", Mode: 0o600},
		{Name: "admin.token", Mode: 0o600, Changes: true},
		{Name: "tokens", Mode: 0o600, Changes: true},
	}
}

// openEtcd opens the store that several servers share, starts it, and makes the
// data directory one of the cluster's.
func (s *server) openEtcd(ctx context.Context) (err error) {
	o := s.options
	id, err := serverID(o.dataDir)
	if err != nil {
		return err
	}
	s.etcd, err = store.OpenEtcd(ctx, store.EtcdOptions{Address: o.store.address, Name: o.nodeName, ID: id, Reach: s.advertised.String(), CompactEvery: compactEvery, Log: s.log})
	if err != nil {
		return err
	}
	s.store = startStore(s.etcd)
	if err := s.onlyOne(ctx); err != nil {
		return err
	}
	if err := s.foreign(ctx); err != nil {
		return err
	}
	if file := s.opener().path(); exists(file) {
		s.log.Info("the store is etcd; the file of another one is there and is not used", "file", file)
	}
	s.sealed, err = store.SealShared(ctx, s.etcd, o.store.keyFile, append(resources.Sealed(), shared.Prefix)...)
	if err != nil {
		return err
	}
	s.files, err = shared.Join(ctx, shared.Options{
		Store: s.sealed, Dir: o.dataDir, Files: sharedFiles(), Log: s.log, Changed: s.fileChanged,
	}, s.firstFiles)
	if err != nil {
		return err
	}
	s.account, err = access.OpenAccountKey(o.dataDir)
	return err
}

// serverID tells this server from the others: it is kept in the data directory.
func serverID(dataDir string) (string, error) {
	path := filepath.Join(dataDir, "server.id")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		b = []byte(strings.ToLower(rand.Text()))
		err = store.WriteFile(path, b)
	}
	return strings.TrimSpace(string(b)), err
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// onlyOne refuses a name that another server has: two agents of one node would
// each end what the other one starts.
func (s *server) onlyOne(ctx context.Context) error {
	others, err := s.etcd.Others(ctx)
	if err != nil || !slices.Contains(others, s.options.nodeName) {
		return err
	}
	flag := "--name"
	if s.options.agent {
		flag = "--node-name"
	}
	return fmt.Errorf("another server of this cluster is named %s too; give each a name of its own with %s", s.options.nodeName, flag)
}

// foreign refuses a store that knows nothing of the pods that run here: the
// agent would end them all.
func (s *server) foreign(ctx context.Context) error {
	if !s.options.agent {
		return nil
	}
	pods, err := nodeagent.RecordedPods(s.options.dataDir)
	if err != nil || len(pods) == 0 {
		return err
	}
	nodes, err := s.etcd.List(ctx, store.ListRequest{Prefix: "/core/nodes/", Limit: 1})
	if err != nil {
		return err
	}
	if len(nodes.KVs) == 0 {
		return fmt.Errorf("the store %s holds no cluster, but this machine runs %d pods of one, which would be ended: see whether the address is right; to move a cluster to etcd, start berth server with it, then berth restore FILE, then berth up; to begin a new one, berth down and empty %s",
			s.options.store.address.URL, len(pods), s.options.dataDir)
	}
	return nil
}

// firstFiles makes what the first server of a cluster makes for all.
func (s *server) firstFiles() error {
	if _, err := access.OpenTokens(s.options.dataDir); err != nil {
		return err
	}
	if _, err := access.OpenAccountKey(s.options.dataDir); err != nil {
		return err
	}
	_, err := access.ServerTLS(s.options.dataDir, nil, time.Now)
	return err
}

// fileChanged says what was taken from another server. Whoever uses the file looks at
// it anew by itself.
func (s *server) fileChanged(name string) {
	s.log.Info("a file is now as another server has it", "file", name)
}
