package links_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"berth.dev/berth/api/support"
	"berth.dev/berth/cue/links"
)

const pod = `
imagePullSecrets: [{name: pull}]
serviceAccountName: robot
priorityClassName: system-node-critical
initContainers:
- name: i
  envFrom: [{secretRef: {name: all}}, {configMapRef: {name: maybe, optional: true}}]
containers:
- name: c
  env: [{name: A, value: x}, {name: B, valueFrom: {configMapKeyRef: {name: conf, key: b}}}]
volumes:
- {name: p, persistentVolumeClaim: {claimName: data}}
- {name: s, secret: {secretName: cert, items: [{key: tls.key, path: k}]}}
- {name: e, ephemeral: {volumeClaimTemplate: {spec: {storageClassName: fast}}}}
- name: j
  projected: {sources: [{configMap: {name: kube-root-ca.crt}}, {secret: {name: token}}]}
`

func TestLinksOfAPod(t *testing.T) {
	want := []string{
		"initContainers[0].envFrom[0].secretRef.name: Secret all",
		"containers[0].env[1].valueFrom.configMapKeyRef.name: ConfigMap conf, containers[0].env[1].valueFrom.configMapKeyRef.key: b",
		"volumes[0].persistentVolumeClaim.claimName: PersistentVolumeClaim data",
		"volumes[1].secret.secretName: Secret cert, volumes[1].secret.items[0].key: tls.key",
		"volumes[2].ephemeral.volumeClaimTemplate.spec.storageClassName: StorageClass fast",
		"volumes[3].projected.sources[1].secret.name: Secret token",
		"imagePullSecrets[0].name: Secret pull",
		"serviceAccountName: ServiceAccount robot",
	}
	spec := decode[corev1.PodSpec](t, pod)
	cron := &batchv1.CronJob{}
	cron.Spec.JobTemplate.Spec.Template.Spec = spec
	for at, obj := range map[string]any{
		"spec.":                                &corev1.Pod{Spec: spec},
		"spec.template.spec.":                  &appsv1.DaemonSet{Spec: appsv1.DaemonSetSpec{Template: corev1.PodTemplateSpec{Spec: spec}}},
		"spec.jobTemplate.spec.template.spec.": cron,
	} {
		var got []string
		for _, l := range links.Find(obj) {
			s := fmt.Sprintf("%s: %s %s", strings.TrimPrefix(support.Path(l.Steps), at), l.To.Kind, l.Name)
			if l.Key != "" {
				s += fmt.Sprintf(", %s: %s", strings.TrimPrefix(support.Path(l.KeySteps), at), l.Key)
			}
			got = append(got, s)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%T (-want +got):\n%s", obj, diff)
		}
	}
}

func TestLinksOfAService(t *testing.T) {
	s := decode[corev1.Service](t, `
spec:
  selector: {app: web, tier: front}
  ports: [{port: 80, targetPort: http}, {port: 81, targetPort: 8081, nodePort: 30081}, {port: 53, targetPort: dns, protocol: UDP}]
`)
	var got []string
	for _, l := range links.Find(&s) {
		got = append(got, fmt.Sprintf("%s: %q %q %d %s", support.Path(l.Steps), l.Selector, l.Port, l.NodePort, l.Protocol))
	}
	want := []string{
		`spec.selector: "app=web,tier=front" "" 0 `,
		`spec.ports[0].targetPort: "app=web,tier=front" "http" 0 TCP`,
		`spec.ports[1].nodePort: "" "" 30081 TCP`,
		`spec.ports[2].targetPort: "app=web,tier=front" "dns" 0 UDP`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	s.Spec.Type = corev1.ServiceTypeExternalName
	if found := links.Find(&s); len(found) != 1 || found[0].NodePort == 0 {
		t.Errorf("of an ExternalName: %v", found)
	}
}

func decode[T any](t *testing.T, text string) T {
	t.Helper()
	var out T
	if err := yaml.UnmarshalStrict([]byte(text), &out); err != nil {
		t.Fatal(err)
	}
	return out
}
