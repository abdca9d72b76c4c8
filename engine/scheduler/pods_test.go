package scheduler

import (
	"strings"
	"testing"
)

// The Pods of these tests: nodes a and b are in zone x, c in zone y; n has no zone.
func zones() map[string]string {
	return map[string]string{
		"a": "{metadata: {labels: {zone: x}}}", "b": "{metadata: {labels: {zone: x}}}", "c": "{metadata: {labels: {zone: y}}}",
	}
}

func with(nodes map[string]string, name, text string) map[string]string {
	nodes[name] = text
	return nodes
}

const (
	web = "{metadata: {labels: {app: web}}}"
	db  = "{metadata: {labels: {app: db}}}"
	// roomy keeps a node from being chosen for its room.
	full = "{spec: {containers: [{resources: {requests: {cpu: 1800m}}}]}}"
)

func affine(kind, terms string) string {
	return "{metadata: {labels: {app: web, rev: '1'}}, spec: {affinity: {" + kind + ": {" + terms + "}}}}"
}

func must(terms string) string {
	return "requiredDuringSchedulingIgnoredDuringExecution: [" + terms + "]"
}
func may(terms string) string {
	return "preferredDuringSchedulingIgnoredDuringExecution: [" + terms + "]"
}

const (
	toDB    = "{topologyKey: zone, labelSelector: {matchLabels: {app: db}}}"
	toWeb   = "{topologyKey: zone, labelSelector: {matchLabels: {app: web}}}"
	webNode = "{topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: web}}}"
)

func TestPodAffinity(t *testing.T) {
	const none = "0/3 nodes fit: 3 have no pod in the same zone that the pod's affinity asks for"
	for name, c := range map[string]struct {
		world     world
		pod, want string
	}{
		"near a pod":                        {world{nodes: zones(), pods: map[string]string{"db@c": db}}, affine("podAffinity", must(toDB)), "c"},
		"near a pod by zone, not node":      {world{nodes: zones(), pods: map[string]string{"db@a": db, "f@a": full}}, affine("podAffinity", must(toDB)), "b"},
		"nobody is there":                   {world{nodes: zones(), pods: map[string]string{"w@a": web}}, affine("podAffinity", must(toDB)), none},
		"the first of its own kind":         {world{nodes: zones(), pods: map[string]string{"db@a": db}}, affine("podAffinity", must(toWeb)), "a"},
		"the second of its own kind":        {world{nodes: zones(), pods: map[string]string{"w@c": web}}, affine("podAffinity", must(toWeb)), "c"},
		"the first needs a zone, too":       {world{nodes: map[string]string{"n": "{}"}}, affine("podAffinity", must(toWeb)), "0/1 nodes fit: 1 lacks the label zone that the pod's affinity or topology spread goes by"},
		"two terms, two pods: none is both": {world{nodes: zones(), pods: map[string]string{"w@c": web, "db@c": db}}, affine("podAffinity", must(toWeb+", "+toDB)), none},
		"two terms, one pod is both":        {world{nodes: zones(), pods: map[string]string{"both@c": "{metadata: {labels: {app: web, tier: db}}}"}}, affine("podAffinity", must(toWeb+", {topologyKey: zone, labelSelector: {matchLabels: {tier: db}}}")), "c"},
		"no selector matches nothing":       {world{nodes: zones(), pods: map[string]string{"db@c": db}}, affine("podAffinity", must("{topologyKey: zone}")), none},
		"an empty selector matches all":     {world{nodes: zones(), pods: map[string]string{"db@c": db}}, affine("podAffinity", must("{topologyKey: zone, labelSelector: {}}")), "c"},
		"another namespace does not count":  {world{nodes: zones(), pods: map[string]string{"db@c": "{metadata: {namespace: other, labels: {app: db}}}"}}, affine("podAffinity", must(toDB)), none},
		"a namespace that is named":         {world{nodes: zones(), pods: map[string]string{"db@c": "{metadata: {namespace: other, labels: {app: db}}}"}}, affine("podAffinity", must(strings.Replace(toDB, "{", "{namespaces: [other], ", 1))), "c"},
		"named ones alone":                  {world{nodes: zones(), pods: map[string]string{"db@c": db}}, affine("podAffinity", must(strings.Replace(toDB, "{", "{namespaces: [other], ", 1))), none},
		"a namespace by its labels": {
			world{nodes: zones(), namespaces: map[string]map[string]string{"other": {"team": "t"}, "third": {}}, pods: map[string]string{"db@c": "{metadata: {namespace: other, labels: {app: db}}}", "e@a": "{metadata: {namespace: third, labels: {app: db}}}"}},
			affine("podAffinity", must(strings.Replace(toDB, "{", "{namespaceSelector: {matchLabels: {team: t}}, ", 1))), "c",
		},
		"all namespaces":      {world{nodes: zones(), pods: map[string]string{"db@c": "{metadata: {namespace: other, labels: {app: db}}}"}}, affine("podAffinity", must(strings.Replace(toDB, "{", "{namespaceSelector: {}, ", 1))), "c"},
		"matchLabelKeys":      {world{nodes: zones(), pods: map[string]string{"o@a": "{metadata: {labels: {app: web, rev: '0'}}}", "n@c": "{metadata: {labels: {app: web, rev: '1'}}}"}}, affine("podAffinity", must(strings.Replace(toWeb, "{", "{matchLabelKeys: [rev, missing], ", 1))), "c"},
		"mismatchLabelKeys":   {world{nodes: zones(), pods: map[string]string{"o@c": "{metadata: {labels: {app: web, rev: '0'}}}", "n@a": "{metadata: {labels: {app: web, rev: '1'}}}"}}, affine("podAffinity", must(strings.Replace(toWeb, "{", "{mismatchLabelKeys: [rev], ", 1))), "c"},
		"a pod that is going": {world{nodes: zones(), pods: map[string]string{"db@c": "{metadata: {labels: {app: db}, deletionTimestamp: '2026-01-01T00:00:00Z'}}"}}, affine("podAffinity", must(toDB)), "c"},
		"preferred near":      {world{nodes: zones(), pods: map[string]string{"db@c": db, "f@c": full}}, affine("podAffinity", may("{weight: 1, podAffinityTerm: "+toDB+"}")), "c"},
		"the heavier of two":  {world{nodes: zones(), pods: map[string]string{"db@c": db, "w@a": web}}, affine("podAffinity", may("{weight: 9, podAffinityTerm: "+toDB+"}, {weight: 10, podAffinityTerm: "+toWeb+"}")), "a"},
		"who runs wants it near": {
			world{nodes: zones(), pods: map[string]string{"p@c": "{metadata: {labels: {app: db}}, spec: {affinity: {podAffinity: {" + may("{weight: 5, podAffinityTerm: "+toWeb+"}") + "}}}}", "f@c": full}}, web, "c",
		},
		"who runs and needs its like pulls it": {
			world{nodes: zones(), pods: map[string]string{"p@c": "{metadata: {labels: {app: db}}, spec: {affinity: {podAffinity: {" + must(toWeb) + "}}}}", "f@c": full}}, web, "c",
		},
	} {
		t.Run(name, func(t *testing.T) { checkDecision(t, c.world.cluster(t), podFrom(t, "new", c.pod), c.want) })
	}
}

