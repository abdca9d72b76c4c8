// Package eval evaluates one CUE package and finds the objects in its value. It
// reads nothing but the files it is handed: no disk, no network, no registry.
package eval

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"cuelang.org/go/cue"
	"cuelang.org/go/cue/ast"
	"cuelang.org/go/cue/cuecontext"

	"berth.dev/berth/cue/document"
	"berth.dev/berth/cue/schema"
)

// Package is what one evaluation reads.
type Package struct {
	// Dir is the package's folder, relative to the repository.
	Dir string
	// ModuleRoot is the folder that holds cue.mod, or is taken to.
	ModuleRoot string
	// Files of the module by path in the repository: *.cue, cue.mod and, for
	// @embed, whatever the package embeds.
	Files map[string][]byte
	// Unnamed lists the files of Dir without a package clause; if set, they are
	// the package.
	Unnamed []string
	// Encrypted: something that it embeds was, so that no value may be told.
	Encrypted bool
}

// Object is one object of a package's value.
type Object struct {
	Node *document.Node
	// Value is where the object stands in the package, such as deployment.web.
	Value string
}

// Result of an evaluation.
type Result struct {
	Objects []Object
	// Problems that the package has by itself, before any check of its objects.
	Problems []document.Problem
}

// Checker finds the faults of an object.
type Checker func(n *document.Node) []document.Problem

// Evaluator holds the schema's bytes; it keeps nothing of an evaluation.
type Evaluator struct {
	schema  map[string][]byte
	lenient map[string][]byte
}

// New makes an Evaluator over the files of the schema.
func New(definitions map[string][]byte) (*Evaluator, error) {
	lenient, err := loosen(definitions)
	if err != nil {
		return nil, err
	}
	return &Evaluator{schema: definitions, lenient: lenient}, nil
}

// Evaluate returns the objects of a package, or its faults. The package is
// evaluated with the schema as it is. If that fails, it is evaluated once more
// with a schema without constraints, so that check sees every field that the
// package gives, and a conflict hides nothing.
func (e *Evaluator) Evaluate(ctx context.Context, p Package, check Checker) Result {
	strict := e.run(p, e.schema)
	if err := ctx.Err(); err != nil {
		return Result{Problems: []document.Problem{{Pos: document.Pos{Path: p.Dir}, Message: "evaluation took too long: " + err.Error()}}}
	}
	if len(strict.problems) == 0 {
		strict.place()
		return Result{Objects: strict.objects, Problems: append(strict.checked(check), strict.halves...)}
	}
	loose := e.run(p, e.lenient)
	if loose.panicked != "" && strict.panicked == "" {
		return Result{Problems: strict.problems}
	}
	loose.place()
	problems, inner := loose.outer()
	problems = append(problems, loose.checked(check)...)
	for _, p := range strict.problems {
		if top, _, _ := strings.Cut(p.Field, "."); inner[top] {
			problems = append(problems, p)
		}
	}
	if !anyError(problems) {
		problems = append(problems, strict.problems...)
	}
	return Result{Problems: append(telling(problems), loose.halves...)}
}

// outer are the problems of what the user wrote; inner are the fields of the
// package that have others. Without constraints a shorthand looks for fields that
// a wrong value does not have; the strict evaluation tells what is wrong with it.
func (r *run) outer() (outer []document.Problem, inner map[string]bool) {
	inner = map[string]bool{}
	for _, p := range r.problems {
		_, written := r.places.byPath[key(strings.Split(p.Field, "."))]
		made := strings.HasPrefix(p.Message, "undefined field: ") && !written && strings.Contains(p.Field, ".spec.")
		if made || strings.Contains("."+p.Field, "._template.") {
			top, _, _ := strings.Cut(p.Field, ".")
			inner[top] = true
			continue
		}
		outer = append(outer, p)
	}
	return outer, inner
}

// telling leaves out what only follows from another fault, and the same fault
// at the same place seen from several values.
func telling(problems []document.Problem) []document.Problem {
	// Where a value is missing, what is made of it has none either.
	var without []string
	for _, p := range problems {
		if p.Message == missingValue || strings.HasPrefix(p.Message, "has no value yet") {
			without = append(without, p.Field)
		}
	}
	consequence := func(p document.Problem) bool {
		if strings.HasPrefix(p.Message, "has no value yet") {
			return slices.ContainsFunc(without, func(field string) bool {
				parent := field[:strings.LastIndexByte(field, '.')+1]
				return field != p.Field && parent != "" && strings.HasPrefix(p.Field, parent) && strings.Count(p.Field, ".") > strings.Count(field, ".")
			})
		}
		return strings.HasPrefix(p.Message, "unresolved disjunction") || strings.HasPrefix(p.Message, "invalid interpolation")
	}
	cause := slices.ContainsFunc(problems, func(p document.Problem) bool { return !p.Warning && !consequence(p) })
	// The shorthands have hidden fields of the same value.
	inAlias := func(p document.Problem) bool { return strings.Contains(p.Field, "._") }
	elsewhere := func(p document.Problem) bool {
		return slices.ContainsFunc(problems, func(q document.Problem) bool { return q.Pos == p.Pos && !inAlias(q) })
	}
	seen := map[document.Problem]bool{}
	var out []document.Problem
	for _, p := range problems {
		same := document.Problem{Pos: p.Pos, Message: p.Message}
		if (cause && consequence(p)) || seen[same] || inAlias(p) && elsewhere(p) {
			continue
		}
		seen[same] = true
		out = append(out, p)
	}
	return out
}

