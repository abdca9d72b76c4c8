package resources

import (
	"errors"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"berth.dev/berth/engine/store"
)

// fault turns an error of the store into one of the API, by which a client knows
// whether it may ask again.
func fault(err error) *apierrors.StatusError {
	switch {
	case errors.Is(err, store.ErrExpired):
		return apierrors.NewResourceExpired(err.Error())
	case errors.Is(err, store.ErrUnknown):
		// As Kubernetes answers when it cannot say whether a write was carried out.
		return apierrors.NewTimeoutError(err.Error(), 0)
	case errors.Is(err, store.ErrUnavailable), errors.Is(err, store.ErrClosed), errors.Is(err, store.ErrOtherKey), errors.Is(err, store.ErrFenced):
		return apierrors.NewServiceUnavailable(err.Error())
	}
	return apierrors.NewInternalError(err)
}
