// Package proxy writes rules.
package proxy

import (
	"context"
	"log/slog"
	"net/netip"

	"berth.dev/berth/nodeagent/services"
)

type Options struct {
	Services             *services.Index
	PodCIDR, ClusterCIDR netip.Prefix
	Log                  *slog.Logger
}
type Proxy struct{ opts Options }

func New(opts Options) *Proxy { return &Proxy{opts} }

func (s *Proxy) Run(ctx context.Context) error { <-ctx.Done(); return nil }
