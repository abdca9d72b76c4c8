package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"syscall"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// HTTP is the Client of a remote server.
type HTTP struct {
	// URL of the server, such as https://127.0.0.1:7443.
	URL string
	// Token is sent as the bearer token; none with a client certificate.
	Token string
	// Client carries the requests; it must trust the server's certificate and
	// have no timeout, for watches last.
	Client *http.Client
	// Scheme knows the types.
	Scheme *runtime.Scheme
}

var _ Client = (*HTTP)(nil)

// Get implements Client.
func (c *HTTP) Get(ctx context.Context, key types.NamespacedName, into Object) error {
	path, err := c.path(into, key.Namespace, key.Name)
	if err != nil {
		return err
	}
	return c.do(ctx, http.MethodGet, path, nil, into)
}

// List implements Client.
func (c *HTTP) List(ctx context.Context, into ObjectList, opts ListOptions) error {
	path, err := c.path(into, opts.Namespace, "")
	if err != nil {
		return err
	}
	if err := c.do(ctx, http.MethodGet, path+"?"+query(opts).Encode(), nil, into); err != nil {
		return err
	}
	gvk, err := c.kind(into)
	if err != nil {
		return err
	}
	// The list says the kind once; each item is given it.
	return meta.EachListItem(into, func(item runtime.Object) error {
		item.GetObjectKind().SetGroupVersionKind(gvk)
		return nil
	})
}

// Watch implements Client.
func (c *HTTP) Watch(ctx context.Context, list ObjectList, opts ListOptions) (watch.Interface, error) {
	path, err := c.path(list, opts.Namespace, "")
	if err != nil {
		return nil, err
	}
	gvk, err := c.kind(list)
	if err != nil {
		return nil, err
	}
	q := query(opts)
	q.Set("watch", "true")
	q.Set("allowWatchBookmarks", "true")
	if opts.ResourceVersion != "" {
		q.Set("resourceVersion", opts.ResourceVersion)
	}
	ctx, cancel := context.WithCancel(ctx)
	response, err := c.send(ctx, http.MethodGet, path+"?"+q.Encode(), nil)
	if err != nil {
		cancel()
		return nil, err
	}
	w := &httpWatch{out: make(chan watch.Event), cancel: cancel}
	go w.run(ctx, response.Body, func() (Object, error) {
		obj, err := c.Scheme.New(gvk)
		if err != nil {
			return nil, err
		}
		return obj.(Object), nil
	})
	return w, nil
}

// Create implements Client.
func (c *HTTP) Create(ctx context.Context, obj Object) error {
	path, err := c.path(obj, obj.GetNamespace(), "")
	if err != nil {
		return err
	}
	obj.SetResourceVersion("")
	return c.write(ctx, http.MethodPost, path, obj)
}

// Update implements Client.
func (c *HTTP) Update(ctx context.Context, obj Object) error {
	path, err := c.path(obj, obj.GetNamespace(), obj.GetName())
	if err != nil {
		return err
	}
	return c.write(ctx, http.MethodPut, path, obj)
}

// UpdateStatus implements Client.
func (c *HTTP) UpdateStatus(ctx context.Context, obj Object) error {
	path, err := c.path(obj, obj.GetNamespace(), obj.GetName())
	if err != nil {
		return err
	}
	return c.write(ctx, http.MethodPut, path+"/status", obj)
}

// Delete implements Client.
func (c *HTTP) Delete(ctx context.Context, obj Object, opts DeleteOptions) error {
	path, err := c.path(obj, obj.GetNamespace(), obj.GetName())
	if err != nil {
		return err
	}
	o := metav1.DeleteOptions{
		TypeMeta:           metav1.TypeMeta{Kind: "DeleteOptions", APIVersion: "v1"},
		GracePeriodSeconds: opts.GracePeriodSeconds, Preconditions: &metav1.Preconditions{},
	}
	if opts.UID != "" {
		o.Preconditions.UID = &opts.UID
	}
	if opts.ResourceVersion != "" {
		o.Preconditions.ResourceVersion = &opts.ResourceVersion
	}
	if opts.Propagation != "" {
		o.PropagationPolicy = &opts.Propagation
	}
	body, err := json.Marshal(o)
	if err != nil {
		return err
	}
	return c.do(ctx, http.MethodDelete, path, body, nil)
}

// RequestToken implements Client.
func (c *HTTP) RequestToken(ctx context.Context, account types.NamespacedName, request *authenticationv1.TokenRequest) error {
	path, err := c.path(&corev1.ServiceAccount{}, account.Namespace, account.Name)
	if err != nil {
		return err
	}
	request.SetGroupVersionKind(authenticationv1.SchemeGroupVersion.WithKind("TokenRequest"))
	body, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("encode TokenRequest: %w", err)
	}
	return c.do(ctx, http.MethodPost, path+"/token", body, request)
}