// TestANamespaceThatIsNamedTwice counts once.
func TestANamespaceThatIsNamedTwice(t *testing.T) {
	c := world{nodes: map[string]string{"a": "{}"}, pods: map[string]string{"w@a": web}}.cluster(t)
	p := podFrom(t, "new", affine("podAntiAffinity", must("{topologyKey: kubernetes.io/hostname, namespaces: [default, default], labelSelector: {matchLabels: {app: web}}}")))
	c.Decide(Pod{Pod: p})
	c.Remove("w")
	checkDecision(t, c, p, "a")
}

func TestPodAntiAffinity(t *testing.T) {
	for name, c := range map[string]struct {
		world     world
		pod, want string
	}{
		"apart by node": {world{nodes: zones(), pods: map[string]string{"w@a": web, "v@c": web}}, affine("podAntiAffinity", must(webNode)), "b"},
		"apart by zone": {world{nodes: zones(), pods: map[string]string{"w@a": web, "f@c": full}}, affine("podAntiAffinity", must(toWeb)), "c"},
		"nowhere": {world{nodes: zones(), pods: map[string]string{"w@a": web, "v@c": web}}, affine("podAntiAffinity", must(toWeb)),
			"0/3 nodes fit: 3 have a pod in the same zone that the pod's anti-affinity keeps away from"},
		"a node without the label is far from all": {world{nodes: with(zones(), "n", "{}"), pods: map[string]string{"w@a": web, "v@c": web}}, affine("podAntiAffinity", must(toWeb)), "n"},
		"who runs keeps it away": {
			world{nodes: zones(), pods: map[string]string{"p@a": affine("podAntiAffinity", must(toWeb)), "f@c": full}}, web, "c",
		},
		"who runs keeps it away everywhere": {
			world{nodes: map[string]string{"a": "{}"}, pods: map[string]string{"p@a": affine("podAntiAffinity", must(webNode))}}, web,
			"0/1 nodes fit: 1 has a pod in the same kubernetes.io/hostname whose anti-affinity keeps the pod away",
		},
		"who runs keeps others away, not it": {world{nodes: map[string]string{"a": "{}"}, pods: map[string]string{"p@a": affine("podAntiAffinity", must(webNode))}}, db, "a"},
		"not of another revision": {
			world{nodes: map[string]string{"a": "{}"}, pods: map[string]string{"o@a": "{metadata: {labels: {app: web, rev: '0'}}}"}},
			affine("podAntiAffinity", must(strings.Replace(webNode, "{", "{matchLabelKeys: [rev], ", 1))), "a",
		},
		"preferably apart":           {world{nodes: zones(), pods: map[string]string{"w@a": web, "f@b": full, "v@c": web, "g@c": full}}, affine("podAntiAffinity", may("{weight: 1, podAffinityTerm: "+webNode+"}")), "b"},
		"who runs is rather apart":   {world{nodes: zones(), pods: map[string]string{"p@a": affine("podAntiAffinity", may("{weight: 1, podAffinityTerm: "+toWeb+"}")), "f@c": full}}, web, "c"},
		"near one and far from many": {world{nodes: zones(), pods: map[string]string{"w@a": web, "v@a": web, "u@c": web}}, affine("podAntiAffinity", may("{weight: 1, podAffinityTerm: "+toWeb+"}")), "c"},
	} {
		t.Run(name, func(t *testing.T) { checkDecision(t, c.world.cluster(t), podFrom(t, "new", c.pod), c.want) })
	}
}

