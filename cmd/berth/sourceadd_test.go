package main

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
)

// nothingThere is a cluster without any object, which takes all.
type nothingThere struct{ client.Client }

func (nothingThere) Get(_ context.Context, key types.NamespacedName, _ client.Object) error {
	return apierrors.NewNotFound(schema.GroupResource{}, key.Name)
}

func (nothingThere) Create(context.Context, client.Object) error { return nil }

// TestSourceAddSaysWhatToPush: it is what the Source deploys.
func TestSourceAddSaysWhatToPush(t *testing.T) {
	for want, spec := range map[string]v1alpha1.SourceSpec{
		"/git/shop.git HEAD:main\n":                {},
		"/git/shop.git HEAD:production\n":          {Ref: v1alpha1.Ref{Branch: "production"}},
		"/git/shop.git refs/tags/v1.4\n":           {Ref: v1alpha1.Ref{Tag: "v1.4"}},
		"/git/shop.git 9ab1a0b1:refs/heads/main\n": {Ref: v1alpha1.Ref{Commit: "9ab1a0b1"}},
		"berth status shop --watch\n":              {URL: "https://git.example.org/team/shop.git", Ref: v1alpha1.Ref{Semver: "~1.4"}},
	} {
		n := newSource{spec: spec, prune: true}
		args := []string{"shop"}
		if spec.URL != "" {
			args = append(args, spec.URL)
		}
		src, secret, err := n.objects(args)
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		if err := addSource(t.Context(), nothingThere{}, src, secret, &out); err != nil || !strings.HasSuffix(out.String(), want) {
			t.Errorf("%+v: %v\n%swant %s", spec.Ref, err, out.String(), want)
		}
	}
}

func TestSourceAddNamesTheSecretOfKeys(t *testing.T) {
	for flag, want := range map[string]*v1alpha1.Decryption{
		"": nil, "shop-age": {SecretName: "shop-age"}, "keys/shop-age": {SecretName: "shop-age", SecretNamespace: "keys"},
	} {
		n := newSource{decryption: flag, prune: true}
		src, _, err := n.objects([]string{"shop"})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, src.Spec.Decryption); diff != "" {
			t.Errorf("%q: %s", flag, diff)
		}
	}
	for _, flag := range []string{"/", "/shop-age", "keys/", "a/b/c"} {
		n := newSource{decryption: flag, prune: true}
		if _, _, err := n.objects([]string{"shop"}); err == nil || !strings.Contains(err.Error(), "NAMESPACE/NAME") {
			t.Errorf("%q: %v", flag, err)
		}
	}
}
