package document

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	sigsyaml "sigs.k8s.io/yaml"
)

// maxExpanded bounds what the aliases of one document expand to, in bytes.
const maxExpanded = 16 << 20

// part is one document of a YAML file.
type part struct {
	// line is the number of lines of the file above it.
	line    int
	content []byte
}

// YAML reads the documents of a YAML file. Values are what Kubernetes decodes;
// places come from a second reading that keeps them. Empty documents are left out.
func YAML(path string, content []byte) ([]*Node, []Problem) {
	content, problem := text(path, content)
	if problem != nil {
		return nil, []Problem{*problem}
	}
	parts, problems := split(path, content)
	var docs []*Node
	for _, p := range parts {
		n, found := p.read(path)
		problems = append(problems, found...)
		if n != nil && n.Kind != Null {
			docs = append(docs, n)
		}
	}
	return docs, problems
}

// text strips a byte order mark and refuses what is not UTF-8.
func text(path string, content []byte) ([]byte, *Problem) {
	pos := Pos{Path: path, Line: 1, Column: 1}
	if bytes.HasPrefix(content, []byte("\xff\xfe")) || bytes.HasPrefix(content, []byte("\xfe\xff")) {
		return nil, &Problem{Pos: pos, Message: "the file is UTF-16; save it as UTF-8"}
	}
	content = bytes.TrimPrefix(content, []byte("\xef\xbb\xbf"))
	if !utf8.Valid(content) {
		return nil, &Problem{Pos: pos, Message: "the file is not text in UTF-8; save it as UTF-8"}
	}
	return content, nil
}

// split cuts a file at its separators by the rule of Kubernetes' YAML reader:
// a line that begins with ---, followed by nothing but space or a comment.
func split(path string, content []byte) ([]part, []Problem) {
	var parts []part
	var problems []Problem
	current := part{}
	line := 0
	for len(content) > 0 {
		end := bytes.IndexByte(content, '\n') + 1
		if end == 0 {
			end = len(content)
		}
		text := content[:end]
		content = content[end:]
		line++
		if !bytes.HasPrefix(text, []byte("---")) {
			current.content = append(current.content, text...)
			continue
		}
		if rest := bytes.TrimSpace(text[3:]); len(rest) > 0 && rest[0] != '#' {
			problems = append(problems, Problem{Pos: Pos{Path: path, Line: line, Column: 1},
				Message: fmt.Sprintf("%q is no separator of documents; put nothing but a comment after ---", shorten(string(bytes.TrimSpace(text))))})
		}
		parts = append(parts, current)
		current = part{line: line}
	}
	return append(parts, current), problems
}

func shorten(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}

func (p part) read(path string) (*Node, []Problem) {
	if len(bytes.TrimSpace(p.content)) == 0 {
		return nil, nil
	}
	var root yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(p.content))
	if err := dec.Decode(&root); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		return nil, []Problem{p.syntax(path, err)}
	}
	if len(root.Content) == 0 {
		return nil, nil
	}
	var more yaml.Node
	if err := dec.Decode(&more); err == nil && len(more.Content) > 0 {
		return nil, []Problem{{Pos: p.pos(path, &more), Message: "a second document begins here without a separator; put --- in a line of its own above it"}}
	} else if err != nil && !errors.Is(err, io.EOF) {
		return nil, []Problem{p.syntax(path, err)}
	}
	r := &yamlReader{part: p, path: path, sizes: map[*yaml.Node]int{}}
	top := root.Content[0]
	if r.size(top, 0) > maxExpanded {
		return nil, []Problem{{Pos: p.pos(path, top), Message: fmt.Sprintf("the aliases of this document expand to more than %d MiB, or nest too deep; write the content out", maxExpanded>>20)}}
	}
	r.duplicates(top)
	js, err := sigsyaml.YAMLToJSON(p.content)
	if err != nil {
		return nil, append(r.problems, p.syntax(path, err))
	}
	var value any
	if err := utiljson.Unmarshal(js, &value); err != nil {
		return nil, append(r.problems, p.syntax(path, err))
	}
	return r.node(top, value), r.problems
}

var yamlLine = regexp.MustCompile(`^(?:error converting YAML to JSON: )?(?:yaml: )?(?:line (\d+): )?`)

