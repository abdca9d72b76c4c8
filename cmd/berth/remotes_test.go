package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/enginetest"
	"berth.dev/berth/sources/git"
)

func TestRemoteCredentials(t *testing.T) {
	r := enginetest.Resources(t)
	if err := r.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "keys"}}); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]map[string]string{
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
		{"", "empty", git.Credentials{}, "the Secret default/empty has none of password, token, ssh-privatekey and ca.crt"},
		{"keys", "ssh", git.Credentials{}, "the Secret keys/ssh is not there; create it with username and password"},
	} {
		src := &v1alpha1.Source{Spec: v1alpha1.SourceSpec{TargetNamespace: "default", Credentials: &v1alpha1.Credentials{SecretName: c.name, SecretNamespace: c.namespace}}}
		got, err := remoteCredentials(r)(t.Context(), src)
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
