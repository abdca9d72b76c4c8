package signature

import (
	"encoding/base64"
	"fmt"
	"path"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// allowed is a line of an allowed_signers file, ssh-keygen(1).
type allowed struct {
	line       int
	principals string
	key        ssh.PublicKey
	namespaces []string // patterns; nil is any
	// after and before bound the validity; zero is without a bound.
	after, before time.Time
}

// allowedSigners reads the lines of an allowed_signers file.
func allowedSigners(text string) ([]allowed, error) {
	var out []allowed
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		a, err := allowedSigner(line)
		if err != nil {
			return nil, fmt.Errorf("spec.verify.allowedSigners, line %d: %w", i+1, err)
		}
		a.line = i + 1
		out = append(out, a)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("spec.verify.allowedSigners has no line with a key")
	}
	return out, nil
}

func allowedSigner(line string) (allowed, error) {
	const form = "a line must be like: alice@example.org ssh-ed25519 AAAA…"
	fields := splitQuoted(line)
	if len(fields) < 3 {
		return allowed{}, fmt.Errorf("%s", form)
	}
	a := allowed{principals: strings.ReplaceAll(fields[0], `"`, "")}
	rest := fields[1:]
	if !keyType(rest[0]) {
		if err := a.options(rest[0]); err != nil {
			return allowed{}, err
		}
		rest = rest[1:]
	}
	if len(rest) < 2 || !keyType(rest[0]) {
		return allowed{}, fmt.Errorf("%s", form)
	}
	blob, err := base64.StdEncoding.DecodeString(rest[1])
	if err != nil {
		return allowed{}, fmt.Errorf("the key is no base64; %s", form)
	}
	if a.key, err = ssh.ParsePublicKey(blob); err != nil || a.key.Type() != rest[0] {
		return allowed{}, fmt.Errorf("the key is no %s key; %s", rest[0], form)
	}
	return a, nil
}

// keyType reports whether a word is the type of a key that may sign.
func keyType(word string) bool {
	switch word {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoRSA, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256:
		return true
	}
	return false
}

func (a *allowed) options(text string) error {
	for _, option := range splitOptions(text) {
		name, value, _ := strings.Cut(option, "=")
		value = strings.Trim(value, `"`)
		var err error
		switch strings.ToLower(name) {
		case "namespaces":
			a.namespaces = strings.Split(value, ",")
		case "valid-after":
			a.after, err = timestamp(value)
		case "valid-before":
			a.before, err = timestamp(value)
		case "cert-authority":
			err = fmt.Errorf("cert-authority is not supported; list the keys that sign themselves")
		default:
			err = fmt.Errorf("%q is neither a type of key that may sign nor an option; the options are namespaces, valid-after and valid-before", name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// timestamp is YYYYMMDD[HHMM[SS]][Z]. Without Z ssh-keygen takes the zone of the
// machine; here it is UTC, for it must be the same on every machine.
func timestamp(text string) (time.Time, error) {
	for _, layout := range []string{"20060102", "200601021504", "20060102150405"} {
		if t, err := time.Parse(layout, strings.TrimSuffix(text, "Z")); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time; it must be like 20260131 or 20260131235900Z", text)
}

// splitQuoted splits at blanks outside of quotes.
func splitQuoted(line string) []string {
	return split(line, func(r rune) bool { return r == ' ' || r == '\t' })
}

// splitOptions splits at commas outside of quotes.
func splitOptions(text string) []string { return split(text, func(r rune) bool { return r == ',' }) }

func split(text string, at func(rune) bool) []string {
	quoted := false
	return strings.FieldsFunc(text, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return !quoted && at(r)
	})
}

// signs reports whether the line is for signatures of a namespace.
func (a *allowed) signs(namespace string) bool {
	if a.namespaces == nil {
		return true
	}
	matched := false
	for _, pattern := range a.namespaces {
		pattern, not := strings.CutPrefix(strings.TrimSpace(pattern), "!")
		if ok, err := path.Match(pattern, namespace); err == nil && ok {
			if not {
				return false
			}
			matched = true
		}
	}
	return matched
}
