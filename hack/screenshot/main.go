// Command screenshot makes a picture of a page of a running server, for the
// documentation. It drives Debian's Chromium, logs in with a token, waits until
// the page is live, and writes a PNG.
package main

import (
	"context"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
)

type options struct {
	url, tokenFile, ca, out string
	dark, full              bool
	width, height           int64
	scale                   float64
}

func main() {
	var o options
	flag.StringVar(&o.url, "url", "https://127.0.0.1:7443/", "page to show")
	flag.StringVar(&o.tokenFile, "token-file", "/var/lib/berth/admin.token", "file with a token; empty shows the page without logging in")
	flag.StringVar(&o.ca, "ca", "", "certificate authority of the server; without it only a loopback address is trusted blindly")
	flag.StringVar(&o.out, "o", "", "PNG file to write")
	flag.BoolVar(&o.dark, "dark", false, "as a reader sees it who prefers dark pages")
	flag.BoolVar(&o.full, "full", true, "the whole page, not only what fits the window")
	flag.Int64Var(&o.width, "width", 1280, "width of the window in pixels")
	flag.Int64Var(&o.height, "height", 800, "height of the window in pixels")
	flag.Float64Var(&o.scale, "scale", 1, "device pixels per pixel")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "screenshot:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	if o.out == "" {
		return fmt.Errorf("say where to write it with -o FILE.png")
	}
	page, err := url.Parse(o.url)
	if err != nil || page.Host == "" {
		return fmt.Errorf("-url %q is not the address of a page", o.url)
	}
	if err := checkServer(ctx, page, o.ca); err != nil {
		return err
	}
	token := ""
	if o.tokenFile != "" {
		b, err := os.ReadFile(o.tokenFile)
		if err != nil {
			return fmt.Errorf("read the token: %w", err)
		}
		token = strings.TrimSpace(string(b))
	}
	png, err := shoot(ctx, o, page, token)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(o.out), 0o755); err != nil {
		return err
	}
	return os.WriteFile(o.out, png, 0o644)
}

// shoot runs a browser of its own, and ends it.
func shoot(ctx context.Context, o options, page *url.URL, token string) ([]byte, error) {
	profile, err := os.MkdirTemp("", "berth-screenshot-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(profile)
	flags := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath("/usr/bin/chromium"), chromedp.UserDataDir(profile), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("hide-scrollbars", true),
		chromedp.Flag("ignore-certificate-errors", true), // checkServer has looked at the certificate
	)
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	ctx, endBrowser := chromedp.NewExecAllocator(ctx, flags...)
	defer endBrowser()
	ctx, endTab := chromedp.NewContext(ctx)
	defer endTab()
	scheme := "light"
	if o.dark {
		scheme = "dark"
	}
	viewport := []chromedp.EmulateViewportOption{chromedp.EmulateScale(o.scale)}
	if o.width < 600 {
		viewport = append(viewport, chromedp.EmulateMobile)
	}
	err = chromedp.Do(ctx,
		chromedp.EmulateViewport(o.width, o.height, viewport...),
		prefers(scheme),
		loggedIn(page, token),
		chromedp.Navigate(page.String()),
		awaitLive(),
	)
	if err != nil {
		return nil, fmt.Errorf("show the page: %w", err)
	}
	if o.full {
		return chromedp.Run(ctx, chromedp.FullScreenshot(100))
	}
	return chromedp.Run(ctx, chromedp.CaptureScreenshot())
}

func prefers(scheme string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		return err
	})
}

// loggedIn sets the cookie that the login would.
func loggedIn(page *url.URL, token string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		if token == "" {
			return nil
		}
		_, err := cdp.Call(ctx, t, network.SetCookie, network.SetCookieParams{
			Name: "berth_token", Value: token, URL: page.Scheme + "://" + page.Host + "/",
		})
		return err
	})
}

// awaitLive waits until the page has its stream, where it has one.
func awaitLive() chromedp.Action[chromedp.Void] {
	const live = `!document.body.dataset.stream || document.getElementById("live").classList.contains("on")`
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		for {
			// The page's policy forbids what chromedp's own Poll does.
			if ok, err := chromedp.Evaluate[bool](live)(ctx, t); err != nil || ok {
				return err
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("the page did not get its stream: %w", ctx.Err())
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
}
