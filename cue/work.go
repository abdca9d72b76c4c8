package cue

import (
	"context"

	"berth.dev/berth/cue/document"
	"berth.dev/berth/cue/eval"
	"berth.dev/berth/cue/kustomize"
)

// request is one piece of work that is done apart: one of its fields is set.
type request struct {
	CUE           *eval.Package
	Kustomization *kustomize.Input
	// Encrypted: something that is read was encrypted, so that nothing may be said
	// of any value.
	Encrypted bool
	// guardian is of this process alone, and so is finish: it makes of a result, if
	// it is set, what is kept.
	guardian guardian
	finish   func(admitted) admitted
}

// guarded is a result that may be kept and shown.
func (r request) guarded(a admitted) admitted {
	if r.Encrypted {
		a = r.guardian.guard(a)
	}
	if r.finish != nil {
		a = r.finish(a)
	}
	return a
}

// path is what the work is about: a folder, or a kustomization file.
func (r request) path() string {
	if r.Kustomization != nil {
		return r.Kustomization.File
	}
	return r.CUE.Dir
}

// what names the work; look says what to look for when it does not end.
func (r request) what() (what, look string) {
	if r.Kustomization != nil {
		return "the build of this kustomization", "look for aliases or patches that multiply"
	}
	return "the evaluation of this folder", "look for a comprehension, a disjunction or a definition that multiplies"
}

// perform does a piece of work in this process.
func (c *Compiler) perform(ctx context.Context, r request) admitted {
	if r.Kustomization != nil {
		return c.kinds.kustomized(*r.Kustomization, r.Encrypted)
	}
	return c.evaluate(ctx, *r.CUE, r.Encrypted)
}

// do does a piece of work, apart where that is asked for, and keeps the result
// under its key for as long as it holds.
func (j *job) do(ctx context.Context, full string, r request) (admitted, error) {
	c := j.compiler
	if c.apart == nil {
		result := r.guarded(c.perform(ctx, r))
		if err := ctx.Err(); err != nil {
			return admitted{}, err
		}
		c.cache.put(full, entry{result: result})
		return result, nil
	}
	underLimits := full + "\x00" + j.limits.String()
	if e, ok := j.cached(underLimits); ok {
		return e.result, nil
	}
	result, how, err := c.performApart(ctx, r, j.limits)
	if err != nil {
		return admitted{}, err
	}
	result = r.guarded(result)
	switch how {
	case final:
		c.cache.put(full, entry{result: result})
	case limited:
		c.cache.put(underLimits, entry{result: result})
	}
	return result, nil
}

// kustomized builds a kustomization and admits what it makes.
func (ks kinds) kustomized(in kustomize.Input, hide bool) admitted {
	docs, problems := kustomize.Build(in)
	out := admitted{problems: problems}
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
