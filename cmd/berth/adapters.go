package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/manifest"
	"berth.dev/berth/api/revision"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/cue"
	"berth.dev/berth/engine/apiserver"
	"berth.dev/berth/engine/live"
	"berth.dev/berth/engine/resources"
	"berth.dev/berth/engine/sync"
	"berth.dev/berth/nodeagent"
	"berth.dev/berth/sources/git"
	"berth.dev/berth/sources/receive"
	"berth.dev/berth/sources/signature"
)

// revisions fetches from the built-in endpoint or from a remote.
type revisions struct {
	builtIn *receive.Server // nil where several servers share a store
	remote  *git.Fetcher
}

var _ sync.Fetcher = (*revisions)(nil)

// Fetch implements sync.Fetcher.
func (f *revisions) Fetch(ctx context.Context, src *v1alpha1.Source) (revision.Revision, error) {
	var rev revision.Revision
	var err error
	if src.Spec.URL == "" && f.builtIn == nil {
		err = errNoURL
	} else if src.Spec.URL == "" {
		rev, err = f.builtIn.Revision(ctx, src.Name, src.Spec.Ref, src.Spec.Path)
	} else {
		rev, err = f.remote.Fetch(ctx, src)
	}
	if err == nil {
		err = trust(src, &rev)
	}
	if err == nil {
		return rev, nil
	}
	reason := v1alpha1.ReasonFetchFailed
	var noRef *git.ErrRefNotFound
	var untrusted *signature.Error
	var large *git.ErrTooLarge
	switch {
	case errors.As(err, &large):
		reason = v1alpha1.ReasonTooLarge
	case errors.As(err, &untrusted):
		reason = v1alpha1.ReasonVerifyFailed
	case errors.Is(err, git.ErrEmptyRepository):
		reason = v1alpha1.ReasonEmptyRepository
	case errors.As(err, &noRef), errors.Is(err, receive.ErrNotFound):
		reason = v1alpha1.ReasonRefNotFound
	}
	return rev, &sync.FetchError{Reason: reason, Err: err}
}

// trust notes who signed a revision, if its Source wants to know that; the error
// is a *signature.Error when nobody did whom it trusts.
func trust(src *v1alpha1.Source, rev *revision.Revision) (err error) {
	if src.Spec.Verify != nil {
		rev.SignedBy, err = signature.Verify(*src.Spec.Verify, *rev, time.Now())
	}
	return err
}

// errNoURL: what is pushed to a server is on its disk alone, and any server may lead.
var errNoURL = errors.New("a cluster of several servers keeps no repositories of its own: push to a Git server, and name it in the url of a Source (kubectl apply)")

// manifests compiles with CUE.
type manifests struct {
	compiler *cue.Compiler
	// decryption opens encrypted files where there is no Source that says how; it
	// may be nil.
	decryption *cue.Decryption
}

var _ sync.Compiler = (*manifests)(nil)

// Compile implements sync.Compiler.
func (c *manifests) Compile(ctx context.Context, rev revision.Revision, o sync.CompileOptions) (manifest.Set, error) {
	kinds := cue.KindSet{}
	for _, k := range o.Kinds {
		kinds[k.GroupKind()] = true
	}
	limits := cue.DefaultLimits()
	if o.Limits != nil && o.Limits.Memory != nil {
		limits.Memory = o.Limits.Memory.Value()
	}
	if o.Limits != nil && o.Limits.Timeout != nil {
		limits.Timeout = o.Limits.Timeout.Duration
	}
	decryption := decryptionOf(o.Decryption)
	if c.decryption != nil {
		decryption = *c.decryption
	}
	return c.compiler.Compile(ctx, rev, cue.Options{
		Source: o.Source, Path: o.Path, TargetNamespace: o.TargetNamespace, Kinds: kinds, Limits: limits, Decryption: decryption,
	})
}

// pushGate compiles and plans a push before it is accepted.
type pushGate struct {
	engine    *sync.Engine
	views     *live.Cluster
	resources *resources.Resources
	// shared: other servers may fetch what this one keeps.
	shared bool
	log    *slog.Logger
}

var _ receive.Gate = (*pushGate)(nil)

// source is the Source of a repository, or the one that a first push makes.
func (g *pushGate) source(name string) *v1alpha1.Source {
	if src, ok := g.views.Sources.Get(types.NamespacedName{Name: name}); ok {
		return src
	}
	src := &v1alpha1.Source{ObjectMeta: metav1.ObjectMeta{Name: name}}
	v1alpha1.SetDefaults(src)
	return src
}