func (p part) syntax(path string, err error) Problem {
	message := err.Error()
	pos := Pos{Path: path, Line: p.line + 1}
	if m := yamlLine.FindStringSubmatch(message); m != nil {
		message = message[len(m[0]):]
		if n, err := strconv.Atoi(m[1]); err == nil {
			pos.Line = p.line + n
		}
	}
	switch {
	case strings.Contains(message, "cannot start any token"):
		message += "; quote the value, and indent with spaces instead of tabs"
	case strings.Contains(message, "mapping values are not allowed"):
		message += "; check the indentation, and quote a value that holds a colon"
	}
	return Problem{Pos: pos, Message: "invalid YAML: " + message}
}

func (p part) pos(path string, n *yaml.Node) Pos {
	return Pos{Path: path, Line: p.line + n.Line, Column: n.Column}
}

// yamlReader joins the values of one document with their places.
type yamlReader struct {
	part     part
	path     string
	sizes    map[*yaml.Node]int
	problems []Problem
}

// size is about how many bytes n takes with its aliases written out, capped.
func (r *yamlReader) size(n *yaml.Node, depth int) int {
	if depth > maxDepth {
		return maxExpanded + 1
	}
	if n.Kind == yaml.AliasNode {
		return r.size(n.Alias, depth+1)
	}
	if s, ok := r.sizes[n]; ok {
		return s
	}
	r.sizes[n] = maxExpanded + 1 // an alias within itself
	total := 8 + len(n.Value)
	for _, c := range n.Content {
		if total += r.size(c, depth+1); total > maxExpanded {
			total = maxExpanded + 1
			break
		}
	}
	r.sizes[n] = total
	return total
}

// duplicates reports the keys that a mapping has twice.
func (r *yamlReader) duplicates(n *yaml.Node) {
	if n.Kind == yaml.MappingNode {
		seen := make(map[string]*yaml.Node, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := n.Content[i]
			if first, twice := seen[k.Value]; twice && k.Kind == yaml.ScalarNode {
				r.problems = append(r.problems, duplicate(r.part.pos(r.path, k), k.Value, r.part.pos(r.path, first)))
			}
			seen[k.Value] = k
		}
	}
	for _, c := range n.Content {
		r.duplicates(c)
	}
}

func (r *yamlReader) node(n *yaml.Node, value any) *Node {
	pos := r.part.pos(r.path, n)
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	switch v := value.(type) {
	case map[string]any:
		return r.mapping(n, v, pos)
	case []any:
		out := &Node{Pos: pos, Kind: List, Items: make([]*Node, len(v))}
		for i, item := range v {
			if n.Kind == yaml.SequenceNode && i < len(n.Content) {
				out.Items[i] = r.node(n.Content[i], item)
			} else {
				out.Items[i] = r.node(&yaml.Node{Line: n.Line, Column: n.Column}, item)
			}
		}
		return out
	}
	out, err := scalar(pos, value)
	if err != nil {
		r.problems = append(r.problems, Problem{Pos: pos, Message: err.Error()})
		return &Node{Pos: pos}
	}
	if n.Kind == yaml.ScalarNode && n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0 {
		out.Plain = n.Value
	}
	return out
}

// mapping takes the fields in the order of the file; what a merge key brings
// in, or a key that Kubernetes reads otherwise, stands at the mapping itself.
func (r *yamlReader) mapping(n *yaml.Node, v map[string]any, pos Pos) *Node {
	out := &Node{Pos: pos, Kind: Map, Fields: make([]Field, 0, len(v))}
	taken := make(map[string]bool, len(v))
	if n.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := n.Content[i]
			value, ok := v[k.Value]
			if !ok || taken[k.Value] {
				continue
			}
			taken[k.Value] = true
			out.Fields = append(out.Fields, Field{Pos: r.part.pos(r.path, k), Key: k.Value, Value: r.node(n.Content[i+1], value)})
		}
	}
	var rest []string
	for key := range v {
		if !taken[key] {
			rest = append(rest, key)
		}
	}
	sort.Strings(rest)
	for _, key := range rest {
		out.Fields = append(out.Fields, Field{Pos: pos, Key: key, Value: r.node(&yaml.Node{Line: pos.Line - r.part.line, Column: pos.Column}, v[key])})
	}
	return out
}
