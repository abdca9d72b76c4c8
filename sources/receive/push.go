package receive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/format/pktline"

	"berth.dev/berth/api/revision"
	"berth.dev/berth/sources/tree"
)

// maxCommands bounds the refs of one push.
const maxCommands = 100

// command is the change of one ref.
type command struct {
	old, new plumbing.Hash
	ref      string
	// rewrites: what the ref was at is not in the history of what it becomes.
	rewrites bool
	// refused says why not, in a few words.
	refused string
}

// receive takes a push: its objects go into a folder of their own, are checked
// there, then the gate is asked, and only then do they join the repository.
func (s *Server) receive(ctx context.Context, w *response, body io.Reader, repo *repository, user string) error {
	commands, err := readCommands(body)
	if err != nil {
		return err
	}
	if len(commands) == 0 {
		return w.begin() // git asks with an empty request whether it may stream
	}
	repo.push.Lock()
	defer repo.push.Unlock()
	incoming, err := os.MkdirTemp(repo.dir, "incoming-")
	if err != nil {
		return fmt.Errorf("make room for the push: %w", err)
	}
	defer func() { _ = os.RemoveAll(incoming) }()
	unpacked := s.unpack(incoming, body, commands)
	if err := w.begin(); err != nil {
		return err
	}
	if unpacked == nil {
		s.decide(ctx, w, repo, incoming, commands, user)
	} else {
		w.line(unpacked.Error())
		for _, c := range commands {
			c.refused = "the pack was refused"
		}
	}
	return w.report(unpacked, commands)
}

func readCommands(r io.Reader) ([]*command, error) {
	var out []*command
	scanner := pktline.NewScanner(r)
	for scanner.Scan() {
		line := scanner.Bytes()
		if len(line) == 0 {
			return out, nil
		}
		text, _, _ := bytes.Cut(line, []byte{0})
		fields := strings.Fields(string(text))
		if len(fields) == 2 && fields[0] == "shallow" {
			continue
		}
		if len(fields) != 3 || !plumbing.IsHash(fields[0]) || !plumbing.IsHash(fields[1]) || len(out) >= maxCommands {
			return nil, errors.New("the push is malformed, or changes more than 100 refs")
		}
		out = append(out, &command{old: plumbing.NewHash(fields[0]), new: plumbing.NewHash(fields[1]), ref: fields[2]})
	}
	if err := scanner.Err(); err != nil {
		return nil, fmt.Errorf("read the push: %w", err)
	}
	return out, nil
}

// unpack stores the pack of a push below incoming.
func (s *Server) unpack(incoming string, body io.Reader, commands []*command) error {
	expected := false
	for _, c := range commands {
		expected = expected || !c.new.IsZero()
	}
	if !expected {
		return nil
	}
	if err := os.MkdirAll(filepath.Join(incoming, "objects/pack"), 0o700); err != nil {
		return fmt.Errorf("make room for the push: %w", err)
	}
	store := openStore(incoming)
	defer func() { _ = store.Close() }()
	bounded := &io.LimitedReader{R: body, N: s.opts.MaxPack + 1}
	err := packfile.UpdateObjectStorage(store, bounded)
	if bounded.N <= 0 {
		// The client reads our answer only when it has sent all.
		_, _ = io.Copy(io.Discard, io.LimitReader(body, 4*s.opts.MaxPack))
		return fmt.Errorf("the push is larger than %d MiB; keep large files out of the repository", s.opts.MaxPack>>20)
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(body, 1<<20))
	if err != nil && !errors.Is(err, packfile.ErrEmptyPackfile) {
		return fmt.Errorf("the pack is damaged: %w", err)
	}
	return nil
}

