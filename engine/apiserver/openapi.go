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

// documents are the OpenAPI documents, of v3 one per group and version, of v2
// one in two encodings, made by hack/openapi. They are sent as they are;
// nothing is parsed here.
//
//go:embed openapi/*.gz
var documents embed.FS

// openAPI adds the index and the documents.
func (s *Server) openAPI() {
	files, _ := documents.ReadDir("openapi") // embedded: cannot fail
	index := map[string]map[string]string{}
	s.mux.HandleFunc("GET /openapi/v2", s.openAPIv2)
	for _, f := range files {
		if strings.HasPrefix(f.Name(), "v2.") {
			continue
		}
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

// openAPIv2 sends the one document of v2: client-go wants it as protobuf.
func (s *Server) openAPIv2(w http.ResponseWriter, r *http.Request) {
	name, contentType := "openapi/v2.json.gz", "application/json"
	if strings.Contains(r.Header.Get("Accept"), "application/com.github.proto-openapi.spec.v2") {
		name, contentType = "openapi/v2.pb.gz", "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
	}
	packed, _ := documents.ReadFile(name) // embedded: cannot fail
	w.Header().Set("Content-Type", contentType)
	s.packed(w, r, packed)
}

func (s *Server) document(w http.ResponseWriter, r *http.Request, packed []byte, hash string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("ETag", `"`+hash+`"`)
	w.Header().Set("Cache-Control", "private, max-age=3600")
	s.packed(w, r, packed)
}

// packed sends what is gzipped to who takes it so, and unpacked to others.
func (s *Server) packed(w http.ResponseWriter, r *http.Request, packed []byte) {
	w.Header().Set("Vary", "Accept, Accept-Encoding")
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
