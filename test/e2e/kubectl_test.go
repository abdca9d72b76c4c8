package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// everyKind is one object of every kind that an administrator can write.
const everyKind = `
apiVersion: v1
kind: ConfigMap
metadata: {name: every, namespace: desk, labels: {of: every}}
data: {a: b}
---
apiVersion: v1
kind: Secret
metadata: {name: every, namespace: desk}
stringData: {password: not-to-be-seen}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: every, namespace: desk}
---
apiVersion: v1
kind: Service
metadata: {name: every, namespace: desk}
spec: {selector: {app: every}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: every, namespace: desk}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: every}
spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], hostPath: {path: /tmp/every}}
---
apiVersion: v1
kind: ReplicationController
metadata: {name: every, namespace: desk}
spec: {replicas: 0, selector: {app: rc}, template: {metadata: {labels: {app: rc}}, spec: {containers: [{name: a, image: "berth.dev/busybox:1"}]}}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: every, namespace: desk}
spec: {serviceName: every, replicas: 0, selector: {matchLabels: {app: ss}}, template: {metadata: {labels: {app: ss}}, spec: {containers: [{name: a, image: "berth.dev/busybox:1"}]}}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: every, namespace: desk}
spec: {selector: {matchLabels: {app: ds}}, template: {metadata: {labels: {app: ds}}, spec: {nodeSelector: {no: where}, containers: [{name: a, image: "berth.dev/busybox:1"}]}}}
---
apiVersion: apps/v1
kind: ControllerRevision
metadata: {name: every, namespace: desk}
revision: 1
data: {spec: {}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: every, namespace: desk}
spec: {suspend: true, template: {spec: {restartPolicy: Never, containers: [{name: a, image: "berth.dev/busybox:1"}]}}}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: every, namespace: desk}
spec: {suspend: true, schedule: "0 3 * * *", jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: a, image: "berth.dev/busybox:1"}]}}}}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: every, namespace: desk}
spec: {scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}, minReplicas: 1, maxReplicas: 3, metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 80}}}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: every, namespace: desk}
spec: {podSelector: {matchLabels: {app: nobody}}, policyTypes: [Ingress]}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: every, namespace: desk}
spec: {minAvailable: 1, selector: {matchLabels: {app: nobody}}}
---
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata: {name: every, namespace: desk}
spec: {holderIdentity: somebody, leaseDurationSeconds: 15}
---
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: every}
value: 1000
description: For the test.
---
apiVersion: v1
kind: LimitRange
metadata: {name: every, namespace: desk}
spec: {limits: [{type: Container, defaultRequest: {cpu: 10m}}]}
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: every, namespace: desk}
spec: {hard: {pods: "50"}}
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: every}
provisioner: berth.dev/local
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: every, namespace: desk, labels: {kubernetes.io/service-name: elsewhere}}
addressType: IPv4
ports: [{name: http, port: 80}]
endpoints: [{addresses: [192.0.2.1]}]
---
apiVersion: berth.dev/v1alpha1
kind: Source
metadata: {name: every}
spec: {url: "https://git.example.org/x.git", suspend: true}
`

// step is one call of kubectl and what it must print.
type step struct {
	args string
	want string
	fail bool
}

// steps carries out calls in order; an argument in quotes may hold spaces.
func (m *machine) steps(all []step) {
	m.t.Helper()
	word := regexp.MustCompile(`'[^']*'|\S+`)
	for _, c := range all {
		var args []string
		for _, w := range word.FindAllString(c.args, -1) {
			args = append(args, strings.Trim(w, "'"))
		}
		out, err := m.try("kubectl", args...)
		if (err != nil) != c.fail || !strings.Contains(out, c.want) {
			m.t.Errorf("kubectl %s: %v, want %q:\n%s", c.args, err, c.want, out)
		}
	}
}

