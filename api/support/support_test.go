package support_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"berth.dev/berth/api/support"
	"berth.dev/berth/api/upstream"
)

// example is YAML of an entry's part that the entry is about.
type example struct{ name, values, yaml string }

func examples() []example {
	out := []example{
		{"PodSpec.shareProcessNamespace", "", "shareProcessNamespace: true"},
		{"PodSpec.schedulerName", "other than default-scheduler", "schedulerName: volcano"},
		{"PodSpec.schedulingGroup", "", "schedulingGroup: {podGroupName: g}"},
		{"PodSpec.evictionResponders", "", "evictionResponders: [{name: example.org/r}]"},
		{"PodSpec.runtimeClassName", "", "runtimeClassName: gvisor"},
		{"PodSpec.os.name", "other than linux", "os: {name: windows}"},
		{"PodSpec.hostUsers", "false", "hostUsers: false"},
		{"PodSpec.setHostnameAsFQDN", "", "setHostnameAsFQDN: true"},
		{"PodSpec.hostnameOverride", "", "hostnameOverride: h"},
		{"PodSpec.hostAliases", "with hostNetwork", "{hostNetwork: true, hostAliases: [{ip: 10.0.0.1}]}"},
		{"PodSpec.initContainers.ports.hostPort", "without hostNetwork", "initContainers: [{ports: [{hostPort: 80}]}]"},
		{"PodSpec.resourceClaims", "", "resourceClaims: [{name: gpu}]"},
		{"PodSpec.resources.limits", "", "resources: {limits: {cpu: 1}}"},
		{"PodSpec.resources.requests", "", "resources: {requests: {cpu: 1}}"},
		{"Toleration.operator", "Lt, Gt", "operator: Gt"},
		{"Container.restartPolicy", "other than Always", "restartPolicy: Never"},
		{"Container.restartPolicyRules", "", "restartPolicyRules: [{action: Restart}]"},
		{"Container.resizePolicy.restartPolicy", "RestartContainer", "resizePolicy: [{resourceName: cpu, restartPolicy: RestartContainer}]"},
		{"Container.volumeDevices", "", "volumeDevices: [{name: d}]"},
		{"Container.terminationMessagePolicy", "FallbackToLogsOnError", "terminationMessagePolicy: FallbackToLogsOnError"},
		{"ResourceRequirements.claims", "", "claims: [{name: gpu}]"},
		{"ResourceRequirements.limits[ephemeral-storage]", "", "limits: {ephemeral-storage: 1Gi}"},
		{"ResourceRequirements.limits[hugepages-*]", "", "limits: {hugepages-2Mi: 4Mi}"},
		{"Lifecycle.stopSignal", "", "stopSignal: SIGUSR1"},
		{"LifecycleHandler.tcpSocket", "", "tcpSocket: {port: 80}"},
		{"LifecycleHandler.httpGet.scheme", "HTTPS", "httpGet: {port: 80, scheme: HTTPS}"},
		{"LifecycleHandler.httpGet.httpHeaders", "", "httpGet: {port: 80, httpHeaders: [{name: a, value: b}]}"},
		{"HTTPGetAction.protocol", "other than HTTP1", "protocol: HTTP2"},
		{"EnvVarSource.fileKeyRef", "", "fileKeyRef: {key: k}"},
		{"VolumeMount.recursiveReadOnly", "Enabled", "recursiveReadOnly: Enabled"},
		{"VolumeMount.recursiveReadOnly", "IfPossible", "recursiveReadOnly: IfPossible"},
		{"VolumeMount.bindMountOptions", "", "bindMountOptions: [noexec]"},
		{"SecurityContext.procMount", "other than Default", "procMount: Unmasked"},
		{"PodSecurityContext.sysctls", "", "sysctls: [{name: a, value: b}]"},
		{"PodSecurityContext.supplementalGroupsPolicy", "Strict", "supplementalGroupsPolicy: Strict"},
		{"PodSecurityContext.seLinuxChangePolicy", "", "seLinuxChangePolicy: Recursive"},
		{"EmptyDirVolumeSource.sizeLimit", "unless medium is Memory", "sizeLimit: 1Gi"},
		{"EmptyDirVolumeSource.mode", "other than 0777", "mode: 0700"},
		{"EmptyDirVolumeSource.medium", "HugePages*", "medium: HugePages-2Mi"},
		{"VolumeProjection.clusterTrustBundle", "", "clusterTrustBundle: {path: p}"},
		{"VolumeProjection.podCertificate", "", "podCertificate: {keyType: ED25519}"},
		{"ConfigMapVolumeSource.defaultUser", "", "defaultUser: 1"},
		{"SecretVolumeSource.defaultUser", "", "defaultUser: 1"},
		{"DownwardAPIVolumeSource.defaultUser", "", "defaultUser: 1"},
		{"ProjectedVolumeSource.defaultUser", "", "defaultUser: 1"},
		{"KeyToPath.user", "", "user: 1"},
		{"DownwardAPIVolumeFile.user", "", "user: 1"},
		{"ServiceAccountTokenProjection.user", "", "user: 1"},
		{"ServiceSpec.type", "LoadBalancer", "type: LoadBalancer"},
		{"ServiceSpec.loadBalancerIP", "", "loadBalancerIP: 10.0.0.1"},
		{"ServiceSpec.loadBalancerClass", "", "loadBalancerClass: example.org/lb"},
		{"ServiceSpec.loadBalancerSourceRanges", "", "loadBalancerSourceRanges: [10.0.0.0/8]"},
		{"ServiceSpec.externalTrafficPolicy", "Local", "externalTrafficPolicy: Local"},
		{"ServiceSpec.healthCheckNodePort", "", "healthCheckNodePort: 30000"},
		{"ServiceSpec.internalTrafficPolicy", "Local", "internalTrafficPolicy: Local"},
		{"ServiceSpec.trafficDistribution", "", "trafficDistribution: PreferSameZone"},
		{"ServiceSpec.ipFamilies", "with IPv6", "ipFamilies: [IPv4, IPv6]"},
		{"ServiceSpec.ipFamilyPolicy", "RequireDualStack", "ipFamilyPolicy: RequireDualStack"},
		{"ServiceSpec.sessionAffinityConfig.clientIP.timeoutSeconds", "other than 10800", "sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}"},
		{"EndpointSlice.addressType", "other than IPv4", "addressType: IPv6"},
		{"Endpoint.hints", "", "hints: {forZones: [{name: a}]}"},
		{"Endpoint.deprecatedTopology", "", "deprecatedTopology: {a: b}"},
		{"ObjectMeta.selfLink", "", "selfLink: /api/v1/pods/p"},
		{"Secret.type", "kubernetes.io/service-account-token", "type: kubernetes.io/service-account-token"},
		{"Secret.type", "kubernetes.io/dockercfg", "type: kubernetes.io/dockercfg"},
		{"JobSpec.scheduling", "", "scheduling: {schedulingPolicy: {basic: {}}}"},
		{"NodeSpec.configSource", "", "configSource: {configMap: {name: c}}"},
		{"NodeSpec.externalID", "", "externalID: e"},
		{"NodeSpec.podPreemptionPolicy", "", "podPreemptionPolicy: {disableResizePreemption: [example.org/a]}"},
		{"LeaseSpec.strategy", "", "strategy: OldestEmulationVersion"},
		{"LeaseSpec.preferredHolder", "", "preferredHolder: h"},
		{"PersistentVolumeClaimSpec.volumeMode", "Block", "volumeMode: Block"},
		{"PersistentVolumeClaimSpec.dataSource", "", "dataSource: {kind: K, name: n}"},
		{"PersistentVolumeClaimSpec.dataSourceRef", "", "dataSourceRef: {kind: K, name: n}"},
		{"PersistentVolumeClaimSpec.volumeAttributesClassName", "", "volumeAttributesClassName: v"},
		{"VolumeResourceRequirements.limits", "", "limits: {storage: 1Gi}"},
		{"PersistentVolumeSpec.volumeMode", "Block", "volumeMode: Block"},
		{"PersistentVolumeSpec.mountOptions", "", "mountOptions: [ro]"},
		{"PersistentVolumeSpec.volumeAttributesClassName", "", "volumeAttributesClassName: v"},
		{"PersistentVolumeSpec.persistentVolumeReclaimPolicy", "Recycle", "persistentVolumeReclaimPolicy: Recycle"},
		{"LocalVolumeSource.fsType", "", "fsType: ext4"},
		{"MetricSpec.type", "Pods, Object, External", "type: External"},
		{"LimitRangeItem.type", "other than Pod, Container, PersistentVolumeClaim", "type: example.org/Image"},
		{"ResourceQuotaSpec.scopes", "CrossNamespacePodAffinity, VolumeAttributesClass", "scopes: [CrossNamespacePodAffinity]"},
		{"ScopedResourceSelectorRequirement.scopeName", "CrossNamespacePodAffinity, VolumeAttributesClass", "scopeName: VolumeAttributesClass"},
		{"StorageClass.parameters", "", "parameters: {a: b}"},
		{"StorageClass.mountOptions", "", "mountOptions: [ro]"},
		{"StorageClass.allowedTopologies", "", "allowedTopologies: [{}]"},
		{"StorageClass.provisioner", "other than berth.dev/local, kubernetes.io/no-provisioner", "provisioner: example.org/disks"},
	}
	for _, part := range []string{"SecurityContext", "PodSecurityContext"} {
		out = append(out,
			example{part + ".seLinuxOptions", "", "seLinuxOptions: {type: spc_t}"},
			example{part + ".windowsOptions", "", "windowsOptions: {runAsUserName: u}"},
			example{part + ".seccompProfile.localhostProfile", "", "seccompProfile: {type: Localhost, localhostProfile: p}"},
			example{part + ".appArmorProfile.localhostProfile", "", "appArmorProfile: {type: Localhost, localhostProfile: p}"},
			example{part + ".appArmorProfile.type", "RuntimeDefault", "appArmorProfile: {type: RuntimeDefault}"},
		)
	}
	for _, e := range support.Entries() {
		if e.Part == reflect.TypeFor[corev1.VolumeSource]() || e.Part == reflect.TypeFor[corev1.PersistentVolumeSource]() {
			out = append(out, example{e.Name(), "", e.Field + ": {}"})
		}
	}
	return out
}

