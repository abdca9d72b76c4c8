package pods

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// pull is the fetching of a container's image.
type pull struct {
	running bool
	cancel  context.CancelFunc
	backoff time.Duration
	until   time.Time
	image   *Image
	ref     string
	message string
}

// image returns the image of a container, or false with a reason to wait.
func (w *worker) image(ctx context.Context, c *corev1.Container) (Image, bool) {
	rec := w.rec.container(c.Name)
	p := w.pulls[c.Name]
	switch {
	case p != nil && p.running:
		return Image{}, false
	case p != nil && p.image != nil && p.ref == c.Image:
		image := *p.image
		delete(w.pulls, c.Name)
		return image, true
	}
	policy := pullPolicy(c)
	if policy != corev1.PullAlways || rec.Pulled {
		image, err := w.r.Images.Image(ctx, c.Image)
		if err == nil {
			if !rec.Pulled {
				rec.Pulled = true
				w.say(ctx, corev1.EventTypeNormal, "Pulled", fmt.Sprintf("Container image %q already present on machine", c.Image))
			}
			return image, true
		}
		if !errors.Is(err, ErrNoImage) {
			w.noImage(ctx, c, "ImageInspectError", err.Error())
			return Image{}, false
		}
		if policy == corev1.PullNever {
			w.noImage(ctx, c, "ErrImageNeverPull", fmt.Sprintf("image %q is not on this node and imagePullPolicy is Never: load it with `berth image load FILE`", c.Image))
			return Image{}, false
		}
	}
	if p != nil && w.r.Clock.Now().Before(p.until) {
		w.waiting[c.Name] = wait{"ImagePullBackOff", fmt.Sprintf("back-off pulling image %q: %s", c.Image, p.message)}
		return Image{}, false
	}
	w.beginPull(ctx, c, p)
	return Image{}, false
}

// noImage waits for an image that will not come by itself; a look every 10 s finds
// one that was loaded by hand.
func (w *worker) noImage(ctx context.Context, c *corev1.Container, reason, message string) {
	w.waiting[c.Name] = wait{reason, message}
	w.pulls[c.Name] = &pull{until: w.r.Clock.Now().Add(backoffFirst), message: message, ref: c.Image}
	w.sayOnce(ctx, corev1.EventTypeWarning, "Failed", message)
}

func (w *worker) beginPull(ctx context.Context, c *corev1.Container, former *pull) {
	inner, cancel := context.WithCancel(ctx)
	p := &pull{running: true, cancel: cancel, ref: c.Image}
	if former != nil && former.ref == c.Image {
		p.backoff = former.backoff
	}
	w.pulls[c.Name] = p
	w.waiting[c.Name] = wait{reasonCreating, fmt.Sprintf("pulling image %q", c.Image)}
	w.say(ctx, corev1.EventTypeNormal, "Pulling", fmt.Sprintf("Pulling image %q", c.Image))
	auth := w.credentials(ctx)
	name, ref := c.Name, c.Image
	w.r.group.Go(func() error {
		image, err := w.r.Images.Pull(inner, ref, auth)
		w.inbox.put(func(m *mail) { m.pulls = append(m.pulls, pullMail{name, image, err}) })
		return nil
	})
}

// pulled takes the result of a pull in.
func (w *worker) pulled(ctx context.Context, m pullMail) {
	p := w.pulls[m.name]
	if p == nil || !p.running {
		return
	}
	p.cancel()
	p.running = false
	if m.err == nil {
		p.image = &m.image
		w.rec.container(m.name).Pulled = true
		w.say(ctx, corev1.EventTypeNormal, "Pulled", fmt.Sprintf("Successfully pulled image %q", p.ref))
		return
	}
	p.backoff = nextBackoff(p.backoff)
	p.until = w.r.Clock.Now().Add(p.backoff)
	p.message = m.err.Error() + w.remedy(ctx, p.ref)
	w.waiting[m.name] = wait{"ErrImagePull", fmt.Sprintf("pull image %q: %s", p.ref, p.message)}
	w.say(ctx, corev1.EventTypeWarning, "Failed", fmt.Sprintf("Failed to pull image %q: %s", p.ref, p.message))
}

// remedy says what helps when a pull has failed.
func (w *worker) remedy(ctx context.Context, ref string) string {
	if _, err := w.r.Images.Image(ctx, ref); err == nil {
		return ": a copy is on this node, to use it set imagePullPolicy to IfNotPresent"
	}
	return ": correct the name, or load an image that was built locally with `berth image load FILE`"
}

// pullPolicy is the container's, or the default of its documentation.
func pullPolicy(c *corev1.Container) corev1.PullPolicy {
	if c.ImagePullPolicy != "" {
		return c.ImagePullPolicy
	}
	last := c.Image[strings.LastIndexByte(c.Image, '/')+1:]
	if !strings.Contains(last, ":") || strings.HasSuffix(last, ":latest") {
		return corev1.PullAlways
	}
	return corev1.PullIfNotPresent
}

// credentials reads imagePullSecrets. One that is missing or makes no sense is
// passed over: the registry's answer then says what it lacks.
func (w *worker) credentials(ctx context.Context) []Credential {
	var out []Credential
	for _, ref := range w.pod.Spec.ImagePullSecrets {
		secret, err := w.r.Config.Secret(ctx, w.pod.Namespace, ref.Name)
		if err != nil {
			w.sayOnce(ctx, corev1.EventTypeWarning, "FailedToRetrieveImagePullSecret", fmt.Sprintf("imagePullSecret %q: %s", ref.Name, err))
			continue
		}
		out = append(out, parseCredentials(secret)...)
	}
	return out
}

func parseCredentials(secret *corev1.Secret) []Credential {
	var config struct {
		Auths map[string]struct{ Username, Password, Auth string } `json:"auths"`
	}
	if json.Unmarshal(secret.Data[corev1.DockerConfigJsonKey], &config) != nil {
		return nil
	}
	var out []Credential
	for host, a := range config.Auths {
		if u, err := url.Parse(host); err == nil && u.Host != "" {
			host = u.Host
		}
		if host == "index.docker.io" {
			host = "docker.io"
		}
		if a.Auth != "" {
			if plain, err := base64.StdEncoding.DecodeString(a.Auth); err == nil {
				a.Username, a.Password, _ = strings.Cut(string(plain), ":")
			}
		}
		out = append(out, Credential{Registry: host, Username: a.Username, Password: a.Password})
	}
	return out
}
