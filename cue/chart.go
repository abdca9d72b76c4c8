package cue

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"berth.dev/berth/api/revision"
	"berth.dev/berth/cue/document"
)

// charts finds the Helm charts below the deployed folder. A chart is one error:
// what is in its folder is no manifest before Helm has made it one.
func (j *job) charts(ctx context.Context) error {
	in := j.in
	for _, f := range in.deployed(j.root, func(name string) bool { return path.Base(name) == "Chart.yaml" }) {
		if _, known := in.all[f.Path]; !known {
			continue // it is a chart within a chart
		}
		problem, err := j.chart(ctx, f)
		if err != nil {
			return err
		}
		if problem == nil {
			continue
		}
		in.leaveOut(folder(f.Path))
		in.problems = append(in.problems, *problem)
	}
	return nil
}

// chart says that a file makes its folder a chart; nil if it does not.
func (j *job) chart(ctx context.Context, f revision.File) (*document.Problem, error) {
	k := j.key("chart", j.root, []revision.File{f})
	e, known := j.cached(k)
	if !known {
		content, problem, err := j.in.read(ctx, f)
		if err != nil {
			return nil, err
		}
		if problem == nil {
			problem = chartProblem(f.Path, j.root, content)
		}
		if problem != nil {
			e.result.problems = []document.Problem{*problem}
		}
		j.compiler.cache.put(k, e)
	}
	if len(e.result.problems) == 0 {
		return nil, nil
	}
	return &e.result.problems[0], nil
}

// chartProblem says what to do with a chart; nil if the file is not of one.
func chartProblem(name, root string, content []byte) *document.Problem {
	docs, _ := document.YAML(name, content)
	if len(docs) == 0 {
		return nil
	}
	version, chart := docs[0].Text("apiVersion"), docs[0].Text("name")
	if version != "v1" && version != "v2" || chart == "" || docs[0].Get("kind") != nil {
		return nil
	}
	if !chartName.MatchString(chart) {
		chart = "NAME"
	}
	const what = "this folder is a Helm chart, and charts are not run"
	p := &document.Problem{Pos: docs[0].Pos}
	if dir := folder(name); dir != root {
		p.Message = fmt.Sprintf("%s; run: helm template %s %s > %s.yaml, commit that file, and list the folder %s in .berthignore", what, chart, dir, path.Join(path.Dir(dir), chart), dir)
	} else {
		p.Message = fmt.Sprintf("%s; run: helm template %s %s > manifests/%s.yaml, commit that file, and set the path of the Source to manifests", what, chart, cmp.Or(dir, "."), chart)
	}
	return p
}

var chartName = regexp.MustCompile(`^[a-zA-Z0-9._-]+$`)

// leaveOut forgets all files in a folder, and what is wrong with them.
func (in *inputs) leaveOut(dir string) {
	in.plain = slices.DeleteFunc(in.plain, func(f revision.File) bool { return within(dir, f.Path) })
	in.packages = slices.DeleteFunc(in.packages, func(d string) bool { return within(dir, d) })
	in.problems = slices.DeleteFunc(in.problems, func(p document.Problem) bool { return p.Path != "" && within(dir, p.Path) })
	for name := range in.all {
		if within(dir, name) {
			delete(in.all, name)
		}
	}
}

// compareDepth sorts what lies in shallow folders first, then by name.
func compareDepth(a, b string) int {
	return cmp.Or(cmp.Compare(strings.Count(a, "/"), strings.Count(b, "/")), strings.Compare(a, b))
}
