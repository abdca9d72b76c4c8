package apiserver

import (
	"net/http"
	"slices"
	"strings"

	apidiscovery "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"berth.dev/berth/engine/resources"
)

// discovery adds the paths by which clients learn what there is.
func (s *Server) discovery() {
	s.mux.HandleFunc("GET /api", func(w http.ResponseWriter, r *http.Request) {
		if aggregated(r) {
			s.writeAggregated(w, true)
			return
		}
		writeJSON(w, http.StatusOK, &metav1.APIVersions{
			TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"},
			ServerAddressByClientCIDRs: []metav1.ServerAddressByClientCIDR{},
		})
	})
	s.mux.HandleFunc("GET /apis", func(w http.ResponseWriter, r *http.Request) {
		if aggregated(r) {
			s.writeAggregated(w, false)
			return
		}
		list := &metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}}
		for _, gv := range s.groups() {
			if gv.Group != "" {
				list.Groups = append(list.Groups, group(gv))
			}
		}
		writeJSON(w, http.StatusOK, list)
	})
	for _, gv := range s.groups() {
		path := "/apis/" + gv.String()
		if gv.Group == "" {
			path = "/api/" + gv.Version
		} else {
			g := group(gv)
			g.TypeMeta = metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}
			s.mux.HandleFunc("GET /apis/"+gv.Group, func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, &g) })
		}
		list := s.resourceList(gv)
		s.mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, list) })
	}
}

func (s *Server) groups() []schema.GroupVersion {
	var out []schema.GroupVersion
	for _, row := range s.Resources.All() {
		if !slices.Contains(out, row.GroupVersion()) {
			out = append(out, row.GroupVersion())
		}
	}
	return out
}

func group(gv schema.GroupVersion) metav1.APIGroup {
	v := metav1.GroupVersionForDiscovery{GroupVersion: gv.String(), Version: gv.Version}
	return metav1.APIGroup{Name: gv.Group, Versions: []metav1.GroupVersionForDiscovery{v}, PreferredVersion: v}
}

// verbs of a kind and of its status.
func verbs(row *resources.Resource) []string {
	if row.ReadOnly {
		return []string{"get", "list", "watch"}
	}
	return []string{"create", "delete", "get", "list", "patch", "update", "watch"}
}

func statusVerbs() []string { return []string{"get", "patch", "update"} }

func (s *Server) resourceList(gv schema.GroupVersion) *metav1.APIResourceList {
	list := &metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: gv.String()}
	for _, row := range s.Resources.All() {
		if row.GroupVersion() != gv {
			continue
		}
		list.APIResources = append(list.APIResources, metav1.APIResource{
			Name: row.Plural, SingularName: row.Singular, Namespaced: row.Namespaced, Kind: row.Kind,
			Verbs: verbs(row), ShortNames: row.ShortNames, Categories: row.Categories,
		})
		if row.Status {
			list.APIResources = append(list.APIResources, metav1.APIResource{
				Name: row.Plural + "/status", Namespaced: row.Namespaced, Kind: row.Kind, Verbs: statusVerbs(),
			})
		}
		if row.Scale {
			list.APIResources = append(list.APIResources, metav1.APIResource{
				Name: row.Plural + "/scale", Namespaced: row.Namespaced, Group: "autoscaling", Version: "v1", Kind: "Scale", Verbs: statusVerbs(),
			})
		}
		if row.Kind == "Pod" {
			list.APIResources = append(list.APIResources,
				metav1.APIResource{Name: "pods/exec", Namespaced: true, Kind: "PodExecOptions", Verbs: []string{"create", "get"}},
				metav1.APIResource{Name: "pods/log", Namespaced: true, Kind: "Pod", Verbs: []string{"get"}},
				metav1.APIResource{Name: "pods/portforward", Namespaced: true, Kind: "PodPortForwardOptions", Verbs: []string{"create", "get"}})
		}
	}
	return list
}

// aggregatedType is the media type of all discovery in one answer (KEP-3352).
const aggregatedType = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

func aggregated(r *http.Request) bool {
	return strings.Contains(strings.ReplaceAll(r.Header.Get("Accept"), " ", ""), aggregatedType)
}

func (s *Server) writeAggregated(w http.ResponseWriter, core bool) {
	list := apidiscovery.APIGroupDiscoveryList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupDiscoveryList", APIVersion: "apidiscovery.k8s.io/v2"}}
	for _, gv := range s.groups() {
		if (gv.Group == "") != core {
			continue
		}
		version := apidiscovery.APIVersionDiscovery{Version: gv.Version, Freshness: apidiscovery.DiscoveryFreshnessCurrent}
		for _, row := range s.Resources.All() {
			if row.GroupVersion() == gv {
				version.Resources = append(version.Resources, discoveryOf(row))
			}
		}
		list.Items = append(list.Items, apidiscovery.APIGroupDiscovery{
			ObjectMeta: metav1.ObjectMeta{Name: gv.Group}, Versions: []apidiscovery.APIVersionDiscovery{version},
		})
	}
	w.Header().Set("Vary", "Accept")
	w.Header().Set("Content-Type", aggregatedType)
	writeBody(w, &list)
}

func discoveryOf(row *resources.Resource) apidiscovery.APIResourceDiscovery {
	kind := &metav1.GroupVersionKind{Group: row.Group, Version: row.Version, Kind: row.Kind}
	d := apidiscovery.APIResourceDiscovery{
		Resource: row.Plural, ResponseKind: kind, Scope: apidiscovery.ScopeCluster, SingularResource: row.Singular,
		Verbs: verbs(row), ShortNames: row.ShortNames, Categories: row.Categories,
	}
	if row.Namespaced {
		d.Scope = apidiscovery.ScopeNamespace
	}
	if row.Status {
		d.Subresources = append(d.Subresources, apidiscovery.APISubresourceDiscovery{Subresource: "status", ResponseKind: kind, Verbs: statusVerbs()})
	}
	if row.Scale {
		scale := &metav1.GroupVersionKind{Group: "autoscaling", Version: "v1", Kind: "Scale"}
		d.Subresources = append(d.Subresources, apidiscovery.APISubresourceDiscovery{Subresource: "scale", ResponseKind: scale, Verbs: statusVerbs()})
	}
	if row.Kind == "Pod" {
		d.Subresources = append(d.Subresources,
			apidiscovery.APISubresourceDiscovery{Subresource: "exec", ResponseKind: podKind("PodExecOptions"), Verbs: []string{"create", "get"}},
			apidiscovery.APISubresourceDiscovery{Subresource: "log", ResponseKind: kind, Verbs: []string{"get"}},
			apidiscovery.APISubresourceDiscovery{Subresource: "portforward", ResponseKind: podKind("PodPortForwardOptions"), Verbs: []string{"create", "get"}})
	}
	return d
}

func podKind(name string) *metav1.GroupVersionKind {
	return &metav1.GroupVersionKind{Version: "v1", Kind: name}
}
