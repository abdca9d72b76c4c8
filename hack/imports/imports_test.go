// Package imports holds the rules of which package may import which
// (docs/architecture.md, "Rooms"), as a test.
package imports

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "berth.dev/berth/"

// listed is what go list says of a package.
type listed struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

func list(t *testing.T, args ...string) []listed {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Imports,Deps"}, args...)...)
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	var all []listed
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); err == io.EOF {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// room is the top folder of one of our packages, or "" for a foreign one.
func room(path string) string {
	rest, ours := strings.CutPrefix(path, module)
	if !ours {
		return ""
	}
	top, _, _ := strings.Cut(rest, "/")
	return top
}

func TestRoomsImportOneWay(t *testing.T) {
	middle := []string{"sources", "cue", "engine", "nodeagent"}
	for _, p := range list(t, "./...") {
		from := room(p.ImportPath)
		for _, to := range p.Imports {
			into := room(to)
			switch {
			case into == "" || into == from:
			case from == "api":
				t.Errorf("%s imports %s: api imports only k8s.io modules", p.ImportPath, to)
			case slices.Contains(middle, from) && into != "api":
				t.Errorf("%s imports %s: the rooms in the middle never import one another", p.ImportPath, to)
			case into == "cmd":
				t.Errorf("%s imports %s: nothing imports cmd", p.ImportPath, to)
			}
		}
	}
}

func TestHeavyLibrariesHaveOneOwner(t *testing.T) {
	owners := map[string][]string{
		"github.com/go-git/go-git":               {"sources"},
		"cuelang.org/go":                         {"cue"},
		"filippo.io/age":                         {"cue/sops"},
		"sigs.k8s.io/kustomize/":                 {"cue/kustomize"},
		"go.etcd.io/":                            {"engine/store"},
		"github.com/containerd/containerd/":      {"nodeagent/containerd"},
		"github.com/vishvananda/netlink":         {"nodeagent/network", "nodeagent/proxy", "nodeagent/testhost"},
		"github.com/google/nftables":             {"nodeagent/network", "nodeagent/proxy"},
		"k8s.io/kubernetes/":                     {"api/upstream"},
		"github.com/spf13/":                      {"cmd"},
		"github.com/google/go-containerregistry": {"hack"},
		"github.com/miekg/dns":                   {"nodeagent/dns"},
		"github.com/go-jose/":                    {"engine/access"},
	}
	for _, p := range list(t, "./...") {
		within := strings.TrimPrefix(p.ImportPath, module)
		for _, to := range p.Imports {
			for library, rooms := range owners {
				owned := slices.ContainsFunc(rooms, func(r string) bool { return within == r || strings.HasPrefix(within, r+"/") })
				if strings.HasPrefix(to, library) && !owned {
					t.Errorf("%s imports %s, which belongs to %s", p.ImportPath, to, strings.Join(rooms, " and "))
				}
			}
		}
	}
}

func TestPureAndLight(t *testing.T) {
	impure := []string{"os", "net", "net/http", "time", "log/slog", "math/rand", "math/rand/v2", "crypto/rand"}
	for _, p := range list(t, "./engine/plan", "./engine/scheduler", "./engine/health", "./engine/strategy") {
		for _, to := range p.Imports {
			if slices.Contains(impure, to) {
				t.Errorf("%s imports %s: it is pure", p.ImportPath, to)
			}
		}
	}
	// They would add tens of megabytes to every server. The typed clientset comes
	// with Kubernetes' printer columns and stays unused.
	heavy := []string{"k8s.io/apiserver/pkg/server", "k8s.io/apiserver/pkg/storage", "k8s.io/client-go/informers", "github.com/google/cel-go/cel"}
	// Who links Go's plugin package keeps every method of every type; the tag is
	// the Makefile's.
	heavy = append(heavy, "plugin")
	for _, p := range list(t, "-tags", "kustomize_disable_go_plugin_support", "./cmd/berth") {
		for _, h := range heavy {
			if slices.Contains(p.Deps, h) {
				t.Errorf("%s links %s", p.ImportPath, h)
			}
		}
	}
}
