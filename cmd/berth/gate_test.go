package main

import (
	"context"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/cue"
	"berth.dev/berth/engine/enginetest"
	"berth.dev/berth/engine/live"
	"berth.dev/berth/engine/sync"
	"berth.dev/berth/sources/receive"
)

// TestPushesMustBeSigned: where the Source wants a signature, git push is told so
// and nothing of the push is kept; what is fetched goes the same way.
func TestPushesMustBeSigned(t *testing.T) {
	g := newPusher(t)
	g.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", g.dir+".key")
	public, err := os.ReadFile(g.dir + ".key.pub")
	if err != nil {
		t.Fatal(err)
	}
	src := &v1alpha1.Source{ObjectMeta: metav1.ObjectMeta{Name: "shop"}, Spec: v1alpha1.SourceSpec{Verify: &v1alpha1.Verify{AllowedSigners: "ann@example.org " + string(public)}}}
	g.create(src)
	signed := []string{"-c", "gpg.format=ssh", "-c", "user.signingKey=" + g.dir + ".key", "commit", "-q", "--allow-empty", "-S", "-m", "signed"}

	g.run("git", "commit", "-q", "--allow-empty", "-m", "unsigned")
	if out, err := g.push("HEAD:main"); err == nil || !strings.Contains(out, "is not trusted: it is not signed") || !strings.Contains(out, "nothing was changed") {
		t.Errorf("unsigned: %v\n%s", err, out)
	}
	if _, err := g.revisions.Fetch(t.Context(), src); err == nil || !strings.Contains(err.Error(), "not found") {
		t.Errorf("after a refused push: %v", err)
	}
	if out, err := g.push("HEAD:other"); err != nil || !strings.Contains(out, "heads/other cannot be deployed as it is: commit") {
		t.Errorf("a branch that is not deployed: %v\n%s", err, out)
	}
	g.run("git", signed...)
	if out, err := g.push("HEAD:main"); err != nil {
		t.Errorf("signed: %v\n%s", err, out)
	}
	rev, err := g.revisions.Fetch(t.Context(), src)
	if err != nil || !strings.HasPrefix(rev.SignedBy, "ann@example.org, ED25519 SHA256:") {
		t.Errorf("fetched: %q %v", rev.SignedBy, err)
	}
	src.Spec.Verify.AllowedSigners = "ann@example.org namespaces=\"file\" " + string(public)
	if _, err := g.revisions.Fetch(t.Context(), src); err == nil || err.(*sync.FetchError).Reason != v1alpha1.ReasonVerifyFailed {
		t.Errorf("with another policy: %v", err)
	}
}

// pusher is a working tree whose remote is a built-in endpoint behind the gate.
type pusher struct {
	t         *testing.T
	dir       string
	create    func(*v1alpha1.Source)
	revisions *revisions
}

func newPusher(t *testing.T) *pusher {
	t.Helper()
	t.Setenv("GIT_CONFIG_GLOBAL", "/dev/null")
	t.Setenv("GIT_CONFIG_SYSTEM", "/dev/null")
	for _, role := range []string{"AUTHOR", "COMMITTER"} {
		t.Setenv("GIT_"+role+"_NAME", "Ann")
		t.Setenv("GIT_"+role+"_EMAIL", "ann@example.org")
	}
	r, views := enginetest.Resources(t), live.New()
	compiler, err := cue.New()
	if err != nil {
		t.Fatal(err)
	}
	gate := &pushGate{views: views, resources: r, log: enginetest.Log(t)}
	builtIn := receive.New(receive.Options{Dir: t.TempDir(), Gate: gate})
	p := &pusher{t: t, dir: filepath.Join(t.TempDir(), "shop"), revisions: &revisions{builtIn: builtIn}}
	gate.engine = sync.NewChecker(sync.Options{Resources: r, Live: views, Clock: clock.RealClock{}, Log: enginetest.Log(t), Fetcher: p.revisions, Compiler: &manifests{compiler: compiler}})
	enginetest.Go(t, func(ctx context.Context) error { return views.Run(ctx, r) })
	web := httptest.NewServer(builtIn)
	t.Cleanup(web.Close)
	if err := os.Mkdir(p.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	p.run("git", "init", "-q", "-b", "main")
	p.run("git", "remote", "add", "origin", web.URL+"/git/shop.git")
	p.create = func(src *v1alpha1.Source) {
		if err := r.Create(t.Context(), src); err != nil {
			t.Fatal(err)
		}
		enginetest.Eventually(t, 20*time.Second, func() string {
			if _, ok := views.Sources.Get(types.NamespacedName{Name: src.Name}); !ok {
				return "the Source is not seen"
			}
			return ""
		})
	}
	return p
}

func (p *pusher) run(name string, args ...string) {
	p.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = p.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		p.t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

func (p *pusher) push(refs ...string) (string, error) {
	cmd := exec.Command("git", append([]string{"push", "-q", "origin"}, refs...)...)
	cmd.Dir = p.dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}
