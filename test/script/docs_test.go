package script

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestDocsCommandsDoWhatTheySay follows docs/writing-apps.md as a reader does:
// it writes the files and runs the commands, in their order.
func TestDocsCommandsDoWhatTheySay(t *testing.T) {
	page, err := os.ReadFile("../../docs/writing-apps.md")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, ".git"), 0o755); err != nil { // the top of the repository
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?ms)^```(cue file=(\\S+)|console)\n(.*?)^```$").FindAllSubmatch(page, -1)
	if len(blocks) < 10 {
		t.Fatalf("only %d blocks", len(blocks))
	}
	for _, b := range blocks {
		if name := string(b[2]); name != "" {
			at := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(at, b[3], 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		for _, one := range regexp.MustCompile(`(?m)^\$ `).Split(string(b[3]), -1)[1:] {
			command, want, _ := strings.Cut(one, "\n")
			if diff := cmp.Diff(want, said(t, dir, command)); diff != "" {
				t.Errorf("%s (-page +output):\n%s", command, diff)
			}
		}
	}
}

// said is what a command writes to both of its outputs.
func said(t *testing.T, dir, command string) string {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "bash", "-c", command)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &out
	cmd.Env = append(os.Environ(), "PATH="+binDir+":"+os.Getenv("PATH"))
	_ = cmd.Run() // what it says is compared
	return strings.ReplaceAll(out.String(), dir+"/", "")
}
