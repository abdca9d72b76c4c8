package resources

import (
	"bytes"
	"strings"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/store"
)

// selector decides which stored pairs are wanted. Most that are not are passed
// over by a look at their bytes: protobuf holds strings as they are, so an
// object that matches app=web has both words in it. Decoding one object costs as
// much as looking at a hundred, and unlike an index this takes no memory.
type selector struct {
	labels labels.Selector
	fields fields.Selector
	// words that the bytes of an object must contain.
	words [][]byte
	// suffix that its key must have, empty for any.
	suffix string
	row    *Resource
}

func newSelector(row *Resource, l labels.Selector, f fields.Selector) *selector {
	s := &selector{row: row}
	if l != nil && !l.Empty() {
		s.labels = l
		s.labelWords(l)
	}
	if f != nil && !f.Empty() {
		s.fields = f
		s.fieldWords(f)
	}
	return s
}

func (s *selector) labelWords(l labels.Selector) {
	requirements, selectable := l.Requirements()
	if !selectable {
		return
	}
	for _, r := range requirements {
		switch r.Operator() {
		case selection.Equals, selection.DoubleEquals, selection.In:
			if values := r.ValuesUnsorted(); len(values) == 1 {
				s.word(values[0])
			}
			s.word(r.Key())
		case selection.Exists, selection.GreaterThan, selection.LessThan:
			s.word(r.Key())
		}
	}
}

func (s *selector) fieldWords(f fields.Selector) {
	for _, r := range f.Requirements() {
		if r.Operator != selection.Equals && r.Operator != selection.DoubleEquals {
			continue
		}
		switch r.Field {
		case "metadata.name":
			s.suffix = "/" + r.Value
		case "spec.nodeName", "spec.serviceAccountName", "status.podIP", "involvedObject.name", "involvedObject.uid", "regarding.name", "regarding.uid":
			s.word(r.Value)
		}
	}
}

func (s *selector) word(w string) {
	if w != "" {
		s.words = append(s.words, []byte(w))
	}
}

// may is false for a pair that certainly does not match.
func (s *selector) may(kv store.KV) bool {
	if s.suffix != "" && !strings.HasSuffix(kv.Key, s.suffix) {
		return false
	}
	if len(kv.Value) == 0 || kv.Value[0] != formatProtobuf {
		return true
	}
	for _, w := range s.words {
		if !bytes.Contains(kv.Value, w) {
			return false
		}
	}
	return true
}

// matches decides about a decoded object.
func (s *selector) matches(obj client.Object) bool {
	return (s.labels == nil || s.labels.Matches(labels.Set(obj.GetLabels()))) &&
		(s.fields == nil || s.fields.Matches(s.row.Fields(obj)))
}
