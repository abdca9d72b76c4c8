package cue_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"berth.dev/berth/api/manifest"
	"berth.dev/berth/api/revision"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/cue"
)

// TestFieldManifests compiles manifests of well-known applications to the
// objects that they hold, if they stand beside the project.
func TestFieldManifests(t *testing.T) {
	const dir = "../../shared/manifests/"
	if _, err := os.Stat(dir); err != nil {
		t.Skip("no manifests beside the project")
	}
	c, err := cue.New()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		files []string
		// objects by kind, and the number of errors by a part of their message.
		objects string
		errors  map[string]int
	}{
		{[]string{"guestbook.yaml"}, "3 Deployment, 3 Service", nil},
		{[]string{"voting-app.yaml"}, "5 Deployment, 4 Service", nil},
		{[]string{"bookinfo.yaml"}, "6 Deployment, 4 Service, 4 ServiceAccount", nil},
		{[]string{"bookinfo-nodeport.yaml"}, "1 Service", nil},
		{[]string{"bookinfo.yaml", "bookinfo-nodeport.yaml"}, "6 Deployment, 4 Service, 4 ServiceAccount", map[string]int{"the same object is already at bookinfo-nodeport.yaml:": 1}},
		{[]string{"php-apache.yaml"}, "1 Deployment, 1 HorizontalPodAutoscaler, 1 Service", nil},
		{[]string{"online-boutique.yaml"}, "12 Deployment, 12 Service, 11 ServiceAccount", nil},
	} {
		t.Run(strings.Join(test.files, "+"), func(t *testing.T) {
			tree := memory{}
			for _, name := range test.files {
				content, err := os.ReadFile(filepath.Join(dir, name))
				if err != nil {
					t.Fatal(err)
				}
				tree[name] = memoryFile{content: content}
			}
			set, err := c.Compile(context.Background(), revision.Revision{Tree: tree}, cue.Options{TargetNamespace: "default"})
			if err != nil {
				t.Fatal(err)
			}
			if got := kinds(set); got != test.objects {
				t.Errorf("objects %s, want %s", got, test.objects)
			}
			left := map[string]int{}
			for part, n := range test.errors {
				left[part] = n
			}
			for _, d := range set.Diagnostics {
				if d.Severity == v1alpha1.SeverityError && !expected(left, d.Message) {
					t.Error(d)
				}
			}
			for part, n := range left {
				if n > 0 {
					t.Errorf("%d more errors were expected: %s", n, part)
				}
			}
		})
	}
}

func expected(left map[string]int, message string) bool {
	for part := range left {
		if strings.Contains(message, part) && left[part] > 0 {
			left[part]--
			return true
		}
	}
	return false
}

// kinds counts the objects of a Set.
func kinds(set manifest.Set) string {
	count := map[string]int{}
	for _, m := range set.Manifests {
		count[m.Object.GetKind()]++
	}
	var out []string
	for kind := range count {
		out = append(out, kind)
	}
	slices.Sort(out)
	for i, kind := range out {
		out[i] = fmt.Sprintf("%d %s", count[kind], kind)
	}
	return strings.Join(out, ", ")
}
