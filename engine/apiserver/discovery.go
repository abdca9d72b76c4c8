package apiserver

import (
	"encoding/json"
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
		for _, versions := range s.groups() {
			if versions[0].Group != "" {
				list.Groups = append(list.Groups, group(versions))
			}
		}
		writeJSON(w, http.StatusOK, list)
	})
	for _, versions := range s.groups() {
		if name := versions[0].Group; name != "" {
			g := group(versions)
			g.TypeMeta = metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}
			s.mux.HandleFunc("GET /apis/"+name, func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, &g) })
		}
		for _, gv := range versions {
			path := "/apis/" + gv.String()
			if gv.Group == "" {
				path = "/api/" + gv.Version
			}
			list := s.resourceList(gv)
			s.mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, list) })
		}
	}
}

// kinds are those that are stored, those that are asked and those that are measured.
func (s *Server) kinds() []*resources.Resource {
	return slices.Concat(s.Resources.All(), resources.Reviews(), resources.Measured())
}

// groups are the versions of each group, the one to be preferred first.
func (s *Server) groups() [][]schema.GroupVersion {
	var out [][]schema.GroupVersion
	for _, row := range s.kinds() {
		gv := row.GroupVersion()
		at := slices.IndexFunc(out, func(versions []schema.GroupVersion) bool { return versions[0].Group == gv.Group })
		switch {
		case at < 0:
			out = append(out, []schema.GroupVersion{gv})
		case !slices.Contains(out[at], gv):
			out[at] = append(out[at], gv)
		}
	}
	return out
}

func group(versions []schema.GroupVersion) metav1.APIGroup {
	out := metav1.APIGroup{Name: versions[0].Group}
	for _, gv := range versions {
		out.Versions = append(out.Versions, metav1.GroupVersionForDiscovery{GroupVersion: gv.String(), Version: gv.Version})
	}
	out.PreferredVersion = out.Versions[0]
	return out
}

func (s *Server) resourceList(gv schema.GroupVersion) *metav1.APIResourceList {
	list := &metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: gv.String()}
	for _, row := range s.kinds() {
		if row.GroupVersion() != gv {
			continue
		}
		list.APIResources = append(list.APIResources, metav1.APIResource{
			Name: row.Plural, SingularName: row.Singular, Namespaced: row.Namespaced, Kind: row.Kind,
			Verbs: Verbs(row), ShortNames: row.ShortNames, Categories: row.Categories,
		})
		for _, sub := range Subresources(row) {
			r := metav1.APIResource{Name: row.Plural + "/" + sub.Name, Namespaced: row.Namespaced, Kind: sub.Kind, Verbs: sub.Verbs}
			if sub.GroupVersion() != gv {
				r.Group, r.Version = sub.Group, sub.Version
			}
			list.APIResources = append(list.APIResources, r)
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
	for _, versions := range s.groups() {
		if (versions[0].Group == "") != core {
			continue
		}
		g := apidiscovery.APIGroupDiscovery{ObjectMeta: metav1.ObjectMeta{Name: versions[0].Group}}
		for _, gv := range versions {
			version := apidiscovery.APIVersionDiscovery{Version: gv.Version, Freshness: apidiscovery.DiscoveryFreshnessCurrent}
			for _, row := range s.kinds() {
				if row.GroupVersion() == gv {
					version.Resources = append(version.Resources, discoveryOf(row))
				}
			}
			g.Versions = append(g.Versions, version)
		}
		list.Items = append(list.Items, g)
	}
	w.Header().Set("Vary", "Accept")
	w.Header().Set("Content-Type", aggregatedType)
	_ = json.NewEncoder(w).Encode(&list) // the client is gone: nobody to tell
}

func discoveryOf(row *resources.Resource) apidiscovery.APIResourceDiscovery {
	kind := &metav1.GroupVersionKind{Group: row.Group, Version: row.Version, Kind: row.Kind}
	d := apidiscovery.APIResourceDiscovery{
		Resource: row.Plural, ResponseKind: kind, Scope: apidiscovery.ScopeCluster, SingularResource: row.Singular,
		Verbs: Verbs(row), ShortNames: row.ShortNames, Categories: row.Categories,
	}
	if row.Namespaced {
		d.Scope = apidiscovery.ScopeNamespace
	}
	for _, sub := range Subresources(row) {
		d.Subresources = append(d.Subresources, apidiscovery.APISubresourceDiscovery{
			Subresource: sub.Name, Verbs: sub.Verbs, ResponseKind: &metav1.GroupVersionKind{Group: sub.Group, Version: sub.Version, Kind: sub.Kind},
		})
	}
	return d
}
