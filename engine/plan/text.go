package plan

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Limits of what a rendered plan shows; the rest is counted.
const (
	maxSteps  = 200
	maxFields = 20
)

// Summary is one line, such as "2 to create, 1 to change, 7 unchanged".
func (p Plan) Summary() string {
	var parts []string
	for _, a := range []struct {
		action Action
		words  string
	}{{Create, "to create"}, {Change, "to change"}, {Replace, "to replace"}, {Delete, "to delete"}, {Release, "to release"}, {HandOver, "to hand over"}, {Keep, "kept"}} {
		if n := p.Count(a.action); n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, a.words))
		}
	}
	if len(parts) == 0 {
		if p.Unchanged == 1 {
			return "no change, 1 object is as it should be"
		}
		return fmt.Sprintf("no change, %d objects are as they should be", p.Unchanged)
	}
	if p.Unchanged > 0 {
		parts = append(parts, fmt.Sprintf("%d unchanged", p.Unchanged))
	}
	return strings.Join(parts, ", ")
}

func symbol(a Action) string {
	switch a {
	case Create:
		return "+"
	case Change:
		return "~"
	case Replace:
		return "±"
	case Delete:
		return "-"
	case Release, HandOver:
		return "○"
	}
	return "="
}

// Text is the plan for a terminal, a line each.
func (p Plan) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Plan: %s\n", p.Summary())
	p.hooks(&b, "pre", "  » Job %s/%s runs before the rest is written  (%s)\n")
	shown := 0
	for _, s := range p.Steps {
		if s.Action == Touch {
			continue
		}
		if shown++; shown > maxSteps {
			continue
		}
		fmt.Fprintf(&b, "  %s %s", symbol(s.Action), s.Key)
		if s.Origin.Path != "" {
			fmt.Fprintf(&b, "  (%s)", s.Origin)
		}
		b.WriteByte('\n')
		if s.Why != "" {
			fmt.Fprintf(&b, "      %s: %s\n", s.Action, s.Why)
		}
		for i, f := range s.Fields {
			if i == maxFields {
				fmt.Fprintf(&b, "      … and %d more fields\n", len(s.Fields)-maxFields)
				break
			}
			fmt.Fprintf(&b, "      %s\n", f)
		}
	}
	if shown > maxSteps {
		fmt.Fprintf(&b, "  … and %d more objects\n", shown-maxSteps)
	}
	p.hooks(&b, "post", "  » Job %s/%s runs when the rest is healthy  (%s)\n")
	return b.String()
}

func (p Plan) hooks(b *strings.Builder, phase, format string) {
	for _, h := range p.Hooks {
		if h.Phase == phase {
			fmt.Fprintf(b, format, h.Namespace, h.Name, h.Origin)
		}
	}
}

// String is path: old → new.
func (f Field) String() string {
	switch {
	case f.Hidden:
		return f.Path + " changed"
	case f.Old == "":
		return f.Path + ": added " + f.New
	case f.New == "":
		return f.Path + ": removed " + f.Old
	}
	return f.Path + ": " + f.Old + " → " + f.New
}

// Markdown is the plan for a pull request.
func (p Plan) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "**Plan:** %s\n", p.Summary())
	p.hooks(&b, "pre", "\n- Job `%s/%s` runs before the rest is written (%s)\n")
	shown := 0
	for _, s := range p.Steps {
		if s.Action == Touch {
			continue
		}
		if shown++; shown > maxSteps {
			continue
		}
		fmt.Fprintf(&b, "\n- %s `%s`", s.Action, s.Key)
		if s.Origin.Path != "" {
			fmt.Fprintf(&b, " (%s)", s.Origin)
		}
		if s.Why != "" {
			fmt.Fprintf(&b, ": %s", s.Why)
		}
		for i, f := range s.Fields {
			if i == maxFields {
				fmt.Fprintf(&b, "\n  - … and %d more fields", len(s.Fields)-maxFields)
				break
			}
			fmt.Fprintf(&b, "\n  - `%s`", strings.ReplaceAll(f.String(), "`", "'"))
		}
	}
	if shown > maxSteps {
		fmt.Fprintf(&b, "\n- … and %d more objects", shown-maxSteps)
	}
	if shown > 0 {
		b.WriteByte('\n')
	}
	p.hooks(&b, "post", "\n- Job `%s/%s` runs when the rest is healthy (%s)\n")
	return b.String()
}

// MarshalJSON has every step, with its object and place.
func (p Plan) MarshalJSON() ([]byte, error) {
	type step struct {
		Action     Action  `json:"action"`
		APIVersion string  `json:"apiVersion"`
		Kind       string  `json:"kind"`
		Namespace  string  `json:"namespace,omitempty"`
		Name       string  `json:"name"`
		Origin     string  `json:"origin,omitempty"`
		Why        string  `json:"why,omitempty"`
		Fields     []Field `json:"fields,omitempty"`
	}
	steps := []step{}
	for _, s := range p.Steps {
		if s.Action == Touch {
			continue
		}
		out := step{
			Action: s.Action, APIVersion: s.Key.GroupVersion().String(), Kind: s.Key.Kind,
			Namespace: s.Key.Namespace, Name: s.Key.Name, Why: s.Why, Fields: s.Fields,
		}
		if s.Origin.Path != "" {
			out.Origin = s.Origin.String()
		}
		steps = append(steps, out)
	}
	return json.Marshal(map[string]any{
		"source": p.Source, "commit": p.Commit, "summary": p.Summary(), "unchanged": p.Unchanged, "steps": steps, "hooks": append([]Hook{}, p.Hooks...),
	})
}
