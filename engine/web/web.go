// Package web is the status page: what the Sources are doing, and everything
// they have in the cluster. It reads the shared views, and from the store the
// few kinds that are in no view; it changes nothing. Pages are rendered here and
// work without scripts; a small script takes newer renderings from a stream. A
// value out of a Secret never gets as far as a page's model.
package web

import (
	"context"
	"html/template"
	"log/slog"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/access"
	"berth.dev/berth/engine/live"
	"berth.dev/berth/engine/resources"
)

// Options are what the page is made of. All must be set.
type Options struct {
	Live      *live.Cluster
	Resources *resources.Resources
	Tokens    *access.Tokens
	Version   string
	Log       *slog.Logger
}

// syncWait is how long a request waits for the views of a server that has just
// been started.
const syncWait = 5 * time.Second

// page is the handler of all pages.
type page struct {
	Options
	hub       *hub
	assets    assets
	templates *template.Template
	// wrong holds the login attempts that are being slowed.
	wrong chan struct{}
	pace  pace
}

// pace is the timing of the page.
type pace struct {
	// between two renderings for one reader, at least.
	between time.Duration
	// beat is the longest silence on a stream.
	beat time.Duration
	// write is how long a reader may take to accept a rendering.
	write time.Duration
	// wrongToken is how long the answer to a wrong token takes.
	wrongToken time.Duration
}

// New makes the handler of the page and hooks it to the views, which must not
// be running yet.
func New(o Options) http.Handler {
	return newPage(o, pace{between: 200 * time.Millisecond, beat: 10 * time.Second, write: 10 * time.Second, wrongToken: 500 * time.Millisecond})
}

func newPage(o Options, timing pace) http.Handler {
	p := &page{Options: o, hub: newHub(o.Live), assets: newAssets(), wrong: make(chan struct{}, 16), pace: timing}
	p.templates = parseTemplates(p.assets)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", p.page(p.overview))
	mux.HandleFunc("GET /stream", p.live(p.streamOverview))
	mux.HandleFunc("GET /sources/{name}", p.page(p.source))
	mux.HandleFunc("GET /sources/{name}/stream", p.live(p.streamSource))
	mux.HandleFunc("GET /login", p.askToken)
	mux.HandleFunc("POST /login", p.login)
	mux.HandleFunc("POST /logout", p.logout)
	mux.HandleFunc("GET /assets/{name}", p.assets.serve)
	mux.HandleFunc("/", p.page(p.notFound))
	return guarded(http.NewCrossOriginProtection().Handler(mux))
}

type userHandler func(w http.ResponseWriter, r *http.Request, u access.User)

// page sends a reader who has not logged in to the login.
func (p *page) page(h userHandler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		u, ok := access.From(r.Context())
		if !ok {
			http.Redirect(w, r, loginURL(r.URL.RequestURI()), http.StatusSeeOther)
			return
		}
		p.synced(h)(w, r, u)
	}
}

// live is for what scripts ask for: they are told, not sent elsewhere.
func (p *page) live(h userHandler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		u, ok := access.From(r.Context())
		if !ok {
			http.Error(w, "log in first", http.StatusUnauthorized)
			return
		}
		p.synced(h)(w, r, u)
	}
}

// synced waits for the views, so that nobody takes a server that has just
// started for an empty one.
func (p *page) synced(h userHandler) userHandler {
	return func(w http.ResponseWriter, r *http.Request, u access.User) {
		ctx, cancel := context.WithTimeout(r.Context(), syncWait)
		defer cancel()
		v := p.Live
		if !live.Synced(ctx, v.Sources, v.Nodes, v.Namespaces, v.Pods, v.Services, v.EndpointSlices, v.Deployments, v.ReplicaSets, v.StatefulSets, v.DaemonSets, v.CronJobs, v.Claims, v.Jobs) {
			w.Header().Set("Retry-After", "1")
			http.Error(w, "Berth is starting; try again in a moment", http.StatusServiceUnavailable)
			return
		}
		h(w, r, u)
	}
}

func (p *page) overview(w http.ResponseWriter, r *http.Request, u access.User) {
	p.show(w, r, http.StatusOK, p.drawOverview(base(r)), u, "/stream")
}

func (p *page) drawOverview(base string) picture {
	model := overviewOf(p.Live.Sources.All(), p.Live.Nodes.All(), p.Live.Pods.All(), base)
	return newPicture("overview", overviewTitle(model), model)
}

func (p *page) source(w http.ResponseWriter, r *http.Request, u access.User) {
	name := r.PathValue("name")
	pic, err := p.screen(name, u, base(r), nil).draw(r.Context())
	if err != nil {
		p.fault(w, r, err)
		return
	}
	status := http.StatusOK
	if !pic.Model.(sourcePage).Found {
		status = http.StatusNotFound
	}
	p.show(w, r, status, pic, u, r.URL.EscapedPath()+"/stream")
}

func (p *page) fault(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		return
	}
	p.Log.Warn("render page", "path", r.URL.Path, "err", err)
	http.Error(w, "the page could not be made: "+err.Error(), http.StatusInternalServerError)
}

func (p *page) notFound(w http.ResponseWriter, r *http.Request, u access.User) {
	p.show(w, r, http.StatusNotFound, newPicture("notfound", "Not found", r.URL.Path), u, "")
}

// screen draws the page of one Source, again and again. What is in no view it
// reads anew when the Source has changed.
type screen struct {
	*page
	name, base string
	secretKeys bool
	// feed has the events; nil reads them each time.
	feed *feed

	version string
	stored  []stored
}

func (p *page) screen(name string, u access.User, base string, f *feed) *screen {
	return &screen{page: p, name: name, base: base, secretKeys: u.Role == access.Admin, feed: f}
}

func (s *screen) draw(ctx context.Context) (picture, error) {
	src, ok := s.Live.Sources.Get(types.NamespacedName{Name: s.name})
	if !ok {
		return s.picture(nil, owned{}, nil), nil
	}
	var err error
	if s.version != src.ResourceVersion {
		if s.stored, err = readStored(ctx, s.Resources, s.name, s.secretKeys); err != nil {
			return picture{}, err
		}
		s.version = src.ResourceVersion
	}
	var events []said
	if s.feed != nil {
		events = s.feed.events()
	} else if events, err = readEvents(ctx, s.Resources); err != nil {
		return picture{}, err
	}
	o := gather(s.Live, s.name)
	o.Stored = s.stored
	return s.picture(src, o, events), nil
}

func (s *screen) picture(src *v1alpha1.Source, o owned, events []said) picture {
	model := sourceOf(s.name, src, o, events, s.base)
	return newPicture("source", s.name+": "+model.State.Word, model)
}
