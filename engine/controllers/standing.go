package controllers

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
)

// standing keeps one object of a name in each Namespace: it is made where it is
// missing, and put right where mend says so.
type standing struct {
	*cluster
	loop *loop
	name string
	list client.ObjectList
	// make returns the object for a Namespace.
	make func(namespace string) client.Object
	// mend puts right what is in the object, and tells whether anything was wrong.
	mend func(client.Object) bool
}

func (s *standing) start(loopName string) {
	s.loop = newLoop(s.cluster, loopName, s.reconcile)
	s.Namespaces.OnChange(func(_, now *corev1.Namespace) {
		if now != nil {
			s.loop.add(now)
		}
	})
}

// Run works until the context ends.
func (s *standing) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.loop.run(ctx, s.Namespaces) })
	g.Go(func() error {
		return client.Follow(ctx, s.resources, s.list, client.ListOptions{Fields: fields.OneTermEqualSelector("metadata.name", s.name)}, s)
	})
	return g.Wait()
}

// Set implements client.Follower.
func (s *standing) Set(obj client.Object) {
	if s.mend(obj.DeepCopyObject().(client.Object)) {
		s.touched(obj)
	}
}

// Gone implements client.Follower.
func (s *standing) Gone(obj client.Object) { s.touched(obj) }

// Synced implements client.Follower.
func (s *standing) Synced() {}

func (s *standing) touched(obj client.Object) {
	s.loop.queue.Add(types.NamespacedName{Name: obj.GetNamespace()})
}

// reconcile is called with the key of a Namespace.
func (s *standing) reconcile(ctx context.Context, key types.NamespacedName) error {
	ns, ok := s.Namespaces.Get(key)
	if !ok || ns.DeletionTimestamp != nil {
		return nil
	}
	want := s.make(ns.Name)
	have := want.DeepCopyObject().(client.Object)
	err := s.resources.Get(ctx, client.Key(want), have)
	if apierrors.IsNotFound(err) {
		err = s.resources.Create(ctx, want)
		if apierrors.IsAlreadyExists(err) || apierrors.IsForbidden(err) { // or the Namespace is going away by now
			return nil
		}
		return ignoreNotFound(err)
	}
	if err != nil || have.GetDeletionTimestamp() != nil || !s.mend(have) {
		return err
	}
	if err := s.resources.Update(ctx, have); err != nil {
		return fmt.Errorf("put %s in namespace %s right: %w", s.name, ns.Name, err)
	}
	return nil
}
