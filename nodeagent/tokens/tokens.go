// Package tokens gets the tokens of service accounts that pods mount, and has
// them made anew before they end. It owns no files: what a pod's volume holds is
// handed in, and kept while it is good. A pod never stops, and never waits, for
// want of the control plane: the token that it has stays.
package tokens

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"berth.dev/berth/api/client"
	"berth.dev/berth/nodeagent/pods"
	"berth.dev/berth/nodeagent/volumes"
)

const (
	// maxAge is when a token is made anew at the latest, as in Kubernetes.
	maxAge = 24 * time.Hour
	// patience is how long a pod waits for the control plane's answer.
	patience = 2 * time.Second
	// retryFirst and retryMax bound the waits after a failure.
	retryFirst = 200 * time.Millisecond
	retryMax   = 30 * time.Second
)

// Options are what a Keeper is made of. All must be set.
type Options struct {
	Client client.Client
	Clock  clock.Clock
	Log    *slog.Logger
	// Due is told which pods must ask again.
	Due func(uids []string)
}

// Keeper knows when each pod must ask again.
type Keeper struct {
	Options
	woken chan struct{}

	mu   sync.Mutex
	pods map[string]*turn
}

// turn is when a pod asks again; wait is the last one after a failure.
type turn struct {
	at   time.Time
	wait time.Duration
	// made has, by what was asked for, whether this process made the token.
	made map[string]bool
}

var _ volumes.Tokens = (*Keeper)(nil)

// New makes a Keeper. Run must be running for tokens to be made anew.
func New(o Options) *Keeper {
	return &Keeper{Options: o, woken: make(chan struct{}, 1), pods: map[string]*turn{}}
}

// Run tells pods when they must ask again, until the context ends.
func (k *Keeper) Run(ctx context.Context) error {
	timer := k.Clock.NewTimer(maxAge)
	defer timer.Stop()
	for {
		due, next := k.due()
		if len(due) > 0 {
			k.Due(due)
		}
		timer.Reset(next)
		select {
		case <-ctx.Done():
			return nil
		case <-k.woken:
		case <-timer.C():
		}
	}
}

// due are the pods whose time has come, and how long it is to the next one.
func (k *Keeper) due() (uids []string, next time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.Clock.Now()
	next = maxAge
	for uid, t := range k.pods {
		switch {
		case t.at.IsZero():
		case !t.at.After(now):
			t.at = time.Time{}
			uids = append(uids, uid)
		default:
			next = min(next, t.at.Sub(now))
		}
	}
	return uids, next
}

// Drop implements volumes.Tokens.
func (k *Keeper) Drop(uid string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.pods, uid)
}

// Token implements volumes.Tokens.
func (k *Keeper) Token(ctx context.Context, pod *corev1.Pod, audience string, seconds int64, have []byte) ([]byte, error) {
	now := k.Clock.Now()
	asked := fmt.Sprintf("%s %d", audience, seconds)
	if at, ok := renewal(have); ok && now.Before(at) && k.made(pod, asked) {
		k.again(pod, asked, at)
		return have, nil
	}
	fresh, err := k.request(ctx, pod, audience, seconds)
	if err == nil {
		at, ok := renewal(fresh)
		if !ok { // of a form that we cannot read: half of what was asked for
			at = now.Add(time.Duration(seconds) * time.Second / 2)
		}
		k.again(pod, asked, at)
		return fresh, nil
	}
	first := k.failed(pod, now)
	if len(have) > 0 || away(err) {
		level := slog.LevelDebug
		if first {
			level = slog.LevelWarn
		}
		k.Log.Log(ctx, level, "the token of a pod cannot be made now; it keeps what it has", "pod", pod.Namespace+"/"+pod.Name, "err", err)
		return have, nil
	}
	if apierrors.IsNotFound(err) {
		return nil, &pods.WaitError{Reason: "FailedMount", Message: fmt.Sprintf("ServiceAccount %q is not there: create it", pod.Spec.ServiceAccountName)}
	}
	return nil, fmt.Errorf("request a token for ServiceAccount %q: %w", pod.Spec.ServiceAccountName, err)
}

func (k *Keeper) request(ctx context.Context, pod *corev1.Pod, audience string, seconds int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	t := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: &seconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
	}}
	if audience != "" {
		t.Spec.Audiences = []string{audience}
	}
	err := k.Client.RequestToken(ctx, types.NamespacedName{Namespace: pod.Namespace, Name: pod.Spec.ServiceAccountName}, t)
	return []byte(t.Status.Token), err
}

// away: the control plane cannot be asked now. That is no fault of the pod's.
func away(err error) bool {
	var status apierrors.APIStatus
	return !errors.As(err, &status) || apierrors.IsInternalError(err) || apierrors.IsServiceUnavailable(err) ||
		apierrors.IsTimeout(err) || apierrors.IsServerTimeout(err) || apierrors.IsTooManyRequests(err)
}

// made tells whether this process made a pod's token. One of an earlier process
// is made anew when it can be: the control plane may have been restored since,
// and not know it.
func (k *Keeper) made(pod *corev1.Pod, asked string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	t := k.pods[string(pod.UID)]
	return t != nil && t.made[asked]
}

// turn of a pod. The caller holds mu.
func (k *Keeper) turn(pod *corev1.Pod) *turn {
	t := k.pods[string(pod.UID)]
	if t == nil {
		t = &turn{made: map[string]bool{}}
		k.pods[string(pod.UID)] = t
	}
	return t
}

// again notes when a pod must ask next; the earliest of its tokens counts.
func (k *Keeper) again(pod *corev1.Pod, asked string, at time.Time) {
	k.mu.Lock()
	t := k.turn(pod)
	t.made[asked] = true
	if t.wait = 0; t.at.IsZero() || at.Before(t.at) {
		t.at = at
	}
	k.mu.Unlock()
	k.wake()
}

// failed notes that a pod asks again soon, and tells whether it is the first time.
func (k *Keeper) failed(pod *corev1.Pod, now time.Time) (first bool) {
	k.mu.Lock()
	t := k.turn(pod)
	first = t.wait == 0
	t.wait = min(max(2*t.wait, retryFirst), retryMax)
	if at := now.Add(t.wait); t.at.IsZero() || at.Before(t.at) {
		t.at = at
	}
	k.mu.Unlock()
	k.wake()
	return first
}

func (k *Keeper) wake() {
	select {
	case k.woken <- struct{}{}:
	default:
	}
}

// renewal is when a token is to be made anew: after four fifths of its life, or
// a day. The token's own words are believed, for it is only about ourselves.
func renewal(token []byte) (time.Time, bool) {
	parts := strings.Split(strings.TrimSpace(string(token)), ".")
	if len(parts) != 3 {
		return time.Time{}, false
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	var claims struct{ Iat, Exp int64 }
	if err != nil || json.Unmarshal(payload, &claims) != nil || claims.Iat == 0 || claims.Exp <= claims.Iat {
		return time.Time{}, false
	}
	life := time.Duration(claims.Exp-claims.Iat) * time.Second
	return time.Unix(claims.Iat, 0).Add(min(life/5*4, maxAge)), true
}