func spreadOver(constraints string) string {
	return "{metadata: {labels: {app: web, rev: '1'}}, spec: {topologySpreadConstraints: [" + constraints + "]}}"
}

func TestTopologySpread(t *testing.T) {
	const byZone = "{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}}"
	also := func(more string) string { return spreadOver(strings.Replace(byZone, "{", "{"+more+", ", 1)) }
	soft := strings.Replace(byZone, "DoNotSchedule", "ScheduleAnyway", 1)
	const noC = "{unschedulable: true}"
	for name, c := range map[string]struct {
		world     world
		pod, want string
	}{
		"the emptier zone":             {world{nodes: zones(), pods: map[string]string{"w@a": web, "f@c": full}}, spreadOver(byZone), "c"},
		"as many as maxSkew allows":    {world{nodes: zones(), pods: map[string]string{"w@a": web, "f@c": full}}, spreadOver(strings.Replace(byZone, "1", "2", 1)), "a"},
		"other pods do not count":      {world{nodes: zones(), pods: map[string]string{"d@a": db, "w@c": web}}, spreadOver(byZone), "a"},
		"pods that go do not count":    {world{nodes: zones(), pods: map[string]string{"w@a": "{metadata: {labels: {app: web}, deletionTimestamp: '2026-01-01T00:00:00Z'}}", "f@c": full}}, spreadOver(byZone), "a"},
		"another namespace's neither":  {world{nodes: zones(), pods: map[string]string{"w@a": "{metadata: {namespace: o, labels: {app: web}}}", "f@c": full}}, spreadOver(byZone), "a"},
		"a pod that counts not itself": {world{nodes: zones(), pods: map[string]string{"w@a": web, "f@c": full}}, strings.Replace(spreadOver(byZone), "app: web, rev", "rev", 1), "a"},
		"a node without the label": {
			world{nodes: map[string]string{"n": "{}"}}, spreadOver(byZone), "0/1 nodes fit: 1 lacks the label zone that the pod's affinity or topology spread goes by",
		},
		"a full zone still counts": {
			world{nodes: zones(), pods: map[string]string{"w@a": web, "f@c": full, "g@c": full, "h@c": full}}, spreadOver(byZone),
			"0/3 nodes fit: 2 have more pods in the same zone than topology spread allows (maxSkew 1), 1 lacks room for one more pod (limit 3)",
		},
		"a zone that is ruled out does not count": {
			world{nodes: zones(), pods: map[string]string{"w@a": web}}, strings.Replace(spreadOver(byZone), "spec: {", "spec: {nodeSelector: {zone: x}, ", 1), "a",
		},
		"unless it is to be counted": {
			world{nodes: zones(), pods: map[string]string{"w@a": web}}, strings.Replace(also("nodeAffinityPolicy: Ignore"), "spec: {", "spec: {nodeSelector: {zone: x}, ", 1),
			"0/3 nodes fit: 2 have more pods in the same zone than topology spread allows (maxSkew 1), 1 does not match the pod's node selector or node affinity",
		},
		"taints do not matter": {
			world{nodes: with(zones(), "c", "{metadata: {labels: {zone: y}}, spec: {taints: [{key: t, effect: NoSchedule}]}}"), pods: map[string]string{"w@a": web}}, spreadOver(byZone),
			"0/3 nodes fit: 2 have more pods in the same zone than topology spread allows (maxSkew 1), 1 has a taint that the pod does not tolerate (t:NoSchedule)",
		},
		"unless they are to be honoured": {
			world{nodes: with(zones(), "c", "{metadata: {labels: {zone: y}}, spec: {taints: [{key: t, effect: NoSchedule}]}}"), pods: map[string]string{"w@a": web}},
			also("nodeTaintsPolicy: Honor"), "a",
		},
		"fewer zones than minDomains": {
			world{nodes: zones(), pods: map[string]string{"w@a": web, "v@c": web}}, also("minDomains: 3"),
			"0/3 nodes fit: 3 have more pods in the same zone than topology spread allows (maxSkew 1)",
		},
		"as many zones as minDomains": {world{nodes: zones(), pods: map[string]string{"w@a": web, "v@c": web}}, also("minDomains: 2"), "a"},
		"matchLabelKeys":              {world{nodes: zones(), pods: map[string]string{"w@a": "{metadata: {labels: {app: web, rev: '0'}}}", "f@c": full}}, also("matchLabelKeys: [rev]"), "a"},
		"two constraints": {
			world{nodes: zones(), pods: map[string]string{"w@a": web, "v@c": web}}, spreadOver(byZone + ", " + strings.Replace(byZone, "topologyKey: zone", "topologyKey: kubernetes.io/hostname", 1)), "b",
		},
		"anyway: the emptier zone":                    {world{nodes: zones(), pods: map[string]string{"w@a": web, "f@c": full}}, spreadOver(soft), "c"},
		"anyway: another if need be":                  {world{nodes: with(zones(), "c", "{metadata: {labels: {zone: y}}, spec: "+noC+"}"), pods: map[string]string{"w@a": web}}, spreadOver(soft), "a"},
		"anyway: a node without the label comes last": {world{nodes: with(zones(), "n", "{}"), pods: map[string]string{"w@a": web, "v@b": web, "u@c": web, "f@c": full}}, spreadOver(soft), "c"},
	} {
		t.Run(name, func(t *testing.T) { checkDecision(t, c.world.cluster(t), podFrom(t, "new", c.pod), c.want) })
	}
}

