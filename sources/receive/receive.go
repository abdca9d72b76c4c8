// Package receive is the built-in Git endpoint: smart HTTP for an unmodified
// git, with a gate that a push must pass before anything of it counts. It owns
// the bare repositories below its folder. It reads nothing of the cluster, and
// authenticates nobody: the handler is put behind what does.
package receive

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"berth.dev/berth/api/revision"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/sources/tree"
)

// Push is one ref that somebody wants to change.
type Push struct {
	// Repository is the name without .git.
	Repository string
	// Ref is the full name, such as refs/heads/main.
	Ref string
	// Old and New are commits; all zeros for a ref that is made or deleted.
	Old, New string
	User     string
	// At reads the pushed commit, limited to the folder path.
	At func(path string) (revision.Revision, error)
}

// Deletes reports whether the push removes the ref.
func (p Push) Deletes() bool { return plumbing.NewHash(p.New).IsZero() }

// Gate decides about pushes.
type Gate interface {
	// Check refuses a push with an error, whose text the user reads. So is
	// what it writes to out, as it is written. The pushed objects are readable
	// through p.At until Check returns.
	Check(ctx context.Context, p Push, out io.Writer) error
	// Accepted is called once the ref is on disk.
	Accepted(ctx context.Context, p Push)
}

// Options of a Server.
type Options struct {
	// Dir holds the repositories.
	Dir  string
	Gate Gate
	// User names who made a request.
	User func(*http.Request) string
	// AllowForce permits a push that rewrites history; nil means never.
	AllowForce func(user, repository, ref string) bool
	// MaxPack bounds the pack of one push, in bytes. Default 256 MiB.
	MaxPack int64
	// Timeout bounds one request. Default 10 minutes.
	Timeout time.Duration
	Log     *slog.Logger
}

// Server serves /git/<name>.git/.
type Server struct {
	opts  Options
	mu    sync.Mutex
	repos map[string]*repository
}

var _ http.Handler = (*Server)(nil)

// ErrNotFound says that nothing was pushed to a repository yet, or not that ref.
var ErrNotFound = errors.New("not found")

// New makes a Server over opts.Dir.
func New(opts Options) *Server {
	if opts.MaxPack == 0 {
		opts.MaxPack = 256 << 20
	}
	if opts.Timeout == 0 {
		opts.Timeout = 10 * time.Minute
	}
	if opts.User == nil {
		opts.User = func(*http.Request) string { return "" }
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{opts: opts, repos: map[string]*repository{}}
}

var validName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// ServeHTTP answers the three requests of smart HTTP.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, action, ok := strings.Cut(strings.TrimPrefix(r.URL.Path, "/git/"), ".git/")
	if !ok || !strings.HasPrefix(r.URL.Path, "/git/") || !validName.MatchString(name) {
		http.Error(w, "no such repository; the address is /git/NAME.git, and NAME has lower case letters, digits and -", http.StatusNotFound)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), s.opts.Timeout)
	defer cancel()
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(s.opts.Timeout))
	_ = control.SetWriteDeadline(time.Now().Add(s.opts.Timeout + time.Minute))
	w.Header().Set("Cache-Control", "no-cache")
	service := action
	if action == "info/refs" {
		service = r.URL.Query().Get("service")
	}
	if service != "git-upload-pack" && service != "git-receive-pack" {
		http.Error(w, "only git's smart HTTP is served here", http.StatusForbidden)
		return
	}
	repo, err := s.repository(name, service == "git-receive-pack" && action != "info/refs")
	if err != nil {
		s.opts.Log.Error("open the repository", "repository", name, "error", err)
		http.Error(w, "the repository cannot be opened", http.StatusInternalServerError)
		return
	}
	switch {
	case action == "info/refs" && r.Method == http.MethodGet:
		s.advertise(w, repo, service)
	case action == "git-upload-pack" && r.Method == http.MethodPost:
		s.serve(ctx, w, r, repo, s.upload)
	case action == "git-receive-pack" && r.Method == http.MethodPost:
		s.serve(ctx, w, r, repo, s.receive)
	default:
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
	}
}

type service func(ctx context.Context, w *response, body io.Reader, repo *repository, user string) error

func (s *Server) serve(ctx context.Context, w http.ResponseWriter, r *http.Request, repo *repository, f service) {
	kind := strings.TrimPrefix(r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:], "git-")
	if r.Header.Get("Content-Type") != "application/x-git-"+kind+"-request" {
		http.Error(w, "unexpected content type", http.StatusUnsupportedMediaType)
		return
	}
	var body io.Reader = r.Body
	if r.Header.Get("Content-Encoding") == "gzip" {
		unzipped, err := gzip.NewReader(r.Body)
		if err != nil {
			http.Error(w, "the body is not gzip", http.StatusBadRequest)
			return
		}
		body = unzipped
	}
	w.Header().Set("Content-Type", "application/x-git-"+kind+"-result")
	out := &response{w: w, control: http.NewResponseController(w)}
	if err := f(ctx, out, body, repo, s.opts.User(r)); err != nil {
		s.opts.Log.Info("git request failed", "repository", repo.name, "service", kind, "error", err)
		if !out.began {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	}
}

// repository opens a repository, and makes it if create is set; nil if there is none.
func (s *Server) repository(name string, create bool) (*repository, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.repos[name]; r != nil {
		return r, nil
	}
	dir := filepath.Join(s.opts.Dir, name+".git")
	if _, err := os.Stat(filepath.Join(dir, "HEAD")); err != nil {
		if !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		if !create {
			return &repository{name: name}, nil
		}
		if err := initialise(dir); err != nil {
			return nil, err
		}
	}
	r, err := openRepository(name, dir)
	if err != nil {
		return nil, err
	}
	s.repos[name] = r
	return r, nil
}

// Repositories lists the names that were pushed to, sorted.
func (s *Server) Repositories() ([]string, error) {
	entries, err := os.ReadDir(s.opts.Dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the repositories: %w", err)
	}
	var out []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".git"); ok && validName.MatchString(name) {
			out = append(out, name)
		}
	}
	sort.Strings(out)
	return out, nil
}

// Revision reads what was pushed. A repository or ref that is not there is ErrNotFound.
func (s *Server) Revision(ctx context.Context, name string, ref v1alpha1.Ref, path string) (revision.Revision, error) {
	if !validName.MatchString(name) {
		return revision.Revision{}, fmt.Errorf("repository %q: %w", name, ErrNotFound)
	}
	repo, err := s.repository(name, false)
	if err != nil {
		return revision.Revision{}, err
	}
	if repo.objects == nil {
		return revision.Revision{}, fmt.Errorf("repository %s: nothing was pushed yet: %w", name, ErrNotFound)
	}
	full := "refs/heads/main"
	switch {
	case ref.Commit != "":
		return tree.Revision(ctx, repo.objects, plumbing.NewHash(ref.Commit), path)
	case ref.Tag != "":
		full = "refs/tags/" + ref.Tag
	case ref.Branch != "":
		full = "refs/heads/" + ref.Branch
	}
	refs, err := repo.refs()
	if err != nil {
		return revision.Revision{}, err
	}
	hash, ok := refs[full]
	if !ok {
		return revision.Revision{}, fmt.Errorf("%s in the repository %s: %w", full, name, ErrNotFound)
	}
	rev, err := tree.Revision(ctx, repo.objects, hash, path)
	rev.Ref = full
	return rev, err
}
