package eval

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"

	"cuelang.org/go/cue"
	cueerrors "cuelang.org/go/cue/errors"

	"berth.dev/berth/cue/check"
	"berth.dev/berth/cue/document"
)

// maxProblems bounds how many faults of one package are told.
const maxProblems = 200

// faults turns the errors of an evaluated package into problems.
func (r *run) faults(value cue.Value) {
	var errs []cueerrors.Error
	for _, o := range r.objects {
		r.hide(o.Node)
	}
	errs = append(errs, cueerrors.Errors(value.Validate())...)
	for _, v := range r.values {
		errs = append(errs, cueerrors.Errors(v.Validate(cue.Concrete(true)))...)
	}
	for _, v := range r.broken {
		errs = append(errs, lost(v)...)
	}
	seen := map[string]bool{}
	for _, e := range fold(errs) {
		p := r.problem(value, e)
		key := fmt.Sprint(p)
		if !seen[key] && len(r.problems) < maxProblems {
			seen[key] = true
			r.problems = append(r.problems, p)
		}
	}
	r.problems = alternatives(r.problems)
	quoting(r.problems)
}

// lost returns the errors of a value that CUE takes for one still to come: it
// names what does not exist, or depends on a value that nothing gives. An object
// would be lost by it without a word.
func lost(v cue.Value) []cueerrors.Error {
	var out []cueerrors.Error
	for _, e := range cueerrors.Errors(v.Validate(cue.Concrete(true))) {
		message := text(e)
		for _, prefix := range []string{"undefined field", "incomplete bool", "cannot range over", "key value of dynamic field"} {
			if strings.HasPrefix(message, prefix) {
				out = append(out, e)
				break
			}
		}
	}
	return out
}

// hide remembers the values of Secrets.
func (r *run) hide(n *document.Node) {
	if n.Text("kind") != "Secret" {
		return
	}
	for _, part := range []string{"data", "stringData"} {
		if data := n.Get(part); data != nil {
			for _, f := range data.Fields {
				if s, ok := f.Value.Value.(string); ok && len(s) > 2 {
					r.hidden[s] = true
				}
			}
		}
	}
}

func (r *run) problem(value cue.Value, e cueerrors.Error) document.Problem {
	at := e.Path()
	p := document.Problem{Field: strings.Join(at, ".")}
	p.Pos = r.errorPlace(value, e)
	message := strings.ReplaceAll(text(e), root+"/", "")
	switch {
	case strings.HasPrefix(message, "field not allowed"):
		message = r.unknown(value, at)
	case strings.HasPrefix(message, `reference "schema" not found`):
		message += `; add import "berth.dev/schema" below the package line`
	case strings.HasPrefix(message, "field is required"):
		message = missingValue
	case strings.HasPrefix(message, "incomplete value"):
		message = "has no value yet, only " + strings.TrimPrefix(message, "incomplete value ") + "; give it one"
		if embeds := r.pkg.Files[p.Path]; bytes.Contains(embeds, []byte("@embed(")) && !bytes.Contains(embeds, []byte("@extern(embed)")) {
			message += "; @embed works in a file that begins with @extern(embed)"
		}
	case undecodable.MatchString(message): // what follows may quote the value of a Secret
		message = undecodable.ReplaceAllString(message, "the embedded file ${1}${2} cannot be read")
	case strings.HasPrefix(message, "incomplete bool"):
		message = "this condition has no value yet; give it one, or begin the name of a template with _ or #"
	case strings.HasPrefix(message, "cannot range over") && strings.Contains(message, "incomplete"):
		message += "; give it a value, or begin the name of a template with _ or #"
	case strings.HasPrefix(message, "key value of dynamic field"):
		message = "the name of this field has no value yet; give it one, or begin the name of a template with _ or #"
	case len(r.pkg.Unnamed) > 1 && strings.HasPrefix(message, "reference ") && strings.HasSuffix(message, " not found"):
		message += "; files without a package do not see each other's fields: begin each with the same package"
	case strings.HasPrefix(message, "reference ") && strings.HasSuffix(message, " not found"):
		message += "; if it is meant as text, quote it"
	case message == "structural cycle":
		message += ": it contains itself without end; make the field within it optional"
	case noFunction.MatchString(message):
		message = noFunction.ReplaceAllString(message, "there is no function $1")
	case strings.HasPrefix(message, "required field missing: "):
		name := strings.TrimPrefix(message, "required field missing: ")
		p.Field = strings.Join(append(r.places.written(at), name), ".")
		message = missingValue
	}
	p.Message = r.redact(message, at, value)
	p.Lacks = lacks(text(e)) || lacks(message)
	if r.pkg.Encrypted {
		p.Message = unspoken(message)
		return p
	}
	others := r.others(e, p.Pos)
	switch {
	case len(others) == 0:
	case strings.HasPrefix(message, "conflicting values"):
		p.Message += "; the other is at " + strings.Join(others, " and ")
	case invalid.MatchString(message):
		p.Message += "; the rule is at " + strings.Join(others, " and ")
	}
	return p
}

