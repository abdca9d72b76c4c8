package git

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	neturl "net/url"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"berth.dev/berth/api/revision"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/sources/tree"
)

// Bounds of submodules: how deep they lie in one another, and how many there are.
const (
	maxModuleDepth = 5
	maxModules     = 50
	maxModulesFile = 1 << 20
)

// modules are the clones of submodules, by their URL.
type modules map[string]*clone

func (m modules) damaged() bool {
	for _, c := range m {
		if c.objects != nil && c.objects.Damaged() {
			return true
		}
	}
	return false
}

func (m modules) close() {
	for url, c := range m {
		c.close()
		delete(m, url)
	}
}

// revision reads a commit with what the Source wants besides it.
func (c *clone) revision(ctx context.Context, v *visit, objects *tree.Objects, hash plumbing.Hash) (revision.Revision, error) {
	g := &gathering{clone: c, visit: v, objects: objects, top: hash, modules: tree.Modules{}, urls: map[string]string{"": v.src.Spec.URL}}
	rev, err := tree.Revision(ctx, objects, hash, v.src.Spec.Path)
	for found := v.src.Spec.Submodules; err == nil && found; {
		if found, err = g.gather(ctx, rev); err == nil && found {
			rev, err = tree.RevisionWith(ctx, objects, hash, v.src.Spec.Path, g.modules)
		}
	}
	if err == nil {
		err = c.forgetModules(g.urls)
	}
	if err == nil && v.src.Spec.LFS {
		rev, err = c.large(ctx, v, rev, g.modules, g.urls)
	} else if err == nil {
		c.largeDamaged, err = nil, c.forgetLarge(nil)
	}
	return rev, err
}

// gathering is the submodules of one revision.
type gathering struct {
	clone   *clone
	visit   *visit
	objects *tree.Objects
	top     plumbing.Hash
	modules tree.Modules
	// urls of the modules by their paths; that of the repository by "".
	urls map[string]string
}

// gather fetches the submodules that a revision shows and that are not known yet.
func (g *gathering) gather(ctx context.Context, rev revision.Revision) (found bool, err error) {
	files, err := rev.Tree.Files(ctx)
	if err != nil {
		return false, err
	}
	for _, f := range files {
		if f.Kind != revision.Submodule {
			continue
		}
		if err := g.add(ctx, f); err != nil {
			return false, fmt.Errorf("submodule %s: %w", f.Path, err)
		}
		found = true
	}
	return found, nil
}

func (g *gathering) add(ctx context.Context, f revision.File) error {
	if len(g.modules) >= maxModules {
		return fmt.Errorf("there are more than %d submodules; deploy a smaller folder, or list some in .berthignore", maxModules)
	}
	depth := 1
	for at := path.Dir(f.Path); at != "."; at = path.Dir(at) {
		if _, ok := g.modules[at]; ok {
			depth++
		}
	}
	if depth > maxModuleDepth {
		return fmt.Errorf("it lies more than %d submodules deep", maxModuleDepth)
	}
	raw, err := g.url(f.Path)
	if err != nil {
		return err
	}
	objects, err := g.fetch(ctx, raw, f.Hash)
	if err != nil {
		return fmt.Errorf("fetch %s: %w", display(raw), err)
	}
	g.modules[f.Path], g.urls[f.Path] = tree.Module{Objects: objects, Commit: plumbing.NewHash(f.Hash)}, raw
	return nil
}

// url is where .gitmodules says that a submodule is.
func (g *gathering) url(name string) (string, error) {
	objects, commit := g.objects, g.top
	at, enclosing, ok := g.modules.Enclosing(path.Dir(name))
	if ok {
		objects, commit = enclosing.Objects, enclosing.Commit
	}
	content, err := tree.ReadFile(objects, commit, ".gitmodules", maxModulesFile)
	if err != nil {
		return "", fmt.Errorf("read .gitmodules: %w", err)
	}
	listed := config.NewModules()
	if err := listed.Unmarshal(content); err != nil {
		return "", errors.New(".gitmodules is malformed")
	}
	within := strings.TrimPrefix(strings.TrimPrefix(name, at), "/")
	for _, m := range listed.Submodules {
		if m.Path == within && m.URL != "" {
			return relative(g.urls[at], m.URL)
		}
	}
	return "", errors.New(".gitmodules has no url for it; add it with git submodule add")
}

