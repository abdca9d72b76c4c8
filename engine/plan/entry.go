package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Limits of what a rendered plan shows when it is not verbose; the rest is counted.
const (
	// maxLines of all entries; with the summary and the hooks it stays below 100.
	maxLines  = 75
	maxFields = 20
	maxHooks  = 8
	// maxEffects that are not the same, of an entry.
	maxEffects = 4
	// maxNames of the objects of one entry.
	maxNames = 3
	// longest value that is shown whole, in characters.
	longest = 60
	// sameChanges is how many equal changes are listed one by one, and sameKind
	// how many creations or deletions of a kind.
	sameChanges = 3
	sameKind    = 10
)

// effectMark stands before what a step means.
const effectMark = "⇒ "

// entry is what a rendered plan shows at once: a step, or several that are alike.
type entry struct{ steps []Step }

// likeness is equal for the steps that may be shown as one.
type likeness struct {
	action          Action
	kind, namespace string
	wave            int
	why, fields     string
}

// entries are the steps that a user sees, in the plan's order, alike ones together.
func (p Plan) entries(verbose bool) []entry {
	counts := map[likeness]int{}
	for _, s := range p.Steps {
		counts[s.like()]++
		counts[likeness{action: s.Action, kind: s.Key.Kind}]++
	}
	var out []entry
	at := map[likeness]int{}
	for _, s := range p.Steps {
		if s.Action == Touch {
			continue
		}
		like := s.like()
		together := counts[like] > sameChanges
		if s.Action != Change && s.Action != Replace {
			together = counts[likeness{action: s.Action, kind: s.Key.Kind}] > sameKind
		}
		if i, begun := at[like]; begun && together && !verbose {
			out[i].steps = append(out[i].steps, s)
			continue
		}
		at[like] = len(out)
		out = append(out, entry{[]Step{s}})
	}
	return out
}

// like: changes are alike that change the same fields in the same way; all else
// that is of one kind in one namespace.
func (s Step) like() likeness {
	l := likeness{action: s.Action, kind: s.Key.Kind, wave: s.Wave, why: s.Why}
	if s.Action != Change && s.Action != Replace {
		l.namespace = s.Key.Namespace
		return l
	}
	var b strings.Builder
	for _, f := range s.Fields {
		fmt.Fprintf(&b, "%q", []string{f.Path, f.Old, f.New})
	}
	l.fields = b.String()
	return l
}

// title names the objects of an entry, each name between quotes.
func (e entry) title(quote string) string {
	first := e.steps[0]
	if len(e.steps) == 1 {
		return quote + first.Key.String() + quote
	}
	inOne := first.Key.Namespace != "" && first.Action != Change && first.Action != Replace
	var names []string
	for _, s := range e.steps[:min(len(e.steps), maxNames)] {
		name := s.Key.Name
		if s.Key.Namespace != "" && !inOne {
			name = s.Key.Namespace + "/" + name
		}
		names = append(names, quote+name+quote)
	}
	if len(e.steps) > maxNames {
		names = append(names, "…")
	}
	where := ""
	if inOne {
		where = " in " + quote + first.Key.Namespace + quote
	}
	return fmt.Sprintf("%d %s%s: %s", len(e.steps), plural(first.Key.Kind), where, strings.Join(names, ", "))
}

func plural(kind string) string {
	switch {
	case strings.HasSuffix(kind, "s"):
		return kind + "es"
	case strings.HasSuffix(kind, "cy"), strings.HasSuffix(kind, "ty"):
		return strings.TrimSuffix(kind, "y") + "ies"
	}
	return kind + "s"
}

// place is the line of one object, or the file that all of several are in.
func (e entry) place() string {
	first := e.steps[0].Origin
	if first.Path == "" {
		return ""
	}
	if len(e.steps) == 1 {
		return first.String()
	}
	for _, s := range e.steps {
		if s.Origin.Path != first.Path {
			return ""
		}
	}
	return first.Path
}

// details are the fields that change and what that means, a line each.
func (e entry) details(verbose bool) []string {
	var lines []string
	value := cut
	if verbose {
		value = whole
	}
	fields := e.steps[0].Fields
	for i, f := range fields {
		if i == maxFields && !verbose {
			lines = append(lines, fmt.Sprintf("… and %d more fields", len(fields)-maxFields))
			break
		}
		lines = append(lines, f.line(value))
	}
	effects := e.effects()
	for i, text := range effects {
		if i == maxEffects && !verbose {
			lines = append(lines, fmt.Sprintf("… and %d effects that differ", len(effects)-maxEffects))
			break
		}
		lines = append(lines, effectMark+text)
	}
	return lines
}

// effects of all objects of an entry: those of most objects first, with how many
// they are when they are not all.
func (e entry) effects() []string {
	counts := map[string]int{}
	var texts []string
	for _, s := range e.steps {
		for _, text := range s.Effects {
			if counts[text]++; counts[text] == 1 {
				texts = append(texts, text)
			}
		}
	}
	slices.SortStableFunc(texts, func(a, b string) int { return cmp.Compare(counts[b], counts[a]) })
	for i, text := range texts {
		switch n := counts[text]; {
		case n == len(e.steps) && n > 1:
			texts[i] = "each: " + text
		case n < len(e.steps):
			texts[i] = fmt.Sprintf("%d of them: %s", n, text)
		}
	}
	return texts
}

// within says which entries are shown. What is deleted or replaced comes first:
// it must not be what a reader does not see.
func within(entries []entry, blocks [][]string, verbose bool) []bool {
	shown := make([]bool, len(entries))
	left := maxLines
	take := func(wanted func(Action) bool, keep int) {
		for i, e := range entries {
			if verbose || !shown[i] && wanted(e.steps[0].Action) && len(blocks[i]) <= left-keep {
				shown[i] = true
				left -= len(blocks[i])
			}
		}
	}
	take(func(a Action) bool { return a == Delete || a == Replace }, maxLines/2)
	take(func(Action) bool { return true }, 0)
	return shown
}

// counted is what of the entries is not shown, in words; "" when all is.
func counted(entries []entry, shown []bool) string {
	type kind struct {
		action Action
		name   string
	}
	counts, total := map[kind]int{}, 0
	var order []kind
	for i, e := range entries {
		if shown[i] {
			continue
		}
		k := kind{e.steps[0].Action, e.steps[0].Key.Kind}
		if counts[k] == 0 {
			order = append(order, k)
		}
		counts[k] += len(e.steps)
		total += len(e.steps)
	}
	if total == 0 {
		return ""
	}
	parts := make([]string, len(order))
	for i, k := range order {
		name := k.name
		if counts[k] > 1 {
			name = plural(name)
		}
		parts[i] = fmt.Sprintf("%s %d %s", k.action, counts[k], name)
	}
	noun := "objects"
	if total == 1 {
		noun = "object"
	}
	return fmt.Sprintf("%d more %s: %s", total, noun, strings.Join(parts, ", "))
}
