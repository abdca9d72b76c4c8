// Package revision holds the value that sources hands to the compiler: one
// commit and the files of its tree. It reads nothing itself.
package revision

import (
	"context"
	"time"
)

// Revision is one commit of a repository, limited to the folder that a Source deploys.
type Revision struct {
	// Commit is the full hash; empty for a working tree that is not committed.
	Commit  string
	Author  string
	Email   string
	Subject string
	// Message is the whole commit message, trailers included.
	Message string
	// Time is the committer's time.
	Time time.Time
	// Ref is the full name of the ref that led to the commit, such as
	// refs/tags/v1.4.2; empty when a commit was named.
	Ref string
	// Signed are the annotated tag that led to the commit, if one did, and the
	// commit, as their signatures cover them.
	Signed []Signed
	// SignedBy says whose signature was found and trusted; empty when none was
	// looked for.
	SignedBy string
	// Rewritten is true when the commit before was not an ancestor of this one.
	Rewritten bool
	Tree      Tree
}

// Signed is a commit or an annotated tag without its signature, and that.
type Signed struct {
	// Tag is the name in a tag; empty for a commit.
	Tag     string
	Payload []byte
	// Signature in ASCII armor; empty when there is none.
	Signature string
	// Time is the committer's, or the tagger's.
	Time time.Time
}

// Tree is the content of a folder at one commit. It is safe for concurrent use
// and stays readable as long as the program runs.
type Tree interface {
	// Files lists everything below the folder, sorted by path. It fails when
	// any object of the tree is missing: it never returns a part of the tree.
	Files(ctx context.Context) ([]File, error)
	// Read returns the content of a regular file. A file larger than limit
	// bytes is an error that says so.
	Read(ctx context.Context, path string, limit int64) ([]byte, error)
}

// File is one entry of a Tree.
type File struct {
	// Path is relative to the root of the repository, with slashes, also when
	// only a folder of it is deployed, so that messages name places as Git does.
	Path string
	Kind Kind
	// Hash identifies the content: equal hashes mean equal bytes.
	Hash string
	// Size in bytes.
	Size int64
}

// Kind of an entry in a Tree.
type Kind int

// Kinds of entries. Only regular files can be read; the others are listed so
// that they can be named in an error rather than read as "nothing there".
const (
	Regular Kind = iota
	Symlink
	Submodule
)
