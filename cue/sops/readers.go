package sops

import (
	"bytes"
	"io"
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"berth.dev/berth/cue/document"
)

// conflict is a mark that a merge leaves.
var conflict = regexp.MustCompile(`(?m)^(<{7}|>{7})( |$)`)

// unreadable is a file that is not of its format, from a line on. What stands there
// is not shown: it may be a value that nobody has encrypted yet.
func unreadable(content []byte, line int, format string) error {
	if at := conflict.FindIndex(content); at != nil {
		return &fault{1 + bytes.Count(content[:at[0]], []byte("\n")), "the file is encrypted with SOPS, and holds the marks of a merge conflict; take one of the two sides as a whole, and change it with sops edit"}
	}
	return &fault{max(1, line), "the file is encrypted with SOPS, and is no valid " + format + " here: " + damaged}
}

// firstLine is where the first of some problems is.
func firstLine(problems []document.Problem) int {
	if len(problems) == 0 {
		return 1
	}
	return problems[0].Line
}

// tree reads the documents of a file.
func tree(name string, content []byte, format Format) ([]*node, error) {
	switch format {
	case YAML:
		return yamlTree(name, content)
	case Dotenv:
		return dotenvTree(content)
	}
	docs, problems := document.JSON(name, content)
	if len(problems) > 0 || len(docs) != 1 || docs[0].Kind != document.Map {
		return nil, unreadable(content, firstLine(problems), "JSON")
	}
	return []*node{fromJSON(docs[0])}, nil
}

func fromJSON(n *document.Node) *node {
	out := &node{line: n.Line}
	switch n.Kind {
	case document.Map:
		out.kind = mapping
		for _, f := range n.Fields {
			out.fields = append(out.fields, field{f.Key, f.Line, f.Column, fromJSON(f.Value)})
		}
	case document.List:
		out.kind = list
		for _, item := range n.Items {
			out.items = append(out.items, fromJSON(item))
		}
	default:
		out.value = n.Value
	}
	return out
}

func yamlTree(name string, content []byte) ([]*node, error) {
	var out []*node
	for d := yaml.NewDecoder(bytes.NewReader(content)); ; {
		var doc yaml.Node
		err := d.Decode(&doc)
		if err == io.EOF {
			return out, nil
		}
		if err != nil || len(doc.Content) == 0 {
			_, problems := document.YAML(name, content)
			return nil, unreadable(content, firstLine(problems), "YAML")
		}
		top := doc.Content[0]
		if top.Kind == yaml.ScalarNode && top.ShortTag() == "!!null" {
			out = append(out, &node{kind: mapping, line: top.Line})
			continue
		}
		if top.Kind != yaml.MappingNode {
			return nil, &fault{top.Line, "a document of an encrypted file must be an object"}
		}
		n, err := fromYAML(top, 0)
		if err != nil {
			return nil, err
		}
		n.fields = append(append(remarks(doc.HeadComment), n.fields...), remarks(doc.FootComment)...)
		out = append(out, n)
	}
}

func fromYAML(n *yaml.Node, depth int) (*node, error) {
	if depth > maxDepth {
		return nil, &fault{n.Line, "the file nests " + errDeep.Error()}
	}
	out := &node{line: n.Line}
	switch n.Kind {
	case yaml.MappingNode:
		out.kind = mapping
		return out, out.yamlFields(n, depth)
	case yaml.SequenceNode:
		out.kind = list
		for _, item := range n.Content {
			value, err := fromYAML(item, depth+1)
			if err != nil {
				return nil, err
			}
			out.items = append(out.items, remarkItems(item.HeadComment, item.LineComment)...)
			out.items = append(append(out.items, value), remarkItems(item.FootComment)...)
		}
		return out, nil
	case yaml.ScalarNode:
		var err error
		out.value, err = yamlValue(n)
		return out, err
	}
	return nil, &fault{n.Line, "an encrypted file has no aliases (*…); write the content out, and encrypt it anew"}
}

func (n *node) yamlFields(from *yaml.Node, depth int) error {
	seen := map[string]bool{}
	for i := 0; i+1 < len(from.Content); i += 2 {
		key, value := from.Content[i], from.Content[i+1]
		if key.Kind != yaml.ScalarNode || key.ShortTag() != "!!str" {
			return &fault{key.Line, "a key of an encrypted file must be text; quote it"}
		}
		if seen[key.Value] {
			return &fault{key.Line, "a key is there twice in an encrypted file; remove one"}
		}
		seen[key.Value] = true
		made, err := fromYAML(value, depth+1)
		if err != nil {
			return err
		}
		n.fields = append(n.fields, remarks(key.HeadComment, key.LineComment)...)
		if made.kind == scalar {
			n.fields = append(n.fields, remarks(value.HeadComment, value.LineComment)...)
		} else if made.kind == mapping {
			made.fields = append(append(remarks(value.HeadComment, value.LineComment), made.fields...), remarks(value.FootComment)...)
		} else {
			made.items = append(append(remarkItems(value.HeadComment, value.LineComment), made.items...), remarkItems(value.FootComment)...)
		}
		n.fields = append(n.fields, field{key: key.Value, line: key.Line, value: made})
		if made.kind == scalar {
			n.fields = append(n.fields, remarks(value.FootComment)...)
		}
		n.fields = append(n.fields, remarks(key.FootComment)...)
	}
	return nil
}

// yamlValue is a scalar as SOPS reads it.
func yamlValue(n *yaml.Node) (any, error) {
	var v any
	if err := n.Decode(&v); err != nil {
		return nil, &fault{n.Line, "a value of an encrypted file cannot be read"}
	}
	switch v := v.(type) {
	case nil, string, bool, float64, time.Time:
		return v, nil
	case int:
		return int64(v), nil
	case int64:
		return v, nil
	}
	return nil, &fault{n.Line, "a number of an encrypted file is too large"}
}

func remarks(texts ...string) []field {
	var out []field
	for _, n := range remarkItems(texts...) {
		out = append(out, field{value: n})
	}
	return out
}

func remarkItems(texts ...string) []*node {
	var out []*node
	for _, text := range texts {
		for line := range strings.SplitSeq(text, "\n") {
			if line != "" {
				out = append(out, &node{kind: remark, value: line[1:]})
			}
		}
	}
	return out
}

// metaPrefix begins the names of what SOPS notes in a file of variables.
const metaPrefix = "sops_"

// dotenvTree reads a file of variables. What SOPS notes in it becomes the field
// sops, as the other formats have it.
func dotenvTree(content []byte) ([]*node, error) {
	out, meta := &node{kind: mapping}, &node{kind: mapping}
	for i, line := range strings.Split(string(content), "\n") {
		if line == "" {
			continue
		}
		if text, ok := strings.CutPrefix(line, "#"); ok {
			out.fields = append(out.fields, remarks("#"+text)...)
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			return nil, unreadable(content, i+1, "file of variables")
		}
		f := field{key: key, line: i + 1, value: &node{line: i + 1, value: strings.ReplaceAll(value, `\n`, "\n")}}
		if name, ok := strings.CutPrefix(key, metaPrefix); ok {
			f.key = name
			meta.fields = append(meta.fields, f)
			continue
		}
		out.fields = append(out.fields, f)
	}
	if len(meta.fields) > 0 {
		meta.line = meta.fields[0].line
		out.fields = append(out.fields, field{key: "sops", line: meta.line, value: meta})
	}
	return []*node{out}, nil
}
