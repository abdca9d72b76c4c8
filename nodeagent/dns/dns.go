// Package dns will answer names.
package dns

import (
	"context"
	"log/slog"
	"net/netip"

	"berth.dev/berth/nodeagent/services"
)

type Options struct {
	Services *services.Index
	Domain   string
	Listen   netip.AddrPort
	Log      *slog.Logger
}
type Server struct{ opts Options }

func New(opts Options) *Server { return &Server{opts} }

func (s *Server) Run(ctx context.Context) error { <-ctx.Done(); return nil }
