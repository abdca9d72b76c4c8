package git

import (
	"context"
	"errors"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/transport"

	"berth.dev/berth/api/v1alpha1"
)

// visit is one conversation with a remote.
type visit struct {
	fetcher     *Fetcher
	src         *v1alpha1.Source
	remote      *url
	credentials Credentials
	session     transport.UploadPackSession
	refs        *advert
	// limit is what the clone may take of the disk, in bytes.
	limit int64
}

// visit asks a remote what it has. Without an error, the visit is to be closed.
func (f *Fetcher) visit(ctx context.Context, src *v1alpha1.Source, remote *url) (*visit, error) {
	v := f.visitor(src, remote)
	var err error
	if v.credentials, err = f.credentials(ctx, src); err != nil {
		return nil, err
	}
	if v.session, err = f.session(ctx, remote, v.credentials); err != nil {
		return nil, err
	}
	if v.refs, err = advertised(ctx, v.session); err != nil {
		v.close()
		return nil, err
	}
	return v, nil
}

func (f *Fetcher) visitor(src *v1alpha1.Source, remote *url) *visit {
	v := &visit{fetcher: f, src: src, remote: remote, limit: f.opts.MaxSize}
	if m := src.Spec.MaxSize; m != nil {
		v.limit = m.Value()
	}
	return v
}

// close ends the connection: over ssh it is one, and a process at its other end.
func (v *visit) close() { _ = v.session.Close() }

func advertised(ctx context.Context, session transport.UploadPackSession) (*advert, error) {
	refs, err := session.AdvertisedReferencesContext(ctx)
	switch {
	case errors.Is(err, transport.ErrEmptyRemoteRepository):
		return nil, ErrEmptyRepository
	case err != nil:
		return nil, &ErrUnreachable{Err: err}
	}
	a := &advert{hashes: map[string]plumbing.Hash{}, caps: refs.Capabilities}
	for name, hash := range refs.References {
		a.hashes[name] = hash
	}
	if len(a.hashes) == 0 {
		return nil, ErrEmptyRepository
	}
	return a, nil
}
