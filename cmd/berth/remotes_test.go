package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/enginetest"
	"berth.dev/berth/sources/forge"
	"berth.dev/berth/sources/git"
)

func TestRemoteCredentials(t *testing.T) {
	r := enginetest.Resources(t)
	if err := r.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "keys"}}); err != nil {
		t.Fatal(err)
	}
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write([]byte(`{"token":"of-the-app","expires_at":"2100-01-01T00:00:00Z"}`))
	}))
	t.Cleanup(api.Close)
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	appKey := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(private)}))
	for name, data := range map[string]map[string]string{
		"app":   {"githubAppID": "7\n", "githubAppInstallationID": "42", "githubAppPrivateKey": appKey, "githubAppBaseURL": api.URL},
		"half":  {"githubAppID": "7"},
		"basic": {"username": "ann", "password": "p", "ca.crt": "c"},
		"token": {"token": "t"},
		"named": {"username": "oauth2", "token": "t"},
		"ssh":   {"ssh-privatekey": "k", "known_hosts": "h", "password": "sealed"},
		"empty": {"username": "ann"},
	} {
		s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, StringData: data}
		if err := r.Create(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	elsewhere := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "keys", Name: "basic"}, StringData: map[string]string{"username": "bob", "password": "q"}}
	if err := r.Create(t.Context(), elsewhere); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		namespace, name string
		want            git.Credentials
		err             string
	}{
		{"", "basic", git.Credentials{Username: "ann", Password: "p", CA: []byte("c")}, ""},
		{"keys", "basic", git.Credentials{Username: "bob", Password: "q"}, ""},
		{"", "token", git.Credentials{Username: "x-access-token", Password: "t"}, ""},
		{"", "named", git.Credentials{Username: "oauth2", Password: "t"}, ""},
		{"", "ssh", git.Credentials{Password: "sealed", Key: []byte("k"), Passphrase: []byte("sealed"), KnownHosts: []byte("h")}, ""},
		{"", "empty", git.Credentials{}, "the Secret default/empty has none of password, token, ssh-privatekey, githubAppID and ca.crt"},
		{"", "app", git.Credentials{Username: "x-access-token", Password: "of-the-app"}, ""},
		{"", "half", git.Credentials{}, "lacks githubAppInstallationID or githubAppPrivateKey"},
		{"keys", "ssh", git.Credentials{}, "the Secret keys/ssh is not there; create it with username and password"},
	} {
		src := &v1alpha1.Source{Spec: v1alpha1.SourceSpec{TargetNamespace: "default", Credentials: &v1alpha1.Credentials{SecretName: c.name, SecretNamespace: c.namespace}}}
		got, err := remoteCredentials(r, &forge.Apps{HTTP: api.Client(), Clock: clock.RealClock{}})(t.Context(), src)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s/%s: %v", c.namespace, c.name, err)
			}
			continue
		}
		if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
			t.Errorf("%s/%s: %v (-want +got):\n%s", c.namespace, c.name, err, diff)
		}
	}
}

func TestWebhookSecretAndSync(t *testing.T) {
	r := enginetest.Resources(t)
	for name, hook := range map[string]*v1alpha1.Webhook{"none": nil, "shop": {SecretName: "hook"}, "gone": {SecretName: "gone"}, "empty": {SecretName: "empty"}} {
		s := &v1alpha1.Source{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.SourceSpec{URL: "https://git.example.org/x.git", Webhook: hook}}
		if err := r.Create(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	for name, data := range map[string]map[string]string{"hook": {"secret": "s"}, "empty": {"other": "s"}} {
		if err := r.Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, StringData: data}); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := webhookSecret(t.Context(), r, "shop"); err != nil || string(got) != "s" {
		t.Errorf("%q %v", got, err)
	}
	for source, want := range map[string]string{"none": "no secret is configured", "gone": "not found", "empty": "default/empty has no secret", "unknown": "not found"} {
		if _, err := webhookSecret(t.Context(), r, source); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", source, err)
		}
	}
	at := time.Date(2026, 11, 29, 10, 0, 0, 0, time.UTC)
	if err := requestSync(t.Context(), r, "shop", at); err != nil {
		t.Fatal(err)
	}
	var s v1alpha1.Source
	if err := r.Get(t.Context(), types.NamespacedName{Name: "shop"}, &s); err != nil || s.Annotations[v1alpha1.AnnotationSync] != "2026-11-29T10:00:00Z" {
		t.Errorf("%v %v", s.Annotations, err)
	}
}
