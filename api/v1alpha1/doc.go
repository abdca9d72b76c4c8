// Package v1alpha1 holds the types of the group berth.dev: the kind Source, its
// conditions and reasons, and the annotations that Berth writes on objects.
//
// +k8s:deepcopy-gen=package
// +groupName=berth.dev
package v1alpha1
