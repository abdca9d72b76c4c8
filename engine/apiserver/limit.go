package apiserver

import (
	"context"
	"net/http"
	"runtime"
	"strconv"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"berth.dev/berth/engine/access"
)

const (
	// smallList is the largest limit of a list that needs no turn.
	smallList = 500
	// listWait is how long a large list waits for its turn.
	listWait = 20 * time.Second
)

// turns are taken by what costs much: lists without a small limit. A user has
// one at a time and all together have half the processors, so that heartbeats,
// watches and single objects are never behind them.
type turns struct {
	all chan struct{}

	mu     sync.Mutex
	byUser map[string]*userTurn
}

type userTurn struct {
	turn chan struct{}
	// waiting or working requests, under turns.mu.
	users int
}

func newTurns() *turns {
	return &turns{all: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)), byUser: map[string]*userTurn{}}
}

// take blocks until it is the user's turn. It fails with TooManyRequests when
// the turn does not come. A nil turn is one that nobody waits for.
func (t *turns) take(ctx context.Context, user string) (*turn, error) {
	ctx, cancel := context.WithTimeout(ctx, listWait)
	defer cancel()
	own := t.enter(user)
	select {
	case own.turn <- struct{}{}:
	case <-ctx.Done():
		t.leave(user)
		return nil, busy()
	}
	select {
	case t.all <- struct{}{}:
	case <-ctx.Done():
		<-own.turn
		t.leave(user)
		return nil, busy()
	}
	return &turn{computed: sync.OnceFunc(func() { <-t.all }), sent: func() {
		<-own.turn
		t.leave(user)
	}}, nil
}

// turn is held in two parts: the processor until the answer is computed, the
// user's own until it is sent, however slowly the client takes it.
type turn struct{ computed, sent func() }

// compute says that the rest is only to be sent.
func (t *turn) compute() {
	if t != nil {
		t.computed()
	}
}

// end gives everything back.
func (t *turn) end() {
	if t != nil {
		t.computed()
		t.sent()
	}
}

func (t *turns) enter(user string) *userTurn {
	t.mu.Lock()
	defer t.mu.Unlock()
	own := t.byUser[user]
	if own == nil {
		own = &userTurn{turn: make(chan struct{}, 1)}
		t.byUser[user] = own
	}
	own.users++
	return own
}

func (t *turns) leave(user string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if own := t.byUser[user]; own != nil {
		if own.users--; own.users == 0 {
			delete(t.byUser, user)
		}
	}
}

func busy() error {
	return apierrors.NewTooManyRequests("the server is busy with large lists; list with a limit, watch instead, or try again", 1)
}

// turn takes a turn for a list, unless it is a small one.
func (s *Server) turn(q *request, limit int) (*turn, error) {
	if limit > 0 && limit <= smallList {
		return nil, nil
	}
	t, err := s.turns.take(q.Context(), turnName(q.user))
	if err != nil {
		s.metrics.refused.WithLabelValues("list-turn").Inc()
	}
	return t, err
}

func turnName(u access.User) string { return string(u.Role) + "/" + u.Name }

// retryAfter tells a client that was refused when to come again.
func retryAfter(w http.ResponseWriter, err error) {
	if seconds, ok := apierrors.SuggestsClientDelay(err); ok && seconds > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(seconds))
	}
}
