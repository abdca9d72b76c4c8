package tree

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/storer"

	"berth.dev/berth/api/revision"
)

// signed are the annotated tag that hash is, if it is one, and its commit, each
// as its signature covers it.
func signed(s storer.EncodedObjectStorer, hash plumbing.Hash, commit *object.Commit) ([]revision.Signed, error) {
	var out []revision.Signed
	if hash != commit.Hash {
		tag, err := signedTag(s, hash)
		if err != nil {
			return nil, err
		}
		out = append(out, tag)
	}
	raw, err := readObject(s, plumbing.CommitObject, commit.Hash)
	if err != nil {
		return nil, err
	}
	payload, signature := splitCommit(raw)
	// What is signed must be what is read: another parser may see another tree.
	if signature != "" && !bytes.HasPrefix(payload, []byte("tree "+commit.TreeHash.String()+"\n")) {
		return nil, fmt.Errorf("the commit %s is malformed", commit.Hash)
	}
	return append(out, revision.Signed{Payload: payload, Signature: signature, Time: commit.Committer.When}), nil
}

func signedTag(s storer.EncodedObjectStorer, hash plumbing.Hash) (revision.Signed, error) {
	tag, err := object.GetTag(s, hash)
	if err != nil {
		return revision.Signed{}, err
	}
	raw, err := readObject(s, plumbing.TagObject, hash)
	if err != nil {
		return revision.Signed{}, err
	}
	payload, signature := splitTag(raw)
	begin := fmt.Sprintf("object %s\ntype %s\ntag %s\n", tag.Target, tag.TargetType, tag.Name)
	if !bytes.HasPrefix(payload, []byte(begin)) {
		return revision.Signed{}, fmt.Errorf("the tag %s is malformed", hash)
	}
	return revision.Signed{Tag: tag.Name, Payload: payload, Signature: signature, Time: tag.Tagger.When}, nil
}

// splitCommit takes the signature out of a commit: the header gpgsig, whose
// further lines begin with a blank.
func splitCommit(raw []byte) (payload []byte, signature string) {
	var kept bytes.Buffer
	var sig strings.Builder
	header, ours, other := true, false, false
	for line := range bytes.Lines(raw) {
		switch {
		case !header:
		case len(line) > 0 && line[0] == ' ' && (ours || other):
			if ours {
				sig.Write(line[1:])
			}
			continue
		case bytes.HasPrefix(line, []byte("gpgsig ")):
			ours, other = true, false
			sig.Write(line[len("gpgsig "):])
			continue
		case bytes.HasPrefix(line, []byte("gpgsig-sha256 ")):
			ours, other = false, true
			continue
		default:
			ours, other = false, false
			header = !bytes.Equal(line, []byte("\n"))
		}
		kept.Write(line)
	}
	return kept.Bytes(), sig.String()
}

// splitTag takes the signature off the end of a tag.
func splitTag(raw []byte) (payload []byte, signature string) {
	at := -1
	for _, begin := range []string{"-----BEGIN SSH SIGNATURE-----", "-----BEGIN PGP SIGNATURE-----", "-----BEGIN PGP MESSAGE-----", "-----BEGIN SIGNED MESSAGE-----"} {
		if i := bytes.LastIndex(raw, []byte("\n"+begin)); i >= 0 {
			at = max(at, i+1)
		}
	}
	if at < 0 {
		return raw, ""
	}
	return raw[:at], string(raw[at:])
}

// maxMessage is the size of the largest commit or tag, in bytes.
const maxMessage = 4 << 20

func readObject(s storer.EncodedObjectStorer, t plumbing.ObjectType, hash plumbing.Hash) (content []byte, err error) {
	o, err := s.EncodedObject(t, hash)
	if err != nil {
		return nil, err
	}
	if o.Size() > maxMessage {
		return nil, fmt.Errorf("the %s %s has %d bytes; at most %d are read", t, hash, o.Size(), maxMessage)
	}
	r, err := o.Reader()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return io.ReadAll(r)
}
