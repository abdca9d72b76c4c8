// Package event writes Kubernetes Events: one object per thing said of an
// object, counted when it is said again.
package event

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"berth.dev/berth/api/client"
)

// messageLimit is the longest message that Kubernetes takes, in bytes
// (ValidateEvent in k8s.io/kubernetes/pkg/apis/core/validation).
const messageLimit = 1024

// Recorder records events of one component. The fields must all be set.
type Recorder struct {
	Client    client.Client
	Component string
	// Node is the node that speaks; empty for the control plane.
	Node  string
	Clock clock.PassiveClock
	Log   *slog.Logger
}

// Normal records that something happened as it should.
func (r *Recorder) Normal(ctx context.Context, gvk schema.GroupVersionKind, about metav1.Object, reason, format string, args ...any) {
	r.record(ctx, gvk, about, corev1.EventTypeNormal, reason, fmt.Sprintf(format, args...))
}

// Warning records that something did not.
func (r *Recorder) Warning(ctx context.Context, gvk schema.GroupVersionKind, about metav1.Object, reason, format string, args ...any) {
	r.record(ctx, gvk, about, corev1.EventTypeWarning, reason, fmt.Sprintf(format, args...))
}

// record never fails its caller: an event that cannot be written is logged.
func (r *Recorder) record(ctx context.Context, gvk schema.GroupVersionKind, about metav1.Object, kind, reason, message string) {
	if len(message) > messageLimit {
		message = strings.ToValidUTF8(message[:messageLimit-3], "") + "..."
	}
	now := metav1.NewTime(r.Clock.Now())
	namespace := about.GetNamespace()
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	e := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace,
			Name:      name(about, kind, reason, message),
		},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: gvk.GroupVersion().String(),
			Kind:       gvk.Kind,
			Namespace:  about.GetNamespace(),
			Name:       about.GetName(),
			UID:        about.GetUID(),
		},
		Type:                kind,
		Reason:              reason,
		Message:             message,
		Source:              corev1.EventSource{Component: r.Component, Host: r.Node},
		ReportingController: r.Component,
		ReportingInstance:   r.Node,
		FirstTimestamp:      now,
		LastTimestamp:       now,
		Count:               1,
	}
	err := r.Client.Create(ctx, e)
	if apierrors.IsAlreadyExists(err) {
		err = r.count(ctx, client.Key(e), now)
	}
	// A Namespace that is being deleted takes no more of them: nothing is wrong.
	if err != nil && ctx.Err() == nil && !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		r.Log.Warn("write event", "object", namespace+"/"+about.GetName(), "reason", reason, "err", err)
	}
}

// count raises the count of an event that was said before.
func (r *Recorder) count(ctx context.Context, key types.NamespacedName, now metav1.Time) error {
	for {
		var e corev1.Event
		if err := r.Client.Get(ctx, key, &e); err != nil {
			return err
		}
		e.Count++
		e.LastTimestamp = now
		err := r.Client.Update(ctx, &e)
		if !apierrors.IsConflict(err) {
			return err
		}
	}
}

// name is the same for the same thing said of the same object.
func name(about metav1.Object, kind, reason, message string) string {
	sum := sha256.Sum256([]byte(string(about.GetUID()) + "\x00" + kind + "\x00" + reason + "\x00" + message))
	prefix := about.GetName()
	if len(prefix) > 200 {
		prefix = prefix[:200]
	}
	return prefix + "." + hex.EncodeToString(sum[:8])
}
