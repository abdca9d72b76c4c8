package controllers_test

import (
	"context"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/controllers"
	"berth.dev/berth/engine/enginetest"
	"berth.dev/berth/engine/live"
	"berth.dev/berth/engine/resources"
)

// standing starts controllers that know an authority and a server.
func standing(t *testing.T, servers ...string) *resources.Resources {
	t.Helper()
	r := enginetest.Resources(t)
	views := live.New()
	o := controllers.Options{
		Resources: r, Live: views, Clock: clock.RealClock{}, Log: enginetest.Log(t), CA: []byte("authority"), ServiceCIDR: netip.MustParsePrefix("10.43.0.0/16"),
		Servers: func() (out []netip.AddrPort) {
			for _, s := range servers {
				out = append(out, netip.MustParseAddrPort(s))
			}
			return out
		},
	}
	enginetest.Go(t, controllers.New(o).Run)
	enginetest.Go(t, func(ctx context.Context) error { return views.Run(ctx, r) })
	return r
}

// eventually waits until an object is there and right.
func eventually[T client.Object](t *testing.T, r *resources.Resources, key types.NamespacedName, into T, right func(T) bool) T {
	t.Helper()
	enginetest.Eventually(t, wait, func() string {
		if err := r.Get(t.Context(), key, into); err != nil {
			return err.Error()
		}
		if !right(into) {
			return key.String() + " is not right"
		}
		return ""
	})
	return into
}

func TestEachNamespaceHasItsAccountAndAuthority(t *testing.T) {
	r := standing(t, "192.0.2.1:7443")
	team := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "team"}}
	create(t, r, team)
	for _, ns := range []string{"default", "team"} {
		account := types.NamespacedName{Namespace: ns, Name: "default"}
		first := eventually(t, r, account, &corev1.ServiceAccount{}, func(*corev1.ServiceAccount) bool { return true }).UID
		if err := r.Delete(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "default"}}, client.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, r, account, &corev1.ServiceAccount{}, func(a *corev1.ServiceAccount) bool { return a.UID != first })

		authority := types.NamespacedName{Namespace: ns, Name: "kube-root-ca.crt"}
		right := func(cm *corev1.ConfigMap) bool { return cm.Data["ca.crt"] == "authority" }
		cm := eventually(t, r, authority, &corev1.ConfigMap{}, right)
		cm.Data = map[string]string{"ca.crt": "forged", "more": "of mine"}
		if err := r.Update(t.Context(), cm); err != nil {
			t.Fatal(err)
		}
		if cm = eventually(t, r, authority, &corev1.ConfigMap{}, right); cm.Data["more"] != "of mine" {
			t.Errorf("%v", cm.Data)
		}
		if err := r.Delete(t.Context(), cm, client.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, r, authority, &corev1.ConfigMap{}, right)
	}
	if err := r.Delete(t.Context(), team, client.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	enginetest.Eventually(t, wait, func() string {
		if err := r.Get(t.Context(), types.NamespacedName{Name: "team"}, team); !apierrors.IsNotFound(err) {
			return "the namespace does not go"
		}
		return ""
	})
}

// TestTheAuthorityOfASourceIsLeftAlone: what a repository declares is its own.
func TestTheAuthorityOfASourceIsLeftAlone(t *testing.T) {
	r := standing(t, "192.0.2.1:7443")
	key := types.NamespacedName{Namespace: "default", Name: "kube-root-ca.crt"}
	cm := eventually(t, r, key, &corev1.ConfigMap{}, func(*corev1.ConfigMap) bool { return true })
	cm.Labels = map[string]string{"berth.dev/source": "shop"}
	cm.Annotations = map[string]string{"berth.dev/origin": "a.yaml:1"}
	cm.Data = map[string]string{"ca.crt": "of the Source"}
	if err := r.Update(t.Context(), cm); err != nil {
		t.Fatal(err)
	}
	// Another namespace is served after it: the controller has been there.
	create(t, r, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "later"}})
	eventually(t, r, types.NamespacedName{Namespace: "later", Name: "kube-root-ca.crt"}, &corev1.ConfigMap{}, func(*corev1.ConfigMap) bool { return true })
	if err := r.Get(t.Context(), key, cm); err != nil || cm.Data["ca.crt"] != "of the Source" {
		t.Errorf("%v %v", cm.Data, err)
	}
}

func TestTheServiceOfTheAPI(t *testing.T) {
	r := standing(t, "192.0.2.1:7443", "192.0.2.2:7443")
	key := types.NamespacedName{Namespace: "default", Name: "kubernetes"}
	service := func(s *corev1.Service) bool {
		return s.Spec.ClusterIP == "10.43.0.1" && s.Spec.Ports[0].Port == 443 && s.Spec.Ports[0].TargetPort.IntVal == 7443
	}
	slice := func(s *discoveryv1.EndpointSlice) bool {
		return len(s.Endpoints) == 2 && s.Endpoints[1].Addresses[0] == "192.0.2.2" && *s.Ports[0].Port == 7443 && *s.Ports[0].Name == "https" &&
			s.Labels["kubernetes.io/service-name"] == "kubernetes"
	}
	for range 2 { // and again after somebody has deleted them
		s := eventually(t, r, key, &corev1.Service{}, service)
		e := eventually(t, r, key, &discoveryv1.EndpointSlice{}, slice)
		eventually(t, r, key, &corev1.Endpoints{}, func(e *corev1.Endpoints) bool { return len(e.Subsets) == 1 && len(e.Subsets[0].Addresses) == 2 })
		for _, obj := range []client.Object{s, e} {
			if err := r.Delete(t.Context(), obj, client.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestAServerThatPodsCannotReachIsNoEndpoint(t *testing.T) {
	r := standing(t, "127.0.0.1:7443")
	key := types.NamespacedName{Namespace: "default", Name: "kubernetes"}
	eventually(t, r, key, &discoveryv1.EndpointSlice{}, func(s *discoveryv1.EndpointSlice) bool { return len(s.Endpoints) == 0 })
}
