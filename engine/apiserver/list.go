package apiserver

import (
	"bytes"
	"encoding/json"
	"runtime"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/resources"
)

// shareSize is how many objects one goroutine encodes at a time.
const shareSize = 128

// listJSON encodes a list as encoding/json would the typed one, its items on
// all processors: they are nearly all of the work.
func listJSON(row *resources.Resource, m metav1.ListMeta, objs []client.Object) ([][]byte, error) {
	head, err := json.Marshal(struct {
		Kind       string          `json:"kind"`
		APIVersion string          `json:"apiVersion"`
		Metadata   metav1.ListMeta `json:"metadata"`
	}{row.Kind + "List", row.GroupVersion().String(), m})
	if err != nil {
		return nil, err
	}
	shares := make([][]byte, (len(objs)+shareSize-1)/shareSize)
	errs := make([]error, len(shares))
	var wg sync.WaitGroup
	next := make(chan int)
	for range min(runtime.GOMAXPROCS(0), len(shares)) {
		wg.Go(func() {
			for i := range next {
				shares[i], errs[i] = encodeShare(objs[i*shareSize : min(len(objs), (i+1)*shareSize)])
			}
		})
	}
	for i := range shares {
		next <- i
	}
	close(next)
	wg.Wait()
	out := [][]byte{append(head[:len(head)-1], `,"items":[`...)}
	for i, s := range shares {
		if errs[i] != nil {
			return nil, errs[i]
		}
		if i == len(shares)-1 {
			s = s[:len(s)-1] // no comma after the last
		}
		out = append(out, s)
	}
	return append(out, []byte("]}\n")), nil
}

// encodeShare writes objects with a comma after each.
func encodeShare(objs []client.Object) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	for _, obj := range objs {
		// The list says the kind once.
		obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
		if err := e.Encode(obj); err != nil {
			return nil, err
		}
		b.Bytes()[b.Len()-1] = ',' // in place of the newline
	}
	return b.Bytes(), nil
}
