package sops

import (
	"fmt"
	"regexp"
	"strings"
)

// rules say which values of a file are encrypted. Those that are given count in
// the order of the fields, and a later one takes the place of what the earlier say.
type rules struct {
	unencryptedSuffix, encryptedSuffix   string
	unencrypted, encrypted               *regexp.Regexp
	unencryptedComment, encryptedComment *regexp.Regexp
	macOnlyEncrypted                     bool
}

func (r *rules) set(name, value string) (err error) {
	compile := func(into **regexp.Regexp) {
		if value == "" {
			return
		}
		if *into, err = regexp.Compile(value); err != nil {
			err = fmt.Errorf("sops.%s is no regular expression", name)
		}
	}
	switch name {
	case "unencrypted_suffix":
		r.unencryptedSuffix = value
	case "encrypted_suffix":
		r.encryptedSuffix = value
	case "unencrypted_regex":
		compile(&r.unencrypted)
	case "encrypted_regex":
		compile(&r.encrypted)
	case "unencrypted_comment_regex":
		compile(&r.unencryptedComment)
	case "encrypted_comment_regex":
		compile(&r.encryptedComment)
	case "mac_only_encrypted":
		r.macOnlyEncrypted = value == "true"
	}
	return err
}

// covers reports whether the value at a path is encrypted. comments are those
// above it, for each level of the path.
func (r *rules) covers(path []string, comments [][]string) bool {
	any := func(holds func(string) bool, in ...string) bool {
		for _, s := range in {
			if holds(s) {
				return true
			}
		}
		return false
	}
	suffixed := func(suffix string) func(string) bool {
		return func(s string) bool { return strings.HasSuffix(s, suffix) }
	}
	commented := func(re *regexp.Regexp) bool {
		for _, level := range comments {
			if any(re.MatchString, level...) {
				return true
			}
		}
		return false
	}
	out := true
	if r.unencryptedSuffix != "" && any(suffixed(r.unencryptedSuffix), path...) {
		out = false
	}
	if r.encryptedSuffix != "" {
		out = any(suffixed(r.encryptedSuffix), path...)
	}
	if r.unencrypted != nil && any(r.unencrypted.MatchString, path...) {
		out = false
	}
	if r.encrypted != nil {
		out = any(r.encrypted.MatchString, path...)
	}
	if r.unencryptedComment != nil && commented(r.unencryptedComment) {
		out = false
	}
	if r.encryptedComment != nil {
		out = commented(r.encryptedComment)
	}
	return out
}
