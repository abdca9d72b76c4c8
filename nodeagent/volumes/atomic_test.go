package volumes

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		if e.Name()[0] != '.' {
			out = append(out, e.Name())
		}
	}
	return out
}

func TestFilesChangeTogether(t *testing.T) {
	dir := t.TempDir()
	steps := []struct {
		files map[string]file
		want  []string
	}{
		{map[string]file{"a": {[]byte("1"), 0o600, -1}, "sub/b": {[]byte("1"), 0o644, -1}}, []string{"a", "sub"}},
		{map[string]file{"a": {[]byte("2"), 0o600, -1}, "c": {[]byte("2"), 0o644, -1}}, []string{"a", "c"}},
		{map[string]file{}, nil},
	}
	for i, step := range steps {
		for range 2 { // again changes nothing
			if err := writeAtomic(dir, step.files, -1); err != nil {
				t.Fatal(err)
			}
		}
		if got := names(t, dir); !slices.Equal(got, step.want) {
			t.Errorf("step %d: %v, want %v", i, got, step.want)
		}
		for name, f := range step.files {
			data, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil || string(data) != string(f.data) {
				t.Errorf("step %d: %s is %q, %v", i, name, data, err)
			}
		}
		generations, _ := filepath.Glob(filepath.Join(dir, "..*"))
		if len(generations) != 2 { // ..data and what it leads to
			t.Errorf("step %d: %v are left", i, generations)
		}
	}
}

func TestPathsStayInside(t *testing.T) {
	for name, ok := range map[string]bool{"a": true, "a/b": true, "../a": false, "/a": false, "a/../b": false, "": false, "a/": false, "..data": false} {
		if err := checkName(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}
