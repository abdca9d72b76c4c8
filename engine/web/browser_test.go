package web_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"berth.dev/berth/api/v1alpha1"
)

const chromium = "/usr/bin/chromium"

// tab is a page in a browser of its own, which ends with the test.
type tab struct{ ctx context.Context }

func openBrowser(t *testing.T) tab {
	t.Helper()
	if _, err := os.Stat(chromium); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is missing: apt-get install chromium", chromium)
		}
		t.Skipf("%s is missing; to run this test: apt-get install chromium", chromium)
	}
	flags := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(chromium), chromedp.UserDataDir(t.TempDir()), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.IgnoreCertErrors,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
	)
	limited, expire := context.WithTimeout(context.Background(), 2*time.Minute)
	allocator, endBrowser := chromedp.NewExecAllocator(limited, flags...)
	ctx, _ := chromedp.NewContext(allocator)
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil {
			t.Errorf("end the browser: %v", err)
		}
		endBrowser()
		expire()
	})
	return tab{ctx}
}

func (b tab) do(t *testing.T, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		t.Fatal(err)
	}
}

// ask evaluates an expression in the page.
func ask[T any](t *testing.T, b tab, expression string) T {
	t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// await waits until an expression is true in the page. The page's policy
// forbids what chromedp.Poll does.
func (b tab) await(t *testing.T, expression string) {
	t.Helper()
	var last error
	for deadline := time.Now().Add(wait); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		ok, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool](expression))
		if ok && err == nil {
			return
		}
		last = err // a page that is being left has nothing to ask
	}
	body, _ := chromedp.Run(b.ctx, chromedp.Evaluate[string](`location.href + "\n" + document.body.innerText`))
	t.Fatalf("never true: %s (%v); the page is %s", expression, last, body)
}

func (b tab) says(t *testing.T, text string) {
	t.Helper()
	b.await(t, fmt.Sprintf(`document.body.innerText.includes(%q)`, text))
}

func (b tab) prefers(scheme string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		return err
	})
}

const isLive = `document.getElementById("live").classList.contains("on")`

func TestBrowser(t *testing.T) {
	s := newSite(t)
	s.seed(t)
	b := openBrowser(t)

	// A wrong token, then the right one: back to the page that was asked for.
	b.do(t, chromedp.Navigate(s.server.URL+"/sources/shop"))
	enter := func(token string) {
		ask[bool](t, b, fmt.Sprintf(`(() => { document.getElementById("token").value = %q; document.querySelector("button.main").click(); return true; })()`, token))
	}
	enter("guess")
	b.says(t, "This token is not valid")
	enter(s.admin)
	b.await(t, `location.pathname === "/sources/shop"`)
	b.says(t, "Greet customers by name")
	b.await(t, isLive)

	// What happens on the server is seen without a reload, and what the reader
	// has opened stays open.
	ask[bool](t, b, `(() => { window.stayed = true; const d = document.querySelector("details"); if (d) d.open = true; return true; })()`)
	opened := ask[bool](t, b, `!!document.querySelector("details")`)
	s.degrade(t, "shop", "Deployment shop/web: the image is gone")
	b.says(t, "the image is gone")
	b.await(t, `document.getElementById("state").innerText === "Degraded" && document.title.startsWith("shop: Degraded")`)
	if !ask[bool](t, b, `window.stayed === true`) {
		t.Error("the page was reloaded")
	}
	if opened && !ask[bool](t, b, `document.querySelector("details").open`) {
		t.Error("a fold that the reader opened was closed")
	}
	if n := ask[int](t, b, `document.querySelectorAll("main").length`); n != 1 {
		t.Errorf("the page has %d contents", n)
	}

	t.Run("overview", func(t *testing.T) {
		b.do(t, chromedp.Navigate(s.server.URL+"/"))
		b.await(t, isLive)
		s.create(t, &v1alpha1.Source{ObjectMeta: metav1.ObjectMeta{Name: "newcomer"}})
		b.says(t, "newcomer")
	})
	t.Run("phone", func(t *testing.T) {
		b.do(t, chromedp.EmulateViewport(375, 800, chromedp.EmulateMobile, chromedp.EmulateTouch))
		for _, path := range []string{"/", "/sources/shop", "/sources/none"} {
			b.do(t, chromedp.Navigate(s.server.URL+path))
			b.await(t, isLive)
			if w := ask[int](t, b, `document.documentElement.scrollWidth`); w > 375 {
				t.Errorf("%s is %d pixels wide", path, w)
			}
			small := ask[string](t, b, `[...document.querySelectorAll("button, .crumbs a, .card h2 a, summary")].filter((e) => e.getClientRects().length && e.getBoundingClientRect().height < 44).map((e) => e.innerText).join(", ")`)
			if small != "" {
				t.Errorf("%s: too small to tap: %s", path, small)
			}
		}
	})
	t.Run("dark", func(t *testing.T) {
		light := ask[string](t, b, `getComputedStyle(document.body).backgroundColor`)
		b.do(t, b.prefers("dark"))
		b.await(t, fmt.Sprintf(`getComputedStyle(document.body).backgroundColor !== %q && getComputedStyle(document.body).backgroundColor === "rgb(14, 18, 23)"`, light))
	})
	t.Run("lost", func(t *testing.T) {
		b.do(t, chromedp.Navigate(s.server.URL+"/sources/shop"))
		b.await(t, isLive)
		s.refuse.Store(true)
		s.server.CloseClientConnections()
		b.await(t, `!document.getElementById("lost").hidden && document.getElementById("lost").innerText.includes("reconnecting")`)
		s.degrade(t, "shop", "said while nobody listened")
		s.refuse.Store(false)
		b.says(t, "said while nobody listened")
		b.await(t, `document.getElementById("lost").hidden`)
	})
}
