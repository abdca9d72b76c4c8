package web

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/access"
	"berth.dev/berth/engine/live"
)

// stalled is a connection whose reader takes nothing: a write ends at its deadline.
type stalled struct {
	http.ResponseWriter
	deadline time.Time
	written  int
}

func (s *stalled) SetWriteDeadline(t time.Time) error {
	s.deadline = t
	return nil
}

func (s *stalled) Write(b []byte) (int, error) {
	if s.written++; s.written == 1 {
		return len(b), nil
	}
	if s.deadline.IsZero() {
		select {} // synctest reports a deadlock
	}
	time.Sleep(time.Until(s.deadline))
	return 0, os.ErrDeadlineExceeded
}

func (s *stalled) Flush() {}

func emptyPage(timing pace) (*page, *live.Cluster) {
	views := live.New()
	p := &page{Options: Options{Live: views, Log: slog.New(slog.DiscardHandler)}, hub: newHub(views), assets: newAssets(), wrong: make(chan struct{}, 2), pace: timing}
	p.templates = parseTemplates(p.assets)
	return p, views
}

func TestSlowReaderIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := emptyPage(pace{between: time.Second, beat: time.Minute, write: 7 * time.Second})
		start := time.Now()
		sub := p.hub.subscribe("")
		w := &stalled{ResponseWriter: httptest.NewRecorder()}
		p.stream(w, httptest.NewRequestWithContext(t.Context(), "GET", "/stream", nil), sub, func(context.Context) (picture, error) {
			return p.drawOverview("https://x"), nil
		})
		if took := time.Since(start); took != 7*time.Second {
			t.Errorf("the stream ended after %v, want 7s", took)
		}
	})
}

func TestStreamSpeaksInSilenceAndEndsWithTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := emptyPage(pace{between: time.Second, beat: 10 * time.Second, write: time.Second})
		ctx, end := context.WithTimeout(t.Context(), 35*time.Second)
		defer end()
		pic := p.drawOverview("https://x")
		w := httptest.NewRecorder()
		sub := p.hub.subscribe("")
		p.stream(w, httptest.NewRequestWithContext(ctx, "GET", "/stream?have="+pic.Version, nil), sub, func(context.Context) (picture, error) { return pic, nil })
		if got := strings.Count(w.Body.String(), "event: beat"); got != 4 || strings.Contains(w.Body.String(), "event: page") {
			t.Errorf("%d beats, want 4: %s", got, w.Body)
		}
	})
}

func TestWrongTokensWaitAndFewAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := emptyPage(pace{wrongToken: time.Second})
		p.Tokens = &access.Tokens{}
		codes := make(chan int, 3)
		start := time.Now()
		for range 3 {
			go func() {
				w := httptest.NewRecorder()
				r := httptest.NewRequestWithContext(t.Context(), "POST", "/login", strings.NewReader("token=guess"))
				r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
				p.login(w, r)
				codes <- w.Code
			}()
		}
		if first := <-codes; first != http.StatusTooManyRequests || time.Since(start) > 0 {
			t.Errorf("the third attempt got %d after %v", first, time.Since(start))
		}
		for range 2 {
			if code := <-codes; code != http.StatusForbidden || time.Since(start) != time.Second {
				t.Errorf("a wrong token got %d after %v", code, time.Since(start))
			}
		}
	})
}

func TestHubWakesOnlyThePagesThatAreMeant(t *testing.T) {
	p, views := emptyPage(pace{})
	shop, other, all := p.hub.subscribe("shop"), p.hub.subscribe("other"), p.hub.subscribe("")
	s := &v1alpha1.Source{}
	s.Name = "shop"
	views.Sources.Set(s)
	if len(shop.changed) != 1 || len(other.changed) != 0 || len(all.changed) != 1 {
		t.Errorf("woken: shop %d, other %d, overview %d", len(shop.changed), len(other.changed), len(all.changed))
	}
	p.hub.close(shop)
	for range limit - 2 {
		p.hub.subscribe("x")
	}
	if p.hub.subscribe("x") != nil {
		t.Error("more pages are open than may be")
	}
}
