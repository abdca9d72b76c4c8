package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/live"
	"berth.dev/berth/engine/plan"
	"berth.dev/berth/engine/sync"
	"berth.dev/berth/nodeagent"
	"berth.dev/berth/sources/archive"
)

// maxImage bounds an image archive, in bytes.
const maxImage = 8 << 30

// endpoints are the calls of our own tools that Kubernetes' API has no place for.
type endpoints struct {
	engine *sync.Engine
	views  *live.Cluster
	agent  *nodeagent.Agent
	log    *slog.Logger
}

// planAnswer is what a working tree would change.
type planAnswer struct {
	Source   string          `json:"source"`
	Plan     json.RawMessage `json:"plan,omitempty"`
	Text     string          `json:"text,omitempty"`
	Markdown string          `json:"markdown,omitempty"`
	Changes  bool            `json:"changes"`
	Held     string          `json:"held,omitempty"`
	// Later says why it would be applied later.
	Later string `json:"later,omitempty"`
	// Against is the commit that was compared with, instead of the cluster.
	Against     string                `json:"against,omitempty"`
	Diagnostics []v1alpha1.Diagnostic `json:"diagnostics,omitempty"`
}

// plan compiles the tree in the body and compares it with the cluster.
func (e *endpoints) plan(w http.ResponseWriter, r *http.Request) {
	rev, err := archive.Read(r.Body, archive.MaxBytes)
	if err != nil {
		http.Error(w, "read the working tree: "+err.Error(), http.StatusBadRequest)
		return
	}
	name := r.URL.Query().Get("source")
	src, ok := e.views.Sources.Get(types.NamespacedName{Name: name})
	if !ok {
		src = &v1alpha1.Source{ObjectMeta: metav1.ObjectMeta{Name: name}}
		v1alpha1.SetDefaults(src)
		if errs := v1alpha1.Validate(src); len(errs) > 0 {
			http.Error(w, fmt.Sprintf("%q cannot be the name of a Source (lower case letters, digits and -): name one with --source", name), http.StatusBadRequest)
			return
		}
	}
	if path := r.URL.Query().Get("path"); path != "" {
		src = src.DeepCopy()
		src.Spec.Path = path
	}
	out, err := e.engine.Check(r.Context(), src, rev)
	if err != nil {
		e.log.Warn("plan", "source", name, "err", err)
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	answer := planAnswer{Source: name, Diagnostics: out.Diagnostics}
	if !out.Failed() {
		answer.Plan, err = json.Marshal(out.Plan)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		answer.render(out.Plan, r.URL.Query().Get("verbose") == "true")
		answer.Held, answer.Later = out.Held, out.Later.Message
	}
	reply(w, answer)
}

// render fills in what people read of a plan.
func (a *planAnswer) render(p plan.Plan, verbose bool) {
	a.Changes = !p.Empty() || len(p.Hooks) > 0
	if verbose {
		a.Text, a.Markdown = p.TextVerbose(), p.MarkdownVerbose()
		return
	}
	a.Text, a.Markdown = p.Text(), p.Markdown()
}

// images imports the archive in the body.
func (e *endpoints) images(w http.ResponseWriter, r *http.Request) {
	if e.agent == nil {
		http.Error(w, "this server has no agent, so it has no images: load it at the servers of the nodes (berth up)", http.StatusServiceUnavailable)
		return
	}
	names, err := e.agent.LoadImage(r.Context(), http.MaxBytesReader(w, r.Body, maxImage))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	reply(w, map[string]any{"images": names})
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client is gone: nobody to tell
}
