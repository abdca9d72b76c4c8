// Package plan compares what a revision wants with what is live and says what
// is to be done. It is pure: the same input gives the same plan, and what a
// plan shows is what is applied.
package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/manifest"
	"berth.dev/berth/api/v1alpha1"
)

// Action is what happens to one object.
type Action string

// Actions, in the order in which a plan lists them.
const (
	Create  Action = "create"
	Change  Action = "change"
	Replace Action = "replace"
	Delete  Action = "delete"
	// Release: the object was there before its Source, so it stays and is no
	// longer managed.
	Release Action = "release"
	// Keep: the object is no longer wanted, but an annotation protects it.
	Keep Action = "keep"
	// Touch: only the place in the repository moved.
	Touch Action = "touch"
)

// Key names an object.
type Key struct {
	schema.GroupVersionKind `json:"-"`
	Namespace               string `json:"namespace,omitempty"`
	Name                    string `json:"name"`
}

// String is kind namespace/name.
func (k Key) String() string {
	if k.Namespace == "" {
		return k.Kind + " " + k.Name
	}
	return k.Kind + " " + k.Namespace + "/" + k.Name
}

// KeyOf is the key of an object.
func KeyOf(gvk schema.GroupVersionKind, obj client.Object) Key {
	return Key{GroupVersionKind: gvk, Namespace: obj.GetNamespace(), Name: obj.GetName()}
}

// Desired is an object that a revision holds: typed, defaulted, labelled, and
// with what it takes over from the live one.
type Desired struct {
	Key    Key
	Object client.Object
	Origin manifest.Origin
	// Live is the object as it is, nil when there is none.
	Live client.Object
	// Immutable says why the live object cannot be changed into this one; empty
	// when it can.
	Immutable string
	// Same: the two are known not to differ.
	Same bool
	// Wave in which it is written: when what is in lower ones is healthy.
	Wave int
}

// Owned is a live object that the Source owns.
type Owned struct {
	Key    Key
	Object client.Object
}

// Input is everything that a plan is made from.
type Input struct {
	Source string
	Commit string
	Wanted []Desired
	// Owned by the Source now.
	Owned []Owned
	// Prune is false when nothing is to be deleted.
	Prune bool
	// Room is asked whether new Pods fit; nil when nobody knows.
	Room Room
}

// Step is one object of a plan.
type Step struct {
	Action Action          `json:"action"`
	Key    Key             `json:"-"`
	Origin manifest.Origin `json:"-"`
	// Fields that change, with their old and new values; a Secret's are hidden.
	Fields []Field `json:"fields,omitempty"`
	// Why an object is replaced or kept.
	Why string `json:"why,omitempty"`
	// Effects are what it means for Pods and Services, in words.
	Effects []string `json:"effects,omitempty"`
	// Wave in which the object is written; deletions come with the last.
	Wave int `json:"-"`
	// Desired is what is written; nil for a deletion.
	Desired client.Object `json:"-"`
	// Live is what was compared; nil for a creation.
	Live client.Object `json:"-"`
}

// Plan is what is to be done, in the order of its steps.
type Plan struct {
	Source string `json:"source"`
	Commit string `json:"commit,omitempty"`
	Steps  []Step `json:"-"`
	// Unchanged counts the objects that are as they should be.
	Unchanged int `json:"unchanged"`
	// Owned counts what the Source owns before the plan is carried out.
	Owned int `json:"owned"`
	// Waves of what is wanted, in their order.
	Waves []int `json:"waves"`
	// Hooks that run for the commit, in their order.
	Hooks []Hook `json:"hooks,omitempty"`
}

// Hook is a Job that runs once for a commit.
type Hook struct {
	// Phase is pre or post.
	Phase     string          `json:"phase"`
	Namespace string          `json:"namespace"`
	Name      string          `json:"name"`
	Origin    manifest.Origin `json:"-"`
}

// Make compares.
func Make(in Input) Plan {
	p := Plan{Source: in.Source, Commit: in.Commit, Owned: len(in.Owned)}
	wanted := map[Key]bool{}
	for _, d := range in.Wanted {
		wanted[d.Key] = true
		if step, changed := compare(d, in.Commit); changed {
			p.Steps = append(p.Steps, step)
		}
		if step, changed := p.last(d.Key); !changed || step.Action == Touch {
			p.Unchanged++
		}
	}
	for _, o := range in.Owned {
		if !wanted[o.Key] {
			p.Steps = append(p.Steps, remove(o, in.Prune))
		}
	}
	p.keepHomes()
	p.Waves = waves(in.Wanted)
	slices.SortStableFunc(p.Steps, func(a, b Step) int {
		return cmp.Or(compareWaves(a, b), cmp.Compare(order(a), order(b)), compareKeys(a.Key, b.Key))
	})
	for i := range p.Steps {
		s := &p.Steps[i]
		if s.writes() && s.Wave > p.Waves[0] {
			s.Effects = append(s.Effects, fmt.Sprintf("waits until what is in the waves before %d is healthy", s.Wave))
		}
		s.Effects = append(s.Effects, s.effects()...)
	}
	if in.Room != nil {
		fit(p.Steps, in.Room)
	}
	return p
}

