package web_test

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"

	"berth.dev/berth/api/event"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/enginetest"
)

func TestWhoHasNotLoggedInSeesNothing(t *testing.T) {
	s := newSite(t)
	for path, want := range map[string]string{
		"/":                   "/login",
		"/sources/shop":       "/login?next=%2Fsources%2Fshop",
		"/anything/at/all?x=": "/login?next=%2Fanything%2Fat%2Fall%3Fx%3D",
		"//evil.example/x":    "", // the mux cleans it first, or it leads to the overview
	} {
		resp, body := s.get(t, path, "")
		got := resp.Header.Get("Location")
		if want == "" {
			if strings.Contains(got, "next=%2F%2F") || strings.HasPrefix(got, "//") {
				t.Errorf("%s leads to %s", path, got)
			}
			continue
		}
		if resp.StatusCode != http.StatusSeeOther || got != want || strings.Contains(body, "Sources") {
			t.Errorf("%s: %d to %q, want %q", path, resp.StatusCode, got, want)
		}
	}
	for _, path := range []string{"/stream", "/sources/shop/stream"} {
		if resp, _ := s.get(t, path, ""); resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: %d, want 401", path, resp.StatusCode)
		}
	}
}

func (s *site) login(t *testing.T, origin, token, next string) (*http.Response, string) {
	t.Helper()
	form := url.Values{"token": {token}, "next": {next}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.server.URL+"/login", strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Sec-Fetch-Site", origin)
	return s.do(t, req)
}

func TestLogin(t *testing.T) {
	s := newSite(t)
	for _, test := range []struct {
		name, origin, token, next string
		status                    int
		location, text            string
	}{
		{"right token", "same-origin", s.admin, "/sources/shop", 303, "/sources/shop", ""},
		{"pasted with a line end", "same-origin", " " + s.admin + "\n", "", 303, "/", ""},
		{"elsewhere", "same-origin", s.admin, "https://evil.example/", 303, "/", ""},
		{"elsewhere without a scheme", "same-origin", s.admin, "//evil.example/", 303, "/", ""},
		{"wrong token", "same-origin", "guess", "/sources/shop", 403, "", "This token is not valid"},
		{"no token", "same-origin", "", "/", 400, "", "Enter a token"},
		{"posted by another site", "cross-site", s.admin, "/", 403, "", ""},
	} {
		resp, body := s.login(t, test.origin, test.token, test.next)
		if resp.StatusCode != test.status || resp.Header.Get("Location") != test.location || !strings.Contains(body, test.text) {
			t.Errorf("%s: %d to %q: %s", test.name, resp.StatusCode, resp.Header.Get("Location"), body)
		}
		if in := len(resp.Cookies()) > 0; in != (test.status == 303) {
			t.Errorf("%s: cookie set is %v", test.name, in)
		}
		if strings.Contains(body, "guess") {
			t.Errorf("%s: the answer repeats the token", test.name)
		}
	}
	resp, _ := s.login(t, "same-origin", s.viewer, "/")
	c := resp.Cookies()[0]
	if !c.HttpOnly || !c.Secure || c.SameSite != http.SameSiteStrictMode {
		t.Errorf("cookie is %+v", c)
	}
	if resp, _ := s.get(t, "/login?next=/sources/x", s.admin); resp.Header.Get("Location") != "/sources/x" {
		t.Errorf("who is logged in is asked again: %d", resp.StatusCode)
	}
}

func TestLogoutRemovesTheCookie(t *testing.T) {
	s := newSite(t)
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, s.server.URL+"/logout", nil)
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	resp, _ := s.do(t, req)
	if c := resp.Cookies(); resp.Header.Get("Location") != "/login" || len(c) != 1 || c[0].MaxAge >= 0 {
		t.Errorf("logout: %d, %+v", resp.StatusCode, c)
	}
}

func TestHeadersKeepPagesToThemselves(t *testing.T) {
	s := newSite(t)
	resp, body := s.get(t, "/", s.admin)
	policy := resp.Header.Get("Content-Security-Policy")
	for _, part := range []string{"default-src 'none'", "frame-ancestors 'none'", "script-src 'self'", "base-uri 'none'"} {
		if !strings.Contains(policy, part) {
			t.Errorf("policy %q lacks %s", policy, part)
		}
	}
	if h := resp.Header; h.Get("Cache-Control") != "no-store" || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") == "" {
		t.Errorf("headers are %v", h)
	}
	if strings.Contains(body, "style=") || strings.Contains(body, "onclick") || strings.Contains(body, "<style") {
		t.Error("the page holds what its policy forbids")
	}
	_, rest, _ := strings.Cut(body, `href="/assets/style.`)
	name, _, _ := strings.Cut(rest, `"`)
	resp, css := s.get(t, "/assets/style."+name, "")
	if resp.StatusCode != 200 || !strings.Contains(css, "prefers-color-scheme") || !strings.Contains(resp.Header.Get("Cache-Control"), "immutable") || resp.Header.Get("ETag") == "" {
		t.Errorf("style sheet: %d %v", resp.StatusCode, resp.Header)
	}
	if resp, _ := s.get(t, "/assets/style.css", ""); resp.StatusCode != http.StatusNotFound {
		t.Errorf("an asset without its hash: %d", resp.StatusCode)
	}
}

