package eval

import (
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"

	"cuelang.org/go/cue/build"
	cueerrors "cuelang.org/go/cue/errors"
	"cuelang.org/go/cue/load"
	"cuelang.org/go/mod/modconfig"
	"cuelang.org/go/mod/modfile"
	"cuelang.org/go/mod/module"

	"berth.dev/berth/cue/document"
	"berth.dev/berth/cue/schema"
)

// root is where the loader believes the repository to be. Nothing can exist
// there: the loader would mix a folder of the host into the package.
const root = "/proc/0/berth"

var errNoRegistry = errors.New("modules from a registry are not fetched: vendor the package under cue.mod/pkg, or copy it into the repository")

// noRegistry denies every module.
type noRegistry struct{}

var _ modconfig.Registry = noRegistry{}

func (noRegistry) ModFile(context.Context, module.Version) (*modfile.File, error) {
	return nil, errNoRegistry
}

func (noRegistry) Fetch(context.Context, module.Version) (module.SourceLoc, error) {
	return module.SourceLoc{}, errNoRegistry
}

func (noRegistry) ModuleVersions(context.Context, string) ([]string, error) {
	return nil, errNoRegistry
}

// instance loads the package from memory.
func loadPackage(p Package, definitions map[string][]byte) (*build.Instance, []document.Problem) {
	moduleRoot := path.Join(root, p.ModuleRoot)
	overlay := map[string]load.Source{}
	for name, content := range p.Files {
		overlay[path.Join(root, name)] = load.FromBytes(content)
	}
	if _, ok := p.Files[moduleFile(p)]; !ok {
		overlay[path.Join(root, moduleFile(p))] = load.FromString(fmt.Sprintf("module: \"repository.invalid\"\nlanguage: version: %q\n", schema.Language))
	}
	for name, content := range definitions {
		overlay[path.Join(moduleRoot, schema.Vendored, name)] = load.FromBytes(content)
	}
	args := []string{"."}
	if len(p.Unnamed) > 0 {
		args = nil
		for _, name := range p.Unnamed {
			args = append(args, "./"+path.Base(name))
		}
	}
	insts := load.Instances(args, &load.Config{
		Dir:        path.Join(root, p.Dir),
		ModuleRoot: moduleRoot,
		Overlay:    overlay,
		Registry:   noRegistry{},
		Env:        []string{},
	})
	if len(insts) != 1 {
		return nil, []document.Problem{{Pos: document.Pos{Path: p.Dir}, Message: fmt.Sprintf("the folder holds %d CUE packages; keep one package in a folder", len(insts))}}
	}
	if err := insts[0].Err; err != nil {
		return nil, loadProblems(p, err)
	}
	return insts[0], nil
}

var foundNot = regexp.MustCompile(`cannot find package "[^"]*"`)

func loadProblems(p Package, err error) []document.Problem {
	var out []document.Problem
	seen := map[string]bool{}
	for _, e := range cueerrors.Errors(err) {
		pos := document.Pos{Path: p.Dir, Line: 0}
		for _, at := range cueerrors.Positions(e) {
			if name, ok := relative(at.Filename()); ok {
				pos = document.Pos{Path: name, Line: at.Line(), Column: at.Column()}
				break
			}
		}
		message := strings.ReplaceAll(e.Error(), root+"/", "")
		if pos.Line == 0 && strings.Contains(message, "module.cue") {
			pos.Path = moduleFile(p)
		}
		switch {
		case strings.Contains(message, errNoRegistry.Error()):
			message = "cannot import a module from outside the repository: " + errNoRegistry.Error()
		case strings.Contains(message, "no language version declared"):
			message = fmt.Sprintf("no language version is declared; add the line language: version: %q", schema.Language)
		case strings.Contains(message, "language version") || strings.Contains(message, "language.version"):
			message += "; lower language.version in cue.mod/module.cue to " + schema.Language
		case strings.Contains(message, "cannot find package"):
			message = foundNot.FindString(message) + "; berth.dev/schema, CUE's own packages and packages of this repository can be imported"
		case strings.Contains(message, "builtin package"):
			message += "; look for the name among CUE's own packages"
		case strings.Contains(message, "import cycle"):
			message = "this import leads back to this package; move what both need into a third one"
		case strings.Contains(message, "relative import"):
			message = strings.TrimPrefix(message, "import failed: ") + "; write the module's name from cue.mod/module.cue before the folder"
		case strings.Contains(message, "illegal integer number"):
			message += "; an octal number begins with 0o, such as 0o644"
		}
		if p.Encrypted && strings.Contains(message, "embed") {
			message = unspoken(undecodable.ReplaceAllString(message, "the embedded file"))
		}
		if key := pos.Path + message; !seen[key] && len(out) < maxProblems {
			seen[key] = true
			out = append(out, document.Problem{Pos: pos, Message: message})
		}
	}
	return out
}
