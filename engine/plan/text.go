package plan

import (
	"fmt"
	"strings"

	"berth.dev/berth/api/v1alpha1"
)

// Summary is one line, such as "2 to create, 1 to change, 7 unchanged".
func (p Plan) Summary() string {
	var parts []string
	for _, a := range []struct {
		action Action
		words  string
	}{{Create, "to create"}, {Change, "to change"}, {Replace, "to replace"}, {Delete, "to delete"}, {Release, "to release"}, {Keep, "kept"}} {
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
	case Release:
		return "○"
	}
	return "="
}

// Text is the plan for a terminal: what is alike is shown once, and what would
// not fit on a few screens is counted.
func (p Plan) Text() string { return p.text(false) }

// TextVerbose is the plan for a terminal with every object, field and value.
func (p Plan) TextVerbose() string { return p.text(true) }

func (p Plan) text(verbose bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Plan: %s\n", p.Summary())
	for _, h := range p.hooks(v1alpha1.HookPre, "", verbose) {
		fmt.Fprintf(&b, "  » %s  (%s)\n", h[0], h[1])
	}
	entries := p.entries(verbose)
	blocks := make([][]string, len(entries))
	for i, e := range entries {
		blocks[i] = e.text(verbose)
	}
	shown := within(entries, blocks, verbose)
	for i, lines := range blocks {
		if shown[i] {
			b.WriteString(strings.Join(lines, "\n") + "\n")
		}
	}
	if rest := counted(entries, shown); rest != "" {
		fmt.Fprintf(&b, "  … and %s; berth plan -v shows them\n", rest)
	}
	for _, h := range p.hooks(v1alpha1.HookPost, "", verbose) {
		fmt.Fprintf(&b, "  » %s  (%s)\n", h[0], h[1])
	}
	return b.String()
}

func (e entry) text(verbose bool) []string {
	s := e.steps[0]
	head := fmt.Sprintf("  %s %s", symbol(s.Action), e.title(""))
	if at := e.place(); at != "" {
		head += "  (" + at + ")"
	}
	lines := []string{head}
	if s.Why != "" {
		lines = append(lines, fmt.Sprintf("      %s: %s", s.Action, s.Why))
	}
	for _, d := range e.details(verbose) {
		lines = append(lines, "      "+d)
	}
	return lines
}

// hooks of a phase, a line each: what runs when, and the place.
func (p Plan) hooks(phase, quote string, verbose bool) (lines [][2]string) {
	when := "before the rest is written"
	if phase == v1alpha1.HookPost {
		when = "when the rest is healthy"
	}
	left := 0
	for _, h := range p.Hooks {
		switch {
		case h.Phase != phase:
		case len(lines) == maxHooks && !verbose:
			left++
		default:
			lines = append(lines, [2]string{fmt.Sprintf("Job %s%s/%s%s runs %s", quote, h.Namespace, h.Name, quote, when), h.Origin.String()})
		}
	}
	if left > 0 {
		lines = append(lines, [2]string{fmt.Sprintf("%d more run %s", left, when), "…"})
	}
	return lines
}

// String is path: old → new, with long values cut.
func (f Field) String() string { return f.line(cut) }

func (f Field) line(show func(string) string) string {
	switch {
	case f.Hidden:
		return f.Path + " changed"
	case f.Old == "":
		return f.Path + ": added " + show(f.New)
	case f.New == "":
		return f.Path + ": removed " + show(f.Old)
	}
	return f.Path + ": " + show(f.Old) + " → " + show(f.New)
}

// cut shortens a value for a line.
func cut(value string) string {
	s := []rune(value)
	if len(s) <= longest {
		return value
	}
	return fmt.Sprintf("%s… (%d characters)", string(s[:longest]), len(s))
}

func whole(value string) string { return value }
