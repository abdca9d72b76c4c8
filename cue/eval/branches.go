package eval

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"berth.dev/berth/cue/document"
)

var mismatch = regexp.MustCompile(`^conflicting values (.+?) and (.+?)(?: \(mismatched types [^)]*\))?(?:; the other is at .*)?$`)

// alternatives joins what a disjunction of types says of each of its branches into one
// problem: the value, and what it may be.
func alternatives(problems []document.Problem) []document.Problem {
	var out []document.Problem
	for i, p := range problems {
		same := func(q document.Problem) bool {
			return q.Pos == p.Pos && q.Field == p.Field && mismatch.MatchString(q.Message)
		}
		if !same(p) {
			out = append(out, p)
			continue
		}
		if slices.ContainsFunc(problems[:i], same) {
			continue // said with the first
		}
		var branches []document.Problem
		for _, q := range problems[i:] {
			if same(q) {
				branches = append(branches, q)
			}
		}
		value, others := common(branches)
		if value == "" {
			out = append(out, branches...)
			continue
		}
		p.Message = described(value) + " is not allowed; must be " + either(others)
		if scalarLiteral.MatchString(value) && slices.Contains(others, "a string") {
			p.Message += fmt.Sprintf("; quote it: %q", value)
		}
		out = append(out, p)
	}
	return out
}

// common finds the value that all branches refuse, and what each of them asks
// for; empty if there is no such value, or only one branch.
func common(branches []document.Problem) (value string, others []string) {
	if len(branches) < 2 {
		return "", nil
	}
	first := mismatch.FindStringSubmatch(branches[0].Message)
	for _, candidate := range []string{first[2], first[1]} {
		others = nil
		for _, b := range branches {
			switch m := mismatch.FindStringSubmatch(b.Message); candidate {
			case m[1]:
				others = append(others, described(m[2]))
			case m[2]:
				others = append(others, described(m[1]))
			}
		}
		if len(others) == len(branches) {
			slices.Sort(others)
			return candidate, slices.Compact(others)
		}
	}
	return "", nil
}

// scalarLiteral is a number or a bool as CUE prints it.
var scalarLiteral = regexp.MustCompile(`^(-?[0-9][0-9.eE+-]*|true|false)$`)

// quoting tells a number or a bool in the place of a text how to become one.
func quoting(problems []document.Problem) {
	for i, p := range problems {
		m := mismatch.FindStringSubmatch(p.Message)
		if m == nil {
			continue
		}
		for j, value := range m[1:] {
			if scalarLiteral.MatchString(value) && m[2-j] == "string" {
				problems[i].Message = fmt.Sprintf("%s is not allowed; must be a string; quote it: %q", value, value)
			}
		}
	}
}

// described names a value as CUE prints it.
func described(v string) string {
	switch {
	case strings.HasPrefix(v, "{"):
		return "an object"
	case strings.HasPrefix(v, "["):
		return "a list"
	}
	switch v {
	case "string":
		return "a string"
	case "int":
		return "a whole number"
	case "number", "float":
		return "a number"
	case "bool":
		return "true or false"
	case "null":
		return "null"
	}
	return v
}

func either(options []string) string {
	if len(options) == 1 {
		return options[0]
	}
	return strings.Join(options[:len(options)-1], ", ") + " or " + options[len(options)-1]
}
