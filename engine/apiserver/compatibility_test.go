package apiserver_test

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"berth.dev/berth/engine/apiserver"
	"berth.dev/berth/engine/resources"
)

var update = flag.Bool("update", false, "write docs/compatibility.md anew")

const compatibilityHead = `# Compatibility

What of Kubernetes' API the server speaks. The table is made from the server's own table of kinds, and a test compares
the two (` + "`go test ./engine/apiserver -run Compatibility -update`" + ` writes it anew).

"Acts" says whether something in the cluster acts on the kind. A kind that is only kept can be written, read and watched, and
its writer is warned. Every kind has selectors, pages and Tables, and protobuf unless it is Berth's own; what can be written
takes server-side apply, JSON, merge and strategic merge patches, dry runs and field validation.

Reviews are asked and answered, never stored. Who may do what is decided by roles ([architecture.md](architecture.md#access)); the kinds of
rbac.authorization.k8s.io are not served. Impersonation is for administrators. Tokens of service accounts can be bound to a Pod, Secret or Node.

| kind | group/version | acts | verbs | subresources |
|---|---|---|---|---|
`

func TestCompatibilityDocument(t *testing.T) {
	var b strings.Builder
	b.WriteString(compatibilityHead)
	for _, row := range slices.Concat(resources.Table(), resources.Reviews(), resources.Measured()) {
		acts := "yes"
		if row.Idle {
			acts = "kept only"
		}
		var subs []string
		for _, s := range apiserver.Subresources(row) {
			subs = append(subs, s.Name)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", row.Kind, row.GroupVersion(), acts, strings.Join(apiserver.Verbs(row), " "), strings.Join(subs, " "))
	}
	writeFields(&b)
	const path = "../../docs/compatibility.md"
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(b.String(), string(have)); diff != "" {
		t.Errorf("docs/compatibility.md is not what the server does (-server +document):\n%s", diff)
	}
}
