package apiserver

import (
	"context"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

func TestLargeListsTakeTurns(t *testing.T) {
	turns := newTurns()
	for len(turns.all) < cap(turns.all)-1 { // one processor is left for lists
		turns.all <- struct{}{}
	}
	soon := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	first, err := turns.take(t.Context(), "ann")
	if err != nil {
		t.Fatal(err)
	}
	for user, why := range map[string]string{"ann": "her own list is under way", "bob": "another's is computed"} {
		if _, err := turns.take(soon(), user); !apierrors.IsTooManyRequests(err) {
			t.Errorf("%s, while %s: %v, want too many requests", user, why, err)
		}
	}
	// The first is being sent, to a client that takes it slowly.
	first.compute()
	if _, err := turns.take(soon(), "ann"); !apierrors.IsTooManyRequests(err) {
		t.Errorf("a second list of the same user: %v, want too many requests", err)
	}
	second, err := turns.take(soon(), "bob")
	if err != nil {
		t.Fatalf("another user's list behind a slow client: %v", err)
	}
	second.end()
	first.end()
	again, err := turns.take(soon(), "ann")
	if err != nil {
		t.Fatalf("after the end: %v", err)
	}
	again.end()
	if len(turns.byUser) != 0 {
		t.Errorf("%d users are still noted", len(turns.byUser))
	}
}
