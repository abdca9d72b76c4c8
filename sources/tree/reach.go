package tree

import (
	"path"
	"regexp"
	"slices"
	"strings"
)

// maxOutside bounds how many places outside are told apart, maxSteps how often
// what is found there leads further out.
const (
	maxOutside = 256
	maxSteps   = 20
)

// Reach is what is listed of a tree: the folder that is deployed, and what its
// kustomizations name outside of it, such as ../../base.
type Reach struct {
	dir     string
	outside []string
	learned map[string]bool
}

// NewReach reaches the folder dir.
func NewReach(dir string) *Reach { return &Reach{dir: dir, learned: map[string]bool{}} }

// Holds reports whether a file or folder is listed.
func (r *Reach) Holds(name string) bool {
	return within(r.dir, name) || slices.ContainsFunc(r.outside, func(p string) bool { return within(p, name) })
}

// LeadsTo reports whether something below a folder may be listed.
func (r *Reach) LeadsTo(name string) bool {
	return within(name, r.dir) || slices.ContainsFunc(r.outside, func(p string) bool { return within(name, p) })
}

// Kustomization reports whether a file is one that Learn reads.
func Kustomization(name string) bool {
	switch path.Base(name) {
	case "kustomization.yaml", "kustomization.yml", "Kustomization":
		return true
	}
	return false
}

// upwards is a path that climbs. The file is not parsed here: a word too many
// lists a folder too many, and nothing else.
var upwards = regexp.MustCompile(`[^\s"'=,\[\]{}]*\.\.[^\s"'=,\[\]{}]*`)

// climbing finds the paths that climb: words, and, for a name may hold blanks,
// whole entries of lists and fields.
func climbing(content []byte) []string {
	var out []string
	for line := range strings.Lines(string(content)) {
		if !strings.Contains(line, "..") {
			continue
		}
		out = append(out, upwards.FindAllString(line, -1)...)
		for _, mark := range []string{"- ", ": "} {
			if _, rest, ok := strings.Cut(line, mark); ok {
				out = append(out, strings.Trim(rest, " \t\r\n\"'"))
			}
		}
	}
	return out
}

// Learn adds what a kustomization names outside; true if that was not known.
func (r *Reach) Learn(name string, content []byte) bool {
	if r.learned[name] || len(r.learned) >= maxFiles {
		return false
	}
	r.learned[name] = true
	grown := false
	for _, word := range climbing(content) {
		p := path.Join(path.Dir(name), word)
		if p == "." || p == ".." || strings.HasPrefix(p, "../") || r.Holds(p) {
			continue
		}
		grown = true
		if r.outside = append(r.outside, p); len(r.outside) > maxOutside {
			r.outside = []string{""}
		}
	}
	return grown
}

// Steps calls list, which lists the tree anew and learns from it, until it finds
// nothing that leads further out.
func (r *Reach) Steps(list func() (grown bool, err error)) error {
	for range maxSteps {
		if grown, err := list(); err != nil || !grown {
			return err
		}
	}
	return nil
}
