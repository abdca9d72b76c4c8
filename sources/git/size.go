package git

import (
	"errors"
	"io/fs"
	"path/filepath"

	"berth.dev/berth/api/v1alpha1"
)

// scope is what a Source wants of a repository besides the commit.
type scope struct {
	path            string
	submodules, lfs bool
}

func scopeOf(src *v1alpha1.Source) scope {
	return scope{src.Spec.Path, src.Spec.Submodules, src.Spec.LFS}
}

// diskSize is what the files below folders have, in bytes.
func diskSize(dirs ...string) int64 {
	var n int64
	for _, dir := range dirs {
		_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error { // what is gone meanwhile takes nothing
			if err != nil || e.IsDir() {
				return nil
			}
			if info, err := e.Info(); err == nil {
				n += info.Size()
			}
			return nil
		})
	}
	return n
}

// refusedSize remembers what was too large: it is not downloaded again at each
// poll to find the same.
type refusedSize struct {
	want  named
	scope scope
	limit int64
	err   *ErrTooLarge
}

func (r *refusedSize) stands(want named, v *visit) error {
	if r.err != nil && r.want == want && r.scope == scopeOf(v.src) && r.limit == v.limit {
		return r.err
	}
	return nil
}

func (r *refusedSize) note(want named, v *visit, err error) {
	*r = refusedSize{}
	var large *ErrTooLarge
	if errors.As(err, &large) {
		*r = refusedSize{want, scopeOf(v.src), v.limit, large}
	}
}
