package main

import (
	"context"
	"log/slog"

	"k8s.io/klog/v2"
)

// quietLibraries sends what Kubernetes' libraries log to our own log, as debug:
// to them a client that went away is an error.
func quietLibraries(log *slog.Logger) { klog.SetSlogLogger(slog.New(lowered{log.Handler()})) }

// lowered makes debug messages of all it is given.
type lowered struct{ slog.Handler }

// Enabled implements slog.Handler.
func (l lowered) Enabled(ctx context.Context, _ slog.Level) bool {
	return l.Handler.Enabled(ctx, slog.LevelDebug)
}

// Handle implements slog.Handler.
func (l lowered) Handle(ctx context.Context, r slog.Record) error {
	r.Level = slog.LevelDebug
	return l.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (l lowered) WithAttrs(attrs []slog.Attr) slog.Handler {
	return lowered{l.Handler.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (l lowered) WithGroup(name string) slog.Handler { return lowered{l.Handler.WithGroup(name)} }
