package receive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/storer"
)

// maxLines bounds the lines of one request.
const maxLines = 200_000

// request is what a client asks upload-pack for.
type request struct {
	wants, haves, shallow []plumbing.Hash
	caps                  map[string]bool
	depth                 int
	done                  bool
	// talks is false for a request that only asks where history will end.
	talks bool
}

func readRequest(r io.Reader) (*request, error) {
	req := &request{caps: map[string]bool{}}
	scanner := pktline.NewScanner(r)
	flushed := false
	for n := 0; scanner.Scan(); n++ {
		if n > maxLines {
			return nil, errors.New("the request is too long")
		}
		fields := strings.Fields(string(scanner.Bytes()))
		req.talks = flushed
		if len(fields) == 0 {
			flushed = true
			continue
		}
		if fields[0] == "done" {
			req.done = true
			break
		}
		if len(fields) < 2 {
			return nil, fmt.Errorf("unexpected line %q", fields[0])
		}
		hash := plumbing.NewHash(fields[1])
		switch fields[0] {
		case "want":
			req.wants = append(req.wants, hash)
			for _, c := range fields[2:] {
				req.caps[c] = true
			}
		case "have":
			req.haves = append(req.haves, hash)
		case "shallow":
			req.shallow = append(req.shallow, hash)
		case "deepen":
			depth, err := strconv.Atoi(fields[1])
			if err != nil || depth < 0 {
				return nil, errors.New("deepen needs a number")
			}
			req.depth = depth
		default:
			return nil, fmt.Errorf("%s is not supported", fields[0])
		}
	}
	return req, scanner.Err()
}

// upload answers a fetch. The rules of acknowledgement are those of git's
// upload-pack for stateless connections.
func (s *Server) upload(ctx context.Context, w *response, body io.Reader, repo *repository, _ string) error {
	req, err := readRequest(body)
	if err != nil {
		return err
	}
	if len(req.wants) == 0 {
		return w.begin()
	}
	if repo.objects == nil {
		return errors.New("nothing was pushed to the repository yet")
	}
	store := repo.reader()
	for _, want := range req.wants {
		if store.HasEncodedObject(want) != nil {
			return fmt.Errorf("not our ref %s", want)
		}
	}
	if err := w.begin(); err != nil {
		return err
	}
	e := pktline.NewEncoder(w.w)
	sel := &selection{ctx: ctx, store: store, cut: map[plumbing.Hash]bool{}, has: map[plumbing.Hash]bool{}}
	for _, h := range req.shallow {
		sel.cut[h] = true
	}
	if req.depth > 0 {
		if err := sel.deepen(e, req); err != nil {
			return err
		}
	}
	if !req.talks {
		return nil
	}
	common, ready := acknowledge(e, store, req)
	if !req.done && !ready {
		return nil
	}
	hashes, err := sel.objects(req.wants, common)
	if err != nil {
		return err
	}
	if err := sendPack(w, store, hashes); err != nil {
		return err
	}
	_, err = io.WriteString(w.w, "0000")
	return err
}

// acknowledge answers the haves and returns those that both sides have.
func acknowledge(e *pktline.Encoder, store storer.EncodedObjectStorer, req *request) ([]plumbing.Hash, bool) {
	var common []plumbing.Hash
	detailed := req.caps["multi_ack_detailed"]
	for _, h := range req.haves {
		if store.HasEncodedObject(h) != nil {
			continue
		}
		common = append(common, h)
		if detailed {
			_ = e.Encodef("ACK %s common\n", h)
		} else if len(common) == 1 {
			_ = e.Encodef("ACK %s\n", h)
		}
	}
	if req.done {
		switch {
		case len(common) == 0:
			_ = e.Encodef("NAK\n")
		case detailed:
			_ = e.Encodef("ACK %s\n", common[len(common)-1])
		}
		return common, true
	}
	// One common commit is enough to end the talk: at worst the pack is larger.
	if detailed && len(common) > 0 {
		last := common[len(common)-1]
		_ = e.Encodef("ACK %s ready\n", last)
		_ = e.Encodef("NAK\n")
		if req.caps["no-done"] {
			_ = e.Encodef("ACK %s\n", last)
			return common, true
		}
		return common, false
	}
	if len(common) == 0 || detailed {
		_ = e.Encodef("NAK\n")
	}
	return common, false
}

func sendPack(w *response, store storer.EncodedObjectStorer, hashes []plumbing.Hash) error {
	window := uint(10)
	if len(hashes) > 20_000 {
		window = 0 // the search for deltas would take longer than the network
	}
	_, err := packfile.NewEncoder(data{w}, store, false).Encode(hashes, window)
	return err
}