// Check implements receive.Gate.
func (g *pushGate) Check(ctx context.Context, p receive.Push, out io.Writer) error {
	src := g.source(p.Repository)
	if src.Spec.URL != "" {
		return fmt.Errorf("Source %s deploys from %s: push there", src.Name, src.Spec.URL)
	}
	if g.shared {
		return errNoURL
	}
	branch, isBranch := strings.CutPrefix(p.Ref, "refs/heads/")
	deployed := isBranch && branch == src.Spec.Ref.Branch
	if p.Deletes() {
		if deployed {
			return fmt.Errorf("%s is the branch that Source %s deploys; it cannot be deleted", branch, src.Name)
		}
		return nil
	}
	tag, isTag := strings.CutPrefix(p.Ref, "refs/tags/")
	deployed = deployed || isTag && tag == src.Spec.Ref.Tag && tag != ""
	if !isBranch && !deployed {
		return nil
	}
	rev, err := p.At(src.Spec.Path)
	if err != nil {
		return fmt.Errorf("read the push: %w", err)
	}
	if err := trust(src, &rev); err != nil && deployed {
		return fmt.Errorf("%w; nothing was changed", err)
	} else if err != nil {
		fmt.Fprintf(out, "%s cannot be deployed as it is: %s\n", strings.TrimPrefix(p.Ref, "refs/"), err)
	}
	done := patiently(out, sayEvery, "compiling and planning the push")
	result, err := g.engine.Check(ctx, src, rev)
	done()
	if err != nil {
		return err
	}
	for _, d := range result.Diagnostics {
		fmt.Fprintln(out, d)
	}
	if result.Failed() {
		if deployed {
			return fmt.Errorf("%s; nothing was changed", errorCount(result.Diagnostics))
		}
		fmt.Fprintf(out, "branch %s does not compile; it is kept, but cannot be deployed as it is\n", branch)
		return nil
	}
	io.WriteString(out, result.Plan.Text())
	if deployed && result.Held != "" {
		fmt.Fprintf(out, "held: the push %s; to go ahead: berth approve %s, or a commit with the trailer \"%s: true\"\n", result.Held, src.Name, v1alpha1.TrailerAllowPrune)
	}
	if later := result.Later; deployed && later.Reason != "" {
		fmt.Fprintf(out, "later: it %s\n", later.Message)
	}
	if !deployed {
		fmt.Fprintf(out, "branch %s is not deployed (Source %s deploys %s): this is what it would change\n", branch, src.Name, src.Spec.Ref.Branch)
	}
	return nil
}

func errorCount(ds []v1alpha1.Diagnostic) string {
	n := 0
	for _, d := range ds {
		if d.Severity == v1alpha1.SeverityError {
			n++
		}
	}
	if n == 1 {
		return "1 error"
	}
	return fmt.Sprintf("%d errors", n)
}

// Accepted implements receive.Gate.
func (g *pushGate) Accepted(ctx context.Context, p receive.Push) {
	at := time.Now()
	src := g.source(p.Repository)
	if src.UID == "" && !p.Deletes() {
		err := g.resources.Create(ctx, src.DeepCopy())
		if err != nil && !apierrors.IsAlreadyExists(err) {
			g.log.Warn("create source", "source", p.Repository, "err", err)
			return
		}
	}
	g.engine.Pushed(p.Repository, at)
}

// sessions connects clients with the containers of this node.
type sessions struct{ agent *nodeagent.Agent }

var _ apiserver.Streams = (*sessions)(nil)

// Exec implements apiserver.Streams.
func (s *sessions) Exec(ctx context.Context, containerID string, command []string, t apiserver.Terminal) (int, error) {
	return s.agent.Exec(ctx, containerID, nodeagent.Process{Command: command, TTY: t.TTY, Terminal: terminal(t)})
}

// Attach implements apiserver.Streams.
func (s *sessions) Attach(ctx context.Context, pod *corev1.Pod, container string, t apiserver.Terminal) error {
	return s.agent.Attach(ctx, pod.Namespace, pod.Name, container, terminal(t))
}

func terminal(t apiserver.Terminal) nodeagent.Terminal {
	return nodeagent.Terminal{Stdin: t.Stdin, Stdout: t.Stdout, Stderr: t.Stderr, Resize: t.Resize}
}

// Dial implements apiserver.Streams.
func (s *sessions) Dial(ctx context.Context, pod *corev1.Pod, port int32) (net.Conn, error) {
	return s.agent.Dial(ctx, pod.Status.PodIP, port)
}
