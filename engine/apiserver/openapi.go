package apiserver

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io"
	"net/http"
	"path"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// documents are the OpenAPI v3 documents, one per group and version, made by
// hack/openapi. They are sent as they are; nothing is parsed here.
//
//go:embed openapi/*.json.gz
var documents embed.FS

// openAPI adds the index and the documents.
func (s *Server) openAPI() {
	files, _ := documents.ReadDir("openapi") // embedded: cannot fail
	index := map[string]map[string]string{}
	for _, f := range files {
		packed, _ := documents.ReadFile(path.Join("openapi", f.Name())) // embedded: cannot fail
		name := strings.ReplaceAll(strings.TrimSuffix(f.Name(), ".json.gz"), "__", "/")
		sum := sha256.Sum256(packed)
		hash := strings.ToUpper(hex.EncodeToString(sum[:]))
		index[name] = map[string]string{"serverRelativeURL": "/openapi/v3/" + name + "?hash=" + hash}
		s.mux.HandleFunc("GET /openapi/v3/"+name, func(w http.ResponseWriter, r *http.Request) {
			s.document(w, r, packed, hash)
		})
	}
	s.mux.HandleFunc("GET /openapi/v3", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]any{"paths": index})
	})
}

func (s *Server) document(w http.ResponseWriter, r *http.Request, packed []byte, hash string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Vary", "Accept-Encoding")
	w.Header().Set("ETag", `"`+hash+`"`)
	w.Header().Set("Cache-Control", "private, max-age=3600")
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(packed) // the client is gone: nobody to tell
		return
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		s.fail(w, apierrors.NewInternalError(err))
		return
	}
	_, _ = io.Copy(w, z) // the client is gone: nobody to tell
}
