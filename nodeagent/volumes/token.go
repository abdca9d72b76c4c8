package volumes

import (
	"context"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
)

// Tokens gets the tokens of service accounts that pods mount.
type Tokens interface {
	// Token returns what the file is to hold: have, which it holds now, while that
	// is good; empty when there is none and none can be had now. A *pods.WaitError
	// says what is missing.
	Token(ctx context.Context, pod *corev1.Pod, audience string, seconds int64, have []byte) ([]byte, error)
	// Drop forgets a pod.
	Drop(uid string)
}

const (
	// tokenLife is that of a token whose volume says none, in seconds
	// (ServiceAccountTokenProjection.expirationSeconds).
	tokenLife = 3600
	// tokenMode is for a file that belongs to the one user or group that reads it.
	tokenMode = 0o600
)

// token is the file with a token of the pod's service account.
func (v *Volumes) token(ctx context.Context, pod *corev1.Pod, volume string, s *corev1.ServiceAccountTokenProjection, mode int32) (map[string]file, error) {
	if err := checkName(s.Path); err != nil {
		return nil, err
	}
	seconds := int64(tokenLife)
	if s.ExpirationSeconds != nil {
		seconds = *s.ExpirationSeconds
	}
	have, err := os.ReadFile(filepath.Join(v.Dir, string(pod.UID), volume, s.Path))
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	data, err := v.Tokens.Token(ctx, pod, s.Audience, seconds, have)
	if err != nil || len(data) == 0 {
		return nil, err
	}
	f := file{data: data, mode: mode, owner: soleUser(pod)}
	if f.owner >= 0 || fsGroup(pod) >= 0 {
		f.mode = tokenMode
	}
	return map[string]file{s.Path: f}, nil
}

// soleUser is the user that all containers of the pod run as, or -1.
func soleUser(pod *corev1.Pod) int {
	var common *int64
	if sc := pod.Spec.SecurityContext; sc != nil {
		common = sc.RunAsUser
	}
	sole := -1
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for _, c := range list {
			user := common
			if c.SecurityContext != nil && c.SecurityContext.RunAsUser != nil {
				user = c.SecurityContext.RunAsUser
			}
			if user == nil || (sole >= 0 && sole != int(*user)) {
				return -1
			}
			sole = int(*user)
		}
	}
	return sole
}
