package forge

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	testingclock "k8s.io/utils/clock/testing"
)

// github is the part of the API that gives tokens. It checks who asks.
type github struct {
	public *rsa.PublicKey
	clock  *testingclock.FakeClock
	asked  int
	refuse bool
}

func (g *github) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.asked++
	parts := strings.Split(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), ".")
	if g.refuse || r.Method != http.MethodPost || r.URL.Path != "/app/installations/42/access_tokens" || len(parts) != 3 {
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"message":"A JSON web token could not be decoded"}`)
		return
	}
	signature, _ := base64.RawURLEncoding.DecodeString(parts[2])
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	var claims struct {
		Iss      string
		Iat, Exp int64
	}
	body, _ := base64.RawURLEncoding.DecodeString(parts[1])
	now := g.clock.Now().Unix()
	if rsa.VerifyPKCS1v15(g.public, crypto.SHA256, sum[:], signature) != nil || json.Unmarshal(body, &claims) != nil ||
		claims.Iss != "7" || claims.Iat > now || claims.Exp < now || claims.Exp-claims.Iat > 600 {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	w.WriteHeader(http.StatusCreated)
	fmt.Fprintf(w, `{"token":"token-%d","expires_at":%q}`, g.asked, g.clock.Now().Add(time.Hour).Format(time.RFC3339))
}

func TestGitHubApp(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text := func(kind string, der []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	g := &github{public: &key.PublicKey, clock: testingclock.NewFakeClock(time.Now())}
	server := httptest.NewServer(g)
	t.Cleanup(server.Close)
	apps := &Apps{HTTP: server.Client(), Clock: g.clock}
	app := App{ID: "7", Installation: "42", Key: text("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key)), BaseURL: server.URL + "/"}
	ask := func(want string) {
		t.Helper()
		if got, err := apps.Token(t.Context(), app); err != nil || got != want {
			t.Errorf("%v, token %s, want %s", err, got, want)
		}
	}
	ask("token-1")
	ask("token-1")
	g.clock.Step(54 * time.Minute)
	ask("token-1")
	g.clock.Step(2 * time.Minute) // it is asked for anew before it ends
	ask("token-2")
	app.Key = text("PRIVATE KEY", pkcs8)
	ask("token-3")

	for name, c := range map[string]struct {
		app  App
		want string
	}{
		"another key":          {App{ID: "7", Installation: "42", Key: text("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(other)), BaseURL: server.URL}, "401"},
		"another installation": {App{ID: "7", Installation: "../x", Key: app.Key, BaseURL: server.URL}, "A JSON web token could not be decoded"},
		"no key":               {App{ID: "7", Installation: "42", Key: []byte("hunter2"), BaseURL: server.URL}, "is not PEM"},
		"no address":           {App{ID: "7", Installation: "42", Key: app.Key, BaseURL: ":"}, "githubAppBaseURL"},
	} {
		if _, err := apps.Token(t.Context(), c.app); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