// keepHomes keeps the Namespaces of what is kept: it would go with them.
func (p Plan) keepHomes() {
	in := map[string]Key{}
	for _, s := range p.Steps {
		if s.Key.Namespace == "" || s.Action != Keep {
			continue
		}
		if k, ok := in[s.Key.Namespace]; !ok || compareKeys(s.Key, k) < 0 {
			in[s.Key.Namespace] = s.Key
		}
	}
	for i := range p.Steps {
		s := &p.Steps[i]
		if k, ok := in[s.Key.Name]; ok && s.Action == Delete && s.Key.Kind == "Namespace" {
			s.Action, s.Why = Keep, "it holds "+k.String()+", which stays"
		}
	}
}

func (p Plan) last(k Key) (Step, bool) {
	if n := len(p.Steps); n > 0 && p.Steps[n-1].Key == k {
		return p.Steps[n-1], true
	}
	return Step{}, false
}

func compare(d Desired, commit string) (Step, bool) {
	s := Step{Key: d.Key, Origin: d.Origin, Desired: d.Object, Live: d.Live, Wave: d.Wave}
	if d.Same {
		return s, false
	}
	if d.Live == nil {
		mark(d.Object, commit)
		s.Action = Create
		return s, true
	}
	if d.Immutable != "" {
		mark(d.Object, commit)
		s.Action, s.Why, s.Fields = Replace, d.Immutable, Fields(d.Live, d.Object)
		s.Fields = slices.DeleteFunc(s.Fields, func(f Field) bool { return generated(d.Key.Kind, f.Path) })
		return s, true
	}
	if equality.Semantic.DeepEqual(d.Live, d.Object) {
		return s, false
	}
	s.Fields = Fields(d.Live, d.Object)
	if len(s.Fields) == 0 && d.Live.GetLabels()[v1alpha1.LabelSource] == d.Object.GetLabels()[v1alpha1.LabelSource] {
		s.Action = Touch
		return s, true
	}
	switch from := d.Live.GetLabels()[v1alpha1.LabelSource]; {
	case from == "":
		s.Why = "it was there before, and comes under the Source"
	case from != d.Object.GetLabels()[v1alpha1.LabelSource]:
		s.Why = "it comes over from Source " + from
	}
	mark(d.Object, commit)
	s.Action = Change
	return s, true
}

// mark notes the commit that changes an object.
func mark(obj client.Object, commit string) {
	a := obj.GetAnnotations()
	if a == nil {
		a = map[string]string{}
	}
	if commit != "" {
		a[v1alpha1.AnnotationRevision] = commit
	}
	obj.SetAnnotations(a)
}

// generated: the field is different on each new object without anybody's wish:
// a Pod's node is the scheduler's choice, and a Job knows its Pods by its UID.
func generated(kind, path string) bool {
	return kind == "Pod" && path == "spec.nodeName" || kind == "Job" && strings.Contains(path, "controller-uid")
}

func remove(o Owned, prune bool) Step {
	s := Step{Action: Delete, Key: o.Key, Live: o.Object, Origin: originOf(o.Object)}
	a := o.Object.GetAnnotations()
	switch {
	case a[v1alpha1.AnnotationPrune] == v1alpha1.PruneDisabled:
		s.Action, s.Why = Keep, "annotation "+v1alpha1.AnnotationPrune+": "+v1alpha1.PruneDisabled
	case a[v1alpha1.AnnotationHandOver] != "":
		s.Action, s.Why = Keep, "it waits for Source "+a[v1alpha1.AnnotationHandOver]+" to hold it, as its annotation "+v1alpha1.AnnotationHandOver+" says"
	case a[v1alpha1.AnnotationAdopted] != "":
		s.Action, s.Why = Release, "it was there before the Source"
	case !prune:
		s.Action, s.Why = Keep, "the Source has spec.prune: false"
	}
	return s
}

func originOf(obj client.Object) manifest.Origin {
	var o manifest.Origin
	at := obj.GetAnnotations()[v1alpha1.AnnotationOrigin]
	for i := len(at) - 1; i > 0; i-- {
		if at[i] == ':' {
			o.Path = at[:i]
			fmt.Sscanf(at[i+1:], "%d", &o.Line)
			break
		}
	}
	return o
}

// order puts Namespaces before what is in them, ServiceAccounts before Pods that
// run with them, and deletions last, Namespaces last of all.
func order(s Step) int {
	switch s.Action {
	case Delete, Release, Keep:
		if s.Key.Kind == "Namespace" {
			return 4
		}
		return 3
	}
	switch s.Key.Kind {
	case "Namespace":
		return 0
	case "ServiceAccount", "LimitRange", "ResourceQuota", "PriorityClass", "StorageClass", "PersistentVolume", "PersistentVolumeClaim":
		return 1
	}
	return 2
}

func compareKeys(a, b Key) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

// Count is how many steps have an action.
func (p Plan) Count(a Action) int {
	n := 0
	for _, s := range p.Steps {
		if s.Action == a {
			n++
		}
	}
	return n
}

// Empty reports whether nothing would change for a user: places that moved in
// the repository do not count.
func (p Plan) Empty() bool {
	for _, s := range p.Steps {
		if s.Action != Touch && s.Action != Keep {
			return false
		}
	}
	return true
}
