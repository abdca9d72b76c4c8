package cue

import (
	"bytes"
	"context"
	"fmt"
	"path"
	"regexp"
	"sort"
	"strings"

	"berth.dev/berth/api/revision"
	"berth.dev/berth/cue/document"
	"berth.dev/berth/cue/sops"
)

// maxFile is the size of the largest file that is read.
const maxFile = 4 << 20

// inputs is what a tree holds for the compiler.
type inputs struct {
	tree revision.Tree
	// all files of the tree by path.
	all map[string]revision.File
	// plain are the YAML and JSON files below the deployed folder.
	plain []revision.File
	// packages are the folders below it that hold *.cue, sorted.
	packages []string
	// cueFiles of the whole tree, by folder.
	cueFiles map[string][]revision.File
	// vendored are the files of copies of the schema, by the folder of the module.
	vendored map[string][]revision.File
	// age are the files NAME.age, by NAME.
	age      map[string]revision.File
	problems []document.Problem
	// folders of the tree; made when it is first asked for.
	folders map[string]bool
}

// sift sorts the files of a tree by what they are to the compiler.
func sift(tree revision.Tree, files []revision.File, root string) *inputs {
	in := &inputs{tree: tree, all: make(map[string]revision.File, len(files)), cueFiles: map[string][]revision.File{}, vendored: map[string][]revision.File{}}
	folders := map[string]bool{}
	below := false
	for _, f := range files {
		in.all[f.Path] = f
		in.unseal(f)
		deployed := within(root, f.Path) && !hidden(root, f.Path)
		below = below || deployed
		ext := path.Ext(f.Path)
		if f.Kind != revision.Regular {
			ext = path.Ext(strings.TrimSuffix(f.Path, sops.Suffix))
		}
		if deployed && f.Kind != revision.Regular {
			in.special(f, ext)
			continue
		}
		if f.Kind == revision.Submodule && within(f.Path, root) {
			in.special(f, ext) // the deployed folder lies in it
			below = true
			continue
		}
		if f.Kind != revision.Regular || !manifestLike(ext) {
			continue
		}
		if f.Size > maxFile {
			if deployed {
				in.problems = append(in.problems, document.Problem{Pos: document.Pos{Path: f.Path},
					Message: fmt.Sprintf("the file is %.1f MiB; at most %d MiB are read: split it, or list it in .berthignore", float64(f.Size)/(1<<20), maxFile>>20)})
			}
			continue
		}
		if module, ok := inVendored(f.Path); ok {
			in.vendored[module] = append(in.vendored[module], f)
			continue
		}
		if ext == ".cue" {
			dir := folder(f.Path)
			in.cueFiles[dir] = append(in.cueFiles[dir], f)
			if deployed && !inCueMod(f.Path) {
				folders[dir] = true
			}
		} else if deployed && !inCueMod(f.Path) {
			in.plain = append(in.plain, f)
		}
	}
	in.unsealed(root)
	for dir := range folders {
		in.packages = append(in.packages, dir)
	}
	sort.Strings(in.packages)
	if !below {
		where := "the repository"
		if root != "" {
			where = "the folder " + root
		}
		in.problems = append(in.problems, document.Problem{Warning: true, Message: where + " is empty or does not exist at this commit"})
	}
	return in
}

func manifestLike(ext string) bool {
	return ext == ".cue" || ext == ".yaml" || ext == ".yml" || ext == ".json"
}

// special names entries that are no files: none of them may read as "nothing there".
func (in *inputs) special(f revision.File, ext string) {
	p := document.Problem{Pos: document.Pos{Path: f.Path}}
	switch {
	case f.Kind == revision.Submodule:
		p.Message = "a submodule is not fetched; set spec.submodules: true of the Source, put the files into this repository, or list the folder in .berthignore"
	case manifestLike(ext):
		p.Message = "a symbolic link is not followed; put the file itself here, or list it in .berthignore"
	case ext == "":
		p.Warning = true
		p.Message = "a symbolic link is not followed; what it leads to is not deployed from here"
	default:
		return
	}
	in.problems = append(in.problems, p)
}

func within(root, name string) bool {
	return root == "" || name == root || strings.HasPrefix(name, root+"/")
}

// hidden reports whether a file lies in a folder like .github below root.
func hidden(root, name string) bool {
	rel := strings.TrimPrefix(strings.TrimPrefix(name, root), "/")
	parts := strings.Split(rel, "/")
	for _, part := range parts {
		if strings.HasPrefix(part, ".") {
			return true
		}
	}
	return false
}