func TestEveryEntryIsFound(t *testing.T) {
	all := examples()
	for _, e := range support.Entries() {
		i := slices.IndexFunc(all, func(x example) bool { return x.name == e.Name() && x.values == e.Values })
		if i < 0 {
			t.Errorf("%s (%s) has no example", e.Name(), e.Values)
			continue
		}
		obj := reflect.New(e.Part).Interface()
		if err := yaml.UnmarshalStrict([]byte(all[i].yaml), obj); err != nil {
			t.Errorf("%s: %v", e.Name(), err)
			continue
		}
		found := support.Find(obj)
		if len(found) != 1 || found[0].Field != e.Name() || found[0].State != e.State || found[0].Message != e.Message {
			t.Errorf("%s (%s): found %+v", e.Name(), e.Values, found)
		}
		if len(support.Find(reflect.New(e.Part).Interface())) > 0 {
			t.Errorf("%s is found where it is not set", e.Name())
		}
	}
}

// TestEveryEntryNamesAField also keeps the messages in form.
func TestEveryEntryNamesAField(t *testing.T) {
	for _, e := range support.Entries() {
		if !reaches(e.Part, strings.Split(strings.ReplaceAll(e.Field, "[", ".["), ".")) {
			t.Errorf("%s has no field %s", e.Part, e.Field)
		}
		if e.Message == "" || strings.HasSuffix(e.Message, ".") || strings.ContainsAny(e.Message, "|\n") {
			t.Errorf("%s: message %q", e.Name(), e.Message)
		}
	}
}

