package access

import (
	"context"
	"crypto/x509"
	"errors"
	"net/http"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Users says who somebody is: of a request, of a token, or of a name that
// somebody asks about. All fields must be set.
type Users struct {
	Tokens   *Tokens
	Accounts *Accounts
}

// Request finds the user of a request: by a bearer token, by a token as the
// password of basic authentication (for git), by a client certificate, or by
// the cookie of the page. Who says a wrong token is not looked for elsewhere.
func (s *Users) Request(r *http.Request) (User, bool) {
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		return s.found(r.Context(), token)
	}
	if _, password, ok := r.BasicAuth(); ok {
		return s.found(r.Context(), password)
	}
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 && ours(r) {
		return certified(r.TLS.VerifiedChains[0][0])
	}
	if c, err := r.Cookie(cookie); err == nil && sameOrigin(r) {
		return s.Tokens.Check(c.Value)
	}
	return User{}, false
}

// ours: a browser sends its certificate along with what other sites make it
// send; a program says nothing of sites.
func ours(r *http.Request) bool { return r.Header.Get("Sec-Fetch-Site") == "" || sameOrigin(r) }

func (s *Users) found(ctx context.Context, token string) (User, bool) {
	u, _, err := s.Token(ctx, token, []string{Issuer})
	return u, err == nil
}

// Token finds the user of a token, and which of the audiences it is for. A
// token that Berth keeps is for the API alone.
func (s *Users) Token(ctx context.Context, token string, audiences []string) (User, []string, error) {
	token = strings.TrimSpace(token)
	if strings.Count(token, ".") == 2 { // as a JWT, which our own never are
		return s.Accounts.Token(ctx, token, audiences)
	}
	u, ok := s.Tokens.Check(token)
	if !ok {
		return User{}, nil, errors.New("the token is not known")
	}
	if !slices.Contains(audiences, Issuer) {
		return User{}, nil, errors.New("the token is for another audience")
	}
	return u, []string{Issuer}, nil
}

// certified is the user of a client certificate that our authority has signed:
// its common name, and its organisations as groups, as in Kubernetes.
func certified(cert *x509.Certificate) (User, bool) {
	u := User{Name: cert.Subject.CommonName, Groups: slices.Clone(cert.Subject.Organization)}
	if _, _, account := AccountName(u.Name); u.Name == "" || account {
		return User{}, false
	}
	u.Role = roleOf(u.Name, u.Groups)
	u.Groups = append(u.Groups, groupAuthenticated)
	return u, true
}

// Named is the user of that name and those groups, for who asks what another
// may do. A name without groups is looked for among tokens and accounts.
func (s *Users) Named(ctx context.Context, name string, groups []string) (User, error) {
	u := User{Name: name, Groups: groups, Role: roleOf(name, groups)}
	if u.Role != None {
		return u, nil
	}
	if namespace, account, ok := AccountName(name); ok {
		known, err := s.Accounts.Named(ctx, namespace, account)
		if apierrors.IsNotFound(err) {
			return u, nil
		}
		if err != nil {
			return User{}, err
		}
		u.UID, u.Role = known.UID, known.Role
		if len(groups) == 0 {
			u.Groups = known.Groups
		}
		return u, nil
	}
	if u.Role = s.Tokens.role(name); u.Role != None && len(groups) == 0 {
		u.Groups = named(strings.TrimPrefix(name, nodePrefix), u.Role).Groups
	}
	return u, nil
}
