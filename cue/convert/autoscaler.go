package convert

import (
	"fmt"
	"slices"

	"berth.dev/berth/cue/document"
)

// defaultUtilization is the target of an autoscaler that names none, in percent.
const defaultUtilization = 80

// scaleTarget gives the workload that is scaled its version of today.
func scaleTarget(e *edit) {
	ref := e.child(e.spec(), "scaleTargetRef")
	old := []string{"extensions/v1beta1", "apps/v1beta1", "apps/v1beta2"}
	if ref != nil && slices.Contains(old, ref.Text("apiVersion")) {
		e.set(ref, "apiVersion", text("apps/v1"))
		e.note("spec.scaleTargetRef.apiVersion: apps/v1")
	}
}

// cpuMetric turns the one target of autoscaling/v1 into a metric.
func cpuMetric(e *edit) {
	for _, key := range []string{"metrics", "behavior"} {
		name := "autoscaling.alpha.kubernetes.io/" + key
		if a := e.root.Get("metadata").Get("annotations"); has(a, name) {
			e.refuse(a.Get(name).Pos, "metadata.annotations", fmt.Sprintf("the annotation %s is not read; write apiVersion: autoscaling/v2, and what it holds under spec.%s", name, key))
		}
	}
	spec := e.spec()
	if spec == nil || has(spec, "metrics") {
		return // autoscaling/v1 has no metrics: the check says what is wrong with them
	}
	e.take(spec, "metrics")
	target := e.take(spec, "targetCPUUtilizationPercentage")
	why := ""
	if target == nil {
		target, why = integer(defaultUtilization), ", the default"
	}
	e.set(spec, "metrics", list(metric("Resource", "resource",
		field("name", text("cpu")), field("target", object(field("type", text("Utilization")), field("averageUtilization", target))))))
	shown := any(target.Plain)
	if shown == "" {
		shown = target.Value
	}
	e.note(fmt.Sprintf("spec.metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: %v}}}]%s", shown, why))
}

func metric(kind, key string, fields ...document.Field) *document.Node {
	return object(field("type", text(kind)), field(key, object(fields...)))
}

// oldMetrics turns the metrics of autoscaling/v2beta1, whose names and targets
// were fields of their own, into those of autoscaling/v2.
func oldMetrics(e *edit) {
	spec := e.spec()
	metrics := spec.Get("metrics")
	if metrics == nil || metrics.Kind != document.List || len(metrics.Items) == 0 {
		return
	}
	metrics = e.copy(metrics)
	for i, m := range metrics.Items {
		if m.Kind == document.Map {
			metrics.Items[i] = e.oldMetric(m)
		}
	}
	e.set(spec, "metrics", metrics)
	e.note("spec.metrics[].*.metric and target in place of metricName and target…, such as resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}")
}

func (e *edit) oldMetric(m *document.Node) *document.Node {
	m = e.copy(m)
	for _, key := range []string{"resource", "containerResource"} {
		if source := e.child(m, key); source != nil {
			e.target(source, "averageUtilization", "targetAverageUtilization", "averageValue", "targetAverageValue")
		}
	}
	if source := e.child(m, "pods"); source != nil {
		e.identify(source, "metricName", "selector")
		e.target(source, "averageValue", "targetAverageValue")
	}
	if source := e.child(m, "object"); source != nil {
		if described := e.take(source, "target"); described != nil {
			e.set(source, "describedObject", described)
		}
		e.identify(source, "metricName", "selector")
		e.target(source, "averageValue", "averageValue", "value", "targetValue")
	}
	if source := e.child(m, "external"); source != nil {
		e.identify(source, "metricName", "metricSelector")
		e.target(source, "averageValue", "targetAverageValue", "value", "targetValue")
	}
	return m
}

// identify puts the name and the selector of a metric under metric.
func (e *edit) identify(source *document.Node, name, selector string) {
	var fields []document.Field
	if v := e.take(source, name); v != nil {
		fields = append(fields, field("name", v))
	}
	if v := e.take(source, selector); v != nil {
		fields = append(fields, field("selector", v))
	}
	if len(fields) > 0 {
		e.set(source, "metric", object(fields...))
	}
}

// target puts the first field that is there under target; pairs are the new name
// and the old one.
func (e *edit) target(source *document.Node, pairs ...string) {
	types := map[string]string{"averageUtilization": "Utilization", "averageValue": "AverageValue", "value": "Value"}
	var target *document.Node
	for i := 0; i < len(pairs); i += 2 {
		if v := e.take(source, pairs[i+1]); v != nil && target == nil {
			target = object(field("type", text(types[pairs[i]])), field(pairs[i], v))
		}
	}
	if target != nil {
		e.set(source, "target", target)
	}
}