// TestKubectlReadsEveryKind shows that what kubectl knows of reading works on
// all that there is.
func TestKubectlReadsEveryKind(t *testing.T) {
	m := boot(t)
	m.busybox()
	all := filepath.Join(m.dir, "every.yaml")
	if err := os.WriteFile(all, []byte(everyKind), 0o600); err != nil {
		t.Fatal(err)
	}
	m.kubectl("create", "namespace", "desk")
	m.kubectl("create", "-f", all)
	m.kubectl("create", "-n", "desk", "deployment", "web", "--image=berth.dev/busybox:1", "--replicas=2", "--", "/bin/busybox", "sh", "-c", "trap exit TERM; /bin/busybox sleep 3600 & wait")
	m.kubectl("-n", "desk", "rollout", "status", "deployment/web", "--timeout=60s")
	pod := m.kubectl("-n", "desk", "get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.name}")

	// Every kind that can be listed can be described and explained, one by one
	// and as kubectl describes those that it has no words for.
	kinds := strings.Fields(m.kubectl("api-resources", "--verbs=list", "-o", "name"))
	if len(kinds) < 25 {
		t.Errorf("api-resources lists %d kinds: %v", len(kinds), kinds)
	}
	for _, kind := range kinds {
		out := m.kubectl("get", kind, "-A", "--ignore-not-found", "-o", "name")
		if out == "" && !strings.Contains(kind, "metrics") && !strings.HasPrefix(kind, "events") {
			t.Errorf("there is no %s to describe", kind)
		}
		out = m.kubectl("describe", kind, "-A")
		if !strings.Contains(out, "Name:") && !strings.Contains(kind, "metrics") {
			t.Errorf("describe %s printed:\n%s", kind, out)
		}
		if strings.Contains(out, "not-to-be-seen") {
			t.Errorf("describe %s shows a password", kind)
		}
		// Measurements have no document, and kubectl takes this name for a field.
		if strings.Contains(kind, "metrics") || kind == "events.events.k8s.io" {
			continue
		}
		if out, err := m.try("kubectl", "explain", kind); err != nil || !strings.Contains(out, "FIELDS:") {
			t.Errorf("explain %s: %v\n%s", kind, err, out)
		}
		m.kubectl("get", kind, "-A", "-o", "wide")
		m.kubectl("get", kind, "-A", "-o", "yaml")
	}

	m.steps([]step{
		{args: "version", want: "+berth-"},
		{args: "cluster-info", want: "is running at"},
		{args: "api-versions", want: "metrics.k8s.io/v1beta1"},
		{args: "explain deployment.spec.strategy.rollingUpdate", want: "maxSurge"},
		{args: "explain pod.spec --recursive", want: "activeDeadlineSeconds"},
		{args: "get all -n desk", want: "deployment.apps/web"},
		{args: "get pods -n desk -o wide", want: "NOMINATED NODE"},
		{args: "get pods -A", want: "NAMESPACE"},
		{args: "get pods -n desk --selector app=web,app!=other -o name", want: "pod/" + pod},
		{args: "get pods -n desk --field-selector status.phase=Running -o name", want: "pod/" + pod},
		{args: "get pods -n desk --field-selector status.phase=Failed", want: "No resources found"},
		{args: "get pods -n desk --field-selector spec.color=red", want: "field label not supported", fail: true},
		{args: "get pods -n desk " + pod + " -o jsonpath={.spec.containers[*].image}", want: "berth.dev/busybox:1"},
		{args: "get deployment web -n desk -o custom-columns=N:.metadata.name,R:.status.readyReplicas", want: "web   2"},
		{args: "get pods -n desk --sort-by=.metadata.name --show-labels --no-headers", want: "app=web"},
		{args: "get pods -n desk --chunk-size=1 -o name", want: "pod/web-"},
		{args: "get deploy,svc,cm -n desk", want: "configmap/every"},
		{args: "get --raw /api/v1/namespaces/desk/pods?limit=1", want: `"continue":`},
		{args: "get pod nobody -n desk", want: "not found", fail: true},
		{args: "get nonsense", want: `doesn't have a resource type "nonsense"`, fail: true},
		{args: "describe pod -n desk " + pod, want: "Successfully assigned"},
		{args: "describe deployment web -n desk", want: "ScalingReplicaSet"},
		{args: "describe service every -n desk", want: "Endpoints:"},
		{args: "describe secret every -n desk", want: "password:  14 bytes"},
		{args: "describe node", want: "Allocated resources:"},
		{args: "describe quota -n desk", want: "pods"},
		{args: "events -n desk", want: "ScalingReplicaSet"},
		{args: "events -n desk --for pod/" + pod + " --types=Normal", want: "Started"},
		{args: "get events -n desk --field-selector reason=Started", want: "Started container"},
		{args: "auth whoami", want: "system:masters"},
		{args: "auth can-i create pods", want: "yes"},
		{args: "auth can-i '*' '*'", want: "yes"},
		{args: "auth can-i get secrets --as ada --as-group berth:viewers", want: "no", fail: true},
		{args: "auth can-i get pods --as ada --as-group berth:viewers", want: "yes"},
		{args: "auth can-i create pods/exec --as ada --as-group berth:viewers", want: "no", fail: true},
		{args: "auth can-i --list --as ada --as-group berth:viewers", want: "Resources"},
		{args: "auth can-i list pods --as system:serviceaccount:desk:every", want: "no", fail: true},
		{args: "create token every -n desk --duration=10m", want: "ey"},
		{args: "wait --for=jsonpath={.status.readyReplicas}=2 deployment/web -n desk --timeout=30s", want: "condition met"},
		{args: "wait --for=condition=Available deployment/web -n desk --timeout=30s", want: "condition met"},
		{args: "wait --for=condition=Complete job/every -n desk --timeout=1s", want: "timed out", fail: true},
	})

	// -w prints what is there and then what changes.
	watch := m.command("kubectl", "get", "configmaps", "-n", "desk", "-w", "--output-watch-events", "--no-headers")
	var seen syncBuffer
	watch.Stdout, watch.Stderr = &seen, &seen
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = watch.Process.Kill()
		_ = watch.Wait() // killed
	}()
	m.eventually("the watch has begun", func() error {
		if !strings.Contains(seen.String(), "every") {
			return fmt.Errorf("it shows %q", seen.String())
		}
		return nil
	})
	m.kubectl("patch", "configmap", "every", "-n", "desk", "--type=merge", "-p", `{"data":{"b":"c","d":"e"}}`)
	m.kubectl("delete", "configmap", "every", "-n", "desk")
	m.eventually("the watch shows a change and an end", func() error {
		if !regexp.MustCompile(`(?s)ADDED +every +1 .*MODIFIED +every +3 .*DELETED +every +3 `).MatchString(seen.String()) {
			return fmt.Errorf("it shows %q", seen.String())
		}
		return nil
	})

	// top, once something was measured.
	m.eventually("top shows the node and the pods", func() error {
		nodes, err := m.try("kubectl", "top", "nodes")
		if err != nil {
			return err
		}
		pods, err := m.try("kubectl", "top", "pods", "-n", "desk", "--containers")
		if err != nil {
			return err
		}
		if !regexp.MustCompile(`\d+m +\d+% +\d+Mi +\d+%`).MatchString(nodes) || !regexp.MustCompile(pod+` +busybox +\d+m +\d+Mi`).MatchString(pods) {
			return fmt.Errorf("it shows\n%s\n%s", nodes, pods)
		}
		return nil
	})
	m.steps([]step{
		{args: "get podmetrics -n desk", want: "WINDOW"},
		{args: "top pod -n desk -l app=web --sort-by=memory", want: pod},
	})
}

