package forge

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"k8s.io/utils/clock"
)

const (
	// githubAPI is where the API is unless a Secret says otherwise.
	githubAPI = "https://api.github.com"
	// jwtLife is how long the App's own token is good for; GitHub takes 10
	// minutes at most, and its clock may be behind.
	jwtLife = 9 * time.Minute
	jwtSkew = time.Minute
	// renewBefore the end of an installation's token another one is asked for.
	renewBefore   = 5 * time.Minute
	maxTokens     = 200
	longestAnswer = 64 << 10
)

// App is an installation of a GitHub App, as its Secret says.
type App struct {
	ID, Installation string
	// Key is the App's private key, as PEM.
	Key []byte
	// BaseURL of the API; empty is GitHub's own.
	BaseURL string
}

// Apps asks for the tokens of installations, and keeps them while they are good.
// It is safe for concurrent use.
type Apps struct {
	// HTTP sends the requests. *http.Client is one.
	HTTP interface {
		Do(*http.Request) (*http.Response, error)
	}
	Clock clock.PassiveClock

	mu     sync.Mutex
	tokens map[[sha256.Size]byte]installationToken
}

type installationToken struct {
	Token   string    `json:"token"`
	Expires time.Time `json:"expires_at"`
}

// Token is what opens the repositories of an installation: the password of the
// user x-access-token. No error holds it or the key.
func (a *Apps) Token(ctx context.Context, app App) (string, error) {
	key := sha256.Sum256(bytes.Join([][]byte{[]byte(app.ID), []byte(app.Installation), []byte(app.BaseURL), app.Key}, []byte{0}))
	now := a.Clock.Now()
	a.mu.Lock()
	t, ok := a.tokens[key]
	a.mu.Unlock()
	if ok && now.Add(renewBefore).Before(t.Expires) {
		return t.Token, nil
	}
	t, err := a.ask(ctx, app, now)
	if err != nil {
		return "", fmt.Errorf("get the token of GitHub App %s: %w", app.ID, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.tokens == nil || len(a.tokens) >= maxTokens {
		a.tokens = map[[sha256.Size]byte]installationToken{}
	}
	a.tokens[key] = t
	return t.Token, nil
}

// ask gets a token (GitHub REST API, "Create an installation access token for an app").
func (a *Apps) ask(ctx context.Context, app App, now time.Time) (installationToken, error) {
	var t installationToken
	jwt, err := app.jwt(now)
	if err != nil {
		return t, err
	}
	base := strings.TrimSuffix(app.BaseURL, "/")
	if base == "" {
		base = githubAPI
	}
	address := base + "/app/installations/" + url.PathEscape(app.Installation) + "/access_tokens"
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, http.NoBody)
	if err != nil {
		return t, errors.New("githubAppBaseURL is no URL")
	}
	req.Header.Set("Authorization", "Bearer "+jwt)
	req.Header.Set("Accept", "application/vnd.github+json")
	response, err := a.HTTP.Do(req)
	if err != nil {
		return t, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, longestAnswer))
	if err != nil {
		return t, err
	}
	if response.StatusCode != http.StatusCreated {
		var why struct{ Message string }
		_ = json.Unmarshal(body, &why) // an answer that is no JSON has no message
		return t, fmt.Errorf("the API answered %s %q; look at githubAppID, githubAppInstallationID and githubAppPrivateKey of the Secret", response.Status, why.Message)
	}
	if err := json.Unmarshal(body, &t); err != nil || t.Token == "" {
		return t, errors.New("the API answered without a token")
	}
	return t, nil
}

// jwt is the App's own token: RS256, RFC 7519.
func (app App) jwt(now time.Time) (string, error) {
	key, err := privateKey(app.Key)
	if err != nil {
		return "", err
	}
	claims, err := json.Marshal(map[string]any{"iat": now.Add(-jwtSkew).Unix(), "exp": now.Add(jwtLife).Unix(), "iss": app.ID})
	if err != nil {
		return "", err
	}
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + encode(claims)
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		return "", errors.New("githubAppPrivateKey cannot sign")
	}
	return signed + "." + encode(signature), nil
}

func privateKey(text []byte) (*rsa.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("githubAppPrivateKey is not PEM, as in the file that GitHub gives")
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := parsed.(*rsa.PrivateKey)
	if err != nil || !ok {
		return nil, errors.New("githubAppPrivateKey is no RSA key")
	}
	return key, nil
}
