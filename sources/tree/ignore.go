package tree

import (
	"strings"

	"github.com/go-git/go-git/v5/plumbing/format/gitignore"
)

// IgnoreFile lists, in the syntax of gitignore, what Berth leaves out.
const IgnoreFile = ".berthignore"

// maxIgnore is the size of the largest IgnoreFile, in bytes.
const maxIgnore = 1 << 20

// Ignore is a list of patterns, those of deeper folders last.
type Ignore []gitignore.Pattern

// Add returns the patterns with those of the IgnoreFile in the folder at.
func (g Ignore) Add(at string, content []byte) Ignore {
	out := g[:len(g):len(g)]
	var domain []string
	if at != "" {
		domain = strings.Split(at, "/")
	}
	for _, line := range strings.Split(string(content), "\n") {
		line = strings.TrimSuffix(line, "\r")
		if strings.TrimSpace(line) != "" && !strings.HasPrefix(line, "#") {
			out = append(out, gitignore.ParsePattern(line, domain))
		}
	}
	return out
}

// Match reports whether the file or folder is left out.
func (g Ignore) Match(name string, isDir bool) bool {
	return len(g) > 0 && gitignore.NewMatcher(g).Match(strings.Split(name, "/"), isDir)
}
