// Package git fetches desired state from remote repositories: one bare, shallow
// clone on disk for each Source. It owns what lies under its folder and reads
// nothing but the remotes. It never checks out, and never returns a tree that
// lacks an object: a clone that does is made anew.
package git

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"berth.dev/berth/api/revision"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/sources/tree"
)

// Options of a Fetcher.
type Options struct {
	// Dir holds the clones.
	Dir string
	Log *slog.Logger
	// AllowLocal permits http, and loopback and link-local addresses.
	AllowLocal bool
	// AllowFile permits file:// URLs.
	AllowFile bool
	// Credentials returns what opens the remote of a Source; nil means that no
	// remote needs any.
	Credentials func(context.Context, *v1alpha1.Source) (Credentials, error)
	// MaxSize bounds what one fetch downloads, in bytes. Default 1 GiB.
	MaxSize int64
}

// fetchTimeout bounds one fetch, whatever the remote does.
const fetchTimeout = 10 * time.Minute

// Fetcher keeps the clones. It is safe for concurrent use; fetches of one
// Source follow one another.
type Fetcher struct {
	opts   Options
	client *http.Client
	mu     sync.Mutex
	clones map[string]*clone
	// private are the clients that trust certificates of their own, by those.
	private map[[sha256.Size]byte]*http.Client
}

// New makes a Fetcher over opts.Dir.
func New(opts Options) *Fetcher {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.MaxSize == 0 {
		opts.MaxSize = 1 << 30
	}
	return &Fetcher{opts: opts, client: httpClient(opts.AllowLocal, nil), clones: map[string]*clone{},
		private: map[[sha256.Size]byte]*http.Client{}}
}

// Fetch returns the commit that the Source's ref names now. When nothing has
// changed since the last call, that costs one listing of the remote's refs.
func (f *Fetcher) Fetch(ctx context.Context, src *v1alpha1.Source) (revision.Revision, error) {
	remote, err := f.remote(src.Spec.URL)
	if err != nil {
		return revision.Revision{}, fmt.Errorf("fetch %s: %w", display(src.Spec.URL), err)
	}
	c := f.clone(src.Name)
	c.mu.Lock()
	defer c.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	rev, err := c.fetch(ctx, f, src, remote)
	if err != nil {
		return revision.Revision{}, fmt.Errorf("fetch %s: %w", display(src.Spec.URL), err)
	}
	return rev, nil
}

// Forget removes the clone of a Source that is gone.
func (f *Fetcher) Forget(name string) error {
	c := f.clone(name)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.close()
	f.mu.Lock()
	delete(f.clones, name)
	f.mu.Unlock()
	return os.RemoveAll(c.dir)
}

func (f *Fetcher) clone(name string) *clone {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.clones[name]
	if c == nil {
		sum := sha256.Sum256([]byte(name))
		c = &clone{dir: filepath.Join(f.opts.Dir, hex.EncodeToString(sum[:8])), log: f.opts.Log.With("source", name)}
		f.clones[name] = c
	}
	return c
}

// fetch brings the clone to the ref's commit and reads its tree.
func (c *clone) fetch(ctx context.Context, f *Fetcher, src *v1alpha1.Source, remote *url) (revision.Revision, error) {
	if remote.file != "" {
		return c.direct(ctx, f, remote.file, src)
	}
	v, err := f.visit(ctx, src, remote)
	if err != nil {
		return revision.Revision{}, err
	}
	defer v.close()
	want, err := resolve(v.refs, src.Spec.Ref)
	if err != nil {
		return revision.Revision{}, err
	}
	if c.url != src.Spec.URL {
		c.close()
		c.url = src.Spec.URL
	}
	if err := c.load(); err != nil {
		c.log.Info("cloning again", "reason", err)
	}
	if c.known(src, want) {
		rev := c.current
		rev.Ref, rev.Rewritten = want.ref, false
		return rev, nil
	}
	if err := c.refused.stands(want, v); err != nil {
		return revision.Revision{}, err
	}
	rev, err := c.update(ctx, v, want)
	if err != nil && ctx.Err() == nil && !c.fresh {
		// Objects that are missing, a lock left behind, a server that refuses
		// later fetches, a clone that has grown: a fresh one mends all of them.
		c.log.Info("cloning again", "reason", err)
		rev, err = c.again(ctx, f, src, remote, want)
	}
	if err != nil && c.fresh {
		c.discard()
	}
	c.refused.note(want, v, err)
	return rev, err
}

// known: the last revision is what the Source wants now, and can be read.
func (c *clone) known(src *v1alpha1.Source, want named) bool {
	if c.largeDamaged != nil && c.largeDamaged.Load() {
		return false
	}
	return c.state.Want == want.Hash.String() && c.current.Tree != nil && c.scope == scopeOf(src) && (c.objects == nil || !c.objects.Damaged()) && !c.modules.damaged()
}

// again makes the clone anew.
func (c *clone) again(ctx context.Context, f *Fetcher, src *v1alpha1.Source, remote *url, want named) (revision.Revision, error) {
	rewritten := c.rewrittenTo(want.Hash)
	v, err := f.visit(ctx, src, remote)
	if err != nil {
		return revision.Revision{}, err
	}
	defer v.close()
	if err := c.renew(); err != nil {
		return revision.Revision{}, err
	}
	rev, err := c.update(ctx, v, want)
	rev.Rewritten = rewritten
	return rev, err
}

// update fetches want, reads its tree and remembers it.
func (c *clone) update(ctx context.Context, v *visit, want named) (revision.Revision, error) {
	if c.store == nil || c.packs() >= maxPacks || c.objects.Damaged() {
		if err := c.renew(); err != nil {
			return revision.Revision{}, err
		}
	}
	last := plumbing.NewHash(c.state.Commit)
	if c.objects.Store().HasEncodedObject(want.Hash) != nil {
		if err := c.obtain(ctx, v, want.Hash); err != nil {
			return revision.Revision{}, err
		}
	}
	rev, err := c.revision(ctx, v, c.objects, want.Hash)
	if err != nil {
		return revision.Revision{}, err
	}
	commit := plumbing.NewHash(rev.Commit)
	rev.Ref = want.ref
	if !last.IsZero() && last != commit && !c.fresh {
		rev.Rewritten = !tree.Ancestor(c.objects.Store(), last, commit)
	}
	c.state.Want, c.state.Commit = want.Hash.String(), rev.Commit
	if err := c.save(); err != nil {
		return revision.Revision{}, err
	}
	c.current, c.scope, c.fresh = rev, scopeOf(v.src), false
	return rev, nil
}
