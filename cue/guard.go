package cue

import (
	"bytes"
	"encoding/base64"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"berth.dev/berth/cue/document"
	"berth.dev/berth/cue/sops"
)

// guardian knows the values of encrypted files, and keeps them out of messages.
type guardian struct {
	values []string
	// written are the CUE files of a package. The name of a field that does not stand
	// in them may have been made of a value.
	written [][]byte
	// needles are what is looked for: the lines of the values, in each way in which a
	// message may hold them.
	needles []string
}

// maxNeedles bounds them; with more, no message is shown.
const maxNeedles = 20_000

// split makes the needles.
func (g *guardian) split() {
	g.needles = nil
	for _, value := range g.values {
		g.needles = append(g.needles, base64.StdEncoding.EncodeToString([]byte(value)))
		for line := range strings.Lines(value) {
			line = strings.TrimSpace(line)
			g.needles = append(g.needles, line)
			if quoted := strings.Trim(strconv.Quote(line), `"`); quoted != line {
				g.needles = append(g.needles, quoted)
			}
			if joined := strings.Join(strings.Fields(line), " "); joined != line {
				g.needles = append(g.needles, joined)
			}
			const part = 24 // messages cut long values
			if len(line) > part {
				g.needles = append(g.needles, line[:part])
			}
			if len(g.needles) > maxNeedles {
				return
			}
		}
	}
}

// leftOut takes the place of a message that may hold a value.
const leftOut = "something is wrong here; what exactly may hold a value of an encrypted file, and is left out"

// guard marks what came of encrypted files, and takes their values out of what is
// said of it.
func (g guardian) guard(a admitted) admitted {
	objects := make([]object, len(a.objects))
	for i, o := range a.objects {
		o.encrypted = true
		objects[i] = o
	}
	g.split()
	problems := make([]document.Problem, len(a.problems))
	for i, p := range a.problems {
		if m := unknownField.FindStringSubmatch(p.Message); g.revealed(p.Message) || m != nil && !g.isWritten(m[1]) {
			p.Message = leftOut
		}
		p.Field = g.field(p.Field)
		problems[i] = p
	}
	a.objects, a.problems = objects, problems
	return a
}

var (
	unknownField = regexp.MustCompile(`^unknown field "([^"]*)"`)
	// step is a name in the path of a field; the rest of it is indices and signs.
	step = regexp.MustCompile(`[^.\[\]"]+`)
)

// field is the part of a path that may be shown.
func (g guardian) field(path string) string {
	if g.revealed(path) {
		return ""
	}
	for _, at := range step.FindAllStringIndex(path, -1) {
		if !g.isWritten(path[at[0]:at[1]]) {
			return strings.TrimRight(path[:at[0]], `.["`)
		}
	}
	return path
}

// isWritten: the name stands in what the user has written.
func (g guardian) isWritten(name string) bool {
	if g.written == nil || strings.Trim(name, "0123456789") == "" {
		return true
	}
	return slices.ContainsFunc(g.written, func(content []byte) bool { return bytes.Contains(content, []byte(name)) })
}

// revealed reports whether a text holds a value, or a part of one.
func (g guardian) revealed(text string) bool {
	if text == "" {
		return false
	}
	if len(g.needles) > maxNeedles {
		return true
	}
	return slices.ContainsFunc(g.needles, func(needle string) bool { return contains(text, needle) })
}

// contains reports whether a text holds a value; a short one only as a word.
func contains(text, value string) bool {
	if value == "" {
		return false
	}
	if len(value) >= 4 {
		return strings.Contains(text, value)
	}
	text = " " + text + " "
	for at := 1; ; {
		i := strings.Index(text[at:], value)
		if i < 0 || at+i+len(value) >= len(text) {
			return false
		}
		if !wordly(text[at+i-1]) && !wordly(text[at+i+len(value)]) {
			return true
		}
		at += i + 1
	}
}

func wordly(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == '_'
}

// quotedOrNumber is what in a message may be a value.
var quotedOrNumber = regexp.MustCompile("\"(?:[^\"\\\\]|\\\\.)*\"|'[^']*'|`[^`]*`|\\b\\d[\\w.]*")

// blur takes what may be a value out of messages about an object whose values are
// hidden: they were made for objects that are not.
func blur(problems []document.Problem) []document.Problem {
	for i, p := range problems {
		if !strings.HasPrefix(p.Message, "unknown field ") {
			problems[i].Message = quotedOrNumber.ReplaceAllString(p.Message, "(hidden)")
		}
	}
	return problems
}

// ciphertexts are the values of an object that SOPS has encrypted, or that hold such
// ones, and that nobody opened: they must not be deployed as they are.
func ciphertexts(n *document.Node, out []document.Problem) []document.Problem {
	return ciphertextsBelow(n, binaryOf(n), false, out)
}

// binaryOf is the field of an object whose values are in base64, if it has one.
func binaryOf(n *document.Node) *document.Node {
	switch n.Text("kind") {
	case "Secret":
		return n.Get("data")
	case "ConfigMap":
		return n.Get("binaryData")
	}
	return nil
}

func ciphertextsBelow(n, binary *document.Node, isBinary bool, out []document.Problem) []document.Problem {
	isBinary = isBinary || n == binary
	if s, ok := n.Value.(string); ok && (sops.Ciphertext(s) || isBinary && sops.Ciphertext(decoded(s))) {
		what := "the value is encrypted by SOPS"
		if !strings.HasPrefix(s, "ENC[") {
			what = "the value holds one that is encrypted by SOPS"
		}
		out = append(out, document.Problem{Pos: n.Pos,
			Message: what + ", and nothing here says how to open it: encrypt the whole file with sops, which notes that under the field sops of the file; if it did and that is lost, take the file from an earlier commit"})
	}
	for _, f := range n.Fields {
		out = ciphertextsBelow(f.Value, binary, isBinary, out)
	}
	for _, item := range n.Items {
		out = ciphertextsBelow(item, binary, isBinary, out)
	}
	return out
}

// decoded is what a text in base64 stands for; nothing, if it is no base64.
func decoded(text string) string {
	b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil {
		return ""
	}
	return string(b)
}
