package eval

import (
	"fmt"
	"strings"

	"cuelang.org/go/cue"

	"berth.dev/berth/cue/document"
	"berth.dev/berth/cue/schema"
)

// missing reports the fields that a struct must have and has not. CUE takes them
// for still to come; whatever hangs on them, an object for one, would be lost
// without a word.
func (r *run) missing(v cue.Value, at []string) {
	if v.IncompleteKind() != cue.StructKind {
		return
	}
	fields, err := v.Fields(cue.Optional(true))
	if err != nil {
		return // told by itself
	}
	for fields.Next() {
		s := fields.Selector()
		if s.ConstraintType() != cue.RequiredConstraint {
			continue
		}
		name := strings.TrimRight(s.String(), "!")
		r.add(document.Problem{Pos: r.places.near(at), Field: strings.Join(append(at[:len(at):len(at)], name), "."), Message: missingValue, Lacks: true})
	}
}

const missingValue = "missing; give it a value"

// open reports the fields of a shorthand that have a type and no value yet: it
// leaves them out of what it makes.
func (r *run) open(v cue.Value, at []string) {
	if !v.LookupPath(cue.MakePath(cue.Hid("_template", schema.ImportPath))).Exists() {
		return
	}
	r.valueless(v, at, 0)
}

// maxOpenDepth bounds the search: the fields of a shorthand are not deep.
const maxOpenDepth = 12

func (r *run) valueless(v cue.Value, at []string, depth int) {
	if _, object := objectKind(v); object || depth > maxOpenDepth {
		return
	}
	each(v, func(name string, child cue.Value) {
		path := append(at[:len(at):len(at)], name)
		child, _ = child.Default()
		switch kind := child.IncompleteKind(); {
		case kind == cue.BottomKind:
		case kind&(cue.StructKind|cue.ListKind) != 0:
			r.valueless(child, path, depth+1)
		case !child.IsConcrete():
			r.add(document.Problem{Pos: r.places.value(child, path), Field: strings.Join(path, "."), Lacks: true,
				Message: r.told(fmt.Sprintf("has no value yet, only %v; give it one", child))})
		}
	})
}

// told is a message that may hold a value, where none may be told.
func (r *run) told(message string) string {
	if r.pkg.Encrypted {
		return unspoken(message)
	}
	return message
}

func (r *run) add(p document.Problem) {
	if len(r.problems) < maxProblems {
		r.problems = append(r.problems, p)
	}
}
