package access_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/clienttest"
	"berth.dev/berth/engine/access"
)

// accounts is what recognises tokens, over a cluster with one account and Pod.
type accounts struct {
	*access.Users
	cluster *clienttest.Memory
	dir     string
	key     *access.AccountKey
	now     time.Time
	account *corev1.ServiceAccount
	pod     *corev1.Pod
}

func newAccounts(t *testing.T) *accounts {
	t.Helper()
	a := &accounts{cluster: clienttest.NewMemory(), dir: t.TempDir(), now: time.Now().Truncate(time.Second)}
	var err error
	if a.key, err = access.OpenAccountKey(a.dir); err != nil {
		t.Fatal(err)
	}
	a.Users = &access.Users{Tokens: open(t, a.dir), Accounts: &access.Accounts{Key: a.key, Objects: a.cluster, Now: func() time.Time { return a.now }}}
	a.account = &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "front", Annotations: map[string]string{"berth.dev/role": "viewer"}}}
	a.pod = &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}}
	for _, obj := range []client.Object{a.account, a.pod} {
		if err := a.cluster.Create(t.Context(), obj); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

func (a *accounts) claims() *access.Claims {
	return &access.Claims{
		Namespace: "shop", Account: access.Named{Name: "front", UID: a.account.UID}, Pod: &access.Named{Name: "web", UID: a.pod.UID},
		Audiences: []string{access.Issuer}, Issued: a.now, Expires: a.now.Add(time.Hour),
	}
}

func (a *accounts) sign(t *testing.T, c *access.Claims) string {
	t.Helper()
	token, err := a.key.Sign(c)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func (a *accounts) check(ctx context.Context, token string) (access.User, error) {
	u, _, err := a.Token(ctx, token, []string{access.Issuer})
	return u, err
}

func TestTheTokenOfAPod(t *testing.T) {
	a := newAccounts(t)
	u, err := a.check(t.Context(), a.sign(t, a.claims()))
	if err != nil || u.Name != "system:serviceaccount:shop:front" || u.UID != string(a.account.UID) || u.Role != access.Viewer {
		t.Fatalf("%+v %v", u, err)
	}
	if strings.Join(u.Groups, " ") != "system:serviceaccounts system:serviceaccounts:shop system:authenticated" ||
		u.Extra["authentication.kubernetes.io/pod-name"][0] != "web" {
		t.Errorf("%+v", u)
	}
}

// TestTokensThatDoNotCount: each token is right but for one thing.
func TestTokensThatDoNotCount(t *testing.T) {
	for what, c := range map[string]struct {
		token func(t *testing.T, a *accounts) string
		want  string
	}{
		"ended": {func(t *testing.T, a *accounts) string {
			token := a.sign(t, a.claims())
			a.now = a.now.Add(time.Hour + time.Minute)
			return token
		}, "does not count"},
		"of the future": {func(t *testing.T, a *accounts) string {
			token := a.sign(t, a.claims())
			a.now = a.now.Add(-time.Minute)
			return token
		}, "does not count"},
		"another audience": {func(t *testing.T, a *accounts) string {
			c := a.claims()
			c.Audiences = []string{"vault"}
			return a.sign(t, c)
		}, "another audience"},
		"the pod is gone": {func(t *testing.T, a *accounts) string {
			now := int64(0)
			if err := a.cluster.Delete(t.Context(), a.pod, client.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
				t.Fatal(err)
			}
			return a.sign(t, a.claims())
		}, "Pod web of the token is gone"},
		"the pod was made anew": {func(t *testing.T, a *accounts) string {
			c := a.claims()
			c.Pod.UID = "another"
			return a.sign(t, c)
		}, "Pod web of the token was created anew"},
		"the account is gone": {func(t *testing.T, a *accounts) string {
			if err := a.cluster.Delete(t.Context(), a.account, client.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			return a.sign(t, a.claims())
		}, "ServiceAccount front of the token is gone"},
		"the account was made anew": {func(t *testing.T, a *accounts) string {
			c := a.claims()
			c.Account.UID = "another"
			return a.sign(t, c)
		}, "created anew"},
		"no account": {func(t *testing.T, a *accounts) string {
			c := a.claims()
			c.Account.UID = ""
			return a.sign(t, c)
		}, "whose it is"},
		"a Secret that is not there": {func(t *testing.T, a *accounts) string {
			c := a.claims()
			c.Pod, c.Secret = nil, &access.Named{Name: "s", UID: "u"}
			return a.sign(t, c)
		}, "Secret s of the token is gone"},
		"another key": {func(t *testing.T, a *accounts) string {
			other, err := access.OpenAccountKey(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			token, err := other.Sign(a.claims())
			if err != nil {
				t.Fatal(err)
			}
			return token
		}, "signature is not ours"},
		"alg none": {func(t *testing.T, a *accounts) string {
			parts := strings.Split(a.sign(t, a.claims()), ".")
			return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + parts[1] + "."
		}, "no token of a service account"},
		"the public key as a secret": {func(t *testing.T, a *accounts) string { return forgedHS256(t, a) }, "no token of a service account"},
		"a word changed": {func(t *testing.T, a *accounts) string {
			parts := strings.Split(a.sign(t, a.claims()), ".")
			payload, err := base64.RawURLEncoding.DecodeString(parts[1])
			if err != nil {
				t.Fatal(err)
			}
			parts[1] = base64.RawURLEncoding.EncodeToString([]byte(strings.ReplaceAll(string(payload), "front", "admin")))
			return strings.Join(parts, ".")
		}, "signature is not ours"},
		"nonsense":     {func(*testing.T, *accounts) string { return "a.b.c" }, "no token of a service account"},
		"no such word": {func(*testing.T, *accounts) string { return "abc" }, "not known"},
	} {
		t.Run(what, func(t *testing.T) {
			a := newAccounts(t)
			token := c.token(t, a)
			u, err := a.check(t.Context(), token)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%+v %v, want an error with %q", u, err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), token) {
				t.Errorf("the error shows the token: %v", err)
			}
		})
	}
}

// forgedHS256 signs with the public key, which everybody may know, as a secret.
func forgedHS256(t *testing.T, a *accounts) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(a.key.PublicKeys().Keys[0].Key)
	if err != nil {
		t.Fatal(err)
	}
	secret := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: secret}, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(map[string]any{
		"iss": access.Issuer, "aud": access.Issuer, "sub": "system:serviceaccount:shop:front", "exp": a.now.Add(time.Hour).Unix(), "iat": a.now.Unix(),
		"kubernetes.io": map[string]any{"namespace": "shop", "serviceaccount": map[string]any{"name": "front", "uid": a.account.UID}},
	}).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestTheKeyOfAccountsStaysAndIsItsOwnersAlone(t *testing.T) {
	a := newAccounts(t)
	token := a.sign(t, a.claims())
	again, err := access.OpenAccountKey(a.dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := again.Verify(token, []string{access.Issuer}, a.now); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	path := access.AccountKeyFile(a.dir)
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(other)
	if err != nil {
		t.Fatal(err)
	}
	for _, content := range []string{"", "nonsense", string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := access.OpenAccountKey(a.dir); err == nil || !strings.Contains(err.Error(), "put it back") && !strings.Contains(err.Error(), "put that back") {
			t.Errorf("%.10q: %v", content, err)
		}
	}
}

func TestWhoANameStandsFor(t *testing.T) {
	a := newAccounts(t)
	if _, err := a.Tokens.Create("vic", access.Viewer, a.now); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		groups []string
		want   access.Role
	}{
		{"admin", nil, access.Admin},
		{"vic", nil, access.Viewer},
		{"vic", []string{"system:masters"}, access.Admin},
		{"eve", nil, access.None},
		{"eve", []string{"berth:viewers"}, access.Viewer},
		{"system:node:n1", []string{"system:nodes"}, access.Node},
		{"system:node:n1", nil, access.None},
		{"n1", []string{"system:nodes"}, access.None},
		{"system:serviceaccount:shop:front", nil, access.Viewer},
		{"system:serviceaccount:shop:none", nil, access.None},
	} {
		u, err := a.Named(t.Context(), c.name, c.groups)
		if err != nil || u.Role != c.want || u.Name != c.name {
			t.Errorf("%s %v: %+v %v, want %q", c.name, c.groups, u, err, c.want)
		}
	}
	a.account.Annotations["berth.dev/role"] = "king"
	if err := a.cluster.Update(t.Context(), a.account); err != nil {
		t.Fatal(err)
	}
	if u, err := a.Named(t.Context(), "system:serviceaccount:shop:front", nil); err != nil || u.Role != access.None {
		t.Errorf("with a word that is no role: %+v %v", u, err)
	}
}
