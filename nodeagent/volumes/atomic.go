package volumes

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// dataLink is the link through which all files of a projected volume are seen:
// to point it elsewhere changes them all in one step, as Kubernetes does it.
const dataLink = "..data"

// writeAtomic makes the volume hold exactly files. A reader sees the old files
// or the new ones, never some of each.
func writeAtomic(dir string, files map[string]file, group int) error {
	current, _ := os.Readlink(filepath.Join(dir, dataLink))
	if current != "" && same(filepath.Join(dir, current), files) {
		return nil
	}
	fresh, err := os.MkdirTemp(dir, "..")
	if err != nil {
		return err
	}
	if err := writeFiles(fresh, files, group); err != nil {
		return errors.Join(err, os.RemoveAll(fresh))
	}
	tmp := filepath.Join(dir, "..data_tmp")
	_ = os.Remove(tmp)
	if err := os.Symlink(filepath.Base(fresh), tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, filepath.Join(dir, dataLink)); err != nil {
		return err
	}
	return errors.Join(links(dir, files), sweep(dir, filepath.Base(fresh)))
}

func writeFiles(dir string, files map[string]file, group int) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		full := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			return err
		}
		mode := os.FileMode(files[name].mode) & 0o777
		if group >= 0 {
			mode |= 0o440
		}
		if err := os.WriteFile(full, files[name].data, mode); err != nil {
			return err
		}
		if err := os.Chmod(full, mode); err != nil { // whatever the umask is
			return err
		}
		if owner := files[name].owner; group >= 0 || owner >= 0 {
			if err := os.Chown(full, owner, group); err != nil {
				return err
			}
		}
	}
	return nil
}

// links makes the visible names, one for the first element of each path.
func links(dir string, files map[string]file) error {
	want := map[string]bool{}
	for name := range files {
		first, _, _ := strings.Cut(name, "/")
		want[first] = true
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "..") || want[e.Name()] {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	for name := range want {
		err := os.Symlink(filepath.Join(dataLink, name), filepath.Join(dir, name))
		if err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}

// sweep removes the former contents.
func sweep(dir, keep string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), "..") && e.Name() != keep {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return fmt.Errorf("remove former contents: %w", err)
			}
		}
	}
	return nil
}

// same tells whether dir holds exactly files.
func same(dir string, files map[string]file) bool {
	n := 0
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		n++
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		want, ok := files[rel]
		data, err := os.ReadFile(p)
		if err != nil || !ok || !bytes.Equal(data, want.data) {
			return errors.New("differs")
		}
		return nil
	})
	return err == nil && n == len(files)
}