func (c *HTTP) write(ctx context.Context, method, path string, obj Object) error {
	gvk, err := c.kind(obj)
	if err != nil {
		return err
	}
	obj.GetObjectKind().SetGroupVersionKind(gvk)
	body, err := json.Marshal(obj)
	if err != nil {
		return fmt.Errorf("encode %s: %w", gvk.Kind, err)
	}
	return c.do(ctx, method, path, body, obj)
}

// do sends a request and decodes the answer over what into held before.
func (c *HTTP) do(ctx context.Context, method, path string, body []byte, into runtime.Object) error {
	response, err := c.send(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if into == nil {
		_, err = io.Copy(io.Discard, response.Body)
		return err
	}
	v := reflect.ValueOf(into).Elem()
	fresh := reflect.New(v.Type())
	if err := json.NewDecoder(response.Body).Decode(fresh.Interface()); err != nil {
		return fmt.Errorf("decode the answer of %s: %w", path, err)
	}
	v.Set(fresh.Elem())
	return nil
}

// send returns an answer of success; any other is an API error.
func (c *HTTP) send(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, c.URL+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if c.Token != "" {
		r.Header.Set("Authorization", "Bearer "+c.Token)
	}
	r.Header.Set("Accept", "application/json")
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	response, err := c.Client.Do(r)
	if err != nil {
		return nil, Unreachable(err)
	}
	if response.StatusCode < 300 {
		return response, nil
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(response.Body, 1<<20)) // what can be read is shown
	status := metav1.Status{}
	if err := json.Unmarshal(text, &status); err == nil && status.Kind == "Status" {
		return nil, &apierrors.StatusError{ErrStatus: status}
	}
	return nil, apierrors.NewGenericServerResponse(response.StatusCode, method, schema.GroupResource{}, path, strings.TrimSpace(string(text)), 0, true)
}

// Unreachable adds the remedy to an error of a connection.
func Unreachable(err error) error {
	if errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("reach the server: %w; start it with berth up", err)
	}
	return fmt.Errorf("reach the server: %w", err)
}

// kind of an object, or of the items of a list.
func (c *HTTP) kind(obj runtime.Object) (schema.GroupVersionKind, error) {
	kinds, _, err := c.Scheme.ObjectKinds(obj)
	if err != nil {
		return schema.GroupVersionKind{}, err
	}
	k := kinds[0]
	k.Kind = strings.TrimSuffix(k.Kind, "List")
	return k, nil
}

func (c *HTTP) path(obj runtime.Object, namespace, name string) (string, error) {
	gvk, err := c.kind(obj)
	if err != nil {
		return "", err
	}
	path := "/apis/" + gvk.Group + "/" + gvk.Version
	if gvk.Group == "" {
		path = "/api/" + gvk.Version
	}
	if namespace != "" {
		path += "/namespaces/" + url.PathEscape(namespace)
	}
	plural, _ := meta.UnsafeGuessKindToResource(gvk)
	path += "/" + plural.Resource
	if name != "" {
		path += "/" + url.PathEscape(name)
	}
	return path, nil
}

func query(opts ListOptions) url.Values {
	q := url.Values{}
	if opts.Labels != nil && !opts.Labels.Empty() {
		q.Set("labelSelector", opts.Labels.String())
	}
	if opts.Fields != nil && !opts.Fields.Empty() {
		q.Set("fieldSelector", opts.Fields.String())
	}
	return q
}

// httpWatch decodes the events of one connection.
type httpWatch struct {
	out    chan watch.Event
	cancel context.CancelFunc
}

var _ watch.Interface = (*httpWatch)(nil)

// Stop implements watch.Interface.
func (w *httpWatch) Stop() { w.cancel() }

// ResultChan implements watch.Interface.
func (w *httpWatch) ResultChan() <-chan watch.Event { return w.out }

func (w *httpWatch) run(ctx context.Context, body io.ReadCloser, newObject func() (Object, error)) {
	defer close(w.out)
	defer w.cancel()
	defer body.Close()
	decoder := json.NewDecoder(body)
	for {
		var frame struct {
			Type   watch.EventType
			Object json.RawMessage
		}
		if err := decoder.Decode(&frame); err != nil {
			return // the connection ended: the caller watches again
		}
		event := watch.Event{Type: frame.Type}
		if frame.Type == watch.Error {
			status := &metav1.Status{}
			if err := json.Unmarshal(frame.Object, status); err != nil {
				return
			}
			event.Object = status
		} else {
			obj, err := newObject()
			if err != nil || json.Unmarshal(frame.Object, obj) != nil {
				return
			}
			event.Object = obj
		}
		select {
		case w.out <- event:
		case <-ctx.Done():
			return
		}
	}
}
