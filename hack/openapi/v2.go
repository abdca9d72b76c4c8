package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	openapiv2 "github.com/google/gnostic-models/openapiv2"
	"google.golang.org/protobuf/proto"

	"berth.dev/berth/engine/resources"
)

// swagger is an OpenAPI v2 document, as far as it matters here.
type swagger struct {
	Swagger     string                    `json:"swagger"`
	Info        map[string]any            `json:"info"`
	Parameters  map[string]any            `json:"parameters,omitempty"`
	Paths       map[string]map[string]any `json:"paths"`
	Definitions map[string]any            `json:"definitions"`
}

// writeV2 writes the document for clients that know only OpenAPI v2, as JSON
// and as the protobuf that client-go asks for.
func writeV2(spec, out string) error {
	b, err := os.ReadFile(spec)
	if err != nil {
		return err
	}
	d := &swagger{}
	if err := json.Unmarshal(b, d); err != nil {
		return err
	}
	limit(d.Paths, servedV2)
	d.prune()
	if b, err = json.Marshal(d); err != nil {
		return err
	}
	document, err := openapiv2.ParseDocument(b)
	if err != nil {
		return fmt.Errorf("read back the cut document: %w", err)
	}
	message, err := proto.MarshalOptions{Deterministic: true}.Marshal(document)
	if err != nil {
		return err
	}
	if err := writePacked(filepath.Join(out, "v2.json.gz"), b); err != nil {
		return err
	}
	return writePacked(filepath.Join(out, "v2.pb.gz"), message)
}

func servedV2(path string) []string {
	for _, r := range slices.Concat(resources.Table(), resources.Reviews()) {
		base := "/api/" + r.Version + "/"
		if r.Group != "" {
			base = "/apis/" + r.Group + "/" + r.Version + "/"
		}
		if !strings.HasPrefix(path, base) {
			continue
		}
		if methods := served(path, []*resources.Resource{r}); methods != nil {
			return methods
		}
	}
	return nil
}

// prune drops the definitions and parameters that no path leads to.
func (d *swagger) prune() {
	const definitions, parameters = "#/definitions/", "#/parameters/"
	used := reached(d.Paths, func(ref string) any {
		if name, ok := strings.CutPrefix(ref, definitions); ok {
			return d.Definitions[name]
		}
		return d.Parameters[strings.TrimPrefix(ref, parameters)]
	})
	maps.DeleteFunc(d.Definitions, func(name string, _ any) bool { return !used[definitions+name] })
	maps.DeleteFunc(d.Parameters, func(name string, _ any) bool { return !used[parameters+name] })
}

// writePacked gzips a file; the same content gives the same bytes.
func writePacked(path string, b []byte) error {
	var packed bytes.Buffer
	z, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := z.Write(b); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return os.WriteFile(path, packed.Bytes(), 0o644)
}