func TestEmptyServerTellsHowToPush(t *testing.T) {
	s := newSite(t)
	_, body := s.get(t, "/", s.admin)
	if want := "git remote add berth " + s.server.URL + "/git/shop.git"; !strings.Contains(body, want) {
		t.Errorf("the page lacks %q", want)
	}
	resp, body := s.get(t, "/sources/later", s.admin)
	if resp.StatusCode != http.StatusNotFound || !strings.Contains(body, "No Source named later") {
		t.Errorf("unknown Source: %d", resp.StatusCode)
	}
}

func TestPageShowsWhatASourceHas(t *testing.T) {
	s := newSite(t)
	s.seed(t)
	rec := &event.Recorder{Client: s, Component: "test", Clock: clock.RealClock{}, Log: enginetest.Log(t)}
	var src v1alpha1.Source
	if err := s.Get(t.Context(), key("shop"), &src); err != nil {
		t.Fatal(err)
	}
	rec.Warning(t.Context(), v1alpha1.GroupVersion.WithKind("Source"), &src, "PruneHeld", "would delete everything")
	_, body := s.get(t, "/sources/shop", s.admin)
	for _, part := range []string{
		"Greet customers by name", "Ada Park", "4f1c9a7be2", "612 ms", "branch main, folder deploy", "deploy/shop.cue:30",
		"3 of 3 ready", "registry.example/shop:1.4.2", "quay-1", "GREETING, currency", "api-key", "would delete everything", "Successfully assigned",
	} {
		if !strings.Contains(body, part) {
			t.Errorf("the page lacks %q", part)
		}
	}
	if strings.Contains(body, "unmanaged") {
		t.Error("the page shows an object that is not the Source's")
	}
	_, overview := s.get(t, "/", s.viewer)
	for _, part := range []string{"/sources/shop", "Ready", "quay-1", "/git/shop.git"} {
		if !strings.Contains(overview, part) {
			t.Errorf("the overview lacks %q", part)
		}
	}
	_, seen := s.get(t, "/sources/shop", s.viewer)
	if strings.Contains(seen, "api-key") || !strings.Contains(seen, "payments") || !strings.Contains(seen, "1 key") {
		t.Error("a viewer is to see the number of a Secret's keys, and no name")
	}
}

func TestNoAnswerHoldsASecret(t *testing.T) {
	s := newSite(t)
	s.seed(t)
	for _, token := range []string{s.admin, s.viewer, ""} {
		for _, path := range []string{"/", "/sources/shop", "/sources/none", "/login", "/nothing"} {
			resp, body := s.get(t, path, token)
			if strings.Contains(body, secretValue) || strings.Contains(body, "Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5") {
				t.Errorf("%s (%d) holds the value of a Secret", path, resp.StatusCode)
			}
			if token != "" && strings.Contains(body, token) {
				t.Errorf("%s holds the reader's token", path)
			}
		}
		if token == "" {
			continue
		}
		for _, path := range []string{"/stream", "/sources/shop/stream"} {
			if u := s.listen(t, path, token).next(t); strings.Contains(u.raw, secretValue) {
				t.Errorf("%s holds the value of a Secret", path)
			}
		}
	}
}

// updates is an open stream.
type updates struct{ lines *bufio.Scanner }

type received struct{ Version, Title, HTML, raw string }

func (s *site) listen(t *testing.T, path, token string) *updates {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.server.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.AddCookie(&http.Cookie{Name: "berth_token", Value: token})
	resp, err := s.browser.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); resp.Body.Close() })
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != 200 || got != "text/event-stream" {
		t.Fatalf("stream: %d %s", resp.StatusCode, got)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	return &updates{lines}
}

