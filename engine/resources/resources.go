package resources

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/upstream"
	"berth.dev/berth/engine/store"
)

// Options are what Resources is made of. All but Signer must be set.
type Options struct {
	Store    store.Store
	Upstream *upstream.Upstream
	Clock    clock.PassiveClock
	// ServiceCIDR is the range that cluster addresses are taken from.
	ServiceCIDR netip.Prefix
	// Signer makes the tokens of service accounts; without one there are none.
	Signer Signer
}

// Resources reads and writes objects. It is safe for concurrent use.
type Resources struct {
	store    store.Store
	upstream *upstream.Upstream
	clock    clock.PassiveClock
	services netip.Prefix
	signer   Signer

	table   []*Resource
	byKind  map[schema.GroupVersionKind]*Resource
	byType  map[reflect.Type]*Resource
	decoded *decodedCache
}

var _ client.Client = (*Resources)(nil)

// New makes Resources over a store.
func New(o Options) *Resources {
	r := &Resources{
		store: o.Store, upstream: o.Upstream, clock: o.Clock, services: o.ServiceCIDR, signer: o.Signer,
		table:   Table(),
		byKind:  map[schema.GroupVersionKind]*Resource{},
		byType:  map[reflect.Type]*Resource{},
		decoded: &decodedCache{byRev: map[decodedKey]client.Object{}},
	}
	for _, row := range r.table {
		r.byKind[row.GroupVersionKind] = row
		r.byType[reflect.TypeOf(row.newObject())] = row
		r.byType[reflect.TypeOf(row.newList())] = row
	}
	return r
}

// All is the table of kinds.
func (r *Resources) All() []*Resource { return r.table }

// Revision of the last write.
func (r *Resources) Revision() int64 { return r.store.Revision() }

// Scheme holds the Go types of the kinds.
func (r *Resources) Scheme() *runtime.Scheme { return r.upstream.Scheme() }

// ByKind finds the row of a kind; false when the cluster does not store it.
func (r *Resources) ByKind(gvk schema.GroupVersionKind) (*Resource, bool) {
	row, ok := r.byKind[gvk]
	return row, ok
}

// Of finds the row of an object's or list's type.
func (r *Resources) Of(obj runtime.Object) (*Resource, error) {
	row, ok := r.byType[reflect.TypeOf(obj)]
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("%T is not a kind that the cluster stores", obj))
	}
	return row, nil
}

// Get implements client.Client.
func (r *Resources) Get(ctx context.Context, key types.NamespacedName, into client.Object) error {
	row, err := r.Of(into)
	if err != nil {
		return err
	}
	obj, _, err := r.load(ctx, row, key.Namespace, key.Name)
	if err != nil {
		return err
	}
	assign(into, obj)
	return nil
}

// load reads one object with the pair that it was decoded from.
func (r *Resources) load(ctx context.Context, row *Resource, namespace, name string) (client.Object, store.KV, error) {
	kv, ok, err := r.store.Get(ctx, row.key(namespace, name))
	if err != nil {
		return nil, store.KV{}, fault(err)
	}
	if !ok {
		return nil, store.KV{}, apierrors.NewNotFound(row.GroupResource(), name)
	}
	obj, err := row.decode(kv)
	if err != nil {
		return nil, store.KV{}, apierrors.NewInternalError(err)
	}
	return obj, kv, nil
}

// assign sets *dst = *src for two pointers of one type.
func assign(dst, src any) { reflect.ValueOf(dst).Elem().Set(reflect.ValueOf(src).Elem()) }

// ListRequest selects objects of a kind.
type ListRequest struct {
	Namespace string
	Labels    labels.Selector
	Fields    fields.Selector
	// Limit is the most objects to return; 0 means all.
	Limit int
	// From and At go on where a former List ended.
	From string
	At   int64
}

// ListResult is a part of a list, read at one revision.
type ListResult struct {
	Objects  []client.Object
	Revision int64
	// Next is where to go on; empty at the end.
	Next string
}

// Objects lists objects of a kind, sorted by namespace and name.
func (r *Resources) Objects(ctx context.Context, row *Resource, q ListRequest) (ListResult, error) {
	want := newSelector(row, q.Labels, q.Fields)
	result := ListResult{}
	request := store.ListRequest{Prefix: row.prefix(q.Namespace), From: q.From, Limit: q.Limit, At: q.At}
	for {
		page, err := r.store.List(ctx, request)
		if err != nil {
			return ListResult{}, fault(err)
		}
		result.Revision = page.Revision
		objs, err := row.decodeAll(page.KVs, want)
		if err != nil {
			return ListResult{}, apierrors.NewInternalError(err)
		}
		result.Objects = append(result.Objects, objs...)
		result.Next = page.Next
		if page.Next == "" || (q.Limit > 0 && len(result.Objects) >= q.Limit) {
			return result, nil
		}
		request.From, request.At = page.Next, page.Revision
		request.Limit = q.Limit - len(result.Objects)
	}
}

// List implements client.Client.
func (r *Resources) List(ctx context.Context, into client.ObjectList, opts client.ListOptions) error {
	row, err := r.Of(into)
	if err != nil {
		return err
	}
	result, err := r.Objects(ctx, row, ListRequest{Namespace: opts.Namespace, Labels: opts.Labels, Fields: opts.Fields})
	if err != nil {
		return err
	}
	into.SetResourceVersion(strconv.FormatInt(result.Revision, 10))
	items := make([]runtime.Object, len(result.Objects))
	for i, obj := range result.Objects {
		items[i] = obj
	}
	return meta.SetList(into, items)
}
