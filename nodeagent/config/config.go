// Package config keeps the ConfigMaps, Secrets and claims that this node's pods refer to:
// it follows each of them, tells who must look again when one changes, and has
// a copy on disk for when the control plane is away. Secrets are in folders of
// mode 0700 and files of mode 0600. It reads nothing that no pod refers to.
package config

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"berth.dev/berth/api/client"
	"berth.dev/berth/nodeagent/pods"
)

// patience is how long a pod waits for the control plane's answer before it
// takes the copy on disk.
const patience = 2 * time.Second

// Kind of object that a pod refers to, by its name in the API.
type Kind string

// Kinds that are followed.
const (
	ConfigMap Kind = "configmaps"
	Secret    Kind = "secrets"
	Claim     Kind = "persistentvolumeclaims"
	// volume is not followed, but has a copy on disk.
	volume Kind = "persistentvolumes"
)

// Ref is a reference from a pod.
type Ref struct {
	Kind            Kind
	Namespace, Name string
}

func (r Ref) String() string {
	name := map[Kind]string{ConfigMap: "ConfigMap", Secret: "Secret", Claim: "PersistentVolumeClaim", volume: "PersistentVolume"}[r.Kind]
	return fmt.Sprintf("%s %s/%s", name, r.Namespace, r.Name)
}

func (r Ref) list() client.ObjectList {
	switch r.Kind {
	case Secret:
		return &corev1.SecretList{}
	case Claim:
		return &corev1.PersistentVolumeClaimList{}
	}
	return &corev1.ConfigMapList{}
}

// Store is the node's copy.
type Store struct {
	client client.Client
	dir    string
	log    *slog.Logger
	// changed is told which pods use an object that changed.
	changed func(uids []string)
	begin   chan *entry

	mu      sync.Mutex
	entries map[Ref]*entry
}

type entry struct {
	ref    Ref
	users  map[string]bool
	cancel context.CancelFunc
	ctx    context.Context
	synced chan struct{}
	once   sync.Once
	mu     sync.Mutex
	obj    client.Object
}

var _ pods.Config = (*Store)(nil)

// New readies a Store. Run must be running for anything to be read.
func New(c client.Client, dir string, log *slog.Logger, changed func(uids []string)) *Store {
	return &Store{client: c, dir: dir, log: log, changed: changed, begin: make(chan *entry), entries: map[Ref]*entry{}}
}

// Run follows what pods refer to, until the context ends.
func (s *Store) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for {
		select {
		case <-ctx.Done():
			return group.Wait()
		case e := <-s.begin:
			group.Go(func() error {
				stop := context.AfterFunc(ctx, e.cancel)
				defer stop()
				err := client.Follow(e.ctx, s.client, e.ref.list(), client.ListOptions{
					Namespace: e.ref.Namespace, Fields: fields.OneTermEqualSelector("metadata.name", e.ref.Name),
				}, &follower{s, e})
				if err != nil {
					s.log.Warn("follow what a pod refers to", "object", e.ref.String(), "err", err)
				}
				return nil
			})
		}
	}
}

// Use implements pods.Config.
func (s *Store) Use(ctx context.Context, pod *corev1.Pod) { s.use(ctx, string(pod.UID), Refs(pod)) }

// Drop implements pods.Config.
func (s *Store) Drop(ctx context.Context, uid string) { s.use(ctx, uid, nil) }

// use says what a pod refers to; what it no longer does is let go.
func (s *Store) use(ctx context.Context, uid string, refs []Ref) {
	s.mu.Lock()
	var fresh []*entry
	for _, ref := range refs {
		e := s.entries[ref]
		if e == nil {
			e = &entry{ref: ref, users: map[string]bool{}, synced: make(chan struct{})}
			e.ctx, e.cancel = context.WithCancel(context.WithoutCancel(ctx))
			s.entries[ref] = e
			fresh = append(fresh, e)
		}
		e.users[uid] = true
	}
	for ref, e := range s.entries {
		if e.users[uid] && !slices.Contains(refs, ref) {
			delete(e.users, uid)
		}
		if len(e.users) == 0 {
			e.cancel()
			delete(s.entries, ref)
			_ = os.Remove(s.file(ref))
			e.mu.Lock()
			if c, ok := e.obj.(*corev1.PersistentVolumeClaim); ok && c.Spec.VolumeName != "" {
				_ = os.Remove(s.file(Ref{Kind: volume, Name: c.Spec.VolumeName}))
			}
			e.mu.Unlock()
		}
	}
	s.mu.Unlock()
	for _, e := range fresh {
		select {
		case s.begin <- e:
		case <-ctx.Done():
			return
		}
	}
}

// ConfigMap implements pods.Config.
func (s *Store) ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	obj, err := s.get(ctx, Ref{Kind: ConfigMap, Namespace: namespace, Name: name}, &corev1.ConfigMap{})
	if err != nil {
		return nil, err
	}
	return obj.(*corev1.ConfigMap), nil
}

// Secret implements pods.Config.
func (s *Store) Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	obj, err := s.get(ctx, Ref{Kind: Secret, Namespace: namespace, Name: name}, &corev1.Secret{})
	if err != nil {
		return nil, err
	}
	return obj.(*corev1.Secret), nil
}

func (s *Store) get(ctx context.Context, ref Ref, into client.Object) (client.Object, error) {
	s.mu.Lock()
	e := s.entries[ref]
	s.mu.Unlock()
	if e == nil {
		return nil, fmt.Errorf("%s was not announced by its pod", ref)
	}
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-e.synced:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-t.C:
		data, err := os.ReadFile(s.file(ref))
		if err == nil && json.Unmarshal(data, into) == nil {
			return into, nil
		}
		return nil, &pods.WaitError{Reason: "CreateContainerConfigError", Message: fmt.Sprintf("%s is not known on this node yet: waiting for the control plane", ref)}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.obj == nil {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: string(ref.Kind)}, ref.Name)
	}
	return e.obj, nil
}

func (s *Store) file(ref Ref) string {
	return filepath.Join(s.dir, string(ref.Kind), ref.Namespace, ref.Name+".json")
}

type follower struct {
	s *Store
	e *entry
}

func (f *follower) Set(obj client.Object) {
	f.e.mu.Lock()
	f.e.obj = obj
	f.e.mu.Unlock()
	if err := f.s.save(f.e.ref, obj); err != nil {
		f.s.log.Error("keep a copy of what pods refer to", "object", f.e.ref.String(), "err", err)
	}
	f.tell()
}

func (f *follower) Gone(client.Object) {
	f.e.mu.Lock()
	f.e.obj = nil
	f.e.mu.Unlock()
	if err := os.Remove(f.s.file(f.e.ref)); err != nil && !errors.Is(err, os.ErrNotExist) {
		f.s.log.Error("forget what pods refer to", "object", f.e.ref.String(), "err", err)
	}
	f.tell()
}

func (f *follower) Synced() { f.e.once.Do(func() { close(f.e.synced) }) }

// tell says that it changed, but not before the first answer: those who wait
// for that one see it by themselves.
func (f *follower) tell() {
	select {
	case <-f.e.synced:
	default:
		return
	}
	f.s.mu.Lock()
	uids := make([]string, 0, len(f.e.users))
	for uid := range f.e.users {
		uids = append(uids, uid)
	}
	f.s.mu.Unlock()
	slices.Sort(uids)
	f.s.changed(uids)
}

func (s *Store) save(ref Ref, obj client.Object) error {
	data, err := json.Marshal(obj)
	if err != nil {
		return err
	}
	file := s.file(ref)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	tmp := file + ".tmp"
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, file)
}
