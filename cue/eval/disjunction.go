package eval

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	cueerrors "cuelang.org/go/cue/errors"

	"berth.dev/berth/cue/check"
)

// text is the message of an error with its causes, without paths and places.
func text(e cueerrors.Error) string {
	if c, ok := e.(choice); ok {
		return c.message
	}
	format, args := e.Msg()
	message := fmt.Sprintf(format, args...)
	for cause := errors.Unwrap(e); cause != nil; cause = errors.Unwrap(cause) {
		inner := cause.Error()
		if known, ok := cause.(cueerrors.Error); ok {
			format, args := known.Msg()
			inner = fmt.Sprintf(format, args...)
		}
		if inner != "" && !strings.HasSuffix(message, inner) {
			message += ": " + inner
		}
	}
	return message
}

// cueError has a name that does not hide the method Error when it is embedded.
type cueError = cueerrors.Error

// choice is what a value was compared with, in one message.
type choice struct {
	cueError
	message string
}

var (
	emptyDisjunction = regexp.MustCompile(`^\d+ errors in empty disjunction`)
	conflict         = regexp.MustCompile(`^conflicting values ("(?:[^"\\]|\\.)*") and ("(?:[^"\\]|\\.)*")$`)
)

// fold makes one error of a value that is none of those allowed, leaves out the
// branches of a disjunction that were not meant, and drops the heading where
// what is below it is told.
func fold(errs []cueerrors.Error) []cueerrors.Error {
	var headings, told []cueerrors.Error
	for _, e := range errs {
		if emptyDisjunction.MatchString(text(e)) {
			headings = append(headings, e)
		} else {
			told = append(told, e)
		}
	}
	var bare []cueerrors.Error
	for _, heading := range headings {
		at := heading.Path()
		var branches, rest []cueerrors.Error
		for _, e := range told {
			if path := e.Path(); len(path) >= len(at) && slices.Equal(path[:len(at)], at) {
				branches = append(branches, e)
			} else {
				rest = append(rest, e)
			}
		}
		if len(branches) == 0 {
			bare = append(bare, heading)
			continue
		}
		told = append(rest, meant(at, branches)...)
	}
	return append(bare, told...)
}

// meant returns the errors of the branches that were meant.
func meant(at []string, branches []cueerrors.Error) []cueerrors.Error {
	if one, ok := chosen(at, branches); ok {
		return []cueerrors.Error{one}
	}
	// A branch whose fixed text conflicts, such as a type, is another one.
	var out []cueerrors.Error
	for _, e := range branches {
		if len(e.Path()) == len(at) || !conflict.MatchString(text(e)) {
			out = append(out, e)
		}
	}
	if len(out) == 0 {
		return branches
	}
	return out
}

// chosen joins conflicts of one text with each text that is allowed.
func chosen(at []string, branches []cueerrors.Error) (cueerrors.Error, bool) {
	var pairs [][]string
	for _, e := range branches {
		m := conflict.FindStringSubmatch(text(e))
		if m == nil || len(e.Path()) != len(at) {
			return nil, false
		}
		if pair := m[1:]; !slices.ContainsFunc(pairs, func(p []string) bool { return slices.Equal(p, pair) }) {
			pairs = append(pairs, pair)
		}
	}
	if len(pairs) < 2 {
		return nil, false
	}
	for _, given := range pairs[0] {
		var allowed, names []string
		for _, p := range pairs {
			i := slices.Index(p, given)
			if i < 0 {
				break
			}
			allowed = append(allowed, p[1-i])
			names = append(names, strings.Trim(p[1-i], `"`))
		}
		if len(allowed) < len(pairs) {
			continue
		}
		slices.Sort(allowed)
		message := given + " is not allowed; "
		if near := check.Nearest(strings.Trim(given, `"`), names); near != "" {
			message += fmt.Sprintf("did you mean %q? It ", near)
		}
		return choice{branches[0], message + "must be one of " + strings.Join(allowed, ", ")}, true
	}
	return nil, false
}
