package git

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/Masterminds/semver/v3"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/transport"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"

	"berth.dev/berth/api/v1alpha1"
)

// ErrEmptyRepository says that the remote has no commit yet.
var ErrEmptyRepository = errors.New("repository is empty")

// ErrRefNotFound says that the ref is not there, and which ones are.
type ErrRefNotFound struct {
	// Ref in words, such as "branch main".
	Ref      string
	Branches []string
}

func (e *ErrRefNotFound) Error() string {
	if len(e.Branches) == 0 {
		return e.Ref + " not found; the repository has no branches"
	}
	return fmt.Sprintf("%s not found; the branches are %s", e.Ref, strings.Join(e.Branches, ", "))
}

// ErrUnreachable says that the remote did not answer, or refused.
type ErrUnreachable struct{ Err error }

func (e *ErrUnreachable) Error() string {
	if errors.Is(e.Err, transport.ErrAuthenticationRequired) || errors.Is(e.Err, transport.ErrAuthorizationFailed) {
		return "the remote wants credentials, or refuses those that it was given; look at the Secret that spec.credentials names"
	}
	if answer := refusal(e.Err); answer != nil && strings.TrimSpace(answer.Reason) != "" {
		reason := strings.Join(strings.Fields(answer.Reason), " ")
		if len(reason) > 300 {
			reason = reason[:300] + "…"
		}
		return fmt.Sprintf("the server answers %d: %s", answer.StatusCode(), reason)
	}
	return e.Err.Error()
}

// refusal is the server's answer, if there was one.
func refusal(err error) *githttp.Err {
	for err != nil {
		var answer *githttp.Err
		if errors.As(err, &answer) {
			return answer
		}
		switch wrapped := err.(type) {
		case *plumbing.UnexpectedError:
			err = wrapped.Err
		case *plumbing.PermanentError:
			err = wrapped.Err
		default:
			return nil
		}
	}
	return nil
}

func (e *ErrUnreachable) Unwrap() error { return e.Err }

// advert is what a remote has.
type advert struct {
	hashes map[string]plumbing.Hash
	caps   *capability.List
}

// has reports whether a ref names an object.
func (a *advert) has(h plumbing.Hash) bool {
	for _, other := range a.hashes {
		if other == h {
			return true
		}
	}
	return false
}

// commits are what branches and tags name, in an order that stays.
func (a *advert) commits() []plumbing.Hash {
	var out []plumbing.Hash
	for name, h := range a.hashes {
		if (strings.HasPrefix(name, "refs/heads/") || strings.HasPrefix(name, "refs/tags/")) && !strings.HasSuffix(name, "^{}") {
			out = append(out, h)
		}
	}
	plumbing.HashesSort(out)
	return slices.Compact(out)
}

func (a *advert) branches() []string {
	var out []string
	for name := range a.hashes {
		if branch, ok := strings.CutPrefix(name, "refs/heads/"); ok {
			out = append(out, branch)
		}
	}
	sort.Strings(out)
	if len(out) > 20 {
		out = append(out[:20], "…")
	}
	return out
}

// named is what a Source's ref stands for: a commit, or an annotated tag.
type named struct {
	plumbing.Hash
	// ref is the full name; empty for a commit.
	ref string
}

// resolve finds what a Source's ref stands for.
func resolve(a *advert, ref v1alpha1.Ref) (named, error) {
	name, words := "refs/heads/main", "branch main"
	switch {
	case ref.Commit != "":
		if !plumbing.IsHash(ref.Commit) {
			return named{}, fmt.Errorf("ref.commit %q is no full commit hash; it has 40 hexadecimal digits", ref.Commit)
		}
		return named{Hash: plumbing.NewHash(ref.Commit)}, nil
	case ref.Semver != "":
		return highest(a, ref.Semver)
	case ref.Tag != "":
		name, words = "refs/tags/"+ref.Tag, "tag "+ref.Tag
	case ref.Branch != "":
		name, words = "refs/heads/"+ref.Branch, "branch "+ref.Branch
	}
	hash, ok := a.hashes[name]
	if !ok {
		return named{}, &ErrRefNotFound{Ref: words, Branches: a.branches()}
	}
	return named{hash, name}, nil
}

// highest finds the tag with the highest version in a range.
func highest(a *advert, within string) (named, error) {
	constraint, err := semver.NewConstraint(within)
	if err != nil {
		return named{}, fmt.Errorf("ref.semver %q is no range of versions; it must be like >=1.4 <2 or ~1.4", within)
	}
	var found *semver.Version
	var out named
	versions := 0
	for name, h := range a.hashes {
		tag, ok := strings.CutPrefix(name, "refs/tags/")
		if !ok || strings.HasSuffix(tag, "^{}") {
			continue
		}
		v, err := semver.NewVersion(tag)
		if err != nil {
			continue
		}
		versions++
		// Of 1.2.0 and v1.2.0, which are the same, the order of names decides.
		if constraint.Check(v) && (found == nil || v.GreaterThan(found) || v.Equal(found) && v.Original() > found.Original()) {
			found, out = v, named{h, name}
		}
	}
	if found == nil {
		return named{}, fmt.Errorf("no tag is a version within %s; %d tags are versions", within, versions)
	}
	return out, nil
}
