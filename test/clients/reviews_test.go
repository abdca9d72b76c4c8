package clients

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/upstream"
	"berth.dev/berth/engine/access"
	"berth.dev/berth/engine/apiserver"
	"berth.dev/berth/engine/enginetest"
	"berth.dev/berth/engine/resources"
)

// guarded is the API with real tokens.
type guarded struct {
	*resources.Resources
	users *access.Users
	host  string
}

func guard(t *testing.T) *guarded {
	t.Helper()
	up, err := upstream.New()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	tokens, err := access.OpenTokens(dir)
	if err != nil {
		t.Fatal(err)
	}
	key, err := access.OpenAccountKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	g := &guarded{Resources: enginetest.Signed(t, key)}
	g.users = &access.Users{Tokens: tokens, Accounts: &access.Accounts{Key: key, Objects: g.Resources, Now: time.Now}}
	handler := apiserver.New(apiserver.Options{
		Resources: g.Resources, Upstream: up, Users: g.users, AccountKeys: key.PublicKeys(), Version: "v0", Log: enginetest.Log(t),
	})
	h := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, ok := g.users.Request(r); ok {
			r = r.WithContext(access.With(r.Context(), u))
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { h.CloseClientConnections(); h.Close() })
	g.host = h.URL
	return g
}

