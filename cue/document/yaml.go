package document

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sort"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	sigsyaml "sigs.k8s.io/yaml"
)

// maxExpanded bounds what the aliases of one document expand to, in bytes.
const maxExpanded = 16 << 20

// maxDocuments bounds the documents of a file.
const maxDocuments = 10_000

// part is one document of a YAML file.
type part struct {
	// line is the number of lines of the file above it.
	line int
	// lines is the number of its own.
	lines   int
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
	if len(parts) > maxDocuments {
		return nil, []Problem{{Pos: Pos{Path: path, Line: parts[maxDocuments].line + 1},
			Message: fmt.Sprintf("the file has more than %d documents; split it", maxDocuments)}}
	}
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
	if p := NotText(path, content); p != nil {
		return nil, p
	}
	return bytes.TrimPrefix(content, []byte("\xef\xbb\xbf")), nil
}

// NotText says what is wrong with a file that is not UTF-8; nil if it is.
func NotText(path string, content []byte) *Problem {
	p := &Problem{Pos: Pos{Path: path, Line: 1, Column: 1}}
	if bytes.HasPrefix(content, []byte("\xff\xfe")) || bytes.HasPrefix(content, []byte("\xfe\xff")) {
		p.Message = "the file is UTF-16; save it as UTF-8"
		return p
	}
	if utf8.Valid(content) {
		return nil
	}
	p.Message = "the file is not text in UTF-8 from here on; save it as UTF-8"
	begin := 0
	for i := 0; i < len(content); {
		r, size := utf8.DecodeRune(content[i:])
		if r == utf8.RuneError && size == 1 {
			p.Column = i - begin + 1
			break
		}
		i += size
		if r == '\n' {
			p.Line++
			begin = i
		}
	}
	return p
}

// split cuts a file at its separators by the rule of Kubernetes' YAML reader:
// a line that begins with ---, followed by nothing but space or a comment. Like
// it, it ends the last line: a block scalar there keeps its final newline.
func split(path string, content []byte) ([]part, []Problem) {
	if len(content) > 0 && content[len(content)-1] != '\n' {
		content = append(content[:len(content):len(content)], '\n')
	}
	var parts []part
	var problems []Problem
	current := part{}
	line := 0
	below := false // a document that the next separator ends
	for len(content) > 0 {
		end := bytes.IndexByte(content, '\n') + 1
		text := content[:end]
		content = content[end:]
		line++
		if !bytes.HasPrefix(text, []byte("---")) {
			current.content = append(current.content, text...)
			current.lines++
			below = true
			continue
		}
		// Above a document, the line is also read as YAML, where a comment
		// begins behind a space.
		if rest := bytes.TrimSpace(text[3:]); len(rest) > 0 && (rest[0] != '#' || text[3] == '#' && !below) {
			// What follows is not shown: it may be the value of a Secret.
			problems = append(problems, Problem{Pos: Pos{Path: path, Line: line, Column: 1},
				Message: "a line that begins with --- separates documents; put nothing but a space and a comment after the ---, or indent the line if it is text"})
		}
		parts = append(parts, current)
		current = part{line: line}
		below = !below
	}
	return append(parts, current), problems
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
	if r.faults(top) {
		return nil, r.problems
	}
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

func (p part) pos(path string, n *yaml.Node) Pos {
	return Pos{Path: path, Line: p.clamp(n.Line), Column: n.Column}
}

// clamp turns a line of the part into one of the file. The parser counts more
// than newlines as ends of lines, and tells of faults behind the last line.
func (p part) clamp(line int) int {
	return p.line + max(1, min(line, p.lines))
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
// in stands at the mapping itself.
func (r *yamlReader) mapping(n *yaml.Node, v map[string]any, pos Pos) *Node {
	out := &Node{Pos: pos, Kind: Map, Fields: make([]Field, 0, len(v))}
	taken := make(map[string]bool, len(v))
	if n.Kind == yaml.MappingNode {
		last := make(map[string]int, len(n.Content)/2) // of a key twice, the last counts
		text := make(map[string]bool, len(n.Content)/2)
		mixed := map[string]bool{} // as of 1 and "1": which of them counts is left to chance
		for i := 0; i+1 < len(n.Content); i += 2 {
			name, isText := keyName(n.Content[i])
			if before, twice := text[name]; twice && before != isText {
				mixed[name] = true
			}
			last[name], text[name] = i, isText
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			name, _ := keyName(n.Content[i])
			value, ok := v[name]
			if !ok || last[name] != i {
				continue
			}
			taken[name] = true
			field := Field{Pos: r.part.pos(r.path, n.Content[i]), Key: name, Value: &Node{Pos: r.part.pos(r.path, n.Content[i+1]), Kind: Faulty}}
			if !mixed[name] {
				field.Value = r.node(n.Content[i+1], value)
			}
			out.Fields = append(out.Fields, field)
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
