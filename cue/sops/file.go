package sops

import (
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// file is a file of SOPS.
type file struct {
	name    string
	content []byte
	format  Format
	docs    []*node
	meta    *metadata
	// noted: something stands where SOPS puts its notes.
	noted bool
}

func read(name string, content []byte, format Format) (*file, error) {
	docs, err := tree(name, content, format)
	if err != nil {
		return nil, err
	}
	f := &file{name: name, content: content, format: format, meta: &metadata{}}
	for i, doc := range docs {
		if i == 0 {
			f.meta = metadataOf(doc.get("sops"))
		}
		f.noted = f.noted || doc.get("sops") != nil
		f.docs = append(f.docs, doc.without("sops"))
	}
	return f, nil
}

// onlyEncrypted begins a checksum that is over the encrypted values alone: the
// SHA-256 of "sops", as the format says.
func onlyEncrypted() []byte {
	sum := sha256.Sum256([]byte("sops"))
	return sum[:]
}

// open decrypts every value and compares the checksum.
func (f *file) open(keys *Keys) (Opened, error) {
	if err := f.meta.usable(); err != nil {
		return Opened{}, err
	}
	key, err := keys.dataKey(f.meta)
	if err != nil {
		return Opened{}, err
	}
	hash := sha512.New()
	if f.meta.macOnlyEncrypted {
		hash.Write(onlyEncrypted())
	}
	var r replacing
	var values []string
	err = f.each(func(n *node, path []string, covered bool) error {
		v := n.value
		if covered {
			text, _ := v.(string)
			if v, err = reveal(v, key, path); err != nil {
				return &fault{n.line, fmt.Sprintf("the value of %q cannot be decrypted: %s; take the file from an earlier commit, or set the value anew with sops edit", strings.Join(path, "."), err)}
			}
			r = append(r, replacement{text, v})
			n.value = v
			values = noteValues(values, path, shown(v))
		}
		if _, is := v.(comment); is || f.meta.macOnlyEncrypted && !covered {
			return nil
		}
		b, err := hashed(v)
		if err != nil {
			return &fault{n.line, err.Error()}
		}
		hash.Write(b)
		return nil
	})
	if err != nil {
		return Opened{}, err
	}
	if err := f.meta.compare(key, fmt.Sprintf("%X", hash.Sum(nil))); err != nil {
		return Opened{}, err
	}
	out, err := f.plain(r)
	return Opened{Content: out, Values: values}, err
}

// each visits the values, and says of each whether it is encrypted.
func (f *file) each(visit func(n *node, path []string, covered bool) error) error {
	for _, doc := range f.docs {
		err := walk(doc, nil, nil, func(n *node, path []string, comments [][]string) error {
			return visit(n, path, f.meta.covers(path, comments))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// reveal decrypts a value. An empty one is not encrypted.
func reveal(v any, key []byte, path []string) (any, error) {
	text, ok := v.(string)
	if !ok {
		return nil, fmt.Errorf("it is not encrypted, and by the rules of the file it is to be")
	}
	if text == "" {
		return "", nil
	}
	s, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("it is %w", err)
	}
	v, err = s.open(key, strings.Join(path, ":")+":")
	if s, ok := v.(string); ok && !utf8.ValidString(s) {
		return nil, fmt.Errorf("it is no text; put bytes in base64 into the data of a Secret")
	}
	return v, err
}

// compare compares a checksum with the one that the file has.
func (m *metadata) compare(key []byte, sum string) error {
	const wrong = "the checksum of the file (sops.mac) does not fit: something in it was changed, added or removed without sops; change it with sops edit, or take the file from an earlier commit"
	s, err := parse(m.mac)
	if err != nil {
		return &fault{m.macLine, wrong}
	}
	v, err := s.open(key, m.lastModified.Format(time.RFC3339))
	if text, ok := v.(string); err != nil || !ok || subtle.ConstantTimeCompare([]byte(text), []byte(sum)) != 1 {
		return &fault{m.macLine, wrong}
	}
	return nil
}

// standIn puts other values in the place of the encrypted ones.
func (f *file) standIn() (Opened, error) {
	var r replacing
	err := f.each(func(n *node, _ []string, covered bool) error {
		text, ok := n.value.(string)
		if !covered || !ok {
			return nil
		}
		s, err := parse(text)
		if err != nil {
			return nil
		}
		n.value = instead(s, text)
		r = append(r, replacement{text, n.value})
		return nil
	})
	if err != nil {
		return Opened{}, err
	}
	out, err := f.plain(r)
	return Opened{Content: out}, err
}

// instead is a value of the same type as an encrypted one, which is another one
// when that is. Text is valid as base64 too.
func instead(s sealed, text string) any {
	sum := sha256.Sum256([]byte(text))
	switch s.kind {
	case "int":
		return int64(1) + int64(sum[0])
	case "float":
		return float64(sum[0]) + 0.5
	case "bool":
		return true
	case "comment":
		return comment("")
	}
	return hex.EncodeToString(sum[:])
}

// noteValues adds a value to those that no message may hold, and what it is in
// base64. The kind, the namespace and the name of an object are no secret.
func noteValues(values []string, path []string, text string) []string {
	switch strings.Join(path, ".") {
	case "apiVersion", "kind", "metadata.name", "metadata.namespace":
		return values
	}
	if text == "" {
		return values
	}
	values = append(values, text)
	if b, err := base64.StdEncoding.DecodeString(text); err == nil && len(b) > 2 && utf8.Valid(b) {
		values = append(values, string(b))
	}
	return values
}

// valuesOf are all values of a file that was encrypted as a whole.
func valuesOf(name string, plain []byte) []string {
	docs, err := tree(name, plain, byName(name))
	if err != nil {
		return lines(string(plain))
	}
	var out []string
	for _, doc := range docs {
		if walk(doc, nil, nil, func(n *node, path []string, _ [][]string) error {
			out = noteValues(out, path, shown(n.value))
			return nil
		}) != nil {
			return lines(string(plain))
		}
	}
	return out
}

func lines(text string) []string {
	out := strings.Split(text, "\n")
	for i, l := range out {
		out[i] = strings.TrimSpace(l)
	}
	return slices.DeleteFunc(out, func(l string) bool { return l == "" })
}

// plain is the content with other values, and without what SOPS notes.
func (f *file) plain(r replacing) ([]byte, error) {
	switch f.format {
	case Binary:
		return []byte(f.docs[0].get("data").text()), nil
	case Dotenv:
		return r.dotenv(f.content), nil
	}
	if out := withoutNotes(f.name, r.splice(f.content, f.format), f.format); out != nil {
		if docs, err := tree(f.name, out, f.format); err == nil && slices.EqualFunc(docs, f.docs, same) {
			return out, nil
		}
	}
	return emit(f.docs)
}