// selection finds the objects that a client lacks.
type selection struct {
	ctx   context.Context
	store storer.EncodedObjectStorer
	// cut are commits whose parents the client does not have or want.
	cut map[plumbing.Hash]bool
	// edge are the commits that this fetch makes shallow.
	edge map[plumbing.Hash]bool
	// beyond are the parents of commits that are shallow no longer.
	beyond []plumbing.Hash
	has    map[plumbing.Hash]bool
	out    []plumbing.Hash
}

// deepen tells the client where its history will end.
func (s *selection) deepen(e *pktline.Encoder, req *request) error {
	s.edge = map[plumbing.Hash]bool{}
	level := req.wants
	inside := map[plumbing.Hash]bool{}
	for d := 1; d <= req.depth && len(level) > 0; d++ {
		var next []plumbing.Hash
		for _, h := range level {
			if h = s.peel(h); inside[h] {
				continue
			}
			inside[h] = true
			commit, err := object.GetCommit(s.store, h)
			if err != nil {
				return err
			}
			if d == req.depth && len(commit.ParentHashes) > 0 {
				s.edge[h] = true
				if !s.cut[h] {
					_ = e.Encodef("shallow %s", h)
				}
			}
			next = append(next, commit.ParentHashes...)
		}
		level = next
	}
	for h := range s.cut {
		if inside[h] && !s.edge[h] {
			_ = e.Encodef("unshallow %s", h)
			if commit, err := object.GetCommit(s.store, h); err == nil {
				s.beyond = append(s.beyond, commit.ParentHashes...)
			}
		}
	}
	return e.Flush()
}

func (s *selection) peel(h plumbing.Hash) plumbing.Hash {
	for range 10 {
		tag, err := object.GetTag(s.store, h)
		if err != nil {
			return h
		}
		h = tag.Target
	}
	return h
}

// objects lists what wants lead to and common commits do not.
func (s *selection) objects(wants, common []plumbing.Hash) ([]plumbing.Hash, error) {
	known, err := s.commits(common, s.cut, nil)
	if err != nil {
		return nil, err
	}
	have := map[plumbing.Hash]bool{}
	for _, c := range known {
		have[c.Hash] = true
	}
	for _, c := range common { // the trees that the client surely has
		if commit, err := object.GetCommit(s.store, s.peel(c)); err == nil {
			if err := s.tree(commit.TreeHash, false); err != nil {
				return nil, err
			}
		}
	}
	for _, want := range wants {
		for tag, err := object.GetTag(s.store, want); err == nil; tag, err = object.GetTag(s.store, want) {
			s.add(want)
			want = tag.Target
		}
	}
	stop := s.edge
	if stop == nil {
		stop = map[plumbing.Hash]bool{}
	}
	fresh, err := s.commits(append(wants[:len(wants):len(wants)], s.beyond...), stop, have)
	if err != nil {
		return nil, err
	}
	for _, c := range fresh {
		s.add(c.Hash)
		if err := s.tree(c.TreeHash, true); err != nil {
			return nil, err
		}
	}
	return s.out, nil
}

func (s *selection) add(h plumbing.Hash) {
	if !s.has[h] {
		s.has[h] = true
		s.out = append(s.out, h)
	}
}

// commits walks from starts, not beyond stop and not into skip.
func (s *selection) commits(starts []plumbing.Hash, stop, skip map[plumbing.Hash]bool) ([]*object.Commit, error) {
	seen := map[plumbing.Hash]bool{}
	var out []*object.Commit
	queue := append([]plumbing.Hash(nil), starts...)
	for len(queue) > 0 {
		if err := s.ctx.Err(); err != nil {
			return nil, err
		}
		h := s.peel(queue[0])
		queue = queue[1:]
		if seen[h] || skip[h] {
			continue
		}
		seen[h] = true
		commit, err := object.GetCommit(s.store, h)
		if err != nil {
			return nil, fmt.Errorf("read commit %s: %w", h, err)
		}
		out = append(out, commit)
		if !stop[h] {
			queue = append(queue, commit.ParentHashes...)
		}
	}
	return out, nil
}

// tree adds a tree and what is below it, or only marks it as known.
func (s *selection) tree(h plumbing.Hash, wanted bool) error {
	if s.has[h] {
		return nil
	}
	if wanted {
		s.add(h)
	}
	s.has[h] = true
	t, err := object.GetTree(s.store, h)
	if err != nil {
		return fmt.Errorf("read tree %s: %w", h, err)
	}
	next, err := entries(t)
	if err != nil {
		return err
	}
	files := map[plumbing.Hash]bool{}
	for _, e := range t.Entries {
		files[e.Hash] = e.Mode.IsFile()
	}
	for _, h := range next {
		switch {
		case !files[h]:
			if err := s.tree(h, wanted); err != nil {
				return err
			}
		case wanted:
			s.add(h)
		default:
			s.has[h] = true
		}
	}
	return nil
}
