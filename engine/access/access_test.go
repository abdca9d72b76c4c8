package access_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth.dev/berth/engine/access"
)

func adminToken(t *testing.T, dir string) string {
	t.Helper()
	b, err := os.ReadFile(access.AdminTokenFile(dir))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func open(t *testing.T, dir string) *access.Tokens {
	t.Helper()
	tokens, err := access.OpenTokens(dir)
	if err != nil {
		t.Fatal(err)
	}
	return tokens
}

func TestFirstStartMakesAnAdministrator(t *testing.T) {
	dir := t.TempDir()
	// A file that somebody left readable does not stay so.
	if err := os.WriteFile(access.AdminTokenFile(dir), []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second start reads what the first has made
		tokens := open(t, dir)
		if u, ok := tokens.Check(adminToken(t, dir)); !ok || u.Name != "admin" || u.Role != access.Admin {
			t.Errorf("%+v %v", u, ok)
		}
		for _, wrong := range []string{"", "x", adminToken(t, dir) + "x", adminToken(t, dir)[1:]} {
			if u, ok := tokens.Check(wrong); ok {
				t.Errorf("%q opens for %+v", wrong, u)
			}
		}
	}
	for _, name := range []string{"admin.token", "tokens"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v %v", name, info.Mode(), err)
		}
	}
	hashes, err := os.ReadFile(filepath.Join(dir, "tokens"))
	if err != nil || strings.Contains(string(hashes), adminToken(t, dir)) {
		t.Errorf("%v: the file of the tokens holds one in plain text", err)
	}
}

func TestTokensAreRandom(t *testing.T) {
	if a, b := access.NewToken(), access.NewToken(); a == b || len(a) < 43 {
		t.Errorf("%q and %q", a, b)
	}
}

