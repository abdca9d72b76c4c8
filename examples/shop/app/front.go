package main

import (
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"os"
	"strings"
	"time"
)

var page = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Shop</title>
<style>body{font:16px/1.5 system-ui;margin:3rem auto;max-width:36rem;padding:0 1rem}footer{color:#777}</style>
<h1>{{.Greeting}}</h1>
<p>{{.Notice}}</p>
{{if .Error}}<p>{{.Error}}</p>{{end}}
<ul>{{range .Products}}<li>{{.Name}}: {{.Cents}} cents</li>{{end}}</ul>
<footer>answered by {{.Host}}{{if .Backend}}, with the products of {{.Backend}}{{end}}</footer>
`))

// front is the web page.
type front struct {
	host     string
	greeting string
	notice   string // the file that holds the notice
	backend  string
	token    string
	client   *http.Client
}

// view is what the page and /api show. The token is no part of it.
type view struct {
	Host     string    `json:"host"`
	Backend  string    `json:"backend,omitempty"`
	Greeting string    `json:"greeting"`
	Notice   string    `json:"notice"`
	Products []product `json:"products"`
	Error    string    `json:"error,omitempty"`
}

// newFront is set up by GREETING, NOTICE_FILE, BACKEND_URL and TOKEN.
func newFront(env func(string) string) http.Handler {
	host, _ := os.Hostname()
	f := &front{
		host: host, greeting: env("GREETING"), notice: env("NOTICE_FILE"),
		backend: strings.TrimSuffix(env("BACKEND_URL"), "/"), token: env("TOKEN"),
		client: &http.Client{Timeout: 3 * time.Second},
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /api", func(w http.ResponseWriter, r *http.Request) {
		v := f.look(r)
		w.Header().Set("Content-Type", "application/json")
		if v.Error != "" {
			w.WriteHeader(http.StatusBadGateway)
		}
		_ = json.NewEncoder(w).Encode(v)
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_ = page.Execute(w, f.look(r))
	})
	return mux
}

// look gathers what there is to show. The notice is read each time: its file
// changes when the ConfigMap does.
func (f *front) look(r *http.Request) view {
	v := view{Host: f.host, Greeting: f.greeting}
	if f.notice != "" {
		if content, err := os.ReadFile(f.notice); err == nil {
			v.Notice = strings.TrimSpace(string(content))
		}
	}
	c, err := f.products(r)
	if err != nil {
		v.Error = "the backend does not answer: " + err.Error()
		return v
	}
	v.Backend, v.Products = c.Host, c.Products
	return v
}

func (f *front) products(r *http.Request) (catalogue, error) {
	var c catalogue
	req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, f.backend+"/products", nil)
	if err != nil {
		return c, err
	}
	req.Header.Set("Authorization", "Bearer "+f.token)
	resp, err := f.client.Do(req)
	if err != nil {
		return c, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return c, fmt.Errorf("it answers %s", resp.Status)
	}
	return c, json.NewDecoder(resp.Body).Decode(&c)
}