// decide marks the commands that are refused and carries out the others.
func (s *Server) decide(ctx context.Context, w *response, repo *repository, incoming string, commands []*command, user string) {
	store := openStore(incoming)
	defer func() { _ = store.Close() }()
	both := &layered{upper: store, lower: repo.reader()}
	current, err := repo.refs()
	if err == nil {
		err = complete(ctx, store, repo.reader())
	}
	moved := false
	for _, c := range commands {
		if err != nil {
			w.line(err.Error())
			c.refused = short(err.Error())
			continue
		}
		c.refused = s.admissible(repo, both, current, c, user)
		if c.refused != "" {
			continue
		}
		if c.rewrites {
			w.line(fmt.Sprintf("%s is rewritten: commit %s, which it was at, is not in its history any more", plumbing.ReferenceName(c.ref).Short(), c.old.String()[:10]))
		}
		p := Push{Repository: repo.name, Ref: c.ref, Old: c.old.String(), New: c.new.String(), User: user}
		p.At = func(path string) (revision.Revision, error) {
			rev, err := tree.Revision(ctx, tree.NewObjects(both), c.new, path)
			rev.Ref = c.ref
			return rev, err
		}
		if s.opts.Gate != nil {
			if err := s.opts.Gate.Check(ctx, p, w.progress()); err != nil {
				w.line(err.Error())
				c.refused = short(err.Error())
				continue
			}
		}
		if !moved && !c.new.IsZero() {
			moved = true
			if err := repo.adopt(incoming); err != nil {
				w.line(err.Error())
				c.refused = "the objects cannot be stored"
				continue
			}
		}
		if err := repo.setRef(c.ref, c.new); err != nil {
			c.refused = short(err.Error())
			continue
		}
		if s.opts.Gate != nil {
			s.opts.Gate.Accepted(ctx, p)
		}
	}
	if err := repo.fold(); err != nil {
		s.opts.Log.Warn("fold packs", "repository", repo.name, "error", err)
	}
}

// short is the first line of a reason, for git's report.
func short(reason string) string {
	reason, _, _ = strings.Cut(reason, "\n")
	if len(reason) > 200 {
		reason = reason[:200] + "…"
	}
	return reason
}

// admissible checks what needs no gate: the name of the ref, that it has not
// moved, that every object is there, and that history goes on.
func (s *Server) admissible(repo *repository, both *layered, current map[string]plumbing.Hash, c *command, user string) string {
	name := plumbing.ReferenceName(c.ref)
	if !name.IsBranch() && !name.IsTag() || name.Validate() != nil {
		return "only branches and tags can be pushed"
	}
	if current[c.ref] != c.old {
		return "the ref has moved meanwhile; fetch first"
	}
	if c.new.IsZero() {
		return ""
	}
	if both.HasEncodedObject(c.new) != nil {
		return "the pushed object is missing from the push"
	}
	if name.IsBranch() {
		if t, err := typeOf(both, c.new); err != nil || t != plumbing.CommitObject {
			return "a branch must point at a commit"
		}
	}
	c.rewrites = !c.old.IsZero() && !tree.Ancestor(both, c.old, c.new)
	if c.rewrites && (s.opts.AllowForce == nil || !s.opts.AllowForce(user, repo.name, c.ref)) {
		return "history would be rewritten; fetch and rebase, or go back with git revert"
	}
	return ""
}

// adopt moves the packs of a push into the repository, durably.
func (r *repository) adopt(incoming string) error {
	from, to := filepath.Join(incoming, "objects/pack"), filepath.Join(r.dir, "objects/pack")
	entries, err := os.ReadDir(from)
	if err != nil {
		return fmt.Errorf("store the push: %w", err)
	}
	// The pack last: go-git lists packs, and takes one without an index for a
	// fault of the whole store.
	for _, ext := range []string{".idx", ".pack"} {
		for _, e := range entries {
			if filepath.Ext(e.Name()) != ext {
				continue
			}
			if err := syncPath(filepath.Join(from, e.Name())); err != nil {
				return fmt.Errorf("store the push: %w", err)
			}
			if err := os.Link(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil && !errors.Is(err, os.ErrExist) {
				return fmt.Errorf("store the push: %w", err)
			}
		}
	}
	if err := syncPath(to); err != nil {
		return fmt.Errorf("store the push: %w", err)
	}
	r.reindex()
	return nil
}
