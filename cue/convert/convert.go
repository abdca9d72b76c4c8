// Package convert turns objects of API versions that Kubernetes has removed into
// the ones that took their place, where the meaning is the same or can be
// written down. It works on documents before they are checked, so that what it
// does not touch keeps its place. It knows no schema and decides nothing about
// which kinds are supported.
package convert

import (
	"fmt"
	"slices"
	"strings"

	"berth.dev/berth/cue/document"
)

// rule converts one kind of one version.
type rule struct {
	from, kind string
	// to is the version that took its place.
	to string
	// changes are made in turn; none means that the shape is the same.
	changes []func(*edit)
}

// table lists every conversion. The differences are those between the defaults
// and conversions that Kubernetes' own packages had for the versions
// (pkg/apis/<group>/<version>/defaults.go, conversion.go, up to the release that
// removed each).
func table() []rule {
	selector := []func(*edit){labelsFromTemplate}
	with := func(more ...func(*edit)) []func(*edit) { return append(slices.Clone(selector), more...) }
	return []rule{
		{"extensions/v1beta1", "Deployment", "apps/v1", with(noRollback, oneAtATime,
			number("revisionHistoryLimit", forever), number("progressDeadlineSeconds", forever))},
		{"apps/v1beta1", "Deployment", "apps/v1", with(noRollback, number("revisionHistoryLimit", 2))},
		{"apps/v1beta2", "Deployment", "apps/v1", nil},
		{"extensions/v1beta1", "ReplicaSet", "apps/v1", selector},
		{"apps/v1beta2", "ReplicaSet", "apps/v1", nil},
		{"extensions/v1beta1", "DaemonSet", "apps/v1", with(onDelete, without("templateGeneration"))},
		{"apps/v1beta2", "DaemonSet", "apps/v1", nil},
		{"apps/v1beta1", "StatefulSet", "apps/v1", with(onDelete)},
		{"apps/v1beta2", "StatefulSet", "apps/v1", nil},
		{"batch/v1beta1", "CronJob", "batch/v1", nil},
		{"policy/v1beta1", "PodDisruptionBudget", "policy/v1", []func(*edit){emptySelector}},
		{"extensions/v1beta1", "NetworkPolicy", "networking.k8s.io/v1", nil},
		{"scheduling.k8s.io/v1beta1", "PriorityClass", "scheduling.k8s.io/v1", nil},
		{"scheduling.k8s.io/v1alpha1", "PriorityClass", "scheduling.k8s.io/v1", nil},
		{"storage.k8s.io/v1beta1", "StorageClass", "storage.k8s.io/v1", nil},
		{"autoscaling/v1", "HorizontalPodAutoscaler", "autoscaling/v2", []func(*edit){scaleTarget, cpuMetric}},
		{"autoscaling/v2beta1", "HorizontalPodAutoscaler", "autoscaling/v2", []func(*edit){scaleTarget, oldMetrics}},
		{"autoscaling/v2beta2", "HorizontalPodAutoscaler", "autoscaling/v2", []func(*edit){scaleTarget}},
	}
}

// Document converts an object of an old version. The problems are a warning that
// says the new form, or errors where there is none of the same meaning. It
// returns n itself and nothing else if it is not of an old version.
func Document(n *document.Node) (*document.Node, []document.Problem) {
	version, kind := n.Text("apiVersion"), n.Text("kind")
	rules := table()
	i := slices.IndexFunc(rules, func(r rule) bool { return r.from == version && r.kind == kind })
	if i < 0 {
		return n, nil
	}
	r := rules[i]
	e := &edit{from: r.from}
	e.root = e.copy(n)
	at := n.Get("apiVersion").Pos
	if at.Line == 0 {
		at = n.Pos
	}
	e.set(e.root, "apiVersion", text(r.to))
	for _, change := range r.changes {
		change(e)
	}
	if len(e.problems) > 0 {
		return e.root, e.problems
	}
	what := fmt.Sprintf("%s is an old version; read as apiVersion: %s", r.from, r.to)
	if len(e.notes) > 0 {
		what += ", with " + strings.Join(e.notes, ", ")
	}
	return e.root, []document.Problem{{Pos: at, Warning: true, Field: "apiVersion", Message: what + "; write it so"}}
}
