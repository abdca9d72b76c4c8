package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFrontShowsTheBackendAndNoToken(t *testing.T) {
	backend := httptest.NewServer(newBackend("hush-hush"))
	defer backend.Close()
	notice := filepath.Join(t.TempDir(), "notice.txt")
	if err := os.WriteFile(notice, []byte("Closed on Sunday\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"GREETING": "Ahoy", "NOTICE_FILE": notice, "BACKEND_URL": backend.URL, "TOKEN": "hush-hush"}
	for _, token := range []string{"hush-hush", "wrong"} {
		env["TOKEN"] = token
		front := httptest.NewServer(newFront(func(k string) string { return env[k] }))
		for _, path := range []string{"/", "/api"} {
			resp, err := http.Get(front.URL + path)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			text := string(body)
			if !strings.Contains(text, "Ahoy") || !strings.Contains(text, "Closed on Sunday") || strings.Contains(text, "hush-hush") {
				t.Errorf("%s: %s", path, text)
			}
			if sells := strings.Contains(text, "Anchor"); sells != (token == "hush-hush") {
				t.Errorf("%s with the token %s: %s", path, token, text)
			}
		}
		front.Close()
	}
}
