package authorize_test

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"berth.dev/berth/engine/access"
	"berth.dev/berth/engine/authorize"
)

// bound is the one Pod on node n1: it mounts a Secret, a ConfigMap and a claim,
// takes a variable from another Secret, and runs as an account.
func bound() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"},
		Spec: corev1.PodSpec{
			NodeName: "n1", ServiceAccountName: "front",
			Volumes: []corev1.Volume{
				{VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "mounted"}}},
				{VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}}},
				{VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}},
			},
			ImagePullSecrets: []corev1.LocalObjectReference{{Name: "registry"}},
			Containers: []corev1.Container{{Name: "c", Env: []corev1.EnvVar{{Name: "A", ValueFrom: &corev1.EnvVarSource{
				SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "variable"}, Key: "a"},
			}}}}},
		},
	}
}

func authorizer() *authorize.Authorizer {
	return &authorize.Authorizer{Pods: func(_ context.Context, node, namespace string) ([]*corev1.Pod, error) {
		if node == "n1" && namespace == "shop" {
			return []*corev1.Pod{bound()}, nil
		}
		return nil, nil
	}}
}

// TestWhoMayDoWhat asks about requests as they come over HTTP.
func TestWhoMayDoWhat(t *testing.T) {
	users := map[string]access.User{
		"admin":   {Name: "ann", Role: access.Admin},
		"viewer":  {Name: "vic", Role: access.Viewer},
		"node":    {Name: "system:node:n1", Role: access.Node},
		"account": {Name: "system:serviceaccount:shop:front"},
		"nobody":  {Name: "eve"},
	}
	const all, read, admin = "admin viewer node account nobody", "admin viewer", "admin"
	for _, c := range []struct{ request, may string }{
		{"GET /api", all},
		{"GET /api/v1", all},
		{"GET /apis/apps/v1", all},
		{"GET /openapi/v3/apis/apps/v1", all},
		{"GET /version", all},
		{"GET /.well-known/openid-configuration", all},
		{"POST /version", admin},
		{"GET /metrics", read},
		{"GET /debug/pprof", admin},
		{"POST /apis/authentication.k8s.io/v1/selfsubjectreviews", all},
		{"POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews", all},
		{"POST /apis/authorization.k8s.io/v1/selfsubjectrulesreviews", all},
		{"POST /apis/authentication.k8s.io/v1/tokenreviews", "admin node"},
		{"POST /apis/authorization.k8s.io/v1/subjectaccessreviews", "admin node"},
		{"POST /apis/authorization.k8s.io/v1/namespaces/shop/localsubjectaccessreviews", "admin node"},

		{"GET /api/v1/configmaps", read},
		{"GET /api/v1/namespaces/shop/configmaps?watch=true", read},
		{"POST /api/v1/namespaces/shop/configmaps", admin},
		{"PUT /api/v1/namespaces/shop/configmaps/settings", admin},
		{"PATCH /api/v1/namespaces/shop/configmaps/settings", admin},
		{"DELETE /api/v1/namespaces/shop/configmaps/settings", admin},
		{"DELETE /api/v1/namespaces/shop/configmaps", admin},
		{"GET /apis/apps/v1/namespaces/shop/deployments/web/scale", read},
		{"PUT /apis/apps/v1/namespaces/shop/deployments/web/scale", admin},
		{"GET /apis/apps/v1/namespaces/shop/deployments/web/status", read},
		{"GET /apis/berth.dev/v1alpha1/sources", read},

		{"GET /api/v1/secrets", admin},
		{"GET /api/v1/secrets?watch=true", admin},
		{"GET /api/v1/namespaces/shop/secrets", admin},
		{"GET /api/v1/namespaces/shop/secrets/other", admin},
		{"GET /api/v1/namespaces/shop/%73ecrets/other", admin},
		{"GET /api/v1/namespaces/sh%6Fp/secrets/other", admin},

		{"GET /api/v1/namespaces/shop/pods/web/log", read},
		{"GET /api/v1/namespaces/shop/pods/web/ephemeralcontainers", read},
		{"PATCH /api/v1/namespaces/shop/pods/web/ephemeralcontainers", admin},
		{"GET /api/v1/namespaces/shop/pods/web/exec", admin},
		{"POST /api/v1/namespaces/shop/pods/web/exec", admin},
		{"GET /api/v1/namespaces/shop/pods/web/attach", admin},
		{"GET /api/v1/namespaces/shop/pods/web/portforward", admin},
		{"GET /api/v1/namespaces/shop/pods/web/proxy", admin},
		{"GET /api/v1/namespaces/shop/pods/web/proxy/status", admin},
		{"GET /api/v1/namespaces/shop/services/web/proxy/", admin},
		{"GET /api/v1/nodes/n1/proxy/metrics", admin},
		{"POST /api/v1/namespaces/shop/pods/web/binding", admin},
		{"POST /api/v1/namespaces/shop/serviceaccounts/other/token", admin},

		// What nodes may.
		{"GET /api/v1/services?watch=true", "admin viewer node"},
		{"GET /apis/discovery.k8s.io/v1/endpointslices", "admin viewer node"},
		{"GET /api/v1/nodes", "admin viewer node"},
		{"GET /api/v1/nodes/n2", "admin viewer node"},
		{"POST /api/v1/nodes", "admin node"},
		{"PUT /api/v1/nodes/n1", "admin node"},
		{"PUT /api/v1/nodes/n1/status", "admin node"},
		{"PATCH /api/v1/nodes/n1/status", "admin node"},
		{"PUT /api/v1/nodes/n2", admin},
		{"PUT /api/v1/nodes/n2/status", admin},
		{"DELETE /api/v1/nodes/n1", admin},
		{"PUT /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1", "admin node"},
		{"PUT /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n2", admin},
		{"PUT /apis/coordination.k8s.io/v1/namespaces/default/leases/n1", admin},
		{"GET /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases", read},
		{"POST /api/v1/namespaces/shop/events", "admin node"},
		{"POST /apis/events.k8s.io/v1/namespaces/shop/events", "admin node"},
		{"GET /api/v1/pods?fieldSelector=spec.nodeName%3Dn1&watch=true", "admin viewer node"},
		{"GET /api/v1/pods?fieldSelector=spec.nodeName%3Dn2", read},
		{"GET /api/v1/pods", read},
		{"GET /api/v1/namespaces/shop/pods/web", "admin viewer node"},
		{"GET /api/v1/namespaces/shop/pods/other", read},
		{"PUT /api/v1/namespaces/shop/pods/web", admin},
		{"PUT /api/v1/namespaces/shop/pods/web/status", "admin node"},
		{"PUT /api/v1/namespaces/shop/pods/other/status", admin},
		{"DELETE /api/v1/namespaces/shop/pods/web", "admin node"},
		{"DELETE /api/v1/namespaces/shop/pods/other", admin},
		{"DELETE /api/v1/namespaces/shop/pods?fieldSelector=spec.nodeName%3Dn1", admin},
		{"POST /api/v1/namespaces/shop/pods/web/eviction", "admin node"},
		{"POST /api/v1/namespaces/shop/pods", admin},
		{"GET /api/v1/namespaces/shop/secrets/mounted", "admin node"},
		{"GET /api/v1/namespaces/shop/secrets/variable", "admin node"},
		{"GET /api/v1/namespaces/shop/secrets/registry", "admin node"},
		{"GET /api/v1/namespaces/shop/secrets?fieldSelector=metadata.name%3Dmounted&watch=true", "admin node"},
		{"GET /api/v1/namespaces/shop/secrets?fieldSelector=metadata.name%3Dother&watch=true", admin},
		{"GET /api/v1/namespaces/shop/secrets?fieldSelector=metadata.name%21%3Dmounted", admin},
		{"GET /api/v1/namespaces/default/secrets/mounted", admin},
		{"GET /api/v1/secrets?fieldSelector=metadata.name%3Dmounted", admin},
		{"PUT /api/v1/namespaces/shop/secrets/mounted", admin},
		{"GET /api/v1/namespaces/shop/configmaps/settings", "admin viewer node"},
		{"GET /api/v1/namespaces/shop/configmaps/other", read},
		{"GET /api/v1/namespaces/shop/persistentvolumeclaims/data", "admin viewer node"},
		{"GET /api/v1/namespaces/shop/serviceaccounts/front", "admin viewer node"},
		{"POST /api/v1/namespaces/shop/serviceaccounts/front/token", "admin node"},
		{"GET /apis/apps/v1/deployments", read},

		{"GET /api/v1/namespaces/shop", "admin viewer node"},
		{"PUT /api/v1/namespaces/shop/finalize", admin},
		{"CONNECT /api/v1/namespaces/shop/pods/web", admin},
	} {
		method, url, _ := strings.Cut(c.request, " ")
		a := authorize.Of(httptest.NewRequest(method, "https://berth"+url, nil))
		for name, u := range users {
			want := strings.Contains(" "+c.may+" ", " "+name+" ")
			got, reason := authorizer().Allowed(t.Context(), u, a)
			if got != want || reason == "" {
				t.Errorf("%s by %s: %v (%s), want %v; attributes %+v", c.request, name, got, reason, want, a)
			}
		}
	}
}

func TestAllOfAKindIsNotAllowedWhenOneIsNot(t *testing.T) {
	vic := access.User{Name: "vic", Role: access.Viewer}
	for _, a := range []authorize.Attributes{
		{Verb: "get", Resource: "*"}, {Verb: "get", Group: "*", Resource: "*"}, {Verb: "get", Group: "*", Resource: "secrets"},
		{Verb: "*", Resource: "pods"}, {Verb: "get", Resource: "pods", Subresource: "*"},
	} {
		if ok, _ := authorizer().Allowed(t.Context(), vic, a); ok {
			t.Errorf("a viewer may %+v", a)
		}
	}
}

func TestAnAccountIsToldHowARoleIsGranted(t *testing.T) {
	_, reason := authorizer().Allowed(t.Context(), access.User{Name: "system:serviceaccount:shop:front"}, authorize.Attributes{Verb: "list", Resource: "pods"})
	if !strings.Contains(reason, "shop/front") || !strings.Contains(reason, "berth.dev/role: viewer or admin") {
		t.Errorf("%s", reason)
	}
}
