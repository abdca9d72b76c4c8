package recovery

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/resources"
	"berth.dev/berth/engine/store"
)

// Input is what a store is built anew from. Fields may be empty unless they say
// otherwise.
type Input struct {
	// Path is where the new store is made; nothing may be there. Required.
	Path string
	// Wrap puts the decorators of the store around it. Required.
	Wrap func(context.Context, *store.Bolt) (*store.Sealed, error)
	// Resources are made over a store. Required.
	Resources func(store.Store) *resources.Resources
	// Saved is the recovery file.
	Saved *Saved
	// Intact is what could still be read in the damaged store.
	Intact []store.KV
	// Node is the name of this machine, Pods what its agent runs.
	Node string
	Pods []*corev1.Pod
	Now  time.Time
}

// Result says what was brought back.
type Result struct {
	// Sources are their names; Pods counts those that run on.
	Sources []string
	Pods    int
	// Objects counts everything.
	Objects int
	// Lost are objects that were known and could not be put back, with the reason.
	Lost []string
}

// id names an object.
type id struct {
	kind schema.GroupKind
	name types.NamespacedName
}

// Rebuild makes a new store. When it fails, or the process ends first, nothing
// was changed but the file at Path.
func Rebuild(ctx context.Context, in Input) (result Result, err error) {
	if err := os.Remove(in.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return result, err
	}
	bolt, err := store.OpenBoltAt(in.Path, in.revision())
	if err != nil {
		return result, err
	}
	ctx, cancel := context.WithCancel(ctx)
	ran := make(chan error, 1)
	go func() { ran <- bolt.Run(ctx) }()
	defer func() {
		cancel()
		err = errors.Join(err, <-ran)
	}()
	sealed, err := in.Wrap(ctx, bolt)
	if err != nil {
		return result, err
	}
	r := in.Resources(sealed)
	objects, lost := in.gather(r, sealed)
	tx := r.Begin()
	for _, obj := range objects {
		name := describe(obj)
		if err := tx.Restore(ctx, obj); err != nil {
			lost = append(lost, name+": "+err.Error())
			continue
		}
		result.Objects++
		switch obj.GetObjectKind().GroupVersionKind().Kind {
		case "Source":
			result.Sources = append(result.Sources, obj.GetName())
		case "Pod":
			result.Pods++
		}
	}
	result.Lost = lost
	return result, tx.Commit(ctx)
}

// revision begins well above the last one that is known; when none is, above
// any that a store can have come to.
func (in *Input) revision() int64 {
	last := int64(0)
	if in.Saved != nil {
		last = in.Saved.Revision
	}
	for _, kv := range in.Intact {
		last = max(last, kv.Revision)
	}
	if last == 0 {
		return in.Now.Unix()
	}
	return last + store.RevisionGap
}

// gather decides what is put back: what the file says, in the newer version
// that the damaged store may still hold, and the pods as their node knows them.
func (in *Input) gather(r *resources.Resources, sealed *store.Sealed) (objects []client.Object, lost []string) {
	all := map[id]client.Object{}
	add := func(obj client.Object) {
		row, err := r.Of(obj)
		if err != nil {
			return
		}
		obj.GetObjectKind().SetGroupVersionKind(row.GroupVersionKind)
		all[id{row.GroupVersionKind.GroupKind(), client.Key(obj)}] = obj
	}
	if in.Saved != nil {
		for _, obj := range in.Saved.Objects {
			add(obj)
		}
	}
	for _, kv := range in.Intact {
		row, ok := r.RowOf(kv.Key)
		if !ok || madeAnew(row.Kind) {
			continue
		}
		kv, err := sealed.Opened(kv)
		if err != nil {
			lost = append(lost, err.Error())
			continue
		}
		if obj, err := row.Decode(kv); err == nil && needed(obj) {
			add(kept(obj))
		}
	}
	in.pods(all, add)
	for _, obj := range all {
		namespace := obj.GetNamespace()
		if _, there := all[id{schema.GroupKind{Kind: "Namespace"}, types.NamespacedName{Name: namespace}}]; namespace != "" && !there {
			add(in.namespace(namespace))
		}
	}
	uids := map[types.UID]bool{}
	for _, obj := range all {
		uids[obj.GetUID()] = true
		objects = append(objects, obj)
	}
	for _, obj := range objects {
		release(obj, uids)
	}
	slices.SortFunc(objects, func(a, b client.Object) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(describe(a), describe(b)))
	})
	return objects, lost
}

// madeAnew are the kinds that others make anew from what is there.
func madeAnew(kind string) bool {
	return slices.Contains([]string{"Event", "Lease", "EndpointSlice", "Endpoints"}, kind)
}

// pods takes those of this node from its agent. One that the agent does not
// know is not running: its controller makes another, if it has one.
func (in *Input) pods(all map[id]client.Object, add func(client.Object)) {
	for key, obj := range all {
		pod, ok := obj.(*corev1.Pod)
		if ok && pod.Spec.NodeName == in.Node && (metav1.GetControllerOf(pod) != nil || slices.ContainsFunc(in.Pods, func(p *corev1.Pod) bool { return client.Key(p) == client.Key(pod) })) {
			delete(all, key)
		}
	}
	for _, pod := range in.Pods {
		pod = pod.DeepCopy()
		pod.SetManagedFields(nil)
		pod.SetResourceVersion("")
		add(pod)
	}
}

// namespace is one that was not known of, though something is in it.
func (in *Input) namespace(name string) client.Object {
	return &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: uuid.NewUUID(), CreationTimestamp: metav1.NewTime(in.Now)},
		Spec:       corev1.NamespaceSpec{Finalizers: []corev1.FinalizerName{corev1.FinalizerKubernetes}},
		Status:     corev1.NamespaceStatus{Phase: corev1.NamespaceActive},
	}
}

// release takes off the owners that are gone: an object that names one is
// collected as garbage, one that names none is taken over.
func release(obj client.Object, uids map[types.UID]bool) {
	var owners []metav1.OwnerReference
	for _, o := range obj.GetOwnerReferences() {
		if uids[o.UID] {
			owners = append(owners, o)
		}
	}
	obj.SetOwnerReferences(owners)
}

// rank: Namespaces before what is in them.
func rank(obj client.Object) int {
	if _, ok := obj.(*corev1.Namespace); ok {
		return 0
	}
	return 1
}

func describe(obj client.Object) string {
	name := obj.GetName()
	if ns := obj.GetNamespace(); ns != "" {
		name = ns + "/" + name
	}
	return obj.GetObjectKind().GroupVersionKind().Kind + " " + name
}
