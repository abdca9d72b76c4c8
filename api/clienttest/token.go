package clienttest

import (
	"context"
	"encoding/base64"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
)

// RequestToken implements client.Client. The token has no signature; it is
// another one each time.
func (m *Memory) RequestToken(ctx context.Context, account types.NamespacedName, request *authenticationv1.TokenRequest) error {
	if err := m.Get(ctx, account, &corev1.ServiceAccount{}); err != nil {
		return err
	}
	life := int64(3600)
	if request.Spec.ExpirationSeconds != nil {
		life = *request.Spec.ExpirationSeconds
	}
	if life < 600 {
		return apierrors.NewInvalid(authenticationv1.SchemeGroupVersion.WithKind("TokenRequest").GroupKind(), account.Name, nil)
	}
	if ref := request.Spec.BoundObjectRef; ref != nil {
		var pod corev1.Pod
		if err := m.Get(ctx, types.NamespacedName{Namespace: account.Namespace, Name: ref.Name}, &pod); err != nil {
			return err
		}
		if ref.UID != "" && ref.UID != pod.UID {
			return apierrors.NewConflict(corev1.Resource("pods"), ref.Name, fmt.Errorf("its UID is %s", pod.UID))
		}
	}
	now := time.Now()
	request.Status = authenticationv1.TokenRequestStatus{
		Token:               unsigned(now, life),
		ExpirationTimestamp: metav1.NewTime(now.Add(time.Duration(life) * time.Second)),
	}
	return nil
}

// unsigned is a token that says when it was made and when it ends.
func unsigned(now time.Time, life int64) string {
	encode := base64.RawURLEncoding.EncodeToString
	payload := fmt.Sprintf(`{"iat":%d,"exp":%d,"jti":%q}`, now.Unix(), now.Unix()+life, uuid.NewUUID())
	return encode([]byte(`{"alg":"none"}`)) + "." + encode([]byte(payload)) + "."
}