// TestKubectlEditsAndDrains drives what changes objects by way of a person or
// of many calls.
func TestKubectlEditsAndDrains(t *testing.T) {
	m := boot(t)
	m.busybox()
	node := m.kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")
	m.kubectl("create", "deployment", "web", "--image=berth.dev/busybox:1", "--replicas=2", "--", "/bin/busybox", "sh", "-c", "trap exit TERM; /bin/busybox sleep 3600 & wait")
	m.kubectl("rollout", "status", "deployment/web", "--timeout=60s")

	// edit opens an editor on the object and writes what it leaves.
	edit := func(sed string, args ...string) (string, error) {
		script := filepath.Join(m.dir, "editor")
		if err := os.WriteFile(script, []byte("#!/bin/sh\nexec sed -i '"+sed+"' \"$1\"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		cmd := m.command("kubectl", append([]string{"edit"}, args...)...)
		cmd.Env = append(cmd.Env, "KUBE_EDITOR="+script)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := edit("s/replicas: 2/replicas: 3/", "deployment", "web"); err != nil || !strings.Contains(out, "deployment.apps/web edited") {
		t.Errorf("edit: %v\n%s", err, out)
	}
	if out, err := edit("s/nothing/nothing/", "deployment", "web"); err != nil || !strings.Contains(out, "no changes made") {
		t.Errorf("an edit without a change: %v\n%s", err, out)
	}
	if out, err := edit("s/replicas: 3/replicas: -3/", "deployment", "web"); err == nil || !strings.Contains(out, `deployments.apps "web" is invalid`) {
		t.Errorf("an edit to nonsense: %v\n%s", err, out)
	}
	m.steps([]step{
		{args: "rollout status deployment/web --timeout=60s", want: "successfully rolled out"},
		{args: "set image deployment/web busybox=berth.dev/nowhere:1", want: "image updated"},
		{args: "rollout status deployment/web --timeout=2s", want: "timed out", fail: true},
		{args: "rollout history deployment/web --revision=2", want: "berth.dev/nowhere:1"},
		{args: "rollout undo deployment/web --to-revision=1", want: "rolled back"},
		{args: "rollout status deployment/web --timeout=60s", want: "successfully rolled out"},
		{args: "rollout pause deployment/web", want: "paused"},
		{args: "rollout resume deployment/web", want: "resumed"},
		{args: "rollout restart deployment/web", want: "restarted"},
		{args: "rollout status deployment/web --timeout=60s", want: "successfully rolled out"},
		{args: "label replicasets -l app=web tier=front", want: "labeled"},
		{args: "label replicasets -l app=web tier=back", want: "--overwrite is false", fail: true},
		{args: "annotate deployment web note=hello", want: "annotated"},
		{args: "annotate deployment web note-", want: "annotated"},
		{args: "taint node " + node + " key=value:NoSchedule", want: "tainted"},
		{args: "taint node " + node + " key-", want: "untainted"},
	})

	// A budget holds a drain up until it allows it; uncordon lets the pods back.
	budget := filepath.Join(m.dir, "budget.yaml")
	content := "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: web}\nspec: {minAvailable: 3, selector: {matchLabels: {app: web}}}\n"
	if err := os.WriteFile(budget, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	m.kubectl("apply", "-f", budget)
	m.eventually("the budget is counted", func() error {
		if out := m.kubectl("get", "pdb", "web", "-o", "jsonpath={.status.currentHealthy}"); out != "3" {
			return fmt.Errorf("%s pods are healthy", out)
		}
		return nil
	})
	m.steps([]step{
		{args: "cordon " + node, want: "cordoned"},
		{args: "get nodes", want: "SchedulingDisabled"},
		{args: "drain " + node + " --timeout=3s", want: "Cannot evict pod as it would violate the pod's disruption budget", fail: true},
		{args: "delete -f " + budget, want: "deleted"},
		{args: "drain " + node + " --timeout=90s --grace-period=1", want: "drained"},
		{args: "get pods --field-selector status.phase=Running", want: "No resources found"},
		{args: "uncordon " + node, want: "uncordoned"},
		{args: "rollout status deployment/web --timeout=60s", want: "successfully rolled out"},
		{args: "delete pods -l app=web --wait=false --grace-period=0 --force", want: "force deleted"},
		{args: "delete deployment web --cascade=orphan", want: "deleted"},
		{args: "delete replicaset -l app=web --cascade=foreground --timeout=60s", want: "deleted"},
	})
	m.eventually("nothing is left", func() error {
		if out := m.kubectl("get", "pods,rs,deploy"); !strings.Contains(out, "No resources found") {
			return fmt.Errorf("there is\n%s", out)
		}
		return nil
	})
}

// TestKubectlIsRefusedWhereGitRules: the one thing that kubectl cannot do.
func TestKubectlIsRefusedWhereGitRules(t *testing.T) {
	m := boot(t)
	r := m.repository("shop", "shop")
	r.ready()
	began := time.Now()
	managed := regexp.MustCompile(`it is managed by Source shop: edit \S+:\d+ in its repository and push`)
	for _, args := range []string{
		"scale deployment backend -n shop --replicas=5", "delete deployment backend -n shop", "label service backend -n shop a=b",
		"patch deployment backend -n shop -p {\"spec\":{\"replicas\":5}}", "set image deployment/backend -n shop backend=x", "delete namespace shop",
		"annotate deployment backend -n shop a=b", "rollout restart deployment/backend -n shop",
	} {
		if out, err := m.try("kubectl", strings.Fields(args)...); err == nil || !managed.MatchString(out) {
			t.Errorf("kubectl %s: %v\n%s", args, err, out)
		}
	}
	if out, err := m.try("kubectl", "create", "configmap", "x", "-n", "shop"); err == nil || !strings.Contains(out, "namespace shop is managed by Source shop") {
		t.Errorf("an object in a namespace of a Source: %v\n%s", err, out)
	}
	// What only looks, or what a controller makes good, is open.
	pod := m.kubectl("get", "pods", "-n", "shop", "-o", "jsonpath={.items[0].metadata.name}")
	m.steps([]step{
		{args: "logs -n shop " + pod + " --tail=1"},
		{args: "debug -n shop " + pod + " --image=berth.dev/shop:1 -c look --attach=false"},
		{args: "delete pod -n shop " + pod, want: "deleted"},
	})
	r.ready()
	t.Logf("all of it in %v", time.Since(began))
}
