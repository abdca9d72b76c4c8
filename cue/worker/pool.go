// Package worker runs work in processes of their own, which are ended when they
// take too long or grow too large: what they are given is hostile, and nothing
// but the end of a process ends it for certain. It knows nothing of what the
// work is. Work is bytes in, bytes out; one process does one piece at a time.
package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"sync"
	"time"
)

// Options of a Pool. All must be set.
type Options struct {
	// Command makes the command of a process, which calls Serve.
	Command func() *exec.Cmd
	// Max is how many processes work at a time.
	Max int
	// Idle is how long a process that has nothing to do is kept.
	Idle time.Duration
	Log  *slog.Logger
}

// Limits of one piece of work.
type Limits struct {
	// Memory in bytes that the process may use.
	Memory int64
	// Timeout is how long the work may take.
	Timeout time.Duration
}

// The ways to exceed Limits.
var (
	ErrMemory  = errors.New("it used more memory than it may")
	ErrTimeout = errors.New("it took longer than it may")
)

// DiedError says that a process ended by itself.
type DiedError struct {
	// Reason is the first line that it left, or how it ended.
	Reason string
}

func (e *DiedError) Error() string { return "the process ended: " + e.Reason }

// Pool hands work to processes. It is safe for concurrent use.
type Pool struct {
	Options
	turns chan struct{}

	mu     sync.Mutex
	idle   []*process
	closed bool
}

// New makes a Pool. It starts no process.
func New(o Options) *Pool { return &Pool{Options: o, turns: make(chan struct{}, o.Max)} }

// Do has a piece of work done. The error is ErrMemory or ErrTimeout for work that
// exceeds its limits, a *DiedError for work that ends its process, the
// context's when that ends first; any other says that there is no process.
func (p *Pool) Do(ctx context.Context, work []byte, l Limits) ([]byte, error) {
	select {
	case p.turns <- struct{}{}:
		defer func() { <-p.turns }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	w, err := p.take()
	if err != nil {
		return nil, err
	}
	out, err := w.do(ctx, work, l)
	if err != nil || w.large() {
		w.end()
		return out, err
	}
	p.put(w)
	return out, nil
}

// Warm starts a process if none waits, so that work which is about to come finds one.
func (p *Pool) Warm() {
	p.mu.Lock()
	waits := len(p.idle) > 0 || p.closed
	p.mu.Unlock()
	if waits || len(p.turns) > 0 {
		return
	}
	w, err := p.take()
	if err != nil {
		p.Log.Warn("start a process of the compiler", "err", err)
		return
	}
	p.put(w)
}

// Close ends all processes that do nothing. Those that work end with their work.
func (p *Pool) Close() {
	p.mu.Lock()
	idle := p.idle
	p.idle, p.closed = nil, true
	p.mu.Unlock()
	for _, w := range idle {
		w.retire.Stop()
		w.end()
	}
}

// take is the process that was idle last, or a new one.
func (p *Pool) take() (*process, error) {
	for {
		p.mu.Lock()
		n := len(p.idle)
		if n == 0 {
			p.mu.Unlock()
			return start(p.Command())
		}
		w := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		if w.retire.Stop() && w.alive() {
			return w, nil
		}
		w.end()
	}
}

func (p *Pool) put(w *process) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		go w.end()
		return
	}
	p.idle = append(p.idle, w)
	w.retire = time.AfterFunc(p.Idle, func() { p.drop(w) })
}

// drop ends a process that has been idle for long.
func (p *Pool) drop(w *process) {
	p.mu.Lock()
	for i, other := range p.idle {
		if other == w {
			p.idle = append(p.idle[:i:i], p.idle[i+1:]...)
			p.mu.Unlock()
			w.end()
			return
		}
	}
	p.mu.Unlock() // somebody has taken it
}

// String is the limits in words.
func (l Limits) String() string {
	return fmt.Sprintf("%d MiB, %s", l.Memory>>20, l.Timeout)
}