// invalid is a value that a bound or a pattern refuses.
var invalid = regexp.MustCompile(`^invalid value (.+) \((out of bound|does not )`)

// literal is the place where the user wrote the value that a rule refuses.
func (r *run) literal(e cueerrors.Error) (document.Pos, bool) {
	format, args := e.Msg()
	m := invalid.FindStringSubmatch(fmt.Sprintf(format, args...))
	if m == nil {
		return document.Pos{}, false
	}
	for _, pos := range cueerrors.Positions(e) {
		if place, ok := position(pos); ok && bytes.HasPrefix(r.pkg.Files[place.Path][min(pos.Offset(), len(r.pkg.Files[place.Path])):], []byte(m[1])) {
			return place, true
		}
	}
	return document.Pos{}, false
}

func (r *run) errorPlace(value cue.Value, e cueerrors.Error) document.Pos {
	if place, ok := r.literal(e); ok {
		return place
	}
	at := e.Path()
	for _, pos := range cueerrors.Positions(e) {
		if place, ok := position(pos); ok {
			if named, ok := r.places.byPath[key(at)]; ok && named.Path == place.Path && named.Line > place.Line {
				return named
			}
			return place
		}
	}
	return r.places.near(at)
}

// others lists the user's places that took part, but for pos.
func (r *run) others(e cueerrors.Error, pos document.Pos) []string {
	var out []string
	seen := map[string]bool{fmt.Sprintf("%s:%d", pos.Path, pos.Line): true}
	for _, at := range cueerrors.Positions(e) {
		if place, ok := position(at); ok {
			s := fmt.Sprintf("%s:%d", place.Path, place.Line)
			if !seen[s] && len(out) < 3 {
				seen[s] = true
				out = append(out, s)
			}
		}
	}
	return out
}

// unknown names the nearest field of the closed struct.
func (r *run) unknown(value cue.Value, at []string) string {
	if len(at) == 0 {
		return "the field is not allowed here"
	}
	name := at[len(at)-1]
	message := fmt.Sprintf("unknown field %q", name)
	parent := value
	for _, part := range at[:len(at)-1] {
		parent = child(parent, part)
	}
	var names []string
	if !parent.Exists() {
		return message // in a hidden field, which cannot be looked up again
	}
	if fields, err := parent.Fields(cue.Optional(true)); err == nil {
		for fields.Next() {
			if other := label(fields.Selector()); strings.TrimRight(other, "?!") != name {
				names = append(names, strings.TrimRight(other, "?!"))
			}
		}
	}
	if near := check.Nearest(name, names); near != "" {
		return message + fmt.Sprintf("; did you mean %q?", near)
	}
	if len(names) > 0 && len(names) <= 40 {
		return message + "; the fields here are " + strings.Join(names, ", ")
	}
	return message + "; the definition does not have it"
}

func child(v cue.Value, name string) cue.Value {
	var found cue.Value
	if !v.Exists() {
		return found
	}
	if strings.HasPrefix(name, "#") {
		return v.LookupPath(cue.MakePath(cue.Def(name)))
	}
	each(v, func(n string, c cue.Value) {
		if n == name {
			found = c
		}
	})
	return found
}

var (
	undecodable = regexp.MustCompile(`(?s)^@embed: failed to decode file: ([^:]*)(:\d+)?.*`)

	noFunction = regexp.MustCompile(`^cannot call non-function (\S+) \(type _\|_\)`)

	quoted = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	digits = regexp.MustCompile(`\b\d+\b`)
	// secretive are names of fields whose values are never shown.
	secretive = regexp.MustCompile(`(?i)secret|password|passwd|token|stringData|credential|privatekey`)
)

// makesSecrets reports whether a package may make a Secret.
func makesSecrets(p Package) bool {
	for _, content := range p.Files {
		if secrets.Match(content) {
			return true
		}
	}
	return false
}

// secrets finds a Secret in the making: its kind, its definition or a shorthand's field.
var secrets = regexp.MustCompile(`"Secret"|#Secret\b|\bsecrets\b`)

// redact takes the values of Secrets out of a message.
func (r *run) redact(message string, at []string, value cue.Value) string {
	inSecret := false
	v := value
	for _, part := range at {
		if kind, ok := objectKind(v); ok && kind == "Secret" {
			inSecret = true
		}
		if secretive.MatchString(part) || r.makesSecrets && (strings.HasPrefix(part, "_") || strings.HasPrefix(part, "#")) {
			inSecret = true // a hidden field may be what a Secret is made of
		}
		v = child(v, part)
	}
	if inSecret && !strings.HasPrefix(message, "unknown field") {
		message = digits.ReplaceAllString(quoted.ReplaceAllString(message, "(hidden)"), "(hidden)")
	}
	for s := range r.hidden {
		message = strings.ReplaceAll(message, s, "(hidden)")
	}
	return message
}