func (g *guarded) token(t *testing.T, name string, role access.Role) string {
	t.Helper()
	token, err := g.users.Tokens.Create(name, role, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// with is a client that speaks protobuf and has a token.
func (g *guarded) with(t *testing.T, token string) *kubernetes.Clientset {
	t.Helper()
	return clientset(t, g.config(token))
}

func (g *guarded) config(token string) *rest.Config {
	return &rest.Config{
		Host: g.host, BearerToken: token, TLSClientConfig: rest.TLSClientConfig{Insecure: true}, QPS: -1,
		ContentConfig: rest.ContentConfig{AcceptContentTypes: "application/vnd.kubernetes.protobuf,application/json", ContentType: "application/vnd.kubernetes.protobuf"},
	}
}

func (g *guarded) create(t *testing.T, objs ...client.Object) {
	t.Helper()
	for _, obj := range objs {
		if err := g.Create(t.Context(), obj); err != nil {
			t.Fatal(err)
		}
	}
}

func serviceAccount(name, role string) *corev1.ServiceAccount {
	a := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	if role != "" {
		a.Annotations = map[string]string{"berth.dev/role": role}
	}
	return a
}

func podOf(name, account, node string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec:       corev1.PodSpec{ServiceAccountName: account, NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}
}

func TestWhoAmI(t *testing.T) {
	g := guard(t)
	set := g.with(t, g.token(t, "vic", access.Viewer))
	me, err := set.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if info := me.Status.UserInfo; info.Username != "vic" || strings.Join(info.Groups, " ") != "berth:viewers system:authenticated" {
		t.Errorf("%+v", info)
	}
}

// TestReviewsTellTheTruth asks what a user may do, does it, and compares.
func TestReviewsTellTheTruth(t *testing.T) {
	g := guard(t)
	g.create(t, serviceAccount("reader", "viewer"), serviceAccount("other", ""),
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "s"}})
	admin := g.with(t, g.token(t, "ann", access.Admin))
	robot := func(name string) string {
		made, err := admin.CoreV1().ServiceAccounts("default").CreateToken(t.Context(), name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return made.Status.Token
	}
	attempts := map[authorizationv1.ResourceAttributes]func(context.Context, *kubernetes.Clientset) error{
		{Verb: "list", Resource: "configmaps", Namespace: "default"}: func(ctx context.Context, c *kubernetes.Clientset) error {
			return second(c.CoreV1().ConfigMaps("default").List(ctx, metav1.ListOptions{}))
		},
		{Verb: "get", Resource: "secrets", Namespace: "default", Name: "s"}: func(ctx context.Context, c *kubernetes.Clientset) error {
			return second(c.CoreV1().Secrets("default").Get(ctx, "s", metav1.GetOptions{}))
		},
		{Verb: "create", Resource: "configmaps", Namespace: "default"}: func(ctx context.Context, c *kubernetes.Clientset) error {
			cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "c-"}}
			return second(c.CoreV1().ConfigMaps("default").Create(ctx, cm, metav1.CreateOptions{}))
		},
		{Verb: "create", Resource: "serviceaccounts", Subresource: "token", Namespace: "default", Name: "other"}: func(ctx context.Context, c *kubernetes.Clientset) error {
			return second(c.CoreV1().ServiceAccounts("default").CreateToken(ctx, "other", &authenticationv1.TokenRequest{}, metav1.CreateOptions{}))
		},
		{Verb: "update", Group: "", Resource: "nodes", Name: "n2"}: func(ctx context.Context, c *kubernetes.Clientset) error {
			return second(c.CoreV1().Nodes().Update(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n2"}}, metav1.UpdateOptions{}))
		},
	}
	for name, token := range map[string]string{
		"ann": g.token(t, "bob", access.Admin), "vic": g.token(t, "vic", access.Viewer), "system:node:n1": g.token(t, "n1", access.Node),
		"system:serviceaccount:default:reader": robot("reader"), "system:serviceaccount:default:other": robot("other"),
	} {
		set := g.with(t, token)
		for a, do := range attempts {
			self, err := set.AuthorizationV1().SelfSubjectAccessReviews().Create(t.Context(),
				&authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &a}}, metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			groups := []string{}
			if strings.HasPrefix(name, "system:node:") {
				groups = append(groups, "system:nodes")
			}
			of, err := admin.AuthorizationV1().SubjectAccessReviews().Create(t.Context(), &authorizationv1.SubjectAccessReview{
				Spec: authorizationv1.SubjectAccessReviewSpec{User: name, Groups: groups, ResourceAttributes: &a}}, metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			done := do(t.Context(), set)
			if may := !apierrors.IsForbidden(done); self.Status.Allowed != may || of.Status.Allowed != may || self.Status.Reason == "" {
				t.Errorf("%s %+v: %v (%s) by themselves, %v for another, but doing it: %v", name, a, self.Status.Allowed, self.Status.Reason, of.Status.Allowed, done)
			}
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestRulesOfAUser(t *testing.T) {
	g := guard(t)
	g.create(t, serviceAccount("other", ""))
	rules := func(role access.Role, name string) authorizationv1.SubjectRulesReviewStatus {
		r, err := g.with(t, g.token(t, name, role)).AuthorizationV1().SelfSubjectRulesReviews().Create(t.Context(),
			&authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: "default"}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return r.Status
	}
	if r := rules(access.Admin, "ann"); len(r.ResourceRules) != 1 || r.ResourceRules[0].Resources[0] != "*" || r.Incomplete {
		t.Errorf("an administrator: %+v", r)
	}
	seen := map[string]string{}
	for _, r := range rules(access.Viewer, "vic").ResourceRules {
		for _, name := range r.Resources {
			seen[r.APIGroups[0]+"/"+name] = strings.Join(r.Verbs, " ")
		}
	}
	for name, want := range map[string]string{
		"/pods": "get list watch", "/pods/log": "get", "/pods/exec": "", "/secrets": "", "apps/deployments/scale": "get",
		"authorization.k8s.io/selfsubjectaccessreviews": "create", "authorization.k8s.io/subjectaccessreviews": "",
	} {
		if seen[name] != want {
			t.Errorf("a viewer: %s %q, want %q", name, seen[name], want)
		}
	}
	if r := rules(access.Node, "n1"); !r.Incomplete {
		t.Errorf("a node's rules depend on names, but say that they are complete: %+v", r)
	}
}

func TestTokenReview(t *testing.T) {
	g := guard(t)
	pod := podOf("web", "robot", "")
	g.create(t, serviceAccount("robot", ""), pod)
	admin := g.with(t, g.token(t, "ann", access.Admin))
	made, err := admin.CoreV1().ServiceAccounts("default").CreateToken(t.Context(), "robot", &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		Audiences: []string{"vault"}, BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: "web"},
	}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	token := made.Status.Token
	review := func(token string, audiences ...string) authenticationv1.TokenReviewStatus {
		r, err := admin.AuthenticationV1().TokenReviews().Create(t.Context(),
			&authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: audiences}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return r.Status
	}
	s := review(token, "vault", "other")
	if !s.Authenticated || s.User.Username != "system:serviceaccount:default:robot" || strings.Join(s.Audiences, " ") != "vault" ||
		s.User.Extra["authentication.kubernetes.io/pod-uid"][0] != string(pod.UID) {
		t.Errorf("%+v", s)
	}
	for what, s := range map[string]authenticationv1.TokenReviewStatus{"the API": review(token), "another audience": review(token, "other"), "nonsense": review("x")} {
		if s.Authenticated || s.Error == "" {
			t.Errorf("for %s: %+v", what, s)
		}
	}
	now := int64(0)
	if err := g.Delete(t.Context(), pod, client.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
		t.Fatal(err)
	}
	if s := review(token, "vault"); s.Authenticated || !strings.Contains(s.Error, "Pod web of the token is gone") {
		t.Errorf("after its Pod: %+v", s)
	}
}

// TestANodeStaysWithinItsPods tries with a node's token what its agent does,
// and what one that was taken over would try.
func TestANodeStaysWithinItsPods(t *testing.T) {
	g := guard(t)
	here, there := podOf("here", "robot", "n1"), podOf("there", "robot", "n2")
	here.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "mine"}}}}
	g.create(t, serviceAccount("robot", "admin"), here, there,
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "mine"}},
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "others"}})
	set := g.with(t, g.token(t, "n1", access.Node))
	node := set.CoreV1()
	token := func(pod *corev1.Pod) error {
		var ref *authenticationv1.BoundObjectReference
		if pod != nil {
			ref = &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}
		}
		return second(node.ServiceAccounts("default").CreateToken(t.Context(), "robot",
			&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: ref}}, metav1.CreateOptions{}))
	}
	status := here.DeepCopy()
	status.Status.Phase = corev1.PodRunning
	lease := func(name string) error {
		l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name}}
		return second(set.CoordinationV1().Leases("kube-node-lease").Create(t.Context(), l, metav1.CreateOptions{}))
	}
	for what, err := range map[string]error{
		"create its Node":            second(node.Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}, metav1.CreateOptions{})),
		"create its Lease":           lease("n1"),
		"list its Pods":              second(node.Pods("").List(t.Context(), metav1.ListOptions{FieldSelector: "spec.nodeName=n1"})),
		"write its Pod's status":     second(node.Pods("default").UpdateStatus(t.Context(), status, metav1.UpdateOptions{})),
		"read a Secret of its Pod":   second(node.Secrets("default").Get(t.Context(), "mine", metav1.GetOptions{})),
		"make a token for its Pod":   token(here),
		"read Services":              second(node.Services("").List(t.Context(), metav1.ListOptions{})),
		"note an Event":              second(node.Events("default").Create(t.Context(), event(), metav1.CreateOptions{})),
		"follow a Secret of its Pod": second(node.Secrets("default").List(t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=mine"})),
	} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, err := range map[string]error{
		"create another Node":             second(node.Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n3"}}, metav1.CreateOptions{})),
		"create another's Lease":          lease("n9"),
		"list all Pods":                   second(node.Pods("").List(t.Context(), metav1.ListOptions{})),
		"write another Pod's status":      second(node.Pods("default").UpdateStatus(t.Context(), there, metav1.UpdateOptions{})),
		"read another Secret":             second(node.Secrets("default").Get(t.Context(), "others", metav1.GetOptions{})),
		"list Secrets":                    second(node.Secrets("default").List(t.Context(), metav1.ListOptions{})),
		"make a token for another's Pod":  token(there),
		"make a token for nothing":        token(nil),
		"create a Pod that mounts others": second(node.Pods("default").Create(t.Context(), podOf("evil", "robot", "n1"), metav1.CreateOptions{})),
		"delete another's Pod":            node.Pods("default").Delete(t.Context(), "there", metav1.DeleteOptions{}),
	} {
		if !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v, want forbidden", what, err)
		}
	}
	now := int64(0)
	if err := node.Pods("default").Delete(t.Context(), "here", metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
		t.Errorf("delete its own Pod: %v", err)
	}
}

