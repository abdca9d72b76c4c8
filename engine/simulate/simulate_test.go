package simulate_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/utils/clock"
	"sigs.k8s.io/yaml"

	"berth.dev/berth/api/manifest"
	"berth.dev/berth/engine/enginetest"
	"berth.dev/berth/engine/simulate"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// of is a repository with one file.
func of(t testing.TB, text string) manifest.Set {
	t.Helper()
	var out manifest.Set
	for i, doc := range strings.Split(text, "---\n") {
		obj := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(doc), &obj.Object); err != nil {
			t.Fatal(err)
		}
		out.Manifests = append(out.Manifests, manifest.Manifest{Object: obj, Origin: manifest.Origin{Path: "a.yaml", Line: i + 1}})
	}
	return out
}

func options(t testing.TB, text string) simulate.Options {
	return simulate.Options{
		Set: of(t, text), TargetNamespace: "default", Nodes: 3, Zones: 3, CPU: resource.MustParse("4"), Memory: resource.MustParse("8Gi"), Pods: 110,
		Quiet: 200 * time.Millisecond, Timeout: 20 * time.Second, Clock: clock.RealClock{}, Log: enginetest.Log(t),
	}
}

func deployment(name string, replicas int, spec string) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: %s}
spec:
  replicas: %d
  selector: {matchLabels: {app: %s}}
  template: {metadata: {labels: {app: %s}}, spec: {%s}}
`, name, replicas, name, name, spec)
}

const job = `---
apiVersion: batch/v1
kind: Job
metadata: {name: once}
spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}}
`

func requesting(memory string) string {
	return fmt.Sprintf("containers: [{name: c, image: i, resources: {requests: {memory: %s}}}]", memory)
}

func TestPodsLandAndSayWhyNot(t *testing.T) {
	spread := "topologySpreadConstraints: [{maxSkew: 1, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}}], "
	r, err := simulate.Run(t.Context(), options(t, deployment("web", 6, spread+requesting("2Gi"))+"---\n"+deployment("big", 1, requesting("20Gi"))+job))
	if err != nil {
		t.Fatal(err)
	}
	completed := 0
	for _, n := range r.Nodes {
		if len(n.Pods) != 2 || n.Memory != 4<<30 {
			t.Errorf("%s has %v and %d bytes, want two Pods and 4Gi", n.Name, n.Pods, n.Memory)
		}
		completed += len(n.Completed)
	}
	if completed != 1 {
		t.Errorf("%d Pods have completed, want that of the Job", completed)
	}
	if len(r.Waiting) != 1 || !strings.HasPrefix(r.Waiting[0].Pod, "default/big-") || r.Waiting[0].Why != "0/3 nodes fit: 3 lack memory (need 20Gi, free 4Gi)" && r.Waiting[0].Why != "0/3 nodes fit: 3 lack memory (need 20Gi, free 8Gi)" {
		t.Errorf("%+v", r.Waiting)
	}
	if !strings.Contains(r.Unhealthy, "Deployment default/big") || r.Late {
		t.Errorf("unhealthy: %q, late: %v", r.Unhealthy, r.Late)
	}
}

func TestAllIsWell(t *testing.T) {
	r, err := simulate.Run(t.Context(), options(t, deployment("web", 3, requesting("1Gi"))))
	if err != nil || len(r.Waiting) > 0 || r.Unhealthy != "" || r.Late {
		t.Errorf("%+v, %v", r, err)
	}
	if slices.ContainsFunc(r.Nodes, func(n simulate.Node) bool { return len(n.Pods) != 1 }) {
		t.Errorf("the three are not spread: %+v", r.Nodes)
	}
}

// TestGatedPodsWait: nothing more is to come, and the gate is named.
func TestGatedPodsWait(t *testing.T) {
	r, err := simulate.Run(t.Context(), options(t, deployment("held", 1, "schedulingGates: [{name: example.org/quota}], "+requesting("1Gi"))))
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Waiting) != 1 || r.Waiting[0].Why != "waits for its scheduling gate example.org/quota" || r.Late {
		t.Errorf("%+v, late: %v", r.Waiting, r.Late)
	}
}

// TestClaimsAreBoundWhereTheirPodsLand: a StatefulSet with a claim each, and a
// DaemonSet beside it.
func TestClaimsAreBoundWhereTheirPodsLand(t *testing.T) {
	r, err := simulate.Run(t.Context(), options(t, `apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 3
  serviceName: db
  selector: {matchLabels: {app: db}}
  template: {metadata: {labels: {app: db}}, spec: {containers: [{name: c, image: i, volumeMounts: [{name: data, mountPath: /data}]}]}}
  volumeClaimTemplates:
  - {metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: log}
spec:
  selector: {matchLabels: {app: log}}
  template: {metadata: {labels: {app: log}}, spec: {containers: [{name: c, image: i}]}}
`))
	if err != nil || len(r.Waiting) > 0 || r.Unhealthy != "" || r.Late {
		t.Fatalf("%+v, %v", r, err)
	}
	for i, n := range r.Nodes {
		if len(n.Pods) != 2 || !slices.Contains(n.Pods, fmt.Sprint("default/db-", i)) {
			t.Errorf("%s has %v, want one Pod of each", n.Name, n.Pods)
		}
	}
}

func TestTheClusterMayRefuse(t *testing.T) {
	_, err := simulate.Run(t.Context(), options(t, strings.Replace(deployment("web", 3, requesting("1Gi")), "labels: {app: web}", "labels: {app: other}", 1)))
	var refused *simulate.RefusedError
	if !errors.As(err, &refused) || len(refused.Diagnostics) == 0 || !strings.Contains(refused.Diagnostics[0].Message, "selector") {
		t.Errorf("%v %+v", err, refused)
	}
}