// next is the next rendering.
func (u *updates) next(t *testing.T) received {
	t.Helper()
	isPage := false
	for u.lines.Scan() {
		if name, ok := strings.CutPrefix(u.lines.Text(), "event: "); ok {
			isPage = name == "page"
		}
		data, ok := strings.CutPrefix(u.lines.Text(), "data: ")
		if !ok || !isPage {
			continue
		}
		r := received{raw: u.lines.Text()}
		if err := json.Unmarshal([]byte(data), &r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	t.Fatalf("the stream ended: %v", u.lines.Err())
	return received{}
}

// settled is the version of a page once all that was seeded is on it.
func (s *site) settled(t *testing.T, path string) string {
	t.Helper()
	last, since := "", time.Now()
	for end := time.Now().Add(wait); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		_, body := s.get(t, path, s.admin)
		_, rest, _ := strings.Cut(body, `data-version="`)
		now, _, _ := strings.Cut(rest, `"`)
		if now != last {
			last, since = now, time.Now()
		} else if time.Since(since) > 500*time.Millisecond {
			return now
		}
	}
	t.Fatal("the page does not settle")
	return ""
}

func TestStreamSendsARenderingWhenThePageChanges(t *testing.T) {
	s := newSite(t)
	s.seed(t)
	have := s.settled(t, "/sources/shop")
	u := s.listen(t, "/sources/shop/stream?have="+have, s.admin)
	overview := s.listen(t, "/stream", s.admin)
	overview.next(t)
	// Another Source is no change of this page.
	s.create(t, &v1alpha1.Source{ObjectMeta: metav1.ObjectMeta{Name: "other"}})
	s.degrade(t, "shop", "Deployment shop/web: image not found")
	got := u.next(t)
	if got.Version == have || !strings.Contains(got.HTML, "image not found") || !strings.HasPrefix(got.Title, "shop: Degraded") {
		t.Errorf("the first rendering is %s: %s", got.Title, got.HTML)
	}
	for !strings.Contains(overview.next(t).HTML, "image not found") {
	}
	rec := &event.Recorder{Client: s, Component: "test", Clock: clock.RealClock{}, Log: enginetest.Log(t)}
	var svc corev1.Service
	if err := s.Get(t.Context(), nsKey("shop", "web"), &svc); err != nil {
		t.Fatal(err)
	}
	rec.Normal(t.Context(), corev1.SchemeGroupVersion.WithKind("Service"), &svc, "Noted", "something was said")
	for !strings.Contains(u.next(t).HTML, "something was said") {
	}
}

func TestStreamIsSilentWhenNothingChanges(t *testing.T) {
	s := newSite(t)
	s.seed(t)
	u := s.listen(t, "/sources/shop/stream", s.admin)
	first := u.next(t)
	same := s.listen(t, "/sources/shop/stream?have="+first.Version, s.admin)
	s.degrade(t, "shop", "changed")
	if got := same.next(t); !strings.Contains(got.HTML, "changed") {
		t.Errorf("a reader who has the newest rendering was sent it again: %s", got.Title)
	}
}

func TestStreamIsNotHurried(t *testing.T) {
	s := newSite(t)
	s.seed(t)
	u := s.listen(t, "/sources/shop/stream", s.admin)
	u.next(t)
	start := time.Now()
	for i := range 40 {
		s.degrade(t, "shop", strings.Repeat("x", i+1)+" end")
	}
	took := time.Since(start)
	renderings := 1
	for !strings.Contains(u.next(t).HTML, strings.Repeat("x", 40)+" end") {
		renderings++
	}
	if limit := int(took/(200*time.Millisecond)) + 2; renderings > limit {
		t.Errorf("%d renderings in %v, want at most %d", renderings, took, limit)
	}
}

func TestHostileTextIsShownAsText(t *testing.T) {
	s := newSite(t)
	s.seed(t)
	const hostile = "<script>alert(1)</script>\r\n\r\nevent: page\r\ndata: {\"HTML\":\"owned\"}\n\n\"><img src=x onerror=alert(2)>"
	status := readyStatus(time.Now())
	status.Observed.Subject, status.Observed.Author = hostile, hostile
	status.Diagnostics = []v1alpha1.Diagnostic{{Severity: "error", Path: hostile, Line: 1, Column: 1, Object: hostile, Field: hostile, Message: hostile}}
	s.setStatus(t, "shop", status)
	s.degrade(t, "shop", hostile)
	for _, path := range []string{"/", "/sources/shop"} {
		enginetest.Eventually(t, wait, func() string {
			_, body := s.get(t, path, s.admin)
			if strings.Contains(body, "<script>alert") || strings.Contains(body, "<img src=x") {
				t.Fatalf("%s runs hostile text", path)
			}
			if !strings.Contains(body, "&lt;script&gt;alert(1)") {
				return "the subject is not shown"
			}
			return ""
		})
	}
	u := s.listen(t, "/sources/shop/stream", s.admin).next(t)
	if u.HTML == "owned" || strings.Contains(u.HTML, "<script>alert") || !strings.Contains(u.HTML, "&lt;script&gt;") {
		t.Errorf("the stream was taken over: %s", u.raw)
	}
}