func anyError(problems []document.Problem) bool {
	for _, p := range problems {
		if !p.Warning {
			return true
		}
	}
	return false
}

// run is one evaluation of a package.
type run struct {
	pkg     Package
	places  places
	objects []Object
	values  []cue.Value
	// from are the values of what was exported.
	from map[*document.Node]cue.Value
	// broken are the values outside of objects that hold an error.
	broken   []cue.Value
	problems []document.Problem
	// halves warn of what looks like an object, but is none.
	halves []document.Problem
	// panicked is what the evaluator failed with; empty when it did not.
	panicked string
	// makesSecrets: what is hidden in the package may become a Secret.
	makesSecrets bool
	// hidden are the strings that no message may hold.
	hidden map[string]bool
}

func (e *Evaluator) run(p Package, definitions map[string][]byte) (r *run) {
	r = &run{pkg: p, makesSecrets: makesSecrets(p), hidden: map[string]bool{}, from: map[*document.Node]cue.Value{}}
	// The evaluator panics on some values that hold a conflict. What was found
	// until then is kept, and the other of the two evaluations tells the fault.
	defer func() {
		if fault := recover(); fault != nil {
			if p.Encrypted {
				fault = "what it says may hold a value of an encrypted file"
			}
			r.panicked = fmt.Sprint(fault)
			r.problems = append(r.problems, document.Problem{Pos: document.Pos{Path: p.Dir},
				Message: fmt.Sprintf("the CUE evaluator failed on this folder: %v; please report it", fault)})
		}
	}()
	inst, problems := loadPackage(p, definitions)
	if problems != nil {
		r.problems = problems
		return r
	}
	r.places = index(inst)
	r.places.files = p.Files
	value := cuecontext.New().BuildInstance(inst)
	r.walk(value, nil)
	r.faults(value)
	return r
}

// walk collects the objects: structs with a concrete apiVersion and kind.
func (r *run) walk(v cue.Value, at []string) {
	v, _ = v.Default()
	if _, ok := objectKind(v); ok {
		n := r.export(v, at)
		n.Pos = r.places.object(v, at)
		r.objects = append(r.objects, Object{Node: n, Value: strings.Join(at, ".")})
		r.values = append(r.values, v)
		return
	}
	if v.IncompleteKind() == cue.BottomKind {
		r.broken = append(r.broken, v)
	} else if lacks := half(v); lacks != "" {
		r.halves = append(r.halves, document.Problem{Pos: r.places.object(v, at), Warning: true, Field: strings.Join(at, "."),
			Message: "this looks like an object, but " + lacks + ": it is not deployed; begin the name of a template with _ or #"})
	}
	r.missing(v, at)
	r.open(v, at)
	each(v, func(name string, child cue.Value) { r.walk(child, append(at[:len(at):len(at)], name)) })
}

// each visits the fields of a struct or the items of a list; a fault in one
// does not keep it from the others.
func each(v cue.Value, visit func(string, cue.Value)) {
	if v == (cue.Value{}) {
		return
	}
	kind := v.IncompleteKind()
	if kind != cue.BottomKind && kind&(cue.StructKind|cue.ListKind) == 0 {
		return
	}
	none := true
	if kind == cue.BottomKind || kind&cue.StructKind != 0 {
		if fields, err := v.Fields(); err == nil {
			for fields.Next() {
				none = false
				visit(label(fields.Selector()), fields.Value())
			}
		}
	}
	if !none {
		return
	}
	if items, err := v.List(); err == nil {
		for i := 0; items.Next(); i++ {
			visit(fmt.Sprint(i), items.Value())
		}
	}
}

func label(s cue.Selector) string {
	if s.LabelType() == cue.StringLabel {
		return s.Unquoted()
	}
	return s.String()
}

func objectKind(v cue.Value) (string, bool) {
	if k := v.IncompleteKind(); v == (cue.Value{}) || k != cue.BottomKind && k&cue.StructKind == 0 {
		return "", false
	}
	apiVersion := v.LookupPath(cue.MakePath(cue.Str("apiVersion")))
	kind := v.LookupPath(cue.MakePath(cue.Str("kind")))
	if !apiVersion.Exists() || !kind.Exists() {
		return "", false
	}
	if _, err := apiVersion.String(); err != nil {
		return "", false
	}
	k, err := kind.String()
	return k, err == nil
}

