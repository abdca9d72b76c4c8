package apiserver

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	kyaml "sigs.k8s.io/yaml"

	"berth.dev/berth/engine/resources"
)

// form is what of an object is sent.
type form int

const (
	formObject form = iota
	formTable
	formPartial
)

// accept is how an answer is sent.
type accept struct {
	form  form
	media string
}

const mediaYAML = "application/yaml"

// parseAccept takes the first clause of the header that can be served: a Table
// and a kind of Berth's own have no protobuf form. It fails with 406.
func parseAccept(header string, row *resources.Resource) (accept, error) {
	header = strings.ReplaceAll(header, " ", "")
	if header == "" {
		return accept{media: runtime.ContentTypeJSON}, nil
	}
	for clause := range strings.SplitSeq(header, ",") {
		parts := strings.Split(clause, ";")
		a := accept{media: parts[0]}
		switch parts[0] {
		case "*/*", "application/*":
			a.media = runtime.ContentTypeJSON
		case runtime.ContentTypeJSON, mediaYAML:
		case runtime.ContentTypeProtobuf:
			if _, ok := row.New().(interface{ Marshal() ([]byte, error) }); !ok {
				continue
			}
		default:
			continue
		}
		switch {
		case slices.Contains(parts, "as=Table"):
			if !slices.Contains(parts, "v=v1") || a.media == runtime.ContentTypeProtobuf {
				continue
			}
			a.form = formTable
		case slices.Contains(parts, "as=PartialObjectMetadata"), slices.Contains(parts, "as=PartialObjectMetadataList"):
			a.form = formPartial
		}
		return a, nil
	}
	return accept{}, &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotAcceptable, Reason: metav1.StatusReasonNotAcceptable,
		Message: "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf",
	}}
}

// encode writes what render made.
func encode(w io.Writer, media string, v any) error {
	switch media {
	case runtime.ContentTypeProtobuf:
		return protobuf.NewSerializer(nil, nil).Encode(v.(runtime.Object), w)
	case mediaYAML:
		b, err := kyaml.Marshal(v)
		if err != nil {
			return err
		}
		_, err = w.Write(b)
		return err
	}
	return json.NewEncoder(w).Encode(v)
}

// answer writes an object in the form that the client asked for.
func (s *Server) answer(w http.ResponseWriter, q *request, code int, obj runtime.Object) error {
	body, err := s.body(q, obj)
	if err != nil {
		return err
	}
	s.send(w, q, code, body)
	return nil
}

// body is an answer as it is sent.
func (s *Server) body(q *request, obj runtime.Object) ([]byte, error) {
	out, err := s.render(q, obj)
	if err != nil {
		return nil, err
	}
	var body bytes.Buffer
	if err := encode(&body, q.accept.media, out); err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	return body.Bytes(), nil
}

func (s *Server) send(w http.ResponseWriter, q *request, code int, body ...[]byte) {
	for _, text := range q.warnings {
		w.Header().Add("Warning", `299 - `+strconv.Quote(text))
	}
	w.Header().Set("Content-Type", q.accept.media)
	w.Header().Set("Cache-Control", "no-cache, private")
	w.WriteHeader(code)
	for _, part := range body {
		if _, err := w.Write(part); err != nil {
			return // the client is gone: nobody to tell
		}
	}
}