func event() *corev1.Event {
	return &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{GenerateName: "e-", Namespace: "default"},
		InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: "here"},
	}
}

func TestImpersonation(t *testing.T) {
	g := guard(t)
	g.create(t, serviceAccount("reader", "viewer"), serviceAccount("other", ""))
	ann := g.token(t, "ann", access.Admin)
	as := func(token, user string, groups ...string) error {
		c := g.config(token)
		c.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: groups}
		return second(clientset(t, c).CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{}))
	}
	for what, err := range map[string]error{
		"a viewer's account": as(ann, "system:serviceaccount:default:reader"), "a viewer by group": as(ann, "eve", "berth:viewers"),
	} {
		if err != nil {
			t.Errorf("as %s: %v", what, err)
		}
	}
	for what, err := range map[string]error{
		"an account without a role": as(ann, "system:serviceaccount:default:other"), "nobody": as(ann, "eve"),
		"an administrator, by a viewer": as(g.token(t, "vic", access.Viewer), "ann"),
	} {
		if !apierrors.IsForbidden(err) {
			t.Errorf("as %s: %v, want forbidden", what, err)
		}
	}
}

func TestTheIssuersDocuments(t *testing.T) {
	g := guard(t)
	rc := g.with(t, g.token(t, "vic", access.Viewer)).Discovery().RESTClient()
	for path, want := range map[string]string{"/.well-known/openid-configuration": `"issuer":"` + access.Issuer + `"`, "/openid/v1/jwks": `"alg":"ES256"`} {
		body, err := rc.Get().AbsPath(path).DoRaw(t.Context())
		if err != nil || !strings.Contains(string(body), want) || strings.Contains(string(body), `"d":`) {
			t.Errorf("%s: %s %v", path, body, err)
		}
	}
}
