package web

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"time"

	"berth.dev/berth/engine/access"
)

//go:embed templates
var templateFiles embed.FS

// picture is a model with the template that shows it.
type picture struct {
	Template string
	Title    string
	Model    any
	// Version is the same for the same content, whenever it is rendered.
	Version string
}

func newPicture(name, title string, model any) picture {
	data, err := json.Marshal(model)
	if err != nil {
		panic(fmt.Sprintf("model of %s: %v", name, err)) // models are plain data
	}
	sum := sha256.Sum256(data)
	return picture{Template: name, Title: title, Model: model, Version: hex.EncodeToString(sum[:8])}
}

// frame is what a template is given.
type frame struct {
	picture
	Now time.Time
	// The rest is only for the page around the content.
	User    access.User
	Stream  string
	Build   string
	Program string
	Content template.HTML
}

func parseTemplates(a assets) *template.Template {
	return template.Must(template.New("").Funcs(template.FuncMap{
		"asset": a.path,
		"ago":   func(now time.Time, w when) moment { return moment{w.Time, age(now, w.Time)} },
		"in":    func(now time.Time, v any) scope { return scope{now, v} },
		"count": count,
	}).ParseFS(templateFiles, "templates/*.html"))
}

// moment is a time with its age.
type moment struct {
	time.Time
	Age string
}

// scope hands the time on to a template within another.
type scope struct {
	Now time.Time
	V   any
}

// fragment renders the content of a page.
func (p *page) fragment(pic picture) (string, error) {
	return render(p.templates, pic, time.Now())
}

func render(t *template.Template, pic picture, now time.Time) (string, error) {
	var b bytes.Buffer
	if err := t.ExecuteTemplate(&b, pic.Template, frame{picture: pic, Now: now}); err != nil {
		return "", fmt.Errorf("render %s: %w", pic.Template, err)
	}
	return b.String(), nil
}

// show answers with a whole page.
func (p *page) show(w http.ResponseWriter, r *http.Request, status int, pic picture, u access.User, stream string) {
	content, err := p.fragment(pic)
	if err != nil {
		p.fault(w, r, err)
		return
	}
	var b bytes.Buffer
	err = p.templates.ExecuteTemplate(&b, "layout", frame{
		picture: pic, Now: time.Now(), User: u, Stream: stream, Build: p.assets.build, Program: p.Version,
		Content: template.HTML(content), // it comes out of html/template
	})
	if err != nil {
		p.fault(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // the reader is gone: nobody to tell
}

func overviewTitle(o overview) string {
	if o.Troubled > 0 {
		return fmt.Sprintf("(%d) Sources", o.Troubled)
	}
	return "Sources"
}

// base is the address of this server as the reader of a page wrote it.
func base(r *http.Request) string {
	scheme := "https"
	if r.TLS == nil {
		scheme = "http"
	}
	return scheme + "://" + cmp.Or(r.Host, "localhost")
}
