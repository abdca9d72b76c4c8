package apiserver

import (
	"context"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"

	"berth.dev/berth/engine/access"
	"berth.dev/berth/engine/authorize"
)

// rules lists what a user may do in a namespace, by asking about each verb of
// each kind. What a node may do depends on names, which rules do not show.
func (s *Server) rules(ctx context.Context, u access.User, namespace string) authorizationv1.SubjectRulesReviewStatus {
	all := []string{"*"}
	if u.Role == access.Admin {
		return authorizationv1.SubjectRulesReviewStatus{
			ResourceRules:    []authorizationv1.ResourceRule{{Verbs: all, APIGroups: all, Resources: all}},
			NonResourceRules: []authorizationv1.NonResourceRule{{Verbs: all, NonResourceURLs: all}},
		}
	}
	paths := authorize.DiscoveryPaths()
	if allowed, _ := s.access.Allowed(ctx, u, authorize.Attributes{Verb: "get", Path: "/metrics"}); allowed {
		paths = append(paths, "/metrics")
	}
	return authorizationv1.SubjectRulesReviewStatus{
		ResourceRules:    s.resourceRules(ctx, u, namespace),
		NonResourceRules: []authorizationv1.NonResourceRule{{Verbs: []string{"get"}, NonResourceURLs: paths}},
		Incomplete:       u.Role == access.Node,
	}
}

// resourceRules has one rule for all resources of a group with the same verbs.
func (s *Server) resourceRules(ctx context.Context, u access.User, namespace string) []authorizationv1.ResourceRule {
	out := []authorizationv1.ResourceRule{}
	at := map[string]int{}
	add := func(a authorize.Attributes, verbs []string) {
		var may []string
		for _, a.Verb = range verbs {
			if ok, _ := s.access.Allowed(ctx, u, a); ok {
				may = append(may, a.Verb)
			}
		}
		if len(may) == 0 {
			return
		}
		name := a.Resource
		if a.Subresource != "" {
			name += "/" + a.Subresource
		}
		key := a.Group + " " + strings.Join(may, ",")
		i, known := at[key]
		if !known {
			i = len(out)
			at[key] = i
			out = append(out, authorizationv1.ResourceRule{Verbs: may, APIGroups: []string{a.Group}})
		}
		out[i].Resources = append(out[i].Resources, name)
	}
	for _, row := range s.kinds() {
		a := authorize.Attributes{Group: row.Group, Version: row.Version, Resource: row.Plural, Namespace: namespace}
		add(a, Verbs(row))
		for _, sub := range Subresources(row) {
			a.Subresource = sub.Name
			add(a, sub.Verbs)
		}
	}
	return out
}
