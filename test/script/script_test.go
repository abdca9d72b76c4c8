// Package script runs the real program as a user does, in the scripts of
// testdata. No server runs here: test/e2e has the tests that need one.
package script

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// nobody is a user and group without rights.
const nobody = 65534

// binDir holds the program, built once for all scripts.
var binDir string

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "berth-script")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	// Nobody must be able to run it.
	if err := os.Chmod(dir, 0o755); err != nil {
		return 0, err
	}
	build := exec.Command("go", "build", "-tags", "kustomize_disable_go_plugin_support", "-buildvcs=false", "-o", filepath.Join(dir, "berth"), "../../cmd/berth")
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("build berth: %w\n%s", err, out)
	}
	binDir = dir
	return m.Run(), nil
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", binDir+string(os.PathListSeparator)+e.Getenv("PATH"))
			// Never the server that this machine may run.
			e.Setenv("KUBECONFIG", filepath.Join(e.WorkDir, "no-kubeconfig"))
			return nil
		},
		Condition: func(name string) (bool, error) {
			if name == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", name)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":   exits,
			"as-user": asUser,
		},
	})
}

// exits CODE COMMAND… runs a command that is to end with a code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits code command…")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

// asUser runs a command that is to fail without the rights of root, and shows
// what it says.
func asUser(ts *testscript.TestScript, neg bool, args []string) {
	if !neg {
		ts.Fatalf("usage: ! as-user command…")
	}
	cmd := exec.Command(filepath.Join(binDir, args[0]), args[1:]...)
	cmd.Dir = "/"
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	out, err := cmd.CombinedOutput()
	if err == nil {
		ts.Fatalf("it went well")
	}
	ts.Check(os.WriteFile(ts.MkAbs("said"), out, 0o644))
}

// TestEveryCommandHasAnExample walks the commands by their help.
func TestEveryCommandHasAnExample(t *testing.T) {
	name := regexp.MustCompile(`(?m)^  ([a-z]+) +\S`)
	var walk func(args []string)
	walk = func(args []string) {
		out, err := exec.Command(filepath.Join(binDir, "berth"), append(args, "--help")...).CombinedOutput()
		text := string(out)
		if err != nil {
			t.Fatalf("berth %v: %v\n%s", args, err, text)
		}
		if !strings.Contains(text, "Examples:\n") {
			t.Errorf("berth %s --help has no example", strings.Join(args, " "))
		}
		_, list, found := strings.Cut(text, "Available Commands:\n")
		if !found {
			return
		}
		list, _, _ = strings.Cut(list, "\n\n")
		for _, m := range name.FindAllStringSubmatch(list, -1) {
			if m[1] != "help" {
				walk(append(append([]string{}, args...), m[1]))
			}
		}
	}
	walk(nil)
}
