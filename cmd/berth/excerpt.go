package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path"
	"regexp"
	"strings"
	"unicode/utf8"

	"berth.dev/berth/api/revision"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/cue/sops"
)

const (
	// maxExcerptFile is the size of the largest file that is shown from.
	maxExcerptFile = 4 << 20
	// maxExcerpts is how many are shown at most.
	maxExcerpts = 200
	// maxExcerpt is the length of the longest line that is shown, in runes.
	maxExcerpt = 160
)

// secretive finds what may stand beside a secret value. Rather no excerpt than
// a password in the log of a build.
var secretive = regexp.MustCompile(`(?i)secret|passw|token|stringdata|credential|private|api.?key`)

// excerpts shows the lines that diagnostics speak of.
type excerpts struct {
	tree  revision.Tree
	files map[string][]byte
}

func newExcerpts(tree revision.Tree) *excerpts {
	return &excerpts{tree: tree, files: map[string][]byte{}}
}

// print writes diagnostics, each with its line of the file and a caret.
func (x *excerpts) print(ctx context.Context, w io.Writer, ds []v1alpha1.Diagnostic) {
	for i, d := range ds {
		fmt.Fprintln(w, d)
		if i >= maxExcerpts {
			continue
		}
		line, ok := x.line(ctx, d)
		if !ok {
			continue
		}
		number := fmt.Sprintf("%5d", d.Line)
		fmt.Fprintf(w, "%s | %s\n", number, line)
		if pad, ok := padding(line, int(d.Column)); ok {
			fmt.Fprintf(w, "%s | %s^\n", strings.Repeat(" ", len(number)), pad)
		}
	}
}

// line is the line that a diagnostic speaks of; false when there is none, or
// when it may hold a secret.
func (x *excerpts) line(ctx context.Context, d v1alpha1.Diagnostic) (string, bool) {
	if d.Path == "" || d.Line < 1 || strings.HasSuffix(d.Path, sops.Suffix) || strings.HasPrefix(d.Object, "Secret") || secretive.MatchString(d.Field) {
		return "", false
	}
	content, known := x.files[d.Path]
	if !known {
		content, _ = x.tree.Read(ctx, d.Path, maxExcerptFile) // without it there is no excerpt
		x.files[d.Path] = content
	}
	if d.Object == "" && bytes.Contains(content, []byte("Secret")) && (path.Ext(d.Path) != ".cue" || d.Field == "" || strings.Contains(d.Field, "data")) {
		return "", false // it may be anywhere in the file
	}
	lines := bytes.Split(content, []byte("\n"))
	if int(d.Line) > len(lines) {
		return "", false
	}
	line := strings.TrimRight(string(lines[d.Line-1]), "\r")
	if strings.TrimSpace(line) == "" || secretive.MatchString(line) || !utf8.ValidString(line) || utf8.RuneCountInString(line) > maxExcerpt {
		return "", false
	}
	return v1alpha1.Printable(line), true
}

// padding is what stands before the caret, as wide as what stands before the column.
func padding(line string, column int) (string, bool) {
	if column < 1 || column > len(line) {
		return "", false
	}
	var b strings.Builder
	for _, r := range line[:column-1] {
		if r == '\t' {
			b.WriteRune(r)
		} else {
			b.WriteByte(' ')
		}
	}
	return b.String(), true
}
