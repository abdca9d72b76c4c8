package resources

import (
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sync/errgroup"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/store"
)

// The first byte of a stored value says how the rest is encoded.
const (
	formatProtobuf = 'p'
	formatJSON     = 'j'
)

type protobuf interface {
	Marshal() ([]byte, error)
	Unmarshal([]byte) error
}

// encode leaves out the resourceVersion, which is the store's revision.
func (r *Resource) encode(obj client.Object) ([]byte, error) {
	if r.stored != nil {
		saved, err := r.stored.save(obj)
		if err != nil {
			return nil, err
		}
		obj = saved
	}
	return encode(obj)
}

func encode(obj client.Object) ([]byte, error) {
	version := obj.GetResourceVersion()
	obj.SetResourceVersion("")
	defer obj.SetResourceVersion(version)
	if p, ok := obj.(protobuf); ok {
		b, err := p.Marshal()
		return append([]byte{formatProtobuf}, b...), err
	}
	b, err := json.Marshal(obj)
	return append([]byte{formatJSON}, b...), err
}

// decode makes an object out of a stored pair.
func (r *Resource) decode(kv store.KV) (client.Object, error) {
	fresh := r.newObject
	if r.stored != nil {
		fresh = r.stored.newStored
	}
	obj := fresh()
	if err := decodeInto(kv, obj); err != nil {
		return nil, err
	}
	if r.stored != nil {
		loaded, err := r.stored.load(obj)
		if err != nil {
			return nil, fmt.Errorf("decode %s: %w", kv.Key, err)
		}
		obj = loaded
	}
	obj.GetObjectKind().SetGroupVersionKind(r.GroupVersionKind)
	return obj, nil
}

// decodeShare is how many objects one goroutine decodes at a time.
const decodeShare = 256

// decodeAll decodes pairs and keeps the objects that match, in their order.
// Many are decoded on all processors.
func (r *Resource) decodeAll(kvs []store.KV, want *selector) ([]client.Object, error) {
	if len(kvs) <= decodeShare {
		return r.decodeMatching(kvs, want)
	}
	shares := make([][]client.Object, (len(kvs)+decodeShare-1)/decodeShare)
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i := range shares {
		g.Go(func() (err error) {
			shares[i], err = r.decodeMatching(kvs[i*decodeShare:min(len(kvs), (i+1)*decodeShare)], want)
			return err
		})
	}
	err := g.Wait()
	return slices.Concat(shares...), err
}

func (r *Resource) decodeMatching(kvs []store.KV, want *selector) ([]client.Object, error) {
	out := make([]client.Object, 0, len(kvs))
	for _, kv := range kvs {
		if !want.may(kv) {
			continue
		}
		obj, err := r.decode(kv)
		if err != nil {
			return nil, err
		}
		if want.matches(obj) {
			out = append(out, obj)
		}
	}
	return out, nil
}

func decodeInto(kv store.KV, obj client.Object) error {
	if len(kv.Value) == 0 {
		return fmt.Errorf("decode %s: the value is empty", kv.Key)
	}
	var err error
	switch format, body := kv.Value[0], kv.Value[1:]; format {
	case formatProtobuf:
		p, ok := obj.(protobuf)
		if !ok {
			return fmt.Errorf("decode %s: stored as protobuf, but %T has no such form", kv.Key, obj)
		}
		err = p.Unmarshal(body)
	case formatJSON:
		err = json.Unmarshal(body, obj)
	default:
		err = fmt.Errorf("unknown format %q", format)
	}
	if err != nil {
		return fmt.Errorf("decode %s: %w", kv.Key, err)
	}
	obj.SetResourceVersion(strconv.FormatInt(kv.Revision, 10))
	return nil
}

// decodedLimit is how many decoded objects are kept for watchers.
const decodedLimit = 2048

// decodedCache lets all watchers of an event share one decoded object.
type decodedCache struct {
	mu    sync.Mutex
	byRev map[decodedKey]client.Object
	order []decodedKey
}

type decodedKey struct {
	row      *Resource
	revision int64
}

func (c *decodedCache) get(r *Resource, kv store.KV) (client.Object, error) {
	key := decodedKey{r, kv.Revision}
	c.mu.Lock()
	obj, ok := c.byRev[key]
	c.mu.Unlock()
	if ok {
		return obj, nil
	}
	obj, err := r.decode(kv)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if shared, ok := c.byRev[key]; ok {
		return shared, nil
	}
	if len(c.order) == decodedLimit {
		delete(c.byRev, c.order[0])
		c.order = c.order[1:]
	}
	c.byRev[key] = obj
	c.order = append(c.order, key)
	return obj, nil
}