func TestDamagedTokensNameTheLineAndTheRemedy(t *testing.T) {
	good := strings.Repeat("ab", 32)
	for content, want := range map[string]string{
		good + " admin ann\nnonsense\n": "tokens:2 is not",
		good + " king ann\n":            "tokens:1 is not",
		"abcd admin ann\n":              "tokens:1 is not",
		good + " admin\n":               "tokens:1 is not",
		"":                              "holds none, so nobody could log in",
		"\n\n":                          "holds none, so nobody could log in",
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "tokens"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := access.OpenTokens(dir)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "remove the file and start again") {
			t.Errorf("%q: %v", content, err)
		}
		if err != nil && strings.Contains(err.Error(), good) {
			t.Errorf("the error shows a hash: %v", err)
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "tokens"), []byte("\n"+good+" viewer vic\n\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
}

func TestWhoARequestIsFrom(t *testing.T) {
	dir := t.TempDir()
	users := &access.Users{Tokens: open(t, dir)}
	token := adminToken(t, dir)
	cookie := "berth_token=" + token
	for _, c := range []struct {
		what, method string
		header       map[string]string
		basic        string
		want         bool
	}{
		{"nothing", "GET", nil, "", false},
		{"a bearer token", "POST", map[string]string{"Authorization": "Bearer " + token}, "", true},
		{"a wrong bearer token", "GET", map[string]string{"Authorization": "Bearer x"}, "", false},
		{"a wrong bearer token and the cookie", "GET", map[string]string{"Authorization": "Bearer x", "Cookie": cookie}, "", false},
		{"git's password", "POST", nil, token, true},
		{"a wrong password", "GET", nil, "x", false},
		{"the cookie reads", "GET", map[string]string{"Cookie": cookie}, "", true},
		{"a wrong cookie", "GET", map[string]string{"Cookie": "berth_token=x"}, "", false},
		{"the cookie of our own page writes", "POST", map[string]string{"Cookie": cookie, "Sec-Fetch-Site": "same-origin"}, "", true},
		{"the cookie from another site", "POST", map[string]string{"Cookie": cookie, "Sec-Fetch-Site": "cross-site"}, "", false},
		{"the cookie from a sibling", "DELETE", map[string]string{"Cookie": cookie, "Sec-Fetch-Site": "same-site"}, "", false},
		{"the cookie from nobody knows where", "POST", map[string]string{"Cookie": cookie}, "", false},
		{"the cookie of our own page opens a stream", "GET", map[string]string{"Cookie": cookie, "Upgrade": "websocket", "Sec-Fetch-Site": "same-origin"}, "", true},
		{"the cookie from another site opens a stream", "GET", map[string]string{"Cookie": cookie, "Upgrade": "websocket", "Sec-Fetch-Site": "cross-site"}, "", false},
	} {
		r := httptest.NewRequest(c.method, "/", nil)
		for k, v := range c.header {
			r.Header.Set(k, v)
		}
		if c.basic != "" {
			r.SetBasicAuth("git", c.basic)
		}
		if u, ok := users.Request(r); ok != c.want || (ok && u.Role != access.Admin) {
			t.Errorf("%s: %+v %v", c.what, u, ok)
		}
	}
}

func TestTheCookieStaysWithTheServer(t *testing.T) {
	w := httptest.NewRecorder()
	r := httptest.NewRequest("POST", "https://berth/login", nil)
	access.Login(w, r, "token")
	c := w.Result().Cookies()[0]
	if !c.HttpOnly || !c.Secure || c.SameSite != http.SameSiteStrictMode || c.Value != "token" {
		t.Errorf("%+v", c)
	}
	w = httptest.NewRecorder()
	access.Logout(w)
	if c := w.Result().Cookies()[0]; c.MaxAge >= 0 || c.Value != "" {
		t.Errorf("%+v", c)
	}
}

func presented(t *testing.T, config *tls.Config) *x509.Certificate {
	t.Helper()
	cert, err := config.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

func TestTheCertificateIsRenewedBeforeItEnds(t *testing.T) {
	now := time.Now()
	config, err := access.ServerTLS(t.TempDir(), []string{"localhost"}, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	first := presented(t, config)
	now = now.Add(100 * 24 * time.Hour)
	if again := presented(t, config); !again.Equal(first) {
		t.Error("it was renewed long before its end")
	}
	now = first.NotAfter.Add(-24 * time.Hour)
	if next := presented(t, config); !next.NotAfter.After(now.Add(300 * 24 * time.Hour)) {
		t.Errorf("a day before its end it lasts until %v", next.NotAfter)
	}
}

func TestTheCertificateIsOfItsNamesAndItsAuthority(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	names := []string{"localhost", "127.0.0.1", "::1", "node-1"}
	var first []byte
	for start := range 2 {
		config, err := access.ServerTLS(dir, names, func() time.Time { return now })
		if err != nil {
			t.Fatal(err)
		}
		ca, err := os.ReadFile(access.CAFile(dir))
		if err != nil {
			t.Fatal(err)
		}
		if start == 0 {
			first = ca
		} else if string(first) != string(ca) {
			t.Error("a second start made another authority")
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(ca)
		leaf := presented(t, config)
		for _, name := range names {
			if _, err := leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, CurrentTime: now}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := leaf.Verify(x509.VerifyOptions{DNSName: "elsewhere", Roots: roots, CurrentTime: now}); err == nil {
			t.Error("it is also of elsewhere")
		}
		if config.MinVersion < tls.VersionTLS12 || leaf.IsCA {
			t.Errorf("minimum %x, authority %v", config.MinVersion, leaf.IsCA)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "ca.key")); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
}

func TestAnAuthorityIsNotReplacedInSilence(t *testing.T) {
	dir := t.TempDir()
	if _, err := access.ServerTLS(dir, nil, time.Now); err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(dir, "ca.key")
	if err := os.WriteFile(key, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := access.ServerTLS(dir, nil, time.Now); err == nil || !strings.Contains(err.Error(), "ca.key") {
		t.Errorf("with a damaged key: %v", err)
	}
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	if _, err := access.ServerTLS(dir, nil, time.Now); err == nil || !strings.Contains(err.Error(), "every client must then be told") {
		t.Errorf("without its key: %v", err)
	}
	if err := os.Remove(access.CAFile(dir)); err != nil {
		t.Fatal(err)
	}
	if _, err := access.ServerTLS(dir, nil, time.Now); err != nil {
		t.Errorf("anew: %v", err)
	}
}

func TestCredentialsStayHere(t *testing.T) {
	h := http.Header{"Authorization": {"Bearer x"}, "Cookie": {"a=1; berth_token=secret; b=2"}}
	access.Withhold(h)
	if got := h.Get("Authorization") + strings.Join(h.Values("Cookie"), ";"); got != "a=1;b=2" {
		t.Errorf("what goes on to another server is %q", got)
	}
	h = http.Header{"Set-Cookie": {"berth_token=mine; Path=/", "a=1; Path=/"}}
	access.KeepOut(h)
	if got := h.Values("Set-Cookie"); len(got) != 1 || got[0] != "a=1; Path=/" {
		t.Errorf("what comes from another server sets %q", got)
	}
}
