package sops

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"berth.dev/berth/cue/document"
)

// replacement is an encrypted text and the value that takes its place.
type replacement struct {
	text  string
	value any
}

// replacing are all replacements of a file, in its order.
type replacing []replacement

// splice puts each value where its encrypted text stands, so that all lines stay
// where they are. It is nil where a text is written in another way; who calls it
// reads the result anew and compares.
func (r replacing) splice(content []byte, format Format) []byte {
	var out bytes.Buffer
	rest := content
	for _, one := range r {
		if one.text == "" {
			continue
		}
		at := bytes.Index(rest, []byte(one.text))
		if at < 0 {
			return nil
		}
		before, after := rest[:at], rest[at+len(one.text):]
		if n := len(before); n > 0 && len(after) > 0 && before[n-1] == after[0] && (after[0] == '"' || after[0] == '\'') {
			before, after = before[:n-1], after[1:]
		}
		if _, is := one.value.(comment); is && format == YAML {
			before = bytes.TrimSuffix(bytes.TrimRight(before, " "), []byte("-")) // the item goes
			out.Write(before)
		} else {
			out.Write(before)
			out.WriteString(literal(one.value))
		}
		rest = after
	}
	out.Write(rest)
	return out.Bytes()
}

// literal is a value as JSON and YAML both read it.
func literal(v any) string {
	switch v := v.(type) {
	case string:
		return quote(v)
	case time.Time:
		b, err := v.MarshalText()
		if err != nil {
			return `""`
		}
		return quote(string(b))
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case comment:
		return "null"
	}
	return fmt.Sprint(v)
}

// quote writes a text in double quotes as JSON and YAML both read it.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < 0x20 || r < 0x10000 && !unicode.IsPrint(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// dotenv puts the values into a file of variables. What SOPS notes leaves empty
// lines behind.
func (r replacing) dotenv(content []byte) []byte {
	all := strings.Split(string(content), "\n")
	next := 0
	for i, line := range all {
		key, value, ok := strings.Cut(line, "=")
		switch {
		case strings.HasPrefix(line, "#"):
			if strings.Contains(line, mark) {
				all[i] = ""
			}
		case strings.HasPrefix(line, metaPrefix):
			all[i] = ""
		case ok && next < len(r) && strings.ReplaceAll(value, `\n`, "\n") == r[next].text:
			all[i] = key + "=" + strings.ReplaceAll(shown(r[next].value), "\n", `\n`)
			next++
		}
	}
	return []byte(strings.TrimRight(strings.Join(all, "\n"), "\n") + "\n")
}

// withoutNotes takes the field sops out of a text and leaves its lines empty. It is
// nil where that cannot be done.
func withoutNotes(name string, content []byte, format Format) []byte {
	if content == nil {
		return nil
	}
	if format == YAML {
		return withoutBlock(content)
	}
	docs, problems := document.JSON(name, content)
	if len(problems) > 0 || len(docs) != 1 {
		return nil
	}
	for i, f := range docs[0].Fields {
		if f.Key != "sops" {
			continue
		}
		begin := offset(content, f.Line, f.Column)
		end := valueEnd(content, begin)
		if end < 0 {
			return nil
		}
		if i > 0 {
			begin = bytes.LastIndexByte(content[:begin], ',')
		} else if comma := bytes.IndexByte(content[end:], ','); len(docs[0].Fields) > 1 && comma >= 0 {
			end += comma + 1
		}
		out := append([]byte{}, content[:begin]...)
		if string(bytes.TrimSpace(content[end:])) == "}" { // no line below it moves
			return append(out, "\n}\n"...)
		}
		out = append(out, bytes.Repeat([]byte{'\n'}, bytes.Count(content[begin:end], []byte{'\n'}))...)
		return append(out, content[end:]...)
	}
	return content
}

// offset is where a line and a column, both from 1, are in a text.
func offset(content []byte, line, column int) int {
	at := 0
	for ; line > 1; line-- {
		at += bytes.IndexByte(content[at:], '\n') + 1
	}
	return at + column - 1
}

// valueEnd is where the value of the field ends whose name begins at a place.
func valueEnd(content []byte, begin int) int {
	colon := bytes.IndexByte(content[begin:], ':')
	if colon < 0 {
		return -1
	}
	at := begin + colon + 1
	d := json.NewDecoder(bytes.NewReader(content[at:]))
	var skipped json.RawMessage
	if err := d.Decode(&skipped); err != nil && err != io.EOF {
		return -1
	}
	return at + int(d.InputOffset())
}

// withoutBlock takes the field sops out of each document of a YAML file.
func withoutBlock(content []byte) []byte {
	var out bytes.Buffer
	inNotes := false
	for line := range bytes.Lines(content) {
		if c := line[0]; c != ' ' && c != '\n' && c != '\r' && c != '#' && c != '-' || bytes.HasPrefix(line, []byte("---")) {
			inNotes = bytes.HasPrefix(line, []byte("sops:")) || bytes.HasPrefix(line, []byte(`"sops":`))
		}
		if inNotes {
			out.WriteByte('\n')
			continue
		}
		out.Write(line)
	}
	return append(bytes.TrimRight(out.Bytes(), "\r\n"), '\n')
}

// emit writes documents anew, as JSON, which is YAML too: where the text of an
// encrypted file is written in another way than SOPS writes it.
func emit(docs []*node) ([]byte, error) {
	var b bytes.Buffer
	for i, doc := range docs {
		if i > 0 {
			b.WriteString("---\n")
		}
		write(&b, doc)
		b.WriteByte('\n')
	}
	if !utf8.Valid(b.Bytes()) {
		return nil, errors.New("the file is encrypted with SOPS, and holds what is no text in UTF-8; encrypt it anew")
	}
	return b.Bytes(), nil
}

func write(b *bytes.Buffer, n *node) {
	switch n.kind {
	case mapping:
		b.WriteByte('{')
		for i, f := range n.plainFields() {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(quote(f.key) + ": ")
			write(b, f.value)
		}
		b.WriteByte('}')
	case list:
		b.WriteByte('[')
		for i, item := range n.plainItems() {
			if i > 0 {
				b.WriteByte(',')
			}
			write(b, item)
		}
		b.WriteByte(']')
	default:
		if n.value == nil {
			b.WriteString("null")
			return
		}
		b.WriteString(literal(n.value))
	}
}
