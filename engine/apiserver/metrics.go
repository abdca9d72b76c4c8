package apiserver

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"berth.dev/berth/engine/resources"
)

// metrics count what the API does, under the names that dashboards for
// Kubernetes know.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	watches  *prometheus.GaugeVec
	refused  *prometheus.CounterVec
}

func newMetrics(res *resources.Resources) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apiserver_request_total", Help: "Requests by verb, kind and HTTP code.",
		}, []string{"verb", "group", "version", "resource", "subresource", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "apiserver_request_duration_seconds", Help: "How long requests took, watches left out.",
			Buckets: []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10},
		}, []string{"verb", "group", "version", "resource", "subresource"}),
		watches: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "apiserver_longrunning_requests", Help: "Watches that are open.",
		}, []string{"verb", "group", "version", "resource"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apiserver_rejected_requests_total", Help: "Requests that were told to come again later, by reason.",
		}, []string{"reason"}),
	}
	revision := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "berth_store_revision", Help: "Revision of the last write to the store.",
	}, func() float64 { return float64(res.Revision()) })
	m.registry.MustRegister(m.requests, m.duration, m.watches, m.refused, revision,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// verb is Kubernetes' word for what a request does.
func (q *request) verb() string {
	many := q.name == ""
	switch q.Method {
	case http.MethodGet:
		switch w := q.URL.Query().Get("watch"); {
		case w == "true" || w == "1":
			return "watch"
		case many:
			return "list"
		}
		return "get"
	case http.MethodPost:
		return "create"
	case http.MethodPut:
		return "update"
	case http.MethodPatch:
		if q.Header.Get("Content-Type") == "application/apply-patch+yaml" {
			return "apply"
		}
		return "patch"
	case http.MethodDelete:
		if many {
			return "deletecollection"
		}
		return "delete"
	}
	return "other"
}

// observe notes a request when it has ended.
func (m *metrics) observe(q *request, code int, took time.Duration) {
	verb, r := q.verb(), q.row
	m.requests.WithLabelValues(verb, r.Group, r.Version, r.Plural, q.subresource, strconv.Itoa(code)).Inc()
	if verb != "watch" {
		m.duration.WithLabelValues(verb, r.Group, r.Version, r.Plural, q.subresource).Observe(took.Seconds())
	}
}

// recorder notes the code of an answer.
type recorder struct {
	http.ResponseWriter
	code int
}

// WriteHeader implements http.ResponseWriter.
func (r *recorder) WriteHeader(code int) {
	r.code = code
	r.ResponseWriter.WriteHeader(code)
}

// Unwrap lets http.ResponseController find what the connection can do.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
