package sync_test

import (
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/v1alpha1"
)

// TestAChildCannotLeaveItsLimits by the annotation that lets an object stay when
// its Source no longer holds it: a child that stays without a parent is bounded
// by nothing.
func TestAChildCannotLeaveItsLimits(t *testing.T) {
	f := start(t)
	f.remote.other("team", "t1", configMap("a", "1"))
	f.addSource(t, "shop", v1alpha1.SourceSpec{Namespaces: []string{"default"}})
	child := strings.Replace(fmt.Sprintf(childSource, "team", ""), "name: team", `name: team, annotations: {berth.dev/adopted: "true"}`, 1)
	keep := configMap("r", "1") + "---\n" + configMap("s", "1") + "---\n" + configMap("u", "1")
	f.push(t, "c1", "", keep+"---\n"+child, ready())
	if d := f.source(t).Status.Diagnostics; len(d) != 1 || !strings.Contains(d[0].String(), "metadata.annotations[berth.dev/adopted]: is written on the live object alone") {
		t.Errorf("diagnostics are %v", d)
	}
	f.push(t, "c2", "", keep, ready())
	var s v1alpha1.Source
	if err := f.Get(t.Context(), types.NamespacedName{Name: "team"}, &s); err == nil {
		t.Errorf("the child is still there, with the labels %v", s.Labels)
	}
}

// TestATemplateDoesNotClaimASource: the Pods would be pruned as that one's own.
func TestATemplateDoesNotClaimASource(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.push(t, "c1", "", configMap("a", "1"), ready())
	for path, template := range map[string]string{
		"spec.template.metadata.labels[berth.dev/source]":      `labels: {app: web, berth.dev/source: admin}`,
		"spec.template.metadata.annotations[berth.dev/origin]": `labels: {app: web}, annotations: {berth.dev/origin: "x:1"}`,
	} {
		body := strings.Replace(fmt.Sprintf(web, 1, "v1"), "metadata: {labels: {app: web}}", "metadata: {"+template+"}", 1)
		out, err := f.engine.Check(t.Context(), f.source(t), f.revision("c2", body))
		if err != nil || !out.Failed() || !strings.Contains(out.Diagnostics[0].String(), path+": is written by Berth alone") {
			t.Errorf("%s: %v %v", path, err, out.Diagnostics)
		}
	}
}
