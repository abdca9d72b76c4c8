package authorize

import (
	"net/http"
	"net/url"
	"strings"

	"k8s.io/apimachinery/pkg/fields"
)

// Attributes are what of a request decides whether it is allowed. A request is
// for a resource, or else for a Path.
type Attributes struct {
	// Verb in Kubernetes' words, such as get, list or deletecollection.
	Verb string
	// Group of the resource; empty for the core group.
	Group       string
	Version     string
	Resource    string
	Subresource string
	// Namespace is empty for what is in none, and for all of them.
	Namespace string
	// Name is also that of a list or watch that selects one object by its name.
	Name string
	// NodeName is what a list or watch selects by spec.nodeName.
	NodeName string

	Path string
}

// Of reads the attributes of a request as the server's mux reads its path: by
// segments, each unescaped for itself.
func Of(r *http.Request) Attributes {
	segments, ok := split(r.URL.EscapedPath())
	if ok && len(segments) >= 3 && segments[0] == "api" {
		return ofResource(r, "", segments[1], segments[2:])
	}
	if ok && len(segments) >= 4 && segments[0] == "apis" {
		return ofResource(r, segments[1], segments[2], segments[3:])
	}
	return Attributes{Verb: strings.ToLower(r.Method), Path: r.URL.Path}
}

func split(path string) ([]string, bool) {
	segments := strings.Split(strings.TrimPrefix(path, "/"), "/")
	for i, s := range segments {
		plain, err := url.PathUnescape(s)
		if err != nil {
			return nil, false
		}
		segments[i] = plain
	}
	return segments, true
}

// ofResource reads what comes after the group and version.
func ofResource(r *http.Request, group, version string, rest []string) Attributes {
	a := Attributes{Group: group, Version: version}
	if rest[0] == "namespaces" && len(rest) > 1 {
		a.Namespace = rest[1]
		// A Namespace itself: its status and finalizers are below it.
		if len(rest) > 2 && rest[2] != "status" && rest[2] != "finalize" {
			rest = rest[2:]
		}
	}
	a.Resource = rest[0]
	if len(rest) > 1 {
		a.Name = rest[1]
	}
	if len(rest) > 2 {
		a.Subresource = strings.Join(rest[2:], "/")
		if proxied(rest[2]) {
			a.Subresource = rest[2]
		}
	}
	a.Verb = verb(r, a.Name != "")
	if a.Name == "" && (a.Verb == "list" || a.Verb == "watch" || a.Verb == "deletecollection") {
		selected(&a, r.URL.Query().Get("fieldSelector"))
	}
	return a
}

// proxied: what comes after it is a path of somebody else's.
func proxied(subresource string) bool { return subresource == "proxy" }

func verb(r *http.Request, one bool) string {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		if w := r.URL.Query().Get("watch"); w == "true" || w == "1" {
			return "watch"
		}
		if one {
			return "get"
		}
		return "list"
	case http.MethodPost:
		return "create"
	case http.MethodPut:
		return "update"
	case http.MethodPatch:
		return "patch"
	case http.MethodDelete:
		if one {
			return "delete"
		}
		return "deletecollection"
	}
	return strings.ToLower(r.Method)
}

// selected takes over what a list selects by equality.
func selected(a *Attributes, selector string) {
	s, err := fields.ParseSelector(selector)
	if err != nil {
		return // the handler says what is wrong
	}
	if name, ok := s.RequiresExactMatch("metadata.name"); ok {
		a.Name = name
	}
	if node, ok := s.RequiresExactMatch("spec.nodeName"); ok {
		a.NodeName = node
	}
}
