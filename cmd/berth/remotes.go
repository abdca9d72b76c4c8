package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/sources/forge"
	"berth.dev/berth/sources/git"
)

const (
	// tokenUser stands in where a Secret has a token and no username: the
	// forges take any name then.
	tokenUser = "x-access-token"
	// keyKnownHosts is where Kubernetes has no name of its own.
	keyKnownHosts = "known_hosts"
	keyToken      = "token"
	keyCA         = "ca.crt"
	keyWebhook    = "secret"
	// keyApp and those that begin with it are of a GitHub App.
	keyApp             = "githubAppID"
	keyAppInstallation = "githubAppInstallationID"
	keyAppPrivateKey   = "githubAppPrivateKey"
	keyAppBaseURL      = "githubAppBaseURL"
)

// remoteCredentials reads what opens the remote of a Source out of its Secret, anew
// for each fetch: a changed Secret counts from the next one.
func remoteCredentials(c client.Client, apps *forge.Apps) func(context.Context, *v1alpha1.Source) (git.Credentials, error) {
	return func(ctx context.Context, src *v1alpha1.Source) (git.Credentials, error) {
		ref := src.Spec.Credentials
		key := types.NamespacedName{Namespace: cmp.Or(ref.SecretNamespace, src.Spec.TargetNamespace), Name: ref.SecretName}
		var s corev1.Secret
		if err := c.Get(ctx, key, &s); apierrors.IsNotFound(err) {
			return git.Credentials{}, fmt.Errorf("the Secret %s is not there; create it with username and password, with token, or with ssh-privatekey and known_hosts", key)
		} else if err != nil {
			return git.Credentials{}, err
		}
		out := git.Credentials{
			Username: string(s.Data[corev1.BasicAuthUsernameKey]), Password: string(s.Data[corev1.BasicAuthPasswordKey]),
			CA: s.Data[keyCA], Key: s.Data[corev1.SSHAuthPrivateKey], KnownHosts: s.Data[keyKnownHosts],
			InsecureIgnoreHostKey: ref.InsecureIgnoreHostKey,
		}
		if token := s.Data[keyToken]; len(token) > 0 {
			out.Username, out.Password = cmp.Or(out.Username, tokenUser), string(token)
		}
		if id := s.Data[keyApp]; len(id) > 0 {
			app := forge.App{ID: text(id), Installation: text(s.Data[keyAppInstallation]), Key: s.Data[keyAppPrivateKey], BaseURL: text(s.Data[keyAppBaseURL])}
			if app.Installation == "" || len(app.Key) == 0 {
				return git.Credentials{}, fmt.Errorf("the Secret %s has %s and lacks %s or %s", key, keyApp, keyAppInstallation, keyAppPrivateKey)
			}
			token, err := apps.Token(ctx, app)
			if err != nil {
				return git.Credentials{}, err
			}
			out.Username, out.Password = tokenUser, token
		}
		if len(out.Key) > 0 {
			out.Passphrase = s.Data[corev1.BasicAuthPasswordKey]
		}
		if out.Password == "" && len(out.Key) == 0 && len(out.CA) == 0 {
			return git.Credentials{}, fmt.Errorf("the Secret %s has none of password, token, ssh-privatekey, githubAppID and ca.crt", key)
		}
		return out, nil
	}
}

// text is a value that people write into a Secret with an editor.
func text(value []byte) string { return strings.TrimSpace(string(value)) }

// newHooks takes webhooks. A call becomes an annotation on its Source, so that
// whichever server leads looks.
func newHooks(c client.Client, now clock.Clock, log *slog.Logger) *forge.Hooks {
	return forge.NewHooks(forge.Options{
		Clock: now, Log: log,
		Secret: func(ctx context.Context, source string) ([]byte, error) { return webhookSecret(ctx, c, source) },
		Look: func(ctx context.Context, source string) error {
			return requestSync(ctx, c, source, now.Now())
		},
	})
}

func webhookSecret(ctx context.Context, c client.Client, source string) ([]byte, error) {
	var src v1alpha1.Source
	if err := c.Get(ctx, types.NamespacedName{Name: source}, &src); err != nil {
		return nil, err
	}
	if src.Spec.Webhook == nil {
		return nil, forge.ErrNoSecret
	}
	key := types.NamespacedName{Namespace: cmp.Or(src.Spec.Webhook.SecretNamespace, src.Spec.TargetNamespace), Name: src.Spec.Webhook.SecretName}
	var s corev1.Secret
	if err := c.Get(ctx, key, &s); err != nil {
		return nil, err
	}
	if len(s.Data[keyWebhook]) == 0 {
		return nil, fmt.Errorf("the Secret %s has no %s", key, keyWebhook)
	}
	return s.Data[keyWebhook], nil
}

// requestSync asks the engine that leads for a look at a Source.
func requestSync(ctx context.Context, c client.Client, source string, now time.Time) error {
	for range updateAttempts {
		var src v1alpha1.Source
		if err := c.Get(ctx, types.NamespacedName{Name: source}, &src); err != nil {
			return err
		}
		annotate(&src, v1alpha1.AnnotationSync, now.UTC().Format(time.RFC3339Nano))
		if err := c.Update(ctx, &src); !apierrors.IsConflict(err) {
			return err
		}
	}
	return fmt.Errorf("the Source %s keeps changing", source)
}
