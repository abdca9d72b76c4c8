package main

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"berth.dev/berth/api/revision"
	"berth.dev/berth/api/v1alpha1"
)

// files is a tree of texts.
type files map[string]string

// Files implements revision.Tree.
func (f files) Files(context.Context) ([]revision.File, error) { return nil, nil }

// Read implements revision.Tree.
func (f files) Read(_ context.Context, path string, _ int64) ([]byte, error) {
	if content, ok := f[path]; ok {
		return []byte(content), nil
	}
	return nil, fmt.Errorf("no file %s", path)
}

func TestExcerpts(t *testing.T) {
	tree := files{
		"a.cue":       "a: {\n\timag: \"x\"\r\n\tpassword: \"hunter2\"\n\t\x1b[31mred: 1\n}\n",
		"secret.yaml": "kind: Secret\nvalue: hunter2\n",
		"secret.cue":  "s: kind: \"Secret\"\ns: data: a: \"hunter2\"\nweb: imag: \"x\"\n",
	}
	d := func(path string, line, column int32, object, field string) v1alpha1.Diagnostic {
		return v1alpha1.Diagnostic{Severity: v1alpha1.SeverityError, Path: path, Line: line, Column: column, Object: object, Field: field, Message: "wrong"}
	}
	for _, c := range []struct {
		name string
		d    v1alpha1.Diagnostic
		want string
	}{
		{"caret below the column", d("a.cue", 2, 2, "", "a.imag"), "a.cue:2:2: a.imag: wrong\n    2 | \timag: \"x\"\n      | \t^\n"},
		{"no column", d("a.cue", 2, 0, "", "a.imag"), "a.cue:2: a.imag: wrong\n    2 | \timag: \"x\"\n"},
		{"a column beyond the line", d("a.cue", 1, 60, "", "a"), "a.cue:1:60: a: wrong\n    1 | a: {\n"},
		{"a line beyond the file", d("a.cue", 90, 1, "", "a"), "a.cue:90:1: a: wrong\n"},
		{"a line with a password", d("a.cue", 3, 2, "", "a"), "a.cue:3:2: a: wrong\n"},
		{"control characters", d("a.cue", 4, 2, "", "a"), "a.cue:4:2: a: wrong\n    4 | \t?[31mred: 1\n      | \t^\n"},
		{"a Secret", d("secret.yaml", 2, 1, "Secret/x", "value"), "secret.yaml:2:1: Secret/x: value: wrong\n"},
		{"an unknown object in a file with a Secret", d("secret.yaml", 2, 1, "", ""), "secret.yaml:2:1: wrong\n"},
		{"a field of a Secret in CUE", d("secret.cue", 2, 13, "", "s.data.a"), "secret.cue:2:13: s.data.a: wrong\n"},
		{"a field beside a Secret in CUE", d("secret.cue", 3, 6, "", "web.imag"), "secret.cue:3:6: web.imag: wrong\n    3 | web: imag: \"x\"\n      |      ^\n"},
		{"no file", d("gone.yaml", 2, 1, "", ""), "gone.yaml:2:1: wrong\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b strings.Builder
			newExcerpts(tree).print(t.Context(), &b, []v1alpha1.Diagnostic{c.d})
			if b.String() != c.want {
				t.Errorf("got %q\nwant %q", b.String(), c.want)
			}
		})
	}
}
