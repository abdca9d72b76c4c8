package git

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
	"github.com/go-git/go-git/v5/plumbing/storer"
)

// obtain fetches a commit or a tag.
func (c *clone) obtain(ctx context.Context, v *visit, want plumbing.Hash) error {
	caps := v.refs.caps
	if v.refs.has(want) || caps.Supports(capability.AllowReachableSHA1InWant) || caps.Supports("allow-any-sha1-in-want") {
		return c.download(ctx, v, want)
	}
	// Such a server gives nothing but what its refs name, and their history.
	if !c.state.Whole {
		if !c.fresh {
			if err := c.renew(); err != nil {
				return err
			}
		}
		c.state.Whole = true
	}
	var all []plumbing.Hash
	for _, h := range v.refs.commits() {
		if c.objects.Store().HasEncodedObject(h) != nil {
			all = append(all, h)
		}
	}
	if len(all) > 0 {
		if err := c.download(ctx, v, all...); err != nil {
			return err
		}
	}
	if c.objects.Store().HasEncodedObject(want) != nil {
		return fmt.Errorf("commit %s is on none of the branches and tags; push it there", want)
	}
	return nil
}

// download fetches wants: alone into a fresh clone, else with what lies between
// them and the last commit. The server is told where the clone is shallow, so
// that it does not take older objects for granted.
func (c *clone) download(ctx context.Context, v *visit, wants ...plumbing.Hash) (err error) {
	taken := c.taken()
	req := packp.NewUploadPackRequestFromCapabilities(v.refs.caps)
	req.Wants = wants
	if last := plumbing.NewHash(c.state.Commit); !c.fresh && !last.IsZero() {
		req.Haves = []plumbing.Hash{last}
		for _, s := range c.state.Shallow {
			req.Shallows = append(req.Shallows, plumbing.NewHash(s))
		}
	} else if v.refs.caps.Supports(capability.Shallow) && !c.state.Whole {
		req.Depth = packp.DepthCommits(1)
	}
	if len(req.Shallows) > 0 || !req.Depth.IsZero() {
		if err := req.Capabilities.Set(capability.Shallow); err != nil {
			return err
		}
	}
	resp, err := v.session.UploadPack(ctx, req)
	if err != nil {
		return &ErrUnreachable{Err: err}
	}
	defer func() { err = errors.Join(err, resp.Close()) }()
	for _, s := range resp.Shallows {
		c.state.Shallow = append(c.state.Shallow, s.String())
	}
	var pack io.Reader = bufio.NewReader(resp)
	switch {
	case req.Capabilities.Supports(capability.Sideband64k):
		pack = sideband.NewDemuxer(sideband.Sideband64k, pack)
	case req.Capabilities.Supports(capability.Sideband):
		pack = sideband.NewDemuxer(sideband.Sideband, pack)
	}
	left := max(v.limit-taken, 0)
	bounded := &io.LimitedReader{R: pack, N: left + 1}
	err = c.objects.Do(func(storer.EncodedObjectStorer) error {
		return packfile.UpdateObjectStorage(c.store, bounded)
	})
	if bounded.N <= 0 {
		return overSize(v.limit, taken+left+1)
	}
	if err != nil {
		return fmt.Errorf("receive the objects: %w", err)
	}
	if taken = c.taken(); taken > v.limit {
		return overSize(v.limit, taken)
	}
	return nil
}
