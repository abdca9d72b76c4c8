package document

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	sigsyaml "sigs.k8s.io/yaml"
)

// faults reports keys that a mapping has twice, and what Kubernetes cannot read
// or reads as something else than it looks like. It returns true where nothing
// can be made of the document. No message holds a value: this may be a Secret.
func (r *yamlReader) faults(n *yaml.Node) (fatal bool) {
	switch n.Kind {
	case yaml.MappingNode:
		fatal = r.keys(n)
	case yaml.ScalarNode:
		fatal = r.scalarFaults(n)
	}
	if n.Style&yaml.TaggedStyle != 0 && !strings.HasPrefix(n.ShortTag(), "!!") {
		r.report(n, "a tag of YAML (!…) means nothing here; quote the value if it is text")
	}
	for _, c := range n.Content {
		fatal = r.faults(c) || fatal
	}
	return fatal
}

func (r *yamlReader) report(n *yaml.Node, message string) {
	r.problems = append(r.problems, Problem{Pos: r.part.pos(r.path, n), Message: message})
}

func (r *yamlReader) keys(n *yaml.Node) (fatal bool) {
	seen := make(map[string]*yaml.Node, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		value := aliased(n.Content[i+1])
		switch at := aliased(k); {
		case at.Kind != yaml.ScalarNode:
			r.report(k, "a key must be text, not an object or a list; quote text that begins with { or [")
			fatal = true
			continue
		case at.ShortTag() == "!!null":
			r.report(k, "the key is empty; quote it if it is text")
			fatal = true
			continue
		case at.ShortTag() == "!!merge" && !mergeable(value):
			r.report(n.Content[i+1], "a merge key (<<) takes an object, or a list of objects")
			fatal = true
			continue
		}
		name, _ := keyName(k)
		if first, twice := seen[name]; twice {
			r.problems = append(r.problems, duplicate(r.part.pos(r.path, k), name, r.part.pos(r.path, first)))
		} else if k.Kind == yaml.ScalarNode && name != k.Value {
			r.problems = append(r.problems, Problem{Pos: r.part.pos(r.path, k), Warning: true,
				Message: fmt.Sprintf("the key %s is no text to Kubernetes, which makes %q of it; quote it, or write %q", k.Value, name, name)})
		}
		seen[name] = k
	}
	return fatal
}

func aliased(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

func mergeable(n *yaml.Node) bool {
	if n.Kind == yaml.SequenceNode {
		for _, item := range n.Content {
			if aliased(item).Kind != yaml.MappingNode {
				return false
			}
		}
		return true
	}
	return n.Kind == yaml.MappingNode
}

var notJSON = regexp.MustCompile(`^([-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$`)

func (r *yamlReader) scalarFaults(n *yaml.Node) (fatal bool) {
	if n.ShortTag() == "!!float" && notJSON.MatchString(n.Value) {
		r.report(n, n.Value+" is a number that JSON does not have; quote it if it is text")
		return true
	}
	if n.Anchor != "" && n.Value == "" && n.ShortTag() == "!!null" {
		r.report(n, "an anchor (&…) stands here without a value; quote the value if it is text")
	}
	return false
}

var (
	plainKey = regexp.MustCompile(`^[A-Za-z_./][-\w./]*$`)
	// otherKey are words that YAML 1.1 does not take for text.
	otherKey = regexp.MustCompile(`(?i)^(y|n|yes|no|on|off|true|false|null)$`)
)

// keyName is what Kubernetes makes of a key, yes is true and 0x10 is 16, and
// whether it is certainly text.
func keyName(k *yaml.Node) (name string, isText bool) {
	k = aliased(k)
	quoted := k.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle|yaml.TaggedStyle) != 0
	if quoted || k.Kind != yaml.ScalarNode || k.Value == "<<" || plainKey.MatchString(k.Value) && !otherKey.MatchString(k.Value) {
		return k.Value, true
	}
	js, err := sigsyaml.YAMLToJSON([]byte(k.Value + ": 0"))
	if err != nil {
		return k.Value, false
	}
	var read map[string]any
	if err := json.Unmarshal(js, &read); err != nil || len(read) != 1 {
		return k.Value, false
	}
	for name = range read {
	}
	return name, false
}

var (
	yamlLine      = regexp.MustCompile(`^(?:error converting YAML to JSON: )?(?:yaml: )?(?:line (\d+): )?`)
	unknownAnchor = regexp.MustCompile(`^unknown anchor '(.*)' referenced`)
	backquoted    = regexp.MustCompile("`[^`]*`")
)

// advice completes what the parser says with what to do.
var advice = []struct{ says, do string }{
	{"cannot start any token", "quote the value, and indent with spaces instead of tabs"},
	{"mapping values are not allowed", "check the indentation, and quote a value that holds a colon"},
	{"expected alphabetic or numeric character", "quote a value that begins with * or &"},
	{"unexpected end of stream", "a quote is not closed"},
	{"tab character that violates", "indent with spaces"},
	{"expected ',' or '}'", "close the brace, or put a comma between the fields"},
	{"expected ',' or ']'", "close the bracket, or put a comma between the items"},
	{"expected ':'", "check the indentation, and that each line is a field or an item"},
	{"expected key", "check the indentation"},
	{"expected '-' indicator", "check the indentation"},
	{"expected node content", "a value is missing here, or begins with a character that needs quotes"},
}

func (p part) syntax(path string, err error) Problem {
	message := err.Error()
	pos := Pos{Path: path, Line: p.line + 1}
	if m := yamlLine.FindStringSubmatch(message); m != nil {
		message = message[len(m[0]):]
		if n, err := strconv.Atoi(m[1]); err == nil {
			pos.Line = p.clamp(n)
		}
	}
	if m := unknownAnchor.FindStringSubmatch(message); m != nil {
		return Problem{Pos: p.find(path, "*"+m[1]), Message: "invalid YAML: an alias (*…) names no anchor above it; quote the value if it is text"}
	}
	message = backquoted.ReplaceAllString(message, "this value")
	if strings.Contains(message, "<document start>") {
		do := "begin a further document with --- in a line of its own"
		if bytes.HasPrefix(bytes.TrimSpace(p.content), []byte("%")) {
			do = "remove the directive (%…): it is read as a document of its own"
		}
		return Problem{Pos: pos, Message: "invalid YAML: " + message + "; " + do}
	}
	for _, a := range advice {
		if strings.Contains(message, a.says) {
			message += "; " + a.do
			break
		}
	}
	return Problem{Pos: pos, Message: "invalid YAML: " + message}
}

// find is the place of the first occurrence of a text.
func (p part) find(path, text string) Pos {
	i := bytes.Index(p.content, []byte(text))
	if i < 0 {
		return Pos{Path: path, Line: p.line + 1}
	}
	before := p.content[:i]
	return Pos{Path: path, Line: p.line + 1 + bytes.Count(before, []byte("\n")), Column: i - bytes.LastIndexByte(before, '\n')}
}