func reaches(t reflect.Type, way []string) bool {
	for t.Kind() == reflect.Pointer || (t.Kind() == reflect.Slice && (len(way) == 0 || way[0] != "[]")) {
		t = t.Elem()
	}
	switch {
	case len(way) == 0:
		return true
	case t.Kind() == reflect.Slice || t.Kind() == reflect.Map:
		return strings.HasPrefix(way[0], "[") && reaches(t.Elem(), way[1:])
	case t.Kind() != reflect.Struct:
		return false
	}
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if name == way[0] && reaches(t.Field(i).Type, way[1:]) {
			return true
		}
		if name == "" && t.Field(i).Anonymous && reaches(t.Field(i).Type, way) {
			return true
		}
	}
	return false
}

func TestTemplatesOfAllWorkloads(t *testing.T) {
	spec := corev1.PodSpec{EphemeralContainers: []corev1.EphemeralContainer{{
		EphemeralContainerCommon: corev1.EphemeralContainerCommon{VolumeDevices: []corev1.VolumeDevice{{Name: "d"}}},
	}}, Volumes: []corev1.Volume{{}, {VolumeSource: corev1.VolumeSource{NFS: &corev1.NFSVolumeSource{}}}}}
	template := corev1.PodTemplateSpec{Spec: spec}
	for at, obj := range map[string]any{
		"spec":               &corev1.Pod{Spec: spec},
		"spec.template.spec": &corev1.ReplicationController{Spec: corev1.ReplicationControllerSpec{Template: &template}},
		"spec.jobTemplate.spec.template.spec": &batchv1.CronJob{Spec: batchv1.CronJobSpec{
			JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: template}}}},
	} {
		want := []string{at + ".volumes[1].nfs", at + ".ephemeralContainers[0].volumeDevices"}
		if diff := cmp.Diff(want, paths(obj)); diff != "" {
			t.Errorf("%T: %s", obj, diff)
		}
	}
	for _, obj := range []any{
		&appsv1.Deployment{Spec: appsv1.DeploymentSpec{Template: template}},
		&appsv1.ReplicaSet{Spec: appsv1.ReplicaSetSpec{Template: template}},
		&appsv1.StatefulSet{Spec: appsv1.StatefulSetSpec{Template: template}},
		&appsv1.DaemonSet{Spec: appsv1.DaemonSetSpec{Template: template}},
		&batchv1.Job{Spec: batchv1.JobSpec{Template: template}},
	} {
		want := []string{"spec.template.spec.volumes[1].nfs", "spec.template.spec.ephemeralContainers[0].volumeDevices"}
		if diff := cmp.Diff(want, paths(obj)); diff != "" {
			t.Errorf("%T: %s", obj, diff)
		}
	}
}

