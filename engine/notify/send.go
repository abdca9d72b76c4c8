package notify

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/v1alpha1"
)

const (
	// attempts to send one message, with waits between them.
	attempts     = 3
	firstRetry   = 2 * time.Second
	sendTimeout  = 10 * time.Second
	longestReply = 4 << 10
	// SignatureHeader holds "sha256=" and the HMAC of the body, in hexadecimal.
	SignatureHeader = "X-Berth-Signature-256"

	keyURL    = "url"
	keySecret = "secret"
)

// Message is the body for a Generic receiver.
type Message struct {
	Source string `json:"source"`
	// State is failed or recovered.
	State   string `json:"state"`
	Reason  string `json:"reason"`
	Message string `json:"message,omitempty"`
	Commit  string `json:"commit,omitempty"`
	Subject string `json:"subject,omitempty"`
	Author  string `json:"author,omitempty"`
	// Applied is the commit that the cluster runs.
	Applied string    `json:"applied,omitempty"`
	Time    time.Time `json:"time"`
}

func messageOf(s *v1alpha1.Source, n news, now time.Time) Message {
	m := Message{Source: s.Name, State: "recovered", Reason: v1alpha1.ReasonSucceeded, Time: now.UTC()}
	if n != (news{}) {
		m.State, m.Reason = "failed", n.reason
		m.Message = meta.FindStatusCondition(s.Status.Conditions, v1alpha1.ConditionReady).Message
	}
	if c := s.Status.Observed; c != nil {
		m.Commit, m.Subject, m.Author = c.ID, c.Subject, c.Author
	}
	if s.Status.Applied != nil {
		m.Applied = s.Status.Applied.ID
	}
	return m
}

// slack is the message as Slack and its like show it. What comes from Git is
// escaped: it mentions nobody and links nowhere.
func (m Message) slack() string {
	escape := strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace
	sign := ":white_check_mark:"
	if m.State == "failed" {
		sign = ":x:"
	}
	text := fmt.Sprintf("%s *%s* %s", sign, escape(m.Source), m.State)
	if m.State == "failed" {
		text += ": " + escape(m.Reason)
	}
	if m.Commit != "" {
		text += fmt.Sprintf("\ncommit %s %s", escape(m.Commit[:min(len(m.Commit), 10)]), escape(m.Subject))
	}
	if m.Author != "" {
		text += ", by " + escape(m.Author)
	}
	if m.Message != "" {
		text += "\n" + escape(m.Message)
	}
	return text
}

// tell sends to all receivers at once; one that is dead holds no other up.
func (n *Notifier) tell(ctx context.Context, src *v1alpha1.Source, what news) {
	m := messageOf(src, what, n.Clock.Now())
	var all sync.WaitGroup
	for i := range src.Spec.Notifications {
		all.Go(func() {
			if err := n.sendTo(ctx, src, &src.Spec.Notifications[i], m); err != nil && ctx.Err() == nil {
				n.Log.Warn("notify", "source", src.Name, "receiver", i, "err", err)
				n.events.Warning(ctx, v1alpha1.GroupVersion.WithKind("Source"), src, "NotificationFailed", "spec.notifications[%d]: %v", i, err)
			}
		})
	}
	all.Wait()
}

// sendTo tries a few times. The Secret is read anew each time.
func (n *Notifier) sendTo(ctx context.Context, src *v1alpha1.Source, to *v1alpha1.Notification, m Message) (err error) {
	for try := range attempts {
		if try > 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-n.Clock.After(firstRetry << (2 * (try - 1))):
			}
		}
		if err = n.send(ctx, src, to, m); err == nil {
			return nil
		}
	}
	return err
}

// send is one attempt. The address is a secret: no error holds it.
func (n *Notifier) send(ctx context.Context, src *v1alpha1.Source, to *v1alpha1.Notification, m Message) error {
	key := types.NamespacedName{Namespace: cmp.Or(to.SecretNamespace, src.Spec.TargetNamespace), Name: to.SecretName}
	var secret corev1.Secret
	if err := n.Client.Get(ctx, key, &secret); apierrors.IsNotFound(err) {
		return fmt.Errorf("the Secret %s is not there; create it with the key %s", key, keyURL)
	} else if err != nil {
		return err
	}
	address, err := url.Parse(strings.TrimSpace(string(secret.Data[keyURL])))
	if err != nil || address.Host == "" {
		return fmt.Errorf("the key %s of the Secret %s is no URL", keyURL, key)
	}
	if address.Scheme != "https" && !(address.Scheme == "http" && n.AllowHTTP) {
		return fmt.Errorf("the key %s of the Secret %s must be an https URL", keyURL, key)
	}
	var content any = m
	if to.Type == v1alpha1.NotificationSlack {
		content = map[string]string{"text": m.slack()}
	}
	body, err := json.Marshal(content)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address.String(), bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("the key %s of the Secret %s is no URL", keyURL, key)
	}
	req.Header.Set("Content-Type", "application/json")
	if s := secret.Data[keySecret]; len(s) > 0 && to.Type != v1alpha1.NotificationSlack {
		mac := hmac.New(sha256.New, s)
		mac.Write(body)
		req.Header.Set(SignatureHeader, "sha256="+hex.EncodeToString(mac.Sum(nil)))
	}
	response, err := n.HTTP.Do(req)
	if err != nil {
		return fmt.Errorf("the receiver is not reached: %w", cause(err))
	}
	defer func() { _ = response.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, longestReply)) // so that the connection can be used again
	if response.StatusCode < 200 || response.StatusCode > 299 {
		return fmt.Errorf("the receiver answered %s", response.Status)
	}
	return nil
}

// cause is an error without the URL that net/http puts around it.
func cause(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
