// Package sops opens encrypted files: those of SOPS whose data key is encrypted
// for age, and files that are encrypted with age as a whole. It owns all use of
// age. It is handed bytes and keys; it reads no file, and no message of it holds a
// value that was encrypted, or a key.
package sops

import (
	"bytes"
	"path"
	"regexp"
	"strings"

	"berth.dev/berth/cue/document"
)

// Format of an encrypted file.
type Format int

// Formats. Binary is how SOPS keeps a file that it knows nothing of.
const (
	None Format = iota
	YAML
	JSON
	Dotenv
	Binary
	// Age is a file that age has encrypted as a whole.
	Age
	// Unreadable is a file of SOPS in a format that is not read.
	Unreadable
)

// String is what wrote the file.
func (f Format) String() string {
	if f == Age {
		return "age"
	}
	return "SOPS"
}

// mark is in every file of SOPS: its checksum is encrypted, if nothing else is.
const mark = "ENC[AES256_GCM,"

// Suffix of the name of a file that age has encrypted as a whole.
const Suffix = ".age"

// Detect says how a file is encrypted.
func Detect(name string, content []byte) Format {
	if isAge(content) {
		return Age
	}
	if !bytes.Contains(content, []byte(mark)) {
		return None
	}
	format := byName(name)
	for _, format := range append([]Format{format}, others(format)...) {
		if f, err := read(name, content, format); err == nil && f.meta.found && f.shaped() {
			return format
		}
	}
	return remains(name, content, format)
}

// remains is the format of a file that SOPS wrote and that was damaged since, by a
// merge or by being cut off. It must not pass for a plain one: its ciphertext would
// be deployed.
func remains(name string, content []byte, format Format) Format {
	if format == Binary {
		if notes.Match(content) {
			return Unreadable
		}
		return None
	}
	f, err := read(name, content, format)
	if err == nil && f.noted || err != nil && notes.Match(content) {
		return format
	}
	return None
}

// notes are how those begin that SOPS leaves in a file.
var notes = regexp.MustCompile(`(?m)^(\[sops\]|["']?sops["']?[ \t]*:|sops_(age__list_\w+|lastmodified|mac|version)=)|"sops"\s*:`)

// others are the formats that a file may have whose name tells none.
func others(format Format) []Format {
	if format == Binary {
		return []Format{JSON, YAML, Dotenv}
	}
	return nil
}

// shaped: a file that is kept as binary has one value, data.
func (f *file) shaped() bool {
	return f.format != Binary || len(f.docs) == 1 && len(f.docs[0].plainFields()) == 1 && f.docs[0].get("data") != nil
}

// byName is the format that SOPS takes for a name.
func byName(name string) Format {
	switch path.Ext(strings.TrimSuffix(name, Suffix)) {
	case ".yaml", ".yml":
		return YAML
	case ".json":
		return JSON
	case ".env":
		return Dotenv
	}
	return Binary
}

// Opened is a file that was opened.
type Opened struct {
	// Content is the file as it was before, each value in the line that it has in
	// the encrypted file, where that is possible.
	Content []byte
	// Values are what no message may show.
	Values []string
}

// Open opens an encrypted file.
func Open(name string, content []byte, keys *Keys) (Opened, *document.Problem) {
	format := Detect(name, content)
	if format == Unreadable {
		return Opened{}, &document.Problem{Pos: document.Pos{Path: name, Line: 1}, Message: "the file is encrypted with SOPS in a format that is not opened, such as INI, or is damaged; YAML, JSON, .env and binary files are opened"}
	}
	if format == Age {
		plain, err := keys.openAge(content)
		if err != nil {
			return Opened{}, &document.Problem{Pos: document.Pos{Path: name, Line: 1}, Message: err.Error()}
		}
		return Opened{Content: plain, Values: valuesOf(name, plain)}, nil
	}
	f, err := read(name, content, format)
	if err != nil {
		return Opened{}, problem(name, err)
	}
	o, err := f.open(keys)
	if err != nil {
		return Opened{}, problem(name, err)
	}
	return o, nil
}

// Closed is where a file that cannot be opened says for whom it is encrypted.
func Closed(name string, content []byte) (at document.Pos, recipients []string) {
	at = document.Pos{Path: name, Line: 1}
	format := Detect(name, content)
	if format == Age || format == None || format == Unreadable {
		return at, nil
	}
	f, err := read(name, content, format)
	if err != nil {
		return at, nil
	}
	return document.Pos{Path: name, Line: max(1, f.meta.line)}, f.meta.names()
}

// Damage is what is wrong with a file of SOPS whatever keys there are.
func Damage(name string, content []byte) *document.Problem {
	format := Detect(name, content)
	if format == Age || format == None || format == Unreadable {
		return nil
	}
	f, err := read(name, content, format)
	if err == nil {
		err = f.meta.whole()
	}
	if err != nil {
		return problem(name, err)
	}
	return nil
}

// StandIn is a file of the same shape as an encrypted one, with other values in
// the place of those that are encrypted: they change when those do. Of a file that
// age has encrypted the shape is not known, and known is false.
func StandIn(name string, content []byte) (instead []byte, known bool) {
	format := Detect(name, content)
	if format != YAML && format != JSON && format != Dotenv {
		return nil, false
	}
	f, err := read(name, content, format)
	if err != nil {
		return nil, false
	}
	o, err := f.standIn()
	if err != nil {
		return nil, false
	}
	return o.Content, true
}

// sealedText finds a value of SOPS within a text.
var sealedText = regexp.MustCompile(`ENC\[AES256_GCM,data:[\w+/=\r\n]*,iv:[\w+/=\r\n]+,tag:[\w+/=\r\n]+,type:\w+\]`)

// Ciphertext reports whether a value of an object is, or holds, one of SOPS that
// was left as it is.
func Ciphertext(value string) bool {
	for strings.Contains(value, mark) {
		at := sealedText.FindStringIndex(value)
		if at == nil {
			return false
		}
		if _, err := parse(value[at[0]:at[1]]); err == nil {
			return true
		}
		value = value[at[1]:]
	}
	return false
}

// fault is an error at a line.
type fault struct {
	line    int
	message string
}

func (f *fault) Error() string { return f.message }

func problem(name string, err error) *document.Problem {
	p := &document.Problem{Pos: document.Pos{Path: name, Line: 1}, Message: err.Error()}
	if f, ok := err.(*fault); ok && f.line > 0 {
		p.Line = f.line
	}
	return p
}
