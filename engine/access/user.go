package access

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"berth.dev/berth/api/v1alpha1"
)

// Role of a user.
type Role string

// Roles. A viewer sees everything but Secrets, a node what its own Pods need. A
// user without a role may only ask who they are and what they may do.
const (
	Admin  Role = v1alpha1.RoleAdmin
	Viewer Role = v1alpha1.RoleViewer
	Node   Role = "node"
	None   Role = ""
)

// Groups that give a role. All but that of the viewers are Kubernetes' own.
const (
	groupAdmins        = "system:masters"
	groupViewers       = "berth:viewers"
	groupNodes         = "system:nodes"
	groupAuthenticated = "system:authenticated"
	groupAccounts      = "system:serviceaccounts"
)

const (
	nodePrefix    = "system:node:"
	accountPrefix = "system:serviceaccount:"
)

// User is who a request is from.
type User struct {
	Name   string
	UID    string
	Groups []string
	// Extra says how the user was recognised, in Kubernetes' words.
	Extra map[string][]string
	Role  Role
}

// NodeName is the Node that the user is the agent of; empty for others.
func (u User) NodeName() string {
	if u.Role != Node {
		return ""
	}
	return strings.TrimPrefix(u.Name, nodePrefix)
}

// Person reports whether the role is one that people have.
func (u User) Person() bool { return u.Role == Admin || u.Role == Viewer }

// AccountName splits the user name of a service account.
func AccountName(user string) (namespace, name string, ok bool) {
	rest, ok := strings.CutPrefix(user, accountPrefix)
	if !ok {
		return "", "", false
	}
	namespace, name, ok = strings.Cut(rest, ":")
	return namespace, name, ok && namespace != "" && name != ""
}

// accountUser is the user that a service account is.
func accountUser(a *corev1.ServiceAccount) User {
	return User{
		Name: accountPrefix + a.Namespace + ":" + a.Name, UID: string(a.UID),
		Groups: []string{groupAccounts, groupAccounts + ":" + a.Namespace, groupAuthenticated},
		Role:   accountRole(a),
	}
}

// accountRole is what the account's annotation grants; a word that is no role
// grants nothing.
func accountRole(a *corev1.ServiceAccount) Role {
	switch r := Role(a.Annotations[v1alpha1.AnnotationRole]); r {
	case Admin, Viewer:
		return r
	}
	return None
}

// named is the user of a token: the role is in the groups too, so that who
// asks about the user by its groups gets the same answer.
func named(name string, role Role) User {
	u := User{Name: name, Role: role}
	switch role {
	case Admin:
		u.Groups = []string{groupAdmins, groupAuthenticated}
	case Viewer:
		u.Groups = []string{groupViewers, groupAuthenticated}
	case Node:
		u.Name, u.Groups = nodePrefix+name, []string{groupNodes, groupAuthenticated}
	}
	return u
}

// roleOf is the role that groups give a user.
func roleOf(name string, groups []string) Role {
	switch {
	case slices.Contains(groups, groupAdmins):
		return Admin
	case slices.Contains(groups, groupViewers):
		return Viewer
	case slices.Contains(groups, groupNodes) && len(name) > len(nodePrefix) && strings.HasPrefix(name, nodePrefix):
		return Node
	}
	return None
}
