// Package web is the status page.
package web

import (
	"log/slog"
	"net/http"

	"berth.dev/berth/engine/access"
	"berth.dev/berth/engine/live"
	"berth.dev/berth/engine/resources"
)

// Options are what the page is made of. All must be set.
type Options struct {
	Live      *live.Cluster
	Resources *resources.Resources
	Tokens    *access.Tokens
	Version   string
	Log       *slog.Logger
}

// New makes the handler of the page.
func New(o Options) http.Handler { return http.NotFoundHandler() }
