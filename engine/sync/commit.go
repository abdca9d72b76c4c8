package sync

import (
	"context"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// writeTimeout bounds a write that goes on though its runner is to end.
const writeTimeout = 5 * time.Second

// lasting is for a write whose end is waited for, also by a runner that is to end:
// one that is let go could land after its successor has begun.
func lasting(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
}

// commit carries the next part of a plan out.
func commit(ctx context.Context, out Outcome) error {
	ctx, cancel := lasting(ctx)
	defer cancel()
	return out.tx.Commit(ctx)
}

func changedMeanwhile(err error) bool {
	return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err)
}