// TestTopologySpreadHonorsTaints: also those that follow from a node's state, which
// may not be there yet; and its end is noticed.
func TestTopologySpreadHonorsTaints(t *testing.T) {
	spread := spreadOver("{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule, nodeTaintsPolicy: Honor, labelSelector: {matchLabels: {app: web}}}")
	for name, state := range map[string]string{
		"cordoned":           "spec: {unschedulable: true}",
		"cordoned and known": "spec: {unschedulable: true, taints: [{key: node.kubernetes.io/unschedulable, effect: NoSchedule}]}",
		"silent":             "status: {conditions: [{type: Ready, status: Unknown}]}",
		"not ready":          "status: {conditions: [{type: Ready, status: 'False'}]}",
		"tainted":            "spec: {taints: [{key: gpu, effect: NoSchedule}]}",
	} {
		c := world{nodes: map[string]string{"a": "{metadata: {labels: {zone: x}}}", "b": "{metadata: {labels: {zone: y}}, " + state + "}"}, pods: map[string]string{"w@a": web}}.cluster(t)
		p := podFrom(t, "new", spread)
		if d := c.Decide(Pod{Pod: p}); d.Node != "a" {
			t.Errorf("%s: %+v, want a", name, d)
		}
		c.SetNode(nodeFrom(t, "b", "{metadata: {labels: {zone: y}}}"))
		if d := c.Decide(Pod{Pod: p}); d.Node != "b" {
			t.Errorf("%s, and no longer: %+v, want b", name, d)
		}
	}
}
