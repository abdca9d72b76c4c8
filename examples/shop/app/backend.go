package main

import (
	"crypto/subtle"
	"encoding/json"
	"net/http"
	"os"
)

// product is what the shop sells.
type product struct {
	Name  string `json:"name"`
	Cents int    `json:"cents"`
}

// catalogue is the backend's answer.
type catalogue struct {
	Host     string    `json:"host"`
	Products []product `json:"products"`
}

// newBackend serves the products to whoever knows the token.
func newBackend(token string) http.Handler {
	host, _ := os.Hostname()
	answer := catalogue{Host: host, Products: []product{{"Rope, 30 m", 4900}, {"Anchor, 10 kg", 12900}, {"Fender", 1900}}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /products", func(w http.ResponseWriter, r *http.Request) {
		if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), []byte("Bearer "+token)) != 1 {
			http.Error(w, "the token is wrong", http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer)
	})
	return mux
}
