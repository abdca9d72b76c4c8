package apiserver

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// defaultContainer is the annotation that names the container of a Pod that
// logs are read from when none is named.
const defaultContainer = "kubectl.kubernetes.io/default-container"

func (s *Server) logs(w http.ResponseWriter, r *http.Request) {
	if err := s.writeLogs(w, r); err != nil {
		s.fail(w, err)
	}
}

func (s *Server) writeLogs(w http.ResponseWriter, r *http.Request) error {
	var pod corev1.Pod
	key := types.NamespacedName{Namespace: r.PathValue("namespace"), Name: r.PathValue("name")}
	if err := s.Resources.Get(r.Context(), key, &pod); err != nil {
		return err
	}
	if err := s.reach(&pod); err != nil {
		return err
	}
	opts, err := logOptions(r.URL.Query())
	if err != nil {
		return err
	}
	container, err := chooseContainer(&pod, opts.Container)
	if err != nil {
		return err
	}
	if pod.Spec.NodeName == "" {
		return apierrors.NewBadRequest(fmt.Sprintf("pod %s has no node yet, so there are no logs", pod.Name))
	}
	out := &flushing{ResponseWriter: w, control: http.NewResponseController(w)}
	err = s.Logs.Logs(r.Context(), key.Namespace, key.Name, container, opts, out)
	if err == nil || r.Context().Err() != nil || out.wrote {
		if !out.wrote {
			w.Header().Set("Content-Type", "text/plain")
			w.WriteHeader(http.StatusOK)
		}
		return nil
	}
	if _, ok := err.(apierrors.APIStatus); ok {
		return err
	}
	return apierrors.NewBadRequest(err.Error())
}

// flushing sends each line as it comes.
type flushing struct {
	http.ResponseWriter
	control *http.ResponseController
	wrote   bool
}

// Write implements io.Writer.
func (f *flushing) Write(b []byte) (int, error) {
	if !f.wrote {
		f.wrote = true
		f.Header().Set("Content-Type", "text/plain")
	}
	n, err := f.ResponseWriter.Write(b)
	if err == nil {
		err = f.control.Flush()
	}
	return n, err
}

func chooseContainer(pod *corev1.Pod, name string) (string, error) {
	var names []string
	for _, c := range containersOf(pod) {
		names = append(names, c.Name)
	}
	if name == "" {
		name = pod.Annotations[defaultContainer]
	}
	if name == "" && len(pod.Spec.Containers) == 1 {
		name = names[0]
	}
	for _, n := range names {
		if n == name {
			return name, nil
		}
	}
	if name == "" {
		return "", apierrors.NewBadRequest(fmt.Sprintf("a container name must be specified for pod %s, choose one of: [%s]", pod.Name, strings.Join(names, " ")))
	}
	return "", apierrors.NewBadRequest(fmt.Sprintf("container %s is not valid for pod %s, choose one of: [%s]", name, pod.Name, strings.Join(names, " ")))
}

// containersOf are all containers of a Pod, the main ones first.
func containersOf(pod *corev1.Pod) []corev1.Container {
	out := slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers)
	for _, c := range pod.Spec.EphemeralContainers {
		// The two types have the same fields, in the same order, as their documentation promises.
		out = append(out, corev1.Container(c.EphemeralContainerCommon))
	}
	return out
}

func logOptions(q url.Values) (*corev1.PodLogOptions, error) {
	o := &corev1.PodLogOptions{Container: q.Get("container")}
	for name, to := range map[string]*bool{"follow": &o.Follow, "previous": &o.Previous, "timestamps": &o.Timestamps} {
		if v := q.Get(name); v != "" {
			b, err := strconv.ParseBool(v)
			if err != nil {
				return nil, apierrors.NewBadRequest(fmt.Sprintf("%s %q is not true or false", name, v))
			}
			*to = b
		}
	}
	for name, to := range map[string]**int64{"tailLines": &o.TailLines, "sinceSeconds": &o.SinceSeconds, "limitBytes": &o.LimitBytes} {
		if v := q.Get(name); v != "" {
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil || n < 0 {
				return nil, apierrors.NewBadRequest(fmt.Sprintf("%s %q is not a number of 0 or more", name, v))
			}
			*to = &n
		}
	}
	if v := q.Get("sinceTime"); v != "" {
		at, err := time.Parse(time.RFC3339, v)
		if err != nil {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("sinceTime %q is not a time such as 2006-01-02T15:04:05Z", v))
		}
		since := metav1.NewTime(at)
		o.SinceTime = &since
	}
	return o, nil
}
