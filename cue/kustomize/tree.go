package kustomize

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// tree is the file system that the library sees: the files of a build by their
// absolute path, and the folders that they are in. Nothing can be written. The
// library's own file system in memory would do, but refuses some names that files
// have in Git.
type tree struct {
	files   map[string][]byte
	folders map[string]bool
}

var _ filesys.FileSystem = (*tree)(nil)

var errReadOnly = errors.New("nothing is written here")

func newTree() *tree {
	return &tree{files: map[string][]byte{}, folders: map[string]bool{"/": true}}
}

// add adds a file of the repository.
func (t *tree) add(name string, content []byte) {
	name = path.Join("/", name)
	t.files[name] = content
	for dir := path.Dir(name); !t.folders[dir]; dir = path.Dir(dir) {
		t.folders[dir] = true
	}
}

func missing(name string) error { return fmt.Errorf("%s: %w", name, fs.ErrNotExist) }

// ReadFile implements filesys.FileSystem.
func (t *tree) ReadFile(name string) ([]byte, error) {
	content, ok := t.files[path.Join("/", name)]
	if !ok {
		return nil, missing(name)
	}
	return slices.Clone(content), nil
}

// CleanedAbs implements filesys.FileSystem.
func (t *tree) CleanedAbs(name string) (filesys.ConfirmedDir, string, error) {
	clean := path.Join("/", name)
	if t.folders[clean] {
		return filesys.ConfirmedDir(clean), "", nil
	}
	if _, ok := t.files[clean]; ok {
		return filesys.ConfirmedDir(path.Dir(clean)), path.Base(clean), nil
	}
	return "", "", missing(name)
}

// Exists implements filesys.FileSystem.
func (t *tree) Exists(name string) bool {
	_, isFile := t.files[path.Join("/", name)]
	return isFile || t.IsDir(name)
}

// IsDir implements filesys.FileSystem.
func (t *tree) IsDir(name string) bool { return t.folders[path.Join("/", name)] }

// ReadDir implements filesys.FileSystem.
func (t *tree) ReadDir(name string) ([]string, error) {
	dir := path.Join("/", name)
	if !t.folders[dir] {
		return nil, missing(name)
	}
	return t.Glob(strings.TrimSuffix(dir, "/") + "/*")
}

// Glob implements filesys.FileSystem.
func (t *tree) Glob(pattern string) ([]string, error) {
	var out []string
	for name := range t.files {
		if ok, err := path.Match(pattern, name); err != nil {
			return nil, err
		} else if ok {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out, nil
}

// Open implements filesys.FileSystem; the library reads whole files.
func (t *tree) Open(string) (filesys.File, error) { return nil, errors.ErrUnsupported }

// Walk implements filesys.FileSystem; the library walks over no files in a build.
func (t *tree) Walk(string, filepath.WalkFunc) error { return errors.ErrUnsupported }

// Create implements filesys.FileSystem.
func (t *tree) Create(string) (filesys.File, error) { return nil, errReadOnly }

// Mkdir implements filesys.FileSystem.
func (t *tree) Mkdir(string) error { return errReadOnly }

// MkdirAll implements filesys.FileSystem.
func (t *tree) MkdirAll(string) error { return errReadOnly }

// RemoveAll implements filesys.FileSystem.
func (t *tree) RemoveAll(string) error { return errReadOnly }

// WriteFile implements filesys.FileSystem.
func (t *tree) WriteFile(string, []byte) error { return errReadOnly }