func inCueMod(name string) bool {
	return strings.HasPrefix(name, "cue.mod/") || strings.Contains(name, "/cue.mod/")
}

// folder is the folder of a file; "" is the root of the repository.
func folder(name string) string {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		return name[:i]
	}
	return ""
}

// read returns the content of a file, or what is wrong with it.
func (in *inputs) read(ctx context.Context, f revision.File) ([]byte, *document.Problem, error) {
	content, err := in.tree.Read(ctx, in.written(f.Path), maxFile)
	if err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", f.Path, err)
	}
	if bytes.HasPrefix(content, []byte("version https://git-lfs.github.com/spec/")) {
		return nil, &document.Problem{Pos: document.Pos{Path: f.Path, Line: 1},
			Message: "the file is a Git LFS pointer, not the content; set spec.lfs: true of the Source, commit the file itself, or list it in .berthignore"}, nil
	}
	if path.Ext(f.Path) == ".cue" { // CUE would put another letter for what is none
		return content, document.NotText(f.Path, content), nil
	}
	return content, nil, nil
}

// mentions finds what makes a file a manifest even if it cannot be parsed.
var mentions = regexp.MustCompile(`(?m)(?:^[\s{,-]*|[{,]\s*)["']?(apiVersion|kind)["']?\s*:`)

// plainFile reads the objects of a YAML or JSON file.
// hide keeps its values out of what is said.
func (ks kinds) plainFile(f revision.File, content []byte, hide bool) admitted {
	isJSON := path.Ext(f.Path) == ".json"
	var docs []*document.Node
	var out admitted
	if isJSON {
		docs, out.problems = document.JSON(f.Path, content)
	} else {
		docs, out.problems = document.YAML(f.Path, content)
	}
	if !anyManifest(docs) && (len(docs) > 0 && len(out.problems) == 0 || !mentions.Match(content)) && utf8Text(out.problems) {
		broken := out.problems
		out.problems = nil
		if !isJSON && len(broken) > 0 {
			p := broken[0]
			p.Warning, p.Message = true, "passed over, for nothing in it says that it is a manifest: "+p.Message+"; list it in .berthignore to silence this"
			out.problems = []document.Problem{p}
			return out
		}
		if !isJSON && len(bytes.TrimSpace(content)) > 0 && len(docs) > 0 {
			out.problems = []document.Problem{{Pos: document.Pos{Path: f.Path}, Warning: true,
				Message: "passed over: no apiVersion and kind in it; list it in .berthignore to silence this"}}
		}
		return out
	}
	for _, doc := range docs {
		if doc.Kind != document.Map || doc.Get("apiVersion") == nil || doc.Get("kind") == nil {
			out.problems = append(out.problems, document.Problem{Pos: doc.Pos, Object: label(doc), Message: lacks(doc)})
			continue
		}
		one := ks.admit(doc, hide)
		out.objects = append(out.objects, one.objects...)
		out.problems = append(out.problems, one.problems...)
	}
	return out
}

// utf8Text is false when a file could not be read as text at all.
func utf8Text(problems []document.Problem) bool {
	for _, p := range problems {
		if strings.Contains(p.Message, "UTF-") {
			return false
		}
	}
	return true
}

func anyManifest(docs []*document.Node) bool {
	for _, doc := range docs {
		if doc.Kind == document.List && anyManifest(doc.Items) {
			return true
		}
		has := func(name string) bool { return doc.Get(name) != nil }
		named := has("apiVersion") && has("kind")
		if doc.Kind == document.Map && (named || (has("apiVersion") || has("kind")) && has("metadata") || has("items") && (has("kind") || anyManifest(doc.Get("items").Items))) {
			return true
		}
	}
	return false
}

func lacks(doc *document.Node) string {
	switch {
	case doc.Kind == document.List && anyManifest(doc.Items):
		return "the document is a list of objects; separate them, or put them under items of an object of the kind List"
	case doc.Kind != document.Map:
		return "the document is no object; must have apiVersion, kind and metadata"
	case doc.Get("kind") != nil:
		return "apiVersion is missing; must be like v1 or apps/v1"
	case doc.Get("apiVersion") != nil:
		return "kind is missing; must be like Deployment or Service"
	}
	return "apiVersion and kind are missing in this document"
}
