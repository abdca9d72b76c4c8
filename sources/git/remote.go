package git

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/transport"

	"berth.dev/berth/api/v1alpha1"
)

// url is a remote that may be fetched from.
type url struct {
	endpoint *transport.Endpoint
	// file is the folder of a file:// URL.
	file string
}

// remote checks a URL. The same sentence answers every address that is not
// allowed, so that it tells nothing of what is there.
func (f *Fetcher) remote(raw string) (*url, error) {
	u, err := v1alpha1.ParseURL(raw)
	if err != nil || u.Scheme == "" {
		return nil, fmt.Errorf("not a URL that Berth fetches; use https://host/path or ssh://git@host/path")
	}
	switch u.Scheme {
	case "https":
	case "http":
		if !f.opts.AllowLocal {
			return nil, fmt.Errorf("plain http is not allowed; use https")
		}
	case "file":
		if !f.opts.AllowFile {
			return nil, errNotAllowed
		}
		if u.Host != "" || !filepath.IsAbs(u.Path) {
			return nil, fmt.Errorf("a file URL must be like file:///path/to/repository")
		}
		return &url{file: filepath.Clean(u.Path)}, nil
	case "ssh":
		if u.User.Username() == "" {
			return nil, fmt.Errorf("the URL names no user; most hosts want git, as in ssh://git@host/path")
		}
	default:
		return nil, fmt.Errorf("the scheme %s is not supported; use https or ssh", u.Scheme)
	}
	if u.Host == "" {
		return nil, fmt.Errorf("the URL names no host; use https://host/path")
	}
	endpoint, err := transport.NewEndpoint(u.String())
	if err != nil {
		return nil, fmt.Errorf("not a URL that Berth fetches; use https://host/path")
	}
	return &url{endpoint: endpoint}, nil
}

var errNotAllowed = fmt.Errorf("this address is not allowed as a source; an administrator can allow local ones with berth up --allow-local-sources")

// display is a URL without what may be a password.
func display(raw string) string {
	u, err := v1alpha1.ParseURL(raw)
	if err != nil {
		return "the remote"
	}
	return u.Redacted()
}

func local(a netip.Addr) bool {
	return a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsLinkLocalMulticast() || a.IsUnspecified() || a.IsMulticast() ||
		strings.HasPrefix(a.String(), "fd00:ec2:")
}
