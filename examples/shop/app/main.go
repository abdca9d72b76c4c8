// Command shop is the example's program: one binary, "shop front" or "shop backend".
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	role := ""
	if len(os.Args) > 1 {
		role = os.Args[1]
	}
	var handler http.Handler
	switch role {
	case "front":
		handler = newFront(os.Getenv)
	case "backend":
		if os.Getenv("TOKEN") == "" {
			log.Error("TOKEN is not set: give it through the Secret")
			os.Exit(1)
		}
		handler = newBackend(os.Getenv("TOKEN"))
	default:
		log.Error("usage: shop front|backend")
		os.Exit(2)
	}
	if err := serve(ctx, log, handler); err != nil {
		log.Error("serve", "error", err)
		os.Exit(1)
	}
}

// serve listens on PORT, default 8080, until ctx ends, and then lets the requests
// that are under way finish.
func serve(ctx context.Context, log *slog.Logger, handler http.Handler) error {
	port := os.Getenv("PORT")
	if port == "" {
		port = "8080"
	}
	server := &http.Server{Addr: ":" + port, Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	log.Info("listening", "port", port)
	select {
	case err := <-failed:
		return fmt.Errorf("listen on port %s: %w", port, err)
	case <-ctx.Done():
	}
	// New connections may still be on their way here for a moment.
	time.Sleep(500 * time.Millisecond)
	end, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	log.Info("stopping")
	if err := server.Shutdown(end); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("shut down: %w", err)
	}
	return nil
}
