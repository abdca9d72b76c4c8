package web_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/clock"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/access"
	"berth.dev/berth/engine/controllers"
	"berth.dev/berth/engine/enginetest"
	"berth.dev/berth/engine/live"
	"berth.dev/berth/engine/resources"
	"berth.dev/berth/engine/web"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const wait = 20 * time.Second

// secretValue is in a Secret of every fixture and must be in no answer.
const secretValue = "correct-horse-battery-staple"

// site is a page over a real store with real controllers and views.
type site struct {
	*resources.Resources
	server *httptest.Server
	// admin and viewer are tokens.
	admin, viewer string
	browser       *http.Client
	// refuse makes the server answer as one that is not there.
	refuse atomic.Bool
}

func newSite(t *testing.T) *site {
	t.Helper()
	r := enginetest.Resources(t)
	enginetest.AddNode(t, r, "quay-1", "4", "8Gi")
	views := live.New()
	dir := t.TempDir()
	if _, err := access.OpenTokens(dir); err != nil {
		t.Fatal(err)
	}
	s := &site{Resources: r, admin: adminToken(t, dir), viewer: addViewer(t, dir)}
	tokens, err := access.OpenTokens(dir)
	if err != nil {
		t.Fatal(err)
	}
	log := enginetest.Log(t)
	page := web.New(web.Options{Live: views, Resources: r, Tokens: tokens, Version: "v0.1.0-test", Log: log})
	enginetest.Go(t, controllers.New(controllers.Options{Resources: r, Live: views, Clock: clock.RealClock{}, Log: log}).Run)
	enginetest.Go(t, (&enginetest.Kubelet{Client: r, Broken: map[string]bool{"broken": true}}).Run)
	enginetest.Go(t, func(ctx context.Context) error { return views.Run(ctx, r) })
	s.server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.refuse.Load() {
			http.Error(w, "away", http.StatusBadGateway)
			return
		}
		if u, ok := (&access.Users{Tokens: tokens}).Request(r); ok {
			r = r.WithContext(access.With(r.Context(), u))
		}
		page.ServeHTTP(w, r)
	}))
	t.Cleanup(s.server.Close)
	s.browser = s.server.Client()
	s.browser.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return s
}

func adminToken(t *testing.T, dir string) string {
	t.Helper()
	b, err := os.ReadFile(access.AdminTokenFile(dir))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// get asks for a page with a token; "" is nobody.
func (s *site) get(t *testing.T, path, token string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.server.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.AddCookie(&http.Cookie{Name: "berth_token", Value: token})
	}
	return s.do(t, req)
}

func (s *site) do(t *testing.T, req *http.Request) (*http.Response, string) {
	t.Helper()
	resp, err := s.browser.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// ofShop is the metadata of an object of the Source shop.
func ofShop(namespace, name, origin string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: namespace, Name: name, Labels: map[string]string{v1alpha1.LabelSource: "shop"},
		Annotations: map[string]string{v1alpha1.AnnotationOrigin: origin},
	}
}

func (s *site) create(t *testing.T, objs ...client.Object) {
	t.Helper()
	for _, o := range objs {
		if err := s.Create(t.Context(), o); err != nil {
			t.Fatalf("create %s: %v", o.GetName(), err)
		}
	}
}

// seed deploys the Source shop by hand, and waits until its pods are ready.
func (s *site) seed(t *testing.T) {
	t.Helper()
	s.create(t,
		&corev1.Namespace{ObjectMeta: ofShop("", "shop", "deploy/shop.cue:8")},
		&corev1.ConfigMap{ObjectMeta: ofShop("shop", "settings", "deploy/shop.cue:14"), Data: map[string]string{"GREETING": "hello", "currency": "EUR"}},
		&corev1.Secret{ObjectMeta: ofShop("shop", "payments", "deploy/shop.cue:21"), StringData: map[string]string{"api-key": secretValue}},
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "unmanaged"}, StringData: map[string]string{"password": secretValue}},
		deployment("web", "registry.example/shop:1.4.2", 3, "deploy/shop.cue:30"),
		service("web", "deploy/shop.cue:52"),
		&v1alpha1.Source{ObjectMeta: metav1.ObjectMeta{Name: "shop"}, Spec: v1alpha1.SourceSpec{Path: "deploy"}},
	)
	s.setStatus(t, "shop", readyStatus(time.Now().Add(-3*time.Minute)))
	enginetest.Eventually(t, wait, func() string {
		if _, body := s.get(t, "/sources/shop", s.admin); !strings.Contains(body, "3 of 3 ready") {
			return "pods are not shown as ready"
		}
		return ""
	})
}

func deployment(name, image string, replicas int32, origin string) *appsv1.Deployment {
	l := map[string]string{"app": name}
	return &appsv1.Deployment{
		ObjectMeta: ofShop("shop", name, origin),
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: l},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: l},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: name, Image: image}}},
			},
		},
	}
}

func service(name, origin string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: ofShop("shop", name, origin),
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": name},
			Ports:    []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromInt32(8080)}},
		},
	}
}

func readyStatus(pushed time.Time) v1alpha1.SourceStatus {
	c := &v1alpha1.Commit{
		ID: "4f1c9a7be2d03c55aa10", Author: "Ada Park", Email: "ada@example.org",
		Subject: "Greet customers by name", Time: metav1.NewTime(pushed.Add(-time.Minute)),
	}
	status := v1alpha1.SourceStatus{Observed: c, Applied: c, Healthy: c, Objects: map[string]int32{"Deployment": 1, "Service": 1, "ConfigMap": 1, "Secret": 1, "Namespace": 1}}
	for i, name := range []string{"pushed", "fetched", "compiled", "applied", "scheduled", "started", "ready"} {
		message := map[string]string{"fetched": "commit 4f1c9a7be2", "compiled": "5 objects", "applied": "2 changed", "ready": "612ms after it was pushed"}[name]
		offset := []int{0, 9, 61, 83, 97, 431, 612}[i]
		status.Timeline = append(status.Timeline, v1alpha1.Stage{Name: name, Time: metav1.NewMicroTime(pushed.Add(time.Duration(offset) * time.Millisecond)), Message: message})
	}
	for _, kind := range []string{"Fetched", "Compiled", "Applied", "Healthy", "Ready"} {
		meta.SetStatusCondition(&status.Conditions, metav1.Condition{Type: kind, Status: metav1.ConditionTrue, Reason: "Succeeded", LastTransitionTime: metav1.NewTime(pushed)})
	}
	return status
}

func (s *site) setStatus(t *testing.T, name string, status v1alpha1.SourceStatus) {
	t.Helper()
	var src v1alpha1.Source
	if err := s.Get(t.Context(), types.NamespacedName{Name: name}, &src); err != nil {
		t.Fatal(err)
	}
	src.Status = status
	if err := s.UpdateStatus(t.Context(), &src); err != nil {
		t.Fatal(err)
	}
}

// degrade says that a Source is degraded, and why.
func (s *site) degrade(t *testing.T, name, why string) {
	t.Helper()
	var src v1alpha1.Source
	if err := s.Get(t.Context(), types.NamespacedName{Name: name}, &src); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"Healthy", "Ready"} {
		meta.SetStatusCondition(&src.Status.Conditions, metav1.Condition{Type: kind, Status: metav1.ConditionFalse, Reason: "Degraded", Message: why})
	}
	s.setStatus(t, name, src.Status)
}

func key(name string) types.NamespacedName { return types.NamespacedName{Name: name} }

func nsKey(namespace, name string) types.NamespacedName {
	return types.NamespacedName{Namespace: namespace, Name: name}
}
