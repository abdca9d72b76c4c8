package convert

import (
	"fmt"
	"math"

	"berth.dev/berth/cue/document"
)

// forever is the number that stands for no limit.
const forever = math.MaxInt32

// labelsFromTemplate writes down what the beta versions took from the labels of
// the template: the selector, and the labels of the object.
func labelsFromTemplate(e *edit) {
	spec := e.spec()
	labels := spec.Get("template").Get("metadata").Get("labels")
	if labels == nil || labels.Kind != document.Map || len(labels.Fields) == 0 {
		return
	}
	if !has(spec, "selector") {
		e.take(spec, "selector")
		e.set(spec, "selector", object(field("matchLabels", labels)))
		e.note("spec.selector.matchLabels from the labels of the template")
	}
	if metadata := e.child(e.root, "metadata"); metadata != nil && (!has(metadata, "labels") || empty(metadata.Get("labels"))) {
		e.take(metadata, "labels")
		e.set(metadata, "labels", labels)
		e.note("metadata.labels from those of the template")
	}
}

// number writes down a default that is another one now.
func number(key string, value int64) func(*edit) {
	return func(e *edit) {
		if spec := e.spec(); spec != nil && !has(spec, key) {
			e.take(spec, key)
			e.set(spec, key, integer(value))
			e.note(fmt.Sprintf("spec.%s: %d, its default there", key, value))
		}
	}
}

// oneAtATime writes down how many Pods a rolling update changed at once.
func oneAtATime(e *edit) {
	spec := e.spec()
	if spec == nil || spec.Get("strategy").Text("type") == "Recreate" {
		return
	}
	rolling := e.orNew(e.orNew(spec, "strategy"), "rollingUpdate")
	if rolling == nil {
		return // something is no map, which the check says
	}
	for _, key := range []string{"maxUnavailable", "maxSurge"} {
		if !has(rolling, key) {
			e.take(rolling, key)
			e.set(rolling, key, integer(1))
			e.note(fmt.Sprintf("spec.strategy.rollingUpdate.%s: 1, its default there", key))
		}
	}
}

// orNew is a map below n, made if it is not there; nil if it is no map.
func (e *edit) orNew(n *document.Node, key string) *document.Node {
	if n == nil {
		return nil
	}
	if !has(n, key) {
		e.take(n, key)
		e.set(n, key, object())
	}
	return e.child(n, key)
}

// onDelete writes down that Pods were only replaced when somebody deleted them.
func onDelete(e *edit) {
	spec := e.spec()
	if spec == nil || spec.Get("updateStrategy").Text("type") != "" {
		return
	}
	if strategy := e.orNew(spec, "updateStrategy"); strategy != nil {
		e.set(strategy, "type", text("OnDelete"))
		e.note("spec.updateStrategy.type: OnDelete, its default there")
	}
}

// without leaves out a field of the spec that the cluster wrote.
func without(key string) func(*edit) {
	return func(e *edit) {
		if spec := e.spec(); spec != nil && e.take(spec, key) != nil {
			e.note("no spec." + key)
		}
	}
}

// noRollback refuses a request that stood in the object, and is gone.
func noRollback(e *edit) {
	spec := e.spec()
	if spec == nil {
		return
	}
	if v := e.take(spec, "rollbackTo"); v != nil {
		e.refuse(v.Pos, "spec.rollbackTo", "apps/v1 has no such field; remove it, and revert the commit in Git to go back")
	}
}

// emptySelector: in policy/v1beta1 it selected no Pod, in policy/v1 it selects all.
func emptySelector(e *edit) {
	spec := e.spec()
	if !has(spec, "selector") {
		return
	}
	selector := spec.Get("selector")
	if selector.Kind != document.Map || filled(selector, "matchLabels") || filled(selector, "matchExpressions") {
		return
	}
	for _, f := range selector.Fields {
		if f.Key != "matchLabels" && f.Key != "matchExpressions" {
			return // a misspelt field, which the check says
		}
	}
	e.take(spec, "selector")
	e.note("no spec.selector, for an empty one selects no Pod there and all of them in policy/v1")
}

func empty(n *document.Node) bool { return n.Kind == document.Map && len(n.Fields) == 0 }

func filled(n *document.Node, key string) bool {
	v := n.Get(key)
	return v != nil && (len(v.Fields) > 0 || len(v.Items) > 0)
}
