package tree_test

import (
	"testing"

	"berth.dev/berth/sources/tree"
)

// TestReachFollowsNamesWithBlanks: an entry is a path however it is written.
func TestReachFollowsNamesWithBlanks(t *testing.T) {
	r := tree.NewReach("deploy")
	content := "resources:\n- \"../../my base\"\n- ../../plain\n- ../../two words\npatches: [{path: ../../flow/p.yaml}]\ncrds: ['../../../outside']\n"
	if !r.Learn("deploy/prod/kustomization.yaml", []byte(content)) {
		t.Fatal("nothing was learned")
	}
	for _, name := range []string{"my base/a.yaml", "plain/a.yaml", "two words/a.yaml", "flow/p.yaml", "deploy/prod/a.yaml"} {
		if !r.Holds(name) {
			t.Errorf("%s is not listed", name)
		}
	}
	for _, name := range []string{"outside/a.yaml", "other/a.yaml"} {
		if r.Holds(name) {
			t.Errorf("%s is listed", name)
		}
	}
}