// relative resolves a URL that begins with ./ or ../ against that of the
// repository that names it.
func relative(base, raw string) (string, error) {
	if !strings.HasPrefix(raw, "./") && !strings.HasPrefix(raw, "../") {
		return raw, nil
	}
	u, err := v1alpha1.ParseURL(base)
	if err != nil {
		return "", err
	}
	u.Path = path.Join("/", u.Path, raw)
	return u.String(), nil
}

// fetch brings the clone of a submodule to a commit.
func (g *gathering) fetch(ctx context.Context, raw, commit string) (*tree.Objects, error) {
	v := g.visit
	remote, err := v.fetcher.remote(raw)
	if err != nil {
		return nil, err
	}
	if remote.file != "" {
		return nil, errors.New("a submodule must be on a server: give it an https or ssh URL in .gitmodules")
	}
	c := g.clone.module(raw)
	others := g.clone.taken() - diskSize(c.dir)
	src := &v1alpha1.Source{ObjectMeta: metav1.ObjectMeta{Name: v.src.Name, Namespace: v.src.Namespace}, Spec: v1alpha1.SourceSpec{
		URL: raw, Ref: v1alpha1.Ref{Commit: commit}, TargetNamespace: v.src.Spec.TargetNamespace,
		MaxSize: resource.NewQuantity(max(v.limit-others, 1), resource.BinarySI),
	}}
	switch {
	case sameHost(v.src.Spec.URL, raw):
		src.Spec.Credentials = v.src.Spec.Credentials
	case remote.endpoint.Protocol == "ssh":
		return nil, errors.New("it is on another host than the Source, whose key is not shown there; use an https URL that needs no credentials")
	}
	_, err = c.fetch(ctx, v.fetcher, src, remote)
	var large *ErrTooLarge
	if errors.As(err, &large) && large.Reached > 0 {
		return nil, overSize(v.limit, others+large.Reached)
	}
	if err != nil {
		return nil, err
	}
	return c.objects, nil
}

// sameHost: the credentials of one URL may be shown to the other.
func sameHost(a, b string) bool {
	one, err := v1alpha1.ParseURL(a)
	if err != nil {
		return false
	}
	other, err := v1alpha1.ParseURL(b)
	return err == nil && one.Scheme == other.Scheme && strings.EqualFold(hostPort(one), hostPort(other))
}

func hostPort(u *neturl.URL) string {
	if u.Port() != "" {
		return u.Host
	}
	return u.Hostname() + ":" + map[string]string{"https": "443", "http": "80", "ssh": "22"}[u.Scheme]
}

// module is the clone of a submodule.
func (c *clone) module(raw string) *clone {
	if c.modules == nil {
		c.modules = modules{}
	}
	m := c.modules[raw]
	if m == nil {
		sum := sha256.Sum256([]byte(raw))
		m = &clone{dir: filepath.Join(c.dir, "modules", hex.EncodeToString(sum[:8])), log: c.log.With("submodule", display(raw))}
		c.modules[raw] = m
	}
	return m
}

// taken is what the present clone takes of the disk, with its submodules and
// large files, in bytes.
func (c *clone) taken() int64 {
	return diskSize(c.generation(), filepath.Join(c.dir, "modules"), c.largeDir())
}

// forgetModules removes the clones of submodules that are at none of the URLs.
func (c *clone) forgetModules(urls map[string]string) error {
	used := map[string]bool{}
	for at, raw := range urls {
		if at != "" {
			used[filepath.Base(c.module(raw).dir)] = true
		}
	}
	for raw, m := range c.modules {
		if !used[filepath.Base(m.dir)] {
			m.close()
			delete(c.modules, raw)
		}
	}
	entries, err := os.ReadDir(filepath.Join(c.dir, "modules"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if !used[e.Name()] {
			err = errors.Join(err, os.RemoveAll(filepath.Join(c.dir, "modules", e.Name())))
		}
	}
	return err
}
