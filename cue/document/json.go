package document

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"sort"
	"strconv"
	"strings"
)

// maxDepth bounds how deep lists and objects nest.
const maxDepth = 200

// jsonReader builds Nodes out of JSON tokens, counting lines on the way.
type jsonReader struct {
	path     string
	content  []byte
	lines    []int
	dec      *json.Decoder
	problems []Problem
}

// JSON reads the values of a JSON file; several may follow one another.
func JSON(path string, content []byte) ([]*Node, []Problem) {
	content, problem := text(path, content)
	if problem != nil {
		return nil, []Problem{*problem}
	}
	r := &jsonReader{path: path, content: content, lines: []int{0}}
	for i, c := range content {
		if c == '\n' {
			r.lines = append(r.lines, i+1)
		}
	}
	r.dec = json.NewDecoder(bytes.NewReader(content))
	r.dec.UseNumber()
	var docs []*Node
	for {
		if r.atEnd() {
			return docs, r.problems
		}
		n, err := r.value(0)
		if err != nil {
			return docs, append(r.problems, Problem{Pos: r.errorPos(err), Message: jsonMessage(err)})
		}
		docs = append(docs, n)
	}
}

func (r *jsonReader) atEnd() bool {
	return len(bytes.TrimSpace(r.content[r.dec.InputOffset():])) == 0
}

func jsonMessage(err error) string {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return "invalid JSON: the file ends in the middle of a value"
	}
	message := "invalid JSON: " + err.Error()
	switch {
	case strings.Contains(message, "',' looking for beginning of value"):
		message += "; values follow one another without a comma"
	case strings.Contains(message, "'/'"):
		message += "; JSON has no comments"
	case strings.Contains(message, `'\''`):
		message += "; JSON has double quotes only"
	case strings.Contains(message, "'}' looking for beginning of object key"), strings.Contains(message, "']' looking for beginning of value"):
		message += "; remove the comma before it"
	case strings.Contains(message, "in string literal"):
		message += `; a quote is not closed, or write \n for a new line`
	case strings.Contains(message, "in literal"):
		message += "; a value is a string in quotes, a number, true, false, null, an object or a list"
	case leadingZero.MatchString(message):
		message += "; a number does not begin with 0"
	}
	return message
}

var leadingZero = regexp.MustCompile(`invalid character '\d' after`)

func (r *jsonReader) errorPos(err error) Pos {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return r.pos(int(syntax.Offset) - 1)
	}
	return r.pos(int(r.dec.InputOffset()))
}

func (r *jsonReader) pos(offset int) Pos {
	offset = max(0, min(offset, len(r.content)))
	line := sort.SearchInts(r.lines, offset+1)
	return Pos{Path: r.path, Line: line, Column: offset - r.lines[line-1] + 1}
}

// next is the place of the token to come.
func (r *jsonReader) next() Pos {
	offset := int(r.dec.InputOffset())
	for offset < len(r.content) && bytes.IndexByte([]byte(" \t\r\n,:"), r.content[offset]) >= 0 {
		offset++
	}
	return r.pos(offset)
}

func (r *jsonReader) value(depth int) (*Node, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("more than %d levels", maxDepth)
	}
	pos := r.next()
	tok, err := r.dec.Token()
	if err != nil {
		return nil, err
	}
	switch t := tok.(type) {
	case json.Delim:
		if t == '{' {
			return r.object(pos, depth)
		}
		n := &Node{Pos: pos, Kind: List}
		for r.dec.More() {
			item, err := r.value(depth + 1)
			if err != nil {
				return nil, err
			}
			n.Items = append(n.Items, item)
		}
		_, err := r.dec.Token()
		return n, err
	case json.Number:
		v, err := number(t.String())
		if err != nil {
			r.problems = append(r.problems, Problem{Pos: pos, Message: "the number is out of range"})
			return &Node{Pos: pos, Kind: Faulty}, nil
		}
		n, err := scalar(pos, v)
		if n != nil {
			n.Plain = t.String()
		}
		return n, err
	case bool:
		return &Node{Pos: pos, Kind: Bool, Value: t, Plain: strconv.FormatBool(t)}, nil
	default:
		return scalar(pos, tok)
	}
}

func (r *jsonReader) object(pos Pos, depth int) (*Node, error) {
	n := &Node{Pos: pos, Kind: Map}
	seen := map[string]Pos{}
	for r.dec.More() {
		keyPos := r.next()
		tok, err := r.dec.Token()
		if err != nil {
			return nil, err
		}
		key := tok.(string)
		value, err := r.value(depth + 1)
		if err != nil {
			return nil, err
		}
		if first, twice := seen[key]; twice {
			r.problems = append(r.problems, duplicate(keyPos, key, first))
			continue
		}
		seen[key] = keyPos
		n.Fields = append(n.Fields, Field{Pos: keyPos, Key: key, Value: value})
	}
	_, err := r.dec.Token()
	return n, err
}

func duplicate(pos Pos, key string, first Pos) Problem {
	return Problem{Pos: pos, Message: fmt.Sprintf("field %q is set twice; it is already set in line %d: remove one", key, first.Line)}
}

// number is an int64 where it fits, as Kubernetes decodes JSON.
func number(s string) (any, error) {
	if i, err := strconv.ParseInt(s, 10, 64); err == nil {
		return i, nil
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsInf(f, 0) {
		return nil, errors.New("the number is out of range")
	}
	return f, nil
}
