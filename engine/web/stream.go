package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/access"
)

func (p *page) streamOverview(w http.ResponseWriter, r *http.Request, _ access.User) {
	sub := p.hub.subscribe("")
	if sub == nil {
		tooMany(w)
		return
	}
	defer p.hub.close(sub)
	at := base(r)
	p.stream(w, r, sub, func(context.Context) (picture, error) { return p.drawOverview(at), nil })
}

func (p *page) streamSource(w http.ResponseWriter, r *http.Request, u access.User) {
	name := r.PathValue("name")
	sub := p.hub.subscribe(name)
	if sub == nil {
		tooMany(w)
		return
	}
	defer p.hub.close(sub)
	f := &feed{sub: sub, complete: make(chan struct{}), said: map[types.NamespacedName]said{}}
	ctx, cancel := context.WithCancel(r.Context())
	var following sync.WaitGroup
	following.Go(func() {
		if err := client.Follow(ctx, p.Resources, &corev1.EventList{}, client.ListOptions{}, f); err != nil {
			p.Log.Warn("follow events", "err", err)
			cancel()
		}
	})
	defer following.Wait()
	defer cancel()
	select {
	case <-f.complete:
		p.stream(w, r, sub, p.screen(name, u, base(r), f).draw)
	case <-ctx.Done():
	}
}

func tooMany(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "10")
	http.Error(w, "too many pages are open", http.StatusServiceUnavailable)
}

// update is a rendering on its way to a reader.
type update struct {
	Version string `json:"version"`
	// Build changes with the program: the page around the rendering is then old.
	Build string `json:"build"`
	Title string `json:"title"`
	HTML  string `json:"html"`
}

// stream sends a rendering whenever it differs from the one that the reader
// has, until the reader leaves, is too slow, or the server ends.
func (p *page) stream(w http.ResponseWriter, r *http.Request, sub *subscription, draw func(context.Context) (picture, error)) {
	ctx := r.Context()
	out := &sender{w: w, control: http.NewResponseController(w), patience: p.pace.write}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // proxies hold streams back otherwise
	if !out.send("retry: 1000\nevent: beat\ndata: {}\n\n") {
		return
	}
	beat := time.NewTicker(p.pace.beat)
	defer beat.Stop()
	have := r.URL.Query().Get("have")
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		have = id
	}
	for {
		pic, err := draw(ctx)
		if err != nil {
			if ctx.Err() == nil {
				p.Log.Warn("render page", "path", r.URL.Path, "err", err)
			}
			return
		}
		if pic.Version != have {
			text, err := p.encode(pic)
			if err != nil {
				p.Log.Warn("render page", "path", r.URL.Path, "err", err)
				return
			}
			if !out.send(text) {
				return
			}
			have = pic.Version
		}
		if !pause(ctx, p.pace.between) {
			return
		}
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				return
			case <-sub.changed:
				waiting = false
			case <-beat.C:
				if !out.send("event: beat\ndata: {}\n\n") {
					return
				}
			}
		}
	}
}

// encode is a rendering as an event. JSON keeps line ends, which would end the
// event, out of it.
func (p *page) encode(pic picture) (string, error) {
	html, err := p.fragment(pic)
	if err != nil {
		return "", err
	}
	data, err := json.Marshal(update{Version: pic.Version, Build: p.assets.build, Title: pic.Title, HTML: html})
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("id: %s\nevent: page\ndata: %s\n\n", pic.Version, data), nil
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// sender writes to a reader who must keep up.
type sender struct {
	w        io.Writer
	control  *http.ResponseController
	patience time.Duration
}

// send is false when the reader is gone or too slow.
func (s *sender) send(text string) bool {
	if err := s.control.SetWriteDeadline(time.Now().Add(s.patience)); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return false
	}
	if _, err := io.WriteString(s.w, text); err != nil {
		return false
	}
	if err := s.control.Flush(); err != nil {
		return false
	}
	// The connection may serve other requests later.
	err := s.control.SetWriteDeadline(time.Time{})
	return err == nil || errors.Is(err, errors.ErrUnsupported)
}

// feed follows all events for one reader.
type feed struct {
	sub      *subscription
	complete chan struct{}

	mu   sync.Mutex
	said map[types.NamespacedName]said
}

var _ client.Follower = (*feed)(nil)

// Synced implements client.Follower.
func (f *feed) Synced() { close(f.complete) }

// Set implements client.Follower.
func (f *feed) Set(obj client.Object) {
	f.mu.Lock()
	f.said[client.Key(obj)] = saidOf(obj.(*corev1.Event))
	f.mu.Unlock()
	f.sub.signal()
}

// Gone implements client.Follower.
func (f *feed) Gone(obj client.Object) {
	f.mu.Lock()
	delete(f.said, client.Key(obj))
	f.mu.Unlock()
	f.sub.signal()
}

func (f *feed) events() []said {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]said, 0, len(f.said))
	for _, e := range f.said {
		out = append(out, e)
	}
	return out
}
