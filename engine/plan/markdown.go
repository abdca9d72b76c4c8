package plan

import (
	"fmt"
	"strings"

	"berth.dev/berth/api/v1alpha1"
)

// Markdown is the plan for a pull request, as short as Text.
func (p Plan) Markdown() string { return p.markdown(false) }

// MarkdownVerbose is the plan for a pull request with every object, field and value.
func (p Plan) MarkdownVerbose() string { return p.markdown(true) }

func (p Plan) markdown(verbose bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "**Plan:** %s\n", p.Summary())
	for _, h := range p.hooks(v1alpha1.HookPre, "`", verbose) {
		fmt.Fprintf(&b, "\n- %s (%s)\n", h[0], h[1])
	}
	entries := p.entries(verbose)
	blocks := make([][]string, len(entries))
	for i, e := range entries {
		blocks[i] = e.markdown(verbose)
	}
	shown := within(entries, blocks, verbose)
	for i, lines := range blocks {
		if shown[i] {
			b.WriteString("\n" + strings.Join(lines, "\n"))
		}
	}
	if rest := counted(entries, shown); rest != "" {
		b.WriteString("\n- … and " + rest)
	}
	if len(entries) > 0 {
		b.WriteByte('\n')
	}
	for _, h := range p.hooks(v1alpha1.HookPost, "`", verbose) {
		fmt.Fprintf(&b, "\n- %s (%s)\n", h[0], h[1])
	}
	return b.String()
}

func (e entry) markdown(verbose bool) []string {
	s := e.steps[0]
	head := fmt.Sprintf("- %s %s", s.Action, e.title("`"))
	if at := e.place(); at != "" {
		head += " (" + at + ")"
	}
	if s.Why != "" {
		head += ": " + s.Why
	}
	lines := []string{head}
	for _, d := range e.details(verbose) {
		if strings.HasPrefix(d, "… ") || strings.HasPrefix(d, effectMark) {
			lines = append(lines, "  - "+d)
			continue
		}
		lines = append(lines, "  - `"+strings.ReplaceAll(d, "`", "'")+"`")
	}
	return lines
}
