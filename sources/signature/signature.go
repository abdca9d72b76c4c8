// Package signature decides whether a commit, or the annotated tag that names it,
// is signed by somebody whom a Source trusts. It is pure: it reads what the
// revision carries and the keys in the Source, and nothing else. It judges as
// git verify-commit does: the validity of an SSH key by the time in the commit,
// that of an OpenPGP key by now.
package signature

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"berth.dev/berth/api/revision"
	"berth.dev/berth/api/v1alpha1"
)

const (
	armorSSH     = "-----BEGIN SSH SIGNATURE-----"
	armorOpenPGP = "-----BEGIN PGP SIGNATURE-----"
)

// Error says why a revision is not trusted.
type Error struct {
	// Commit is the full hash.
	Commit string
	Err    error
}

func (e *Error) Error() string {
	return fmt.Sprintf("commit %s is not trusted: %v", e.Commit[:min(len(e.Commit), 10)], e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// errUnsigned says that there is nothing to verify.
var errUnsigned = errors.New("it is not signed")

// Verify says who signed a revision: its commit, or the annotated tag that
// spec.ref names. The error is an *Error when nobody whom the policy trusts did.
func Verify(policy v1alpha1.Verify, rev revision.Revision, now time.Time) (string, error) {
	ring, err := keys(policy)
	if err != nil {
		return "", &Error{Commit: rev.Commit, Err: err}
	}
	var faults []string
	for _, s := range rev.Signed {
		who, err := ring.one(s, rev.Ref, now)
		if err == nil {
			return who, nil
		}
		if !errors.Is(err, errUnsigned) {
			faults = append(faults, what(s)+" "+err.Error())
		}
	}
	if len(faults) == 0 {
		return "", &Error{Commit: rev.Commit, Err: fmt.Errorf("%w, and spec.verify wants a signature; sign with git commit -S, or with git tag -s where spec.ref names a tag", errUnsigned)}
	}
	return "", &Error{Commit: rev.Commit, Err: errors.New(strings.Join(faults, "; "))}
}

func what(s revision.Signed) string {
	if s.Tag != "" {
		return "the tag " + s.Tag
	}
	return "the commit"
}

// ring is whom a Source trusts.
type ring struct {
	ssh     []allowed
	openPGP *keyring
}

func keys(policy v1alpha1.Verify) (ring, error) {
	var r ring
	var err error
	if policy.AllowedSigners != "" {
		if r.ssh, err = allowedSigners(policy.AllowedSigners); err != nil {
			return ring{}, err
		}
	}
	if policy.OpenPGPKeys != "" {
		if r.openPGP, err = openPGPKeys(policy.OpenPGPKeys); err != nil {
			return ring{}, err
		}
	}
	return r, nil
}

// one verifies one signature.
func (r ring) one(s revision.Signed, ref string, now time.Time) (string, error) {
	text := strings.TrimSpace(s.Signature)
	if text == "" {
		return "", errUnsigned
	}
	// A remote could show a signed tag under another tag's name.
	if s.Tag != "" && ref != "" && ref != "refs/tags/"+s.Tag {
		return "", fmt.Errorf("is signed under that name, but the repository has it as %s", ref)
	}
	switch {
	case strings.HasPrefix(text, armorSSH):
		return verifySSH(r.ssh, []byte(text), s.Payload, s.Time)
	case strings.HasPrefix(text, armorOpenPGP):
		if r.openPGP == nil {
			return "", errors.New("is signed with OpenPGP, and spec.verify.openPGPKeys is empty")
		}
		return r.openPGP.verify(text, s.Payload, now)
	}
	return "", errors.New("has a signature that is neither of SSH nor of OpenPGP")
}