func paths(obj any) []string {
	var out []string
	for _, f := range support.Find(obj) {
		out = append(out, f.Path())
	}
	return out
}

// TestDefaultsAreNotFound: what the API fills in by itself is nobody's wish.
func TestDefaultsAreNotFound(t *testing.T) {
	up, err := upstream.New()
	if err != nil {
		t.Fatal(err)
	}
	for text, obj := range map[string]runtime.Object{
		`
spec:
  hostNetwork: true
  initContainers: [{name: i, image: i, restartPolicy: Always, ports: [{containerPort: 80}]}]
  containers:
  - name: c
    image: i
    resources: {requests: {cpu: 1, ephemeral-storage: 1Gi}, limits: {cpu: 1, memory: 1Gi}}
    livenessProbe: {httpGet: {port: 80}}
    readinessProbe: {tcpSocket: {port: 80}}
    lifecycle: {preStop: {httpGet: {port: 80}}, postStart: {exec: {command: [a]}}}
    env: [{name: a, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
  volumes:
  - {name: a, emptyDir: {}}
  - {name: b, hostPath: {path: /b}}
  - {name: c, projected: {sources: [{serviceAccountToken: {path: t}}, {configMap: {name: c}}]}}
  - {name: d, secret: {secretName: s}}
  - {name: e, downwardAPI: {}}
  - {name: f, configMap: {name: c}}
`: &corev1.Pod{},
		"spec: {ports: [{port: 80}], type: NodePort, sessionAffinity: ClientIP}": &corev1.Service{},
		"{}": &corev1.Secret{},
	} {
		if err := yaml.UnmarshalStrict([]byte(text), obj); err != nil {
			t.Fatal(err)
		}
		up.Default(obj)
		if found := support.Find(obj); len(found) > 0 {
			t.Errorf("%T: %+v", obj, found)
		}
	}
}

func BenchmarkFind(b *testing.B) {
	obj := &appsv1.Deployment{Spec: appsv1.DeploymentSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
		Containers: []corev1.Container{{Name: "a", LivenessProbe: &corev1.Probe{}}, {Name: "b", Env: make([]corev1.EnvVar, 10)}},
	}}}}
	for b.Loop() {
		support.Find(obj)
	}
}
