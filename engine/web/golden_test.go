package web

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var rewrite = flag.Bool("update", false, "rewrite testdata")

// TestRendering: what each page looks like to a browser, as of one moment.
func TestRendering(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) when { return at(now.Add(-d)) }
	newest := commit{ID: "4f1c9a7be2", Author: "Ada Park", Subject: "Greet <b>customers</b> & \"friends\"", Time: ago(3 * time.Minute)}
	healthy := &state{Word: "Healthy", Tone: toneGood}
	pod := item{
		ID: "p", Kind: "Pod", Name: "web-5d9-x2x", State: &state{"Degraded", toneBad, "container web: CrashLoopBackOff"},
		Facts: []fact{{Name: "node", Value: "quay-1"}, {Name: "address", Value: "10.42.0.7", Code: true}}, Created: ago(time.Hour),
	}
	shop := sourcePage{
		card: card{
			Name: "shop", State: state{"Failed", toneBad, "The newest commit has 1 error and was not applied."}, Commit: newest,
			Deploys: "branch main", From: "https://berth.example/git/shop.git", Objects: 4,
		},
		Found: true, Rejected: true, Running: &commit{ID: "0a1b2c3d4e", Subject: "First"}, RunningWord: "runs and was healthy",
		Conditions: []condition{{Type: "Fetched", State: state{Word: "yes", Tone: toneGood}, Sentence: "commit 4f1c9a7be2", Since: ago(time.Minute)}},
		Timeline: []stage{
			{Name: "pushed", Reached: true, Time: ago(time.Minute), Offset: "+0 ms", Width: 4},
			{Name: "compiled", Next: true, Word: "failed", Tone: toneBad}, {Name: "applied", Word: "not reached"},
		},
		Errors:   []diagnostic{{"deploy/web.cue:12:9", "Deployment/web", "spec.replica", `field not allowed; did you mean "replicas"?`}},
		Warnings: []diagnostic{{Place: "deploy/web.cue:3:1", Message: "is ignored"}},
		Groups: []group{{"Workloads", []item{{
			ID: "d", Kind: "Deployment", Namespace: "shop", Name: "web", Origin: "deploy/web.cue:7", State: healthy,
			Children: []item{{ID: "r", Kind: "ReplicaSet", Name: "web-5d9", State: healthy, Children: []item{pod}}},
			Folds:    []fold{{"idle-d", "1 earlier revision, idle", []item{{ID: "r0", Kind: "ReplicaSet", Name: "web-1a2", State: healthy}}}},
		}}}},
		Events:  []said{{Time: ago(5 * time.Second), Warning: true, Object: "Pod web-5d9-x2x", Reason: "BackOff", Message: "restarts in 20s", Count: 3}},
		Earlier: []said{{Time: ago(time.Minute), Object: "Pod web-5d9-x2x", Reason: "Scheduled", Message: "on quay-1", Count: 1}},
	}
	all := overview{
		Sources: []card{shop.card}, Troubled: 1, Base: "https://berth.example",
		Nodes: []node{{Name: "quay-1", State: state{Word: "Ready", Tone: toneGood}, Pods: meter{"3", "110", 2}, CPU: meter{"1.9", "2", 95}, Memory: meter{"1 GiB", "8 GiB", 12}}},
	}
	templates := parseTemplates(newAssets())
	for _, test := range []struct {
		file, template string
		model          any
	}{
		{"overview.html", "overview", all},
		{"empty.html", "overview", overview{Base: "https://berth.example"}},
		{"source.html", "source", shop},
		{"missing.html", "source", sourcePage{card: card{Name: "shop"}, Base: "https://berth.example"}},
		{"login.html", "login", loginPage{Next: `/sources/"><script>`, Error: "This token is not valid."}},
	} {
		got, err := render(templates, newPicture(test.template, "", test.model), now)
		if err != nil {
			t.Errorf("%s: %v", test.file, err)
			continue
		}
		path := filepath.Join("testdata", test.file)
		if *rewrite {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatalf("%v; run go test ./engine/web -update", err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.file, diff)
		}
	}
}

func TestAges(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for d, want := range map[time.Duration]string{
		-time.Second: "just now", 300 * time.Millisecond: "just now", 5 * time.Second: "5s ago", 3*time.Minute + 2*time.Second: "3m2s ago", 50 * time.Hour: "2d2h ago",
	} {
		if got := age(now, now.Add(-d)); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}
