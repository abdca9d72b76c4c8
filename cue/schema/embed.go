// Package schema embeds the CUE definitions that repositories import as
// "berth.dev/schema". It holds bytes and evaluates nothing.
package schema

import (
	"embed"
	"io/fs"
)

// ImportPath is how a repository names this schema.
const ImportPath = "berth.dev/schema"

// Language is the version of CUE that the schema is written in, and that a
// repository without a cue.mod is read as.
const Language = "v0.17.0"

// Vendored is where a module keeps its copy of the schema.
const Vendored = "cue.mod/pkg/" + ImportPath

//go:embed *.cue
var files embed.FS

// Files returns the schema's files by name.
func Files() (map[string][]byte, error) {
	names, err := fs.Glob(files, "*.cue")
	if err != nil {
		return nil, err
	}
	out := make(map[string][]byte, len(names))
	for _, name := range names {
		content, err := files.ReadFile(name)
		if err != nil {
			return nil, err
		}
		out[name] = content
	}
	return out, nil
}

// Shorthand reports whether a file of the schema computes rather than constrains.
func Shorthand(name string) bool {
	return name == "program.cue" || name == "app.cue" || name == "task.cue"
}
