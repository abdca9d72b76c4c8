package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestKubectlWritesInANamespaceWithoutASource drives kubectl's own ways to write.
func TestKubectlWritesInANamespaceWithoutASource(t *testing.T) {
	m := boot(t)
	file := func(name, content string) string {
		path := filepath.Join(m.dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	web := file("web.yaml", deployment("web", 1))
	typo := file("typo.yaml", strings.Replace(deployment("typo", 1), "replicas:", "replicass:", 1))
	greeting := file("greeting.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: greeting}\ndata: {a: b}\n")
	greetingOther := file("other.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: greeting}\ndata: {a: c}\n")
	source := file("source.yaml", "apiVersion: berth.dev/v1alpha1\nkind: Source\nmetadata: {name: elsewhere}\nspec: {url: \"https://git.example.org/x.git\", suspend: true}\n")
	for _, c := range []struct {
		args string
		want string
		fail bool
	}{
		{args: "create -f " + web, want: "deployment.apps/web created"},
		{args: "create -f " + web, want: "AlreadyExists", fail: true},
		{args: "create -f " + typo, want: `unknown field "spec.replicass"`, fail: true},
		{args: "apply -f " + web, want: "deployment.apps/web configured"},
		{args: "scale deployment web --replicas=2", want: "deployment.apps/web scaled"},
		{args: "set env deployment/web MODE=test", want: "deployment.apps/web env updated"},
		{args: "rollout status deployment/web --timeout=60s", want: "successfully rolled out"},
		{args: "rollout history deployment/web", want: "REVISION"},
		{args: "rollout undo deployment/web", want: "deployment.apps/web rolled back"},
		{args: "rollout status deployment/web --timeout=60s", want: "successfully rolled out"},
		{args: "rollout restart deployment/web", want: "deployment.apps/web restarted"},
		{args: "rollout status deployment/web --timeout=60s", want: "successfully rolled out"},
		{args: "wait --for=condition=Available deployment/web --timeout=60s", want: "condition met"},
		{args: "label deployment web tier=front", want: "labeled"},
		{args: "annotate deployment web note=hello", want: "annotated"},
		{args: "get deployment web -o jsonpath={.metadata.labels.tier},{.metadata.annotations.note}", want: "front,hello"},
		{args: `patch deployment web --type=json -p [{"op":"replace","path":"/spec/replicas","value":1}]`, want: "patched"},
		{args: `patch deployment web --type=merge -p {"metadata":{"labels":{"tier":null}}}`, want: "patched"},
		{args: `patch deployment web -p {"spec":{"template":{"spec":{"containers":[{"name":"backend","imagePullPolicy":"Never"}]}}}}`, want: "patched"},
		{args: "get deployment web -o jsonpath={.spec.replicas},{.metadata.labels.tier},{.spec.template.spec.containers[0].imagePullPolicy},{.spec.template.spec.containers[0].args[0]}", want: "1,,Never,backend"},
		{args: "apply --server-side --field-manager=one -f " + greeting, want: "configmap/greeting serverside-applied"},
		{args: "apply --server-side --field-manager=two -f " + greetingOther, want: `conflict with "one": .data.a`, fail: true},
		{args: "apply --server-side --field-manager=two --force-conflicts -f " + greetingOther, want: "serverside-applied"},
		{args: "get configmap greeting -o jsonpath={.data.a}", want: "c"},
		{args: "diff -f " + greeting, want: "+  a: b", fail: true},
		{args: "apply --dry-run=server -f " + web, want: "(server dry run)"},
		{args: "delete configmap greeting --dry-run=server", want: "(server dry run)"},
		{args: "get configmap greeting -o name", want: "configmap/greeting"},
		{args: "replace -f " + greetingOther, want: "configmap/greeting replaced"},
		{args: "explain deployment.spec.strategy", want: "KIND:       Deployment"},
		{args: "explain source.spec.maxPrune", want: "go ahead without approval"},
		{args: "create -f " + source, want: "source.berth.dev/elsewhere created"},
		{args: "get source elsewhere", want: "Suspended"},
		{args: "cordon vm-test", want: "NotFound", fail: true},
		{args: "delete deployment web --wait=true", want: `"web" deleted`},
		{args: "delete -f " + source, want: "deleted"},
	} {
		out, err := m.try("kubectl", strings.Fields(c.args)...)
		if (err != nil) != c.fail || !strings.Contains(out, c.want) {
			t.Errorf("kubectl %s: %v, want %q:\n%s", c.args, err, c.want, out)
		}
	}
}
