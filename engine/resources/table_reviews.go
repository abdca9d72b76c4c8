package resources

import (
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
)

// Reviews are the kinds that are asked and answered, and never stored.
func Reviews() []*Resource {
	return []*Resource{
		{
			GroupVersionKind: kind("authentication.k8s.io", "v1", "TokenReview"), Plural: "tokenreviews", Singular: "tokenreview",
			Review: true, newObject: newOf[authenticationv1.TokenReview],
		},
		{
			GroupVersionKind: kind("authentication.k8s.io", "v1", "SelfSubjectReview"), Plural: "selfsubjectreviews", Singular: "selfsubjectreview",
			Review: true, newObject: newOf[authenticationv1.SelfSubjectReview],
		},
		{
			GroupVersionKind: kind("authorization.k8s.io", "v1", "SubjectAccessReview"), Plural: "subjectaccessreviews", Singular: "subjectaccessreview",
			Review: true, newObject: newOf[authorizationv1.SubjectAccessReview],
		},
		{
			GroupVersionKind: kind("authorization.k8s.io", "v1", "LocalSubjectAccessReview"), Plural: "localsubjectaccessreviews", Singular: "localsubjectaccessreview",
			Review: true, Namespaced: true, newObject: newOf[authorizationv1.LocalSubjectAccessReview],
		},
		{
			GroupVersionKind: kind("authorization.k8s.io", "v1", "SelfSubjectAccessReview"), Plural: "selfsubjectaccessreviews", Singular: "selfsubjectaccessreview",
			Review: true, newObject: newOf[authorizationv1.SelfSubjectAccessReview],
		},
		{
			GroupVersionKind: kind("authorization.k8s.io", "v1", "SelfSubjectRulesReview"), Plural: "selfsubjectrulesreviews", Singular: "selfsubjectrulesreview",
			Review: true, newObject: newOf[authorizationv1.SelfSubjectRulesReview],
		},
	}
}
