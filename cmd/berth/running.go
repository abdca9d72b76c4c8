package main

import (
	"context"

	"berth.dev/berth/engine/store"
)

// runner is a store as its engine makes it.
type runner interface {
	store.Store
	Run(ctx context.Context) error
}

// running is a store that works in the background until it is closed.
type running struct {
	runner
	stop  context.CancelFunc
	ended chan struct{}
	err   error
}

func startStore(r runner) *running {
	ctx, stop := context.WithCancel(context.Background())
	s := &running{runner: r, stop: stop, ended: make(chan struct{})}
	go func() {
		defer close(s.ended)
		s.err = r.Run(ctx)
	}()
	return s
}

// close ends the store and waits until what was acknowledged is on disk.
func (s *running) close() error {
	s.stop()
	<-s.ended
	return s.err
}
