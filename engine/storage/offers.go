package storage

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/engine/live"
)

// Offers are the volumes that claims can have. Claims that ask for the same share
// one answer, which stands until Forget is told that volumes have changed. It is
// not safe for concurrent use.
type Offers struct {
	views *live.Cluster
	// shelves are the volumes by class, nil when they are to be looked at anew.
	shelves map[string]*shelf
}

// shelf is the volumes of one class that no claim has.
type shelf struct {
	free []*corev1.PersistentVolume
	// kept were set aside for a claim.
	kept map[types.NamespacedName][]*corev1.PersistentVolume
	// reach is where the free ones are that have what is asked for.
	reach map[ask]reach
}

// ask is all that a claim says of its volume but its class, as text.
type ask struct {
	size, modes, selector string
	mode                  corev1.PersistentVolumeMode
}

// reach is the nodes from which at least one of some volumes can be had: all, those
// that are selected, or none.
type reach struct {
	everywhere bool
	nodes      *corev1.NodeSelector
}

// NewOffers makes offers of the volumes of a cluster.
func NewOffers(views *live.Cluster) *Offers { return &Offers{views: views} }

// Forget has the volumes looked at anew.
func (o *Offers) Forget() { o.shelves = nil }

// to is where the volumes are that a claim could have.
func (o *Offers) to(c *corev1.PersistentVolumeClaim) reach {
	if o.shelves == nil {
		o.shelves = shelve(o.views.Volumes.All())
	}
	s := o.shelves[ClassOf(c)]
	if s == nil {
		return reach{}
	}
	if kept := s.kept[types.NamespacedName{Namespace: c.Namespace, Name: c.Name}]; len(kept) > 0 {
		return reachOf(slices.Concat(candidates(c, s.free), candidates(c, kept)))
	}
	asks := askOf(c)
	r, ok := s.reach[asks]
	if !ok {
		r = reachOf(candidates(c, s.free))
		s.reach[asks] = r
	}
	return r
}

func shelve(all []*corev1.PersistentVolume) map[string]*shelf {
	out := map[string]*shelf{}
	for _, pv := range all {
		s := out[pv.Spec.StorageClassName]
		if s == nil {
			s = &shelf{kept: map[types.NamespacedName][]*corev1.PersistentVolume{}, reach: map[ask]reach{}}
			out[pv.Spec.StorageClassName] = s
		}
		if ref := pv.Spec.ClaimRef; ref == nil {
			s.free = append(s.free, pv)
		} else {
			key := types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}
			s.kept[key] = append(s.kept[key], pv)
		}
	}
	return out
}

func askOf(c *corev1.PersistentVolumeClaim) ask {
	modes := make([]string, len(c.Spec.AccessModes))
	for i, m := range c.Spec.AccessModes {
		modes[i] = string(m)
	}
	size := c.Spec.Resources.Requests[corev1.ResourceStorage]
	return ask{size.String(), strings.Join(modes, ","), metav1.FormatLabelSelector(c.Spec.Selector), volumeMode(c.Spec.VolumeMode)}
}

// reachOf puts together what volumes say of nodes. The terms of a selector are
// alternatives: those that ask for one label, as those of local volumes do for the
// name of the host, become one with all its values.
func reachOf(volumes []*corev1.PersistentVolume) reach {
	values, others := map[string]map[string]bool{}, map[string]corev1.NodeSelectorTerm{}
	for _, pv := range volumes {
		if pv.Spec.NodeAffinity == nil || pv.Spec.NodeAffinity.Required == nil {
			return reach{everywhere: true}
		}
		for _, t := range pv.Spec.NodeAffinity.Required.NodeSelectorTerms {
			if len(t.MatchFields) > 0 || len(t.MatchExpressions) != 1 || t.MatchExpressions[0].Operator != corev1.NodeSelectorOpIn {
				others[t.String()] = t
				continue
			}
			is := &t.MatchExpressions[0]
			if values[is.Key] == nil {
				values[is.Key] = map[string]bool{}
			}
			for _, v := range is.Values {
				values[is.Key][v] = true
			}
		}
	}
	if len(values) == 0 && len(others) == 0 {
		return reach{}
	}
	out := &corev1.NodeSelector{}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		out.NodeSelectorTerms = append(out.NodeSelectorTerms, corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{
			{Key: key, Operator: corev1.NodeSelectorOpIn, Values: slices.Sorted(maps.Keys(values[key]))},
		}})
	}
	for _, text := range slices.Sorted(maps.Keys(others)) {
		out.NodeSelectorTerms = append(out.NodeSelectorTerms, others[text])
	}
	return reach{nodes: out}
}