// half says what a struct with a name lacks to be an object: one of apiVersion
// and kind. It is empty for what is not meant to be one.
func half(v cue.Value) string {
	if _, err := v.LookupPath(cue.ParsePath("metadata.name")).String(); err != nil {
		return ""
	}
	given, lacks := 0, ""
	for _, name := range []string{"apiVersion", "kind"} {
		field := v.LookupPath(cue.ParsePath(name))
		if _, err := field.String(); err == nil {
			given++
		} else if field.Exists() {
			lacks = "its " + name + " is no string yet"
		} else {
			lacks = "it has no " + name
		}
	}
	if given != 1 {
		return ""
	}
	return lacks
}

// export turns a value into a Node and leaves out what has no value. Places
// are filled in later, if there is something to report.
func (r *run) export(v cue.Value, at []string) *document.Node {
	v, _ = v.Default()
	n := &document.Node{}
	r.from[n] = v
	switch v.IncompleteKind() {
	case cue.StructKind:
		n.Kind = document.Map
		r.fields(n, v, at)
	case cue.BottomKind:
		// Something below is wrong, and told by itself.
		n.Kind = document.Map
		r.fields(n, v, at)
		if n.Fields == nil && n.Items == nil {
			n.Kind = document.Faulty
		}
	case cue.ListKind:
		n.Kind = document.List
		each(v, func(name string, child cue.Value) {
			n.Items = append(n.Items, r.export(child, append(at[:len(at):len(at)], name)))
		})
	default:
		if err := scalar(n, v); err != nil && len(r.problems) < maxProblems {
			r.problems = append(r.problems, document.Problem{Pos: r.places.value(v, at), Field: strings.Join(at, "."), Message: err.Error()})
		}
	}
	return n
}

func (r *run) fields(n *document.Node, v cue.Value, at []string) {
	if fields, err := v.Fields(); err == nil {
		for fields.Next() {
			if fields.Selector().LabelType() == cue.IndexLabel {
				// A list with a fault in it.
				n.Kind = document.List
				n.Items = append(n.Items, r.export(fields.Value(), append(at[:len(at):len(at)], fields.Selector().String())))
				continue
			}
			r.field(n, label(fields.Selector()), fields.Value(), at)
		}
	}
}

func (r *run) field(n *document.Node, name string, v cue.Value, at []string) {
	if v.IncompleteKind() == cue.BottomKind && empty(v) {
		// A conflict, reported by itself; or a required field that is missing.
		// The empty field keeps a conflict from being called missing as well.
		if v.Exists() {
			n.Fields = append(n.Fields, document.Field{Key: name, Value: &document.Node{Kind: document.Faulty}})
		}
		return
	}
	n.Fields = append(n.Fields, document.Field{Key: name, Value: r.export(v, append(at[:len(at):len(at)], name))})
}

func empty(v cue.Value) bool {
	none := true
	each(v, func(string, cue.Value) { none = false })
	return none
}

func scalar(n *document.Node, v cue.Value) error {
	switch v.Kind() {
	case cue.NullKind:
		n.Kind = document.Null
	case cue.BoolKind:
		b, err := v.Bool()
		n.Kind, n.Value, n.Plain = document.Bool, b, fmt.Sprint(b)
		return err
	case cue.IntKind:
		i, err := v.Int64()
		if err != nil {
			return fmt.Errorf("the number is out of range; must fit in 64 bits")
		}
		n.Kind, n.Value, n.Plain = document.Int, i, written(v, fmt.Sprint(i))
	case cue.FloatKind, cue.NumberKind:
		f, err := v.Float64()
		n.Kind, n.Value, n.Plain = document.Float, f, written(v, fmt.Sprint(f))
		if i := int64(f); float64(i) == f && f < 1<<53 && f > -1<<53 {
			n.Kind, n.Value = document.Int, i
		}
		return err
	case cue.StringKind:
		s, err := v.String()
		n.Kind, n.Value = document.String, s
		return err
	case cue.BytesKind:
		return fmt.Errorf("bytes are not allowed; use a string, in base64 where Kubernetes expects it")
	default:
		n.Kind = document.Faulty
	}
	return nil
}

// written is a number as the user wrote it, if it stands there as such.
func written(v cue.Value, otherwise string) string {
	if lit, ok := v.Source().(*ast.BasicLit); ok {
		return lit.Value
	}
	return otherwise
}

// place fills in the places of all objects.
func (r *run) place() {
	for _, o := range r.objects {
		at := strings.Split(o.Value, ".")
		if o.Value == "" {
			at = nil
		}
		r.places.fill(o.Node, at, r.from)
	}
}

func (r *run) checked(check Checker) []document.Problem {
	var out []document.Problem
	for _, o := range r.objects {
		out = append(out, check(o.Node)...)
	}
	return out
}

// relative is the package's file as the repository names it.
func relative(filename string) (string, bool) {
	name, ok := strings.CutPrefix(filename, root+"/")
	if !ok || strings.Contains(name, schema.Vendored+"/") {
		return "", false
	}
	return name, true
}

func moduleFile(p Package) string { return path.Join(p.ModuleRoot, "cue.mod/module.cue") }
