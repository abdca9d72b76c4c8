package controllers

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/resources"
)

// owner is a StatefulSet or a DaemonSet as its history sees it.
type owner struct {
	client.Object
	kind       schema.GroupVersionKind
	template   *corev1.PodTemplateSpec
	collisions *int32
	limit      *int32
}

// history is the ControllerRevisions of an owner: what its Pods were made from.
type history struct {
	// all are those that exist, the oldest first.
	all []*appsv1.ControllerRevision
	// update is the revision of the present template. It is among all, or new.
	update *appsv1.ControllerRevision
	// create and renumber: update is new, or old and in use again.
	create, renumber bool
	// collision: its name is taken by another template.
	collision bool
}

// templates are the patches of the templates of owners as they are, by UID: they
// are made once for each generation.
type templates struct {
	mu    sync.Mutex
	known map[types.UID]templateData
}

type templateData struct {
	generation int64
	patch      []byte
}

// of is the patch of an owner's template.
func (t *templates) of(o owner) []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	if d, ok := t.known[o.GetUID()]; ok && d.generation == o.GetGeneration() {
		return d.patch
	}
	d := templateData{o.GetGeneration(), templatePatch(o.template)}
	t.known[o.GetUID()] = d
	return d.patch
}

func (t *templates) forget(owner types.UID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.known, owner)
}

// historyOf finds the revision of the owner's template, or makes it. data is the
// patch of that template. It is pure.
func historyOf(o owner, data []byte, revisions []*appsv1.ControllerRevision) history {
	h := history{}
	for _, r := range revisions {
		if controls(o, r) && r.DeletionTimestamp == nil {
			h.all = append(h.all, r)
		}
	}
	slices.SortFunc(h.all, func(a, b *appsv1.ControllerRevision) int {
		return cmp.Or(cmp.Compare(a.Revision, b.Revision), a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	next := int64(1)
	if n := len(h.all); n > 0 {
		next = h.all[n-1].Revision + 1
	}
	for _, r := range h.all {
		if bytes.Equal(r.Data.Raw, data) {
			h.update = r
		}
	}
	switch {
	case h.update == nil:
		h.update, h.create = newRevision(o, data, next), true
		h.collision = slices.ContainsFunc(h.all, func(r *appsv1.ControllerRevision) bool { return r.Name == h.update.Name })
	case h.update.Revision != next-1: // the template of before is back
		h.update, h.renumber = h.update.DeepCopy(), true
		h.update.Revision = next
	}
	return h
}

// adoptRevisions takes on the history that an owner of the same name left
// behind, and reports whether there was any.
func (c *cluster) adoptRevisions(ctx context.Context, o client.Object, kind schema.GroupVersionKind, selector *metav1.LabelSelector) (bool, error) {
	written, err := adopt(ctx, c.resources, family[*appsv1.ControllerRevision]{
		owner: o, ref: ownerRef(kind, o), selector: selector, orphans: c.orphanRevs.in(o.GetNamespace()),
		suits: func(r *appsv1.ControllerRevision) bool { return strings.HasPrefix(r.Name, o.GetName()+"-") },
	})
	return len(written) > 0, err
}

func newRevision(o owner, data []byte, number int64) *appsv1.ControllerRevision {
	h := fnv.New32a()
	h.Write([]byte(o.kind.Kind)) // another kind may have an object of that name
	h.Write(data)
	if o.collisions != nil {
		fmt.Fprintf(h, "/%d", *o.collisions)
	}
	hash := rand.SafeEncodeString(strconv.FormatUint(uint64(h.Sum32()), 10))
	return &appsv1.ControllerRevision{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: o.GetNamespace(), Name: o.GetName() + "-" + hash,
			// kubectl rollout history finds revisions by the labels of the template.
			Labels:          with(o.template.Labels, appsv1.ControllerRevisionHashLabelKey, hash),
			OwnerReferences: []metav1.OwnerReference{ownerRef(o.kind, o)},
		},
		Data:     runtime.RawExtension{Raw: data},
		Revision: number,
	}
}

// templatePatch is the strategic merge patch that brings a template back, as
// kubectl rollout undo applies it.
func templatePatch(t *corev1.PodTemplateSpec) []byte {
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(t)
	if err != nil {
		panic(fmt.Sprintf("a decoded template always converts: %v", err))
	}
	fields["$patch"] = "replace"
	data, err := json.Marshal(map[string]any{"spec": map[string]any{"template": fields}})
	if err != nil {
		panic(fmt.Sprintf("a converted template always encodes: %v", err))
	}
	return data
}

// templateOf is the template that a revision keeps.
func templateOf(r *appsv1.ControllerRevision) (*corev1.PodTemplateSpec, error) {
	var patch struct {
		Spec struct {
			Template corev1.PodTemplateSpec `json:"template"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(r.Data.Raw, &patch); err != nil {
		return nil, fmt.Errorf("read revision %s: %w", r.Name, err)
	}
	return &patch.Spec.Template, nil
}

// named finds a revision that exists, or the new one.
func (h *history) named(name string) *appsv1.ControllerRevision {
	if h.update.Name == name {
		return h.update
	}
	for _, r := range h.all {
		if r.Name == name {
			return r
		}
	}
	return nil
}

// surplus are the oldest revisions that no Pod has, beyond the limit.
func (h *history) surplus(limit *int32, used map[string]bool) []*appsv1.ControllerRevision {
	if limit == nil {
		return nil
	}
	var idle []*appsv1.ControllerRevision
	for _, r := range h.all {
		if !used[r.Name] && r.Name != h.update.Name {
			idle = append(idle, r)
		}
	}
	return idle[:max(0, len(idle)-int(*limit))]
}

// write adds to a transaction what has to be done to the history.
func (h *history) write(ctx context.Context, tx *resources.Tx, remove []*appsv1.ControllerRevision) error {
	switch {
	case h.create:
		if err := tx.Create(ctx, h.update); err != nil {
			return fmt.Errorf("create revision %s: %w", h.update.Name, err)
		}
	case h.renumber:
		if err := tx.Update(ctx, h.update); err != nil {
			return fmt.Errorf("renumber revision %s: %w", h.update.Name, err)
		}
	}
	for _, r := range remove {
		if err := tx.Delete(ctx, r.DeepCopy(), client.DeleteOptions{UID: r.UID}); ignoreNotFound(err) != nil {
			return fmt.Errorf("delete revision %s: %w", r.Name, err)
		}
	}
	return nil
}

// taken: the name of the new revision belongs to somebody else, and is not about
// to be adopted.
func (h *history) taken(ctx context.Context, r *resources.Resources, o client.Object, selector *metav1.LabelSelector, err error) bool {
	if !h.create || !apierrors.IsAlreadyExists(err) {
		return false
	}
	var have appsv1.ControllerRevision
	return r.Get(ctx, client.Key(h.update), &have) == nil && !controls(o, &have) && !(adoptable(&have) && wouldAdopt(selector, &have))
}

// changes reports whether write does anything.
func (h *history) changes(remove []*appsv1.ControllerRevision) bool {
	return h.create || h.renumber || len(remove) > 0
}
