package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"net/http"
	"strings"
	"time"
)

//go:embed assets
var assetFiles embed.FS

// assets are the files that pages name, under names that change with the content.
type assets struct {
	byName map[string]asset
	hashed map[string]string
	// build is the same as long as no file changes.
	build string
}

type asset struct {
	data []byte
	hash string
}

func newAssets() assets {
	a := assets{byName: map[string]asset{}, hashed: map[string]string{}}
	all := sha256.New()
	for _, name := range []string{"style.css", "app.js", "icon.svg"} {
		data, err := assetFiles.ReadFile("assets/" + name)
		if err != nil {
			panic(err) // it is embedded
		}
		sum := sha256.Sum256(data)
		hash := hex.EncodeToString(sum[:6])
		stem, ext, _ := strings.Cut(name, ".")
		a.hashed[name] = stem + "." + hash + "." + ext
		a.byName[a.hashed[name]] = asset{data, hash}
		all.Write(sum[:])
	}
	a.build = hex.EncodeToString(all.Sum(nil)[:6])
	return a
}

// path is where a file is served.
func (a assets) path(name string) string { return "/assets/" + a.hashed[name] }

func (a assets) serve(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	file, ok := a.byName[name]
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	w.Header().Set("ETag", `"`+file.hash+`"`)
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(file.data))
}

// guarded sets what every answer says to browsers: run nothing that is not
// ours, keep nothing, show it in no frame.
func guarded(h http.Handler) http.Handler {
	const policy = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; " +
		"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Content-Security-Policy", policy)
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("X-Frame-Options", "DENY")
		header.Set("Referrer-Policy", "same-origin")
		header.Set("Cross-Origin-Opener-Policy", "same-origin")
		header.Set("Cross-Origin-Resource-Policy", "same-origin")
		header.Set("Cache-Control", "no-store")
		h.ServeHTTP(w, r)
	})
}
